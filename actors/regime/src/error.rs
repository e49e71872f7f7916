//! What can be wrong with parameters, observations and saved states.

/// Why a model cannot be built, fitted or restored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegimeError {
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
    /// A list has the wrong length.
    #[error("`{name}` has {found} values, and needs {wanted}")]
    Length {
        /// Which one.
        name: &'static str,
        /// Values found.
        found: usize,
        /// Values needed.
        wanted: usize,
    },
    /// A row of probabilities does not add up to one.
    #[error("row {row} of `{name}` adds up to {sum}, not to 1")]
    NotStochastic {
        /// Which matrix.
        name: &'static str,
        /// Its row, from 0.
        row: usize,
        /// The sum found.
        sum: f64,
    },
    /// A covariance is not symmetric and positive definite.
    #[error("the covariance of state {state} is not symmetric and positive definite")]
    Covariance {
        /// Whose, from 0.
        state: usize,
    },
    /// An observation is not a finite number where one is needed.
    #[error("observation {index} is {value}, not a finite number")]
    NotFinite {
        /// Its place, from 0.
        index: usize,
        /// What was found.
        value: f64,
    },
    /// Too little to fit a model to.
    #[error("{found} observations are too few: at least {wanted} are needed")]
    TooFew {
        /// How many there are.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// No start led to a model with a finite likelihood.
    #[error("no start led to a model with a finite likelihood")]
    NoFit,
    /// Saved bytes are not a state of this model.
    #[error("not a saved state of this model: {problem}")]
    State {
        /// What does not fit.
        problem: &'static str,
    },
}

impl RegimeError {
    pub(crate) fn check(
        name: &'static str,
        value: f64,
        fits: bool,
        allowed: &'static str,
    ) -> Result<(), Self> {
        if fits && value.is_finite() { Ok(()) } else { Err(Self::Parameter { name, value, allowed }) }
    }

    pub(crate) fn length(name: &'static str, found: usize, wanted: usize) -> Result<(), Self> {
        if found == wanted { Ok(()) } else { Err(Self::Length { name, found, wanted }) }
    }
}
