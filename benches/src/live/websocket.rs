//! What a WebSocket adds to the way of a result, and what readers that never read take from those who do.

use super::delivery::{PER_BAR, T0, histogram, paced, reader, subscription};
use super::{Outcome, Server, Size, nanos, party};
use crate::measure::Measurement;
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;
use tidegate_actors::runtime::IdleStrategy;
use tidegate_live::Threads;
use tidegate_proto::subscription::{LagPolicy, Subscription};
use tidegate_quic::{ClientOptions, Limits, Subscriber};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Records that a reader that never reads may be behind: so few that its policy soon has work.
const STUCK_LAG: u64 = 500;

/// A WebSocket subscribed to all results. `small`: with as little room as there can be for what it does not read.
async fn subscribed(address: SocketAddr, small: bool) -> Outcome<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if small {
        socket.set_recv_buffer_size(4_096)?;
    }
    let mut stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let lag = if small { STUCK_LAG } else { 0 };
    let ask = format!("{{\"op\":\"subscribe\",\"id\":1,\"streams\":[\"bars.{PER_BAR}t\"],\"lag\":{lag}}}");
    let mut bytes = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    // Masked, as clients must, with zeros.
    bytes.extend_from_slice(&[0x81, 0x80 | u8::try_from(ask.len())?, 0, 0, 0, 0]);
    bytes.extend_from_slice(ask.as_bytes());
    stream.write_all(&bytes).await?;
    // The stream is live once it says so: what follows is new.
    let mut said = Vec::new();
    while !said.ends_with(format!("\"stream\":\"bars.{PER_BAR}t\"}}").as_bytes()) {
        if stream.read_buf(&mut said).await? == 0 {
            return Err(String::from_utf8_lossy(&said).into_owned().into());
        }
    }
    Ok(stream)
}

/// Hands each text message that is whole to `take`; what is left of the bytes begins a message.
fn messages(bytes: &mut Vec<u8>, mut take: impl FnMut(&str) -> Outcome<()>) -> Outcome<()> {
    let mut at = 0;
    while let [first, short, rest @ ..] = &bytes[at..] {
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < wide {
            break;
        }
        let long = rest[..wide].iter().fold(0, |all, &byte| all << 8 | usize::from(byte));
        let length = if wide == 0 { usize::from(*short) } else { long };
        let Some(body) = rest[wide..].get(..length) else { break };
        match first {
            0x81 => take(std::str::from_utf8(body)?)?,
            0x89 => {}
            _ => return Err("the server closed".into()),
        }
        at += 2 + wide + length;
    }
    bytes.drain(..at);
    Ok(())
}

/// As [`reader`], over a WebSocket: until the message is here as text and the times in it are read.
fn websocket(address: SocketAddr, start: Instant, count: u64, ready: Sender<()>) -> Outcome<Histogram<u64>> {
    party()?.block_on(async {
        let mut stream = subscribed(address, false).await?;
        ready.send(())?;
        let (mut histogram, mut bytes) = (histogram(), Vec::with_capacity(1 << 20));
        while histogram.len() < count {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err("the server hung up".into());
            }
            messages(&mut bytes, |message| {
                if !message.starts_with("{\"op\":\"data\"") {
                    return Err(message.to_owned().into());
                }
                for part in message.split("\"ts\":\"").skip(1) {
                    let ts = part.split('"').next().unwrap_or_default().parse::<u64>()?;
                    histogram.saturating_record(nanos(start.elapsed()).saturating_sub(ts - T0));
                }
                Ok(())
            })?;
        }
        Ok(histogram)
    })
}

/// Somebody who subscribes to everything and never reads.
#[derive(Clone, Copy)]
enum Stuck {
    Quic,
    WebSocket,
}

