//! Topics of others: events come from one, results go into one.
//!
//! A topic is read in chunks. A chunk begins at an offset that the consumer group of the reader remembers, and is one run of a
//! feed: started again after a crash, the reader begins the same chunk again, and whoever takes its events tells which of them
//! it has. Once all of a chunk is taken its end is remembered in place of its beginning. So nothing is lost and nothing doubled,
//! whatever a message comes to, and no more than a chunk is read twice.

use crate::KafkaError;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a topic is: `kafka://HOST:PORT,HOST:PORT/TOPIC`, with `?partition=N` behind it for one partition of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicUrl {
    /// Brokers to ask first.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The partition, if one is named.
    pub partition: Option<i32>,
}

/// A text that names no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no topic of Kafka; the form is kafka://HOST:PORT[,HOST:PORT]/TOPIC[?partition=N]")]
pub struct TopicUrlError(String);

impl std::str::FromStr for TopicUrl {
    type Err = TopicUrlError;

    fn from_str(text: &str) -> Result<Self, TopicUrlError> {
        let parts = || {
            let (place, query) = match text.strip_prefix("kafka://")?.split_once('?') {
                Some((place, query)) => (place, Some(query)),
                None => (text.strip_prefix("kafka://")?, None),
            };
            let (brokers, topic) = place.split_once('/')?;
            let partition = match query {
                Some(query) => Some(query.strip_prefix("partition=")?.parse().ok().filter(|at| *at >= 0)?),
                None => None,
            };
            // The characters and the length that Kafka takes.
            let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            let good = !brokers.is_empty() && (1..=249).contains(&topic.len()) && topic.bytes().all(named);
            good.then(|| Self { brokers: brokers.to_owned(), topic: topic.to_owned(), partition })
        };
        parts().ok_or_else(|| TopicUrlError(text.to_owned()))
    }
}

impl std::fmt::Display for TopicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kafka://{}/{}", self.brokers, self.topic)?;
        self.partition.map_or(Ok(()), |partition| write!(f, "?partition={partition}"))
    }
}

/// How a topic is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    /// Where it is.
    pub url: TopicUrl,
    /// How long brokers may take to answer until they count as out of reach.
    pub patience: Duration,
    /// Further settings of the client as librdkafka names them; those that promises rest on cannot be set.
    pub client: BTreeMap<String, String>,
}

/// Settings that the promises rest on.
const OURS: [&str; 13] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "auto.offset.reset",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
];

impl TopicOptions {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in self.client.iter().filter(|(key, _)| !OURS.contains(&key.as_str())) {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.url.brokers);
        config
    }

    fn silent(&self, source: ClientError) -> KafkaError {
        let (brokers, seconds) = (self.url.brokers.clone(), self.patience.as_secs());
        KafkaError::Silent { brokers, seconds, source }
    }

    /// The number of its partitions.
    fn partitions(&self, client: &impl Fetch) -> Result<i32, KafkaError> {
        let topic = &self.url.topic;
        let metadata = client.metadata(topic, self.patience).map_err(|source| self.silent(source))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions =
            found.filter(|found| found.error().is_none()).map_or(0, |found| found.partitions().len());
        if partitions == 0 {
            return Err(KafkaError::Absent(topic.clone()));
        }
        Ok(i32::try_from(partitions).unwrap_or(i32::MAX))
    }
}

/// Either side asks in its own way.
trait Fetch {
    fn metadata(&self, topic: &str, patience: Duration) -> Result<rdkafka::metadata::Metadata, ClientError>;
}

impl Fetch for BaseConsumer {
    fn metadata(&self, topic: &str, patience: Duration) -> Result<rdkafka::metadata::Metadata, ClientError> {
        self.fetch_metadata(Some(topic), patience)
    }
}

impl Fetch for ThreadedProducer<Deliveries> {
    fn metadata(&self, topic: &str, patience: Duration) -> Result<rdkafka::metadata::Metadata, ClientError> {
        self.client().fetch_metadata(Some(topic), patience)
    }
}

