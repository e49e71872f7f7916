//! Who attacked how, and what the detectors must say.

use crate::capture::{Recorded, alerts, ends, read, stretched};
use crate::net::{ATTACKERS, Lab, PEOPLE, obstacle};
use crate::roles::site;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

/// How much faster than recorded the clock is that slow attacks are judged by.
const TIMES: u64 = 200;

/// What is seen as it was recorded: kind, and the last number of the accused.
const FAST: [(&str, u8); 15] = [
    ("vertical-scan", 101),
    ("vertical-scan", 102),
    ("vertical-scan", 103),
    ("horizontal-scan", 104),
    ("horizontal-scan", 105),
    // The sources are made up: the victim is named.
    ("syn-flood", 20),
    ("syn-flood", 106),
    ("brute-force", 107),
    ("udp-flood", 108),
    ("icmp-flood", 109),
    ("brute-force", 110),
    ("brute-force", 111),
    ("dns-exfiltration", 112),
    ("dns-tunnel", 113),
    ("slow-dos", 114),
];

/// What is seen by the faster clock.
const SLOW: [(&str, u8); 6] = [
    ("data-exfiltration", 121),
    ("lateral-movement", 122),
    ("beacon", 123),
    ("failure-burst", 124),
    ("rare-edge", 125),
    ("vertical-scan", 126),
];

/// What may be said beside that: three thousand ports of one host asked within two seconds are a scan of them as well.
const ALSO: [(&str, u8); 1] = [("vertical-scan", 108)];

/// Kinds, and the last numbers of those accused of them.
type Truth<'a> = &'a [(&'a str, u8)];
type Told = BTreeSet<(String, IpAddr)>;

fn expected(truth: Truth<'_>) -> Told {
    truth.iter().map(|(kind, host)| ((*kind).to_owned(), IpAddr::V4(site(*host)))).collect()
}

fn told(packets: &[Recorded]) -> Told {
    let alerts = alerts(packets);
    for alert in &alerts {
        let features: Vec<_> = alert.reasons().map(|f| format!("{} {:.3}", f.name, f.seen)).collect();
        println!("  {} by {} ({}): {}", alert.kind.name(), alert.source, alert.method, features.join(", "));
    }
    alerts.iter().map(|alert| (alert.kind.name().to_owned(), alert.source.into())).collect()
}

/// Which part of the play an address belongs to: 0 for people and servers, 1 for attacks seen as recorded, 2 for slow ones.
fn part(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.octets()[..3] == [10, 77, 0] => match v4.octets()[3] {
            101..=119 => 1,
            120..=129 => 2,
            _ => 0,
        },
        // Made-up sources of the flood.
        IpAddr::V4(v4) if v4 >= Ipv4Addr::new(198, 18, 0, 0) && v4 <= Ipv4Addr::new(198, 19, 255, 255) => 1,
        _ => 0,
    }
}

/// What people do, and the attacks of one part.
fn only(packets: &[Recorded], which: u8) -> Vec<Recorded> {
    let of = |packet: &&Recorded| match ends(packet) {
        Some((a, b)) => [part(a), part(b)].iter().all(|&p| p == 0 || p == which),
        None => true,
    };
    packets.iter().filter(of).cloned().collect()
}

fn play() -> Result<Vec<Recorded>, String> {
    let mut lab = Lab::new()?;
    lab.record()?;
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut players = Vec::new();
    for (name, role) in [(PEOPLE, "people"), (ATTACKERS, "attackers")] {
        let mut command = lab.inside(name);
        command.arg(&me).args(["role", role]).arg(lab.folder());
        players.push((role, command.spawn().map_err(|error| format!("{role}: {error}"))?));
    }
    for (role, mut player) in players {
        let status = player.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("the {role} failed: {status}"));
        }
    }
    let bytes = lab.recorded()?;
    if let Ok(keep) = std::env::var("TIDEGATE_LAB_KEEP") {
        std::fs::write(&keep, &bytes).map_err(|error| format!("{keep}: {error}"))?;
    }
    read(&bytes)
}

/// Plays and compares; prints as the tests of other crates do.
pub(crate) fn judge() -> ExitCode {
    if let Some(why) = obstacle() {
        if std::env::var("TIDEGATE_LAB").is_ok_and(|value| value == "required") {
            println!("lab: {why}\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            return ExitCode::FAILURE;
        }
        println!("lab: SKIPPED: {why}\n\ntest result: ok. 0 passed; 0 failed; 1 ignored");
        return ExitCode::SUCCESS;
    }
    let recorded = match std::env::var("TIDEGATE_LAB_READ") {
        Ok(file) => std::fs::read(&file).map_err(|error| error.to_string()).and_then(|bytes| read(&bytes)),
        Err(_) => play(),
    };
    let packets = match recorded {
        Ok(packets) => packets,
        Err(why) => {
            println!("lab: {why}\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            return ExitCode::FAILURE;
        }
    };
    println!("lab: {} packets", packets.len());
    let ordinary = only(&packets, 0);
    let cases: [(&str, Vec<Recorded>, Truth<'_>); 4] = [
        ("ordinary traffic, as recorded", ordinary.clone(), &[]),
        ("ordinary traffic, over hours", stretched(&ordinary, TIMES), &[]),
        ("fast attacks beside it", only(&packets, 1), &FAST),
        ("slow attacks beside it", stretched(&only(&packets, 2), TIMES), &SLOW),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (name, packets, truth) in cases {
        println!("{name}: {} packets", packets.len());
        let (told, truth) = (told(&packets), expected(truth));
        truth.difference(&told).for_each(|(kind, host)| println!("  MISSED: {kind} by {host}"));
        let also = expected(&ALSO);
        let false_ones: Vec<_> = told.difference(&truth).filter(|said| !also.contains(said)).collect();
        false_ones.iter().for_each(|(kind, host)| println!("  FALSE: {kind} by {host}"));
        let good = truth.is_subset(&told) && false_ones.is_empty() && !packets.is_empty();
        *if good { &mut passed } else { &mut failed } += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
