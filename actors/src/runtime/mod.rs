//! Runs shards on threads: rings in, rings out, counters beside, and an orderly end.
//!
//! ```text
//! Router --ring--> tg-shard-N [--ring--> tg-analysis-N] --ring--> caller
//!                     ^ commands (flume, once a turn)
//!                     | lifecycle: tg-control (crate::supervision)
//! ```
//! Where cores are few the shards have no threads: [`InlineShards`] runs them on their caller's.
//!
//! **Invariant:** threads only ever change when something happens, never what: digests do not depend on the number of
//! shards, on batches or on placement.

mod idle;
mod inline;
mod options;
mod stats;
mod threads;
mod times;
pub(crate) mod worker;

pub use idle::{Idle, IdleStrategy, IdleStrategyError};
pub use inline::InlineShards;
pub use options::{FailurePolicy, Outputs, Placement, PlacementError, RuntimeError, RuntimeOptions};
pub use stats::{Phase, ShardProgress, ShardStats, StatsHandle};
pub use threads::{Threads, ThreadsError};
pub use times::{Stopwatch, ThreadStats, ThreadTimes, TimeCells};

use crate::supervision::{Berth, ShardEnd, ShardStatus, Supervision};
use crossbeam_utils::CachePadded;
pub(crate) use stats::{Cells, add};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_engine::{
    Digest, FullPolicy, Ledger, Legacy, Output, Receiver, RegroupError, Router, Stage, Waker, ring,
};
use worker::{Worker, WorkerParts};

/// Makes the stages of one shard. Called once per shard and once more per restart; each time it must make the same.
pub type StageFactory = Arc<dyn Fn() -> Vec<Stage> + Send + Sync>;

/// What a shard can be told. Looked at once a turn. A quarantined shard answers no request: it drops the reply's sender.
#[derive(Debug)]
pub enum ShardCommand {
    /// Snapshot now, between two turns, wherever in the log that is. The reply is dropped when the channel has no room.
    Snapshot(flume::Sender<ShardSnapshot>),
    /// From now on snapshot at each BARRIER record of the log, exactly there, for this watcher, who replaces an earlier one. A
    /// barrier routed after this was sent is not missed.
    WatchBarriers(BarrierWatch),
    /// Run other stages from a barrier of the log on. One routed after this was sent is not missed.
    Restage(Arc<Restage>),
    /// Let a slot go, or take one up, at a barrier of the log. One routed after this was sent is not missed.
    Slot(Arc<SlotChange>),
    /// End without reading the ring empty.
    Stop,
}

/// Who wants a snapshot at each barrier.
#[derive(Clone, Debug)]
pub struct BarrierWatch {
    /// Where it goes; dropped when there is no room.
    pub snapshots: flume::Sender<ShardSnapshot>,
    /// Memory of earlier ones: to get as much anew would take longer than to fill it.
    pub spare: flume::Receiver<Vec<u8>>,
}

/// Other stages for a shard, see [`tidegate_engine::Shard::restage`].
pub struct Restage {
    /// Number of the BARRIER they begin behind.
    pub barrier: u64,
    /// What makes them.
    pub make: StageFactory,
    /// Names of those that go on as they are.
    pub kept: Vec<String>,
    /// Last numbers per slot of streams that ended earlier, by the names of those that come.
    pub behind: Vec<(String, Arc<[u64]>)>,
}

impl Restage {
    fn legacy(&self, name: &str) -> Legacy {
        if self.kept.iter().any(|kept| kept == name) {
            return Legacy::All;
        }
        let behind = self.behind.iter().find(|(coming, _)| coming == name);
        behind.map_or(Legacy::Numbers, |(_, last)| Legacy::Behind(Arc::clone(last)))
    }
}

impl std::fmt::Debug for Restage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restage")
            .field("barrier", &self.barrier)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

/// A slot leaves a shard, or comes to it, behind a barrier; see [`tidegate_engine::Shard::take_slot`].
#[derive(Debug)]
pub struct SlotChange {
    /// Number of the BARRIER.
    pub barrier: u64,
    /// What happens there.
    pub step: SlotStep,
}

