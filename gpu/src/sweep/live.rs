//! Indicators of one symbol kept up bar by bar: the values that a sweep of all bars so far would give, in time that does not
//! grow with them. Allocates when it is made and never after.
//!
//! **Equality:** bit-equal to [`super::SweepCell::values`] of the same bars: the same recurrences over the same lanes.

use super::exact::{UNIT, bands};
use super::kernels::{Wilder, exponential, reach, settle, strength};
use super::{CELLS_MAX, SweepSpec};
use crate::BatchError;
use crate::lanes::{LANES, widest};

/// A bar as the indicators read it, prices in 1e-9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveBar {
    /// Highest price.
    pub high: i64,
    /// Lowest price.
    pub low: i64,
    /// Last price, above 0.
    pub close: i64,
}

/// What is kept up; the state of a symbol is the caller's, [`Self::state_len`] numbers that begin as 0.
#[derive(Clone, Debug)]
pub struct LiveSweep {
    parts: Vec<Part>,
    state: usize,
    width: usize,
    /// Bars until no lane fills up any more.
    warm: u64,
    /// Longest window of a Bollinger band, in bars; 0 where there is none.
    longest: u32,
}

#[derive(Clone, Debug)]
struct Part {
    kind: Kind,
    /// First number of its state.
    at: usize,
    /// For each lane in use, where its values go, and the bar from 0 on which it is defined.
    lanes: Vec<(usize, u64)>,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few, and their numbers are read for each bar")]
enum Kind {
    Ema { window: Row, k: Row },
    Rsi { wilder: Wilder },
    Atr { wilder: Wilder },
    Macd { windows: [Row; 3], k: [Row; 3] },
    Bollinger { window: u32, deviations: f64 },
}

type Row = [f64; LANES];

fn k_of(window: &Row) -> Row {
    window.map(|window| 2.0 / (window + 1.0))
}

impl LiveSweep {
    /// Keeps up `specs`, whose values come in this order: one each, three of a MACD (line, signal, histogram) and of Bollinger
    /// bands (middle, upper, lower).
    ///
    /// # Errors
    /// [`BatchError`] as a sweep of these indicators.
    pub fn new(specs: &[SweepSpec]) -> Result<Self, BatchError> {
        BatchError::count("indicators", specs.len(), 1, CELLS_MAX)?;
        specs.iter().try_for_each(SweepSpec::check)?;
        let mut places = Vec::with_capacity(specs.len());
        let mut width = 0;
        for spec in specs {
            places.push(width);
            width += spec.columns();
        }
        let rank = |spec: &SweepSpec| match spec {
            SweepSpec::Ema { .. } => 0,
            SweepSpec::Rsi { .. } => 1,
            SweepSpec::Macd { .. } => 2,
            SweepSpec::Atr { .. } => 3,
            SweepSpec::Bollinger { .. } => 4,
        };
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by_key(|&at| (rank(&specs[at]), at));
        let (mut parts, mut state, mut rest) = (Vec::new(), 0, &order[..]);
        while let Some(&first) = rest.first() {
            let kind = rank(&specs[first]);
            let most = if kind == 4 { 1 } else { LANES };
            let count = rest.iter().take(most).take_while(|&&at| rank(&specs[at]) == kind).count();
            let (own, after) = rest.split_at(count);
            rest = after;
            // Lanes to spare take the last one's windows.
            let windows: [Row; 3] = std::array::from_fn(|which| {
                std::array::from_fn(|lane| match specs[own[lane.min(count - 1)]] {
                    SweepSpec::Ema { window }
                    | SweepSpec::Rsi { window }
                    | SweepSpec::Atr { window }
                    | SweepSpec::Bollinger { window, .. } => f64::from(window),
                    SweepSpec::Macd { fast, slow, signal } => f64::from([fast, slow, signal][which]),
                })
            });
            let (kind, numbers) = match specs[first] {
                SweepSpec::Ema { .. } => (Kind::Ema { window: windows[0], k: k_of(&windows[0]) }, LANES),
                SweepSpec::Rsi { .. } => (Kind::Rsi { wilder: Wilder::new(windows[0]) }, 2 * LANES),
                SweepSpec::Atr { .. } => (Kind::Atr { wilder: Wilder::new(windows[0]) }, LANES),
                SweepSpec::Macd { .. } => {
                    (Kind::Macd { windows, k: windows.each_ref().map(k_of) }, 3 * LANES)
                }
                SweepSpec::Bollinger { window, deviations } => (Kind::Bollinger { window, deviations }, 0),
            };
            let lanes = own.iter().map(|&at| (places[at], specs[at].first_defined() as u64)).collect();
            parts.push(Part { kind, at: state, lanes });
            state += numbers;
        }
        let warm = specs.iter().map(|spec| spec.first_defined() as u64 + 1).max().unwrap_or(0);
        let window = |spec: &SweepSpec| match *spec {
            SweepSpec::Bollinger { window, .. } => window,
            _ => 0,
        };
        let longest = specs.iter().map(window).max().unwrap_or(0);
        Ok(Self { parts, state, width, warm, longest })
    }

    /// Numbers of a symbol's state.
    #[must_use]
    pub fn state_len(&self) -> usize {
        self.state
    }

