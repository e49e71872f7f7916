//! `tidegate cluster rebalance`: leads go where they cost least, by what each group takes in while somebody looks on.

use super::groups::{per_second, taken_in};
use super::{DECIDED, failure, newest, runtime};
use crate::cli::ClusterRebalanceArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{Table, Ui, thousands};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_cluster::ClusterError;
use tidegate_cluster::operate::{Found, Operator};
use tidegate_replica::rebalance::{Eagerness, Move, Moves};
use tidegate_replica::{GroupId, Meta, NodeId};

/// What was seen, and what follows from it.
struct Plan {
    meta: Meta,
    over: Duration,
    /// Events that each group took in meanwhile, as far as that can be said.
    events: BTreeMap<GroupId, u64>,
    moves: Moves,
}

pub(super) fn run(args: &ClusterRebalanceArgs, ui: &Ui) -> Outcome {
    runtime()?.block_on(async {
        let mut operator = Operator::of(&args.dir).map_err(failure)?;
        let plan = look(&mut operator, args).await?;
        let mut done = 0;
        let outcome =
            if args.dry_run { Ok(()) } else { carry_out(&operator, &plan.moves.moves, &mut done).await };
        if args.json {
            ui.print_json(&plan.json(args.dry_run, done));
        } else {
            ui.print(&plan.render(args.dry_run, done, ui));
        }
        outcome.map(|()| Exit::Ok)
    })
}

/// What the nodes say, and the newest metadata.
async fn known(operator: &mut Operator) -> Result<(BTreeMap<NodeId, Found>, Meta), Failure> {
    let found = operator.found().await;
    match newest(&found).map(|status| status.meta.clone()) {
        Some(meta) => Ok((found, meta)),
        None => Err(failure(ClusterError::Silent(format!("{} were asked", found.len())))),
    }
}

/// Looks on for a while, and plans.
async fn look(operator: &mut Operator, args: &ClusterRebalanceArgs) -> Result<Plan, Failure> {
    let ((before, _), begun) = (known(operator).await?, Instant::now());
    tokio::time::sleep(Duration::from_nanos(args.over)).await;
    let ((after, meta), over) = (known(operator).await?, begun.elapsed());
    let seen = meta.numbered().filter_map(|(id, _)| Some((id, taken_in(&before, (&after, &meta), id)?)));
    let events: BTreeMap<GroupId, u64> = seen.collect();
    let rates = events.iter().map(|(&id, &events)| (id, per_second(events, over))).collect();
    let eager = Eagerness { gain_pct: args.gain, moves_max: args.moves.into() };
    let moves = Moves::plan(&meta, &rates, eager);
    Ok(Plan { meta, over, events, moves })
}

/// One after the other; `done` counts those that were made.
async fn carry_out(operator: &Operator, moves: &[Move], done: &mut usize) -> Result<(), Failure> {
    for one in moves {
        operator.decide_within(&one.command(), DECIDED).await.map_err(failure)?;
        *done += 1;
    }
    Ok(())
}

/// Why a move is worth its while: what the two nodes lead before and after it.
struct Reason {
    from: (u64, u64),
    to: (u64, u64),
}

impl Plan {
    /// The moves with their reasons: each is judged by what those before it left.
    fn reasons(&self) -> Vec<(Move, Reason)> {
        let mut loads = self.moves.before.clone();
        let step = |one: &Move| {
            let mut change = |node: NodeId, by: &dyn Fn(u64) -> u64| {
                let load = loads.entry(node).or_default();
                let was = std::mem::replace(load, by(*load));
                (was, *load)
            };
            let from = change(one.from, &|load| load.saturating_sub(one.cost));
            let to = change(one.to.node, &|load| load + one.cost);
            (*one, Reason { from, to })
        };
        self.moves.moves.iter().map(step).collect()
    }

