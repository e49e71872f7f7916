//! Roll-up: bars of a finer time stream merged into wider windows (1s -> 1m -> 1h), tumbling or sliding.
//!
//! **Invariant:** merging is exact, so a rolled bar equals the bar computed from the trades directly. Two things only the trades
//! tell: `missing` counts a loss once for each slice with trades that it touches (in others it is not seen), and the
//! frames of trades that were taken back again.

use crate::regroup::trim;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use tidegate_engine::output::split;
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{
    Analyzer, BarState, BarWords, Cause, Emit, KeyMeta, Output, Share, ShareError, WindowWidth, output_kind,
};

/// Which windows over which slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollUpOptions {
    /// Stream of the slices.
    pub stream: u16,
    /// Width of a slice: a time bar aligned to the epoch.
    pub slice: WindowWidth,
    /// Slices per window, `1..=`[`RollUp::SLICES_MAX`].
    pub slices: u32,
    /// Slices from one window's start to the next one's, `1..=slices`. Equal to `slices` for tumbling windows; less for
    /// sliding windows, which share their slices.
    pub step: u32,
    /// Windows that stay amendable after they closed, per key.
    pub horizon: u32,
}

/// Why a roll-up was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RollUpError {
    /// No slices, or more than are kept.
    #[error("{slices} slices per window is outside 1 to {}", RollUp::SLICES_MAX)]
    Slices {
        /// Slices asked for.
        slices: u32,
    },
    /// Windows that stand still or leave holes.
    #[error("a step of {step} slices is outside 1 to the window's {slices}")]
    Step {
        /// Step asked for.
        step: u32,
        /// Slices per window.
        slices: u32,
    },
    /// The window would be longer than a window may be.
    #[error("{slices} slices of {slice_ns} ns are longer than {} ns", WindowWidth::NS_MAX)]
    TooWide {
        /// Slices per window.
        slices: u32,
        /// Width of a slice.
        slice_ns: u64,
    },
    /// More history than is kept.
    #[error("a horizon of {horizon} windows is more than {}", RollUp::HORIZON_MAX)]
    Horizon {
        /// Windows asked for.
        horizon: u32,
    },
}

/// One slice as last seen.
#[derive(Clone, Copy, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Slice {
    start: u64,
    words: [u64; 16],
}

#[derive(Clone, Default)]
struct KeyState {
    name: u64,
    slot: u16,
    /// End of the earliest open window; 0 for none.
    due: u64,
    /// End under which the key waits in the heap, at or before `due`; 0 for none. Entries do not follow every change.
    queued: u64,
    /// Windows up to this end were closed ahead of the watermark because the key held too many slices.
    closed_early: u64,
    /// By start.
    slices: VecDeque<Slice>,
    /// Number and revision of closed windows that may still be amended, by number.
    revisions: VecDeque<(u64, u32)>,
}

const SECTION: &str = "roll-up";

#[derive(Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct SavedKey {
    head: [u64; 4],
    slices: Vec<Slice>,
    revisions: Vec<(u64, u32)>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Saved {
    shape: [u64; 5],
    watermark: u64,
    beyond_horizon: u64,
    keys: Vec<SavedKey>,
}

/// Merges slices into windows. A window closes when the watermark reaches its end, whether or not its key is still
/// active; windows that close together are written by (end, name). An amended slice writes the windows it belongs to
/// again, as amended, with the next revision.
pub struct RollUp {
    options: RollUpOptions,
    slice_ns: u64,
    window_ns: u64,
    step_ns: u64,
    keys: Vec<KeyState>,
    /// (end, name, key) of each key's earliest open window.
    due: BinaryHeap<Reverse<(u64, u64, u32)>>,
    watermark: u64,
    beyond_horizon: u64,
}

impl RollUp {
    /// Most slices per window: an hour of seconds. Wider windows chain roll-ups.
    pub const SLICES_MAX: u32 = 3_600;
    /// Most windows kept amendable.
    pub const HORIZON_MAX: u32 = 10_000;

