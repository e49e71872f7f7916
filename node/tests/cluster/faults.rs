//! Three nodes on machines of their own, under load, while machines and what is between them fail as a seeded schedule has it.
//!
//! `TIDEGATE_FAULTS="kills=200 rounds=40 seed=7"` asks for more than the few that every run of the tests has; `cargo xtask
//! cluster-faults` does. What is demanded is in [`History`]: nothing acknowledged is lost or doubled, readers go on without gap; and
//! at the end all nodes have the same.

use crate::common::Running;
use crate::history::{FEEDS, History};
use crate::net::{Net, clients, skipped};
use crate::{PATIENCE, leader, replica};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the nodes compute: one result for each event.
const WORK: &str = "--json --http off --bars 1t --journal-snapshot 1M";
const NODES: u64 = 3;

/// A schedule that one number gives.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// How much is to be done.
struct Plan {
    kills: u64,
    rounds: u64,
    seed: u64,
}

impl Plan {
    fn of_environment() -> Self {
        let mut plan = Self { kills: 3, rounds: 4, seed: 1 };
        let text = std::env::var("TIDEGATE_FAULTS").unwrap_or_default();
        for part in text.split_whitespace() {
            let (name, value) = part.split_once('=').expect("NAME=NUMBER");
            let value = value.parse().expect("a number");
            match name {
                "kills" => plan.kills = value,
                "rounds" => plan.rounds = value,
                "seed" => plan.seed = value,
                other => panic!("TIDEGATE_FAULTS has no {other}"),
            }
        }
        plan
    }
}

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The leader stands still, and goes on after others have taken over.
    StopLeader,
    /// So does a follower.
    StopFollower,
    /// What the leader sends a follower is lost; the other way it passes.
    DeafFollower,
    /// What a follower sends the leader is lost.
    MuteFollower,
    /// What the leader sends anybody is lost, clients included.
    MuteLeader,
    /// The leader is cut off from everybody.
    LoneLeader,
    /// A follower is.
    LoneFollower,
    /// Every node's packets are lost, late and in another order.
    Disturbed,
    /// Two of three are killed, so that nothing is committed until one is back.
    NoMajority,
    /// All are killed at once.
    All,
    /// The disk of the node that has a small one is full.
    FullDisk,
    /// Every sync takes longer, and the leader is killed.
    SlowSync,
}

const FAULTS: [Fault; 12] = [
    Fault::StopLeader,
    Fault::MuteLeader,
    Fault::LoneLeader,
    Fault::Disturbed,
    Fault::NoMajority,
    Fault::DeafFollower,
    Fault::StopFollower,
    Fault::MuteFollower,
    Fault::All,
    Fault::LoneFollower,
    Fault::FullDisk,
    Fault::SlowSync,
];

/// The node that has a small disk, and its size.
const SMALL: (u64, &str) = (3, "48m");

/// How much longer a sync takes, in milliseconds. Consensus syncs a vote on two nodes within the shortest election time-out.
const SLOW_MS: &str = "20";

/// Has every sync of a process take as many milliseconds more as a file says.
const SLOW: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_as_told(void) {
    const char *path = getenv("TIDEGATE_TEST_SLOW");
    FILE *file = path ? fopen(path, "r") : NULL;
    int ms = 0;
    if (!file) return;
    if (fscanf(file, "%d", &ms) == 1 && ms > 0) usleep(1000 * ms);
    fclose(file);
}
int fsync(int fd) {
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
    wait_as_told();
    return next(fd);
}
int fdatasync(int fd) {
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return next(fd);
}
"#;

