//! Several groups, each led somewhere: one feed publishes the symbols of all of them, a reader at each node reads all of them, and a node
//! that leads two is killed. Nothing that was acknowledged is lost or applied twice, and readers go on without a gap.

use super::{Cluster, PATIENCE};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_engine::{Event, Price, Size, name_hash, slot_of};
use tidegate_proto::AckMode;
use tidegate_proto::subscriber::Continuation;
use tidegate_proto::subscription::{Start, Subscription};
use tidegate_quic::{ClientOptions, Publisher, PublisherOptions, Subscriber, Trust, Update};

pub(super) const GROUPS: usize = 4;
/// Symbols of the feed, five of each group.
pub(super) const SYMBOLS: usize = 5 * GROUPS;
/// Rounds, of an event of each symbol, that are to be acknowledged before and behind each turn of the test.
pub(super) const ROUNDS: u64 = 150;
/// Slow enough for a reader to stand still for half a minute within what is held for it.
const PACE: Duration = Duration::from_millis(10);
pub(super) const WORK: &str = "--json --http off --bars 1t";

/// The groups as metadata has them.
pub(super) fn groups(status: &Value) -> Vec<Value> {
    let meta = &status["meta"];
    let more = meta["more"].as_array().cloned().unwrap_or_default();
    std::iter::once(meta["group"].clone()).chain(more).collect()
}

/// The groups that a node leads.
fn leads(status: &Value, node: u64) -> Vec<usize> {
    let of = groups(status);
    (0..of.len()).filter(|at| of[*at]["leader"]["node"] == node).collect()
}

/// A node's replicas, by group.
pub(super) fn replicas(status: &Value, node: u64) -> Vec<Value> {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let Some(found) = nodes.into_iter().find(|found| found["node"] == node) else { return Vec::new() };
    let more = found["replicas"].as_array().cloned().unwrap_or_default();
    std::iter::once(found["replica"].clone()).chain(more).collect()
}

pub(super) fn all_in_sync(status: &Value) -> bool {
    let whole = |group: &Value| group["isr"].as_array().is_some_and(|isr| isr.len() == 3);
    let here = |node| {
        let of = replicas(status, node);
        of.len() == GROUPS && of.iter().all(|replica| replica["in_sync"] == true)
    };
    groups(status).iter().all(whole) && (1..=3).all(here)
}

/// Names that fall into the groups by turns.
pub(super) fn symbols() -> Vec<String> {
    let of = |name: &String| usize::from(slot_of(name_hash(name.as_bytes()))) * GROUPS / 4_096;
    let mut named: Vec<Vec<String>> = vec![Vec::new(); GROUPS];
    for at in 0.. {
        let name = format!("S{at}");
        let of = of(&name);
        if named[of].len() < SYMBOLS / GROUPS {
            named[of].push(name);
        }
        if named.iter().all(|of| of.len() == SYMBOLS / GROUPS) {
            break;
        }
    }
    (0..SYMBOLS).map(|at| named[at % GROUPS][at / GROUPS].clone()).collect()
}

/// Event `round` of a symbol: no other of it has its price.
fn event(symbol: usize, round: u64) -> Event {
    const T0: u64 = 1_767_571_200_000_000_000;
    Event::trade(T0 + round * 1_000_000, symbol as u32, 0, Price(1_000 + round as i64), Size(1), 0)
}

