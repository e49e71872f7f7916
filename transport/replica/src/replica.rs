//! One replica of a group: leader or follower, as metadata says.

mod catch_up;

use self::catch_up::Fetching;
use crate::log::{Body, Entry, Log};
use crate::message::{Append, Message, SnapshotId};
use crate::meta::{Command, Group, GroupId, Member, Meta, NodeId};
use crate::rules::{Rule, Rules};
use crate::snapshot::{Base, Fit};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What the log leads to: the same inputs give the same state on every replica.
pub trait Machine: Clone + Default {
    /// An input.
    type Input: Clone;
    /// Takes the next one.
    fn apply(&mut self, input: &Self::Input);
    /// Digest of the state.
    fn digest(&self) -> u64;
    /// Bytes that an input takes on its way to a follower.
    fn bytes(_input: &Self::Input) -> usize {
        0
    }
}

/// How a replica works. Ticks are whatever the driver counts; they matter for progress alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// The group that it is a replica of.
    pub group: GroupId,
    /// Whether what it acknowledges is on its disk.
    pub durable: bool,
    /// Entries between two digests.
    pub digest_every: u64,
    /// Entries in one message at most.
    pub append_max: usize,
    /// Bytes of inputs in one message at most; an input that is larger goes alone.
    pub append_bytes_max: usize,
    /// Entries on their way to one follower at most.
    pub window_max: u64,
    /// Entries in the log that are not committed at most; with more, inputs are refused for a while.
    pub uncommitted_max: u64,
    /// Ticks without progress after which a follower counts as lagging.
    pub lag_ticks: u64,
    /// Ticks after which a proposal is made again, or a piece of a snapshot asked for.
    pub propose_ticks: u64,
    /// Ticks for which the log is kept behind a snapshot that a follower fetches, or has fetched.
    pub hold_ticks: u64,
    /// Which rules hold.
    pub rules: Rules,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            group: 0,
            durable: false,
            digest_every: 4_096,
            append_max: 512,
            append_bytes_max: 1 << 20,
            window_max: 4_096,
            uncommitted_max: 1 << 16,
            lag_ticks: 30,
            propose_ticks: 10,
            hold_ticks: 3_000,
            rules: Rules::default(),
        }
    }
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes inputs and sends them on.
    Leader,
    /// It takes what the leader sends.
    Follower,
    /// Its state differed from the log's digest. It says nothing more; its driver starts it anew, without its memory.
    Fenced,
}

/// What becomes of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// In the log; acknowledged once committed.
    Accepted,
    /// It was in the log already; acknowledged once, or because, it is committed.
    Known,
    /// Those in front of it are missing; this was the last.
    Gap(u64),
    /// Somebody else leads, or nobody.
    NotLeader,
    /// Too much is not committed.
    Busy,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<I> {
    /// Send a message.
    Send(NodeId, Message<I>),
    /// Propose to metadata.
    Propose(Command),
    /// Tell the source: committed up to here.
    Acked {
        /// The source.
        source: u32,
        /// The last that is.
        sequence: u64,
    },
    /// Hand to subscribers.
    Publish {
        /// The log's history.
        lineage: u64,
        /// Offset of the input.
        offset: u64,
    },
    /// Write the log from this offset on to disk, and say [`Replica::synced`].
    Persist(u64),
    /// The state differs from the log's digest.
    Diverged(u64),
    /// Read a piece of a snapshot of this replica, and say [`Replica::read`].
    Read {
        /// For whom.
        to: Member,
        /// Which.
        snapshot: SnapshotId,
        /// From which of its bytes on.
        at: u64,
    },
    /// Set aside a piece of a snapshot that is fetched; the first of it is at 0, and what was set aside before is void then.
    Take {
        /// Of which.
        snapshot: SnapshotId,
        /// From which of its bytes on.
        at: u64,
        /// The bytes.
        data: Bytes,
    },
    /// All pieces are there: compute the hash of what was set aside, and say [`Replica::hashed`].
    Hash(SnapshotId),
    /// The snapshot that was set aside is good: put it in place, and begin a new incarnation with it ([`Replica::new`]).
    Install {
        /// Which.
        snapshot: SnapshotId,
        /// Of which history.
        lineage: u64,
    },
}

#[derive(Clone, Debug)]
struct Peer {
    incarnation: u64,
    /// What to send next.
    next: u64,
    /// Acknowledged in this epoch.
    matched: u64,
    /// Tick of the last answer.
    heard: u64,
    /// Whether the front of the log was tried, since it last had something.
    tried: bool,
    /// Tick of the last progress, or of the last time there was nothing to progress to.
    moved: u64,
}

