//! The range of a stream so far, and by how much a value leaves it.

use crate::AnomalyError;
use crate::state::Walk;

/// Values a range must have seen before it judges.
pub(super) const RANGE_ROWS_MIN: u64 = 50;
/// Margin by which a value leaves a range that has no width: nothing ever moved, and now it does.
const MARGIN_OF_CONSTANT: f64 = 3.0;
/// Below this share of its values a width is rounding.
const ROUNDING: f64 = 1e-9;

/// Smallest and largest value, forgotten slowly.
///
/// A value outside is a *record*: whatever its distribution, an undisturbed stream gives one with probability 2/n at
/// its n-th value. That makes records of different streams comparable without a model of either.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    low: f64,
    high: f64,
    rows: u64,
}

impl Range {
    pub(super) fn width(&self) -> f64 {
        self.high - self.low
    }

    /// Values it has seen are enough to judge.
    pub(super) fn judges(&self) -> bool {
        self.rows >= RANGE_ROWS_MIN
    }

    /// How far `value` lies outside, in widths of the range; 0 inside, and while there is too little to judge.
    pub(super) fn margin(&self, value: f64) -> f64 {
        if !self.judges() {
            return 0.0;
        }
        let width = self.width();
        let outside = (value - self.high).max(self.low - value);
        if !(outside > 0.0) {
            0.0
        } else if self.is_constant() {
            let rounding = ROUNDING * self.high.abs().max(self.low.abs());
            if outside <= rounding { 0.0 } else { MARGIN_OF_CONSTANT }
        } else {
            outside / width
        }
    }

    /// The end of the range that `value` is nearer to, or beyond.
    pub(super) fn end(&self, value: f64) -> f64 {
        if value - self.high > self.low - value { self.high } else { self.low }
    }

    /// `value`, drawn in to at most one width outside: one wild value must not blind the detector for what follows.
    pub(super) fn drawn_in(&self, value: f64) -> f64 {
        if !self.judges() {
            return value;
        }
        // A constant has no width, but a size; a constant zero has neither.
        let width = if self.is_constant() { self.high.abs().max(self.low.abs()) } else { self.width() };
        if width > 0.0 { value.clamp(self.low - width, self.high + width) } else { value }
    }

    /// Takes a value in; what the range held is forgotten by `forget` of its width, from both ends.
    pub(super) fn push(&mut self, value: f64, forget: f64) {
        if self.rows == 0 {
            (self.low, self.high) = (value, value);
        }
        let step = forget * self.width();
        self.high = (self.high - step).max(value);
        self.low = (self.low + step).min(value);
        self.rows = (self.rows + 1).min(ROWS_MAX);
    }

    fn is_constant(&self) -> bool {
        self.width() <= ROUNDING * self.high.abs().max(self.low.abs())
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.float(&mut self.low)?;
        walk.float(&mut self.high)?;
        walk.count(&mut self.rows, ROWS_MAX)?;
        if self.low <= self.high {
            Ok(())
        } else {
            Err(AnomalyError::State { problem: "a range upside down" })
        }
    }
}

/// Counting further would change nothing.
const ROWS_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn without_forgetting_a_margin_is_the_distance_from_all_values_before(
            values in prop::collection::vec(-1e6f64..1e6, 60..120),
        ) {
            let mut range = Range::default();
            for (at, &value) in values.iter().enumerate() {
                let before = &values[..at];
                let (low, high) = before.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
                let wanted = if before.len() < 50 { 0.0 } else { ((value - high).max(low - value)).max(0.0) / (high - low) };
                prop_assert!((range.margin(value) - wanted).abs() <= 1e-12 * wanted);
                range.push(value, 0.0);
            }
        }
    }

    #[test]
    fn a_constant_that_moves_is_far_outside_and_rounding_is_not() {
        let mut range = Range::default();
        (0..50).for_each(|_| range.push(7.0, 0.0));
        assert_eq!(range.margin(7.0), 0.0);
        assert_eq!(range.margin(7.0 + 1e-12), 0.0);
        assert_eq!(range.margin(7.1), MARGIN_OF_CONSTANT);
        assert_eq!(range.drawn_in(1e9), 14.0, "one size of the constant at most");
        let mut zero = Range::default();
        (0..50).for_each(|_| zero.push(0.0, 0.0));
        assert_eq!(zero.drawn_in(1e9), 1e9, "a constant zero has no size");
    }
}
