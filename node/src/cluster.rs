//! `tidegate cluster`: make a cluster, see how it is, and decide what only people can; and the part of `serve` that is a node.

use crate::cli::{ClusterCommand, ClusterDrainArgs, ClusterInitArgs, ClusterMoveArgs, ClusterStatusArgs};
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
    ClusterConfig, ClusterError, Node, NodePlace, NodeStatus, Prepared, Recovered, Snapshotting,
};
use tidegate_journal::commit::CommitOptions;
use tidegate_live::replication::{ReplicaSnapshots, Replication, ReplicationDriver};
use tidegate_live::{Live, LiveOptions, SnapshotOptions};
use tidegate_quic::Limits;
use tidegate_replica::{Command, Group, Member as Incarnation, Meta};

/// First ports of local nodes.
const LOCAL_PEERS: u16 = 7_501;
const LOCAL_CLIENTS: u16 = 7_441;

fn failure(error: ClusterError) -> Failure {
    let exit = match &error {
        ClusterError::Asked(_) | ClusterError::NoNode { .. } => Exit::Usage,
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
        ClusterCommand::Move(args) => change(args, ui, "leads", |meta, target| {
            let Group { leader, isr, epoch, .. } = &meta.group;
            if *leader == Some(target) {
                return Err(refused(format!("node {} leads already", target.node)));
            }
            if !isr.contains(&target) {
                return Err(refused(format!("node {} is not in sync, so it may not lead", target.node)));
            }
            Ok(Command::Transfer { epoch: *epoch, target })
        }),
        ClusterCommand::Drain(args) => drain(args, ui),
        ClusterCommand::PromoteLoss(args) => {
            let declare = |meta: &Meta, target| Ok(Command::DeclareLoss { epoch: meta.group.epoch, target });
            change(args, ui, "begins a new lineage with what it has", declare)
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
    let min_isr = args.min_isr.unwrap_or(nodes.len() / 2 + 1);
    let config = ClusterConfig::init(&args.dir, nodes, min_isr, args.days, now_s()).map_err(failure)?;
    let mut table = Table::new(&["node", "folder", "for nodes", "for feeds"]);
    for (node, place) in &config.nodes {
        let folder = args.dir.join(format!("node-{node}"));
        table.row([
            node.to_string().as_str(),
            &folder.display().to_string(),
            &place.peers.to_string(),
            &place.clients.to_string(),
        ]);
    }
    ui.print(&table.render(ui, 0));
    ui.print(&format!(
        "{min_isr} of {} nodes must have an event before it is committed\non each: tidegate serve --cluster FOLDER\n",
        config.nodes.len()
    ));
    Ok(Exit::Ok)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))
}

