//! Flow records of public captures against what Zeek wrote about the same packets.
//!
//! The reference rows are facts from Zeek's own test baselines (zeek/zeek, testing/btest/Baseline,
//! scripts.base.frameworks.logging.sqlite.wikipedia; BSD-3-Clause). The captures are not part of the repository; see
//! `real_captures.rs`.

mod common;

use common::folder;
use std::path::Path;
use tidegate_flow::{ConnState, Flow, FlowRecord, FlowTable, Frame, TableOptions, Watch};
use tidegate_replay::decode::{ReadOptions, Traffic, TrafficReader};

#[derive(Default)]
struct Records(Vec<FlowRecord>);

impl Watch for Records {
    fn record(&mut self, _flow: &mut Flow, record: &FlowRecord) {
        self.0.push(*record);
    }
}

fn records(path: &Path) -> Vec<FlowRecord> {
    let mut reader = TrafficReader::open(path, &ReadOptions::default()).unwrap();
    let mut table = FlowTable::new(TableOptions::default());
    let mut records = Records::default();
    let take = |traffic: Traffic<'_>, table: &mut FlowTable, records: &mut Records| {
        if let Traffic::Frame(Frame::Ip(packet)) = traffic {
            table.packet(&packet, records);
        }
    };
    while reader.read(1_000, |traffic| take(traffic, &mut table, &mut records)).unwrap() {}
    table.finish(&mut records);
    assert!(table.is_empty() && table.counts().evicted == 0);
    assert_eq!(table.counts().opened as usize, records.0.len());
    records.0.sort_by_key(|record| record.id);
    records.0
}

/// ts, originator, port, responder, port, protocol, duration, bytes out, bytes in, state, history, packets out, IP bytes out, packets
/// in, IP bytes in; `-` where Zeek leaves a field unset.
const WIKIPEDIA: &str = "\
1300475167.09653 141.142.220.202 5353 224.0.0.251 5353 udp - - - S0 D 1 73 0 0
1300475167.09701 fe80::217:f2ff:fed7:cf65 5353 ff02::fb 5353 udp - - - S0 D 1 199 0 0
1300475167.09982 141.142.220.50 5353 224.0.0.251 5353 udp - - - S0 D 1 179 0 0
1300475168.652 141.142.220.118 35634 208.80.152.2 80 tcp 0.061329 463 350 OTH DdA 2 567 1 402
1300475168.72401 141.142.220.118 48649 208.80.152.118 80 tcp 0.119905 525 232 S1 ShADad 4 741 3 396
1300475168.8539 141.142.220.118 43927 141.142.2.2 53 udp 0.000435 38 89 SF Dd 1 66 1 117
1300475168.85438 141.142.220.118 37676 141.142.2.2 53 udp 0.000420 52 99 SF Dd 1 80 1 127
1300475168.85484 141.142.220.118 40526 141.142.2.2 53 udp 0.000392 38 183 SF Dd 1 66 1 211
1300475168.8553 141.142.220.118 49996 208.80.152.3 80 tcp 0.218501 1171 733 S1 ShADad 6 1491 4 949
1300475168.85533 141.142.220.118 49997 208.80.152.3 80 tcp 0.219720 1125 734 S1 ShADad 6 1445 4 950
1300475168.85796 141.142.220.118 32902 141.142.2.2 53 udp 0.000317 38 89 SF Dd 1 66 1 117
1300475168.85831 141.142.220.118 59816 141.142.2.2 53 udp 0.000343 52 99 SF Dd 1 80 1 127
1300475168.85871 141.142.220.118 59714 141.142.2.2 53 udp 0.000375 38 183 SF Dd 1 66 1 211
1300475168.85916 141.142.220.118 49998 208.80.152.3 80 tcp 0.215893 1130 734 S1 ShADad 6 1450 4 950
1300475168.89164 141.142.220.118 58206 141.142.2.2 53 udp 0.000339 38 89 SF Dd 1 66 1 117
1300475168.89204 141.142.220.118 38911 141.142.2.2 53 udp 0.000335 52 99 SF Dd 1 80 1 127
1300475168.89241 141.142.220.118 59746 141.142.2.2 53 udp 0.000421 38 183 SF Dd 1 66 1 211
1300475168.89291 141.142.220.118 49999 208.80.152.3 80 tcp 0.220961 1137 733 S1 ShADad 6 1457 4 949
1300475168.89294 141.142.220.118 50000 208.80.152.3 80 tcp 0.229603 1148 734 S1 ShADad 6 1468 4 950
1300475168.89399 141.142.220.118 45000 141.142.2.2 53 udp 0.000384 38 89 SF Dd 1 66 1 117
1300475168.89442 141.142.220.118 48479 141.142.2.2 53 udp 0.000317 52 99 SF Dd 1 80 1 127
1300475168.89479 141.142.220.118 48128 141.142.2.2 53 udp 0.000423 38 183 SF Dd 1 66 1 211
1300475168.89527 141.142.220.118 50001 208.80.152.3 80 tcp 0.227284 1178 734 S1 ShADad 6 1498 4 950
1300475168.90175 141.142.220.118 56056 141.142.2.2 53 udp 0.000402 36 131 SF Dd 1 64 1 159
1300475168.90219 141.142.220.118 55092 141.142.2.2 53 udp 0.000374 36 198 SF Dd 1 64 1 226
1300475168.90264 141.142.220.118 35642 208.80.152.2 80 tcp 0.120041 534 412 S1 ShADad 4 750 3 576
1300475169.78033 141.142.220.235 6705 173.192.163.128 80 tcp - - - OTH ^h 0 0 1 48
1300475169.89944 141.142.220.44 5353 224.0.0.251 5353 udp - - - S0 D 1 85 0 0
1300475170.86238 141.142.220.226 137 141.142.220.255 137 udp 2.613017 350 0 S0 D 7 546 0 0
1300475171.67537 fe80::3074:17d5:2052:c324 65373 ff02::1:3 5355 udp 0.100096 66 0 S0 D 2 162 0 0
1300475171.67708 141.142.220.226 55131 224.0.0.252 5355 udp 0.100021 66 0 S0 D 2 122 0 0
1300475173.11676 fe80::3074:17d5:2052:c324 54213 ff02::1:3 5355 udp 0.099801 66 0 S0 D 2 162 0 0
1300475173.11736 141.142.220.226 55671 224.0.0.252 5355 udp 0.099849 66 0 S0 D 2 122 0 0
1300475173.15368 141.142.220.238 56641 141.142.220.255 137 udp - - - S0 D 1 78 0 0
";

