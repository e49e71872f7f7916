//! Indicators over symbols x parameters x bars.

use super::{Device, THREADS, blocks, failed, product};
use crate::DeviceError;
use cudarc::driver::PushKernelArg;

/// Bars of all symbols one after the other. What no job needs may be empty.
#[derive(Debug, Clone, Copy)]
pub struct SweepBars<'a> {
    /// Where each symbol's bars begin, and where the last one's end.
    pub starts: &'a [u64],
    /// Closes in 1e-9.
    pub close: &'a [i64],
    /// Closes in the quote currency.
    pub price: &'a [f64],
    /// Returns from each close to the one `horizon` bars later; not looked at where there is none.
    pub ahead: &'a [f64],
    /// Rises of the close.
    pub up: &'a [f64],
    /// Falls of the close.
    pub down: &'a [f64],
    /// True ranges.
    pub range: &'a [f64],
    /// Changes of the close.
    pub change: &'a [f64],
    /// Bars from a signal to where it is judged.
    pub horizon: u64,
}

/// An indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepKind {
    /// Exponential mean: a window.
    Ema,
    /// Relative strength: a window; needs `up` and `down`.
    Rsi,
    /// Two means: three windows.
    Macd,
    /// True range: a window; needs `range` and `change`.
    Atr,
    /// Bands: a window and a number of deviations; needs `close`.
    Bollinger,
}

/// Parameters of one indicator.
#[derive(Debug, Clone)]
pub struct SweepJob {
    /// Which.
    pub kind: SweepKind,
    /// Where each parameter's cell stands among a symbol's.
    pub places: Vec<u32>,
    /// Windows of each parameter.
    pub windows: Vec<u32>,
    /// Deviations of each parameter, of bands alone.
    pub deviations: Vec<f64>,
}

/// Results, symbol by symbol, a cell per parameter.
#[derive(Debug, Clone, Default)]
pub struct SweepCells {
    /// Three values and the gain of each cell.
    pub numbers: Vec<f64>,
    /// Long signals, short ones, judged ones, hits, and the bar of the last signal or -1.
    pub counts: Vec<i64>,
}

impl Device {
    /// Runs the jobs, whose places together are `0..cells`.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn sweep(
        &self,
        bars: &SweepBars<'_>,
        jobs: &[SweepJob],
        cells: u32,
    ) -> Result<SweepCells, DeviceError> {
        let symbols = (bars.starts.len() as u64).saturating_sub(1);
        let all = bars.starts.last().copied().unwrap_or(0);
        if bars.starts.first() != Some(&0) || bars.starts.windows(2).any(|pair| pair[1] < pair[0]) {
            return Err(DeviceError::Shape { what: "starts", found: all, expected: 0 });
        }
        check(bars, jobs, cells, all)?;
        let results = product(&[symbols, cells.into(), 9]);
        self.fits(&[results, product(&[all, 7])])?;
        let places = symbols * u64::from(cells);
        let starts = self.copy(bars.starts)?;
        let [price, ahead, up] = [self.copy(bars.price)?, self.copy(bars.ahead)?, self.copy(bars.up)?];
        let [down, range, change] = [self.copy(bars.down)?, self.copy(bars.range)?, self.copy(bars.change)?];
        let close = self.copy(bars.close)?;
        let (mut numbers, mut counts) = (self.room::<f64>(4 * places)?, self.room::<i64>(5 * places)?);
        for job in jobs {
            let specs = job.places.len() as u32;
            let (places, windows) = (self.copy(&job.places)?, self.copy(&job.windows)?);
            let deviations = self.copy(&job.deviations)?;
            let mut call = self.call(match job.kind {
                SweepKind::Ema => "sweep_ema",
                SweepKind::Rsi => "sweep_rsi",
                SweepKind::Macd => "sweep_macd",
                SweepKind::Atr => "sweep_atr",
                SweepKind::Bollinger => "sweep_bollinger",
            });
            call.arg(&starts)
                .arg(&places)
                .arg(&symbols)
                .arg(&bars.horizon)
                .arg(&specs)
                .arg(&cells)
                .arg(&windows);
            match job.kind {
                SweepKind::Ema | SweepKind::Macd => call.arg(&price),
                SweepKind::Rsi => call.arg(&up).arg(&down),
                SweepKind::Atr => call.arg(&range).arg(&change),
                SweepKind::Bollinger => call.arg(&deviations).arg(&close).arg(&price),
            };
            call.arg(&ahead).arg(&mut numbers).arg(&mut counts);
            let config = blocks(symbols * u64::from(specs), THREADS)?;
            // SAFETY: every buffer the kind reads is as long as the bars, windows and places as the parameters, and every
            // place is below `cells`: `check` saw to it.
            unsafe { call.launch(config) }.map_err(failed("launching a sweep"))?;
        }
        let mut found =
            SweepCells { numbers: vec![0.0; 4 * places as usize], counts: vec![0; 5 * places as usize] };
        self.bring(&numbers, &mut found.numbers)?;
        self.bring(&counts, &mut found.counts)?;
        Ok(found)
    }
}

fn check(bars: &SweepBars<'_>, jobs: &[SweepJob], cells: u32, all: u64) -> Result<(), DeviceError> {
    let long = |what, length: usize| DeviceError::shape(what, length, Some(all));
    long("ahead", bars.ahead.len())?;
    // Every cell is written by one parameter, so that none is left as it was.
    let mut written = vec![false; cells as usize];
    for job in jobs {
        let specs = job.places.len() as u64;
        let windows = if job.kind == SweepKind::Macd { 3 } else { 1 };
        DeviceError::shape("windows", job.windows.len(), product(&[specs, windows]))?;
        for &place in &job.places {
            match written.get_mut(place as usize) {
                Some(free) if !*free => *free = true,
                _ => {
                    return Err(DeviceError::Shape {
                        what: "a place",
                        found: place.into(),
                        expected: cells.into(),
                    });
                }
            }
        }
        match job.kind {
            SweepKind::Ema | SweepKind::Macd => long("price", bars.price.len())?,
            SweepKind::Rsi => long("up", bars.up.len()).and_then(|()| long("down", bars.down.len()))?,
            SweepKind::Atr => {
                long("range", bars.range.len()).and_then(|()| long("change", bars.change.len()))?
            }
            SweepKind::Bollinger => {
                long("close", bars.close.len()).and_then(|()| long("price", bars.price.len()))?;
                DeviceError::shape("deviations", job.deviations.len(), Some(specs))?;
            }
        }
    }
    let free = written.iter().filter(|written| !**written).count();
    DeviceError::shape("cells without a parameter", free, Some(0))
}
