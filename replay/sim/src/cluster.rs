//! A whole cluster in one thread: nodes, their disks, the network, metadata, feeds, an operator, and what goes wrong.

mod copies;
mod faults;
mod metadata;
mod part;
mod slots;

use self::part::Part;
use self::slots::{Moving, SlotFeed, WORDS};
use crate::check::slots::SlotCheck;
use crate::check::{Broken, Checker};
use crate::machine::{Folded, mix};
use crate::plan::{FAULTS_END, PATIENCE, Plan};
use crate::store::{Stored, hash};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;
use tidegate_journal::sim::Random;
use tidegate_replica::{
    Command, GroupId, Layout, Member, Message, Meta, NodeId, Output, Place, Replica, Role, Rules, Submitted,
};

pub use self::faults::Fault;

/// How a life is lived.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Rules that hold.
    pub rules: Rules,
    /// Whether each step is printed.
    pub trace: bool,
    /// What does not happen in it that would.
    pub without: Without,
}

/// What is left out of a life, to see whether it breaks without that too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Messages that are lost.
    pub loss: bool,
    /// Messages that come twice.
    pub doubles: bool,
    /// Messages that take much longer than others.
    pub spikes: bool,
    /// Pieces of snapshots that are flipped.
    pub damage: bool,
    /// Snapshots.
    pub snapshots: bool,
    /// Faults by their number in the life; of what else happens nothing changes by that.
    pub faults: BTreeSet<u64>,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where all of it comes from.
    pub seed: u64,
    /// Steps taken.
    pub steps: u64,
    /// Faults injected, lost and doubled messages included.
    pub faults: u64,
    /// Hash over all steps: the same seed gives the same.
    pub hash: u64,
    /// Inputs acknowledged.
    pub acks: u64,
    /// Copies of groups that came to nodes.
    pub copies: u64,
    /// Slots that came to another group.
    pub moves: u64,
    /// Declared losses.
    pub losses: u64,
    /// Replicas that fenced themselves because their state differed.
    pub fenced: u64,
    /// Snapshots that one node put in place of what it had of another one's.
    pub installed: u64,
    /// Groups that shared the work.
    pub groups: usize,
    /// Faults that happened, other than those of the network.
    pub script: Vec<Fault>,
    /// The step and the promise it broke.
    pub broken: Option<(u64, Broken)>,
}

enum Event {
    Deliver { to: NodeId, group: GroupId, message: Message<u64> },
    Tick(usize),
    Feed(usize),
    Submit { to: usize, feed: usize, source: u32, sequence: u64 },
    Answer { feed: usize, source: u32, sequence: u64, gap: bool },
    Propose { from: usize, command: Command },
    Rejected { to: usize, command: Command, overtaken: bool },
    Told { to: usize, meta: Rc<Meta> },
    Synced { node: usize, group: GroupId, boot: u64, generation: u64, end: u64 },
    Restart { node: usize, boot: u64 },
    Again { node: usize, group: GroupId, boot: u64 },
    Snapshotted { node: usize, group: GroupId, boot: u64, stored: Box<Stored> },
    SlotFeed(u8),
    SlotSubmit { to: usize, group: GroupId, slot: u8, sequence: u32 },
    SlotAnswer { slot: u8, sequence: u32, gap: bool },
    Control,
    Fault,
}

struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Node {
    id: NodeId,
    /// Whether it has not joined yet, or has left and is gone.
    away: bool,
    /// Whether its process runs.
    up: bool,
    incarnation: u64,
    /// The newest incarnation that any of its replicas had.
    newest: u64,
    /// Counts starts, so that what was under way for an older one is dropped.
    boot: u64,
    durable: bool,
    /// Its replicas by group, where it holds one.
    parts: Vec<Option<Box<Part>>>,
    held: Vec<GroupId>,
    /// The newest metadata that all its replicas were told; none where one began since.
    revision: Option<u64>,
    /// The newest that it heard of since its start.
    heard_of: u64,
    slow_until: u64,
    paused_until: u64,
    ticks: u64,
    heard: u64,
    moving: Moving,
}

