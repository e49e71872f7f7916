//! Bars that end by their own measure: so many trades, so much volume, so much value.
//!
//! Trades count in arrival order; there is no window of time, so nothing is late. Cancels find the bar by the trade's
//! ordinal among its key's trades.

use super::BarOptions;
use super::acc::Acc;
use super::history::History;
use super::retained::{Retained, RetainedState};
use super::time::Head;
use crate::regroup::count;
use rkyv::with::{AsOwned, Map};
use std::borrow::Cow;
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{
    BarState, BarWords, Cause, Context, Emit, Event, Fate, KeyMeta, Ledger, Operator, Output, Share,
    ShareError, flag, kind,
};

/// What ends a bar. The trade that reaches it belongs to the bar it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// So many consecutive trades, those cancelled since included.
    Ticks(u64),
    /// At least so much volume, 1e-8.
    Volume(u128),
    /// At least so much notional (absolute), 1e-17.
    Value(i128),
}

/// Bars of a [`Measure`] per key.
pub struct MeasureBars {
    measure: Measure,
    options: BarOptions,
    open: Vec<Acc>,
    /// Plain trades of each key so far: the next one's ordinal.
    ordinals: Vec<u64>,
    /// Where each key's last cancelled trade stood, for the correction that follows; [`u64::MAX`] for nowhere.
    cancelled_at: Vec<u64>,
    retained: Retained,
    history: History,
    ledger: Ledger,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct State<'a> {
    #[rkyv(with = AsOwned)]
    open: Cow<'a, [Acc]>,
    #[rkyv(with = AsOwned)]
    ordinals: Cow<'a, [u64]>,
    #[rkyv(with = AsOwned)]
    cancelled_at: Cow<'a, [u64]>,
    retained: RetainedState<'a>,
    #[rkyv(with = Map<AsOwned>)]
    history: Vec<Cow<'a, [[u64; 4]]>>,
    history_cut: u64,
    delivered: u64,
    by_fate: [u64; tidegate_engine::ledger::FATE_COUNT],
}

/// Event times of a bar not bounded by time: those of its own first and last trade.
fn bounds(acc: &Acc) -> (u64, u64) {
    if acc.trades > 0 { (acc.first_ts, acc.last_ts) } else { (0, 0) }
}

/// A bar as a record that says which of its key's bars it is.
fn record(
    acc: &Acc,
    context: &Context,
    key: u32,
    bounds: (u64, u64),
    state: BarState,
    cause: Cause,
    revision: u32,
) -> Output {
    let mut output = acc.output(context, key, bounds, state, cause, revision);
    let bar = BarWords { first_trade: acc.start as u32, ..output.bar() };
    output.words = bar.to_words();
    output
}

impl MeasureBars {
    /// Bars ending at `measure`.
    #[must_use]
    pub fn new(measure: Measure, options: BarOptions) -> Self {
        Self {
            measure,
            options,
            open: Vec::new(),
            ordinals: Vec::new(),
            cancelled_at: Vec::new(),
            retained: Retained::new(options.retained_bars_max),
            history: History::new(options.history_events_max),
            ledger: Ledger::default(),
        }
    }

    /// The bar of `key` as it stands now. `None` when none is open.
    #[must_use]
    pub fn peek(&self, context: &Context, key: u32) -> Option<Output> {
        let acc = self.open.get(key as usize).filter(|acc| acc.is_open())?;
        Some(record(acc, context, key, bounds(acc), BarState::Forming, Cause::Filled, 0))
    }

    fn grow(&mut self, keys: usize) {
        if self.open.len() < keys {
            self.open.resize(keys, Acc::VACANT);
            self.ordinals.resize(keys, 0);
            self.cancelled_at.resize(keys, u64::MAX);
            self.retained.grow(keys);
        }
    }

    /// In arrival order: a measure bar's open is the first trade that came, its close the last.
    #[inline(always)]
    fn add(acc: &mut Acc, event: &Event, frame: u64) {
        let (price, size) = (event.price(), event.size());
        if acc.trades == 0 {
            acc.open = price;
            acc.first_ts = event.ts_event;
            acc.last_ts = event.ts_event;
        }
        acc.close = price;
        acc.first_ts = acc.first_ts.min(event.ts_event);
        acc.last_ts = acc.last_ts.max(event.ts_event);
        acc.high = acc.high.max(price);
        acc.low = acc.low.min(price);
        acc.trades += 1;
        acc.add_volume(event.flags, size);
        acc.notional = acc.notional.wrapping_add(i128::from(price) * i128::from(size));
        acc.frame_last = frame;
    }

