//! The state of the server in one document. What is not known is null.

use crate::error::ApiError;
use crate::ops::policy_name;
use crate::server::Shared;
use crate::sources::Sources;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_actors::runtime::{Phase, ShardStats};
use tidegate_proto::feed::SourceStats;
use tidegate_proto::hub::SubscriberStats;
use tokio::time::{Instant, MissedTickBehavior};

/// Subscribers shown at most; `subscribers_total` counts all.
const SUBSCRIBERS_MAX: usize = 256;
/// Streams shown of one subscriber.
const STREAMS_MAX: usize = 16;
/// How long a document is given to all who ask.
const FRESH: Duration = Duration::from_millis(50);
/// How often counters are sampled for rates.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples kept: rates are over the last two or three seconds.
const SAMPLES: usize = 3;

struct Sample {
    at: Instant,
    shards: Vec<ShardStats>,
}

pub(crate) struct Status {
    started: Instant,
    samples: Mutex<VecDeque<Sample>>,
    held: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
}

impl Status {
    pub(crate) fn new(sources: &Sources) -> Self {
        let first = Sample { at: Instant::now(), shards: sources.shards.stats() };
        Self {
            started: Instant::now(),
            samples: Mutex::new(VecDeque::from([first])),
            held: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What is done every second.
pub(crate) async fn tick(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let sample = Sample { at: Instant::now(), shards: shared.sources.shards.stats() };
        let mut samples = shared.status.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
        drop(samples);
        shared.metrics.upkeep();
    }
}

/// Whether results can be had.
pub(crate) async fn readiness(shared: &Arc<Shared>) -> Result<(), ApiError> {
    shared.ask(|_, _| ()).await?;
    let broken: Vec<String> = shared
        .sources
        .shards
        .stats()
        .iter()
        .filter(|shard| !matches!(shard.phase, Phase::Starting | Phase::Running))
        .map(|shard| format!("shard {} is {}", shard.shard, shard.phase.name()))
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", broken.join(", ")))
}

/// The document, the same for all who ask at nearly the same time.
pub(crate) async fn text(shared: &Arc<Shared>) -> Result<Arc<str>, ApiError> {
    let mut held = shared.status.held.lock().await;
    if let Some((at, text)) = &*held
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(text));
    }
    let text: Arc<str> = document(shared).await?.to_string().into();
    *held = Some((Instant::now(), Arc::clone(&text)));
    Ok(text)
}

/// What the hub knows.
struct HubSide {
    keys: u64,
    subscribers_total: u64,
    subscribers: Vec<SubscriberStats>,
    published: Vec<u64>,
}

async fn document(shared: &Arc<Shared>) -> Result<Value, ApiError> {
    let streams = shared.book.streams().len() as u16;
    let hub = shared
        .ask(move |hub, _| {
            let stats = hub.stats();
            let published = |stream| hub.stream_stats(stream).map_or(0, |stats| stats.published);
            HubSide {
                keys: stats.keys,
                subscribers_total: stats.subscribers,
                subscribers: hub.subscribers().take(SUBSCRIBERS_MAX).collect(),
                published: (0..streams).map(published).collect(),
            }
        })
        .await?;
    let now = Sample { at: Instant::now(), shards: shared.sources.shards.stats() };
    let samples = shared.status.samples.lock().unwrap_or_else(PoisonError::into_inner);
    let (shards, rates) = shards(&shared.sources, &now, samples.front());
    drop(samples);
    let sum = |of: fn(&ShardStats) -> u64| now.shards.iter().map(of).sum::<u64>();
    let ingest = (shared.sources.ingest)();
    let latency = shared.sources.latency.as_ref().and_then(|latency| latency());
    let ledger = shared.sources.ledger.as_ref().map(|ledger| {
        let stage = |stage: tidegate_actors::runtime::StageReport| {
            let names = tidegate_engine::ledger::FATE_NAMES.iter().zip(stage.ledger.by_fate);
            let by_cause: serde_json::Map<String, Value> =
                names.map(|(name, count)| ((*name).to_owned(), Value::from(count))).collect();
            let imbalance = stage.ledger.imbalance();
            json!({"stage": stage.name, "delivered": stage.ledger.delivered, "by_cause": by_cause,
                "imbalance": i64::try_from(imbalance).unwrap_or(i64::MAX)})
        };
        ledger().into_iter().map(stage).collect::<Vec<_>>()
    });
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": shared.status.uptime().as_secs(),
        "events": {"total": sum(|shard| shard.events), "rate": rates.0},
        "results": {"total": sum(|shard| shard.outputs), "rate": rates.1},
        "keys": hub.keys,
        "latency_ns": latency.map(|latency| json!({
            "p50": latency.p50, "p99": latency.p99, "p99_9": latency.p99_9, "max": latency.max})),
        "shards": shards,
        "feeds": ingest.sources.iter().map(feed).collect::<Vec<_>>(),
        "subscribers": subscribers(shared, &hub.subscribers),
        "subscribers_total": hub.subscribers_total,
        "ledger": ledger,
        "stages": stages(shared, &hub.published),
    }))
}

