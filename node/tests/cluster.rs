//! Three nodes as real processes on this machine, the leader killed again and again while a feed publishes: nothing that was
//! acknowledged is lost or applied twice, and every node has the results of a server that was never disturbed.

mod common;

use common::{Running, command, ends, fails, write_trades};
use serde_json::Value;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

const EVENTS: u64 = 60_000;
const KILLS: u64 = 4;
/// How long anything may take before the test gives up; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every server of these tests computes.
const WORK: &str = "--json --http off --bars 1s,1m --ind rsi:14";

/// Nodes take snapshots often, and cut their logs off behind them.
const SNAPSHOTS: &str = "--journal-snapshot 500";

struct Cluster {
    folder: tempfile::TempDir,
    nodes: Vec<Option<Running>>,
    servers: String,
}

impl Cluster {
    /// Ports that are free now; nobody else on the machine takes from this range by chance.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let sockets: Vec<UdpSocket> =
            (0..6).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<u16> =
            sockets.iter().map(|socket| socket.local_addr().expect("an address").port()).collect();
        let nodes: Vec<String> =
            (0..3).map(|at| format!("--node {}=127.0.0.1:{}:{}", at + 1, ports[at], ports[at + 3])).collect();
        ends(folder.path(), &format!("cluster init lab {}", nodes.join(" ")), 0);
        drop(sockets);
        let servers: Vec<String> = ports[3..].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut cluster = Self { folder, nodes: vec![None, None, None], servers: servers.join(",") };
        (1..=3).for_each(|node| cluster.serve(node));
        cluster
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn serve(&mut self, node: u64) {
        let mut running = Running::start(
            self.folder.path(),
            &format!("serve --cluster lab/node-{node} {SNAPSHOTS} {WORK}"),
        );
        assert_eq!(running.json()["node"], node);
        self.nodes[node as usize - 1] = Some(running);
    }

    fn kill(&mut self, node: u64) {
        self.nodes[node as usize - 1].take().expect("it runs").kill();
    }

    fn status(&self) -> Value {
        let shown = command(self.path(), "cluster status lab --json").output().expect("the binary starts");
        serde_json::from_slice(&shown.stdout).unwrap_or(Value::Null)
    }

    /// Waits until the cluster is so.
    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "no {what} in time: {status:#}");
        }
    }

    fn all_in_sync(&self) -> Value {
        self.until("three in sync", |status| {
            let nodes = status["nodes"].as_array();
            let in_sync = |node: &Value| node["replica"]["in_sync"] == true;
            status["meta"]["group"]["isr"].as_array().is_some_and(|isr| isr.len() == 3)
                && nodes.is_some_and(|nodes| nodes.iter().all(in_sync))
        })
    }
}

fn leader(status: &Value) -> Option<u64> {
    status["meta"]["group"]["leader"]["node"].as_u64()
}

/// What the replica of a node says of itself.
fn replica(status: &Value, node: u64) -> Value {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes
        .into_iter()
        .find(|found| found["node"] == node)
        .map_or(Value::Null, |found| found["replica"].clone())
}

/// Events that the engine of the leader has.
fn logged(status: &Value) -> u64 {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter_map(|node| node["replica"]["logged"].as_u64()).max().unwrap_or(0)
}

/// The results of a server that stands alone and is left alone.
fn calm(path: &Path) -> Value {
    let mut server = Running::start(path, &format!("serve --listen 127.0.0.1:0 --data calm {WORK}"));
    let address = server.json()["listening"].as_str().expect("an address").to_owned();
    let mut feed = Running::start(path, &format!("publish all.csv --json --server {address} --data calm"));
    assert_eq!(feed.json()["acked"], EVENTS);
    server.summary()
}