    /// A roll-up with nothing open.
    ///
    /// # Errors
    /// [`RollUpError`] naming the range that was left.
    pub fn new(options: RollUpOptions) -> Result<Self, RollUpError> {
        let RollUpOptions { slices, step, horizon, .. } = options;
        let slice_ns = options.slice.ns();
        if slices == 0 || slices > Self::SLICES_MAX {
            return Err(RollUpError::Slices { slices });
        }
        if step == 0 || step > slices {
            return Err(RollUpError::Step { step, slices });
        }
        if horizon > Self::HORIZON_MAX {
            return Err(RollUpError::Horizon { horizon });
        }
        let window_ns = slice_ns.saturating_mul(u64::from(slices));
        if window_ns > WindowWidth::NS_MAX {
            return Err(RollUpError::TooWide { slices, slice_ns });
        }
        Ok(Self {
            options,
            slice_ns,
            window_ns,
            step_ns: slice_ns * u64::from(step),
            keys: Vec::new(),
            due: BinaryHeap::new(),
            watermark: 0,
            beyond_horizon: 0,
        })
    }

    /// Amended slices that came after a window of theirs stopped being amendable: that window is as it was.
    #[must_use]
    pub fn beyond_horizon(&self) -> u64 {
        self.beyond_horizon
    }

    /// Slices a key may hold before its finished windows close ahead of the watermark: what open and amendable
    /// windows need, and one window more.
    fn held_max(&self) -> usize {
        let RollUpOptions { slices, step, horizon, .. } = self.options;
        (2 * slices + step * (horizon + 1)) as usize
    }

    fn end_of(&self, window: u64) -> u64 {
        (window * self.step_ns).saturating_add(self.window_ns)
    }

    /// First window that is still open when all up to `closed` have closed.
    fn first_open(&self, closed: u64) -> u64 {
        if closed < self.window_ns { 0 } else { (closed - self.window_ns) / self.step_ns + 1 }
    }

    /// Windows that hold the slice at `start`: first and last.
    fn windows_of(&self, start: u64) -> (u64, u64) {
        let first = if start < self.window_ns { 0 } else { (start - self.window_ns) / self.step_ns + 1 };
        (first, start / self.step_ns)
    }

    fn take_slice(&mut self, output: &Output, out: &mut Emit<'_>) {
        let words = output.bar();
        let at = output.key as usize;
        if at >= self.keys.len() {
            self.keys.resize_with(at + 1, KeyState::default);
        }
        let start = words.ts_open - words.ts_open % self.slice_ns;
        let (first, last) = self.windows_of(start);
        let key = &self.keys[at];
        let closed = self.watermark.max(key.closed_early);
        let first_open = self.first_open(closed);
        let first_kept = first_open.saturating_sub(u64::from(self.options.horizon));
        if first < first_kept {
            self.beyond_horizon += 1;
        }
        if last < first_kept {
            return;
        }
        let key = &mut self.keys[at];
        (key.name, key.slot) = (output.name, output.slot);
        let slice = Slice { start, words: output.words };
        match key.slices.back() {
            Some(newest) if newest.start >= start => {
                let place = key.slices.partition_point(|held| held.start < start);
                match key.slices.get_mut(place) {
                    Some(held) if held.start == start => *held = slice,
                    _ => key.slices.insert(place, slice),
                }
            }
            _ => key.slices.push_back(slice),
        }
        for window in first.max(first_kept)..first_open.min(last + 1) {
            self.amend(output, window, out);
        }
        if last >= first_open {
            self.schedule(output.key, self.end_of(first.max(first_open)));
        }
        if self.keys[at].slices.len() > self.held_max() {
            // The key's own bars are in order, so nothing on time can come for a window that ends by this one's start.
            self.close_early(output.key, start, out);
        }
    }

    fn amend(&mut self, output: &Output, window: u64, out: &mut Emit<'_>) {
        let end = self.end_of(window);
        let key = &mut self.keys[output.key as usize];
        let place = key.revisions.partition_point(|&(number, _)| number < window);
        let (state, revision) = match key.revisions.get_mut(place) {
            Some((number, revision)) if *number == window => {
                *revision += 1;
                (BarState::Amended, *revision)
            }
            _ => {
                // The window was empty when it closed: this is its first version, late but final.
                key.revisions.insert(place, (window, 0));
                (BarState::Final, 0)
            }
        };
        let merged = merge(&key.slices, window * self.step_ns, end);
        let bar = BarWords { revision, ..merged };
        out.push(record(key, output.key, end, state, output.cause, bar));
    }

    /// Puts the key into the heap for a window that ends at `end`, unless it already waits for an earlier one.
    fn schedule(&mut self, key: u32, end: u64) {
        let state = &mut self.keys[key as usize];
        if state.due == 0 || end < state.due {
            state.due = end;
        }
        if state.queued == 0 || state.due < state.queued {
            state.queued = state.due;
            self.due.push(Reverse((state.due, state.name, key)));
        }
    }

