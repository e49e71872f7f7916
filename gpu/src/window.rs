//! Correlations of a whole window at once: every value is centred and scaled, and the products are summed in single precision.
//!
//! **Equality:** within 1e-5 of the same sums in double precision, up to [`ROWS_MAX`] rows; bit-equal on any number of threads
//! and on a device, as sums have one order.

use crate::BatchError;
use crate::correlation::{Correlation, SYMBOLS_MAX, Spectrum, triangle_len};
use crate::lanes::{LANES, widest};
use crate::product::{Panels, TALL, WIDE, tile};
use rayon::prelude::*;

/// Most rows of a window: beyond it single precision would not hold what the module promises.
pub const ROWS_MAX: u64 = 1 << 13;
/// Most values (rows x symbols) of a window.
pub const VALUES_MAX: u64 = 1 << 26;
/// A symbol whose deviation is less than this share of its mean did not move: what is left is rounding.
const STILL: f64 = 1e-14;

/// Rows of one value per symbol.
#[derive(Clone, Copy, Debug)]
pub struct WindowRequest<'a> {
    /// Row by row, from -1e15 to 1e15.
    pub values: &'a [f64],
    /// Values of a row.
    pub symbols: usize,
}

impl WindowRequest<'_> {
    /// Checks every shape and number; returns how many rows there are.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<usize, BatchError> {
        BatchError::count("symbols", self.symbols, 1, SYMBOLS_MAX)?;
        let rows = self.values.len() / self.symbols;
        BatchError::count("rows of the window", rows, 2, ROWS_MAX)?;
        BatchError::product("rows x symbols", &[rows as u64, self.symbols as u64], VALUES_MAX)?;
        BatchError::length("values", self.values.len(), rows * self.symbols)?;
        BatchError::finite("values", self.values)?;
        match self.values.iter().copied().find(|value| value.abs() > 1e15) {
            Some(value) => Err(BatchError::Parameter { name: "a value", value, allowed: "-1e15 to 1e15" }),
            None => Ok(rows),
        }
    }

    /// Correlations on the threads of the pool it is called in.
    pub(crate) fn run(&self) -> Result<Correlation, BatchError> {
        let rows = self.check()?;
        let (values, scales) = self.standardised();
        let left = Panels::<TALL>::new(&values, rows, self.symbols);
        let right = Panels::<WIDE>::new(&values, rows, self.symbols);
        let mut triangle = vec![0.0; triangle_len(self.symbols)];
        let mut bands: Vec<&mut [f64]> = Vec::with_capacity(left.count());
        let mut rest = &mut triangle[..];
        for first in (0..self.symbols).step_by(TALL) {
            let end = (first + TALL).min(self.symbols);
            let (band, after) = rest.split_at_mut(triangle_len(end) - triangle_len(first));
            rest = after;
            bands.push(band);
        }
        bands.into_par_iter().enumerate().for_each(|(at, band)| {
            let first = at * TALL;
            let last = (first + TALL).min(self.symbols) - 1;
            for strip in 0..=last / WIDE {
                let sums = tile(left.panel(at), right.panel(strip));
                for row in first..=last {
                    let line = &mut band[triangle_len(row) - triangle_len(first)..][..row + 1];
                    for (entry, sum) in line[..row].iter_mut().skip(strip * WIDE).zip(&sums[row - first]) {
                        *entry = bounded(*sum);
                    }
                    line[row] = 1.0;
                }
            }
        });
        Ok(Correlation::whole(self.symbols, triangle, &scales))
    }

    /// The `count` largest eigenvalues of the correlations with their vectors, as [`Correlation::leading`] gives them.
    pub(crate) fn spectrum(&self, count: usize) -> Result<Spectrum, BatchError> {
        self.check()?;
        Correlation::check_leading(self.symbols, count)?;
        self.run()?.leading(count)
    }

    /// Values less their symbol's mean, over the root of its squares' sum; and one over that root, 0 for a symbol that
    /// did not move. Sums over rows are [`LANES`] partial ones, halves onto halves.
    fn standardised(&self) -> (Vec<f32>, Vec<f64>) {
        let symbols = self.symbols;
        let rows = self.values.len() / symbols;
        let mut partial = vec![0.0; LANES * symbols];
        for (row, line) in self.values.chunks_exact(symbols).enumerate() {
            let sums = &mut partial[row % LANES * symbols..][..symbols];
            sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += value);
        }
        let mut means = folded(partial, symbols);
        means.iter_mut().for_each(|mean| *mean /= rows as f64);
        let mut partial = vec![0.0; LANES * symbols];
        for (row, line) in self.values.chunks_exact(symbols).enumerate() {
            let sums = &mut partial[row % LANES * symbols..][..symbols];
            widest(
                #[inline(always)]
                || {
                    for ((sum, value), mean) in sums.iter_mut().zip(line).zip(&means) {
                        let away = value - mean;
                        *sum = away.mul_add(away, *sum);
                    }
                },
            );
        }
        let squares = folded(partial, symbols);
        let scale = |(square, mean): (&f64, &f64)| {
            let moved = *square > (STILL * STILL) * (rows as f64) * (mean * mean) && *square > 1e-290;
            if moved { 1.0 / square.sqrt() } else { 0.0 }
        };
        let scales: Vec<f64> = squares.iter().zip(&means).map(scale).collect();
        let values = self.values.chunks_exact(symbols).flat_map(|line| {
            let line = line.iter().zip(&means).zip(&scales);
            line.map(|((value, mean), scale)| ((value - mean) * scale) as f32)
        });
        (values.collect(), scales)
    }
}

