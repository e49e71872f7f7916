//! What the cross-section is like, from its last readings: calm, concentrated, turbulent or both; and whether that has changed.
//!
//! Two questions are asked of the last [`MEMORY`] readings, oldest first, each with a threshold to begin and a lower one to end, so that
//! a value that stays near one of them does not make the label flap:
//! - *concentrated*: is one move most of what happens? The mode's share beyond what it has of symbols that move by themselves,
//!   `(share - 1/n) / (1 - 1/n)`, which for symbols of one mutual correlation is that correlation.
//! - *turbulent*: are moves unlike those before? The turbulence, which is around 1 for a row like the others.
//!
//! Of either the median of the last five counts, so that one row alone changes nothing. The *change probability* is that of a change
//! in the law of the turbulence's logarithm within those readings, by run lengths ([`crate::bocpd`]) that begin with the oldest of them.
//!
//! **Invariant:** an answer follows from those readings alone. So it is the same wherever it is computed and after whatever restart; and a
//! state whose beginning is older than all of them, with nothing since that would begin it, is over.

use super::CrossReading;
use crate::bocpd::{Bocpd, BocpdOptions, Gaussian, Robust};
use crate::error::RegimeError;
use std::collections::VecDeque;

/// Readings that an answer is of.
pub const MEMORY: usize = 32;
/// Readings whose median counts.
const MEDIAN_OF: usize = 5;
/// Where a concentrated cross-section begins and ends: as if every pair were correlated so.
const CONCENTRATED: [f64; 2] = [0.5, 0.4];
/// Where a turbulent one begins and ends: so many times as far as a row like the others.
const TURBULENT: [f64; 2] = [2.0, 1.5];
/// A change counts as recent for so many readings; the youngest ones have had no time to show.
const RECENT: u64 = 16;
/// The least turbulence that is told from none, so that its logarithm stays a number.
const LEAST: f64 = 1e-3;

/// What the cross-section is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossLabel {
    /// Neither.
    Calm,
    /// One move is most of what happens.
    Concentrated,
    /// Moves are unlike those before.
    Turbulent,
    /// Both at once.
    Stressed,
}

impl CrossLabel {
    fn of(concentrated: bool, turbulent: bool) -> Self {
        match (concentrated, turbulent) {
            (false, false) => Self::Calm,
            (true, false) => Self::Concentrated,
            (false, true) => Self::Turbulent,
            (true, true) => Self::Stressed,
        }
    }

    /// Its number in streams: 0 calm, 1 concentrated, 2 turbulent, 3 stressed.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Concentrated => "concentrated",
            Self::Turbulent => "turbulent",
            Self::Stressed => "stressed",
        }
    }
}

/// What the last readings say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossRegime {
    /// What it is like.
    pub label: CrossLabel,
    /// Chance that the law of the turbulence changed within the last sixteen readings.
    pub change_probability: f64,
}

/// The last readings of a cross-section.
#[derive(Debug, Clone, Default)]
pub struct CrossRegimes(VecDeque<CrossReading>);

impl CrossRegimes {
    /// Takes a reading and says what the last ones are like; `None` until there are [`MEMORY`] of them, each with a turbulence.
    ///
    /// # Errors
    /// None that can come: the model's constants are valid.
    pub fn take(&mut self, reading: CrossReading) -> Result<Option<CrossRegime>, RegimeError> {
        if self.0.len() == MEMORY {
            self.0.pop_front();
        }
        self.0.push_back(reading);
        regime(self.0.make_contiguous())
    }

    /// There was a row without a reading: what was before does not stand beside what comes.
    pub fn interrupt(&mut self) {
        self.0.clear();
    }
}

/// What these readings, the last [`MEMORY`] and oldest first, say together; `None` where there are fewer, or one lacks its turbulence.
///
/// # Errors
/// None that can come: the model's constants are valid.
pub fn regime(readings: &[CrossReading]) -> Result<Option<CrossRegime>, RegimeError> {
    if readings.len() != MEMORY {
        return Ok(None);
    }
    let turbulence: Option<Vec<f64>> = readings.iter().map(|reading| reading.turbulence).collect();
    let Some(turbulence) = turbulence else { return Ok(None) };
    let concentration: Vec<f64> = readings.iter().map(concentration).collect();
    let label = CrossLabel::of(held(&concentration, CONCENTRATED), held(&turbulence, TURBULENT));
    // Near 0 for rows like the others, by how turbulence is measured; a row far off is an outlier before it is a change.
    let model = Robust::new(Gaussian::new(0.0, 1.0, 1.0, 0.5)?, 0.05, 4.0)?;
    let mut runs = Bocpd::new(
        model,
        BocpdOptions { run_expected: 250.0, hypotheses_max: MEMORY + 1, prune_below: 0.0 },
    )?;
    for value in turbulence {
        runs.push(libm::log(value.max(LEAST)));
    }
    Ok(Some(CrossRegime { label, change_probability: runs.change_probability(RECENT).clamp(0.0, 1.0) }))
}

/// The mode's share beyond that of as many moves as symbols: 0 to 1.
fn concentration(reading: &CrossReading) -> f64 {
    let least = 1.0 / reading.symbols.max(2) as f64;
    ((reading.mode_share - least) / (1.0 - least)).clamp(0.0, 1.0)
}

