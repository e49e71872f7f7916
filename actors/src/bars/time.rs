//! Tumbling bars of event time.

use super::acc::{Acc, Aligned, EMPTY};
use super::history::History;
use super::retained::{Retained, RetainedState};
use super::{BarOptions, LatePolicy};
use crate::regroup::{Dues, count};
use rkyv::with::{AsOwned, Map};
use std::borrow::Cow;
use std::collections::VecDeque;
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{
    BarState, Cause, Context, Emit, Event, Fate, KeyMeta, Ledger, Operator, Output, Share, ShareError, Table,
    WindowWidth, flag, kind, output_kind,
};

const NONE: u32 = u32::MAX;
const SECTION: &str = "time bars";

/// Windows a key may hold open beside its newest one. Disorder within the watermark's bound needs
/// `disorder / width + 1`; more is a broken clock at the source.
const PARKED_PER_KEY_MAX: u32 = 64;

/// A window that is open but no longer its key's newest.
#[derive(Clone, Copy, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Parked {
    acc: Acc,
    /// Next parked window of the key, or of the free list.
    next: u32,
}

/// The keys that opened a window, in the order they did: closing walks this, not all keys.
#[derive(Clone, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Due {
    start: u64,
    keys: Vec<u32>,
}

/// OHLC, volume, exact notional and count per key and window of `width`, aligned to the epoch.
///
/// A window closes when the watermark reaches its end. The newest window of each key sits in one flat array; older open
/// windows (disorder) are parked in a slab; closed ones stay amendable for the horizon.
pub struct TimeBars {
    width: u64,
    options: BarOptions,
    newest: Table<Aligned>,
    parked: Vec<Parked>,
    parked_head: Table<u32>,
    parked_free: u32,
    due: VecDeque<Due>,
    due_spare: Vec<Vec<u32>>,
    retained: Retained,
    history: History,
    /// Newest stamp seen so far, of any key: only decides which of two equal loops runs.
    newest_ts: u64,
    ledger: Ledger,
}

/// Bars whose memory is asked for before the first of them is closed.
const TOUCHED_AHEAD: usize = 32;

/// Keys whose bars lie in a core's own cache.
const NEAR_KEYS: usize = 8_192;

/// Events whose bars are asked for at once when there are more keys.
const EVENTS_AHEAD: usize = 32;

/// Events the slower loop takes after time went back, before the faster one is tried again.
const DISORDERED_RUN: usize = 512;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct State<'a> {
    width: u64,
    #[rkyv(with = AsOwned)]
    newest: Cow<'a, [Aligned]>,
    #[rkyv(with = AsOwned)]
    parked: Cow<'a, [Parked]>,
    #[rkyv(with = AsOwned)]
    parked_head: Cow<'a, [u32]>,
    parked_free: u32,
    due: Vec<Due>,
    retained: RetainedState<'a>,
    #[rkyv(with = Map<AsOwned>)]
    history: Vec<Cow<'a, [[u64; 4]]>>,
    history_cut: u64,
    newest_ts: u64,
    delivered: u64,
    by_fate: [u64; tidegate_engine::ledger::FATE_COUNT],
}

/// Key, source, kind and flags of an event as the one word they are, so that the loop loads them once and one compare
/// finds a plain trade.
#[derive(Clone, Copy)]
pub(super) struct Head(u64);

impl Head {
    const PLAIN_MASK: u64 = (0xff | (flag::TRADE_SPECIAL as u64) << 8) << 48;
    const PLAIN: u64 = (kind::TRADE as u64) << 48;

    #[inline(always)]
    pub(super) fn of(event: &Event) -> Self {
        let words: &[u64; 4] = zerocopy::transmute_ref!(event);
        Self(words[1])
    }

    #[inline(always)]
    pub(super) fn key(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline(always)]
    pub(super) fn flags(self) -> u8 {
        (self.0 >> 56) as u8
    }

    #[inline(always)]
    pub(super) fn is_plain_trade(self) -> bool {
        self.0 & Self::PLAIN_MASK == Self::PLAIN
    }
}

