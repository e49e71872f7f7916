//! Every section and key, each declared once: name, type, default, range, meaning.

use crate::derived::{Horizon, Level, Share, Shows, Sweep, TailSpec};
use crate::problem::Reader;
use crate::value::{Bytes, Field, Key, Kind, Node, Off, Section, SectionInfo, Span};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tidegate_actors::anomaly::AnomalySpec;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_actors::regime::RegimeSpec;
use tidegate_actors::runtime::{IdleStrategy, Placement, Threads};
use tidegate_actors::{LatePolicy, WindowSpec};
use tidegate_engine::WindowWidth;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// `127.0.0.1` with a port.
const fn here(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn span(min: u64, max: u64) -> Kind {
    Kind::Span { min, max }
}

fn words(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// A section: a struct, its defaults, and what is known of each key. `live` marks what a reload applies.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr, $kind:expr $(, $live:ident)?; )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $key: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl Section for $name {
            fn about() -> String {
                words(&[$($about),*])
            }

            fn keys() -> Vec<Key> {
                let defaults = Self::default();
                vec![$( Key {
                    name: stringify!($key),
                    about: words(&[$($doc),*]),
                    kind: const { $kind },
                    default: Field::show(&defaults.$key),
                    reloads: false $(|| stringify!($live) == "live")?,
                } ),*]
            }

            fn read(&mut self, key: &'static str, node: &Node<'_>, reader: &mut Reader<'_>) {
                match key {
                    $( stringify!($key) => if let Some(value) = Field::read(node, &const { $kind }, reader) {
                        self.$key = value;
                    } )*
                    _ => {}
                }
            }

            fn adopt(&mut self, key: &str, other: &Self) {
                match key {
                    $( stringify!($key) => self.$key = other.$key.clone(), )*
                    _ => {}
                }
            }

            fn show(&self, key: &str) -> Option<String> {
                match key {
                    $( stringify!($key) => Field::show(&self.$key), )*
                    _ => None,
                }
            }
        }
    };
}

/// The whole configuration: what each section is called, and as what it is kept.
macro_rules! config {
    (once { $( $one:ident: $single:ty = $name:literal; )* } many { $( $some:ident: $item:ty = $names:literal; )* }) => {
        /// A whole configuration. [`Default`] is what an empty file means.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $( #[doc = concat!("`[", $name, "]`")] pub $one: $single, )*
            $( #[doc = concat!("`[[", $names, "]]`")] pub $some: Vec<$item>, )*
        }

        impl Config {
            /// What can be configured.
            #[must_use]
            pub fn sections() -> Vec<SectionInfo> {
                vec![
                    $( SectionInfo { name: $name, about: <$single>::about(), repeats: false, keys: <$single>::keys() }, )*
                    $( SectionInfo { name: $names, about: <$item>::about(), repeats: true, keys: <$item>::keys() }, )*
                ]
            }

            /// How often a repeating section is there.
            #[must_use]
            pub fn repeated(&self, section: &str) -> usize {
                match section {
                    $( $names => self.$some.len(), )*
                    _ => 0,
                }
            }

            /// A value as it would be written, of the section's `index`-th repetition if it repeats; `None` when nothing stands
            /// there.
            #[must_use]
            pub fn show(&self, section: &str, index: usize, key: &str) -> Option<String> {
                match section {
                    $( $name => self.$one.show(key), )*
                    $( $names => self.$some.get(index)?.show(key), )*
                    _ => None,
                }
            }

            /// Takes one value of a section, or all repetitions of one that repeats, from another configuration.
            pub(crate) fn adopt(&mut self, section: &str, key: &str, other: &Self) {
                match section {
                    $( $name => self.$one.adopt(key, &other.$one), )*
                    $( $names => self.$some.clone_from(&other.$some), )*
                    _ => {}
                }
            }

            pub(crate) fn read(&mut self, section: &str, key: &'static str, node: &Node<'_>, reader: &mut Reader<'_>) {
                match section {
                    $( $name => self.$one.read(key, node, reader), )*
                    $( $names => if let Some(item) = self.$some.last_mut() { item.read(key, node, reader) }, )*
                    _ => {}
                }
            }

            /// One more of a repeating section.
            pub(crate) fn push(&mut self, section: &str) {
                match section {
                    $( $names => self.$some.push(<$item>::default()), )*
                    _ => {}
                }
            }
        }
    };
}

