//! A demo market: 200 made-up symbols with bursts, a shock, a gap in the feed, and trades that come late, are taken
//! back or corrected. Everything a bar must get right happens in it, at rates a person can still look through.

use super::random::{Alias, Random, nearest, zipf_weights};
use crate::source::{Names, Progress, ReadAccount, ReadError, Source};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidegate_engine::{Event, Price, Size, flag, kind};

const SECOND: u64 = 1_000_000_000;
const TICK: i64 = 10_000_000;
const WHOLE: u64 = 100_000_000;
/// Share of the session, in 1/1000, at which the shock strikes, the recovery ends, and the feed loses events.
const SHOCK: (u64, u64) = (550, 750);
const GAP: u64 = 350;

/// After so many of its trades a symbol goes back towards its opening by one part in so many: slow enough to walk freely for
/// a session, while the standard deviation of a symbol that trades for ever stays at `step * sqrt(65,536 / 2)`, which is
/// 6 % of the lowest price.
const REVERT_TRADES: u64 = 256;
const REVERT_SHARE: i128 = 256;

/// Parameters of [`Market`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarketOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// Events in all, control records included.
    pub events: u64,
    /// Symbols, 1 to 4,096.
    pub symbols: u32,
    /// Event time at the opening.
    pub ts_start: u64,
    /// Length of the session.
    pub session_ns: u64,
    /// One in so many trades is delivered late; 0 for none.
    pub late_one_in: u64,
    /// Latest a trade is delivered after its time.
    pub late_ns_max: u64,
    /// One in so many trades is cancelled later, and half of those corrected; 0 for none.
    pub cancel_one_in: u64,
    /// Whether a shock hits one sector and recovers.
    pub shock: bool,
    /// Whether the feed loses events once and says so.
    pub gap: bool,
}

impl Default for MarketOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            events: 2_000_000,
            symbols: 200,
            // 2026-01-05T14:30:00Z, six and a half hours.
            ts_start: 1_767_623_400 * SECOND,
            session_ns: 23_400 * SECOND,
            late_one_in: 500,
            late_ns_max: 4 * SECOND,
            cancel_one_in: 2_000,
            shock: true,
            gap: true,
        }
    }
}

/// What moves with what: a sector has its own walk, and each symbol follows it by a share.
#[derive(Debug, Clone)]
struct Symbol {
    sector: usize,
    /// Price in 1/256 tick, so that small moves add up.
    price: i64,
    /// Price at the opening; the shock is a share of it.
    open: i64,
    /// How far the shock has pushed it, in 1/256 tick.
    pushed: i64,
    /// Standard deviation of its own step, in 1/256 tick.
    step: i64,
    /// Share of the sector's moves, in 1/256.
    follows: i64,
    round_lot: u64,
    /// State of the sector's walk it has already followed.
    sector_seen: i64,
    trades: u64,
}

