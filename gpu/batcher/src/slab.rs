//! A batch on its way: windows going in, lines of values coming out, every column an array of its own. Made once and used again.

use crate::Derived;

/// What is to be done at a window besides taking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Nothing.
    Take,
    /// A result is wanted: of its row, or of the time step that ends.
    Result,
}

/// The slot of what is no window but says that a time step ends.
pub(crate) const STEP: u32 = u32::MAX;

/// A window as a class sees it, or the end of a time step. A close of 0 says that the bar was taken back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The row's place among the members.
    pub(crate) slot: u32,
    pub(crate) task: Task,
    pub(crate) time: u64,
    pub(crate) high: i64,
    pub(crate) low: i64,
    pub(crate) close: i64,
    /// When it came, in nanoseconds since the batcher was started.
    pub(crate) arrived: u64,
}

#[derive(Debug)]
pub(crate) struct Slab {
    slots: Vec<u32>,
    tasks: Vec<Task>,
    times: Vec<u64>,
    high: Vec<i64>,
    low: Vec<i64>,
    close: Vec<i64>,
    /// When the first of its windows came.
    pub(crate) arrived: u64,
    /// Windows its class had lost or merged when it was filled.
    pub(crate) gaps: u64,
    width: usize,
    /// Lines of results.
    pub(crate) rows: Vec<u32>,
    pub(crate) ends: Vec<u64>,
    pub(crate) values: Vec<f64>,
    pub(crate) derived: Derived,
}

impl Slab {
    pub(crate) fn new(windows: usize, lines: usize, width: usize) -> Self {
        Self {
            slots: Vec::with_capacity(windows),
            tasks: Vec::with_capacity(windows),
            times: Vec::with_capacity(windows),
            high: Vec::with_capacity(windows),
            low: Vec::with_capacity(windows),
            close: Vec::with_capacity(windows),
            arrived: 0,
            gaps: 0,
            width,
            rows: Vec::with_capacity(lines),
            ends: Vec::with_capacity(lines),
            values: Vec::with_capacity(lines * width),
            derived: Derived::CPU,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.tasks.clear();
        self.times.clear();
        self.high.clear();
        self.low.clear();
        self.close.clear();
        self.rows.clear();
        self.ends.clear();
        self.values.clear();
        self.derived = Derived::CPU;
    }

    pub(crate) fn put(&mut self, entry: &Entry) {
        if self.slots.is_empty() {
            self.arrived = entry.arrived;
        }
        self.arrived = self.arrived.min(entry.arrived);
        self.slots.push(entry.slot);
        self.tasks.push(entry.task);
        self.times.push(entry.time);
        self.high.push(entry.high);
        self.low.push(entry.low);
        self.close.push(entry.close);
    }

    /// Windows in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn entry(&self, at: usize) -> Entry {
        Entry {
            slot: self.slots[at],
            task: self.tasks[at],
            time: self.times[at],
            high: self.high[at],
            low: self.low[at],
            close: self.close[at],
            arrived: self.arrived,
        }
    }

    /// Windows of which a result is wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.tasks.iter().filter(|&&task| task == Task::Result).count()
    }

    /// A line for a row, to be filled: it is NaN so far.
    pub(crate) fn line(&mut self, row: Option<u32>, end: u64) -> &mut [f64] {
        self.rows.extend(row);
        self.ends.push(end);
        let at = self.values.len();
        self.values.resize(at + self.width, f64::NAN);
        &mut self.values[at..]
    }

    /// The values of a line.
    pub(crate) fn line_mut(&mut self, line: usize) -> &mut [f64] {
        &mut self.values[line * self.width..(line + 1) * self.width]
    }

    /// Lines in it.
    pub(crate) fn lines(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }
}
