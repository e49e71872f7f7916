//! NetFlow v5: a header of 24 bytes and up to 30 records of 48.

use super::{Arrival, Collector, Cursor, Dialect, ExportError, Half, at_uptime};
use crate::address::Ip;
use crate::record::FlowRecord;

/// More records do not fit what routers send.
const RECORDS_MAX: u16 = 30;

impl Collector {
    pub(super) fn v5(
        &mut self,
        arrival: Arrival,
        bytes: &[u8],
        take: &mut impl FnMut(&FlowRecord),
    ) -> Result<(), ExportError> {
        let header: &[u8; 24] = bytes.first_chunk().ok_or(ExportError::Malformed)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let count = u16::from_be_bytes([header[2], header[3]]);
        if count > RECORDS_MAX {
            return Err(ExportError::Malformed);
        }
        let uptime = word(4);
        let base =
            self.clock(u64::from(word(8)) * 1_000_000_000 + u64::from(word(12).min(999_999_999)), arrival);
        let engine = u32::from(u16::from_be_bytes([header[20], header[21]]));
        let counts = &mut self.counts;
        let exporter = self.exporters.entry((arrival.exporter, engine, Dialect::V5), super::Exporter::new);
        exporter.sequence(word(16), u32::from(count), counts);
        // The upper two bits are the mode; 0 means none, 1 in 1.
        let sampling = u32::from(u16::from_be_bytes([header[22], header[23]]) & 0x3fff);
        let mut rest = Cursor::new(&bytes[24..]);
        for _ in 0..count {
            let Some(record) = rest.take(48) else {
                self.counts.malformed += 1;
                break;
            };
            let word =
                |at: usize| u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
            let short = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
            let half = Half {
                source: Some(Ip::v4(word(0).to_be_bytes())),
                target: Some(Ip::v4(word(4).to_be_bytes())),
                packets: u64::from(word(16)),
                bytes: u64::from(word(20)),
                start_ns: at_uptime(base, uptime, word(24)),
                last_ns: at_uptime(base, uptime, word(28)),
                source_port: short(32),
                target_port: short(34),
                flags: record[37],
                protocol: record[38],
                sampling,
                ..Half::default()
            };
            self.half(arrival, half, take);
        }
        Ok(())
    }
}
