//! Session bars: a bar lasts as long as its key keeps trading and closes after a gap of silence.

use crate::bars::late_record;
use crate::regroup::count;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidegate_engine::output::{OUTPUT_WORDS, split};
use tidegate_engine::snapshot::{self, SnapshotError};
use tidegate_engine::{
    BarState, BarWords, Cause, Context, Emit, Event, Fate, KeyMeta, Ledger, Operator, Output, Share,
    ShareError, WindowWidth, flag, kind, output_kind,
};

/// What happens to a trade whose session has closed. A closed session is never reopened, so there is no `amend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SessionLate {
    /// The trade is written to the stream as an [`output_kind::LATE`] record.
    #[default]
    Side,
    /// The trade is dropped and counted.
    Drop,
}

/// Which sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Silence that ends a session. Two trades less than this apart are in one session.
    pub gap: WindowWidth,
    /// What happens to late trades.
    pub late: SessionLate,
    /// Most sessions a key may hold open, at least 1. More than a few mean that the watermark lags the trades by many
    /// gaps; a trade that would open one more counts as [`Fate::OverBound`].
    pub open_max: u32,
}

/// A session being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Session {
    first_ts: u64,
    last_ts: u64,
    open: i64,
    high: i64,
    low: i64,
    close: i64,
    trades: u64,
    volume: u128,
    buy_volume: u128,
    notional: i128,
    frame_first: u64,
    frame_last: u64,
}

#[derive(Clone, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct KeyState {
    /// Open sessions, by time; any two are at least a gap apart.
    sessions: Vec<Session>,
    /// Time under which the key waits in the heap, at or before its earliest session's end; 0 for none.
    queued: u64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Saved {
    gap: u64,
    keys: Vec<KeyState>,
    names: Vec<u64>,
    delivered: u64,
    by_fate: [u64; tidegate_engine::ledger::FATE_COUNT],
}

/// Bars over the sessions of each key. A session `[first, last]` closes when the watermark reaches `last + gap`, which is
/// its record's `ts`; `ts_open` is `first`. Out-of-order trades may bridge open sessions into one. Sessions that close
/// together are written by (end, name).
///
/// Cancels and corrections need the trades kept, which sessions do not: both count as [`Fate::Unmatched`] and change
/// nothing.
pub struct SessionBars {
    options: SessionOptions,
    gap: u64,
    keys: Vec<KeyState>,
    /// (time, name, key), one live entry per key with open sessions.
    due: BinaryHeap<Reverse<(u64, u64, u32)>>,
    ledger: Ledger,
}

impl Session {
    fn of(event: &Event, frame: u64) -> Self {
        let (ts, price, size) = (event.ts_event, event.price(), event.size());
        Self {
            first_ts: ts,
            last_ts: ts,
            open: price,
            high: price,
            low: price,
            close: price,
            trades: 1,
            volume: u128::from(size),
            buy_volume: if event.flags & flag::BUY != 0 { u128::from(size) } else { 0 },
            notional: i128::from(price) * i128::from(size),
            frame_first: frame,
            frame_last: frame,
        }
    }

    /// Takes over `other`, whose trades arrived after this one's where stamps are equal.
    fn absorb(&mut self, other: &Self) {
        if other.first_ts < self.first_ts {
            (self.first_ts, self.open) = (other.first_ts, other.open);
        }
        if other.last_ts >= self.last_ts {
            (self.last_ts, self.close) = (other.last_ts, other.close);
        }
        self.high = self.high.max(other.high);
        self.low = self.low.min(other.low);
        self.trades += other.trades;
        self.volume = self.volume.wrapping_add(other.volume);
        self.buy_volume = self.buy_volume.wrapping_add(other.buy_volume);
        self.notional = self.notional.wrapping_add(other.notional);
        self.frame_first = self.frame_first.min(other.frame_first);
        self.frame_last = self.frame_last.max(other.frame_last);
    }
}

impl SessionBars {
    /// Sessions that end after `options.gap`.
    #[must_use]
    pub fn new(options: SessionOptions) -> Self {
        let options = SessionOptions { open_max: options.open_max.max(1), ..options };
        let gap = options.gap.ns();
        Self { options, gap, keys: Vec::new(), due: BinaryHeap::new(), ledger: Ledger::default() }
    }

