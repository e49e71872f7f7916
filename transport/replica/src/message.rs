//! What replicas of a group say to each other.

use crate::log::Entry;
use crate::meta::Member;
use bytes::Bytes;

/// What names a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotId {
    /// Offset of the log behind what it holds.
    pub offset: u64,
    /// Epoch of the entry in front of that.
    pub epoch: u32,
    /// Its size.
    pub bytes: u64,
    /// Hash of all of it, whichever the drivers agree on.
    pub hash: [u8; 32],
}

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
    /// Leader to a follower that lacks what the leader's log has no more.
    Offer {
        /// The leader's epoch.
        epoch: u32,
        /// The log's history.
        lineage: u64,
        /// The leader.
        from: Member,
        /// For whom.
        to: Member,
        /// What may be fetched.
        snapshot: SnapshotId,
    },
    /// Follower to leader: send a piece of a snapshot.
    Fetch {
        /// The epoch of the offer.
        epoch: u32,
        /// The follower.
        from: Member,
        /// Which snapshot, by its offset.
        offset: u64,
        /// From which of its bytes on.
        at: u64,
    },
    /// Leader to follower: a piece of a snapshot.
    Chunk {
        /// The leader's epoch.
        epoch: u32,
        /// The leader.
        from: Member,
        /// For whom.
        to: Member,
        /// Of which snapshot, by its offset.
        offset: u64,
        /// From which of its bytes on.
        at: u64,
        /// The bytes.
        data: Bytes,
    },
    /// To somebody who believes to lead: there is a newer epoch.
    Stale {
        /// The newer epoch.
        epoch: u32,
    },
}
