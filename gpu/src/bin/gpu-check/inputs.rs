//! Random inputs, by address and seed.

use rayon::prelude::*;
use tidegate_gpu::philox::philox4x32;
use tidegate_gpu::portfolio::Assets;

/// Numbers of 0 to 1.
#[derive(Clone, Copy)]
pub(crate) struct Random {
    pub(crate) seed: u32,
}

impl Random {
    pub(crate) fn unit(self, at: usize, of: u32) -> f64 {
        f64::from(philox4x32([at as u32, (at as u64 >> 32) as u32, of, 0], [self.seed, 77])[0])
            / 4_294_967_296.0
    }

    /// A whole number of `least..=most`.
    pub(crate) fn pick(self, of: u32, least: usize, most: usize) -> usize {
        least + (self.unit(0, of) * (most - least + 1) as f64) as usize
    }

    pub(crate) fn many(self, count: usize, of: u32, scale: f64) -> Vec<f64> {
        (0..count).into_par_iter().map(|at| scale * (self.unit(at, of) - 0.5)).collect()
    }

    /// Closes in 1e-9 that wander, with bars on which nothing moves and some on which much does.
    pub(crate) fn closes(self, bars: usize, of: u32) -> Vec<i64> {
        let mut price = 1e11;
        (0..bars)
            .map(|at| {
                let unit = self.unit(at, of);
                price *= match (unit * 64.0) as u32 {
                    0 => 1.0,
                    1 => 1.0 + 0.1 * (unit * 64.0 - 1.5),
                    _ => 1.0 + 2e-3 * (unit - 0.5),
                };
                price = price.clamp(1e9, 1e13);
                price as i64
            })
            .collect()
    }

    /// Covariances of a few factors and noise.
    pub(crate) fn assets(self, count: usize) -> Assets {
        let load = |asset: usize, factor: u32| 0.02 * (self.unit(asset, 900 + factor) - 0.3);
        let loads: Vec<[f64; 8]> =
            (0..count).map(|asset| std::array::from_fn(|factor| load(asset, factor as u32))).collect();
        let mut covariances = vec![0.0; count * count];
        covariances.par_chunks_mut(count).enumerate().for_each(|(row, line)| {
            for (column, entry) in line.iter_mut().enumerate() {
                *entry = loads[row].iter().zip(&loads[column]).map(|(a, b)| a * b).sum();
            }
            line[row] += 1e-4 * (0.5 + self.unit(row, 910));
        });
        // Symmetric to the bit: both halves have the same products in the same order.
        let means = self.many(count, 911, 1e-3);
        Assets::new(&means, &covariances).expect("sums of squares and a diagonal")
    }
}
