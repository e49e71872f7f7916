//! Parameters that follow a stream: online EM for hidden Markov models (Cappé 2011, doi:10.1198/jcgs.2011.09109; Mongillo &
//! Denève 2008, doi:10.1162/neco.2008.10-06-351).
//!
//! For each present state, the expected statistics of everything before are carried along under the supposition that the
//! chain is in that state now; old ones fade by a fixed rate.

use super::GaussianHmm;
use crate::RegimeError;
use crate::state::{Words, push};

/// How fast parameters follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlineOptions {
    /// Weight of the newest observation in what is remembered; the rest fades by as much. About one over the memory.
    pub rate: f64,
    /// Observations before the first change of parameters.
    pub warm_up: u64,
    /// Weight of the parameters at the start, as if that share of the memory always followed them: keeps states that are
    /// not visited from drifting away.
    pub anchor: f64,
}

impl Default for OnlineOptions {
    fn default() -> Self {
        Self { rate: 0.005, warm_up: 50, anchor: 0.05 }
    }
}

/// Statistics under each present state: transitions (`k * k`), then per state its weight, sums and squares.
#[derive(Clone, Debug)]
pub(super) struct Online {
    options: OnlineOptions,
    /// Statistics of the model as it was at the start.
    anchor: Vec<f64>,
    carried: Vec<f64>,
    scratch: Vec<f64>,
    total: Vec<f64>,
    length: usize,
}

impl Online {
    pub(super) fn new(model: &GaussianHmm, options: OnlineOptions) -> Result<Self, RegimeError> {
        let OnlineOptions { rate, anchor, .. } = options;
        RegimeError::check("rate", rate, rate > 0.0 && rate < 0.5, "more than 0, less than 0.5")?;
        RegimeError::check("anchor", anchor, anchor > 0.0 && anchor <= 1.0, "more than 0, at most 1")?;
        let (k, d) = (model.states(), model.dimensions());
        let length = k * k + k * (1 + d + d * d);
        let mut statistics = vec![0.0; length];
        let share = crate::math::stationary(&model.transition, k);
        for state in 0..k {
            for to in 0..k {
                statistics[state * k + to] = share[state] * model.transition(state, to);
            }
            let own = &mut statistics[k * k + state * (1 + d + d * d)..];
            let (mean, covariance) = (model.mean(state), model.covariance(state));
            own[0] = share[state];
            for row in 0..d {
                own[1 + row] = share[state] * mean[row];
                for column in 0..d {
                    let square = covariance[row * d + column] + mean[row] * mean[column];
                    own[1 + d + row * d + column] = share[state] * square;
                }
            }
        }
        Ok(Self {
            options,
            carried: statistics.repeat(k),
            anchor: statistics,
            scratch: vec![0.0; k * length],
            total: vec![0.0; length],
            length,
        })
    }

    /// After the filter took `observation` as its `seen`-th: `before` and `now` are its probabilities.
    pub(super) fn step(
        &mut self,
        model: &mut GaussianHmm,
        seen: u64,
        before: &[f64],
        now: &[f64],
        observation: &[f64],
    ) {
        let (k, d, length) = (model.states(), model.dimensions(), self.length);
        let rate = self.options.rate;
        for to in 0..k {
            let target = &mut self.scratch[to * length..(to + 1) * length];
            target.fill(0.0);
            let arriving: f64 = (0..k).map(|from| before[from] * model.transition(from, to)).sum();
            for from in 0..k {
                // Where the chain came from, given that it is in `to` now.
                let share = if seen == 0 || arriving <= 0.0 {
                    f64::from(u8::from(from == to))
                } else {
                    before[from] * model.transition(from, to) / arriving
                };
                let source = &self.carried[from * length..(from + 1) * length];
                for (target, source) in target.iter_mut().zip(source) {
                    *target += (1.0 - rate) * share * source;
                }
                if seen > 0 {
                    target[from * k + to] += rate * share;
                }
            }
            let own = &mut target[k * k + to * (1 + d + d * d)..];
            own[0] += rate;
            for row in 0..d {
                own[1 + row] += rate * observation[row];
                for column in 0..d {
                    own[1 + d + row * d + column] += rate * observation[row] * observation[column];
                }
            }
        }
        std::mem::swap(&mut self.carried, &mut self.scratch);
        if seen >= self.options.warm_up {
            self.apply(model, now);
        }
    }

    /// Sets the parameters that the statistics speak for.
    fn apply(&mut self, model: &mut GaussianHmm, now: &[f64]) {
        let (k, d, length) = (model.states(), model.dimensions(), self.length);
        for (at, total) in self.total.iter_mut().enumerate() {
            *total = self.options.anchor * self.anchor[at]
                + (1.0 - self.options.anchor)
                    * (0..k).map(|state| now[state] * self.carried[state * length + at]).sum::<f64>();
        }
        for state in 0..k {
            let row = &self.total[state * k..(state + 1) * k];
            let sum: f64 = row.iter().sum();
            if sum > 0.0 {
                for (to, &weight) in row.iter().enumerate() {
                    model.transition[state * k + to] = weight / sum;
                }
            }
            let own = &self.total[k * k + state * (1 + d + d * d)..];
            let size = d * d;
            let (mut mean, mut covariance) = ([0.0; 8], [0.0; 64]);
            mean[..d].copy_from_slice(model.mean(state));
            covariance[..size].copy_from_slice(model.covariance(state));
            if own[0] <= 0.0 {
                continue;
            }
            for row in 0..d {
                model.means[state * d + row] = own[1 + row] / own[0];
            }
            for row in 0..d {
                for column in 0..d {
                    let product = model.means[state * d + row] * model.means[state * d + column];
                    model.covariances[state * size + row * d + column] =
                        own[1 + d + row * d + column] / own[0] - product;
                }
            }
            if !model.factorise(state) {
                // Cancellation left no variance: the state keeps what it had.
                model.means[state * d..(state + 1) * d].copy_from_slice(&mean[..d]);
                model.covariances[state * size..(state + 1) * size].copy_from_slice(&covariance[..size]);
                model.factorise(state);
            }
        }
    }

    pub(super) fn save(&self, words: &mut Vec<u64>) {
        push(words, &self.anchor);
        push(words, &self.carried);
    }

    pub(super) fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        words.floats(&mut self.anchor)?;
        words.floats(&mut self.carried)
    }
}
