//! Indicators of many parameters, each row's at each of its closed bars.
//!
//! A row's state is that of all its bars, kept up by one bar at a time. The newest bars are kept too, with what the state was
//! before some of them, so that a bar which comes late or changes counts as if it had come in time; and so that a device, which
//! computes whole series, can be given them as long as none has left.

use crate::lane::{Answer, Ask, Lane, Said, SweepAsk};
use crate::route::{Place, Route};
use crate::slab::{Entry, Slab, Task};
use crate::stats::{Counts, add};
use crate::worker::{Class, late_after};
use crate::{Derived, Options, SurfaceSpec};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tidegate_gpu::BatchError;
use tidegate_gpu::sweep::{LiveBar, LiveSweep, SweepSpec};

/// Most bars of all series of one question to the device.
const ASKED_MAX: usize = 1 << 24;

pub(crate) struct Surface {
    members: Vec<u32>,
    live: LiveSweep,
    specs: Arc<[SweepSpec]>,
    /// Bars kept of a row: twice `half`.
    kept: usize,
    half: u64,
    /// Row by row a ring each.
    times: Vec<u64>,
    bars: Vec<LiveBar>,
    rows: Vec<Row>,
    /// Row by row [`Moments`] states.
    states: Vec<f64>,
    /// Lines that the device is to fill: slot and bar.
    open: Vec<(usize, u64)>,
    ask: Option<SweepAsk>,
    route: Route,
    options: Options,
}

/// States kept of a row: now, and at two bars before.
const MOMENTS: usize = 3;
const NOW: usize = 0;
const NEWER: usize = 1;
const OLDER: usize = 2;

/// Bars are numbered from 0 as they follow each other in time.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Bars there were.
    count: u64,
    /// The first that is kept.
    first: u64,
    /// For each moment: bars its state is of, and the close of the last of them.
    taken: [u64; MOMENTS],
    previous: [i64; MOMENTS],
}

impl Surface {
    pub(crate) fn new(members: &[u32], spec: &SurfaceSpec, options: &Options) -> Result<Self, BatchError> {
        let live = LiveSweep::new(&spec.specs)?;
        let half = (spec.history / 2).max(1);
        let (kept, rows) = (2 * half, members.len());
        let states = vec![0.0; rows * MOMENTS * live.state_len()];
        let specs: Arc<[SweepSpec]> = spec.specs.as_slice().into();
        Ok(Self {
            members: members.to_vec(),
            live,
            ask: Some(SweepAsk::new(Arc::clone(&specs))),
            specs,
            kept,
            half: half as u64,
            times: vec![0; rows * kept],
            bars: vec![LiveBar::default(); rows * kept],
            rows: vec![Row::default(); rows],
            states,
            open: Vec::with_capacity(options.max_batch),
            route: Route::new(options.routing),
            options: options.clone(),
        })
    }

    /// Where a bar lies.
    fn place(&self, slot: usize, bar: u64) -> usize {
        slot * self.kept + (bar % self.kept as u64) as usize
    }

    fn state(&self, slot: usize, moment: usize) -> std::ops::Range<usize> {
        let len = self.live.state_len();
        let at = (slot * MOMENTS + moment) * len;
        at..at + len
    }

    /// A bar after all others.
    fn append(&mut self, slot: usize, entry: &Entry) {
        let row = &self.rows[slot];
        if row.count - row.taken[OLDER] >= self.kept as u64 {
            // Only where a device computed so far: the oldest bar leaves, so the state must have it.
            self.advance(slot, row.count - 1);
        }
        let bar = self.rows[slot].count;
        let at = self.place(slot, bar);
        self.times[at] = entry.time;
        self.bars[at] = LiveBar { high: entry.high, low: entry.low, close: entry.close };
        let row = &mut self.rows[slot];
        row.count += 1;
        row.first = row.first.max(row.count.saturating_sub(self.kept as u64));
    }

