//! Copies that go from node to node because somebody says so: the plan, and how far it is.
//!
//! Each move is one command of metadata; nodes do the rest by themselves. So whoever is interrupted leaves what has begun to end by itself,
//! and says the same again for what has not.

use super::members::known;
use super::{DECIDED, failure, refused, runtime};
use crate::cli::ClusterRebalanceArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Tone, Ui, bytes, thousands};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tidegate_cluster::ClusterError;
use tidegate_cluster::operate::{Found, Operator};
use tidegate_replica::{Command, Copies, CopyMove, GroupId, Meta, NodeId};
use tokio::time::sleep;

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(200);
/// Between two lines about how far copies are.
const TELL: Duration = Duration::from_secs(2);
/// How long nothing may change before it is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(300);

/// Whether nodes hold some groups only.
pub(super) fn is_partial(meta: &Meta) -> bool {
    meta.groups.iter().any(|group| !group.holders.is_empty())
}

fn named(groups: &[GroupId]) -> String {
    let all: Vec<String> = groups.iter().map(GroupId::to_string).collect();
    format!("{} {}", if groups.len() == 1 { "group" } else { "groups" }, all.join(", "))
}

/// The moves, as a table.
fn render(plan: &Copies, meta: &Meta, ui: &Ui) -> String {
    let zoned = plan.moves.iter().any(|one| !meta.zone(one.to).is_empty());
    let mut heads = vec!["group", "comes to", "in place of"];
    if zoned {
        heads.insert(2, "in zone");
    }
    let mut table = Table::new(&heads);
    for one in &plan.moves {
        let (group, to) = (one.group.to_string(), format!("node {}", one.to));
        let from = one.from.map_or("no other".to_owned(), |from| format!("node {from}"));
        let mut cells = vec![group, to, from];
        if zoned {
            cells.insert(2, meta.zone(one.to).to_owned());
        }
        table.cells(cells.iter().map(|cell| (Tone::Plain, crate::render::clean(cell))).collect());
    }
    let count = |of: &BTreeMap<NodeId, usize>| {
        let each: Vec<String> = of.iter().map(|(node, count)| format!("node {node}: {count}")).collect();
        each.join(", ")
    };
    format!(
        "{}groups held now: {}\ngroups held then: {}\n",
        table.render(ui, 0),
        count(&plan.before),
        count(&plan.after)
    )
}

fn json(plan: &Copies, dry: bool) -> Value {
    let one = |one: &CopyMove| json!({ "group": one.group, "to": one.to, "from": one.from });
    let node = |(node, before): (&NodeId, &usize)| json!({ "node": node, "before": before, "after": plan.after.get(node) });
    json!({
        "dry_run": dry,
        "moves": plan.moves.iter().map(one).collect::<Vec<_>>(),
        "without_room": plan.without_room,
        "nodes": plan.before.iter().map(node).collect::<Vec<_>>(),
    })
}

/// How a copy comes, by what its node says.
pub(super) fn progress(found: &BTreeMap<NodeId, Found>, meta: &Meta, group: GroupId, to: NodeId) -> String {
    let Some(Ok(status)) = found.get(&to) else { return format!("node {to} does not say") };
    let Some(said) = status.all().nth(usize::from(group)) else { return "begins".to_owned() };
    let in_sync = meta.group(group).is_some_and(|of| of.isr.iter().any(|member| member.node == to));
    match (&said.taking_up, said.relay.is_some()) {
        (Some(taking), _) => match (&taking.problem, taking.fetching) {
            (Some(problem), _) => format!("waits: {}", crate::render::clean(problem)),
            (None, Some((have, all))) => format!("has {} of a snapshot of {}", bytes(have), bytes(all)),
            (None, None) => format!("has {} entries", thousands(taking.commit)),
        },
        (None, true) => "begins".to_owned(),
        (None, false) if in_sync => "is in sync".to_owned(),
        (None, false) => format!("has {} entries, and computes", thousands(said.commit)),
    }
}

