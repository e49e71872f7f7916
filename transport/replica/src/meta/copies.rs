//! Copies of a group that move from node to node, while it is led and fed.
//!
//! A copy that comes is one more at first: its node holds the group from there on, follows, catches up, and is in sync by the same rule as
//! anybody else. Only once it is, and its node says that it computes what the group's log leads to, the copy that it replaces goes. So at no
//! time are there fewer that have everything than before, and whoever is interrupted in between leaves one copy too many, not one too few.

use super::{GroupId, Member, Meta, NodeId, Rejection};
use crate::rules::Rule;
use serde::{Deserialize, Serialize};

/// Copies that may be on their way at a time: each takes a snapshot's bytes off a leader's budget, and none comes to a node that waits for
/// another one already.
pub const COMING_MAX: usize = 4;

/// A copy on its way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming {
    /// The node.
    pub to: NodeId,
    /// Whose copy goes once this one is there; none where it is one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeId>,
}

impl Meta {
    /// Whether a node belongs to the cluster as this very start, which was not given up: what it is told here is no older than that start.
    fn is_registered(&self, me: Member) -> bool {
        let known = self.nodes.get(&me.node);
        known.is_some_and(|known| known.incarnation == me.incarnation && !known.fenced)
    }

    /// Whether a node, in its newest incarnation `me`, is to hold a group. Not in one that held it before: what that acknowledged the new
    /// copy does not have.
    #[must_use]
    pub fn takes_up(&self, group: GroupId, me: Member) -> bool {
        self.is_registered(me) && self.is_held(group, me.node) && !self.has_given_up(group, me)
    }

    /// Whether this incarnation was let go from a group: it counts there no more, though its node may hold the group again. It may hear late
    /// that it was let go, and removes then what it has.
    pub(super) fn has_given_up(&self, group: GroupId, member: Member) -> bool {
        let last = self.group(group).and_then(|group| group.gave_up.get(&member.node).copied());
        last >= Some(member.incarnation) && self.rules.hold(Rule::CopyComesAnew)
    }

    /// Whether a node, in its newest incarnation `me`, is to hold a group no longer, and may remove what it has of it. A node that starts
    /// hears of metadata from the past on: what that says of copies counts from when it knows this start.
    #[must_use]
    pub fn gives_up(&self, group: GroupId, me: Member) -> bool {
        let knows = self.is_registered(me) || !self.rules.hold(Rule::GivesUpConfirmed);
        // Also where it is to hold the group again, and has not heard that it was let go meanwhile: what it has counts no more.
        knows && (!self.is_held(group, me.node) || self.has_given_up(group, me))
    }

    /// Whether a node's copy of a group is still on its way: it may have everything, and computes nothing of it yet.
    #[must_use]
    pub fn is_coming(&self, group: GroupId, node: NodeId) -> bool {
        self.group(group).and_then(|group| group.coming).is_some_and(|coming| coming.to == node)
    }

    /// Copies on their way, with their groups.
    pub fn coming(&self) -> impl Iterator<Item = (GroupId, Coming)> {
        self.numbered().filter_map(|(id, group)| Some((id, group.coming?)))
    }

    fn same_version(&self, group: GroupId, version: u64) -> Result<usize, Rejection> {
        let at = self.at(group)?;
        let known = self.groups[at].version;
        if version == known { Ok(at) } else { Err(Rejection::Version(known)) }
    }

    /// A copy begins to come.
    pub(super) fn move_copy(
        &mut self,
        group: GroupId,
        version: u64,
        to: NodeId,
        from: Option<NodeId>,
    ) -> Result<(), Rejection> {
        let at = self.same_version(group, version)?;
        let holders = &self.groups[at].holders;
        if holders.is_empty() {
            return Err(Rejection::Malformed("every node holds every group"));
        }
        if !self.nodes.contains_key(&to) {
            return Err(Rejection::Malformed("a copy goes to a node that is in the cluster and was started"));
        }
        if holders.contains(&to) {
            return Err(Rejection::Malformed("the node holds the group already"));
        }
        if from.is_some_and(|from| !holders.contains(&from)) {
            return Err(Rejection::Malformed("the node whose copy is to go holds none"));
        }
        if self.rules.hold(Rule::CopiesOneByOne) {
            if self.groups[at].coming.is_some() {
                return Err(Rejection::NotYet("another copy of the group is on its way"));
            }
            if self.coming().any(|(_, coming)| coming.to == to) {
                return Err(Rejection::NotYet("another copy is on its way to the node"));
            }
            if self.coming().count() >= COMING_MAX {
                return Err(Rejection::NotYet("four copies are on their way"));
            }
        }
        let group = &mut self.groups[at];
        group.holders.push(to);
        group.coming = Some(Coming { to, from });
        group.version += 1;
        Ok(())
    }

