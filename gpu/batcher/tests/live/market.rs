//! Bars, what the commands over files make of them, and what the batcher does.

use std::collections::BTreeMap;
use tidegate_batcher::{
    Batcher, ClassSpec, Compute, CrossOptions, Feeder, GpuPolicy, Options, Pushed, RiskSpec, SpectrumSpec,
    Started, Stats, SurfaceSpec, SweepSpec, Tail, Waited, Window,
};
use tidegate_gpu::philox::philox4x32;
use tidegate_gpu::sweep::{SweepRequest, SweepSeries};
use tidegate_gpu::{Backend, Cpu};
use tidegate_regime::CrossSection;

/// Bars of each row by their end: high, low, close.
pub(crate) type Bars = BTreeMap<u32, BTreeMap<u64, [i64; 3]>>;

/// A walk of each row over `steps` times; some rows begin late, and now and then one has no bar.
pub(crate) fn bars(seed: u32, rows: u32, steps: u64) -> Bars {
    let mut found = Bars::new();
    for row in 0..rows {
        let mut price = 50_000_000_000i64 + i64::from(row) * 7_000_000_000;
        let own = found.entry(row).or_default();
        for step in 0..steps {
            let [a, b, c, d] = philox4x32([step as u32, row, 0, 3], [seed, 9]);
            if step < u64::from(row % 3) || d % 7 == 0 {
                continue;
            }
            let market = philox4x32([step as u32, 1 << 20, 0, 3], [seed, 9])[0];
            price += (i64::from(a % 2_000_001) - 1_000_000) * 150
                + (i64::from(market % 2_000_001) - 1_000_000) * 200;
            if d % 11 == 0 {
                price += price % 3;
            }
            let (high, low) = (price + i64::from(b % 90_000_000), price - i64::from(c % 90_000_000));
            own.insert(1_000 * (step + 1), [high, low, price]);
        }
    }
    found
}

pub(crate) fn window(row: u32, close_ts: u64, [high, low, close]: [i64; 3]) -> Window {
    Window { row, close_ts, high, low, close }
}

/// All of them, by time and row.
pub(crate) fn windows(bars: &Bars) -> Vec<Window> {
    let mut found: Vec<Window> = bars
        .iter()
        .flat_map(|(&row, own)| own.iter().map(move |(&end, &bar)| window(row, end, bar)))
        .collect();
    found.sort_by_key(|window| (window.close_ts, window.row));
    found
}

pub(crate) fn sweep_specs() -> Vec<SweepSpec> {
    let mut specs: Vec<SweepSpec> = (2..=20).map(|window| SweepSpec::Rsi { window }).collect();
    specs.extend((1..5).map(|window| SweepSpec::Ema { window: 3 * window }));
    specs.extend([2, 7].map(|window| SweepSpec::Atr { window }));
    specs.extend([
        SweepSpec::Macd { fast: 3, slow: 7, signal: 4 },
        SweepSpec::Bollinger { window: 5, deviations: 2.0 },
    ]);
    specs
}

/// Its place among [`classes`].
pub(crate) const SURFACE: usize = 0;

pub(crate) fn classes(rows: u32, history: usize) -> Vec<ClassSpec> {
    let members: Vec<u32> = (0..rows).collect();
    let class = |name: &str, members: &[u32], compute| ClassSpec {
        name: name.to_owned(),
        members: members.to_vec(),
        compute,
    };
    let surface = SurfaceSpec { specs: sweep_specs(), history };
    let options = CrossOptions { rows: 6, shrink: 0.2 };
    let risk = RiskSpec {
        weights: (1..rows).map(|row| 0.1 + f64::from(row % 4) / 10.0).collect(),
        factors: 2,
        horizon_bars: 10.0,
        paths: 1_000,
        tail: Tail::StudentT { freedom: 5 },
        levels: vec![0.9, 0.95],
        seed: 3,
        history: 30,
        least: 3,
    };
    vec![
        class("surface", &members, Compute::Surface(surface)),
        class("spectrum", &members, Compute::Spectrum(SpectrumSpec { options, leading: 3 })),
        // Not all of them, and not the first.
        class("risk", &members[1..], Compute::Risk(risk)),
    ]
}

/// A line by class, row (0 where there is none) and time, as bits.
pub(crate) type Lines = BTreeMap<(usize, u32, u64), Vec<u64>>;

pub(crate) fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| if value.is_nan() { 0x7ff8 << 48 } else { value.to_bits() }).collect()
}

/// What the commands over files give for each beginning of these bars.
pub(crate) fn of_files(bars: &Bars, classes: &[ClassSpec]) -> Lines {
    let mut lines = Lines::new();
    let cpu = Cpu::new(1).unwrap();
    for (class, spec) in classes.iter().enumerate() {
        let own: Vec<&BTreeMap<u64, [i64; 3]>> = spec.members.iter().map(|row| &bars[row]).collect();
        match &spec.compute {
            Compute::Surface(surface) => {
                for (&row, own) in spec.members.iter().zip(&own) {
                    surfaces(&mut lines, &cpu, (class, row), own, &surface.specs);
                }
            }
            Compute::Spectrum(spectrum) => {
                let mut cross = CrossSection::new(own.len(), spectrum.options).unwrap();
                for (end, row) in log_returns(&own) {
                    let Some(reading) = cross.update(&row).unwrap() else { continue };
                    let mut line = vec![
                        reading.symbols as f64,
                        reading.correlation,
                        reading.mode_share,
                        reading.effective_rank,
                        reading.absorption,
                        reading.turbulence.unwrap_or(f64::NAN),
                    ];
                    line.extend(&cross.eigenvalues()[..spectrum.leading.min(cross.eigenvalues().len())]);
                    line.resize(6 + spectrum.leading, f64::NAN);
                    lines.insert((class, 0, end), bits(&line));
                }
            }
            Compute::Risk(risk) => risks(&mut lines, &cpu, class, &own, risk),
        }
    }
    lines
}

