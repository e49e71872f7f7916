//! Anomalies of one numeric series: a consensus of fifteen cheap parts, row by row.
//!
//! Each [`Part`] makes one number per row from the rows so far: the value, means and shifts of several lengths, the
//! difference from the season, the error of a small model, unrest. What counts is only whether a part leaves the range
//! it has had, and by how much: a *record*. How often an undisturbed stream gives records does not depend on its
//! distribution, so the parts can be added up, and scores of different series be compared. A margin `m`, in widths of
//! the range, is evidence `m / (m + 0.05)`; the sum over the parts is the evidence of the row, 0 to 15. One part alone
//! gives less than 1, so an alert at the default threshold has two witnesses. The score is the
//! evidence when it says something new: for 20 rows only stronger evidence passes, then the bar fades.
//!
//! - No value (NaN, infinite): score 0, nothing learnt, and the row is not counted.
//! - A wild value scores, and enters the state drawn in to one width of the range, so that it blinds for little after.
//! - A gap in time changes nothing: the season follows the time, all else the rows.
//! - Ranges forget 5e-6 of their width per row, so a drift or a new level is learnt; half of a range goes in 140,000 rows.
//! - While learning (150 rows) there is no score.

use crate::AnomalyError;
use crate::state::{Saver, Walk, Words};

mod parts;
mod predictor;
mod quiet;
mod range;
mod rate;
mod season;

use parts::Parts;
pub use parts::{PARTS, Part};
use quiet::Quiet;
use range::Range;
use season::Slot;

/// Values are limited to this size, so that no square overflows.
const VALUE_MAX: f64 = 1e30;

/// Settings, the same for all series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesOptions {
    /// Rows before anything is said: 100 or more.
    pub learning_rows: u32,
    /// Score from which a row is an alert: more than 0.
    pub threshold: f64,
    /// Share of a range's width forgotten per row, at each end: 0 (never) to 0.01.
    pub forget: f64,
    /// Margin, in widths of a range, that is half of a part's full evidence: more than 0. Chances are told for the default.
    pub margin: f64,
    /// Rows after a score for which only stronger evidence passes: 1 to 10,000. Chances are told for the default.
    pub hold_rows: u32,
}

impl Default for SeriesOptions {
    fn default() -> Self {
        Self { learning_rows: 150, threshold: 1.25, forget: 5e-6, margin: 0.05, hold_rows: 20 }
    }
}

/// What a row says of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SeriesState {
    /// Too little is known to judge.
    Learning = 0,
    /// Nothing unusual, or nothing new.
    Quiet = 1,
    /// An episode that reached the threshold has begun and not yet faded.
    Alert = 2,
}

/// What one row gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Learning, quiet or alert.
    pub state: SeriesState,
    /// Evidence that says something new: 0 in most rows, 15 at most.
    pub score: f64,
    /// Evidence of this row alone, repeats included.
    pub evidence: f64,
    /// Probability that a row of an undisturbed series scores so high: a threshold on it is a rate. 1 without a score.
    pub chance: f64,
    /// What a small model expected, in the series' unit.
    pub expected: f64,
    /// Its mean error so far, in the series' unit.
    pub spread: f64,
    /// The part that is furthest outside; `None` without evidence.
    pub strongest: Option<Part>,
    /// What that part was, and the end of its range so far that it passed; NaN without evidence.
    pub witness: (f64, f64),
}

/// Judges one series row by row.
///
/// Under 2 KiB, all in place. A row is judged with what was known before it.
#[derive(Clone, Debug)]
pub struct SeriesDetector {
    options: SeriesOptions,
    parts: Parts,
    ranges: [Range; PARTS],
    quiet: Quiet,
    rows: u64,
}

const _: () = assert!(size_of::<SeriesDetector>() <= 2_048, "the state of a series is bounded");