config! {
    once {
        listen: Listen = "listen";
        data: Data = "data";
        journal: Journal = "journal";
        cluster: Cluster = "cluster";
        engine: Engine = "engine";
        bars: Bars = "bars";
        feed: Feed = "feed";
        subscribers: Subscribers = "subscribers";
        limits: Limits = "limits";
        gateway: Gateway = "gateway";
        tls: Tls = "tls";
        auth: Auth = "auth";
        quotas: Quotas = "quotas";
        traffic: Traffic = "traffic";
        alerts: Alerts = "alerts";
    }
    many {
        stream: Stream = "stream";
        surface: Surface = "surface";
        spectrum: Spectrum = "spectrum";
        risk: Risk = "risk";
        auth_rule: AuthRule = "auth.rule";
    }
}

section! {
    /// Where the server listens.
    Listen {
        /// Address for feeds and subscribers (QUIC, UDP); port 0 takes a free one.
        quic: SocketAddr = here(7443), Kind::Address;
        /// Address for browsers and scripts (HTTP, WebSocket); port 0 takes a free one.
        http: Off<SocketAddr> = Off::On(here(8080)), Kind::Off(&Kind::Address);
    }
}

section! {
    /// What is kept on disk.
    Data {
        /// The folder for certificates, made on first use. Clients on this machine find the server's certificate there. Left out,
        /// it is the user's own: `$XDG_DATA_HOME/tidegate` or `~/.local/share/tidegate`.
        folder: Option<PathBuf> = None, Kind::Path;
    }
}

section! {
    /// What is accepted, on disk: the server goes on from it after a restart, and feeds may ask for acks `durable`.
    Journal {
        /// Whether there is one, in the folder `journal` of the data folder.
        enabled: bool = false, Kind::Switch;
        /// How often it is brought to the disk; 0s is with every turn that wrote something, off when the system likes, and then
        /// nothing is acknowledged as durable.
        sync: Off<Span> = Off::On(Span(MS)), Kind::Off(&span(0, 60 * SECOND));
        /// Bytes of its segments, set aside one by one. What is removed is removed segment by segment.
        segment_bytes: Bytes = Bytes(64 * MIB), bytes(64 * KIB, 4 * GIB);
        /// A snapshot of the state each time so much time has passed in which something was accepted: a start then reads only the
        /// journal behind it. With this and the two below off there are none.
        snapshot_every: Off<Span> = Off::On(Span(300 * SECOND)), Kind::Off(&span(100 * MS, 7 * DAY));
        /// A snapshot each time so many bytes were accepted, whichever comes first.
        snapshot_bytes: Off<Bytes> = Off::On(Bytes(256 * MIB)), Kind::Off(&bytes(64 * KIB, 1_024 * GIB));
        /// A snapshot each time so many records were accepted, whichever comes first.
        snapshot_records: Off<u64> = Off::Off, Kind::Off(&count(1, 1 << 48));
        /// Snapshots kept, the newest.
        snapshots_kept: usize = 2, count(1, 64);
        /// Segments that no kept snapshot needs are removed while there are more bytes than this. Takes at least two snapshots.
        keep_bytes: Off<Bytes> = Off::Off, Kind::Off(&bytes(MIB, 1 << 50));
        /// Segments that no kept snapshot needs are removed once their newest record is older than this.
        keep_age: Off<Span> = Off::Off, Kind::Off(&span(SECOND, 3_660 * DAY));
        /// Brokers of Apache Kafka, `HOST:PORT,HOST:PORT`: the log is in a topic there in place of segments, and acks `durable` mean that
        /// Kafka has it. Snapshots stay in the folder. For programs built with `--features kafka`.
        kafka: Option<String> = None, Kind::Text(1_024, "kafka-1:9092,kafka-2:9092");
        /// The topic, this server's alone, with one partition. What of it goes is up to its own retention.
        kafka_topic: Option<String> = None, Kind::Text(249, "tidegate.log");
        /// Further settings of the client, `NAME=VALUE` as librdkafka names them.
        kafka_client: Vec<String> = Vec::new(), Kind::List(&Kind::Text(1_024, "client.rack=a"), 64);
        /// How long brokers may take to answer until the log counts as out of reach.
        kafka_patience: Span = Span(10 * SECOND), span(SECOND, 60 * SECOND);
    }
}

