//! Metadata: who is who, who leads, who is in sync. A deterministic state machine; its commands come in one order, by consensus that is
//! not ours ([`MetaStore`]).

mod copies;
mod elect;
mod layout;
mod moves;

pub use copies::{COMING_MAX, Coming};
pub use layout::{Layout, SLOTS, Slots};
pub use moves::{SlotMove, SlotMoves};

use crate::book::{Book, Place};
use crate::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A node, for the life of the cluster.
pub type NodeId = u16;

/// A group: the slots that have one log, one leader and one in-sync set. Numbered from 0.
pub type GroupId = u16;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_first(group: &GroupId) -> bool {
    *group == 0
}

/// One start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Which start: a higher number each time it registers.
    pub incarnation: u64,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} (incarnation {})", self.node, self.incarnation)
    }
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
    /// Nodes that hold it; empty for every node there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<NodeId>,
    /// Newer incarnations that nodes have in this group alone: its replica there began anew while the others went on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renewed: BTreeMap<NodeId, u64>,
    /// A copy that is on its way to a node, which holds the group and may not have everything yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<Coming>,
    /// Nodes that gave a copy up, and in which incarnation: a copy that comes again is another one's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gave_up: BTreeMap<NodeId, u64>,
}

impl Group {
    /// Whether no copy is left of which it is known that it has everything.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.leader.is_none() && self.isr.is_empty() && self.elr.is_empty()
    }
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
        /// Groups of which it lost what it had, where that is not all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<GroupId>,
    },
    /// A node's replica of one group began anew, the others went on.
    Renew {
        /// Of which group.
        group: GroupId,
        /// Who, with an incarnation that no start of the node had.
        member: Member,
        /// Whether it lost what it had.
        lossy: bool,
    },
    /// An incarnation is gone, and with it all replicas of its node.
    Fence {
        /// Which.
        member: Member,
    },
    /// A leader wants another in-sync set.
    AlterIsr {
        /// Of which group.
        #[serde(default, skip_serializing_if = "is_first")]
        group: GroupId,
        /// The leader's epoch.
        epoch: u32,
        /// The version it knows.
        version: u64,
        /// The set it wants.
        isr: Vec<Member>,
    },
    /// Somebody else in sync shall lead.
    Transfer {
        /// Of which group.
        #[serde(default, skip_serializing_if = "is_first")]
        group: GroupId,
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
    /// A node belongs to the cluster from here on. An operator's wish.
    Join {
        /// Which; a number that no node ever had.
        node: NodeId,
        /// Where it is.
        place: Place,
    },
    /// A node belongs to the cluster no longer. An operator's wish.
    Leave {
        /// Which.
        node: NodeId,
    },
    /// No copy is left: whoever is named begins a new lineage with what it has. An operator's decision.
    DeclareLoss {
        /// Of which group.
        #[serde(default, skip_serializing_if = "is_first")]
        group: GroupId,
        /// The epoch to end.
        epoch: u32,
        /// Who begins.
        target: Member,
    },
    /// A slot shall be another group's. An operator's wish, or a plan's.
    MoveSlot {
        /// Which.
        slot: u16,
        /// Steps that it has taken ([`Meta::step_of`]).
        step: u64,
        /// The group it shall go to.
        to: GroupId,
        /// The epoch of the group that has it: a hand-off comes first or later, not meanwhile.
        epoch: u32,
        /// The epoch of the group it shall go to.
        to_epoch: u32,
    },
    /// A slot's group has written into its log that the slot leaves, and that is committed. Its leader says so.
    SlotLeft {
        /// Which.
        slot: u16,
        /// Steps that it has taken.
        step: u64,
        /// The leader's epoch.
        epoch: u32,
        /// The entry behind which it is not the group's any more.
        offset: u64,
    },
    /// The group that a slot goes to has its state in its log, and that is committed. Its leader says so; from here on the slot is its.
    SlotArrived {
        /// Which.
        slot: u16,
        /// Steps that it has taken.
        step: u64,
        /// The leader's epoch.
        epoch: u32,
    },
    /// A slot stays: its group's leader has not written that it leaves, and will not. It says so.
    SlotStays {
        /// Which.
        slot: u16,
        /// Steps that it has taken.
        step: u64,
        /// The leader's epoch.
        epoch: u32,
    },
    /// A node is to hold a group, in another one's place or beside all that do. An operator's wish.
    MoveCopy {
        /// Of which group.
        #[serde(default, skip_serializing_if = "is_first")]
        group: GroupId,
        /// The version of its sets that this was decided by.
        version: u64,
        /// The node that is to hold it.
        to: NodeId,
        /// The node that is to hold it no longer, once the other one has everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<NodeId>,
    },
    /// A node holds a group that was on its way to it: it computes all that is committed.
    TookUp {
        /// Which group.
        #[serde(default, skip_serializing_if = "is_first")]
        group: GroupId,
        /// Who.
        member: Member,
    },
    /// A copy that is on its way is not to come any more. An operator's wish.
    StopCopy {
        /// Of which group.
        #[serde(default, skip_serializing_if = "is_first")]
        group: GroupId,
        /// The version of its sets that this was decided by.
        version: u64,
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
    /// A node of this number was in the cluster once.
    #[error("node {0} has left the cluster; its number is not used again")]
    Left(NodeId),
    /// A node is there already, or somewhere else.
    #[error("node {node} is at {at}")]
    Taken {
        /// Which.
        node: NodeId,
        /// Where.
        at: SocketAddr,
    },
    /// The others cannot do without a node that is to leave. (It may leave when there are more of them, by another command.)
    #[error("without it {left} would be {what}, and {least} are needed")]
    Needed {
        /// How many there would be.
        left: usize,
        /// How many there must be.
        least: usize,
        /// What they are.
        what: &'static str,
    },
    /// The slot has moved on since.
    #[error("the slot has moved on; it has taken {0} steps by now")]
    Step(u64),
    /// Another slot is on its way. Not for ever.
    #[error("slot {0} is on its way, and one moves at a time")]
    Busy(u16),
    /// Something else comes first. (Then it may be, by another command.)
    #[error("not yet: {0}")]
    NotYet(&'static str),
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
        matches!(self, Self::Epoch(_) | Self::Version(_) | Self::Step(_))
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

/// The state of a cluster: its nodes, which slots make which group, and who holds and leads each of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Meta {
    /// Counts accepted commands.
    pub revision: u64,
    /// All nodes ever registered.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// The groups, one at least, by number.
    pub groups: Vec<Group>,
    /// Which slots make which group.
    pub slots: Slots,
    /// Slots that are, or ever were, on their way from one group to another.
    pub moves: SlotMoves,
    /// Nodes that are not to lead while another one in sync can.
    pub drained: BTreeSet<NodeId>,
    /// Who belongs to the cluster, and where.
    pub book: Book,
    rules: Rules,
}

/// [`Meta`] as it is written: with one group as it was before there were several.
#[derive(Serialize, Deserialize)]
struct Written {
    revision: u64,
    nodes: BTreeMap<NodeId, NodeState>,
    group: Group,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more: Vec<Group>,
    #[serde(default, skip_serializing_if = "Slots::is_one")]
    slots: Slots,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    moves: SlotMoves,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    drained: BTreeSet<NodeId>,
    #[serde(default)]
    book: Book,
}

impl From<Meta> for Written {
    fn from(meta: Meta) -> Self {
        let Meta { revision, nodes, mut groups, slots, moves, drained, book, rules: _ } = meta;
        let more = groups.split_off(1);
        let group = groups.swap_remove(0);
        Self { revision, nodes, group, more, slots, moves, drained, book }
    }
}

impl TryFrom<Written> for Meta {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { revision, nodes, group, more, slots, moves, drained, book } = written;
        let groups: Vec<Group> = std::iter::once(group).chain(more).collect();
        if !slots.are_of(groups.len()) {
            return Err("the slots are not those of the groups");
        }
        if !moves::are_sound(&moves, groups.len()) {
            return Err("slots move in no possible way");
        }
        Ok(Self { revision, nodes, groups, slots, moves, drained, book, rules: Rules::default() })
    }
}

impl Meta {
    /// One group that begins empty, with all of `nodes` in sync in incarnation 1 and the first of them leading.
    #[must_use]
    pub fn new(nodes: &[NodeId], min_isr: usize, rules: Rules) -> Self {
        let layout = Layout { min_isr, ..Layout::of(nodes) };
        Self::laid_out(&layout, rules)
    }

    /// Groups that begin empty, as a layout says, all their holders in sync in incarnation 1.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn laid_out(layout: &Layout, rules: Rules) -> Self {
        let member = |&node: &NodeId| Member { node, incarnation: 1 };
        let all = layout.copies == 0 || layout.copies >= layout.nodes.len();
        let group = |placed: Vec<NodeId>| Group {
            epoch: 1,
            version: 1,
            leader: placed.first().map(member),
            isr: placed.iter().map(member).collect(),
            elr: Vec::new(),
            min_isr: layout.min_isr,
            lineage: 1,
            holders: if all { Vec::new() } else { placed },
            renewed: BTreeMap::new(),
            coming: None,
            gave_up: BTreeMap::new(),
        };
        let groups: Vec<Group> = layout.place().into_iter().map(group).collect();
        Self {
            revision: 0,
            nodes: layout
                .nodes
                .iter()
                .map(|&node| (node, NodeState { incarnation: 1, fenced: false }))
                .collect(),
            slots: Slots::even(groups.len()),
            groups,
            moves: SlotMoves::new(),
            drained: BTreeSet::new(),
            book: Book::default(),
            rules,
        }
    }

    /// What fails together with a node: a rack, a room, a data centre; empty where it is not known.
    #[must_use]
    pub fn zone(&self, node: NodeId) -> &str {
        self.book.places.get(&node).and_then(|place| place.zone.as_deref()).unwrap_or("")
    }

    /// A group by number.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(usize::from(group))
    }

    /// The groups with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        (0..).zip(&self.groups)
    }

    /// The newest incarnation that a node has in a group, fenced or not.
    #[must_use]
    pub fn newest(&self, group: GroupId, node: NodeId) -> Option<u64> {
        let known = self.nodes.get(&node)?.incarnation;
        let renewed = self.group(group)?.renewed.get(&node).copied().unwrap_or(0);
        Some(known.max(renewed))
    }

    /// Whether this incarnation is its node's newest in a group, did not give a copy of it up, and the node was not fenced.
    #[must_use]
    pub fn is_live(&self, group: GroupId, member: Member) -> bool {
        self.nodes.get(&member.node).is_some_and(|node| !node.fenced)
            && self.newest(group, member.node) == Some(member.incarnation)
            && !self.has_given_up(group, member)
    }

    /// Whether a node holds a group.
    #[must_use]
    pub fn is_held(&self, group: GroupId, node: NodeId) -> bool {
        let holds = |group: &Group| group.holders.is_empty() || group.holders.contains(&node);
        self.nodes.contains_key(&node) && self.group(group).is_some_and(holds)
    }

    /// Who holds a group, with their newest incarnations there.
    pub fn holders(&self, group: GroupId) -> impl Iterator<Item = Member> {
        let holds = self.nodes.keys().filter(move |node| self.is_held(group, **node));
        holds.filter_map(move |&node| {
            let incarnation = self.newest(group, node)?;
            Some(Member { node, incarnation })
        })
    }

    fn at(&self, group: GroupId) -> Result<usize, Rejection> {
        let at = usize::from(group);
        if at < self.groups.len() { Ok(at) } else { Err(Rejection::Malformed("there is no such group")) }
    }

    /// Applies a command.
    ///
    /// # Errors
    /// [`Rejection`]; then nothing has changed, and never will by this command.
    pub fn apply(&mut self, command: &Command) -> Result<(), Rejection> {
        match command {
            Command::Register { member, lossy, lost } => self.register(*member, *lossy, lost)?,
            Command::Renew { group, member, lossy } => self.renew(*group, *member, *lossy)?,
            Command::Fence { member } => self.fence(*member)?,
            Command::AlterIsr { group, epoch, version, isr } => self.alter(*group, *epoch, *version, isr)?,
            Command::Transfer { group, epoch, target } => {
                let at = self.same_epoch(*group, *epoch)?;
                if !self.is_live(*group, *target) {
                    return Err(Rejection::Incarnation(*target));
                }
                let group = &mut self.groups[at];
                if !group.isr.contains(target) || group.leader == Some(*target) {
                    return Err(Rejection::Version(group.version));
                }
                group.leader = Some(*target);
                group.epoch += 1;
            }
            Command::Drain { node, drained } => self.drain(*node, *drained)?,
            Command::Join { node, place } => self.join(*node, place)?,
            Command::Leave { node } => self.leave(*node)?,
            Command::DeclareLoss { group, epoch, target } => {
                let at = self.same_epoch(*group, *epoch)?;
                if !self.is_live(*group, *target) {
                    return Err(Rejection::Incarnation(*target));
                }
                if !self.is_held(*group, target.node) {
                    return Err(Rejection::Malformed("it does not hold the group"));
                }
                let of = &mut self.groups[at];
                if !of.is_lost() {
                    return Err(Rejection::CopyLeft);
                }
                of.lineage += 1;
                of.epoch += 1;
                of.version += 1;
                of.leader = Some(*target);
                of.isr = vec![*target];
            }
            Command::MoveSlot { slot, step, to, epoch, to_epoch } => {
                self.move_slot(*slot, *step, (*epoch, *to_epoch), *to)?;
            }
            Command::SlotLeft { slot, step, epoch, offset } => {
                self.slot_left(*slot, *step, *epoch, *offset)?
            }
            Command::SlotArrived { slot, step, epoch } => self.slot_arrived(*slot, *step, *epoch)?,
            Command::SlotStays { slot, step, epoch } => self.slot_stays(*slot, *step, *epoch)?,
            Command::MoveCopy { group, version, to, from } => self.move_copy(*group, *version, *to, *from)?,
            Command::TookUp { group, member } => self.took_up(*group, *member)?,
            Command::StopCopy { group, version } => self.stop_copy(*group, *version)?,
        }
        self.revision += 1;
        Ok(())
    }

    fn same_epoch(&self, group: GroupId, epoch: u32) -> Result<usize, Rejection> {
        let group = if self.rules.hold(Rule::OwnGroup) { group } else { 0 };
        let at = self.at(group)?;
        let now = self.groups[at].epoch;
        if epoch == now { Ok(at) } else { Err(Rejection::Epoch(now)) }
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    fn register(&mut self, member: Member, lossy: bool, lost: &[GroupId]) -> Result<(), Rejection> {
        let Book { places, left } = &self.book;
        if left.contains(&member.node) && self.rules.hold(Rule::LeftStaysOut) {
            return Err(Rejection::Left(member.node));
        }
        let new = !self.nodes.contains_key(&member.node);
        if new && !places.is_empty() && !places.contains_key(&member.node) && !left.contains(&member.node) {
            return Err(Rejection::Malformed("nobody let this node in"));
        }
        let known = self.nodes.get(&member.node).map_or(0, |known| known.incarnation);
        // No group's replica of it had that number either.
        let renewed = self.groups.iter().filter_map(|group| group.renewed.get(&member.node));
        if renewed.copied().chain([known]).max() >= Some(member.incarnation) {
            return Err(Rejection::Incarnation(member));
        }
        self.nodes.insert(member.node, NodeState { incarnation: member.incarnation, fenced: false });
        let mut leads = self.leads();
        for at in 0..self.groups.len() {
            let reached = at == 0 || self.rules.hold(Rule::EveryGroup);
            let lossy = lossy || reached && lost.iter().any(|group| usize::from(*group) == at);
            let group = &mut self.groups[at];
            group.renewed.remove(&member.node);
            group.gave_up.remove(&member.node);
            let led = group.leader.is_some_and(|leader| leader.node == member.node);
            self.come(at, member, lossy);
            // Whoever holds nothing of a group is no help to it.
            let helps = self.groups[at].leader.is_none() && self.is_held(at as GroupId, member.node);
            if led || helps {
                self.elect(at, &mut leads);
            }
        }
        Ok(())
    }

    /// A node's newest incarnation takes the place of the one before in a group's sets, or that one leaves them.
    fn come(&mut self, at: usize, member: Member, lossy: bool) {
        let lossy = lossy && self.rules.hold(Rule::LossyLeaves);
        let group = &mut self.groups[at];
        let mut changed = false;
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
    }

    fn renew(&mut self, group: GroupId, member: Member, lossy: bool) -> Result<(), Rejection> {
        let at = self.at(group)?;
        let known = self.nodes.get(&member.node).filter(|known| !known.fenced);
        // Of a node that is given up, nothing is; it registers anew first, and that is a later incarnation.
        let newer = |known: &NodeState| {
            let renewed = self.groups[at].renewed.get(&member.node).copied().unwrap_or(0);
            let newest = if self.rules.hold(Rule::RenewIsNewer) { renewed } else { 0 };
            member.incarnation > known.incarnation.max(newest)
        };
        if !known.is_some_and(newer) {
            return Err(Rejection::Incarnation(member));
        }
        let group = &mut self.groups[at];
        group.renewed.insert(member.node, member.incarnation);
        let led = group.leader.is_some_and(|leader| leader.node == member.node);
        self.come(at, member, lossy);
        if led || self.groups[at].leader.is_none() {
            self.elect(at, &mut self.leads());
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
        let mut leads = self.leads();
        for at in 0..self.groups.len() {
            let led = self.groups[at].leader.filter(|leader| self.drained.contains(&leader.node));
            if let (Some(old), Some(heir)) = (led, self.heir(at, &leads)) {
                *leads.entry(old.node).or_default() -= 1;
                *leads.entry(heir.node).or_default() += 1;
                self.groups[at].leader = Some(heir);
                self.groups[at].epoch += 1;
            }
        }
        Ok(())
    }

    fn fence(&mut self, member: Member) -> Result<(), Rejection> {
        let known = self.nodes.get_mut(&member.node).filter(|known| !known.fenced);
        let Some(known) = known.filter(|known| known.incarnation == member.incarnation) else {
            return Err(Rejection::Incarnation(member));
        };
        known.fenced = true;
        let mut leads = self.leads();
        let reached = if self.rules.hold(Rule::EveryGroup) { self.groups.len() } else { 1 };
        for at in 0..reached {
            let group = &self.groups[at];
            // In whatever incarnation it is there.
            if group.isr.iter().any(|other| other.node == member.node) {
                let isr = group.isr.iter().copied().filter(|other| other.node != member.node).collect();
                self.replace(at, isr);
            }
            if self.groups[at].leader.is_some_and(|leader| leader.node == member.node) {
                self.elect(at, &mut leads);
            }
        }
        Ok(())
    }

    fn alter(&mut self, group: GroupId, epoch: u32, version: u64, isr: &[Member]) -> Result<(), Rejection> {
        let at = self.same_epoch(group, epoch)?;
        let known = self.groups[at].version;
        if version != known && self.rules.hold(Rule::VersionCheck) {
            return Err(Rejection::Version(known));
        }
        let mut isr = isr.to_vec();
        if !self.rules.hold(Rule::ProposalIncarnation) {
            for member in &mut isr {
                if let Some(incarnation) = self.newest(group, member.node) {
                    member.incarnation = incarnation;
                }
            }
        }
        if let Some(over) = isr.iter().find(|member| !self.is_live(group, **member)) {
            return Err(Rejection::Incarnation(*over));
        }
        if !isr.iter().all(|member| self.is_held(group, member.node)) {
            return Err(Rejection::Malformed("who is in sync holds the group"));
        }
        if self.groups[at].leader.is_none_or(|leader| !isr.contains(&leader)) {
            return Err(Rejection::Malformed("a leader is in sync with itself"));
        }
        self.replace(at, isr);
        Ok(())
    }

    /// Another in-sync set. While it is too small to commit, those who leave have all there is and stay eligible.
    fn replace(&mut self, at: usize, isr: Vec<Member>) {
        let group = &mut self.groups[at];
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
        assert_eq!((meta.groups[0].leader, meta.groups[0].epoch), (Some(member(2, 1)), 2));
        assert_eq!(meta.groups[0].isr, [member(2, 1), member(3, 1)]);
        assert!(meta.groups[0].elr.is_empty(), "two are enough to commit without the third");
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
        assert_eq!((meta.groups[0].leader, meta.groups[0].isr.len()), (None, 0));
        assert_eq!(meta.groups[0].elr, [member(2, 1), member(1, 1)]);
        // The third has not all that is committed; it does not help.
        meta.apply(&Command::Register { member: member(3, 2), lossy: false, lost: Vec::new() }).unwrap();
        assert_eq!(meta.groups[0].leader, None);
        let lost = Command::DeclareLoss { group: 0, epoch: meta.groups[0].epoch, target: member(3, 2) };
        assert_eq!(meta.clone().apply(&lost), Err(Rejection::CopyLeft));
        meta.apply(&Command::Register { member: member(2, 2), lossy: false, lost: Vec::new() }).unwrap();
        assert_eq!(
            (meta.groups[0].leader, meta.groups[0].isr.clone()),
            (Some(member(2, 2)), vec![member(2, 2)])
        );
        let alter = Command::AlterIsr {
            group: 0,
            epoch: meta.groups[0].epoch,
            version: meta.groups[0].version,
            isr: vec![member(2, 2), member(3, 2)],
        };
        meta.apply(&alter).unwrap();
        assert!(meta.groups[0].elr.is_empty());
        assert_eq!(meta.apply(&alter), Err(Rejection::Version(meta.groups[0].version)));
    }

    #[test]
    fn a_restart_without_memory_is_somebody_new() {
        let mut meta = meta();
        for node in [1, 2, 3] {
            meta.apply(&Command::Register { member: member(node, 2), lossy: true, lost: Vec::new() })
                .unwrap();
        }
        assert_eq!((meta.groups[0].leader, meta.groups[0].isr.len(), meta.groups[0].elr.len()), (None, 0, 0));
        let lost = Command::DeclareLoss { group: 0, epoch: meta.groups[0].epoch, target: member(2, 2) };
        meta.apply(&lost).unwrap();
        assert_eq!((meta.groups[0].leader, meta.groups[0].lineage), (Some(member(2, 2)), 2));
        assert_eq!(meta.apply(&lost), Err(Rejection::Epoch(meta.groups[0].epoch)));
    }

    #[test]
    fn a_drained_node_leads_only_where_nobody_else_can() {
        let mut meta = meta();
        let drain = |node, drained| Command::Drain { node, drained };
        meta.apply(&drain(1, true)).unwrap();
        assert_eq!((meta.groups[0].leader, meta.groups[0].epoch), (Some(member(2, 1)), 2));
        assert_eq!(meta.groups[0].isr.len(), 3, "it goes on to count");
        meta.apply(&drain(3, true)).unwrap();
        meta.apply(&Command::Fence { member: member(2, 1) }).unwrap();
        assert_eq!(meta.groups[0].leader, Some(member(1, 1)), "better than nobody");
        meta.apply(&drain(3, false)).unwrap();
        assert_eq!((meta.groups[0].leader, meta.groups[0].epoch), (Some(member(3, 1)), 4));
        assert!(matches!(meta.apply(&drain(9, true)), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn proposals_of_the_past_are_refused_for_good() {
        let mut meta = meta();
        let alter = |epoch, version, isr| Command::AlterIsr { group: 0, epoch, version, isr };
        let old = vec![member(1, 1), member(2, 1)];
        meta.apply(&Command::Register { member: member(2, 5), lossy: true, lost: Vec::new() }).unwrap();
        let version = meta.groups[0].version;
        assert_eq!(meta.apply(&alter(1, version, old.clone())), Err(Rejection::Incarnation(member(2, 1))));
        assert_eq!(meta.apply(&alter(1, version - 1, old.clone())), Err(Rejection::Version(version)));
        assert_eq!(meta.apply(&alter(0, version, old)), Err(Rejection::Epoch(1)));
        let alone = alter(1, version, vec![member(3, 1)]);
        assert!(matches!(meta.apply(&alone), Err(Rejection::Malformed(_))));
        meta.apply(&Command::Transfer { group: 0, epoch: 1, target: member(3, 1) }).unwrap();
        assert_eq!((meta.groups[0].leader, meta.groups[0].epoch), (Some(member(3, 1)), 2));
    }

    /// As a version writes it that knows one group: read, and with one group written just so.
    #[test]
    fn one_group_is_written_as_before_there_were_several() {
        let old = serde_json::json!({
            "revision": 3,
            "nodes": {"1": {"incarnation": 2, "fenced": false}, "2": {"incarnation": 1, "fenced": true}},
            "group": {
                "epoch": 4, "version": 5, "leader": {"node": 1, "incarnation": 2},
                "isr": [{"node": 1, "incarnation": 2}], "elr": [], "min_isr": 1, "lineage": 1,
            },
            "drained": [2],
            "book": {"places": {}},
        });
        let read: Meta = serde_json::from_value(old.clone()).unwrap();
        assert_eq!((read.groups.len(), read.slots.group_of(4_095)), (1, 0));
        assert!(read.is_held(0, 2) && read.is_live(0, member(1, 2)));
        assert_eq!(serde_json::to_value(&read).unwrap(), old);
        let transfer = Command::Transfer { group: 0, epoch: 4, target: member(2, 1) };
        let old = serde_json::json!({"Transfer": {"epoch": 4, "target": {"node": 2, "incarnation": 1}}});
        assert_eq!(serde_json::to_value(&transfer).unwrap(), old);
        assert_eq!(serde_json::from_value::<Command>(old).unwrap(), transfer);
        let several = Meta::laid_out(&Layout { groups: 3, ..Layout::of(&[1, 2]) }, Rules::default());
        let written = serde_json::to_string(&several).unwrap();
        assert_eq!(serde_json::from_str::<Meta>(&written).unwrap(), several);
        let torn = written.replacen("[[0,0],", "[[1,0],", 1);
        assert_ne!(torn, written);
        assert!(serde_json::from_str::<Meta>(&torn).is_err(), "slot 0 is nobody's");
    }

    #[test]
    fn a_node_that_dies_leaves_its_leads_to_many() {
        let layout = Layout { groups: 12, min_isr: 2, ..Layout::of(&[1, 2, 3, 4]) };
        let mut meta = Meta::laid_out(&layout, Rules::default());
        let leads = |meta: &Meta, node| {
            meta.groups.iter().filter(|group| group.leader.is_some_and(|leader| leader.node == node)).count()
        };
        meta.apply(&Command::Fence { member: member(2, 1) }).unwrap();
        assert_eq!([1, 2, 3, 4].map(|node| leads(&meta, node)), [4, 0, 4, 4]);
        // One replica begins anew and the node's others go on.
        let (group, epoch) = (5, meta.groups[5].epoch);
        let leader = meta.groups[5].leader.unwrap();
        let renewed = Member { incarnation: 2, ..leader };
        meta.apply(&Command::Renew { group, member: renewed, lossy: true }).unwrap();
        assert!(meta.groups[5].epoch > epoch && !meta.groups[5].isr.contains(&renewed));
        assert!(meta.is_live(5, renewed) && !meta.is_live(5, leader) && meta.is_live(4, leader));
        let again = Command::Renew { group, member: renewed, lossy: false };
        assert_eq!(meta.apply(&again), Err(Rejection::Incarnation(renewed)));
        let known = Command::Register { member: renewed, lossy: false, lost: Vec::new() };
        assert_eq!(meta.apply(&known), Err(Rejection::Incarnation(renewed)), "a number is used once");
    }
}
