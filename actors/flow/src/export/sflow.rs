//! sFlow version 5: samples of packets, as their first bytes or as their addresses. A sample counts for as many packets as its rate says.

use super::{Arrival, Collector, Cursor, Dialect, ExportError, Half};
use crate::address::Ip;
use crate::packet::{Frame, Packet, parse};
use crate::record::FlowRecord;

/// Samples of a datagram, and records of a sample: more do not fit.
const SAMPLES_MAX: u32 = 512;

impl Collector {
    pub(super) fn sflow(
        &mut self,
        arrival: Arrival,
        bytes: &[u8],
        take: &mut impl FnMut(&FlowRecord),
    ) -> Result<(), ExportError> {
        let mut rest = Cursor::new(bytes);
        let header = (|| {
            rest.u32()?;
            let agent = match rest.u32()? {
                1 => Ip::v4(rest.take(4)?.try_into().ok()?),
                2 => Ip::v6(rest.take(16)?.try_into().ok()?),
                _ => return None,
            };
            let (domain, sequence) = (rest.u32()?, rest.u32()?);
            rest.u32()?;
            Some((agent, domain, sequence, rest.u32()?))
        })();
        let (agent, domain, sequence, samples) = header.ok_or(ExportError::Malformed)?;
        if samples > SAMPLES_MAX {
            return Err(ExportError::Malformed);
        }
        // Agents behind an address translator share that of the datagram; their own tells them apart.
        let domain = domain ^ crate::hash::short_hash(&agent);
        let counts = &mut self.counts;
        let exporter = self.exporters.entry((arrival.exporter, domain, Dialect::Sflow), super::Exporter::new);
        exporter.sequence(sequence, 1, counts);
        for _ in 0..samples {
            let sample = rest.u32().zip(rest.u32()).and_then(|(kind, length)| {
                // Padded to four bytes.
                rest.take((length as usize).checked_next_multiple_of(4)?).map(|bytes| (kind, bytes))
            });
            let Some((kind, sample)) = sample else {
                self.counts.malformed += 1;
                return Ok(());
            };
            // Flow samples, short and expanded; counters are not flows.
            if matches!(kind, 1 | 3) && self.sample(arrival, kind == 3, sample, take).is_none() {
                self.counts.malformed += 1;
            }
        }
        Ok(())
    }

    fn sample(
        &mut self,
        arrival: Arrival,
        expanded: bool,
        bytes: &[u8],
        take: &mut impl FnMut(&FlowRecord),
    ) -> Option<()> {
        let mut rest = Cursor::new(bytes);
        rest.take(if expanded { 12 } else { 8 })?;
        let rate = rest.u32()?;
        rest.u32()?;
        // A count since the agent's start, and so of little use without the one before.
        rest.u32()?;
        rest.take(if expanded { 16 } else { 8 })?;
        for _ in 0..rest.u32()?.min(SAMPLES_MAX) {
            let (kind, length) = (rest.u32()?, rest.u32()?);
            let record = rest.take((length as usize).checked_next_multiple_of(4)?)?;
            let half = match kind {
                1 => header(arrival, record)?,
                3 => addresses(record, 4)?,
                4 => addresses(record, 16)?,
                _ => continue,
            };
            let Some(half) = half else {
                self.counts.foreign += 1;
                continue;
            };
            let times = u64::from(rate.max(1));
            let half = Half {
                bytes: half.bytes.saturating_mul(times),
                packets: times,
                start_ns: arrival.received_ns,
                last_ns: arrival.received_ns,
                sampling: rate.max(1),
                sample: true,
                ..half
            };
            self.half(arrival, half, take);
        }
        Some(())
    }
}

/// The first bytes of a frame. Inner `None` where it holds no IP.
fn header(arrival: Arrival, bytes: &[u8]) -> Option<Option<Half>> {
    let mut rest = Cursor::new(bytes);
    let (kind, frame_bytes) = (rest.u32()?, rest.u32()?);
    rest.u32()?;
    let length = rest.u32()? as usize;
    let frame = rest.take(length)?;
    let link = match kind {
        1 => 1,
        11 => 228,
        12 => 229,
        _ => return Some(None),
    };
    Some(match parse(arrival.number, arrival.received_ns, link, frame) {
        Ok(Frame::Ip(packet)) => Some(of_packet(&packet, frame_bytes)),
        _ => None,
    })
}

fn of_packet(packet: &Packet<'_>, frame_bytes: u32) -> Half {
    let icmp = matches!(packet.protocol, 1 | 58);
    let both = ((packet.source_port & 0xff) << 8) | (packet.target_port & 0xff);
    Half {
        source: Some(packet.source),
        target: Some(packet.target),
        source_port: if icmp { 0 } else { packet.source_port },
        target_port: if icmp { both } else { packet.target_port },
        protocol: packet.protocol,
        flags: packet.tcp_flags,
        // What the IP header says, unless the frame itself was shorter.
        bytes: u64::from(packet.ip_bytes.min(frame_bytes)),
        vlan: packet.vlan,
        ..Half::default()
    }
}

/// Addresses and ports without the packet: length, protocol, addresses, ports, flags.
fn addresses(bytes: &[u8], width: usize) -> Option<Option<Half>> {
    let mut rest = Cursor::new(bytes);
    let (length, protocol) = (rest.u32()?, rest.u32()?);
    let mut ip = || {
        let bytes = rest.take(width)?;
        if width == 4 { Some(Ip::v4(bytes.try_into().ok()?)) } else { Some(Ip::v6(bytes.try_into().ok()?)) }
    };
    let (source, target) = (ip()?, ip()?);
    let (source_port, target_port, flags) = (rest.u32()?, rest.u32()?, rest.u32()?);
    Some(Some(Half {
        source: Some(source),
        target: Some(target),
        source_port: source_port as u16,
        target_port: target_port as u16,
        protocol: protocol as u8,
        flags: flags as u8,
        bytes: u64::from(length),
        ..Half::default()
    }))
}
