//! Two engines that share a log by hand: feeds are sent to who leads, acknowledged once committed, and go on when another leads.

mod common;

use common::{Pki, Server, load, start_with};
use std::net::SocketAddr;
use tidegate_engine::{Event, Price, Size};
use tidegate_live::replication::{Input, Order, ReplicationDriver, replication};
use tidegate_live::{LiveOptions, LiveReport};
use tidegate_proto::AckMode;
use tidegate_proto::feed::FeedServerOptions;
use tidegate_quic::{ClientOptions, Limits, Publisher, PublisherOptions};

const EVENTS: usize = 60_000;

fn events() -> Vec<Event> {
    (0..EVENTS as u64)
        .map(|at| Event::trade(at * 1_000_000, (at % 3) as u32, 0, Price(100 + at as i64 % 7), Size(1), 0))
        .collect()
}

struct Node {
    server: Server,
    driver: ReplicationDriver,
}

fn node(pki: &Pki) -> Node {
    let (port, driver) = replication();
    let options = LiveOptions {
        feed: FeedServerOptions { committed: true, ..FeedServerOptions::default() },
        replication: Some(port),
        ..LiveOptions::default()
    };
    Node { server: start_with(pki, load(pki, &pki.options()), options, Limits::default()), driver }
}

impl Node {
    async fn order(&self, order: Order) {
        self.driver.orders.send_async(order).await.unwrap();
        self.server.live.ingest().replicated();
    }

    fn address(&self) -> SocketAddr {
        self.server.quic.address()
    }

    /// What its feeds sent, until there are so many events.
    async fn submitted(&self, epoch: u32, log: &mut Vec<Input>, until: u64, publisher: &Publisher) {
        while publisher.stats().offered < until || events_in(log) < until {
            let submission = self.driver.submissions.recv_async().await.unwrap();
            assert_eq!(submission.epoch, epoch);
            let checked = Input::check(submission.input.bytes().clone()).unwrap();
            log.push(checked);
        }
    }

    async fn end(self) -> LiveReport {
        let Self { server: Server { live, quic, .. }, .. } = self;
        let report = tokio::task::spawn_blocking(move || live.finish().unwrap()).await.unwrap();
        quic.close().await;
        report
    }
}

fn events_in(log: &[Input]) -> u64 {
    log.iter().map(Input::events).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_follow_the_leader_and_are_acknowledged_what_is_committed() {
    let pki = Pki::new(&[]);
    let (one, two) = (node(&pki), node(&pki));
    let (at_one, at_two) = (one.address(), two.address());
    one.order(Order::Follow { node: None, leader: Some(at_two), epoch: 1 }).await;
    two.order(Order::Lead { epoch: 1, tail: Vec::new() }).await;

    // The first server it asks does not lead, and says who does.
    let client = ClientOptions { others: vec![at_two], ..one.server.client.clone() };
    let options = PublisherOptions { ack_mode: AckMode::Committed, ..PublisherOptions::default() };
    let publisher = Publisher::connect(client, options).await.unwrap();
    for name in ["A", "B", "C"] {
        publisher.define(name).unwrap();
    }
    let all = events();
    let (first, rest) = all.split_at(EVENTS / 2);
    let mut log = Vec::new();
    // In two parts, or a machine that stands still would have one turn take them all.
    for (part, until) in [(&first[..1], 1), (&first[1..], first.len() as u64)] {
        publisher.send(part).await.unwrap();
        two.submitted(1, &mut log, until, &publisher).await;
    }
    assert_eq!(publisher.stats().acked, 0, "nothing is committed yet");

    // The first events in the log are committed on both, then the other one leads: its tail is the rest.
    let split = (1..log.len()).find(|&at| events_in(&log[..at]) > 0);
    let (committed, tail) = log.split_at(split.expect("events come in two turns"));
    let committed_events = events_in(committed);
    for node in [&one, &two] {
        node.order(Order::Commit(committed.to_vec())).await;
    }
    while publisher.stats().acked < committed_events {
        tokio::task::yield_now().await;
    }
    assert_eq!(publisher.stats().acked, committed_events, "no more than what is committed");
    one.order(Order::Lead { epoch: 2, tail: tail.to_vec() }).await;
    two.order(Order::Follow { node: None, leader: Some(at_one), epoch: 2 }).await;

    // Until its tail is committed the new leader tells feeds nothing: they may have been promised some of it.
    for node in [&one, &two] {
        node.order(Order::Commit(tail.to_vec())).await;
    }
    publisher.send(rest).await.unwrap();
    let mut later = Vec::new();
    one.submitted(2, &mut later, rest.len() as u64, &publisher).await;
    assert_eq!(events_in(&later), rest.len() as u64, "what the tail has is not taken again");
    for node in [&one, &two] {
        node.order(Order::Commit(later.clone())).await;
    }
    publisher.settle().await.unwrap();
    let stats = publisher.stats();
    assert_eq!((stats.acked, stats.lost_by_server), (EVENTS as u64, 0));
    drop(publisher);

    // What was submitted in another epoch than the node leads in would be dropped by a driver; here there is none of it.
    assert!(two.driver.submissions.try_recv().is_err());
    let logged = |node: &Node| node.server.live.ingest().stats().logged;
    while logged(&one) < EVENTS as u64 || logged(&two) < EVENTS as u64 {
        tokio::task::yield_now().await;
    }
    let (one, two) = (one.end().await, two.end().await);
    assert_eq!((one.imbalance(), two.imbalance()), (0, 0));
    assert_eq!((one.runtime.events, two.runtime.events), (EVENTS as u64, EVENTS as u64));
    assert!(one.runtime.digest.outputs() > 0 && one.runtime.digest == two.runtime.digest);
}
