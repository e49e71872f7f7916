//! W1 through the engine itself: reader thread -> ring -> shard thread, every semantic on.

use std::time::Instant;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::indicators::{IndicatorAnalyzer, IndicatorSpec};
use tidegate_engine::{
    AnalyzerStage, Digest, Event, FullPolicy, Output, Placement, Router, Sequencer, SequencerOptions, Shard,
    Stage, WindowWidth, name_hash, ring,
};

use crate::hand::Job;
use crate::hops::Patience;

/// Events a ring holds: 1 MiB. On a shared machine each side is taken off its core now and then; a ring of 8,192 events ran dry
/// or full in 40 us, and the rate halved.
pub const RING_EVENTS: usize = 32_768;

/// What an engine run did.
#[derive(Debug, Clone)]
pub struct EngineRun {
    /// Events per second from the first event read to the last output digested.
    pub rate: f64,
    /// Bars written.
    pub bars: u64,
    /// Digest over all outputs.
    pub digest: String,
    /// Late events, by any policy.
    pub late: u64,
}

/// The stages of a job.
#[must_use]
pub fn stages(job: Job) -> Vec<Stage> {
    let options = BarOptions { horizon_ns: 2_000_000_000, ..BarOptions::default() };
    let bars = Stage::new("bars.1s", 0, BarSpec::Time(WindowWidth::SECOND).operator(options));
    match job {
        Job::A => vec![bars],
        Job::B => {
            let specs: Vec<IndicatorSpec> = ["rsi:14", "ema:12", "ema:26", "macd:12:26:9", "bb:20:2"]
                .iter()
                .map(|text| text.parse().expect("a constant"))
                .collect();
            let analyzer = IndicatorAnalyzer::new(0, &specs).expect("at most 16 columns");
            vec![bars.with(AnalyzerStage::new("ind.1s", 1, Box::new(analyzer)))]
        }
    }
}

/// Runs `events` (keys `0..symbols`) through `shards` shards, each on a thread of its own, fed by one reader thread
/// that sequences (frames, fence, watermarks) and routes.
///
/// # Panics
/// When a thread panics: that is a bug, and a benchmark must not hide it.
#[must_use]
pub fn engine(job: Job, events: &[Event], symbols: usize, disorder_ns: u64, shards: u32) -> EngineRun {
    let (outlets, inlets): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| ring::<Event>(RING_EVENTS, FullPolicy::Wait)).unzip();
    let mut router = Router::new(Placement::round_robin(shards), outlets);
    define_all(&mut router, symbols);
    std::thread::scope(|scope| {
        let workers: Vec<_> = inlets
            .into_iter()
            .map(|mut inlet| {
                scope.spawn(move || {
                    let mut shard = Shard::new(stages(job));
                    let mut sink = |outputs: &[Output]| {
                        std::hint::black_box(outputs);
                    };
                    let mut patience = Patience::default();
                    while !inlet.is_finished() {
                        let count = inlet.drain(1_024, |run| {
                            shard.process(run, &mut sink);
                        });
                        patience.after(count > 0);
                    }
                    shard.flush(&mut sink);
                    shard
                })
            })
            .collect();
        let start = Instant::now();
        let mut sequencer = Sequencer::new(SequencerOptions { disorder_ns, ..SequencerOptions::default() });
        let mut emit = |frame: &[Event]| {
            let mut patience = Patience::default();
            assert!(router.route(frame, || patience.after(false)), "a shard is gone");
        };
        for chunk in events.chunks(4_000) {
            sequencer.push(chunk, &mut emit);
        }
        sequencer.finish(&mut emit);
        drop(router);
        let mut digest = Digest::default();
        let (mut bars, mut late) = (0, 0);
        for worker in workers {
            let shard = worker.join().expect("a shard panicked");
            digest.add_shard(&shard);
            bars += shard.lanes()[0].1.emitted();
            let ledger = shard.stages()[0].ledger();
            assert_eq!(ledger.imbalance(), 0);
            late += ledger.delivered - ledger.of(tidegate_engine::Fate::Applied);
        }
        let rate = events.len() as f64 / start.elapsed().as_secs_f64();
        EngineRun { rate, bars, digest: digest.short(), late }
    })
}

/// Introduces keys `0..symbols`.
pub fn define_all(router: &mut Router, symbols: usize) {
    for key in 0..symbols as u32 {
        router.define(name_hash(&key.to_le_bytes()), 0);
    }
}

/// The log dealt out to `shards` shards, as the router does it, for measuring shards one by one.
#[must_use]
pub fn dealt(log: &[Event], symbols: usize, shards: u32) -> Vec<Vec<Event>> {
    let capacity = log.len() + symbols + 16;
    let (outlets, mut inlets): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| ring::<Event>(capacity, FullPolicy::Wait)).unzip();
    let mut router = Router::new(Placement::round_robin(shards), outlets);
    define_all(&mut router, symbols);
    let mut at = 0;
    while at < log.len() {
        // Frame by frame, as a sequencer hands them over.
        let end = log[at + 1..].iter().position(|event| event.kind == tidegate_engine::kind::MARK);
        let end = end.map_or(log.len(), |length| at + 1 + length);
        assert!(router.route(&log[at..end], || unreachable!("the rings hold everything")));
        at = end;
    }
    inlets
        .iter_mut()
        .map(|inlet| {
            let mut part = Vec::with_capacity(capacity);
            inlet.drain(usize::MAX, |run| part.extend_from_slice(run));
            part
        })
        .collect()
}

/// The log of `events` as a sequencer writes it: frames with MARK and WATERMARK, END last.
#[must_use]
pub fn log_of(events: &[Event], disorder_ns: u64) -> Vec<Event> {
    let mut log = Vec::with_capacity(events.len() + events.len() / 500 + 16);
    let mut sequencer = Sequencer::new(SequencerOptions { disorder_ns, ..SequencerOptions::default() });
    let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
    for chunk in events.chunks(4_000) {
        sequencer.push(chunk, &mut emit);
    }
    sequencer.finish(&mut emit);
    log
}

/// One shard over a [`dealt`] log on this thread: what the second core of [`engine`] does, without the ring.
#[must_use]
pub fn shard_only(job: Job, log: &[Event]) -> Shard {
    let mut shard = Shard::new(stages(job));
    let mut sink = |outputs: &[Output]| {
        std::hint::black_box(outputs);
    };
    for chunk in log.chunks(4_096) {
        shard.process(chunk, &mut sink);
    }
    shard.flush(&mut sink);
    shard
}
