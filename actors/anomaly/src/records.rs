//! Anomalies among records of mixed features, one pass and no labels: how little a record is like the typical ones.
//!
//! Two naive Bayes classes over binned features are learnt as the records come, *typical* and *other*. What a record
//! first belongs to is decided by its categories alone: those that are common are typical. From then on the classes
//! decide themselves, softly, so that a stream with many attacks does not make them typical, as long as no single kind of
//! attack has the most common names. The score is how unlikely the record is in the typical class, each feature counting at
//! most [`SURPRISE_MAX`] nats, and a tenth of how much likelier it is in the other.
//!
//! In the family of streaming memories that learn from what they take for normal (MemStream, Bhatia et al. 2022,
//! doi:10.1145/3485447.3512221), with counts in place of an autoencoder.

use crate::AnomalyError;
use crate::state::{Saver, Walk, Words};

mod alarm;

pub use alarm::{RecordAlarm, RecordCall};

/// Bins of a feature.
const BINS: usize = 128;
/// Records for which the categories alone decide.
pub const WARM_RECORDS: u64 = 300;
/// Nats below the mean rarity at which one of those is as likely typical as not.
const STRICTER: f64 = 0.5;
/// Weight of a bin before it has been seen.
const PRIOR: f64 = 0.1;
/// Most that one feature adds to the score, in nats.
pub const SURPRISE_MAX: f64 = 3.0;
/// Weight of the other class's likelihood in the score.
const OTHER: f64 = 0.1;
/// Most features.
pub const FEATURES_MAX: usize = 256;
/// Steps of a share.
const SHARE_STEPS: f64 = 10.0;

/// What a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// One of some names (protocol, service, outcome), as a number of the caller's choice, modulo 128. A yes or no is better
    /// a [`FeatureKind::Count`]: which of two is more common says little about what is typical.
    Category,
    /// A count, size or duration from 0, binned by its power of two. What is negative or no number counts as missing.
    Count,
    /// A share from 0 to 1, binned by tenths. What is outside counts as 0 or 1, what is no number as missing.
    Share,
}

/// What one record gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordVerdict {
    /// How unlike the typical it is, in nats: higher is more anomalous.
    pub score: f64,
    /// Whether the classes decide already.
    pub learning: bool,
    /// The feature that is the least typical, from 0.
    pub strongest: usize,
    /// How much likelier it is typical than other, in nats: from 0 up it is learnt as typical rather than not.
    pub typical: f64,
}

/// What one feature of the last record says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureWitness {
    /// Which feature, from 0.
    pub feature: usize,
    /// What it adds to the score, in nats: at most [`SURPRISE_MAX`].
    pub surprise: f64,
    /// Share of the typical records that are alike in it.
    pub share: f64,
    /// The value most of them have, the middle of its bin; NaN where that is missing.
    pub usual: f64,
    /// Share of those.
    pub usual_share: f64,
}

/// Judges records one after the other. Its memory is fixed: 1 KiB per feature.
#[derive(Clone, Debug)]
pub struct RecordDetector {
    kinds: Vec<FeatureKind>,
    /// Per class, feature and bin: weight of records.
    weights: Vec<f32>,
    totals: [f64; 2],
    records: u64,
    /// Mean rarity of the categories of the first records.
    rarity: f64,
    /// Of the last record, and what each of them adds to its score.
    bins: Vec<u8>,
    surprises: Vec<f64>,
}

impl RecordDetector {
    /// A detector of records with these features.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] without any feature, without a category, or with more than 256 features.
    pub fn new(kinds: &[FeatureKind]) -> Result<Self, AnomalyError> {
        let count = kinds.len();
        AnomalyError::check("features", count as f64, (1..=FEATURES_MAX).contains(&count), "1 to 256")?;
        let categories = kinds.iter().filter(|&&kind| kind == FeatureKind::Category).count();
        AnomalyError::check(
            "categories",
            categories as f64,
            categories > 0,
            "1 or more, to know what is common",
        )?;
        Ok(Self {
            kinds: kinds.to_vec(),
            weights: vec![0.0; 2 * count * BINS],
            totals: [0.0; 2],
            records: 0,
            rarity: 0.0,
            bins: vec![0; count],
            surprises: vec![0.0; count],
        })
    }

