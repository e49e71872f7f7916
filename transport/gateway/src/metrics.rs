//! Counters for Prometheus: base units, and labels for what is bounded (shards, feeds, streams, routes), never for keys.
//!
//! Counters live where they are counted and are read when somebody asks. A recorder of our own renders them, so that two
//! gateways in one process do not speak for each other.

use crate::server::Shared;
use crate::sources::{DerivedStats, Latency, Refusals};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tidegate_actors::supervision::publish_metrics;
use tidegate_engine::ledger::FATE_NAMES;
use tidegate_live::IngestStats;

/// Upper bounds of the classes of answer times, in seconds.
const ANSWER_SECONDS: [f64; 10] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0];

pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    messages: AtomicU64,
    websockets: AtomicI64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let answers = Matcher::Full("tidegate_gateway_answer_seconds".to_owned());
        // The bounds are a constant and not empty, which is all that is asked of them.
        let builder = PrometheusBuilder::new().set_buckets_for_metric(answers, &ANSWER_SECONDS);
        let recorder = builder.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder();
        metrics::with_local_recorder(&recorder, describe);
        Self {
            handle: recorder.handle(),
            recorder,
            messages: AtomicU64::new(0),
            websockets: AtomicI64::new(0),
        }
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16, time: Duration) {
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        metrics::with_local_recorder(&self.recorder, || {
            counter!("tidegate_gateway_answers_total", "route" => route, "status" => class).increment(1);
            histogram!("tidegate_gateway_answer_seconds", "route" => route).record(time.as_secs_f64());
        });
    }

    /// Somebody was told why not, or was closed. Reasons are words of this program's, so there is a bounded number of them.
    pub(crate) fn refused(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("tidegate_refusals_total", "front" => "http", "reason" => reason).increment(1);
        });
    }

    pub(crate) fn message(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    pub(crate) fn websocket(&self, change: i64) {
        self.websockets.fetch_add(change, Relaxed);
    }

    /// Takes samples of histograms together, which else pile up until somebody asks.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn describe() {
    describe_counter!("tidegate_events_total", "Data events taken off a shard's ring.");
    describe_counter!("tidegate_outputs_total", "Results that left a shard's last thread.");
    describe_counter!(
        "tidegate_outputs_unread_total",
        "Results discarded because nobody reads them any more."
    );
    describe_counter!("tidegate_turns_busy_total", "Turns of a shard that found work.");
    describe_counter!("tidegate_turns_idle_total", "Turns of a shard that found none.");
    describe_counter!("tidegate_panics_total", "Panics of operators that were caught.");
    describe_counter!("tidegate_restarts_total", "Restarts of a shard.");
    describe_counter!(
        "tidegate_quarantined_events_total",
        "Events only counted because their shard is quarantined."
    );
    describe_counter!(
        "tidegate_lost_in_restart_events_total",
        "Events between a restart's snapshot and its end."
    );
    describe_gauge!("tidegate_ring_depth", "Records waiting in a shard's ring.");
    describe_gauge!(
        "tidegate_watermark_seconds",
        Unit::Seconds,
        "Event time up to which a shard is complete, since 1970."
    );
    describe_counter!("tidegate_feed_events_total", "Events of a feed, by what became of them.");
    describe_counter!("tidegate_stage_events_total", "Events of a stage, by what became of them.");
    describe_gauge!(
        "tidegate_latency_seconds",
        Unit::Seconds,
        "From the arrival of a frame to its results, of the last minute, by quantile."
    );
    describe_gauge!("tidegate_feed_connected", "Whether a feed is connected.");
    describe_gauge!("tidegate_feeds_connected", "Feeds connected.");
    describe_counter!("tidegate_log_records_total", "Records of the log.");
    describe_counter!("tidegate_fenced_events_total", "Events refused because their time leaps ahead.");
    describe_counter!("tidegate_ring_full_total", "Times a shard's ring was full.");
    describe_counter!("tidegate_stream_records_total", "Records published in a stream.");
    describe_gauge!("tidegate_journal_bytes", Unit::Bytes, "Bytes of the journal's segments, as set aside.");
    describe_gauge!("tidegate_journal_segments", "Segments of the journal.");
    describe_gauge!(
        "tidegate_journal_offset",
        "How far the journal is: its oldest record, and what was taken, written, acknowledged as durable, and in a snapshot."
    );
    describe_gauge!("tidegate_journal_health", "1 for the state the journal is in, 0 for the others.");
    describe_counter!("tidegate_journal_syncs_total", "Times the journal was brought to the disk.");
    describe_gauge!("tidegate_journal_sync_seconds_sum", Unit::Seconds, "Time that took in all.");
    describe_gauge!("tidegate_journal_sync_seconds_max", Unit::Seconds, "The longest.");
    describe_gauge!("tidegate_snapshot_age_seconds", Unit::Seconds, "Time since the newest snapshot.");
    describe_gauge!("tidegate_snapshot_bytes", Unit::Bytes, "Size of the newest snapshot.");
    describe_gauge!(
        "tidegate_snapshot_pause_seconds",
        Unit::Seconds,
        "How long the shard that took longest stood still for the last snapshot."
    );
    describe_counter!("tidegate_snapshots_total", "Snapshots, by what became of them.");
    crate::cluster::describe();
    describe_gauge!("tidegate_keys", "Keys known.");
    describe_counter!(
        "tidegate_keys_refused_total",
        "Names refused because there were as many keys as allowed."
    );
    describe_gauge!("tidegate_subscribers", "Subscribers of results, of all front ends.");
    describe_gauge!("tidegate_subscriber_lag_records", "Records the slowest subscriber is behind.");
    describe_counter!(
        "tidegate_subscriber_records_total",
        "Records for subscribers, by what became of them."
    );
    describe_gauge!("tidegate_gateway_connections", "Connections of the gateway.");
    describe_gauge!("tidegate_gateway_websockets", "WebSockets of the gateway.");
    describe_counter!("tidegate_gateway_connections_total", "Connections the gateway took.");
    describe_counter!(
        "tidegate_gateway_connections_refused_total",
        "Connections refused because there were as many as allowed."
    );
    describe_counter!(
        "tidegate_refusals_total",
        "What was refused or closed, by the front end (http, quic) and why; the reasons of http are its error codes."
    );
    describe_counter!("tidegate_gateway_messages_total", "WebSocket messages written.");
    describe_counter!("tidegate_gateway_answers_total", "Requests answered.");
    describe_histogram!("tidegate_gateway_answer_seconds", Unit::Seconds, "Time to the head of an answer.");
    crate::alerts::describe();
    describe_counter!("tidegate_derived_batches_total", "Batches computed for streams derived from bars.");
    describe_counter!("tidegate_derived_rows_total", "Rows of streams derived from bars.");
    describe_gauge!("tidegate_derived_device", "1 for what computed the last batch, 0 for the other.");
    describe_counter!(
        "tidegate_derived_computed_total",
        "Batches by what computed them; those of the CPU that a GPU had failed at or does not cover are recomputed as well."
    );
    describe_counter!("tidegate_derived_device_reopened_total", "Times a GPU that failed was opened anew.");
    describe_counter!(
        "tidegate_derived_bars_total",
        "Bars that gave no row: conflated (newer ones of their symbol had come), left_out (beyond a bound, or too late), lost (too many waited)."
    );
    describe_counter!("tidegate_derived_failed_total", "Rows that could not be computed.");
    describe_gauge!("tidegate_uptime_seconds", Unit::Seconds, "Time since the gateway was started.");
    describe_gauge!("tidegate_build_info", "Always 1; the label says which version runs.");
}

