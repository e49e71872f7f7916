//! What a cluster's clients did and saw, and whether that can be: every event that was acknowledged is in every reader's stream exactly
//! once, in order, with nothing between and nothing else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_engine::{Event, Price, Size};
use tidegate_proto::AckMode;
use tidegate_proto::subscriber::Continuation;
use tidegate_proto::subscription::{Start, Subscription};
use tidegate_quic::{ClientOptions, Publisher, PublisherOptions, Subscriber, Trust, Update};

/// Between two events of a feed.
const PACE: Duration = Duration::from_millis(1);
/// Further acknowledgements after which the feed that is torn is begun anew.
const TORN_EVERY: u64 = 1_500;
/// How long a client goes on trying.
const GIVE_UP: Duration = Duration::from_secs(120);

/// The feeds: names of their only keys, and which of them breaks off again and again.
pub(crate) const FEEDS: [(&str, bool); 2] = [("STEADY", false), ("TORN", true)];

/// Event `at` of a feed, from 0: no other has its price.
fn event(feed: usize, at: u64) -> Event {
    const T0: u64 = 1_767_571_200_000_000_000;
    Event::trade(T0 + at * 1_000_000, feed as u32, 0, Price(1_000 + at as i64), Size(1), 0)
}

/// What one feed did.
#[derive(Default)]
pub(crate) struct Fed {
    pub(crate) offered: AtomicU64,
    pub(crate) acked: AtomicU64,
    /// Times its session was continued by another process, as it were.
    pub(crate) continued: AtomicU64,
}

/// What one reader saw.
#[derive(Default)]
pub(crate) struct Read {
    /// Results of each feed.
    seen: [AtomicU64; FEEDS.len()],
    /// When which result of the steady feed came.
    times: Mutex<Vec<Instant>>,
    /// What cannot be.
    wrong: Mutex<Option<String>>,
}

/// Feeds and readers at work.
pub(crate) struct History {
    pub(crate) feeds: [Arc<Fed>; FEEDS.len()],
    pub(crate) readers: Vec<Arc<Read>>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    feeding: Vec<JoinHandle<Result<(), String>>>,
    reading: Vec<JoinHandle<()>>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn client(nodes: &[SocketAddr], first: usize, ca: &Path) -> ClientOptions {
    let mut turned = nodes.to_vec();
    turned.rotate_left(first % nodes.len());
    let options = ClientOptions::new(turned[0], Trust::of_file(ca).expect("the cluster's CA"));
    ClientOptions { others: turned[1..].to_vec(), give_up_after: GIVE_UP, ..options }
}

impl History {
    /// Begins. There is one reader for each node, connected to that one first.
    pub(crate) fn start(nodes: &[SocketAddr], ca: &Path) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let readers: Vec<Arc<Read>> = nodes.iter().map(|_| Arc::default()).collect();
        let ready = Arc::new(AtomicU64::new(0));
        let mut reading = Vec::new();
        for (at, reader) in readers.iter().enumerate() {
            let (reader, ended, ready) = (Arc::clone(reader), Arc::clone(&ended), Arc::clone(&ready));
            let options = client(nodes, at, ca);
            reading.push(std::thread::spawn(move || {
                if let Err(wrong) = runtime().block_on(read(options, &reader, &ended, &ready)) {
                    *reader.wrong.lock().expect("whole") = Some(wrong);
                }
            }));
        }
        let start = Instant::now();
        while ready.load(SeqCst) < readers.len() as u64 {
            assert!(start.elapsed() < GIVE_UP, "the readers do not get through");
            std::thread::yield_now();
        }
        let feeds: [Arc<Fed>; FEEDS.len()] = Default::default();
        let feeding = (0..FEEDS.len())
            .map(|feed| {
                let (fed, stop, options) =
                    (Arc::clone(&feeds[feed]), Arc::clone(&stop), client(nodes, feed, ca));
                std::thread::spawn(move || runtime().block_on(publish(feed, options, &fed, &stop)))
            })
            .collect();
        Self { feeds, readers, stop, ended, feeding, reading }
    }

