//! The flow table on made-up packets: states, time-outs, interim records, eviction.

use crate::net::{ACK, FIN, Net, PSH, RST, Records, SYN, host, ip};
use tidegate_flow::packet::Fragment;
use tidegate_flow::table::SECOND;
use tidegate_flow::{Detectors, EndCause, FlowRecord, FlowTable, Frame, Ip, Kind, TableOptions, parse};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";

fn records(net: Net) -> Vec<FlowRecord> {
    net.records(TableOptions::default()).0
}

fn only(net: Net) -> FlowRecord {
    let records = records(net);
    assert_eq!(records.len(), 1, "{records:?}");
    records[0]
}

#[test]
fn every_state_and_its_history() {
    let (c, s) = ((ip(A), 1_000), (ip(B), 80));
    let check = |packets: &[(bool, u8, u32, u32, &[u8])], state: &str, history: &str, bytes: (u64, u64)| {
        let mut net = Net::new();
        for (at, (out, flags, seq, ack, payload)) in packets.iter().enumerate() {
            let (from, to) = if *out { (c, s) } else { (s, c) };
            net.tcp(at as f64 * 0.01, from, to, *flags, *seq, *ack, payload);
        }
        let record = only(net);
        let found =
            (record.state.name(), record.history.as_str(), (record.sent.bytes, record.received.bytes));
        assert_eq!(found, (state, history, bytes));
        assert_eq!(record.originator, ip(A));
    };
    let syn: (bool, u8, u32, u32, &[u8]) = (true, SYN, 1, 0, b"");
    let syn_ack: (bool, u8, u32, u32, &[u8]) = (false, SYN | ACK, 100, 2, b"");
    let ack: (bool, u8, u32, u32, &[u8]) = (true, ACK, 2, 101, b"");
    let asks: (bool, u8, u32, u32, &[u8]) = (true, ACK | PSH, 2, 101, b"question");
    let says: (bool, u8, u32, u32, &[u8]) = (false, ACK | PSH, 101, 10, b"answer");
    let fin: (bool, u8, u32, u32, &[u8]) = (true, FIN | ACK, 10, 107, b"");
    let fin_back: (bool, u8, u32, u32, &[u8]) = (false, FIN | ACK, 107, 11, b"");
    let last: (bool, u8, u32, u32, &[u8]) = (true, ACK, 11, 108, b"");
    check(&[syn], "S0", "S", (0, 0));
    check(&[syn, (false, RST | ACK, 0, 2, b"")], "REJ", "Sr", (0, 0));
    check(&[syn, syn_ack], "S1", "Sh", (0, 0));
    check(&[syn, syn_ack, (true, RST, 2, 0, b"")], "RSTO", "ShR", (0, 0));
    check(&[syn, (true, RST, 2, 0, b"")], "RSTOS0", "SR", (0, 0));
    check(&[syn, (true, FIN, 2, 0, b"")], "SH", "SF", (0, 0));
    check(&[syn_ack, (false, RST, 101, 0, b"")], "RSTRH", "^hr", (0, 0));
    check(&[syn_ack, (false, FIN | ACK, 101, 2, b"")], "SHR", "^hf", (0, 0));
    check(&[syn, syn_ack, ack, asks, says], "S1", "ShADd", (8, 6));
    check(&[syn, syn_ack, ack, asks, says, fin], "S2", "ShADdF", (8, 6));
    check(&[syn, syn_ack, ack, asks, says, (false, FIN | ACK, 107, 10, b"")], "S3", "ShADdf", (8, 6));
    check(&[syn, syn_ack, ack, asks, says, fin, fin_back, last], "SF", "ShADdFf", (8, 6));
    check(&[syn, syn_ack, ack, asks, says, (false, RST, 107, 0, b"")], "RSTR", "ShADdr", (8, 6));
    check(&[asks, says], "OTH", "Dd", (8, 6));
    // The same data again, and a packet that the capture missed but the other side acknowledged.
    check(&[syn, syn_ack, ack, asks, asks, says], "S1", "ShADTd", (8, 6));
    check(&[syn, syn_ack, ack, (false, ACK, 101, 2_002, b"")], "S1", "ShAa", (2_000, 0));
}

