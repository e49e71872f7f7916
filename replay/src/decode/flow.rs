//! What network formats share: hosts as names, flow pairs, looked-up names.

use super::core::{Core, Refusal};
use std::collections::HashMap;
use std::net::IpAddr;
use tidegate_engine::{Event, FlowPayload, NamePayload, flag, name_hash};

/// Hosts by address, so that an address is written out as text once.
#[derive(Default)]
pub(super) struct Hosts {
    known: HashMap<IpAddr, Host>,
}

/// A host as events name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    pub(super) key: u32,
    /// Low half of the name's hash, also for a host whose events go to the overflow name.
    pub(super) hash: u32,
}

/// Hosts remembered: past it the text is built anew, which is slower and needs no memory.
const KNOWN_MAX: usize = 1 << 20;

impl Hosts {
    pub(super) fn host(&mut self, core: &mut Core, ip: IpAddr) -> Result<Host, Refusal> {
        if let Some(&host) = self.known.get(&ip) {
            return Ok(host);
        }
        let name = ip.to_string();
        let host = Host { key: core.key(name.as_bytes())?, hash: name_hash(name.as_bytes()) as u32 };
        if self.known.len() < KNOWN_MAX {
            self.known.insert(ip, host);
        }
        Ok(host)
    }
}

/// The FLOW_IPV6 bit of an address.
pub(super) fn ip_flag(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { flag::FLOW_IPV6 } else { 0 }
}

/// Counters saturate, as [`FlowPayload`] says.
pub(super) fn saturate_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Counters saturate, as [`FlowPayload`] says.
pub(super) fn saturate_u16(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// One direction's numbers of a connection record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Direction {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) tcp_flags: u8,
}

/// A connection as a log records it, once it is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    pub(super) ts: u64,
    pub(super) originator: IpAddr,
    pub(super) responder: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: u8,
    pub(super) duration: u16,
    /// What the originator sent.
    pub(super) sent: Direction,
    /// What the responder sent.
    pub(super) received: Direction,
}

/// Appends the two events of a connection record: each host's says what that host sent, so each byte is told once and
/// both carry FLOW_OUTBOUND; FLOW_ORIGINATOR tells who opened the connection.
pub(super) fn push_connection(
    core: &mut Core,
    hosts: &mut Hosts,
    connection: &Connection,
    events: &mut Vec<Event>,
) -> Result<(), Refusal> {
    let originator = hosts.host(core, connection.originator)?;
    let responder = hosts.host(core, connection.responder)?;
    let base = flag::FLOW_START | flag::FLOW_END | flag::FLOW_RECORD | flag::FLOW_OUTBOUND;
    let payload = |peer: u32, direction: Direction| FlowPayload {
        peer,
        bytes: saturate_u32(direction.bytes),
        packets: saturate_u16(direction.packets),
        port: connection.port,
        protocol: connection.protocol,
        tcp_flags: direction.tcp_flags,
        duration: connection.duration,
    };
    let flags = base | flag::FLOW_ORIGINATOR | ip_flag(connection.originator);
    events.push(Event::flow(
        connection.ts,
        originator.key,
        0,
        flags,
        payload(responder.hash, connection.sent),
    ));
    let flags = base | ip_flag(connection.responder);
    events.push(Event::flow(
        connection.ts,
        responder.key,
        0,
        flags,
        payload(originator.hash, connection.received),
    ));
    Ok(())
}

/// The number of a protocol written out.
pub(super) fn protocol_number(name: &[u8]) -> u8 {
    match name.to_ascii_lowercase().as_slice() {
        b"tcp" => 6,
        b"udp" => 17,
        b"icmp" => 1,
        b"icmp6" | b"ipv6-icmp" | b"icmpv6" => 58,
        b"igmp" => 2,
        b"gre" => 47,
        b"esp" => 50,
        b"ah" => 51,
        b"sctp" => 132,
        other => super::text::parse_digits(other).and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
    }
}

/// A looked-up name's payload. The text is lower-cased here; a trailing dot does not count.
pub(super) fn name_payload(name: &[u8], record_type: u16, answers: u16) -> NamePayload {
    let name = name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
    let labels = if name.is_empty() { 0 } else { 1 + name.iter().filter(|&&b| b == b'.').count() };
    NamePayload {
        name: name_hash(&name),
        length: saturate_u16(name.len() as u64),
        entropy: entropy_code(&name),
        labels: u8::try_from(labels).unwrap_or(u8::MAX),
        record_type: record_type as u8,
        answers,
    }
}

/// Shannon entropy of the bytes in 1/256 bit.
fn entropy_code(bytes: &[u8]) -> u16 {
    if bytes.is_empty() {
        return 0;
    }
    let mut counts = [0u32; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let total = bytes.len() as f64;
    let bits: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum();
    (bits * 256.0).round().clamp(0.0, f64::from(u16::MAX)) as u16
}

/// The number of a DNS record type written out.
pub(super) fn record_type_number(name: &str) -> u16 {
    match name {
        "A" => 1,
        "NS" => 2,
        "CNAME" => 5,
        "SOA" => 6,
        "NULL" => 10,
        "PTR" => 12,
        "MX" => 15,
        "TXT" => 16,
        "AAAA" => 28,
        "SRV" => 33,
        "NAPTR" => 35,
        "OPT" => 41,
        "DS" => 43,
        "RRSIG" => 46,
        "DNSKEY" => 48,
        "SVCB" => 64,
        "HTTPS" => 65,
        "ANY" => 255,
        _ => name.strip_prefix("TYPE").and_then(|n| n.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_in_256ths_of_a_bit() {
        assert_eq!(entropy_code(b""), 0);
        assert_eq!(entropy_code(b"aaaa"), 0);
        assert_eq!(entropy_code(b"abcd"), 512);
        let payload = name_payload(b"WWW.Example.com.", 1, 0);
        assert_eq!((payload.length, payload.labels), (15, 3));
        assert_eq!(payload.name, name_hash(b"www.example.com"));
    }
}
