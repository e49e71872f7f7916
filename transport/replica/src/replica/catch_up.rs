//! Snapshots instead of the front of the log: what is cut off behind them, and how a follower that lacks that gets one.
//!
//! A leader whose log does not reach back far enough offers its newest snapshot. The follower asks for one piece after the other, so
//! it is as fast as both can be, and goes on where it was when a piece is lost. When all is there its hash is compared; then the
//! driver puts it in place and starts the replica anew with it, which acknowledges it and gets the rest from the log. The leader counts
//! nothing of all that before that acknowledgement.

use super::{Machine, Output, Replica, Role};
use crate::log::Body;
use crate::message::{Message, SnapshotId};
use crate::meta::{Member, NodeId};
use crate::rules::Rule;
use crate::snapshot::Base;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A snapshot on its way here.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    id: SnapshotId,
    from: Member,
    /// Bytes of it that are set aside.
    have: u64,
    /// Tick of the last piece asked for.
    asked: u64,
}

impl<M: Machine> Replica<M> {
    /// The state at the commit: what a snapshot is made of.
    #[must_use]
    pub fn base(&self) -> Base<M> {
        let (mut machine, mut offset) = (self.machine.clone(), self.commit);
        if !self.holds(Rule::SnapshotCommitted) {
            for entry in self.log.slice(self.commit, usize::MAX) {
                if let Body::Input { input, .. } = &entry.body {
                    machine.apply(input);
                }
            }
            offset = self.log.end();
        }
        let committed =
            if self.holds(Rule::SnapshotHasSources) { self.committed.clone() } else { BTreeMap::new() };
        Base { lineage: self.lineage, offset, epoch: self.log.epoch_before(offset), machine, committed }
    }

    /// The snapshots of this replica that are on its disk, whole; others are there no more.
    pub fn keeps(&mut self, snapshots: impl IntoIterator<Item = SnapshotId>) {
        let (base, commit) = (self.log.base(), self.commit);
        let committed = |offset| offset <= commit || !self.options.rules.hold(Rule::SnapshotCommitted);
        let good = |snapshot: &SnapshotId| snapshot.offset >= base && committed(snapshot.offset);
        let mut snapshots: Vec<SnapshotId> = snapshots.into_iter().filter(good).collect();
        snapshots.sort_unstable_by_key(|snapshot| snapshot.offset);
        self.snapshots = snapshots;
    }