impl SeriesDetector {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] when an option is out of range.
    pub fn new(options: SeriesOptions) -> Result<Self, AnomalyError> {
        let SeriesOptions { learning_rows, threshold, forget, margin, hold_rows } = options;
        AnomalyError::check(
            "learning_rows",
            f64::from(learning_rows),
            learning_rows >= 100,
            "100 rows or more",
        )?;
        AnomalyError::check("threshold", threshold, threshold > 0.0, "more than 0")?;
        AnomalyError::check("forget", forget, (0.0..=0.01).contains(&forget), "0 to 0.01")?;
        AnomalyError::check("margin", margin, margin > 0.0, "more than 0")?;
        let hold = (1..=10_000).contains(&hold_rows);
        AnomalyError::check("hold_rows", f64::from(hold_rows), hold, "1 to 10,000 rows")?;
        Ok(Self {
            options,
            parts: Parts::new(),
            ranges: [Range::default(); PARTS],
            quiet: Quiet::default(),
            rows: 0,
        })
    }

    /// What it was built with.
    #[must_use]
    pub fn options(&self) -> SeriesOptions {
        self.options
    }

    /// Takes the value of `seconds` since the Unix epoch, in whatever time zone the series lives by.
    ///
    /// What is not finite lets the row pass unjudged: its expected value and spread are NaN.
    pub fn push(&mut self, seconds: i64, value: f64) -> Verdict {
        if !value.is_finite() {
            return Verdict {
                state: self.state(),
                score: 0.0,
                evidence: 0.0,
                chance: 1.0,
                expected: f64::NAN,
                spread: f64::NAN,
                strongest: None,
                witness: NOTHING,
            };
        }
        let values = &self.ranges[Part::Value as usize];
        let value = values.drawn_in(value.clamp(-VALUE_MAX, VALUE_MAX));
        let width = values.judges().then(|| values.width());
        let row = self.parts.push(Slot::at(seconds), value, width);
        let (mut evidence, mut most, mut strongest, mut witness) = (0.0, 0.0, None, NOTHING);
        for ((range, value), part) in self.ranges.iter_mut().zip(row.parts).zip(Part::ALL) {
            let Some(value) = value else { continue };
            let (margin, end) = (range.margin(value), range.end(value));
            range.push(value, self.options.forget);
            if margin > 0.0 {
                evidence += margin / (margin + self.options.margin);
                if margin > most {
                    (most, strongest) = (margin, Some(part));
                    let origin = if part.is_level() { self.parts.origin() } else { 0.0 };
                    witness = (origin + value, origin + end);
                }
            }
        }
        self.rows = (self.rows + 1).min(ROWS_MAX);
        let score = if self.is_learning() { 0.0 } else { self.quiet.pass(evidence, self.options.hold_rows) };
        let chance = rate::chance(score, self.rows_remembered());
        let (expected, spread) = (row.expected, row.spread);
        Verdict { state: self.state(), score, evidence, chance, expected, spread, strongest, witness }
    }

    /// Rows that were judged or learnt from.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn is_learning(&self) -> bool {
        self.rows <= u64::from(self.options.learning_rows)
    }

    fn state(&self) -> SeriesState {
        if self.is_learning() {
            SeriesState::Learning
        } else if self.quiet.peak() >= self.options.threshold {
            SeriesState::Alert
        } else {
            SeriesState::Quiet
        }
    }

    /// Rows that still bear on the ranges.
    fn rows_remembered(&self) -> f64 {
        let rows = self.rows as f64;
        if self.options.forget > 0.0 { rows.min(1.0 / self.options.forget) } else { rows }
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        let mut copy = self.clone();
        // Writing cannot fail: what is checked is what is read.
        let written = copy.walk(&mut Saver(words));
        debug_assert_eq!(written, Ok(()));
    }

    /// Takes over a state saved by a detector with the same options.
    ///
    /// # Errors
    /// [`AnomalyError::State`] when the words are no such state; then nothing has changed.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), AnomalyError> {
        let mut restored = Self::new(self.options)?;
        restored.walk(words)?;
        *self = restored;
        Ok(())
    }

    fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.count(&mut self.rows, ROWS_MAX)?;
        self.quiet.walk(walk, self.options.hold_rows)?;
        self.ranges.iter_mut().try_for_each(|range| range.walk(walk))?;
        self.parts.walk(walk)
    }
}

/// No witness.
const NOTHING: (f64, f64) = (f64::NAN, f64::NAN);

/// Counting further would change nothing.
const ROWS_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests;
