//! What lies behind the router: shards on threads of their own, or shards and hub right here.

use crate::egress::DRAIN_MAX;
use tidegate_actors::runtime::{Idle, InlineShards, StatsHandle};
use tidegate_engine::{Event, Output, Router, Waker};
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
}

impl Downstream {
    /// Sends a run of the log. Returns `false` when a shard is gone.
    pub(crate) fn route(&mut self, router: &mut Router, log: &[Event]) -> bool {
        match self {
            Self::Threads(Threads { idle, .. }) => {
                idle.idle(true);
                router.route(log, || idle.idle(false))
            }
            Self::Here(here) => router.route(log, || here.make_room()),
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
    pub(crate) fn new(shards: InlineShards, hub: Hub) -> Self {
        let stats = shards.stats_handle();
        Self { shards, hub, stats, taken: Vec::with_capacity(DRAIN_MAX), published: false }
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
        std::mem::take(&mut self.published)
    }

    /// Runs the shards to their end, which is that of the router.
    pub(crate) fn finish(self) -> (tidegate_actors::runtime::RuntimeReport, Hub) {
        let Self { shards, mut hub, stats, mut taken, mut published } = self;
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
