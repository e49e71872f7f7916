//! Indicators over symbols x parameters x bars, with what their signals were worth.
//!
//! **Equality:** each value equals the streaming indicator's of the same bars bit for bit: the same operations in the same
//! order, none of them fused. So one sweep stands for as many streams.
//!
//! | indicator | long signal | short signal |
//! |---|---|---|
//! | EMA | the close rises above it | the close no longer stands above it |
//! | MACD | the histogram rises above 0 | it no longer stands above 0 |
//! | RSI | it rises through 30: at most 30, then above | it falls through 70: at least 70, then below |
//! | Bollinger | the close rises through the lower band | the close falls through the upper band |
//! | ATR | the close rises by more than the bar's range average | the close falls by more than it |
//!
//! The first bar on which the indicator is defined only sets where it stands; an ATR can signal on it.

mod crossing;
mod device;
mod exact;
mod kernels;
mod live;
mod route;
#[cfg(test)]
mod tests;

pub use live::{LiveBar, LiveSweep};

use crate::BatchError;
use rayon::prelude::*;

/// Longest window, in bars.
pub const WINDOW_MAX: u32 = 100_000;
/// Most results (symbols x parameters) of one sweep.
pub const CELLS_MAX: u64 = 1 << 24;
/// Most bar steps (bars of all symbols x parameters) of one sweep: hours on one core.
pub const STEPS_MAX: u64 = 1 << 46;
const SERIES_MAX: u64 = 1 << 20;
const BARS_MAX: u64 = 1 << 31;

/// One indicator with its parameters. Windows are in bars, `1..=`[`WINDOW_MAX`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SweepSpec {
    /// Exponential mean of closes, seeded by their simple mean.
    Ema {
        /// Bars.
        window: u32,
    },
    /// Wilder's relative strength index, 0 to 100.
    Rsi {
        /// Bars.
        window: u32,
    },
    /// Line, signal and histogram of two exponential means.
    Macd {
        /// Bars of the fast mean.
        fast: u32,
        /// Bars of the slow mean, more than `fast`.
        slow: u32,
        /// Bars of the mean of the line.
        signal: u32,
    },
    /// Wilder's average true range.
    Atr {
        /// Bars.
        window: u32,
    },
    /// Mean of closes and the bands `deviations` population standard deviations around it.
    Bollinger {
        /// Bars. Times the largest price in 1e-9 it must be below 2^64.
        window: u32,
        /// Width of a band, above 0 and at most 100.
        deviations: f64,
    },
}

impl SweepSpec {
    /// The bar, from 0, on which it is first defined.
    #[must_use]
    pub const fn first_defined(&self) -> usize {
        let bar = match *self {
            Self::Ema { window } | Self::Bollinger { window, .. } => window - 1,
            Self::Rsi { window } | Self::Atr { window } => window,
            Self::Macd { slow, signal, .. } => slow + signal - 2,
        };
        bar as usize
    }

    /// Values it has: three of a MACD and of Bollinger bands, else one.
    #[must_use]
    pub const fn columns(&self) -> usize {
        match self {
            Self::Macd { .. } | Self::Bollinger { .. } => 3,
            _ => 1,
        }
    }

    fn check(&self) -> Result<(), BatchError> {
        let window = |name, window: u32| {
            let fits = (1..=WINDOW_MAX).contains(&window);
            BatchError::parameter(name, f64::from(window), |_| fits, "1 to 100000 bars")
        };
        match *self {
            Self::Ema { window: bars } | Self::Rsi { window: bars } | Self::Atr { window: bars } => {
                window("window", bars)
            }
            Self::Macd { fast, slow, signal } => {
                window("fast window", fast)?;
                window("slow window", slow)?;
                window("signal window", signal)?;
                BatchError::parameter(
                    "fast window",
                    f64::from(fast),
                    |_| fast < slow,
                    "less than the slow one",
                )
            }
            Self::Bollinger { window: bars, deviations } => {
                window("window", bars)?;
                let fits = |k| k > 0.0 && k <= 100.0;
                BatchError::parameter("deviations", deviations, fits, "above 0 and at most 100")
            }
        }
    }
}

/// Bars of one symbol, oldest first, prices in 1e-9. The three have one length.
#[derive(Clone, Copy, Debug)]
pub struct SweepSeries<'a> {
    /// Highest prices.
    pub high: &'a [i64],
    /// Lowest prices.
    pub low: &'a [i64],
    /// Last prices, above 0.
    pub close: &'a [i64],
}

