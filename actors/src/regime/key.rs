//! One key's models and what they say.

use super::{RegimeSpec, undefined};
use crate::indicators::UNDEFINED;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_regime::bocpd::{Gaussian, Robust};
use tidegate_regime::hmm::{Label, OnlineOptions};
use tidegate_regime::state::Words;
use tidegate_regime::{Bocpd, BocpdOptions, GaussianHmm, HmmFilter, RegimeError};

/// Returns from which a key's scale is learnt before anything is said.
pub const LEARNING_BARS: usize = 60;
/// In the column `changed`: the mean differs from that of the regime before.
pub const CHANGED_MEAN: u64 = 1;
/// In the column `changed`: the variance does.
pub const CHANGED_VARIANCE: u64 = 2;

/// In the column `changed`: the correlation of a return with the one before it does.
pub const CHANGED_CORRELATION: u64 = 4;

/// Returns that a correlation is of at most, and those remembered: of the present regime and of the one before.
const CORRELATED_MAX: usize = 64;
const REMEMBERED: usize = 2 * CORRELATED_MAX;
/// Returns that a correlation is of at least.
const CORRELATED_MIN: usize = 8;

/// A change counts as recent for so many bars: it is rarely clear at once.
const RECENT_BARS: u64 = 12;
/// Probability of a recent change from which it is taken for settled.
const SETTLED: f64 = 0.9;
/// Bars by which the start of a regime may move without being another regime.
const SAME_START: u64 = 3;
/// Bars of evidence that the older regime must have had, or there is nothing to compare with.
const COMPARED_MIN: f64 = 4.0;

/// Probability from which a state may be named, and the bars it must hold it.
const LABEL_ENTER: f64 = 0.8;
const LABEL_DWELL: u32 = 3;

/// The models of one key, for those who judge its returns beside the analyzer. Some 7 KB, once the scale is known.
#[derive(Clone, Debug)]
pub struct KeyRegime {
    spec: RegimeSpec,
    close: i64,
    /// Returns of the learning bars.
    learning: Vec<f64>,
    models: Option<Box<Models>>,
}

#[derive(Clone, Debug)]
struct Models {
    /// Returns are divided by it before the models see them.
    scale: f64,
    filter: HmmFilter,
    label: Label,
    runs: Bocpd<Robust>,
    seen: u64,
    /// Where the present regime began, counted in returns seen.
    start: u64,
    /// Mean, deviation and weight of the present regime, as of the last bar that still belonged to it.
    present: [f64; 3],
    /// The same of the one before.
    before: [f64; 3],
    recent: Recent,
    /// Correlation of the regime before with its returns one bar earlier, and of how many it is; NaN and 0 for none.
    correlation_before: [f64; 2],
}

/// The last returns, in a ring.
#[derive(Clone, Debug)]
struct Recent {
    values: [f64; REMEMBERED],
    /// Returns taken in all.
    taken: u64,
}

impl Recent {
    fn new() -> Self {
        Self { values: [0.0; REMEMBERED], taken: 0 }
    }

    fn push(&mut self, value: f64) {
        self.values[(self.taken % REMEMBERED as u64) as usize] = value;
        self.taken += 1;
    }

    /// How many are there.
    fn len(&self) -> usize {
        self.taken.min(REMEMBERED as u64) as usize
    }

    /// The `back`-th newest, from 1.
    fn newest(&self, back: usize) -> f64 {
        self.values[((self.taken - back as u64) % REMEMBERED as u64) as usize]
    }

    /// Correlation of neighbours among the `count` returns that have `skip` newer ones behind them, of [`CORRELATED_MAX`] at most, and of how
    /// many it is; `None` where there are too few, or nothing moved.
    fn correlation(&self, skip: usize, count: usize) -> Option<[f64; 2]> {
        let count = count.min(CORRELATED_MAX).min(self.len().saturating_sub(skip));
        if count < CORRELATED_MIN {
            return None;
        }
        let at = |back: usize| self.newest(skip + back);
        let mean = (1..=count).map(at).sum::<f64>() / count as f64;
        let squares: f64 = (1..=count).map(|back| (at(back) - mean) * (at(back) - mean)).sum();
        let products: f64 = (1..count).map(|back| (at(back) - mean) * (at(back + 1) - mean)).sum();
        let correlation = products / squares;
        correlation.is_finite().then_some([correlation, count as f64])
    }
}