#[test]
fn a_leader_killed_again_and_again_loses_nothing() {
    let mut cluster = Cluster::start();
    write_trades(&cluster.path().join("all.csv"), EVENTS);
    let calm = calm(cluster.path());
    let durable = format!("publish all.csv --ack durable --server {} --ca lab/ca-cert.pem", cluster.servers);
    let refused = command(cluster.path(), &durable).output().expect("the binary starts");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("none, leader and committed"), "{words}");

    cluster.all_in_sync();
    let mut feed = Running::start(
        cluster.path(),
        &format!(
            "publish all.csv --ack committed --speed 15 --json --give-up-after 5m --server {} --ca lab/ca-cert.pem",
            cluster.servers
        ),
    );
    // A follower is away until the leader's log has lost what it lacks, so it goes on from the leader's snapshot.
    let status = cluster.until("some events", |status| logged(status) >= EVENTS / 20);
    let old = leader(&status).expect("somebody leads");
    let away = (1..=3).find(|node| *node != old).expect("three nodes");
    let end = replica(&status, away)["end"].as_u64().expect("a number");
    cluster.kill(away);
    cluster.until("a log that was cut off", |status| {
        let leads = leader(status).unwrap_or(0);
        replica(status, leads)["log_base"].as_u64().is_some_and(|base| base > end + 200)
    });
    cluster.serve(away);
    let status = cluster.all_in_sync();
    let base = replica(&status, away)["log_base"].as_u64().expect("a number");
    assert!(base > end, "its log begins at {base} and ended at {end}: {status:#}");
    // Nobody drained leads while another one can.
    let old = leader(&status).expect("somebody leads");
    ends(cluster.path(), &format!("cluster drain lab --node {old}"), 0);
    let status = cluster.until("another leader", |status| leader(status).is_some_and(|new| new != old));
    assert_eq!(status["meta"]["drained"], serde_json::json!([old]));
    ends(cluster.path(), &format!("cluster drain lab --node {old} --undo"), 0);
    fails(cluster.path(), "cluster drain lab --node 9", 2, &["there is no node 9"]);
    let mut epochs = Vec::new();
    for kill in 1..=KILLS {
        let enough = EVENTS * kill / (KILLS + 2);
        let status = cluster.until("enough events", |status| logged(status) >= enough);
        let old = leader(&status).expect("somebody leads");
        cluster.kill(old);
        let status = cluster.until("new leader", |status| leader(status).is_some_and(|new| new != old));
        epochs.push(status["meta"]["group"]["epoch"].as_u64().expect("a number"));
        cluster.serve(old);
        cluster.all_in_sync();
    }
    let account = feed.json();
    assert_eq!(
        [&account["offered"], &account["acked"], &account["lost_by_server"]],
        [EVENTS, EVENTS, 0],
        "{account}"
    );
    assert!(account["connections"].as_u64() > Some(KILLS), "{account}");
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");

    let status = cluster.until("all to have everything", |status| {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().all(|node| {
            let replica = &node["replica"];
            replica["logged"] == EVENTS && replica["commit"] == nodes[0]["replica"]["end"]
        })
    });
    let digests: Vec<&Value> =
        status["nodes"].as_array().expect("nodes").iter().map(|node| &node["replica"]["digest"]).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{status:#}");
    for node in std::mem::take(&mut cluster.nodes).into_iter().flatten() {
        let summary = node.summary();
        let source = &summary["sources"][0];
        assert_eq!(
            [&source["accepted"], &source["declared_lost"], &source["refused"]],
            [EVENTS, 0, 0],
            "{source}"
        );
        assert_eq!((&summary["imbalance"], &summary["events"]), (&Value::from(0), &Value::from(EVENTS)));
        assert_eq!(summary["digest"], calm["digest"], "the same results as without cluster and kills");
        assert_eq!(summary["streams"], calm["streams"]);
    }
}

#[test]
fn what_makes_no_cluster_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let refused = |line: &str, code, says| fails(folder.path(), line, code, &[says]);
    refused("cluster init lab", 2, "--node");
    refused("cluster init lab --node 1=here", 2, "is no node such as 1=10.0.0.1");
    refused("cluster init lab --node 1=10.0.0.1 --node 1=10.0.0.2", 2, "node 1 is named twice");
    refused("cluster init lab --local 3 --min-isr 4", 2, "4 replicas are to commit, allowed are 1 to 3");
    refused("cluster status lab", 3, "cannot read `lab/cluster.json`");
    ends(folder.path(), "cluster init lab --local 3", 0);
    refused("cluster init lab --local 3", 2, "is a cluster's folder already");
    refused("serve --cluster lab --http off", 2, "is no node's folder");
    refused("serve --cluster lab/node-1 --listen 127.0.0.1:0", 2, "cannot be used with");
    let config = folder.path().join("lab/node-1/cluster.json");
    std::fs::write(&config, "{").expect("room");
    refused("serve --cluster lab/node-1 --http off", 3, "describes no cluster");
}
