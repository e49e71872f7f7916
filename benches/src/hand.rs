//! Jobs A and B written by hand: the bar the engine is measured against.
//!
//! * [`hand_loop`]: no semantics at all. Ordered input, one open window, float notional.
//! * [`hand_ring`]: the same behind an `rtrb` ring, filled by a second thread.
//! * [`hand_full`]: what a careful person writes who needs the answer right under disorder: a watermark, two open
//!   windows per key, a lateness check, open and close by event time, exact 128-bit notional, and an account of
//!   every event.
//!
//! All take records from memory and fold every bar into a [`Summary`], so nothing can be optimised away and every
//! rival's answer can be compared with every other's.

use std::ops::AddAssign;

use tidegate_engine::{Event, kind};

use crate::hops::Patience;
use crate::indicators::{COLUMNS, Indicators};
use crate::w1::BAR_NS;

/// What to compute over W1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Per symbol, one-second bars: open, high, low, close, volume, notional (for the VWAP), count.
    A,
    /// Job A, and per bar the indicators of [`crate::indicators`].
    B,
}

impl Job {
    /// Lower-case letter, for the names of measurements.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// What a run over W1 came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Bars closed.
    pub bars: u64,
    /// Wrapping sum over bars, in any order, of
    /// `(open + 3 high + 5 low + 7 close + 11 volume + 13 count) * (key + 1) * (2 second + 1)`
    /// with prices in 1e-9, sizes in 1e-8 and `second` the bar's start in seconds since 1970. Linear, so that a
    /// data frame can compute it in wrapping 64-bit integers.
    pub checksum: u64,
    /// Sum of all notionals, 1e-17. Exact up to the last conversion where the run sums integers.
    pub notional: f64,
    /// Sum of each indicator column, values that are not there yet counted as 0. All zero for job A.
    pub indicators: [f64; COLUMNS],
    /// Events in bars.
    pub applied: u64,
    /// Events dropped because their window had closed.
    pub late: u64,
    /// Events of another kind or an unknown key.
    pub other: u64,
}

impl Summary {
    /// Whether two runs found the same bars: integers equal, floats within `1e-9` of each other's size.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0);
        (self.bars, self.checksum, self.applied, self.late)
            == (other.bars, other.checksum, other.applied, other.late)
            && close(self.notional, other.notional)
            && self.indicators.iter().zip(&other.indicators).all(|(&a, &b)| close(a, b))
    }
}

/// One finished bar. `N` is the type notionals are summed in.
#[derive(Clone, Copy, Debug)]
pub struct Bar<N> {
    /// Whose bar.
    pub key: u32,
    /// Start of the bar in seconds since 1970.
    pub second: u64,
    /// First price, 1e-9.
    pub open: i64,
    /// Highest price.
    pub high: i64,
    /// Lowest price.
    pub low: i64,
    /// Last price.
    pub close: i64,
    /// Sum of sizes, 1e-8.
    pub volume: u64,
    /// Trades.
    pub count: u64,
    /// Sum of price times size, 1e-17.
    pub notional: N,
}

/// Takes finished bars and sums them up.
pub trait Finish<N> {
    /// A fresh one for keys `0..symbols`.
    fn new(symbols: usize) -> Self;
    /// Takes one bar; those of one key come in order of time.
    fn bar(&mut self, bar: &Bar<N>);
    /// The sums, with `applied`, `late` and `other` left 0.
    fn summary(&self) -> Summary;
}

/// Sums a notional can be kept in.
pub trait NotionalSum: Copy + Default + AddAssign {
    /// The sum as a float.
    fn as_f64(self) -> f64;
}

impl NotionalSum for f64 {
    fn as_f64(self) -> f64 {
        self
    }
}

impl NotionalSum for i128 {
    fn as_f64(self) -> f64 {
        self as f64
    }
}

/// [`Finish`] of job A.
#[derive(Debug, Default)]
pub struct FinishA<N> {
    bars: u64,
    checksum: u64,
    notional: N,
}

impl<N: NotionalSum> Finish<N> for FinishA<N> {
    fn new(_symbols: usize) -> Self {
        Self::default()
    }

    #[inline]
    fn bar(&mut self, bar: &Bar<N>) {
        self.bars += 1;
        self.checksum = self.checksum.wrapping_add(checksum(bar));
        self.notional += bar.notional;
    }

