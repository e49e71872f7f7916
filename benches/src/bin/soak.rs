//! Runs job B over a stream that goes on and on and watches resident memory: `soak [events]`, by default 2 billion.
//!
//! A stretch of W1 is repeated with its stamps moved on, so the input costs no memory of its own.

use std::time::Instant;
use tidegate_benches::engine_run::{define_all, stages};
use tidegate_benches::hand::Job;
use tidegate_benches::hops::Patience;
use tidegate_benches::w1::{STEP_NS, W1, generate};
use tidegate_engine::{
    Event, FullPolicy, Output, Placement, Router, Sequencer, SequencerOptions, Shard, ring,
};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn main() {
    let total: u64 =
        std::env::args().nth(1).map_or(2_000_000_000, |text| text.parse().expect("a whole number"));
    let work = W1 { events: 1_000_000, ..W1::default() };
    let mut stretch = generate(work);
    let span = work.events as u64 * STEP_NS;
    let (outlet, mut inlet) = ring::<Event>(32_768, FullPolicy::Wait);
    let mut router = Router::new(Placement::round_robin(1), vec![outlet]);
    define_all(&mut router, work.symbols);
    let start = Instant::now();
    let worker = std::thread::spawn(move || {
        let mut shard = Shard::new(stages(Job::B));
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
        shard
    });
    let mut sequencer = Sequencer::new(SequencerOptions::default());
    let mut patience = Patience::default();
    let mut emit = |frame: &[Event]| {
        patience.after(true);
        assert!(router.route(frame, || patience.after(false)), "the shard is gone");
    };
    let mut warm = 0;
    let rounds = total.div_ceil(work.events as u64);
    for round in 0..rounds {
        sequencer.push(&stretch, &mut emit);
        stretch.iter_mut().for_each(|event| event.ts_event += span);
        if round == rounds / 20 {
            warm = resident_kib();
        }
        if round % (rounds / 10).max(1) == 0 {
            println!(
                "{:>6} M events, resident {} KiB",
                (round + 1) * work.events as u64 / 1_000_000,
                resident_kib()
            );
        }
    }
    sequencer.finish(&mut emit);
    drop(router);
    let shard = worker.join().expect("the shard panicked");
    let end = resident_kib();
    let rate = shard.events() as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!(
        "{} events at {rate:.0} M/s; resident {warm} KiB after a twentieth, {end} KiB at the end",
        shard.events()
    );
    assert!(end < warm + warm / 50 + 1_024, "resident memory grew");
}