section! {
    /// The cluster that the server is a node of. Left out, it holds its log alone.
    Cluster {
        /// The node's folder, as `tidegate cluster init` makes it. The address for feeds and subscribers comes from there, so `listen.quic`
        /// has no meaning beside it, and so does the certificate unless `[tls]` names another one. Not together with a journal.
        folder: Option<PathBuf> = None, Kind::Path;
    }
}

section! {
    /// The threads that compute, and how events of many feeds become one log.
    Engine {
        /// Threads that compute. Results do not depend on it.
        shards: u32 = 1, count(1, 256);
        /// Where indicators run: on the shard's thread (fused) or on one of their own (staged). Results do not depend on it.
        placement: Placement = Placement::Fused, Kind::Choice(&["fused", "staged"]);
        /// How the work is spread: sockets, feeds, shards and readers all on one thread (fused), on threads of their own (separate), or
        /// fused on a machine of at most two cores unless more shards or staged indicators are asked for (auto). Results do not
        /// depend on it.
        threads: Threads = Threads::Auto, Kind::Choice(&["auto", "fused", "separate"]);
        /// How threads wait for work: spin burns a core each for the shortest reaction, adaptive spins, then sleeps.
        idle: IdleStrategy = IdleStrategy::Adaptive, Kind::Choice(&["adaptive", "spin", "yield", "park"]);
        /// Ties each thread to a core, in turn over those the process may use.
        pin: bool = false, Kind::Switch;
        /// Places of each ring of events between threads, 32 bytes each.
        ring_events: usize = 32_768, count(64, 1 << 20);
        /// Most events a shard takes at once.
        batch_max: usize = 1_024, count(1, 1 << 16);
        /// How far behind a source's newest event one may come and still be on time.
        disorder: Span = Span(0), span(0, DAY);
        /// A stamp that leaps ahead by more is held back until others confirm it, so that one wrong clock cannot make everything
        /// after it late.
        fence: Off<Span> = Off::On(Span(DAY)), Kind::Off(&span(SECOND, 366 * DAY));
        /// Stamps beyond the fence that confirm each other before the leap is believed.
        fence_confirm: usize = 8, count(1, 1_024);
        /// How long after a source left without a word it stops holding the windows of others open.
        idle_after: Span = Span(10 * SECOND), span(100 * MS, DAY);
        /// Names (symbols, hosts) of all sources together, before further ones share one counted overflow name.
        names_max: usize = 1_000_000, count(1, 1 << 26);
    }
}

section! {
    /// What bars do with late trades and keep for amendments, unless a stream says otherwise.
    Bars {
        /// What a trade does whose bar has closed: amend the bar, stand beside it in the stream (side), or be dropped. Each is
        /// counted.
        late: LatePolicy = LatePolicy::Amend, Kind::Choice(&["amend", "side", "drop"]), live;
        /// How long after its end, in event time, a bar can still be amended.
        horizon: Span = Span(10 * SECOND), span(0, 366 * DAY), live;
        /// Keeps trades, so that cancels and corrections can rebuild a bar. Without it they are counted as unmatched, and bars are
        /// faster.
        history: bool = true, Kind::Switch, live;
        /// How long, in event time, bars by trades, volume or value keep trades for that.
        history_span: Span = Span(600 * SECOND), span(0, 366 * DAY), live;
        /// Most trades a shard keeps for that, 32 bytes each; beyond it the oldest go first.
        history_events_max: usize = 8 << 20, count(0, 1 << 30), live;
        /// Most closed bars a shard keeps for amendments, about 160 bytes each; beyond it the oldest go first.
        retained_bars_max: usize = 1 << 20, count(1, 1 << 28), live;
    }
}

