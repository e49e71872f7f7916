//! What floods of made-up hosts cost, and that the flood itself is what is told.

use crate::net::ip;
use tidegate_flow::hash::hash_of;
use tidegate_flow::packet::{Fragment, tcp_flag};
use tidegate_flow::table::SECOND;
use tidegate_flow::{
    ConnState, Detectors, EndCause, Flow, FlowRecord, FlowTable, Ip, Kind, Packet, Side, TableOptions, Watch,
};

pub(crate) fn record(id: u64, start_ns: u64, from: Ip, to: Ip, port: u16, answered: bool) -> FlowRecord {
    FlowRecord {
        id,
        start_ns,
        last_ns: start_ns + 1_000,
        originator: from,
        originator_port: 1_024 + (id % 60_000) as u16,
        responder: to,
        responder_port: port,
        protocol: 6,
        state: if answered { ConnState::Sf } else { ConnState::S0 },
        history: if answered { "ShADadFf".into() } else { "S".into() },
        sent: Side { bytes: if answered { 400 } else { 0 }, packets: 3, ip_bytes: 500 },
        received: Side { bytes: if answered { 900 } else { 0 }, packets: 3, ip_bytes: 1_000 },
        packets: (id, id),
        vlan: 0,
        tunnels: 0,
        cause: EndCause::Logged,
        sampling: 1,
    }
}

/// An address that nobody else has; every second one IPv6.
fn made_up(n: u64) -> Ip {
    let hash = hash_of(&n);
    if n.is_multiple_of(2) {
        Ip::v4((0x3000_0000 | hash as u32 & 0x0fff_ffff).to_be_bytes())
    } else {
        Ip(0x2a << 120 | u128::from(hash))
    }
}

#[test]
fn millions_of_made_up_sources_are_one_flood_and_bounded() {
    let mut detectors = Detectors::default();
    let victim = ip("192.0.2.7");
    for n in 0..2_000_000u64 {
        detectors.logged(&record(n + 1, 1_000 * SECOND + n * 20_000, made_up(n), victim, 80, false));
    }
    let alerts = detectors.alerts();
    let told: Vec<_> = alerts.iter().map(|alert| (alert.kind, alert.source, alert.spoofed)).collect();
    assert_eq!(told, [(Kind::SynFlood, victim, true)]);
    assert!(detectors.forgotten() > 1_000_000, "{}", detectors.forgotten());
    assert!(detectors.bytes() <= Detectors::BYTES_MAX, "{}", detectors.bytes());
}

/// Every table filled with what makes its entries largest.
#[test]
fn no_input_holds_more_than_stated() {
    let mut detectors = Detectors::default();
    for n in 0..600_000u64 {
        let at = 1_000 * SECOND + n * 100_000;
        let (client, server) = (made_up(n / 30), made_up(1_000_000 + n % 30));
        // Failing on ever other ports of a few hosts, then calling the same service again.
        detectors.logged(&record(n + 1, at, client, server, n as u16, n.is_multiple_of(3)));
        detectors.logged(&record(n + 1, at, made_up(n / 2), ip("198.51.100.9"), 443, true));
    }
    assert!(detectors.forgotten() > 100_000, "{}", detectors.forgotten());
    assert!(detectors.bytes() <= Detectors::BYTES_MAX, "{}", detectors.bytes());
}

/// One who calls home is found although ten thousand others a second are seen once.
#[test]
fn who_comes_back_is_remembered_among_many_who_do_not() {
    let mut detectors = Detectors::default();
    let (implant, home) = (ip("10.0.0.5"), ip("203.0.113.77"));
    for n in 0..400_000u64 {
        let at = 1_000 * SECOND + n * 100_000;
        detectors.logged(&record(n + 1, at, made_up(n), ip("198.51.100.9"), 443, true));
        if n.is_multiple_of(20_000) {
            detectors.logged(&record(n + 1, at, implant, home, 8_443, true));
        }
    }
    let told: Vec<_> = detectors.alerts().iter().map(|alert| (alert.kind, alert.source)).collect();
    assert_eq!(told, [(Kind::Beacon, implant)]);
    assert!(detectors.forgotten() > 300_000);
}

