//! Banks of Bayesian online change-point detectors (Adams & MacKay 2007, arXiv:0710.3742): for each of thousands of series a
//! posterior over how long its present regime has lasted.
//!
//! Observations of a regime are normal with unknown mean and variance (normal-inverse-gamma prior, Student's t prediction).
//! Every run length up to the last is kept, none is pruned; the last stands for itself and all longer ones, with the statistics
//! of its own length, so it forgets what lies further back. A run whose density is below `e^-700` of the best counts as that, and
//! a chance below 1e-200 as none.
//!
//! **Equality:** the same bits on any number of threads and on a device; chances within 1e-9 of the plain recursion.

use crate::BatchError;
use crate::hmm::{VALUES_MAX, within};
use crate::lanes::{LANES, exp_weight, ln_f64, widest};
use rayon::prelude::*;

#[cfg(test)]
mod tests;

/// Most series of a bank.
pub const SERIES_MAX: u64 = 1 << 20;
/// Most run lengths.
pub const RUNS_MAX: u64 = 1_024;
/// Run lengths come in multiples of this.
pub const RUNS_STEP: usize = 32;
/// Most run lengths of all series: 8 GiB of state.
const STATE_MAX: u64 = 1 << 28;
/// Chances below this are none.
const CHANCE_LEAST: f64 = 1e-200;
/// Numbers per run length that follow from the prior alone.
pub(crate) const TABLES: usize = 5;

/// What a bank expects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeOptions {
    /// Run lengths kept: a multiple of 32, 32 to 1,024.
    pub runs: usize,
    /// Observations between changes that are expected beforehand, above 1 and at most 1e9; the hazard is one over it.
    pub run_expected: f64,
    /// A run of fewer observations than this is recent: 1 to `runs`.
    pub recent: usize,
    /// Mean of a regime, before its first observation.
    pub mean: f64,
    /// How many observations that mean is worth, 1e-6 to 1e6.
    pub mean_weight: f64,
    /// Deviation of a regime's observations, before the first: 1e-100 to 1e15.
    pub deviation: f64,
    /// How many observations that deviation is worth, 1e-3 to 1e6.
    pub deviation_weight: f64,
}

impl Default for ChangeOptions {
    /// For series brought to mean 0 and deviation 1.
    fn default() -> Self {
        Self {
            runs: 512,
            run_expected: 250.0,
            recent: 8,
            mean: 0.0,
            mean_weight: 0.1,
            deviation: 1.0,
            deviation_weight: 2.0,
        }
    }
}

impl ChangeOptions {
    fn check(&self) -> Result<(), BatchError> {
        BatchError::count("run lengths", self.runs, RUNS_STEP as u64, RUNS_MAX)?;
        let whole = self.runs.is_multiple_of(RUNS_STEP);
        BatchError::parameter("run lengths", self.runs as f64, |_| whole, "a multiple of 32")?;
        BatchError::count("recent", self.recent, 1, self.runs as u64)?;
        let expected = |x| x > 1.0 && x <= 1e9;
        BatchError::parameter("expected run", self.run_expected, expected, "above 1 and at most 1e9")?;
        within("the mean", &[self.mean])?;
        let weight = |x: f64| (1e-6..=1e6).contains(&x);
        BatchError::parameter("weight of the mean", self.mean_weight, weight, "1e-6 to 1e6")?;
        let spread = |x: f64| (1e-100..=1e15).contains(&x);
        BatchError::parameter("deviation", self.deviation, spread, "1e-100 to 1e15")?;
        let weight = |x: f64| (1e-3..=1e6).contains(&x);
        BatchError::parameter("weight of the deviation", self.deviation_weight, weight, "1e-3 to 1e6")
    }
}

/// What rows brought, row by row, one entry per series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeSteps {
    /// The likeliest run length in observations; the longer of two equally likely ones.
    pub likeliest: Vec<u32>,
    /// Chance that the present run has fewer than `recent` observations.
    pub recent: Vec<f64>,
}

/// A detector per series.
#[derive(Clone, Debug)]
pub struct ChangeBank {
    options: ChangeOptions,
    series: usize,
    /// Constant, exponent, share of the square, share of the mean, 1 where recent: each a number per run length.
    pub(crate) tables: Vec<f64>,
    pub(crate) prior: [f64; 3],
    pub(crate) chances: Vec<f64>,
    pub(crate) means: Vec<f64>,
    pub(crate) betas: Vec<f64>,
    pub(crate) ln_betas: Vec<f64>,
    pub(crate) evidences: Vec<f64>,
    pub(crate) rows: u64,
}

