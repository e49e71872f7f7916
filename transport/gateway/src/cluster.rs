//! The cluster, where the server is a node of one: as one document, as counters, and as what is wrong with it.

use crate::error::ApiError;
use crate::server::Shared;
use axum::http::StatusCode;
use jiff::Timestamp;
use metrics::{Unit, describe_gauge, gauge};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_engine::SLOT_COUNT;

/// The leader is believed to be there for so long after its last word. Followers hear from it many times a second.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Part of its bound from which on a log is called nearly full.
const LOG_NEARLY_FULL: f64 = 0.8;
/// Entries a follower may lack before that is worth a word.
const ENTRIES_BEHIND: u64 = 4_096;
/// Groups that are named in one sentence about what is waited for.
const AWAITED_NAMED_MAX: usize = 4;

/// The cluster as the server's node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// The cluster's own number.
    pub cluster: String,
    /// The node that this server is.
    pub node: u16,
    /// Who leads.
    pub leader: Option<u16>,
    /// Counts changes of leadership.
    pub epoch: u32,
    /// The log's history; another one after a declared loss.
    pub lineage: u64,
    /// Counts changes of metadata.
    pub revision: u64,
    /// Nodes that must have an entry before it is committed.
    pub min_isr: usize,
    /// In sync: each of them has everything that is committed.
    pub isr: Vec<u16>,
    /// Not in sync, and known to have everything nevertheless.
    pub eligible: Vec<u16>,
    /// Who leads consensus on metadata, and its term.
    pub consensus: (Option<u64>, u64),
    /// What a log may grow to, in bytes.
    pub log_bytes_max: u64,
    /// All nodes, by number.
    pub members: Vec<ClusterMember>,
    /// The groups by number, where there are several: what is said above is of the first then. Empty where there is one.
    pub groups: Vec<ClusterGroup>,
    /// Where runs of slots of one group begin, and of which.
    pub slots: Vec<(u16, u16)>,
    /// Slots that are on their way: which, from which group, and to which.
    pub moves: Vec<(u16, u16, u16)>,
    /// What changed since this node's start, the newest first.
    pub changes: Vec<ClusterChange>,
}

/// One of several groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterGroup {
    /// Slots it has.
    pub slots: u16,
    /// Who leads it.
    pub leader: Option<u16>,
    /// Counts changes of its leadership.
    pub epoch: u32,
    /// Its log's history; another one after a declared loss.
    pub lineage: u64,
    /// Nodes that must have an entry before it is committed.
    pub min_isr: usize,
    /// In sync.
    pub isr: Vec<u16>,
    /// Not in sync, and known to have everything nevertheless.
    pub eligible: Vec<u16>,
    /// What nodes said last of their replicas, by node.
    pub replicas: Vec<GroupReplica>,
    /// Nodes that hold it; empty where every node holds every group.
    pub holders: Vec<u16>,
    /// What the others said last of how they relay it.
    pub relays: Vec<GroupRelay>,
    /// A copy that is on its way.
    pub coming: Option<GroupCopy>,
}

/// A copy of a group that comes to a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCopy {
    /// The node.
    pub to: u16,
    /// Whose copy goes once this one is there; none where it is one more.
    pub from: Option<u16>,
    /// Entries of the log that are there and committed; `None` before the node says so.
    pub entries: Option<u64>,
    /// The snapshot that is fetched: bytes that are there, and all.
    pub fetching: Option<(u64, u64)>,
    /// Why it does not come on.
    pub problem: Option<String>,
}

/// What a node said last of how it relays a group that it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRelay {
    /// The node.
    pub node: u16,
    /// Time since it said so.
    pub age: Duration,
    /// The node that it reads at; none while it has found none.
    pub from: Option<u16>,
    /// Whether its readers have all that was there when it found that node; `None` where a node of an earlier version does not say.
    pub caught_up: Option<bool>,
    /// Event time that its readers lack of what the leader's have; `None` while that is not known.
    pub behind: Option<Duration>,
    /// Results that it handed on since its start, and those that no holder had any more.
    pub records: u64,
    /// See `records`.
    pub skipped: u64,
}

/// What a node said last of its replica of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReplica {
    /// The node.
    pub node: u16,
    /// What it said.
    pub replica: ClusterReplica,
    /// Entries and bytes of inputs it lacks of the leader's log; `None` for the leader, and while the leader does not know.
    pub lag: Option<(u64, u64)>,
}

impl ClusterGroup {
    fn is_held(&self, node: u16) -> bool {
        self.holders.is_empty() || self.holders.contains(&node)
    }

    fn replica(&self, node: u16) -> Option<&ClusterReplica> {
        self.replicas.iter().find(|of| of.node == node).map(|of| &of.replica)
    }

    fn lag(&self, node: u16) -> Option<(u64, u64)> {
        self.replicas.iter().find(|of| of.node == node)?.lag
    }

