//! Correlations of many symbols, kept up bar by bar, and the leading part of their spectrum.
//!
//! **Equality:** exponential within 1e-5 of the same sums in double precision, rolling within 1e-10; bit-equal on any
//! number of threads and on a device, as every entry is updated alone, and as the sums of the eigenvalues have one order.

use crate::BatchError;
use crate::lanes::widest;
use crate::spectrum::{CpuSteps, lanczos};

/// Most symbols: the lower triangle is then 128 Mi entries.
pub const SYMBOLS_MAX: u64 = 1 << 14;
/// Longest rolling window, in rows.
pub const WINDOW_MAX: u64 = 1 << 16;
/// Most entries (window x symbols) a rolling window keeps.
pub const KEPT_MAX: u64 = 1 << 28;
const LEADING_MAX: u64 = 64;
/// Fewest entries of a triangle worth a second thread.
const PARALLEL: usize = 1 << 17;

/// Exponentially weighted covariances around an exponentially weighted mean: a rank-1 update of a triangle per row.
#[derive(Clone, Debug)]
pub struct EwCorrelation {
    decay: f64,
    means: Means,
    /// Row by row, up to the diagonal.
    triangle: Vec<f32>,
}

/// The mean so far, and how far the last row lay from the one before it.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    fresh: f64,
    means: Vec<f64>,
    offsets: Vec<f32>,
    rows: u64,
}

impl Means {
    /// Takes a row; of the first the offsets are 0.
    pub(crate) fn take(&mut self, row: &[f64]) -> &[f32] {
        self.rows += 1;
        if self.rows == 1 {
            self.means.copy_from_slice(row);
            self.offsets.fill(0.0);
            return &self.offsets;
        }
        for ((mean, offset), value) in self.means.iter_mut().zip(&mut self.offsets).zip(row) {
            let away = value - *mean;
            *offset = away as f32;
            *mean += self.fresh * away;
        }
        &self.offsets
    }
}

