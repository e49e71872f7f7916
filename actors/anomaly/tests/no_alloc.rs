//! Detectors allocate when they are built and never after: counted by an allocator that wraps the system's.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use std::alloc::System;
use tidegate_anomaly::{
    EdgeDetector, EdgeOptions, FeatureKind, RecordDetector, SeriesDetector, SeriesOptions, SeriesState,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test, because the counter is the process's and tests of one binary share it. So does the harness, whose own thread may have
/// something left to do on a busy machine: what the detectors allocate they allocate every time.
#[test]
fn nothing_is_allocated_after_construction() {
    let tries: Vec<Stats> = (0..5).map(|_| allocated()).collect();
    let nothing = |change: &Stats| (change.allocations, change.reallocations) == (0, 0);
    assert!(tries.iter().any(nothing), "{tries:?}");
}

fn allocated() -> Stats {
    let mut series = SeriesDetector::new(SeriesOptions::default()).unwrap();
    let mut edges = EdgeDetector::new(EdgeOptions::default()).unwrap();
    let mut records = RecordDetector::new(&[FeatureKind::Category, FeatureKind::Count]).unwrap();
    let region = Region::new(ALLOCATOR);
    let (mut alerts, mut most) = (0, 0.0f64);
    for at in 0..5_000u64 {
        let noise = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64;
        let value = match at {
            3_000 => 1e12,
            4_000 => f64::NAN,
            _ => noise,
        };
        alerts += u32::from(series.push(at as i64 * 300, value).state == SeriesState::Alert);
        most = most.max(edges.push(at % 50, at % 7, at / 10).score);
        assert!(records.push(&[(at % 3) as f64, noise]).is_ok());
    }
    let change = region.change();
    assert!(alerts > 0 && most > 0.0, "the paths were taken");
    change
}