/// What to sweep.
#[derive(Clone, Copy, Debug)]
pub struct SweepRequest<'a> {
    /// Symbols; they may differ in length.
    pub series: &'a [SweepSeries<'a>],
    /// Parameters.
    pub specs: &'a [SweepSpec],
    /// A signal is judged by the close so many bars later, from 1.
    pub horizon: u32,
}

/// How a device goes through the bars of a sweep. A matter of time alone: results have the same bits on each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SweepPath {
    /// As suits the shape: stretches where symbols x parameters leave the device idle and bars are many, else lanes.
    #[default]
    Automatic,
    /// A thread per symbol and parameter.
    Lanes,
    /// A thread per stretch of a symbol's bars and parameter. A stretch runs up from a guess; one whose state does not come out as the
    /// one before ended is gone through again from there.
    Stretches {
        /// Bars of a stretch, a multiple of 256.
        length: u32,
        /// Bars to run up over.
        warm: u32,
    },
}

/// What came of one symbol and one indicator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SweepCell {
    /// The indicator's values at the last bar, in the order of the streaming indicator's columns; those it has not are NaN,
    /// and so are all while it is undefined.
    pub values: [f64; 3],
    /// Long signals.
    pub longs: u64,
    /// Short signals.
    pub shorts: u64,
    /// Signals with a bar `horizon` later.
    pub judged: u64,
    /// Of these, how many the price then went along with.
    pub hits: u64,
    /// Sum over these of the return to that bar, a short signal's negated. In bar order.
    pub gain: f64,
    /// The bar of the last signal, from 0.
    pub last_signal: Option<usize>,
}

impl SweepCell {
    /// Mean return per judged signal; `None` without one.
    #[must_use]
    pub fn mean_gain(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.gain / self.judged as f64)
    }

    /// Share of judged signals that the price went along with; `None` without one.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.hits as f64 / self.judged as f64)
    }
}

impl SweepRequest<'_> {
    /// Checks every shape and number; nothing is allocated.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<(), BatchError> {
        BatchError::count("series", self.series.len(), 1, SERIES_MAX)?;
        BatchError::count("indicators", self.specs.len(), 1, CELLS_MAX)?;
        BatchError::count("horizon in bars", self.horizon as usize, 1, BARS_MAX)?;
        let shape = [self.series.len() as u64, self.specs.len() as u64];
        BatchError::product("symbols x indicators", &shape, CELLS_MAX)?;
        self.specs.iter().try_for_each(SweepSpec::check)?;
        let mut bars = 0u64;
        let mut highest = 0u64;
        for series in self.series {
            let count = series.close.len();
            BatchError::count("bars of a symbol", count, 1, BARS_MAX)?;
            BatchError::length("high prices", series.high.len(), count)?;
            BatchError::length("low prices", series.low.len(), count)?;
            bars += count as u64;
            for &close in series.close {
                if close <= 0 {
                    return Err(BatchError::Parameter {
                        name: "close",
                        value: close as f64 / exact::UNIT,
                        allowed: "above 0",
                    });
                }
                highest = highest.max(close.unsigned_abs());
            }
        }
        BatchError::product("bars x indicators", &[bars, self.specs.len() as u64], STEPS_MAX)?;
        for spec in self.specs {
            if let SweepSpec::Bollinger { window, .. } = *spec {
                BatchError::product("window x price in 1e-9", &[window.into(), highest], u64::MAX)?;
            }
        }
        Ok(())
    }

    /// Symbol by symbol, the cells in the order of the specs. On the threads of the pool it is called in.
    pub(crate) fn run(&self) -> Result<Vec<Vec<SweepCell>>, BatchError> {
        self.check()?;
        let groups = kernels::Groups::new(self.specs);
        let rows = self.series.par_iter().map(|series| {
            let bars = kernels::Bars::new(series, self.horizon as usize, self.specs);
            let mut cells = vec![SweepCell::default(); self.specs.len()];
            let parts: Vec<_> = groups.parts().par_iter().map(|part| part.run(&bars)).collect();
            for (part, found) in groups.parts().iter().zip(parts) {
                for (&at, cell) in part.places().iter().zip(found) {
                    cells[at] = cell;
                }
            }
            cells
        });
        Ok(rows.collect())
    }
}
