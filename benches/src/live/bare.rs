//! The same paths with nothing but quinn and a hand-written loop: what the machine and the library allow.

use super::{Outcome, nanos, party};
use crate::hand::{FullA, RING_CHUNK};
use bytes::Bytes;
use hdrhistogram::Histogram;
use quinn::{
    ClientConfig, Connection, Endpoint, MtuDiscoveryConfig, RecvStream, ServerConfig, TransportConfig,
};
use rustls::crypto::aws_lc_rs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_engine::Event;
use tidegate_quic::socket;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes handed to the connection at a time.
const WRITE_BYTES: usize = 64 << 10;
const EVENT: usize = size_of::<Event>();

fn transport(mtu: u16) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu.max(1_452));
    let mut transport = TransportConfig::default();
    transport.initial_mtu(mtu).mtu_discovery_config(Some(discovery)).send_window(8 << 20);
    Arc::new(transport)
}

fn configs(mtu: u16) -> Outcome<(ServerConfig, ClientConfig)> {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = own.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = || Arc::new(aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    let mut server =
        ServerConfig::with_crypto(Arc::new(quinn_proto::crypto::rustls::QuicServerConfig::try_from(tls)?));
    server.transport_config(transport(mtu));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client =
        ClientConfig::new(Arc::new(quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls)?));
    client.transport_config(transport(mtu));
    Ok((server, client))
}

async fn dial(address: SocketAddr, config: ClientConfig, mtu: u16) -> Outcome<(Endpoint, Connection)> {
    let endpoint = socket::endpoint("127.0.0.1:0".parse()?, None, mtu)?;
    let connection = endpoint.connect_with(config, address, "localhost")?.await?;
    Ok((endpoint, connection))
}

/// Whole events out of a stream's bytes.
struct Events {
    rest: Vec<u8>,
    events: Vec<Event>,
}

impl Events {
    fn new() -> Self {
        Self { rest: Vec::new(), events: Vec::with_capacity(4 * RING_CHUNK) }
    }

    async fn read(&mut self, stream: &mut RecvStream) -> Outcome<Option<&[Event]>> {
        let Some(chunk) = stream.read_chunk(WRITE_BYTES, true).await? else { return Ok(None) };
        self.events.clear();
        let mut bytes = &chunk.bytes[..];
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at((EVENT - self.rest.len()).min(bytes.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() == EVENT {
                self.events.push(Event::read_from_bytes(&self.rest).map_err(|_| "an event's bytes")?);
                self.rest.clear();
            }
        }
        let whole = bytes.len() / EVENT;
        let from = self.events.len();
        self.events.resize(from + whole, Event::default());
        self.events[from..].as_mut_bytes().copy_from_slice(&bytes[..whole * EVENT]);
        self.rest.extend_from_slice(&bytes[whole * EVENT..]);
        Ok(Some(&self.events))
    }
}

/// Events a second from memory over one QUIC stream into the hand-written loop with full semantics: two threads.
///
/// # Errors
/// As [`super::run`].
pub fn ingest(events: &[Event], symbols: usize, mtu: u16) -> Outcome<f64> {
    let (server, client) = configs(mtu)?;
    let (address_in, address) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Outcome<Instant> {
            party()?.block_on(async {
                let endpoint = socket::endpoint("127.0.0.1:0".parse()?, Some(server), mtu)?;
                address_in.send(endpoint.local_addr()?)?;
                let connection = endpoint.accept().await.ok_or("no connection")?.await?;
                let mut stream = connection.accept_uni().await?;
                let mut bars = FullA::new(symbols, 0);
                let mut reading = Events::new();
                while let Some(events) = reading.read(&mut stream).await? {
                    bars.apply(events);
                }
                let end = Instant::now();
                if bars.finish().applied != events.len() as u64 {
                    return Err("events were lost".into());
                }
                connection.close(0u32.into(), b"");
                endpoint.wait_idle().await;
                Ok(end)
            })
        });
        let start = party()?.block_on(async {
            let (_endpoint, connection) = dial(address.recv()?, client, mtu).await?;
            let mut stream = connection.open_uni().await?;
            let start = Instant::now();
            for chunk in events.chunks(WRITE_BYTES / EVENT) {
                stream.write_chunk(Bytes::copy_from_slice(chunk.as_bytes())).await?;
            }
            stream.finish()?;
            connection.closed().await;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(start)
        })?;
        let end = reader.join().map_err(|_| "the reader panicked")??;
        Ok(events.len() as f64 / end.duration_since(start).as_secs_f64())
    })
}

