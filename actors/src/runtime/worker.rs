//! What a shard does: turns, snapshots between them, and an orderly end when an operator panics. On a thread of its own
//! ([`Worker::run`]), or turn by turn on the caller's ([`super::inline`]).

use super::idle::Idle;
use super::options::{FailurePolicy, Placement, RuntimeOptions};
use super::stats::{Cells, Phase, add};
use super::times::Stopwatch;
use super::{
    BarrierWatch, Restage, ShardCommand, ShardSnapshot, SlotChange, SlotStep, StageFactory, StageReport, pin,
};
use crossbeam_utils::CachePadded;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_engine::{
    Analysis, Context, Digest, Event, FullPolicy, Output, OutputSink, PartHead, Receiver, Sender, Shard,
    Sleeper, Waker, kind, output_kind, ring,
};

/// What a shard left behind when its input ended.
pub(crate) struct ShardOutcome {
    pub(crate) digest: Digest,
    pub(crate) stages: Vec<StageReport>,
    pub(crate) lanes: Vec<(String, u16, u64)>,
}

impl ShardOutcome {
    fn of(shard: &Shard) -> Self {
        let mut digest = Digest::default();
        digest.add_shard(shard);
        Self {
            digest,
            stages: StageReport::of(shard.stages()),
            lanes: shard
                .lanes()
                .into_iter()
                .map(|(name, lane)| (name.to_string(), lane.stream(), lane.emitted()))
                .collect(),
        }
    }
}

/// Why a shard's thread ended.
pub(crate) enum Exit {
    /// Input ended or the runtime was stopped. A quarantined shard has no outcome.
    Ended(Option<Box<ShardOutcome>>),
    /// An operator or analyzer panicked, with this message. The worker can run again.
    Failed(String),
}

/// Where outputs of a thread go.
struct Outlet {
    ring: Option<Sender<Output>>,
    /// Whether these are results on their way out; else they are on their way to the analysis thread.
    last: bool,
    idle: Idle,
    stop: Arc<AtomicBool>,
    cells: Arc<CachePadded<Cells>>,
    watch: Stopwatch,
    /// Whether this is the way out of an analysis thread.
    analysis: bool,
}

impl OutputSink for Outlet {
    fn accept(&mut self, outputs: &[Output]) {
        let mut unread = 0;
        if let Some(ring) = &mut self.ring {
            let mut rest = outputs;
            loop {
                rest = &rest[ring.offer(rest)..];
                if rest.is_empty() {
                    break;
                }
                // Not `send_all`: a stop must not wait for a reader that has itself stopped reading.
                if ring.is_abandoned() || self.stop.load(Ordering::Acquire) {
                    unread = rest.len() as u64;
                    break;
                }
                let times = self.cells.times(self.analysis);
                self.watch.worked(times);
                self.idle.idle(false);
                self.watch.blocked(times);
            }
            self.idle.idle(true);
        }
        // These counters have one writer each, the thread with the last outlet: even adding zero from the other thread
        // of a staged shard would write back an old value.
        if self.last {
            let results = outputs.iter().filter(|output| output.kind < output_kind::WATERMARK).count();
            add(&self.cells.outputs, results as u64);
            add(&self.cells.unread, unread);
        } else {
            add(&self.cells.staged, outputs.len() as u64);
        }
    }
}

impl Outlet {
    /// Whether the analysis thread behind this outlet has gone before its time.
    fn has_lost_its_stage(&self) -> bool {
        !self.last && self.ring.as_ref().is_some_and(Sender::is_abandoned)
    }

    /// A turn and the wait behind it are over: notes what the time went into.
    fn lap(&mut self, worked: bool) {
        let times = self.cells.times(self.analysis);
        if worked { self.watch.worked(times) } else { self.watch.waited(times) }
    }
}

/// Why [`Worker::step`] handed the shard back.
pub(super) enum Pause {
    Snapshot {
        barrier: Option<u64>,
        replies: Vec<flume::Sender<ShardSnapshot>>,
    },
    /// Other stages from here on; then a snapshot for those who asked for one.
    Restage {
        to: Arc<Restage>,
        replies: Vec<flume::Sender<ShardSnapshot>>,
    },
    /// A slot leaves, or comes.
    Slot(Arc<SlotChange>),
    Ended,
    Failed(String),
}

/// How [`Worker::step`] went.
pub(super) enum Step {
    /// One turn, and whether it found work.
    Went(bool),
    /// Something needs the shard as a whole.
    Paused(Pause),
}

