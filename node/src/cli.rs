//! The command line: names, defaults, ranges and examples. What a text may be is decided here, once.

mod cluster;
mod traffic;

pub(crate) use cluster::*;
pub(crate) use traffic::*;

use crate::alert::args::{AlertArgs, RulesArgs, StoreArgs, TellArgs};
use crate::batch::args::{RiskArgs, SpectrumArgs, SurfaceArgs};
use crate::render::Color;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_actors::anomaly::AnomalySpec;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_actors::regime::RegimeSpec;
use tidegate_actors::runtime::Placement;
use tidegate_actors::{BarSpec, LatePolicy, WindowSpec};
use tidegate_config::derived::{Horizon, Sweep};
use tidegate_config::units::{parse_bytes, parse_count, parse_span};
use tidegate_config::{Off, Span};
use tidegate_engine::{EventTime, WindowWidth};
use tidegate_live::Threads;
use tidegate_proto::access::Verb;
use tidegate_proto::subscription::{Conflation, Start, Subscription};
use tidegate_replay::Speed;
use tidegate_replay::capture::Codec;
use tidegate_replay::decode::{ColumnMap, Format, ReadOptions};

const EXIT_CODES: &str = "\
Exit codes:
  0  success
   1  the check failed: `verify` found results that differ, `config check` problems, `doctor` something bad, `detect` an alert,
      `alert replay` another score
  2  the command line is wrong
  3  an input or the configuration cannot be read or is damaged; what was valid before was processed and reported
  4  an output cannot be written, or the disk is full
  5  an internal error: a shard failed

Start with:
  tidegate demo
  tidegate generate market --out market.tgc
  tidegate replay market.tgc --bars 1s,1m --ind rsi:14 --out results";

