//! What the demo shows, gathered from results and counters.

use crate::render::short_duration;
use hdrhistogram::Histogram;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_actors::runtime::ShardStats;
use tidegate_engine::{BarState, Cause, Output, Price, output_kind};
use tidegate_replay::pipeline::SinkError;
use tidegate_replay::{LiveStats, ResultSink, StreamInfo};

/// Points of the sparkline, ten a second.
const POINTS: usize = 300;
/// Points a rate is taken over.
const RATE_POINTS: usize = 10;

/// The latest of one symbol.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) first: i64,
    pub(super) last: Price,
    pub(super) vwap: Option<Price>,
    pub(super) high: Price,
    pub(super) low: Price,
    pub(super) trades: u64,
    pub(super) rsi: Option<f64>,
}

/// The latest of one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    /// End of its last window.
    ts: u64,
    pub(super) packets: u64,
    pub(super) peers: u64,
    pub(super) ports: u64,
    pub(super) unanswered: u64,
}

pub(super) struct Board {
    speed: f64,
    first_ts: u64,
    /// When the first event was due.
    start: Option<Instant>,
    pub(super) events: u64,
    pub(super) elapsed: Duration,
    pub(super) newest: u64,
    pub(super) shards: Vec<ShardStats>,
    /// Time and events of the last updates, for rates.
    counts: VecDeque<(Duration, u64)>,
    /// Events a second, ten points a second.
    pub(super) throughput: VecDeque<u64>,
    pub(super) rows: HashMap<String, Row>,
    pub(super) hosts: HashMap<String, Host>,
    pub(super) bars_final: u64,
    pub(super) bars_amended: u64,
    /// Bars by cause, in the order of [`Cause`].
    pub(super) by_cause: [u64; 7],
    /// Bars that know of lost events.
    pub(super) incomplete: u64,
    pub(super) rows_out: u64,
    latency: Histogram<u64>,
}

/// Nobody panics while holding the board; if so, what it shows is still the best there is.
pub(super) fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Sink(pub(super) Arc<Mutex<Board>>);

impl ResultSink for Sink {
    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), SinkError> {
        lock(&self.0).record(stream, name, output);
        Ok(())
    }
}

impl Board {
    pub(super) fn new(speed: f64, first_ts: u64) -> Self {
        Self {
            speed,
            first_ts,
            start: None,
            events: 0,
            elapsed: Duration::ZERO,
            newest: 0,
            shards: Vec::new(),
            counts: VecDeque::new(),
            throughput: VecDeque::new(),
            rows: HashMap::new(),
            hosts: HashMap::new(),
            bars_final: 0,
            bars_amended: 0,
            by_cause: [0; 7],
            incomplete: 0,
            rows_out: 0,
            // Three digits up to a minute; construction with constants cannot fail.
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are valid"),
        }
    }

