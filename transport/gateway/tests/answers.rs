//! REST, WebSocket, events and Arrow say the same as the hub, and as each other.

mod common;

use arrow::array::{Array, Decimal128Array, UInt64Array};
use arrow::ipc::reader::StreamReader;
use common::{World, request, unchunk};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_engine::{Output, Price};
use tidegate_gateway::GatewayOptions;
use tidegate_proto::hub::HubOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const EVENTS: usize = 60_000;

/// What the hub holds of a key, oldest first.
async fn held(world: &World, stream: u16, key: &str, count: usize) -> Vec<Output> {
    let key = key.to_owned();
    world.live.hub().ask(move |hub, _| hub.lookback(stream, &key, count).copied().collect()).await.unwrap()
}

fn is_bar(record: &Value, output: &Output) {
    let bar = output.bar();
    let text = |value: &dyn std::fmt::Display| Value::from(value.to_string());
    assert_eq!(record["seq"], output.sequence);
    assert_eq!(record["slot"], output.slot);
    assert_eq!(record["ts"], text(&output.ts));
    assert_eq!(record["ts_open"], text(&bar.ts_open));
    assert_eq!(record["open"], text(&Price(bar.open)));
    assert_eq!(record["high"], text(&Price(bar.high)));
    assert_eq!(record["low"], text(&Price(bar.low)));
    assert_eq!(record["close"], text(&Price(bar.close)));
    assert_eq!(record["volume"], text(&bar.volume()));
    assert_eq!(record["buy_volume"], text(&bar.buy_volume()));
    assert_eq!(record["vwap"], bar.vwap().map_or(Value::Null, |vwap| text(&vwap)));
    assert_eq!(record["trades"], bar.trades);
    assert_eq!(record["rev"], bar.revision);
    assert_eq!(record["closed"], true);
    let time: jiff::Timestamp = record["time"].as_str().unwrap().parse().unwrap();
    assert_eq!(time.as_nanosecond(), i128::from(output.ts));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_says_what_the_hub_says() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(EVENTS).await;

    let streams = world.json("/v1/streams").await;
    let names: Vec<&str> =
        streams["streams"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bars.1s", "ind.1s", "bars.1m", "ind.1m"]);
    assert_eq!(
        streams["streams"][0],
        json!({"name": "bars.1s", "kind": "bars", "columns": [], "width_ns": "1000000000"})
    );
    assert_eq!(streams["streams"][3]["columns"], json!(["sma_5", "rsi_14"]));

    // Keys, all at once and page by page.
    let all = world.json("/v1/keys?limit=1000").await;
    assert_eq!((all["total"].as_u64(), &all["next"]), (Some(40), &Value::Null));
    let name = |key: &Value| key["name"].as_str().unwrap().to_owned();
    let all: Vec<String> = all["keys"].as_array().unwrap().iter().map(name).collect();
    assert!(all.is_sorted() && all.len() == 40);
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.json(&format!("/v1/keys?limit=7{after}")).await;
        paged.extend(page["keys"].as_array().unwrap().iter().map(name));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged, all);
    let found = world.json("/v1/keys?search=aqa").await;
    let found: Vec<String> = found["keys"].as_array().unwrap().iter().map(name).collect();
    let want: Vec<String> = all.iter().filter(|name| name.contains("AQA")).cloned().collect();
    assert!(found == want && !found.is_empty());

    // Those of a stream: the same as those it has a latest record of, in pages too.
    let latest = world.json("/v1/latest?stream=bars.1m&limit=1000").await;
    let of_minutes: Vec<String> = latest["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["key"].as_str().unwrap().to_owned())
        .collect();
    assert!(!of_minutes.is_empty());
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.json(&format!("/v1/keys?stream=bars.1m&limit=7{after}")).await;
        let keys = page["keys"].as_array().unwrap();
        assert_eq!(page["total"], of_minutes.len());
        paged.extend(keys.iter().map(name));
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(keys.len(), 7);
        after = format!("&after={next}");
    }
    assert_eq!(paged, of_minutes);
    let begins = world.json("/v1/keys?stream=bars.1m&prefix=AQ&limit=1000").await;
    let begins: Vec<String> = begins["keys"].as_array().unwrap().iter().map(name).collect();
    let want: Vec<String> = of_minutes.iter().filter(|name| name.starts_with("AQ")).cloned().collect();
    assert!(begins == want && !begins.is_empty());

    // Bars of every key are the hub's, and the last of them is the latest.
    let mut newest = BTreeMap::new();
    for key in &all {
        let bars = world.json(&format!("/v1/bars?stream=bars.1s&key={key}&limit=50")).await;
        let records = bars["records"].as_array().unwrap();
        let outputs = held(&world, 0, key, 50).await;
        assert_eq!(records.len(), outputs.len());
        std::iter::zip(records, &outputs).for_each(|(record, output)| is_bar(record, output));
        if let Some(last) = records.last() {
            let latest = world.json(&format!("/v1/latest?stream=bars.1s&key={key}")).await;
            assert_eq!((&latest["record"], &latest["key"]), (last, &Value::from(key.as_str())));
            newest.insert(key.clone(), last.clone());
        }
    }
    assert!(newest.len() > 30, "the market is busy enough for this test to mean something");
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = world.json(&format!("/v1/latest?stream=bars.1s&limit=9{after}")).await;
        pages.extend(page["records"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, newest.into_values().collect::<Vec<_>>());

    // Values by column, null where not defined.
    let rows = world.get(&format!("/v1/bars?stream=ind.1s&key={}", all[0])).await;
    let outputs = held(&world, 1, &all[0], 500).await;
    // As text: what a parser makes of the last digit is its own affair.
    let found: Vec<&str> =
        rows.text().split("\"values\":").skip(1).filter_map(|row| row.split('}').next()).collect();
    assert!(found.len() == outputs.len() && !found.is_empty());
    for (row, output) in std::iter::zip(found, &outputs) {
        let text = |value: f64| if value.is_finite() { value.to_string() } else { "null".to_owned() };
        let want: Vec<String> = output.values().map(text).collect();
        assert_eq!(row, format!("{{\"sma_5\":{},\"rsi_14\":{}", want[0], want[1]));
    }
    let (report, live) = world.finish().await;
    assert_eq!((report.abandoned, report.refused, live.imbalance()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrow_holds_the_same_numbers() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(EVENTS).await;
    let key = "AQAA";
    let answer = world.get(&format!("/v1/arrow?stream=bars.1s&key={key}&limit=40")).await;
    assert_eq!(answer.header("content-type"), Some("application/vnd.apache.arrow.stream"));
    let reader = StreamReader::try_new(&answer.body[..], None).unwrap();
    assert_eq!(reader.schema().metadata()["key"], key);
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let outputs = held(&world, 0, key, 40).await;
    assert_eq!((batches.len(), batches[0].num_rows()), (1, outputs.len()));
    let column = |name: &str| batches[0].column_by_name(name).unwrap().clone();
    let decimals = |name: &str| column(name).as_any().downcast_ref::<Decimal128Array>().unwrap().clone();
    let trades = column("trades");
    let trades = trades.as_any().downcast_ref::<UInt64Array>().unwrap();
    for (row, output) in outputs.iter().enumerate() {
        let bar = output.bar();
        assert_eq!(decimals("close").value(row), i128::from(bar.close));
        assert_eq!(decimals("notional").value(row), bar.notional().0);
        assert_eq!(
            decimals("vwap").value_as_string(row).trim_end_matches('0').trim_end_matches('.'),
            bar.vwap().unwrap().to_string()
        );
        assert_eq!(trades.value(row), bar.trades);
    }
    let values = world.get(&format!("/v1/arrow?stream=ind.1s&key={key}")).await;
    let rows: usize =
        StreamReader::try_new(&values.body[..], None).unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, held(&world, 1, key, 10_000).await.len());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_gets_every_record_once() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(20_000).await;
    let mut client = world.websocket().await;
    let mut partial = world.websocket().await;
    let answer = client.ask(r#"{"op":"subscribe","id":5,"streams":["bars.1s"],"from":"snapshot"}"#).await;
    assert_eq!((&answer["op"], &answer["id"]), (&json!("subscribed"), &json!(5)));
    assert!(answer["lag"].as_u64().unwrap() > 0);
    // What was before: the newest of each key, as the pages of REST have them.
    let (past, _) = client.records(5, |_, others| others.iter().any(|one| one["op"] == "live")).await;
    let page = world.json("/v1/latest?stream=bars.1s&limit=1000").await;
    let sorted = |mut records: Vec<Value>| {
        records.sort_by_key(|record| (record["slot"].as_u64(), record["seq"].as_u64()));
        records
    };
    assert_eq!(sorted(past), sorted(page["records"].as_array().unwrap().clone()));
    partial.ask(r#"{"op":"subscribe","id":1,"streams":["bars.1s","ind.1m"],"keys":["AQ*","BRAA"]}"#).await;

    let before = world.published(0).await;
    world.feed(40_000).await;
    let count = world.published(0).await - before;
    assert!(count > 1_000);
    let (records, others) = client.records(5, |records, _| records.len() as u64 >= count).await;
    assert_eq!((records.len() as u64, others.len()), (count, 0));
    // Numbers of each slot run without gap, and the last revision of each window is what REST shows.
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let mut by_key: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for record in &records {
        let (slot, sequence) = (record["slot"].as_u64().unwrap(), record["seq"].as_u64().unwrap());
        let expected = next.entry(slot).or_insert(sequence);
        assert_eq!(*expected, sequence, "{record}");
        *expected += 1;
        let windows = by_key.entry(record["key"].as_str().unwrap().to_owned()).or_default();
        windows.insert(record["ts"].as_str().unwrap().to_owned(), record.clone());
    }
    for (key, windows) in &by_key {
        let bars = world.json(&format!("/v1/bars?stream=bars.1s&key={key}&limit=5")).await;
        for bar in bars["records"].as_array().unwrap() {
            assert_eq!(windows.get(bar["ts"].as_str().unwrap()), Some(bar));
        }
    }
    // The other reader gets its keys of both streams and no others.
    let wanted = |key: &str| key.starts_with("AQ") || key == "BRAA";
    let want = records.iter().filter(|record| wanted(record["key"].as_str().unwrap())).count();
    let of_bars = |records: &[Value]| records.iter().filter(|record| record["stream"] == "bars.1s").count();
    let (part, _) = partial.records(1, |records, _| of_bars(records) >= want).await;
    assert_eq!(of_bars(&part), want);
    assert!(part.iter().all(|record| wanted(record["key"].as_str().unwrap())));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_many_subscriptions() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(5_000).await;
    let mut client = world.websocket().await;
    assert_eq!(client.ask(r#"{"op":"ping","id":9}"#).await, json!({"op": "pong", "id": 9}));
    for id in 0..10 {
        let answer = client
            .ask(&format!(r#"{{"op":"subscribe","id":{id},"streams":["bars.1m"],"conflate":"latest"}}"#))
            .await;
        let mut message = answer;
        while message["op"] == "live" {
            message = client.next().await;
        }
        assert_eq!((&message["op"], &message["id"]), (&json!("subscribed"), &json!(id)));
    }
    client.send(r#"{"op":"unsubscribe","id":3}"#).await;
    client.send(r#"{"op":"status","every_ms":100}"#).await;
    let mut seen = Vec::new();
    loop {
        let message = client.next().await;
        match message["op"].as_str().unwrap() {
            "live" => {}
            "unsubscribed" => seen.push("unsubscribed"),
            "status" => {
                let status = &message["status"];
                let mine = status["subscribers"].as_array().unwrap();
                // Leaving is said to the hub, which hears it a moment later.
                if mine.len() != 9 {
                    continue;
                }
                assert!(mine.iter().all(|one| one["kind"] == "ws" && one["policy"] == "drop_oldest"));
                assert_eq!(status["subscribers_total"], 9);
                assert_eq!(status["keys"], 40);
                assert_eq!(status["shards"][0]["phase"], "running");
                break;
            }
            op => panic!("{op}"),
        }
    }
    assert_eq!(seen, ["unsubscribed"]);
    assert_eq!(world.json("/v1/health").await["status"], "ok");
    assert_eq!(world.json("/v1/ready").await["status"], "ready");
    let status = world.json("/v1/status").await;
    assert_eq!(status["stages"].as_array().unwrap().len(), 4);
    let metrics = world.get("/metrics").await;
    let text = metrics.text();
    for line in [
        "tidegate_keys 40",
        "tidegate_gateway_websockets 1",
        "tidegate_subscribers 9",
        "tidegate_build_info{version=",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for line in text.lines() {
        assert!(!line.contains("AQAA"), "no key in a label: {line}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_comes_back_where_it_was() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(20_000).await;
    let mut client = world.websocket().await;
    let mut whole = world.websocket().await;
    whole.ask(r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"from":{"sequence":1}}"#).await;
    let first = world.published(0).await;
    let answer = client.ask(r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"from":{"sequence":1}}"#).await;
    let incarnation = answer["incarnation"].as_str().unwrap().to_owned();
    let (mut records, _) = client.records(1, |records, _| records.len() as u64 >= first).await;
    drop(client);

    world.feed(20_000).await;
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for record in &records {
        let (slot, sequence) = (record["slot"].as_u64().unwrap(), record["seq"].as_u64().unwrap());
        last.entry(slot).and_modify(|last| *last = sequence.max(*last)).or_insert(sequence);
    }
    let slots: serde_json::Map<String, Value> =
        last.iter().map(|(slot, last)| (slot.to_string(), Value::from(last + 1))).collect();
    let from = json!({"sequence": 1, "slots": {"bars.1s": slots}, "incarnation": incarnation});
    let mut client = world.websocket().await;
    let ask = json!({"op": "subscribe", "id": 2, "streams": ["bars.1s"], "from": from}).to_string();
    assert_eq!(client.ask(&ask).await["op"], "subscribed");
    let all = world.published(0).await;
    let enough =
        |more: &[Value], others: &[Value]| (records.len() + more.len()) as u64 >= all && !others.is_empty();
    let (more, others) = client.records(2, enough).await;
    assert_eq!((others.len(), &others[0]["op"]), (1, &json!("live")));
    assert!(!more.is_empty());
    records.extend(more);
    let (want, _) = whole.records(1, |records, _| records.len() as u64 >= all).await;
    assert_eq!(records, want, "two parts and the whole are the same, in the same order");

    let other = json!({"sequence": 1, "incarnation": "7"});
    let ask = json!({"op": "subscribe", "id": 3, "streams": ["bars.1s"], "from": other}).to_string();
    let refused = client.ask(&ask).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("other_incarnation"), &json!(3)));
    assert_eq!(refused["allowed"], json!([incarnation]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_no_longer_kept_are_an_error_or_a_loss() {
    let hub = HubOptions { ring_records: 64, ..HubOptions::default() };
    let mut world = World::with(GatewayOptions::default(), hub).await;
    world.feed(20_000).await;
    let published = world.published(0).await;
    let mut client = world.websocket().await;
    let ask = |id, cut: &str| {
        format!(
            r#"{{"op":"subscribe","id":{id},"streams":["bars.1s"],"from":{{"sequence":1{cut}}},"past_lag":"conflate"}}"#
        )
    };
    let refused = client.ask(&ask(1, "")).await;
    assert_eq!((&refused["op"], &refused["code"]), (&json!("error"), &json!("sequence_cut")));
    assert!(refused["message"].as_str().unwrap().contains("no longer kept"), "{refused}");
    let sse = world.get("/v1/sse?streams=bars.1s&from=sequence:1").await;
    assert_eq!((sse.status, &sse.json()["error"]["code"]), (409, &json!("sequence_cut")));
    while world.subscribers().await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.ask(&ask(1, r#","cut":"loss""#)).await["op"], "subscribed");
    let live = |others: &[Value]| others.iter().any(|other| other["op"] == "live");
    let (records, others) = client.records(1, |_, others| live(others)).await;
    let loss = others.iter().find(|other| other["op"] == "loss").unwrap();
    assert_eq!((&loss["cause"], &loss["exact"]), (&json!("expired"), &json!(true)));
    assert_eq!(loss["count"].as_u64().unwrap() + records.len() as u64, published);
    world.finish().await;
}

/// Share of time, and nothing but shares.
fn shares(thread: &Value) -> f64 {
    ["busy", "blocked", "idle"].iter().map(|part| thread[part].as_f64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_knows_what_the_engine_knows() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(EVENTS).await;
    let (status, ledger) = loop {
        let status = world.json("/v1/status").await;
        // What the shards have taken; the rest waits for its frame of the log to be complete.
        let total = &status["events"]["total"];
        let known = !status["latency_ns"].is_null() && status["threads"][0]["busy"].is_f64();
        if let Some(ledger) = status["ledger"].as_array().filter(|_| known)
            && ledger.iter().all(|stage| stage["delivered"] == *total)
        {
            let ledger = ledger.clone();
            break (status, ledger);
        }
        tokio::task::yield_now().await;
    };
    let latency = |name: &str| status["latency_ns"][name].as_u64().unwrap();
    assert!(0 < latency("p50") && latency("p50") <= latency("p99"));
    assert!(latency("p99") <= latency("p99_9") && latency("p99_9") <= latency("max"));
    assert!(latency("samples") > 0);

    let causes: Vec<&str> =
        status["causes"].as_array().unwrap().iter().map(|cause| cause.as_str().unwrap()).collect();
    assert_eq!(causes, tidegate_engine::ledger::FATE_NAMES);
    for stage in &ledger {
        let by_cause = stage["by_cause"].as_object().unwrap();
        let sum: u64 = by_cause.values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!((sum, &stage["imbalance"]), (stage["delivered"].as_u64().unwrap(), &json!(0)));
        assert!(sum > EVENTS as u64 / 2);
        assert!(by_cause.keys().all(|cause| causes.contains(&cause.as_str())));
    }
    let names: Vec<&str> = ledger.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(names, ["bars.1s", "bars.1m"]);

    let feed = &status["feeds"][0];
    assert_eq!((&feed["source"], &feed["peer"]), (&json!("market"), &json!("192.0.2.7:4711")));
    assert_eq!((&feed["accepted"], &feed["connected"]), (&json!(EVENTS), &json!(true)));
    assert_eq!(feed["finished"], false);

    let metrics = world.get("/metrics").await;
    for line in [
        "tidegate_latency_seconds{quantile=\"0.99\"}",
        "tidegate_stage_events_total{stage=\"bars.1s\",fate=\"applied\"}",
    ] {
        assert!(metrics.text().contains(line), "{line} in {}", metrics.text());
    }
    let threads = status["threads"].as_array().unwrap();
    let names: Vec<&str> = threads.iter().map(|thread| thread["thread"].as_str().unwrap()).collect();
    assert_eq!(names, ["tg-ingest", "tg-shard-0", "tg-egress"]);
    for thread in threads {
        assert!((shares(thread) - 1.0).abs() < 0.002, "{thread}");
    }
    assert_eq!(status["alerts"], Value::Null, "nothing detects anything, which is not the same as no alert");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_the_same_records() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(20_000).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let path = "/v1/sse?streams=bars.1s&keys=AQ*,BRAA&from=lookback:3";
    let text = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(11).any(|at| at == b"event: live") {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
    assert!(std::str::from_utf8(&bytes[..end]).unwrap().contains("content-type: text/event-stream"));
    let (_, live) = world.finish().await;
    assert_eq!(live.imbalance(), 0);
    // The server has ended, and with it the events.
    stream.read_to_end(&mut bytes).await.unwrap();
    let body = String::from_utf8(unchunk(&bytes[end + 4..])).unwrap();
    let records: Vec<Value> = body
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("event: record\ndata: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(!records.is_empty() && records.len().is_multiple_of(3), "{}", records.len());
    assert!(
        records
            .iter()
            .all(|record| record["key"] == "BRAA" || record["key"].as_str().unwrap().starts_with("AQ"))
    );
}

#[tokio::test]
async fn the_description_lists_what_there_is() {
    let world = World::start(GatewayOptions::default()).await;
    let api = world.json("/v1/openapi.json").await;
    for path in api["paths"].as_object().unwrap().keys() {
        let answer = world.get(path).await;
        // With no parameters a route answers, says which one it wants, or wants an upgrade; it is never unknown. Events never end.
        if path == "/v1/cluster" {
            assert_eq!(
                (answer.status, &answer.json()["error"]["code"]),
                (404, &json!("no_cluster")),
                "it stands alone"
            );
            continue;
        }
        assert_ne!(answer.status, 404, "{path}");
    }
    let page = world.get("/v1/docs").await;
    assert!(page.text().contains("/v1/docs.js") && page.header("content-security-policy").is_some());
    assert_eq!(world.get("/v1/docs.js").await.status, 200);
    let etag = page.header("etag").unwrap().to_owned();
    let head = format!("host: {}\r\nconnection: close\r\nif-none-match: {etag}\r\n\r\n", world.address);
    let again = request(world.address, &format!("GET /v1/docs HTTP/1.1\r\n{head}")).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let first = world.get("/").await;
    assert_eq!((first.status, first.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(world.get("/v1/streams").await.header("cache-control"), Some("no-store"));
    world.finish().await;
}
