//! Metadata: who is who, who leads, who is in sync. A deterministic state machine; its commands come in one order, by consensus that is
//! not ours ([`MetaStore`]).

use crate::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A node, for the life of the cluster.
pub type NodeId = u16;

/// One start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Which start: a higher number each time it registers.
    pub incarnation: u64,
}

/// A node as metadata has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its newest incarnation.
    pub incarnation: u64,
    /// Whether that one was declared gone. It never comes back; a node that does, registers anew.
    pub fenced: bool,
}

/// A group as metadata has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Counts changes of leadership.
    pub epoch: u32,
    /// Counts changes of the sets below.
    pub version: u64,
    /// Who leads; nobody while no copy is at hand.
    pub leader: Option<Member>,
    /// In sync: each of them has everything that is committed.
    pub isr: Vec<Member>,
    /// Eligible: left while too few were in sync for anything to be committed, so they have everything too.
    pub elr: Vec<Member>,
    /// Members needed to commit.
    pub min_isr: usize,
    /// The log's history; another one after a declared loss.
    pub lineage: u64,
}

/// A change to metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node started, or came back after it was fenced.
    Register {
        /// Who, with a new incarnation.
        member: Member,
        /// Whether it lost what it had.
        lossy: bool,
    },
    /// An incarnation is gone.
    Fence {
        /// Which.
        member: Member,
    },
    /// A leader wants another in-sync set.
    AlterIsr {
        /// The leader's epoch.
        epoch: u32,
        /// The version it knows.
        version: u64,
        /// The set it wants.
        isr: Vec<Member>,
    },
    /// Somebody else in sync shall lead.
    Transfer {
        /// The epoch to end.
        epoch: u32,
        /// Who shall lead.
        target: Member,
    },
    /// A node is to lead no more, as long as another one in sync can; or may again. An operator's wish.
    Drain {
        /// Which.
        node: NodeId,
        /// Whether, or no more.
        drained: bool,
    },
    /// No copy is left: whoever is named begins a new lineage with what it has. An operator's decision.
    DeclareLoss {
        /// The epoch to end.
        epoch: u32,
        /// Who begins.
        target: Member,
    },
}

/// Why a command is refused. Each reason holds for ever, so a command that was refused once can never be accepted later, and whoever
/// proposed it may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There has been a later leader.
    #[error("the epoch is over; it is {0} now")]
    Epoch(u32),
    /// The sets have changed since.
    #[error("the in-sync set has changed; its version is {0} now")]
    Version(u64),
    /// A member is an incarnation that is over.
    #[error("node {} has a newer incarnation than {}, or that one was fenced", .0.node, .0.incarnation)]
    Incarnation(Member),
    /// The command makes no sense in any state.
    #[error("{0}")]
    Malformed(&'static str),
    /// A copy is left, so nothing is lost. (In this epoch; it is over when that changes.)
    #[error("a copy is left: the group has a leader or may get one")]
    CopyLeft,
}

impl Rejection {
    /// Whether metadata has gone on since the proposal was made, perhaps by that very proposal: whoever made it hears of that.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::Epoch(_) | Self::Version(_))
    }
}

/// Where commands get their order and their durability: consensus that somebody else has proven. In production a Raft group, in
/// the simulator a register with delays.
pub trait MetaStore {
    /// Proposes a command; what comes of it is told later, at least once if it was refused.
    fn propose(&mut self, command: Command);
    /// The newest state known here.
    fn state(&self) -> &Meta;
}

/// The state of one group and its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Counts accepted commands.
    pub revision: u64,
    /// All nodes ever registered.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// The group.
    pub group: Group,
    /// Nodes that are not to lead while another one in sync can.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub drained: BTreeSet<NodeId>,
    #[serde(skip)]
    rules: Rules,
}

