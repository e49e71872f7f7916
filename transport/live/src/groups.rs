//! Several groups of slots beside each other: each has feeds, a log and shards of its own, and all have one hub. Results are numbered per
//! slot and stream, and a slot is of one group, so readers cannot tell.

use crate::ingest::{IngestReport, IngestStats};
use crate::moving::MovesState;
use crate::replication::{ReplicaSnapshots, Replication};
use crate::service::LiveOptions;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_engine::{SLOT_COUNT, snapshot};
use tidegate_proto::feed::{FeedGroup, FeedServerOptions, SourceStats};

/// Where the number of a group is in that of a barrier: those of different groups come through one hub.
const BARRIER_SHIFT: u32 = 48;

/// The groups of a cluster that has several.
#[derive(Clone, Debug)]
pub struct LiveGroups {
    /// The group of each slot.
    pub slots: Arc<[u16]>,
    /// The groups, by number; `None` for one that other nodes hold, and whose results are relayed.
    pub of: Vec<Option<LiveGroup>>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct LiveGroup {
    /// The way to other nodes that hold the same log.
    pub replication: Replication,
    /// Its snapshots; `None` for none, then it needs the log from its beginning.
    pub snapshots: Option<ReplicaSnapshots>,
}

/// The number of the barrier in front of a group's first.
pub(crate) fn first_barrier(group: Option<&FeedGroup>) -> u64 {
    group.map_or(0, |of| u64::from(of.group) << BARRIER_SHIFT)
}

impl LiveOptions {
    /// The options of each group.
    pub(crate) fn parts(mut self) -> Vec<Self> {
        let Some(LiveGroups { slots, of }) = self.groups.take() else { return vec![self] };
        let part = |(group, of): (u16, Option<LiveGroup>)| {
            let LiveGroup { replication, snapshots } = of?;
            let group = Some(FeedGroup { group, slots: Arc::clone(&slots) });
            let feed = FeedServerOptions { group, ..self.feed.clone() };
            Some(Self { feed, replication: Some(replication), snapshots, ..self.clone() })
        };
        (0..).zip(of).filter_map(part).collect()
    }

    /// By number, whether a group is held here.
    pub(crate) fn held(&self) -> Vec<bool> {
        self.groups
            .as_ref()
            .map_or_else(|| vec![true], |groups| groups.of.iter().map(Option::is_some).collect())
    }
}

/// Whether there is a group, each is some slot's, and each slot is of one of them.
pub(crate) fn check(groups: &LiveGroups) -> Result<(), String> {
    let count = groups.of.len();
    if groups.slots.len() != SLOT_COUNT || count == 0 {
        return Err(format!("{} slots of {count} groups, expected {SLOT_COUNT} slots", groups.slots.len()));
    }
    match groups.slots.iter().find(|group| usize::from(**group) >= count) {
        Some(group) => Err(format!("a slot is of group {group}, there are {count}")),
        None => Ok(()),
    }
}

/// Slots that two groups say are theirs, as their snapshots have it: one's is from before the slot left it, and the other's from behind its arrival.
pub(crate) fn twice<'a>(parts: impl Iterator<Item = (&'a FeedGroup, Option<Vec<u8>>)>) -> Vec<u16> {
    let mut owned = vec![0u8; SLOT_COUNT];
    for (group, moves) in parts {
        let saved = moves.and_then(|bytes| snapshot::read::<MovesState>(&bytes, "moves of slots").ok());
        let saved = saved.map(|saved| saved.slots);
        let slots: &[u16] = saved.as_deref().unwrap_or(&group.slots);
        for (owners, of) in owned.iter_mut().zip(slots) {
            *owners += u8::from(*of == group.group);
        }
    }
    (0u16..).zip(owned).filter(|(_, owners)| *owners > 1).map(|(slot, _)| slot).collect()
}

/// One account of what each source sent, over all groups that it feeds.
pub(crate) fn merged(parts: impl Iterator<Item = IngestStats>) -> IngestStats {
    let mut sum = IngestStats::default();
    let (mut known, mut closed) = (HashMap::<u64, usize>::new(), HashMap::<&'static str, u64>::new());
    for part in parts {
        for (at, source) in part.sources.into_iter().enumerate() {
            let feed = part.feeds.get(at).cloned().unwrap_or_default();
            match known.get(&source.source_id) {
                Some(&at) => {
                    add(&mut sum.sources[at], &source);
                    let of = &mut sum.feeds[at];
                    of.peer = of.peer.take().or(feed.peer);
                    // Done when it is done everywhere.
                    of.finished &= feed.finished;
                }
                None => {
                    known.insert(source.source_id, sum.sources.len());
                    let rank = sum.sources.len() as u16;
                    sum.sources.push(SourceStats { rank, ..source });
                    sum.feeds.push(feed);
                }
            }
        }
        sum.connections += part.connections;
        sum.logged += part.logged;
        sum.fenced += part.fenced;
        sum.names += part.names;
        sum.stalls += part.stalls;
        for (reason, count) in part.closed {
            *closed.entry(reason).or_default() += count;
        }
        sum.journal = sum.journal.or(part.journal);
        sum.snapshots = match (sum.snapshots, part.snapshots) {
            (Some(mut all), Some(of)) => {
                // What of one is shown beside the counts is the newest.
                let (written, failed) = (all.written + of.written, all.failed + of.failed);
                let problem = all.problem.take().or_else(|| of.problem.clone());
                if of.taken_ns > all.taken_ns {
                    all = of;
                }
                (all.written, all.failed, all.problem) = (written, failed, problem);
                Some(all)
            }
            (all, of) => all.or(of),
        };
    }
    sum.closed = closed.into_iter().collect();
    sum.closed.sort_unstable();
    sum
}

fn add(sum: &mut SourceStats, of: &SourceStats) {
    sum.last += of.last;
    sum.names += of.names;
    sum.connected |= of.connected;
    sum.connections += of.connections;
    sum.throttled += of.throttled;
    let (sum, of) = (&mut sum.ledger, &of.ledger);
    sum.received += of.received;
    sum.accepted += of.accepted;
    sum.duplicate += of.duplicate;
    sum.ahead += of.ahead;
    sum.held += of.held;
    sum.refused += of.refused;
    sum.declared_lost += of.declared_lost;
    sum.overflowed += of.overflowed;
}

/// What ingest of all groups did.
pub(crate) fn reported(mut parts: Vec<IngestReport>) -> IngestReport {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    let spans = parts.iter().filter_map(|part| part.span);
    let span = spans.reduce(|all, of| (all.0.min(of.0), all.1.max(of.1)));
    let (controls, gaps_made) =
        parts.iter().fold((0, 0), |(controls, gaps), part| (controls + part.controls, gaps + part.gaps_made));
    let unwritten = parts.iter().map(|part| part.unwritten).sum();
    let stats = merged(parts.into_iter().map(|part| part.stats));
    IngestReport { stats, span, controls, gaps_made, unwritten }
}
