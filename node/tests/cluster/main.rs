//! Three nodes as real processes on this machine, the leader killed again and again while a feed publishes: nothing that was
//! acknowledged is lost or applied twice, and every node has the results of a server that was never disturbed.

#[path = "../common/mod.rs"]
mod common;
mod copies;
mod derived;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod groups;
#[cfg(target_os = "linux")]
mod history;
mod members;
#[cfg(target_os = "linux")]
mod net;
mod relay;
#[cfg(target_os = "linux")]
mod slots;

use common::{Running, command, ends, fails, http, json, write_trades};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const EVENTS: u64 = 60_000;
const KILLS: u64 = 4;
/// How long anything may take before the test gives up; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every server of these tests computes.
const WORK: &str = "--json --http off --bars 1s,1m --ind rsi:14";
/// The same with a gateway.
const WITH_GATEWAY: &str = "--json --http 127.0.0.1:0 --bars 1s,1m --ind rsi:14";

/// Nodes take snapshots often, and cut their logs off behind them.
const SNAPSHOTS: &str = "--journal-snapshot 500";

struct Cluster {
    folder: tempfile::TempDir,
    nodes: Vec<Option<Running>>,
    servers: String,
    work: &'static str,
    snapshots: &'static str,
    /// Where each node's gateway is, if it has one.
    http: Vec<Option<SocketAddr>>,
    /// Nodes that are started to speak as the version before does.
    before: Vec<u64>,
    /// What the configuration of each says, where they have one.
    settings: &'static str,
}

