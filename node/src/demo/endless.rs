//! The demo's feed for a server: an hour of a made-up market and office network, played in five minutes, again and again.
//!
//! Stamps are moved, not invented: what happened at instant `t` of the made-up hour has the stamp *start of this round +
//! t / 12*, and goes out when that stamp is now. So a dashboard shows a day like any other, and a watermark's lag is a real one.
//! Each round is the same; prices go back to the opening between two, as over night.

use super::exporter;
use crate::exit::Failure;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tidegate_config::derived::{Horizon, Shows};
use tidegate_config::{Risk, Spectrum, Surface};
use tidegate_engine::{Event, kind, name_hash};
use tidegate_quic::{ClientError, ClientOptions, PublishStats, Publisher, PublisherOptions};
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions};
use tidegate_replay::{Names, Source};

/// Made-up time passes so many times faster than ours.
pub(crate) const COMPRESSION: u64 = 12;
/// A round, in made-up time: an hour has everything in it that the generators know.
const ROUND_NS: u64 = 3_600_000_000_000;
/// A round as it is played.
pub(super) const PLAYED_NS: u64 = ROUND_NS / COMPRESSION;
/// Trades asked for in a round. Bursts take time of their own, so fewer of them fit.
const TRADES: u64 = 12_000_000;
/// Events made at a time.
const READ_EVENTS: usize = 512;
/// Events sent at a time.
const SEND_EVENTS: usize = 8_192;
/// How often it is looked for what is due.
const TICK: Duration = Duration::from_millis(10);
/// Time from the last connection to the first event, at least.
const LEAD_NS: u64 = 250_000_000;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Symbols that the demo's derived streams are of: as many as a page shows at once.
const DERIVED_SYMBOLS: usize = 48;

/// Surfaces of a second's bars, so that something happens on the page.
pub(crate) fn surfaces() -> Vec<Surface> {
    let surface = |name: &str, sweep: &str, shows| Surface {
        name: Some(name.to_owned()),
        bars: "1s".parse().ok(),
        sweep: sweep.parse().into_iter().collect(),
        shows,
        symbols_max: DERIVED_SYMBOLS,
        ..Surface::default()
    };
    vec![surface("rsi", "rsi:2..30/2", Shows::Value), surface("worth", "ema:5..75/5", Shows::Gain)]
}

/// How much of their moves is one move.
pub(crate) fn spectrum() -> Spectrum {
    Spectrum { bars: "1s".parse().ok(), symbols_max: DERIVED_SYMBOLS, ..Spectrum::default() }
}

/// What could be lost on them in five minutes.
pub(crate) fn risk() -> Risk {
    Risk {
        bars: "1s".parse().ok(),
        horizon: Horizon::Bars(300),
        window: 60,
        paths: 20_000,
        symbols_max: DERIVED_SYMBOLS,
        ..Risk::default()
    }
}

/// The feeds of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Market,
    Network,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Market => "demo-market",
            Self::Network => "demo-network",
        }
    }

    fn source(self) -> Box<dyn Source> {
        let market = MarketOptions { events: TRADES, session_ns: ROUND_NS, ..MarketOptions::default() };
        match self {
            Self::Market => Box::new(Market::new(market)),
            // More events than fit any round; its end is that of the round.
            Self::Network => Box::new(Network::new(NetworkOptions {
                events: u64::MAX,
                ts_start: market.ts_start,
                ..NetworkOptions::default()
            })),
        }
    }
}

/// One part, round after round.
pub(super) struct Endless {
    part: Part,
    source: Box<dyn Source>,
    /// Stamp of the round's beginning.
    start_ns: u64,
    /// Made, moved and not yet due; the front goes first.
    made: VecDeque<Event>,
    raw: Vec<Event>,
    over: bool,
    rounds: u64,
}

impl Endless {
    pub(super) fn new(part: Part, start_ns: u64) -> Self {
        Self {
            part,
            source: part.source(),
            start_ns,
            made: VecDeque::new(),
            raw: Vec::with_capacity(READ_EVENTS),
            over: false,
            rounds: 0,
        }
    }