/// What rounding leaves beyond 1.
fn bounded(sum: f32) -> f64 {
    f64::from(sum.clamp(-1.0, 1.0))
}

/// Halves onto halves of [`LANES`] rows.
fn folded(mut partial: Vec<f64>, symbols: usize) -> Vec<f64> {
    let mut lanes = LANES / 2;
    while lanes > 0 {
        let (kept, added) = partial.split_at_mut(lanes * symbols);
        kept.iter_mut().zip(added).for_each(|(sum, more)| *sum += *more);
        lanes /= 2;
    }
    partial.truncate(symbols);
    partial
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Cpu};

    fn unit(at: usize, of: usize) -> f64 {
        f64::from(crate::philox::philox4x32([at as u32, of as u32, 0, 0], [2, 8])[0]) / 4_294_967_296.0 - 0.5
    }

    fn values(rows: usize, symbols: usize) -> Vec<f64> {
        let one = |row: usize, symbol: usize| {
            let market = unit(row, 1 << 20);
            match symbol % 11 {
                3 => 7.25,           // never moves
                5 => 1e9 + market,   // hardly moves
                7 => -1e-9 * market, // the market itself, the other way round
                _ => 3.0 + market * (symbol % 5) as f64 + unit(row, symbol),
            }
        };
        (0..rows).flat_map(|row| (0..symbols).map(move |symbol| one(row, symbol))).collect()
    }

    #[test]
    fn entries_are_within_their_promise_of_the_sums_in_double_precision() {
        for (rows, symbols) in [(2, 1), (3, 2), (31, 7), (64, 70), (513, 40), (2_000, 13)] {
            let values = values(rows, symbols);
            let found =
                Cpu::new(2).unwrap().window_correlation(&WindowRequest { values: &values, symbols }).unwrap();
            let column = |s: usize| values.iter().skip(s).step_by(symbols);
            let mean = |s: usize| column(s).sum::<f64>() / rows as f64;
            let spread = |a: usize, b: usize| {
                let (ma, mb) = (mean(a), mean(b));
                column(a).zip(column(b)).map(|(x, y)| (x - ma) * (y - mb)).sum::<f64>()
            };
            let still: Vec<usize> = (0..symbols).filter(|s| s % 11 == 3).collect();
            assert_eq!(found.still(), still);
            for a in (0..symbols).filter(|s| s % 11 != 3) {
                assert_eq!(found.between(a, a), 1.0);
                for b in (0..a).filter(|s| s % 11 != 3) {
                    let want = spread(a, b) / (spread(a, a) * spread(b, b)).sqrt();
                    assert!((found.between(a, b) - want).abs() < 1e-5, "{rows} x {symbols}: {a} {b}");
                }
                still.iter().for_each(|&b| assert_eq!(found.between(a, b), 0.0));
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let values = values(100, 150);
        let request = WindowRequest { values: &values, symbols: 150 };
        let run = |threads| {
            let cpu = Cpu::new(threads).unwrap();
            (cpu.window_correlation(&request).unwrap(), cpu.window_spectrum(&request, 5).unwrap())
        };
        let (correlation, spectrum) = run(1);
        assert!((correlation.clone(), spectrum.clone()) == run(3));
        assert_eq!(spectrum, correlation.leading(5).unwrap());
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let text =
            |values: &[f64], symbols| WindowRequest { values, symbols }.check().unwrap_err().to_string();
        assert_eq!(text(&[], 0), "symbols: 0; allowed are 1 to 16384");
        assert_eq!(text(&[], 3), "rows of the window: 0; allowed are 2 to 8192");
        assert_eq!(text(&[1.0; 3], 3), "rows of the window: 1; allowed are 2 to 8192");
        assert_eq!(text(&[1.0; 5], 2), "values: length 5, but 4 is needed");
        assert_eq!(text(&[1.0; 8_193], 1), "rows of the window: 8193; allowed are 2 to 8192");
        assert!(text(&[1.0, f64::NAN], 1).starts_with("values[1] is NaN"));
        assert!(text(&[1.0, 1e16], 1).starts_with("a value is"));
        let request = WindowRequest { values: &[1.0, 2.0, 2.0, 1.0], symbols: 2 };
        for count in [0, 3] {
            let error = Cpu::new(1).unwrap().window_spectrum(&request, count).unwrap_err().to_string();
            assert_eq!(error, format!("eigenvalues: {count}; allowed are 1 to 2"));
        }
    }
}
