//! One captured frame, read down to its transport header: link layers, VLAN and MPLS tags, IPv4 and IPv6 with options and
//! extension headers, fragments, and what is carried inside IP-in-IP, GRE, VXLAN and Geneve.
//!
//! Nothing is copied; a frame cut short by the snap length is read as far as its headers go, and lengths come from the IP
//! header, so that counts do not depend on the snap length.

use crate::address::Ip;

/// Headers one inside the other that are followed; more is taken for an attack on the parser.
const NESTING_MAX: u8 = 8;

/// Protocol numbers of IP.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMP6: u8 = 58;
}

/// Bits of [`Packet::tcp_flags`].
pub mod tcp_flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// First packet of a direction.
    pub const SYN: u8 = 2;
    /// Refused or torn down.
    pub const RST: u8 = 4;
    /// Deliver now.
    pub const PSH: u8 = 8;
    /// The acknowledgment number is valid.
    pub const ACK: u8 = 16;
    /// The urgent pointer is valid.
    pub const URG: u8 = 32;
}

/// What a frame holds.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// An IP packet.
    Ip(Packet<'a>),
    /// A question or an answer about who has an address.
    Arp(Arp),
    /// Something else that is well-formed, or of no interest: spanning tree, LLDP, 802.11.
    Other,
}

/// An IP packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Place in the input, from 1.
    pub number: u64,
    /// Capture time, ns since 1970.
    pub ts: u64,
    /// Sender.
    pub source: Ip,
    /// Receiver.
    pub target: Ip,
    /// Protocol of the payload, see [`protocol`].
    pub protocol: u8,
    /// Port of the sender; for ICMP the type.
    pub source_port: u16,
    /// Port of the receiver; for ICMP the code.
    pub target_port: u16,
    /// TCP flags, see [`tcp_flag`]; 0 for others.
    pub tcp_flags: u8,
    /// TCP sequence number; for ICMP the four bytes after the checksum (identifier and number of an echo).
    pub sequence: u32,
    /// TCP acknowledgment number.
    pub acknowledged: u32,
    /// TCP window as sent, without scale.
    pub window: u16,
    /// Payload of the transport as far as captured.
    pub payload: &'a [u8],
    /// Length of that payload on the wire.
    pub payload_bytes: u32,
    /// Length of the IP packet on the wire.
    pub ip_bytes: u32,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Part of a fragmented packet.
    pub fragment: Fragment,
    /// Identification of a fragmented packet.
    pub identification: u32,
    /// Innermost VLAN, 0 for none.
    pub vlan: u16,
    /// Tunnels around it that were opened.
    pub tunnels: u8,
    /// Sender's link-layer address, zeros where there is none.
    pub source_mac: [u8; 6],
}

/// How much of a packet a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    Whole,
    /// The first part, with the transport header.
    First,
    /// A later part, without.
    Later,
}

/// An ARP packet for IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Place in the input, from 1.
    pub number: u64,
    /// Capture time, ns since 1970.
    pub ts: u64,
    /// A reply, as against a request.
    pub reply: bool,
    /// Who says so.
    pub sender_mac: [u8; 6],
    /// The address the sender claims.
    pub sender: Ip,
    /// Who is addressed; zeros in most requests.
    pub target_mac: [u8; 6],
    /// The address asked for.
    pub target: Ip,
    /// Link-layer receiver is everybody.
    pub broadcast: bool,
}

/// Why a frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unparsed {
    /// The frame ends inside a header.
    Cut,
    /// A header contradicts itself: a length below its minimum, a wrong version.
    Malformed,
    /// The link type is not known here.
    LinkType,
    /// More headers inside each other than are followed.
    Nested,
}

impl Unparsed {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Cut, Self::Malformed, Self::LinkType, Self::Nested];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Malformed => "malformed",
            Self::LinkType => "link_type",
            Self::Nested => "nested",
        }
    }
}

impl std::fmt::Display for Unparsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cut => "the frame ends inside a header",
            Self::Malformed => "a header contradicts itself",
            Self::LinkType => "its link type is not known here",
            Self::Nested => "too many headers inside each other",
        })
    }
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, Unparsed> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(Unparsed::Cut),
    }
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, Unparsed> {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(Unparsed::Cut),
    }
}