/// A UDP port that nobody has, and that nobody is given who asks for any: those are above.
fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other programs of this kind may run beside this one.
        let at = std::process::id().wrapping_mul(211).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (at % 12_000) as u16;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Cluster {
    fn start(work: &'static str) -> Self {
        Self::of(work, "")
    }

    fn of_groups(work: &'static str, groups: usize) -> Self {
        Self::of(work, &format!("--groups {groups}"))
    }

    /// One that was made with these words.
    fn of(work: &'static str, words: &str) -> Self {
        Self::made(work, words, &[], "")
    }

    /// One of which these nodes speak as the version before does.
    fn speaking(work: &'static str, words: &str, before: &[u64]) -> Self {
        Self::made(work, words, before, "")
    }

    /// One whose nodes have a configuration that says this.
    fn with_settings(work: &'static str, words: &str, settings: &'static str) -> Self {
        Self::made(work, words, &[], settings)
    }

    /// One whose nodes take snapshots as this says.
    fn with_snapshots(work: &'static str, words: &str, snapshots: &'static str) -> Self {
        Self::began(work, words, &[], "", snapshots)
    }

    fn made(work: &'static str, words: &str, before: &[u64], settings: &'static str) -> Self {
        // A feed of many symbols in groups would have them make snapshots and nothing else.
        let snapshots = if words.contains("--groups") { "--journal-snapshot 5000" } else { SNAPSHOTS };
        Self::began(work, words, before, settings, snapshots)
    }

    fn began(
        work: &'static str,
        words: &str,
        before: &[u64],
        settings: &'static str,
        snapshots: &'static str,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let ports: Vec<u16> = (0..6).map(|_| port()).collect();
        let nodes: Vec<String> =
            (0..3).map(|at| format!("--node {}=127.0.0.1:{}:{}", at + 1, ports[at], ports[at + 3])).collect();
        ends(folder.path(), &format!("cluster init lab {words} {}", nodes.join(" ")), 0);
        let servers: Vec<String> = ports[3..].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let servers = servers.join(",");
        let (nodes, http) = (vec![None, None, None], vec![None; 3]);
        let before = before.to_vec();
        let mut cluster = Self { folder, nodes, servers, work, snapshots, http, before, settings };
        (1..=3).for_each(|node| cluster.serve(node));
        cluster
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn serve(&mut self, node: u64) {
        self.serve_as(node, "");
    }

    /// Starts a node with more options.
    fn serve_as(&mut self, node: u64, more: &str) {
        let mut serve = command(self.folder.path(), &format!("{} {more}", self.line(node)));
        if self.before.contains(&node) {
            serve.env("TIDEGATE_SPEAK_BEFORE", "1");
        }
        let mut running = Running::of(serve);
        let hello = running.json();
        assert_eq!(hello["node"], node);
        let url = hello["http"].as_str().and_then(|url| url.strip_prefix("http://"));
        let at = node as usize - 1;
        self.http.resize(self.http.len().max(at + 1), None);
        self.http[at] = url.map(|address| address.parse().expect("an address"));
        self.nodes[node as usize - 1] = Some(running);
    }

    /// How a node is started: the third by a configuration.
    fn line(&self, node: u64) -> String {
        if node != 3 && self.settings.is_empty() {
            return format!("serve --cluster lab/node-{node} {} {}", self.snapshots, self.work);
        }
        let text = format!("[cluster]\nfolder = \"node-{node}\"\n{}", self.settings);
        std::fs::write(self.path().join(format!("lab/{node}.toml")), text).expect("room");
        format!("serve --config lab/{node}.toml {} {}", self.snapshots, self.work)
    }

    fn kill(&mut self, node: u64) {
        self.nodes[node as usize - 1].take().expect("it runs").kill();
    }

    /// Ends every node as a user does; what each says at its end.
    fn end(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.nodes).into_iter().flatten().map(Running::summary).collect()
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

    /// What a node's gateway answers; null for an error.
    fn seen(&self, node: u64, path: &str) -> Value {
        let answer = http::get(self.http[node as usize - 1].expect("it has a gateway"), path, "");
        if answer.status == 200 { serde_json::from_slice(&answer.body).expect("JSON") } else { Value::Null }
    }

    /// Waits until a node sees the cluster so.
    #[track_caller]
    fn until_seen(&self, node: u64, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let seen = self.seen(node, "/v1/cluster");
            if is(&seen) {
                return seen;
            }
            assert!(start.elapsed() < PATIENCE, "node {node} sees no {what} in time: {seen:#}");
        }
    }

    /// Publishes `all.csv` for a while, each event acknowledged once it is committed.
    fn feed(&self) -> Running {
        let publish = format!(
            "publish all.csv --ack committed --speed 15 --json --give-up-after 5m --server {} --ca lab/ca-cert.pem",
            self.servers
        );
        Running::start(self.path(), &publish)
    }

    /// All have all events, with the same digest, and end with the results of a server that stood alone.
    #[track_caller]
    fn ends_as(&mut self, calm: &Value) {
        let status = self.until("all to have everything", |status| {
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().all(|node| {
                let replica = &node["replica"];
                replica["logged"] == EVENTS && replica["commit"] == nodes[0]["replica"]["end"]
            })
        });
        let nodes = status["nodes"].as_array().expect("nodes");
        let digests: Vec<&Value> = nodes.iter().map(|node| &node["replica"]["digest"]).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{status:#}");
        for summary in self.end() {
            let source = &summary["sources"][0];
            assert_eq!(
                [&source["accepted"], &source["declared_lost"], &source["refused"]],
                [EVENTS, 0, 0],
                "{source}"
            );
            assert_eq!((&summary["imbalance"], &summary["events"]), (&Value::from(0), &Value::from(EVENTS)));
            assert_eq!(summary["digest"], calm["digest"], "the same results as without a cluster");
            assert_eq!(summary["streams"], calm["streams"]);
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

/// All processes killed at once in a cluster that syncs: what was acknowledged as durable is there, and is known to be.
#[test]
fn what_is_durable_is_there_after_all_nodes_were_killed() {
    const SOME: u64 = 3_000;
    let mut cluster = Cluster::of(WORK, "--durable");
    write_trades(&cluster.path().join("some.csv"), SOME);
    let publish = format!(
        "publish some.csv --ack durable --json --give-up-after 5m --server {} --ca lab/ca-cert.pem",
        cluster.servers
    );
    let account = json(cluster.path(), &publish, 0);
    assert_eq!([&account["acked"], &account["skipped"]], [SOME, 0], "{account}");
    (1..=3).for_each(|node| cluster.kill(node));
    (1..=3).for_each(|node| cluster.serve(node));
    let account = json(cluster.path(), &publish, 0);
    assert_eq!([&account["skipped"], &account["lost_by_server"]], [SOME, 0], "{account}");
    let status = cluster.all_in_sync();
    assert_eq!(status["meta"]["group"]["lineage"], 1, "{status:#}");
    // A reader goes on at another node when the one it reads at is ended in order, and ends with the last of them.
    let read = format!(
        "subscribe bars.1s --from sequence:1 --output jsonl --server {} --ca lab/ca-cert.pem",
        cluster.servers
    );
    let mut reader = Running::start(cluster.path(), &read);
    let first = reader.json();
    assert_eq!(first["seq"], 1, "{first}");
    let kept = cluster.nodes[0].take().expect("it runs").summary();
    // On a machine that stands still its connection may have broken before, too.
    while !reader.note().contains("goes on where it stopped") {}
    cluster.end();
    let (rest, notes, code) = reader.rest();
    let bars = kept["streams"][0]["results"].as_u64().expect("a count");
    assert!(code == Some(0) && rest.len() as u64 + 1 + 3 >= bars, "{} of {bars}: {notes}", rest.len() + 1);
}

/// A node that dies takes one of the two leads with it, not both: its group would wait for one election behind the other.
#[test]
fn who_leads_the_group_leaves_consensus_to_another_node() {
    let mut cluster = Cluster::start(WORK);
    cluster.all_in_sync();
    let leads = |status: &Value| {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().find(|node| node["consensus"]["leader"] == node["node"])?["node"].as_u64()
    };
    let apart = |status: &Value| leads(status).is_some_and(|node| Some(node) != leader(status));
    let status = cluster.until("consensus led by a follower", apart);
    let to = leads(&status).expect("it was seen");
    cluster.until("the leader of consensus to lead the group too", |status| {
        let moved = leader(status) == Some(to);
        if !moved {
            // Whoever is not in sync right now is asked again.
            command(cluster.path(), &format!("cluster move lab --to {to}"))
                .output()
                .expect("the binary starts");
        }
        moved
    });
    cluster.until("consensus led by a follower again", apart);
    cluster.all_in_sync();
    cluster.end();
}

#[test]
fn a_leader_killed_again_and_again_loses_nothing() {
    let mut cluster = Cluster::start(WORK);
    write_trades(&cluster.path().join("all.csv"), EVENTS);
    let calm = calm(cluster.path());
    let durable = format!("publish all.csv --ack durable --server {} --ca lab/ca-cert.pem", cluster.servers);
    let refused = command(cluster.path(), &durable).output().expect("the binary starts");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("none, leader and committed"), "{words}");

    cluster.all_in_sync();
    let mut feed = cluster.feed();
    // A follower is away until the leader's log has lost what it lacks, so it goes on from the leader's snapshot.
    let status = cluster.until("some events", |status| logged(status) >= EVENTS / 20);
    let old = leader(&status).expect("somebody leads");
    let away = (1..=3).find(|node| *node != old).expect("three nodes");
    cluster.kill(away);
    let there = |status: &Value, field: &str| -> Vec<u64> {
        (1..=3)
            .filter(|node| *node != away)
            .filter_map(|node| replica(status, node)[field].as_u64())
            .collect()
    };
    let status = cluster.until("two that say how far they are", |status| there(status, "end").len() == 2);
    // It cannot have more than they have now.
    let end = there(&status, "end").into_iter().max().expect("two nodes");
    cluster.until("logs that were cut off", |status| {
        let bases = there(status, "log_base");
        bases.len() == 2 && bases.iter().all(|base| *base > end)
    });
    // Nodes may have different numbers of shards, and this one another than before.
    cluster.serve_as(away, "--shards 3");
    let status = cluster.all_in_sync();
    let base = replica(&status, away)["log_base"].as_u64().expect("a number");
    assert!(base > end, "its log begins at {base} and ended at {end}: {status:#}");
    let running = cluster.nodes[away as usize - 1].as_ref().expect("it runs");
    // It may have had one of its own to begin with; behind these words it is the leader's.
    for words in ["serving again", "the snapshot of 1 shard is taken over by 3"] {
        while !running.note().ends_with(words) {}
    }
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
    // One for each kill, unless the feed is over before the last of them.
    assert!(account["connections"].as_u64() > Some(1), "{account}");
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");

    cluster.ends_as(&calm);
}

/// Nodes of the version before are upgraded one after the other under a feed, and one is put back. Each step is whole in sync again.
#[test]
fn a_cluster_is_upgraded_node_by_node_and_one_is_put_back() {
    let mut cluster = Cluster::speaking(WORK, "", &[1, 2, 3]);
    write_trades(&cluster.path().join("all.csv"), EVENTS);
    let calm = calm(cluster.path());
    cluster.all_in_sync();
    let mut feed = cluster.feed();
    let steps = [(1, false), (2, false), (3, false), (2, true)];
    for ((step, (node, before)), lead) in (1..).zip(steps).zip([1, 2, 3, 1]) {
        let enough = EVENTS * step / (steps.len() as u64 + 2);
        cluster.until("enough events", |status| logged(status) >= enough);
        let ended = cluster.nodes[node as usize - 1].take().expect("it runs").summary();
        assert_eq!(ended["imbalance"], 0, "{ended}");
        cluster.before.retain(|other| *other != node);
        cluster.before.extend(before.then_some(node));
        cluster.serve(node);
        cluster.all_in_sync();
        // Both versions lead while the other one follows. Whoever is not in sync right now is asked again.
        cluster.until("the leader that it is to be", |status| {
            let leads = leader(status) == Some(lead);
            if !leads {
                let to = format!("cluster move lab --to {lead}");
                command(cluster.path(), &to).output().expect("the binary starts");
            }
            leads
        });
    }
    let account = feed.json();
    assert_eq!(
        [&account["offered"], &account["acked"], &account["lost_by_server"]],
        [EVENTS, EVENTS, 0],
        "{account}"
    );
    cluster.ends_as(&calm);
}

/// Codes or kinds of a list.
fn each<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list.as_array().into_iter().flatten().filter_map(|one| one[field].as_str()).collect()
}

#[test]
fn every_gateway_says_how_the_cluster_is_and_what_happened() {
    let mut cluster = Cluster::start(WITH_GATEWAY);
    write_trades(&cluster.path().join("few.csv"), 3_000);
    cluster.all_in_sync();
    let publish =
        format!("publish few.csv --ack committed --json --server {} --ca lab/ca-cert.pem", cluster.servers);
    assert_eq!(json(cluster.path(), &publish, 0)["acked"], 3_000);
    let mut digests = Vec::new();
    let mut led = 0;
    for node in 1..=3 {
        let seen = cluster.until_seen(node, "three that have everything", |seen| {
            let members = seen["members"].as_array().cloned().unwrap_or_default();
            let has_all = |member: &Value| {
                let lag = &member["lag"]["entries"];
                member["events"] == 3_000 && (*lag == 0 || member["node"] == seen["leader"])
            };
            members.len() == 3
                && members.iter().all(has_all)
                && seen["warnings"].as_array().is_some_and(Vec::is_empty)
        });
        assert_eq!((&seen["node"], &seen["min_isr"]), (&node.into(), &2.into()));
        assert_eq!(seen["isr"].as_array().map(Vec::len), Some(3), "{seen:#}");
        assert_eq!(
            seen["members"].as_array().map_or(0, |all| all.iter().filter(|one| one["self"] == true).count()),
            1
        );
        digests.push(seen["digest"].clone());
        led = seen["leader"].as_u64().expect("somebody leads");
        let address = cluster.http[node as usize - 1].expect("a gateway");
        assert_eq!(http::get(address, "/v1/ready", "").status, 200);
        assert_eq!(cluster.seen(node, "/v1/status")["cluster"]["leader"], led);
        let counters = http::get(address, "/metrics", "").text();
        for line in [
            "tidegate_cluster_has_leader 1".to_owned(),
            format!("tidegate_cluster_leader {}", u8::from(node == led)),
            "tidegate_cluster_in_sync_nodes 3".to_owned(),
            format!("tidegate_cluster_lag_entries{{node=\"{led}\"}} 0"),
            "tidegate_cluster_warnings{severity=\"bad\"} 0".to_owned(),
        ] {
            assert!(counters.lines().any(|other| other == line), "`{line}` is not in {counters}");
        }
    }
    assert!(
        digests[0]["value"].is_string() && digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );

    let url = format!("--url http://{}", cluster.http[0].expect("a gateway"));
    let explained = json(cluster.path(), &format!("explain A {url} --json"), 0);
    let at = &explained["cluster"];
    assert_eq!(
        (&at["leader"], at["followers"].as_array().map(Vec::len)),
        (&led.into(), Some(2)),
        "{explained:#}"
    );
    assert_eq!(at["committed"], digests[0]["offset"]);
    let (text, _) = ends(cluster.path(), &format!("explain A {url}"), 0);
    assert!(text.contains(&format!("node {led}, epoch")) && text.contains("has everything"), "{text}");

    let next = led % 3 + 1;
    ends(cluster.path(), &format!("cluster move lab --to {next}"), 0);
    for node in 1..=3 {
        let is_move = |change: &&Value| change["to"] == next && change["kind"] == "move";
        // What changed is noted a moment after it has.
        let seen = cluster.until_seen(node, "move", |seen| {
            let changes = seen["changes"].as_array();
            seen["leader"] == next && changes.is_some_and(|all| all.iter().any(|one| is_move(&one)))
        });
        let changes = seen["changes"].as_array().expect("changes");
        let change = changes.iter().find(is_move).expect("it was there");
        assert_eq!(
            (&change["kind"], &change["from"], &change["to"]),
            (&"move".into(), &led.into(), &next.into())
        );
        assert!(change["time"].is_string() && change["epoch"] == seen["epoch"], "{change}");
    }

    cluster.kill(next);
    let rest: Vec<u64> = (1..=3).filter(|node| *node != next).collect();
    for &node in &rest {
        let seen = cluster.until_seen(node, "fail-over", |seen| {
            each(&seen["changes"], "kind").contains(&"fail_over")
                && each(&seen["warnings"], "code").contains(&"one_more_loss")
        });
        let changes = seen["changes"].as_array().expect("changes");
        let over = changes.iter().find(|change| change["kind"] == "fail_over").expect("there is one");
        let reason = over["reason"].as_str().expect("words");
        assert_eq!(
            (&over["from"], reason),
            (&next.into(), &*format!("node {next} did not answer and was given up"))
        );
        assert!(!each(&seen["warnings"], "severity").contains(&"bad"), "{seen:#}");
        let address = cluster.http[node as usize - 1].expect("a gateway");
        assert_eq!(http::get(address, "/v1/ready", "").status, 200);
    }
    cluster.kill(rest[0]);
    let seen =
        cluster.until_seen(rest[1], "trouble", |seen| each(&seen["warnings"], "severity").contains(&"bad"));
    assert_eq!(each(&seen["warnings"], "code")[0], "no_leader", "{seen:#}");
    let answer = http::get(cluster.http[rest[1] as usize - 1].expect("a gateway"), "/v1/ready", "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
}

#[test]
fn what_makes_no_cluster_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let refused = |line: &str, code, says| fails(folder.path(), line, code, &[says]);
    refused("cluster init lab", 2, "--node");
    refused("cluster init lab --node 1=here", 2, "is no node such as 1=10.0.0.1");
    refused("cluster init lab --node 1=10.0.0.1 --node 1=10.0.0.2", 2, "node 1 is named twice");
    refused("cluster init lab --local 3 --min-isr 4", 2, "4 replicas are to commit, allowed are 1 to 3");
    refused("cluster init lab --local 3 --groups 65", 2, "65 is not in 1..=64");
    refused("cluster status lab", 3, "cannot read `lab/cluster.json`");
    ends(folder.path(), "cluster init lab --local 3", 0);
    refused("cluster init lab --local 3", 2, "is a cluster's folder already");
    refused("serve --cluster lab --http off", 2, "is no node's folder");
    refused("serve --cluster lab/node-1 --listen 127.0.0.1:0", 2, "cannot be used with");
    ends(folder.path(), "cluster init many --local 3 --groups 4", 0);
    refused("serve --cluster many/node-1 --http off --threads fused", 2, "choose separate threads");
    std::fs::write(folder.path().join("lab/node-1/t.toml"), "[cluster]\nfolder = \".\"\n").expect("room");
    refused("serve --config lab/node-1/t.toml --listen 127.0.0.1:0", 2, "--listen cannot be used on a node");
    refused("serve --config lab/node-1/t.toml --journal", 2, "keeps no journal");
    let cert = json(folder.path(), "config explain tls.cert --config lab/node-1/t.toml --json", 0);
    let value = &cert[0]["values"][0];
    assert!(
        value["from"] == "cluster.folder"
            && value["value"].as_str().is_some_and(|path| path.contains("node-cert")),
        "{cert}"
    );
    let config = folder.path().join("lab/node-1/cluster.json");
    std::fs::write(&config, "{").expect("room");
    refused("serve --cluster lab/node-1 --http off", 3, "describes no cluster");
}
