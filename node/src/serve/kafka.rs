//! The log in a topic of Apache Kafka, where the program was built for it.

use crate::exit::Failure;
use std::sync::Arc;
use tidegate_config::sections::Journal;
use tidegate_journal::Remote;

/// What the configuration says of a log elsewhere.
#[cfg(feature = "kafka")]
pub(super) fn remote(journal: &Journal) -> Result<Option<Arc<dyn Remote>>, Failure> {
    let (Some(brokers), Some(topic)) = (&journal.kafka, &journal.kafka_topic) else { return Ok(None) };
    let pair =
        |setting: &String| setting.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Some(Arc::new(tidegate_kafka::KafkaOptions {
        brokers: brokers.clone(),
        topic: topic.clone(),
        patience: std::time::Duration::from_nanos(journal.kafka_patience.0),
        client: journal.kafka_client.iter().filter_map(pair).collect(),
    })))
}

/// What the configuration says of a log elsewhere.
#[cfg(not(feature = "kafka"))]
pub(super) fn remote(journal: &Journal) -> Result<Option<Arc<dyn Remote>>, Failure> {
    match &journal.kafka {
        Some(_) => Err(Failure::usage(
            "journal.kafka: this program was built without Kafka; build it with `cargo build --release --features kafka`",
        )),
        None => Ok(None),
    }
}
