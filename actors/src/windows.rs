//! Which windows a stream of bars has, as text: `1s`, `1000t`, `session:30s`, `sliding:1m/10s`, `1m@1s`.

use crate::bars::{BarOptions, BarSpec, LatePolicy};
use crate::rollup::{RollUp, RollUpError, RollUpOptions};
use crate::session::{SessionBars, SessionLate, SessionOptions};
use crate::sliding::SlidingBars;
use std::fmt;
use std::str::FromStr;
use tidegate_engine::{Operator, WindowWidth};

/// Sessions a key may hold open: as many as fit into the disorder a source is allowed. Each is 160 bytes.
const SESSIONS_OPEN_MAX: u32 = 1_024;

/// Windows over which bars are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowSpec {
    /// Tumbling, by time or by the bar's own measure: `1s`, `1000t`, `50000v`, `1000000$`.
    Tumbling(BarSpec),
    /// As long as a key keeps trading; so much silence ends it: `session:30s`.
    Session(WindowWidth),
    /// Overlapping windows of `width`, one every `step`: `sliding:1m/10s`.
    Sliding {
        /// Width of a window.
        width: WindowWidth,
        /// From one window's start to the next one's.
        step: WindowWidth,
    },
    /// Tumbling, merged from finer bars of time, which are a stream themselves: `1m@1s`, `1h@1m@1s`.
    RollUp {
        /// Width of a window.
        width: WindowWidth,
        /// The finer bars: tumbling by time, or rolled up.
        over: Box<WindowSpec>,
    },
}

/// Why a window specification was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "bar `{text}` is not understood: {reason}; allowed are times (250ms, 1s, 5m, 1h, 1d; at most 366d), ticks (1000t), \
     volume (50000v), value (1000000$), sessions that end after a silence (session:30s), windows that slide (sliding:1m/10s) and \
     roll-ups of finer times (1m@1s), the last two of at most {} slices",
    RollUp::SLICES_MAX
)]
pub struct WindowSpecError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl From<BarSpec> for WindowSpec {
    fn from(spec: BarSpec) -> Self {
        Self::Tumbling(spec)
    }
}

impl FromStr for WindowSpec {
    type Err = WindowSpecError;

    fn from_str(text: &str) -> Result<Self, WindowSpecError> {
        let error = |reason| WindowSpecError { text: text.chars().take(40).collect(), reason };
        let tumbling = |part: &str| part.parse::<BarSpec>().map_err(|refused| error(refused.reason));
        let width = |part: &str| match tumbling(part)? {
            BarSpec::Time(width) => Ok(width),
            _ => Err(error("it needs times")),
        };
        if let Some(gap) = text.strip_prefix("session:") {
            return Ok(Self::Session(width(gap)?));
        }
        if let Some(windows) = text.strip_prefix("sliding:") {
            let (wide, step) = windows
                .split_once('/')
                .ok_or_else(|| error("it needs a width and a step with `/` between"))?;
            let (width, step) = (width(wide)?, width(step)?);
            if step > width {
                return Err(error("its step is longer than its width, so that trades would be left out"));
            }
            return match slices(width, slice(width, step)) {
                Some(_) => Ok(Self::Sliding { width, step }),
                None => Err(error("it has too many slices (its width over what divides width and step)")),
            };
        }
        // From the finest on, each at least twice as wide as the one before: so few that nothing can run deep.
        let mut parts = text.rsplit('@');
        let mut spec = Self::Tumbling(tumbling(parts.next().unwrap_or_default())?);
        for part in parts {
            let finer = spec.width().ok_or_else(|| error("only bars of time can be rolled up"))?;
            let width = width(part)?;
            if width <= finer || slices(width, finer.ns()).is_none() {
                return Err(error("its width is not 2 or more times the finer one, or has too many slices"));
            }
            spec = Self::RollUp { width, over: Box::new(spec) };
        }
        Ok(spec)
    }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tumbling(spec) => spec.fmt(f),
            Self::Session(gap) => write!(f, "session:{}", BarSpec::Time(*gap)),
            Self::Sliding { width, step } => {
                write!(f, "sliding:{}/{}", BarSpec::Time(*width), BarSpec::Time(*step))
            }
            Self::RollUp { width, over } => write!(f, "{}@{over}", BarSpec::Time(*width)),
        }
    }
}

