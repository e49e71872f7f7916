//! `tidegate cluster join` and `leave`: who belongs to a cluster that is running.
//!
//! Each has one command of metadata decided, and everything else follows from that by itself: addresses, who decides, who is in sync.
//! So whoever is interrupted in between, or does it twice, does no harm.

use super::{DECIDED, copies, failure, newest, refused, runtime};
use crate::cli::{ClusterJoinArgs, ClusterLeaveArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::place::now_s;
use crate::render::Ui;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_cluster::operate::{Found, Operator};
use tidegate_cluster::{ClusterError, NodePlace};
use tidegate_replica::{Command, Group, Meta, Place};
use tokio::time::sleep;

/// How long those who decide may take to be others.
const SETTLED: Duration = Duration::from_secs(15);
/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(100);

/// What the nodes say, as soon as anybody says anything.
pub(super) async fn known(operator: &mut Operator) -> Result<(BTreeMap<u16, Found>, Meta), Failure> {
    let start = Instant::now();
    loop {
        let found = operator.found().await;
        if let Some(status) = newest(&found) {
            let meta = status.meta.clone();
            return Ok((found, meta));
        }
        if start.elapsed() >= DECIDED {
            return Err(failure(ClusterError::Silent(format!("{} were asked", found.len()))));
        }
    }
}

/// Why a node cannot come in, said before anything is made for it. Metadata says so too, whatever happens in between.
fn may_join(meta: &Meta, node: u16, place: NodePlace) -> Result<(), Failure> {
    if node == 0 || place.peers == place.clients {
        return Err(Failure::usage(
            "nodes are numbered from 1, and have one port for other nodes and one for feeds",
        ));
    }
    if meta.book.left.contains(&node) {
        return Err(refused(format!(
            "node {node} has left this cluster, and a number is not used again: take another one"
        )));
    }
    let mine = [place.peers, place.clients];
    for (&other, at) in &meta.book.places {
        let theirs = [at.peers, at.clients];
        if other == node && theirs != mine {
            let (peers, clients) = (at.peers, at.clients);
            return Err(refused(format!(
                "node {node} is in the cluster, at {peers} and {clients}: take another number"
            )));
        }
        if let Some(at) = theirs.iter().find(|at| other != node && mine.contains(at)) {
            return Err(refused(format!("{at} is where node {other} is")));
        }
    }
    Ok(())
}

pub(super) fn join(args: &ClusterJoinArgs, ui: &Ui) -> Outcome {
    let (node, place) = args.node;
    runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        if operator.config().node.is_some() {
            return Err(Failure::usage(format!(
                "`{}` is a node's folder, and joining needs the cluster's, with the key of its CA",
                args.dir.display()
            )));
        }
        let (_, meta) = known(&mut operator).await?;
        may_join(&meta, node, place)?;
        let before = meta.book.places.get(&node);
        let zone = args.zone.clone().or_else(|| before.and_then(|before| before.zone.clone()));
        // The folder first: what is in the cluster can be started.
        let folder = match before {
            Some(_) if !args.dir.join(format!("node-{node}")).exists() => None,
            _ => {
                let config = operator.config();
                Some(config.add_node(&args.dir, node, place, args.days, now_s()).map_err(failure)?)
            }
        };
        let new = Place { peers: place.peers, clients: place.clients, zone };
        if before != Some(&new) {
            let command = Command::Join { node, place: new };
            operator.decide_within(&command, DECIDED).await.map_err(failure)?;
        }
        let (found, _) = known(&mut operator).await?;
        operator.config().write(&args.dir).map_err(failure)?;
        let is = match before {
            None => "belongs to the cluster",
            Some(_) => "belongs to the cluster already",
        };
        ui.print(&format!("node {node} {is}\n"));
        if !counts(&found, node)
            && let Some(folder) = folder
        {
            let folder = folder.display();
            ui.print(&format!(
                "bring {folder} to its machine, and there: tidegate serve --cluster node-{node}\n"
            ));
        }
        let Some(patience) = args.wait.map(Duration::from_nanos) else { return Ok(Exit::Ok) };
        let start = Instant::now();
        while !counts(&operator.found().await, node) {
            if start.elapsed() >= patience {
                return Err(refused(format!(
                    "node {node} is not in sync after {} s: `tidegate cluster status` says how it is",
                    patience.as_secs_f64()
                )));
            }
            sleep(LOOK).await;
        }
        let (_, meta) = known(&mut operator).await?;
        let relays =
            meta.groups.iter().all(|group| !group.holders.is_empty() && !group.holders.contains(&node));
        let is = if relays {
            "is there: it relays all groups, and holds none before `tidegate cluster rebalance --copies`"
        } else {
            "is in sync"
        };
        ui.print(&format!("node {node} {is}\n"));
        Ok(Exit::Ok)
    })
}

