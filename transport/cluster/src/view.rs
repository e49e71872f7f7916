//! The cluster as one of its nodes sees it, for whoever shows it. Read-only: nothing here has a say in what is safe.
//!
//! A node asks the others twice a second how they stand, and watches metadata for changes of leader and of who is in sync. What it
//! tells is what it saw: changes since its own start, and of a node that does not answer what it said last.

use crate::config::NodePlace;
use crate::links::{Kind, Links};
use crate::metadata::{Consensus, ConsensusStatus};
use crate::node::{NodeStatus, ReplicaStatus, Replicas};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_replica::{Body, Entry, Group, GroupId, Log, Member, Message, Meta, NodeId, SlotMove};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How often the other nodes are asked, and how long one may take.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_millis(400);
/// Changes kept, the newest.
const CHANGES_MAX: usize = 64;
/// Entries whose bytes are added up; of what a follower lacks beyond, the mean is taken.
const SUMMED_MAX: usize = 4_096;

/// How far a follower is, as the leader knows from its last acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: u64,
    /// Offset up to which it has the leader's log.
    pub matched: u64,
    /// Entries it lacks.
    pub entries: u64,
    /// Bytes of inputs it lacks.
    pub bytes: u64,
}

/// Acknowledgements as a driver passes them on.
#[derive(Default)]
pub(crate) struct Acks(BTreeMap<NodeId, Ack>);

struct Ack {
    epoch: u32,
    incarnation: u64,
    matched: u64,
}

impl Acks {
    /// Looks at a message on its way to the replica.
    pub(crate) fn note(&mut self, message: &Message<Bytes>) {
        let &Message::Ack { epoch, from, matched } = message else { return };
        let known = self.0.entry(from.node).or_insert(Ack { epoch, incarnation: from.incarnation, matched });
        if (epoch, from.incarnation) > (known.epoch, known.incarnation) {
            *known = Ack { epoch, incarnation: from.incarnation, matched };
        } else if (epoch, from.incarnation) == (known.epoch, known.incarnation) {
            known.matched = known.matched.max(matched);
        }
    }

    /// How far those are who acknowledged something in this epoch.
    pub(crate) fn followers(&self, epoch: u32, log: &Log<Bytes>) -> Vec<FollowerStatus> {
        let end = log.end();
        let of = |(&node, ack): (&NodeId, &Ack)| {
            // What nobody sent cannot match.
            let matched = ack.matched.min(end);
            let entries = end - matched;
            let bytes = bytes_of(log.slice(matched, SUMMED_MAX), entries);
            FollowerStatus { node, incarnation: ack.incarnation, matched, entries, bytes }
        };
        self.0.iter().filter(|(_, ack)| ack.epoch == epoch).map(of).collect()
    }
}

/// Bytes of the inputs of `count` entries that begin with these.
fn bytes_of(first: &[Entry<Bytes>], count: u64) -> u64 {
    let bytes = |entry: &Entry<Bytes>| match &entry.body {
        Body::Input { input, .. } => input.len() as u64,
        _ => 0,
    };
    let sum: u64 = first.iter().map(bytes).sum();
    let summed = first.len() as u64;
    if summed == 0 || summed >= count {
        return sum;
    }
    u64::try_from(u128::from(sum) * u128::from(count) / u128::from(summed)).unwrap_or(u64::MAX)
}

/// What kind of change there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The leader was given up or started anew, and another node leads.
    FailOver,
    /// Another node leads because somebody said so, or because the leader ended in order.
    Move,
    /// Nobody leads.
    Leaderless,
    /// Somebody leads again.
    Elected,
    /// A loss was declared: the log goes on as another history.
    Loss,
    /// A node is in sync again.
    Joined,
    /// A node is in sync no longer.
    Left,
    /// A copy of the group comes to a node, or came, or goes.
    Copy,
    /// A slot has come from another group.
    Slot,
}