    /// Closes the window of `key` that ends at `end`, and finds the next one it waits for.
    fn close(&mut self, key: u32, end: u64, cause: Cause, out: &mut Emit<'_>) {
        let window = (end - self.window_ns) / self.step_ns;
        let start = window * self.step_ns;
        let state = &mut self.keys[key as usize];
        let bar = merge(&state.slices, start, end);
        // Cancels may have emptied it; a window nobody saw need not be withdrawn.
        if bar.trades > 0 {
            let revision_place = state.revisions.partition_point(|&(number, _)| number < window);
            state.revisions.insert(revision_place, (window, 0));
            out.push(record(state, key, end, BarState::Final, cause as u8, bar));
        }
        let first_kept = (window + 1).saturating_sub(u64::from(self.options.horizon));
        let keep_from = first_kept * self.step_ns;
        let state = &mut self.keys[key as usize];
        while state.slices.front().is_some_and(|slice| slice.start < keep_from) {
            state.slices.pop_front();
        }
        while state.revisions.front().is_some_and(|&(number, _)| number < first_kept) {
            state.revisions.pop_front();
        }
        state.due = 0;
        // The next window with a slice in it: the one after this, or the first that the next slice is in.
        let next = (window + 1) * self.step_ns;
        let place = state.slices.partition_point(|slice| slice.start < next);
        if let Some(start) = state.slices.get(place).map(|slice| slice.start) {
            let first = self.windows_of(start).0.max(window + 1);
            self.schedule(key, self.end_of(first));
        }
    }

    fn close_early(&mut self, key: u32, upto: u64, out: &mut Emit<'_>) {
        loop {
            let due = self.keys[key as usize].due;
            if due == 0 || due > upto {
                break;
            }
            self.close(key, due, Cause::Watermark, out);
        }
        let state = &mut self.keys[key as usize];
        state.closed_early = state.closed_early.max(upto);
    }

    fn close_until(&mut self, watermark: u64, cause: Cause, out: &mut Emit<'_>) {
        while let Some(&Reverse((end, _, key))) = self.due.peek() {
            if end > watermark {
                break;
            }
            self.due.pop();
            let state = &mut self.keys[key as usize];
            if state.queued != end {
                continue; // it waits under an earlier entry that was added since
            }
            state.queued = 0;
            match state.due {
                0 => {}
                due if due == end => self.close(key, end, cause, out),
                due => self.schedule(key, due),
            }
        }
    }

    fn read(&self, snapshot: &[u8]) -> Result<Saved, SnapshotError> {
        let saved: Saved = snapshot::read(snapshot, SECTION)?;
        if saved.shape != self.shape() {
            return Err(SnapshotError::Section { section: SECTION, problem: "of other windows" });
        }
        Ok(saved)
    }

    fn go_on_with(&mut self, keys: Vec<SavedKey>) -> Result<(), SnapshotError> {
        self.keys.clear();
        self.due.clear();
        for (at, key) in keys.into_iter().enumerate() {
            let [name, slot, due, closed_early] = key.head;
            if due != 0 {
                if due < self.window_ns {
                    return Err(SnapshotError::Section { section: SECTION, problem: "not valid state" });
                }
                self.due.push(Reverse((due, name, at as u32)));
            }
            let (slices, revisions) = (key.slices.into(), key.revisions.into());
            self.keys.push(KeyState {
                name,
                slot: slot as u16,
                due,
                queued: due,
                closed_early,
                slices,
                revisions,
            });
        }
        Ok(())
    }

    fn shape(&self) -> [u64; 5] {
        let RollUpOptions { stream, slices, step, horizon, .. } = self.options;
        [u64::from(stream), self.slice_ns, u64::from(slices), u64::from(step), u64::from(horizon)]
    }
}

