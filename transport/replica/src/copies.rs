//! Which nodes should hold what: a plan of copies that move, as few as will do.
//!
//! Nothing here decides that a node is gone: whoever asks for a plan says whose copies are to go elsewhere. A short absence moves nothing.

use crate::meta::{COMING_MAX, Command, GroupId, Meta, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// One copy comes to a node, in another one's place or as one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyMove {
    /// Of which group.
    pub group: GroupId,
    /// The node that is to hold it.
    pub to: NodeId,
    /// The node that is to hold it no longer.
    pub from: Option<NodeId>,
}

impl CopyMove {
    /// The command that begins it, by what metadata is now.
    #[must_use]
    pub fn command(&self, meta: &Meta) -> Option<Command> {
        let Self { group, to, from } = *self;
        Some(Command::MoveCopy { group, version: meta.group(group)?.version, to, from })
    }

    /// Whether it may begin: none comes to that group or node, and not too many come at all.
    #[must_use]
    pub fn may_begin(&self, meta: &Meta) -> bool {
        let waits =
            |(group, coming): (GroupId, crate::meta::Coming)| group == self.group || coming.to == self.to;
        meta.coming().count() < COMING_MAX && !meta.coming().any(waits)
    }
}

/// What to move, and what each node holds before and after it; copies that are on their way count as if they were there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// In this order; no group twice.
    pub moves: Vec<CopyMove>,
    /// Groups of which a copy should go elsewhere, and no node is there that could take it.
    pub without_room: Vec<GroupId>,
    /// Groups that each node holds now.
    pub before: BTreeMap<NodeId, usize>,
    /// Groups that each node holds then.
    pub after: BTreeMap<NodeId, usize>,
}

impl Copies {
    /// Copies of these nodes go to others that are at hand: to other zones than the rest first, then to whoever holds the least.
    #[must_use]
    pub fn away(meta: &Meta, from: &BTreeSet<NodeId>) -> Self {
        let mut planner = Planner::of(meta, from);
        planner.away(from);
        planner.settle();
        planner.plan
    }

    /// Where fewer than `copies` nodes hold a group others are added; then copies go to zones that have none of their group, and from who
    /// holds the most to who holds the least, until nobody holds two more than anybody else.
    #[must_use]
    pub fn even(meta: &Meta, copies: usize) -> Self {
        let mut planner = Planner::of(meta, &BTreeSet::new());
        planner.restore(copies);
        planner.settle();
        planner.spread();
        planner.level();
        planner.plan
    }
}

struct Planner<'m> {
    meta: &'m Meta,
    /// By group, who holds it once all that is under way is done.
    held: Vec<BTreeSet<NodeId>>,
    /// Who may take a copy.
    able: BTreeSet<NodeId>,
    /// Groups that something is under way or planned for.
    busy: BTreeSet<GroupId>,
    plan: Copies,
}

impl<'m> Planner<'m> {
    fn of(meta: &'m Meta, from: &BTreeSet<NodeId>) -> Self {
        let place = |(_, group): (GroupId, &crate::meta::Group)| {
            let goes = group.coming.and_then(|coming| coming.from);
            group.holders.iter().copied().filter(|node| Some(*node) != goes).collect()
        };
        let held: Vec<BTreeSet<NodeId>> = meta.numbered().map(place).collect();
        let belongs = |node: &NodeId| meta.book.places.is_empty() || meta.book.places.contains_key(node);
        let live = meta.nodes.iter().filter(|(_, state)| !state.fenced).map(|(node, _)| *node);
        let able: BTreeSet<NodeId> = live
            .filter(|node| belongs(node) && !meta.drained.contains(node) && !from.contains(node))
            .collect();
        let mut before: BTreeMap<NodeId, usize> = meta.nodes.keys().map(|node| (*node, 0)).collect();
        for node in held.iter().flatten() {
            *before.entry(*node).or_default() += 1;
        }
        let busy = meta.coming().map(|(group, _)| group).collect();
        let plan = Copies { after: before.clone(), before, ..Copies::default() };
        Self { meta, held, able, busy, plan }
    }

    fn count(&self, node: NodeId) -> usize {
        self.plan.after.get(&node).copied().unwrap_or(0)
    }

