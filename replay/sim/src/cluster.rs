//! A whole cluster in one thread: nodes, their disks, the network, metadata, feeds, an operator, and what goes wrong.

use crate::check::{Broken, Checker};
use crate::machine::{Folded, mix};
use crate::plan::{FAULTS_END, PATIENCE, Plan};
use crate::store::{Stored, Stores, hash};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use tidegate_journal::sim::Random;
use tidegate_replica::{
    Command, Entry, Log, Member, Message, Meta, NodeId, Output, Replica, ReplicaOptions, Role, Rules,
    Submitted,
};

/// How a life is lived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Rules that hold.
    pub rules: Rules,
    /// Whether each step is printed.
    pub trace: bool,
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
    /// Declared losses.
    pub losses: u64,
    /// Replicas that fenced themselves because their state differed.
    pub fenced: u64,
    /// Snapshots that one node put in place of what it had of another one's.
    pub installed: u64,
    /// The step and the promise it broke.
    pub broken: Option<(u64, Broken)>,
}

enum Event {
    Deliver { to: NodeId, message: Message<u64> },
    Tick(usize),
    Feed(usize),
    Submit { to: usize, feed: usize, source: u32, sequence: u64 },
    Answer { feed: usize, source: u32, sequence: u64, gap: bool },
    Propose { from: usize, command: Command },
    Rejected { to: usize, command: Command, overtaken: bool },
    Told { to: usize, meta: Rc<Meta> },
    Synced { node: usize, boot: u64, generation: u64, end: u64 },
    Restart { node: usize, boot: u64 },
    Snapshotted { node: usize, boot: u64, stored: Box<Stored> },
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
    replica: Option<Replica<Folded>>,
    incarnation: u64,
    /// Counts starts, so that what was under way for an older one is dropped.
    boot: u64,
    /// Whether what it had was lost since it last registered.
    lossy: bool,
    durable: bool,
    disk: Vec<Entry<u64>>,
    /// Where the disk's log begins, the epoch in front of that, and its history.
    disk_base: u64,
    disk_epoch: u32,
    disk_lineage: u64,
    /// Offset up to which the disk is as the log is.
    disk_valid: u64,
    /// Snapshots, of its own and fetched ones; the disk's, or in memory where there is none.
    stores: Stores,
    syncing: Option<u64>,
    generation: u64,
    slow_until: u64,
    paused_until: u64,
    /// Commit at which a bit of its state was flipped.
    flipped: Option<u64>,
    /// End of its log when it began to lead.
    led_from: u64,
    ticks: u64,
    tick: u64,
    heard: u64,
}

#[derive(Clone, Copy, Default)]
struct Feed {
    lineage: u64,
    acked: u64,
}

struct Cluster {
    random: Random,
    plan: Plan,
    options: Options,
    now: u64,
    number: u64,
    queue: BinaryHeap<Reverse<Due>>,
    nodes: Vec<Node>,
    meta: Rc<Meta>,
    feeds: [Feed; 3],
    /// Until when nothing passes from one to another; the last row and column are metadata.
    cuts: Vec<Vec<u64>>,
    checker: Checker,
    outputs: Vec<Output<u64>>,
    healed: bool,
    quiet: bool,
    steps: u64,
    faults: u64,
    installed: u64,
    hash: u64,
}

const FEEDS: u32 = 3;
/// Entries that may wait to be committed.
const WAITING_MAX: u64 = 48;

/// The source id that a feed has in a lineage: after a declared loss it counts anew.
fn source(feed: usize, lineage: u64) -> u32 {
    lineage as u32 * FEEDS + feed as u32
}

/// Lives one life.
#[must_use]
pub fn live(seed: u64, options: Options) -> Life {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1405_7b7e_f767_814f);
    let plan = Plan::of(&mut random);
    let meta = Meta::new(&plan.nodes, plan.min_isr, options.rules);
    let count = plan.nodes.len();
    let mut cluster = Cluster {
        nodes: Vec::new(),
        checker: Checker::new(&meta),
        meta: Rc::new(meta),
        feeds: [Feed::default(); FEEDS as usize],
        cuts: vec![vec![0; count + 1]; count + 1],
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
    };
    let result = cluster.run();
    Life {
        seed,
        steps: cluster.steps,
        faults: cluster.faults,
        hash: cluster.hash,
        acks: cluster.checker.acks,
        losses: cluster.checker.losses,
        fenced: cluster.checker.fenced,
        installed: cluster.installed,
        broken: result.err().map(|broken| (cluster.steps, broken)),
    }
}

