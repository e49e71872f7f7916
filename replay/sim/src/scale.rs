//! A large cluster under the same simulator: what metadata costs when nothing happens, when a node fails and comes back, and when leads are
//! spread anew; each within a budget.
//!
//! All replicas are the real ones, and every promise of every group is checked after each step, as in a small life.

use crate::check::Broken;
use crate::cluster::{Cluster, Options, Traffic};
use crate::plan::{KINDS, Plan};
use std::collections::BTreeMap;
use std::fmt;
use tidegate_journal::sim::Random;
use tidegate_replica::{Eagerness, GroupId, Moves, NodeId};

/// How large, and what it may cost. A unit of time is 2 ms where a tick is 20 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Nodes.
    pub nodes: u16,
    /// Zones that the nodes are spread over.
    pub zones: u16,
    /// Groups.
    pub groups: u16,
    /// Nodes that hold each group.
    pub copies: usize,
    /// Commands of metadata in a while in which nothing happens.
    pub idle_commands: u64,
    /// Commands from the death of a node until all its groups have committed again.
    pub fail_commands: u64,
    /// Units of time for that, and for it to be noticed at all.
    pub fail_units: u64,
    /// Commands for each group of a node that comes back, until it is in sync everywhere, in hundredths.
    pub join_pct: u64,
    /// Units of time for that.
    pub join_units: u64,
    /// Commands for each move of a rebalance, in hundredths.
    pub move_pct: u64,
    /// What the busiest node may lead by cost when it is done, in hundredths of the mean.
    pub busiest_pct: u64,
    /// Bytes of all commands of the life, as each node gets them.
    pub bytes: u64,
    /// Bytes of the whole state, as whoever lacks everything gets it.
    pub state_bytes: u64,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            nodes: 100,
            zones: 5,
            groups: 1_600,
            copies: 3,
            idle_commands: 0,
            fail_commands: 1,
            fail_units: 250,
            join_pct: 110,
            join_units: 250,
            move_pct: 100,
            busiest_pct: 150,
            bytes: 64 << 10,
            state_bytes: 1 << 20,
        }
    }
}

/// What it did cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scaled {
    /// Commands while nothing happened.
    pub idle: u64,
    /// Groups that the node led, and held, that died.
    pub led: usize,
    /// Groups that it held.
    pub held: usize,
    /// Most of these that one other node leads more than before.
    pub heirs_most: usize,
    /// Commands, and units of time, until all groups had committed again.
    pub failed: (u64, u64),
    /// The same until it was in sync everywhere again.
    pub joined: (u64, u64),
    /// Moves planned, commands they took, units of time until all groups had committed behind them.
    pub moved: (usize, u64, u64),
    /// What the busiest node leads by cost before and after, in hundredths of the mean.
    pub busiest: (u64, u64),
    /// All that metadata was asked and told.
    pub traffic: Traffic,
    /// Bytes of the whole state.
    pub state_bytes: u64,
    /// Steps of the simulator.
    pub steps: u64,
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |units: u64| 2 * units;
        writeln!(f, "nothing happens: {} commands", self.idle)?;
        writeln!(
            f,
            "a node dies that led {} and held {} groups: {} commands, all groups commit again after {} ms; no other node got more than {} of its leads",
            self.led,
            self.held,
            self.failed.0,
            ms(self.failed.1),
            self.heirs_most
        )?;
        writeln!(
            f,
            "it comes back: {} commands, in sync everywhere after {} ms",
            self.joined.0,
            ms(self.joined.1)
        )?;
        writeln!(
            f,
            "rebalance: {} moves, {} commands, all groups commit after {} ms; the busiest node leads {} % of the mean, {} % before",
            self.moved.0,
            self.moved.1,
            ms(self.moved.2),
            self.busiest.1,
            self.busiest.0
        )?;
        write!(
            f,
            "all of it: {} commands of {} bytes to each node, {} refused; the whole state is {} bytes; {} steps",
            self.traffic.accepted, self.traffic.bytes, self.traffic.refused, self.state_bytes, self.steps
        )
    }
}

/// Fails with words when a part of the budget is exceeded.
fn within(what: &str, found: u64, allowed: u64) -> Result<(), Broken> {
    if found <= allowed { Ok(()) } else { Err(format!("{what}: {found}, allowed are {allowed}")) }
}

/// Lives on until something is so. Returns for how long.
fn until(
    cluster: &mut Cluster,
    most: u64,
    what: &str,
    mut done: impl FnMut(&Cluster) -> bool,
) -> Result<u64, Broken> {
    let began = cluster.now;
    loop {
        let look = cluster.now + 5;
        while cluster.now < look {
            cluster.next()?;
        }
        if done(cluster) {
            return Ok(cluster.now - began);
        }
        if cluster.now > began + most {
            return Err(format!("{what}: not after {most} units of time; {}", cluster.waits()));
        }
    }
}

/// Until every feed of every group was acknowledged something new.
fn acknowledged(cluster: &mut Cluster, most: u64, what: &str) -> Result<u64, Broken> {
    let mut before = Vec::new();
    until(cluster, most, what, |cluster| cluster.all_acked(&mut before, 0))
}

fn leads(cluster: &Cluster) -> BTreeMap<NodeId, usize> {
    let mut leads = BTreeMap::new();
    for leader in cluster.meta.groups.iter().filter_map(|group| group.leader) {
        *leads.entry(leader.node).or_insert(0) += 1;
    }
    leads
}

