//! All feeds become one log: sessions, one sequencer per source, and the router; on the thread `tg-ingest`, or as a part of
//! the fused core.

mod handle;
mod moving;
mod replicated;

use self::handle::Way;
pub use self::handle::{Datagrams, Feed, IngestHandle};
use self::moving::Slots;
pub use self::moving::{SlotAsk, SlotStatus};
use self::replicated::Replicating;
use crate::clock::Clock;
use crate::downstream::Downstream;
use crate::groups::first_barrier;
use crate::journal::{JournalError, Journaling, PROGRESS_RECORDS, Progress, Recovered, SnapshotOptions};
use crate::packed::Item;
use crate::recovery::Loaded;
use crate::service::LiveOptions;
use crate::snapshot::{self, IngestState, Request, SnapshotStats, SourceLog};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_actors::runtime::{Commander, Restage, ShardCommand, StageFactory, TimeCells};
use tidegate_engine::{Event, Router, Sequencer, SequencerOptions, kind, name_hash};
use tidegate_journal::{Batch, BatchView, Disk, Entry, Point, SyncStats};
use tidegate_proto::feed::{ConnectionId, FeedGroup, FeedServer, Released, SourceStats, Taken};
use tidegate_proto::time::MILLISECOND_NS;
use tidegate_proto::{Close, CloseCode, Frame, FrameBuffer, FrameError, Grant, MonoTime, Packed};
use tokio::sync::{mpsc, oneshot, watch};

/// Buffers of frames on their way to the thread, over all connections: beyond that, connections wait, and their peers
/// with them.
const QUEUE_MAX: usize = 32;
/// Answers on their way to one connection. When it takes no more, acks and credits are left out: they are cumulative, and a
/// feed that misses them asks.
const ANSWERS_MAX: usize = 64;
/// Inputs of other nodes taken between two looks at the feeds of this one.
const ORDERED_TURN: usize = 64;
/// How long to wait for a journal or cluster that takes nothing.
const STALL: Duration = Duration::from_millis(1);
/// How long an end in order waits for the last snapshot.
pub(crate) const LAST_SNAPSHOT: Duration = Duration::from_secs(30);
/// Frames that fit a buffer at least.
const BUFFER_FRAMES: usize = 4;
/// How often silent connections are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// How often datagrams are looked at that wait for their turn, in nanoseconds, while there are any.
const HELD_LOOK_NS: u64 = 10 * MILLISECOND_NS;
/// The name that events get whose own is over a quota; the same as when files are read.
const OVERFLOW_NAME: &str = "(overflow)";

/// Most events that one declared loss is logged as: sums of what windows miss stay far from overflow, whatever a feed says.
const GAP_EVENTS_MAX: u64 = 1 << 40;

pub(crate) enum Input {
    Open {
        grant: Grant,
        peer: Option<Box<str>>,
        answers: mpsc::Sender<FeedAnswer>,
        reply: oneshot::Sender<ConnectionId>,
    },
    Frames {
        connection: ConnectionId,
        received: MonoTime,
        buffer: FrameBuffer,
        datagrams: bool,
    },
    Closed {
        connection: ConnectionId,
    },
    /// The journal went on.
    Journaled,
    /// The log of the cluster went on.
    Replicated,
    /// A slot is to change its group.
    Slot(SlotAsk),
    /// Other stages from here on; answered with the number of the barrier they begin behind.
    Restage {
        make: StageFactory,
        legacy: Legacy,
        reply: oneshot::Sender<u64>,
    },
    Stop,
}

/// What other stages have of those before them, by name, see [`Restage`].
pub(crate) struct Legacy {
    pub(crate) kept: Vec<String>,
    pub(crate) behind: Vec<(String, Arc<[u64]>)>,
}

/// What the thread says to a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum FeedAnswer {
    /// Frames to write.
    Frames(Vec<u8>),
    /// Write this as the last frame, and end.
    Close(Close),
}

/// The ingest thread has ended: the server is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server takes no more events")]
pub struct IngestGone;

/// How ingest stands; readable from anywhere.
#[derive(Debug, Clone, Default)]
pub struct IngestStats {
    /// Every source, by rank.
    pub sources: Vec<SourceStats>,
    /// What else is known of each of them, by rank.
    pub feeds: Vec<FeedState>,
    /// Feeds connected now.
    pub connections: usize,
    /// Events in the log, control records of the feeds included.
    pub logged: u64,
    /// Events that the fences refused as absurdly far in the future.
    pub fenced: u64,
    /// Names in the log.
    pub names: u64,
    /// Connections ended by the server for breaking a rule, by the name of the reason.
    pub closed: Vec<(&'static str, u64)>,
    /// Times a shard's ring was full.
    pub stalls: u64,
    /// The journal, if there is one.
    pub journal: Option<tidegate_journal::WriterStats>,
    /// How long the journal's syncs take.
    pub syncs: SyncStats,
    /// Its snapshots, if there are any to be.
    pub snapshots: Option<SnapshotStats>,
}

/// What ingest knows of a source beside its account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedState {
    /// Where it is connected from, or was last, as its front end says.
    pub peer: Option<Box<str>>,
    /// Whether it said that it has no more, and has not come back since.
    pub finished: bool,
}