section! {
    /// A stream to compute and serve: bars, with indicators over them, or windows of traffic per host. Without any, bars of 1 s and
    /// 1 m with the usual indicators are served.
    Stream {
        /// Bars by time, trades, volume, value or session, sliding windows, or a roll-up of finer bars, which are then a stream
        /// themselves. Either this or `hosts`.
        bars: Option<WindowSpec> = None, Kind::Bars, live;
        /// Windows of traffic per host, of this width. Either this or `bars`.
        hosts: Option<WindowWidth> = None, Kind::Width, live;
        /// Indicators over these bars; they are a stream `ind.` of their own.
        indicators: Vec<IndicatorSpec> = Vec::new(), Kind::List(&Kind::Indicator, 64), live;
        /// Regimes over these bars, a hidden Markov model of so many states; they are a stream `regime.` of their own.
        regime: Option<RegimeSpec> = None, Kind::Choice(&["hmm:2", "hmm:3", "hmm:4"]), live;
        /// Anomalies of these bars; they are a stream `anomaly.` of their own.
        anomaly: Option<AnomalySpec> = None, Kind::Anomaly, live;
        /// In place of `bars.late`, for these bars.
        late: Option<LatePolicy> = None, Kind::Choice(&["amend", "side", "drop"]), live;
        /// In place of `bars.horizon`, for these bars.
        horizon: Option<Span> = None, span(0, 366 * DAY), live;
        /// In place of `bars.history`, for these bars.
        history: Option<bool> = None, Kind::Switch, live;
    }
}

section! {
    /// A surface: indicators over a range of parameters, of every symbol at every bar that closes, as a stream `surface.` with a column for
    /// each parameter. Where a GPU is present it computes them.
    Surface {
        /// Its name: `rsi` gives the stream `surface.rsi`. Left out it is the indicator's, where all are of one kind.
        name: Option<String> = None, Kind::Name, live;
        /// The bars, which are a `[[stream]]` themselves.
        bars: Option<WindowSpec> = None, Kind::Bars, live;
        /// Indicators and ranges of their parameters; together at most 225.
        sweep: Vec<Sweep> = Vec::new(), Kind::List(&Kind::Sweep, 64), live;
        /// What a column shows: the indicator's value, or what its signals were worth so far: their mean gain, or the share that the
        /// price went along with (hits).
        shows: Shows = Shows::Value, Kind::Choice(&["value", "gain", "hits"]), live;
        /// A signal is judged by the close so many bars later.
        ahead: u32 = 5, count(1, 100_000), live;
        /// Symbols: names or beginnings of names.
        symbols: Vec<String> = vec!["*".to_owned()], Kind::List(&Kind::Text(255, "BTC*"), 4_096), live;
        /// Symbols at once; bars of further ones are counted and left out.
        symbols_max: usize = 2_048, count(1, 16_384), live;
    }
}

section! {
    /// A cross-section of the symbols of bars: how much of their moves is one move, at every close, as a stream `corr.`: mean correlation,
    /// share of the market's mode, effective rank, absorption, turbulence, and from those of the last bars a label and the chance of a change.
    Spectrum {
        /// Its name: `spectrum` gives the stream `corr.spectrum`.
        name: String = "spectrum".to_owned(), Kind::Name, live;
        /// The bars, of time, which are a `[[stream]]` themselves.
        bars: Option<WindowSpec> = None, Kind::Bars, live;
        /// Bars that correlations are of.
        window: u32 = 60, count(4, 512), live;
        /// How far correlations are drawn towards none for the turbulence.
        shrink: Share = Share(0.1), Kind::Share, live;
        /// Symbols: names or beginnings of names.
        symbols: Vec<String> = vec!["*".to_owned()], Kind::List(&Kind::Text(255, "BTC*"), 4_096), live;
        /// Symbols at once; of more those first by name are taken.
        symbols_max: usize = 512, count(2, 16_384), live;
    }
}

