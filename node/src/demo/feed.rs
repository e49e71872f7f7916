//! What the demo plays: two generators, cut to the same length.

use tidegate_engine::Event;
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions};
use tidegate_replay::{Names, Progress, ReadAccount, ReadError, Source};

/// Indicators over every stream of bars.
pub(super) const INDICATORS: [&str; 3] = ["rsi:14", "ema:12", "vwap:20"];
/// Event time passes so many times faster than ours: a minute shows four hours.
const SPEED: u64 = 240;
/// Trades asked for per second of wall time. Bursts take time of their own, so about a quarter of them fit, which with
/// the network makes about 200,000 events a second.
const TRADES_PER_SECOND: u64 = 600_000;
/// Mean time between connections of the office, in event time.
const CONNECTION_WAIT_NS: u64 = 250_000_000;

/// The demo's inputs and their pace.
pub(super) struct Feed {
    seed: u64,
    pub(super) seconds: u64,
    pub(super) speed: f64,
    session_ns: u64,
}

impl Feed {
    pub(super) fn new(seconds: u64, seed: u64) -> Self {
        Self { seed, seconds, speed: SPEED as f64, session_ns: seconds * SPEED * 1_000_000_000 }
    }

    fn market(&self) -> Market {
        let events = TRADES_PER_SECOND * self.seconds;
        Market::new(MarketOptions {
            seed: self.seed,
            events,
            session_ns: self.session_ns,
            ..MarketOptions::default()
        })
    }

    fn network(&self) -> Network {
        let ts_start = MarketOptions::default().ts_start;
        Network::new(NetworkOptions {
            seed: self.seed,
            // More than it comes to in any session; the clip ends it.
            events: u64::MAX,
            ts_start,
            connection_wait_ns: CONNECTION_WAIT_NS,
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
        let end = MarketOptions::default().ts_start + self.session_ns;
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
    fn the_feed_ends_when_it_should() {
        assert!(INDICATORS.iter().all(|text| text.parse::<IndicatorSpec>().is_ok()));
        let feed = Feed::new(2, 1);
        let end = MarketOptions::default().ts_start + feed.session_ns;
        let mut total = 0;
        for source in &mut feed.sources() {
            let mut events = Vec::new();
            while source.read(&mut events, 8_192).unwrap() > 0 {}
            assert!(!events.is_empty() && events.iter().all(|event| event.ts_event < end));
            assert_eq!(source.account().events, events.len() as u64);
            total += events.len();
        }
        assert!((200_000..800_000).contains(&total), "{total} events in two seconds");
    }
}
