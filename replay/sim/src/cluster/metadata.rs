//! Metadata and whoever talks to it: heartbeats, proposals, decisions, and the operator.

use super::{Cluster, Event};
use crate::check::Broken;
use std::rc::Rc;
use tidegate_journal::sim::Random;
use tidegate_replica::meta::NodeState;
use tidegate_replica::{Command, GroupId, Member, Meta, NodeId};

impl Cluster {
    /// A node says that it is there, and hears what is new.
    pub(super) fn heartbeat(&mut self, at: usize) {
        let metadata = self.nodes.len();
        if !self.passes(at, metadata) {
            return;
        }
        let node = &mut self.nodes[at];
        let known = self.meta.nodes.get(&node.id);
        let registered = known.is_some_and(|known| known.incarnation == node.incarnation && !known.fenced);
        if registered {
            node.heard = self.now;
        }
        let stale = node.revision < Some(self.meta.revision);
        if (stale || !registered) && self.passes(metadata, at) {
            let (delay, meta) = (self.delay(), Rc::clone(&self.meta));
            self.push(delay, Event::Told { to: at, meta });
        }
    }

    pub(super) fn propose(&mut self, from: usize, command: Command) {
        let metadata = self.nodes.len();
        // Doubles come late, and now and then the first does too: what is proposed must be refused once it is out of date.
        let late = |random: &mut Random| if random.chance(1, 2) { random.below(400) } else { 0 };
        let double = !self.healed && self.random.chance(2 * self.plan.double, 1_000);
        for copy in 0..1 + u64::from(double) {
            if self.passes(from, metadata) {
                let slow = copy > 0 || !self.healed && self.random.chance(self.plan.spikes, 1_000);
                let delay = self.delay() + if slow { late(&mut self.random) } else { 0 };
                self.push(delay, Event::Propose { from, command: command.clone() });
            }
        }
    }

    /// A node hears of metadata: it registers if it must, and its replicas do as they are told.
    pub(super) fn told(&mut self, at: usize, meta: &Rc<Meta>) -> Result<(), Broken> {
        if !self.nodes[at].up {
            return Ok(());
        }
        self.hold(at, meta)?;
        if !self.slots.is_empty() {
            self.hears(at, meta);
        }
        let node = &mut self.nodes[at];
        // Who joins is not known yet; who has left asks in vain.
        let nobody = NodeState { incarnation: 0, fenced: false };
        let known = meta.nodes.get(&node.id).copied().unwrap_or(nobody);
        if known.incarnation == node.incarnation && known.fenced {
            // It was given up, and is here: somebody new, with its memory.
            self.reincarnate(at);
        }
        let node = &mut self.nodes[at];
        let member = node.member();
        if known.incarnation < member.incarnation {
            let lossy =
                |group: &GroupId| node.parts[usize::from(*group)].as_ref().is_some_and(|part| part.lossy);
            let lost: Vec<GroupId> = node.held.iter().copied().filter(lossy).collect();
            let lossy = lost.len() == node.held.len();
            let lost = if lossy { Vec::new() } else { lost };
            self.propose(at, Command::Register { member, lossy, lost });
            return Ok(());
        }
        let mut all = true;
        for place in 0..node.held.len() {
            let group = self.nodes[at].held[place];
            all &= self.tell_one(at, group, meta)?;
        }
        if all {
            let node = &mut self.nodes[at];
            node.revision = node.revision.max(Some(meta.revision));
        }
        Ok(())
    }

    /// A node is somebody new, with its memory.
    pub(super) fn reincarnate(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.newest += 1;
        node.incarnation = node.newest;
        for part in node.parts.iter_mut().flatten() {
            if let Some(replica) = &mut part.replica {
                part.incarnation = node.incarnation;
                replica.reincarnate(node.incarnation);
            }
        }
    }

    /// One replica hears of it. Returns whether it is as metadata has it.
    fn tell_one(&mut self, at: usize, group: GroupId, meta: &Rc<Meta>) -> Result<bool, Broken> {
        let node = &mut self.nodes[at];
        let (id, Some(part)) = (node.id, node.part(group)) else { return Ok(true) };
        let Some(replica) = &mut part.replica else { return Ok(false) };
        let member = Member { node: id, incarnation: part.incarnation };
        let newest = meta.newest(group, id);
        if newest < Some(member.incarnation) {
            let lossy = part.lossy;
            self.propose(at, Command::Renew { group, member, lossy });
            return Ok(false);
        }
        if newest == Some(member.incarnation) {
            part.lossy = false;
        }
        if meta.groups[usize::from(group)].leader == Some(member)
            && part.flipped.is_some()
            && let Some(state) = self.checkers[usize::from(group)].state(replica.commit())
        {
            // No rule promises anything about a flip in the leader itself between two digests.
            replica.machine_mut().0 = state;
            part.flipped = None;
        }
        self.step(at, group, |replica| replica.on_meta(meta))?;
        Ok(true)
    }

