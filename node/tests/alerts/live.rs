//! Alerts of a node that runs: found as `detect` finds them, kept, told, and worked with through it.

use super::common::http::{self, Said, WebSocket};
use super::common::{Running, ends, fails, folder, json};
use super::{START, scan, write};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Port of the exporter inside captures.
const PORT: u16 = 2_055;

/// NetFlow v5 of so many refused ports of 10.0.0.10, both directions of each, exported at `now` (seconds since 1970).
fn exports(now: u32, ports: u16) -> Vec<Vec<u8>> {
    let record = |from: u8, to: u8, ports: (u16, u16), flags: u8, at: u32| {
        let mut bytes = vec![10, 0, 0, from, 10, 0, 0, to, 0, 0, 0, 0, 0, 1, 0, 2];
        for word in [1u32, 40, at, at] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(ports.0.to_be_bytes());
        bytes.extend(ports.1.to_be_bytes());
        bytes.extend([0, flags, 6, 0, 0, 0, 0, 0, 24, 24, 0, 0]);
        bytes
    };
    let all: Vec<Vec<u8>> = (1..=ports)
        .flat_map(|port| {
            let at = 590_000 + u32::from(port) * 10;
            [record(66, 10, (40_000, port), 0x02, at), record(10, 66, (port, 40_000), 0x14, at + 1)]
        })
        .collect();
    all.chunks(28)
        .enumerate()
        .map(|(at, records)| {
            let mut bytes = vec![0, 5];
            bytes.extend((records.len() as u16).to_be_bytes());
            for word in [600_000, now, 0, at as u32 * 28] {
                bytes.extend(word.to_be_bytes());
            }
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(records.concat());
            bytes
        })
        .collect()
}

/// The same datagrams as a capture has them, from 127.0.0.1.
fn captured(now: u32, datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
        out.extend(word.to_le_bytes());
    }
    for bytes in datagrams {
        let length = bytes.len() as u32 + 28;
        for word in [now, 0, length, length] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0x45, 0]);
        out.extend((length as u16).to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        out.extend(30_000u16.to_be_bytes());
        out.extend(PORT.to_be_bytes());
        out.extend((bytes.len() as u16 + 8).to_be_bytes());
        out.extend([0, 0]);
        out.extend(bytes);
    }
    out
}

struct Node {
    server: Running,
    http: SocketAddr,
    quic: String,
    exports: Vec<SocketAddr>,
}

impl Node {
    fn start(folder: &Path, more: &str) -> Self {
        let (server, hello) = Running::serve(folder, more);
        let http = hello["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        let exports = hello["exports"].as_array().into_iter().flatten();
        let exports = exports.map(|address| address.as_str().unwrap().parse().unwrap()).collect();
        let quic = hello["listening"].as_str().unwrap().to_owned();
        Self { server, http, quic, exports }
    }

    fn get(&self, path: &str) -> Value {
        let answer = http::get(self.http, path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The alerts there are once so many are open.
    fn open(&self, count: usize) -> Vec<Value> {
        // Told by the stream of alerts: what it tells is in the list.
        let (status, text) = http::events(self.http, "/v1/sse?streams=alerts&from=snapshot", "", |text| {
            let alerts = text.split("event: alert\n").skip(1).filter_map(|part| part.strip_prefix("data: "));
            let ids: std::collections::BTreeSet<String> = alerts
                .filter_map(|part| serde_json::from_str::<Value>(part.split('\n').next()?).ok())
                .map(|alert| alert["id"].to_string())
                .collect();
            ids.len() >= count
        });
        assert_eq!(status, 200, "{text}");
        let list = self.get("/v1/alerts");
        assert_eq!(list["total"], count, "{list}");
        list["alerts"].as_array().unwrap().clone()
    }
}

/// What an alert says that does not depend on when it was read.
fn told(alert: &Value) -> Value {
    let mut alert = alert.clone();
    for name in ["range", "proof"] {
        alert[name] = Value::Null;
    }
    alert
}

#[test]
fn a_node_finds_what_detect_finds_in_exports_and_in_files() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 67, 40));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let datagrams = exports(now, 40);
    write(path, "exports.pcap", captured(now, &datagrams));
    ends(path, "detect scan.pcap --alerts beside", 1);
    ends(path, &format!("detect exports.pcap --exports={PORT} --alerts beside"), 1);
    let want = json(path, "alert list --alerts beside --json", 0);