    /// Judges a record by the ones before it, then learns from it.
    ///
    /// # Errors
    /// [`AnomalyError::Length`] when it has another number of features; then nothing is learnt.
    pub fn push(&mut self, features: &[f64]) -> Result<RecordVerdict, AnomalyError> {
        let wanted = self.kinds.len();
        if features.len() != wanted {
            return Err(AnomalyError::Length { name: "features", found: features.len(), wanted });
        }
        for ((bin, &kind), &value) in self.bins.iter_mut().zip(&self.kinds).zip(features) {
            *bin = bin_of(kind, value);
        }
        let prior = [0, 1].map(|class| self.totals[class] + BINS as f64 * PRIOR);
        let (mut score, mut typical, mut rarity) =
            (0.0, libm::log((self.totals[0] + 1.0) / (self.totals[1] + 1.0)), 0.0);
        let (mut most, mut strongest) = (0.0, 0);
        for (feature, &bin) in self.bins.iter().enumerate() {
            let seen = [0, 1].map(|class| f64::from(self.weights[place(wanted, class, feature, bin)]));
            let surprise = [0, 1].map(|class| -libm::log((seen[class] + PRIOR) / prior[class]));
            let counted = surprise[0].min(SURPRISE_MAX);
            score += counted;
            self.surprises[feature] = counted;
            if counted > most {
                (most, strongest) = (counted, feature);
            }
            typical += surprise[1] - surprise[0];
            if self.kinds[feature] == FeatureKind::Category {
                rarity -= libm::log((seen[0] + seen[1] + 0.5) / (self.records as f64 + 1.0));
            }
        }
        score -= OTHER * typical;
        let learning = self.records < WARM_RECORDS;
        self.records = (self.records + 1).min(RECORDS_MAX);
        if learning {
            self.rarity += (rarity - self.rarity) / self.records as f64;
            typical = self.rarity - STRICTER - rarity;
        }
        let verdict = RecordVerdict { score, learning, strongest, typical };
        let share = 1.0 / (1.0 + libm::exp((-typical).clamp(-50.0, 50.0)));
        for (class, share) in [share, 1.0 - share].into_iter().enumerate() {
            self.totals[class] += share;
            for (feature, &bin) in self.bins.iter().enumerate() {
                let weight = &mut self.weights[place(wanted, class, feature, bin)];
                *weight = (f64::from(*weight) + share) as f32;
            }
        }
        // Small floats count to 2^24: before that, all is halved, which also forgets.
        if self.totals[0] + self.totals[1] >= HALVED_FROM {
            self.weights.iter_mut().for_each(|weight| *weight *= 0.5);
            self.totals = self.totals.map(|total| total * 0.5);
            self.records /= 2;
        }
        Ok(verdict)
    }

    /// The features of the last record that say most, the least typical first, at most as many as there is room for. How many there are.
    pub fn witnesses(&self, room: &mut [FeatureWitness]) -> usize {
        let mut count = 0;
        for (feature, &surprise) in self.surprises.iter().enumerate() {
            let at = room[..count].partition_point(|other| other.surprise >= surprise);
            if at < room.len() {
                count = (count + 1).min(room.len());
                room[at..count].rotate_right(1);
                room[at] = self.witness(feature, surprise);
            }
        }
        count
    }

    fn witness(&self, feature: usize, surprise: f64) -> FeatureWitness {
        let first = place(self.kinds.len(), 0, feature, 0);
        let weights = &self.weights[first..first + BINS];
        let total = self.totals[0].max(f64::MIN_POSITIVE);
        let usual = (0..BINS).fold(0, |best, bin| if weights[bin] > weights[best] { bin } else { best });
        FeatureWitness {
            feature,
            surprise,
            share: f64::from(weights[usize::from(self.bins[feature])]) / total,
            usual: value_of(self.kinds[feature], usual as u8),
            usual_share: f64::from(weights[usual]) / total,
        }
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        let written = self.clone().walk(&mut Saver(words));
        debug_assert_eq!(written, Ok(()));
    }

    /// Takes over a state saved by a detector of the same features.
    ///
    /// # Errors
    /// [`AnomalyError::State`] when the words are no such state; then nothing has changed.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), AnomalyError> {
        let mut restored = Self::new(&self.kinds)?;
        restored.walk(words)?;
        *self = restored;
        Ok(())
    }

    fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.singles(&mut self.weights)?;
        walk.floats(&mut self.totals)?;
        walk.count(&mut self.records, RECORDS_MAX)?;
        walk.float(&mut self.rarity)?;
        let fits = |value: f64| (0.0..=HALVED_FROM).contains(&value);
        if self.weights.iter().all(|&weight| fits(f64::from(weight))) && self.totals.into_iter().all(fits) {
            Ok(())
        } else {
            Err(AnomalyError::State { problem: "a weight out of range" })
        }
    }
}

const RECORDS_MAX: u64 = 1 << 40;
const HALVED_FROM: f64 = 8_388_608.0;

fn place(features: usize, class: usize, feature: usize, bin: u8) -> usize {
    (class * features + feature) * BINS + usize::from(bin)
}

