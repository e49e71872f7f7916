//! The benchmarks as one table: what `tidegate bench` runs.

use std::error::Error;
use std::path::Path;

use tidegate_replay::capture::{CaptureOptions, CaptureWriter};
use tidegate_replay::decode::ReadOptions;
use tidegate_replay::input::open_input;
use tidegate_replay::{LogOptions, Plan, ReplayOptions, replay};

use crate::engine_run::{dealt, engine, log_of, shard_only};
use crate::hand::{Job, hand_full, hand_loop, hand_ring};
use crate::hops::ring_hop;
use crate::latency::{bare_ring, tick_to_state};
use crate::measure::{Contestant, Measurement, interleave, thread_cpu_ns};
use crate::w1::{REVERSED_LATENESS_NS, T0_NS, W1, generate, reverse_runs};
use crate::w1_parquet;

/// How much work to measure.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Trades of W1.
    pub events: usize,
    /// Rounds that count.
    pub rounds: usize,
}

impl Size {
    /// W1 as published.
    pub const FULL: Self = Self { events: 20_000_000, rounds: 5 };
    /// A look in seconds. Start-up weighs more, so rates come out lower.
    pub const QUICK: Self = Self { events: 4_000_000, rounds: 3 };
}

/// Runs everything and returns the figures in report order; `tell` hears what is being measured.
///
/// # Errors
/// When the scratch files for the end-to-end paths cannot be written or read.
pub fn run(size: Size, tell: &mut dyn FnMut(&str)) -> Result<Vec<Measurement>, Box<dyn Error>> {
    let mut found = Vec::new();
    tell("work W1: engine and hand-written loops in turns");
    found.extend(work(size));
    tell("shards and symbols, by time on a core");
    found.extend(scaling(size));
    tell("hops and latency");
    found.extend(latencies(size));
    tell("from capture and Parquet to bars");
    found.extend(end_to_end(size)?);
    Ok(found)
}

fn work(size: Size) -> Vec<Measurement> {
    let work = W1 { events: size.events, ..W1::default() };
    let ordered = generate(work);
    let mut reversed = ordered.clone();
    reverse_runs(&mut reversed);
    let (ordered, reversed, symbols) = (&ordered[..], &reversed[..], work.symbols);
    let mut contestants = Vec::new();
    for job in [Job::A, Job::B] {
        let name = |what: &str| format!("w1_{}_{what}", job.letter());
        contestants.extend([
            Contestant::rate(name("engine"), work.events, move || engine(job, ordered, symbols, 0, 1)),
            Contestant::rate(name("hand_loop"), work.events, move || hand_loop(job, ordered, symbols)),
            Contestant::rate(name("hand_ring"), work.events, move || hand_ring(job, ordered, symbols)),
            Contestant::rate(name("hand_full"), work.events, move || hand_full(job, ordered, symbols, 0)),
            Contestant::rate(name("reversed"), work.events, move || {
                engine(job, reversed, symbols, REVERSED_LATENESS_NS, 1)
            }),
            Contestant::rate(name("hand_full_reversed"), work.events, move || {
                hand_full(job, reversed, symbols, REVERSED_LATENESS_NS)
            }),
        ]);
    }
    interleave(1, size.rounds, &mut contestants)
}

/// Rates per core of shards alone, without the reader: what one more shard costs, and what more symbols do.
fn scaling(size: Size) -> Vec<Measurement> {
    let events = size.events / 2;
    // `rate` times as many trades per second as W1 has.
    let log_with = |symbols, rate| {
        let mut events = generate(W1 { events, symbols, ..W1::default() });
        events.iter_mut().for_each(|event| event.ts_event = T0_NS + (event.ts_event - T0_NS) / rate);
        log_of(&events, 0)
    };
    let log = log_with(2_000, 1);
    let (one, two) = (dealt(&log, 2_000, 1), dealt(&log, 2_000, 2));
    drop(log);
    let few = dealt(&log_with(1, 1), 1, 1);
    let many = dealt(&log_with(100_000, 1), 100_000, 1);
    // As many trades per bar as with 2,000 symbols: what the symbols cost, without what the bars do.
    let dense = dealt(&log_with(100_000, 50), 100_000, 1);
    let rate = |parts: &[Vec<_>]| {
        let start = thread_cpu_ns().unwrap_or(0);
        for part in parts {
            std::hint::black_box(shard_only(Job::A, part));
        }
        events as f64 * 1e9 / (thread_cpu_ns().unwrap_or(0) - start).max(1) as f64
    };
    let mut contestants = vec![
        Contestant::new("shard_rate_1", "events/cpu-s", || rate(&one)),
        Contestant::new("shard_rate_2", "events/cpu-s", || rate(&two)),
        Contestant::new("shard_rate_1_symbol", "events/cpu-s", || rate(&few)),
        Contestant::new("shard_rate_100k_symbols", "events/cpu-s", || rate(&many)),
        Contestant::new("shard_rate_100k_symbols_dense", "events/cpu-s", || rate(&dense)),
    ];
    interleave(1, size.rounds, &mut contestants)
}

fn latencies(size: Size) -> Vec<Measurement> {
    let events = generate(W1 { events: size.events.min(2_000_000), ..W1::default() });
    let names = ["tick_to_state_p50", "tick_to_state_p99", "bare_ring_p50", "bare_ring_p99", "ring_hop"];
    let mut found: Vec<Measurement> = names.iter().map(|name| Measurement::new(*name, "ns")).collect();
    for _ in 0..size.rounds {
        let state = tick_to_state(&events, 2_000, 1_000_000);
        let bare = bare_ring(&events, 1_000_000);
        let hop = ring_hop(100_000, 1, 1).one_way_ns;
        for (measurement, value) in found.iter_mut().zip([state.p50, state.p99, bare.p50, bare.p99, hop]) {
            measurement.runs.push(value);
        }
    }
    found
}

fn end_to_end(size: Size) -> Result<Vec<Measurement>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let work = W1 { events: size.events, ..W1::default() };
    let (capture, table) = (folder.path().join("w1.tgc"), folder.path().join("w1.parquet"));
    {
        let mut writer = CaptureWriter::create(&capture, CaptureOptions::default())?;
        for key in 0..work.symbols {
            writer.define(&format!("S{key:04}"))?;
        }
        writer.push(&generate(work))?;
        writer.finish()?;
    }
    w1_parquet::write(&table, work)?;
    let mut found =
        [Measurement::new("capture_to_bars", "events/s"), Measurement::new("parquet_to_bars", "events/s")];
    for round in 0..=size.rounds {
        for (measurement, path) in found.iter_mut().zip([&capture, &table]) {
            let rate = replay_rate(path, work.events as u64)?;
            if round > 0 {
                measurement.runs.push(rate);
            }
        }
    }
    Ok(found.into())
}

/// The whole `replay` path over a file: decode, sequence, route, bars, digest.
fn replay_rate(path: &Path, events: u64) -> Result<f64, Box<dyn Error>> {
    let plan = Plan { bars: vec!["1s".parse()?], ..Plan::default() };
    let source = open_input(path, &ReadOptions::default())?;
    let options = ReplayOptions::default();
    let report = replay(vec![source], &plan, LogOptions::default(), &options, None, &mut |_| {})?;
    if report.logged != events || report.imbalance() != 0 {
        return Err(format!("{} of {events} events arrived from {}", report.logged, path.display()).into());
    }
    Ok(report.rate())
}
