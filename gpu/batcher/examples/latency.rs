//! Times from the close of windows to their results in the ring: `cargo run --release -p tidegate-batcher --example latency`.
//!
//! Every round all symbols close a bar at once, and the next begins when all results are there: first a surface alone, then a
//! surface beside the spectrum of all symbols and the risk of a hundred of them.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tidegate_batcher::{
    Batcher, ClassSpec, Compute, CrossOptions, GpuPolicy, Options, RiskSpec, SpectrumSpec, Started,
    SurfaceSpec, SweepSpec, Tail, Window,
};
use tidegate_gpu::philox::philox4x32;

const SYMBOLS: u32 = 2_048;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let surface = Compute::Surface(SurfaceSpec {
        specs: (2..=30).map(|window| SweepSpec::Rsi { window }).collect(),
        history: 256,
    });
    let options = CrossOptions { rows: 60, shrink: 0.1 };
    let spectrum = Compute::Spectrum(SpectrumSpec { options, leading: 5 });
    let risk = Compute::Risk(RiskSpec {
        weights: vec![0.01; 100],
        factors: 3,
        horizon_bars: 390.0,
        paths: 10_000,
        tail: Tail::StudentT { freedom: 5 },
        levels: vec![0.95, 0.99],
        seed: 1,
        history: 390,
        least: 60,
    });
    let class = |name: &str, members: u32, compute: &Compute| ClassSpec {
        name: name.to_owned(),
        members: (0..members).collect(),
        compute: compute.clone(),
    };
    time("surface alone", vec![class("surface", SYMBOLS, &surface)], 2_000)?;
    let all = vec![
        class("surface", SYMBOLS, &surface),
        class("spectrum", SYMBOLS, &spectrum),
        class("risk", 100, &risk),
    ];
    time("all classes", all, 300)
}

fn time(what: &str, classes: Vec<ClassSpec>, rounds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
    let options = Options { rows: SYMBOLS, ..Options::default() };
    let goal = options.max_latency + Duration::from_micros(150);
    let Started { mut feeders, mut results, stats, handle } =
        Batcher::start(classes, options, GpuPolicy::Auto)?;
    let mut prices = vec![100_000_000_000i64; SYMBOLS as usize];
    let mut latencies: Vec<Histogram<u64>> =
        names.iter().map(|_| Histogram::new_with_bounds(1, 60_000_000_000, 3)).collect::<Result<_, _>>()?;
    let mut pushed = Duration::ZERO;
    for round in 0..rounds {
        let end = 60_000_000_000 * (round + 1);
        for (row, price) in (0..SYMBOLS).zip(&mut prices) {
            let [move_by, ..] = philox4x32([round as u32, row, 0, 0], [1, 1]);
            *price += i64::from(move_by % 200_001) * 1_000 - 100_000_000;
        }
        let began = Instant::now();
        for (row, &close) in (0..SYMBOLS).zip(&prices) {
            let (high, low) = (close + 50_000_000, close - 50_000_000);
            // A ring of 16,384 is never full here.
            let _ = feeders[0].push(Window { row, close_ts: end, high, low, close });
        }
        feeders[0].watermark(end);
        pushed += began.elapsed();
        let mut missing = SYMBOLS as usize;
        let steps = if round >= 60 { names.len() - 1 } else { 0 };
        let mut missing_steps = steps;
        while missing > 0 || missing_steps > 0 {
            let some = results.next(|outcome| {
                // The first rounds touch memory for the first time.
                if round >= 100 {
                    latencies[outcome.class].saturating_record(outcome.latency.as_nanos() as u64);
                }
                match outcome.rows.len() {
                    0 if round >= 60 => missing_steps -= 1,
                    lines => missing -= lines.min(missing),
                }
            });
            if !some {
                results.wait(Duration::from_secs(10));
            }
        }
    }
    drop(feeders);
    let device = stats.device().unwrap_or_else(|| "CPU".to_owned());
    println!(
        "{what}, {SYMBOLS} symbols, {rounds} rounds, on {device}; goal {goal:?}; a window is pushed in {:.0} ns",
        { pushed.as_nanos() as f64 / (rounds * u64::from(SYMBOLS)) as f64 }
    );
    for (at, name) in names.iter().enumerate() {
        let us = |quantile: f64| latencies[at].value_at_quantile(quantile) as f64 / 1e3;
        let stats = stats.class(at);
        println!(
            "  {name}: p50 {:.0} us, p99 {:.0} us, most {:.0} us of the oldest window of {} batches; {} results",
            us(0.5),
            us(0.99),
            us(1.0),
            stats.batches,
            stats.lines
        );
    }
    drop(results);
    if !handle.join() {
        return Err("the batcher did not end as it should".into());
    }
    Ok(())
}
