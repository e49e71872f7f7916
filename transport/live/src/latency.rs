//! How long it takes from the arrival of events to their results: measured on the way, on samples, by places in the rings.
//!
//! ```text
//! tg-ingest: bytes came at t0 and led to records of the log up to place p of a shard's ring  --Mark(t0, p)-->  tg-egress
//! tg-egress: the shard has applied p; its results are up to place q of its ring of outputs; q was handed to the readers at t1
//! ```
//! A sample is t1 - t0. What a window waits for the watermark is not in it: that is decided by the feed's own events. Arrivals that
//! nothing came of are no samples. At most one in [`SAMPLE_EVERY_NS`] is followed, however slow the one before still is, so that
//! a slow moment cannot hide itself; nothing is done per event. In the fused core nothing has to be followed: a sample begins with an
//! arrival and ends when the shards have no more work and the readers have what there was.

use crate::clock::Clock;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_actors::runtime::{ShardProgress, StatsHandle};
use tidegate_engine::{FullPolicy, Output, Receiver, Sender, ring};
use tidegate_proto::MonoTime;
use tidegate_proto::time::MILLISECOND_NS;

/// Arrivals are followed at most this often.
pub(crate) const SAMPLE_EVERY_NS: u64 = MILLISECOND_NS;
/// Arrivals of one shard that are followed at once; further ones are not, and are counted.
const FOLLOWED_MAX: usize = 4_096;
/// A window of the percentiles, and how many there are: what is shown is of the last minute.
const WINDOW_NS: u64 = 10_000 * MILLISECOND_NS;
const WINDOWS: usize = 6;
/// How often the percentiles are made anew.
const SHOW_EVERY_NS: u64 = 250 * MILLISECOND_NS;
/// Longer times count as this: ten minutes.
const LONGEST_NS: u64 = 600_000 * MILLISECOND_NS;

/// Percentiles of the last minute, in nanoseconds, of samples taken at most once a millisecond and shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyStats {
    /// Half were faster.
    pub p50: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
    /// 999 of 1,000 were faster.
    pub p99_9: u64,
    /// The slowest.
    pub max: u64,
    /// How many samples these are made of.
    pub samples: u64,
    /// Samples since the start that could not be taken because too many were under way.
    pub missed: u64,
}

/// Reads the percentiles, from any thread.
#[derive(Debug, Clone, Default)]
pub struct LatencyHandle(Arc<Mutex<Option<LatencyStats>>>);

impl LatencyHandle {
    /// As they were a quarter of a second ago at most; nothing while nothing came for a minute.
    #[must_use]
    pub fn stats(&self) -> Option<LatencyStats> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    received_ns: u64,
    place: u64,
}

/// The side of `tg-ingest`.
pub(crate) struct Marker {
    shards: Vec<(Sender<Mark>, u64)>,
    last: Option<MonoTime>,
}

/// What belongs to one shard on the side of `tg-egress`.
struct Trail {
    marks: Receiver<Mark>,
    /// Until the shard has applied a place.
    shard: VecDeque<(u64, u64)>,
    /// Until its analysis thread has dealt with a place.
    analysis: VecDeque<(u64, u64)>,
    /// Until a place of the ring of outputs has been handed on.
    outputs: VecDeque<(u64, u64)>,
    /// Times of samples that have ended, until they are counted.
    ended: VecDeque<u64>,
    /// Up to where the ring of outputs had been filled when the last mark passed: a mark that finds no more led to nothing.
    sent: u64,
    /// Up to where it has been handed on, and when.
    taken: (u64, u64),
}

/// The side of `tg-egress`.
pub(crate) struct Tracer {
    trails: Vec<Trail>,
    percentiles: Percentiles,
}

/// The times of the last minute, and who wants to see their percentiles.
pub(crate) struct Percentiles {
    windows: VecDeque<Histogram<u64>>,
    turned: MonoTime,
    shown: MonoTime,
    fresh: bool,
    handle: LatencyHandle,
}