/// Whether a node has everything and a say.
fn counts(found: &BTreeMap<u16, Found>, node: u16) -> bool {
    newest(found).is_some_and(|status| {
        let holds = |group: &&Group| group.holders.is_empty() || group.holders.contains(&node);
        let in_sync = |group: &Group| group.isr.iter().any(|member| member.node == node);
        status.meta.groups.iter().filter(holds).all(in_sync)
            && status.consensus.voters.contains(&u64::from(node))
    })
}

pub(super) fn leave(args: &ClusterLeaveArgs, ui: &Ui) -> Outcome {
    let node = args.node;
    runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        let (found, meta) = known(&mut operator).await?;
        let already = meta.book.left.contains(&node);
        if !already {
            if !meta.book.places.contains_key(&node) {
                let nodes: Vec<String> = meta.book.places.keys().map(u16::to_string).collect();
                return Err(Failure::usage(format!("there is no node {node}, there are {}", nodes.join(", "))));
            }
            // Who never came has nothing to be asked for.
            let came = meta.nodes.contains_key(&node);
            if let Some(Err(why)) = found.get(&node)
                && came
                && !args.force
            {
                return Err(refused(format!(
                    "node {node} does not answer ({why}): start it, or say --force if it will not come back"
                )));
            }
            // What it holds others take up first.
            if copies::is_partial(&meta) && !copies::away(&mut operator, node, (true, args.dry_run), ui).await? {
                ui.print(&format!("then node {node} would leave\n"));
                return Ok(Exit::Ok);
            }
            if args.dry_run {
                ui.print(&format!("node {node} would leave: no copy need move for that\n"));
                return Ok(Exit::Ok);
            }
            operator.decide_within(&Command::Leave { node }, DECIDED).await.map_err(|error| match error {
                ClusterError::Refused(why) => failure(ClusterError::Refused(format!(
                    "node {node} cannot leave: {why}; bring the others back, or let another node join first"
                ))),
                other => failure(other),
            })?;
        }
        let start = Instant::now();
        let decides = |found: &BTreeMap<u16, Found>| {
            let others = found.iter().filter(|(other, _)| **other != node).filter_map(|(_, found)| found.as_ref().ok());
            // Whoever leads consensus knows.
            others
                .filter(|status| status.consensus.leader == Some(status.replica.node.into()))
                .max_by_key(|status| status.consensus.term)
                .is_none_or(|status| status.consensus.voters.contains(&u64::from(node)))
        };
        while decides(&operator.found().await) {
            if start.elapsed() >= SETTLED {
                return Err(refused(format!(
                    "node {node} belongs to the cluster no longer, but it still has a vote: the others do not agree in time; say it again"
                )));
            }
            sleep(LOOK).await;
        }
        if operator.config().node.is_none() {
            operator.config().write(&args.dir).map_err(failure)?;
        }
        ui.print(&if already {
            format!("node {node} has left already\n")
        } else {
            format!("node {node} has left: its process ends by itself, and its folder is of no use any more\n")
        });
        Ok(Exit::Ok)
    })
}