    /// The names met so far, by the keys of the events.
    pub(super) fn names(&self) -> &Names {
        self.source.names()
    }

    /// Moves everything that is due at `now_ns` to `events`, at most `max`. A late event is due when it is delivered.
    pub(super) fn due(&mut self, now_ns: u64, max: usize, events: &mut Vec<Event>) {
        while events.len() < max {
            match self.made.front() {
                Some(event) if event.ts_event > now_ns => return,
                Some(event) => {
                    events.push(*event);
                    self.made.pop_front();
                }
                // The next round begins when its time has come, so that nothing of it is made long before.
                None if self.over && now_ns < self.start_ns + PLAYED_NS => return,
                None => self.make(),
            }
        }
    }

    fn make(&mut self) {
        if self.over {
            self.start_ns += PLAYED_NS;
            self.source = self.part.source();
            self.over = false;
            self.rounds += 1;
        }
        let first = MarketOptions::default().ts_start;
        self.raw.clear();
        // Generators do not fail, and end with their number of events.
        let count = self.source.read(&mut self.raw, READ_EVENTS).unwrap_or(0);
        let end = self.raw.iter().position(|event| event.ts_event >= first + ROUND_NS);
        self.over = count == 0 || end.is_some();
        self.raw.truncate(end.unwrap_or(count));
        let start_ns = self.start_ns;
        let moved = |ts: u64| start_ns + ts.saturating_sub(first) / COMPRESSION;
        self.made.extend(self.raw.iter().map(|event| {
            let mut event = Event { ts_event: moved(event.ts_event), ..*event };
            if event.kind == kind::GAP {
                // Since when events are missing.
                event.payload[1] = moved(event.payload[1]);
            }
            event
        }));
    }
}

