//! Streaming indicators over bars: O(1) per bar, exact sums, TA-Lib's numbers.
//!
//! Formulas, warm-up and seeding follow TA-Lib (C library, `ta_func/ta_{SMA,EMA,RSI,MACD,BBANDS,ATR}.c`,
//! classic compatibility, no unstable period). Windowed sums are exact integers, so a million bars or a huge
//! outlier leave no drift behind; recursive averages are `f64` in one fixed order of operations.
//!
//! **Invariant:** an indicator is a function of the final bars in order, as each first became final. An
//! amended bar does not rewrite history.

mod analyzer;
mod set;
mod spec;

pub use analyzer::IndicatorAnalyzer;
pub use set::{IndicatorBar, IndicatorError, IndicatorSet};
pub use spec::{IndicatorSpec, SpecError, WINDOW_MAX};

/// The one NaN that stands for "not defined yet", so that digests agree on every machine.
pub const UNDEFINED: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

#[cfg(test)]
mod tests;