/// An event on its way, ordered by the instant it is delivered and then by its number.
#[derive(Debug, Clone)]
struct Delivery {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Delivery {}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The demo market, see the module.
#[derive(Debug, Clone)]
pub struct Market {
    options: MarketOptions,
    random: Random,
    activity: Alias,
    symbols: Vec<Symbol>,
    /// Walk of each sector, in parts per 2^20 of a price.
    sectors: [i64; 8],
    names: Names,
    account: ReadAccount,
    /// Late trades, cancels and corrections on their way.
    waiting: BinaryHeap<Reverse<Delivery>>,
    now: u64,
    number: u64,
    /// Trades left in the present burst and whose they are.
    burst: (u32, u32),
    /// Time of the last trade sent before the gap and trades lost in it; `None` before the gap and after it.
    lost: Option<(u64, u64)>,
    gap_done: bool,
    last_ts: u64,
}

const SECTORS: [&str; 8] = ["AQ", "BR", "CY", "DO", "EV", "FJ", "GA", "HX"];

impl Market {
    /// The market at its opening. Options out of range are taken into it.
    #[must_use]
    pub fn new(options: MarketOptions) -> Self {
        let options = MarketOptions {
            symbols: options.symbols.clamp(1, 4_096),
            session_ns: options.session_ns.max(SECOND),
            late_ns_max: options.late_ns_max.max(1),
            ..options
        };
        let mut random = Random::new(options.seed);
        let mut names = Names::default();
        let symbols = (0..options.symbols)
            .map(|index| {
                let sector = index as usize % SECTORS.len();
                let letter =
                    |place: u32| char::from(b'A' + (index / SECTORS.len() as u32 / place % 26) as u8);
                names.intern(&format!("{}{}{}", SECTORS[sector], letter(26), letter(1)));
                // Most prices are tens, a few are hundreds.
                let ticks = if random.once_in(5) {
                    random.between(20_000, 60_000)
                } else {
                    random.between(800, 20_000)
                };
                let price = ticks as i64 * 256;
                Symbol {
                    sector,
                    price,
                    open: price,
                    pushed: 0,
                    step: (price / 40_000).max(64),
                    follows: random.between(100, 320) as i64,
                    round_lot: if ticks > 25_000 { 40 } else { 100 },
                    sector_seen: 0,
                    trades: 0,
                }
            })
            .collect();
        Self {
            options,
            random,
            activity: Alias::new(&zipf_weights(options.symbols)),
            symbols,
            sectors: [0; 8],
            names,
            account: ReadAccount::default(),
            waiting: BinaryHeap::new(),
            now: options.ts_start,
            number: 0,
            burst: (0, 0),
            lost: None,
            gap_done: !options.gap,
            last_ts: options.ts_start,
        }
    }

    /// Where the session is, in 1/1000.
    fn progress_permille(&self) -> u64 {
        (u128::from(self.now - self.options.ts_start) * 1_000 / u128::from(self.options.session_ns)) as u64
    }

    /// Mean time to the next trade outside bursts: short at both ends of the session, twice as short in the shock.
    fn mean_wait(&self) -> u64 {
        let at = self.progress_permille().min(1_000);
        let from_noon = at.abs_diff(500); // 0 to 500
        // Activity in 1/1000 of the mean: 700 at noon to 1,600 at the ends, by the square; the mean is 1,000.
        let mut activity = 700 + from_noon * from_noon * 900 / 250_000;
        if self.options.shock && (SHOCK.0..SHOCK.0 + 40).contains(&at) {
            activity *= 2;
        }
        let mean = self.options.session_ns / self.options.events.max(1);
        // Bursts bring four trades in five, so single arrivals are five times as rare as trades.
        (u128::from(mean) * 5 * 1_000 / u128::from(activity)).max(16) as u64
    }

    fn advance_price(&mut self, key: u32) -> i64 {
        let sector = self.symbols[key as usize].sector;
        self.sectors[sector] += self.random.bell(12);
        let own = self.random.bell(self.symbols[key as usize].step);
        let at = self.progress_permille();
        let symbol = &mut self.symbols[key as usize];
        let moved = self.sectors[sector] - symbol.sector_seen;
        symbol.sector_seen = self.sectors[sector];
        symbol.price += own + nearest(i128::from(symbol.open * moved) * i128::from(symbol.follows), 1 << 28);
        symbol.trades += 1;
        if symbol.trades.is_multiple_of(REVERT_TRADES) {
            symbol.price -= nearest(i128::from(symbol.price - symbol.pushed - symbol.open), REVERT_SHARE);
        }
        if self.options.shock && at >= SHOCK.0 {
            // Down within 5/1000 of the session, back by four fifths until the recovery ends; hardest in one sector.
            let depth = if sector == 2 { 90 } else { 25 }; // 1/1000 of the opening price
            let share = if at < SHOCK.0 + 5 {
                (at - SHOCK.0 + 1) * 200
            } else if at < SHOCK.1 {
                1_000 - (at - SHOCK.0 - 5) * 800 / (SHOCK.1 - SHOCK.0 - 5)
            } else {
                200
            };
            let wanted = -symbol.open * depth / 1_000 * share as i64 / 1_000 * symbol.follows / 256;
            symbol.price += wanted - symbol.pushed;
            symbol.pushed = wanted;
        }
        symbol.price = symbol.price.max(256);
        symbol.price >> 8
    }