/// Round trips of so many bytes over one QUIC stream, one after the other: two threads.
///
/// # Errors
/// As [`super::run`].
pub fn round_trips(count: usize, bytes: usize) -> Outcome<Vec<Duration>> {
    let mtu = 1_200;
    let (server, client) = configs(mtu)?;
    let (address_in, address) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || -> Outcome<()> {
            party()?.block_on(async {
                let endpoint = socket::endpoint("127.0.0.1:0".parse()?, Some(server), mtu)?;
                address_in.send(endpoint.local_addr()?)?;
                let connection = endpoint.accept().await.ok_or("no connection")?.await?;
                let (mut send, mut receive) = connection.accept_bi().await?;
                while let Some(chunk) = receive.read_chunk(WRITE_BYTES, true).await? {
                    send.write_chunk(chunk.bytes).await?;
                }
                connection.closed().await;
                endpoint.wait_idle().await;
                Ok(())
            })
        });
        let address = address.recv()?;
        party()?.block_on(async {
            let (endpoint, connection) = dial(address, client, mtu).await?;
            let (mut send, mut receive) = connection.open_bi().await?;
            let (question, mut answer) = (vec![0; bytes], vec![0; bytes]);
            let mut trips = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                send.write_all(&question).await?;
                receive.read_exact(&mut answer).await?;
                trips.push(start.elapsed());
            }
            send.finish()?;
            connection.close(0u32.into(), b"");
            endpoint.wait_idle().await;
            Ok(trips)
        })
    })
}

/// Open loop at `rate` a second: an event over QUIC, every `per`th of them answered with 64 bytes on another connection to
/// somebody else. From the intended time of that event to its answer's arrival.
///
/// # Errors
/// As [`super::run`].
pub fn echo(rate: u64, per: u64, seconds: u64) -> Outcome<Histogram<u64>> {
    let mtu = 1_200;
    let (server, client) = configs(mtu)?;
    let (address_in, address) = std::sync::mpsc::channel();
    let start = Instant::now() + Duration::from_millis(200);
    std::thread::scope(|scope| {
        scope.spawn(move || -> Outcome<()> {
            party()?.block_on(async {
                let endpoint = socket::endpoint("127.0.0.1:0".parse()?, Some(server), mtu)?;
                address_in.send(endpoint.local_addr()?)?;
                // The reader comes first.
                let reader = endpoint.accept().await.ok_or("no reader")?.await?;
                let mut out = reader.open_uni().await?;
                out.write_all(&[0; 64]).await?;
                let feed = endpoint.accept().await.ok_or("no feed")?.await?;
                let mut stream = feed.accept_uni().await?;
                let (mut reading, mut seen) = (Events::new(), 0);
                while let Some(events) = reading.read(&mut stream).await? {
                    let mut answers = Vec::new();
                    for event in events {
                        seen += 1;
                        if seen % per == 0 {
                            let mut answer = [0; 64];
                            answer[..8].copy_from_slice(&event.ts_event.to_le_bytes());
                            answers.extend_from_slice(&answer);
                        }
                    }
                    if !answers.is_empty() {
                        out.write_chunk(answers.into()).await?;
                    }
                }
                out.finish()?;
                reader.closed().await;
                feed.close(0u32.into(), b"");
                endpoint.wait_idle().await;
                Ok(())
            })
        });
        let address = address.recv()?;
        // Reader and feed on one thread, as beside the server.
        party()?.block_on(async {
            let (ready_in, ready) = tokio::sync::oneshot::channel();
            let reader_config = client.clone();
            let reading = async {
                let (endpoint, connection) = dial(address, reader_config, mtu).await?;
                let mut stream = connection.accept_uni().await?;
                let mut answer = [0; 64];
                stream.read_exact(&mut answer).await?;
                let _ = ready_in.send(());
                let mut histogram = super::delivery::histogram();
                while stream.read_exact(&mut answer).await.is_ok() {
                    let sent = u64::from_le_bytes(answer[..8].try_into()?);
                    histogram.saturating_record(nanos(start.elapsed()).saturating_sub(sent));
                }
                connection.close(0u32.into(), b"");
                endpoint.wait_idle().await;
                Ok(histogram)
            };
            let publishing = async {
                ready.await?;
                let (_endpoint, connection) = dial(address, client, mtu).await?;
                let mut stream = connection.open_uni().await?;
                let mut pace = super::delivery::Pace::new(start, rate, rate * seconds);
                while let Some(due) = pace.due().await {
                    let events: Vec<Event> = due
                        .map(|at| Event { ts_event: at * 1_000_000_000 / rate, ..Event::default() })
                        .collect();
                    stream.write_chunk(Bytes::copy_from_slice(events.as_bytes())).await?;
                }
                stream.finish()?;
                let _ = stream.stopped().await;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            };
            let (histogram, published) = tokio::join!(reading, publishing);
            published?;
            histogram
        })
    })
}