    fn json(&self, number: usize, node: u16) -> Value {
        let own = self.replica(node);
        let replica = |GroupReplica { node, replica, lag }: &GroupReplica| {
            json!({
                "node": node, "role": replica.role, "epoch": replica.epoch, "end": replica.end,
                "committed": replica.committed, "log_bytes": replica.log_bytes, "events": replica.events,
                "digest": replica.digest, "status_age_ms": millis(replica.age),
                "lag": lag.map(|(entries, bytes)| json!({"entries": entries, "bytes": bytes})),
            })
        };
        let relay = |relay: &GroupRelay| {
            json!({
                "node": relay.node, "from": relay.from, "caught_up": relay.caught_up, "behind_ms": relay.behind.map(millis),
                "results": relay.records, "skipped": relay.skipped, "status_age_ms": millis(relay.age),
            })
        };
        let mut found = json!({
            "group": number,
            "slots": self.slots,
            "leader": self.leader,
            "epoch": self.epoch,
            "lineage": self.lineage,
            "min_isr": self.min_isr,
            "isr": self.isr,
            "eligible": self.eligible,
            "end": own.map(|own| own.end),
            "committed": own.map(|own| own.committed),
            "events": own.map(|own| own.events),
            "replicas": self.replicas.iter().map(replica).collect::<Vec<_>>(),
        });
        // Where every node holds every group nothing is said of it.
        if !self.holders.is_empty() {
            found["holders"] = json!(self.holders);
            found["relays"] = self.relays.iter().map(relay).collect();
        }
        if let Some(copy) = &self.coming {
            found["coming"] = json!({
                "to": copy.to, "from": copy.from, "entries": copy.entries, "problem": copy.problem,
                "fetching": copy.fetching.map(|(have, all)| json!({"have": have, "all": all})),
            });
        }
        found
    }

    /// What readers of a node wait for before they have the results of this group; `None` when they need not.
    fn awaited(&self, node: u16) -> Option<String> {
        // A node to which a copy comes counts as a holder, and relays until that is there.
        match self.relays.iter().find(|relay| relay.node == node) {
            Some(GroupRelay { from: None, .. }) => {
                let mut holders = self.holders.clone();
                holders.sort_unstable();
                Some(format!("no node to read them at can be reached, of {}", names(&holders)))
            }
            Some(GroupRelay { from: Some(from), caught_up: Some(false), .. }) => {
                Some(format!("those from before are still being read at node {from}"))
            }
            None if !self.is_held(node) => Some("this node is about to look for who has them".to_owned()),
            _ => None,
        }
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMember {
    /// The node.
    pub node: u16,
    /// Where other nodes find it.
    pub peers: SocketAddr,
    /// Where feeds and subscribers find it.
    pub clients: SocketAddr,
    /// What fails together with it, if anybody said so.
    pub zone: Option<String>,
    /// Which start of it the cluster knows.
    pub incarnation: u64,
    /// Whether that start was given up.
    pub fenced: bool,
    /// Whether this node is connected to it.
    pub connected: bool,
    /// Time since it said anything; of this node itself `None`.
    pub heard: Option<Duration>,
    /// What it said last of its replica; `None` before it has said anything.
    pub replica: Option<ClusterReplica>,
    /// Entries and bytes of inputs it lacks of the leader's log; `None` for the leader, and while the leader does not know.
    pub lag: Option<(u64, u64)>,
}

/// A replica of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterReplica {
    /// Time since it said so.
    pub age: Duration,
    /// `leader`, `follower` or `fenced`.
    pub role: String,
    /// The newest epoch it knows.
    pub epoch: u32,
    /// Offset behind its last entry.
    pub end: u64,
    /// Offset below which all is committed, as far as it knows.
    pub committed: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Events its engine has.
    pub events: u64,
    /// Digest of all inputs up to `committed`.
    pub digest: String,
}

/// Something that changed in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterChange {
    /// `fail_over`, `move`, `leaderless`, `elected`, `loss`, `joined`, `left`, `copy` or `slot`.
    pub kind: &'static str,
    /// In which group.
    pub group: u16,
    /// How long ago.
    pub age: Duration,
    /// The epoch since.
    pub epoch: u32,
    /// The log's history since.
    pub lineage: u64,
    /// Who led, or who left.
    pub from: Option<u16>,
    /// Who leads, or who joined.
    pub to: Option<u16>,
    /// Why, for people.
    pub reason: String,
}

/// Something about the cluster that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Warning {
    code: &'static str,
    /// Whether something does not work, not only might soon.
    bad: bool,
    text: String,
}

/// Numbers of nodes in words.
fn names(nodes: &[u16]) -> String {
    let names: Vec<String> = nodes.iter().map(u16::to_string).collect();
    match names.as_slice() {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        [first @ .., last] => format!("nodes {} and {last}", first.join(", ")),
    }
}

impl ClusterState {
    fn member(&self, node: u16) -> Option<&ClusterMember> {
        self.members.iter().find(|member| member.node == node)
    }

    fn own(&self) -> Option<&ClusterReplica> {
        self.member(self.node)?.replica.as_ref()
    }

    /// Whether more than half of the nodes can be reached: with fewer nothing can be decided any more.
    fn has_majority(&self) -> bool {
        2 * self.members.iter().filter(|member| member.connected).count() > self.members.len()
    }

    /// Every group, one at least.
    fn parts(&self) -> Vec<ClusterGroup> {
        if !self.groups.is_empty() {
            return self.groups.clone();
        }
        let replica = |member: &ClusterMember| {
            let replica = member.replica.clone()?;
            Some(GroupReplica { node: member.node, replica, lag: member.lag })
        };
        vec![ClusterGroup {
            slots: SLOT_COUNT as u16,
            leader: self.leader,
            epoch: self.epoch,
            lineage: self.lineage,
            min_isr: self.min_isr,
            isr: self.isr.clone(),
            eligible: self.eligible.clone(),
            replicas: self.members.iter().filter_map(replica).collect(),
            ..ClusterGroup::default()
        }]
    }

