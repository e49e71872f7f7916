//! States as words: what a detector saves is a list of 64-bit words, and reading them back is checked.
//!
//! Each detector has one walk over its fields, taken both to save and to restore, so the two cannot drift apart.

use crate::AnomalyError;

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
    /// [`AnomalyError::State`] when there is none.
    pub fn word(&mut self) -> Result<u64, AnomalyError> {
        let (first, rest) = self.0.split_first().ok_or(AnomalyError::State { problem: "cut short" })?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next word, which must be at most `max`.
    ///
    /// # Errors
    /// [`AnomalyError::State`] when there is none or it is over.
    pub fn at_most(&mut self, max: u64) -> Result<u64, AnomalyError> {
        let word = self.word()?;
        if word <= max { Ok(word) } else { Err(AnomalyError::State { problem: "a count out of range" }) }
    }
}

/// Visits the fields of a state in order: to write them down, or to take them over.
pub(crate) trait Walk {
    /// A whole number of at most `max`.
    fn count(&mut self, field: &mut u64, max: u64) -> Result<(), AnomalyError>;
    /// A float that is finite.
    fn float(&mut self, field: &mut f64) -> Result<(), AnomalyError>;

    /// Floats that are finite.
    fn floats(&mut self, fields: &mut [f64]) -> Result<(), AnomalyError> {
        fields.iter_mut().try_for_each(|field| self.float(field))
    }

    /// Small floats, two to a word.
    fn singles(&mut self, fields: &mut [f32]) -> Result<(), AnomalyError> {
        for pair in fields.chunks_mut(2) {
            let bits = |at: usize| pair.get(at).map_or(0, |value| u64::from(value.to_bits()));
            let mut word = bits(0) | bits(1) << 32;
            self.count(&mut word, u64::MAX)?;
            for (at, field) in pair.iter_mut().enumerate() {
                *field = f32::from_bits((word >> (32 * at)) as u32);
                if !field.is_finite() {
                    return Err(AnomalyError::State { problem: "not a finite number" });
                }
            }
        }
        Ok(())
    }

    /// Bytes, eight to a word.
    fn bytes(&mut self, fields: &mut [u8]) -> Result<(), AnomalyError> {
        for group in fields.chunks_mut(8) {
            let mut bytes = [0; 8];
            bytes[..group.len()].copy_from_slice(group);
            let mut word = u64::from_le_bytes(bytes);
            self.count(&mut word, u64::MAX)?;
            group.copy_from_slice(&word.to_le_bytes()[..group.len()]);
        }
        Ok(())
    }
}

/// Writes the fields down.
pub(crate) struct Saver<'a>(pub(crate) &'a mut Vec<u64>);

impl Walk for Saver<'_> {
    fn count(&mut self, field: &mut u64, _: u64) -> Result<(), AnomalyError> {
        self.0.push(*field);
        Ok(())
    }

    fn float(&mut self, field: &mut f64) -> Result<(), AnomalyError> {
        self.0.push(field.to_bits());
        Ok(())
    }
}

impl Walk for Words<'_> {
    fn count(&mut self, field: &mut u64, max: u64) -> Result<(), AnomalyError> {
        *field = self.at_most(max)?;
        Ok(())
    }

    fn float(&mut self, field: &mut f64) -> Result<(), AnomalyError> {
        let value = f64::from_bits(self.word()?);
        *field = if value.is_finite() {
            value
        } else {
            return Err(AnomalyError::State { problem: "not a finite number" });
        };
        Ok(())
    }
}
