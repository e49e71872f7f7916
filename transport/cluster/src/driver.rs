//! Drives the replica: messages, time and metadata in; messages, proposals and orders out. One task.

use crate::config::{ClusterConfig, Incarnations};
use crate::kept::Kept;
use crate::links::Links;
use crate::machine::Inputs;
use crate::metadata::{Proposals, Refused};
use crate::node::{Ended, ReplicaStatus};
use crate::snapshots::Snapshots;
use crate::view::Acks;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_live::IngestHandle;
use tidegate_live::replication::{Input, Order, ReplicationDriver, Submission};
use tidegate_replica::{
    Body, Command, Entry, Member, Message, MetaStore, NodeId, Output, Replica, Role, Submitted,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// One tick of the replica.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Messages taken between two looks at the rest.
const MESSAGES_TURN: usize = 256;
/// Submissions taken between two looks at the rest.
const SUBMISSIONS_TURN: usize = 64;
/// Inputs in one order.
const ORDER_INPUTS: usize = 32;
/// Ticks between two attempts to register.
const REGISTER_TICKS: u64 = 10;
/// What may be in the log and not committed; with more, feeds wait.
const FLIGHT_ENTRIES: usize = 2_048;
const FLIGHT_BYTES: usize = 64 << 20;
/// What the log may grow to: all of it that is not cut off behind a snapshot is in memory. A leader whose log is full takes nothing more.
pub(crate) const LOG_BYTES_MAX: u64 = 4 << 30;
/// All inputs are of one source to the replica: which feed sent what is in the inputs.
pub(crate) const SOURCE: u32 = 0;

/// What ingest was told last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Lead(u32),
    Follow(Option<NodeId>, u32),
}

pub(crate) struct Driver {
    pub(crate) config: ClusterConfig,
    pub(crate) links: Arc<Links>,
    pub(crate) proposals: Proposals,
    pub(crate) refused: mpsc::Receiver<Refused>,
    pub(crate) inbox: mpsc::Receiver<(NodeId, Message<Bytes>)>,
    pub(crate) port: ReplicationDriver,
    pub(crate) ingest: IngestHandle,
    pub(crate) replica: Replica<Inputs>,
    /// The replica's log in a file.
    pub(crate) kept: Kept,
    /// Its snapshots.
    pub(crate) snapshots: Snapshots,
    pub(crate) incarnations: Incarnations,
    /// Whether it has less than the incarnation before it acknowledged.
    pub(crate) lossy: bool,
    pub(crate) status: Arc<Mutex<ReplicaStatus>>,
    pub(crate) work: Work,
}

/// What the driver keeps for itself.
pub(crate) struct Work {
    /// Offset up to which ingest has its orders.
    ordered: u64,
    told: Told,
    tick: u64,
    registered: u64,
    /// Offsets behind inputs taken in here, and their bytes, until they are committed.
    flight: VecDeque<(u64, usize)>,
    flight_bytes: usize,
    outputs: Vec<Output<Bytes>>,
    /// What followers acknowledged, to be shown.
    acks: Acks,
}

impl Work {
    /// Of a node whose engine has everything up to `ordered`.
    pub(crate) fn from(ordered: u64) -> Self {
        Self {
            ordered,
            told: Told::Nothing,
            tick: 0,
            registered: 0,
            flight: VecDeque::new(),
            flight_bytes: 0,
            outputs: Vec::new(),
            acks: Acks::default(),
        }
    }
}

