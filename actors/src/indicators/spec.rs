//! What to compute: `rsi:14`, `macd:12:26:9`, `bb:20:2`.

use std::fmt;
use std::str::FromStr;

/// Longest window in bars. 100,000 one-second bars are more than a day; a ring of them is 800 kB per key.
pub const WINDOW_MAX: u32 = 100_000;
/// Largest width of a Bollinger band in standard deviations.
const DEVIATIONS_MAX: f64 = 100.0;
const FORMS: &str = "sma:N, ema:N, rsi:N, atr:N, vwap:N, bb:N:K, macd:FAST:SLOW:SIGNAL";

/// One indicator with its parameters. Windows are in bars, `1..=`[`WINDOW_MAX`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum IndicatorSpec {
    /// `sma:N`: mean of the last `window` closes. Defined from bar `window`.
    Sma {
        /// Bars.
        window: u32,
    },
    /// `ema:N`: exponential mean of closes, `k = 2 / (window + 1)`, seeded by the SMA. Defined from bar `window`.
    Ema {
        /// Bars.
        window: u32,
    },
    /// `rsi:N`: Wilder's relative strength index, 0 to 100; 0 when nothing moved. Defined from bar `window + 1`.
    Rsi {
        /// Bars.
        window: u32,
    },
    /// `macd:FAST:SLOW:SIGNAL`: line, signal and histogram. The fast mean's seed ends at the bar the slow one's
    /// does, as in TA-Lib, so it is not `ema:FAST`. Defined from bar `slow + signal - 1`.
    Macd {
        /// Bars of the fast mean.
        fast: u32,
        /// Bars of the slow mean, more than `fast`.
        slow: u32,
        /// Bars of the mean of the line.
        signal: u32,
    },
    /// `bb:N:K`: mean of closes and the bands `deviations` population standard deviations around it. Defined
    /// from bar `window`. Exact where TA-Lib takes a variance under 1e-14 for zero.
    Bollinger {
        /// Bars.
        window: u32,
        /// Width of a band, above 0 and at most 100.
        deviations: f64,
    },
    /// `atr:N`: Wilder's average true range; the first true range needs a previous close. Defined from bar
    /// `window + 1`.
    Atr {
        /// Bars.
        window: u32,
    },
    /// `vwap:N`: volume-weighted price of the last `window` bars, from exact sums. Defined from bar `window`
    /// while any volume traded.
    Vwap {
        /// Bars.
        window: u32,
    },
}

/// Why a text is no indicator. Says what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No indicator has this name.
    #[error("unknown indicator `{name}`; allowed are {FORMS}")]
    Unknown {
        /// The name found.
        name: String,
    },
    /// Too few or too many parameters.
    #[error("`{text}` has {found} parameters, but the form is {form}")]
    Arity {
        /// The whole text.
        text: String,
        /// Parameters found.
        found: usize,
        /// The form allowed.
        form: &'static str,
    },
    /// A window is no whole number in range.
    #[error("window `{found}` in `{text}` is not a whole number from 1 to {WINDOW_MAX}")]
    Window {
        /// The whole text.
        text: String,
        /// The parameter found.
        found: String,
    },
    /// A band width is no number in range.
    #[error("band width `{found}` in `{text}` is not a number above 0 and at most 100")]
    Deviations {
        /// The whole text.
        text: String,
        /// The parameter found.
        found: String,
    },
    /// The fast window is not shorter than the slow one.
    #[error("`{text}`: the fast window must be shorter than the slow one")]
    FastNotShorter {
        /// The whole text.
        text: String,
    },
}

impl IndicatorSpec {
    /// Reads `name:parameter:...`.
    ///
    /// # Errors
    /// [`SpecError`], naming the forms and ranges allowed.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.trim().split(':');
        let name = parts.next().unwrap_or_default();
        let parameters: Vec<&str> = parts.collect();
        let form = match name {
            "sma" => "sma:N",
            "ema" => "ema:N",
            "rsi" => "rsi:N",
            "atr" => "atr:N",
            "vwap" => "vwap:N",
            "bb" => "bb:N:K",
            "macd" => "macd:FAST:SLOW:SIGNAL",
            _ => return Err(SpecError::Unknown { name: name.chars().take(40).collect() }),
        };
        if parameters.len() != form.split(':').count() - 1 {
            return Err(SpecError::Arity { text: text.into(), found: parameters.len(), form });
        }
        let window_at = |at: usize| -> Result<u32, SpecError> {
            let found = parameters[at];
            let digits = !found.is_empty() && found.bytes().all(|byte| byte.is_ascii_digit());
            let window = found.parse::<u32>().ok().filter(|w| digits && (1..=WINDOW_MAX).contains(w));
            window.ok_or_else(|| SpecError::Window { text: text.into(), found: found.into() })
        };
        let window = window_at(0)?;
        Ok(match name {
            "sma" => Self::Sma { window },
            "ema" => Self::Ema { window },
            "rsi" => Self::Rsi { window },
            "atr" => Self::Atr { window },
            "vwap" => Self::Vwap { window },
            "bb" => {
                let found = parameters[1];
                let in_range = |k: &f64| *k > 0.0 && *k <= DEVIATIONS_MAX;
                let deviations = found.parse::<f64>().ok().filter(in_range);
                let wrong = || SpecError::Deviations { text: text.into(), found: found.into() };
                Self::Bollinger { window, deviations: deviations.ok_or_else(wrong)? }
            }
            _ => {
                let (fast, slow, signal) = (window, window_at(1)?, window_at(2)?);
                if fast >= slow {
                    return Err(SpecError::FastNotShorter { text: text.into() });
                }
                Self::Macd { fast, slow, signal }
            }
        })
    }

    /// Names of the values it yields, in order: `rsi_14`; `macd_12_26_9`, `macd_signal`, `macd_hist`;
    /// `bb_mid`, `bb_upper`, `bb_lower`.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let own = self.to_string().replace(':', "_");
        match self {
            Self::Macd { .. } => vec![own, "macd_signal".into(), "macd_hist".into()],
            Self::Bollinger { .. } => vec!["bb_mid".into(), "bb_upper".into(), "bb_lower".into()],
            _ => vec![own],
        }
    }

    /// How many values it yields.
    #[must_use]
    pub const fn column_count(&self) -> usize {
        match self {
            Self::Macd { .. } | Self::Bollinger { .. } => 3,
            _ => 1,
        }
    }
}

impl FromStr for IndicatorSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text)
    }
}

/// The text [`IndicatorSpec::parse`] reads.
impl fmt::Display for IndicatorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sma { window } => write!(f, "sma:{window}"),
            Self::Ema { window } => write!(f, "ema:{window}"),
            Self::Rsi { window } => write!(f, "rsi:{window}"),
            Self::Atr { window } => write!(f, "atr:{window}"),
            Self::Vwap { window } => write!(f, "vwap:{window}"),
            Self::Bollinger { window, deviations } => write!(f, "bb:{window}:{deviations}"),
            Self::Macd { fast, slow, signal } => write!(f, "macd:{fast}:{slow}:{signal}"),
        }
    }
}
