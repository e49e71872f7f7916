//! Markov-switching autoregression (Hamilton 1989, doi:10.2307/1912559) with Kim's smoother (1994,
//! doi:10.1016/0304-4076(94)90036-1).
//!
//! `y(t) - mean(s(t)) = ar(1) (y(t-1) - mean(s(t-1))) + ... + e(t)`: the mean switches with the regime, the autoregressive
//! part does not, the variance may. The chain that is filtered is that of the last regimes together.

use crate::RegimeError;
use crate::hmm::stochastic;
use crate::math::{LN_TWO_PI, exp, ln, normalise, stationary};
use crate::state::{Words, push};

mod fit;
#[cfg(test)]
mod tests;

pub use fit::{SwitchingOptions, fit};

/// Most combinations of the last regimes.
const JOINT_MAX: usize = 4_096;

/// Parameters of a Markov-switching autoregression.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchingAr {
    regimes: usize,
    transition: Vec<f64>,
    means: Vec<f64>,
    /// One per regime.
    variances: Vec<f64>,
    ar: Vec<f64>,
    /// Regimes before the present one that are filtered together with it.
    lags: usize,
    /// Their number of combinations with it.
    joint: usize,
}

/// What filtering or smoothing a whole series gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Probabilities {
    /// Observations at the beginning that only start the autoregression and have no probabilities.
    pub skipped: usize,
    /// Per row after those, the probability of each regime.
    pub rows: Vec<f64>,
    /// Log-likelihood of those rows.
    pub log_likelihood: f64,
}

impl SwitchingAr {
    /// A model of `means.len()` regimes: `transition` from by to, row-major; one variance for all or one per regime; `ar`
    /// coefficients, nearest first.
    ///
    /// # Errors
    /// [`RegimeError`] when a size does not fit, a probability row does not add up to one within 1e-6, a value is not
    /// finite, or a variance is not positive.
    pub fn new(
        transition: &[f64],
        means: &[f64],
        variances: &[f64],
        ar: &[f64],
    ) -> Result<Self, RegimeError> {
        let regimes = means.len();
        RegimeError::check("regimes", regimes as f64, (2..=8).contains(&regimes), "2 to 8")?;
        RegimeError::length("transition", transition.len(), regimes * regimes)?;
        let variances = if variances.len() == 1 { &vec![variances[0]; regimes] } else { variances };
        RegimeError::length("variances", variances.len(), regimes)?;
        for &value in means.iter().chain(ar) {
            RegimeError::check(
                "means and coefficients",
                value,
                value.abs() <= 1e100,
                "finite, at most 1e100",
            )?;
        }
        for &variance in variances {
            RegimeError::check("variance", variance, variance > 0.0 && variance <= 1e200, "more than 0")?;
        }
        let lags = ar.len().max(1);
        let joint = u32::try_from(lags + 1).ok().and_then(|power| regimes.checked_pow(power));
        let joint = joint.filter(|joint| *joint <= JOINT_MAX).ok_or(RegimeError::Parameter {
            name: "order",
            value: ar.len() as f64,
            allowed: "at most 4096 combinations of the present and the last regimes",
        })?;
        let transition = stochastic("transition", transition, regimes)?;
        let (means, variances, ar) = (means.to_vec(), variances.to_vec(), ar.to_vec());
        Ok(Self { regimes, transition, means, variances, ar, lags, joint })
    }

    /// Number of regimes.
    #[must_use]
    pub fn regimes(&self) -> usize {
        self.regimes
    }

    /// Probability of going from a regime to another.
    #[must_use]
    pub fn transition(&self, from: usize, to: usize) -> f64 {
        self.transition[from * self.regimes + to]
    }

    /// Means of the regimes.
    #[must_use]
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// Variances of the regimes' innovations.
    #[must_use]
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// Autoregressive coefficients, nearest first.
    #[must_use]
    pub fn ar(&self) -> &[f64] {
        &self.ar
    }

