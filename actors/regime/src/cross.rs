//! The cross-section: how much of many symbols' moves is one move, and how unusual the newest one is.
//!
//! From the correlations of the last rows of returns, as each row comes:
//! - *mode share*: the largest eigenvalue over their sum, the part of all variance that is the market's own move;
//! - *effective rank*: the exponential of the entropy of the eigenvalues' shares (Roy and Vetterli, "The effective rank", 2007),
//!   how many independent moves there seem to be;
//! - *absorption*: the share of the largest fifth of as many eigenvalues as symbols (Kritzman, Li, Page and Rigobon, "Principal
//!   components as a measure of systemic risk", 2011), here of correlations, so that loud symbols do not count for more;
//! - *turbulence*: the newest row's squared Mahalanobis distance over the number of symbols (Kritzman and Li, "Skulls, financial
//!   turbulence, and risk management", 2010), around 1 for a row like the others, against the rows before it alone. Where
//!   symbols are many and rows few correlations are not invertible, so they are drawn towards none by `shrink`.
//!
//! What the last readings are like together, by name, is in [`CrossRegimes`].
//!
//! All of it is computed from the Gram matrix of the rows, so that a row costs the cube of the window, whatever the symbols.

mod label;

pub use label::{CrossLabel, CrossRegime, CrossRegimes, MEMORY, regime};

use crate::error::RegimeError;
use nalgebra::{Cholesky, DMatrix, DVector};

/// Longest window, in rows.
pub const ROWS_MAX: usize = 512;
/// Most symbols.
pub const SYMBOLS_MAX: usize = 16_384;

/// How a cross-section is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossOptions {
    /// Rows that correlations are of: 4 to [`ROWS_MAX`].
    pub rows: usize,
    /// How far correlations are drawn towards none for the turbulence: above 0, at most 1.
    pub shrink: f64,
}

impl Default for CrossOptions {
    fn default() -> Self {
        Self { rows: 60, shrink: 0.1 }
    }
}

/// What a row shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossReading {
    /// Symbols that had a return in every row of the window, and not the same in all.
    pub symbols: usize,
    /// Mean correlation of two symbols: -1 to 1.
    pub correlation: f64,
    /// Share of the first eigenvalue: 0 to 1.
    pub mode_share: f64,
    /// Independent moves: 1 to `symbols`.
    pub effective_rank: f64,
    /// Share of the first fifth of the eigenvalues: 0 to 1.
    pub absorption: f64,
    /// Of this row against the window before it; `None` while there is none.
    pub turbulence: Option<f64>,
}

/// The last rows of many symbols' returns.
#[derive(Debug, Clone)]
pub struct CrossSection {
    options: CrossOptions,
    symbols: usize,
    /// A ring of rows, one behind the other.
    kept: Vec<f64>,
    /// Rows seen.
    seen: u64,
    /// Eigenvalues of the last reading, largest first.
    values: Vec<f64>,
}

/// Standardised returns of those symbols that can be correlated, row by row.
struct Standard {
    /// Each symbol's number, mean and deviation.
    symbols: Vec<(usize, f64, f64)>,
    rows: DMatrix<f64>,
}

impl Standard {
    /// The products of all pairs of rows, summed in the order of the symbols: a product of matrices would follow the vector
    /// units of the machine.
    fn gram(&self) -> DMatrix<f64> {
        let count = self.rows.nrows();
        let columns = self.rows.transpose();
        let mut gram = DMatrix::zeros(count, count);
        for a in 0..count {
            for b in 0..=a {
                let product: f64 =
                    columns.column(a).iter().zip(columns.column(b).iter()).map(|(x, y)| x * y).sum();
                gram[(a, b)] = product;
                gram[(b, a)] = product;
            }
        }
        gram
    }
}

impl CrossSection {
    /// Without rows of so many symbols.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] for options or a number of symbols out of range.
    pub fn new(symbols: usize, options: CrossOptions) -> Result<Self, RegimeError> {
        let CrossOptions { rows, shrink } = options;
        RegimeError::check("rows", rows as f64, (4..=ROWS_MAX).contains(&rows), "4 to 512")?;
        let known = (2..=SYMBOLS_MAX).contains(&symbols);
        RegimeError::check("symbols", symbols as f64, known, "2 to 16384")?;
        RegimeError::check("shrink", shrink, shrink > 0.0 && shrink <= 1.0, "above 0, at most 1")?;
        Ok(Self { options, symbols, kept: Vec::with_capacity(rows * symbols), seen: 0, values: Vec::new() })
    }

