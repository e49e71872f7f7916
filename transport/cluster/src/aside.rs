//! Who leads consensus should not be who leads groups: when one node that does both dies, its groups wait for two elections, one behind the
//! other, and the first begins only once the dead leader's lease is over.

use crate::metadata::Consensus;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tidegate_replica::{Meta, NodeId};

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long all must have been well before anybody steps aside.
const CALM: Duration = Duration::from_secs(1);
/// When nobody else came to lead: how long until the next attempt.
const AGAIN: Duration = Duration::from_secs(30);

impl Consensus {
    /// Leaves consensus to another node while this one leads more groups than any other. `patience` is how long an election may take.
    pub(crate) async fn step_aside(self, patience: Duration) {
        let mut calm_since: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let status = self.status();
            // A change of who votes is ended first: another leader would have to find it.
            let settled =
                self.group.metrics().borrow().membership_config.membership().get_joint_config().len() == 1;
            let leads = settled && status.leader == Some(self.me.into());
            if !(leads && self.leads_most(&self.watched.borrow(), &status.voters)) {
                calm_since = None;
                continue;
            }
            if calm_since.get_or_insert_with(Instant::now).elapsed() < CALM {
                continue;
            }
            // Followers that hear nothing elect somebody as soon as the lease is over. Commands are decided all the while: they renew it.
            self.group.runtime_config().heartbeat(false);
            let me = u64::from(self.me);
            let wait = self.group.wait(Some(patience));
            let elsewhere =
                wait.metrics(|found| found.current_leader != Some(me), "another leader of consensus");
            let stepped = elsewhere.await.is_ok();
            self.group.runtime_config().heartbeat(true);
            if !stepped {
                tokio::time::sleep(AGAIN).await;
            }
            calm_since = None;
        }
    }

    fn leads_most(&self, meta: &Meta, voters: &BTreeSet<u64>) -> bool {
        let voters: Option<BTreeSet<NodeId>> = voters.iter().map(|&node| node.try_into().ok()).collect();
        voters.is_some_and(|voters| leads_most(meta, self.me, &voters, |node| self.is_heard(node)))
    }
}

/// Whether a node leads more groups than each other one that has a vote, all of which are well. With two votes nothing is decided anyway
/// once one of them is gone.
fn leads_most(meta: &Meta, me: NodeId, voters: &BTreeSet<NodeId>, heard: impl Fn(NodeId) -> bool) -> bool {
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for leader in meta.numbered().filter_map(|(_, group)| group.leader) {
        *leads.entry(leader.node).or_default() += 1;
    }
    let of = |node: &NodeId| leads.get(node).copied().unwrap_or(0);
    let well = |node: &NodeId| meta.nodes.get(node).is_some_and(|known| !known.fenced) && heard(*node);
    let mut others = voters.iter().filter(|node| **node != me);
    voters.len() > 2 && others.all(|node| well(node) && of(node) < of(&me))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_replica::{Command, Layout, Member, Rules};

    fn laid_out(groups: usize) -> Meta {
        Meta::laid_out(&Layout { groups, min_isr: 2, ..Layout::of(&[1, 2, 3]) }, Rules::default())
    }

    #[test]
    fn only_who_leads_more_than_all_others_steps_aside() {
        let all = BTreeSet::from([1, 2, 3]);
        let one = laid_out(1);
        let leader = one.group(0).unwrap().leader.unwrap().node;
        let asked = |meta: &Meta| [1, 2, 3].map(|node| leads_most(meta, node, &all, |_| true));
        assert_eq!(asked(&one), [1, 2, 3].map(|node| node == leader));
        assert_eq!(asked(&laid_out(3)), [false; 3], "each leads one of three groups");
        assert_eq!(asked(&laid_out(4)).iter().filter(|aside| **aside).count(), 1, "one leads two of four");
    }

    #[test]
    fn nobody_steps_aside_while_somebody_is_missing() {
        let meta = laid_out(1);
        let leader = meta.group(0).unwrap().leader.unwrap().node;
        let other = if leader == 3 { 2 } else { 3 };
        let all = BTreeSet::from([1, 2, 3]);
        assert!(!leads_most(&meta, leader, &all, |node| node != other), "not heard of");
        assert!(!leads_most(&meta, leader, &BTreeSet::from([leader, other]), |_| true), "two votes");
        assert!(
            !leads_most(&meta, leader, &BTreeSet::from([1, 2, 3, 4]), |_| true),
            "a vote of nobody known"
        );
        let mut fenced = meta.clone();
        fenced.apply(&Command::Fence { member: Member { node: other, incarnation: 1 } }).unwrap();
        assert!(!leads_most(&fenced, leader, &all, |_| true), "given up");
    }
}
