//! The command line: names, defaults, ranges and examples. What a text may be is decided here, once.

use crate::render::Color;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_actors::runtime::Placement;
use tidegate_actors::{BarSpec, LatePolicy, WindowSpec};
use tidegate_engine::{EventTime, WindowWidth};
use tidegate_live::Threads;
use tidegate_proto::subscription::{Conflation, Start, Subscription};
use tidegate_replay::Speed;
use tidegate_replay::capture::Codec;
use tidegate_replay::decode::{ColumnMap, Format, ReadOptions};

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the check failed: `verify` found results that differ
  2  the command line is wrong
  3  an input cannot be read or is damaged; what was valid before was processed and reported
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
        after_help = "Examples:\n  tidegate serve\n  tidegate serve --bars 1s,5m --ind rsi:14 --listen 127.0.0.1:7443 --data \
                      ~/tidegate\n\nCtrl-C ends it in order: open windows are closed, subscribers get what is left, and a summary \
                      that balances is printed."
    )]
    Serve(ServeArgs),
    /// Publish any input to a server, as fast as it takes it or at the speed of the recording.
    #[command(
        after_help = "Examples:\n  tidegate publish day.tgc\n  tidegate publish trades.csv.gz --speed 10 --count 1M\n  tidegate publish \
                      --generate market --events 2M\n\nStarted again after a crash, it goes on where the server stands: nothing is lost, \
                      nothing doubled."
    )]
    Publish(PublishArgs),
    /// Print results of a server as they come.
    #[command(
        after_help = "Examples:\n  tidegate subscribe bars.1s --keys 'BTC*' --from snapshot\n  tidegate subscribe bars.1m,ind.1m --from \
                      lookback:20 --output jsonl\n  tidegate subscribe bars.1s --conflate 500ms --on-lag disconnect"
    )]
    Subscribe(SubscribeArgs),
    /// Measure the engine on this machine, beside hand-written loops on the same work.
    #[command(after_help = "Examples:\n  tidegate bench --quick\n  tidegate bench --json > figures.json")]
    Bench(BenchArgs),
}

/// Where a server listens unless told otherwise.
const ADDRESS: &str = "127.0.0.1:7443";
const HTTP_ADDRESS: &str = "127.0.0.1:8080";

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address for feeds and subscribers (QUIC, UDP); port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = ADDRESS)]
    pub(crate) listen: SocketAddr,
    /// Address for browsers and scripts (HTTP, WebSocket); port 0 takes a free one, `off` leaves it out.
    #[arg(long, value_name = "ADDR|off", default_value = HTTP_ADDRESS, value_parser = parse_http)]
    pub(crate) http: Http,
    /// Where certificates are kept; made on first use. Clients on this machine find the server's certificate here.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Threads that compute.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) shards: u32,
    /// Where indicators run: on the shard's thread (fused) or on one of their own (staged).
    #[arg(long, value_name = "fused|staged", default_value = "fused")]
    pub(crate) placement: Placement,
    /// How the work is spread: sockets, feeds, shards and readers all on one thread (fused), on threads of their own
    /// (separate), or fused on a machine of at most two cores unless more shards or staged indicators are asked for (auto).
    #[arg(long, value_name = "auto|fused|separate", default_value = "auto")]
    pub(crate) threads: Threads,
    /// The summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
    /// Its address.
    #[arg(long, value_name = "ADDR", default_value = ADDRESS)]
    pub(crate) server: SocketAddr,
    /// The server's data folder, for its certificate.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A certificate to trust (PEM), in place of the one in the data folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// The name the certificate must be good for.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) server_name: String,
    /// How long to try to connect, at first and after each break.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_duration)]
    pub(crate) give_up_after: u64,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Files of any format; several merge by event time.
    #[arg(value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    pub(crate) files: Vec<PathBuf>,
    /// Made-up events in place of files.
    #[arg(long, value_enum, value_name = "market|network|w1")]
    pub(crate) generate: Option<GenerateArg>,
    /// Events to make.
    #[arg(long, value_name = "N", default_value = "2M", value_parser = parse_count, requires = "generate")]
    pub(crate) events: u64,
    /// Symbols (or desks) to make.
    #[arg(long, value_name = "N", requires = "generate", value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub(crate) symbols: Option<u32>,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1, requires = "generate")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Who publishes; the server knows a source by its name.
    #[arg(long, value_name = "NAME", default_value = "publish")]
    pub(crate) name: String,
    /// Which run this is. Left out, it follows from the input: the same input started again goes on where it stopped.
    #[arg(long, value_name = "N")]
    pub(crate) session: Option<u64>,
    /// What the server's acknowledgements promise: nothing, or that events are in its log.
    #[arg(long, value_enum, default_value_t = AckArg::Leader)]
    pub(crate) ack: AckArg,
    /// `max`, or so many times the speed of the recording.
    #[arg(long, value_name = "max|N", default_value = "max", value_parser = parse_speed)]
    pub(crate) speed: Speed,
    /// Publish so many events at most.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
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
    /// Print so many records at most.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<u64>,
    /// End when nothing has come for so long.
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    pub(crate) idle_exit: Option<u64>,
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
pub(crate) struct BenchArgs {
    /// A fifth of the work and fewer runs: a look in seconds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print an object of figures instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is computed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct PlanArgs {
    /// Bars: by time (250ms, 1s, 5m, 1h, 1d), trades (1000t), volume (50000v), value (1000000$), session (session:30s ends
    /// after that silence), sliding windows (sliding:1m/10s: a minute, every ten seconds), or rolled up from finer bars of
    /// the list (1s,1m@1s,1h@1m@1s).
    #[arg(long, value_name = "SPEC,…", value_delimiter = ',')]
    pub(crate) bars: Vec<WindowSpec>,
    /// Indicators over every stream of bars: sma:N, ema:N, rsi:N, atr:N, vwap:N, bb:N:K, macd:FAST:SLOW:SIGNAL.
    #[arg(long, value_name = "NAME:N,…", value_delimiter = ',')]
    pub(crate) ind: Vec<IndicatorSpec>,
    /// Windows of traffic per host.
    #[arg(long, value_name = "WIDTH,…", value_delimiter = ',', value_parser = parse_width)]
    pub(crate) hosts: Vec<WindowWidth>,
    /// What a trade does whose bar has closed: amend the bar, go to a file of its own (side), or be dropped.
    #[arg(long, value_name = "amend|side|drop", default_value = "amend")]
    pub(crate) late: LatePolicy,
    /// How far behind the newest event one may come and still be on time.
    #[arg(long, value_name = "SPAN", default_value = "0", value_parser = parse_duration)]
    pub(crate) disorder: u64,
    /// How long after its end a bar can still be amended.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_duration)]
    pub(crate) horizon: u64,
    /// Keep no trades for cancels and corrections, which are then counted as unmatched; faster.
    #[arg(long)]
    pub(crate) no_history: bool,
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
        #[arg(long, default_value = "23400s", value_parser = parse_duration)]
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

/// A whole number, with `_` or `,` between digits and k, M or G behind: `2M`, `1_000_000`.
fn parse_count(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no count above 0; write e.g. 250000, 1_000_000, 250k or 2M");
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let digits: String = digits.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|&n| n > 0).ok_or_else(bad)
}

