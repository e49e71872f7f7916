//! Calls home: one host begins connections of the same size to one service at regular times, with jitter.
//!
//! Two tests over the last connections, either suffices. *Intervals*: their median absolute deviation is small against their median,
//! which holds for sleep-and-jitter implants. *Spectrum*: the starts line up at some period (Rayleigh's statistic), which holds for
//! schedules, also where calls are left out or others come between. One call of each period counts, so that calls in a few bunches, which line
//! up at any period as long as the pauses between them, show no more than bunches.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::Measure;
use super::host::{Hosts, furthest};
use super::login::Logins;
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
/// Periods in which a call came, times the square of that length: random starts reach it once in three million for one period, and up to 31
/// are tried each time (the tail of Rayleigh's statistic is exp(-z)). With [`ALIGNED_MIN`] alone 16 random starts pass once in a thousand.
pub const RAYLEIGH_MIN: f64 = 15.0;
/// Relative spread of the requests' sizes: implants say the same, browsers do not.
pub const SIZES_MAX: f64 = 0.05;
/// Past [`STARTS_MAX`] every eighth call is judged: what calls so often will call eight times more.
const JUDGED_EVERY: usize = 8;
/// Of a beacon that is told already each call is judged that waited so long, so that its alert says when it called last.
const SELDOM_NS: u64 = 60 * SECOND;
/// Periods without a call that looks like it after which a beacon is over. Half of the calls that are judged together: what comes back
/// by then is judged with those before.
pub const SILENT_PERIODS: f64 = 16.0;
/// Services that are asked at regular times on purpose, by every host: name, time, address and management.
#[inline]
pub(super) fn is_regular(port: u16) -> bool {
    matches!(port, 53 | 67 | 68 | 123 | 137 | 138 | 161 | 162 | 514 | 546 | 547 | 1900 | 5353 | 5355)
}

/// When a flow began, and how much it said. Packed, so that five share two cache lines with what else is known of their edge.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, packed(4))]
pub struct Call {
    start_ns: u64,
    number: u64,
    sent: u32,
}

impl Call {
    #[inline]
    pub(super) fn of(record: &FlowRecord) -> Self {
        Self {
            start_ns: record.start_ns,
            sent: record.sent.bytes.min(u64::from(u32::MAX)) as u32,
            number: record.packets.0,
        }
    }
}

/// The calls of an edge: the first of them, and where there are more than five the last. Most edges have two or three.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Calls {
    count: u64,
    ring: Option<Box<Ring>>,
    /// Calls to come that need not be judged: the sizes cannot agree until then.
    unjudged: u32,
    few: [Call; FEW],
}

/// Calls kept in place.
const FEW: usize = 5;

/// The last calls of an edge that has more than [`FEW`].
#[derive(Debug, Clone)]
struct Ring {
    calls: [Call; STARTS_MAX],
}

impl Calls {
    /// An edge called for the first time.
    #[inline]
    pub(super) fn new(first: Call) -> Self {
        let mut few = [Call::default(); FEW];
        few[0] = first;
        Self { count: 1, ring: None, unjudged: 0, few }
    }

    /// Takes a flow that ended and is not the first of its edge: one to outside, since inside a site regular connections are
    /// monitoring, far more often than not, and calls home go out.
    #[inline]
    pub(super) fn again(
        &mut self,
        record: &FlowRecord,
        now: u64,
        logins: &Logins,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let call = Call::of(record);
        let at = self.count as usize;
        self.count += 1;
        let Some(ring) = &mut self.ring else {
            match self.few.get_mut(at) {
                Some(place) => *place = call,
                None => self.outgrow(call),
            }
            return;
        };
        let before = ring.calls[(at - 1) % STARTS_MAX].start_ns;
        ring.calls[at % STARTS_MAX] = call;
        let count = at + 1;
        let is_due = count >= STARTS_MIN
            && (count <= STARTS_MAX
                || count.is_multiple_of(JUDGED_EVERY)
                || call.start_ns.saturating_sub(before) >= SELDOM_NS
                    && alerts.goes_on(Kind::Beacon, record.originator, now));
        self.unjudged = self.unjudged.saturating_sub(1);
        if is_due && self.unjudged == 0 {
            self.unjudged = ring.judge(self.count, record, now, logins, hosts, alerts);
        }
    }

