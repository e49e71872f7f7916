//! Law 1 over threads, every failure policy, and orderly ends. Nothing here waits for a length of time.

use super::*;
use crate::bars::{BarOptions, BarSpec};
use crate::indicators::IndicatorAnalyzer;
use tidegate_engine::snapshot::SnapshotError;
use tidegate_engine::{
    Analyzer, AnalyzerStage, Context, Emit, Event, Operator, Price, Sequencer, SequencerOptions, Shard, Size,
    flag, kind, name_hash, output_kind, slot_of,
};

const KEYS: u32 = 97;

/// A bounded random walk per key, a little out of order.
fn trades(count: usize) -> Vec<Event> {
    let mut state = 7u64;
    let mut price = [100_000_000_000i64; KEYS as usize];
    let mut now = 1_700_000_000_000_000_000u64;
    (0..count)
        .map(|_| {
            // splitmix64: the same trades on every run and machine.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut draw = state;
            draw = (draw ^ (draw >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            draw = (draw ^ (draw >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            draw ^= draw >> 31;
            now += draw % 3_000_000;
            let key = (draw >> 24) as u32 % KEYS;
            let price = &mut price[key as usize];
            *price = (*price + (draw >> 40) as i64 % 2_001 * 10_000 - 10_000_000).max(1_000_000_000);
            let ts = now - (draw >> 56) * 100_000;
            let side = if draw & 1 == 0 { flag::BUY } else { flag::SELL };
            Event::trade(ts, key, 0, Price(*price), Size(1 + (draw >> 8) % 1_000_000), side)
        })
        .collect()
}

fn log_of(events: &[Event]) -> Vec<Event> {
    let mut log = Vec::new();
    let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
    let mut sequencer =
        Sequencer::new(SequencerOptions { disorder_ns: 10_000_000, ..SequencerOptions::default() });
    sequencer.push(events, &mut emit);
    sequencer.finish(&mut emit);
    log
}

fn bars(name: &str, stream: u16) -> Stage {
    let spec: BarSpec = name.parse().unwrap();
    Stage::new(name, stream, spec.operator(BarOptions::default()))
}

fn indicators(stream: u16, over: u16) -> AnalyzerStage {
    let specs: Vec<_> = ["sma:5", "rsi:14"].iter().map(|text| text.parse().unwrap()).collect();
    AnalyzerStage::new("indicators", stream, Box::new(IndicatorAnalyzer::new(over, &specs).unwrap()))
}

fn stages() -> Vec<Stage> {
    vec![bars("1s", 0).with(indicators(1, 0)), bars("20t", 2).with(indicators(3, 2))]
}

fn define_all(router: &mut Router) {
    for key in 0..KEYS {
        router.define(name_hash(format!("KEY{key}").as_bytes()), 0);
    }
}

fn feed(router: &mut Router, log: &[Event]) {
    let mut idle = Idle::new(IdleStrategy::Adaptive);
    assert!(router.route(log, || idle.idle(false)), "no shard may go before its input ends");
}

fn run_with(make: StageFactory, options: RuntimeOptions, log: &[Event]) -> RuntimeReport {
    let mut runtime = Runtime::start(make, options).unwrap();
    define_all(runtime.router());
    feed(runtime.router(), log);
    runtime.finish()
}

/// The same without threads: results must be as many as are counted.
fn run_inline(make: StageFactory, options: RuntimeOptions, log: &[Event]) -> RuntimeReport {
    let (mut router, mut shards) = InlineShards::new(&make, options).unwrap();
    let mut results = 0;
    let mut sink = |outputs: &[Output]| {
        results += outputs.iter().filter(|output| output.kind < output_kind::WATERMARK).count() as u64;
    };
    define_all(&mut router);
    assert!(router.route(log, || shards.make_room(&mut sink)), "no shard may go before its input ends");
    while shards.turn(&mut sink) {}
    drop(router);
    let report = shards.finish(&mut sink);
    assert_eq!(report.shards.iter().map(|shard| shard.outputs).sum::<u64>(), results);
    report
}

type Run = fn(StageFactory, RuntimeOptions, &[Event]) -> RuntimeReport;
const RUNS: [Run; 2] = [run_with, run_inline];

fn run(options: RuntimeOptions, log: &[Event]) -> RuntimeReport {
    run_with(Arc::new(stages), options, log)
}

/// The reference: one shard, one call, no ring.
fn without_threads(log: &[Event]) -> Digest {
    let mut shard = Shard::new(stages());
    let mut ignore = |_: &[Output]| {};
    for key in 0..KEYS {
        let name = name_hash(format!("KEY{key}").as_bytes());
        let define = Event::control(kind::DEFINE, 0, key, 0, [name, u64::from(slot_of(name))]);
        shard.process(&[define], &mut ignore);
    }
    assert_eq!(shard.process(log, &mut ignore).consumed, log.len());
    let mut digest = Digest::default();
    digest.add_shard(&shard);
    digest
}

/// An operator that counts trades, and panics on the trade (or watermark) it was told to.
struct Trap {
    seen: u64,
    panic_on_size: Option<u64>,
    panic_on_end: bool,
}

impl Trap {
    fn on_size(size: u64) -> Self {
        Self { seen: 0, panic_on_size: Some(size), panic_on_end: false }
    }
}

impl Operator for Trap {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        for event in events {
            self.seen += 1;
            let size = event.payload[1];
            assert!(self.panic_on_size != Some(size), "sprung by {size}");
            let key = context.keys()[event.key as usize];
            out.push(Output {
                name: key.name,
                slot: key.slot,
                kind: output_kind::INTEGERS,
                ..Output::default()
            });
        }
    }

    fn on_watermark(&mut self, context: &Context, _: &mut Emit<'_>) {
        assert!(!(self.panic_on_end && context.ended()), "sprung by the end");
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.close_batch(self.seen, 0);
        ledger
    }

    fn save(&self, snapshot: &mut Vec<u8>) {
        snapshot.extend_from_slice(&self.seen.to_le_bytes());
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.seen = u64::from_le_bytes(snapshot.try_into().unwrap());
        Ok(())
    }
}

/// An analyzer that panics on the n-th output.
struct AnalyzerTrap(u64);

impl Analyzer for AnalyzerTrap {
    fn on_outputs(&mut self, outputs: &[Output], _: &mut Emit<'_>) {
        self.0 = self.0.saturating_sub(outputs.len() as u64);
        assert!(self.0 > 0, "the analyzer sprung");
    }

    fn on_end(&mut self, _: &mut Emit<'_>) {}

    fn save(&self, _: &mut Vec<u8>) {}

    fn restore(&mut self, _: &[u8]) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// Sizes no random trade has.
const SPRING: u64 = 77_000_000;

/// Trades of all keys with one among them that springs the trap.
fn log_with_a_spring(count: usize, at: usize) -> Vec<Event> {
    let mut events = trades(count);
    events[at].payload[1] = SPRING;
    log_of(&events)
}

fn trap_stages() -> Vec<Stage> {
    vec![Stage::new("trap", 0, Box::new(Trap::on_size(SPRING)))]
}

fn restart(max: u32) -> FailurePolicy {
    FailurePolicy::Restart { max, backoff_ms: 0 }
}

#[test]
fn digests_do_not_depend_on_shards_batches_or_placement() {
    let log = log_of(&trades(12_000));
    let expected = run(RuntimeOptions::default(), &log);
    assert!(expected.digest.outputs() > 1_000);
    assert_eq!(expected.digest, without_threads(&log));
    assert_eq!(expected.events, 12_000);
    for shards in [1, 2, 4] {
        for batch_max in [1, 7, 4_096] {
            for placement in [Placement::Fused, Placement::Staged] {
                let options = RuntimeOptions { shards, batch_max, placement, ..RuntimeOptions::default() };
                for run in RUNS {
                    let report = run(Arc::new(stages), options, &log);
                    assert_eq!(report.digest, expected.digest, "{options:?}");
                    assert_eq!(report.stages, expected.stages, "{options:?}");
                    assert_eq!(report.lanes, expected.lanes, "{options:?}");
                    assert_eq!((report.events, report.panics), (12_000, 0));
                    assert!(report.stages.iter().all(|stage| stage.ledger.imbalance() == 0));
                    assert!(report.shards.iter().all(|shard| shard.phase == Phase::Ended));
                }
            }
        }
    }
}

#[test]
fn every_output_leaves_through_the_rings() {
    let log = log_of(&trades(6_000));
    for placement in [Placement::Fused, Placement::Staged] {
        let options = RuntimeOptions {
            shards: 2,
            placement,
            // Much less than there is to send, so that shards wait for the reader.
            outputs: Outputs::Ring { capacity: 64 },
            ..RuntimeOptions::default()
        };
        let mut runtime = Runtime::start(Arc::new(stages), options).unwrap();
        let readers: Vec<_> = runtime
            .take_outputs()
            .into_iter()
            .map(|mut ring| {
                std::thread::spawn(move || {
                    let (mut results, mut ends, mut idle) = (0, 0, Idle::new(IdleStrategy::Adaptive));
                    while !ring.is_finished() {
                        let taken = ring.drain(100, |run| {
                            results +=
                                run.iter().filter(|output| output.kind < output_kind::WATERMARK).count()
                                    as u64;
                            ends += run.iter().filter(|output| output.kind == output_kind::END).count();
                        });
                        idle.idle(taken > 0);
                    }
                    assert_eq!(ends, 1, "one end per shard");
                    results
                })
            })
            .collect();
        let mut router = runtime.take_router().unwrap();
        assert!(runtime.take_router().is_none());
        let log = log.clone();
        let ingest = std::thread::spawn(move || {
            define_all(&mut router);
            feed(&mut router, &log);
        });
        let handle = runtime.stats_handle();
        let report = runtime.finish();
        ingest.join().unwrap();
        let results: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert_eq!(results, report.digest.outputs());
        let stats = handle.stats();
        assert_eq!(stats.iter().map(|shard| shard.outputs).sum::<u64>(), results);
        assert!(stats.iter().all(|shard| shard.phase == Phase::Ended && shard.ring_depth == 0));
        assert!(stats.iter().all(|shard| shard.watermark == u64::MAX && shard.outputs_unread == 0));
        crate::supervision::publish_metrics(&handle);
    }
}

#[test]
fn an_input_without_an_end_is_drained_too() {
    let mut log = log_of(&trades(3_000));
    assert_eq!(log.pop().map(|record| record.kind), Some(kind::END));
    let report =
        run(RuntimeOptions { shards: 2, placement: Placement::Staged, ..RuntimeOptions::default() }, &log);
    assert_eq!(report.events, 3_000);
}

#[test]
fn stopping_and_dropping_wait_for_nobody() {
    let log = log_of(&trades(3_000));
    let options = RuntimeOptions { outputs: Outputs::Ring { capacity: 64 }, ..RuntimeOptions::default() };
    for placement in [Placement::Fused, Placement::Staged] {
        let options = RuntimeOptions { placement, ..options };
        let mut runtime = Runtime::start(Arc::new(stages), options).unwrap();
        // Held and never read: the shard waits for room until it is stopped.
        let _outputs = runtime.take_outputs();
        define_all(runtime.router());
        feed(runtime.router(), &log[..2_000]);
        let report = runtime.stop();
        assert_eq!(report.shards[0].phase, Phase::Ended);
        drop(Runtime::start(Arc::new(stages), options).unwrap());
    }
}

#[test]
fn a_quarantined_shard_only_counts_and_the_others_go_on() {
    let log = log_with_a_spring(12_000, 5_000);
    let options = RuntimeOptions { shards: 4, ..RuntimeOptions::default() };
    for run in RUNS {
        let report = run(Arc::new(trap_stages), options, &log);
        assert_eq!((report.panics, report.restarts, report.lost_in_restart), (1, 0, 0));
        assert_eq!(report.events, 12_000);
        let (bad, good): (Vec<ShardStats>, Vec<_>) =
            report.shards.iter().copied().partition(|shard| shard.panics == 1);
        assert_eq!((bad.len(), good.len()), (1, 3));
        assert!(bad[0].quarantined > 0 && bad[0].quarantined == report.quarantined);
        let healthy: u64 = good.iter().map(|shard| shard.events).sum();
        assert_eq!(report.stages[0].ledger.delivered, healthy);
        assert_eq!(report.digest.outputs(), healthy);
        assert_eq!(report.failures.len(), 1);
        assert!(report.failures[0].1.contains("sprung by 77000000"), "{:?}", report.failures);
    }
}

#[test]
fn a_restarted_shard_keeps_its_keys_and_counts_what_it_lost() {
    let log = log_with_a_spring(12_000, 5_000);
    for (snapshot_every_events, lost_max) in [(None, 6_000), (Some(500), 2_000)] {
        let options = RuntimeOptions {
            shards: 2,
            batch_max: 300,
            failure: restart(3),
            snapshot_every_events,
            ..RuntimeOptions::default()
        };
        // Had a key been lost, the trap would panic on its index again and again.
        for run in RUNS {
            let report = run(Arc::new(trap_stages), options, &log);
            assert_eq!(
                (report.events, report.panics, report.restarts, report.quarantined),
                (12_000, 1, 1, 0)
            );
            assert!(report.lost_in_restart > 0 && report.lost_in_restart <= lost_max, "{report:?}");
            assert_eq!(report.stages[0].ledger.delivered, report.events - report.lost_in_restart);
            assert!(report.shards.iter().all(|shard| shard.watermark == u64::MAX), "both saw the end");
        }
    }
}

#[test]
fn restarts_are_bounded() {
    // The end is told to each successor, and each fails over it: the attempts run out.
    let make = || vec![Stage::new("trap", 0, Box::new(Trap { panic_on_end: true, ..Trap::on_size(0) }) as _)];
    let options = RuntimeOptions {
        failure: FailurePolicy::Restart { max: 3, backoff_ms: 1 },
        ..RuntimeOptions::default()
    };
    for run in RUNS {
        let report = run(Arc::new(make), options, &log_of(&trades(3_000)));
        assert_eq!((report.events, report.panics, report.restarts), (3_000, 4, 3));
        assert_eq!(report.stages, []);
        assert!(report.failures[0].1.contains("sprung by the end"));
    }
}

#[test]
fn a_failing_analyzer_takes_its_shard_along_in_either_placement() {
    let make = || vec![bars("20t", 0).with(AnalyzerStage::new("trap", 1, Box::new(AnalyzerTrap(150)) as _))];
    let log = log_of(&trades(12_000));
    for placement in [Placement::Fused, Placement::Staged] {
        for failure in [FailurePolicy::Quarantine, restart(1)] {
            let options = RuntimeOptions { placement, failure, batch_max: 100, ..RuntimeOptions::default() };
            for run in RUNS {
                let report = run(Arc::new(make), options, &log);
                assert_eq!(report.events, 12_000, "{options:?}");
                assert!(report.panics >= 1);
                assert!(report.failures[0].1.contains("the analyzer sprung"), "{:?}", report.failures);
            }
        }
    }
}

#[test]
fn a_snapshot_at_a_barrier_restores_to_the_undisturbed_run() {
    let mut events = trades(8_000);
    events.insert(3_333, Event::control(kind::BARRIER, 0, 0, 0, [42, 0]));
    let log = log_of(&events);
    let cut = 1 + log.iter().position(|record| record.kind == kind::BARRIER).unwrap();
    for placement in [Placement::Fused, Placement::Staged] {
        let options = RuntimeOptions { shards: 2, placement, ..RuntimeOptions::default() };
        let undisturbed = run(options, &log);
        let mut runtime = Runtime::start(Arc::new(stages), options).unwrap();
        let (watcher, snapshots) = flume::bounded(2);
        let (_memory, spare) = flume::bounded(1);
        runtime.watch_barriers(&BarrierWatch { snapshots: watcher, spare }).unwrap();
        define_all(runtime.router());
        feed(runtime.router(), &log);
        assert_eq!(runtime.finish().digest, undisturbed.digest, "looking changes nothing");
        let snapshots: Vec<_> = snapshots.drain().collect();
        assert_eq!(snapshots.iter().map(|snapshot| snapshot.events).sum::<u64>(), 3_333);
        assert!(snapshots.iter().all(|snapshot| snapshot.barrier == Some(42)));

        assert!(matches!(
            Runtime::restore(Arc::new(stages), options, &snapshots[..1]),
            Err(RuntimeError::Snapshots { found: 1, shards: 2 })
        ));
        let mut runtime = Runtime::restore(Arc::new(stages), options, &snapshots).unwrap();
        define_all(runtime.router());
        feed(runtime.router(), &log[cut..]);
        let resumed = runtime.finish();
        assert_eq!(resumed.digest, undisturbed.digest, "{placement}");
        assert_eq!(resumed.events, undisturbed.events, "what the snapshot holds counts");
        assert_eq!(resumed.stages, undisturbed.stages);
    }
}

#[test]
fn commands_are_answered_between_turns() {
    let mut runtime =
        Runtime::start(Arc::new(stages), RuntimeOptions { shards: 2, ..Default::default() }).unwrap();
    define_all(runtime.router());
    let (reply, answer) = flume::bounded(1);
    runtime.control(1, ShardCommand::Snapshot(reply)).unwrap();
    let snapshot = answer.recv().unwrap();
    assert_eq!((snapshot.shard, snapshot.barrier), (1, None));
    let (reply, _) = flume::bounded(1);
    assert!(matches!(
        runtime.control(2, ShardCommand::Snapshot(reply)),
        Err(RuntimeError::Command { shard: 2, .. })
    ));
    let status = runtime.status();
    assert!(
        status.iter().all(|shard| shard.phase == Phase::Running && shard.failure.is_none()),
        "{status:?}"
    );
    assert_eq!(runtime.finish().events, 0);
}

#[test]
fn without_threads_commands_are_answered_and_a_long_back_off_holds_nobody_up() {
    let options = RuntimeOptions {
        ring_events: 64,
        failure: FailurePolicy::Restart { max: 2, backoff_ms: 60_000 },
        ..RuntimeOptions::default()
    };
    let make: StageFactory = Arc::new(trap_stages);
    let (mut router, mut shards) = InlineShards::new(&make, options).unwrap();
    let mut sink = |_: &[Output]| {};
    define_all(&mut router);
    let (reply, answer) = flume::bounded(1);
    shards.control(0, ShardCommand::Snapshot(reply)).unwrap();
    while shards.turn(&mut sink) {}
    assert_eq!(answer.try_recv().unwrap().events, 0);
    let (reply, _) = flume::bounded(1);
    let error = shards.control(1, ShardCommand::Snapshot(reply)).unwrap_err();
    assert!(matches!(error, RuntimeError::Command { shard: 1, .. }), "{error}");
    // The trap springs in the middle of a log far longer than the ring: whoever routes it cannot wait a minute.
    assert!(router.route(&log_with_a_spring(3_000, 1_000), || shards.make_room(&mut sink)));
    // Within the ring it waits as it was told.
    while shards.turn(&mut sink) {}
    router.route(&[Event { payload: [1, SPRING], ..trades(1)[0] }], || unreachable!());
    while shards.turn(&mut sink) {}
    assert!(shards.restart().is_some() && !shards.ended());
    drop(router);
    let report = shards.finish(&mut sink);
    assert_eq!((report.panics, report.restarts, report.quarantined), (2, 2, 0));
}

#[test]
fn a_refused_snapshot_is_a_failure_of_its_shard() {
    let bad = ShardSnapshot { shard: 0, barrier: None, events: 0, pause_ns: 0, bytes: vec![1, 2, 3] };
    let mut runtime = Runtime::restore(Arc::new(stages), RuntimeOptions::default(), &[bad]).unwrap();
    define_all(runtime.router());
    feed(runtime.router(), &log_of(&trades(100)));
    let report = runtime.finish();
    assert_eq!((report.events, report.quarantined), (100, 100));
    assert!(report.failures[0].1.contains("snapshot refused"));
}

#[test]
fn every_idle_strategy_makes_progress() {
    let log = log_of(&trades(1_000));
    for name in ["spin", "yield", "park", "adaptive"] {
        let idle: IdleStrategy = name.parse().unwrap();
        assert_eq!(idle.to_string(), name);
        let options =
            RuntimeOptions { idle, placement: Placement::Staged, pin: true, ..RuntimeOptions::default() };
        assert_eq!(run(options, &log).events, 1_000);
    }
    assert!("busy".parse::<IdleStrategy>().is_err());
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let refuse = |options: RuntimeOptions, name: &str| match Runtime::start(Arc::new(stages), options) {
        Err(RuntimeError::Option { option, .. }) => assert_eq!(option, name),
        _ => panic!("{name} was not refused"),
    };
    let ok = RuntimeOptions::default();
    refuse(RuntimeOptions { shards: 0, ..ok }, "shards");
    refuse(RuntimeOptions { shards: 257, ..ok }, "shards");
    refuse(RuntimeOptions { ring_events: 1, ..ok }, "ring_events");
    refuse(RuntimeOptions { batch_max: 0, ..ok }, "batch_max");
    refuse(RuntimeOptions { outputs: Outputs::Ring { capacity: 1 }, ..ok }, "outputs.capacity");
    refuse(RuntimeOptions { failure: restart(0), ..ok }, "failure.max");
    refuse(RuntimeOptions { snapshot_every_events: Some(0), ..ok }, "snapshot_every_events");
}
