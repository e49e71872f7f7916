//! Makes a log out of a source's events: frames with their sequence, watermarks between them, absurd stamps fenced.
//!
//! A frame ends behind the event that carries the watermark over a line of the grid of [`WATERMARK_GRID_NS`], or behind
//! [`FRAME_EVENTS`] events. Both depend on the events alone, so the log, and with it every output, does not depend on how fast
//! or in which pieces the input was read. What has come of an open frame can be handed on at any time
//! ([`Sequencer::release`]): that changes when readers see events, not what the log says.

use crate::event::{Event, kind};
use crate::watermark::{Fence, FenceOptions, FenceState};

/// Events of one frame. With its MARK and WATERMARK it stays under 64 KiB.
pub const FRAME_EVENTS: usize = 2_000;

/// Lines of event time at which the watermark moves, in nanoseconds: a window that ends on one of them closes with the first
/// event that shows it complete, any other at most so much event time later.
pub const WATERMARK_GRID_NS: u64 = 10_000_000;

/// Events looked at in one go: few enough that little is looked at again behind the end of a frame.
const SCAN_EVENTS: usize = 512;

/// The newest stamp among data records; control records carry other times. Branch-free, so it vectorises.
pub(crate) fn newest_of(events: &[Event]) -> u64 {
    events.iter().fold(0, |newest, event| newest.max(if event.tells_time() { event.ts_event } else { 0 }))
}

/// How a sequencer treats time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencerOptions {
    /// How far behind the newest stamp an event may come and still be on time.
    pub disorder_ns: u64,
    /// Bounds on jumps; `None` believes every stamp.
    pub fence: Option<FenceOptions>,
    /// Rank written into the frames' control records.
    pub source: u16,
}

impl Default for SequencerOptions {
    fn default() -> Self {
        Self { disorder_ns: 0, fence: Some(FenceOptions::default()), source: 0 }
    }
}

/// A sequencer between two pushes; its options are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SequencerState {
    fence: Option<FenceState>,
    held: Vec<[u64; 4]>,
    open: Option<u64>,
    crossing: u64,
    sequence: u64,
    newest: u64,
    watermark: u64,
}

/// Turns one ordered stream of events into frames.
pub struct Sequencer {
    options: SequencerOptions,
    fence: Option<Fence>,
    admitted: Vec<Event>,
    /// Records of the open frame that nobody has seen yet.
    held: Vec<Event>,
    /// Records of the open frame behind its MARK, released or held; `None` between frames.
    open: Option<usize>,
    /// The stamp that carries the watermark over the next line of the grid.
    crossing: u64,
    sequence: u64,
    newest: u64,
    watermark: u64,
}

impl Sequencer {
    /// A sequencer at sequence 0.
    #[must_use]
    pub fn new(options: SequencerOptions) -> Self {
        Self {
            fence: options.fence.map(Fence::new),
            options,
            admitted: Vec::new(),
            held: Vec::with_capacity(FRAME_EVENTS + 2),
            open: None,
            crossing: 0,
            sequence: 0,
            newest: 0,
            watermark: 0,
        }
    }

    /// Its state, for [`Sequencer::resume`].
    #[must_use]
    pub fn state(&self) -> SequencerState {
        SequencerState {
            fence: self.fence.as_ref().map(Fence::state),
            held: self.held.iter().map(|event| zerocopy::transmute!(*event)).collect(),
            open: self.open.map(|open| open as u64),
            crossing: self.crossing,
            sequence: self.sequence,
            newest: self.newest,
            watermark: self.watermark,
        }
    }

    /// A sequencer that goes on from a state, under the same options. `None` when the state cannot be one of theirs.
    #[must_use]
    pub fn resume(options: SequencerOptions, state: &SequencerState) -> Option<Self> {
        let open = state.open.unwrap_or(0);
        if open >= FRAME_EVENTS as u64
            || state.held.len() > FRAME_EVENTS + 2
            || options.fence.is_some() != state.fence.is_some()
            || state.sequence.checked_add(open).is_none()
        {
            return None;
        }
        let mut sequencer = Self::new(options);
        if let (Some(options), Some(state)) = (options.fence, &state.fence) {
            sequencer.fence = Some(Fence::resume(options, state));
        }
        sequencer.held.extend(state.held.iter().map(|words| -> Event { zerocopy::transmute!(*words) }));
        sequencer.open = state.open.map(|open| open as usize);
        (sequencer.crossing, sequencer.sequence) = (state.crossing, state.sequence);
        (sequencer.newest, sequencer.watermark) = (state.newest, state.watermark);
        Some(sequencer)
    }

