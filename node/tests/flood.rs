//! Ten thousand strangers that connect and say nothing, or not enough, over TCP and over QUIC, at a real server: those who were
//! there go on, those who come are served, memory is bounded, and what was refused is counted.
#![cfg(target_os = "linux")]

mod common;

use common::http::{self, Said, WebSocket};
use common::{Running, ends, folder};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many come.
const STRANGERS: usize = 10_000;
/// How many the server of the test takes over HTTP.
const PLACES: usize = 2_000;
/// Handshakes at once above which the server of the test asks for a proof of the address first.
const UNPROVEN: usize = 200;
/// What all of them together may cost the server, in bytes: some tens of KiB for each that has a place.
const BYTES_MAX: usize = 128 << 20;

/// As many open files as the system lets us have, for this process and those it starts; how many strangers that is enough for.
fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
    let files = limit.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let enough = files.saturating_sub(200).min(STRANGERS);
    if enough < STRANGERS {
        eprintln!(
            "ONLY {enough} of {STRANGERS} connections are tried: this machine allows {files} open files"
        );
    }
    assert!(
        enough > 2 * PLACES,
        "a flood needs more than {} open files, the hard limit is {files}",
        2 * PLACES
    );
    enough
}

/// A counter or gauge.
#[track_caller]
fn counter(metrics: &str, name: &str) -> usize {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |count| count.parse::<f64>().expect("a number") as usize)
}

const TCP_REFUSED: &str = "tidegate_refusals_total{front=\"http\",reason=\"connections\"}";
const QUIC_UNFINISHED: &str = "tidegate_refusals_total{front=\"quic\",reason=\"handshake\"}";
const QUIC_UNPROVEN: &str = "tidegate_refusals_total{front=\"quic\",reason=\"address\"}";

/// A server under flood, its WebSocket reader, and a connection that asks for its counters.
struct World {
    server: Running,
    folder: tempfile::TempDir,
    http: SocketAddr,
    quic: SocketAddr,
    reader: WebSocket,
    asking: TcpStream,
    published: u64,
    /// Records that the reader got.
    got: usize,
    /// The most memory that was seen.
    most: usize,
}

impl World {
    fn start() -> Self {
        let folder = folder();
        let config = format!(
            "[gateway]\nconnections_max = {PLACES}\nhead_timeout = \"10m\"\nping_every = \"10m\"\nidle_timeout = \"20m\"\n\
             [limits]\nvalidate_above = {UNPROVEN}\n"
        );
        std::fs::write(folder.path().join("server.toml"), config).expect("a file");
        let (server, hello) = Running::serve(folder.path(), "--config server.toml --bars 1s");
        let address = |name: &str| {
            hello[name]
                .as_str()
                .and_then(|text| text.trim_start_matches("http://").parse().ok())
                .expect("an address")
        };
        let (http, quic) = (address("http"), address("listening"));
        let mut reader = WebSocket::open(http, "").expect("everybody may read");
        let said = reader.ask(r#"{"op":"subscribe","id":1,"streams":["bars.1s"]}"#);
        assert_eq!(said["op"], "subscribed", "{said}");
        assert!(matches!(reader.next(), Said::Message(live) if live["op"] == "live"));
        let asking = TcpStream::connect(http).expect("it listens");
        Self { server, folder, http, quic, reader, asking, published: 0, got: 0, most: 0 }
    }

    fn metrics(&mut self) -> String {
        let answer = http::ask(&mut self.asking, "/metrics", "");
        assert_eq!(answer.status, 200);
        answer.text()
    }

    /// Asks for the counters until they are as they should be.
    fn until(&mut self, enough: impl Fn(&str) -> bool) -> String {
        loop {
            let metrics = self.metrics();
            if enough(&metrics) {
                return metrics;
            }
        }
    }

    /// A feed comes, sends more, is acknowledged and goes; the reader gets every record that it makes.
    fn serves(&mut self) {
        self.published += 5_000;
        let line = format!(
            "publish generate market --events 2000000 --symbols 20 --count {} --name market --server {} --data data",
            self.published, self.quic
        );
        ends(self.folder.path(), &line, 0);
        let stream = "tidegate_stream_records_total{stream=\"bars.1s\"}";
        let mut want = counter(&self.metrics(), stream);
        while self.got < want {
            match self.reader.next() {
                Said::Message(message) if message["op"] == "data" => {
                    self.got += message["records"].as_array().map_or(0, Vec::len);
                }
                said => panic!("a loss, or the end: {said:?}"),
            }
            if self.got == want {
                want = counter(&self.metrics(), stream);
            }
        }
        self.most = self.most.max(self.resident());
    }

    /// Resident memory of the server, in bytes.
    fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1_024
    }

