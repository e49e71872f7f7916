//! What a replica may begin with instead of the front of its log: the state behind a committed offset.

use crate::log::Log;
use crate::rules::{Rule, Rules};
use std::collections::BTreeMap;

/// A place in a log's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The history.
    pub lineage: u64,
    /// Offset behind everything in front of it.
    pub offset: u64,
    /// Epoch of the entry in front of it.
    pub epoch: u32,
}

/// The state behind everything in front of an offset, and what of each source is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base<M> {
    /// The log's history.
    pub lineage: u64,
    /// The offset.
    pub offset: u64,
    /// Epoch of the entry in front of it.
    pub epoch: u32,
    /// The state.
    pub machine: M,
    /// The last committed sequence of each source.
    pub committed: BTreeMap<u32, u64>,
}

impl<M> Base<M> {
    /// Where it is.
    #[must_use]
    pub fn point(&self) -> Point {
        Point { lineage: self.lineage, offset: self.offset, epoch: self.epoch }
    }
}

/// How a snapshot and a log go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The log has the snapshot's place, and goes on behind it.
    Follows,
    /// The snapshot is all there is: the log ends in front of it, or has something else there, which was never committed.
    Replaces {
        /// Whether the log held more than the snapshot does, which may have been acknowledged.
        lossy: bool,
    },
    /// The snapshot is of another history than the log, or there is none and the log lacks its front.
    Useless,
}

impl Point {
    /// How a snapshot of this place goes with a log of `lineage`.
    #[must_use]
    pub fn fit<I: Clone>(&self, lineage: u64, log: &Log<I>, rules: Rules) -> Fit {
        let inside = (log.base()..=log.end()).contains(&self.offset);
        if inside && log.epoch_before(self.offset) == self.epoch {
            // Epochs grow over lineages, so the pair names the same entries in all of them.
            return Fit::Follows;
        }
        if self.offset == 0 || self.lineage < lineage && rules.hold(Rule::SnapshotLineage) {
            return Fit::Useless;
        }
        let cut = log.base() > self.offset && log.end() > log.base();
        Fit::Replaces { lossy: self.lineage <= lineage && (cut || inside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Body, Entry};

    fn log(base: u64, epochs: &[u32]) -> Log<u64> {
        let entry = |epoch: &u32| Entry { epoch: *epoch, body: Body::Digest { at: 0, value: 0 } };
        Log::behind(base, 1, epochs.iter().map(entry).collect())
    }

    #[test]
    fn a_snapshot_goes_with_the_log_that_has_its_place_and_nothing_else_is_mixed() {
        let fit = |lineage, offset, epoch, of, log: &Log<u64>| {
            Point { lineage, offset, epoch }.fit(of, log, Rules::default())
        };
        let kept = log(10, &[1, 1, 2, 2]);
        assert_eq!(fit(1, 10, 1, 1, &kept), Fit::Follows, "at the front");
        assert_eq!(fit(1, 13, 2, 1, &kept), Fit::Follows);
        assert_eq!(fit(1, 14, 2, 3, &kept), Fit::Follows, "whoever began the lineage goes on from its own");
        assert_eq!(fit(1, 20, 3, 1, &kept), Fit::Replaces { lossy: false }, "fetched from a leader");
        assert_eq!(fit(2, 12, 3, 1, &kept), Fit::Replaces { lossy: false }, "of a newer lineage");
        assert_eq!(fit(1, 12, 3, 1, &kept), Fit::Replaces { lossy: true }, "something else was there");
        assert_eq!(fit(1, 8, 1, 1, &kept), Fit::Replaces { lossy: true }, "the newest is gone");
        assert_eq!(fit(1, 20, 3, 2, &kept), Fit::Useless, "of another history");
        assert_eq!(fit(0, 0, 0, 1, &kept), Fit::Useless, "no snapshot, and no front");
        assert_eq!(fit(0, 0, 0, 1, &Log::default()), Fit::Follows);
    }
}
