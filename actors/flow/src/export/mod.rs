//! Flow exports: datagrams of NetFlow v5 and v9, IPFIX and sFlow v5 in, flow records out.
//!
//! Exporters tell one direction of a flow at a time; `pair` puts the two together. All that a datagram can make us keep is bounded:
//! exporters, templates of each, fields of a template, halves that wait. What is lost on the way is told by gaps in sequence numbers
//! and counted, and an exporter whose clock is off is moved to the time its datagrams came in.
//!
//! Decoders read in place and allocate for new templates only. The wire formats are those of Cisco's NetFlow v5 and of RFC 3954, RFC
//! 7011 with RFC 5103 (both directions in one record), and sFlow version 5 of sflow.org.

mod fields;
mod pair;
mod sflow;
mod v5;
mod v9;

pub use pair::{HOLD_NS, PAIRS_MAX, judge_flags};

use self::fields::Template;
use self::pair::Pairs;
use crate::address::Ip;
use crate::hash::Recent;
use crate::record::FlowRecord;

/// Exporters remembered, by address and domain (source id, sub-agent). One made up by each datagram of a spoofed flood pushes out its own
/// kind; those that come back stay.
pub const EXPORTERS_MAX: usize = 1_024;
/// Templates remembered of an exporter's domain.
pub const TEMPLATES_MAX: usize = 128;
/// Fields of a template; routers send up to 50.
pub const FIELDS_MAX: usize = 128;
/// Samplers remembered of an exporter's domain.
pub const SAMPLERS_MAX: usize = 16;
/// A clock further off than this is replaced by the time of arrival.
pub const SKEW_MAX_NS: u64 = 3_600 * 1_000_000_000;
/// A gap longer than this is a restart of the exporter rather than loss.
pub const GAP_MAX: u32 = 1_000_000;

/// How to read exports.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectorOptions {
    /// One in so many packets was looked at, for exporters that do not say so themselves.
    pub sampling: Option<u32>,
}

/// What was read and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectorCounts {
    /// Datagrams that came in.
    pub datagrams: u64,
    /// Records of one direction (or both, where one record tells both).
    pub records: u64,
    /// Flows given out.
    pub flows: u64,
    /// Datagrams, sets or records that cannot be read.
    pub malformed: u64,
    /// Sets of data whose template has not come, or was forgotten.
    pub without_template: u64,
    /// Records without addresses: of other things than flows.
    pub foreign: u64,
    /// Units that sequence numbers say were lost: records for v5 and IPFIX, datagrams for v9 and sFlow, and packets that sFlow agents dropped.
    pub lost: u64,
    /// Datagrams behind their turn.
    pub late: u64,
    /// Exporters that began anew, by their sequence.
    pub restarts: u64,
    /// Datagrams of exporters whose clock was off by more than [`SKEW_MAX_NS`].
    pub skewed: u64,
    /// Templates refused for their size.
    pub templates_refused: u64,
    /// Exporters and templates forgotten for lack of room.
    pub forgotten: u64,
    /// Halves given out alone because too many waited.
    pub hurried: u64,
    /// Records whose exporter says nothing about sampling.
    pub sampling_unknown: u64,
}

/// Why a datagram was refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportError {
    /// It ends inside a header, or contradicts itself.
    Malformed,
    /// Neither NetFlow v5, v9, IPFIX nor sFlow v5; the number is what stands where the version is.
    Version(u16),
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed => f.write_str("an export that ends inside a header or contradicts itself"),
            Self::Version(version) => {
                write!(f, "no export: version {version}, where 5, 9, 10 (IPFIX) and sFlow's 5 are read")
            }
        }
    }
}

impl std::error::Error for ExportError {}

/// One direction of a flow, as an exporter tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) source: Option<Ip>,
    pub(crate) target: Option<Ip>,
    pub(crate) source_port: u16,
    pub(crate) target_port: u16,
    pub(crate) protocol: u8,
    pub(crate) flags: u8,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    /// The other direction, where the record tells it: flags, bytes, packets.
    pub(crate) back: Option<(u8, u64, u64)>,
    pub(crate) start_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) vlan: u16,
    /// One in so many packets was looked at; 0 where unknown.
    pub(crate) sampling: u32,
    /// A sample of a packet rather than a flow.
    pub(crate) sample: bool,
}

