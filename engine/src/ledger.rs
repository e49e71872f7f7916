//! The ledger: where every input went. Inputs minus outputs balance, or somebody has a bug.

use std::fmt;

/// What became of one event at one operator. Each event delivered to an operator counts under exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// Went into an open window or state.
    Applied = 0,
    /// Late; its closed window was amended.
    LateAmended = 1,
    /// Late; written to the side stream.
    LateSide = 2,
    /// Late; dropped by policy.
    LateDropped = 3,
    /// Late beyond the amend horizon, or for a bar that was let go because memory is bounded; dropped.
    TooLate = 4,
    /// A cancel that took back its trade.
    Cancelled = 5,
    /// A correction's new values, applied.
    Corrected = 6,
    /// A cancel whose trade is unknown or beyond the horizon; nothing changed.
    Unmatched = 7,
    /// Of a kind this operator does not read.
    NotMine = 8,
    /// Its key is not defined in this shard.
    Undefined = 9,
    /// A bound of the operator's own was reached (distinct peers, open windows).
    OverBound = 10,
}

/// Number of fates.
pub const FATE_COUNT: usize = 11;

/// Names in reports, in the order of [`Fate`].
pub const FATE_NAMES: [&str; FATE_COUNT] = [
    "applied",
    "late_amended",
    "late_side",
    "late_dropped",
    "too_late",
    "cancelled",
    "corrected",
    "cancel_unmatched",
    "other_kind",
    "undefined_key",
    "over_bound",
];

/// An operator's account of the events delivered to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Events delivered.
    pub delivered: u64,
    /// Events by fate, in the order of [`Fate`].
    pub by_fate: [u64; FATE_COUNT],
}

impl Ledger {
    /// Counts one event's fate.
    #[inline]
    pub fn count(&mut self, fate: Fate) {
        self.by_fate[fate as usize] += 1;
    }

    /// Events of one fate.
    #[must_use]
    pub fn of(&self, fate: Fate) -> u64 {
        self.by_fate[fate as usize]
    }

    /// Closes a batch: `delivered` events came, of which those not counted otherwise since the last close were
    /// applied. Keeps the hot loop free of a counter.
    #[inline]
    pub fn close_batch(&mut self, delivered: u64, counted_before: u64) {
        self.delivered += delivered;
        let otherwise = self.counted() - counted_before;
        debug_assert!(otherwise <= delivered, "more fates than events");
        self.by_fate[Fate::Applied as usize] += delivered - otherwise;
    }

    /// Sum over all fates.
    #[inline]
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.by_fate.iter().sum()
    }

    /// Delivered minus accounted for: zero, always.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        i128::from(self.delivered) - i128::from(self.counted())
    }

    /// Adds another shard's account of the same operator.
    pub fn merge(&mut self, other: &Self) {
        self.delivered += other.delivered;
        for (mine, theirs) in self.by_fate.iter_mut().zip(other.by_fate) {
            *mine += theirs;
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delivered {}", self.delivered)?;
        for (name, count) in FATE_NAMES.iter().zip(self.by_fate).filter(|(_, count)| *count > 0) {
            write!(f, ", {name} {count}")?;
        }
        Ok(())
    }
}