/// What happens to a slot.
#[derive(Debug)]
pub enum SlotStep {
    /// It leaves the shard, and what is known of it goes to whoever asked, or why it could not.
    Take {
        /// The slot.
        slot: u16,
        /// Whoever asked.
        reply: flume::Sender<Result<Vec<u8>, String>>,
    },
    /// A slot comes to one of the shards; all of them go on from no earlier than it was.
    Join {
        /// How far it was in event time.
        watermark: u64,
        /// What is known of it; `None` for shards that it does not come to.
        part: Option<Arc<[u8]>>,
        /// What sources of the other log are called here, by their rank there.
        sources: Arc<[u16]>,
        /// Who hears how it went.
        reply: flume::Sender<Result<(), String>>,
    },
}

/// The way to shards for commands, for any thread.
#[derive(Clone, Debug)]
pub struct Commander {
    commands: Vec<flume::Sender<ShardCommand>>,
    /// Of the shards' threads, if they have any.
    wakers: Vec<Waker>,
}

impl Commander {
    /// Shards there are.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.commands.len() as u32
    }

    /// Gives one shard a command.
    ///
    /// # Errors
    /// [`RuntimeError::Command`] when there is no such shard, it has ended, or its commands pile up.
    pub fn control(&self, shard: u32, command: ShardCommand) -> Result<(), RuntimeError> {
        command_to(&self.commands, shard, command)?;
        if let Some(waker) = self.wakers.get(shard as usize) {
            waker.wake();
        }
        Ok(())
    }
}

/// A shard's state at one point of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// The shard.
    pub shard: u32,
    /// The barrier it was taken at; `None` for one between two turns.
    pub barrier: Option<u64>,
    /// Data events applied up to it.
    pub events: u64,
    /// How long the shard stood still for it, in nanoseconds.
    pub pause_ns: u64,
    /// The state, for [`Runtime::restore`], as [`tidegate_engine::Shard::save`] gives it.
    pub bytes: Vec<u8>,
}

/// A stage over all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Where its events went.
    pub ledger: Ledger,
    /// See [`tidegate_engine::Operator::cut`].
    pub cut: u64,
    /// Events that the shards had applied before it was there, which its ledger knows nothing of.
    pub since: u64,
}

impl StageReport {
    fn of(stages: &[Stage]) -> Vec<Self> {
        let report = |stage: &Stage| Self {
            name: stage.name().to_string(),
            ledger: stage.ledger(),
            cut: stage.cut(),
            since: stage.since(),
        };
        stages.iter().map(report).collect()
    }

    /// Adds the stages of a shard. By place, not by name: every shard has the same stages in the same order.
    fn add(sum: &mut Vec<Self>, stages: impl Iterator<Item = Self>) {
        for (at, stage) in stages.enumerate() {
            match sum.get_mut(at) {
                Some(sum) => {
                    sum.ledger.merge(&stage.ledger);
                    sum.cut += stage.cut;
                    sum.since += stage.since;
                }
                None => sum.push(stage),
            }
        }
    }
}

/// An output stream over all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneReport {
    /// Name of the stage that writes it.
    pub name: String,
    /// The stream's number.
    pub stream: u16,
    /// Results written.
    pub emitted: u64,
}

/// The end of a runtime, in numbers. Digest, stages and lanes speak of the shards that ended well; what a quarantined
/// shard had computed is not trusted and not in them.
#[derive(Clone, Debug, Default)]
pub struct RuntimeReport {
    /// Over all lanes of all shards.
    pub digest: Digest,
    /// Stages in order.
    pub stages: Vec<StageReport>,
    /// Streams in order of the configuration.
    pub lanes: Vec<LaneReport>,
    /// Data events taken off the rings.
    pub events: u64,
    /// Panics caught.
    pub panics: u64,
    /// Restarts.
    pub restarts: u64,
    /// Of `events`, those only counted by quarantined shards.
    pub quarantined: u64,
    /// Of `events`, those between a restart's snapshot and the point where it resumed.
    pub lost_in_restart: u64,
    /// Counters per shard.
    pub shards: Vec<ShardStats>,
    /// The last failure of each shard that had one.
    pub failures: Vec<(u32, String)>,
}