impl Meta {
    /// A group that begins empty, with all of `nodes` in sync in incarnation 1 and the first of them leading.
    #[must_use]
    pub fn new(nodes: &[NodeId], min_isr: usize, rules: Rules) -> Self {
        let isr: Vec<Member> = nodes.iter().map(|&node| Member { node, incarnation: 1 }).collect();
        Self {
            revision: 0,
            nodes: nodes.iter().map(|&node| (node, NodeState { incarnation: 1, fenced: false })).collect(),
            group: Group {
                epoch: 1,
                version: 1,
                leader: isr.first().copied(),
                isr,
                elr: Vec::new(),
                min_isr,
                lineage: 1,
            },
            drained: BTreeSet::new(),
            rules,
        }
    }

    /// Whether this incarnation is its node's newest and was not fenced.
    #[must_use]
    pub fn is_live(&self, member: Member) -> bool {
        self.nodes
            .get(&member.node)
            .is_some_and(|node| node.incarnation == member.incarnation && !node.fenced)
    }

    /// Applies a command.
    ///
    /// # Errors
    /// [`Rejection`]; then nothing has changed, and never will by this command.
    pub fn apply(&mut self, command: &Command) -> Result<(), Rejection> {
        match command {
            Command::Register { member, lossy } => self.register(*member, *lossy)?,
            Command::Fence { member } => self.fence(*member)?,
            Command::AlterIsr { epoch, version, isr } => self.alter(*epoch, *version, isr)?,
            Command::Transfer { epoch, target } => {
                self.same_epoch(*epoch)?;
                if !self.is_live(*target) {
                    return Err(Rejection::Incarnation(*target));
                }
                if !self.group.isr.contains(target) || self.group.leader == Some(*target) {
                    return Err(Rejection::Version(self.group.version));
                }
                self.group.leader = Some(*target);
                self.group.epoch += 1;
            }
            Command::Drain { node, drained } => self.drain(*node, *drained)?,
            Command::DeclareLoss { epoch, target } => {
                self.same_epoch(*epoch)?;
                if !self.is_live(*target) {
                    return Err(Rejection::Incarnation(*target));
                }
                let group = &mut self.group;
                if group.leader.is_some() || !group.isr.is_empty() || !group.elr.is_empty() {
                    return Err(Rejection::CopyLeft);
                }
                group.lineage += 1;
                group.epoch += 1;
                group.version += 1;
                group.leader = Some(*target);
                group.isr = vec![*target];
            }
        }
        self.revision += 1;
        Ok(())
    }

    fn same_epoch(&self, epoch: u32) -> Result<(), Rejection> {
        if epoch == self.group.epoch { Ok(()) } else { Err(Rejection::Epoch(self.group.epoch)) }
    }

    fn register(&mut self, member: Member, lossy: bool) -> Result<(), Rejection> {
        let lossy = lossy && self.rules.hold(Rule::LossyLeaves);
        if self.nodes.get(&member.node).is_some_and(|known| known.incarnation >= member.incarnation) {
            return Err(Rejection::Incarnation(member));
        }
        self.nodes.insert(member.node, NodeState { incarnation: member.incarnation, fenced: false });
        let group = &mut self.group;
        let (mut changed, led) = (false, group.leader.is_some_and(|leader| leader.node == member.node));
        for set in [&mut group.isr, &mut group.elr] {
            if let Some(at) = set.iter().position(|old| old.node == member.node) {
                changed = true;
                if lossy {
                    set.remove(at);
                } else {
                    set[at] = member;
                }
            }
        }
        group.version += u64::from(changed);
        if led || group.leader.is_none() {
            self.elect();
        }
        Ok(())
    }

    fn drain(&mut self, node: NodeId, drained: bool) -> Result<(), Rejection> {
        if !self.nodes.contains_key(&node) {
            return Err(Rejection::Malformed("there is no such node"));
        }
        if drained {
            self.drained.insert(node);
        } else {
            self.drained.remove(&node);
        }
        let leads = self.group.leader.filter(|leader| self.drained.contains(&leader.node));
        let mut heirs = self.group.isr.iter().copied();
        let heir = heirs.find(|heir| self.is_live(*heir) && !self.drained.contains(&heir.node));
        if let (Some(_), Some(heir)) = (leads, heir) {
            self.group.leader = Some(heir);
            self.group.epoch += 1;
        }
        Ok(())
    }

