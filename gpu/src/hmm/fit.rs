//! Baum-Welch over a bank: every series from several starts, the likeliest kept.

use super::{BatchError, LANES, Likelihood, Models, Parameters, Row, STATES_MAX, lanes_of, rows_of};
use crate::lanes::{exp_f64, widest};
use crate::philox::{key_of, philox4x32};
use rayon::prelude::*;

/// Most iterations.
pub const ITERATIONS_MAX: u32 = 1_000;
/// Most starts.
pub const RESTARTS_MAX: u64 = 256;
/// Most rows x series x starts x iterations: hours on one core.
const STEPS_MAX: u64 = 1 << 40;
/// Most rows x numbers kept of each, for a thread's sixteen series: 512 MiB.
const KEPT_MAX: u64 = 1 << 22;
/// Chance to stay in a state, before anything is known.
const STAY: f64 = 0.9;
/// What is spent in a state, in rows, for it to be estimated.
const SPENT_LEAST: f64 = 1e-12;

/// Series to find models for.
#[derive(Clone, Copy, Debug)]
pub struct FitRequest<'a> {
    /// Rows of one value per series; from 2 rows.
    pub values: &'a [f64],
    /// How many series.
    pub series: usize,
    /// States of each model, 1 to 8.
    pub states: usize,
    /// Iterations from each start, 1 to 1,000.
    pub iterations: u32,
    /// Starts: the first spreads the means over the series, the others draw them.
    pub restarts: usize,
    /// Least deviation of a state, as a share of the series' own; 1e-6 to 1. Without one a state shrinks onto a single value.
    pub deviation_floor: f64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// Models found, model by model, states in order of their means.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// States of each.
    pub states: usize,
    /// Probabilities of the first state.
    pub initial: Vec<f64>,
    /// Transition probabilities, from by to.
    pub transition: Vec<f64>,
    /// Means.
    pub means: Vec<f64>,
    /// Deviations.
    pub deviations: Vec<f64>,
    /// Log-likelihood of each model.
    pub log_likelihoods: Vec<f64>,
    /// Which start it came from.
    pub restarts: Vec<u32>,
}

impl Fitted {
    /// As a bank takes them.
    #[must_use]
    pub fn models(&self) -> super::HmmModels<'_> {
        super::HmmModels {
            states: self.states,
            initial: &self.initial,
            transition: &self.transition,
            means: &self.means,
            deviations: &self.deviations,
        }
    }
}

