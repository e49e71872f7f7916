//! `tidegate flows` and `tidegate detect` on small captures: what they say, and how they fail.

mod common;

use common::{Running, ends, folder, json};
use serde_json::Value;

/// A capture of raw IPv4 packets: TCP, (from, to, flags), a packet every 10 ms.
fn capture(packets: impl Iterator<Item = ((u8, u16), (u8, u16), u8)>) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for (at, (from, to, flags)) in packets.enumerate() {
        let micros = at as u32 * 10_000;
        for word in [1_700_000_000 + micros / 1_000_000, micros % 1_000_000, 40, 40] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
        out.extend(from.1.to_be_bytes());
        out.extend(to.1.to_be_bytes());
        out.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    }
    out
}

const SYN: u8 = 2;
const REFUSED: u8 = 0x14;

/// Forty ports of one host, all refused.
fn scan() -> Vec<u8> {
    capture((1..=40).flat_map(|port| [((66, 40_000), (10, port), SYN), ((10, port), (66, 40_000), REFUSED)]))
}

#[test]
fn flows_in_each_form() {
    let folder = folder();
    std::fs::write(folder.path().join("scan.pcap"), scan()).unwrap();
    let (table, notes) = ends(folder.path(), "flows scan.pcap", 0);
    assert_eq!(table.lines().count(), 41, "{table}");
    assert!(
        table.contains("10.0.0.66") && table.contains("REJ") && notes.contains("40 flows"),
        "{table}{notes}"
    );
    let (csv, _) = ends(folder.path(), "flows scan.pcap --output csv -q", 0);
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert!(csv.lines().all(|line| line.split(',').count() == header.len()), "{csv}");
    let (lines, _) = ends(folder.path(), "flows scan.pcap scan.pcap --output jsonl", 0);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(lines.lines().count(), 80);
    assert_eq!((first["state"].as_str(), first["history"].as_str()), (Some("REJ"), Some("Sr")));
    assert_eq!((first["packets_in"].as_u64(), first["file"].as_str()), (Some(1), Some("scan.pcap")));
}

#[test]
fn alerts_and_exit_codes() {
    let folder = folder();
    std::fs::write(folder.path().join("scan.pcap"), scan()).unwrap();
    let quiet = capture([((5, 1_000), (10, 80), SYN), ((10, 80), (5, 1_000), 0x12)].into_iter());
    std::fs::write(folder.path().join("quiet.pcap"), quiet).unwrap();
    let (text, _) = ends(folder.path(), "detect quiet.pcap scan.pcap", 1);
    assert!(
        text.contains("nothing found in 2 units") && text.contains("vertical-scan (syn) by 10.0.0.66"),
        "{text}"
    );
    ends(folder.path(), "detect quiet.pcap", 0);
    ends(folder.path(), "detect scan.pcap --min-severity high", 0);
    let whole = json(folder.path(), "detect --json scan.pcap", 1);
    let alert = &whole["alerts"][0];
    assert_eq!((whole["units"].as_u64(), alert["technique"].as_str()), (Some(80), Some("T1046")));
    assert_eq!((alert["range"]["first"].as_str(), alert["severity"].as_str()), (Some("1"), Some("medium")));
    assert!(alert["features"][0]["seen"].as_f64() > alert["features"][0]["expected"].as_f64(), "{alert}");
    let (lines, _) = ends(folder.path(), "detect --output jsonl scan.pcap", 1);
    assert_eq!(lines.lines().count(), 1);
}

#[test]
fn bad_input_is_named_and_the_rest_is_done() {
    let folder = folder();
    let mut cut = scan();
    cut.truncate(cut.len() - 7);
    std::fs::write(folder.path().join("cut.pcap"), cut).unwrap();
    std::fs::write(folder.path().join("t.csv"), "ts,price,size\n1,2,3\n").unwrap();
    let (text, errors) = ends(folder.path(), "detect gone.pcap t.csv cut.pcap", 3);
    assert!(
        errors.contains("gone.pcap")
            && errors.contains("holds no traffic")
            && errors.contains("ends inside it"),
        "{errors}"
    );
    assert!(text.contains("vertical-scan"), "{text}");
    let (_, errors) = ends(folder.path(), "flows cut.pcap --output csv", 3);
    assert!(errors.contains("cut.pcap"), "{errors}");
    ends(folder.path(), "detect", 2);
    ends(folder.path(), "detect x.pcap --min-severity dreadful", 2);
    ends(folder.path(), "flows x.pcap --flows-max 3", 2);
}

