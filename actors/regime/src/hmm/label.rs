//! A label that does not flap.

use crate::RegimeError;
use crate::state::Words;

/// Names a state, and keeps naming it until another one has been clearly likelier for some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    enter: f64,
    dwell: u32,
    current: Option<usize>,
    rival: usize,
    held: u32,
}

impl Label {
    /// A label that changes to a state once that had at least probability `enter` for `dwell` observations in a row.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when `enter` is not over a half (or two states could claim it) or `dwell` is 0.
    pub fn new(enter: f64, dwell: u32) -> Result<Self, RegimeError> {
        RegimeError::check("enter", enter, enter > 0.5 && enter <= 1.0, "more than 0.5, at most 1")?;
        RegimeError::check("dwell", f64::from(dwell), dwell > 0, "1 observation or more")?;
        Ok(Self { enter, dwell, current: None, rival: 0, held: 0 })
    }

    /// Takes the states' probabilities and names one; `None` until one was clear for the first time.
    pub fn update(&mut self, probabilities: &[f64]) -> Option<usize> {
        let best = super::best_of(probabilities);
        if probabilities[best] < self.enter || self.current == Some(best) {
            self.held = 0;
        } else {
            self.held = if self.held > 0 && self.rival == best { self.held + 1 } else { 1 };
            self.rival = best;
            if self.held >= self.dwell {
                (self.current, self.held) = (Some(best), 0);
            }
        }
        self.current
    }

    /// The present label.
    #[must_use]
    pub fn current(&self) -> Option<usize> {
        self.current
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.extend([
            self.current.map_or(0, |state| state as u64 + 1),
            self.rival as u64,
            u64::from(self.held),
        ]);
    }

    /// Takes over a saved state of a label over `states` states.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such state.
    pub fn restore(&mut self, states: usize, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.current = (words.at_most(states as u64)? as usize).checked_sub(1);
        self.rival = words.at_most(states as u64 - 1)? as usize;
        self.held = words.at_most(u64::from(self.dwell))? as u32;
        Ok(())
    }
}
