//! The thread of a class: it has the class's state, takes slabs as they come and fills in their lines.

use crate::Options;
use crate::lane::Lane;
use crate::signal::Signal;
use crate::slab::Slab;
use crate::stats::{Counts, add};
use rtrb::{Consumer, Producer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often what was expected a batch may take before it is late.
const LATE_TIMES: f64 = 50.0;

/// State of a class, and how a batch changes it.
pub(crate) trait Class: Send {
    /// Takes the windows of `slab` in their order and puts a line there for each result that is wanted.
    fn run(&mut self, slab: &mut Slab, lane: &Lane, counts: &Counts);
}

/// When a batch on the device is late, from what it is expected to take in seconds.
pub(crate) fn late_after(options: &Options, expected: Option<f64>) -> Duration {
    match expected {
        None => options.late_first.max(options.late_least),
        Some(seconds) => {
            Duration::from_secs_f64((LATE_TIMES * seconds).clamp(0.0, 3_600.0)).max(options.late_least)
        }
    }
}

pub(crate) struct Worker {
    pub(crate) class: Box<dyn Class>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) counts: Arc<Counts>,
    /// Slabs to compute; those with results; those without.
    pub(crate) work: Consumer<Box<Slab>>,
    pub(crate) done: Producer<Box<Slab>>,
    pub(crate) spare: Producer<Box<Slab>>,
    /// This thread's own, the batcher's, and the results'.
    pub(crate) own: Arc<Signal>,
    pub(crate) batcher: Arc<Signal>,
    pub(crate) results: Arc<Signal>,
    pub(crate) began: Instant,
    /// Whether somebody reads results.
    pub(crate) open: Arc<AtomicBool>,
}

impl Worker {
    /// Works until the batcher has gone and all is computed.
    pub(crate) fn run(mut self) {
        loop {
            let seen = self.own.seen();
            let gone = self.work.is_abandoned();
            let mut some = false;
            while let Ok(slab) = self.work.pop() {
                some = true;
                self.compute(slab);
            }
            if gone && self.work.is_empty() {
                break;
            }
            if !some {
                self.own.wait(seen, None);
            }
        }
        // The results are at their end once the rings are gone.
        let results = Arc::clone(&self.results);
        drop(self);
        results.raise();
    }

    fn compute(&mut self, mut slab: Box<Slab>) {
        let (class, lane, counts) = (&mut self.class, &self.lane, &self.counts);
        if !counts.dead.load(Ordering::Relaxed) {
            let outcome = catch_unwind(AssertUnwindSafe(|| class.run(&mut slab, lane, counts)));
            if let Err(panic) = outcome {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                counts.fail(text.to_owned());
                slab.clear();
            }
        } else {
            slab.clear();
        }
        let lines = slab.lines() as u64;
        add(&counts.batches, 1);
        add(&counts.lines, lines);
        if lines > 0 {
            let now = self.began.elapsed().as_nanos() as u64;
            counts.last_latency.store(now.saturating_sub(slab.arrived), Ordering::Relaxed);
        }
        let unread = lines == 0 || !self.open.load(Ordering::SeqCst);
        let to = if unread { &mut self.spare } else { &mut self.done };
        // There are never more slabs than places.
        let _ = to.push(slab);
        counts.in_work.fetch_sub(1, Ordering::SeqCst);
        if !unread {
            self.results.raise();
        }
        self.batcher.raise();
    }
}
