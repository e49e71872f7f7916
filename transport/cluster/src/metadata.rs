//! Metadata by consensus: an `openraft` group over the links, behind [`MetaStore`].
#![allow(clippy::result_large_err, reason = "the errors are the library's")]

use crate::config::{ClusterConfig, ClusterError};
use crate::links::{CallError, Kind, Links};
use crate::store::{Decision, Metadata, Store, Types, Watched};
use openraft::error::{
    ClientWriteError, InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, ChangeMembers, Raft, RaftNetwork, RaftNetworkFactory, SnapshotPolicy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_replica::{Command, Member, Meta, MetaStore, NodeId, Rules};
use tokio::sync::{mpsc, watch};

/// Times of consensus in milliseconds, on a disk that is quick: what elections wait for, at least and at most, and between two heartbeats.
const ELECTION_MS: (u64, u64) = (150, 300);
const HEARTBEAT_MS: u64 = 50;
/// In longest waits of an election: how long who steps aside is silent at most. The lease is one, the wait behind it another, and two may collide.
const PATIENCE: u64 = 5;
/// A disk that syncs in so many milliseconds is quick. A vote is two syncs, one behind the other, within the shortest wait.
const QUICK_SYNC_MS: u64 = 25;
/// How much longer elections wait at most where syncs are slow.
const SLOWER_MAX: u64 = 20;
/// Syncs tried at a start, of which the median counts.
const SYNCS_TRIED: usize = 5;
/// A node that was not heard of for so long is asked, and given up if it does not answer.
const SILENCE: Duration = Duration::from_millis(300);
/// How long it then has to answer when it is asked.
const LAST_CALL: Duration = Duration::from_millis(150);
/// How long whoever begins to lead consensus listens before it gives somebody up.
const LISTEN: Duration = Duration::from_millis(50);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How much of a silence may be put down to this node's own want of time.
const OWN_FAULT: Duration = Duration::from_millis(700);
/// How long one command may take.
const DECIDE: Duration = Duration::from_secs(2);
/// How often it is looked whether those who decide are those who belong to the cluster.
const TEND: Duration = Duration::from_millis(100);
/// What a newcomer may lack of the log before it has a say, in commands.
const BEHIND_MAX: u64 = 16;
/// Commands of this node that wait.
const PROPOSALS_MAX: usize = 64;

pub(crate) type Group = Raft<Types>;

#[derive(Serialize, Deserialize)]
enum Question {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Types>),
}

struct Network(Arc<Links>);

struct Line {
    links: Arc<Links>,
    node: NodeId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Line;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Line {
        // Nodes are numbered with 16 bits where they are named; another number is nobody's.
        Line { links: Arc::clone(&self.0), node: NodeId::try_from(target).unwrap_or(0) }
    }
}

impl Line {
    async fn ask<T, E>(
        &self,
        question: &Question,
        option: &RPCOption,
    ) -> Result<T, RPCError<u64, BasicNode, RaftError<u64, E>>>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let bytes =
            serde_json::to_vec(question).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let answer = self.links.call(self.node, Kind::Consensus, &bytes, option.hard_ttl()).await;
        let answer = answer.map_err(|error| match error {
            CallError::Apart(_) | CallError::Broken(_) => RPCError::Unreachable(Unreachable::new(&error)),
            other => RPCError::Network(NetworkError::new(&other)),
        })?;
        let answer: Result<T, RaftError<u64, E>> = serde_json::from_slice(&answer).map_err(|source| {
            RPCError::Network(NetworkError::new(&CallError::Answer { node: self.node, source }))
        })?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.node.into(), error)))
    }
}

impl RaftNetwork<Types> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        self.ask(&Question::Append(rpc), &option).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>>
    {
        self.ask(&Question::Snapshot(rpc), &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        self.ask(&Question::Vote(rpc), &option).await
    }

    fn backoff(&self) -> openraft::network::Backoff {
        openraft::network::Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}

/// When this process did not get the time it asked for: on a machine with too much to do, all nodes seem silent.
#[derive(Default)]
struct LostTime(VecDeque<(Instant, Duration)>);

impl LostTime {
    /// It was to sleep for a look's time, and did from `from` to `to`.
    fn slept(&mut self, from: Instant, to: Instant) {
        let late = to.duration_since(from).saturating_sub(LOOK);
        // A timer is never to the point.
        if late > LOOK {
            self.0.push_back((to, late));
        }
        while self.0.front().is_some_and(|(at, _)| to.duration_since(*at) > 4 * OWN_FAULT) {
            self.0.pop_front();
        }
    }

    /// How much since then, as far as it is an excuse.
    fn since(&self, then: Instant) -> Duration {
        let since = self.0.iter().filter(|(at, _)| *at > then);
        since.map(|(at, late)| (*late).min(at.duration_since(then))).sum::<Duration>().min(OWN_FAULT)
    }
}

/// Why a command came to nothing; it may be proposed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Undecided {
    /// Consensus is led elsewhere, or not at all for now.
    Leader(Option<u64>),
    /// Something failed on the way.
    Failed(String),
}

