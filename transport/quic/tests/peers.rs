//! Peers good and bad against a real server on loopback.

mod common;

use common::closed;
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::BarSpec;
use tidegate_actors::bars::BarOptions;
use tidegate_engine::snapshot::SnapshotError;
use tidegate_engine::{Context, Emit, Event, Ledger, Operator, Price, Size, Stage};
use tidegate_live::{Live, LiveOptions, Network, Threads};
use tidegate_proto::feed::FeedServerOptions;
use tidegate_proto::hub::{HubOptions, StreamMeta};
use tidegate_proto::subscription::{LagPolicy, Start, Subscription};
use tidegate_proto::{CloseCode, StreamKind};
use tidegate_quic::tls::Identity;
use tidegate_quic::{
    Arrival, ClientError, ClientOptions, Limits, Publisher, PublisherOptions, QuicServer, Subscriber, Trust,
    Update,
};

struct Server {
    live: Live,
    quic: QuicServer,
    client: ClientOptions,
    _network: Network,
    _data: tempfile::TempDir,
}

/// Each peer meets both layouts of threads.
macro_rules! both {
    ($name:ident) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn separate() {
                super::$name(tidegate_live::Threads::Separate).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn fused() {
                super::$name(tidegate_live::Threads::Fused).await;
            }
        }
    };
}

fn start(threads: Threads, options: LiveOptions, limits: Limits) -> Server {
    let spec: BarSpec = "1s".parse().unwrap();
    start_with(threads, options, limits, move || spec.operator(BarOptions::default()))
}

fn start_with(
    threads: Threads,
    options: LiveOptions,
    limits: Limits,
    operator: impl Fn() -> Box<dyn Operator> + Send + Sync + 'static,
) -> Server {
    let data = tempfile::tempdir().unwrap();
    let (identity, _) = Identity::of_data(data.path()).unwrap();
    let stages = Arc::new(move || vec![Stage::new("bars.1s", 0, operator())]);
    let streams = vec![StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: vec![] }];
    let network = Network::start(threads, &options.runtime).unwrap();
    let live = network.live(stages, streams, options).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let _on = network.handle().enter();
    let quic = QuicServer::start(any, identity, limits, live.ingest(), live.hub()).unwrap();
    let client = ClientOptions::new(quic.address(), Trust::of_data(data.path()).unwrap());
    Server { live, quic, client, _network: network, _data: data }
}

impl Server {
    /// Ends in order and checks that all adds up.
    async fn end(self) -> tidegate_live::LiveReport {
        self.quic.refuse_new();
        let report = tokio::task::spawn_blocking(|| self.live.finish()).await.unwrap().unwrap();
        self.quic.close().await;
        assert_eq!(report.imbalance(), 0);
        report
    }
}

fn trades(count: u64) -> Vec<Event> {
    (0..count)
        .map(|at| Event::trade(at * 50_000_000, (at % 3) as u32, 9, Price(1_000 + at as i64), Size(5), 0))
        .collect()
}

async fn publisher(server: &Server, source_id: u64) -> Publisher {
    let options = PublisherOptions { source_id, ..PublisherOptions::default() };
    let publisher = Publisher::connect(server.client.clone(), options).await.unwrap();
    for name in ["A", "B", "C"] {
        publisher.define(name).unwrap();
    }
    publisher
}

both!(records_come_in_order_and_the_end_is_told);

