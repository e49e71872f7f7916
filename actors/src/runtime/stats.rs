//! Counters of the shards, written once a turn and readable from any thread.

use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use tidegate_engine::ring::RingCounters;

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its thread is about to run.
    Starting = 0,
    /// Its operators run.
    Running = 1,
    /// An operator panicked; the shard waits for its restart.
    BackOff = 2,
    /// An operator panicked; events are only counted.
    Quarantined = 3,
    /// Its input has ended, or it was told to stop.
    Ended = 4,
    /// Its thread broke down beyond the supervisor's help; its ring is gone.
    Lost = 5,
}

impl Phase {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Starting,
            1 => Self::Running,
            2 => Self::BackOff,
            3 => Self::Quarantined,
            4 => Self::Ended,
            _ => Self::Lost,
        }
    }

    /// Name in outputs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackOff => "back-off",
            Self::Quarantined => "quarantined",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }
}

/// A shard's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardStats {
    /// The shard.
    pub shard: u32,
    /// Where it is in its life.
    pub phase: Phase,
    /// Data events taken off the ring.
    pub events: u64,
    /// Event time up to which it is complete, in nanoseconds; `u64::MAX` once the input has ended.
    pub watermark: u64,
    /// Results that left the last thread.
    pub outputs: u64,
    /// Results discarded because nobody reads the ring of outputs any more.
    pub outputs_unread: u64,
    /// Records waiting in the ring of events.
    pub ring_depth: u64,
    /// Turns that found work.
    pub turns_busy: u64,
    /// Turns that found none.
    pub turns_idle: u64,
    /// Panics caught.
    pub panics: u64,
    /// Restarts.
    pub restarts: u64,
    /// Of `events`, those only counted since the shard is quarantined, the batch that failed included.
    pub quarantined: u64,
    /// Of `events`, those between a restart's snapshot and the point where it resumed.
    pub lost_in_restart: u64,
    /// Threads that could not be tied to a core.
    pub pin_failures: u64,
}

/// One shard's counters in place. Every field has one writer at a time, so a load and a store are enough.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) phase: AtomicU8,
    pub(crate) events: AtomicU64,
    pub(crate) watermark: AtomicU64,
    pub(crate) turns_busy: AtomicU64,
    pub(crate) turns_idle: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) pin_failures: AtomicU64,
    /// On lines of their own: an analysis thread writes these while the shard writes those above.
    pub(crate) outputs: CachePadded<AtomicU64>,
    pub(crate) unread: CachePadded<AtomicU64>,
}

/// Adds to a counter that only the calling thread writes.
pub(crate) fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed) + count, Relaxed);
}

impl Cells {
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }
}

/// A shard's counters and those of its ring of events.
type Counters = (Arc<CachePadded<Cells>>, Arc<RingCounters>);

/// Reads the counters of a runtime's shards, from any thread, also after the runtime has finished.
#[derive(Clone, Debug)]
pub struct StatsHandle {
    shards: Arc<[Counters]>,
}

impl StatsHandle {
    pub(crate) fn new(shards: Vec<Counters>) -> Self {
        Self { shards: shards.into() }
    }

    /// Event time up to which every shard is complete.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.shards.iter().map(|(cells, _)| cells.watermark.load(Relaxed)).min().unwrap_or(0)
    }

    /// Counters of every shard, in order. Each is right by itself; together they are not of one instant.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        let read = |(shard, (cells, ring)): (usize, &Counters)| ShardStats {
            shard: shard as u32,
            phase: Phase::of(cells.phase.load(Relaxed)),
            events: cells.events.load(Relaxed),
            watermark: cells.watermark.load(Relaxed),
            outputs: cells.outputs.load(Relaxed),
            outputs_unread: cells.unread.load(Relaxed),
            ring_depth: ring.stats().depth(),
            turns_busy: cells.turns_busy.load(Relaxed),
            turns_idle: cells.turns_idle.load(Relaxed),
            panics: cells.panics.load(Relaxed),
            restarts: cells.restarts.load(Relaxed),
            quarantined: cells.quarantined.load(Relaxed),
            lost_in_restart: cells.lost.load(Relaxed),
            pin_failures: cells.pin_failures.load(Relaxed),
        };
        self.shards.iter().enumerate().map(read).collect()
    }
}
