//! Bars of many symbols that end together: the closes of the last steps, and what they moved by.
//!
//! A step is a time at which some symbol's bar ended. It is complete when the watermark of all shards has passed it, so what is computed of
//! it follows from the bars alone, however they came. A symbol without a bar keeps its price; before its first one it has none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The last closes of one symbol, oldest first, in 1e-9.
#[derive(Debug, Default)]
struct Closes(VecDeque<(u64, i64)>);

impl Closes {
    fn take(&mut self, end: u64, close: i64) {
        let at = self.0.partition_point(|(known, _)| *known < end);
        match self.0.get_mut(at) {
            Some(known) if known.0 == end => known.1 = close,
            _ => self.0.insert(at, (end, close)),
        }
    }

    /// What the symbol cost at `time`; NaN before its first bar, and where a price has no return.
    fn at(&self, time: u64) -> f64 {
        let at = self.0.partition_point(|(end, _)| *end <= time);
        match at.checked_sub(1).map(|at| self.0[at].1) {
            Some(close) if close > 0 => close as f64,
            _ => f64::NAN,
        }
    }

    /// Forgets what came before `time`, but for the price at it.
    fn forget(&mut self, time: u64) {
        while self.0.get(1).is_some_and(|(end, _)| *end <= time) {
            self.0.pop_front();
        }
    }
}

/// The last steps of bars.
pub(super) struct Steps {
    /// Steps kept: those complete, and as many as can be open.
    keep: usize,
    symbols_max: usize,
    /// In the order of names, which is that of sums.
    symbols: BTreeMap<Box<str>, Closes>,
    times: BTreeSet<u64>,
    /// The newest step that is complete.
    done: u64,
    /// Bars that came for a step that was complete, or of symbols beyond the bound.
    pub(super) left_out: u64,
}

/// Steps that may be open or wait to be computed; beyond it the oldest are not computed.
const OPEN_MAX: usize = 4_096;

impl Steps {
    pub(super) fn new(keep: usize, symbols_max: usize) -> Self {
        let (symbols, times) = (BTreeMap::new(), BTreeSet::new());
        Self { keep, symbols_max, symbols, times, done: 0, left_out: 0 }
    }

    /// Takes a bar's close. Of more symbols than there may be those last by name give way.
    pub(super) fn take(&mut self, name: &str, end: u64, close: i64) {
        if end <= self.done {
            self.left_out += 1;
            return;
        }
        if let Some(closes) = self.symbols.get_mut(name) {
            closes.take(end, close);
        } else {
            let mut closes = Closes::default();
            closes.take(end, close);
            self.symbols.insert(name.into(), closes);
            if self.symbols.len() > self.symbols_max {
                self.left_out += 1;
                let gone = self.symbols.pop_last();
                if gone.is_some_and(|(gone, _)| *gone == *name) {
                    return;
                }
            }
        }
        self.times.insert(end);
        if self.times.len() > self.keep + OPEN_MAX {
            self.times.pop_first();
        }
    }

    /// What is known from before is not computed again, but for the newest step that `watermark` shows complete; 0 where nobody knows. Of
    /// later ones other shards have yet to tell.
    pub(super) fn begin(&mut self, watermark: u64) {
        let known = if watermark == 0 { u64::MAX } else { watermark };
        self.done = self.times.range(..=known).rev().nth(1).copied().unwrap_or(0);
    }

    /// Passes over the steps that `watermark` shows complete, but for the newest `keep`. Returns how many.
    pub(super) fn skip(&mut self, watermark: u64, keep: usize) -> u64 {
        if watermark <= self.done {
            return 0;
        }
        let open = self.times.range(self.done + 1..=watermark);
        let skipped = open.clone().count().saturating_sub(keep);
        if let Some(&last) = skipped.checked_sub(1).and_then(|at| self.times.range(self.done + 1..).nth(at)) {
            self.done = last;
        }
        skipped as u64
    }

    /// The next step that `watermark` shows complete.
    pub(super) fn next(&mut self, watermark: u64) -> Option<u64> {
        let next = self.times.range(self.done + 1..).next().copied().filter(|&time| time <= watermark)?;
        self.done = next;
        let complete = self.times.range(..=next).count();
        for _ in self.keep..complete {
            self.times.pop_first();
        }
        if let Some(&oldest) = self.times.first() {
            self.symbols.values_mut().for_each(|closes| closes.forget(oldest));
        }
        Some(next)
    }

