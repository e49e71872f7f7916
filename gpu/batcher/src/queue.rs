//! Windows of one class on their way into slabs: in order, complete, and never more than there is room for.

use crate::Options;
use crate::feeder::Sent;
use crate::signal::Signal;
use crate::slab::{Entry, STEP, Slab, Task};
use crate::stats::{Counts, add};
use rtrb::{Consumer, Producer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Slabs of a class: one that fills, one that is computed, one that is delivered, and one for windows without results, which
/// are taken even where nobody takes the results.
pub(crate) const SLABS: usize = 4;

pub(crate) struct Queue {
    /// Whether results are of time steps, and not of each window.
    by_step: bool,
    /// Windows whose step is not complete, in the order in which they came.
    pending: Vec<(Entry, u64)>,
    came: u64,
    /// The earliest end among them.
    earliest: u64,
    /// Up to here steps are complete.
    complete: u64,
    /// What can go to the worker, in this order.
    ready: VecDeque<Entry>,
    /// Ends of steps in it.
    steps: usize,
    /// Most entries of it before windows are merged.
    room: usize,
    /// For each slot the place of its newest window while they are merged, 0 for none.
    newest: Vec<u32>,
    /// Windows of a slab.
    windows: usize,
    #[allow(clippy::vec_box, reason = "a slab goes around by its box and is never moved")]
    free: Vec<Box<Slab>>,
    pub(crate) work: Producer<Box<Slab>>,
    pub(crate) back: [Consumer<Box<Slab>>; 2],
    pub(crate) counts: Arc<Counts>,
    pub(crate) worker: Arc<Signal>,
    max_latency: u64,
    steps_behind: usize,
}

/// Rings of a queue and whom they lead to.
pub(crate) struct Ways {
    pub(crate) work: Producer<Box<Slab>>,
    pub(crate) back: [Consumer<Box<Slab>>; 2],
    pub(crate) counts: Arc<Counts>,
    pub(crate) worker: Arc<Signal>,
}

impl Queue {
    pub(crate) fn new(by_step: bool, members: usize, width: usize, ways: Ways, options: &Options) -> Self {
        let room = options.backlog.max(4 * members + 64);
        let at_once = options.max_batch.min((2 * members).max(64));
        let lines = if by_step {
            crate::spec::STEPS_AT_ONCE
        } else {
            at_once.min(crate::spec::VALUES_MAX / width).max(1)
        };
        let windows = if by_step { at_once } else { lines };
        let Ways { work, back, counts, worker } = ways;
        Self {
            by_step,
            pending: Vec::with_capacity(if by_step { room } else { 0 }),
            came: 0,
            earliest: u64::MAX,
            complete: 0,
            ready: VecDeque::with_capacity(4 * room),
            steps: 0,
            room,
            newest: vec![0; members],
            windows,
            free: (0..SLABS).map(|_| Box::new(Slab::new(windows, lines, width))).collect(),
            work,
            back,
            counts,
            worker,
            max_latency: u64::try_from(options.max_latency.as_nanos()).unwrap_or(u64::MAX),
            steps_behind: options.steps_behind,
        }
    }

    /// Takes a window.
    pub(crate) fn take(&mut self, slot: u32, sent: &Sent) {
        let window = &sent.window;
        let task = if self.by_step { Task::Take } else { Task::Result };
        let (high, low, close) = (window.high, window.low, window.close);
        let entry = Entry { slot, task, time: window.close_ts, high, low, close, arrived: sent.arrived };
        // What is late for its step joins those after it.
        if !self.by_step || entry.time <= self.complete {
            self.make_room();
            self.ready.push_back(entry);
            return;
        }
        if self.pending.len() == self.room {
            // A feeder that gives no watermark must not hold everything back for ever.
            add(&self.counts.forced, 1);
            self.release(self.earliest);
        }
        self.pending.push((entry, self.came));
        self.came += 1;
        self.earliest = self.earliest.min(entry.time);
    }

    /// Every feeder has given what ends up to here.
    pub(crate) fn complete(&mut self, watermark: u64) {
        if self.earliest <= watermark {
            self.release(watermark);
        }
        self.complete = self.complete.max(watermark);
    }

    /// The earliest end that a watermark is awaited for.
    pub(crate) fn awaited(&self) -> u64 {
        self.earliest
    }

    /// Moves complete steps, each followed by its end.
    fn release(&mut self, watermark: u64) {
        self.make_room();
        self.pending.sort_unstable_by_key(|(entry, came)| (entry.time, *came));
        let count = self.pending.partition_point(|(entry, _)| entry.time <= watermark);
        for at in 0..count {
            let entry = self.pending[at].0;
            self.ready.push_back(entry);
            if at + 1 == count || self.pending[at + 1].0.time != entry.time {
                let end = Entry { slot: STEP, task: Task::Result, high: 0, low: 0, close: 0, ..entry };
                self.ready.push_back(end);
                self.steps += 1;
            }
        }
        self.pending.drain(..count);
        self.earliest = self.pending.first().map_or(u64::MAX, |(entry, _)| entry.time);
        self.complete = self.complete.max(watermark);
    }

    /// One window per row where there are too many: the newest, with the highest and the lowest price of all.
    fn make_room(&mut self) {
        if self.ready.len() < self.room {
            return;
        }
        let entries = self.ready.make_contiguous();
        let mut merged = 0;
        for at in (0..entries.len()).rev() {
            let entry = entries[at];
            let Some(newest) = self.newest.get_mut(entry.slot as usize) else { continue };
            if *newest == 0 {
                *newest = at as u32 + 1;
                continue;
            }
            let kept = &mut entries[*newest as usize - 1];
            // Of one end the later says what it is.
            if kept.time != entry.time {
                merged += 1;
                if kept.close != 0 && entry.close != 0 {
                    (kept.high, kept.low) = (kept.high.max(entry.high), kept.low.min(entry.low));
                }
            }
            kept.arrived = kept.arrived.min(entry.arrived);
            // Nothing, to be taken out below.
            (entries[at].slot, entries[at].task) = (STEP, Task::Take);
        }
        self.newest.fill(0);
        // A step that has lost all its windows is none.
        let mut windows = false;
        self.ready.retain(|entry| match (entry.slot, entry.task) {
            (STEP, Task::Take) => false,
            (STEP, Task::Result) => std::mem::take(&mut windows),
            _ => {
                windows = true;
                true
            }
        });
        self.steps = self.ready.iter().filter(|entry| entry.slot == STEP).count();
        add(&self.counts.merged, merged);
    }

    /// Hands over what is due. Says when something will be, if nothing happens before, in nanoseconds.
    pub(crate) fn hand_over(&mut self, now: u64, lost: u64, closing: bool, read: bool) -> Option<u64> {
        for back in &mut self.back {
            while let Ok(slab) = back.pop() {
                self.free.push(slab);
            }
        }
        if self.counts.dead.load(Ordering::Relaxed) {
            self.ready.clear();
            self.pending.clear();
            (self.steps, self.earliest) = (0, u64::MAX);
            return None;
        }
        loop {
            // The last slab is for windows without results.
            let results = read && self.free.len() > 1;
            let many = self.ready.len() > self.room / 2;
            if self.free.is_empty() || self.ready.is_empty() {
                return None;
            }
            if !results && read && !many && self.steps <= self.steps_behind {
                return None;
            }
            if results && !self.by_step {
                let oldest = self.ready.front().map_or(now, |entry| entry.arrived);
                let due = oldest.saturating_add(self.max_latency);
                let idle = self.counts.in_work.load(Ordering::SeqCst) == 0;
                let worthwhile = self.counts.worthwhile.load(Ordering::Relaxed);
                let enough = self.ready.len() >= self.windows || idle && self.ready.len() >= worthwhile;
                if !enough && now < due && !closing {
                    return Some(due);
                }
            }
            if self.by_step && self.steps == 0 && !many && !closing {
                return None;
            }
            if !self.fill(lost, results, read) {
                return None;
            }
        }
    }

    /// Fills a slab and hands it over, unless there is nothing that may go.
    fn fill(&mut self, lost: u64, results: bool, read: bool) -> bool {
        let Some(mut slab) = self.free.pop() else { return false };
        slab.clear();
        slab.gaps = lost + self.counts.merged.load(Ordering::Relaxed);
        // Steps whose results are left out.
        let mut skip = match (read, results) {
            (false, _) => self.steps,
            (true, false) if self.ready.len() > self.room / 2 => self.steps.saturating_sub(1),
            _ => self.steps.saturating_sub(self.steps_behind),
        };
        let mut skipped = 0;
        while slab.len() < self.windows {
            let Some(&front) = self.ready.front() else { break };
            let mut entry = front;
            let wanted = entry.task == Task::Result;
            if wanted && (!self.by_step && !results || self.by_step && skip > 0) {
                entry.task = Task::Take;
                skip = skip.saturating_sub(1);
                skipped += 1;
            } else if wanted && !results {
                break;
            }
            self.ready.pop_front();
            self.steps -= usize::from(entry.slot == STEP);
            slab.put(&entry);
            if self.by_step && entry.task == Task::Result {
                break; // A slab has room for one step's line.
            }
        }
        if read {
            add(&self.counts.skipped, skipped);
        }
        if slab.len() == 0 {
            self.free.push(slab);
            return false;
        }
        self.counts.in_work.fetch_add(1, Ordering::SeqCst);
        // There are never more slabs than places.
        let _ = self.work.push(slab);
        self.worker.raise();
        true
    }

    /// Whether something waits that anybody wants the results of.
    pub(crate) fn waits(&self, read: bool) -> bool {
        read && !self.counts.dead.load(Ordering::Relaxed)
            && (self.steps > 0 || !self.by_step && !self.ready.is_empty())
    }
}
