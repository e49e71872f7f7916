//! Snapshots beside the journal, as the server's user meets them: what it says, what it refuses, and what may be removed.

mod common;

use common::{Running, command, fails, folder};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// 2026-01-05T00:00:00Z.
const START_NS: u64 = 1_767_571_200_000_000_000;

fn write_trades(path: &Path, events: u64) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    writeln!(out, "ts,symbol,price,size").expect("room");
    for at in 0..events {
        let ts = START_NS + at * 1_000_000;
        writeln!(out, "{ts},{},{},{}", ["A", "B", "C"][at as usize % 3], 900 + at % 77, 1 + at % 13)
            .expect("room");
    }
}

fn serve(folder: &Path, data: &str, more: &str) -> (Running, Value) {
    let line =
        format!("serve --json --listen 127.0.0.1:0 --http off --data {data} --bars 1s --journal {more}");
    let mut server = Running::start(folder, &line);
    let hello = serde_json::from_str(&server.line()).expect("it says where it listens");
    (server, hello)
}

/// Publishes the first `count` trades, durably, and ends the server; its summary.
fn publish(folder: &Path, data: &str, more: &str, count: u64) -> Value {
    let (server, hello) = serve(folder, data, more);
    let address = hello["listening"].as_str().expect("an address");
    let sent = common::json(
        folder,
        &format!("publish all.csv --count {count} --ack durable --json --server {address} --data {data}"),
        0,
    );
    assert_eq!(sent["acked"], count, "{sent}");
    end(server)
}

fn end(server: Running) -> Value {
    serde_json::from_str(&server.interrupted()).expect("a summary")
}

/// Snapshots in a data folder, oldest first.
fn snapshots(folder: &Path, data: &str) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder.join(data).join("journal")).expect("a journal");
    let mut found: Vec<PathBuf> = found.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "tgs"));
    found.sort();
    found
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("room");
}

#[test]
fn a_damaged_snapshot_is_told_and_the_one_before_it_serves() {
    let folder = folder();
    let path = folder.path();
    write_trades(&path.join("all.csv"), 20_000);
    publish(path, "data", "", 10_000);
    let calm = publish(path, "data", "", 20_000);
    let found = snapshots(path, "data");
    assert_eq!(found.len(), 2);
    flip(&found[1]);
    let (server, hello) = serve(path, "data", "");
    let recovered = &hello["recovered"];
    let note = recovered["notes"][0].as_str().expect("a note");
    assert!(note.contains("is damaged: the checksum does not match the content"), "{note}");
    assert!(recovered["snapshot"].as_u64() < Some(11_000) && recovered["events"] == 10_000, "{recovered}");
    assert_eq!(end(server)["digest"], calm["digest"]);

    // Neither of them: the log has everything.
    snapshots(path, "data").iter().for_each(|file| flip(file));
    let (server, hello) = serve(path, "data", "");
    let recovered = &hello["recovered"];
    assert_eq!((&recovered["snapshot"], &recovered["events"]), (&Value::Null, &Value::from(20_000)));
    assert_eq!(end(server)["digest"], calm["digest"]);
}

#[test]
fn a_snapshot_of_another_journal_is_refused_and_nothing_is_changed() {
    let folder = folder();
    let path = folder.path();
    write_trades(&path.join("all.csv"), 6_000);
    publish(path, "data", "", 3_000);
    publish(path, "other", "", 6_000);
    for file in snapshots(path, "data") {
        std::fs::remove_file(file).expect("it is there");
    }
    let foreign = snapshots(path, "other").remove(0);
    let there = path.join("data/journal").join(foreign.file_name().expect("a name"));
    std::fs::copy(&foreign, &there).expect("room");
    let line = "serve --listen 127.0.0.1:0 --http off --data data --bars 1s --journal";
    fails(path, line, 3, &["the snapshot does not belong to the journal", "it is of the lineage"]);
    assert!(there.exists());

    // A log that has lost what its snapshot knows.
    std::fs::remove_file(&there).expect("it is there");
    publish(path, "data", "", 3_000);
    let segment = path.join("data/journal/0000000000000000.tgj");
    let bytes = std::fs::read(&segment).expect("a segment");
    std::fs::write(&segment, &bytes[..4_096]).expect("room");
    fails(path, line, 3, &["the journal ends at", "what was behind that is lost"]);
    assert_eq!(std::fs::read(&segment).expect("still there").len(), 4_096);
}