/// The journal's, if there is one.
fn journal(ingest: &IngestStats, now_ns: Option<fn() -> u64>) {
    let Some(writer) = &ingest.journal else { return };
    let seconds = |ns: u64| ns as f64 / 1e9;
    gauge!("tidegate_journal_bytes").set(writer.bytes as f64);
    gauge!("tidegate_journal_segments").set(writer.segments as f64);
    let at = &writer.positions;
    for (place, offset) in [
        ("first", writer.first_offset),
        ("taken", at.taken),
        ("written", at.written),
        ("durable", at.durable),
    ] {
        gauge!("tidegate_journal_offset", "place" => place).set(offset as f64);
    }
    for state in ["working", "reserve", "full", "failed"] {
        let is = writer.health.name() == state;
        gauge!("tidegate_journal_health", "state" => state).set(f64::from(u8::from(is)));
    }
    counter!("tidegate_journal_syncs_total").absolute(ingest.syncs.count);
    gauge!("tidegate_journal_sync_seconds_sum").set(seconds(ingest.syncs.sum_ns));
    gauge!("tidegate_journal_sync_seconds_max").set(seconds(ingest.syncs.max_ns));
    let Some(snapshots) = &ingest.snapshots else { return };
    counter!("tidegate_snapshots_total", "fate" => "written").absolute(snapshots.written);
    counter!("tidegate_snapshots_total", "fate" => "given_up").absolute(snapshots.failed);
    gauge!("tidegate_snapshot_pause_seconds").set(seconds(snapshots.pause_ns));
    if let Some(offset) = snapshots.offset {
        gauge!("tidegate_journal_offset", "place" => "snapshot").set(offset as f64);
        gauge!("tidegate_snapshot_bytes").set(snapshots.bytes as f64);
        if let Some(now_ns) = now_ns {
            gauge!("tidegate_snapshot_age_seconds").set(seconds(now_ns().saturating_sub(snapshots.taken_ns)));
        }
    }
}

