//! `tidegate publish`: any input into a server.

use crate::cli::{AckArg, GenerateArg, PublishArgs, PublishGenerateArgs, PublishMade, PublishTo};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::render::{Table, Ui, duration, rate, thousands};
use crate::stdin::Pipe;
use crate::{place, plan, topic};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_engine::{Event, name_hash};
use tidegate_proto::AckMode;
use tidegate_quic::{PublishStats, Publisher, PublisherOptions};
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions, W1, W1Options};
use tidegate_replay::merge::Merge;
use tidegate_replay::{ReadError, Source, Speed};

/// Events taken from a pipe at a time.
const PIPE_EVENTS: usize = 8_192;

/// Where events come from.
enum Input {
    Sources(Vec<Box<dyn Source>>),
    Stdin(Pipe),
}

/// The input, and a text that is the same exactly when it is.
fn input(args: &PublishArgs) -> Result<(Input, String), Failure> {
    if let Some(PublishMade::Generate(made)) = &args.made {
        return made_up(made);
    }
    if args.files.iter().any(|file| file == Path::new("-")) {
        if args.files.len() > 1 {
            return Err(Failure::usage("`-` stands alone: a pipe has no end to merge other inputs with"));
        }
        let pipe = Pipe::stdin(args.read.options())
            .map_err(|error| Failure::internal(format!("no thread to read the input: {error}")))?;
        // What came through a pipe cannot come again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok((Input::Stdin(pipe), format!("stdin {} {}", std::process::id(), now.as_nanos())));
    }
    if args.files.first().is_some_and(|file| file == Path::new("generate") && !file.exists()) {
        let text = "options go behind it: tidegate publish generate market|network|w1 [--speed 10 …]";
        return Err(Failure::usage(text));
    }
    let mut identity = String::from("files");
    for file in &args.files {
        let (len, modified) =
            std::fs::metadata(file).map(|meta| (meta.len(), meta.modified().ok())).unwrap_or_default();
        let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.clone());
        identity += &format!("\n{} {len} {modified:?}", path.display());
    }
    identity += &format!("\n{:?} {:?}", args.read.from, args.read.to);
    Ok((Input::Sources(plan::open_all(&args.files, &args.read.options())?), identity))
}

fn made_up(args: &PublishGenerateArgs) -> Result<(Input, String), Failure> {
    let (seed, events) = (args.seed, args.events);
    let count = |of: &str, usual: u32, max: u32| {
        let count = args.symbols.unwrap_or(usual);
        if count <= max {
            return Ok(count);
        }
        Err(Failure::usage(format!("--symbols is {count}, allowed are 4 to {max} for a {of}")))
    };
    let source: Box<dyn Source> = match args.what {
        GenerateArg::Market => {
            let symbols = count("market", 200, 4_096)?;
            Box::new(Market::new(MarketOptions { seed, events, symbols, ..MarketOptions::default() }))
        }
        GenerateArg::Network => {
            let desks = count("network", 56, 200)?;
            Box::new(Network::new(NetworkOptions { seed, events, desks, ..NetworkOptions::default() }))
        }
        GenerateArg::W1 => {
            let symbols = args.symbols.unwrap_or(2_000);
            Box::new(W1::new(W1Options { seed, events, symbols, ..W1Options::default() }))
        }
    };
    let identity = format!("generate {:?} {events} {:?} {seed}", args.what, args.symbols);
    Ok((Input::Sources(vec![source]), identity))
}

/// What a server is told of a run of the feed `name`.
pub(crate) fn feed(to: &PublishTo, name: &str, session: u64) -> PublisherOptions {
    PublisherOptions {
        source_id: name_hash(name.as_bytes()),
        session,
        name: name.to_owned(),
        ack_mode: match to.ack {
            AckArg::None => AckMode::None,
            AckArg::Leader => AckMode::Leader,
            AckArg::Committed => AckMode::Committed,
            AckArg::Durable => AckMode::Durable,
        },
        datagrams: to.datagrams,
        ..PublisherOptions::default()
    }
}

/// A thread for the connection, beside the one that reads the input.
pub(crate) fn network() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tg-network")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))
}