    #[inline(never)]
    fn outgrow(&mut self, call: Call) {
        let mut calls = [Call::default(); STARTS_MAX];
        calls[..FEW].copy_from_slice(&self.few);
        calls[FEW] = call;
        self.ring = Some(Box::new(Ring { calls }));
    }

    /// Reads its first fields; changes nothing, and what comes back means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.count
    }

    /// Reads where its next call goes.
    #[inline]
    pub(super) fn touch_next(&self) -> u64 {
        let at = self.count as usize;
        match &self.ring {
            Some(ring) => ring.calls[at % STARTS_MAX].start_ns,
            None => self.few[at % FEW].start_ns,
        }
    }

    /// Bytes it owns beside itself.
    pub(super) fn owned_bytes(&self) -> usize {
        self.ring.as_ref().map_or(0, |_| size_of::<Ring>())
    }
}

impl Ring {
    /// Judges the last of `count` calls, of which `record` is the last. How many have to come before it makes sense to judge again.
    #[inline(never)]
    fn judge(
        &self,
        count: u64,
        record: &FlowRecord,
        now: u64,
        logins: &Logins,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) -> u32 {
        let FlowRecord { originator, responder, responder_port, .. } = *record;
        let held = &self.calls[..STARTS_MAX.min(count as usize)];
        let missing = missing_to_agree(held);
        if missing > 0 {
            return missing as u32;
        }
        let mut last = self.calls;
        let last = &mut last[..held.len()];
        last.sort_unstable_by_key(|call| (call.start_ns, call.number));
        let Some(found) = judge(last) else { return 0 };
        // What is tried at regular times is a login where nearly every call was one: then that is what it is.
        let calls = last.len() as u32;
        let guesses =
            (found.times >= 1.0).then(|| logins.guesses(record, calls, found.period_ns, now)).flatten();
        // Guessing passwords and scanning are regular too, and said already.
        let said = [Kind::BruteForce, Kind::VerticalScan, Kind::HorizontalScan, Kind::FailureBurst];
        if guesses.is_none() && said.iter().any(|&kind| alerts.is_on(kind, originator, now)) {
            return 0;
        }
        if found.times < 1.0 {
            alerts.note(Measure::Regular, furthest(hosts, originator), found.times);
            return 0;
        }
        let probability = alerts.weigh(Measure::Regular, furthest(hosts, originator), found.times);
        let mut range = Range::at(last[0].number, last[0].start_ns);
        range.cover(record.packets.1, record.last_ns);
        // Whole seconds, as desks keep it.
        let silence_ns = (SILENT_PERIODS * found.period_ns / SECOND as f64).ceil() as u64 * SECOND;
        if let Some(guesses) = guesses {
            alerts.raise(
                Alert::new(Kind::BruteForce, originator, range, now)
                    .ending_after(silence_ns)
                    .against(responder, Some(responder_port))
                    .rated(Severity::Low, probability, guesses.method)
                    .because("calls at regular times", calls, STARTS_MIN as f64)
                    .because("logins that failed, or look like it", guesses.count, 0.0)
                    .because("period in seconds", found.period_ns / SECOND as f64, 0.0)
                    .because("spread of intervals over their median", found.spread, SPREAD_MAX)
                    .because("alignment of starts", found.aligned, ALIGNED_MIN),
            );
            return 0;
        }
        alerts.raise(
            Alert::new(Kind::Beacon, originator, range, now)
                .ending_after(silence_ns)
                .against(responder, Some(responder_port))
                .rated(
                    Severity::Medium,
                    probability,
                    if found.by_intervals { "intervals" } else { "spectrum" },
                )
                .because("connections", last.len() as f64, STARTS_MIN as f64)
                .because("period in seconds", found.period_ns / SECOND as f64, 0.0)
                .because("spread of intervals over their median", found.spread, SPREAD_MAX)
                .because("alignment of starts", found.aligned, ALIGNED_MIN)
                .because("spread of request sizes", found.sizes, SIZES_MAX),
        );
        0
    }
}

