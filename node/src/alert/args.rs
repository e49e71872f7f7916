//! The options of `alert`, and those of `detect` that have to do with alerts kept.

use crate::cli::{SeverityArg, parse_instant};
use crate::sink::SinkSpec;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tidegate_alert::{Group, Severity, Target};
use tidegate_config::units::parse_span;
use tidegate_engine::EventTime;

/// Where alerts are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    /// The folder that alerts are kept in; made when it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) alerts: Option<PathBuf>,
    /// The data folder, as that of `serve`: alerts are kept in its folder `alerts`.
    #[arg(long, value_name = "DIR", conflicts_with = "alerts")]
    pub(crate) data: Option<PathBuf>,
}

/// What is told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telling")]
pub(crate) struct TellArgs {
    /// Alerts told per group and day (UTC, by the time of the traffic); what is over it is kept as held back.
    #[arg(long, value_name = "N")]
    pub(crate) budget: Option<u32>,
    /// Addresses that share a budget of their own, in place of the one of everybody; again for further groups.
    #[arg(long, value_name = "NAME=NET,…", requires = "budget")]
    pub(crate) group: Vec<Group>,
}

/// What judges beside the detectors, and where alerts go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rules and sinks")]
pub(crate) struct RulesArgs {
    /// Sigma rules: a file, or a folder of files *.yml; again for more. Try them on recorded traffic first: that is what this is.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) sigma: Vec<PathBuf>,
    /// A pattern of records in sequence: `a then b within 5m without c`; again for more. docs/alerts.md has the words.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) pattern: Vec<String>,
    /// Send alerts on, as they are told: jsonl:FILE, eve:FILE, syslog:udp://HOST:PORT, syslog:tcp://HOST:PORT, syslog:FILE,
    /// webhook:URL; again for more.
    #[arg(long, value_name = "KIND:TARGET")]
    pub(crate) sink: Vec<SinkSpec>,
}

#[derive(Debug, Args)]
pub(crate) struct AlertArgs {
    /// A bearer's token, when the node that keeps the alerts asks for one: `tidegate token issue --bearer`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: AlertCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertCommand {
    /// The alerts that are open; and suppressions, maintenance, feedback and what was held back.
    #[command(
        after_help = "Examples:\n  tidegate alert list\n  tidegate alert list --held\n  tidegate alert list --all --json | jq .alerts"
    )]
    List(ListArgs),
    /// Everything about one alert.
    #[command(
        after_help = "Example:\n  tidegate alert show 3f1c\n\nThe first digits of a name are enough while only one alert has them."
    )]
    Show(ShowArgs),
    /// Say that somebody has seen alerts.
    #[command(
        after_help = "Examples:\n  tidegate alert ack 3f1c --note 'asked the owner'\n  tidegate alert ack 3f1c --undo"
    )]
    Ack(AckArgs),
    /// Say that an alert was none. From then on the same kind by the same entity must reach a higher score to be told.
    #[command(
        after_help = "Examples:\n  tidegate alert false-positive 3f1c\n  tidegate alert false-positive 3f1c --scope kind\n  tidegate alert \
                      false-positive 3f1c --undo\n\nThe score demanded is 1 - (1 - s) / 2 for a false positive of score s: the detector must see \
                      twice of what it saw here. More severe findings are told all the same."
    )]
    FalsePositive(FalsePositiveArgs),
    /// Do not want to hear of something for a while.
    #[command(
        after_help = "Examples:\n  tidegate alert suppress 3f1c --for 7d\n  tidegate alert suppress --entity 10.0.0.5 --kind vertical-scan \
                      --for 30d --note 'our scanner'\n\nWith the name of an alert: the same kind by the same entity, from its beginning until so long \
                      after it was last seen, up to its severity. What is held back stays readable: tidegate alert list --held"
    )]
    Suppress(SuppressArgs),
    /// Announce planned work: nothing is told of it.
    #[command(
        after_help = "Example:\n  tidegate alert maintenance --entity 10.2.0.0/16 --from 2026-01-05T22:00:00Z --for 4h --note 'new switches'"
    )]
    Maintenance(MaintenanceArgs),
    /// End a suppression or maintenance window.
    #[command(
        after_help = "Example:\n  tidegate alert lift 2\n\nThe numbers are those of `tidegate alert list`."
    )]
    Lift(LiftArgs),
    /// Judge the recorded traffic behind an alert again: the score must come out the same to the bit.
    #[command(
        after_help = "Examples:\n  tidegate alert replay 3f1c\n  tidegate alert replay 3f1c --input moved/office.pcap\n\nReads the input \
                      from its beginning to where the score was reached, with the options of then. Exits with 1 when the score comes out \
                      differently, with 3 when the input is not the one of then."
    )]
    Replay(ReplayAlertArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Those that were acknowledged, false or held back too.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only those that were held back and told to nobody.
    #[arg(long, conflicts_with = "all")]
    pub(crate) held: bool,
    /// Leave out alerts that are less severe.
    #[arg(long, value_enum, default_value_t = SeverityArg::Low)]
    pub(crate) min_severity: SeverityArg,
    /// Only of this kind.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only by this entity: an address, a network or a name.
    #[arg(long, value_name = "ADDR|NET|NAME")]
    pub(crate) entity: Option<Target>,
    /// The answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The alert's name, or its first digits.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AckArgs {
    /// The alerts' names, or their first digits.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Open them again.
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScopeArg {
    /// This entity alone.
    Entity,
    /// Everybody.
    Kind,
}

#[derive(Debug, Args)]
pub(crate) struct FalsePositiveArgs {
    /// The alerts' names, or their first digits.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// For whom more is demanded of this kind.
    #[arg(long, value_enum, default_value_t = ScopeArg::Entity)]
    pub(crate) scope: ScopeArg,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Open them again, and demand no more than before.
    #[arg(long)]
    pub(crate) undo: bool,
}

/// When a suppression or window ends.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct EndArgs {
    /// For so long: 4h, 30m; `7d` for days.
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_days)]
    pub(crate) span: Option<u64>,
    /// Until this instant: RFC 3339, `2026-01-05`, or nanoseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) until: Option<EventTime>,
}