    /// The group of a slot.
    fn group_of(&self, slot: u16) -> u16 {
        let at = self.slots.partition_point(|(first, _)| *first <= slot);
        at.checked_sub(1).and_then(|at| self.slots.get(at)).map_or(0, |run| run.1)
    }

    /// Which group that is, before something is said of it; nothing where there is one only.
    fn said(&self, group: usize) -> String {
        if self.groups.is_empty() { String::new() } else { format!("group {group}: ") }
    }

    /// Why nothing can be acknowledged, or nothing of some group, as far as is known here; `None` when all can.
    fn leaderless(&self) -> Option<String> {
        if !self.has_majority() {
            return Some("less than a majority of the nodes can be reached".to_owned());
        }
        let mut parts = self.parts().into_iter().enumerate();
        parts.find_map(|(at, part)| Some(self.said(at) + &self.without(part.leader)?))
    }

    /// Why there is nobody who leads; `None` when there is.
    fn without(&self, leader: Option<u16>) -> Option<String> {
        let Some(leader) = leader else {
            return Some(
                if self.groups.is_empty() { "nobody leads the cluster" } else { "nobody leads it" }
                    .to_owned(),
            );
        };
        let member = self.member(leader).filter(|_| leader != self.node)?;
        let silent = member.heard.is_none_or(|heard| heard > SILENCE_MAX);
        silent.then(|| match member.heard {
            Some(heard) => {
                format!("node {leader} leads, and was not heard of for {:.1} s", heard.as_secs_f64())
            }
            None => format!("node {leader} leads, and was never heard of"),
        })
    }

