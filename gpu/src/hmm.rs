//! Banks of hidden Markov models with Gaussian observations (Rabiner 1989, doi:10.1109/5.18626): a model per series,
//! thousands of them side by side.
//!
//! [`HmmBank`] filters, row by row; [`FitRequest`] finds parameters by Baum-Welch from several starts. Densities are taken
//! relative to the best state's, and a state less likely than `e^-700` of it counts as that, so that no observation, however
//! far out, makes a probability 0/0.
//!
//! **Equality:** the same bits on any number of threads and on a device; probabilities within 1e-9 of the plain recursion for
//! values within a thousand deviations of a state, beyond that within what a double tells of the square.

use crate::BatchError;
use crate::lanes::{LANES, exp_weight, ln_f64, widest};
use rayon::prelude::*;

mod fit;
#[cfg(test)]
mod tests;

pub use fit::{FitRequest, Fitted, ITERATIONS_MAX, RESTARTS_MAX};

/// Most states of a model.
pub const STATES_MAX: usize = 8;
/// Most models of a bank.
pub const MODELS_MAX: u64 = 1 << 20;
/// Most values (rows x series) of one call.
pub const VALUES_MAX: u64 = 1 << 30;
/// Rows fetched together.
const TILE: usize = 32;
/// Largest value, and largest mean.
const VALUE_MAX: f64 = 1e15;
/// How far a row of probabilities may be off one.
const STOCHASTIC: f64 = 1e-6;
const LN_SQRT_TWO_PI: f64 = 0.918_938_533_204_672_8;

type Row = [f64; LANES];

/// Parameters of the models, model by model: `states` numbers each, `transition` has `states x states`, from by to.
#[derive(Clone, Copy, Debug)]
pub struct HmmModels<'a> {
    /// States of every model, 1 to 8.
    pub states: usize,
    /// Probabilities of the first state.
    pub initial: &'a [f64],
    /// Probabilities of going from a state to another.
    pub transition: &'a [f64],
    /// Means of the observations.
    pub means: &'a [f64],
    /// Deviations of the observations, 1e-100 to 1e15.
    pub deviations: &'a [f64],
}

impl HmmModels<'_> {
    /// Checks shapes and numbers; returns how many models there are.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<usize, BatchError> {
        let k = self.states;
        BatchError::count("states", k, 1, STATES_MAX as u64)?;
        let models = self.initial.len() / k;
        BatchError::count("models", models, 1, MODELS_MAX)?;
        BatchError::length("initial probabilities", self.initial.len(), models * k)?;
        BatchError::length("transition probabilities", self.transition.len(), models * k * k)?;
        BatchError::length("means", self.means.len(), models * k)?;
        BatchError::length("deviations", self.deviations.len(), models * k)?;
        stochastic("initial probabilities", self.initial, k)?;
        stochastic("transition probabilities", self.transition, k)?;
        within("a mean", self.means)?;
        for &deviation in self.deviations {
            let fits = |x: f64| (1e-100..=VALUE_MAX).contains(&x);
            BatchError::parameter("a deviation", deviation, fits, "1e-100 to 1e15")?;
        }
        Ok(models)
    }
}

fn stochastic(what: &'static str, rows: &[f64], states: usize) -> Result<(), BatchError> {
    for (row, chances) in rows.chunks_exact(states).enumerate() {
        for &chance in chances {
            let fits = |x: f64| (0.0..=1.0 + STOCHASTIC).contains(&x);
            BatchError::parameter(what, chance, fits, "0 to 1")?;
        }
        let sum: f64 = chances.iter().sum();
        if (sum - 1.0).abs() > STOCHASTIC {
            return Err(BatchError::NotStochastic { what, row, sum });
        }
    }
    Ok(())
}

pub(crate) fn within(name: &'static str, values: &[f64]) -> Result<(), BatchError> {
    let fits = |x: &f64| x.abs() <= VALUE_MAX;
    match values.iter().find(|value| !fits(value)) {
        None => Ok(()),
        Some(&value) => Err(BatchError::Parameter { name, value, allowed: "-1e15 to 1e15" }),
    }
}

