//! How long kernels take, by the device's clock, beside what they should and the least that they could.
//!
//! Floors are computed for an H200 from the work itself: 33.5e12 lane instructions a second, half of that in double precision, and
//! 4.3e12 bytes a second of memory. Copies over the link are not in a figure.

use crate::equal::digest;
use crate::inputs::Random;
use rayon::prelude::*;
use std::fmt::Debug;
use std::time::Instant;
use tidegate_gpu::changes::{ChangeBank, ChangeOptions};
use tidegate_gpu::correlation::{EwCorrelation, RollingCorrelation};
use tidegate_gpu::hmm::FitRequest;
use tidegate_gpu::options::{Market, OptionBatch, Payoff};
use tidegate_gpu::qp::{Aim, LongOnlyBatch};
use tidegate_gpu::sweep::{SweepPath, SweepRequest, SweepSeries, SweepSpec};
use tidegate_gpu::window::WindowRequest;
use tidegate_gpu::{Accel, Backend, BatchError, Cpu, KernelTime};

const LANES: f64 = 33.5e12;
const DOUBLES: f64 = LANES / 2.0;
const BYTES: f64 = 4.3e12;
/// Operations a second of one thread, each of which waits for the one before: 4 cycles at 1.98 GHz.
const IN_TURN: f64 = 0.495e9;
/// A figure's runs end when this much time went by, after the first two.
const SECONDS_MOST: f64 = 15.0;
/// Most runs of a figure.
const RUNS: usize = 11;

/// First lines of the table.
pub(crate) const HEAD: &str = "\
| work | goal | floor, computed | measured | CPU path, whole batch | CPU's bits |
|---|---|---|---|---|---|
";

/// What was measured.
pub(crate) struct Figure {
    pub(crate) name: String,
    /// Milliseconds.
    pub(crate) goal: Option<f64>,
    pub(crate) floor: f64,
    pub(crate) measured: f64,
    pub(crate) cpu: f64,
    pub(crate) equal: bool,
}

impl Figure {
    pub(crate) fn row(&self) -> String {
        let met = match self.goal {
            Some(goal) if self.measured <= goal => ", met",
            Some(_) => ", MISSED",
            None => "",
        };
        let goal = self.goal.map_or("none".to_owned(), time);
        let equal = if self.equal { "yes" } else { "NO" };
        let [floor, measured, cpu] = [self.floor, self.measured, self.cpu].map(time);
        format!("| {} | {goal} | {floor} | {measured}{met} | {cpu} | {equal} |\n", self.name)
    }
}

/// Three digits with a unit.
fn time(milliseconds: f64) -> String {
    let (value, unit) = match milliseconds {
        ms if ms < 1.0 => (ms * 1e3, "us"),
        ms if ms < 1e3 => (ms, "ms"),
        ms => (ms / 1e3, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

struct Bench<'a> {
    accel: &'a Accel,
    cpu: &'a Cpu,
    runs: usize,
    found: Vec<Figure>,
}

impl Bench<'_> {
    /// Runs a batch on the device again and again, and once on the CPU. A figure is the median over runs of the time in kernels, of one
    /// step where `each` is set.
    fn take<R: Debug>(
        &mut self,
        name: String,
        goal: Option<f64>,
        floor: f64,
        each: bool,
        batch: impl Fn(&dyn Backend) -> Result<R, BatchError>,
    ) -> Result<(), String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let begun = Instant::now();
        let (mut times, mut digests) = (Vec::new(), Vec::new());
        while times.len() < 2 || times.len() < self.runs && begun.elapsed().as_secs_f64() < SECONDS_MOST {
            let run =
                self.accel.profiled(|| batch(self.accel)).ok_or(format!("{name}: the device is gone"))?;
            let (result, kernels) = run.map_err(|error| wrong(&error))?;
            digests.push(digest(&result.map_err(|error| wrong(&error))?));
            times.push(of_kernels(&kernels, each).ok_or(format!("{name}: no kernel ran"))?);
        }
        // The first run of all pays for what is loaded.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        let start = Instant::now();
        let wanted = batch(self.cpu).map_err(|error| wrong(&error))?;
        let cpu = start.elapsed().as_secs_f64() * 1e3;
        let wanted = digest(&wanted);
        let equal = digests.iter().all(|found| *found == wanted);
        self.found.push(Figure { name, goal, floor, measured: times[times.len() / 2], cpu, equal });
        Ok(())
    }
}

/// Milliseconds in all kernels of a run, or of one step of them.
fn of_kernels(kernels: &[KernelTime], each: bool) -> Option<f64> {
    let total: f64 = kernels.iter().map(|kernel| kernel.milliseconds).sum();
    let steps: u64 = kernels.iter().map(|kernel| kernel.steps).sum();
    match (steps, each) {
        (0, _) => None,
        (_, true) => Some(total / steps as f64),
        (_, false) => Some(total),
    }
}