    fn take(&mut self, context: &Context, event: &Event, out: &mut Emit<'_>) {
        if event.kind != kind::TRADE {
            return self.ledger.count(Fate::NotMine);
        }
        let Some(state) = self.keys.get_mut(event.key as usize) else {
            return self.ledger.count(Fate::Undefined);
        };
        if event.flags & (flag::CANCEL | flag::CORRECTION) != 0 {
            return self.ledger.count(Fate::Unmatched);
        }
        let (ts, gap) = (event.ts_event, self.gap);
        let sessions = &mut state.sessions;
        // Almost always the newest session; the first one that does not end a gap before the trade takes it.
        let place = match sessions.last() {
            Some(newest) if ts >= newest.first_ts => {
                sessions.len() - usize::from(ts < newest.last_ts.saturating_add(gap))
            }
            _ => sessions.partition_point(|session| session.last_ts.saturating_add(gap) <= ts),
        };
        let trade = Session::of(event, context.frame());
        if sessions.get(place).is_some_and(|session| session.first_ts < ts.saturating_add(gap)) {
            sessions[place].absorb(&trade);
            // It may now reach its neighbours. They hold other stamps, so who absorbs whom does not matter.
            let reach = sessions[place].last_ts.saturating_add(gap);
            if sessions.get(place + 1).is_some_and(|next| next.first_ts < reach) {
                let next = sessions.remove(place + 1);
                sessions[place].absorb(&next);
            }
            if place > 0 && sessions[place].first_ts < sessions[place - 1].last_ts.saturating_add(gap) {
                let later = sessions.remove(place);
                sessions[place - 1].absorb(&later);
            }
        } else if ts.saturating_add(gap) <= context.watermark() {
            self.late(context, event, out);
        } else if sessions.len() as u32 >= self.options.open_max {
            self.ledger.count(Fate::OverBound);
        } else {
            sessions.insert(place, trade);
            let end = ts.saturating_add(gap);
            if state.queued == 0 || end < state.queued {
                state.queued = end;
                self.due.push(Reverse((end, context.keys()[event.key as usize].name, event.key)));
            }
        }
    }

    fn read(&self, snapshot: &[u8]) -> Result<Saved, SnapshotError> {
        let section = "sessions";
        let saved: Saved = snapshot::read(snapshot, section)?;
        if saved.gap != self.gap {
            return Err(SnapshotError::Section { section, problem: "of another gap" });
        }
        if saved.names.len() != saved.keys.len() {
            return Err(SnapshotError::Section { section, problem: "not valid state" });
        }
        Ok(saved)
    }

    fn go_on_with(&mut self, keys: Vec<KeyState>, names: &[u64]) {
        self.keys = keys;
        let waiting = self.keys.iter().zip(names).enumerate().filter(|(_, (key, _))| key.queued != 0);
        self.due = waiting.map(|(at, (key, name))| Reverse((key.queued, *name, at as u32))).collect();
    }

    fn late(&mut self, context: &Context, event: &Event, out: &mut Emit<'_>) {
        if self.options.late == SessionLate::Drop {
            return self.ledger.count(Fate::LateDropped);
        }
        out.push(late_record(context, event));
        self.ledger.count(Fate::LateSide);
    }
}

