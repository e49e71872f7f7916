//! `tidegate bench --cluster`: nodes of this very program as processes on this machine, a feed and readers in this one.
//!
//! What is measured is what a feed or a reader sees: how long nothing comes while a leader hands over or was killed, how long an
//! acknowledgement takes, how much goes in. Every reader checks that it has each result once.

use super::nodes::{Load, Nodes, Reader};
use crate::exit::Failure;
use crate::progress::Bar;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use tidegate_benches::live::bare;
use tidegate_benches::w1::{W1, generate};
use tidegate_engine::Event;
use tidegate_proto::AckMode;
use tidegate_quic::{ClientOptions, Publisher, PublisherOptions};

/// How much to measure.
struct Size {
    acks: usize,
    moves: usize,
    kills: usize,
    events: usize,
    rounds: usize,
}

const FULL: Size = Size { acks: 3_000, moves: 100, kills: 20, events: 2_000_000, rounds: 5 };
const QUICK: Size = Size { acks: 500, moves: 10, kills: 4, events: 400_000, rounds: 1 };

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Acknowledgements `committed`, beside a bare round trip.
    Acks,
    /// Planned hand-offs under load.
    Moves,
    /// Leaders killed under load.
    Kills,
    /// Events a second, alone and with a follower.
    Ingest,
}

/// What a figure is to be.
#[derive(Clone, Copy)]
enum Goal {
    None,
    P99Below(f64),
    /// The median, and the slowest.
    Below(f64, f64),
    MedianBelow(f64),
    MedianAbove(f64),
}

/// One figure, of many samples.
pub(super) struct Figure {
    name: &'static str,
    unit: &'static str,
    samples: Vec<f64>,
    goal: Goal,
}

impl Figure {
    fn new(name: &'static str, unit: &'static str, goal: Goal) -> Self {
        Self { name, unit, samples: Vec::new(), goal }
    }

    fn push_span(&mut self, span: Duration) {
        self.samples.push(span.as_nanos() as f64);
    }

