//! Alerts kept, worked with, sent on and proved again, by the real binary.

mod common;
#[path = "alerts/live.rs"]
mod live;
#[path = "alerts/rows.rs"]
mod rows;

use common::{ends, fails, folder, json};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

const SYN: u8 = 2;
const REFUSED: u8 = 0x14;
/// 2023-11-14T22:13:20Z.
const START: u32 = 1_700_000_000;

/// A capture of raw IPv4 packets: TCP, (from, to, flags), a packet every 10 ms from `start` (seconds) on.
fn capture(start: u32, packets: impl Iterator<Item = ((u8, u16), (u8, u16), u8)>) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for (at, (from, to, flags)) in packets.enumerate() {
        let micros = at as u32 * 10_000;
        for word in [start + micros / 1_000_000, micros % 1_000_000, 40, 40] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
        out.extend(from.1.to_be_bytes());
        out.extend(to.1.to_be_bytes());
        out.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    }
    out
}

/// So many ports of one host, all refused.
fn scan(start: u32, source: u8, ports: u16) -> Vec<u8> {
    capture(
        start,
        (1..=ports).flat_map(move |port| {
            [((source, 40_000), (10, port), SYN), ((10, port), (source, 40_000), REFUSED)]
        }),
    )
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

/// A folder with a scan in it, and the name of its alert in the store.
fn kept() -> (tempfile::TempDir, String) {
    let folder = folder();
    write(folder.path(), "scan.pcap", scan(START, 66, 40));
    ends(folder.path(), "detect scan.pcap --alerts kept", 1);
    let list = json(folder.path(), "alert list --alerts kept --json", 0);
    let id = list["alerts"][0]["id"].as_str().unwrap().to_owned();
    (folder, id)
}

#[test]
fn an_alert_is_kept_shown_and_proved_to_the_bit() {
    let (folder, id) = kept();
    let path = folder.path();
    let (text, _) = ends(path, "alert list --alerts kept", 0);
    assert!(text.contains(&id) && text.contains("vertical-scan") && text.contains("10.0.0.66"), "{text}");
    let shown = json(path, &format!("alert show {} --alerts kept --json", &id[..6]), 0);
    assert_eq!((shown["told"].as_str(), shown["status"].as_str()), (Some("medium"), Some("open")));
    assert!(shown["input"]["path"].as_str().unwrap().ends_with("scan.pcap"), "{shown}");
    let (text, _) = ends(path, &format!("alert show {id} --alerts kept"), 0);
    assert!(text.contains("score bits") && text.contains("expected 14"), "{text}");
    let again = json(path, &format!("alert replay {id} --alerts kept --json"), 0);
    assert_eq!(
        (&again["same"], &again["score_bits"]),
        (&Value::Bool(true), &again["again"][0]["score_bits"])
    );
    // The same capture again adds nothing, under whatever name.
    std::fs::copy(path.join("scan.pcap"), path.join("copy.pcap")).unwrap();
    let (_, notes) = ends(path, "detect copy.pcap --alerts kept", 1);
    assert!(notes.contains("nothing was added"), "{notes}");
    assert_eq!(json(path, "alert list --alerts kept --json", 0)["alerts"][0]["count"], shown["count"]);
    // Moved, it is still found; another is not taken for it.
    std::fs::remove_file(path.join("scan.pcap")).unwrap();
    ends(path, &format!("alert replay {id} --alerts kept --input copy.pcap"), 0);
    fails(path, &format!("alert replay {id} --alerts kept"), 3, &["scan.pcap"]);
    write(path, "other.pcap", scan(START, 66, 41));
    fails(path, &format!("alert replay {id} --alerts kept --input other.pcap"), 3, &["BLAKE3"]);
}

#[test]
fn a_score_that_comes_out_differently_is_told() {
    let (folder, id) = kept();
    let path = folder.path().join("kept/alerts.jsonl");
    let shown = json(folder.path(), &format!("alert show {id} --alerts kept --json"), 0);
    let bits = shown["proof"]["score_bits"].as_str().unwrap();
    let last = u64::from_str_radix(bits, 16).unwrap() - 1;
    let text = std::fs::read_to_string(&path).unwrap().replace(bits, &format!("{last:016x}"));
    std::fs::write(&path, text).unwrap();
    let (text, _) = ends(folder.path(), &format!("alert replay {id} --alerts kept"), 1);
    assert!(text.contains("differs") && text.contains(bits), "{text}");
}

#[test]
fn operators_have_their_say() {
    let (folder, id) = kept();
    let path = folder.path();
    let listed = |options: &str| {
        json(path, &format!("alert list --alerts kept --json {options}"), 0)["alerts"]
            .as_array()
            .unwrap()
            .len()
    };
    ends(path, &format!("alert ack {id} --note seen --alerts kept"), 0);
    assert_eq!((listed(""), listed("--all"), listed("--held")), (0, 1, 0));
    let (text, _) = ends(path, &format!("alert false-positive {id} --undo --alerts kept"), 0);
    assert!(text.contains("is open"), "{text}");
    assert_eq!(listed(""), 1);
    let (text, _) = ends(path, &format!("alert false-positive {id} --alerts kept"), 0);
    assert!(text.contains("from now on vertical-scan by 10.0.0.66 is told from a score of"), "{text}");
    // A day later: as much is held back and readable, twice as much is told; others are not concerned.
    let day = START + 86_400;
    write(path, "again.pcap", scan(day, 66, 41));
    write(path, "other.pcap", scan(day, 67, 41));
    write(path, "twice.pcap", scan(day + 7_200, 66, 95));
    let (_, notes) = ends(path, "detect again.pcap --alerts kept", 0);
    assert!(notes.contains("calibrated"), "{notes}");
    assert_eq!((listed(""), listed("--held")), (0, 1));
    ends(path, "detect other.pcap --alerts kept", 1);
    ends(path, "detect twice.pcap --alerts kept", 1);
    let (text, _) = ends(path, "alert list --alerts kept", 0);
    assert!(
        text.contains("Feedback") && text.contains("2023-11-15 other:") && text.contains("calibrated"),
        "{text}"
    );
}

#[test]
fn suppressions_and_maintenance_end_by_the_time_of_the_traffic() {
    let (folder, id) = kept();
    let path = folder.path();
    let (text, _) = ends(path, &format!("alert suppress {id} --for 1d --alerts kept"), 0);
    assert!(
        text.starts_with("1 suppression: vertical-scan by 10.0.0.66, up to medium, from 2023-11-14T22:13:20"),
        "{text}"
    );
    write(path, "inside.pcap", scan(START + 80_000, 66, 41));
    write(path, "behind.pcap", scan(START + 90_000, 66, 42));
    let (_, notes) = ends(path, "detect inside.pcap --alerts kept", 0);
    assert!(notes.contains("suppressed"), "{notes}");
    ends(path, "detect behind.pcap --alerts kept", 1);
    let window = "alert maintenance --entity 10.0.0.0/24 --from 2023-12-01 --until 2023-12-02 --note switches --alerts kept";
    let (text, _) = ends(path, window, 0);
    assert!(
        text.contains("2 maintenance: anything by 10.0.0.0/24, up to high") && text.contains("(switches)"),
        "{text}"
    );
    const DECEMBER: u32 = 1_701_388_800;
    write(path, "work.pcap", scan(DECEMBER + 60, 9, 43));
    ends(path, "detect work.pcap --alerts kept", 0);
    ends(path, "alert lift 2 --alerts kept", 0);
    write(path, "later.pcap", scan(DECEMBER + 7_200, 9, 43));
    ends(path, "detect later.pcap --alerts kept", 1);
    fails(path, "alert lift 2 --alerts kept", 2, &["no suppression or window 2"]);
    fails(path, "alert suppress --for 1d --alerts kept", 2, &["<ID>"]);
    fails(path, "alert suppress --kind x --alerts kept", 2, &["--for"]);
    fails(
        path,
        "alert suppress --kind x --from 2024-01-01 --until 2023-01-01 --alerts kept",
        2,
        &["not after its beginning"],
    );
}

#[test]
fn a_budget_holds_back_what_is_too_much() {
    let folder = folder();
    let path = folder.path();
    for source in 1..=3u8 {
        write(path, &format!("{source}.pcap"), scan(START + u32::from(source), source, 40));
    }
    let line = "detect 1.pcap 2.pcap 3.pcap --alerts kept --budget 2";
    let (text, notes) = ends(path, line, 1);
    assert!(
        text.contains("nothing found") && notes.contains("held back") && notes.contains("budget"),
        "{text}{notes}"
    );
    let list = json(path, "alert list --alerts kept --json", 0);
    assert_eq!(list["alerts"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&list["held"][0]["day"], &list["held"][0]["group"]),
        (&Value::from("2023-11-14"), &Value::from("other"))
    );
    assert!(list["held"][0]["held"]["budget"].as_u64() >= Some(1), "{list}");
    let held = json(path, "alert list --alerts kept --held --json", 0);
    assert_eq!(held["alerts"][0]["entity"], "10.0.0.3");
    // Who is in a group has a budget there.
    ends(path, "detect 1.pcap 2.pcap 3.pcap --alerts groups --budget 2 --group lab=10.0.0.3", 1);
    assert_eq!(json(path, "alert list --alerts groups --json", 0)["alerts"].as_array().unwrap().len(), 3);
    fails(path, "detect 1.pcap --group lab=10.0.0.3", 2, &["--budget"]);
    fails(path, "detect 1.pcap --budget 1 --group lab", 2, &["NAME=NET"]);
}

#[test]
fn a_torn_store_is_mended_and_a_damaged_one_is_named() {
    let (folder, id) = kept();
    let path = folder.path();
    let file = path.join("kept/alerts.jsonl");
    let whole = std::fs::read(&file).unwrap();
    let mut torn = whole.clone();
    torn.extend(b"{\"v\":1,\"type\":\"acti");
    std::fs::write(&file, torn).unwrap();
    fails(path, "alert show xyz --alerts kept", 2, &["no name of an alert"]);
    ends(path, &format!("alert show {id} --alerts kept"), 0);
    let (_, notes) = ends(path, &format!("alert ack {id} --alerts kept"), 0);
    assert!(notes.contains("cut off"), "{notes}");
    assert!(std::fs::read(&file).unwrap().starts_with(&whole));
    let text = String::from_utf8(whole).unwrap().replacen("\"type\":\"input\"", "\"type\":\"inptu\"", 1);
    std::fs::write(&file, text).unwrap();
    fails(path, "alert list --alerts kept", 3, &["alerts.jsonl", "line 1", "inptu"]);
    fails(path, "alert list --alerts nowhere", 3, &["there are no alerts", "detect FILE --alerts"]);
}

#[test]
fn only_one_writes_at_a_time() {
    let (folder, id) = kept();
    let lock = std::fs::OpenOptions::new().write(true).open(folder.path().join("kept/alerts.lock")).unwrap();
    lock.lock().unwrap();
    fails(folder.path(), &format!("alert ack {id} --alerts kept"), 4, &["another process"]);
    ends(folder.path(), "alert list --alerts kept", 0);
}

#[test]
fn sinks_get_each_alert_once() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 66, 40));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!(
        "detect scan.pcap --sink jsonl:a.jsonl --sink eve:eve.json --sink syslog:messages --sink syslog:udp://{} --sink syslog:tcp://{}",
        udp.local_addr().unwrap(),
        tcp.local_addr().unwrap()
    );
    ends(path, &line, 1);
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    let alert: Value = serde_json::from_str(&read("a.jsonl")).unwrap();
    assert_eq!((&alert["event"], &alert["kind"]), (&Value::from("new"), &Value::from("vertical-scan")));
    let eve: Value = serde_json::from_str(&read("eve.json")).unwrap();
    assert_eq!((&eve["event_type"], &eve["src_ip"]), (&Value::from("alert"), &Value::from("10.0.0.66")));
    let message = read("messages");
    assert!(
        message.starts_with("<36>1 2023-11-14T22:13:2") && message.contains("entity=\"10.0.0.66\""),
        "{message}"
    );
    let mut bytes = [0; 4_096];
    let length = udp.recv(&mut bytes).unwrap();
    assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), message.trim_end());
    let mut framed = String::new();
    tcp.accept().unwrap().0.read_to_string(&mut framed).unwrap();
    assert_eq!(framed, format!("{} {}", message.trim_end().len(), message.trim_end()));
    fails(path, "detect scan.pcap --sink mail:x", 2, &["allowed: jsonl:FILE"]);
    fails(path, "detect scan.pcap --sink jsonl:no/such/folder/x", 4, &["no/such/folder"]);
}