impl RuntimeReport {
    /// Adds what another runtime of the same stages did, whose shards are numbered behind these.
    pub fn merge(&mut self, other: Self) {
        let behind = self.shards.len() as u32;
        self.digest.merge(&other.digest);
        StageReport::add(&mut self.stages, other.stages.into_iter());
        for (at, lane) in other.lanes.into_iter().enumerate() {
            match self.lanes.get_mut(at) {
                Some(sum) => sum.emitted += lane.emitted,
                None => self.lanes.push(lane),
            }
        }
        self.events += other.events;
        self.panics += other.panics;
        self.restarts += other.restarts;
        self.quarantined += other.quarantined;
        self.lost_in_restart += other.lost_in_restart;
        let shards = other.shards.into_iter();
        self.shards.extend(shards.map(|stats| ShardStats { shard: behind + stats.shard, ..stats }));
        let failures = other.failures.into_iter();
        self.failures.extend(failures.map(|(shard, why)| (behind + shard, why)));
    }

    /// Adds up what the shards left.
    fn new(ends: Vec<ShardEnd>, shards: Vec<ShardStats>) -> Self {
        let mut report = Self { shards, ..Self::default() };
        for (shard, outcome, failure) in ends {
            report.failures.extend(failure.map(|message| (shard, message)));
            let Some(outcome) = outcome else { continue };
            report.digest.merge(&outcome.digest);
            StageReport::add(&mut report.stages, outcome.stages.into_iter());
            for (at, (name, stream, emitted)) in outcome.lanes.into_iter().enumerate() {
                match report.lanes.get_mut(at) {
                    Some(lane) => lane.emitted += emitted,
                    None => report.lanes.push(LaneReport { name, stream, emitted }),
                }
            }
        }
        for shard in &report.shards {
            report.events += shard.events;
            report.panics += shard.panics;
            report.restarts += shard.restarts;
            report.quarantined += shard.quarantined;
            report.lost_in_restart += shard.lost_in_restart;
        }
        report
    }
}

/// Shards on their threads, under a supervisor.
///
/// The calls that wait ([`Runtime::finish`], [`Runtime::stop`], and dropping it, which stops it) block their thread:
/// from asynchronous code use a blocking task.
pub struct Runtime {
    router: Option<Router>,
    outputs: Option<Vec<Receiver<Output>>>,
    commands: Vec<flume::Sender<ShardCommand>>,
    /// Of the shards, for commands.
    wakers: Vec<Waker>,
    stats: StatsHandle,
    stop: Arc<AtomicBool>,
    supervision: Option<Supervision>,
}

/// Commands that may wait for one shard.
const COMMANDS_MAX: usize = 64;

impl Runtime {
    /// Starts the supervisor and, through it, a thread per shard.
    ///
    /// # Errors
    /// [`RuntimeError`] when an option is out of range or the system refuses a thread.
    pub fn start(make_stages: StageFactory, options: RuntimeOptions) -> Result<Self, RuntimeError> {
        Self::launch(make_stages, options, &[])
    }

    /// Starts from snapshots, one per shard, as a runtime of the same stages and as many shards took them; those of another number
    /// are made into such by [`regrouped`]. The router
    /// starts empty: keys are to be defined again in the same order, which changes nothing in the shards.
    ///
    /// # Errors
    /// As [`Runtime::start`], and [`RuntimeError::Snapshots`] unless there is one per shard. A snapshot that a shard
    /// then refuses is a failure of that shard, see [`FailurePolicy`].
    pub fn restore(
        make_stages: StageFactory,
        options: RuntimeOptions,
        snapshots: &[ShardSnapshot],
    ) -> Result<Self, RuntimeError> {
        options.validate()?;
        one_each(snapshots, options.shards)?;
        Self::launch(make_stages, options, snapshots)
    }

