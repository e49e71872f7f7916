//! Surfaces: every parameter of every symbol, at each bar as it first became final. Values come from the batcher; what signals were worth
//! from a sweep over the bars that are kept.

use super::DEVICE_LONGEST;
use super::batched::Batched;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_config::derived::Shows;
use tidegate_engine::Output;
use tidegate_gpu::Accel;
use tidegate_gpu::sweep::{SweepCell, SweepRequest, SweepSeries, SweepSpec};

/// Bars that the signals of a symbol are looked for in: these, and at most as many before.
const KEPT_MIN: usize = 4_096;

/// One symbol's bars, oldest first.
#[derive(Default)]
struct Series {
    /// Bars there were, those that are not kept included.
    count: u64,
    high: Vec<i64>,
    low: Vec<i64>,
    close: Vec<i64>,
}

impl Series {
    fn push(&mut self, high: i64, low: i64, close: i64) {
        self.count += 1;
        self.high.push(high);
        self.low.push(low);
        self.close.push(close);
    }

    /// Bars that a row of the `count`-th does not look at any more: a function of the number alone, so that a row is the same however many bars
    /// came in one turn.
    fn before(count: u64) -> u64 {
        let kept = KEPT_MIN as u64;
        kept * (count.saturating_sub(1) / kept).saturating_sub(1)
    }

    /// What a row of its `count`-th bar looks at; `None` when that is not kept any more.
    fn upto(&self, count: u64) -> Option<SweepSeries<'_>> {
        let gone = self.count - self.close.len() as u64;
        let from = usize::try_from(Self::before(count).checked_sub(gone)?).ok()?;
        let to = usize::try_from(count.checked_sub(gone)?).ok()?;
        let (high, low) = (self.high.get(from..to)?, self.low.get(from..to)?);
        let close = self.close.get(from..to).filter(|close| !close.is_empty())?;
        Some(SweepSeries { high, low, close })
    }

    /// Lets go of what no later row looks at.
    fn forget(&mut self) {
        let gone = self.count - self.close.len() as u64;
        let old = Self::before(self.count).saturating_sub(gone) as usize;
        for column in [&mut self.high, &mut self.low, &mut self.close] {
            column.drain(..old);
        }
    }
}

/// Signals of all symbols.
struct Worth {
    gain: bool,
    ahead: u32,
    symbols_max: usize,
    symbols: HashMap<u64, Series>,
    /// Bars whose rows are to be computed, and their numbers among those of their symbol, from 1.
    due: Vec<(Output, u64)>,
    /// Symbols of which bars may be forgotten once those are computed.
    long: Vec<u64>,
}

enum Engine {
    Values(Box<Batched>),
    Worth(Worth),
}

/// The bars of all symbols, and what is to be computed of them.
pub(super) struct Surface {
    specs: Vec<(IndicatorSpec, SweepSpec)>,
    engine: Engine,
    /// Bars of symbols beyond the bound, or without a price.
    pub(super) left_out: u64,
    conflated: u64,
}

impl Surface {
    pub(super) fn values(specs: Vec<(IndicatorSpec, SweepSpec)>, batched: Batched) -> Self {
        Self { specs, engine: Engine::Values(Box::new(batched)), left_out: 0, conflated: 0 }
    }

    pub(super) fn worth(
        specs: Vec<(IndicatorSpec, SweepSpec)>,
        shows: Shows,
        ahead: u32,
        symbols_max: usize,
    ) -> Self {
        let gain = shows != Shows::Hits;
        let worth =
            Worth { gain, ahead, symbols_max, symbols: HashMap::new(), due: Vec::new(), long: Vec::new() };
        Self { specs, engine: Engine::Worth(worth), left_out: 0, conflated: 0 }
    }

    /// The batcher, where there is one.
    pub(super) fn batched(&self) -> Option<&Batched> {
        match &self.engine {
            Engine::Values(batched) => Some(batched),
            Engine::Worth(_) => None,
        }
    }

    /// Bars whose rows gave way to those of newer ones.
    pub(super) fn conflated(&self) -> u64 {
        self.conflated + self.batched().map_or(0, |batched| batched.conflated)
    }

    /// Takes a bar; `told` when its row is to be computed.
    pub(super) fn take(&mut self, bar: &Output, told: bool) -> Result<(), String> {
        let taken = match &mut self.engine {
            Engine::Values(batched) => batched.take(bar, told)?,
            Engine::Worth(worth) => worth.take(bar, told),
        };
        self.left_out += u64::from(!taken);
        Ok(())
    }

