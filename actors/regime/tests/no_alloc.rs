//! Online models allocate when they are built and never after: counted by an allocator that wraps the system's.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use std::alloc::System;
use tidegate_regime::bocpd::{Gaussian, Lagged, Poisson, Robust};
use tidegate_regime::cusum::{Cusum, PageHinkley};
use tidegate_regime::hmm::{Label, OnlineOptions};
use tidegate_regime::switching::SwitchingFilter;
use tidegate_regime::{Bocpd, BocpdOptions, GaussianHmm, HmmFilter, SegmentOptions, Segments, SwitchingAr};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test, because the counter is the process's and tests of one binary share it. So does the harness, whose own thread may have
/// something left to do on a busy machine: what the models allocate they allocate every time.
#[test]
fn nothing_is_allocated_after_construction() {
    let tries: Vec<Stats> = (0..5).map(|_| allocated()).collect();
    let nothing = |change: &Stats| (change.allocations, change.reallocations) == (0, 0);
    assert!(tries.iter().any(nothing), "{tries:?}");
}

fn allocated() -> Stats {
    // Levels that move every 150 observations, some missing, and a scale that grows: every path is taken.
    let series: Vec<f64> = (0..3_000u64)
        .map(|at| {
            let noise = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64;
            let level = (at / 150 % 3 * 10) as f64 * (1.0 + at as f64 / 500.0);
            if at % 61 == 0 { f64::NAN } else { level + noise }
        })
        .collect();
    let gaussian = || Gaussian::new(0.0, 0.1, 1.0, 1.0).unwrap();
    let options = BocpdOptions { hypotheses_max: 32, ..BocpdOptions::default() };
    let mut segments = Segments::new(SegmentOptions { dimensions: 2, ..SegmentOptions::default() }).unwrap();
    let mut plain = Bocpd::new(gaussian(), options).unwrap();
    let mut robust = Bocpd::new(Robust::new(gaussian(), 0.05, 9.0).unwrap(), options).unwrap();
    let mut lagged = Bocpd::new(Lagged::new(3.0, 0.5, 1.0, 1.0, 0.0).unwrap(), options).unwrap();
    let mut counts = Bocpd::new(Poisson::new(1.0, 1.0).unwrap(), options).unwrap();
    let model = GaussianHmm::new(&[0.5, 0.5], &[0.9, 0.1, 0.1, 0.9], &[0.0, 10.0], &[1.0, 4.0]).unwrap();
    let mut filter = HmmFilter::new(model, 16).unwrap().learning(OnlineOptions::default()).unwrap();
    let mut label = Label::new(0.8, 3).unwrap();
    let switching = SwitchingAr::new(&[0.9, 0.1, 0.1, 0.9], &[0.0, 10.0], &[1.0], &[0.3, 0.1]).unwrap();
    let mut switching = SwitchingFilter::new(switching);
    let mut cusum = Cusum::new(0.5, 8.0, 20).unwrap();
    let mut page_hinkley = PageHinkley::new(0.5, 20.0, 0.99).unwrap();

    let (mut changes, mut alarms, mut labels) = (0, 0, [0; 2]);
    let region = Region::new(ALLOCATOR);
    for &value in &series {
        changes += usize::from(segments.push(&[value, -value]).is_some());
        plain.push(value);
        robust.push(value);
        lagged.push(value);
        counts.push(value.floor());
        filter.step(&[value]);
        labels[label.update(filter.probabilities()).unwrap_or(0)] += 1;
        switching.step(value);
        alarms += usize::from(cusum.push(value).is_some()) + usize::from(page_hinkley.push(value).is_some());
    }
    let change = region.change();
    assert!(
        changes > 10 && alarms > 10 && labels.iter().all(|count| *count > 100),
        "{changes} {alarms} {labels:?}"
    );
    change
}
