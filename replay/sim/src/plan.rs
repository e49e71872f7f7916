//! What kind of life a cluster gets: everything random about it that is decided before it begins.

use tidegate_journal::sim::Random;
use tidegate_replica::NodeId;

/// Units of time until everything heals; a tick of a node is about ten.
pub(crate) const FAULTS_END: u64 = 3_000;
/// Units of time in which everybody must have converged then.
pub(crate) const PATIENCE: u64 = 6_000;

pub(crate) struct Plan {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) min_isr: usize,
    /// Which nodes have a disk.
    pub(crate) durable: Vec<bool>,
    /// Messages lost and doubled, of a thousand.
    pub(crate) loss: u64,
    pub(crate) double: u64,
    /// Longest usual delay, and how many of a thousand take up to forty times as long.
    pub(crate) delay: u64,
    pub(crate) spikes: u64,
    /// Units between faults.
    pub(crate) fault_every: u64,
    /// Weights of the kinds of faults: crash, pause, cut in one direction, cut off, flip, slow disk, transfer, drain.
    pub(crate) faults: [u64; 8],
    /// Crashes that lose memory, and with it what a disk holds, of a hundred.
    pub(crate) lossy: u64,
    /// Length of a node's tick.
    pub(crate) ticks: Vec<u64>,
    pub(crate) sync: u64,
    /// Committed entries between two snapshots of a node; 0 for none.
    pub(crate) snapshot_every: u64,
    /// Entries of the log that are kept behind the newest snapshot.
    pub(crate) tail: u64,
    /// Pieces of snapshots that are flipped on their way, of a thousand.
    pub(crate) damage: u64,
}

impl Plan {
    pub(crate) fn of(random: &mut Random) -> Self {
        let count = if random.chance(3, 4) { 3 } else { 5 };
        let nodes: Vec<NodeId> = (1..=count).collect();
        let durable = match random.below(10) {
            0..4 => vec![false; nodes.len()],
            4..8 => vec![true; nodes.len()],
            _ => nodes.iter().map(|_| random.chance(1, 2)).collect(),
        };
        // Swarms: most lives lack most kinds of faults, so that rare ones meet undisturbed.
        let mut faults = [0; 8];
        for weight in &mut faults {
            *weight = if random.chance(1, 2) { 1 + random.below(8) } else { 0 };
        }
        Self {
            min_isr: if random.chance(4, 5) { 2 } else { 1 + random.below(u64::from(count)) as usize },
            durable,
            loss: if random.chance(2, 3) { random.below(120) } else { 0 },
            double: if random.chance(2, 3) { random.below(80) } else { 0 },
            delay: 1 + random.below(12),
            spikes: if random.chance(1, 2) { random.below(60) } else { 0 },
            fault_every: 20 + random.below(200),
            faults,
            lossy: [0, 20, 50, 100][random.below(4) as usize],
            ticks: nodes.iter().map(|_| 6 + random.below(10)).collect(),
            sync: 1 + random.below(30),
            snapshot_every: if random.chance(3, 4) { 4 + random.below(60) } else { 0 },
            tail: if random.chance(1, 2) { 0 } else { random.below(40) },
            damage: if random.chance(1, 3) { random.below(300) } else { 0 },
            nodes,
        }
    }
}