    /// A copy is there: its node has everything and computes. The one that it replaces goes.
    pub(super) fn took_up(&mut self, group: GroupId, member: Member) -> Result<(), Rejection> {
        let at = self.at(group)?;
        let Some(coming) = self.groups[at].coming.filter(|coming| coming.to == member.node) else {
            return Err(Rejection::NotYet("no copy is on its way there"));
        };
        if !self.is_live(group, member) {
            return Err(Rejection::Incarnation(member));
        }
        if !self.groups[at].isr.contains(&member) && self.rules.hold(Rule::CopyInSyncFirst) {
            return Err(Rejection::NotYet("the copy that comes is not in sync"));
        }
        // Where others have left meanwhile and no more hold it than are needed, this one is one more.
        let spare = self.groups[at].holders.len() > self.groups[at].min_isr;
        if let Some(from) = coming.from.filter(|_| spare) {
            self.may_let_go(at, from)?;
            self.let_go(at, from);
        }
        self.groups[at].coming = None;
        self.groups[at].version += 1;
        Ok(())
    }

    /// A copy that is on its way comes no longer.
    pub(super) fn stop_copy(&mut self, group: GroupId, version: u64) -> Result<(), Rejection> {
        let at = self.same_version(group, version)?;
        let Some(coming) = self.groups[at].coming else {
            return Err(Rejection::Malformed("no copy of the group is on its way"));
        };
        let left = self.groups[at].holders.len() - 1;
        let least = self.groups[at].min_isr;
        if left < least {
            return Err(Rejection::Needed { left, least, what: "holders of a group" });
        }
        self.may_let_go(at, coming.to)?;
        self.let_go(at, coming.to);
        self.groups[at].coming = None;
        self.groups[at].version += 1;
        Ok(())
    }

    /// Whether the others of a group have all there is, and are enough to go on.
    fn may_let_go(&self, at: usize, node: NodeId) -> Result<(), Rejection> {
        let group = &self.groups[at];
        let counts = group.isr.iter().chain(&group.elr).any(|member| member.node == node);
        let stays = |member: &&Member| member.node != node && self.is_live(at as GroupId, **member);
        let (left, least) = (group.isr.iter().filter(stays).count(), group.min_isr);
        if counts && left < least && self.rules.hold(Rule::CopyKeepsEnough) {
            return Err(Rejection::Needed { left, least, what: "in sync" });
        }
        Ok(())
    }

    /// A node holds a group no longer. Which incarnations it had there stays known: it may come back.
    fn let_go(&mut self, at: usize, node: NodeId) {
        let mut leads = self.leads();
        let newest = self.newest(at as GroupId, node);
        let group = &mut self.groups[at];
        for set in [&mut group.isr, &mut group.elr] {
            set.retain(|member| member.node != node);
        }
        group.holders.retain(|holder| *holder != node);
        group.gave_up.extend(newest.map(|incarnation| (node, incarnation)));
        if group.leader.is_some_and(|leader| leader.node == node) {
            // Whoever has just taken it up may lead.
            group.coming = None;
            self.elect(at, &mut leads);
        }
    }