#[derive(Default)]
pub(super) struct Clients {
    pub(super) stop: AtomicBool,
    pub(super) ended: AtomicBool,
    /// Rounds that were offered, and events that were acknowledged.
    pub(super) offered: AtomicU64,
    pub(super) acked: AtomicU64,
    /// Results that each reader has seen.
    pub(super) seen: [AtomicU64; 3],
    pub(super) live: AtomicU64,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn client(servers: &str, first: usize, ca: &Path) -> ClientOptions {
    let mut nodes: Vec<SocketAddr> =
        servers.split(',').map(|server| server.parse().expect("an address")).collect();
    nodes.rotate_left(first);
    let options = ClientOptions::new(nodes[0], Trust::of_file(ca).expect("the cluster's CA"));
    ClientOptions { others: nodes[1..].to_vec(), give_up_after: PATIENCE, ..options }
}

/// Publishes rounds until it is told to stop; then everything must be acknowledged.
pub(super) async fn publish(options: ClientOptions, clients: &Clients) -> Result<(), String> {
    let said =
        |error: &dyn std::fmt::Display| format!("behind {} rounds: {error}", clients.offered.load(SeqCst));
    let of = PublisherOptions {
        source_id: 7,
        name: "all".to_owned(),
        ack_mode: AckMode::Committed,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::connect(options, of).await.map_err(|error| said(&error))?;
    for symbol in symbols() {
        publisher.define(&symbol).map_err(|error| said(&error))?;
    }
    while !clients.stop.load(SeqCst) {
        let round = clients.offered.fetch_add(1, SeqCst);
        let events: Vec<Event> = (0..SYMBOLS).map(|symbol| event(symbol, round)).collect();
        publisher.send(&events).await.map_err(|error| said(&error))?;
        clients.acked.store(publisher.stats().acked, SeqCst);
        tokio::time::sleep(PACE).await;
    }
    let stats = publisher.finish().await.map_err(|error| said(&error))?;
    let offered = clients.offered.load(SeqCst) * SYMBOLS as u64;
    if stats.acked != offered || stats.lost_by_server > 0 {
        return Err(said(&format!("{} of {offered} events are acknowledged", stats.acked)));
    }
    Ok(())
}

/// Reads until it is told to stop, and looks at each result: of each symbol one after the other, as they were fed.
pub(super) async fn read(options: ClientOptions, at: usize, clients: &Clients) -> Result<(), String> {
    let subscription =
        Subscription { streams: vec!["bars.1t".to_owned()], start: Start::Latest, ..Subscription::default() };
    let connected = Subscriber::connect(options, "reader", subscription).await;
    let mut subscriber = connected.map_err(|error| error.to_string())?;
    let mut last: HashMap<String, u64> = symbols().into_iter().map(|symbol| (symbol, 0)).collect();
    let mut counted = false;
    while !clients.ended.load(SeqCst) {
        let Ok(update) = tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await else {
            continue;
        };
        match update.map_err(|error| error.to_string())? {
            Some(Update::Record { name, output, .. }) => {
                let Some(last) = last.get_mut(&*name) else { return Err(format!("nobody feeds {name}")) };
                let (number, open) = (output.sequence, output.bar().open);
                if number != *last + 1 || open != 1_000 + *last as i64 {
                    return Err(format!("{name}: result {number} of price {open} came behind {last}"));
                }
                *last = number;
                clients.seen[at].fetch_add(1, SeqCst);
            }
            Some(Update::Live(_)) if !counted => {
                counted = true;
                clients.live.fetch_add(1, SeqCst);
            }
            Some(Update::Live(_) | Update::Reconnected(Continuation::Resumed)) => {}
            // Where nothing had come there is nothing to go on from.
            Some(Update::Reconnected(Continuation::Anew)) if last.values().all(|last| *last == 0) => {}
            other => return Err(format!("reader {}: {other:?}", at + 1)),
        }
    }
    Ok(())
}

pub(super) type Worker = JoinHandle<Result<(), String>>;

pub(super) fn work(
    servers: &str,
    first: usize,
    ca: &Path,
    clients: &Arc<Clients>,
    task: impl AsyncFnOnce(ClientOptions, &Clients) -> Result<(), String> + Send + 'static,
) -> Worker {
    let (options, clients) = (client(servers, first, ca), Arc::clone(clients));
    std::thread::spawn(move || runtime().block_on(task(options, &clients)))
}

/// Waits until that is so, as long as all clients are well.
#[track_caller]
pub(super) fn until(what: &str, workers: &[Worker], is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(!workers.iter().any(JoinHandle::is_finished), "a client ended before {what}");
        assert!(start.elapsed() < PATIENCE, "no {what} in time");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn a_leader_of_two_groups_is_killed_and_nothing_is_lost() {
    let mut cluster = Cluster::of_groups(WORK, GROUPS);
    let status = cluster.until("four groups in sync", all_in_sync);
    // They begin evenly spread, but a machine that stands still for a moment has nodes lose what they lead.
    let killed = (1..=3).max_by_key(|node| leads(&status, *node).len()).expect("three nodes");
    let old = leads(&status, killed);
    assert!(old.len() > 1, "{status:#}");
    let epochs = |status: &Value| -> Vec<u64> {
        groups(status).iter().map(|group| group["epoch"].as_u64().expect("a number")).collect()
    };
    let before_all = epochs(&status);

    let (clients, ca): (Arc<Clients>, PathBuf) = (Arc::default(), cluster.path().join("lab/ca-cert.pem"));
    let servers = cluster.servers.clone();
    let mut workers: Vec<Worker> = (0..3)
        .map(|at| {
            work(&servers, at, &ca, &clients, async move |options, clients: &Clients| {
                read(options, at, clients).await
            })
        })
        .collect();
    until("three readers", &workers, || clients.live.load(SeqCst) == 3);
    workers.push(work(&servers, 0, &ca, &clients, publish));
    let acked = |rounds: u64| clients.acked.load(SeqCst) >= rounds * SYMBOLS as u64;
    until("acknowledgements", &workers, || acked(ROUNDS));

    cluster.kill(killed);
    let before = clients.offered.load(SeqCst);
    let status = cluster.until("leaders of all groups", |status| {
        leads(status, killed).is_empty()
            && (1..=3).map(|node| leads(status, node).len()).sum::<usize>() == GROUPS
    });
    let epochs = epochs(&status);
    assert!(old.iter().all(|&at| epochs[at] > before_all[at]), "{old:?}: {before_all:?}, {epochs:?}");
    until("acknowledgements behind the loss", &workers, || acked(before + ROUNDS));
    cluster.serve(killed);
    cluster.until("four groups in sync again", all_in_sync);
    let before = clients.offered.load(SeqCst);
    until("acknowledgements with all nodes", &workers, || acked(before + ROUNDS));

    clients.stop.store(true, SeqCst);
    workers.pop().expect("the feed").join().expect("no panic").expect("everything is acknowledged");
    let rounds = clients.offered.load(SeqCst);
    // A bar of one trade is told by the trade behind it, or the end of the feed.
    let least = (rounds - 1) * SYMBOLS as u64;
    until("all results at all readers", &workers, || {
        clients.seen.iter().all(|seen| seen.load(SeqCst) >= least)
    });
    clients.ended.store(true, SeqCst);
    for worker in workers {
        worker.join().expect("no panic").expect("results without a gap");
    }

    let all = rounds * SYMBOLS as u64;
    let status = cluster.until("everything everywhere", |status| {
        (1..=3).all(|node| {
            let of = replicas(status, node);
            of.iter().filter_map(|replica| replica["logged"].as_u64()).sum::<u64>() == all
                && of.iter().all(|replica| replica["commit"] == replica["end"])
        })
    });
    for group in 0..GROUPS {
        let of = |node| {
            let replica = &replicas(&status, node)[group];
            json!([replica["commit"], replica["digest"], replica["logged"]])
        };
        assert_eq!((of(2), of(3)), (of(1), of(1)), "group {group}");
    }
    // With the first event of all, the groups that have none yet are told the time: accepted, and no events.
    let accepted = all + GROUPS as u64 - 1;
    let summaries: Vec<Value> = cluster.end();
    for summary in &summaries {
        let source = &summary["sources"][0];
        assert_eq!(
            [&source["accepted"], &source["declared_lost"], &source["refused"]],
            [accepted, 0, 0],
            "{source}"
        );
        assert_eq!((&summary["imbalance"], &summary["events"]), (&json!(0), &json!(all)));
        assert_eq!(
            (&summary["digest"], &summary["streams"]),
            (&summaries[0]["digest"], &summaries[0]["streams"])
        );
        assert_eq!(summary["groups"].as_array().map(Vec::len), Some(GROUPS - 1));
    }
}
