//! Where the gateway's answers come from.

use crate::alerts::Alerts;
use crate::cluster::ClusterState;
use std::sync::Arc;
use tidegate_actors::runtime::{StageReport, StatsHandle, ThreadStats};
use tidegate_live::{HubHandle, IngestStats, Live};
use tidegate_proto::{Admission, Close};

/// What whoever shows this token, or none, may do and for how long; or why it is not let in.
pub type Gate = dyn Fn(Option<&[u8]>) -> Result<Admission, Close> + Send + Sync;

/// Handles of a live engine, and what else its owner knows. What is not given is shown as unknown.
#[derive(Clone)]
pub struct Sources {
    /// Results and their readers.
    pub hub: HubHandle,
    /// Counters of the shards.
    pub shards: StatsHandle,
    /// Feeds and the log: usually `IngestHandle::stats`.
    pub ingest: Arc<dyn Fn() -> IngestStats + Send + Sync>,
    /// The time of day in nanoseconds since 1970: without it nobody knows how old a watermark is.
    pub now_ns: Option<fn() -> u64>,
    /// Records that fit a shard's ring.
    pub ring_capacity: Option<u64>,
    /// The stages and what feeds them as they are now, for a picture of the pipeline. Without it, the streams, without what feeds them.
    pub stages: Option<Arc<dyn Fn() -> Vec<StageNode> + Send + Sync>>,
    /// Where the events of each stage went; empty while that is not known. Asked every second.
    pub ledger: Option<Arc<dyn Fn() -> Vec<StageReport> + Send + Sync>>,
    /// How long events take from their arrival to their results.
    pub latency: Option<Arc<dyn Fn() -> Option<Latency> + Send + Sync>>,
    /// What the engine's threads do with their time: usually `Live::threads`.
    pub threads: Option<Arc<dyn Fn() -> Vec<ThreadStats> + Send + Sync>>,
    /// What other front ends refused.
    pub refusals: Option<Arc<dyn Fn() -> Vec<Refusals> + Send + Sync>>,
    /// Whoever keeps alerts, if anything looks for them.
    pub alerts: Option<Arc<dyn Alerts>>,
    /// What is derived from bars outside of the shards, if something is.
    pub derived: Option<Arc<dyn Fn() -> DerivedStats + Send + Sync>>,
    /// The cluster that the server is a node of; without it, it stands alone.
    pub cluster: Option<Arc<dyn Fn() -> ClusterState + Send + Sync>>,
    /// Who may ask. Without it everybody may ask everything.
    pub gate: Option<Arc<Gate>>,
}

/// What came of streams that are derived from bars outside of the shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DerivedStats {
    /// What computed the last batch: `cpu` or `cuda`; empty while nothing is derived.
    pub device: &'static str,
    /// Batches computed.
    pub batches: u64,
    /// Rows that went to the hub.
    pub rows: u64,
    /// Batches of the backend that a GPU computed.
    pub on_device: u64,
    /// Batches of the backend that the CPU computed.
    pub on_cpu: u64,
    /// Of these, those that a GPU had failed at or does not cover.
    pub recomputed: u64,
    /// Times a GPU was opened anew after it failed.
    pub reopened: u64,
    /// Bars whose rows gave way to those of newer ones.
    pub conflated: u64,
    /// Bars of symbols beyond the bound, without a price, or of a step that was complete.
    pub left_out: u64,
    /// Bars that were lost on the way because too many waited.
    pub lost: u64,
    /// Rows that could not be computed.
    pub failed: u64,
}

impl Sources {
    /// The least there must be: `live.hub()`, `live.stats()` and `live.ingest()`.
    #[must_use]
    pub fn new(
        hub: HubHandle,
        shards: StatsHandle,
        ingest: impl Fn() -> IngestStats + Send + Sync + 'static,
    ) -> Self {
        Self {
            hub,
            shards,
            ingest: Arc::new(ingest),
            now_ns: None,
            ring_capacity: None,
            stages: None,
            ledger: None,
            latency: None,
            refusals: None,
            alerts: None,
            derived: None,
            cluster: None,
            gate: None,
            threads: None,
        }
    }
}

impl Sources {
    /// Everything that an engine can say of itself.
    #[must_use]
    pub fn of(live: &Live) -> Self {
        let (ingest, stats, latency) = (live.ingest(), live.stats(), live.latency());
        let percentiles = move || {
            latency.stats().map(|of| Latency {
                p50: of.p50,
                p99: of.p99,
                p99_9: of.p99_9,
                max: of.max,
                samples: of.samples,
            })
        };
        Self {
            ledger: Some(Arc::new(move || stats.ledgers())),
            latency: Some(Arc::new(percentiles)),
            threads: Some(Arc::new(live.threads())),
            ..Self::new(live.hub(), live.stats(), move || ingest.stats())
        }
    }
}

/// One stage of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageNode {
    /// Its name.
    pub name: String,
    /// Its input: `feed`, or the name of another stage.
    pub upstream: String,
    /// The stream it writes.
    pub stream: String,
}

/// How often a front end refused something for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusals {
    /// Which.
    pub front: &'static str,
    /// Why: one of a few words.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// Percentiles, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half are faster.
    pub p50: u64,
    /// 99 of 100 are faster.
    pub p99: u64,
    /// 999 of 1,000 are faster.
    pub p99_9: u64,
    /// The slowest.
    pub max: u64,
    /// How many these are of.
    pub samples: u64,
}