pub(crate) type Verdict = Result<Decision, Undecided>;

/// Consensus as it is used here.
#[derive(Clone)]
pub(crate) struct Consensus {
    pub(crate) me: NodeId,
    pub(crate) group: Group,
    links: Arc<Links>,
    pub(crate) watched: watch::Receiver<Arc<Meta>>,
    parties: watch::Receiver<BTreeSet<u64>>,
}

/// How consensus stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusStatus {
    /// Who leads it.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// The last command that was applied here.
    pub applied: Option<u64>,
    /// Whose votes count. A node of an earlier version does not say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub voters: BTreeSet<u64>,
}

/// How much longer elections must wait here than on a quick disk: who waits less than votes take to be synced elects nobody, for as long
/// as the disk is slow. Nodes are taken to have disks of a kind.
fn slower(dir: &Path) -> std::io::Result<u64> {
    let path = dir.join("sync.probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS_TRIED {
        let begun = Instant::now();
        file.write_all(&[0; 4_096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(factor(times[SYNCS_TRIED / 2]))
}

fn factor(sync: Duration) -> u64 {
    let millis = u64::try_from(sync.as_millis()).unwrap_or(u64::MAX);
    (millis / QUICK_SYNC_MS).clamp(1, SLOWER_MAX)
}

impl Consensus {
    pub(crate) async fn start(
        config: &ClusterConfig,
        dir: &Path,
        links: Arc<Links>,
    ) -> Result<Self, ClusterError> {
        let (me, _) = config.here(dir)?;
        let failed = |error: &dyn std::fmt::Display| ClusterError::Consensus(error.to_string());
        let founders = config.founders();
        let store = Store::open(&dir.join("meta.redb"))?;
        let begins = Meta::laid_out(&config.layout(), Rules::default()).founded(&founders);
        let (metadata, Watched { state: watched, parties }) =
            Metadata::open(store.clone(), begins).map_err(|error| failed(&error))?;
        let slower = slower(dir).map_err(|error| failed(&error))?;
        let settings = openraft::Config {
            cluster_name: config.cluster.clone(),
            election_timeout_min: ELECTION_MS.0 * slower,
            election_timeout_max: ELECTION_MS.1 * slower,
            // Twice is still less than a node with a quick disk waits.
            heartbeat_interval: HEARTBEAT_MS * slower.min(2),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(1_000),
            max_in_snapshot_log_to_keep: 100,
            ..openraft::Config::default()
        };
        let settings = Arc::new(settings.validate().map_err(|error| failed(&error))?);
        let group = Raft::new(me.into(), settings, Network(Arc::clone(&links)), store, metadata);
        let group = group.await.map_err(|error| failed(&error))?;
        // Who came later is let in by the others.
        let begins = founders.contains_key(&me);
        if begins && !group.is_initialized().await.map_err(|error| failed(&error))? {
            // All begin with the same, so it does not matter who is first.
            let members: BTreeMap<u64, BasicNode> =
                founders.iter().map(|(&node, place)| (node.into(), BasicNode::new(place.peers))).collect();
            let begun = group.initialize(members).await;
            if let Err(error) = begun
                && !matches!(error, RaftError::APIError(openraft::error::InitializeError::NotAllowed(_)))
            {
                return Err(failed(&error));
            }
        }
        let consensus = Self { me, group, links, watched, parties };
        tokio::spawn(consensus.clone().watch_over());
        tokio::spawn(consensus.clone().tend());
        tokio::spawn(consensus.clone().step_aside(Duration::from_millis(PATIENCE * ELECTION_MS.1 * slower)));
        Ok(consensus)
    }

    /// The newest metadata known here.
    pub(crate) fn state(&self) -> watch::Receiver<Arc<Meta>> {
        self.watched.clone()
    }

    pub(crate) fn status(&self) -> ConsensusStatus {
        let metrics = self.group.metrics();
        let metrics = metrics.borrow();
        ConsensusStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            applied: metrics.last_applied.map(|at| at.index),
            voters: metrics.membership_config.voter_ids().collect(),
        }
    }

    pub(crate) async fn stop(&self) {
        let _ = self.group.shutdown().await;
    }

    /// Answers another node's question.
    pub(crate) async fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        match serde_json::from_slice(question).ok()? {
            Question::Append(rpc) => serde_json::to_vec(&self.group.append_entries(rpc).await).ok(),
            Question::Vote(rpc) => serde_json::to_vec(&self.group.vote(rpc).await).ok(),
            Question::Snapshot(rpc) => serde_json::to_vec(&self.group.install_snapshot(rpc).await).ok(),
        }
    }

    /// Decides a command where consensus is led from here.
    pub(crate) async fn decide_here(&self, command: Command) -> Verdict {
        match self.group.client_write(command).await {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(Undecided::Leader(to.leader_id))
            }
            Err(error) => Err(Undecided::Failed(error.to_string())),
        }
    }

    /// Decides a command, here or where consensus is led.
    pub(crate) async fn decide(&self, command: Command) -> Verdict {
        let leader = match self.status().leader {
            Some(leader) if leader == u64::from(self.me) => return self.decide_here(command).await,
            Some(leader) => NodeId::try_from(leader).unwrap_or(0),
            None => return Err(Undecided::Leader(None)),
        };
        let failed = |error: &dyn std::fmt::Display| Undecided::Failed(error.to_string());
        let bytes = serde_json::to_vec(&command).map_err(|error| failed(&error))?;
        let answer = self.links.call(leader, Kind::Propose, &bytes, DECIDE).await;
        serde_json::from_slice(&answer.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?
    }

    /// Gives up nodes that have been silent for too long, while consensus is led from here.
    async fn watch_over(self) {
        let mut leads_since: Option<Instant> = None;
        // Each node's incarnation, and since when that is known: who has just come back was silent before, and is not now.
        let mut seen: BTreeMap<NodeId, (u64, Instant)> = BTreeMap::new();
        let mut lost = LostTime::default();
        loop {
            let slept = Instant::now();
            tokio::time::sleep(LOOK).await;
            lost.slept(slept, Instant::now());
            if self.status().leader != Some(self.me.into()) {
                leads_since = None;
                continue;
            }
            let since = *leads_since.get_or_insert_with(Instant::now);
            let meta = Arc::clone(&self.watched.borrow());
            for (&node, state) in meta.nodes.iter().filter(|(node, _)| **node != self.me) {
                let heard = self.links.heard(node).unwrap_or(since);
                let (incarnation, since_then) = seen.entry(node).or_insert((state.incarnation, heard));
                if *incarnation != state.incarnation {
                    (*incarnation, *since_then) = (state.incarnation, Instant::now());
                }
                let heard = heard.max(*since_then);
                // While this node has no time, it hears nobody.
                let silence = heard.elapsed().saturating_sub(lost.since(heard));
                if !state.fenced && silence >= SILENCE && since.elapsed() >= LISTEN {
                    // It may have had nothing to say, or this node no time to listen.
                    let answer = self.links.call(node, Kind::Status, b"", LAST_CALL).await;
                    if !matches!(answer, Err(CallError::Late(_) | CallError::Broken(_) | CallError::Apart(_)))
                    {
                        continue;
                    }
                    let member = Member { node, incarnation: state.incarnation };
                    let _ = self.decide_here(Command::Fence { member }).await;
                }
            }
        }
    }

    /// Whether a node was heard of just now.
    pub(crate) fn is_heard(&self, node: NodeId) -> bool {
        self.links.heard(node).is_some_and(|at| at.elapsed() < SILENCE)
    }

    /// Who has a part in consensus.
    pub(crate) fn parties(&self) -> watch::Receiver<BTreeSet<u64>> {
        self.parties.clone()
    }

    /// Has those decide who belong to the cluster, while consensus is led from here: one change after the other, each of which the library
    /// has decided by the old majority and by the new one.
    async fn tend(self) {
        loop {
            tokio::time::sleep(TEND).await;
            if self.status().leader != Some(self.me.into()) {
                continue;
            }
            if let Some(change) = self.due() {
                // What fails, or is broken off between its two steps, is found again.
                let _ = tokio::time::timeout(DECIDE, self.group.change_membership(change, false)).await;
            }
        }
    }

    /// The next change of who decides.
    fn due(&self) -> Option<ChangeMembers<u64, BasicNode>> {
        let metrics = self.group.metrics().borrow().clone();
        let members = metrics.membership_config.membership();
        if members.get_joint_config().len() > 1 {
            // Somebody began a change and could not end it.
            return Some(ChangeMembers::AddVoterIds(BTreeSet::new()));
        }
        let meta = Arc::clone(&self.watched.borrow());
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        let known: BTreeSet<u64> = members.nodes().map(|(&node, _)| node).collect();
        let one = |node: u64| BTreeSet::from([node]);
        for (&node, place) in &meta.book.places {
            let id = u64::from(node);
            if !known.contains(&id) {
                let place = BasicNode::new(place.peers);
                return Some(ChangeMembers::AddNodes(BTreeMap::from([(id, place)])));
            }
            // A vote counts from when its owner is there and knows what was decided: one that never comes holds nobody up.
            let matched = metrics.replication.as_ref().and_then(|known| known.get(&id).copied().flatten());
            let last = metrics.last_log_index.unwrap_or(0);
            let caught_up = matched.is_some_and(|matched| matched.index + BEHIND_MAX >= last);
            if !voters.contains(&id) && caught_up && self.is_heard(node) {
                return Some(ChangeMembers::AddVoterIds(one(id)));
            }
        }
        let gone = known
            .iter()
            .find(|node| NodeId::try_from(**node).is_ok_and(|node| meta.book.left.contains(&node)))?;
        Some(if voters.contains(gone) {
            ChangeMembers::RemoveVoters(one(*gone))
        } else {
            ChangeMembers::RemoveNodes(one(*gone))
        })
    }

    /// A way to propose in passing; what is refused for good comes out of the receiver.
    pub(crate) fn proposals(&self) -> (Proposals, mpsc::Receiver<Refused>) {
        let (commands, mut proposed) = mpsc::channel::<Command>(PROPOSALS_MAX);
        let (refuse, refused) = mpsc::channel(PROPOSALS_MAX);
        let consensus = self.clone();
        tokio::spawn(async move {
            while let Some(command) = proposed.recv().await {
                let verdict = tokio::time::timeout(DECIDE, consensus.decide(command.clone())).await;
                if let Ok(Ok(Decision { rejected: Some(_), overtaken })) = verdict
                    && refuse.send(Refused { command, overtaken }).await.is_err()
                {
                    return;
                }
            }
        });
        let state = Arc::clone(&self.watched.borrow());
        (Proposals { commands, watched: self.watched.clone(), state }, refused)
    }
}

/// A proposal that came to nothing, for good.
pub(crate) struct Refused {
    pub(crate) command: Command,
    pub(crate) overtaken: bool,
}

/// Metadata as a replica's driver uses it.
pub(crate) struct Proposals {
    commands: mpsc::Sender<Command>,
    pub(crate) watched: watch::Receiver<Arc<Meta>>,
    state: Arc<Meta>,
}

#[cfg(test)]
impl Proposals {
    /// Of metadata that nobody decides about; it goes with what is handed out beside.
    pub(crate) fn fixed(state: Meta) -> (watch::Sender<Arc<Meta>>, Self) {
        let state = Arc::new(state);
        let (told, watched) = watch::channel(Arc::clone(&state));
        (told, Self { commands: mpsc::channel(1).0, watched, state })
    }
}

impl Proposals {
    /// Takes the newest state.
    pub(crate) fn refresh(&mut self) {
        self.state = Arc::clone(&self.watched.borrow_and_update());
    }
}

impl MetaStore for Proposals {
    /// When too many wait, it is lost; whoever proposes does so again.
    fn propose(&mut self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    fn state(&self) -> &Meta {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn elections_wait_for_the_disk() {
        let of = |millis| super::factor(std::time::Duration::from_millis(millis));
        assert_eq!([0, 3, 24, 49, 50, 200, 10_000].map(of), [1, 1, 1, 1, 2, 8, 20]);
        let folder = tempfile::tempdir().unwrap();
        assert!(super::slower(folder.path()).unwrap() >= 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    use super::*;

    #[test]
    fn time_that_a_node_did_not_have_is_no_silence_of_others() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut lost = LostTime::default();
        lost.slept(at(0), at(30));
        assert_eq!(lost.since(at(0)), Duration::ZERO, "as timers are");
        lost.slept(at(30), at(255));
        assert_eq!(lost.since(at(0)), Duration::from_millis(200));
        assert_eq!(
            lost.since(at(155)),
            Duration::from_millis(100),
            "what was before somebody was heard does not count"
        );
        assert_eq!(lost.since(at(255)), Duration::ZERO);
        lost.slept(at(255), at(1_280));
        assert_eq!(lost.since(at(0)), OWN_FAULT, "who is dead is given up all the same");
        lost.slept(at(9_000), at(9_025));
        assert!(lost.0.is_empty());
    }
}