/// The demo's feeds, connected to a server.
pub(crate) struct DemoFeed {
    stop: Arc<AtomicBool>,
    tasks: Vec<(Part, tokio::task::JoinHandle<Result<PublishStats, ClientError>>)>,
    exporter: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl DemoFeed {
    /// Connects every feed, then lets all begin at the same second by the time of day that `now_ns` knows. What one sends
    /// before the other has sent anything would be the end of windows that the other still has trades for. The network's flows go to
    /// `exports` as well, as a router tells them.
    pub(crate) async fn start(
        client: ClientOptions,
        session: u64,
        exports: Option<SocketAddr>,
        now_ns: fn() -> u64,
    ) -> Result<Self, Failure> {
        let mut publishers = Vec::new();
        for part in [Part::Market, Part::Network] {
            let options = PublisherOptions {
                source_id: name_hash(part.name().as_bytes()),
                session,
                name: part.name().to_owned(),
                ..PublisherOptions::default()
            };
            let publisher = Publisher::connect(client.clone(), options).await;
            publishers.push((part, publisher.map_err(crate::place::failure)?));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let pace = Pace { start: Instant::now(), start_ns: now_ns() };
        let begin_ns = (pace.start_ns + LEAD_NS).next_multiple_of(1_000_000_000);
        let play = |(part, publisher)| {
            let feed = Endless::new(part, begin_ns);
            (part, tokio::spawn(play(feed, publisher, pace, Arc::clone(&stop))))
        };
        let tasks = publishers.into_iter().map(play).collect();
        let exporter = exports.map(|to| {
            let feed = Endless::new(Part::Network, begin_ns);
            tokio::spawn(exporter::play(feed, to, (pace.start, pace.start_ns), Arc::clone(&stop)))
        });
        Ok(Self { stop, tasks, exporter })
    }

    /// Why a feed has ended although nobody asked for it, told once.
    pub(crate) async fn failure(&mut self) -> Option<String> {
        if let Some(task) = self.exporter.take_if(|task| task.is_finished())
            && let Ok(Err(error)) = task.await
        {
            return Some(format!("the demo's router has ended: {error}"));
        }
        let at = self.tasks.iter().position(|(_, task)| task.is_finished())?;
        let (part, task) = self.tasks.swap_remove(at);
        let why = match task.await {
            Ok(Ok(_)) => "it was told to".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Some(format!("{} has ended: {why}", part.name()))
    }

    /// Lets every feed say that it is done, and waits for the server to have heard it, for a bounded time.
    pub(crate) async fn finish(self) {
        self.stop.store(true, Relaxed);
        let _ = tokio::time::timeout(FAREWELL, async {
            for (_, task) in self.tasks {
                let _ = task.await;
            }
        })
        .await;
    }
}

/// The time of day at one moment; it goes on from there by the clock that never steps.
#[derive(Debug, Clone, Copy)]
struct Pace {
    start: Instant,
    start_ns: u64,
}

/// Publishes what is due, until told to stop.
async fn play(
    mut feed: Endless,
    publisher: Publisher,
    pace: Pace,
    stop: Arc<AtomicBool>,
) -> Result<PublishStats, ClientError> {
    let mut defined = 0;
    let mut events = Vec::with_capacity(SEND_EVENTS);
    while !stop.load(Relaxed) {
        let now_ns = pace.start_ns + pace.start.elapsed().as_nanos() as u64;
        events.clear();
        feed.due(now_ns, SEND_EVENTS, &mut events);
        // Every round meets the same names in the same order.
        while let Some(name) = feed.source.names().name(defined) {
            publisher.define(name)?;
            defined += 1;
        }
        publisher.send(&events).await?;
        if events.len() < SEND_EVENTS {
            tokio::time::sleep(TICK).await;
        }
    }
    publisher.finish().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of `rounds` rounds, as they would be sent.
    fn played(part: Part, start_ns: u64, rounds: u64) -> (Vec<Event>, Endless) {
        let mut feed = Endless::new(part, start_ns);
        let mut events = Vec::new();
        feed.due(start_ns + rounds * PLAYED_NS - 1, usize::MAX, &mut events);
        (events, feed)
    }

    #[test]
    fn rounds_follow_each_other_and_are_the_same() {
        const START: u64 = 1_800_000_000_000_000_000;
        for part in [Part::Market, Part::Network] {
            let (one, _) = played(part, START, 1);
            let (two, feed) = played(part, START, 2);
            assert_eq!(feed.rounds, 1);
            assert_eq!(two[..one.len()], one);
            assert_eq!(two.len(), 2 * one.len(), "{part:?}");
            for (first, again) in one.iter().zip(&two[one.len()..]) {
                let mut moved = Event { ts_event: first.ts_event + PLAYED_NS, ..*first };
                if moved.kind == kind::GAP {
                    moved.payload[1] += PLAYED_NS;
                }
                assert_eq!(moved, *again);
            }
            assert!(one.iter().all(|event| (START..START + PLAYED_NS).contains(&event.ts_event)));
            let per_second = one.len() as u64 / (PLAYED_NS / 1_000_000_000);
            assert!((1_000..50_000).contains(&per_second), "{part:?}: {per_second} events a second");
        }
        // What is worth looking at is in it.
        let (market, _) = played(Part::Market, START, 1);
        assert!(market.iter().any(|event| event.kind == kind::GAP && event.payload[1] > START));
        let late = market.windows(2).filter(|pair| pair[1].ts_event < pair[0].ts_event).count();
        assert!(late > 100, "{late} late events");
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let mut feed = Endless::new(Part::Market, 5_000_000_000);
        let mut events = Vec::new();
        for now_ns in (5_000_000_000..8_000_000_000).step_by(7_000_000) {
            let before = events.len();
            feed.due(now_ns, before + 50, &mut events);
            assert!(events.len() <= before + 50);
            assert!(events[before..].iter().all(|event| event.ts_event <= now_ns));
        }
        assert!(events.len() > 1_000, "{} events", events.len());
    }
}
