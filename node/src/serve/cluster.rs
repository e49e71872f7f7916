//! How the cluster is, as the gateway shows it.

use std::sync::Arc;
use std::time::Duration;
use tidegate_cluster::view::{Change, MemberView};
use tidegate_cluster::{ClusterView, Observer, ReplicaStatus};
use tidegate_gateway::{
    ClusterChange, ClusterGroup, ClusterMember, ClusterReplica, ClusterState, GroupCopy, GroupRelay,
    GroupReplica,
};
use tidegate_proto::{GroupLead, GroupMap};
use tidegate_quic::GroupSource;
use tidegate_replica::{Group, Member};

/// Where the groups are now, as feeds are told.
pub(super) fn groups(observer: Observer) -> GroupSource {
    Arc::new(move || {
        let (meta, (me, places)) = (observer.meta(), observer.places());
        // One that has just started may not know yet that it belongs to the cluster, and would say that it holds nothing.
        if !meta.nodes.contains_key(&me) {
            return None;
        }
        let lead = |(_, group): (u16, &Group)| GroupLead {
            node: group.leader.map(|leader| leader.node),
            address: group.leader.and_then(|leader| places.get(&leader.node)).map(|place| place.clients),
            epoch: group.epoch,
            // To readers of earlier versions: results are here of every group, of those that other nodes hold too.
            held: true,
        };
        let leads = meta.numbered().map(lead).collect();
        // Metadata has slots of its groups only.
        GroupMap::new(meta.revision, meta.slots.runs().to_vec(), leads).ok()
    })
}

/// The way from a node to the gateway.
pub(super) fn source(observer: Observer) -> Arc<dyn Fn() -> ClusterState + Send + Sync> {
    Arc::new(move || state(observer.view()))
}

fn state(view: ClusterView) -> ClusterState {
    let group = &view.meta.groups[0];
    let nodes = |set: &[Member]| set.iter().map(|member| member.node).collect();
    let of = |(number, group): (u16, &Group)| {
        let said = |member: &MemberView| {
            let (first, age) = member.told.as_ref()?;
            let (said, behind) = match usize::from(number).checked_sub(1) {
                None => (first, member.behind),
                Some(other) => member.others.get(other).map(|(said, behind)| (said, *behind))?,
            };
            let lag = behind.map(|behind| (behind.entries, behind.bytes));
            let held = said.relay.is_none();
            held.then(|| GroupReplica { node: member.node, replica: replica(said.clone(), *age), lag })
        };
        let all = || view.members.iter().filter_map(|member| Some((member, of_group(member, number)?)));
        // As its leader has them for its readers.
        let leader = group.leader.map(|leader| leader.node);
        let newest =
            all().find(|(member, _)| Some(member.node) == leader).and_then(|(_, said)| said.0.complete);
        let relays = all().filter_map(|(member, (said, age))| {
            let relay = said.relay.as_ref()?;
            let behind = newest.zip(said.complete).filter(|(newest, here)| *newest > 0 && *here > 0);
            Some(GroupRelay {
                node: member.node,
                age,
                from: relay.from,
                caught_up: relay.caught_up,
                behind: behind.map(|(newest, here)| Duration::from_nanos(newest.saturating_sub(here))),
                records: relay.records,
                skipped: relay.skipped,
            })
        });
        let coming = group.coming.map(|coming| {
            let said = view.members.iter().find(|member| member.node == coming.to);
            let said = said.and_then(|member| of_group(member, number)).map(|(said, _)| said);
            let taking = said.and_then(|said| said.taking_up.as_ref());
            GroupCopy {
                to: coming.to,
                from: coming.from,
                // In its last step it is a replica, with its engine.
                entries: taking
                    .map(|taking| taking.commit)
                    .or(said.filter(|said| said.relay.is_none()).map(|said| said.commit)),
                fetching: taking.and_then(|taking| taking.fetching),
                problem: taking.and_then(|taking| taking.problem.clone()),
            }
        });
        ClusterGroup {
            slots: view.meta.slots.count(number),
            leader: group.leader.map(|leader| leader.node),
            epoch: group.epoch,
            lineage: group.lineage,
            min_isr: group.min_isr,
            isr: nodes(&group.isr),
            eligible: nodes(&group.elr),
            replicas: view.members.iter().filter_map(said).collect(),
            holders: group.holders.clone(),
            relays: relays.collect(),
            coming,
        }
    };
    let several = view.meta.groups.len() > 1;
    let moves = view.meta.under_way().map(|(slot, of)| (slot, view.meta.slots.group_of(slot), of.to));
    ClusterState {
        groups: view.meta.numbered().filter(|_| several).map(of).collect(),
        slots: view.meta.slots.runs().to_vec(),
        moves: moves.collect(),
        cluster: view.cluster,
        node: view.node,
        leader: group.leader.map(|leader| leader.node),
        epoch: group.epoch,
        lineage: group.lineage,
        revision: view.meta.revision,
        min_isr: group.min_isr,
        isr: nodes(&group.isr),
        eligible: nodes(&group.elr),
        consensus: (view.consensus.leader, view.consensus.term),
        log_bytes_max: ReplicaStatus::LOG_BYTES_MAX,
        members: view.members.into_iter().map(member).collect(),
        changes: view.changes.into_iter().map(change).collect(),
    }
}

/// What a node said last of a group, and how long ago.
fn of_group(member: &MemberView, group: u16) -> Option<(&ReplicaStatus, Duration)> {
    let (first, age) = member.told.as_ref()?;
    let said = match usize::from(group).checked_sub(1) {
        None => first,
        Some(other) => &member.others.get(other)?.0,
    };
    Some((said, *age))
}

fn member(view: MemberView) -> ClusterMember {
    ClusterMember {
        node: view.node,
        peers: view.place.peers,
        clients: view.place.clients,
        zone: view.zone,
        incarnation: view.incarnation,
        fenced: view.fenced,
        connected: view.connected,
        heard: view.heard,
        replica: view.told.map(|(said, age)| replica(said, age)),
        lag: view.behind.map(|behind| (behind.entries, behind.bytes)),
    }
}

fn replica(said: ReplicaStatus, age: Duration) -> ClusterReplica {
    ClusterReplica {
        age,
        role: said.role,
        epoch: said.epoch,
        end: said.end,
        committed: said.commit,
        log_bytes: said.log_bytes,
        events: said.logged,
        digest: said.digest,
    }
}

fn change((change, age): (Change, Duration)) -> ClusterChange {
    ClusterChange {
        kind: change.kind.name(),
        group: change.group,
        age,
        epoch: change.epoch,
        lineage: change.lineage,
        from: change.from,
        to: change.to,
        reason: change.reason,
    }
}
