//! The lower factor of a positive definite matrix, and systems solved with it.
//!
//! Right-looking in blocks of [`BLOCK`] columns: the block on the diagonal, the columns below it [`WIDE`] rows at a time, then
//! what is to the right less their products, [`TALL`] rows by [`WIDE`] columns at a time so that sums stay in registers. Every sum
//! has one order, on any width of registers.

use crate::BatchError;
use crate::lanes::widest;
use rayon::prelude::*;

/// Columns eliminated together.
const BLOCK: usize = 64;
/// Columns of a tile.
const WIDE: usize = 16;
/// Rows of a tile.
const TALL: usize = 6;
/// A pivot less than this share of what it came from is all rounding.
const PIVOT_LEAST: f64 = 1e-14;

/// The lower factor, row by row, filled up to whole blocks with rows of the identity.
pub(crate) struct Cholesky {
    size: usize,
    stride: usize,
    rows: Vec<f64>,
}

impl Cholesky {
    /// Of a symmetric matrix, row by row; only its lower half is read.
    ///
    /// # Errors
    /// [`BatchError::NotPositive`] with the first row that shows it.
    pub(crate) fn new(matrix: &[f64], size: usize) -> Result<Self, BatchError> {
        let stride = size.next_multiple_of(BLOCK);
        let mut rows = vec![0.0; stride * stride];
        for (at, row) in rows.chunks_exact_mut(stride).enumerate() {
            match matrix.get(at * size..at * size + at + 1) {
                Some(from) if at < size => row[..=at].copy_from_slice(from),
                _ => row[at] = 1.0,
            }
        }
        let failed = widest(
            #[inline(always)]
            || factorise(&mut rows, stride),
        );
        match failed {
            None => Ok(Self { size, stride, rows }),
            Some(row) => Err(BatchError::NotPositive { what: "the covariance matrix", row }),
        }
    }

    /// The solution for one right side.
    pub(crate) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let mut x = right.to_vec();
        widest(
            #[inline(always)]
            || {
                for row in 0..self.size {
                    let line = &self.rows[row * self.stride..row * self.stride + row + 1];
                    x[row] = (x[row] - dot_lanes(&line[..row], &x)) / line[row];
                }
                for row in (0..self.size).rev() {
                    let line = &self.rows[row * self.stride..row * self.stride + row + 1];
                    let value = x[row] / line[row];
                    x[row] = value;
                    for (x, l) in x[..row].iter_mut().zip(line) {
                        *x = (-value).mul_add(*l, *x);
                    }
                }
            },
        );
        x
    }
}

impl Cholesky {
    /// The inverse, row by row, [`BLOCK`] columns at a time: below the diagonal by substitution, above it the mirror.
    pub(crate) fn inverse(&self) -> Vec<f64> {
        let strips: Vec<Vec<[f64; BLOCK]>> = (0..self.size.div_ceil(BLOCK))
            .into_par_iter()
            .map(|strip| {
                widest(
                    #[inline(always)]
                    || self.inverse_strip(strip * BLOCK),
                )
            })
            .collect();
        let mut found = vec![0.0; self.size * self.size];
        for (strip, lines) in strips.iter().enumerate() {
            let first = strip * BLOCK;
            for (row, line) in (first..self.size).zip(lines) {
                for (column, entry) in (first..=row).zip(line) {
                    found[row * self.size + column] = *entry;
                    found[column * self.size + row] = *entry;
                }
            }
        }
        found
    }

    /// Rows from `first` on of the columns from `first` on.
    #[inline(always)]
    fn inverse_strip(&self, first: usize) -> Vec<[f64; BLOCK]> {
        let line = |row: usize| &self.rows[row * self.stride + first..][..row - first + 1];
        let mut x: Vec<[f64; BLOCK]> = Vec::with_capacity(self.size - first);
        for row in first..self.size {
            let line = line(row);
            let mut own = [0.0; BLOCK];
            if row - first < BLOCK {
                own[row - first] = 1.0;
            }
            for (x, l) in x.iter().zip(line) {
                for lane in 0..BLOCK {
                    own[lane] = (-l).mul_add(x[lane], own[lane]);
                }
            }
            let share = 1.0 / line[row - first];
            x.push(own.map(|entry| entry * share));
        }
        for row in (first..self.size).rev() {
            let line = line(row);
            let share = 1.0 / line[row - first];
            let own = x[row - first].map(|entry| entry * share);
            for (x, l) in x[..row - first].iter_mut().zip(line) {
                for lane in 0..BLOCK {
                    x[lane] = (-l).mul_add(own[lane], x[lane]);
                }
            }
            x[row - first] = own;
        }
        x
    }
}