async fn records_come_in_order_and_the_end_is_told(threads: Threads) {
    let server = start(threads, LiveOptions::default(), Limits::default());
    let mut subscriber =
        Subscriber::connect(server.client.clone(), "test", Subscription::to(["bars.1s"])).await.unwrap();
    // The edge first: from here on nothing is missed.
    assert!(matches!(subscriber.next().await.unwrap(), Some(Update::Live(_))));
    let mut in_place =
        Subscriber::connect(server.client.clone(), "test", Subscription::to(["bars.1s"])).await.unwrap();
    assert!(matches!(in_place.next().await.unwrap(), Some(Update::Live(_))));
    let shown = tokio::spawn(async move {
        let (mut records, mut ended) = (Vec::new(), None);
        let mut show = |arrival: Arrival<'_>| match arrival {
            Arrival::Record { name, stream, output, past } => {
                assert!(!past && stream.name == "bars.1s" && ended.is_none());
                records.push((name.to_owned(), output.sequence));
            }
            Arrival::Other(Update::Ended(close)) => ended = Some(close.code),
            Arrival::Other(other) => panic!("{other:?}"),
        };
        while in_place.read(&mut show).await.unwrap() {}
        assert_eq!(ended, Some(CloseCode::SHUTTING_DOWN));
        records
    });
    let publisher = publisher(&server, 1).await;
    publisher.send(&trades(10_000)).await.unwrap();
    let stats = publisher.finish().await.unwrap();
    assert_eq!((stats.acked, stats.unacked, stats.connections), (10_000, 0, 1));
    let reading = tokio::spawn(async move {
        let (mut records, mut last) = (Vec::new(), std::collections::HashMap::new());
        loop {
            match subscriber.next().await.unwrap() {
                Some(Update::Record { name, output, .. }) => {
                    records.push((name.to_string(), output.sequence));
                    let last = last.entry(name).or_insert(0);
                    assert_eq!(output.sequence, *last + 1, "one key a slot here, so no number is left out");
                    *last = output.sequence;
                }
                Some(Update::Ended(close)) => {
                    assert_eq!(close.code, CloseCode::SHUTTING_DOWN);
                    return records;
                }
                Some(other) => panic!("{other:?}"),
                None => panic!("an end without a word"),
            }
        }
    });
    let report = server.end().await;
    // 500 s of trades, three names, every second each.
    let records = reading.await.unwrap();
    assert_eq!(records.len(), 1_500);
    assert_eq!(shown.await.unwrap(), records);
    assert_eq!(report.hub.delivered, 3_000);
}

both!(the_newest_connection_of_a_source_wins);