    fn summary(&self) -> Summary {
        Summary {
            bars: self.bars,
            checksum: self.checksum,
            notional: self.notional.as_f64(),
            ..Summary::default()
        }
    }
}

/// [`Finish`] of job B.
#[derive(Debug)]
pub struct FinishB<N> {
    bars: FinishA<N>,
    keys: Box<[Indicators]>,
    sums: [f64; COLUMNS],
}

impl<N: NotionalSum> Finish<N> for FinishB<N> {
    fn new(symbols: usize) -> Self {
        Self {
            bars: FinishA::default(),
            keys: vec![Indicators::default(); symbols].into_boxed_slice(),
            sums: [0.0; COLUMNS],
        }
    }

    #[inline]
    fn bar(&mut self, bar: &Bar<N>) {
        self.bars.bar(bar);
        let row = self.keys[bar.key as usize].update(bar.close as f64 * 1e-9);
        self.sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }

    fn summary(&self) -> Summary {
        Summary { indicators: self.sums, ..self.bars.summary() }
    }
}

/// One bar's part of [`Summary::checksum`].
#[inline]
fn checksum<N>(bar: &Bar<N>) -> u64 {
    (bar.open as u64)
        .wrapping_add((bar.high as u64).wrapping_mul(3))
        .wrapping_add((bar.low as u64).wrapping_mul(5))
        .wrapping_add((bar.close as u64).wrapping_mul(7))
        .wrapping_add(bar.volume.wrapping_mul(11))
        .wrapping_add(bar.count.wrapping_mul(13))
        .wrapping_mul(u64::from(bar.key) + 1)
        .wrapping_mul(2 * bar.second + 1)
}

/// The loop without semantics over records in event-time order with keys in `0..symbols`. Records of an unknown key
/// are skipped and counted.
#[must_use]
pub fn hand_loop(job: Job, events: &[Event], symbols: usize) -> Summary {
    match job {
        Job::A => whole::<FinishA<f64>>(events, symbols),
        Job::B => whole::<FinishB<f64>>(events, symbols),
    }
}

fn whole<F: Finish<f64>>(events: &[Event], symbols: usize) -> Summary {
    let mut state = Plain::<F>::new(symbols);
    state.apply(events);
    state.finish()
}

/// One symbol's open window in the loop without semantics: a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct PlainWindow {
    open: i64,
    high: i64,
    low: i64,
    close: i64,
    volume: u64,
    count: u64,
    notional: f64,
}

const PLAIN_EMPTY: PlainWindow =
    PlainWindow { open: 0, high: i64::MIN, low: i64::MAX, close: 0, volume: 0, count: 0, notional: 0.0 };

struct Plain<F> {
    windows: Box<[PlainWindow]>,
    /// End of the open window; 0 before the first record.
    end: u64,
    applied: u64,
    other: u64,
    finish: F,
}

impl<F: Finish<f64>> Plain<F> {
    fn new(symbols: usize) -> Self {
        Self {
            windows: vec![PLAIN_EMPTY; symbols].into_boxed_slice(),
            end: 0,
            applied: 0,
            other: 0,
            finish: F::new(symbols),
        }
    }

    fn apply(&mut self, mut events: &[Event]) {
        while let Some(last) = events.last() {
            // The records are in order, so one look at the last says whether any leaves the open window.
            let within = if last.ts_event < self.end {
                events.len()
            } else {
                events.partition_point(|event| event.ts_event < self.end)
            };
            let (inside, rest) = events.split_at(within);
            self.fold(inside);
            if let Some(next) = rest.first() {
                self.close();
                self.end = next.ts_event - next.ts_event % BAR_NS + BAR_NS;
            }
            events = rest;
        }
    }

    #[inline]
    fn fold(&mut self, events: &[Event]) {
        let windows = &mut *self.windows;
        let mut other = 0;
        for event in events {
            let Some(window) = windows.get_mut(event.key as usize) else {
                other += 1;
                continue;
            };
            let (price, size) = (event.price(), event.size());
            window.open = if window.count == 0 { price } else { window.open };
            window.high = window.high.max(price);
            window.low = window.low.min(price);
            window.close = price;
            window.volume += size;
            window.count += 1;
            window.notional += price as f64 * size as i64 as f64;
        }
        self.other += other;
        self.applied += events.len() as u64 - other;
    }