impl Operator for SessionBars {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        if self.keys.len() < context.keys().len() {
            self.keys.resize_with(context.keys().len(), KeyState::default);
        }
        let counted = self.ledger.counted();
        for event in events {
            self.take(context, event, out);
        }
        self.ledger.close_batch(events.len() as u64, counted);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        let watermark = context.watermark();
        let cause = match (context.ended(), context.idle_close()) {
            (true, _) => Cause::End,
            (_, true) => Cause::Idle,
            _ => Cause::Watermark,
        };
        while let Some(&Reverse((time, name, key))) = self.due.peek() {
            if time > watermark {
                break;
            }
            self.due.pop();
            let state = &mut self.keys[key as usize];
            if state.queued != time {
                continue; // an earlier entry was added since and has taken its place
            }
            state.queued = 0;
            let end_of = |session: &Session| session.last_ts.saturating_add(self.gap);
            if state.sessions.first().is_some_and(|session| end_of(session) == time) {
                let session = state.sessions.remove(0);
                let meta = context.keys()[key as usize];
                let bar = BarWords {
                    ts_open: session.first_ts,
                    open: session.open,
                    high: session.high,
                    low: session.low,
                    close: session.close,
                    volume: split(session.volume),
                    buy_volume: split(session.buy_volume),
                    notional: split(session.notional as u128),
                    trades: session.trades,
                    frame_first: session.frame_first,
                    frame_last: session.frame_last,
                    missing: context.missing(meta.source, session.first_ts, time),
                    revision: 0,
                    first_trade: 0,
                };
                out.push(Output {
                    name: meta.name,
                    ts: time,
                    slot: meta.slot,
                    kind: output_kind::BAR,
                    state: BarState::Final as u8,
                    cause: cause as u8,
                    count: OUTPUT_WORDS as u8,
                    words: zerocopy::transmute!(bar),
                    key,
                    ..Output::default()
                });
            } // else the session went on since the entry was made
            if let Some(session) = state.sessions.first() {
                state.queued = end_of(session);
                self.due.push(Reverse((state.queued, name, key)));
            }
        }
    }

    fn ledger(&self) -> Ledger {
        self.ledger
    }

    fn save(&self, snapshot: &mut Vec<u8>) {
        let mut names = vec![0; self.keys.len()];
        for Reverse((_, name, key)) in &self.due {
            names[*key as usize] = *name;
        }
        let Ledger { delivered, by_fate } = self.ledger;
        snapshot::append(
            snapshot,
            &Saved { gap: self.gap, keys: self.keys.clone(), names, delivered, by_fate },
        );
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let saved = self.read(snapshot)?;
        self.ledger = Ledger { delivered: saved.delivered, by_fate: saved.by_fate };
        self.go_on_with(saved.keys, &saved.names);
        Ok(())
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        let mut all = vec![KeyState::default(); keys.len()];
        for share in shares {
            let mut saved = self.read(share.state())?;
            for (old, new) in share.keys() {
                if let Some(key) = saved.keys.get_mut(old) {
                    all[new] = std::mem::take(key);
                }
            }
            count(&mut self.ledger, share, saved.delivered, saved.by_fate);
        }
        let names: Vec<u64> = keys.iter().map(|key| key.name).collect();
        self.go_on_with(all, &names);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_engine::{KeyMeta, Lane, Price, Size};

    const GAP: u64 = 10;

    fn operator(late: SessionLate, open_max: u32) -> SessionBars {
        SessionBars::new(SessionOptions { gap: WindowWidth::from_ns(GAP).unwrap(), late, open_max })
    }

    fn keys(count: u64) -> Context {
        Context::standalone((0..count).map(|name| KeyMeta { name, slot: 0, source: 0 }).collect())
    }

    fn written(work: impl FnOnce(&mut Emit<'_>)) -> Vec<Output> {
        let (mut lane, mut seen) = (Lane::new(0), Vec::new());
        let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
        let mut emit = Emit::new(&mut lane, &mut sink);
        work(&mut emit);
        emit.flush();
        seen
    }

    /// A closed session: end, key, first stamp, prices, trades, volume, notional.
    type Row = (u64, u32, u64, [i64; 4], u64, u128, i128);

    /// The obvious way: every trade that was accepted is kept, sessions are found by sorting at each closing.
    #[derive(Default)]
    struct Model {
        open: Vec<Vec<Event>>,
        closed: Vec<Row>,
        late: u64,
    }

    impl Model {
        fn sessions(&self, key: usize) -> Vec<Vec<Event>> {
            let mut trades = self.open[key].clone();
            trades.sort_by_key(|trade| trade.ts_event);
            let mut sessions: Vec<Vec<Event>> = Vec::new();
            for trade in trades {
                match sessions.last_mut() {
                    Some(session) if trade.ts_event - session[session.len() - 1].ts_event < GAP => {
                        session.push(trade);
                    }
                    _ => sessions.push(vec![trade]),
                }
            }
            sessions
        }

        fn take(&mut self, event: Event, watermark: u64) {
            let key = event.key as usize;
            let ts = event.ts_event;
            let taken = self.sessions(key).iter().any(|session| {
                session[0].ts_event < ts + GAP && ts < session[session.len() - 1].ts_event + GAP
            });
            if taken || ts + GAP > watermark {
                self.open[key].push(event);
            } else {
                self.late += 1;
            }
        }

        fn close(&mut self, watermark: u64) {
            let mut rows: Vec<Row> = Vec::new();
            for key in 0..self.open.len() {
                let sessions = self.sessions(key);
                self.open[key].clear();
                for session in sessions {
                    let (first, last) = (session[0], session[session.len() - 1]);
                    if last.ts_event + GAP > watermark {
                        self.open[key].extend(session);
                        continue;
                    }
                    let prices = || session.iter().map(Event::price);
                    let ohlc =
                        [first.price(), prices().max().unwrap(), prices().min().unwrap(), last.price()];
                    let volume = session.iter().map(|t| u128::from(t.size())).sum();
                    let notional = session.iter().map(|t| i128::from(t.price()) * i128::from(t.size())).sum();
                    let end = last.ts_event + GAP;
                    rows.push((
                        end,
                        key as u32,
                        first.ts_event,
                        ohlc,
                        session.len() as u64,
                        volume,
                        notional,
                    ));
                }
            }
            rows.sort();
            self.closed.extend(rows);
        }
    }

    proptest! {
        #[test]
        fn sessions_equal_the_obvious_model(
            steps in prop::collection::vec((0u32..3, 0u64..40, -9i64..9, 0u64..50, 0u64..6), 1..150),
            cut in 0usize..150,
        ) {
            let mut context = keys(3);
            let mut sessions = operator(SessionLate::Drop, 1_000);
            let mut model = Model { open: vec![Vec::new(); 3], ..Model::default() };
            let mut seen = Vec::new();
            let mut now = 0;
            for (at, &(key, back, price, size, advance)) in steps.iter().enumerate() {
                if at == cut {
                    let mut bytes = Vec::new();
                    sessions.save(&mut bytes);
                    sessions = operator(SessionLate::Drop, 1_000);
                    sessions.restore(&bytes).unwrap();
                }
                now += advance;
                let ts = (now + 20).saturating_sub(back);
                let event = Event::trade(ts, key, 0, Price(price), Size(size), flag::BUY);
                model.take(event, context.watermark());
                seen.extend(written(|emit| sessions.on_events(&context, &[event], emit)));
                if context.advance(now) {
                    model.close(now);
                    seen.extend(written(|emit| sessions.on_watermark(&context, emit)));
                }
            }
            context.end();
            model.close(u64::MAX);
            seen.extend(written(|emit| sessions.on_watermark(&context, emit)));
            let rows: Vec<Row> = seen.iter().map(|output| {
                let bar = output.bar();
                let ohlc = [bar.open, bar.high, bar.low, bar.close];
                (output.ts, output.key, bar.ts_open, ohlc, bar.trades, bar.volume().0, bar.notional().0)
            }).collect();
            prop_assert_eq!(rows, model.closed);
            prop_assert_eq!(sessions.ledger().of(Fate::LateDropped), model.late);
            prop_assert_eq!(sessions.ledger().imbalance(), 0);
            prop_assert_eq!(sessions.ledger().delivered, steps.len() as u64);
        }
    }

    #[test]
    fn a_trade_bridges_two_sessions_and_the_gap_is_exclusive() {
        let (mut context, mut sessions) = (keys(1), operator(SessionLate::Side, 2));
        let trade = |ts, price| Event::trade(ts, 0, 0, Price(price), Size(1), 0);
        let first = [trade(100, 5), trade(115, 7), trade(108, 9), trade(125, 1), trade(200, 1)];
        written(|emit| sessions.on_events(&context, &first, emit));
        assert_eq!(sessions.ledger().of(Fate::OverBound), 1, "100..115 and 125 are open, 200 is a third");
        context.advance(135);
        let closed = written(|emit| sessions.on_watermark(&context, emit));
        assert_eq!(closed.iter().map(|o| (o.ts, o.bar().trades)).collect::<Vec<_>>(), [(125, 3), (135, 1)]);
        let late = written(|emit| sessions.on_events(&context, &[trade(125, 3)], emit));
        assert_eq!((late[0].kind, late[0].words[0]), (output_kind::LATE, 125));
        assert_eq!(sessions.ledger().of(Fate::LateSide), 1);
    }

    #[test]
    fn what_sessions_do_not_read_is_counted() {
        let (context, mut sessions) = (keys(1), operator(SessionLate::Drop, 2));
        let mut events = [Event::trade(1, 0, 0, Price(1), Size(1), flag::CANCEL); 3];
        events[1].key = 9;
        events[2].kind = kind::FLOW;
        written(|emit| sessions.on_events(&context, &events, emit));
        let of = |fate| sessions.ledger().of(fate);
        assert_eq!((of(Fate::Unmatched), of(Fate::Undefined), of(Fate::NotMine)), (1, 1, 1));
    }
}
