//! The real binary as a server: what is served equals what a replay computes, whatever happens to feeds on the way.

mod common;
#[path = "live/derived.rs"]
mod derived;
#[cfg(feature = "kafka")]
#[path = "live/topic.rs"]
mod topic;

use common::{Running, ends, fails, folder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The same computation, served and replayed.
const WHAT: &str = "--bars 1s,1m --ind rsi:14,vwap:20";

#[track_caller]
fn json(folder: &Path, line: &str) -> Value {
    common::json(folder, line, 0)
}

/// A server on a free port, and the words that lead to it.
fn serve(folder: &Path, threads: &str) -> (Running, String) {
    let (server, hello) = Running::serve(folder, &format!("--threads {threads} {WHAT}"));
    if threads != "auto" {
        assert_eq!(hello["threads"], threads);
    }
    let address = hello["listening"].as_str().expect("an address");
    (server, format!("--server {address} --data data"))
}

fn summary(server: Running) -> Value {
    serde_json::from_str(&server.interrupted()).expect("a summary")
}

/// Lines by stream, sorted within it: order between keys is not promised, everything else is.
fn sorted(lines: &str) -> BTreeMap<String, Vec<String>> {
    let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).expect("a record");
        streams.entry(record["ch"].as_str().unwrap().to_owned()).or_default().push(line.to_owned());
    }
    streams.values_mut().for_each(|lines| lines.sort());
    streams
}

/// What a replay of the capture comes to: its lines and its summary.
fn replayed(folder: &Path) -> (BTreeMap<String, Vec<String>>, Value) {
    let summary = json(folder, &format!("replay day.tgc {WHAT} --out results --output jsonl --json"));
    let mut lines = String::new();
    for stream in ["bars.1s", "ind.1s", "bars.1m", "ind.1m"] {
        lines += &std::fs::read_to_string(folder.join(format!("results/{stream}.jsonl"))).expect("results");
    }
    (sorted(&lines), summary)
}

fn capture(events: u32) -> tempfile::TempDir {
    let folder = folder();
    ends(folder.path(), &format!("generate market --events {events} --symbols 40 --out day.tgc"), 0);
    folder
}

/// Each in both layouts of threads.
macro_rules! both {
    ($name:ident) => {
        mod $name {
            #[test]
            fn separate() {
                super::$name("separate");
            }

            #[test]
            fn fused() {
                super::$name("fused");
            }
        }
    };
}

const ALL: &str = "subscribe bars.1s,ind.1s,bars.1m,ind.1m --output jsonl";

both!(what_is_served_is_what_is_replayed);

fn what_is_served_is_what_is_replayed(threads: &str) {
    let folder = capture(60_000);
    let path = folder.path();
    let (server, place) = serve(path, threads);
    let published = json(path, &format!("publish day.tgc --json {place}"));
    assert_eq!(published["acked"], 60_000);

    // One that asks for everything from the first number, one for what a late comer sees.
    let mut all = Running::start(path, &format!("{ALL} --from sequence:1 {place}"));
    let first = all.line();
    let (snapshot, _) =
        ends(path, &format!("subscribe bars.1m --from snapshot --output jsonl --idle-exit 200ms {place}"), 0);
    let (lookback, _) = ends(
        path,
        &format!("subscribe bars.1m --from lookback:3 --keys AQA* --output csv --idle-exit 2s {place}"),
        0,
    );
    assert!(lookback.starts_with("symbol,ts_open,ts_close,open"), "{lookback}");

    let summary = summary(server);
    let rest = all.well();
    let (want, replay) = replayed(path);
    assert_eq!(sorted(&format!("{first}\n{rest}")), want, "record by record");
    assert_eq!(summary["digest"], replay["digest"]);
    assert_eq!((&summary["imbalance"], &summary["dropped"]), (&Value::from(0), &Value::from(0)));
    let bars: std::collections::HashSet<&String> = want["bars.1m"].iter().collect();
    assert!(snapshot.lines().count() <= 40 && snapshot.lines().all(|line| bars.contains(&line.to_owned())));
}

both!(a_feed_that_is_killed_goes_on_where_the_server_stands);

fn a_feed_that_is_killed_goes_on_where_the_server_stands(threads: &str) {
    let folder = capture(80_000);
    let path = folder.path();
    let (server, place) = serve(path, threads);
    let mut all = Running::start(path, &format!("{ALL} --from sequence:1 {place}"));

    // Slowly, so that it is killed half-way: as soon as the first result is out.
    let feed = Running::start(path, &format!("publish day.tgc --speed 4000 {place}"));
    let mut lines = all.line() + "\n";
    feed.signal("-KILL");
    drop(feed);
    let again = json(path, &format!("publish day.tgc --json {place}"));
    let skipped = again["skipped"].as_u64().unwrap();
    assert!((1..80_000).contains(&skipped), "killed half-way: {again}");
    assert_eq!(again["published"].as_u64().unwrap() + skipped, 80_000);
    // And once more: the server has it all.
    assert_eq!(json(path, &format!("publish day.tgc --json {place}"))["published"], 0);

    let summary = summary(server);
    let rest = all.well();
    lines += &rest;
    let (want, replay) = replayed(path);
    assert_eq!(sorted(&lines), want, "exactly once");
    assert_eq!(summary["digest"], replay["digest"]);
    assert_eq!(summary["imbalance"], 0);
    assert_eq!(summary["sources"][0]["accepted"], 80_000);
}

#[test]
fn mistakes_are_told_in_words() {
    let folder = folder();
    let path = folder.path();
    let fails = |line: &str, code, words: &[&str]| fails(path, line, code, words);
    fails("subscribe bars.1s --data none", 3, &["no certificate", "tidegate serve"]);
    let (server, place) = serve(path, "auto");
    fails(
        &format!("subscribe bars.9s {place}"),
        3,
        &["there is no stream `bars.9s`", "bars.1s, ind.1s, bars.1m"],
    );
    fails(&format!("subscribe bars.1s --from lookback:9999 {place}"), 3, &["lookback is 9999", "1 to 256"]);
    fails("subscribe bars.1s --from never", 2, &["snapshot, sequence:N"]);
    fails("serve --threads two", 2, &["threads `two` is none of auto, fused, separate"]);
    let staged = "serve --threads fused --placement staged --data data --listen 127.0.0.1:0 --http off";
    fails(staged, 2, &["placement `staged` needs threads"]);
    fails("publish", 2, &["FILE"]);
    fails("publish nothing.csv --data data", 3, &["nothing.csv"]);
    let away = "publish generate w1 --events 10 --server 127.0.0.1:9 --data data --give-up-after 200ms";
    fails(away, 3, &["no connection to 127.0.0.1:9"]);
    let wrong = format!("subscribe bars.1s --server-name example.org --give-up-after 200ms {place}");
    fails(&wrong, 3, &["refused in its handshake", "example.org"]);
    let summary = summary(server);
    assert_eq!((&summary["events"], &summary["imbalance"]), (&Value::from(0), &Value::from(0)));
}