#[derive(Clone, Debug)]
struct Pending {
    version: u64,
    isr: Vec<Member>,
    proposed: u64,
}

/// Digests of the own state that are remembered: the leader's come back within its window.
const DIGESTS_MAX: usize = 64;

/// One replica.
#[derive(Clone, Debug)]
pub struct Replica<M: Machine> {
    me: Member,
    options: ReplicaOptions,
    role: Role,
    epoch: u32,
    lineage: u64,
    log: Log<M::Input>,
    commit: u64,
    synced: u64,
    machine: M,
    /// What of each source is committed; part of the state.
    committed: BTreeMap<u32, u64>,
    /// What of each source is in the log; the leader's.
    last: BTreeMap<u32, u64>,
    digests: VecDeque<(u64, u64)>,
    revision: u64,
    group: Option<Group>,
    peers: BTreeMap<NodeId, Peer>,
    pending: Option<Pending>,
    /// End of the log when leading began.
    began: u64,
    /// The epoch it led last.
    led: u32,
    /// Whom this follower answers, and up to where its log is the leader's, in this epoch.
    follows: Option<(Member, u64)>,
    /// Its own snapshots, the newest last.
    snapshots: Vec<SnapshotId>,
    /// The one it fetches.
    fetching: Option<Fetching>,
    /// For each follower the snapshot it was offered, and until which tick the log behind it is kept.
    held: BTreeMap<NodeId, (u64, u64)>,
    now: u64,
    outputs: Vec<Output<M::Input>>,
}

impl<M: Machine> Replica<M> {
    /// A replica with what its disk kept: a snapshot (or the empty [`Base`]) and a log. All of it counts as synced. What of the log does
    /// not go with the snapshot, or the other way round, is left out.
    #[must_use]
    pub fn new(me: Member, lineage: u64, base: Base<M>, log: Log<M::Input>, options: ReplicaOptions) -> Self {
        let (lineage, base, log) = match base.point().fit(lineage, &log, options.rules) {
            Fit::Follows => (lineage, base, log),
            Fit::Replaces { .. } => {
                let (at, epoch) = (base.offset, base.epoch);
                (lineage.max(base.lineage), base, Log::behind(at, epoch, Vec::new()))
            }
            Fit::Useless if log.base() == 0 => (lineage, Base::default(), log),
            Fit::Useless => (lineage, Base::default(), Log::default()),
        };
        Self {
            me,
            role: Role::Follower,
            epoch: 0,
            lineage,
            commit: base.offset,
            synced: log.end(),
            log,
            machine: base.machine,
            committed: base.committed,
            last: BTreeMap::new(),
            digests: VecDeque::new(),
            revision: 0,
            group: None,
            peers: BTreeMap::new(),
            pending: None,
            began: 0,
            led: 0,
            follows: None,
            snapshots: Vec::new(),
            fetching: None,
            held: BTreeMap::new(),
            now: 0,
            outputs: Vec::new(),
            options,
        }
    }

    /// The same replica, its memory whole, registered anew.
    pub fn reincarnate(&mut self, incarnation: u64) {
        assert!(incarnation > self.me.incarnation, "incarnations only grow");
        self.me.incarnation = incarnation;
        if self.role == Role::Leader {
            self.role = Role::Follower; // until metadata says otherwise
            self.pending = None;
        }
        self.follows = None;
    }

    fn holds(&self, rule: Rule) -> bool {
        self.options.rules.hold(rule)
    }

    /// Takes the newest metadata it is told; older ones change nothing.
    pub fn on_meta(&mut self, meta: &Meta) {
        if meta.revision <= self.revision && self.group.is_some() || self.role == Role::Fenced {
            return;
        }
        self.revision = meta.revision;
        let Some(group) = meta.group(self.options.group) else { return };
        if group.epoch < self.epoch {
            return;
        }
        let leads = group.leader == Some(self.me);
        if group.lineage != self.lineage {
            self.lineage = group.lineage;
            if !leads {
                self.forget();
            }
        }
        if group.epoch > self.epoch || leads != (self.role == Role::Leader) {
            self.epoch = group.epoch;
            self.follows = None;
            if leads {
                self.lead();
            } else {
                (self.role, self.pending) = (Role::Follower, None);
            }
        }
        if self.group.as_ref() != Some(group) {
            self.group = Some(group.clone());
        }
        if self.role != Role::Leader {
            return;
        }
        // An accepted proposal has a version of its own; a later one was refused, whatever is still under way.
        self.pending.take_if(|pending| group.version > pending.version);
        // Who has left is told nothing more.
        self.peers.retain(|node, _| meta.is_held(self.options.group, *node));
        self.held.retain(|node, _| meta.is_held(self.options.group, *node));
        for Member { node, incarnation } in meta.holders(self.options.group) {
            if node == self.me.node {
                continue;
            }
            let (end, now) = (self.log.end(), self.now);
            let fresh = || Peer { incarnation, next: end, matched: 0, heard: now, tried: false, moved: now };
            let peer = self.peers.entry(node).or_insert_with(fresh);
            if peer.incarnation < incarnation {
                // The old one's progress is not the new one's.
                let matched = if self.options.rules.hold(Rule::AckIncarnation) { 0 } else { peer.matched };
                *peer = Peer { matched, ..fresh() };
            }
        }
        self.send_all(false);
        self.advance();
    }

