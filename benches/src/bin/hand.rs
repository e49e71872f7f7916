//! Measures the hand-written loops over W1 in turns and prints one line of JSON each: those of one thread by time on
//! a core, those of two by wall time.
//!
//! `hand [events] [rounds]`, by default 20,000,000 and 7.

use std::time::Duration;

use tidegate_benches::hand::{Job, hand_full, hand_loop, hand_ring};
use tidegate_benches::hops::{ring_hop, spin_jitter};
use tidegate_benches::measure::{Contestant, interleave};
use tidegate_benches::w1::{REVERSED_LATENESS_NS, W1, generate, reverse_runs};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a whole number"));
    let work = W1 { events: arguments.next().unwrap_or(W1::default().events), ..W1::default() };
    let rounds = arguments.next().unwrap_or(7);
    let ordered = generate(work);
    let mut reversed = ordered.clone();
    reverse_runs(&mut reversed);
    let (ordered, reversed, symbols) = (&ordered[..], &reversed[..], work.symbols);
    let mut contestants = Vec::new();
    for job in [Job::A, Job::B] {
        let expected = hand_loop(job, ordered, symbols);
        let check = move |found: tidegate_benches::hand::Summary| {
            assert!(found.agrees_with(&expected), "{job:?}: {found:?}, expected {expected:?}");
        };
        let letter = job.letter();
        contestants.extend([
            Contestant::cpu_rate(format!("hand_loop.{letter}"), work.events, move || {
                check(hand_loop(job, ordered, symbols));
            }),
            Contestant::rate(format!("hand_ring.{letter}"), work.events, move || {
                check(hand_ring(job, ordered, symbols));
            }),
            Contestant::cpu_rate(format!("hand_full.{letter}"), work.events, move || {
                check(hand_full(job, ordered, symbols, 0));
            }),
            Contestant::cpu_rate(format!("hand_full.{letter}.reversed"), work.events, move || {
                check(hand_full(job, reversed, symbols, REVERSED_LATENESS_NS));
            }),
        ]);
    }
    contestants.extend([
        Contestant::new("ring_hop.one_way", "ns", || ring_hop(200_000, 1, 1).one_way_ns),
        Contestant::new("ring_hop.chunk64", "events/s", || ring_hop(1, 20_000_000, 64).chunked_per_s),
        Contestant::new("spin_jitter.lost", "share", || {
            spin_jitter(Duration::from_millis(300), Duration::from_micros(10)).lost
        }),
    ]);
    for measurement in interleave(1, rounds, &mut contestants) {
        println!("{}", measurement.to_json());
    }
}
