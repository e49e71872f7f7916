//! Indicators over symbols x parameters x bars: a thread per symbol and parameter, or one per stretch of a symbol's bars.

use super::{Device, THREADS, blocks, failed, product};
use crate::DeviceError;
use cudarc::driver::{CudaSlice, PushKernelArg};
use std::sync::atomic::{AtomicU64, Ordering};

/// Stretches are as many bars long as this, or a multiple of it.
pub const STRETCH_STEP: u64 = 256;
/// Words of a state in the kernels.
const STATE: u64 = 3;

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

impl SweepKind {
    /// Its kernels: bar by bar, stretch by stretch, and what joins stretches.
    const fn kernels(self) -> [&'static str; 3] {
        match self {
            Self::Ema => ["sweep_ema", "scan_ema", "join_ema"],
            Self::Rsi => ["sweep_rsi", "scan_rsi", "join_rsi"],
            Self::Macd => ["sweep_macd", "scan_macd", "join_macd"],
            Self::Atr => ["sweep_atr", "scan_atr", "join_atr"],
            Self::Bollinger => ["sweep_bollinger", "scan_bollinger", "join_bollinger"],
        }
    }
}

/// How a symbol's bars are cut, to be gone through side by side. No choice changes a bit of the results: a stretch that did not begin
/// with the state that the one before ended with is gone through again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretches {
    /// Bars of a stretch: a multiple of [`STRETCH_STEP`].
    pub length: u64,
    /// Bars before it over which it runs up from a guess.
    pub warm: u64,
    /// Bars at the beginning that no guess is made on, as indicators still fill up.
    pub filled: u64,
}

impl Stretches {
    /// Stretches of bars that symbols have from `starts[s]` to `starts[s + 1]`: where each symbol's begin, and whose each is; and how
    /// many numbers of eight bytes they take for so many parameters.
    fn cut(self, starts: &[u64], specs: u64) -> Result<Cut, DeviceError> {
        if self.length == 0 || !self.length.is_multiple_of(STRETCH_STEP) {
            let allowed = "a multiple of 256";
            return Err(DeviceError::NotCovered { what: "bars of a stretch", found: self.length, allowed });
        }
        let (mut firsts, mut owners) = (vec![0u64], Vec::new());
        for (symbol, pair) in starts.windows(2).enumerate() {
            let count = (pair[1] - pair[0]).div_ceil(self.length);
            owners.resize(owners.len() + count as usize, symbol as u32);
            firsts.push(owners.len() as u64);
        }
        let stretches = owners.len() as u64;
        let each = self.length / 32 + 2 * STATE;
        Ok(Cut { firsts, owners, room: product(&[stretches, specs, each]) })
    }
}

struct Cut {
    firsts: Vec<u64>,
    owners: Vec<u32>,
    room: Option<u64>,
}