/// Answers requests with these codes, one after the other; what was asked.
fn server(codes: &'static [u16]) -> (String, std::thread::JoinHandle<Vec<(String, Value)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let handle = std::thread::spawn(move || {
        codes
            .iter()
            .map(|code| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    head += &lower;
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                write!(&stream, "HTTP/1.1 {code} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                (head, serde_json::from_slice(&body).unwrap())
            })
            .collect()
    });
    (url, handle)
}

#[test]
fn a_webhook_is_tried_again_but_not_for_ever() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 66, 40));
    let (url, asked) = server(&[503, 200]);
    ends(path, &format!("detect scan.pcap --sink webhook:{url}"), 1);
    let asked = asked.join().unwrap();
    assert!(asked[0].0.starts_with("post /hook") && asked[0].1["kind"] == "vertical-scan", "{asked:?}");
    let key = |head: &str| head.lines().find(|line| line.starts_with("idempotency-key:")).unwrap().to_owned();
    assert_eq!(key(&asked[0].0), key(&asked[1].0));
    // A refusal is final, and the run says that something is missing.
    let (url, asked) = server(&[400]);
    fails(path, &format!("detect scan.pcap --sink webhook:{url}"), 4, &["could not be sent", "answers 400"]);
    assert_eq!(asked.join().unwrap().len(), 1);
}

