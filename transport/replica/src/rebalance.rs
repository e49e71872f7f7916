//! Who should lead what, by what leading costs: a plan of moves, each worth its while.
//!
//! A move lets another member in sync lead; the in-sync set stays as it is, so a plan endangers nothing. It is made from one state of
//! metadata, and a move names the epoch it ends: when something else was first, the move is refused, and the next plan knows better.

use crate::meta::{Command, GroupId, Member, Meta, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How eager a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eagerness {
    /// What a move must take off the busier of its two nodes, in hundredths of what a node has on average.
    pub gain_pct: u64,
    /// Moves at most.
    pub moves_max: usize,
}

impl Default for Eagerness {
    fn default() -> Self {
        Self { gain_pct: 10, moves_max: 64 }
    }
}

/// One group gets another leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which group.
    pub group: GroupId,
    /// The epoch that ends.
    pub epoch: u32,
    /// Who leads.
    pub from: NodeId,
    /// Who is to lead.
    pub to: Member,
    /// What leading it costs.
    pub cost: u64,
}

impl Move {
    /// The command that does it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::Transfer { group: self.group, epoch: self.epoch, target: self.to }
    }
}

/// What to move, and what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// In this order.
    pub moves: Vec<Move>,
    /// What each node leads now, by cost.
    pub before: BTreeMap<NodeId, u64>,
    /// What each node leads then.
    pub after: BTreeMap<NodeId, u64>,
}

impl Moves {
    /// A plan for groups that cost so much each, in events per second or anything else that adds up. A group that costs nothing, or of
    /// which nothing is known, costs 1, so that leads are spread where nothing happens.
    #[must_use]
    pub fn plan(meta: &Meta, costs: &BTreeMap<GroupId, u64>, eager: Eagerness) -> Self {
        let live = meta.nodes.iter().filter(|(_, state)| !state.fenced).map(|(&node, _)| (node, 0));
        let mut loads: BTreeMap<NodeId, u64> = live.collect();
        let mut zones: BTreeMap<&str, u64> = BTreeMap::new();
        let zone = |node: NodeId| meta.zone(node);
        let cost = |group: GroupId| costs.get(&group).copied().unwrap_or(0).clamp(1, u64::from(u32::MAX));
        let mut led: BTreeMap<NodeId, Vec<GroupId>> = BTreeMap::new();
        for (id, group) in meta.numbered() {
            let Some(leader) = group.leader else { continue };
            *loads.entry(leader.node).or_default() += cost(id);
            *zones.entry(zone(leader.node)).or_default() += cost(id);
            led.entry(leader.node).or_default().push(id);
        }
        let before = loads.clone();
        let able = loads.keys().filter(|node| !meta.drained.contains(node)).count().max(1) as u64;
        let least = (loads.values().sum::<u64>() * eager.gain_pct / (100 * able)).max(1);
        let (mut moves, mut moved) = (Vec::new(), BTreeSet::new());
        while moves.len() < eager.moves_max {
            let mut busiest: Vec<(NodeId, u64)> = loads.iter().map(|(&node, &load)| (node, load)).collect();
            busiest.sort_by_key(|&(node, load)| (std::cmp::Reverse(load), node));
            let best = busiest.into_iter().find_map(|(from, load)| {
                let groups = led.get(&from)?.iter().filter(|group| !moved.contains(*group));
                let options = groups.flat_map(|&id| {
                    let cost = cost(id);
                    let (loads, zones, zone) = (&loads, &zones, &zone);
                    heirs(meta, id).filter_map(move |to| {
                        let gets = loads.get(&to.node)? + cost;
                        let then = gets.max(load - cost);
                        let zone = zones.get(zone(to.node)).copied().unwrap_or(0);
                        (then.checked_add(least)? <= load).then_some((then, gets, zone, id, to, cost))
                    })
                });
                options.min().map(|(_, _, _, group, to, cost)| (group, from, to, cost))
            });
            let Some((group, from, to, cost)) = best else { break };
            let Some(now) = meta.group(group) else { break };
            moves.push(Move { group, epoch: now.epoch, from, to, cost });
            moved.insert(group);
            *loads.entry(from).or_default() -= cost;
            *loads.entry(to.node).or_default() += cost;
            *zones.entry(zone(from)).or_default() -= cost;
            *zones.entry(zone(to.node)).or_default() += cost;
            led.entry(from).or_default().retain(|other| *other != group);
            led.entry(to.node).or_default().push(group);
        }
        Self { moves, before, after: loads }
    }
}