fn surfaces(
    lines: &mut Lines,
    cpu: &Cpu,
    (class, row): (usize, u32),
    own: &BTreeMap<u64, [i64; 3]>,
    specs: &[SweepSpec],
) {
    let column = |which: usize| own.values().map(|bar| bar[which]).collect::<Vec<i64>>();
    let (high, low, close) = (column(0), column(1), column(2));
    let series: Vec<_> = (1..=close.len())
        .map(|len| SweepSeries { high: &high[..len], low: &low[..len], close: &close[..len] })
        .collect();
    if series.is_empty() {
        return;
    }
    let cells = cpu.sweep(&SweepRequest { series: &series, specs, horizon: 1 }).unwrap();
    for (&end, cells) in own.keys().zip(&cells) {
        let values = specs.iter().zip(cells).flat_map(|(spec, cell)| &cell.values[..spec.columns()]);
        lines.insert((class, row, end), bits(&values.copied().collect::<Vec<f64>>()));
    }
}

/// As `tidegate spectrum` takes them from files.
fn log_returns(own: &[&BTreeMap<u64, [i64; 3]>]) -> Vec<(u64, Vec<f64>)> {
    let mut times: Vec<u64> = own.iter().flat_map(|bars| bars.keys().copied()).collect();
    times.sort_unstable();
    times.dedup();
    let mut prices = vec![f64::NAN; own.len()];
    let mut rows = Vec::new();
    for time in times {
        let mut row = vec![f64::NAN; own.len()];
        for (symbol, bars) in own.iter().enumerate() {
            let before = prices[symbol];
            if let Some(bar) = bars.get(&time) {
                prices[symbol] = bar[2] as f64;
            }
            row[symbol] = libm::log(prices[symbol] / before);
        }
        rows.push((time, row));
    }
    rows
}

/// As `tidegate risk` takes them from files that end at each time.
fn risks(lines: &mut Lines, cpu: &Cpu, class: usize, own: &[&BTreeMap<u64, [i64; 3]>], risk: &RiskSpec) {
    let firsts: Option<Vec<u64>> = own.iter().map(|bars| bars.keys().next().copied()).collect();
    let Some(first) = firsts.and_then(|firsts| firsts.into_iter().max()) else { return };
    let whole: Vec<(u64, Vec<f64>)> = log_returns(own).into_iter().filter(|(end, _)| *end > first).collect();
    for len in risk.least..=whole.len() {
        let rows = &whole[len.saturating_sub(risk.history)..len];
        let returns: Vec<f64> = rows.iter().flat_map(|(_, row)| row.iter().copied()).collect();
        let request = tidegate_gpu::risk::RiskRequest {
            returns: &returns,
            weights: &risk.weights,
            factors: risk.factors,
            horizon_bars: risk.horizon_bars,
            paths: risk.paths,
            tail: risk.tail,
            levels: &risk.levels,
            seed: risk.seed,
        };
        let report = cpu.risk(&request).unwrap();
        let mut line = vec![rows.len() as f64, report.mean, report.deviation, report.worst];
        line.extend(&report.explained);
        for level in &report.levels {
            let (low, high) = level.var_interval;
            line.extend([level.var, low, high, level.shortfall, level.shortfall_error]);
            line.extend(&level.parts);
        }
        lines.insert((class, 0, whole[len - 1].0), bits(&line));
    }
}

/// What came out of a batcher.
pub(crate) struct Found {
    pub(crate) lines: Lines,
    pub(crate) stats: Stats,
    /// Devices that results say they were computed on.
    pub(crate) devices: Vec<&'static str>,
}

/// Starts a batcher, has `push` push, and takes every result until its end.
pub(crate) fn run(
    classes: &[ClassSpec],
    options: Options,
    policy: GpuPolicy,
    push: impl FnOnce(Vec<Feeder>) + Send,
) -> Found {
    let Started { feeders, mut results, stats, handle } =
        Batcher::start(classes.to_vec(), options, policy).unwrap();
    let mut lines = Lines::new();
    let mut devices = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| push(feeders));
        loop {
            while results.next(|outcome| {
                assert_eq!(outcome.gaps, 0);
                devices.push(outcome.derived.device);
                let width = classes[outcome.class].width();
                assert_eq!((width, width * outcome.times.len()), (outcome.width, outcome.values.len()));
                for (row, end, values) in outcome.lines() {
                    assert_eq!(row.is_some(), matches!(classes[outcome.class].compute, Compute::Surface(_)));
                    lines.insert((outcome.class, row.unwrap_or(0), end), bits(values));
                }
            }) {}
            match results.wait(std::time::Duration::from_secs(120)) {
                Waited::Ready => {}
                Waited::Ended => break,
                Waited::TimedOut => panic!("no result: {:?}", stats.class(0)),
            }
        }
    });
    drop(results);
    assert!(handle.join());
    Found { lines, stats, devices }
}

pub(crate) fn take(pushed: Pushed) {
    assert_eq!(pushed, Pushed::Taken);
}

#[track_caller]
pub(crate) fn equal(found: &Lines, wanted: &Lines) {
    for (key, values) in wanted {
        let own = found.get(key).unwrap_or_else(|| panic!("{key:?} is missing"));
        let at = own.iter().zip(values).position(|(a, b)| a != b);
        if let Some(at) = at {
            panic!("{key:?}, value {at}: {} for {}", f64::from_bits(own[at]), f64::from_bits(values[at]));
        }
    }
    assert_eq!(found.len(), wanted.len(), "{:?}", found.keys().find(|key| !wanted.contains_key(key)));
}