/// Rows of `values`, one value per series.
fn rows_of(values: &[f64], series: usize) -> Result<usize, BatchError> {
    let rows = values.len() / series;
    BatchError::product("rows x series", &[rows as u64, series as u64], VALUES_MAX)?;
    BatchError::length("values", values.len(), rows * series)?;
    BatchError::finite("values", values)?;
    within("a value", values)?;
    Ok(rows)
}

/// Parameters of [`LANES`] models.
#[derive(Clone, Debug)]
struct Models<const K: usize> {
    initial: [Row; K],
    transition: [[Row; K]; K],
    mean: [Row; K],
    inverse: [Row; K],
    constant: [Row; K],
}

/// A likelihood as it is kept: a sum of logarithms, a product in `[1, 2)`, and the powers of two taken out of it.
#[derive(Clone, Copy, Debug)]
struct Likelihood {
    best: Row,
    product: Row,
    exponent: [i64; LANES],
}

impl Likelihood {
    const ONE: Self = Self { best: [0.0; LANES], product: [1.0; LANES], exponent: [0; LANES] };

    #[inline(always)]
    fn scale(&mut self, by: &Row) {
        for lane in 0..LANES {
            let bits = (self.product[lane] * by[lane]).to_bits();
            // Far from its bounds; wrapping, as a check would keep the loop from becoming vectors.
            self.exponent[lane] = self.exponent[lane].wrapping_add((bits >> 52) as i64).wrapping_sub(1_023);
            self.product[lane] = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
        }
    }

    fn ln(&self, lane: usize) -> f64 {
        ln_likelihood(self.best[lane], self.product[lane], self.exponent[lane])
    }
}

fn ln_likelihood(best: f64, product: f64, exponent: i64) -> f64 {
    (exponent as f64).mul_add(std::f64::consts::LN_2, ln_f64(product)) + best
}

impl<const K: usize> Models<K> {
    /// Of models `first..`; lanes to spare take the last one's.
    fn load(bank: &Parameters, first: usize) -> Self {
        let count = bank.models;
        let pick = |numbers: &[f64], at: usize| -> Row {
            std::array::from_fn(|lane| numbers[at * count + (first + lane).min(count - 1)])
        };
        let deviations: [Row; K] = std::array::from_fn(|k| pick(&bank.deviations, k));
        Self {
            initial: std::array::from_fn(|k| pick(&bank.initial, k)),
            transition: std::array::from_fn(|from| {
                std::array::from_fn(|to| pick(&bank.transition, from * K + to))
            }),
            mean: std::array::from_fn(|k| pick(&bank.means, k)),
            inverse: deviations.map(|row| row.map(|deviation| std::f64::consts::FRAC_1_SQRT_2 / deviation)),
            constant: deviations.map(|row| row.map(|deviation| -ln_f64(deviation) - LN_SQRT_TWO_PI)),
        }
    }

    /// Densities of `x` relative to the largest, whose logarithm is returned.
    #[inline(always)]
    fn densities(&self, x: &Row, weights: &mut [Row; K]) -> Row {
        let mut best = [f64::NEG_INFINITY; LANES];
        for k in 0..K {
            for lane in 0..LANES {
                let z = (x[lane] - self.mean[k][lane]) * self.inverse[k][lane];
                weights[k][lane] = (-z).mul_add(z, self.constant[k][lane]);
                best[lane] = if weights[k][lane] > best[lane] { weights[k][lane] } else { best[lane] };
            }
        }
        for weights in weights {
            for lane in 0..LANES {
                let less = weights[lane] - best[lane];
                weights[lane] = exp_weight(if less > -700.0 { less } else { -700.0 });
            }
        }
        best
    }