/// An in-memory, real-time event processor: trades and packets in; bars, indicators and host statistics out, provably
/// the same every time.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// No progress, no notes; results and errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to colour. NO_COLOR is respected.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what files hold: kinds, keys, time span, gaps, disorder, refused rows.
    #[command(after_help = "Example:\n  tidegate inspect trades.csv.gz\n  tidegate inspect --json *.pcap")]
    Inspect(InspectArgs),
    /// Look into the journal of a server, check it, or get its events out.
    #[command(
        after_help = "Examples:\n  tidegate journal inspect ~/tidegate/journal\n  tidegate journal verify ~/tidegate/journal --json\n  tidegate \
                      journal export ~/tidegate --out day.tgc\n  tidegate journal export ~/tidegate --from 1M --count 20\n\nNone \
                      of them changes anything; all of them may be used while the server writes."
    )]
    Journal(JournalArgs),
    /// Show the flows of captures: who talked to whom, how it went, bytes, packets and duration, as Zeek's conn.log does.
    #[command(
        after_help = "Examples:\n  tidegate flows office.pcap\n  tidegate flows --output csv day.pcapng.zst > flows.csv\n  tidegate flows \
                      --output jsonl --interim 5m day.pcap.gz | jq 'select(.state == \"REJ\")'\n\nA record is written when its flow ends: closed, \
                      reset, silent for its time-out, or at the end of the file. Each file is read by itself."
    )]
    Flows(FlowsArgs),
    /// Find attacks in captures and flow logs: scans, floods, guessed passwords, beacons, tunnels; each with its reasons. With --kind, what is
    /// unlike the rest in a table of edges (who with whom, when), of records or of numeric series.
    #[command(
        after_help = "Examples:\n  tidegate detect office.pcap\n  tidegate detect *.pcap conn.log\n  tidegate detect --output jsonl day.pcap.gz > \
                      alerts.jsonl\n  tidegate detect --min-severity high --json day.pcapng\n  tidegate detect calls.csv --kind edges --scores scores.csv\n  \
                      tidegate detect conns.csv --kind records --map time=ts,entity=host --one-in 10000\n  tidegate detect load.csv --kind series --map \
                      time=ts,key=host,value=cpu --changes\n\nExits with 1 when there is an alert. Each file is \
                      judged by itself; docs/detectors.md says what each detector counts and from when on it speaks.\nWith --alerts what is found is kept: \
                      see tidegate alert --help and docs/alerts.md."
    )]
    Detect(Box<DetectArgs>),
    /// Look at alerts that were kept, say what they are worth, hold some back, or judge their traffic again.
    #[command(
        after_help = "Examples:\n  tidegate detect office.pcap --alerts watch\n  tidegate alert list --alerts watch\n  tidegate alert show 3f1c \
                      --alerts watch\n  tidegate alert replay 3f1c --alerts watch\n\nWithout --alerts and --data: the folder `alerts` of the \
                      data folder that `serve` has."
    )]
    Alert(AlertArgs),
    /// Make up a deterministic capture: a market, an office network, or the benchmark workload W1.
    #[command(
        after_help = "Example:\n  tidegate generate market --events 2M --symbols 200 --out market.tgc\n  \
                            tidegate generate network --events 1M --out office.tgc"
    )]
    Generate(GenerateArgs),
    /// Turn any input into one compact capture (.tgc), merged by event time.
    #[command(
        after_help = "Example:\n  tidegate record trades.csv.gz feed.dbn.zst --out day.tgc\n\nCtrl-C finishes the \
                      capture cleanly with what was read so far."
    )]
    Record(RecordArgs),
    /// Run inputs through the engine: bars, indicators and host windows, with a summary that balances.
    #[command(
        after_help = "Examples:\n  tidegate replay trades.csv.gz --bars 1s,1m,1000t --ind rsi:14,macd:12:26:9 --out results\n  \
                      tidegate replay day.tgc --bars 1s,1m@1s,1h@1m@1s,sliding:5m/1m,session:30s --out results\n  \
                      tidegate replay office.pcap --hosts 1m --out results --output parquet\n  \
                      tidegate replay day.tgc --speed 10 --from 2026-01-05T15:00:00Z\n\nWithout --bars and --hosts: 1s and 1m \
                      bars where there are trades, 1m host windows where there are packets or flows."
    )]
    Replay(ReplayArgs),
    /// Prove that results do not depend on shards, batch size, placement or a restore half-way.
    #[command(
        after_help = "Examples:\n  tidegate verify day.tgc --shards 1,2,4\n  tidegate replay day.tgc --digest-out \
                      day.digest\n  tidegate verify day.tgc --against day.digest\n\nExits with 1 when digests differ."
    )]
    Verify(VerifyArgs),
    /// Watch the engine work on a made-up market and office network.
    #[command(
        after_help = "Examples:\n  tidegate demo\n  tidegate demo --plain --seconds 10\n\nEnd it with q or Ctrl-C."
    )]
    Demo(DemoArgs),
    /// Serve: events in over QUIC, bars and indicators out to subscribers.
    #[command(
        after_help = "Examples:\n  tidegate serve\n  tidegate serve --demo\n  tidegate serve --bars 1s,5m --ind rsi:14 --listen 127.0.0.1:7443 --data \
                      ~/tidegate\n  tidegate serve --config tidegate.toml\n\nSIGHUP reads the configuration again. Ctrl-C ends it in order: open windows are closed, subscribers get what is left, and a summary \
                      that balances is printed."
    )]
    Serve(Box<ServeArgs>),
    /// Publish any input to a server, as fast as it takes it or at the speed of the recording.
    #[command(
        after_help = "Examples:\n  tidegate publish day.tgc\n  tidegate publish trades.csv.gz --speed 10 --count 1M\n  tail -f trades.csv | \
                      tidegate publish -\n  tidegate publish generate market --events 2M --speed 10\n  tidegate publish kafka://kafka-1:9092/trades --ack durable\n\nStarted again after a crash, it \
                      goes on where the server stands: nothing is lost, nothing doubled. Options of `generate` stand behind it."
    )]
    Publish(Box<PublishArgs>),
    /// Print results of a server as they come.
    #[command(
        after_help = "Examples:\n  tidegate subscribe bars.1s --keys 'BTC*' --from snapshot\n  tidegate subscribe bars.1m,ind.1m --from \
                      lookback:20 --output jsonl\n  tidegate subscribe bars.1s --conflate 500ms --on-lag disconnect\n  tidegate subscribe bars.1m --output jsonl --to \
                      kafka://kafka-1:9092/bars --follow"
    )]
    Subscribe(SubscribeArgs),
    /// Check, explain and begin configurations of `serve`.
    #[command(
        after_help = "Examples:\n  tidegate config template market > tidegate.toml\n  tidegate config check tidegate.toml\n  tidegate \
                      config explain engine.shards --config tidegate.toml\n  tidegate config schema > tidegate.schema.json"
    )]
    Config(ConfigArgs),
    /// Make a cluster of nodes that hold the same log, and see how it is.
    #[command(
        after_help = "Examples:\n  tidegate cluster init lab --local 3\n  tidegate cluster init prod --node 1=10.0.0.1 --node 2=10.0.0.2 --node \
                      3=10.0.0.3\n  tidegate cluster status lab\n  tidegate cluster move lab --to 2\n\nThen on each node, with its own folder: tidegate \
                      serve --cluster lab/node-1\nand feeds go to any of them: tidegate publish day.tgc --ack committed --ca lab/ca-cert.pem \
                      --server 127.0.0.1:7441,127.0.0.1:7442"
    )]
    Cluster(ClusterArgs),
    /// Make and show certificates: a CA of one's own, for a server and its clients.
    #[command(
        after_help = "Examples:\n  tidegate certs init --dir pki --host feeds.example.org --client desk-1\n  tidegate certs add --dir pki \
                      --client desk-2\n  tidegate certs show pki\n\nThen: tidegate serve --cert pki/server-cert.pem --key \
                      pki/server-key.pem --client-ca pki/ca-cert.pem"
    )]
    Certs(CertsArgs),
    /// Make keys and tokens: who somebody is and what they may do, for a few minutes.
    #[command(
        after_help = "Examples:\n  tidegate token keygen --dir keys\n  tidegate token issue --key keys/token-key.pem --principal desk-1 \
                      --audience feeds --ttl 5m --out desk-1.token\n\nThen: tidegate serve --token-key keys/token-key.pub.pem \
                      --audience feeds, and tidegate subscribe bars.1s --token desk-1.token"
    )]
    Token(TokenArgs),
    /// Watch a running server: throughput, latency, shards, rings, watermarks, feeds, subscribers, keys, warnings.
    #[command(
        after_help = "Examples:\n  tidegate top\n  tidegate top --once\n  tidegate top --url http://box:8080 --plain\n\nIn the view: \
                      1 to 5 or Tab, arrows, Enter for details, / to search, ? for help, q to leave. A server that goes away is waited \
                      for."
    )]
    Top(TopArgs),
    /// Say of a key of a running server where it is computed, who holds it, what it costs, and in which streams it is.
    #[command(
        after_help = "Examples:\n  tidegate explain BTCUSD\n  tidegate explain 10.0.0.7 --url http://127.0.0.1:8081 --json\n\nEvents and cost are \
                      counted in bars since the server's start. A key that there is not ends it with 2, and names like it."
    )]
    Explain(ExplainArgs),
    /// Look whether this machine is fit: clock, UDP, cores, limits, memory, certificates, ports; and say what mends it.
    #[command(
        after_help = "Examples:\n  tidegate doctor\n  tidegate doctor --json\n\nExits with 1 when something is bad; what could only be \
                      better does not count."
    )]
    Doctor(DoctorArgs),
    /// Measure the engine on this machine, beside hand-written loops on the same work.
    #[command(
        after_help = "Examples:\n  tidegate bench --quick\n  tidegate bench --json > figures.json\n  tidegate bench --cluster --part kills"
    )]
    Bench(BenchArgs),
    /// Sweep indicators over ranges of parameters: last values, signals, and what the signals were worth.
    #[command(
        after_help = "Examples:\n  tidegate surface trades.csv.gz --bars 1m --sweep rsi:2..30,ema:5..200\n  tidegate surface day.tgc --bars 5s --sweep \
                      macd:8..16/4:20..40/5:9,bb:10..40/10:2 --ahead 10 --output csv > surface.csv\n\nSignals: a close that crosses its EMA, a MACD \
                      histogram that crosses 0, an RSI that leaves its zones\nbelow 30 and above 70, a close that comes back through a Bollinger \
                      band, a close that moves by more than its ATR.\nA gain is the return from a signal's close to the close so many bars \
                      later, a short signal's negated; no costs."
    )]
    Surface(SurfaceArgs),
    /// Value at risk and expected shortfall of a portfolio, simulated with a factor model of its symbols' bars.
    #[command(
        after_help = "Examples:\n  tidegate risk day.tgc --bars 1m --horizon 390b\n  tidegate risk day.tgc --bars 1m --horizon 1h --weights \
                      book.csv --tail normal --json\n\nbook.csv has a line per symbol, such as AAPL,0.25; below 0 is short. Without it all \
                      symbols weigh the same.\nOnly time with bars counts: a session of six and a half hours is 6.5h, or 390b of 1m bars."
    )]
    Risk(RiskArgs),
    /// The cross-section: how much of all symbols' moves is one move, and how unusual each is.
    #[command(
        after_help = "Examples:\n  tidegate spectrum day.tgc --bars 1m --window 60\n  tidegate spectrum day.tgc --bars 5m --output csv > spectrum.csv\n\n\
                      mode share: the part of all variance that is the market's own move. effective rank: independent moves. \
                      absorption:\nthe share of the first fifth of the eigenvalues. turbulence: about 1 for a row like those before it, \
                      more for one unlike them."
    )]
    Spectrum(SpectrumArgs),
}