/// What one turn met beside plain records.
#[derive(Default)]
struct Turn {
    consumed: usize,
    barrier: Option<u64>,
    failed: Option<String>,
}

/// Everything of a shard that outlives a panic: ring ends, the last snapshot, what is known of keys. It moves from one
/// thread to its successor.
pub(crate) struct Worker {
    shard: u32,
    make: StageFactory,
    options: RuntimeOptions,
    input: Receiver<Event>,
    /// Records taken off the ring and not yet applied: behind a barrier, or behind a batch that failed.
    pending: Vec<Event>,
    outlet: Outlet,
    commands: flume::Receiver<ShardCommand>,
    barriers: Option<BarrierWatch>,
    /// Stages to change to at barriers that have not come yet, in their order.
    restages: VecDeque<Arc<Restage>>,
    /// The same, of slots that leave or come.
    changes: VecDeque<Arc<SlotChange>>,
    /// Events before each stage was there, once stages were changed: a snapshot does not have it.
    since: Vec<u64>,
    snapshot: Option<Vec<u8>>,
    /// Keys and losses the failed shard knew.
    known: Option<Context>,
    failed_before: bool,
    /// Events applied since the snapshot, and those of the batch that failed.
    since_snapshot: u64,
    failing: u64,
    pub(crate) quarantined: bool,
    cells: Arc<CachePadded<Cells>>,
    stop: Arc<AtomicBool>,
    sleeper: Sleeper,
}

/// The text of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    // Bounded, because it is kept and shown.
    text.unwrap_or("a panic without a message").chars().take(500).collect()
}

/// Runs code that may panic. What it touched is dropped by the caller when it did.
fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| panic_message(&*panic))
}

fn data_count(records: &[Event]) -> u64 {
    records.iter().filter(|record| !record.is_control()).count() as u64
}

