//! NetFlow v9 (RFC 3954) and IPFIX (RFC 7011): sets of templates, and sets of records that they describe.

use super::fields::{Base, Builder, Told};
use super::{Arrival, Collector, Cursor, Dialect, ExportError, MILLI};
use crate::record::FlowRecord;

/// Records looked at in one set: what 64 KiB can hold of the shortest that make sense.
const RECORDS_MAX: usize = 8_192;

impl Collector {
    pub(super) fn v9(
        &mut self,
        arrival: Arrival,
        bytes: &[u8],
        take: &mut impl FnMut(&FlowRecord),
    ) -> Result<(), ExportError> {
        let mut rest = Cursor::new(bytes);
        let header = (|| {
            rest.u32()?;
            Some((rest.u32()?, rest.u32()?, rest.u32()?, rest.u32()?))
        })();
        let (uptime_ms, seconds, sequence, domain) = header.ok_or(ExportError::Malformed)?;
        let ns = self.clock(u64::from(seconds) * 1_000 * MILLI, arrival);
        let counts = &mut self.counts;
        let exporter = self.exporters.entry((arrival.exporter, domain, Dialect::V9), super::Exporter::new);
        // Version 9 counts datagrams.
        exporter.sequence(sequence, 1, counts);
        let base = Base { ns, uptime_ms: Some(uptime_ms) };
        self.sets(arrival, domain, Dialect::V9, base, rest, take);
        Ok(())
    }

    pub(super) fn ipfix(
        &mut self,
        arrival: Arrival,
        bytes: &[u8],
        take: &mut impl FnMut(&FlowRecord),
    ) -> Result<(), ExportError> {
        let mut rest = Cursor::new(bytes);
        let header = (|| {
            rest.u16()?;
            Some((rest.u16()?, rest.u32()?, rest.u32()?, rest.u32()?))
        })();
        let (length, seconds, sequence, domain) = header.ok_or(ExportError::Malformed)?;
        let body = usize::from(length).checked_sub(16).ok_or(ExportError::Malformed)?;
        if body > rest.left() {
            return Err(ExportError::Malformed);
        }
        let rest = Cursor::new(rest.take(body).unwrap_or_default());
        let ns = self.clock(u64::from(seconds) * 1_000 * MILLI, arrival);
        let counts = &mut self.counts;
        let exporter = self.exporters.entry((arrival.exporter, domain, Dialect::Ipfix), super::Exporter::new);
        // IPFIX counts records; how many come with this message is known when it was read.
        exporter.sequence(sequence, 0, counts);
        let base = Base { ns, uptime_ms: None };
        let (records, all_read) = self.sets(arrival, domain, Dialect::Ipfix, base, rest, take);
        let exporter = self.exporter(arrival, domain, Dialect::Ipfix);
        exporter.next = match (all_read, exporter.next) {
            (true, Some(next)) => Some(next.wrapping_add(records)),
            // What could not be read was not counted: the next message says where the sequence stands.
            _ => None,
        };
        Ok(())
    }

    /// Reads all sets. How many records of data there were, and whether all could be read.
    fn sets(
        &mut self,
        arrival: Arrival,
        domain: u32,
        dialect: Dialect,
        base: Base,
        mut rest: Cursor<'_>,
        take: &mut impl FnMut(&FlowRecord),
    ) -> (u32, bool) {
        let (mut records, mut all_read) = (0u32, true);
        while rest.left() >= 4 {
            let (Some(id), Some(length)) = (rest.u16(), rest.u16()) else { break };
            let body = usize::from(length).checked_sub(4).and_then(|length| rest.take(length));
            let Some(body) = body else {
                self.counts.malformed += 1;
                return (records, false);
            };
            let mut set = Cursor::new(body);
            match (dialect, id) {
                (Dialect::V9, 0) | (Dialect::Ipfix, 2) => {
                    self.templates(arrival, domain, dialect, false, &mut set);
                }
                (Dialect::V9, 1) | (Dialect::Ipfix, 3) => {
                    self.templates(arrival, domain, dialect, true, &mut set);
                }
                (_, 256..) => match self.records(arrival, (domain, dialect), id, base, &mut set, take) {
                    Some(count) => records = records.saturating_add(count),
                    None => all_read = false,
                },
                _ => {}
            }
        }
        (records, all_read)
    }

