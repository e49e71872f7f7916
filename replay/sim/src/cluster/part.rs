//! A node's replica of one group: what it has on disk, and how it begins, is lost, and begins anew.

use super::slots::{Asked, Moving};
use super::{Cluster, Event, WAITING_MAX};
use crate::check::Broken;
use crate::machine::Folded;
use crate::store::{Stored, Stores};
use std::rc::Rc;
use tidegate_replica::{Entry, GroupId, Log, Member, Replica, ReplicaOptions, Role};

#[derive(Default)]
pub(super) struct Part {
    pub(super) replica: Option<Replica<Folded>>,
    pub(super) incarnation: u64,
    /// Counts starts, so that what was under way for an older one is dropped.
    pub(super) boot: u64,
    /// Ticks since then.
    pub(super) tick: u64,
    /// Whether what it had was lost since it last registered.
    pub(super) lossy: bool,
    pub(super) disk: Vec<Entry<u64>>,
    /// Where the disk's log begins, the epoch in front of that, and its history.
    pub(super) disk_base: u64,
    pub(super) disk_epoch: u32,
    pub(super) disk_lineage: u64,
    /// Offset up to which the disk is as the log is.
    pub(super) disk_valid: u64,
    /// Snapshots, of its own and fetched ones; the disk's, or in memory where there is none.
    pub(super) stores: Stores,
    pub(super) syncing: Option<u64>,
    pub(super) generation: u64,
    /// Commit at which a bit of its state was flipped.
    pub(super) flipped: Option<u64>,
    /// End of its log when it began to lead.
    pub(super) led_from: u64,
    /// Whether it is on its way to its node, as far as that knows. It says that it is there before it is: that is for metadata to see.
    pub(super) coming: bool,
    /// What it does about slots that move, as a leader.
    pub(super) asked: Asked,
}

impl Part {
    pub(super) fn of(disk_lineage: u64) -> Self {
        Self { disk_lineage, ..Self::default() }
    }
}

/// What is left of a replica that lost its end.
pub(super) struct Front {
    disk: Vec<Entry<u64>>,
    base: u64,
    epoch: u32,
    stores: Stores,
}

impl Front {
    pub(super) fn put(self, part: &mut Part) {
        part.disk_valid = self.base + self.disk.len() as u64;
        (part.disk, part.disk_base, part.disk_epoch) = (self.disk, self.base, self.epoch);
        part.stores = self.stores;
        part.stores.stop();
    }
}

impl Cluster {
    /// So much of a replica's log, with its snapshots.
    pub(super) fn front(&mut self, at: usize, group: GroupId, (part, of): (u64, u64)) -> Option<Front> {
        let here = self.nodes[at].part(group)?;
        let log = here.replica.as_ref()?.log();
        let (base, count) = (log.base(), (log.end() - log.base()) * part / of);
        let disk = log.slice(base, count as usize).to_vec();
        let stores = std::mem::take(&mut here.stores);
        let epoch = here.replica.as_ref()?.log().epoch_before(base);
        Some(Front { disk, base, epoch, stores })
    }