section! {
    /// Risk of a portfolio of the symbols of bars, simulated at every close, as a stream `risk.`: value at risk with its interval, and
    /// expected shortfall. Where a GPU is present it computes them.
    Risk {
        /// Its name: `var` gives the stream `risk.var`.
        name: String = "var".to_owned(), Kind::Name, live;
        /// The bars, of time, which are a `[[stream]]` themselves.
        bars: Option<WindowSpec> = None, Kind::Bars, live;
        /// How far ahead: a span of trading time, or a number of bars.
        horizon: Horizon = Horizon::Bars(390), Kind::Horizon, live;
        /// Shares of the capital, a line `symbol,share` each, read at the start. Without it every symbol has the same.
        weights: Option<PathBuf> = None, Kind::Path, live;
        /// Returns that the model is fitted to, the newest.
        window: u32 = 120, count(3, 8_192), live;
        /// Factors, at most as many as symbols.
        factors: u32 = 3, count(1, 64), live;
        /// Returns: normal, or Student's t of N degrees of freedom.
        tail: TailSpec = TailSpec::StudentT(5), Kind::Tail, live;
        /// Levels of confidence.
        levels: Vec<Level> = vec![Level(0.95), Level(0.99)], Kind::List(&Kind::Level, 2), live;
        /// Scenarios; each level needs ten beyond it.
        paths: u64 = 100_000, count(1_000, 1 << 25), live;
        /// Everything random follows from it.
        seed: u64 = 1, count(0, u32::MAX as u64), live;
        /// Symbols: names or beginnings of names. Beside `weights` only those of the file count.
        symbols: Vec<String> = vec!["*".to_owned()], Kind::List(&Kind::Text(255, "BTC*"), 4_096), live;
        /// Symbols at once; of more those first by name are taken.
        symbols_max: usize = 512, count(1, 4_096), live;
    }
}

section! {
    /// Feeds: what a source may send before it has to wait.
    Feed {
        /// Sources known at once; a new one beyond is refused.
        sources_max: usize = 1_024, count(1, 65_535);
        /// Names one source may define; events of further ones share one counted overflow name.
        names_max: u32 = 1_000_000, count(1, 1 << 26);
        /// Events a source may have sent beyond what was taken off its connection.
        credit_events: u64 = 1 << 18, count(2_048, 1 << 24);
        /// Silence after which a connection is closed. More than the heartbeat.
        silence: Span = Span(10 * SECOND), span(100 * MS, HOUR);
        /// How long a connection may take to say hello.
        hello: Span = Span(2 * SECOND), span(10 * MS, 60 * SECOND);
        /// How often either side says something.
        heartbeat: Span = Span(3 * SECOND), span(10 * MS, 600 * SECOND);
    }
}

section! {
    /// Subscribers, over QUIC and HTTP: what is kept for them.
    Subscribers {
        /// Records kept per stream for readers that are behind or come back, 168 bytes each. The largest lag budget is seven eighths
        /// of it.
        retained_records: usize = 1 << 16, count(64, 1 << 24);
        /// Names known; records of further ones reach only readers of all names.
        keys_max: usize = 1 << 20, count(1, 1 << 26);
        /// Records kept per stream and name, for snapshots and lookback.
        lookback_records: usize = 256, count(1, 1 << 16), live;
        /// Records kept for lookback over all names and streams, beyond one each, 168 bytes each; a name's oldest go first.
        lookback_total: usize = 1 << 19, count(0, 1 << 28), live;
        /// Records from before its start that a subscription may ask for, and all together that are not delivered yet.
        past_records_max: usize = 1 << 18, count(1, 1 << 28), live;
        /// Subscriptions at once; further ones are refused.
        subscriptions_max: usize = 10_000, count(1, 1 << 20), live;
    }
}