/// Names of the fields in which a record differs from a reference row.
fn differences(record: &FlowRecord, row: &str) -> Vec<String> {
    let fields: Vec<&str> = row.split(' ').collect();
    let mut found = Vec::new();
    let mut same = |name: &str, ours: String, theirs: &str| {
        if ours != theirs {
            found.push(format!("{name}: {ours}, not {theirs}"));
        }
    };
    same("originator", record.originator.to_string(), fields[1]);
    same("its port", record.originator_port.to_string(), fields[2]);
    same("responder", record.responder.to_string(), fields[3]);
    same("its port", record.responder_port.to_string(), fields[4]);
    same("protocol", record.protocol_name().to_owned(), fields[5]);
    // Zeek leaves bytes unset where a flow has one packet, and so no duration.
    if fields[6] == "-" {
        same("duration", format!("{:?}", record.duration_ns()), "None");
    } else {
        let theirs: f64 = fields[6].parse().unwrap();
        let ours = record.duration_ns().unwrap_or(0) as f64 / 1e9;
        if (ours - theirs).abs() > 2e-6 {
            same("duration", ours.to_string(), fields[6]);
        }
        same("bytes out", record.sent.bytes.to_string(), fields[7]);
        same("bytes in", record.received.bytes.to_string(), fields[8]);
    }
    same("state", record.state.name().to_owned(), fields[9]);
    same("history", record.history.as_str().to_owned(), fields[10]);
    same("packets out", record.sent.packets.to_string(), fields[11]);
    same("ip bytes out", record.sent.ip_bytes.to_string(), fields[12]);
    same("packets in", record.received.packets.to_string(), fields[13]);
    same("ip bytes in", record.received.ip_bytes.to_string(), fields[14]);
    found
}