struct Shared {
    stats: Mutex<IngestStats>,
    logged: AtomicU64,
    /// Of those, what sources sent about keys.
    events: AtomicU64,
    times: TimeCells,
    /// Asked to end, also where nothing is taken from the queue.
    stopping: AtomicBool,
    slots: watch::Sender<SlotStatus>,
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, IngestStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source's way into the log.
struct Source {
    sequencer: Sequencer,
    /// Key of the log for each of the source's keys.
    keys: Vec<u32>,
    /// A loss to be logged in front of the next event: how many.
    lost: u64,
    last_ts: u64,
    connected: bool,
    /// When it left, until that has been logged.
    left: Option<MonoTime>,
    state: FeedState,
}

/// The first name of its kind whose slot is the group's: a slot has results of one group only.
fn overflow_name(group: &FeedGroup) -> String {
    let names = std::iter::once(OVERFLOW_NAME.to_owned()).chain((1..).map(|at| format!("(overflow {at})")));
    let mine = |name: &String| group.has(name_hash(name.as_bytes()));
    names.take(1 << 20).find(mine).unwrap_or_else(|| OVERFLOW_NAME.to_owned())
}

fn protocol(error: FrameError) -> Close {
    Close::new(CloseCode::PROTOCOL, error.to_string())
}

/// What ingest did, at its end.
#[derive(Debug, Clone, Default)]
pub struct IngestReport {
    /// As [`IngestStats`], to the end.
    pub stats: IngestStats,
    /// First and newest event time, if there was any event.
    pub span: Option<(u64, u64)>,
    /// Of the logged records, those that are no events: declared losses.
    pub controls: u64,
    /// Of these, the ones made here of losses that sources declared between events.
    pub gaps_made: u64,
    /// Records of the journal that were accepted, and that it had not taken when it ended. None of them was acknowledged as durable.
    pub unwritten: u64,
}

pub(crate) struct Ingest {
    options: LiveOptions,
    inputs: flume::Receiver<Input>,
    spare: flume::Sender<FrameBuffer>,
    shared: Arc<Shared>,
    clock: Clock,
    server: FeedServer,
    answers: HashMap<ConnectionId, mpsc::Sender<FeedAnswer>>,
    ranks: HashMap<ConnectionId, u16>,
    peers: HashMap<ConnectionId, Box<str>>,
    sources: Vec<Source>,
    router: Router,
    pub(crate) downstream: Downstream,
    /// Whether datagrams wait for their turn.
    holding: bool,
    /// Whether the shards are there.
    open: bool,
    names: HashMap<u64, u32>,
    overflow: Option<u32>,
    scratch: Vec<Event>,
    /// Events of a frame that came packed.
    unpacked: Vec<Event>,
    closed: HashMap<&'static str, u64>,
    first_ts: Option<u64>,
    controls: u64,
    gaps_made: u64,
    swept: MonoTime,
    ended: bool,
    journal: Option<Journaling>,
    /// All names in the order of their keys, a length byte in front of each; with snapshots only.
    texts: Vec<u8>,
    snapshots: Option<Snapshotting>,
    replica: Option<Box<Replicating>>,
    slots: Box<Slots>,
    /// The way to the shards, and how often their stages were changed. Without a journal and a cluster only, which have barriers of their own.
    commander: Commander,
    restages: u64,
}

/// When the next snapshot is due, and whom to ask for it.
struct Snapshotting {
    options: SnapshotOptions,
    requests: flume::Sender<Request>,
    shared: Arc<snapshot::Shared>,
    wall_ns: fn() -> u64,
    barrier: u64,
    /// Bytes and records that the journal had been given at the last one, and when that was.
    last: (u64, u64),
    at: MonoTime,
}

impl Snapshotting {
    fn is_due(&self, submitted: (u64, u64), now: MonoTime) -> bool {
        let (bytes, records) = (submitted.0 - self.last.0, submitted.1 - self.last.1);
        let SnapshotOptions { every_bytes, every_records, every_ns, .. } = self.options;
        (every_bytes > 0 && bytes >= every_bytes)
            || (every_records > 0 && records >= every_records)
            || (every_ns > 0 && records > 0 && now.since(self.at) >= every_ns)
    }
}

/// Tells the thread to end.
pub(crate) struct Stopper(flume::Sender<Input>, Arc<Shared>);

impl Stopper {
    pub(crate) fn stop(&self) {
        // First, for the queue is full where the journal takes nothing, and is let go of at the end.
        self.1.stopping.store(true, Relaxed);
        let _ = self.0.send(Input::Stop);
    }
}

impl Ingest {
    pub(crate) fn new(
        options: LiveOptions,
        (router, commander): (Router, Commander),
        downstream: Downstream,
        clock: Clock,
    ) -> (Self, IngestHandle, Stopper) {
        let (inputs_in, inputs) = flume::bounded(QUEUE_MAX);
        let (spare, spare_out) = flume::bounded(QUEUE_MAX);
        let shared = Arc::new(Shared {
            stats: Mutex::new(IngestStats::default()),
            logged: AtomicU64::new(0),
            events: AtomicU64::new(0),
            times: TimeCells::default(),
            stopping: AtomicBool::new(false),
            slots: watch::Sender::default(),
        });
        let stopper = Stopper(inputs_in.clone(), Arc::clone(&shared));
        let way = Way { inputs: inputs_in, spare: spare_out, shared: Arc::clone(&shared), clock };
        let handle = IngestHandle { ways: [way].into(), of: [Some(0)].into() };
        let ingest = Self {
            server: FeedServer::new(options.feed.clone()),
            inputs,
            spare,
            shared,
            clock,
            answers: HashMap::new(),
            ranks: HashMap::new(),
            peers: HashMap::new(),
            sources: Vec::new(),
            router,
            downstream,
            holding: false,
            open: true,
            names: HashMap::new(),
            overflow: None,
            scratch: Vec::with_capacity(tidegate_proto::wire::FRAME_EVENTS_MAX + 1),
            unpacked: Vec::with_capacity(tidegate_proto::wire::FRAME_EVENTS_MAX),
            closed: HashMap::new(),
            first_ts: None,
            controls: 0,
            gaps_made: 0,
            swept: clock.now(),
            ended: false,
            journal: None,
            texts: Vec::new(),
            snapshots: None,
            replica: options.replication.clone().map(|port| Box::new(Replicating::new(port, &options.feed))),
            slots: Box::default(),
            commander,
            restages: 0,
            options,
        };
        (ingest, handle, stopper)
    }