impl ChangeKind {
    /// Its name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FailOver => "fail_over",
            Self::Move => "move",
            Self::Leaderless => "leaderless",
            Self::Elected => "elected",
            Self::Loss => "loss",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Copy => "copy",
            Self::Slot => "slot",
        }
    }
}

/// Something that changed in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In which group.
    pub group: GroupId,
    /// What.
    pub kind: ChangeKind,
    /// The epoch since.
    pub epoch: u32,
    /// The log's history since.
    pub lineage: u64,
    /// Who led, or who left.
    pub from: Option<NodeId>,
    /// Who leads, or who joined.
    pub to: Option<NodeId>,
    /// Why, for people.
    pub reason: String,
}

/// Why a member is no longer what it was.
fn fate(member: Member, now: &Meta) -> Option<&'static str> {
    if now.book.left.contains(&member.node) {
        return Some("was taken out of the cluster");
    }
    let state = now.nodes.get(&member.node)?;
    if state.incarnation > member.incarnation {
        Some("was started anew")
    } else if state.fenced {
        Some("did not answer and was given up")
    } else {
        None
    }
}

/// What changed between two states of metadata, group by group: the leader first, then who came and went. States between them may have been
/// missed.
pub(crate) fn changes(before: &Meta, now: &Meta) -> Vec<Change> {
    let groups = before.numbered().zip(&now.groups);
    let of_groups = groups.flat_map(|((group, old), new)| changes_of(group, (old, new), now));
    of_groups.chain(slots_of(before, now)).collect()
}

fn changes_of(group: GroupId, (old, new): (&Group, &Group), now: &Meta) -> Vec<Change> {
    let mut found = Vec::new();
    let change = |kind, from: Option<NodeId>, to: Option<NodeId>, reason| Change {
        group,
        kind,
        epoch: new.epoch,
        lineage: new.lineage,
        from,
        to,
        reason,
    };
    let node = |member: Member| member.node;
    let (from, to) = (old.leader.map(node), new.leader.map(node));
    if new.lineage != old.lineage {
        let reason = "a loss was declared: the log goes on with what one node has".to_owned();
        found.push(change(ChangeKind::Loss, from, to, reason));
    } else if old.leader != new.leader {
        let kind_reason = match (old.leader, new.leader) {
            (None, _) => (ChangeKind::Elected, "a node that has everything is back".to_owned()),
            (Some(gone), None) => {
                let why = fate(gone, now).unwrap_or("left");
                (
                    ChangeKind::Leaderless,
                    format!("node {} {why}, and no node at hand has everything", gone.node),
                )
            }
            (Some(gone), Some(_)) => match fate(gone, now) {
                Some(why) => (ChangeKind::FailOver, format!("node {} {why}", gone.node)),
                None => (ChangeKind::Move, format!("node {} handed over or was told to", gone.node)),
            },
        };
        found.push(change(kind_reason.0, from, to, kind_reason.1));
    }
    let has = |set: &[Member], node: NodeId| set.iter().any(|member| member.node == node);
    for gone in old.isr.iter().filter(|member| !has(&new.isr, member.node)) {
        let why = fate(*gone, now).unwrap_or("fell behind");
        found.push(change(ChangeKind::Left, Some(gone.node), None, format!("node {} {why}", gone.node)));
    }
    for come in new.isr.iter().filter(|member| !has(&old.isr, member.node)) {
        let reason = format!("node {} has everything", come.node);
        found.push(change(ChangeKind::Joined, None, Some(come.node), reason));
    }
    for node in new.holders.iter().filter(|node| !old.holders.is_empty() && !old.holders.contains(node)) {
        let from = new.coming.and_then(|coming| coming.from);
        let place = from.map_or(String::new(), |from| format!(" in place of node {from}"));
        let reason = format!("node {node} takes the group up{place}");
        found.push(change(ChangeKind::Copy, from, Some(*node), reason));
    }
    for node in old.holders.iter().filter(|node| !new.holders.contains(node)) {
        let to = old.coming.filter(|coming| coming.from == Some(*node)).map(|coming| coming.to);
        let reason = match to {
            Some(to) => format!("node {to} holds the group, and node {node} no longer does"),
            None => format!("node {node} holds the group no longer"),
        };
        found.push(change(ChangeKind::Copy, Some(*node), to, reason));
    }
    found
}

