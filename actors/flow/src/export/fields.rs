//! Templates of NetFlow v9 and IPFIX, boiled down to the fields that flows are made of, and records read by them.

use super::{Cursor, FIELDS_MAX, Half, MILLI, at_uptime};
use crate::address::Ip;

/// Length that stands for "the record says how long".
const VARIABLE: u16 = 0xffff;
/// The enterprise whose numbers mean the reverse direction of IANA's (RFC 5103).
const REVERSE: u32 = 29_305;

/// What a field tells. Numbers are those of IANA's registry, which v9 shares below 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Skip,
    Bytes,
    Packets,
    BytesTotal,
    PacketsTotal,
    BytesBack,
    PacketsBack,
    Protocol,
    Flags,
    FlagsBack,
    SourcePort,
    TargetPort,
    Source,
    Target,
    StartUptime,
    EndUptime,
    StartSeconds,
    EndSeconds,
    StartMillis,
    EndMillis,
    StartNtp,
    EndNtp,
    StartDelta,
    EndDelta,
    DurationMillis,
    Icmp,
    IcmpType,
    IcmpCode,
    Vlan,
    SystemStart,
    /// One in so many.
    SamplingInterval,
    SamplerId,
    /// Packets taken, and packets left out, of each period.
    SamplingTaken,
    SamplingSpace,
    SamplingSize,
    SamplingPopulation,
}

impl What {
    fn of(number: u16, enterprise: u32) -> Self {
        match (enterprise, number) {
            (REVERSE, 1 | 85) => Self::BytesBack,
            (REVERSE, 2 | 86) => Self::PacketsBack,
            (REVERSE, 6) => Self::FlagsBack,
            (0, number) => match number {
                1 => Self::Bytes,
                2 => Self::Packets,
                4 => Self::Protocol,
                6 => Self::Flags,
                7 | 180 | 182 => Self::SourcePort,
                8 | 27 => Self::Source,
                11 | 181 | 183 => Self::TargetPort,
                12 | 28 => Self::Target,
                21 => Self::EndUptime,
                22 => Self::StartUptime,
                32 | 139 => Self::Icmp,
                34 | 50 => Self::SamplingInterval,
                48 | 302 => Self::SamplerId,
                58 => Self::Vlan,
                85 => Self::BytesTotal,
                86 => Self::PacketsTotal,
                150 => Self::StartSeconds,
                151 => Self::EndSeconds,
                152 => Self::StartMillis,
                153 => Self::EndMillis,
                154 | 156 => Self::StartNtp,
                155 | 157 => Self::EndNtp,
                158 => Self::StartDelta,
                159 => Self::EndDelta,
                160 => Self::SystemStart,
                161 => Self::DurationMillis,
                176 | 178 => Self::IcmpType,
                177 | 179 => Self::IcmpCode,
                // What firewalls send: initiator and responder in one record.
                231 => Self::BytesTotal,
                232 => Self::BytesBack,
                298 => Self::PacketsTotal,
                299 => Self::PacketsBack,
                305 => Self::SamplingTaken,
                306 => Self::SamplingSpace,
                309 => Self::SamplingSize,
                310 => Self::SamplingPopulation,
                _ => Self::Skip,
            },
            _ => Self::Skip,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    what: What,
    bytes: u16,
}

/// A template: what a record's bytes mean.
#[derive(Debug, Clone)]
pub(super) struct Template {
    fields: Box<[Field]>,
    /// Bytes of the shortest record; at least 1.
    record_bytes_min: usize,
    /// It tells about the exporter, not about flows.
    options: bool,
}

/// A template on the way in.
pub(super) struct Builder {
    fields: Vec<Field>,
    record_bytes_min: usize,
    count: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { fields: Vec::with_capacity(32), record_bytes_min: 0, count: 0 }
    }

    /// A field; `scope` is v9's own numbering, of no interest here.
    pub(super) fn push(&mut self, number: u16, bytes: u16, enterprise: u32, scope: bool) {
        self.count += 1;
        let fixed = if bytes == VARIABLE { 1 } else { usize::from(bytes) };
        self.record_bytes_min += fixed;
        let what = if scope { What::Skip } else { What::of(number, enterprise) };
        // What is not read need not be told apart.
        if let (What::Skip, Some(last)) = (what, self.fields.last_mut())
            && last.what == What::Skip
            && bytes != VARIABLE
            && last.bytes != VARIABLE
            && let Some(sum) = last.bytes.checked_add(bytes)
            && sum != VARIABLE
        {
            last.bytes = sum;
            return;
        }
        if self.fields.len() <= FIELDS_MAX {
            self.fields.push(Field { what, bytes });
        }
    }

    /// Whether it has no fields: how IPFIX withdraws a template.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The template; `None` where it has no fields, too many, or none with bytes.
    pub(super) fn build(self, options: bool) -> Option<Template> {
        let sound = self.count <= FIELDS_MAX && (1..=65_535).contains(&self.record_bytes_min);
        sound.then(|| Template {
            fields: self.fields.into(),
            record_bytes_min: self.record_bytes_min,
            options,
        })
    }
}

/// The exporter's time and uptime when it wrote a datagram. IPFIX has no uptime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    pub(super) ns: u64,
    pub(super) uptime_ms: Option<u32>,
}