/// What a [`Worker`] is made of.
pub(crate) struct WorkerParts {
    pub(crate) shard: u32,
    pub(crate) make: StageFactory,
    pub(crate) options: RuntimeOptions,
    pub(crate) input: Receiver<Event>,
    pub(crate) output: Option<Sender<Output>>,
    pub(crate) commands: flume::Receiver<ShardCommand>,
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) cells: Arc<CachePadded<Cells>>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> Self {
        let WorkerParts { shard, make, options, input, output, commands, snapshot, cells, stop } = parts;
        let outlet = Outlet {
            ring: output,
            last: true,
            idle: Idle::new(options.idle),
            stop: Arc::clone(&stop),
            cells: Arc::clone(&cells),
            watch: Stopwatch::start(),
            analysis: options.placement == Placement::Staged,
        };
        Self {
            shard,
            make,
            options,
            input,
            pending: Vec::with_capacity(options.batch_max),
            outlet,
            commands,
            barriers: None,
            restages: VecDeque::new(),
            changes: VecDeque::new(),
            since: Vec::new(),
            snapshot,
            known: None,
            failed_before: false,
            since_snapshot: 0,
            failing: 0,
            quarantined: false,
            cells,
            stop,
            sleeper: Sleeper::default(),
        }
    }

    /// Has whoever sends records wake the thread; returns the waker for those who give commands.
    pub(crate) fn wakes(&self) -> Waker {
        self.input.wake_with(self.sleeper.waker());
        self.sleeper.waker()
    }

    /// Waits as the strategy says, until there are records or commands.
    fn idle(&self, idle: &mut Idle, worked: bool) {
        idle.idle_on(worked, &self.sleeper, Duration::MAX, || {
            self.input.has_work() || !self.commands.is_empty() || self.stop.load(Ordering::Acquire)
        });
    }

    /// The life of one thread.
    pub(crate) fn run(&mut self) -> Exit {
        pin(&self.options, self.shard, &self.cells);
        if self.quarantined {
            self.count_the_rest();
            return Exit::Ended(None);
        }
        let mut shard = match self.build() {
            Ok(shard) => shard,
            Err(message) => return Exit::Failed(message),
        };
        self.cells.enter(Phase::Running);
        loop {
            let pause = match self.options.placement {
                Placement::Fused => self.with_outlet(|worker, outlet| worker.turns(&mut shard, outlet)),
                Placement::Staged => self.staged_turns(&mut shard),
            };
            match self.settle(&mut shard, pause) {
                Ok(None) => {}
                Ok(outcome) => return Exit::Ended(outcome),
                Err(message) => {
                    self.abandon(shard);
                    return Exit::Failed(message);
                }
            }
        }
    }

    /// Does what a pause is for; returns what the shard leaves when its input has ended.
    ///
    /// # Errors
    /// The message of a panic. The shard is to be abandoned then.
    pub(super) fn settle(
        &mut self,
        shard: &mut Shard,
        pause: Pause,
    ) -> Result<Option<Box<ShardOutcome>>, String> {
        match pause {
            Pause::Restage { to, replies } => self.restage(shard, &to, &replies).map(|()| None),
            Pause::Snapshot { barrier, replies } => {
                self.take_snapshot(shard, barrier, &replies).map(|()| None)
            }
            Pause::Slot(change) => self.change_slot(shard, &change).map(|()| None),
            Pause::Ended => guarded(|| ShardOutcome::of(shard)).map(|outcome| {
                self.cells.ledgers().clone_from(&outcome.stages);
                Some(Box::new(outcome))
            }),
            Pause::Failed(message) => Err(message),
        }
    }

    /// Runs other stages from here on.
    ///
    /// # Errors
    /// The message of a panic while they were made.
    fn restage(
        &mut self,
        shard: &mut Shard,
        to: &Restage,
        replies: &[flume::Sender<ShardSnapshot>],
    ) -> Result<(), String> {
        guarded(|| shard.restage((to.make)(), &|name| to.legacy(name)))?;
        self.make = Arc::clone(&to.make);
        self.since = shard.stages().iter().map(tidegate_engine::Stage::since).collect();
        self.cells.ledgers().clear();
        // A snapshot of the stages before could not be loaded into these.
        self.snapshot = None;
        if !replies.is_empty() || matches!(self.options.failure, FailurePolicy::Restart { .. }) {
            self.take_snapshot(shard, None, replies)?;
        }
        Ok(())
    }

    /// A slot leaves, or comes. Whoever asked hears how it went.
    ///
    /// # Errors
    /// What is wrong: the shard is not what its log says from here on.
    fn change_slot(&mut self, shard: &mut Shard, change: &SlotChange) -> Result<(), String> {
        let make = Arc::clone(&self.make);
        let done = match &change.step {
            SlotStep::Take { slot, reply } => {
                let taken = guarded(|| shard.take_slot(&|| make(), *slot).map_err(|error| error.to_string()));
                let taken = taken.and_then(|taken| taken);
                let done = taken.as_ref().map(|_| ()).map_err(Clone::clone);
                let _ = reply.try_send(taken);
                done
            }
            SlotStep::Join { watermark, part, sources, reply } => {
                let done = self.with_outlet(|_, outlet| {
                    guarded(|| {
                        shard.catch_up(*watermark, outlet);
                        let Some(part) = part else { return Ok(()) };
                        let slot = PartHead::read(part).map_err(|error| error.to_string())?.slot;
                        if shard.has_slot(slot) {
                            // Of a history in which it did not leave: what comes is what goes on.
                            shard.take_slot(&|| make(), slot).map_err(|error| error.to_string())?;
                        }
                        let here = |rank: u16| sources.get(usize::from(rank)).copied().unwrap_or(u16::MAX);
                        shard.join_slot(&|| make(), part, &here).map_err(|error| error.to_string())
                    })
                });
                let done = done.and_then(|done| done);
                let _ = reply.try_send(done.clone());
                done
            }
        };
        done?;
        self.cells.ledgers().clear();
        self.cells.watermark.store(shard.context().watermark(), Ordering::Relaxed);
        // One before does not go together with what comes.
        self.snapshot = None;
        if matches!(self.options.failure, FailurePolicy::Restart { .. }) {
            self.take_snapshot(shard, None, &[])?;
        }
        Ok(())
    }

    /// Drops a shard that failed; what it knew of keys and time is kept for its successor.
    pub(super) fn abandon(&mut self, mut shard: Shard) {
        self.failed_before = true;
        self.cells.ledgers().clear();
        let known = shard.take_context();
        // Analyzers may fail over an end that the operators had already consumed.
        if known.ended() && !self.pending.iter().any(|record| record.kind == kind::END) {
            self.pending.push(Event::control(kind::END, 0, 0, 0, [0; 2]));
        }
        self.known = Some(known);
        // A poisoned operator may well panic again while it is dropped.
        let _ = guarded(move || drop(shard));
    }

    /// A new shard, from the last snapshot and what its predecessor knew.
    ///
    /// # Errors
    /// The message of a panic, or why the snapshot was refused.
    pub(super) fn build(&mut self) -> Result<Shard, String> {
        if self.failed_before {
            add(&self.cells.lost, self.since_snapshot + self.failing);
            (self.since_snapshot, self.failing) = (0, 0);
        }
        let (make, snapshot, known, since) = (&self.make, &self.snapshot, &self.known, &self.since);
        let shard = guarded(|| {
            let mut shard = Shard::new(make());
            shard.set_since(since);
            if let Some(bytes) = snapshot {
                shard.load(bytes).map_err(|error| format!("snapshot refused: {error}"))?;
            }
            shard.resync(known.as_ref());
            Ok::<_, String>(shard)
        })??;
        self.cells.watermark.store(shard.context().watermark(), Ordering::Relaxed);
        if !matches!(self.options.failure, FailurePolicy::Restart { .. }) {
            self.snapshot = None;
        }
        Ok(shard)
    }

    /// Lends the outlet out, so that it can be borrowed beside the rest of the worker.
    fn with_outlet<T>(&mut self, act: impl FnOnce(&mut Self, &mut Outlet) -> T) -> T {
        let mut outlet = self.take_outlet();
        let result = act(self, &mut outlet);
        self.outlet = outlet;
        result
    }

    fn take_outlet(&mut self) -> Outlet {
        let empty = self.new_outlet(None, true);
        std::mem::replace(&mut self.outlet, empty)
    }

    fn new_outlet(&self, ring: Option<Sender<Output>>, last: bool) -> Outlet {
        Outlet {
            ring,
            last,
            idle: Idle::new(self.options.idle),
            stop: Arc::clone(&self.stop),
            cells: Arc::clone(&self.cells),
            watch: Stopwatch::start(),
            analysis: last && self.options.placement == Placement::Staged,
        }
    }

    /// Turns with the analyzers on a thread of their own. That thread lives until the next pause: to snapshot the whole,
    /// both halves must have come to the same point, and the surest way is to let the second one run dry.
    fn staged_turns(&mut self, shard: &mut Shard) -> Pause {
        let analysis = shard.split_analysis();
        // What an analysis thread that failed left undone, nobody will do.
        self.cells.analysed.store(self.cells.staged.load(Ordering::Relaxed), Ordering::Relaxed);
        let (sender, receiver) = ring(self.options.ring_events, FullPolicy::Wait);
        let outlet = self.take_outlet();
        let (options, shard_number) = (self.options, self.shard);
        let cells = Arc::clone(&self.cells);
        std::thread::scope(|scope| {
            let spawned = std::thread::Builder::new()
                .name(format!("tg-analysis-{shard_number}"))
                .spawn_scoped(scope, move || {
                    pin(&options, options.shards + shard_number, &cells);
                    analyse(analysis, receiver, outlet, &options)
                });
            let thread = match spawned {
                Ok(thread) => thread,
                Err(error) => return Pause::Failed(format!("no analysis thread: {error}")),
            };
            let mut stage = self.new_outlet(Some(sender), false);
            let pause = self.turns(shard, &mut stage);
            drop(stage);
            match thread.join() {
                Ok((outlet, analysis)) => {
                    self.outlet = outlet;
                    match analysis {
                        Ok(analysis) => {
                            shard.join_analysis(analysis);
                            pause
                        }
                        Err(message) => failed_analysis(pause, message),
                    }
                }
                Err(panic) => failed_analysis(pause, panic_message(&*panic)),
            }
        })
    }

    /// Turn after turn, until something needs the shard as a whole.
    fn turns(&mut self, shard: &mut Shard, out: &mut Outlet) -> Pause {
        let mut idle = Idle::new(self.options.idle);
        out.watch = Stopwatch::start();
        loop {
            if out.has_lost_its_stage() {
                return Pause::Failed(LOST_STAGE.into());
            }
            match self.step(shard, out) {
                Step::Went(worked) => {
                    self.idle(&mut idle, worked);
                    out.lap(worked);
                }
                Step::Paused(pause) => return pause,
            }
        }
    }

    /// One turn: commands, then records.
    pub(super) fn step(&mut self, shard: &mut Shard, out: &mut dyn OutputSink) -> Step {
        let replies = self.poll_commands();
        if !replies.is_empty() {
            return Step::Paused(Pause::Snapshot { barrier: None, replies });
        }
        if self.stop.load(Ordering::Acquire) {
            return Step::Paused(Pause::Ended);
        }
        let finished = self.pending.is_empty() && self.input.is_finished();
        let turn = self.turn(shard, out);
        if let Some(message) = turn.failed {
            return Step::Paused(Pause::Failed(message));
        }
        if let Some(barrier) = turn.barrier {
            // Whoever asked for barriers before routing this one must be heard, so look once more.
            let mut replies = self.poll_commands();
            if self.restages.front().is_some_and(|to| to.barrier == barrier)
                && let Some(to) = self.restages.pop_front()
            {
                return Step::Paused(Pause::Restage { to, replies });
            }
            if self.changes.front().is_some_and(|change| change.barrier == barrier)
                && let Some(change) = self.changes.pop_front()
            {
                return Step::Paused(Pause::Slot(change));
            }
            replies.extend(self.barriers.as_ref().map(|watch| watch.snapshots.clone()));
            if !replies.is_empty() {
                return Step::Paused(Pause::Snapshot { barrier: Some(barrier), replies });
            }
        }
        if finished {
            return Step::Paused(Pause::Ended);
        }
        let keep_every = match self.options.failure {
            FailurePolicy::Restart { .. } => self.options.snapshot_every_events,
            FailurePolicy::Quarantine => None,
        };
        if keep_every.is_some_and(|every| self.since_snapshot >= every) {
            return Step::Paused(Pause::Snapshot { barrier: None, replies: Vec::new() });
        }
        if self.cells.ledgers_wanted.load(Ordering::Relaxed) {
            self.cells.show_ledgers(shard.stages());
        }
        Step::Went(turn.consumed > 0)
    }

    fn turn(&mut self, shard: &mut Shard, out: &mut dyn OutputSink) -> Turn {
        let mut turn = Turn::default();
        let mut since = 0;
        let mut failing = 0;
        let mut apply = |run: &[Event], pending: &mut Vec<Event>| {
            if turn.barrier.is_some() || turn.failed.is_some() {
                pending.extend_from_slice(run);
                return;
            }
            let before = shard.events();
            match guarded(|| shard.process(run, out)) {
                Ok(progress) => {
                    since += shard.events() - before;
                    turn.barrier = progress.barrier;
                    pending.extend_from_slice(&run[progress.consumed..]);
                }
                Err(message) => {
                    // How far it came is unknown. The data is given up; what the records say about keys, time and the
                    // end of the input is not, and the successor is told. Frames' lengths no longer hold.
                    failing = data_count(run);
                    pending.extend(run.iter().filter(|record| record.is_control()).map(|record| Event {
                        key: if record.kind == kind::MARK { 0 } else { record.key },
                        ..*record
                    }));
                    turn.failed = Some(message);
                }
            }
        };
        let consumed = if self.pending.is_empty() {
            let pending = &mut self.pending;
            self.input.drain(self.options.batch_max, |run| apply(run, pending))
        } else {
            let records = std::mem::take(&mut self.pending);
            apply(&records, &mut self.pending);
            records.len()
        };
        turn.consumed = consumed;
        self.since_snapshot += since;
        self.failing = failing;
        if consumed > 0 && turn.failed.is_none() {
            turn.failed = guarded(|| shard.flush(out)).err();
        }
        // Behind everything that these records led to.
        self.cells.applied.store(self.input.received() - self.pending.len() as u64, Ordering::Release);
        add(&self.cells.events, since + failing);
        self.cells.watermark.store(shard.context().watermark(), Ordering::Relaxed);
        add(if consumed > 0 { &self.cells.turns_busy } else { &self.cells.turns_idle }, 1);
        turn
    }

    /// Takes all waiting commands; returns who wants a snapshot.
    fn poll_commands(&mut self) -> Vec<flume::Sender<ShardSnapshot>> {
        let mut replies = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                ShardCommand::Snapshot(reply) => replies.push(reply),
                ShardCommand::WatchBarriers(watch) => self.barriers = Some(watch),
                ShardCommand::Restage(to) => self.restages.push_back(to),
                ShardCommand::Slot(change) => self.changes.push_back(change),
                ShardCommand::Stop => self.stop.store(true, Ordering::Release),
            }
        }
        replies
    }

    fn take_snapshot(
        &mut self,
        shard: &Shard,
        barrier: Option<u64>,
        replies: &[flume::Sender<ShardSnapshot>],
    ) -> Result<(), String> {
        let begun = Instant::now();
        let spare = self.barriers.as_ref().and_then(|watch| watch.spare.try_recv().ok());
        let mut bytes = guarded(|| shard.save(spare.unwrap_or_default()))?;
        if matches!(self.options.failure, FailurePolicy::Restart { .. }) {
            let kept = self.snapshot.get_or_insert_default();
            kept.clear();
            kept.extend_from_slice(&bytes);
            self.since_snapshot = 0;
        }
        let pause_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for (nth, reply) in replies.iter().enumerate() {
            // The last, and mostly only, one gets the bytes themselves.
            let last = nth + 1 == replies.len();
            let bytes = if last { std::mem::take(&mut bytes) } else { bytes.clone() };
            let (shard, events) = (self.shard, shard.events());
            // Never wait for a reader on the data path; whoever asks provides the room.
            let _ = reply.try_send(ShardSnapshot { shard, barrier, events, pause_ns, bytes });
        }
        Ok(())
    }

    /// A quarantined shard: nobody upstream may wait for it, so its events are taken and counted.
    fn count_the_rest(&mut self) {
        self.quarantine();
        let mut idle = Idle::new(self.options.idle);
        let mut watch = Stopwatch::start();
        while let Some(worked) = self.count_some() {
            self.idle(&mut idle, worked);
            if worked { watch.worked(&self.cells.times) } else { watch.waited(&self.cells.times) }
        }
    }

    /// From now on events are only counted, with those that the failed shard left.
    pub(super) fn quarantine(&mut self) {
        self.quarantined = true;
        self.cells.enter(Phase::Quarantined);
        self.barriers = None;
        // The reader of the outputs learns that there will be none.
        drop(self.take_outlet());
        add(&self.cells.quarantined, self.failing);
        let left = data_count(&self.pending);
        add(&self.cells.events, left);
        add(&self.cells.quarantined, left);
        self.pending.clear();
    }

    /// A turn of a quarantined shard: whether there was something, `None` at the end.
    pub(super) fn count_some(&mut self) -> Option<bool> {
        // Dropped unanswered, which the askers notice.
        drop(self.poll_commands());
        self.barriers = None;
        let finished = self.input.is_finished();
        if finished || self.stop.load(Ordering::Acquire) {
            return None;
        }
        let mut data = 0;
        let taken = self.input.drain(self.options.batch_max, |run| data += data_count(run));
        add(&self.cells.events, data);
        add(&self.cells.quarantined, data);
        add(if taken > 0 { &self.cells.turns_busy } else { &self.cells.turns_idle }, 1);
        Some(taken > 0)
    }
}