impl Driver {
    /// Drives until the node is to end, or cannot go on with what it has.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Ended {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Err(ended) = self.metadata() {
            return ended;
        }
        self.keep();
        loop {
            let room = self.has_room();
            let taken = Arc::clone(&self.port.taken);
            tokio::select! {
                _ = &mut stop => return Ended::Asked,
                _ = ticks.tick() => {
                    self.work.tick += 1;
                    self.replica.tick(self.work.tick);
                    self.register();
                    self.tell_followers();
                }
                changed = self.proposals.watched.changed() => {
                    if changed.is_err() {
                        return Ended::Metadata;
                    }
                    if let Err(ended) = self.metadata() {
                        return ended;
                    }
                }
                Some(Refused { command, overtaken }) = self.refused.recv() => {
                    self.replica.rejected(&command, overtaken);
                }
                Ok(written) = self.port.written.recv_async() => {
                    self.snapshots.written(written);
                    self.keep();
                }
                Some((_, message)) = self.inbox.recv() => {
                    self.work.acks.note(&message);
                    self.replica.receive(message);
                    for _ in 0..MESSAGES_TURN {
                        let Ok((_, message)) = self.inbox.try_recv() else { break };
                        self.work.acks.note(&message);
                        self.replica.receive(message);
                    }
                }
                Ok(submission) = self.port.submissions.recv_async(), if room => {
                    self.submit(submission);
                    for _ in 0..SUBMISSIONS_TURN {
                        if !self.has_room() {
                            break;
                        }
                        let Ok(submission) = self.port.submissions.try_recv() else { break };
                        self.submit(submission);
                    }
                }
                () = taken.notified() => {}
            }
            if let Err(ended) = self.outputs() {
                self.give_up(&ended);
                return ended;
            }
            self.order();
            self.snapshot();
            self.tell();
        }
    }

    /// Whether more may be taken in. Who does not lead takes all there is, for nothing.
    fn has_room(&self) -> bool {
        let Work { flight, flight_bytes, .. } = &self.work;
        flight.len() < FLIGHT_ENTRIES && *flight_bytes < FLIGHT_BYTES && self.kept.bytes() < LOG_BYTES_MAX
    }

    fn submit(&mut self, Submission { epoch, input }: Submission) {
        // Of another epoch: its feeds were sent away, and send it again to whoever leads now.
        if self.replica.role() != Role::Leader || self.replica.epoch() != epoch {
            return;
        }
        let bytes = input.bytes().len();
        let sequence = self.replica.last(SOURCE) + 1;
        let became = self.replica.submit(SOURCE, sequence, input.bytes().clone());
        // Room was looked at before, and it leads.
        debug_assert_eq!(became, Submitted::Accepted);
        if became == Submitted::Accepted {
            self.work.flight.push_back((self.replica.log().end(), bytes));
            self.work.flight_bytes += bytes;
        }
    }

    /// Metadata is news: registers if it must, and the replica does as it is told.
    fn metadata(&mut self) -> Result<(), Ended> {
        self.proposals.refresh();
        let me = self.replica.me();
        let Some(known) = self.proposals.state().nodes.get(&me.node).copied() else { return Ok(()) };
        let over = known.incarnation == me.incarnation && known.fenced;
        if over || known.incarnation > me.incarnation {
            // It was given up, and is here: somebody new, with its memory. Or its folder is older than the cluster.
            self.lossy |= known.incarnation > me.incarnation;
            let next = known.incarnation + 1;
            if let Err(error) = self.incarnations.note(next) {
                return Err(Ended::Incarnation(error.to_string()));
            }
            self.replica.reincarnate(next);
            self.work.registered = 0;
        }
        self.register();
        if known.incarnation == self.replica.me().incarnation {
            self.lossy = false;
            self.replica.on_meta(self.proposals.state());
        }
        Ok(())
    }

    /// Makes itself known, now and then until it is.
    fn register(&mut self) {
        let member = self.replica.me();
        let known = self.proposals.state().nodes.get(&member.node).map_or(0, |known| known.incarnation);
        let due = self.work.registered == 0 || self.work.tick >= self.work.registered + REGISTER_TICKS;
        if known < member.incarnation && due {
            self.work.registered = self.work.tick.max(1);
            self.proposals.propose(Command::Register { member, lossy: self.lossy });
        }
    }

    fn outputs(&mut self) -> Result<(), Ended> {
        let mut outputs = std::mem::take(&mut self.work.outputs);
        self.replica.drain(&mut outputs);
        // First of all, so that nothing is said about entries that a restart would not find.
        let persist = outputs.iter().filter_map(|output| match output {
            Output::Persist(from) => Some(*from),
            _ => None,
        });
        let persist = persist.min();
        self.persist(persist).map_err(|error| Ended::Log(error.to_string()))?;
        // Whatever it had, and the engine with it, is of a history that is over.
        let mut ended =
            (persist == Some(0) && self.work.ordered > 0).then(|| Ended::Lineage(self.replica.lineage()));
        for output in outputs.drain(..) {
            match output {
                Output::Send(node, message) => self.links.send(node, message),
                Output::Propose(command) => self.proposals.propose(command),
                Output::Diverged(at) => ended = Some(Ended::Diverged(at)),
                Output::Read { .. } | Output::Take { .. } | Output::Hash(_) | Output::Install { .. } => {
                    if let Err(why) = self.pieces(output) {
                        ended = ended.or(Some(why));
                    }
                }
                // What is committed is read off the log, which is written already.
                Output::Acked { .. } | Output::Publish { .. } | Output::Persist(_) => {}
            }
        }
        self.work.outputs = outputs;
        let commit = self.replica.commit();
        if commit < self.work.ordered {
            ended = ended.or(Some(Ended::Lineage(self.replica.lineage())));
        }
        while let Some(&(end, bytes)) = self.work.flight.front() {
            let gone = self.replica.role() != Role::Leader;
            if end > commit && !gone {
                break;
            }
            self.work.flight.pop_front();
            self.work.flight_bytes -= bytes;
        }
        if ended.is_none() && self.read_pieces() {
            return self.outputs();
        }
        ended.map_or(Ok(()), Err)
    }

    /// Writes what is new of the log.
    fn persist(&mut self, from: Option<u64>) -> std::io::Result<()> {
        let lineage = self.replica.lineage();
        if self.kept.lineage() != lineage {
            if from == Some(0) {
                self.kept.reset(lineage, 0, 0)?;
            } else {
                self.kept.set_lineage(lineage)?;
            }
        }
        if let Some(from) = from {
            self.kept.write(from, self.replica.log().slice(from, usize::MAX))?;
            debug_assert_eq!(self.kept.end(), self.replica.log().end());
        }
        Ok(())
    }

    /// A part of a snapshot on its way to or from another node.
    fn pieces(&mut self, output: Output<Bytes>) -> Result<(), Ended> {
        let snapshots = &mut self.snapshots;
        let failed = |error: std::io::Error| Ended::Snapshots(error.to_string());
        match output {
            Output::Read { to, snapshot, at } => snapshots.wanted(to, snapshot, at),
            Output::Take { snapshot, at, data } => snapshots.take(&snapshot, at, &data).map_err(failed)?,
            Output::Hash(snapshot) => {
                // Not a moment's work for a large one; nobody waits for this replica meanwhile.
                let checked = tokio::task::block_in_place(|| snapshots.check(&snapshot));
                match checked.map_err(failed)? {
                    Ok(hash) => self.replica.hashed(snapshot, hash),
                    Err(foreign) => return Err(Ended::Settings(foreign)),
                }
                return self.outputs();
            }
            Output::Install { snapshot, .. } => {
                snapshots.install(&snapshot).map_err(failed)?;
                return Err(Ended::Snapshot(snapshot.offset));
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads what others want of snapshots, as far as the budget goes. Returns whether there is something to send.
    fn read_pieces(&mut self) -> bool {
        let mut any = false;
        while let Some((to, snapshot, at, data)) = self.snapshots.next_piece() {
            self.replica.read(to, snapshot, at, data);
            any = true;
        }
        any
    }

    /// Which snapshots there are, and what of the log goes with that.
    fn keep(&mut self) {
        let ids = self.snapshots.ids();
        let oldest = ids.iter().map(|id| id.offset).min();
        // Behind the older one, which has to do if the newest is damaged.
        let cut = oldest.filter(|_| ids.len() >= self.snapshots.least());
        self.replica.keeps(ids);
        if let Some(cut) = cut {
            let base = self.replica.cut(cut);
            // What stays there too long is cut off the next time.
            let _ = self.kept.cut(base);
        }
    }

    /// Orders a snapshot when it is time.
    fn snapshot(&mut self) {
        let snapshots = &mut self.snapshots;
        let all = self.work.ordered == self.replica.commit() && self.replica.role() != Role::Fenced;
        if !all || !snapshots.is_due(self.work.tick) {
            return;
        }
        let point = snapshots.point(&self.replica.base());
        if self.port.orders.try_send(Order::Snapshot(point)).is_ok() {
            snapshots.begun(self.work.tick);
            self.ingest.replicated();
        }
    }

    /// What must not be gone on from goes.
    fn give_up(&mut self, ended: &Ended) {
        match ended {
            Ended::Diverged(_) => {
                let _ = self.kept.remove();
                self.snapshots.remove();
            }
            Ended::Lineage(_) => self.snapshots.remove(),
            _ => {}
        }
    }

    /// Gives ingest what it may have, as far as it takes it; the rest stays in the log.
    fn order(&mut self) {
        let leads = self.replica.role() == Role::Leader;
        let epoch = self.replica.epoch();
        let mut gave = false;
        if !leads {
            let leader = self.leader().map(|leader| leader.node);
            let now = Told::Follow(leader, epoch);
            if self.work.told != now {
                let leader = leader.and_then(|node| self.config.nodes.get(&node)).map(|place| place.clients);
                if self.port.orders.try_send(Order::Follow { leader, epoch }).is_err() {
                    return;
                }
                (self.work.told, gave) = (now, true);
            }
        }
        while self.work.ordered < self.replica.commit() {
            let most = usize::try_from(self.replica.commit() - self.work.ordered).unwrap_or(usize::MAX);
            let entries = self.replica.log().slice(self.work.ordered, most.min(ORDER_INPUTS));
            let count = entries.len() as u64;
            let inputs = inputs(entries);
            let size = inputs.iter().fold((0, 0), |(bytes, records), input: &Input| {
                (bytes + input.bytes().len() as u64, records + u64::from(input.records()))
            });
            if !inputs.is_empty() {
                if self.port.orders.try_send(Order::Commit(inputs)).is_err() {
                    break;
                }
                gave = true;
            }
            self.work.ordered += count;
            self.snapshots.ordered(size);
        }
        if leads && self.work.told != Told::Lead(epoch) && self.work.ordered == self.replica.commit() {
            let tail = inputs(self.replica.log().slice(self.work.ordered, usize::MAX));
            if self.port.orders.try_send(Order::Lead { epoch, tail }).is_ok() {
                (self.work.told, gave) = (Told::Lead(epoch), true);
            }
        }
        if gave {
            self.ingest.replicated();
        }
    }

    /// Who leads, in the epoch that this replica knows.
    fn leader(&self) -> Option<Member> {
        let group = &self.proposals.state().group;
        group.leader.filter(|_| group.epoch == self.replica.epoch())
    }

    /// How far the others are, while this node leads.
    fn tell_followers(&self) {
        let leads = self.replica.role() == Role::Leader;
        let of = || self.work.acks.followers(self.replica.epoch(), self.replica.log());
        let followers = if leads { of() } else { Vec::new() };
        self.status.lock().unwrap_or_else(PoisonError::into_inner).followers = followers;
    }

    fn tell(&self) {
        let replica = &self.replica;
        let group = &self.proposals.state().group;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.incarnation = replica.me().incarnation;
        status.role = match replica.role() {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Fenced => "fenced",
        }
        .to_owned();
        (status.epoch, status.lineage) = (replica.epoch(), replica.lineage());
        (status.end, status.commit) = (replica.log().end(), replica.commit());
        status.ordered = self.work.ordered;
        status.log_bytes = self.kept.bytes();
        status.log_base = replica.log().base();
        status.snapshot = replica.snapshots().last().map(|snapshot| snapshot.offset);
        status.fetching = replica.fetching();
        status.problem = self.snapshots.problem();
        status.digest = format!("{:016x}", tidegate_replica::Machine::digest(replica.machine()));
        status.in_sync = group.isr.contains(&replica.me());
    }
}

/// Inputs of entries, each of which was checked when it came.
fn inputs(entries: &[Entry<Bytes>]) -> Vec<Input> {
    let of = |entry: &Entry<Bytes>| match &entry.body {
        Body::Input { input, .. } => Input::check(input.clone()).ok(),
        Body::Digest { .. } => None,
    };
    entries.iter().filter_map(of).collect()
}