    /// The life of the thread.
    pub(crate) fn run(mut self) -> IngestReport {
        self.downstream.begin();
        let mut patience = SWEEP;
        while self.open() {
            let replicated = self.replicate(ORDERED_TURN);
            self.downstream.worked(&self.shared.times);
            if self.stalled() {
                if self.gives_up() {
                    break;
                }
                if !replicated {
                    std::thread::sleep(STALL);
                }
                self.downstream.waited(&self.shared.times);
                self.sweep_when_due();
                continue;
            }
            let wait = if self.slots_wait() { STALL } else { patience };
            let input = self.inputs.recv_timeout(if replicated { Duration::ZERO } else { wait });
            self.downstream.waited(&self.shared.times);
            match input {
                Ok(input) => self.input(input),
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => break,
            }
            patience = Duration::from_nanos(self.sweep_when_due().since(self.clock.now()));
        }
        self.wait_for_last_snapshot();
        self.finish().0
    }

    /// Whether there may be more to come.
    pub(crate) fn open(&self) -> bool {
        !self.ended && self.open
    }

    /// Takes at most `max` inputs without waiting for any. Returns whether there was one.
    pub(crate) fn turn(&mut self, max: usize) -> bool {
        let mut worked = false;
        for _ in 0..max {
            let Ok(input) = self.inputs.try_recv() else { break };
            worked = true;
            self.input(input);
            if !self.open() {
                break;
            }
        }
        worked
    }

    /// Looks at silent connections, if it is time. Returns when it is the next time.
    pub(crate) fn sweep_when_due(&mut self) -> MonoTime {
        let now = self.clock.now();
        if self.holding {
            self.look_at_held(now);
        }
        if now.since(self.swept) >= SWEEP.as_nanos() as u64 {
            self.swept = now;
            self.sweep(now);
        }
        let next = self.swept.after(SWEEP.as_nanos() as u64);
        // Nobody says when another thread of this node has done its part.
        let next = if self.slots_wait() { next.min(now.after(STALL.as_nanos() as u64)) } else { next };
        if self.holding { next.min(now.after(HELD_LOOK_NS)) } else { next }
    }

    /// Datagrams that have waited long enough go on without what is missing before them.
    fn look_at_held(&mut self, now: MonoTime) {
        for connection in self.server.holding().collect::<Vec<_>>() {
            let released = self.release_held(connection, now, false);
            self.release(connection);
            self.accepted(connection);
            if let Err(close) = released {
                self.close(connection, close);
            }
        }
        self.holding = self.server.holding().next().is_some();
    }

    /// What comes next, for somebody who waits for it.
    pub(crate) fn inputs(&self) -> flume::Receiver<Input> {
        self.inputs.clone()
    }

    pub(crate) fn input(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Open { grant, peer, answers, reply } => {
                let id = self.server.open(now, grant);
                self.answers.insert(id, answers);
                if let Some(peer) = peer {
                    self.peers.insert(id, peer);
                }
                if reply.send(id).is_err() {
                    self.forget(id);
                }
            }
            Input::Frames { connection, received, mut buffer, datagrams } => {
                self.received(received);
                self.frames(connection, now, &mut buffer, datagrams);
                if self.replica.is_none() {
                    self.downstream.arrived(received, &self.router);
                }
                buffer.reset();
                let _ = self.spare.try_send(buffer);
            }
            Input::Closed { connection } => self.forget(connection),
            Input::Journaled => self.journaled(now),
            // Whoever runs this looks at what there is of it before anything else.
            Input::Replicated => {}
            Input::Slot(ask) => self.slot_asked(ask),
            Input::Restage { make, legacy, reply } => {
                let _ = reply.send(self.restage(make, legacy));
            }
            Input::Stop => self.ended = true,
        }
        if self.server.leaves().is_some() {
            self.leave_when_stopped();
        }
        self.snapshot_when_due(now);
    }

    /// Every shard runs other stages from this place of the log on.
    fn restage(&mut self, make: StageFactory, Legacy { kept, behind }: Legacy) -> u64 {
        self.restages += 1;
        let barrier = self.restages;
        let to = Arc::new(Restage { barrier, make, kept, behind });
        for shard in 0..self.commander.shards() {
            // One that has ended, or only counts, computes nothing either way.
            let _ = self.commander.control(shard, ShardCommand::Restage(Arc::clone(&to)));
        }
        self.route(&[Event::control(kind::BARRIER, 0, 0, 0, [barrier, 0])]);
        barrier
    }

    /// From now on snapshots are taken.
    pub(crate) fn keep_snapshots(
        &mut self,
        options: SnapshotOptions,
        requests: flume::Sender<Request>,
        shared: Arc<snapshot::Shared>,
        wall_ns: fn() -> u64,
    ) {
        let (at, barrier) = (self.clock.now(), first_barrier(self.options.feed.group.as_ref()));
        self.snapshots = Some(Snapshotting { options, requests, shared, wall_ns, barrier, last: (0, 0), at });
    }

    fn snapshot_when_due(&mut self, now: MonoTime) {
        let (Some(snapshots), Some(journal)) = (&self.snapshots, &self.journal) else { return };
        if snapshots.is_due(journal.submitted(), now) && !snapshots.shared.is_busy() {
            self.snapshot(now);
        }
    }

