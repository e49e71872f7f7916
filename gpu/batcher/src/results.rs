//! The end of the batcher that whoever wants the results holds.

use crate::Derived;
use crate::signal::Signal;
use crate::slab::Slab;
use rtrb::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Results of one batch of one class.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The class, by its place among the specs.
    pub class: usize,
    /// For a surface the row of each line, else nothing.
    pub rows: &'a [u32],
    /// For each line the end of the window, or of the time step, in nanoseconds.
    pub times: &'a [u64],
    /// Values of a line.
    pub width: usize,
    /// Line by line `width` values; NaN where there is none.
    pub values: &'a [f64],
    /// From the arrival of the oldest window of the batch to now.
    pub latency: Duration,
    /// Where it was computed, and by which version.
    pub derived: Derived,
    /// Windows that were lost or merged until then, of which these results may lack something; 0 says that they are those of all bars.
    pub gaps: u64,
}

impl<'a> Outcome<'a> {
    /// Each line's row, where it has one, its time and its values.
    pub fn lines(&self) -> impl Iterator<Item = (Option<u32>, u64, &'a [f64])> + use<'a> {
        let (rows, values, width) = (self.rows, self.values, self.width);
        let line = move |(at, &time): (usize, &u64)| {
            (rows.get(at).copied(), time, &values[at * width..(at + 1) * width])
        };
        self.times.iter().enumerate().map(line)
    }
}

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// There is a result.
    Ready,
    /// There is none so far.
    TimedOut,
    /// There is none, and none will come.
    Ended,
}

#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) done: Consumer<Box<Slab>>,
    /// Back to the batcher.
    pub(crate) free: Producer<Box<Slab>>,
}

/// Gives results, class by class in the order of their windows.
#[derive(Debug)]
pub struct Results {
    pub(crate) outlets: Vec<Outlet>,
    /// The class that is looked at first next time.
    pub(crate) next: usize,
    pub(crate) own: Arc<Signal>,
    pub(crate) batcher: Arc<Signal>,
    pub(crate) began: Instant,
    pub(crate) columns: Vec<Vec<String>>,
    /// Whether this is there.
    pub(crate) open: Arc<AtomicBool>,
}

impl Results {
    /// Calls `read` with the next result, if there is one, and says whether there was. Classes take turns.
    pub fn next(&mut self, read: impl FnOnce(&Outcome<'_>)) -> bool {
        let count = self.outlets.len();
        for turn in 0..count {
            let class = (self.next + turn) % count;
            let Ok(slab) = self.outlets[class].done.pop() else { continue };
            self.next = (class + 1) % count;
            let back = Back { slab: Some(slab), outlet: &mut self.outlets[class], batcher: &self.batcher };
            if let Some(slab) = &back.slab {
                let now = self.began.elapsed().as_nanos() as u64;
                read(&Outcome {
                    class,
                    rows: &slab.rows,
                    times: &slab.ends,
                    width: slab.width(),
                    values: &slab.values,
                    latency: Duration::from_nanos(now.saturating_sub(slab.arrived)),
                    derived: slab.derived,
                    gaps: slab.gaps,
                });
            }
            return true;
        }
        false
    }

    /// Sleeps until there is a result, or none will come any more, for at most `longest`.
    pub fn wait(&mut self, longest: Duration) -> Waited {
        let until = Instant::now() + longest;
        loop {
            let seen = self.own.seen();
            let ended = self.outlets.iter().all(|outlet| outlet.done.is_abandoned());
            if self.outlets.iter().any(|outlet| !outlet.done.is_empty()) {
                return Waited::Ready;
            }
            if ended {
                return Waited::Ended;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TimedOut;
            }
            self.own.wait(seen, Some(left));
        }
    }

    /// Names of the values of a class's lines.
    ///
    /// # Panics
    /// When there is no such class.
    #[must_use]
    pub fn columns(&self, class: usize) -> &[String] {
        &self.columns[class]
    }
}

/// Gives the slab back, whatever the reader does.
struct Back<'a> {
    slab: Option<Box<Slab>>,
    outlet: &'a mut Outlet,
    batcher: &'a Signal,
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Some(slab) = self.slab.take() {
            let _ = self.outlet.free.push(slab);
            self.batcher.raise();
        }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        // Nobody reads any more: the batcher needs no slab for results, and can come to its end.
        self.open.store(false, Ordering::SeqCst);
        self.batcher.raise();
    }
}
