//! The replay pipeline: inputs -> merge -> sequencer -> router -> shards -> results in one order.
//!
//! The caller's thread reads and routes; shards run on threads of the [`Runtime`]; a collector thread puts the results
//! of all shards into one order that does not depend on their number: watermark by watermark, then by stream, time,
//! name and sequence.

use crate::merge::Merge;
use crate::plan::{Plan, PlanError, StreamInfo};
use crate::source::{Progress, ReadAccount, ReadError, Source};
use hdrhistogram::Histogram;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_actors::runtime::{
    Idle, IdleStrategy, InlineShards, Outputs, Phase, Placement, Runtime, RuntimeError, RuntimeOptions,
    RuntimeReport, ShardCommand, ShardSnapshot, ShardStats, StageFactory, StatsHandle, regrouped,
};
use tidegate_engine::{
    Digest, Event, FenceOptions, FullPolicy, Ledger, Output, Receiver, RegroupError, Router, Sequencer,
    SequencerOptions, kind, output_kind, ring,
};

/// How fast a replay goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the machine allows.
    Max,
    /// So many times the speed of the recording.
    Times(f64),
}

/// How a replay runs. None of it changes a result.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Threads, rings and placement. `outputs` is set by the pipeline.
    pub runtime: RuntimeOptions,
    /// Speed.
    pub speed: Speed,
    /// Set from elsewhere (Ctrl-C) to end early and cleanly.
    pub stop: Arc<AtomicBool>,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { runtime: RuntimeOptions::default(), speed: Speed::Max, stop: Arc::default() }
    }
}

/// How the log is made of the input. This is part of what a digest proves: change it and results may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// How far behind the newest stamp an event is still on time.
    pub disorder_ns: u64,
    /// Bounds on stamps that jump ahead; `None` believes all.
    pub fence: Option<FenceOptions>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { disorder_ns: 0, fence: Some(FenceOptions::default()) }
    }
}

/// Takes results in their final order.
pub trait ResultSink: Send {
    /// One record of `stream` about `name`.
    ///
    /// # Errors
    /// Whatever keeps it from taking the record; the replay then stops and reports it.
    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), SinkError>;

    /// What was recorded is complete up to this event time. Nothing to do for who only writes down.
    ///
    /// # Errors
    /// As [`ResultSink::record`].
    fn complete(&mut self, _watermark: u64) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Why a sink takes no more.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why a replay could not run or finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The plan cannot be built.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The threads cannot be laid out or started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// What shards had saved cannot be divided among others.
    #[error(transparent)]
    Regroup(#[from] RegroupError),
    /// The results could not be written.
    #[error("results could not be written")]
    Sink(#[source] SinkError),
    /// A thread of ours ended in a way that is a bug.
    #[error("the {thread} thread failed: this is a bug in Tidegate")]
    Thread {
        /// Which one.
        thread: &'static str,
    },
}

/// What a running replay tells.
#[derive(Debug, Clone)]
pub struct LiveStats {
    /// Events read and routed.
    pub events: u64,
    /// Newest event time.
    pub newest: u64,
    /// Time since the start.
    pub elapsed: Duration,
    /// How far reading is.
    pub progress: Progress,
    /// Counters of every shard.
    pub shards: Vec<ShardStats>,
}

/// One input's account at the end.
#[derive(Debug, Clone)]
pub struct InputReport {
    /// Its format.
    pub format: String,
    /// Its account.
    pub account: ReadAccount,
}

/// From a frame's last event read to its results in hand, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Frames measured.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Longest.
    pub max: u64,
}

/// What a replay did.
pub struct ReplayReport {
    /// The streams, in the order of their numbers.
    pub streams: Vec<StreamInfo>,
    /// Inputs in the order of their rank.
    pub inputs: Vec<InputReport>,
    /// Events that entered the log.
    pub logged: u64,
    /// Control records of the inputs (gaps): they keep their place in the log but are no event.
    pub controls: u64,
    /// Events the fence refused as absurdly far in the future.
    pub fenced: u64,
    /// Names seen.
    pub names: usize,
    /// First and newest event time, if there was any event.
    pub span: Option<(u64, u64)>,
    /// What the shards did: digest, ledgers, panics.
    pub runtime: RuntimeReport,
    /// Wall time from the first read to the last result.
    pub elapsed: Duration,
    /// Latency, when results were collected.
    pub latency: Option<Latency>,
    /// The input that could not be read to its end. Everything before it was processed.
    pub failure: Option<ReadError>,
    /// Whether it was stopped early.
    pub stopped: bool,
}