#[test]
fn records_agree_with_zeeks_log() {
    let Some(folder) = folder("pcap") else { return };
    let ours = records(&folder.join("zeek_wikipedia.pcap"));
    let theirs: Vec<&str> = WIKIPEDIA.lines().collect();
    assert_eq!(ours.len(), theirs.len());
    let wrong: Vec<_> = ours
        .iter()
        .zip(&theirs)
        .map(|(record, row)| differences(record, row))
        .enumerate()
        .filter(|(_, wrong)| !wrong.is_empty())
        .collect();
    println!("{} of {} records agree in every field", ours.len() - wrong.len(), ours.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What Zeek's tests and the captures' makers say of them: 20 failed logins and some; every port once or twice; all ended in order.
#[test]
fn records_say_what_is_known_of_captures() {
    let Some(folder) = folder("pcap") else { return };
    let count =
        |records: &[FlowRecord], state: &str| records.iter().filter(|r| r.state.name() == state).count();
    let ftp = records(&folder.join("zeek_ftp_bruteforce.pcap"));
    assert_eq!((ftp.len(), ftp.iter().filter(|r| r.responder_port == 21).count()), (30, 30));
    let scan = records(&folder.join("ndpi_synscan.pcap"));
    let (silent, refused) = (count(&scan, "S0"), count(&scan, "REJ"));
    assert!(silent > 900 && refused > 0 && count(&scan, "SF") == 0, "{silent} silent, {refused} refused");
    let echo = records(&folder.join("zeek_echo_connections.pcap.gz"));
    assert_eq!(echo.iter().map(|r| r.sent.packets + r.received.packets).sum::<u64>(), 82_582);
    assert!(count(&echo, "SF") * 100 >= echo.len() * 99, "{} of {}", count(&echo, "SF"), echo.len());
}

#[test]
fn flows_of_eve_are_read_with_states() {
    let flow = |proto: &str, rest: &str| {
        format!(
            r#"{{"timestamp":"2017-04-07T22:24:39.0+0000","event_type":"flow","src_ip":"10.0.0.1","src_port":40000,"dest_ip":"10.0.0.2","dest_port":80,"proto":"{proto}","flow":{{"pkts_toserver":2,"pkts_toclient":PKTS,"bytes_toserver":208,"bytes_toclient":0,"start":"2017-04-07T22:24:37.5+0000","end":"2017-04-07T22:24:38.0+0000","state":"closed"}}{rest}}}"#
        )
    };
    let log = [
        flow("TCP", r#","tcp":{"tcp_flags_ts":"02","tcp_flags_tc":"14"}"#).replace("PKTS", "1"),
        flow("TCP", "").replace("PKTS", "0"),
        flow("UDP", "").replace("PKTS", "1"),
        flow("ICMP", r#","icmp_type":8,"icmp_code":0"#).replace("PKTS", "1"),
        r#"{"event_type":"stats","timestamp":"2017-04-07T22:24:39.0+0000"}"#.to_owned(),
        r#"{"event_type":"flow","timestamp":"2017-04-07T22:24:39.0+0000"}"#.to_owned(),
    ]
    .join("\n");
    let mut reader = TrafficReader::from_bytes(log.into_bytes(), &ReadOptions::default()).unwrap();
    let mut records = Vec::new();
    let mut take = |traffic: Traffic<'_>| {
        if let Traffic::Record(record) = traffic {
            records.push(record);
        }
    };
    while reader.read(2, &mut take).unwrap() {}
    let account = reader.account();
    assert_eq!(reader.format(), "eve");
    assert!(account.units == 6 && account.faults() == 1, "{account:?}");
    let states: Vec<_> = records.iter().map(|record| record.state).collect();
    assert_eq!(states, [ConnState::Rej, ConnState::S0, ConnState::Sf, ConnState::Oth]);
    assert_eq!((records[0].sent.bytes, records[0].sent.ip_bytes), (100, 180));
    assert_eq!(records[0].history.as_str(), "SDr");
    assert_eq!((records[3].originator_port, records[3].responder_port), (8, 0));
    assert_eq!(records[0].duration_ns(), Some(500_000_000));
}

/// The snap length of the header is a claim: nothing is reserved for it, and packets cut to nothing are counted, not read.
#[test]
fn snap_lengths_of_nothing_and_of_everything() {
    let syn = {
        let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
        bytes
    };
    for snap in [0u32, 1, 96, u32::MAX] {
        let mut out = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, snap, 101] {
            out.extend(word.to_le_bytes());
        }
        for (second, kept) in [(1u32, 40usize), (2, 0), (3, 20), (4, 40)] {
            for word in [1_700_000_000 + second, 0, kept as u32, 40] {
                out.extend(word.to_le_bytes());
            }
            out.extend(&syn[..kept]);
        }
        let mut reader = TrafficReader::from_bytes(out, &ReadOptions::default()).unwrap();
        let mut table = FlowTable::new(TableOptions::default());
        let mut records = Records::default();
        let mut take = |traffic: Traffic<'_>| {
            if let Traffic::Frame(Frame::Ip(packet)) = traffic {
                table.packet(&packet, &mut records);
            }
        };
        while reader.read(10, &mut take).unwrap() {}
        table.finish(&mut records);
        let account = reader.account();
        assert_eq!((account.units, account.accepted, account.faults()), (4, 2, 2), "{snap}: {account:?}");
        assert_eq!((records.0.len(), records.0[0].sent.packets), (1, 2), "{snap}");
    }
}