/// Begins the moves, a few at a time, and waits for them.
async fn carry_out(operator: &mut Operator, moves: &[CopyMove], ui: &Ui) -> Result<(), Failure> {
    let (mut waiting, mut begun): (Vec<CopyMove>, Vec<CopyMove>) = (moves.to_vec(), Vec::new());
    let (mut changed, mut told, mut last, mut why) = (Instant::now(), None::<Instant>, String::new(), None);
    while !(waiting.is_empty() && begun.is_empty()) {
        let (found, meta) = known(operator).await?;
        let before = begun.len() + waiting.len();
        let comes = |one: &CopyMove| meta.is_coming(one.group, one.to);
        for done in begun.extract_if(.., |one| !comes(one)) {
            let CopyMove { group, to, from } = done;
            if !meta.is_held(group, to) {
                return Err(refused(format!(
                    "node {to} is not to hold group {group} any more: that was stopped"
                )));
            }
            let place = from.map_or(String::new(), |from| format!(", in place of node {from}"));
            ui.print(&format!("node {to} holds group {group}{place}\n"));
        }
        // Begun by somebody else, or before this was interrupted.
        begun.extend(waiting.extract_if(.., |one| meta.is_held(one.group, one.to)));
        if let Some(at) = waiting.iter().position(|one| one.may_begin(&meta))
            && let Some(command) = waiting[at].command(&meta)
        {
            match operator.decide_within(&command, DECIDED).await {
                Ok(()) => begun.push(waiting.remove(at)),
                // The group has changed meanwhile.
                Err(ClusterError::Refused(reason)) => why = Some(reason),
                Err(error) => return Err(failure(error)),
            }
        }
        let line = |one: &CopyMove| {
            format!("group {} to node {}: {}", one.group, one.to, progress(&found, &meta, one.group, one.to))
        };
        let lines: Vec<String> = begun.iter().filter(|one| comes(one)).map(line).collect();
        let now = lines.join("; ");
        if before != begun.len() + waiting.len() || now != last {
            changed = Instant::now();
            if !now.is_empty() && told.is_none_or(|at| at.elapsed() >= TELL) {
                ui.note(&now);
                told = Some(Instant::now());
            }
            last = now;
        } else if changed.elapsed() >= PATIENCE {
            let left: Vec<GroupId> = begun.iter().chain(&waiting).map(|one| one.group).collect();
            let why = why.map_or(String::new(), |why| format!(" ({why})"));
            return Err(refused(format!(
                "the copies of {} do not come on{why}: {last}. What has begun ends by itself; say the same again for the rest",
                named(&left)
            )));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Copies of a node go to others, as far as there is room. Returns whether the node is free of them then, as far as it may be; not if this is
/// `dry`.
pub(super) async fn away(
    operator: &mut Operator,
    node: NodeId,
    (leaves, dry): (bool, bool),
    ui: &Ui,
) -> Result<bool, Failure> {
    loop {
        let (_, meta) = known(operator).await?;
        let plan = Copies::away(&meta, &BTreeSet::from([node]));
        // With enough others a copy may go without another one in its place.
        let needed = |group: &GroupId| {
            let of = meta.group(*group);
            !leaves || of.is_none_or(|of| of.holders.len() <= of.min_isr)
        };
        let without: Vec<GroupId> = plan.without_room.iter().copied().filter(needed).collect();
        if !without.is_empty() {
            return Err(refused(format!(
                "nobody is there to take up node {node}'s copies of {}, which {}: let another node join first, and start it",
                named(&without),
                if leaves { "too few others hold" } else { "no node lacks that is at hand and not drained" }
            )));
        }
        if !plan.without_room.is_empty() {
            ui.note(&format!(
                "{} goes on with a copy less: no other node is there that could take it up",
                named(&plan.without_room)
            ));
        }
        if let Some((group, _)) = meta.coming().find(|(_, coming)| coming.to == node && !leaves) {
            return Err(refused(format!(
                "a copy of group {group} is on its way to node {node}: wait for it, or `tidegate cluster rebalance --copies --stop`"
            )));
        }
        let waits = meta.coming().filter(|(_, coming)| coming.from == Some(node));
        let under_way: Vec<CopyMove> =
            waits.map(|(group, coming)| CopyMove { group, to: coming.to, from: coming.from }).collect();
        if plan.moves.is_empty() && under_way.is_empty() {
            return Ok(!dry);
        }
        if !plan.moves.is_empty() {
            ui.print(&render(&plan, &meta, ui));
        }
        if dry {
            return Ok(false);
        }
        let all: Vec<CopyMove> = under_way.into_iter().chain(plan.moves).collect();
        carry_out(operator, &all, ui).await?;
    }
}

/// `tidegate cluster rebalance --copies`.
pub(super) fn even(args: &ClusterRebalanceArgs, ui: &Ui) -> Outcome {
    runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        let mut first = true;
        loop {
            let (_, meta) = known(&mut operator).await?;
            if !is_partial(&meta) {
                return Err(refused(
                    "every node holds every group, so there is nothing to move: only a cluster made with --copies has copies that move"
                        .to_owned(),
                ));
            }
            if args.stop {
                return stop(&operator, &meta, ui).await;
            }
            let plan = Copies::even(&meta, operator.config().copies);
            if args.json && (first || args.dry_run) {
                ui.print_json(&json(&plan, args.dry_run));
            }
            let comes = |(group, coming): (GroupId, tidegate_replica::Coming)| CopyMove {
                group,
                to: coming.to,
                from: coming.from,
            };
            let under_way: Vec<CopyMove> = meta.coming().map(comes).collect();
            if !plan.without_room.is_empty() && !args.json {
                ui.note(&format!("{} lacks a copy, and no node is there to take it up", named(&plan.without_room)));
            }
            if plan.moves.is_empty() && under_way.is_empty() {
                if !args.json {
                    let done = if first { "nothing to move" } else { "done" };
                    ui.print(&format!(
                        "{done}: every node at hand holds as many groups as any other, to within one, as far as zones allow\n"
                    ));
                }
                return Ok(Exit::Ok);
            }
            if !args.json && !plan.moves.is_empty() {
                ui.print(&render(&plan, &meta, ui));
            }
            if args.dry_run {
                return Ok(Exit::Ok);
            }
            let all: Vec<CopyMove> = under_way.into_iter().chain(plan.moves).collect();
            carry_out(&mut operator, &all, ui).await?;
            first = false;
        }
    })
}

/// What is on its way comes no longer.
async fn stop(operator: &Operator, meta: &Meta, ui: &Ui) -> Outcome {
    let mut any = false;
    for (group, coming) in meta.coming() {
        let version = meta.group(group).map_or(0, |group| group.version);
        operator.decide_within(&Command::StopCopy { group, version }, DECIDED).await.map_err(failure)?;
        ui.print(&format!("node {} does not take up group {group}\n", coming.to));
        any = true;
    }
    if !any {
        ui.print("no copy is on its way\n");
    }
    Ok(Exit::Ok)
}
