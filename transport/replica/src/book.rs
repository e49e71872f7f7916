//! Who belongs to the cluster and where: the address book, and the commands that change it.
//!
//! A number is one node's for the cluster's life. Whoever has left does not come back under it, so that no copy of an old folder can
//! speak for a node that others have stopped waiting for.

use crate::meta::{Group, Member, Meta, NodeId, Rejection};
use crate::rules::Rule;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Nodes of a cluster at most.
pub const NODES_MAX: usize = 15;

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// For other nodes.
    pub peers: SocketAddr,
    /// For feeds and subscribers.
    pub clients: SocketAddr,
    /// What fails together, such as a rack or a data centre; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Place {
    fn addresses(&self) -> [SocketAddr; 2] {
        [self.peers, self.clients]
    }
}

/// The address book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Who belongs to the cluster. Empty where metadata is older than the book: then it is as the cluster was founded.
    pub places: BTreeMap<NodeId, Place>,
    /// Who belonged to it once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<NodeId>,
}

impl Meta {
    /// With an address book, unless it has one.
    #[must_use]
    pub fn founded(mut self, places: &BTreeMap<NodeId, Place>) -> Self {
        if self.book.places.is_empty() {
            self.book.places = places.clone();
        }
        self
    }

    /// A node belongs to the cluster from here on. The same again changes nothing but its zone.
    pub(crate) fn join(&mut self, node: NodeId, place: &Place) -> Result<(), Rejection> {
        if node == 0 {
            return Err(Rejection::Malformed("nodes are numbered from 1"));
        }
        if self.book.left.contains(&node) {
            return Err(Rejection::Left(node));
        }
        let same = |other: &Place| other.addresses() == place.addresses();
        if let Some(known) = self.book.places.get(&node)
            && !same(known)
        {
            return Err(Rejection::Taken { node, at: known.peers });
        }
        let others = self.book.places.iter().filter(|(other, _)| **other != node);
        for (&other, known) in others {
            if let Some(&at) = known.addresses().iter().find(|at| place.addresses().contains(at)) {
                return Err(Rejection::Taken { node: other, at });
            }
        }
        if place.peers == place.clients {
            return Err(Rejection::Malformed("one address for other nodes and for feeds"));
        }
        if !self.book.places.contains_key(&node) && self.book.places.len() >= NODES_MAX {
            return Err(Rejection::Malformed("a cluster has 15 nodes at most"));
        }
        self.book.places.insert(node, place.clone());
        Ok(())
    }

    /// A node belongs to the cluster no longer; if it leads, another one in sync does. The same again changes nothing.
    ///
    /// Refused while the others could not go on without it: then it stays what it is, and whoever wants it gone asks again.
    pub(crate) fn leave(&mut self, node: NodeId) -> Result<(), Rejection> {
        if self.book.left.contains(&node) {
            return Ok(());
        }
        if !self.book.places.contains_key(&node) && !self.nodes.contains_key(&node) {
            return Err(Rejection::Malformed("there is no such node"));
        }
        if self.rules().hold(Rule::LeaveKeepsEnough) {
            self.may_do_without(node)?;
        }
        self.book.places.remove(&node);
        self.book.left.insert(node);
        self.nodes.remove(&node);
        self.drained.remove(&node);
        let mut leads = self.leads();
        for at in 0..self.groups.len() {
            let group = &mut self.groups[at];
            let had = group.isr.len() + group.elr.len();
            for set in [&mut group.isr, &mut group.elr] {
                set.retain(|member| member.node != node);
            }
            group.holders.retain(|holder| *holder != node);
            group.renewed.remove(&node);
            group.gave_up.remove(&node);
            group.version += u64::from(had > group.isr.len() + group.elr.len());
            self.left_copies(at, node);
            let group = &mut self.groups[at];
            if group.leader.is_some_and(|leader| leader.node == node) {
                self.elect(at, &mut leads);
            }
        }
        Ok(())
    }