    fn close(&mut self) {
        let second = (self.end / BAR_NS).wrapping_sub(1);
        for (key, window) in self.windows.iter_mut().enumerate() {
            if window.count > 0 {
                self.finish.bar(&Bar {
                    key: key as u32,
                    second,
                    open: window.open,
                    high: window.high,
                    low: window.low,
                    close: window.close,
                    volume: window.volume,
                    count: window.count,
                    notional: window.notional,
                });
                *window = PLAIN_EMPTY;
            }
        }
    }

    fn finish(mut self) -> Summary {
        self.close();
        Summary { applied: self.applied, other: self.other, ..self.finish.summary() }
    }
}

/// Records the ring of [`hand_ring`] holds: 256 KiB, so it stays in L2.
pub const RING_EVENTS: usize = 8_192;
/// Records [`hand_ring`] moves at a time: 16 KiB, a third of L1.
pub const RING_CHUNK: usize = 512;

/// [`hand_loop`] behind an `rtrb` ring: a reader thread copies the records into the ring chunk by chunk, the calling
/// thread folds them. Both spin,
/// and yield when that takes long.
#[must_use]
pub fn hand_ring(job: Job, events: &[Event], symbols: usize) -> Summary {
    match job {
        Job::A => through_ring::<FinishA<f64>>(events, symbols),
        Job::B => through_ring::<FinishB<f64>>(events, symbols),
    }
}

fn through_ring<F: Finish<f64>>(events: &[Event], symbols: usize) -> Summary {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(RING_EVENTS);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut patience = Patience::default();
            for mut chunk in events.chunks(RING_CHUNK) {
                while !chunk.is_empty() {
                    let (_, rest) = producer.push_partial_slice(chunk);
                    patience.after(rest.len() < chunk.len());
                    chunk = rest;
                }
            }
        });
        let mut state = Plain::<F>::new(symbols);
        let (mut taken, mut patience) = (0, Patience::default());
        while taken < events.len() {
            let count = consumer.slots().min(RING_CHUNK);
            patience.after(count > 0);
            if count == 0 {
                continue;
            }
            let chunk = consumer.read_chunk(count).expect("only this thread pops, so slots() cannot shrink");
            let (older, newer) = chunk.as_slices();
            state.apply(older);
            state.apply(newer);
            chunk.commit_all();
            taken += count;
        }
        state.finish()
    })
}

/// Records between two looks at the watermark in [`hand_full`]: what a feed's frame would hold.
pub const FULL_BATCH: usize = 1_024;

/// The hand-written loop with the semantics users need. Records may be out of order by less than `lateness_ns`;
/// what comes after its window closed is counted late and dropped. For W1 in order 0 will do, for the reversed
/// variant [`crate::w1::REVERSED_LATENESS_NS`].
///
/// # Panics
/// When `lateness_ns` is over [`BAR_NS`]: more than two windows would have to stay open.
#[must_use]
pub fn hand_full(job: Job, events: &[Event], symbols: usize, lateness_ns: u64) -> Summary {
    assert!(lateness_ns <= BAR_NS, "lateness of {lateness_ns} ns is over one bar");
    match job {
        Job::A => full::<FinishA<i128>>(events, symbols, lateness_ns),
        Job::B => full::<FinishB<i128>>(events, symbols, lateness_ns),
    }
}

fn full<F: Finish<i128>>(events: &[Event], symbols: usize, lateness_ns: u64) -> Summary {
    let mut state = Full::<F>::new(symbols, lateness_ns);
    for batch in events.chunks(FULL_BATCH) {
        state.apply(batch);
    }
    state.finish()
}

/// [`hand_full`] for job A, batch by batch.
pub struct FullA(Full<FinishA<i128>>);

impl FullA {
    /// Over keys `0..symbols`.
    #[must_use]
    pub fn new(symbols: usize, lateness_ns: u64) -> Self {
        Self(Full::new(symbols, lateness_ns))
    }

    /// The next records.
    pub fn apply(&mut self, batch: &[Event]) {
        self.0.apply(batch);
    }

    /// Closes what is open.
    #[must_use]
    pub fn finish(self) -> Summary {
        self.0.finish()
    }
}

/// One symbol's open window with its bookkeeping.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct FullWindow {
    open: i64,
    high: i64,
    low: i64,
    close: i64,
    volume: u64,
    count: u64,
    notional: i128,
    /// Event time of `open`.
    first: u64,
    /// Event time of `close`.
    last: u64,
}

