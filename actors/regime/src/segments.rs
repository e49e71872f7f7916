//! Change points by penalised likelihood, online and over a bounded window.
//!
//! A series is taken for straight pieces with noise. The best division of what came since the last settled change is
//! kept up to date by dynamic programming (Jackson et al. 2005, doi:10.1109/LSP.2001.838216; with regression in each
//! piece as in Fearnhead & Liu 2007, doi:10.1111/j.1467-9868.2007.00601.x); its first change point is settled once it
//! has stood still for some observations. A settled change is never taken back, and nothing after its report is used.
//!
//! The cost of a piece of `n` observations with residual sum of squares `R` is `n/2 ln(R/(n-2) + f^2)`, added up over the
//! dimensions, each in units of the deviation of everything seen so far. The floor `f` says that what is too small to be
//! seen on a plot of the series is no change, however regular it is. Each change costs a penalty per dimension.

use crate::RegimeError;
use crate::math::ln;
use crate::outlier::{OutlierFilter, REACH};
use crate::state::{Words, push};

/// How a detector of [`Segments`] judges. The default is what is shipped and measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentOptions {
    /// Series that are observed together and change together, 1 to 64.
    pub dimensions: usize,
    /// What a change must win in log-likelihood, per dimension.
    pub penalty: f64,
    /// Noise that is always granted, as a fraction of the deviation of everything seen.
    pub floor: f64,
    /// Observations that a new change may lie back, 32 to 4096.
    pub window: usize,
    /// Shortest piece.
    pub length_min: usize,
    /// Observations for which a change must stand still before it is settled.
    pub confirm: usize,
    /// Observations before the first judgement.
    pub warm_up: usize,
    /// Usual steps that an observation may stand out by before it counts as an outlier; `None` lets all pass.
    pub outlier_limit: Option<f64>,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            dimensions: 1,
            penalty: 13.0,
            floor: 0.25,
            window: 128,
            length_min: 5,
            confirm: 6,
            warm_up: 8,
            outlier_limit: Some(8.0),
        }
    }
}

impl SegmentOptions {
    fn check(&self) -> Result<(), RegimeError> {
        let range = |name, value: usize, low, high, allowed| {
            RegimeError::check(name, value as f64, (low..=high).contains(&value), allowed)
        };
        range("dimensions", self.dimensions, 1, 64, "1 to 64")?;
        range("window", self.window, 32, 4_096, "32 to 4096 observations")?;
        range("length_min", self.length_min, 3, self.window / 4, "3 to a quarter of the window")?;
        range("confirm", self.confirm, 1, self.window / 4, "1 to a quarter of the window")?;
        range("warm_up", self.warm_up, 4, self.window, "4 to the window")?;
        RegimeError::check("penalty", self.penalty, self.penalty > 0.0, "more than 0")?;
        RegimeError::check("floor", self.floor, self.floor > 0.0, "more than 0")?;
        let limit = self.outlier_limit.unwrap_or(1.0);
        RegimeError::check("outlier_limit", limit, limit > 0.0, "more than 0")
    }
}

/// A settled change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// First observation of the new piece, from 0.
    pub index: u64,
    /// The observation after which it was settled.
    pub detected_at: u64,
    /// Log-likelihood won over no change, less penalties.
    pub gain: f64,
}

/// A piece in one dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Piece {
    /// Observations that were present.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Rise per observation.
    pub slope: f64,
    /// Standard deviation around the line.
    pub deviation: f64,
}

/// Observations over which the deviation of everything is taken; then the oldest fade.
const MEMORY: f64 = 4_096.0;
/// How far the deviation may be off before all is judged anew by the new one.
const DRIFT: f64 = 1.25;
/// Places that a change may move by and still count as standing still.
const STILL: u64 = 2;
/// Larger magnitudes than this cannot be squared and summed safely; they count as missing.
const VALUE_MAX: f64 = 1e100;
/// The piece begins where the last change was settled.
const NONE: u64 = u64::MAX;

/// The detector. One call of [`Segments::push`] costs one pass over the window.
#[derive(Clone, Debug)]
pub struct Segments {
    options: SegmentOptions,
    filters: Vec<OutlierFilter>,
    spreads: Vec<Spread>,
    row: Vec<f64>,
    /// Rows taken, behind the filters.
    time: u64,
    /// First row of the piece after the last settled change.
    start: u64,
    /// Subtracted from every value before it is summed, per dimension; NaN until the first value.
    offsets: Vec<f64>,
    /// Sums from `start` to now, per dimension.
    whole: Vec<Sums>,
    /// Rows of the window, by time modulo `slots`.
    rows: Vec<f64>,
    /// Sums from each candidate to now.
    open: Vec<Sums>,
    /// Least cost of what lies before each candidate, penalties included.
    costs: Vec<f64>,
    /// The change before each candidate on its best path.
    backs: Vec<u64>,
    pending: u64,
    steady: usize,
    before: Vec<Piece>,
    after: Vec<Piece>,
}

