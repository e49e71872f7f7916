//! Copies that come to nodes and go from them, as their nodes see it; and what must be true of them.

use super::Cluster;
use super::part::Part;
use crate::check::Broken;
use std::rc::Rc;
use tidegate_replica::{Command, GroupId, Log, Member, Meta, Rule};

impl Cluster {
    /// A node hears of metadata, which may be of the past right after its start: it takes up what it is to hold, and removes what it is to
    /// hold no longer.
    pub(super) fn hold(&mut self, at: usize, meta: &Rc<Meta>) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        if !self.plan.moves_copies() || meta.revision < node.heard_of {
            return Ok(());
        }
        node.heard_of = meta.revision;
        for (group, _) in meta.numbered() {
            // Giving something up, it begins again.
            let member = self.nodes[at].member();
            let here = self.nodes[at].parts[usize::from(group)].is_some();
            if here && meta.gives_up(group, member) {
                self.give_up(at, group)?;
            }
            if !here && meta.takes_up(group, member) {
                self.take_up(at, group, meta)?;
            }
            let is_coming = meta.is_coming(group, member.node);
            if let Some(part) = self.nodes[at].part(group) {
                part.coming = is_coming;
            }
        }
        Ok(())
    }

    fn take_up(&mut self, at: usize, group: GroupId, meta: &Meta) -> Result<(), Broken> {
        let lineage = meta.groups[usize::from(group)].lineage;
        let node = &mut self.nodes[at];
        let incarnation = node.incarnation;
        node.parts[usize::from(group)] = Some(Box::new(Part { incarnation, ..Part::of(lineage) }));
        node.held.push(group);
        node.held.sort_unstable();
        self.note(97, u64::from(group));
        self.begin(at, group, lineage, Log::default())
    }

    fn give_up(&mut self, at: usize, group: GroupId) -> Result<(), Broken> {
        let counts = &self.meta.groups[usize::from(group)].isr;
        let node = &mut self.nodes[at];
        node.held.retain(|held| *held != group);
        let Some(part) = node.parts[usize::from(group)].take() else { return Ok(()) };
        if counts.iter().any(|member| member.node == node.id) {
            return Err(format!("node {} removes a copy of group {group} that counts", node.id));
        }
        let gone = Member { node: node.id, incarnation: part.incarnation };
        self.checkers[usize::from(group)].forgot(gone);
        self.note(98, u64::from(group));
        if self.options.rules.hold(Rule::CopyComesAnew) {
            self.reincarnate(at);
        }
        Ok(())
    }

    /// Now and then a node says that a copy is there.
    pub(super) fn took_up(&mut self, at: usize, group: GroupId) {
        let id = self.nodes[at].id;
        let Some(part) = self.nodes[at].part(group).filter(|part| part.coming && part.tick % 5 == 0) else {
            return;
        };
        let member = Member { node: id, incarnation: part.incarnation };
        self.propose(at, Command::TookUp { group, member });
    }

    /// Copies move one at a time, none goes before another one is there, and none that is needed.
    pub(super) fn moved(&mut self, command: &Command, before: &Meta, after: &Meta) -> Result<(), Broken> {
        let (Command::MoveCopy { group, .. }
        | Command::TookUp { group, .. }
        | Command::StopCopy { group, .. }) = command
        else {
            return Ok(());
        };
        let (had, has) = (&before.groups[usize::from(*group)], &after.groups[usize::from(*group)]);
        let most = had.holders.len().max(self.plan.copies) + usize::from(had.coming.is_none());
        if has.holders.len() > most {
            return Err(format!("{} nodes are to hold group {group}", has.holders.len()));
        }
        let comes = |meta: &Meta| {
            let mut nodes: Vec<_> = meta.coming().map(|(_, coming)| coming.to).collect();
            nodes.sort_unstable();
            nodes.windows(2).any(|pair| pair[0] == pair[1])
        };
        if comes(after) {
            return Err("two copies come to a node at once".to_owned());
        }
        if let Command::TookUp { member, .. } = command {
            if !has.isr.contains(member) {
                return Err(format!("a copy of group {group} goes before that of {member} is in sync"));
            }
            self.copies += 1;
        }
        if had.isr.len() >= had.min_isr && has.isr.len() < has.min_isr {
            return Err(format!("a copy of group {group} goes, and too few are left in sync"));
        }
        Ok(())
    }

    /// What was on its way has come, unless it must not go on.
    pub(super) fn copies_are_there(&self) -> Result<(), Broken> {
        for (group, coming) in self.meta.coming() {
            let incarnation = self.meta.newest(group, coming.to).unwrap_or(0);
            let there = Command::TookUp { group, member: Member { node: coming.to, incarnation } };
            if (*self.meta).clone().apply(&there).is_ok() {
                return Err(format!("a copy of group {group} is still on its way to node {}", coming.to));
            }
        }
        Ok(())
    }
}