    fn render(&self, dry: bool, done: usize, ui: &Ui) -> String {
        let seconds = self.over.as_secs_f64();
        if self.moves.moves.is_empty() {
            let most = self.moves.before.values().max().copied().unwrap_or(0);
            return format!(
                "nothing to move: looked on for {seconds:.1} s, and no move takes enough off the busiest node, which leads {} events/s\n",
                thousands(most)
            );
        }
        let mut table = Table::new(&["group", "from", "to", ">events/s", "because"]);
        for (at, (one, reason)) in self.reasons().into_iter().enumerate() {
            let because = format!(
                "node {} leads {} then, not {}; node {} leads {}, not {}{}",
                one.from,
                thousands(reason.from.1),
                thousands(reason.from.0),
                one.to.node,
                thousands(reason.to.1),
                thousands(reason.to.0),
                if !dry && at >= done { " (not done)" } else { "" },
            );
            let (from, to) = (format!("node {}", one.from), format!("node {}", one.to.node));
            table.row([one.group.to_string().as_str(), &from, &to, &thousands(one.cost), &because]);
        }
        let count = self.moves.moves.len();
        let moves = if count == 1 { "move" } else { "moves" };
        let did = if dry {
            format!("{count} {moves} would be made, by what was seen in {seconds:.1} s\n")
        } else {
            format!("{done} of {count} {moves} made, by what was seen in {seconds:.1} s\n")
        };
        // With no figures there is nothing to tell groups apart by.
        let idle = self.events.values().all(|events| *events == 0);
        let idle =
            if idle { "no group took in anything meanwhile: each counts as one event/s\n" } else { "" };
        table.render(ui, 0) + &did + idle
    }

    fn json(&self, dry: bool, done: usize) -> Value {
        let group = |(id, group): (GroupId, &tidegate_replica::Group)| {
            let events = self.events.get(&id);
            json!({
                "group": id, "leader": group.leader.map(|leader| leader.node), "epoch": group.epoch, "events": events,
                "events_per_second": events.map(|events| per_second(*events, self.over)),
            })
        };
        let one = |(at, (one, reason)): (usize, (Move, Reason))| {
            json!({
                "group": one.group, "epoch": one.epoch, "from": one.from, "to": one.to.node, "events_per_second": one.cost,
                "from_before": reason.from.0, "from_after": reason.from.1, "to_before": reason.to.0, "to_after": reason.to.1,
                "done": !dry && at < done,
            })
        };
        let node = |(node, before): (&NodeId, &u64)| json!({"node": node, "before": before, "after": self.moves.after.get(node)});
        json!({
            "dry_run": dry,
            "seconds": self.over.as_secs_f64(),
            "groups": self.meta.numbered().map(group).collect::<Vec<_>>(),
            "moves": self.reasons().into_iter().enumerate().map(one).collect::<Vec<_>>(),
            "nodes": self.moves.before.iter().map(node).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_replica::{Layout, Rules};

    fn plan(costs: &[u64]) -> Plan {
        let layout = Layout { groups: costs.len(), min_isr: 2, ..Layout::of(&[1, 2, 3]) };
        let meta = Meta::laid_out(&layout, Rules::default());
        let events: BTreeMap<GroupId, u64> = (0..).zip(costs.iter().copied()).collect();
        let moves = Moves::plan(&meta, &events, Eagerness::default());
        Plan { meta, over: Duration::from_secs(1), events, moves }
    }

    fn ui() -> Ui {
        Ui::new(crate::render::Color::Never, false)
    }

    #[test]
    fn each_move_says_what_it_does_to_both_nodes() {
        // Groups 0 and 3 are led by node 1, which leads all that costs anything.
        let plan = plan(&[900, 0, 0, 600]);
        let text = plan.render(true, 0, &ui());
        assert!(text.contains("node 1 leads 900 then, not 1,500; node "), "{text}");
        assert!(text.ends_with("1 move would be made, by what was seen in 1.0 s\n"), "{text}");
        let idle = Plan { events: BTreeMap::new(), ..self::plan(&[900, 0, 0, 600]) };
        assert!(idle.render(true, 0, &ui()).ends_with("each counts as one event/s\n"));
        let text = plan.render(false, 0, &ui());
        assert!(text.contains("(not done)") && text.contains("0 of 1 move made"), "{text}");
        let json = plan.json(false, 1);
        let [one] = json["moves"].as_array().unwrap().as_slice() else { panic!("{json}") };
        assert_eq!((&one["group"], &one["from"], &one["done"]), (&json!(3), &json!(1), &json!(true)));
        assert_eq!((&one["from_before"], &one["from_after"]), (&json!(1_500), &json!(900)));
        let after: u64 =
            json["nodes"].as_array().unwrap().iter().map(|of| of["after"].as_u64().unwrap()).sum();
        assert_eq!(after, 1_500 + 2, "what costs nothing counts as one");
    }

    #[test]
    fn where_nothing_is_worth_its_while_that_is_said() {
        let text = plan(&[500, 480, 490]).render(true, 0, &ui());
        assert!(text.starts_with("nothing to move: looked on for 1.0 s"), "{text}");
        assert!(text.contains("leads 500 events/s"), "{text}");
    }
}
