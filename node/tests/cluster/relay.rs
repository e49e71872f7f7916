//! Nodes that hold two of three groups each: feeds are led to who leads, readers of every node see the results of all groups, and of what is
//! derived from them, as from a server that stands alone; and go on when the node dies that a group is relayed from.

use super::common::{Running, ends, fails, http};
use super::derived::{GROUPS, QUIET, SECONDS, SETTINGS, spectra, symbols, told, trades};
use super::{Cluster, PATIENCE, command};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// The feed's first part ends before this second.
const HALF: u64 = 40;

/// Bars that are there once all that comes before this second is.
pub(super) fn bars_before(second: u64) -> usize {
    let one = |(group, _): (usize, String)| if group + 1 < GROUPS { second } else { second.min(QUIET) };
    symbols().into_iter().map(one).sum::<u64>() as usize
}

/// Bars by key and number: what they say but for the place in their log, which is another one with other groups.
pub(super) type Bars = BTreeMap<(String, u64), Value>;

/// Reads on until so many bars are there.
pub(super) fn bars(reader: &mut Running, seen: &mut Bars, count: usize) {
    while seen.len() < count {
        let (key, row) = bar(reader.json());
        assert!(seen.insert(key, row).is_none(), "told twice");
    }
}

/// Reads on until all of these are there, and keeps those: one group may have closed its last window before another one has its last but one.
fn bars_of(reader: &mut Running, seen: &mut Bars, expected: &Bars) {
    while !expected.keys().all(|key| seen.contains_key(key)) {
        bars(reader, seen, seen.len() + 1);
    }
    seen.retain(|key, _| expected.contains_key(key));
}

/// Which bar it is, and what it says.
pub(super) fn bar(mut row: Value) -> ((String, u64), Value) {
    let key = (row["k"].as_str().expect("a name").to_owned(), row["seq"].as_u64().expect("a number"));
    let fields = row.as_object_mut().expect("an object");
    fields.retain(|field, _| {
        ["k", "t", "T", "o", "h", "l", "c", "v", "n", "rev", "x"].contains(&field.as_str())
    });
    (key, row)
}

fn reader(cluster: &Cluster, place: &str) -> Running {
    Running::start(cluster.path(), &format!("subscribe bars.1s --from sequence:1 --output jsonl {place}"))
}

/// What a node says of each group.
pub(super) fn of_groups(status: &Value, node: u64) -> Vec<Value> {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let Some(found) = nodes.into_iter().find(|found| found["node"] == node) else { return Vec::new() };
    let more = found["replicas"].as_array().cloned().unwrap_or_default();
    std::iter::once(found["replica"].clone()).chain(more).collect()
}

/// The group that a node relays, and the node that it reads it at.
fn relays(status: &Value, node: u64) -> Option<(usize, u64)> {
    let of = of_groups(status, node);
    let at = of.iter().position(|replica| replica["role"] == "relay")?;
    Some((at, of[at]["relay"]["from"].as_u64()?))
}

/// Each group has two holders in sync with the same inputs, and the third node relays it.
fn is_whole(status: &Value) -> bool {
    let whole = |group: usize| {
        let of: Vec<Value> =
            (1..=3).filter_map(|node| of_groups(status, node).into_iter().nth(group)).collect();
        let held: Vec<&Value> = of.iter().filter(|replica| replica["role"] != "relay").collect();
        of.len() == 3
            && held.len() == 2
            && held.iter().all(|replica| replica["in_sync"] == true)
            && held[0]["commit"] == held[1]["commit"]
            && held[0]["digest"] == held[1]["digest"]
    };
    (0..GROUPS).all(whole) && (1..=3).all(|node| relays(status, node).is_some())
}

#[test]
fn readers_of_every_node_see_all_groups_of_which_each_holds_some() {
    let words = format!("--groups {GROUPS} --copies 2 --min-isr 1");
    let mut cluster = Cluster::with_settings("--json --http off", &words, SETTINGS);
    let path = cluster.path().to_owned();
    std::fs::write(path.join("all.csv"), trades(0, SECONDS)).expect("room");
    std::fs::write(path.join("first.csv"), trades(0, HALF)).expect("room");
    std::fs::write(path.join("rest.csv"), trades(HALF, SECONDS)).expect("room");
    std::fs::write(path.join("alone.toml"), SETTINGS).expect("room");
    let mut alone = Running::start(
        &path,
        "serve --json --http off --listen 127.0.0.1:0 --data alone --config alone.toml",
    );
    let place = format!("--server {} --data alone", alone.json()["listening"].as_str().expect("an address"));
    ends(&path, &format!("publish all.csv {place}"), 0);
    let rows = told(&path, &place, SECONDS - 1);
    let (expected, mut expected_bars) = (spectra(&rows), Bars::new());
    bars(&mut reader(&cluster, &place), &mut expected_bars, bars_before(SECONDS - 1));
    alone.summary();

    let status = cluster.until("two copies of each group, and a relay", is_whole);
    let servers: Vec<String> = cluster.servers.split(',').map(str::to_owned).collect();
    let at = |node: u64| format!("--server {} --ca lab/ca-cert.pem", servers[node as usize - 1]);
    let mut readers: Vec<(Running, Bars)> =
        (1..=3).map(|node| (reader(&cluster, &at(node)), Bars::new())).collect();
    let publish = |file: &str| {
        let servers = servers.join(",");
        ends(&path, &format!("publish {file} --ack committed --server {servers} --ca lab/ca-cert.pem"), 0);
    };
    publish("first.csv");
    for (reader, seen) in &mut readers {
        bars(reader, seen, bars_before(HALF - 1));
        assert!(seen.iter().all(|(key, bar)| expected_bars[key] == *bar));
    }
    for node in 1..=3 {
        for (end, row) in spectra(&told(&path, &at(node), HALF - 1)) {
            assert_eq!(row, expected[&end], "derived at node {node}");
        }
    }

    // Who is not a holder may not lead.
    let (group, _) = relays(&status, 1).expect("node 1 relays one");
    fails(&path, &format!("cluster move lab --group {group} --to 1"), 1, &["node 1 does not hold"]);
    // The holder that node 1 reads at dies. Whoever is left of each group leads it, and is read at.
    let status = cluster.until("two copies of each group, and a relay", is_whole);
    let (group, killed) = relays(&status, 1).expect("node 1 relays one");
    cluster.kill(killed);
    cluster.until("another holder to be read at", |status| {
        relays(status, 1).is_some_and(|(relayed, from)| relayed == group && from != killed)
    });
    publish("rest.csv");
    for node in (1..=3).filter(|node| *node != killed) {
        let (reader, seen) = &mut readers[node as usize - 1];
        bars_of(reader, seen, &expected_bars);
        assert_eq!(*seen, expected_bars, "at node {node}, all along");
        assert_eq!(spectra(&told(&path, &at(node), SECONDS - 1)), expected, "derived at node {node}");
    }
    drop(readers);

    cluster.serve(killed);
    cluster.until("two copies of each group again, and a relay", is_whole);
    let mut again = Bars::new();
    bars_of(&mut reader(&cluster, &at(killed)), &mut again, &expected_bars);
    assert_eq!(again, expected_bars, "at the node that was away");
    let shown = ends(&path, "cluster status lab", 0).0;
    assert!(shown.contains("held by") && shown.contains("relayed by"), "{shown}");
    for summary in cluster.end() {
        assert_eq!(summary["imbalance"], 0, "{summary}");
    }
}