/// The bin of a value, under [`BINS`]; the last is for what is missing.
fn bin_of(kind: FeatureKind, value: f64) -> u8 {
    const MISSING: u8 = BINS as u8 - 1;
    match kind {
        _ if value.is_nan() => MISSING,
        FeatureKind::Category => (value.clamp(0.0, 1e15) as u64 % BINS as u64) as u8,
        FeatureKind::Count if value < 0.0 => MISSING,
        FeatureKind::Count => libm::log2(1.0 + value.min(1e30)).round() as u8,
        FeatureKind::Share => (value.clamp(0.0, 1.0) * SHARE_STEPS).round() as u8,
    }
}

/// The middle of a bin.
fn value_of(kind: FeatureKind, bin: u8) -> f64 {
    match kind {
        _ if bin == BINS as u8 - 1 => f64::NAN,
        FeatureKind::Category => f64::from(bin),
        FeatureKind::Count => libm::exp2(f64::from(bin)) - 1.0,
        FeatureKind::Share => f64::from(bin) / SHARE_STEPS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [FeatureKind; 4] =
        [FeatureKind::Category, FeatureKind::Count, FeatureKind::Share, FeatureKind::Category];

    /// Two kinds of typical records, and nearly a quarter of the records are attacks that share one feature with them.
    fn record(at: u64) -> (Vec<f64>, bool) {
        let word = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let size = (word % 1_000) as f64;
        match word / 1_000 % 9 {
            0..=4 => (vec![0.0, 500.0 + size, 0.0, 1.0], false),
            5 | 6 => (vec![1.0, 5_000.0 + size, 0.1, 1.0], false),
            _ => (vec![2.0, 0.0, 1.0, (word % 2) as f64], true),
        }
    }

    #[test]
    fn what_is_not_like_the_common_kind_scores_higher_though_there_is_much_of_it() {
        let mut detector = RecordDetector::new(&KINDS).unwrap();
        let (mut attacks, mut typical) = (Vec::new(), Vec::new());
        for at in 0..5_000 {
            let (features, attack) = record(at);
            let verdict = detector.push(&features).unwrap();
            assert_eq!(verdict.learning, at < 300);
            if at >= 500 {
                if attack { &mut attacks } else { &mut typical }.push(verdict.score);
            }
        }
        assert!(attacks.len() > 800);
        let below = |score: f64| typical.iter().filter(|&&other| other < score).count();
        let right: usize = attacks.iter().map(|&score| below(score)).sum();
        let share = right as f64 / (attacks.len() * typical.len()) as f64;
        assert!(share > 0.95, "{share}");
        let odd = detector.push(&[0.0, 600.0, 0.9, 1.0]).unwrap();
        assert_eq!(odd.strongest, 2, "a share no typical record has");
    }

    #[test]
    fn bins_are_within_bounds_for_every_float() {
        for value in
            [0.0, -0.0, -1.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MIN_POSITIVE, 0.5]
        {
            for kind in [FeatureKind::Category, FeatureKind::Count, FeatureKind::Share] {
                assert!(usize::from(bin_of(kind, value)) < BINS, "{kind:?} {value}");
            }
        }
        assert_eq!(bin_of(FeatureKind::Count, 1e300), bin_of(FeatureKind::Count, f64::INFINITY));
        assert_eq!(bin_of(FeatureKind::Share, 7.0), 10);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let said = |kinds: &[FeatureKind]| RecordDetector::new(kinds).unwrap_err().to_string();
        assert_eq!(said(&[]), "`features` is 0: 1 to 256");
        assert_eq!(said(&[FeatureKind::Count]), "`categories` is 0: 1 or more, to know what is common");
        let mut detector = RecordDetector::new(&KINDS).unwrap();
        let error = detector.push(&[1.0]).unwrap_err().to_string();
        assert_eq!(error, "a record has 1 `features` features, and needs 4");
        assert_eq!(detector.records, 0);
        let mut words = Vec::new();
        detector.save(&mut words);
        words[0] = u64::from((-1.0f32).to_bits());
        let error = detector.restore(&mut Words::new(&words)).unwrap_err();
        assert_eq!(error, AnomalyError::State { problem: "a weight out of range" });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_restored_detector_goes_on_alike(cut in 0u64..600, seed in 0u64..1_000) {
            let mut whole = RecordDetector::new(&KINDS).unwrap();
            (0..cut).for_each(|at| _ = whole.push(&record(seed + at).0));
            let mut words = Vec::new();
            whole.save(&mut words);
            let mut restored = RecordDetector::new(&KINDS).unwrap();
            restored.restore(&mut Words::new(&words)).unwrap();
            for at in cut..cut + 100 {
                let (a, b) = (whole.push(&record(seed + at).0).unwrap(), restored.push(&record(seed + at).0).unwrap());
                prop_assert_eq!(a.score.to_bits(), b.score.to_bits());
                prop_assert!(a.score.is_finite());
            }
        }
    }
}