pub(crate) fn run(args: &PublishArgs, ui: &Ui) -> Outcome {
    let to = match &args.made {
        Some(PublishMade::Generate(made)) => &made.to,
        None => &args.to,
    };
    if let Some(url) = topic::named(&args.files)? {
        return topic::publish(args, url, ui);
    }
    if args.topic.header.is_some() || args.topic.idle_exit.is_some() || !args.topic.kafka_client.is_empty() {
        let text =
            "--header, --idle-exit and --kafka-client are for a topic of Kafka: kafka://HOST:PORT/TOPIC";
        return Err(Failure::usage(text));
    }
    let options = place::client(&to.server)?;
    let (input, identity) = input(args)?;
    let interrupt = Interrupt::listen()?;
    let session = to.session.unwrap_or_else(|| name_hash(identity.as_bytes()));
    let publisher = feed(to, to.name.as_deref().unwrap_or("publish"), session);
    let network = network()?;
    let total = match &input {
        Input::Sources(sources) => sources.iter().map(|source| source.progress().bytes_total).sum(),
        Input::Stdin(_) => 0,
    };
    let bar = Bar::new(ui, "publishing", total);
    let start = Instant::now();
    let outcome = network.block_on(async {
        let publisher =
            Publisher::connect(options, publisher).await.map_err(|error| (place::failure(error), None))?;
        let left = to.count.unwrap_or(u64::MAX);
        let mut out = Out::new(publisher, to.speed, left, start, &interrupt, &bar);
        let whole = !matches!(input, Input::Stdin(_));
        if let Err(failure) = out.all(input, ui).await {
            return Err((failure, Some((out.publisher.stats(), whole))));
        }
        let held = out.held;
        let finished = out.publisher.finish().await.map_err(place::failure);
        finished.map(|stats| (stats, held)).map_err(|failure| (failure, None))
    });
    network.shutdown_timeout(Duration::from_secs(1));
    bar.clear();
    let (stats, held) = outcome.map_err(|(failure, at)| {
        if let Some((stats, again)) = at {
            stands(&stats, again, ui);
        }
        failure
    })?;
    tell(to, ui, stats, start.elapsed(), held, interrupt.raised());
    Ok(Exit::Ok)
}

/// How far it came before it failed.
fn stands(stats: &PublishStats, again: bool, ui: &Ui) {
    let again = if again { "; the same command goes on from there" } else { "" };
    let (offered, acked) = (thousands(stats.offered), thousands(stats.acked));
    ui.note(&format!("{offered} events were given to it, acknowledged are those up to {acked}{again}"));
}

pub(crate) fn tell_refused(ui: &Ui, refused: u64) {
    if refused > 0 {
        ui.note(&format!("refused in the input: {} rows or packets", thousands(refused)));
    }
}

/// What came through a pipe.
pub(crate) struct Piped {
    /// Rows or packets that made no sense.
    pub(crate) refused: u64,
    /// How the pipe ended; nothing if somebody said stop before it did.
    pub(crate) end: Option<Result<(), ReadError>>,
}

/// The way to the server.
pub(crate) struct Out<'a> {
    pub(crate) publisher: Publisher,
    pace: Pace,
    /// Events that may still be published.
    pub(crate) left: u64,
    /// Time spent waiting for the server to take more.
    pub(crate) held: Duration,
    start: Instant,
    interrupt: &'a Interrupt,
    bar: &'a Bar,
}

impl<'a> Out<'a> {
    pub(crate) fn new(
        publisher: Publisher,
        speed: Speed,
        left: u64,
        start: Instant,
        interrupt: &'a Interrupt,
        bar: &'a Bar,
    ) -> Self {
        Self { publisher, pace: Pace::new(speed), left, held: Duration::ZERO, start, interrupt, bar }
    }

