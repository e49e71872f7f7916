//! What an anomaly or a change of regime in a stream rests on, kept so that it can be judged again: the state of its key's detector or
//! models some rows before, and the rows since.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidegate_actors::regime::{KeyRegime, RegimeSpec};
use tidegate_anomaly::state::Words;
use tidegate_anomaly::{SeriesDetector, SeriesOptions};
use tidegate_engine::output::OUTPUT_WORDS;

/// Rows that are judged again.
pub(crate) const ROWS_MAX: usize = 60;
/// Longest document, bytes.
pub(crate) const BYTES_MAX: u64 = 64 << 10;
/// What such an input says of itself among its options.
pub(crate) const WHAT: (&str, &str) = ("what", "series");
/// What is written, and read. The first version had no returns for correlations in the state of regimes.
const VERSION: u32 = 2;
const FIRST: u32 = 1;

/// The score of an alert whose row scored so high: `1 - 0.2 * threshold / score`.
pub(crate) fn alert_score(threshold: f64, score: f64) -> f64 {
    1.0 - 0.2 * threshold / score
}

/// The document. Numbers of 64 bits are hexadecimal text, so that every reader gets all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Series {
    v: u32,
    pub(crate) stream: String,
    pub(crate) key: String,
    /// Models of regimes, as `hmm:2`; an anomaly has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) regime: Option<String>,
    /// Bits of the score from which a row is an anomaly.
    threshold: String,
    state: Vec<String>,
    /// Seconds since 1970 of a row's beginning (0 for returns), and the bits of its value; the last one is what was found.
    rows: Vec<(i64, String)>,
}

fn hex(word: u64) -> String {
    format!("{word:016x}")
}

fn unhex(text: &str) -> Result<u64, String> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    word.ok_or_else(|| format!("`{}` is no 64 bits", text.chars().take(20).collect::<String>()))
}

fn detector(threshold: f64) -> Result<SeriesDetector, String> {
    let options = SeriesOptions { threshold, ..SeriesOptions::default() };
    SeriesDetector::new(options).map_err(|error| error.to_string())
}

impl Series {
    /// Reads a document.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !(FIRST..=VERSION).contains(&read.v) {
            return Err(format!(
                "it is of version {}; this program reads versions {FIRST} to {VERSION}",
                read.v
            ));
        }
        if read.rows.len() > ROWS_MAX {
            return Err(format!("it has {} rows, where {ROWS_MAX} are the most", read.rows.len()));
        }
        Ok(read)
    }

    /// The bytes of the document.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Rows in it.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Judges the rows again: the score of the last one as alerts have it; `None` where it is no alert.
    pub(crate) fn judge(&self) -> Result<Option<f64>, String> {
        let words = self.state.iter().map(|word| unhex(word)).collect::<Result<Vec<u64>, _>>()?;
        let mut rows = Vec::with_capacity(self.rows.len());
        for (seconds, value) in &self.rows {
            rows.push((*seconds, f64::from_bits(unhex(value)?)));
        }
        match &self.regime {
            Some(spec) => {
                let spec: RegimeSpec = spec.parse().map_err(|error| format!("{error}"))?;
                regime_again(spec, &words, self.v > FIRST, &rows)
            }
            None => anomaly_again(f64::from_bits(unhex(&self.threshold)?), &words, &rows),
        }
    }
}

const LONGER: &str = "its state is longer than one";

fn anomaly_again(threshold: f64, words: &[u64], rows: &[(i64, f64)]) -> Result<Option<f64>, String> {
    let mut detector = detector(threshold)?;
    let mut reader = Words::new(words);
    detector.restore(&mut reader).map_err(|error| error.to_string())?;
    if !reader.is_empty() {
        return Err(LONGER.to_owned());
    }
    let score = rows.iter().fold(0.0, |_, &(seconds, value)| detector.push(seconds, value).score);
    Ok((score >= threshold).then(|| alert_score(threshold, score)))
}

/// The probability of the last row's state, where it is another than that of the row before.
fn regime_again(
    spec: RegimeSpec,
    words: &[u64],
    correlated: bool,
    rows: &[(i64, f64)],
) -> Result<Option<f64>, String> {
    let mut models = KeyRegime::new(spec);
    let mut reader = tidegate_regime::state::Words::new(words);
    models.restore(&mut reader, correlated).map_err(|error| error.to_string())?;
    if !reader.is_empty() {
        return Err(LONGER.to_owned());
    }
    let (mut row, mut before) = ([0; OUTPUT_WORDS], f64::NAN);
    for &(_, value) in rows {
        before = f64::from_bits(row[0]);
        models.take(value, &mut row);
    }
    let state = f64::from_bits(row[0]);
    let changed = rows.len() > 1 && state.is_finite() && before.is_finite() && state != before;
    Ok(changed.then(|| f64::from_bits(row[1 + state as usize])))
}