/// Where a server listens unless told otherwise.
const ADDRESS: &str = "127.0.0.1:7443";
const HTTP_ADDRESS: &str = "127.0.0.1:8080";

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Feed it a made-up market and office network over QUIC, at the pace of the clock and with its time.
    #[arg(long)]
    pub(crate) demo: bool,
    /// A line now and then about how it is, in place of one that is kept up to date; so is it anyway with --demo when stderr is
    /// no terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Address for feeds and subscribers (QUIC, UDP); port 0 takes a free one [default: 127.0.0.1:7443].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address for browsers and scripts (HTTP, WebSocket); port 0 takes a free one, `off` leaves it out [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR|off", value_parser = parse_http)]
    pub(crate) http: Option<Http>,
    /// Where certificates are kept; made on first use. Clients on this machine find the server's certificate here.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Write down what is accepted, in the folder `journal` of the data folder, and go on from it after a restart. Feeds may then ask
    /// for acks `durable`.
    #[arg(long)]
    pub(crate) journal: bool,
    /// When the journal is brought to the disk: with every turn that wrote something, so often, or when the system likes (then no
    /// acks are `durable`).
    /// [default: 1ms]
    #[arg(long, value_name = "always|SPAN|never", value_parser = parse_sync)]
    pub(crate) journal_sync: Option<Off<Span>>,
    /// When a snapshot of the state is written beside the journal, so that a start reads only what is behind it: each time so much was
    /// accepted (64MiB), so many records (1M), or so long after the last (30s); `off` for never. Also at an end in order.
    /// [default: 256MiB or 5m]
    #[arg(long, value_name = "BYTES|N|SPAN|off", value_parser = parse_snapshot)]
    pub(crate) journal_snapshot: Option<SnapshotWhen>,
    /// Be the node of a cluster whose folder this is, as `tidegate cluster init` makes it: address and certificate come from there. Feeds may
    /// then ask for acks `committed`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["listen", "journal", "demo"])]
    pub(crate) cluster: Option<PathBuf>,
    /// Take exports of flows there (NetFlow v5 and v9, IPFIX, sFlow, over UDP) and look for attacks in them; again for further
    /// addresses.
    #[arg(long, value_name = "ADDR")]
    pub(crate) flows: Vec<SocketAddr>,
    /// Look for attacks in the packets that come by at this network interface (Linux; needs the capability CAP_NET_RAW).
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Also in packets that are meant for other hosts, as they come by at a mirror port.
    #[arg(long)]
    pub(crate) promiscuous: bool,
    /// Look for attacks in this capture or flow log, as `detect` does; again for more.
    #[arg(long, value_name = "FILE")]
    pub(crate) traffic: Vec<PathBuf>,
    /// Also judge who talks to whom in it, for edges unlike all before; one in N ordinary ones of a minute is told all the same.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000_000))]
    pub(crate) edges: Option<u32>,
    #[command(flatten)]
    pub(crate) tell: TellArgs,
    #[command(flatten)]
    pub(crate) rules: RulesArgs,
    #[command(flatten)]
    pub(crate) security: SecurityArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// A surface over every stream of bars, as `tidegate surface` sweeps: ema:N, rsi:N, atr:N, bb:N:K, macd:FAST:SLOW:SIGNAL, where a
    /// number may be A..B or A..B/STEP.
    #[arg(long, value_name = "NAME:A..B,…", value_delimiter = ',')]
    pub(crate) surface: Vec<Sweep>,
    /// The cross-section of all symbols over every stream of bars of time, as `tidegate spectrum` has it.
    #[arg(long)]
    pub(crate) spectrum: bool,
    /// The risk of all symbols with equal shares, so far ahead, over every stream of bars of time, as `tidegate risk` has it.
    #[arg(long, value_name = "SPAN|Nb")]
    pub(crate) risk: Option<Horizon>,
    /// Threads that compute [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) shards: Option<u32>,
    /// Where indicators run: on the shard's thread (fused) or on one of their own (staged) [default: fused].
    #[arg(long, value_name = "fused|staged")]
    pub(crate) placement: Option<Placement>,
    /// How the work is spread: sockets, feeds, shards and readers all on one thread (fused), on threads of their own
    /// (separate), or fused on a machine of at most two cores unless more shards or staged indicators are asked for (auto)
    /// [default: auto].
    #[arg(long, value_name = "auto|fused|separate")]
    pub(crate) threads: Option<Threads>,
    /// The summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Zero stands for every turn, off for never, as in the configuration.
