//! A token bucket: so much a second, and at most a second's worth at once.

use crate::time::MonoTime;

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// What may be used now, of something that comes at a rate. It may be overdrawn, and is paid back before more is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    per_second: u64,
    /// What is there, times 10^9: a nanosecond brings `per_second` of these.
    level: i128,
    at: MonoTime,
}

impl Meter {
    /// A full one.
    #[must_use]
    pub fn new(per_second: u64, now: MonoTime) -> Self {
        Self { per_second, level: i128::from(per_second) * SECOND, at: now }
    }

    /// Takes another rate from now on. What is overdrawn stays so.
    pub fn set_rate(&mut self, per_second: u64, now: MonoTime) {
        self.refill(now);
        self.per_second = per_second;
        self.level = self.level.min(i128::from(per_second) * SECOND);
    }

    /// The rate.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.per_second
    }

    fn refill(&mut self, now: MonoTime) {
        let (rate, passed) = (i128::from(self.per_second), i128::from(now.since(self.at)));
        self.level = (self.level + rate * passed).min(rate * SECOND);
        self.at = self.at.max(now);
    }

    /// How much may be used now; nothing while it is overdrawn.
    pub fn available(&mut self, now: MonoTime) -> u64 {
        self.refill(now);
        u64::try_from(self.level / SECOND).unwrap_or(0)
    }

    /// So much was used.
    pub fn spend(&mut self, count: u64, now: MonoTime) {
        self.refill(now);
        self.level -= i128::from(count) * SECOND;
    }

    /// How long until it is no longer overdrawn, in nanoseconds.
    pub fn debt_ns(&mut self, now: MonoTime) -> u64 {
        self.refill(now);
        let debt = u128::try_from(-self.level).unwrap_or(0);
        u64::try_from(debt.div_ceil(u128::from(self.per_second.max(1)))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_is_saved_up_and_no_more() {
        let mut meter = Meter::new(1_000, MonoTime(0));
        assert_eq!(meter.available(MonoTime(60_000_000_000)), 1_000);
        meter.spend(2_500, MonoTime(60_000_000_000));
        assert_eq!(meter.debt_ns(MonoTime(60_000_000_000)), 1_500_000_000);
        assert_eq!(meter.available(MonoTime(61_500_000_000)), 0);
        assert_eq!(meter.available(MonoTime(61_501_000_000)), 1);
        // A clock that seems to go back brings nothing twice.
        assert_eq!(meter.available(MonoTime(61_000_000_000)), 1);
        assert_eq!(meter.available(MonoTime(61_501_000_000)), 1);
        meter.set_rate(10, MonoTime(90_000_000_000));
        assert_eq!((meter.rate(), meter.available(MonoTime(90_000_000_000))), (10, 10));
    }

    proptest! {
        /// Whoever uses only what is available gets the rate, plus what was saved up, whenever it asks.
        #[test]
        fn nobody_gets_more_than_the_rate(rate in 1u64..1_000_000, steps in proptest::collection::vec(0u64..2_000_000_000, 1..40)) {
            let (mut meter, mut now, mut used) = (Meter::new(rate, MonoTime(0)), 0, 0u128);
            for step in steps {
                now += step;
                let count = meter.available(MonoTime(now));
                meter.spend(count, MonoTime(now));
                used += u128::from(count);
                prop_assert_eq!(meter.debt_ns(MonoTime(now)), 0);
            }
            prop_assert!(used <= u128::from(rate) + u128::from(rate) * u128::from(now) / 1_000_000_000);
        }
    }
}
