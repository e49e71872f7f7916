//! How a runtime is laid out, with bounds.

use super::idle::IdleStrategy;
use std::fmt;
use std::str::FromStr;

/// Where analyzers run. The output bytes do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On the shard's thread, as calls.
    #[default]
    Fused,
    /// On a thread of their own per shard, behind a ring.
    Staged,
}

/// A text that names no placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("placement `{0}` is none of fused, staged")]
pub struct PlacementError(String);

impl FromStr for Placement {
    type Err = PlacementError;

    fn from_str(text: &str) -> Result<Self, PlacementError> {
        match text {
            "fused" => Ok(Self::Fused),
            "staged" => Ok(Self::Staged),
            other => Err(PlacementError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fused => "fused",
            Self::Staged => "staged",
        })
    }
}

/// Where outputs go once they are numbered and digested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// Nowhere: only digests and counts remain.
    #[default]
    Discard,
    /// To one ring per shard, which the caller drains; a full one holds the shard back.
    Ring {
        /// Places of each ring: 64 to 1 048 576.
        capacity: usize,
    },
}

/// What happens to a shard one of whose operators panicked. Other shards never notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The shard emits nothing more; its events are taken off the ring and counted, so that the others keep going.
    #[default]
    Quarantine,
    /// The shard starts again from its last snapshot, or from nothing but its keys, and goes on with the events behind
    /// the batch that failed; what lies between is counted as lost. Its outputs are numbered on from the snapshot, so
    /// readers see numbers again. When all attempts are used up it is quarantined.
    Restart {
        /// Most restarts of one shard: 1 to 1000.
        max: u32,
        /// Wait before the first restart, doubled for each further one, at most a minute: 0 to 60 000. Events wait in
        /// the ring meanwhile, and the feed with them.
        backoff_ms: u64,
    },
}

/// How a [`super::Runtime`] is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Shards, a thread each: 1 to [`RuntimeOptions::SHARDS_MAX`].
    pub shards: u32,
    /// Places of each ring of events, and of outputs between stages: 64 to 1 048 576.
    pub ring_events: usize,
    /// Most events of one turn: 1 to 65 536.
    pub batch_max: usize,
    /// How threads wait.
    pub idle: IdleStrategy,
    /// Where analyzers run.
    pub placement: Placement,
    /// Ties each thread to a core, in turn over those this process may use. Without effect on a single core; a
    /// refusal by the system is counted ([`super::ShardStats::pin_failures`]) and otherwise ignored.
    pub pin: bool,
    /// Where outputs go.
    pub outputs: Outputs,
    /// What follows a panic.
    pub failure: FailurePolicy,
    /// Take a snapshot for [`FailurePolicy::Restart`] each time a shard has applied so many events: 1 or more. Without
    /// it a restart begins from nothing.
    pub snapshot_every_events: Option<u64>,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            shards: 1,
            ring_events: 32_768,
            batch_max: 1_024,
            idle: IdleStrategy::default(),
            placement: Placement::default(),
            pin: false,
            outputs: Outputs::default(),
            failure: FailurePolicy::default(),
            snapshot_every_events: None,
        }
    }
}

/// Why a runtime did not start or could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// An option is out of range.
    #[error("{option} is {found}, allowed are {min} to {max}")]
    Option {
        /// Its name.
        option: &'static str,
        /// The value given.
        found: u64,
        /// Least value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// Snapshots are not one for each shard.
    #[error(
        "{found} snapshots for {shards} shards: one per shard is needed, each from the shard of the same number"
    )]
    Snapshots {
        /// How many were given.
        found: usize,
        /// Shards to restore.
        shards: u32,
    },
    /// The system refused a thread.
    #[error("a thread could not be started")]
    Thread(#[from] std::io::Error),
    /// The supervisor did not start.
    #[error("the supervisor did not start: {0}")]
    Supervisor(String),
    /// There is no such shard, it has ended, or it has too many commands waiting.
    #[error("shard {shard} takes no command: {reason}")]
    Command {
        /// The shard.
        shard: u32,
        /// Why.
        reason: &'static str,
    },
}

const RING_RANGE: (u64, u64) = (64, 1 << 20);

impl RuntimeOptions {
    /// Most shards of a runtime.
    pub const SHARDS_MAX: u32 = 256;

    /// Checks every bound.
    ///
    /// # Errors
    /// [`RuntimeError::Option`] for the first option out of range.
    pub fn validate(&self) -> Result<(), RuntimeError> {
        let check = |option, found: u64, (min, max): (u64, u64)| {
            if (min..=max).contains(&found) {
                Ok(())
            } else {
                Err(RuntimeError::Option { option, found, min, max })
            }
        };
        check("shards", u64::from(self.shards), (1, u64::from(Self::SHARDS_MAX)))?;
        check("ring_events", self.ring_events as u64, RING_RANGE)?;
        check("batch_max", self.batch_max as u64, (1, 1 << 16))?;
        if let Outputs::Ring { capacity } = self.outputs {
            check("outputs.capacity", capacity as u64, RING_RANGE)?;
        }
        if let FailurePolicy::Restart { max, backoff_ms } = self.failure {
            check("failure.max", u64::from(max), (1, 1_000))?;
            check("failure.backoff_ms", backoff_ms, (0, 60_000))?;
        }
        if let Some(every) = self.snapshot_every_events {
            check("snapshot_every_events", every, (1, u64::MAX))?;
        }
        Ok(())
    }
}
