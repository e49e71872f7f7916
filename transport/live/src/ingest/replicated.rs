//! Ingest of a node in a cluster: what feeds send goes to all nodes first, and counts when it comes back committed.
//!
//! Two views of the sources are kept. `log` is what the committed log says of them; the same on all nodes. The leader's sessions
//! ([`Ingest::server`]) are ahead of it by what is on its way, and are made from the log whenever leading begins or ends.

use super::{FeedState, Ingest};
use crate::journal::{JournalError, Recovered};
use crate::moving::Word;
use crate::packed::{self, Item};
use crate::recovery::Loaded;
use crate::replication::{Input, Order, ReplicaSnapshots, Replication, Submission};
use crate::snapshot::Request;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;
use tidegate_engine::{Event, kind};
use tidegate_journal::{Batch, Entry, Point};
use tidegate_proto::feed::{ConnectionId, FeedServer, FeedServerOptions, FeedServerState, StateError, Taken};
use tidegate_proto::{Close, MonoTime, Packed};

pub(super) struct Replicating {
    port: Replication,
    batch: Batch,
    /// Whether packed events are in it.
    packed: bool,
    /// In order, what the driver had no room for.
    pub(super) waiting: VecDeque<Submission>,
    /// The epoch it leads in.
    pub(super) leads: Option<u32>,
    /// The group, where there are several.
    group: Option<u16>,
    /// Who leads, where that is, and the epoch, while it does not lead.
    leader: (Option<u16>, Option<SocketAddr>, u32),
    /// The sources as the committed log has them.
    pub(super) log: FeedServer,
    /// A source's rank here for its rank in the log: they differ only where fewer sources may be known.
    ranks: HashMap<u16, u16>,
    /// When what is on its way arrived here; nothing for what came by another leader.
    pub(super) arrived: VecDeque<Option<MonoTime>>,
    received: MonoTime,
    /// Inputs that were in the log when leading began and are not committed yet, as far as is known here. Feeds may have been told that
    /// they are, so until then nobody can be told how far they are.
    unsettled: usize,
    /// Whether an input is committed that was written since.
    pub(super) confirmed: bool,
}

impl Replicating {
    pub(super) fn new(port: Replication, feed: &FeedServerOptions) -> Self {
        Self {
            port,
            batch: Batch::new(),
            packed: false,
            waiting: VecDeque::new(),
            leads: None,
            group: feed.group.as_ref().map(|of| of.group),
            leader: (None, None, 0),
            log: FeedServer::new(feed.clone()),
            ranks: HashMap::new(),
            arrived: VecDeque::new(),
            received: MonoTime(0),
            unsettled: 0,
            confirmed: false,
        }
    }

    /// What feeds are sent away with.
    fn away(&self, (node, leader, epoch): (Option<u16>, Option<SocketAddr>, u32)) -> Close {
        match self.group {
            Some(group) => Close::not_leader_of(group, node, leader, epoch),
            None => Close::not_leader(leader, epoch),
        }
    }

    /// Whether all that was in the log when leading began is committed.
    pub(super) fn settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Adds to what this turn accepted.
    pub(super) fn note(&mut self, write: impl Fn(&mut Batch) -> bool) {
        if write(&mut self.batch) {
            return;
        }
        // Full: the turn goes on in a batch of its own.
        self.submit();
        let fits = write(&mut self.batch);
        assert!(fits, "an entry is never larger than a batch: frames have bounds");
    }

    /// The same, of events that a feed has packed.
    fn note_packed(&mut self, rank: u16, named: u32, run: &Packed<'_>) {
        self.note(|batch| packed::put(batch, rank, named, run));
        self.packed = true;
    }

    /// Hands over what this turn accepted.
    pub(super) fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let packed = std::mem::take(&mut self.packed);
        let input = if packed { Input::of_packed(&self.batch) } else { Input::of(&self.batch) };
        self.batch.clear();
        let Some(epoch) = self.leads else { return };
        self.waiting.push_back(Submission { epoch, input });
        self.arrived.push_back(Some(self.received));
        self.push();
    }

    /// Hands on what waits. Returns whether something still does, or the beginning of leading is not settled: then nothing more may be
    /// accepted.
    pub(super) fn push(&mut self) -> bool {
        if self.port.submissions.is_disconnected() {
            // The node is about to end: what is not settled never will be, and who waited for that would not hear that it is to end. Nor
            // is anybody told how far they are, of what may never be committed.
            (self.waiting, self.unsettled) = (VecDeque::new(), 0);
            if let Some(epoch) = self.leads.take() {
                self.leader = (None, None, epoch);
            }
            return false;
        }
        while let Some(submission) = self.waiting.pop_front() {
            match self.port.submissions.try_send(submission) {
                Ok(()) => {}
                Err(flume::TrySendError::Full(submission)) => {
                    self.waiting.push_front(submission);
                    return true;
                }
                Err(flume::TrySendError::Disconnected(_)) => {}
            }
        }
        self.unsettled > 0
    }
}