section! {
    /// Bounds of QUIC connections.
    Limits {
        /// Bytes a peer may have in flight to the server over all streams of a connection.
        receive_window: Bytes = Bytes(16 * MIB), bytes(64 * KIB, GIB);
        /// The same for one stream.
        stream_receive_window: Bytes = Bytes(8 * MIB), bytes(64 * KIB, GIB);
        /// Bytes that wait in the server to be sent or acknowledged, per connection.
        send_window: Bytes = Bytes(8 * MIB), bytes(64 * KIB, GIB);
        /// Streams a peer may have open at once.
        streams_max: u32 = 16, count(1, 1_024);
        /// UDP payload to start with, in bytes; discovery goes up from there.
        mtu: u16 = 1_200, count(1_200, 6_500);
        /// Silence after which a connection is dead.
        idle_timeout: Span = Span(10 * SECOND), span(100 * MS, HOUR);
        /// How often a silent connection is kept alive; off leaves that to the peer. Less than the idle timeout.
        keep_alive: Off<Span> = Off::On(Span(3 * SECOND)), Kind::Off(&span(10 * MS, HOUR));
        /// Connections at once; further ones are refused.
        connections_max: usize = 10_000, count(1, 1 << 20);
        /// Connections above which a new peer must first prove its address.
        validate_above: usize = 1_000, count(0, 1 << 20);
        /// How long a handshake may take.
        handshake_timeout: Span = Span(3 * SECOND), span(10 * MS, 60 * SECOND);
    }
}

section! {
    /// Bounds of HTTP and WebSocket connections.
    Gateway {
        /// Names the gateway may be called by, beside IP addresses and `localhost`: a name that is not listed may have been pointed
        /// here by somebody else's page.
        hosts: Vec<String> = Vec::new(), Kind::List(&Kind::Text(253, "tidegate.example.com"), 64);
        /// Pages of other origins that may read the gateway.
        origins: Vec<String> = Vec::new(), Kind::List(&Kind::Text(253, "http://localhost:5173"), 64);
        /// Connections at once; further ones are told 503.
        connections_max: usize = 12_000, count(1, 1_000_000);
        /// How long a request's head may take, and a connection may be idle between two requests.
        head_timeout: Span = Span(15 * SECOND), span(10 * MS, HOUR);
        /// How long a peer may take nothing of what is written to it.
        write_timeout: Span = Span(20 * SECOND), span(10 * MS, HOUR);
        /// How long an answer may take altogether, streams aside.
        answer_timeout: Span = Span(30 * SECOND), span(10 * MS, HOUR);
        /// Answers of more than 64 KiB at once; further ones wait.
        large_answers_max: usize = 128, count(1, 65_536);
        /// Bytes of a WebSocket message a client may send.
        message_max: Bytes = Bytes(64 * KIB), bytes(256, MIB);
        /// Subscriptions of one WebSocket.
        subscriptions_max: usize = 64, count(1, 1_024);
        /// How often a silent WebSocket is asked whether it is still there.
        ping_every: Span = Span(20 * SECOND), span(10 * MS, HOUR);
        /// Silence after which a WebSocket is closed. More than the ping.
        idle_timeout: Span = Span(60 * SECOND), span(10 * MS, HOUR);
        /// How long connections may take to end when the gateway ends.
        linger: Span = Span(3 * SECOND), span(0, HOUR);
    }
}

section! {
    /// Certificates. Without this section the server makes one for this machine.
    Tls {
        /// The server's certificate chain (PEM). Needs `key`.
        cert: Option<PathBuf> = None, Kind::Path, live;
        /// Its private key (PEM). Needs `cert`.
        key: Option<PathBuf> = None, Kind::Path, live;
        /// Certificates that sign those of clients (PEM). With it clients may show one, and must unless tokens are taken too.
        client_ca: Option<PathBuf> = None, Kind::Path, live;
    }
}