const FULL_EMPTY: FullWindow = FullWindow {
    open: 0,
    high: i64::MIN,
    low: i64::MAX,
    close: 0,
    volume: 0,
    count: 0,
    notional: 0,
    first: u64::MAX,
    last: 0,
};

struct Full<F> {
    /// The window that starts at `base` and the one after it, for every key.
    windows: [Box<[FullWindow]>; 2],
    /// Start of the oldest open window; 0 before the first record.
    base: u64,
    latest: u64,
    lateness_ns: u64,
    delivered: u64,
    late: u64,
    other: u64,
    finish: F,
}

impl<F: Finish<i128>> Full<F> {
    fn new(symbols: usize, lateness_ns: u64) -> Self {
        let empty = || vec![FULL_EMPTY; symbols].into_boxed_slice();
        Self {
            windows: [empty(), empty()],
            base: 0,
            latest: 0,
            lateness_ns,
            delivered: 0,
            late: 0,
            other: 0,
            finish: F::new(symbols),
        }
    }

    /// Takes one batch, then moves the watermark.
    fn apply(&mut self, batch: &[Event]) {
        self.delivered += batch.len() as u64;
        let mut rest = batch;
        while !rest.is_empty() {
            let done = self.fold(rest);
            rest = &rest[done..];
            if let Some(far) = rest.first() {
                // Two windows are open and this record wants a third: the watermark need not wait for the batch.
                self.latest = self.latest.max(far.ts_event);
                self.make_room(far.ts_event);
            }
        }
        self.advance();
    }

    /// Folds records until one lies beyond the second open window; returns how many.
    #[inline]
    fn fold(&mut self, events: &[Event]) -> usize {
        let [near, far] = &mut self.windows;
        let (near, far) = (&mut **near, &mut **far);
        let (base, mut latest, mut late, mut other) = (self.base, self.latest, 0, 0);
        let mut done = events.len();
        for (i, event) in events.iter().enumerate() {
            let ts = event.ts_event;
            let windows = if ts.wrapping_sub(base) < BAR_NS {
                &mut *near
            } else if ts < base {
                late += 1;
                continue;
            } else if ts - base < 2 * BAR_NS {
                &mut *far
            } else {
                done = i;
                break;
            };
            let (Some(window), kind::TRADE) = (windows.get_mut(event.key as usize), event.kind) else {
                other += 1;
                continue;
            };
            latest = latest.max(ts);
            let (price, size) = (event.price(), event.size());
            // Selects, not branches: which way they go is a coin toss under disorder.
            let is_first = ts < window.first;
            window.open = if is_first { price } else { window.open };
            window.first = if is_first { ts } else { window.first };
            let is_last = ts >= window.last;
            window.close = if is_last { price } else { window.close };
            window.last = if is_last { ts } else { window.last };
            window.high = window.high.max(price);
            window.low = window.low.min(price);
            window.volume += size;
            window.count += 1;
            window.notional += i128::from(price) * i128::from(size);
        }
        self.latest = latest;
        self.late += late;
        self.other += other;
        done
    }

    /// Closes what must close for `ts` to lie in the younger open window. Nothing on time is lost by it: the bound
    /// on lateness is at most one window, so what closes here is behind the watermark.
    #[cold]
    fn make_room(&mut self, ts: u64) {
        let start = ts - ts % BAR_NS;
        if self.base == 0 {
            self.base = start - BAR_NS;
        }
        for _ in 0..2 {
            if self.base + BAR_NS < start {
                self.close();
            }
        }
        self.base = self.base.max(start - BAR_NS);
    }

    fn advance(&mut self) {
        let watermark = self.latest.saturating_sub(self.lateness_ns);
        while self.base > 0 && self.base + BAR_NS <= watermark {
            self.close();
        }
    }

    /// Closes the oldest window of every key.
    #[cold]
    fn close(&mut self) {
        let second = self.base / BAR_NS;
        for (key, window) in self.windows[0].iter_mut().enumerate() {
            if window.count > 0 {
                self.finish.bar(&Bar {
                    key: key as u32,
                    second,
                    open: window.open,
                    high: window.high,
                    low: window.low,
                    close: window.close,
                    volume: window.volume,
                    count: window.count,
                    notional: window.notional,
                });
                *window = FULL_EMPTY;
            }
        }
        self.windows.swap(0, 1);
        self.base += BAR_NS;
    }

