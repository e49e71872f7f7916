//! Who talks to whom: hosts, what they sent each other, and the last flows of each, all bounded.

use serde_json::{Value, json};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use tidegate_flow::{ConnState, EndCause, FlowRecord, Ip};

/// Hosts remembered; beyond it those longest silent are forgotten, an eighth at a time, and counted.
const HOSTS_MAX: usize = 4_096;
/// Pairs remembered.
const EDGES_MAX: usize = 16_384;
/// Flows remembered of each host: with 4,096 hosts under 32 MiB.
pub(super) const FLOWS_MAX: usize = 32;
/// Services told of a pair.
const SERVICES_MAX: usize = 6;
/// Pairs of a picture for each of its hosts.
const EDGES_PER_HOST: usize = 4;

/// A host, as flows tell of it.
#[derive(Default)]
struct Host {
    touched: u64,
    first_ns: u64,
    last_ns: u64,
    opened: u64,
    taken: u64,
    failed: u64,
    bytes_out: u64,
    bytes_in: u64,
    flows: VecDeque<FlowRecord>,
}

/// What one host opened to another.
#[derive(Default)]
struct Edge {
    touched: u64,
    flows: u64,
    failed: u64,
    bytes_out: u64,
    bytes_in: u64,
    last_ns: u64,
    /// Port and protocol, the first there were.
    services: Vec<(u16, &'static str)>,
    more_services: bool,
}

/// Everybody who was seen of late.
#[derive(Default)]
pub(super) struct Talkers {
    hosts: HashMap<Ip, Host>,
    edges: HashMap<(Ip, Ip), Edge>,
    clock: u64,
    flows: u64,
    forgotten: u64,
}

/// Whether nothing came of a connection.
fn is_failed(record: &FlowRecord) -> bool {
    // Of an exporter that tells one direction nobody knows what was answered.
    let known = record.cause != EndCause::OneWay || record.protocol == 6;
    known && matches!(record.state, ConnState::S0 | ConnState::Rej | ConnState::Sh | ConnState::RstOS0)
}

impl Talkers {
    /// Takes a flow that has ended, or an interim record of one.
    pub(super) fn take(&mut self, record: &FlowRecord) {
        self.clock += 1;
        self.flows += 1;
        let clock = self.clock;
        let failed = u64::from(is_failed(record));
        let (out, back) = (record.sent.bytes, record.received.bytes);
        for (address, opened) in [(record.originator, true), (record.responder, false)] {
            // A broadcast has listeners, but is nobody.
            if !opened && address.is_group() {
                continue;
            }
            let host = self.hosts.entry(address).or_default();
            host.touched = clock;
            host.first_ns =
                if host.first_ns == 0 { record.start_ns } else { host.first_ns.min(record.start_ns) };
            host.last_ns = host.last_ns.max(record.last_ns);
            let (sent, received) = if opened { (out, back) } else { (back, out) };
            host.bytes_out = host.bytes_out.saturating_add(sent);
            host.bytes_in = host.bytes_in.saturating_add(received);
            if opened {
                host.opened += 1;
                host.failed += failed;
            } else {
                host.taken += 1;
            }
            if host.flows.len() >= FLOWS_MAX {
                host.flows.pop_front();
            }
            host.flows.push_back(*record);
        }
        let edge = self.edges.entry((record.originator, record.responder)).or_default();
        edge.touched = clock;
        edge.flows += 1;
        edge.failed += failed;
        edge.bytes_out = edge.bytes_out.saturating_add(out);
        edge.bytes_in = edge.bytes_in.saturating_add(back);
        edge.last_ns = edge.last_ns.max(record.last_ns);
        let service = (record.responder_port, record.protocol_name());
        if !edge.services.contains(&service) {
            if edge.services.len() < SERVICES_MAX {
                edge.services.push(service);
            } else {
                edge.more_services = true;
            }
        }
        self.forgotten += make_room(&mut self.hosts, HOSTS_MAX, |host| host.touched);
        make_room(&mut self.edges, EDGES_MAX, |edge| edge.touched);
    }

