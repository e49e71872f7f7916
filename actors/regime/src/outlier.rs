//! Single outliers taken out of a series, two observations behind it (Hampel 1974, doi:10.1080/01621459.1974.10482962).

use crate::RegimeError;
use crate::state::{Words, push};

/// Observations on each side of the one that is judged, and so the delay.
pub const REACH: usize = 2;
const SPAN: usize = 2 * REACH + 1;
/// Steps between neighbours whose median says how large a usual step is.
const STEPS: usize = 30;
/// Fewer steps than this say nothing.
const STEPS_MIN: usize = 5;

/// Replaces an observation by the median of its neighbourhood when it stands out from it by many usual steps.
///
/// A median of five keeps level shifts where they are; only what returns within two observations is taken out. NaN is
/// missing, and stays so.
#[derive(Clone, Debug)]
pub struct OutlierFilter {
    /// Usual steps that an observation may stand out by.
    limit: f64,
    /// The last observations, newest at `seen % SPAN`.
    window: [f64; SPAN],
    seen: u64,
    steps: [f64; STEPS],
    step_count: u64,
    /// Newest present value among those judged.
    last: f64,
}

impl OutlierFilter {
    /// A filter that lets observations stand out by up to `limit` usual steps.
    #[must_use]
    pub fn new(limit: f64) -> Self {
        Self { limit, window: [f64::NAN; SPAN], seen: 0, steps: [0.0; STEPS], step_count: 0, last: f64::NAN }
    }

    /// Takes an observation and gives back the one [`REACH`] before it, or `None` while there is none.
    pub fn push(&mut self, value: f64) -> Option<f64> {
        self.window[(self.seen % SPAN as u64) as usize] = value;
        self.seen += 1;
        let centre = self.seen.checked_sub(1 + REACH as u64)?;
        let value = self.window[(centre % SPAN as u64) as usize];
        if value.is_nan() {
            return Some(value);
        }
        if !self.last.is_nan() {
            self.steps[(self.step_count % STEPS as u64) as usize] = (value - self.last).abs();
            self.step_count += 1;
        }
        self.last = value;
        let count = self.step_count.min(STEPS as u64) as usize;
        if count < STEPS_MIN {
            return Some(value);
        }
        let mut steps = self.steps;
        let (_, usual, _) = steps[..count].select_nth_unstable_by(count / 2, f64::total_cmp);
        let middle = self.median(self.seen.min(SPAN as u64) as usize);
        Some(if (value - middle).abs() > self.limit * *usual { middle } else { value })
    }

    /// Median of the present values among the last `count`, the judged one among them.
    fn median(&self, count: usize) -> f64 {
        let mut sorted = self.window;
        // While the ring is not full, what is not seen yet is NaN. NaN sorts to the end.
        let present = sorted.iter().filter(|value| !value.is_nan()).count().min(count);
        sorted.sort_unstable_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
        sorted[present / 2]
    }

    pub(crate) fn save(&self, words: &mut Vec<u64>) {
        push(words, &self.window);
        push(words, &self.steps);
        words.extend([self.seen, self.step_count]);
        push(words, &[self.last]);
    }

    pub(crate) fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        words.sparse(&mut self.window)?;
        words.floats(&mut self.steps)?;
        (self.seen, self.step_count) = (words.count()?, words.count()?);
        words.sparse(std::slice::from_mut(&mut self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(values: &[f64]) -> Vec<f64> {
        let mut filter = OutlierFilter::new(5.0);
        values.iter().filter_map(|&value| filter.push(value)).collect()
    }

    #[test]
    fn spikes_go_and_shifts_stay() {
        let noise = |at: usize| ((at * 7919) % 13) as f64 / 13.0;
        let level: Vec<f64> = (0..60).map(|at| if at < 30 { noise(at) } else { 50.0 + noise(at) }).collect();
        assert_eq!(filtered(&level), level[..58], "a level shift is no outlier");
        let mut spiked = level.clone();
        (spiked[20], spiked[45]) = (500.0, f64::NAN);
        let clean = filtered(&spiked);
        assert!(clean[20] < 1.0, "{clean:?}");
        assert!(clean[45].is_nan() && clean[44] == level[44]);
    }

    #[test]
    fn a_state_is_saved_whole() {
        let mut one = OutlierFilter::new(3.0);
        let value = |at: u64| if at.is_multiple_of(11) { f64::NAN } else { ((at * 31) % 17) as f64 };
        for at in 0..40 {
            one.push(value(at));
        }
        let mut words = Vec::new();
        one.save(&mut words);
        let mut two = OutlierFilter::new(3.0);
        two.restore(&mut Words::new(&words)).unwrap();
        for at in 40..90 {
            let (a, b) = (one.push(value(at)), two.push(value(at)));
            assert_eq!(a.map(f64::to_bits), b.map(f64::to_bits));
        }
    }
}