impl FitRequest<'_> {
    /// Checks every shape and number; returns the rows.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<usize, BatchError> {
        BatchError::count("series", self.series, 1, super::MODELS_MAX)?;
        BatchError::count("states", self.states, 1, STATES_MAX as u64)?;
        BatchError::count("iterations", self.iterations as usize, 1, ITERATIONS_MAX.into())?;
        BatchError::count("restarts", self.restarts, 1, RESTARTS_MAX)?;
        let fits = |x: f64| (1e-6..=1.0).contains(&x);
        BatchError::parameter("deviation floor", self.deviation_floor, fits, "1e-6 to 1")?;
        let rows = rows_of(self.values, self.series)?;
        BatchError::count("rows", rows, 2, super::VALUES_MAX)?;
        let kept = [rows as u64, 2 + 2 * self.states as u64];
        BatchError::product("rows x numbers kept of each", &kept, KEPT_MAX)?;
        let shape = [rows as u64, self.series as u64, self.restarts as u64, self.iterations.into()];
        BatchError::product("rows x series x restarts x iterations", &shape, STEPS_MAX)?;
        Ok(rows)
    }

    /// The starts, model `restart * series + s`, and each series' least deviation.
    pub(crate) fn starts(&self) -> (Parameters, Vec<f64>) {
        let (k, count) = (self.states, self.series);
        let rows = self.values.len() / count;
        let (mut means, mut spreads, mut largest) = (vec![0.0; count], vec![0.0; count], vec![0.0f64; count]);
        for row in self.values.chunks_exact(count) {
            for (series, &x) in row.iter().enumerate() {
                means[series] += x / rows as f64;
                largest[series] = largest[series].max(x.abs());
            }
        }
        for row in self.values.chunks_exact(count) {
            for (series, &x) in row.iter().enumerate() {
                spreads[series] += (x - means[series]) * (x - means[series]) / rows as f64;
            }
        }
        for (spread, largest) in spreads.iter_mut().zip(&largest) {
            // A series that stands still has a spread all the same, below what its digits tell.
            *spread = spread.sqrt().max(1e-9 * largest).max(1e-90);
        }
        let models = count * self.restarts;
        let stay = if k == 1 { 1.0 } else { STAY };
        let leave = if k == 1 { 0.0 } else { (1.0 - STAY) / (k - 1) as f64 };
        let mut transition = Vec::with_capacity(k * k * models);
        for from in 0..k {
            for to in 0..k {
                transition.extend(std::iter::repeat_n(if from == to { stay } else { leave }, models));
            }
        }
        let mut started = Parameters {
            models,
            initial: vec![1.0 / k as f64; k * models],
            transition,
            means: vec![0.0; k * models],
            deviations: vec![0.0; k * models],
        };
        let key = key_of(self.seed);
        for restart in 0..self.restarts {
            for series in 0..count {
                let model = restart * count + series;
                for state in 0..k {
                    let (place, width) = if restart == 0 {
                        let step = 3.0 / k as f64;
                        (step * (state as f64 + 0.5) - 1.5, 0.7)
                    } else {
                        let address = [state as u32, series as u32, restart as u32, 0];
                        let [a, b, c, d] =
                            philox4x32(address, key).map(|word| f64::from(word) / 4_294_967_296.0);
                        // Sums of uniform numbers are normal enough for a start.
                        ((a + b + c - 1.5) * 2.0, 0.5 * exp_f64(d - 0.5))
                    };
                    started.means[state * models + model] = means[series] + place * spreads[series];
                    started.deviations[state * models + model] = width * spreads[series];
                }
            }
        }
        let floors = spreads.iter().map(|spread| spread * self.deviation_floor).collect();
        (started, floors)
    }

    pub(crate) fn run(&self) -> Result<Fitted, BatchError> {
        self.check()?;
        let (mut parameters, floors) = self.starts();
        let likelihoods = match self.states {
            1 => self.fit_all::<1>(&mut parameters, &floors),
            2 => self.fit_all::<2>(&mut parameters, &floors),
            3 => self.fit_all::<3>(&mut parameters, &floors),
            4 => self.fit_all::<4>(&mut parameters, &floors),
            5 => self.fit_all::<5>(&mut parameters, &floors),
            6 => self.fit_all::<6>(&mut parameters, &floors),
            7 => self.fit_all::<7>(&mut parameters, &floors),
            _ => self.fit_all::<8>(&mut parameters, &floors),
        };
        Ok(self.choose(&parameters, &likelihoods))
    }

    /// The likeliest of each series' restarts, the first of equals; its states in order of their means.
    pub(crate) fn choose(&self, found: &Parameters, likelihoods: &[f64]) -> Fitted {
        let (k, count, models) = (self.states, self.series, found.models);
        let mut fitted = Fitted {
            states: k,
            initial: Vec::with_capacity(k * count),
            transition: Vec::with_capacity(k * k * count),
            means: Vec::with_capacity(k * count),
            deviations: Vec::with_capacity(k * count),
            log_likelihoods: Vec::with_capacity(count),
            restarts: Vec::with_capacity(count),
        };
        for series in 0..count {
            let at = |restart: usize| likelihoods[restart * count + series];
            let better = |best: usize, other: usize| if at(other) > at(best) { other } else { best };
            let restart = (0..self.restarts).fold(0, better);
            let model = restart * count + series;
            let mut order: Vec<usize> = (0..k).collect();
            order.sort_by(|&a, &b| {
                f64::total_cmp(&found.means[a * models + model], &found.means[b * models + model])
            });
            for &state in &order {
                fitted.initial.push(found.initial[state * models + model]);
                fitted.means.push(found.means[state * models + model]);
                fitted.deviations.push(found.deviations[state * models + model]);
                let to = |&to: &usize| found.transition[(state * k + to) * models + model];
                fitted.transition.extend(order.iter().map(to));
            }
            fitted.log_likelihoods.push(at(restart));
            fitted.restarts.push(restart as u32);
        }
        fitted
    }

    fn fit_all<const K: usize>(&self, parameters: &mut Parameters, floors: &[f64]) -> Vec<f64> {
        let (count, models) = (self.series, parameters.models);
        let groups = count.div_ceil(LANES);
        let started = &*parameters;
        let found: Vec<_> = (0..groups * self.restarts)
            .into_par_iter()
            .map_init(Vec::new, |scratch, at| {
                let (restart, first) = (at / groups, at % groups * LANES);
                self.fit_group::<K>(started, restart, first, floors, scratch)
            })
            .collect();
        let mut likelihoods = vec![0.0; models];
        for (at, (group, kept)) in found.into_iter().enumerate() {
            let (restart, first) = (at / groups, at % groups * LANES);
            for lane in 0..LANES.min(count - first) {
                let model = restart * count + first + lane;
                for k in 0..K {
                    parameters.initial[k * models + model] = group.initial[k][lane];
                    parameters.means[k * models + model] = group.means[k][lane];
                    parameters.deviations[k * models + model] = group.deviations[k][lane];
                    for to in 0..K {
                        parameters.transition[(k * K + to) * models + model] = group.transition[k][to][lane];
                    }
                }
                likelihoods[model] = kept.ln(lane);
            }
        }
        likelihoods
    }

    /// All iterations of [`LANES`] series from one start.
    fn fit_group<const K: usize>(
        &self,
        started: &Parameters,
        restart: usize,
        first: usize,
        floors: &[f64],
        scratch: &mut Vec<Row>,
    ) -> (Group<K>, Likelihood) {
        let count = self.series;
        let rows = self.values.len() / count;
        let of = |lane: usize| (first + lane).min(count - 1);
        let pick = |numbers: &[f64], at: usize| -> Row {
            std::array::from_fn(|lane| numbers[at * started.models + restart * count + of(lane)])
        };
        let mut group = Group::<K> {
            initial: std::array::from_fn(|k| pick(&started.initial, k)),
            transition: std::array::from_fn(|from| {
                std::array::from_fn(|to| pick(&started.transition, from * K + to))
            }),
            means: std::array::from_fn(|k| pick(&started.means, k)),
            deviations: std::array::from_fn(|k| pick(&started.deviations, k)),
        };
        let floor: Row = std::array::from_fn(|lane| floors[of(lane)] * floors[of(lane)]);
        // Row by row: the values, one over the scale, then filtered probabilities and densities of every state.
        let each = 2 + 2 * K;
        scratch.clear();
        scratch.resize(rows * each, [0.0; LANES]);
        for (row, values) in scratch.chunks_exact_mut(each).zip(self.values.chunks_exact(count)) {
            row[0] = lanes_of(values, first);
        }
        let mut kept = Likelihood::ONE;
        widest(
            #[inline(always)]
            || {
                for iteration in 0..=self.iterations {
                    let models = group.models();
                    kept = models.forward_all(scratch);
                    if iteration < self.iterations {
                        models.backward_all(scratch, &floor, &mut group);
                    }
                }
            },
        );
        (group, kept)
    }
}