fn mac(bytes: &[u8], at: usize) -> [u8; 6] {
    bytes.get(at..at + 6).and_then(|mac| mac.try_into().ok()).unwrap_or_default()
}

/// What is known of a frame before its IP header.
#[derive(Clone, Copy, Default)]
struct Outer {
    number: u64,
    ts: u64,
    vlan: u16,
    tunnels: u8,
    nesting: u8,
    source_mac: [u8; 6],
    broadcast: bool,
}

impl Outer {
    fn deeper(self) -> Result<Self, Unparsed> {
        if self.nesting >= NESTING_MAX {
            return Err(Unparsed::Nested);
        }
        Ok(Self { nesting: self.nesting + 1, ..self })
    }

    fn tunnel(self) -> Result<Self, Unparsed> {
        Ok(Self { tunnels: self.tunnels + 1, ..self.deeper()? })
    }
}

/// Reads one frame of libpcap link type `link`.
///
/// # Errors
/// [`Unparsed`] where headers are cut short, contradict themselves, or the link type is unknown.
pub fn parse(number: u64, ts: u64, link: u32, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    let outer = Outer { number, ts, ..Outer::default() };
    match link {
        1 => ethernet(outer, bytes),
        12 | 14 | 101 | 228 | 229 => ip(outer, bytes),
        // BSD loopback: an address family in the byte order of the capturing machine, or in network order.
        0 | 108 => match bytes.split_at_checked(4) {
            Some(([2 | 10 | 24 | 28 | 30, 0, 0, 0] | [0, 0, 0, 2 | 10 | 24 | 28 | 30], rest)) => {
                ip(outer, rest)
            }
            Some(_) => Ok(Frame::Other),
            None => Err(Unparsed::Cut),
        },
        // Linux cooked captures, versions 1 and 2.
        113 => {
            let outer = Outer { source_mac: mac(bytes, 6), ..outer };
            ether_type(outer, be16(bytes, 14)?, &bytes[16..])
        }
        276 => {
            let outer = Outer { source_mac: mac(bytes, 12), ..outer };
            ether_type(outer, be16(bytes, 0)?, bytes.get(20..).ok_or(Unparsed::Cut)?)
        }
        _ => Err(Unparsed::LinkType),
    }
}

fn ethernet(outer: Outer, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    let outer = Outer {
        source_mac: mac(bytes, 6),
        broadcast: bytes.first().is_some_and(|first| first & 1 == 1),
        ..outer
    };
    match be16(bytes, 12)? {
        // Nearly all.
        0x0800 => ip(outer.deeper()?, &bytes[14..]),
        kind => ether_type(outer, kind, &bytes[14..]),
    }
}

fn ether_type(outer: Outer, kind: u16, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    let outer = outer.deeper()?;
    match kind {
        0x0800 | 0x86dd => ip(outer, bytes),
        0x0806 => arp(outer, bytes),
        0x8100 | 0x88a8 | 0x9100 => {
            let vlan = be16(bytes, 0)? & 0x0fff;
            ether_type(Outer { vlan, ..outer }, be16(bytes, 2)?, &bytes[4..])
        }
        // MPLS: labels until the bottom of the stack, then an IP version, or a pseudowire of Ethernet.
        0x8847 | 0x8848 => {
            let label = be32(bytes, 0)?;
            let rest = &bytes[4..];
            if label & 0x100 == 0 {
                return ether_type(outer, kind, rest);
            }
            match rest.first() {
                Some(first) if matches!(first >> 4, 4 | 6) => ip(outer, rest),
                Some(0) => ethernet(outer.tunnel()?, rest.get(4..).ok_or(Unparsed::Cut)?),
                Some(_) => ethernet(outer.tunnel()?, rest),
                None => Err(Unparsed::Cut),
            }
        }
        // PPPoE session: six bytes, then a PPP protocol.
        0x8864 => match be16(bytes, 6)? {
            0x0021 | 0x0057 => ip(outer, &bytes[8..]),
            _ => Ok(Frame::Other),
        },
        _ => Ok(Frame::Other),
    }
}