/// Slots that another group has now.
fn slots_of(before: &Meta, now: &Meta) -> Vec<Change> {
    let of = |(&slot, _): (&u16, &SlotMove)| {
        let (old, group) = (before.slots.group_of(slot), now.slots.group_of(slot));
        let of = now.group(group).filter(|_| old != group)?;
        Some(Change {
            group,
            kind: ChangeKind::Slot,
            epoch: of.epoch,
            lineage: of.lineage,
            from: before.group(old)?.leader.map(|leader| leader.node),
            to: of.leader.map(|leader| leader.node),
            reason: format!("slot {slot} came from group {old}"),
        })
    };
    now.moves.iter().filter_map(of).collect()
}

/// A node as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// Where it is.
    pub place: NodePlace,
    /// What fails together with it, if anybody said so.
    pub zone: Option<String>,
    /// Which start of it metadata knows; 0 before it was ever there.
    pub incarnation: u64,
    /// Whether that start was given up.
    pub fenced: bool,
    /// Whether there is a connection to it; of the node itself, yes.
    pub connected: bool,
    /// Time since it said anything; of the node itself none.
    pub heard: Option<Duration>,
    /// What it said last of its replica of the first group, and how long ago.
    pub told: Option<(ReplicaStatus, Duration)>,
    /// How far that is behind the leader, as that one last said; of the leader none.
    pub behind: Option<FollowerStatus>,
    /// What it said last of its replicas of the other groups, in order, and how far each is behind its leader.
    pub others: Vec<(ReplicaStatus, Option<FollowerStatus>)>,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The cluster's number.
    pub cluster: String,
    /// Whose view it is.
    pub node: NodeId,
    /// Metadata.
    pub meta: Meta,
    /// Consensus on it.
    pub consensus: ConsensusStatus,
    /// All nodes, by number.
    pub members: Vec<MemberView>,
    /// What changed since this node's start and how long ago, the newest first.
    pub changes: Vec<(Change, Duration)>,
}

#[derive(Default)]
struct Seen {
    /// The replicas of each node, by group.
    told: BTreeMap<NodeId, (Vec<ReplicaStatus>, Instant)>,
    changes: VecDeque<(Change, Instant)>,
}