impl Cluster {
    fn run(&mut self) -> Result<(), Broken> {
        for at in 0..self.plan.nodes.len() {
            self.nodes.push(Node {
                id: self.plan.nodes[at],
                replica: None,
                incarnation: 1,
                boot: 0,
                lossy: false,
                durable: self.plan.durable[at],
                disk: Vec::new(),
                disk_base: 0,
                disk_epoch: 0,
                disk_lineage: self.meta.group.lineage,
                disk_valid: 0,
                stores: Stores::default(),
                syncing: None,
                generation: 0,
                slow_until: 0,
                paused_until: 0,
                flipped: None,
                led_from: 0,
                ticks: self.plan.ticks[at],
                tick: 0,
                heard: 0,
            });
            self.boot(at)?;
            let meta = Rc::clone(&self.meta);
            self.step(at, |replica| replica.on_meta(&meta))?;
            self.push(1, Event::Tick(at));
        }
        for feed in 0..self.feeds.len() {
            self.push(5 + feed as u64, Event::Feed(feed));
        }
        self.push(20, Event::Control);
        self.push(self.plan.fault_every, Event::Fault);
        let mut deadline = FAULTS_END;
        let mut before = 0;
        loop {
            let Some(Reverse(due)) = self.queue.pop() else {
                return Err("nothing happens any more".to_owned());
            };
            self.now = due.at;
            self.steps += 1;
            self.handle(due.event)?;
            if self.now < deadline {
                continue;
            }
            if !self.healed {
                self.heal()?;
                deadline = self.now + 800;
            } else if !self.quiet {
                // Once more, from every feed, after all of it.
                self.quiet = self.all_acked(&mut before);
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

    /// Whether every feed was acknowledged something since the faults ended.
    fn all_acked(&self, before: &mut u64) -> bool {
        let lineage = self.meta.group.lineage;
        let least =
            (0..self.feeds.len()).map(|feed| self.checker.last(source(feed, lineage))).min().unwrap_or(0);
        if *before == 0 {
            *before = least + 1;
        }
        least > *before
    }

    fn converged(&self) -> Result<(), Broken> {
        self.checker.converged(&self.meta, self.nodes.iter().filter_map(|node| node.replica.as_ref()))
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

    fn boot(&mut self, at: usize) -> Result<(), Broken> {
        let node = &self.nodes[at];
        let log = Log::behind(node.disk_base, node.disk_epoch, node.disk.clone());
        self.begin(at, node.disk_lineage, log)
    }

    /// A replica begins with this log, and the newest snapshot that goes with it.
    fn begin(&mut self, at: usize, lineage: u64, log: Log<u64>) -> Result<(), Broken> {
        let rules = self.options.rules;
        let node = &mut self.nodes[at];
        node.boot += 1;
        (node.syncing, node.generation, node.flipped) = (None, node.generation + 1, None);
        let options = ReplicaOptions {
            durable: node.durable,
            digest_every: 8,
            append_max: 16,
            append_bytes_max: usize::MAX,
            window_max: 64,
            uncommitted_max: WAITING_MAX,
            lag_ticks: 8,
            propose_ticks: 3,
            hold_ticks: 40,
            rules,
        };
        let me = Member { node: node.id, incarnation: node.incarnation };
        let (base, lossy) = node.stores.choose(lineage, &log, rules);
        node.lossy |= lossy;
        let mut replica = Replica::new(me, lineage, base, log, options);
        replica.keeps(node.stores.ids());
        node.tick = 0;
        // What is in front of the log is gone, and what is behind is written from here on.
        let log = replica.log();
        (node.disk_base, node.disk_lineage) = (log.base(), replica.lineage());
        node.disk_epoch = log.epoch_before(log.base());
        node.disk = if node.durable { log.entries().to_vec() } else { Vec::new() };
        node.disk_valid = log.end();
        self.checker.begins(&replica)?;
        self.nodes[at].replica = Some(replica);
        Ok(())
    }

    /// What was fetched is whole: the node begins anew with it, and with what it had of the log behind it.
    fn install(&mut self, at: usize, offset: u64) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        let Some(replica) = node.replica.take() else { return Ok(()) };
        node.stores.install(offset);
        node.incarnation = node.incarnation.max(replica.me().incarnation) + 1;
        self.installed += 1;
        self.note(95, offset);
        let (commit, lineage) = (replica.commit(), replica.lineage());
        // Whoever has a disk wrote all of its log by then; not to be synced is another matter, and it counts for nothing here.
        self.begin(at, lineage, replica.log().clone())?;
        match &self.nodes[at].replica {
            Some(replica) if replica.lineage() == lineage => self.checker.replaced(replica, commit),
            _ => Ok(()),
        }
    }

    /// Now and then a node begins to write a snapshot of what is committed.
    fn snapshot(&mut self, at: usize) {
        let every = self.plan.snapshot_every;
        let node = &mut self.nodes[at];
        let Some(replica) = &node.replica else { return };
        // What no digest has shown yet is not modelled to be written down.
        if every == 0 || node.flipped.is_some() || replica.role() == Role::Fenced {
            return;
        }
        if replica.commit() < node.stores.newest(replica.lineage()) + every || !node.stores.begin() {
            return;
        }
        let stored = Box::new(Stored::of(&replica.base()));
        let boot = node.boot;
        let delay = 1 + self.random.below(60);
        self.push(delay, Event::Snapshotted { node: at, boot, stored });
    }

    /// Runs one step of a replica, checks it, and does what it asks.
    fn step(&mut self, at: usize, work: impl FnOnce(&mut Replica<Folded>)) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        let Some(replica) = &mut node.replica else { return Ok(()) };
        let (seen, led, epoch, lineage) =
            (replica.commit(), replica.role() == Role::Leader, replica.epoch(), replica.lineage());
        work(replica);
        if replica.epoch() < epoch || replica.lineage() < lineage {
            return Err(format!("{:?} went back from epoch {epoch}, lineage {lineage}", replica.me()));
        }
        let (seen, led) =
            if replica.lineage() > lineage { (0, false) } else { (seen, led && replica.epoch() == epoch) };
        let leads = replica.role() == Role::Leader;
        if replica.lineage() > lineage {
            node.flipped = None; // it began anew
            if leads {
                node.disk_lineage = replica.lineage();
            }
        }
        if leads && !led {
            node.led_from = replica.log().end();
        }
        let waits = replica.log().end().saturating_sub(node.led_from.max(replica.commit()));
        self.checker.step(replica, seen, led, node.flipped)?;
        // Inputs, and a digest for each eight entries that are committed at once.
        if leads && waits > WAITING_MAX + WAITING_MAX / 4 {
            return Err(format!("{waits} entries wait to be committed"));
        }
        let (commit, me) = (replica.commit(), replica.me());
        let mut outputs = std::mem::take(&mut self.outputs);
        replica.drain(&mut outputs);
        self.note(u64::from(me.node) << 32 | u64::from(leads), commit);
        if self.options.trace && !outputs.is_empty() {
            println!("{:>6} node {} commit {commit} {outputs:?}", self.now, me.node);
        }
        let boot = self.nodes[at].boot;
        for output in outputs.drain(..) {
            // Of a replica that is no more, nothing is done.
            if self.nodes[at].boot == boot {
                self.output(at, output)?;
            }
        }
        self.outputs = outputs;
        Ok(())
    }

    fn output(&mut self, at: usize, output: Output<u64>) -> Result<(), Broken> {
        match output {
            Output::Send(to, message) => {
                let target = usize::from(to) - 1;
                if self.passes(at, target) {
                    if !self.healed && self.random.chance(self.plan.double, 1_000) {
                        self.faults += 1;
                        let delay = self.delay();
                        self.push(delay, Event::Deliver { to, message: message.clone() });
                    }
                    let delay = self.delay();
                    self.push(delay, Event::Deliver { to, message });
                }
            }
            Output::Propose(command) => self.propose(at, command),
            Output::Acked { source, sequence } => {
                let lineage = self.nodes[at].replica.as_ref().map_or(0, Replica::lineage);
                self.checker.acked(lineage, source, sequence)?;
                let feed = (source % FEEDS) as usize;
                if self.random.chance(9, 10) || self.healed {
                    let delay = self.delay();
                    self.push(delay, Event::Answer { feed, source, sequence, gap: false });
                }
            }
            Output::Publish { lineage, offset } => self.checker.published(lineage, offset)?,
            Output::Persist(from) => self.persist(at, from),
            Output::Read { to, snapshot, at: first } => {
                let Some(bytes) = self.nodes[at].stores.read(snapshot.offset, first) else { return Ok(()) };
                let mut bytes = bytes.to_vec();
                if !self.healed && self.random.chance(self.plan.damage, 1_000) {
                    self.faults += 1;
                    let bit = self.random.below(8 * bytes.len() as u64);
                    bytes[bit as usize / 8] ^= 1 << (bit % 8);
                }
                self.step(at, |replica| replica.read(to, snapshot, first, Bytes::from(bytes)))?;
            }
            Output::Take { at: first, data, .. } => self.nodes[at].stores.take(first, &data),
            Output::Hash(id) => {
                let found = hash(self.nodes[at].stores.taken());
                self.step(at, |replica| replica.hashed(id, found))?;
            }
            Output::Install { snapshot, .. } => self.install(at, snapshot.offset)?,
            Output::Diverged(_) => {
                self.checker.fenced += 1;
                self.crash(at, true);
                let boot = self.nodes[at].boot;
                self.push(30, Event::Restart { node: at, boot });
            }
        }
        Ok(())
    }

    fn propose(&mut self, from: usize, command: Command) {
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

    fn persist(&mut self, at: usize, from: u64) {
        let node = &mut self.nodes[at];
        if !node.durable {
            return;
        }
        let Some(replica) = &node.replica else { return };
        if node.disk_lineage != replica.lineage() {
            node.disk_lineage = replica.lineage();
            if from == 0 {
                node.disk.clear();
                (node.disk_base, node.disk_epoch) = (0, 0);
            }
        }
        node.disk_valid = node.disk_valid.min(from);
        if node.syncing.is_some_and(|end| from < end) {
            // What is on its way to the disk is not the log any more.
            (node.generation, node.syncing) = (node.generation + 1, None);
        }
        self.sync(at);
    }

    fn sync(&mut self, at: usize) {
        let slow = if self.nodes[at].slow_until > self.now { 300 } else { 0 };
        let delay = 1 + slow + self.random.below(self.plan.sync);
        let node = &mut self.nodes[at];
        let end = node.replica.as_ref().map_or(0, |replica| replica.log().end());
        if node.syncing.is_none() && end > node.disk_valid {
            node.syncing = Some(end);
            let (boot, generation) = (node.boot, node.generation);
            self.push(delay, Event::Synced { node: at, boot, generation, end });
        }
    }

    fn crash(&mut self, at: usize, lossy: bool) {
        let node = &mut self.nodes[at];
        let Some(replica) = node.replica.take() else { return };
        let lossy = lossy || !node.durable;
        if lossy {
            node.disk.clear();
            (node.disk_base, node.disk_epoch, node.disk_valid) = (0, 0, 0);
            node.stores = Stores::default();
            node.lossy = true;
            self.checker.forgot(Member { node: node.id, incarnation: node.incarnation });
        } else {
            // What was on its way may have arrived in part.
            let log = replica.log();
            let part = self.random.below(log.end() - node.disk_valid + 1);
            node.stores.stop();
            if self.random.chance(1, 2) {
                node.disk.truncate((node.disk_valid - node.disk_base) as usize);
                node.disk.extend_from_slice(log.slice(node.disk_valid, part as usize));
            }
        }
        let node = &mut self.nodes[at];
        node.incarnation = node.incarnation.max(replica.me().incarnation) + 1;
        self.note(90 + u64::from(lossy), at as u64);
    }

    fn handle(&mut self, event: Event) -> Result<(), Broken> {
        let target = match &event {
            Event::Deliver { to, .. } => Some(usize::from(*to) - 1),
            Event::Tick(at) | Event::Synced { node: at, .. } => Some(*at),
            Event::Submit { to, .. } | Event::Rejected { to, .. } | Event::Told { to, .. } => Some(*to),
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
            Event::Deliver { to, message } => {
                self.step(usize::from(to) - 1, |replica| replica.receive(message))
            }
            Event::Tick(at) => self.tick(at),
            Event::Feed(feed) => {
                self.feed(feed);
                Ok(())
            }
            Event::Submit { to, feed, source, sequence } => {
                let mut became = Submitted::NotLeader;
                let input = mix(u64::from(source), sequence);
                self.step(to, |replica| became = replica.submit(source, sequence, input))?;
                if let Submitted::Gap(last) = became {
                    let delay = self.delay();
                    self.push(delay, Event::Answer { feed, source, sequence: last, gap: true });
                }
                Ok(())
            }
            Event::Answer { feed, source: of, sequence, gap } => {
                let known = &mut self.feeds[feed];
                if of == source(feed, known.lineage) {
                    // A server that says it has less is believed; that it may not say so is for the checker to see.
                    known.acked = if gap { sequence } else { known.acked.max(sequence) };
                }
                Ok(())
            }
            Event::Propose { from, command } => self.decide(from, command),
            Event::Rejected { to, command, overtaken } => {
                self.step(to, |replica| replica.rejected(&command, overtaken))
            }
            Event::Told { to, meta } => self.told(to, &meta),
            Event::Synced { node: at, boot, generation, end } => {
                let node = &mut self.nodes[at];
                if node.boot != boot || node.generation != generation {
                    return Ok(());
                }
                let Some(replica) = &node.replica else { return Ok(()) };
                node.disk.truncate((node.disk_valid - node.disk_base) as usize);
                let count = end.saturating_sub(node.disk_valid) as usize;
                node.disk.extend_from_slice(replica.log().slice(node.disk_valid, count));
                (node.disk_valid, node.syncing) = (end.max(node.disk_valid), None);
                self.step(at, |replica| replica.synced(end))?;
                self.sync(at);
                Ok(())
            }
            Event::Restart { node, boot } => {
                if self.nodes[node].replica.is_none() && self.nodes[node].boot == boot {
                    self.boot(node)?;
                }
                Ok(())
            }
            Event::Snapshotted { node: at, boot, stored } => {
                let tail = self.random.below(self.plan.tail + 1);
                let node = &mut self.nodes[at];
                let Some(replica) = node.replica.as_mut().filter(|_| node.boot == boot) else {
                    return Ok(());
                };
                let flipped = node.flipped.is_some();
                if stored.lineage != replica.lineage() || flipped {
                    node.stores.stop();
                    return Ok(());
                }
                node.stores.keep(*stored);
                replica.keeps(node.stores.ids());
                let before = replica.log().base();
                // How far it may be cut, the replica knows.
                let base = replica.cut(replica.commit().saturating_sub(tail));
                if base > before && node.durable {
                    // What was not written when it was cut is not there, and what is behind that is of something else.
                    let all = base > node.disk_valid;
                    let count = if all { node.disk.len() as u64 } else { base - node.disk_base };
                    node.disk_epoch = replica.log().epoch_before(base);
                    node.disk.drain(..count as usize);
                    (node.disk_base, node.disk_valid) = (base, node.disk_valid.max(base));
                }
                self.note(96, base);
                Ok(())
            }
            Event::Control => self.control(),
            Event::Fault => {
                if !self.healed {
                    self.fault()?;
                    let next = 1 + self.random.below(2 * self.plan.fault_every);
                    self.push(next, Event::Fault);
                }
                Ok(())
            }
        }
    }

    fn tick(&mut self, at: usize) -> Result<(), Broken> {
        let period = self.nodes[at].ticks;
        self.push(period, Event::Tick(at));
        if self.nodes[at].replica.is_none() {
            return Ok(());
        }
        self.nodes[at].tick += 1;
        let tick = self.nodes[at].tick;
        self.step(at, |replica| replica.tick(tick))?;
        self.snapshot(at);
        // The heartbeat to metadata, and what is new there.
        let metadata = self.nodes.len();
        if self.nodes[at].replica.is_some() && self.passes(at, metadata) {
            let registered = self.meta.is_live(self.member(at));
            if registered {
                self.nodes[at].heard = self.now;
            }
            let stale = self.nodes[at]
                .replica
                .as_ref()
                .is_some_and(|replica| replica.revision() < self.meta.revision);
            if (stale || !registered) && self.passes(metadata, at) {
                let (delay, meta) = (self.delay(), Rc::clone(&self.meta));
                self.push(delay, Event::Told { to: at, meta });
            }
        }
        Ok(())
    }

    fn member(&self, at: usize) -> Member {
        Member { node: self.nodes[at].id, incarnation: self.nodes[at].incarnation }
    }

    /// A node hears of metadata: it registers if it must, and its replica does as it is told.
    fn told(&mut self, at: usize, meta: &Rc<Meta>) -> Result<(), Broken> {
        let node = &mut self.nodes[at];
        let (Some(replica), Some(known)) = (&mut node.replica, meta.nodes.get(&node.id)) else {
            return Ok(());
        };
        if known.incarnation == node.incarnation && known.fenced {
            // It was given up, and is here: somebody new, with its memory.
            node.incarnation += 1;
            replica.reincarnate(node.incarnation);
        }
        let (member, lossy) = (Member { node: node.id, incarnation: node.incarnation }, node.lossy);
        if known.incarnation < node.incarnation {
            self.propose(at, Command::Register { member, lossy });
            return Ok(());
        }
        if known.incarnation == node.incarnation {
            node.lossy = false;
        }
        if meta.group.leader == Some(member)
            && node.flipped.is_some()
            && let Some(state) = self.checker.state(replica.commit())
        {
            // No rule promises anything about a flip in the leader itself between two digests.
            replica.machine_mut().0 = state;
            node.flipped = None;
        }
        let meta = Rc::clone(meta);
        self.step(at, |replica| replica.on_meta(&meta))
    }

    /// Metadata takes a command.
    fn decide(&mut self, from: usize, command: Command) -> Result<(), Broken> {
        let before = Rc::clone(&self.meta);
        let mut after = (*before).clone();
        let (metadata, verdict) = (self.nodes.len(), after.apply(&command));
        self.note(70 + u64::from(verdict.is_ok()), u64::from(after.group.epoch) << 32 | after.group.version);
        if self.options.trace {
            println!("{:>6} metadata {command:?} {verdict:?}", self.now);
        }
        if let Err(why) = verdict {
            let overtaken = why.is_overtaken();
            if from < metadata && self.passes(metadata, from) {
                let delay = self.delay();
                self.push(delay, Event::Rejected { to: from, command, overtaken });
            }
            return Ok(());
        }
        self.checker.meta(&before, &after)?;
        if let Command::Register { member, lossy } = command {
            if lossy {
                self.checker.renounced(member.node);
            }
            self.nodes[usize::from(member.node) - 1].heard = self.now;
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

    /// Gives up nodes that are not heard; and, as an operator would, groups of which no copy is left.
    fn control(&mut self) -> Result<(), Broken> {
        self.push(25, Event::Control);
        let operator = self.nodes.len();
        for at in 0..self.nodes.len() {
            let known = self.meta.nodes.get(&self.nodes[at].id).copied();
            if let Some(known) = known
                && !known.fenced
                && self.now.saturating_sub(self.nodes[at].heard) > 120
            {
                let member = Member { node: self.nodes[at].id, incarnation: known.incarnation };
                self.decide(operator, Command::Fence { member })?;
            }
        }
        let group = &self.meta.group;
        if group.leader.is_none() && group.isr.is_empty() && group.elr.is_empty() {
            let epoch = group.epoch;
            let live = self.meta.nodes.iter().find(|(_, state)| !state.fenced);
            if let Some((&node, state)) = live {
                let target = Member { node, incarnation: state.incarnation };
                self.decide(operator, Command::DeclareLoss { epoch, target })?;
            }
        }
        Ok(())
    }

    fn feed(&mut self, feed: usize) {
        let next = 10 + self.random.below(20);
        self.push(next, Event::Feed(feed));
        let lineage = self.meta.group.lineage;
        if self.feeds[feed].lineage != lineage {
            self.feeds[feed] = Feed { lineage, acked: 0 };
        }
        if self.quiet {
            return;
        }
        let leader = self.meta.group.leader.filter(|_| self.random.chance(9, 10));
        let to = match leader {
            Some(leader) => usize::from(leader.node) - 1,
            None => self.random.below(self.nodes.len() as u64) as usize,
        };
        let acked = self.feeds[feed].acked;
        for sequence in acked + 1..=acked + 1 + self.random.below(4) {
            if self.random.chance(9, 10) {
                let delay = self.delay();
                self.push(delay, Event::Submit { to, feed, source: source(feed, lineage), sequence });
            }
        }
    }

    fn fault(&mut self) -> Result<(), Broken> {
        let total: u64 = self.plan.faults.iter().sum();
        let mut drawn = self.random.below(total);
        let kind = self.plan.faults.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            hit
        });
        let Some(kind) = kind else { return Ok(()) };
        self.faults += 1;
        let at = self.random.below(self.nodes.len() as u64) as usize;
        self.note(60, (kind as u64) << 8 | at as u64);
        if self.options.trace {
            println!("{:>6} fault {kind} at node {}", self.now, at + 1);
        }
        match kind {
            0 => {
                let lossy = self.random.chance(self.plan.lossy, 100);
                let all = self.random.chance(1, 12);
                let affected = if all { 0..self.nodes.len() } else { at..at + 1 };
                for at in affected {
                    if self.nodes[at].replica.is_some() {
                        self.crash(at, lossy);
                        // Sooner or later than metadata gives it up.
                        let most = if self.random.chance(1, 2) { 40 } else { 500 };
                        let wait = 1 + self.random.below(most);
                        let boot = self.nodes[at].boot;
                        self.push(wait, Event::Restart { node: at, boot });
                    }
                }
            }
            1 => self.nodes[at].paused_until = self.now + self.random.below(400),
            2 => {
                let to = self.random.below(self.cuts.len() as u64) as usize;
                let (from, to) = if self.random.chance(1, 2) { (at, to) } else { (to, at) };
                self.cuts[from][to] = self.now + self.random.below(500);
                if self.random.chance(1, 2) {
                    self.cuts[to][from] = self.cuts[from][to];
                }
            }
            3 => {
                // Cut off from all others, with metadata or without.
                let until = self.now + self.random.below(500);
                let with = self.cuts.len() - usize::from(self.random.chance(1, 2));
                for other in 0..with {
                    self.cuts[at][other] = until;
                    self.cuts[other][at] = until;
                }
            }
            4 => {
                let node = &mut self.nodes[at];
                if let Some(replica) = &mut node.replica
                    && replica.role() == Role::Follower
                    && replica.commit() > 0
                    && node.flipped.is_none()
                {
                    node.flipped = Some(replica.commit());
                    replica.machine_mut().0 ^= 1 << self.random.below(64);
                }
            }
            5 => self.nodes[at].slow_until = self.now + self.random.below(1_000),
            7 => {
                let (node, drained) = (self.nodes[at].id, self.random.chance(2, 3));
                let operator = self.nodes.len();
                self.decide(operator, Command::Drain { node, drained })?;
            }
            _ => {
                let (target, epoch) = (self.member(at), self.meta.group.epoch);
                let operator = self.nodes.len();
                self.decide(operator, Command::Transfer { epoch, target })?;
            }
        }
        Ok(())
    }

    /// All faults are over.
    fn heal(&mut self) -> Result<(), Broken> {
        self.healed = true;
        self.cuts.iter_mut().flatten().for_each(|until| *until = 0);
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            (node.paused_until, node.slow_until) = (0, 0);
            if node.replica.is_none() {
                self.boot(at)?;
            }
            // A flip that no digest has shown yet is mended: what it did so far was checked.
            let node = &mut self.nodes[at];
            if let Some(replica) = &mut node.replica
                && node.flipped.take().is_some()
                && let Some(state) = self.checker.state(replica.commit())
            {
                replica.machine_mut().0 = state;
            }
        }
        Ok(())
    }
}