async fn the_newest_connection_of_a_source_wins(threads: Threads) {
    let server = start(threads, LiveOptions::default(), Limits::default());
    let first = publisher(&server, 7).await;
    first.send(&trades(100)).await.unwrap();
    first.settle().await.unwrap();
    let second = publisher(&server, 7).await;
    let other = publisher(&server, 8).await;
    // The old one is told, whatever it does next.
    let error = loop {
        match first.send(&trades(1)).await {
            Ok(()) => match first.settle().await {
                Ok(()) => {}
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ClientError::Closed(close) if close.code == CloseCode::SUPERSEDED), "{error}");
    second.send(&trades(150)).await.unwrap();
    let stats = second.finish().await.unwrap();
    assert!(stats.skipped >= 100, "what the first one sent is there: {stats:?}");
    other.send(&trades(10)).await.unwrap();
    other.finish().await.unwrap();
    let report = server.end().await;
    let sources = &report.ingest.stats.sources;
    assert_eq!((sources.len(), sources[0].connections, sources[1].ledger.accepted), (2, 2, 10));
}

both!(a_reader_that_never_reads_hurts_only_itself);

async fn a_reader_that_never_reads_hurts_only_itself(threads: Threads) {
    let hub = HubOptions { ring_records: 512, ..HubOptions::default() };
    let server = start(threads, LiveOptions { hub, ..LiveOptions::default() }, Limits::default());
    // Small windows, so that its connection is full soon.
    let limits = Limits { receive_window: 64 << 10, stream_receive_window: 64 << 10, ..Limits::default() };
    let slow = ClientOptions { limits, ..server.client.clone() };
    let spec = Subscription { policy: LagPolicy::Disconnect, ..Subscription::to(["bars.1s"]) };
    let mut lazy = Subscriber::connect(slow, "lazy", spec).await.unwrap();
    let mut busy =
        Subscriber::connect(server.client.clone(), "busy", Subscription::to(["bars.1s"])).await.unwrap();
    assert!(matches!(busy.next().await.unwrap(), Some(Update::Live(_))));
    let reading = tokio::spawn(async move {
        let (mut records, mut lost) = (0, 0);
        while let Some(update) = busy.next().await.unwrap() {
            match update {
                Update::Record { .. } => records += 1,
                Update::Loss(loss) => lost += loss.count,
                Update::Ended(_) => break,
                other => panic!("{other:?}"),
            }
        }
        records + lost
    });
    let publisher = publisher(&server, 1).await;
    publisher.send(&trades(1_000_000)).await.unwrap();
    publisher.finish().await.unwrap();
    let close = loop {
        match lazy.next().await.unwrap() {
            Some(Update::Ended(close)) => break close,
            Some(_) => {}
            None => panic!("an end without a word"),
        }
    };
    assert_eq!(close.code, CloseCode::LAG, "{close}");
    server.end().await;
    assert_eq!(reading.await.unwrap(), 150_000, "the other one has every record, or its exact count");
}

both!(strangers_are_told_what_is_wrong_and_nobody_else_notices);

async fn strangers_are_told_what_is_wrong_and_nobody_else_notices(threads: Threads) {
    let feed = FeedServerOptions { hello_ns: 200_000_000, ..FeedServerOptions::default() };
    let server = start(threads, LiveOptions { feed, ..LiveOptions::default() }, Limits::default());
    let good = publisher(&server, 1).await;
    let link = |alpn: &'static [u8]| raw(&server, alpn);

    // Another protocol.
    let (connection, mut send, mut receive) = link(tidegate_proto::ALPN_FEED).await;
    send.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (code, reason) = closed(&mut receive).await;
    assert_eq!(code, CloseCode::PROTOCOL);
    assert!(reason.contains("at byte 0: 0x47"), "{reason}");
    drop(connection);

    // A stream of a length that would fill the memory.
    let (_connection, mut send, mut receive) = link(tidegate_proto::ALPN_SUBSCRIBE).await;
    send.write_all(b"TGP1\x01\x20\0\0\xff\xff\xff\xff\0\0\0\0").await.unwrap();
    let (code, reason) = closed(&mut receive).await;
    assert_eq!(code, CloseCode::PROTOCOL);
    assert!(reason.contains("a Subscribe body of 4294967295 bytes, allowed are 40 to 65552"), "{reason}");

    // One that connects and opens nothing, one that opens and says nothing, one that says half a word.
    let (connection, ..) = link(tidegate_proto::ALPN_FEED).await;
    let (_silent, mut send, mut receive) = link(tidegate_proto::ALPN_FEED).await;
    send.write_all(b"TGP1\x01").await.unwrap();
    assert_eq!(closed(&mut receive).await.0, CloseCode::SILENT);
    connection.closed().await;
    let (_silent, mut send, mut receive) = link(tidegate_proto::ALPN_SUBSCRIBE).await;
    send.write_all(b"T").await.unwrap();
    assert_eq!(closed(&mut receive).await.0, CloseCode::SILENT);

    // A plane that does not exist is refused in the handshake.
    let error = server_connect(&server, b"tidegate-other/1").await.err().unwrap();
    assert!(error.contains("any known protocol"), "{error}");

    // An event no feed may send: refused with its number, and what came before is kept.
    let bad = publisher(&server, 2).await;
    bad.send(&trades(5)).await.unwrap();
    bad.settle().await.unwrap();
    bad.send(&[Event { kind: 200, ..Event::default() }]).await.unwrap();
    let error = bad.settle().await.unwrap_err();
    assert!(error.to_string().contains("event 6 is of kind 200, allowed are 1 to 7, 133 and 136"), "{error}");
    let unnamed = publisher(&server, 3).await;
    unnamed.send(&[Event { key: 3, ..trades(1)[0] }]).await.unwrap();
    let error = unnamed.settle().await.unwrap_err();
    assert!(error.to_string().contains("event 1 has key 3, 3 are defined"), "{error}");

    good.send(&trades(1_000)).await.unwrap();
    assert_eq!(good.finish().await.unwrap().acked, 1_000);
    let report = server.end().await;
    let sources = &report.ingest.stats.sources;
    assert_eq!(sources.iter().map(|source| source.ledger.accepted).sum::<u64>(), 1_005);
    assert_eq!(sources.iter().map(|source| source.ledger.refused).sum::<u64>(), 2);
}

/// An operator that cannot bear one size.
struct Trap(Box<dyn Operator>);

const SPRING: u64 = 77;

impl Operator for Trap {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        assert!(!events.iter().any(|event| event.payload[1] == SPRING), "sprung");
        self.0.on_events(context, events, out);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        self.0.on_watermark(context, out);
    }

    fn ledger(&self) -> Ledger {
        self.0.ledger()
    }

    fn save(&self, snapshot: &mut Vec<u8>) {
        self.0.save(snapshot);
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.0.restore(snapshot)
    }
}