fn parse_sync(text: &str) -> Result<Off<Span>, String> {
    match text {
        "always" => Ok(Off::On(Span(0))),
        "never" => Ok(Off::Off),
        span => parse_span(span)
            .map(|span| Off::On(Span(span)))
            .map_err(|_| format!("`{span}` is no span such as 1ms, nor `always` or `never`")),
    }
}

/// When a snapshot is taken, as one option says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotWhen {
    Off,
    Bytes(u64),
    Records(u64),
    Every(u64),
}

fn parse_snapshot(text: &str) -> Result<SnapshotWhen, String> {
    let no = || {
        format!(
            "`{text}` is no amount such as 64MiB, no number of records such as 1M, no span such as 30s, and not `off`"
        )
    };
    let within = |value: u64, min: u64, max: u64, allowed: &str| {
        if (min..=max).contains(&value) { Ok(value) } else { Err(format!("`{text}`: allowed are {allowed}")) }
    };
    if text == "off" {
        return Ok(SnapshotWhen::Off);
    }
    // `1m` is a minute and `1M` a million; an amount of bytes says so.
    if text.ends_with('B')
        && let Ok(bytes) = parse_bytes(text)
    {
        return within(bytes, 64 << 10, 1 << 40, "64KiB to 1TiB").map(SnapshotWhen::Bytes);
    }
    if let Ok(span) = parse_span(text) {
        return within(span, 100_000_000, 604_800_000_000_000, "100ms to 7d").map(SnapshotWhen::Every);
    }
    parse_count(text).map_err(|_| no()).and_then(|records| {
        within(records, 1, 1 << 48, "1 to 281474976710656 records").map(SnapshotWhen::Records)
    })
}

/// Who may connect.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityArgs {
    /// The server's certificate (PEM), in place of the one it makes for this machine.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Clients must show a certificate that one of these signed (PEM), or a token where --token-key is given too.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Clients must show a token that the owner of this public key signed (PEM); again for further keys.
    #[arg(long, value_name = "FILE", requires = "audience")]
    pub(crate) token_key: Vec<PathBuf>,
    /// The name that tokens for this server are issued for.
    #[arg(long, value_name = "NAME", requires = "token_key")]
    pub(crate) audience: Option<String>,
    /// Let those in too who do not say who they are.
    #[arg(long)]
    pub(crate) anonymous: bool,
}

/// Where HTTP is served, if anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http(pub(crate) Option<SocketAddr>);

fn parse_http(text: &str) -> Result<Http, String> {
    match text {
        "off" => Ok(Http(None)),
        address => address
            .parse()
            .map(|address| Http(Some(address)))
            .map_err(|_| format!("`{address}` is no address such as {HTTP_ADDRESS} or [::1]:0, nor `off`")),
    }
}

/// Where the server is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Its address; of a cluster, those of several nodes: the first that answers says who leads.
    #[arg(long, value_name = "ADDR,…", default_value = ADDRESS, value_delimiter = ',')]
    pub(crate) server: Vec<SocketAddr>,
    /// The server's data folder, for its certificate.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Whose certificates to trust (PEM): a CA, or the server's own, in place of the one in the data folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate to show (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// A token to show, as `tidegate token issue` writes it; read again at each connection, so it may be renewed.
    #[arg(long, value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,
    /// The name the certificate must be good for.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) server_name: String,
    /// How long to try to connect, at first and after each break.
    #[arg(long, value_name = "SPAN|never", default_value = "10s", value_parser = parse_patience)]
    pub(crate) give_up_after: u64,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct PublishArgs {
    /// Files of any format; several merge by event time. `-` is the standard input, published as it comes;
    /// `kafka://HOST:PORT/TOPIC` a topic of Kafka, read on for as long as it lives.
    #[arg(value_name = "FILE|-|kafka://…", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(subcommand)]
    pub(crate) made: Option<PublishMade>,
    #[command(flatten)]
    pub(crate) to: PublishTo,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) topic: TopicArgs,
}

