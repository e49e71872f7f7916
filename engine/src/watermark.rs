//! Watermarks: one per source, carried in the log; their minimum over active sources closes windows. And the fence
//! that keeps one absurd stamp from closing everything.

use crate::event::{Event, kind};
use crate::units::EventTime;

/// What a shard knows of its sources' progress. Driven by control records alone.
#[derive(Debug, Default, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct WatermarkTracker {
    /// Per source rank: `None` until it is first heard of.
    sources: Vec<Option<SourceMark>>,
    current: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct SourceMark {
    watermark: u64,
    idle: bool,
}

impl WatermarkTracker {
    /// Takes a WATERMARK, IDLE or MARK record; returns the new minimum if it moved. A source holds windows open from
    /// its first record on, until it is idle or its watermark passes.
    pub fn observe(&mut self, record: &Event) -> Option<u64> {
        let rank = usize::from(record.source);
        if rank >= self.sources.len() {
            self.sources.resize(rank + 1, None);
        }
        let mark = self.sources[rank].get_or_insert(SourceMark { watermark: 0, idle: false });
        match record.kind {
            kind::WATERMARK => {
                mark.idle = false;
                // A source that goes back is ignored: watermarks are monotone.
                mark.watermark = mark.watermark.max(record.ts_event);
            }
            kind::IDLE => mark.idle = true,
            _ => mark.idle = false,
        }
        let active = self.sources.iter().flatten().filter(|source| !source.idle);
        // With every source idle, what the furthest one reached stands: nobody is left to contradict it.
        let minimum = active.map(|source| source.watermark).min().unwrap_or_else(|| {
            self.sources.iter().flatten().map(|source| source.watermark).max().unwrap_or(0)
        });
        if minimum > self.current {
            self.current = minimum;
            Some(minimum)
        } else {
            None
        }
    }

    /// The minimum over active sources; never moves back.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current
    }
}

/// Tells idle from back-pressured for one source. Sans-I/O: the caller says what it saw and when.
///
/// Idle means: polled, found empty, and so for `idle_after`. A source whose records wait behind a full ring is
/// back-pressured, not idle, however long that takes.
#[derive(Debug, Clone)]
pub struct IdleDetector {
    idle_after_ns: u64,
    empty_since: Option<u64>,
    state: Activity,
}

/// What a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Sending, or silent for less than `idle_after`.
    Active,
    /// Polled and empty for `idle_after`: stops holding windows open.
    Idle,
    /// Has records that cannot be taken yet: holds windows open.
    BackPressured,
}

impl IdleDetector {
    /// A detector for one source.
    #[must_use]
    pub fn new(idle_after_ns: u64) -> Self {
        Self { idle_after_ns, empty_since: None, state: Activity::Active }
    }

    /// The source was polled at `mono_ns` and had `records`, of which `taken` could be taken. Returns the new state
    /// when it changed; a change to or from idle must be logged so that replay does the same.
    pub fn polled(&mut self, mono_ns: u64, records: usize, taken: usize) -> Option<Activity> {
        let state = if records > taken {
            self.empty_since = None;
            Activity::BackPressured
        } else if records > 0 {
            self.empty_since = None;
            Activity::Active
        } else {
            let since = *self.empty_since.get_or_insert(mono_ns);
            if mono_ns.saturating_sub(since) >= self.idle_after_ns {
                Activity::Idle
            } else {
                Activity::Active
            }
        };
        let changed = state != self.state;
        self.state = state;
        changed.then_some(state)
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> Activity {
        self.state
    }
}

/// Bounds on how far stamps may jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceOptions {
    /// A stamp this far beyond everything before it is suspect.
    pub jump_max_ns: u64,
    /// Suspects that confirm each other before the jump is believed (a market that reopened).
    pub confirm_count: usize,
    /// At the end of input, unconfirmed suspects within this jump are believed; nothing after them could be hurt.
    pub end_jump_max_ns: u64,
}

impl Default for FenceOptions {
    fn default() -> Self {
        const DAY_NS: u64 = 86_400_000_000_000;
        Self { jump_max_ns: DAY_NS, confirm_count: 8, end_jump_max_ns: 7 * DAY_NS }
    }
}

/// A fence between two events; what it was told to allow is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct FenceState {
    reached: Option<u64>,
    suspects: Vec<[u64; 4]>,
    jump_seen_ns: u64,
    fenced: u64,
}

/// Holds back suspect stamps until others confirm them, so that a single far-future stamp cannot push the watermark
/// and make everything after it late. Real jumps (weekends) pass after `confirm_count` events, none lost.
#[derive(Debug, Clone)]
pub struct Fence {
    options: FenceOptions,
    reached: Option<u64>,
    suspects: Vec<Event>,
    jump_seen_ns: u64,
    fenced: u64,
}