    fn fence(&mut self, member: Member) -> Result<(), Rejection> {
        if !self.is_live(member) {
            return Err(Rejection::Incarnation(member));
        }
        self.nodes.insert(member.node, NodeState { incarnation: member.incarnation, fenced: true });
        let group = &mut self.group;
        if group.isr.contains(&member) {
            let isr = group.isr.iter().copied().filter(|other| *other != member).collect();
            self.replace(isr);
        }
        if self.group.leader == Some(member) {
            self.elect();
        }
        Ok(())
    }

    fn alter(&mut self, epoch: u32, version: u64, isr: &[Member]) -> Result<(), Rejection> {
        self.same_epoch(epoch)?;
        if version != self.group.version && self.rules.hold(Rule::VersionCheck) {
            return Err(Rejection::Version(self.group.version));
        }
        let mut isr = isr.to_vec();
        if !self.rules.hold(Rule::ProposalIncarnation) {
            for member in &mut isr {
                if let Some(known) = self.nodes.get(&member.node) {
                    member.incarnation = known.incarnation;
                }
            }
        }
        if let Some(over) = isr.iter().find(|member| !self.is_live(**member)) {
            return Err(Rejection::Incarnation(*over));
        }
        if self.group.leader.is_none_or(|leader| !isr.contains(&leader)) {
            return Err(Rejection::Malformed("a leader is in sync with itself"));
        }
        self.replace(isr);
        Ok(())
    }

    /// Another in-sync set. While it is too small to commit, those who leave have all there is and stay eligible.
    fn replace(&mut self, isr: Vec<Member>) {
        let group = &mut self.group;
        if isr.len() >= group.min_isr {
            group.elr.clear();
        } else if self.rules.hold(Rule::EligibleKept) {
            let left: Vec<Member> =
                group.isr.iter().copied().filter(|member| !isr.contains(member)).collect();
            group.elr.extend(left);
        }
        group.elr.retain(|member| !isr.contains(member));
        group.isr = isr;
        group.version += 1;
    }