    /// The last flows of a host, oldest first.
    pub(super) fn flows_of(&self, address: Ip) -> impl Iterator<Item = &FlowRecord> {
        self.hosts.get(&address).into_iter().flat_map(|host| &host.flows)
    }

    /// The picture: hosts that matter most, and who of them opened what to whom. `accused` says how many open alerts concern a host.
    pub(super) fn picture(
        &self,
        around: Option<Ip>,
        limit: usize,
        accused: &HashMap<String, u64>,
        visible: &dyn Fn(&str) -> bool,
    ) -> Option<Value> {
        let accused: HashMap<Ip, u64> =
            accused.iter().filter_map(|(name, count)| Some((address(name)?, *count))).collect();
        let alerts = |address: &Ip| accused.get(address).copied().unwrap_or(0);
        let mut peers: HashSet<Ip> = HashSet::new();
        for (from, to) in self.edges.keys() {
            match around {
                Some(host) if *from == host => peers.insert(*to),
                Some(host) if *to == host => peers.insert(*from),
                _ => false,
            };
        }
        let near = |address: &Ip| around.is_none_or(|host| host == *address || peers.contains(address));
        let seen: HashSet<Ip> = self
            .hosts
            .keys()
            .filter(|address| near(address) && visible(&address.to_string()))
            .copied()
            .collect();
        let seen = |address: &Ip| seen.contains(address);
        if let Some(host) = around
            && !seen(&host)
        {
            return None;
        }
        let mut edges: Vec<(&(Ip, Ip), &Edge)> =
            self.edges.iter().filter(|((from, to), _)| from != to && seen(from) && seen(to)).collect();
        let edges_total = edges.len();
        // Those of the host in the middle come first, then those that alerts are about, then those that carried most; among equals
        // the addresses decide.
        edges.sort_unstable_by_key(|(pair, edge)| {
            let middle = around.is_some_and(|host| pair.0 == host || pair.1 == host);
            let accused = alerts(&pair.0) + alerts(&pair.1) > 0;
            std::cmp::Reverse((
                middle,
                accused,
                edge.bytes_out.saturating_add(edge.bytes_in),
                edge.flows,
                **pair,
            ))
        });
        let mut order: Vec<Ip> = around.into_iter().collect();
        let mut shown: HashSet<Ip> = order.iter().copied().collect();
        edges.retain(|((from, to), _)| {
            let more = usize::from(!shown.contains(from)) + usize::from(!shown.contains(to));
            if order.len() + more > limit {
                return false;
            }
            order.extend([*from, *to].into_iter().filter(|address| shown.insert(*address)));
            true
        });
        edges.truncate(limit * EDGES_PER_HOST);
        let total = self.hosts.keys().filter(|address| seen(address)).count();
        let hosts: Vec<Value> = order
            .iter()
            .filter_map(|address| Some((address, self.hosts.get(address)?)))
            .map(|(address, host)| {
                json!({
                    "address": address.to_string(), "private": address.is_private(), "alerts": alerts(address),
                    "opened": host.opened, "taken": host.taken, "failed": host.failed,
                    "bytes_out": host.bytes_out, "bytes_in": host.bytes_in,
                    "first_ts": host.first_ns.to_string(), "last_ts": host.last_ns.to_string(),
                })
            })
            .collect();
        let edges: Vec<Value> = edges
            .into_iter()
            .map(|((from, to), edge)| {
                let services: Vec<String> =
                    edge.services.iter().map(|(port, protocol)| format!("{protocol}/{port}")).collect();
                json!({
                    "from": from.to_string(), "to": to.to_string(), "flows": edge.flows, "failed": edge.failed,
                    "bytes_out": edge.bytes_out, "bytes_in": edge.bytes_in, "last_ts": edge.last_ns.to_string(),
                    "services": services, "more_services": edge.more_services,
                })
            })
            .collect();
        Some(json!({
            "hosts": hosts, "hosts_total": total, "edges": edges, "edges_total": edges_total,
            "flows": self.flows, "forgotten": self.forgotten,
        }))
    }
}

/// Forgets an eighth, those not touched for longest, when there are more than `max`. How many.
fn make_room<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, max: usize, touched: fn(&V) -> u64) -> u64 {
    if map.len() <= max {
        return 0;
    }
    let before = map.len();
    let mut all: Vec<u64> = map.values().map(touched).collect();
    let (_, line, _) = all.select_nth_unstable(before / 8);
    let line = *line;
    map.retain(|_, value| touched(value) > line);
    (before - map.len()) as u64
}