    fn lead(&mut self) {
        self.role = Role::Leader;
        self.peers.clear();
        self.pending = None;
        self.fetching = None;
        self.began = self.log.end();
        self.led = self.epoch;
        if self.holds(Rule::DedupeFromLog) {
            self.last = self.committed.clone();
            for entry in self.log.slice(self.commit, usize::MAX) {
                if let Body::Input { source, sequence, .. } = entry.body {
                    self.last.insert(source, sequence);
                }
            }
        }
    }

    /// Everything is void: the log belongs to another history.
    fn forget(&mut self) {
        self.log = Log::default();
        (self.commit, self.synced) = (0, 0);
        self.machine = M::default();
        self.committed.clear();
        self.last.clear();
        self.digests.clear();
        self.snapshots.clear();
        self.fetching = None;
        self.outputs.push(Output::Persist(0));
    }

    /// An input of a source, numbered from 1 without holes.
    pub fn submit(&mut self, source: u32, sequence: u64, input: M::Input) -> Submitted {
        if self.role != Role::Leader {
            return Submitted::NotLeader;
        }
        let last = self.last.get(&source).copied().unwrap_or(0);
        if sequence <= last {
            let committed = self.committed.get(&source).copied().unwrap_or(0);
            if sequence <= committed {
                self.outputs.push(Output::Acked { source, sequence: committed });
            }
            return Submitted::Known;
        }
        if sequence > last + 1 {
            return Submitted::Gap(last);
        }
        if self.log.end() - self.commit >= self.options.uncommitted_max {
            return Submitted::Busy;
        }
        self.last.insert(source, sequence);
        let offset = self.append(Body::Input { source, sequence, input });
        if !self.holds(Rule::AckAfterCommit) {
            self.outputs.push(Output::Acked { source, sequence });
        }
        if !self.holds(Rule::PublishAfterCommit) {
            self.outputs.push(Output::Publish { lineage: self.lineage, offset });
        }
        self.send_all(false);
        self.advance();
        Submitted::Accepted
    }

    fn append(&mut self, body: Body<M::Input>) -> u64 {
        let offset = self.log.end();
        self.log.push(Entry { epoch: self.epoch, body });
        self.outputs.push(Output::Persist(offset));
        offset
    }

    /// Everything up to `offset` of the log as it is now is on disk; a sync that began before [`Output::Persist`] of a lower offset
    /// says nothing about what is behind that.
    pub fn synced(&mut self, offset: u64) {
        self.synced = self.synced.max(offset.min(self.log.end()));
        if self.role == Role::Leader {
            self.advance();
        } else if self.role == Role::Follower
            && let Some((leader, verified)) = self.follows
        {
            self.acknowledge(leader, verified);
        }
    }

    /// Up to where the log is on disk.
    pub fn synced_to(&self) -> u64 {
        self.synced
    }

    fn acknowledge(&mut self, leader: Member, verified: u64) {
        let matched = verified.min(self.own());
        let ack = Message::Ack { epoch: self.epoch, from: self.me, matched };
        self.outputs.push(Output::Send(leader.node, ack));
    }

    /// What counts of this replica's own log.
    fn own(&self) -> u64 {
        let durable = self.options.durable && self.holds(Rule::AckAfterSync);
        if durable { self.synced } else { self.log.end() }
    }

