//! Rules over streams of results: in a server and over a file, and what is refused.

use super::common::{Running, command, ends, fails, folder, http, json};
use super::write;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

const START_NS: u64 = 1_767_623_400_000_000_000;
const SECONDS: u64 = 400;

/// Trades of three symbols, one a second: A and B fall together now and then, C stays.
fn trades() -> String {
    let mut text = String::from("ts,symbol,price,size\n");
    for second in 0..SECONDS {
        let ts = START_NS + second * 1_000_000_000;
        let fallen = |phase: u64| (second + phase) % 50 < 6;
        for (symbol, price) in
            [("A", if fallen(0) { 90 } else { 100 }), ("B", if fallen(3) { 80 } else { 101 }), ("C", 100)]
        {
            // The volume of one second is out of the ordinary.
            let size = if symbol == "C" && second == 380 { 5_000 } else { 10 + (second * 7) % 5 };
            text += &format!("{ts},{symbol},{price}.25,{size}\n");
        }
    }
    text
}

const PATTERNS: [&str; 3] = [
    // Two streams of one key: the bar closes low, then its average follows.
    "sinks: bars.1s(close < 95) then ind.1s(sma_3 < 95) within 5s severity high",
    // A bar that is high again ends it.
    "stays: bars.1s(close < 95) times 4 within 8s without bars.1s(close > 99)",
    // What a stream tells by itself, then a bar of the same key.
    "after: alert(kind = anomaly) then bars.1s(close > 99) within 10s by key",
];

const SIGMA: &str = "title: Low\nname: low\nlogsource: {product: tidegate, service: bars.1s}\n\
detection: {s: {close|lt: 95, state: final}, condition: s}\n---\n\
title: Several fall at once\nname: several\nlevel: high\n\
correlation: {type: value_count, rules: low, timespan: 5s, condition: {field: symbol, gte: 2}}\n---\n\
title: Often low\nname: often\nlevel: low\n\
correlation: {type: event_count, rules: low, group-by: [symbol], timespan: 10s, condition: {gte: 5}}\n";

fn configuration() -> String {
    let patterns: Vec<String> = PATTERNS.iter().map(|text| format!("\"{text}\"")).collect();
    format!(
        "[[stream]]\nbars = \"1s\"\nindicators = [\"sma:3\"]\nanomaly = \"volume\"\n\n[alerts]\nsigma = [\"rules.yml\"]\npatterns = [{}]\n",
        patterns.join(", ")
    )
}

/// The alerts of rules, by kind and entity and beginning, with what does not depend on where they were found.
fn told(alerts: &Value) -> BTreeMap<(String, String, String), Value> {
    let alerts = alerts.as_array().unwrap().iter();
    let of = |alert: &Value| {
        let text = |name: &str| alert[name].as_str().unwrap().to_owned();
        let key = (text("kind"), text("entity"), alert["first_ts"].to_string());
        let mut alert = alert.clone();
        for name in ["proof", "unproven", "input", "status", "note"] {
            alert[name] = Value::Null;
        }
        (key, alert)
    };
    alerts.map(of).collect()
}

