//! Copies of groups that move between nodes while feeds and readers go on: a holder that is lost for good is replaced, with as many copies as
//! must have an event; a node that joins gets its share; one that leaves hands over what it holds first.

use super::Cluster;
use super::common::{Running, ends, fails};
use super::derived::{GROUPS, SECONDS, trades};
use super::relay::{Bars, bar, bars, bars_before, of_groups};
use super::{PATIENCE, command};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

const WORK: &str = "--json --http off --bars 1s";
/// The feed's parts end before these seconds.
const PARTS: [u64; 4] = [20, 35, 45, SECONDS];

/// The nodes that hold each group, by metadata.
fn holders(status: &Value) -> Vec<BTreeSet<u64>> {
    let meta = &status["meta"];
    let more = meta["more"].as_array().cloned().unwrap_or_default();
    let of = |group: &Value| {
        let nodes = group["holders"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter_map(Value::as_u64).collect()
    };
    std::iter::once(&meta["group"]).chain(&more).map(of).collect()
}

/// Each group is held by two of these nodes, in sync and with the same inputs, and relayed by the others; no copy is on its way.
fn is_whole(status: &Value, nodes: &[u64]) -> bool {
    let said: BTreeMap<u64, Vec<Value>> =
        nodes.iter().map(|node| (*node, of_groups(status, *node))).collect();
    let whole = |(group, held): (usize, &BTreeSet<u64>)| {
        let of = |node: &u64| said.get(node).and_then(|said| said.get(group)).cloned().unwrap_or_default();
        let held_by: Vec<Value> = held.iter().map(of).collect();
        let others = nodes.iter().filter(|node| !held.contains(node)).map(of);
        held.len() == 2
            && held_by.iter().all(|replica| replica["in_sync"] == true)
            && held_by[0]["commit"] == held_by[1]["commit"]
            && held_by[0]["digest"] == held_by[1]["digest"]
            && others.into_iter().all(|replica| replica["relay"]["from"].is_u64())
    };
    let holders = holders(status);
    holders.len() == GROUPS
        && holders.iter().enumerate().all(whole)
        && !status["meta"].to_string().contains("\"coming\"")
}

/// How many groups each of these nodes holds.
fn counts(status: &Value, nodes: &[u64]) -> Vec<usize> {
    let holders = holders(status);
    nodes.iter().map(|node| holders.iter().filter(|held| held.contains(node)).count()).collect()
}

/// Reads at one server after the other, as they begin again. Where none of them was there for a while it ends, as a reader does then, and is
/// started again from the beginning.
struct Reader {
    running: Running,
    line: String,
    seen: Bars,
    /// What this start of it was told.
    told: BTreeSet<(String, u64)>,
}

impl Reader {
    fn start(folder: &Path, place: &str) -> Self {
        let line = format!("subscribe bars.1s --from sequence:1 --output jsonl {place}");
        let (seen, told) = (Bars::new(), BTreeSet::new());
        Self { running: Running::start(folder, &line), line, seen, told }
    }

    #[track_caller]
    fn until(&mut self, folder: &Path, count: usize) {
        self.until_seen(folder, |seen| seen.len() >= count);
    }

    #[track_caller]
    fn until_seen(&mut self, folder: &Path, is_enough: impl Fn(&Bars) -> bool) {
        let start = Instant::now();
        while !is_enough(&self.seen) {
            let Some(line) = self.running.next_line() else {
                assert!(start.elapsed() < PATIENCE, "{} bars", self.seen.len());
                self.running = Running::of(command(folder, &self.line));
                self.told.clear();
                continue;
            };
            let (key, row) = bar(serde_json::from_str(&line).expect("JSON"));
            assert!(self.told.insert(key.clone()), "told twice: {line}");
            let before = self.seen.insert(key, row.clone());
            assert!(before.is_none_or(|before| before == row), "it was something else: {line}");
        }
    }
}

#[test]
fn copies_go_where_they_are_needed_and_nothing_is_lost_or_doubled() {
    let words = format!("--groups {GROUPS} --copies 2 --min-isr 2");
    let mut cluster = Cluster::with_snapshots(WORK, &words, "--journal-snapshot 30");
    let path = cluster.path().to_owned();
    std::fs::write(path.join("all.csv"), trades(0, SECONDS)).expect("room");
    let mut from = 0;
    for (at, to) in PARTS.into_iter().enumerate() {
        std::fs::write(path.join(format!("part-{at}.csv")), trades(from, to)).expect("room");
        from = to;
    }
    let mut alone = Running::start(&path, &format!("serve --listen 127.0.0.1:0 --data alone {WORK}"));
    let place = format!("--server {} --data alone", alone.json()["listening"].as_str().expect("an address"));
    ends(&path, &format!("publish all.csv {place}"), 0);
    let mut expected = Bars::new();
    let mut reader =
        Running::start(&path, &format!("subscribe bars.1s --from sequence:1 --output jsonl {place}"));
    bars(&mut reader, &mut expected, bars_before(SECONDS - 1));
    alone.summary();

    cluster.until("two copies of each group, and a relay", |status| is_whole(status, &[1, 2, 3]));
    let mut servers: Vec<String> = cluster.servers.split(',').map(str::to_owned).collect();
    let at = |servers: &[String]| format!("--server {} --ca lab/ca-cert.pem", servers.join(","));
    // Each begins at another node, and goes on at the others when that begins again.
    let mut readers: Vec<Reader> = (0..3)
        .map(|first| {
            let mut servers = servers.clone();
            servers.rotate_left(first);
            Reader::start(&path, &at(&servers))
        })
        .collect();
    let publish = |servers: &[String], part: usize| {
        let line =
            format!("publish part-{part}.csv --ack committed --json --give-up-after 5m {}", at(servers));
        Running::start(&path, &line)
    };
    let acknowledged = |mut feed: Running| {
        let account = feed.json();
        assert_eq!(
            (&account["acked"], &account["lost_by_server"]),
            (&account["offered"], &Value::from(0)),
            "{account}"
        );
    };
    acknowledged(publish(&servers, 0));
    for reader in &mut readers {
        reader.until(&path, bars_before(PARTS[0] - 1));
    }

    // A holder is lost for good. Its groups have one copy, and two must have an event: feeds wait.
    cluster.kill(3);
    let lost: Vec<usize> = holders(&cluster.status())
        .iter()
        .enumerate()
        .filter(|(_, held)| held.contains(&3))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(lost.len(), 2);
    let feed = publish(&servers, 1);
    cluster.until("the loss to be noticed", |status| status["meta"]["nodes"]["3"]["fenced"] == true);
    fails(&path, "cluster leave lab --node 3", 1, &["does not answer", "--force"]);
    let (plan, _) = ends(&path, "cluster leave lab --node 3 --force --dry-run", 0);
    assert!(plan.contains("in place of") && plan.contains("then node 3 would leave"), "{plan}");
    assert_eq!(counts(&cluster.status(), &[3]), [2], "nothing was changed");
    let (said, _) = ends(&path, "cluster leave lab --node 3 --force", 0);
    for group in &lost {
        assert!(said.contains(&format!("holds group {group}, in place of node 3")), "{said}");
    }
    assert!(said.contains("node 3 has left"), "{said}");
    acknowledged(feed);
    let status = cluster.until("two copies of each group again", |status| is_whole(status, &[1, 2]));
    assert_eq!(counts(&status, &[1, 2]), [GROUPS, GROUPS]);
    // Two hold all, so nobody is left to take up anything.
    fails(
        &path,
        "cluster leave lab --node 2",
        1,
        &["nobody is there to take up node 2's copies", "let another node join"],
    );
    servers.pop();

    // One that joins holds nothing before it is told to.
    let ports = [super::port(), super::port()];
    let joins = format!("cluster join lab --node 4=127.0.0.1:{}:{}", ports[0], ports[1]);
    ends(&path, &joins, 0);
    cluster.nodes.push(None);
    cluster.serve(4);
    servers.push(format!("127.0.0.1:{}", ports[1]));
    let (said, _) = ends(&path, &format!("{joins} --wait 2m"), 0);
    assert!(said.contains("holds none before"), "{said}");
    let feed = publish(&servers, 2);
    let (plan, _) = ends(&path, "cluster rebalance lab --copies --dry-run", 0);
    assert!(plan.contains("groups held now: node 1: 3, node 2: 3, node 4: 0"), "{plan}");
    assert!(plan.contains("groups held then: node 1: 2, node 2: 2, node 4: 2"), "{plan}");
    let (said, _) = ends(&path, "cluster rebalance lab --copies", 0);
    assert!(said.contains("node 4 holds group") && said.contains("done:"), "{said}");
    acknowledged(feed);
    let status =
        cluster.until("two copies of each group on three nodes", |status| is_whole(status, &[1, 2, 4]));
    assert_eq!(counts(&status, &[1, 2, 4]), [2, 2, 2]);
    let (said, _) = ends(&path, "cluster rebalance lab --copies", 0);
    assert!(said.contains("nothing to move"), "{said}");
    fails(&path, "cluster rebalance lab --copies --gain 3", 2, &["cannot be used with"]);

    // One that is there leaves: others have its copies first.
    let feed = publish(&servers, 3);
    let (said, _) = ends(&path, "cluster leave lab --node 1", 0);
    assert!(said.contains("in place of node 1") && said.contains("node 1 has left"), "{said}");
    let (_, notes, code) = cluster.nodes[0].take().expect("it runs").rest();
    assert!(code == Some(0) && notes.contains("has left its cluster"), "{notes}");
    acknowledged(feed);
    cluster.until("two copies of each group on the two that are left", |status| is_whole(status, &[2, 4]));

    // Whoever read all along, at whichever node, and whoever reads anew has each bar once.
    servers.remove(0);
    readers.extend([&servers[..1], &servers[1..]].map(|servers| Reader::start(&path, &at(servers))));
    for (number, reader) in readers.iter_mut().enumerate() {
        // One group may have closed its last window before another one has its last but one.
        reader.until_seen(&path, |seen| expected.keys().all(|key| seen.contains_key(key)));
        let seen: Bars =
            expected.keys().filter_map(|key| Some((key.clone(), reader.seen.get(key)?.clone()))).collect();
        assert_eq!(seen, expected, "reader {number}");
    }
    drop(readers);
    for summary in cluster.end() {
        assert_eq!(summary["imbalance"], 0, "{summary}");
    }
}