    /// Metadata takes a command.
    pub(crate) fn decide(&mut self, from: usize, command: &Command) -> Result<(), Broken> {
        let before = Rc::clone(&self.meta);
        let mut after = (*before).clone();
        let (metadata, verdict) = (self.nodes.len(), after.apply(command));
        let about = match command {
            Command::AlterIsr { group, .. }
            | Command::Transfer { group, .. }
            | Command::DeclareLoss { group, .. }
            | Command::MoveCopy { group, .. }
            | Command::TookUp { group, .. }
            | Command::StopCopy { group, .. }
            | Command::Renew { group, .. } => usize::from(*group),
            _ => 0,
        };
        let group = &after.groups[about];
        self.note(70 + u64::from(verdict.is_ok()), u64::from(group.epoch) << 32 | group.version);
        if self.options.trace {
            println!("{:>6} metadata {command:?} {verdict:?}", self.now);
        }
        if let Err(why) = verdict {
            self.traffic.refused += 1;
            let overtaken = why.is_overtaken();
            if from < metadata && self.passes(metadata, from) {
                let delay = self.delay();
                self.push(delay, Event::Rejected { to: from, command: command.clone(), overtaken });
            }
            return Ok(());
        }
        self.traffic.accepted += 1;
        if self.plan.measured {
            self.traffic.bytes += serde_json::to_vec(command).map_or(0, |bytes| bytes.len() as u64);
        }
        for (group, checker) in (0..).zip(&mut self.checkers) {
            checker.meta(&before, &after, group)?;
        }
        if let Command::AlterIsr { group, .. } = command {
            self.joined(*group, &before, &after)?;
        }
        if let Command::Leave { node } = command {
            self.missed(*node, &before, &after)?;
        }
        self.moved(command, &before, &after)?;
        self.slot_check.told(command, &before, &after)?;
        if let Command::DeclareLoss { group, .. } = command {
            self.slot_check.lost(*group);
        }
        match command {
            Command::Register { member, lossy, lost } => {
                for (group, checker) in (0..).zip(&mut self.checkers) {
                    if *lossy || lost.contains(&group) {
                        checker.renounced(member.node);
                    }
                }
                self.nodes[usize::from(member.node) - 1].heard = self.now;
            }
            Command::Renew { group, member, lossy: true } => {
                self.checkers[usize::from(*group)].renounced(member.node);
            }
            _ => {}
        }
        self.meta = Rc::new(after);
        for to in 0..metadata {
            if self.passes(metadata, to) {
                let (delay, meta) = (self.delay(), Rc::clone(&self.meta));
                self.push(delay, Event::Told { to, meta });
            }
        }
        Ok(())
    }

    /// Who is in sync anew has all that its leader has committed.
    fn joined(&self, id: GroupId, before: &Meta, after: &Meta) -> Result<(), Broken> {
        let (old, new) = (&before.groups[usize::from(id)], &after.groups[usize::from(id)]);
        let Some(leader) = new.leader else { return Ok(()) };
        let leads = self.nodes[usize::from(leader.node) - 1].parts[usize::from(id)].as_ref();
        let leads = leads.and_then(|part| part.replica.as_ref());
        let Some(leads) = leads.filter(|replica| replica.me() == leader && replica.epoch() == new.epoch)
        else {
            return Ok(());
        };
        for member in new.isr.iter().filter(|member| !old.isr.contains(member)) {
            if let Some(end) = self.end_of(id, *member)
                && end < leads.commit()
            {
                return Err(format!("{member} is in sync with {end} of {} entries", leads.commit()));
            }
        }
        Ok(())
    }

    /// A node has left: everywhere it counted there are enough without it.
    fn missed(&self, node: NodeId, before: &Meta, after: &Meta) -> Result<(), Broken> {
        for ((group, had), left) in before.numbered().zip(&after.groups) {
            let counted = had.isr.iter().chain(&had.elr).any(|member| member.node == node);
            if counted && left.isr.len() < left.min_isr {
                return Err(format!("node {node} may leave group {group}, and too few are left in sync"));
            }
        }
        Ok(())
    }

    /// Gives up nodes that are not heard; and, as an operator would, groups of which no copy is left.
    pub(super) fn control(&mut self) -> Result<(), Broken> {
        self.push(25, Event::Control);
        if !self.slots.is_empty() {
            self.ask_for_a_move();
        }
        let operator = self.nodes.len();
        for at in 0..self.nodes.len() {
            let known = self.meta.nodes.get(&self.nodes[at].id).copied();
            if let Some(known) = known
                && !known.fenced
                && self.now.saturating_sub(self.nodes[at].heard) > 120
            {
                let member = Member { node: self.nodes[at].id, incarnation: known.incarnation };
                self.decide(operator, &Command::Fence { member })?;
            }
        }
        let lost = self.meta.numbered().filter(|(_, group)| group.is_lost());
        let lost: Vec<(GroupId, u32)> = lost.map(|(id, group)| (id, group.epoch)).collect();
        for (group, epoch) in lost {
            let live = |member: &Member| self.meta.is_live(group, *member);
            let whole = |member: &Member| live(member) && !self.meta.is_coming(group, member.node);
            // Where slots move, an operator names whoever has the most.
            let has = |member: &Member| self.end_of(group, *member).unwrap_or(0);
            let most = || self.meta.holders(group).filter(live).max_by_key(has);
            let target = self.meta.holders(group).find(whole).filter(|_| self.slots.is_empty()).or_else(most);
            if let Some(target) = target.or_else(|| self.meta.holders(group).find(live)) {
                self.decide(operator, &Command::DeclareLoss { group, epoch, target })?;
            }
        }
        Ok(())
    }
}
