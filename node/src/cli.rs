//! The command line: names, defaults, ranges and examples. What a text may be is decided here, once.

use crate::render::Color;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use tidegate_engine::EventTime;
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
    let part = u128::from(part) * u128::from(unit_ns as u64) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(unit_ns).and_then(|ns| ns.checked_add(u64::try_from(part).ok()?)).ok_or_else(bad)
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