    /// Observations that only start the autoregression.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.ar.len()
    }

    /// The regime `ago` steps back in a combination: the present one is its lowest digit.
    fn regime_of(&self, joint: usize, ago: usize) -> usize {
        joint / self.regimes.pow(ago as u32) % self.regimes
    }

    /// Probabilities of the combinations before anything was seen: the chain has run for ever.
    fn ergodic(&self) -> Vec<f64> {
        let stationary = stationary(&self.transition, self.regimes);
        let chance = |joint| {
            let oldest = stationary[self.regime_of(joint, self.lags)];
            (0..self.lags).fold(oldest, |chance, ago| {
                chance * self.transition(self.regime_of(joint, ago + 1), self.regime_of(joint, ago))
            })
        };
        (0..self.joint).map(chance).collect()
    }

    /// The combinations after one more step of the chain.
    fn advance(&self, before: &[f64], after: &mut [f64]) {
        let kept = self.joint / self.regimes;
        for rest in 0..kept {
            // The oldest regime is forgotten: it is the highest digit.
            let arriving: f64 = (0..self.regimes).map(|oldest| before[rest + oldest * kept]).sum();
            for to in 0..self.regimes {
                after[to + self.regimes * rest] = arriving * self.transition(rest % self.regimes, to);
            }
        }
    }

    /// Innovation of `value` in a combination; `past` is what came before it, nearest first.
    fn innovation(&self, joint: usize, value: f64, past: impl Fn(usize) -> f64) -> f64 {
        let own = value - self.means[self.regime_of(joint, 0)];
        let pull = |(at, coefficient): (usize, &f64)| {
            coefficient * (past(at) - self.means[self.regime_of(joint, at + 1)])
        };
        own - self.ar.iter().enumerate().map(pull).sum::<f64>()
    }

    /// Weighs predicted combinations by how well they explain `value`; returns its log-likelihood.
    fn weigh(&self, chances: &mut [f64], value: f64, past: impl Fn(usize) -> f64 + Copy) -> f64 {
        let mut best = f64::NEG_INFINITY;
        let score = |joint: usize| {
            let (e, variance) = (self.innovation(joint, value, past), self.variances[joint % self.regimes]);
            -0.5 * (LN_TWO_PI + ln(variance) + (e * e / variance).min(1e300))
        };
        for joint in 0..self.joint {
            best = best.max(score(joint));
        }
        for (joint, chance) in chances.iter_mut().enumerate() {
            *chance *= exp(score(joint) - best);
        }
        best + ln(normalise(chances))
    }

    /// Sums combinations by their present regime.
    fn marginal(&self, joint: &[f64], regimes: &mut [f64]) {
        regimes.fill(0.0);
        for (at, chance) in joint.iter().enumerate() {
            regimes[at % self.regimes] += chance;
        }
    }

    /// Probabilities of the regimes at each row given the rows up to it (Hamilton's filter).
    ///
    /// # Errors
    /// [`RegimeError::NotFinite`] for the first value that is not a finite number; nothing is judged then.
    pub fn filter(&self, series: &[f64]) -> Result<Probabilities, RegimeError> {
        finite(series)?;
        let mut filter = SwitchingFilter::new(self.clone());
        let mut rows = Vec::with_capacity(series.len() * self.regimes);
        for &value in series {
            filter.step(value);
            if filter.seen > self.skipped() as u64 {
                rows.extend_from_slice(filter.probabilities());
            }
        }
        Ok(Probabilities { skipped: self.skipped(), rows, log_likelihood: filter.log_likelihood })
    }

    /// Probabilities of the regimes at each row given all rows (Kim's smoother).
    ///
    /// # Errors
    /// [`RegimeError::NotFinite`] for the first value that is not a finite number; nothing is judged then.
    pub fn smooth(&self, series: &[f64]) -> Result<Probabilities, RegimeError> {
        let (joint, log_likelihood) = self.smooth_joint(series)?;
        let mut rows = vec![0.0; joint.len() / self.joint * self.regimes];
        for (joint, row) in joint.chunks_exact(self.joint).zip(rows.chunks_exact_mut(self.regimes)) {
            self.marginal(joint, row);
        }
        Ok(Probabilities { skipped: self.skipped(), rows, log_likelihood })
    }

    /// Smoothed probabilities of the combinations, row by row.
    fn smooth_joint(&self, series: &[f64]) -> Result<(Vec<f64>, f64), RegimeError> {
        finite(series)?;
        let mut filter = SwitchingFilter::new(self.clone());
        let mut all = Vec::with_capacity(series.len() * self.joint);
        for &value in series {
            filter.step(value);
            if filter.seen > self.skipped() as u64 {
                all.extend_from_slice(&filter.joint);
            }
        }
        let (size, kept) = (self.joint, self.joint / self.regimes);
        let mut predicted = vec![0.0; size];
        for row in (0..(all.len() / size).saturating_sub(1)).rev() {
            let (now, next) = all.split_at_mut((row + 1) * size);
            let (now, next) = (&mut now[row * size..], &next[..size]);
            self.advance(now, &mut predicted);
            for (joint, now) in now.iter_mut().enumerate() {
                let rest = joint % kept;
                let ahead = (0..self.regimes).map(|to| (to, to + self.regimes * rest));
                let sum: f64 = ahead
                    .filter(|&(_, after)| predicted[after] > 0.0)
                    .map(|(to, after)| {
                        self.transition(joint % self.regimes, to) * next[after] / predicted[after]
                    })
                    .sum();
                *now *= sum;
            }
            normalise(now);
        }
        Ok((all, filter.log_likelihood))
    }
}