/// What is remembered of an exporter's domain.
#[derive(Debug, Clone)]
pub(crate) struct Exporter {
    next: Option<u32>,
    templates: Recent<u16, Template>,
    /// Sampler and its rate; the first one stands for records that name none.
    samplers: [(u64, u32); SAMPLERS_MAX],
    samplers_count: usize,
}

impl Exporter {
    fn new() -> Self {
        Self {
            next: None,
            templates: Recent::new(TEMPLATES_MAX),
            samplers: [(0, 0); SAMPLERS_MAX],
            samplers_count: 0,
        }
    }

    /// Checks a sequence number and notes that `units` come with it.
    fn sequence(&mut self, sequence: u32, units: u32, counts: &mut CollectorCounts) {
        if let Some(next) = self.next {
            let ahead = sequence.wrapping_sub(next);
            if ahead == 0 {
            } else if ahead <= GAP_MAX {
                counts.lost += u64::from(ahead);
            } else if next.wrapping_sub(sequence) <= GAP_MAX && sequence != 0 {
                // Behind its turn: counted as lost before.
                counts.late += 1;
                counts.lost = counts.lost.saturating_sub(u64::from(units));
                return;
            } else {
                counts.restarts += 1;
            }
        }
        self.next = Some(sequence.wrapping_add(units));
    }

    fn sampler(&mut self, id: u64, rate: u32) {
        let known = &mut self.samplers[..self.samplers_count];
        if let Some(place) = known.iter_mut().find(|place| place.0 == id) {
            place.1 = rate;
        } else if self.samplers_count < SAMPLERS_MAX {
            self.samplers[self.samplers_count] = (id, rate);
            self.samplers_count += 1;
        }
    }

    /// The rate of a sampler, or of the only one where the record names none; 0 where unknown.
    fn rate(&self, id: Option<u64>) -> u32 {
        let known = &self.samplers[..self.samplers_count];
        let found = match id {
            Some(id) => known.iter().find(|place| place.0 == id).or(known.first()),
            None => known.first(),
        };
        found.map_or(0, |place| place.1)
    }
}

/// Which wire format a domain speaks: one address may speak several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    V5,
    V9,
    Ipfix,
    Sflow,
}

/// What a datagram is about, for those who read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    exporter: Ip,
    /// Its number in the input, from 1.
    number: u64,
    /// When it came in, ns since 1970.
    received_ns: u64,
}

/// Takes datagrams of exporters and gives flows.
#[derive(Debug, Clone)]
pub struct Collector {
    options: CollectorOptions,
    exporters: Recent<(Ip, u32, Dialect), Exporter>,
    /// Templates forgotten by exporters that are themselves forgotten are not in this.
    templates_forgotten: u64,
    pairs: Pairs,
    counts: CollectorCounts,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new(CollectorOptions::default())
    }
}

impl Collector {
    /// A collector that has heard nothing yet.
    #[must_use]
    pub fn new(options: CollectorOptions) -> Self {
        Self {
            options,
            exporters: Recent::new(EXPORTERS_MAX),
            templates_forgotten: 0,
            pairs: Pairs::default(),
            counts: CollectorCounts::default(),
        }
    }

    /// What was read and what was not.
    #[must_use]
    pub fn counts(&self) -> CollectorCounts {
        let (flows, hurried) = self.pairs.counts();
        let forgotten = self.exporters.dropped() + self.templates_forgotten;
        CollectorCounts { flows, hurried, forgotten, ..self.counts }
    }

