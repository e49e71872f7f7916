//! A node: links, consensus and driver on threads of their own, beside an engine.

use crate::config::{ClusterConfig, ClusterError, Incarnations, Who};
use crate::driver::{Driver, LOG_BYTES_MAX, Work};
use crate::links::{Kind, Links, Serve};
use crate::metadata::{Consensus, ConsensusStatus, Undecided, Verdict};
use crate::prepared::Prepared;
use crate::snapshots::Snapshots;
use crate::view::{FollowerStatus, Observer};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_journal::Point;
use tidegate_live::replication::ReplicationDriver;
use tidegate_live::{IngestHandle, SnapshotOptions};
use tidegate_replica::{Command, Member, Meta, NodeId, Replica, ReplicaOptions};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Messages of other replicas that wait for the driver; with more, links are not read.
const INBOX_MAX: usize = 1_024;
/// How long handing over may take at the end.
const HAND_OVER: Duration = Duration::from_secs(1);
/// A node's write to its disk must not keep it from answering others, so there are two.
const THREADS: usize = 2;

/// How a replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: u64,
    /// `leader`, `follower` or `fenced`.
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
    /// Events that its engine has logged.
    pub logged: u64,
    /// Digest of all inputs up to `commit`.
    pub digest: String,
    /// Whether it counts for what is committed.
    pub in_sync: bool,
    /// How far the others are, of a leader. A node of an earlier version does not say.
    #[serde(default)]
    pub followers: Vec<FollowerStatus>,
}

impl ReplicaStatus {
    /// What a log may grow to.
    pub const LOG_BYTES_MAX: u64 = LOG_BYTES_MAX;
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its replica.
    pub replica: ReplicaStatus,
    /// Metadata as it knows it.
    pub meta: Meta,
    /// Consensus on metadata.
    pub consensus: ConsensusStatus,
    /// Nodes it is connected to.
    pub connected: Vec<NodeId>,
}

/// Why a node's replica ended.
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
    /// The leader computes something else: its snapshot is of no use here.
    Settings(String),
    /// Its snapshots cannot be written.
    Snapshots(String),
    /// Its log cannot be written.
    Log(String),
    /// Its incarnation cannot be noted.
    Incarnation(String),
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
            Self::Settings(settings) => write!(
                f,
                "the leader's snapshot was taken with `{settings}`: give all nodes the same streams and settings"
            ),
            Self::Snapshots(why) => write!(f, "its snapshots cannot be used: {why}"),
            Self::Log(why) => write!(f, "its log cannot be written: {why}"),
            Self::Incarnation(why) => f.write_str(why),
            Self::Metadata => f.write_str("consensus on metadata has ended"),
        }
    }
}

/// A running node.
pub struct Node {
    runtime: Option<Runtime>,
    links: Arc<Links>,
    consensus: Consensus,
    service: Arc<Service>,
    observer: Observer,
    stop: Option<oneshot::Sender<()>>,
    ended: watch::Receiver<Option<Ended>>,
    recovered: Recovered,
}

/// What a node found of its log when it started.
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

/// Snapshots of a node, for whoever starts it.
#[derive(Clone, Copy, Debug)]
pub struct Snapshotting {
    /// When they are taken.
    pub when: SnapshotOptions,
    /// What the engine depends on beside the log ([`tidegate_live::settings_fingerprint`]).
    pub settings: [u8; 16],
    /// The point of the one that the engine was started with.
    pub point: Option<Point>,
}

impl Node {
    /// Starts the node whose folder was prepared, beside the engine of `ingest`, which was started with the other end of `port` and with
    /// the snapshots in [`Prepared::snapshots`].
    ///
    /// # Errors
    /// [`ClusterError`] when the folder is no node's, or cannot be used, or the address is taken.
    pub fn start(
        prepared: Prepared,
        snapshots: Snapshotting,
        port: ReplicationDriver,
        ingest: IngestHandle,
    ) -> Result<Self, ClusterError> {
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
        let (links, consensus) = runtime.block_on(async {
            let links = Links::start(config.clone(), dir)?;
            let consensus = Consensus::start(&config, dir, Arc::clone(&links)).await?;
            Ok::<_, ClusterError>((links, consensus))
        })?;
        // After the store was locked: of two processes in one folder the second gets no further.
        let incarnations = Incarnations::of(dir);
        let last = incarnations.last()?;
        incarnations.note(last + 1)?;
        let me = Member { node, incarnation: last + 1 };
        let lineage = consensus.state().borrow().group.lineage;
        let begins = prepared.begin(lineage, &snapshots)?;
        let recovered = begins.recovered;
        // A log that may lack what was acknowledged is a beginning like any other, but not that of the member before.
        let lossy = last > 0 && (!recovered.whole || begins.lossy);
        let ordered = begins.base.offset;
        let replica = Replica::new(me, begins.lineage, begins.base, begins.log, ReplicaOptions::default());
        let snapshots = Snapshots::new(dir, &config.cluster, snapshots);
        let status = Arc::new(Mutex::new(ReplicaStatus { node, ..ReplicaStatus::default() }));
        let service = Arc::new(Service {
            status: Arc::clone(&status),
            consensus: consensus.clone(),
            links: Arc::clone(&links),
            ingest: ingest.clone(),
        });
        let observer = {
            let _here = runtime.enter();
            let (links, consensus) = (Arc::clone(&links), consensus.clone());
            let logged = {
                let ingest = ingest.clone();
                Arc::new(move || ingest.stats().logged)
            };
            Observer::start(config.clone(), node, links, consensus, Arc::clone(&status), logged)
        };
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = watch::channel(None);
        runtime.block_on(async {
            let (inbox, messages) = mpsc::channel(INBOX_MAX);
            links.serve(Arc::clone(&service), inbox);
            let (proposals, refused) = consensus.proposals();
            let driver = Driver {
                config,
                links: Arc::clone(&links),
                proposals,
                refused,
                inbox: messages,
                port,
                ingest,
                replica,
                incarnations,
                kept: begins.kept,
                snapshots,
                lossy,
                status,
                work: Work::from(ordered),
            };
            let lock = begins.lock;
            tokio::spawn(async move {
                // Nobody else's until the driver has ended.
                let _lock = lock;
                let why = driver.run(stopped).await;
                ending.send_replace(Some(why));
            });
        });
        Ok(Self {
            runtime: Some(runtime),
            links,
            consensus,
            service,
            observer,
            stop: Some(stop),
            ended,
            recovered,
        })
    }