/// The first value that is no finite number is an error.
fn finite(series: &[f64]) -> Result<(), RegimeError> {
    match series.iter().position(|value| !value.is_finite() || value.abs() > 1e100) {
        Some(index) => Err(RegimeError::NotFinite { index, value: series[index] }),
        None => Ok(()),
    }
}

/// The filter over a stream. Allocates nothing after it was built.
#[derive(Clone, Debug)]
pub struct SwitchingFilter {
    model: SwitchingAr,
    seen: u64,
    /// The last values, newest at `seen % len`.
    past: Vec<f64>,
    joint: Vec<f64>,
    before: Vec<f64>,
    marginal: Vec<f64>,
    log_likelihood: f64,
}

impl SwitchingFilter {
    /// A filter before its first observation.
    #[must_use]
    pub fn new(model: SwitchingAr) -> Self {
        let joint = model.ergodic();
        let mut marginal = vec![0.0; model.regimes];
        model.marginal(&joint, &mut marginal);
        let (past, before) = (vec![0.0; model.ar.len()], vec![0.0; model.joint]);
        Self { model, seen: 0, past, joint, before, marginal, log_likelihood: 0.0 }
    }

    /// Takes an observation; one that is not a finite number is skipped, and false returned.
    pub fn step(&mut self, value: f64) -> bool {
        if !value.is_finite() || value.abs() > 1e100 {
            return false;
        }
        let order = self.past.len() as u64;
        if self.seen >= order {
            if self.seen > order {
                std::mem::swap(&mut self.joint, &mut self.before);
                self.model.advance(&self.before, &mut self.joint);
            }
            let (past, seen) = (&self.past, self.seen);
            let back = |at: usize| past[((seen - 1 - at as u64) % order) as usize];
            self.log_likelihood += self.model.weigh(&mut self.joint, value, back);
            self.model.marginal(&self.joint, &mut self.marginal);
        }
        if order > 0 {
            self.past[(self.seen % order) as usize] = value;
        }
        self.seen += 1;
        true
    }

    /// Probabilities of the regimes given everything so far; before the autoregression has started, those of the chain.
    #[must_use]
    pub fn probabilities(&self) -> &[f64] {
        &self.marginal
    }

    /// Log-likelihood of everything after the first `order` observations.
    #[must_use]
    pub fn log_likelihood(&self) -> f64 {
        self.log_likelihood
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.push(self.seen);
        push(words, &[self.log_likelihood]);
        push(words, &self.past);
        push(words, &self.joint);
    }

    /// Takes over a state saved by a filter with the same model.
    ///
    /// # Errors
    /// [`RegimeError`] when the words are no such state; the filter is then unusable.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.seen = words.count()?;
        self.log_likelihood = words.float()?;
        words.floats(&mut self.past)?;
        words.floats(&mut self.joint)?;
        stochastic("combinations", &self.joint, self.model.joint)?;
        self.model.marginal(&self.joint, &mut self.marginal);
        Ok(())
    }
}
