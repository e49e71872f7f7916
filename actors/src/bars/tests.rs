//! The operators against the model, over any log, any batching and with a restore in the middle.

use super::model::{self, ModelBar};
use super::*;
use proptest::prelude::*;
use tidegate_engine::{Event, Fate, Output, Price, Shard, Size, Stage, flag, kind, output_kind, slot_of};

const WIDTH: u64 = 1_000;
const HORIZON: u64 = 2_500;
const KEYS: u32 = 4;

fn options() -> BarOptions {
    BarOptions { horizon_ns: HORIZON, history: true, ..BarOptions::default() }
}

fn shard(spec: BarSpec, options: BarOptions) -> Shard {
    Shard::new(vec![Stage::new(spec.to_string(), 0, spec.operator(options))])
}

/// DEFINE for every key, in order.
fn defines() -> Vec<Event> {
    (0..KEYS)
        .map(|key| {
            let name = tidegate_engine::name_hash(&[key as u8]);
            Event::control(kind::DEFINE, 0, key, 0, [name, u64::from(slot_of(name))])
        })
        .collect()
}

fn trade(ts: u64, key: u32, price: i64, size: u64, flags: u8) -> Event {
    Event::trade(ts, key, 0, Price(price), Size(size), flags)
}

/// Runs a log in pieces; with `restore_at`, the shard is saved and restored into a fresh one there.
fn run(spec: BarSpec, log: &[Event], cuts: &[usize], restore_at: Option<usize>) -> (Vec<Output>, Shard) {
    let mut outputs = Vec::new();
    let mut sink = |batch: &[Output]| outputs.extend_from_slice(batch);
    let mut shard_now = shard(spec, options());
    shard_now.process(&defines(), &mut sink);
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (log.len() + 1)).collect();
    bounds.extend(restore_at);
    bounds.push(log.len());
    bounds.sort_unstable();
    let mut at = 0;
    for bound in bounds {
        shard_now.process(&log[at..bound.max(at)], &mut sink);
        at = bound.max(at);
        if restore_at == Some(at) {
            shard_now.flush(&mut sink);
            let bytes = shard_now.snapshot();
            shard_now = shard(spec, options());
            shard_now.restore(&bytes).unwrap();
        }
    }
    shard_now.flush(&mut sink);
    outputs.retain(|output| output.kind == output_kind::BAR);
    assert_eq!(shard_now.stages()[0].ledger().imbalance(), 0);
    (outputs, shard_now)
}

fn digest(shard: &Shard) -> String {
    let mut digest = tidegate_engine::Digest::default();
    digest.add_shard(shard);
    digest.short()
}