    let node = Node::start(path, "--flows 127.0.0.1:0 --traffic scan.pcap");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for bytes in &datagrams {
        socket.send_to(bytes, node.exports[0]).unwrap();
    }
    // It goes on counting for a moment; at its end everything is written.
    node.open(2);
    let traffic = node.get("/v1/traffic");
    assert_eq!(traffic["hosts"][0]["alerts"], 1, "{traffic}");
    let around = node.get("/v1/traffic?host=10.0.0.10");
    assert_eq!(around["recent"][0]["responder"], "10.0.0.10", "{around}");
    node.server.summary();

    let list = json(path, "alert list --alerts data/alerts --json", 0);
    let of = |list: &Value| -> Vec<Value> {
        let mut all: Vec<Value> = list["alerts"].as_array().unwrap().iter().map(told).collect();
        all.sort_by_key(|alert| alert["id"].to_string());
        all
    };
    assert_eq!(of(&list), of(&want));
    // Both can be proved: the one by the file, the other by the flows that the node recorded.
    let mut recording = None;
    for alert in list["alerts"].as_array().unwrap() {
        let line = format!("alert replay {} --alerts data/alerts", alert["id"].as_str().unwrap());
        let (said, _) = ends(path, &line, 0);
        assert!(said.starts_with("same: vertical-scan"), "{said}");
        if alert["entity"] == "10.0.0.66" {
            let shown = json(path, &format!("{} --json", line.replace("replay", "show")), 0);
            recording = Some((line, shown["input"]["path"].as_str().unwrap().to_owned()));
        }
    }
    // What was recorded can be read like any other input.
    let (line, recording) = recording.unwrap();
    let (said, _) = ends(path, &format!("detect {recording}"), 1);
    assert!(said.contains("vertical-scan (syn) by 10.0.0.66"), "{said}");
    // A byte of it is another, or it is gone: that is told.
    let mut bytes = std::fs::read(&recording).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&recording, bytes).unwrap();
    fails(path, &line, 3, &["is not what was judged"]);
    std::fs::remove_file(&recording).unwrap();
    fails(path, &line, 3, &["has given way to newer ones"]);
    // Started again, the file is not judged again, and nothing is counted twice.
    let node = Node::start(path, "--traffic scan.pcap");
    while !node.server.note().contains("judged before") {}
    let counted =
        |alerts: &[Value]| -> u64 { alerts.iter().map(|alert| alert["count"].as_u64().unwrap()).sum() };
    assert_eq!(counted(&node.open(2)), counted(list["alerts"].as_array().unwrap()));
    node.server.summary();
}

/// A day of calls home every five minutes, a fifth earlier or later, as a log of connections.
fn calls_home() -> String {
    let names = "ts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tresp_bytes\tconn_state\thistory\torig_pkts\tresp_pkts";
    let mut log = format!("#separator \\x09\n#path\tconn\n#fields\t{names}\n");
    let mut at = f64::from(START);
    for call in 0..288u32 {
        let port = 40_000 + call;
        log += &format!(
            "{at:.6}\t10.0.0.5\t{port}\t203.0.113.9\t443\ttcp\t0.25\t517\t3000\tSF\tShADadFf\t6\t6\n"
        );
        at += 300.0 * (0.8 + 0.4 * (f64::from(call) * 0.618_034).fract());
    }
    log
}

