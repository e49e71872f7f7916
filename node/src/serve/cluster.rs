//! How the cluster is, as the gateway shows it.

use std::sync::Arc;
use std::time::Duration;
use tidegate_cluster::view::{Change, MemberView};
use tidegate_cluster::{ClusterView, Observer, ReplicaStatus};
use tidegate_gateway::{ClusterChange, ClusterMember, ClusterReplica, ClusterState};
use tidegate_replica::Member;

/// The way from a node to the gateway.
pub(super) fn source(observer: Observer) -> Arc<dyn Fn() -> ClusterState + Send + Sync> {
    Arc::new(move || state(observer.view()))
}

fn state(view: ClusterView) -> ClusterState {
    let group = view.meta.group;
    let nodes = |set: Vec<Member>| set.into_iter().map(|member| member.node).collect();
    ClusterState {
        cluster: view.cluster,
        node: view.node,
        leader: group.leader.map(|leader| leader.node),
        epoch: group.epoch,
        lineage: group.lineage,
        revision: view.meta.revision,
        min_isr: group.min_isr,
        isr: nodes(group.isr),
        eligible: nodes(group.elr),
        consensus: (view.consensus.leader, view.consensus.term),
        log_bytes_max: ReplicaStatus::LOG_BYTES_MAX,
        members: view.members.into_iter().map(member).collect(),
        changes: view.changes.into_iter().map(change).collect(),
    }
}

fn member(view: MemberView) -> ClusterMember {
    ClusterMember {
        node: view.node,
        peers: view.place.peers,
        clients: view.place.clients,
        incarnation: view.incarnation,
        fenced: view.fenced,
        connected: view.connected,
        heard: view.heard,
        replica: view.told.map(|(replica, age)| ClusterReplica {
            age,
            role: replica.role,
            epoch: replica.epoch,
            end: replica.end,
            committed: replica.commit,
            log_bytes: replica.log_bytes,
            events: replica.logged,
            digest: replica.digest,
        }),
        lag: view.behind.map(|behind| (behind.entries, behind.bytes)),
    }
}

fn change((change, age): (Change, Duration)) -> ClusterChange {
    ClusterChange {
        kind: change.kind.name(),
        age,
        epoch: change.epoch,
        lineage: change.lineage,
        from: change.from,
        to: change.to,
        reason: change.reason,
    }
}