    /// A node's process starts, and with it all its replicas.
    pub(super) fn boot(&mut self, at: usize) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        (node.up, node.boot, node.revision, node.heard_of) = (true, node.boot + 1, None, 0);
        node.moving = Moving::of(node.id);
        if self.plan.moves_copies() {
            // Metadata is read from the past on.
            let meta = Rc::clone(&self.first);
            self.push(1, Event::Told { to: at, meta });
        }
        for place in 0..self.nodes[at].held.len() {
            let node = &mut self.nodes[at];
            let (group, incarnation) = (node.held[place], node.incarnation);
            let Some(part) = node.part(group) else { continue };
            part.incarnation = incarnation;
            let log = Log::behind(part.disk_base, part.disk_epoch, part.disk.clone());
            let lineage = part.disk_lineage;
            self.begin(at, group, lineage, log)?;
        }
        Ok(())
    }

    /// A replica begins with this log, and the newest snapshot that goes with it.
    pub(super) fn begin(
        &mut self,
        at: usize,
        group: GroupId,
        lineage: u64,
        log: Log<u64>,
    ) -> Result<(), Broken> {
        let (rules, lag_ticks) = (self.options.rules, self.plan.lag_ticks);
        let node = &mut self.nodes[at];
        let (id, durable) = (node.id, node.durable);
        node.revision = None;
        let Some(part) = node.part(group) else { return Ok(()) };
        (part.boot, part.tick, part.asked) = (part.boot + 1, 0, Asked::default());
        (part.syncing, part.generation, part.flipped) = (None, part.generation + 1, None);
        let options = ReplicaOptions {
            group,
            durable,
            digest_every: 8,
            append_max: 16,
            append_bytes_max: usize::MAX,
            window_max: 64,
            uncommitted_max: WAITING_MAX,
            lag_ticks,
            propose_ticks: 3,
            hold_ticks: 40,
            rules,
        };
        let me = Member { node: id, incarnation: part.incarnation };
        let (base, lossy) = part.stores.choose(lineage, &log, rules);
        part.lossy |= lossy;
        let mut replica = Replica::new(me, lineage, base, log, options);
        replica.keeps(part.stores.ids());
        // What is in front of the log is gone, and what is behind is written from here on.
        let log = replica.log();
        (part.disk_base, part.disk_lineage) = (log.base(), replica.lineage());
        part.disk_epoch = log.epoch_before(log.base());
        part.disk = if durable { log.entries().to_vec() } else { Vec::new() };
        part.disk_valid = log.end();
        self.checkers[usize::from(group)].begins(&replica)?;
        part.replica = Some(replica);
        Ok(())
    }

    /// What was fetched is whole: the replica begins anew with it, and with what it had of the log behind it.
    pub(super) fn install(&mut self, at: usize, group: GroupId, offset: u64) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        let Some(part) = node.part(group) else { return Ok(()) };
        let Some(replica) = part.replica.take() else { return Ok(()) };
        part.stores.install(offset);
        self.anew(at, group);
        self.installed += 1;
        self.note(95, offset);
        let (commit, lineage) = (replica.commit(), replica.lineage());
        // Whoever has a disk wrote all of its log by then; not to be synced is another matter, and it counts for nothing here.
        self.begin(at, group, lineage, replica.log().clone())?;
        match self.nodes[at].replica(group) {
            Some(replica) if replica.lineage() == lineage => {
                self.checkers[usize::from(group)].replaced(replica, commit)
            }
            _ => Ok(()),
        }
    }

    /// The replica's next start counts as one of its own; where it is all that the node has, as one of the node.
    fn anew(&mut self, at: usize, group: GroupId) {
        let alone = self.meta.groups.len() == 1;
        let node = &mut self.nodes[at];
        node.newest += 1;
        let newest = node.newest;
        if alone {
            node.incarnation = newest;
        }
        if let Some(part) = node.part(group) {
            part.incarnation = newest;
        }
    }

    /// One replica of a node that goes on otherwise starts, after it was lost.
    pub(super) fn again(&mut self, at: usize, group: GroupId) -> Result<(), Broken> {
        self.anew(at, group);
        let Some(part) = self.nodes[at].part(group) else { return Ok(()) };
        let log = Log::behind(part.disk_base, part.disk_epoch, part.disk.clone());
        let lineage = part.disk_lineage;
        self.begin(at, group, lineage, log)
    }

    /// Now and then a node begins to write a snapshot of what is committed.
    pub(super) fn snapshot(&mut self, at: usize, group: GroupId) {
        let every = self.plan.snapshot_every;
        let Some(part) = self.nodes[at].part(group) else { return };
        let Some(replica) = &part.replica else { return };
        // What no digest has shown yet is not modelled to be written down.
        if every == 0 || part.flipped.is_some() || replica.role() == Role::Fenced {
            return;
        }
        if replica.commit() < part.stores.newest(replica.lineage()) + every || !part.stores.begin() {
            return;
        }
        let stored = Box::new(Stored::of(&replica.base()));
        let boot = part.boot;
        let delay = 1 + self.random.below(60);
        self.push(delay, Event::Snapshotted { node: at, group, boot, stored });
    }

    /// A snapshot was written; what is in front of it may go.
    pub(super) fn snapshotted(&mut self, at: usize, group: GroupId, boot: u64, stored: Stored) {
        let tail = self.random.below(self.plan.tail + 1);
        let durable = self.nodes[at].durable;
        let Some(part) = self.nodes[at].part(group).filter(|part| part.boot == boot) else { return };
        let Some(replica) = part.replica.as_mut() else { return };
        if stored.lineage != replica.lineage() || part.flipped.is_some() {
            part.stores.stop();
            return;
        }
        part.stores.keep(stored);
        replica.keeps(part.stores.ids());
        let before = replica.log().base();
        // How far it may be cut, the replica knows.
        let base = replica.cut(replica.commit().saturating_sub(tail));
        if base > before && durable {
            // What was not written when it was cut is not there, and what is behind that is of something else.
            let all = base > part.disk_valid;
            let count = if all { part.disk.len() as u64 } else { base - part.disk_base };
            part.disk_epoch = replica.log().epoch_before(base);
            part.disk.drain(..count as usize);
            (part.disk_base, part.disk_valid) = (base, part.disk_valid.max(base));
        }
        self.note(96, base);
    }

    pub(super) fn persist(&mut self, at: usize, group: GroupId, from: u64) {
        if !self.nodes[at].durable {
            return;
        }
        let Some(part) = self.nodes[at].part(group) else { return };
        let Some(replica) = &part.replica else { return };
        if part.disk_lineage != replica.lineage() {
            part.disk_lineage = replica.lineage();
            if from == 0 {
                part.disk.clear();
                (part.disk_base, part.disk_epoch) = (0, 0);
            }
        }
        part.disk_valid = part.disk_valid.min(from);
        if part.syncing.is_some_and(|end| from < end) {
            // What is on its way to the disk is not the log any more.
            (part.generation, part.syncing) = (part.generation + 1, None);
        }
        self.sync(at, group);
    }

    fn sync(&mut self, at: usize, group: GroupId) {
        let slow = if self.nodes[at].slow_until > self.now { 300 } else { 0 };
        let delay = 1 + slow + self.random.below(self.plan.sync);
        let Some(part) = self.nodes[at].part(group) else { return };
        let end = part.replica.as_ref().map_or(0, |replica| replica.log().end());
        if part.syncing.is_none() && end > part.disk_valid {
            part.syncing = Some(end);
            let (boot, generation) = (part.boot, part.generation);
            self.push(delay, Event::Synced { node: at, group, boot, generation, end });
        }
    }

    /// Its log is on disk up to `end`.
    pub(super) fn synced(
        &mut self,
        at: usize,
        group: GroupId,
        of: (u64, u64),
        end: u64,
    ) -> Result<(), Broken> {
        let Some(part) = self.nodes[at].part(group).filter(|part| (part.boot, part.generation) == of) else {
            return Ok(());
        };
        let Some(replica) = &part.replica else { return Ok(()) };
        part.disk.truncate((part.disk_valid - part.disk_base) as usize);
        let count = end.saturating_sub(part.disk_valid) as usize;
        part.disk.extend_from_slice(replica.log().slice(part.disk_valid, count));
        (part.disk_valid, part.syncing) = (end.max(part.disk_valid), None);
        self.step(at, group, |replica| replica.synced(end))?;
        self.sync(at, group);
        Ok(())
    }

    /// A node's process is killed, its machine with it.
    pub(crate) fn kill(&mut self, at: usize) {
        self.crash(at, true);
    }

    /// A node starts that was killed.
    pub(crate) fn revive(&mut self, at: usize) -> Result<(), Broken> {
        self.boot(at)
    }

    /// A node's process ends; `lossy` with all it had.
    pub(super) fn crash(&mut self, at: usize, lossy: bool) {
        if !self.nodes[at].up {
            return;
        }
        self.nodes[at].up = false;
        for place in 0..self.nodes[at].held.len() {
            let group = self.nodes[at].held[place];
            self.lose(at, group, lossy);
        }
        let node = &mut self.nodes[at];
        node.newest += 1;
        node.incarnation = node.newest;
        self.note(90 + u64::from(lossy), at as u64);
    }

    /// A replica of a node ends.
    pub(super) fn lose(&mut self, at: usize, group: GroupId, lossy: bool) {
        let node = &mut self.nodes[at];
        let (id, durable) = (node.id, node.durable);
        let Some(part) = node.parts.get_mut(usize::from(group)).and_then(Option::as_deref_mut) else {
            return;
        };
        let Some(replica) = part.replica.take() else { return };
        if lossy || !durable {
            part.disk.clear();
            (part.disk_base, part.disk_epoch, part.disk_valid) = (0, 0, 0);
            part.stores = Stores::default();
            part.lossy = true;
            let gone = Member { node: id, incarnation: part.incarnation };
            self.checkers[usize::from(group)].forgot(gone);
        } else {
            // What was on its way may have arrived in part.
            let log = replica.log();
            let arrived = self.random.below(log.end() - part.disk_valid + 1);
            part.stores.stop();
            if self.random.chance(1, 2) {
                part.disk.truncate((part.disk_valid - part.disk_base) as usize);
                part.disk.extend_from_slice(log.slice(part.disk_valid, arrived as usize));
            }
        }
    }
}