    fn finish(mut self) -> Summary {
        self.close();
        self.close();
        Summary {
            applied: self.delivered - self.late - self.other,
            late: self.late,
            other: self.other,
            ..self.finish.summary()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::w1::{REVERSED_LATENESS_NS, T0_NS, W1, generate, reverse_runs};

    /// 4 seconds, so that windows close, of few enough symbols that every one has a bar.
    const WORK: W1 = W1 { events: 400_123, symbols: 30, seed: 5 };
    /// 60 bars of each of 5 symbols: past every indicator's warm-up.
    fn sparse() -> Vec<Event> {
        let mut events = generate(W1 { events: 6_000, symbols: 5, seed: 6 });
        events.iter_mut().for_each(|event| event.ts_event = T0_NS + (event.ts_event - T0_NS) * 1_000);
        events
    }

    /// Groups by sorting, sums in wide integers: slow and obvious.
    fn model(job: Job, events: &[Event], symbols: usize) -> Summary {
        let mut groups: BTreeMap<(u64, u32), Vec<&Event>> = BTreeMap::new();
        for event in events {
            groups.entry((event.ts_event / BAR_NS, event.key)).or_default().push(event);
        }
        let mut finish_a = FinishA::<i128>::new(symbols);
        let mut finish_b = FinishB::<i128>::new(symbols);
        for ((second, key), mut trades) in groups {
            trades.sort_by_key(|trade| trade.ts_event);
            let bar = Bar {
                key,
                second,
                open: trades[0].price(),
                high: trades.iter().map(|t| t.price()).max().unwrap(),
                low: trades.iter().map(|t| t.price()).min().unwrap(),
                close: trades[trades.len() - 1].price(),
                volume: trades.iter().map(|t| t.size()).sum(),
                count: trades.len() as u64,
                notional: trades.iter().map(|t| i128::from(t.price()) * i128::from(t.size())).sum(),
            };
            finish_a.bar(&bar);
            finish_b.bar(&bar);
        }
        let summary = if job == Job::A { finish_a.summary() } else { finish_b.summary() };
        Summary { applied: events.len() as u64, ..summary }
    }

    #[test]
    fn all_loops_agree_with_the_model() {
        for (events, symbols) in [(generate(WORK), WORK.symbols), (sparse(), 5), (Vec::new(), 3)] {
            let mut reversed = events.clone();
            reverse_runs(&mut reversed);
            for job in [Job::A, Job::B] {
                let expected = model(job, &events, symbols);
                for (name, found) in [
                    ("loop", hand_loop(job, &events, symbols)),
                    ("ring", hand_ring(job, &events, symbols)),
                    ("full", hand_full(job, &events, symbols, 0)),
                    ("lateness", hand_full(job, &events, symbols, REVERSED_LATENESS_NS)),
                ] {
                    assert!(found.agrees_with(&expected), "{name} {job:?}: {found:?}, {expected:?}");
                }
                if symbols == WORK.symbols {
                    let found = hand_full(job, &reversed, symbols, REVERSED_LATENESS_NS);
                    assert!(found.agrees_with(&expected), "reversed {job:?}: {found:?}, {expected:?}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_applied_is_counted() {
        let mut events = generate(W1 { events: 250_000, ..WORK });
        let stale = Event { ts_event: T0_NS - 5 * BAR_NS, ..events[0] };
        events.push(stale);
        events.push(Event { key: WORK.symbols as u32, ..events[249_999] });
        events.push(Event { kind: kind::SAMPLE, ..events[249_999] });
        let summary = hand_full(Job::A, &events, WORK.symbols, REVERSED_LATENESS_NS);
        assert_eq!((summary.applied, summary.late, summary.other), (250_000, 1, 2));
    }

    #[test]
    fn gaps_in_time_close_both_windows() {
        let mut events = generate(WORK);
        events.iter_mut().skip(200_000).for_each(|event| event.ts_event += 7 * BAR_NS);
        let expected = model(Job::A, &events, WORK.symbols);
        assert!(hand_full(Job::A, &events, WORK.symbols, 0).agrees_with(&expected));
        assert!(hand_loop(Job::A, &events, WORK.symbols).agrees_with(&expected));
    }
}