    /// Begins a snapshot here, between two turns. Returns whether it could.
    fn snapshot(&mut self, now: MonoTime) -> bool {
        let (Some(snapshots), Some(journal)) = (&mut self.snapshots, &self.journal) else { return false };
        let (reply, point) = flume::bounded(1);
        if journal.barrier(reply).is_none() {
            return false; // at one of the next turns
        }
        snapshots.shared.begin();
        (snapshots.last, snapshots.at) = (journal.submitted(), now);
        snapshots.barrier += 1;
        let (barrier, taken_ns, begun) = (snapshots.barrier, (snapshots.wall_ns)(), Instant::now());
        let state = self.state(&self.server);
        let ingest_pause_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.route(&[Event::control(kind::BARRIER, 0, 0, 0, [barrier, 0])]);
        if let Some(snapshots) = &self.snapshots {
            let group = self.options.feed.group.clone();
            let request =
                Request { barrier, begun, taken_ns, ingest_pause_ns, point, state, moves: None, group };
            // There is room: it is asked for one at a time.
            let _ = snapshots.requests.try_send(request);
        }
        true
    }

    /// Begins a snapshot of all that was accepted, if there is something that the last one does not have. Returns whether it could,
    /// or need not; while it could not, the shards must get their turns.
    pub(crate) fn begin_last_snapshot(&mut self) -> bool {
        let (Some(snapshots), Some(journal)) = (&self.snapshots, &mut self.journal) else { return true };
        if journal.submitted().1 == snapshots.last.1 || journal.has_failed() {
            return true;
        }
        journal.submit(None);
        journal.push();
        !snapshots.shared.is_busy() && self.snapshot(self.clock.now())
    }

    /// Whether one is being made.
    pub(crate) fn is_snapshotting(&self) -> bool {
        self.snapshots.as_ref().is_some_and(|snapshots| snapshots.shared.is_busy())
    }

    fn state(&self, server: &FeedServer) -> IngestState {
        let source = |source: &Source| SourceLog {
            sequencer: source.sequencer.state(),
            keys: source.keys.clone(),
            lost: source.lost,
            last_ts: source.last_ts,
            finished: source.state.finished,
        };
        // A leader knows sources that are not committed yet, behind those that are; they are none of the state.
        let known = server.sources().count();
        IngestState {
            server: server.state(),
            sources: self.sources.iter().take(known).map(source).collect(),
            names: self.texts.clone(),
            overflow: self.overflow,
            first_ts: self.first_ts,
            controls: self.controls,
            gaps_made: self.gaps_made,
        }
    }

    /// Takes over what a snapshot has.
    ///
    /// # Errors
    /// What is wrong with it; ingest is then of no use.
    fn restore(&mut self, loaded: &Loaded) -> Result<(), String> {
        let state = &loaded.ingest;
        self.restore_sessions(&state.server).map_err(|error| error.to_string())?;
        for (rank, saved) in state.sources.iter().enumerate() {
            let options = SequencerOptions {
                disorder_ns: self.options.disorder_ns,
                fence: self.options.fence,
                source: rank as u16,
            };
            let sequencer = Sequencer::resume(options, &saved.sequencer)
                .ok_or_else(|| format!("the sequencer of source {rank} is none of these settings"))?;
            let feed = FeedState { peer: None, finished: saved.finished };
            self.sources.push(Source {
                sequencer,
                keys: saved.keys.clone(),
                lost: saved.lost,
                last_ts: saved.last_ts,
                connected: false,
                left: None,
                state: feed,
            });
        }
        if self.sources.len() != self.server.sources().count() {
            return Err(format!("it has {} logs of sources", self.sources.len()));
        }
        for name in state.names() {
            let hash = name_hash(name.as_bytes());
            self.names.insert(hash, self.router.defined() as u32);
            match &loaded.moves {
                Some(_) => self.router.absent(),
                None => self.router.known(hash),
            }
        }
        if let Some(moves) = &loaded.moves {
            // Keys that came with a slot are behind those that were there, whatever the log calls them.
            for (shard, keys) in (0..).zip(&loaded.keys) {
                let known = keys.iter().filter_map(|name| self.names.get(name));
                known.for_each(|key| self.router.settle(*key, shard));
            }
            self.restore_moves(moves)?;
        }
        let keys = self.router.defined() as u32;
        let all = self.sources.iter().flat_map(|source| &source.keys).chain(&state.overflow);
        if let Some(key) = all.copied().find(|key| *key >= keys) {
            return Err(format!("it has {keys} names and none for key {key}"));
        }
        self.texts.clone_from(&state.names);
        self.overflow = state.overflow;
        self.first_ts = state.first_ts;
        (self.controls, self.gaps_made) = (state.controls, state.gaps_made);
        Ok(())
    }

    /// A connection is gone.
    fn forget(&mut self, connection: ConnectionId) {
        self.answers.remove(&connection);
        self.ranks.remove(&connection);
        self.peers.remove(&connection);
        if let Some(rank) = self.server.closed(connection)
            && let Some(source) = self.sources.get_mut(usize::from(rank))
        {
            source.connected = false;
            source.left = Some(self.clock.now());
        }
    }

    fn close(&mut self, connection: ConnectionId, close: Close) {
        if close.code != CloseCode::FINISHED {
            *self.closed.entry(close.code.name()).or_default() += 1;
        }
        if let Some(answers) = self.answers.get(&connection) {
            let _ = answers.try_send(FeedAnswer::Close(close));
        }
        self.forget(connection);
    }