/// The same although thirty thousand others call as regularly, and say something else each time.
#[test]
fn who_says_the_same_is_found_among_many_who_do_not() {
    let mut detectors = Detectors::default();
    let (implant, home) = (ip("10.0.0.5"), ip("203.0.113.77"));
    for minute in 0..14u64 {
        let at = (1_000 + minute * 60) * SECOND;
        for n in 0..30_000u64 {
            let mut call = record(n + 1, at + n * 1_000_000, made_up(n), ip("198.51.100.9"), 443, true);
            call.sent.bytes = 400 * (1 + minute);
            detectors.logged(&call);
        }
        detectors.logged(&record(minute + 1, at + 31 * SECOND, implant, home, 8_443, true));
    }
    let told: Vec<_> = detectors.alerts().iter().map(|alert| (alert.kind, alert.source)).collect();
    assert_eq!(told, [(Kind::Beacon, implant)]);
    assert_eq!(detectors.forgotten(), 0);
}

#[test]
fn a_table_full_of_made_up_flows_ends_the_silent_ones() {
    let options = TableOptions { flows_max: 10_000, ..TableOptions::default() };
    let mut table = FlowTable::new(options);
    let mut detectors = Detectors::default();
    let victim = ip("192.0.2.7");
    for n in 0..300_000u64 {
        let packet = Packet {
            number: n + 1,
            ts: 1_000 * SECOND + n * 10_000,
            source: made_up(n),
            target: victim,
            protocol: 6,
            source_port: 4_000,
            target_port: 443,
            tcp_flags: tcp_flag::SYN,
            sequence: 1,
            acknowledged: 0,
            window: 512,
            payload: &[],
            payload_bytes: 0,
            ip_bytes: 40,
            ttl: 60,
            fragment: Fragment::Whole,
            identification: 0,
            vlan: 0,
            tunnels: 0,
            source_mac: [2; 6],
        };
        table.packet(&packet, &mut detectors);
        assert!(table.len() <= 10_000);
    }
    assert_eq!(table.counts().evicted, table.counts().opened - 10_000);
    assert_eq!(detectors.alerts().len(), 1, "{:?}", detectors.alerts());
    assert!(detectors.alerts()[0].kind == Kind::SynFlood && detectors.alerts()[0].spoofed);
}

/// Everything that a table tells.
#[derive(Default, Debug, PartialEq)]
struct Told(Vec<(u64, u64, EndCause, u64, u64)>);

impl Watch for Told {
    fn record(&mut self, _: &mut Flow, record: &FlowRecord) {
        self.0.push((record.id, record.last_ns, record.cause, record.sent.packets, record.received.bytes));
    }
}