    /// Brings the state up to `bar` and the one before it.
    fn advance(&mut self, slot: usize, bar: u64) {
        let now = self.state(slot, NOW);
        let mut row = self.rows[slot];
        while row.taken[NOW] <= bar {
            let next = row.taken[NOW];
            let at = self.place(slot, next);
            self.live.take(&mut self.states[now.clone()], next, row.previous[NOW], self.bars[at]);
            row.previous[NOW] = self.bars[at].close;
            row.taken[NOW] = next + 1;
            if (next + 1).is_multiple_of(self.half) && next + 1 > row.taken[NEWER] {
                self.keep(slot, &mut row, NEWER, OLDER);
                self.keep(slot, &mut row, NOW, NEWER);
            }
        }
        self.rows[slot] = row;
    }

    /// Copies what one moment was to another.
    fn keep(&mut self, slot: usize, row: &mut Row, from: usize, to: usize) {
        let (source, target) = (self.state(slot, from), self.state(slot, to));
        self.states.copy_within(source, target.start);
        row.taken[to] = row.taken[from];
        row.previous[to] = row.previous[from];
    }

    /// The values of a line after `bar`, up to which the state was brought.
    fn values(&self, slot: usize, bar: u64, out: &mut [f64]) {
        let row = &self.rows[slot];
        // What is gone, which only withdrawn bars bring about, makes a band of nothing.
        let close = |ago: u32| match bar.checked_sub(ago.into()) {
            Some(bar) if bar >= row.first => self.bars[self.place(slot, bar)].close,
            _ => i64::MIN,
        };
        self.live.values(&self.states[self.state(slot, NOW)], bar, close, out);
    }

    /// A bar that is not after all others: late, amended or taken back. Says whether it lies within what is kept.
    fn amend(&mut self, slot: usize, entry: &Entry) -> bool {
        if let Some(last) = self.rows[slot].count.checked_sub(1) {
            // Wherever values were computed so far, the same bars are within what is kept.
            self.advance(slot, last);
        }
        let Row { count, first, taken, .. } = self.rows[slot];
        // The number it has or would have; nearly always one of the last.
        let mut bar = count;
        while bar > first && self.times[self.place(slot, bar - 1)] >= entry.time {
            bar -= 1;
        }
        let known = bar < count && self.times[self.place(slot, bar)] == entry.time;
        if entry.close == 0 && !known {
            return true; // It never was, or is taken back a second time.
        }
        if bar < taken[OLDER] {
            return false;
        }
        if entry.close == 0 {
            for later in bar + 1..count {
                let (from, to) = (self.place(slot, later), self.place(slot, later - 1));
                (self.times[to], self.bars[to]) = (self.times[from], self.bars[from]);
            }
            self.rows[slot].count -= 1;
        } else {
            if !known {
                for later in (bar..count).rev() {
                    let (from, to) = (self.place(slot, later), self.place(slot, later + 1));
                    (self.times[to], self.bars[to]) = (self.times[from], self.bars[from]);
                }
                let row = &mut self.rows[slot];
                row.count += 1;
                row.first = row.first.max(row.count.saturating_sub(self.kept as u64));
            }
            let at = self.place(slot, bar);
            self.times[at] = entry.time;
            self.bars[at] = LiveBar { high: entry.high, low: entry.low, close: entry.close };
        }
        let mut row = self.rows[slot];
        if row.taken[NEWER] > bar {
            self.keep(slot, &mut row, OLDER, NEWER);
        }
        if row.taken[NOW] > bar {
            self.keep(slot, &mut row, NEWER, NOW);
        }
        self.rows[slot] = row;
        true
    }

    /// Has the device fill the lines that are open, or the CPU where it does not.
    fn fill(&mut self, slab: &mut Slab, lane: &Lane, counts: &Counts) {
        if self.open.is_empty() {
            return;
        }
        let first = slab.lines() - self.open.len();
        if let Some(cells) = self.on_device(lane, counts) {
            for (at, cells) in cells.iter().enumerate() {
                let mut rest = slab.line_mut(first + at);
                for (spec, cell) in self.specs.iter().zip(cells) {
                    let (own, after) = rest.split_at_mut(spec.columns());
                    own.copy_from_slice(&cell.values[..own.len()]);
                    rest = after;
                }
            }
            slab.derived = Derived::DEVICE;
            add(&counts.on_device, 1);
        } else {
            let began = Instant::now();
            for at in 0..self.open.len() {
                let (slot, bar) = self.open[at];
                self.advance(slot, bar);
                self.values(slot, bar, slab.line_mut(first + at));
            }
            self.route.took(Place::Cpu, self.open.len(), began.elapsed());
        }
        self.open.clear();
    }

