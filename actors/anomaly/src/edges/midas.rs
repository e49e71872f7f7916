//! MIDAS-F: bursts in a stream of edges (Bhatia, Liu, Hooi, Yoon, Shin & Faloutsos 2022, doi:10.1145/3494564).

use super::sketch::{ROWS, check_cells, mixed, places};
use crate::AnomalyError;
use crate::state::Walk;

/// Settings of [`MidasF`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MidasOptions {
    /// Cells per row of each of three tables, a power of two from 16 to 2^24. Two rows of 24 bytes a cell.
    pub cells: u32,
    /// What is left of a count at the next tick: 0 to 1, both exclusive.
    pub keep: f64,
    /// Score from which a tick's count is not added to the past: more than 0.
    pub threshold: f64,
}

impl Default for MidasOptions {
    fn default() -> Self {
        Self { cells: 1 << 14, keep: 0.5, threshold: 1_000.0 }
    }
}

/// Most that one edge stands for.
const WEIGHT_MAX: f64 = 1e12;

/// A count of this tick, which fades, against the mean of the ticks before, by a chi-squared statistic; a count that
/// was anomalous does not enter the past, which grows by its own mean instead.
#[derive(Clone, Debug)]
pub struct MidasF {
    options: MidasOptions,
    edges: Table,
    sources: Table,
    destinations: Table,
    last: u64,
    /// Ticks that had an edge, this one included; 0 before the first.
    ticks: u32,
}

impl MidasF {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] when an option is out of range.
    pub fn new(options: MidasOptions) -> Result<Self, AnomalyError> {
        let MidasOptions { cells, keep, threshold } = options;
        check_cells("cells", cells)?;
        AnomalyError::check("keep", keep, keep > 0.0 && keep < 1.0, "more than 0, less than 1")?;
        AnomalyError::check("threshold", threshold, threshold > 0.0, "more than 0")?;
        let table = || Table::new(cells);
        Ok(Self { options, edges: table(), sources: table(), destinations: table(), last: 0, ticks: 0 })
    }

    /// Takes an edge and gives its score, 0 or more: the largest of edge, source and destination. A tick before the last
    /// one counts as the last one.
    pub fn push(&mut self, source: u64, destination: u64, tick: u64) -> f64 {
        self.push_weighted(source, destination, tick, 1.0)
    }

    /// Takes an edge that stands for `weight` of them, 0 or more.
    pub fn push_weighted(&mut self, source: u64, destination: u64, tick: u64, weight: f64) -> f64 {
        let weight = if weight > 0.0 { weight.min(WEIGHT_MAX) } else { 0.0 };
        if self.ticks == 0 || tick > self.last {
            self.last = tick;
            self.ticks = self.ticks.saturating_add(1);
        }
        let (now, options) = (self.ticks, self.options);
        let edge = self.edges.push(mixed(source, destination), now, weight, &options);
        let source = self.sources.push(source, now, weight, &options);
        let destination = self.destinations.push(destination, now, weight, &options);
        edge.max(source).max(destination)
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.count(&mut self.last, u64::MAX)?;
        let mut ticks = u64::from(self.ticks);
        walk.count(&mut ticks, u64::from(u32::MAX))?;
        self.ticks = ticks as u32;
        for table in [&mut self.edges, &mut self.sources, &mut self.destinations] {
            table.walk(walk, self.ticks)?;
        }
        Ok(())
    }
}

/// One cell: a name's count of this tick and of the ticks before, as of the last time it was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    current: f64,
    past: f64,
    /// Tick up to which it is brought.
    brought: u32,
    /// Whether the last score was from the threshold up.
    hot: bool,
}

impl Cell {
    /// Brings it to `now`: what the paper does to every cell at each new tick, done to one when it is needed.
    fn bring(&mut self, now: u32, keep: f64) {
        if self.brought == 0 {
            self.brought = now;
        }
        let ticks = now - self.brought;
        if ticks == 0 {
            return;
        }
        let left = libm::pow(keep, f64::from(ticks));
        if !self.hot {
            // The fading count enters the past once a tick: a geometric sum.
            self.past += self.current * (1.0 - left) / (1.0 - keep);
        } else if self.brought > 1 {
            // The past grows by its own mean: past / (tick - 1) at each tick, a product that telescopes.
            self.past *= f64::from(now - 1) / f64::from(self.brought - 1);
        }
        self.current *= left;
        self.brought = now;
    }
}

