//! Copies that come to this node and go from it: which groups it holds, as it noted in its folder, and how it takes one up.
//!
//! A group that comes is relayed on while a replica beside catches up, by snapshot and log as any follower, without an engine: its readers
//! wait for nothing. Once that has what it takes, the node begins again in the same process, with an engine for the group; then it says so
//! to metadata, and only then the copy that this one replaces goes. The node whose copy goes begins again likewise, and relays.
//!
//! **`copies.json`** names every group of which there may be a copy here that counts. It is written before the first entry of one is
//! acknowledged, and a group is struck out only by metadata that knows this start of the node. So what is not named may be removed whenever
//! the node starts, and what is named is opened as what it is: all there was, or not.

use crate::config::{ClusterConfig, ClusterError, replace};
use crate::driver::{Driver, Work};
use crate::kept::{Kept, Opening, boot};
use crate::links::Links;
use crate::metadata::{Proposals, Refused};
use crate::node::{Ended, ReplicaStatus, Snapshotting};
use crate::prepared;
use crate::snapshots::{Budget, FOLDER, Snapshots};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_live::SnapshotOptions;
use tidegate_live::replication::{Replication, replication};
use tidegate_replica::{Base, GroupId, Log, Member, Message, MetaStore, NodeId, Replica, ReplicaOptions};
use tokio::sync::{mpsc, watch};

const FILE: &str = "copies.json";
/// Until a copy is tried again that could not begin to come, as when the disk is full.
const AGAIN: Duration = Duration::from_secs(5);

/// The groups that a node holds.
pub(crate) struct Held {
    dir: PathBuf,
    groups: Mutex<Vec<bool>>,
    /// Whether that was ever changed since the cluster began.
    noted: bool,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Noted {
    held: Vec<GroupId>,
}

impl Held {
    /// As the node's folder has it, or as the cluster began.
    pub(crate) fn of(dir: &Path, config: &ClusterConfig, node: NodeId) -> Result<Self, ClusterError> {
        let (path, dir) = (dir.join(FILE), dir.to_owned());
        let mut groups = config.held(node);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { dir, groups: Mutex::new(groups), noted: false });
            }
            Err(source) => return Err(ClusterError::File { act: "read", path, source }),
        };
        let noted: Noted = serde_json::from_slice(&text)
            .map_err(|source| ClusterError::Parse { path: path.clone(), source })?;
        groups.fill(false);
        for group in noted.held {
            let known = groups.get_mut(usize::from(group));
            let Some(known) = known else {
                let why = format!("`{}` names group {group}, and there is none", path.display());
                return Err(ClusterError::Asked(why));
            };
            *known = true;
        }
        Ok(Self { dir, groups: Mutex::new(groups), noted: true })
    }

    /// Whether copies moved here, as the folder has it.
    pub(crate) fn has_moved(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// By number.
    pub(crate) fn groups(&self) -> Vec<bool> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that there may be a copy that counts, or that there is none any more; for good.
    pub(crate) fn note(&self, group: GroupId, held: bool) -> io::Result<()> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = groups.clone();
        if let Some(known) = now.get_mut(usize::from(group)) {
            *known = held;
        }
        let named = (0..).zip(&now).filter(|(_, held)| **held).map(|(group, _)| group);
        let mut text = serde_json::to_vec(&Noted { held: named.collect() })?;
        text.push(b'\n');
        replace(&self.dir.join(FILE), &text)?;
        *groups = now;
        Ok(())
    }

    /// Removes what is left of groups that are not held: of a copy that was given up.
    pub(crate) fn clear(&self) -> io::Result<()> {
        if !self.noted {
            return Ok(());
        }
        let gone = (0..).zip(self.groups()).filter(|(_, held)| !held);
        gone.map(|(group, _)| prepared::place(&self.dir, group)).try_for_each(|dir| erase(&dir))
    }
}