/// What an event counts for among those refused: a word about the time is nobody's data.
fn data(event: &Event) -> u64 {
    u64::from(!event.is_control())
}

impl Fence {
    /// A fence that believes the first stamp it sees only when the next ones agree, like any other jump.
    #[must_use]
    pub fn new(options: FenceOptions) -> Self {
        Self {
            options,
            reached: None,
            suspects: Vec::with_capacity(options.confirm_count),
            jump_seen_ns: 0,
            fenced: 0,
        }
    }

    /// Its state, for [`Fence::resume`].
    #[must_use]
    pub fn state(&self) -> FenceState {
        let suspects = self.suspects.iter().map(|event| zerocopy::transmute!(*event)).collect();
        let Self { reached, jump_seen_ns, fenced, .. } = *self;
        FenceState { reached, suspects, jump_seen_ns, fenced }
    }

    /// A fence that goes on from a state.
    #[must_use]
    pub fn resume(options: FenceOptions, state: &FenceState) -> Self {
        let mut fence = Self::new(options);
        fence.suspects.extend(state.suspects.iter().map(|words| -> Event { zerocopy::transmute!(*words) }));
        (fence.reached, fence.jump_seen_ns, fence.fenced) = (state.reached, state.jump_seen_ns, state.fenced);
        fence
    }