impl EwCorrelation {
    /// No rows of `symbols` yet. A row `k` back weighs `decay^k`; `0 < decay < 1`.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn new(symbols: usize, decay: f64) -> Result<Self, BatchError> {
        BatchError::count("symbols", symbols, 1, SYMBOLS_MAX)?;
        BatchError::parameter("decay", decay, |x| x > 0.0 && x < 1.0, "between 0 and 1")?;
        let triangle = vec![0.0; triangle_len(symbols)];
        let (means, offsets) = (vec![0.0; symbols], vec![0.0; symbols]);
        let means = Means { fresh: 1.0 - decay, means, offsets, rows: 0 };
        Ok(Self { decay, means, triangle })
    }

    /// Takes one value of every symbol. With `m` the mean so far and `d = row - m`: `C = decay (C + (1 - decay) d d')`,
    /// `m += (1 - decay) d`. The first row is the first mean. Allocates nothing.
    ///
    /// # Errors
    /// [`BatchError`] when the row has another length or holds what is not finite or, less the mean, beyond 1e15; nothing is changed.
    pub fn update(&mut self, row: &[f64]) -> Result<(), BatchError> {
        BatchError::length("row", row.len(), self.symbols())?;
        self.take(row)
    }

    /// Checks rows of one value per symbol; returns how many there are.
    pub(crate) fn check_rows(&self, rows: &[f64]) -> Result<usize, BatchError> {
        let count = rows.len() / self.symbols();
        BatchError::length("rows", rows.len(), count * self.symbols())?;
        BatchError::finite("row", rows)?;
        if let Some(value) = rows.iter().copied().find(|value| value.abs() > 1e15) {
            return Err(BatchError::Parameter { name: "a value", value, allowed: "-1e15 to 1e15" });
        }
        Ok(count)
    }

    /// Takes rows of one value per symbol, each as [`Self::update`] does.
    pub(crate) fn take(&mut self, rows: &[f64]) -> Result<(), BatchError> {
        self.check_rows(rows)?;
        let (keep, add) = self.factors();
        for row in rows.chunks_exact(self.symbols()) {
            let first = self.means.rows == 0;
            let offsets = self.means.take(row);
            if first {
                continue;
            }
            bands(&mut self.triangle, offsets.len(), &|first, band| {
                widest(
                    #[inline(always)]
                    || {
                        let mut at = 0;
                        for (row, &own) in offsets.iter().enumerate().skip(first) {
                            let Some(line) = band.get_mut(at..at + row + 1) else { break };
                            at += row + 1;
                            let own = own * add;
                            for (entry, other) in line.iter_mut().zip(offsets) {
                                *entry = own.mul_add(*other, keep * *entry);
                            }
                        }
                    },
                );
            });
        }
        Ok(())
    }

    /// Symbols.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.means.means.len()
    }

    /// What an entry keeps of itself, and what it takes of the new product.
    pub(crate) fn factors(&self) -> (f32, f32) {
        (self.decay as f32, (self.decay * self.means.fresh) as f32)
    }

    pub(crate) fn clone_means(&self) -> Means {
        self.means.clone()
    }

    pub(crate) fn adopt(&mut self, means: Means) {
        self.means = means;
    }

    pub(crate) fn triangle_mut(&mut self) -> &mut [f32] {
        &mut self.triangle
    }

    /// Rows taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.means.rows
    }

    /// Covariance of two symbols.
    ///
    /// # Panics
    /// When one of them does not exist.
    #[must_use]
    pub fn covariance(&self, a: usize, b: usize) -> f64 {
        assert!(a.max(b) < self.symbols(), "there is no such symbol");
        self.triangle[place(a, b)].into()
    }

    /// The correlation matrix as of now.
    #[must_use]
    pub fn correlation(&self) -> Correlation {
        Correlation::from_triangle(self.symbols(), |at| self.triangle[at].into())
    }
}

/// Correlations of the last `window` rows.
///
/// Sums are taken around the first row, and each window's anew from nothing while the last one's is in use, so that
/// rounding does not pile up however long it runs: three products per entry and row, and no jump in the time.
#[derive(Clone, Debug)]
pub struct RollingCorrelation {
    symbols: usize,
    window: usize,
    origin: Vec<f64>,
    /// The last rows less the origin, a ring.
    kept: Vec<f64>,
    /// Sums over the window, and over the rows since `next` began.
    sums: Sums,
    next: Sums,
    rows: u64,
}

#[derive(Clone, Debug)]
struct Sums {
    ones: Vec<f64>,
    triangle: Vec<f64>,
}