/// A row as the engine gave it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Row<'a> {
    /// When its bar was opened in seconds since 1970, its value, its score and what was expected; NaN for none.
    Anomaly { opened: f64, value: f64, score: f64, expected: f64 },
    /// All its values, the return last.
    Regime(&'a [f64]),
}

#[derive(Debug, Clone)]
enum Model {
    Anomaly(Box<SeriesDetector>),
    Regime(RegimeSpec, Box<KeyRegime>),
}

impl Model {
    fn save(&self, words: &mut Vec<u64>) {
        match self {
            Self::Anomaly(detector) => detector.save(words),
            Self::Regime(_, models) => models.save(words),
        }
    }

    fn pass(&mut self, seconds: i64, value: f64) {
        match self {
            Self::Anomaly(detector) => {
                detector.push(seconds, value);
            }
            Self::Regime(_, models) => models.take(value, &mut [0; OUTPUT_WORDS]),
        }
    }
}

/// Judges the rows of a key beside the engine, so that its state some rows ago is known: twice what the engine spends on a row, and
/// under 6 KiB for anomalies, 16 KiB for regimes.
#[derive(Debug, Clone)]
pub(crate) struct Shadow {
    now: Model,
    before: Model,
    /// Since `before`.
    rows: VecDeque<(i64, f64)>,
    /// Its rows are not those that this has seen: it began earlier, or some were lost.
    astray: bool,
}

impl Shadow {
    /// For a key that has had no row yet, and whose score is an anomaly from the threshold on.
    pub(crate) fn anomaly(threshold: f64) -> Option<Self> {
        Some(Self::of(Model::Anomaly(Box::new(detector(threshold).ok()?))))
    }

    /// The same for regimes.
    pub(crate) fn regime(spec: RegimeSpec) -> Self {
        Self::of(Model::Regime(spec, Box::new(KeyRegime::new(spec))))
    }

    fn of(now: Model) -> Self {
        Self { before: now.clone(), now, rows: VecDeque::with_capacity(ROWS_MAX), astray: false }
    }

    /// Takes a row.
    pub(crate) fn take(&mut self, row: Row<'_>) {
        if self.astray {
            return;
        }
        let (seconds, value) = match row {
            Row::Anomaly { opened, value, .. } => (opened as i64, value),
            Row::Regime(values) => (0, values.last().copied().unwrap_or(f64::NAN)),
        };
        if self.rows.len() == ROWS_MAX
            && let Some((seconds, value)) = self.rows.pop_front()
        {
            self.before.pass(seconds, value);
        }
        self.rows.push_back((seconds, value));
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || !(a.is_finite() || b.is_finite());
        self.astray = !match (&mut self.now, row) {
            (Model::Anomaly(detector), Row::Anomaly { opened, value, score, expected }) => {
                let verdict = detector.push(seconds, value);
                // While it learns the engine gives no score.
                let scored = score.is_nan() || score.to_bits() == verdict.score.to_bits();
                opened.is_finite() && scored && same(expected, verdict.expected)
            }
            (Model::Regime(spec, models), Row::Regime(values)) => {
                let mut own = [0; OUTPUT_WORDS];
                models.take(value, &mut own);
                values.len() == spec.column_count()
                    && values.iter().zip(own).all(|(&value, own)| same(value, f64::from_bits(own)))
            }
            (Model::Anomaly(_), Row::Regime(_)) | (Model::Regime(..), Row::Anomaly { .. }) => false,
        };
    }

