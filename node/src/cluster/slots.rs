//! `tidegate cluster move --slot`: one slot goes to another group, under load.

use super::{DECIDED, failure, groups, newest, refused, runtime};
use crate::cli::ClusterMoveArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Ui, clean};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_cluster::operate::{Found, Operator};
use tidegate_cluster::{ClusterError, NodeStatus, ReplicaStatus};
use tidegate_engine::{name_hash, slot_of};
use tidegate_replica::{Command, GroupId, Meta, NodeId};

/// Between two looks whether it is there, and how long it is looked for.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nodes are asked until all have answered: a busy one may miss a question or two.
const ANSWERS: Duration = Duration::from_secs(10);

/// The slot that is meant, and what it is called in a sentence.
fn slot_of_args(args: &ClusterMoveArgs) -> Option<(u16, String)> {
    let of_key = |key: &String| {
        let slot = slot_of(name_hash(key.as_bytes()));
        (slot, format!("slot {slot} (of `{}`)", clean(key)))
    };
    args.key.as_ref().map(of_key).or_else(|| args.slot.map(|slot| (slot, format!("slot {slot}"))))
}

/// Moves a slot, if one is named.
pub(super) fn run(args: &ClusterMoveArgs, ui: &Ui) -> Option<Outcome> {
    let (slot, said) = slot_of_args(args)?;
    Some(move_slot(args, slot, &said, ui))
}

/// All nodes must know what the command stands for: it is in the metadata of each.
fn all_know(found: &BTreeMap<NodeId, Found>, meta: &Meta) -> Result<(), Failure> {
    for (node, of) in found.iter().filter(|(node, _)| meta.nodes.contains_key(node)) {
        match of {
            Ok(status) if status.moves_slots => {}
            Ok(_) => {
                let why = format!(
                    "node {node} is of a version that does not know how slots move: upgrade it first"
                );
                return Err(refused(why));
            }
            Err(why) => {
                let why = format!("node {node} does not say whether its version knows how slots move: {why}");
                return Err(refused(why));
            }
        }
    }
    Ok(())
}

fn command(meta: &Meta, slot: u16, said: &str, to: GroupId) -> Result<Command, Failure> {
    if meta.groups.len() == 1 {
        return Err(refused("the cluster has one group, which has all slots".to_owned()));
    }
    let of = groups::group(meta, to)?;
    let from = meta.slots.group_of(slot);
    if from == to {
        return Err(refused(format!("{said} is group {to}'s already")));
    }
    let (epoch, to_epoch) = (groups::group(meta, from)?.epoch, of.epoch);
    Ok(Command::MoveSlot { slot, step: meta.step_of(slot), to, epoch, to_epoch })
}

/// What keeps a slot where it is, as the leader of its group says.
fn why(found: &BTreeMap<NodeId, Found>, meta: &Meta, from: GroupId) -> Option<String> {
    let leader = meta.group(from)?.leader?.node;
    let status = found.get(&leader)?.as_ref().ok()?;
    let replica: &ReplicaStatus = status.all().find(|replica| replica.group == from)?;
    if let Some(why) = &replica.slot_refused {
        return Some(clean(why));
    }
    let waits: Vec<String> = replica.slot_waits.iter().map(|feed| clean(feed)).collect();
    (!waits.is_empty()).then(|| format!("these feeds did not stop for it: {}", waits.join(", ")))
}

fn move_slot(args: &ClusterMoveArgs, slot: u16, said: &str, ui: &Ui) -> Outcome {
    runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        let asked = Instant::now();
        let found = loop {
            let found = operator.found().await;
            let all = |status: &NodeStatus| {
                status.meta.nodes.keys().all(|node| found.get(node).is_some_and(Result::is_ok))
            };
            if newest(&found).is_some_and(all) || asked.elapsed() >= ANSWERS {
                break found;
            }
            tokio::time::sleep(LOOK).await;
        };
        let silent = || failure(ClusterError::Silent(format!("{} were asked", found.len())));
        let meta = &newest(&found).ok_or_else(silent)?.meta;
        let (from, step) = (meta.slots.group_of(slot), meta.step_of(slot));
        let command = command(meta, slot, said, args.to)?;
        all_know(&found, meta)?;
        operator.decide_within(&command, DECIDED).await.map_err(failure)?;
        let (begun, mut because) = (Instant::now(), None);
        loop {
            let found = operator.found().await;
            if let Some(status) = newest(&found) {
                let meta = &status.meta;
                let over = meta.step_of(slot) >= step + 3;
                if over && meta.slots.group_of(slot) == args.to {
                    ui.print(&format!("{said} is group {}'s now, and was group {from}'s\n", args.to));
                    return Ok(Exit::Ok);
                }
                if over {
                    let why = because.unwrap_or_else(|| "a feed did not stop for it in time".to_owned());
                    return Err(refused(format!("{said} stays in group {from}: {why}")));
                }
                because = why(&found, meta, from).or(because);
            }
            if begun.elapsed() >= PATIENCE {
                let still = because.map_or(String::new(), |why| format!(": {why}"));
                return Err(refused(format!(
                    "{said} is still on its way{still}; `tidegate cluster status` shows it"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

/// The slots that are on their way, in lines for people.
pub(super) fn under_way(found: &BTreeMap<NodeId, Found>, meta: &Meta) -> String {
    let line = |(slot, of): (u16, &tidegate_replica::SlotMove)| {
        let from = meta.slots.group_of(slot);
        let step = if of.left.is_some() { "has left".to_owned() } else { "is to leave".to_owned() };
        let why = why(found, meta, from).map_or(String::new(), |why| format!(": {why}"));
        format!("slot {slot} {step} group {from} for group {}{why}\n", of.to)
    };
    meta.under_way().map(line).collect()
}
