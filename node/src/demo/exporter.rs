//! The demo's router: sees the packets of the made-up office network and tells its flows by NetFlow v5, as a real one would, to the
//! node's own socket for exports. What the detectors make of it is theirs.

use super::endless::Endless;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tidegate_engine::{Event, FlowPayload, flag, kind};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
/// A flow is told when it was silent for so long, or has lasted so long.
const SILENT_NS: u64 = 15 * SECOND;
const LASTING_NS: u64 = 30 * SECOND;
/// How often it is looked for such flows, and what is waiting is sent.
const ROUND_NS: u64 = SECOND;
/// Flows remembered; beyond it all are told.
const FLOWS_MAX: usize = 8_192;
/// Records of a datagram.
const RECORDS_MAX: usize = 30;
/// Bytes of Ethernet that packets of the made-up network count.
const ETHERNET_BYTES: u32 = 14;
const EVENTS: usize = 8_192;
const TICK: Duration = Duration::from_millis(10);

/// Client, server, the server's port, protocol: what is known of a conversation here.
type Talk = (u32, u32, u16, u8);

/// One direction.
#[derive(Debug, Clone, Copy, Default)]
struct Half {
    packets: u32,
    bytes: u32,
    flags: u8,
    first_ns: u64,
    last_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    client_port: u16,
    /// From the client, from the server.
    halves: [Half; 2],
    since_ns: u64,
    last_ns: u64,
}

/// Packets in, datagrams out.
struct Exporter {
    /// When its uptime was zero.
    boot_ns: u64,
    entries: HashMap<Talk, Entry>,
    /// Addresses by the low half of their names' hashes, and how many names are in it.
    addresses: HashMap<u32, u32>,
    known: u32,
    client_port: u16,
    records: Vec<[u8; 48]>,
    told: u32,
    round_ns: u64,
}

impl Exporter {
    fn new(boot_ns: u64) -> Self {
        Self {
            boot_ns,
            entries: HashMap::new(),
            addresses: HashMap::new(),
            known: 0,
            client_port: 49_152,
            records: Vec::new(),
            told: 0,
            round_ns: boot_ns,
        }
    }

    /// Learns addresses that the network has met since.
    fn learn(&mut self, feed: &Endless) {
        let names = feed.names();
        while let Some(name) = names.name(self.known) {
            if let (Ok(address), Some(hash)) =
                (name.parse::<Ipv4Addr>(), names.hashes().get(self.known as usize))
            {
                self.addresses.insert(*hash as u32, address.into());
            }
            self.known += 1;
        }
    }

    /// Takes a packet, as its sender's event has it; the receiver's and all others are left.
    fn packet(&mut self, from: u32, event: &Event, send: &mut impl FnMut(&[u8])) {
        if event.kind != kind::FLOW || event.flags & flag::FLOW_OUTBOUND == 0 {
            return;
        }
        let FlowPayload { peer, bytes, port, protocol, tcp_flags, .. } = event.as_flow();
        let (Some(&from), Some(&to)) = (self.addresses.get(&from), self.addresses.get(&peer)) else { return };
        let now = event.ts_event;
        let asks = event.flags & flag::FLOW_ORIGINATOR != 0;
        let talk = if asks { (from, to, port, protocol) } else { (to, from, port, protocol) };
        if event.flags & flag::FLOW_START != 0
            && let Some(before) = self.entries.remove(&talk)
        {
            self.tell(talk, &before, now, send);
        }
        let client_port = &mut self.client_port;
        let entry = self.entries.entry(talk).or_insert_with(|| {
            *client_port = client_port.checked_add(1).unwrap_or(49_152);
            Entry { client_port: *client_port, halves: [Half::default(); 2], since_ns: now, last_ns: now }
        });
        let half = &mut entry.halves[usize::from(!asks)];
        if half.packets == 0 {
            half.first_ns = now;
        }
        half.packets += 1;
        half.bytes = half.bytes.saturating_add(bytes.saturating_sub(ETHERNET_BYTES));
        half.flags |= tcp_flags;
        (half.last_ns, entry.last_ns) = (now, now);
        if event.flags & flag::FLOW_END != 0
            && let Some(ended) = self.entries.remove(&talk)
        {
            self.tell(talk, &ended, now, send);
        }
    }

    /// Time has come to `now`: tells what was silent or has lasted, and sends what waits.
    fn advance(&mut self, now: u64, send: &mut impl FnMut(&[u8])) {
        if now < self.round_ns + ROUND_NS {
            return;
        }
        self.round_ns = now;
        let full = self.entries.len() > FLOWS_MAX;
        let due =
            |entry: &Entry| full || entry.last_ns + SILENT_NS <= now || entry.since_ns + LASTING_NS <= now;
        let mut due: Vec<Talk> =
            self.entries.iter().filter(|(_, entry)| due(entry)).map(|(talk, _)| *talk).collect();
        due.sort_unstable();
        for talk in due {
            if let Some(entry) = self.entries.remove(&talk) {
                self.tell(talk, &entry, now, send);
            }
        }
        self.send(now, send);
    }

