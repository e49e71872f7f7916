//! Appends to a topic.

use crate::KafkaError;
use crate::message;
use crate::reader::{Found, PARTITION, Reader};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};
use tidegate_journal::commit::{CommitOptions, SyncPolicy};
use tidegate_journal::format::{BatchInfo, Chain};
use tidegate_journal::{
    AppendError, Batch, BatchView, Extent, Lineage, LogStore, Point, Remote, RemoteError,
};

/// Bytes of messages kept until it is known that they are committed; with more, the next batch waits for those. The client has a copy of
/// each, so what waits for brokers takes twice this.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Where the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Brokers to ask first: `host:port,host:port`.
    pub brokers: String,
    /// The topic: one partition, this log's alone.
    pub topic: String,
    /// How long brokers may take to answer until the log counts as out of reach.
    pub patience: Duration,
    /// Further settings of the client as librdkafka names them, such as `security.protocol`. Those the log depends on cannot be set.
    pub client: BTreeMap<String, String>,
}

/// Settings that the promises rest on.
const OURS: [&str; 9] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "transactional.id",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "isolation.level",
    "group.id",
    "transaction.timeout.ms",
];

impl KafkaOptions {
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in self.client.iter().filter(|(key, _)| !OURS.contains(&key.as_str())) {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Who claims it shuts out who claimed it before.
    pub(crate) fn id(&self) -> String {
        format!("tidegate.{}", self.topic)
    }

    pub(crate) fn silent(&self, source: ClientError) -> KafkaError {
        let (brokers, seconds) = (self.brokers.clone(), self.patience.as_secs());
        KafkaError::Silent { brokers, seconds, source }
    }
}

impl Remote for KafkaOptions {
    fn name(&self) -> String {
        format!("topic {} of Kafka at {}", self.topic, self.brokers)
    }

    fn open(
        &self,
        lineage: Lineage,
        point: Option<Point>,
        visit: &mut dyn FnMut(BatchView<'_>),
    ) -> Result<Box<dyn LogStore>, RemoteError> {
        Ok(Box::new(KafkaLog::open(self.clone(), lineage, point, visit)?))
    }

    /// What waits in front of the log and in it is together no more than may wait in front of a disk.
    fn commit(&self, local: CommitOptions) -> CommitOptions {
        let sync = match local.sync {
            SyncPolicy::Never => SyncPolicy::Every(100_000_000),
            sync => sync,
        };
        let backlog_bytes = local.backlog_bytes.saturating_sub(2 * WAITING_BYTES_MAX).max(1);
        CommitOptions { sync, reserve_bytes: 0, backlog_bytes, ..local }
    }
}

/// A message on its way, and the offset behind its batch.
struct Waiting {
    message: Vec<u8>,
    end: u64,
}

enum Phase {
    /// No transaction.
    Between,
    /// One is open, with the first so many that wait.
    Open(usize),
    /// It was to be committed, and nobody said yet whether it is.
    Committing(usize),
    /// None of it will be there, and nobody confirmed that yet: all of it is sent again behind that.
    Aborting,
    /// Somebody else writes the log now, or what it holds is not known.
    Failed,
}

/// A log in a topic, open for writing.
pub struct KafkaLog {
    options: KafkaOptions,
    producer: BaseProducer,
    phase: Phase,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    pending_bytes: usize,
    lineage: Lineage,
    first: u64,
    next: u64,
    written: u64,
    synced: u64,
    chain: Chain,
    epoch: u32,
    bytes: u64,
}

impl KafkaLog {
    /// Shuts out whoever wrote it before, reads what is behind `point`, and goes on behind that; `lineage` is for an empty topic.
    /// Blocks, for as long as reading takes.
    ///
    /// # Errors
    /// [`KafkaError`]; nothing was changed, but writers before are shut out all the same.
    pub fn open(
        options: KafkaOptions,
        lineage: Lineage,
        point: Option<Point>,
        visit: &mut dyn FnMut(BatchView<'_>),
    ) -> Result<Self, KafkaError> {
        let mut config = options.client();
        config
            .set("transactional.id", options.id())
            // As long as brokers allow by default: one that they end while they are out of reach could not be gone on with. The next writer
            // ends it at once.
            .set("transaction.timeout.ms", "900000")
            .set("message.max.bytes", "1000000")
            .set("linger.ms", "0");
        let reader = Reader::of(&options)?;
        let producer: BaseProducer = config.create().map_err(KafkaError::Options)?;
        producer.init_transactions(options.patience).map_err(|source| options.silent(source))?;
        let Found { lineage: found, first, next, chain, epoch, bytes } = reader.read(point, visit)?;
        Ok(Self {
            producer,
            phase: Phase::Between,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pending_bytes: 0,
            lineage: found.or(point.map(|point| point.lineage)).unwrap_or(lineage),
            first,
            next,
            written: next,
            synced: next,
            chain,
            epoch,
            bytes,
            options,
        })
    }

    /// The transaction that was to be committed is, or is known not to be.
    fn commit(&mut self, count: usize) -> Result<(), AppendError> {
        match self.producer.commit_transaction(self.options.patience) {
            Ok(()) => {
                for Waiting { message, end } in self.waiting.drain(..count.min(self.waiting.len())) {
                    self.bytes += message.len() as u64;
                    self.waiting_bytes -= message.len();
                    self.synced = end;
                }
                self.phase = Phase::Between;
                Ok(())
            }
            Err(error) => Err(self.fault(error, Phase::Committing(count))),
        }
    }

    /// Takes back what is open. None of it is there then: all of it is sent again, in the same order. Brokers that do not answer are asked
    /// again before anything else, for a client that is taking back does nothing else.
    fn abort(&mut self) -> Result<(), AppendError> {
        self.phase = Phase::Aborting;
        match self.producer.abort_transaction(self.options.patience) {
            Ok(()) => {
                self.phase = Phase::Between;
                Ok(())
            }
            Err(ClientError::Transaction(why)) if !why.is_fatal() && why.is_retriable() => {
                // The client waits for what becomes of messages under way, which it hears of here alone.
                let _ = self.producer.flush(Duration::from_secs(1));
                Err(AppendError::Away(io::Error::new(io::ErrorKind::NotConnected, why.to_string())))
            }
            Err(why) => {
                self.phase = Phase::Failed;
                Err(AppendError::Failed(io::Error::other(why.to_string())))
            }
        }
    }

    /// A message was not taken. A transaction that has broken meanwhile takes none, and says so only where it is to be committed.
    fn refused(&mut self, error: ClientError, sent: usize) -> AppendError {
        let broken = matches!(error, ClientError::MessageProduction(RDKafkaErrorCode::State));
        if !broken || self.producer.client().fatal_error().is_some() {
            return self.fault(error, Phase::Open(sent));
        }
        match self.abort() {
            Ok(()) => AppendError::Away(io::Error::new(io::ErrorKind::NotConnected, error.to_string())),
            Err(failed) => failed,
        }
    }

    /// What an error of the client comes to: to be tried again as `phase`, from the start, or never.
    fn fault(&mut self, error: ClientError, phase: Phase) -> AppendError {
        let words = |error: &ClientError| io::Error::new(io::ErrorKind::NotConnected, error.to_string());
        let fatal = self.producer.client().fatal_error();
        if let Some((code, why)) = fatal {
            self.phase = Phase::Failed;
            return AppendError::Failed(io::Error::other(format!("{code}: {why}")));
        }
        match &error {
            ClientError::Transaction(why) if why.is_fatal() => {
                self.phase = Phase::Failed;
                AppendError::Failed(io::Error::other(error.to_string()))
            }
            ClientError::Transaction(why) if why.txn_requires_abort() => match self.abort() {
                Ok(()) => AppendError::Away(words(&error)),
                Err(AppendError::Away(_)) => AppendError::Away(words(&error)),
                Err(failed) => failed,
            },
            _ => {
                self.phase = phase;
                AppendError::Away(words(&error))
            }
        }
    }
}

impl LogStore for KafkaLog {
    fn append(&mut self, batch: &Batch, epoch: u32, ingest_ns: u64) -> Result<u64, AppendError> {
        if matches!(self.phase, Phase::Failed) {
            return Err(AppendError::FailedBefore);
        }
        if epoch < self.epoch {
            return Err(AppendError::Epoch { epoch, newest: self.epoch });
        }
        if batch.is_empty() {
            return Ok(self.next);
        }
        let body = batch.body();
        if self.waiting_bytes > 0 && self.waiting_bytes + body.len() > WAITING_BYTES_MAX {
            // Brokers that do not keep up, or are away: whoever appends waits with them, and keeps the batch if they stay away.
            self.sync()?;
        }
        let mut info = BatchInfo {
            first_offset: self.next,
            epoch,
            count: batch.count(),
            unsynced: u32::try_from(self.next - self.synced).unwrap_or(u32::MAX),
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body),
            ingest_ns,
            chain: Chain::default(),
            zero_sectors: 0,
        };
        info.chain = info.chained(&self.chain, body);
        for message in message::encode(self.lineage, &info, body) {
            self.pending_bytes += message.len();
            self.waiting_bytes += message.len();
            self.waiting.push_back(Waiting { message, end: info.end() });
        }
        (self.next, self.chain, self.epoch) = (info.end(), info.chain, epoch);
        Ok(info.first_offset)
    }