/// Shards, and events and results per second.
fn shards(sources: &Sources, now: &Sample, before: Option<&Sample>) -> (Vec<Value>, (Value, Value)) {
    let seconds =
        before.map(|before| now.at.duration_since(before.at).as_secs_f64()).filter(|&seconds| seconds > 0.05);
    let rate = |of: fn(&ShardStats) -> u64| {
        let (Some(seconds), Some(before)) = (seconds, before) else { return Value::Null };
        let count = |sample: &Sample| sample.shards.iter().map(of).sum::<u64>();
        Value::from((count(now).saturating_sub(count(before)) as f64 / seconds).round())
    };
    let time = sources.now_ns.map(|now_ns| now_ns());
    let shard = |(at, shard): (usize, &ShardStats)| {
        let before = before.and_then(|before| before.shards.get(at));
        let turns = before.map(|before| {
            let busy = shard.turns_busy.saturating_sub(before.turns_busy) as f64;
            (busy, busy + shard.turns_idle.saturating_sub(before.turns_idle) as f64)
        });
        // Before the first watermark and after the end of input there is no time to show.
        let watermark = Some(shard.watermark).filter(|&watermark| watermark != 0 && watermark != u64::MAX);
        let lag_ms = time.zip(watermark).map(|(time, watermark)| time.saturating_sub(watermark) / 1_000_000);
        json!({
            "shard": shard.shard,
            "phase": shard.phase.name(),
            "events": shard.events,
            "outputs": shard.outputs,
            "watermark": watermark.map(|watermark| watermark.to_string()),
            "lag_ms": lag_ms,
            "ring_depth": shard.ring_depth,
            "ring_capacity": sources.ring_capacity,
            "busy": turns.filter(|(_, all)| *all > 0.0).map(|(busy, all)| (busy / all * 1_000.0).round() / 1_000.0),
            "panics": shard.panics,
            "restarts": shard.restarts,
        })
    };
    let shards = now.shards.iter().enumerate().map(shard).collect();
    (shards, (rate(|shard| shard.events), rate(|shard| shard.outputs)))
}

fn feed(source: &SourceStats) -> Value {
    let ledger = &source.ledger;
    json!({
        "source": source.name,
        "peer": null,
        "accepted": ledger.accepted,
        "duplicates": ledger.duplicate,
        "gaps": ledger.declared_lost,
        "rejected": {"ahead": ledger.ahead, "refused": ledger.refused},
        "overflowed": ledger.overflowed,
        "connected": source.connected,
        "connections": source.connections,
        "sequence": source.last,
    })
}

fn subscribers(shared: &Shared, subscribers: &[SubscriberStats]) -> Vec<Value> {
    let peers = shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
    let one = |stats: &SubscriberStats| {
        let peer = peers.get(&stats.id);
        let streams: Vec<&String> = stats.subscription.streams.iter().take(STREAMS_MAX).collect();
        json!({
            "id": stats.id.to_string(),
            "peer": peer.map(|peer| peer.address.to_string()),
            "kind": peer.map(|peer| peer.kind).or(shared.sources.others),
            "streams": streams,
            "policy": policy_name(stats.subscription.policy),
            "delivered": stats.delivered + stats.past,
            "conflated": stats.conflated,
            "dropped": stats.dropped,
            "lag": stats.lag,
        })
    };
    subscribers.iter().map(one).collect()
}

fn stages(shared: &Shared, published: &[u64]) -> Vec<Value> {
    let outputs = |stream: &str| {
        let (number, _) = shared.book.stream(stream)?;
        published.get(usize::from(number)).copied()
    };
    let known = &shared.sources.stages;
    if known.is_empty() {
        let stage =
            |name: &str| json!({"name": name, "upstream": null, "stream": name, "outputs": outputs(name)});
        return shared.book.stream_names().map(stage).collect();
    }
    let stage = |stage: &crate::sources::StageNode| json!({"name": stage.name, "upstream": stage.upstream, "stream": stage.stream, "outputs": outputs(&stage.stream)});
    known.iter().map(stage).collect()
}