    fn templates(
        &mut self,
        arrival: Arrival,
        domain: u32,
        dialect: Dialect,
        options: bool,
        set: &mut Cursor<'_>,
    ) {
        // What is left of a set after its last template is padding.
        while set.left() >= 4 {
            let built = match (dialect, options) {
                (Dialect::V9, true) => v9_options(set),
                _ => template(set, dialect == Dialect::Ipfix, options),
            };
            let Some((id, builder)) = built else {
                self.counts.malformed += 1;
                return;
            };
            if id < 256 {
                self.counts.templates_refused += 1;
                return;
            }
            if builder.is_empty() {
                // Withdrawn. Until its number is used again nothing comes for it, and it is no hurt.
                continue;
            }
            let Some(template) = builder.build(options) else {
                self.counts.templates_refused += 1;
                continue;
            };
            let exporter =
                self.exporters.entry_again((arrival.exporter, domain, dialect), super::Exporter::new);
            let before = exporter.templates.dropped();
            if let Some(known) = exporter.templates.find(&id) {
                *known = template;
            } else {
                exporter.templates.entry(id, || template);
            }
            self.templates_forgotten += exporter.templates.dropped() - before;
        }
    }

    /// Reads a set of data. How many records it had; `None` where its template is not known or a record does not end.
    fn records(
        &mut self,
        arrival: Arrival,
        (domain, dialect): (u32, Dialect),
        id: u16,
        base: Base,
        set: &mut Cursor<'_>,
        take: &mut impl FnMut(&FlowRecord),
    ) -> Option<u32> {
        let mut count = 0;
        for _ in 0..RECORDS_MAX {
            let exporter =
                self.exporters.entry_again((arrival.exporter, domain, dialect), super::Exporter::new);
            let Some(template) = exporter.templates.find(&id) else {
                self.counts.without_template += 1;
                return None;
            };
            if set.left() < template.record_bytes_min() {
                break;
            }
            let is_options = template.is_options();
            let Some(told) = template.read(set, base) else {
                self.counts.malformed += 1;
                return None;
            };
            match told {
                Told::Flow(mut half, sampler) => {
                    if half.sampling == 0 {
                        half.sampling = exporter.rate(sampler);
                    }
                    self.half(arrival, half, take);
                }
                Told::Sampling(sampler, rate) => exporter.sampler(sampler, rate),
                Told::Nothing => self.counts.foreign += u64::from(!is_options),
            }
            count += 1;
        }
        Some(count)
    }
}

/// A template, or IPFIX's template of options: id, number of fields, of which the first are the scope.
fn template(set: &mut Cursor<'_>, enterprises: bool, options: bool) -> Option<(u16, Builder)> {
    let (id, count) = (set.u16()?, set.u16()?);
    let mut builder = Builder::new();
    // A withdrawal has no fields and says nothing about a scope.
    if options && count > 0 {
        set.u16()?;
    }
    for _ in 0..count {
        let (number, bytes) = (set.u16()?, set.u16()?);
        let enterprise = if enterprises && number & 0x8000 != 0 { set.u32()? } else { 0 };
        let number = if enterprises { number & 0x7fff } else { number };
        builder.push(number, bytes, enterprise, false);
    }
    Some((id, builder))
}

/// Version 9's template of options: id, bytes of the scope's fields, bytes of the others.
fn v9_options(set: &mut Cursor<'_>) -> Option<(u16, Builder)> {
    let (id, scope, options) = (set.u16()?, set.u16()?, set.u16()?);
    let mut builder = Builder::new();
    for (bytes, is_scope) in [(scope, true), (options, false)] {
        for _ in 0..bytes / 4 {
            builder.push(set.u16()?, set.u16()?, 0, is_scope);
        }
    }
    Some((id, builder))
}