    fn tell(
        &mut self,
        (client, server, port, protocol): Talk,
        entry: &Entry,
        now: u64,
        send: &mut impl FnMut(&[u8]),
    ) {
        let ends = [(client, entry.client_port, server, port), (server, port, client, entry.client_port)];
        for ((source, source_port, target, target_port), half) in ends.into_iter().zip(&entry.halves) {
            if half.packets == 0 {
                continue;
            }
            let mut record = [0; 48];
            let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
            put(0, &source.to_be_bytes());
            put(4, &target.to_be_bytes());
            put(16, &half.packets.to_be_bytes());
            put(20, &half.bytes.to_be_bytes());
            put(24, &self.uptime(half.first_ns).to_be_bytes());
            put(28, &self.uptime(half.last_ns).to_be_bytes());
            put(32, &source_port.to_be_bytes());
            put(34, &target_port.to_be_bytes());
            put(37, &[half.flags, protocol]);
            self.records.push(record);
        }
        if self.records.len() + 2 > RECORDS_MAX {
            self.send(now, send);
        }
    }

    fn uptime(&self, ns: u64) -> u32 {
        (ns.saturating_sub(self.boot_ns) / MILLI) as u32
    }

    fn send(&mut self, now: u64, send: &mut impl FnMut(&[u8])) {
        if self.records.is_empty() {
            return;
        }
        let mut datagram = Vec::with_capacity(24 + 48 * self.records.len());
        datagram.extend(5u16.to_be_bytes());
        datagram.extend((self.records.len() as u16).to_be_bytes());
        datagram.extend(self.uptime(now).to_be_bytes());
        datagram.extend(((now / SECOND) as u32).to_be_bytes());
        datagram.extend(((now % SECOND) as u32).to_be_bytes());
        datagram.extend(self.told.to_be_bytes());
        // Engine 0, one packet in one.
        datagram.extend([0, 0, 0, 1]);
        self.told = self.told.wrapping_add(self.records.len() as u32);
        self.records.drain(..).for_each(|record| datagram.extend(record));
        send(&datagram);
    }
}

/// Tells the flows of the made-up network to `target` until told to stop.
pub(super) async fn play(
    mut feed: Endless,
    target: SocketAddr,
    (start, start_ns): (Instant, u64),
    stop: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let target = match target.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), target.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), target.port()),
        _ => target,
    };
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    // As with any router, what the network does not take is lost.
    let mut send = |datagram: &[u8]| drop(socket.send_to(datagram, target));
    let mut exporter = Exporter::new(start_ns);
    let mut events = Vec::with_capacity(EVENTS);
    while !stop.load(Relaxed) {
        let now_ns = start_ns + start.elapsed().as_nanos() as u64;
        events.clear();
        feed.due(now_ns, EVENTS, &mut events);
        exporter.learn(&feed);
        for event in &events {
            let from = feed.names().hashes().get(event.key as usize).copied().unwrap_or_default();
            exporter.packet(from as u32, event, &mut send);
        }
        exporter.advance(now_ns, &mut send);
        if events.len() < EVENTS {
            tokio::time::sleep(TICK).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::endless::{Endless, PLAYED_NS, Part};
    use super::*;
    use crate::judge::Judge;
    use std::collections::BTreeSet;
    use tidegate_flow::{Collector, CollectorOptions, Ip};
    use tidegate_replay::decode::Traffic;

    /// A round of the demo through the router, the collector and the detectors: they find what is in it, and nothing else.
    #[test]
    fn the_detectors_find_what_the_demo_has() {
        const START: u64 = 1_800_000_000 * SECOND;
        let mut feed = Endless::new(Part::Network, START);
        let mut exporter = Exporter::new(START);
        let mut collector = Collector::new(CollectorOptions::default());
        let mut judge = Judge::new(1_000, tidegate_rules::RuleSet::default(), String::new());
        let (mut found, mut datagrams, mut events) = (BTreeSet::new(), 0, Vec::new());
        // The scan is over after 55 s, the flood after 101, and told once its other directions were waited for; the exfiltration begins after
        // 150 and is told in parts of 30.
        for now in (START..START + PLAYED_NS * 2 / 3).step_by(20_000_000) {
            events.clear();
            feed.due(now, usize::MAX, &mut events);
            exporter.learn(&feed);
            let mut send = |datagram: &[u8]| {
                datagrams += 1;
                let read = collector.datagram(Ip::v4([127, 0, 0, 1]), datagrams, now, datagram, |record| {
                    judge.take(&Traffic::Record(*record), |finding| {
                        found.insert((finding.kind, finding.entity));
                    });
                });
                assert_eq!(read, Ok(()));
            };
            for event in &events {
                let from = feed.names().hashes()[event.key as usize];
                exporter.packet(from as u32, event, &mut send);
            }
            exporter.advance(now, &mut send);
        }
        let counts = collector.counts();
        assert!((counts.lost, counts.malformed) == (0, 0) && counts.flows > 20_000, "{counts:?}");
        let of = |kind: &str, entity: &str| (kind.to_owned(), entity.to_owned());
        let expected = [
            of("beacon", "10.0.1.11"),
            of("data-exfiltration", "10.0.1.12"),
            of("syn-flood", "10.0.0.80"),
            of("vertical-scan", "10.0.1.13"),
        ];
        assert_eq!(found, BTreeSet::from(expected));
    }
}
