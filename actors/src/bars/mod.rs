//! Bars over trades: by time ([`TimeBars`]) and by their own measure ([`MeasureBars`]: ticks, volume, value), exact to
//! the unit, with lateness, cancels and corrections.
//!
//! A trade updates one accumulator of two cache lines. Everything that is not "a plain trade for the window that is
//! open" leaves the loop for a cold path.

mod acc;
mod history;
mod measure;
mod retained;
mod time;

pub use acc::Acc;
pub use measure::{Measure, MeasureBars};
pub use time::TimeBars;
pub(crate) use time::late_record;

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use tidegate_engine::units::{PRICE_SCALE, SIZE_SCALE};
use tidegate_engine::{Operator, WindowWidth};

/// What happens to a trade whose window has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LatePolicy {
    /// The closed bar is amended and written again with the next revision.
    #[default]
    Amend,
    /// The trade is written to the stream as a LATE record; the bar stays.
    Side,
    /// The trade is dropped and counted.
    Drop,
}

impl FromStr for LatePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "amend" => Ok(Self::Amend),
            "side" => Ok(Self::Side),
            "drop" => Ok(Self::Drop),
            other => Err(format!("late policy `{other}` is none of amend, side, drop")),
        }
    }
}

impl fmt::Display for LatePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Amend => "amend",
            Self::Side => "side",
            Self::Drop => "drop",
        })
    }
}

/// What bars keep beyond the open window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarOptions {
    /// What happens to late trades.
    pub late: LatePolicy,
    /// How long (event time) after its end a closed bar can still be amended, cancelled from or corrected.
    pub horizon_ns: u64,
    /// Keep the trades of open and amendable windows, so that a cancel can rebuild open, high, low and close. Without
    /// it every cancel is counted as unmatched and changes nothing.
    pub history: bool,
    /// How long (event time) measure bars keep trades for that. A bar can be cancelled from while its first trade is kept.
    /// Time bars need no setting: they keep their width and the horizon.
    pub history_ns: u64,
    /// Most trades kept for that, per shard (32 bytes each). Beyond it the oldest go first, and cancels that needed
    /// them are unmatched.
    pub history_events_max: usize,
    /// Most closed bars kept per shard (about 160 bytes each), likewise.
    pub retained_bars_max: usize,
}

impl Default for BarOptions {
    fn default() -> Self {
        Self {
            late: LatePolicy::Amend,
            horizon_ns: 10_000_000_000,
            history: false,
            history_ns: 600_000_000_000,
            history_events_max: 8 << 20,
            retained_bars_max: 1 << 20,
        }
    }
}

/// Which bars: `1s`, `5m`, `1h`, `1d`, `250ms` by time; `1000t` by ticks; `50000v` by volume; `1000000$` by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BarSpec {
    /// Tumbling windows of event time, aligned to the epoch.
    Time(WindowWidth),
    /// So many consecutive trades.
    Ticks(NonZeroU64),
    /// At least so much volume (1e-8 units); the trade that reaches it closes the bar.
    Volume(NonZeroU64),
    /// At least so much notional (whole units of the quote currency).
    Value(NonZeroU64),
}

/// Why a bar specification was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "bar `{text}` is not understood: {reason}; allowed are times (250ms, 1s, 5m, 1h, 1d), ticks (1000t), volume (50000v) and value (1000000$)"
)]
pub struct BarSpecError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for BarSpec {
    type Err = BarSpecError;

    fn from_str(text: &str) -> Result<Self, BarSpecError> {
        let error = |reason| BarSpecError { text: text.chars().take(40).collect(), reason };
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(error("it does not start with a number"));
        }
        let number: NonZeroU64 = number.parse().map_err(|_| error("its number is zero or too large"))?;
        let time = |unit_ns: u64| {
            number
                .get()
                .checked_mul(unit_ns)
                .and_then(WindowWidth::from_ns)
                .map(Self::Time)
                .ok_or_else(|| error("it is longer than 366 days"))
        };
        match unit {
            "us" => time(1_000),
            "ms" => time(1_000_000),
            "s" => time(1_000_000_000),
            "m" => time(60_000_000_000),
            "h" => time(3_600_000_000_000),
            "d" => time(86_400_000_000_000),
            "t" => Ok(Self::Ticks(number)),
            "v" => number
                .checked_mul(NonZeroU64::new(SIZE_SCALE).ok_or_else(|| error("internal"))?)
                .map(Self::Volume)
                .ok_or_else(|| error("its number is too large")),
            "$" => Ok(Self::Value(number)),
            _ => Err(error("its unit is unknown")),
        }
    }
}

impl fmt::Display for BarSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(width) => {
                let ns = width.ns();
                let units = [
                    (86_400_000_000_000, "d"),
                    (3_600_000_000_000, "h"),
                    (60_000_000_000, "m"),
                    (1_000_000_000, "s"),
                    (1_000_000, "ms"),
                    (1_000, "us"),
                ];
                match units.iter().find(|(unit, _)| ns % unit == 0) {
                    Some((unit, name)) => write!(f, "{}{name}", ns / unit),
                    None => write!(f, "{ns}ns"),
                }
            }
            Self::Ticks(n) => write!(f, "{n}t"),
            Self::Volume(n) => write!(f, "{}v", n.get() / SIZE_SCALE),
            Self::Value(n) => write!(f, "{n}$"),
        }
    }
}

impl BarSpec {
    /// The operator that computes these bars.
    #[must_use]
    pub fn operator(self, options: BarOptions) -> Box<dyn Operator> {
        match self {
            Self::Time(width) => Box::new(TimeBars::new(width, options)),
            Self::Ticks(n) => Box::new(MeasureBars::new(Measure::Ticks(n.get()), options)),
            Self::Volume(n) => Box::new(MeasureBars::new(Measure::Volume(u128::from(n.get())), options)),
            Self::Value(n) => {
                let scale = i128::from(PRICE_SCALE) * i128::from(SIZE_SCALE);
                Box::new(MeasureBars::new(Measure::Value(i128::from(n.get()) * scale), options))
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