#[test]
fn a_node_is_ready_once_its_readers_see_the_groups_that_others_hold() {
    let words = format!("--groups {GROUPS} --copies 2 --min-isr 1");
    let mut cluster = Cluster::with_settings("--json --http 127.0.0.1:0", &words, SETTINGS);
    let path = cluster.path().to_owned();
    std::fs::write(path.join("first.csv"), trades(0, HALF)).expect("room");
    let ready = |cluster: &Cluster, node: u64| {
        let answer = http::get(cluster.http[node as usize - 1].expect("a gateway"), "/v1/ready", "");
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        if answer.status == 200 { String::new() } else { answer.text() }
    };
    let until_ready = |cluster: &Cluster, node: u64| {
        let start = Instant::now();
        loop {
            let why = ready(cluster, node);
            if why.is_empty() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "node {node} is not ready: {why}");
        }
    };
    // Nothing was fed yet: there is nothing to be read, and everybody has all of it.
    (1..=3).for_each(|node| until_ready(&cluster, node));
    let status = cluster.until("two copies of each group, and a relay", is_whole);
    let (group, _) = relays(&status, 1).expect("node 1 relays one");
    let servers: Vec<String> = cluster.servers.split(',').map(str::to_owned).collect();
    let at = |node: u64| format!("--server {} --ca lab/ca-cert.pem", servers[node as usize - 1]);
    let all = servers.join(",");
    ends(&path, &format!("publish first.csv --ack committed --server {all} --ca lab/ca-cert.pem"), 0);
    for holder in [2, 3] {
        bars(&mut reader(&cluster, &at(holder)), &mut Bars::new(), bars_before(HALF - 1));
    }

    // What is asked for right after it said that it is ready is there.
    cluster.kill(1);
    cluster.serve(1);
    until_ready(&cluster, 1);
    let least = if group + 1 < GROUPS { HALF - 1 } else { QUIET } as usize;
    for (_, name) in symbols().into_iter().filter(|(of, _)| *of == group) {
        let seen = cluster.seen(1, &format!("/v1/bars?stream=bars.1s&key={name}"));
        let records = seen["records"].as_array().map_or(0, Vec::len);
        assert!(
            records >= least,
            "{records} of {least} bars of {name}, whose group {group} others hold: {seen:#}"
        );
    }
    // The other nodes hold the group: with both of them gone it waits, and says for what.
    cluster.kill(2);
    cluster.kill(3);
    let start = Instant::now();
    let waits = format!("group {group} (no node to read them at can be reached, of nodes 2 and 3)");
    loop {
        let why = ready(&cluster, 1);
        if why.contains("less than a majority") && why.contains(&waits) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it does not say what it waits for: {why}");
    }
    (2..=3).for_each(|node| cluster.serve(node));
    (1..=3).for_each(|node| until_ready(&cluster, node));
}

#[test]
fn copies_that_cannot_be_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |words: &str, says: &[&str]| {
        let nodes = "--node 1=10.0.0.1 --node 2=10.0.0.2 --node 3=10.0.0.3";
        fails(folder.path(), &format!("cluster init prod {nodes} {words}"), 2, says);
        assert!(!folder.path().join("prod").exists(), "{words}");
    };
    refused("--groups 6 --copies 4", &["held by 4 nodes", "allowed are 3"]);
    refused("--groups 6 --copies 2 --min-isr 3", &["held by 2 nodes", "allowed are 3"]);
    refused("--groups 6 --copies 0", &["allowed are 1 or more"]);
    refused("--copies 2", &["allowed are 2 groups or more"]);
    refused("--groups 6 --copies 2 --zone 9=east", &["node 9 has a zone"]);
    let made = command(folder.path(), "cluster init prod --groups 6 --copies 2 --local 3")
        .output()
        .expect("it starts");
    let words = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(
        made.status.success() && words.contains("holds groups") && words.contains("on 2 nodes"),
        "{words}"
    );
}
