//! The indicators of job B, written by hand for one bar at a time, by TA-Lib's definitions.
//!
//! Deliberately not the engine's indicators: this is the bar they are measured against.

/// Values per bar: RSI(14), EMA(12), EMA(26), MACD(12, 26), its signal(9), and upper, middle and lower
/// Bollinger(20, 2) bands, in this order.
pub const COLUMNS: usize = 8;

/// Names of the columns, in order.
pub const COLUMN_NAMES: [&str; COLUMNS] =
    ["rsi14", "ema12", "ema26", "macd", "signal", "bb_upper", "bb_middle", "bb_lower"];

const RSI: u32 = 14;
const FAST: u32 = 12;
const SLOW: u32 = 26;
const SIGNAL: u32 = 9;
const BANDS: usize = 20;
/// From this bar on every column has a value: the signal needs 26 bars for its first input and 9 inputs.
const WARM_BARS: u32 = SLOW + SIGNAL - 1;

const K_RSI: f64 = 1.0 / RSI as f64;
const K_FAST: f64 = 2.0 / (FAST as f64 + 1.0);
const K_SLOW: f64 = 2.0 / (SLOW as f64 + 1.0);
const K_SIGNAL: f64 = 2.0 / (SIGNAL as f64 + 1.0);

/// One symbol's state. Averages hold plain sums until their first value is due.
#[derive(Clone, Debug)]
pub struct Indicators {
    bars: u32,
    /// Where in `closes` the oldest one is.
    oldest: u32,
    close: f64,
    gain: f64,
    loss: f64,
    fast: f64,
    slow: f64,
    /// TA-Lib seeds the MACD's fast average where the slow one starts, so it is not EMA(12).
    macd_fast: f64,
    signal: f64,
    sum: f64,
    squares: f64,
    closes: [f64; BANDS],
}

impl Default for Indicators {
    fn default() -> Self {
        Self {
            bars: 0,
            oldest: 0,
            close: 0.0,
            gain: 0.0,
            loss: 0.0,
            fast: 0.0,
            slow: 0.0,
            macd_fast: 0.0,
            signal: 0.0,
            sum: 0.0,
            squares: 0.0,
            closes: [0.0; BANDS],
        }
    }
}

impl Indicators {
    /// Takes one bar's close; returns every column, 0.0 where TA-Lib has no value yet.
    #[inline]
    pub fn update(&mut self, close: f64) -> [f64; COLUMNS] {
        if self.bars < WARM_BARS {
            return self.warm_up(close);
        }
        let change = close - self.close;
        self.close = close;
        self.gain += (change.max(0.0) - self.gain) * K_RSI;
        self.loss += ((-change).max(0.0) - self.loss) * K_RSI;
        self.fast += (close - self.fast) * K_FAST;
        self.slow += (close - self.slow) * K_SLOW;
        self.macd_fast += (close - self.macd_fast) * K_FAST;
        let macd = self.macd_fast - self.slow;
        self.signal += (macd - self.signal) * K_SIGNAL;
        let [upper, middle, lower] = self.slide(close);
        [self.rsi(), self.fast, self.slow, macd, self.signal, upper, middle, lower]
    }

    #[inline]
    fn rsi(&self) -> f64 {
        let both = self.gain + self.loss;
        if both > 0.0 { 100.0 * self.gain / both } else { 0.0 }
    }

    #[inline]
    fn slide(&mut self, close: f64) -> [f64; 3] {
        let old = std::mem::replace(&mut self.closes[self.oldest as usize], close);
        self.oldest = if self.oldest as usize == BANDS - 1 { 0 } else { self.oldest + 1 };
        self.sum += close - old;
        self.squares += close * close - old * old;
        let middle = self.sum * (1.0 / BANDS as f64);
        let width = 2.0 * (self.squares * (1.0 / BANDS as f64) - middle * middle).max(0.0).sqrt();
        [middle + width, middle, middle - width]
    }