    fn launch(
        make: StageFactory,
        options: RuntimeOptions,
        snapshots: &[ShardSnapshot],
    ) -> Result<Self, RuntimeError> {
        options.validate()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (mut outlets, mut outputs, mut commands) = (Vec::new(), Vec::new(), Vec::new());
        let (mut berths, mut counters, mut wakers) = (Vec::new(), Vec::new(), Vec::new());
        for shard in 0..options.shards {
            let (sender, input) = ring(options.ring_events, FullPolicy::Wait);
            outlets.push(sender);
            let output = match options.outputs {
                Outputs::Discard => None,
                Outputs::Ring { capacity } => {
                    let (sender, receiver) = ring(capacity, FullPolicy::Wait);
                    outputs.push(receiver);
                    Some(sender)
                }
            };
            let (command, commands_in) = flume::bounded(COMMANDS_MAX);
            commands.push(command);
            let cells = Arc::new(CachePadded::new(Cells::default()));
            counters.push((Arc::clone(&cells), input.counters()));
            let snapshot = snapshots.iter().find(|snapshot| snapshot.shard == shard);
            // What a restored shard had applied counts on.
            cells.resume(snapshot);
            let worker = Worker::new(WorkerParts {
                shard,
                make: Arc::clone(&make),
                options,
                input,
                output,
                commands: commands_in,
                snapshot: snapshot.map(|snapshot| snapshot.bytes.clone()),
                cells: Arc::clone(&cells),
                stop: Arc::clone(&stop),
            });
            wakers.push(worker.wakes());
            berths.push(Arc::new(Berth::new(shard, worker, cells)));
        }
        let supervision = Supervision::start(berths, options.failure)?;
        let placement = tidegate_engine::Placement::round_robin(options.shards);
        Ok(Self {
            router: Some(Router::new(placement, outlets)),
            outputs: Some(outputs),
            commands,
            wakers,
            stats: StatsHandle::new(counters),
            stop,
            supervision: Some(supervision),
        })
    }

    /// The way in.
    ///
    /// # Panics
    /// After [`Runtime::take_router`].
    pub fn router(&mut self) -> &mut Router {
        self.router.as_mut().expect("the router was taken; whoever has it routes")
    }

    /// The way in, for the thread that reads the input. Dropping it ends the input. `None` the second time.
    pub fn take_router(&mut self) -> Option<Router> {
        self.router.take()
    }

    /// The rings of outputs, one per shard; empty under [`Outputs::Discard`] and the second time. Besides results they
    /// carry the markers [`tidegate_engine::output_kind::WATERMARK`] and `END`. They must be drained, or dropped.
    pub fn take_outputs(&mut self) -> Vec<Receiver<Output>> {
        self.outputs.take().unwrap_or_default()
    }

    /// Counters per shard, now.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.stats.stats()
    }

    /// Counters per shard, for another thread.
    #[must_use]
    pub fn stats_handle(&self) -> StatsHandle {
        self.stats.clone()
    }

    /// What the supervisor knows of its shards. Waits for its answer.
    #[must_use]
    pub fn status(&self) -> Vec<ShardStatus> {
        self.supervision.as_ref().map(Supervision::status).unwrap_or_default()
    }

    /// Gives one shard a command.
    ///
    /// # Errors
    /// [`RuntimeError::Command`] when there is no such shard, it has ended, or its commands pile up.
    pub fn control(&self, shard: u32, command: ShardCommand) -> Result<(), RuntimeError> {
        command_to(&self.commands, shard, command)?;
        self.wakers[shard as usize].wake();
        Ok(())
    }

    /// The way to the shards for commands, for any thread.
    #[must_use]
    pub fn commander(&self) -> Commander {
        Commander { commands: self.commands.clone(), wakers: self.wakers.clone() }
    }

    /// Sends every shard's state at each further BARRIER to `watch`, which needs room for one per shard.
    ///
    /// # Errors
    /// As [`Runtime::control`].
    pub fn watch_barriers(&self, watch: &BarrierWatch) -> Result<(), RuntimeError> {
        let shards = 0..self.commands.len() as u32;
        shards
            .into_iter()
            .try_for_each(|shard| self.control(shard, ShardCommand::WatchBarriers(watch.clone())))
    }

    /// Ends the input, waits until all rings are empty and all threads have ended, and reports. A router that was taken
    /// must have been dropped, or this waits for it; rings of outputs must be drained meanwhile, unless they were not
    /// taken, and then their results are discarded.
    #[must_use]
    pub fn finish(mut self) -> RuntimeReport {
        self.end()
    }

    /// Ends now, without reading the rings empty, and reports.
    #[must_use]
    pub fn stop(mut self) -> RuntimeReport {
        self.stop_now();
        self.end()
    }

    fn stop_now(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(supervision) = &self.supervision {
            supervision.stop();
        }
        self.wakers.iter().for_each(Waker::wake);
    }

    fn end(&mut self) -> RuntimeReport {
        self.router = None;
        self.outputs = None;
        let ends = self.supervision.take().map(Supervision::join).unwrap_or_default();
        RuntimeReport::new(ends, self.stats.stats())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.supervision.is_some() {
            self.stop_now();
            self.router = None;
            self.outputs = None;
            drop(self.supervision.take().map(Supervision::join));
        }
    }
}

