//! The state of the server in one document. What is not known is null.

use crate::error::ApiError;
use crate::ops::policy_name;
use crate::server::Shared;
use crate::sources::Sources;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_actors::runtime::{Phase, ShardStats, StageReport, ThreadStats, ThreadTimes};
use tidegate_engine::ledger::FATE_NAMES;
use tidegate_live::{FeedState, Health, IngestStats, Origin, SyncStats};
use tidegate_proto::feed::SourceStats;
use tidegate_proto::hub::{StreamStats, SubscriberStats};
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
    threads: Vec<ThreadStats>,
}

impl Sample {
    fn take(sources: &Sources) -> Self {
        let threads = sources.threads.as_ref().map(|threads| threads()).unwrap_or_default();
        Self { at: Instant::now(), shards: sources.shards.stats(), threads }
    }
}

pub(crate) struct Status {
    started: Instant,
    samples: Mutex<VecDeque<Sample>>,
    /// Of the last second.
    ledger: Mutex<Vec<StageReport>>,
    /// Without and with what is not for everybody.
    held: tokio::sync::Mutex<Option<(Instant, [Arc<str>; 2])>>,
}

impl Status {
    pub(crate) fn new(sources: &Sources) -> Self {
        let first = Sample::take(sources);
        // Shards show their ledgers when they have been asked for.
        let _ = sources.ledger.as_ref().map(|ledger| ledger());
        Self {
            started: Instant::now(),
            samples: Mutex::new(VecDeque::from([first])),
            ledger: Mutex::default(),
            held: tokio::sync::Mutex::default(),
        }
    }

    /// The stages' ledgers of the last second; empty until the shards have shown them.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Vec<StageReport>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
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
        let sample = Sample::take(&shared.sources);
        let ledger = shared.sources.ledger.as_ref().map(|ledger| ledger());
        *shared.status.ledger() = ledger.unwrap_or_default();
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

/// The document, the same for all who ask at nearly the same time. Without `whole` it says nothing of who feeds and who reads.
pub(crate) async fn text(shared: &Arc<Shared>, whole: bool) -> Result<Arc<str>, ApiError> {
    let mut held = shared.status.held.lock().await;
    if let Some((at, texts)) = &*held
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(&texts[usize::from(whole)]));
    }
    let mut document = document(shared).await?;
    let all: Arc<str> = document.to_string().into();
    for of_others in ["feeds", "subscribers"] {
        document[of_others] = Value::Null;
    }
    let texts = [document.to_string().into(), all];
    let text = Arc::clone(&texts[usize::from(whole)]);
    *held = Some((Instant::now(), texts));
    Ok(text)
}

/// What the hub knows.
struct HubSide {
    keys: u64,
    subscribers_total: u64,
    subscribers: Vec<(SubscriberStats, Option<Origin>)>,
    streams: Vec<StreamStats>,
}

