//! Why a request is refused.

/// Why a batch was not computed. Every refusal comes before the first allocation for the request, except
/// [`Self::Solver`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
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
    /// The product of a request's dimensions is too large.
    #[error("{what}: {} of them is more than the {max} a batch may have", factors(.of))]
    Product {
        /// What is multiplied.
        what: &'static str,
        /// The dimensions.
        of: Vec<u64>,
        /// Largest product allowed.
        max: u64,
    },
    /// Two lengths that must agree do not.
    #[error("{what}: length {found}, but {expected} is needed")]
    Length {
        /// What has the length.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length needed.
        expected: usize,
    },
    /// A parameter is out of range or not a number.
    #[error("{name} is {value}; allowed is {allowed}")]
    Parameter {
        /// Which.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// An input holds something that is no number.
    #[error("{what}[{index}] is {value}; every value must be finite")]
    NotFinite {
        /// Which input.
        what: &'static str,
        /// Where in it.
        index: usize,
        /// What is there.
        value: f64,
    },
    /// A row of probabilities does not add up to one.
    #[error("{what}, row {row}: they add up to {sum}, not to 1")]
    NotStochastic {
        /// Which probabilities.
        what: &'static str,
        /// The row.
        row: usize,
        /// What it adds up to.
        sum: f64,
    },
    /// A device is required, and none can be used.
    #[error("a GPU is required: {0}")]
    NoDevice(tidegate_cuda::Unavailable),
    /// A matrix is not positive definite, or not symmetric.
    #[error("{what} is not symmetric and positive definite (row {row})")]
    NotPositive {
        /// Which matrix.
        what: &'static str,
        /// The first row that shows it.
        row: usize,
    },
    /// The optimiser found no optimum.
    #[error("no optimum: {status}")]
    Solver {
        /// What it says.
        status: String,
    },
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system says.
        reason: String,
    },
}

fn factors(of: &[u64]) -> String {
    of.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

impl BatchError {
    pub(crate) fn count(what: &'static str, found: usize, min: u64, max: u64) -> Result<(), Self> {
        let found = found as u64;
        if (min..=max).contains(&found) { Ok(()) } else { Err(Self::Count { what, found, min, max }) }
    }

    pub(crate) fn product(what: &'static str, of: &[u64], max: u64) -> Result<(), Self> {
        let product = of.iter().try_fold(1u64, |product, &factor| product.checked_mul(factor));
        match product {
            Some(product) if product <= max => Ok(()),
            _ => Err(Self::Product { what, of: of.to_vec(), max }),
        }
    }

    pub(crate) fn length(what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(Self::Length { what, found, expected }) }
    }

    /// `fits` is never asked about what is not finite.
    pub(crate) fn parameter(
        name: &'static str,
        value: f64,
        fits: impl Fn(f64) -> bool,
        allowed: &'static str,
    ) -> Result<(), Self> {
        if value.is_finite() && fits(value) { Ok(()) } else { Err(Self::Parameter { name, value, allowed }) }
    }

    pub(crate) fn finite(what: &'static str, values: &[f64]) -> Result<(), Self> {
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Self::NotFinite { what, index, value: values[index] }),
        }
    }
}