    /// What has to come before readers of this node can see the results of all groups; `None` when they can.
    fn awaited(&self) -> Option<String> {
        let parts = self.parts();
        let all: Vec<String> = parts
            .iter()
            .enumerate()
            .filter_map(|(at, part)| Some(format!("group {at} ({})", part.awaited(self.node)?)))
            .collect();
        let more = match all.len().saturating_sub(AWAITED_NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = all.iter().take(AWAITED_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        (!all.is_empty()).then(|| format!("waits for results of groups that other nodes hold: {named}{more}"))
    }

    /// What is wrong, the worst first.
    fn warnings(&self) -> Vec<Warning> {
        let mut found = Vec::new();
        let mut say = |code, bad, text| found.push(Warning { code, bad, text });
        let leaderless = self.leaderless();
        if let Some(why) = &leaderless {
            say("no_leader", true, format!("{why}: nothing is taken in"));
        }
        let parts = self.parts();
        // The first group that has this trouble speaks for all of them.
        for (at, part) in parts.iter().enumerate() {
            let of = self.said(at);
            let option = if self.groups.is_empty() { String::new() } else { format!(" --group {at}") };
            if part.leader.is_none() && part.isr.is_empty() && part.eligible.is_empty() {
                let text = format!(
                    "{of}no node is left that has everything: `tidegate cluster promote-loss{option}` goes on with what one of them has"
                );
                say("loss", true, text);
            }
            let (isr, min_isr) = (part.isr.len(), part.min_isr);
            if isr < min_isr {
                say(
                    "below_minimum",
                    true,
                    format!("{of}{isr} in sync, {min_isr} are needed: nothing is committed until more are"),
                );
            } else if isr == min_isr && self.members.len() > 1 {
                let text = format!("{of}{} in sync: one more loss stops commits", names(&part.isr));
                say("one_more_loss", false, text);
            }
        }
        let silent = |member: &&ClusterMember| member.node != self.node && !member.connected;
        let gone: Vec<u16> = self.members.iter().filter(silent).map(|member| member.node).collect();
        if !gone.is_empty() {
            say("not_connected", false, format!("{} cannot be reached from here", names(&gone)));
        }
        let lags = |member: &&ClusterMember| {
            parts.iter().any(|part| {
                let lacks = part.lag(member.node).is_some_and(|(entries, _)| entries > ENTRIES_BEHIND);
                lacks || member.connected && part.is_held(member.node) && !part.isr.contains(&member.node)
            })
        };
        let behind: Vec<u16> = self.members.iter().filter(lags).map(|member| member.node).collect();
        if !behind.is_empty() {
            say("behind", false, format!("behind the leader: {}", names(&behind)));
        }
        let apart = |(at, part): (usize, &ClusterGroup)| {
            let lost = part.relays.iter().find(|relay| relay.from.is_none())?;
            Some(format!(
                "{}node {} finds no node to relay it from: its readers wait",
                self.said(at),
                lost.node
            ))
        };
        if let Some(text) = parts.iter().enumerate().find_map(apart) {
            say("not_relayed", false, text);
        }
        // Each log of a node may grow to the same part of what all may.
        let logs = parts.iter().flat_map(|part| &part.replicas).map(|of| of.replica.log_bytes).max();
        let bytes = logs.map(|bytes| bytes.saturating_mul(parts.len() as u64));
        let full = bytes.unwrap_or(0) as f64 / (self.log_bytes_max.max(1)) as f64;
        if full >= 1.0 {
            say("log_full", true, "the log is full: nothing is taken in".to_owned());
        } else if full >= LOG_NEARLY_FULL {
            say("log_nearly_full", false, format!("the log has {:.0} % of what it may have", full * 100.0));
        }
        let differs = |(at, part): (usize, &ClusterGroup)| Some((at, differs(part, self.node)?));
        if let Some((at, other)) = parts.iter().enumerate().find_map(differs) {
            let of = self.said(at);
            let text = format!(
                "{of}node {other} has another digest than this one at the same offset: this is a bug"
            );
            say("digest_differs", true, text);
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|warning| seen.insert(warning.code));
        found.sort_by_key(|warning| !warning.bad);
        found
    }

    fn json(&self, now_ns: Option<u64>) -> Value {
        let own = self.own();
        let member = |member: &ClusterMember| {
            let replica = member.replica.as_ref();
            let of = |value: fn(&ClusterReplica) -> Value| replica.map_or(Value::Null, value);
            json!({
                "node": member.node,
                "self": member.node == self.node,
                "peers": member.peers.to_string(),
                "clients": member.clients.to_string(),
                "zone": member.zone,
                "incarnation": member.incarnation,
                "fenced": member.fenced,
                "connected": member.connected,
                "heard_ms": member.heard.map(millis),
                "in_sync": self.isr.contains(&member.node),
                "eligible": self.eligible.contains(&member.node),
                "status_age_ms": of(|replica| millis(replica.age)),
                "role": of(|replica| replica.role.clone().into()),
                "epoch": of(|replica| replica.epoch.into()),
                "end": of(|replica| replica.end.into()),
                "committed": of(|replica| replica.committed.into()),
                "log_bytes": of(|replica| replica.log_bytes.into()),
                "events": of(|replica| replica.events.into()),
                "digest": of(|replica| replica.digest.clone().into()),
                "lag": member.lag.map(|(entries, bytes)| json!({"entries": entries, "bytes": bytes})),
            })
        };
        let change = |change: &ClusterChange| {
            let ago = u64::try_from(change.age.as_nanos()).unwrap_or(u64::MAX);
            let at = now_ns.map(|now| Timestamp::from_nanosecond(now.saturating_sub(ago).into()));
            json!({
                "kind": change.kind, "group": change.group, "epoch": change.epoch, "lineage": change.lineage, "from": change.from,
                "to": change.to, "reason": change.reason, "age_ms": millis(change.age),
                "time": at.and_then(Result::ok).map(|at| format!("{at:.3}")),
            })
        };
        json!({
            "cluster": self.cluster,
            "node": self.node,
            "role": own.map(|own| &own.role),
            "leader": self.leader,
            "epoch": self.epoch,
            "lineage": self.lineage,
            "revision": self.revision,
            "min_isr": self.min_isr,
            "isr": self.isr,
            "eligible": self.eligible,
            "consensus": {"leader": self.consensus.0, "term": self.consensus.1},
            "end": own.map(|own| own.end),
            "committed": own.map(|own| own.committed),
            "digest": own.map(|own| json!({"value": own.digest, "offset": own.committed})),
            "log_bytes": own.map(|own| own.log_bytes),
            "log_bytes_max": self.log_bytes_max,
            "members": self.members.iter().map(member).collect::<Vec<_>>(),
            "slots": self.slots,
            "moves": self.moves.iter().map(|(slot, from, to)| (slot.to_string(), json!({"from": from, "to": to}))).collect::<serde_json::Map<_, _>>(),
            "groups": self.parts().iter().enumerate().map(|(at, part)| part.json(at, self.node)).collect::<Vec<_>>(),
            "changes": self.changes.iter().map(change).collect::<Vec<_>>(),
            "warnings": self.warnings().iter().map(|warning| json!({
                "code": warning.code, "severity": if warning.bad { "bad" } else { "warn" }, "text": warning.text,
            })).collect::<Vec<_>>(),
        })
    }

    /// The few words of it that the state of the server has.
    fn brief(&self) -> Value {
        let warnings = self.warnings();
        json!({
            "node": self.node,
            "nodes": self.members.len(),
            "role": self.own().map(|own| &own.role),
            "leader": self.leader,
            "epoch": self.epoch,
            "in_sync": self.isr.len(),
            "min_isr": self.min_isr,
            "warnings": warnings.len(),
            "bad": warnings.iter().any(|warning| warning.bad),
        })
    }
}

/// A node that has other inputs of a group up to the same offset than this one.
fn differs(group: &ClusterGroup, node: u16) -> Option<u16> {
    let own = group.replica(node)?;
    let same = |other: &ClusterReplica| {
        (other.committed, other.epoch) == (own.committed, own.epoch) && other.digest != own.digest
    };
    group.replicas.iter().find(|other| same(&other.replica)).map(|other| other.node)
}

fn millis(time: Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}

fn state(shared: &Shared) -> Option<ClusterState> {
    shared.sources.cluster.as_ref().map(|cluster| cluster())
}

/// The document; an error on a server that stands alone.
pub(crate) fn document(shared: &Shared) -> Result<Value, ApiError> {
    let alone = || {
        let message = "this server is no node of a cluster: it holds its log alone";
        ApiError::new(StatusCode::NOT_FOUND, "no_cluster", message)
    };
    let now_ns = shared.sources.now_ns.map(|now_ns| now_ns());
    Ok(state(shared).ok_or_else(alone)?.json(now_ns))
}

/// The same in a few words; null on a server that stands alone.
pub(crate) fn brief(shared: &Shared) -> Value {
    state(shared).map_or(Value::Null, |state| state.brief())
}

/// The group of a slot; which of those that this server holds it is, if it does, and how many these are. A server that stands alone holds one.
pub(crate) fn group_of(shared: &Shared, slot: u16) -> (u16, Option<u16>, usize) {
    state(shared).map_or((0, Some(0), 1), |state| state.place_of(slot))
}

/// Who holds the group that what is in a slot is computed from; null on a server that stands alone.
pub(crate) fn holders(shared: &Shared, slot: u16) -> Value {
    state(shared).map_or(Value::Null, |state| state.holders(slot))
}

impl ClusterState {
    fn place_of(&self, slot: u16) -> (u16, Option<u16>, usize) {
        let (group, parts) = (self.group_of(slot), self.parts());
        let held = |part: &&ClusterGroup| part.is_held(self.node);
        let place = parts.get(usize::from(group)).filter(held).map(|_| {
            let before = parts.iter().take(group.into()).filter(held);
            before.count() as u16
        });
        (group, place, parts.iter().filter(held).count())
    }

    fn holders(&self, slot: u16) -> Value {
        let group = self.group_of(slot);
        let parts = self.parts();
        let Some(part) = parts.get(usize::from(group)) else { return Value::Null };
        let own = part.replica(self.node);
        let follows = |member: &&ClusterMember| part.leader != Some(member.node) && part.is_held(member.node);
        let follower = |member: &ClusterMember| {
            json!({
                "node": member.node,
                "in_sync": part.isr.contains(&member.node),
                "connected": member.connected,
                "end": part.replica(member.node).map(|replica| replica.end),
                "lag": part.lag(member.node).map(|(entries, bytes)| json!({"entries": entries, "bytes": bytes})),
            })
        };
        let mut found = json!({
            "node": self.node,
            "leader": part.leader,
            "epoch": part.epoch,
            "end": own.map(|own| own.end),
            "committed": own.map(|own| own.committed),
            "followers": self.members.iter().filter(follows).map(follower).collect::<Vec<_>>(),
        });
        if !part.holders.is_empty() {
            found["holders"] = json!(part.holders);
            let relay = |relay: &GroupRelay| json!({"node": relay.node, "from": relay.from, "behind_ms": relay.behind.map(millis)});
            found["relays"] = part.relays.iter().map(relay).collect();
        }
        found
    }
}

/// Whether somebody leads every group, and readers here can see the results of all, as far as this server knows.
pub(crate) fn readiness(shared: &Shared) -> Result<(), ApiError> {
    let Some(state) = state(shared) else { return Ok(()) };
    let reasons: Vec<String> = state.leaderless().into_iter().chain(state.awaited()).collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reasons.join("; ")))
}

