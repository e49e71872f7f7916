//! Bad input, hostile and slow peers: each gets a typed answer or its end, and nobody else notices.

mod common;

use common::{Client, World, request};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_gateway::GatewayOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_said() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(2_000).await;
    let long = format!("/v1/keys?search={}", "x".repeat(9_000));
    for (path, status, code) in [
        ("/v1/nothing", 404, "not_found"),
        ("/v1/", 404, "not_found"),
        ("/index.html/..", 404, "not_found"),
        ("/../../Cargo.toml", 404, "not_found"),
        ("/%00", 404, "not_found"),
        ("/v1/streams?x=1", 400, "unknown_parameter"),
        ("/v1/keys?limit=0", 400, "out_of_range"),
        ("/v1/keys?limit=1001", 400, "out_of_range"),
        ("/v1/keys?limit=5&limit=6", 400, "bad_parameter"),
        (&long, 400, "query_too_long"),
        ("/v1/keys?stream=bars.2s", 404, "unknown_stream"),
        ("/v1/keys?stream=", 404, "unknown_stream"),
        ("/v1/keys?search=a&prefix=A", 400, "bad_parameter"),
        ("/v1/sse?streams=bars.1s&from=sequence:0", 400, "out_of_range"),
        ("/v1/sse?streams=bars.1s&from=sequence:x", 400, "bad_value"),
        ("/v1/latest", 400, "missing_parameter"),
        ("/v1/latest?stream=bars.2s&key=AQAA", 404, "unknown_stream"),
        ("/v1/latest?stream=bars.1s&key=NOBODY", 404, "unknown_key"),
        ("/v1/latest?stream=bars.1s&key=", 404, "unknown_key"),
        ("/v1/latest?stream=bars.1s&key=AQ", 404, "unknown_key"),
        ("/v1/latest?stream=ind.1m&key=AQAA", 404, "no_record"),
        ("/v1/latest?stream=bars.1s&key=AQAA&limit=5", 400, "bad_parameter"),
        ("/v1/bars?stream=bars.1s", 400, "missing_parameter"),
        ("/v1/bars?stream=bars.1s&key=AQAA&limit=5001", 400, "out_of_range"),
        ("/v1/bars?stream=bars.1s&key=AQAA&limit=many", 400, "out_of_range"),
        ("/v1/bars?stream=%ff&key=%ff", 404, "unknown_stream"),
        ("/v1/arrow?stream=bars.1s", 400, "missing_parameter"),
        ("/v1/arrow?stream=bars.1s&key=NOBODY", 404, "unknown_key"),
        ("/v1/sse", 400, "missing_parameter"),
        ("/v1/sse?streams=bars.2s", 404, "unknown_stream"),
        ("/v1/sse?streams=bars.1s,bars.1s", 400, "bad_subscription"),
        ("/v1/sse?streams=", 400, "out_of_range"),
        ("/v1/sse?streams=bars.1s&from=lookback:0", 400, "out_of_range"),
        ("/v1/sse?streams=bars.1s&from=lookback:100000", 400, "out_of_range"),
        ("/v1/sse?streams=bars.1s&from=yesterday", 400, "bad_value"),
        ("/v1/sse?streams=bars.1s&conflate=-5", 400, "bad_value"),
        ("/v1/sse?streams=bars.1s&past_lag=cry", 400, "bad_value"),
        ("/v1/ws", 426, "websocket_only"),
    ] {
        let answer = world.get(path).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{path}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let unknown = world.get("/v1/bars?stream=bars.2s&key=A").await.json();
    assert_eq!(unknown["error"]["allowed"], json!(["bars.1s", "ind.1s", "bars.1m", "ind.1m"]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_requests() {
    let origins = vec!["http://localhost:5173".to_owned()];
    let world = World::start(GatewayOptions { origins, ..GatewayOptions::default() }).await;
    let own = world.address.to_string();
    let many: String = (0..100).map(|at| format!("x-{at}: 1\r\n")).collect();
    for (text, status, code) in [
        ("GET /v1/streams HTTP/1.1\r\nhost: evil.example\r\n".to_owned(), 421, Some("unknown_host")),
        ("GET /v1/streams HTTP/1.1\r\n".to_owned(), 400, Some("bad_host")),
        (
            format!("GET /v1/streams HTTP/1.1\r\nhost: {own}\r\norigin: http://evil.example\r\n"),
            403,
            Some("foreign_origin"),
        ),
        (format!("GET /v1/streams HTTP/1.1\r\nhost: {own}\r\norigin: http://{own}\r\n"), 200, None),
        (format!("POST /v1/streams HTTP/1.1\r\nhost: {own}\r\n"), 405, Some("method_not_allowed")),
        (format!("DELETE / HTTP/1.1\r\nhost: {own}\r\n"), 405, Some("method_not_allowed")),
        (
            format!("GET /v1/streams HTTP/1.1\r\nhost: {own}\r\ncontent-length: 1000000000\r\n"),
            413,
            Some("body_too_large"),
        ),
        (format!("HEAD /v1/streams HTTP/1.1\r\nhost: {own}\r\n"), 200, None),
        (format!("GET / HTTP/1.1\r\nhost: {own}\r\n{many}"), 431, None),
        (format!("GET /{} HTTP/1.1\r\nhost: {own}\r\n", "a".repeat(40_000)), 431, None),
        ("\u{16}\u{3}\u{1}\r\n".to_owned(), 400, None),
        ("PRI * HTTP/2.0\r\n".to_owned(), 400, None),
    ] {
        let answer = request(world.address, &format!("{text}connection: close\r\n\r\n")).await;
        let short: String = text.chars().take(80).collect();
        assert_eq!(answer.status, status, "{short}");
        if let Some(code) = code {
            assert_eq!(answer.json()["error"]["code"], code, "{short}");
        }
    }
    // A listed origin may read, and is told so by name.
    let text = format!(
        "GET /v1/streams HTTP/1.1\r\nhost: {own}\r\norigin: http://localhost:5173\r\nconnection: close\r\n\r\n"
    );
    let answer = request(world.address, &text).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("http://localhost:5173"))
    );
    assert_eq!(world.get("/v1/streams").await.header("access-control-allow-origin"), None);
    // So it is with WebSockets, which browsers open for any page.
    for (origin, opens) in [("http://evil.example", false), ("http://localhost:5173", true)] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let uri = format!("ws://{own}/v1/ws").parse().unwrap();
        let request = tokio_tungstenite::tungstenite::client::ClientRequestBuilder::new(uri)
            .with_header("origin", origin);
        assert_eq!(tokio_tungstenite::client_async(request, stream).await.is_ok(), opens, "{origin}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_cannot_be_are_named_and_change_nothing() {
    let options =
        GatewayOptions { message_bytes_max: 2_000, subscriptions_max: 2, ..GatewayOptions::default() };
    let world = World::start(options).await;
    let mut client = world.websocket().await;
    let error = client.ask(r#"{"op":"subscribe","id":1,"streams":["bars.2s"]}"#).await;
    assert_eq!(
        (&error["op"], &error["id"], &error["code"]),
        (&json!("error"), &json!(1), &json!("unknown_stream"))
    );
    assert_eq!(error["allowed"], json!(["bars.1s", "ind.1s", "bars.1m", "ind.1m"]));
    for (text, code) in [
        ("not json", "bad_json"),
        (r#"{"op":"fly"}"#, "unknown_op"),
        (r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"from":{"lookback":70000}}"#, "out_of_range"),
        (r#"{"op":"subscribe","id":1,"streams":["bars.1s","bars.1s"]}"#, "bad_subscription"),
        (r#"{"op":"unsubscribe","id":1}"#, "unknown_id"),
    ] {
        assert_eq!(client.ask(text).await["code"], code, "{text}");
    }
    let mut ops = Vec::new();
    for id in [1, 1, 2, 3] {
        client.send(&format!(r#"{{"op":"subscribe","id":{id},"streams":["bars.1s"]}}"#)).await;
        let mut message = client.next().await;
        while message["op"] == "live" {
            message = client.next().await;
        }
        ops.push(message["code"].as_str().or(message["op"].as_str()).unwrap().to_owned());
    }
    assert_eq!(ops, ["subscribed", "duplicate_id", "subscribed", "too_many_subscriptions"]);

    client.send(&format!(r#"{{"op":"ping","id":1,"x":"{}"}}"#, "x".repeat(4_000))).await;
    let mut error = client.next().await;
    while error["op"] == "live" {
        error = client.next().await;
    }
    assert_eq!((&error["code"], &error["allowed"]), (&json!("too_large"), &json!(["2000"])));
    assert_eq!(client.closed().await, 1009);

    let mut binary = world.websocket().await;
    binary.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(binary.next().await["code"], "bad_json");
    assert_eq!(binary.closed().await, 1003);
    // A frame that no client may send: unmasked.
    let mut raw = raw_websocket(&world).await;
    raw.write_all(&[0x81, 0x02, b'{', b'}']).await.unwrap();
    read_out(&mut raw).await;
    // And one that claims to be larger than there is memory.
    let mut raw = raw_websocket(&world).await;
    raw.write_all(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await.unwrap();
    read_out(&mut raw).await;
    until_subscribers(&world, 0).await;
    world.finish().await;
}

/// A WebSocket of which this side knows only the bytes.
async fn raw_websocket(world: &World) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // So that little of what is not read fits in between.
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(world.address).await.unwrap();
    let text = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        world.address
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

/// Reads until the server has closed, in whatever manner.
async fn read_out(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// A text frame as clients write it, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0xfe];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Waits until the hub has so many subscribers.
async fn until_subscribers(world: &World, count: u64) {
    while world.subscribers().await != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_asked_and_then_closed() {
    let (ping_every, idle_timeout) = (Duration::from_millis(20), Duration::from_millis(60));
    let world = World::start(GatewayOptions { ping_every, idle_timeout, ..GatewayOptions::default() }).await;
    let mut silent = raw_websocket(&world).await;
    let bytes = read_out(&mut silent).await;
    assert_eq!(&bytes[..2], [0x89, 0], "a ping");
    assert_eq!((bytes[2], u16::from_be_bytes([bytes[4], bytes[5]])), (0x88, 1008), "and a close");
    // One that answers stays; the third ping proves that the second was answered.
    let mut client = world.websocket().await;
    for _ in 0..8 {
        assert!(matches!(client.socket.next().await.unwrap().unwrap(), Message::Ping(_)));
        client.socket.flush().await.unwrap();
    }
    assert_eq!(client.ask(r#"{"op":"ping"}"#).await["op"], "pong");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dribbles_a_request_is_closed() {
    let head_timeout = Duration::from_millis(50);
    let world = World::start(GatewayOptions { head_timeout, ..GatewayOptions::default() }).await;
    for text in ["", "GET /v1/stre", "GET /v1/streams HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let bytes = read_out(&mut stream).await;
        assert!(!bytes.starts_with(b"HTTP/1.1 2"), "{text}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_there_may_be_are_told() {
    let world = World::start(GatewayOptions { connections_max: 2, ..GatewayOptions::default() }).await;
    let mut first = world.websocket().await;
    let second = world.websocket().await;
    let answer = world.get("/v1/streams").await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("busy")));
    assert_eq!(first.ask(r#"{"op":"ping"}"#).await["op"], "pong");
    drop(second);
    // The place is free as soon as the server has seen the end of the second.
    while world.get("/v1/streams").await.status == 503 {
        tokio::task::yield_now().await;
    }
    let (report, _) = world.finish().await;
    assert!(report.refused >= 1 && report.abandoned == 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_hurts_only_itself() {
    let mut world = World::start(GatewayOptions::default()).await;
    world.feed(1_000).await;
    let mut stuck = raw_websocket(&world).await;
    let ask = |id: u64, more: &str| {
        format!(r#"{{"op":"subscribe","id":{id},"streams":["bars.1s"],"lag":500{more}}}"#)
    };
    for text in [ask(1, ""), ask(2, r#","past_lag":"conflate""#), ask(3, r#","past_lag":"disconnect""#)] {
        stuck.write_all(&masked(&format!("{text:<200}"))).await.unwrap();
    }
    let mut good = world.websocket().await;
    good.send(r#"{"op":"subscribe","id":1,"streams":["bars.1s"]}"#).await;
    until_subscribers(&world, 4).await;
    let before = world.published(0).await;
    let reading = tokio::spawn(async move {
        let (mut count, mut lost) = (0, 0);
        while count < 60_000 {
            let message = good.next().await;
            count += message["records"].as_array().map_or(0, Vec::len) as u64;
            lost += message["count"].as_u64().unwrap_or(0);
        }
        (count, lost)
    });
    // Until even the buffers of two kernels and the deliveries between cannot hide it: the third subscription has ended.
    let mut rounds = 0;
    loop {
        world.feed(20_000).await;
        rounds += 1;
        let left = world.subscribers().await;
        if left < 4 && world.published(0).await - before > 60_000 {
            break;
        }
        assert!(rounds < 50, "bounded: the stuck reader must have fallen behind by now");
    }
    let (count, lost) = reading.await.unwrap();
    assert!(count >= 60_000 && lost == 0, "{count} {lost}");
    let total = world.published(0).await - before;

    // Now it reads after all: what it did not get is told to the last record.
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(
        stuck,
        tokio_tungstenite::tungstenite::protocol::Role::Client,
        None,
    )
    .await;
    let mut got = [0; 4];
    let mut lost = [0; 4];
    let mut closed = Value::Null;
    while got[1] + lost[1] < total || got[2] + lost[2] < total || closed.is_null() {
        let message = socket.next().await.unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        let id = message["id"].as_u64().unwrap() as usize;
        match message["op"].as_str().unwrap() {
            "data" => got[id] += message["records"].as_array().unwrap().len() as u64,
            "loss" => {
                assert_eq!(message["exact"], true);
                assert_eq!(message["cause"], ["", "dropped", "conflated"][id]);
                lost[id] += message["count"].as_u64().unwrap();
            }
            "closed" => closed = message,
            "subscribed" | "live" => {}
            op => panic!("{op}"),
        }
    }
    assert_eq!((got[1] + lost[1], got[2] + lost[2]), (total, total));
    assert!(lost[1] > 0 && lost[2] > 0);
    assert_eq!((&closed["id"], &closed["code"]), (&json!(3), &json!("lag")));
    drop(socket);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_is_closed_in_the_end() {
    let write_timeout = Duration::from_millis(100);
    let mut world = World::start(GatewayOptions { write_timeout, ..GatewayOptions::default() }).await;
    world.feed(1_000).await;
    let mut stuck = raw_websocket(&world).await;
    let text = r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"lag":500}"#;
    stuck.write_all(&masked(&format!("{text:<200}"))).await.unwrap();
    let mut events = TcpStream::connect(world.address).await.unwrap();
    let text = format!("GET /v1/sse?streams=bars.1s HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
    events.write_all(text.as_bytes()).await.unwrap();
    until_subscribers(&world, 2).await;
    for _ in 0..50 {
        world.feed(20_000).await;
        if world.subscribers().await == 0 {
            break;
        }
    }
    until_subscribers(&world, 0).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_told() {
    let world = World::start(GatewayOptions::default()).await;
    let mut client = Client::connect(world.address).await;
    assert_eq!(client.ask(r#"{"op":"ping"}"#).await["op"], "pong");
    // A connection between two requests: known to the server, or it might end in the queue of those not yet taken.
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    idle.write_all(format!("GET /v1/health HTTP/1.1\r\nhost: {}\r\n\r\n", world.address).as_bytes())
        .await
        .unwrap();
    assert!(idle.read_u8().await.is_ok());
    let (report, _) = tokio::join!(world.finish(), async { assert_eq!(client.closed().await, 1001) });
    assert_eq!((report.0.connections, report.0.abandoned), (2, 0));
    drop(idle);
}