    fn close(&mut self, context: &Context, key: u32, cause: Cause, out: &mut Emit<'_>) {
        let acc = std::mem::replace(&mut self.open[key as usize], Acc::VACANT);
        let (ts_open, ts) = bounds(&acc);
        if acc.trades > 0 {
            out.push(record(&acc, context, key, (ts_open, ts), BarState::Final, cause, 0));
        }
        if self.options.horizon_ns > 0 {
            let span = self.ordinals[key as usize] - acc.start;
            self.retained.push(&acc, key, ts, span);
        }
    }

    #[cold]
    #[inline(never)]
    fn other(&mut self, context: &Context, event: &Event, out: &mut Emit<'_>) {
        if event.kind != kind::TRADE {
            return self.ledger.count(Fate::NotMine);
        }
        if event.key as usize >= self.open.len() {
            return self.ledger.count(Fate::Undefined);
        }
        if event.flags & flag::CANCEL != 0 {
            let Some((trade, after)) = self.history.find(event) else {
                return self.ledger.count(Fate::Unmatched);
            };
            let ordinal = self.ordinals[event.key as usize] - 1 - after;
            // Whether a bar can change is decided by event time alone. How long a trade happens to stay in the history
            // depends on what else the shard holds, and must not show.
            let kept_from = context.watermark().saturating_sub(self.options.history_ns);
            if self.bar_of(context.watermark(), event.key, ordinal).is_none_or(|acc| acc.first_ts < kept_from)
            {
                return self.ledger.count(Fate::Unmatched);
            }
            self.history.bury(event.key, after);
            self.cancelled_at[event.key as usize] = ordinal;
            return self.amend(context, &trade, ordinal, Cause::Cancel, out);
        }
        let ordinal = std::mem::replace(&mut self.cancelled_at[event.key as usize], u64::MAX);
        if ordinal == u64::MAX {
            // A correction without its cancel has no place in a sequence of trades.
            return self.ledger.count(Fate::Unmatched);
        }
        self.amend(context, event, ordinal, Cause::Correction, out);
    }

    /// The open or retained bar that holds the key's trade `ordinal`.
    fn bar_of(&mut self, watermark: u64, key: u32, ordinal: u64) -> Option<&Acc> {
        let open = &self.open[key as usize];
        if open.is_open() && ordinal >= open.start {
            return Some(open);
        }
        let index = self.retained.find(key, |bar| ordinal >= bar.acc.start)?;
        let bar = self.retained.get_mut(index)?;
        let alive = bar.end.saturating_add(self.options.horizon_ns) > watermark;
        (alive && ordinal - bar.acc.start < bar.span).then_some(&bar.acc)
    }

    /// Takes the trade at `ordinal` back (cancel) or puts its new values in its place (correction).
    fn amend(&mut self, context: &Context, trade: &Event, ordinal: u64, cause: Cause, out: &mut Emit<'_>) {
        let key = trade.key;
        let next = self.ordinals[key as usize];
        if self.bar_of(context.watermark(), key, ordinal).is_none() {
            return self.ledger.count(Fate::Unmatched);
        }
        if cause == Cause::Correction && !self.history.put_back(trade, next - 1 - ordinal) {
            return self.ledger.count(Fate::Unmatched);
        }
        let history = &self.history;
        let change = |acc: &mut Acc, end: u64| {
            if cause == Cause::Correction {
                acc.add(trade, acc.frame_last);
            } else {
                acc.subtract(trade);
            }
            let kept = |after: u64| (acc.start..end).contains(&next.wrapping_sub(1 + after));
            let trades = history.trades_of(key).filter(|(after, _)| kept(*after));
            let mut trades: Vec<&Event> = trades.map(|(_, event)| event).collect();
            trades.reverse();
            acc.rebuild_prices(trades.iter().copied());
            if let (Some(first), Some(last)) = (trades.first(), trades.last()) {
                acc.open = first.price();
                acc.close = last.price();
            }
        };
        let fate = if cause == Cause::Cancel { Fate::Cancelled } else { Fate::Corrected };
        let open = &mut self.open[key as usize];
        if open.is_open() && ordinal >= open.start {
            change(open, next);
            return self.ledger.count(fate);
        }
        let found = self.retained.find(key, |bar| ordinal >= bar.acc.start);
        match found.and_then(|index| self.retained.get_mut(index)) {
            Some(bar) if ordinal - bar.acc.start < bar.span => {
                let end = bar.acc.start + bar.span;
                change(&mut bar.acc, end);
                bar.revision += 1;
                let bounds = if bar.acc.trades > 0 { bounds(&bar.acc) } else { (bar.end, bar.end) };
                let state = BarState::Amended;
                out.push(record(&bar.acc, context, key, bounds, state, cause, bar.revision));
                self.ledger.count(fate);
            }
            _ => self.ledger.count(Fate::Unmatched),
        }
    }
}

