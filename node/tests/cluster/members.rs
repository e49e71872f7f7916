//! Nodes come and go while a feed publishes: nothing stops, and nothing is lost.

use super::{Cluster, PATIENCE, WORK, leader, logged, port, replica};
use crate::common::{Running, command, ends, fails, write_trades};
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

const EVENTS: u64 = 40_000;

/// Two addresses that nobody has.
fn free() -> String {
    format!("127.0.0.1:{}:{}", port(), port())
}

/// Runs a command again until its outcome is one: on a machine that stands still for a moment nodes do not answer in time.
#[track_caller]
fn again(folder: &Path, words: &str, is: impl Fn(&Output) -> bool) -> Output {
    let start = Instant::now();
    loop {
        let output = command(folder, words).output().expect("the binary starts");
        if is(&output) {
            return output;
        }
        assert!(start.elapsed() < PATIENCE, "{words}: {output:?}");
    }
}

fn is_answered(output: &Output) -> bool {
    !String::from_utf8_lossy(&output.stderr).contains("does not answer")
}

fn in_sync(status: &Value) -> Vec<u64> {
    let isr = status["meta"]["group"]["isr"].as_array().cloned().unwrap_or_default();
    let mut nodes: Vec<u64> = isr.iter().filter_map(|member| member["node"].as_u64()).collect();
    nodes.sort_unstable();
    nodes
}

/// Whose votes count, as whoever leads consensus has it.
fn voters(status: &Value) -> Value {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let leads = |node: &&Value| node["consensus"]["leader"] == node["node"];
    nodes.iter().find(leads).map_or(Value::Null, |node| node["consensus"]["voters"].clone())
}

