//! Hidden Markov models with Gaussian observations (Rabiner 1989, doi:10.1109/5.18626).
//!
//! [`GaussianHmm`] holds parameters that were checked, [`HmmFilter`] runs one over a stream, [`fit`] finds parameters.

use crate::RegimeError;
use crate::math::{LN_TWO_PI, cholesky, exp, ln, normalise};

mod filter;
pub mod fit;
mod label;
mod online;
#[cfg(test)]
mod tests;

pub use filter::HmmFilter;
pub use fit::FitOptions;
pub use label::Label;
pub use online::OnlineOptions;

/// Most states a model may have.
pub const STATES_MAX: usize = 16;
/// Most values per observation.
pub const DIMENSIONS_MAX: usize = 8;
/// How far a row of probabilities may be off one before it is refused.
const STOCHASTIC: f64 = 1e-6;

/// Parameters of a hidden Markov model whose states emit Gaussian observations of full covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianHmm {
    states: usize,
    dimensions: usize,
    initial: Vec<f64>,
    /// `from` by `to`.
    transition: Vec<f64>,
    means: Vec<f64>,
    covariances: Vec<f64>,
    /// Cholesky factors of the covariances.
    factors: Vec<f64>,
    /// Constants of the log densities.
    norms: Vec<f64>,
}

impl GaussianHmm {
    /// A model of `initial.len()` states: `transition` from by to, row-major; `means` and `covariances` state by state.
    ///
    /// # Errors
    /// [`RegimeError`] when a size does not fit, a probability row does not add up to one within 1e-6, a value is not
    /// finite, or a covariance is not symmetric and positive definite.
    pub fn new(
        initial: &[f64],
        transition: &[f64],
        means: &[f64],
        covariances: &[f64],
    ) -> Result<Self, RegimeError> {
        let states = initial.len();
        RegimeError::check("states", states as f64, (1..=STATES_MAX).contains(&states), "1 to 16")?;
        let dimensions = means.len() / states;
        let some = (1..=DIMENSIONS_MAX).contains(&dimensions);
        RegimeError::check("dimensions", dimensions as f64, some, "1 to 8 values per state")?;
        RegimeError::length("means", means.len(), states * dimensions)?;
        RegimeError::length("transition", transition.len(), states * states)?;
        RegimeError::length("covariances", covariances.len(), states * dimensions * dimensions)?;
        for &value in means.iter().chain(covariances) {
            RegimeError::check(
                "means and covariances",
                value,
                value.abs() <= 1e100,
                "finite, at most 1e100",
            )?;
        }
        let size = dimensions * dimensions;
        let mut model = Self {
            states,
            dimensions,
            initial: stochastic("initial", initial, states)?,
            transition: stochastic("transition", transition, states)?,
            means: means.to_vec(),
            covariances: covariances.to_vec(),
            factors: vec![0.0; states * size],
            norms: vec![0.0; states],
        };
        for state in 0..states {
            let covariance = &covariances[state * size..(state + 1) * size];
            let symmetric = (0..dimensions).all(|row| {
                (0..row).all(|column| {
                    let (a, b) =
                        (covariance[row * dimensions + column], covariance[column * dimensions + row]);
                    (a - b).abs() <= 1e-9 * (a.abs() + b.abs())
                })
            });
            if !symmetric || !model.factorise(state) {
                return Err(RegimeError::Covariance { state });
            }
        }
        Ok(model)
    }

    /// Brings factor and constant of a state up to its covariance; false when that is singular.
    fn factorise(&mut self, state: usize) -> bool {
        let (d, size) = (self.dimensions, self.dimensions * self.dimensions);
        let place = state * size..(state + 1) * size;
        let factor = &mut self.factors[place.clone()];
        if !cholesky(&self.covariances[place], d, factor) {
            return false;
        }
        let log_root: f64 = (0..d).map(|at| ln(factor[at * d + at])).sum();
        self.norms[state] = -0.5 * d as f64 * LN_TWO_PI - log_root;
        self.norms[state].is_finite()
    }

    /// Number of states.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// Values per observation.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Probabilities of the first state.
    #[must_use]
    pub fn initial(&self) -> &[f64] {
        &self.initial
    }

    /// Probability of going from a state to another.
    #[must_use]
    pub fn transition(&self, from: usize, to: usize) -> f64 {
        self.transition[from * self.states + to]
    }

    /// Mean of a state's observations.
    #[must_use]
    pub fn mean(&self, state: usize) -> &[f64] {
        &self.means[state * self.dimensions..(state + 1) * self.dimensions]
    }

    /// Covariance of a state's observations, row-major.
    #[must_use]
    pub fn covariance(&self, state: usize) -> &[f64] {
        let size = self.dimensions * self.dimensions;
        &self.covariances[state * size..(state + 1) * size]
    }

    /// Log density of an observation in a state. A missing value (NaN) makes the whole observation say nothing: 0.
    #[must_use]
    pub fn log_density(&self, state: usize, observation: &[f64]) -> f64 {
        let d = self.dimensions;
        let factor = &self.factors[state * d * d..];
        let mean = self.mean(state);
        let mut whitened = [0.0; DIMENSIONS_MAX];
        let mut square = 0.0;
        for row in 0..d {
            let mut value = observation[row] - mean[row];
            for k in 0..row {
                value -= factor[row * d + k] * whitened[k];
            }
            whitened[row] = value / factor[row * d + row];
            square += whitened[row] * whitened[row];
        }
        if square.is_nan() { 0.0 } else { self.norms[state] - 0.5 * square.min(1e300) }
    }

