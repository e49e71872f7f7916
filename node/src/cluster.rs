//! `tidegate cluster`: make a cluster, see how it is, and decide what only people can; and the part of `serve` that is a node.

mod copies;
mod groups;
mod members;
mod rebalance;
mod slots;

use crate::cli::{ClusterCommand, ClusterDrainArgs, ClusterInitArgs, ClusterStatusArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::place::now_s;
use crate::render::{Table, Tone, Ui, thousands};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_cluster::operate::{Found, Operator};
use tidegate_cluster::{
    ClusterConfig, ClusterError, Founding, Node, NodeGroup, NodePlace, NodeStatus, Prepared, Recovered,
    Relaying, ReplicaStatus, Snapshotting, Speaks,
};
use tidegate_journal::commit::CommitOptions;
use tidegate_live::replication::{ReplicaSnapshots, ReplicationDriver, replication};
use tidegate_live::{
    IngestHandle, Live, LiveGroup, LiveGroups, LiveOptions, Network, SnapshotOptions, SnapshotSettings,
};
use tidegate_quic::Limits;
use tidegate_replica::{Command, Member as Incarnation, Meta};

/// How long something may take to be decided, such as while consensus gets another leader.
const DECIDED: Duration = Duration::from_secs(10);

/// Set in the environment, a node speaks to others and to feeds as the version before would: for tests of clusters in which both are.
const SPEAK_BEFORE: &str = "TIDEGATE_SPEAK_BEFORE";
/// Version of the feeds' protocol that that one speaks at most.
const PROTOCOL_BEFORE: u8 = 3;

/// First ports of local nodes.
const LOCAL_PEERS: u16 = 7_501;
const LOCAL_CLIENTS: u16 = 7_441;

fn failure(error: ClusterError) -> Failure {
    let exit = match &error {
        ClusterError::Asked(_) | ClusterError::NoNode { .. } | ClusterError::Left { .. } => Exit::Usage,
        ClusterError::Bind { .. } => Exit::Output,
        ClusterError::Refused(_) => Exit::Differs,
        _ => Exit::Input,
    };
    Failure::new(exit, error)
}

fn refused(why: String) -> Failure {
    failure(ClusterError::Refused(why))
}

pub(crate) fn run(command: &ClusterCommand, ui: &Ui) -> Outcome {
    match command {
        ClusterCommand::Init(args) => init(args, ui),
        ClusterCommand::Status(args) => status(args, ui),
        ClusterCommand::Join(args) => members::join(args, ui),
        ClusterCommand::Leave(args) => members::leave(args, ui),
        ClusterCommand::Move(args) => {
            if let Some(moved) = slots::run(args, ui) {
                return moved;
            }
            let does = |meta: &Meta| format!("leads{}", groups::said(meta, args.group));
            change(&args.dir, args.to, ui, does, |meta| groups::transfer(meta, args.group, args.to))
        }
        ClusterCommand::Rebalance(args) if args.copies => copies::even(args, ui),
        ClusterCommand::Rebalance(args) => rebalance::run(args, ui),
        ClusterCommand::Drain(args) => drain(args, ui),
        ClusterCommand::PromoteLoss(args) => {
            let does = |meta: &Meta| match groups::said(meta, args.group).as_str() {
                "" => "begins a new lineage with what it has".to_owned(),
                group => format!("begins a new lineage of{group} with what it has"),
            };
            change(&args.dir, args.to, ui, does, |meta| groups::declare_loss(meta, args.group, args.to))
        }
    }
}

fn init(args: &ClusterInitArgs, ui: &Ui) -> Outcome {
    let mut nodes = BTreeMap::new();
    for (node, place) in &args.node {
        if nodes.insert(*node, *place).is_some() {
            return Err(Failure::usage(format!("node {node} is named twice")));
        }
    }
    for at in 0..args.local.unwrap_or(0) {
        let local = |port: u16| (Ipv4Addr::LOCALHOST, port + at).into();
        nodes.insert(at + 1, NodePlace { peers: local(LOCAL_PEERS), clients: local(LOCAL_CLIENTS) });
    }
    let copies = args.copies.map_or(0, usize::from);
    if args.copies == Some(0) {
        return Err(Failure::usage("each group is to be held by 0 nodes, allowed are 1 or more"));
    }
    let mut zones = BTreeMap::new();
    for (node, zone) in &args.zone {
        if zones.insert(*node, zone.clone()).is_some() {
            return Err(Failure::usage(format!("node {node} has two zones")));
        }
    }
    let least = if copies > 0 { copies } else { nodes.len() };
    let min_isr = args.min_isr.unwrap_or(least / 2 + 1);
    let founding = Founding { min_isr, groups: args.groups, durable: args.durable, copies };
    let config = ClusterConfig::found(&args.dir, nodes, zones, founding, (args.days, now_s()));
    let config = config.map_err(failure)?;
    let mut heads = vec!["node", "folder", "for nodes", "for feeds"];
    if config.copies > 0 {
        heads.push("holds groups");
    }
    let mut table = Table::new(&heads);
    for (node, place) in &config.nodes {
        let folder = args.dir.join(format!("node-{node}"));
        let mut cells = vec![
            node.to_string(),
            folder.display().to_string(),
            place.peers.to_string(),
            place.clients.to_string(),
        ];
        if config.copies > 0 {
            let held: Vec<String> = (0u16..)
                .zip(config.held(*node))
                .filter(|(_, held)| *held)
                .map(|(group, _)| group.to_string())
                .collect();
            cells.push(held.join(" "));
        }
        table.cells(cells.into_iter().map(|cell| (Tone::Plain, cell)).collect());
    }
    ui.print(&table.render(ui, 0));
    if config.copies > 0 {
        ui.print(&format!(
            "{} groups, each with a log of its own on {} nodes; the others relay its results to their readers\n",
            config.groups, config.copies
        ));
    } else if config.groups > 1 {
        ui.print(&format!(
            "{} groups, each with a log of its own; every node holds all of them, and leads as many as any other\n",
            config.groups
        ));
    }
    ui.print(&format!(
        "{min_isr} of {} nodes must have an event{} before it is committed\non each: tidegate serve --cluster FOLDER\n",
        if config.copies > 0 { config.copies } else { config.nodes.len() },
        if config.durable { " on disk" } else { "" }
    ));
    Ok(Exit::Ok)
}

/// What a node of the cluster has done before it counts.
fn on_disk(config: &ClusterConfig) -> &'static str {
    if config.durable { ", each with it on disk" } else { "" }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))
}