/// An address, as a person writes it.
pub(super) fn address(text: &str) -> Option<Ip> {
    text.parse::<IpAddr>().ok().map(Ip::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_flow::{History, Side};

    fn flow(from: u32, to: u32, port: u16, bytes: u64) -> FlowRecord {
        let host = |number: u32| Ip::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        FlowRecord {
            id: 1,
            start_ns: u64::from(from) + 1,
            last_ns: u64::from(from) + 2,
            originator: host(from),
            originator_port: 40_000,
            responder: host(to),
            responder_port: port,
            protocol: 6,
            state: if bytes == 0 { ConnState::S0 } else { ConnState::Sf },
            history: History::default(),
            sent: Side { bytes, packets: 1, ip_bytes: bytes + 40 },
            received: Side { bytes: bytes * 2, packets: 1, ip_bytes: bytes * 2 + 40 },
            packets: (1, 2),
            vlan: 0,
            tunnels: 0,
            cause: EndCause::Finished,
            sampling: 1,
        }
    }

    #[test]
    fn a_picture_has_who_is_accused_first_and_both_directions() {
        let mut talkers = Talkers::default();
        (1..=20).for_each(|port| talkers.take(&flow(66, 10, port, 0)));
        talkers.take(&flow(1, 2, 443, 1_000));
        talkers.take(&flow(3, 4, 443, 500));
        let accused = HashMap::from([("10.0.0.66".to_owned(), 2)]);
        let picture = talkers.picture(None, 4, &accused, &|_| true).unwrap();
        assert_eq!(picture["hosts"][0]["address"], "10.0.0.66");
        assert_eq!((&picture["hosts"][0]["failed"], &picture["hosts"][0]["alerts"]), (&json!(20), &json!(2)));
        assert_eq!((&picture["hosts_total"], &picture["flows"]), (&json!(6), &json!(22)));
        // The pair of who is accused, and then the one that carried most; a third does not fit.
        assert_eq!((&picture["edges"][0]["failed"], &picture["edges"][2]), (&json!(20), &Value::Null));
        let edge = &picture["edges"][1];
        assert_eq!((&edge["bytes_out"], &edge["bytes_in"]), (&json!(1_000), &json!(2_000)));
        let around = talkers.picture(address("10.0.0.10"), 9, &accused, &|_| true).unwrap();
        assert_eq!(around["hosts"].as_array().unwrap().len(), 2);
        assert_eq!(around["edges"][0]["services"].as_array().unwrap().len(), SERVICES_MAX);
        assert_eq!(around["edges"][0]["more_services"], true);
        assert!(talkers.picture(address("10.0.9.9"), 9, &accused, &|_| true).is_none());
        let hidden = talkers.picture(None, 9, &accused, &|name| name != "10.0.0.66").unwrap();
        assert!(!hidden.to_string().contains("10.0.0.66"));
    }

    #[test]
    fn a_flood_of_hosts_makes_nothing_grow_and_is_counted() {
        let mut talkers = Talkers::default();
        for host in 0..40_000 {
            talkers.take(&flow(host, 1_000_000, 80, 1));
        }
        assert!(talkers.hosts.len() <= HOSTS_MAX && talkers.edges.len() <= EDGES_MAX);
        assert!(talkers.forgotten > 30_000);
        let victim = address("10.15.66.64").unwrap();
        assert_eq!(talkers.flows_of(victim).count(), FLOWS_MAX);
        assert!(talkers.flows_of(victim).all(|flow| flow.responder == victim));
    }
}