    /// Takes a row, the first of all or not: filtered probabilities `now` of what was predicted from them. Returns one over
    /// the scale.
    #[inline(always)]
    fn forward<const FIRST: bool>(
        &self,
        x: &Row,
        now: &mut [Row; K],
        weights: &mut [Row; K],
        kept: &mut Likelihood,
    ) -> Row {
        let best = self.densities(x, weights);
        let mut next = [[0.0; LANES]; K];
        let mut sum = [0.0; LANES];
        for to in 0..K {
            for lane in 0..LANES {
                let mut predicted = self.initial[to][lane];
                if !FIRST {
                    predicted = now[0][lane] * self.transition[0][to][lane];
                    for from in 1..K {
                        predicted = now[from][lane].mul_add(self.transition[from][to][lane], predicted);
                    }
                }
                next[to][lane] = predicted * weights[to][lane];
                sum[lane] = if to == 0 { next[0][lane] } else { sum[lane] + next[to][lane] };
            }
        }
        let mut share = [0.0; LANES];
        for lane in 0..LANES {
            kept.best[lane] += best[lane];
            share[lane] = 1.0 / sum[lane];
            for k in 0..K {
                now[k][lane] = next[k][lane] * share[lane];
            }
        }
        kept.scale(&sum);
        share
    }
}

/// Parameters of a bank: number `n` of model `m` at `n * models + m`.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    pub(crate) models: usize,
    pub(crate) initial: Vec<f64>,
    pub(crate) transition: Vec<f64>,
    pub(crate) means: Vec<f64>,
    pub(crate) deviations: Vec<f64>,
}

impl Parameters {
    /// As many models, nothing known of them.
    pub(crate) fn empty(&self) -> Self {
        let zeros = |numbers: &[f64]| vec![0.0; numbers.len()];
        Self {
            models: self.models,
            initial: zeros(&self.initial),
            transition: zeros(&self.transition),
            means: zeros(&self.means),
            deviations: zeros(&self.deviations),
        }
    }

    /// Models `span` alone.
    pub(crate) fn part(&self, span: std::ops::Range<usize>) -> Self {
        let cut = |numbers: &[f64]| -> Vec<f64> {
            numbers.chunks_exact(self.models).flat_map(|row| &row[span.clone()]).copied().collect()
        };
        Self {
            models: span.len(),
            initial: cut(&self.initial),
            transition: cut(&self.transition),
            means: cut(&self.means),
            deviations: cut(&self.deviations),
        }
    }

    /// Models `span` become those of `part`.
    pub(crate) fn put(&mut self, span: std::ops::Range<usize>, part: &Self) {
        let models = self.models;
        let paste = |to: &mut [f64], from: &[f64]| {
            for (to, from) in to.chunks_exact_mut(models).zip(from.chunks_exact(span.len())) {
                to[span.clone()].copy_from_slice(from);
            }
        };
        paste(&mut self.initial, &part.initial);
        paste(&mut self.transition, &part.transition);
        paste(&mut self.means, &part.means);
        paste(&mut self.deviations, &part.deviations);
    }
}

/// From model by model to number by number.
fn transposed(numbers: &[f64], each: usize) -> Vec<f64> {
    let models = numbers.len() / each;
    (0..each).flat_map(|at| (0..models).map(move |model| numbers[model * each + at])).collect()
}

/// A filter per series.
#[derive(Clone, Debug)]
pub struct HmmBank {
    states: usize,
    pub(crate) parameters: Parameters,
    /// Filtered probabilities: number by number as the parameters.
    pub(crate) now: Vec<f64>,
    pub(crate) best: Vec<f64>,
    pub(crate) product: Vec<f64>,
    pub(crate) exponent: Vec<i64>,
    pub(crate) rows: u64,
}

impl HmmBank {
    /// A bank before its first row.
    ///
    /// # Errors
    /// [`BatchError`] when a shape does not fit, probabilities do not add up to one within 1e-6, or a number is out of range.
    pub fn new(models: &HmmModels<'_>) -> Result<Self, BatchError> {
        let count = models.check()?;
        let k = models.states;
        let parameters = Parameters {
            models: count,
            initial: transposed(models.initial, k),
            transition: transposed(models.transition, k * k),
            means: transposed(models.means, k),
            deviations: transposed(models.deviations, k),
        };
        let now = parameters.initial.clone();
        let (best, product, exponent) = (vec![0.0; count], vec![1.0; count], vec![0; count]);
        Ok(Self { states: k, parameters, now, best, product, exponent, rows: 0 })
    }

    /// Models, which is series.
    #[must_use]
    pub fn models(&self) -> usize {
        self.parameters.models
    }