impl Ingest {
    /// Refuses feeds where another node leads.
    pub(super) fn must_lead(&self) -> Result<(), Close> {
        match self.replica.as_deref() {
            Some(replica) if replica.leads.is_none() => Err(replica.away(replica.leader)),
            _ => Ok(()),
        }
    }

    /// What the next input holds arrived then.
    pub(super) fn received(&mut self, at: MonoTime) {
        if let Some(replica) = &mut self.replica {
            replica.received = at;
        }
    }

    /// The sources as far as this node answers for them.
    pub(super) fn sessions(&self) -> &FeedServer {
        match self.replica.as_deref() {
            Some(replica) if replica.leads.is_none() => &replica.log,
            _ => &self.server,
        }
    }

    /// Leads no longer: from here on the committed log is all there is to tell.
    pub(super) fn leave(&mut self) {
        if let Some(replica) = &mut self.replica {
            (replica.leads, replica.unsettled) = (None, 0);
        }
    }

    /// Does what a frame asks: notes it, for it to happen on all nodes; its events as they were `packed`, where they were.
    pub(super) fn take_replicated(
        &mut self,
        connection: ConnectionId,
        taken: Taken<'_>,
        packed: Option<&Packed<'_>>,
    ) -> Option<Close> {
        match taken {
            Taken::Nothing => {}
            Taken::Registered { rank, new_session, superseded } => {
                self.ranks.insert(connection, rank);
                self.source(rank);
                self.note_source(rank, new_session);
                if let Some((older, close)) = superseded {
                    self.close(older, close);
                }
                let source = &mut self.sources[usize::from(rank)];
                (source.connected, source.left) = (true, None);
                source.state = FeedState { peer: self.peers.get(&connection).cloned(), finished: false };
            }
            Taken::Names { rank, first, names, overflowed } => {
                self.note(|batch| batch.names(rank, first, overflowed, &names));
            }
            Taken::Events { rank, named, events } => {
                let sequence = (self.server.stands(rank).1 + 1).saturating_sub(events.len() as u64);
                // Of a frame of which a part is known already, the rest goes on as it is.
                let whole =
                    |run: &&Packed<'_>| run.sequence == sequence && usize::from(run.count) == events.len();
                match (packed.filter(whole), &mut self.replica) {
                    (Some(run), Some(replica)) => replica.note_packed(rank, named, run),
                    _ => self.note(|batch| batch.events(rank, sequence, named, events)),
                }
            }
            Taken::Lost { rank, count } => {
                let last = self.server.stands(rank).1;
                self.note(|batch| batch.lost(rank, last, count));
            }
            Taken::Finished { rank, close } => {
                if let Some(rank) = rank {
                    self.note(|batch| batch.finished(rank));
                }
                return Some(close);
            }
        }
        None
    }

    /// Follows orders, inputs of `most` of them at least. Returns whether there were any.
    pub(crate) fn replicate(&mut self, most: usize) -> bool {
        let mut done = 0;
        let mut told = false;
        self.look_for_cargo();
        while let Some(input) = self.take_held() {
            self.committed(&input);
            (done, told) = (done + 1, true);
        }
        while done < most && !self.is_holding() {
            let Some(replica) = &mut self.replica else { return false };
            let Ok(order) = replica.port.orders.try_recv() else { break };
            match order {
                Order::Commit(inputs) => {
                    done += inputs.len();
                    for (at, input) in inputs.iter().enumerate() {
                        if !self.may_happen(input) {
                            self.hold(&inputs[at..]);
                            break;
                        }
                        self.committed(input);
                    }
                    told = true;
                }
                Order::Lead { epoch, tail } => {
                    done += 1;
                    self.lead(epoch, &tail);
                }
                Order::Snapshot(point) => {
                    done += 1;
                    self.snapshot_at(point);
                }
                Order::Follow { node, leader, epoch } => {
                    done += 1;
                    self.follow((node, leader, epoch));
                }
            }
        }
        if let Some(replica) = &mut self.replica
            && done > 0
        {
            replica.port.taken.notify_one();
        }
        if told && self.must_lead().is_ok() {
            self.acknowledge_all(self.clock.now());
        }
        if told {
            self.tell_logged();
        }
        done > 0
    }

