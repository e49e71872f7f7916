//! What the demo plays: two generators, cut to the same hour.

use tidegate_engine::Event;
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions};
use tidegate_replay::{Names, Progress, ReadAccount, ReadError, Source};

/// Indicators over every stream of bars.
pub(super) const INDICATORS: [&str; 3] = ["rsi:14", "ema:12", "vwap:20"];
/// Trades asked for per second of wall time. Some three in four fall into the hour at these settings, which with the
/// network's 20,000 makes about 200,000 events a second.
const TRADES_PER_SECOND: u64 = 240_000;
/// Event time the demo covers: long enough for all incidents of the network (scan at minute 10, flood at 20,
/// exfiltration at 30) and for the market's gap (35 % in) and shock (55 % in).
const SESSION_NS: u64 = 3_600_000_000_000;

/// The demo's inputs and their pace.
pub(super) struct Feed {
    seed: u64,
    pub(super) seconds: u64,
    /// Event time passes so many times faster than ours.
    pub(super) speed: f64,
}

impl Feed {
    pub(super) fn new(seconds: u64, seed: u64) -> Self {
        Self { seed, seconds, speed: SESSION_NS as f64 / 1e9 / seconds as f64 }
    }

    fn market(&self) -> Market {
        let events = TRADES_PER_SECOND * self.seconds;
        Market::new(MarketOptions {
            seed: self.seed,
            events,
            session_ns: SESSION_NS,
            ..MarketOptions::default()
        })
    }

    fn network(&self) -> Network {
        let ts_start = MarketOptions::default().ts_start;
        // An hour of this office at two in the afternoon is about 1.5 million events.
        Network::new(NetworkOptions {
            seed: self.seed,
            events: 100_000_000,
            ts_start,
            ..NetworkOptions::default()
        })
    }

    /// Time of the very first event: the pace counts from it.
    pub(super) fn first_ts(&self) -> u64 {
        let mut events = Vec::new();
        for source in &mut self.sources() {
            // Generators do not fail.
            let _ = source.read(&mut events, 1);
        }
        events.iter().map(|event| event.ts_event).min().unwrap_or(0)
    }

    pub(super) fn sources(&self) -> Vec<Box<dyn Source>> {
        let end = MarketOptions::default().ts_start + SESSION_NS;
        let clip = |source| Box::new(Clip { source, end, account: ReadAccount::default() });
        vec![clip(Box::new(self.market())), clip(Box::new(self.network()))]
    }
}

/// A source that ends with the first event at `end`.
struct Clip {
    source: Box<dyn Source>,
    end: u64,
    account: ReadAccount,
}

impl Source for Clip {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let start = events.len();
        self.source.read(events, max)?;
        if let Some(over) = events[start..].iter().position(|event| event.ts_event >= self.end) {
            events.truncate(start + over);
            // Nothing comes after the end.
            self.end = 0;
        }
        let count = events.len() - start;
        for _ in 0..count {
            self.account.accept(1);
        }
        Ok(count)
    }

    fn names(&self) -> &Names {
        self.source.names()
    }

    fn account(&self) -> &ReadAccount {
        &self.account
    }

    fn progress(&self) -> Progress {
        Progress::default()
    }

    fn format(&self) -> String {
        self.source.format()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_actors::indicators::IndicatorSpec;

    #[test]
    fn the_feed_ends_after_its_hour() {
        assert!(INDICATORS.iter().all(|text| text.parse::<IndicatorSpec>().is_ok()));
        let feed = Feed { seed: 1, seconds: 1, speed: 3_600.0 };
        let end = MarketOptions::default().ts_start + SESSION_NS;
        for source in &mut feed.sources() {
            let mut events = Vec::new();
            while source.read(&mut events, 8_192).unwrap() > 0 {}
            assert!(events.len() > 100_000 && events.iter().all(|event| event.ts_event < end));
            assert_eq!(source.account().events, events.len() as u64);
        }
    }
}