/// Who may lead a group in its leader's place. Nobody while too few are in sync to commit: then there is other trouble.
fn heirs(meta: &Meta, id: GroupId) -> impl Iterator<Item = Member> {
    let group = meta.group(id).filter(|group| group.isr.len() >= group.min_isr);
    let isr = group.map_or(&[][..], |group| &group.isr[..]);
    let leader = group.and_then(|group| group.leader);
    isr.iter().copied().filter(move |member| {
        let computes = !meta.is_coming(id, member.node) && !meta.drained.contains(&member.node);
        Some(*member) != leader && meta.is_live(id, *member) && computes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Place;
    use crate::meta::Layout;
    use crate::rules::Rules;
    use proptest::prelude::*;

    /// Clusters in which something happened already, and what their groups cost.
    fn clusters() -> impl Strategy<Value = (Meta, BTreeMap<GroupId, u64>)> {
        let shape = (2u16..=9, 1usize..=3, 1usize..=60, 0usize..=4, 1usize..=3);
        let happened = proptest::collection::vec((0u8..4, 1u16..=9, 0u16..60), 0..40);
        let costs = proptest::collection::vec(0u64..10_000, 60);
        (shape, happened, costs).prop_map(|((count, zones, groups, copies, min_isr), happened, costs)| {
            let nodes: Vec<NodeId> = (1..=count).collect();
            let zone = |node: &NodeId| (*node, format!("z{}", usize::from(*node) % zones));
            let zones: BTreeMap<NodeId, String> = nodes.iter().map(zone).collect();
            let held = if copies == 0 { nodes.len() } else { copies.min(nodes.len()) };
            let place = |(&node, zone): (&NodeId, &String)| {
                let at = |port| ([10, 0, 0, node as u8], port).into();
                (node, Place { peers: at(7_500), clients: at(7_443), zone: Some(zone.clone()) })
            };
            let places = zones.iter().map(place).collect();
            let layout = Layout { zones, groups, copies, min_isr: min_isr.min(held), nodes };
            let mut meta = Meta::laid_out(&layout, Rules::default()).founded(&places);
            for (what, node, group) in happened {
                let known = meta.nodes.get(&node).map_or(1, |known| known.incarnation);
                let member = Member { node, incarnation: known };
                let next = Member { node, incarnation: known + 1 };
                let epoch = meta.group(group).map_or(0, |group| group.epoch);
                // What makes no sense is refused, as it would be.
                let _ = meta.apply(&match what {
                    0 => Command::Fence { member },
                    1 => Command::Register { member: next, lossy: group % 3 == 0, lost: Vec::new() },
                    2 => Command::Drain { node, drained: group % 2 == 0 },
                    _ => Command::Transfer { group, epoch, target: member },
                });
            }
            (meta, (0..).zip(costs).collect())
        })
    }

    fn busiest(loads: &BTreeMap<NodeId, u64>) -> u64 {
        loads.values().copied().max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn a_plan_is_worth_its_while_and_takes_nobody_out_of_sync(
            (meta, costs) in clusters(), gain_pct in 0u64..=50, moves_max in 0usize..=80,
        ) {
            let plan = Moves::plan(&meta, &costs, Eagerness { gain_pct, moves_max });
            prop_assert!(plan.moves.len() <= moves_max);
            prop_assert_eq!(plan.before.values().sum::<u64>(), plan.after.values().sum::<u64>());
            prop_assert!(busiest(&plan.after) <= busiest(&plan.before));
            let able = plan.before.keys().filter(|node| !meta.drained.contains(node)).count().max(1) as u64;
            let least = plan.before.values().sum::<u64>() * gain_pct / (100 * able);
            let (mut now, mut loads) = (meta.clone(), plan.before.clone());
            for one in &plan.moves {
                let (from, to) = (loads[&one.from], loads[&one.to.node]);
                prop_assert!(from >= (from - one.cost).max(to + one.cost) + least.max(1), "{:?}", one);
                *loads.get_mut(&one.from).unwrap() -= one.cost;
                *loads.get_mut(&one.to.node).unwrap() += one.cost;
                prop_assert!(!meta.drained.contains(&one.to.node));
                let sets = now.groups[usize::from(one.group)].isr.clone();
                prop_assert_eq!(now.apply(&one.command()), Ok(()), "one after the other, all are accepted");
                let group = &now.groups[usize::from(one.group)];
                prop_assert_eq!((&group.isr, group.leader), (&sets, Some(one.to)));
                prop_assert!(group.isr.len() >= group.min_isr);
            }
            prop_assert_eq!(&loads, &plan.after);
        }

        #[test]
        fn once_done_there_is_nothing_left_to_do((meta, costs) in clusters(), gain_pct in 0u64..=50) {
            let mut now = meta;
            let eager = Eagerness { gain_pct, moves_max: 7 };
            for _ in 0..200 {
                let plan = Moves::plan(&now, &costs, eager);
                if plan.moves.is_empty() {
                    return Ok(());
                }
                for one in plan.moves {
                    now.apply(&one.command()).unwrap();
                }
            }
            prop_assert!(false, "it moves for ever");
        }

        #[test]
        fn groups_that_all_cost_the_same_are_spread(nodes in 2u16..=9, groups in 1usize..=60, all in 1u16..=9) {
            let layout = Layout { groups, ..Layout::of(&(1..=nodes).collect::<Vec<_>>()) };
            let mut meta = Meta::laid_out(&layout, Rules::default());
            let to = Member { node: 1 + all % nodes, incarnation: 1 };
            for group in 0..groups as GroupId {
                let _ = meta.apply(&Command::Transfer { group, epoch: 1, target: to });
            }
            let plan = Moves::plan(&meta, &BTreeMap::new(), Eagerness { gain_pct: 0, moves_max: 100 });
            prop_assert_eq!(busiest(&plan.after), groups.div_ceil(usize::from(nodes)) as u64);
        }
    }
}
