//! The commands people watch and feed a server with, against a real one.

mod common;

use common::{Running, ends, fails, folder};
use serde_json::Value;
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;

/// A server on free ports, the words that lead to it, and where it answers HTTP.
fn serve(folder: &Path, more: &str) -> (Running, String, String) {
    let (server, hello) = Running::serve(folder, more);
    let text = |name: &str| hello[name].as_str().expect("an address").to_owned();
    (server, format!("--server {} --data data", text("listening")), text("http"))
}

/// Asks until it is so.
fn until(folder: &Path, http: &str, so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (stdout, _) = ends(folder, &format!("top --once --json --url {http}"), 0);
        let status = serde_json::from_str(&stdout).expect("one JSON value");
        if so(&status) {
            return status;
        }
    }
}

#[test]
fn a_server_with_the_demo_feeds_itself_with_the_time_of_now() {
    let folder = folder();
    let path = folder.path();
    let (server, place, http) = serve(path, "--demo");
    let status = until(path, &http, |status| {
        let lag = status["shards"][0]["lag_ms"].is_u64();
        lag && status["results"]["total"].as_u64() > Some(0)
            && status["feeds"].as_array().is_some_and(|f| f.len() == 2)
    });
    let names: Vec<&str> =
        status["feeds"].as_array().unwrap().iter().filter_map(|feed| feed["source"].as_str()).collect();
    assert_eq!(names, ["demo-market", "demo-network"]);
    // Of today: the generators' own stamps are of another day.
    assert!(status["shards"][0]["lag_ms"].as_u64() < Some(3_600_000), "{status}");
    let (bars, _) = ends(path, &format!("subscribe bars.1s --output jsonl --count 5 {place}"), 0);
    assert_eq!(bars.lines().count(), 5);
    let bar: Value = serde_json::from_str(bars.lines().next().unwrap()).expect("a record");
    let key = bar["k"].as_str().expect("a key");
    let explained: Value =
        serde_json::from_str(&ends(path, &format!("explain {key} --json --url {http}"), 0).0)
            .expect("one value");
    assert_eq!(
        (&explained["key"], &explained["cluster"], &explained["shard"]),
        (&bar["k"], &Value::Null, &0.into())
    );
    let share = explained["cost"]["share"].as_f64().expect("it has bars");
    assert!(share > 0.0 && Some(share) <= explained["cost"]["slot_share"].as_f64(), "{explained}");
    let of_bars =
        explained["streams"].as_array().unwrap().iter().find(|one| one["stream"] == "bars.1s").unwrap();
    assert!(
        of_bars["records"].as_u64() >= Some(1) && of_bars["events"].as_u64() >= bar["n"].as_u64(),
        "{explained}"
    );
    let (text, _) = ends(path, &format!("explain {key} --url {http}"), 0);
    assert!(
        text.contains("this server alone") && text.contains("bars.1s") && text.contains("of all events"),
        "{text}"
    );
    let wrong = format!("{}x", key.to_lowercase());
    fails(path, &format!("explain {wrong} --url {http}"), 2, &["there is no key", &format!("`{key}`")]);
    fails(path, "explain A --url http://127.0.0.1:1", 3, &["no answer"]);
    let (text, _) = ends(path, &format!("top --once --url {http}"), 0);
    for word in ["shards", "demo-market", "connected", "bars.1s", "watermark"] {
        assert!(text.contains(word) || word == "shards", "`{word}` is not in: {text}");
    }
    let mut watching = Running::start(path, &format!("top --plain --every 50ms --url {http}"));
    assert!(watching.line().contains("feeds 2"));
    watching.interrupted();
    let summary: Value = serde_json::from_str(&server.interrupted()).expect("a summary");
    assert_eq!(
        (&summary["imbalance"], summary["sources"].as_array().map(Vec::len)),
        (&Value::from(0), Some(2))
    );
    for source in summary["sources"].as_array().unwrap() {
        assert_eq!(source["received"], source["accepted"], "{source}");
    }
}

#[test]
fn without_a_terminal_a_server_with_the_demo_says_lines() {
    let folder = folder();
    let line = "serve --demo --listen 127.0.0.1:0 --http 127.0.0.1:0 --data data";
    let mut server = Running::start(folder.path(), line);
    assert!(server.line().starts_with("listening on 127.0.0.1:"));
    assert!(server.line().starts_with("open http://127.0.0.1:"));
    // The demo's network tells its flows to the node itself.
    let exports = server.line();
    assert!(exports.starts_with("exports of NetFlow, IPFIX and sFlow at 127.0.0.1:"), "{exports}");
    let said = server.line();
    assert!(said.contains(" s  events ") && said.contains("watermark"), "{said}");
    let rest = server.interrupted();
    assert!(rest.contains("demo-market") && rest.contains("ledger"), "{rest}");
}

