//! How long a shard stands still to save itself, by the size of its state: bars with what may still change of them, and indicators. Into fresh
//! memory, into memory that was touched ahead, as a server's is, and into used.
//!
//! `cargo run --release -p tidegate-actors --example snapshot_pause [EVENTS [KEYS]]`

use std::time::Instant;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::indicators::IndicatorAnalyzer;
use tidegate_engine::snapshot::touched;
use tidegate_engine::{
    AnalyzerStage, Event, Output, Price, Sequencer, SequencerOptions, Shard, Size, Stage, flag, kind,
    name_hash, slot_of,
};

const ROUNDS: usize = 9;
const START_NS: u64 = 1_767_571_200_000_000_000;

fn stages() -> Vec<Stage> {
    let bars = |name: &str, stream| {
        let spec: BarSpec = name.parse().expect("bars of a constant");
        Stage::new(name, stream, spec.operator(BarOptions::default()))
    };
    let indicators = |stream, over| {
        let specs: Vec<_> = ["sma:20", "ema:20", "rsi:14", "bb:20:2"]
            .iter()
            .map(|text| text.parse().expect("indicators of a constant"))
            .collect();
        let analyzer = IndicatorAnalyzer::new(over, &specs).expect("few enough columns");
        AnalyzerStage::new("indicators", stream, Box::new(analyzer))
    };
    vec![bars("1s", 0).with(indicators(1, 0)), bars("1m", 2).with(indicators(3, 2))]
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let (events, keys) = (arguments.next().unwrap_or(2_000_000), arguments.next().unwrap_or(2_000));
    let mut shard = Shard::new(stages());
    let mut sink = |_: &[Output]| {};
    for key in 0..keys as u32 {
        let name = name_hash(format!("KEY{key}").as_bytes());
        let payload = [name, u64::from(slot_of(name))];
        shard.process(&[Event::control(kind::DEFINE, 0, key, 0, payload)], &mut sink);
    }
    let mut sequencer = Sequencer::new(SequencerOptions::default());
    let mut draw = 7u64;
    let batch: Vec<Event> = (0..events)
        .map(|at| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let price = Price(100_000_000_000 + (draw >> 40) as i64 * 100);
            let key = (draw >> 33) % keys;
            Event::trade(START_NS + at * 20_000, key as u32, 0, price, Size(1 + (draw >> 50)), flag::BUY)
        })
        .collect();
    sequencer.push(&batch, &mut |frame: &[Event]| {
        let _ = shard.process(frame, &mut sink);
    });
    shard.flush(&mut sink);

    // Held, so that what follows does not get the same memory again.
    let begun = Instant::now();
    let into_fresh = shard.save(Vec::new());
    let unprepared = begun.elapsed().as_secs_f64() * 1e3;
    // The first goes into memory touched ahead, the others into that of the ones before.
    let mut memory = touched(Vec::new(), into_fresh.len() * 3 / 2);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        memory = shard.save(memory);
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let megabytes = memory.len() as f64 / 1e6;
    let first = took[0];
    let mut again = took.split_off(1);
    again.sort_by(f64::total_cmp);
    let median = again[again.len() / 2];
    let begun = Instant::now();
    let copy = memory.clone();
    let fresh = begun.elapsed().as_secs_f64() * 1e3;
    let mut target = copy;
    let begun = Instant::now();
    target.copy_from_slice(&memory);
    let copied = begun.elapsed().as_secs_f64() * 1e3;
    println!(
        "{megabytes:.1} MB of state: {unprepared:.2} ms into fresh memory, first {first:.2} ms into touched ({:.2} ms per 10 MB), then \
         {median:.2} ms, {:.2} ms per 10 MB (a copy of as much: {fresh:.2} ms into fresh memory, {copied:.2} ms into used)",
        first / megabytes * 10.0,
        median / megabytes * 10.0
    );
    let mut fresh = Shard::new(stages());
    let begun = Instant::now();
    fresh.load(&memory).expect("what we saved ourselves");
    println!("loaded in {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
}
