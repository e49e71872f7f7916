//! What can be wrong with parameters, records and saved states.

/// Why a detector cannot be built or restored, or a record not be judged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AnomalyError {
    /// A parameter lies outside its range.
    #[error("`{name}` is {value}: {allowed}")]
    Parameter {
        /// Which one.
        name: &'static str,
        /// What was found.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A record has another number of features than the detector was built for.
    #[error("a record has {found} `{name}` features, and needs {wanted}")]
    Length {
        /// Which kind of features.
        name: &'static str,
        /// Features found.
        found: usize,
        /// Features needed.
        wanted: usize,
    },
    /// Saved words are not a state of this detector.
    #[error("not a saved state of this detector: {problem}")]
    State {
        /// What does not fit.
        problem: &'static str,
    },
}

impl AnomalyError {
    pub(crate) fn check(
        name: &'static str,
        value: f64,
        fits: bool,
        allowed: &'static str,
    ) -> Result<(), Self> {
        if fits && value.is_finite() { Ok(()) } else { Err(Self::Parameter { name, value, allowed }) }
    }
}
