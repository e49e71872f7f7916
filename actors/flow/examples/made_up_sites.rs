//! What detectors say of made-up sites that nobody attacks: alerts for each host and day, by kind.
//!
//! `cargo run --release -p tidegate-flow --example made_up_sites [-- SITES [PEOPLE [HOURS [CLOCKWORK]]]]`: on each `CLOCKWORK`th machine a program says the
//! same outside at regular times, 0 for on none.

#[allow(dead_code, reason = "the network of the tests, of which sites need a part")]
#[path = "../tests/hosts/net.rs"]
mod net;
#[path = "../tests/hosts/site.rs"]
mod site;

use std::collections::BTreeMap;

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let defaults = [20.0, 300.0, 4.0, 0.0];
    let mut numbers = defaults;
    for (at, word) in words.iter().enumerate() {
        match (numbers.get_mut(at), word.parse::<f64>()) {
            (Some(place), Ok(number)) if (0.0..=100_000.0).contains(&number) => *place = number,
            _ => {
                eprintln!(
                    "{word}: SITES, PEOPLE, HOURS and CLOCKWORK are numbers from 0 to 100000, by default {defaults:?}"
                );
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    let [sites, people, hours, clockwork] = numbers;
    let (mut packets, mut days, mut kinds) = (0, 0.0, BTreeMap::<_, (u32, f64)>::new());
    for seed in 1..=sites as u64 {
        let (people, clockwork_each) = (people as u32, clockwork as u32);
        let played = site::Site { seed, people, hours, clockwork_each }.play();
        packets += played.packets;
        days += played.hosts as f64 * hours / 24.0;
        for alert in &played.alerts {
            let (count, highest) = kinds.entry(alert.kind.name()).or_default();
            (*count, *highest) = (*count + 1, highest.max(alert.probability));
            println!(
                "site {seed}: {} by {} ({}, {:.2}) after {:.0} s",
                alert.kind.name(),
                alert.source,
                alert.method,
                alert.probability,
                alert.raised_ns as f64 / 1e9 - 1_700_000_000.0
            );
        }
    }
    let all: u32 = kinds.values().map(|(count, _)| count).sum();
    println!(
        "{sites} sites of {people} people, {hours} hours: {packets} packets, {days:.0} days of hosts, {all} alerts, {:.5} a host and day",
        f64::from(all) / days
    );
    for (kind, (count, highest)) in kinds {
        println!("  {kind}: {count}, probability {highest:.2} at most");
    }
    std::process::ExitCode::SUCCESS
}
