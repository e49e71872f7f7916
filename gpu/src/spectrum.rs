//! The leading eigenvalues of a symmetric matrix: Lanczos (1950) with full reorthogonalisation, whose sums have one order, so
//! that a device gives the same bits.
//!
//! What is done with long vectors is behind [`Steps`], once for the CPU and once for a device; what is decided from short ones is
//! here, for both.

use crate::BatchError;
use crate::correlation::{Spectrum, triangle_len};
use crate::lanes::{LANES, widest};
use rayon::prelude::*;

/// Rows and columns of a tile of the matrix.
pub(crate) const TILE: usize = 64;
/// Partial sums of a product of two vectors.
const PARTS: usize = 256;
/// Steps between looks at what has been found.
const LOOK: usize = 16;
/// Fewest entries of a triangle worth a second thread.
const PARALLEL: usize = 1 << 17;

/// The space that grows step by step: vectors of length 1, orthogonal to each other.
pub(crate) trait Steps {
    type Error: From<BatchError>;

    /// Adds `start` to the basis, less what stands along it already.
    fn begin(&mut self, start: &[f64]) -> Result<(), Self::Error>;

    /// Up to `count` steps, each from the last vector `v` of the basis: the matrix times `v`, less what stands along the basis,
    /// is the next. Of each step the product of `v` with its image and the length that was left. May stop behind a length of at
    /// most `closed`; what comes behind one is not looked at.
    fn extend(&mut self, count: usize, closed: f64) -> Result<Vec<(f64, f64)>, Self::Error>;

    /// Forgets all but the first vectors of the basis.
    fn truncate(&mut self, vectors: usize);

    /// The first vectors of the basis, one after the other.
    fn basis(&mut self, vectors: usize) -> Result<Vec<f64>, Self::Error>;
}

/// Most steps for so many eigenvalues.
pub(crate) fn steps_max(size: usize, count: usize) -> usize {
    size.min(400 + 4 * count)
}

/// The `count` largest eigenvalues, each within 1e-9 of `size`.
pub(crate) fn lanczos<S: Steps>(steps: &mut S, size: usize, count: usize) -> Result<Spectrum, S::Error> {
    let tolerance = 1e-9 * size as f64;
    let closed_at = 1e-10 * size as f64;
    let most = steps_max(size, count);
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = Default::default();
    let mut restarts = 0;
    steps.begin(&start(size, restarts))?;
    loop {
        let (mut closed, mut length) = (false, 0.0);
        for (own, left) in steps.extend(LOOK.min(most - diagonal.len()), closed_at)? {
            diagonal.push(own);
            length = left;
            closed = left <= closed_at;
            if closed {
                break;
            }
            beside.push(left);
        }
        let done = diagonal.len();
        if done >= count && (done == most || closed || done >= 2 * count) {
            let (values, last) = eigen(&diagonal, &beside[..done - 1], Rows::Last);
            let loose = |which: usize| length * last[which].abs() > tolerance;
            // A closed space may lack copies of a repeated value: only one that has been tried from anew, or is whole,
            // is believed.
            let whole = done == size || closed && restarts > count as u32;
            if whole || !closed && restarts == 0 && !(0..count).any(loose) {
                let basis = steps.basis(done)?;
                let (_, vectors) = eigen(&diagonal, &beside[..done - 1], Rows::All);
                return Ok(spectrum(&basis, size, &values[..count], &vectors));
            }
            if done == most {
                let status = format!("eigenvalues did not settle within {most} steps");
                return Err(BatchError::Solver { status }.into());
            }
        }
        if closed {
            restarts += 1;
            steps.truncate(done);
            steps.begin(&start(size, restarts))?;
            beside.push(0.0);
        }
    }
}

/// A fixed start that no matrix of use is orthogonal to.
fn start(size: usize, which: u32) -> Vec<f64> {
    let word = |at: usize| crate::philox::philox4x32([at as u32, which, 0, 0], [17, 4])[0];
    (0..size).map(|at| f64::from(word(at)) / 4_294_967_296.0 - 0.5).collect()
}

