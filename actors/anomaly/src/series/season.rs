//! What a series usually is at this hour: means of slots of the day and of the week.

use crate::AnomalyError;
use crate::state::Walk;

/// Hours of working days, then hours of the weekend.
const DAY_SLOTS: usize = 48;
/// Hours of the week, from Thursday, as the Unix epoch has it.
const WEEK_SLOTS: usize = 168;
/// Values a slot needs before it is compared with.
const DAY_ROWS_MIN: u8 = 6;
const WEEK_ROWS_MIN: u8 = 8;
/// Least weight of a new value in its slot's mean; the inverse is how many values a mean remembers.
const LEAST_WEIGHT: f64 = 0.01;
const SECONDS_OF_HOUR: i64 = 3_600;

/// Means of the slots of a calendar.
#[derive(Clone, Debug)]
struct Slots<const N: usize> {
    means: [f32; N],
    rows: [u8; N],
}

impl<const N: usize> Slots<N> {
    const EMPTY: Self = Self { means: [0.0; N], rows: [0; N] };

    fn mean(&self, slot: usize, rows_min: u8) -> Option<f64> {
        (self.rows[slot] >= rows_min).then(|| f64::from(self.means[slot]))
    }

    fn push(&mut self, slot: usize, value: f64) {
        self.rows[slot] = self.rows[slot].saturating_add(1);
        let weight = (1.0 / f64::from(self.rows[slot])).max(LEAST_WEIGHT);
        let mean = f64::from(self.means[slot]);
        self.means[slot] = (mean + weight * (value - mean)) as f32;
    }

    fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.singles(&mut self.means)?;
        walk.bytes(&mut self.rows)
    }
}

/// Both calendars.
#[derive(Clone, Debug)]
pub(super) struct Season {
    day: Slots<DAY_SLOTS>,
    week: Slots<WEEK_SLOTS>,
}

/// Where an instant lies in both calendars.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    day: usize,
    week: usize,
}

impl Slot {
    /// Of seconds since the Unix epoch, in the time zone the caller chose.
    pub(super) fn at(seconds: i64) -> Self {
        let hours = seconds.div_euclid(SECONDS_OF_HOUR);
        let hour = hours.rem_euclid(24) as usize;
        let week = hours.rem_euclid(WEEK_SLOTS as i64) as usize;
        // The epoch was a Thursday: days 2 and 3 of such a week are Saturday and Sunday.
        let weekend = matches!(week / 24, 2 | 3);
        Self { day: hour + if weekend { 24 } else { 0 }, week }
    }
}

impl Season {
    pub(super) const EMPTY: Self = Self { day: Slots::EMPTY, week: Slots::EMPTY };

    /// Mean of this hour of the day, working days and weekends apart.
    pub(super) fn of_day(&self, slot: Slot) -> Option<f64> {
        self.day.mean(slot.day, DAY_ROWS_MIN)
    }

    /// Mean of this hour of the week.
    pub(super) fn of_week(&self, slot: Slot) -> Option<f64> {
        self.week.mean(slot.week, WEEK_ROWS_MIN)
    }

    pub(super) fn push(&mut self, slot: Slot, value: f64) {
        self.day.push(slot.day, value);
        self.week.push(slot.week, value);
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        self.day.walk(walk)?;
        self.week.walk(walk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_find_their_hours() {
        // 2024-01-06 was a Saturday, 2024-01-08 a Monday.
        let (saturday, monday) = (1_704_542_400, 1_704_715_200);
        assert_eq!(Slot::at(saturday).day, 24 + 12);
        assert_eq!(Slot::at(monday).day, 12);
        assert_eq!(Slot::at(monday).week, Slot::at(monday + 7 * 86_400).week);
        assert_eq!(Slot::at(-1).week, 167, "the hour before the epoch");
    }

    #[test]
    fn a_slot_is_the_mean_of_its_own_values() {
        let mut season = Season::EMPTY;
        for day in 0..20i64 {
            for hour in 0..24 {
                let slot = Slot::at(day * 86_400 + hour * 3_600);
                season.push(slot, hour as f64 + day as f64);
            }
        }
        // Days 0..20 from a Thursday: the weekends are 2, 3, 9, 10, 16, 17, with a mean of 9.5.
        let saturday = Slot::at(2 * 86_400 + 5 * 3_600);
        assert_eq!(season.of_day(saturday), Some(5.0 + 9.5));
        assert_eq!(season.of_week(saturday), None, "three values are too few");
    }
}
