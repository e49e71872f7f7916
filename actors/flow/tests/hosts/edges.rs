//! Services unlike a host's habits, in records of a log.

use crate::bounded::record;
use crate::net::{host, ip};
use tidegate_flow::table::SECOND;
use tidegate_flow::{Detectors, Kind};

const START: u64 = 100_000 * SECOND;

/// Two hours of a controller that reads two services a minute (behind changing intervals), and of ten workstations that browse.
fn office(detectors: &mut Detectors, id: &mut u64) {
    let controller = ip("10.0.0.9");
    for minute in 0..120u64 {
        let at = |seconds: u64| START + minute * 60 * SECOND + seconds * SECOND;
        let mut tell = |at, from, to, port| {
            *id += 1;
            detectors.logged(&record(*id, at, from, to, port, true));
        };
        tell(at(minute * 7 % 31), controller, ip("10.0.0.20"), 502);
        tell(at(20 + minute * 11 % 29), controller, ip("10.0.0.21"), 502);
        for n in 0..10u64 {
            let site = host("198.51.100.0", (minute * 13 + n * 7) as u32 % 200);
            tell(at(n), host("10.0.1.0", n as u32), site, 443);
        }
    }
}

#[test]
fn a_service_that_nobody_uses_is_told() {
    let (mut detectors, mut id) = (Detectors::default(), 0);
    office(&mut detectors, &mut id);
    let now = START + 7_300 * SECOND;
    detectors.logged(&record(id + 1, now, ip("10.0.0.9"), ip("10.0.1.3"), 4_444, true));
    let told: Vec<_> =
        detectors.alerts().iter().map(|alert| (alert.kind, alert.source, alert.port)).collect();
    assert_eq!(told, [(Kind::RareEdge, ip("10.0.0.9"), Some(4_444))]);
}

#[test]
fn what_others_use_what_is_unsettled_and_what_fails_is_not() {
    let (mut detectors, mut id) = (Detectors::default(), 0);
    office(&mut detectors, &mut id);
    let now = START + 7_300 * SECOND;
    // A port that others use; a workstation, which is never settled; a service that did not answer.
    detectors.logged(&record(id + 1, now, ip("10.0.0.9"), ip("203.0.113.4"), 443, true));
    detectors.logged(&record(id + 2, now, host("10.0.1.0", 4), ip("203.0.113.4"), 4_444, true));
    detectors.logged(&record(id + 3, now + 3_600 * SECOND, ip("10.0.0.9"), ip("203.0.113.4"), 4_445, false));
    assert!(detectors.alerts().is_empty(), "{:?}", detectors.alerts());
}