impl Node {
    fn part(&mut self, group: GroupId) -> Option<&mut Part> {
        self.parts.get_mut(usize::from(group))?.as_deref_mut()
    }

    fn replica(&mut self, group: GroupId) -> Option<&mut Replica<Folded>> {
        self.part(group)?.replica.as_mut()
    }

    fn member(&self) -> Member {
        Member { node: self.id, incarnation: self.incarnation }
    }
}

#[derive(Clone, Copy)]
struct Feed {
    group: GroupId,
    /// Which of the group's.
    number: usize,
    lineage: u64,
    acked: u64,
}

/// What metadata was asked and told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Commands that were accepted.
    pub accepted: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Bytes of accepted commands as they are written.
    pub bytes: u64,
}

pub(crate) struct Cluster {
    pub(crate) random: Random,
    /// Where faults come from: nothing else draws from it, so leaving one out leaves the others as they are.
    fates: Random,
    fate: u64,
    script: Vec<Fault>,
    pub(crate) plan: Plan,
    options: Options,
    pub(crate) now: u64,
    number: u64,
    queue: BinaryHeap<Reverse<Due>>,
    nodes: Vec<Node>,
    pub(crate) meta: Rc<Meta>,
    /// As it began.
    first: Rc<Meta>,
    /// Copies that came.
    copies: u64,
    pub(crate) traffic: Traffic,
    feeds: Vec<Feed>,
    /// Slots that move, and their feeds.
    slots: Vec<u16>,
    slot_feeds: Vec<SlotFeed>,
    slot_check: SlotCheck,
    /// Until when nothing passes from one to another; the last row and column are metadata.
    cuts: Vec<Vec<u64>>,
    pub(crate) checkers: Vec<Checker>,
    outputs: Vec<Output<u64>>,
    healed: bool,
    quiet: bool,
    pub(crate) steps: u64,
    faults: u64,
    installed: u64,
    hash: u64,
}

/// Feeds of a group when it is alone, and source ids of a group in a lineage.
const FEEDS: u32 = 3;
/// Entries that may wait to be committed.
const WAITING_MAX: u64 = 48;

/// The source id that a feed has in a lineage: after a declared loss it counts anew.
fn source(feed: usize, lineage: u64) -> u32 {
    lineage as u32 * FEEDS + feed as u32
}

/// Where a node is, which nothing here depends on.
fn place(node: NodeId, zone: Option<String>) -> Place {
    let [high, low] = node.to_be_bytes();
    let at = |port| ([10, 0, high, low], port).into();
    Place { peers: at(7_500), clients: at(7_443), zone }
}

/// Lives one life.
#[must_use]
pub fn live(seed: u64, options: &Options) -> Life {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1405_7b7e_f767_814f);
    let mut plan = Plan::of(&mut random);
    plan.move_copies(seed);
    plan.move_slots(seed);
    plan.leave_out(&options.without);
    let groups = plan.groups;
    let mut cluster = Cluster::new(seed, random, plan, options.clone());
    let result = cluster.run();
    let sum = |of: fn(&Checker) -> u64| cluster.checkers.iter().map(of).sum();
    Life {
        seed,
        steps: cluster.steps,
        faults: cluster.faults,
        hash: cluster.hash,
        acks: sum(|checker| checker.acks),
        copies: cluster.copies,
        moves: cluster.slot_check.moves,
        losses: sum(|checker| checker.losses),
        fenced: sum(|checker| checker.fenced),
        installed: cluster.installed,
        groups,
        broken: result.err().map(|broken| (cluster.steps, broken)),
        script: cluster.script,
    }
}

