//! A server that ends and is started again, on the same port and data folder, while a feed publishes and a reader reads: what
//! was acknowledged to the feed and lost is declared, the rest arrives once, and the reader is told and misses nothing.

mod common;

use common::{Running, ends, folder};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

const EVENTS: u64 = 40_000;
/// Between two events: 1-second bars of 200 each.
const STEP_NS: u64 = 5_000_000;
/// 2026-01-05T00:00:00Z.
const START_NS: u64 = 1_767_571_200_000_000_000;

/// Trades of one symbol, from number `first` on.
fn write_trades(path: &Path, first: u64) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    writeln!(out, "ts,symbol,price,size").expect("room");
    for at in first..EVENTS {
        writeln!(out, "{},A,{},{}", START_NS + at * STEP_NS, 900 + at % 77, 1 + at % 13).expect("room");
    }
}

/// Bars of a second, as a replay writes them.
fn replayed(folder: &Path, file: &str) -> Vec<Value> {
    let line = format!("replay {file} --bars 1s --out {file}.d --output jsonl --quiet");
    ends(folder, &line, 0);
    let text = std::fs::read_to_string(folder.join(format!("{file}.d/bars.1s.jsonl"))).expect("results");
    parsed(text.lines())
}

fn parsed<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<Value> {
    lines.map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// What the events alone decide; frames and losses are the log's.
fn content(bar: &Value) -> [&Value; 12] {
    ["seq", "t", "T", "o", "h", "l", "c", "v", "w", "n", "x", "rev"].map(|name| &bar[name])
}

fn same(served: &[Value], replayed: &[Value]) {
    for (at, (served, replayed)) in served.iter().zip(replayed).enumerate() {
        assert_eq!(content(served), content(replayed), "bar {at}");
    }
    assert_eq!(served.len(), replayed.len());
}

/// `signal` ends the first server; `follow` is what the reader says beside its subscription.
fn restart(signal: &str, follow: &str) {
    let folder = folder();
    let path = folder.path();
    write_trades(&path.join("all.csv"), 0);
    let serve = |listen: &str| {
        let line = format!("serve --json --listen {listen} --http off --data data --bars 1s");
        let mut server = Running::start(path, &line);
        let hello: Value = serde_json::from_str(&server.line()).expect("it says where it listens");
        (server, hello["listening"].as_str().expect("an address").to_owned())
    };
    let (first, address) = serve("127.0.0.1:0");
    let place = format!("--server {address} --data data --give-up-after 5m");
    let mut reader =
        Running::start(path, &format!("subscribe bars.1s --from sequence:1 --output jsonl {follow} {place}"));
    let feed = Running::start(path, &format!("publish all.csv --speed 40 --json {place}"));
    let mut before: Vec<String> = (0..40).map(|_| reader.line()).collect();
    first.signal(signal);
    first.rest();
    let (second, _) = serve(&address);
    let account: Value = serde_json::from_str(&feed.well()).expect("an account");
    // The new numbering is what tells the two apart.
    let begins = |line: &String| line.contains("\"seq\":1,");
    before.extend(std::iter::from_fn(|| Some(reader.line()).filter(|line| !begins(line))));
    let summary: Value = serde_json::from_str(&second.interrupted()).expect("a summary");

    // Every event is with the second server, or was acknowledged by the first and is declared as lost.
    let lost = account["lost_by_server"].as_u64().expect("a count");
    assert!((1..EVENTS).contains(&lost), "{account}");
    assert_eq!(
        [&account["offered"], &account["acked"], &account["skipped"]],
        [EVENTS, EVENTS, 0],
        "{account}"
    );
    assert_eq!(account["connections"], 2, "{account}");
    let source = &summary["sources"][0];
    let found = [&source["declared_lost"], &source["accepted"], &source["ahead"], &source["refused"]];
    assert_eq!(found, [lost, EVENTS - lost, 0, 0], "{source}");
    // On a busy machine the feed may ask and send again: dropped and counted.
    let duplicate = source["duplicate"].as_u64().expect("a count");
    assert_eq!(source["received"], EVENTS - lost + duplicate, "{source}");
    assert_eq!((&summary["imbalance"], &summary["dropped"]), (&Value::from(0), &Value::from(0)));

    write_trades(&path.join("rest.csv"), lost);
    let rest = replayed(path, "rest.csv");
    // The first line of the second server was read above.
    let after: Vec<String> = (1..rest.len()).map(|_| reader.line()).collect();
    if !follow.is_empty() {
        // It would wait for a third one.
        reader.signal("-INT");
    }
    let (more, words, code) = reader.rest();
    assert_eq!((more, code), (Vec::<String>::new(), Some(0)), "{words}");

    // The reader has the first server's bars from the first on, without a hole, as far as it got; then it is told, and has
    // every bar of the second.
    let mut before = parsed(before.iter().map(String::as_str));
    if signal == "-INT" {
        // The open bar was closed by the end; all others are whole.
        assert_eq!(before.pop().expect("bars")["cause"], "end");
    }
    let all = replayed(path, "all.csv");
    same(&before, &all[..before.len()]);
    assert_eq!(words.matches("the server was started anew").count(), 1, "{words}");
    same(&parsed(after.iter().map(String::as_str)), &rest[1..]);
    assert_eq!(summary["streams"][0]["results"], rest.len() as u64);
}

#[test]
fn a_server_that_is_killed_and_started_again_loses_only_what_it_says() {
    restart("-KILL", "");
}

#[test]
fn a_reader_that_follows_waits_for_the_next_server() {
    restart("-INT", "--follow");
}