fn status(args: &ClusterStatusArgs, ui: &Ui) -> Outcome {
    let (found, config) = runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        let found = operator.found().await;
        Ok::<_, Failure>((found, operator.config().clone()))
    })?;
    let newest = newest(&found);
    if args.json {
        let nodes = found.iter().map(|(node, found)| {
            let place = config.nodes.get(node);
            match found {
                Ok(status) => json!({
                    "node": node, "clients": place.map(|place| place.clients), "zone": config.zones.get(node), "answers": true,
                    "replica": status.replica, "replicas": status.replicas, "consensus": status.consensus, "connected": status.connected,
                }),
                Err(why) => json!({
                    "node": node, "clients": place.map(|place| place.clients), "zone": config.zones.get(node), "answers": false, "why": why,
                }),
            }
        });
        let nodes: Vec<_> = nodes.collect();
        ui.print_json(
            &json!({ "cluster": config.cluster, "nodes": nodes, "meta": newest.map(|status| &status.meta) }),
        );
    } else {
        ui.print(&render(&found, newest, &config, ui));
    }
    match newest {
        None => Err(failure(ClusterError::Silent(format!("{} were asked", found.len())))),
        Some(status) if status.meta.groups.iter().any(|group| group.leader.is_none()) => Ok(Exit::Differs),
        Some(_) => Ok(Exit::Ok),
    }
}

/// Who knows the newest metadata.
fn newest(found: &BTreeMap<u16, Found>) -> Option<&NodeStatus> {
    found.values().filter_map(|found| found.as_ref().ok()).max_by_key(|status| status.meta.revision)
}

