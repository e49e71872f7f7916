//! Options of commands over traffic: `flows`, `detect`, and where traffic comes from.

use super::*;
use crate::exit::Failure;
use crate::tabular::{self, FeatureMap, Joined, RoleMap, SeriesSpec, Spec, What};

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    /// Captures: pcap or pcapng, also in gzip or zstd; or logs of flows: Zeek's conn.log, Suricata's EVE.
    #[arg(required_unless_present_any = ["listen", "interface"], value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Take exports over UDP until Ctrl-C: NetFlow v5, v9 and IPFIX, or sFlow v5. May be given several times.
    #[arg(long, value_name = "netflow:ADDR|sflow:ADDR", conflicts_with_all = ["files", "interface"])]
    pub(crate) listen: Vec<ListenArg>,
    #[command(flatten)]
    pub(crate) capture: CaptureArgs,
    /// How records are written.
    #[arg(long, value_enum, default_value_t = PrintArg::Table)]
    pub(crate) output: PrintArg,
    /// Flows that last longer are told so often while they go on; `never` for at their end only.
    #[arg(long, value_name = "SPAN|never", default_value = "never", value_parser = parse_interim)]
    pub(crate) interim: u64,
    /// Flows held at once; beyond it the longest silent are ended early, and counted.
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(64..=1 << 24))]
    pub(crate) flows_max: u32,
    #[command(flatten)]
    pub(crate) read: TrafficArgs,
}

/// Packets off the network.
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// Take packets off a network interface until Ctrl-C (Linux; needs the capability CAP_NET_RAW).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["files", "format", "exports", "sampling", "from", "to", "strict"])]
    pub(crate) interface: Option<String>,
    /// Bytes of each packet that are kept: the rest of longer ones is not looked at.
    #[arg(long, value_name = "BYTES", default_value_t = 65_535, requires = "interface", conflicts_with = "files", value_parser = clap::value_parser!(u32).range(64..=262_144))]
    pub(crate) snapshot_length: u32,
    /// Also take packets that are meant for other hosts, as they come by at a mirror port: the interface listens to all while this runs.
    #[arg(long, requires = "interface", conflicts_with = "files")]
    pub(crate) promiscuous: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DetectArgs {
    /// Captures: pcap or pcapng, also in gzip or zstd; or logs of flows: Zeek's conn.log, Suricata's EVE; with --kind, tables: CSV or JSON lines, `-` for the standard input.
    #[arg(required_unless_present = "interface", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) capture: CaptureArgs,
    /// Also judge who talks to whom, for edges unlike all before; one in N ordinary ones of a minute is told all the same.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000_000))]
    pub(crate) edges: Option<u32>,
    #[command(flatten)]
    pub(crate) tabular: TabularArgs,
    #[command(
        flatten,
        next_help_heading = "Results in place of traffic: what --bars and --hosts ask for is computed and judged"
    )]
    pub(crate) plan: PlanArgs,
    /// How alerts are written.
    #[arg(long, value_enum, default_value_t = AlertsArg::Table)]
    pub(crate) output: AlertsArg,
    /// One JSON object per file and line: what was read, and its alerts.
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,
    /// Leave out alerts that are less severe.
    #[arg(long, value_enum, default_value_t = SeverityArg::Low)]
    pub(crate) min_severity: SeverityArg,
    /// Flows held at once; beyond it the longest silent are ended early, and counted.
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(64..=1 << 24))]
    pub(crate) flows_max: u32,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) tell: TellArgs,
    #[command(flatten)]
    pub(crate) rules: RulesArgs,
    #[command(flatten)]
    pub(crate) read: TrafficArgs,
}