/// Whether a state that begins at the first threshold and ends below the second holds after these values.
fn held(values: &[f64], [begin, end]: [f64; 2]) -> bool {
    let mut held = false;
    for last in values.windows(MEDIAN_OF) {
        let mut sorted = [0.0; MEDIAN_OF];
        sorted.copy_from_slice(last);
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted[MEDIAN_OF / 2];
        held = median >= if held { end } else { begin };
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::{CrossOptions, CrossSection};
    use proptest::prelude::*;

    fn reading(mode_share: f64, turbulence: f64) -> CrossReading {
        CrossReading {
            symbols: 10,
            correlation: 0.0,
            mode_share,
            effective_rank: 1.0,
            absorption: 1.0,
            turbulence: Some(turbulence),
        }
    }

    fn labels(readings: impl IntoIterator<Item = CrossReading>) -> Vec<Option<&'static str>> {
        let mut regimes = CrossRegimes::default();
        let mut one = |reading| Some(regimes.take(reading).unwrap()?.label.name());
        readings.into_iter().map(&mut one).collect()
    }

    #[test]
    fn labels_are_what_they_say_and_one_row_changes_nothing() {
        let calm = || std::iter::repeat_n(reading(0.2, 1.0), 40);
        let all = labels(calm());
        assert!(all[..MEMORY - 1].iter().all(Option::is_none));
        assert!(all[MEMORY - 1..].iter().all(|label| *label == Some("calm")));
        let spike = labels(calm().chain([reading(0.9, 30.0)]).chain(calm()));
        assert!(spike.iter().flatten().all(|label| *label == "calm"), "{spike:?}");
        let states = [(0.7, 1.0, "concentrated"), (0.2, 3.0, "turbulent"), (0.7, 3.0, "stressed")];
        for (share, turbulence, name) in states {
            let all = labels(calm().chain(std::iter::repeat_n(reading(share, turbulence), 10)));
            // Three of the last five are of the new kind.
            assert_eq!((all[41], all[42], all[49]), (Some("calm"), Some(name), Some(name)), "{all:?}");
        }
    }

    #[test]
    fn a_value_between_the_thresholds_keeps_the_label_and_does_not_begin_it() {
        let between = |share| std::iter::repeat_n(reading(share, 1.0), 40);
        // 0.505 of ten symbols is a concentration of 0.45.
        assert!(labels(between(0.505)).iter().flatten().all(|label| *label == "calm"));
        let begun =
            labels(between(0.2).chain(std::iter::repeat_n(reading(0.7, 1.0), 5)).chain(between(0.505)));
        assert_eq!(
            (begun[44], begun[60], begun[70]),
            (Some("concentrated"), Some("concentrated"), Some("concentrated"))
        );
        // Once nothing that began it is among the readings, it is over.
        assert_eq!(begun.last(), Some(&Some("calm")));
        // Up and down within the band: two changes where one threshold would make dozens.
        let wavering = (0..200).map(|at| reading(if at % 2 == 0 { 0.56 } else { 0.48 }, 1.0));
        let all = labels(between(0.2).chain(wavering));
        let changes = all.windows(2).filter(|pair| pair[0] != pair[1] && pair[0].is_some()).count();
        assert!(changes <= 1, "{changes}");
    }

    #[test]
    fn a_change_of_turbulence_is_likely_when_it_came_and_not_before() {
        let mut random = Random(5);
        let mut regimes = CrossRegimes::default();
        let mut chances = Vec::new();
        for at in 0..200 {
            let level = if at < 150 { 1.0 } else { 6.0 };
            let row = reading(0.3, level * libm::exp(0.3 * random.bell()));
            chances.push(regimes.take(row).unwrap().map(|regime| regime.change_probability));
        }
        let before = chances[..150].iter().flatten().fold(0.0f64, |most, chance| most.max(*chance));
        assert!(before < 0.5, "{before}");
        assert!(chances[155].unwrap() > 0.9, "{:?}", chances[155]);
    }

    #[test]
    fn what_lacks_a_reading_or_a_turbulence_is_still_learning() {
        let mut regimes = CrossRegimes::default();
        for _ in 0..MEMORY {
            regimes.take(reading(0.2, 1.0)).unwrap();
        }
        let none = CrossReading { turbulence: None, ..reading(0.2, 1.0) };
        assert_eq!(regimes.take(none).unwrap(), None);
        regimes.interrupt();
        assert_eq!(regimes.take(reading(0.2, 1.0)).unwrap(), None);
        assert_eq!(regime(&[]).unwrap(), None);
    }

    proptest! {
        /// Nothing behind a row, and nothing older than the memory, has a say: to the bit.
        #[test]
        fn an_answer_follows_from_the_last_readings_alone(seed in 0u64..1_000, cut in 0usize..60) {
            let mut random = Random(seed);
            let options = CrossOptions { rows: 8, shrink: 0.2 };
            let mut cross = CrossSection::new(4, options).unwrap();
            let mut readings = Vec::new();
            while readings.len() < 100 {
                let row: Vec<f64> = (0..4).map(|_| random.bell() * if readings.len() > 60 { 5.0 } else { 1.0 }).collect();
                readings.extend(cross.update(&row).unwrap());
            }
            let of = |readings: &[CrossReading]| {
                let mut regimes = CrossRegimes::default();
                readings.iter().map(|reading| regimes.take(*reading).unwrap()).collect::<Vec<_>>()
            };
            let whole = of(&readings);
            let late = of(&readings[cut..]);
            let bits = |regime: &CrossRegime| (regime.label, regime.change_probability.to_bits());
            for (at, found) in late.iter().enumerate() {
                // One that begins later says less, and never anything else.
                if let Some(found) = found {
                    prop_assert_eq!(Some(bits(found)), whole[cut + at].as_ref().map(bits));
                }
            }
            prop_assert_eq!(late.iter().flatten().count(), 100 - cut - MEMORY + 1 - usize::from(cut == 0));
        }
    }
}