/// The shapes of the goals, or small ones.
pub(crate) fn measure(accel: &Accel, cpu: &Cpu, small: bool, seed: u32) -> Result<Vec<Figure>, String> {
    let mut bench = Bench { accel, cpu, runs: if small { 2 } else { RUNS }, found: Vec::new() };
    let random = Random { seed };
    let of = |whole: usize, little: usize| if small { little } else { whole };
    sweep(&mut bench, random, of(2_048, 3), of(100_000, 90), of(64, 5))?;
    stretches(&mut bench, random, of(16, 2), of(1_000_000, 1_100), of(16, 3))?;
    regimes(&mut bench, random, of(2_000, 5), of(1_000, 12), of(16, 2), of(20, 2))?;
    changes(&mut bench, random, of(10_000, 2), of(512, 64))?;
    correlations(&mut bench, random, of(2_048, 70), of(512, 9), of(64, 3))?;
    paths(&mut bench, random, of(1_000_000, 5_000), of(252, 5))?;
    portfolios(&mut bench, random, of(1_000, 70), of(1_000, 66), of(200, 30))?;
    Ok(bench.found)
}

fn sweep(
    bench: &mut Bench<'_>,
    random: Random,
    symbols: usize,
    bars: usize,
    windows: usize,
) -> Result<(), String> {
    let closes: Vec<Vec<i64>> =
        (0..symbols).into_par_iter().map(|symbol| random.closes(bars, symbol as u32)).collect();
    let series: Vec<_> = closes.iter().map(|close| SweepSeries { high: close, low: close, close }).collect();
    let specs: Vec<SweepSpec> = (5..5 + windows as u32).map(|window| SweepSpec::Ema { window }).collect();
    // Difference, product and sum of the mean, and the comparison, all in double precision, and the tally.
    let work = (symbols * bars * windows) as f64;
    let request = SweepRequest { series: &series, specs: &specs, horizon: 5 };
    let name = format!("sweep, EMA with signals, {symbols} x {bars} x {windows}");
    bench.take(name, Some(0.8), work * 14.0 / DOUBLES * 1e3, false, |backend| backend.sweep(&request))
}

/// Few long series, in both ways.
fn stretches(
    bench: &mut Bench<'_>,
    random: Random,
    symbols: usize,
    bars: usize,
    windows: usize,
) -> Result<(), String> {
    let closes: Vec<Vec<i64>> =
        (0..symbols).into_par_iter().map(|symbol| random.closes(bars, 3_000 + symbol as u32)).collect();
    let series: Vec<_> = closes.iter().map(|close| SweepSeries { high: close, low: close, close }).collect();
    let specs: Vec<SweepSpec> = (5..5 + windows as u32).map(|window| SweepSpec::Ema { window }).collect();
    let request = SweepRequest { series: &series, specs: &specs, horizon: 5 };
    let shape = format!("EMA with signals, {symbols} x {bars} x {windows}");
    let arithmetic = |bars: f64| symbols as f64 * bars * windows as f64 * 14.0 / DOUBLES;
    // Difference, product and sum of the mean wait for each other, bar by bar.
    let turns = |bars: f64| 3.0 * bars / IN_TURN;
    let floor = turns(bars as f64).max(arithmetic(bars as f64)) * 1e3;
    bench.take(format!("sweep by lanes, {shape}"), None, floor, false, |backend| {
        backend.sweep_by(&request, SweepPath::Lanes)
    })?;
    // A stretch runs up over half a thousand bars. The gains of a cell are added up one after the other: a signal every tenth bar.
    let (length, warm) = if bars < 100_000 { (256, 200) } else { (7_936, 504) };
    let path = SweepPath::Stretches { length, warm };
    let (each, more) = (f64::from(length + warm), 1.0 + f64::from(warm) / f64::from(length));
    let floor = (turns(each).max(arithmetic(bars as f64 * more)) + bars as f64 * 0.1 / IN_TURN) * 1e3;
    let name = format!("sweep by stretches, {shape}");
    bench.take(name, Some(0.1), floor, false, |backend| backend.sweep_by(&request, path))
}

fn regimes(
    bench: &mut Bench<'_>,
    random: Random,
    series: usize,
    rows: usize,
    restarts: usize,
    iterations: usize,
) -> Result<(), String> {
    let mut values = random.many(series * rows, 30, 1.0);
    let shift = |at: usize| (at / series / 100 % 4) as f64;
    values.iter_mut().enumerate().for_each(|(at, value)| *value += shift(at));
    let (states, iterations) = (4, iterations as u32);
    let request = FitRequest {
        values: &values,
        series,
        states,
        iterations,
        restarts,
        deviation_floor: 1e-3,
        seed: random.seed.into(),
    };
    // Nine numbers per step are written forwards and read backwards, and read again by the step before.
    let steps = (series * rows * restarts) as f64 * f64::from(iterations);
    let name = format!("Baum-Welch, 4 states, {series} x {rows} x {iterations} iterations x {restarts}");
    bench.take(name, Some(20.0), steps * 8.0 * 24.0 / BYTES * 1e3, false, |backend| backend.hmm_fit(&request))
}