impl ChangeBank {
    /// A bank before its first row: every run has length 0.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn new(series: usize, options: ChangeOptions) -> Result<Self, BatchError> {
        options.check()?;
        BatchError::count("series", series, 1, SERIES_MAX)?;
        BatchError::product("series x run lengths", &[series as u64, options.runs as u64], STATE_MAX)?;
        let runs = options.runs;
        let alpha_of = |run: usize| (options.deviation_weight + run as f64) / 2.0;
        let kappa_of = |run: usize| options.mean_weight + run as f64;
        let mut tables = vec![0.0; TABLES * runs];
        for run in 0..runs {
            let (alpha, kappa) = (alpha_of(run), kappa_of(run));
            let gammas = libm::lgamma(alpha + 0.5) - libm::lgamma(alpha);
            let width = std::f64::consts::TAU * (kappa + 1.0) / kappa;
            tables[run] = gammas - 0.5 * libm::log(width);
            tables[runs + run] = alpha;
            tables[2 * runs + run] = kappa / (2.0 * (kappa + 1.0));
            tables[3 * runs + run] = 1.0 / (kappa + 1.0);
            tables[4 * runs + run] = if run < options.recent { 1.0 } else { 0.0 };
        }
        let beta = alpha_of(0) * options.deviation * options.deviation;
        let prior = [options.mean, beta, ln_f64(beta)];
        let size = series * runs;
        let mut chances = vec![0.0; size];
        chances.iter_mut().step_by(runs).for_each(|chance| *chance = 1.0);
        let [means, betas, ln_betas] = prior.map(|number| vec![number; size]);
        let evidences = vec![0.0; series];
        Ok(Self { options, series, tables, prior, chances, means, betas, ln_betas, evidences, rows: 0 })
    }

    /// What it expects.
    #[must_use]
    pub fn options(&self) -> &ChangeOptions {
        &self.options
    }

    /// Series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.series
    }

    /// Rows taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Chances of a series' run lengths, from 0; they add up to one.
    ///
    /// # Panics
    /// When there is no such series.
    #[must_use]
    pub fn chances(&self, series: usize) -> &[f64] {
        &self.chances[series * self.options.runs..(series + 1) * self.options.runs]
    }

    /// Log-likelihood of a series so far, each value predicted from those before it.
    ///
    /// # Panics
    /// When there is no such series.
    #[must_use]
    pub fn log_evidence(&self, series: usize) -> f64 {
        self.evidences[series]
    }

    pub(crate) fn hazard(&self) -> f64 {
        1.0 / self.options.run_expected
    }

    pub(crate) fn check(&self, values: &[f64]) -> Result<usize, BatchError> {
        let rows = values.len() / self.series;
        BatchError::product("rows x series", &[rows as u64, self.series as u64], VALUES_MAX)?;
        BatchError::length("values", values.len(), rows * self.series)?;
        BatchError::finite("values", values)?;
        within("a value", values)?;
        Ok(rows)
    }

    /// Takes rows of values, one per series, on the threads of the pool it is called in.
    pub(crate) fn run(&mut self, values: &[f64]) -> Result<ChangeSteps, BatchError> {
        let rows = self.check(values)?;
        let (runs, series, hazard) = (self.options.runs, self.series, self.hazard());
        let (tables, prior) = (&self.tables, self.prior);
        let states = self.chances.par_chunks_exact_mut(runs).zip(self.means.par_chunks_exact_mut(runs));
        let states = states.zip(self.betas.par_chunks_exact_mut(runs));
        let states =
            states.zip(self.ln_betas.par_chunks_exact_mut(runs)).zip(&mut self.evidences).enumerate();
        let found: Vec<(Vec<u32>, Vec<f64>)> = states
            .map_init(
                || vec![0.0; 5 * runs],
                |scratch, (at, ((((chances, means), betas), ln_betas), evidence))| {
                    let own = values.iter().skip(at).step_by(series).copied();
                    let mut state = State { chances, means, betas, ln_betas, evidence };
                    own.map(|x| state.take(x, tables, prior, hazard, scratch)).unzip()
                },
            )
            .collect();
        self.rows += rows as u64;
        let by_row = |row: usize| (0..series).map(move |series| (series, row));
        Ok(ChangeSteps {
            likeliest: (0..rows).flat_map(by_row).map(|(series, row)| found[series].0[row]).collect(),
            recent: (0..rows).flat_map(by_row).map(|(series, row)| found[series].1[row]).collect(),
        })
    }
}