fn as_model(output: &Output, time: bool) -> ModelBar {
    let bar = output.bar();
    if let Some(vwap) = bar.vwap() {
        assert!(vwap.0 >= bar.low && vwap.0 <= bar.high, "VWAP outside the bar: {bar:?}");
    }
    ModelBar {
        key: output.key,
        start: if time { bar.ts_open } else { 0 },
        prices: [bar.open, bar.high, bar.low, bar.close],
        trades: bar.trades,
        sums: (bar.volume().0, bar.buy_volume().0, bar.notional().0),
        revision: bar.revision.into(),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Trade { back: u64, key: u32, price: i64, size: u64, buy: bool },
    Watermark { behind: u64 },
    Cancel { which: usize, correct: Option<i64> },
}

/// A log as feeds make them: time moves on, trades come out of order, some long late, some taken back or corrected.
fn log_of(steps: &[(u64, Step)]) -> Vec<Event> {
    let mut now = 10_000;
    let mut log = Vec::new();
    let mut trades: Vec<Event> = Vec::new();
    for (forward, step) in steps {
        now += forward;
        match *step {
            Step::Trade { back, key, price, size, buy } => {
                let event =
                    trade(now.saturating_sub(back), key, price, size, if buy { flag::BUY } else { 0 });
                trades.push(event);
                log.push(event);
            }
            Step::Watermark { behind } => {
                log.push(Event::control(kind::WATERMARK, now.saturating_sub(behind), 0, 0, [0; 2]));
            }
            Step::Cancel { which, correct } => {
                if trades.is_empty() {
                    continue;
                }
                let original = trades[which % trades.len()];
                log.push(Event { flags: original.flags | flag::CANCEL, ..original });
                if let Some(price) = correct {
                    log.push(Event {
                        flags: original.flags | flag::CORRECTION,
                        payload: [price as u64, original.payload[1]],
                        ..original
                    });
                }
            }
        }
    }
    log.push(Event::control(kind::END, 0, 0, 0, [0; 2]));
    log
}

fn any_steps(cancels: bool) -> impl Strategy<Value = Vec<(u64, Step)>> {
    let back = prop_oneof![6 => 0u64..10, 2 => 0u64..2_000, 1 => 0u64..9_000];
    let price = -20i64..20;
    let trades = (back, 0..KEYS, price.clone(), 0u64..5, any::<bool>())
        .prop_map(|(back, key, price, size, buy)| Step::Trade { back, key, price, size, buy });
    let watermarks = (0u64..1_500).prop_map(|behind| Step::Watermark { behind });
    let cancel = (any::<usize>(), proptest::option::of(price))
        .prop_map(|(which, correct)| Step::Cancel { which, correct });
    let step = prop_oneof![12 => trades, 3 => watermarks, u32::from(cancels) * 2 => cancel];
    proptest::collection::vec((0u64..300, step), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Late trades amend, disorder parks, cancels and corrections rebuild: always what the lists say.
    #[test]
    fn time_bars_equal_the_model(steps in any_steps(true), cuts in proptest::collection::vec(any::<usize>(), 0..5)) {
        let log = log_of(&steps);
        let spec = BarSpec::Time(WindowWidth::from_ns(WIDTH).unwrap());
        let (outputs, _) = run(spec, &log, &cuts, None);
        let got: Vec<ModelBar> = outputs.iter().map(|output| as_model(output, true)).collect();
        prop_assert_eq!(got, model::time_bars(&log, WIDTH, HORIZON));
    }

    /// Where batches ended, and where a shard was saved and restored, must not show in a single bit.
    #[test]
    fn batching_and_restoring_do_not_show(
        steps in any_steps(true),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        at in any::<prop::sample::Index>(),
        ticks in any::<bool>(),
    ) {
        let log = log_of(&steps);
        let spec: BarSpec = if ticks { "7t".parse().unwrap() } else { "1us".parse().unwrap() };
        let (whole, one) = run(spec, &log, &[], None);
        let (pieces, two) = run(spec, &log, &cuts, Some(at.index(log.len())));
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(digest(&one), digest(&two));
        prop_assert_eq!(one.stages()[0].ledger(), two.stages()[0].ledger());
    }

    #[test]
    fn tick_bars_equal_the_model(steps in any_steps(false), ticks in 1u64..9) {
        let log = log_of(&steps);
        let spec = BarSpec::Ticks(ticks.try_into().unwrap());
        let (outputs, _) = run(spec, &log, &[], None);
        let got: Vec<ModelBar> = outputs.iter().map(|output| as_model(output, false)).collect();
        let want = model::tick_bars(&log, ticks as usize);
        prop_assert_eq!(got, want.into_iter().map(|bar| ModelBar { start: 0, ..bar }).collect::<Vec<_>>());
    }

    /// A trade corrected right away leaves the bars of the corrected values.
    #[test]
    fn a_corrected_tick_bar_is_the_bar_of_the_right_values(
        prices in proptest::collection::vec(-9i64..9, 4..40), at in any::<prop::sample::Index>(), right in -9i64..9,
    ) {
        let at = at.index(prices.len());
        let make = |prices: &[i64]| -> Vec<Event> {
            prices.iter().enumerate().map(|(i, &price)| trade(10_000 + i as u64, 0, price, 3, 0)).collect()
        };
        let mut log = make(&prices);
        let wrong = log[at];
        log.push(Event { flags: flag::CANCEL, ..wrong });
        log.push(Event { flags: flag::CORRECTION, payload: [right as u64, wrong.payload[1]], ..wrong });
        let end = Event::control(kind::END, 0, 0, 0, [0; 2]);
        log.push(end);
        let mut fixed = prices.clone();
        fixed[at] = right;
        let mut right_log = make(&fixed);
        right_log.push(end);
        let last = |outputs: Vec<Output>| {
            let mut bars: Vec<_> = outputs.iter().map(|output| as_model(output, false)).collect();
            // Later revisions replace earlier ones; partial bars come last.
            let amended: Vec<_> = bars.iter().filter(|bar| bar.revision == 2).cloned().collect();
            bars.retain(|bar| bar.revision == 0);
            (bars, amended)
        };
        let spec = "4t".parse().unwrap();
        let (mut bars, amended) = last(run(spec, &log, &[], None).0);
        if let Some(bar) = amended.first() {
            bars[at / 4] = ModelBar { revision: 0, ..bar.clone() };
        }
        prop_assert_eq!(bars, last(run(spec, &right_log, &[], None).0).0);
    }
}

#[test]
fn each_late_policy_does_what_it_says() {
    let log = [
        trade(10_000, 0, 5, 1, 0),
        Event::control(kind::WATERMARK, 12_000, 0, 0, [0; 2]),
        trade(10_500, 0, 9, 1, 0),
        trade(1_000, 0, 9, 1, 0),
        Event::control(kind::END, 0, 0, 0, [0; 2]),
    ];
    let fates = |late| {
        let mut outputs = Vec::new();
        let mut shard = shard("1us".parse().unwrap(), BarOptions { late, ..options() });
        let mut sink = |batch: &[Output]| outputs.extend_from_slice(batch);
        shard.process(&defines(), &mut sink);
        shard.process(&log, &mut sink);
        shard.flush(&mut sink);
        let kinds: Vec<u8> = outputs.iter().map(|o| o.kind).filter(|&k| k < output_kind::WATERMARK).collect();
        let ledger = shard.stages()[0].ledger();
        (kinds, [Fate::LateAmended, Fate::TooLate, Fate::LateSide, Fate::LateDropped].map(|f| ledger.of(f)))
    };
    let (bar, late) = (output_kind::BAR, output_kind::LATE);
    assert_eq!(fates(LatePolicy::Amend), (vec![bar, bar], [1, 1, 0, 0]));
    assert_eq!(fates(LatePolicy::Side), (vec![bar, late, late], [0, 0, 2, 0]));
    assert_eq!(fates(LatePolicy::Drop), (vec![bar], [0, 0, 0, 2]));
}

#[test]
fn a_declared_loss_marks_the_bars_it_touches() {
    let log = [
        trade(10_000, 0, 5, 1, 0),
        Event::control(kind::GAP, 11_500, 0, 0, [7, 10_200]),
        trade(11_600, 0, 5, 1, 0),
        trade(13_000, 0, 5, 1, 0),
        Event::control(kind::END, 0, 0, 0, [0; 2]),
    ];
    let (outputs, _) = run("1us".parse().unwrap(), &log, &[], None);
    assert_eq!(outputs.iter().map(|o| o.bar().missing).collect::<Vec<_>>(), [7, 7, 0]);
}

/// Found by the fuzz target `pipeline`.
#[test]
fn losses_beyond_what_can_be_counted_are_as_many_as_can_be() {
    let gap = Event::control(kind::GAP, 10_100, 0, 0, [u64::MAX - 1, 10_000]);
    let log = [trade(10_000, 0, 5, 1, 0), gap, gap, Event::control(kind::END, 0, 0, 0, [0; 2])];
    let (outputs, _) = run("1us".parse().unwrap(), &log, &[], None);
    assert_eq!(outputs.iter().map(|o| o.bar().missing).collect::<Vec<_>>(), [u64::MAX]);
}

#[test]
fn events_for_others_are_counted_not_guessed() {
    let sample = Event { kind: kind::SAMPLE, ..Event::default() };
    let unknown = trade(10_000, 99, 1, 1, 0);
    let (_, shard) = run("1us".parse().unwrap(), &[sample, unknown], &[], None);
    let ledger = shard.stages()[0].ledger();
    assert_eq!((ledger.of(Fate::NotMine), ledger.of(Fate::Undefined), ledger.delivered), (1, 1, 2));
}

#[test]
fn specifications_read_back_as_written() {
    for text in ["1s", "5m", "1h", "1d", "250ms", "1000t", "50000v", "1000000$", "90s"] {
        assert_eq!(text.parse::<BarSpec>().unwrap().to_string(), text);
    }
    assert_eq!("60s".parse::<BarSpec>().unwrap().to_string(), "1m");
    for text in ["", "0s", "1", "s", "1x", "367d", "-1s", "99999999999999999999s", "1.5s"] {
        assert!(text.parse::<BarSpec>().is_err(), "{text}");
    }
}

#[test]
fn what_a_memory_bound_cuts_is_counted() {
    let tight = BarOptions { retained_bars_max: 2, ..options() };
    let mut shard = shard("1us".parse().unwrap(), tight);
    let mut sink = |_: &[Output]| {};
    shard.process(&defines(), &mut sink);
    let log: Vec<Event> = (0..5).map(|n| trade(n * WIDTH, 0, 10, 1, 0)).collect();
    shard.process(&log, &mut sink);
    let watermark = Event::control(kind::WATERMARK, 5 * WIDTH, 0, 0, [0; 2]);
    // All five close at once; the horizon keeps the last two and a half, the bound two.
    shard.process(&[watermark], &mut sink);
    assert_eq!(shard.stages()[0].cut(), 3);
    // Late for a bar that was cut: not amended, and above all not written a second time as new.
    let mut seen = Vec::new();
    shard.process(&[trade(2 * WIDTH + 1, 0, 11, 1, 0)], &mut |outputs: &[Output]| {
        seen.extend_from_slice(outputs)
    });
    shard.flush(&mut |outputs: &[Output]| seen.extend_from_slice(outputs));
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(shard.stages()[0].ledger().of(Fate::TooLate), 1);
}

proptest! {
    /// All revisions applied by (name, first trade), in any order of bars, are what the corrected trades give from the start.
    #[test]
    fn revisions_of_measure_bars_find_their_bar(
        trades in prop::collection::vec((0u32..KEYS, 1i64..100, 1u64..5), 1..120),
        corrections in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1i64..100), 0..12),
        volume in any::<bool>(),
    ) {
        let measure = if volume { "1v" } else { "3t" };
        let spec: BarSpec = measure.parse().unwrap();
        let size = |n: u64| n * 30_000_000; // volume of 1 in one to four trades
        // Each stamp once, so that a cancel means one trade.
        let mut corrected: Vec<Event> = (1u64..)
            .zip(&trades)
            .map(|(ts, &(key, price, n))| trade(ts, key, price, size(n), 0))
            .collect();
        let mut log: Vec<Event> = Vec::new();
        let mut due: Vec<(usize, usize, i64)> = corrections
            .iter()
            .map(|(which, when, price)| {
                let which = which.index(trades.len());
                (which + when.index(trades.len() - which), which, *price)
            })
            .collect();
        due.sort_unstable();
        let original = corrected.clone();
        for (at, event) in original.iter().enumerate() {
            log.push(*event);
            for &(_, which, price) in due.iter().filter(|due| due.0 == at) {
                let old = corrected[which];
                let new = trade(old.ts_event, old.key, price, old.size(), 0);
                log.push(Event { flags: flag::CANCEL, ..old });
                log.push(Event { flags: flag::CORRECTION, ..new });
                corrected[which] = new;
            }
        }
        let latest = |log: &[Event]| {
            let log: Vec<Event> = log.iter().copied().chain([Event::control(kind::END, 0, 0, 0, [0, 0])]).collect();
            let (outputs, _) = run(spec, &log, &[], None);
            let mut bars = std::collections::BTreeMap::new();
            for output in outputs {
                let bar = output.bar();
                let told = (output.ts, bar.ts_open, bar.open, bar.high, bar.low, bar.close);
                let sums = (bar.volume, bar.notional, bar.trades);
                let before = bars.insert((output.key, bar.first_trade), (bar.revision, told, sums));
                assert_eq!(bar.revision, before.map_or(0, |before: (u32, _, _)| before.0 + 1));
            }
            bars.into_iter().map(|(bar, (_, told, sums))| (bar, told, sums)).collect::<Vec<_>>()
        };
        prop_assert_eq!(latest(&log), latest(&corrected));
    }
}