impl Cluster {
    pub(crate) fn new(seed: u64, random: Random, plan: Plan, options: Options) -> Self {
        let layout = Layout {
            nodes: plan.nodes.clone(),
            zones: plan.zones.clone(),
            groups: plan.groups,
            copies: plan.copies,
            min_isr: plan.min_isr,
        };
        let place = |&node: &NodeId| (node, place(node, plan.zones.get(&node).cloned()));
        let places = plan.nodes.iter().map(place).collect();
        let meta = Meta::laid_out(&layout, options.rules).founded(&places);
        let count = plan.nodes.len() + usize::from(plan.spare);
        let feeds = meta.numbered().flat_map(|(group, _)| {
            (0..plan.feeds).map(move |number| Feed { group, number, lineage: 0, acked: 0 })
        });
        let slots = slots::numbers(plan.slots);
        Self {
            nodes: Vec::new(),
            feeds: feeds.collect(),
            slot_feeds: vec![SlotFeed::default(); slots.len()],
            slot_check: SlotCheck::new(&slots, &meta),
            slots,
            checkers: meta.numbered().map(|(group, _)| Checker::new(&meta, group)).collect(),
            first: Rc::new(meta.clone()),
            meta: Rc::new(meta),
            copies: 0,
            traffic: Traffic::default(),
            cuts: vec![vec![0; count + 1]; count + 1],
            fates: Random(seed ^ 0xfa7e_fa7e_fa7e_fa7e),
            fate: 0,
            script: Vec::new(),
            random,
            plan,
            options,
            now: 0,
            number: 0,
            queue: BinaryHeap::with_capacity(1_024),
            outputs: Vec::new(),
            healed: false,
            quiet: false,
            steps: 0,
            faults: 0,
            installed: 0,
            hash: seed,
        }
    }

    /// All nodes start.
    pub(crate) fn begin_all(&mut self) -> Result<(), Broken> {
        let founders = self.plan.nodes.len();
        for at in 0..founders + usize::from(self.plan.spare) {
            let (id, away) = (at as NodeId + 1, at >= founders);
            // Who joins holds what every node holds.
            let holds =
                |group: &tidegate_replica::Group| group.holders.is_empty() || group.holders.contains(&id);
            let held = self.meta.numbered().filter(|(_, group)| holds(group));
            let held: Vec<GroupId> = held.map(|(group, _)| group).collect();
            let mut parts: Vec<Option<Box<Part>>> = self.meta.groups.iter().map(|_| None).collect();
            for group in &held {
                let lineage = self.meta.groups[usize::from(*group)].lineage;
                parts[usize::from(*group)] = Some(Box::new(Part::of(lineage)));
            }
            self.nodes.push(Node {
                id,
                away,
                up: false,
                incarnation: 1,
                newest: 1,
                boot: 0,
                durable: self.plan.durable[at],
                parts,
                held,
                revision: None,
                heard_of: 0,
                slow_until: 0,
                paused_until: 0,
                ticks: self.plan.ticks[at],
                heard: 0,
                moving: Moving::of(id),
            });
            if away {
                continue;
            }
            self.boot(at)?;
            let meta = Rc::clone(&self.meta);
            for place in 0..self.nodes[at].held.len() {
                let group = self.nodes[at].held[place];
                self.step(at, group, |replica| replica.on_meta(&meta))?;
            }
            self.push(1, Event::Tick(at));
        }
        for feed in 0..self.feeds.len() {
            self.push(5 + feed as u64 % 100, Event::Feed(feed));
        }
        for slot in 0..self.slots.len() {
            self.push(7 + slot as u64, Event::SlotFeed(slot as u8));
        }
        self.push(20, Event::Control);
        self.push(self.plan.fault_every, Event::Fault);
        Ok(())
    }

    /// The next thing happens.
    pub(crate) fn next(&mut self) -> Result<(), Broken> {
        let Some(Reverse(due)) = self.queue.pop() else {
            return Err("nothing happens any more".to_owned());
        };
        self.now = due.at;
        self.steps += 1;
        self.handle(due.event)
    }