fn arp(outer: Outer, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    // Ethernet and IPv4 are all that is in use.
    if be32(bytes, 0)? != 0x0001_0800 || be16(bytes, 4)? != 0x0604 {
        return Ok(Frame::Other);
    }
    let operation = be16(bytes, 6)?;
    if !matches!(operation, 1 | 2) {
        return Ok(Frame::Other);
    }
    let (sender, target) = (be32(bytes, 14)?, be32(bytes, 24)?);
    Ok(Frame::Arp(Arp {
        number: outer.number,
        ts: outer.ts,
        reply: operation == 2,
        sender_mac: mac(bytes, 8),
        sender: Ip::v4(sender.to_be_bytes()),
        target_mac: mac(bytes, 18),
        target: Ip::v4(target.to_be_bytes()),
        broadcast: outer.broadcast,
    }))
}

fn ip(outer: Outer, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    let outer = outer.deeper()?;
    match bytes.first().map(|first| first >> 4) {
        Some(4) => ipv4(outer, bytes),
        Some(6) => ipv6(outer, bytes),
        Some(_) => Err(Unparsed::Malformed),
        None => Err(Unparsed::Cut),
    }
}

#[inline(always)]
fn ipv4(outer: Outer, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    let header: &[u8; 20] = bytes.first_chunk().ok_or(Unparsed::Cut)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Zero where the network card cuts segments: then the capture says how long it was.
    let total = if total == 0 { bytes.len() } else { total };
    if header_bytes < 20 || total < header_bytes {
        return Err(Unparsed::Malformed);
    }
    let offset = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (offset & 0x1fff, offset & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let body = bytes.get(header_bytes..bytes.len().min(total)).ok_or(Unparsed::Cut)?;
    let packet = Packet {
        number: outer.number,
        ts: outer.ts,
        source: Ip::v4([header[12], header[13], header[14], header[15]]),
        target: Ip::v4([header[16], header[17], header[18], header[19]]),
        protocol: header[9],
        source_port: 0,
        target_port: 0,
        tcp_flags: 0,
        sequence: 0,
        acknowledged: 0,
        window: 0,
        payload: body,
        payload_bytes: (total - header_bytes) as u32,
        ip_bytes: total as u32,
        ttl: header[8],
        fragment,
        identification: u32::from(u16::from_be_bytes([header[4], header[5]])),
        vlan: outer.vlan,
        tunnels: outer.tunnels,
        source_mac: outer.source_mac,
    };
    transport(outer, packet)
}

fn ipv6(outer: Outer, bytes: &[u8]) -> Result<Frame<'_>, Unparsed> {
    let header: &[u8; 40] = bytes.first_chunk().ok_or(Unparsed::Cut)?;
    let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // Zero in jumbograms and where the network card cuts segments.
    let length = if stated == 0 { bytes.len() - 40 } else { stated };
    let mut body = &bytes[40..bytes.len().min(40 + length)];
    let mut left = length;
    let mut next = header[6];
    let (mut fragment, mut identification) = (Fragment::Whole, 0);
    let address = |at: usize| Ip::v6(header[at..at + 16].try_into().unwrap_or_default());
    for step in 0.. {
        if step > NESTING_MAX {
            return Err(Unparsed::Nested);
        }
        let size = match next {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(*body.get(1).ok_or(Unparsed::Cut)?) + 1) * 8,
            51 => (usize::from(*body.get(1).ok_or(Unparsed::Cut)?) + 2) * 4,
            44 => {
                let offset = be16(body, 2)?;
                identification = be32(body, 4)?;
                fragment = match (offset >> 3, offset & 1) {
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            _ => break,
        };
        next = *body.first().ok_or(Unparsed::Cut)?;
        body = body.get(size..).ok_or(Unparsed::Cut)?;
        left = left.checked_sub(size).ok_or(Unparsed::Malformed)?;
        if fragment == Fragment::Later {
            break;
        }
    }
    let packet = Packet {
        number: outer.number,
        ts: outer.ts,
        source: address(8),
        target: address(24),
        protocol: next,
        source_port: 0,
        target_port: 0,
        tcp_flags: 0,
        sequence: 0,
        acknowledged: 0,
        window: 0,
        payload: body,
        payload_bytes: left as u32,
        ip_bytes: (40 + length) as u32,
        ttl: header[7],
        fragment,
        identification,
        vlan: outer.vlan,
        tunnels: outer.tunnels,
        source_mac: outer.source_mac,
    };
    transport(outer, packet)
}

/// In place, as is its caller: a packet is then written where it is returned, and not copied.
#[inline(always)]
fn transport<'a>(outer: Outer, mut packet: Packet<'a>) -> Result<Frame<'a>, Unparsed> {
    if packet.fragment == Fragment::Later {
        return Ok(Frame::Ip(packet));
    }
    let body = packet.payload;
    match packet.protocol {
        protocol::TCP => {
            let header: &[u8; 20] = body.first_chunk().ok_or(Unparsed::Cut)?;
            let size = usize::from(header[12] >> 4) * 4;
            if size < 20 || size as u32 > packet.payload_bytes {
                return Err(Unparsed::Malformed);
            }
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.target_port = u16::from_be_bytes([header[2], header[3]]);
            packet.sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            packet.acknowledged = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            packet.tcp_flags = header[13];
            packet.window = u16::from_be_bytes([header[14], header[15]]);
            packet.payload = body.get(size..).unwrap_or_default();
            packet.payload_bytes -= size as u32;
        }
        protocol::UDP => {
            let header: &[u8; 8] = body.first_chunk().ok_or(Unparsed::Cut)?;
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.target_port = u16::from_be_bytes([header[2], header[3]]);
            let stated = u32::from(u16::from_be_bytes([header[4], header[5]]));
            // A length of zero is a jumbogram's; a first fragment states more than it holds.
            let whole = if stated == 0 { packet.payload_bytes } else { stated.min(packet.payload_bytes) };
            packet.payload_bytes = whole.checked_sub(8).ok_or(Unparsed::Malformed)?;
            let end = body.len().min(8 + packet.payload_bytes as usize);
            packet.payload = &body[8..end];
            if packet.fragment == Fragment::Whole {
                match packet.target_port {
                    4789 => return tunnelled(outer, packet, 8, vxlan),
                    6081 => return tunnelled(outer, packet, 0, geneve),
                    _ => {}
                }
            }
        }
        protocol::ICMP | protocol::ICMP6 => {
            let header: &[u8; 4] = body.first_chunk().ok_or(Unparsed::Cut)?;
            packet.source_port = u16::from(header[0]);
            packet.target_port = u16::from(header[1]);
            packet.sequence = be32(body, 4).unwrap_or(0);
            packet.payload = body.get(8..).unwrap_or_default();
            packet.payload_bytes = packet.payload_bytes.saturating_sub(8);
        }
        132 => {
            packet.source_port = be16(body, 0)?;
            packet.target_port = be16(body, 2)?;
        }
        // IPv4 or IPv6 in IP.
        4 | 41 if packet.fragment == Fragment::Whole => return ip(outer.tunnel()?, body),
        47 if packet.fragment == Fragment::Whole => return gre(outer.tunnel()?, packet, body),
        _ => {}
    }
    Ok(Frame::Ip(packet))
}

