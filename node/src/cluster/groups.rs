//! A cluster of several groups, for people; and what people decide of one of them.

use super::refused;
use crate::exit::Failure;
use crate::render::{Table, Tone, Ui, clean, thousands};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_cluster::operate::Found;
use tidegate_cluster::{ClusterConfig, NodeStatus, ReplicaStatus};
use tidegate_replica::{Command, Group, GroupId, Member, Meta, NodeId};

/// A group by number, or why there is none.
pub(super) fn group(meta: &Meta, number: GroupId) -> Result<&Group, Failure> {
    meta.group(number).ok_or_else(|| {
        Failure::usage(match meta.groups.len() {
            1 => format!("there is no group {number}: this cluster has one, which is group 0"),
            count => format!("there is no group {number}, there are 0 to {}", count - 1),
        })
    })
}

/// The newest incarnation that a node has in a group.
fn newest(meta: &Meta, number: GroupId, node: NodeId) -> Result<Member, Failure> {
    group(meta, number)?;
    match meta.newest(number, node) {
        Some(incarnation) => Ok(Member { node, incarnation }),
        None => {
            let nodes: Vec<String> = meta.nodes.keys().map(u16::to_string).collect();
            Err(Failure::usage(format!("there is no node {node}, there are {}", nodes.join(", "))))
        }
    }
}

/// Has a node lead a group.
pub(super) fn transfer(meta: &Meta, number: GroupId, node: NodeId) -> Result<Command, Failure> {
    let (target, of) = (newest(meta, number, node)?, said(meta, number));
    let Group { leader, isr, epoch, .. } = group(meta, number)?;
    if *leader == Some(target) {
        return Err(refused(format!("node {node} leads{of} already")));
    }
    if !meta.is_held(number, node) {
        let held: Vec<String> = meta.holders(number).map(|member| member.node.to_string()).collect();
        return Err(refused(format!("node {node} does not hold{of}: nodes {} do", held.join(", "))));
    }
    if !isr.contains(&target) {
        return Err(refused(format!("node {node} is not in sync, so it may not lead{of}")));
    }
    Ok(Command::Transfer { group: number, epoch: *epoch, target })
}

/// Has a node go on with what it has of a group.
pub(super) fn declare_loss(meta: &Meta, number: GroupId, node: NodeId) -> Result<Command, Failure> {
    let target = newest(meta, number, node)?;
    if !meta.is_held(number, node) {
        let held: Vec<String> = meta.holders(number).map(|member| member.node.to_string()).collect();
        return Err(refused(format!(
            "node {node} does not hold group {number}, so it has nothing of it: nodes {} do",
            held.join(", ")
        )));
    }
    Ok(Command::DeclareLoss { group: number, epoch: group(meta, number)?.epoch, target })
}

/// Has a node lead nothing, as far as others can, or again.
pub(super) fn drain(meta: &Meta, node: NodeId, drained: bool) -> Result<Command, Failure> {
    newest(meta, 0, node)?;
    Ok(Command::Drain { node, drained })
}

/// Which group that is, in a sentence; nothing where there is one only.
pub(super) fn said(meta: &Meta, number: GroupId) -> String {
    if meta.groups.len() > 1 { format!(" group {number}") } else { String::new() }
}

/// What a node says of its replica of a group.
fn replica(status: &NodeStatus, number: GroupId) -> Option<&ReplicaStatus> {
    status.all().nth(usize::from(number))
}

/// What the leader of a group says of its replica.
pub(super) fn leading<'a>(
    found: &'a BTreeMap<NodeId, Found>,
    meta: &Meta,
    number: GroupId,
) -> Option<&'a ReplicaStatus> {
    let leader = meta.group(number)?.leader?;
    let status = found.get(&leader.node)?.as_ref().ok()?;
    replica(status, number).filter(|replica| replica.incarnation == leader.incarnation)
}

/// Events that the engine of a group's leader has logged since an earlier look; `None` when that cannot be said, as after a change of
/// leader.
pub(super) fn taken_in(
    before: &BTreeMap<NodeId, Found>,
    after: (&BTreeMap<NodeId, Found>, &Meta),
    number: GroupId,
) -> Option<u64> {
    let now = leading(after.0, after.1, number)?;
    let then = replica(before.get(&now.node)?.as_ref().ok()?, number)?;
    let same = then.incarnation == now.incarnation && then.lineage == now.lineage;
    same.then(|| now.logged.saturating_sub(then.logged))
}

