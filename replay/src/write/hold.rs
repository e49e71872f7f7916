//! Bars held back until nothing can amend them any more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tidegate_engine::{BarState, Cause, Output};

/// Bars in order of their first record, each as its latest revision.
pub(super) struct Hold {
    horizon_ns: u64,
    /// A time bar is known by its name and end. Other bars have no such number: their revisions are matched by place.
    by_time: bool,
    bars: VecDeque<(Arc<str>, Output)>,
    /// Number of the first of `bars`.
    first: u64,
    /// Numbers of a name's bars, oldest first.
    of_name: HashMap<u64, VecDeque<u64>>,
    /// The watermark is here at least.
    reached: u64,
    disorder_ns: u64,
    /// Newest frame a filled bar ended in, and the latest end of such bars.
    filled: (u64, u64),
}

impl Hold {
    pub(super) fn new(horizon_ns: u64, disorder_ns: u64, by_time: bool) -> Self {
        Self {
            horizon_ns,
            by_time,
            bars: VecDeque::new(),
            first: 0,
            of_name: HashMap::new(),
            reached: 0,
            disorder_ns,
            filled: (0, 0),
        }
    }

    pub(super) fn take(&mut self, name: &str, output: &Output) {
        let numbers = self.of_name.entry(output.name).or_default();
        if output.state == BarState::Amended as u8 {
            let same = |held: &Output| {
                if self.by_time {
                    return held.ts == output.ts;
                }
                let (held_bar, bar) = (held.bar(), output.bar());
                held_bar.revision + 1 == bar.revision
                    && (held_bar.frame_first, held_bar.frame_last) == (bar.frame_first, bar.frame_last)
                    && held_bar.ts_open <= bar.ts_open
                    && output.ts <= held.ts
            };
            let place = |number: &u64| (number - self.first) as usize;
            let found = numbers.iter().rev().map(place).find(|&at| same(&self.bars[at].1));
            if let Some(at) = found {
                self.bars[at].1 = *output;
                return;
            }
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