/// How many calls have to come before their sizes can agree as [`SIZES_MAX`] asks; 0 where they may already.
///
/// More than half of the calls are then within 0.05 / 1.4826 of the median, on either side, so that the largest of those is less than 1.08
/// times the smallest. A call can add one to the most that lie so close together, and more calls there never take fewer.
fn missing_to_agree(calls: &[Call]) -> usize {
    let mut sizes = [0; STARTS_MAX];
    let sizes = &mut sizes[..calls.len()];
    for (size, call) in sizes.iter_mut().zip(calls) {
        *size = call.sent;
    }
    sizes.sort_unstable();
    let (mut first, mut most) = (0, 0);
    for last in 0..sizes.len() {
        while u64::from(sizes[last]) * 100 > u64::from(sizes[first]) * 108 {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    (sizes.len() / 2 + 1).saturating_sub(most)
}

struct Found {
    period_ns: f64,
    spread: f64,
    aligned: f64,
    sizes: f64,
    by_intervals: bool,
    /// How regular, over what counts as regular.
    times: f64,
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
        // A period far below the usual interval fits anything.
        if period < PERIOD_MIN_NS as f64 || period < median / 4.0 {
            continue;
        }
        let (mut re, mut im) = (0.0, 0.0);
        for call in calls {
            let angle = std::f64::consts::TAU * ((call.start_ns - origin) as f64 / period).fract();
            re += angle.cos();
            im += angle.sin();
        }
        let length = (re * re + im * im).sqrt() / calls.len() as f64;
        if length <= best.0 {
            continue;
        }
        // Periods around the mean phase in which there was a call.
        let phase = im.atan2(re) / std::f64::consts::TAU;
        let turn = |call: &Call| ((call.start_ns - origin) as f64 / period - phase).round();
        let turns = 1 + calls.windows(2).filter(|pair| turn(&pair[1]) > turn(&pair[0])).count();
        if turns as f64 * length * length >= RAYLEIGH_MIN {
            best = (length, period);
        }
    }
    let few = calls.len() < STARTS_SURE;
    let aligned = if few { 0.0 } else { best.0 };
    let by_intervals = if few { SPREAD_FEW_MAX } else { SPREAD_MAX } / spread.max(0.01);
    let by_spectrum = (1.0 - ALIGNED_MIN) / (1.0 - aligned).max(0.01);
    Some(Found {
        period_ns: if by_intervals >= 1.0 { median } else { best.1 },
        spread,
        aligned,
        sizes,
        by_intervals: by_intervals >= 1.0,
        times: by_intervals.max(by_spectrum),
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
        assert!(judge(&jittered).is_some_and(|found| found.by_intervals));
        // A schedule of a minute, every third call left out, and others between.
        let schedule = (0..24).filter(|n| n % 3 != 1).map(|n| f64::from(n) * 60.0);
        let found = judge(&calls(schedule, |_| 300)).unwrap();
        assert!(found.aligned > 0.99 && found.times > 1.0, "{}", found.aligned);
        // The same with others in every fourth period.
        let others = (0..5).map(|n| f64::from(n) * 240.0 + 17.0 + 7.0 * f64::from(n));
        let found = judge(&calls((0..24).map(|n| f64::from(n) * 60.0).chain(others), |_| 300)).unwrap();
        assert!(found.aligned >= ALIGNED_MIN && found.times >= 1.0, "{}", found.aligned);
    }

    /// What a client of `waits` is told to be by any of the judgements that its calls would get, over 64 of them.
    fn is_told(mut wait: impl FnMut(usize) -> f64) -> bool {
        let mut at = 0.0;
        let starts: Vec<f64> = (0..64)
            .map(|n| {
                at += wait(n);
                at
            })
            .collect();
        let all = calls(starts.into_iter(), |_| 300);
        (STARTS_MIN..=all.len()).any(|count| {
            let is_due = count <= STARTS_MAX || count.is_multiple_of(JUDGED_EVERY);
            let held = &all[count.saturating_sub(STARTS_MAX)..count];
            is_due && judge(held).is_some_and(|found| found.times >= 1.0)
        })
    }

    /// Clients whose requests are all of one size: people that come and go, programs that wait for chance. Of 1,000 of each at most 3 % are
    /// ever told, and by the spectrum none that works in bunches, which the length of the mean vector alone would tell nearly always.
    #[test]
    fn random_clients_of_one_size_are_no_beacons() {
        type Wait = fn(usize, f64) -> f64;
        let shapes: [(&str, Wait); 4] = [
            ("exponential", |_, u| -30.0 * u.ln()),
            ("ten, and a long pause", |n, u| if n % 10 == 9 { -7_200.0 * u.ln() } else { -20.0 * u.ln() }),
            ("twenty, and a night", |n, u| if n % 20 == 19 { -36_000.0 * u.ln() } else { -20.0 * u.ln() }),
            ("three, and a pause", |n, u| if n % 3 == 2 { -600.0 * u.ln() } else { -10.0 * u.ln() }),
        ];
        for (name, wait) in shapes {
            let told = (1..=1_000u64)
                .filter(|&seed| {
                    let mut next = random(seed);
                    is_told(|n| wait(n, 1.0 - next()))
                })
                .count();
            assert!(told <= 30, "{name}: {told} of 1000");
        }
        // Those that keep a time are told: with a jitter of a third, or every third call left out.
        for seed in 1..=200 {
            let mut next = random(seed);
            assert!(is_told(|_| 60.0 * (0.67 + 0.66 * next())), "{seed}");
            let mut next = random(seed);
            assert!(is_told(|_| if next() < 0.33 { 120.0 } else { 60.0 }), "{seed}");
        }
    }

    #[test]
    fn sizes_must_agree() {
        assert!(judge(&calls((0..20).map(|n| f64::from(n) * 60.0), |at| 300 + 40 * at as u32)).is_none());
    }

    proptest! {
        /// Judging only when sizes may agree misses nothing that judging every call would find.
        #[test]
        fn waiting_for_sizes_misses_nothing(sizes in prop::collection::vec(prop_oneof![290u32..312, 1u32..2_000], 12..90)) {
            let all = calls((0..sizes.len()).map(|n| n as f64 * 60.0), |at| sizes[at]);
            let mut from = 0;
            for count in STARTS_MIN..=all.len() {
                let last = &all[count.saturating_sub(STARTS_MAX)..count];
                let missing = missing_to_agree(last);
                if missing > 0 {
                    from = from.max(count + missing);
                }
                prop_assert!(count >= from || judge(last).is_none_or(|found| found.times < 1.0), "{count} of {sizes:?}");
            }
        }

        /// People: exponential waits. False alarms are rarer than one in a hundred.
        #[test]
        fn poisson_arrivals_are_not_regular(seed in 1u64..1_000) {
            let mut alarms = 0;
            for round in 0..100 {
                let mut next = random(seed * 1_000 + round);
                let mut at = 0.0;
                let arrivals = calls((0..STARTS_MAX).map(|_| { at += -30.0 * (1.0 - next()).ln(); at }), |_| 300);
                alarms += u32::from(judge(&arrivals).is_some_and(|found| found.times >= 1.0));
            }
            prop_assert!(alarms <= 2, "{alarms} of 100");
        }
    }
}
