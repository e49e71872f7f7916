//! Whole sites that nobody attacks: nothing may be said of them, whatever habits are drawn, but what the documentation says is to be expected.

use crate::site::{BACKUP, Played, Site};
use std::collections::BTreeSet;
use tidegate_flow::Kind;

/// Who is accused of what. But for the first copy of everything that goes to another place: of a host that nobody knows yet it is no less than an
/// upload that nobody else makes. Once.
fn told(played: &Played) -> BTreeSet<(&'static str, String)> {
    let copies = |alert: &&tidegate_flow::Alert| {
        alert.kind == Kind::DataExfiltration && alert.source == crate::net::ip(BACKUP)
    };
    assert!(played.alerts.iter().filter(copies).count() <= 1, "{:?}", played.alerts);
    played
        .alerts
        .iter()
        .filter(|alert| !copies(alert))
        .map(|alert| (alert.kind.name(), alert.source.to_string()))
        .collect()
}

#[test]
fn sites_of_people_and_servers_are_quiet() {
    for seed in 1..=3 {
        let played = Site { seed, people: 120, hours: 1.5, clockwork_each: 0 }.play();
        assert_eq!(told(&played), BTreeSet::new(), "seed {seed}");
        assert!(played.packets > 200_000, "{}", played.packets);
    }
}

/// What the same site is told of where programs keep time: each of them, and nobody else.
#[test]
fn programs_that_keep_time_are_beacons() {
    let played = Site { seed: 4, people: 60, hours: 3.2, clockwork_each: 20 }.play();
    let expected = ["10.20.16.0", "10.20.16.20", "10.20.16.40"].map(|host| ("beacon", host.to_owned()));
    assert_eq!(told(&played), expected.into());
    assert_eq!(played.hosts, 72);
}
