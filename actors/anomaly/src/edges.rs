//! Anomalies among edges: who talks to whom, in ticks (minutes, say), in memory that does not grow.
//!
//! - [`MidasF`], the detector of its paper: bursts of an edge, of a source or of a destination.
//! - [`EdgeDetector`], which adds who is a stranger: a source rarely active, or long silent, that talks to a destination
//!   many others talk to, over an edge that is rarely used.

use crate::AnomalyError;
use crate::state::{Saver, Walk, Words};

mod alarm;
mod midas;
mod sketch;

pub use alarm::{EdgeAlarm, EdgeAlarmOptions, EdgeCall, EdgePart};
pub use midas::{MidasF, MidasOptions};
use sketch::{Sketch, mixed};

/// Ticks ahead of the last one that an edge alone is not believed: a day of minutes. One row dated in another century would end all
/// learning, because no tick is taken back.
const FAR: u64 = 1_440;

/// Sizes of the tables of [`EdgeDetector`] and its bursts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeOptions {
    /// Of its [`MidasF`].
    pub midas: MidasOptions,
    /// Cells per row of the tables of edges, a power of two from 16 to 2^24. Two rows of 16 bytes a cell.
    pub edge_cells: u32,
    /// The same for sources and destinations.
    pub node_cells: u32,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self { midas: MidasOptions::default(), edge_cells: 1 << 17, node_cells: 1 << 15 }
    }
}

/// What one edge gave; each part is a logarithm, so a weighted sum is a product of ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeVerdict {
    /// `rare_source + silence + 2 popular + burst / 2 + rare_edge / 2`: higher is more anomalous.
    pub score: f64,
    /// Ticks so far against those in which the source was active.
    pub rare_source: f64,
    /// Ticks since the source was last active.
    pub silence: f64,
    /// How many sources the destination has had: what is done there by a stranger matters more.
    pub popular: f64,
    /// The [`MidasF`] score.
    pub burst: f64,
    /// Ticks so far against those in which the edge was used.
    pub rare_edge: f64,
    /// Ticks so far, this one included, at least 1: all parts but `popular` and `burst` grow with their logarithm.
    pub ticks: u32,
    /// Whether it is the first of its source and destination in this tick.
    pub first: bool,
}

/// Judges edges one after the other; an edge is judged before it is learnt.
///
/// Its state is fixed by its options: 7 MiB by default, whatever number of nodes and edges there are. When tables fill,
/// rare things look less rare; nothing else happens.
#[derive(Clone, Debug)]
pub struct EdgeDetector {
    options: EdgeOptions,
    midas: MidasF,
    edges: Sketch,
    sources: Sketch,
    destinations: Sketch,
    first: u64,
    last: u64,
    started: bool,
    /// A tick far ahead that no second edge has confirmed yet; 0 if none.
    far: u64,
}

impl EdgeDetector {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] when an option is out of range.
    pub fn new(options: EdgeOptions) -> Result<Self, AnomalyError> {
        let sketch = |name, cells| Sketch::new(name, cells);
        Ok(Self {
            options,
            midas: MidasF::new(options.midas)?,
            edges: sketch("edge_cells", options.edge_cells)?,
            sources: sketch("node_cells", options.node_cells)?,
            destinations: sketch("node_cells", options.node_cells)?,
            first: 0,
            last: 0,
            started: false,
            far: 0,
        })
    }

    /// Takes an edge of `tick`; a tick before the last one counts as the last one, and so does one more than 1,440 behind it until the
    /// next edge is of such a time too.
    pub fn push(&mut self, source: u64, destination: u64, tick: u64) -> EdgeVerdict {
        self.push_weighted(source, destination, tick, 1.0)
    }

    /// Takes an edge that stands for `weight` of them, 0 or more: a burst is then that of the weights.
    pub fn push_weighted(&mut self, source: u64, destination: u64, tick: u64, weight: f64) -> EdgeVerdict {
        if !self.started {
            (self.first, self.last, self.started) = (tick, tick, true);
        }
        self.go_on(tick);
        // Ticks from 1, so that 0 is "never".
        let now = (self.last - self.first).min(u64::from(u32::MAX - 1)) as u32 + 1;
        let edge = mixed(source, destination);
        let (source_seen, edge_seen) = (self.sources.find(source), self.edges.find(edge));
        let sources_there = self.destinations.find(destination).count;
        let ticks = f64::from(now);
        let rarity = |ticks_active: u32| libm::log(ticks / (f64::from(ticks_active) + 1.0));
        let rare_source = rarity(source_seen.count);
        let rare_edge = rarity(edge_seen.count);
        // One who was never there has been silent a little longer than anybody.
        let silence = match source_seen.last {
            0 => libm::log(ticks) + 1.0,
            last => libm::log(f64::from(now.saturating_sub(last)) + 1.0),
        };
        let popular = libm::log1p(f64::from(sources_there));
        let burst = libm::log1p(self.midas.push_weighted(source, destination, self.last, weight));
        let first = edge_seen.last != now;
        if edge_seen.last == 0 {
            self.destinations.add(destination, now);
        }
        if source_seen.last != now {
            self.sources.add(source, now);
        }
        if first {
            self.edges.add(edge, now);
        }
        let score = rare_source + silence + 2.0 * popular + 0.5 * burst + 0.5 * rare_edge;
        EdgeVerdict { score, rare_source, silence, popular, burst, rare_edge, ticks: now, first }
    }

    fn go_on(&mut self, tick: u64) {
        let far = tick > self.last.saturating_add(FAR);
        if far && (self.far == 0 || tick.abs_diff(self.far) > FAR) {
            self.far = tick;
            return;
        }
        self.far = 0;
        self.last = self.last.max(tick);
    }

    /// Appends the whole state.
    pub fn save(&self, words: &mut Vec<u64>) {
        let written = self.clone().walk(&mut Saver(words));
        debug_assert_eq!(written, Ok(()));
    }

    /// Takes over a state saved by a detector with the same options.
    ///
    /// # Errors
    /// [`AnomalyError::State`] when the words are no such state; then nothing has changed.
    pub fn restore(&mut self, words: &mut Words<'_>) -> Result<(), AnomalyError> {
        let mut restored = Self::new(self.options)?;
        restored.walk(words)?;
        *self = restored;
        Ok(())
    }

    fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        self.midas.walk(walk)?;
        self.edges.walk(walk)?;
        self.sources.walk(walk)?;
        self.destinations.walk(walk)?;
        let mut started = u64::from(self.started);
        walk.count(&mut started, 1)?;
        self.started = started == 1;
        walk.count(&mut self.last, u64::MAX)?;
        let last = self.last;
        walk.count(&mut self.first, last)?;
        walk.count(&mut self.far, u64::MAX)
    }
}

#[cfg(test)]
mod tests;
