//! The parts of the consensus: what of a series is watched, each a number per row made from the rows so far.

use super::predictor::{LAGS, Predictor};
use super::season::{Season, Slot};
use crate::AnomalyError;
use crate::state::Walk;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The value.
    Value,
    /// Its logarithm, with its sign: small values matter as large ones do.
    Logarithm,
    /// Mean of some 4, 12, 40 and 120 rows.
    Mean4,
    /// See [`Part::Mean4`].
    Mean12,
    /// See [`Part::Mean4`].
    Mean40,
    /// See [`Part::Mean4`].
    Mean120,
    /// Change since the row before.
    Step,
    /// Change since 24 rows before.
    Step24,
    /// Mean of some 4 rows against that of some 40.
    Shift4,
    /// Mean of some 12 rows against that of some 120.
    Shift12,
    /// Difference from this hour of the day.
    HourOfDay,
    /// The same, mean of some 12 rows.
    HourOfDayMean,
    /// Difference from this hour of the week.
    HourOfWeek,
    /// Error of a small model's prediction.
    Prediction,
    /// Logarithm of the mean step of some 24 rows: unrest, and unusual calm.
    Unrest,
}

/// How many parts there are.
pub const PARTS: usize = 15;

impl Part {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; PARTS] = [
        Self::Value,
        Self::Logarithm,
        Self::Mean4,
        Self::Mean12,
        Self::Mean40,
        Self::Mean120,
        Self::Step,
        Self::Step24,
        Self::Shift4,
        Self::Shift12,
        Self::HourOfDay,
        Self::HourOfDayMean,
        Self::HourOfWeek,
        Self::Prediction,
        Self::Unrest,
    ];

    /// What it is, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Logarithm => "logarithm of the value",
            Self::Mean4 => "mean of some 4 rows",
            Self::Mean12 => "mean of some 12 rows",
            Self::Mean40 => "mean of some 40 rows",
            Self::Mean120 => "mean of some 120 rows",
            Self::Step => "change since the row before",
            Self::Step24 => "change since 24 rows before",
            Self::Shift4 => "mean of some 4 rows less that of 40",
            Self::Shift12 => "mean of some 12 rows less that of 120",
            Self::HourOfDay => "difference from this hour of the day",
            Self::HourOfDayMean => "difference from the hours of the day, mean of some 12 rows",
            Self::HourOfWeek => "difference from this hour of the week",
            Self::Prediction => "error of a small model",
            Self::Unrest => "logarithm of the mean step of some 24 rows",
        }
    }

    /// Whether it is measured from the first value of its series.
    pub(super) const fn is_level(self) -> bool {
        matches!(self, Self::Mean4 | Self::Mean12 | Self::Mean40 | Self::Mean120)
    }
}

/// Rows that the means look back, about.
const MEANS: [f64; 4] = [4.0, 12.0, 40.0, 120.0];
const RESIDUAL_ROWS: f64 = 12.0;
const UNREST_ROWS: f64 = 24.0;
/// Rows that level, spread and step in the long run look back.
const LONG_ROWS: f64 = 1_000.0;
const MODEL_ROWS: f64 = 1_500.0;
/// Values kept one by one.
const RING: usize = 24;
/// Rows after which a level is moved by outliers only so far.
const ROBUST_FROM: u64 = 30;
/// That far, in spreads.
const ROBUST_SPREADS: f64 = 4.0;
/// A calm stream is not calmer than this share of its usual step.
const CALM: f64 = 1e-6;
/// Below these shares of its level and range a value is zero to the logarithm.
const ZERO_OF_LEVEL: f64 = 1e-3;
const ZERO_OF_RANGE: f64 = 1e-4;

/// Everything the parts are made from.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    rows: u64,
    /// The first value; all but the value itself is measured from it, so that small floats do for the season.
    origin: f64,
    means: [f64; 4],
    last: f64,
    /// The latest values, as singles; a place is `row % RING`.
    ring: [f32; RING],
    season: Season,
    residual: f64,
    unrest: f64,
    unrest_long: f64,
    level: f64,
    spread: f64,
    /// What counts as zero to the logarithm; 0 until known.
    zero: f64,
    mean: f64,
    variance: f64,
    predictor: Predictor,
    error: f64,
}

/// One row's parts; a part that has nothing to say yet is `None`.
pub(super) struct Row {
    pub(super) parts: [Option<f64>; PARTS],
    /// What the small model expected.
    pub(super) expected: f64,
    /// Its usual error, as of the rows before.
    pub(super) spread: f64,
}