/// Parameters of [`LANES`] models as they are estimated.
struct Group<const K: usize> {
    initial: [Row; K],
    transition: [[Row; K]; K],
    means: [Row; K],
    deviations: [Row; K],
}

impl<const K: usize> Group<K> {
    #[inline(always)]
    fn models(&self) -> Models<K> {
        let flat = |rows: &[Row]| -> Vec<f64> { rows.iter().flatten().copied().collect() };
        let parameters = Parameters {
            models: LANES,
            initial: flat(&self.initial),
            transition: flat(self.transition.as_flattened()),
            means: flat(&self.means),
            deviations: flat(&self.deviations),
        };
        Models::load(&parameters, 0)
    }
}

impl<const K: usize> Models<K> {
    #[inline(always)]
    fn forward_all(&self, scratch: &mut [Row]) -> Likelihood {
        let (mut now, mut weights) = ([[0.0; LANES]; K], [[0.0; LANES]; K]);
        let mut kept = Likelihood::ONE;
        for (at, row) in scratch.chunks_exact_mut(2 + 2 * K).enumerate() {
            let x = row[0];
            row[1] = match at {
                0 => self.forward::<true>(&x, &mut now, &mut weights, &mut kept),
                _ => self.forward::<false>(&x, &mut now, &mut weights, &mut kept),
            };
            row[2..2 + K].copy_from_slice(&now);
            row[2 + K..].copy_from_slice(&weights);
        }
        kept
    }

