//! Closed bars that can still change: kept by event time, found by key.

use super::acc::Acc;
use crate::regroup::Kept;
use rkyv::with::{AsOwned, Map};
use std::borrow::Cow;
use std::collections::VecDeque;
use tidegate_engine::{KeyMeta, Share, Table};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A closed bar with its place in the key's chain.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
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

impl Closed {
    const VACANT: Self = Self { acc: Acc::VACANT, end: 0, span: 0, key: 0, revision: 0, previous: 0 };
}

/// Closed bars in the order they closed, each linked to its key's previous one.
pub(super) struct Retained {
    /// A ring of a power of two places; the bar of absolute index `i` lies in place `i % len`.
    bars: Table<Closed>,
    /// Absolute index of the oldest bar, and of the one to come.
    base: u64,
    next: u64,
    /// Runs of bars with one `end`: that end, and the absolute index behind the run. Eviction looks only here, so it does
    /// not fetch bars that have long left the cache.
    ends: VecDeque<(u64, u64)>,
    /// Absolute index + 1 of each key's last closed bar.
    last: Table<u64>,
    bars_max: u64,
    /// Bars dropped before their time because of `bars_max`.
    cut: u64,
    /// The newest `end` among those, also of shards whose keys came here: which key's they were is not known any more. 0 for none.
    cut_until: u64,
}

/// A [`Retained`] as it is saved.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct RetainedState<'a> {
    /// In at most two runs: the ring's end, and its begin.
    #[rkyv(with = Map<AsOwned>)]
    bars: Vec<Cow<'a, [Closed]>>,
    base: u64,
    #[rkyv(with = AsOwned)]
    last: Cow<'a, [u64]>,
    cut: u64,
    cut_until: u64,
}

impl Retained {
    pub(super) fn new(bars_max: usize) -> Self {
        Self {
            bars: Table::new(),
            base: 0,
            next: 0,
            ends: VecDeque::new(),
            last: Table::new(),
            bars_max: bars_max.max(1) as u64,
            cut: 0,
            cut_until: 0,
        }
    }

    pub(super) fn grow(&mut self, keys: usize) {
        if self.last.len() < keys {
            self.last.resize(keys, 0);
        }
    }

    /// Where the key's last closed bar is; only to have it in the cache.
    pub(super) fn last_of(&self, key: u32) -> u64 {
        self.last[key as usize]
    }

    /// Bars dropped before their time because of the bound on their number.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    /// Whether a bar that ends at `end` may have been among those, so that not finding it says nothing.
    pub(super) fn may_have_cut(&self, end: u64) -> bool {
        // No window ends at 0.
        end <= self.cut_until
    }

    fn place(&self, index: u64) -> usize {
        index as usize & (self.bars.len() - 1)
    }

    #[inline]
    pub(super) fn push(&mut self, acc: &Acc, key: u32, end: u64, span: u64) {
        let last = self.last[key as usize];
        self.append(Closed { acc: *acc, end, span, key, revision: 0, previous: last });
        self.last[key as usize] = self.next;
    }

    #[inline]
    fn append(&mut self, bar: Closed) {
        if self.next - self.base == (self.bars.len() as u64).min(self.bars_max) {
            self.make_room();
        }
        let place = self.place(self.next);
        self.next += 1;
        match self.ends.back_mut() {
            Some((end, behind)) if *end == bar.end => *behind = self.next,
            _ => self.ends.push_back((bar.end, self.next)),
        }
        self.bars[place] = bar;
    }

    #[cold]
    fn make_room(&mut self) {
        if self.next - self.base == self.bars_max {
            self.cut_until = self.cut_until.max(self.bars[self.place(self.base)].end);
            self.base += 1;
            self.cut += 1;
            if self.ends.front().is_some_and(|(_, behind)| *behind == self.base) {
                self.ends.pop_front();
            }
            return;
        }
        let mut bars = Table::new();
        bars.resize((self.bars.len() * 2).max(256), Closed::VACANT);
        for index in self.base..self.next {
            let place = index as usize & (bars.len() - 1);
            bars[place] = self.bars[self.place(index)];
        }
        self.bars = bars;
    }

    /// Drops bars from the front whose retention is over, by their end.
    pub(super) fn evict(&mut self, mut expired: impl FnMut(u64) -> bool) {
        while let Some(&(end, behind)) = self.ends.front()
            && expired(end)
        {
            self.base = behind;
            self.ends.pop_front();
        }
    }

    fn get(&self, index: u64) -> Option<&Closed> {
        (self.base..self.next).contains(&index).then(|| &self.bars[self.place(index)])
    }

    pub(super) fn get_mut(&mut self, index: u64) -> Option<&mut Closed> {
        let place = (self.base..self.next).contains(&index).then(|| self.place(index))?;
        Some(&mut self.bars[place])
    }

    /// Absolute index of the key's most recent retained bar that `wanted` accepts.
    pub(super) fn find(&self, key: u32, mut wanted: impl FnMut(&Closed) -> bool) -> Option<u64> {
        let mut next = *self.last.get(key as usize)?;
        while let Some(index) = next.checked_sub(1) {
            let bar = self.get(index)?;
            if wanted(bar) {
                return Some(index);
            }
            next = bar.previous;
        }
        None
    }

