//! Value at risk and expected shortfall of a portfolio, simulated with a factor model of its assets' returns.
//!
//! The model: log returns of a bar are `deviation x (loadings x factors + own)`, factors and own parts independent. Loadings
//! are the leading eigenvectors of the correlation matrix of the rows given, the own part is what they leave of each asset's
//! variance. Over a horizon of `h` bars deviations grow with the root of `h`; the mean is taken as 0, as short samples
//! tell it too badly. With a tail of Student's t a scenario's returns share one chi-square, so that extremes come together.
//! A scenario's loss is `-sum of weight x (e^return - 1)`: exact in the returns, not linearised.
//!
//! **Equality:** the same bits on any number of threads: scenarios are addressed and sums have one order.

use crate::correlation::{RollingCorrelation, SYMBOLS_MAX};
use crate::lanes::{LANES, exp_f64, widest};
use crate::philox::{key_of, normals};
use crate::{BatchError, Cpu};
use rayon::prelude::*;

/// Most scenarios.
pub const PATHS_MAX: u64 = 1 << 25;
/// Most scenarios x assets.
pub const DRAWS_MAX: u64 = 1 << 40;
const ROWS_MAX: u64 = crate::correlation::WINDOW_MAX;
const FACTORS_MAX: u64 = 64;
const LEVELS_MAX: u64 = 16;
/// Scenarios per task.
const CHUNK: usize = 4_096;
const FACTORS: u32 = 1;
const OWN: u32 = 2;
const MIX: u32 = 3;

/// How often the unlikely happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Normal returns.
    Normal,
    /// Student's t of so many degrees of freedom, 3 to 100, scaled to the variance observed.
    StudentT {
        /// Degrees of freedom.
        freedom: u32,
    },
}

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct RiskRequest<'a> {
    /// Log returns, a row per bar with one value per asset; from 3 rows.
    pub returns: &'a [f64],
    /// Share of the capital in each asset; below 0 is short.
    pub weights: &'a [f64],
    /// Factors, from 1 and at most as many as assets.
    pub factors: usize,
    /// Length of the horizon in bars, above 0.
    pub horizon_bars: f64,
    /// Scenarios, from 1,000.
    pub paths: u64,
    /// Tail of the returns.
    pub tail: Tail,
    /// Levels of confidence, 0.5 to below 1, each with ten scenarios or more beyond it.
    pub levels: &'a [f64],
    /// Everything random follows from it.
    pub seed: u64,
}

/// Risk at one level, as shares of the capital. Losses are above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskLevel {
    /// The level.
    pub level: f64,
    /// Value at risk: the loss that is exceeded with probability 1 - level.
    pub var: f64,
    /// The interval that holds it in 95 % of simulations.
    pub var_interval: (f64, f64),
    /// Expected shortfall: the mean of losses from the value at risk on.
    pub shortfall: f64,
    /// Its standard error.
    pub shortfall_error: f64,
    /// Each asset's part of the expected shortfall; they add up to it.
    pub parts: Vec<f64>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskReport {
    /// Level by level, as asked for.
    pub levels: Vec<RiskLevel>,
    /// Mean loss.
    pub mean: f64,
    /// Standard deviation of the loss.
    pub deviation: f64,
    /// Largest loss simulated.
    pub worst: f64,
    /// Eigenvalues of the factors, as shares of the number of assets.
    pub explained: Vec<f64>,
}

/// A factor model ready to draw from.
pub(crate) struct Model {
    assets: usize,
    pub(crate) factors: usize,
    /// Asset by factor, scaled to the horizon.
    pub(crate) loadings: Vec<f64>,
    pub(crate) own: Vec<f64>,
    pub(crate) weights: Vec<f64>,
    tail: Tail,
    pub(crate) key: [u32; 2],
}