fn spectrum(basis: &[f64], size: usize, values: &[f64], small: &[f64]) -> Spectrum {
    let steps = basis.len() / size;
    let mut vectors = Vec::with_capacity(values.len() * size);
    for which in 0..values.len() {
        let mut vector = vec![0.0; size];
        for (share, own) in small[which * steps..].iter().zip(basis.chunks_exact(size)) {
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

/// Which entries of the eigenvectors are wanted.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Last,
    All,
}

/// All eigenvalues of a tridiagonal matrix, largest first, and of their vectors the last entry or all, vector after vector: QL with
/// implicit shifts (Bowdler, Martin, Reinsch & Wilkinson 1968).
fn eigen(diagonal: &[f64], beside: &[f64], rows: Rows) -> (Vec<f64>, Vec<f64>) {
    let n = diagonal.len();
    let (mut d, mut e) = (diagonal.to_vec(), beside.to_vec());
    e.push(0.0);
    let each = if rows == Rows::All { n } else { 1 };
    let mut vectors = vec![0.0; n * each];
    match rows {
        Rows::All => (0..n).for_each(|at| vectors[at * n + at] = 1.0),
        Rows::Last => vectors[n - 1] = 1.0,
    }
    for from in 0..n {
        // Far more than it ever takes; the last shift's values are as near as they get.
        for _ in 0..80 {
            let small = |at: usize| e[at].abs() <= f64::EPSILON * (d[at].abs() + d[at + 1].abs());
            let end = (from..n - 1).find(|&at| small(at)).unwrap_or(n - 1);
            if end == from {
                break;
            }
            let slope = (d[from + 1] - d[from]) / (2.0 * e[from]);
            let root = slope.mul_add(slope, 1.0).sqrt();
            let mut g = d[end] - d[from] + e[from] / (slope + root.copysign(slope));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut split = None;
            for at in (from..end).rev() {
                let (f, b) = (s * e[at], c * e[at]);
                let r = (f * f + g * g).sqrt();
                e[at + 1] = r;
                if r == 0.0 {
                    d[at + 1] -= p;
                    split = Some(at);
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[at + 1] - p;
                let r = (d[at] - g) * s + 2.0 * c * b;
                p = s * r;
                d[at + 1] = g + p;
                g = c * r - b;
                let (low, high) = vectors[at * each..(at + 2) * each].split_at_mut(each);
                for (x, y) in low.iter_mut().zip(high) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
            if split.is_none() {
                d[from] -= p;
                e[from] = g;
            }
            e[end] = 0.0;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&x, &y| d[y].total_cmp(&d[x]));
    let values = order.iter().map(|&at| d[at]).collect();
    let vectors = order.iter().flat_map(|&at| vectors[at * each..(at + 1) * each].iter().copied()).collect();
    (values, vectors)
}

/// The product of two vectors: [`PARTS`] partial sums, then halves onto halves.
pub(crate) fn product(a: &[f64], b: &[f64]) -> f64 {
    widest(
        #[inline(always)]
        || {
            let mut parts = [0.0; PARTS];
            for (a, b) in a.chunks(PARTS).zip(b.chunks(PARTS)) {
                for ((sum, a), b) in parts.iter_mut().zip(a).zip(b) {
                    *sum = f64::mul_add(*a, *b, *sum);
                }
            }
            let mut half = PARTS / 2;
            while half > 0 {
                let (sums, more) = parts.split_at_mut(half);
                sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += *more);
                half /= 2;
            }
            parts[0]
        },
    )
}

/// A triangle on the cores of this machine.
pub(crate) struct CpuSteps<'a> {
    size: usize,
    triangle: &'a [f64],
    basis: Vec<Vec<f64>>,
}

impl<'a> CpuSteps<'a> {
    pub(crate) fn new(size: usize, triangle: &'a [f64]) -> Self {
        Self { size, triangle, basis: Vec::new() }
    }

    /// What is left of `x` beside the basis, twice as once leaves rounding; and its length. All shares are of one `x`, so that
    /// they can be taken side by side.
    fn left(&self, mut x: Vec<f64>) -> (Vec<f64>, f64) {
        for _ in 0..2 {
            let shares: Vec<f64> = self.basis.iter().map(|vector| product(vector, &x)).collect();
            widest(
                #[inline(always)]
                || {
                    for (share, vector) in shares.iter().zip(&self.basis) {
                        for (x, v) in x.iter_mut().zip(vector) {
                            *x = f64::mul_add(-share, *v, *x);
                        }
                    }
                },
            );
        }
        let length = product(&x, &x).sqrt();
        (x, length)
    }

    fn add(&mut self, mut x: Vec<f64>, length: f64) {
        x.iter_mut().for_each(|x| *x /= length);
        self.basis.push(x);
    }
}

impl Steps for CpuSteps<'_> {
    type Error = BatchError;

    fn begin(&mut self, start: &[f64]) -> Result<(), BatchError> {
        let (x, length) = self.left(start.to_vec());
        self.add(x, length);
        Ok(())
    }

    fn extend(&mut self, count: usize, closed: f64) -> Result<Vec<(f64, f64)>, BatchError> {
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let own = &self.basis[self.basis.len() - 1];
            let image = times(self.triangle, own);
            let along = product(own, &image);
            let (x, length) = self.left(image);
            self.add(x, length);
            found.push((along, length));
            if length <= closed {
                break;
            }
        }
        Ok(found)
    }

    fn truncate(&mut self, vectors: usize) {
        self.basis.truncate(vectors);
    }

    fn basis(&mut self, vectors: usize) -> Result<Vec<f64>, BatchError> {
        let mut found = Vec::with_capacity(vectors * self.size);
        self.basis[..vectors].iter().for_each(|vector| found.extend_from_slice(vector));
        Ok(found)
    }
}

/// A symmetric matrix, kept as its triangle, times `x`. An entry is the sum over tiles of [`TILE`] columns in their order. In a tile
/// left of the diagonal, or on it, its part is summed along the row, [`LANES`] sums and then halves onto halves; in one right of it,
/// which stands in the triangle as its mirror, down the column.
pub(crate) fn times(triangle: &[f64], x: &[f64]) -> Vec<f64> {
    let size = x.len();
    let tiles = size.div_ceil(TILE);
    let parallel = triangle.len() >= PARALLEL;
    let least = if parallel { 1 } else { tiles };
    let strips: Vec<(Vec<f64>, Vec<f64>)> = (0..tiles)
        .into_par_iter()
        .with_min_len(least)
        .map(|strip| {
            widest(
                #[inline(always)]
                || strip_times(triangle, x, strip * TILE),
            )
        })
        .collect();
    let mut y = vec![0.0; size];
    for (strip, (own, above)) in strips.iter().enumerate() {
        y[strip * TILE..][..own.len()].copy_from_slice(own);
        y.iter_mut().zip(above).for_each(|(y, part)| *y += part);
    }
    y
}

/// The entries of the [`TILE`] rows from `first` as far as the tile on the diagonal, and what these rows add to the entries above.
#[inline(always)]
fn strip_times(triangle: &[f64], x: &[f64], first: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = TILE.min(x.len() - first);
    let mut own = vec![0.0; rows];
    let mut above = vec![0.0; first];
    let mut corner = [[0.0; TILE]; TILE];
    let mut beside = [0.0; TILE];
    beside[..rows].copy_from_slice(&x[first..first + rows]);
    for row in 0..rows {
        let line = &triangle[triangle_len(first + row)..][..first + row + 1];
        let share = beside[row];
        for ((line, x), above) in line[..first]
            .as_chunks::<TILE>()
            .0
            .iter()
            .zip(x.as_chunks::<TILE>().0)
            .zip(above.as_chunks_mut().0)
        {
            own[row] += along(line, x);
            let above: &mut [f64; TILE] = above;
            for column in 0..TILE {
                above[column] = line[column].mul_add(share, above[column]);
            }
        }
        for (column, entry) in line[first..].iter().enumerate() {
            corner[row][column] = *entry;
            corner[column][row] = *entry;
        }
    }
    for (own, line) in own.iter_mut().zip(&corner) {
        *own += along(line, &beside);
    }
    (own, above)
}

#[inline(always)]
fn along(line: &[f64; TILE], x: &[f64; TILE]) -> f64 {
    let mut sums = [0.0; LANES];
    for at in 0..TILE / LANES {
        for lane in 0..LANES {
            sums[lane] = line[at * LANES + lane].mul_add(x[at * LANES + lane], sums[lane]);
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(at: usize) -> f64 {
        f64::from(crate::philox::philox4x32([at as u32, 5, 0, 0], [3, 3])[0]) / 4_294_967_296.0 - 0.5
    }

    #[test]
    fn a_triangle_times_a_vector_is_the_matrix_times_it() {
        for size in [1, 2, 63, 64, 65, 130, 600] {
            let triangle: Vec<f64> = (0..triangle_len(size)).map(unit).collect();
            let x: Vec<f64> = (0..size).map(|at| unit(at + 1_000_000)).collect();
            let entry = |a: usize, b: usize| triangle[triangle_len(a.max(b)) + a.min(b)];
            for (row, found) in times(&triangle, &x).iter().enumerate() {
                let want: f64 = (0..size).map(|column| entry(row, column) * x[column]).sum();
                assert!((found - want).abs() < 1e-12, "{size}: {row}");
            }
        }
    }

    #[test]
    fn tridiagonal_matrices_are_taken_apart() {
        for n in [1, 2, 3, 10, 50] {
            let diagonal: Vec<f64> = (0..n).map(|at| 3.0 * unit(at)).collect();
            // With a zero, at which the matrix falls into two.
            let beside: Vec<f64> = (1..n).map(|at| if at == 4 { 0.0 } else { unit(at + 900) }).collect();
            let (values, vectors) = eigen(&diagonal, &beside, Rows::All);
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
            let (same, last) = eigen(&diagonal, &beside, Rows::Last);
            assert_eq!(same, values);
            for (which, vector) in vectors.chunks_exact(n).enumerate() {
                assert!((product(vector, vector) - 1.0).abs() < 1e-12);
                assert_eq!(vector[n - 1], last[which]);
                for row in 0..n {
                    let mut image = diagonal[row] * vector[row];
                    image += if row > 0 { beside[row - 1] * vector[row - 1] } else { 0.0 };
                    image += if row + 1 < n { beside[row] * vector[row + 1] } else { 0.0 };
                    assert!((image - values[which] * vector[row]).abs() < 1e-12, "{n}: {which}");
                }
            }
        }
    }
}