    /// How many of a group's holders fail together with a node, `besides` one that goes.
    fn near(&self, group: GroupId, node: NodeId, besides: Option<NodeId>) -> usize {
        let others = self.held[usize::from(group)].iter();
        let others = others.filter(|other| Some(**other) != besides && **other != node);
        others.filter(|other| self.meta.zone(**other) == self.meta.zone(node)).count()
    }

    /// The best of those that may take a copy of a group.
    fn taker(&self, group: GroupId, from: Option<NodeId>) -> Option<NodeId> {
        let free = self.able.iter().copied().filter(|node| !self.held[usize::from(group)].contains(node));
        free.min_by_key(|node| (self.near(group, *node, from), self.count(*node), *node))
    }

    fn go(&mut self, group: GroupId, to: NodeId, from: Option<NodeId>) {
        let held = &mut self.held[usize::from(group)];
        held.insert(to);
        *self.plan.after.entry(to).or_default() += 1;
        if let Some(from) = from {
            held.remove(&from);
            self.plan.after.entry(from).and_modify(|count| *count -= 1);
        }
        self.busy.insert(group);
        self.plan.moves.push(CopyMove { group, to, from });
    }

    fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..).take(self.held.len()).map(|group: GroupId| group)
    }

    fn away(&mut self, from: &BTreeSet<NodeId>) {
        for group in self.groups() {
            let gone = self.held[usize::from(group)].iter().copied().find(|node| from.contains(node));
            let Some(gone) = gone.filter(|_| !self.busy.contains(&group)) else { continue };
            match self.taker(group, Some(gone)) {
                Some(to) => self.go(group, to, Some(gone)),
                None => self.plan.without_room.push(group),
            }
        }
    }

    /// What was given to a node that has much goes to one that has less and may take it: who shared the most with those that go could take the
    /// least of it.
    fn settle(&mut self) {
        for at in (0..self.plan.moves.len()).cycle().take(4 * self.plan.moves.len()) {
            let CopyMove { group, to, from } = self.plan.moves[at];
            let other = self.taker(group, from).filter(|other| {
                self.count(*other) + 2 <= self.count(to)
                    && self.near(group, *other, Some(to)) <= self.near(group, to, None)
            });
            let Some(other) = other else { continue };
            let held = &mut self.held[usize::from(group)];
            held.remove(&to);
            held.insert(other);
            self.plan.moves[at].to = other;
            *self.plan.after.entry(other).or_default() += 1;
            self.plan.after.entry(to).and_modify(|count| *count -= 1);
        }
    }

    fn restore(&mut self, copies: usize) {
        for group in self.groups() {
            let held = self.held[usize::from(group)].len();
            // Where all hold all nobody is named.
            if held == 0 || held >= copies || self.busy.contains(&group) {
                continue;
            }
            match self.taker(group, None) {
                Some(to) => self.go(group, to, None),
                None => self.plan.without_room.push(group),
            }
        }
    }

    /// Copies that lie in one zone, while another one has none.
    fn spread(&mut self) {
        for group in self.groups() {
            if self.busy.contains(&group) {
                continue;
            }
            let holders = self.held[usize::from(group)].iter().copied();
            // Whoever is away may come back with what it has.
            let crowded = holders.filter(|node| self.is_at_hand(*node) && self.near(group, *node, None) > 0);
            let from = crowded.max_by_key(|node| (self.count(*node), *node));
            if let Some(from) = from
                && let Some(to) = self.taker(group, Some(from))
                && self.near(group, to, Some(from)) == 0
            {
                self.go(group, to, Some(from));
            }
        }
    }

    fn is_at_hand(&self, node: NodeId) -> bool {
        self.meta.nodes.get(&node).is_some_and(|known| !known.fenced)
    }

    /// From who holds the most to who holds the least.
    fn level(&mut self) {
        while let Some((group, from, to)) = self.next_level() {
            self.go(group, to, Some(from));
        }
    }

    fn next_level(&self) -> Option<(GroupId, NodeId, NodeId)> {
        let here = self.meta.nodes.keys().copied().filter(|node| self.is_at_hand(*node));
        let mut most: Vec<NodeId> = here.collect();
        most.sort_by_key(|node| (std::cmp::Reverse(self.count(*node)), *node));
        let mut least: Vec<NodeId> = self.able.iter().copied().collect();
        least.sort_by_key(|node| (self.count(*node), *node));
        let pairs = most.iter().flat_map(|from| least.iter().map(move |to| (*from, *to)));
        let mut worth = pairs.filter(|(from, to)| self.count(*from) >= self.count(*to) + 2);
        worth.find_map(|(from, to)| {
            let fits = |group: &GroupId| {
                let held = &self.held[usize::from(*group)];
                let apart = self.near(*group, to, Some(from)) <= self.near(*group, from, None);
                held.contains(&from) && !held.contains(&to) && !self.busy.contains(group) && apart
            };
            // What it does not lead first: nobody else need begin to lead that.
            let leads = |group: &GroupId| {
                let leader = self.meta.group(*group).and_then(|group| group.leader);
                leader.is_some_and(|leader| leader.node == from)
            };
            let group = self.groups().filter(fits).min_by_key(|group| (leads(group), *group))?;
            Some((group, from, to))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Place;
    use crate::meta::{Layout, Member};
    use crate::rules::Rules;
    use proptest::prelude::*;

    fn place(node: NodeId, zone: Option<String>) -> Place {
        let at = |port| ([10, 0, 0, node as u8], port).into();
        Place { peers: at(7_500), clients: at(7_443), zone }
    }

    fn cluster(nodes: u16, zones: usize, groups: usize, copies: usize) -> Meta {
        let nodes: Vec<NodeId> = (1..=nodes).collect();
        let zone = |node: &NodeId| (zones > 1).then(|| format!("z{}", usize::from(*node) % zones));
        let named = nodes.iter().filter_map(|node| Some((*node, zone(node)?))).collect();
        let places = nodes.iter().map(|node| (*node, place(*node, zone(node)))).collect();
        let layout = Layout { zones: named, groups, copies, min_isr: 1, nodes };
        Meta::laid_out(&layout, Rules::default()).founded(&places)
    }

    /// A node joins and is started.
    fn join(meta: &mut Meta, node: NodeId) {
        meta.apply(&Command::Join { node, place: place(node, None) }).unwrap();
        let member = Member { node, incarnation: 1 };
        meta.apply(&Command::Register { member, lossy: true, lost: Vec::new() }).unwrap();
    }

    /// Carries a plan out, as far as metadata lets it, as nodes would.
    fn carry_out(meta: &mut Meta, plan: &Copies) {
        for one in &plan.moves {
            assert!(one.may_begin(meta), "{one:?}");
            meta.apply(&one.command(meta).unwrap()).unwrap();
            let joiner = Member { node: one.to, incarnation: meta.newest(one.group, one.to).unwrap() };
            let of = meta.group(one.group).unwrap().clone();
            let isr = of.isr.iter().copied().chain([joiner]).collect();
            let (group, epoch, version) = (one.group, of.epoch, of.version);
            meta.apply(&Command::AlterIsr { group, epoch, version, isr }).unwrap();
            meta.apply(&Command::TookUp { group, member: joiner }).unwrap();
        }
    }

    fn counts(meta: &Meta) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<NodeId, usize> = meta.nodes.keys().map(|node| (*node, 0)).collect();
        for node in meta.groups.iter().flat_map(|group| &group.holders) {
            *counts.get_mut(node).unwrap() += 1;
        }
        counts
    }

    fn zones(meta: &Meta, group: usize) -> usize {
        let zones = meta.groups[group].holders.iter().map(|node| meta.zone(*node));
        zones.collect::<BTreeSet<_>>().len()
    }

    proptest! {
        #[test]
        fn whoever_joins_gets_its_share_and_then_nothing_moves(
            nodes in 2u16..=8, groups in 1usize..=64, copies in 1usize..=4, joiners in 1u16..=3,
        ) {
            let copies = copies.min(usize::from(nodes) - 1);
            let mut meta = cluster(nodes, 1, groups, copies);
            (1..=joiners).for_each(|more| join(&mut meta, nodes + more));
            // A group is in a plan once, so what is left is the next one's.
            let mut moved = 0;
            loop {
                let plan = Copies::even(&meta, copies);
                if plan.moves.is_empty() {
                    break;
                }
                moved += plan.moves.len();
                carry_out(&mut meta, &plan);
                prop_assert_eq!(&counts(&meta), &plan.after);
            }
            let counts = counts(&meta);
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            prop_assert!(most - least <= 1, "{counts:?}");
            prop_assert!(meta.groups.iter().all(|group| group.holders.len() == copies));
            // No more than what the joiners hold now: nothing moves among the others.
            let taken: usize = (1..=joiners).map(|more| counts[&(nodes + more)]).sum();
            prop_assert!(moved <= taken + usize::from(nodes), "{moved} moves for {taken}");
        }

        #[test]
        fn copies_of_who_goes_lie_apart_and_evenly_elsewhere(
            per_zone in 1u16..=3, zones_count in 1usize..=4, groups in 1usize..=64, copies in 1usize..=3, gone in 1u16..=12,
        ) {
            let nodes = per_zone * zones_count as u16 + 1;
            let copies = copies.min(usize::from(nodes) - 1);
            let mut meta = cluster(nodes, zones_count, groups, copies);
            let gone = (gone - 1) % nodes + 1;
            let apart: Vec<usize> = (0..groups).map(|group| zones(&meta, group)).collect();
            let plan = Copies::away(&meta, &[gone].into());
            prop_assert!(plan.without_room.is_empty());
            prop_assert!(plan.moves.iter().all(|one| one.from == Some(gone) && one.to != gone));
            carry_out(&mut meta, &plan);
            let counts = counts(&meta);
            prop_assert_eq!(counts[&gone], 0);
            for (group, before) in apart.iter().enumerate() {
                // Its zone may have had nobody else.
                prop_assert!(zones(&meta, group) + 1 >= *before);
                prop_assert_eq!(meta.groups[group].holders.len(), copies);
            }
            meta.apply(&Command::Leave { node: gone }).unwrap();
            if zones_count == 1 {
                // Who held most of what it held could take least of that.
                loop {
                    let plan = Copies::even(&meta, copies);
                    if plan.moves.is_empty() {
                        break;
                    }
                    carry_out(&mut meta, &plan);
                }
                let counts = self::counts(&meta);
                let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
                prop_assert!(most - least <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn nobody_who_is_away_or_drained_gets_anything_and_nothing_moves_for_a_short_absence() {
        let mut meta = cluster(4, 1, 6, 2);
        join(&mut meta, 5);
        meta.apply(&Command::Fence { member: Member { node: 5, incarnation: 1 } }).unwrap();
        assert_eq!(
            Copies::even(&meta, 2).moves,
            [],
            "who is away comes back with what it has, or with nothing"
        );
        let all = [1, 2, 3, 4].into();
        let none = Copies::away(&meta, &all);
        assert_eq!((none.moves.len(), none.without_room.len()), (0, 6));
        meta.apply(&Command::Drain { node: 4, drained: true }).unwrap();
        let plan = Copies::away(&meta, &[1].into());
        assert!(!plan.moves.is_empty() && plan.moves.iter().all(|one| [2, 3].contains(&one.to)), "{plan:?}");
    }

    #[test]
    fn a_missing_copy_is_added_and_one_zone_too_many_left() {
        let mut meta = cluster(4, 2, 4, 2);
        let gone = 4;
        let held: Vec<GroupId> = (0..4).filter(|group| meta.is_held(*group, gone)).collect();
        meta.apply(&Command::Leave { node: gone }).unwrap();
        let plan = Copies::even(&meta, 2);
        let added: Vec<GroupId> =
            plan.moves.iter().filter(|one| one.from.is_none()).map(|one| one.group).collect();
        assert_eq!(added, held);
        carry_out(&mut meta, &plan);
        assert!(meta.groups.iter().all(|group| group.holders.len() == 2));
        // A node comes in a zone of its own; what lies in one zone goes there.
        let place = Place { zone: Some("z9".to_owned()), ..place(5, None) };
        meta.apply(&Command::Join { node: 5, place }).unwrap();
        let member = Member { node: 5, incarnation: 1 };
        meta.apply(&Command::Register { member, lossy: true, lost: Vec::new() }).unwrap();
        loop {
            let plan = Copies::even(&meta, 2);
            if plan.moves.is_empty() {
                break;
            }
            carry_out(&mut meta, &plan);
        }
        assert!((0..4).all(|group| zones(&meta, group) == 2), "{:?}", meta.groups);
    }
}
