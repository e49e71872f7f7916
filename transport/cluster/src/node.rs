//! A node beside an engine: links and driver on the runtime that moves the engine's packets, consensus on threads of its own.
//!
//! An acknowledgement passes links and driver of two nodes. Where the engine shares one thread with its packets they do too, so that an
//! event goes from a feed's socket to a follower's and back without a thread to be woken on the way. Consensus waits for its disk.

use crate::config::{ClusterConfig, ClusterError, Incarnations, Who};
use crate::copies::{TakeUp, Taking, TakingUp};
use crate::driver::{Driver, LOG_BYTES_MAX, Work};
use crate::links::{Kind, Links, Serve, Speaks};
use crate::members;
use crate::metadata::{Consensus, ConsensusStatus, Undecided, Verdict};
use crate::mover::Mover;
use crate::prepared::{Begins, Prepared};
use crate::registrar::Registrar;
use crate::relay::{RelayDriver, RelayStatus, Relaying, Shared};
use crate::snapshots::{Budget, Snapshots};
use crate::view::{FollowerStatus, Observer};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_journal::Point;
use tidegate_live::replication::ReplicationDriver;
use tidegate_live::{HubHandle, IngestHandle, SnapshotOptions, SnapshotSettings};
use tidegate_replica::{Command, GroupId, Member, Meta, NodeId, Replica, ReplicaOptions};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Messages of other replicas that wait for the driver; with more, links are not read.
const INBOX_MAX: usize = 1_024;
/// How long a group that has fetched a snapshot waits for others that fetch theirs: less than leaders keep their logs for.
const FETCH_TOGETHER: Duration = Duration::from_secs(10);
/// How long handing over may take at the end.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long the driver may take to end once it was told to.
const LAST_TURN: Duration = Duration::from_secs(5);
/// A node's write to its disk must not keep it from answering others, so there are two.
const THREADS: usize = 2;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_first(group: &GroupId) -> bool {
    *group == 0
}

/// How a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The node.
    pub node: NodeId,
    /// The group that it is a replica of.
    #[serde(default, skip_serializing_if = "is_first")]
    pub group: GroupId,
    /// Which start of it.
    pub incarnation: u64,
    /// `leader`, `follower` or `fenced`; `relay` where the node does not hold the group, and reads its results at one that does.
    pub role: String,
    /// The newest epoch it knows.
    pub epoch: u32,
    /// The log's history.
    pub lineage: u64,
    /// Offset behind its last entry.
    pub end: u64,
    /// Offset below which all is committed, as far as it knows.
    pub commit: u64,
    /// Offset below which its engine was given all.
    pub ordered: u64,
    /// Bytes of its log, of [`LOG_BYTES_MAX`](Self::LOG_BYTES_MAX) at most.
    pub log_bytes: u64,
    /// Offset of the first entry of its log: what is in front of it is in snapshots.
    #[serde(default)]
    pub log_base: u64,
    /// Offset of its newest snapshot.
    #[serde(default)]
    pub snapshot: Option<u64>,
    /// The snapshot that it fetches from the leader: bytes that are here, and all.
    #[serde(default)]
    pub fetching: Option<(u64, u64)>,
    /// Why its last snapshot was given up, unless one was written since.
    #[serde(default)]
    pub problem: Option<String>,
    /// Events about keys that its engine has logged.
    pub logged: u64,
    /// Digest of all inputs up to `commit`.
    pub digest: String,
    /// Whether it counts for what is committed.
    pub in_sync: bool,
    /// How far the others are, of a leader. A node of an earlier version does not say.
    #[serde(default)]
    pub followers: Vec<FollowerStatus>,
    /// How the group is relayed, where the node does not hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatus>,
    /// Feeds that a slot waits for which is to leave the group, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slot_waits: Vec<String>,
    /// Why the last slot that was to leave the group cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_refused: Option<String>,
    /// How a copy of the group comes that is on its way here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taking_up: Option<TakingUp>,
    /// Event time up to which the group's results are there for readers of this node, where nodes hold some groups only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<u64>,
}