fn detect(path: &Path, more: &[&str]) -> Value {
    let mut command =
        command(path, "detect trades.csv --bars 1s --ind sma:3 --anomaly volume --sigma rules.yml --json");
    for pattern in PATTERNS {
        command.args(["--pattern", pattern]);
    }
    let output = command.args(more).output().unwrap();
    let (said, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{notes}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn a_node_finds_in_its_streams_what_detect_finds_in_the_file() {
    let folder = folder();
    let path = folder.path();
    write(path, "trades.csv", trades());
    write(path, "rules.yml", SIGMA);
    write(path, "node.toml", configuration());
    let found = detect(path, &["--alerts", "kept"]);
    assert_eq!((found["early"].as_u64(), found["forgotten"].as_u64()), (Some(0), Some(0)), "{found}");
    let expected = told(&found["alerts"]);
    let kinds: std::collections::BTreeSet<&str> = expected.keys().map(|key| key.0.as_str()).collect();
    let all = ["anomaly", "pattern:after", "pattern:sinks", "pattern:stays", "sigma:often", "sigma:several"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    // In the order of time the low second of A comes before that of B; nobody but C has the odd volume.
    for (kind, entity, _) in expected.keys() {
        match kind.as_str() {
            "anomaly" | "pattern:after" => assert_eq!(entity, "C"),
            "sigma:several" => assert!(entity == "A" || entity == "B"),
            _ => assert!(entity == "A" || entity == "B", "{kind} of {entity}"),
        }
    }
    // Whatever was found in the file is found there again.
    let listed = json(path, "alert list --all --alerts kept --json", 0);
    for alert in listed["alerts"].as_array().unwrap() {
        let id = alert["id"].as_str().unwrap();
        let (said, _) = ends(path, &format!("alert replay {id} --alerts kept"), 0);
        assert!(said.starts_with("same: ") && said.contains("of the results of"), "{said}");
    }
    // Judged again it adds nothing.
    detect(path, &["--alerts", "kept"]);
    assert_eq!(json(path, "alert list --all --alerts kept --json", 0)["alerts"], listed["alerts"]);

    for more in ["--threads fused", "--threads separate --shards 3"] {
        let (server, hello) = Running::serve(path, &format!("--config node.toml {more}"));
        let place: SocketAddr =
            hello["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        let quic = hello["listening"].as_str().unwrap();
        ends(path, &format!("publish trades.csv --server {quic} --data data --name market"), 0);
        // Each kind of rule has spoken while the node runs.
        let (status, text) = http::events(place, "/v1/sse?streams=alerts&from=snapshot", "", |text| {
            all.iter().all(|kind| text.contains(&format!("\"kind\":\"{kind}\"")))
        });
        assert_eq!(status, 200, "{text}");
        let shown = http::get(place, "/v1/alerts?state=all&kind=pattern:sinks", "");
        let shown: Value = serde_json::from_slice(&shown.body).unwrap();
        let id = shown["alerts"][0]["id"].as_str().unwrap();
        let one: Value =
            serde_json::from_slice(&http::get(place, &format!("/v1/alerts/{id}"), "").body).unwrap();
        assert_eq!((&one["method"], &one["severity"]), (&json!(PATTERNS[0]), &json!("high")), "{one}");
        assert_eq!(one["replay"], format!("tidegate alert replay {id}"), "{one}");
        // What it was found in can be looked at.
        let rows = one["rows"].as_array().unwrap();
        assert!(
            (2..=60).contains(&rows.len()) && rows.iter().all(|row| row["key"] == one["entity"]),
            "{one}"
        );
        let last = rows.last().unwrap();
        let is_low =
            |row: &Value, column: &str| row["values"][column].as_f64().is_some_and(|value| value < 95.0);
        assert!(last["stream"] == "ind.1s" && is_low(last, "sma_3"), "{last}");
        assert!(rows.iter().any(|row| row["stream"] == "bars.1s" && is_low(row, "close")), "{one}");
        let summary = server.summary();
        assert_eq!(summary["imbalance"], 0, "{summary}");
        // The same episodes with the same counts, scores, reasons and times.
        let kept = json(path, "alert list --all --data data --json", 0);
        assert_eq!(told(&kept["alerts"]), expected, "{more}");
        let (mut again, mut not) = (0, 0);
        for alert in kept["alerts"].as_array().unwrap() {
            let (id, kind) = (alert["id"].as_str().unwrap(), alert["kind"].as_str().unwrap());
            let unproven = alert["unproven"].as_str().unwrap_or_default();
            match kind {
                // What counts over several keys, or rests on alerts, cannot be shown by the rows of one key.
                "sigma:several" => assert!(unproven.contains("of other keys"), "{alert}"),
                "pattern:after" => assert!(unproven.contains("alerts of streams"), "{alert}"),
                _ => {
                    let (said, _) = ends(path, &format!("alert replay {id} --data data"), 0);
                    assert!(said.starts_with(&format!("same: {kind} of ")), "{said}");
                    again += 1;
                    continue;
                }
            }
            fails(path, &format!("alert replay {id} --data data"), 3, &["cannot be judged again", unproven]);
            not += 1;
        }
        assert_eq!((again, not), (7, 3), "{kept}");
        std::fs::remove_dir_all(path.join("data/alerts")).unwrap();
    }
}

/// A surface and a spectrum come behind the bars they are of. What is found in them must not show that: a column of a surface is the
/// indicator of that name, so a rule over either finds the same beside bars.
#[test]
fn what_is_derived_is_read_in_the_order_of_time_too() {
    let folder = folder();
    let path = folder.path();
    write(path, "trades.csv", trades());
    let over = |name: &str, stream: &str| {
        format!("{name}: {stream}(rsi_2 < 40) then bars.1s(close >= 100) within 4s severity high")
    };
    let rules = [
        over("one", "ind.1s"),
        over("other", "surface.rsi"),
        "steps: corr.spectrum(ready = 1) times 5 within 10s".to_owned(),
        // Bars of a time come before what is derived from them.
        "never: surface.rsi then bars.1s within 500ms".to_owned(),
    ];
    let patterns: Vec<String> = rules.iter().map(|text| format!("\"{text}\"")).collect();
    let configuration = format!(
        "[[stream]]\nbars = \"1s\"\nindicators = [\"rsi:2\"]\n\n[[surface]]\nbars = \"1s\"\nsweep = [\"rsi:2..5\"]\n\n\
         [[spectrum]]\nbars = \"1s\"\nwindow = 20\n\n[alerts]\npatterns = [{}]\n",
        patterns.join(", ")
    );
    write(path, "node.toml", configuration);
    for more in ["--threads fused", "--threads separate --shards 3"] {
        let (server, hello) = Running::serve(path, &format!("--config node.toml {more}"));
        let quic = hello["listening"].as_str().unwrap();
        ends(path, &format!("publish trades.csv --server {quic} --data data --name market"), 0);
        // Nearly all is derived before the end, which waits for a bounded time.
        let place: SocketAddr =
            hello["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        let late = START_NS + (SECONDS - 10) * 1_000_000_000;
        let (status, text) = http::events(place, "/v1/sse?streams=surface.rsi&from=snapshot", "", |text| {
            let time = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
            text.split("\"ts\":\"").skip(1).filter_map(time).any(|time| time >= late)
        });
        assert_eq!(status, 200, "{text}");
        assert_eq!(server.summary()["imbalance"], 0);
        let kept = json(path, "alert list --all --data data --json", 0);
        let kept = kept["alerts"].as_array().unwrap();
        let of = |kind: &str| -> Vec<[String; 4]> {
            let alerts = kept.iter().filter(|alert| alert["kind"] == format!("pattern:{kind}"));
            let what = |alert: &Value| {
                ["entity", "first_ts", "last_ts", "count"].map(|name| alert[name].to_string())
            };
            let mut all: Vec<_> = alerts.map(what).collect();
            all.sort_unstable();
            all
        };
        let found = of("one");
        // The falls of both symbols, and that nothing is between them.
        let count = |one: &[String; 4]| one[3].parse::<u64>().unwrap();
        assert!(found.iter().map(count).sum::<u64>() >= 12, "{found:?}");
        assert_eq!(of("other"), found, "{more}");
        // Steps that a feed from the past leaves behind at once give way to the newest, so their number is not known.
        let steps = of("steps");
        assert!(!steps.is_empty() && steps.iter().all(|one| one[0] == "\"bars.1s\""), "{steps:?}");
        assert_eq!(of("never"), Vec::<[String; 4]>::new(), "{more}");
        for alert in kept.iter().filter(|alert| alert["kind"] == "pattern:other") {
            let line = format!("alert replay {} --data data", alert["id"].as_str().unwrap());
            assert!(ends(path, &line, 0).0.starts_with("same: pattern:other of "), "{alert}");
        }
        std::fs::remove_dir_all(path.join("data/alerts")).unwrap();
    }
    // A file's bars alone are computed by `detect`.
    let instead = ["no stream", "`serve` does", "[[spectrum]]", "`publish`", "--ind", "bars.1s"];
    fails(path, "detect trades.csv --config node.toml --pattern corr.spectrum", 2, &instead);
}

/// A pattern without a name is its own kind, which is cut where it is long.
#[test]
fn what_a_long_pattern_finds_is_found_again() {
    let folder = folder();
    let path = folder.path();
    write(path, "trades.csv", trades());
    let pattern = format!("bars.1s(close < 95{}) times 4 within 8s", " and close < 99".repeat(20));
    let mut command = command(path, "detect trades.csv --bars 1s --alerts kept");
    let output = command.args(["--pattern", &pattern]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = json(path, "alert list --all --alerts kept --json", 0);
    let alerts = listed["alerts"].as_array().unwrap();
    assert!(!alerts.is_empty() && alerts.iter().all(|alert| alert["kind"].as_str().unwrap().len() == 255));
    let id = alerts[0]["id"].as_str().unwrap();
    assert!(ends(path, &format!("alert replay {id} --alerts kept"), 0).0.starts_with("same: "));
}

#[test]
fn a_stream_that_a_reload_gives_other_columns_is_no_longer_read() {
    let folder = folder();
    let path = folder.path();
    write(path, "trades.csv", trades());
    let configuration = |indicator: &str| {
        let patterns = "\"gone: ind.1s(sma_3 < 95) within 10s\", \"stays: bars.1s(close < 95) within 10s\"";
        format!(
            "[[stream]]\nbars = \"1s\"\nindicators = [\"{indicator}\"]\n\n[alerts]\npatterns = [{patterns}]\n"
        )
    };
    write(path, "node.toml", configuration("sma:3"));
    let (server, hello) = Running::serve(path, "--config node.toml");
    // Read by its place the column would be another average now.
    write(path, "node.toml", configuration("sma:5"));
    server.signal("-HUP");
    while !server.note().contains("warning: rules read ind.1s, which has other columns now") {}
    let quic = hello["listening"].as_str().unwrap();
    ends(path, &format!("publish trades.csv --server {quic} --data data --name market"), 0);
    assert_eq!(server.summary()["imbalance"], 0);
    let kept = json(path, "alert list --all --data data --json", 0);
    let kinds: Vec<&Value> = kept["alerts"].as_array().unwrap().iter().map(|alert| &alert["kind"]).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| **kind == "pattern:stays"), "{kinds:?}");
}

#[test]
fn rules_over_what_is_not_computed_are_refused_with_what_is() {
    let folder = folder();
    let path = folder.path();
    write(path, "trades.csv", trades());
    let serve = "serve --listen 127.0.0.1:0 --http off --data data --bars 1s --ind sma:3";
    let detect = "detect trades.csv --bars 1s --ind sma:3";
    for (pattern, words) in [
        ("bars.5m within 1s", &["no stream", "bars.1s", "ind.1s"][..]),
        ("bars.1s(clsoe > 1) within 1s", &["did you mean `close`"]),
        ("bars.1s(close contains 9) within 1s", &["holds numbers"]),
        ("bars.1s(state > 9) within 1s", &["holds texts"]),
        ("bars.1s then flow within 1s", &["by symbol", "record of traffic"]),
        ("flow within 1s", &["records of traffic"]),
    ] {
        for line in [serve, detect] {
            let output = command(path, line).args(["--pattern", pattern]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{line} {pattern}: {said}");
            words.iter().for_each(|word| assert!(said.contains(word), "{line} {pattern}: {said}"));
        }
    }
    // Keys of different kinds.
    let output = command(path, &format!("{serve} --hosts 1m"))
        .args(["--pattern", "bars.1s then hosts.1m within 1s"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("by host"), "{said}");
    // An alert-only rule needs somebody who tells alerts.
    let output = command(path, serve).args(["--pattern", "alert within 1s"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("nothing tells any"), "{said}");
    write(path, "r.yml", SIGMA.replace("close|lt", "closed|lt"));
    for line in [serve, detect] {
        fails(path, &format!("{line} --sigma r.yml"), 3, &["r.yml:4:", "closed", "did you mean `close`"]);
    }
    write(path, "r.yml", SIGMA.replace("bars.1s", "bars.1m"));
    fails(path, &format!("{serve} --sigma r.yml"), 3, &["r.yml:3:", "did you mean `bars.1s`"]);
    // Options that do not go together say so.
    fails(path, "detect trades.csv --bars 1s --kind edges", 2, &["--kind is for traffic"]);
    fails(path, "detect trades.csv --disorder 1s", 2, &["--disorder is for results"]);
    fails(path, "detect none.csv --bars 1s", 3, &["none.csv"]);
}