/// How a topic of Kafka is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kafka")]
pub(crate) struct TopicArgs {
    /// Where to begin in a topic that nobody of this name has read before.
    #[arg(long, value_enum, default_value_t = BeginArg::Oldest)]
    pub(crate) begin: BeginArg,
    /// The first line of the table whose rows are the messages, for tables of CSV.
    #[arg(long, value_name = "COLUMN,…")]
    pub(crate) header: Option<String>,
    /// End after so long at the end of the topic.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) idle_exit: Option<u64>,
    /// Further settings of the client, as librdkafka names them; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub(crate) kafka_client: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BeginArg {
    Oldest,
    Newest,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not NAME=VALUE")),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PublishMade {
    /// Made-up events in place of files, the same for the same options.
    #[command(
        after_help = "Examples:\n  tidegate publish generate market --seed 7 --events 2M --symbols 200 --speed 10\n  tidegate publish \
                      generate network --events 1M"
    )]
    Generate(PublishGenerateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PublishGenerateArgs {
    /// What to make, as `tidegate generate` does.
    #[arg(value_enum, value_name = "market|network|w1")]
    pub(crate) what: GenerateArg,
    /// Events to make.
    #[arg(long, value_name = "N", default_value = "2M", value_parser = parse_count)]
    pub(crate) events: u64,
    /// Symbols of a market (4 to 4096, 200 when left out) or of w1 (2000), desks of a network (4 to 200, 56).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub(crate) symbols: Option<u32>,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) to: PublishTo,
}

/// How events are published, wherever they come from.
#[derive(Debug, Args)]
pub(crate) struct PublishTo {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Who publishes; the server knows a source by its name. `publish` when left out, and of a topic `kafka.TOPIC.PARTITION`.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Which run this is. Left out, it follows from the input: the same input started again goes on where it stopped. What comes
    /// from the standard input is a new run each time.
    #[arg(long, value_name = "N")]
    pub(crate) session: Option<u64>,
    /// What the server's acknowledgements promise: nothing, that events are in its log, or (of a server with a journal) on its disk.
    #[arg(long, value_enum, default_value_t = AckArg::Leader)]
    pub(crate) ack: AckArg,
    /// Send events as datagrams: what the network loses is not sent again but counted by the server, and nothing waits for it.
    /// For feeds that prefer a counted loss to a delay; best with a `--speed`. Nothing is acknowledged.
    #[arg(long, conflicts_with = "ack")]
    pub(crate) datagrams: bool,
    /// `max`, or so many times the speed of the recording.
    #[arg(long, value_name = "max|N", default_value = "max", value_parser = parse_speed)]
    pub(crate) speed: Speed,
    /// Publish so many events at most.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<u64>,
    /// The account as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GenerateArg {
    Market,
    Network,
    W1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AckArg {
    None,
    Leader,
    Committed,
    Durable,
}

#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// Streams: bars.1s, ind.1m, …
    #[arg(required = true, value_name = "STREAM,…", value_delimiter = ',')]
    pub(crate) streams: Vec<String>,
    /// Keys: names, or beginnings of names as `BTC*`; all when left out.
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    pub(crate) keys: Vec<String>,
    /// Where to begin: with what comes (latest), the newest of each key (snapshot), a number of each slot, or the last few of
    /// each key.
    #[arg(long, value_name = "latest|snapshot|sequence:N|lookback:K", default_value = "latest", value_parser = parse_start)]
    pub(crate) from: Start,
    /// Only the newest of each key: at each delivery (latest), or at most once in a span.
    #[arg(long, value_name = "none|latest|SPAN", default_value = "none", value_parser = parse_conflation)]
    pub(crate) conflate: Conflation,
    /// Records this reader may be behind; as many as the server keeps when left out.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) lag_budget: Option<u64>,
    /// What happens when it is behind by more.
    #[arg(long, value_enum, default_value_t = LagArg::DropOldest)]
    pub(crate) on_lag: LagArg,
    /// How records are printed. Lines of jsonl and csv are those that `replay --out` writes.
    #[arg(long, value_enum, default_value_t = PrintArg::Table)]
    pub(crate) output: PrintArg,
    /// Write them into a topic of Kafka, `kafka://HOST:PORT/TOPIC`, in place of printing them: a record is a message, a line of
    /// jsonl, and its key is the record's. Those of a key keep their order, and a number (`seq`) that comes again is the same record.
    #[arg(long, value_name = "kafka://…")]
    pub(crate) to: Option<String>,
    /// Further settings of the client of Kafka, as librdkafka names them; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "to", value_parser = parse_setting)]
    pub(crate) kafka_client: Vec<(String, String)>,
    /// Print so many records at most.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<u64>,
    /// End when nothing has come for so long.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) idle_exit: Option<u64>,
    /// When the server ends in order, wait for the next one as after a crash, in place of ending too.
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LagArg {
    Conflate,
    DropOldest,
    Disconnect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrintArg {
    Table,
    Jsonl,
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether a configuration is one, and everything that is wrong with it.
    Check {
        /// The configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what keys mean, what they may be, what they are and where that comes from.
    #[command(
        after_help = "Examples:\n  tidegate config explain\n  tidegate config explain engine.shards --config tidegate.toml\n  \
                            tidegate config explain engine --config tidegate.toml -- --shards 4"
    )]
    Explain {
        /// A key (engine.shards) or a section (engine); all when left out.
        #[arg(value_name = "KEY")]
        key: Option<String>,
        /// The configuration to look into.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Options that `serve` would be started with.
        #[arg(last = true, value_name = "SERVE-OPTIONS")]
        options: Vec<String>,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration to begin with.
    Template {
        /// minimal, market, network or full; a list of them when left out.
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Print the JSON Schema of configurations, for editors.
    Schema,
    /// Say what reloading would do: from one configuration to another.
    Plan {
        /// The configuration that runs.
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The one to reload.
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// The plan as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    pub(crate) what: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// A new CA, a certificate for a server, and one for each client.
    Init(CertsMakeArgs),
    /// Further certificates of a CA made before.
    Add(CertsMakeArgs),
    /// What certificates and keys are, for whom, and until when.
    Show(CertsShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CertsMakeArgs {
    /// The folder of the CA and of what it signs.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A name or address of the server; again for further ones. `init` takes localhost, 127.0.0.1 and ::1 when left out.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// A client, by the name rules know it by; again for further ones.
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Vec<String>,
    /// How long certificates are good. The CA is good for ten years.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
    /// Replace what is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// The table as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CertsShowArgs {
    /// A file, or a folder of .pem files.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,
    /// The table as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) what: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// A new key that signs tokens, and its public half for servers.
    Keygen(TokenKeygenArgs),
    /// A token, with a key of its own that it is bound to.
    Issue(TokenIssueArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenKeygenArgs {
    /// Where to: token-key.pem and token-key.pub.pem are made there.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    pub(crate) force: bool,
    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenIssueArgs {
    /// The key that signs (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Who is to hold it, by the name rules know them by.
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: String,
    /// For which servers: what they call themselves with --audience.
    #[arg(long, value_name = "NAME")]
    pub(crate) audience: String,
    /// How long it is good, from now.
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = parse_span)]
    pub(crate) ttl: u64,
    /// Only this of what rules allow: publish, subscribe, admin.
    #[arg(long, value_name = "VERB,…", value_delimiter = ',')]
    pub(crate) verbs: Vec<Verb>,
    /// Only these streams (for publishing, sources): names, or beginnings of names as `bars.*`.
    #[arg(long, value_name = "STREAM,…", value_delimiter = ',')]
    pub(crate) streams: Vec<String>,
    /// Only these symbols: names, or beginnings of names as `BTC*`.
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',')]
    pub(crate) symbols: Vec<String>,
    /// Good for whoever has it, bound to no key: for HTTP, where a connection cannot be told from another.
    #[arg(long)]
    pub(crate) bearer: bool,
    /// Where to, readable by you alone; stdout when left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Where the server answers HTTP.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// How often it is asked.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = parse_every)]
    pub(crate) every: u64,
    /// Lines instead of a live view; so is it anyway when stdout is no terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// The server's own document, one line each time.
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask once and end; exit code 3 when there is no answer.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The key: a symbol or host, as it is written.
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Where the server answers HTTP.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The server's own document.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The data folder whose certificates are looked at.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The address a server is to have for feeds and subscribers.
    #[arg(long, value_name = "ADDR", default_value = ADDRESS)]
    pub(crate) listen: SocketAddr,
    /// The address a server is to have for browsers and scripts.
    #[arg(long, value_name = "ADDR|off", default_value = HTTP_ADDRESS, value_parser = parse_http)]
    pub(crate) http: Http,
    /// The findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A fifth of the work and fewer runs: a look in seconds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure the server instead of the engine: ingest, delivery and fan-out over QUIC on loopback, answers over HTTP.
    #[arg(long)]
    pub(crate) network: bool,
    /// Measure a cluster of processes on this machine instead: acknowledgements, hand-offs and killed leaders as readers see them, and
    /// ingest with a follower.
    #[arg(long, conflicts_with = "network")]
    pub(crate) cluster: bool,
    /// Of these, only this; may be given several times.
    #[arg(long, value_enum, requires = "cluster", value_name = "PART")]
    pub(crate) part: Vec<crate::bench::cluster::Part>,
    /// Print an object of figures instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is computed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct PlanArgs {
    /// A configuration (see `tidegate config`) that says what is computed, and to `serve` everything else too. Options beside it have
    /// the last word; --bars, --ind, --regime, --anomaly and --hosts take the place of all its streams.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Bars: by time (250ms, 1s, 5m, 1h, 1d), trades (1000t), volume (50000v), value (1000000$), session (session:30s ends
    /// after that silence), sliding windows (sliding:1m/10s: a minute, every ten seconds), or rolled up from finer bars of
    /// the list (1s,1m@1s,1h@1m@1s).
    #[arg(long, value_name = "SPEC,…", value_delimiter = ',')]
    pub(crate) bars: Vec<WindowSpec>,
    /// Indicators over every stream of bars: sma:N, ema:N, rsi:N, atr:N, vwap:N, bb:N:K, macd:FAST:SLOW:SIGNAL.
    #[arg(long, value_name = "NAME:N,…", value_delimiter = ',')]
    pub(crate) ind: Vec<IndicatorSpec>,
    /// Regimes over every stream of bars: hmm:2, hmm:3 or hmm:4, so many states; with run length and what changed.
    #[arg(long, value_name = "hmm:N")]
    pub(crate) regime: Option<RegimeSpec>,
    /// Anomalies over every stream of bars, of return, range, volume or trades: score, learning, quiet or alert, what was
    /// expected. A threshold may follow (volume:1.5).
    #[arg(long, value_name = "MEASURE[:SCORE]")]
    pub(crate) anomaly: Option<AnomalySpec>,
    /// Windows of traffic per host.
    #[arg(long, value_name = "WIDTH,…", value_delimiter = ',', value_parser = parse_width)]
    pub(crate) hosts: Vec<WindowWidth>,
    /// What a trade does whose bar has closed: amend the bar, go to a file of its own (side), or be dropped [default: amend].
    #[arg(long, value_name = "amend|side|drop")]
    pub(crate) late: Option<LatePolicy>,
    /// How far behind the newest event one may come and still be on time [default: 0].
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) disorder: Option<u64>,
    /// How long after its end a bar can still be amended [default: 10s].
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub(crate) horizon: Option<u64>,
    /// Keep no trades for cancels and corrections, which are then counted as unmatched; faster.
    #[arg(long)]
    pub(crate) no_history: bool,
}

impl PlanArgs {
    /// Whether something is asked for that reads bars.
    pub(crate) fn over_bars(&self) -> bool {
        !self.ind.is_empty() || self.regime.is_some() || self.anomaly.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Files of any format; several merge by event time, then in the order given.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// `max`, or so many times the speed of the recording.
    #[arg(long, value_name = "max|N", default_value = "max", value_parser = parse_speed)]
    pub(crate) speed: Speed,
    /// Threads that compute.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) shards: u32,
    /// Where indicators run: on the shard's thread (fused) or on one of their own (staged).
    #[arg(long, value_name = "fused|staged", default_value = "fused")]
    pub(crate) placement: Placement,
    /// Write every stream into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The format of these files.
    #[arg(long, value_enum, default_value_t = OutputArg::Csv, requires = "out")]
    pub(crate) output: OutputArg,
    /// Every revision of a bar, or only the last.
    #[arg(long, value_enum, default_value_t = RevisionsArg::All, requires = "out")]
    pub(crate) revisions: RevisionsArg,
    /// Write the digest of all results here, for `verify --against`.
    #[arg(long, value_name = "FILE")]
    pub(crate) digest_out: Option<PathBuf>,
    /// The summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputArg {
    Csv,
    Jsonl,
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RevisionsArg {
    All,
    Final,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Files of any format, as `replay` takes them.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Compare with the digest another run wrote; without --bars and --hosts, compute what that run computed.
    #[arg(long, value_name = "FILE.digest")]
    pub(crate) against: Option<PathBuf>,
    /// Numbers of shards to run.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) shards: Vec<u32>,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// The table as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Lines instead of a live view; so is it anyway when stdout is no terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// How long, in seconds; four minutes of the market pass in each.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads that compute.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) shards: u32,
    /// The summary as JSON; implies --plain.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How inputs are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct ReadArgs {
    /// Columns of tables: ts=…,symbol=…,price=…,size=…[,side=…]; what is left out is guessed.
    #[arg(long, value_name = "ROLE=COLUMN,…")]
    pub(crate) map: Option<ColumnMap>,
    /// The format, when it is not to be told from the file: csv, parquet, dbn, json, pcap, zeek, eve.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Leave out events before this instant: RFC 3339, `2026-01-05`, or nanoseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) from: Option<EventTime>,
    /// Leave out events at and after this instant.
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) to: Option<EventTime>,
    /// Stop at the first refused row instead of counting it.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Names (symbols, hosts) taken before events go to one overflow name.
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = parse_count)]
    pub(crate) names_max: u64,
}

impl ReadArgs {
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            map: self.map.clone().unwrap_or_default(),
            format: self.format,
            from: self.from,
            to: self.to,
            strict: self.strict,
            names_max: usize::try_from(self.names_max).unwrap_or(usize::MAX),
            ..ReadOptions::default()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Files of any format.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// One JSON object per file and line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    pub(crate) command: JournalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// What is in it: segments, records, sources, time span, how it ends.
    #[command(after_help = "Example:\n  tidegate journal inspect ~/tidegate --json")]
    Inspect {
        /// The journal's folder, or the data folder that it is in.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read every byte: checksums, the chain of hashes, offsets, epochs, entries. Exits with 1 when it is damaged.
    #[command(
        after_help = "Example:\n  tidegate journal verify ~/tidegate && echo sound\n\nWhat was being written when the machine \
                      stopped is no damage: it is told, and cut off when the server starts."
    )]
    Verify {
        /// The journal's folder, or the data folder that it is in.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Its entries as lines of JSON, or its events as a capture.
    #[command(
        after_help = "Examples:\n  tidegate journal export ~/tidegate --from 1M --count 20\n  tidegate journal export \
                      ~/tidegate --out day.tgc && tidegate replay day.tgc"
    )]
    Export(JournalExportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JournalExportArgs {
    /// The journal's folder, or the data folder that it is in.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// A capture (.tgc) of the events with their names, or a file of lines (.jsonl); lines on stdout when left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The log offset to begin at; the oldest when left out.
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// Records at most.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(subcommand)]
    pub(crate) what: Generated,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Generated {
    /// Trades of made-up symbols over one session, with bursts, a shock, a feed gap, and late, cancelled and
    /// corrected trades.
    #[command(
        after_help = "Example:\n  tidegate generate market --seed 7 --events 2M --symbols 200 --out market.tgc"
    )]
    Market {
        #[command(flatten)]
        out: GenerateOut,
        /// Events in all.
        #[arg(long, default_value = "2M", value_parser = parse_count)]
        events: u64,
        /// Symbols, 1 to 4096.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=4_096))]
        symbols: u32,
        /// Length of the session, at least one second.
        #[arg(long, default_value = "23400s", value_parser = parse_span)]
        session: u64,
    },
    /// Packets of an office network, with a scan, a flood, a beacon and an exfiltration.
    #[command(after_help = "Example:\n  tidegate generate network --events 1M --desks 56 --out office.tgc")]
    Network {
        #[command(flatten)]
        out: GenerateOut,
        /// Events in all; a packet makes two, one for each host.
        #[arg(long, default_value = "2M", value_parser = parse_count)]
        events: u64,
        /// Desks, 4 to 200.
        #[arg(long, alias = "symbols", default_value_t = 56, value_parser = clap::value_parser!(u32).range(4..=200))]
        desks: u32,
        /// A day without incidents.
        #[arg(long)]
        calm: bool,
    },
    /// The trades every throughput figure is measured on: Zipf symbols, one trade every 10 µs.
    #[command(after_help = "Example:\n  tidegate generate w1 --events 20M --symbols 2000 --out w1.tgc")]
    W1 {
        #[command(flatten)]
        out: GenerateOut,
        /// Events in all.
        #[arg(long, default_value = "20M", value_parser = parse_count)]
        events: u64,
        /// Symbols, 1 to 1048576.
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        symbols: u32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct GenerateOut {
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where to: FILE.tgc, or FILE.csv or FILE.parquet for plain trades.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Compression of a capture.
    #[arg(long, value_enum, default_value_t = CodecArg::Auto)]
    pub(crate) codec: CodecArg,
    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecArg {
    /// Bit-packed columns, or zstd for a block that it makes a quarter smaller.
    Auto,
    /// Bit-packed columns only: fastest to read.
    Packed,
    /// Byte planes under zstd only.
    Planes,
    /// As in memory.
    Raw,
}

impl From<CodecArg> for Codec {
    fn from(codec: CodecArg) -> Self {
        match codec {
            CodecArg::Auto => Self::Auto,
            CodecArg::Packed => Self::Packed,
            CodecArg::Planes => Self::Planes,
            CodecArg::Raw => Self::Raw,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Files of any format; several merge by event time, then in the order given.
    #[arg(required = true, value_name = "IN")]
    pub(crate) inputs: Vec<PathBuf>,
    /// The capture to write.
    #[arg(long, value_name = "FILE.tgc")]
    pub(crate) out: PathBuf,
    /// Compression.
    #[arg(long, value_enum, default_value_t = CodecArg::Auto)]
    pub(crate) codec: CodecArg,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A span between two questions.
fn parse_every(text: &str) -> Result<u64, String> {
    match parse_span(text)? {
        ns @ 50_000_000..=3_600_000_000_000 => Ok(ns),
        _ => Err(format!("`{text}` is out of range, allowed are 50ms to 1h")),
    }
}

/// A span of time, or `never` as the longest there is.
fn parse_patience(text: &str) -> Result<u64, String> {
    if text == "never" { Ok(u64::MAX) } else { parse_span(text) }
}

/// A width of windows, as bars by time have it.
fn parse_width(text: &str) -> Result<WindowWidth, String> {
    match text.parse::<BarSpec>() {
        Ok(BarSpec::Time(width)) => Ok(width),
        _ => Err(format!("`{text}` is no width of a window; write e.g. 10s, 1m or 1h")),
    }
}

/// `max` or a factor.
fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(times) if (1e-6..=1e6).contains(&times) => Ok(Speed::Times(times)),
        _ => Err(format!(
            "`{text}` is no speed; write `max`, or a factor from 0.000001 to 1000000 such as 1 or 10"
        )),
    }
}

/// Where a subscription begins.
fn parse_start(text: &str) -> Result<Start, String> {
    let bad = || {
        format!(
            "`{text}` is no start; write latest, snapshot, sequence:N or lookback:K, with N and K at least 1"
        )
    };
    let number = |text: &str| text.parse::<u64>().ok().filter(|&number| number > 0);
    match text.split_once(':') {
        None if text == "latest" => Ok(Start::Latest),
        None if text == "snapshot" => Ok(Start::Snapshot),
        Some(("sequence", text)) => {
            let default = number(text).ok_or_else(bad)?;
            Ok(Start::Sequence { default, slots: Vec::new() })
        }
        Some(("lookback", text)) => {
            let count = number(text).and_then(|number| u32::try_from(number).ok());
            count.map(Start::Lookback).ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}

/// How a subscription conflates.
fn parse_conflation(text: &str) -> Result<Conflation, String> {
    match text {
        "none" => Ok(Conflation::None),
        "latest" => Ok(Conflation::Latest),
        span => {
            let ms = parse_span(span)? / 1_000_000;
            let max = Subscription::EVERY_MS_MAX;
            match u32::try_from(ms) {
                Ok(ms) if (1..=max).contains(&ms) => Ok(Conflation::Every(ms)),
                _ => Err(format!("`{text}` is out of range; allowed are none, latest, and 1ms to 1h")),
            }
        }
    }
}

/// An instant: RFC 3339, a date, a date and time in UTC, or nanoseconds since 1970.
pub(crate) fn parse_instant(text: &str) -> Result<EventTime, String> {
    let bad =
        |why: &str| format!("{why}; write e.g. 2026-01-05T14:30:00Z, 2026-01-05, or nanoseconds since 1970");
    let ns = if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        text.parse::<i128>().map_err(|error| bad(&error.to_string()))?
    } else if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        stamp.as_nanosecond()
    } else {
        let civil = text.parse::<jiff::civil::DateTime>().map_err(|_| bad("this is no instant"))?;
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| bad(&error.to_string()))?;
        zoned.timestamp().as_nanosecond()
    };
    let ns = u64::try_from(ns).map_err(|_| bad("it lies before 1970 or after 2262"))?;
    EventTime::from_unsigned(ns).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn texts_become_instants() {
        let start = EventTime(1_767_571_200_000_000_000);
        for text in ["2026-01-05", "2026-01-05T00:00:00Z", "1767571200000000000", "2026-01-05 00:00"] {
            assert_eq!(parse_instant(text), Ok(start), "{text}");
        }
        for text in ["", "yesterday", "1969-12-31", "99999999999999999999"] {
            assert!(parse_instant(text).is_err(), "{text}");
        }
    }
}