#[test]
fn sigma_rules_and_patterns_judge_recorded_traffic() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 66, 12));
    write(
        path,
        "rule.yml",
        "title: Refused\nname: refused\nlogsource: {product: zeek, service: conn}\ndetection:\n  s:\n    conn_state: REJ\n    \
         dst_port|lt: 11\n  condition: s\n---\ntitle: Many refused\nlevel: high\ntags: [attack.t1046]\ncorrelation:\n  type: value_count\n  \
         rules: refused\n  group-by: src_ip\n  timespan: 1m\n  condition: {field: dst_port, gte: 10}\n",
    );
    let whole = json(path, "detect scan.pcap --sigma rule.yml --json", 1);
    let alerts = whole["alerts"].as_array().unwrap();
    assert_eq!((alerts.len(), whole["records"].as_u64()), (1, Some(12)), "{whole}");
    assert_eq!(
        (&alerts[0]["kind"], &alerts[0]["severity"]),
        (&Value::from("sigma:many-refused"), &Value::from("high"))
    );
    assert_eq!(
        (&alerts[0]["entity"], &alerts[0]["features"][0]["seen"]),
        (&Value::from("10.0.0.66"), &Value::from(10.0))
    );
    let mut pattern = common::command(
        path,
        "detect scan.pcap --quiet --output jsonl --alerts kept --sigma rule.yml --pattern",
    );
    let output = pattern.arg("row: flow(conn_state = REJ) times 12 within 1m by src_ip").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\"pattern:row\"") && text.contains("\"sigma:many-refused\""), "{text}");
    // Rules are part of the proof.
    let list = json(path, "alert list --alerts kept --json", 0);
    for alert in list["alerts"].as_array().unwrap() {
        ends(path, &format!("alert replay {} --alerts kept", alert["id"].as_str().unwrap()), 0);
    }
    let text = std::fs::read_to_string(path.join("rule.yml")).unwrap();
    write(path, "rule.yml", text.replace("gte: 10", "gte: 9"));
    let id = list["alerts"][0]["id"].as_str().unwrap();
    fails(path, &format!("alert replay {id} --alerts kept"), 3, &["rule.yml is not the rule of then"]);
}