    /// States of each.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// Rows taken.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Probability of a model's state after the last row; before the first, the initial one.
    ///
    /// # Panics
    /// When there is no such model or state.
    #[must_use]
    pub fn probability(&self, model: usize, state: usize) -> f64 {
        assert!(model < self.models() && state < self.states, "there is no such model or state");
        self.now[state * self.models() + model]
    }

    /// Log-likelihood of a model's values so far.
    ///
    /// # Panics
    /// When there is no such model.
    #[must_use]
    pub fn log_likelihood(&self, model: usize) -> f64 {
        ln_likelihood(self.best[model], self.product[model], self.exponent[model])
    }

    pub(crate) fn check(&self, values: &[f64]) -> Result<usize, BatchError> {
        rows_of(values, self.models())
    }

    /// Takes rows of values, one per series, on the threads of the pool it is called in.
    pub(crate) fn run(&mut self, values: &[f64]) -> Result<(), BatchError> {
        let rows = self.check(values)?;
        match self.states {
            1 => self.filter::<1>(values),
            2 => self.filter::<2>(values),
            3 => self.filter::<3>(values),
            4 => self.filter::<4>(values),
            5 => self.filter::<5>(values),
            6 => self.filter::<6>(values),
            7 => self.filter::<7>(values),
            _ => self.filter::<8>(values),
        }
        self.rows += rows as u64;
        Ok(())
    }

    fn filter<const K: usize>(&mut self, values: &[f64]) {
        let count = self.models();
        let bank = &*self;
        let groups: Vec<_> = (0..count.div_ceil(LANES))
            .into_par_iter()
            .map(|group| bank.filter_group::<K>(group * LANES, values))
            .collect();
        for (group, (now, kept)) in groups.into_iter().enumerate() {
            for lane in 0..LANES.min(count - group * LANES) {
                let model = group * LANES + lane;
                for k in 0..K {
                    self.now[k * count + model] = now[k][lane];
                }
                self.best[model] = kept.best[lane];
                self.product[model] = kept.product[lane];
                self.exponent[model] = kept.exponent[lane];
            }
        }
    }

    fn filter_group<const K: usize>(&self, first: usize, values: &[f64]) -> ([Row; K], Likelihood) {
        let count = self.models();
        let of = |lane: usize| (first + lane).min(count - 1);
        let models = Models::<K>::load(&self.parameters, first);
        let mut now: [Row; K] =
            std::array::from_fn(|k| std::array::from_fn(|lane| self.now[k * count + of(lane)]));
        let mut kept = Likelihood {
            best: std::array::from_fn(|lane| self.best[of(lane)]),
            product: std::array::from_fn(|lane| self.product[of(lane)]),
            exponent: std::array::from_fn(|lane| self.exponent[of(lane)]),
        };
        let fresh = self.rows == 0;
        widest(
            #[inline(always)]
            || {
                // Local copies: registers, not memory that might alias.
                let (mut own, mut likelihood, mut weights) = (now, kept, [[0.0; LANES]; K]);
                let mut values = values;
                if fresh && !values.is_empty() {
                    let x = lanes_of(&values[..count], first);
                    models.forward::<true>(&x, &mut own, &mut weights, &mut likelihood);
                    values = &values[count..];
                }
                // Rows lie far apart: fetched side by side, and only then used one after the other.
                let mut tile = [[0.0; LANES]; TILE];
                for rows in values.chunks(TILE * count) {
                    let used = rows.len() / count;
                    for (x, row) in tile.iter_mut().zip(rows.chunks_exact(count)) {
                        *x = lanes_of(row, first);
                    }
                    for x in &tile[..used] {
                        models.forward::<false>(x, &mut own, &mut weights, &mut likelihood);
                    }
                }
                (now, kept) = (own, likelihood);
            },
        );
        (now, kept)
    }
}

/// Values of a row's series `first..`, lanes to spare taking the last one's.
#[inline(always)]
fn lanes_of(row: &[f64], first: usize) -> Row {
    match row[first..].first_chunk::<LANES>() {
        Some(whole) => *whole,
        None => std::array::from_fn(|lane| row[(first + lane).min(row.len() - 1)]),
    }
}
