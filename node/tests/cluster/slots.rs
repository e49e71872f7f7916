//! A hot key goes from one group to another and back, under load: readers see no gap and no repetition, all nodes have the same, and the results are
//! those of a server that never moved anything.

use super::groups::{
    Clients, GROUPS, ROUNDS, SYMBOLS, WORK, Worker, all_in_sync, publish, read, replicas, symbols, until,
    work,
};
use super::{Cluster, ends, fails};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tidegate_engine::{name_hash, slot_of};

/// The group of a slot, as metadata has it: runs of slots, each from its first on.
fn group_of(status: &Value, slot: u16) -> u64 {
    let runs = status["meta"]["slots"].as_array().cloned().unwrap_or_default();
    let runs: Vec<(u64, u64)> =
        runs.iter().filter_map(|run| Some((run[0].as_u64()?, run[1].as_u64()?))).collect();
    runs.iter().rfind(|run| run.0 <= u64::from(slot)).map_or(u64::MAX, |run| run.1)
}

#[test]
fn a_hot_key_moves_under_load_and_back() {
    let mut cluster = Cluster::of_groups(WORK, GROUPS);
    let status = cluster.until("four groups in sync", all_in_sync);
    let key = symbols()[0].clone();
    let slot = slot_of(name_hash(key.as_bytes()));
    assert_eq!(group_of(&status, slot), 0, "{status:#}");

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

    for (to, from) in [(2, 0), (0, 2)] {
        let before = clients.offered.load(SeqCst);
        let (text, _) = ends(cluster.path(), &format!("cluster move lab --key {key} --to {to}"), 0);
        assert!(text.contains(&format!("is group {to}'s now, and was group {from}'s")), "{text}");
        let status = cluster.until("the slot there", |status| group_of(status, slot) == to);
        assert_eq!(status["meta"]["moves"][slot.to_string()]["to"], to, "{status:#}");
        until("acknowledgements behind the move", &workers, || acked(before + ROUNDS));
    }
    fails(
        cluster.path(),
        &format!("cluster move lab --slot {slot} --to 0"),
        1,
        &[&format!("slot {slot} is group 0's already")],
    );
    fails(cluster.path(), &format!("cluster move lab --slot {slot} --to 9"), 2, &["there is no group 9"]);

    clients.stop.store(true, SeqCst);
    workers.pop().expect("the feed").join().expect("no panic").expect("everything is acknowledged");
    let rounds = clients.offered.load(SeqCst);
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
    let summaries: Vec<Value> = cluster.end();
    for summary in &summaries {
        let source = &summary["sources"][0];
        assert_eq!([&source["declared_lost"], &source["refused"]], [0, 0], "{source}");
        assert_eq!((&summary["imbalance"], &summary["events"]), (&json!(0), &json!(all)), "{summary:#}");
        assert_eq!(
            (&summary["digest"], &summary["streams"]),
            (&summaries[0]["digest"], &summaries[0]["streams"])
        );
    }
}
