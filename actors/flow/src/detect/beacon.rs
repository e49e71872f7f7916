//! Calls home: one host begins connections of the same size to one service at regular times, with jitter.
//!
//! Two tests over the last connections, either suffices. *Intervals*: their median absolute deviation is small against their median,
//! which holds for sleep-and-jitter implants. *Spectrum*: the starts line up at some period (Rayleigh's statistic), which holds for
//! schedules, also where other connections come between.

use super::alert::{Alert, Alerts, Kind, Range, Severity, probability};
use crate::address::Ip;
use crate::hash::{Place, Recent};
use crate::record::FlowRecord;
use crate::table::SECOND;

/// Connections before anything is said: below that, chance lines up too often. With fewer than [`STARTS_SURE`] only intervals count.
pub const STARTS_MIN: usize = 12;
/// Connections from which on the wider bound and the spectrum count.
pub const STARTS_SURE: usize = 16;
/// Connections remembered.
pub const STARTS_MAX: usize = 32;
/// Median of intervals that counts as waiting: people and pages are faster, keep-alives are not new connections.
pub const PERIOD_MIN_NS: u64 = SECOND;
/// Scaled median absolute deviation over median: 0.35 lets a jitter of half the period either way pass. Intervals of a Poisson
/// process have 0.7 and more, of people far more.
pub const SPREAD_MAX: f64 = 0.35;
/// The same for few connections: a jitter of a third either way passes.
pub const SPREAD_FEW_MAX: f64 = 0.28;
/// Length of the mean phase vector over the starts; of 16 random starts it is over 0.8 once in 30,000.
pub const ALIGNED_MIN: f64 = 0.8;
/// Relative spread of the requests' sizes: implants say the same, browsers do not.
pub const SIZES_MAX: f64 = 0.05;
/// Past [`STARTS_MAX`] every eighth call is judged: what calls so often will call eight times more.
const JUDGED_EVERY: usize = 8;
/// Services of a host called twice or more.
const TRACKED_MAX: usize = 1 << 14;

/// Services that are asked at regular times on purpose, by every host: name, time, address and management.
const REGULAR: [u16; 14] = [53, 67, 68, 123, 137, 138, 161, 162, 514, 546, 547, 1900, 5353, 5355];

/// When a flow began, and how much it said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    start_ns: u64,
    sent: u32,
    number: u64,
}

impl Call {
    pub(super) fn of(record: &FlowRecord) -> Self {
        Self {
            start_ns: record.start_ns,
            sent: record.sent.bytes.min(u64::from(u32::MAX)) as u32,
            number: record.packets.0,
        }
    }
}

#[derive(Debug, Clone)]
struct Calls {
    ring: [Call; STARTS_MAX],
    count: usize,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Beacons {
    calls: Recent<Edge, Calls>,
}

/// Caller, called, port, protocol.
type Edge = (Ip, Ip, u16, u8);

impl Default for Beacons {
    fn default() -> Self {
        Self { calls: Recent::new(TRACKED_MAX) }
    }
}

impl Beacons {
    /// Takes a flow that ended and is not the `first` of its edge.
    pub fn ended(&mut self, record: &FlowRecord, first: Call, edge: u64, now: u64, alerts: &mut Alerts) {
        let FlowRecord { originator, responder, responder_port, protocol, .. } = *record;
        // Inside a site regular connections are monitoring, far more often than not; calls home go out.
        if responder.is_private() || REGULAR.contains(&responder_port) {
            return;
        }
        let key = (originator, responder, responder_port, protocol);
        let calls = self.calls.entry_at(Place::of(edge), key, || {
            let mut ring = [Call::default(); STARTS_MAX];
            ring[0] = first;
            Calls { ring, count: 1 }
        });
        calls.ring[calls.count % STARTS_MAX] = Call::of(record);
        calls.count += 1;
        if calls.count < STARTS_MIN || (calls.count > STARTS_MAX && !calls.count.is_multiple_of(JUDGED_EVERY))
        {
            return;
        }
        let mut last = calls.ring;
        let last = &mut last[..calls.count.min(STARTS_MAX)];
        last.sort_unstable_by_key(|call| (call.start_ns, call.number));
        let Some(found) = judge(last) else { return };
        // Guessing passwords and scanning are regular too, and said already.
        let said = [Kind::BruteForce, Kind::VerticalScan, Kind::HorizontalScan, Kind::FailureBurst];
        if said.iter().any(|&kind| alerts.is_on(kind, originator, now)) {
            return;
        }
        let mut range = Range::at(last[0].number, last[0].start_ns);
        range.cover(record.packets.1, record.last_ns);
        let regular =
            (SPREAD_MAX / found.spread.max(0.01)).max((1.0 - ALIGNED_MIN) / (1.0 - found.aligned).max(0.01));
        alerts.raise(
            Alert::new(Kind::Beacon, originator, range, now)
                .against(responder, Some(responder_port))
                .rated(
                    Severity::Medium,
                    probability(regular, 1.0),
                    if found.spread <= SPREAD_MAX { "intervals" } else { "spectrum" },
                )
                .because("connections", last.len() as f64, STARTS_MIN as f64)
                .because("period in seconds", found.period_ns / SECOND as f64, 0.0)
                .because("spread of intervals over their median", found.spread, SPREAD_MAX)
                .because("alignment of starts", found.aligned, ALIGNED_MIN)
                .because("spread of request sizes", found.sizes, SIZES_MAX),
        );
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.calls.bytes(|_| 0)
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.calls.dropped()
    }
}

struct Found {
    period_ns: f64,
    spread: f64,
    aligned: f64,
    sizes: f64,
}

/// Median and scaled median absolute deviation; sorts its argument.
fn median_and_spread(values: &mut [f64]) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let median = values[values.len() / 2];
    for value in values.iter_mut() {
        *value = (*value - median).abs();
    }
    values.sort_unstable_by(f64::total_cmp);
    (median, 1.4826 * values[values.len() / 2])
}

