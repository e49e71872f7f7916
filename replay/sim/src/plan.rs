//! What kind of life a cluster gets: everything random about it that is decided before it begins.

use crate::cluster::Without;
use std::collections::BTreeMap;
use tidegate_journal::sim::Random;
use tidegate_replica::NodeId;

/// Units of time until everything heals; a tick of a node is about ten.
pub(crate) const FAULTS_END: u64 = 3_000;
/// Units of time in which everybody must have converged then.
pub(crate) const PATIENCE: u64 = 6_000;

/// Kinds of faults.
pub(crate) const KINDS: usize = 15;

pub(crate) struct Plan {
    pub(crate) nodes: Vec<NodeId>,
    /// Nodes that may join, numbered behind those.
    pub(crate) spare: u16,
    pub(crate) zones: BTreeMap<NodeId, String>,
    /// Groups that share the work, and how many nodes hold each; 0 for all.
    pub(crate) groups: usize,
    pub(crate) copies: usize,
    pub(crate) min_isr: usize,
    /// Feeds of each group, and how long one waits, at least and at most.
    pub(crate) feeds: usize,
    pub(crate) feed_every: (u64, u64),
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
    /// Weights of the kinds of faults: crash, pause, cut in one direction, cut off, flip, slow disk, transfer, drain, loss of
    /// one replica, leads spread anew, join, leave, a copy that comes, copies that come no longer, all copies of a group lost.
    pub(crate) faults: [u64; KINDS],
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
    /// Ticks without progress after which a follower counts as lagging.
    pub(crate) lag_ticks: u64,
    /// Slots that move.
    pub(crate) slots: usize,
    /// Whether the bytes of commands are counted, and feeds make no mistakes.
    pub(crate) measured: bool,
}

impl Plan {
    pub(crate) fn of(random: &mut Random) -> Self {
        let count = if random.chance(3, 4) { 3 } else { 5 };
        let nodes: Vec<NodeId> = (1..=count).collect();
        let spare = if random.chance(1, 6) { 1 + random.below(2) as u16 } else { 0 };
        let all = nodes.len() + usize::from(spare);
        let durable = match random.below(10) {
            0..4 => vec![false; all],
            4..8 => vec![true; all],
            _ => (0..all).map(|_| random.chance(1, 2)).collect(),
        };
        // Swarms: most lives lack most kinds of faults, so that rare ones meet undisturbed.
        let mut faults = [0; KINDS];
        for weight in &mut faults[..12] {
            *weight = if random.chance(1, 2) { 1 + random.below(8) } else { 0 };
        }
        let groups = if random.chance(1, 8) { 2 + random.below(3) as usize } else { 1 };
        let copies = if groups > 1 && count == 5 && random.chance(1, 2) { 3 } else { 0 };
        if groups == 1 {
            faults[8..10].fill(0);
        }
        // Most clusters are as they were founded.
        faults[10] = if spare > 0 { 2 + random.below(6) } else { 0 };
        faults[11] = if spare > 0 || random.chance(1, 10) { faults[11] } else { 0 };
        let most = if copies == 0 { u64::from(count) } else { copies as u64 };
        Self {
            zones: BTreeMap::new(),
            groups,
            copies,
            feeds: if groups == 1 { 3 } else { 1 },
            feed_every: (10, 30),
            min_isr: if random.chance(4, 5) { 2 } else { 1 + random.below(most) as usize },
            durable,
            loss: if random.chance(2, 3) { random.below(120) } else { 0 },
            double: if random.chance(2, 3) { random.below(80) } else { 0 },
            delay: 1 + random.below(12),
            spikes: if random.chance(1, 2) { random.below(60) } else { 0 },
            fault_every: 20 + random.below(200),
            faults,
            lossy: [0, 20, 50, 100][random.below(4) as usize],
            ticks: (0..all).map(|_| 6 + random.below(10)).collect(),
            sync: 1 + random.below(30),
            snapshot_every: if random.chance(3, 4) { 4 + random.below(60) } else { 0 },
            tail: if random.chance(1, 2) { 0 } else { random.below(40) },
            damage: if random.chance(1, 3) { random.below(300) } else { 0 },
            lag_ticks: 8,
            slots: 0,
            measured: false,
            nodes,
            spare,
        }
    }

    /// Copies move in some lives; drawn apart, so that the others are as they were.
    pub(crate) fn move_copies(&mut self, seed: u64) {
        let mut random = Random(seed ^ 0xc0b1_e5c0_b1e5_c0b1);
        if !random.chance(1, 3) {
            return;
        }
        self.copies = 2 + random.below(self.nodes.len() as u64 - 2) as usize;
        self.min_isr = self.min_isr.min(self.copies);
        self.faults[12] = 4 + random.below(12);
        self.faults[13] = 1 + random.below(6);
    }

    /// Whether copies move.
    pub(crate) fn moves_copies(&self) -> bool {
        self.faults[12] > 0
    }

    /// Slots move in one of four of the others, between groups that every node holds.
    pub(crate) fn move_slots(&mut self, seed: u64) {
        let mut random = Random(seed ^ 0x5107_5107_5107_5107);
        if self.moves_copies() || !random.chance(1, 4) {
            return;
        }
        self.copies = 0;
        self.feeds = 1;
        self.groups = 2 + random.below(3) as usize;
        self.slots = 2 + random.below(4) as usize;
        // What a group loses alone is what moves must be safe from.
        self.faults[14] = if random.chance(1, 2) { 1 + random.below(6) } else { 0 };
    }

    /// Without what is left out.
    pub(crate) fn leave_out(&mut self, without: &Without) {
        let parts = [
            (without.loss, &mut self.loss),
            (without.doubles, &mut self.double),
            (without.spikes, &mut self.spikes),
            (without.damage, &mut self.damage),
            (without.snapshots, &mut self.snapshot_every),
        ];
        parts.into_iter().filter(|(out, _)| *out).for_each(|(_, part)| *part = 0);
    }
}
