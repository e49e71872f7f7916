//! Results into a topic of Kafka, and a topic as a feed, against librdkafka's own mock cluster in a process of its own.

use super::common::{Running, ends, fails, folder, json, write_trades};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Brokers with these topics, and where they are; nothing where they were not built.
fn broker(topics: &[&str]) -> Option<(Running, String)> {
    let test = std::env::current_exe().expect("our own path");
    let broker = test.ancestors().nth(2).expect("a target folder").join("examples/broker");
    if !broker.exists() {
        eprintln!("SKIPPED: {} is not built: `cargo build -p tidegate-kafka --examples`", broker.display());
        return None;
    }
    let mut command = Command::new(broker);
    command.args(topics);
    let mut broker = Running::of(command);
    let line = broker.line();
    let place = line.split(" at ").nth(1).expect("where it is").to_owned();
    Some((broker, place))
}

fn serve(folder: &Path, data: &str) -> (Running, String) {
    let line = format!("serve --json --listen 127.0.0.1:0 --http off --data {data} --bars 1s");
    let mut server = Running::start(folder, &line);
    let hello: Value = serde_json::from_str(&server.line()).expect("it says where it listens");
    (server, format!("--server {} --data {data}", hello["listening"].as_str().expect("an address")))
}

#[test]
fn what_one_server_computes_is_what_another_is_fed() {
    let Some((broker, brokers)) = broker(&["bars"]) else { return };
    let folder = folder();
    let path = folder.path();
    // Thirty seconds of three symbols, and a little more.
    write_trades(&path.join("all.csv"), 6_400);
    let (first, place) = serve(path, "one");
    ends(path, &format!("publish all.csv {place}"), 0);
    let topic = format!("kafka://{brokers}/bars");
    let (bars, _) =
        ends(path, &format!("subscribe bars.1s --from sequence:1 --count 90 --output jsonl {place}"), 0);
    let (nothing, notes) =
        ends(path, &format!("subscribe bars.1s --from sequence:1 --count 90 --to {topic} {place}"), 0);
    assert_eq!((nothing.as_str(), bars.lines().count()), ("", 90), "{notes}");
    first.summary();

    // The closing prices of the bars as trades. It is stopped in between, and goes on where the server stands.
    let (second, place) = serve(path, "two");
    let publish = |more: &str| {
        let map = "--map ts=T,symbol=k,price=c,size=v";
        json(path, &format!("publish {topic} {map} --json {more} {place}"), 0)
    };
    let counts = |account: &Value| {
        ["offered", "skipped", "published"].map(|count| account[count].as_u64().expect("a count"))
    };
    assert_eq!(counts(&publish("--count 40")), [40, 0, 40]);
    assert_eq!(counts(&publish("--idle-exit 0s")), [90, 40, 50]);
    // All of it is acknowledged and remembered as read: there is nothing to come again.
    assert_eq!(counts(&publish("--idle-exit 0s")), [0, 0, 0]);
    let summary = second.summary();
    let source = &summary["sources"][0];
    assert_eq!((&source["name"], &source["accepted"]), (&"kafka.bars.0".into(), &90.into()), "{summary}");
    assert_eq!((&source["duplicate"], &summary["imbalance"]), (&0.into(), &0.into()), "{summary}");

    for (line, code, words) in [
        (format!("publish {topic} all.csv"), 2, "stands alone"),
        (format!("publish {topic} --ack none"), 2, "--ack none"),
        (format!("publish {topic} --session 1"), 2, "--session"),
        ("publish kafka://nowhere".to_owned(), 2, "kafka://HOST:PORT"),
        (format!("publish {topic}?partition=1"), 2, "0 to 0"),
        (format!("subscribe bars.1s --to {topic} --output csv"), 2, "a line of jsonl"),
        ("publish all.csv --header a,b".to_owned(), 2, "for a topic of Kafka"),
    ] {
        fails(path, &format!("{line} --data two"), code, &[words]);
    }
    let (_, _, code) = broker.rest();
    assert_eq!(code, Some(0));
}