/// Both sides, for a number of shards.
pub(crate) fn measure(shards: usize, now: MonoTime) -> (Marker, Tracer, LatencyHandle) {
    let (mut senders, mut trails) = (Vec::new(), Vec::new());
    for _ in 0..shards {
        let (sender, marks) = ring(FOLLOWED_MAX, FullPolicy::DropNewest);
        senders.push((sender, 0));
        let queue = || VecDeque::with_capacity(FOLLOWED_MAX);
        let ended = VecDeque::with_capacity(FOLLOWED_MAX);
        let (shard, analysis, outputs) = (queue(), queue(), queue());
        trails.push(Trail { marks, shard, analysis, outputs, ended, sent: 0, taken: (0, 0) });
    }
    let (percentiles, handle) = Percentiles::new(now);
    (Marker { shards: senders, last: None }, Tracer { trails, percentiles }, handle)
}

impl Marker {
    /// One for each run of so many shards.
    pub(crate) fn split(self, shards: usize) -> Vec<Self> {
        let mut left = self.shards.into_iter();
        let mut next = || left.by_ref().take(shards.max(1)).collect::<Vec<_>>();
        std::iter::from_fn(|| Some(next()).filter(|shards| !shards.is_empty()))
            .map(|shards| Self { shards, last: None })
            .collect()
    }

    /// Bytes that came at `received` have been dealt with; `place` says how many records were sent to each shard so far. Only
    /// those that moved something on are worth following.
    pub(crate) fn routed(&mut self, received: MonoTime, place: impl Fn(usize) -> u64) {
        if self.last.is_some_and(|last| received.since(last) < SAMPLE_EVERY_NS) {
            return;
        }
        for (shard, (marks, last)) in self.shards.iter_mut().enumerate() {
            let place = place(shard);
            if place > *last {
                *last = place;
                self.last = Some(received);
                marks.offer(&[Mark { received_ns: received.0, place }]);
            }
        }
    }
}

impl Trail {
    fn followed(&self) -> usize {
        self.shard.len() + self.analysis.len() + self.outputs.len() + self.ended.len()
    }

    /// Moves on what has come further. `sent` is read behind `progress`.
    fn advance(&mut self, progress: impl FnOnce() -> ShardProgress, sent: impl FnOnce() -> u64) {
        let room = FOLLOWED_MAX.saturating_sub(self.followed());
        let shard = &mut self.shard;
        self.marks.drain(room, |marks| shard.extend(marks.iter().map(|mark| (mark.received_ns, mark.place))));
        if self.shard.is_empty() && self.analysis.is_empty() {
            return;
        }
        let progress = progress();
        while let Some((received, _)) = self.shard.pop_front_if(|(_, place)| *place <= progress.applied) {
            self.analysis.push_back((received, progress.staged));
        }
        let (before, sent) = (self.sent, sent());
        while let Some((received, _)) = self.analysis.pop_front_if(|(_, place)| *place <= progress.analysed) {
            self.sent = sent;
            if sent == before {
                continue;
            }
            let (taken, at) = self.taken;
            if sent > taken {
                self.outputs.push_back((received, sent));
            } else {
                // The results were here before it could be seen that they were all.
                self.ended.push_back(at.saturating_sub(received));
            }
        }
    }

    /// Results up to a place have been handed on.
    fn delivered(&mut self, taken: u64, now: impl FnOnce() -> u64) {
        if taken == self.taken.0 {
            return;
        }
        let now = now();
        self.taken = (taken, now);
        while let Some((received, _)) = self.outputs.pop_front_if(|(_, place)| *place <= taken) {
            self.ended.push_back(now.saturating_sub(received));
        }
    }
}