    /// Takes events in order; hands each finished frame to `emit`: MARK, events, WATERMARK (without what was released before).
    /// Control records of the input (GAP, DEFINE, BARRIER, TIME) keep their place and do not count as events.
    pub fn push(&mut self, events: &[Event], emit: &mut impl FnMut(&[Event])) {
        match &mut self.fence {
            Some(fence) => {
                if fence.passes(events) {
                    self.append(events, emit);
                } else {
                    let mut admitted = std::mem::take(&mut self.admitted);
                    for &event in events {
                        match &mut self.fence {
                            Some(fence) if event.tells_time() => fence.admit(event, &mut admitted),
                            _ => admitted.push(event),
                        }
                    }
                    self.append(&admitted, emit);
                    admitted.clear();
                    self.admitted = admitted;
                }
            }
            None => self.append(events, emit),
        }
    }

    fn append(&mut self, mut events: &[Event], emit: &mut impl FnMut(&[Event])) {
        while !events.is_empty() {
            let open = match self.open {
                Some(open) => open,
                None => {
                    let mark = [self.sequence, 0];
                    self.held.push(Event::control(kind::MARK, 0, 0, self.options.source, mark));
                    0
                }
            };
            let room = FRAME_EVENTS - open;
            let mut now = &events[..room.min(SCAN_EVENTS).min(events.len())];
            let mut newest = newest_of(now);
            let mut full = now.len() == room;
            if newest >= self.crossing && self.crossing != u64::MAX {
                let crosses = |event: &Event| event.tells_time() && event.ts_event >= self.crossing;
                // None only where all are control records, before the first event.
                if let Some(at) = now.iter().position(crosses) {
                    now = &now[..=at];
                    newest = newest_of(now);
                    full = true;
                }
            }
            self.held.extend_from_slice(now);
            self.open = Some(open + now.len());
            self.newest = self.newest.max(newest);
            events = &events[now.len()..];
            if full {
                self.close_frame(emit);
            }
        }
    }

    fn close_frame(&mut self, emit: &mut impl FnMut(&[Event])) {
        self.note_run();
        self.sequence += self.open.take().unwrap_or(0) as u64;
        let watermark = self.newest.saturating_sub(self.options.disorder_ns);
        if watermark > self.watermark {
            self.watermark = watermark;
            self.held.push(Event::control(kind::WATERMARK, watermark, 0, self.options.source, [0; 2]));
        }
        let line = (watermark / WATERMARK_GRID_NS + 1).saturating_mul(WATERMARK_GRID_NS);
        // Behind the last line there is nothing to wait for.
        self.crossing = line.saturating_add(self.options.disorder_ns);
        if !self.held.is_empty() {
            emit(&self.held);
        }
        self.held.clear();
    }

    /// Writes into a MARK not yet released how many events follow it at once, so that readers need not look.
    fn note_run(&mut self) {
        if let Some((mark, rest)) = self.held.split_first_mut()
            && mark.kind == kind::MARK
        {
            mark.key = rest.iter().position(Event::is_control).unwrap_or(rest.len()) as u32;
        }
    }

    /// Hands on what has come of the open frame, which stays open: a live source does this when nothing more waits, so that
    /// no event waits for the next.
    pub fn release(&mut self, emit: &mut impl FnMut(&[Event])) {
        if !self.held.is_empty() {
            self.note_run();
            emit(&self.held);
            self.held.clear();
        }
    }

    /// Takes events out of what waits for others to confirm its stamp: they go on elsewhere.
    pub fn take_suspects(&mut self, is: impl FnMut(&Event) -> bool) -> Vec<Event> {
        self.fence.as_mut().map(|fence| fence.take(is)).unwrap_or_default()
    }

