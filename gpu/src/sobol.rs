//! Options on quasi-random paths: Sobol points, scrambled (Owen 1995; Burley 2020), and a Brownian bridge that spends their
//! best coordinates on what moves a path most (Caflisch, Morokoff & Owen 1997).
//!
//! **Equality:** bit-equal on any number of threads: each replicate is summed in the order of its points.

use crate::BatchError;
use crate::options::{Estimate, Market, Payoff, Plan, check_payoffs};
use rayon::prelude::*;

/// Most points of a replicate.
pub const POINTS_MAX: u32 = 1 << 16;
/// Most steps of a path: a coordinate each.
pub const STEPS_MAX: u32 = 256;
const REPLICATES_MAX: u64 = 1 << 10;

/// What to integrate.
#[derive(Clone, Copy, Debug)]
pub struct QuasiBatch<'a> {
    /// The asset.
    pub market: Market,
    /// Payoffs, all on the same paths.
    pub payoffs: &'a [Payoff],
    /// Points per replicate, a power of two up to [`POINTS_MAX`].
    pub points: u32,
    /// Independent scramblings, from 2: their spread gives the standard error.
    pub replicates: u32,
    /// Steps per path, 1 to [`STEPS_MAX`].
    pub steps: u32,
    /// Everything random follows from it.
    pub seed: u32,
}

/// One step of a bridge: the value at `at` between two that are known.
#[derive(Clone, Copy)]
struct Span {
    left: usize,
    at: usize,
    right: usize,
    weight_left: f64,
    weight_right: f64,
    deviation: f64,
}

/// The order of a bridge over `steps` of equal length, in units of a step: the end first, then middles of the widest gaps.
fn bridge(steps: usize) -> Vec<Span> {
    let end = Span {
        left: 0,
        at: steps,
        right: 0,
        weight_left: 1.0,
        weight_right: 0.0,
        deviation: (steps as f64).sqrt(),
    };
    let mut spans = vec![end];
    let mut gaps = std::collections::VecDeque::from([(0, steps)]);
    while let Some((left, right)) = gaps.pop_front() {
        if right - left < 2 {
            continue;
        }
        let at = left.midpoint(right);
        let (before, after, whole) = ((at - left) as f64, (right - at) as f64, (right - left) as f64);
        let deviation = (before * after / whole).sqrt();
        spans.push(Span {
            left,
            at,
            right,
            weight_left: after / whole,
            weight_right: before / whole,
            deviation,
        });
        gaps.extend([(left, at), (at, right)]);
    }
    spans
}

impl QuasiBatch<'_> {
    /// Checks every number; nothing is allocated.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<(), BatchError> {
        self.market.check()?;
        check_payoffs(self.payoffs)?;
        let power = |_| self.points.is_power_of_two() && self.points <= POINTS_MAX;
        BatchError::parameter("points", self.points.into(), power, "a power of two from 1 to 65536")?;
        BatchError::count("replicates", self.replicates as usize, 2, REPLICATES_MAX)?;
        BatchError::count("steps", self.steps as usize, 1, STEPS_MAX.into())
    }

    /// Integrates, on the threads of the pool it is called in.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    pub fn run(&self) -> Result<Vec<Estimate>, BatchError> {
        self.check()?;
        let plans: Vec<Plan> = self.payoffs.iter().map(|payoff| Plan::new(&self.market, payoff)).collect();
        let spans = bridge(self.steps as usize);
        let means: Vec<Vec<f64>> =
            (0..self.replicates).into_par_iter().map(|which| self.replicate(&plans, &spans, which)).collect();
        let count = f64::from(self.replicates);
        let estimate = |at: usize| {
            let value = means.iter().map(|means| means[at]).sum::<f64>() / count;
            let spread = means.iter().map(|means| (means[at] - value).powi(2)).sum::<f64>();
            Estimate { value, standard_error: (spread / (count - 1.0) / count).sqrt() }
        };
        Ok((0..plans.len()).map(estimate).collect())
    }

    fn replicate(&self, plans: &[Plan], spans: &[Span], which: u32) -> Vec<f64> {
        let seed = self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(which);
        let steps = f64::from(self.steps);
        let to_end = (self.market.years / steps).sqrt();
        let to_mean = to_end / steps * (4.0 * steps * steps / (4.0 * steps * steps - 1.0)).sqrt();
        let mut path = vec![0.0; self.steps as usize + 1];
        let mut sums = vec![0.0; plans.len()];
        for point in 0..self.points {
            for (dimension, span) in (0u32..).zip(spans) {
                // In the middle of the cell that the point stands for, so never 0 or 1.
                let u = f64::from(sobol_burley::sample(point, dimension, seed)) + 2.0f64.powi(-24);
                let between = span.weight_left * path[span.left] + span.weight_right * path[span.right];
                path[span.at] = between + span.deviation * inverse_normal(u);
            }
            let end = path[self.steps as usize];
            let area = path.iter().sum::<f64>() - end / 2.0;
            for (plan, sum) in plans.iter().zip(&mut sums) {
                *sum += plan.value(if plan.mean { area * to_mean } else { end * to_end });
            }
        }
        sums.iter().map(|sum| sum / f64::from(self.points)).collect()
    }
}

