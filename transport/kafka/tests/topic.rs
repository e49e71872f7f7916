//! Topics as an input and an output, against librdkafka's own mock cluster.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;
use tidegate_kafka::{Begin, ChunkLimits, KafkaError, TopicOptions, TopicReader, TopicUrl, TopicWriter};

const TOPIC: &str = "trades";
/// Long enough never to matter.
const LONG: Duration = Duration::from_secs(3_600);

fn cluster(partitions: i32) -> (MockCluster<'static, DefaultProducerContext>, TopicOptions) {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic(TOPIC, partitions, 3).unwrap();
    let url = format!("kafka://{}/{TOPIC}", cluster.bootstrap_servers()).parse().unwrap();
    (cluster, TopicOptions { url, patience: Duration::from_secs(30), client: BTreeMap::new() })
}

fn write(options: &TopicOptions, lines: std::ops::Range<u32>) {
    let mut writer = TopicWriter::open(options.clone()).unwrap();
    for line in lines.clone() {
        writer.send(&format!("key {}", line % 3), format!("line {line}").as_bytes()).unwrap();
    }
    writer.settle().unwrap();
    assert_eq!((writer.delivered(), writer.sent()), (u64::from(lines.end - lines.start), writer.delivered()));
}

fn lines(lines: std::ops::Range<u32>) -> String {
    lines.map(|line| format!("line {line}\n")).collect()
}

/// What a chunk of at most so many messages holds, and where it ends.
fn read(reader: &TopicReader, messages: u64) -> (String, i64, bool) {
    let idle = Some(Duration::ZERO);
    let mut chunk = reader.chunk(None, ChunkLimits { messages, age: LONG, idle }).unwrap();
    let progress = chunk.progress();
    let mut text = String::new();
    chunk.read_to_string(&mut text).unwrap();
    (text, progress.next(), progress.was_idle())
}

#[test]
fn a_topic_is_named_or_refused() {
    let url: TopicUrl = "kafka://a:9092,b:9092/trades.eu?partition=3".parse().unwrap();
    assert_eq!(
        (url.brokers.as_str(), url.topic.as_str(), url.partition),
        ("a:9092,b:9092", "trades.eu", Some(3))
    );
    assert_eq!(url.to_string().parse::<TopicUrl>().unwrap(), url);
    assert_eq!("kafka://a/t".parse::<TopicUrl>().unwrap().partition, None);
    for wrong in [
        "",
        "kafka://",
        "kafka://a",
        "kafka://a/",
        "kafka:///t",
        "http://a/t",
        "kafka://a/t u",
        "kafka://a/t/u",
        "kafka://a/t?partition=",
        "kafka://a/t?partition=-1",
        "kafka://a/t?part=1",
    ] {
        let error = wrong.parse::<TopicUrl>().unwrap_err().to_string();
        assert!(error.contains("kafka://HOST:PORT"), "{error}");
    }
}

#[test]
fn chunks_follow_one_another_and_begin_again_where_they_were_not_taken() {
    let (_cluster, options) = cluster(1);
    write(&options, 0..10);
    let open = || TopicReader::open(options.clone(), "tidegate.test", Begin::Oldest).unwrap();
    let mut reader = open();
    assert_eq!((reader.at(), reader.removed()), (0, 0));
    assert_eq!(read(&reader, 4), (lines(0..4), 4, false));
    // Not taken: it is read again, by this one and by the next one.
    assert_eq!(read(&reader, 4), (lines(0..4), 4, false));
    drop(reader);
    reader = open();
    assert_eq!(read(&reader, 4), (lines(0..4), 4, false));
    reader.remember(4).unwrap();
    assert_eq!(read(&reader, 4), (lines(4..8), 8, false));
    drop(reader);
    reader = open();
    assert_eq!(reader.at(), 4);
    assert_eq!(read(&reader, 100), (lines(4..10), 10, true));
    reader.remember(10).unwrap();
    // Another reader has a place of its own, and one that is told to begins behind everything.
    let newest = TopicReader::open(options.clone(), "tidegate.other", Begin::Newest).unwrap();
    assert_eq!(newest.at(), 10);
    write(&options, 10..12);
    assert_eq!(read(&newest, 2).0, lines(10..12));
    let again = TopicReader::open(options.clone(), "tidegate.other", Begin::Oldest).unwrap();
    assert_eq!(again.at(), 10, "what it was told at first holds");
    let limits = ChunkLimits { messages: 1, age: LONG, idle: None };
    let mut chunk = again.chunk(Some("a,b"), limits).unwrap();
    let mut text = String::new();
    chunk.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a,b\nline 10\n");
}

#[test]
fn records_of_a_key_keep_their_order_in_one_partition() {
    let (_cluster, options) = cluster(4);
    write(&options, 0..60);
    let mut all = Vec::new();
    for partition in 0..4 {
        let mut options = options.clone();
        options.url.partition = Some(partition);
        let reader = TopicReader::open(options, "tidegate.keys", Begin::Oldest).unwrap();
        let (text, ..) = read(&reader, 60);
        let numbers: Vec<u32> = text.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        all.extend(numbers);
    }
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_is_told_with_what_can() {
    let (_cluster, options) = cluster(4);
    let reader = |options: &TopicOptions| {
        TopicReader::open(options.clone(), "tidegate.test", Begin::Oldest).err().expect("an error")
    };
    let error = reader(&options);
    assert!(matches!(&error, KafkaError::Partition { partition: None, partitions: 4, .. }), "{error}");
    assert!(error.to_string().contains("name one as ?partition=N, 0 to 3"), "{error}");
    let mut other = options.clone();
    other.url.partition = Some(4);
    let error = reader(&other).to_string();
    assert!(error.contains("no 4"), "{error}");
    assert!(matches!(TopicWriter::open(other).err(), Some(KafkaError::Partition { partition: Some(4), .. })));
    let mut nobody = options;
    nobody.url.brokers = "127.0.0.1:1".to_owned();
    nobody.patience = Duration::from_millis(300);
    assert!(matches!(reader(&nobody), KafkaError::Silent { .. }));
    nobody.client.insert("no.such.option".to_owned(), "1".to_owned());
    assert!(matches!(TopicWriter::open(nobody).err(), Some(KafkaError::Options(_))));
}

#[test]
fn a_record_that_brokers_refuse_is_told_and_nothing_goes_behind_it() {
    let (cluster, options) = cluster(1);
    let mut writer = TopicWriter::open(options.clone()).unwrap();
    writer.send("a", b"one").unwrap();
    writer.settle().unwrap();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
    writer.send("a", b"two").unwrap();
    let error = writer.settle().unwrap_err();
    assert!(matches!(&error, KafkaError::Refused { delivered: 1, sent: 2, .. }), "{error}");
    assert!(matches!(writer.send("a", b"three"), Err(KafkaError::Refused { .. })));
    let reader = TopicReader::open(options, "tidegate.test", Begin::Oldest).unwrap();
    assert_eq!(read(&reader, 100).0, "one\n");
}
