//! A surface of values through the batcher: a state per symbol and parameter, kept up bar by bar on the CPU, or whole series on a device
//! where that is quicker; a device that fails or is late costs no row.

use std::collections::HashMap;
use std::time::Duration;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_batcher::{
    Batcher, ClassSpec, ClassStats, Compute, Feeder, GpuPolicy, Options, Pushed, Results, Started, Stats,
    SurfaceSpec, SweepSpec, Waited, Window,
};
use tidegate_engine::Output;

/// Windows on their way to the batcher.
const RING: usize = 1 << 14;
/// Of these, how many wait for their rows before they are taken.
const WAITING_MAX: usize = RING / 2;
/// How long a row may take. Beyond it it is not told.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bars the batcher keeps of a symbol, for a device to look at; its state on the CPU is of all there were.
const HISTORY: usize = 256;

/// A bar on its way.
struct Due {
    bar: Output,
    count: u64,
    told: bool,
}

/// A row that is there.
pub(super) struct Found {
    pub(super) bar: Output,
    /// Bars of the symbol up to it.
    pub(super) count: u64,
    /// What each parameter says.
    pub(super) values: Vec<f64>,
}

/// The batcher with one class, and what is on its way to it.
pub(super) struct Batched {
    feeder: Feeder,
    results: Results,
    stats: Stats,
    /// For each parameter, its place in a line.
    picks: Vec<usize>,
    symbols_max: usize,
    /// Each symbol's row, and how many bars it had.
    symbols: HashMap<u64, (u32, u64)>,
    due: HashMap<(u32, u64), Due>,
    found: Vec<Found>,
    /// Bars without a row because it took too long.
    pub(super) conflated: u64,
}

/// The longest window of a band, in bars.
fn longest_band(specs: &[SweepSpec]) -> usize {
    let band = |spec: &SweepSpec| match spec {
        SweepSpec::Bollinger { window, .. } => *window as usize,
        _ => 0,
    };
    specs.iter().map(band).max().unwrap_or(0)
}

/// What is to be started for such a surface.
fn class(name: &str, specs: Vec<SweepSpec>, symbols_max: usize) -> (ClassSpec, Options) {
    let history = HISTORY.max(2 * longest_band(&specs));
    let rows = u32::try_from(symbols_max).unwrap_or(u32::MAX);
    let spec = ClassSpec {
        name: name.to_owned(),
        // Rows for symbols that are not known yet.
        members: (0..rows).collect(),
        compute: Compute::Surface(SurfaceSpec { specs, history }),
    };
    (spec, Options { rows, ring: RING, ..Options::default() })
}

/// Checks what can be before anything runs.
pub(super) fn check(name: &str, specs: Vec<SweepSpec>, symbols_max: usize) -> Result<(), String> {
    let (class, options) = class(name, specs, symbols_max);
    class.check(options.rows).map_err(|error| error.to_string())
}

impl Batched {
    pub(super) fn start(
        name: &str,
        specs: &[(IndicatorSpec, SweepSpec)],
        symbols_max: usize,
        policy: GpuPolicy,
    ) -> Result<Self, String> {
        let mut picks = Vec::with_capacity(specs.len());
        let mut at = 0;
        for (_, batch) in specs {
            // Of a MACD the histogram.
            picks.push(at + if matches!(batch, SweepSpec::Macd { .. }) { 2 } else { 0 });
            at += batch.columns();
        }
        let (class, options) = class(name, specs.iter().map(|(_, batch)| *batch).collect(), symbols_max);
        let started = Batcher::start(vec![class], options, policy).map_err(|error| error.to_string())?;
        let Started { mut feeders, results, stats, .. } = started;
        let Some(feeder) = feeders.pop() else { return Err("the batcher has no feeder".to_owned()) };
        let (symbols, due) = (HashMap::new(), HashMap::new());
        Ok(Self { feeder, results, stats, picks, symbols_max, symbols, due, found: Vec::new(), conflated: 0 })
    }

    /// Takes a bar; `told` when its row is to be computed. `false` for a symbol beyond the bound, or without a price.
    pub(super) fn take(&mut self, bar: &Output, told: bool) -> Result<bool, String> {
        let next = self.symbols.len();
        if next >= self.symbols_max && !self.symbols.contains_key(&bar.name) {
            return Ok(false);
        }
        if self.due.len() >= WAITING_MAX {
            self.collect()?;
        }
        let (row, count) = self.symbols.entry(bar.name).or_insert((next as u32, 0));
        let words = bar.bar();
        // Bars by trades may end at one time, so that their number stands for it.
        let close_ts = *count + 1;
        let window = Window { row: *row, close_ts, high: words.high, low: words.low, close: words.close };
        if self.feeder.push(window) != Pushed::Taken {
            return Ok(false);
        }
        *count = close_ts;
        self.due.insert((*row, close_ts), Due { bar: *bar, count: close_ts, told });
        Ok(true)
    }

    /// Waits for the rows of all bars that are on their way.
    fn collect(&mut self) -> Result<(), String> {
        while !self.due.is_empty() {
            let Self { results, due, found, picks, .. } = self;
            let there = results.next(|outcome| {
                for (row, time, values) in outcome.lines() {
                    let Some(Due { bar, count, told }) = row.and_then(|row| due.remove(&(row, time))) else {
                        continue;
                    };
                    if told {
                        let values = picks.iter().map(|&at| values[at]).collect();
                        found.push(Found { bar, count, values });
                    }
                }
            });
            if there {
                continue;
            }
            match self.results.wait(PATIENCE) {
                Waited::Ready => {}
                Waited::TimedOut => {
                    self.conflated += self.due.len() as u64;
                    self.due.clear();
                }
                Waited::Ended => {
                    self.due.clear();
                    let why = self.stats.class(0).failed.unwrap_or_default();
                    return Err(format!("the batcher has ended: {why}"));
                }
            }
        }
        Ok(())
    }

    /// The rows of all bars taken, in the order of their slots' numbers.
    pub(super) fn rows(&mut self) -> Result<Vec<Found>, String> {
        self.collect()?;
        self.found.sort_unstable_by_key(|found| (found.bar.slot, found.bar.sequence));
        Ok(std::mem::take(&mut self.found))
    }

    pub(super) fn stats(&self) -> ClassStats {
        self.stats.class(0)
    }

    pub(super) fn rebuilt(&self) -> u64 {
        self.stats.rebuilt()
    }
}