    /// Takes a return of every symbol, NaN for one that has none, and says what the window shows once it is full and two
    /// symbols can be correlated.
    ///
    /// # Errors
    /// [`RegimeError`] when the row has another length, or a value that is infinite or beyond 1e100; nothing is changed.
    pub fn update(&mut self, row: &[f64]) -> Result<Option<CrossReading>, RegimeError> {
        self.check(row)?;
        let full = self.kept.len() == self.options.rows * self.symbols;
        // Before the row is among them.
        let turbulence = if full { self.turbulence(row) } else { None };
        self.keep(row);
        Ok(self.standard().and_then(|standard| self.reading(&standard, turbulence)))
    }

    /// Takes a row as [`Self::update`] does, and says nothing: for who has no use for this row's reading.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn take(&mut self, row: &[f64]) -> Result<(), RegimeError> {
        self.check(row)?;
        self.keep(row);
        Ok(())
    }

    fn check(&self, row: &[f64]) -> Result<(), RegimeError> {
        RegimeError::length("row", row.len(), self.symbols)?;
        match row.iter().position(|value| value.abs() > 1e100) {
            None => Ok(()),
            Some(index) => Err(RegimeError::NotFinite { index, value: row[index] }),
        }
    }

    /// Puts itself where it would be after `seen` rows of which the last were `rows`, oldest first and one behind the other: all
    /// of them, or as many as the window has. For rows that changed after they were taken.
    ///
    /// # Errors
    /// [`RegimeError`] when there are more or fewer rows, or a value is infinite or beyond 1e100; nothing is changed.
    pub fn refill(&mut self, seen: u64, rows: &[f64]) -> Result<(), RegimeError> {
        let count = usize::try_from(seen).unwrap_or(usize::MAX).min(self.options.rows);
        RegimeError::length("rows", rows.len(), count * self.symbols)?;
        if let Some(index) = rows.iter().position(|value| value.abs() > 1e100) {
            return Err(RegimeError::NotFinite { index, value: rows[index] });
        }
        self.kept.clear();
        // A row has its place in the ring.
        self.kept.resize(count * self.symbols, f64::NAN);
        for (number, row) in (seen - count as u64..).zip(rows.chunks_exact(self.symbols)) {
            let at = (number % self.options.rows as u64) as usize * self.symbols;
            self.kept[at..at + self.symbols].copy_from_slice(row);
        }
        self.seen = seen;
        Ok(())
    }

    /// Symbols.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.symbols
    }

    /// Eigenvalues of the last reading's correlations, largest first, those that are 0 for want of rows left out.
    #[must_use]
    pub fn eigenvalues(&self) -> &[f64] {
        &self.values
    }

    fn keep(&mut self, row: &[f64]) {
        if self.kept.len() == self.options.rows * self.symbols {
            let at = self.place(0) * self.symbols;
            self.kept[at..at + self.symbols].copy_from_slice(row);
        } else {
            self.kept.extend_from_slice(row);
        }
        self.seen += 1;
    }

    /// Where the ring has the `row`-th oldest of its rows, once it is full. What is summed is summed in the order of time, so that a
    /// reading follows from its rows alone.
    fn place(&self, row: usize) -> usize {
        (self.seen + row as u64) as usize % self.options.rows
    }

    /// `None` while the window is not full, or fewer than two symbols are.
    fn standard(&self) -> Option<Standard> {
        let (count, rows) = (self.symbols, self.options.rows);
        if self.kept.len() < rows * count {
            return None;
        }
        let mut symbols = Vec::new();
        for symbol in 0..count {
            let column = || (0..rows).map(|row| self.kept[self.place(row) * count + symbol]);
            let mean = column().sum::<f64>() / rows as f64;
            let squares = column().map(|value| (value - mean) * (value - mean)).sum::<f64>();
            let deviation = (squares / (rows - 1) as f64).sqrt();
            // Rounding alone is no variance. Not a number compares as false.
            if deviation > mean.abs() * 1e-12 && deviation > 0.0 {
                symbols.push((symbol, mean, deviation));
            }
        }
        if symbols.len() < 2 {
            return None;
        }
        let rows = DMatrix::from_fn(rows, symbols.len(), |row, at| {
            let (symbol, mean, deviation) = symbols[at];
            (self.kept[self.place(row) * count + symbol] - mean) / deviation
        });
        Some(Standard { symbols, rows })
    }

    fn reading(&mut self, standard: &Standard, turbulence: Option<f64>) -> Option<CrossReading> {
        let symbols = standard.symbols.len();
        // The eigenvalues of the correlations, but for zeros.
        let gram = standard.gram() / (self.options.rows - 1) as f64;
        let mut values: Vec<f64> = gram.symmetric_eigenvalues().iter().map(|value| value.max(0.0)).collect();
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        values.truncate(symbols);
        let sum: f64 = values.iter().sum();
        if !(sum > 0.0) {
            return None;
        }
        let shares = || values.iter().map(|value| value / sum);
        let entropy: f64 = shares().filter(|&share| share > 0.0).map(|share| -share * libm::log(share)).sum();
        // The sum over all pairs is what all symbols together vary by, less what each does.
        let together: f64 = standard.rows.row_iter().map(|row| row.sum() * row.sum()).sum();
        let together = together / (self.options.rows - 1) as f64;
        let pairs = (symbols * (symbols - 1)) as f64;
        let found = CrossReading {
            symbols,
            correlation: ((together - symbols as f64) / pairs).clamp(-1.0, 1.0),
            mode_share: values[0] / sum,
            effective_rank: libm::exp(entropy),
            absorption: shares().take(symbols.div_ceil(5)).sum(),
            turbulence,
        };
        self.values = values;
        Some(found)
    }

    /// By the Woodbury identity: with `Z` the standardised rows, the shrunken correlations are `a Z'Z + s I`, and
    /// `z' (a Z'Z + s I)^-1 z = (z'z - (Zz)' (s/a I + Z Z')^-1 Zz) / s`.
    fn turbulence(&self, row: &[f64]) -> Option<f64> {
        let standard = self.standard()?;
        let of = |&(symbol, mean, deviation): &(usize, f64, f64)| (row[symbol] - mean) / deviation;
        let newest = DVector::from_iterator(standard.symbols.len(), standard.symbols.iter().map(of));
        if newest.iter().any(|value| value.is_nan()) {
            return None;
        }
        let (shrink, symbols) = (self.options.shrink, standard.symbols.len() as f64);
        let squares = newest.dot(&newest);
        let weight = (1.0 - shrink) / (self.options.rows - 1) as f64;
        if weight == 0.0 {
            return Some(squares / symbols);
        }
        let mut gram = standard.gram();
        for at in 0..self.options.rows {
            gram[(at, at)] += shrink / weight;
        }
        let shadow = DVector::from_fn(self.options.rows, |row, _| {
            standard.rows.row(row).iter().zip(newest.iter()).map(|(a, b)| a * b).sum::<f64>()
        });
        let solved = Cholesky::new(gram)?.solve(&shadow);
        let distance = (squares - shadow.dot(&solved)) / shrink;
        distance.is_finite().then_some(distance.max(0.0) / symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    fn rows(seed: u64, rows: usize, symbols: usize, common: f64) -> Vec<Vec<f64>> {
        let mut random = Random(seed);
        let own = (1.0 - common * common).sqrt();
        (0..rows)
            .map(|_| {
                let market = random.bell();
                (0..symbols).map(|_| common * market + own * random.bell()).collect()
            })
            .collect()
    }

    fn last(rows: &[Vec<f64>], options: CrossOptions) -> CrossReading {
        let mut cross = CrossSection::new(rows[0].len(), options).unwrap();
        let mut reading = None;
        for row in rows {
            reading = cross.update(row).unwrap();
        }
        reading.unwrap()
    }

    /// The same from the matrix of correlations itself.
    fn slow(rows: &[Vec<f64>], options: CrossOptions) -> CrossReading {
        let symbols = rows[0].len();
        let correlations = |window: &[Vec<f64>]| {
            let count = window.len() as f64;
            let mean = |at: usize| window.iter().map(|row| row[at]).sum::<f64>() / count;
            let covariance = DMatrix::from_fn(symbols, symbols, |a, b| {
                let (mean_a, mean_b) = (mean(a), mean(b));
                window.iter().map(|row| (row[a] - mean_a) * (row[b] - mean_b)).sum::<f64>() / (count - 1.0)
            });
            let deviations: Vec<f64> = (0..symbols).map(|at| covariance[(at, at)].sqrt()).collect();
            let means: Vec<f64> = (0..symbols).map(mean).collect();
            let correlations = DMatrix::from_fn(symbols, symbols, |a, b| {
                covariance[(a, b)] / (deviations[a] * deviations[b])
            });
            (means, deviations, correlations)
        };
        let (_, _, now) = correlations(&rows[rows.len() - options.rows..]);
        let mut values: Vec<f64> = now.symmetric_eigenvalues().iter().copied().collect();
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        let sum: f64 = values.iter().sum();
        let entropy: f64 = values
            .iter()
            .filter(|&&value| value > 1e-12)
            .map(|value| -(value / sum) * (value / sum).ln())
            .sum();
        let off: f64 = now.sum() - symbols as f64;
        let before = &rows[rows.len() - 1 - options.rows..rows.len() - 1];
        let (means, deviations, before) = correlations(before);
        let shrunk = before * (1.0 - options.shrink) + DMatrix::identity(symbols, symbols) * options.shrink;
        let newest =
            DVector::from_fn(symbols, |at, _| (rows[rows.len() - 1][at] - means[at]) / deviations[at]);
        let distance = newest.dot(&(shrunk.try_inverse().unwrap() * &newest));
        CrossReading {
            symbols,
            correlation: off / (symbols * (symbols - 1)) as f64,
            mode_share: values[0] / sum,
            effective_rank: entropy.exp(),
            absorption: values.iter().take(symbols.div_ceil(5)).sum::<f64>() / sum,
            turbulence: Some(distance / symbols as f64),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn it_is_what_the_correlations_say(
            seed in any::<u64>(), symbols in 2..30usize, window in 4..40usize, common in 0.0..0.95f64, shrink in 0.02..1.0f64,
        ) {
            let options = CrossOptions { rows: window, shrink };
            let rows = rows(seed, window + 1 + (seed % 7) as usize, symbols, common);
            let (found, wanted) = (last(&rows, options), slow(&rows, options));
            prop_assert_eq!(found.symbols, wanted.symbols);
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-7 * (1.0 + b.abs());
            prop_assert!(close(found.correlation, wanted.correlation), "{:?} {:?}", found, wanted);
            prop_assert!(close(found.mode_share, wanted.mode_share), "{:?} {:?}", found, wanted);
            prop_assert!(close(found.effective_rank, wanted.effective_rank), "{:?} {:?}", found, wanted);
            prop_assert!(close(found.absorption, wanted.absorption), "{:?} {:?}", found, wanted);
            prop_assert!(close(found.turbulence.unwrap(), wanted.turbulence.unwrap()), "{:?} {:?}", found, wanted);
        }

        /// Whatever came before the window, and wherever the ring stands: to the bit.
        #[test]
        fn a_reading_follows_from_its_rows_alone(seed in any::<u64>(), window in 4..20usize, before in 0..30usize) {
            let options = CrossOptions { rows: window, shrink: 0.1 };
            let rows = rows(seed, before + window + 1, 5, 0.5);
            let mut fresh = CrossSection::new(5, options).unwrap();
            let (newest, older) = rows[before..].split_last().unwrap();
            older.iter().for_each(|row| fresh.take(row).unwrap());
            prop_assert_eq!(fresh.update(newest).unwrap(), Some(last(&rows, options)));
        }

        #[test]
        fn units_do_not_matter(seed in any::<u64>(), scale in 1e-6..1e6f64) {
            let rows = rows(seed, 30, 8, 0.5);
            let scaled: Vec<Vec<f64>> =
                rows.iter().map(|row| row.iter().enumerate().map(|(at, x)| x * if at % 2 == 0 { scale } else { 1.0 }).collect()).collect();
            let options = CrossOptions { rows: 20, shrink: 0.1 };
            let (a, b) = (last(&rows, options), last(&scaled, options));
            prop_assert!((a.mode_share - b.mode_share).abs() < 1e-9);
            prop_assert!((a.turbulence.unwrap() - b.turbulence.unwrap()).abs() < 1e-6);
        }
    }

    #[test]
    fn one_market_is_told_from_many() {
        let options = CrossOptions { rows: 400, shrink: 0.1 };
        let (apart, coupled) = (last(&rows(1, 401, 20, 0.0), options), last(&rows(2, 401, 20, 0.9), options));
        // A common part of correlation c^2 leaves a first eigenvalue of 1 + (n - 1) c^2.
        assert!((coupled.mode_share - (1.0 + 19.0 * 0.81) / 20.0).abs() < 0.03, "{coupled:?}");
        assert!((coupled.correlation - 0.81).abs() < 0.03 && apart.correlation.abs() < 0.03);
        assert!(apart.mode_share < 0.1 && apart.effective_rank > 19.0 && coupled.effective_rank < 4.0);
        assert!(coupled.absorption > 0.8 && apart.absorption < 0.35);
    }

    #[test]
    fn a_row_unlike_the_others_is_turbulent() {
        let options = CrossOptions { rows: 100, shrink: 0.1 };
        let mut rows = rows(3, 101, 10, 0.8);
        let calm = last(&rows, options).turbulence.unwrap();
        // No larger than others, but against the market.
        rows[100] = (0..10).map(|at| if at % 2 == 0 { 1.5 } else { -1.5 }).collect();
        let torn = last(&rows, options).turbulence.unwrap();
        assert!(calm < 2.5 && torn > 5.0, "{calm} {torn}");
    }

    #[test]
    fn symbols_without_returns_are_left_out() {
        let mut cross = CrossSection::new(4, CrossOptions { rows: 4, shrink: 0.5 }).unwrap();
        let mut reading = None;
        for at in 0..6 {
            let x = f64::from(at * at % 5);
            reading = cross.update(&[x, -x, 7.0, if at == 3 { f64::NAN } else { x }]).unwrap();
            assert_eq!(reading.is_some(), at >= 3);
        }
        let reading = reading.unwrap();
        assert_eq!(reading.symbols, 2, "one never moves, one has a hole");
        assert!((reading.correlation + 1.0).abs() < 1e-12 && (reading.mode_share - 1.0).abs() < 1e-12);
        assert!((reading.effective_rank - 1.0).abs() < 1e-6);
    }

    #[test]
    fn rows_that_were_put_in_afterwards_give_the_same_bits() {
        let options = CrossOptions { rows: 7, shrink: 0.1 };
        let rows = rows(5, 30, 4, 0.5);
        for seen in 0..29 {
            let mut plain = CrossSection::new(4, options).unwrap();
            rows[..seen].iter().for_each(|row| plain.take(row).unwrap());
            let mut filled = CrossSection::new(4, options).unwrap();
            filled.update(&rows[29]).unwrap();
            let kept = rows[seen.saturating_sub(7)..seen].concat();
            filled.refill(seen as u64, &kept).unwrap();
            assert!(filled.refill(seen as u64 + 1, &kept[..kept.len() / 2]).is_err());
            for row in &rows[seen..] {
                let (a, b) = (plain.update(row).unwrap(), filled.update(row).unwrap());
                assert_eq!(format!("{a:?}"), format!("{b:?}"));
                let Some(reading) = a else { continue };
                assert_eq!(plain.eigenvalues(), filled.eigenvalues());
                let sum: f64 = plain.eigenvalues().iter().sum();
                assert!((sum - 4.0).abs() < 1e-9 && plain.eigenvalues()[0] / sum == reading.mode_share);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let options = CrossOptions::default();
        assert!(CrossSection::new(1, options).is_err() && CrossSection::new(1 << 20, options).is_err());
        for rows in [3, 513] {
            assert!(CrossSection::new(5, CrossOptions { rows, ..options }).is_err());
        }
        for shrink in [0.0, -1.0, 1.1, f64::NAN] {
            assert!(CrossSection::new(5, CrossOptions { shrink, ..options }).is_err());
        }
        let mut cross = CrossSection::new(2, options).unwrap();
        assert!(cross.update(&[1.0]).is_err());
        assert!(cross.update(&[1.0, f64::INFINITY]).is_err());
        assert!(cross.update(&[1.0, f64::NAN]).unwrap().is_none());
    }
}
