//! The command line of the commands that compute over whole files.

use super::spectrum::SpectrumOutput;
use crate::cli::ReadArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tidegate_actors::WindowSpec;
use tidegate_config::derived::{Horizon, Sweep, TailSpec};
use tidegate_config::units::parse_count;

#[derive(Debug, Args)]
pub(crate) struct SurfaceArgs {
    /// Files of any format; several merge by event time.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Bars to sweep over, as `replay` names them.
    #[arg(long, value_name = "SPEC", default_value = "1m")]
    pub(crate) bars: WindowSpec,
    /// Indicators and ranges: ema:N, rsi:N, atr:N, bb:N:K, macd:FAST:SLOW:SIGNAL, where a number may be A..B or A..B/STEP.
    #[arg(long, value_name = "NAME:A..B,…", value_delimiter = ',', required = true)]
    pub(crate) sweep: Vec<Sweep>,
    /// A signal is judged by the close so many bars later.
    #[arg(long, value_name = "BARS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) ahead: u32,
    /// Everything for a program (csv, jsonl), or the best of each symbol (table).
    #[arg(long, value_enum, default_value_t = SurfaceOutput::Table)]
    pub(crate) output: SurfaceOutput,
    /// Rows per symbol of the table.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) top: u32,
    /// Judged signals an indicator must have to be in the table.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) least: u64,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SurfaceOutput {
    Table,
    Csv,
    Jsonl,
}

#[derive(Debug, Args)]
pub(crate) struct RiskArgs {
    /// Files of any format; several merge by event time.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Bars whose returns the model is fitted to, as `replay` names them.
    #[arg(long, value_name = "SPEC", default_value = "1m")]
    pub(crate) bars: WindowSpec,
    /// How far ahead: a span of trading time (1h, 6.5h, 1d), or a number of bars (390b).
    #[arg(long, value_name = "SPAN|Nb", default_value = "390b")]
    pub(crate) horizon: Horizon,
    /// Shares of the capital, a line `symbol,share` each.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Scenarios, 1000 to 33554432.
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    pub(crate) paths: u64,
    /// Factors, at most as many as symbols.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) factors: u32,
    /// Returns: normal, or Student's t of N degrees of freedom.
    #[arg(long, value_name = "normal|t:N", default_value = "t:5")]
    pub(crate) tail: TailSpec,
    /// Levels of confidence.
    #[arg(long, value_name = "P,…", value_delimiter = ',', default_value = "0.95,0.99")]
    pub(crate) levels: Vec<f64>,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Symbols shown with their part of the shortfall.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: u32,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SpectrumArgs {
    /// Files of any format; several merge by event time.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Bars whose returns are correlated, as `replay` names them.
    #[arg(long, value_name = "SPEC", default_value = "1m")]
    pub(crate) bars: WindowSpec,
    /// Bars that correlations are of, 4 to 512.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(4..=512))]
    pub(crate) window: u32,
    /// How far correlations are drawn towards none for the turbulence: above 0, at most 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub(crate) shrink: f64,
    /// As a table of the newest rows, or every row as CSV or JSON lines.
    #[arg(long, value_name = "table|csv|jsonl", default_value = "table")]
    pub(crate) output: SpectrumOutput,
    /// Rows of the table.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) last: u32,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}