    /// Events refused so far.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        self.fenced
    }

    /// Takes those out of what is held back that `is` says, in their order: they go on elsewhere.
    pub fn take(&mut self, mut is: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let (taken, left) = self.suspects.drain(..).partition(|event| is(event));
        self.suspects = left;
        taken
    }

    /// Events held back.
    #[cfg(test)]
    pub(crate) fn suspects(&self) -> u64 {
        self.suspects.len() as u64
    }

    /// Whether nothing is held back and every stamp of the run is within the jump: then the run may pass as it is.
    #[must_use]
    pub fn passes(&mut self, events: &[Event]) -> bool {
        let Some(reached) = self.reached else { return false };
        if !self.suspects.is_empty() {
            return false;
        }
        let limit = reached.saturating_add(self.options.jump_max_ns).min(EventTime::MAX.0);
        let newest = crate::sequencer::newest_of(events); // of data: other records carry other times
        if newest > limit {
            return false;
        }
        self.reached = Some(reached.max(newest));
        true
    }

    /// Passes one event on, holds it back, or releases what was held; appends to `out` in order.
    pub fn admit(&mut self, event: Event, out: &mut Vec<Event>) {
        // No number of others can confirm what no stamp may be: windows could not even have an end there.
        if event.ts_event > EventTime::MAX.0 {
            self.fenced += data(&event);
            return;
        }
        let near = |reached: u64| event.ts_event <= reached.saturating_add(self.options.jump_max_ns);
        if self.reached.is_some_and(near) {
            // Refuted: time goes on where it was.
            self.fenced += self.suspects.iter().map(data).sum::<u64>();
            self.suspects.clear();
            self.reached = self.reached.map(|reached| reached.max(event.ts_event));
            out.push(event);
            return;
        }
        // A suspect that disagrees with the ones held starts a new trial; the old ones are refuted.
        if let Some(first) = self.suspects.first()
            && first.ts_event.abs_diff(event.ts_event) > self.options.jump_max_ns
        {
            if self.reached.is_none() && event.ts_event < first.ts_event {
                // Nothing believed yet and time went back: the earlier stamp was the absurd one.
                self.fenced += self.suspects.iter().map(data).sum::<u64>();
            } else if self.reached.is_none() {
                // Sparse data: each step is a jump. The held ones are the older, so they are no future stamps.
                self.release(out);
                self.suspects.push(event);
                return;
            } else if event.ts_event > first.ts_event {
                // Time moved on past the suspects: they were the past of something real, not stray.
                self.release(out);
                self.suspects.push(event);
                return;
            } else {
                self.fenced += self.suspects.iter().map(data).sum::<u64>();
            }
            self.suspects.clear();
        }
        self.suspects.push(event);
        if self.suspects.len() >= self.options.confirm_count {
            self.release(out);
        }
    }

    /// The suspects are believed: they pass, and how far they jumped is remembered as normal for this source.
    fn release(&mut self, out: &mut Vec<Event>) {
        let newest = self.suspects.iter().map(|held| held.ts_event).max();
        if let (Some(reached), Some(newest)) = (self.reached, newest) {
            self.jump_seen_ns = self.jump_seen_ns.max(newest - reached);
        }
        self.reached = newest;
        out.append(&mut self.suspects);
    }

    /// The input ended: releases suspects that are near enough to be true.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        // Twice what this source was seen to jump is believed too: monthly data ends a month after its last but one.
        let jump_max_ns = self.options.end_jump_max_ns.max(self.jump_seen_ns.saturating_mul(2));
        let limit = self.reached.map_or(u64::MAX, |reached| reached.saturating_add(jump_max_ns));
        for event in self.suspects.drain(..) {
            if event.ts_event <= limit {
                out.push(event);
            } else {
                self.fenced += data(&event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000_000_000;

    fn mark(source: u16, ts: u64) -> Event {
        Event::control(kind::WATERMARK, ts, 0, source, [0; 2])
    }

    #[test]
    fn the_slowest_active_source_decides() {
        let mut tracker = WatermarkTracker::default();
        assert_eq!(tracker.observe(&mark(0, 10)), Some(10));
        assert_eq!(tracker.observe(&mark(1, 5)), None, "a new slow source cannot take time back");
        assert_eq!(tracker.observe(&mark(0, 20)), None);
        assert_eq!(tracker.observe(&mark(1, 15)), Some(15));
        assert_eq!(tracker.observe(&mark(1, 3)), None, "monotone per source");
        assert_eq!(tracker.observe(&Event::control(kind::IDLE, 0, 0, 1, [0; 2])), Some(20));
        assert_eq!(tracker.observe(&mark(1, 16)), None, "back from idle, behind: it holds again");
        assert_eq!(tracker.observe(&mark(0, 30)), None);
        assert_eq!(tracker.current(), 20);
    }

    #[test]
    fn back_pressured_is_not_idle() {
        let mut detector = IdleDetector::new(100);
        assert_eq!(detector.polled(0, 5, 0), Some(Activity::BackPressured));
        assert_eq!(detector.polled(10_000, 5, 0), None);
        assert_eq!(detector.polled(10_001, 5, 5), Some(Activity::Active));
        assert_eq!(detector.polled(10_010, 0, 0), None);
        assert_eq!(detector.polled(10_109, 0, 0), None, "99 ns of silence");
        assert_eq!(detector.polled(10_110, 0, 0), Some(Activity::Idle));
        assert_eq!(detector.polled(10_111, 1, 1), Some(Activity::Active));
    }

    fn run(stamps: &[u64]) -> (Vec<u64>, u64) {
        let mut fence = Fence::new(FenceOptions::default());
        let mut out = Vec::new();
        for &ts in stamps {
            fence.admit(Event { ts_event: ts, ..Event::default() }, &mut out);
        }
        fence.finish(&mut out);
        (out.iter().map(|event| event.ts_event).collect(), fence.fenced())
    }

    #[test]
    fn a_stray_future_stamp_is_fenced_and_a_real_jump_is_not() {
        let base: Vec<u64> = (0..20).map(|i| 1000 * DAY + i).collect();
        let mut poisoned = base.clone();
        poisoned.insert(10, 80_000 * DAY);
        assert_eq!(run(&poisoned), (base.clone(), 1));
        let mut weekend = base.clone();
        weekend.extend((0..20).map(|i| 1003 * DAY + i));
        assert_eq!(run(&weekend), (weekend.clone(), 0));
        let mut at_start = base.clone();
        at_start.insert(0, 80_000 * DAY);
        assert_eq!(run(&at_start), (base, 1));
    }

    #[test]
    fn sparse_data_passes_whole() {
        let monthly: Vec<u64> = (0..50).map(|i| 30 * DAY * i).collect();
        assert_eq!(run(&monthly), (monthly.clone(), 0));
        let daily: Vec<u64> = (1..50).map(|i| DAY * i).collect();
        assert_eq!(run(&daily), (daily.clone(), 0));
        assert_eq!(run(&[5 * DAY]), (vec![5 * DAY], 0));
    }

    proptest! {
        /// Whatever comes, each event is passed on once in order or counted, and at most the confirm count is held.
        #[test]
        fn the_fence_balances(stamps in proptest::collection::vec(0u64..60, 0..200)) {
            let stamps: Vec<u64> = stamps.iter().enumerate().map(|(i, d)| d * DAY / 4 + i as u64).collect();
            let (out, fenced) = run(&stamps);
            prop_assert_eq!(out.len() as u64 + fenced, stamps.len() as u64);
            let mut rest = stamps.iter();
            for ts in out {
                prop_assert!(rest.any(|&other| other == ts), "order kept");
            }
        }
    }
}
