//! Two sums that every control room knows: CUSUM and Page-Hinkley. A few words of state, one change at a time.

use crate::RegimeError;
use crate::state::{Words, push};

/// Which way a level moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It rose.
    Up,
    /// It fell.
    Down,
}

/// Two-sided cumulative sums (Page 1954, doi:10.1093/biomet/41.1-2.100) around a level learnt at the start and after every alarm.
///
/// A level and a deviation are learnt from `learn` observations; then an observation counts by how far it is from the
/// level, in deviations, less `slack`. An alarm comes when a sum passes `limit`.
#[derive(Clone, Debug)]
pub struct Cusum {
    slack: f64,
    limit: f64,
    learn: u64,
    count: u64,
    mean: f64,
    squares: f64,
    up: f64,
    down: f64,
}

impl Cusum {
    /// With `slack` (usually half the shift to be found) and `limit`, both in deviations.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when `slack` is negative, `limit` not positive, or `learn` below 2.
    pub fn new(slack: f64, limit: f64, learn: u64) -> Result<Self, RegimeError> {
        RegimeError::check("slack", slack, slack >= 0.0, "0 or more deviations")?;
        RegimeError::check("limit", limit, limit > 0.0, "more than 0 deviations")?;
        RegimeError::check("learn", learn as f64, learn >= 2, "2 observations or more")?;
        Ok(Self { slack, limit, learn, count: 0, mean: 0.0, squares: 0.0, up: 0.0, down: 0.0 })
    }

    /// Takes an observation; says which way the level moved when it is clear that it did. What is not finite is skipped.
    pub fn push(&mut self, value: f64) -> Option<Direction> {
        if !value.is_finite() {
            return None;
        }
        if self.count < self.learn {
            self.count += 1;
            let before = value - self.mean;
            self.mean += before / self.count as f64;
            self.squares += before * (value - self.mean);
            return None;
        }
        let variance = self.squares / (self.learn - 1) as f64;
        // A constant level: any move at all is a move beyond every limit.
        let z = if variance > 0.0 {
            (value - self.mean) / variance.sqrt()
        } else if value == self.mean {
            0.0
        } else {
            f64::INFINITY.copysign(value - self.mean)
        };
        self.up = (self.up + z - self.slack).max(0.0);
        self.down = (self.down - z - self.slack).max(0.0);
        let direction = if self.up > self.limit {
            Direction::Up
        } else if self.down > self.limit {
            Direction::Down
        } else {
            return None;
        };
        (self.count, self.mean, self.squares, self.up, self.down) = (0, 0.0, 0.0, 0.0, 0.0);
        Some(direction)
    }

    /// The larger of both sums by its limit: 1 is an alarm.
    #[must_use]
    pub fn level(&self) -> f64 {
        self.up.max(self.down) / self.limit
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.push(self.count);
        push(words, &[self.mean, self.squares, self.up, self.down]);
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such state.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.count = words.at_most(self.learn)?;
        for value in [&mut self.mean, &mut self.squares, &mut self.up, &mut self.down] {
            *value = words.float()?;
        }
        Ok(())
    }
}

/// Page-Hinkley test (Hinkley 1971, doi:10.1093/biomet/58.3.509) with a forgetting mean, in the series' own unit.
#[derive(Clone, Debug)]
pub struct PageHinkley {
    tolerance: f64,
    limit: f64,
    keep: f64,
    count: u64,
    mean: f64,
    up: f64,
    down: f64,
}

impl PageHinkley {
    /// With `tolerance` and `limit` in the unit of the series; the mean keeps `keep` of its weight per observation.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when `tolerance` is negative, `limit` not positive or `keep` outside `(0, 1]`.
    pub fn new(tolerance: f64, limit: f64, keep: f64) -> Result<Self, RegimeError> {
        RegimeError::check("tolerance", tolerance, tolerance >= 0.0, "0 or more")?;
        RegimeError::check("limit", limit, limit > 0.0, "more than 0")?;
        RegimeError::check("keep", keep, keep > 0.0 && keep <= 1.0, "more than 0, at most 1")?;
        Ok(Self { tolerance, limit, keep, count: 0, mean: 0.0, up: 0.0, down: 0.0 })
    }

