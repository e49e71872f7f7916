//! A server whose log takes nothing, and nobody knows until when: it ends all the same, and says what the log does not have.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::runtime::StageFactory;
use tidegate_engine::Stage;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::{
    AppendError, Batch, BatchView, Extent, Health, JournalOptions, LogStore, Point, Remote, RemoteError,
};
use tidegate_live::{JournalSettings, LiveError, LiveOptions, LiveReport, Network, SnapshotOptions, Threads};
use tidegate_proto::feed::{FeedClient, FeedClientOptions};
use tidegate_proto::hub::StreamMeta;
use tidegate_proto::{Grant, MonoTime, StreamKind};

/// A log that takes nothing: its disk is full, or it is elsewhere and cannot be reached.
#[derive(Debug, Clone, Copy)]
enum Stuck {
    Full,
    Away,
}

impl Stuck {
    fn why(self) -> AppendError {
        match self {
            Self::Full => AppendError::Full(io::Error::from(io::ErrorKind::StorageFull)),
            Self::Away => AppendError::Away(io::Error::from(io::ErrorKind::NotConnected)),
        }
    }
}

impl LogStore for Stuck {
    fn append(&mut self, _: &Batch, _: u32, _: u64) -> Result<u64, AppendError> {
        Err(self.why())
    }

    fn write(&mut self) -> Result<(), AppendError> {
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        Ok(())
    }

    fn retain(&mut self, _: u64, _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn point(&self) -> Point {
        Point { lineage: 42, offset: 0, epoch: 0, chain: Default::default() }
    }

    fn extent(&self) -> Extent {
        Extent::default()
    }
}

impl Remote for Stuck {
    fn name(&self) -> String {
        "a log that takes nothing".to_owned()
    }

    fn open(
        &self,
        _: u128,
        _: Option<Point>,
        _: &mut dyn FnMut(BatchView<'_>),
    ) -> Result<Box<dyn LogStore>, RemoteError> {
        Ok(Box::new(*self))
    }
}

/// What the journal's thread has at most before it is full: one batch (its backlog is a byte), and its queue.
const HELD: usize = 1 + 256;

#[test]
fn a_server_whose_log_takes_nothing_ends_and_says_what_is_not_written() {
    for (threads, stuck) in [(Threads::Fused, Stuck::Away), (Threads::Separate, Stuck::Full)] {
        let folder = tempfile::tempdir().unwrap();
        let options = LiveOptions {
            journal: Some(JournalSettings {
                folder: folder.path().to_owned(),
                remote: Some(Arc::new(stuck)),
                journal: JournalOptions { lineage: 42, ..JournalOptions::default() },
                commit: CommitOptions { backlog_bytes: 1, ..CommitOptions::default() },
                snapshots: Some(SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: 2 }),
                settings: "test".to_owned(),
                wall_ns: || 1,
                progress: |_| {},
            }),
            ..LiveOptions::default()
        };
        let stages: StageFactory = Arc::new(|| {
            let spec: BarSpec = "1s".parse().unwrap();
            vec![Stage::new("1s", 0, spec.operator(BarOptions::default()))]
        });
        let streams =
            vec![StreamMeta { name: "bars.1s".to_owned(), kind: StreamKind::Bars, columns: Vec::new() }];
        let network = Network::start(threads, &options.runtime).unwrap();
        let live = network.live(stages, streams, options).unwrap();
        // Each feed that comes is a batch of the journal; they come for as long as they are let in.
        let ingest = live.ingest();
        let feeds = network.handle().spawn(async move {
            let mut open = Vec::new();
            for at in 0u64.. {
                let options = FeedClientOptions {
                    source_id: at,
                    session: 1,
                    name: format!("feed {at}"),
                    ..FeedClientOptions::default()
                };
                let (mut client, mut hello) = (FeedClient::new(options), Vec::new());
                client.connected(MonoTime(0));
                client.transmit(MonoTime(0), 1 << 16, &mut hello).unwrap();
                let Ok((mut feed, answers)) = ingest.open(Grant::default(), ingest.buffer(), None).await
                else {
                    break;
                };
                feed.space()[..hello.len()].copy_from_slice(&hello);
                if feed.filled(hello.len()).await.is_err() {
                    break;
                }
                open.push((feed, answers));
            }
        });
        // With so many accepted one waits in ingest, which then takes no more: what else comes stays in its queue.
        let accepted = |stats: tidegate_live::IngestStats| stats.sources.len();
        while accepted(live.ingest().stats()) <= HELD {
            std::thread::yield_now();
        }
        let (told, ended) = flume::bounded::<Result<LiveReport, LiveError>>(1);
        std::thread::spawn(move || drop(told.send(live.finish())));
        let report = ended.recv_timeout(Duration::from_secs(300)).expect("it ends").unwrap();
        feeds.abort();
        let journal = report.ingest.stats.journal.unwrap();
        match stuck {
            Stuck::Full => assert_eq!(journal.health, Health::Full),
            Stuck::Away => assert!(matches!(journal.health, Health::Away(_)), "{:?}", journal.health),
        }
        assert_eq!((journal.positions.written, journal.positions.durable), (0, 0));
        assert_eq!(report.ingest.unwritten, journal.positions.taken);
        assert!(report.ingest.unwritten > HELD as u64, "{}", report.ingest.unwritten);
        network.shutdown(Duration::from_secs(1));
    }
}