    /// Whether the others have all there is and can go on to commit and to decide, in every group.
    fn may_do_without(&self, node: NodeId) -> Result<(), Rejection> {
        let known: BTreeSet<NodeId> = self.book.places.keys().chain(self.nodes.keys()).copied().collect();
        for (id, Group { isr, elr, min_isr, holders, .. }) in self.numbered() {
            let counts = isr.iter().chain(elr).any(|member| member.node == node);
            let stays = |member: &&Member| member.node != node && self.is_live(id, **member);
            let in_sync = isr.iter().filter(stays).count();
            if counts && in_sync < *min_isr {
                return Err(Rejection::Needed { left: in_sync, least: *min_isr, what: "in sync" });
            }
            let all = if holders.is_empty() { known.iter().copied().collect() } else { holders.clone() };
            let rest = all.iter().filter(|other| **other != node).count();
            if rest < *min_isr {
                let what = if holders.is_empty() { "in the cluster" } else { "holders of a group" };
                return Err(Rejection::Needed { left: rest, least: *min_isr, what });
            }
        }
        // Of those that were ever there: who has not come yet has no say in consensus.
        let others = || self.nodes.iter().filter(|(other, _)| **other != node);
        let (live, majority) =
            (others().filter(|(_, state)| !state.fenced).count(), others().count() / 2 + 1);
        if live < majority {
            return Err(Rejection::Needed { left: live, least: majority, what: "at hand" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Command;
    use crate::rules::Rules;

    fn place(port: u16) -> Place {
        let at = |port| ([10, 0, 0, 1], port).into();
        Place { peers: at(port), clients: at(port + 100), zone: None }
    }

    fn meta(count: NodeId, min_isr: usize) -> Meta {
        let nodes: Vec<NodeId> = (1..=count).collect();
        let places = nodes.iter().map(|&node| (node, place(7_500 + node))).collect();
        Meta::new(&nodes, min_isr, Rules::default()).founded(&places)
    }

    const fn member(node: NodeId, incarnation: u64) -> Member {
        Member { node, incarnation }
    }

    fn leave(node: NodeId) -> Command {
        Command::Leave { node }
    }

    #[test]
    fn a_node_joins_once_at_an_address_of_its_own() {
        let mut meta = meta(3, 2);
        let join = |node, port| Command::Join { node, place: place(port) };
        let register = Command::Register { member: member(4, 1), lossy: false, lost: Vec::new() };
        assert!(matches!(meta.apply(&register), Err(Rejection::Malformed(_))), "nobody let it in");
        meta.apply(&join(4, 7_504)).unwrap();
        assert_eq!((meta.groups[0].isr.len(), meta.nodes.len()), (3, 3), "it counts once it has everything");
        meta.apply(&register).unwrap();
        let before = meta.book.clone();
        meta.apply(&join(4, 7_504)).unwrap();
        assert_eq!(meta.book, before, "the same again");
        let at = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        assert_eq!(meta.apply(&join(4, 7_505)), Err(Rejection::Taken { node: 4, at: at(7_504) }));
        assert_eq!(meta.apply(&join(5, 7_502)), Err(Rejection::Taken { node: 2, at: at(7_502) }));
        let crossed = Place { peers: at(7_605), clients: at(7_501), zone: None };
        let crossed = Command::Join { node: 5, place: crossed };
        assert_eq!(meta.apply(&crossed), Err(Rejection::Taken { node: 1, at: at(7_501) }));
        assert!(matches!(meta.apply(&join(0, 7_509)), Err(Rejection::Malformed(_))));
        for node in 5..=15 {
            meta.apply(&join(node, 7_500 + node)).unwrap();
        }
        assert!(matches!(meta.apply(&join(16, 7_516)), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn who_leaves_hands_over_in_the_same_step_and_never_comes_back() {
        let mut meta = meta(3, 2);
        meta.apply(&Command::Drain { node: 1, drained: false }).unwrap();
        let version = meta.groups[0].version;
        meta.apply(&leave(1)).unwrap();
        assert_eq!((meta.groups[0].leader, meta.groups[0].epoch), (Some(member(2, 1)), 2));
        assert_eq!(meta.groups[0].isr, [member(2, 1), member(3, 1)]);
        assert!(meta.groups[0].version > version && !meta.nodes.contains_key(&1));
        let before = meta.groups[0].clone();
        meta.apply(&leave(1)).unwrap();
        assert_eq!(meta.groups[0], before, "the same again");
        let back = Command::Register { member: member(1, 9), lossy: true, lost: Vec::new() };
        assert_eq!(meta.apply(&back), Err(Rejection::Left(1)));
        assert_eq!(meta.apply(&Command::Join { node: 1, place: place(7_501) }), Err(Rejection::Left(1)));
        let alter = |isr| Command::AlterIsr { group: 0, epoch: 2, version: before.version, isr };
        let with = alter(vec![member(2, 1), member(3, 1), member(1, 1)]);
        assert_eq!(meta.apply(&with), Err(Rejection::Incarnation(member(1, 1))));
    }

    #[test]
    fn nobody_leaves_whom_the_others_need() {
        let needed = |left, least, what| Err(Rejection::Needed { left, least, what });
        assert_eq!(meta(2, 2).apply(&leave(2)), needed(1, 2, "in sync"));
        assert_eq!(meta(1, 1).apply(&leave(1)), needed(0, 1, "in sync"));
        let mut three = meta(3, 2);
        assert!(matches!(three.apply(&leave(9)), Err(Rejection::Malformed(_))));
        three.apply(&Command::Fence { member: member(3, 1) }).unwrap();
        assert_eq!(three.apply(&leave(2)), needed(1, 2, "in sync"));
        three.clone().apply(&leave(3)).unwrap();
        // Who never came may go; so may one that is not in sync, where the others are enough.
        three.apply(&Command::Join { node: 4, place: place(7_504) }).unwrap();
        three.apply(&leave(4)).unwrap();
        three.apply(&leave(3)).unwrap();
        assert_eq!(three.book.places.len(), 2);
        assert_eq!(three.apply(&leave(2)), needed(1, 2, "in sync"));
        // One node is enough to commit, and still consensus needs two of three.
        let mut one = meta(4, 1);
        for node in [3, 4] {
            one.apply(&Command::Fence { member: member(node, 1) }).unwrap();
        }
        assert_eq!(one.apply(&leave(2)), needed(1, 2, "at hand"));
        one.apply(&leave(4)).unwrap();
        // Nobody else has what the last one has.
        let mut last = meta(3, 1);
        for node in [2, 3] {
            last.apply(&Command::Register { member: member(node, 2), lossy: true, lost: Vec::new() })
                .unwrap();
        }
        assert_eq!(last.apply(&leave(1)), needed(0, 1, "in sync"));
    }

    #[test]
    fn metadata_of_before_the_book_is_read_and_gets_one() {
        let mut old = serde_json::to_value(meta(3, 2)).unwrap();
        old.as_object_mut().unwrap().remove("book");
        let read: Meta = serde_json::from_value(old).unwrap();
        assert!(read.book.places.is_empty());
        assert_eq!(read.founded(&meta(3, 2).book.places), meta(3, 2));
    }
}