/// The widest slice that `width` and `step` are made of.
fn slice(width: WindowWidth, step: WindowWidth) -> u64 {
    let (mut a, mut b) = (width.ns(), step.ns());
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// How many slices a window is made of, if it can be.
fn slices(width: WindowWidth, slice: u64) -> Option<u32> {
    let count = u32::try_from(width.ns() / slice).ok()?;
    (width.ns().is_multiple_of(slice) && (1..=RollUp::SLICES_MAX).contains(&count)).then_some(count)
}

/// Windows that slices can still amend when their own bars can be for `horizon_ns`: those that end within it, and the one the
/// watermark is in.
fn amendable(horizon_ns: u64, step_ns: u64) -> u32 {
    u32::try_from(horizon_ns.div_ceil(step_ns)).map_or(u32::MAX, |windows| windows.saturating_add(1))
}

impl WindowSpec {
    /// Its name in streams and files: as it is written, `-` for what a path cannot hold.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string().replace([':', '/'], "-")
    }

    /// The finer bars it is rolled up from.
    #[must_use]
    pub fn over(&self) -> Option<&Self> {
        match self {
            Self::RollUp { over, .. } => Some(over),
            _ => None,
        }
    }

    /// Whether its bars end by their own measure (trades, volume, value) and are known by their first trade; other bars
    /// are known by their end.
    #[must_use]
    pub fn is_by_measure(&self) -> bool {
        matches!(self, Self::Tumbling(BarSpec::Ticks(_) | BarSpec::Volume(_) | BarSpec::Value(_)))
    }

    /// Width of tumbling windows of time.
    fn width(&self) -> Option<WindowWidth> {
        match self {
            Self::Tumbling(BarSpec::Time(width)) | Self::RollUp { width, .. } => Some(*width),
            _ => None,
        }
    }

    /// The operator that computes these bars from trades; `None` for a roll-up, which reads bars.
    ///
    /// # Errors
    /// [`RollUpError`] when more sliding windows would stay amendable than can.
    pub fn operator(&self, options: BarOptions) -> Result<Option<Box<dyn Operator>>, RollUpError> {
        Ok(Some(match self {
            Self::Tumbling(spec) => spec.operator(options),
            Self::Session(gap) => {
                // A closed session is never reopened, so what cannot be amended is set aside.
                let late = match options.late {
                    LatePolicy::Amend | LatePolicy::Side => SessionLate::Side,
                    LatePolicy::Drop => SessionLate::Drop,
                };
                Box::new(SessionBars::new(SessionOptions { gap: *gap, late, open_max: SESSIONS_OPEN_MAX }))
            }
            Self::Sliding { width, step } => {
                let slice_ns = slice(*width, *step);
                let too_many = RollUpError::Slices { slices: u32::MAX };
                let slice = WindowWidth::from_ns(slice_ns).ok_or(too_many.clone())?;
                let windows = RollUpOptions {
                    stream: 0,
                    slice,
                    slices: slices(*width, slice_ns).ok_or(too_many.clone())?,
                    step: slices(*step, slice_ns).ok_or(too_many)?,
                    horizon: amendable(options.horizon_ns, step.ns()),
                };
                Box::new(SlidingBars::new(windows, options)?)
            }
            Self::RollUp { .. } => return Ok(None),
        }))
    }

    /// The analyzer that rolls up the finer bars of `stream`; `None` for what is no roll-up.
    ///
    /// # Errors
    /// [`RollUpError`] when it would hold more than it may.
    pub fn roll_up(&self, stream: u16, options: BarOptions) -> Result<Option<RollUp>, RollUpError> {
        let Self::RollUp { width, over } = self else { return Ok(None) };
        let Some(slice) = over.width() else { return Ok(None) };
        let count = slices(*width, slice.ns()).ok_or(RollUpError::Slices { slices: u32::MAX })?;
        let horizon = amendable(options.horizon_ns, width.ns());
        RollUp::new(RollUpOptions { stream, slice, slices: count, step: count, horizon }).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_its_text() {
        let texts = [
            "1s",
            "1000t",
            "50000v",
            "7$",
            "session:30s",
            "sliding:1m/10s",
            "sliding:5s/2s",
            "1m@1s",
            "1h@1m@1s",
        ];
        for text in texts {
            let spec: WindowSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            assert!(!spec.name().contains([':', '/']), "{}", spec.name());
            assert_eq!(spec.over().is_some(), text.contains('@'));
            let options = BarOptions::default();
            assert_eq!(spec.operator(options).unwrap().is_none(), text.contains('@'), "{text}");
            assert_eq!(spec.roll_up(3, options).unwrap().is_some(), text.contains('@'), "{text}");
        }
    }

    #[test]
    fn errors_name_what_is_allowed() {
        let wrong = [
            "",
            "session",
            "session:",
            "session:0s",
            "session:10t",
            "sliding:1m",
            "sliding:10s/1m",
            "sliding:1m/",
            "sliding:1m/10t",
            "sliding:2h/1s",
            "1m@",
            "@1s",
            "1s@1s",
            "1s@1m",
            "90s@1m",
            "2h@1s",
            "1m@10t",
            "10t@1s",
            "1m@session:1s",
            "367d@1d",
            "session:1s@1s",
        ];
        for text in wrong {
            let error = text.parse::<WindowSpec>().unwrap_err().to_string();
            for allowed in ["250ms, 1s", "1000t", "session:30s", "sliding:1m/10s", "1m@1s", "3600 slices"] {
                assert!(error.contains(allowed), "{error}");
            }
        }
    }

    #[test]
    fn a_horizon_of_too_many_windows_is_refused() {
        let options = BarOptions { horizon_ns: 86_400_000_000_000, ..BarOptions::default() };
        let sliding: WindowSpec = "sliding:10s/1s".parse().unwrap();
        assert!(matches!(sliding.operator(options), Err(RollUpError::Horizon { .. })));
        let rolled: WindowSpec = "2s@1s".parse().unwrap();
        assert!(matches!(rolled.roll_up(0, options), Err(RollUpError::Horizon { .. })));
    }
}