#[derive(Debug, Args)]
pub(crate) struct SuppressArgs {
    /// An alert whose kind and entity are meant: its name, or the first digits.
    #[arg(value_name = "ID", conflicts_with_all = ["entity", "kind"], required_unless_present_any = ["entity", "kind"])]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// By this entity: an address, a network or a name.
    #[arg(long, value_name = "ADDR|NET|NAME")]
    pub(crate) entity: Option<Target>,
    /// Of this kind.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) end: EndArgs,
    /// From this instant on, by the time of the traffic [default: now, or the beginning of the alert that is named].
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) from: Option<EventTime>,
    /// The most severe that is held back [default: medium, or the severity of the alert that is named].
    #[arg(long, value_enum)]
    pub(crate) up_to: Option<SeverityArg>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Of this entity alone: an address, a network or a name.
    #[arg(long, value_name = "ADDR|NET|NAME")]
    pub(crate) entity: Option<Target>,
    /// Of this kind alone.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// From this instant on, by the time of the traffic [default: now].
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub(crate) from: Option<EventTime>,
    #[command(flatten)]
    pub(crate) end: EndArgs,
    /// The most severe that is held back.
    #[arg(long, value_enum, default_value_t = SeverityArg::High)]
    pub(crate) up_to: SeverityArg,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LiftArgs {
    /// Numbers of suppressions and windows.
    #[arg(value_name = "NUMBER", required = true)]
    pub(crate) numbers: Vec<u32>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayAlertArgs {
    /// The alert's name, or its first digits.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Where the input is now, if it was moved.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// The answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A span that may be in days.
pub(crate) fn parse_days(text: &str) -> Result<u64, String> {
    const DAY_NS: u64 = 86_400 * 1_000_000_000;
    match text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
        Some(days @ 1..=36_500) => Ok(days * DAY_NS),
        Some(_) => Err(format!("`{text}` is not between 1d and 36500d")),
        None => parse_span(text).map_err(|error| format!("{error}, or days as 7d")),
    }
}

impl From<SeverityArg> for Severity {
    fn from(severity: SeverityArg) -> Self {
        match severity {
            SeverityArg::Low => Self::Low,
            SeverityArg::Medium => Self::Medium,
            SeverityArg::High => Self::High,
        }
    }
}
