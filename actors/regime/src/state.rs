//! States as words: what a model saves is a list of 64-bit words, and reading them back is checked.

use crate::RegimeError;

/// Reads a saved state from its beginning.
#[derive(Debug)]
pub struct Words<'a>(&'a [u64]);

impl<'a> Words<'a> {
    /// A reader of these words.
    #[must_use]
    pub fn new(words: &'a [u64]) -> Self {
        Self(words)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next word.
    ///
    /// # Errors
    /// [`RegimeError::State`] when there is none.
    pub fn word(&mut self) -> Result<u64, RegimeError> {
        let (first, rest) = self.0.split_first().ok_or(RegimeError::State { problem: "cut short" })?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next word, which must be at most `max`.
    ///
    /// # Errors
    /// [`RegimeError::State`] when there is none or it is over.
    pub fn at_most(&mut self, max: u64) -> Result<u64, RegimeError> {
        let word = self.word()?;
        if word <= max { Ok(word) } else { Err(RegimeError::State { problem: "a count out of range" }) }
    }

    /// The next word as a count that leaves room to count on.
    ///
    /// # Errors
    /// [`RegimeError::State`] when there is none or it is over 2^62.
    pub fn count(&mut self) -> Result<u64, RegimeError> {
        self.at_most(1 << 62)
    }

    /// The next word as a float that is no NaN.
    ///
    /// # Errors
    /// [`RegimeError::State`] when there is none or it is NaN.
    pub fn float(&mut self) -> Result<f64, RegimeError> {
        let value = f64::from_bits(self.word()?);
        if value.is_nan() { Err(RegimeError::State { problem: "not a number" }) } else { Ok(value) }
    }

    /// Fills `values` with floats that are no NaN.
    ///
    /// # Errors
    /// [`RegimeError::State`] when there are too few or one is NaN.
    pub fn floats(&mut self, values: &mut [f64]) -> Result<(), RegimeError> {
        values.iter_mut().try_for_each(|value| self.float().map(|found| *value = found))
    }

    /// Fills `values` with floats, NaN for missing ones included.
    ///
    /// # Errors
    /// [`RegimeError::State`] when there are too few.
    pub fn sparse(&mut self, values: &mut [f64]) -> Result<(), RegimeError> {
        values.iter_mut().try_for_each(|value| self.word().map(|word| *value = f64::from_bits(word)))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`RegimeError::State`] when something is.
    pub fn end(self) -> Result<(), RegimeError> {
        if self.0.is_empty() { Ok(()) } else { Err(RegimeError::State { problem: "longer than the state" }) }
    }
}

/// Appends floats as words.
pub(crate) fn push(words: &mut Vec<u64>, values: &[f64]) {
    words.extend(values.iter().map(|value| value.to_bits()));
}