    fn write(&mut self) -> Result<(), AppendError> {
        match self.phase {
            Phase::Committing(count) => self.commit(count)?,
            Phase::Aborting => self.abort()?,
            Phase::Between | Phase::Open(_) | Phase::Failed => {}
        }
        let mut sent = match self.phase {
            Phase::Failed => return Err(AppendError::FailedBefore),
            Phase::Aborting => return Ok(()),
            Phase::Open(sent) | Phase::Committing(sent) => sent,
            Phase::Between if self.waiting.is_empty() => return Ok(()),
            Phase::Between => {
                self.producer.begin_transaction().map_err(|error| self.fault(error, Phase::Between))?;
                0
            }
        };
        let start = Instant::now();
        while let Some(Waiting { message, .. }) = self.waiting.get(sent) {
            let record =
                BaseRecord::<[u8], [u8]>::to(&self.options.topic).partition(PARTITION).payload(message);
            match self.producer.send(record) {
                Ok(()) => sent += 1,
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if start.elapsed() < self.options.patience =>
                {
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(self.refused(error, sent)),
            }
        }
        self.phase = Phase::Open(sent);
        (self.pending_bytes, self.written) = (0, self.next);
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        self.write()?;
        match self.phase {
            Phase::Open(count) | Phase::Committing(count) => self.commit(count),
            Phase::Between | Phase::Aborting => Ok(()),
            Phase::Failed => Err(AppendError::FailedBefore),
        }
    }

    /// What goes is up to the topic's own retention.
    fn retain(&mut self, _needed: u64, _wall_ns: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn point(&self) -> Point {
        Point { lineage: self.lineage, offset: self.next, epoch: self.epoch, chain: self.chain }
    }

    fn extent(&self) -> Extent {
        Extent {
            first: self.first,
            next: self.next,
            written: self.written,
            synced: self.synced,
            pending_bytes: self.pending_bytes,
            segments: 1,
            bytes: self.bytes,
        }
    }
}
