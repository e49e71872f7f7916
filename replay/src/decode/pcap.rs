//! Packets from pcap and pcapng.
//!
//! Each IP packet makes two flow events, one for the host that sent it and one for the host that got it. Nothing is
//! remembered between packets, so who opened a connection is guessed from the packet: a bare SYN comes from the
//! originator and a SYN with ACK goes to it; otherwise the side with the lower port serves. FLOW_START and FLOW_END stay
//! unset, the TCP flags say more. A DNS query to port 53 also makes a name event for the client.

use super::core::{Core, Decode, Reader, Refusal};
use super::flow::{Hosts, ip_flag, name_payload};
use super::input::Input;
use crate::source::{Place, Progress, ReadError, RejectCause};
use etherparse::{EtherType, LaxSlicedPacket, TransportSlice};
use pcap_parser::{Block, parse_block_be, parse_block_le};
use std::net::IpAddr;
use tidegate_engine::{Event, EventTime, FlowPayload, flag};

/// Largest packet record or pcapng block. Real ones stay under 256 KiB; a larger length is a damaged header.
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Interfaces of one pcapng section.
const INTERFACES_MAX: usize = 4096;

pub(super) struct Pcap {
    frames: Frames,
    hosts: Hosts,
}

/// The packets of a capture, one after the other.
pub(super) struct Frames {
    input: Input,
    kind: Kind,
    packets: u64,
}

enum Kind {
    Legacy { big_endian: bool, modified: bool, frac_ns: u64, link: i32 },
    Ng { big_endian: bool, interfaces: Vec<Interface> },
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link: i32,
    /// Ticks per second, as a power of ten or of two.
    ticks: u128,
    offset_s: i64,
}

pub(super) fn open(input: Input, core: Core) -> Result<Reader<Pcap>, ReadError> {
    Ok(Reader::new(core, Pcap { frames: Frames::open(input)?, hosts: Hosts::default() }))
}

fn damaged(input: &Input, place: Place, reason: impl Into<String>) -> ReadError {
    ReadError::Damaged { path: input.path().to_path_buf(), place, reason: reason.into() }
}

impl Frames {
    /// Reads the header.
    pub(super) fn open(mut input: Input) -> Result<Self, ReadError> {
        let head = input.peek(24)?;
        let kind = if head.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
            Kind::Ng { big_endian: false, interfaces: Vec::new() }
        } else {
            let header = match pcap_parser::parse_pcap_header(head) {
                Ok((_, header)) => header,
                Err(_) => return Err(damaged(&input, Place::Byte(0), "there is no pcap or pcapng header")),
            };
            // The upper bits of the link type may carry the length of a frame check sequence.
            let kind = Kind::Legacy {
                big_endian: header.is_bigendian(),
                modified: header.is_modified_format(),
                frac_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
                link: header.network.0 & 0x0fff_ffff,
            };
            input.consume(24);
            kind
        };
        Ok(Self { input, kind, packets: 0 })
    }

    pub(super) fn progress(&self) -> Progress {
        self.input.progress()
    }

    pub(super) fn format(&self) -> &'static str {
        match self.kind {
            Kind::Legacy { .. } => "pcap",
            Kind::Ng { .. } => "pcapng",
        }
    }
}

/// One captured packet.
pub(super) struct Packet<'a> {
    pub(super) ts: Result<u64, Refusal>,
    pub(super) link: i32,
    pub(super) wire_bytes: u32,
    pub(super) bytes: &'a [u8],
}

fn bad_time(what: String) -> Refusal {
    (RejectCause::BadTime, what)
}

fn legacy_time(sec: u32, frac: u32, frac_ns: u64) -> Result<u64, Refusal> {
    let ns = u64::from(sec) * 1_000_000_000 + u64::from(frac) * frac_ns;
    Ok(ns)
}

fn ng_time(high: u32, low: u32, interface: &Interface) -> Result<u64, Refusal> {
    let raw = u128::from(u64::from(high) << 32 | u64::from(low));
    // At most 2^64 * 10^9, far inside 128 bits.
    let ns = raw * 1_000_000_000 / interface.ticks;
    i128::try_from(ns)
        .ok()
        .map(|ns| ns + i128::from(interface.offset_s) * 1_000_000_000)
        .and_then(|ns| u64::try_from(ns).ok())
        .filter(|&ns| ns <= EventTime::MAX.0)
        .ok_or_else(|| bad_time(format!("packet time {raw} is before 1970 or after 2262")))
}