async fn document(shared: &Arc<Shared>) -> Result<Value, ApiError> {
    let streams = shared.book().numbers();
    let handle = shared.sources.hub.clone();
    let hub = shared
        .ask(move |hub, _| {
            let stats = hub.stats();
            HubSide {
                keys: stats.keys,
                subscribers_total: stats.subscribers,
                subscribers: hub
                    .subscribers()
                    .take(SUBSCRIBERS_MAX)
                    .map(|stats| (handle.origin(stats.id), stats))
                    .map(|(origin, stats)| (stats, origin))
                    .collect(),
                streams: (0..streams).filter_map(|stream| hub.stream_stats(stream)).collect(),
            }
        })
        .await?;
    let now = Sample::take(&shared.sources);
    let samples = shared.status.samples.lock().unwrap_or_else(PoisonError::into_inner);
    let (shards, rates) = shards(&shared.sources, &now, samples.front());
    let threads = threads(&now, samples.front());
    drop(samples);
    let sum = |of: fn(&ShardStats) -> u64| now.shards.iter().map(of).sum::<u64>();
    let ingest = (shared.sources.ingest)();
    let latency = shared.sources.latency.as_ref().and_then(|latency| latency());
    let ledger = ledger(&shared.status.ledger());
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": shared.status.uptime().as_secs(),
        "events": {"total": sum(|shard| shard.events), "rate": rates.0},
        "results": {"total": sum(|shard| shard.outputs), "rate": rates.1},
        "keys": hub.keys,
        "latency_ns": latency.map(|latency| json!({
            "p50": latency.p50, "p99": latency.p99, "p99_9": latency.p99_9, "max": latency.max,
            "samples": latency.samples})),
        "threads": threads,
        "shards": shards,
        "feeds": feeds(&ingest),
        "journal": journal(&ingest, shared.sources.now_ns),
        "subscribers": hub.subscribers.iter().map(subscriber).collect::<Vec<_>>(),
        "subscribers_total": hub.subscribers_total,
        "causes": FATE_NAMES,
        "ledger": ledger,
        "cluster": crate::cluster::brief(shared),
        "alerts": crate::alerts::status(shared),
        "stages": stages(shared, &hub.streams),
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
        let shares = before
            .and_then(|before| before.shards.get(at))
            .and_then(|before| Shares::between(before.times, shard.times));
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
            "busy": shares.map(|shares| shares.busy),
            "blocked": shares.map(|shares| shares.blocked),
            "panics": shard.panics,
            "restarts": shard.restarts,
        })
    };
    let shards = now.shards.iter().enumerate().map(shard).collect();
    (shards, (rate(|shard| shard.events), rate(|shard| shard.outputs)))
}

/// What part of some time a thread spent how.
#[derive(Clone, Copy)]
struct Shares {
    busy: f64,
    idle: f64,
    blocked: f64,
}

impl Shares {
    /// `None` while there is no time between the two.
    fn between(before: ThreadTimes, now: ThreadTimes) -> Option<Self> {
        let passed = |of: fn(ThreadTimes) -> u64| of(now).saturating_sub(of(before)) as f64;
        let busy = passed(|times| times.busy_ns);
        let idle = passed(|times| times.idle_ns);
        let blocked = passed(|times| times.blocked_ns);
        let all = busy + idle + blocked;
        let share = |of: f64| (of / all * 1_000.0).round() / 1_000.0;
        (all > 0.0).then(|| Self { busy: share(busy), idle: share(idle), blocked: share(blocked) })
    }
}

fn threads(now: &Sample, before: Option<&Sample>) -> Vec<Value> {
    let one = |thread: &ThreadStats| {
        let before = before.and_then(|before| before.threads.iter().find(|old| old.name == thread.name));
        let shares = before.and_then(|before| Shares::between(before.times, thread.times));
        json!({
            "thread": thread.name,
            "busy": shares.map(|shares| shares.busy),
            "blocked": shares.map(|shares| shares.blocked),
            "idle": shares.map(|shares| shares.idle),
        })
    };
    now.threads.iter().map(one).collect()
}

/// `None` until the shards have shown theirs.
fn ledger(stages: &[StageReport]) -> Option<Vec<Value>> {
    let stage = |stage: &StageReport| {
        let names = FATE_NAMES.iter().zip(stage.ledger.by_fate);
        let by_cause: serde_json::Map<String, Value> =
            names.map(|(name, count)| ((*name).to_owned(), Value::from(count))).collect();
        let imbalance = stage.ledger.imbalance();
        json!({"stage": stage.name, "delivered": stage.ledger.delivered, "by_cause": by_cause,
            "imbalance": i64::try_from(imbalance).unwrap_or(i64::MAX)})
    };
    (!stages.is_empty()).then(|| stages.iter().map(stage).collect())
}