    fn size(&mut self, key: u32) -> (u64, u8) {
        let lot = self.symbols[key as usize].round_lot;
        match self.random.below(100) {
            0..30 => (self.random.between(1, lot - 1), flag::ODD_LOT),
            30..75 => (lot, 0),
            75..96 => (lot * self.random.between(2, 10), 0),
            _ => (lot * self.random.between(11, 200), 0),
        }
    }

    /// The next trade as it happens at the venue, and what it leads to.
    fn happen(&mut self) {
        if self.burst.0 > 0 {
            self.burst.0 -= 1;
            self.now += self.random.between(2_000, 3_000_000);
        } else {
            let mean = self.mean_wait();
            self.now += self.random.wait(mean);
            // One arrival in four starts a burst of 16 on average: one order eating through a book.
            self.burst = (0, self.activity.draw(self.random.word()));
            if self.random.once_in(4) {
                self.burst.0 = self.random.between(2, 30) as u32;
            }
        }
        let key = self.burst.1;
        let price = Price(self.advance_price(key) * TICK);
        let (size, odd) = self.size(key);
        // A burst takes one side; one trade in twenty is an auction or a cross and has none.
        let side = match (self.random.below(20), self.burst.1 ^ (self.now / SECOND) as u32) {
            (0, _) => 0,
            (1..4, _) => flag::BUY,
            (4..7, _) => flag::SELL,
            (_, mix) if mix & 1 == 0 => flag::BUY,
            _ => flag::SELL,
        };
        let trade = Event::trade(self.now, key, 0, price, Size(size * WHOLE), odd | side);
        let mut at = self.now;
        if self.chance(self.options.late_one_in) {
            at += self.random.between(1_000_000, self.options.late_ns_max.max(1_000_000));
        }
        self.send(at, trade);
        if self.chance(self.options.cancel_one_in) {
            // Always after the trade itself, however late that is: half a second to a minute.
            let after = at + self.random.between(SECOND / 2, 60 * SECOND);
            self.send(after, Event { flags: trade.flags | flag::CANCEL, ..trade });
            if self.random.once_in(2) {
                let ticks = self.random.between(1, 25) as i64;
                let up = self.random.once_in(2);
                let fixed = (trade.price() + if up { ticks } else { -ticks } * TICK).max(TICK);
                let flags = trade.flags | flag::CORRECTION;
                self.send(after, Event { flags, payload: [fixed as u64, trade.size()], ..trade });
            }
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.once_in(one_in)
    }

    fn send(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.waiting.push(Reverse(Delivery { at, number: self.number, event }));
    }

    /// The next event as it is delivered.
    fn deliver(&mut self) -> Event {
        loop {
            // Nothing that has yet to happen can be delivered before `now`.
            if self.waiting.peek().is_none_or(|Reverse(first)| first.at >= self.now) {
                self.happen();
                continue;
            }
            let Reverse(Delivery { at, event, .. }) = self.waiting.pop().expect("one was seen");
            let start = self.options.ts_start + self.options.session_ns / 1_000 * GAP;
            // Eight seconds are lost, or 1/1000 of a short session.
            let end = start + (8 * SECOND).min(self.options.session_ns / 1_000);
            if !self.gap_done && at >= start {
                if at < end {
                    let (_, count) = self.lost.get_or_insert((self.last_ts, 0));
                    *count += 1;
                    continue;
                }
                self.gap_done = true;
                if let Some((before, count)) = self.lost.take() {
                    // The event that shows the gap comes right behind the record of it.
                    self.number += 1;
                    self.waiting.push(Reverse(Delivery { at, number: 0, event }));
                    return Event::control(kind::GAP, event.ts_event, 0, 0, [count, before]);
                }
            }
            self.last_ts = event.ts_event;
            return event;
        }
    }
}

impl Source for Market {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let count = (self.options.events - self.account.events).min(max.max(1) as u64);
        for _ in 0..count {
            let event = self.deliver();
            events.push(event);
            self.account.accept(1);
        }
        Ok(count as usize)
    }

    fn names(&self) -> &Names {
        &self.names
    }

    fn account(&self) -> &ReadAccount {
        &self.account
    }

    fn progress(&self) -> Progress {
        super::progress(&self.account, self.options.events)
    }

    fn format(&self) -> String {
        "demo market".to_owned()
    }
}