/// A datagram of NetFlow v5: a refused connection to each of the ports, both directions.
fn export(sequence: u32, ports: std::ops::Range<u16>) -> Vec<u8> {
    let mut out = vec![0, 5, 0, ports.len() as u8 * 2];
    for word in [9_000u32, 1_700_000_000, 0, sequence, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    out.truncate(24);
    for port in ports {
        for (from, to, flags, began) in
            [((66u8, 40_000u16), (10u8, port), SYN, 8_000u32), ((10, port), (66, 40_000), REFUSED, 8_001)]
        {
            let record: [u32; 8] =
                [0x0a00_0000 + u32::from(from.0), 0x0a00_0000 + u32::from(to.0), 0, 0, 1, 40, began, began];
            record.iter().for_each(|word| out.extend(word.to_be_bytes()));
            out.extend(u16::to_be_bytes(from.1));
            out.extend(u16::to_be_bytes(to.1));
            out.extend([0, flags, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
    out
}

#[test]
fn exports_inside_captures_are_read_on_request() {
    let folder = folder();
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for (at, datagram) in [export(0, 1..13), export(24, 13..25), export(58, 25..37)].iter().enumerate() {
        let length = datagram.len() as u16 + 28;
        for word in [1_700_000_001 + at as u32, 0, u32::from(length), u32::from(length)] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0]);
        out.extend(length.to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x9c, 0x40, 8, 7]);
        out.extend((length - 20).to_be_bytes());
        out.extend([0, 0]);
        out.extend(datagram);
    }
    std::fs::write(folder.path().join("netflow.pcap"), out).unwrap();
    let (csv, notes) = ends(folder.path(), "flows netflow.pcap --exports --output csv", 0);
    assert_eq!(csv.lines().filter(|line| line.contains(",REJ,Sr,")).count(), 36, "{csv}");
    assert!(
        notes.contains("3 datagrams, 72 records, 36 flows") && notes.contains("10 records, datagrams"),
        "{notes}"
    );
    let (text, _) = ends(folder.path(), "detect netflow.pcap --exports=2055", 1);
    assert!(text.contains("vertical-scan (syn) by 10.0.0.66"), "{text}");
    // To other ports there is nothing; and without being asked it is one flow of UDP.
    let (csv, _) = ends(folder.path(), "flows netflow.pcap --exports=6343 --output csv", 0);
    assert_eq!(csv.lines().count(), 1, "{csv}");
    let (csv, _) = ends(folder.path(), "flows netflow.pcap --output csv", 0);
    assert!(csv.lines().count() == 2 && csv.contains(",udp,S0,"), "{csv}");
    for wrong in
        ["flows x.pcap --exports=0", "flows x.pcap --exports=a,b", "flows --listen 127.0.0.1:2055", "flows"]
    {
        ends(folder.path(), wrong, 2);
    }
}

#[test]
fn exports_are_taken_over_udp_until_interrupted() {
    let folder = folder();
    let mut running = Running::start(folder.path(), "flows --listen netflow:127.0.0.1:0 --output jsonl");
    let note = running.note();
    let address = note.split([' ', ';']).find(|word| word.starts_with("127.0.0.1:")).expect(&note).to_owned();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&export(0, 80..81), &address).unwrap();
    let flow: Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!((flow["originator"].as_str(), flow["responder_port"].as_u64()), (Some("10.0.0.66"), Some(80)));
    assert_eq!((flow["state"].as_str(), flow["sampling"].as_u64()), (Some("REJ"), Some(0)));
    socket.send_to(b"no export", &address).unwrap();
    socket.send_to(&export(100, 81..82), &address).unwrap();
    let flow: Value = serde_json::from_str(&running.line()).unwrap();
    assert_eq!(flow["responder_port"].as_u64(), Some(81));
    running.signal("-INT");
    let (rest, notes, code) = running.rest();
    assert!(code == Some(0) && rest.is_empty(), "{notes}");
    for words in ["3 datagrams, 4 records, 2 flows", "1 datagrams, sets or records", "98 records, datagrams"]
    {
        assert!(notes.contains(words), "`{words}` is not in: {notes}");
    }
}