    /// The backward recursion with all that the new parameters need, and these.
    #[inline(always)]
    fn backward_all(&self, scratch: &[Row], floor: &Row, group: &mut Group<K>) {
        let mut beta = [[1.0; LANES]; K];
        let (mut spent, mut along, mut square) = ([[0.0; LANES]; K], [[0.0; LANES]; K], [[0.0; LANES]; K]);
        let mut moves = [[[0.0; LANES]; K]; K];
        let mut gamma = [[0.0; LANES]; K];
        let each = 2 + 2 * K;
        for at in (0..scratch.len() / each).rev() {
            let row = &scratch[at * each..(at + 1) * each];
            let x = &row[0];
            for k in 0..K {
                for lane in 0..LANES {
                    gamma[k][lane] = row[2 + k][lane] * beta[k][lane];
                    let z = x[lane] - self.mean[k][lane];
                    let part = gamma[k][lane] * z;
                    spent[k][lane] += gamma[k][lane];
                    along[k][lane] += part;
                    square[k][lane] = part.mul_add(z, square[k][lane]);
                }
            }
            if at == 0 {
                break;
            }
            let mut weights = [[0.0; LANES]; K];
            for to in 0..K {
                for lane in 0..LANES {
                    weights[to][lane] = row[2 + K + to][lane] * beta[to][lane] * row[1][lane];
                }
            }
            let before = &scratch[(at - 1) * each..at * each];
            for from in 0..K {
                for lane in 0..LANES {
                    let mut sum = self.transition[from][0][lane] * weights[0][lane];
                    for to in 0..K {
                        let moved = &mut moves[from][to][lane];
                        *moved = before[2 + from][lane].mul_add(weights[to][lane], *moved);
                        if to > 0 {
                            sum = self.transition[from][to][lane].mul_add(weights[to][lane], sum);
                        }
                    }
                    beta[from][lane] = sum;
                }
            }
        }
        for lane in 0..LANES {
            let mut total = gamma[0][lane];
            for gamma in &gamma[1..] {
                total += gamma[lane];
            }
            for k in 0..K {
                group.initial[k][lane] = gamma[k][lane] / total;
                let mut leaving = moves[k][0][lane] * self.transition[k][0][lane];
                for to in 1..K {
                    leaving = moves[k][to][lane].mul_add(self.transition[k][to][lane], leaving);
                }
                if leaving > SPENT_LEAST {
                    for to in 0..K {
                        group.transition[k][to][lane] =
                            moves[k][to][lane] * self.transition[k][to][lane] / leaving;
                    }
                }
                let spent = spent[k][lane];
                if spent > SPENT_LEAST {
                    let shift = along[k][lane] / spent;
                    let variance = (-shift).mul_add(shift, square[k][lane] / spent);
                    let variance = if variance > floor[lane] { variance } else { floor[lane] };
                    group.means[k][lane] = self.mean[k][lane] + shift;
                    group.deviations[k][lane] = variance.sqrt();
                }
            }
        }
    }
}
