//! Which snapshots are of use here: those taken with the same settings, by however many shards.

use crate::service::LiveOptions;
use std::sync::Arc;
use tidegate_actors::runtime::RuntimeOptions;
use tidegate_journal::snapshot::fingerprint;
use tidegate_proto::hub::StreamMeta;

/// Everything that a state depends on beside the log, as snapshots say it in short. How many shards took a snapshot is said along with it, and any
/// number of others can take it over, so there is a fingerprint for each number.
#[derive(Clone, Debug)]
pub struct SnapshotSettings {
    /// Of as many shards as there are here.
    own: [u8; 16],
    /// By number of shards, from 1.
    any: Arc<[[u8; 16]]>,
}

impl SnapshotSettings {
    /// Those of an engine with these streams and options; `settings` is what else there is.
    #[must_use]
    pub fn of(settings: &str, streams: &[StreamMeta], options: &LiveOptions) -> Self {
        let print = |shards| fingerprint(&text(settings, streams, options, shards));
        let any = (1..=RuntimeOptions::SHARDS_MAX).map(print).collect();
        Self { own: print(options.runtime.shards), any }
    }

    /// What its own snapshots say.
    #[must_use]
    pub fn own(&self) -> [u8; 16] {
        self.own
    }

    /// How many shards took a snapshot that says this; `None` when it is of other settings.
    #[must_use]
    pub fn shards_of(&self, print: [u8; 16]) -> Option<u32> {
        (1..).zip(self.any.iter()).find(|(_, any)| **any == print).map(|(shards, _)| shards)
    }

    /// Whether a snapshot that says this is of use.
    #[must_use]
    pub fn fit(&self, print: [u8; 16]) -> bool {
        print == self.own || self.shards_of(print).is_some()
    }
}

/// Of somebody who never had another number of shards than one.
impl From<[u8; 16]> for SnapshotSettings {
    fn from(own: [u8; 16]) -> Self {
        Self { own, any: [own].into() }
    }
}

/// In full, for people.
pub(crate) fn text(settings: &str, streams: &[StreamMeta], options: &LiveOptions, shards: u32) -> String {
    let streams: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    let fence = options.fence.map_or_else(
        || "none".to_owned(),
        |fence| format!("{}ns/{}/{}ns", fence.jump_max_ns, fence.confirm_count, fence.end_jump_max_ns),
    );
    format!(
        "{}; streams {}; {shards} shards; disorder {} ns; fence {fence}",
        settings,
        streams.join(","),
        options.disorder_ns,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_shards_fits_and_nothing_else_does() {
        let of = |settings: &str, shards| {
            let mut options = LiveOptions::default();
            options.runtime.shards = shards;
            SnapshotSettings::of(settings, &[], &options)
        };
        let mine = of("1s", 3);
        assert_eq!(mine.shards_of(mine.own()), Some(3));
        for shards in [1, 2, 256] {
            let other = of("1s", shards).own();
            assert_ne!(other, mine.own());
            assert_eq!((mine.shards_of(other), mine.fit(other)), (Some(shards), true));
        }
        let foreign = of("2s", 3).own();
        assert_eq!((mine.shards_of(foreign), mine.fit(foreign)), (None, false));
        assert!(
            !SnapshotSettings::from([1; 16]).fit([2; 16]) && SnapshotSettings::from([1; 16]).fit([1; 16])
        );
    }
}