fn render(
    found: &BTreeMap<u16, Found>,
    newest: Option<&NodeStatus>,
    config: &ClusterConfig,
    ui: &Ui,
) -> String {
    if let Some(status) = newest.filter(|status| status.meta.groups.len() > 1) {
        return groups::render(found, status, config, ui);
    }
    let mut text = String::new();
    if let Some(NodeStatus { meta, consensus, .. }) = newest {
        let group = &meta.groups[0];
        let members = |set: &[Incarnation]| {
            let nodes: Vec<String> = set.iter().map(|member| member.node.to_string()).collect();
            if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") }
        };
        let mut facts = Table::facts();
        let leader = group.leader.map_or("none".to_owned(), |leader| format!("node {}", leader.node));
        facts.fact("leader", format!("{leader}, epoch {}, lineage {}", group.epoch, group.lineage));
        facts.fact(
            "in sync",
            format!("{}; {} are needed to commit{}", members(&group.isr), group.min_isr, on_disk(config)),
        );
        if !group.elr.is_empty() {
            facts.fact("eligible", members(&group.elr));
        }
        if !meta.drained.is_empty() {
            let nodes: Vec<String> = meta.drained.iter().map(u16::to_string).collect();
            facts.fact("drained", nodes.join(", "));
        }
        let led = consensus.leader.map_or("led by none".to_owned(), |node| format!("led by node {node}"));
        facts.fact("metadata", format!("{led}, revision {}", meta.revision));
        text += &facts.render(ui, 0);
        if group.leader.is_none() && group.isr.is_empty() && group.elr.is_empty() {
            text += "no node is left that has everything: tidegate cluster promote-loss goes on with what one of them has\n";
        }
    }
    let zoned = !config.zones.is_empty();
    let mut heads =
        vec!["node", "for feeds", "is", ">start", ">epoch", ">committed", ">behind", "digest", "links"];
    if zoned {
        heads.insert(1, "zone");
    }
    let mut table = Table::new(&heads);
    let end = found.values().filter_map(|found| found.as_ref().ok()).map(|status| status.replica.end).max();
    for (node, found) in found {
        let clients = config.nodes.get(node).map_or(String::new(), |place| place.clients.to_string());
        let mut cells = match found {
            Ok(NodeStatus { replica, connected, .. }) => {
                let tone = if replica.in_sync { Tone::Plain } else { Tone::Bad };
                let is = if replica.in_sync {
                    replica.role.clone()
                } else {
                    format!("{}, not in sync", replica.role)
                };
                let links: Vec<String> = connected.iter().map(u16::to_string).collect();
                vec![
                    (tone, crate::render::clean(&is)),
                    (Tone::Plain, replica.incarnation.to_string()),
                    (Tone::Plain, replica.epoch.to_string()),
                    (Tone::Plain, thousands(replica.commit)),
                    (Tone::Plain, thousands(end.unwrap_or(0).saturating_sub(replica.commit))),
                    (Tone::Faint, crate::render::clean(&replica.digest)),
                    (Tone::Plain, links.join(" ")),
                ]
            }
            Err(why) => {
                // Who was never there has a place and nothing else.
                let came = newest.is_none_or(|status| status.meta.nodes.contains_key(node));
                let is = if came { why.clone() } else { format!("to come ({why})") };
                let mut cells = vec![(Tone::Plain, String::new()); 7];
                cells[0] = (if came { Tone::Bad } else { Tone::Warn }, crate::render::clean(&is));
                cells
            }
        };
        cells.insert(0, (Tone::Plain, clients));
        if zoned {
            let zone = config.zones.get(node).map_or(String::new(), |zone| crate::render::clean(zone));
            cells.insert(0, (Tone::Plain, zone));
        }
        cells.insert(0, (Tone::Plain, node.to_string()));
        table.cells(cells);
    }
    text + &table.render(ui, 0)
}

/// Has an operator's command about a node decided, and says what it does.
fn change(
    dir: &Path,
    node: u16,
    ui: &Ui,
    does: impl Fn(&Meta) -> String,
    command: impl Fn(&Meta) -> Result<Command, Failure>,
) -> Outcome {
    runtime()?.block_on(async {
        let mut operator = Operator::of(dir).map_err(failure)?;
        let found = operator.found().await;
        let Some(status) = newest(&found) else {
            return Err(failure(ClusterError::Silent(format!("{} were asked", found.len()))));
        };
        let meta = &status.meta;
        operator.decide_within(&command(meta)?, DECIDED).await.map_err(failure)?;
        ui.print(&format!("node {node} {}\n", does(meta)));
        Ok(Exit::Ok)
    })
}