    /// Publishes all of an input, as far as it is wanted, and waits until it is acknowledged.
    async fn all(&mut self, input: Input, ui: &Ui) -> Result<(), Failure> {
        let mut unread = None;
        match input {
            Input::Sources(sources) => self.sources(sources).await?,
            Input::Stdin(pipe) => {
                let Piped { refused, end } = self.pipe(&pipe).await?;
                tell_refused(ui, refused);
                unread = end.and_then(Result::err);
            }
        }
        // What came before a failure of the input is published; it is waited for before that is reported.
        self.publisher.settle().await.map_err(place::failure)?;
        unread.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Publishes until the input ends, the count is reached, or the user says stop.
    async fn sources(&mut self, sources: Vec<Box<dyn Source>>) -> Result<(), Failure> {
        let mut merge = Merge::new(sources);
        let mut defined = 0;
        let mut events: Vec<Event> = Vec::new();
        while self.goes_on() {
            merge.batch(&mut events);
            if events.is_empty() {
                break;
            }
            for (name, ..) in merge.names_from(defined) {
                self.publisher.define(&name).map_err(place::failure)?;
            }
            defined = merge.names().len();
            self.send(&mut events).await?;
            self.tell(merge.progress().bytes);
        }
        match merge.take_failure() {
            Some(error) => {
                // What came before is published; it is waited for before the failure is reported.
                self.publisher.settle().await.map_err(place::failure)?;
                Err(error.into())
            }
            None => Ok(()),
        }
    }

    /// The same for what comes through a pipe, as it comes.
    pub(crate) async fn pipe(&mut self, pipe: &Pipe) -> Result<Piped, Failure> {
        let mut refused = 0;
        while self.goes_on() {
            // In steps short enough for Ctrl-C.
            let Ok(mut come) = tokio::time::timeout(Duration::from_millis(50), pipe.next(PIPE_EVENTS)).await
            else {
                continue;
            };
            for name in &come.names {
                self.publisher.define(name).map_err(place::failure)?;
            }
            refused = come.refused;
            let whole = self.send(&mut come.events).await?;
            self.tell(come.bytes);
            if come.end.is_some() {
                return Ok(Piped { refused, end: come.end.filter(|_| whole) });
            }
        }
        Ok(Piped { refused, end: None })
    }

    fn goes_on(&self) -> bool {
        self.left > 0 && !self.interrupt.raised()
    }

    /// Whether all of them were sent, and not only as many as may be.
    async fn send(&mut self, events: &mut Vec<Event>) -> Result<bool, Failure> {
        let all = events.len();
        events.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        let cut = events.len() < all;
        self.left -= events.len() as u64;
        let mut rest = events.as_slice();
        while !rest.is_empty() && !self.interrupt.raised() {
            let (due, later) = rest.split_at(self.pace.due(rest, self.publisher.known(rest)));
            if due.is_empty() {
                tokio::time::sleep(self.pace.wait()).await;
                continue;
            }
            let before = Instant::now();
            self.publisher.send(due).await.map_err(place::failure)?;
            self.held += before.elapsed();
            rest = later;
        }
        Ok(rest.is_empty() && !cut)
    }

    /// The progress line: how fast, how much is on its way, and how much of the time the server held it back.
    fn tell(&self, bytes: u64) {
        if self.bar.is_shown() {
            let (stats, elapsed) = (self.publisher.stats(), self.start.elapsed());
            self.bar.at(bytes, progress(&stats, elapsed, self.held));
        }
    }
}

fn progress(stats: &PublishStats, elapsed: Duration, held: Duration) -> String {
    if !stats.connected {
        return format!("{} kept, the server does not answer", thousands(stats.unacked));
    }
    let seconds = elapsed.as_secs_f64().max(1e-9);
    format!(
        "{}, {} unacknowledged, held back {:.0} %",
        rate(stats.offered.saturating_sub(stats.skipped) as f64 / seconds),
        thousands(stats.unacked),
        100.0 * held.as_secs_f64() / seconds
    )
}

/// Lets events go when their time has come.
struct Pace {
    speed: Speed,
    start: Option<(Instant, u64)>,
    next: Option<Instant>,
}

impl Pace {
    fn new(speed: Speed) -> Self {
        Self { speed, start: None, next: None }
    }