impl Tracer {
    /// At the beginning of a turn, before results are taken off the rings.
    pub(crate) fn advance(&mut self, stats: &StatsHandle, outputs: &[Receiver<Output>]) {
        for (shard, (trail, output)) in self.trails.iter_mut().zip(outputs).enumerate() {
            trail.advance(|| stats.progress(shard), || output.counters().stats().sent);
        }
    }

    /// At the end of a turn: what was taken off the rings before is with the readers now.
    pub(crate) fn delivered(&mut self, clock: Clock, turn: MonoTime, outputs: &[Receiver<Output>]) {
        let mut now = None;
        for (trail, output) in self.trails.iter_mut().zip(outputs) {
            trail.delivered(output.received(), || now.get_or_insert_with(|| clock.now()).0);
            while let Some(time) = trail.ended.pop_front() {
                self.percentiles.record(time);
            }
        }
        let trails = &self.trails;
        let missed = || trails.iter().map(|trail| trail.marks.counters().stats().dropped).sum();
        self.percentiles.turn(turn, missed);
    }
}

impl Percentiles {
    pub(crate) fn new(now: MonoTime) -> (Self, LatencyHandle) {
        let handle = LatencyHandle::default();
        // Bounds that are constants, and in range.
        let window = || Histogram::new_with_bounds(1, LONGEST_NS, 2).ok();
        let windows = (0..WINDOWS).filter_map(|_| window()).collect();
        (Self { windows, turned: now, shown: now, fresh: true, handle: handle.clone() }, handle)
    }

    /// A sample, in nanoseconds.
    pub(crate) fn record(&mut self, time: u64) {
        if let Some(window) = self.windows.front_mut() {
            window.saturating_record(time);
        }
        self.fresh = true;
    }

    /// Forgets what is older than a minute, and shows what is new, now and then.
    pub(crate) fn turn(&mut self, now: MonoTime, missed: impl FnOnce() -> u64) {
        if now.since(self.turned) >= WINDOW_NS {
            self.turned = now;
            if let Some(mut oldest) = self.windows.pop_back() {
                oldest.reset();
                self.windows.push_front(oldest);
            }
            self.fresh = true;
        }
        if self.fresh && now.since(self.shown) >= SHOW_EVERY_NS {
            (self.fresh, self.shown) = (false, now);
            let stats = self.stats(missed());
            *self.handle.0.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        }
    }

