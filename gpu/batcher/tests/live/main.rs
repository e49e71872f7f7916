//! Live results beside what the commands over files give for the same bars: bit for bit, however batches are cut, on the CPU and
//! on a device that runs, fails or hangs; and what bounds hold while too much comes.

mod device;
mod market;

use market::{Bars, Lines, SURFACE, bars, classes, equal, of_files, run, take, window, windows};
use proptest::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::time::Duration;
use tidegate_batcher::{
    Batcher, BatcherError, ClassSpec, Compute, Feeder, GpuPolicy, Options, Pushed, Refusal, Started, Waited,
    Window,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn options(feeders: usize, rows: u32) -> Options {
    Options { feeders, rows, threads: 1, steps_behind: 1_000, ..Options::default() }
}

/// Pushes windows by several feeders, as they would come from shards that do not keep step.
fn push_apart(mut feeders: Vec<Feeder>, windows: &[Window], mut order: u64) {
    let count = feeders.len();
    let owner = |window: &Window| window.row as usize % count;
    let mut at = vec![0; count];
    let mut next = || {
        order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order >> 33
    };
    loop {
        let open: Vec<usize> = (0..count).filter(|&feeder| at[feeder] < windows.len()).collect();
        let Some(&feeder) = open.get(next() as usize % open.len().max(1)) else { break };
        for _ in 0..1 + next() % 40 {
            let Some(window) = windows.get(at[feeder]) else { break };
            at[feeder] += 1;
            if owner(window) == feeder {
                take(feeders[feeder].push(*window));
            }
            // What ends with this window is given once the next one ends later.
            let later = windows.get(at[feeder]).is_none_or(|next| next.close_ts > window.close_ts);
            if later && next() % 3 > 0 {
                feeders[feeder].watermark(window.close_ts + next() % 900);
            }
        }
        if next().is_multiple_of(8) {
            std::thread::yield_now();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The contract: results follow from the bars, not from who pushed them when, nor from how batches were cut.
    #[test]
    fn live_results_are_those_of_the_same_bars_in_a_file_however_batches_are_cut(
        seed in any::<u32>(), order in any::<u64>(), feeders in 1..4usize, rows in 3..8u32, steps in 5..60u64,
        max_batch in 1..70usize, latency in 0..300u64, half in 5..40usize,
    ) {
        let bars = bars(seed, rows, steps);
        let classes = classes(rows, 2 * half);
        let options = Options { max_batch, max_latency: Duration::from_micros(latency), ..options(feeders, rows) };
        let windows = windows(&bars);
        let found = run(&classes, options, GpuPolicy::Off, |feeders| push_apart(feeders, &windows, order));
        equal(&found.lines, &of_files(&bars, &classes));
        for class in 0..classes.len() {
            let stats = found.stats.class(class);
            prop_assert_eq!((stats.skipped, stats.merged, stats.forced, stats.too_late), (0, 0, 0, 0));
            prop_assert_eq!((stats.refused, stats.failed, stats.on_device), (0, None, 0));
        }
    }

    /// Bars that come late, change or are taken back count from then on as if they had been so from the beginning.
    #[test]
    fn after_bars_changed_results_are_those_of_the_changed_bars(
        seed in any::<u32>(), rows in 3..6u32, steps in 8..80u64, half in 10..40usize,
        changes in prop::collection::vec((0..6u32, 0..9u64, 0..4u8), 1..8),
        max_batch in 1..70usize,
    ) {
        let before = bars(seed, rows, steps);
        let mut after = before.clone();
        let classes = classes(rows, 2 * half);
        let newest = 1_000 * steps;
        let mut amended: Vec<(Window, bool)> = Vec::new();
        for (row, ago, what) in changes {
            let (row, end) = (row % rows, newest - 1_000 * ago.min(steps - 1));
            let own = after.get_mut(&row).unwrap();
            let price = 40_000_000_000 + 1_000_003 * ago as i64;
            match what {
                // Gone, whether it was there or not.
                0 => {
                    own.remove(&end);
                    amended.push((window(row, end, [0; 3]), false));
                }
                // There, at a time of its own where it falls between two.
                _ => {
                    let end = if what == 1 { end - 500 } else { end };
                    let bar = [price + 7, price - 3, price];
                    own.insert(end, bar);
                    amended.push((window(row, end, bar), true));
                }
            }
        }
        // A last step of all rows, whose results are compared.
        let last = newest + 5_000;
        for (row, own) in &mut after {
            let price = 45_000_000_000 + 10_000_019 * i64::from(*row);
            own.insert(last, [price, price, price]);
        }
        let options = Options { max_batch, ..options(1, rows) };
        let found = run(&classes, options, GpuPolicy::Off, |mut feeders: Vec<Feeder>| {
            let feeder = &mut feeders[0];
            for window in windows(&before) {
                take(feeder.push(window));
                feeder.watermark(window.close_ts - 1);
            }
            feeder.watermark(newest + 1);
            for (window, there) in &amended {
                take(match there {
                    true => feeder.push(*window),
                    false => feeder.withdraw(window.row, window.close_ts),
                });
            }
            for (&row, own) in &after {
                take(feeder.push(window(row, last, own[&last])));
            }
        });
        let at_last = |lines: Lines| -> Lines { lines.into_iter().filter(|(key, _)| key.2 == last).collect() };
        let wanted = at_last(of_files(&after, &classes));
        equal(&at_last(found.lines), &wanted);
        prop_assert!(wanted.len() >= rows as usize);
        prop_assert_eq!(found.stats.class(SURFACE).too_late, 0);
    }
}

/// Far more than is read: nothing waits without bound, and what does come is right all the same.
#[test]
fn while_nobody_reads_results_are_left_out_and_bars_are_not() {
    let (rows, steps) = (5, 400);
    let bars = bars(11, rows, steps);
    let classes = classes(rows, 64);
    let options = Options { backlog: 256, steps_behind: 3, max_batch: 16, ..options(1, rows) };
    let Started { mut feeders, mut results, stats, handle } =
        Batcher::start(classes.clone(), options, GpuPolicy::Off).unwrap();
    let wanted = of_files(&bars, &classes);
    let all = windows(&bars);
    let (most, rest) = all.split_at(all.len() - 30);
    let count = |class: usize| {
        let stats = stats.class(class);
        stats.lines + stats.skipped
    };
    for (at, window) in most.iter().enumerate() {
        take(feeders[0].push(*window));
        feeders[0].watermark(window.close_ts - 1);
        // As slowly as the batcher takes them, so that none finds its own class too far behind.
        while count(SURFACE) + 200 < at as u64 {
            std::thread::yield_now();
        }
    }
    let skipped = stats.class(SURFACE).skipped;
    assert!(skipped > 1_000, "{:?}", stats.class(SURFACE));
    for window in rest {
        take(feeders[0].push(*window));
    }
    drop(feeders);
    let mut found = Lines::new();
    loop {
        while results.next(|outcome| {
            // The others are not waited for above; what they say is of all bars is.
            assert!(outcome.gaps == 0 || outcome.class != SURFACE);
            let lines = outcome.lines().filter(|_| outcome.gaps == 0);
            found
                .extend(lines.map(|(row, end, values)| {
                    ((outcome.class, row.unwrap_or(0), end), market::bits(values))
                }));
        }) {}
        if results.wait(Duration::from_secs(60)) == Waited::Ended {
            break;
        }
    }
    assert!(handle.join());
    for class in 0..classes.len() {
        let stats = stats.class(class);
        let own = wanted.iter().filter(|(key, _)| key.0 == class).count() as u64;
        assert!(stats.skipped > 0 && stats.forced == 0 && stats.lines < own / 2, "{stats:?}");
    }
    assert_eq!(count(SURFACE), all.len() as u64);
    // The newest of each row are there, and nothing is wrong.
    let last = all.last().unwrap();
    assert!(found.contains_key(&(SURFACE, last.row, last.close_ts)));
    let wanted = wanted.into_iter().filter(|(key, _)| found.contains_key(key)).collect();
    equal(&found, &wanted);
}

#[test]
fn what_cannot_be_is_refused_by_name_and_counted() {
    let three = classes(3, 64);
    let refused = |change: &dyn Fn(&mut Vec<ClassSpec>, &mut Options)| {
        let (mut classes, mut options) = (three.clone(), options(1, 3));
        change(&mut classes, &mut options);
        Batcher::start(classes, options, GpuPolicy::Off)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(refused(&|classes, _| classes.clear()), "classes: 0; allowed are 1 to 64");
    assert_eq!(refused(&|_, options| options.rows = 0), "rows: 0; allowed are 1 to 262144");
    assert_eq!(refused(&|_, options| options.feeders = 0), "feeders: 0; allowed are 1 to 1024");
    assert_eq!(
        refused(&|classes, _| classes[0].members.clear()),
        "members of a class: 0; allowed are 1 to 3"
    );
    assert_eq!(refused(&|_, options| options.rows = 2), "members of a class: 3; allowed are 1 to 2");
    assert_eq!(
        refused(&|classes, _| classes[1].members[1] = 7),
        "class `spectrum`: row 7 is not below 3, the number of rows"
    );
    assert_eq!(refused(&|classes, _| classes[2].members = vec![1, 1]), "class `risk`: row 1 is there twice");
    let surface = |change: &dyn Fn(&mut tidegate_batcher::SurfaceSpec)| {
        refused(&|classes, _| match &mut classes[0].compute {
            Compute::Surface(surface) => change(surface),
            _ => unreachable!(),
        })
    };
    assert_eq!(
        surface(&|surface| surface.specs.clear()),
        "class `surface`: indicators: 0; allowed are 1 to 16777216"
    );
    assert_eq!(surface(&|surface| surface.history = 1), "bars of history: 1; allowed are 2 to 1048576");
    assert_eq!(
        surface(&|surface| surface.history = 9),
        "class `surface`: a history of 9 bars is too short for its longest Bollinger window, twice over; 10 or more are needed"
    );
    let huge = refused(&|classes, options| {
        options.rows = 1 << 18;
        classes[0].members = (0..1 << 18).collect();
        if let Compute::Surface(surface) = &mut classes[0].compute {
            surface.history = 1 << 20;
        }
    });
    assert_eq!(
        huge,
        "class `surface`: rows and bars of each are 262144 x 1048576; at most 67108864 are kept"
    );
    let risk = |change: &dyn Fn(&mut tidegate_batcher::RiskSpec)| {
        refused(&|classes, _| match &mut classes[2].compute {
            Compute::Risk(risk) => change(risk),
            _ => unreachable!(),
        })
    };
    assert_eq!(risk(&|risk| risk.weights.push(0.1)), "weights: 3; allowed are 2 to 2");
    assert_eq!(risk(&|risk| risk.factors = 3), "class `risk`: factors: 3; allowed are 1 to 2");
    assert_eq!(
        risk(&|risk| risk.weights[0] = f64::NAN),
        "class `risk`: weights[0] is NaN; every value must be finite"
    );
    assert_eq!(risk(&|risk| risk.least = 2), "rows before a result: 2; allowed are 3 to 30");
    assert!(risk(&|risk| risk.horizon_bars = -1.0).starts_with("class `risk`: horizon in bars is -1"));
    let shrunk = refused(&|classes, _| {
        if let Compute::Spectrum(spectrum) = &mut classes[1].compute {
            spectrum.options.shrink = 0.0;
        }
    });
    assert!(shrunk.starts_with("class `spectrum`: "), "{shrunk}");
    assert!(matches!(
        Batcher::start(three.clone(), Options { ring: 0, ..options(1, 3) }, GpuPolicy::Off),
        Err(BatcherError::Count { what: "windows of a ring", .. })
    ));

    let found = run(&three, options(1, 3), GpuPolicy::Off, |mut feeders: Vec<Feeder>| {
        let feeder = &mut feeders[0];
        let good = window(0, 5, [3, 1, 2]);
        for (wrong, why) in [
            (Window { row: 3, ..good }, Refusal::Row(3)),
            (Window { close_ts: 0, ..good }, Refusal::Time),
            (Window { low: 0, ..good }, Refusal::Prices),
            (Window { low: -1, ..good }, Refusal::Prices),
            (Window { close: 4, ..good }, Refusal::Prices),
            (Window { low: 3, ..good }, Refusal::Prices),
            (Window { high: i64::MIN, ..good }, Refusal::Prices),
        ] {
            assert_eq!(feeder.push(wrong), Pushed::Refused(why));
        }
        take(feeder.withdraw(0, 5)); // it never was
        take(feeder.push(good));
        take(feeder.push(Window { row: 1, high: i64::MAX, ..good }));
    });
    assert_eq!((found.stats.refused(), found.stats.lost()), (7, 0));
    assert_eq!(found.lines.len(), 2, "{:?}", found.lines.keys());
}

/// A feeder that never says how far it is must not hold others back for ever.
#[test]
fn a_feeder_without_a_watermark_delays_and_does_not_stop() {
    let (rows, steps) = (4, 300);
    let bars = bars(3, rows, steps);
    let mut classes = classes(rows, 64);
    classes.remove(SURFACE);
    let options = Options { backlog: 80, ..options(2, rows) };
    let Started { mut feeders, mut results, stats, handle } =
        Batcher::start(classes.clone(), options, GpuPolicy::Off).unwrap();
    let mut lines = Lines::new();
    for window in windows(&bars) {
        take(feeders[0].push(window));
        feeders[0].watermark(window.close_ts - 1);
    }
    while stats.class(0).forced == 0 || !results.next(|_| ()) {
        std::thread::yield_now();
    }
    drop(feeders);
    while results.wait(Duration::from_secs(60)) != Waited::Ended {
        results.next(|outcome| {
            lines.extend(
                outcome.lines().map(|(_, end, values)| ((outcome.class, 0, end), market::bits(values))),
            );
        });
    }
    assert!(handle.join());
    let mut spectrum_first: Bars = bars;
    spectrum_first.retain(|row, _| *row < rows);
    let wanted = of_files(&spectrum_first, &classes);
    let last = *wanted.keys().next_back().unwrap();
    // Where the machine left the worker too little time, windows gave way and became one: said so, and other values.
    if stats.class(last.0).merged == 0 {
        assert_eq!(lines[&last], wanted[&last]);
    }
    assert!(lines.contains_key(&last));
}

/// Results that nobody takes do not keep the batcher from its end.
#[test]
fn dropped_ends_end_it() {
    for drop_first in [true, false] {
        let classes = classes(4, 64);
        let Started { mut feeders, results, handle, .. } =
            Batcher::start(classes, options(1, 4), GpuPolicy::Off).unwrap();
        let mut results = Some(results);
        if drop_first {
            results = None;
        }
        for window in windows(&bars(5, 4, 200)) {
            let _ = feeders[0].push(window);
            feeders[0].watermark(window.close_ts - 1);
        }
        drop(feeders);
        drop(results);
        assert!(handle.join());
    }
}

#[test]
#[ignore = "run by the test below, alone in its process"]
fn child_allocates_nothing() {
    let rows = 40;
    let all = windows(&bars(1, rows, 600));
    let surface = classes(rows, 128).remove(SURFACE);
    let options = Options { max_batch: 64, ..options(1, rows) };
    let Started { mut feeders, mut results, handle, .. } =
        Batcher::start(vec![surface], options, GpuPolicy::Off).unwrap();
    let mut lines = 0;
    let mut pass = |windows: &[Window], lines: &mut usize| {
        let wanted = *lines + windows.len();
        for window in windows {
            take(feeders[0].push(*window));
            // An amendment of the same bar now and then.
            while results.next(|outcome| *lines += outcome.times.len()) {}
        }
        while *lines < wanted {
            assert_ne!(results.wait(Duration::from_secs(60)), Waited::TimedOut);
            while results.next(|outcome| *lines += outcome.times.len()) {}
        }
    };
    let (warm, rest) = all.split_at(all.len() / 4);
    pass(warm, &mut lines);
    let region = Region::new(ALLOCATOR);
    pass(rest, &mut lines);
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
    assert_eq!(lines, all.len());
    drop(feeders);
    drop(results);
    assert!(handle.join());
}

#[test]
fn nothing_is_allocated_from_a_window_to_its_surface() {
    device::passes(&device::child("child_allocates_nothing", None, &[]));
}