/// Where a reader without a past begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the oldest message that is kept.
    Oldest,
    /// Behind the newest one.
    Newest,
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Messages.
    pub messages: u64,
    /// Age, once there is a message.
    pub age: Duration,
    /// How long at the end of the topic until that is the end of reading too.
    pub idle: Option<Duration>,
}

/// A partition of a topic, read on from where its consumer group stands.
pub struct TopicReader {
    options: TopicOptions,
    partition: i32,
    consumer: Arc<BaseConsumer>,
    /// Where the chunk begins.
    at: i64,
    /// What tells readings of one topic from those of another with its name: made once, and remembered with the place.
    run: String,
    /// Messages that were removed before they were read.
    removed: u64,
}

impl TopicReader {
    /// Reads on where `group` stands, or from `begin`, and remembers that.
    ///
    /// # Errors
    /// [`KafkaError`]: brokers that do not answer, no such topic or partition, a topic that was made anew.
    pub fn open(options: TopicOptions, group: &str, begin: Begin) -> Result<Self, KafkaError> {
        let mut config = options.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error");
        let consumer: BaseConsumer = config.create().map_err(KafkaError::Options)?;
        let partitions = options.partitions(&consumer)?;
        let topic = options.url.topic.clone();
        let partition = match options.url.partition {
            None if partitions == 1 => 0,
            Some(partition) if partition < partitions => partition,
            partition => return Err(KafkaError::Partition { topic, partition, partitions }),
        };
        let patience = options.patience;
        let (low, high) = consumer
            .fetch_watermarks(&topic, partition, patience)
            .map_err(|source| options.silent(source))?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, partition);
        let stands = consumer.committed_offsets(list, patience).map_err(|source| options.silent(source))?;
        let found = stands.find_partition(&topic, partition);
        found.as_ref().map_or(Ok(()), |of| of.error())?;
        let run = found.as_ref().map(|of| of.metadata().to_owned()).filter(|run| !run.is_empty());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let run = run.unwrap_or_else(|| format!("{:x}-{:x}", now(), std::process::id()));
        let stands = found.map(|of| of.offset());
        let (at, removed) = match stands {
            Some(Offset::Offset(at)) if at > high => {
                return Err(KafkaError::Shorter { topic, partition, at, high });
            }
            // What retention took before it was read is gone: said, and gone on behind it.
            Some(Offset::Offset(at)) => (at.max(low), u64::try_from(low - at).unwrap_or(0)),
            _ => match begin {
                Begin::Oldest => (low, 0),
                Begin::Newest => (high, 0),
            },
        };
        let mut reader = Self { options, partition, consumer: Arc::new(consumer), at, run, removed };
        // Remembered before anything of it is sent, so that the same chunk begins at the same message again.
        reader.remember(at)?;
        Ok(reader)
    }

    /// The offset its chunk begins at: with the topic and the partition, what a run of it is known by.
    #[must_use]
    pub fn at(&self) -> i64 {
        self.at
    }

    /// What tells readings of this topic from those of another with its name.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The partition it reads.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Messages that the topic's retention removed before they were read.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Reads the chunk, with `header` in front of it, as lines: a message that does not end with one gets an end of line.
    ///
    /// # Errors
    /// [`KafkaError`]: the client does not take the place.
    pub fn chunk(&self, header: Option<&str>, limits: ChunkLimits) -> Result<Chunk, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.options.url.topic, self.partition, Offset::Offset(self.at))?;
        self.consumer.assign(&list)?;
        let mut bytes = Vec::new();
        if let Some(header) = header {
            bytes.extend_from_slice(header.as_bytes());
            bytes.push(b'\n');
        }
        Ok(Chunk {
            consumer: Arc::clone(&self.consumer),
            topic: self.options.url.topic.clone(),
            begin: self.place(self.at)?,
            told: Instant::now(),
            patience: self.options.patience,
            limits,
            bytes,
            taken: 0,
            first: None,
            ended: None,
            away: None,
            over: false,
            read: Arc::new(Progress {
                next: AtomicI64::new(self.at),
                messages: AtomicU64::new(0),
                idle: AtomicBool::new(false),
            }),
        })
    }

    /// Everything in front of `next` is taken for good: the next chunk begins there.
    ///
    /// # Errors
    /// [`KafkaError`]: it could not be remembered, and the chunk would be read again.
    pub fn remember(&mut self, next: i64) -> Result<(), KafkaError> {
        let list = self.place(next)?;
        self.consumer.commit(&list, CommitMode::Sync).map_err(|source| self.options.silent(source))?;
        self.at = next;
        Ok(())
    }
}