/// Tables in place of traffic.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables of edges, records and series")]
pub(crate) struct TabularArgs {
    /// What the files hold.
    #[arg(long, value_enum, default_value_t = KindArg::Traffic)]
    pub(crate) kind: KindArg,
    /// One in N ordinary rows may be an alert: the higher, the fewer. [default: 10000 for edges, of one tick; 1000 for records; for series the
    /// shipped threshold of the score, 1.25]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000_000))]
    pub(crate) one_in: Option<u32>,
    /// Which column is what, by its header, or by its number from 1 with --no-header: time, source, destination and weight (of how many edges it
    /// tells) for edges; time and entity (who it is about) for records; time, key (whose series it is) and value, which may be given several
    /// times, for series. Left out: guessed from the header, and values are all columns that hold numbers; without a header the first columns of
    /// edges are time, source, destination, weight, and the first of several columns of series is the time.
    #[arg(long, value_name = "ROLE=COLUMN,…")]
    pub(crate) map: Option<RoleMap>,
    /// How columns of records are taken: category (a name), count (a number from 0 up), share (0 to 1) or skip. Left out: guessed from the first
    /// 300 rows.
    #[arg(long, value_name = "COLUMN=KIND,…")]
    pub(crate) features: Option<FeatureMap>,
    /// Edges of so long are counted together.
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = parse_span)]
    pub(crate) tick: u64,
    /// The first line is a row. Of series this is seen by itself where it holds numbers and times only.
    #[arg(long)]
    pub(crate) no_header: bool,
    /// How times are written, as strptime has it, such as `%m/%d/%Y-%H:%M`; in UTC. Left out: RFC 3339, or seconds to nanoseconds since 1970.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) time_format: Option<String>,
    /// Write the score and chance of every row to a CSV file.
    #[arg(long, value_name = "FILE")]
    pub(crate) scores: Option<PathBuf>,
    /// Also tell where series change in mean or variance: each by itself, or all columns of a key together.
    #[arg(long, value_enum, value_name = "each|together", num_args = 0..=1, require_equals = true, default_missing_value = "each")]
    pub(crate) changes: Option<ChangesArg>,
    /// Write every change point to a CSV file.
    #[arg(long, value_name = "FILE", requires = "changes")]
    pub(crate) change_points: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// Captures and flow logs.
    Traffic,
    /// Who with whom, when.
    Edges,
    /// Names, counts and shares.
    Records,
    /// Numbers over time.
    Series,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChangesArg {
    Each,
    Together,
}

impl DetectArgs {
    /// Whether results are to be computed and judged, in place of traffic.
    pub(crate) fn of_results(&self) -> Result<bool, Failure> {
        let plan = &self.plan;
        let asked =
            plan.config.is_some() || !plan.bars.is_empty() || !plan.hosts.is_empty() || plan.over_bars();
        let set = |is: bool, name: &'static str| is.then_some(name);
        let name = if asked {
            [
                set(self.capture.interface.is_some(), "--interface"),
                set(self.edges.is_some(), "--edges"),
                set(self.tabular.kind != KindArg::Traffic, "--kind"),
                set(self.read.exports.is_some(), "--exports"),
                set(self.read.sampling.is_some(), "--sampling"),
            ]
        } else {
            [
                set(plan.late.is_some(), "--late"),
                set(plan.disorder.is_some(), "--disorder"),
                set(plan.horizon.is_some(), "--horizon"),
                set(plan.no_history, "--no-history"),
                None,
            ]
        };
        match name.into_iter().flatten().next() {
            Some(name) if asked => Err(Failure::usage(format_args!(
                "{name} is for traffic; --bars, --ind, --regime, --anomaly, --hosts and --config ask for results in its place"
            ))),
            Some(name) => Err(Failure::usage(format_args!(
                "{name} is for results: ask for some with --bars or --hosts"
            ))),
            // What is for tables only is refused here as well.
            None if asked => self.table().map(|_| asked),
            None => Ok(asked),
        }
    }