/// Says what the counters are.
pub(crate) fn describe() {
    describe_gauge!("tidegate_cluster_nodes", "Nodes of the cluster.");
    describe_gauge!("tidegate_cluster_groups", "Groups of the cluster.");
    describe_gauge!("tidegate_cluster_groups_led", "Groups that this node leads.");
    describe_gauge!("tidegate_cluster_leader", "1 on the node that leads, as it says itself.");
    describe_gauge!("tidegate_cluster_has_leader", "1 while somebody leads and is heard of.");
    describe_gauge!("tidegate_cluster_epoch", "Counts changes of leadership.");
    describe_gauge!("tidegate_cluster_lineage", "The log's history; another one after a declared loss.");
    describe_gauge!("tidegate_cluster_in_sync_nodes", "Nodes in sync.");
    describe_gauge!("tidegate_cluster_in_sync_nodes_min", "Nodes needed to commit.");
    describe_gauge!(
        "tidegate_cluster_eligible_nodes",
        "Nodes not in sync that have everything nevertheless."
    );
    describe_gauge!("tidegate_cluster_in_sync", "1 for a node that is in sync.");
    describe_gauge!("tidegate_cluster_groups_held", "Groups that this node holds.");
    describe_gauge!("tidegate_cluster_groups_relayed", "Groups whose results this node reads at others now.");
    describe_gauge!(
        "tidegate_cluster_relay_behind_seconds",
        Unit::Seconds,
        "Event time that this node lacks of a group that it relays."
    );
    describe_gauge!(
        "tidegate_cluster_relay_skipped",
        "Results of a group that this node relays that no holder had any more."
    );
    describe_gauge!("tidegate_cluster_connected", "1 for a node that this one is connected to.");
    describe_gauge!("tidegate_cluster_silence_seconds", Unit::Seconds, "Time since a node said anything.");
    describe_gauge!("tidegate_cluster_lag_entries", "Entries of the leader's log that a node lacks.");
    describe_gauge!(
        "tidegate_cluster_lag_bytes",
        Unit::Bytes,
        "Bytes of inputs of the leader's log that a node lacks."
    );
    describe_gauge!(
        "tidegate_cluster_committed_offset",
        "Offset below which this node knows all to be committed."
    );
    describe_gauge!("tidegate_cluster_end_offset", "Offset behind the last entry of this node's log.");
    describe_gauge!("tidegate_cluster_log_bytes", Unit::Bytes, "Size of this node's log.");
    describe_gauge!("tidegate_cluster_log_bytes_max", Unit::Bytes, "What it may grow to.");
    describe_gauge!(
        "tidegate_cluster_warnings",
        "What somebody should know of, by whether something does not work."
    );
}