impl TopicReader {
    fn place(&self, at: i64) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.options.url.topic, self.partition, Offset::Offset(at))?;
        if let Some(mut place) = list.find_partition(&self.options.url.topic, self.partition) {
            place.set_metadata(&self.run);
        }
        Ok(list)
    }
}

/// How far a chunk is read.
#[derive(Debug)]
pub struct Progress {
    next: AtomicI64,
    messages: AtomicU64,
    idle: AtomicBool,
}

impl Progress {
    /// Whether it ended because nothing more came.
    #[must_use]
    pub fn was_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// The offset behind the last message read.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next.load(Ordering::Acquire)
    }

    /// Messages read.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }
}

/// Part of a topic as bytes. It ends at its limits, and by nothing else: at the end of the topic it waits.
pub struct Chunk {
    consumer: Arc<BaseConsumer>,
    topic: String,
    /// Where it begins, for brokers that forget a place of which they hear nothing for a week, and when they were told.
    begin: TopicPartitionList,
    told: Instant,
    patience: Duration,
    limits: ChunkLimits,
    /// Of the message that is being read.
    bytes: Vec<u8>,
    taken: usize,
    first: Option<Instant>,
    /// Since when it is at the end of the topic: what only takes long is not idle.
    ended: Option<Instant>,
    /// Since when brokers are out of reach.
    away: Option<Instant>,
    over: bool,
    read: Arc<Progress>,
}

/// How long a poll waits until the limits of a chunk are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often brokers are told again where a chunk begins that has not ended.
const AGAIN: Duration = Duration::from_secs(3_600);

impl Chunk {
    /// How far it is read, for whoever waits for its end.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.read)
    }

    fn is_over(&self) -> bool {
        let read = self.read.messages();
        let aged = self.first.is_some_and(|first| first.elapsed() >= self.limits.age);
        let idle = self.limits.idle.zip(self.ended).is_some_and(|(idle, ended)| ended.elapsed() >= idle);
        self.read.idle.fetch_or(idle && !self.over, Ordering::Release);
        self.over || read >= self.limits.messages || (read > 0 && aged) || idle
    }

    fn take(bytes: &mut Vec<u8>, message: &BorrowedMessage<'_>) {
        bytes.extend_from_slice(message.payload().unwrap_or_default());
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
    }
}