impl ReplicaStatus {
    /// What the logs of a node may grow to, each to the same part of it.
    pub const LOG_BYTES_MAX: u64 = LOG_BYTES_MAX;
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its replica of the first group.
    pub replica: ReplicaStatus,
    /// Its replicas of the other groups, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaStatus>,
    /// Metadata as it knows it.
    pub meta: Meta,
    /// Consensus on metadata.
    pub consensus: ConsensusStatus,
    /// Nodes it is connected to.
    pub connected: Vec<NodeId>,
    /// Whether it knows how slots change their group. A node of an earlier version does not, and does not say.
    #[serde(default)]
    pub moves_slots: bool,
}

impl NodeStatus {
    /// Its replicas of all groups, in order.
    pub fn all(&self) -> impl Iterator<Item = &ReplicaStatus> {
        std::iter::once(&self.replica).chain(&self.replicas)
    }
}

/// Why a node's replicas ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody said so.
    Asked,
    /// What it took in is not what the leader took in, up to this offset.
    Diverged(u64),
    /// The log has another history since a declared loss; what this engine computed belongs to the old one.
    Lineage(u64),
    /// It has fetched the leader's snapshot of this offset, and is to be started again with it.
    Snapshot(u64),
    /// A group has come that it holds from here on, and it is to be started again with it.
    TookUp(GroupId),
    /// It holds a group no longer, and is to be started again and relay it.
    GaveUp(GroupId),
    /// A loss was declared in a group that it relays: what its readers have of the old history is over, and it is to be started again.
    Relayed(GroupId),
    /// The leader computes something else: its snapshot is of no use here.
    Settings(String),
    /// Its snapshots cannot be written.
    Snapshots(String),
    /// Its log cannot be written.
    Log(String),
    /// Its incarnation cannot be noted.
    Incarnation(String),
    /// It has left the cluster.
    Left,
    /// Consensus is gone.
    Metadata,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("it was told to end"),
            Self::Diverged(at) => {
                write!(
                    f,
                    "what it has up to offset {at} is not what the leader has: start it again, and it begins anew"
                )
            }
            Self::Lineage(lineage) => write!(
                f,
                "a loss was declared, the log goes on as lineage {lineage}: start it again, and it follows that one"
            ),
            Self::Snapshot(offset) => {
                write!(
                    f,
                    "it has the leader's snapshot of offset {offset}: start it again, and it goes on from there"
                )
            }
            Self::Relayed(group) => write!(
                f,
                "a loss was declared in group {group}, which it relays: start it again, and it relays what is left"
            ),
            Self::TookUp(group) => {
                write!(f, "it has what group {group} takes: start it again, and it holds the group")
            }
            Self::GaveUp(group) => {
                write!(f, "it holds group {group} no longer: start it again, and it relays the group")
            }
            Self::Settings(settings) => write!(
                f,
                "another node computes with `{settings}`: give all nodes the same streams and settings"
            ),
            Self::Snapshots(why) => write!(f, "its snapshots cannot be used: {why}"),
            Self::Log(why) => write!(f, "its log cannot be written: {why}"),
            Self::Incarnation(why) => f.write_str(why),
            Self::Left => f.write_str("it has left the cluster, and its number is not used again"),
            Self::Metadata => f.write_str("consensus on metadata has ended"),
        }
    }
}

impl Ended {
    /// Whether the node is to be started again in the same process.
    #[must_use]
    pub fn is_turn(&self) -> bool {
        matches!(self, Self::Snapshot(_) | Self::TookUp(_) | Self::GaveUp(_) | Self::Relayed(_))
    }
}

/// A running node.
pub struct Node {
    runtime: Option<Runtime>,
    links: Arc<Links>,
    consensus: Consensus,
    service: Arc<Service>,
    observer: Observer,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<Option<(Ended, Instant)>>,
    /// Held until the last of its tasks has ended.
    running: mpsc::Receiver<Never>,
    recovered: Vec<Recovered>,
}

/// There is none.
enum Never {}

/// What a node found of a group's log when it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries.
    pub entries: u64,
    /// Whether that is all it ever acknowledged: so it is unless the machine itself went down.
    pub whole: bool,
    /// Whether a record of it was damaged; the log ends in front of that.
    pub damaged: bool,
    /// Bytes behind its end that were cut off: what was being written, or what was damaged and all behind it.
    pub torn: u64,
    /// Offset of the snapshot it goes on from.
    pub snapshot: Option<u64>,
}