impl TimeBars {
    /// Bars of `width`.
    #[must_use]
    pub fn new(width: WindowWidth, options: BarOptions) -> Self {
        Self {
            width: width.ns(),
            options,
            newest: Table::new(),
            parked: Vec::new(),
            parked_head: Table::new(),
            parked_free: NONE,
            due: VecDeque::new(),
            due_spare: Vec::new(),
            retained: Retained::new(options.retained_bars_max),
            history: History::new(options.history_events_max),
            newest_ts: 0,
            ledger: Ledger::default(),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<State<'static>, SnapshotError> {
        let state: State<'static> = snapshot::read(bytes, SECTION)?;
        if state.width != self.width {
            return Err(SnapshotError::Section { section: SECTION, problem: "of another width" });
        }
        Ok(state)
    }

    /// Bytes of state per key that is always there, without what disorder and retention add.
    pub const BYTES_PER_KEY: usize = size_of::<Acc>() + size_of::<u32>() * 2 + size_of::<u64>();

    fn grow(&mut self, keys: usize) {
        if self.newest.len() < keys {
            self.newest.resize(keys, Aligned::VACANT);
            self.parked_head.resize(keys, NONE);
            self.retained.grow(keys);
        }
    }

    /// The bar of `key` as it stands now, forming: what it would be if the window closed at once. `None` when no
    /// window is open.
    #[must_use]
    pub fn peek(&self, context: &Context, key: u32) -> Option<Output> {
        let acc = self.newest.get(key as usize).filter(|acc| acc.is_open())?;
        let bounds = (acc.start, acc.start + self.width);
        Some(acc.output(context, key, bounds, BarState::Forming, Cause::Watermark, 0))
    }

    /// Applies events, by the faster loop as long as time does not go back.
    fn apply(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        let mut at = 0;
        while at < events.len() {
            at += self.apply_ordered(context, &events[at..], out);
            // Time went back. Whoever does that once tends to go on, so the loop for it takes a while.
            let run = DISORDERED_RUN.min(events.len() - at);
            self.apply_any(context, &events[at..at + run], out);
            at += run;
        }
    }

    /// Asks for the bars of these events' keys all at once, so that the waits for them overlap.
    fn touch_newest(&self, events: &[Event]) {
        let mut sum = 0;
        for event in events {
            if let Some(acc) = self.newest.get(event.key as usize) {
                // A word of each of its cache lines.
                sum ^= acc.start ^ acc.frame_last;
            }
        }
        std::hint::black_box(sum);
    }

    /// The loop for events none of which is older than any before it: each is its bar's newest. Returns how many it
    /// took; the next one, if any, goes back in time.
    fn apply_ordered(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) -> usize {
        let frame = context.frame();
        let width = self.width;
        let mut at = 0;
        let mut last_ts = self.newest_ts;
        loop {
            // The loop below holds only the array; the cold path needs all of `self`, so it ends the loop.
            let newest = &mut *self.newest;
            let rest = &events[at..];
            let mut done = rest.len();
            for (index, event) in rest.iter().enumerate() {
                let head = Head::of(event);
                let Some(acc) = newest.get_mut(head.key()) else {
                    done = index;
                    break;
                };
                let ts = event.ts_event;
                if !head.is_plain_trade() || ts.wrapping_sub(acc.start) >= width || ts < last_ts {
                    done = index;
                    break;
                }
                last_ts = ts;
                acc.add_newest(event, head.flags(), frame);
            }
            self.remember(&rest[..done]);
            at += done;
            self.newest_ts = last_ts;
            let Some(event) = events.get(at) else { return at };
            if event.ts_event < last_ts {
                return at;
            }
            self.other(context, event, out);
            last_ts = event.ts_event;
            at += 1;
        }
    }

    /// The loop for events in any order.
    fn apply_any(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        let frame = context.frame();
        let width = self.width;
        let mut at = 0;
        while at < events.len() {
            let newest = &mut *self.newest;
            let rest = &events[at..];
            let mut done = rest.len();
            let mut newest_ts = self.newest_ts;
            for (index, event) in rest.iter().enumerate() {
                let head = Head::of(event);
                let Some(acc) = newest.get_mut(head.key()) else {
                    done = index;
                    break;
                };
                if !head.is_plain_trade() || event.ts_event.wrapping_sub(acc.start) >= width {
                    done = index;
                    break;
                }
                newest_ts = newest_ts.max(event.ts_event);
                acc.add(event, frame);
            }
            self.newest_ts = newest_ts;
            self.remember(&rest[..done]);
            at += done;
            if let Some(event) = events.get(at) {
                self.other(context, event, out);
                self.newest_ts = self.newest_ts.max(event.ts_event);
                at += 1;
            }
        }
    }

    /// Everything but a plain trade for the key's newest window.
    #[inline(never)]
    fn other(&mut self, context: &Context, event: &Event, out: &mut Emit<'_>) {
        // Most of all: the key's first trade in the window that the others are in already.
        let head = Head::of(event);
        if let Some(newest) = self.newest.get_mut(head.key())
            && let Some(due) = self.due.back_mut()
            && newest.start == EMPTY
            && head.is_plain_trade()
            && event.ts_event.wrapping_sub(due.start) < self.width
            && self.parked_head[head.key()] == NONE
        {
            newest.0 = Acc::at(due.start, context.frame());
            newest.add(event, context.frame());
            due.keys.push(event.key);
            return self.remember(std::slice::from_ref(event));
        }
        self.rare(context, event, out);
    }

    #[cold]
    #[inline(never)]
    fn rare(&mut self, context: &Context, event: &Event, out: &mut Emit<'_>) {
        if event.kind != kind::TRADE {
            return self.ledger.count(Fate::NotMine);
        }
        if event.key as usize >= self.newest.len() {
            return self.ledger.count(Fate::Undefined);
        }
        if event.flags & flag::CANCEL != 0 {
            return self.cancel(context, event, out);
        }
        let correction = event.flags & flag::CORRECTION != 0;
        let start = event.ts_event - event.ts_event % self.width;
        if start + self.width <= context.watermark() {
            return self.late(context, event, start, correction, out);
        }
        match self.open_window(context, event.key, start) {
            Some(acc) => {
                acc.add(event, context.frame());
                self.remember(std::slice::from_ref(event));
                if correction {
                    self.ledger.count(Fate::Corrected);
                }
            }
            None => self.ledger.count(Fate::OverBound),
        }
    }

    /// The open window of `key` at `start`, opened if need be.
    fn open_window(&mut self, context: &Context, key: u32, start: u64) -> Option<&mut Acc> {
        let at = key as usize;
        let newest = self.newest[at].start;
        if newest == start {
            return Some(&mut self.newest[at]);
        }
        let mut next = self.parked_head[at];
        while next != NONE {
            if self.parked[next as usize].acc.start == start {
                return Some(&mut self.parked[next as usize].acc);
            }
            next = self.parked[next as usize].next;
        }
        if newest == EMPTY || start > newest {
            if newest != EMPTY {
                let parked = self.park(key)?;
                self.parked[parked as usize].acc = self.newest[at].0;
            }
            self.newest[at].0 = Acc::at(start, context.frame());
            self.note_due(key, start);
            return Some(&mut self.newest[at]);
        }
        let parked = self.park(key)?;
        self.parked[parked as usize].acc = Acc::at(start, context.frame());
        self.note_due(key, start);
        Some(&mut self.parked[parked as usize].acc)
    }

    /// Links a fresh parked place to the key, unless it holds too many.
    fn park(&mut self, key: u32) -> Option<u32> {
        let mut held = 0;
        let mut next = self.parked_head[key as usize];
        while next != NONE {
            held += 1;
            next = self.parked[next as usize].next;
        }
        if held >= PARKED_PER_KEY_MAX {
            return None;
        }
        let place = if self.parked_free == NONE {
            self.parked.push(Parked { acc: Acc::VACANT, next: NONE });
            self.parked.len() as u32 - 1
        } else {
            let place = self.parked_free;
            self.parked_free = self.parked[place as usize].next;
            place
        };
        self.parked[place as usize].next = self.parked_head[key as usize];
        self.parked_head[key as usize] = place;
        Some(place)
    }

    fn note_due(&mut self, key: u32, start: u64) {
        // Almost always the last list, or a new one behind it.
        let at = self.due.iter().rposition(|due| due.start <= start).map_or(0, |at| at + 1);
        if at > 0 && self.due[at - 1].start == start {
            self.due[at - 1].keys.push(key);
            return;
        }
        let mut keys = self.due_spare.pop().unwrap_or_default();
        keys.push(key);
        self.due.insert(at, Due { start, keys });
    }

    /// Reads a word of each cache line that closing the bars of `keys` needs. Keys come in no order that a prefetcher knows;
    /// here their loads wait side by side, and not one bar after the other.
    fn touch(&self, context: &Context, keys: &[u32]) {
        let mut seen = 0;
        for &key in keys {
            let newest = &self.newest[key as usize];
            seen ^= newest.start
                ^ newest.frame_last
                ^ context.keys()[key as usize].name
                ^ self.retained.last_of(key);
        }
        std::hint::black_box(seen);
    }

    /// Removes and returns the parked window of `key` at `start`.
    fn take_parked(&mut self, key: u32, start: u64) -> Option<Acc> {
        let at = key as usize;
        let (mut before, mut next) = (NONE, self.parked_head[at]);
        while next != NONE {
            let Parked { acc, next: after } = self.parked[next as usize];
            if acc.start == start {
                if before == NONE {
                    self.parked_head[at] = after;
                } else {
                    self.parked[before as usize].next = after;
                }
                self.parked[next as usize].next = self.parked_free;
                self.parked_free = next;
                return Some(acc);
            }
            (before, next) = (next, after);
        }
        None
    }

    fn late(&mut self, context: &Context, event: &Event, start: u64, correction: bool, out: &mut Emit<'_>) {
        let end = start + self.width;
        let policy = if correction { LatePolicy::Amend } else { self.options.late };
        match policy {
            LatePolicy::Drop => return self.ledger.count(Fate::LateDropped),
            LatePolicy::Side => {
                out.push(late_record(context, event));
                return self.ledger.count(Fate::LateSide);
            }
            LatePolicy::Amend => {}
        }
        if end.saturating_add(self.options.horizon_ns) <= context.watermark() {
            return self.ledger.count(Fate::TooLate);
        }
        let cause = if correction { Cause::Correction } else { Cause::Late };
        match self.retained.find(event.key, |bar| bar.acc.start == start) {
            Some(index) => {
                if let Some(bar) = self.retained.get_mut(index) {
                    bar.acc.add(event, context.frame());
                    bar.revision += 1;
                    let bounds = (start, end);
                    out.push(bar.acc.output(
                        context,
                        event.key,
                        bounds,
                        BarState::Amended,
                        cause,
                        bar.revision,
                    ));
                }
            }
            // Its bar may have been let go for want of memory; a second first version of it would be wrong.
            None if self.retained.may_have_cut(end) => return self.ledger.count(Fate::TooLate),
            None => {
                // The window had no trade in time: this is its first version, late but final.
                let mut acc = Acc::at(start, context.frame());
                acc.add(event, context.frame());
                out.push(acc.output(context, event.key, (start, end), BarState::Final, cause, 0));
                self.retained.push(&acc, event.key, end, 0);
            }
        }
        self.remember(std::slice::from_ref(event));
        self.ledger.count(if correction { Fate::Corrected } else { Fate::LateAmended });
    }

    /// Keeps applied trades for cancels to come.
    #[inline]
    fn remember(&mut self, events: &[Event]) {
        if self.options.history {
            self.history.push(events);
        }
    }

    fn cancel(&mut self, context: &Context, event: &Event, out: &mut Emit<'_>) {
        let (key, start) = (event.key, event.ts_event - event.ts_event % self.width);
        // By event time alone; how long a trade happens to stay in the history must not show.
        if (start + self.width).saturating_add(self.options.horizon_ns) <= context.watermark() {
            return self.ledger.count(Fate::Unmatched);
        }
        let Some((trade, after)) = self.history.find(event) else {
            return self.ledger.count(Fate::Unmatched);
        };
        self.history.bury(key, after);
        let (width, history) = (self.width, &self.history);
        let amend = |acc: &mut Acc| {
            let rebuild = acc.needs_rebuild(&trade);
            acc.subtract(&trade);
            if rebuild {
                // Newest first from the log; prices want log order.
                let mut trades: Vec<&Event> = history
                    .trades_of(key)
                    .map(|(_, event)| event)
                    .filter(|event| event.ts_event.wrapping_sub(start) < width)
                    .collect();
                trades.reverse();
                acc.rebuild_prices(trades.into_iter());
            }
        };
        let mut next = self.parked_head[key as usize];
        if self.newest[key as usize].start == start {
            let newest = &mut self.newest[key as usize].0;
            amend(newest);
            if newest.trades == 0 {
                // The loop takes an open newest bar to hold a trade; an emptied one opens anew with its next.
                newest.vacate();
            }
            return self.ledger.count(Fate::Cancelled);
        }
        while next != NONE {
            let parked = &mut self.parked[next as usize];
            if parked.acc.start == start {
                amend(&mut parked.acc);
                return self.ledger.count(Fate::Cancelled);
            }
            next = parked.next;
        }
        let end = start + self.width;
        let found = self.retained.find(key, |bar| bar.acc.start == start);
        match found.and_then(|index| self.retained.get_mut(index)) {
            Some(bar) => {
                amend(&mut bar.acc);
                bar.revision += 1;
                let (state, cause) = (BarState::Amended, Cause::Cancel);
                out.push(bar.acc.output(context, key, (start, end), state, cause, bar.revision));
                self.ledger.count(Fate::Cancelled);
            }
            None => self.ledger.count(Fate::Unmatched),
        }
    }
}

/// A trade set aside, as it came.
pub(crate) fn late_record(context: &Context, event: &Event) -> Output {
    let meta: KeyMeta = context.keys()[event.key as usize];
    let mut output = Output {
        name: meta.name,
        ts: event.ts_event,
        slot: meta.slot,
        kind: output_kind::LATE,
        state: BarState::Final as u8,
        cause: Cause::Late as u8,
        count: 5,
        key: event.key,
        ..Output::default()
    };
    output.words[..5].copy_from_slice(&[
        event.ts_event,
        event.payload[0],
        event.payload[1],
        u64::from(event.flags),
        context.frame(),
    ]);
    output
}

impl Operator for TimeBars {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        self.grow(context.keys().len());
        let counted = self.ledger.counted();
        // With few keys what an event touches is near already, and asking for it would only cost.
        if self.newest.len() <= NEAR_KEYS {
            self.apply(context, events, out);
        } else {
            for part in events.chunks(EVENTS_AHEAD) {
                self.touch_newest(part);
                self.apply(context, part, out);
            }
        }
        self.ledger.close_batch(events.len() as u64, counted);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        let watermark = context.watermark();
        let cause = if context.ended() {
            Cause::End
        } else if context.idle_close() {
            Cause::Idle
        } else {
            Cause::Watermark
        };
        let mut closed_any = false;
        while self.due.front().is_some_and(|due| due.start + self.width <= watermark) {
            let Some(Due { start, mut keys }) = self.due.pop_front() else { break };
            closed_any = true;
            let end = start + self.width;
            for (at, &key) in keys.iter().enumerate() {
                if at % TOUCHED_AHEAD == 0 {
                    self.touch(context, &keys[at..keys.len().min(at + TOUCHED_AHEAD)]);
                }
                let parked;
                let acc: &Acc = if self.newest[key as usize].start == start {
                    &self.newest[key as usize]
                } else if let Some(acc) = self.take_parked(key, start) {
                    parked = acc;
                    &parked
                } else {
                    continue; // emptied by cancels and opened anew: closed by its later entry
                };
                // Only cancels can have emptied it; a bar nobody saw need not be withdrawn, or kept.
                if acc.trades > 0 {
                    out.push_with(|output| {
                        acc.fill(context, key, (start, end), BarState::Final, cause, 0, output);
                    });
                    if self.options.horizon_ns > 0 {
                        self.retained.push(acc, key, end, 0);
                    }
                }
                let newest = &mut self.newest[key as usize];
                if newest.start == start {
                    newest.vacate();
                }
            }
            keys.clear();
            self.due_spare.push(keys);
        }
        if closed_any {
            let horizon = self.options.horizon_ns;
            self.retained.evict(|end| end.saturating_add(horizon) <= watermark);
            if self.options.history {
                self.history.evict_before(watermark.saturating_sub(self.width + horizon));
            }
        }
    }