#[test]
fn silence_ends_flows_by_their_kind() {
    let mut net = Net::new();
    net.udp(0.0, (ip(A), 5), (ip(B), 6), b"x");
    net.udp(50.0, (ip(B), 6), (ip(A), 5), b"yy");
    net.udp(150.0, (ip(A), 5), (ip(B), 6), b"zzz");
    net.syn(0.0, (ip(A), 7), (ip(B), 8));
    net.syn(3.0, (ip(A), 7), (ip(B), 8));
    net.syn(9.0, (ip(A), 7), (ip(B), 8));
    let mut all = records(net);
    all.sort_by_key(|record| record.id);
    let told: Vec<_> = all
        .iter()
        .map(|r| {
            (
                r.protocol_name(),
                r.state.name(),
                r.sent.packets,
                r.received.packets,
                r.cause.name(),
                r.duration_ns(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("udp", "SF", 1, 1, "timeout", Some(50 * SECOND)),
            ("tcp", "S0", 2, 0, "timeout", Some(3 * SECOND)),
            ("tcp", "S0", 1, 0, "timeout", None),
            ("udp", "S0", 1, 0, "input_end", None),
        ]
    );
}

#[test]
fn ports_used_again_are_another_connection() {
    let mut net = Net::new();
    let (c, s) = ((ip(A), 1_000), (ip(B), 80));
    for n in 0..3 {
        net.talk(f64::from(n), c, s, 0.01, &[(true, b"a"), (false, b"b")]);
    }
    let records = records(net);
    assert_eq!(records.len(), 1, "the same numbers are retransmissions: {records:?}");
    let mut net = Net::new();
    net.talk(0.0, c, s, 0.01, &[(true, b"a"), (false, b"b")]);
    net.tcp(1.0, c, s, SYN, 5_000, 0, b"");
    net.refused(20.0, c, s);
    net.refused(20.5, c, s);
    let all = net.records(TableOptions::default()).0;
    let told: Vec<_> = all.iter().map(|r| (r.state.name(), r.cause)).collect();
    assert_eq!(
        told,
        [
            ("SF", EndCause::Reused),
            ("S0", EndCause::Timeout),
            ("REJ", EndCause::Reused),
            ("REJ", EndCause::Finished)
        ]
    );
}

#[test]
fn long_flows_tell_how_they_go() {
    let mut net = Net::new();
    for n in 0..60 {
        net.udp(f64::from(n) * 10.0, (ip(A), 5), (ip(B), 6), &[0; 100]);
    }
    let options = TableOptions { interim_ns: 120 * SECOND, ..TableOptions::default() };
    let all = net.records(options).0;
    let told: Vec<_> = all.iter().map(|r| (r.id, r.cause.name(), r.sent.bytes)).collect();
    assert_eq!(
        told,
        [
            (1, "interim", 1_200),
            (1, "interim", 2_400),
            (1, "interim", 3_600),
            (1, "interim", 4_800),
            (1, "input_end", 6_000)
        ]
    );
}

#[test]
fn a_full_table_evicts_and_counts() {
    let mut net = Net::new();
    for n in 0..1_000 {
        net.udp(f64::from(n) * 0.001, (host("10.1.0.0", n), 5), (ip(B), 6), b"x");
    }
    let (records, table) = net.records(TableOptions { flows_max: 64, ..TableOptions::default() });
    assert_eq!((records.len(), table.counts().opened, table.counts().evicted), (1_000, 1_000, 936));
    assert!(records[..936].iter().all(|record| record.cause == EndCause::Evicted));
    assert!(records[..936].windows(2).all(|pair| pair[0].id < pair[1].id), "the longest silent go first");
}

#[test]
fn a_clock_that_steps_back_changes_nothing_but_a_count() {
    let mut net = Net::new();
    net.udp(10.0, (ip(A), 5), (ip(B), 6), b"x");
    let mut late = Net::new();
    late.udp(3.0, (ip(B), 6), (ip(A), 5), b"y");
    // Played in the order given here, not by time.
    net.sent.push(late.sent.remove(0));
    let (records, table) = net.records_unsorted(TableOptions::default());
    assert_eq!((records.len(), table.counts().disordered), (1, 1));
    assert_eq!((records[0].state.name(), records[0].duration_ns()), ("SF", Some(0)));
}

/// A packet stamped years ahead must not end what goes on; a link silent for a day is no leap once a second packet says so.
#[test]
fn one_wild_stamp_moves_nothing() {
    let mut net = Net::new();
    for at in [1.0, 2.0, 4e8, 3.0, 4.0, 90_000.0, 90_001.0, 90_002.0] {
        net.udp(at, (ip(A), 5), (ip(B), 6), b"x");
    }
    let (records, table) = net.records_unsorted(TableOptions::default());
    let told: Vec<_> = records.iter().map(|r| (r.sent.packets, r.duration_ns(), r.cause)).collect();
    let expected = [
        // With the first packet after the silence, which nothing confirmed yet.
        (6, Some(3 * SECOND), EndCause::Timeout),
        (2, Some(SECOND), EndCause::InputEnd),
    ];
    assert_eq!(told, expected);
    assert_eq!((table.counts().unbelieved, table.counts().steps), (2, 0));
}

/// A clock set back by hours: after a few packets it is believed, and flows end by the new time.
#[test]
fn a_clock_set_back_ends_flows_once() {
    let mut net = Net::new();
    net.udp(10_000.0, (ip(A), 5), (ip(B), 6), b"x");
    for n in 0..20 {
        net.udp(100.0 + f64::from(n), (ip(A), 5), (ip(B), 6), b"x");
    }
    net.udp(500.0, (ip(A), 5), (ip(B), 6), b"x");
    let (records, table) = net.records_unsorted(TableOptions::default());
    let told: Vec<_> = records.iter().map(|r| (r.sent.packets, r.duration_ns(), r.cause)).collect();
    let expected = [
        (16, Some(0), EndCause::InputEnd),
        (5, Some(4 * SECOND), EndCause::Timeout),
        (1, None, EndCause::InputEnd),
    ];
    assert_eq!(told, expected);
    assert_eq!((table.counts().disordered, table.counts().steps), (15, 1));
}

/// Floods are found after the clock was set back as before it: windows that would end in the future are given up.
#[test]
fn detectors_go_on_after_a_step() {
    let mut net = Net::new();
    for n in 0..200 {
        net.syn(90_000.0 + f64::from(n) * 0.01, (host("10.9.0.0", n % 4), 1_000 + n as u16), (ip(A), 80));
    }
    // An hour and more before, at a rate that is none: 200 in 2,000 s, where a window that never ends would count them all.
    for n in 0..200 {
        net.syn(100.0 + f64::from(n) * 10.0, (host("10.9.1.0", n % 4), 1_000 + n as u16), (ip(A), 80));
    }
    let mut detectors = Detectors::default();
    net.feed_alerts(&mut detectors);
    let told: Vec<_> = detectors.alerts().iter().map(|alert| (alert.kind, alert.count)).collect();
    assert_eq!(told, [(Kind::SynFlood, 1)]);
}

/// An IPv4 packet of a datagram's part: where it begins in units of 8 bytes, and whether more come.
fn part(from: Ip, id: u16, protocol: u8, place: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((payload.len() as u16 + 20).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend((place | if more { 0x2000 } else { 0 }).to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from.as_v4().unwrap().to_be_bytes());
    bytes.extend(ip(B).as_v4().unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn later_fragments_go_to_the_flow_of_their_first() {
    /// Raw IP.
    const LINK: u32 = 101;
    // Ports 1000 and 2000, 40 bytes in all.
    let first = [&[3, 232, 7, 208, 0, 48, 0, 0][..], &[1; 16]].concat();
    let (c, other) = (ip(A), ip("10.0.0.3"));
    let packets = [
        part(c, 7, 17, 0, true, &first),
        // Of another host with the same number: nothing is known of it.
        part(other, 7, 17, 3, false, &[9; 8]),
        part(c, 7, 17, 3, true, &[2; 16]),
        // Another number, before its first part came.
        part(c, 8, 17, 3, false, &[4; 16]),
        part(c, 7, 17, 5, false, &[3; 8]),
    ];
    let (mut table, mut all) = (FlowTable::new(TableOptions::default()), Records::default());
    for (at, bytes) in packets.iter().enumerate() {
        let Ok(Frame::Ip(packet)) = parse(at as u64 + 1, at as u64 * SECOND, LINK, bytes) else {
            panic!("packet {at} is one")
        };
        let kind = if at == 0 { Fragment::First } else { Fragment::Later };
        assert_eq!(packet.fragment, kind, "{at}");
        table.packet(&packet, &mut all);
    }
    table.finish(&mut all);
    let mut told: Vec<_> = all
        .0
        .iter()
        .map(|r| (r.originator, r.originator_port, r.responder_port, r.sent.packets, r.sent.ip_bytes))
        .collect();
    told.sort();
    assert_eq!(told, [(c, 0, 0, 1, 36), (c, 1_000, 2_000, 3, 108), (other, 0, 0, 1, 28)]);
    assert_eq!(table.counts().orphan_fragments, 2);
}

#[test]
fn pings_end_after_a_minute_of_silence() {
    let mut net = Net::new();
    net.ping(0.0, ip(A), ip(B), 1, true);
    net.ping(50.0, ip(A), ip(B), 2, true);
    // Later than a minute after the last: another flow.
    net.ping(150.0, ip(A), ip(B), 3, false);
    let mut all = records(net);
    all.sort_by_key(|record| record.id);
    let told: Vec<_> = all
        .iter()
        .map(|r| (r.protocol_name(), r.originator_port, r.sent.packets, r.received.packets, r.cause.name()))
        .collect();
    assert_eq!(told, [("icmp", 8, 2, 2, "timeout"), ("icmp", 8, 1, 0, "input_end")]);
    assert_eq!(all[0].duration_ns(), Some(50 * SECOND + SECOND / 100));
}