    /// What the last row rests on; `None` where the key's rows are not known from its beginning.
    pub(crate) fn evidence(&self, stream: &str, key: &str) -> Option<Series> {
        let mut words = Vec::new();
        self.before.save(&mut words);
        let (regime, threshold) = match &self.now {
            Model::Anomaly(detector) => (None, detector.options().threshold),
            Model::Regime(spec, _) => (Some(spec.to_string()), 0.0),
        };
        (!self.astray).then(|| Series {
            v: VERSION,
            stream: stream.to_owned(),
            key: key.to_owned(),
            regime,
            threshold: hex(threshold.to_bits()),
            state: words.into_iter().map(hex).collect(),
            rows: self.rows.iter().map(|(seconds, value)| (*seconds, hex(value.to_bits()))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(row: u64) -> f64 {
        let noise = (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64;
        10.0 + noise + if row == 700 { 40.0 } else { 0.0 }
    }

    #[test]
    fn a_score_is_reached_again_from_the_state_before() {
        let mut engine = detector(1.25).unwrap();
        let mut shadow = Shadow::anomaly(1.25).unwrap();
        for row in 0..=700 {
            let opened = 1_700_000_000 + row * 60;
            let verdict = engine.push(opened as i64, value(row));
            let given = Row::Anomaly {
                opened: opened as f64,
                value: value(row),
                score: verdict.score,
                expected: verdict.expected,
            };
            shadow.take(given);
            assert!(!shadow.astray, "row {row}");
            if row == 700 {
                assert!(verdict.score > 1.25, "{verdict:?}");
                let series = shadow.evidence("anomaly.1m", "BTC").unwrap();
                let bytes = series.bytes();
                assert!((bytes.len() as u64) < BYTES_MAX / 4, "{} bytes", bytes.len());
                let read = Series::read(&bytes).unwrap();
                assert_eq!((&read, read.rows()), (&series, ROWS_MAX as u64));
                let score = alert_score(1.25, verdict.score);
                assert_eq!(read.judge().unwrap().map(f64::to_bits), Some(score.to_bits()));
            }
        }
        // Another value is another score.
        let mut series = shadow.evidence("anomaly.1m", "BTC").unwrap();
        let as_it_was = series.judge().unwrap();
        series.rows.last_mut().unwrap().1 = hex(11.0f64.to_bits());
        assert_ne!(series.judge().unwrap(), as_it_was);
        for broken in [&b"{}"[..], b"", br#"{"v":2}"#] {
            assert!(Series::read(broken).is_err());
        }
        series.state.pop();
        assert!(series.judge().is_err());
    }

    #[test]
    fn rows_from_the_middle_prove_nothing() {
        let mut engine = detector(1.25).unwrap();
        let mut shadow = Shadow::anomaly(1.25).unwrap();
        for row in 0..400 {
            let opened = 1_700_000_000 + row * 60;
            let verdict = engine.push(opened as i64, value(row));
            let given = Row::Anomaly {
                opened: opened as f64,
                value: value(row),
                score: verdict.score,
                expected: verdict.expected,
            };
            if row >= 50 {
                shadow.take(given);
            }
        }
        assert!(shadow.astray && shadow.evidence("anomaly.1m", "BTC").is_none());
    }

    #[test]
    fn a_change_of_regime_is_reached_again_from_the_models_before() {
        let spec: RegimeSpec = "hmm:2".parse().unwrap();
        let (mut engine, mut shadow) = (KeyRegime::new(spec), Shadow::regime(spec));
        let (mut row, mut before, mut changes) = ([0u64; OUTPUT_WORDS], f64::NAN, 0);
        for at in 0..900u64 {
            let noise = value(at) - 10.5;
            let change = if at == 0 { f64::NAN } else { noise * if at % 600 < 300 { 0.001 } else { 0.02 } };
            engine.take(change, &mut row);
            let values: Vec<f64> =
                row[..spec.column_count()].iter().map(|&word| f64::from_bits(word)).collect();
            shadow.take(Row::Regime(&values));
            assert!(!shadow.astray, "row {at}");
            let state = values[0];
            if state.is_finite() && before.is_finite() && state != before {
                changes += 1;
                let series = shadow.evidence("regime.1m", "BTC").unwrap();
                let bytes = series.bytes();
                assert!((bytes.len() as u64) < BYTES_MAX, "{} bytes", bytes.len());
                let again = Series::read(&bytes).unwrap().judge().unwrap();
                assert_eq!(again.map(f64::to_bits), Some(values[1 + state as usize].to_bits()));
                // A row on it is no change any more.
                let mut longer = series.clone();
                longer.rows.push((0, hex(0.0f64.to_bits())));
                assert_ne!(longer.judge().unwrap(), again);
            }
            before = state;
        }
        assert!(changes >= 2, "{changes} changes");
        assert!(
            Series { regime: Some("hmm:9".to_owned()), ..shadow.evidence("r", "k").unwrap() }
                .judge()
                .is_err()
        );
        // One return that the engine did not see, and nothing can be proved.
        shadow.take(Row::Regime(&[0.0; 13]));
        assert!(shadow.evidence("regime.1m", "BTC").is_none());
    }
}