    /// How many of `events` are due; the first `known` of them are with the server already.
    fn due(&mut self, events: &[Event], known: usize) -> usize {
        let Speed::Times(speed) = self.speed else { return events.len() };
        if known > 0 {
            // Nobody waits for what was told before: the pace is that of what is new.
            self.start = None;
            return known;
        }
        let now = Instant::now();
        let Some(first) = events.iter().find(|event| !event.is_control()) else { return events.len() };
        let (start, first) = *self.start.get_or_insert((now, first.ts_event));
        let at = |event: &Event| {
            start
                + Duration::from_secs_f64(
                    event.ts_event.saturating_sub(first) as f64 * 1e-9 / speed.max(1e-6),
                )
        };
        let early = |event: &&Event| !event.is_control() && at(event) > now;
        let count = events.iter().position(|event| early(&event)).unwrap_or(events.len());
        self.next = events.get(count).map(at);
        count
    }

    /// How long until the next is due, in steps short enough for Ctrl-C.
    fn wait(&self) -> Duration {
        let left = self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        left.clamp(Duration::from_micros(100), Duration::from_millis(50))
    }
}

/// The account of what was published.
pub(crate) fn tell(
    args: &PublishTo,
    ui: &Ui,
    stats: PublishStats,
    elapsed: Duration,
    held: Duration,
    stopped: bool,
) {
    // What is about no key is skipped in each group.
    let sent = stats.offered.saturating_sub(stats.skipped);
    let per_second = sent as f64 / elapsed.as_secs_f64().max(1e-9);
    if args.json {
        return ui.print_json(&json!({
            "offered": stats.offered, "skipped": stats.skipped, "published": sent, "acked": stats.acked,
            "connections": stats.connections, "lost_by_server": stats.lost_by_server,
            "seconds": elapsed.as_secs_f64(), "held_back_seconds": held.as_secs_f64(), "events_per_second": per_second, "stopped": stopped,
        }));
    }
    let mut facts = Table::facts();
    let early = if stopped { ", ended early by the user" } else { "" };
    facts.fact("published", format!("{} events{early}", thousands(sent)));
    if stats.skipped > 0 {
        facts.fact(
            "skipped",
            format!("{}, which the server had from an earlier run", thousands(stats.skipped)),
        );
    }
    let promise = match args.ack {
        _ if args.datagrams => None,
        AckArg::None => None,
        AckArg::Leader => Some("leader: in the server's log"),
        AckArg::Committed => Some("committed: in the logs of enough nodes"),
        AckArg::Durable => Some("durable: in the server's journal, for good"),
    };
    if args.datagrams {
        facts.fact("acknowledged", "nothing: datagrams that were lost are counted by the server");
    } else if let Some(promise) = promise {
        facts.fact("acknowledged", format!("up to {} ({promise})", thousands(stats.acked)));
    }
    if stats.lost_by_server > 0 {
        let lost = thousands(stats.lost_by_server);
        facts.fact("lost", format!("{lost}, sent before the server or the connection broke"));
    }
    if stats.connections > 1 {
        facts.fact("connections", thousands(stats.connections));
    }
    facts.fact("took", format!("{}, {} events", duration(elapsed.as_nanos() as u64), rate(per_second)));
    if held > elapsed / 100 {
        facts.fact("held back", format!("{} of it, by the server", duration(held.as_nanos() as u64)));
    }
    ui.print(&facts.render(ui, 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_line_shows_who_is_waited_for() {
        let stats =
            PublishStats { offered: 10_000, unacked: 4_096, connected: true, ..PublishStats::default() };
        let line = progress(&stats, Duration::from_secs(2), Duration::from_millis(500));
        assert_eq!(line, "5.0 k/s, 4,096 unacknowledged, held back 25 %");
        let stats = PublishStats { connected: false, ..stats };
        let line = progress(&stats, Duration::from_secs(2), Duration::ZERO);
        assert_eq!(line, "4,096 kept, the server does not answer");
    }

    #[test]
    fn nobody_waits_for_what_the_server_has() {
        const HOUR: u64 = 3_600_000_000_000;
        let event = |ts_event| Event { ts_event, kind: tidegate_engine::kind::SAMPLE, ..Event::default() };
        let mut pace = Pace::new(Speed::Times(1.0));
        let events = [0, HOUR, 2 * HOUR, 2 * HOUR, 3 * HOUR].map(event);
        assert_eq!(pace.due(&events, 2), 2);
        // From the first that is new on.
        assert_eq!(pace.due(&events[2..], 0), 2);
        assert_eq!(pace.due(&events[4..], 0), 0);
        assert!(pace.wait() > Duration::ZERO);
    }
}