const LOST_STAGE: &str = "the analysis thread is gone";

/// The analyzers are gone, whatever made the shard pause; its replies are dropped, which their receivers notice.
fn failed_analysis(pause: Pause, message: String) -> Pause {
    match pause {
        // The operator failed too, and first.
        Pause::Failed(first) if first != LOST_STAGE => Pause::Failed(first),
        _ => Pause::Failed(message),
    }
}

/// The analysis thread: until the shard closes the ring, or an analyzer panics.
fn analyse(
    mut analysis: Analysis,
    mut input: Receiver<Output>,
    mut outlet: Outlet,
    options: &RuntimeOptions,
) -> (Outlet, Result<Analysis, String>) {
    let mut idle = Idle::new(options.idle);
    let sleeper = Sleeper::default();
    input.wake_with(sleeper.waker());
    outlet.watch = Stopwatch::start();
    loop {
        if input.is_finished() {
            return (outlet, Ok(analysis));
        }
        let turn = guarded(|| {
            let taken = input.drain(options.batch_max, |run| analysis.process(run, &mut outlet));
            if taken > 0 {
                analysis.flush(&mut outlet);
            }
            taken
        });
        match turn {
            Ok(taken) => {
                let analysed = &outlet.cells.analysed;
                analysed.store(analysed.load(Ordering::Relaxed) + taken as u64, Ordering::Release);
                idle.idle_on(taken > 0, &sleeper, Duration::MAX, || input.has_work());
                outlet.lap(taken > 0);
            }
            Err(message) => {
                let _ = guarded(move || drop(analysis));
                return (outlet, Err(message));
            }
        }
    }
}