    pub(super) fn save(&self) -> RetainedState<'_> {
        let count = (self.next - self.base) as usize;
        let from = if count == 0 { 0 } else { self.place(self.base) };
        let first = count.min(self.bars.len() - from);
        let runs = [&self.bars[from..from + first], &self.bars[..count - first]];
        RetainedState {
            bars: runs.into_iter().filter(|run| !run.is_empty()).map(Cow::Borrowed).collect(),
            base: self.base,
            last: Cow::Borrowed(&self.last),
            cut: self.cut,
            cut_until: self.cut_until,
        }
    }

    pub(super) fn restore(&mut self, state: RetainedState<'_>) {
        *self = Self::new(self.bars_max as usize);
        (self.base, self.next) = (state.base, state.base);
        state.bars.iter().flat_map(|run| run.iter()).for_each(|bar| self.append(*bar));
        self.last = state.last.into_owned().into();
        self.cut = state.cut;
        self.cut_until = state.cut_until;
    }
}

/// Closed bars of several shards on their way into one.
pub(super) struct Regrouped<'k> {
    keys: &'k [KeyMeta],
    bars: Kept<Closed>,
    to: Retained,
}

impl Retained {
    pub(super) fn regroup<'k>(&self, keys: &'k [KeyMeta]) -> Regrouped<'k> {
        Regrouped { keys, bars: Kept::new(), to: Self::new(self.bars_max as usize) }
    }
}

impl Regrouped<'_> {
    pub(super) fn take(&mut self, state: &RetainedState<'_>, share: &Share<'_>) {
        for bar in state.bars.iter().flat_map(|run| run.iter()) {
            if let Some(key) = share.new_key(bar.key) {
                self.bars.push(self.keys, key as usize, bar.end, Closed { key, ..*bar });
            }
        }
        if share.has_counts() {
            self.to.cut += state.cut;
        }
        self.to.cut_until = self.to.cut_until.max(state.cut_until);
    }

    pub(super) fn finish(mut self) -> Retained {
        self.to.grow(self.keys.len());
        for bar in self.bars.sorted() {
            let key = bar.key as usize;
            let previous = self.to.last[key];
            self.to.append(Closed { previous, ..bar });
            self.to.last[key] = self.to.next;
        }
        self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is kept, written down plainly: bars in order of closing, their index and key.
    fn model(pushes: &[(u32, u64, u64)], bars_max: usize) -> (Vec<(u64, u32, u64)>, u64) {
        let (mut kept, mut cut) = (Vec::new(), 0);
        for (index, &(key, end, expired_until)) in pushes.iter().enumerate() {
            if kept.len() == bars_max {
                kept.remove(0);
                cut += 1;
            }
            kept.push((index as u64, key, end));
            while kept.first().is_some_and(|(_, _, end)| *end <= expired_until) {
                kept.remove(0);
            }
        }
        (kept, cut)
    }

    proptest! {
        #[test]
        fn it_keeps_what_a_plain_list_keeps(
            // Ends rise mostly, with some that come late; eviction follows at a distance.
            steps in prop::collection::vec((0u32..4, 0u64..6, 0u64..900), 1..900),
            bars_max in prop::sample::select(vec![1usize, 3, 300, 5_000]),
            restore_at in 0usize..900,
        ) {
            let pushes: Vec<(u32, u64, u64)> = steps
                .iter()
                .enumerate()
                .map(|(at, &(key, back, lag))| {
                    let now = at as u64 / 3;
                    (key, now.saturating_sub(back), now.saturating_sub(lag))
                })
                .collect();
            let mut retained = Retained::new(bars_max);
            retained.grow(4);
            for (at, &(key, end, expired_until)) in pushes.iter().enumerate() {
                if at == restore_at {
                    let mut restored = Retained::new(bars_max);
                    restored.restore(retained.save());
                    retained = restored;
                }
                let acc = Acc { trades: at as u64, ..Acc::VACANT };
                retained.push(&acc, key, end, 0);
                retained.evict(|end| end <= expired_until);
            }
            let (kept, cut) = model(&pushes, bars_max);
            prop_assert_eq!(retained.cut(), cut);
            prop_assert_eq!(retained.save().bars.iter().map(|run| run.len()).sum::<usize>(), kept.len());
            for key in 0..4 {
                // By chain, newest first.
                let mut found = Vec::new();
                retained.find(key, |bar| {
                    found.push((bar.acc.trades, bar.key, bar.end));
                    false
                });
                let mut wanted: Vec<_> = kept.iter().copied().filter(|(_, of, _)| *of == key).collect();
                wanted.reverse();
                prop_assert_eq!(found, wanted);
            }
            for (index, key, _) in &kept {
                prop_assert_eq!(retained.get_mut(*index).map(|bar| bar.key), Some(*key));
            }
            prop_assert!(retained.get_mut(pushes.len() as u64).is_none());
        }
    }
}
