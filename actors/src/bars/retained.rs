//! Closed bars that can still change: kept by event time, found by key.

use super::acc::Acc;
use std::collections::VecDeque;

/// A closed bar with its place in the key's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Closed {
    pub(super) acc: Acc,
    /// End of the window, or the last trade's time for measure bars: what retention is counted from.
    pub(super) end: u64,
    /// Measure bars: how many ordinals the bar spans. Time bars: 0.
    pub(super) span: u64,
    pub(super) key: u32,
    pub(super) revision: u32,
    /// Absolute index + 1 of the key's bar closed before this one; 0 for none.
    previous: u64,
}

/// Closed bars in the order they closed, each linked to its key's previous one.
pub(super) struct Retained {
    bars: VecDeque<Closed>,
    /// Absolute index of the front.
    base: u64,
    /// Absolute index + 1 of each key's last closed bar.
    last: Vec<u64>,
    bars_max: usize,
    /// Bars dropped before their time because of `bars_max`.
    cut: u64,
}

/// A [`Retained`] as it is saved.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct RetainedState {
    bars: Vec<Closed>,
    base: u64,
    last: Vec<u64>,
    cut: u64,
}

impl Retained {
    pub(super) fn new(bars_max: usize) -> Self {
        Self { bars: VecDeque::new(), base: 0, last: Vec::new(), bars_max: bars_max.max(1), cut: 0 }
    }

    pub(super) fn grow(&mut self, keys: usize) {
        if self.last.len() < keys {
            self.last.resize(keys, 0);
        }
    }

    pub(super) fn push(&mut self, acc: &Acc, key: u32, end: u64, span: u64) {
        if self.bars.len() == self.bars_max {
            self.bars.pop_front();
            self.base += 1;
            self.cut += 1;
        }
        let index = self.base + self.bars.len() as u64;
        let last = &mut self.last[key as usize];
        self.bars.push_back(Closed { acc: *acc, end, span, key, revision: 0, previous: *last });
        *last = index + 1;
    }

    /// Drops bars from the front whose retention is over.
    pub(super) fn evict(&mut self, mut expired: impl FnMut(&Closed) -> bool) {
        while self.bars.front().is_some_and(&mut expired) {
            self.bars.pop_front();
            self.base += 1;
        }
    }

    pub(super) fn get_mut(&mut self, index: u64) -> Option<&mut Closed> {
        self.bars.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    /// Absolute index of the key's most recent retained bar that `wanted` accepts.
    pub(super) fn find(&self, key: u32, mut wanted: impl FnMut(&Closed) -> bool) -> Option<u64> {
        let mut next = *self.last.get(key as usize)?;
        while let Some(index) = next.checked_sub(1) {
            let bar = self.bars.get(usize::try_from(index.checked_sub(self.base)?).ok()?)?;
            if wanted(bar) {
                return Some(index);
            }
            next = bar.previous;
        }
        None
    }

    pub(super) fn save(&self) -> RetainedState {
        RetainedState {
            bars: self.bars.iter().copied().collect(),
            base: self.base,
            last: self.last.clone(),
            cut: self.cut,
        }
    }

    pub(super) fn restore(&mut self, state: RetainedState) {
        self.bars = state.bars.into();
        self.base = state.base;
        self.last = state.last;
        self.cut = state.cut;
    }
}