section! {
    /// How peers show who they are.
    Auth {
        /// Public keys (PEM) of those whose tokens are taken, old and new ones while they change.
        token_keys: Vec<PathBuf> = Vec::new(), Kind::List(&Kind::Path, 64), live;
        /// The name that tokens for this server are issued for. Named together with `token_keys`.
        audience: Option<String> = None, Kind::Text(255, "feeds"), live;
        /// Whether peers must show who they are. Left out: yes, if there is a way to.
        required: Option<bool> = None, Kind::Switch, live;
        /// How long a token may be good.
        token_lifetime: Span = Span(900 * SECOND), span(SECOND, DAY), live;
        /// How far the clocks of whoever issues tokens and of this server may be apart.
        token_skew: Span = Span(5 * SECOND), span(0, 300 * SECOND), live;
        /// How long a connection may stand before it must show again who it is.
        session_max: Span = Span(DAY), span(SECOND, 30 * DAY), live;
    }
}

section! {
    /// What principals may do. Without a rule everybody who gets in may do everything; with one, what no rule allows is refused.
    AuthRule {
        /// Whom it is about: a name, the beginning of names as `desk-*`, or `*` for all who say who they are; those who do not are
        /// `anonymous`.
        principal: Option<String> = None, Kind::Text(255, "desk-*"), live;
        /// What they may do.
        verbs: Vec<String> = Vec::new(), Kind::List(&Kind::Choice(&["publish", "subscribe", "admin"]), 3), live;
        /// Streams: names or beginnings of names; for publishing, names of sources.
        streams: Vec<String> = vec!["*".to_owned()], Kind::List(&Kind::Text(255, "bars.*"), 4_096), live;
        /// Symbols: names or beginnings of names.
        symbols: Vec<String> = vec!["*".to_owned()], Kind::List(&Kind::Text(255, "BTC*"), 4_096), live;
    }
}

section! {
    /// How much a principal may use, over all its connections.
    Quotas {
        /// Events it may publish in a second; beyond that its feeds get no credit and wait.
        events_per_second: Option<u64> = None, count(1, 1_000_000_000_000), live;
        /// Bytes its feeds may send in a second; beyond that its connections are not read and wait.
        bytes_per_second: Option<Bytes> = None, bytes(64 * KIB, 10_000_000_000_000), live;
        /// Different symbols it may ever define; events of further ones share one counted overflow name.
        symbols: Option<u32> = None, count(0, 1 << 26), live;
        /// Subscriptions at once; further ones are refused.
        subscriptions: Option<u32> = None, count(0, 1 << 20), live;
    }
}

section! {
    /// Traffic to look for attacks in. Without any of it no detector for hosts runs.
    Traffic {
        /// Addresses for exports of flows over UDP: NetFlow v5 and v9, IPFIX, sFlow.
        exports: Vec<SocketAddr> = Vec::new(), Kind::List(&Kind::Address, 64);
        /// A network interface whose packets are looked at as they come by (Linux; needs the capability CAP_NET_RAW).
        interface: Option<String> = None, Kind::Text(15, "eth0");
        /// Also packets that are meant for other hosts, as at a mirror port.
        promiscuous: bool = false, Kind::Switch;
        /// Bytes of each packet that are kept: the rest of longer ones is not looked at.
        snapshot_length: u32 = 65_535, count(64, 262_144);
        /// Captures and flow logs, judged once, as `tidegate detect` does.
        files: Vec<PathBuf> = Vec::new(), Kind::List(&Kind::Path, 1_024);
        /// Flows held at once; beyond it the longest silent are ended early, and counted.
        flows_max: u32 = 131_072, count(64, 1 << 24);
        /// One in so many packets was looked at, for exporters that do not say so themselves.
        sampling: Option<u32> = None, count(1, u32::MAX as u64);
        /// Also judge who talks to whom, for edges unlike all before: one in so many ordinary ones of a minute is told all the same. Left out: no.
        edges: Option<u32> = None, count(10, 1_000_000_000);
    }
}

