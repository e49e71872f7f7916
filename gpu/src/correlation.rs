//! Correlations of many symbols, kept up bar by bar, and the leading part of their spectrum.
//!
//! **Equality:** exponential within 1e-5 of the same sums in double precision, rolling within 1e-10; bit-equal on any
//! number of threads, as every entry is updated alone.

use crate::BatchError;
use crate::lanes::widest;

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
        BatchError::count("eigenvalues", count, 1, LEADING_MAX.min(self.symbols as u64))?;
        lanczos(self.symbols, count, &|x, y| self.times(x, y))
    }

    fn times(&self, x: &[f64], y: &mut [f64]) {
        y.fill(0.0);
        let mut at = 0;
        for row in 0..self.symbols {
            let line = &self.triangle[at..at + row + 1];
            at += row + 1;
            let (before, own) = y.split_at_mut(row);
            let sum = widest(
                #[inline(always)]
                || {
                    let mut sums = [0.0; 8];
                    let own = x[row];
                    let (lines, line_rest) = line[..row].as_chunks::<8>();
                    let (xs, x_rest) = x[..row].as_chunks::<8>();
                    let (ys, y_rest) = before.as_chunks_mut::<8>();
                    for ((l, x), y) in lines.iter().zip(xs).zip(ys) {
                        for lane in 0..8 {
                            sums[lane] = l[lane].mul_add(x[lane], sums[lane]);
                            y[lane] = l[lane].mul_add(own, y[lane]);
                        }
                    }
                    for ((l, x), y) in line_rest.iter().zip(x_rest).zip(y_rest) {
                        sums[0] = l.mul_add(*x, sums[0]);
                        *y = l.mul_add(own, *y);
                    }
                    sums.iter().sum::<f64>()
                },
            );
            own[0] += sum + line[row] * x[row];
        }
    }
}

const fn triangle_len(symbols: usize) -> usize {
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

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A fixed start that no matrix of use is orthogonal to.
fn start(size: usize, which: u32) -> Vec<f64> {
    let word = |at: usize| crate::philox::philox4x32([at as u32, which, 0, 0], [17, 4])[0];
    (0..size).map(|at| f64::from(word(at)) / 4_294_967_296.0 - 0.5).collect()
}

/// Takes the parts along `basis` out of `x`, twice as once leaves rounding, and gives what length is left.
fn orthogonal(x: &mut [f64], basis: &[Vec<f64>]) -> f64 {
    for _ in 0..2 {
        for vector in basis {
            let along = product(x, vector);
            for (x, v) in x.iter_mut().zip(vector) {
                *x -= along * v;
            }
        }
    }
    product(x, x).sqrt()
}

fn lanczos(size: usize, count: usize, times: &dyn Fn(&[f64], &mut [f64])) -> Result<Spectrum, BatchError> {
    let tolerance = 1e-9 * size as f64;
    let most = size.min(400 + 4 * count);
    let (mut basis, mut diagonal, mut beside): (Vec<Vec<f64>>, Vec<f64>, Vec<f64>) = Default::default();
    let mut restarts = 0;
    let mut next = start(size, restarts);
    let mut length = orthogonal(&mut next, &basis);
    let mut image = vec![0.0; size];
    loop {
        next.iter_mut().for_each(|x| *x /= length);
        basis.push(next);
        let own = &basis[basis.len() - 1];
        times(own, &mut image);
        diagonal.push(product(own, &image));
        next = image.clone();
        length = orthogonal(&mut next, &basis);
        let steps = basis.len();
        let closed = length <= 1e-10 * size as f64;
        let look = steps == most || closed || steps >= 2 * count && steps.is_multiple_of(16);
        if look && steps >= count {
            let (values, vectors) = jacobi(&diagonal, &beside);
            let loose = |which: usize| length * vectors[which * steps + steps - 1].abs() > tolerance;
            // A closed space may lack copies of a repeated value: only one that has been tried from anew, or is whole,
            // is believed.
            let whole = steps == size || closed && restarts > count as u32;
            if whole || !closed && restarts == 0 && !(0..count).any(loose) {
                return Ok(spectrum(&basis, &values[..count], &vectors));
            }
            if steps == most {
                let status = format!("eigenvalues did not settle within {most} steps");
                return Err(BatchError::Solver { status });
            }
        }
        if closed {
            restarts += 1;
            next = start(size, restarts);
            length = orthogonal(&mut next, &basis);
            beside.push(0.0);
        } else {
            beside.push(length);
        }
    }
}

fn spectrum(basis: &[Vec<f64>], values: &[f64], small: &[f64]) -> Spectrum {
    let (steps, size) = (basis.len(), basis[0].len());
    let mut vectors = Vec::with_capacity(values.len() * size);
    for which in 0..values.len() {
        let mut vector = vec![0.0; size];
        for (share, own) in small[which * steps..].iter().zip(basis) {
            for (x, b) in vector.iter_mut().zip(own) {
                *x += share * b;
            }
        }
        let length = product(&vector, &vector).sqrt();
        let largest =
            vector.iter().fold(0.0f64, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
        vectors.extend(vector.iter().map(|x| x / length.copysign(largest)));
    }
    Spectrum { values: values.to_vec(), vectors }
}

/// All eigenvalues, largest first, and vectors of a tridiagonal matrix, by Jacobi's rotations.
fn jacobi(diagonal: &[f64], beside: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = diagonal.len();
    let mut a = vec![0.0; n * n];
    let mut v = vec![0.0; n * n];
    for at in 0..n {
        a[at * n + at] = diagonal[at];
        v[at * n + at] = 1.0;
        if at + 1 < n {
            a[at * n + at + 1] = beside[at];
            a[(at + 1) * n + at] = beside[at];
        }
    }
    let size: f64 = product(&a, &a).sqrt();
    for _ in 0..60 {
        let off: f64 = (0..n).map(|p| a[p * n..p * n + p].iter().map(|x| x * x).sum::<f64>()).sum();
        if off.sqrt() <= 1e-15 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq.abs() <= 1e-18 * size {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + theta.mul_add(theta, 1.0).sqrt());
                let c = 1.0 / t.mul_add(t, 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = c * x - s * y;
                    a[q * n + k] = s * x + c * y;
                    // Vectors stand in rows.
                    let (x, y) = (v[p * n + k], v[q * n + k]);
                    v[p * n + k] = c * x - s * y;
                    v[q * n + k] = s * x + c * y;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&x, &y| a[y * n + y].total_cmp(&a[x * n + x]));
    let values = order.iter().map(|&at| a[at * n + at]).collect();
    let vectors = order.iter().flat_map(|&at| v[at * n..(at + 1) * n].iter().copied()).collect();
    (values, vectors)
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
            let mut image = vec![0.0; symbols];
            for which in 0..count {
                let vector = &vectors[which * symbols..(which + 1) * symbols];
                correlation.times(vector, &mut image);
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