impl Operator for MeasureBars {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        self.grow(context.keys().len());
        let counted = self.ledger.counted();
        let frame = context.frame();
        for event in events {
            let at = event.key as usize;
            if !Head::of(event).is_plain_trade() || at >= self.open.len() {
                self.other(context, event, out);
                continue;
            }
            if self.options.history {
                self.history.push(std::slice::from_ref(event));
            }
            let acc = &mut self.open[at];
            if !acc.is_open() {
                *acc = Acc::at(self.ordinals[at], frame);
            }
            Self::add(acc, event, frame);
            self.ordinals[at] += 1;
            let full = match self.measure {
                Measure::Ticks(ticks) => self.ordinals[at] - acc.start >= ticks,
                Measure::Volume(volume) => acc.volume() >= volume,
                Measure::Value(value) => acc.notional.abs() >= value,
            };
            if full {
                self.close(context, event.key, Cause::Filled, out);
            }
        }
        self.ledger.close_batch(events.len() as u64, counted);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        if context.ended() {
            for key in 0..self.open.len() as u32 {
                if self.open[key as usize].is_open() {
                    self.close(context, key, Cause::End, out);
                }
            }
            return;
        }
        let (watermark, horizon) = (context.watermark(), self.options.horizon_ns);
        // By the front alone, which is another key's for another set of shards: so a bar's own age is checked again when it
        // is to change.
        self.retained.evict(|end| end.saturating_add(horizon) <= watermark);
        if self.options.history {
            self.history.evict_before(watermark.saturating_sub(self.options.history_ns));
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
            open: Cow::Borrowed(&self.open),
            ordinals: Cow::Borrowed(&self.ordinals),
            cancelled_at: Cow::Borrowed(&self.cancelled_at),
            retained: self.retained.save(),
            history,
            history_cut,
            delivered: self.ledger.delivered,
            by_fate: self.ledger.by_fate,
        };
        snapshot::append(bytes, &state);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let state: State<'_> = snapshot::read(bytes, "measure bars")?;
        self.open = state.open.into_owned();
        self.ordinals = state.ordinals.into_owned();
        self.cancelled_at = state.cancelled_at.into_owned();
        self.retained.restore(state.retained);
        self.history.restore(&state.history, state.history_cut);
        self.ledger = Ledger { delivered: state.delivered, by_fate: state.by_fate };
        Ok(())
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        self.grow(keys.len());
        let (mut retained, mut history) = (self.retained.regroup(keys), self.history.regroup(keys));
        for share in shares {
            let state: State<'_> = snapshot::read(share.state(), "measure bars")?;
            let held = state.open.iter().zip(state.ordinals.iter()).zip(state.cancelled_at.iter());
            let held: Vec<_> =
                held.map(|((open, ordinal), cancelled)| (*open, *ordinal, *cancelled)).collect();
            for (old, new) in share.keys() {
                if let Some((open, ordinal, cancelled)) = held.get(old) {
                    (self.open[new], self.ordinals[new], self.cancelled_at[new]) =
                        (*open, *ordinal, *cancelled);
                }
            }
            retained.take(&state.retained, share);
            history.take(&state.history, state.history_cut, share);
            count(&mut self.ledger, share, state.delivered, state.by_fate);
        }
        self.retained = retained.finish();
        self.history = history.finish();
        Ok(())
    }
}
