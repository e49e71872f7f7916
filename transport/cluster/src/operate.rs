//! What an operator asks of a cluster from outside.

use crate::config::{ClusterConfig, ClusterError};
use crate::links::{self, Kind};
use crate::metadata::Verdict;
use crate::node::NodeStatus;
use quinn::{Endpoint, VarInt};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tidegate_replica::{Command, NodeId};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a node may take to be reached, and to answer.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);
/// Between two attempts to have something decided.
const AGAIN: Duration = Duration::from_millis(200);

/// What is known of a node: how it stands, or why it does not say.
pub type Found = Result<NodeStatus, String>;

/// An operator of a cluster.
#[derive(Clone)]
pub struct Operator {
    config: ClusterConfig,
    client: quinn::ClientConfig,
    endpoint: Endpoint,
}

impl Operator {
    /// Whoever owns this folder, on the current tokio runtime.
    ///
    /// # Errors
    /// [`ClusterError`] when it is no cluster's, or its certificates cannot be used.
    pub fn of(dir: &Path) -> Result<Self, ClusterError> {
        let config = ClusterConfig::read(dir)?;
        let client = links::client(&config, dir, links::Speaks::Newest)?;
        let ipv4 = config.nodes.values().next().is_some_and(|place| place.peers.is_ipv4());
        let any: SocketAddr =
            if ipv4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let endpoint = tidegate_quic::socket::endpoint(any, None, tidegate_quic::Limits::default().mtu)
            .map_err(|source| ClusterError::Bind { address: any, source })?;
        Ok(Self { config, client, endpoint })
    }

    /// The cluster.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// How every node stands, those included that came after the folder was written.
    pub async fn found(&mut self) -> BTreeMap<NodeId, Found> {
        loop {
            let found = self.status().await;
            let all = found.values().filter_map(|found| found.as_ref().ok());
            let newest = all.max_by_key(|status| status.meta.revision);
            match newest.and_then(|status| self.config.following(&status.meta.book)) {
                // Each turn knows of more who came or went, and nobody comes back.
                Some(config) => self.config = config,
                None => return found,
            }
        }
    }

    async fn ask(&self, node: NodeId, kind: Kind, question: &[u8]) -> Result<Vec<u8>, String> {
        let place = self.config.nodes.get(&node).ok_or_else(|| format!("there is no node {node}"))?;
        let link = links::connect(&self.endpoint, &self.client, &self.config, node, place.peers);
        let link = timeout(CONNECT, link).await.map_err(|_| "no answer".to_owned())??;
        let answer = timeout(ANSWER, links::ask(&link, kind, question)).await;
        let why = link.close_reason().map(|reason| reason.to_string());
        link.close(VarInt::from_u32(0), b"");
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(why.unwrap_or_else(|| "it does not answer this".to_owned())),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// How every node stands.
    pub async fn status(&self) -> BTreeMap<NodeId, Found> {
        let mut asked = JoinSet::new();
        for &node in self.config.nodes.keys() {
            let operator = self.clone();
            asked.spawn(async move {
                let answer = operator.ask(node, Kind::Status, b"").await;
                let status = answer.and_then(|answer| {
                    serde_json::from_slice(&answer).map_err(|error| format!("its answer is none: {error}"))
                });
                (node, status)
            });
        }
        asked.join_all().await.into_iter().collect()
    }

    /// Has a command decided as soon as somebody can, such as while another node begins to lead.
    ///
    /// # Errors
    /// As [`Operator::decide`]; [`ClusterError::Silent`] when nobody could in all that time.
    pub async fn decide_within(&self, command: &Command, patience: Duration) -> Result<(), ClusterError> {
        let start = Instant::now();
        loop {
            match self.decide(command).await {
                Err(ClusterError::Silent(_)) if start.elapsed() < patience => sleep(AGAIN).await,
                decided => return decided,
            }
        }
    }

    /// Has a command decided by whichever node can.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] when it was refused for good, [`ClusterError::Silent`] when nobody decides.
    pub async fn decide(&self, command: &Command) -> Result<(), ClusterError> {
        let question =
            serde_json::to_vec(command).map_err(|error| ClusterError::Refused(error.to_string()))?;
        let mut last = String::new();
        for &node in self.config.nodes.keys() {
            let verdict = self.ask(node, Kind::Propose, &question).await.and_then(|answer| {
                serde_json::from_slice::<Verdict>(&answer).map_err(|error| error.to_string())
            });
            match verdict {
                Ok(Ok(decision)) => {
                    return decision.rejected.map_or(Ok(()), |why| Err(ClusterError::Refused(why)));
                }
                Ok(Err(undecided)) => last = format!("node {node}: {undecided:?}"),
                Err(why) => last = format!("node {node}: {why}"),
            }
        }
        Err(ClusterError::Silent(last))
    }
}