    fn stats(&self, missed: u64) -> Option<LatencyStats> {
        let mut sum = self.windows.front()?.clone();
        for window in self.windows.iter().skip(1) {
            // The bounds are the same.
            let _ = sum.add(window);
        }
        (!sum.is_empty()).then(|| LatencyStats {
            p50: sum.value_at_quantile(0.5),
            p99: sum.value_at_quantile(0.99),
            p99_9: sum.value_at_quantile(0.999),
            max: sum.max(),
            samples: sum.len(),
            missed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime(ms * MILLISECOND_NS)
    }

    /// A sample ends when its results have left, not when its events were applied, nor when those of a later one have.
    #[test]
    fn a_mark_passes_shard_analysis_and_outputs_in_turn() {
        let (mut marker, mut tracer, _) = measure(1, at(0));
        marker.routed(at(1), |_| 10);
        marker.routed(at(2), |_| 20);
        let trail = &mut tracer.trails[0];
        let lengths = |trail: &Trail| (trail.shard.len(), trail.analysis.len(), trail.outputs.len());
        let progress = |applied, staged, analysed| ShardProgress { applied, staged, analysed };
        trail.advance(|| progress(9, 0, 0), || 0);
        assert_eq!(lengths(trail), (2, 0, 0));
        trail.advance(|| progress(10, 3, 2), || 5);
        assert_eq!(lengths(trail), (1, 1, 0));
        trail.advance(|| progress(20, 7, 3), || 6);
        assert_eq!(lengths(trail), (0, 1, 1), "the second waits for its own results to be analysed");
        assert_eq!(trail.outputs[0], (at(1).0, 6));
        trail.advance(|| progress(20, 7, 7), || 9);
        assert_eq!(lengths(trail), (0, 0, 2));
        assert_eq!(trail.outputs[1], (at(2).0, 9));
        trail.delivered(8, || at(4).0);
        trail.delivered(9, || at(7).0);
        assert_eq!(Vec::from(trail.ended.clone()), [at(3).0, at(5).0]);
    }

    /// Whoever reads the results may learn only later that a shard is done with what led to them.
    #[test]
    fn what_nothing_came_of_is_no_sample_and_what_was_here_already_ended_then() {
        let (mut marker, mut tracer, _) = measure(1, at(0));
        let trail = &mut tracer.trails[0];
        let progress = |applied| ShardProgress { applied, staged: 0, analysed: 0 };
        marker.routed(at(1), |_| 10);
        trail.advance(|| progress(10), || 0);
        assert_eq!((trail.followed(), trail.sent), (0, 0));
        marker.routed(at(2), |_| 20);
        trail.advance(|| progress(10), || 4);
        trail.delivered(4, || at(3).0);
        trail.advance(|| progress(20), || 4);
        assert_eq!(Vec::from(trail.ended.clone()), [at(1).0]);
        trail.ended.clear();
        marker.routed(at(4), |_| 30);
        trail.advance(|| progress(30), || 4);
        assert_eq!((trail.followed(), trail.sent), (0, 4));
    }

    #[test]
    fn one_arrival_a_millisecond_is_followed_and_only_if_it_moved_something() {
        let (mut marker, mut tracer, _) = measure(2, at(0));
        marker.routed(at(5), |shard| [10, 0][shard]);
        marker.routed(MonoTime(at(5).0 + 1), |_| 100);
        marker.routed(at(6), |shard| [100, 7][shard]);
        marker.routed(at(7), |shard| [100, 7][shard]);
        for trail in &mut tracer.trails {
            trail.advance(ShardProgress::default, || 0);
        }
        let places = |at: usize| tracer.trails[at].shard.iter().map(|(_, place)| *place).collect::<Vec<_>>();
        assert_eq!((places(0), places(1)), (vec![10, 100], vec![7]));
    }

    #[test]
    fn what_is_followed_is_bounded_and_what_is_not_is_counted() {
        let (mut marker, mut tracer, _) = measure(1, at(0));
        let rounds = 3 * FOLLOWED_MAX as u64;
        for ms in 1..=rounds {
            marker.routed(at(ms), |_| ms);
            tracer.trails[0].advance(ShardProgress::default, || 0);
        }
        let trail = &tracer.trails[0];
        assert_eq!(trail.followed(), FOLLOWED_MAX);
        assert_eq!(trail.marks.counters().stats().dropped, rounds - 2 * FOLLOWED_MAX as u64);
    }

    #[test]
    fn percentiles_are_of_the_last_minute_and_then_unknown() {
        let (_, mut tracer, handle) = measure(0, at(0));
        assert_eq!(handle.stats(), None);
        for us in 1..=1_000u64 {
            tracer.percentiles.record(us * 1_000);
        }
        tracer.delivered(Clock::default(), at(250), &[]);
        let stats = handle.stats().unwrap();
        let near = |found: u64, want: u64| found.abs_diff(want) * 50 <= want;
        assert!(near(stats.p50, 500_000) && near(stats.p99, 990_000), "{stats:?}");
        assert!(near(stats.p99_9, 999_000) && near(stats.max, 1_000_000), "{stats:?}");
        assert_eq!((stats.samples, stats.missed), (1_000, 0));
        for second in 1..=59 {
            tracer.delivered(Clock::default(), at(second * 1_000), &[]);
            assert!(handle.stats().is_some(), "second {second}");
        }
        for second in 60..=70 {
            tracer.delivered(Clock::default(), at(second * 1_000), &[]);
        }
        assert_eq!(handle.stats(), None);
    }
}
