//! Time steps of many rows: a row of log returns for every time at which some member has a bar, as the commands over files
//! take them. A member without a bar keeps its price; before its first, and on it, it has no return.

use crate::slab::Entry;

pub(crate) struct Steps {
    members: usize,
    /// Steps whose returns are wanted at most. Kept are up to twice as many.
    wanted: usize,
    times: Vec<u64>,
    /// Step by step each member's own close, 0 without a bar.
    own: Vec<i64>,
    returns: Vec<f64>,
    /// Steps before the first that is kept, and the prices after them, 0 while there is none.
    gone: u64,
    base: Vec<i64>,
    /// Prices after the last step whose returns are computed.
    last: Vec<i64>,
    /// Steps whose returns are computed.
    settled: usize,
    /// Whether returns were computed that are no longer right.
    changed: bool,
    /// Steps there were up to the first at which each member had a price, that one among them.
    whole: Option<u64>,
}

impl Steps {
    pub(crate) fn new(members: usize, wanted: usize) -> Self {
        let kept = 2 * wanted;
        Self {
            members,
            wanted,
            times: Vec::with_capacity(kept),
            own: Vec::with_capacity(kept * members),
            returns: Vec::with_capacity(kept * members),
            gone: 0,
            base: vec![0; members],
            last: vec![0; members],
            settled: 0,
            changed: false,
            whole: None,
        }
    }

    /// Takes a bar, in time or late. Says whether it lies within what is kept.
    pub(crate) fn take(&mut self, entry: &Entry) -> bool {
        let slot = entry.slot as usize;
        if self.times.last().is_none_or(|&last| last < entry.time) {
            if entry.close != 0 {
                self.make_room();
                self.open(self.times.len(), entry.time);
                let at = (self.times.len() - 1) * self.members + slot;
                self.own[at] = entry.close;
            }
            return true;
        }
        let known = self.times.binary_search(&entry.time).is_ok();
        if !known && entry.close != 0 {
            self.make_room();
        }
        let step = self.times.partition_point(|&time| time < entry.time);
        if step == 0 && self.gone > 0 && self.times.first() != Some(&entry.time) {
            return false;
        }
        if entry.close == 0 {
            if known {
                self.withdraw(step, slot);
            }
            return true;
        }
        if !known {
            self.open(step, entry.time);
        }
        self.own[step * self.members + slot] = entry.close;
        self.unsettle(step);
        true
    }

    fn withdraw(&mut self, step: usize, slot: usize) {
        let span = step * self.members..(step + 1) * self.members;
        self.own[span.start + slot] = 0;
        self.unsettle(step);
        if self.own[span.clone()].iter().all(|&close| close == 0) {
            // A time at which nobody has a bar is no step.
            self.times.remove(step);
            self.own.drain(span.clone());
            self.returns.drain(span);
        }
    }

    /// An empty step.
    fn open(&mut self, step: usize, time: u64) {
        let at = step * self.members;
        self.times.insert(step, time);
        self.own.resize(self.own.len() + self.members, 0);
        self.own[at..].rotate_right(self.members);
        self.own[at..at + self.members].fill(0);
        self.returns.resize(self.own.len(), f64::NAN);
        self.returns[at..].rotate_right(self.members);
    }

    /// Lets go of the older half where it is full.
    fn make_room(&mut self) {
        if self.times.len() < 2 * self.wanted {
            return;
        }
        let steps = self.wanted;
        for own in self.own[..steps * self.members].chunks_exact(self.members) {
            carry(&mut self.base, own);
        }
        self.times.drain(..steps);
        self.own.drain(..steps * self.members);
        self.returns.drain(..steps * self.members);
        self.gone += steps as u64;
        self.settled = self.settled.saturating_sub(steps);
    }

    /// Returns from `step` on are no longer right.
    fn unsettle(&mut self, step: usize) {
        if step < self.settled {
            self.settled = step;
            self.changed = true;
        }
    }

    /// Computes the returns that are missing. Says whether one that there was before has changed.
    pub(crate) fn settle(&mut self) -> bool {
        let again = std::mem::take(&mut self.changed);
        if again {
            // The prices before are told by the steps before.
            self.last.copy_from_slice(&self.base);
            for own in self.own[..self.settled * self.members].chunks_exact(self.members) {
                carry(&mut self.last, own);
            }
            if self.whole.is_some_and(|whole| whole > self.gone + self.settled as u64) {
                self.whole = None;
            }
        }
        for step in self.settled..self.times.len() {
            let span = step * self.members..(step + 1) * self.members;
            let row = self.own[span.clone()].iter().zip(&mut self.returns[span]).zip(&mut self.last);
            for ((&own, moved), last) in row {
                let before = *last;
                if own != 0 {
                    *last = own;
                }
                *moved = match before {
                    0 => f64::NAN,
                    before => libm::log(*last as f64 / before as f64),
                };
            }
            if self.whole.is_none() && self.last.iter().all(|&price| price != 0) {
                self.whole = Some(self.gone + step as u64 + 1);
            }
        }
        self.settled = self.times.len();
        again
    }

    /// Steps there were.
    pub(crate) fn seen(&self) -> u64 {
        self.gone + self.times.len() as u64
    }

    /// The end of the newest step.
    pub(crate) fn end(&self) -> Option<u64> {
        self.times.last().copied()
    }

    /// Returns of the newest steps, oldest first, at most so many.
    pub(crate) fn newest(&self, steps: usize) -> &[f64] {
        let steps = steps.min(self.times.len());
        &self.returns[(self.times.len() - steps) * self.members..]
    }

    /// Returns of the steps after the first at which all had a price, at most so many.
    pub(crate) fn whole(&self, steps: usize) -> &[f64] {
        let Some(whole) = self.whole else { return &[] };
        self.newest((self.seen() - whole).min(steps as u64) as usize)
    }
}

fn carry(prices: &mut [i64], own: &[i64]) {
    for (price, &own) in prices.iter_mut().zip(own) {
        if own != 0 {
            *price = own;
        }
    }
}
