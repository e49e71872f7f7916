//! From a tick's intended time to the subscriber that waits for what it makes, and how many subscribers one result reaches.

use super::{Outcome, Server, Size, bare, nanos, party};
use crate::measure::Measurement;
use hdrhistogram::Histogram;
use std::ops::Range;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tidegate_actors::runtime::IdleStrategy;
use tidegate_engine::{Event, Price, Size as Amount};
use tidegate_live::Threads;
use tidegate_proto::subscription::{Start, Subscription};
use tidegate_quic::{Arrival, ClientOptions, Publisher, PublisherOptions, Subscriber, Update};

/// Ticks a second of the latency figures.
pub(super) const RATE: u64 = 100_000;
/// Ticks of a bar: so many results are a tenth of the ticks.
pub(super) const PER_BAR: u64 = 10;

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are valid")
}

/// An open-loop schedule: says which ticks are due, however late it is asked.
pub(super) struct Pace {
    start: Instant,
    rate: u64,
    next: u64,
    total: u64,
}

impl Pace {
    pub(super) fn new(start: Instant, rate: u64, total: u64) -> Self {
        Self { start, rate, next: 0, total }
    }

    /// Waits until at least one tick is due; `None` after the last. Gives the core away while it waits, to tasks and threads.
    pub(super) async fn due(&mut self) -> Option<Range<u64>> {
        if self.next == self.total {
            return None;
        }
        loop {
            let due = match Instant::now().checked_duration_since(self.start) {
                Some(since) => (nanos(since) * self.rate / 1_000_000_000 + 1).min(self.total),
                None => 0,
            };
            if due > self.next {
                return Some(std::mem::replace(&mut self.next, due)..due);
            }
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }
}

fn tick(start_ns: u64, at: u64, rate: u64, key: u32) -> Event {
    Event::trade(start_ns + at * 1_000_000_000 / rate, key, 0, Price(1_000), Amount(5), 0)
}

/// Event time of the first tick.
pub(super) const T0: u64 = 1_700_000_000_000_000_000;

/// Publishes `total` ticks of `keys` keys at `rate`; returns when all are acknowledged.
pub(super) async fn publish(
    client: ClientOptions,
    start: Instant,
    rate: u64,
    total: u64,
    keys: u32,
) -> Outcome<()> {
    let publisher = Publisher::connect(client, PublisherOptions::default()).await?;
    for key in 0..keys {
        publisher.define(&format!("K{key}"))?;
    }
    let mut pace = Pace::new(start, rate, total);
    let mut events = Vec::new();
    while let Some(due) = pace.due().await {
        events.clear();
        events.extend(due.map(|at| tick(T0, at, rate, (at / PER_BAR) as u32 % keys)));
        publisher.send(&events).await?;
    }
    publisher.finish().await?;
    Ok(())
}

/// A few bars of each of 16 keys.
pub(super) async fn some(publisher: &Publisher, start: Instant) -> Outcome<()> {
    for key in 0..16 {
        publisher.define(&format!("K{key}"))?;
    }
    let since = nanos(start.elapsed());
    let events: Vec<Event> =
        (0..1_600).map(|at| tick(T0 + since, at, RATE, (at / PER_BAR) as u32 % 16)).collect();
    publisher.send(&events).await?;
    publisher.settle().await?;
    Ok(())
}

pub(super) fn subscription(stream: &str) -> Subscription {
    Subscription { streams: vec![stream.to_owned()], start: Start::Latest, ..Subscription::default() }
}

/// Ticks at 100,000 a second, a bar from every ten, to one subscriber: from the intended time of the tick that closes a bar.
fn tick_to_subscriber(threads: Threads, idle: IdleStrategy, seconds: u64) -> Outcome<Histogram<u64>> {
    let server = Server::start(&format!("{PER_BAR}t"), threads, idle, 1_200)?;
    let (start, total) = (Instant::now() + Duration::from_millis(300), RATE * seconds);
    // Both clients on one thread: with one each there would be three threads that want two cores, and the slowest percent would be
    // that of the system's scheduler.
    let histogram = party()?.block_on(async {
        let (ready_in, ready) = tokio::sync::oneshot::channel();
        let reading = read_all(server.client.clone(), start, total / PER_BAR, || _ = ready_in.send(()));
        let publishing = async {
            ready.await?;
            publish(server.client.clone(), start, RATE, total, 16).await
        };
        let (histogram, published) = tokio::join!(reading, publishing);
        published?;
        histogram
    })?;
    server.end()?;
    Ok(histogram)
}

/// Publishes at the steady rate while `read` reads in a thread of its own; it says when it is ready, and gets the time of the first
/// tick and how many results there will be.
pub(super) fn paced(
    server: &Server,
    seconds: u64,
    read: impl FnOnce(Instant, u64, Sender<()>) -> Outcome<Histogram<u64>> + Send,
) -> Outcome<Histogram<u64>> {
    let start = Instant::now() + Duration::from_millis(300);
    let total = RATE * seconds;
    std::thread::scope(|scope| {
        let (ready_in, ready) = std::sync::mpsc::channel();
        let reader = scope.spawn(move || read(start, total / PER_BAR, ready_in));
        if ready.recv().is_ok() {
            party()?.block_on(publish(server.client.clone(), start, RATE, total, 16))?;
        }
        reader.join().map_err(|_| "the subscriber panicked")?
    })
}

/// Reads `count` results over QUIC: how long after its intended time each came.
pub(super) fn reader(
    client: ClientOptions,
    start: Instant,
    count: u64,
    ready: Sender<()>,
) -> Outcome<Histogram<u64>> {
    party()?.block_on(read_all(client, start, count, || _ = ready.send(())))
}

async fn read_all(
    client: ClientOptions,
    start: Instant,
    count: u64,
    ready: impl FnOnce(),
) -> Outcome<Histogram<u64>> {
    let stream = format!("bars.{PER_BAR}t");
    let mut subscriber = Subscriber::connect(client, "bench", subscription(&stream)).await?;
    ready();
    let mut histogram = histogram();
    let mut lost = None;
    while histogram.len() < count {
        let read = subscriber.read(|arrival| match arrival {
            Arrival::Record { output, .. } => {
                let since = output.ts - T0;
                histogram.saturating_record(nanos(start.elapsed()).saturating_sub(since));
            }
            Arrival::Other(Update::Loss(loss)) => lost = Some(loss),
            Arrival::Other(_) => {}
        });
        if !read.await? {
            return Err("the subscription ended".into());
        }
        if let Some(loss) = lost {
            return Err(format!("lost: {loss:?}").into());
        }
    }
    subscriber.close().await;
    Ok(histogram)
}

/// Latencies of the server on threads and fused, each also without ever sleeping, and of the bare loop.
///
/// # Errors
/// As [`super::run`].
pub fn latency(size: Size) -> Outcome<Vec<Measurement>> {
    let names = [
        "tick_to_subscriber",
        "tick_to_subscriber_spin",
        "tick_to_subscriber_fused",
        "tick_to_subscriber_fused_spin",
        "quic_bare_echo",
    ];
    let mut found: Vec<Measurement> = names
        .iter()
        .flat_map(|name| ["p50", "p99"].map(|what| Measurement::new(format!("{name}_{what}"), "ns")))
        .collect();
    for _ in 0..size.rounds {
        let runs = [
            tick_to_subscriber(Threads::Separate, IdleStrategy::default(), size.seconds)?,
            tick_to_subscriber(Threads::Separate, IdleStrategy::Yield, size.seconds)?,
            tick_to_subscriber(Threads::Fused, IdleStrategy::default(), size.seconds)?,
            tick_to_subscriber(Threads::Fused, IdleStrategy::Spin, size.seconds)?,
            bare::echo(RATE, PER_BAR, size.seconds)?,
        ];
        for (pair, run) in found.chunks_mut(2).zip(&runs) {
            pair[0].runs.push(run.value_at_quantile(0.5) as f64);
            pair[1].runs.push(run.value_at_quantile(0.99) as f64);
        }
    }
    Ok(found)
}

/// Runs `readers` subscriptions, all in one thread, until each has `each` records; returns the time from the first record to
/// the last, and the largest latency percentiles when ticks carry their times.
fn readers(
    server: &Server,
    stream: &str,
    count: usize,
    each: u64,
    rate: u64,
    total: u64,
) -> Outcome<(f64, u64)> {
    let start = Instant::now() + Duration::from_millis(500) + Duration::from_millis(2) * count as u32;
    std::thread::scope(|scope| {
        let client = server.client.clone();
        let (ready_in, ready) = std::sync::mpsc::channel();
        let stream = stream.to_owned();
        let reading = scope.spawn(move || -> Outcome<(f64, u64)> {
            party()?.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for at in 0..count {
                    let mut subscriber =
                        Subscriber::connect(client.clone(), &format!("r{at}"), subscription(&stream)).await?;
                    tasks.spawn(async move {
                        let (mut seen, mut lost, mut bytes) = (0u64, 0u64, 0);
                        while seen + lost < each {
                            let read = subscriber.read(|arrival| match arrival {
                                Arrival::Record { output, .. } => {
                                    seen += 1;
                                    bytes += output.record_bytes().len();
                                }
                                Arrival::Other(Update::Loss(loss)) => lost += loss.count,
                                Arrival::Other(_) => {}
                            });
                            if !matches!(read.await, Ok(true)) {
                                break;
                            }
                        }
                        std::hint::black_box(bytes);
                        (seen, Instant::now(), subscriber)
                    });
                }
                ready_in.send(())?;
                let (mut got, mut last) = (0, start);
                while let Some(done) = tasks.join_next().await {
                    let (seen, at, subscriber) = done?;
                    got += seen;
                    last = last.max(at);
                    drop(subscriber);
                }
                Ok((last.duration_since(start).as_secs_f64(), got))
            })
        });
        ready.recv()?;
        party()?.block_on(publish(server.client.clone(), start, rate, total, 16))?;
        reading.join().map_err(|_| "the readers panicked")?
    })
}

