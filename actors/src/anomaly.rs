//! Anomalies over bars: whether what a key's bar says is unlike everything it has said, and what was expected instead.
//!
//! One number of every final bar goes to a [`SeriesDetector`]: a consensus of cheap parts that adapts to the season of the
//! day and the week (in UTC), with one configuration for all keys. Until it has learnt, the state says so and the score is
//! undefined.
//!
//! **Invariant:** a row is a function of its key's final bars in order, as each first became final.

use crate::finality::first_final;
use crate::indicators::UNDEFINED;
use crate::regroup::gathered;
use std::fmt;
use std::str::FromStr;
use tidegate_anomaly::state::Words;
use tidegate_anomaly::{SeriesDetector, SeriesOptions, SeriesState, Verdict};
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{Analyzer, BarState, BarWords, Emit, KeyMeta, Output, Share, ShareError, output_kind};

#[cfg(test)]
mod tests;

/// Which number of a bar is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Close by the close before, less one.
    Return,
    /// High less low, in units of the quote currency.
    Range,
    /// Volume.
    Volume,
    /// Number of trades.
    Trades,
}

impl Measure {
    /// All of them, with the names people write.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("return", Self::Return),
        ("range", Self::Range),
        ("volume", Self::Volume),
        ("trades", Self::Trades),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, measure)| *measure == self).map_or("", |(name, _)| name)
    }
}

/// What to judge: `volume`, or `volume:2.5` with the score from which a bar is an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnomalySpec {
    measure: Measure,
    /// In hundredths, so that a text has one meaning.
    threshold: u32,
}

/// Why a text is no [`AnomalySpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no anomaly detector: return, range, volume or trades, with a threshold of 0.01 to 15 if need be, as volume:1.5"
)]
pub struct AnomalySpecError {
    /// The text found.
    pub text: String,
}

impl AnomalySpec {
    /// Names of the columns, in order.
    pub const COLUMNS: [&'static str; 9] =
        ["state", "score", "chance", "value", "expected", "spread", "evidence", "strongest", "opened"];

    /// This measure, with the usual threshold.
    #[must_use]
    pub fn new(measure: Measure) -> Self {
        Self { measure, threshold: (SeriesOptions::default().threshold * HUNDREDTHS).round() as u32 }
    }

    /// Which number of a bar it judges.
    #[must_use]
    pub fn measure(&self) -> Measure {
        self.measure
    }

    /// Score from which a bar is an alert.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        f64::from(self.threshold) / HUNDREDTHS
    }

    fn detector(&self) -> SeriesDetector {
        let options = SeriesOptions { threshold: self.threshold(), ..SeriesOptions::default() };
        SeriesDetector::new(options).expect("a threshold above zero was read, and the rest is the usual")
    }
}

const HUNDREDTHS: f64 = 100.0;
const THRESHOLDS: std::ops::RangeInclusive<f64> = 0.01..=15.0;

impl FromStr for AnomalySpec {
    type Err = AnomalySpecError;

    fn from_str(text: &str) -> Result<Self, AnomalySpecError> {
        let (name, threshold) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let measure = Measure::NAMES.iter().find(|(known, _)| *known == name).map(|(_, measure)| *measure);
        let usual = measure.map(Self::new);
        let spec = match threshold {
            None => usual,
            Some(number) => number
                .parse::<f64>()
                .ok()
                .filter(|value| THRESHOLDS.contains(value))
                .and_then(|value| Some(Self { threshold: (value * HUNDREDTHS).round() as u32, ..usual? })),
        };
        spec.ok_or_else(|| AnomalySpecError { text: text.chars().take(60).collect() })
    }
}

/// A text that [`FromStr`] reads: without the threshold when it is the usual one.
impl fmt::Display for AnomalySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.measure.name())?;
        if *self == Self::new(self.measure) { Ok(()) } else { write!(f, ":{}", self.threshold()) }
    }
}

/// One key's detector and what it needs from the bar before.
#[derive(Clone, Debug)]
struct KeyAnomaly {
    close: i64,
    detector: SeriesDetector,
}

impl KeyAnomaly {
    fn new(spec: AnomalySpec) -> Self {
        Self { close: 0, detector: spec.detector() }
    }

    /// Takes a final bar and writes the row.
    fn update(&mut self, measure: Measure, bar: &BarWords, row: &mut [u64]) {
        let value = match measure {
            // A return needs two prices above zero.
            Measure::Return if self.close > 0 && bar.close > 0 => {
                (bar.close as f64 - self.close as f64) / self.close as f64
            }
            Measure::Return => f64::NAN,
            Measure::Range => (bar.high as f64 - bar.low as f64) / PRICE_UNIT,
            Measure::Volume => bar.volume().0 as f64 / VOLUME_UNIT,
            Measure::Trades => bar.trades as f64,
        };
        self.close = bar.close;
        let opened = (bar.ts_open / SECOND_NS) as i64;
        let verdict = self.detector.push(opened, value);
        write(&verdict, value, opened, row);
    }
}