impl RiskRequest<'_> {
    /// Checks every shape and number; nothing is allocated.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<(), BatchError> {
        let assets = self.weights.len();
        BatchError::count("assets", assets, 1, SYMBOLS_MAX)?;
        let rows = self.returns.len() / assets;
        BatchError::length("returns", self.returns.len(), rows * assets)?;
        BatchError::count("rows of returns", rows, 3, ROWS_MAX)?;
        BatchError::count("factors", self.factors, 1, FACTORS_MAX.min(assets as u64))?;
        let paths = usize::try_from(self.paths).unwrap_or(usize::MAX);
        BatchError::count("paths", paths, 1_000, PATHS_MAX)?;
        BatchError::product("paths x assets", &[self.paths, assets as u64], DRAWS_MAX)?;
        BatchError::product("rows x assets", &[rows as u64, assets as u64], crate::correlation::KEPT_MAX)?;
        BatchError::parameter(
            "horizon in bars",
            self.horizon_bars,
            |x| x > 0.0 && x <= 1e6,
            "above 0 and at most 1e6",
        )?;
        if let Tail::StudentT { freedom } = self.tail {
            let fits = |x| (3.0..=100.0).contains(&x);
            BatchError::parameter("degrees of freedom", f64::from(freedom), fits, "3 to 100")?;
        }
        BatchError::count("levels", self.levels.len(), 1, LEVELS_MAX)?;
        for &level in self.levels {
            let beyond =
                |level: f64| (0.5..1.0).contains(&level) && (1.0 - level) * self.paths as f64 >= 9.999;
            let allowed = "0.5 to below 1, with ten paths or more beyond it";
            BatchError::parameter("level", level, beyond, allowed)?;
        }
        BatchError::finite("weights", self.weights)?;
        if let Some(&weight) = self.weights.iter().find(|weight| weight.abs() > 1e6) {
            return Err(BatchError::Parameter { name: "a weight", value: weight, allowed: "-1e6 to 1e6" });
        }
        BatchError::finite("returns", self.returns)?;
        if let Some(&value) = self.returns.iter().find(|value| value.abs() > 10.0) {
            return Err(BatchError::Parameter { name: "a log return", value, allowed: "-10 to 10" });
        }
        Ok(())
    }

    pub(crate) fn run(&self) -> Result<RiskReport, BatchError> {
        // In the pool that this is called in.
        self.report(None, |model, losses| {
            losses.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, losses)| {
                for (group, losses) in losses.chunks_mut(LANES).enumerate() {
                    let found = model.scenarios((chunk * CHUNK + group * LANES) as u64, None);
                    losses.copy_from_slice(&found[..losses.len()]);
                }
            });
            Ok(())
        })
    }

    /// The report from the losses that `simulate` fills in, scenario by scenario from 0. All else runs in the pool of `cpu`, if one
    /// is named: who simulates may wait for a device, and no thread of a pool should.
    pub(crate) fn report<E: From<BatchError>>(
        &self,
        cpu: Option<&Cpu>,
        simulate: impl FnOnce(&Model, &mut [f64]) -> Result<(), E>,
    ) -> Result<RiskReport, E> {
        self.check()?;
        let (model, explained) = match cpu {
            Some(cpu) => cpu.install(|| Model::fit(self)),
            None => Model::fit(self),
        }?;
        let mut losses = vec![0.0; self.paths as usize];
        simulate(&model, &mut losses)?;
        Ok(match cpu {
            Some(cpu) => cpu.install(|| self.judge(&model, explained, &losses)),
            None => self.judge(&model, explained, &losses),
        })
    }

    fn judge(&self, model: &Model, explained: Vec<f64>, losses: &[f64]) -> RiskReport {
        let paths = losses.len();
        let sums = |of: &(dyn Fn(f64) -> f64 + Sync)| -> f64 {
            let chunks: Vec<f64> =
                losses.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|&loss| of(loss)).sum()).collect();
            chunks.iter().sum()
        };
        let count = paths as f64;
        let mean = sums(&|loss| loss) / count;
        let deviation = (sums(&|loss| (loss - mean) * (loss - mean)) / (count - 1.0)).sqrt();
        let mut sorted = losses.to_vec();
        sorted.par_sort_unstable_by(f64::total_cmp);
        let one = |&level: &f64| {
            let rank = ((level * count).ceil() as usize).clamp(1, paths) - 1;
            let reach = 1.959_963_984_540_054 * (count * level * (1.0 - level)).sqrt();
            let at = |rank: f64| sorted[(rank.max(0.0) as usize).min(paths - 1)];
            let (var, tail) = (sorted[rank], &sorted[rank..]);
            let size = tail.len() as f64;
            let shortfall = tail.iter().sum::<f64>() / size;
            let spread = tail.iter().map(|loss| (loss - shortfall).powi(2)).sum::<f64>() / size;
            RiskLevel {
                level,
                var,
                var_interval: (at(rank as f64 - reach), at(rank as f64 + reach + 1.0)),
                shortfall,
                shortfall_error: ((spread + level * (shortfall - var).powi(2)) / size).sqrt(),
                parts: model.parts(losses, var, tail.len()),
            }
        };
        RiskReport {
            levels: self.levels.iter().map(one).collect(),
            mean,
            deviation,
            worst: sorted[paths - 1],
            explained,
        }
    }
}

