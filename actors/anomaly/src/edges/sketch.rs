//! Ticks per name, in tables of a fixed size: a count-min sketch that also knows when a name was last there.

use crate::AnomalyError;
use crate::state::Walk;

/// Rows of cells; each has a hash of its own.
pub(super) const ROWS: usize = 2;
pub(super) const CELLS: std::ops::RangeInclusive<u32> = 16..=1 << 24;
const SEEDS: [u64; ROWS] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

/// What is known of a name: never less than the truth for a count, never earlier for the last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) count: u32,
    /// The last tick, from 1; 0 for never.
    pub(super) last: u32,
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    cells: Vec<Cell>,
    mask: u64,
}

impl Sketch {
    pub(super) fn new(name: &'static str, cells: u32) -> Result<Self, AnomalyError> {
        check_cells(name, cells)?;
        Ok(Self { cells: vec![Cell::default(); ROWS * cells as usize], mask: u64::from(cells) - 1 })
    }

    pub(super) fn find(&self, name: u64) -> Cell {
        let [a, b] = places(name, self.mask).map(|place| self.cells[place]);
        Cell { count: a.count.min(b.count), last: a.last.min(b.last) }
    }

    /// Counts one more, at `tick`.
    pub(super) fn add(&mut self, name: u64, tick: u32) {
        for place in places(name, self.mask) {
            let cell = &mut self.cells[place];
            cell.count = cell.count.saturating_add(1);
            cell.last = tick;
        }
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        for cell in &mut self.cells {
            let mut word = u64::from(cell.count) | u64::from(cell.last) << 32;
            walk.count(&mut word, u64::MAX)?;
            *cell = Cell { count: word as u32, last: (word >> 32) as u32 };
        }
        Ok(())
    }
}

pub(super) fn check_cells(name: &'static str, cells: u32) -> Result<(), AnomalyError> {
    let fits = CELLS.contains(&cells) && cells.is_power_of_two();
    AnomalyError::check(name, f64::from(cells), fits, "a power of two from 16 to 16777216")
}

/// Where a name's cells are, one in each row.
pub(super) fn places(name: u64, mask: u64) -> [usize; ROWS] {
    let mut row = 0;
    SEEDS.map(|seed| {
        row += 1;
        (scrambled(name ^ seed) & mask) as usize + (row - 1) * (mask as usize + 1)
    })
}

/// One name for a pair, in this order.
pub(super) fn mixed(source: u64, destination: u64) -> u64 {
    scrambled(source).rotate_left(23) ^ scrambled(destination ^ SEEDS[1])
}

/// All bits depend on all bits (the finaliser of splitmix64; Steele, Lea & Flood 2014).
fn scrambled(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn a_sketch_never_counts_less_nor_remembers_earlier_than_a_table(
            names in prop::collection::vec(0u64..300, 1..500),
        ) {
            let (mut sketch, mut table) = (Sketch::new("cells", 1 << 12).unwrap(), HashMap::new());
            let mut exact = 0;
            for (tick, &name) in (1..).zip(&names) {
                sketch.add(name, tick);
                let cell: &mut Cell = table.entry(name).or_default();
                (cell.count, cell.last) = (cell.count + 1, tick);
            }
            for (&name, &truth) in &table {
                let found = sketch.find(name);
                prop_assert!(found.count >= truth.count && found.last >= truth.last);
                exact += usize::from(found == truth);
            }
            // 300 names in 4,096 cells: few share both of theirs.
            prop_assert!(exact * 10 >= table.len() * 9, "{exact} of {}", table.len());
        }
    }
}