both!(an_operator_that_panics_takes_nobody_along);

async fn an_operator_that_panics_takes_nobody_along(threads: Threads) {
    let spec: BarSpec = "1s".parse().unwrap();
    let trap = move || Box::new(Trap(spec.operator(BarOptions::default()))) as Box<dyn Operator>;
    let server = start_with(threads, LiveOptions::default(), Limits::default(), trap);
    let publisher = publisher(&server, 1).await;
    publisher.send(&trades(1_000)).await.unwrap();
    // Applied, not only logged: what is in one turn with the spring would be lost with it.
    while server.live.stats().stats()[0].events < 1_000 {
        tokio::task::yield_now().await;
    }
    publisher.send(&[Event { payload: [1_000, SPRING], ..trades(1_001)[1_000] }]).await.unwrap();
    // Far more than the rings hold: the feed goes on, its events are counted, and the hub answers.
    for part in trades(200_000)[1_001..].chunks(10_000) {
        publisher.send(part).await.unwrap();
    }
    publisher.settle().await.unwrap();
    let latest = server.live.hub().ask(|hub, _| hub.latest(0, "A").is_some()).await.unwrap();
    assert!(latest, "what was computed before is still served");
    assert_eq!(publisher.finish().await.unwrap().acked, 200_000);
    let report = server.end().await;
    assert_eq!((report.runtime.panics, report.runtime.events), (1, 200_000));
    assert!(report.runtime.quarantined >= 200_000 - 1_000, "{}", report.runtime.quarantined);
    assert!(report.runtime.failures[0].1.contains("sprung"));
}

both!(beyond_the_limit_connections_are_refused);

async fn beyond_the_limit_connections_are_refused(threads: Threads) {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let server = start(threads, LiveOptions::default(), limits);
    let (first, _second) = (publisher(&server, 1).await, publisher(&server, 2).await);
    let client = ClientOptions { give_up_after: Duration::from_millis(50), ..server.client.clone() };
    let error = Publisher::connect(client, PublisherOptions::default()).await.err().unwrap();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    first.send(&trades(10)).await.unwrap();
    first.settle().await.unwrap();
    assert!(server.quic.stats().refused >= 1);
    drop(first);
    server.end().await;
}

both!(a_past_that_is_asked_for_meets_what_follows);

async fn a_past_that_is_asked_for_meets_what_follows(threads: Threads) {
    let server = start(threads, LiveOptions::default(), Limits::default());
    let publisher = publisher(&server, 1).await;
    publisher.send(&trades(6_000)).await.unwrap();
    publisher.settle().await.unwrap();
    let start = Start::Sequence { default: 1, slots: Vec::new() };
    let spec = Subscription { start, ..Subscription::to(["bars.1s"]) };
    let mut subscriber = Subscriber::connect(server.client.clone(), "test", spec).await.unwrap();
    let later: Vec<Event> = trades(9_000).split_off(6_000);
    publisher.send(&later).await.unwrap();
    publisher.finish().await.unwrap();
    let reading = tokio::spawn(async move {
        let mut seen = std::collections::HashMap::new();
        while let Some(update) = subscriber.next().await.unwrap() {
            if let Update::Record { name, output, .. } = update {
                let last = seen.entry(name).or_insert(0);
                assert_eq!(output.sequence, *last + 1);
                *last += 1;
            }
        }
        seen.values().sum::<u64>()
    });
    server.end().await;
    assert_eq!(reading.await.unwrap(), 3 * 450);
}

