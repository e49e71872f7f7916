//! W1, the trade workload of every throughput figure.

use super::random::{Alias, Random, zipf_weights};
use crate::source::{Names, Progress, ReadAccount, ReadError, Source};
use tidegate_engine::{Event, Price, Size, flag};

/// A hundredth of the currency, the step of every price here.
const TICK: i64 = 10_000_000;
/// Whole things in [`Size`] units.
const WHOLE: u64 = 100_000_000;

/// Parameters of [`W1`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct W1Options {
    /// Trades in all; `u64::MAX` never ends.
    pub events: u64,
    /// Symbols, 1 to 2^20.
    pub symbols: u32,
    /// Everything random follows from it.
    pub seed: u64,
    /// Event time of the first trade.
    pub ts_start: u64,
    /// Event time from one trade to the next.
    pub ts_step: u64,
}

impl Default for W1Options {
    fn default() -> Self {
        // 2026-01-05T14:30:00Z, 100,000 trades per second of event time.
        let ts_start = 1_767_623_400_000_000_000;
        Self { events: 20_000_000, symbols: 2_000, seed: 1, ts_start, ts_step: 10_000 }
    }
}

/// 20 million trades of 2,000 symbols by Zipf's law; each price walks by at most a tick a trade, sizes are whole.
#[derive(Debug, Clone)]
pub struct W1 {
    options: W1Options,
    random: Random,
    symbols: Alias,
    /// Last price by symbol, in ticks.
    prices: Vec<i32>,
    names: Names,
    account: ReadAccount,
}

impl W1 {
    /// The workload from its beginning. `symbols` is taken into its range.
    #[must_use]
    pub fn new(options: W1Options) -> Self {
        let symbols = options.symbols.clamp(1, 1 << 20);
        let mut random = Random::new(options.seed);
        let mut names = Names::default();
        for symbol in 0..symbols {
            names.intern(&format!("S{symbol:04}"));
        }
        // 10.00 to 499.99
        let prices = (0..symbols).map(|_| random.between(1_000, 49_999) as i32).collect();
        Self {
            options: W1Options { symbols, ..options },
            random,
            symbols: Alias::new(&zipf_weights(symbols)),
            prices,
            names,
            account: ReadAccount::default(),
        }
    }

    #[inline]
    fn trade(&mut self, at: u64) -> Event {
        let key = self.symbols.draw(self.random.word());
        // One word for the rest: two bits of walk, one of side, the upper half for the size.
        let word = self.random.word();
        let price = &mut self.prices[key as usize];
        // -1, 0, 0, +1; a price that reaches a cent turns back.
        *price = (*price + ((word & 1) as i32 - (word >> 1 & 1) as i32)).max(1);
        let size = 1 + (((word >> 32) * 1_000) >> 32);
        let side = if word & 4 == 0 { flag::BUY } else { flag::SELL };
        let ts = self.options.ts_start.wrapping_add(at.wrapping_mul(self.options.ts_step));
        Event::trade(ts, key, 0, Price(i64::from(*price) * TICK), Size(size * WHOLE), side)
    }
}

impl Source for W1 {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let done = self.account.events;
        let count = (self.options.events - done).min(max.max(1) as u64);
        events.extend((done..done + count).map(|at| self.trade(at)));
        self.account.units += count;
        self.account.accepted += count;
        self.account.events += count;
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
        "w1".to_owned()
    }
}

/// A source with every run of so many records turned round: the simplest input that is out of order everywhere.
#[derive(Debug)]
pub struct Reversed<S> {
    inner: S,
    run: usize,
    held: Vec<Event>,
    given: usize,
}

/// Turns every consecutive run of `run` records of `source` round; `reversed(w1, 100)` is W1's late variant.
#[must_use]
pub fn reversed<S: Source>(source: S, run: usize) -> Reversed<S> {
    Reversed { inner: source, run: run.max(1), held: Vec::new(), given: 0 }
}

impl<S: Source> Source for Reversed<S> {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let start = events.len();
        while events.len() - start < max.max(1) {
            if self.given == self.held.len() {
                self.held.clear();
                self.given = 0;
                // Runs count from the first record, however the source batches; only the last may be short.
                while self.held.len() < self.run {
                    let room = self.run - self.held.len();
                    match self.inner.read(&mut self.held, room) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) if self.held.is_empty() && events.len() == start => return Err(error),
                        // It will come again once what was read has gone out.
                        Err(_) => break,
                    }
                }
                if self.held.is_empty() {
                    break;
                }
                self.held.chunks_mut(self.run).for_each(<[Event]>::reverse);
            }
            let count = (self.held.len() - self.given).min(max.max(1) - (events.len() - start));
            events.extend_from_slice(&self.held[self.given..self.given + count]);
            self.given += count;
        }
        Ok(events.len() - start)
    }

    fn names(&self) -> &Names {
        self.inner.names()
    }

    fn account(&self) -> &ReadAccount {
        self.inner.account()
    }

    fn progress(&self) -> Progress {
        self.inner.progress()
    }

    fn format(&self) -> String {
        format!("{}, runs of {} reversed", self.inner.format(), self.run)
    }
}
