//! After warm-up the hot path allocates nothing: counted by an allocator that wraps the system's.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use std::alloc::System;
use tidegate_benches::engine_run::{dealt, log_of, stages};
use tidegate_benches::hand::Job;
use tidegate_benches::w1::{REVERSED_LATENESS_NS, W1, generate, reverse_runs};
use tidegate_engine::{Event, Output, Shard};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test, because the counter is the process's and tests of one binary share it. So does the harness, whose own thread may have
/// something to do on a busy machine: what the hot path allocates it allocates every time.
#[test]
fn the_hot_path_allocates_nothing_once_warm() {
    let work = W1 { events: 2_000_000, symbols: 300, ..W1::default() };
    let mut reversed = generate(work);
    reverse_runs(&mut reversed);
    for (what, events, disorder) in
        [("ordered", generate(work), 0), ("reversed", reversed, REVERSED_LATENESS_NS)]
    {
        let log = dealt(&log_of(&events, disorder), work.symbols, 1).remove(0);
        let mut tries: Vec<Stats> = Vec::new();
        let nothing = |change: &Stats| (change.allocations, change.reallocations) == (0, 0);
        while tries.len() < 5 && !tries.last().is_some_and(nothing) {
            tries.push(allocated(what, &log));
        }
        assert!(tries.last().is_some_and(nothing), "{what}: {tries:?}");
    }
}

fn allocated(what: &str, log: &[Event]) -> Stats {
    let mut shard = Shard::new(stages(Job::B));
    let mut emitted = 0;
    let mut sink = |outputs: &[Output]| emitted += outputs.len();
    // Half of the log warms up: every key is known, every buffer has its size.
    let (warm, hot) = log.split_at(log.len() / 2);
    shard.process(warm, &mut sink);
    let region = Region::new(ALLOCATOR);
    for chunk in hot.chunks(4_096) {
        shard.process(chunk, &mut sink);
        shard.flush(&mut sink);
    }
    let change = region.change();
    // END closes what is open and is not per event, but it may not allocate either.
    assert!(emitted > 10_000, "{what}: only {emitted} outputs, so nothing was tested");
    change
}