    /// Values of a bar.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bars that [`Self::values`] looks back for, the newest among them.
    #[must_use]
    pub fn lookback(&self) -> u32 {
        self.longest
    }

    /// Takes bar `index` (from 0) of a symbol, whose bar before closed at `previous`.
    ///
    /// # Panics
    /// When `state` has another length.
    pub fn take(&self, state: &mut [f64], index: u64, previous: i64, bar: LiveBar) {
        assert_eq!(state.len(), self.state, "a state of another sweep");
        widest(
            #[inline(always)]
            || {
                if index < self.warm {
                    self.step::<true>(state, index, previous, bar);
                } else {
                    self.step::<false>(state, index, previous, bar);
                }
            },
        );
    }

    #[inline(always)]
    fn step<const WARM: bool>(&self, state: &mut [f64], index: u64, previous: i64, bar: LiveBar) {
        let price = bar.close as f64 / UNIT;
        let at = index as f64;
        for part in &self.parts {
            let rows = state[part.at..].as_chunks_mut::<LANES>().0;
            match &part.kind {
                Kind::Ema { window, k } => {
                    let [held, ..] = rows else { continue };
                    for lane in 0..LANES {
                        held[lane] = exponential::<WARM>(held[lane], price, at, window[lane], k[lane]);
                    }
                }
                Kind::Rsi { wilder } => {
                    let [gain, loss, ..] = rows else { continue };
                    if index == 0 {
                        continue;
                    }
                    let moved = bar.close.abs_diff(previous) as f64;
                    let (up, down) = if bar.close > previous { (moved, 0.0) } else { (0.0, moved) };
                    for lane in 0..LANES {
                        gain[lane] = wilder.mean::<WARM>(lane, gain[lane], up, at - 1.0);
                        loss[lane] = wilder.mean::<WARM>(lane, loss[lane], down, at - 1.0);
                    }
                }
                Kind::Atr { wilder } => {
                    let [held, ..] = rows else { continue };
                    if index == 0 {
                        continue;
                    }
                    let range = reach(bar.high, bar.low, previous);
                    for lane in 0..LANES {
                        held[lane] = wilder.mean::<WARM>(lane, held[lane], range, at - 1.0);
                    }
                }
                Kind::Macd { windows: [fast, slow, signal], k: [kf, ks, kl] } => {
                    let [held_fast, held_slow, mean, ..] = rows else { continue };
                    for lane in 0..LANES {
                        held_slow[lane] =
                            exponential::<WARM>(held_slow[lane], price, at, slow[lane], ks[lane]);
                        let late = at - (slow[lane] - fast[lane]);
                        let next = exponential::<WARM>(held_fast[lane], price, late, fast[lane], kf[lane]);
                        held_fast[lane] = if WARM && late < 0.0 { 0.0 } else { next };
                        let line = held_fast[lane] - held_slow[lane];
                        let since = at - (slow[lane] - 1.0);
                        let next =
                            settle(exponential::<WARM>(mean[lane], line, since, signal[lane], kl[lane]));
                        mean[lane] = if WARM && since < 0.0 { 0.0 } else { next };
                    }
                }
                Kind::Bollinger { .. } => {}
            }
        }
    }

    /// The values after bar `index` into `out`, NaN while undefined. `close` gives closes by how many bars ago they were, 0 for
    /// this bar's, below [`Self::lookback`].
    ///
    /// A Bollinger band whose window times its largest price in 1e-9 is 2^64 or more, which a sweep refuses, is NaN.
    ///
    /// # Panics
    /// When `state` or `out` has another length.
    pub fn values(&self, state: &[f64], index: u64, close: impl Fn(u32) -> i64, out: &mut [f64]) {
        assert_eq!((state.len(), out.len()), (self.state, self.width), "a state or a row of another sweep");
        for part in &self.parts {
            let rows = state[part.at..].as_chunks::<LANES>().0;
            for (lane, &(place, defined)) in part.lanes.iter().enumerate() {
                let found = match &part.kind {
                    _ if index < defined => [f64::NAN; 3],
                    Kind::Ema { .. } | Kind::Atr { .. } => [rows[0][lane], 0.0, 0.0],
                    Kind::Rsi { .. } => [strength(rows[0][lane], rows[1][lane]), 0.0, 0.0],
                    Kind::Macd { .. } => {
                        let (line, mean) = (rows[0][lane] - rows[1][lane], rows[2][lane]);
                        [line, mean, line - mean]
                    }
                    Kind::Bollinger { window, deviations } => band(*window, *deviations, &close),
                };
                let three = matches!(part.kind, Kind::Macd { .. } | Kind::Bollinger { .. });
                let count = if three { 3 } else { 1 };
                out[place..place + count].copy_from_slice(&found[..count]);
            }
        }
    }
}

fn band(window: u32, deviations: f64, close: &impl Fn(u32) -> i64) -> [f64; 3] {
    let highest = (0..window).map(|ago| close(ago).unsigned_abs()).max().unwrap_or(0);
    if u64::from(window).checked_mul(highest).is_none() {
        return [f64::NAN; 3];
    }
    let (mut sum, mut squares) = (0u128, 0u128);
    for ago in 0..window {
        let price = u128::from(close(ago).unsigned_abs());
        sum += price;
        squares += price * price;
    }
    bands(window, deviations, sum, squares)
}