    fn frames(&mut self, connection: ConnectionId, now: MonoTime, buffer: &mut FrameBuffer, datagrams: bool) {
        let mut out = Vec::new();
        loop {
            let outcome = match buffer.next_frame() {
                Ok(None) if datagrams => match buffer.finish() {
                    Ok(()) => break,
                    Err(error) => Err(protocol(error)),
                },
                Ok(None) => break,
                Ok(Some((offset, head, body))) => Frame::read(offset, &head, body)
                    .map_err(protocol)
                    .and_then(|frame| self.frame(connection, now, offset, &frame, datagrams, &mut out)),
                Err(error) => Err(protocol(error)),
            };
            if let Err(close) | Ok(Some(close)) = outcome {
                if self.journal.is_some() {
                    self.release(connection); // as it is read again
                }
                self.accepted(connection);
                self.answer(connection, out);
                return self.close(connection, close);
            }
        }
        let position = self.ranks.get(&connection).map_or(0, |&rank| {
            self.sources.get(usize::from(rank)).map_or(0, |source| source.sequencer.sequence())
        });
        if datagrams {
            self.holding = self.server.holding().next().is_some();
        }
        self.release(connection);
        self.accepted(connection);
        // With nothing else waiting the feed learns all there is to know; under load a few answers are enough.
        self.server.acknowledge(connection, now, position, self.inputs.is_empty(), &mut out);
        self.answer(connection, out);
        self.tell_logged();
    }

    fn tell_logged(&self) {
        let logged: u64 = self.sources.iter().map(|source| source.sequencer.sequence()).sum();
        self.shared.logged.store(logged, Relaxed);
        // A control record is counted when it is taken in, and may still be held back by the sequencer.
        self.shared.events.store(logged.saturating_sub(self.controls), Relaxed);
    }

    /// This turn's input goes to the journal.
    fn accepted(&mut self, connection: ConnectionId) {
        if let Some(replica) = &mut self.replica {
            return replica.submit();
        }
        let Some(journal) = &mut self.journal else { return };
        let last = self.ranks.get(&connection).map(|&rank| {
            let (session, last) = self.server.stands(rank);
            (rank, session, last)
        });
        journal.submit(last);
    }

    /// Adds to this turn's input for the journal or for other nodes, if there are any.
    fn note(&mut self, write: impl Fn(&mut Batch) -> bool) {
        if let Some(replica) = &mut self.replica {
            replica.note(write);
        } else if let Some(journal) = &mut self.journal {
            journal.note(write);
        }
    }

    /// Whether the journal, or the cluster, takes nothing more for now; then nothing more may be accepted.
    pub(crate) fn stalled(&mut self) -> bool {
        self.replica.as_mut().is_some_and(|replica| replica.push())
            || self.journal.as_mut().is_some_and(Journaling::push)
    }

    /// To end while the journal takes nothing, maybe for ever: what is in the queue was not accepted, and stays with its feeds.
    pub(crate) fn gives_up(&self) -> bool {
        self.shared.stopping.load(Relaxed) && self.journal.as_ref().is_some_and(Journaling::is_stuck)
    }

    /// More is on disk: whoever waits for that is told.
    fn journaled(&mut self, now: MonoTime) {
        let Some(journal) = &mut self.journal else { return };
        let mut told = false;
        while let Some(mark) = journal.durable() {
            self.server.durable(mark.rank, mark.session, mark.sequence);
            told = true;
        }
        if !told {
            return;
        }
        let connections: Vec<(ConnectionId, u16)> =
            self.ranks.iter().map(|(&id, &rank)| (id, rank)).collect();
        for (connection, rank) in connections {
            let (mut out, at) = (Vec::new(), usize::from(rank));
            let position = self.sources.get(at).map_or(0, |source| source.sequencer.sequence());
            self.server.acknowledge(connection, now, position, true, &mut out);
            self.answer(connection, out);
        }
    }

    /// Takes over a snapshot, if there is one, reads the journal behind it as if that came again, and goes on behind it.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read or is damaged.
    pub(crate) fn recover(
        &mut self,
        handle: &IngestHandle,
        mut disk: Disk,
        loaded: Option<&Loaded>,
    ) -> Result<Recovered, JournalError> {
        let Some(settings) = self.options.journal.clone() else { return Ok(Recovered::default()) };
        let mut found = Recovered::default();
        let mut ranks: HashMap<u16, u16> = HashMap::new();
        let mut point: Option<Point> = None;
        if let Some(loaded @ Loaded { info, bytes, .. }) = loaded {
            self.restore(loaded).map_err(|what| JournalError::Snapshot {
                folder: settings.folder.clone(),
                offset: info.point.offset,
                what,
            })?;
            // They were written with these ranks.
            ranks.extend((0..self.sources.len() as u16).map(|rank| (rank, rank)));
            point = Some(info.point);
            (found.snapshot, found.snapshot_bytes) = (Some(info.point.offset), *bytes);
            found.point = point;
        }
        let total_bytes = Journaling::bytes_from(&mut disk, point.map_or(0, |point| point.offset));
        let (mut read, mut stopped) = (0, 0);
        let (mut journal, torn) =
            Journaling::start(&settings, disk, point, handle.inputs_of_first(), |view| {
                let before = found.records;
                stopped += self.read_again(&view, &mut ranks, &mut found);
                read += view.info.extent() as u64;
                if before / PROGRESS_RECORDS != found.records / PROGRESS_RECORDS {
                    let (records, bytes) = (found.records, read);
                    (settings.progress)(Progress { records, bytes, total_bytes });
                }
            })?;
        // What was read is as far from a snapshot as if it had just been accepted; that the server had stopped is no news.
        if found.records > stopped {
            journal.count(read, found.records - stopped);
        }
        found.torn_bytes = torn;
        let now = self.clock.now();
        for source in &mut self.sources {
            // As if each had left without a word.
            (source.connected, source.left) = (false, (!source.state.finished).then_some(now));
        }
        self.journal = Some(journal);
        let stats = self.stats();
        self.tell_logged();
        *self.shared.stats() = stats;
        Ok(found)
    }

    /// Returns how often it says that the server had stopped.
    fn read_again(
        &mut self,
        view: &BatchView<'_>,
        ranks: &mut HashMap<u16, u16>,
        found: &mut Recovered,
    ) -> u64 {
        self.read_items(view.entries().flatten().map(Item::Entry), ranks, found)
    }

