//! Counters of the shards, written once a turn and readable from any thread.

use super::StageReport;
use super::times::{ThreadStats, ThreadTimes, TimeCells};
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_engine::ring::RingCounters;

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// What its thread does with its time.
    pub times: ThreadTimes,
}

/// How far a shard has come with its records. Whoever knows a place in the ring of events can tell from this when everything
/// that follows from the records before it has reached the ring of outputs: when `applied` has passed the place, and then
/// `analysed` has passed what `staged` was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardProgress {
    /// Records of the ring of events that were applied, and what they led to handed on.
    pub applied: u64,
    /// Results handed to an analysis thread; none without one.
    pub staged: u64,
    /// Of these, dealt with there, and what they led to handed on.
    pub analysed: u64,
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
    pub(crate) applied: AtomicU64,
    pub(crate) staged: AtomicU64,
    pub(crate) times: TimeCells,
    /// Somebody wants to see the ledgers: looked at once a turn.
    pub(crate) ledgers_wanted: AtomicBool,
    /// As they were when they were last wanted; empty while there is nothing to be trusted.
    ledgers: Mutex<Vec<StageReport>>,
    /// On lines of their own: an analysis thread writes these while the shard writes those above.
    pub(crate) outputs: CachePadded<AtomicU64>,
    pub(crate) unread: CachePadded<AtomicU64>,
    pub(crate) analysed: CachePadded<AtomicU64>,
    pub(crate) analysis_times: CachePadded<TimeCells>,
}

/// Adds to a counter that only the calling thread writes.
pub(crate) fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed) + count, Relaxed);
}

impl Cells {
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Counts on from what a snapshot holds.
    pub(crate) fn resume(&self, snapshot: Option<&super::ShardSnapshot>) {
        self.events.store(snapshot.map_or(0, |snapshot| snapshot.events), Relaxed);
    }

    /// The time of the shard's thread, or of its analysis thread.
    pub(crate) fn times(&self, analysis: bool) -> &TimeCells {
        if analysis { &self.analysis_times } else { &self.times }
    }

    pub(crate) fn ledgers(&self) -> MutexGuard<'_, Vec<StageReport>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the ledgers of a shard to those who want them, unless somebody is looking at the old ones just now: the shard
    /// never waits, and is asked again at its next turn.
    pub(crate) fn show_ledgers(&self, stages: &[tidegate_engine::Stage]) {
        let Ok(mut shown) = self.ledgers.try_lock() else { return };
        self.ledgers_wanted.store(false, Relaxed);
        if shown.len() == stages.len() {
            for (shown, stage) in shown.iter_mut().zip(stages) {
                (shown.ledger, shown.cut) = (stage.ledger(), stage.cut());
            }
        } else {
            *shown = StageReport::of(stages);
        }
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

    /// The shards of several runtimes, one behind the other, numbered anew.
    #[must_use]
    pub fn joined(parts: &[Self]) -> Self {
        Self { shards: parts.iter().flat_map(|part| part.shards.iter().cloned()).collect() }
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
            times: cells.times.times(),
        };
        self.shards.iter().enumerate().map(read).collect()
    }

    /// How far a shard has come; nothing for one that does not exist. Together with the counters of its ring of outputs, read
    /// behind this, it says what has left.
    #[must_use]
    pub fn progress(&self, shard: usize) -> ShardProgress {
        let Some((cells, _)) = self.shards.get(shard) else { return ShardProgress::default() };
        let applied = cells.applied.load(Acquire);
        let staged = cells.staged.load(Relaxed);
        ShardProgress { applied, staged, analysed: cells.analysed.load(Acquire) }
    }

    /// The threads of all shards and their time.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadStats> {
        let shards = self.shards.iter().enumerate();
        let shards = shards.map(|(shard, (cells, _))| ThreadStats {
            name: format!("tg-shard-{shard}"),
            times: cells.times.times(),
        });
        let analysis = self.shards.iter().enumerate().map(|(shard, (cells, _))| ThreadStats {
            name: format!("tg-analysis-{shard}"),
            times: cells.analysis_times.times(),
        });
        let there = |thread: &ThreadStats| thread.times != ThreadTimes::default();
        shards.chain(analysis.filter(there)).collect()
    }

    /// Where events went, stage by stage over all shards, as each shard last showed it; empty before the first did. Asks
    /// the shards for a newer account, which they give at their next turn. Each balances: a shard shows it between turns.
    #[must_use]
    pub fn ledgers(&self) -> Vec<StageReport> {
        let mut sum: Vec<StageReport> = Vec::new();
        for (cells, _) in self.shards.iter() {
            StageReport::add(&mut sum, cells.ledgers().iter().cloned());
            cells.ledgers_wanted.store(true, Relaxed);
        }
        sum
    }
}