    /// What it found of its log.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        self.recovered
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

    /// Why its replica ended, once it has.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Lets another node in sync lead, if this one does and there is one: feeds go there, and nobody need find out first that this one is
    /// gone.
    async fn hand_over(&self) {
        let NodeStatus { meta, connected, replica, .. } = self.status();
        let leads = meta.group.leader.filter(|leader| leader.node == replica.node);
        let heirs = meta.group.isr.iter().copied().filter(|member| connected.contains(&member.node));
        let heir = heirs.clone().find(|member| !meta.drained.contains(&member.node)).or(heirs.clone().next());
        if let (Some(me), Some(target)) = (leads, heir) {
            let command = Command::Transfer { epoch: meta.group.epoch, target };
            if self.consensus.decide(command).await.is_ok() {
                let mut state = self.consensus.state();
                let _ = state.wait_for(|meta| meta.group.leader != Some(me)).await;
            }
        }
    }

    /// Ends it; if it leads, another node leads first.
    pub fn finish(mut self) {
        if let Some(runtime) = &self.runtime {
            let _ = runtime.block_on(async { timeout(HAND_OVER, self.hand_over()).await });
        }
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(async {
                self.consensus.stop().await;
                self.links.close().await;
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// What a node answers.
struct Service {
    status: Arc<Mutex<ReplicaStatus>>,
    consensus: Consensus,
    links: Arc<Links>,
    ingest: IngestHandle,
}

impl Service {
    fn status(&self) -> NodeStatus {
        let logged = self.ingest.stats().logged;
        let replica = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        NodeStatus {
            replica: ReplicaStatus { logged, ..replica },
            meta: (**self.consensus.state().borrow()).clone(),
            consensus: self.consensus.status(),
            connected: self.links.connected(),
        }
    }

    async fn propose(&self, who: Who, question: &[u8]) -> Verdict {
        let command: Command =
            serde_json::from_slice(question).map_err(|error| Undecided::Failed(error.to_string()))?;
        let leader = self.consensus.state().borrow().group.leader.map(|leader| leader.node);
        if !may_propose(who, &command, leader) {
            return Err(Undecided::Failed(format!("{who:?} may not propose {command:?}")));
        }
        match who {
            Who::Node(_) => self.consensus.decide_here(command).await,
            Who::Operator => self.consensus.decide(command).await,
        }
    }
}

/// A node speaks for itself, and for the group while it leads it; an operator decides what only people can.
fn may_propose(who: Who, command: &Command, leader: Option<NodeId>) -> bool {
    match (who, command) {
        (Who::Node(node), Command::Register { member, .. }) => member.node == node,
        (Who::Node(node), Command::AlterIsr { .. } | Command::Transfer { .. }) => leader == Some(node),
        (Who::Node(_), Command::Fence { .. } | Command::DeclareLoss { .. } | Command::Drain { .. }) => false,
        (
            Who::Operator,
            Command::Fence { .. }
            | Command::Transfer { .. }
            | Command::DeclareLoss { .. }
            | Command::Drain { .. },
        ) => true,
        (Who::Operator, Command::Register { .. } | Command::AlterIsr { .. }) => false,
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
                (Kind::Consensus, Who::Operator) | (Kind::Replica, _) => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_proposes_what_is_not_theirs() {
        let member = Member { node: 2, incarnation: 9 };
        let register = Command::Register { member, lossy: true };
        let alter = Command::AlterIsr { epoch: 1, version: 1, isr: vec![member] };
        let fence = Command::Fence { member };
        let transfer = Command::Transfer { epoch: 1, target: member };
        let loss = Command::DeclareLoss { epoch: 1, target: member };
        assert!(may_propose(Who::Node(2), &register, None));
        assert!(!may_propose(Who::Node(1), &register, Some(1)), "in the name of another");
        assert!(may_propose(Who::Node(1), &alter, Some(1)));
        assert!(!may_propose(Who::Node(2), &alter, Some(1)), "not the leader");
        assert!(may_propose(Who::Node(1), &transfer, Some(1)), "it hands over");
        assert!(!may_propose(Who::Node(2), &transfer, Some(1)), "not the leader");
        let drain = Command::Drain { node: 2, drained: true };
        for command in [&fence, &loss, &drain] {
            assert!(!may_propose(Who::Node(2), command, Some(2)), "{command:?}");
        }
        for command in [&fence, &transfer, &loss, &drain] {
            assert!(may_propose(Who::Operator, command, None), "{command:?}");
        }
        for command in [&register, &alter] {
            assert!(!may_propose(Who::Operator, command, None), "{command:?}");
        }
    }
}