impl KeyRegime {
    /// For a key that has had no bar.
    #[must_use]
    pub fn new(spec: RegimeSpec) -> Self {
        Self { spec, close: 0, learning: Vec::with_capacity(LEARNING_BARS), models: None }
    }

    /// Takes a final bar's close and writes the row.
    pub(super) fn update(&mut self, close: i64, row: &mut [u64; OUTPUT_WORDS]) {
        // A return needs two prices above zero; what has none lets time pass.
        let known = self.close > 0 && close > 0;
        let value = if known { (close - self.close) as f64 / self.close as f64 } else { f64::NAN };
        self.close = close;
        self.take(value, row);
    }

    /// Takes a final bar's return, NaN for none, and writes the row.
    pub fn take(&mut self, value: f64, row: &mut [u64; OUTPUT_WORDS]) {
        let known = !value.is_nan();
        undefined(&mut row[..self.spec.column_count()]);
        if let Some(models) = &mut self.models {
            models.take(value);
        } else if known {
            self.learning.push(value);
            if self.learning.len() == LEARNING_BARS {
                self.models = Models::learn(self.spec, &self.learning).map(Box::new);
                self.learning.clear();
            }
        }
        if let Some(models) = &self.models {
            models.write(&mut row[..self.spec.column_count()]);
        }
        row[self.spec.column_count() - 1] = if known { value } else { UNDEFINED }.to_bits();
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.extend([self.close as u64, self.learning.len() as u64]);
        words.extend(self.learning.iter().map(|value| value.to_bits()));
        words.push(u64::from(self.models.is_some()));
        if let Some(models) = &self.models {
            words.push(models.scale.to_bits());
            models.filter.save(words);
            models.label.save(words);
            models.runs.save(words);
            words.extend([models.seen, models.start]);
            words.extend(models.present.iter().chain(&models.before).map(|value| value.to_bits()));
            let recent = &models.recent;
            words.push(recent.taken);
            words.extend((1..=recent.len()).rev().map(|back| recent.newest(back).to_bits()));
            words.extend(models.correlation_before.map(f64::to_bits));
        }
    }

    /// Takes over a state saved by one of the same model; `correlated` where it has returns for correlations, which earlier versions had not.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such state.
    pub fn restore(&mut self, words: &mut Words<'_>, correlated: bool) -> Result<(), RegimeError> {
        self.close = words.word()? as i64;
        let learning = words.at_most(LEARNING_BARS as u64 - 1)?;
        self.learning.clear();
        for _ in 0..learning {
            self.learning.push(words.float()?);
        }
        if words.at_most(1)? == 0 {
            return Ok(());
        }
        let mut models = Models::new(self.spec, words.float()?)?;
        models.filter.restore(words)?;
        models.label.restore(self.spec.states(), words)?;
        models.runs.restore(words)?;
        models.seen = words.count()?;
        models.start = words.at_most(models.seen)?;
        words.floats(&mut models.present)?;
        words.floats(&mut models.before)?;
        if correlated {
            // Those in the ring have the places that they had.
            let taken = words.at_most(models.seen)?;
            models.recent.taken = taken - taken.min(REMEMBERED as u64);
            for _ in 0..taken.min(REMEMBERED as u64) {
                models.recent.push(words.float()?);
            }
            models.correlation_before = [f64::from_bits(words.word()?), words.float()?];
        }
        self.models = Some(Box::new(models));
        Ok(())
    }
}

impl Models {
    /// Models in the scale of these returns, which they have seen; `None` when nothing moved.
    fn learn(spec: RegimeSpec, returns: &[f64]) -> Option<Self> {
        let mut sizes: Vec<f64> = returns.iter().map(|value| value.abs()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        // The median resists a jump among the first bars; a key that mostly stands still needs the mean square.
        let median = sizes[sizes.len() / 2] / 0.674_489_750_196_081_7;
        let square = (sizes.iter().map(|size| size * size).sum::<f64>() / sizes.len() as f64).sqrt();
        let scale = if median > 0.0 { median } else { square };
        let mut models = Self::new(spec, scale).ok()?;
        returns.iter().for_each(|&value| models.take(value));
        Some(models)
    }

    fn new(spec: RegimeSpec, scale: f64) -> Result<Self, RegimeError> {
        let k = spec.states();
        // States twice as wide as their neighbour, around the scale: the calmest first.
        let width = |state: usize| f64::from(1u32 << state) / f64::from(1u32 << (k - 1)).sqrt();
        let covariances: Vec<f64> = (0..k).map(|state| width(state) * width(state)).collect();
        let leave = 0.03 / (k - 1) as f64;
        let transition: Vec<f64> = (0..k * k).map(|at| if at / k == at % k { 0.97 } else { leave }).collect();
        let model = GaussianHmm::new(&vec![1.0 / k as f64; k], &transition, &vec![0.0; k], &covariances)?;
        let filter = HmmFilter::new(model, 0)?.learning(OnlineOptions::default())?;
        let runs = Robust::new(Gaussian::new(0.0, 1.0, 1.0, 1.0)?, 0.02, 8.0)?;
        let runs =
            Bocpd::new(runs, BocpdOptions { hypotheses_max: 64, prune_below: 1e-5, run_expected: 250.0 })?;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(RegimeError::Parameter { name: "scale", value: scale, allowed: "more than 0" });
        }
        let label = Label::new(LABEL_ENTER, LABEL_DWELL)?;
        Ok(Self {
            scale,
            filter,
            label,
            runs,
            seen: 0,
            start: 0,
            present: [0.0; 3],
            before: [0.0; 3],
            recent: Recent::new(),
            correlation_before: [f64::NAN, 0.0],
        })
    }