struct Lab {
    folder: tempfile::TempDir,
    net: Net,
    nodes: Vec<Option<Running>>,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let net = Net::new(NODES);
        let nodes: Vec<String> =
            (1..=NODES).map(|node| format!("--node {node}={}", crate::net::address(node))).collect();
        crate::common::ends(folder.path(), &format!("cluster init lab {}", nodes.join(" ")), 0);
        let mut net = net;
        let (whole, small) =
            (folder.path().join("whole"), folder.path().join(format!("lab/node-{}", SMALL.0)));
        std::fs::rename(&small, &whole).expect("it may move");
        net.disk(&small, SMALL.1);
        for file in std::fs::read_dir(&whole).expect("a folder") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), small.join(file.file_name())).expect("room");
        }
        std::fs::write(folder.path().join("slow.c"), SLOW).expect("room");
        let mut cc = Command::new("cc");
        cc.current_dir(folder.path()).args(["-shared", "-fPIC", "-o", "slow.so", "slow.c", "-ldl"]);
        assert!(cc.status().expect("a C compiler, as for linking").success());
        let mut lab = Self { folder, net, nodes: (0..NODES).map(|_| None).collect() };
        (1..=NODES).for_each(|node| lab.serve(node));
        lab
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn serve(&mut self, node: u64) {
        let mut command = self.net.on(node, env!("CARGO_BIN_EXE_tidegate"));
        let line = format!("serve --cluster lab/node-{node} {WORK}");
        command.current_dir(self.path()).args(line.split_whitespace());
        command
            .env("LD_PRELOAD", self.path().join("slow.so"))
            .env("TIDEGATE_TEST_SLOW", self.path().join("slow"));
        let mut running = Running::of(command);
        assert_eq!(running.json()["node"], node);
        self.nodes[node as usize - 1] = Some(running);
    }

    fn kill(&mut self, node: u64) {
        self.nodes[node as usize - 1].take().expect("it runs").kill();
    }

    fn signal(&self, node: u64, signal: Signal) {
        let id = self.nodes[node as usize - 1].as_ref().expect("it runs").id();
        let process = Pid::from_raw(id as i32).expect("a process");
        kill_process(process, signal).expect("it is ours");
    }

    fn status(&self) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(self.path()).args(["cluster", "status", "lab", "--json"]);
        serde_json::from_slice(&command.output().expect("the binary starts").stdout).unwrap_or(Value::Null)
    }

    /// Waits until the cluster is so.
    #[track_caller]
    fn until(&self, history: &History, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            if let Some(wrong) = history.wrong() {
                panic!("a reader saw what cannot be while waiting for {what}: {wrong}");
            }
            assert!(start.elapsed() < PATIENCE, "no {what} in time: {status:#}");
        }
    }

    /// All in sync; who leads.
    #[track_caller]
    fn settled(&self, history: &History) -> u64 {
        let status = self.until(history, "three in sync", |status| {
            status["meta"]["group"]["isr"].as_array().is_some_and(|isr| isr.len() as u64 == NODES)
                && (1..=NODES).all(|node| replica(status, node)["in_sync"] == true)
        });
        leader(&status).expect("somebody leads")
    }

    /// Waits until more is acknowledged than was offered: the cluster goes on.
    #[track_caller]
    fn goes_on(&self, history: &History, what: &str) {
        let offered: Vec<u64> =
            history.feeds.iter().map(|fed| fed.offered.load(std::sync::atomic::Ordering::SeqCst)).collect();
        let start = Instant::now();
        while history
            .feeds
            .iter()
            .zip(&offered)
            .any(|(fed, offered)| fed.acked.load(std::sync::atomic::Ordering::SeqCst) <= *offered)
        {
            if let Some(wrong) = history.wrong() {
                panic!("a reader saw what cannot be after {what}: {wrong}");
            }
            if start.elapsed() >= PATIENCE {
                let busy: Vec<String> = (1..=NODES).map(|node| self.busy(node)).collect();
                panic!("it does not go on after {what}: {:#}\n{}", self.status(), busy.join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// What each thread of a node does in a second: whether it works, and what it waits for.
    fn busy(&self, node: u64) -> String {
        let Some(running) = &self.nodes[node as usize - 1] else {
            return format!("node {node} does not run");
        };
        let look = || {
            let threads =
                std::fs::read_dir(format!("/proc/{}/task", running.id())).into_iter().flatten().flatten();
            let of = |thread: std::fs::DirEntry| {
                let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
                let stat = read("stat");
                let rest: Vec<&str> =
                    stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
                let ticks = |at: usize| rest.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
                (thread.file_name(), (read("comm").trim().to_owned(), ticks(11) + ticks(12), read("wchan")))
            };
            threads.map(of).collect::<std::collections::BTreeMap<_, _>>()
        };
        let before = look();
        std::thread::park_timeout(Duration::from_secs(1));
        let worked = look().into_iter().map(|(id, (name, ticks, waits))| {
            let was = before.get(&id).map_or(ticks, |(_, ticks, _)| *ticks);
            format!("{name} {} ticks, {waits}", ticks - was)
        });
        format!("node {node}: {}", worked.collect::<Vec<_>>().join("; "))
    }

    /// Lets a fault happen and end.
    fn suffer(&mut self, fault: Fault, history: &History, random: &mut Random) {
        let led = self.settled(history);
        let others: Vec<u64> = (1..=NODES).filter(|node| *node != led).collect();
        let other = others[random.below(others.len() as u64) as usize];
        let what = format!("{fault:?}, when node {led} led (and {other} was chosen)");
        match fault {
            Fault::StopLeader | Fault::StopFollower => {
                let node = if fault == Fault::StopLeader { led } else { other };
                self.signal(node, Signal::STOP);
                self.goes_on(history, &what);
                self.signal(node, Signal::CONT);
            }
            Fault::DeafFollower | Fault::MuteFollower => {
                let (from, to) = if fault == Fault::DeafFollower { (led, other) } else { (other, led) };
                self.net.cut(from, to, true);
                self.goes_on(history, &what);
                self.net.cut(from, to, false);
            }
            Fault::MuteLeader => {
                let all = [others[0], others[1], crate::net::CLIENTS];
                all.iter().for_each(|&to| self.net.cut(led, to, true));
                self.goes_on(history, &what);
                all.iter().for_each(|&to| self.net.cut(led, to, false));
            }
            Fault::LoneLeader | Fault::LoneFollower => {
                let node = if fault == Fault::LoneLeader { led } else { other };
                self.net.isolate(node, true);
                self.goes_on(history, &what);
                self.net.isolate(node, false);
            }
            Fault::Disturbed => {
                (1..=NODES).for_each(|node| self.net.disturb(node, true));
                self.goes_on(history, &what);
                self.kill(led);
                self.goes_on(history, &what);
                (1..=NODES).for_each(|node| self.net.disturb(node, false));
                self.serve(led);
            }
            Fault::NoMajority => {
                self.kill(led);
                self.kill(other);
                self.serve(other);
                self.goes_on(history, &what);
                self.serve(led);
            }
            Fault::FullDisk => {
                let (node, _) = SMALL;
                let ballast = self.path().join(format!("lab/node-{node}/ballast"));
                // As much as there is.
                let mut file = std::fs::File::create(&ballast).expect("a file");
                while file.write_all(&[1; 4_096]).is_ok() {}
                drop(file);
                self.goes_on(history, &what);
                std::fs::remove_file(&ballast).expect("it is ours");
                let running = self.nodes[node as usize - 1].as_mut().expect("it runs");
                if running.is_over() {
                    let (_, notes, _) = self.nodes[node as usize - 1].take().expect("it ran").rest();
                    eprintln!(
                        "cluster faults: node {node} ended: {}",
                        notes.lines().last().unwrap_or_default()
                    );
                    self.serve(node);
                }
            }
            Fault::SlowSync => {
                std::fs::write(self.path().join("slow"), SLOW_MS).expect("room");
                self.goes_on(history, &what);
                self.kill(led);
                self.goes_on(history, &what);
                self.serve(led);
                self.settled(history);
                std::fs::write(self.path().join("slow"), "0").expect("room");
            }
            Fault::All => {
                (1..=NODES).for_each(|node| self.kill(node));
                (1..=NODES).for_each(|node| self.serve(node));
            }
        }
        self.goes_on(history, &what);
    }
}

/// The middle one, and the longest.
fn figures(mut spans: Vec<Duration>) -> String {
    spans.sort_unstable();
    let at = |part: usize| spans.get((spans.len() * part / 100).min(spans.len().saturating_sub(1)));
    let ms = |span: Option<&Duration>| span.map_or(f64::NAN, |span| span.as_secs_f64() * 1e3);
    format!("median {:.0} ms, p99 {:.0} ms, longest {:.0} ms", ms(at(50)), ms(at(99)), ms(spans.last()))
}

#[test]
fn machines_fail_and_nothing_acknowledged_is_lost_or_doubled() {
    if skipped("cluster faults") {
        return;
    }
    let plan = Plan::of_environment();
    eprintln!("cluster faults: seed {}, {} kills, {} rounds", plan.seed, plan.kills, plan.rounds);
    let mut random = Random(plan.seed);
    let mut lab = Lab::new();
    let nodes: Vec<_> = (1..=NODES).map(clients).collect();
    let history = History::start(&nodes, &lab.path().join("lab/ca-cert.pem"));
    lab.goes_on(&history, "the start");
    let (mut leaders, mut followers) = (Vec::new(), Vec::new());
    for kill in 1..=plan.kills {
        let led = lab.settled(&history);
        let others: Vec<u64> = (1..=NODES).filter(|node| *node != led).collect();
        let victim = if random.below(4) > 0 { led } else { others[random.below(2) as usize] };
        let then = Instant::now();
        lab.kill(victim);
        lab.goes_on(&history, &format!("kill {kill}, of node {victim} when {led} led"));
        // What the readers of nodes saw that lived, and the one whose node died.
        let spans = history.longest_since(then);
        if victim == led {
            leaders.extend(spans)
        } else {
            followers.extend(spans)
        }
        lab.serve(victim);
        if kill % 20 == 0 {
            eprintln!("cluster faults: {kill} kills, {} events acknowledged", history.acked());
        }
    }
    if !leaders.is_empty() {
        eprintln!("cluster faults: without results after a leader's death: {}", figures(leaders));
    }
    if !followers.is_empty() {
        eprintln!("cluster faults: without results after a follower's death: {}", figures(followers));
    }
    for round in 0..plan.rounds {
        // All of them in turn, and then as the seed has it.
        let at = if (round as usize) < FAULTS.len() {
            round as usize
        } else {
            random.below(FAULTS.len() as u64) as usize
        };
        let then = Instant::now();
        lab.suffer(FAULTS[at], &history, &mut random);
        let longest = history.longest_since(then).into_iter().max().unwrap_or_default();
        eprintln!(
            "cluster faults: round {}: {:?}, at most {longest:.0?} without results",
            round + 1,
            FAULTS[at]
        );
    }
    lab.settled(&history);
    let continued = history.feeds[1].continued.load(std::sync::atomic::Ordering::SeqCst);
    let counts = history.end();
    let total: u64 = counts.iter().sum();
    let all = lab.status();
    let start = Instant::now();
    let mut status = all;
    while !(1..=NODES).all(|node| {
        let replica = replica(&status, node);
        replica["logged"] == total && replica["commit"] == status["nodes"][0]["replica"]["end"]
    }) {
        assert!(start.elapsed() < PATIENCE, "not all have {total} events: {status:#}");
        status = lab.status();
    }
    let digests: Vec<Value> = (1..=NODES).map(|node| replica(&status, node)["digest"].clone()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{status:#}");
    let mut results = Vec::new();
    for node in std::mem::take(&mut lab.nodes).into_iter().flatten() {
        let summary = node.summary();
        for ((name, _), count) in FEEDS.iter().zip(counts) {
            let sources = summary["sources"].as_array().cloned().unwrap_or_default();
            let source = sources.iter().find(|source| source["name"] == *name).expect("it fed").clone();
            assert_eq!(
                [&source["accepted"], &source["declared_lost"], &source["refused"]],
                [count, 0, 0],
                "{source}"
            );
        }
        assert_eq!((&summary["imbalance"], &summary["events"]), (&Value::from(0), &Value::from(total)));
        results.push(summary["digest"].clone());
    }
    assert!(results.iter().all(|digest| *digest == results[0]), "{results:?}");
    eprintln!(
        "cluster faults: {total} events acknowledged, each in the log and in {NODES} readers' streams once and in order; a session continued \
         {continued} times; equal digests on all nodes"
    );
}