/// Snapshots of a node's group, for whoever starts it.
#[derive(Clone, Debug)]
pub struct Snapshotting {
    /// When they are taken.
    pub when: SnapshotOptions,
    /// What the engine depends on beside the log.
    pub settings: SnapshotSettings,
    /// The point of the one that the engine was started with.
    pub point: Option<Point>,
}

/// A group of a node, for whoever starts it.
pub struct NodeGroup {
    /// Its snapshots.
    pub snapshots: Snapshotting,
    /// The driver's end of the way to its engine.
    pub port: ReplicationDriver,
    /// Its engine.
    pub ingest: IngestHandle,
}

impl Node {
    /// Starts the node whose folder was prepared, beside the engine of each group that it holds, which was started with the other end of its
    /// port and with its snapshots in [`Prepared::snapshots`]; the others it relays. Links and drivers run on `network`, which must outlive the node.
    ///
    /// # Errors
    /// [`ClusterError`] when the folder is no node's, or cannot be used, or the address is taken.
    pub fn start(
        prepared: Prepared,
        groups: Vec<NodeGroup>,
        relaying: Relaying,
        network: &Handle,
    ) -> Result<Self, ClusterError> {
        let slots: Arc<[GroupId]> = prepared.slots().into();
        let dir = prepared.dir().to_owned();
        let dir = dir.as_path();
        let config = ClusterConfig::read(dir)?;
        let (node, _) = config.here(dir)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("tg-cluster")
            .enable_all()
            .build()
            .map_err(ClusterError::Threads)?;
        let links = {
            let _here = network.enter();
            Links::start(config.clone(), dir, prepared.speaks())?
        };
        let consensus = runtime.block_on(Consensus::start(&config, dir, Arc::clone(&links)))?;
        let moves_slots = prepared.speaks() == Speaks::Newest;
        let (lock, there, holds) = prepared.into_parts();
        let holds = Arc::new(holds);
        let meta = Arc::clone(&consensus.state().borrow());
        let held: Vec<bool> = there.iter().map(Option::is_some).collect();
        let here = held.iter().filter(|held| **held).count();
        if there.len() != meta.groups.len() || groups.len() != here {
            let why = format!("the cluster has {} groups, and {} are there", meta.groups.len(), there.len());
            return Err(ClusterError::Asked(why));
        }
        let Relaying { hub, streams, settings, ports } = relaying;
        if ports.len() + here != held.len() {
            return Err(ClusterError::Asked("not every group that is not held can be relayed".to_owned()));
        }
        let partial = config.copies > 0;
        // What it holds follows metadata from when that knows this start.
        let taking = Arc::new(Taking {
            node,
            dir: dir.to_owned(),
            cluster: config.cluster.clone(),
            durable: config.durable,
            settings: settings.0.clone(),
            log_bytes_max: LOG_BYTES_MAX / u64::from(config.groups),
            budget: Budget::new(),
            held: Arc::clone(&holds),
            links: Arc::clone(&links),
        });
        let mut comes = Vec::new();
        let shared =
            Arc::new(Shared { me: node, hub: hub.clone(), streams, settings, slots, held: held.clone() });
        if meta.moves.is_empty() && meta.slots != config.layout().slots() {
            return Err(ClusterError::Asked("the cluster has other slots in its groups".to_owned()));
        }
        // After the store was locked: of two processes in one folder the second gets no further.
        let incarnations = Incarnations::of(dir);
        let last = incarnations.last()?;
        incarnations.note(last + 1)?;
        let me = Member { node, incarnation: last + 1 };
        let (stop, ending, runs) = (watch::Sender::new(false), watch::Sender::new(None), mpsc::channel(1));
        let life = Life { stop: stop.subscribe(), ended: ending, lock: Arc::new(lock), runs: runs.0 };
        let (told, incarnation) = watch::channel(me.incarnation);
        let (mut drivers, mut inboxes, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lossy, mut marks, mut recovered) = (Vec::new(), Vec::new(), Vec::new());
        let mut engines: Vec<Option<IngestHandle>> = vec![None; held.len()];
        let (log_bytes_max, budget) = (taking.log_bytes_max, taking.budget.clone());
        let (mut of_groups, mut ports, mut relays) = (groups.into_iter(), ports.into_iter(), Vec::new());
        for (group, there) in (0..).zip(there) {
            let status =
                ReplicaStatus { node, group, incarnation: me.incarnation, ..ReplicaStatus::default() };
            let status = Arc::new(Mutex::new(status));
            let mut show = |ingest: Option<IngestHandle>, comes| {
                let hub = partial.then(|| hub.clone());
                shown.push(Shown { status: Arc::clone(&status), ingest, hub, comes });
            };
            let (inbox, messages) = mpsc::channel(INBOX_MAX);
            inboxes.push(inbox);
            let (proposals, refused) = {
                let _here = runtime.enter();
                consensus.proposals()
            };
            let Some(there) = there else {
                let coming = Arc::new(Mutex::new(ReplicaStatus::default()));
                show(None, Some(Arc::clone(&coming)));
                comes.push(TakeUp {
                    of: Arc::clone(&taking),
                    group,
                    proposals,
                    refused,
                    inbox: messages,
                    incarnation: incarnation.clone(),
                    status: coming,
                });
                lossy.push(false);
                relays.extend(ports.next().map(|port| {
                    let (shared, links) = (Arc::clone(&shared), Arc::clone(&links));
                    RelayDriver::new(shared, links, consensus.state(), port, Arc::clone(&status))
                }));
                continue;
            };
            let Some(NodeGroup { snapshots, port, ingest }) = of_groups.next() else { continue };
            show(Some(ingest.clone()), None);
            if let Some(engine) = engines.get_mut(usize::from(group)) {
                *engine = Some(ingest.clone());
            }
            let begins = there.begin(meta.groups[usize::from(group)].lineage, &snapshots)?;
            recovered.push(begins.recovered);
            // A log that may lack what was acknowledged is a beginning like any other, but not that of the member before.
            lossy.push(last > 0 && (!begins.recovered.whole || begins.lossy));
            let Begins { mut kept, snapshots: folder, lineage, base, log, mark, .. } = begins;
            marks.push(mark);
            kept.limit_segments(log_bytes_max);
            let ordered = base.offset;
            let options = ReplicaOptions { group, durable: config.durable, ..ReplicaOptions::default() };
            let replica = Replica::new(me, lineage, base, log, options);
            drivers.push(Driver {
                group,
                links: Arc::clone(&links),
                proposals,
                refused,
                inbox: messages,
                port,
                ingest: Some(ingest),
                replica,
                incarnation: incarnation.clone(),
                kept,
                snapshots: Snapshots::new(&folder, &config.cluster, budget.clone(), snapshots, log_bytes_max),
                held: Arc::clone(&holds),
                log_bytes_max,
                status,
                work: Work::from(ordered),
            });
        }
        let replicas = Replicas(shown.into());
        let service = Arc::new(Service {
            moves_slots,
            replicas: replicas.clone(),
            consensus: consensus.clone(),
            links: Arc::clone(&links),
            shared,
        });
        let (observer, registrar) = {
            let _here = runtime.enter();
            let (proposals, refused) = consensus.proposals();
            let observer = Observer::start(node, Arc::clone(&links), consensus.clone(), replicas);
            (observer, Registrar { me, proposals, refused, incarnations, lossy, marks, told })
        };
        let mover =
            Mover { node, consensus: consensus.clone(), groups: engines, replicas: service.replicas.clone() };
        let ended = life.ended.subscribe();
        {
            let _here = network.enter();
            links.serve(Arc::clone(&service), inboxes);
            tokio::spawn(mover.run(stop.subscribe()));
            tokio::spawn(members::follow(dir.to_owned(), Arc::clone(&links), consensus.clone()));
            life.spawn(|stop| registrar.run(stop));
            drivers.into_iter().for_each(|driver| life.spawn(|stop| driver.run(stop)));
            relays.into_iter().for_each(|relay| life.spawn(|stop| relay.run(stop)));
            comes.into_iter().for_each(|comes| life.spawn(|stop| comes.run(stop)));
        }
        Ok(Self {
            runtime: Some(runtime),
            links,
            consensus,
            service,
            observer,
            stop,
            ended,
            running: runs.1,
            recovered,
        })
    }