/// Sum of products in [`WIDE`] parts; `b` may be longer.
#[inline(always)]
pub(crate) fn dot_lanes(a: &[f64], b: &[f64]) -> f64 {
    let b = &b[..a.len()];
    let mut sums = [0.0; WIDE];
    let (a_chunks, a_rest) = a.as_chunks::<WIDE>();
    let (b_chunks, b_rest) = b.as_chunks::<WIDE>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..WIDE {
            sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (a, b)| f64::mul_add(*a, *b, sum));
    sums.iter().sum::<f64>() + rest
}

/// In place, rows of `n`, a multiple of [`BLOCK`]; returns the row at which the matrix is seen not to be positive definite.
#[inline(always)]
fn factorise(rows: &mut [f64], n: usize) -> Option<usize> {
    let pivots: Vec<f64> = (0..n).map(|row| rows[row * n + row]).collect();
    // What is below the diagonal block, by strips of rows, column by column.
    let mut strips = vec![[0.0; WIDE]; n / WIDE * BLOCK];
    let mut heads = [0.0; TALL * BLOCK];
    for block in (0..n).step_by(BLOCK) {
        if let Some(row) = corner(rows, n, block, &pivots) {
            return Some(row);
        }
        let below = block + BLOCK;
        let used = (n - below) / WIDE * BLOCK;
        for (strip, columns) in strips[..used].chunks_exact_mut(BLOCK).enumerate() {
            beside(rows, n, block, below + strip * WIDE, columns);
        }
        for top in (below..n).step_by(TALL) {
            let count = TALL.min(n - top);
            for (k, head) in heads.chunks_exact_mut(count).take(BLOCK).enumerate() {
                for (row, head) in head.iter_mut().enumerate() {
                    *head = rows[(top + row) * n + block + k];
                }
            }
            let heads = &heads[..count * BLOCK];
            let last = (top + count - 1 - below) / WIDE;
            for (strip, columns) in strips[..(last + 1) * BLOCK].chunks_exact(BLOCK).enumerate() {
                let tile = &mut rows[top * n + below + strip * WIDE..];
                match count {
                    1 => less_products::<1>(heads, columns, tile, n),
                    2 => less_products::<2>(heads, columns, tile, n),
                    3 => less_products::<3>(heads, columns, tile, n),
                    4 => less_products::<4>(heads, columns, tile, n),
                    5 => less_products::<5>(heads, columns, tile, n),
                    _ => less_products::<TALL>(heads, columns, tile, n),
                }
            }
        }
    }
    None
}

/// The factor of a block on the diagonal.
#[inline(always)]
fn corner(rows: &mut [f64], n: usize, block: usize, pivots: &[f64]) -> Option<usize> {
    for row in block..block + BLOCK {
        for column in block..=row {
            let mut sum = rows[row * n + column];
            for k in block..column {
                sum = (-rows[row * n + k]).mul_add(rows[column * n + k], sum);
            }
            if column < row {
                rows[row * n + column] = sum / rows[column * n + column];
            } else if sum > pivots[row] * PIVOT_LEAST {
                rows[row * n + row] = sum.sqrt();
            } else {
                return Some(row);
            }
        }
    }
    None
}