fn status(args: &ClusterStatusArgs, ui: &Ui) -> Outcome {
    let (found, config) = runtime()?.block_on(async {
        let operator = Operator::of(&args.dir).map_err(failure)?;
        let config = operator.config().clone();
        Ok::<_, Failure>((operator.status().await, config))
    })?;
    let newest = newest(&found);
    if args.json {
        let nodes = found.iter().map(|(node, found)| {
            let place = config.nodes.get(node);
            match found {
                Ok(status) => json!({
                    "node": node, "clients": place.map(|place| place.clients), "answers": true,
                    "replica": status.replica, "consensus": status.consensus, "connected": status.connected,
                }),
                Err(why) => json!({
                    "node": node, "clients": place.map(|place| place.clients), "answers": false, "why": why,
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
        Some(status) if status.meta.group.leader.is_none() => Ok(Exit::Differs),
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
    let mut text = String::new();
    if let Some(NodeStatus { meta, consensus, .. }) = newest {
        let group = &meta.group;
        let members = |set: &[Incarnation]| {
            let nodes: Vec<String> = set.iter().map(|member| member.node.to_string()).collect();
            if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") }
        };
        let mut facts = Table::facts();
        let leader = group.leader.map_or("none".to_owned(), |leader| format!("node {}", leader.node));
        facts.fact("leader", format!("{leader}, epoch {}, lineage {}", group.epoch, group.lineage));
        facts.fact("in sync", format!("{}; {} are needed to commit", members(&group.isr), group.min_isr));
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
    let mut table = Table::new(&[
        "node",
        "for feeds",
        "is",
        ">start",
        ">epoch",
        ">committed",
        ">behind",
        "digest",
        "links",
    ]);
    let end = found.values().filter_map(|found| found.as_ref().ok()).map(|status| status.replica.end).max();
    for (node, found) in found {
        let name = node.to_string();
        let clients = config.nodes.get(node).map_or(String::new(), |place| place.clients.to_string());
        match found {
            Ok(NodeStatus { replica, connected, .. }) => {
                let tone = if replica.in_sync { Tone::Plain } else { Tone::Bad };
                let is = if replica.in_sync {
                    replica.role.clone()
                } else {
                    format!("{}, not in sync", replica.role)
                };
                let links: Vec<String> = connected.iter().map(u16::to_string).collect();
                table.toned([
                    (Tone::Plain, name.as_str()),
                    (Tone::Plain, &clients),
                    (tone, &is),
                    (Tone::Plain, &replica.incarnation.to_string()),
                    (Tone::Plain, &replica.epoch.to_string()),
                    (Tone::Plain, &thousands(replica.commit)),
                    (Tone::Plain, &thousands(end.unwrap_or(0).saturating_sub(replica.commit))),
                    (Tone::Faint, &replica.digest),
                    (Tone::Plain, &links.join(" ")),
                ]);
            }
            Err(why) => table.toned([
                (Tone::Plain, name.as_str()),
                (Tone::Plain, &clients),
                (Tone::Bad, &why.to_string()),
                (Tone::Plain, ""),
                (Tone::Plain, ""),
                (Tone::Plain, ""),
                (Tone::Plain, ""),
                (Tone::Plain, ""),
                (Tone::Plain, ""),
            ]),
        }
    }
    text + &table.render(ui, 0)
}

/// Has an operator's command decided, about the newest incarnation of a node.
fn change(
    args: &ClusterMoveArgs,
    ui: &Ui,
    does: &str,
    command: impl Fn(&Meta, Incarnation) -> Result<Command, Failure>,
) -> Outcome {
    runtime()?.block_on(async {
        let operator = Operator::of(&args.dir).map_err(failure)?;
        let found = operator.status().await;
        let Some(status) = newest(&found) else {
            return Err(failure(ClusterError::Silent(format!("{} were asked", found.len()))));
        };
        let meta = &status.meta;
        let Some(known) = meta.nodes.get(&args.to) else {
            let nodes: Vec<String> = meta.nodes.keys().map(u16::to_string).collect();
            return Err(Failure::usage(format!(
                "there is no node {}, there are {}",
                args.to,
                nodes.join(", ")
            )));
        };
        let target = Incarnation { node: args.to, incarnation: known.incarnation };
        operator.decide(&command(meta, target)?).await.map_err(failure)?;
        ui.print(&format!("node {} {does}\n", args.to));
        Ok(Exit::Ok)
    })
}

/// Has a node lead no more, or again.
fn drain(args: &ClusterDrainArgs, ui: &Ui) -> Outcome {
    let target = ClusterMoveArgs { dir: args.dir.clone(), to: args.node };
    let does = if args.undo { "may lead again" } else { "leads no more while another node in sync can" };
    change(&target, ui, does, |_, target| Ok(Command::Drain { node: target.node, drained: !args.undo }))
}

/// The node that `serve` is to be.
pub(crate) struct Member {
    dir: PathBuf,
    config: ClusterConfig,
    pub(crate) node: u16,
    pub(crate) place: NodePlace,
    /// When snapshots are taken.
    snapshots: SnapshotOptions,
}

impl Member {
    pub(crate) fn of(dir: &Path, snapshots: Option<SnapshotOptions>) -> Result<Self, Failure> {
        let config = ClusterConfig::read(dir).map_err(failure)?;
        let (node, place) = config.here(dir).map_err(failure)?;
        // Without any of its own it still goes on from those of others.
        let none = SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: 2 };
        Ok(Self { dir: dir.to_owned(), config, node, place, snapshots: snapshots.unwrap_or(none) })
    }

    /// Opens the node's folder. What is different on a node of a cluster is set; `settings` is what its state depends on beside the log.
    pub(crate) fn prepare(
        &self,
        options: &mut LiveOptions,
        limits: &mut Limits,
        port: Replication,
        settings: String,
        wall_ns: fn() -> u64,
    ) -> Result<Prepared, Failure> {
        let prepared = Prepared::of(&self.dir).map_err(failure)?;
        let reserve_bytes = CommitOptions::default().reserve_bytes;
        let (folder, keep) = (prepared.snapshots(), self.snapshots.keep);
        options.snapshots = Some(ReplicaSnapshots { folder, keep, reserve_bytes, settings, wall_ns });
        options.replication = Some(port);
        options.feed.committed = true;
        // Results and their numbers follow from the log, so a reader goes on at any node as at the same server.
        options.feed.incarnation = u64::from_str_radix(&self.config.cluster, 16).unwrap_or(1);
        // Clients of a node that died are to look for another one soon.
        limits.idle_timeout = limits.idle_timeout.min(CLIENT_SILENCE);
        limits.keep_alive = Some(limits.keep_alive.unwrap_or(CLIENT_ALIVE).min(CLIENT_ALIVE));
        Ok(prepared)
    }

    /// Starts the node beside its engine, whose settings in short are `fingerprint`.
    pub(crate) fn start(
        &self,
        prepared: Prepared,
        fingerprint: [u8; 16],
        driver: ReplicationDriver,
        live: &Live,
    ) -> Result<Node, Failure> {
        let snapshots =
            Snapshotting { when: self.snapshots, settings: fingerprint, point: live.recovered().point };
        Node::start(prepared, snapshots, driver, live.ingest()).map_err(failure)
    }
}

/// Silence after which a connection of a feed or subscriber counts as gone, and how often something is said.
const CLIENT_SILENCE: Duration = Duration::from_millis(500);
const CLIENT_ALIVE: Duration = Duration::from_millis(125);

/// What the node found of its log.
pub(crate) fn note_recovered(found: &Recovered, ui: &Ui) {
    if let Some(offset) = found.snapshot {
        ui.note(&format!("goes on from the snapshot behind {} entries of the log", thousands(offset)));
    }
    if found.entries > 0 {
        let part = if found.whole { "" } else { ", maybe not all it had: the machine was started anew" };
        ui.note(&format!("found {} entries of the log{part}", thousands(found.entries)));
    }
    if found.damaged {
        let cut = thousands(found.torn);
        ui.note(&format!(
            "the log is damaged behind that: cut off {cut} bytes, and it begins anew from there"
        ));
    } else if found.torn > 0 {
        ui.note(&format!("cut off {} bytes that were being written when it stopped", thousands(found.torn)));
    }
}

/// Says when the node's part changes.
pub(crate) struct Watch(String);

impl Watch {
    pub(crate) fn of(node: &Node) -> Self {
        Self(Self::line(&node.status()))
    }

    fn line(status: &NodeStatus) -> String {
        let replica = &status.replica;
        let sync = if replica.in_sync { "in sync" } else { "not in sync" };
        format!("{} in epoch {}, {sync}", replica.role, replica.epoch)
    }

    pub(crate) fn look(&mut self, node: &Node, ui: &Ui) {
        let status = node.status();
        let line = Self::line(&status);
        if line != self.0 {
            ui.note(&format!("node {}: {line}", status.replica.node));
            self.0 = line;
        }
    }
}
