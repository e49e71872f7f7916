//! The rules of replication by name. All of them always hold; only a build with the feature `mutations`, which is the simulator's,
//! can do without one, to see whether anybody notices.

/// A rule that safety or progress rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Rule {
    /// Only a live member of the in-sync set, or else of the eligible set, is elected.
    CleanElection,
    /// A replica that restarts without its memory leaves both sets at once.
    LossyLeaves,
    /// What of each source is in the log is derived from the log when leading begins, not kept beside it.
    DedupeFromLog,
    /// A laggard stays required until metadata has confirmed its removal.
    ShrinkWaits,
    /// A joiner is required from the moment its addition is proposed.
    JoinCounts,
    /// Acknowledged only once committed.
    AckAfterCommit,
    /// Handed to subscribers only once committed.
    PublishAfterCommit,
    /// An older epoch than the newest known is refused.
    RefuseOldEpoch,
    /// Nothing is committed with fewer confirmed members than `min_isr`.
    CommitAtMinIsr,
    /// Entries are taken only behind the entry they were written behind.
    PrevCheck,
    /// A follower's commit is bounded by what it knows to be the same as the leader's.
    CommitBounded,
    /// A refused proposal is answered, so that its leader can drop it. (One that was refused because the sets have changed is dropped when
    /// metadata tells how: it may have been accepted before, and refused when it came a second time.)
    ExplicitReject,
    /// A proposal that names an older incarnation of a node is refused.
    ProposalIncarnation,
    /// What an older incarnation of a follower acknowledged does not count for the new one.
    AckIncarnation,
    /// A proposal made against an older in-sync set is refused.
    VersionCheck,
    /// Members that leave while the set is below `min_isr` stay eligible.
    EligibleKept,
    /// A follower whose state differs from the digest in the log fences itself.
    DigestFences,
    /// A follower joins only when it has all that is committed and all that the leader began with.
    JoinWhenCaughtUp,
    /// A durable replica counts, and acknowledges, only what it has synced.
    AckAfterSync,
    /// A snapshot holds committed entries only.
    SnapshotCommitted,
    /// A snapshot holds what of each source is committed.
    SnapshotHasSources,
    /// A snapshot is used only if all of it is there and has the hash that was offered.
    SnapshotWhole,
    /// A snapshot in front of the own commit is not fetched, and not put in place of what is newer.
    SnapshotNewer,
    /// What of a snapshot was sent counts for nothing: its receiver counts once it acknowledges, with the snapshot in place.
    SnapshotInPlace,
    /// A snapshot of an older lineage is used only where the log goes on from it.
    SnapshotLineage,
    /// The log is cut only behind a snapshot that is whole.
    CutBehindSnapshot,
    /// A proposal is decided about the group that it names.
    OwnGroup,
    /// A node that is gone, or what it has lost, is so in every group.
    EveryGroup,
    /// A replica that began anew counts only under a later incarnation than any it had.
    RenewIsNewer,
    /// Nobody leaves whom the others need: to have everything, to commit, to decide.
    LeaveKeepsEnough,
    /// Who has left is refused when it registers, and so is its number.
    LeftStaysOut,
    /// A copy goes only once the one that replaces it is in sync.
    CopyInSyncFirst,
    /// No copy goes whose group would have too few in sync without it.
    CopyKeepsEnough,
    /// One copy at a time comes to a group, and to a node.
    CopiesOneByOne,
    /// A start of a node that was let go from a group counts there no more, and takes up no other copy of it.
    CopyComesAnew,
    /// A node removes a copy only by metadata that knows this start of it.
    GivesUpConfirmed,
    /// A command about a slot names how many steps that has taken: one that comes late changes nothing.
    MovesStepByStep,
    /// One slot is on its way at a time.
    OneSlotAtATime,
    /// A move has a number that no other one of the cluster ever had.
    MovesNumberedOnce,
    /// That a slot stays only its group's leader says, in the epoch in which it has not written that it leaves.
    StaysIsTheLeaders,
    /// It says so once an entry of that epoch is committed: what an older leader may have written of it is gone by then.
    StaysOnceConfirmed,
    /// A slot has left once its group's log has that, committed.
    LeftOnceCommitted,
    /// It has come once its new group's log has that, committed.
    ArrivedOnceCommitted,
    /// A move that a declared loss of the old group fell into is not given up.
    LostLeaveStands,
    /// What a declared loss took of a slot that left is written again.
    LostLeavesAgain,
    /// What a declared loss took of a slot that came is written again.
    LostArrivesAgain,
    /// What a declared loss took of moves is written again before anything newer, the oldest first.
    LostMovesFirst,
    /// Nothing is taken of a slot that only a log says is there, which a declared loss has set back.
    ServesWhatItHas,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 48] = [
        Self::CleanElection,
        Self::LossyLeaves,
        Self::DedupeFromLog,
        Self::ShrinkWaits,
        Self::JoinCounts,
        Self::AckAfterCommit,
        Self::PublishAfterCommit,
        Self::RefuseOldEpoch,
        Self::CommitAtMinIsr,
        Self::PrevCheck,
        Self::CommitBounded,
        Self::ExplicitReject,
        Self::ProposalIncarnation,
        Self::AckIncarnation,
        Self::VersionCheck,
        Self::EligibleKept,
        Self::DigestFences,
        Self::JoinWhenCaughtUp,
        Self::AckAfterSync,
        Self::SnapshotCommitted,
        Self::SnapshotHasSources,
        Self::SnapshotWhole,
        Self::SnapshotNewer,
        Self::SnapshotInPlace,
        Self::SnapshotLineage,
        Self::CutBehindSnapshot,
        Self::OwnGroup,
        Self::EveryGroup,
        Self::RenewIsNewer,
        Self::LeaveKeepsEnough,
        Self::LeftStaysOut,
        Self::CopyInSyncFirst,
        Self::CopyKeepsEnough,
        Self::CopiesOneByOne,
        Self::CopyComesAnew,
        Self::GivesUpConfirmed,
        Self::MovesStepByStep,
        Self::OneSlotAtATime,
        Self::MovesNumberedOnce,
        Self::StaysIsTheLeaders,
        Self::StaysOnceConfirmed,
        Self::LeftOnceCommitted,
        Self::ArrivedOnceCommitted,
        Self::LostLeaveStands,
        Self::LostLeavesAgain,
        Self::LostArrivesAgain,
        Self::LostMovesFirst,
        Self::ServesWhatItHas,
    ];
}

/// Which rules hold: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    #[cfg(feature = "mutations")]
    off: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn without(rule: Rule) -> Self {
        Self { off: Some(rule) }
    }

    /// Whether a rule holds.
    #[must_use]
    pub fn hold(self, rule: Rule) -> bool {
        #[cfg(feature = "mutations")]
        return self.off != Some(rule);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = rule;
            true
        }
    }
}