    /// What it found of its logs, by group.
    #[must_use]
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// Where it listens for other nodes.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.links.address()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.service.status()
    }

    /// Sees the cluster from here, for as long as the node runs.
    #[must_use]
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Why its replicas ended, once one of them has. Where that is because it has fetched a snapshot, others that fetch theirs have a while
    /// for that, as all of them start again.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let (why, at) = self.ended.borrow().clone()?;
        let fetches = || self.service.replicas.status().iter().any(|replica| replica.fetching.is_some());
        let waits = why.is_turn() && at.elapsed() < FETCH_TOGETHER && fetches();
        (!waits).then_some(why)
    }

    /// Lets other nodes in sync lead what this one does, where there are any: feeds go there, and nobody need find out first that this one
    /// is gone.
    async fn hand_over(&self) {
        let NodeStatus { meta, connected, replica, .. } = self.status();
        let handing = meta.numbered().filter_map(|(number, group)| {
            let me = group.leader.filter(|leader| leader.node == replica.node)?;
            // One after the other, so that they do not all go to the same.
            let may =
                |member: &Member| connected.contains(&member.node) && !meta.is_coming(number, member.node);
            let there = group.isr.iter().copied().filter(may);
            let heirs: Vec<Member> = there.collect();
            let may: Vec<Member> =
                heirs.iter().copied().filter(|member| !meta.drained.contains(&member.node)).collect();
            let among = if may.is_empty() { heirs } else { may };
            let target = *among.get(usize::from(number) % among.len().max(1))?;
            Some((number, me, Command::Transfer { group: number, epoch: group.epoch, target }))
        });
        let handed = handing.map(async |(number, me, command)| {
            if self.consensus.decide(command).await.is_ok() {
                let mut state = self.consensus.state();
                let leads = |meta: &Arc<Meta>| meta.group(number).and_then(|group| group.leader);
                let _ = state.wait_for(|meta| leads(meta) != Some(me)).await;
            }
        });
        futures_util::future::join_all(handed).await;
    }

    /// Ends it; what it leads, others lead first.
    pub fn finish(mut self) {
        if let Some(runtime) = &self.runtime {
            let _ = runtime.block_on(async { timeout(HAND_OVER, self.hand_over()).await });
        }
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(async {
                // What the node's folder is locked with goes with the last of them.
                let _ = timeout(LAST_TURN, self.running.recv()).await;
                self.consensus.stop().await;
                self.links.close().await;
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// What the tasks of a node have in common: they end together.
struct Life {
    stop: watch::Receiver<bool>,
    /// Why the first of them ended.
    ended: watch::Sender<Option<(Ended, Instant)>>,
    lock: Arc<File>,
    runs: mpsc::Sender<Never>,
}

impl Life {
    fn spawn<F>(&self, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let (ended, runs) = (self.ended.clone(), self.runs.clone());
        let lock = Arc::clone(&self.lock);
        let task = task(self.stop.clone());
        tokio::spawn(async move {
            let why = task.await;
            // Nobody else's until all of them have ended.
            drop(lock);
            ended.send_if_modified(|first| {
                // A fetched snapshot is a reason to begin again, which is none where another group cannot go on.
                let counts = match first {
                    None => true,
                    Some((first, _)) => first.is_turn() && !why.is_turn() && why != Ended::Asked,
                };
                if counts {
                    *first = Some((why, Instant::now()));
                }
                counts
            });
            drop(runs);
        });
    }
}

/// A replica, to be shown.
struct Shown {
    status: Arc<Mutex<ReplicaStatus>>,
    ingest: Option<IngestHandle>,
    /// Where nodes hold some groups only.
    hub: Option<HubHandle>,
    /// How a copy comes, where none is held.
    comes: Option<Arc<Mutex<ReplicaStatus>>>,
}

/// The replicas of a node, to be shown.
#[derive(Clone)]
pub(crate) struct Replicas(Arc<[Shown]>);

impl Replicas {
    /// How they stand, by group.
    pub(crate) fn status(&self) -> Vec<ReplicaStatus> {
        let of = |shown: &Shown| {
            let logged = shown.ingest.as_ref().map_or(0, IngestHandle::events);
            let status = shown.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let complete = shown.hub.as_ref().map(|hub| hub.complete(status.group));
            let slots =
                shown.ingest.as_ref().and_then(IngestHandle::slots).map(|slots| slots.borrow().clone());
            let slots = slots.unwrap_or_default();
            let (slot_waits, slot_refused) = (slots.waits_for, slots.refused.map(|(_, why)| why));
            let comes = |of: &Arc<Mutex<ReplicaStatus>>| {
                TakingUp::of(&of.lock().unwrap_or_else(PoisonError::into_inner))
            };
            let taking_up = shown.comes.as_ref().and_then(comes);
            ReplicaStatus { logged, complete, taking_up, slot_waits, slot_refused, ..status }
        };
        self.0.iter().map(of).collect()
    }
}

/// What a node answers.
struct Service {
    moves_slots: bool,
    replicas: Replicas,
    consensus: Consensus,
    links: Arc<Links>,
    shared: Arc<Shared>,
}

impl Service {
    fn status(&self) -> NodeStatus {
        let mut replicas = self.replicas.status();
        let rest = replicas.split_off(1.min(replicas.len()));
        NodeStatus {
            replica: replicas.pop().unwrap_or_default(),
            replicas: rest,
            meta: (**self.consensus.state().borrow()).clone(),
            consensus: self.consensus.status(),
            connected: self.links.connected(),
            moves_slots: self.moves_slots,
        }
    }

    async fn propose(&self, who: Who, question: &[u8]) -> Verdict {
        let command: Command =
            serde_json::from_slice(question).map_err(|error| Undecided::Failed(error.to_string()))?;
        let meta = Arc::clone(&self.consensus.state().borrow());
        let leads = |group| meta.group(group)?.leader.map(|leader| leader.node);
        if !may_propose(who, &command, &meta, leads) {
            return Err(Undecided::Failed(format!("{who:?} may not propose {command:?}")));
        }
        match who {
            Who::Node(_) => self.consensus.decide_here(command).await,
            Who::Operator | Who::Left(_) => self.consensus.decide(command).await,
        }
    }
}

/// A node speaks for itself, and for a group while it leads it; an operator decides what only people can.
fn may_propose(who: Who, command: &Command, meta: &Meta, leader: impl Fn(GroupId) -> Option<NodeId>) -> bool {
    match (who, command) {
        (Who::Node(node), Command::SlotLeft { slot, .. } | Command::SlotStays { slot, .. }) => {
            leader(meta.slots.group_of(*slot)) == Some(node)
        }
        (Who::Node(node), Command::SlotArrived { slot, .. }) => {
            meta.moves.get(slot).is_some_and(|of| leader(of.to) == Some(node))
        }
        (Who::Node(node), Command::Register { member, .. } | Command::Renew { member, .. }) => {
            member.node == node
        }
        (Who::Node(node), Command::TookUp { member, .. }) => member.node == node,
        (Who::Node(node), Command::AlterIsr { group, .. } | Command::Transfer { group, .. }) => {
            leader(*group) == Some(node)
        }
        (Who::Left(_), _) => false,
        (
            who,
            Command::Fence { .. }
            | Command::DeclareLoss { .. }
            | Command::Drain { .. }
            | Command::Join { .. }
            | Command::Leave { .. }
            | Command::MoveCopy { .. }
            | Command::StopCopy { .. }
            | Command::MoveSlot { .. },
        ) => who == Who::Operator,
        (Who::Operator, Command::Transfer { .. }) => true,
        (
            Who::Operator,
            Command::Register { .. }
            | Command::Renew { .. }
            | Command::AlterIsr { .. }
            | Command::TookUp { .. }
            | Command::SlotLeft { .. }
            | Command::SlotArrived { .. }
            | Command::SlotStays { .. },
        ) => false,
    }
}

impl Serve for Service {
    fn answer(
        self: Arc<Self>,
        who: Who,
        kind: Kind,
        question: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>> {
        Box::pin(async move {
            match (kind, who) {
                (Kind::Consensus, Who::Node(_)) => self.consensus.answer(&question).await,
                (Kind::Propose, _) => serde_json::to_vec(&self.propose(who, &question).await).ok(),
                (Kind::Status, _) => serde_json::to_vec(&self.status()).ok(),
                (Kind::Consensus, Who::Operator | Who::Left(_)) | (Kind::Replica | Kind::Relay, _) => None,
            }
        })
    }

    fn relay(
        self: Arc<Self>,
        node: NodeId,
        group: GroupId,
        send: SendStream,
        receive: RecvStream,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let of = self.replicas.status().into_iter().find(|of| of.group == group);
            let lineage = of.map_or(0, |of| of.lineage);
            self.shared.serve((node, group, lineage), send, receive).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_proposes_what_is_not_theirs() {
        let mut meta = Meta::laid_out(
            &tidegate_replica::Layout { groups: 2, ..tidegate_replica::Layout::of(&[1, 2]) },
            tidegate_replica::Rules::default(),
        );
        let epochs = (meta.groups[0].epoch, meta.groups[1].epoch);
        let wish = Command::MoveSlot { slot: 7, step: 0, to: 1, epoch: epochs.0, to_epoch: epochs.1 };
        meta.apply(&wish).unwrap();
        let left = Command::SlotLeft { slot: 7, step: 1, epoch: epochs.0, offset: 1 };
        let stays = Command::SlotStays { slot: 7, step: 1, epoch: epochs.0 };
        let arrived = Command::SlotArrived { slot: 7, step: 2, epoch: epochs.1 };
        let of_two = |group: GroupId| Some(if group == 0 { 1 } else { 2 });
        for (command, node) in [(&left, 1), (&stays, 1), (&arrived, 2)] {
            assert!(may_propose(Who::Node(node), command, &meta, of_two), "{command:?}");
            assert!(!may_propose(Who::Node(3 - node), command, &meta, of_two), "{command:?}");
            assert!(!may_propose(Who::Operator, command, &meta, of_two), "{command:?}");
        }
        assert!(may_propose(Who::Operator, &wish, &meta, of_two));
        assert!(!may_propose(Who::Node(1), &wish, &meta, of_two));
        let member = Member { node: 2, incarnation: 9 };
        let register = Command::Register { member, lossy: true, lost: Vec::new() };
        let alter = Command::AlterIsr { group: 0, epoch: 1, version: 1, isr: vec![member] };
        let fence = Command::Fence { member };
        let transfer = Command::Transfer { group: 0, epoch: 1, target: member };
        let loss = Command::DeclareLoss { group: 0, epoch: 1, target: member };
        assert!(may_propose(Who::Node(2), &register, &meta, |_| None));
        assert!(!may_propose(Who::Node(1), &register, &meta, |_| Some(1)), "in the name of another");
        assert!(may_propose(Who::Node(1), &alter, &meta, |_| Some(1)));
        assert!(!may_propose(Who::Node(2), &alter, &meta, |_| Some(1)), "not the leader");
        assert!(may_propose(Who::Node(1), &transfer, &meta, |_| Some(1)), "it hands over");
        assert!(!may_propose(Who::Node(2), &transfer, &meta, |_| Some(1)), "not the leader");
        let second = Command::Transfer { group: 1, epoch: 1, target: member };
        let first = |group: GroupId| Some(if group == 0 { 1 } else { 2 });
        assert!(!may_propose(Who::Node(1), &second, &meta, first), "it leads another group");
        let drain = Command::Drain { node: 2, drained: true };
        let place = tidegate_replica::Place {
            peers: ([10, 0, 0, 4], 7_500).into(),
            clients: ([10, 0, 0, 4], 7_443).into(),
            zone: None,
        };
        let join = Command::Join { node: 4, place };
        let leave = Command::Leave { node: 2 };
        let copy = Command::MoveCopy { group: 0, version: 1, to: 2, from: None };
        let stop = Command::StopCopy { group: 0, version: 1 };
        let there = Command::TookUp { group: 0, member };
        assert!(may_propose(Who::Node(2), &there, &meta, |_| None));
        assert!(!may_propose(Who::Node(1), &there, &meta, |_| Some(1)), "in the name of another");
        for command in [&fence, &loss, &drain, &join, &leave, &copy, &stop] {
            assert!(!may_propose(Who::Node(2), command, &meta, |_| Some(2)), "{command:?}");
        }
        for command in [&register, &alter, &transfer, &leave, &there] {
            assert!(!may_propose(Who::Left(2), command, &meta, |_| Some(2)), "{command:?}");
        }
        for command in [&fence, &transfer, &loss, &drain, &join, &leave, &copy, &stop] {
            assert!(may_propose(Who::Operator, command, &meta, |_| None), "{command:?}");
        }
        for command in [&register, &alter, &there] {
            assert!(!may_propose(Who::Operator, command, &meta, |_| None), "{command:?}");
        }
    }
}
