//! Bayesian online change point detection (Adams & MacKay 2007, arXiv:0710.3742): a posterior over how long the present
//! regime has lasted.
//!
//! Hypotheses about the run length are kept side by side, each with the statistics of its run. Unlikely ones are given
//! up, and there are never more than a fixed number, so that a step costs the same however long a series gets.

use crate::RegimeError;
use crate::math::{exp, ln, normalise};
use crate::state::{Words, push};

mod observation;
#[cfg(test)]
mod tests;

pub use observation::{Gaussian, Lagged, Observation, Poisson, Robust};

/// How a [`Bocpd`] judges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BocpdOptions {
    /// Observations between changes that are expected beforehand; the hazard is one over it.
    pub run_expected: f64,
    /// Hypotheses kept, 8 to 4096.
    pub hypotheses_max: usize,
    /// Hypotheses less likely than this are given up.
    pub prune_below: f64,
}

impl Default for BocpdOptions {
    fn default() -> Self {
        Self { run_expected: 250.0, hypotheses_max: 128, prune_below: 1e-6 }
    }
}

/// The detector for observations of the kind `O`.
#[derive(Clone, Debug)]
pub struct Bocpd<O: Observation> {
    model: O,
    options: BocpdOptions,
    /// Hypotheses, longest run first: runs are distinct, so the order is total.
    runs: Vec<u64>,
    chances: Vec<f64>,
    statistics: Vec<O::Statistics>,
    seen: u64,
    evidence: f64,
    /// Chance given up by pruning so far; it was shared out among the others.
    pruned: f64,
}

impl<O: Observation> Bocpd<O> {
    /// A detector before its first observation.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when an option is out of range.
    pub fn new(model: O, options: BocpdOptions) -> Result<Self, RegimeError> {
        let BocpdOptions { run_expected, hypotheses_max, prune_below } = options;
        RegimeError::check("run_expected", run_expected, run_expected > 1.0, "more than 1")?;
        let some = (8..=4_096).contains(&hypotheses_max);
        RegimeError::check("hypotheses_max", hypotheses_max as f64, some, "8 to 4096")?;
        let small = (0.0..=0.01).contains(&prune_below);
        RegimeError::check("prune_below", prune_below, small, "0 to 0.01")?;
        // One more than are kept: the youngest joins before one leaves.
        let room = hypotheses_max + 1;
        let mut detector = Self {
            runs: Vec::with_capacity(room),
            chances: Vec::with_capacity(room),
            statistics: Vec::with_capacity(room),
            model,
            options,
            seen: 0,
            evidence: 0.0,
            pruned: 0.0,
        };
        detector.runs.push(0);
        detector.chances.push(1.0);
        detector.statistics.push(detector.model.prior());
        Ok(detector)
    }

    /// Takes an observation. One that the model cannot judge (NaN, a negative count) is skipped; returns whether it was taken.
    pub fn push(&mut self, value: f64) -> bool {
        if !self.model.accepts(value) {
            return false;
        }
        self.seen += 1;
        let hazard = 1.0 / self.options.run_expected;
        // Relative to the best prediction, so that an observation nobody expected does not underflow to nothing.
        let mut best = f64::NEG_INFINITY;
        for (chance, statistics) in self.chances.iter_mut().zip(&self.statistics) {
            *chance = ln(*chance) + self.model.log_predictive(statistics, value);
            best = best.max(*chance);
        }
        let mut sum = 0.0;
        for chance in &mut self.chances {
            *chance = exp(*chance - best);
            sum += *chance;
        }
        self.evidence += best + ln(sum);
        for ((chance, run), statistics) in
            self.chances.iter_mut().zip(&mut self.runs).zip(&mut self.statistics)
        {
            *chance *= (1.0 - hazard) / sum;
            *run += 1;
            self.model.update(statistics, value);
        }
        self.runs.push(0);
        self.chances.push(hazard);
        self.statistics.push(self.model.start(value));
        self.prune();
        true
    }

    fn prune(&mut self) {
        let mut kept = 0;
        for at in 0..self.runs.len() {
            // The youngest always stays: it has had no time to show.
            let stays = self.chances[at] >= self.options.prune_below || at + 1 == self.runs.len();
            if stays {
                self.runs.swap(kept, at);
                self.chances.swap(kept, at);
                self.statistics.swap(kept, at);
                kept += 1;
            }
        }
        self.truncate(kept);
        if kept > self.options.hypotheses_max {
            let weakest =
                |least: usize, at: usize| if self.chances[at] < self.chances[least] { at } else { least };
            let least = (0..kept - 1).fold(0, weakest);
            self.runs.remove(least);
            self.chances.remove(least);
            self.statistics.remove(least);
        }
        self.pruned += 1.0 - normalise(&mut self.chances);
    }

    fn truncate(&mut self, kept: usize) {
        self.runs.truncate(kept);
        self.chances.truncate(kept);
        self.statistics.truncate(kept);
    }

    /// Hypotheses: run length, chance and statistics, longest run first. The chances add up to one.
    pub fn hypotheses(&self) -> impl Iterator<Item = (u64, f64, &O::Statistics)> {
        let all = self.runs.iter().zip(&self.chances).zip(&self.statistics);
        all.map(|((&run, &chance), statistics)| (run, chance, statistics))
    }

    /// The likeliest run length and its statistics; the longer run of two that are equally likely.
    #[must_use]
    pub fn likeliest(&self) -> (u64, &O::Statistics) {
        let better = |best: usize, at: usize| if self.chances[at] > self.chances[best] { at } else { best };
        let best = (0..self.runs.len()).fold(0, better);
        (self.runs[best], &self.statistics[best])
    }

    /// Expected run length.
    #[must_use]
    pub fn run_length(&self) -> f64 {
        self.runs.iter().zip(&self.chances).map(|(&run, &chance)| run as f64 * chance).sum()
    }

    /// Chance that the present regime began within the last `recent` observations.
    #[must_use]
    pub fn change_probability(&self, recent: u64) -> f64 {
        let young = self.runs.iter().zip(&self.chances).filter(|(run, _)| **run <= recent);
        young.map(|(_, &chance)| chance).sum()
    }

    /// Log-likelihood of everything seen, each observation predicted from those before it.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        self.evidence
    }

    /// Sum of the chances that pruning gave up: how far the posterior may be off.
    #[must_use]
    pub fn pruned(&self) -> f64 {
        self.pruned
    }

    /// The observation model.
    #[must_use]
    pub fn model(&self) -> &O {
        &self.model
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.extend([self.seen, self.runs.len() as u64]);
        push(words, &[self.evidence, self.pruned]);
        for (run, chance, statistics) in self.hypotheses() {
            words.extend([run, chance.to_bits()]);
            self.model.save(statistics, words);
        }
    }

    /// Takes over a state saved by a detector with the same model and options.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such state; the detector is then unusable.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.seen = words.count()?;
        let count = words.at_most(self.options.hypotheses_max as u64)?;
        (self.evidence, self.pruned) = (words.float()?, words.float()?);
        self.truncate(0);
        for _ in 0..count {
            self.runs.push(words.count()?);
            self.chances.push(words.float()?);
            self.statistics.push(self.model.restore(words)?);
        }
        let sum: f64 = self.chances.iter().sum();
        if count == 0 || !(self.chances.iter().all(|chance| *chance >= 0.0) && (sum - 1.0).abs() < 1e-6) {
            return Err(RegimeError::State { problem: "chances that do not add up to 1" });
        }
        Ok(())
    }
}