/// A span of time in nanoseconds: `250ms`, `1s`, `1.5s`, `5m`, `1h`, `0`.
fn parse_duration(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no span of time; write e.g. 500us, 250ms, 1.5s, 5m, 1h or 1d");
    if text == "0" {
        return Ok(0);
    }
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let unit_ns = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(bad()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.len() <= 18;
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| bad())? };
    let part = u128::from(part) * u128::from(unit_ns) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(unit_ns).and_then(|ns| ns.checked_add(u64::try_from(part).ok()?)).ok_or_else(bad)
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
            let ms = parse_duration(span)? / 1_000_000;
            let max = Subscription::EVERY_MS_MAX;
            match u32::try_from(ms) {
                Ok(ms) if (1..=max).contains(&ms) => Ok(Conflation::Every(ms)),
                _ => Err(format!("`{text}` is out of range; allowed are none, latest, and 1ms to 1h")),
            }
        }
    }
}

/// An instant: RFC 3339, a date, a date and time in UTC, or nanoseconds since 1970.
fn parse_instant(text: &str) -> Result<EventTime, String> {
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
    fn texts_become_numbers() {
        for (text, want) in [("7", 7), ("2M", 2_000_000), ("1_000", 1_000), ("250k", 250_000)] {
            assert_eq!(parse_count(text), Ok(want));
        }
        for text in ["", "0", "-1", "M", "1.5", "99999999999G"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
        for (text, want) in [("0", 0), ("1s", 1_000_000_000), ("1.5ms", 1_500_000), ("2h", 7_200_000_000_000)]
        {
            assert_eq!(parse_duration(text), Ok(want));
        }
        for text in ["", "1", "s", "-1s", "1.s5", "1w", "1e3s", "999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let start = EventTime(1_767_571_200_000_000_000);
        for text in ["2026-01-05", "2026-01-05T00:00:00Z", "1767571200000000000", "2026-01-05 00:00"] {
            assert_eq!(parse_instant(text), Ok(start), "{text}");
        }
        for text in ["", "yesterday", "1969-12-31", "99999999999999999999"] {
            assert!(parse_instant(text).is_err(), "{text}");
        }
    }
}
