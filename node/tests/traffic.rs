//! `tidegate flows` and `tidegate detect` on small captures: what they say, and how they fail.

mod common;

use common::{ends, folder, json};
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