const SECOND_NS: u64 = 1_000_000_000;
const PRICE_UNIT: f64 = 1e9;
const VOLUME_UNIT: f64 = 1e8;

fn write(verdict: &Verdict, value: f64, opened: i64, row: &mut [u64]) {
    let learnt = |number: f64| if verdict.state == SeriesState::Learning { UNDEFINED } else { number };
    let defined = |number: f64| if number.is_finite() { number } else { UNDEFINED };
    let columns = [
        f64::from(verdict.state as u8),
        learnt(verdict.score),
        learnt(verdict.chance),
        defined(value),
        defined(verdict.expected),
        defined(verdict.spread),
        learnt(verdict.evidence),
        verdict.strongest.map_or(UNDEFINED, |part| learnt(f64::from(part as u8))),
        // Seconds fit a double for longer than the calendar goes.
        opened as f64,
    ];
    for (word, column) in row.iter_mut().zip(columns) {
        *word = column.to_bits();
    }
}

/// Emits a row of [`output_kind::VALUES`] per final bar of one stream.
///
/// Which bars count is as for indicators: forming and amended ones do not, nor does a bar that only a late trade or a
/// correction brought about. A key's detector is made at its first bar: that allocates, once per key, 2 KB.
#[derive(Debug)]
pub struct AnomalyAnalyzer {
    stream: u16,
    spec: AnomalySpec,
    keys: Vec<Option<Box<KeyAnomaly>>>,
}

impl AnomalyAnalyzer {
    /// Anomalies of the bars of the `stream`-th stream.
    #[must_use]
    pub fn new(stream: u16, spec: AnomalySpec) -> Self {
        Self { stream, spec, keys: Vec::new() }
    }

    /// What it judges.
    #[must_use]
    pub fn spec(&self) -> AnomalySpec {
        self.spec
    }

    fn read(&self, bytes: &[u8]) -> Result<Vec<Option<Box<KeyAnomaly>>>, SnapshotError> {
        let wrong = |problem| SnapshotError::Section { section: SECTION, problem };
        let (spec, words) = snapshot::read::<(String, Vec<u64>)>(bytes, SECTION)?;
        if spec != self.spec.to_string() {
            return Err(wrong("of another measure or threshold"));
        }
        let mut keys = Vec::new();
        let mut reader = Words::new(&words);
        while !reader.is_empty() {
            let mut read = || {
                if reader.at_most(1)? == 0 {
                    return Ok(None);
                }
                let mut state = Box::new(KeyAnomaly::new(self.spec));
                state.close = reader.word()? as i64;
                state.detector.restore(&mut reader)?;
                Ok(Some(state))
            };
            let state: Result<_, tidegate_anomaly::AnomalyError> = read();
            keys.push(state.map_err(|_| wrong("not valid state"))?);
        }
        Ok(keys)
    }
}

const SECTION: &str = "anomaly";

impl Analyzer for AnomalyAnalyzer {
    fn on_outputs(&mut self, outputs: &[Output], out: &mut Emit<'_>) {
        for output in outputs {
            let Some(bar) = first_final(output, self.stream) else { continue };
            let key = output.key as usize;
            if key >= self.keys.len() {
                self.keys.resize_with(key + 1, || None);
            }
            let state = self.keys[key].get_or_insert_with(|| Box::new(KeyAnomaly::new(self.spec)));
            out.push_with(|row| {
                (row.name, row.ts, row.slot, row.key) = (output.name, output.ts, output.slot, output.key);
                (row.kind, row.state, row.cause) = (output_kind::VALUES, BarState::Final as u8, output.cause);
                row.count = AnomalySpec::COLUMNS.len() as u8;
                state.update(self.spec.measure, bar, &mut row.words);
            });
        }
    }

    fn on_end(&mut self, _: &mut Emit<'_>) {}

    fn save(&self, bytes: &mut Vec<u8>) {
        // Key by key: whether it has a state, and the state.
        let mut words = Vec::new();
        for state in &self.keys {
            words.push(u64::from(state.is_some()));
            if let Some(state) = state {
                words.push(state.close as u64);
                state.detector.save(&mut words);
            }
        }
        snapshot::append(bytes, &(self.spec.to_string(), words));
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.keys = self.read(bytes)?;
        Ok(())
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        self.keys = gathered(keys.len(), shares, |state| self.read(state))?;
        Ok(())
    }
}