/// The slices within `[start, end)` as one bar.
fn merge(slices: &VecDeque<Slice>, start: u64, end: u64) -> BarWords {
    let mut bar = BarWords { ts_open: start, ..BarWords::default() };
    let (mut volume, mut buy_volume, mut notional) = (0u128, 0u128, 0i128);
    let place = slices.partition_point(|slice| slice.start < start);
    for slice in slices.range(place..).take_while(|slice| slice.start < end) {
        let part: BarWords = zerocopy::transmute!(slice.words);
        bar.missing = bar.missing.saturating_add(part.missing);
        if part.trades == 0 {
            continue; // emptied by cancels: it has no prices
        }
        if bar.trades == 0 {
            (bar.open, bar.high, bar.low) = (part.open, part.high, part.low);
            (bar.frame_first, bar.frame_last) = (part.frame_first, part.frame_last);
        }
        bar.high = bar.high.max(part.high);
        bar.low = bar.low.min(part.low);
        bar.close = part.close;
        bar.trades += part.trades;
        bar.frame_first = bar.frame_first.min(part.frame_first);
        bar.frame_last = bar.frame_last.max(part.frame_last);
        volume = volume.wrapping_add(part.volume().0);
        buy_volume = buy_volume.wrapping_add(part.buy_volume().0);
        notional = notional.wrapping_add(part.notional().0);
    }
    (bar.volume, bar.buy_volume, bar.notional) = (split(volume), split(buy_volume), split(notional as u128));
    bar
}

fn record(state: &KeyState, key: u32, ts: u64, bar_state: BarState, cause: u8, bar: BarWords) -> Output {
    Output {
        name: state.name,
        ts,
        slot: state.slot,
        kind: output_kind::BAR,
        state: bar_state as u8,
        cause,
        count: tidegate_engine::output::OUTPUT_WORDS as u8,
        words: zerocopy::transmute!(bar),
        key,
        ..Output::default()
    }
}

impl Analyzer for RollUp {
    fn on_outputs(&mut self, outputs: &[Output], out: &mut Emit<'_>) {
        for output in outputs {
            let bar = output.kind == output_kind::BAR && output.stream == self.options.stream;
            if bar && output.state != BarState::Forming as u8 {
                self.take_slice(output, out);
            }
        }
    }

    fn on_watermark(&mut self, watermark: u64, out: &mut Emit<'_>) {
        // Behind the end of the input the watermark is the end of time.
        let cause = if watermark == u64::MAX { Cause::End } else { Cause::Watermark };
        self.close_until(watermark, cause, out);
        self.watermark = self.watermark.max(watermark);
    }

    fn on_end(&mut self, out: &mut Emit<'_>) {
        self.close_until(u64::MAX, Cause::End, out);
    }