    /// An input is committed: it happens now.
    fn committed(&mut self, input: &Input) {
        if let Some(word) = input.word() {
            self.word_committed(word);
        }
        let Some(mut replica) = self.replica.take() else { return };
        std::mem::swap(&mut self.server, &mut replica.log);
        let _ = self.read_items(input.items().flatten(), &mut replica.ranks, &mut Recovered::default());
        std::mem::swap(&mut self.server, &mut replica.log);
        for item in input.items().flatten() {
            let (Item::Entry(Entry::Events { rank, .. } | Entry::Lost { rank, .. })
            | Item::Packed { rank, .. }) = item
            else {
                continue;
            };
            let Some(&rank) = replica.ranks.get(&rank) else { continue };
            let (session, last) = replica.log.stands(rank);
            // Of a durable cluster, whose nodes count only what they have synced, these are the same.
            replica.log.committed(rank, session, last);
            replica.log.durable(rank, session, last);
            if replica.leads.is_some() {
                self.server.committed(rank, session, last);
                self.server.durable(rank, session, last);
            }
        }
        let news =
            replica.unsettled == 1 || replica.leads.is_some() && replica.settled() && !replica.confirmed;
        replica.confirmed |= replica.leads.is_some() && replica.settled();
        replica.unsettled = replica.unsettled.saturating_sub(1);
        if replica.leads.is_some()
            && let Some(Some(received)) = replica.arrived.pop_front()
        {
            self.downstream.arrived(received, &self.router);
        }
        self.replica = Some(replica);
        if news {
            self.tell_slots();
        }
    }

    /// Begins a snapshot of the committed log up to here.
    fn snapshot_at(&mut self, point: Point) {
        let Some(replica) = &self.replica else { return };
        let told = replica.port.written.clone();
        let refuse = |why: &str| {
            let _ = told.try_send(Err(why.to_owned()));
        };
        // A source that is one too many here has no place in the others' snapshots.
        if replica.ranks.iter().any(|(log, here)| log != here) {
            return refuse("its sources have other numbers than in the log");
        }
        let begun = Instant::now();
        let state = self.state(&replica.log);
        let moves = self.moves_state();
        let group = self.options.feed.group.clone();
        let Some(snapshots) = &mut self.snapshots else { return refuse("there are to be none") };
        if snapshots.shared.is_busy() {
            return refuse("another one is being written");
        }
        snapshots.shared.begin();
        snapshots.barrier += 1;
        let barrier = snapshots.barrier;
        let (reply, points) = flume::bounded(1);
        let _ = reply.try_send(point);
        let request = Request {
            barrier,
            begun,
            taken_ns: (snapshots.wall_ns)(),
            ingest_pause_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            point: points,
            state,
            moves,
            group,
        };
        let requests = snapshots.requests.clone();
        self.route(&[Event::control(kind::BARRIER, 0, 0, 0, [barrier, 0])]);
        // There is room: it is asked for one at a time.
        let _ = requests.try_send(request);
    }

    /// Takes over sessions of a snapshot: in a cluster they are the committed log's.
    pub(super) fn restore_sessions(&mut self, state: &FeedServerState) -> Result<(), StateError> {
        let Some(replica) = &mut self.replica else { return self.server.restore(state) };
        replica.log.restore(state)?;
        // The log was written with these ranks.
        let ranks = 0..replica.log.sources().count() as u16;
        replica.ranks.extend(ranks.map(|rank| (rank, rank)));
        self.server.go_on_from(&replica.log);
        Ok(())
    }

