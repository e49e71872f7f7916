//! Many connections that do nothing cost little.
#![cfg(target_os = "linux")]

mod common;

use common::World;
use std::net::SocketAddr;
use tidegate_gateway::GatewayOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// 10,000 connections are to stay under a gibibyte.
const BYTES_EACH_MAX: usize = (1 << 30) / 10_000;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// A WebSocket with one subscription that has nothing to say.
async fn idle(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let ask = r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"keys":["NOBODY"]}"#;
    let mut frame = vec![0x81, 0x80 | ask.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(ask.as_bytes());
    stream.write_all(&frame).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|at| at == b"live") {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    stream
}

async fn measure(count: usize) {
    let world = World::start(GatewayOptions::default()).await;
    let warm = idle(world.address).await;
    let before = resident();
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(idle(world.address).await);
    }
    let each = resident().saturating_sub(before) / count;
    println!("{count} idle WebSockets with a subscription: {each} bytes each, both ends");
    assert!(each < BYTES_EACH_MAX, "{each} bytes each");
    let subscribers = world.subscribers().await;
    assert_eq!(subscribers as usize, count + 1);
    drop((warm, streams));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_small() {
    measure(400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs 20,000 open files"]
async fn ten_thousand_idle_connections() {
    measure(9_900).await;
}