    /// There is more to come than can be kept up with: only the newest bar of each symbol is still to be computed. The batcher keeps up.
    pub(super) fn conflate(&mut self) {
        let Engine::Worth(worth) = &mut self.engine else { return };
        let newest: HashMap<u64, u64> = worth.due.iter().map(|(bar, count)| (bar.name, *count)).collect();
        let before = worth.due.len();
        worth.due.retain(|(bar, count)| newest.get(&bar.name) == Some(count));
        self.conflated += (before - worth.due.len()) as u64;
    }

    /// Computes what is to be computed, and hands over each bar with how many it is of and what each parameter says, in the order of the
    /// numbers of a slot. Returns how many.
    pub(super) fn compute(
        &mut self,
        backend: &Arc<Accel>,
        mut each: impl FnMut(&Output, u64, &[f64]),
    ) -> Result<usize, String> {
        let worth = match &mut self.engine {
            Engine::Values(batched) => {
                let found = batched.rows()?;
                found.iter().for_each(|found| each(&found.bar, found.count, &found.values));
                return Ok(found.len());
            }
            Engine::Worth(worth) => worth,
        };
        let specs: Vec<SweepSpec> = self.specs.iter().map(|(_, batch)| *batch).collect();
        let due = std::mem::take(&mut worth.due);
        let (asked, computed) = (due.len(), worth.compute(due, &specs, backend, each));
        worth.forget();
        let computed = computed?;
        self.left_out += (asked - computed) as u64;
        Ok(computed)
    }
}

impl Worth {
    /// Computes the rows of these bars; returns how many there were.
    fn compute(
        &self,
        mut due: Vec<(Output, u64)>,
        specs: &[SweepSpec],
        backend: &Arc<Accel>,
        mut each: impl FnMut(&Output, u64, &[f64]),
    ) -> Result<usize, String> {
        due.sort_unstable_by_key(|(bar, _)| (bar.slot, bar.sequence));
        due.retain(|(bar, count)| self.upto(bar, *count).is_some());
        let request_of =
            |series: &[SweepSeries<'_>]| SweepRequest { series, specs, horizon: self.ahead }.check().is_ok();
        let all = |due: &[(Output, u64)]| -> Vec<SweepSeries<'_>> {
            due.iter().filter_map(|(bar, count)| self.upto(bar, *count)).collect()
        };
        // One symbol whose prices are too large for a sum of so many must not silence the others.
        if !request_of(&all(&due)) {
            due.retain(|(bar, count)| self.upto(bar, *count).is_some_and(|series| request_of(&[series])));
        }
        if due.is_empty() {
            return Ok(0);
        }
        let series = all(&due);
        let request = SweepRequest { series: &series, specs, horizon: self.ahead };
        let cells = backend.sweep_within(&request, DEVICE_LONGEST).map_err(|error| error.to_string())?;
        for ((bar, count), cells) in due.iter().zip(&cells) {
            let shown: Vec<f64> = cells.iter().map(|cell| self.shown(cell)).collect();
            each(bar, *count, &shown);
        }
        Ok(due.len())
    }

    fn forget(&mut self) {
        for name in self.long.drain(..) {
            if let Some(series) = self.symbols.get_mut(&name) {
                series.forget();
            }
        }
    }

    fn take(&mut self, bar: &Output, told: bool) -> bool {
        let words = bar.bar();
        let room = self.symbols.len() < self.symbols_max || self.symbols.contains_key(&bar.name);
        if !room || words.close <= 0 {
            return false;
        }
        let series = self.symbols.entry(bar.name).or_default();
        series.push(words.high, words.low, words.close);
        if series.close.len() > 2 * KEPT_MIN {
            self.long.push(bar.name);
        }
        if told {
            self.due.push((*bar, series.count));
        }
        true
    }

    fn upto(&self, bar: &Output, count: u64) -> Option<SweepSeries<'_>> {
        self.symbols.get(&bar.name)?.upto(count)
    }

    /// NaN while no signal was judged.
    fn shown(&self, cell: &SweepCell) -> f64 {
        let shown = if self.gain { cell.mean_gain() } else { cell.hit_rate() };
        shown.unwrap_or(f64::NAN)
    }
}