#[test]
fn other_settings_read_the_log_from_its_start() {
    let folder = folder();
    let path = folder.path();
    write_trades(&path.join("all.csv"), 5_000);
    publish(path, "data", "", 5_000);
    let (server, hello) = serve(path, "data", "--horizon 7s");
    let recovered = &hello["recovered"];
    assert_eq!((&recovered["snapshot"], &recovered["events"]), (&Value::Null, &Value::from(5_000)));
    assert!(recovered["notes"][0].as_str().is_some_and(|note| note.contains("it was taken with")));
    end(server);
}

/// Trades of many symbols, some of them late.
fn write_market(path: &Path, events: u64) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    writeln!(out, "ts,symbol,price,size").expect("room");
    for at in 0..events {
        let late = if at % 17 == 0 { 700_000_000 } else { at % 3 * 1_000_000 };
        let (ts, symbol) = (START_NS + 1_000_000_000 + at * 2_000_000 - late, at * at % 23);
        writeln!(out, "{ts},S{symbol},{},{}", 900 + at * 7 % 77, 1 + at % 13).expect("room");
    }
}

/// Ends a server in order, and has readers of some of its streams read them from the first result to the last; its notes, its summary, and the
/// results of each, sorted where no order is promised.
fn read_out(
    folder: &Path,
    data: &str,
    (server, hello): (Running, Value),
    streams: &[&str],
) -> (String, Value, Vec<Vec<String>>) {
    let address = hello["listening"].as_str().expect("an address");
    let readers: Vec<(Running, String)> = streams
        .iter()
        .map(|stream| {
            let place = format!("--server {address} --data {data}");
            let line = format!("subscribe {stream} --from sequence:1 --output jsonl {place}");
            let mut reader = Running::start(folder, &line);
            let first = reader.line();
            (reader, first)
        })
        .collect();
    server.signal("-INT");
    let (out, words, code) = server.rest();
    assert_eq!(code, Some(0), "{words}");
    let summary: Value = serde_json::from_str(out.last().expect("a summary")).expect("a summary");
    let results = readers.into_iter().map(|(reader, first)| {
        let (mut lines, words, code) = reader.rest();
        assert_eq!(code, Some(0), "{words}");
        lines.push(first);
        lines.sort_unstable();
        lines
    });
    let results = results.collect();
    (words, summary, results)
}

/// The same feed in the same three parts: to a server that is started anew with other shards each time, and to one that goes on.
#[test]
fn a_server_starts_again_with_any_number_of_shards() {
    let folder = folder();
    let path = folder.path();
    write_market(&path.join("all.csv"), 12_000);
    let pipeline = "--bars 1s,4s@1s,20t,session:50ms,sliding:2s/500ms --ind sma:5,rsi:14,vwap:4 --regime hmm:2 --anomaly volume";
    let serve = |data: &str, shards: u32| {
        let line = format!(
            "serve --json --listen 127.0.0.1:0 --http off --data {data} --journal --shards {shards} {pipeline}"
        );
        let mut server = Running::start(path, &line);
        let hello: Value = serde_json::from_str(&server.line()).expect("it says where it listens");
        (server, hello)
    };
    let publish = |data: &str, hello: &Value, count: u64| {
        let address = hello["listening"].as_str().expect("an address");
        let line =
            format!("publish all.csv --count {count} --ack durable --json --server {address} --data {data}");
        assert_eq!(common::json(path, &line, 0)["acked"], count);
    };
    let parts = [4_000, 8_000, 12_000];

    let calm = serve("calm", 1);
    parts.iter().for_each(|count| publish("calm", &calm.1, *count));
    let streams = ["bars.1s", "bars.sliding-2s-500ms", "ind.1s", "regime.20t", "anomaly.20t"];
    let (_, calm, wanted) = read_out(path, "calm", calm, &streams);
    assert!(wanted.iter().all(|results| results.len() > 200), "{calm}");

    let mut before = None;
    for (shards, count) in [1, 3, 2].into_iter().zip(parts) {
        let (server, hello) = serve("data", shards);
        let recovered = &hello["recovered"];
        assert_eq!(recovered["shards_before"], Value::from(before), "{recovered}");
        assert_eq!(recovered["notes"], Value::Array(Vec::new()), "{recovered}");
        assert_eq!(
            (recovered["snapshot"].is_null(), &recovered["events"]),
            (before.is_none(), &Value::from(0))
        );
        publish("data", &hello, count);
        let last = count == 12_000;
        let (words, summary, results) =
            read_out(path, "data", (server, hello), if last { &streams } else { &[] });
        let said = before.map(|before: u32| {
            let of = if before == 1 { "shard" } else { "shards" };
            format!("note: the snapshot of {before} {of} is taken over by {shards}")
        });
        let told: Vec<&str> = words.lines().filter(|line| line.contains("is taken over by")).collect();
        assert_eq!(told, said.as_deref().into_iter().collect::<Vec<_>>(), "{words}");
        before = Some(shards);
        if last {
            assert!(summary["digest"].is_string() && summary["events"] == 12_000, "{summary}");
            for what in ["digest", "events", "imbalance", "streams"] {
                assert_eq!(summary[what], calm[what], "{what}");
            }
            assert_eq!(results, wanted);
        }
    }
}