    pub(super) fn live(&mut self, live: &LiveStats) {
        self.start.get_or_insert_with(|| Instant::now() - live.elapsed);
        self.events = live.events;
        self.elapsed = live.elapsed;
        self.newest = live.newest;
        self.shards.clone_from(&live.shards);
        if let Some(&(before, events)) = self.counts.back() {
            let seconds = (live.elapsed - before).as_secs_f64();
            if seconds > 0.01 {
                self.throughput.push_back(((live.events - events) as f64 / seconds) as u64);
            }
        }
        self.counts.push_back((live.elapsed, live.events));
        while self.counts.len() > RATE_POINTS + 1 {
            self.counts.pop_front();
        }
        while self.throughput.len() > POINTS {
            self.throughput.pop_front();
        }
    }

    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) {
        self.rows_out += 1;
        match output.kind {
            output_kind::BAR => {
                match output.state {
                    state if state == BarState::Amended as u8 => self.bars_amended += 1,
                    _ => self.bars_final += 1,
                }
                if let Some(count) = self.by_cause.get_mut(usize::from(output.cause)) {
                    *count += 1;
                }
                let bar = output.bar();
                self.incomplete += u64::from(bar.missing > 0);
                if stream.name != "bars.1s" {
                    return;
                }
                if output.cause == Cause::Watermark as u8 {
                    self.measure(output.ts);
                }
                let row = match self.rows.get_mut(name) {
                    Some(row) => row,
                    None => self.rows.entry(name.to_owned()).or_default(),
                };
                if output.state == BarState::Final as u8 {
                    if row.first == 0 {
                        row.first = bar.open;
                    }
                    row.trades += bar.trades;
                    row.last = Price(bar.close);
                    row.high = Price(bar.high);
                    row.low = Price(bar.low);
                    row.vwap = bar.vwap();
                }
            }
            output_kind::VALUES if stream.name == "ind.1s" => {
                if let Some(row) = self.rows.get_mut(name) {
                    row.rsi = output.values().next().filter(|rsi| rsi.is_finite());
                }
            }
            output_kind::HOST => {
                let host = match self.hosts.get_mut(name) {
                    Some(host) => host,
                    None => self.hosts.entry(name.to_owned()).or_default(),
                };
                // Words as `HOST_COLUMNS` has them.
                host.ts = output.ts;
                host.packets = output.words[1];
                host.peers = output.words[5];
                host.ports = output.words[6];
                host.unanswered = output.words[7];
            }
            _ => {}
        }
    }

    /// From the instant a bar's end was due, by the pace of the demo, to its being here.
    fn measure(&mut self, ts: u64) {
        let Some(start) = self.start else { return };
        let due =
            start + Duration::from_secs_f64(ts.saturating_sub(self.first_ts) as f64 * 1e-9 / self.speed);
        self.latency.saturating_record(due.elapsed().as_nanos() as u64);
    }

    pub(super) fn latencies(&self) -> [(&'static str, u64); 4] {
        [
            ("p50", self.latency.value_at_quantile(0.5)),
            ("p99", self.latency.value_at_quantile(0.99)),
            ("p99.9", self.latency.value_at_quantile(0.999)),
            ("max", self.latency.max()),
        ]
    }

    pub(super) fn latency_text(&self) -> String {
        let parts = self.latencies().map(|(name, ns)| format!("{name} {}", short_duration(ns)));
        parts[..3].join(" ")
    }

    /// Events a second over the last second.
    pub(super) fn rate_now(&self) -> f64 {
        let (Some(first), Some(last)) = (self.counts.front(), self.counts.back()) else { return 0.0 };
        let seconds = (last.0 - first.0).as_secs_f64();
        if seconds > 0.0 { (last.1 - first.1) as f64 / seconds } else { 0.0 }
    }

    /// Event time between the newest event and what every shard has completed.
    pub(super) fn watermark_lag(&self) -> u64 {
        let slowest = self.shards.iter().map(|shard| shard.watermark).min().unwrap_or(0);
        if slowest == 0 { 0 } else { self.newest.saturating_sub(slowest) }
    }

    /// Symbols with the most trades.
    pub(super) fn top(&self, count: usize) -> Vec<(&str, &Row)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(name, row)| (name.as_str(), row)).collect();
        rows.sort_by(|a, b| b.1.trades.cmp(&a.1.trades).then(a.0.cmp(b.0)));
        rows.truncate(count);
        rows
    }

    /// Hosts with the most distinct ports, then packets, in their last minute.
    pub(super) fn top_hosts(&self, count: usize) -> Vec<(&str, &Host)> {
        // A host that fell silent is no news.
        let latest = self.hosts.values().map(|host| host.ts).max().unwrap_or(0);
        let now = self.hosts.iter().filter(|(_, host)| host.ts == latest);
        let mut hosts: Vec<_> = now.map(|(name, host)| (name.as_str(), host)).collect();
        let order = |host: &Host| (host.unanswered.max(host.ports), host.packets);
        hosts.sort_by(|a, b| order(b.1).cmp(&order(a.1)).then(a.0.cmp(b.0)));
        hosts.truncate(count);
        hosts
    }
}
