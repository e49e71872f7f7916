//! Regimes over bars: which state of the market a key is in, how long its present regime has lasted, and what changed.
//!
//! Three models read the returns of a key's final bars (`close / close before - 1`): a Gaussian hidden Markov model whose
//! parameters follow the stream gives the states' probabilities, calm state first; a label with hysteresis names one; and
//! Bayesian change point detection with a robust model gives the run length and what changed at its start. The scale of
//! it all is learnt from the first bars: until then the row is undefined, which says "still learning".
//!
//! **Invariant:** a row is a function of its key's final bars in order, as each first became final.

use crate::finality::first_final;
use crate::indicators::UNDEFINED;
use crate::regroup::gathered;
use std::fmt;
use std::str::FromStr;
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{Analyzer, BarState, Emit, KeyMeta, Output, Share, ShareError, output_kind};
use tidegate_regime::RegimeError;
use tidegate_regime::state::Words;

mod key;
#[cfg(test)]
mod tests;

pub use key::{CHANGED_CORRELATION, CHANGED_MEAN, CHANGED_VARIANCE, KeyRegime, LEARNING_BARS};

/// Fewest and most states of a [`RegimeSpec`].
pub const STATES: std::ops::RangeInclusive<usize> = 2..=4;

/// What to compute: `hmm:2`, a hidden Markov model of so many states with change point detection beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegimeSpec {
    states: usize,
}

/// Why a text is no [`RegimeSpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no regime model: hmm:2, hmm:3 or hmm:4, a hidden Markov model of so many states")]
pub struct RegimeSpecError {
    /// The text found.
    pub text: String,
}

impl RegimeSpec {
    /// A model of so many states; `None` outside [`STATES`].
    #[must_use]
    pub fn new(states: usize) -> Option<Self> {
        STATES.contains(&states).then_some(Self { states })
    }

    /// States of the model.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states
    }

    /// Names of the columns, in order.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let chances = (0..self.states).map(|state| format!("p_{state}"));
        let rest = [
            "change_probability",
            "run_length",
            "changed",
            "mean",
            "deviation",
            "mean_before",
            "deviation_before",
            "autocorrelation",
            "autocorrelation_before",
            "return",
        ];
        ["state".to_owned()].into_iter().chain(chances).chain(rest.map(str::to_owned)).collect()
    }

    /// Values per row.
    #[must_use]
    pub fn column_count(&self) -> usize {
        11 + self.states
    }
}

impl FromStr for RegimeSpec {
    type Err = RegimeSpecError;

    fn from_str(text: &str) -> Result<Self, RegimeSpecError> {
        let states = text.strip_prefix("hmm:").filter(|number| number.len() == 1);
        let spec = states.and_then(|number| number.parse().ok()).and_then(Self::new);
        spec.ok_or_else(|| RegimeSpecError { text: text.chars().take(60).collect() })
    }
}

/// The text that [`FromStr`] reads.
impl fmt::Display for RegimeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hmm:{}", self.states)
    }
}

/// Emits a row of [`output_kind::VALUES`] per final bar of one stream.
///
/// Which bars count is as for indicators: forming and amended ones do not, nor does a bar that only a late trade or a
/// correction brought about. A key's models are built when its scale is known: that allocates, once per key, some 7 KB.
#[derive(Debug)]
pub struct RegimeAnalyzer {
    stream: u16,
    spec: RegimeSpec,
    keys: Vec<Option<Box<KeyRegime>>>,
}

impl RegimeAnalyzer {
    /// Regimes of the bars of the `stream`-th stream.
    #[must_use]
    pub fn new(stream: u16, spec: RegimeSpec) -> Self {
        Self { stream, spec, keys: Vec::new() }
    }

    /// What it computes.
    #[must_use]
    pub fn spec(&self) -> RegimeSpec {
        self.spec
    }

    /// The row `key` would have if its forming bar closed at `close` (1e-9). State is unchanged.
    #[must_use]
    pub fn peek(&self, key: u32, close: i64) -> Vec<f64> {
        let mut row = [0u64; tidegate_engine::output::OUTPUT_WORDS];
        let state = self.keys.get(key as usize).and_then(Option::as_deref);
        let mut state = state.cloned().unwrap_or_else(|| KeyRegime::new(self.spec));
        state.update(close, &mut row);
        row[..self.spec.column_count()].iter().map(|&word| f64::from_bits(word)).collect()
    }

    fn read(&self, bytes: &[u8]) -> Result<Vec<Option<Box<KeyRegime>>>, SnapshotError> {
        let wrong = |problem| SnapshotError::Section { section: SECTION, problem };
        let (states, words) = snapshot::read::<(u64, Vec<u64>)>(bytes, SECTION)?;
        let correlated = states & CORRELATED != 0;
        if states & !CORRELATED != self.spec.states as u64 {
            return Err(wrong("of a model with other states"));
        }
        let mut keys = Vec::new();
        let mut reader = Words::new(&words);
        while !reader.is_empty() {
            let mut read = || -> Result<Option<Box<KeyRegime>>, RegimeError> {
                if reader.at_most(1)? == 0 {
                    return Ok(None);
                }
                let mut state = Box::new(KeyRegime::new(self.spec));
                state.restore(&mut reader, correlated)?;
                Ok(Some(state))
            };
            keys.push(read().map_err(|_| wrong("not valid state"))?);
        }
        Ok(keys)
    }
}

const SECTION: &str = "regime";
/// Said with the number of states by those who also keep returns for correlations: earlier versions did not.
const CORRELATED: u64 = 1 << 8;

impl Analyzer for RegimeAnalyzer {
    fn on_outputs(&mut self, outputs: &[Output], out: &mut Emit<'_>) {
        for output in outputs {
            let Some(bar) = first_final(output, self.stream) else { continue };
            let key = output.key as usize;
            if key >= self.keys.len() {
                self.keys.resize_with(key + 1, || None);
            }
            let state = self.keys[key].get_or_insert_with(|| Box::new(KeyRegime::new(self.spec)));
            out.push_with(|row| {
                (row.name, row.ts, row.slot, row.key) = (output.name, output.ts, output.slot, output.key);
                (row.kind, row.state, row.cause) = (output_kind::VALUES, BarState::Final as u8, output.cause);
                row.count = self.spec.column_count() as u8;
                state.update(bar.close, &mut row.words);
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
                state.save(&mut words);
            }
        }
        snapshot::append(bytes, &(self.spec.states as u64 | CORRELATED, words));
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

/// An undefined row, or a row to write values into.
fn undefined(row: &mut [u64]) {
    row.fill(UNDEFINED.to_bits());
}