#[test]
fn what_is_in_snapshots_may_leave_the_journal() {
    let folder = folder();
    let path = folder.path();
    write_trades(&path.join("all.csv"), 60_000);
    std::fs::write(
        path.join("keep.toml"),
        "[journal]\nenabled = true\nsegment_bytes = \"64KiB\"\nkeep_bytes = \"1MiB\"\nsnapshot_records = 4_000\n\n[[stream]]\nbars = \"1s\"\n",
    )
    .expect("room");
    let calm = publish(path, "calm", "", 60_000);
    let line = "serve --json --listen 127.0.0.1:0 --http off --data data --config keep.toml";
    let mut server = Running::start(path, line);
    let hello: Value = serde_json::from_str(&server.line()).expect("it says where it listens");
    let address = hello["listening"].as_str().expect("an address");
    let publish = format!("publish all.csv --ack durable --json --speed 20 --server {address} --data data");
    assert_eq!(common::json(path, &publish, 0)["acked"], 60_000);
    let summary = end(server);
    assert_eq!(summary["digest"], calm["digest"]);
    let journal = &summary["journal"];
    assert!(journal["first_offset"].as_u64() > Some(0), "{summary}");
    assert_eq!(snapshots(path, "data").len(), 2);

    let shown = common::json(path, "journal inspect data/journal --json", 0);
    assert_eq!(shown["first_offset"], journal["first_offset"]);
    assert_eq!(shown["snapshots"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(common::json(path, "journal verify data/journal --json", 0)["sound"], true);
    let exported =
        command(path, "journal export data/journal --count 3").output().expect("the binary starts");
    let lines = String::from_utf8_lossy(&exported.stdout).into_owned();
    assert!(lines.contains(&format!("\"offset\":{}", journal["first_offset"])), "{lines}");
    assert_eq!(lines.lines().count(), 3);
    // Names are in front of what is left; the oldest snapshot has them.
    let (_, note) = common::ends(path, "journal export data/journal --out rest.tgc", 0);
    assert!(note.contains("it begins at offset"), "{note}");
    let rest = common::json(path, "inspect --json rest.tgc", 0);
    assert!(rest["events"].as_u64().is_some_and(|events| events < 60_000), "{rest}");
    let mut names: Vec<&str> =
        rest["top_keys"].as_array().expect("keys").iter().filter_map(|key| key["name"].as_str()).collect();
    names.sort_unstable();
    // On a machine that stood still all may have come in one batch, in a segment of its own, which then goes as a whole.
    if rest["events"].as_u64() > Some(0) {
        assert_eq!(names, ["A", "B", "C"]);
    }

    let mut server = Running::start(path, line);
    let hello: Value = serde_json::from_str(&server.line()).expect("it says where it listens");
    assert_eq!(hello["recovered"]["records"], 1, "{hello}");
    assert_eq!(end(server)["digest"], calm["digest"]);
    // Without its snapshots it cannot be gone on with, and says so.
    for file in snapshots(path, "data") {
        std::fs::remove_file(file).expect("it is there");
    }
    let line = "serve --listen 127.0.0.1:0 --http off --data data --config keep.toml";
    fails(path, line, 3, &["begins at offset", "no snapshot holds what was in front of it"]);
    fails(path, "journal export data/journal --out rest.tgc", 3, &["no snapshot has the names"]);
}

#[test]
fn options_that_cannot_be_are_refused() {
    let folder = folder();
    fails(folder.path(), "serve --journal-snapshot 1M", 2, &["add --journal"]);
    fails(folder.path(), "serve --journal --journal-snapshot soon", 2, &["64MiB", "30s"]);
    fails(folder.path(), "serve --journal --journal-snapshot 1KiB", 2, &["64KiB to 1TiB"]);
    fails(folder.path(), "serve --journal --journal-snapshot 1ms", 2, &["100ms to 7d"]);
}