impl RollingCorrelation {
    /// No rows of `symbols` yet.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn new(symbols: usize, window: usize) -> Result<Self, BatchError> {
        BatchError::count("symbols", symbols, 1, SYMBOLS_MAX)?;
        BatchError::count("window", window, 2, WINDOW_MAX)?;
        BatchError::product("window x symbols", &[window as u64, symbols as u64], KEPT_MAX)?;
        let sums = Sums { ones: vec![0.0; symbols], triangle: vec![0.0; triangle_len(symbols)] };
        let kept = vec![0.0; symbols * window];
        Ok(Self { symbols, window, origin: vec![0.0; symbols], kept, next: sums.clone(), sums, rows: 0 })
    }

    /// Takes one value of every symbol. Allocates nothing.
    ///
    /// # Errors
    /// [`BatchError`] when the row has another length or holds what is not finite; nothing is changed.
    pub fn update(&mut self, row: &[f64]) -> Result<(), BatchError> {
        BatchError::length("row", row.len(), self.symbols)?;
        BatchError::finite("row", row)?;
        if self.rows == 0 {
            self.origin.copy_from_slice(row);
        }
        let slot = (self.rows % self.window as u64) as usize;
        let place = slot * self.symbols..(slot + 1) * self.symbols;
        let full = self.rows >= self.window as u64;
        // Leaves first, while the ring still has it.
        if full {
            self.sums.add(&self.kept[place.clone()], -1.0);
        }
        let kept = &mut self.kept[place];
        for ((kept, value), origin) in kept.iter_mut().zip(row).zip(&self.origin) {
            *kept = value - origin;
        }
        self.sums.add(kept, 1.0);
        self.next.add(kept, 1.0);
        self.rows += 1;
        if self.rows.is_multiple_of(self.window as u64) {
            std::mem::swap(&mut self.sums, &mut self.next);
            self.next.ones.fill(0.0);
            self.next.triangle.fill(0.0);
        }
        Ok(())
    }

    /// Checks rows of one value per symbol; returns how many there are.
    pub(crate) fn check_rows(&self, rows: &[f64]) -> Result<usize, BatchError> {
        let count = rows.len() / self.symbols;
        BatchError::length("rows", rows.len(), count * self.symbols)?;
        BatchError::count("rows", count, 0, u32::MAX.into())?;
        BatchError::finite("row", rows)?;
        Ok(count)
    }

    /// Takes rows of one value per symbol, each as [`Self::update`] does.
    pub(crate) fn take(&mut self, rows: &[f64]) -> Result<(), BatchError> {
        self.check_rows(rows)?;
        rows.chunks_exact(self.symbols).try_for_each(|row| self.update(row))
    }

    /// As [`Self::take`], with the sums of products rolled on elsewhere: `roll` gets the rows of the window, oldest first, and behind
    /// them the new ones, all less the origin; then how many rows there were before, and both sums, which it must leave as they
    /// are when it fails.
    pub(crate) fn take_with<E: From<BatchError>>(
        &mut self,
        rows: &[f64],
        roll: impl FnOnce(&[f64], u64, &mut Vec<f64>, &mut Vec<f64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let count = self.check_rows(rows)?;
        let (symbols, held) = (self.symbols, self.rows());
        let mut history = Vec::with_capacity((held + count) * symbols);
        let oldest = if self.rows > held as u64 { (self.rows % self.window as u64) as usize } else { 0 };
        let (newer, older) = self.kept[..held * symbols].split_at(oldest * symbols);
        history.extend_from_slice(older);
        history.extend_from_slice(newer);
        let without = |sums: &Sums| Sums { ones: sums.ones.clone(), triangle: Vec::new() };
        let (sums, next) = (without(&self.sums), without(&self.next));
        let (origin, kept) = (self.origin.clone(), self.kept.clone());
        let mut after = Self { symbols, window: self.window, origin, kept, sums, next, rows: self.rows };
        for row in rows.chunks_exact(symbols) {
            let slot = (after.rows % self.window as u64) as usize;
            after.update(row)?;
            history.extend_from_slice(&after.kept[slot * symbols..(slot + 1) * symbols]);
        }
        roll(&history, self.rows, &mut self.sums.triangle, &mut self.next.triangle)?;
        after.sums.triangle = std::mem::take(&mut self.sums.triangle);
        after.next.triangle = std::mem::take(&mut self.next.triangle);
        *self = after;
        Ok(())
    }

    /// Symbols and the rows of a full window.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.symbols, self.window)
    }

    /// Rows in the window.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.min(self.window as u64) as usize
    }

    /// The correlation matrix of the rows in the window.
    #[must_use]
    pub fn correlation(&self) -> Correlation {
        let count = self.rows().max(1) as f64;
        let Sums { ones, triangle } = &self.sums;
        let spread =
            |row: usize, column: usize| triangle[place(row, column)] - ones[row] * ones[column] / count;
        let mut entries = Vec::with_capacity(triangle.len());
        for row in 0..self.symbols {
            // What is left of squares that cancel is rounding, not spread.
            entries.extend((0..row).map(|column| spread(row, column)));
            let (own, squares) = (spread(row, row), triangle[place(row, row)]);
            entries.push(if own <= 1e-12 * squares { 0.0 } else { own });
        }
        Correlation::from_triangle(self.symbols, |at| entries[at])
    }
}