fn changes(bench: &mut Bench<'_>, random: Random, series: usize, runs: usize) -> Result<(), String> {
    let values = random.many(series, 31, 1.0);
    let options = ChangeOptions { runs, ..ChangeOptions::default() };
    // Four numbers per run length are read and written.
    let floor = (series * runs) as f64 * 64.0 / BYTES * 1e3;
    let name = format!("change points, {series} x {runs}, one step");
    bench.take(name, Some(0.03), floor, true, |backend| {
        let mut bank = ChangeBank::new(series, options)?;
        backend.change_points(&mut bank, &values)
    })
}

fn correlations(
    bench: &mut Bench<'_>,
    random: Random,
    symbols: usize,
    window: usize,
    rows: usize,
) -> Result<(), String> {
    let values = random.many(window.max(rows + 1) * symbols, 32, 1e-3);
    let entries = (symbols * (symbols + 1) / 2) as f64;
    let fresh = EwCorrelation::new(symbols, 0.97).map_err(|error| error.to_string())?;
    let name = format!("correlation, exponential, one row of {symbols}");
    bench.take(name, Some(0.012), entries * 8.0 / BYTES * 1e3, true, |backend| {
        let mut kept = fresh.clone();
        backend.correlate(&mut kept, &values[..(rows + 1) * symbols])?;
        Ok(kept.correlation())
    })?;
    let name = format!("correlation, window of {window} x {symbols} anew");
    let request = WindowRequest { values: &values[..window * symbols], symbols };
    bench.take(name, Some(0.09), entries * window as f64 / LANES * 1e3, true, |backend| {
        backend.window_correlation(&request)
    })?;
    let rolling = RollingCorrelation::new(symbols, window).map_err(|error| error.to_string())?;
    let name = format!("correlation, rolling, {rows} rows of {symbols} in one batch");
    let floor = (entries * 32.0 / BYTES).max(entries * 2.0 * rows as f64 / DOUBLES) * 1e3;
    bench.take(name, None, floor, true, |backend| {
        let mut rolling = rolling.clone();
        backend.roll(&mut rolling, &values[..rows * symbols])?;
        Ok(rolling.correlation())
    })?;
    let correlation = bench.cpu.window_correlation(&request).map_err(|error| error.to_string())?;
    let count = symbols.min(4);
    let name = format!("leading {count} eigenvalues of {symbols}, one step");
    bench.take(name, None, entries * 8.0 / BYTES * 1e3, true, |backend| backend.leading(&correlation, count))
}

fn paths(bench: &mut Bench<'_>, random: Random, paths: usize, steps: usize) -> Result<(), String> {
    let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.0, volatility: 0.2, years: 0.5 };
    let payoffs = [Payoff::Call { strike: 40.0 }];
    let batch = OptionBatch {
        market,
        payoffs: &payoffs,
        paths: paths as u64,
        steps: steps as u32,
        seed: random.seed.into(),
    };
    let name = format!("paths, {paths} x {steps}");
    // 48 issue slots per normal number: wide products run at half rate.
    let floor = (paths * steps) as f64 * 48.0 / 4.0 * 1.6 / LANES * 1e3;
    bench.take(name, Some(0.72), floor, false, |backend| backend.price(&batch))
}

fn portfolios(
    bench: &mut Bench<'_>,
    random: Random,
    assets: usize,
    count: usize,
    most: usize,
) -> Result<(), String> {
    let problem = random.assets(assets);
    let aversions: Vec<f64> = (0..count).map(|at| 0.5 * 400f64.powf(at as f64 / count as f64)).collect();
    let batch = LongOnlyBatch { assets: &problem, aim: Aim::Aversions(&aversions), steps: most as u32 };
    let steps = bench.cpu.long_only(&batch).map_err(|error| error.to_string())?.steps;
    let name = format!("long-only portfolios, {count} of {assets} assets, {steps} steps");
    let floor = (assets * assets * count) as f64 * f64::from(steps) / LANES * 1e3;
    bench.take(name, Some(15.0), floor, false, |backend| backend.long_only(&batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_rows_say_what_was_missed() {
        assert_eq!(
            [0.0042, 0.5, 7.25, 12.34, 456.7, 1_234.0].map(time),
            ["4.20 us", "500 us", "7.25 ms", "12.3 ms", "457 ms", "1.23 s"]
        );
        let kernels = [("a", 2, 3.0), ("b", 4, 3.0)].map(|(name, steps, milliseconds)| KernelTime {
            name,
            steps,
            milliseconds,
        });
        assert_eq!((of_kernels(&kernels, true), of_kernels(&kernels, false)), (Some(1.0), Some(6.0)));
        assert_eq!(of_kernels(&[], false), None);
        let mut figure = Figure {
            name: "x".to_owned(),
            goal: Some(1.0),
            floor: 0.5,
            measured: 0.9,
            cpu: 80.0,
            equal: true,
        };
        assert_eq!(figure.row(), "| x | 1.00 ms | 500 us | 900 us, met | 80.0 ms | yes |\n");
        (figure.measured, figure.equal) = (1.5, false);
        assert_eq!(figure.row(), "| x | 1.00 ms | 500 us | 1.50 ms, MISSED | 80.0 ms | NO |\n");
        figure.goal = None;
        assert!(figure.row().starts_with("| x | none | 500 us | 1.50 ms |"));
    }
}