/// Has a node lead no more, or again.
fn drain(args: &ClusterDrainArgs, ui: &Ui) -> Outcome {
    let does = if args.undo { "may lead again" } else { "leads no more while another node in sync can" };
    let command = |meta: &Meta| groups::drain(meta, args.node, !args.undo);
    if args.copies {
        return drain_copies(args, ui);
    }
    change(&args.dir, args.node, ui, |_| does.to_owned(), command)
}

/// Has a node lead nothing and hold nothing: it relays all groups then.
fn drain_copies(args: &ClusterDrainArgs, ui: &Ui) -> Outcome {
    let node = args.node;
    runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        let (_, meta) = members::known(&mut operator).await?;
        let command = groups::drain(&meta, node, true)?;
        if !copies::is_partial(&meta) {
            return Err(refused(
                "every node holds every group: only a cluster made with --copies has copies that move"
                    .to_owned(),
            ));
        }
        if !args.dry_run {
            // First, so that nobody gives it any.
            operator.decide_within(&command, DECIDED).await.map_err(failure)?;
            ui.print(&format!("node {node} leads no more while another node in sync can\n"));
        }
        if copies::away(&mut operator, node, (false, args.dry_run), ui).await? {
            ui.print(&format!("node {node} holds no group, and relays all\n"));
        }
        Ok(Exit::Ok)
    })
}

/// The node that `serve` is to be.
pub(crate) struct Member {
    dir: PathBuf,
    config: ClusterConfig,
    pub(crate) node: u16,
    pub(crate) place: NodePlace,
    /// When snapshots are taken.
    snapshots: SnapshotOptions,
    /// The streams of its shards, by number.
    streams: Vec<String>,
}

impl Member {
    pub(crate) fn of(dir: &Path, snapshots: Option<SnapshotOptions>) -> Result<Self, Failure> {
        let config = ClusterConfig::read(dir).map_err(failure)?;
        let (node, place) = config.here(dir).map_err(failure)?;
        // Without any of its own it still goes on from those of others.
        let none = SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: 2 };
        let (snapshots, streams) = (snapshots.unwrap_or(none), Vec::new());
        Ok(Self { dir: dir.to_owned(), config, node, place, snapshots, streams })
    }

    /// One whose shards make these streams.
    pub(crate) fn computing(self, streams: Vec<String>) -> Self {
        Self { streams, ..self }
    }

    /// Opens the node's folder. What is different on a node of a cluster is set; `settings` is what its state depends on beside the log.
    pub(crate) fn prepare(
        &self,
        options: &mut LiveOptions,
        limits: &mut Limits,
        settings: &str,
        wall_ns: fn() -> u64,
    ) -> Result<(Prepared, Vec<ReplicationDriver>), Failure> {
        let mut prepared = Prepared::of(&self.dir).map_err(failure)?;
        if std::env::var_os(SPEAK_BEFORE).is_some_and(|value| !value.is_empty()) {
            prepared = prepared.speaking(Speaks::Before);
            options.feed.version_max = PROTOCOL_BEFORE;
        }
        let reserve_bytes = CommitOptions::default().reserve_bytes;
        let folders = prepared.snapshots();
        let (mut ports, drivers): (std::collections::VecDeque<_>, Vec<_>) =
            folders.iter().flatten().map(|_| replication()).unzip();
        let snapshots = |folder| {
            let (keep, settings) = (self.snapshots.keep, settings.to_owned());
            ReplicaSnapshots { folder, keep, reserve_bytes, settings, wall_ns }
        };
        // Those that other nodes hold have neither.
        let group = |folder: Option<PathBuf>| {
            let (replication, snapshots) = (ports.pop_front()?, Some(snapshots(folder?)));
            Some(LiveGroup { replication, snapshots })
        };
        let mut of: Vec<Option<LiveGroup>> = Vec::with_capacity(folders.len());
        let mut group = group;
        for folder in folders {
            of.push(if folder.is_some() { group(folder) } else { None });
        }
        if of.len() == 1 {
            let only = of.pop().flatten();
            options.snapshots = only.as_ref().and_then(|only| only.snapshots.clone());
            options.replication = only.map(|only| only.replication);
        } else {
            options.groups = Some(LiveGroups { slots: prepared.slots().into(), of });
        }
        (options.feed.committed, options.feed.durable) = (true, self.config.durable);
        // Results and their numbers follow from the log, so a reader goes on at any node as at the same server.
        options.feed.incarnation = u64::from_str_radix(&self.config.cluster, 16).unwrap_or(1);
        // Clients of a node that died are to look for another one soon.
        limits.idle_timeout = limits.idle_timeout.min(CLIENT_SILENCE);
        limits.keep_alive = Some(limits.keep_alive.unwrap_or(CLIENT_ALIVE).min(CLIENT_ALIVE));
        Ok((prepared, drivers))
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> u16 {
        self.config.groups
    }

    /// Starts the node beside its engine, whose settings are these, for the machine and in words.
    pub(crate) fn start(
        &self,
        prepared: Prepared,
        (settings, words): (&SnapshotSettings, String),
        drivers: Vec<ReplicationDriver>,
        live: &mut Live,
        network: &Network,
    ) -> Result<Node, Failure> {
        let ports = live.take_relays();
        // Those of the shards alone: what is derived from them, every node derives itself.
        let streams = self.streams.clone();
        let relaying = Relaying { hub: live.hub(), streams, settings: (settings.clone(), words), ports };
        let of =
            |((port, found), ingest): ((ReplicationDriver, &tidegate_live::Recovered), &IngestHandle)| {
                let snapshots =
                    Snapshotting { when: self.snapshots, settings: settings.clone(), point: found.point };
                NodeGroup { snapshots, port, ingest: ingest.clone() }
            };
        let groups = drivers.into_iter().zip(live.recovered_groups()).zip(live.ingest_groups()).map(of);
        Node::start(prepared, groups.collect(), relaying, network.handle()).map_err(failure)
    }
}