/// The number that a standard normal one is below with probability `p`, `0 < p < 1`, within 1e-15 of itself (Wichura 1988,
/// AS 241).
#[must_use]
#[allow(clippy::excessive_precision)]
pub fn inverse_normal(p: f64) -> f64 {
    let ratio = |x: f64, above: [f64; 8], below: [f64; 8]| {
        let horner = |terms: [f64; 8]| terms.iter().rev().fold(0.0, |sum, term| sum * x + term);
        horner(above) / horner(below)
    };
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let above = [
            3.387_132_872_796_366_608,
            133.141_667_891_784_377_45,
            1_971.590_950_306_551_442_7,
            13_731.693_765_509_461_125,
            45_921.953_931_549_871_457,
            67_265.770_927_008_700_853,
            33_430.575_583_588_128_105,
            2_509.080_928_730_122_672_7,
        ];
        let below = [
            1.0,
            42.313_330_701_600_911_252,
            687.187_007_492_057_908_3,
            5_394.196_021_424_751_107_7,
            21_213.794_301_586_595_867,
            39_307.895_800_092_710_61,
            28_729.085_735_721_942_674,
            5_226.495_278_852_854_561,
        ];
        return q * ratio(0.180_625 - q * q, above, below);
    }
    let r = (-libm::log(if q < 0.0 { p } else { 1.0 - p })).sqrt();
    let x = if r <= 5.0 {
        let above = [
            1.423_437_110_749_683_577_34,
            4.630_337_846_156_545_295_9,
            5.769_497_221_460_691_405_5,
            3.647_848_324_763_204_605_04,
            1.270_458_252_452_368_382_58,
            0.241_780_725_177_450_611_77,
            0.022_723_844_989_269_184_583_3,
            7.745_450_142_783_414_076_4e-4,
        ];
        let below = [
            1.0,
            2.053_191_626_637_758_821_87,
            1.676_384_830_183_803_849_4,
            0.689_767_334_985_100_004_55,
            0.148_103_976_427_480_074_59,
            0.015_198_666_563_616_457_196_6,
            5.475_938_084_995_344_946e-4,
            1.050_750_071_644_416_843_24e-9,
        ];
        ratio(r - 1.6, above, below)
    } else {
        let above = [
            6.657_904_643_501_103_777_2,
            5.463_784_911_164_114_369_9,
            1.784_826_539_917_291_335_8,
            0.296_560_571_828_504_891_23,
            0.026_532_189_526_576_123_093,
            1.242_660_947_388_078_438_6e-3,
            2.711_555_568_743_487_578_15e-5,
            2.010_334_399_292_288_132_65e-7,
        ];
        let below = [
            1.0,
            0.599_832_206_555_887_937_69,
            0.136_929_880_922_735_805_31,
            0.014_875_361_290_850_614_852_5,
            7.868_691_311_456_132_591e-4,
            1.846_318_317_510_054_681_8e-5,
            1.421_511_758_316_445_888_7e-7,
            2.044_263_103_389_939_785_64e-15,
        ];
        ratio(r - 5.0, above, below)
    };
    if q < 0.0 { -x } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::{closed_form, normal_cdf, some_markets};

    #[test]
    fn the_inverse_is_one() {
        for step in 1..10_000 {
            let p = f64::from(step) / 10_000.0;
            assert!((normal_cdf(inverse_normal(p)) - p).abs() < 2e-15, "{p}");
        }
        for exponent in 2..300 {
            let p = 10f64.powi(-exponent);
            let back = normal_cdf(inverse_normal(p));
            assert!((back / p - 1.0).abs() < 2e-12, "1e-{exponent}: {back}");
        }
        assert_eq!(inverse_normal(0.5), 0.0);
    }

    #[test]
    fn a_bridge_is_brownian() {
        for steps in [1, 2, 3, 7, 16] {
            // Each point as a combination of the normals; then covariances are those of Brownian motion.
            let mut rows = vec![vec![0.0; steps]; steps + 1];
            for (dimension, span) in bridge(steps).iter().enumerate() {
                let row: Vec<f64> = (0..steps)
                    .map(|at| {
                        span.weight_left * rows[span.left][at] + span.weight_right * rows[span.right][at]
                    })
                    .collect();
                rows[span.at] = row;
                rows[span.at][dimension] += span.deviation;
            }
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in rows.iter().enumerate() {
                    let covariance: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    assert!((covariance - i.min(j) as f64).abs() < 1e-12, "{steps} steps, {i} {j}");
                }
            }
        }
    }

    #[test]
    fn errors_are_under_a_ten_thousandth_of_the_spot() {
        for (market, strike) in some_markets().into_iter().step_by(4) {
            let payoffs =
                [Payoff::Call { strike }, Payoff::Put { strike }, Payoff::GeometricAsianCall { strike }];
            let batch =
                QuasiBatch { market, payoffs: &payoffs, points: 4_096, replicates: 4, steps: 8, seed: 1 };
            for (payoff, estimate) in payoffs.iter().zip(batch.run().unwrap()) {
                let error = (estimate.value - closed_form(&market, payoff)).abs() / market.spot;
                assert!(error < 1e-4, "{market:?} {payoff:?}: {error:e}");
            }
        }
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let (market, strike) = some_markets()[0];
        let payoffs = [Payoff::Put { strike }];
        let batch = QuasiBatch { market, payoffs: &payoffs, points: 64, replicates: 2, steps: 1, seed: 1 };
        let text = |batch: QuasiBatch<'_>| batch.check().unwrap_err().to_string();
        for points in [0, 3, 1 << 17] {
            assert!(
                text(QuasiBatch { points, ..batch }).ends_with("allowed is a power of two from 1 to 65536")
            );
        }
        assert_eq!(text(QuasiBatch { replicates: 1, ..batch }), "replicates: 1; allowed are 2 to 1024");
        assert_eq!(text(QuasiBatch { steps: 257, ..batch }), "steps: 257; allowed are 1 to 256");
    }
}