    fn take(&mut self, value: f64) {
        let value = value / self.scale;
        self.filter.step(&[value]);
        self.label.update(self.filter.probabilities());
        if !self.runs.push(value) {
            return;
        }
        self.seen += 1;
        self.recent.push(value);
        let (run, statistics) = self.runs.likeliest();
        let start = self.seen - run.min(self.seen);
        let now = [statistics.mean, statistics.variance().min(1e300).sqrt(), statistics.weight];
        if start.abs_diff(self.start) <= SAME_START {
            self.present = now;
        } else if self.runs.change_probability(RECENT_BARS) >= SETTLED || run > RECENT_BARS {
            let of_before = self
                .recent
                .correlation((self.seen - start) as usize, start.saturating_sub(self.start) as usize);
            self.correlation_before = of_before.unwrap_or([f64::NAN, 0.0]);
            (self.before, self.present, self.start) = (self.present, now, start);
        }
    }

    /// Correlation of the present regime's returns with those one bar earlier, and of how many it is.
    fn correlation(&self) -> Option<[f64; 2]> {
        self.recent.correlation(0, (self.seen - self.start) as usize)
    }

    /// What differs between the present regime and the one before, once both have lasted long enough to be compared.
    fn changed(&self) -> u64 {
        let ([mean, deviation, weight], [mean_before, deviation_before, weight_before]) =
            (self.present, self.before);
        if weight.min(weight_before) < COMPARED_MIN {
            return 0;
        }
        let error =
            (deviation * deviation / weight + deviation_before * deviation_before / weight_before).sqrt();
        // A ratio of variances is some two errors off one where its logarithm is over two times this.
        let spread = (2.0 / weight + 2.0 / weight_before).sqrt();
        let ratio = deviation / deviation_before;
        let mut changed = 0;
        if (mean - mean_before).abs() > 2.5 * error {
            changed |= CHANGED_MEAN;
        }
        if ratio.max(1.0 / ratio) > 1.0 + 1.5 * spread {
            changed |= CHANGED_VARIANCE;
        }
        // Of independent returns it is one over the root of their number off.
        if let (Some([correlation, count]), [correlation_before, count_before]) =
            (self.correlation(), self.correlation_before)
            && (correlation - correlation_before).abs() > 2.5 * (1.0 / count + 1.0 / count_before).sqrt()
        {
            changed |= CHANGED_CORRELATION;
        }
        changed
    }

    fn write(&self, row: &mut [u64]) {
        let unless_new = |value: f64| if self.before[2] > 0.0 { value * self.scale } else { UNDEFINED };
        let state = self.label.current().map_or(UNDEFINED, |state| state as f64);
        let values = [
            self.runs.change_probability(RECENT_BARS),
            (self.seen - self.start) as f64,
            self.changed() as f64,
            self.present[0] * self.scale,
            self.present[1] * self.scale,
            unless_new(self.before[0]),
            unless_new(self.before[1]),
            self.correlation().map_or(UNDEFINED, |[correlation, _]| correlation),
            if self.correlation_before[1] > 0.0 { self.correlation_before[0] } else { UNDEFINED },
        ];
        let chances = self.filter.probabilities().iter().copied();
        let all = [state].into_iter().chain(chances).chain(values);
        row.iter_mut().zip(all).for_each(|(word, value)| *word = value.to_bits());
    }
}