    /// Its snapshots, the newest last.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        self.snapshots.iter()
    }

    /// Forgets the log in front of `to`, as far as a snapshot has it and nobody needs it to go on from one. Returns where the log begins.
    pub fn cut(&mut self, to: u64) -> u64 {
        let now = self.now;
        self.held.retain(|_, (_, until)| *until > now);
        let whole = self.snapshots.last().map_or(self.log.base(), |newest| newest.offset);
        let whole = if self.holds(Rule::CutBehindSnapshot) { whole } else { self.commit };
        let held = self.held.values().map(|(offset, _)| *offset).min().unwrap_or(u64::MAX);
        self.log.cut(to.min(whole).min(self.commit).min(held));
        self.log.base()
    }

    /// A follower lacks what this log has no more.
    pub(super) fn offer(&mut self, node: NodeId) {
        // The one that it fetches already, as long as that and the log behind it are there.
        let begun = self.held.get(&node).map(|(offset, _)| *offset).filter(|at| *at >= self.log.base());
        let begun = self.snapshots.iter().find(|snapshot| Some(snapshot.offset) == begun);
        let (Some(&snapshot), Some(peer)) = (begun.or(self.snapshots.last()), self.peers.get(&node)) else {
            return;
        };
        let to = Member { node, incarnation: peer.incarnation };
        let offer = Message::Offer { epoch: self.epoch, lineage: self.lineage, from: self.me, to, snapshot };
        self.outputs.push(Output::Send(node, offer));
    }

    /// The leader offers a snapshot, and goes on doing so until this replica has it, or needs it no more.
    pub(super) fn offered(&mut self, from: Member, snapshot: SnapshotId) {
        if snapshot.offset <= self.commit && self.holds(Rule::SnapshotNewer) {
            // Everything up to the own commit is as any leader of this lineage has it.
            self.fetching = None;
            return self.acknowledge(from, self.commit);
        }
        let (now, patience) = (self.now, self.options.propose_ticks);
        match &mut self.fetching {
            Some(fetching) if fetching.id == snapshot => {
                let other = fetching.from != from;
                fetching.from = from;
                if other || now.saturating_sub(fetching.asked) >= patience {
                    self.ask();
                }
            }
            // A newer one, while the pieces of the older still come: that one will do as well.
            Some(fetching) if fetching.from == from && now.saturating_sub(fetching.asked) < patience => {}
            _ => {
                self.fetching = Some(Fetching { id: snapshot, from, have: 0, asked: now });
                self.ask();
            }
        }
    }

    fn ask(&mut self) {
        let Some(fetching) = &mut self.fetching else { return };
        fetching.asked = self.now;
        let Fetching { id, from, have, .. } = *fetching;
        if have == id.bytes {
            return self.outputs.push(Output::Hash(id));
        }
        let fetch = Message::Fetch { epoch: self.epoch, from: self.me, offset: id.offset, at: have };
        self.outputs.push(Output::Send(from.node, fetch));
    }

    /// A follower asks for a piece.
    pub(super) fn asked(&mut self, epoch: u32, from: Member, offset: u64, at: u64) {
        if self.role != Role::Leader || epoch != self.epoch {
            return;
        }
        let Some(peer) = self.peers.get_mut(&from.node) else { return };
        if peer.incarnation != from.incarnation {
            return;
        }
        peer.heard = self.now;
        let known = self.snapshots.iter().find(|snapshot| snapshot.offset == offset);
        if let Some(&snapshot) = known.filter(|snapshot| at < snapshot.bytes) {
            self.held.insert(from.node, (offset, self.now + self.options.hold_ticks));
            self.outputs.push(Output::Read { to: from, snapshot, at });
        }
    }

    /// A piece that a follower asked for was read; an empty one is as good as none.
    pub fn read(&mut self, to: Member, snapshot: SnapshotId, at: u64, data: Bytes) {
        if self.role != Role::Leader || data.is_empty() {
            return;
        }
        if at + data.len() as u64 == snapshot.bytes
            && !self.holds(Rule::SnapshotInPlace)
            && let Some(peer) = self.peers.get_mut(&to.node)
        {
            peer.matched = peer.matched.max(snapshot.offset);
            (peer.next, peer.moved) = (peer.next.max(peer.matched), self.now);
        }
        let chunk =
            Message::Chunk { epoch: self.epoch, from: self.me, to, offset: snapshot.offset, at, data };
        self.outputs.push(Output::Send(to.node, chunk));
    }

    /// A piece has come.
    pub(super) fn chunk(&mut self, from: Member, offset: u64, at: u64, data: Bytes) {
        if self.role != Role::Follower {
            return;
        }
        let Some(fetching) = &mut self.fetching else { return };
        let room = fetching.id.bytes - fetching.have;
        let next = fetching.from == from && fetching.id.offset == offset && fetching.have == at;
        if !next || data.is_empty() || data.len() as u64 > room {
            return;
        }
        fetching.have += data.len() as u64;
        let snapshot = fetching.id;
        self.outputs.push(Output::Take { snapshot, at, data });
        self.ask();
    }

    /// What was set aside of a snapshot has this hash. Another one than was offered: all of it is fetched again.
    pub fn hashed(&mut self, snapshot: SnapshotId, hash: [u8; 32]) {
        let whole = |fetching: &mut Fetching| fetching.id == snapshot && fetching.have == snapshot.bytes;
        let Some(fetched) = self.fetching.take_if(whole) else { return };
        let good = hash == fetched.id.hash || !self.holds(Rule::SnapshotWhole);
        let newer = snapshot.offset > self.commit || !self.holds(Rule::SnapshotNewer);
        if good && newer && self.role == Role::Follower {
            self.outputs.push(Output::Install { snapshot, lineage: self.lineage });
        }
    }

    /// How far the snapshot is that it fetches: bytes that are here, and all.
    #[must_use]
    pub fn fetching(&self) -> Option<(u64, u64)> {
        self.fetching.as_ref().map(|fetching| (fetching.have, fetching.id.bytes))
    }
}