impl Parts {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            origin: 0.0,
            means: [0.0; 4],
            last: 0.0,
            ring: [0.0; RING],
            season: Season::EMPTY,
            residual: 0.0,
            unrest: 0.0,
            unrest_long: 0.0,
            level: 0.0,
            spread: 0.0,
            zero: 0.0,
            mean: 0.0,
            variance: 0.0,
            predictor: Predictor::default(),
            error: 0.0,
        }
    }

    /// The first value, which levels are measured from.
    pub(super) fn origin(&self) -> f64 {
        self.origin
    }

    /// Takes a finite value; `range` is the width of all values so far, once it is known.
    pub(super) fn push(&mut self, slot: Slot, value: f64, range: Option<f64>) -> Row {
        if self.rows == 0 {
            self.origin = value;
        }
        self.rows += 1;
        let (raw, value) = (value, value - self.origin);
        let newest = 1.0 / self.rows as f64;
        let weight = |rows: f64| newest.max(1.0 / rows);
        let mut parts = [None; PARTS];
        let mut put = |part: Part, value: f64| parts[part as usize] = Some(value);

        put(Part::Value, raw);
        let step = value - self.last;
        put(Part::Step, step);
        for (mean, rows) in self.means.iter_mut().zip(MEANS) {
            *mean += weight(rows) * (value - *mean);
        }
        put(Part::Mean4, self.means[0]);
        put(Part::Mean12, self.means[1]);
        put(Part::Mean40, self.means[2]);
        put(Part::Mean120, self.means[3]);
        put(Part::Shift4, self.means[0] - self.means[2]);
        put(Part::Shift12, self.means[1] - self.means[3]);
        let place = (self.rows - 1) as usize % RING;
        if self.rows > RING as u64 {
            put(Part::Step24, value - f64::from(self.ring[place]));
        }

        let of_day = self.season.of_day(slot);
        if let Some(usual) = of_day {
            let residual = value - usual;
            self.residual += weight(RESIDUAL_ROWS) * (residual - self.residual);
            put(Part::HourOfDay, residual);
            put(Part::HourOfDayMean, self.residual);
        }
        if let Some(usual) = self.season.of_week(slot) {
            put(Part::HourOfWeek, value - usual);
        }

        self.unrest += weight(UNREST_ROWS) * (step.abs() - self.unrest);
        if self.unrest_long > 0.0 {
            put(Part::Unrest, libm::log(self.unrest + CALM * self.unrest_long));
        }
        self.unrest_long += weight(LONG_ROWS) * (step.abs() - self.unrest_long);

        if self.zero == 0.0
            && let Some(range) = range
        {
            self.zero = ZERO_OF_LEVEL * (self.origin + self.level).abs() + ZERO_OF_RANGE * range;
        }
        if self.zero > 0.0 {
            put(Part::Logarithm, libm::log1p(raw.abs() / self.zero).copysign(raw));
        }

        let deviation = self.variance.sqrt() + 1e-9 * (self.origin + self.mean).abs() + f64::MIN_POSITIVE;
        let scale = |value: f64| (value - self.mean) / deviation;
        let mut inputs = [0.0; LAGS + 1];
        for (lag, input) in inputs[..LAGS].iter_mut().enumerate() {
            if self.rows > lag as u64 + 1 {
                *input = scale(f64::from(self.ring[(place + RING - 1 - lag) % RING]));
            }
        }
        inputs[LAGS] = of_day.map_or(0.0, scale);
        let prediction = self.predictor.predict(inputs);
        let expected = self.mean + deviation * prediction.score;
        put(Part::Prediction, value - expected);
        self.predictor.learn(&prediction, scale(value));

        let row = Row { parts, expected: self.origin + expected, spread: self.error };
        self.error += weight(LONG_ROWS) * ((value - expected).abs() - self.error);
        self.mean += weight(MODEL_ROWS) * (value - self.mean);
        self.variance += weight(MODEL_ROWS) * ((value - self.mean).powi(2) - self.variance);
        let limit = if self.rows > ROBUST_FROM { ROBUST_SPREADS * self.spread } else { f64::INFINITY };
        let away = (value - self.level).clamp(-limit, limit);
        self.level += weight(LONG_ROWS) * away;
        self.spread += weight(LONG_ROWS) * (away.abs() - self.spread);
        self.season.push(slot, value);
        self.ring[place] = value as f32;
        self.last = value;
        row
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.count(&mut self.rows, 1 << 62)?;
        walk.float(&mut self.origin)?;
        walk.floats(&mut self.means)?;
        walk.singles(&mut self.ring)?;
        self.season.walk(walk)?;
        for field in [
            &mut self.last,
            &mut self.residual,
            &mut self.unrest,
            &mut self.unrest_long,
            &mut self.level,
            &mut self.spread,
            &mut self.zero,
            &mut self.mean,
            &mut self.variance,
            &mut self.error,
        ] {
            walk.float(field)?;
        }
        self.predictor.walk(walk)?;
        let positive = [self.unrest, self.unrest_long, self.spread, self.zero, self.variance, self.error];
        if positive.iter().all(|&field| field >= 0.0) {
            Ok(())
        } else {
            Err(AnomalyError::State { problem: "a spread below zero" })
        }
    }
}
