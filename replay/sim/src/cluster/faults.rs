//! What goes wrong, other than on the network: each fault is drawn before anything is known of the cluster it meets, so one can be left
//! out and the others stay as they are.

use super::{Cluster, Event, place};
use crate::check::Broken;
use std::collections::BTreeMap;
use std::fmt;
use tidegate_journal::sim::Random;
use tidegate_replica::{Command, Eagerness, GroupId, Moves, Role};

/// Kinds of faults.
const KINDS: [&str; crate::plan::KINDS] = [
    "crashes",
    "stands still",
    "is cut off in one direction or both from another one",
    "is cut off from all others",
    "has a bit of its state flipped",
    "has a slow disk",
    "is told to lead",
    "is drained, or no more",
    "loses one replica",
    "is there when leads are spread anew",
    "is there when another one joins",
    "is to leave",
    "is to get a copy",
    "is there when copies on their way are stopped",
    "is there when all copies of a group are lost",
];

/// One fault of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the life.
    pub number: u64,
    /// When.
    pub at: u64,
    /// The node it is about, from 0.
    pub node: usize,
    kind: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {} at {}: node {} {}", self.number, self.at, self.node + 1, KINDS[self.kind])
    }
}

impl Cluster {
    /// The next fault happens, or is left out. Returns how long it is to the one behind it.
    pub(super) fn fault(&mut self) -> Result<u64, Broken> {
        let number = self.fate;
        self.fate += 1;
        let next = 1 + self.fates.below(2 * self.plan.fault_every);
        let total: u64 = self.plan.faults.iter().sum();
        let mut drawn = self.fates.below(total);
        let at = self.fates.below(self.nodes.len() as u64) as usize;
        let mut own = Random(self.fates.draw());
        let kind = self.plan.faults.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            hit
        });
        let Some(kind) = kind else { return Ok(next) };
        if self.options.without.faults.contains(&number) {
            return Ok(next);
        }
        self.faults += 1;
        let fault = Fault { number, at: self.now, node: at, kind };
        self.script.push(fault);
        self.note(60, (kind as u64) << 8 | at as u64);
        if self.options.trace {
            println!("{:>6} {fault}", self.now);
        }
        self.strike(kind, at, &mut own)?;
        Ok(next)
    }

    /// A group that a node holds.
    fn any_of(&self, at: usize, own: &mut Random) -> GroupId {
        let held = &self.nodes[at].held;
        held.get(own.below(held.len() as u64) as usize).copied().unwrap_or(0)
    }

    fn strike(&mut self, kind: usize, at: usize, own: &mut Random) -> Result<(), Broken> {
        let operator = self.nodes.len();
        match kind {
            0 => {
                let lossy = own.chance(self.plan.lossy, 100);
                let all = own.chance(1, 12);
                let affected = if all { 0..self.nodes.len() } else { at..at + 1 };
                for at in affected {
                    // Sooner or later than metadata gives it up.
                    let most = if own.chance(1, 2) { 40 } else { 500 };
                    let wait = 1 + own.below(most);
                    if self.nodes[at].up {
                        self.crash(at, lossy);
                        let boot = self.nodes[at].boot;
                        self.push(wait, Event::Restart { node: at, boot });
                    }
                }
            }
            1 => self.nodes[at].paused_until = self.now + own.below(400),
            2 => {
                let to = own.below(self.cuts.len() as u64) as usize;
                let (from, to) = if own.chance(1, 2) { (at, to) } else { (to, at) };
                self.cuts[from][to] = self.now + own.below(500);
                if own.chance(1, 2) {
                    self.cuts[to][from] = self.cuts[from][to];
                }
            }
            3 => {
                // Cut off from all others, with metadata or without.
                let until = self.now + own.below(500);
                let with = self.cuts.len() - usize::from(own.chance(1, 2));
                for other in 0..with {
                    self.cuts[at][other] = until;
                    self.cuts[other][at] = until;
                }
            }
            4 => {
                let group = self.any_of(at, own);
                let bit = own.below(64);
                if let Some(part) = self.nodes[at].part(group)
                    && let Some(replica) = &mut part.replica
                    && replica.role() == Role::Follower
                    && replica.commit() > 0
                    && part.flipped.is_none()
                {
                    part.flipped = Some(replica.commit());
                    replica.machine_mut().0 ^= 1 << bit;
                }
            }
            5 => self.nodes[at].slow_until = self.now + own.below(1_000),
            7 => {
                let (node, drained) = (self.nodes[at].id, own.chance(2, 3));
                self.decide(operator, &Command::Drain { node, drained })?;
            }
            8 => {
                let group = self.any_of(at, own);
                let (lossy, wait) = (own.chance(self.plan.lossy, 100), 1 + own.below(200));
                if self.nodes[at].up {
                    self.lose_one(at, group, lossy, wait, None);
                }
            }
            9 => {
                let costs: BTreeMap<GroupId, u64> =
                    self.meta.numbered().map(|(group, _)| (group, own.below(1_000))).collect();
                for one in Moves::plan(&self.meta, &costs, Eagerness::default()).moves {
                    self.decide(operator, &one.command())?;
                }
            }
            10 => {
                let left = &self.meta.book.left;
                let next = self.nodes.iter().position(|node| node.away && !left.contains(&node.id));
                if let Some(at) = next {
                    let node = self.nodes[at].id;
                    self.decide(operator, &Command::Join { node, place: place(node, None) })?;
                    self.nodes[at].away = false;
                    self.boot(at)?;
                    self.push(1, Event::Tick(at));
                }
            }
            11 => {
                // Whoever it is learns of it late or never, and goes on as if nothing had happened.
                let node = self.nodes[at].id;
                self.decide(operator, &Command::Leave { node })?;
            }
            12 => {
                let group = own.below(self.meta.groups.len() as u64) as GroupId;
                let of = &self.meta.groups[usize::from(group)];
                let (pick, more) = (own.below(of.holders.len() as u64) as usize, own.chance(1, 8));
                let from =
                    of.holders.get(pick).copied().filter(|_| !more || of.holders.len() > self.plan.copies);
                let (version, to) = (of.version, self.nodes[at].id);
                self.decide(operator, &Command::MoveCopy { group, version, to, from })?;
            }
            13 => {
                let coming: Vec<GroupId> = self.meta.coming().map(|(group, _)| group).collect();
                for group in coming {
                    let version = self.meta.groups[usize::from(group)].version;
                    self.decide(operator, &Command::StopCopy { group, version })?;
                }
            }
            14 => self.lose_all(at, own),
            _ => {
                let group = self.any_of(at, own);
                let epoch = self.meta.groups[usize::from(group)].epoch;
                let member = self.nodes[at].part(group).map(|part| part.incarnation);
                let target =
                    tidegate_replica::Member { node: self.nodes[at].id, incarnation: member.unwrap_or(0) };
                self.decide(operator, &Command::Transfer { group, epoch, target })?;
            }
        }
        Ok(())
    }

    /// All replicas of a group are lost, of one of them only the end.
    fn lose_all(&mut self, at: usize, own: &mut Random) {
        let moves = self.meta.under_way().next().map(|(slot, of)| [self.meta.slots.group_of(slot), of.to]);
        let group = match moves {
            Some(groups) if own.chance(3, 4) => groups[own.below(2) as usize],
            _ => self.any_of(at, own),
        };
        let (keeps, part, of) = (own.chance(2, 3), own.below(1 << 16), 1 << 16);
        for node in 0..self.nodes.len() {
            let wait = 1 + own.below(120);
            if self.nodes[node].up {
                self.lose_one(node, group, true, wait, (keeps && node == at).then_some((part, of)));
            }
        }
    }

    /// All faults are over.
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        self.healed = true;
        self.cuts.iter_mut().flatten().for_each(|until| *until = 0);
        for at in 0..self.nodes.len() {
            let left = self.meta.book.left.contains(&self.nodes[at].id);
            let node = &mut self.nodes[at];
            (node.paused_until, node.slow_until) = (0, 0);
            if left {
                (node.up, node.away) = (false, true);
                node.parts.iter_mut().flatten().for_each(|part| part.replica = None);
            }
            if !node.up && !node.away {
                self.boot(at)?;
            }
            for place in 0..self.nodes[at].held.len() {
                let group = self.nodes[at].held[place];
                let Some(part) = self.nodes[at].part(group) else { continue };
                // A flip that no digest has shown yet is mended: what it did so far was checked.
                if let Some(replica) = &mut part.replica
                    && part.flipped.take().is_some()
                    && let Some(state) = self.checkers[usize::from(group)].state(replica.commit())
                {
                    replica.machine_mut().0 = state;
                }
            }
        }
        Ok(())
    }
}