/// One series' state, each slice a number per run length.
struct State<'a> {
    chances: &'a mut [f64],
    means: &'a mut [f64],
    betas: &'a mut [f64],
    ln_betas: &'a mut [f64],
    evidence: &'a mut f64,
}

impl State<'_> {
    fn take(
        &mut self,
        x: f64,
        tables: &[f64],
        [mean, beta, ln_beta]: [f64; 3],
        hazard: f64,
        scratch: &mut [f64],
    ) -> (u32, f64) {
        let runs = self.chances.len();
        let Self { chances, means, betas, ln_betas, evidence } = self;
        widest(
            #[inline(always)]
            || {
                let (constant, tables) = tables.split_at(runs);
                let (exponent, tables) = tables.split_at(runs);
                let (of_square, tables) = tables.split_at(runs);
                let (of_mean, young) = tables.split_at(runs);
                let (weight, scratch) = scratch.split_at_mut(runs);
                let (moved, scratch) = scratch.split_at_mut(runs);
                let (grown, scratch) = scratch.split_at_mut(runs);
                let (ln_grown, density) = scratch.split_at_mut(runs);
                let mut tops = [f64::NEG_INFINITY; LANES];
                for from in (0..runs).step_by(LANES) {
                    let span = from..from + LANES;
                    let [constant, exponent] = [&constant[span.clone()], &exponent[span.clone()]];
                    let [of_square, of_mean] = [&of_square[span.clone()], &of_mean[span.clone()]];
                    let [mean, beta] = [&means[span.clone()], &betas[span.clone()]];
                    let ln_beta = &ln_betas[span.clone()];
                    let [moved, grown] = [&mut moved[span.clone()], &mut grown[span.clone()]];
                    let [ln_grown, density] = [&mut ln_grown[span.clone()], &mut density[span]];
                    for lane in 0..LANES {
                        let away = x - mean[lane];
                        grown[lane] = (away * away).mul_add(of_square[lane], beta[lane]);
                        moved[lane] = away.mul_add(of_mean[lane], mean[lane]);
                        ln_grown[lane] = ln_f64(grown[lane]);
                        let before = exponent[lane].mul_add(ln_beta[lane], constant[lane]);
                        density[lane] = (-(exponent[lane] + 0.5)).mul_add(ln_grown[lane], before);
                        tops[lane] = if density[lane] > tops[lane] { density[lane] } else { tops[lane] };
                    }
                }
                let best = tops.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                for from in (0..runs).step_by(LANES) {
                    let span = from..from + LANES;
                    let [chance, density] = [&chances[span.clone()], &density[span.clone()]];
                    let weight = &mut weight[span];
                    for lane in 0..LANES {
                        let less = density[lane] - best;
                        weight[lane] = chance[lane] * exp_weight(if less > -700.0 { less } else { -700.0 });
                    }
                }
                let sum = ordered_sum(weight);
                **evidence += best + ln_f64(sum);
                let share = (1.0 - hazard) / sum;
                for weight in weight.iter_mut() {
                    *weight *= share;
                }
                // Every run is one longer, and a new one begins; the longest two become one.
                chances[1..].copy_from_slice(&weight[..runs - 1]);
                chances[runs - 1] += weight[runs - 1];
                for chance in chances[1..].iter_mut() {
                    *chance = if *chance < CHANCE_LEAST { 0.0 } else { *chance };
                }
                means[1..].copy_from_slice(&moved[..runs - 1]);
                betas[1..].copy_from_slice(&grown[..runs - 1]);
                ln_betas[1..].copy_from_slice(&ln_grown[..runs - 1]);
                (chances[0], means[0], betas[0], ln_betas[0]) = (hazard, mean, beta, ln_beta);
                for ((weight, chance), young) in weight.iter_mut().zip(chances.iter()).zip(young) {
                    *weight = chance * young;
                }
                let recent = ordered_sum(weight);
                let top = chances.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let likeliest = chances.iter().rposition(|&chance| chance == top).unwrap_or(0);
                (likeliest as u32, recent)
            },
        )
    }
}

/// The sum in one order on every backend: [`LANES`] partial sums, then halves onto halves.
#[inline(always)]
fn ordered_sum(of: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    for chunk in of.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            sums[lane] += chunk[lane];
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}