/// The resolution option: a power of ten, or of two when the top bit is set.
fn ticks(resolution: u8) -> u128 {
    match resolution {
        r if r & 0x80 != 0 => 1 << (r & 0x7f).min(100),
        r => 10u128.pow(u32::from(r.min(30))),
    }
}

fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let raw: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(if big_endian { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
}

impl Frames {
    /// Gives the next packet, if there is one, with its number, or why it is none. False at the end of the input.
    pub(super) fn step(
        &mut self,
        mut take: impl FnMut(u64, Result<&Packet<'_>, Refusal>),
    ) -> Result<bool, ReadError> {
        match &mut self.kind {
            Kind::Legacy { big_endian, modified, frac_ns, link } => {
                let head_bytes = if *modified { 24 } else { 16 };
                if !self.input.ensure(head_bytes)? {
                    return match self.input.window().len() {
                        0 => Ok(false),
                        left => Err(cut(&self.input, self.packets + 1, left, head_bytes)),
                    };
                }
                self.packets += 1;
                let captured = u32_at(self.input.window(), 8, *big_endian).unwrap_or(u32::MAX) as usize;
                if captured > BLOCK_BYTES_MAX {
                    return Err(damaged(
                        &self.input,
                        Place::Packet(self.packets),
                        format!("its header says {captured} bytes; no packet is over {BLOCK_BYTES_MAX}"),
                    ));
                }
                let whole = head_bytes + captured;
                if !self.input.ensure(whole)? {
                    return Err(cut(&self.input, self.packets, self.input.window().len(), whole));
                }
                let window = &self.input.window()[..whole];
                let parsed = match (*modified, *big_endian) {
                    (true, _) => pcap_parser::pcap::parse_pcap_frame_modified(window),
                    (false, true) => pcap_parser::pcap::parse_pcap_frame_be(window),
                    (false, false) => pcap_parser::pcap::parse_pcap_frame(window),
                };
                match parsed {
                    Ok((_, frame)) => {
                        let packet = Packet {
                            ts: legacy_time(frame.ts_sec, frame.ts_usec, *frac_ns),
                            link: *link,
                            wire_bytes: frame.origlen.max(frame.caplen),
                            bytes: frame.data,
                        };
                        take(self.packets, Ok(&packet));
                    }
                    Err(_) => take(
                        self.packets,
                        Err((RejectCause::Malformed, "the packet's record is broken".to_owned())),
                    ),
                }
                self.input.consume(whole);
                Ok(true)
            }
            Kind::Ng { big_endian, interfaces } => {
                if !self.input.ensure(12)? {
                    return match self.input.window().len() {
                        0 => Ok(false),
                        left => Err(cut(&self.input, self.packets + 1, left, 12)),
                    };
                }
                let window = self.input.window();
                if window.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
                    *big_endian = match window[8..12] {
                        [0x1a, 0x2b, 0x3c, 0x4d] => true,
                        [0x4d, 0x3c, 0x2b, 0x1a] => false,
                        _ => {
                            let place = Place::Byte(self.input.offset());
                            return Err(damaged(&self.input, place, "a section without a byte-order mark"));
                        }
                    };
                    interfaces.clear();
                }
                let length = u32_at(window, 4, *big_endian).unwrap_or(0) as usize;
                if !(12..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(4) {
                    let place = Place::Byte(self.input.offset());
                    return Err(damaged(
                        &self.input,
                        place,
                        format!("a block that says it has {length} bytes"),
                    ));
                }
                if !self.input.ensure(length)? {
                    return Err(cut(&self.input, self.packets + 1, self.input.window().len(), length));
                }
                let window = &self.input.window()[..length];
                let parsed = if *big_endian { parse_block_be(window) } else { parse_block_le(window) };
                match parsed {
                    Ok((_, Block::InterfaceDescription(block))) => {
                        if interfaces.len() < INTERFACES_MAX {
                            interfaces.push(Interface {
                                link: block.linktype.0,
                                ticks: ticks(block.if_tsresol),
                                offset_s: block.if_tsoffset,
                            });
                        }
                    }
                    Ok((_, Block::EnhancedPacket(block))) => {
                        self.packets += 1;
                        match interfaces.get(block.if_id as usize) {
                            Some(interface) => {
                                let captured = (block.caplen as usize).min(block.data.len());
                                let packet = Packet {
                                    ts: ng_time(block.ts_high, block.ts_low, interface),
                                    link: interface.link,
                                    wire_bytes: block.origlen.max(captured as u32),
                                    bytes: &block.data[..captured],
                                };
                                take(self.packets, Ok(&packet));
                            }
                            None => take(
                                self.packets,
                                Err((
                                    RejectCause::Malformed,
                                    format!("interface {} is not described", block.if_id),
                                )),
                            ),
                        }
                    }
                    Ok((_, Block::SimplePacket(_))) => {
                        // The format gives such a packet no time, and an event needs one.
                        self.packets += 1;
                        take(
                            self.packets,
                            Err((RejectCause::BadTime, "a simple packet block has no timestamp".to_owned())),
                        );
                    }
                    Ok(_) => {}
                    Err(_) => {
                        self.packets += 1;
                        take(self.packets, Err((RejectCause::Malformed, "a broken pcapng block".to_owned())));
                    }
                }
                self.input.consume(length);
                Ok(true)
            }
        }
    }
}

fn cut(input: &Input, packet: u64, found: usize, wanted: usize) -> ReadError {
    damaged(
        input,
        Place::Packet(packet),
        format!("the file ends inside it: {found} of {wanted} bytes are there"),
    )
}

fn take(core: &mut Core, hosts: &mut Hosts, packet: &Packet<'_>, number: u64, events: &mut Vec<Event>) {
    let start = events.len();
    match packet_events(core, hosts, packet, events) {
        Ok(()) => core.finish_unit(events, start),
        Err(refusal) => {
            events.truncate(start);
            core.refuse_with(refusal, Place::Packet(number));
        }
    }
}

fn not_an_event() -> Refusal {
    (RejectCause::NotAnEvent, String::new())
}

fn malformed(why: impl std::fmt::Display) -> Refusal {
    (RejectCause::Malformed, why.to_string())
}

/// Strips the link layer.
fn slice<'a>(link: i32, bytes: &'a [u8]) -> Result<LaxSlicedPacket<'a>, Refusal> {
    let short = || malformed(format!("{} bytes are too few for the link layer", bytes.len()));
    let ip = |bytes: &'a [u8]| LaxSlicedPacket::from_ip(bytes).map_err(malformed);
    let tagged = |protocol: [u8; 2], at: usize| {
        bytes
            .get(at..)
            .map(|rest| LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes(protocol)), rest))
            .ok_or_else(short)
    };
    match link {
        1 => LaxSlicedPacket::from_ethernet(bytes).map_err(malformed),
        12 | 14 | 101 | 228 | 229 => ip(bytes),
        // BSD loopback: an address family in the byte order of the capturing machine, or in network order.
        0 | 108 => match bytes.split_at_checked(4) {
            Some(([2 | 10 | 24 | 28 | 30, 0, 0, 0] | [0, 0, 0, 2 | 10 | 24 | 28 | 30], rest)) => ip(rest),
            Some(_) => Err(not_an_event()),
            None => Err(short()),
        },
        113 => match bytes.get(14..16) {
            Some(&[high, low]) => tagged([high, low], 16),
            _ => Err(short()),
        },
        276 => match bytes.get(..2) {
            Some(&[high, low]) => tagged([high, low], 20),
            _ => Err(short()),
        },
        _ => Err(not_an_event()),
    }
}