    /// Takes over a node's snapshot, if there is one.
    ///
    /// # Errors
    /// [`JournalError::Snapshot`] when it does not fit together.
    pub(crate) fn begin_from(
        &mut self,
        settings: &ReplicaSnapshots,
        loaded: Option<&Loaded>,
    ) -> Result<Recovered, JournalError> {
        let mut found = Recovered::default();
        let Some(loaded @ Loaded { info, bytes, .. }) = loaded else { return Ok(found) };
        let (offset, folder) = (info.point.offset, settings.folder.clone());
        self.restore(loaded).map_err(|what| JournalError::Snapshot { folder, offset, what })?;
        (found.snapshot, found.snapshot_bytes) = (Some(offset), *bytes);
        found.point = Some(info.point);
        let stats = self.stats();
        self.tell_logged();
        *self.shared.stats() = stats;
        Ok(found)
    }

    fn acknowledge_all(&mut self, now: MonoTime) {
        let connections: Vec<(ConnectionId, u16)> =
            self.ranks.iter().map(|(&id, &rank)| (id, rank)).collect();
        for (connection, rank) in connections {
            let (mut out, at) = (Vec::new(), usize::from(rank));
            let position = self.sources.get(at).map_or(0, |source| source.sequencer.sequence());
            self.server.acknowledge(connection, now, position, true, &mut out);
            self.answer(connection, out);
        }
    }

    /// Sends all feeds away and knows of sources what the log does.
    fn begin_anew(&mut self, leader: (Option<u16>, Option<SocketAddr>, u32)) {
        let Some(close) = self.replica.as_ref().map(|replica| replica.away(leader)) else { return };
        let connections: Vec<ConnectionId> = self.answers.keys().copied().collect();
        for connection in connections {
            self.close(connection, close.clone());
        }
        let Some(replica) = &mut self.replica else { return };
        replica.batch.clear();
        replica.packed = false;
        replica.waiting.clear();
        replica.arrived.clear();
        self.server.go_on_from(&replica.log);
        self.slots.begin_anew();
    }

    fn lead(&mut self, epoch: u32, tail: &[Input]) {
        self.begin_anew((None, None, epoch));
        let Some(replica) = &mut self.replica else { return };
        replica.leads = Some(epoch);
        (replica.unsettled, replica.confirmed) = (tail.len(), false);
        replica.arrived.extend(tail.iter().map(|_| None));
        let mut ranks = replica.ranks.clone();
        for input in tail {
            if let Some(Word::Leaves(goes)) = input.word() {
                // It stays in this log, so here the slot has left.
                let numberings = self.server.numberings();
                self.server.slot_moved(goes, &numberings);
                self.slots_written(goes.number);
            }
            for item in input.items().flatten() {
                match item {
                    Item::Entry(entry) => sent(&mut self.server, &mut ranks, entry),
                    Item::Packed { rank, run } => {
                        if let Some(&here) = ranks.get(&rank) {
                            self.server.recover_events(here, run.sequence, run.count.into());
                        }
                    }
                }
            }
        }
        let now = self.clock.now();
        for source in &mut self.sources {
            // As if each had left without a word.
            (source.connected, source.left) = (false, (!source.state.finished).then_some(now));
        }
        self.tell_slots();
    }

    fn follow(&mut self, leader: (Option<u16>, Option<SocketAddr>, u32)) {
        self.begin_anew(leader);
        let Some(replica) = &mut self.replica else { return };
        (replica.leads, replica.leader, replica.unsettled) = (None, leader, 0);
        for source in &mut self.sources {
            (source.connected, source.left) = (false, None);
        }
        self.tell_slots();
    }
}

/// A source sent this, and it is in the log, though not committed yet.
fn sent(server: &mut FeedServer, ranks: &mut HashMap<u16, u16>, entry: Entry<'_>) {
    match entry {
        Entry::Source { rank, source_id, session, new_session, name, principal } => {
            if let Some(here) = server.recover_source(source_id, session, new_session, name, principal) {
                ranks.insert(rank, here);
            }
        }
        Entry::Names { rank, names, overflowed, .. } => {
            if let Some(&here) = ranks.get(&rank) {
                server.recover_names(here, names, overflowed);
            }
        }
        Entry::Events { rank, sequence, events, .. } => {
            if let Some(&here) = ranks.get(&rank) {
                server.recover_events(here, sequence, events.len() as u64);
            }
        }
        Entry::Lost { rank, last, count } => {
            if let Some(&here) = ranks.get(&rank) {
                server.recover_lost(here, last, count);
            }
        }
        Entry::Idle { .. } | Entry::Finished { .. } | Entry::Digest { .. } | Entry::Stopped => {}
    }
}