    /// Densities in every state relative to the largest, into `densities`; returns the logarithm of that.
    fn densities(&self, observation: &[f64], densities: &mut [f64]) -> f64 {
        let mut best = f64::NEG_INFINITY;
        for (state, density) in densities.iter_mut().enumerate() {
            *density = self.log_density(state, observation);
            best = best.max(*density);
        }
        densities.iter_mut().for_each(|density| *density = exp(*density - best));
        best
    }

    /// Log-likelihood of a whole series, row-major, and the filtered probabilities after each row if `filtered` is given.
    ///
    /// # Errors
    /// [`RegimeError::Length`] when the values are no whole number of rows.
    pub fn filter(&self, series: &[f64], mut filtered: Option<&mut Vec<f64>>) -> Result<f64, RegimeError> {
        let rows = series.len() / self.dimensions;
        RegimeError::length("series", series.len(), rows * self.dimensions)?;
        let mut filter = HmmFilter::new(self.clone(), 0)?;
        for row in series.chunks_exact(self.dimensions) {
            filter.step(row);
            if let Some(filtered) = &mut filtered {
                filtered.extend_from_slice(filter.probabilities());
            }
        }
        Ok(filter.log_likelihood())
    }

    /// Probabilities of each state at each row given the whole series, row by row.
    ///
    /// # Errors
    /// [`RegimeError::Length`] when the values are no whole number of rows.
    pub fn smooth(&self, series: &[f64]) -> Result<Vec<f64>, RegimeError> {
        let mut smoothed = Vec::new();
        self.filter(series, Some(&mut smoothed))?;
        let k = self.states;
        let mut predicted = vec![0.0; k];
        for row in (0..(smoothed.len() / k).saturating_sub(1)).rev() {
            let (now, next) = smoothed.split_at_mut((row + 1) * k);
            let (now, next) = (&mut now[row * k..], &next[..k]);
            for (to, predicted) in predicted.iter_mut().enumerate() {
                *predicted = (0..k).map(|from| now[from] * self.transition(from, to)).sum();
            }
            for (from, now) in now.iter_mut().enumerate() {
                let ahead = (0..k).filter(|&to| predicted[to] > 0.0);
                *now *= ahead.map(|to| self.transition(from, to) * next[to] / predicted[to]).sum::<f64>();
            }
            normalise(now);
        }
        Ok(smoothed)
    }

    /// The likeliest sequence of states for a whole series (Viterbi).
    ///
    /// # Errors
    /// [`RegimeError::Length`] when the values are no whole number of rows.
    pub fn viterbi(&self, series: &[f64]) -> Result<Vec<usize>, RegimeError> {
        let (k, rows) = (self.states, series.len() / self.dimensions);
        RegimeError::length("series", series.len(), rows * self.dimensions)?;
        let mut scores: Vec<f64> = self.initial.iter().map(|&chance| ln(chance)).collect();
        let mut backs = vec![0u8; rows * k];
        for (row, observation) in series.chunks_exact(self.dimensions).enumerate() {
            if row > 0 {
                scores = self.advance(&scores, &mut backs[row * k..(row + 1) * k]);
            }
            for (state, score) in scores.iter_mut().enumerate() {
                *score += self.log_density(state, observation);
            }
        }
        let mut state = best_of(&scores);
        let mut path = vec![0; rows];
        for row in (0..rows).rev() {
            path[row] = state;
            state = usize::from(backs[row * k + state]);
        }
        Ok(path)
    }

    fn advance(&self, scores: &[f64], backs: &mut [u8]) -> Vec<f64> {
        let mut next = vec![0.0; self.states];
        self.advance_into(scores, &mut next, backs);
        next
    }

    /// One step of the likeliest paths: `next[to]` is the best score of a path into `to`, `backs[to]` where it comes from.
    fn advance_into(&self, scores: &[f64], next: &mut [f64], backs: &mut [u8]) {
        for (to, (next, back)) in next.iter_mut().zip(backs).enumerate() {
            (*next, *back) = (f64::NEG_INFINITY, 0);
            for (from, score) in scores.iter().enumerate() {
                let score = score + ln(self.transition(from, to));
                if score > *next {
                    (*next, *back) = (score, from as u8);
                }
            }
        }
    }
}

/// The place of the largest score, the first of equals.
fn best_of(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

/// Checks that rows of `states` probabilities add up to one, and makes them do so to the last digit.
pub(crate) fn stochastic(name: &'static str, rows: &[f64], states: usize) -> Result<Vec<f64>, RegimeError> {
    let mut rows = rows.to_vec();
    for (row, chances) in rows.chunks_exact_mut(states).enumerate() {
        for &chance in chances.iter() {
            RegimeError::check(name, chance, (0.0..=1.0 + STOCHASTIC).contains(&chance), "a probability")?;
        }
        let sum: f64 = chances.iter().sum();
        if (sum - 1.0).abs() > STOCHASTIC {
            return Err(RegimeError::NotStochastic { name, row, sum });
        }
        normalise(chances);
    }
    Ok(rows)
}