/// What is derived from bars, if something is.
fn derived(stats: &DerivedStats) {
    counter!("tidegate_derived_batches_total").absolute(stats.batches);
    counter!("tidegate_derived_rows_total").absolute(stats.rows);
    for device in ["cpu", "cuda"] {
        let is = f64::from(u8::from(stats.device == device));
        gauge!("tidegate_derived_device", "device" => device).set(is);
    }
    for (by, count) in [("cuda", stats.on_device), ("cpu", stats.on_cpu), ("recomputed", stats.recomputed)] {
        counter!("tidegate_derived_computed_total", "by" => by).absolute(count);
    }
    counter!("tidegate_derived_device_reopened_total").absolute(stats.reopened);
    for (fate, count) in [("conflated", stats.conflated), ("left_out", stats.left_out), ("lost", stats.lost)]
    {
        counter!("tidegate_derived_bars_total", "fate" => fate).absolute(count);
    }
    counter!("tidegate_derived_failed_total").absolute(stats.failed);
}

/// All counters as they stand.
pub(crate) async fn scrape(shared: &Arc<Shared>) -> String {
    let book = shared.book();
    let streams = book.numbers();
    let hub = shared
        .ask(move |hub, _| {
            let published: Vec<u64> = (0..streams)
                .map(|stream| hub.stream_stats(stream).map_or(0, |stats| stats.published))
                .collect();
            (hub.stats(), published, hub.lag_max())
        })
        .await;
    let ingest = (shared.sources.ingest)();
    metrics::with_local_recorder(&shared.metrics.recorder, || {
        publish_metrics(&shared.sources.shards);
        counter!("tidegate_log_records_total").absolute(ingest.logged);
        counter!("tidegate_fenced_events_total").absolute(ingest.fenced);
        counter!("tidegate_ring_full_total").absolute(ingest.stalls);
        gauge!("tidegate_feeds_connected").set(ingest.connections as f64);
        // Sources are bounded by the server's own limit.
        for source in &ingest.sources {
            let ledger = &source.ledger;
            gauge!("tidegate_feed_connected", "source" => source.name.clone())
                .set(f64::from(u8::from(source.connected)));
            for (fate, count) in [
                ("accepted", ledger.accepted),
                ("duplicate", ledger.duplicate),
                ("ahead", ledger.ahead),
                ("refused", ledger.refused),
                ("declared_lost", ledger.declared_lost),
            ] {
                counter!("tidegate_feed_events_total", "source" => source.name.clone(), "fate" => fate)
                    .absolute(count);
            }
        }
        journal(&ingest, shared.sources.now_ns);
        if let Some(stats) = shared.sources.derived.as_ref().map(|stats| stats())
            && !stats.device.is_empty()
        {
            derived(&stats);
        }
        crate::cluster::measure(shared);
        for stage in &*shared.status.ledger() {
            for (fate, count) in FATE_NAMES.iter().zip(stage.ledger.by_fate) {
                counter!("tidegate_stage_events_total", "stage" => stage.name.clone(), "fate" => *fate)
                    .absolute(count);
            }
        }
        if let Some(latency) = &shared.sources.latency {
            let latency = latency();
            let of = |ns: fn(&Latency) -> u64| latency.as_ref().map_or(f64::NAN, |of| ns(of) as f64 / 1e9);
            // As summaries have it, not a number when there was nothing to measure.
            for (quantile, seconds) in
                [("0.5", of(|of| of.p50)), ("0.99", of(|of| of.p99)), ("0.999", of(|of| of.p99_9))]
            {
                gauge!("tidegate_latency_seconds", "quantile" => quantile).set(seconds);
            }
        }
        // While the hub does not answer, its counters stay as they were.
        if let Ok((stats, published, lag)) = hub {
            for (number, stream) in book.open() {
                let count = published.get(usize::from(number)).copied().unwrap_or(0);
                counter!("tidegate_stream_records_total", "stream" => stream.meta.name.clone())
                    .absolute(count);
            }
            gauge!("tidegate_keys").set(stats.keys as f64);
            counter!("tidegate_keys_refused_total").absolute(stats.keys_refused);
            gauge!("tidegate_subscribers").set(stats.subscribers as f64);
            gauge!("tidegate_subscriber_lag_records").set(lag as f64);
            for (fate, count) in
                [("delivered", stats.delivered), ("conflated", stats.conflated), ("dropped", stats.dropped)]
            {
                counter!("tidegate_subscriber_records_total", "fate" => fate).absolute(count);
            }
        }
        let taken = shared.options.connections_max - shared.connections.available_permits();
        gauge!("tidegate_gateway_connections").set(taken as f64);
        gauge!("tidegate_gateway_websockets").set(shared.metrics.websockets.load(Relaxed) as f64);
        counter!("tidegate_gateway_connections_total").absolute(shared.accepted.load(Relaxed));
        counter!("tidegate_gateway_connections_refused_total").absolute(shared.refused.load(Relaxed));
        if let Some(refusals) = &shared.sources.refusals {
            for Refusals { front, reason, count } in refusals() {
                counter!("tidegate_refusals_total", "front" => front, "reason" => reason).absolute(count);
            }
        }
        crate::alerts::publish(shared);
        counter!("tidegate_gateway_messages_total").absolute(shared.metrics.messages.load(Relaxed));
        gauge!("tidegate_uptime_seconds").set(shared.status.uptime().as_secs_f64());
        gauge!("tidegate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    });
    shared.metrics.handle.render()
}