fn packet_events(
    core: &mut Core,
    hosts: &mut Hosts,
    packet: &Packet<'_>,
    events: &mut Vec<Event>,
) -> Result<(), Refusal> {
    let ts = packet.ts.clone()?;
    let sliced = slice(packet.link, packet.bytes)?;
    let (from, to, protocol) = match &sliced.net {
        Some(etherparse::LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let addresses = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
            (addresses.0, addresses.1, ip.payload().ip_number.0)
        }
        Some(etherparse::LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addresses = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
            (addresses.0, addresses.1, ip.payload().ip_number.0)
        }
        _ => {
            // An IP packet cut inside its header ends here as well as one that is not IP.
            return Err(match &sliced.stop_err {
                Some((error, _)) => malformed(error),
                None => not_an_event(),
            });
        }
    };
    let (source_port, target_port, tcp_flags, payload) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            // Byte 13 of the header holds FIN (1) to CWR (128), just as events have them.
            (tcp.source_port(), tcp.destination_port(), tcp.slice().get(13).copied().unwrap_or(0), None)
        }
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port(), 0, Some(udp.payload())),
        _ => match &sliced.stop_err {
            Some((error, _)) => return Err(malformed(error)),
            None => (0, 0, 0, None),
        },
    };
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let sender_opened = match tcp_flags & (SYN | ACK) {
        SYN => true,
        flags if flags == SYN | ACK => false,
        _ => target_port <= source_port,
    };
    let flow = FlowPayload {
        peer: 0,
        bytes: packet.wire_bytes,
        packets: 1,
        port: if sender_opened { target_port } else { source_port },
        protocol,
        tcp_flags,
        duration: 0,
    };
    let (sender, receiver) = (hosts.host(core, from)?, hosts.host(core, to)?);
    let opened = |yes: bool| if yes { flag::FLOW_ORIGINATOR } else { 0 };
    let flags = flag::FLOW_OUTBOUND | opened(sender_opened) | ip_flag(from);
    events.push(Event::flow(ts, sender.key, 0, flags, FlowPayload { peer: receiver.hash, ..flow }));
    let flags = opened(!sender_opened) | ip_flag(to);
    events.push(Event::flow(ts, receiver.key, 0, flags, FlowPayload { peer: sender.hash, ..flow }));
    if let (53, Some(payload)) = (target_port, payload)
        && let Some((name, record_type)) = dns_question(payload)
    {
        events.push(Event::name(ts, sender.key, 0, name_payload(&name, record_type, 0)));
    }
    Ok(())
}