/// Looks at the cluster from one node.
#[derive(Clone)]
pub struct Observer {
    node: NodeId,
    links: Arc<Links>,
    consensus: Consensus,
    replicas: Replicas,
    seen: Arc<Mutex<Seen>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer {
    /// Begins to look, on the current tokio runtime.
    pub(crate) fn start(node: NodeId, links: Arc<Links>, consensus: Consensus, replicas: Replicas) -> Self {
        let seen = Arc::default();
        let observer = Self { node, links, consensus, replicas, seen };
        tokio::spawn(observer.clone().ask());
        tokio::spawn(observer.clone().watch());
        observer
    }

    /// Asks the others, for ever.
    async fn ask(self) {
        let mut every = interval(ASK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let mut asked = JoinSet::new();
            for node in self.links.connected() {
                let links = Arc::clone(&self.links);
                asked.spawn(async move {
                    let answer = links.call(node, Kind::Status, b"", ANSWER).await.ok()?;
                    let status: NodeStatus = serde_json::from_slice(&answer).ok()?;
                    Some((node, std::iter::once(status.replica).chain(status.replicas).collect()))
                });
            }
            for (node, replicas) in asked.join_all().await.into_iter().flatten() {
                held(&self.seen).told.insert(node, (replicas, Instant::now()));
            }
        }
    }

    /// Notes what changes in metadata, until there is none.
    async fn watch(self) {
        let mut watched = self.consensus.state();
        let mut last = Arc::clone(&watched.borrow_and_update());
        while watched.changed().await.is_ok() {
            let now = Arc::clone(&watched.borrow_and_update());
            let mut seen = held(&self.seen);
            for change in changes(&last, &now) {
                if seen.changes.len() >= CHANGES_MAX {
                    seen.changes.pop_back();
                }
                seen.changes.push_front((change, Instant::now()));
            }
            drop(seen);
            last = now;
        }
    }

    /// Metadata, as it is known here now.
    #[must_use]
    pub fn meta(&self) -> Arc<Meta> {
        Arc::clone(&self.consensus.state().borrow())
    }

    /// Whose view it is, and where feeds find each node.
    #[must_use]
    pub fn places(&self) -> (NodeId, BTreeMap<NodeId, NodePlace>) {
        (self.node, self.links.config().nodes.clone())
    }

    /// How it looks now.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        let meta = (**self.consensus.state().borrow()).clone();
        let config = self.links.config();
        let connected = self.links.connected();
        let own = self.replicas.status();
        let seen = held(&self.seen);
        let told = |node: NodeId| {
            if node == self.node {
                return Some((own.clone(), Duration::ZERO));
            }
            seen.told.get(&node).map(|(replicas, at)| (replicas.clone(), at.elapsed()))
        };
        let known = |(group, of): (GroupId, &Group)| {
            let leader = of.leader?;
            let leads = told(leader.node)?.0.into_iter().nth(group.into())?;
            // What it said when it led before says nothing.
            let is = leads.role == "leader" && leads.incarnation == leader.incarnation;
            is.then_some(leads.followers)
        };
        // By group, how far its followers are.
        let followers: Vec<Vec<FollowerStatus>> =
            meta.numbered().map(|group| known(group).unwrap_or_default()).collect();
        let member = |(&node, &place): (&NodeId, &NodePlace)| {
            let state = meta.nodes.get(&node);
            let incarnation = state.map_or(0, |state| state.incarnation);
            let behind = |group: GroupId| {
                let of = followers.get(usize::from(group))?;
                of.iter().find(|of| (of.node, of.incarnation) == (node, incarnation)).copied()
            };
            let (mut replicas, age) = told(node).map_or_else(Default::default, |(of, age)| (of, age));
            let others = replicas.split_off(1.min(replicas.len()));
            MemberView {
                node,
                place,
                zone: config.zones.get(&node).cloned(),
                incarnation,
                fenced: state.is_some_and(|state| state.fenced),
                connected: node == self.node || connected.contains(&node),
                heard: self.links.heard(node).map(|at| at.elapsed()),
                told: replicas.pop().map(|first| (first, age)),
                behind: behind(0),
                others: others.into_iter().map(|of| (of.clone(), behind(of.group))).collect(),
            }
        };
        let members = config.nodes.iter().map(member).collect();
        let changes = seen.changes.iter().map(|(change, at)| (change.clone(), at.elapsed())).collect();
        ClusterView {
            cluster: config.cluster.clone(),
            node: self.node,
            consensus: self.consensus.status(),
            members,
            changes,
            meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_replica::{Command, Layout, Rules};

    const fn member(node: NodeId, incarnation: u64) -> Member {
        Member { node, incarnation }
    }

    fn ack(node: NodeId, incarnation: u64, epoch: u32, matched: u64) -> Message<Bytes> {
        Message::Ack { epoch, from: member(node, incarnation), matched }
    }

    fn log(count: u64, bytes: usize) -> Log<Bytes> {
        let input = Bytes::from(vec![0; bytes]);
        let entry =
            |sequence| Entry { epoch: 3, body: Body::Input { source: 0, sequence, input: input.clone() } };
        Log::of((1..=count).map(entry).collect())
    }

    #[test]
    fn a_follower_is_as_far_as_it_acknowledged_to_this_leader() {
        let mut acks = Acks::default();
        acks.note(&ack(2, 1, 3, 40));
        acks.note(&ack(2, 1, 3, 30));
        acks.note(&ack(3, 1, 2, 90));
        acks.note(&Message::Stale { epoch: 9 });
        let log = log(100, 10);
        let lag = FollowerStatus { node: 2, incarnation: 1, matched: 40, entries: 60, bytes: 600 };
        assert_eq!(acks.followers(3, &log), [lag], "of node 3 this leader knows nothing yet");
        // Started anew, it has as much as it says now, be that less.
        acks.note(&ack(2, 2, 3, 5));
        acks.note(&ack(2, 1, 3, 80));
        assert_eq!(acks.followers(3, &log)[0].entries, 95);
        acks.note(&ack(2, 2, 4, 1_000));
        assert_eq!((acks.followers(4, &log)[0].entries, acks.followers(3, &log).len()), (0, 0));
    }

    #[test]
    fn bytes_beyond_what_is_added_up_are_as_the_others() {
        let count = 3 * SUMMED_MAX as u64;
        let mut acks = Acks::default();
        acks.note(&ack(2, 1, 3, 0));
        assert_eq!(acks.followers(3, &log(count, 7))[0].bytes, 7 * count);
        assert_eq!(bytes_of(&[], 5), 0);
    }

    fn meta() -> Meta {
        Meta::new(&[1, 2, 3], 2, Rules::default())
    }

    fn after(before: &Meta, command: &Command) -> (Meta, Vec<Change>) {
        let mut now = before.clone();
        now.apply(command).expect("it may be");
        let found = changes(before, &now);
        (now, found)
    }

    fn kinds(found: &[Change]) -> Vec<(&'static str, Option<NodeId>, Option<NodeId>)> {
        found.iter().map(|change| (change.kind.name(), change.from, change.to)).collect()
    }

    #[test]
    fn moves_and_failures_are_told_apart() {
        let meta = meta();
        let (_, moved) = after(&meta, &Command::Transfer { group: 0, epoch: 1, target: member(2, 1) });
        assert_eq!(kinds(&moved), [("move", Some(1), Some(2))]);
        let (after_loss, gone) = after(&meta, &Command::Fence { member: member(1, 1) });
        assert_eq!(kinds(&gone), [("fail_over", Some(1), Some(2)), ("left", Some(1), None)]);
        assert_eq!(gone[0].reason, "node 1 did not answer and was given up");
        assert_eq!(gone[0].epoch, after_loss.groups[0].epoch);
        // It comes back and catches up; that it is there is no change before it has everything.
        let (back, none) =
            after(&after_loss, &Command::Register { member: member(1, 2), lossy: false, lost: Vec::new() });
        assert_eq!(kinds(&none), []);
        let isr = vec![member(1, 2), member(2, 1), member(3, 1)];
        let alter =
            Command::AlterIsr { group: 0, epoch: back.groups[0].epoch, version: back.groups[0].version, isr };
        assert_eq!(kinds(&after(&back, &alter).1), [("joined", None, Some(1))]);
        let (_, anew) =
            after(&meta, &Command::Register { member: member(1, 2), lossy: true, lost: Vec::new() });
        assert_eq!(kinds(&anew), [("fail_over", Some(1), Some(2)), ("left", Some(1), None)]);
        assert_eq!(anew[0].reason, "node 1 was started anew");
    }

    #[test]
    fn what_changes_is_said_of_its_group() {
        let layout = tidegate_replica::Layout { groups: 3, ..tidegate_replica::Layout::of(&[1, 2, 3]) };
        let meta = Meta::laid_out(&layout, Rules::default());
        let (_, moved) = after(&meta, &Command::Transfer { group: 1, epoch: 1, target: member(3, 1) });
        assert_eq!(kinds(&moved), [("move", Some(2), Some(3))]);
        assert_eq!(moved[0].group, 1);
        let (_, gone) = after(&meta, &Command::Fence { member: member(1, 1) });
        let of: Vec<GroupId> = gone.iter().map(|change| change.group).collect();
        assert_eq!((of, gone[0].kind), (vec![0, 0, 1, 2], ChangeKind::FailOver));
    }

    #[test]
    fn a_copy_that_moves_is_told_when_it_begins_and_when_it_is_there() {
        let layout = tidegate_replica::Layout {
            groups: 2,
            copies: 2,
            min_isr: 1,
            ..tidegate_replica::Layout::of(&[1, 2, 3])
        };
        let meta = Meta::laid_out(&layout, Rules::default());
        let [from, _] = meta.groups[1].holders[..] else { panic!("two hold it") };
        let to = (1..=3).find(|node| !meta.groups[1].holders.contains(node)).expect("three nodes");
        let version = meta.groups[1].version;
        let (began, comes) = after(&meta, &Command::MoveCopy { group: 1, version, to, from: Some(from) });
        assert_eq!(kinds(&comes), [("copy", Some(from), Some(to))]);
        let of = &began.groups[1];
        let isr = of.isr.iter().copied().chain([member(to, 1)]).collect();
        let (in_sync, _) =
            after(&began, &Command::AlterIsr { group: 1, epoch: of.epoch, version: of.version, isr });
        let (_, there) = after(&in_sync, &Command::TookUp { group: 1, member: member(to, 1) });
        let last = there.last().expect("it is told");
        assert_eq!((last.kind, last.from, last.to, last.group), (ChangeKind::Copy, Some(from), Some(to), 1));
        assert_eq!(last.reason, format!("node {to} holds the group, and node {from} no longer does"));
    }

    #[test]
    fn a_slot_that_moved_is_told_once_it_is_there() {
        let layout = Layout { groups: 2, ..Layout::of(&[1, 2, 3]) };
        let begun = Meta::laid_out(&layout, Rules::default());
        let (slot, epoch) = (7, begun.groups[0].epoch);
        let (asked, none) = after(
            &begun,
            &Command::MoveSlot { slot, step: 0, to: 1, epoch, to_epoch: begun.groups[1].epoch },
        );
        let (left, still_none) = after(&asked, &Command::SlotLeft { slot, step: 1, epoch, offset: 9 });
        assert!(none.is_empty() && still_none.is_empty());
        let (_, there) = after(&left, &Command::SlotArrived { slot, step: 2, epoch: begun.groups[1].epoch });
        let leader = |group: usize| begun.groups[group].leader.map(|leader| leader.node);
        assert_eq!(kinds(&there), [("slot", leader(0), leader(1))]);
        assert_eq!((there[0].group, there[0].reason.as_str()), (1, "slot 7 came from group 0"));
    }

    #[test]
    fn nobody_left_and_a_declared_loss_are_said() {
        let mut meta = meta();
        for node in [2, 3] {
            meta.apply(&Command::Register { member: member(node, 2), lossy: true, lost: Vec::new() })
                .expect("it may");
        }
        let (none, gone) =
            after(&meta, &Command::Register { member: member(1, 2), lossy: true, lost: Vec::new() });
        assert_eq!(kinds(&gone), [("leaderless", Some(1), None), ("left", Some(1), None)]);
        assert!(gone[0].reason.contains("no node at hand has everything"), "{gone:?}");
        let loss = Command::DeclareLoss { group: 0, epoch: none.groups[0].epoch, target: member(2, 2) };
        let (_, declared) = after(&none, &loss);
        assert_eq!(kinds(&declared), [("loss", None, Some(2)), ("joined", None, Some(2))]);
        assert_eq!(declared[0].lineage, 2);
    }
}