    /// Somebody else leads, or nobody: the old leader's epoch is over either way.
    fn elect(&mut self) {
        let live = |member: &&Member| self.is_live(**member);
        let rather = |member: &&Member| !self.drained.contains(&member.node);
        let best = self.group.isr.iter().filter(live).find(rather);
        let in_sync = best.or_else(|| self.group.isr.iter().find(live)).copied();
        let eligible = || self.group.elr.iter().find(live).copied();
        let any = || {
            let known = self.nodes.iter().find(|(_, state)| !state.fenced);
            let found = known.map(|(&node, state)| Member { node, incarnation: state.incarnation });
            found.filter(|_| !self.rules.hold(Rule::CleanElection))
        };
        let chosen = in_sync.or_else(eligible).or_else(any);
        let group = &mut self.group;
        group.epoch += 1;
        group.version += 1;
        group.leader = chosen;
        if let Some(chosen) = chosen
            && !group.isr.contains(&chosen)
        {
            group.elr.retain(|member| *member != chosen);
            group.isr.push(chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn member(node: NodeId, incarnation: u64) -> Member {
        Member { node, incarnation }
    }

    fn meta() -> Meta {
        Meta::new(&[1, 2, 3], 2, Rules::default())
    }

    #[test]
    fn losing_the_leader_elects_the_next_in_sync() {
        let mut meta = meta();
        meta.apply(&Command::Fence { member: member(1, 1) }).unwrap();
        assert_eq!((meta.group.leader, meta.group.epoch), (Some(member(2, 1)), 2));
        assert_eq!(meta.group.isr, [member(2, 1), member(3, 1)]);
        assert!(meta.group.elr.is_empty(), "two are enough to commit without the third");
        assert_eq!(
            meta.apply(&Command::Fence { member: member(1, 1) }),
            Err(Rejection::Incarnation(member(1, 1)))
        );
    }

    #[test]
    fn who_leaves_below_the_minimum_stays_eligible_until_the_set_is_whole() {
        let mut meta = meta();
        for node in [3, 2, 1] {
            meta.apply(&Command::Fence { member: member(node, 1) }).unwrap();
        }
        assert_eq!((meta.group.leader, meta.group.isr.len()), (None, 0));
        assert_eq!(meta.group.elr, [member(2, 1), member(1, 1)]);
        // The third has not all that is committed; it does not help.
        meta.apply(&Command::Register { member: member(3, 2), lossy: false }).unwrap();
        assert_eq!(meta.group.leader, None);
        let lost = Command::DeclareLoss { epoch: meta.group.epoch, target: member(3, 2) };
        assert_eq!(meta.clone().apply(&lost), Err(Rejection::CopyLeft));
        meta.apply(&Command::Register { member: member(2, 2), lossy: false }).unwrap();
        assert_eq!((meta.group.leader, meta.group.isr.clone()), (Some(member(2, 2)), vec![member(2, 2)]));
        let alter = Command::AlterIsr {
            epoch: meta.group.epoch,
            version: meta.group.version,
            isr: vec![member(2, 2), member(3, 2)],
        };
        meta.apply(&alter).unwrap();
        assert!(meta.group.elr.is_empty());
        assert_eq!(meta.apply(&alter), Err(Rejection::Version(meta.group.version)));
    }

    #[test]
    fn a_restart_without_memory_is_somebody_new() {
        let mut meta = meta();
        for node in [1, 2, 3] {
            meta.apply(&Command::Register { member: member(node, 2), lossy: true }).unwrap();
        }
        assert_eq!((meta.group.leader, meta.group.isr.len(), meta.group.elr.len()), (None, 0, 0));
        let lost = Command::DeclareLoss { epoch: meta.group.epoch, target: member(2, 2) };
        meta.apply(&lost).unwrap();
        assert_eq!((meta.group.leader, meta.group.lineage), (Some(member(2, 2)), 2));
        assert_eq!(meta.apply(&lost), Err(Rejection::Epoch(meta.group.epoch)));
    }

    #[test]
    fn a_drained_node_leads_only_where_nobody_else_can() {
        let mut meta = meta();
        let drain = |node, drained| Command::Drain { node, drained };
        meta.apply(&drain(1, true)).unwrap();
        assert_eq!((meta.group.leader, meta.group.epoch), (Some(member(2, 1)), 2));
        assert_eq!(meta.group.isr.len(), 3, "it goes on to count");
        meta.apply(&drain(3, true)).unwrap();
        meta.apply(&Command::Fence { member: member(2, 1) }).unwrap();
        assert_eq!(meta.group.leader, Some(member(1, 1)), "better than nobody");
        meta.apply(&drain(3, false)).unwrap();
        assert_eq!((meta.group.leader, meta.group.epoch), (Some(member(3, 1)), 4));
        assert!(matches!(meta.apply(&drain(9, true)), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn proposals_of_the_past_are_refused_for_good() {
        let mut meta = meta();
        let alter = |epoch, version, isr| Command::AlterIsr { epoch, version, isr };
        let old = vec![member(1, 1), member(2, 1)];
        meta.apply(&Command::Register { member: member(2, 5), lossy: true }).unwrap();
        let version = meta.group.version;
        assert_eq!(meta.apply(&alter(1, version, old.clone())), Err(Rejection::Incarnation(member(2, 1))));
        assert_eq!(meta.apply(&alter(1, version - 1, old.clone())), Err(Rejection::Version(version)));
        assert_eq!(meta.apply(&alter(0, version, old)), Err(Rejection::Epoch(1)));
        let alone = alter(1, version, vec![member(3, 1)]);
        assert!(matches!(meta.apply(&alone), Err(Rejection::Malformed(_))));
        meta.apply(&Command::Transfer { epoch: 1, target: member(3, 1) }).unwrap();
        assert_eq!((meta.group.leader, meta.group.epoch), (Some(member(3, 1)), 2));
    }
}