impl ReplayReport {
    /// Events per second of wall time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.logged as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Events the readers had already decoded when the replay was stopped early: read, counted by their reader, not run.
    #[must_use]
    pub fn read_ahead(&self) -> u64 {
        let events: u64 = self.inputs.iter().map(|input| input.account.events).sum();
        if self.stopped { events.saturating_sub(self.logged + self.fenced + self.controls) } else { 0 }
    }

    /// Inputs minus everything they became, over readers, fence and operators: zero, always.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        let read: i128 = self.inputs.iter().map(|input| input.account.imbalance().abs()).sum();
        let events: u64 = self.inputs.iter().map(|input| input.account.events).sum();
        let logged = if self.stopped || self.failure.is_some() {
            0 // a source may have counted what was never asked of it
        } else {
            i128::from(events) - i128::from(self.logged + self.fenced + self.controls)
        };
        let operators: i128 = self
            .runtime
            .stages
            .iter()
            .map(|stage| stage.ledger.imbalance().abs() + self.undelivered(&stage.ledger))
            .sum();
        read + logged.abs() + operators
    }

    fn undelivered(&self, ledger: &Ledger) -> i128 {
        let lost = self.runtime.quarantined + self.runtime.lost_in_restart;
        if lost > 0 { 0 } else { (i128::from(self.runtime.events) - i128::from(ledger.delivered)).abs() }
    }
}

/// Events that carry data; GAP and the like keep their place in the log but are nobody's input.
fn data_events(events: &[Event]) -> u64 {
    events.iter().filter(|event| !event.is_control()).count() as u64
}

/// What makes a plan's stages, which can be made.
fn factory(plan: &Plan) -> Result<StageFactory, PlanError> {
    plan.stages()?;
    let plan = plan.clone();
    Ok(Arc::new(move || plan.stages().unwrap_or_default()))
}

