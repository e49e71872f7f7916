//! `tidegate publish`: any input into a server.

use crate::cli::{AckArg, GenerateArg, PublishArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::render::{Table, Ui, duration, rate, thousands};
use crate::{place, plan};
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate_engine::{Event, name_hash};
use tidegate_proto::AckMode;
use tidegate_quic::{PublishStats, Publisher, PublisherOptions};
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions, W1, W1Options};
use tidegate_replay::merge::Merge;
use tidegate_replay::{Source, Speed};

/// The inputs, and a text that is the same exactly when they are.
fn inputs(args: &PublishArgs) -> Result<(Vec<Box<dyn Source>>, String), Failure> {
    let (seed, events) = (args.seed, args.events);
    let Some(what) = args.generate else {
        let mut identity = String::from("files");
        for file in &args.files {
            let (len, modified) =
                std::fs::metadata(file).map(|meta| (meta.len(), meta.modified().ok())).unwrap_or_default();
            let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.clone());
            identity += &format!("\n{} {len} {modified:?}", path.display());
        }
        identity += &format!("\n{:?} {:?}", args.read.from, args.read.to);
        return Ok((plan::open_all(&args.files, &args.read.options())?, identity));
    };
    let source: Box<dyn Source> = match what {
        GenerateArg::Market => {
            let symbols = args.symbols.unwrap_or(200);
            if symbols > 4_096 {
                return Err(Failure::usage(format!(
                    "--symbols is {symbols}, allowed are 4 to 4096 for a market"
                )));
            }
            Box::new(Market::new(MarketOptions { seed, events, symbols, ..MarketOptions::default() }))
        }
        GenerateArg::Network => {
            let desks = args.symbols.unwrap_or(56);
            if desks > 200 {
                return Err(Failure::usage(format!(
                    "--symbols is {desks}, allowed are 4 to 200 for a network"
                )));
            }
            Box::new(Network::new(NetworkOptions { seed, events, desks, ..NetworkOptions::default() }))
        }
        GenerateArg::W1 => {
            let symbols = args.symbols.unwrap_or(2_000);
            Box::new(W1::new(W1Options { seed, events, symbols, ..W1Options::default() }))
        }
    };
    Ok((vec![source], format!("generate {what:?} {events} {:?} {seed}", args.symbols)))
}

pub(crate) fn run(args: &PublishArgs, ui: &Ui) -> Outcome {
    let (sources, identity) = inputs(args)?;
    let options = place::client(&args.server)?;
    let interrupt = Interrupt::listen()?;
    let publisher = PublisherOptions {
        source_id: name_hash(args.name.as_bytes()),
        session: args.session.unwrap_or_else(|| name_hash(identity.as_bytes())),
        name: args.name.clone(),
        ack_mode: match args.ack {
            AckArg::None => AckMode::None,
            AckArg::Leader => AckMode::Leader,
        },
        ..PublisherOptions::default()
    };
    // A thread for the connection, beside this one, which reads the input.
    let network = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tg-network")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))?;
    let total = sources.iter().map(|source| source.progress().bytes_total).sum();
    let bar = Bar::new(ui, "publishing", total);
    let start = Instant::now();
    let outcome = network.block_on(async {
        let publisher = Publisher::connect(options, publisher).await.map_err(place::failure)?;
        feed(args, sources, &publisher, &interrupt, &bar).await?;
        publisher.finish().await.map_err(place::failure)
    });
    network.shutdown_timeout(Duration::from_secs(1));
    bar.clear();
    tell(args, ui, outcome?, start.elapsed(), interrupt.raised());
    Ok(Exit::Ok)
}

/// Publishes until the input ends, the count is reached, or the user says stop.
async fn feed(
    args: &PublishArgs,
    sources: Vec<Box<dyn Source>>,
    publisher: &Publisher,
    interrupt: &Interrupt,
    bar: &Bar,
) -> Result<(), Failure> {
    let mut merge = Merge::new(sources);
    let (mut defined, mut left) = (0, args.count.unwrap_or(u64::MAX));
    let mut pace = Pace::new(args.speed);
    let mut events: Vec<Event> = Vec::new();
    while left > 0 && !interrupt.raised() {
        merge.batch(&mut events);
        events.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        if events.is_empty() {
            break;
        }
        left -= events.len() as u64;
        for (name, ..) in merge.names_from(defined) {
            publisher.define(&name).map_err(place::failure)?;
        }
        defined = merge.names().len();
        let mut rest = events.as_slice();
        while !rest.is_empty() && !interrupt.raised() {
            let (due, later) = rest.split_at(pace.due(rest));
            if due.is_empty() {
                tokio::time::sleep(pace.wait()).await;
                continue;
            }
            publisher.send(due).await.map_err(place::failure)?;
            rest = later;
        }
        bar.at(merge.progress().bytes, "");
    }
    match merge.take_failure() {
        Some(error) => {
            // What came before is published; it is waited for before the failure is reported.
            publisher.settle().await.map_err(place::failure)?;
            Err(error.into())
        }
        None => Ok(()),
    }
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

    /// How many of `events` are due.
    fn due(&mut self, events: &[Event]) -> usize {
        let Speed::Times(speed) = self.speed else { return events.len() };
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

fn tell(args: &PublishArgs, ui: &Ui, stats: PublishStats, elapsed: Duration, stopped: bool) {
    let sent = stats.offered - stats.skipped;
    let per_second = sent as f64 / elapsed.as_secs_f64().max(1e-9);
    if args.json {
        return ui.print_json(&json!({
            "offered": stats.offered, "skipped": stats.skipped, "published": sent, "acked": stats.acked,
            "connections": stats.connections, "lost_by_server": stats.lost_by_server,
            "seconds": elapsed.as_secs_f64(), "events_per_second": per_second, "stopped": stopped,
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
    if args.ack == AckArg::Leader {
        facts.fact("acknowledged", format!("up to {} (leader: in the server's log)", thousands(stats.acked)));
    }
    if stats.lost_by_server > 0 {
        let lost = thousands(stats.lost_by_server);
        facts.fact("lost", format!("{lost}, which the server had acknowledged before it was restarted"));
    }
    if stats.connections > 1 {
        facts.fact("connections", thousands(stats.connections));
    }
    facts.fact("took", format!("{}, {} events", duration(elapsed.as_nanos() as u64), rate(per_second)));
    ui.print(&facts.render(ui, 0));
}