/// Opens a tunnel, or gives the packet as it is where what is inside cannot be read: its port may be used by something else.
fn tunnelled<'a>(
    outer: Outer,
    packet: Packet<'a>,
    skip: usize,
    open: fn(Outer, &'a [u8], usize) -> Result<Frame<'a>, Unparsed>,
) -> Result<Frame<'a>, Unparsed> {
    match outer.tunnel() {
        Ok(inner) => match open(inner, packet.payload, skip) {
            Ok(Frame::Other) | Err(Unparsed::Cut | Unparsed::Malformed | Unparsed::LinkType) => {
                Ok(Frame::Ip(packet))
            }
            done => done,
        },
        Err(nested) => Err(nested),
    }
}

fn vxlan(outer: Outer, bytes: &[u8], skip: usize) -> Result<Frame<'_>, Unparsed> {
    // The flag that the network identifier is valid, and nothing else.
    if bytes.first() != Some(&0x08) {
        return Err(Unparsed::Malformed);
    }
    ethernet(outer, bytes.get(skip..).ok_or(Unparsed::Cut)?)
}

fn geneve(outer: Outer, bytes: &[u8], _skip: usize) -> Result<Frame<'_>, Unparsed> {
    let first = *bytes.first().ok_or(Unparsed::Cut)?;
    if first >> 6 != 0 {
        return Err(Unparsed::Malformed);
    }
    let rest = bytes.get(8 + usize::from(first & 0x3f) * 4..).ok_or(Unparsed::Cut)?;
    match be16(bytes, 2)? {
        0x6558 => ethernet(outer, rest),
        kind => ether_type(outer, kind, rest),
    }
}

