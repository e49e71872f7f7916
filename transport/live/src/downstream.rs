//! What lies behind the router: shards on threads of their own, or shards and hub right here.

use crate::clock::Clock;
use crate::egress::DRAIN_MAX;
use crate::latency::{Marker, Percentiles, SAMPLE_EVERY_NS};
use tidegate_actors::runtime::{Idle, InlineShards, StatsHandle, Stopwatch, TimeCells};
use tidegate_engine::{Event, Output, Router, Waker};
use tidegate_proto::MonoTime;
use tidegate_proto::hub::Hub;

/// Who works on what ingest has logged.
pub(crate) enum Downstream {
    /// Threads; ingest waits while their rings are full.
    Threads(Threads),
    /// Whoever runs ingest; a full ring means that the shards have their turn now.
    Here(Box<Here>),
}

pub(crate) struct Threads {
    pub(crate) idle: Idle,
    pub(crate) names: flume::Sender<Box<str>>,
    pub(crate) egress: Waker,
    pub(crate) marker: Marker,
    pub(crate) watch: Stopwatch,
}

/// Shards and hub on the thread of ingest.
pub(crate) struct Here {
    pub(crate) shards: InlineShards,
    pub(crate) hub: Hub,
    stats: StatsHandle,
    /// Results on their way into the hub.
    taken: Vec<Output>,
    /// Whether the hub has something since this was last asked.
    published: bool,
    /// The first arrival whose results the readers may not have yet.
    arrived: Option<MonoTime>,
    /// Whether anything has come of it.
    led: bool,
    /// The last arrival that was a sample.
    sampled: Option<MonoTime>,
    percentiles: Percentiles,
}

impl Downstream {
    /// Sends a run of the log, and tells the time before full rings from the rest. Returns `false` when a shard is gone.
    pub(crate) fn route(&mut self, router: &mut Router, log: &[Event], times: &TimeCells) -> bool {
        match self {
            Self::Threads(Threads { idle, watch, .. }) => {
                idle.idle(true);
                router.route(log, || {
                    watch.worked(times);
                    idle.idle(false);
                    watch.blocked(times);
                })
            }
            Self::Here(here) => router.route(log, || here.make_room()),
        }
    }

    /// Bytes that came at `received` have been dealt with.
    pub(crate) fn arrived(&mut self, received: MonoTime, router: &Router) {
        match self {
            Self::Threads(threads) => {
                let outlets = router.outlets();
                threads.marker.routed(received, |shard| outlets[shard].sent());
            }
            Self::Here(here) => {
                let due = here.sampled.is_none_or(|last| received.since(last) >= SAMPLE_EVERY_NS);
                if due && here.arrived.is_none() {
                    (here.arrived, here.led) = (Some(received), false);
                }
            }
        }
    }

    /// From here on the time of a thread of its own is measured; that of the fused core its runtime knows.
    pub(crate) fn begin(&mut self) {
        if let Self::Threads(threads) = self {
            threads.watch = Stopwatch::start();
        }
    }

    pub(crate) fn worked(&mut self, times: &TimeCells) {
        if let Self::Threads(threads) = self {
            threads.watch.worked(times);
        }
    }

    pub(crate) fn waited(&mut self, times: &TimeCells) {
        if let Self::Threads(threads) = self {
            threads.watch.waited(times);
        }
    }

    /// A name, ahead of everything about it.
    pub(crate) fn name(&mut self, name: &str) {
        match self {
            Self::Threads(Threads { names, egress, .. }) => {
                // Egress always reads on, so this does not wait for long.
                let _ = names.send(name.into());
                egress.wake();
            }
            Self::Here(here) => {
                here.hub.define(name);
                here.published = true;
            }
        }
    }
}

impl Here {
    pub(crate) fn new(shards: InlineShards, hub: Hub, percentiles: Percentiles) -> Self {
        let stats = shards.stats_handle();
        Self {
            shards,
            hub,
            stats,
            taken: Vec::with_capacity(DRAIN_MAX),
            published: false,
            arrived: None,
            led: false,
            sampled: None,
            percentiles,
        }
    }

    /// A turn of the shards. Returns whether they found work.
    pub(crate) fn turn(&mut self) -> bool {
        let (hub, taken, published) = (&mut self.hub, &mut self.taken, &mut self.published);
        let worked = self.shards.turn(&mut |outputs: &[Output]| keep(hub, taken, published, outputs));
        self.publish();
        worked
    }

    fn make_room(&mut self) {
        let (hub, taken, published) = (&mut self.hub, &mut self.taken, &mut self.published);
        self.shards.make_room(&mut |outputs: &[Output]| keep(hub, taken, published, outputs));
    }

    fn publish(&mut self) {
        if !self.taken.is_empty() {
            self.hub.publish(&self.taken);
            self.taken.clear();
            self.published = true;
            self.hub.set_watermark(self.stats.watermark());
        }
    }

    /// Whether the hub got something since the last time.
    pub(crate) fn published(&mut self) -> bool {
        self.led |= self.published;
        std::mem::take(&mut self.published)
    }

    /// The readers have what there was for them; `done` when the shards have no more work. `turn` is when this turn began.
    pub(crate) fn delivered(&mut self, turn: MonoTime, clock: Clock, done: bool) {
        if done
            && let Some(arrived) = self.arrived.take()
            && self.led
        {
            self.sampled = Some(arrived);
            self.percentiles.record(clock.now().since(arrived));
        }
        self.percentiles.turn(turn, || 0);
    }

    /// Runs the shards to their end, which is that of the router.
    pub(crate) fn finish(self) -> (tidegate_actors::runtime::RuntimeReport, Hub) {
        let Self { shards, mut hub, stats, mut taken, mut published, .. } = self;
        let report =
            shards.finish(&mut |outputs: &[Output]| keep(&mut hub, &mut taken, &mut published, outputs));
        hub.publish(&taken);
        hub.set_watermark(stats.watermark());
        (report, hub)
    }
}

/// Keeps results for the hub, which likes them in runs, but never more than a run.
fn keep(hub: &mut Hub, taken: &mut Vec<Output>, published: &mut bool, outputs: &[Output]) {
    for part in outputs.chunks(DRAIN_MAX) {
        if taken.len() + part.len() > DRAIN_MAX {
            hub.publish(taken);
            taken.clear();
            *published = true;
        }
        taken.extend_from_slice(part);
    }
}