impl Sums {
    fn add(&mut self, row: &[f64], sign: f64) {
        for (sum, value) in self.ones.iter_mut().zip(row) {
            *sum += sign * value;
        }
        bands(&mut self.triangle, row.len(), &|first, band| {
            widest(
                #[inline(always)]
                || {
                    let mut at = 0;
                    for (index, &own) in row.iter().enumerate().skip(first) {
                        let Some(line) = band.get_mut(at..at + index + 1) else { break };
                        at += index + 1;
                        let own = own * sign;
                        for (entry, other) in line.iter_mut().zip(row) {
                            *entry = own.mul_add(*other, *entry);
                        }
                    }
                },
            );
        });
    }
}

/// A symmetric matrix with ones on its diagonal; zeros in the row of a symbol that did not move.
#[derive(Clone, Debug, PartialEq)]
pub struct Correlation {
    symbols: usize,
    triangle: Vec<f64>,
    still: Vec<usize>,
}

/// Eigenvalues, largest first, with their vectors one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Eigenvalues.
    pub values: Vec<f64>,
    /// Vectors of length 1, each with as many entries as there are symbols; the entry of largest size is above 0.
    pub vectors: Vec<f64>,
}

impl Correlation {
    fn from_triangle(symbols: usize, covariance: impl Fn(usize) -> f64) -> Self {
        let own = |row: usize| covariance(place(row, row));
        let scale: Vec<f64> =
            (0..symbols).map(|row| if own(row) > 0.0 { 1.0 / own(row).sqrt() } else { 0.0 }).collect();
        let mut triangle = Vec::with_capacity(triangle_len(symbols));
        for row in 0..symbols {
            let entry = |column: usize| covariance(place(row, column)) * (scale[row] * scale[column]);
            triangle.extend((0..row).map(|column| entry(column).clamp(-1.0, 1.0)));
            triangle.push(1.0);
        }
        let still = (0..symbols).filter(|&row| scale[row] == 0.0).collect();
        Self { symbols, triangle, still }
    }

    /// Symbols.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.symbols
    }

    /// Symbols that did not move, which correlate with nothing.
    #[must_use]
    pub fn still(&self) -> &[usize] {
        &self.still
    }

    /// Correlation of two symbols.
    ///
    /// # Panics
    /// When one of them does not exist.
    #[must_use]
    pub fn between(&self, a: usize, b: usize) -> f64 {
        assert!(a.max(b) < self.symbols, "there is no such symbol");
        self.triangle[place(a, b)]
    }

    /// The `count` largest eigenvalues with their vectors, each within 1e-9 of the sum of all (Lanczos 1950 with full
    /// reorthogonalisation).
    ///
    /// # Errors
    /// [`BatchError::Count`] unless 1 to 64 and no more than there are symbols; [`BatchError::Solver`] should the iteration
    /// not settle.
    pub fn leading(&self, count: usize) -> Result<Spectrum, BatchError> {
        Self::check_leading(self.symbols, count)?;
        lanczos(&mut CpuSteps::new(self.symbols, &self.triangle), self.symbols, count)
    }

    pub(crate) fn check_leading(symbols: usize, count: usize) -> Result<(), BatchError> {
        BatchError::count("eigenvalues", count, 1, LEADING_MAX.min(symbols as u64))
    }

    /// Of a triangle with ones on its diagonal; `scales` are 0 for symbols that did not move.
    pub(crate) fn whole(symbols: usize, triangle: Vec<f64>, scales: &[f64]) -> Self {
        let still = (0..symbols).filter(|&row| scales[row] == 0.0).collect();
        Self { symbols, triangle, still }
    }

    pub(crate) fn triangle(&self) -> &[f64] {
        &self.triangle
    }
}