/// Latencies of a QUIC subscriber beside one that never reads.
fn beside(stuck: Stuck, threads: Threads, seconds: u64) -> Outcome<Histogram<u64>> {
    let server = Server::start(&format!("{PER_BAR}t"), threads, IdleStrategy::default(), 1_200)?;
    let front = server.gateway()?;
    let (address, client) = (front.address, server.client.clone());
    let histogram = std::thread::scope(|scope| {
        let (ends, end) = tokio::sync::oneshot::channel::<()>();
        let (ready_in, ready) = channel();
        let small = Limits { receive_window: 64 << 10, stream_receive_window: 64 << 10, ..client.limits };
        let other = ClientOptions { limits: small, ..client.clone() };
        // Its runtime goes on, so that the connection stands.
        let stuck = scope.spawn(move || -> Outcome<()> {
            party()?.block_on(async {
                let lazy = Subscription {
                    lag_budget: STUCK_LAG,
                    policy: LagPolicy::DropOldest,
                    ..subscription(&format!("bars.{PER_BAR}t"))
                };
                let held = match stuck {
                    Stuck::Quic => (Some(Subscriber::connect(other, "stuck", lazy).await?), None),
                    Stuck::WebSocket => (None, Some(subscribed(address, true).await?)),
                };
                ready_in.send(())?;
                let _ = end.await;
                drop(held);
                Ok(())
            })
        });
        ready.recv()?;
        let found = paced(&server, seconds, move |start, count, ready| reader(client, start, count, ready));
        drop(ends);
        stuck.join().map_err(|_| "the stuck reader panicked")??;
        found
    })?;
    front.end(&server)?;
    // Without a loss it was no reader that never reads.
    let report = server.end()?;
    if report.hub.dropped == 0 {
        return Err("the reader that never reads has lost nothing: it had room for everything".into());
    }
    Ok(histogram)
}

/// Latencies of a WebSocket subscriber, or of a QUIC one on the same server with a gateway before it.
fn alone(over_websocket: bool, threads: Threads, seconds: u64) -> Outcome<Histogram<u64>> {
    let server = Server::start(&format!("{PER_BAR}t"), threads, IdleStrategy::default(), 1_200)?;
    let front = server.gateway()?;
    let (address, client) = (front.address, server.client.clone());
    let histogram = paced(&server, seconds, move |start, count, ready| {
        if over_websocket {
            websocket(address, start, count, ready)
        } else {
            reader(client, start, count, ready)
        }
    })?;
    front.end(&server)?;
    server.end()?;
    Ok(histogram)
}

/// One reader over QUIC, one over a WebSocket, and one over QUIC beside others that never read, in turns.
///
/// # Errors
/// As [`super::run`].
pub fn measure(size: Size) -> Outcome<Vec<Measurement>> {
    let names =
        ["reader_quic", "reader_websocket", "reader_beside_stuck_quic", "reader_beside_stuck_websocket"];
    let mut found: Vec<Measurement> = names
        .iter()
        .flat_map(|name| ["p50", "p99"].map(|what| Measurement::new(format!("{name}_{what}"), "ns")))
        .collect();
    for _ in 0..size.rounds {
        let (threads, seconds) = (Threads::Auto, size.seconds);
        let runs = [
            alone(false, threads, seconds)?,
            alone(true, threads, seconds)?,
            beside(Stuck::Quic, threads, seconds)?,
            beside(Stuck::WebSocket, threads, seconds)?,
        ];
        for (pair, run) in found.chunks_mut(2).zip(&runs) {
            pair[0].runs.push(run.value_at_quantile(0.5) as f64);
            pair[1].runs.push(run.value_at_quantile(0.99) as f64);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let long = "x".repeat(300);
        let mut frames = b"\x81\x02ab\x89\x00\x81\x7e\x01\x2c".to_vec();
        frames.extend_from_slice(long.as_bytes());
        for cut in 0..=frames.len() {
            let (mut bytes, mut found) = (frames[..cut].to_vec(), Vec::new());
            let mut take = |text: &str| {
                found.push(text.to_owned());
                Ok(())
            };
            messages(&mut bytes, &mut take).unwrap();
            bytes.extend_from_slice(&frames[cut..]);
            messages(&mut bytes, &mut take).unwrap();
            assert_eq!(found, ["ab", &long], "cut at {cut}");
            assert!(bytes.is_empty());
        }
        assert!(messages(&mut b"\x88\x02\x03\xe9".to_vec(), |_| Ok(())).is_err());
    }
}