    /// A message of another replica.
    pub fn receive(&mut self, message: Message<M::Input>) {
        if self.role == Role::Fenced {
            return;
        }
        match message {
            Message::Append(append) => self.follow(append),
            Message::Ack { epoch, from, matched } => {
                if self.role != Role::Leader || epoch != self.epoch {
                    return;
                }
                let (now, end, anyone) = (self.now, self.log.end(), !self.holds(Rule::AckIncarnation));
                let Some(peer) = self.peers.get_mut(&from.node) else { return };
                if peer.incarnation != from.incarnation && !anyone {
                    return;
                }
                peer.heard = now;
                // What nobody sent cannot match: a forged offset counts for nothing.
                if matched > end {
                    return;
                }
                if matched > peer.matched {
                    (peer.matched, peer.moved, peer.tried) = (matched, now, false);
                }
                peer.next = peer.next.max(peer.matched);
                if peer.matched == end {
                    peer.moved = now;
                }
                self.send(from.node, false);
                self.advance();
                self.propose();
            }
            Message::Mismatch { epoch, from, hint } => {
                if self.role != Role::Leader || epoch != self.epoch {
                    return;
                }
                let now = self.now;
                let Some(peer) = self.peers.get_mut(&from.node) else { return };
                if peer.incarnation != from.incarnation {
                    return;
                }
                peer.heard = now;
                if hint < peer.next {
                    let base = self.log.base();
                    // What it has may begin to differ behind the front of this log; that is tried once.
                    let hint = if peer.tried { hint } else { hint.max(base) };
                    peer.tried |= hint == base;
                    peer.next = hint.max(peer.matched);
                    self.send(from.node, true);
                }
            }
            Message::Offer { epoch, lineage, from, to, snapshot } => {
                if self.heed(epoch, lineage, from, to) {
                    self.offered(from, snapshot);
                }
            }
            Message::Fetch { epoch, from, offset, at } => self.asked(epoch, from, offset, at),
            Message::Chunk { epoch, from, to, offset, at, data } => {
                if epoch == self.epoch && to == self.me {
                    self.chunk(from, offset, at, data);
                }
            }
            // Metadata will say who leads; until then nothing is committed, because nobody answers the old epoch.
            Message::Stale { .. } => {}
        }
    }

    /// Whether a message is the current leader's, or a newer one's, to this replica; who leads in a newer epoch or lineage is followed.
    fn heed(&mut self, epoch: u32, lineage: u64, from: Member, to: Member) -> bool {
        if to != self.me || from.node == self.me.node {
            return false;
        }
        if epoch < self.epoch && self.holds(Rule::RefuseOldEpoch) {
            let stale = Message::Stale { epoch: self.epoch };
            self.outputs.push(Output::Send(from.node, stale));
            return false;
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            (self.role, self.pending, self.follows) = (Role::Follower, None, None);
        }
        if self.role == Role::Leader {
            if epoch == self.epoch {
                return false; // one leader per epoch: metadata sees to it
            }
            (self.role, self.pending) = (Role::Follower, None);
        }
        if lineage != self.lineage {
            if lineage < self.lineage {
                return false;
            }
            self.lineage = lineage;
            self.forget();
        }
        true
    }

    fn follow(&mut self, append: Append<M::Input>) {
        if !self.heed(append.epoch, append.lineage, append.from, append.to) {
            return;
        }
        let Append { epoch, from, prev_offset, prev_epoch, entries, commit, .. } = append;
        if prev_offset < self.log.base() {
            // Everything up to the own commit is as any leader of this lineage has it.
            return self.acknowledge(from, self.commit);
        }
        let end = self.log.end();
        let follows = prev_offset <= end
            && (self.log.epoch_before(prev_offset) == prev_epoch || !self.holds(Rule::PrevCheck));
        if !follows {
            let hint = if prev_offset > end { end } else { self.log.run_start(prev_offset) };
            let hint = hint.max(self.commit.min(prev_offset.saturating_sub(1)));
            let message = Message::Mismatch { epoch, from: self.me, hint };
            self.outputs.push(Output::Send(from.node, message));
            return;
        }
        let matched = prev_offset + entries.len() as u64;
        let mut changed = None;
        for (at, entry) in entries.into_iter().enumerate() {
            let offset = prev_offset + at as u64;
            if offset < self.log.end() {
                if self.log.epoch_before(offset + 1) == entry.epoch {
                    continue;
                }
                if offset < self.commit {
                    // Only a broken rule leads here; to give up what is committed would hide it.
                    self.role = Role::Fenced;
                    self.outputs.push(Output::Diverged(offset));
                    return;
                }
                self.log.truncate(offset);
                self.synced = self.synced.min(offset);
            }
            changed = changed.or(Some(offset));
            self.log.push(entry);
        }
        if let Some(from) = changed {
            self.outputs.push(Output::Persist(from));
        }
        let bound = if self.holds(Rule::CommitBounded) { matched } else { self.log.end() };
        // Nor by more than it would have after a crash: it may be all that is left, and begin a new lineage with it.
        let commit = commit.min(bound).min(self.own());
        if commit > self.commit {
            self.commit_to(commit);
        }
        if self.role == Role::Fenced {
            return;
        }
        self.follows = Some((from, matched));
        let matched = matched.min(self.own());
        self.outputs.push(Output::Send(from.node, Message::Ack { epoch, from: self.me, matched }));
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        if self.role != Role::Leader {
            return;
        }
        let end = self.log.end();
        for peer in self.peers.values_mut() {
            if peer.matched == end && now.saturating_sub(peer.heard) < self.options.lag_ticks {
                peer.moved = now;
            }
        }
        self.send_all(true);
        self.advance();
        self.propose();
    }