    /// Events that were acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.feeds.iter().map(|fed| fed.acked.load(SeqCst)).sum()
    }

    /// What any reader saw that cannot be.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.readers.iter().find_map(|reader| reader.wrong.lock().expect("whole").clone())
    }

    /// Waits until every reader has had a result from now on.
    pub(crate) fn read_on(&self) {
        let now = Instant::now();
        let behind =
            |reader: &Arc<Read>| reader.times.lock().expect("whole").last().is_none_or(|last| *last < now);
        while self.readers.iter().any(behind) {
            if let Some(wrong) = self.wrong() {
                panic!("a reader saw what cannot be: {wrong}");
            }
            assert!(now.elapsed() < GIVE_UP, "not every reader goes on");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// The longest time without a result since then, for each reader, which has had some behind whatever happened.
    pub(crate) fn longest_since(&self, then: Instant) -> Vec<Duration> {
        self.read_on();
        let of = |reader: &Arc<Read>| {
            let times = reader.times.lock().expect("whole");
            let from = times.partition_point(|time| *time < then).saturating_sub(1);
            times[from..].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        self.readers.iter().map(of).collect()
    }

    /// Ends the feeds, which must have everything acknowledged; and the readers, which must have seen all of it. Events of each feed.
    pub(crate) fn end(self) -> [u64; FEEDS.len()] {
        self.stop.store(true, SeqCst);
        for (feeding, (name, _)) in self.feeding.into_iter().zip(FEEDS) {
            feeding.join().expect("no panic").unwrap_or_else(|why| panic!("feed {name}: {why}"));
        }
        let counts = std::array::from_fn(|feed| self.feeds[feed].offered.load(SeqCst));
        let start = Instant::now();
        for (at, reader) in self.readers.iter().enumerate() {
            loop {
                let seen: Vec<u64> = reader.seen.iter().map(|seen| seen.load(SeqCst)).collect();
                if let Some(wrong) = &*reader.wrong.lock().expect("whole") {
                    panic!("reader {}: {wrong}", at + 1);
                }
                // A bar of one trade is told by the trade behind it.
                if seen.iter().zip(&counts).all(|(seen, count)| seen + 1 >= *count) {
                    break;
                }
                assert!(start.elapsed() < GIVE_UP, "reader {} has {seen:?} of {counts:?}", at + 1);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        self.ended.store(true, SeqCst);
        self.reading.into_iter().for_each(|reading| reading.join().expect("no panic"));
        counts
    }
}

/// Publishes until it is told to stop. What was acknowledged must stay so for whoever continues the session.
async fn publish(feed: usize, options: ClientOptions, fed: &Fed, stop: &AtomicBool) -> Result<(), String> {
    let (name, torn) = FEEDS[feed];
    let said = |error: &dyn std::fmt::Display| format!("behind {} events: {error}", fed.offered.load(SeqCst));
    let start = Instant::now();
    let mut offered = 0;
    loop {
        let of = PublisherOptions {
            source_id: 7 + feed as u64,
            name: name.to_owned(),
            ack_mode: AckMode::Committed,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::connect(options.clone(), of).await.map_err(|error| said(&error))?;
        for (key, _) in FEEDS.iter().take(feed + 1) {
            publisher.define(key).map_err(|error| said(&error))?;
        }
        // A session goes on with the same events from its first one; what the cluster has is skipped.
        let events: Vec<Event> = (0..offered).map(|at| event(feed, at)).collect();
        publisher.send(&events).await.map_err(|error| said(&error))?;
        let (begun, acked) = (offered, fed.acked.load(SeqCst));
        let skipped = publisher.stats().skipped;
        if skipped < acked {
            return Err(said(&format!("{acked} were acknowledged, and a new leader has {skipped}")));
        }
        loop {
            let due = (start.elapsed().as_nanos() / PACE.as_nanos()) as u64;
            let events: Vec<Event> = (offered..due.max(offered)).map(|at| event(feed, at)).collect();
            publisher.send(&events).await.map_err(|error| said(&error))?;
            offered = offered.max(due);
            fed.offered.store(offered, SeqCst);
            let stats = publisher.stats();
            if stats.lost_by_server > 0 {
                return Err(said(&format!("{} acknowledged events were lost", stats.lost_by_server)));
            }
            fed.acked.fetch_max(stats.acked, SeqCst);
            if stop.load(SeqCst) {
                let stats = publisher.finish().await.map_err(|error| said(&error))?;
                if stats.acked != offered || stats.lost_by_server > 0 {
                    return Err(said(&format!("{} of {offered} are acknowledged", stats.acked)));
                }
                fed.acked.store(stats.acked, SeqCst);
                return Ok(());
            }
            if torn && stats.acked >= begun + TORN_EVERY {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        // Without a word.
        drop(publisher);
        fed.continued.fetch_add(1, SeqCst);
    }
}

/// Reads until it is told to stop, and looks at each result.
async fn read(
    options: ClientOptions,
    read: &Read,
    ended: &AtomicBool,
    ready: &AtomicU64,
) -> Result<(), String> {
    let subscription =
        Subscription { streams: vec!["bars.1t".to_owned()], start: Start::Latest, ..Subscription::default() };
    let connected = Subscriber::connect(options, "reader", subscription).await;
    let mut subscriber = connected.map_err(|error| error.to_string())?;
    let mut last = [0u64; FEEDS.len()];
    let mut counted = false;
    while !ended.load(SeqCst) {
        let Ok(update) = tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await else {
            continue;
        };
        let Some(update) = update.map_err(|error| format!("behind {last:?}: {error}"))? else {
            return Err(format!("the subscription ended behind {last:?}"));
        };
        match update {
            Update::Record { name, output, .. } => {
                let Some(feed) = FEEDS.iter().position(|(known, _)| *known == &*name) else {
                    return Err(format!("a result of {name}, which nobody feeds"));
                };
                let bar = output.bar();
                let (open, at) = (bar.open, last[feed]);
                if output.sequence != at + 1 || open != 1_000 + at as i64 {
                    return Err(format!(
                        "{name}: result {} of price {open} came where {} was next",
                        output.sequence,
                        at + 1
                    ));
                }
                last[feed] = output.sequence;
                read.seen[feed].store(output.sequence, SeqCst);
                if feed == 0 {
                    read.times.lock().expect("whole").push(Instant::now());
                }
            }
            Update::Live(_) if !counted => {
                counted = true;
                ready.fetch_add(1, SeqCst);
            }
            Update::Live(_) | Update::Reconnected(Continuation::Resumed) => {}
            Update::Reconnected(Continuation::Anew) if last.iter().all(|last| *last == 0) => {}
            other => return Err(format!("behind {last:?}: {other:?}")),
        }
    }
    Ok(())
}
