//! Who leads a group next: of those who may, whoever leads the least.

use super::{GroupId, Member, Meta, NodeId};
use crate::rules::Rule;
use std::collections::BTreeMap;

/// How many groups each node leads.
pub(crate) type Leads = BTreeMap<NodeId, usize>;

impl Meta {
    pub(crate) fn leads(&self) -> Leads {
        let mut leads = Leads::new();
        for leader in self.groups.iter().filter_map(|group| group.leader) {
            *leads.entry(leader.node).or_default() += 1;
        }
        leads
    }

    /// Whoever in sync leads the least, and is not drained; the first of those who lead as much.
    pub(crate) fn heir(&self, at: usize, leads: &Leads) -> Option<Member> {
        let may = |member: &&Member| self.leads_well(at, **member);
        let count = |member: &&Member| leads.get(&member.node).copied().unwrap_or(0);
        self.groups[at].isr.iter().filter(may).min_by_key(count).copied()
    }

    fn leads_well(&self, at: usize, member: Member) -> bool {
        // Whose copy is on its way computes nothing yet.
        self.is_live(at as GroupId, member)
            && !self.drained.contains(&member.node)
            && !self.is_coming(at as GroupId, member.node)
    }

    /// Somebody else leads, or nobody: the old leader's epoch is over either way.
    pub(crate) fn elect(&mut self, at: usize, leads: &mut Leads) {
        if let Some(old) = self.groups[at].leader {
            leads.entry(old.node).and_modify(|count| *count -= 1);
        }
        let id = at as GroupId;
        let live = |member: &&Member| self.is_live(id, **member);
        let group = &self.groups[at];
        let computes = |member: &&Member| live(member) && !self.is_coming(id, member.node);
        let in_sync = self.heir(at, leads).or_else(|| group.isr.iter().find(computes).copied());
        let in_sync = in_sync.or_else(|| group.isr.iter().find(live).copied());
        let eligible = || group.elr.iter().find(live).copied();
        let any = || {
            let found = self.holders(id).find(|member| self.is_live(id, *member));
            found.filter(|_| !self.rules.hold(Rule::CleanElection))
        };
        let chosen = in_sync.or_else(eligible).or_else(any);
        let group = &mut self.groups[at];
        group.epoch += 1;
        group.version += 1;
        group.leader = chosen;
        let Some(chosen) = chosen else { return };
        *leads.entry(chosen.node).or_default() += 1;
        if !group.isr.contains(&chosen) {
            group.elr.retain(|member| *member != chosen);
            group.isr.push(chosen);
        }
    }
}