    fn send_all(&mut self, always: bool) {
        let nodes: [Option<NodeId>; 16] = {
            let mut nodes = [None; 16];
            nodes.iter_mut().zip(self.peers.keys()).for_each(|(slot, node)| *slot = Some(*node));
            nodes
        };
        for node in nodes.into_iter().flatten() {
            self.send(node, always);
        }
    }

    /// Sends a follower what it does not have yet, as far as the window allows; nothing only if `always`.
    fn send(&mut self, node: NodeId, always: bool) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let end = self.log.end();
        peer.next = peer.next.min(end);
        if peer.next < self.log.base() {
            if always {
                self.offer(node);
            }
            return;
        }
        let room = self.options.window_max.saturating_sub(peer.next - peer.matched.min(peer.next));
        let count = usize::try_from(room).unwrap_or(usize::MAX).min(self.options.append_max);
        let entries = fitting::<M>(self.log.slice(peer.next, count), self.options.append_bytes_max);
        if entries.is_empty() && !always {
            return;
        }
        let append = Append {
            epoch: self.epoch,
            lineage: self.lineage,
            from: self.me,
            to: Member { node, incarnation: peer.incarnation },
            prev_offset: peer.next,
            prev_epoch: self.log.epoch_before(peer.next),
            entries: entries.to_vec(),
            commit: self.commit,
        };
        peer.next += append.entries.len() as u64;
        self.outputs.push(Output::Send(node, Message::Append(append)));
    }

    /// Commits what everybody has who must.
    fn advance(&mut self) {
        if self.role != Role::Leader {
            return;
        }
        let Some(group) = &self.group else { return };
        if group.epoch != self.epoch {
            return;
        }
        let rules = self.options.rules;
        if group.isr.len() < group.min_isr && rules.hold(Rule::CommitAtMinIsr) {
            return;
        }
        let own = self.own();
        let has = |member: &Member| {
            if member.node == self.me.node {
                return own;
            }
            let peer = self.peers.get(&member.node);
            let known = peer
                .filter(|peer| peer.incarnation == member.incarnation || !rules.hold(Rule::AckIncarnation));
            known.map_or(0, |peer| peer.matched)
        };
        let proposed = self.pending.as_ref().map_or(&[][..], |pending| &pending.isr);
        let leaves_early = !rules.hold(Rule::ShrinkWaits) && !proposed.is_empty();
        let confirmed = group.isr.iter().filter(|member| !leaves_early || proposed.contains(member));
        let joining = proposed.iter().filter(|_| rules.hold(Rule::JoinCounts));
        let commit = confirmed.chain(joining).map(has).min().unwrap_or(0);
        if commit > self.commit {
            self.commit_to(commit);
        }
    }

    fn commit_to(&mut self, commit: u64) {
        let commit = commit.min(self.log.end());
        let leads = self.role == Role::Leader;
        while self.commit < commit {
            let offset = self.commit;
            let Some(entry) = self.log.slice(offset, 1).first() else { return };
            match &entry.body {
                Body::Input { source, sequence, input } => {
                    self.machine.apply(input);
                    let (source, sequence) = (*source, *sequence);
                    self.committed.insert(source, sequence);
                    if leads {
                        self.outputs.push(Output::Publish { lineage: self.lineage, offset });
                        self.outputs.push(Output::Acked { source, sequence });
                    }
                }
                Body::Digest { at, value } => {
                    let differs = self.digests.iter().any(|(mine, digest)| mine == at && digest != value);
                    if differs && self.options.rules.hold(Rule::DigestFences) {
                        self.role = Role::Fenced;
                        self.outputs.push(Output::Diverged(*at));
                        return;
                    }
                }
            }
            self.commit += 1;
            if self.commit.is_multiple_of(self.options.digest_every) {
                let digest = (self.commit, self.machine.digest());
                if self.digests.len() == DIGESTS_MAX {
                    self.digests.pop_front();
                }
                self.digests.push_back(digest);
                // What was in the log before is for those who led then.
                if leads && digest.0 > self.began {
                    self.append(Body::Digest { at: digest.0, value: digest.1 });
                }
            }
        }
        if leads {
            self.send_all(true);
        }
    }

    /// Proposes another in-sync set, one at a time.
    fn propose(&mut self) {
        let Some(group) = &self.group else { return };
        if self.role != Role::Leader || group.epoch != self.epoch {
            return;
        }
        let now = self.now;
        if let Some(pending) = &mut self.pending {
            if now.saturating_sub(pending.proposed) >= self.options.propose_ticks {
                pending.proposed = now;
                let command = Command::AlterIsr {
                    group: self.options.group,
                    epoch: self.epoch,
                    version: pending.version,
                    isr: pending.isr.clone(),
                };
                self.outputs.push(Output::Propose(command));
            }
            return;
        }
        let mut isr = group.isr.clone();
        for (&node, peer) in &self.peers {
            let member = Member { node, incarnation: peer.incarnation };
            let silent = now.saturating_sub(peer.heard) >= self.options.lag_ticks;
            let stuck = now.saturating_sub(peer.moved) >= self.options.lag_ticks;
            if let Some(at) = isr.iter().position(|other| other.node == node) {
                if silent || stuck || isr[at] != member {
                    isr.remove(at);
                }
            } else {
                let caught_up = peer.matched >= self.commit && peer.matched >= self.began;
                if !silent && (caught_up || !self.options.rules.hold(Rule::JoinWhenCaughtUp)) {
                    isr.push(member);
                }
            }
        }
        if isr != group.isr {
            let version = group.version;
            self.outputs.push(Output::Propose(Command::AlterIsr {
                group: self.options.group,
                epoch: self.epoch,
                version,
                isr: isr.clone(),
            }));
            self.pending = Some(Pending { version, isr, proposed: now });
            self.advance();
        }
    }

    /// Metadata refused a proposal of this replica, for good; `overtaken` as [`crate::meta::Rejection::is_overtaken`] says.
    pub fn rejected(&mut self, command: &Command, overtaken: bool) {
        if overtaken || !self.holds(Rule::ExplicitReject) {
            return;
        }
        if let Command::AlterIsr { group, epoch, version, isr } = command
            && *group == self.options.group
            && *epoch == self.epoch
        {
            self.pending.take_if(|pending| pending.version == *version && pending.isr == *isr);
            self.advance();
        }
    }

    /// What is to be done, in order; `into` is emptied first.
    pub fn drain(&mut self, into: &mut Vec<Output<M::Input>>) {
        into.clear();
        std::mem::swap(into, &mut self.outputs);
    }

    /// Who it is.
    #[must_use]
    pub fn me(&self) -> Member {
        self.me
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The epoch it led last, 0 for none: also of one that fenced itself as a leader.
    #[must_use]
    pub fn led(&self) -> u32 {
        self.led
    }

    /// The newest epoch it knows.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Its log's history.
    #[must_use]
    pub fn lineage(&self) -> u64 {
        self.lineage
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log<M::Input> {
        &self.log
    }

    /// Offset below which everything is committed, as far as it knows.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Its state.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Its state, to be tampered with by a simulator.
    #[cfg(feature = "mutations")]
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// What a leader believes that its followers have, for a simulator to compare with what they have.
    #[cfg(feature = "mutations")]
    pub fn believed(&self) -> impl Iterator<Item = (Member, u64)> {
        let of =
            |(&node, peer): (&NodeId, &Peer)| (Member { node, incarnation: peer.incarnation }, peer.matched);
        self.peers.iter().map(of).filter(|_| self.role == Role::Leader)
    }

    /// The last committed sequence of a source.
    #[must_use]
    pub fn committed(&self, source: u32) -> u64 {
        self.committed.get(&source).copied().unwrap_or(0)
    }

    /// The last sequence of a source in the log, where it leads.
    #[must_use]
    pub fn last(&self, source: u32) -> u64 {
        self.last.get(&source).copied().unwrap_or(0)
    }

    /// The revision of the metadata it was told.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// As many entries from the front as have room in `most` bytes, and one at least.
fn fitting<M: Machine>(entries: &[Entry<M::Input>], most: usize) -> &[Entry<M::Input>] {
    let mut bytes = 0usize;
    let over = entries.iter().position(|entry| {
        if let Body::Input { input, .. } = &entry.body {
            bytes = bytes.saturating_add(M::bytes(input));
        }
        bytes > most
    });
    &entries[..over.map_or(entries.len(), |over| over.max(1))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Meta;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Sum(u64);

    impl Machine for Sum {
        type Input = u64;

        fn apply(&mut self, input: &u64) {
            self.0 = self.0.wrapping_mul(31).wrapping_add(*input);
        }

        fn digest(&self) -> u64 {
            self.0
        }
    }

    const fn member(node: NodeId, incarnation: u64) -> Member {
        Member { node, incarnation }
    }

    fn options() -> ReplicaOptions {
        ReplicaOptions { digest_every: 2, ..ReplicaOptions::default() }
    }

    fn new(node: NodeId, options: ReplicaOptions) -> Replica<Sum> {
        Replica::new(member(node, 1), 1, Base::default(), Log::default(), options)
    }

    fn pair() -> (Replica<Sum>, Replica<Sum>, Meta) {
        let meta = Meta::new(&[1, 2], 2, Rules::default());
        let mut replicas = [1, 2].map(|node| new(node, options()));
        replicas.iter_mut().for_each(|replica| replica.on_meta(&meta));
        let [leader, follower] = replicas;
        (leader, follower, meta)
    }

    fn sent<M: Machine>(replica: &mut Replica<M>) -> Vec<Message<M::Input>> {
        let mut outputs = Vec::new();
        replica.drain(&mut outputs);
        let messages = outputs.into_iter().filter_map(|output| match output {
            Output::Send(_, message) => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// Lets the two talk until they have nothing to say.
    fn settle(leader: &mut Replica<Sum>, follower: &mut Replica<Sum>) {
        for _ in 0..20 {
            sent(leader).into_iter().for_each(|message| follower.receive(message));
            sent(follower).into_iter().for_each(|message| leader.receive(message));
        }
    }

    #[test]
    fn what_both_have_is_committed_acknowledged_and_published_once() {
        let (mut leader, mut follower, _) = pair();
        assert_eq!(leader.submit(7, 1, 10), Submitted::Accepted);
        assert_eq!(leader.commit(), 0, "the follower has not answered");
        let mut outputs = Vec::new();
        leader.drain(&mut outputs);
        assert!(
            !outputs.iter().any(|output| matches!(output, Output::Acked { .. } | Output::Publish { .. }))
        );
        for output in outputs {
            if let Output::Send(2, message) = output {
                follower.receive(message);
            }
        }
        sent(&mut follower).into_iter().for_each(|message| leader.receive(message));
        assert_eq!(leader.commit(), 1);
        leader.drain(&mut Vec::new());
        assert_eq!(leader.submit(7, 1, 10), Submitted::Known);
        let mut outputs = Vec::new();
        leader.drain(&mut outputs);
        assert_eq!(outputs, [Output::Acked { source: 7, sequence: 1 }], "told again, applied once");
        assert_eq!(leader.submit(7, 3, 10), Submitted::Gap(1));
        assert_eq!(follower.submit(7, 2, 10), Submitted::NotLeader);
    }

    #[test]
    fn forged_epochs_incarnations_and_offsets_count_for_nothing() {
        let (mut leader, mut follower, _) = pair();
        assert_eq!(leader.submit(1, 1, 5), Submitted::Accepted);
        for message in [
            Message::Ack { epoch: 2, from: member(2, 1), matched: 1 },
            Message::Ack { epoch: 0, from: member(2, 1), matched: 1 },
            Message::Ack { epoch: 1, from: member(2, 2), matched: 1 },
            Message::Ack { epoch: 1, from: member(2, 1), matched: 2 },
            Message::Ack { epoch: 1, from: member(2, 1), matched: u64::MAX },
            Message::Ack { epoch: 1, from: member(9, 1), matched: 1 },
            Message::Mismatch { epoch: 1, from: member(9, 1), hint: u64::MAX },
            Message::Stale { epoch: u32::MAX },
        ] {
            leader.receive(message.clone());
            assert_eq!((leader.commit(), leader.role()), (0, Role::Leader), "{message:?}");
        }
        let good = sent(&mut leader).into_iter().find_map(|message| match message {
            Message::Append(append) if !append.entries.is_empty() => Some(append),
            _ => None,
        });
        let good = good.unwrap();
        for forged in [
            Append { to: member(2, 2), ..good.clone() },
            Append { to: member(1, 1), ..good.clone() },
            Append { epoch: 0, ..good.clone() },
            Append { lineage: 0, ..good.clone() },
            Append { prev_offset: 5, ..good.clone() },
            Append { prev_offset: u64::MAX, ..good.clone() },
            Append { prev_epoch: 1, ..good.clone() },
        ] {
            follower.receive(Message::Append(forged.clone()));
            assert_eq!(follower.log().end(), 0, "{forged:?}");
        }
        follower.receive(Message::Append(Append { commit: u64::MAX, ..good }));
        assert_eq!((follower.log().end(), follower.commit()), (1, 1), "no further than what it has");
    }

    #[test]
    fn a_state_that_differs_fences_itself_and_falls_silent() {
        let (mut leader, mut follower, _) = pair();
        settle(&mut leader, &mut follower);
        follower.machine.0 = 99;
        for sequence in 1..=4 {
            assert_eq!(leader.submit(1, sequence, sequence), Submitted::Accepted);
            settle(&mut leader, &mut follower);
        }
        assert_eq!(follower.role(), Role::Fenced);
        leader.tick(1);
        sent(&mut leader).into_iter().for_each(|message| follower.receive(message));
        assert!(sent(&mut follower).is_empty());
    }

    #[test]
    fn a_durable_follower_answers_for_what_it_has_synced() {
        let meta = Meta::new(&[1, 2], 2, Rules::default());
        let (mut leader, _, _) = pair();
        let mut follower: Replica<Sum> = new(2, ReplicaOptions { durable: true, ..options() });
        follower.on_meta(&meta);
        assert_eq!(leader.submit(1, 1, 5), Submitted::Accepted);
        settle(&mut leader, &mut follower);
        assert_eq!((follower.log().end(), leader.commit()), (1, 0));
        follower.synced(1);
        settle(&mut leader, &mut follower);
        assert_eq!(leader.commit(), 1);
    }

    /// The same proposal twice: the second one's refusal says nothing about the first, which may have added somebody.
    #[test]
    fn a_refusal_of_what_was_accepted_before_lets_nothing_be_committed_without_the_joiner() {
        let mut meta = Meta::new(&[1, 2, 3], 2, Rules::default());
        let mut leader = new(1, options());
        let lossy = Command::Register { member: member(3, 2), lossy: true, lost: Vec::new() };
        meta.apply(&lossy).unwrap();
        leader.on_meta(&meta);
        let ack =
            |node, incarnation, matched| Message::Ack { epoch: 1, from: member(node, incarnation), matched };
        leader.receive(ack(3, 2, 0));
        let mut outputs = Vec::new();
        leader.drain(&mut outputs);
        let proposed = outputs.iter().find_map(|output| match output {
            Output::Propose(command) => Some(command.clone()),
            _ => None,
        });
        let proposed = proposed.expect("node 3 has all there is");
        meta.apply(&proposed).unwrap();
        let refused = meta.apply(&proposed).unwrap_err();
        assert_eq!(leader.submit(1, 1, 5), Submitted::Accepted);
        leader.receive(ack(2, 1, 1));
        leader.rejected(&proposed, refused.is_overtaken());
        assert_eq!(leader.commit(), 0, "node 3 may lead by now");
        leader.on_meta(&meta);
        assert_eq!(leader.commit(), 0);
        leader.receive(ack(3, 2, 1));
        assert_eq!(leader.commit(), 1);
        // What holds for ever of the proposal itself drops it.
        let over = Command::AlterIsr {
            group: 0,
            epoch: 1,
            version: meta.groups[0].version,
            isr: vec![member(1, 1), member(3, 1)],
        };
        assert!(!meta.apply(&over).unwrap_err().is_overtaken());
    }

    #[test]
    fn too_much_that_waits_is_refused_for_a_while() {
        let meta = Meta::new(&[1, 2], 2, Rules::default());
        let bounded = ReplicaOptions { uncommitted_max: 3, ..options() };
        let mut leader: Replica<Sum> = new(1, bounded);
        leader.on_meta(&meta);
        let became: Vec<Submitted> = (1..=5).map(|sequence| leader.submit(1, sequence, 0)).collect();
        assert_eq!(
            became[..4],
            [Submitted::Accepted, Submitted::Accepted, Submitted::Accepted, Submitted::Busy]
        );
        assert_eq!(became[4], Submitted::Gap(3));
    }

    /// Two leaders' entries at the same offsets: the later leader's stay, and what was committed was never touched.
    #[test]
    fn a_conflict_is_cut_off_behind_what_both_have() {
        let (mut leader, mut follower, mut meta) = pair();
        assert_eq!(leader.submit(1, 1, 5), Submitted::Accepted);
        settle(&mut leader, &mut follower);
        leader.tick(1);
        settle(&mut leader, &mut follower);
        let committed = leader.commit();
        assert_eq!(follower.commit(), committed);
        assert_eq!(leader.submit(1, 2, 6), Submitted::Accepted);
        assert_eq!(leader.submit(1, 3, 7), Submitted::Accepted);
        sent(&mut leader); // lost
        meta.apply(&Command::Transfer { group: 0, epoch: 1, target: member(2, 1) }).unwrap();
        follower.on_meta(&meta);
        assert_eq!(follower.submit(1, 2, 8), Submitted::Accepted);
        leader.on_meta(&meta);
        follower.tick(1);
        settle(&mut follower, &mut leader);
        assert_eq!(leader.log(), follower.log());
        assert!(follower.commit() > committed && leader.role() == Role::Follower);
    }
}