#[test]
fn rules_read_logs_that_detectors_do_not() {
    let folder = folder();
    let path = folder.path();
    write(
        path,
        "eve.json",
        "{\"timestamp\":\"2023-11-14T22:13:20.000001+0000\",\"event_type\":\"alert\",\"src_ip\":\"10.0.0.7\",\"dest_ip\":\"10.0.0.8\",\"dest_port\":80,\"alert\":{\"signature\":\"ET SCAN x\"}}\nbroken\n",
    );
    write(
        path,
        "rule.yml",
        "title: Scan by signature\nlogsource: {product: suricata}\ndetection: {s: {alert.signature|contains: SCAN}, condition: s}\n",
    );
    ends(path, "detect eve.json", 0);
    let whole = json(path, "detect eve.json --sigma rule.yml --json", 1);
    assert_eq!(
        (&whole["format"], whole["units"].as_u64(), whole["faults"].as_u64()),
        (&Value::from("eve"), Some(2), Some(1))
    );
    assert_eq!(
        (&whole["alerts"][0]["entity"], &whole["alerts"][0]["port"]),
        (&Value::from("10.0.0.7"), &Value::from(80))
    );
}

#[test]
fn bad_rules_name_their_place_and_nothing_is_run() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 66, 40));
    std::fs::create_dir(path.join("rules")).unwrap();
    fails(path, "detect scan.pcap --sigma rules", 3, &["no rule in it"]);
    write(
        path,
        "rules/a.yml",
        "title: a\nlogsource: {category: dns}\ndetection:\n  s:\n    query|base64: x\n  condition: s\n",
    );
    write(
        path,
        "rules/b.yml",
        "title: b\nlogsource: {category: dns}\ndetection:\n  s:\n    query: x\n  condition: t\n",
    );
    let (text, errors) = ends(path, "detect scan.pcap --sigma rules", 3);
    assert!(
        text.is_empty()
            && errors.contains("rules/a.yml:5:5: detection.s.query|base64")
            && errors.contains("allowed: contains"),
        "{errors}"
    );
    assert!(
        errors.contains("rules/b.yml:6:14: detection.condition") && errors.contains("no selection `t`"),
        "{errors}"
    );
    let output =
        common::command(path, "detect scan.pcap --pattern").arg("flow thn dns within 1m").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && errors.contains("at character 6: `thn` is not expected"),
        "{errors}"
    );
}