/// Runs inputs through a plan. `progress` is called about ten times a second from the calling thread.
///
/// # Errors
/// [`ReplayError`] when it could not run or the sink failed. An input that could not be read to its end is not an error
/// here: see [`ReplayReport::failure`].
pub fn replay(
    inputs: Vec<Box<dyn Source>>,
    plan: &Plan,
    log: LogOptions,
    options: &ReplayOptions,
    sink: Option<&mut dyn ResultSink>,
    progress: &mut dyn FnMut(&LiveStats),
) -> Result<ReplayReport, ReplayError> {
    let streams = plan.streams()?;
    let stages = factory(plan)?;
    let outputs = if sink.is_some() { Outputs::Ring { capacity: 4_096 } } else { Outputs::Discard };
    let mut runtime = Runtime::start(stages, RuntimeOptions { outputs, ..options.runtime })?;
    let start = Instant::now();
    let stats = runtime.stats_handle();
    let (names_in, names_out) = flume::unbounded();
    let (marks_in, marks_out) = ring::<Mark>(1 << 14, FullPolicy::DropNewest);
    let receivers = runtime.take_outputs();
    let Some(mut router) = runtime.take_router() else {
        return Err(ReplayError::Thread { thread: "routing" });
    };

    std::thread::scope(|scope| {
        let stop = &options.stop;
        let streams_ref = &streams;
        let collector = sink.map(|sink| {
            let collector = Collector::new(stats.clone(), receivers, names_out, marks_out);
            std::thread::Builder::new()
                .name("tg-collect".into())
                .spawn_scoped(scope, move || collector.run(streams_ref, sink, stop))
        });
        let collector = collector.transpose().map_err(RuntimeError::from)?;
        let mut marks = collector.is_some().then_some(marks_in);

        let mut merge = Merge::new(inputs);
        let mut sequencer =
            Sequencer::new(SequencerOptions { disorder_ns: log.disorder_ns, fence: log.fence, source: 0 });
        let mut pace = Pace::new(options.speed, start);
        let mut idle = Idle::new(options.runtime.idle);
        let mut live = LiveStats {
            events: 0,
            newest: 0,
            elapsed: Duration::ZERO,
            progress: Progress::default(),
            shards: Vec::new(),
        };
        let mut first_ts = None;
        let mut told = start;
        let mut defined = 0;
        let mut controls = 0;
        let mut open = true;
        let mut stopped = false;
        let mut held: Vec<Event> = Vec::new();
        loop {
            merge.batch(&mut held);
            if held.is_empty() {
                break;
            }
            for (name, hash, source) in merge.names_from(defined) {
                if marks.is_some() {
                    let _ = names_in.send((hash, name));
                }
                router.define(hash, source);
                defined += 1;
            }
            if first_ts.is_none() {
                first_ts = held.iter().find(|event| !event.is_control()).map(|event| event.ts_event);
            }
            let mut emit = |frame: &[Event]| {
                if let (Some(marks), Some(last)) = (&mut marks, frame.last())
                    && last.kind == kind::WATERMARK
                {
                    marks.offer(&[Mark { watermark: last.ts_event, routed: Instant::now() }]);
                }
                idle.idle(true);
                open &= router.route(frame, || idle.idle(false));
            };
            let mut rest = held.as_slice();
            while !rest.is_empty() && !stopped {
                let now = pace.due(rest);
                sequencer.push(&rest[..now], &mut emit);
                let data = data_events(&rest[..now]);
                live.events += data;
                controls += now as u64 - data;
                rest = &rest[now..];
                if told.elapsed() >= Duration::from_millis(100) {
                    told = Instant::now();
                    live.elapsed = start.elapsed();
                    live.newest = sequencer.newest();
                    live.progress = merge.progress();
                    live.shards = stats.stats();
                    progress(&live);
                }
                stopped = stop.load(Ordering::Relaxed);
                if now == 0 && !rest.is_empty() {
                    pace.wait();
                }
            }
            if stopped || !open {
                break;
            }
        }
        sequencer.finish(&mut |frame| open &= router.route(frame, || idle.idle(false)));
        let names = merge.names().len();
        let failure = merge.take_failure();
        drop(router);
        drop(names_in);
        let collected = match collector {
            Some(handle) => Some(handle.join().map_err(|_| ReplayError::Thread { thread: "collector" })?),
            None => None,
        };
        let runtime = runtime.finish();
        let elapsed = start.elapsed();
        let latency = collected.transpose().map_err(ReplayError::Sink)?;
        live.elapsed = elapsed;
        live.newest = sequencer.newest();
        live.progress = merge.progress();
        live.shards = stats.stats();
        progress(&live);
        Ok(ReplayReport {
            inputs: merge
                .accounts()
                .map(|(format, account)| InputReport { format, account: account.clone() })
                .collect(),
            logged: runtime.events,
            controls,
            fenced: sequencer.fenced(),
            names,
            span: first_ts.map(|first| (first, sequencer.newest())),
            streams: streams.clone(),
            runtime,
            elapsed,
            latency,
            failure,
            stopped,
        })
    })
}

#[derive(Clone, Copy)]
struct Mark {
    watermark: u64,
    routed: Instant,
}

/// Lets events go when their time has come.
struct Pace {
    speed: Speed,
    start: Instant,
    first_ts: Option<u64>,
    next: Option<Instant>,
}

impl Pace {
    fn new(speed: Speed, start: Instant) -> Self {
        Self { speed, start, first_ts: None, next: None }
    }

    /// How many of `events` are due now.
    fn due(&mut self, events: &[Event]) -> usize {
        let Speed::Times(speed) = self.speed else { return events.len() };
        let at = |ts: u64, first: u64, start: Instant| {
            start + Duration::from_secs_f64(ts.saturating_sub(first) as f64 * 1e-9 / speed.max(1e-6))
        };
        let now = Instant::now();
        let first = match self.first_ts {
            Some(first) => first,
            None => {
                let data = events.iter().find(|event| !event.is_control());
                *self.first_ts.insert(data.map_or(0, |event| event.ts_event))
            }
        };
        let early = |event: &Event| !event.is_control() && at(event.ts_event, first, self.start) > now;
        let count = events.iter().position(early).unwrap_or(events.len());
        self.next = events.get(count).map(|event| at(event.ts_event, first, self.start));
        count
    }

