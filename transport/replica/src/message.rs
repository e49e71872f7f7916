//! What replicas of a group say to each other.

use crate::log::Entry;
use crate::meta::Member;

/// Entries from the leader, or none, to say where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append<I> {
    /// The leader's epoch.
    pub epoch: u32,
    /// The log's history.
    pub lineage: u64,
    /// The leader.
    pub from: Member,
    /// For whom: a replica that has restarted since is somebody else.
    pub to: Member,
    /// Offset of the first entry.
    pub prev_offset: u64,
    /// Epoch of the entry in front of it, 0 for none.
    pub prev_epoch: u32,
    /// The entries.
    pub entries: Vec<Entry<I>>,
    /// The leader's commit.
    pub commit: u64,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<I> {
    /// Leader to follower.
    Append(Append<I>),
    /// Follower to leader: everything up to `matched` is as the leader has it.
    Ack {
        /// The epoch of the append.
        epoch: u32,
        /// The follower.
        from: Member,
        /// Offset.
        matched: u64,
    },
    /// Follower to leader: what came does not follow; go back to `hint`.
    Mismatch {
        /// The epoch of the append.
        epoch: u32,
        /// The follower.
        from: Member,
        /// Offset to try next.
        hint: u64,
    },
    /// To somebody who believes to lead: there is a newer epoch.
    Stale {
        /// The newer epoch.
        epoch: u32,
    },
}