fn gre<'a>(outer: Outer, packet: Packet<'a>, bytes: &'a [u8]) -> Result<Frame<'a>, Unparsed> {
    let flags = be16(bytes, 0)?;
    let kind = be16(bytes, 2)?;
    let optional = [0x8000, 0x2000, 0x1000].iter().filter(|&&bit| flags & bit != 0).count() * 4;
    match (flags & 7, kind) {
        (0, 0x6558) => ethernet(outer, bytes.get(4 + optional..).ok_or(Unparsed::Cut)?),
        // ERSPAN: without a sequence number there is no header of its own.
        (0, 0x88be) => {
            let own = if flags & 0x1000 != 0 { 8 } else { 0 };
            ethernet(outer, bytes.get(4 + optional + own..).ok_or(Unparsed::Cut)?)
        }
        (0, 0x0800 | 0x86dd) => ip(outer, bytes.get(4 + optional..).ok_or(Unparsed::Cut)?),
        // PPTP's variant carries PPP, mostly encrypted; anything else stays what it is.
        _ => Ok(Frame::Ip(packet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn built(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        builder.write(&mut out, payload).unwrap();
        out
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        built(PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1000, 53), payload)
    }

    fn packet(link: u32, bytes: &[u8]) -> Packet<'_> {
        match parse(7, 9, link, bytes) {
            Ok(Frame::Ip(packet)) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tcp_over_ethernet() {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 61)
            .tcp(1000, 80, 77, 1024)
            .syn()
            .ack(99)
            .write(&mut bytes, b"hello")
            .unwrap();
        bytes.extend([0; 6]); // padding of the link is no payload
        let got = packet(1, &bytes);
        assert_eq!((got.source.to_string(), got.source_port), ("10.0.0.1".to_owned(), 1000));
        assert_eq!((got.target.to_string(), got.target_port), ("10.0.0.2".to_owned(), 80));
        assert_eq!((got.sequence, got.acknowledged, got.window, got.ttl), (77, 99, 1024, 61));
        assert_eq!(got.tcp_flags, tcp_flag::SYN | tcp_flag::ACK);
        assert_eq!((got.payload, got.payload_bytes, got.ip_bytes), (&b"hello"[..], 5, 45));
        assert_eq!(got.source_mac, [2; 6]);
        // Cut by the snap length: headers are there, lengths stay true.
        let got = packet(1, &bytes[..14 + 20 + 20 + 2]);
        assert_eq!((got.payload, got.payload_bytes), (&b"he"[..], 5));
        assert_eq!(parse(1, 1, 1, &bytes[..40]).err(), Some(Unparsed::Cut));
    }

    #[test]
    fn tags_and_tunnels_are_opened() {
        let inner = udp(b"x");
        let ether = |kind: u16, rest: &[u8]| {
            let mut out = vec![0; 12];
            out.extend(kind.to_be_bytes());
            out.extend(rest);
            out
        };
        let plain = ether(0x0800, &inner);
        let tagged = ether(0x88a8, &[&[0, 5, 0x81, 0, 0x20, 9, 8, 0], &inner[..]].concat());
        let got = packet(1, &tagged);
        assert_eq!((got.vlan, got.target_port, got.tunnels), (9, 53, 0));
        let mpls = ether(0x8847, &[&[0, 0, 0, 1, 0, 0, 1, 1], &inner[..]].concat());
        assert_eq!(packet(1, &mpls).target_port, 53);
        let pppoe = ether(0x8864, &[&[0x11, 0, 0, 1, 0, 30, 0, 0x21], &inner[..]].concat());
        assert_eq!(packet(1, &pppoe).target_port, 53);
        let wrap = |number: u8, body: &[u8]| {
            let mut out = Vec::new();
            PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9)
                .write(&mut out, etherparse::IpNumber(number), body)
                .unwrap();
            out
        };
        for (number, head) in [(4, &[][..]), (47, &[0, 0, 8, 0]), (47, &[0x20, 0, 8, 0, 1, 2, 3, 4])] {
            let bytes = wrap(number, &[head, &inner[..]].concat());
            let got = packet(101, &bytes);
            assert_eq!((got.source.to_string(), got.tunnels), ("10.0.0.1".to_owned(), 1), "{number}");
        }
        let teb = wrap(47, &[&[0, 0, 0x65, 0x58], &plain[..]].concat());
        assert_eq!((packet(101, &teb).target_port, packet(101, &teb).tunnels), (53, 1));
        let vxlan = built(
            PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9).udp(5555, 4789),
            &[&[8, 0, 0, 0, 0, 0, 1, 0], &plain[..]].concat(),
        );
        assert_eq!((packet(101, &vxlan).target_port, packet(101, &vxlan).tunnels), (53, 1));
        let geneve = built(
            PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9).udp(5555, 6081),
            &[&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9], &plain[..]].concat(),
        );
        assert_eq!((packet(101, &geneve).target_port, packet(101, &geneve).tunnels), (53, 1));
        let other = built(PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9).udp(5555, 4789), b"no vxlan");
        assert_eq!((packet(101, &other).target_port, packet(101, &other).tunnels), (4789, 0));
        let mut bomb = inner;
        for _ in 0..20 {
            bomb = wrap(4, &bomb);
        }
        assert_eq!(parse(1, 1, 101, &bomb).err(), Some(Unparsed::Nested));
    }

    #[test]
    fn fragments_and_extension_headers() {
        let mut bytes = udp(b"0123456789");
        bytes[6] = 0x20; // more fragments
        assert_eq!(packet(101, &bytes).fragment, Fragment::First);
        bytes[6..8].copy_from_slice(&[0, 3]);
        let got = packet(101, &bytes);
        assert_eq!((got.fragment, got.source_port, got.payload_bytes), (Fragment::Later, 0, 18));
        let mut v6 = built(PacketBuilder::ipv6([1; 16], [2; 16], 3).udp(1000, 53), b"abc");
        let rest = v6.split_off(40);
        v6[6] = 60;
        v6[5] += 16;
        v6.extend([44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 42]);
        v6.extend(rest);
        let got = packet(101, &v6);
        assert_eq!((got.fragment, got.identification, got.target_port), (Fragment::First, 42, 53));
        assert_eq!((got.payload, got.ip_bytes), (&b"abc"[..], 40 + 16 + 11));
    }

    #[test]
    fn arp_is_read() {
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
        bytes.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
        match parse(3, 4, 1, &bytes) {
            Ok(Frame::Arp(arp)) => {
                assert_eq!(
                    (arp.sender.to_string(), arp.target.to_string()),
                    ("10.0.0.1".into(), "10.0.0.9".into())
                );
                assert!(!arp.reply && arp.broadcast && arp.sender_mac == [2, 0, 0, 0, 0, 1]);
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), link in 0u32..300) {
            if let Ok(Frame::Ip(packet)) = parse(1, 1, link, &bytes) {
                prop_assert!(packet.payload.len() <= bytes.len());
            }
        }

        #[test]
        fn a_damaged_packet_is_read_or_refused(at in 0usize..60, value: u8, cut in 0usize..70) {
            let mut bytes = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 61).tcp(1000, 80, 77, 1024)
                .write(&mut bytes, b"hello world").unwrap();
            if at < bytes.len() {
                bytes[at] = value;
            }
            bytes.truncate(cut);
            let _ = parse(1, 1, 1, &bytes);
        }
    }
}
