//! Bars held back until nothing can amend them any more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tidegate_engine::{BarState, Cause, Output};

/// Bars in order of their first record, each as its latest revision.
pub(super) struct Hold {
    horizon_ns: u64,
    /// Whether a bar is known by its name and end; others by name and first trade.
    by_end: bool,
    bars: VecDeque<(Arc<str>, Output)>,
    /// Number of the first of `bars`.
    first: u64,
    /// Numbers of a name's bars, oldest first.
    of_name: HashMap<u64, VecDeque<u64>>,
    /// Name and first trade of bars of which a revision came before the record it replaces.
    early: HashSet<(u64, u32)>,
    /// The watermark is here at least.
    reached: u64,
    disorder_ns: u64,
    /// Newest frame a filled bar ended in, and the latest end of such bars.
    filled: (u64, u64),
}

impl Hold {
    pub(super) fn new(horizon_ns: u64, disorder_ns: u64, by_end: bool) -> Self {
        Self {
            horizon_ns,
            by_end,
            bars: VecDeque::new(),
            first: 0,
            of_name: HashMap::new(),
            early: HashSet::new(),
            reached: 0,
            disorder_ns,
            filled: (0, 0),
        }
    }

    pub(super) fn take(&mut self, name: &str, output: &Output) {
        let numbers = self.of_name.entry(output.name).or_default();
        if output.state == BarState::Amended as u8 {
            let same = |held: &Output| match self.by_end {
                true => held.ts == output.ts,
                false => held.bar().first_trade == output.bar().first_trade,
            };
            let place = |number: &u64| (number - self.first) as usize;
            let found = numbers.iter().rev().map(place).find(|&at| same(&self.bars[at].1));
            match found {
                Some(at) => {
                    let held = &mut self.bars[at].1;
                    if held.bar().revision < output.bar().revision {
                        *held = *output;
                    }
                    return;
                }
                None if self.by_end => {}
                // A revision can move a bar's end to before that of the record it replaces, and so come first.
                None => drop(self.early.insert((output.name, output.bar().first_trade))),
            }
        } else if !self.early.is_empty() && self.early.remove(&(output.name, output.bar().first_trade)) {
            return;
        } else if output.cause == Cause::Watermark as u8 {
            self.reached = self.reached.max(output.ts);
        } else if output.cause == Cause::Filled as u8 {
            // Behind every frame the watermark follows its newest event, the allowed disorder behind.
            let (frame, ts) = &mut self.filled;
            let ended = output.bar().frame_last;
            if ended > *frame {
                *frame = ended;
                self.reached = self.reached.max(ts.saturating_sub(self.disorder_ns));
            }
            *ts = output.ts.max(*ts);
        }
        numbers.push_back(self.first + self.bars.len() as u64);
        self.bars.push_back((name.into(), *output));
    }

    /// The next bar that stays as it is.
    pub(super) fn settled(&mut self) -> Option<(Arc<str>, Output)> {
        let (_, oldest) = self.bars.front()?;
        if oldest.ts.saturating_add(self.horizon_ns) > self.reached {
            return None;
        }
        self.pop()
    }

    fn pop(&mut self) -> Option<(Arc<str>, Output)> {
        let (name, output) = self.bars.pop_front()?;
        self.first += 1;
        if let Some(numbers) = self.of_name.get_mut(&output.name) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.of_name.remove(&output.name);
            }
        }
        Some((name, output))
    }

    /// All that is left, at the end.
    pub(super) fn rest(mut self) -> impl Iterator<Item = (Arc<str>, Output)> {
        std::iter::from_fn(move || self.pop())
    }
}