/// The first question of a DNS query. Questions come before anything a pointer could point back to, so a pointer in
/// one means that it is no real query.
fn dns_question(message: &[u8]) -> Option<(Vec<u8>, u16)> {
    const NAME_BYTES_MAX: usize = 255;
    let header = message.get(..12)?;
    let is_query = header[2] & 0x80 == 0;
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if !is_query || questions == 0 {
        return None;
    }
    let mut name = Vec::with_capacity(64);
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 || name.len() + length + 1 > NAME_BYTES_MAX {
            return None;
        }
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend_from_slice(message.get(at..at + length)?);
        at += length;
    }
    let record_type = message.get(at..at + 2)?;
    Some((name, u16::from_be_bytes([record_type[0], record_type[1]])))
}

impl Decode for Pcap {
    fn fill(&mut self, core: &mut Core, events: &mut Vec<Event>, target: usize) -> Result<bool, ReadError> {
        while events.len() < target && !core.stopped() {
            let hosts = &mut self.hosts;
            let more = self.frames.step(|number, packet| match packet {
                Ok(packet) => take(core, hosts, packet, number, events),
                Err(refusal) => core.refuse_with(refusal, Place::Packet(number)),
            })?;
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn progress(&self) -> Progress {
        self.frames.progress()
    }

    fn format(&self) -> String {
        self.frames.format().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read_all, read_err, torture};
    use super::super::{Format, ReadOptions};
    use super::*;
    use etherparse::PacketBuilder;
    use tidegate_engine::{kind, name_hash};

    fn legacy(link: u32, packets: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, link] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for (sec, frac, wire, bytes) in packets {
            for word in [*sec, *frac, bytes.len() as u32, *wire] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(bytes);
        }
        out
    }

    fn syn(vlan: bool) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let builder = if vlan {
            builder.single_vlan(5.try_into().unwrap()).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        } else {
            builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        };
        let mut out = Vec::new();
        builder.tcp(40_000, 443, 1, 1_000).syn().write(&mut out, &[]).unwrap();
        out
    }

    fn dns() -> Vec<u8> {
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x03WWW\x07example\x03com\x00\x00\x10\x00\x01");
        let mut out = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6([1; 16], [2; 16], 9);
        builder.udp(5_000, 53).write(&mut out, &query).unwrap();
        out
    }

    fn arp() -> Vec<u8> {
        let mut out = vec![0xff; 12];
        out.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        out.resize(42, 0);
        out
    }