fn feeds(ingest: &IngestStats) -> Vec<Value> {
    let feed = |(source, state): (&SourceStats, &FeedState)| {
        let ledger = &source.ledger;
        json!({
            "source": source.name,
            "peer": state.peer,
            "accepted": ledger.accepted,
            "duplicates": ledger.duplicate,
            "gaps": ledger.declared_lost,
            "rejected": {"ahead": ledger.ahead, "refused": ledger.refused},
            "held": ledger.held,
            "overflowed": ledger.overflowed,
            "connected": source.connected,
            "finished": state.finished,
            "connections": source.connections,
            "sequence": source.last,
        })
    };
    ingest.sources.iter().zip(&ingest.feeds).map(feed).collect()
}

/// `None` without a journal.
fn journal(ingest: &IngestStats, now_ns: Option<fn() -> u64>) -> Option<Value> {
    let writer = ingest.journal.as_ref()?;
    let SyncStats { count, sum_ns, max_ns, last_ns } = ingest.syncs;
    let snapshot = ingest.snapshots.as_ref().map(|of| {
        let age = of.offset.and(now_ns).map(|now| now().saturating_sub(of.taken_ns) / 1_000_000_000);
        json!({
            "offset": of.offset, "age_s": age, "bytes": of.bytes, "kept": of.kept, "written": of.written, "failed": of.failed,
            "problem": of.problem, "pause_ns": of.pause_ns, "pause_bytes": of.pause_bytes, "took_ns": of.took_ns,
        })
    });
    Some(json!({
        "health": writer.health.name(),
        "reason": trouble(&writer.health),
        "taken": writer.positions.taken,
        "written": writer.positions.written,
        "durable": writer.positions.durable,
        "first_offset": writer.first_offset,
        "bytes": writer.bytes,
        "segments": writer.segments,
        "sync_ns": {"count": count, "mean": sum_ns.checked_div(count), "last": last_ns, "max": max_ns},
        "snapshot": snapshot,
    }))
}

/// What keeps a journal from acknowledging as `durable`; `None` when nothing does.
pub(crate) fn trouble(health: &Health) -> Option<String> {
    match health {
        Health::Working => None,
        Health::Reserve => {
            Some("less than the reserve is free on the disk: nothing is acknowledged as durable".to_owned())
        }
        Health::Full => {
            Some("the disk is full: what is accepted waits in memory, then feeds wait".to_owned())
        }
        Health::Away(why) => Some(format!(
            "the log cannot be reached ({why}): what is accepted waits in memory, then feeds wait"
        )),
        Health::Failed(why) => Some(why.clone()),
    }
}

fn subscriber((stats, origin): &(SubscriberStats, Option<Origin>)) -> Value {
    let streams: Vec<&String> = stats.subscription.streams.iter().take(STREAMS_MAX).collect();
    json!({
        "id": stats.id.to_string(),
        "peer": origin.as_ref().map(|origin| &origin.peer),
        "kind": origin.as_ref().map(|origin| origin.kind),
        "streams": streams,
        "policy": policy_name(stats.subscription.policy),
        "delivered": stats.delivered + stats.past,
        "conflated": stats.conflated,
        "dropped": stats.dropped,
        "lag": stats.lag,
    })
}

fn stages(shared: &Shared, streams: &[StreamStats]) -> Vec<Value> {
    let book = shared.book();
    let stage = |name: &str, upstream: Option<&str>, stream: &str| {
        let stats = book.stream(stream).and_then(|(number, _)| streams.get(usize::from(number)));
        json!({
            "name": name,
            "upstream": upstream,
            "stream": stream,
            "outputs": stats.map(|stats| stats.published),
            "keys": stats.map(|stats| stats.keys),
        })
    };
    let known = shared.sources.stages.as_ref().map(|stages| stages()).unwrap_or_default();
    if known.is_empty() {
        return book.stream_names().map(|name| stage(name, None, name)).collect();
    }
    known.iter().map(|one| stage(&one.name, Some(&one.upstream), &one.stream)).collect()
}