    /// Waits for the next event, in steps short enough for progress and Ctrl-C.
    fn wait(&self) {
        let Some(next) = self.next else { return };
        let left = next.saturating_duration_since(Instant::now());
        std::thread::park_timeout(left.min(Duration::from_millis(50)));
    }
}

/// One shard's results on their way into the common order.
struct Inlet {
    receiver: Receiver<Output>,
    pending: Vec<Output>,
    ready: VecDeque<(u64, Vec<Output>)>,
    finished: bool,
}

struct Collector {
    inlets: Vec<Inlet>,
    names_in: flume::Receiver<(u64, Arc<str>)>,
    names: HashMap<u64, Arc<str>>,
    marks: Receiver<Mark>,
    waiting: VecDeque<Mark>,
    histogram: Histogram<u64>,
    stats: StatsHandle,
}

impl Collector {
    fn new(
        stats: StatsHandle,
        receivers: Vec<Receiver<Output>>,
        names_in: flume::Receiver<(u64, Arc<str>)>,
        marks: Receiver<Mark>,
    ) -> Self {
        let inlet =
            |receiver| Inlet { receiver, pending: Vec::new(), ready: VecDeque::new(), finished: false };
        Self {
            inlets: receivers.into_iter().map(inlet).collect(),
            names_in,
            names: HashMap::new(),
            marks,
            waiting: VecDeque::new(),
            stats,
            // Three digits up to an hour; construction with constants cannot fail.
            histogram: Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
                .expect("constant bounds are valid"),
        }
    }

    fn run(
        mut self,
        streams: &[StreamInfo],
        sink: &mut dyn ResultSink,
        stop: &AtomicBool,
    ) -> Result<Latency, SinkError> {
        let mut idle = Idle::new(IdleStrategy::Adaptive);
        let mut failed = None;
        let mut batch = Vec::new();
        loop {
            let worked = self.poll();
            let mut wrote = false;
            while let Some(watermark) = self.next_batch(&mut batch) {
                wrote = true;
                if failed.is_none() {
                    let written = self.write(&mut batch, streams, sink);
                    failed = written.and_then(|()| sink.complete(watermark)).err();
                    if failed.is_some() {
                        // The rest is drained unread, so that no shard waits for us.
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                batch.clear();
                self.measure(watermark);
            }
            let done = |inlet: &Inlet| inlet.finished && inlet.ready.is_empty();
            if self.inlets.iter().all(done) {
                break;
            }
            idle.idle(worked || wrote);
        }
        let latency = Latency {
            count: self.histogram.len(),
            p50: self.histogram.value_at_quantile(0.5),
            p99: self.histogram.value_at_quantile(0.99),
            p999: self.histogram.value_at_quantile(0.999),
            max: self.histogram.max(),
        };
        failed.map_or(Ok(latency), Err)
    }

    fn poll(&mut self) -> bool {
        let mut worked = false;
        for inlet in &mut self.inlets {
            if inlet.finished {
                continue;
            }
            // The flag before the last look, or what came in between would be lost.
            let finished = inlet.receiver.is_finished();
            let Inlet { receiver, pending, ready, .. } = inlet;
            let count = receiver.drain(4_096, |outputs| {
                for output in outputs {
                    match output.kind {
                        output_kind::WATERMARK => ready.push_back((output.ts, std::mem::take(pending))),
                        output_kind::END => ready.push_back((u64::MAX, std::mem::take(pending))),
                        output_kind::BARRIER => {}
                        _ => pending.push(*output),
                    }
                }
            });
            worked |= count > 0;
            if finished {
                if !pending.is_empty() {
                    ready.push_back((u64::MAX, std::mem::take(pending)));
                }
                inlet.finished = true;
            }
        }
        worked
    }

    /// Moves the results up to the next watermark that all shards have reached into `batch`.
    fn next_batch(&mut self, batch: &mut Vec<Output>) -> Option<u64> {
        // However far the others are ahead, a shard that is merely slow is waited for: its full ring holds the reader, and
        // so the others, back. Only one that will not speak again is left out.
        let silent = |inlet: &Inlet| inlet.ready.is_empty() && !inlet.finished;
        if self.inlets.iter().any(silent) {
            let shards = self.stats.stats();
            let gone = |shard: usize| {
                shards.get(shard).is_none_or(|stats| matches!(stats.phase, Phase::Quarantined | Phase::Lost))
            };
            if self.inlets.iter().enumerate().any(|(shard, inlet)| silent(inlet) && !gone(shard)) {
                return None;
            }
        }
        let watermark =
            self.inlets.iter().filter_map(|inlet| inlet.ready.front()).map(|(ts, _)| *ts).min()?;
        for inlet in &mut self.inlets {
            while inlet.ready.front().is_some_and(|(ts, _)| *ts <= watermark) {
                if let Some((_, outputs)) = inlet.ready.pop_front() {
                    batch.extend_from_slice(&outputs);
                }
            }
        }
        Some(watermark)
    }

    fn write(
        &mut self,
        batch: &mut [Output],
        streams: &[StreamInfo],
        sink: &mut dyn ResultSink,
    ) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        // A name is sent before its DEFINE, so it is here before its first result.
        self.names.extend(self.names_in.try_iter());
        let name = |hash: u64| self.names.get(&hash).map_or("?", |name| &**name);
        batch.sort_by(|a, b| {
            let key = |output: &Output| (output.stream, output.ts);
            key(a).cmp(&key(b)).then_with(|| name(a.name).cmp(name(b.name))).then(a.sequence.cmp(&b.sequence))
        });
        for output in batch.iter() {
            if let Some(stream) = streams.get(usize::from(output.stream)) {
                sink.record(stream, name(output.name), output)?;
            }
        }
        Ok(())
    }

    fn measure(&mut self, watermark: u64) {
        let waiting = &mut self.waiting;
        self.marks.drain(usize::MAX, |marks| waiting.extend(marks));
        let now = Instant::now();
        while waiting.front().is_some_and(|mark| mark.watermark <= watermark) {
            if let Some(mark) = waiting.pop_front() {
                self.histogram.saturating_record((now - mark.routed).as_nanos() as u64);
            }
        }
    }
}

/// One way to run the same input, for [`verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Shards.
    pub shards: u32,
    /// Most events a shard takes a turn.
    pub batch_max: usize,
    /// Where analyzers run.
    pub placement: Placement,
    /// Save the shards after so many logged records and continue with fresh ones. On this thread.
    pub restore_at: Option<u64>,
    /// How many shards continue then, at the end of the frame; as many as before without it, right there.
    pub restored_by: Option<u32>,
}