    /// Takes an observation; says which way the level moved when it is clear that it did. What is not finite is skipped.
    pub fn push(&mut self, value: f64) -> Option<Direction> {
        if !value.is_finite() {
            return None;
        }
        self.count += 1;
        let weight = (1.0 / self.count as f64).max(1.0 - self.keep);
        self.mean += weight * (value - self.mean);
        // The sums less their extremes, so that they never grow with the length of a series.
        self.up = (self.up + value - self.mean - self.tolerance).max(0.0);
        self.down = (self.down + self.mean - value - self.tolerance).max(0.0);
        let direction = if self.up > self.limit {
            Direction::Up
        } else if self.down > self.limit {
            Direction::Down
        } else {
            return None;
        };
        (self.count, self.mean, self.up, self.down) = (0, 0.0, 0.0, 0.0);
        Some(direction)
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.push(self.count);
        push(words, &[self.mean, self.up, self.down]);
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such state.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), RegimeError> {
        self.count = words.count()?;
        for value in [&mut self.mean, &mut self.up, &mut self.down] {
            *value = words.float()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn cusum_finds_a_shift_of_one_deviation_and_is_quiet_before() {
        let mut random = Random(7);
        let mut cusum = Cusum::new(0.5, 8.0, 100).unwrap();
        let early = (0..600).filter_map(|_| cusum.push(10.0 + 2.0 * random.bell())).count();
        assert_eq!(early, 0, "the level had not moved");
        let found = (0..200).find_map(|at| cusum.push(8.0 + 2.0 * random.bell()).map(|way| (at, way)));
        let (delay, way) = found.unwrap();
        assert_eq!(way, Direction::Down);
        assert!(delay < 60, "{delay} observations late");
        assert_eq!(cusum.level(), 0.0, "it starts over");
    }

    #[test]
    fn cusum_takes_what_comes() {
        let mut cusum = Cusum::new(0.5, 5.0, 3).unwrap();
        for value in [f64::NAN, 1.0, 1.0, f64::INFINITY, 1.0, 1.0, 1.0] {
            assert_eq!(cusum.push(value), None);
        }
        assert_eq!(cusum.push(1.5), Some(Direction::Up), "a constant moved");
        assert!(Cusum::new(-1.0, 5.0, 3).is_err() && Cusum::new(0.5, f64::NAN, 3).is_err());
    }

    #[test]
    fn page_hinkley_finds_a_rise() {
        let mut random = Random(11);
        let mut test = PageHinkley::new(0.5, 20.0, 1.0).unwrap();
        assert_eq!((0..500).filter_map(|_| test.push(random.bell())).count(), 0);
        let found = (0..100).find_map(|at| test.push(2.0 + random.bell()).map(|way| (at, way)));
        assert!(matches!(found, Some((0..40, Direction::Up))), "{found:?}");
        assert!(PageHinkley::new(0.5, 20.0, 0.0).is_err());
    }

    #[test]
    fn states_are_saved_whole() {
        let mut random = Random(3);
        let values: Vec<f64> = (0..300).map(|at| random.bell() + if at > 150 { 3.0 } else { 0.0 }).collect();
        for cut in [0, 5, 160, 299] {
            let (mut a, mut b) =
                (Cusum::new(0.5, 5.0, 20).unwrap(), PageHinkley::new(0.2, 9.0, 0.99).unwrap());
            values[..cut].iter().for_each(|&value| {
                a.push(value);
                b.push(value);
            });
            let mut words = Vec::new();
            a.save(&mut words);
            b.save(&mut words);
            let (mut c, mut d) =
                (Cusum::new(0.5, 5.0, 20).unwrap(), PageHinkley::new(0.2, 9.0, 0.99).unwrap());
            let mut reader = Words::new(&words);
            c.restore(&mut reader).unwrap();
            d.restore(&mut reader).unwrap();
            reader.end().unwrap();
            for &value in &values[cut..] {
                assert_eq!((a.push(value), b.push(value)), (c.push(value), d.push(value)));
            }
        }
    }
}
