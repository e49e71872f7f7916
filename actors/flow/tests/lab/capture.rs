//! What tcpdump wrote, and the clock it is judged by.

use std::collections::HashMap;
use std::net::IpAddr;
use tidegate_flow::{Alert, Detectors, FlowTable, Frame, TableOptions, parse};

/// A recorded packet: ns since 1970, and its bytes as far as they were kept.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) ts: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Link type of Ethernet.
const ETHERNET: u32 = 1;

/// Reads a capture as tcpdump writes it on this machine: pcap of microseconds, Ethernet, numbers of this machine's order.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Recorded>, String> {
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    if (word(0), word(20)) != (Some(0xa1b2_c3d4), Some(ETHERNET)) {
        return Err("tcpdump wrote no capture of Ethernet in pcap".to_owned());
    }
    let mut packets = Vec::new();
    let mut at = 24;
    while let (Some(seconds), Some(micros), Some(kept)) = (word(at), word(at + 4), word(at + 8)) {
        let Some(frame) = bytes.get(at + 16..at + 16 + kept as usize) else { break };
        let ts = u64::from(seconds) * 1_000_000_000 + u64::from(micros) * 1_000;
        packets.push(Recorded { ts, bytes: frame.to_vec() });
        at += 16 + kept as usize;
    }
    Ok(packets)
}

/// Who speaks in a packet; `None` for what is neither IP nor ARP.
pub(crate) fn ends(packet: &Recorded) -> Option<(IpAddr, IpAddr)> {
    match parse(1, packet.ts, ETHERNET, &packet.bytes).ok()? {
        Frame::Ip(packet) => Some((packet.source.into(), packet.target.into())),
        Frame::Arp(arp) => Some((arp.sender.into(), arp.target.into())),
        Frame::Other => None,
    }
}

/// Another clock: flows begin `times` as far apart as they were recorded, and within a flow the pace stays what it was. So half an
/// hour of what a host does is recorded in seconds, and handshakes, sizes and durations of its connections stay those of real servers.
pub(crate) fn stretched(packets: &[Recorded], times: u64) -> Vec<Recorded> {
    let Some(first) = packets.first().map(|packet| packet.ts) else { return Vec::new() };
    let mut begun = HashMap::new();
    let mut out: Vec<Recorded> = packets
        .iter()
        .map(|packet| {
            let key = match parse(1, packet.ts, ETHERNET, &packet.bytes) {
                Ok(Frame::Ip(p)) => {
                    let (a, b) = ((p.source, p.source_port), (p.target, p.target_port));
                    // An ICMP message has no ports, and is a flow with all of its kind.
                    let (a, b) =
                        if p.protocol == 1 || p.protocol == 58 { ((a.0, 0), (b.0, 0)) } else { (a, b) };
                    Some((a.min(b), a.max(b), p.protocol))
                }
                _ => None,
            };
            let start = key.map_or(packet.ts, |key| *begun.entry(key).or_insert(packet.ts));
            let ts = first + start.saturating_sub(first) * times + packet.ts.saturating_sub(start);
            Recorded { ts, bytes: packet.bytes.clone() }
        })
        .collect();
    out.sort_by_key(|packet| packet.ts);
    out
}

/// What the shipped detectors say of it.
pub(crate) fn alerts(packets: &[Recorded]) -> Vec<Alert> {
    let (mut table, mut detectors) = (FlowTable::new(TableOptions::default()), Detectors::default());
    for (at, packet) in packets.iter().enumerate() {
        match parse(at as u64 + 1, packet.ts, ETHERNET, &packet.bytes) {
            Ok(Frame::Ip(packet)) => table.packet(&packet, &mut detectors),
            Ok(Frame::Arp(arp)) => detectors.arp(&arp),
            Ok(Frame::Other) | Err(_) => {}
        }
    }
    table.finish(&mut detectors);
    detectors.alerts().to_vec()
}