#[test]
fn what_comes_through_a_pipe_is_published_as_it_comes() {
    let folder = folder();
    let path = folder.path();
    let (server, place, http) = serve(path, "");
    let mut feed = Running::start(path, &format!("publish - --json --name pipe {place}"));
    let mut pipe = feed.stdin();
    pipe.write_all(b"ts,symbol,price,size\n1767571200000000000,A,1,1\n1767571201000000000,B,2,1\n").unwrap();
    let accepted = |count: u64| move |status: &Value| status["feeds"][0]["accepted"] == count;
    // It is there although the pipe is still open.
    until(path, &http, accepted(2));
    pipe.write_all(b"1767571202000000000,A,3,1\n").unwrap();
    until(path, &http, accepted(3));
    drop(pipe);
    let account: Value = serde_json::from_str(&feed.well()).expect("an account");
    assert_eq!((&account["published"], &account["acked"]), (&Value::from(3), &Value::from(3)));

    // The same once more is a run of its own: nobody can know that it is the same.
    let mut again = Running::start(path, &format!("publish - --json --name pipe --format csv {place}"));
    let mut pipe = again.stdin();
    pipe.write_all(b"ts,symbol,price,size\n1767571203000000000,A,1,1\n").unwrap();
    drop(pipe);
    assert!(again.well().contains("\"published\":1"));

    let (made, _) = ends(
        path,
        &format!("publish generate market --events 5k --symbols 20 --seed 3 --json --name made {place}"),
        0,
    );
    let made: Value = serde_json::from_str(&made).expect("an account");
    assert_eq!(made["published"], 5_000);
    assert!(made["held_back_seconds"].is_f64());
    // What was made once is known.
    let (made, _) = ends(
        path,
        &format!("publish generate market --events 5k --symbols 20 --seed 3 --json --name made {place}"),
        0,
    );
    assert!(made.contains("\"skipped\":5000"), "{made}");

    fails(path, "publish", 2, &["FILE|-"]);
    fails(path, "publish - x.csv --data data", 2, &["`-` stands alone"]);
    fails(
        path,
        "publish generate market --symbols 5000 --data data",
        2,
        &["--symbols is 5000, allowed are 4 to 4096"],
    );
    fails(path, "publish generate marke", 2, &["market, network, w1"]);
    fails(path, "publish --speed 3 --data data generate market", 2, &["options go behind it"]);
    // It is told with the place in the pipe, and what came before is published.
    let mut broken = Running::start(path, &format!("publish - --strict --name broken {place}"));
    let mut pipe = broken.stdin();
    pipe.write_all(b"ts,symbol,price,size\n1767571204000000000,A,1,1\nnonsense\n").unwrap();
    drop(pipe);
    assert_eq!(broken.rest().2, Some(3));
    let summary: Value = serde_json::from_str(&server.interrupted()).expect("a summary");
    let accepted = |name: &str| {
        let mut sources = summary["sources"].as_array().unwrap().iter();
        sources.find(|source| source["name"] == name).map(|source| source["accepted"].clone())
    };
    assert_eq!(accepted("pipe"), Some(4.into()));
    assert_eq!(accepted("broken"), Some(1.into()));
    assert_eq!(summary["imbalance"], 0);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let folder = folder();
    let path = folder.path();
    fails(path, "top --once --url http://127.0.0.1:9", 3, &["no answer from 127.0.0.1:9"]);
    fails(path, "top --once --url https://127.0.0.1:9", 2, &["no TLS"]);
    fails(path, "top --every 1ms", 2, &["50ms to 1h"]);
    // Without --once it is waited for.
    let mut waiting = Running::start(path, "top --url http://127.0.0.1:9 --every 50ms");
    assert!(waiting.line().contains("no answer from 127.0.0.1:9"));
    assert!(waiting.line().contains("no answer from 127.0.0.1:9"));
    waiting.interrupted();
}

#[test]
fn a_doctor_finds_what_is_bad_and_says_so() {
    let folder = folder();
    let path = folder.path();
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let (stdout, _) = ends(path, &format!("doctor --json --data data --listen {taken} --http off"), 1);
    let findings: Value = serde_json::from_str(&stdout).expect("one JSON value");
    let findings = findings["checks"].as_array().expect("a list");
    let of =
        |check: &str| findings.iter().find(|finding| finding["check"] == check).expect("it is looked at");
    assert_eq!(of("quic port")["level"], "bad");
    assert!(of("quic port")["fix"].as_str().is_some_and(|fix| fix.contains("ss -lpntu")));
    assert_eq!(of("certificate")["level"], "ok");
    for finding in findings {
        let level = finding["level"].as_str().expect("a level");
        assert!(["ok", "warn", "bad", "unknown"].contains(&level), "{finding}");
        assert_eq!(finding["fix"].is_string(), ["warn", "bad"].contains(&level), "{finding}");
    }
    std::fs::create_dir_all(path.join("data/tls")).unwrap();
    std::fs::write(path.join("data/tls/dev-cert.pem"), "nothing").unwrap();
    let (text, _) = ends(path, "doctor --data data --listen 127.0.0.1:0 --http off", 1);
    assert!(text.contains("dev-cert.pem: it holds no certificate") && text.contains("mend it:"), "{text}");
}
