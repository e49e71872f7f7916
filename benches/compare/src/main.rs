//! Rivals of the engine on work W1.
//!
//! * `tidegate-compare w1 FILE [events]` writes W1 as Parquet for the rivals outside Rust, and the answers they must
//!   find beside it, as `FILE.json`.
//! * `tidegate-compare timely [events] [rounds]` measures Timely dataflow.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the modules of the benches are shared, not all of them is used here")]

#[path = "../../src/hand.rs"]
pub mod hand;
#[path = "../../src/hops.rs"]
pub mod hops;
#[path = "../../src/indicators.rs"]
pub mod indicators;
#[path = "../../src/measure.rs"]
pub mod measure;
mod rival_timely;
#[path = "../../src/w1.rs"]
pub mod w1;
#[path = "../../src/w1_parquet.rs"]
pub mod w1_parquet;

use std::sync::Arc;

use hand::{Job, hand_loop};
use measure::{Contestant, interleave};
use w1::{W1, generate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse());
    match arguments.first().map(String::as_str) {
        Some("w1") if arguments.len() > 1 => {
            let work = W1 { events: number(2, W1::default().events)?, ..W1::default() };
            w1_parquet::write(arguments[1].as_ref(), work)
        }
        Some("timely") => {
            compare_timely(number(1, W1::default().events)?, number(2, 5)?);
            Ok(())
        }
        _ => Err("usage: tidegate-compare w1 FILE [events] | timely [events] [rounds]".into()),
    }
}

/// Timely with one and two workers beside the hand-written loop, in turns.
fn compare_timely(events: usize, rounds: usize) {
    let work = W1 { events, ..W1::default() };
    let trades = Arc::new(generate(work));
    let mut contestants = Vec::new();
    for job in [Job::A, Job::B] {
        let expected = hand_loop(job, &trades, work.symbols);
        let letter = job.letter();
        let here = Arc::clone(&trades);
        contestants.push(Contestant::rate(format!("hand_loop.{letter}"), events, move || {
            assert!(hand_loop(job, &here, work.symbols).agrees_with(&expected));
        }));
        for workers in [1, 2] {
            let here = Arc::clone(&trades);
            contestants.push(Contestant::rate(format!("timely.{letter}.w{workers}"), events, move || {
                let found = rival_timely::run(job, &here, work.symbols, workers);
                assert!(found.agrees_with(&expected), "{job:?}, {workers}: {found:?}, expected {expected:?}");
            }));
        }
    }
    for measurement in interleave(1, rounds, &mut contestants) {
        println!("{}", measurement.to_json());
    }
}