impl Read for Chunk {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.taken < self.bytes.len() {
                let count = out.len().min(self.bytes.len() - self.taken);
                out[..count].copy_from_slice(&self.bytes[self.taken..self.taken + count]);
                self.taken += count;
                return Ok(count);
            }
            (self.bytes, self.taken) = (std::mem::take(&mut self.bytes), 0);
            self.bytes.clear();
            if self.is_over() {
                self.over = true;
                return Ok(0);
            }
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    Self::take(&mut self.bytes, &message);
                    self.first.get_or_insert_with(Instant::now);
                    (self.ended, self.away) = (None, None);
                    self.read.messages.fetch_add(1, Ordering::Relaxed);
                    self.read.next.store(message.offset() + 1, Ordering::Release);
                }
                None if self.told.elapsed() >= AGAIN => {
                    self.told = Instant::now();
                    // Tried again in an hour.
                    let _ = self.consumer.commit(&self.begin, CommitMode::Async);
                }
                None => {}
                Some(Err(ClientError::PartitionEOF(_))) => {
                    self.ended = Some(Instant::now());
                    self.away = None;
                }
                // Brokers come and go; a place that is not there does not come back.
                Some(Err(error)) => {
                    let gone = matches!(
                        error.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset)
                            | Some(
                                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic
                            )
                            | Some(RDKafkaErrorCode::TopicAuthorizationFailed)
                    );
                    let long = self.away.get_or_insert_with(Instant::now).elapsed() >= self.patience;
                    // At the end of a topic nothing says that they are back: they are asked.
                    let asked = || self.consumer.fetch_metadata(Some(&self.topic), self.patience);
                    if gone || (long && asked().is_err()) {
                        return Err(io::Error::other(error));
                    }
                    if long {
                        self.away = None;
                    }
                }
            }
        }
    }
}

/// What brokers said of the messages given to them.
#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    refused: OnceLock<ClientError>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Release);
            }
            Err((error, _)) => {
                // The first tells why.
                let _ = self.refused.set(error.clone());
            }
        }
    }
}

/// Writes records into a topic: those of one key into one partition, in order, each once as far as the connection goes.
pub struct TopicWriter {
    options: TopicOptions,
    producer: ThreadedProducer<Deliveries>,
    sent: u64,
}

impl TopicWriter {
    /// Opens it for writing.
    ///
    /// # Errors
    /// [`KafkaError`]: brokers that do not answer, no such topic or partition.
    pub fn open(options: TopicOptions) -> Result<Self, KafkaError> {
        let mut config = options.config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", options.patience.as_millis().clamp(1_000, 86_400_000).to_string());
        if !options.client.contains_key("linger.ms") {
            config.set("linger.ms", "5");
        }
        let producer: ThreadedProducer<Deliveries> =
            config.create_with_context(Deliveries::default()).map_err(KafkaError::Options)?;
        let partitions = options.partitions(&producer)?;
        if let Some(partition) = options.url.partition.filter(|partition| *partition >= partitions) {
            let (topic, partition) = (options.url.topic.clone(), Some(partition));
            return Err(KafkaError::Partition { topic, partition, partitions });
        }
        Ok(Self { options, producer, sent: 0 })
    }

    /// Gives it a record; waits while there is no room for one.
    ///
    /// # Errors
    /// [`KafkaError`]: one that was given before is refused, or none is taken in time. What comes behind it is not sent.
    pub fn send(&mut self, key: &str, value: &[u8]) -> Result<(), KafkaError> {
        self.refused()?;
        let start = Instant::now();
        let mut record = BaseRecord::to(&self.options.url.topic).key(key).payload(value);
        if let Some(partition) = self.options.url.partition {
            record = record.partition(partition);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if start.elapsed() < self.options.patience =>
                {
                    record = back;
                    // Its own thread makes room; waiting for some of it is enough.
                    let _ = self.producer.flush(Duration::from_millis(10));
                    self.refused()?;
                }
                Err((error, _)) => return Err(self.options.silent(error)),
            }
        }
    }

    /// Waits until all that was given is in the topic.
    ///
    /// # Errors
    /// [`KafkaError`]: some of it is not.
    pub fn settle(&self) -> Result<(), KafkaError> {
        let outcome = self.producer.flush(self.options.patience);
        self.refused()?;
        outcome.map_err(|source| self.options.silent(source))
    }

    /// Records that are in the topic.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.producer.context().delivered.load(Ordering::Acquire)
    }

    /// Records given to it.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn refused(&self) -> Result<(), KafkaError> {
        match self.producer.context().refused.get() {
            Some(source) => Err(KafkaError::Refused {
                topic: self.options.url.topic.clone(),
                delivered: self.delivered(),
                sent: self.sent,
                source: Box::new(source.clone()),
            }),
            None => Ok(()),
        }
    }
}