/// Every result to 64 subscribers, as fast as it goes.
///
/// # Errors
/// As [`super::run`].
pub fn fan_out(size: Size) -> Outcome<Vec<Measurement>> {
    const READERS: usize = 64;
    let mut found = [
        ("fan_out_64", "bars.10t", Threads::Separate, 1_200),
        ("fan_out_64_fused", "bars.10t", Threads::Fused, 1_200),
        ("fan_out_64_rows_fused", "ind.10t", Threads::Fused, 1_200),
        ("fan_out_64_rows_separate_6500", "ind.10t", Threads::Separate, 6_500),
        ("fan_out_64_rows_fused_6500", "ind.10t", Threads::Fused, 6_500),
    ]
    .map(|(name, stream, threads, mtu)| (Measurement::new(name, "messages/s"), stream, threads, mtu));
    for _ in 0..size.rounds {
        for (rate, stream, threads, mtu) in &mut found {
            let server = Server::with_rows("10t", *threads, *mtu)?;
            // The hub's ring keeps what a reader may be behind; the feed is slower than what it can take.
            let results = 20_000 * size.seconds;
            let (seconds, got) = readers(&server, stream, READERS, results, 2_000_000, results * PER_BAR)?;
            server.end()?;
            if got != results * READERS as u64 {
                return Err(format!("{got} of {} messages came", results * READERS as u64).into());
            }
            rate.runs.push(got as f64 / seconds);
        }
    }
    Ok(found.map(|(rate, ..)| rate).into())
}

/// A thousand subscribers of a stream of 100 results a second.
///
/// # Errors
/// As [`super::run`].
pub fn crowd(size: Size) -> Outcome<Vec<Measurement>> {
    const READERS: usize = 1_000;
    let mut share = Measurement::new("crowd_1000_delivered", "share");
    let server = Server::start("10t", Threads::Auto, IdleStrategy::default(), 1_200)?;
    let results = 100 * size.seconds;
    let (_, got) = readers(&server, "bars.10t", READERS, results, 1_000, results * PER_BAR)?;
    server.end()?;
    share.runs.push(got as f64 / (results * READERS as u64) as f64);
    Ok(vec![share])
}