/// Silence after which a connection of a feed or subscriber counts as gone, and how often something is said.
const CLIENT_SILENCE: Duration = Duration::from_millis(500);
const CLIENT_ALIVE: Duration = Duration::from_millis(125);

/// What the node found of its logs.
pub(crate) fn note_recovered(groups: &[Recovered], ui: &Ui) {
    for (group, found) in groups.iter().enumerate() {
        let of = if groups.len() > 1 { format!("group {group}: ") } else { String::new() };
        note_recovered_group(&of, found, ui);
    }
}

fn note_recovered_group(of: &str, found: &Recovered, ui: &Ui) {
    if let Some(offset) = found.snapshot {
        ui.note(&format!("{of}goes on from the snapshot behind {} entries of the log", thousands(offset)));
    }
    if found.entries > 0 {
        let part = if found.whole { "" } else { ", maybe not all it had: the machine was started anew" };
        ui.note(&format!("{of}found {} entries of the log{part}", thousands(found.entries)));
    }
    if found.damaged {
        let cut = thousands(found.torn);
        ui.note(&format!(
            "{of}the log is damaged behind that: cut off {cut} bytes, and it begins anew from there"
        ));
    } else if found.torn > 0 {
        ui.note(&format!(
            "{of}cut off {} bytes that were being written when it stopped",
            thousands(found.torn)
        ));
    }
}

/// Says when the node's part changes, group by group.
pub(crate) struct Watch(Vec<String>);

impl Watch {
    pub(crate) fn of(node: &Node) -> Self {
        Self(Self::lines(&node.status()))
    }

    fn lines(status: &NodeStatus) -> Vec<String> {
        let line = |replica: &ReplicaStatus| {
            if let Some(relay) = &replica.relay {
                let from = relay.from.map_or("nowhere yet".to_owned(), |node| format!("node {node}"));
                let comes = match &replica.taking_up {
                    Some(taking) => match &taking.problem {
                        Some(problem) => format!(", to be taken up here: {problem}"),
                        None => ", and taken up here".to_owned(),
                    },
                    None => String::new(),
                };
                return format!("node {}: group {}: relayed from {from}{comes}", replica.node, replica.group);
            }
            let group =
                if status.replicas.is_empty() { String::new() } else { format!(" group {}:", replica.group) };
            let sync = if replica.in_sync { "in sync" } else { "not in sync" };
            format!("node {}:{group} {} in epoch {}, {sync}", replica.node, replica.role, replica.epoch)
        };
        status.all().map(line).collect()
    }

    pub(crate) fn look(&mut self, node: &Node, ui: &Ui) {
        let lines = Self::lines(&node.status());
        for line in lines.iter().filter(|line| !self.0.contains(line)) {
            ui.note(line);
        }
        self.0 = lines;
    }
}