/// What is read ahead changes nothing: batches of packets tell what the same packets tell one by one, also fragments, pings, ports
/// that are used again, and flows that give way or end within a batch.
#[test]
fn batches_of_packets_tell_what_single_packets_tell() {
    let packets: Vec<Packet<'_>> = (0..60_000u64)
        .map(|n| {
            // A few that come again and again, and many more than fit.
            let who = n * 7_919 % if (n / 4_000).is_multiple_of(2) { 90 } else { 5_000 };
            let (client, server) = (made_up(who), ip("192.0.2.7"));
            let back = hash_of(&n).is_multiple_of(3);
            let (source, target) = if back { (server, client) } else { (client, server) };
            let port = 4_000 + (who % 7) as u16;
            let (source_port, target_port) = if back { (443, port) } else { (port, 443) };
            let kind = n % 40;
            let is_ping = kind == 5;
            Packet {
                number: n + 1,
                ts: 1_000 * SECOND + n * 2_000_000,
                source,
                target,
                protocol: if is_ping { 1 } else { [6, 6, 6, 17][(kind % 4) as usize] },
                source_port: if is_ping { 8 } else { source_port },
                target_port: if is_ping { 0 } else { target_port },
                tcp_flags: [tcp_flag::SYN, tcp_flag::ACK, tcp_flag::ACK, tcp_flag::RST]
                    [(hash_of(&(n / 3)) % 4) as usize],
                sequence: n as u32,
                acknowledged: 1,
                window: 512,
                payload: &[],
                payload_bytes: (n % 9) as u32 * 10,
                ip_bytes: 40 + (n % 9) as u32 * 10,
                ttl: 60,
                fragment: match kind {
                    6 => Fragment::First,
                    7 => Fragment::Later,
                    _ => Fragment::Whole,
                },
                identification: (n / 40) as u32,
                vlan: 0,
                tunnels: 0,
                source_mac: [2; 6],
            }
        })
        .collect();
    let options = TableOptions { flows_max: 600, ..TableOptions::default() };
    let (mut single, mut batched) = (FlowTable::new(options), FlowTable::new(options));
    let (mut of_single, mut of_batched) = (Told::default(), Told::default());
    packets.iter().for_each(|packet| single.packet(packet, &mut of_single));
    packets.chunks(1_000).for_each(|some| batched.packets(some, &mut of_batched));
    single.finish(&mut of_single);
    batched.finish(&mut of_batched);
    let causes: std::collections::HashSet<_> = of_single.0.iter().map(|told| told.2).collect();
    assert!(causes.len() >= 4 && single.counts().orphan_fragments > 100, "{causes:?} {:?}", single.counts());
    assert_eq!(single.counts(), batched.counts());
    assert_eq!(of_single, of_batched);
}

/// What is read ahead changes nothing: batches of records say what the same records say one by one, also while entries give way.
#[test]
fn batches_say_what_single_records_say() {
    let mut records = Vec::new();
    for n in 0..150_000u64 {
        let at = 1_000 * SECOND + n * 40_000_000;
        let (office, server) = (made_up(n * 7_919 % 300), made_up(1_000_000 + n * 104_729 % 40_000));
        let mut next = match n % 50 {
            0 => record(n + 1, at, ip("10.0.0.66"), ip("192.0.2.7"), n as u16 / 50, false),
            1 => record(n + 1, at, ip("10.0.0.67"), made_up(2_000_000 + n), 445, false),
            2 => record(n + 1, at, ip("10.0.0.5"), ip("203.0.113.77"), 8_443, true),
            3 => record(n + 1, at, ip("10.0.0.68"), ip("192.0.2.8"), 80, false),
            _ => record(n + 1, at, office, server, 443, !n.is_multiple_of(9)),
        };
        // Some go out in masses at last.
        next.sent.bytes += if n > 149_000 && n % 50 == 2 { 30_000_000 } else { n % 700 };
        records.push(next);
    }
    let (mut single, mut batched) = (Detectors::default(), Detectors::default());
    records.iter().for_each(|record| single.logged(record));
    records.chunks(1_000).for_each(|some| batched.logged_all(some));
    let kinds: std::collections::BTreeSet<_> =
        single.alerts().iter().map(|alert| alert.kind.name()).collect();
    assert!(kinds.len() >= 3, "{kinds:?}");
    assert!(single.forgotten() > 10_000, "{}", single.forgotten());
    assert_eq!(single.alerts(), batched.alerts());
    assert_eq!((single.forgotten(), single.bytes()), (batched.forgotten(), batched.bytes()));
}

/// What the documentation says an ordinary host costs (1,152 bytes at most): all that is kept of one that asks four services, of which one does not answer.
#[test]
fn a_host_costs_what_is_stated() {
    const HOSTS: u64 = 60_000;
    let mut detectors = Detectors::default();
    for n in 0..HOSTS * 4 {
        let (host, service) = (n / 4, n % 4);
        let server = made_up(1_000_000 + host % 5_000 * 4 + service);
        detectors.logged(&record(
            n + 1,
            1_000 * SECOND + n * 1_000_000,
            made_up(host),
            server,
            443,
            service > 0,
        ));
    }
    assert!(detectors.alerts().is_empty(), "{:?}", detectors.alerts());
    let each = detectors.bytes() as u64 / HOSTS;
    assert!((256..=1_152).contains(&each), "{each} bytes");
}