#[test]
fn nodes_come_and_go_under_load() {
    let mut cluster = Cluster::start(WORK);
    let folder = cluster.path().to_owned();
    write_trades(&folder.join("all.csv"), EVENTS);
    cluster.all_in_sync();
    let mut feed = Running::start(
        &folder,
        &format!(
            "publish all.csv --ack committed --speed 20 --json --give-up-after 5m --server {} --ca lab/ca-cert.pem",
            cluster.servers
        ),
    );
    cluster.until("some events", |status| logged(status) >= EVENTS / 20);

    // What cannot be is said before anything is made.
    let taken = std::fs::read_to_string(folder.join("lab/cluster.json")).expect("the cluster's file");
    let taken: Value = serde_json::from_str(&taken).expect("JSON");
    let second =
        taken["nodes"]["2"]["clients"].as_str().expect("an address").rsplit_once(':').expect("a port").1;
    let join = |node: u64, at: &str, more: &str| format!("cluster join lab --node {node}={at} {more}");
    fails(&folder, &join(2, &free(), ""), 1, &["node 2 is in the cluster, at", "take another number"]);
    fails(&folder, &join(4, &format!("127.0.0.1:{second}:1"), ""), 1, &["is where node 2 is"]);
    fails(&folder, &join(0, &free(), ""), 2, &["numbered from 1"]);
    fails(&folder, "cluster join lab/node-1 --node 4=127.0.0.1", 2, &["is a node's folder"]);
    fails(&folder, "cluster join lab --node 4=127.0.0.1 --zone a/b", 2, &["letters, digits"]);
    fails(&folder, "cluster leave lab --node 9", 2, &["there is no node 9, there are 1, 2, 3"]);

    // A newcomer that is not there yet has a place and nothing to say.
    let place = free();
    let (said, _) = ends(&folder, &join(4, &place, "--zone east"), 0);
    assert!(
        said.contains("node 4 belongs to the cluster\n") && said.contains("serve --cluster node-4"),
        "{said}"
    );
    ends(&folder, &join(4, &place, ""), 0);
    fails(&folder, &join(4, &place, "--wait 50ms"), 1, &["node 4 is not in sync after 0.05 s"]);
    // Nodes that do not answer at once are told as that, with another exit code.
    let output = again(&folder, "cluster status lab", |output| output.status.code() == Some(0));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("east") && table.contains("to come"), "{table}");
    cluster.until("three that decide", |status| voters(status) == serde_json::json!([1, 2, 3]));
    cluster.nodes.push(None);
    cluster.serve(4);
    ends(&folder, &join(4, &place, "--wait 2m"), 0);
    let status =
        cluster.until("four that decide", |status| voters(status) == serde_json::json!([1, 2, 3, 4]));
    assert_eq!(in_sync(&status), [1, 2, 3, 4]);

    // The leader goes for good: another one leads first, and its process ends well.
    let old = leader(&status).expect("somebody leads");
    // Asked again where a node did not answer the first time.
    let output = again(&folder, &format!("cluster leave lab --node {old}"), is_answered);
    assert!(output.status.success(), "{output:?}");
    let (_, notes, code) = cluster.nodes[old as usize - 1].take().expect("it runs").rest();
    assert_eq!(code, Some(0), "{notes}");
    assert!(notes.contains("has left its cluster"), "{notes}");
    let (said, _) = ends(&folder, &format!("cluster leave lab --node {old}"), 0);
    assert!(said.contains("has left already"), "{said}");
    fails(&folder, &join(old, &free(), ""), 1, &["has left this cluster", "take another one"]);
    // Started again it knows from its own file, or is told so by the others, who take nothing from it.
    let output = command(&folder, &format!("serve --cluster lab/node-{old} {WORK}"))
        .output()
        .expect("the binary starts");
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 2)), "{notes}");
    assert!(notes.contains("has left its cluster"), "{notes}");

    // One that died for good is let go without being asked.
    let status =
        cluster.until("three in sync", |status| in_sync(status).len() == 3 && leader(status).is_some());
    let led = leader(&status).expect("somebody leads");
    let dead = in_sync(&status).into_iter().find(|node| *node != led && *node != 4).expect("three nodes");
    cluster.kill(dead);
    fails(&folder, &format!("cluster leave lab --node {dead}"), 1, &["does not answer", "--force"]);
    // While it is missing, nobody else may go.
    cluster.until("two in sync", |status| in_sync(status).len() == 2);
    let output = again(&folder, "cluster leave lab --node 4", is_answered);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("without it 1 would be in sync, and 2 are needed"), "{said}");
    ends(&folder, &format!("cluster leave lab --node {dead} --force"), 0);
    let place = free();
    ends(&folder, &join(5, &place, ""), 0);
    cluster.nodes.push(None);
    cluster.serve(5);
    ends(&folder, &join(5, &place, "--wait 2m"), 0);

    let account = feed.json();
    assert_eq!(
        [&account["offered"], &account["acked"], &account["lost_by_server"]],
        [EVENTS, EVENTS, 0],
        "{account}"
    );
    let status = cluster.until("all to have everything", |status| {
        let nodes = in_sync(status);
        let has_all = |&node: &u64| {
            let replica = replica(status, node);
            replica["logged"] == EVENTS && replica["commit"] == replica["end"]
        };
        // Of a status that nobody answered nothing is known.
        nodes.len() == 3 && voters(status) == serde_json::json!(nodes) && nodes.iter().all(has_all)
    });
    let nodes = in_sync(&status);
    assert!(nodes.len() == 3 && nodes[1..] == [4, 5], "{nodes:?}");
    assert_eq!(voters(&status), serde_json::json!(nodes));
    let digests: Vec<Value> = nodes.iter().map(|&node| replica(&status, node)["digest"].clone()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{status:#}");
    // Each knows who belongs to the cluster, though nobody told it.
    for node in &nodes {
        let known = |file: &Value| -> Vec<u64> {
            file["nodes"].as_object().expect("nodes").keys().filter_map(|n| n.parse().ok()).collect()
        };
        let path = folder.join(format!("lab/node-{node}/cluster.json"));
        // It is written a moment after the node knows.
        let start = Instant::now();
        let file = loop {
            let file = std::fs::read_to_string(&path).expect("a file");
            let file: Value = serde_json::from_str(&file).expect("JSON");
            if known(&file) == nodes {
                break file;
            }
            assert!(start.elapsed() < PATIENCE, "node {node}: {file:#}");
            std::thread::park_timeout(Duration::from_millis(20));
        };
        assert_eq!((&file["zones"]["4"], file["left"].as_array().map(Vec::len)), (&"east".into(), Some(2)));
    }
    let results: Vec<Value> = std::mem::take(&mut cluster.nodes)
        .into_iter()
        .flatten()
        .map(|node| node.summary()["digest"].clone())
        .collect();
    assert!(results.len() == 3 && results.iter().all(|digest| *digest == results[0]), "{results:?}");
}