section! {
    /// What becomes of what detectors, rules and the streams `anomaly.` and `regime.` find. Alerts are kept in the folder `alerts` of
    /// the data folder.
    Alerts {
        /// Alerts told per group and day (UTC, by the time of the traffic); what is over it is kept as held back.
        budget: Option<u32> = None, count(0, u32::MAX as u64);
        /// Addresses that share a budget of their own, in place of the one of everybody.
        groups: Vec<String> = Vec::new(), Kind::List(&Kind::Text(4_096, "lab=10.1.0.0/16"), 64);
        /// Sigma rules: files, or folders of files *.yml.
        sigma: Vec<PathBuf> = Vec::new(), Kind::List(&Kind::Path, 1_024);
        /// Patterns of records in sequence.
        patterns: Vec<String> = Vec::new(), Kind::List(&Kind::Text(4_096, "a then b within 5m"), 1_024);
        /// Flows of exports and packets of an interface are recorded, so that `tidegate alert replay` can judge them again: bytes on the disk
        /// in all, the oldest give way.
        evidence: Off<Bytes> = Off::On(Bytes(256 * MIB)), Kind::Off(&bytes(MIB, 1 << 40));
        /// Where alerts are sent on to.
        sinks: Vec<String> = Vec::new(), Kind::List(&Kind::Text(4_096, "webhook:https://example.com/alerts"), 64);
    }
}

impl Config {
    /// What a key (`engine.shards`) or section (`engine`) is; repetitions may be numbered (`stream[0].bars`) or not.
    ///
    /// # Errors
    /// The most similar key or section, if one is similar.
    pub fn find(path: &str) -> Result<(SectionInfo, Option<Key>), Option<String>> {
        let plain = path.split('[').enumerate().map(|(at, part)| match part.split_once(']') {
            Some((_, rest)) if at > 0 => rest,
            _ => part,
        });
        let plain: String = plain.collect();
        for section in Self::sections() {
            if section.name == plain {
                return Ok((section, None));
            }
            let key = plain.strip_prefix(section.name).and_then(|rest| rest.strip_prefix('.'));
            if let Some(key) = key.and_then(|name| section.keys.iter().find(|key| key.name == name)).cloned()
            {
                return Ok((section, Some(key)));
            }
        }
        let sections = Self::sections();
        let mut paths: Vec<String> = sections.iter().map(|section| section.name.to_owned()).collect();
        let keys = |section: &SectionInfo| -> Vec<String> {
            section.keys.iter().map(|key| format!("{}.{}", section.name, key.name)).collect()
        };
        paths.extend(sections.iter().flat_map(keys));
        // A key without its section is meant as well.
        let bare = paths.iter().find(|path| path.rsplit_once('.').is_some_and(|(_, key)| key == plain));
        let words: Vec<&str> = paths.iter().map(String::as_str).collect();
        Err(bare.cloned().or_else(|| crate::problem::nearest(&plain, &words)))
    }
}

impl Stream {
    /// Its name, as readers know it: `bars.1s`, `hosts.1m`. `None` while it says neither what it is, nor both.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match (&self.bars, self.hosts) {
            (Some(bars), None) => Some(format!("bars.{}", bars.name())),
            (None, Some(width)) => Some(format!("hosts.{}", tidegate_actors::BarSpec::Time(width))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_it_means_once() {
        let sections = Config::sections();
        for section in &sections {
            assert!(!section.about.is_empty(), "{}", section.name);
            for key in &section.keys {
                assert!(key.about.len() > 8 && key.about.ends_with('.'), "{}.{}", section.name, key.name);
                let twins = section.keys.iter().filter(|other| other.name == key.name).count();
                assert_eq!(twins, 1, "{}.{}", section.name, key.name);
            }
        }
        let keys: usize = sections.iter().map(|section| section.keys.len()).sum();
        assert!(keys > 60, "{keys}");
    }
}
