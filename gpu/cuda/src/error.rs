//! Why there is no device, and why one failed.

/// Why no device can be used. Found out once, when one is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The machine has no NVIDIA driver.
    #[error("no NVIDIA driver is installed (libcuda was not found)")]
    NoLibrary,
    /// The driver lacks something that is called.
    #[error("the NVIDIA driver lacks {symbol}; it is too old or not whole")]
    Symbol {
        /// What it lacks.
        symbol: &'static str,
    },
    /// The driver is older than the kernels need.
    #[error("the NVIDIA driver speaks CUDA {}.{}; the kernels need {}.{} or newer", found / 1000, found % 1000 / 10, least / 1000, least % 1000 / 10)]
    OldDriver {
        /// Version found, as 1000 times the major and 10 times the minor one.
        found: i32,
        /// Oldest that will do.
        least: i32,
    },
    /// The device is older than the kernels need.
    #[error("the device has compute capability {major}.{minor}; 8.0 or newer is needed")]
    OldDevice {
        /// Major number.
        major: i32,
        /// Minor number.
        minor: i32,
    },
    /// The driver refused to start.
    #[error("the NVIDIA driver does not start: {0}")]
    Failed(DeviceError),
    /// The device computes, but wrongly.
    #[error("the device failed its known-answer test: {what}")]
    WrongAnswer {
        /// Where it was wrong.
        what: String,
    },
    /// The driver library panicked in us, or the thread could not be started.
    #[error("starting the NVIDIA driver went wrong: {what}")]
    Panicked {
        /// What it said.
        what: String,
    },
    /// The driver did not answer.
    #[error("the NVIDIA driver did not start within {milliseconds} ms")]
    TimedOut {
        /// How long it was given.
        milliseconds: u64,
    },
}

/// Why a computation on a device came to nothing. Its results were not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A call of the driver failed.
    #[error("{call} failed: {name}")]
    Driver {
        /// What was being done.
        call: &'static str,
        /// The driver's name of the error.
        name: String,
    },
    /// The batch does not fit into the device's memory.
    #[error("{needed} bytes are needed on the device, {free} are free")]
    Memory {
        /// Bytes the batch needs.
        needed: u64,
        /// Bytes that may be taken.
        free: u64,
    },
    /// Two lengths do not agree: a bug of the caller's.
    #[error("{what}: length {found}, but {expected} is needed")]
    Shape {
        /// What has the length.
        what: &'static str,
        /// Its length.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// The kernels here do not cover the request.
    #[error("{what} is {found}; on a device it is {allowed}")]
    NotCovered {
        /// What is not covered.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What is.
        allowed: &'static str,
    },
}

impl DeviceError {
    pub(crate) fn shape(what: &'static str, found: usize, expected: Option<u64>) -> Result<(), Self> {
        let expected = expected.unwrap_or(u64::MAX);
        if found as u64 == expected {
            Ok(())
        } else {
            Err(Self::Shape { what, found: found as u64, expected })
        }
    }

    /// Whether the device itself failed, so that nothing more should be asked of it.
    #[must_use]
    pub fn broken(&self) -> bool {
        matches!(self, Self::Driver { .. })
    }
}