/// Moments of all values so far, and the variance that costs are computed with.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: f64,
    mean: f64,
    variance: f64,
    /// Deviation that costs are computed with; changes in steps, so that the past is seldom judged anew.
    frozen: f64,
}

/// What a regression line needs, times counted from the piece's first row.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    t: f64,
    tt: f64,
    y: f64,
    ty: f64,
    yy: f64,
}

impl Sums {
    #[inline]
    fn add(&mut self, t: f64, y: f64, sign: f64) {
        self.n += sign;
        self.t += sign * t;
        self.tt += sign * t * t;
        self.y += sign * y;
        self.ty += sign * t * y;
        self.yy += sign * y * y;
    }

    /// Residual sum of squares around the line.
    #[inline]
    fn residual(&self) -> f64 {
        let (mt, my) = (self.t / self.n, self.y / self.n);
        let (stt, sty, syy) = (self.tt - self.t * mt, self.ty - self.t * my, self.yy - self.y * my);
        let line = if stt > 0.0 { sty * sty / stt } else { 0.0 };
        (syy - line).max(0.0)
    }

    #[inline]
    fn cost(&self, unit: f64, floor: f64) -> f64 {
        if self.n == 0.0 {
            return 0.0;
        }
        0.5 * self.n * ln(self.residual() / ((self.n - 2.0).max(1.0) * unit) + floor)
    }

    fn piece(&self, offset: f64) -> Piece {
        if self.n == 0.0 {
            return Piece { mean: f64::NAN, slope: f64::NAN, deviation: f64::NAN, ..Piece::default() };
        }
        let (mt, my) = (self.t / self.n, self.y / self.n);
        let stt = self.tt - self.t * mt;
        Piece {
            count: self.n,
            mean: offset + my,
            slope: if stt > 0.0 { (self.ty - self.t * my) / stt } else { 0.0 },
            deviation: (self.residual() / (self.n - 2.0).max(1.0)).sqrt(),
        }
    }
}

impl Spread {
    fn push(&mut self, value: f64) {
        self.count = (self.count + 1.0).min(MEMORY);
        let weight = 1.0 / self.count;
        let before = value - self.mean;
        self.mean += weight * before;
        self.variance += weight * (before * (value - self.mean) - self.variance);
    }

    /// Takes the deviation over into what costs are computed with, if it is off by much; returns whether it was.
    fn refresh(&mut self) -> bool {
        let now = self.variance.max(0.0).sqrt();
        let off = now > self.frozen * DRIFT || now * DRIFT < self.frozen;
        if off {
            self.frozen = now;
        }
        off
    }
}

impl Segments {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when an option is out of range.
    pub fn new(options: SegmentOptions) -> Result<Self, RegimeError> {
        options.check()?;
        let (d, slots) = (options.dimensions, options.window + 1);
        let filters = options.outlier_limit.map(|limit| vec![OutlierFilter::new(limit); d]);
        Ok(Self {
            options,
            filters: filters.unwrap_or_default(),
            spreads: vec![Spread::default(); d],
            row: vec![f64::NAN; d],
            time: 0,
            start: 0,
            offsets: vec![f64::NAN; d],
            whole: vec![Sums::default(); d],
            rows: vec![f64::NAN; slots * d],
            open: vec![Sums::default(); slots * d],
            costs: vec![0.0; slots],
            backs: vec![NONE; slots],
            pending: NONE,
            steady: 0,
            before: vec![Piece::default(); d],
            after: vec![Piece::default(); d],
        })
    }

    /// How it judges.
    #[must_use]
    pub fn options(&self) -> &SegmentOptions {
        &self.options
    }