/// A count-min table of cells.
#[derive(Clone, Debug)]
struct Table {
    cells: Vec<Cell>,
    mask: u64,
}

impl Table {
    fn new(cells: u32) -> Self {
        Self { cells: vec![Cell::default(); ROWS * cells as usize], mask: u64::from(cells) - 1 }
    }

    fn push(&mut self, name: u64, now: u32, weight: f64, options: &MidasOptions) -> f64 {
        let places = places(name, self.mask);
        let (mut current, mut past) = (f64::MAX, f64::MAX);
        for place in places {
            let cell = &mut self.cells[place];
            cell.bring(now, options.keep);
            cell.current += weight;
            current = current.min(cell.current);
            past = past.min(cell.past);
        }
        let score = chi_squared(current, past, now);
        for place in places {
            self.cells[place].hot = score >= options.threshold;
        }
        score
    }

    fn walk(&mut self, walk: &mut impl Walk, now: u32) -> Result<(), AnomalyError> {
        for cell in &mut self.cells {
            walk.float(&mut cell.current)?;
            walk.float(&mut cell.past)?;
            let mut word = u64::from(cell.brought) << 1 | u64::from(cell.hot);
            walk.count(&mut word, u64::from(now) << 1 | 1)?;
            (cell.brought, cell.hot) = ((word >> 1) as u32, word & 1 == 1);
            if !(cell.current >= 0.0 && cell.past >= 0.0) {
                return Err(AnomalyError::State { problem: "a count below zero" });
            }
        }
        Ok(())
    }
}

/// Of a count against the mean of the ticks before; 0 without a past.
fn chi_squared(current: f64, past: f64, tick: u32) -> f64 {
    if past <= 0.0 || tick <= 1 {
        return 0.0;
    }
    let ticks = f64::from(tick);
    let away = current + past - current * ticks;
    away * away / (past * (ticks - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// By source and destination: count of this tick, of the ticks before, and score.
    type Exact = HashMap<(u64, u64), (f64, f64, f64)>;

    /// As the paper has it: exact tables, every count touched at each new tick.
    #[derive(Default)]
    struct Slow {
        tables: [Exact; 3],
        tick: u32,
        last: u64,
    }

    impl Slow {
        fn push(&mut self, source: u64, destination: u64, tick: u64) -> f64 {
            let options = MidasOptions::default();
            if self.tick == 0 || tick > self.last {
                for (current, past, score) in self.tables.iter_mut().flat_map(HashMap::values_mut) {
                    if *score < options.threshold {
                        *past += *current;
                    } else if self.tick > 1 {
                        *past += *past / f64::from(self.tick - 1);
                    }
                    *current *= options.keep;
                }
                (self.tick, self.last) = (self.tick + 1, tick);
            }
            let keys = [(source, destination), (source, 0), (0, destination)];
            let scores = self.tables.iter_mut().zip(keys).map(|(table, key)| {
                let cell = table.entry(key).or_default();
                cell.0 += 1.0;
                cell.2 = chi_squared(cell.0, cell.1, self.tick);
                cell.2
            });
            scores.fold(0.0, f64::max)
        }
    }

    proptest! {
        #[test]
        fn it_is_the_papers_as_long_as_no_names_collide(
            edges in prop::collection::vec((0u64..6, 6u64..12, 0u64..4, 1usize..40), 1..80),
        ) {
            let options = MidasOptions { cells: 1 << 16, ..MidasOptions::default() };
            let (mut midas, mut slow, mut tick) = (MidasF::new(options).unwrap(), Slow::default(), 0);
            for (source, destination, later, count) in edges {
                tick += later;
                for _ in 0..count {
                    let (found, wanted) = (midas.push(source, destination, tick), slow.push(source, destination, tick));
                    prop_assert!((found - wanted).abs() <= 1e-9 * (1.0 + wanted), "{found} {wanted}");
                }
            }
        }
    }
}
