//! Reads a topic: whole batches, each the one that follows.

use crate::KafkaError;
use crate::log::KafkaOptions;
use crate::message::{self, MessageError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::Instant;
use tidegate_journal::format::{BatchInfo, Chain};
use tidegate_journal::{BatchView, Lineage, Point, PointError};

/// The one partition.
pub(crate) const PARTITION: i32 = 0;

/// What a topic was found to hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Nothing in an empty topic.
    pub(crate) lineage: Option<Lineage>,
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) chain: Chain,
    pub(crate) epoch: u32,
    /// Bytes of messages read.
    pub(crate) bytes: u64,
}

pub(crate) struct Reader<'a> {
    options: &'a KafkaOptions,
    consumer: BaseConsumer,
    /// Parts of the batch that is being read.
    whole: Vec<u8>,
    expected: u16,
}

/// Whether a topic in which no batch was found begins behind some: of a new one the first message has offset 0.
fn is_emptied(low: i64, found: &Found) -> bool {
    low > 0 && found.lineage.is_none()
}

/// A batch and where it begins in the topic.
struct Read {
    at: i64,
    info: BatchInfo,
    lineage: Lineage,
    bytes: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn of(options: &'a KafkaOptions) -> Result<Self, KafkaError> {
        let mut config: ClientConfig = options.client();
        config
            .set("group.id", options.id())
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true");
        let consumer = config.create().map_err(KafkaError::Options)?;
        Ok(Self { options, consumer, whole: Vec::new(), expected: 0 })
    }

    /// The topic is there, with one partition; where its messages begin and end.
    fn bounds(&self) -> Result<(i64, i64), KafkaError> {
        let (topic, patience) = (&self.options.topic, self.options.patience);
        let silent = |source| self.options.silent(source);
        let metadata = self.consumer.fetch_metadata(Some(topic), patience).map_err(silent)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions =
            found.filter(|found| found.error().is_none()).map_or(0, |found| found.partitions().len());
        match partitions {
            0 => Err(KafkaError::NoTopic(topic.clone())),
            1 => self.consumer.fetch_watermarks(topic, PARTITION, patience).map_err(silent),
            found => Err(KafkaError::Partitions { topic: topic.clone(), found }),
        }
    }