    #[test]
    fn packets_become_flow_pairs_and_names() {
        let file = legacy(
            1,
            &[
                (5, 7, 1_500, syn(false)),
                (6, 0, 90, dns()),
                (6, 1, 42, arp()),
                (6, 1, 60, syn(true)),
                (7, 0, 60, syn(false)[..30].to_vec()),
            ],
        );
        let (events, account, names) = read_all(Format::Pcap, &file, &ReadOptions::default());
        assert_eq!((account.units, account.accepted, account.events), (5, 3, 7));
        assert_eq!(
            (account.refused(RejectCause::NotAnEvent), account.refused(RejectCause::Malformed)),
            (1, 1)
        );
        assert_eq!(account.examples[0].1, Place::Packet(5));
        assert_eq!(names[..2], ["10.0.0.1", "10.0.0.2"]);
        let sent = events[0].as_flow();
        assert_eq!(
            (events[0].ts_event, events[0].flags),
            (5_000_007_000, flag::FLOW_OUTBOUND | flag::FLOW_ORIGINATOR)
        );
        assert_eq!(
            (sent.bytes, sent.packets, sent.port, sent.protocol, sent.tcp_flags),
            (1_500, 1, 443, 6, 2)
        );
        assert_eq!(sent.peer, name_hash(b"10.0.0.2") as u32);
        assert_eq!((events[1].key, events[1].flags), (1, 0));
        assert_eq!((events[4].kind, events[4].as_name().record_type), (kind::NAME, 16));
        assert_eq!(events[4].as_name().name, name_hash(b"www.example.com"));
        assert!(events[4].key == events[2].key && events[2].flags & flag::FLOW_IPV6 != 0);
    }

    #[test]
    fn every_link_type_leads_to_the_same_flow() {
        let ip = syn(false)[14..].to_vec();
        let framed = |head: &[u8]| [head, &ip].concat();
        let mut cooked = vec![0; 14];
        cooked.extend_from_slice(&[8, 0]);
        let mut cooked2 = vec![8, 0];
        cooked2.resize(20, 0);
        let cases = [
            (101, ip.clone()),
            (12, ip.clone()),
            (228, ip.clone()),
            (0, framed(&[2, 0, 0, 0])),
            (108, framed(&[0, 0, 0, 2])),
            (113, framed(&cooked)),
            (276, framed(&cooked2)),
        ];
        for (link, bytes) in cases {
            let (events, _, _) =
                read_all(Format::Pcap, &legacy(link, &[(1, 0, 60, bytes)]), &ReadOptions::default());
            assert_eq!((events.len(), events[0].as_flow().port), (2, 443), "link type {link}");
        }
        let (events, account, _) =
            read_all(Format::Pcap, &legacy(147, &[(1, 0, 60, ip)]), &ReadOptions::default());
        assert_eq!((events.len(), account.refused(RejectCause::NotAnEvent)), (0, 1));
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = body.len() as u32 + 12;
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), &body, &length.to_le_bytes()].concat()
    }

    fn ng() -> Vec<u8> {
        let section = [&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        // Nanosecond stamps: option 9 of length 1.
        let interface = [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        let packet = syn(false);
        let ts = 1_700_000_000_123_456_789u64;
        let mut head = Vec::new();
        for word in [0, (ts >> 32) as u32, ts as u32, packet.len() as u32, 999] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &[head, packet].concat())].concat()
    }

    #[test]
    fn pcapng_keeps_nanoseconds() {
        let (events, account, _) = read_all(Format::Pcap, &ng(), &ReadOptions::default());
        assert_eq!((events.len(), account.units), (2, 1));
        assert_eq!((events[0].ts_event, events[0].as_flow().bytes), (1_700_000_000_123_456_789, 999));
    }

    #[test]
    fn damage_never_panics() {
        let file = legacy(1, &[(5, 7, 1_500, syn(true)), (6, 0, 90, dns())]);
        torture(Format::Pcap, &file);
        torture(Format::Pcap, &ng());
        let cut = read_err(Format::Pcap, &file[..file.len() - 1], &ReadOptions::default());
        assert!(matches!(cut, ReadError::Damaged { place: Place::Packet(2), .. }), "{cut}");
    }
}