impl Variant {
    /// The variants `verify` runs unless told otherwise. `records` is the length of the log, for restores inside it.
    #[must_use]
    pub fn usual(shards: &[u32], records: u64) -> Vec<Self> {
        let one = Self {
            shards: 1,
            batch_max: 4_096,
            placement: Placement::Fused,
            restore_at: None,
            restored_by: None,
        };
        let mut variants = Vec::new();
        for &shards in shards {
            variants.push(Self { shards, ..one });
            variants.push(Self { shards, placement: Placement::Staged, ..one });
        }
        variants.push(Self { batch_max: 1, ..one });
        variants.push(Self { batch_max: 97, placement: Placement::Staged, ..one });
        for part in [3, 2] {
            variants.push(Self { restore_at: Some(records / part), batch_max: 333, ..one });
        }
        for (shards, by) in [(1, 3), (3, 2)] {
            variants.push(Self { shards, restore_at: Some(records / 2), restored_by: Some(by), ..one });
        }
        variants
    }
}

/// What one run of [`verify`] came to.
#[derive(Debug, Clone)]
pub struct VariantRun {
    /// How it ran.
    pub variant: Variant,
    /// Digest over all outputs.
    pub digest: Digest,
    /// Events applied.
    pub events: u64,
    /// Wall time.
    pub elapsed: Duration,
}

/// Runs the same inputs in one way and returns the digest. `inputs` opens them anew.
///
/// # Errors
/// [`ReplayError`] when it could not run.
pub fn verify(
    inputs: Vec<Box<dyn Source>>,
    plan: &Plan,
    log: LogOptions,
    variant: Variant,
) -> Result<VariantRun, ReplayError> {
    if let Some(at) = variant.restore_at {
        return restored(inputs, plan, log, variant, at);
    }
    let options = ReplayOptions {
        runtime: RuntimeOptions {
            shards: variant.shards,
            batch_max: variant.batch_max,
            placement: variant.placement,
            ..RuntimeOptions::default()
        },
        ..ReplayOptions::default()
    };
    let report = replay(inputs, plan, log, &options, None, &mut |_| {})?;
    Ok(VariantRun {
        variant,
        events: report.runtime.events,
        digest: report.runtime.digest,
        elapsed: report.elapsed,
    })
}