    fn seek(&mut self, at: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.options.topic, PARTITION, Offset::Offset(at))?;
        self.consumer.assign(&list)?;
        (self.whole, self.expected) = (Vec::new(), 0);
        Ok(())
    }

    /// The next whole batch, in `self.whole`; nothing at the end of the topic. With `lenient`, parts without a begin are passed over.
    fn next(&mut self, lenient: bool) -> Result<Option<Read>, KafkaError> {
        let start = Instant::now();
        let (mut at, mut bytes) = (0, 0);
        loop {
            let left = self.options.patience.saturating_sub(start.elapsed());
            let message = match self.consumer.poll(left) {
                Some(Ok(message)) => message,
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return Ok(None),
                // Brokers come and go; what matters is whether one answers in time.
                Some(Err(source)) if left.is_zero() => return Err(self.options.silent(source)),
                Some(Err(_)) => continue,
                None => return Err(self.options.silent(rdkafka::error::KafkaError::NoMessageReceived)),
            };
            let offset = message.offset();
            let refuse = |what| KafkaError::Message { topic: self.options.topic.clone(), offset, what };
            let payload = message.payload().unwrap_or_default();
            let part = message::decode(payload).map_err(refuse)?;
            if part.part != self.expected {
                if lenient && self.whole.is_empty() {
                    continue;
                }
                let (found, expected) = (part.part, self.expected);
                return Err(refuse(MessageError::Order { found, expected }));
            }
            if part.part == 0 {
                (at, bytes) = (offset, 0);
                self.whole.clear();
            }
            bytes += payload.len() as u64;
            self.whole.extend_from_slice(part.bytes);
            self.expected = part.part + 1;
            if self.expected == part.parts {
                self.expected = 0;
                let (info, _) = message::batch(&self.whole).map_err(refuse)?;
                return Ok(Some(Read { at, info, lineage: part.lineage, bytes }));
            }
        }
    }

    /// Where in the topic the batch begins that holds offset `wanted`, or the last one in front of it.
    fn locate(&mut self, wanted: u64, (mut low, mut high): (i64, i64)) -> Result<i64, KafkaError> {
        while high - low > 16 {
            let middle = low + (high - low) / 2;
            self.seek(middle)?;
            match self.next(true)? {
                Some(read) if read.info.first_offset <= wanted => low = read.at.max(middle),
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Hands on all batches behind `point`, checked.
    pub(crate) fn read(
        mut self,
        point: Option<Point>,
        visit: &mut dyn FnMut(BatchView<'_>),
    ) -> Result<Found, KafkaError> {
        let topic = self.options.topic.clone();
        let refuse = |what| KafkaError::Point { topic: topic.clone(), what };
        let (low, high) = self.bounds()?;
        let mut found = Found::default();
        let mut begun = false;
        let mut behind = point.map(|point| (point.offset, point.chain));
        if low < high {
            self.seek(low)?;
            // Retention removes whole segments, whose border may lie within a batch of several messages.
            if let Some(first) = self.next(point.is_some())? {
                found.first = first.info.first_offset;
                if point.is_none() && found.first > 0 {
                    return Err(refuse(PointError::Before { offset: 0, first: found.first }));
                }
                if let Some(point) = point {
                    if first.lineage != point.lineage {
                        return Err(refuse(PointError::Lineage { point: point.lineage, log: first.lineage }));
                    }
                    if found.first > point.offset {
                        return Err(refuse(PointError::Before { offset: point.offset, first: found.first }));
                    }
                }
            }
            let from = match point {
                Some(point) => self.locate(point.offset, (low, high))?,
                None => low,
            };
            self.seek(from)?;
            while let Some(read) = self.next(point.is_some() && !begun)? {
                let Read { at, info, lineage, bytes } = read;
                let damaged = |what| KafkaError::Message { topic: topic.clone(), offset: at, what };
                let expected = *found.lineage.get_or_insert(lineage);
                if lineage != expected {
                    return Err(damaged(MessageError::Lineage { found: lineage, expected }));
                }
                let body = &self.whole[tidegate_journal::format::BATCH_HEADER_BYTES..];
                if begun {
                    if info.first_offset != found.next {
                        return Err(damaged(MessageError::Offset {
                            found: info.first_offset,
                            expected: found.next,
                        }));
                    }
                    if info.chained(&found.chain, body) != info.chain {
                        return Err(damaged(MessageError::Chain));
                    }
                }
                let wanted = match behind {
                    Some((offset, _)) if info.end() <= offset => false,
                    Some((offset, chain)) => {
                        // The first one behind the point: it must have been written behind what the point is of.
                        if info.first_offset != offset || info.chained(&chain, body) != info.chain {
                            return Err(refuse(PointError::Chain { offset }));
                        }
                        behind = None;
                        true
                    }
                    None => true,
                };
                if let (false, Some((offset, chain))) = (wanted, behind)
                    && info.end() == offset
                {
                    if info.chain != chain {
                        return Err(refuse(PointError::Chain { offset }));
                    }
                    behind = None;
                }
                begun = true;
                (found.next, found.chain, found.epoch) = (info.end(), info.chain, info.epoch);
                found.bytes += bytes;
                if wanted {
                    visit(BatchView { segment: 0, at: u64::try_from(at).unwrap_or(0), info, body });
                }
            }
        }
        if is_emptied(low, &found) {
            let snapshot = point.map(|point| point.offset);
            return Err(KafkaError::Emptied { topic, partition: PARTITION, low, high, snapshot });
        }
        if let Some(point) = point
            && found.next < point.offset
        {
            return Err(refuse(PointError::Beyond { offset: point.offset, end: found.next }));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mock cluster keeps the last message whatever comes, so the whole of it is not to be seen there.
    #[test]
    fn a_topic_that_was_emptied_is_told_from_one_that_is_new() {
        let nothing = Found::default();
        let some = Found { lineage: Some(7), next: 9, ..Found::default() };
        assert!(!is_emptied(0, &nothing), "nothing was ever written");
        assert!(!is_emptied(0, &some));
        assert!(!is_emptied(5, &some), "what is left says itself that its front is gone");
        assert!(is_emptied(9, &nothing));
        let (topic, partition) = ("log".to_owned(), PARTITION);
        let of = |snapshot| {
            KafkaError::Emptied { topic: topic.clone(), partition, low: 9, high: 11, snapshot }.to_string()
        };
        let error = of(None);
        assert!(
            error.contains("partition 0 of topic `log`")
                && error.contains("offset 9")
                && error.contains("at 11"),
            "{error}"
        );
        let error = of(Some(40));
        assert!(
            error.contains("the newest snapshot, of 40 records") && error.contains("an empty data folder")
        );
    }
}