    fn ledger(&self) -> Ledger {
        self.ledger
    }

    fn cut(&self) -> u64 {
        self.retained.cut() + self.history.cut()
    }

    fn save(&self, bytes: &mut Vec<u8>) {
        let (history, history_cut) = self.history.save();
        let state = State {
            width: self.width,
            newest: Cow::Borrowed(&self.newest),
            parked: Cow::Borrowed(&self.parked),
            parked_head: Cow::Borrowed(&self.parked_head),
            parked_free: self.parked_free,
            due: self.due.iter().cloned().collect(),
            retained: self.retained.save(),
            history,
            history_cut,
            newest_ts: self.newest_ts,
            delivered: self.ledger.delivered,
            by_fate: self.ledger.by_fate,
        };
        snapshot::append(bytes, &state);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let state = self.read(bytes)?;
        self.newest = state.newest.into_owned().into();
        self.parked = state.parked.into_owned();
        self.parked_head = state.parked_head.into_owned().into();
        self.parked_free = state.parked_free;
        self.due = state.due.into();
        self.retained.restore(state.retained);
        self.history.restore(&state.history, state.history_cut);
        self.newest_ts = state.newest_ts;
        self.ledger = Ledger { delivered: state.delivered, by_fate: state.by_fate };
        Ok(())
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        self.grow(keys.len());
        let (mut parked, mut dues) = (Vec::new(), Dues::default());
        let (mut retained, mut history) = (self.retained.regroup(keys), self.history.regroup(keys));
        for share in shares {
            let state = self.read(share.state())?;
            for (old, new) in share.keys() {
                if let Some(newest) = state.newest.get(old) {
                    self.newest[new] = *newest;
                }
                let mut next = state.parked_head.get(old).copied().unwrap_or(NONE);
                for _ in 0..PARKED_PER_KEY_MAX {
                    let Some(window) = state.parked.get(next as usize) else { break };
                    parked.push((new, window.acc));
                    next = window.next;
                }
                if next != NONE {
                    return Err(
                        SnapshotError::Section { section: SECTION, problem: "not valid state" }.into()
                    );
                }
            }
            for Due { start, keys } in &state.due {
                dues.take(*start, keys, share);
            }
            retained.take(&state.retained, share);
            history.take(&state.history, state.history_cut, share);
            // A bound for the stamps of all its keys, wherever they are now.
            self.newest_ts = self.newest_ts.max(state.newest_ts);
            count(&mut self.ledger, share, state.delivered, state.by_fate);
        }
        // In the order of the keys, and of each key as its share had them: the first is found first.
        parked.sort_by_key(|(key, _)| *key);
        for (place, (key, acc)) in parked.iter().enumerate() {
            let more = parked.get(place + 1).is_some_and(|(next, _)| next == key);
            self.parked.push(Parked { acc: *acc, next: if more { place as u32 + 1 } else { NONE } });
            if self.parked_head[*key] == NONE {
                self.parked_head[*key] = place as u32;
            }
        }
        self.due = dues.sorted(keys).map(|(start, keys)| Due { start, keys }).collect();
        self.retained = retained.finish();
        self.history = history.finish();
        Ok(())
    }
}