    /// The sample that this part of all does not exceed; not a number without samples.
    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(at.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The goal in words, and whether it is met.
    fn goal(&self) -> Option<(String, bool)> {
        let ms = |ns: f64| ns / 1e6;
        Some(match self.goal {
            Goal::None => return None,
            Goal::P99Below(most) => (format!("p99 under {} ms", ms(most)), self.quantile(0.99) < most),
            Goal::Below(median, most) => (
                format!("median under {} ms, all under {} ms", ms(median), ms(most)),
                self.median() < median && self.quantile(1.0) < most,
            ),
            Goal::MedianBelow(most) => (format!("at most {most}"), self.median() <= most),
            Goal::MedianAbove(least) => (format!("at least {least}"), self.median() >= least),
        })
    }

    fn json(&self) -> Value {
        let goal = self.goal();
        json!({
            "unit": self.unit, "p50": self.median(), "p99": self.quantile(0.99), "min": self.quantile(0.0), "max": self.quantile(1.0),
            "count": self.samples.len(), "goal": goal.as_ref().map(|(words, _)| words), "met": goal.map(|(_, met)| met),
        })
    }

    /// For people: name, median, 99th percentile, most, how many, and the goal.
    pub(super) fn row(&self) -> [String; 6] {
        let show = |value: f64| match self.unit {
            "ns" => crate::render::duration(value as u64),
            "ratio" => format!("{value:.2}"),
            _ => crate::render::rate(value),
        };
        let goal = match self.goal() {
            None => String::new(),
            Some((words, true)) => format!("met: {words}"),
            Some((words, false)) => format!("missed: {words}"),
        };
        [
            self.name.to_owned(),
            show(self.median()),
            show(self.quantile(0.99)),
            show(self.quantile(1.0)),
            self.samples.len().to_string(),
            goal,
        ]
    }
}

/// All figures as one object.
pub(super) fn object(figures: &[Figure]) -> Value {
    Value::Object(figures.iter().map(|figure| (figure.name.to_owned(), figure.json())).collect::<Map<_, _>>())
}

/// Measures; all parts, or those that are named.
pub(super) fn run(quick: bool, parts: &[Part], spinner: &Bar) -> Result<Vec<Figure>, Failure> {
    let size = if quick { QUICK } else { FULL };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tg-bench")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))?;
    let wanted = |part: Part| parts.is_empty() || parts.contains(&part);
    let mut found = Vec::new();
    if wanted(Part::Acks) {
        spinner.at(0, "acknowledgements, beside a bare round trip".to_owned());
        // One thread for the feed as for the bare round trip.
        let alone = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let alone = alone.map_err(|error| Failure::internal(format!("no thread for the feed: {error}")))?;
        found.extend(alone.block_on(acks(&size))?);
    }
    if wanted(Part::Moves) {
        spinner.at(0, "hand-offs under load".to_owned());
        found.extend(runtime.block_on(moves(&size, spinner))?);
    }
    if wanted(Part::Kills) {
        spinner.at(0, "leaders killed under load".to_owned());
        found.extend(runtime.block_on(kills(&size, spinner))?);
    }
    if wanted(Part::Ingest) {
        spinner.at(0, "ingest, alone and with a follower".to_owned());
        found.extend(runtime.block_on(ingest(&size))?);
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(found)
}

/// One event at a time to three nodes, each acknowledged before the next; and as many round trips of nothing but quinn.
async fn acks(size: &Size) -> Result<Vec<Figure>, Failure> {
    let nodes = Nodes::start(3, "1t")?;
    nodes.settled().await?;
    let publisher = publisher(nodes.client(None)?, "acks", AckMode::Committed).await?;
    let mut acked = Figure::new("committed_ack", "ns", Goal::None);
    let mut bare_trip = Figure::new("bare_round_trip", "ns", Goal::None);
    let mut ratio = Figure::new("committed_ack_over_bare", "ratio", Goal::MedianBelow(3.0));
    publisher.define("K0").map_err(crate::place::failure)?;
    publisher.settle().await.map_err(crate::place::failure)?;
    // In turns, so that what the machine does besides hits both.
    const TURNS: usize = 10;
    let each = size.acks / TURNS;
    for turn in 0..TURNS {
        let mut trips = tokio::task::spawn_blocking(move || bare::round_trips(each, 64))
            .await
            .map_err(Failure::internal)?
            .map_err(Failure::internal)?;
        let mut acks = Vec::with_capacity(each);
        for at in 0..each {
            let event = super::nodes::tick((turn * each + at) as u64);
            let start = Instant::now();
            publisher.send(&[event]).await.map_err(crate::place::failure)?;
            publisher.settle().await.map_err(crate::place::failure)?;
            acks.push(start.elapsed());
        }
        acks.iter().for_each(|span| acked.push_span(*span));
        trips.iter().for_each(|span| bare_trip.push_span(*span));
        acks.sort_unstable();
        trips.sort_unstable();
        ratio.samples.push(acks[each / 2].as_secs_f64() / trips[each / 2].as_secs_f64());
    }
    publisher.finish().await.map_err(crate::place::failure)?;
    Ok(vec![acked, bare_trip, ratio])
}

async fn publisher(client: ClientOptions, name: &str, ack_mode: AckMode) -> Result<Publisher, Failure> {
    let options = PublisherOptions { name: name.to_owned(), ack_mode, ..PublisherOptions::default() };
    Publisher::connect(client, options).await.map_err(crate::place::failure)
}

/// A leader hands over to the next node in sync, again and again, while a thousand events a second come. What a reader at the
/// third node sees: the longest time without a result around each, and around as long a time without one.
async fn moves(size: &Size, spinner: &Bar) -> Result<Vec<Figure>, Failure> {
    let nodes = Nodes::start(3, "1t")?;
    let mut status = nodes.settled().await?;
    let load = Load::start(nodes.client(None)?).await?;
    let mut pause = Figure::new("hand_off_pause", "ns", Goal::P99Below(10e6));
    let mut calm = Figure::new("hand_off_pause_without_one", "ns", Goal::None);
    for done in 0..size.moves {
        spinner.at(0, format!("hand-offs under load, {done} of {}", size.moves));
        let target = status.leader % 3 + 1;
        let reads_at = (1..=3).find(|node| ![status.leader, target].contains(node)).unwrap_or(1);
        let mut reader = Reader::start(nodes.client(Some(reads_at))?).await?;
        reader.flows().await?;
        calm.push_span(reader.longest_over(Duration::from_millis(200)).await?);
        let before = reader.mark();
        reader.during(nodes.transfer(target)).await?;
        reader.caught_up(load.offered() + 100).await?;
        pause.push_span(reader.longest_since(before)?);
        status = nodes.settled().await?;
        if status.leader != target {
            return Err(Failure::internal(format!("node {} leads, and {target} was to", status.leader)));
        }
    }
    load.end().await?;
    Ok(vec![pause, calm])
}

/// The leader is killed again and again while a thousand events a second come, and started again. What a reader sees that was connected
/// to it, and one that was not.
async fn kills(size: &Size, spinner: &Bar) -> Result<Vec<Figure>, Failure> {
    let mut nodes = Nodes::start(3, "1t")?;
    let mut status = nodes.settled().await?;
    let load = Load::start(nodes.client(None)?).await?;
    let goal = Goal::Below(700e6, 1_500e6);
    let mut there = Figure::new("fail_over_reader_of_killed_node", "ns", goal);
    let mut elsewhere = Figure::new("fail_over_reader_of_other_node", "ns", goal);
    for done in 0..size.kills {
        spinner.at(0, format!("leaders killed under load, {done} of {}", size.kills));
        let other = status.leader % 3 + 1;
        let mut at_leader = Reader::start(nodes.client(Some(status.leader))?).await?;
        let mut at_other = Reader::start(nodes.client(Some(other))?).await?;
        at_leader.flows().await?;
        at_other.flows().await?;
        let (mark, other_mark) = (at_leader.mark(), at_other.mark());
        nodes.kill(status.leader)?;
        let goes_on = load.offered() + 200;
        at_leader.caught_up(goes_on).await?;
        at_other.caught_up(goes_on).await?;
        there.push_span(at_leader.longest_since(mark)?);
        elsewhere.push_span(at_other.longest_since(other_mark)?);
        nodes.serve(status.leader)?;
        status = nodes.settled().await?;
    }
    load.end().await?;
    Ok(vec![there, elsewhere])
}

/// Events a second from the first one to the last acknowledgement: to a server that stands alone, and to a leader with a follower.
async fn ingest(size: &Size) -> Result<Vec<Figure>, Failure> {
    let work = W1 { events: size.events, ..W1::default() };
    let events = generate(work);
    let mut alone = Figure::new("ingest_alone", "events/s", Goal::None);
    let mut replicated = Figure::new("ingest_with_a_follower", "events/s", Goal::None);
    let mut ratio = Figure::new("ingest_with_a_follower_over_alone", "ratio", Goal::MedianAbove(0.5));
    for _ in 0..size.rounds {
        let server = Nodes::alone("1s")?;
        let one = ingested(&events, work.symbols, server.client(None)?, AckMode::Leader).await?;
        drop(server);
        let nodes = Nodes::start(2, "1s")?;
        nodes.settled().await?;
        let two = ingested(&events, work.symbols, nodes.client(None)?, AckMode::Committed).await?;
        alone.samples.push(one);
        replicated.samples.push(two);
        ratio.samples.push(two / one);
    }
    Ok(vec![alone, replicated, ratio])
}

async fn ingested(
    events: &[Event],
    symbols: usize,
    client: ClientOptions,
    ack_mode: AckMode,
) -> Result<f64, Failure> {
    let publisher = publisher(client, "ingest", ack_mode).await?;
    for key in 0..symbols {
        publisher.define(&format!("S{key:04}")).map_err(crate::place::failure)?;
    }
    publisher.settle().await.map_err(crate::place::failure)?;
    let start = Instant::now();
    for chunk in events.chunks(8_192) {
        publisher.send(chunk).await.map_err(crate::place::failure)?;
    }
    publisher.settle().await.map_err(crate::place::failure)?;
    let rate = events.len() as f64 / start.elapsed().as_secs_f64();
    let stats = publisher.finish().await.map_err(crate::place::failure)?;
    if stats.lost_by_server > 0 {
        return Err(Failure::internal(format!("{} events were lost", stats.lost_by_server)));
    }
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_met_or_missed_by_what_they_are_about() {
        let of = |goal: Goal, samples: &[f64]| {
            let figure = Figure { samples: samples.to_vec(), ..Figure::new("x", "ns", goal) };
            figure.goal().map(|(_, met)| met)
        };
        let mostly: Vec<f64> = (0..100).map(|at| if at == 99 { 50e6 } else { 5e6 }).collect();
        assert_eq!(of(Goal::P99Below(10e6), &mostly), Some(true), "one of a hundred may be slow");
        assert_eq!(of(Goal::P99Below(10e6), &mostly[50..]), Some(false));
        assert_eq!(of(Goal::Below(700e6, 1_500e6), &[600e6, 1_400e6, 650e6]), Some(true));
        assert_eq!(of(Goal::Below(700e6, 1_500e6), &[600e6, 1_600e6, 650e6]), Some(false));
        assert_eq!(
            (of(Goal::MedianBelow(3.0), &[3.5, 2.9, 2.0]), of(Goal::MedianAbove(0.5), &[0.4])),
            (Some(true), Some(false))
        );
        assert_eq!((of(Goal::None, &[1.0]), of(Goal::P99Below(1.0), &[])), (None, Some(false)));
    }
}