    /// Closes the open frame early: with it the watermark reaches the newest event. For a source that says it has no more.
    pub fn flush(&mut self, emit: &mut impl FnMut(&[Event])) {
        if self.open.is_some() {
            self.close_frame(emit);
        }
    }

    /// The input ended: releases what the fence held, closes the frame, and ends the log with END.
    pub fn finish(&mut self, emit: &mut impl FnMut(&[Event])) {
        if let Some(fence) = &mut self.fence {
            let mut admitted = std::mem::take(&mut self.admitted);
            fence.finish(&mut admitted);
            self.append(&admitted, emit);
        }
        self.flush(emit);
        emit(&[Event::control(kind::END, 0, 0, self.options.source, [self.sequence, 0])]);
    }

    /// Events logged so far, those in the open frame included.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence + self.open.unwrap_or(0) as u64
    }

    /// The newest stamp of the closed frames.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Events that wait for others to confirm their stamp.
    #[cfg(test)]
    fn held_back(&self) -> u64 {
        self.fence.as_ref().map_or(0, Fence::suspects)
    }

    /// Events the fence refused.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        self.fence.as_ref().map_or(0, Fence::fenced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(stamps: &[u64], cuts: &[usize]) -> Vec<Event> {
        let events: Vec<Event> =
            stamps.iter().map(|&ts| Event { ts_event: ts, kind: kind::SAMPLE, ..Event::default() }).collect();
        let mut sequencer =
            Sequencer::new(SequencerOptions { disorder_ns: 5, ..SequencerOptions::default() });
        let mut log = Vec::new();
        let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
        let mut rest = events.as_slice();
        for &cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            sequencer.push(now, &mut emit);
            rest = later;
        }
        sequencer.push(rest, &mut emit);
        sequencer.finish(&mut emit);
        assert_eq!(sequencer.sequence() + sequencer.fenced(), stamps.len() as u64);
        log
    }

    #[test]
    fn the_last_instant_ends_no_frame_for_ever() {
        for fence in [None, Some(FenceOptions::default())] {
            let event = Event { ts_event: u64::MAX, kind: kind::SAMPLE, ..Event::default() };
            let mut sequencer = Sequencer::new(SequencerOptions { fence, ..SequencerOptions::default() });
            let mut frames = 0;
            let mut emit = |_: &[Event]| frames += 1;
            sequencer.push(&[event; 20], &mut emit);
            sequencer.finish(&mut emit);
            assert_eq!(sequencer.sequence() + sequencer.fenced(), 20);
            assert_eq!(
                sequencer.fenced(),
                if fence.is_some() { 20 } else { 0 },
                "beyond what a stamp may be"
            );
            assert!(frames <= 3);
        }
    }

    /// Found by the fuzz target `pipeline`.
    #[test]
    fn where_a_control_record_stands_in_its_chunk_does_not_show() {
        const DAY: u64 = 86_400_000_000_000;
        let data = |ts| Event { ts_event: ts, kind: kind::SAMPLE, ..Event::default() };
        let gap = |ts| Event::control(kind::GAP, ts, 0, 0, [1, 0]);
        let log = |events: &[Event], cut: usize| {
            let mut sequencer = Sequencer::new(SequencerOptions::default());
            let mut log = Vec::new();
            let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
            for part in [&events[..10], &events[10..cut], &events[cut..]] {
                sequencer.push(part, &mut emit);
            }
            sequencer.finish(&mut emit);
            log
        };
        let ordered: Vec<Event> = (0..10).map(|at| data(1_000 * DAY + at)).collect();
        let far = [gap(1_000 * DAY + DAY / 10 * 9), data(1_001 * DAY + DAY / 2), data(1_000 * DAY + 20)];
        let first =
            [data(1_000 * DAY + WATERMARK_GRID_NS), gap(0), data(1_000 * DAY + 2 * WATERMARK_GRID_NS)];
        for tail in [&far[..], &first] {
            let events = [&ordered[..], tail].concat();
            for cut in 11..13 {
                assert_eq!(log(&events, 10), log(&events, cut), "cut at {cut}");
            }
        }
    }

    proptest! {
        /// The log does not show in which pieces the input came.
        #[test]
        fn any_cutting_gives_the_same_log(
            stamps in proptest::collection::vec(0u64..3_000, 0..7_000),
            cuts in proptest::collection::vec(0usize..3_000, 0..6),
        ) {
            prop_assert_eq!(log(&stamps, &[]), log(&stamps, &cuts));
        }

        /// Nor does it show that the sequencer was saved and another went on in its place, wherever that was.
        #[test]
        fn a_resumed_sequencer_goes_on_as_if_nothing_were(
            stamps in proptest::collection::vec((0u64..40, 0u64..3 * WATERMARK_GRID_NS), 0..5_000),
            cuts in proptest::collection::vec(0usize..2_000, 0..6),
            release in proptest::bool::ANY,
        ) {
            // Some leap a day ahead, so that the fence holds something back now and then.
            let stamps: Vec<u64> = stamps
                .iter()
                .map(|&(leap, ts)| if leap == 0 { ts + 200_000_000_000_000 } else { ts + 10_000_000_000_000 })
                .collect();
            let options = SequencerOptions { disorder_ns: 5, ..SequencerOptions::default() };
            let events: Vec<Event> = stamps
                .iter()
                .map(|&ts| Event { ts_event: ts, kind: kind::SAMPLE, ..Event::default() })
                .collect();
            let mut sequencer = Sequencer::new(options);
            let (mut log, mut rest) = (Vec::new(), events.as_slice());
            let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
            for &cut in &cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                sequencer.push(now, &mut emit);
                if release {
                    sequencer.release(&mut emit);
                }
                let state = sequencer.state();
                let mut bytes = Vec::new();
                crate::snapshot::append(&mut bytes, &state);
                let state: SequencerState = crate::snapshot::read(&bytes, "sequencer").unwrap();
                sequencer = Sequencer::resume(options, &state).unwrap();
                rest = later;
            }
            sequencer.push(rest, &mut emit);
            sequencer.finish(&mut emit);
            // Counts in the heads of frames are the one thing that handing on early changes.
            let without = |log: &[Event]| -> Vec<Event> {
                log.iter().map(|event| if event.kind == kind::MARK { Event { key: 0, ..*event } } else { *event }).collect()
            };
            prop_assert_eq!(without(&log), without(&super::tests::log(&stamps, &[])));
        }

        /// Nor does it show when what had come was handed on: only the counts in the frames' heads do, and readers can do
        /// without those.
        #[test]
        fn releasing_at_any_time_gives_the_same_log(
            stamps in proptest::collection::vec(0u64..3 * WATERMARK_GRID_NS, 0..5_000),
            cuts in proptest::collection::vec(0usize..2_000, 0..8),
        ) {
            let events: Vec<Event> =
                stamps.iter().map(|&ts| Event { ts_event: ts, kind: kind::SAMPLE, ..Event::default() }).collect();
            let log = |release: bool| {
                let mut sequencer = Sequencer::new(SequencerOptions { disorder_ns: 5, ..SequencerOptions::default() });
                let mut log = Vec::new();
                let mut seen = 0;
                let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
                let mut rest = events.as_slice();
                for &cut in &cuts {
                    let (now, later) = rest.split_at(cut.min(rest.len()));
                    sequencer.push(now, &mut emit);
                    rest = later;
                    if release {
                        sequencer.release(&mut emit);
                    }
                    seen += now.len() as u64;
                    assert_eq!(sequencer.sequence() + sequencer.fenced() + sequencer.held_back(), seen);
                }
                sequencer.push(rest, &mut emit);
                sequencer.finish(&mut emit);
                for record in log.iter_mut().filter(|record| record.kind == kind::MARK) {
                    record.key = 0;
                }
                log
            };
            prop_assert_eq!(log(false), log(true));
        }

        /// The watermark is never further behind what has been seen than a line of the grid, or a frame's events.
        #[test]
        fn the_watermark_keeps_up(stamps in proptest::collection::vec(0u64..9 * WATERMARK_GRID_NS, 1..3_000)) {
            let (mut newest, mut watermark) = (0, 0);
            for event in log(&stamps, &[]) {
                match event.kind {
                    kind::WATERMARK => watermark = event.ts_event,
                    kind::SAMPLE => newest = newest.max(event.ts_event),
                    kind::MARK => prop_assert!(newest.saturating_sub(5) / WATERMARK_GRID_NS <= watermark / WATERMARK_GRID_NS),
                    _ => {}
                }
            }
        }

        /// Nor when losses are declared between the events and time jumps past the fence.
        #[test]
        fn any_cutting_of_a_troubled_input_gives_the_same_log(
            steps in proptest::collection::vec((0u64..6, 0u64..40), 0..300),
            cuts in proptest::collection::vec(1usize..40, 0..12),
        ) {
            const STEPS_NS: [u64; 4] = [1, 40_000_000, 200_000_000, 20_000_000_000_000];
            let mut ts = 0;
            let events = steps.iter().map(|&(what, count)| {
                ts += STEPS_NS[(what % 4) as usize] * count;
                let kind = if what >= 4 { kind::GAP } else { kind::SAMPLE };
                // A loss is told with another time than that of the events around it.
                let ts_event = if kind == kind::GAP { ts + 20_000_000_000_000 * count } else { ts };
                Event { ts_event, kind, ..Event::default() }
            });
            let events: Vec<Event> = events.collect();
            let log = |cuts: &[usize]| {
                let mut sequencer = Sequencer::new(SequencerOptions::default());
                let (mut log, mut rest) = (Vec::new(), events.as_slice());
                let mut emit = |frame: &[Event]| log.extend_from_slice(frame);
                for &cut in cuts {
                    let (now, later) = rest.split_at(cut.min(rest.len()));
                    sequencer.push(now, &mut emit);
                    rest = later;
                }
                sequencer.push(rest, &mut emit);
                sequencer.finish(&mut emit);
                log
            };
            prop_assert_eq!(log(&[]), log(&cuts));
        }

        /// A word about the time is to watermarks what an event of that time is, absurd stamps included.
        #[test]
        fn words_about_the_time_move_watermarks_as_events_do(
            stamps in proptest::collection::vec((0u64..60, any::<bool>()), 0..600),
            jump_at in 0usize..600,
        ) {
            const DAY_NS: u64 = 86_400_000_000_000;
            let kinds = |time: u8| -> Vec<Event> {
                let mut at = 1_000 * DAY_NS;
                let stamped = stamps.iter().enumerate().map(|(number, &(step, tells))| {
                    at += step * 1_000_000;
                    let ts_event = if number == jump_at { at + 9 * DAY_NS } else { at };
                    Event { ts_event, kind: if tells { time } else { kind::SAMPLE }, ..Event::default() }
                });
                stamped.collect()
            };
            let watermarks = |events: &[Event]| -> Vec<u64> {
                let mut sequencer = Sequencer::new(SequencerOptions::default());
                let mut marks = Vec::new();
                let mut emit = |frame: &[Event]| {
                    marks.extend(frame.iter().filter(|record| record.kind == kind::WATERMARK).map(|record| record.ts_event));
                };
                sequencer.push(events, &mut emit);
                sequencer.finish(&mut emit);
                let data = events.iter().filter(|event| !event.is_control()).count() as u64;
                assert!(sequencer.fenced() <= data, "what is refused is counted, words are not");
                marks
            };
            prop_assert_eq!(watermarks(&kinds(kind::TIME)), watermarks(&kinds(kind::SAMPLE)));
        }

        /// After a watermark, no frame holds an event older than it by more than the source's own lateness allows.
        #[test]
        fn sorted_input_is_never_late(mut stamps in proptest::collection::vec(0u64..9_000_000, 0..9_000)) {
            stamps.sort_unstable();
            let mut watermark = 0;
            for event in log(&stamps, &[]) {
                match event.kind {
                    kind::WATERMARK => {
                        prop_assert!(event.ts_event > watermark);
                        watermark = event.ts_event;
                    }
                    kind::SAMPLE => prop_assert!(event.ts_event >= watermark),
                    _ => {}
                }
            }
        }
    }
}
