//! Topics of Apache Kafka: events from one, results into one, and the input log in one.
//!
//! The log in a topic is the tier where no acknowledged byte depends on our own replication.
//! One topic with one partition is one log with one writer. Every batch of the journal is a message (or several, if it is large),
//! with the very header it has in a segment: checksum, offsets, and the hash of all in front of it. What is read back is therefore
//! what was written, or refused with its place.
//!
//! Each group commit is one Kafka transaction of the idempotent producer. Opening the log claims its transactional id, so a writer
//! that was thought dead can commit nothing any more; and readers see committed messages only, so what a crash left half-written
//! is as if it had never been.
#![forbid(unsafe_code)]

mod log;
mod message;
mod reader;
mod topic;

pub use log::{KafkaLog, KafkaOptions};
pub use message::MessageError;
pub use topic::{
    Begin, Chunk, ChunkLimits, Progress, TopicOptions, TopicReader, TopicUrl, TopicUrlError, TopicWriter,
};

/// Why a topic cannot be used as it was to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// An option of the client is not taken.
    #[error("the options for Kafka are not taken: {0}")]
    Options(#[source] rdkafka::error::KafkaError),
    /// Nobody answers in time.
    #[error("no answer from Kafka at {brokers} within {seconds} s")]
    Silent {
        /// Where it was asked.
        brokers: String,
        /// How long.
        seconds: u64,
        /// What the client says.
        source: rdkafka::error::KafkaError,
    },
    /// There is no such topic.
    #[error(
        "Kafka has no topic `{0}`; make it with one partition, three copies, min.insync.replicas=2 and a retention that keeps what \
         snapshots do not hold"
    )]
    NoTopic(String),
    /// A log has one order, so its topic has one partition.
    #[error("topic `{topic}` has {found} partitions; a log needs exactly 1")]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
    },
    /// A message is none of a log's, or not the one that belongs there. Nothing was changed.
    #[error("message {offset} of topic `{topic}` is not the log's: {what}")]
    Message {
        /// The topic.
        topic: String,
        /// Its offset in the topic.
        offset: i64,
        /// What is wrong with it.
        what: MessageError,
    },
    /// The topic does not go on from the state that was asked for.
    #[error("topic `{topic}` does not go on from the state it is to: {what}")]
    Point {
        /// The topic.
        topic: String,
        /// Why.
        what: tidegate_journal::PointError,
    },
    /// The topic had messages, and has none any more: to begin anew there would forget in silence what was in it.
    #[error(
        "partition {partition} of topic `{topic}` had messages in front of offset {low}, all of them are removed (it ends at {high}), and \
         {}. To begin anew, give it a new topic{}",
        match snapshot {
            None => "no snapshot holds what was in them: the log is lost".to_owned(),
            Some(records) => format!("nothing shows that the newest snapshot, of {records} records, holds all that was in them"),
        },
        if snapshot.is_some() { " and an empty data folder" } else { "" }
    )]
    Emptied {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where it begins.
        low: i64,
        /// Where it ends.
        high: i64,
        /// How many records the snapshot holds that it was to be gone on from, if there is one.
        snapshot: Option<u64>,
    },
    /// There is no such topic to read from or write into.
    #[error("Kafka has no topic `{0}`")]
    Absent(String),
    /// A partition has to be named, or there is none of that number.
    #[error(
        "topic `{topic}` has {partitions} partitions, {}; name one as ?partition=N, 0 to {}",
        partition.map_or("and none is named".to_owned(), |at| format!("and no {at}")),
        partitions - 1
    )]
    Partition {
        /// The topic.
        topic: String,
        /// The one that was named.
        partition: Option<i32>,
        /// How many there are.
        partitions: i32,
    },
    /// The topic ends in front of what was read of it.
    #[error(
        "partition {partition} of topic `{topic}` ends at {high}, and {at} messages of it were read before: it was made anew. Another \
         --name begins anew"
    )]
    Shorter {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where reading stands.
        at: i64,
        /// Where it ends.
        high: i64,
    },
    /// Brokers did not take a record.
    #[error("topic `{topic}` refused a record: {source}; {delivered} of {sent} are in it")]
    Refused {
        /// The topic.
        topic: String,
        /// Records known to be in it.
        delivered: u64,
        /// Records given to it.
        sent: u64,
        /// What the client says.
        source: Box<rdkafka::error::KafkaError>,
    },
    /// The client failed otherwise.
    #[error("Kafka: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
}