    fn end(self) {
        assert!(self.got > 0, "the feed made nothing to lose");
        let summary: Value = serde_json::from_str(&self.server.interrupted()).expect("one JSON value");
        assert_eq!((&summary["imbalance"], &summary["dropped"]), (&0.into(), &0.into()), "{summary}");
    }
}

#[test]
fn ten_thousand_connections_that_ask_nothing() {
    let strangers = open_files();
    let mut world = World::start();
    world.serves();
    let before = world.resident();
    // The reader and whoever asks for counters have places too.
    let places = PLACES - 2;
    let connect = |at: usize| {
        let mut stream =
            TcpStream::connect(world.http).expect("connections are taken and told, not left waiting");
        if at % 2 == 1 {
            // One that was refused may have been closed already.
            let _ = stream.write_all(b"GET /v1/latest?stream=bars.1s HTTP/1.1\r\nhost: loc");
        }
        stream
    };
    let streams: Vec<TcpStream> = (0..strangers).map(connect).collect();
    let metrics = world.until(|metrics| counter(metrics, TCP_REFUSED) == strangers - places);
    assert_eq!(counter(&metrics, "tidegate_gateway_connections"), PLACES);
    // Who was refused was told so, in the order in which they came.
    for (at, mut stream) in streams.iter().enumerate().step_by(2) {
        if at < places {
            stream.set_nonblocking(true).expect("a socket");
            let waits = stream.read(&mut [0; 16]).map_err(|error| error.kind());
            assert_eq!(waits, Err(std::io::ErrorKind::WouldBlock), "the {at}th has a place");
        } else {
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("words and the end");
            assert!(text.starts_with("HTTP/1.1 503 "), "the {at}th: {text}");
        }
    }
    world.serves();
    let cost = world.most.max(world.resident()).saturating_sub(before);
    eprintln!("{strangers} TCP connections, {places} of them held: {} KiB", cost >> 10);
    assert!(cost < BYTES_MAX, "{cost} bytes");
    // With them goes what they held.
    drop(streams);
    world.until(|metrics| counter(metrics, "tidegate_gateway_connections") == 2);
    assert_eq!(http::get(world.http, "/v1/health", "").status, 200);
    world.serves();
    world.end();
}

/// Where what follows an Initial packet's first byte, version and destination says who sent it: its connection id.
fn source(packet: &[u8]) -> &[u8] {
    let at = 6 + usize::from(packet[5]);
    &packet[at + 1..][..usize::from(packet[at])]
}

/// Whom a packet with a long header is for.
fn destination(packet: &[u8]) -> &[u8] {
    &packet[6..][..usize::from(packet[5])]
}

/// Begins so many handshakes and finishes none: each says its first words and waits until the server has answered them. How many
/// were asked to prove their address.
fn begin_handshakes(server: SocketAddr, strangers: usize) -> usize {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    let mut tls =
        tls.expect("a version").with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    tls.alpn_protocols = vec![b"tidegate-feed/1".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let mut unproven = 0;
    for _ in 0..strangers {
        let now = Instant::now();
        let begun = endpoint.connect(now, config.clone(), server, "localhost");
        let (_, mut connection) = begun.expect("a connection begins");
        let mut packet = Vec::new();
        let _ = connection.poll_transmit(now, 1, &mut packet).expect("its first words");
        let mut answer = [0; 2_048];
        'sent: loop {
            socket.send_to(&packet, server).expect("it is sent");
            // What answers others who were slow to be answered is passed over; a packet that was lost is sent again.
            while let Ok(count) = socket.recv(&mut answer) {
                if count > 7 && answer[0] & 0x80 != 0 && destination(&answer) == source(&packet) {
                    break 'sent;
                }
            }
        }
        // A long header's second pair of bits is its kind; the last kind is Retry.
        unproven += usize::from(answer[0] & 0x30 == 0x30);
    }
    unproven
}

#[test]
fn ten_thousand_handshakes_that_nobody_finishes() {
    let mut world = World::start();
    world.serves();
    let (before, quic) = (world.resident(), world.quic);
    let unproven = std::thread::scope(|scope| {
        let flood = scope.spawn(move || begin_handshakes(quic, STRANGERS));
        // Feeds come and go meanwhile; they prove where they are.
        while !flood.is_finished() {
            world.serves();
        }
        flood.join().expect("a flood")
    });
    let cost = world.most.max(world.resident()).saturating_sub(before);
    eprintln!("{STRANGERS} QUIC handshakes begun, {unproven} asked for their address: {} KiB", cost >> 10);
    assert!(cost < BYTES_MAX, "{cost} bytes");
    assert!(unproven > STRANGERS / 2, "only {unproven} were asked to prove their address");
    // The others are given up in time. All are counted; a packet that was sent twice may be counted twice.
    let metrics = world.until(|metrics| counter(metrics, QUIC_UNFINISHED) + unproven >= STRANGERS);
    assert!(counter(&metrics, QUIC_UNPROVEN) >= unproven);
    world.serves();
    world.end();
}