    /// Returns how often they say that the server had stopped.
    fn read_items<'i>(
        &mut self,
        items: impl Iterator<Item = Item<'i>>,
        ranks: &mut HashMap<u16, u16>,
        found: &mut Recovered,
    ) -> u64 {
        let mut stopped = 0;
        let mut seen: Vec<u16> = Vec::new();
        let mut unpacked = std::mem::take(&mut self.unpacked);
        for item in items {
            found.records += item.records();
            let entry = match item {
                Item::Entry(entry) => entry,
                Item::Packed { rank, run } => {
                    let Some(&rank) = ranks.get(&rank).filter(|_| run.unpack(&mut unpacked).is_ok()) else {
                        found.refused += item.records();
                        continue;
                    };
                    self.events_again(rank, run.sequence, run.names, &unpacked, found);
                    if !seen.contains(&rank) {
                        seen.push(rank);
                    }
                    continue;
                }
            };
            let written = match entry {
                Entry::Source { rank, source_id, session, new_session, name, principal } => {
                    let Some(now) =
                        self.server.recover_source(source_id, session, new_session, name, principal)
                    else {
                        found.refused += 1;
                        continue;
                    };
                    ranks.insert(rank, now);
                    self.source(now);
                    let source = &mut self.sources[usize::from(now)];
                    source.state.finished = false;
                    if new_session {
                        source.keys.clear();
                    }
                    continue;
                }
                Entry::Names { rank, .. }
                | Entry::Events { rank, .. }
                | Entry::Lost { rank, .. }
                | Entry::Idle { rank }
                | Entry::Finished { rank } => rank,
                Entry::Digest { .. } => continue,
                Entry::Stopped => {
                    stopped += 1;
                    continue;
                }
            };
            let Some(&rank) = ranks.get(&written) else {
                found.refused += entry.records();
                continue;
            };
            match entry {
                Entry::Names { overflowed, names, .. } => {
                    self.server.recover_names(rank, names, overflowed);
                    self.named(rank, names, overflowed);
                }
                Entry::Events { sequence, named, events, .. } => {
                    unpacked.clear();
                    unpacked.extend(events.iter());
                    self.events_again(rank, sequence, named, &unpacked, found);
                    if !seen.contains(&rank) {
                        seen.push(rank);
                    }
                }
                Entry::Lost { last, count, .. } => {
                    self.server.recover_lost(rank, last, count);
                    self.lost(rank, count);
                }
                Entry::Idle { .. } => self.route(&[Event::control(kind::IDLE, 0, 0, rank, [0; 2])]),
                Entry::Finished { .. } => self.source_finished(rank),
                Entry::Source { .. } | Entry::Digest { .. } | Entry::Stopped => {}
            }
        }
        self.unpacked = unpacked;
        for rank in seen {
            self.release_source(rank);
        }
        stopped
    }

    fn events_again(
        &mut self,
        rank: u16,
        sequence: u64,
        named: u32,
        events: &[Event],
        found: &mut Recovered,
    ) {
        self.server.recover_events(rank, sequence, events.len() as u64);
        found.events += events.len() as u64;
        self.events(rank, named, events);
    }

    fn frame(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'_>,
        datagrams: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Close>, Close> {
        self.must_lead()?;
        let mut unpacked = std::mem::take(&mut self.unpacked);
        let whole = frame.unpacked(&mut unpacked).map_err(protocol);
        let packed = if let Frame::Packed(packed) = frame { Some(packed) } else { None };
        let outcome =
            whole.and_then(|frame| self.whole(connection, now, offset, (&frame, packed), datagrams, out));
        self.unpacked = unpacked;
        outcome
    }

    /// A frame whose events are as they were, and as they came if that was packed.
    fn whole(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        offset: u64,
        (frame, packed): (&Frame<'_>, Option<&Packed<'_>>),
        datagrams: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Close>, Close> {
        let taken = if datagrams {
            self.server.handle_datagram(connection, now, frame, out)?
        } else {
            // Whoever declares a loss, or speaks the last word, waits for no datagram any more.
            if matches!(frame, Frame::Gap { .. } | Frame::Close { .. }) {
                self.release_held(connection, now, true)?;
            }
            self.server.handle(connection, now, offset, frame, out)?
        };
        let closed = self.take(connection, taken, packed);
        self.release_held(connection, now, false)?;
        Ok(closed)
    }

    /// Logs the datagrams whose turn has come.
    fn release_held(&mut self, connection: ConnectionId, now: MonoTime, all: bool) -> Result<(), Close> {
        while let Some(Released { rank, lost, named, events }) = self.server.release(connection, now, all)? {
            let sequence = (self.server.stands(rank).1 + 1).saturating_sub(events.len() as u64);
            if lost > 0 {
                self.note(|batch| batch.lost(rank, sequence.saturating_sub(1), lost));
                if self.replica.is_none() {
                    self.lost(rank, lost);
                }
            }
            self.note(|batch| batch.events(rank, sequence, named, &events));
            if self.replica.is_none() {
                self.events(rank, named, &events);
            }
        }
        Ok(())
    }

    /// What has come of the open frame of the connection's source goes to the shards now, not with the next buffer.
    fn release(&mut self, connection: ConnectionId) {
        if let Some(&rank) = self.ranks.get(&connection) {
            self.release_source(rank);
        }
    }

    fn release_source(&mut self, rank: u16) {
        if let Some(source) = self.sources.get_mut(usize::from(rank)) {
            let (router, shards, open) = (&mut self.router, &mut self.downstream, &mut self.open);
            let times = &self.shared.times;
            source.sequencer.release(&mut |part| {
                *open &= shards.route(router, part, times);
            });
        }
    }

    fn answer(&self, connection: ConnectionId, out: Vec<u8>) {
        if !out.is_empty()
            && let Some(answers) = self.answers.get(&connection)
        {
            let _ = answers.try_send(FeedAnswer::Frames(out));
        }
    }

    /// Does what a frame asks; returns the last words for a connection that is done.
    fn take(
        &mut self,
        connection: ConnectionId,
        taken: Taken<'_>,
        packed: Option<&Packed<'_>>,
    ) -> Option<Close> {
        if self.replica.is_some() {
            return self.take_replicated(connection, taken, packed);
        }
        match taken {
            Taken::Nothing => {}
            Taken::Registered { rank, new_session, superseded } => {
                self.ranks.insert(connection, rank);
                self.source(rank);
                self.note_source(rank, new_session);
                let source = &mut self.sources[usize::from(rank)];
                (source.connected, source.left) = (true, None);
                source.state = FeedState { peer: self.peers.get(&connection).cloned(), finished: false };
                if new_session {
                    source.keys.clear();
                }
                if let Some((older, close)) = superseded {
                    self.close(older, close);
                    // The older one leaving must not look like the source leaving.
                    let source = &mut self.sources[usize::from(rank)];
                    (source.connected, source.left) = (true, None);
                }
            }
            Taken::Names { rank, first, names, overflowed } => {
                self.note(|batch| batch.names(rank, first, overflowed, &names));
                self.named(rank, names.into_iter(), overflowed);
            }
            Taken::Events { rank, named, events } => {
                let sequence = (self.server.stands(rank).1 + 1).saturating_sub(events.len() as u64);
                self.note(|batch| batch.events(rank, sequence, named, events));
                self.events(rank, named, events);
            }
            Taken::Lost { rank, count } => {
                let last = self.server.stands(rank).1;
                self.note(|batch| batch.lost(rank, last, count));
                self.lost(rank, count);
            }
            Taken::Finished { rank, close } => {
                if let Some(rank) = rank {
                    self.note(|batch| batch.finished(rank));
                    self.source_finished(rank);
                }
                return Some(close);
            }
        }
        None
    }

    /// Sources up to this rank exist.
    fn source(&mut self, rank: u16) {
        while self.sources.len() <= usize::from(rank) {
            let source = self.sources.len() as u16;
            let sequencer = Sequencer::new(SequencerOptions {
                disorder_ns: self.options.disorder_ns,
                fence: self.options.fence,
                source,
            });
            self.sources.push(Source {
                sequencer,
                keys: Vec::new(),
                lost: 0,
                last_ts: 0,
                connected: false,
                left: None,
                state: FeedState::default(),
            });
        }
    }

    fn note_source(&mut self, rank: u16, empty: bool) {
        if self.journal.is_none() && self.replica.is_none() {
            return;
        }
        let stats = self.server.sources().nth(usize::from(rank));
        if let Some(stats) = stats {
            let (id, session) = (stats.source_id, stats.session);
            self.note(|batch| batch.source(rank, id, session, empty, &stats.name, &stats.principal));
        }
    }

    fn named<'n>(&mut self, rank: u16, names: impl Iterator<Item = &'n str>, overflowed: u32) {
        for name in names {
            let key = self.key(name, rank);
            self.sources[usize::from(rank)].keys.push(key);
        }
        if overflowed > 0 {
            self.overflow_key(rank);
        }
    }

    fn lost(&mut self, rank: u16, count: u64) {
        let lost = &mut self.sources[usize::from(rank)].lost;
        *lost = lost.saturating_add(count).min(GAP_EVENTS_MAX);
    }

    /// The log's key of a name.
    fn key(&mut self, name: &str, rank: u16) -> u32 {
        let hash = name_hash(name.as_bytes());
        if let Some(&key) = self.names.get(&hash) {
            return key;
        }
        if self.names.len() >= self.options.names_max {
            return self.overflow_key(rank);
        }
        self.define(name, hash, rank)
    }

    fn overflow_key(&mut self, rank: u16) -> u32 {
        if let Some(key) = self.overflow {
            return key;
        }
        let group = self.options.feed.group.as_ref();
        let name = group.map_or(Cow::Borrowed(OVERFLOW_NAME), |group| overflow_name(group).into());
        let hash = name_hash(name.as_bytes());
        let known = self.names.get(&hash).copied();
        let key = known.unwrap_or_else(|| self.define(&name, hash, rank));
        self.overflow = Some(key);
        key
    }

    fn define(&mut self, name: &str, hash: u64, rank: u16) -> u32 {
        let key = self.router.defined() as u32;
        self.names.insert(hash, key);
        if self.options.journal.is_some() || self.options.replication.is_some() {
            // No name is longer than a length byte can say: frames and entries have none.
            self.texts.push(name.len() as u8);
            self.texts.extend_from_slice(name.as_bytes());
        }
        // Ahead of the DEFINE, so that the name is known before the first result about it.
        self.downstream.name(name);
        self.router.define(hash, rank);
        key
    }

    fn events(&mut self, rank: u16, named: u32, events: &[Event]) {
        // Only keys that have no name need the overflow key, which then exists already.
        let overflow = self.overflow.unwrap_or(u32::MAX);
        let source = &mut self.sources[usize::from(rank)];
        self.scratch.clear();
        let first = events.iter().find(|event| !event.is_control()).map(|event| event.ts_event);
        if source.lost > 0 {
            let (count, last) = (std::mem::take(&mut source.lost), source.last_ts);
            let resumed = first.unwrap_or(last);
            self.scratch.push(Event::control(kind::GAP, resumed, 0, rank, [count, last]));
            self.controls += 1;
            self.gaps_made += 1;
        }
        let keys = &source.keys;
        let mut controls = 0;
        self.scratch.extend(events.iter().map(|event| {
            let key = match event.kind {
                kind::CONTROL.. => {
                    controls += 1;
                    event.key
                }
                _ if event.key < named => keys.get(event.key as usize).copied().unwrap_or(overflow),
                _ => overflow,
            };
            Event { key, source: rank, ..*event }
        }));
        self.controls += controls;
        self.first_ts = self.first_ts.or(first);
        if let Some(last) = events.iter().rev().find(|event| !event.is_control()) {
            source.last_ts = last.ts_event;
        }
        let (router, shards, open) = (&mut self.router, &mut self.downstream, &mut self.open);
        let times = &self.shared.times;
        source.sequencer.push(&self.scratch, &mut |frame| {
            *open &= shards.route(router, frame, times);
        });
    }

    fn route(&mut self, log: &[Event]) {
        self.open &= self.downstream.route(&mut self.router, log, &self.shared.times);
    }

    /// A source said that it has no more: what it sent is logged now, and it holds nobody up.
    fn source_finished(&mut self, rank: u16) {
        let Some(source) = self.sources.get_mut(usize::from(rank)) else { return };
        let (router, shards, open) = (&mut self.router, &mut self.downstream, &mut self.open);
        let times = &self.shared.times;
        source.sequencer.flush(&mut |frame| {
            *open &= shards.route(router, frame, times);
        });
        source.connected = false;
        source.left = None;
        source.state.finished = true;
        self.route(&[Event::control(kind::IDLE, 0, 0, rank, [0; 2])]);
    }

    fn sweep(&mut self, now: MonoTime) {
        let (answers, mut gone) = (&self.answers, Vec::new());
        self.server.sweep(
            now,
            |connection, frame| {
                if let Some(answers) = answers.get(&connection) {
                    let _ = answers.try_send(FeedAnswer::Frames(frame.to_vec()));
                }
            },
            |connection, close| gone.push((connection, close)),
        );
        for (connection, close) in gone {
            self.close(connection, close);
        }
        self.say_again();
        // A source that left without a word stops holding the others' windows open after a while, and the log says so. Alone
        // it holds nobody up, and when it comes back its log is as if it had never left.
        if self.sources.len() > 1 && self.must_lead().is_ok() {
            for rank in 0..self.sources.len() {
                let source = &mut self.sources[rank];
                if source.left.is_some_and(|left| now.since(left) >= self.options.idle_after_ns) {
                    source.left = None;
                    self.note(|batch| batch.idle(rank as u16));
                    if self.replica.is_none() {
                        self.route(&[Event::control(kind::IDLE, 0, 0, rank as u16, [0; 2])]);
                    }
                }
            }
        }
        if let Some(replica) = &mut self.replica {
            replica.submit();
        }
        if let Some(journal) = &mut self.journal {
            journal.submit(None);
        }
        self.journaled(now);
        if let (Some(journal), Some(snapshots)) = (&self.journal, &self.snapshots) {
            journal.retain(snapshots.shared.needed());
        }
        self.snapshot_when_due(now);
        let stats = self.stats();
        *self.shared.stats() = stats;
    }

    fn stats(&self) -> IngestStats {
        let mut closed: Vec<(&'static str, u64)> =
            self.closed.iter().map(|(&name, &count)| (name, count)).collect();
        closed.sort_unstable();
        IngestStats {
            sources: self.sessions().sources().collect(),
            feeds: self.sources.iter().map(|source| source.state.clone()).collect(),
            connections: self.server.connections(),
            logged: self.sources.iter().map(|source| source.sequencer.sequence()).sum(),
            fenced: self.sources.iter().map(|source| source.sequencer.fenced()).sum(),
            names: self.names.len() as u64,
            closed,
            stalls: self.router.stalls(),
            journal: self.journal.as_ref().map(Journaling::stats),
            syncs: self.journal.as_ref().map(Journaling::syncs).unwrap_or_default(),
            snapshots: self.snapshots.as_ref().map(|snapshots| snapshots.shared.stats().clone()),
        }
    }

    /// On a thread of its own: everything accepted goes into a snapshot, which others write meanwhile.
    fn wait_for_last_snapshot(&mut self) {
        let deadline = Instant::now() + LAST_SNAPSHOT;
        while !self.gives_up()
            && (!self.begin_last_snapshot() || self.is_snapshotting())
            && Instant::now() < deadline
        {
            std::thread::sleep(STALL);
        }
    }

    /// The end of all feeds: every source's log is closed, and the whole with END.
    pub(crate) fn finish(mut self) -> (IngestReport, Downstream) {
        let close = Close::new(CloseCode::SHUTTING_DOWN, "the server ends");
        for answers in self.answers.values() {
            let _ = answers.try_send(FeedAnswer::Close(close.clone()));
        }
        self.leave();
        // Whoever in the queue waits for a word hears that there will be none.
        self.inputs.drain();
        let mut end = None;
        let mut sources = std::mem::take(&mut self.sources);
        for source in &mut sources {
            let mut log = Vec::new();
            source.sequencer.finish(&mut |frame| match frame {
                [last] if last.kind == kind::END => end = Some(*last),
                frame => log.push(frame.to_vec()),
            });
            log.iter().for_each(|frame| self.route(frame));
        }
        self.sources = sources;
        self.route(&[end.unwrap_or(Event::control(kind::END, 0, 0, 0, [0; 2]))]);
        let newest = self.sources.iter().map(|source| source.sequencer.newest()).max();
        // The end of the process is not the end of the log: what was closed here is open again when it is read.
        let before = self.stats();
        let (journal, unwritten) = self.journal.take().map(Journaling::finish).unzip();
        let stats = IngestStats { journal, syncs: before.syncs, ..self.stats() };
        *self.shared.stats() = stats.clone();
        self.tell_logged();
        let report = IngestReport {
            stats,
            span: self.first_ts.zip(newest),
            controls: self.controls,
            gaps_made: self.gaps_made,
            unwritten: unwritten.unwrap_or(0),
        };
        // With the router gone the shards' rings end.
        (report, self.downstream)
    }
}
