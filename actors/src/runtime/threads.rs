//! How many threads a node is spread over.

use super::{Placement, RuntimeOptions};
use std::fmt;
use std::str::FromStr;

/// Up to so many cores the threads of [`Threads::Separate`] would only take them from each other.
const FUSED_CORES: usize = 2;

/// How a node's work is spread over threads. What it computes does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// Fused on a machine of few cores, unless several shards or staged analyzers ask for threads; else separate.
    #[default]
    Auto,
    /// Sockets, feeds, shards and readers on one thread, `tg-core`: nothing is handed from thread to thread.
    Fused,
    /// Threads of their own for sockets, for feeds, for each shard and for readers.
    Separate,
}

/// A text that names no such layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("threads `{0}` is none of auto, fused, separate")]
pub struct ThreadsError(String);

impl FromStr for Threads {
    type Err = ThreadsError;

    fn from_str(text: &str) -> Result<Self, ThreadsError> {
        match text {
            "auto" => Ok(Self::Auto),
            "fused" => Ok(Self::Fused),
            "separate" => Ok(Self::Separate),
            other => Err(ThreadsError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Fused => "fused",
            Self::Separate => "separate",
        })
    }
}

impl Threads {
    /// What it comes to on this machine: fused or separate.
    #[must_use]
    pub fn here(self, options: &RuntimeOptions) -> Self {
        let alone = options.shards == 1 && options.placement == Placement::Fused;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::Auto if alone && cores <= FUSED_CORES => Self::Fused,
            Self::Auto => Self::Separate,
            asked => asked,
        }
    }
}