/// The counters, on a node of a cluster. Labels are nodes, of which there are few.
pub(crate) fn measure(shared: &Shared) {
    let Some(state) = state(shared) else { return };
    let yes = |is: bool| f64::from(u8::from(is));
    gauge!("tidegate_cluster_nodes").set(state.members.len() as f64);
    let leads = |part: &&ClusterGroup| part.leader == Some(state.node);
    let parts = state.parts();
    gauge!("tidegate_cluster_groups").set(parts.len() as f64);
    gauge!("tidegate_cluster_groups_led").set(parts.iter().filter(leads).count() as f64);
    // Where every node holds every group there is nothing to relay.
    if parts.iter().any(|part| !part.holders.is_empty()) {
        let held = parts.iter().filter(|part| part.is_held(state.node)).count();
        gauge!("tidegate_cluster_groups_held").set(held as f64);
        let mut relayed = 0;
        for (at, part) in parts.iter().enumerate() {
            let Some(own) = part.relays.iter().find(|relay| relay.node == state.node) else { continue };
            relayed += usize::from(own.from.is_some());
            let behind = own.behind.map_or(f64::NAN, |behind| behind.as_secs_f64());
            gauge!("tidegate_cluster_relay_behind_seconds", "group" => at.to_string()).set(behind);
            gauge!("tidegate_cluster_relay_skipped", "group" => at.to_string()).set(own.skipped as f64);
        }
        gauge!("tidegate_cluster_groups_relayed").set(relayed as f64);
    }
    gauge!("tidegate_cluster_has_leader").set(yes(state.leaderless().is_none()));
    gauge!("tidegate_cluster_epoch").set(f64::from(state.epoch));
    gauge!("tidegate_cluster_lineage").set(state.lineage as f64);
    gauge!("tidegate_cluster_in_sync_nodes").set(state.isr.len() as f64);
    gauge!("tidegate_cluster_in_sync_nodes_min").set(state.min_isr as f64);
    gauge!("tidegate_cluster_eligible_nodes").set(state.eligible.len() as f64);
    gauge!("tidegate_cluster_log_bytes_max").set(state.log_bytes_max as f64);
    if let Some(own) = state.own() {
        gauge!("tidegate_cluster_leader").set(yes(own.role == "leader"));
        gauge!("tidegate_cluster_committed_offset").set(own.committed as f64);
        gauge!("tidegate_cluster_end_offset").set(own.end as f64);
        gauge!("tidegate_cluster_log_bytes").set(own.log_bytes as f64);
    }
    for member in &state.members {
        let node = member.node.to_string();
        gauge!("tidegate_cluster_in_sync", "node" => node.clone()).set(yes(state.isr.contains(&member.node)));
        gauge!("tidegate_cluster_connected", "node" => node.clone()).set(yes(member.connected));
        // Not a number while nobody knows, as summaries have it.
        let of = |known: Option<f64>| known.unwrap_or(f64::NAN);
        let leads = state.leader == Some(member.node);
        let lag = if leads { Some((0, 0)) } else { member.lag };
        let silence = if member.node == state.node { Some(Duration::ZERO) } else { member.heard };
        gauge!("tidegate_cluster_silence_seconds", "node" => node.clone())
            .set(of(silence.map(|of| of.as_secs_f64())));
        gauge!("tidegate_cluster_lag_entries", "node" => node.clone())
            .set(of(lag.map(|(entries, _)| entries as f64)));
        gauge!("tidegate_cluster_lag_bytes", "node" => node).set(of(lag.map(|(_, bytes)| bytes as f64)));
    }
    let warnings = state.warnings();
    for (severity, bad) in [("warn", false), ("bad", true)] {
        let count = warnings.iter().filter(|warning| warning.bad == bad).count();
        gauge!("tidegate_cluster_warnings", "severity" => severity).set(count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> ClusterState {
        let member = |node: u16| ClusterMember {
            node,
            peers: SocketAddr::from(([10, 0, 0, node as u8], 7500)),
            clients: SocketAddr::from(([10, 0, 0, node as u8], 7443)),
            zone: (node == 2).then(|| "east".to_owned()),
            incarnation: 1,
            fenced: false,
            connected: true,
            heard: (node != 2).then_some(Duration::from_millis(20)),
            replica: Some(ClusterReplica {
                age: Duration::from_millis(300),
                role: if node == 1 { "leader" } else { "follower" }.to_owned(),
                epoch: 4,
                end: 100,
                committed: 100,
                log_bytes: 5_000,
                events: 900,
                digest: "00ff".to_owned(),
            }),
            lag: (node != 1).then_some((0, 0)),
        };
        ClusterState {
            cluster: "ab".into(),
            node: 2,
            leader: Some(1),
            epoch: 4,
            lineage: 1,
            revision: 9,
            min_isr: 2,
            isr: vec![1, 2, 3],
            consensus: (Some(1), 3),
            log_bytes_max: 10_000,
            members: [1, 2, 3].map(member).into(),
            ..ClusterState::default()
        }
    }

    fn codes(state: &ClusterState) -> Vec<&'static str> {
        state.warnings().iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn nothing_is_said_of_a_cluster_that_is_well() {
        let state = healthy();
        assert_eq!(codes(&state), [""; 0]);
        assert_eq!(state.leaderless(), None);
        let brief = state.brief();
        assert_eq!(
            [&brief["role"], &brief["warnings"], &brief["bad"]],
            [&json!("follower"), &json!(0), &json!(false)]
        );
    }

    #[test]
    fn each_trouble_has_a_word_and_the_worst_comes_first() {
        let with = |change: fn(&mut ClusterState)| {
            let mut state = healthy();
            change(&mut state);
            codes(&state)
        };
        assert_eq!(with(|state| state.isr = vec![1, 2]), ["one_more_loss", "behind"]);
        assert_eq!(with(|state| state.isr = vec![1]), ["below_minimum", "behind"]);
        assert_eq!(with(|state| state.leader = None), ["no_leader"]);
        assert_eq!(
            with(|state| (state.leader, state.isr) = (None, Vec::new()))[..3],
            ["no_leader", "loss", "below_minimum"]
        );
        assert_eq!(with(|state| state.members[2].connected = false), ["not_connected"]);
        let cut_off = |state: &mut ClusterState| {
            (state.leader, state.members[0].connected, state.members[2].connected) = (Some(2), false, false);
        };
        assert_eq!(with(cut_off), ["no_leader", "not_connected"]);
        assert_eq!(with(|state| state.members[2].lag = Some((5_000, 1))), ["behind"]);
        assert_eq!(with(|state| state.log_bytes_max = 6_000), ["log_nearly_full"]);
        assert_eq!(with(|state| state.log_bytes_max = 5_000), ["log_full"]);
        let differs = |state: &mut ClusterState| {
            if let Some(replica) = &mut state.members[0].replica {
                replica.digest = "0000".to_owned();
            }
        };
        assert_eq!(with(differs), ["digest_differs"]);
        assert_eq!(
            with(|state| {
                state.members[0].heard = Some(SILENCE_MAX * 2);
                state.members[2].connected = false;
            }),
            ["no_leader", "not_connected"]
        );
    }

    /// The same with four groups, of which each node leads one and the first two.
    fn with_groups() -> ClusterState {
        let mut state = healthy();
        let mut one = state.parts().remove(0);
        one.replicas.iter_mut().for_each(|of| of.replica.log_bytes /= 4);
        let groups = (0..4u16).map(|group| ClusterGroup {
            slots: 1_024,
            leader: Some(1 + group % 3),
            epoch: 4 + u32::from(group),
            ..one.clone()
        });
        state.groups = groups.collect();
        state.slots = (0..4).map(|group| (1_024 * group, group)).collect();
        state
    }

    #[test]
    fn who_relays_a_group_is_not_behind_in_it() {
        let mut state = with_groups();
        for (at, part) in (0u16..).zip(&mut state.groups) {
            let away = 1 + (at + 1) % 3;
            part.holders = (1..=3).filter(|node| *node != away).collect();
            part.isr.retain(|node| *node != away);
            part.replicas.retain(|of| of.node != away);
            let behind = Some(Duration::from_millis(20));
            let (from, age) = (part.leader, Duration::ZERO);
            part.relays = vec![GroupRelay {
                node: away,
                age,
                from,
                behind,
                caught_up: Some(true),
                records: 9,
                skipped: 1,
            }];
        }
        let codes = |state: &ClusterState| state.warnings().iter().map(|of| of.code).collect::<Vec<_>>();
        assert_eq!(codes(&state), ["one_more_loss"], "two copies, both needed");
        let document = state.json(None);
        let relay = &document["groups"][0]["relays"][0];
        assert_eq!((&relay["node"], &relay["behind_ms"], &relay["from"]), (&2.into(), &20.into(), &1.into()));
        assert_eq!(document["groups"][0]["holders"], json!([1, 3]));
        // Node 2 holds two of them, node 1 three.
        assert_eq!([state.place_of(0), state.place_of(1_024)], [(0, None, 2), (1, Some(0), 2)]);
        let other = ClusterState { node: 1, ..state.clone() };
        assert_eq!([other.place_of(0), other.place_of(4_095)], [(0, Some(0), 3), (3, Some(2), 3)]);
        let explained = state.holders(0);
        assert_eq!(explained["followers"].as_array().map(Vec::len), Some(1), "{explained}");
        assert_eq!(document["slots"], json!([[0, 0], [1_024, 1], [2_048, 2], [3_072, 3]]));
        assert_eq!(document["moves"], json!({}));
        state.moves = vec![(7, 0, 3)];
        assert_eq!(state.json(None)["moves"], json!({"7": {"from": 0, "to": 3}}));
        state.groups[1].relays[0].from = None;
        assert!(codes(&state).contains(&"not_relayed"));
        // Of a cluster where all hold all nothing is said of it.
        assert!(with_groups().json(None)["groups"][0].get("holders").is_none());
    }

    #[test]
    fn who_lacks_the_results_of_a_group_is_not_ready_and_says_what_it_waits_for() {
        // Node 2 relays groups 0 and 3.
        let relayed = |from: Option<u16>, caught_up: Option<bool>| {
            let mut state = with_groups();
            for part in [0, 3].map(|at| (at, 2)) {
                let (at, node) = part;
                let group = &mut state.groups[at];
                group.holders = vec![1, 3];
                let (age, behind) = (Duration::ZERO, None);
                group.relays =
                    vec![GroupRelay { node, age, from, caught_up, behind, records: 0, skipped: 0 }];
            }
            state
        };
        assert_eq!(with_groups().awaited(), None, "every node holds every group");
        assert_eq!(healthy().awaited(), None);
        assert_eq!(relayed(Some(1), Some(true)).awaited(), None);
        assert_eq!(relayed(Some(1), None).awaited(), None, "a node of an earlier version does not say");
        let reading = relayed(Some(1), Some(false));
        assert_eq!((codes(&reading), reading.leaderless()), (Vec::new(), None), "nothing is wrong");
        assert_eq!(
            reading.awaited().unwrap(),
            "waits for results of groups that other nodes hold: group 0 (those from before are still being read at node 1), \
             group 3 (those from before are still being read at node 1)"
        );
        let mut apart = relayed(None, Some(false));
        apart.groups.truncate(2);
        assert_eq!(
            apart.awaited().unwrap(),
            "waits for results of groups that other nodes hold: group 0 (no node to read them at can be reached, of nodes 1 and 3)"
        );
        // Before the relay has said anything, and for as long as it takes the place of a copy that is to come.
        apart.groups[0].relays.clear();
        assert!(apart.awaited().unwrap().contains("group 0 (this node is about to look"));
        apart.groups[0].holders.push(2);
        assert_eq!(apart.awaited(), None);
        apart.groups[0].relays = reading.groups[0].relays.clone();
        assert!(apart.awaited().unwrap().contains("still being read at node 1"));
        // Many are counted.
        let mut many = reading.clone();
        many.groups = vec![many.groups[0].clone(); 64];
        let said = many.awaited().unwrap();
        assert!(
            said.contains("group 3 (") && !said.contains("group 4 (") && said.ends_with(" and 60 more"),
            "{said}"
        );
    }

    #[test]
    fn a_copy_that_comes_is_shown() {
        let mut state = with_groups();
        let copy = GroupCopy { to: 2, from: Some(1), fetching: Some((10, 40)), ..GroupCopy::default() };
        state.groups[1].coming = Some(copy);
        let groups = &state.json(None)["groups"];
        let shown = json!({"to": 2, "from": 1, "entries": null, "problem": null, "fetching": {"have": 10, "all": 40}});
        assert_eq!((&groups[1]["coming"], groups[0].get("coming")), (&shown, None));
    }

    #[test]
    fn of_several_groups_the_one_in_trouble_is_named() {
        let state = with_groups();
        assert_eq!((codes(&state), state.leaderless()), (Vec::new(), None));
        let mut state = with_groups();
        (state.groups[2].leader, state.groups[3].isr) = (None, vec![1, 2]);
        assert_eq!(codes(&state), ["no_leader", "one_more_loss", "behind"]);
        assert_eq!(state.leaderless().unwrap(), "group 2: nobody leads it");
        assert!(
            state.warnings()[1].text.starts_with("group 3: nodes 1 and 2 in sync"),
            "{:?}",
            state.warnings()
        );
        (state.groups[2].isr, state.groups[2].eligible) = (Vec::new(), Vec::new());
        assert!(state.warnings()[1].text.contains("promote-loss --group 2"), "{:?}", state.warnings());
        let mut state = with_groups();
        state.groups[3].replicas[0].replica.log_bytes = 2_500;
        assert_eq!(codes(&state), ["log_full"]);
        let mut state = with_groups();
        state.groups[1].replicas[2].replica.digest = "0000".to_owned();
        assert_eq!(codes(&state), ["digest_differs"]);
        assert!(state.warnings()[0].text.starts_with("group 1: node 3 has another digest"));
    }

    #[test]
    fn a_key_is_its_groups() {
        let state = with_groups();
        for (slot, group, leader) in [(0, 0, 1), (1_023, 0, 1), (1_024, 1, 2), (2_048, 2, 3), (4_095, 3, 1)] {
            assert_eq!(state.group_of(slot), group);
            let holders = state.holders(slot);
            assert_eq!((&holders["leader"], &holders["epoch"]), (&json!(leader), &json!(4 + group)));
            assert_eq!(holders["followers"].as_array().unwrap().len(), 2);
        }
        assert_eq!((healthy().group_of(4_095), &healthy().holders(9)["leader"]), (0, &json!(1)));
        let json = state.json(None);
        assert_eq!((&json["groups"][3]["group"], &json["groups"][3]["slots"]), (&json!(3), &json!(1_024)));
        assert_eq!(healthy().json(None)["groups"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_leader_that_is_silent_is_no_leader() {
        let mut state = healthy();
        state.members[0].heard = Some(Duration::from_millis(4_200));
        assert_eq!(state.leaderless().unwrap(), "node 1 leads, and was not heard of for 4.2 s");
        state.members[0].heard = None;
        assert!(state.leaderless().unwrap().ends_with("never heard of"));
        // The leader needs to hear of nobody to know that it leads.
        state.leader = Some(2);
        assert_eq!(state.leaderless(), None);
    }

    #[test]
    fn changes_have_the_time_of_day() {
        let mut state = healthy();
        state.changes = vec![ClusterChange {
            kind: "fail_over",
            group: 3,
            age: Duration::from_millis(1_500),
            epoch: 4,
            lineage: 1,
            from: Some(3),
            to: Some(1),
            reason: "node 3 did not answer and was given up".into(),
        }];
        let json = state.json(Some(1_767_623_401_500_000_000));
        assert_eq!(json["changes"][0]["time"], "2026-01-05T14:30:00.000Z");
        assert_eq!(json["changes"][0]["group"], 3);
        assert_eq!(json["digest"], json!({"value": "00ff", "offset": 100}));
        assert_eq!(state.json(None)["changes"][0]["time"], Value::Null);
    }
}
