//! Why a batcher does not start.

use tidegate_gpu::BatchError;
use tidegate_regime::RegimeError;

/// Why a batcher does not start. Every refusal comes before anything is allocated for the classes, or a thread started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BatcherError {
    /// A count of things is out of range.
    #[error("{what}: {found}; allowed are {min} to {max}")]
    Count {
        /// Things counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// Fewest allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// A shape is too large as a whole.
    #[error("class `{class}`: {what} are {a} x {b}; at most {max} are kept")]
    Product {
        /// The class.
        class: String,
        /// What is kept.
        what: &'static str,
        /// One side.
        a: u64,
        /// The other.
        b: u64,
        /// Most allowed.
        max: u64,
    },
    /// A class names a row that is not there.
    #[error("class `{class}`: row {row} is not below {rows}, the number of rows")]
    Row {
        /// The class.
        class: String,
        /// The row.
        row: u32,
        /// Rows there are.
        rows: u32,
    },
    /// A class names a row twice.
    #[error("class `{class}`: row {row} is there twice")]
    Twice {
        /// The class.
        class: String,
        /// The row.
        row: u32,
    },
    /// A history is too short for what is computed from it.
    #[error(
        "class `{class}`: a history of {history} bars is too short for {what}; {least} or more are needed"
    )]
    History {
        /// The class.
        class: String,
        /// Bars kept.
        history: u64,
        /// For what.
        what: &'static str,
        /// Fewest that do.
        least: u64,
    },
    /// A class would be refused each time it is computed.
    #[error("class `{class}`: {error}")]
    Batch {
        /// The class.
        class: String,
        /// Why.
        error: BatchError,
    },
    /// A spectrum would be refused.
    #[error("class `{class}`: {error}")]
    Spectrum {
        /// The class.
        class: String,
        /// Why.
        error: RegimeError,
    },
    /// No device where one is required, or no threads.
    #[error(transparent)]
    Backend(#[from] BatchError),
    /// A thread could not be started.
    #[error("cannot start the thread `{name}`: {reason}")]
    Thread {
        /// Its name.
        name: String,
        /// What the system says.
        reason: String,
    },
}

impl BatcherError {
    pub(crate) fn count(what: &'static str, found: usize, min: u64, max: u64) -> Result<(), Self> {
        let found = found as u64;
        if (min..=max).contains(&found) { Ok(()) } else { Err(Self::Count { what, found, min, max }) }
    }

    pub(crate) fn product(class: &str, what: &'static str, a: usize, b: usize, max: u64) -> Result<(), Self> {
        let (a, b) = (a as u64, b as u64);
        match a.checked_mul(b) {
            Some(product) if product <= max => Ok(()),
            _ => Err(Self::Product { class: class.to_owned(), what, a, b, max }),
        }
    }
}
