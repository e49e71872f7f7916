//! What a thread does with its time: it works, waits for work, or waits for room behind it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Nanoseconds of a thread's life by what it did with them. Written by that thread alone, readable from any.
#[derive(Debug, Default)]
pub struct TimeCells {
    busy: AtomicU64,
    idle: AtomicU64,
    blocked: AtomicU64,
}

/// What [`TimeCells`] said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTimes {
    /// Nanoseconds it worked.
    pub busy_ns: u64,
    /// Nanoseconds it waited for work, its look at the empty ring included.
    pub idle_ns: u64,
    /// Nanoseconds it waited for room: what it had made did not fit the ring behind it.
    pub blocked_ns: u64,
}

/// A thread of the engine, by name, and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStats {
    /// Its name, as the system has it too.
    pub name: String,
    /// What it did.
    pub times: ThreadTimes,
}

impl TimeCells {
    /// Reads all three. Each is right by itself.
    #[must_use]
    pub fn times(&self) -> ThreadTimes {
        ThreadTimes {
            busy_ns: self.busy.load(Relaxed),
            idle_ns: self.idle.load(Relaxed),
            blocked_ns: self.blocked.load(Relaxed),
        }
    }
}

/// Tells a thread's time apart: whatever passed since the last look at the clock was one of the three. One look per batch or
/// wait, none per event.
#[derive(Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self, cell: &AtomicU64) {
        let now = Instant::now();
        let passed = now.duration_since(self.0).as_nanos() as u64;
        self.0 = now;
        cell.store(cell.load(Relaxed) + passed, Relaxed);
    }

    /// The time since the last look was work.
    pub fn worked(&mut self, cells: &TimeCells) {
        self.lap(&cells.busy);
    }

    /// The time since the last look went by without work.
    pub fn waited(&mut self, cells: &TimeCells) {
        self.lap(&cells.idle);
    }

    /// The time since the last look was spent before a full ring.
    pub fn blocked(&mut self, cells: &TimeCells) {
        self.lap(&cells.blocked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nanosecond_counts_once() {
        let cells = TimeCells::default();
        let mut watch = Stopwatch::start();
        let start = watch.0;
        for _ in 0..100 {
            watch.worked(&cells);
            watch.waited(&cells);
            watch.blocked(&cells);
        }
        let ThreadTimes { busy_ns, idle_ns, blocked_ns } = cells.times();
        assert_eq!(busy_ns + idle_ns + blocked_ns, watch.0.duration_since(start).as_nanos() as u64);
    }
}