    fn run(&mut self) -> Result<(), Broken> {
        self.begin_all()?;
        let mut deadline = FAULTS_END;
        let mut before = Vec::new();
        loop {
            self.next()?;
            if self.now < deadline {
                continue;
            }
            if !self.healed {
                self.heal()?;
                self.slots_heal();
                deadline = self.now + 800;
            } else if !self.quiet {
                // Once more, from every feed, after all of it.
                self.quiet = self.all_acked(&mut before, 1) && self.slots_acked();
                deadline = self.now + 100;
            } else if self.converged().is_ok() {
                return Ok(());
            } else {
                deadline = self.now + 50;
            }
            if self.now > FAULTS_END + PATIENCE {
                let why = if self.quiet { self.converged().err() } else { None };
                return Err(why.unwrap_or_else(|| "a feed gets no acknowledgement".to_owned()));
            }
        }
    }

    /// Whether every feed has more than `more` behind what it had when this was asked first.
    pub(crate) fn all_acked(&self, before: &mut Vec<u64>, more: u64) -> bool {
        let last = |feed: &Feed| {
            let group = usize::from(feed.group);
            self.checkers[group].last(source(feed.number, self.meta.groups[group].lineage))
        };
        if before.is_empty() {
            before.extend(self.feeds.iter().map(|feed| last(feed) + more));
        }
        self.feeds.iter().zip(before).all(|(feed, before)| last(feed) > *before)
    }

    /// Why not everybody is served, for people: groups without a leader at work.
    pub(crate) fn waits(&self) -> String {
        let leaderless = self.meta.groups.iter().filter(|group| group.leader.is_none()).count();
        let few = self.meta.groups.iter().filter(|group| group.isr.len() < group.min_isr).count();
        let down = self.nodes.iter().filter(|node| !node.up).count();
        let fenced = self.meta.nodes.values().filter(|node| node.fenced).count();
        format!(
            "{leaderless} groups without a leader, {few} with too few in sync, {down} nodes down, {fenced} given up"
        )
    }

    pub(crate) fn converged(&self) -> Result<(), Broken> {
        for (group, checker) in (0..).zip(&self.checkers) {
            let members = self.nodes.iter().filter(|node| !node.away);
            let parts = members.filter_map(|node| node.parts[usize::from(group)].as_deref());
            checker.converged(&self.meta, group, parts.filter_map(|part| part.replica.as_ref()))?;
        }
        self.slot_check.converged(&self.meta)?;
        self.copies_are_there()
    }