    #[cold]
    #[inline(never)]
    fn warm_up(&mut self, close: f64) -> [f64; COLUMNS] {
        self.bars += 1;
        let bars = self.bars;
        let mut row = [0.0; COLUMNS];
        if bars > 1 {
            let change = close - self.close;
            average(&mut self.gain, change.max(0.0), bars - 1, RSI, K_RSI);
            average(&mut self.loss, (-change).max(0.0), bars - 1, RSI, K_RSI);
        }
        self.close = close;
        if bars > RSI {
            row[0] = self.rsi();
        }
        if average(&mut self.fast, close, bars, FAST, K_FAST) {
            row[1] = self.fast;
        }
        if average(&mut self.slow, close, bars, SLOW, K_SLOW) {
            row[2] = self.slow;
        }
        if bars > SLOW - FAST && average(&mut self.macd_fast, close, bars - (SLOW - FAST), FAST, K_FAST) {
            row[3] = self.macd_fast - self.slow;
            if average(&mut self.signal, row[3], bars - (SLOW - 1), SIGNAL, K_SIGNAL) {
                row[4] = self.signal;
            }
        }
        let bands = self.slide(close);
        if bars as usize >= BANDS {
            row[5..].copy_from_slice(&bands);
        }
        row
    }
}

/// Feeds the `nth` value (from 1) of an average whose first result is the mean of `period` values. Returns whether
/// there is a result.
fn average(state: &mut f64, value: f64, nth: u32, period: u32, k: f64) -> bool {
    if nth > period {
        *state += (value - *state) * k;
    } else {
        *state += value;
        if nth == period {
            *state /= f64::from(period);
        }
    }
    nth >= period
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::w1::Xoshiro256;

    /// Exponential average over the whole series, seeded by the mean of its first `period` values.
    fn ema(values: &[f64], period: usize, k: f64) -> Vec<f64> {
        let mut all = vec![f64::NAN; values.len()];
        for i in period - 1..values.len() {
            all[i] = if i == period - 1 {
                values[..period].iter().sum::<f64>() / period as f64
            } else {
                all[i - 1] + k * (values[i] - all[i - 1])
            };
        }
        all
    }

    #[test]
    fn every_column_is_the_textbook_one() {
        let mut rng = Xoshiro256::new(3);
        let mut price = 10_000i64;
        let closes: Vec<f64> = (0..300)
            .map(|_| {
                price += rng.below(11) as i64 - 5;
                price as f64 / 100.0
            })
            .collect();
        let changes: Vec<f64> = closes.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let gains = ema(&changes.iter().map(|c| c.max(0.0)).collect::<Vec<_>>(), 14, 1.0 / 14.0);
        let losses = ema(&changes.iter().map(|c| (-c).max(0.0)).collect::<Vec<_>>(), 14, 1.0 / 14.0);
        let (fast, slow) = (ema(&closes, 12, 2.0 / 13.0), ema(&closes, 26, 2.0 / 27.0));
        let macd_fast = ema(&closes[14..], 12, 2.0 / 13.0);
        let macd: Vec<f64> = (25..closes.len()).map(|i| macd_fast[i - 14] - slow[i]).collect();
        let signal = ema(&macd, 9, 0.2);
        let mut state = Indicators::default();
        for (i, &close) in closes.iter().enumerate() {
            let row = state.update(close);
            let mut expected = [f64::NAN; COLUMNS];
            if i > 0 {
                expected[0] = 100.0 * gains[i - 1] / (gains[i - 1] + losses[i - 1]);
            }
            (expected[1], expected[2]) = (fast[i], slow[i]);
            if i >= 25 {
                (expected[3], expected[4]) = (macd[i - 25], signal[i - 25]);
            }
            if i >= 19 {
                let window = &closes[i - 19..=i];
                let mean = window.iter().sum::<f64>() / 20.0;
                let deviation = (window.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / 20.0).sqrt();
                (expected[5], expected[6], expected[7]) =
                    (mean + 2.0 * deviation, mean, mean - 2.0 * deviation);
            }
            for ((value, expected), name) in row.iter().zip(expected).zip(COLUMN_NAMES) {
                let expected = if expected.is_nan() { 0.0 } else { expected };
                assert!((value - expected).abs() < 1e-7, "{name} at {i}: {value}, expected {expected}");
            }
        }
    }
}