pub(crate) const fn triangle_len(symbols: usize) -> usize {
    symbols * (symbols + 1) / 2
}

const fn place(a: usize, b: usize) -> usize {
    let (row, column) = if a < b { (b, a) } else { (a, b) };
    triangle_len(row) + column
}

/// Calls `work` with the first row and the entries of bands of about equal size, on several threads where that pays.
fn bands<T: Send>(triangle: &mut [T], symbols: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
    let count = if triangle.len() < PARALLEL { 1 } else { rayon::current_num_threads() };
    if count == 1 {
        return work(0, triangle);
    }
    rayon::scope(|scope| {
        let (mut rest, mut first) = (triangle, 0);
        for band in 1..=count {
            // Areas of triangles go with the square of their height.
            let end = match band == count {
                true => symbols,
                false => (symbols as f64 * (band as f64 / count as f64).sqrt()) as usize,
            };
            let (own, after) = rest.split_at_mut(triangle_len(end) - triangle_len(first));
            rest = after;
            scope.spawn(move |_| work(first, own));
            first = end;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    fn row(symbols: usize, at: usize) -> Vec<f64> {
        let unit = |a: usize, b: usize| {
            f64::from(crate::philox::philox4x32([a as u32, b as u32, 0, 0], [8, 8])[0]) / 4_294_967_296.0
                - 0.5
        };
        let market = unit(at, 1 << 20);
        (0..symbols)
            .map(|s| 1e-3 * (market * (0.5 + s as f64 / symbols as f64) + unit(at, s)) + 0.01)
            .collect()
    }

    #[test]
    fn exponential_covariances_are_weighted_sums() {
        let (symbols, decay) = (23, 0.9);
        let mut kept = EwCorrelation::new(symbols, decay).unwrap();
        let rows: Vec<_> = (0..200).map(|at| row(symbols, at)).collect();
        rows.iter().for_each(|row| kept.update(row).unwrap());
        // Weights of the definition: the first row has what is left over.
        let weight = |at: usize| {
            let back = decay.powi(199 - at as i32);
            if at == 0 { back } else { (1.0 - decay) * back }
        };
        let mean = |s: usize| (0..200).map(|at| weight(at) * rows[at][s]).sum::<f64>();
        let covariance = |a: usize, b: usize| {
            let (ma, mb) = (mean(a), mean(b));
            (0..200).map(|at| weight(at) * (rows[at][a] - ma) * (rows[at][b] - mb)).sum::<f64>()
        };
        let correlation = kept.correlation();
        for a in 0..symbols {
            for b in 0..=a {
                let want = covariance(a, b) / (covariance(a, a) * covariance(b, b)).sqrt();
                assert!((correlation.between(a, b) - want).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn rolling_correlations_are_those_of_the_window_alone() {
        let (symbols, window) = (9, 16);
        let mut kept = RollingCorrelation::new(symbols, window).unwrap();
        let rows: Vec<_> = (0..100).map(|at| row(symbols, at)).collect();
        for (at, row) in rows.iter().enumerate() {
            kept.update(row).unwrap();
            let part = &rows[(at + 1).saturating_sub(window)..=at];
            assert_eq!(kept.rows(), part.len());
            if part.len() < 3 {
                continue;
            }
            let mean = |s: usize| part.iter().map(|row| row[s]).sum::<f64>() / part.len() as f64;
            let spread = |a: usize, b: usize| {
                let (ma, mb) = (mean(a), mean(b));
                part.iter().map(|row| (row[a] - ma) * (row[b] - mb)).sum::<f64>()
            };
            let correlation = kept.correlation();
            for a in 0..symbols {
                for b in 0..a {
                    let want = spread(a, b) / (spread(a, a) * spread(b, b)).sqrt();
                    assert!((correlation.between(a, b) - want).abs() < 1e-10, "row {at}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let symbols = 700;
        let run = |threads| {
            let mut kept = EwCorrelation::new(symbols, 0.97).unwrap();
            let mut rolling = RollingCorrelation::new(symbols, 3).unwrap();
            Cpu::new(threads).unwrap().install(|| {
                for at in 0..5 {
                    kept.update(&row(symbols, at)).unwrap();
                    rolling.update(&row(symbols, at)).unwrap();
                }
            });
            (kept.correlation(), rolling.correlation())
        };
        assert!(run(1) == run(3));
    }

    #[test]
    fn leading_vectors_are_eigenvectors_and_repeated_values_are_all_found() {
        for symbols in [1, 2, 5, 60, 300] {
            let mut kept = RollingCorrelation::new(symbols, 64).unwrap();
            (0..64).for_each(|at| kept.update(&row(symbols, at)).unwrap());
            let correlation = kept.correlation();
            let count = symbols.min(4);
            let Spectrum { values, vectors } = correlation.leading(count).unwrap();
            for which in 0..count {
                let vector = &vectors[which * symbols..(which + 1) * symbols];
                let image = crate::spectrum::times(&correlation.triangle, vector);
                let off: f64 = image.iter().zip(vector).map(|(y, x)| (y - values[which] * x).powi(2)).sum();
                assert!(off.sqrt() < 1e-8 * symbols as f64, "{symbols}: {off:e}");
            }
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        }
        // Symbols that never move: the identity, whose eigenvalue has as many vectors as there are symbols.
        let still = RollingCorrelation::new(12, 4).unwrap().correlation();
        assert_eq!(still.still().len(), 12);
        let values = still.leading(3).unwrap().values;
        assert!(values.iter().all(|value| (value - 1.0).abs() < 1e-12), "{values:?}");
        // Two blocks alike: the largest value twice.
        let twice = Correlation::from_triangle(8, |at| {
            let row = (0..8).find(|&row| at < triangle_len(row + 1)).unwrap();
            let column = at - triangle_len(row);
            if row == column {
                1.0
            } else if row / 4 == column / 4 {
                0.5
            } else {
                0.0
            }
        });
        let values = twice.leading(3).unwrap().values;
        assert!(
            (values[0] - 2.5).abs() < 1e-9
                && (values[1] - 2.5).abs() < 1e-9
                && (values[2] - 0.5).abs() < 1e-9
        );
    }

    #[test]
    fn wrong_requests_are_refused_and_change_nothing() {
        let text = |symbols, decay| EwCorrelation::new(symbols, decay).unwrap_err().to_string();
        assert_eq!(text(0, 0.5), "symbols: 0; allowed are 1 to 16384");
        assert_eq!(text(1 << 15, 0.5), "symbols: 32768; allowed are 1 to 16384");
        for decay in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(text(2, decay).ends_with("allowed is between 0 and 1"));
        }
        let text = |symbols, window| RollingCorrelation::new(symbols, window).unwrap_err().to_string();
        assert_eq!(text(2, 1), "window: 1; allowed are 2 to 65536");
        assert!(text(1 << 14, 1 << 16).starts_with("window x symbols: 65536 x 16384 of them"));
        let mut kept = EwCorrelation::new(2, 0.5).unwrap();
        kept.update(&[1.0, 2.0]).unwrap();
        kept.update(&[2.0, 1.0]).unwrap();
        let before = kept.correlation();
        assert_eq!(kept.update(&[1.0]).unwrap_err().to_string(), "row: length 1, but 2 is needed");
        assert!(kept.update(&[1.0, f64::NAN]).unwrap_err().to_string().starts_with("row[1] is NaN"));
        assert!(kept.update(&[1.0, 1e16]).unwrap_err().to_string().starts_with("a value is"));
        assert_eq!((kept.correlation(), kept.rows()), (before, 2));
    }
}