/// Shards on this thread, saved after `at` log records and continued by fresh ones, of another number if the variant says so.
fn restored(
    inputs: Vec<Box<dyn Source>>,
    plan: &Plan,
    log: LogOptions,
    variant: Variant,
    at: u64,
) -> Result<VariantRun, ReplayError> {
    let start = Instant::now();
    let options = RuntimeOptions {
        shards: variant.shards,
        batch_max: variant.batch_max,
        placement: variant.placement,
        ..RuntimeOptions::default()
    };
    let mut run = Inline::start(factory(plan)?, options)?;
    let mut merge = Merge::new(inputs);
    let mut sequencer =
        Sequencer::new(SequencerOptions { disorder_ns: log.disorder_ns, fence: log.fence, source: 0 });
    // At least one, so that there is something to save; a log without records has nothing to continue.
    let (at, mut records) = (at.max(1), 0);
    let mut moved = Ok(());
    let mut held = Vec::new();
    loop {
        merge.batch(&mut held);
        for (_, hash, source) in merge.names_from(run.names.len()) {
            run.define(hash, source);
        }
        let mut emit = |frame: &[Event]| {
            let before = usize::try_from(at.saturating_sub(records)).unwrap_or(usize::MAX);
            // Once: at the next frame nothing is in front of `at` any more.
            let here = before > 0 && before <= frame.len();
            // Among others shards are divided between frames only, as between the turns of a server.
            let first = if here && variant.restored_by.is_none() { before } else { frame.len() };
            let (head, tail) = frame.split_at(first);
            run.feed(head);
            records += frame.len() as u64;
            if here {
                moved = run.continue_by(variant.restored_by.unwrap_or(variant.shards));
            }
            run.feed(tail);
        };
        if held.is_empty() {
            sequencer.finish(&mut emit);
            break;
        }
        sequencer.push(&held, &mut emit);
    }
    moved?;
    let report = run.finish();
    Ok(VariantRun { variant, digest: report.digest, events: report.events, elapsed: start.elapsed() })
}

/// Shards on this thread, and what feeds them.
struct Inline {
    stages: StageFactory,
    options: RuntimeOptions,
    router: Router,
    shards: InlineShards,
    /// Hashes of the names defined, in their order.
    names: Vec<u64>,
}

impl Inline {
    fn start(stages: StageFactory, options: RuntimeOptions) -> Result<Self, ReplayError> {
        let (router, shards) = InlineShards::new(&stages, options)?;
        Ok(Self { stages, options, router, shards, names: Vec::new() })
    }

    fn define(&mut self, hash: u64, source: u16) {
        self.router.define(hash, source);
        self.names.push(hash);
    }

    fn feed(&mut self, events: &[Event]) {
        let shards = &mut self.shards;
        self.router.route(events, || shards.make_room(&mut |_: &[Output]| {}));
        while shards.turn(&mut |_: &[Output]| {}) {}
    }

    /// Saves all shards, and has so many fresh ones go on from there.
    fn continue_by(&mut self, shards: u32) -> Result<(), ReplayError> {
        let before = self.options.shards;
        let (reply, saved) = flume::bounded(before as usize);
        for shard in 0..before {
            self.shards.control(shard, ShardCommand::Snapshot(reply.clone()))?;
        }
        while self.shards.turn(&mut |_: &[Output]| {}) {}
        let mut saved: Vec<ShardSnapshot> = saved.try_iter().collect();
        saved.sort_unstable_by_key(|snapshot| snapshot.shard);
        if shards != before {
            let states: Vec<&[u8]> = saved.iter().map(|snapshot| &snapshot.bytes[..]).collect();
            saved = regrouped(&self.stages, &states, &self.names, shards)?;
        }
        self.options.shards = shards;
        (self.router, self.shards) = InlineShards::restore(&self.stages, self.options, &saved)?;
        self.names.iter().for_each(|&hash| self.router.known(hash));
        Ok(())
    }

    fn finish(self) -> RuntimeReport {
        drop(self.router);
        self.shards.finish(&mut |_: &[Output]| {})
    }
}