    /// The table that files are, if they are one.
    pub(crate) fn table(&self) -> Result<Option<Spec>, Failure> {
        let asked = &self.tabular;
        let set = |is: bool, name: &'static str| is.then_some(name);
        let what = match asked.kind {
            KindArg::Traffic => {
                let of_tables = [
                    set(asked.one_in.is_some(), "--one-in"),
                    set(asked.map.is_some(), "--map"),
                    set(asked.features.is_some(), "--features"),
                    set(asked.no_header, "--no-header"),
                    set(asked.time_format.is_some(), "--time-format"),
                    set(asked.scores.is_some(), "--scores"),
                    set(asked.changes.is_some(), "--changes"),
                ];
                return match of_tables.into_iter().flatten().next() {
                    Some(name) => {
                        Err(Failure::usage(format_args!("{name} is for --kind edges, records or series")))
                    }
                    None => Ok(None),
                };
            }
            KindArg::Edges => What::Edges,
            KindArg::Records => What::Records,
            KindArg::Series => What::Series,
        };
        let of_traffic = [
            set(self.capture.interface.is_some(), "--interface"),
            set(self.edges.is_some(), "--edges"),
            set(!self.rules.sigma.is_empty(), "--sigma"),
            set(!self.rules.pattern.is_empty(), "--pattern"),
            set(self.read.format.is_some(), "--format"),
            set(self.read.exports.is_some(), "--exports"),
            set(self.read.sampling.is_some(), "--sampling"),
        ];
        if let Some(name) = of_traffic.into_iter().flatten().next() {
            return Err(Failure::usage(format_args!(
                "{name} is for traffic, not for --kind {}",
                what.name()
            )));
        }
        for (name, path) in [("--scores", &asked.scores), ("--change-points", &asked.change_points)] {
            if path.is_some() && self.files.len() > 1 {
                return Err(Failure::usage(format_args!("{name} takes the rows of one file")));
            }
        }
        if asked.scores.is_some() && asked.scores == asked.change_points {
            return Err(Failure::usage("--scores and --change-points are two tables: name two files"));
        }
        let series = what == What::Series;
        if asked.changes.is_some() && !series {
            return Err(Failure::usage("--changes is for --kind series"));
        }
        let map = asked.map.clone().unwrap_or_default();
        if !map.values.is_empty() && !series {
            return Err(Failure::usage(format_args!("tables of {} have no `value`", what.name())));
        }
        if asked.tick == 0 {
            return Err(Failure::usage("--tick is 0; it must be longer"));
        }
        Ok(Some(Spec {
            what,
            one_in: asked.one_in.unwrap_or(tabular::one_in(what)),
            tick_ns: asked.tick,
            map: map.roles,
            features: asked.features.clone().map(|map| map.0).unwrap_or_default(),
            header: !asked.no_header,
            time_format: asked.time_format.clone(),
            series: series.then(|| SeriesSpec {
                values: map.values,
                label: String::new(),
                one_in: asked.one_in,
                changes: asked.changes.map(|changes| match changes {
                    ChangesArg::Each => Joined::Each,
                    ChangesArg::Together => Joined::Together,
                }),
            }),
        }))
    }
}

/// UDP ports that exports are sent to.
#[derive(Debug, Clone)]
pub(crate) struct ExportPorts(pub(crate) Vec<u16>);

impl ExportPorts {
    /// NetFlow's and IPFIX's usual ports, and sFlow's.
    const USUAL: &str = "2055,2056,4739,6343,9555,9995,9996";
}

impl std::str::FromStr for ExportPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("`{text}` is no port: ports are 1 to 65535, separated by commas")),
        };
        text.split(',').map(port).collect::<Result<_, _>>().map(Self)
    }
}

/// Where exports are taken.
#[derive(Debug, Clone)]
pub(crate) struct ListenArg {
    /// sFlow, as against NetFlow and IPFIX.
    pub(crate) sflow: bool,
    pub(crate) address: std::net::SocketAddr,
}

impl std::str::FromStr for ListenArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sflow, address) = match text.split_once(':') {
            Some(("netflow", address)) => (false, address),
            Some(("sflow", address)) => (true, address),
            _ => return Err(format!("`{text}` begins with neither `netflow:` nor `sflow:`")),
        };
        let address = address.parse().map_err(|_| {
            format!("`{address}` is no address with a port, such as 0.0.0.0:2055 or [::]:6343")
        })?;
        Ok(Self { sflow, address })
    }
}

/// How traffic is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct TrafficArgs {
    /// The format, when it is not to be told from the file: pcap, zeek or eve.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Read what NetFlow, IPFIX and sFlow datagrams inside captures tell, instead of the packets themselves; only those to PORTS when
    /// given.
    #[arg(long, value_name = "PORT,…", num_args = 0..=1, require_equals = true, default_missing_value = ExportPorts::USUAL)]
    pub(crate) exports: Option<ExportPorts>,
    /// One in N packets was looked at, for exporters that do not say so themselves.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sampling: Option<u32>,
    /// Leave out packets before this instant: RFC 3339, `2026-01-05`, or nanoseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) from: Option<EventTime>,
    /// Leave out packets at and after this instant.
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) to: Option<EventTime>,
    /// Stop at the first packet that cannot be read instead of counting it.
    #[arg(long)]
    pub(crate) strict: bool,
}

impl TrafficArgs {
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            from: self.from,
            to: self.to,
            strict: self.strict,
            ..ReadOptions::default()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlertsArg {
    Table,
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeverityArg {
    Low,
    Medium,
    High,
}

fn parse_interim(text: &str) -> Result<u64, String> {
    if text == "never" { Ok(0) } else { parse_span(text) }
}