fn busiest_pct(loads: &BTreeMap<NodeId, u64>) -> u64 {
    let sum: u64 = loads.values().sum::<u64>().max(1);
    loads.values().max().copied().unwrap_or(0) * 100 * loads.len() as u64 / sum
}

impl Scale {
    fn plan(&self) -> Plan {
        let nodes: Vec<NodeId> = (1..=self.nodes).collect();
        let zone = |node: &NodeId| (*node, format!("zone-{}", node % self.zones.max(1)));
        Plan {
            zones: nodes.iter().map(zone).collect(),
            groups: usize::from(self.groups),
            copies: self.copies,
            min_isr: 2.min(self.copies),
            feeds: 1,
            feed_every: (20, 30),
            durable: vec![false; nodes.len()],
            loss: 0,
            double: 0,
            delay: 2,
            spikes: 0,
            fault_every: u64::from(u32::MAX),
            faults: [0; KINDS],
            lossy: 0,
            // Clocks run apart here too.
            ticks: nodes.iter().map(|node| 9 + u64::from(node % 3)).collect(),
            sync: 1,
            snapshot_every: 0,
            tail: 0,
            damage: 0,
            // As in a real node: whoever is silent is given up before it lags.
            lag_ticks: 30,
            slots: 0,
            measured: true,
            nodes,
            spare: 0,
        }
    }

    /// Lives the life of such a cluster: nothing happens, a node dies and comes back, leads are spread anew.
    ///
    /// # Errors
    /// A promise that was broken, or a part of the budget that was exceeded.
    pub fn live(&self, seed: u64) -> Result<Scaled, Broken> {
        let mut random = Random(seed);
        let costs: BTreeMap<GroupId, u64> =
            (0..self.groups).map(|group| (group, cost(&mut random))).collect();
        let mut cluster = Cluster::new(seed, random, self.plan(), Options::default());
        cluster.begin_all()?;
        acknowledged(&mut cluster, 1_000, "the beginning")?;
        let mut scaled = Scaled::default();
        let commands = |cluster: &Cluster| cluster.traffic.accepted + cluster.traffic.refused;

        let before = commands(&cluster);
        let end = cluster.now + 300;
        until(&mut cluster, 500, "quiet", |cluster| cluster.now >= end)?;
        scaled.idle = commands(&cluster) - before;
        within("commands while nothing happens", scaled.idle, self.idle_commands)?;

        self.fail_and_join(&mut cluster, &mut scaled)?;

        let before = commands(&cluster);
        let eager = Eagerness { moves_max: usize::from(self.groups), ..Eagerness::default() };
        let plan = Moves::plan(&cluster.meta, &costs, eager);
        let operator = usize::from(self.nodes);
        for one in &plan.moves {
            cluster.decide(operator, &one.command())?;
        }
        let took = acknowledged(&mut cluster, self.fail_units, "a rebalance")?;
        scaled.moved = (plan.moves.len(), commands(&cluster) - before, took);
        scaled.busiest = (busiest_pct(&plan.before), busiest_pct(&plan.after));
        within("commands of a rebalance", scaled.moved.1, plan.moves.len() as u64 * self.move_pct / 100)?;
        within("the busiest node in hundredths of the mean", scaled.busiest.1, self.busiest_pct)?;
        if !Moves::plan(&cluster.meta, &costs, eager).moves.is_empty() {
            return Err("a rebalance is never done".to_owned());
        }

        scaled.traffic = cluster.traffic;
        scaled.state_bytes = serde_json::to_vec(&*cluster.meta).map_or(0, |bytes| bytes.len() as u64);
        scaled.steps = cluster.steps;
        within("bytes of commands", scaled.traffic.bytes, self.bytes)?;
        within("bytes of the state", scaled.state_bytes, self.state_bytes)?;
        Ok(scaled)
    }

    fn fail_and_join(&self, cluster: &mut Cluster, scaled: &mut Scaled) -> Result<(), Broken> {
        let commands = |cluster: &Cluster| cluster.traffic.accepted + cluster.traffic.refused;
        let victim = 1 + (cluster.random.below(u64::from(self.nodes)) as NodeId);
        let before = leads(cluster);
        let at = usize::from(victim) - 1;
        scaled.led = before.get(&victim).copied().unwrap_or(0);
        scaled.held =
            cluster.meta.numbered().filter(|(group, _)| cluster.meta.is_held(*group, victim)).count();
        let asked = commands(cluster);
        cluster.kill(at);
        let took = acknowledged(cluster, self.fail_units, "a node died")?;
        scaled.failed = (commands(cluster) - asked, took);
        within("commands when a node dies", scaled.failed.0, self.fail_commands)?;
        let more = leads(cluster)
            .into_iter()
            .map(|(node, now)| now.saturating_sub(before.get(&node).copied().unwrap_or(0)));
        scaled.heirs_most = more.max().unwrap_or(0);

        let asked = commands(cluster);
        cluster.revive(at)?;
        let whole =
            |cluster: &Cluster| cluster.meta.groups.iter().all(|group| group.isr.len() == self.copies);
        let took = until(cluster, self.join_units, "a node comes back", whole)?;
        scaled.joined = (commands(cluster) - asked, took);
        // And once to be known at all.
        within("commands when it comes back", scaled.joined.0, 1 + scaled.held as u64 * self.join_pct / 100)
    }
}

/// What a group costs: most little, few much.
fn cost(random: &mut Random) -> u64 {
    let most = 1 << random.below(12);
    100 + random.below(most)
}
