//! Measures one shard alone over W1 beside the hand-written loops, by CPU time of its thread.

use tidegate_benches::engine_run::{dealt, log_of, shard_only};
use tidegate_benches::hand::{Job, hand_full};
use tidegate_benches::measure::{Contestant, interleave};
use tidegate_benches::w1::{REVERSED_LATENESS_NS, W1, generate, reverse_runs};

fn main() {
    let mut arguments = std::env::args().skip(1).take(2).map(|text| text.parse().expect("a whole number"));
    let work = W1 { events: arguments.next().unwrap_or(W1::default().events), ..W1::default() };
    let rounds = arguments.next().unwrap_or(5);
    let ordered = generate(work);
    let mut reversed = ordered.clone();
    reverse_runs(&mut reversed);
    let whole = |log: Vec<_>| dealt(&log, work.symbols, 1).remove(0);
    let (log, reversed_log) = (whole(log_of(&ordered, 0)), whole(log_of(&reversed, REVERSED_LATENESS_NS)));
    let (ordered, reversed, symbols) = (&ordered[..], &reversed[..], work.symbols);
    let (log, reversed_log) = (&log[..], &reversed_log[..]);
    let mut contestants = Vec::new();
    for job in [Job::A, Job::B] {
        let letter = job.letter();
        contestants.extend([
            Contestant::cpu_rate(format!("hand_full.{letter}"), work.events, move || {
                hand_full(job, ordered, symbols, 0)
            }),
            Contestant::cpu_rate(format!("shard.{letter}"), work.events, move || shard_only(job, log)),
            Contestant::cpu_rate(format!("hand_full.{letter}.reversed"), work.events, move || {
                hand_full(job, reversed, symbols, REVERSED_LATENESS_NS)
            }),
            Contestant::cpu_rate(format!("shard.{letter}.reversed"), work.events, move || {
                shard_only(job, reversed_log)
            }),
        ]);
    }
    for measurement in interleave(1, rounds, &mut contestants) {
        println!("{}", measurement.to_json());
    }
}
