//! A server whose log is in Kafka goes on from there as from its own disk.

use rdkafka::mocking::MockCluster;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::runtime::{RuntimeOptions, StageFactory, Threads};
use tidegate_engine::{Event, Price, Size, Stage, flag};
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::{Batch, Disk, Journal, JournalOptions, LogStore, Remote};
use tidegate_kafka::{KafkaLog, KafkaOptions};
use tidegate_live::{
    JournalError, JournalSettings, LiveError, LiveOptions, LiveReport, Network, Recovered, SnapshotOptions,
};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;

const START_NS: u64 = 1_767_571_200_000_000_000;

fn stages() -> StageFactory {
    let spec: BarSpec = "20t".parse().unwrap();
    Arc::new(move || vec![Stage::new("20t", 0, spec.operator(BarOptions::default()))])
}

fn options(folder: &Path, remote: Option<Arc<dyn Remote>>) -> LiveOptions {
    LiveOptions {
        runtime: RuntimeOptions { shards: 1, ..RuntimeOptions::default() },
        journal: Some(JournalSettings {
            folder: folder.to_owned(),
            remote,
            journal: JournalOptions { lineage: 42, ..JournalOptions::default() },
            commit: CommitOptions { reserve_bytes: 0, ..CommitOptions::default() },
            // One at an end in order.
            snapshots: Some(SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: 2 }),
            settings: "test".to_owned(),
            wall_ns: || START_NS,
            progress: |_| {},
        }),
        ..LiveOptions::default()
    }
}

/// A life of the server from start to an end in order.
fn live(folder: &Path, remote: Option<Arc<dyn Remote>>) -> Result<(Recovered, LiveReport), LiveError> {
    let options = options(folder, remote);
    let network = Network::start(Threads::Fused, &options.runtime).unwrap();
    let columns = Vec::new();
    let stream = StreamMeta { name: "bars.20t".to_owned(), kind: StreamKind::MeasureBars, columns };
    let live = network.live(stages(), vec![stream], options)?;
    let recovered = live.recovered().clone();
    Ok((recovered, live.finish()?))
}

/// What ingest writes of a feed with two symbols: so many turns of 30 trades from `first` on.
fn turns(first: u64, count: u64) -> Vec<Batch> {
    let turn = |turn: u64| {
        let mut batch = Batch::new();
        if turn == 0 {
            assert!(batch.source(0, 100, 1, true, "feed", "desk") && batch.names(0, 0, 0, &["A", "B"]));
        }
        let trade = |at: u64| {
            let (ts, price) = (START_NS + at * 1_000_000, Price(1_000_000_000 * (100 + at as i64 % 7)));
            Event::trade(ts, at as u32 % 2, 0, price, Size(100), flag::BUY)
        };
        let events: Vec<Event> = (turn * 30..(turn + 1) * 30).map(trade).collect();
        assert!(batch.events(0, turn * 30 + 1, 2, &events));
        batch
    };
    (first..first + count).map(turn).collect()
}

#[test]
fn a_server_goes_on_from_a_topic_as_from_its_disk() {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("log", 1, 3).unwrap();
    let kafka = KafkaOptions {
        brokers: cluster.bootstrap_servers(),
        topic: "log".to_owned(),
        patience: Duration::from_secs(10),
        client: BTreeMap::new(),
    };
    let remote = || -> Option<Arc<dyn Remote>> { Some(Arc::new(kafka.clone())) };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut before = 0;
    // Two lives: the second one goes on from the first one's snapshot, and reads what is behind that.
    for first in [0, 40] {
        let batches = turns(first, 40);
        let options = JournalOptions { lineage: 42, ..JournalOptions::default() };
        let (mut disk, _) =
            Journal::open(Disk::open(here.path()).unwrap(), options, START_NS, |_| {}).unwrap();
        let mut topic = KafkaLog::open(kafka.clone(), 42, None, &mut |_| {}).unwrap();
        for batch in &batches {
            disk.append(batch, 1, START_NS).unwrap();
            topic.append(batch, 1, START_NS).unwrap();
        }
        disk.sync().unwrap();
        topic.sync().unwrap();
        assert_eq!(disk.point(), topic.point(), "the chain is that of the same bytes");
        drop((disk, topic));
        let (recovered, local) = live(here.path(), None).unwrap();
        let (remotely, report) = live(there.path(), remote()).unwrap();
        assert_eq!(recovered, Recovered { snapshot_bytes: recovered.snapshot_bytes, ..remotely.clone() });
        assert_eq!((remotely.snapshot.is_some(), remotely.records > 1_199), (first > 0, true));
        assert_eq!(report.imbalance(), 0);
        let results = |report: &LiveReport| {
            (report.runtime.digest.short(), report.runtime.digest.outputs(), report.ingest.stats.logged)
        };
        assert_eq!(results(&local), results(&report));
        assert!(report.runtime.digest.outputs() > before);
        before = report.runtime.digest.outputs();
        let journal = report.ingest.stats.journal.unwrap();
        assert_eq!(journal.positions.durable, journal.positions.taken, "that it ended is in the topic too");
    }
    match live(here.path(), remote()).err().unwrap() {
        LiveError::Journal(JournalError::Two { .. }) => {}
        error => panic!("{error}"),
    }
    // Without the snapshots all of it is read.
    let empty = tempfile::tempdir().unwrap();
    let (recovered, report) = live(empty.path(), remote()).unwrap();
    assert_eq!((recovered.snapshot, report.runtime.digest.outputs()), (None, before));
}