    /// The newest complete steps, at most `count`, oldest first.
    pub(super) fn last(&self, count: usize) -> Vec<u64> {
        let mut times: Vec<u64> = self.times.range(..=self.done).rev().take(count).copied().collect();
        times.reverse();
        times
    }

    /// Every symbol's prices at these times, in the order of names.
    pub(super) fn prices<'a>(
        &'a self,
        times: &'a [u64],
    ) -> impl Iterator<Item = (&'a str, impl Iterator<Item = f64> + 'a)> {
        self.symbols
            .iter()
            .map(move |(name, closes)| (&**name, times.iter().map(move |&time| closes.at(time))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(steps: &Steps, times: &[u64]) -> Vec<(String, Vec<f64>)> {
        steps.prices(times).map(|(name, prices)| (name.to_owned(), prices.collect())).collect()
    }

    #[test]
    fn steps_complete_with_the_watermark_and_carry_prices_on() {
        let mut steps = Steps::new(3, 10);
        steps.take("B", 10, 5);
        steps.take("A", 20, 7);
        assert_eq!(steps.next(9), None);
        assert_eq!((steps.next(10), steps.next(19)), (Some(10), None));
        steps.take("B", 10, 6); // too late
        steps.take("A", 30, 8);
        assert_eq!(
            (steps.next(u64::MAX), steps.next(u64::MAX), steps.next(u64::MAX)),
            (Some(20), Some(30), None)
        );
        let times = steps.last(5);
        assert_eq!(times, [10, 20, 30]);
        let found = prices(&steps, &times);
        assert!(found[0].1[0].is_nan());
        assert_eq!((&found[0].1[1..], &found[1].1[..]), (&[7.0, 8.0][..], &[5.0, 5.0, 5.0][..]));
        assert_eq!(steps.left_out, 1);
        // B's only bar is forgotten as a step, and its price is not.
        steps.take("A", 40, 9);
        assert_eq!((steps.next(40), steps.last(5)), (Some(40), vec![20, 30, 40]));
        assert_eq!(prices(&steps, &[40]), [("A".to_owned(), vec![9.0]), ("B".to_owned(), vec![5.0])]);
    }

    #[test]
    fn what_is_known_from_before_is_not_computed_again() {
        let mut steps = Steps::new(4, 10);
        [10, 20, 30].iter().for_each(|&end| steps.take("A", end, 1));
        steps.begin(0);
        assert_eq!((steps.next(30), steps.next(30)), (Some(30), None));
        assert_eq!(steps.last(9), [10, 20, 30]);
    }

    /// Another shard is behind: what one has told ahead of it is no step yet, and what the other tells then still counts.
    #[test]
    fn what_is_known_ahead_of_others_is_computed_when_they_have_told() {
        let mut steps = Steps::new(4, 10);
        [10, 20, 30, 40].iter().for_each(|&end| steps.take("A", end, 1));
        [10, 20].iter().for_each(|&end| steps.take("B", end, 2));
        steps.begin(20);
        assert_eq!((steps.next(20), steps.next(20)), (Some(20), None));
        steps.take("B", 30, 3);
        assert_eq!((steps.next(30), steps.left_out), (Some(30), 0));
        assert_eq!(prices(&steps, &[30])[1].1, [3.0]);
    }

    #[test]
    fn of_too_many_steps_the_newest_are_computed() {
        let mut steps = Steps::new(2, 10);
        (1..=5).for_each(|step| steps.take("A", 10 * step, 1));
        assert_eq!((steps.skip(45, 9), steps.skip(45, 2)), (0, 2));
        assert_eq!((steps.next(45), steps.next(45), steps.next(45)), (Some(30), Some(40), None));
        assert_eq!((steps.skip(45, 0), steps.skip(u64::MAX, 1), steps.next(u64::MAX)), (0, 0, Some(50)));
        assert_eq!(steps.skip(u64::MAX, 0), 0);
    }

    #[test]
    fn of_too_many_symbols_those_first_by_name_stay() {
        let mut steps = Steps::new(4, 2);
        ["C", "B", "D", "A"].iter().for_each(|name| steps.take(name, 10, 1));
        assert_eq!(prices(&steps, &[]).iter().map(|(name, _)| name.as_str()).collect::<String>(), "AB");
        assert_eq!(steps.left_out, 2);
    }
}
