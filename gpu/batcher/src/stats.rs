//! What went on so far, for whoever looks.

use crate::feeder::Shared;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_gpu::Accel;

/// Counts of one class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassStats {
    /// Batches computed.
    pub batches: u64,
    /// Lines of results.
    pub lines: u64,
    /// Batches whose results a device computed.
    pub on_device: u64,
    /// Batches a device was given and the CPU computed, because it failed, was late or refused.
    pub recomputed: u64,
    /// Of these, batches that were late.
    pub late: u64,
    /// Results left out because too many waited; their windows were taken.
    pub skipped: u64,
    /// Windows that became one with a later one of their row because too many waited.
    pub merged: u64,
    /// Time steps taken as complete because too many windows waited for a watermark.
    pub forced: u64,
    /// Windows that came later than the history reaches back.
    pub too_late: u64,
    /// Results that could not be computed; see `last_error`.
    pub refused: u64,
    /// Why the last such result could not be.
    pub last_error: Option<String>,
    /// Why the class gives nothing any more: what it panicked with.
    pub failed: Option<String>,
    /// From the arrival of the oldest window of the last batch until its results were there.
    pub last_latency: Duration,
}

/// What the threads of a class count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) batches: AtomicU64,
    pub(crate) lines: AtomicU64,
    pub(crate) on_device: AtomicU64,
    pub(crate) recomputed: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) merged: AtomicU64,
    pub(crate) forced: AtomicU64,
    pub(crate) too_late: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) last_latency: AtomicU64,
    texts: Mutex<(Option<String>, Option<String>)>,
    pub(crate) dead: AtomicBool,
    /// Slabs handed to the worker and not done yet.
    pub(crate) in_work: AtomicUsize,
    /// Fewest windows worth a batch while the worker has nothing to do.
    pub(crate) worthwhile: AtomicUsize,
}

impl Counts {
    pub(crate) fn error(&self, error: &dyn std::fmt::Display) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(error.to_string());
    }

    pub(crate) fn fail(&self, why: String) {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(why);
        self.dead.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// What went on so far. A copy shows the same.
#[derive(Debug, Clone)]
pub struct Stats {
    pub(crate) accel: Arc<Accel>,
    pub(crate) classes: Arc<[Arc<Counts>]>,
    pub(crate) feeders: Arc<[Arc<Shared>]>,
}

impl Stats {
    /// Counts of a class, by its place among the specs.
    ///
    /// # Panics
    /// When there is no such class.
    #[must_use]
    pub fn class(&self, class: usize) -> ClassStats {
        let counts = &self.classes[class];
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (last_error, failed) = counts.texts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ClassStats {
            batches: get(&counts.batches),
            lines: get(&counts.lines),
            on_device: get(&counts.on_device),
            recomputed: get(&counts.recomputed),
            late: get(&counts.late),
            skipped: get(&counts.skipped),
            merged: get(&counts.merged),
            forced: get(&counts.forced),
            too_late: get(&counts.too_late),
            refused: get(&counts.refused),
            last_error,
            failed,
            last_latency: Duration::from_nanos(get(&counts.last_latency)),
        }
    }

    /// Windows of all feeders that found their ring full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.feeders.iter().map(|feeder| feeder.lost.load(Ordering::Relaxed)).sum()
    }

    /// Windows of all feeders that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.feeders.iter().map(|feeder| feeder.refused.load(Ordering::Relaxed)).sum()
    }

    /// The device that takes batches at the moment, by name.
    #[must_use]
    pub fn device(&self) -> Option<String> {
        self.accel.status().device.map(|device| device.name)
    }

    /// Times a device was opened anew after it failed or was late.
    #[must_use]
    pub fn rebuilt(&self) -> u64 {
        self.accel.status().rebuilt
    }

    /// Whether a device that failed or was late is being opened anew.
    #[must_use]
    pub fn rebuilding(&self) -> bool {
        self.accel.rebuilding()
    }

    /// Why there is no device although one was looked for. A machine without a driver is no reason to give.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        match self.accel.unavailable() {
            None | Some(tidegate_gpu::Unavailable::NoLibrary) => None,
            Some(reason) => Some(reason.to_string()),
        }
    }
}