#[test]
fn a_beacon_is_one_alert_all_day_of_detect_and_of_a_node() {
    let folder = folder();
    let path = folder.path();
    write(path, "conn.log", calls_home());
    ends(path, "detect conn.log --alerts beside", 1);
    let want = json(path, "alert list --alerts beside --json", 0);
    let alert = &want["alerts"][0];
    assert_eq!((want["alerts"].as_array().unwrap().len(), &alert["kind"]), (1, &json!("beacon")), "{want}");
    assert!((4_000..6_000).contains(&alert["silence_s"].as_u64().unwrap()), "{alert}");
    let ts = |name: &str| alert[name].as_str().unwrap().parse::<u64>().unwrap() / 1_000_000_000;
    assert!(ts("last_ts") - ts("first_ts") > 80_000 && alert["count"].as_u64().unwrap() > 100, "{alert}");

    let node = Node::start(path, "--traffic conn.log");
    while !node.server.note().contains("units judged") {}
    let open = node.open(1);
    node.server.summary();
    let list = json(path, "alert list --alerts data/alerts --json", 0);
    assert_eq!(told(&list["alerts"][0]), told(alert));
    assert_eq!(open[0]["id"], alert["id"]);
}

#[test]
fn operators_and_programs_work_with_the_alerts_of_a_node() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 66, 40));
    let node = Node::start(path, "--traffic scan.pcap --sink jsonl:told.jsonl");
    let alert = node.open(1).remove(0);
    let id = alert["id"].as_str().unwrap();
    let (address, alerts) = (node.http, "--data data");
    let mut socket = WebSocket::open(address, "").unwrap();
    socket.say(r#"{"op":"subscribe","id":1,"streams":["alerts"]}"#);
    let hear = |socket: &mut WebSocket, what: &str| loop {
        match socket.next() {
            Said::Message(message) if message["op"] == what => return message,
            Said::Message(_) => {}
            Said::Closed(code) => panic!("closed with {code}"),
        }
    };
    hear(&mut socket, "live");

    // The command goes through the node, which holds the store; what it did is in the store, in the answers and in the stream.
    let (said, _) = ends(path, &format!("alert ack {} --note seen {alerts}", &id[..5]), 0);
    assert!(said.contains("is acknowledged"), "{said}");
    let told = hear(&mut socket, "data");
    let told = &told["records"][0];
    assert_eq!(
        (&told["event"], &told["status"], &told["note"]),
        (&json!("update"), &json!("acknowledged"), &json!("seen"))
    );
    assert_eq!(node.get("/v1/alerts")["total"], 0);
    let all = node.get("/v1/alerts?state=all");
    assert_eq!(all["alerts"][0]["note"], "seen");
    assert_eq!(json(path, &format!("alert list --all --json {alerts}"), 0)["alerts"], all["alerts"]);
    let shown = node.get(&format!("/v1/alerts/{id}"));
    assert_eq!(shown["replay"], format!("tidegate alert replay {id}"));
    assert_eq!(shown["flows"][0]["originator"], "10.0.0.66");
    let units = &shown["input"]["units"];
    assert_eq!(units, "80");

    let post = |path: &str, body: &str| http::post(address, path, "", body);
    let said = post(&format!("/v1/alerts/{id}/false-positive"), r#"{"scope":"kind"}"#);
    assert_eq!(said.status, 200, "{}", said.text());
    assert_eq!(node.get(&format!("/v1/alerts/{id}"))["status"], "false-positive");
    assert_eq!(node.get("/v1/alerts?state=all")["calibrations"][0]["kind"], "vertical-scan");
    ends(path, &format!("alert false-positive {id} --undo {alerts}"), 0);
    let (said, _) = ends(path, &format!("alert suppress {id} --for 7d {alerts}"), 0);
    assert!(said.starts_with("1 suppression: vertical-scan by 10.0.0.66"), "{said}");
    ends(path, &format!("alert maintenance --entity 10.9.0.0/16 --for 4h {alerts}"), 0);
    assert_eq!(node.get("/v1/alerts")["quiets"].as_array().unwrap().len(), 2);
    ends(path, &format!("alert lift 1 2 {alerts}"), 0);
    assert_eq!(node.get("/v1/alerts")["quiets"], json!([]));
    fails(path, &format!("alert lift 9 {alerts}"), 2, &["there is no suppression or window 9"]);
    fails(path, &format!("alert ack ffffffffffff {alerts}"), 2, &["there is no alert"]);
    // Another writer, which cannot go through the node, is told who holds them.
    fails(path, &format!("detect scan.pcap {alerts}"), 4, &["the node of process"]);

    for (path, body, status, code) in [
        (format!("/v1/alerts/{id}/ack"), r#"{"more":1}"#, 400, "bad_value"),
        (format!("/v1/alerts/{id}/ack"), "[]", 400, "bad_json"),
        (format!("/v1/alerts/{id}/ack"), "{", 400, "bad_json"),
        (format!("/v1/alerts/{id}/suppress"), "{}", 400, "bad_value"),
        ("/v1/alerts/zz/ack".to_owned(), "{}", 400, "bad_value"),
        ("/v1/alerts/ffffffffffff/ack".to_owned(), "{}", 404, "unknown_alert"),
        ("/v1/alerts/quiets".to_owned(), r#"{"why":"suppression","for":"1h"}"#, 400, "bad_value"),
        ("/v1/alerts/quiets/x/lift".to_owned(), "{}", 400, "bad_value"),
        ("/v1/alerts/quiets/7/lift".to_owned(), "{}", 404, "unknown_alert"),
        ("/v1/alerts".to_owned(), "{}", 413, "body_too_large"),
        (format!("/v1/alerts/{id}"), "", 405, "method_not_allowed"),
    ] {
        let answer = post(&path, body);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path} {body}: {}",
            answer.text()
        );
    }
    let long = format!(r#"{{"note":"{}"}}"#, "n".repeat(5_000));
    assert_eq!(post(&format!("/v1/alerts/{id}/ack"), &long).code(), "body_too_large");
    for (path, code) in [
        ("/v1/alerts?state=shut", "bad_value"),
        ("/v1/alerts?min_severity=dire", "bad_value"),
        ("/v1/alerts?entity=10.0.0.0%2F40", "bad_value"),
        ("/v1/alerts?limit=0", "out_of_range"),
        ("/v1/alerts?sort=no", "unknown_parameter"),
        ("/v1/alerts/x", "bad_value"),
        ("/v1/traffic?host=nobody", "bad_value"),
        ("/v1/traffic?host=192.0.2.9", "unknown_alert"),
        ("/v1/sse?streams=alerts&keys=a", "bad_value"),
        ("/v1/sse?streams=alerts&from=sequence:1", "bad_value"),
    ] {
        assert_eq!(http::get(address, path, "").code(), code, "{path}");
    }

    let metrics = http::get(address, "/metrics", "").text();
    for line in [
        "tidegate_alerts_told_total{event=\"new\"} 1",
        "tidegate_alerts_open{severity=\"medium\"} 1",
        "tidegate_alerts_dropped_total{what=\"sends\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let (top, _) = ends(path, &format!("top --url http://{address} --once"), 0);
    assert!(top.contains("alerts: 1 medium open"), "{top}");
    node.server.summary();
    let told = std::fs::read_to_string(path.join("told.jsonl")).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    let first: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!((&first["id"], &first["event"]), (&json!(id), &json!("new")));
    // The lock is free again.
    ends(path, &format!("alert ack {id} {alerts}"), 0);
}

/// By themselves: findings of both would make one episode, of whichever comes first.
#[test]
fn anomalies_and_regimes_of_bars_of_seconds_are_alerts_too() {
    anomalies_and_regimes_are_alerts_too("1s");
}

#[test]
fn anomalies_and_regimes_of_bars_of_trades_are_alerts_too() {
    anomalies_and_regimes_are_alerts_too("3t");
}

fn anomalies_and_regimes_are_alerts_too(bars: &str) {
    let folder = folder();
    let path = folder.path();
    // An hour of calm, then wild: trades each second whose volume and steps grow.
    let mut text = String::from("ts,symbol,price,size\n");
    let (mut price, mut seed) = (100_000i64, 1u64);
    for second in 0..2_400u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wild = if second >= 1_800 { 40 } else { 1 };
        price += ((seed >> 33) as i64 % 21 - 10) * wild;
        let size = if second == 1_500 { 9_000 } else { 10 + (seed >> 40) % 5 };
        let ts = 1_767_623_400_000_000_000 + second * 1_000_000_000;
        text += &format!("{ts},AAA,{}.{:02},{size}\n", price / 100, price % 100);
    }
    write(path, "trades.csv", text);
    let node = Node::start(path, &format!("--bars {bars} --anomaly volume --regime hmm:2 --budget 1000"));
    let listening = node.get("/v1/status")["alerts"]["findings"].as_u64();
    assert_eq!(listening, Some(0));
    let quic = &node.quic;
    ends(path, &format!("publish trades.csv --server {quic} --data data --name market"), 0);
    let kinds = |node: &Node| -> Vec<String> {
        let list = node.get("/v1/alerts?state=all");
        let alerts = list["alerts"].as_array().unwrap();
        alerts.iter().map(|alert| alert["kind"].as_str().unwrap().to_owned()).collect()
    };
    let (_, text) = http::events(node.http, "/v1/sse?streams=alerts&from=snapshot", "", |text| {
        text.contains("\"anomaly\"") && text.contains("\"regime-change\"")
    });
    assert!(text.contains("\"entity\":\"AAA\""), "{text}");
    let found = kinds(&node);
    assert!(found.iter().any(|kind| kind == "anomaly") && found.iter().any(|kind| kind == "regime-change"));
    let list = node.get("/v1/alerts?state=all&kind=anomaly");
    let id = list["alerts"][0]["id"].as_str().unwrap();
    let shown = node.get(&format!("/v1/alerts/{id}"));
    let series = &shown["series"];
    assert_eq!((&series["stream"], &series["key"]), (&format!("anomaly.{bars}").into(), &json!("AAA")));
    // The row that it was found in is there, with what came before.
    let rows = series["rows"].as_array().unwrap();
    assert!(rows.len() > 10, "{shown}");
    if bars == "1s" {
        assert!(rows.iter().any(|row| row["ts"] == shown["range"]["last_ts"]), "{shown}");
    }
    assert_eq!(shown["replay"], format!("tidegate alert replay {id}"), "{shown}");
    let regime = node.get("/v1/alerts?state=all&kind=regime-change")["alerts"][0]["id"].clone();
    let regime = node.get(&format!("/v1/alerts/{}", regime.as_str().unwrap()));
    assert!(regime["replay"].as_str().unwrap().starts_with("tidegate alert replay"), "{regime}");
    node.server.summary();
    // They are in the store, and each is reached again from the state some rows before.
    let kept = json(path, "alert list --all --data data --json", 0);
    let mut seen = std::collections::BTreeSet::new();
    for alert in kept["alerts"].as_array().unwrap() {
        let (id, kind, stream) =
            (&alert["id"], alert["kind"].as_str().unwrap(), alert["method"].as_str().unwrap());
        let (said, _) = ends(path, &format!("alert replay {} --data data", id.as_str().unwrap()), 0);
        assert!(said.starts_with(&format!("same: {kind} of AAA in {stream}, score ")), "{said}");
        seen.insert((kind.to_owned(), stream.to_owned()));
    }
    for (kind, stream) in [("anomaly", "anomaly"), ("regime-change", "regime")] {
        let of = (kind.to_owned(), format!("{stream}.{bars}"));
        assert!(seen.contains(&of), "{of:?} is not in {seen:?}");
    }
}

/// A file system of its own, as small as asked for, until it is dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at);
        mount
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
            .then(|| Self(at.into()))
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let error = loop {
            if let Err(error) = std::io::Write::write_all(&mut file, &[0; 512]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_borne() {
    let folder = folder();
    let path = folder.path();
    let Some(disk) = Disk::new(&path.join("data/alerts"), "64k") else {
        return eprintln!("SKIPPED: nothing may be mounted here, so no disk can be filled");
    };
    let node = Node::start(path, "--flows 127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    disk.fill();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    for bytes in exports(now, 40) {
        socket.send_to(&bytes, node.exports[0]).unwrap();
    }
    // It is shown and told all the same, and nobody can say anything to it yet.
    let alert = node.open(1).remove(0);
    let id = alert["id"].as_str().unwrap();
    while !node.server.note().contains("alerts are not written down") {}
    let problem = node.get("/v1/status")["alerts"]["problem"].clone();
    assert!(problem.as_str().unwrap().contains("No space left on device"), "{problem}");
    let ack = || http::post(node.http, &format!("/v1/alerts/{id}/ack"), "", "{}");
    assert_eq!((ack().status, ack().code().as_str()), (503, "not_kept"));
    let before = std::fs::read_to_string(path.join("data/alerts/alerts.jsonl")).unwrap();
    assert_eq!(before, "");
    // Room again, and everything is written, what it rests on as well.
    disk.free();
    while !node.server.note().contains("alerts are written down again") {}
    assert_eq!(node.get("/v1/status")["alerts"]["problem"], Value::Null);
    assert_eq!(ack().status, 200);
    let (said, _) = ends(path, &format!("alert replay {id} --data data"), 0);
    assert!(said.starts_with("same: vertical-scan by 10.0.0.66"), "{said}");
    node.server.summary();
    let kept = json(path, &format!("alert show {id} --data data --json"), 0);
    assert_eq!((&kept["status"], &kept["unproven"]), (&json!("acknowledged"), &Value::Null));
}

#[test]
fn who_may_see_and_who_may_say() {
    let folder = folder();
    let path = folder.path();
    write(path, "scan.pcap", scan(START, 66, 40));
    ends(path, "token keygen --dir keys", 0);
    let config = "[auth]\ntoken_keys = [\"keys/token-key.pub.pem\"]\naudience = \"here\"\n\n\
        [traffic]\nfiles = [\"scan.pcap\"]\n\n\
        [[auth.rule]]\nprincipal = \"chief\"\nverbs = [\"subscribe\", \"admin\"]\nstreams = [\"alerts\"]\n\n\
        [[auth.rule]]\nprincipal = \"reader\"\nverbs = [\"subscribe\"]\nstreams = [\"alerts\"]\n\n\
        [[auth.rule]]\nprincipal = \"east\"\nverbs = [\"subscribe\", \"admin\"]\nstreams = [\"alerts\"]\nsymbols = [\"10.2.*\"]\n\n\
        [[auth.rule]]\nprincipal = \"desk\"\nverbs = [\"subscribe\"]\nstreams = [\"bars.*\"]\n";
    write(path, "server.toml", config);
    let node = Node::start(path, "--config server.toml");
    while !node.server.note().contains("units judged") {}
    let token = |who: &str| {
        let line = format!("token issue --key keys/token-key.pem --audience here --principal {who} --bearer");
        ends(path, &line, 0).0.trim().to_owned()
    };
    let chief = token("chief");
    let list = http::get(node.http, "/v1/alerts", &chief);
    let list: Value = serde_json::from_slice(&list.body).unwrap();
    let id = list["alerts"][0]["id"].as_str().unwrap().to_owned();
    let ack = format!("/v1/alerts/{id}/ack");
    let get = |path: &str, token: &str| http::get(node.http, path, token).status;
    let say = |path: &str, token: &str| http::post(node.http, path, token, "{}").status;
    assert_eq!((get("/v1/alerts", ""), say(&ack, "")), (401, 401));
    let reader = token("reader");
    assert_eq!((get("/v1/alerts", &reader), get(&format!("/v1/alerts/{id}"), &reader)), (200, 200));
    assert_eq!((get("/v1/traffic", &reader), say(&ack, &reader)), (200, 403));
    let desk = token("desk");
    assert_eq!((get("/v1/alerts", &desk), get("/v1/traffic", &desk), say(&ack, &desk)), (403, 403, 403));
    assert_eq!(get("/v1/sse?streams=alerts", &desk), 403);
    // Who may see other hosts alone does not learn of this one.
    let east = token("east");
    let seen: Value =
        serde_json::from_slice(&http::get(node.http, "/v1/alerts?state=all", &east).body).unwrap();
    assert_eq!(
        (&seen["total"], get(&format!("/v1/alerts/{id}"), &east), say(&ack, &east)),
        (&json!(0), 404, 403)
    );
    assert_eq!(say("/v1/alerts/quiets", &east), 403);
    // The command shows a token, or is told that one is wanted.
    fails(path, &format!("alert ack {id} --data data"), 4, &["401", "--token"]);
    write(path, "chief.token", &chief);
    ends(path, &format!("alert ack {id} --data data --token chief.token"), 0);
    assert_eq!(say(&ack, &chief), 200);
    node.server.summary();
}

#[test]
fn what_cannot_be_looked_for_is_told_at_the_start() {
    let folder = folder();
    let path = folder.path();
    let serve = "serve --listen 127.0.0.1:0 --http off --data data";
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    fails(path, &format!("{serve} --flows {address}"), 4, &["cannot take exports at", "in use"]);
    fails(path, &format!("{serve} --sink jsonl:x"), 2, &["nothing to go with"]);
    fails(path, &format!("{serve} --flows 127.0.0.1:0 --sigma none.yml"), 3, &["none.yml"]);
    fails(path, &format!("{serve} --anomaly volume --sigma none.yml"), 3, &["none.yml"]);
    fails(path, &format!("{serve} --flows here"), 2, &["--flows"]);
    write(path, "bad.toml", "[traffic]\nexport = [\"127.0.0.1:1\"]\n");
    fails(path, &format!("{serve} --config bad.toml"), 3, &["did you mean `exports`"]);
    write(path, "sinks.toml", "[traffic]\nexports = [\"127.0.0.1:0\"]\n[alerts]\nsinks = [\"mail:x\"]\n");
    fails(path, &format!("{serve} --config sinks.toml"), 2, &["is no sink"]);
    // A file that is not there is told, and the node runs all the same.
    let node = Node::start(path, "--traffic none.pcap");
    while !node.server.note().contains("none.pcap") {}
    assert_eq!(node.get("/v1/alerts")["total"], 0);
    node.server.summary();
    // A node that looks for nothing has no alerts, and says so.
    let node = Node::start(path, "");
    assert_eq!(http::get(node.http, "/v1/alerts", "").code(), "no_alerts");
    assert_eq!(node.get("/v1/status")["alerts"], Value::Null);
    node.server.summary();
}

/// A datagram of sFlow with one sample of a packet between two hosts, one of so many.
fn sampled(sequence: u32, from: u8, to: u8, of: u32) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    let ports: (u16, u16) = if from == 1 { (5_000, 53) } else { (53, 5_000) };
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.extend([0, 108, 0, 0]);
    frame.resize(144, 7);
    let length = frame.len() as u32;
    let words = [5, 1, 0x0a00_00fe, 0, sequence, 1_000, 1];
    let sample =
        [1, 32 + 24 + length, sequence, 3, of, 1_000, 0, 1, 2, 1, 1, length + 16, 1, length, 4, length];
    let mut bytes: Vec<u8> = words.into_iter().chain(sample).flat_map(u32::to_be_bytes).collect();
    bytes.extend(frame);
    bytes
}

impl Node {
    /// Waits until so many datagrams have come, and been judged.
    fn taken(&self, datagrams: u64) -> Value {
        loop {
            let status = self.get("/v1/status");
            let alerts = &status["alerts"];
            let waiting = &alerts["queues"]["datagrams"]["depth"];
            if alerts["datagrams"].as_u64() >= Some(datagrams) && waiting.as_u64() == Some(0) {
                return status;
            }
        }
    }
}

/// Samples are added up and multiplied, also those that come in over a real socket.
#[test]
fn samples_of_sflow_come_in_over_a_socket() {
    let folder = folder();
    let path = folder.path();
    let node = Node::start(path, "--flows 127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (sequence, (from, to)) in (1..).zip([(1, 2), (2, 1), (1, 2), (1, 2)]) {
        socket.send_to(&sampled(sequence, from, to, 500), node.exports[0]).unwrap();
    }
    // Cut, and of no version: refused, and nothing else happens.
    socket.send_to(&sampled(5, 1, 2, 500)[..70], node.exports[0]).unwrap();
    socket.send_to(&[0, 0, 0, 6, 1, 2, 3], node.exports[0]).unwrap();
    let status = node.taken(6);
    assert_eq!(status["alerts"]["dropped"]["datagrams"].as_u64(), Some(0), "{status}");
    node.server.interrupted();
}

/// An exporter with ever new templates and more exporters than are remembered, each from an address of its own, through the socket: all are
/// taken, and the scan that an honest exporter tells in between is found.
#[test]
fn floods_of_templates_and_exporters_do_not_hide_a_scan() {
    let folder = folder();
    let node = Node::start(folder.path(), "--flows 127.0.0.1:0");
    let target = node.exports[0];
    let template = |sequence: u32, id: u16| {
        let mut bytes = [9u16, 1].map(u16::to_be_bytes).concat();
        bytes.extend([600_000, START, sequence, 7].map(u32::to_be_bytes).concat());
        bytes.extend([0u16, 16, id, 2, 8, 4, 12, 4].map(u16::to_be_bytes).concat());
        bytes
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let honest = UdpSocket::bind("127.0.0.1:0").unwrap();
    let liar = UdpSocket::bind("127.9.9.9:0").unwrap();
    let (mut sent, mut datagrams) = (0, exports(now, 40).into_iter());
    for n in 0..1_200u32 {
        liar.send_to(&template(n, 256 + n as u16), target).unwrap();
        // Linux has all of 127/8 on its loopback.
        let spoofed =
            UdpSocket::bind((Ipv4Addr::new(127, 1, (n / 250) as u8, 1 + (n % 250) as u8), 0)).unwrap();
        spoofed.send_to(&template(n, 300), target).unwrap();
        sent += 2;
        if n.is_multiple_of(300) {
            for bytes in datagrams.by_ref().take(1) {
                honest.send_to(&bytes, target).unwrap();
                sent += 1;
            }
        }
        // Never more on the way than a socket holds.
        if n.is_multiple_of(50) {
            node.taken(sent);
        }
    }
    let status = node.taken(sent);
    assert_eq!(status["alerts"]["datagrams"].as_u64(), Some(sent), "{status}");
    assert_eq!(status["alerts"]["dropped"]["datagrams"].as_u64(), Some(0), "{status}");
    let alerts = node.open(1);
    assert_eq!(
        (alerts[0]["kind"].as_str(), alerts[0]["entity"].as_str()),
        (Some("vertical-scan"), Some("10.0.0.66"))
    );
    node.server.interrupted();
}