/// So many events in that time, for each second.
pub(super) fn per_second(events: u64, over: Duration) -> u64 {
    let rate = u128::from(events) * 1_000_000_000 / over.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn nodes(set: &[Member]) -> String {
    let nodes: Vec<String> = set.iter().map(|member| member.node.to_string()).collect();
    if nodes.is_empty() { "none".to_owned() } else { nodes.join(" ") }
}

/// How a cluster of several groups stands, `newest` being the node that knows the newest metadata.
pub(super) fn render(
    found: &BTreeMap<NodeId, Found>,
    newest: &NodeStatus,
    config: &ClusterConfig,
    ui: &Ui,
) -> String {
    let (meta, consensus) = (&newest.meta, &newest.consensus);
    let mut facts = Table::facts();
    let needed = meta.groups.iter().map(|group| group.min_isr).max().unwrap_or(0);
    facts.fact(
        "groups",
        format!("{}; {needed} nodes are needed to commit{}", meta.groups.len(), super::on_disk(config)),
    );
    if !meta.drained.is_empty() {
        let nodes: Vec<String> = meta.drained.iter().map(u16::to_string).collect();
        facts.fact("drained", nodes.join(", "));
    }
    let led = consensus.leader.map_or("led by none".to_owned(), |node| format!("led by node {node}"));
    facts.fact("metadata", format!("{led}, revision {}", meta.revision));
    let mut text = facts.render(ui, 0);
    for (number, _) in meta.numbered().filter(|(_, group)| group.is_lost()) {
        text += &format!(
            "no node is left that has everything of group {number}: tidegate cluster promote-loss --group {number} goes on with what one of them has\n"
        );
    }
    text += "\n";
    text += &of_groups(found, meta, ui);
    text += &super::slots::under_way(found, meta);
    text += "\n";
    text + &of_nodes(found, meta, config, ui)
}

/// Nodes that do not hold a group: from where each has its results, and what event time its readers lack of the leader's.
fn relayed(found: &BTreeMap<NodeId, Found>, meta: &Meta, number: GroupId) -> String {
    let newest = leading(found, meta, number).and_then(|replica| replica.complete);
    let of = |(node, found): (&NodeId, &Found)| {
        let replica = replica(found.as_ref().ok()?, number)?;
        let relay = replica.relay.as_ref()?;
        let Some(from) = relay.from else { return Some(format!("node {node} from nowhere")) };
        let behind = newest.zip(replica.complete).filter(|(newest, here)| *here > 0 && newest > here);
        let behind = behind.map_or(String::new(), |(newest, here)| {
            format!(", {} behind", crate::render::duration(newest - here))
        });
        Some(format!("node {node} from {from}{behind}"))
    };
    let relays: Vec<String> = found.iter().filter_map(of).collect();
    if relays.is_empty() { "none".to_owned() } else { relays.join("; ") }
}

/// The groups: who leads each, who follows how far.
fn of_groups(found: &BTreeMap<NodeId, Found>, meta: &Meta, ui: &Ui) -> String {
    let mut heads =
        vec!["group", ">slots", "leader", ">epoch", "in sync", ">committed", ">events", "behind", "digest"];
    // Where every node holds every group, nobody relays.
    let partial = meta.groups.iter().any(|group| !group.holders.is_empty());
    if partial {
        heads.insert(5, "held by");
        heads.push("relayed by");
    }
    let mut table = Table::new(&heads);
    for (number, group) in meta.numbered() {
        let leads = leading(found, meta, number);
        let leader = match (group.leader, leads) {
            (None, _) => (Tone::Bad, "none".to_owned()),
            (Some(leader), None) => (Tone::Bad, format!("node {} does not say", leader.node)),
            (Some(leader), Some(_)) => (Tone::Plain, format!("node {}", leader.node)),
        };
        let all = meta.holders(number).count();
        let tone = match group.isr.len() {
            count if count < group.min_isr => Tone::Bad,
            count if count < all => Tone::Warn,
            _ => Tone::Plain,
        };
        let mut in_sync = nodes(&group.isr);
        if !group.elr.is_empty() {
            in_sync += &format!(" (eligible {})", nodes(&group.elr));
        }
        // Who is in sync and lacks something, and who is not in sync at all.
        let lag = |follower: &tidegate_cluster::view::FollowerStatus| {
            (follower.entries > 0).then(|| format!("node {} {}", follower.node, thousands(follower.entries)))
        };
        let behind: Vec<String> =
            leads.into_iter().flat_map(|replica| replica.followers.iter().filter_map(lag)).collect();
        let number_of =
            |of: fn(&ReplicaStatus) -> u64| leads.map_or(String::new(), |replica| thousands(of(replica)));
        let mut cells = vec![
            (Tone::Plain, number.to_string()),
            (Tone::Plain, meta.slots.count(number).to_string()),
            leader,
            (Tone::Plain, group.epoch.to_string()),
            (tone, in_sync),
            (Tone::Plain, number_of(|replica| replica.commit)),
            (Tone::Plain, number_of(|replica| replica.logged)),
            (Tone::Plain, if behind.is_empty() { "none".to_owned() } else { behind.join(", ") }),
            (Tone::Faint, leads.map_or(String::new(), |replica| clean(&replica.digest))),
        ];
        if partial {
            let settled = meta.holders(number).filter(|member| !meta.is_coming(number, member.node));
            let mut held: Vec<String> = settled.map(|member| member.node.to_string()).collect();
            if let Some(coming) = group.coming {
                let place = coming.from.map_or(String::new(), |from| format!(", for node {from}"));
                let how = super::copies::progress(found, meta, number, coming.to);
                held.push(format!("(node {} comes{place}: {how})", coming.to));
            }
            let tone = if group.coming.is_some() { Tone::Warn } else { Tone::Plain };
            cells.insert(5, (tone, held.join(" ")));
            cells.push((Tone::Plain, relayed(found, meta, number)));
        }
        table.cells(cells);
    }
    table.render(ui, 0)
}

/// The nodes: what each leads and holds.
fn of_nodes(found: &BTreeMap<NodeId, Found>, meta: &Meta, config: &ClusterConfig, ui: &Ui) -> String {
    let zoned = !config.zones.is_empty();
    let mut heads = vec!["node", "for feeds", "is", ">start", "leads", ">events", "links"];
    if zoned {
        heads.insert(1, "zone");
    }
    let mut table = Table::new(&heads);
    for (&node, found) in found {
        let clients = config.nodes.get(&node).map_or(String::new(), |place| place.clients.to_string());
        let leads = |(number, group): (GroupId, &Group)| {
            group.leader.is_some_and(|leader| leader.node == node).then(|| number.to_string())
        };
        let leads: Vec<String> = meta.numbered().filter_map(leads).collect();
        let leads = if leads.is_empty() { "none".to_owned() } else { leads.join(" ") };
        let mut cells = match found {
            Ok(status) => {
                let held = meta.numbered().filter(|(number, _)| meta.is_held(*number, node));
                let out: Vec<String> = held
                    .filter(|(_, group)| !group.isr.iter().any(|member| member.node == node))
                    .map(|(number, _)| number.to_string())
                    .collect();
                let is = match out.as_slice() {
                    [] => (Tone::Plain, "in sync".to_owned()),
                    out => (Tone::Bad, format!("not in sync in {}", out.join(" "))),
                };
                let links: Vec<String> = status.connected.iter().map(u16::to_string).collect();
                let events = status.all().map(|replica| replica.logged).sum::<u64>();
                vec![
                    is,
                    (Tone::Plain, status.replica.incarnation.to_string()),
                    (Tone::Plain, leads),
                    (Tone::Plain, thousands(events)),
                    (Tone::Plain, links.join(" ")),
                ]
            }
            Err(why) => {
                // Who was never there has a place and nothing else.
                let came = meta.nodes.contains_key(&node);
                let is = if came { why.clone() } else { format!("to come ({why})") };
                let tone = if came { Tone::Bad } else { Tone::Warn };
                let mut cells = vec![(Tone::Plain, String::new()); 5];
                cells[0] = (tone, clean(&is));
                cells[2].1 = leads;
                cells
            }
        };
        cells.insert(0, (Tone::Plain, clients));
        if zoned {
            let zone = config.zones.get(&node).map_or(String::new(), |zone| clean(zone));
            cells.insert(0, (Tone::Plain, zone));
        }
        cells.insert(0, (Tone::Plain, node.to_string()));
        table.cells(cells);
    }
    table.render(ui, 0)
}
