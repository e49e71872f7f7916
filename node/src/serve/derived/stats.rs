//! What the thread did, for metrics and for people.

use super::batched::Batched;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use tidegate_gateway::DerivedStats;
use tidegate_gpu::{Accel, Backend};

/// Notes kept for people until they are told.
const NOTES_MAX: usize = 16;

/// Counters that the thread writes and others read.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) batches: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) left_out: AtomicU64,
    pub(super) conflated: AtomicU64,
    pub(super) lost: AtomicU64,
    failed: AtomicU64,
    on_device: AtomicU64,
    on_cpu: AtomicU64,
    recomputed: AtomicU64,
    rebuilt: AtomicU64,
    device: Mutex<&'static str>,
    notes: Mutex<Vec<String>>,
}

impl Shared {
    /// A row that could not be computed: counted, and said once for a while.
    pub(super) fn failed(&self, what: &str, error: &str) {
        let first = self.failed.fetch_add(1, Relaxed) == 0;
        if first {
            self.note(format!("warning: {what} could not be computed: {error}"));
        }
    }

    pub(super) fn note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES_MAX {
            notes.push(note);
        }
    }

    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the backend and the batchers say of themselves.
    pub(super) fn told<'b>(&self, backend: &Accel, batched: impl Iterator<Item = &'b Batched>) {
        let status = backend.status();
        let (mut on_device, mut on_cpu, mut recomputed, mut rebuilt) =
            (status.on_device, status.on_cpu, status.recomputed, status.rebuilt);
        for batched in batched {
            let stats = batched.stats();
            on_device += stats.on_device;
            on_cpu += stats.batches.saturating_sub(stats.on_device);
            recomputed += stats.recomputed;
            rebuilt += batched.rebuilt();
        }
        let device =
            if on_device > self.on_device.swap(on_device, Relaxed) { "cuda" } else { backend.name() };
        self.on_cpu.store(on_cpu, Relaxed);
        if recomputed > self.recomputed.swap(recomputed, Relaxed) {
            let why = status.last_error.map_or_else(String::new, |error| format!(" ({error})"));
            self.note(format!("the GPU did not compute a batch{why}; the CPU did, with the same result"));
        }
        self.rebuilt.store(rebuilt, Relaxed);
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = device;
    }

    pub(super) fn stats(&self) -> DerivedStats {
        DerivedStats {
            device: *self.device.lock().unwrap_or_else(PoisonError::into_inner),
            batches: self.batches.load(Relaxed),
            rows: self.rows.load(Relaxed),
            on_device: self.on_device.load(Relaxed),
            on_cpu: self.on_cpu.load(Relaxed),
            recomputed: self.recomputed.load(Relaxed),
            reopened: self.rebuilt.load(Relaxed),
            conflated: self.conflated.load(Relaxed),
            left_out: self.left_out.load(Relaxed),
            lost: self.lost.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}
