//! The log in a topic of librdkafka's own mock cluster: what was committed is read again, and nothing else.

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_engine::Event;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::{AppendError, Batch, LogStore, Point, Remote, SyncPolicy};
use tidegate_kafka::{KafkaError, KafkaLog, KafkaOptions};

const TOPIC: &str = "ticks";
const LINEAGE: u128 = 7;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> (Cluster, KafkaOptions) {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, partitions, 3).unwrap();
    let options = KafkaOptions {
        brokers: cluster.bootstrap_servers(),
        topic: TOPIC.to_owned(),
        patience: Duration::from_secs(10),
        client: BTreeMap::new(),
    };
    (cluster, options)
}

fn event() -> Event {
    Event { ts_event: 0, key: 1, source: 0, kind: 1, flags: 0, payload: [7, 9] }
}

/// A batch of `count` events that begin with number `first`.
fn batch(first: u64, count: usize) -> Batch {
    let mut batch = Batch::new();
    for chunk in (0..count as u64).collect::<Vec<_>>().chunks(1_000) {
        let events: Vec<Event> = chunk.iter().map(|at| Event { ts_event: first + at, ..event() }).collect();
        assert!(batch.events(0, first + chunk[0] + 1, 0, &events));
    }
    batch
}

/// All bodies behind a point, in order, and the log.
fn open(options: &KafkaOptions, point: Option<Point>) -> Result<(KafkaLog, Vec<Vec<u8>>), KafkaError> {
    let mut found = Vec::new();
    let log = KafkaLog::open(options.clone(), LINEAGE, point, &mut |view| found.push(view.body.to_vec()))?;
    Ok((log, found))
}

