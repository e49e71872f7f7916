//! A live engine fed in this process, a gateway before it, and clients that speak plain sockets.
#![allow(dead_code, reason = "each test file uses its own part")]

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_actors::bars::BarSpec;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_engine::Event;
use tidegate_gateway::{Gate, Gateway, GatewayOptions, GatewayReport, Sources};
use tidegate_live::{Feed, FeedAnswer, Live, LiveOptions};
use tidegate_proto::feed::{FeedClient, FeedClientOptions};
use tidegate_proto::hub::{HubOptions, StreamMeta};
use tidegate_proto::{Frame, FrameBuffer, Grant, StreamKind};
use tidegate_replay::generate::{Market, MarketOptions};
use tidegate_replay::{Plan, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Engine, feed and gateway.
pub(crate) struct World {
    pub(crate) live: Live,
    pub(crate) address: SocketAddr,
    feed: Option<Feeder>,
    market: Market,
    fed: u64,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<GatewayReport>,
}

/// A feed's side of its session, over the handle instead of a socket.
struct Feeder {
    feed: Feed,
    answers: mpsc::Receiver<FeedAnswer>,
    client: FeedClient,
    buffer: FrameBuffer,
    named: u32,
}

impl Feeder {
    async fn new(live: &Live) -> Self {
        let (ingest, peer) = (live.ingest(), Some("192.0.2.7:4711".into()));
        let (feed, answers) = ingest.open(Grant::default(), ingest.buffer(), peer).await.unwrap();
        let options =
            FeedClientOptions { source_id: 7, session: 1, name: "market".into(), ..Default::default() };
        let mut client = FeedClient::new(options);
        client.connected(live.hub().clock().now());
        Self { feed, answers, client, buffer: FrameBuffer::new(4), named: 0 }
    }

    async fn send(&mut self, live: &Live) {
        let mut out = Vec::new();
        self.client.transmit(live.hub().clock().now(), 1 << 20, &mut out).unwrap();
        let mut rest = &out[..];
        while !rest.is_empty() {
            let space = self.feed.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            self.feed.filled(count).await.unwrap();
        }
    }

    async fn settle(&mut self, live: &Live) {
        while !(self.client.is_up() && self.client.is_settled()) {
            self.send(live).await;
            if self.client.is_up() && self.client.is_settled() {
                break;
            }
            let Some(FeedAnswer::Frames(bytes)) = self.answers.recv().await else {
                panic!("the feed was closed")
            };
            assert_eq!(self.buffer.push(&bytes), bytes.len());
            while let Some((offset, head, body)) = self.buffer.next_frame().unwrap() {
                let frame = Frame::read(offset, &head, body).unwrap();
                self.client.handle(live.hub().clock().now(), offset, &frame).unwrap();
            }
        }
    }
}

/// Streams: bars of a second and a minute, and indicators on both.
pub(crate) fn plan() -> Plan {
    let bars = |text: &str| text.parse::<BarSpec>().unwrap();
    let indicator = |text: &str| text.parse::<IndicatorSpec>().unwrap();
    Plan {
        bars: vec![bars("1s").into(), bars("1m").into()],
        indicators: vec![indicator("sma:5"), indicator("rsi:14")],
        ..Plan::default()
    }
}

impl World {
    pub(crate) async fn start(options: GatewayOptions) -> Self {
        Self::with(options, HubOptions::default()).await
    }

    /// A gateway that asks who is there.
    pub(crate) async fn start_behind(gate: Option<Arc<Gate>>, options: GatewayOptions) -> Self {
        Self::made(gate, options, HubOptions::default()).await
    }

    pub(crate) async fn with(options: GatewayOptions, hub: HubOptions) -> Self {
        Self::made(None, options, hub).await
    }

    async fn made(gate: Option<Arc<Gate>>, options: GatewayOptions, hub: HubOptions) -> Self {
        let plan = plan();
        let streams = plan.streams().unwrap();
        let metas = streams.iter().map(|stream| StreamMeta {
            name: stream.name.clone(),
            kind: match stream.kind {
                tidegate_replay::StreamKind::Bars | tidegate_replay::StreamKind::MeasureBars => {
                    StreamKind::Bars
                }
                tidegate_replay::StreamKind::Indicators => StreamKind::Values,
                tidegate_replay::StreamKind::Hosts => StreamKind::Hosts,
            },
            columns: stream.columns.clone(),
        });
        let live_options = LiveOptions { disorder_ns: 1_000_000_000, hub, ..LiveOptions::default() };
        let stages = Arc::new(move || plan.stages().unwrap());
        let live = Live::start(stages, metas.collect(), live_options).unwrap();
        let sources = Sources { gate, ..Sources::of(&live) };
        let options = GatewayOptions { listen: ([127, 0, 0, 1], 0).into(), ..options };
        let gateway = Gateway::bind(options, sources).await.unwrap();
        let address = gateway.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(gateway.serve(async { drop(stopped.await) }));
        let market = MarketOptions {
            events: 4_000_000,
            symbols: 40,
            // Slow enough that most trades are a bar of their own.
            session_ns: 93_600_000_000_000,
            ..MarketOptions::default()
        };
        let feed = Some(Feeder::new(&live).await);
        Self { live, address, feed, market: Market::new(market), fed: 0, stop, serving }
    }

    /// Feeds so many more events of the market, and waits until their results can be asked for.
    pub(crate) async fn feed(&mut self, count: usize) {
        let mut events: Vec<Event> = Vec::new();
        while events.len() < count {
            let missing = count - events.len();
            assert!(self.market.read(&mut events, missing).unwrap() > 0);
        }
        let feeder = self.feed.as_mut().unwrap();
        while let Some(name) = self.market.names().name(feeder.named) {
            feeder.client.define(name).unwrap();
            feeder.named += 1;
        }
        self.fed += events.len() as u64;
        let mut rest = &events[..];
        while !rest.is_empty() {
            let taken = feeder.client.offer(rest);
            rest = &rest[taken..];
            feeder.settle(&self.live).await;
        }
        self.settled().await;
    }

    /// Records published in a stream.
    pub(crate) async fn published(&self, stream: u16) -> u64 {
        self.live.hub().ask(move |hub, _| hub.stream_stats(stream).unwrap().published).await.unwrap()
    }

    /// Readers of the hub.
    pub(crate) async fn subscribers(&self) -> u64 {
        self.live.hub().ask(|hub, _| hub.stats().subscribers).await.unwrap()
    }

    /// Waits until everything in the log has become results, and all of them are in the hub.
    async fn settled(&self) {
        let turns = |stats: &[tidegate_actors::runtime::ShardStats]| {
            stats.iter().map(|shard| shard.turns_idle).sum::<u64>()
        };
        let mut idle_since = None;
        loop {
            let stats = self.live.stats().stats();
            let streams = self.live.hub().catalogue().streams.len() as u16;
            let mut published = 0;
            for stream in 0..streams {
                published += self.published(stream).await;
            }
            let waiting: u64 = stats.iter().map(|shard| shard.ring_depth).sum();
            let outputs: u64 = stats.iter().map(|shard| shard.outputs).sum();
            if waiting == 0 && outputs == published {
                // A turn that found nothing after the last event was taken: all of it has been applied.
                if turns(&stats) > *idle_since.get_or_insert(turns(&stats)) + 1 {
                    return;
                }
            } else {
                idle_since = None;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        request(
            self.address,
            &format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address),
        )
        .await
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(crate) async fn websocket(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Ends the gateway and then the engine.
    pub(crate) async fn finish(self) -> (GatewayReport, tidegate_live::LiveReport) {
        let Self { live, feed, stop, serving, .. } = self;
        drop(feed);
        stop.send(()).unwrap();
        let report = serving.await.unwrap();
        let live = tokio::task::spawn_blocking(move || live.finish()).await.unwrap().unwrap();
        (report, live)
    }
}

/// An answer, as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|line| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name)))?;
        Some(line.split_once(':')?.1.trim())
    }
}

/// Writes a request and reads until the server closes.
pub(crate) async fn request(address: SocketAddr, text: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes[end + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body }
}

pub(crate) fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line = bytes.windows(2).position(|at| at == b"\r\n").expect("a chunk");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return out;
        }
        out.extend_from_slice(&bytes[line + 2..line + 2 + length]);
        bytes = &bytes[line + 4 + length..];
    }
}

/// A WebSocket client.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/v1/ws");
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message of the server's; what is no text is passed over.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match self.socket.next().await.expect("a message").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(close) => panic!("closed: {close:?}"),
                _ => {}
            }
        }
    }

    pub(crate) async fn ask(&mut self, text: &str) -> Value {
        self.send(text).await;
        self.next().await
    }

    /// Records of a subscription until `enough`, and what was said beside them.
    pub(crate) async fn records(
        &mut self,
        id: u64,
        mut enough: impl FnMut(&[Value], &[Value]) -> bool,
    ) -> (Vec<Value>, Vec<Value>) {
        let (mut records, mut others) = (Vec::new(), Vec::new());
        while !enough(&records, &others) {
            let mut message = self.next().await;
            assert_eq!(message["id"], id, "{message}");
            match message["records"].take() {
                Value::Array(more) => records.extend(more),
                _ => others.push(message),
            }
        }
        (records, others)
    }

    /// The code with which the server closes.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.socket.next().await.expect("a close") {
                Ok(Message::Close(Some(close))) => return close.code.into(),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
