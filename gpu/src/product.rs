//! Products of matrices in single precision, whose sums have one order on any machine: runs of [`RUN`] products, fused one after
//! the other, and the runs added up one after the other. A run is short, so that an entry is within `(RUN + depth / RUN)`
//! roundings of its exact value.

use crate::lanes::widest;

/// Products of a run. The kernels' `product.cuh` has the same.
pub(crate) const RUN: usize = 32;
/// Columns of a tile: two of the widest registers.
pub(crate) const WIDE: usize = 32;
/// Rows of a tile.
pub(crate) const TALL: usize = 6;

/// A matrix of `depth` rows, `W` columns at a time: panel after panel, each row by row. What is beyond the last column is 0.
pub(crate) struct Panels<const W: usize> {
    depth: usize,
    entries: Vec<[f32; W]>,
}

impl<const W: usize> Panels<W> {
    /// Of a matrix that stands row by row.
    pub(crate) fn new(matrix: &[f32], depth: usize, columns: usize) -> Self {
        let mut entries = vec![[0.0; W]; depth * columns.div_ceil(W)];
        for (row, line) in matrix.chunks_exact(columns).enumerate() {
            for (panel, part) in line.chunks(W).enumerate() {
                entries[panel * depth + row][..part.len()].copy_from_slice(part);
            }
        }
        Self { depth, entries }
    }

    pub(crate) fn panel(&self, at: usize) -> &[[f32; W]] {
        &self.entries[at * self.depth..(at + 1) * self.depth]
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len() / self.depth
    }
}

/// Sums over `k` of `left[k][row] * right[k][column]`.
pub(crate) fn tile(left: &[[f32; TALL]], right: &[[f32; WIDE]]) -> [[f32; WIDE]; TALL] {
    widest(
        #[inline(always)]
        || runs(left, right),
    )
}

#[inline(always)]
fn runs(left: &[[f32; TALL]], right: &[[f32; WIDE]]) -> [[f32; WIDE]; TALL] {
    let mut total = [[0.0; WIDE]; TALL];
    for (left, right) in left.chunks(RUN).zip(right.chunks(RUN)) {
        let run = run(left, right);
        for row in 0..TALL {
            for lane in 0..WIDE {
                total[row][lane] += run[row][lane];
            }
        }
    }
    total
}

/// By itself and by value: only then do its sums stay in registers, a hundred times as fast.
#[inline(always)]
fn run(left: &[[f32; TALL]], right: &[[f32; WIDE]]) -> [[f32; WIDE]; TALL] {
    let mut run = [[0.0; WIDE]; TALL];
    for (left, right) in left.iter().zip(right) {
        for row in 0..TALL {
            for lane in 0..WIDE {
                run[row][lane] = left[row].mul_add(right[lane], run[row][lane]);
            }
        }
    }
    run
}