    fn save(&self, snapshot: &mut Vec<u8>) {
        let saved_key = |key: &KeyState| SavedKey {
            head: [key.name, u64::from(key.slot), key.due, key.closed_early],
            slices: key.slices.iter().copied().collect(),
            revisions: key.revisions.iter().copied().collect(),
        };
        let saved = Saved {
            shape: self.shape(),
            watermark: self.watermark,
            beyond_horizon: self.beyond_horizon,
            keys: self.keys.iter().map(saved_key).collect(),
        };
        snapshot::append(snapshot, &saved);
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let saved = self.read(snapshot)?;
        self.watermark = saved.watermark;
        self.beyond_horizon = saved.beyond_horizon;
        self.go_on_with(saved.keys)
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        let mut all = Vec::new();
        all.resize_with(keys.len(), SavedKey::default);
        for (at, share) in shares.iter().enumerate() {
            let mut saved = self.read(share.state())?;
            if at == 0 {
                self.watermark = saved.watermark;
            } else if saved.watermark != self.watermark && !share.is_guest() {
                return Err(ShareError::Disagree { what: "watermarks" });
            }
            if share.has_counts() {
                self.beyond_horizon += saved.beyond_horizon;
            }
            for (old, new) in share.keys() {
                if let Some(key) = saved.keys.get_mut(old) {
                    all[new] = std::mem::take(key);
                }
            }
        }
        trim(&mut all, |key| key.head != [0; 4] || !key.slices.is_empty() || !key.revisions.is_empty());
        Ok(self.go_on_with(all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_engine::Lane;

    /// Event time, price, size, whether bought.
    type Trade = (u64, i64, u64, bool);
    const WIDTH: u64 = 10;

    /// The bar of `[start, end)`, the obvious way. Trades in order of arrival.
    fn bar_of(trades: &[Trade], start: u64, end: u64) -> Option<BarWords> {
        let mut inside: Vec<Trade> =
            trades.iter().copied().filter(|trade| (start..end).contains(&trade.0)).collect();
        inside.sort_by_key(|trade| trade.0); // stable: arrival decides ties
        let (first, last) = (inside.first()?, inside.last()?);
        let volume =
            |bought: bool| inside.iter().filter(|t| t.3 || !bought).map(|t| u128::from(t.2)).sum::<u128>();
        let notional: i128 = inside.iter().map(|t| i128::from(t.1) * i128::from(t.2)).sum();
        Some(BarWords {
            ts_open: start,
            open: first.1,
            close: last.1,
            high: inside.iter().map(|t| t.1).max()?,
            low: inside.iter().map(|t| t.1).min()?,
            volume: split(volume(false)),
            buy_volume: split(volume(true)),
            notional: split(notional as u128),
            trades: inside.len() as u64,
            ..BarWords::default()
        })
    }

    fn slice_output(key: u32, bar: BarWords, state: BarState, cause: Cause) -> Output {
        Output {
            name: 1_000 - u64::from(key),
            ts: bar.ts_open + WIDTH,
            kind: output_kind::BAR,
            state: state as u8,
            cause: cause as u8,
            words: zerocopy::transmute!(bar),
            key,
            ..Output::default()
        }
    }

    fn options(slices: u32, step: u32, horizon: u32) -> RollUpOptions {
        let slice = WindowWidth::from_ns(WIDTH).unwrap();
        RollUpOptions { stream: 0, slice, slices, step, horizon }
    }

    /// Runs `work` with a pen and returns what it wrote.
    fn written(roll: &mut RollUp, work: impl FnOnce(&mut RollUp, &mut Emit<'_>)) -> Vec<Output> {
        let (mut lane, mut seen) = (Lane::new(1), Vec::new());
        let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
        let mut emit = Emit::new(&mut lane, &mut sink);
        work(roll, &mut emit);
        emit.flush();
        seen
    }

    fn any_trades() -> impl Strategy<Value = Vec<(u32, Trade)>> {
        let trade = (0u64..300, -50i64..50, 0u64..100, any::<bool>());
        prop::collection::vec((0u32..3, trade), 0..120)
    }

    proptest! {
        #[test]
        fn rolled_bars_equal_direct_ones(
            trades in any_trades(), slices in 1u32..7, step in 1u32..7, every in 1u64..8, cut in 0u64..30,
        ) {
            let step = step.min(slices);
            let mut roll = RollUp::new(options(slices, step, 2)).unwrap();
            let of = |key: u32| -> Vec<Trade> {
                trades.iter().filter(|(k, _)| *k == key).map(|(_, trade)| *trade).collect()
            };
            let mut seen = Vec::new();
            for slice in 0..30 {
                if slice == cut { // a restart in the middle must not show
                    let mut bytes = Vec::new();
                    roll.save(&mut bytes);
                    roll = RollUp::new(options(slices, step, 2)).unwrap();
                    roll.restore(&bytes).unwrap();
                }
                let ready: Vec<Output> = (0..3)
                    .filter_map(|key| Some((key, bar_of(&of(key), slice * WIDTH, (slice + 1) * WIDTH)?)))
                    .map(|(key, bar)| slice_output(key, bar, BarState::Final, Cause::Watermark))
                    .collect();
                seen.extend(written(&mut roll, |roll, emit| {
                    roll.on_outputs(&ready, emit);
                    if slice % every == 0 {
                        roll.on_watermark((slice + 1) * WIDTH, emit);
                    }
                }));
            }
            seen.extend(written(&mut roll, |roll, emit| roll.on_end(emit)));

            let mut expected = Vec::new();
            for window in 0..30 / u64::from(step) + 1 {
                let start = window * u64::from(step) * WIDTH;
                let end = start + u64::from(slices) * WIDTH;
                for key in 0..3 {
                    if let Some(bar) = bar_of(&of(key), start, end) {
                        expected.push((end, key, bar));
                    }
                }
            }
            let mut got: Vec<_> = seen.iter().map(|output| (output.ts, output.key, output.bar())).collect();
            got.sort_by_key(|&(end, key, _)| (end, key));
            expected.sort_by_key(|&(end, key, _)| (end, key));
            prop_assert_eq!(got, expected);
            prop_assert!(seen.iter().all(|output| output.state == BarState::Final as u8));
        }

        /// Late slices in any order: the last revision of each window is the direct bar, revisions count up by one.
        #[test]
        fn amendments_converge_to_the_direct_bar(
            early in any_trades(), late in any_trades(), slices in 1u32..5, step in 1u32..5,
        ) {
            let step = step.min(slices);
            let mut roll = RollUp::new(options(slices, step, 40)).unwrap();
            let mut trades: Vec<Trade> = early.iter().map(|(_, trade)| *trade).collect();
            let mut seen = Vec::new();
            for slice in 0..30 {
                if let Some(bar) = bar_of(&trades, slice * WIDTH, (slice + 1) * WIDTH) {
                    let ready = [slice_output(0, bar, BarState::Final, Cause::Watermark)];
                    seen.extend(written(&mut roll, |roll, emit| roll.on_outputs(&ready, emit)));
                }
            }
            seen.extend(written(&mut roll, |roll, emit| roll.on_watermark(300, emit)));
            for (_, trade) in late {
                trades.push(trade);
                let start = trade.0 - trade.0 % WIDTH;
                let bar = bar_of(&trades, start, start + WIDTH).unwrap();
                let ready = [slice_output(0, bar, BarState::Amended, Cause::Late)];
                seen.extend(written(&mut roll, |roll, emit| roll.on_outputs(&ready, emit)));
            }
            seen.extend(written(&mut roll, |roll, emit| roll.on_end(emit)));
            for window in 0..30 / u64::from(step) + 1 {
                let start = window * u64::from(step) * WIDTH;
                let end = start + u64::from(slices) * WIDTH;
                let versions: Vec<&Output> = seen.iter().filter(|output| output.ts == end).collect();
                for (revision, version) in versions.iter().enumerate() {
                    prop_assert_eq!(version.bar().revision, revision as u32);
                    let state = if revision == 0 { BarState::Final } else { BarState::Amended };
                    prop_assert_eq!(version.state, state as u8);
                }
                let last = versions.last().map(|output| BarWords { revision: 0, ..output.bar() });
                prop_assert_eq!(last, bar_of(&trades, start, end));
            }
            prop_assert_eq!(roll.beyond_horizon(), 0);
        }
    }

    #[test]
    fn a_quiet_key_closes_by_the_watermark_and_ties_go_by_name() {
        let mut roll = RollUp::new(options(2, 2, 1)).unwrap();
        let bar = bar_of(&[(3, 7, 1, true)], 0, 10).unwrap();
        let ready = [0, 1].map(|key| slice_output(key, bar, BarState::Final, Cause::Watermark));
        assert_eq!(written(&mut roll, |roll, emit| roll.on_outputs(&ready, emit)), []);
        assert_eq!(written(&mut roll, |roll, emit| roll.on_watermark(19, emit)), []);
        let closed = written(&mut roll, |roll, emit| roll.on_watermark(20, emit));
        assert_eq!(closed.iter().map(|o| (o.ts, o.key)).collect::<Vec<_>>(), [(20, 1), (20, 0)]);
    }

    #[test]
    fn beyond_the_horizon_is_counted_and_changes_nothing() {
        let mut roll = RollUp::new(options(2, 2, 1)).unwrap();
        let bar = bar_of(&[(3, 7, 1, true)], 0, 10).unwrap();
        let ready = [slice_output(0, bar, BarState::Final, Cause::Watermark)];
        written(&mut roll, |roll, emit| {
            roll.on_outputs(&ready, emit);
            roll.on_watermark(40, emit);
        });
        let amended = [slice_output(0, bar, BarState::Amended, Cause::Late)];
        assert_eq!(written(&mut roll, |roll, emit| roll.on_outputs(&amended, emit)), []);
        assert_eq!(roll.beyond_horizon(), 1);
    }

    #[test]
    fn a_long_leap_of_the_watermark_holds_bounded_state() {
        let mut roll = RollUp::new(options(2, 1, 1)).unwrap();
        let held_max = roll.held_max();
        let mut count = 0;
        for slice in 0..1_000u64 {
            let bar = bar_of(&[(slice * WIDTH, 7, 1, true)], slice * WIDTH, (slice + 1) * WIDTH).unwrap();
            let ready = [slice_output(0, bar, BarState::Final, Cause::Watermark)];
            count += written(&mut roll, |roll, emit| roll.on_outputs(&ready, emit)).len();
            assert!(roll.keys[0].slices.len() <= held_max + 1);
            assert!(roll.due.len() <= 2 * held_max);
        }
        count += written(&mut roll, |roll, emit| roll.on_end(emit)).len();
        assert_eq!(count, 1_000);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let wrong = |slices, step, horizon| RollUp::new(options(slices, step, horizon)).err().unwrap();
        assert!(matches!(wrong(0, 1, 0), RollUpError::Slices { .. }));
        assert!(matches!(wrong(3_601, 1, 0), RollUpError::Slices { .. }));
        assert!(matches!(wrong(2, 3, 0), RollUpError::Step { .. }));
        assert!(matches!(wrong(2, 0, 0), RollUpError::Step { .. }));
        assert!(matches!(wrong(2, 1, 10_001), RollUpError::Horizon { .. }));
    }
}