/// Tries again for as long as brokers are out of reach.
fn sync(log: &mut KafkaLog) -> usize {
    for tries in 1..100 {
        match log.sync() {
            Ok(()) => return tries,
            Err(AppendError::Away(_)) => {}
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }
    panic!("it never went on");
}

#[test]
fn what_was_committed_is_read_again_and_gone_on_from() {
    let (_cluster, options) = cluster(1);
    let (mut log, nothing) = open(&options, None).unwrap();
    assert!(nothing.is_empty() && log.extent().next == 0);
    // The third is in several messages: more than a broker takes in one.
    let batches = [batch(0, 3), batch(3, 1), batch(4, 60_000), batch(60_004, 2)];
    assert!(batches[2].body().len() > 1_800_000);
    let mut points = Vec::new();
    for batch in &batches {
        log.append(batch, 1, 42).unwrap();
        log.write().unwrap();
        log.sync().unwrap();
        assert_eq!(log.extent().synced, log.extent().next);
        points.push(log.point());
    }
    let bodies: Vec<Vec<u8>> = batches.iter().map(|batch| batch.body().to_vec()).collect();
    let (again, found) = open(&options, None).unwrap();
    assert!(found == bodies, "{} batches of {}", found.len(), bodies.len());
    assert_eq!((again.point(), again.extent().first), (points[3], 0));
    for (at, point) in points.iter().enumerate() {
        let (mut log, found) = open(&options, Some(*point)).unwrap();
        assert!(found == bodies[at + 1..], "behind {point:?}");
        if at == 3 {
            log.append(&batch(60_006, 5), 2, 44).unwrap();
            log.sync().unwrap();
        }
    }
    let (_, found) = open(&options, None).unwrap();
    assert_eq!((found.len(), found.last().map(Vec::len)), (5, Some(batch(60_006, 5).body().len())));
}

#[test]
fn a_point_of_another_log_is_refused() {
    let (_cluster, options) = cluster(1);
    let (mut log, _) = open(&options, None).unwrap();
    for at in 0..40 {
        log.append(&batch(at, 1), 1, 0).unwrap();
        log.sync().unwrap();
    }
    let end = log.point();
    let refused = |point| match open(&options, Some(point)) {
        Err(error @ KafkaError::Point { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("taken"),
    };
    assert!(refused(Point { lineage: 8, ..end }).contains("lineage"));
    assert!(refused(Point { offset: 41, ..end }).contains("lost"));
    assert!(refused(Point { chain: Default::default(), ..end }).contains("other records"));
    assert!(refused(Point { offset: 20, ..end }).contains("other records"));
}

/// The mock cluster lets two writers with one transactional id write; a real one answers the older as here.
#[test]
fn a_writer_that_was_shut_out_writes_nothing_more() {
    let (cluster, options) = cluster(1);
    let (mut log, _) = open(&options, None).unwrap();
    log.append(&batch(0, 1), 1, 0).unwrap();
    log.sync().unwrap();
    log.append(&batch(1, 1), 1, 0).unwrap();
    cluster.request_errors(RDKafkaApiKey::EndTxn, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED; 8]);
    let refused = (0..100).find_map(|_| match log.sync() {
        Ok(()) => panic!("it was shut out"),
        Err(AppendError::Away(_)) => None,
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(AppendError::Failed(_))), "{refused:?}");
    assert!(matches!(log.sync(), Err(AppendError::FailedBefore)));
    assert!(matches!(log.append(&batch(2, 1), 1, 0), Err(AppendError::FailedBefore)));
    assert_eq!(log.extent().synced, 1);
}

#[test]
fn brokers_that_refuse_for_a_while_lose_and_double_nothing() {
    let (cluster, options) = cluster(1);
    let (mut log, _) = open(&options, None).unwrap();
    let errors = [
        (RDKafkaApiKey::Produce, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS),
        (RDKafkaApiKey::EndTxn, RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
        (RDKafkaApiKey::AddPartitionsToTxn, RDKafkaRespErr::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
    ];
    let mut bodies = Vec::new();
    for (at, (api, error)) in errors.into_iter().enumerate() {
        let batch = batch(at as u64, 1);
        log.append(&batch, 1, 0).unwrap();
        cluster.request_errors(api, &[error, error]);
        sync(&mut log);
        bodies.push(batch.body().to_vec());
    }
    let (_, found) = open(&options, None).unwrap();
    assert!(found == bodies, "{} of {}", found.len(), bodies.len());
}

#[test]
fn brokers_that_are_gone_are_waited_for() {
    let (cluster, options) = cluster(1);
    let (mut log, _) = open(&options, None).unwrap();
    log.append(&batch(0, 1), 1, 0).unwrap();
    log.sync().unwrap();
    (1..=3).for_each(|broker| cluster.broker_down(broker).unwrap());
    log.append(&batch(1, 1), 1, 0).unwrap();
    let error = log.sync().unwrap_err();
    assert!(matches!(error, AppendError::Away(_)), "{error:?}");
    assert_eq!((log.extent().synced, log.extent().next), (1, 2));
    (1..=3).for_each(|broker| cluster.broker_up(broker).unwrap());
    sync(&mut log);
    let (_, found) = open(&KafkaOptions { patience: Duration::from_secs(10), ..options }, None).unwrap();
    assert_eq!(found.len(), 2);
}

#[test]
fn what_waits_for_brokers_that_are_gone_has_a_bound() {
    let (cluster, mut options) = cluster(1);
    options.patience = Duration::from_secs(5);
    let (mut log, _) = open(&options, None).unwrap();
    log.append(&batch(0, 1), 1, 0).unwrap();
    sync(&mut log);
    (1..=3).for_each(|broker| cluster.broker_down(broker).unwrap());
    let (mut first, mut bytes) = (1, 0);
    // Some 2 MB each: 64 of them are far beyond the bound.
    let refused = (0..64).find_map(|_| {
        let next = batch(first, 60_000);
        match log.append(&next, 1, 0) {
            Ok(at) => assert_eq!(at, first),
            Err(error) => return Some((next, error)),
        }
        // What is on its way to brokers counts as well.
        let _ = log.write();
        (first, bytes) = (first + 60_000, bytes + next.body().len());
        None
    });
    let (next, error) = refused.expect("it takes no more than it may keep");
    assert!(matches!(error, AppendError::Away(_)), "{error:?}");
    assert!((8 << 20..=16 << 20).contains(&bytes), "{bytes}");
    assert_eq!((log.extent().synced, log.extent().next), (1, first));
    // What it refused it has not: the same batch is the next one once brokers are there again.
    (1..=3).for_each(|broker| cluster.broker_up(broker).unwrap());
    sync(&mut log);
    let point = log.point();
    assert_eq!((point.offset, log.append(&next, 1, 0).unwrap()), (first, first));
    sync(&mut log);
    // The mock keeps 5 MB of a topic, which is the end of it.
    let (_, found) =
        open(&KafkaOptions { patience: Duration::from_secs(10), ..options }, Some(point)).unwrap();
    assert!(found == [next.body()], "{} batches", found.len());
}

#[test]
fn what_waits_in_front_of_the_log_and_in_it_is_what_may_wait_for_a_disk() {
    let (_cluster, options) = cluster(1);
    let local = CommitOptions::default();
    let commit = options.commit(CommitOptions { sync: SyncPolicy::Never, ..local });
    assert_eq!(commit.backlog_bytes + (32 << 20), local.backlog_bytes);
    assert_eq!((commit.sync, commit.reserve_bytes), (SyncPolicy::Every(100_000_000), 0));
    assert_eq!(options.commit(CommitOptions { backlog_bytes: 5, ..local }).backlog_bytes, 1, "never nothing");
}

#[test]
fn what_could_not_even_be_taken_back_is_taken_back_later() {
    let (cluster, mut options) = cluster(1);
    options.client.insert("message.timeout.ms".to_owned(), "1000".to_owned());
    let (mut log, _) = open(&options, None).unwrap();
    log.append(&batch(0, 1), 1, 0).unwrap();
    sync(&mut log);
    // Messages time out, and the coordinator does not hear that they are to be forgotten.
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 500],
    );
    let busy = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    cluster.request_errors(RDKafkaApiKey::EndTxn, &[busy; 500]);
    for at in 1..3 {
        log.append(&batch(at, 1), 1, 0).unwrap();
        let error = log.sync().unwrap_err();
        assert!(matches!(error, AppendError::Away(_)), "{error:?}");
    }
    assert_eq!((log.extent().synced, log.extent().next), (1, 3));
    for api in [RDKafkaApiKey::Produce, RDKafkaApiKey::EndTxn] {
        cluster.clear_request_errors(api);
    }
    sync(&mut log);
    let (_, found) = open(&options, None).unwrap();
    assert_eq!(found, [0, 1, 2].map(|at| batch(at, 1).body().to_vec()));
}

#[test]
fn a_topic_that_is_no_log_is_refused_with_the_place() {
    let (cluster, options) = cluster(1);
    let (mut log, _) = open(&options, None).unwrap();
    log.append(&batch(0, 1), 1, 0).unwrap();
    log.sync().unwrap();
    let other: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    other
        .send(BaseRecord::<str, str>::to(TOPIC).partition(0).payload("GET / HTTP/1.1 and some more of it"))
        .unwrap();
    other.flush(Duration::from_secs(10)).unwrap();
    let error = open(&options, None).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("message ") && error.contains("`TGKB`"), "{error}");

    let (_two, options) = self::cluster(2);
    let error = open(&options, None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("has 2 partitions"), "{error}");
    let nowhere =
        KafkaOptions { brokers: "127.0.0.1:1".to_owned(), patience: Duration::from_secs(1), ..options };
    let error = open(&nowhere, None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no answer from Kafka at 127.0.0.1:1"), "{error}");
}