/// The factor of [`WIDE`] rows from `top` beside a block; also column by column into `columns`.
#[inline(always)]
fn beside(rows: &mut [f64], n: usize, block: usize, top: usize, columns: &mut [[f64; WIDE]]) {
    for (k, column) in columns.iter_mut().enumerate() {
        for (row, entry) in column.iter_mut().enumerate() {
            *entry = rows[(top + row) * n + block + k];
        }
    }
    for at in 0..BLOCK {
        let line = &rows[(block + at) * n + block..][..at + 1];
        let (done, rest) = columns.split_at_mut(at);
        let mut own = rest[0];
        for (column, l) in done.iter().zip(line) {
            for row in 0..WIDE {
                own[row] = (-l).mul_add(column[row], own[row]);
            }
        }
        let share = 1.0 / line[at];
        rest[0] = own.map(|entry| entry * share);
    }
    for (k, column) in columns.iter().enumerate() {
        for (row, entry) in column.iter().enumerate() {
            rows[(top + row) * n + block + k] = *entry;
        }
    }
}

/// A tile less the products of `R` rows and [`WIDE`] columns.
#[inline(always)]
fn less_products<const R: usize>(heads: &[f64], columns: &[[f64; WIDE]], tile: &mut [f64], n: usize) {
    let mut sums = [[0.0; WIDE]; R];
    for (heads, column) in heads.as_chunks::<R>().0.iter().zip(columns) {
        for row in 0..R {
            for lane in 0..WIDE {
                sums[row][lane] = heads[row].mul_add(column[lane], sums[row][lane]);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let line = &mut tile[row * n..row * n + WIDE];
        for (entry, sum) in line.iter_mut().zip(sums) {
            *entry -= sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(at: usize) -> f64 {
        f64::from(crate::philox::philox4x32([at as u32, 3, 0, 0], [1, 7])[0]) / 4_294_967_296.0 - 0.5
    }

    /// `A A' + I` of numbers by address.
    fn matrix(size: usize) -> Vec<f64> {
        let mut found = vec![0.0; size * size];
        for row in 0..size {
            for column in 0..size {
                found[row * size + column] =
                    (0..8).map(|k| unit(row * 8 + k) * unit(column * 8 + k)).sum::<f64>();
            }
            found[row * size + row] += 1.0;
        }
        found
    }

    #[test]
    fn factors_multiply_to_the_matrix_and_systems_are_solved() {
        for size in [1, 2, 15, 16, 63, 64, 65, 70, 128, 200] {
            let a = matrix(size);
            let factor = Cholesky::new(&a, size).unwrap();
            for row in 0..size {
                for column in 0..=row {
                    let line = |row: usize| &factor.rows[row * factor.stride..][..=column];
                    let sum: f64 = line(row).iter().zip(line(column)).map(|(a, b)| a * b).sum();
                    assert!((sum - a[row * size + column]).abs() < 1e-12, "{size}: {row}, {column}");
                }
            }
            let x: Vec<f64> = (0..size).map(|at| unit(at + 9_999)).collect();
            let right: Vec<f64> =
                a.chunks_exact(size).map(|row| row.iter().zip(&x).map(|(a, x)| a * x).sum()).collect();
            for (found, wanted) in factor.solve(&right).iter().zip(&x) {
                assert!((found - wanted).abs() < 1e-11, "{size}");
            }
            let inverse = factor.inverse();
            for row in 0..size {
                for column in 0..size {
                    let sum: f64 = (0..size).map(|k| a[row * size + k] * inverse[k * size + column]).sum();
                    assert!(
                        (sum - f64::from(u8::from(row == column))).abs() < 1e-11,
                        "{size}: {row}, {column}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_row_that_depends_on_others_is_named() {
        for (size, row) in [(2, 1), (70, 3), (70, 69), (200, 130)] {
            let mut a = matrix(size);
            // The row becomes the sum of the two before it, or a multiple of the one.
            let parts: &[usize] = if row > 1 { &[row - 1, row - 2] } else { &[row - 1] };
            for column in 0..size {
                let sum = parts.iter().map(|part| a[part * size + column]).sum();
                a[row * size + column] = sum;
            }
            for other in 0..size {
                a[other * size + row] = parts.iter().map(|part| a[other * size + part]).sum();
            }
            let error = Cholesky::new(&a, size).err().unwrap();
            assert_eq!(error, BatchError::NotPositive { what: "the covariance matrix", row });
        }
        assert!(Cholesky::new(&[-1.0], 1).is_err() && Cholesky::new(&[0.0], 1).is_err());
    }
}