    /// Observations since the last settled change, as far as they are judged.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.time - self.start
    }

    /// The pieces around the last settled change, one per dimension; zeros before the first change.
    #[must_use]
    pub fn pieces(&self) -> (&[Piece], &[Piece]) {
        (&self.before, &self.after)
    }

    /// Takes one observation, a value per dimension; NaN, infinite and absurd (over 1e100) values count as missing.
    /// Returns the change that it settled, if it did.
    ///
    /// # Panics
    /// When `values` has another length than there are dimensions.
    pub fn push(&mut self, values: &[f64]) -> Option<Change> {
        assert_eq!(values.len(), self.options.dimensions, "one value per dimension");
        let clean = |value: f64| if value.abs() <= VALUE_MAX { value } else { f64::NAN };
        if self.filters.is_empty() {
            self.row.iter_mut().zip(values).for_each(|(place, &value)| *place = clean(value));
        } else {
            let mut ready = true;
            for ((filter, place), &value) in self.filters.iter_mut().zip(&mut self.row).zip(values) {
                match filter.push(clean(value)) {
                    Some(value) => *place = value,
                    None => ready = false,
                }
            }
            if !ready {
                return None;
            }
        }
        self.take();
        let anew = self.time >= self.options.warm_up as u64
            && self.spreads.iter_mut().fold(false, |anew, spread| spread.refresh() | anew);
        if self.time < self.options.warm_up as u64 {
            return None;
        }
        if anew {
            self.rebuild();
        } else {
            self.extend();
        }
        self.settle()
    }

    fn slot(&self, time: u64) -> usize {
        (time % (self.options.window as u64 + 1)) as usize
    }

    /// First row that a candidate may begin with.
    fn first_candidate(&self) -> u64 {
        let oldest = self.time.saturating_sub(self.options.window as u64);
        oldest.max(self.start + self.options.length_min as u64)
    }

    /// Adds the row to every sum.
    fn take(&mut self) {
        let (d, now) = (self.options.dimensions, self.time);
        let slot = self.slot(now);
        self.open[slot * d..(slot + 1) * d].fill(Sums::default());
        for at in 0..d {
            let value = self.row[at];
            if self.offsets[at].is_nan() {
                self.offsets[at] = value;
            }
            self.rows[slot * d + at] = value;
            if !value.is_nan() {
                self.spreads[at].push(value);
                self.whole[at].add((now - self.start) as f64, value - self.offsets[at], 1.0);
            }
        }
        self.time += 1;
        for candidate in self.first_candidate()..=now {
            let slot = self.slot(candidate);
            for at in 0..d {
                let value = self.row[at];
                if !value.is_nan() {
                    self.open[slot * d + at].add((now - candidate) as f64, value - self.offsets[at], 1.0);
                }
            }
        }
    }

    /// Cost of a piece over all dimensions, in units of their deviations: no unit of measurement is left in it. A
    /// dimension that never moved has nothing to say.
    fn cost(&self, sums: &[Sums]) -> f64 {
        let floor = self.options.floor * self.options.floor;
        sums.iter().zip(&self.spreads).fold(0.0, |sum, (sums, spread)| {
            if spread.frozen > 0.0 { sum + sums.cost(spread.frozen * spread.frozen, floor) } else { sum }
        })
    }

    fn penalty(&self) -> f64 {
        self.options.penalty * self.options.dimensions as f64
    }

    /// The best division that ends now, given the best ones that ended before.
    fn extend(&mut self) {
        let d = self.options.dimensions;
        let (mut least, mut back) = (self.cost(&self.whole), NONE);
        let last = self.time - self.options.length_min as u64;
        for candidate in self.first_candidate()..=last {
            let slot = self.slot(candidate);
            let cost = self.costs[slot] + self.cost(&self.open[slot * d..(slot + 1) * d]) + self.penalty();
            if cost < least {
                (least, back) = (cost, candidate);
            }
        }
        let slot = self.slot(self.time);
        (self.costs[slot], self.backs[slot]) = (least, back);
    }

    /// Every division within the window from its rows: after a settled change, or when the deviation has moved.
    fn rebuild(&mut self) {
        let d = self.options.dimensions;
        let oldest = self.time.saturating_sub(self.options.window as u64).max(self.start);
        // Without a change: from the whole backwards, because the piece may begin before the window.
        for at in 0..d {
            // Kept aside in `open` of the slot that belongs to no row.
            let spare = self.slot(self.time) * d + at;
            self.open[spare] = self.whole[at];
        }
        for end in (oldest.max(self.start + 1)..=self.time).rev() {
            let spare = self.slot(self.time) * d;
            let slot = self.slot(end);
            self.costs[slot] = self.cost(&self.open[spare..spare + d]);
            self.backs[slot] = NONE;
            if end == oldest {
                break; // its row has left the window
            }
            let row = self.slot(end - 1) * d;
            for at in 0..d {
                let value = self.rows[row + at];
                if !value.is_nan() {
                    self.open[spare + at].add((end - 1 - self.start) as f64, value - self.offsets[at], -1.0);
                }
            }
        }
        // With changes: each candidate relaxes what ends behind it.
        for candidate in self.first_candidate()..self.time {
            let slot = self.slot(candidate);
            self.open[slot * d..(slot + 1) * d].fill(Sums::default());
            for end in candidate + 1..=self.time {
                let row = self.slot(end - 1) * d;
                for at in 0..d {
                    let value = self.rows[row + at];
                    if !value.is_nan() {
                        let t = (end - 1 - candidate) as f64;
                        self.open[slot * d + at].add(t, value - self.offsets[at], 1.0);
                    }
                }
                if end - candidate >= self.options.length_min as u64 {
                    let sums = &self.open[slot * d..(slot + 1) * d];
                    let cost = self.costs[slot] + self.cost(sums) + self.penalty();
                    let end = self.slot(end);
                    if cost < self.costs[end] {
                        (self.costs[end], self.backs[end]) = (cost, candidate);
                    }
                }
            }
        }
    }

    /// The first change of the best division, if there is one within the window.
    fn first_change(&self) -> Option<u64> {
        let oldest = self.time.saturating_sub(self.options.window as u64);
        let (mut first, mut back) = (None, self.backs[self.slot(self.time)]);
        while back != NONE {
            if back < oldest.max(self.start) {
                return None; // the path leads out of the window
            }
            first = Some(back);
            back = self.backs[self.slot(back)];
        }
        first
    }

    fn settle(&mut self) -> Option<Change> {
        let Some(first) = self.first_change() else {
            (self.pending, self.steady) = (NONE, 0);
            return None;
        };
        let still = self.pending != NONE && first.abs_diff(self.pending) <= STILL;
        self.steady = if still { self.steady + 1 } else { 1 };
        self.pending = first;
        if self.steady < self.options.confirm {
            return None;
        }
        let gain = self.cost(&self.whole) - self.costs[self.slot(self.time)];
        self.begin_at(first);
        let delay = if self.filters.is_empty() { 0 } else { REACH as u64 };
        Some(Change { index: first, detected_at: self.time - 1 + delay, gain })
    }

    /// Settles the change at `first`: what came before is only kept as a description.
    fn begin_at(&mut self, first: u64) {
        let d = self.options.dimensions;
        for at in 0..d {
            let mut before = self.whole[at];
            let offset = self.offsets[at];
            let present = |time: u64| {
                let value = self.rows[self.slot(time) * d + at];
                (!value.is_nan()).then_some((time, value))
            };
            for (time, value) in (first..self.time).filter_map(present) {
                before.add((time - self.start) as f64, value - offset, -1.0);
            }
            let earlier = before.piece(offset);
            // A new offset near the new level keeps sums small.
            let offset = (first..self.time).find_map(present).map_or(offset, |(_, value)| value);
            let mut after = Sums::default();
            for (time, value) in (first..self.time).filter_map(present) {
                after.add((time - first) as f64, value - offset, 1.0);
            }
            (self.whole[at], self.offsets[at]) = (after, offset);
            (self.before[at], self.after[at]) = (earlier, after.piece(offset));
        }
        (self.start, self.pending, self.steady) = (first, NONE, 0);
        self.rebuild();
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        self.filters.iter().for_each(|filter| filter.save(words));
        for Spread { count, mean, variance, frozen } in &self.spreads {
            push(words, &[*count, *mean, *variance, *frozen]);
        }
        words.extend([self.time, self.start, self.pending, self.steady as u64]);
        push(words, &self.offsets);
        push(words, &self.rows);
        for Sums { n, t, tt, y, ty, yy } in self.whole.iter().chain(&self.open) {
            push(words, &[*n, *t, *tt, *y, *ty, *yy]);
        }
        push(words, &self.costs);
        words.extend(&self.backs);
        for Piece { count, mean, slope, deviation } in self.before.iter().chain(&self.after) {
            push(words, &[*count, *mean, *slope, *deviation]);
        }
    }

    /// Takes over a state saved by a detector with the same options.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such state; the detector is then unusable.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.filters.iter_mut().try_for_each(|filter| filter.restore(words))?;
        for Spread { count, mean, variance, frozen } in &mut self.spreads {
            for place in [count, mean, variance, frozen] {
                *place = words.float()?;
            }
        }
        self.time = words.count()?;
        self.start = words.at_most(self.time)?;
        self.pending = words.word()?;
        self.steady = words.at_most(self.options.confirm as u64)? as usize;
        words.sparse(&mut self.offsets)?;
        words.sparse(&mut self.rows)?;
        for Sums { n, t, tt, y, ty, yy } in self.whole.iter_mut().chain(&mut self.open) {
            for place in [n, t, tt, y, ty, yy] {
                *place = words.float()?;
            }
        }
        words.floats(&mut self.costs)?;
        for back in &mut self.backs {
            *back = words.word()?;
        }
        // A path must lead backwards, or following it would never end.
        let oldest = self.time.saturating_sub(self.options.window as u64);
        for end in oldest..=self.time {
            let back = self.backs[self.slot(end)];
            if back != NONE && back >= end.max(1) {
                return Err(RegimeError::State { problem: "a path that leads forward" });
            }
        }
        for Piece { count, mean, slope, deviation } in self.before.iter_mut().chain(&mut self.after) {
            for place in [count, mean, slope, deviation] {
                *place = f64::from_bits(words.word()?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
