//! Drives the replica: messages, time and metadata in; messages, proposals and orders out. One task.

use crate::copies::Held;
use crate::kept::Kept;
use crate::links::Links;
use crate::machine::Inputs;
use crate::metadata::{Proposals, Refused};
use crate::node::{Ended, ReplicaStatus};
use crate::snapshots::{Checked, Snapshots};
use crate::view::Acks;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_live::IngestHandle;
use tidegate_live::replication::{Input, Order, ReplicationDriver, Submission};
use tidegate_replica::{
    Body, Command, Entry, Group, GroupId, Member, Message, MetaStore, NodeId, Output, Replica, Role,
    SnapshotId, Submitted,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// One tick of the replica.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Messages taken between two looks at the rest.
const MESSAGES_TURN: usize = 256;
/// How often a full log is looked at for what may go, in ticks: once a second.
const KEEP_TICKS: u64 = 50;
/// How often metadata is told that a copy has come, in ticks.
const TOOK_UP_TICKS: u64 = 10;
/// Submissions taken between two looks at the rest.
const SUBMISSIONS_TURN: usize = 64;
/// Inputs in one order.
const ORDER_INPUTS: usize = 32;
/// What may be in the log and not committed; with more, feeds wait.
const FLIGHT_ENTRIES: usize = 2_048;
const FLIGHT_BYTES: usize = 64 << 20;
/// What the logs of a node may grow to, each to the same part of it: all of a log that is not cut off behind a snapshot is in memory. A
/// leader whose log is full takes nothing more.
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

/// Drives the replica of one group.
pub(crate) struct Driver {
    pub(crate) group: GroupId,
    pub(crate) links: Arc<Links>,
    pub(crate) proposals: Proposals,
    pub(crate) refused: mpsc::Receiver<Refused>,
    pub(crate) inbox: mpsc::Receiver<(NodeId, Message<Bytes>)>,
    pub(crate) port: ReplicationDriver,
    /// None where the group is only on its way here: what is committed stays in the log.
    pub(crate) ingest: Option<IngestHandle>,
    pub(crate) replica: Replica<Inputs>,
    /// The replica's log in a file.
    pub(crate) kept: Kept,
    /// Its snapshots.
    pub(crate) snapshots: Snapshots,
    /// Which groups the node holds.
    pub(crate) held: Arc<Held>,
    /// Which start of the node it is: another one once it was given up and is here all the same.
    pub(crate) incarnation: watch::Receiver<u64>,
    /// What the log may grow to.
    pub(crate) log_bytes_max: u64,
    pub(crate) status: Arc<Mutex<ReplicaStatus>>,
    pub(crate) work: Work,
}

/// What the driver keeps for itself.
pub(crate) struct Work {
    /// Offset up to which ingest has its orders.
    ordered: u64,
    told: Told,
    tick: u64,
    /// Offsets behind inputs taken in here, and their bytes, until they are committed.
    flight: VecDeque<(u64, usize)>,
    flight_bytes: usize,
    outputs: Vec<Output<Bytes>>,
    /// What was written is synced, elsewhere; up to which offset it counts then.
    syncing: Option<(u64, JoinHandle<std::io::Result<()>>)>,
    /// What was fetched is hashed, elsewhere.
    hashing: Option<(SnapshotId, JoinHandle<Checked>)>,
    /// What followers acknowledged, to be shown.
    acks: Acks,
    /// Whether metadata says that the node is to hold the group no longer.
    over: bool,
}

impl Work {
    /// Of a node whose engine has everything up to `ordered`.
    pub(crate) fn from(ordered: u64) -> Self {
        Self {
            ordered,
            told: Told::Nothing,
            tick: 0,
            flight: VecDeque::new(),
            flight_bytes: 0,
            outputs: Vec::new(),
            syncing: None,
            hashing: None,
            acks: Acks::default(),
            over: false,
        }
    }
}

impl Driver {
    /// Drives until the node is to end, or cannot go on with what it has.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        self.follow(&mut stop).await
    }

    /// The same, of which something is left.
    pub(crate) async fn follow(&mut self, stop: &mut watch::Receiver<bool>) -> Ended {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.metadata();
        self.keep();
        let mut left = self.links.left();
        loop {
            let room = self.has_room();
            let taken = Arc::clone(&self.port.taken);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ended::Asked,
                Ok(_) = left.wait_for(|left| *left) => return Ended::Left,
                _ = ticks.tick() => {
                    self.work.tick += 1;
                    self.replica.tick(self.work.tick);
                    self.tell_followers();
                    self.took_up();
                    // Who fetched a snapshot held the log; that it does so no longer nobody says, and a full log takes nothing until it is cut.
                    if self.work.tick.is_multiple_of(KEEP_TICKS) && self.is_full() {
                        self.keep();
                    }
                }
                changed = self.proposals.watched.changed() => {
                    if changed.is_err() {
                        return Ended::Metadata;
                    }
                    self.metadata();
                }
                Ok(()) = self.incarnation.changed() => self.metadata(),
                Some(Refused { command, overtaken }) = self.refused.recv() => {
                    self.replica.rejected(&command, overtaken);
                }
                Ok(written) = self.port.written.recv_async() => {
                    self.snapshots.written(written);
                    self.keep();
                }
                (end, outcome) = synced(&mut self.work.syncing) => {
                    self.work.syncing = None;
                    if let Err(error) = outcome {
                        // What a second try would say of it nobody knows: nothing more is acknowledged here, and whoever opens the log
                        // next must not read out of memory what is not on disk, and take it for synced.
                        let _ = self.kept.write(self.replica.synced_to(), &[]);
                        return Ended::Log(format!("it cannot be synced: {error}"));
                    }
                    self.replica.synced(end);
                }
                (snapshot, checked) = hashed(&mut self.work.hashing) => {
                    self.work.hashing = None;
                    match checked {
                        Ok(Ok(hash)) => self.replica.hashed(snapshot, hash),
                        Ok(Err(foreign)) => return Ended::Settings(foreign),
                        Err(error) => return Ended::Snapshots(error.to_string()),
                    }
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
            self.snapshot();
            self.tell();
            if let Some(ended) = self.moved() {
                return ended;
            }
        }
    }

    /// Whether the copy of the group here has gone, or come.
    fn moved(&self) -> Option<Ended> {
        if self.work.over {
            // Its feeds were sent to whoever leads now. What is here of the group goes when the node begins again.
            let noted = self.held.note(self.group, false);
            return Some(
                noted.map_or_else(|error| Ended::Log(error.to_string()), |()| Ended::GaveUp(self.group)),
            );
        }
        let there = self.of_group().isr.contains(&self.replica.me()) || self.replica.role() == Role::Leader;
        (self.ingest.is_none() && there).then_some(Ended::TookUp(self.group))
    }

    /// Says that a copy that came is there, for as long as metadata does not know.
    fn took_up(&mut self) {
        let me = self.replica.me();
        let there = self.ingest.is_some() && self.work.ordered == self.replica.commit();
        if there
            && self.work.tick.is_multiple_of(TOOK_UP_TICKS)
            && self.proposals.state().is_coming(self.group, me.node)
            && self.of_group().isr.contains(&me)
        {
            self.proposals.propose(Command::TookUp { group: self.group, member: me });
        }
    }

    /// Whether more may be taken in. Who does not lead takes all there is, for nothing.
    fn has_room(&self) -> bool {
        let Work { flight, flight_bytes, .. } = &self.work;
        flight.len() < FLIGHT_ENTRIES && *flight_bytes < FLIGHT_BYTES && !self.is_full()
    }

    /// Whether the log takes nothing more until some of it is cut off.
    fn is_full(&self) -> bool {
        self.kept.bytes() >= self.log_bytes_max
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

    /// Metadata or the node's incarnation is news: the replica does as it is told.
    fn metadata(&mut self) {
        self.proposals.refresh();
        let incarnation = *self.incarnation.borrow_and_update();
        if incarnation > self.replica.me().incarnation {
            self.replica.reincarnate(incarnation);
        }
        let me = self.replica.me();
        let known = self.proposals.state().nodes.get(&me.node);
        if known.is_some_and(|known| known.incarnation == me.incarnation && !known.fenced) {
            self.replica.on_meta(self.proposals.state());
        }
        self.work.over |= self.proposals.state().gives_up(self.group, me);
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
        self.persist(persist).and_then(|()| self.sync()).map_err(|error| Ended::Log(error.to_string()))?;
        // Whatever it had, and the engine with it, is of a history that is over.
        let over = persist == Some(0) && self.work.ordered > 0 || self.replica.commit() < self.work.ordered;
        let mut ended = over.then(|| Ended::Lineage(self.replica.lineage()));
        let diverged = outputs.iter().any(|output| matches!(output, Output::Diverged(_)));
        if ended.is_none() && !diverged {
            // Before the others hear of it: a feed waits for what is committed, nobody for them to know.
            self.order();
        }
        for output in outputs.drain(..) {
            match output {
                Output::Send(node, message) => self.links.send(self.group, node, message),
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
        if let (Some(from), Some((end, _))) = (from, &mut self.work.syncing) {
            // What is being synced behind that is not what the log has now.
            *end = from.min(*end);
        }
        if let Some(from) = from {
            let log = self.replica.log();
            self.kept.write_behind(Some(log.epoch_before(from)), from, log.slice(from, usize::MAX))?;
            debug_assert_eq!(self.kept.end(), self.replica.log().end());
        }
        Ok(())
    }

    /// Has what was written synced, all that came since the last time at once.
    fn sync(&mut self) -> std::io::Result<()> {
        if self.work.syncing.is_none()
            && let Some(unsynced) = self.kept.unsynced()?
        {
            let end = unsynced.end;
            self.work.syncing = Some((end, tokio::task::spawn_blocking(move || unsynced.sync())));
        }
        Ok(())
    }

    /// A part of a snapshot on its way to or from another node.
    fn pieces(&mut self, output: Output<Bytes>) -> Result<(), Ended> {
        let snapshots = &mut self.snapshots;
        let failed = |error: std::io::Error| Ended::Snapshots(error.to_string());
        match output {
            Output::Read { to, snapshot, at } => snapshots.wanted(to, snapshot, at, self.work.tick),
            Output::Take { snapshot, at, data } => snapshots.take(&snapshot, at, &data).map_err(failed)?,
            Output::Hash(snapshot) => {
                let check = tokio::task::spawn_blocking(snapshots.checker(snapshot));
                self.work.hashing = Some((snapshot, check));
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
        let ids = self.snapshots.ids(self.work.tick);
        let mut offsets: Vec<u64> = ids.iter().map(|id| id.offset).collect();
        offsets.sort_unstable_by_key(|offset| Reverse(*offset));
        // Behind the second newest, which has to do if the newest is damaged. A log without room that has nothing new takes nothing until
        // it is cut, so no second one would ever come.
        let alone = self.is_full() && offsets.first() == Some(&self.work.ordered);
        let least = if alone { 1 } else { self.snapshots.least() };
        self.replica.keeps(ids);
        if let Some(&cut) = offsets.get(least - 1) {
            let base = self.replica.cut(cut);
            // What stays there too long is cut off the next time.
            let _ = self.kept.cut(base);
        }
    }

    /// Orders a snapshot when it is time.
    fn snapshot(&mut self) {
        let all = self.work.ordered == self.replica.commit() && self.replica.role() != Role::Fenced;
        let newest = self.replica.snapshots().map(|snapshot| snapshot.offset).max();
        let full = self.is_full() && newest != Some(self.work.ordered);
        let snapshots = &mut self.snapshots;
        if !all || !snapshots.is_due(self.work.tick, full) {
            return;
        }
        let Some(ingest) = &self.ingest else { return };
        let point = snapshots.point(&self.replica.base());
        if self.port.orders.try_send(Order::Snapshot(point)).is_ok() {
            snapshots.begun(self.work.tick);
            ingest.replicated();
        }
    }

    /// What must not be gone on from goes.
    fn give_up(&mut self, ended: &Ended) {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).fetching = None;
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
        if self.ingest.is_none() {
            return;
        }
        let leads = self.replica.role() == Role::Leader;
        let epoch = self.replica.epoch();
        let mut gave = false;
        if !leads {
            let leader = self.leader().map(|leader| leader.node);
            let now = Told::Follow(leader, epoch);
            if self.work.told != now {
                let config = self.links.config();
                let leader = leader.and_then(|node| config.nodes.get(&node)).map(|place| place.clients);
                let node = self.leader().map(|leader| leader.node);
                if self.port.orders.try_send(Order::Follow { node, leader, epoch }).is_err() {
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
                (bytes + input.plain_bytes() as u64, records + u64::from(input.records()))
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
        if let Some(ingest) = self.ingest.as_ref().filter(|_| gave) {
            ingest.replicated();
        }
    }

    /// Who leads, in the epoch that this replica knows.
    fn leader(&self) -> Option<Member> {
        let group = self.of_group();
        group.leader.filter(|_| group.epoch == self.replica.epoch())
    }

    /// The group as metadata has it.
    fn of_group(&self) -> &Group {
        // A cluster's groups are as many as it began with, which a start makes sure of.
        &self.proposals.state().groups[usize::from(self.group)]
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
        let group = self.of_group();
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

/// Once what was written is synced; never, if nothing is on its way.
async fn synced(syncing: &mut Option<(u64, JoinHandle<std::io::Result<()>>)>) -> (u64, std::io::Result<()>) {
    match syncing {
        Some((end, work)) => {
            let outcome = work.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            (*end, outcome)
        }
        None => std::future::pending().await,
    }
}

/// Once what was fetched is hashed; never, if nothing was. What hashed it is done with even if this is given up and asked again.
async fn hashed(hashing: &mut Option<(SnapshotId, JoinHandle<Checked>)>) -> (SnapshotId, Checked) {
    match hashing {
        Some((snapshot, check)) => {
            let checked = check.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            (*snapshot, checked)
        }
        None => std::future::pending().await,
    }
}

/// Inputs of entries.
fn inputs(entries: &[Entry<Bytes>]) -> Vec<Input> {
    let of = |entry: &Entry<Bytes>| match &entry.body {
        Body::Input { input, .. } => Input::of_log(input.clone()),
        Body::Digest { .. } => None,
    };
    entries.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClusterConfig, Founding, NodePlace};
    use crate::kept::Opening;
    use crate::links::Speaks;
    use crate::node::Snapshotting;
    use crate::snapshots::{Budget, base_of};
    use std::net::UdpSocket;
    use tidegate_journal::{Point, SnapshotFolder, SnapshotInfo};
    use tidegate_live::{Live, LiveOptions, SnapshotOptions};
    use tidegate_replica::{Log, Meta, ReplicaOptions, Rules};

    const ENTRIES: u64 = 60;
    /// Offset of the older snapshot: the one that a follower fetches.
    const OLDER: u64 = 20;

    /// Who fetches a snapshot holds the log behind it, and may end without a word. Nothing else happens on a node whose log is full.
    #[tokio::test]
    async fn a_full_log_is_cut_once_nobody_fetches_what_held_it() {
        let folder = tempfile::tempdir().unwrap();
        let sockets: Vec<UdpSocket> = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let at = |index: usize| sockets[index].local_addr().unwrap();
        let place = |index| NodePlace { peers: at(index), clients: at(index + 2) };
        let founding = Founding { min_isr: 2, groups: 1, durable: false, copies: 0 };
        let nodes = [(1, place(0)), (2, place(1))].into();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        ClusterConfig::init(folder.path(), nodes, founding, 30, since.as_secs()).unwrap();
        drop(sockets);
        let dir = folder.path().join("node-1");
        let config = ClusterConfig::read(&dir).unwrap();
        let links = Links::start(config, &dir, Speaks::Newest).unwrap();

        // All of the log is committed, and in a snapshot; an older one has the front of it.
        let path = folder.path().join("snapshots");
        std::fs::create_dir(&path).unwrap();
        let point = |offset| Point { lineage: 1, offset, chain: [3; 16], epoch: 1 };
        for offset in [OLDER, ENTRIES] {
            let info = SnapshotInfo { point: point(offset), settings: [6; 16], ..SnapshotInfo::default() };
            SnapshotFolder::new(&path).write(info, &[]).unwrap();
        }
        let input = |sequence| Body::Input { source: SOURCE, sequence, input: vec![7u8; 100].into() };
        let entries: Vec<_> = (1..=ENTRIES).map(|at| Entry { epoch: 1, body: input(at) }).collect();
        let log_bytes_max = 4_000;
        let opening = Opening { boot: [7; 16], durable: false, before: false };
        let (mut kept, _) = Kept::open(&folder.path().join("log"), 1, opening).unwrap();
        kept.limit_segments(log_bytes_max);
        kept.write(0, &entries).unwrap();
        let options = ReplicaOptions { hold_ticks: 5, ..ReplicaOptions::default() };
        let (me, other) = (Member { node: 1, incarnation: 1 }, Member { node: 2, incarnation: 1 });
        let log = Log::behind(0, 0, entries);
        let replica = Replica::new(me, 1, base_of(&point(ENTRIES)), log, options);

        let (replication, port) = tidegate_live::replication::replication();
        let live = LiveOptions { replication: Some(replication), ..LiveOptions::default() };
        let (name, kind) = ("bars.1s".to_owned(), tidegate_proto::StreamKind::Bars);
        let stream = tidegate_proto::hub::StreamMeta { name, kind, columns: Vec::new() };
        let live = Live::start(Arc::new(Vec::new), vec![stream], live).unwrap();
        let (_metadata, proposals) = Proposals::fixed(Meta::new(&[1, 2], 2, Rules::default()));
        let (_refused, refused) = mpsc::channel(1);
        let (_inbox, inbox) = mpsc::channel(1);
        let (_incarnation, incarnation) = watch::channel(1);
        let (stop, stopped) = watch::channel(false);
        let of = Snapshotting { when: SnapshotOptions::default(), settings: [6; 16].into(), point: None };
        let status = Arc::new(Mutex::new(ReplicaStatus::default()));
        let mut driver = Driver {
            group: 0,
            links,
            proposals,
            refused,
            inbox,
            port,
            ingest: Some(live.ingest()),
            replica,
            kept,
            snapshots: Snapshots::new(&path, "0", Budget::new(), of, log_bytes_max),
            held: Arc::new(Held::of(&dir, &ClusterConfig::read(&dir).unwrap(), 1).unwrap()),
            incarnation,
            log_bytes_max,
            status: Arc::clone(&status),
            work: Work::from(ENTRIES),
        };
        driver.metadata();
        assert_eq!((driver.replica.role(), driver.is_full()), (Role::Leader, true));
        let ids = driver.snapshots.ids(0);
        driver.replica.keeps(ids);
        driver.replica.receive(Message::Fetch { epoch: 1, from: other, offset: OLDER, at: 0 });
        driver.keep();
        assert_eq!(
            (driver.replica.log().base(), driver.is_full()),
            (OLDER, true),
            "what is fetched holds it"
        );

        // The follower never asks again.
        let running = tokio::spawn(driver.run(stopped));
        let cut = async {
            while status.lock().unwrap().log_base < ENTRIES {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), cut).await.expect("it is cut behind the newest");
        assert!(status.lock().unwrap().log_bytes < log_bytes_max);
        stop.send_replace(true);
        assert_eq!(running.await.unwrap(), Ended::Asked);
        live.finish().unwrap();
    }
}
