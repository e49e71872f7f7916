//! Packets that no client sends, written by hand.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddrV4};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;

/// A socket that takes whole packets of IPv4.
pub(crate) struct Wire(Socket);

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Wire {
    pub(crate) fn new() -> Self {
        // Protocol 255 is "raw": the header is ours, and the kernel fills in its length and checksum.
        Self(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("root may do this"))
    }

    fn send(&mut self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        // A full queue loses one of many.
        let _ = self.0.send_to(&packet, &SockAddr::from(SocketAddrV4::new(to, 0)));
    }

    pub(crate) fn tcp(
        &mut self,
        from: Ipv4Addr,
        from_port: u16,
        to: Ipv4Addr,
        port: u16,
        flags: u8,
        sequence: u32,
    ) {
        let mut segment = Vec::with_capacity(20);
        segment.extend(from_port.to_be_bytes());
        segment.extend(port.to_be_bytes());
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0]);
        let sum = checksum(&[&from.octets(), &to.octets(), &[0, 6, 0, 20], &segment]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.send(from, to, 6, &segment);
    }

    /// A ping of 56 bytes.
    pub(crate) fn echo(&mut self, from: Ipv4Addr, to: Ipv4Addr, number: u16) {
        let mut message = vec![8, 0, 0, 0, 7, 7];
        message.extend(number.to_be_bytes());
        message.extend([0x61; 56]);
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send(from, to, 1, &message);
    }
}