/// Divides what the shards of a runtime saved at one barrier among `shards` of another one of the same stages, for its [`Runtime::restore`]. `keys` are
/// the names of all keys, in the order in which the router was told of them.
///
/// # Errors
/// [`RegroupError`] by what does not fit together.
pub fn regrouped(
    make: &StageFactory,
    states: &[&[u8]],
    keys: &[u64],
    shards: u32,
) -> Result<Vec<ShardSnapshot>, RegroupError> {
    if shards == 0 {
        return Err(RegroupError::Empty { states: states.len(), shards });
    }
    let placement = tidegate_engine::Placement::round_robin(shards);
    let new = tidegate_engine::regroup(&|| make(), states, keys, shards, &|slot| placement.shard_of(slot))?;
    let saved = (0..).zip(new).map(|(number, shard)| ShardSnapshot {
        shard: number,
        barrier: None,
        events: shard.events(),
        pause_ns: 0,
        bytes: shard.save(Vec::new()),
    });
    Ok(saved.collect())
}

/// Whether there is a snapshot for each shard.
fn one_each(snapshots: &[ShardSnapshot], shards: u32) -> Result<(), RuntimeError> {
    let has = |shard| snapshots.iter().any(|snapshot| snapshot.shard == shard);
    if snapshots.len() == shards as usize && (0..shards).all(has) {
        return Ok(());
    }
    Err(RuntimeError::Snapshots { found: snapshots.len(), shards })
}

/// Puts a command into a shard's queue.
fn command_to(
    commands: &[flume::Sender<ShardCommand>],
    shard: u32,
    command: ShardCommand,
) -> Result<(), RuntimeError> {
    let refused = |reason| RuntimeError::Command { shard, reason };
    let commands = commands.get(shard as usize).ok_or(refused("there is no such shard"))?;
    commands.try_send(command).map_err(|error| match error {
        flume::TrySendError::Full(_) => refused("too many commands wait"),
        flume::TrySendError::Disconnected(_) => refused("it has ended"),
    })
}

/// Ties the calling thread to a core, by its number among the runtime's threads.
fn pin(options: &RuntimeOptions, number: u32, cells: &Cells) {
    if options.pin && !pin_to_core(number) {
        // Both threads of a staged shard may come here.
        cells.pin_failures.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
fn pin_to_core(number: u32) -> bool {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::sync::OnceLock;
    // As the process was allowed at first: an analysis thread inherits its shard's single core.
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    let cores = CORES.get_or_init(|| {
        // By the process's first thread, which nobody here ever ties.
        let process = Some(rustix::process::getpid());
        let allowed = sched_getaffinity(process).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
    });
    match cores.len() {
        0 => false,
        1 => true,
        count => {
            let mut one = CpuSet::new();
            one.set(cores[number as usize % count]);
            sched_setaffinity(None, &one).is_ok()
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn pin_to_core(_number: u32) -> bool {
    false
}

#[cfg(test)]
mod tests;
