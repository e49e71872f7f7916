//! Measures the engine over W1 beside the hand-written loops, in turns.
//!
//! `engine [events] [rounds]`, by default 20,000,000 and 5.

use tidegate_benches::engine_run::engine;
use tidegate_benches::hand::{Job, hand_full, hand_loop};
use tidegate_benches::measure::{Contestant, interleave};
use tidegate_benches::w1::{REVERSED_LATENESS_NS, W1, generate, reverse_runs};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a whole number"));
    let work = W1 { events: arguments.next().unwrap_or(W1::default().events), ..W1::default() };
    let rounds = arguments.next().unwrap_or(5);
    let ordered = generate(work);
    let mut reversed = ordered.clone();
    reverse_runs(&mut reversed);
    let (ordered, reversed, symbols) = (&ordered[..], &reversed[..], work.symbols);
    let mut contestants = Vec::new();
    for job in [Job::A, Job::B] {
        let letter = job.letter();
        contestants.extend([
            Contestant::rate(format!("hand_loop.{letter}"), work.events, move || {
                hand_loop(job, ordered, symbols)
            }),
            Contestant::rate(format!("hand_full.{letter}"), work.events, move || {
                hand_full(job, ordered, symbols, 0)
            }),
            Contestant::rate(format!("engine.{letter}"), work.events, move || {
                engine(job, ordered, symbols, 0, 1)
            }),
            Contestant::rate(format!("hand_full.{letter}.reversed"), work.events, move || {
                hand_full(job, reversed, symbols, REVERSED_LATENESS_NS)
            }),
            Contestant::rate(format!("engine.{letter}.reversed"), work.events, move || {
                engine(job, reversed, symbols, REVERSED_LATENESS_NS, 1)
            }),
        ]);
    }
    for measurement in interleave(1, rounds, &mut contestants) {
        println!("{}", measurement.to_json());
    }
}