/// Removes a group's log and snapshots.
fn erase(dir: &Path) -> io::Result<()> {
    for part in ["log", FOLDER] {
        match std::fs::remove_dir_all(dir.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// How a copy comes that is on its way to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakingUp {
    /// Entries of the log that are here and committed.
    pub commit: u64,
    /// The snapshot that is fetched: bytes that are here, and all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetching: Option<(u64, u64)>,
    /// Why it does not come on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl TakingUp {
    /// What its replica says of itself; nothing while there is none.
    pub(crate) fn of(status: &ReplicaStatus) -> Option<Self> {
        let ReplicaStatus { commit, fetching, problem, .. } = status;
        let is = !status.role.is_empty() || problem.is_some();
        is.then(|| Self { commit: *commit, fetching: *fetching, problem: problem.clone() })
    }
}

/// What all copies that come to a node have in common.
pub(crate) struct Taking {
    pub(crate) node: NodeId,
    pub(crate) dir: PathBuf,
    pub(crate) cluster: String,
    pub(crate) durable: bool,
    pub(crate) settings: tidegate_live::SnapshotSettings,
    pub(crate) log_bytes_max: u64,
    pub(crate) budget: Budget,
    pub(crate) held: Arc<Held>,
    pub(crate) links: Arc<Links>,
}

/// Takes up one group that this node relays, once metadata says that it is to hold it.
pub(crate) struct TakeUp {
    pub(crate) of: Arc<Taking>,
    pub(crate) group: GroupId,
    pub(crate) proposals: Proposals,
    pub(crate) refused: mpsc::Receiver<Refused>,
    pub(crate) inbox: mpsc::Receiver<(NodeId, Message<Bytes>)>,
    pub(crate) incarnation: watch::Receiver<u64>,
    /// How the copy comes; without a role while none does.
    pub(crate) status: Arc<Mutex<ReplicaStatus>>,
}

impl TakeUp {
    /// Until the node is to end, or to begin again with the group.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        // A node that holds nothing hears of it here alone.
        let mut left = self.of.links.left();
        loop {
            self.proposals.refresh();
            let me = Member { node: self.of.node, incarnation: *self.incarnation.borrow_and_update() };
            if !self.proposals.state().takes_up(self.group, me) {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return Ended::Asked,
                    Ok(_) = left.wait_for(|left| *left) => return Ended::Left,
                    changed = self.proposals.watched.changed() => {
                        if changed.is_err() {
                            return Ended::Metadata;
                        }
                    }
                    Ok(()) = self.incarnation.changed() => {}
                    // For a copy that came before.
                    Some(_) = self.inbox.recv() => {}
                    Some(_) = self.refused.recv() => {}
                }
                continue;
            }
            let (back, ended) = self.take(me, &mut stop).await;
            self = back;
            match ended {
                Ok(ended) => return ended,
                // Nothing of it was acknowledged, so it may begin anew.
                Err(problem) => {
                    let struck = self.of.held.note(self.group, false);
                    let _ = struck.and_then(|()| erase(&prepared::place(&self.of.dir, self.group)));
                    self.tell(problem);
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => return Ended::Asked,
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                }
            }
        }
    }

    fn tell(&self, problem: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status = ReplicaStatus { problem: Some(problem), ..ReplicaStatus::default() };
    }

    /// A replica without an engine, from nothing.
    fn begin(&self, me: Member) -> io::Result<(Kept, Replica<crate::machine::Inputs>, Snapshots)> {
        let Taking { dir, cluster, durable, settings, log_bytes_max, budget, held, .. } = &*self.of;
        let place = prepared::place(dir, self.group);
        erase(&place)?;
        // From here on what is there may count.
        held.note(self.group, true)?;
        let lineage = self.proposals.state().group(self.group).map_or(0, |group| group.lineage);
        let path = place.join(FOLDER);
        std::fs::create_dir_all(&path)?;
        let opening = Opening { boot: boot(), durable: *durable, before: false };
        let (mut kept, _) = Kept::open(&place.join("log"), lineage, opening)?;
        kept.limit_segments(*log_bytes_max);
        let options = ReplicaOptions { group: self.group, durable: *durable, ..ReplicaOptions::default() };
        let replica = Replica::new(me, lineage, Base::default(), Log::default(), options);
        let none = SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: 2 };
        let of = Snapshotting { when: none, settings: settings.clone(), point: None };
        let snapshots = Snapshots::new(&path, cluster, budget.clone(), of, *log_bytes_max);
        Ok((kept, replica, snapshots))
    }

    /// Follows until the node should begin again, with the group or without it.
    async fn take(self, me: Member, stop: &mut watch::Receiver<bool>) -> (Self, Result<Ended, String>) {
        let (kept, replica, snapshots) = match self.begin(me) {
            Ok(begun) => begun,
            Err(error) => return (self, Err(error.to_string())),
        };
        // Nobody is at the other end: what is committed stays in the log.
        let (_engine, port): (Replication, _) = replication();
        let Self { of, group, proposals, refused, inbox, incarnation, status } = self;
        let mut driver = Driver {
            group,
            links: Arc::clone(&of.links),
            proposals,
            refused,
            inbox,
            port,
            ingest: None,
            replica,
            kept,
            snapshots,
            held: Arc::clone(&of.held),
            incarnation,
            log_bytes_max: of.log_bytes_max,
            status,
            work: Work::from(0),
        };
        let ended = driver.follow(stop).await;
        let empty = driver.kept.end() == 0;
        let Driver { proposals, refused, inbox, incarnation, status, kept, .. } = driver;
        drop(kept);
        let back = Self { of, group, proposals, refused, inbox, incarnation, status };
        let ended = match ended {
            // Its folder has what an engine begins with.
            Ended::Snapshot(_) | Ended::TookUp(_) => Ok(Ended::TookUp(group)),
            Ended::Snapshots(why) if empty => Err(why),
            // Also one that is not to come after all: what this start acknowledged of it, another copy would not have.
            other => Ok(other),
        };
        (back, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Founding, NodePlace};
    use std::collections::BTreeMap;

    #[test]
    fn what_a_node_holds_is_noted_and_what_is_left_of_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |port| ([127, 0, 0, 1], port).into();
        let place = |port| NodePlace { peers: at(port), clients: at(port + 100) };
        let nodes: BTreeMap<NodeId, NodePlace> = (1..=3).map(|node| (node, place(7_500 + node))).collect();
        let founding = Founding { min_isr: 1, groups: 3, durable: false, copies: 2 };
        ClusterConfig::init(folder.path(), nodes, founding, 30, 1_700_000_000).unwrap();
        let dir = folder.path().join("node-1");
        let config = ClusterConfig::read(&dir).unwrap();
        let began = config.held(1);
        let held = Held::of(&dir, &config, 1).unwrap();
        assert_eq!((held.groups(), held.noted), (began.clone(), false));
        for group in 0..3 {
            std::fs::create_dir_all(prepared::place(&dir, group).join("log")).unwrap();
        }
        held.clear().unwrap();
        assert!(prepared::place(&dir, 2).join("log").exists(), "as the cluster began, nothing is left over");
        let (gone, came) =
            (began.iter().position(|held| *held).unwrap(), began.iter().position(|held| !held).unwrap());
        held.note(came as GroupId, true).unwrap();
        held.note(gone as GroupId, false).unwrap();
        let again = Held::of(&dir, &config, 1).unwrap();
        assert_eq!((again.groups(), Held::has_moved(&dir)), (held.groups(), true));
        assert_eq!((again.groups()[gone], again.groups()[came]), (false, true));
        again.clear().unwrap();
        let left: Vec<bool> = (0..3).map(|group| prepared::place(&dir, group).join("log").exists()).collect();
        assert_eq!(left, again.groups());
        std::fs::write(dir.join(FILE), b"{\"held\":[7]}").unwrap();
        let refused = Held::of(&dir, &config, 1).err().unwrap().to_string();
        assert!(refused.contains("names group 7"), "{refused}");
        std::fs::write(dir.join(FILE), b"{").unwrap();
        assert!(matches!(Held::of(&dir, &config, 1), Err(ClusterError::Parse { .. })));
    }
}
