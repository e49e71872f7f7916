//! `serve --journal` killed again and again while a feed publishes: nothing that was acknowledged is lost or applied twice, and the results are
//! those of a server that was never disturbed.

mod common;

use common::{Running, command, ends, write_trades};
use serde_json::Value;
use std::path::Path;

const EVENTS: u64 = 60_000;
const KILLS: usize = 4;

fn serve(folder: &Path, listen: &str, data: &str, how: &str) -> (Running, String, Value) {
    let line = format!(
        "serve --json --listen {listen} --http off --data {data} --bars 1s,1m --ind rsi:14 --journal {how}"
    );
    let mut server = Running::start(folder, &line);
    let hello = server.json();
    (server, hello["listening"].as_str().expect("an address").to_owned(), hello["recovered"].clone())
}

/// Events on disk, as the journal's own reader counts them.
fn journalled(folder: &Path) -> u64 {
    let shown = command(folder, "journal inspect data/journal --json").output().expect("the binary starts");
    serde_json::from_slice::<Value>(&shown.stdout)
        .map_or(0, |shown| shown["entries"]["events"].as_u64().unwrap_or(0))
}

fn killed(how: &str) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path();
    write_trades(&path.join("all.csv"), EVENTS);

    let (calm, address, _) = serve(path, "127.0.0.1:0", "calm", how);
    let mut feed =
        Running::start(path, &format!("publish all.csv --ack durable --json --server {address} --data calm"));
    assert_eq!(feed.json()["acked"], EVENTS);
    let calm = calm.summary();
    assert_eq!((&calm["journal"]["health"], &calm["imbalance"]), (&Value::from("working"), &Value::from(0)));
    assert_eq!(calm["journal"]["durable"], calm["journal"]["taken"]);

    let (mut server, address, _) = serve(path, "127.0.0.1:0", "data", how);
    let mut begun = Vec::new();
    let publish = format!(
        "publish all.csv --ack durable --speed 60 --json --give-up-after 5m --server {address} --data data"
    );
    let mut feed = Running::start(path, &publish);
    for kill in 1..=KILLS {
        // Under load: a part of the events is there, the rest is on its way.
        let enough = EVENTS * kill as u64 / (KILLS as u64 + 2);
        while journalled(path) < enough {
            std::thread::yield_now();
        }
        server.kill();
        let recovered;
        (server, _, recovered) = serve(path, &address, "data", how);
        assert_eq!(recovered["notes"], Value::Array(Vec::new()), "{recovered}");
        begun.extend(recovered["snapshot"].as_u64());
    }
    let account = feed.json();
    let summary = server.summary();
    assert_eq!(
        [&account["offered"], &account["acked"], &account["lost_by_server"]],
        [EVENTS, EVENTS, 0],
        "{account}"
    );
    assert!(account["connections"].as_u64() > Some(1), "{account}");
    let source = &summary["sources"][0];
    assert_eq!(
        [&source["accepted"], &source["declared_lost"], &source["refused"]],
        [EVENTS, 0, 0],
        "{source}"
    );
    assert_eq!((&summary["imbalance"], &summary["events"]), (&Value::from(0), &Value::from(EVENTS)));
    assert_eq!(summary["digest"], calm["digest"], "the same results as without any kill");
    assert_eq!(summary["streams"], calm["streams"]);

    // After an end in order hardly anything is behind the snapshot, and the results are still the same.
    let snapshots = how.contains("off").then_some(()).is_none();
    let (again, _, recovered) = serve(path, "127.0.0.1:0", "data", how);
    if snapshots {
        assert_eq!(begun.len(), KILLS, "each start went on from a snapshot");
        assert!(begun.is_sorted() && begun[0] > 0, "{begun:?}");
        assert_eq!(recovered["records"], 1, "that it had stopped: {recovered}");
    } else {
        assert_eq!((begun.len(), &recovered["events"]), (0, &Value::from(EVENTS)));
    }
    let again = again.summary();
    assert_eq!((&again["digest"], &again["imbalance"]), (&calm["digest"], &Value::from(0)));
    assert_eq!((&again["events"], &again["names"]), (&calm["events"], &calm["names"]));
}

#[test]
fn killed_again_and_again_it_loses_nothing() {
    killed("--threads separate --journal-snapshot 2000");
}

#[test]
fn killed_again_and_again_it_loses_nothing_fused() {
    killed("--threads fused --journal-snapshot 2000");
}

#[test]
fn killed_again_and_again_it_loses_nothing_without_snapshots() {
    killed("--threads fused --journal-snapshot off");
}

#[test]
fn a_damaged_journal_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path();
    write_trades(&path.join("all.csv"), EVENTS);
    let (server, address, _) = serve(path, "127.0.0.1:0", "data", "--journal-snapshot off");
    let mut feed =
        Running::start(path, &format!("publish all.csv --count 5000 --json --server {address} --data data"));
    assert_eq!(feed.json()["acked"], 5_000);
    server.summary();
    let segment = path.join("data/journal/0000000000000000.tgj");
    let mut bytes = std::fs::read(&segment).expect("a journal");
    bytes[3_000] ^= 1;
    std::fs::write(&segment, &bytes).expect("room");
    let (_, words) = ends(path, "serve --listen 127.0.0.1:0 --http off --data data --bars 1s --journal", 3);
    assert!(
        words.contains("cannot be recovered") && words.contains("segment 0 is damaged at byte"),
        "{words}"
    );
    assert!(std::fs::read(&segment).expect("still there") == bytes);
}