    /// Takes the payload of a datagram that came from `exporter` at `received_ns` (ns since 1970) as number `number` of the input. Flows that
    /// are complete, or waited long enough for their other half, go to `take`.
    ///
    /// # Errors
    /// [`ExportError`] where the datagram as a whole is none that is read here; it is counted, and nothing else happens.
    pub fn datagram(
        &mut self,
        exporter: Ip,
        number: u64,
        received_ns: u64,
        bytes: &[u8],
        mut take: impl FnMut(&FlowRecord),
    ) -> Result<(), ExportError> {
        self.counts.datagrams += 1;
        let arrival = Arrival { exporter, number, received_ns };
        self.pairs.advance(received_ns, &mut take);
        let head = bytes.first_chunk::<4>().ok_or(ExportError::Malformed);
        let done = head.and_then(|head| match head {
            [0, 5, ..] => self.v5(arrival, bytes, &mut take),
            [0, 9, ..] => self.v9(arrival, bytes, &mut take),
            [0, 10, ..] => self.ipfix(arrival, bytes, &mut take),
            [0, 0, 0, 5] => self.sflow(arrival, bytes, &mut take),
            &[high, low, ..] => Err(ExportError::Version(u16::from_be_bytes([high, low]))),
        });
        if done.is_err() {
            self.counts.malformed += 1;
        }
        done
    }

    /// Lets time pass without a datagram: what waited long enough by `now_ns` (ns since 1970) for its other half is given out.
    pub fn advance(&mut self, now_ns: u64, mut take: impl FnMut(&FlowRecord)) {
        self.pairs.advance(now_ns, &mut take);
    }

    /// Gives out what still waits for its other half.
    pub fn finish(&mut self, mut take: impl FnMut(&FlowRecord)) {
        self.pairs.advance(u64::MAX, &mut take);
    }

    /// Who sent this, again: a newcomer that is looked up twice for one datagram has not come back.
    fn exporter(&mut self, arrival: Arrival, domain: u32, dialect: Dialect) -> &mut Exporter {
        self.exporters.entry_again((arrival.exporter, domain, dialect), Exporter::new)
    }

    /// The exporter's time, or that of arrival where it is far off.
    fn clock(&mut self, stated_ns: u64, arrival: Arrival) -> u64 {
        if stated_ns.abs_diff(arrival.received_ns) > SKEW_MAX_NS {
            self.counts.skewed += 1;
            return arrival.received_ns;
        }
        stated_ns
    }

    /// Takes a half whose times are set.
    fn half(&mut self, arrival: Arrival, mut half: Half, take: &mut impl FnMut(&FlowRecord)) {
        let (Some(_), Some(_)) = (half.source, half.target) else {
            self.counts.foreign += 1;
            return;
        };
        if half.packets == 0 && half.bytes == 0 && half.back.is_none() {
            self.counts.foreign += 1;
            return;
        }
        self.counts.records += 1;
        if half.sampling == 0 {
            half.sampling = self.options.sampling.unwrap_or(0);
            self.counts.sampling_unknown += u64::from(half.sampling == 0);
        }
        // Exporters tell what they counted of the packets they looked at; samples of single packets were multiplied when they were read.
        if !half.sample && half.sampling > 1 {
            let times = u64::from(half.sampling);
            let scale = |count: &mut u64| *count = count.saturating_mul(times);
            [&mut half.bytes, &mut half.packets].into_iter().for_each(scale);
            if let Some((_, bytes, packets)) = &mut half.back {
                [bytes, packets].into_iter().for_each(scale);
            }
        }
        // Nothing happens after it was told, or more than a day before: a flow's times cannot be trusted further than its exporter's.
        half.last_ns = half.last_ns.min(arrival.received_ns.saturating_add(SKEW_MAX_NS));
        half.start_ns = half.start_ns.min(half.last_ns).max(half.last_ns.saturating_sub(24 * SKEW_MAX_NS));
        self.pairs.take(arrival, half, take);
    }
}

/// Reads big-endian numbers off the front; `None` where the bytes end.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(front)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }
}

const MILLI: u64 = 1_000_000;

/// The time of an uptime in ms, where at `base_ns` the uptime was `uptime_ms`. Uptimes wrap after 49 days.
fn at_uptime(base_ns: u64, uptime_ms: u32, then_ms: u32) -> u64 {
    let behind = uptime_ms.wrapping_sub(then_ms) as i32;
    base_ns.saturating_add_signed(-(i64::from(behind) * MILLI as i64))
}