    fn push(&mut self, delay: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Due { at: self.now + delay, number: self.number, event }));
    }

    fn note(&mut self, what: u64, detail: u64) {
        self.hash = mix(self.hash, mix(mix(self.now, what), detail));
    }

    fn delay(&mut self) -> u64 {
        let most = self.plan.delay;
        let usual = 1 + self.random.below(most);
        if !self.healed && self.random.chance(self.plan.spikes, 1_000) {
            return usual + self.random.below(40 * most);
        }
        usual
    }

    /// Whether a message passes; the last index is metadata's.
    fn passes(&mut self, from: usize, to: usize) -> bool {
        if self.cuts[from][to] > self.now {
            return false;
        }
        let lost = !self.healed && self.random.chance(self.plan.loss, 1_000);
        self.faults += u64::from(lost);
        !lost
    }

    /// Runs one step of a replica, checks it, and does what it asks.
    fn step(
        &mut self,
        at: usize,
        group: GroupId,
        work: impl FnOnce(&mut Replica<Folded>),
    ) -> Result<(), Broken> {
        let Some(part) = self.nodes[at].part(group) else { return Ok(()) };
        let Some(replica) = &mut part.replica else { return Ok(()) };
        let (seen, led, epoch, lineage) =
            (replica.commit(), replica.role() == Role::Leader, replica.epoch(), replica.lineage());
        work(replica);
        if replica.epoch() < epoch || replica.lineage() < lineage {
            return Err(format!("{} went back from epoch {epoch}, lineage {lineage}", replica.me()));
        }
        let (seen, led) =
            if replica.lineage() > lineage { (0, false) } else { (seen, led && replica.epoch() == epoch) };
        let leads = replica.role() == Role::Leader;
        if replica.lineage() > lineage {
            part.flipped = None; // it began anew
            if leads {
                part.disk_lineage = replica.lineage();
            }
        }
        if leads && !led {
            part.led_from = replica.log().end();
        }
        let waits = replica.log().end().saturating_sub(part.led_from.max(replica.commit()));
        self.checkers[usize::from(group)].step(replica, seen, led, part.flipped)?;
        let more = (leads && replica.commit() > seen).then_some(seen);
        // Inputs, and a digest for each eight entries that are committed at once.
        if leads && waits > WAITING_MAX + WAITING_MAX / 4 {
            return Err(format!("{waits} entries wait to be committed"));
        }
        let (commit, me, boot) = (replica.commit(), replica.me(), part.boot);
        if leads && commit > seen {
            let epoch = replica.epoch();
            self.everybody_has(group, epoch, commit)?;
        }
        if !self.slots.is_empty() {
            self.slots_committed(at, group, more)?;
        }
        let Some(replica) = self.nodes[at].replica(group) else { return Ok(()) };
        let mut outputs = std::mem::take(&mut self.outputs);
        replica.drain(&mut outputs);
        self.note(u64::from(me.node) << 32 | u64::from(group) << 1 | u64::from(leads), commit);
        if self.options.trace && !outputs.is_empty() {
            println!("{:>6} node {} group {group} commit {commit} {outputs:?}", self.now, me.node);
        }
        for output in outputs.drain(..) {
            // Of a replica that is no more, nothing is done.
            if self.nodes[at].part(group).is_some_and(|part| part.boot == boot) {
                self.output(at, group, output)?;
            }
        }
        self.outputs = outputs;
        Ok(())
    }

    /// A leader has committed: everybody in sync has that.
    fn everybody_has(&self, id: GroupId, epoch: u32, commit: u64) -> Result<(), Broken> {
        let group = &self.meta.groups[usize::from(id)];
        if group.epoch != epoch {
            return Ok(()); // it leads no longer, and does not know yet
        }
        for member in &group.isr {
            if let Some(end) = self.end_of(id, *member)
                && end < commit
            {
                return Err(format!("{commit} entries are committed, and {member}, in sync, has {end}"));
            }
        }
        Ok(())
    }

    /// A leader believes of nobody who follows it that it has what it has not.
    fn believes_what_is(&self, at: usize, group: GroupId) -> Result<(), Broken> {
        let replica = |at: usize| self.nodes[at].parts[usize::from(group)].as_ref()?.replica.as_ref();
        let Some(leader) = replica(at) else { return Ok(()) };
        for (member, matched) in leader.believed() {
            if let Some(follower) = replica(usize::from(member.node) - 1)
                && (follower.me(), follower.epoch()) == (member, leader.epoch())
                && follower.log().end() < matched
            {
                let end = follower.log().end();
                return Err(format!("{} believes that {member} has {matched}, which has {end}", leader.me()));
            }
        }
        Ok(())
    }

    /// How long the log of a member is, if that is what its node is now.
    fn end_of(&self, group: GroupId, member: Member) -> Option<u64> {
        let part = self.nodes[usize::from(member.node) - 1].parts[usize::from(group)].as_ref()?;
        let replica = part.replica.as_ref().filter(|replica| replica.me() == member)?;
        let same = replica.lineage() == self.meta.groups[usize::from(group)].lineage;
        same.then(|| replica.log().end())
    }

    fn output(&mut self, at: usize, group: GroupId, output: Output<u64>) -> Result<(), Broken> {
        let checker = usize::from(group);
        match output {
            Output::Send(to, message) => {
                let target = usize::from(to) - 1;
                if self.passes(at, target) {
                    if !self.healed && self.random.chance(self.plan.double, 1_000) {
                        self.faults += 1;
                        let delay = self.delay();
                        self.push(delay, Event::Deliver { to, group, message: message.clone() });
                    }
                    let delay = self.delay();
                    self.push(delay, Event::Deliver { to, group, message });
                }
            }
            Output::Propose(command) => self.propose(at, command),
            Output::Acked { source, sequence } => {
                let lineage = self.nodes[at].replica(group).map_or(0, |replica| replica.lineage());
                self.checkers[checker].acked(lineage, source, sequence)?;
                if source == WORDS {
                    return Ok(());
                }
                let feed = checker * self.plan.feeds + (source % FEEDS) as usize;
                if self.plan.measured || self.random.chance(9, 10) || self.healed {
                    let delay = self.delay();
                    self.push(delay, Event::Answer { feed, source, sequence, gap: false });
                }
            }
            Output::Publish { lineage, offset } => self.checkers[checker].published(lineage, offset)?,
            Output::Persist(from) => self.persist(at, group, from),
            Output::Read { to, snapshot, at: first } => {
                let Some(part) = self.nodes[at].part(group) else { return Ok(()) };
                let Some(bytes) = part.stores.read(snapshot.offset, first) else { return Ok(()) };
                let mut bytes = bytes.to_vec();
                if !self.healed && self.random.chance(self.plan.damage, 1_000) {
                    self.faults += 1;
                    let bit = self.random.below(8 * bytes.len() as u64);
                    bytes[bit as usize / 8] ^= 1 << (bit % 8);
                }
                self.step(at, group, |replica| replica.read(to, snapshot, first, Bytes::from(bytes)))?;
            }
            Output::Take { at: first, data, .. } => {
                if let Some(part) = self.nodes[at].part(group) {
                    part.stores.take(first, &data);
                }
            }
            Output::Hash(id) => {
                let found = self.nodes[at].part(group).map(|part| hash(part.stores.taken()));
                self.step(at, group, |replica| replica.hashed(id, found.unwrap_or_default()))?;
            }
            Output::Install { snapshot, .. } => self.install(at, group, snapshot.offset)?,
            Output::Diverged(_) => {
                self.checkers[checker].fenced += 1;
                if self.checkers.len() == 1 {
                    self.crash(at, true);
                    let boot = self.nodes[at].boot;
                    self.push(30, Event::Restart { node: at, boot });
                } else {
                    self.lose_one(at, group, true, 30, None);
                }
            }
        }
        Ok(())
    }

    /// One replica of a node is lost while the others go on, and starts again after a while; perhaps with a part of what it had.
    fn lose_one(&mut self, at: usize, group: GroupId, lossy: bool, wait: u64, kept: Option<(u64, u64)>) {
        let kept = kept.and_then(|part| self.front(at, group, part));
        self.lose(at, group, lossy);
        if let (Some(kept), Some(part)) = (kept, self.nodes[at].part(group)) {
            kept.put(part);
        }
        let boot = self.nodes[at].part(group).map_or(0, |part| part.boot);
        self.push(wait, Event::Again { node: at, group, boot });
    }

    fn handle(&mut self, event: Event) -> Result<(), Broken> {
        let target = match &event {
            Event::Deliver { to, .. } => Some(usize::from(*to) - 1),
            Event::Tick(at) | Event::Synced { node: at, .. } => Some(*at),
            Event::Submit { to, .. }
            | Event::SlotSubmit { to, .. }
            | Event::Rejected { to, .. }
            | Event::Told { to, .. } => Some(*to),
            _ => None,
        };
        // A node that stands still takes everything later.
        if let Some(at) = target
            && self.nodes[at].paused_until > self.now
        {
            let wait = self.nodes[at].paused_until - self.now;
            self.push(wait, event);
            return Ok(());
        }
        match event {
            Event::Deliver { to, group, message } => {
                self.step(usize::from(to) - 1, group, |replica| replica.receive(message))
            }
            Event::Tick(at) => self.tick(at),
            Event::Feed(feed) => {
                self.feed(feed);
                Ok(())
            }
            Event::Submit { to, feed, source, sequence } => {
                let mut became = Submitted::NotLeader;
                // Words of moves have the highest bit.
                let input = mix(u64::from(source), sequence) >> 1;
                let group = self.feeds[feed].group;
                self.step(to, group, |replica| became = replica.submit(source, sequence, input))?;
                if let Submitted::Gap(last) = became {
                    let delay = self.delay();
                    self.push(delay, Event::Answer { feed, source, sequence: last, gap: true });
                }
                Ok(())
            }
            Event::Answer { feed, source: of, sequence, gap } => {
                let known = &mut self.feeds[feed];
                if of == source(known.number, known.lineage) {
                    // A server that says it has less is believed; that it may not say so is for the checker to see.
                    known.acked = if gap { sequence } else { known.acked.max(sequence) };
                }
                Ok(())
            }
            Event::Propose { from, command } => self.decide(from, &command),
            Event::Rejected { to, command, overtaken } => {
                let Command::AlterIsr { group, .. } = command else { return Ok(()) };
                self.step(to, group, |replica| replica.rejected(&command, overtaken))
            }
            Event::Told { to, meta } => self.told(to, &meta),
            Event::Synced { node: at, group, boot, generation, end } => {
                self.synced(at, group, (boot, generation), end)
            }
            Event::Restart { node, boot } => {
                let is = &self.nodes[node];
                if !is.up && is.boot == boot && !is.away {
                    self.boot(node)?;
                }
                Ok(())
            }
            Event::Again { node: at, group, boot } => {
                let node = &mut self.nodes[at];
                let same = |part: &mut Part| part.replica.is_none() && part.boot == boot;
                if node.up && node.part(group).is_some_and(same) {
                    self.again(at, group)?;
                }
                Ok(())
            }
            Event::Snapshotted { node, group, boot, stored } => {
                self.snapshotted(node, group, boot, *stored);
                Ok(())
            }
            Event::SlotFeed(slot) => {
                self.feed_slot(slot);
                Ok(())
            }
            Event::SlotSubmit { to, group, slot, sequence } => self.take_of_slot(to, group, slot, sequence),
            Event::SlotAnswer { slot, sequence, gap } => {
                self.slot_answer(slot, sequence, gap);
                Ok(())
            }
            Event::Control => self.control(),
            Event::Fault => {
                if !self.healed {
                    let next = self.fault()?;
                    self.push(next, Event::Fault);
                }
                Ok(())
            }
        }
    }

    fn tick(&mut self, at: usize) -> Result<(), Broken> {
        let period = self.nodes[at].ticks;
        self.push(period, Event::Tick(at));
        if !self.nodes[at].up {
            return Ok(());
        }
        for place in 0..self.nodes[at].held.len() {
            let group = self.nodes[at].held[place];
            let Some(part) = self.nodes[at].part(group) else { continue };
            part.tick += 1;
            let tick = part.tick;
            self.step(at, group, |replica| replica.tick(tick))?;
            self.believes_what_is(at, group)?;
            self.snapshot(at, group);
            self.took_up(at, group);
        }
        if self.nodes[at].up {
            if !self.slots.is_empty() {
                self.move_slots(at)?;
            }
            self.heartbeat(at);
        }
        Ok(())
    }

    fn feed(&mut self, at: usize) {
        let (least, most) = self.plan.feed_every;
        let next = least + self.random.below(most - least);
        self.push(next, Event::Feed(at));
        let group = self.feeds[at].group;
        let lineage = self.meta.groups[usize::from(group)].lineage;
        if self.feeds[at].lineage != lineage {
            (self.feeds[at].lineage, self.feeds[at].acked) = (lineage, 0);
        }
        if self.quiet {
            return;
        }
        let sure = self.plan.measured;
        let leader = self.meta.groups[usize::from(group)].leader;
        let leader = leader.filter(|_| sure || self.random.chance(9, 10));
        let to = match leader {
            Some(leader) => usize::from(leader.node) - 1,
            None => self.random.below(self.nodes.len() as u64) as usize,
        };
        let Feed { number, acked, .. } = self.feeds[at];
        for sequence in acked + 1..=acked + 1 + self.random.below(4) {
            if sure || self.random.chance(9, 10) {
                let delay = self.delay();
                self.push(delay, Event::Submit { to, feed: at, source: source(number, lineage), sequence });
            }
        }
    }
}