/// `calls` in order of their starts.
fn judge(calls: &[Call]) -> Option<Found> {
    let mut sizes = [0.0; STARTS_MAX];
    for (size, call) in sizes.iter_mut().zip(calls) {
        *size = f64::from(call.sent);
    }
    let (size, spread) = median_and_spread(&mut sizes[..calls.len()]);
    let sizes = spread / size.max(1.0);
    let mut intervals = [0.0; STARTS_MAX];
    let count = calls.len() - 1;
    for (interval, pair) in intervals.iter_mut().zip(calls.windows(2)) {
        *interval = (pair[1].start_ns - pair[0].start_ns) as f64;
    }
    // Several at once are one visit: pages open many connections.
    let bursts = intervals[..count].iter().filter(|&&ns| ns < PERIOD_MIN_NS as f64 / 4.0).count();
    let mut sorted = intervals;
    let (median, spread) = median_and_spread(&mut sorted[..count]);
    if median < PERIOD_MIN_NS as f64 || sizes > SIZES_MAX || bursts * 10 > count {
        return None;
    }
    let spread = spread / median;
    // Candidates of the period: the intervals themselves, of which some are free of what came between.
    let origin = calls[0].start_ns;
    let mut best = (0.0, median);
    for &period in &intervals[..count] {
        if period < PERIOD_MIN_NS as f64 {
            continue;
        }
        let (mut re, mut im) = (0.0, 0.0);
        for call in calls {
            let angle = std::f64::consts::TAU * ((call.start_ns - origin) as f64 / period).fract();
            re += angle.cos();
            im += angle.sin();
        }
        let length = (re * re + im * im).sqrt() / calls.len() as f64;
        if length > best.0 {
            best = (length, period);
        }
    }
    // A period far below the usual interval fits anything.
    let aligned = if best.1 >= median / 4.0 { best.0 } else { 0.0 };
    let few = calls.len() < STARTS_SURE;
    let regular = spread <= if few { SPREAD_FEW_MAX } else { SPREAD_MAX };
    (regular || (aligned >= ALIGNED_MIN && !few)).then_some(Found {
        period_ns: if regular { median } else { best.1 },
        spread,
        aligned,
        sizes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn calls(starts: impl Iterator<Item = f64>, sent: impl Fn(usize) -> u32) -> Vec<Call> {
        let mut calls: Vec<Call> = starts
            .enumerate()
            .map(|(at, s)| Call {
                start_ns: (s * 1e9) as u64 + 1_000 * SECOND,
                sent: sent(at),
                number: at as u64,
            })
            .collect();
        calls.sort_by_key(|call| call.start_ns);
        calls
    }

    /// A generator for tests: xorshift in [0, 1).
    fn random(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    #[test]
    fn jitter_and_gaps_are_borne() {
        let mut next = random(3);
        let mut at = 0.0;
        let jittered = calls(
            (0..24).map(|_| {
                at += 40.0 + 40.0 * next();
                at
            }),
            |_| 300,
        );
        assert!(judge(&jittered).is_some_and(|found| found.spread <= SPREAD_MAX));
        // A schedule of a minute, every third call left out, and others between.
        let schedule = (0..24).filter(|n| n % 3 != 1).map(|n| f64::from(n) * 60.0);
        let found = judge(&calls(schedule, |_| 300)).unwrap();
        assert!(found.aligned > 0.99, "{}", found.aligned);
    }

    #[test]
    fn sizes_must_agree() {
        assert!(judge(&calls((0..20).map(|n| f64::from(n) * 60.0), |at| 300 + 40 * at as u32)).is_none());
    }

    proptest! {
        /// People: exponential waits. False alarms are rarer than one in a hundred.
        #[test]
        fn poisson_arrivals_are_not_regular(seed in 1u64..1_000) {
            let mut alarms = 0;
            for round in 0..100 {
                let mut next = random(seed * 1_000 + round);
                let mut at = 0.0;
                let arrivals = calls((0..STARTS_MAX).map(|_| { at += -30.0 * (1.0 - next()).ln(); at }), |_| 300);
                alarms += u32::from(judge(&arrivals).is_some());
            }
            prop_assert!(alarms <= 2, "{alarms} of 100");
        }
    }
}