/// Parameters of one indicator.
#[derive(Debug, Clone)]
pub struct SweepJob {
    /// Which.
    pub kind: SweepKind,
    /// How bars are cut; not at all when absent, nor where the memory is not enough for it.
    pub stretches: Option<Stretches>,
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
        let results = product(&[symbols, cells.into(), 10]);
        let given = product(&[all, 7]);
        self.fits(&[results, given])?;
        let places = symbols * u64::from(cells);
        let call = Call {
            starts: self.copy(bars.starts)?,
            price: self.copy(bars.price)?,
            ahead: self.copy(bars.ahead)?,
            up: self.copy(bars.up)?,
            down: self.copy(bars.down)?,
            range: self.copy(bars.range)?,
            change: self.copy(bars.change)?,
            close: self.copy(bars.close)?,
            symbols,
            horizon: bars.horizon,
            cells,
        };
        let mut out = Out {
            numbers: self.room::<f64>(4 * places)?,
            counts: self.room::<i64>(5 * places)?,
            again: self.room::<i64>(places)?,
        };
        let (mut stretches, mut joined) = (0, Vec::<u32>::new());
        for job in jobs {
            let cut = match job.stretches {
                Some(shape) => Some((shape, shape.cut(bars.starts, job.places.len() as u64)?)),
                None => None,
            };
            // What was allocated so far is no longer free.
            let room = match &cut {
                Some((_, cut)) => self.fits(&[cut.room]),
                None => Ok(()),
            };
            match (cut, room) {
                (Some((shape, cut)), Ok(())) => {
                    self.by_stretches(&call, job, shape, &cut, &mut out)?;
                    stretches += cut.owners.len() as u64 * job.places.len() as u64;
                    joined.extend(&job.places);
                }
                (None, _) | (_, Err(DeviceError::Memory { .. })) => self.by_lanes(&call, job, &mut out)?,
                (_, Err(error)) => return Err(error),
            }
        }
        let mut found =
            SweepCells { numbers: vec![0.0; 4 * places as usize], counts: vec![0; 5 * places as usize] };
        self.bring(&out.numbers, &mut found.numbers)?;
        self.bring(&out.counts, &mut found.counts)?;
        if !joined.is_empty() {
            let mut again = vec![0i64; places as usize];
            self.bring(&out.again, &mut again)?;
            let of = |sum: u64, symbol: &[i64]| {
                joined.iter().fold(sum, |sum, &place| sum.wrapping_add(symbol[place as usize] as u64))
            };
            let again = again.chunks(cells as usize).fold(0, of);
            self.stretches.computed.fetch_add(stretches, Ordering::Relaxed);
            self.stretches.again.fetch_add(again, Ordering::Relaxed);
        }
        Ok(found)
    }

    /// Stretches of sweeps since it was opened.
    #[must_use]
    pub fn stretches(&self) -> StretchCounts {
        let [computed, again] =
            [&self.stretches.computed, &self.stretches.again].map(|count| count.load(Ordering::Relaxed));
        StretchCounts { computed, again }
    }

    fn by_lanes(&self, of: &Call, job: &SweepJob, out: &mut Out) -> Result<(), DeviceError> {
        let specs = job.places.len() as u32;
        let (places, windows) = (self.copy(&job.places)?, self.copy(&job.windows)?);
        let deviations = self.copy(&job.deviations)?;
        let [name, ..] = job.kind.kernels();
        let mut call = self.call(name);
        call.arg(&of.starts).arg(&places).arg(&of.symbols).arg(&of.horizon).arg(&specs).arg(&of.cells);
        call.arg(&windows);
        match job.kind {
            SweepKind::Ema | SweepKind::Macd => call.arg(&of.price),
            SweepKind::Rsi => call.arg(&of.up).arg(&of.down),
            SweepKind::Atr => call.arg(&of.range).arg(&of.change),
            SweepKind::Bollinger => call.arg(&deviations).arg(&of.close).arg(&of.price),
        };
        call.arg(&of.ahead).arg(&mut out.numbers).arg(&mut out.counts);
        let config = blocks(of.symbols * u64::from(specs), THREADS)?;
        self.timed(name, 1, || {
            // SAFETY: every buffer the kind reads is as long as the bars, windows and places as the parameters, and every
            // place is below `cells`: `check` saw to it.
            unsafe { call.launch(config) }.map_err(failed("launching a sweep"))
        })
    }

    fn by_stretches(
        &self,
        of: &Call,
        job: &SweepJob,
        shape: Stretches,
        cut: &Cut,
        out: &mut Out,
    ) -> Result<(), DeviceError> {
        let specs = job.places.len() as u32;
        let (places, windows) = (self.copy(&job.places)?, self.copy(&job.windows)?);
        let deviations = self.copy(&job.deviations)?;
        let (firsts, owners) = (self.copy(&cut.firsts)?, self.copy(&cut.owners)?);
        let stretches = cut.owners.len() as u64;
        // The whole fits, so no part of it overflows.
        let states = stretches * u64::from(specs);
        let mut begins = self.room::<u64>(STATE * states)?;
        let mut ends = self.room::<u64>(STATE * states)?;
        let mut marks = self.room::<u64>(shape.length / 32 * states)?;
        let [_, scan, join] = job.kind.kernels();
        for (name, lanes) in [(scan, states), (join, of.symbols * u64::from(specs) * 32)] {
            let mut call = self.call(name);
            call.arg(&of.starts).arg(&firsts).arg(&of.symbols).arg(&shape.length);
            call.arg(&specs).arg(&windows);
            match job.kind {
                SweepKind::Ema | SweepKind::Macd => call.arg(&of.price),
                SweepKind::Rsi => call.arg(&of.up).arg(&of.down),
                SweepKind::Atr => call.arg(&of.range).arg(&of.change),
                SweepKind::Bollinger => call.arg(&deviations).arg(&of.close).arg(&of.price),
            };
            if name == scan {
                call.arg(&stretches).arg(&owners).arg(&shape.warm).arg(&shape.filled);
            } else {
                call.arg(&places).arg(&of.cells);
            }
            call.arg(&mut begins).arg(&mut ends).arg(&mut marks);
            if name == join {
                call.arg(&mut out.numbers).arg(&mut out.again);
            }
            let config = blocks(lanes, THREADS)?;
            self.timed(name, 1, || {
                // SAFETY: as above for what is read; `firsts` and `owners` are those of `starts` and the length, and states and marks
                // have room for each stretch and parameter. Blocks are of whole warps.
                unsafe { call.launch(config) }.map_err(failed("launching a sweep by stretches"))
            })?;
        }
        let mut call = self.call("scan_fold");
        call.arg(&of.starts).arg(&firsts).arg(&of.symbols).arg(&shape.length).arg(&specs);
        call.arg(&of.horizon).arg(&places).arg(&of.cells);
        call.arg(&marks).arg(&of.ahead).arg(&mut out.numbers).arg(&mut out.counts);
        let config = blocks(of.symbols * u64::from(specs) * 32, THREADS)?;
        self.timed("scan_fold", 1, || {
            // SAFETY: as above; the marks were all written, as every stretch is gone through.
            unsafe { call.launch(config) }.map_err(failed("launching scan_fold"))
        })
    }
}

/// What every job of a sweep reads.
struct Call {
    starts: CudaSlice<u64>,
    price: CudaSlice<f64>,
    ahead: CudaSlice<f64>,
    up: CudaSlice<f64>,
    down: CudaSlice<f64>,
    range: CudaSlice<f64>,
    change: CudaSlice<f64>,
    close: CudaSlice<i64>,
    symbols: u64,
    horizon: u64,
    cells: u32,
}

/// What every job of a sweep writes its cells of.
struct Out {
    numbers: CudaSlice<f64>,
    counts: CudaSlice<i64>,
    /// Stretches of each cell that were gone through again; written by jobs that have stretches.
    again: CudaSlice<i64>,
}

/// Stretches of sweeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StretchCounts {
    /// Stretches times parameters.
    pub computed: u64,
    /// Of these, how many had to be gone through again.
    pub again: u64,
}

#[derive(Debug, Default)]
pub(super) struct StretchTally {
    computed: AtomicU64,
    again: AtomicU64,
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