/// What a record says.
pub(super) enum Told {
    /// A direction of a flow, and the sampler it names.
    Flow(Half, Option<u64>),
    /// A sampler and its rate.
    Sampling(u64, u32),
    /// Something else.
    Nothing,
}

fn number(bytes: &[u8]) -> u64 {
    // Reduced-size encoding: as many bytes as are sent, at most eight count.
    bytes.iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// NTP's 64 bits since 1900 as ns since 1970.
fn ntp(bits: u64) -> u64 {
    let seconds = (bits >> 32).saturating_sub(2_208_988_800);
    seconds * 1_000_000_000 + (((bits & 0xffff_ffff) * 1_000_000_000) >> 32)
}

fn address(bytes: &[u8]) -> Option<Ip> {
    match bytes.len() {
        4 => Some(Ip::v4(bytes.try_into().ok()?)),
        16 => Some(Ip::v6(bytes.try_into().ok()?)),
        _ => None,
    }
}

impl Template {
    pub(super) fn record_bytes_min(&self) -> usize {
        self.record_bytes_min
    }

    /// Reads one record off the front. `None` where the bytes end inside it.
    pub(super) fn read(&self, rest: &mut Cursor<'_>, base: Base) -> Option<Told> {
        let mut half = Half::default();
        let (mut back_flags, mut back_bytes, mut back_packets) = (0, None, None);
        let (mut bytes_total, mut packets_total) = (None, None);
        let (mut start_up, mut end_up) = (None, None);
        let (mut start, mut end, mut duration, mut system) = (None, None, None, None);
        let (mut interval, mut sampler) = (None, None);
        let (mut taken, mut space, mut size, mut population) = (None, None, None, None);
        for field in &self.fields {
            let length = match field.bytes {
                VARIABLE => match rest.u8()? {
                    255 => usize::from(rest.u16()?),
                    short => usize::from(short),
                },
                fixed => usize::from(fixed),
            };
            let bytes = rest.take(length)?;
            match field.what {
                What::Skip => {}
                What::Bytes => half.bytes = number(bytes),
                What::Packets => half.packets = number(bytes),
                What::BytesTotal => bytes_total = Some(number(bytes)),
                What::PacketsTotal => packets_total = Some(number(bytes)),
                What::BytesBack => back_bytes = Some(number(bytes)),
                What::PacketsBack => back_packets = Some(number(bytes)),
                What::Protocol => half.protocol = number(bytes) as u8,
                // IPFIX may send two bytes; the lower one has the flags that matter.
                What::Flags => half.flags = number(bytes) as u8,
                What::FlagsBack => back_flags = number(bytes) as u8,
                What::SourcePort => half.source_port = number(bytes) as u16,
                What::TargetPort => half.target_port = number(bytes) as u16,
                // Both families may stand in one template, the unused one as zeros.
                What::Source => half.source = address(bytes).filter(|ip| !is_unset(*ip)).or(half.source),
                What::Target => half.target = address(bytes).filter(|ip| !is_unset(*ip)).or(half.target),
                What::StartUptime => start_up = Some(number(bytes) as u32),
                What::EndUptime => end_up = Some(number(bytes) as u32),
                What::StartSeconds => start = Some(number(bytes).saturating_mul(1_000 * MILLI)),
                What::EndSeconds => end = Some(number(bytes).saturating_mul(1_000 * MILLI)),
                What::StartMillis => start = Some(number(bytes).saturating_mul(MILLI)),
                What::EndMillis => end = Some(number(bytes).saturating_mul(MILLI)),
                What::StartNtp => start = Some(ntp(number(bytes))),
                What::EndNtp => end = Some(ntp(number(bytes))),
                What::StartDelta => start = Some(base.ns.saturating_sub(number(bytes).saturating_mul(1_000))),
                What::EndDelta => end = Some(base.ns.saturating_sub(number(bytes).saturating_mul(1_000))),
                What::DurationMillis => duration = Some(number(bytes).saturating_mul(MILLI)),
                What::Icmp => {
                    let both = number(bytes) as u16;
                    (half.source_port, half.target_port) = (0, both);
                }
                What::IcmpType => {
                    half.target_port = (half.target_port & 0xff) | ((number(bytes) as u16 & 0xff) << 8);
                }
                What::IcmpCode => {
                    half.target_port = (half.target_port & 0xff00) | (number(bytes) as u16 & 0xff);
                }
                What::Vlan => half.vlan = number(bytes) as u16 & 0x0fff,
                What::SystemStart => system = Some(number(bytes).saturating_mul(MILLI)),
                What::SamplingInterval => interval = Some(number(bytes)),
                What::SamplerId => sampler = Some(number(bytes)),
                What::SamplingTaken => taken = Some(number(bytes)),
                What::SamplingSpace => space = Some(number(bytes)),
                What::SamplingSize => size = Some(number(bytes)),
                What::SamplingPopulation => population = Some(number(bytes)),
            }
        }
        let rate = interval
            .or(match (taken, space) {
                (Some(taken @ 1..), Some(space)) => Some(taken.saturating_add(space) / taken),
                _ => None,
            })
            .or(match (size, population) {
                (Some(size @ 1..), Some(population)) => Some(population / size),
                _ => None,
            })
            .map(|rate| rate.clamp(1, u64::from(u32::MAX)) as u32);
        if self.options {
            return Some(match rate {
                Some(rate) => Told::Sampling(sampler.unwrap_or(0), rate),
                None => Told::Nothing,
            });
        }
        // Deltas count where both are told.
        if half.bytes == 0 {
            half.bytes = bytes_total.unwrap_or(0);
        }
        if half.packets == 0 {
            half.packets = packets_total.unwrap_or(0);
        }
        half.back = match (back_bytes, back_packets) {
            (None, None) => None,
            (bytes, packets) => {
                let bytes = bytes.unwrap_or(0);
                Some((back_flags, bytes, packets.unwrap_or(u64::from(bytes > 0))))
            }
        };
        if half.packets == 0 && half.bytes > 0 {
            half.packets = 1;
        }
        let uptime = |then: u32| match (base.uptime_ms, system) {
            (Some(now), _) => Some(at_uptime(base.ns, now, then)),
            (None, Some(system)) => Some(system.saturating_add(u64::from(then) * MILLI)),
            (None, None) => None,
        };
        half.last_ns = end
            .or(end_up.and_then(uptime))
            .or(start.zip(duration).map(|(start, duration)| start.saturating_add(duration)))
            .unwrap_or(base.ns);
        half.start_ns = start
            .or(start_up.and_then(uptime))
            .or(duration.map(|duration| half.last_ns.saturating_sub(duration)))
            .unwrap_or(half.last_ns);
        half.sampling = rate.unwrap_or(0);
        Some(Told::Flow(half, sampler))
    }

    pub(super) fn is_options(&self) -> bool {
        self.options
    }
}

fn is_unset(ip: Ip) -> bool {
    ip.0 == 0 || ip.as_v4() == Some(0)
}