    fn on_device(
        &mut self,
        lane: &Lane,
        counts: &Counts,
    ) -> Option<Vec<Vec<tidegate_gpu::sweep::SweepCell>>> {
        let mut ask = self.ask.take().unwrap_or_else(|| SweepAsk::new(Arc::clone(&self.specs)));
        ask.clear();
        for &(slot, bar) in &self.open {
            for bar in 0..=bar {
                let at = self.place(slot, bar);
                let LiveBar { high, low, close } = self.bars[at];
                ask.high.push(high);
                ask.low.push(low);
                ask.close.push(close);
            }
            ask.ends.push(ask.close.len());
        }
        let lines = self.open.len();
        let longest = late_after(&self.options, self.route.on_device(lines));
        let began = Instant::now();
        let (ask, answer) = lane.ask(Ask::Sweep(ask), longest);
        if let Some(Ask::Sweep(ask)) = ask {
            self.ask = Some(ask);
        }
        match answer {
            Answer::Done(Said::Cells(cells)) if cells.len() == lines => {
                self.route.took(Place::Device, lines, began.elapsed());
                return Some(cells);
            }
            Answer::Busy => {}
            Answer::Late => {
                add(&counts.late, 1);
                add(&counts.recomputed, 1);
            }
            Answer::Done(_) | Answer::Failed => add(&counts.recomputed, 1),
        }
        None
    }
}

impl Class for Surface {
    fn run(&mut self, slab: &mut Slab, lane: &Lane, counts: &Counts) {
        let wanted = slab.wanted();
        let place = self.route.choose(wanted, lane.free());
        let began = Instant::now();
        let (mut asked, mut deferred) = (0, 0);
        for at in 0..slab.len() {
            let entry = slab.entry(at);
            let slot = entry.slot as usize;
            let Row { count, first, .. } = self.rows[slot];
            let after = count == first || self.times[self.place(slot, count - 1)] < entry.time;
            if after && entry.close == 0 && count == first {
                continue; // Taken back before it ever was.
            }
            if after && entry.close != 0 {
                let bars = count as usize + 1;
                let fits =
                    place == Place::Device && first == 0 && bars <= self.kept && asked + bars <= ASKED_MAX;
                if !fits {
                    self.fill(slab, lane, counts);
                    asked = 0;
                }
                self.append(slot, &entry);
                if entry.task == Task::Result {
                    let line = slab.line(Some(self.members[slot]), entry.time);
                    if fits {
                        asked += bars;
                        deferred += 1;
                        self.open.push((slot, count));
                        continue;
                    }
                    self.advance(slot, count);
                    self.values(slot, count, line);
                } else if !fits {
                    self.advance(slot, count);
                }
                continue;
            }
            // What was asked for before is of the bars as they were.
            self.fill(slab, lane, counts);
            asked = 0;
            if !self.amend(slot, &entry) {
                add(&counts.too_late, 1);
                continue;
            }
            let row = self.rows[slot];
            if row.count == row.first {
                continue;
            }
            self.advance(slot, row.count - 1);
            if entry.task == Task::Result {
                let end = self.times[self.place(slot, row.count - 1)];
                let line = slab.line(Some(self.members[slot]), end);
                self.values(slot, row.count - 1, line);
            }
        }
        self.fill(slab, lane, counts);
        if deferred == 0 {
            self.route.took(Place::Cpu, wanted, began.elapsed());
        }
        counts.worthwhile.store(self.route.worthwhile(), Ordering::Relaxed);
    }
}