impl Model {
    fn fit(request: &RiskRequest<'_>) -> Result<(Self, Vec<f64>), BatchError> {
        let assets = request.weights.len();
        let rows = request.returns.chunks_exact(assets);
        let count = rows.len() as f64;
        let mut means = vec![0.0; assets];
        let mut squares = vec![0.0; assets];
        let mut rolling = RollingCorrelation::new(assets, rows.len())?;
        for row in rows.clone() {
            rolling.update(row)?;
            means.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / count);
        }
        for row in rows {
            for ((square, value), mean) in squares.iter_mut().zip(row).zip(&means) {
                *square += (value - mean).powi(2) / (count - 1.0);
            }
        }
        let spectrum = rolling.correlation().leading(request.factors)?;
        let factors = request.factors;
        let (mut loadings, mut own) = (vec![0.0; assets * factors], vec![0.0; assets]);
        for asset in 0..assets {
            let deviation = (squares[asset] * request.horizon_bars).sqrt();
            let mut left = 1.0;
            for (factor, value) in spectrum.values.iter().enumerate() {
                let load = value.max(0.0).sqrt() * spectrum.vectors[factor * assets + asset];
                loadings[asset * factors + factor] = load * deviation;
                left -= load * load;
            }
            own[asset] = f64::max(left, 0.0).sqrt() * deviation;
        }
        let explained = spectrum.values.iter().map(|value| value / assets as f64).collect();
        let weights = request.weights.to_vec();
        let key = key_of(request.seed);
        Ok((Self { assets, factors, loadings, own, weights, tail: request.tail, key }, explained))
    }

    /// Degrees of freedom of the tail, 0 for the normal one.
    pub(crate) fn freedom(&self) -> u32 {
        if let Tail::StudentT { freedom } = self.tail { freedom } else { 0 }
    }

    /// Losses of [`LANES`] scenarios from `first`; and, where `parts` is given, each asset's, asset by asset.
    fn scenarios(&self, first: u64, mut parts: Option<&mut [[f64; LANES]]>) -> [f64; LANES] {
        let mut factors = [[0.0; LANES]; FACTORS_MAX as usize];
        let mut losses = [0.0; LANES];
        widest(
            #[inline(always)]
            || {
                let mut scale = [1.0; LANES];
                if let Tail::StudentT { freedom } = self.tail {
                    let mut square = [0.0; LANES];
                    for block in 0..freedom.div_ceil(4) {
                        let z = normals(first, block, MIX, self.key);
                        for row in &z[..(freedom - 4 * block).min(4) as usize] {
                            for lane in 0..LANES {
                                let z = f64::from(row[lane]);
                                square[lane] = z.mul_add(z, square[lane]);
                            }
                        }
                    }
                    for lane in 0..LANES {
                        scale[lane] = ((f64::from(freedom) - 2.0) / square[lane]).sqrt();
                    }
                }
                for (block, rows) in (0u32..).zip(factors[..self.factors].chunks_mut(4)) {
                    let z = normals(first, block, FACTORS, self.key);
                    for (row, z) in rows.iter_mut().zip(&z) {
                        for lane in 0..LANES {
                            row[lane] = f64::from(z[lane]);
                        }
                    }
                }
                for block in 0..self.assets.div_ceil(4) {
                    let z = normals(first, block as u32, OWN, self.key);
                    for (asset, z) in (4 * block..self.assets).zip(&z) {
                        let own = self.own[asset];
                        let mut sum: [f64; LANES] = std::array::from_fn(|lane| own * f64::from(z[lane]));
                        let loads = &self.loadings[asset * self.factors..(asset + 1) * self.factors];
                        for (load, factor) in loads.iter().zip(&factors) {
                            for lane in 0..LANES {
                                sum[lane] = load.mul_add(factor[lane], sum[lane]);
                            }
                        }
                        let weight = self.weights[asset];
                        for lane in 0..LANES {
                            // No price falls or grows by more than e^50 in any scenario that means something.
                            let moved = (sum[lane] * scale[lane]).clamp(-50.0, 50.0);
                            sum[lane] = -weight * (exp_f64(moved) - 1.0);
                            losses[lane] += sum[lane];
                        }
                        if let Some(parts) = parts.as_deref_mut() {
                            parts[asset] = sum;
                        }
                    }
                }
            },
        );
        losses
    }

    /// Each asset's mean loss over the `count` scenarios from `var` on. They are simulated again: an address suffices.
    fn parts(&self, losses: &[f64], var: f64, count: usize) -> Vec<f64> {
        let chunks: Vec<Vec<f64>> = losses
            .par_chunks(CHUNK)
            .enumerate()
            .map(|(chunk, losses)| {
                let mut sums = vec![0.0; self.assets];
                let mut parts = vec![[0.0; LANES]; self.assets];
                for (group, losses) in losses.chunks(LANES).enumerate() {
                    if losses.iter().all(|&loss| loss < var) {
                        continue;
                    }
                    self.scenarios((chunk * CHUNK + group * LANES) as u64, Some(&mut parts));
                    for (sum, part) in sums.iter_mut().zip(&parts) {
                        for (loss, part) in losses.iter().zip(part) {
                            *sum += if *loss >= var { *part } else { 0.0 };
                        }
                    }
                }
                sums
            })
            .collect();
        let total = |asset: usize| chunks.iter().map(|sums| sums[asset]).sum::<f64>() / count as f64;
        (0..self.assets).map(total).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backend;
    use crate::options::tests::normal_cdf;
    use crate::sobol::inverse_normal;

    fn returns(assets: usize, rows: usize) -> Vec<f64> {
        let z = |at: usize, of: usize| {
            let word = crate::philox::philox4x32([at as u32, of as u32, 0, 0], [5, 5])[0];
            inverse_normal((f64::from(word) + 0.5) / 4_294_967_296.0)
        };
        let one = |row: usize, asset: usize| {
            1e-4 * (0.8 * z(row, 1 << 20) + (0.5 + asset as f64 / 9.0) * z(row, asset))
        };
        (0..rows).flat_map(|row| (0..assets).map(move |asset| one(row, asset))).collect()
    }

    /// Small returns are as good as linear, so that the loss is normal with the model's own variance.
    #[test]
    fn small_normal_returns_have_the_closed_form() {
        let (assets, rows) = (7, 400);
        let returns = returns(assets, rows);
        let weights = [0.3, 0.2, -0.1, 0.1, 0.25, 0.15, 0.1];
        let request = RiskRequest {
            returns: &returns,
            weights: &weights,
            factors: assets, // all of them: the model's covariance is the sample's
            horizon_bars: 4.0,
            paths: 200_000,
            tail: Tail::Normal,
            levels: &[0.95, 0.99],
            seed: 3,
        };
        let report = Cpu::new(0).unwrap().risk(&request).unwrap();
        let total: Vec<f64> = returns
            .chunks_exact(assets)
            .map(|row| row.iter().zip(&weights).map(|(r, w)| r * w).sum())
            .collect();
        let mean = total.iter().sum::<f64>() / rows as f64;
        let variance = total.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (rows - 1) as f64;
        let deviation = (4.0 * variance).sqrt();
        assert!((report.deviation / deviation - 1.0).abs() < 0.01, "{} {deviation}", report.deviation);
        for level in &report.levels {
            let z = inverse_normal(level.level);
            let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let (low, high) = level.var_interval;
            assert!(low < level.var && level.var < high);
            assert!((level.var / (z * deviation) - 1.0).abs() < 0.015, "{level:?}");
            let shortfall = deviation * density / (1.0 - level.level);
            assert!(
                (level.shortfall - shortfall).abs() < 4.0 * level.shortfall_error + 2e-3 * shortfall,
                "{level:?}"
            );
            assert!((level.parts.iter().sum::<f64>() - level.shortfall).abs() < 1e-12);
        }
        assert!((report.explained.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_heavy_tail_keeps_the_variance_and_raises_the_shortfall() {
        let returns = returns(3, 200);
        let request = RiskRequest {
            returns: &returns,
            weights: &[0.4, 0.3, 0.3],
            factors: 1,
            horizon_bars: 1.0,
            paths: 400_000,
            tail: Tail::Normal,
            levels: &[0.999],
            seed: 1,
        };
        let cpu = Cpu::new(0).unwrap();
        let normal = cpu.risk(&request).unwrap();
        let heavy = cpu.risk(&RiskRequest { tail: Tail::StudentT { freedom: 5 }, ..request }).unwrap();
        assert!((heavy.deviation / normal.deviation - 1.0).abs() < 0.02);
        // Quantiles of t with 5 degrees, scaled to variance 1, and of the normal law.
        let ratio = heavy.levels[0].var / normal.levels[0].var;
        let want = 5.893_43 * (3.0f64 / 5.0).sqrt() / inverse_normal(0.999);
        assert!((ratio / want - 1.0).abs() < 0.05, "{ratio} {want}");
        assert!(heavy.worst > normal.worst && normal_cdf(0.0) == 0.5);
    }

    #[test]
    fn threads_change_nothing_and_odd_counts_are_whole() {
        let returns = returns(6, 50);
        let request = RiskRequest {
            returns: &returns,
            weights: &[1.0 / 6.0; 6],
            factors: 2,
            horizon_bars: 2.0,
            paths: 10_007,
            tail: Tail::StudentT { freedom: 4 },
            levels: &[0.9, 0.99],
            seed: 9,
        };
        let one = Cpu::new(1).unwrap().risk(&request).unwrap();
        assert_eq!(one, Cpu::new(3).unwrap().risk(&request).unwrap());
        assert!(one.levels[0].var > 0.0 && one.levels[1].var > one.levels[0].var);
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let returns = returns(2, 10);
        let request = RiskRequest {
            returns: &returns,
            weights: &[0.5, 0.5],
            factors: 1,
            horizon_bars: 1.0,
            paths: 1_000,
            tail: Tail::Normal,
            levels: &[0.95],
            seed: 1,
        };
        assert_eq!(request.check(), Ok(()));
        let text = |request: RiskRequest<'_>| request.check().unwrap_err().to_string();
        assert_eq!(text(RiskRequest { weights: &[], ..request }), "assets: 0; allowed are 1 to 16384");
        assert_eq!(
            text(RiskRequest { returns: &returns[1..], ..request }),
            "returns: length 19, but 18 is needed"
        );
        assert_eq!(
            text(RiskRequest { returns: &returns[..4], ..request }),
            "rows of returns: 2; allowed are 3 to 65536"
        );
        assert_eq!(text(RiskRequest { factors: 3, ..request }), "factors: 3; allowed are 1 to 2");
        assert_eq!(text(RiskRequest { paths: 10, ..request }), "paths: 10; allowed are 1000 to 33554432");
        assert!(
            text(RiskRequest { levels: &[0.999], ..request }).starts_with("level is 0.999; allowed is 0.5")
        );
        let tail = Tail::StudentT { freedom: 2 };
        assert_eq!(text(RiskRequest { tail, ..request }), "degrees of freedom is 2; allowed is 3 to 100");
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(text(RiskRequest { horizon_bars: wrong, ..request }).starts_with("horizon in bars is"));
        }
        let mut poisoned = returns.clone();
        poisoned[3] = f64::NAN;
        assert!(text(RiskRequest { returns: &poisoned, ..request }).starts_with("returns[3] is NaN"));
    }
}