    /// A node has left the cluster: what came to it comes no longer, and what came in its place is one more.
    pub(crate) fn left_copies(&mut self, at: usize, node: NodeId) {
        let coming = &mut self.groups[at].coming;
        coming.take_if(|coming| coming.to == node);
        if let Some(coming) = coming {
            coming.from.take_if(|from| *from == node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Command, Layout};
    use crate::rules::Rules;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const fn member(node: NodeId, incarnation: u64) -> Member {
        Member { node, incarnation }
    }

    /// Three nodes, two copies of each of three groups.
    fn meta() -> Meta {
        Meta::laid_out(
            &Layout { groups: 3, copies: 2, min_isr: 2, ..Layout::of(&[1, 2, 3]) },
            Rules::default(),
        )
    }

    fn move_copy(meta: &Meta, group: GroupId, to: NodeId, from: Option<NodeId>) -> Command {
        Command::MoveCopy { group, version: meta.groups[usize::from(group)].version, to, from }
    }

    fn joins(meta: &mut Meta, group: GroupId, joiner: Member) {
        let Group { epoch, version, isr, .. } = meta.group(group).unwrap().clone();
        let isr = isr.into_iter().chain([joiner]).collect();
        meta.apply(&Command::AlterIsr { group, epoch, version, isr }).unwrap();
    }

    use crate::meta::Group;

    #[test]
    fn a_copy_goes_only_once_the_one_that_replaces_it_is_in_sync_and_says_so() {
        let mut meta = meta();
        let [from, stays] = meta.groups[0].holders[..] else { panic!("two holders") };
        let to = (1..=3).find(|node| ![from, stays].contains(node)).unwrap();
        assert_eq!(meta.groups[0].leader, Some(member(from, 1)));
        assert!(!meta.takes_up(0, member(to, 1)));
        let begin = move_copy(&meta, 0, to, Some(from));
        meta.apply(&begin).unwrap();
        assert!(matches!(meta.apply(&begin), Err(Rejection::Version(_))), "twice is once");
        assert!(meta.takes_up(0, member(to, 1)) && !meta.takes_up(0, member(to, 9)), "this start of it");
        assert_eq!((meta.groups[0].isr.len(), meta.groups[0].holders.len()), (2, 3), "it does not count yet");
        let there = Command::TookUp { group: 0, member: member(to, 1) };
        assert!(matches!(meta.apply(&there), Err(Rejection::NotYet(_))), "it lacks everything");
        joins(&mut meta, 0, member(to, 1));
        // It may have everything, and computes nothing: others lead first.
        assert!(meta.is_coming(0, to));
        let epoch = meta.groups[0].epoch;
        meta.apply(&there).unwrap();
        let group = &meta.groups[0];
        assert_eq!((group.holders.clone(), group.coming, group.isr.len()), (vec![stays, to], None, 2));
        assert!(group.epoch == epoch + 1 && group.leader.is_some_and(|leader| leader.node != from));
        assert!(meta.gives_up(0, member(from, 1)) && !meta.gives_up(0, member(stays, 1)));
        assert!(!meta.gives_up(0, member(from, 2)), "of a later start nothing is known here");
        assert!(matches!(meta.apply(&there), Err(Rejection::NotYet(_))), "said again, it is over");
    }

    #[test]
    fn with_as_many_copies_as_are_needed_a_dead_ones_place_is_taken() {
        let mut meta = meta();
        let [leads, dead] = meta.groups[1].holders[..] else { panic!("two holders") };
        let to = (1..=3).find(|node| ![leads, dead].contains(node)).unwrap();
        meta.apply(&Command::Fence { member: member(dead, 1) }).unwrap();
        assert_eq!((meta.groups[1].isr.len(), meta.groups[1].elr.len()), (1, 1), "nothing is committed");
        assert!(matches!(meta.apply(&Command::Leave { node: dead }), Err(Rejection::Needed { .. })));
        meta.apply(&move_copy(&meta, 1, to, Some(dead))).unwrap();
        joins(&mut meta, 1, member(to, 1));
        meta.apply(&Command::TookUp { group: 1, member: member(to, 1) }).unwrap();
        assert_eq!(meta.groups[1].holders, [leads, to]);
        assert!(meta.groups[1].elr.is_empty());
    }

    #[test]
    fn what_makes_no_copy_is_refused_and_so_are_too_many_at_once() {
        let mut meta = meta();
        let [first, second] = meta.groups[0].holders[..] else { panic!("two holders") };
        let to = (1..=3).find(|node| ![first, second].contains(node)).unwrap();
        for (to, from) in [(9, Some(first)), (second, Some(first)), (to, Some(to)), (first, None)] {
            let refused = meta.apply(&move_copy(&meta, 0, to, from));
            assert!(matches!(refused, Err(Rejection::Malformed(_))), "{to} {from:?}: {refused:?}");
        }
        let mut whole = Meta::new(&[1, 2, 3], 2, Rules::default());
        let all = Command::MoveCopy { group: 0, version: 1, to: 2, from: Some(1) };
        assert_eq!(whole.apply(&all), Err(Rejection::Malformed("every node holds every group")));
        meta.apply(&move_copy(&meta, 0, to, Some(first))).unwrap();
        // None of the same group, and none to the same node.
        let other = (0..3).find(|group| !meta.is_held(*group, to)).unwrap_or(0);
        for group in [0, other] {
            let refused = meta.apply(&move_copy(&meta, group, to, None));
            assert!(refused.is_err(), "{refused:?}");
        }
        // Stopped, all is as it was but for the version.
        let version = meta.groups[0].version;
        meta.apply(&Command::StopCopy { group: 0, version }).unwrap();
        assert_eq!((&meta.groups[0].holders[..], meta.groups[0].coming), (&[first, second][..], None));
        assert!(meta.gives_up(0, member(to, 1)));
        // A copy that comes once more is not that one.
        let mut more = meta.clone();
        more.apply(&move_copy(&more, 0, to, None)).unwrap();
        assert!(!more.takes_up(0, member(to, 1)));
        let anew = Command::Register { member: member(to, 2), lossy: false, lost: Vec::new() };
        more.apply(&anew).unwrap();
        assert!(more.takes_up(0, member(to, 2)));
        let again = Command::StopCopy { group: 0, version: version + 1 };
        assert!(matches!(meta.apply(&again), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn copies_on_their_way_are_written_only_where_there_are_any() {
        let mut meta = meta();
        let before = serde_json::to_string(&meta).unwrap();
        assert!(!before.contains("coming"), "{before}");
        let to = (1..=3).find(|node| !meta.is_held(2, *node)).unwrap();
        meta.apply(&move_copy(&meta, 2, to, None)).unwrap();
        let written = serde_json::to_string(&meta).unwrap();
        assert_eq!(serde_json::from_str::<Meta>(&written).unwrap(), meta);
    }

    proptest! {
        /// Whatever is asked in whatever order: who is in sync or eligible holds the group, a copy at a time comes to a group and to a node,
        /// and a group that had enough in sync when copies moved has them afterwards.
        #[test]
        fn any_order_of_commands_keeps_enough_copies(
            copies in 2usize..=3, min_isr in 1usize..=2,
            asked in proptest::collection::vec((0u8..8, 0u16..4, 1u16..=6, 1u16..=6), 0..120),
        ) {
            let layout = Layout { groups: 4, copies, min_isr, ..Layout::of(&[1, 2, 3, 4, 5, 6]) };
            let mut meta = Meta::laid_out(&layout, Rules::default());
            for (what, group, node, other) in asked {
                let of = meta.group(group).unwrap().clone();
                let known = meta.newest(group, node).unwrap_or(1);
                let here = member(node, known);
                let enough = |meta: &Meta| -> Vec<bool> {
                    meta.groups.iter().map(|group| group.isr.len() >= group.min_isr).collect()
                };
                let had = enough(&meta);
                let command = match what {
                    0 | 1 => Command::MoveCopy { group, version: of.version, to: node, from: Some(other) },
                    2 => Command::TookUp { group, member: of.coming.map_or(here, |coming| {
                        member(coming.to, meta.newest(group, coming.to).unwrap_or(1))
                    }) },
                    3 => Command::StopCopy { group, version: of.version },
                    4 => Command::Fence { member: here },
                    5 => Command::Register { member: member(node, known + 1), lossy: other > 4, lost: Vec::new() },
                    6 => Command::Leave { node },
                    _ => {
                        let joiner = of.coming.map_or(here, |coming| {
                            member(coming.to, meta.newest(group, coming.to).unwrap_or(1))
                        });
                        let isr = of.isr.iter().copied().filter(|other| other.node != joiner.node);
                        let isr = isr.chain([joiner]).collect();
                        Command::AlterIsr { group, epoch: of.epoch, version: of.version, isr }
                    }
                };
                let took = meta.apply(&command).is_ok();
                let moves = matches!(command, Command::TookUp { .. } | Command::StopCopy { .. } | Command::MoveCopy { .. });
                for (at, (group, had)) in meta.groups.iter().zip(had).enumerate() {
                    let distinct: BTreeSet<NodeId> = group.holders.iter().copied().collect();
                    prop_assert_eq!(distinct.len(), group.holders.len());
                    prop_assert!(group.holders.len() <= copies + 1);
                    prop_assert!(group.isr.iter().chain(&group.elr).all(|of| distinct.contains(&of.node)));
                    prop_assert!(group.leader.is_none_or(|leader| group.isr.contains(&leader)));
                    let holds = |coming: Coming| {
                        let from = coming.from.is_none_or(|from| distinct.contains(&from));
                        from && distinct.contains(&coming.to)
                    };
                    prop_assert!(group.coming.is_none_or(holds));
                    let has = group.isr.len() >= group.min_isr;
                    prop_assert!(!(took && moves && had) || has, "group {at} after {command:?}");
                }
                let to: BTreeSet<NodeId> = meta.coming().map(|(_, coming)| coming.to).collect();
                prop_assert!(to.len() == meta.coming().count() && to.len() <= COMING_MAX);
            }
        }
    }
}
