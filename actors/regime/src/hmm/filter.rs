//! A model run over a stream, one observation at a time.

use super::online::{Online, OnlineOptions};
use super::{GaussianHmm, best_of};
use crate::RegimeError;
use crate::math::{ln, normalise};
use crate::state::{Words, push};

/// Larger magnitudes than this cannot be squared and summed safely; they count as missing.
const VALUE_MAX: f64 = 1e100;

/// Forward filter with the likeliest state some observations ago, and parameters that may follow the stream.
#[derive(Clone, Debug)]
pub struct HmmFilter {
    model: GaussianHmm,
    seen: u64,
    log_likelihood: f64,
    /// Probabilities given everything up to now, and before.
    now: Vec<f64>,
    before: Vec<f64>,
    densities: Vec<f64>,
    /// Scores of the likeliest paths, relative to the best.
    scores: Vec<f64>,
    next: Vec<f64>,
    /// Where each path came from, for the last `lag` steps.
    backs: Vec<u8>,
    lag: usize,
    online: Option<Online>,
}

impl HmmFilter {
    /// A filter before its first observation that can look back `lag` observations, at most 4096.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when `lag` is out of range.
    pub fn new(model: GaussianHmm, lag: usize) -> Result<Self, RegimeError> {
        RegimeError::check("lag", lag as f64, lag <= 4_096, "at most 4096 observations")?;
        let k = model.states();
        Ok(Self {
            now: model.initial().to_vec(),
            before: vec![0.0; k],
            densities: vec![0.0; k],
            scores: model.initial().iter().map(|&chance| ln(chance)).collect(),
            next: vec![0.0; k],
            backs: vec![0; lag * k],
            model,
            seen: 0,
            log_likelihood: 0.0,
            lag,
            online: None,
        })
    }

    /// The same filter, whose parameters follow the stream.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when an option is out of range.
    pub fn learning(mut self, options: OnlineOptions) -> Result<Self, RegimeError> {
        self.online = Some(Online::new(&self.model, options)?);
        Ok(self)
    }

    /// Takes an observation. One with a missing value (NaN, infinite or over 1e100) only lets time pass.
    ///
    /// # Panics
    /// When `observation` has another length than the model's dimensions.
    pub fn step(&mut self, observation: &[f64]) {
        assert_eq!(observation.len(), self.model.dimensions(), "one value per dimension");
        let k = self.model.states();
        std::mem::swap(&mut self.now, &mut self.before);
        if self.seen == 0 {
            self.now.copy_from_slice(&self.before);
        } else {
            for (to, now) in self.now.iter_mut().enumerate() {
                *now = (0..k).map(|from| self.before[from] * self.model.transition(from, to)).sum();
            }
        }
        let present = observation.iter().all(|value| value.abs() <= VALUE_MAX);
        if present {
            let best = self.model.densities(observation, &mut self.densities);
            self.now.iter_mut().zip(&self.densities).for_each(|(now, density)| *now *= density);
            let sum: f64 = self.now.iter().sum();
            if sum > 0.0 {
                self.log_likelihood += best + ln(sum);
            } else {
                // Only states that cannot be reached explain it: believe the observation, not the chain.
                self.now.copy_from_slice(&self.densities);
                self.log_likelihood += best - 700.0;
            }
        }
        normalise(&mut self.now);
        self.follow_paths(present.then_some(observation));
        if let Some(online) = &mut self.online
            && present
        {
            online.step(&mut self.model, self.seen, &self.before, &self.now, observation);
        }
        self.seen += 1;
    }

    fn follow_paths(&mut self, observation: Option<&[f64]>) {
        if self.lag == 0 {
            return;
        }
        let k = self.model.states();
        if self.seen > 0 {
            let slot = (self.seen % self.lag as u64) as usize * k;
            self.model.advance_into(&self.scores, &mut self.next, &mut self.backs[slot..slot + k]);
            std::mem::swap(&mut self.scores, &mut self.next);
        }
        if let Some(observation) = observation {
            for (state, score) in self.scores.iter_mut().enumerate() {
                *score += self.model.log_density(state, observation);
            }
        }
        let best = self.scores[best_of(&self.scores)];
        if best == f64::NEG_INFINITY {
            self.scores.fill(0.0);
        } else {
            self.scores.iter_mut().for_each(|score| *score -= best);
        }
    }

    /// Probabilities of the states given everything so far. Before the first observation, the model's initial ones.
    #[must_use]
    pub fn probabilities(&self) -> &[f64] {
        &self.now
    }

    /// The state `ago` observations before the newest, on the likeliest path given everything so far. `None` when
    /// that is before the first observation, or not within the lag.
    #[must_use]
    pub fn state(&self, ago: usize) -> Option<usize> {
        if self.lag == 0 || ago >= self.lag || ago as u64 >= self.seen {
            return None;
        }
        let k = self.model.states();
        let mut state = best_of(&self.scores);
        for step in 0..ago as u64 {
            let slot = ((self.seen - 1 - step) % self.lag as u64) as usize * k;
            state = usize::from(self.backs[slot + state]);
        }
        Some(state)
    }

    /// Observations taken.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Log-likelihood of everything so far, each observation under the parameters of its time.
    #[must_use]
    pub fn log_likelihood(&self) -> f64 {
        self.log_likelihood
    }

    /// The parameters as they are now.
    #[must_use]
    pub fn model(&self) -> &GaussianHmm {
        &self.model
    }

    /// Appends the whole state, parameters included.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.push(self.seen);
        push(words, &[self.log_likelihood]);
        for values in [&self.model.transition, &self.model.means, &self.model.covariances, &self.now] {
            push(words, values);
        }
        // A path that cannot be has a score of minus infinity, which is no NaN.
        push(words, &self.scores);
        words.extend(self.backs.iter().map(|&back| u64::from(back)));
        if let Some(online) = &self.online {
            online.save(words);
        }
    }

    /// Takes over a state saved by a filter of the same shape.
    ///
    /// # Errors
    /// [`RegimeError`] when the words are no such state; the filter is then unusable.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.seen = words.count()?;
        self.log_likelihood = words.float()?;
        let mut model = self.model.clone();
        for values in [&mut model.transition, &mut model.means, &mut model.covariances, &mut self.now] {
            words.floats(values)?;
        }
        // Checked like any model, but kept to the bit.
        GaussianHmm::new(&model.initial, &model.transition, &model.means, &model.covariances)?;
        if !(0..model.states()).all(|state| model.factorise(state)) {
            return Err(RegimeError::State { problem: "a singular covariance" });
        }
        self.model = model;
        super::stochastic("state probabilities", &self.now, self.model.states())?;
        words.floats(&mut self.scores)?;
        let last = self.model.states() as u64 - 1;
        for back in &mut self.backs {
            *back = words.at_most(last)? as u8;
        }
        self.online.as_mut().map_or(Ok(()), |online| online.restore(words))
    }
}
