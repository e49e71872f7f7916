//! Which slots make which group, and which nodes hold it, when a cluster begins.

use super::{GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Slots of a cluster, as the engine counts them: fixed for its life.
pub const SLOTS: u16 = 4_096;

/// Which group each slot belongs to. A key's slot never changes; what changes is whose the slot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots(
    /// Where runs of slots of one group begin, and of which; the first begins at slot 0.
    Vec<(u16, GroupId)>,
);

impl Default for Slots {
    fn default() -> Self {
        Self::even(1)
    }
}

impl Slots {
    /// One run of slots for each group, as long as each other to within one.
    #[must_use]
    pub fn even(groups: usize) -> Self {
        let begin = |group: usize| (usize::from(SLOTS) * group / groups) as u16;
        Self((0..groups).map(|group| (begin(group), group as GroupId)).collect())
    }

    /// Whether all of them are one group's.
    #[must_use]
    pub fn is_one(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every slot is of one of so many groups, and each group has one.
    pub(super) fn are_of(&self, groups: usize) -> bool {
        let ordered = self.0.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let named: BTreeSet<usize> = self.0.iter().map(|(_, group)| usize::from(*group)).collect();
        let within = self.0.first().is_some_and(|first| first.0 == 0)
            && self.0.last().is_some_and(|last| last.0 < SLOTS);
        ordered && within && named.len() == groups && named.last() == Some(&(groups - 1))
    }

    /// A slot is another group's from here on.
    pub(super) fn give(&mut self, slot: u16, to: GroupId) {
        let of = |at| if at == slot { to } else { self.group_of(at) };
        let mut runs: Vec<(u16, GroupId)> = (0..SLOTS).map(|at| (at, of(at))).collect();
        runs.dedup_by_key(|(_, group)| *group);
        self.0 = runs;
    }

    /// The group of a slot.
    #[must_use]
    pub fn group_of(&self, slot: u16) -> GroupId {
        let at = self.0.partition_point(|(first, _)| *first <= slot);
        at.checked_sub(1).and_then(|at| self.0.get(at)).map_or(0, |run| run.1)
    }

    /// Where runs of slots of one group begin, and of which; the first begins at slot 0.
    #[must_use]
    pub fn runs(&self) -> &[(u16, GroupId)] {
        &self.0
    }

    /// How many slots a group has.
    #[must_use]
    pub fn count(&self, group: GroupId) -> u16 {
        let ends = self.0.iter().skip(1).map(|run| run.0).chain([SLOTS]);
        self.0.iter().zip(ends).filter(|(run, _)| run.1 == group).map(|(run, end)| end - run.0).sum()
    }
}

/// How a cluster begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// What fails together, of the nodes of which it is known.
    pub zones: BTreeMap<NodeId, String>,
    /// How many groups, 1 to [`SLOTS`].
    pub groups: usize,
    /// Nodes that hold each group; 0 for all.
    pub copies: usize,
    /// Members needed to commit.
    pub min_isr: usize,
}

impl Layout {
    /// One group on all of these.
    #[must_use]
    pub fn of(nodes: &[NodeId]) -> Self {
        Self { nodes: nodes.to_vec(), zones: BTreeMap::new(), groups: 1, copies: 0, min_isr: 1 }
    }

    /// Which slots make which group.
    #[must_use]
    pub fn slots(&self) -> Slots {
        Slots::even(self.groups)
    }

    /// The holders of each group, who leads first: copies lie in as many zones as there are, and every node holds and leads as much as
    /// any other, to within one where zones are of one size.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn place(&self) -> Vec<Vec<NodeId>> {
        assert!(!self.nodes.is_empty(), "a cluster has nodes");
        let copies = if self.copies == 0 { self.nodes.len() } else { self.copies.min(self.nodes.len()) };
        let zone = |node: &NodeId| self.zones.get(node).map_or("", String::as_str);
        // Where a group is looked at in turn begins one further each time, so that ties go round.
        let (mut held, mut led) = (vec![0usize; self.nodes.len()], vec![0usize; self.nodes.len()]);
        let mut placed = Vec::with_capacity(self.groups);
        for group in 0..self.groups {
            let turn = |at: usize| (at + self.nodes.len() - group % self.nodes.len()) % self.nodes.len();
            let mut chosen: Vec<usize> = Vec::with_capacity(copies);
            while chosen.len() < copies {
                let in_zone = |at: usize| {
                    chosen.iter().filter(|other| zone(&self.nodes[**other]) == zone(&self.nodes[at])).count()
                };
                let free = (0..self.nodes.len()).filter(|at| !chosen.contains(at));
                let Some(next) = free.min_by_key(|&at| (in_zone(at), held[at], turn(at))) else { break };
                held[next] += 1;
                chosen.push(next);
            }
            let leads = (0..chosen.len()).min_by_key(|&at| (led[chosen[at]], turn(chosen[at])));
            if let Some(first) = leads {
                // Those behind keep their order, so that with one group nothing is as it was not before.
                chosen[..=first].rotate_right(1);
                led[chosen[0]] += 1;
            }
            placed.push(chosen.into_iter().map(|at| self.nodes[at]).collect());
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_slot_is_of_one_group_and_groups_are_of_one_size(groups in 1usize..=4_096) {
            let slots = Slots::even(groups);
            prop_assert!(slots.are_of(groups));
            let counts: Vec<u16> = (0..groups).map(|group| slots.count(group as GroupId)).collect();
            prop_assert_eq!(counts.iter().map(|count| usize::from(*count)).sum::<usize>(), usize::from(SLOTS));
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            for slot in (0..SLOTS).step_by(61) {
                prop_assert!(usize::from(slots.group_of(slot)) < groups);
            }
        }

        #[test]
        fn copies_lie_in_different_zones_and_work_is_even(
            zones in 1usize..=6, each in 1usize..=8, groups in 1usize..=200, copies in 1usize..=5,
        ) {
            let nodes: Vec<NodeId> = (1..=(zones * each) as NodeId).collect();
            let zone = |node: &NodeId| usize::from(*node) % zones;
            let names = nodes.iter().map(|node| (*node, format!("z{}", zone(node)))).collect();
            let copies = copies.min(nodes.len());
            let layout = Layout { zones: names, groups, copies, min_isr: 1, nodes: nodes.clone() };
            let placed = layout.place();
            let (mut held, mut led) = (BTreeMap::new(), BTreeMap::new());
            for group in &placed {
                let distinct: BTreeSet<NodeId> = group.iter().copied().collect();
                prop_assert_eq!(distinct.len(), copies);
                let apart: BTreeSet<usize> = group.iter().map(zone).collect();
                prop_assert_eq!(apart.len(), copies.min(zones));
                *led.entry(group[0]).or_insert(0usize) += 1;
                group.iter().for_each(|node| *held.entry(*node).or_insert(0usize) += 1);
            }
            let most = |of: &BTreeMap<NodeId, usize>| nodes.iter().map(|node| of.get(node).copied().unwrap_or(0)).max();
            prop_assert!(most(&held) <= Some((groups * copies).div_ceil(nodes.len()) + 1));
            prop_assert!(most(&led) <= Some(groups.div_ceil(nodes.len()) + 2), "{:?}", led);
        }
    }
}