/// Whoever would wait an hour for silence to end is told by the next server that its connection is gone.
#[test]
fn peers_of_a_crashed_server_learn_of_it_from_the_next() {
    let data = tempfile::tempdir().unwrap();
    let serve = |address: std::net::SocketAddr, incarnation| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (identity, _) = Identity::of_data(data.path()).unwrap();
        let spec: BarSpec = "1s".parse().unwrap();
        let stages = Arc::new(move || vec![Stage::new("bars.1s", 0, spec.operator(BarOptions::default()))]);
        let streams = vec![StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: vec![] }];
        let feed = FeedServerOptions { incarnation, ..FeedServerOptions::default() };
        let live = Live::start(stages, streams, LiveOptions { feed, ..LiveOptions::default() }).unwrap();
        let quic = runtime
            .block_on(async {
                QuicServer::start(address, identity, Limits::default(), live.ingest(), live.hub())
            })
            .unwrap();
        (runtime, quic, live)
    };
    let (runtime, quic, live) = serve("127.0.0.1:0".parse().unwrap(), 1);
    let address = quic.address();
    let limits = Limits {
        idle_timeout: Duration::from_secs(3_600),
        keep_alive: Some(Duration::from_millis(10)),
        ..Limits::default()
    };
    let client =
        ClientOptions { limits, ..ClientOptions::new(address, Trust::of_data(data.path()).unwrap()) };
    tokio::runtime::Runtime::new().unwrap().block_on(async move {
        let publisher = Publisher::connect(client, PublisherOptions::default()).await.unwrap();
        for name in ["A", "B", "C"] {
            publisher.define(name).unwrap();
        }
        publisher.send(&trades(100)).await.unwrap();
        publisher.settle().await.unwrap();
        // Its tasks die where they stand, and with them its socket: nobody says a word.
        runtime.shutdown_background();
        drop(quic);
        let (runtime, quic, next) = tokio::task::block_in_place(|| serve(address, 2));
        publisher.send(&trades(150)[100..]).await.unwrap();
        let stats = publisher.finish().await.unwrap();
        assert_eq!((stats.connections, stats.lost_by_server, stats.acked), (2, 100, 150), "{stats:?}");
        quic.refuse_new();
        let report = tokio::task::spawn_blocking(|| next.finish()).await.unwrap().unwrap();
        let ledger = report.ingest.stats.sources[0].ledger;
        assert_eq!((ledger.declared_lost, ledger.accepted, ledger.duplicate), (100, 50, 0));
        assert_eq!(report.imbalance(), 0);
        runtime.shutdown_background();
        let old = tokio::task::spawn_blocking(|| live.finish()).await.unwrap().unwrap();
        assert_eq!(old.ingest.stats.sources[0].ledger.accepted, 100);
    });
}

/// A connection below the client library.
async fn server_connect(server: &Server, alpn: &[u8]) -> Result<quinn::Connection, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(server._data.path().join("tls/dev-cert.pem")).unwrap();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(quic));
    let connecting = endpoint.connect_with(config, server.quic.address(), "localhost").unwrap();
    connecting.await.map_err(|error| error.to_string())
}

async fn raw(server: &Server, alpn: &[u8]) -> (quinn::Connection, quinn::SendStream, quinn::RecvStream) {
    let connection = server_connect(server, alpn).await.unwrap();
    let (send, receive) = connection.open_bi().await.unwrap();
    (connection, send, receive)
}
