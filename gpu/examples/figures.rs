//! Times the batches on one core: `cargo run --release -p tidegate-gpu --example figures`. Best of several runs each.

use std::hint::black_box;
use std::time::Instant;
use tidegate_gpu::changes::{ChangeBank, ChangeOptions};
use tidegate_gpu::correlation::EwCorrelation;
use tidegate_gpu::hmm::{FitRequest, HmmBank, HmmModels};
use tidegate_gpu::options::{Market, OptionBatch, Payoff};
use tidegate_gpu::philox::philox4x32;
use tidegate_gpu::portfolio::Assets;
use tidegate_gpu::qp::{Aim, LongOnlyBatch};
use tidegate_gpu::risk::{RiskRequest, Tail};
use tidegate_gpu::sweep::{SweepRequest, SweepSeries, SweepSpec};
use tidegate_gpu::window::WindowRequest;
use tidegate_gpu::{Backend, Cpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpu = Cpu::new(1)?;
    let unit = |at: usize, of: u32| f64::from(philox4x32([at as u32, of, 0, 0], [1, 2])[0]) / 4_294_967_296.0;

    let bars = 100_000;
    let mut price = 1e11;
    let close: Vec<i64> = (0..bars)
        .map(|at| {
            price *= 1.0 + 1e-3 * (unit(at, 0) - 0.5);
            price as i64
        })
        .collect();
    let high: Vec<i64> = close.iter().map(|close| close + 20_000_000).collect();
    let low: Vec<i64> = close.iter().map(|close| close - 20_000_000).collect();
    let series = [SweepSeries { high: &high, low: &low, close: &close }];
    type Make = fn(u32) -> SweepSpec;
    let kinds: [(&str, Make); 5] = [
        ("sweep_ema", |window| SweepSpec::Ema { window }),
        ("sweep_rsi", |window| SweepSpec::Rsi { window }),
        ("sweep_atr", |window| SweepSpec::Atr { window }),
        ("sweep_macd", |fast| SweepSpec::Macd { fast, slow: fast + 14, signal: 9 }),
        ("sweep_bollinger", |window| SweepSpec::Bollinger { window, deviations: 2.0 }),
    ];
    for (name, kind) in kinds {
        let specs: Vec<SweepSpec> = (5..69).map(kind).collect();
        let request = SweepRequest { series: &series, specs: &specs, horizon: 5 };
        let seconds = best(7, || {
            let _ = black_box(cpu.sweep(&request));
        });
        println!("{name}: {:.3} ns per bar and parameter", seconds * 1e9 / (bars * specs.len()) as f64);
    }

    banks(&cpu, &unit)?;

    let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.0, volatility: 0.2, years: 0.5 };
    let payoffs = [Payoff::Call { strike: 40.0 }];
    let batch = OptionBatch { market, payoffs: &payoffs, paths: 1_000_000, steps: 252, seed: 1 };
    let seconds = best(5, || {
        let _ = black_box(cpu.price(&batch));
    });
    println!("paths_1m_x_252: {:.1} ms, {:.2} ns per step", seconds * 1e3, seconds * 1e9 / 252e6);

    let symbols = 2_048;
    let row: Vec<f64> = (0..symbols).map(|at| 1e-3 * (unit(at, 1) - 0.5)).collect();
    let mut kept = EwCorrelation::new(symbols, 0.97)?;
    // The first row is only the mean.
    kept.update(&vec![0.0; symbols])?;
    let seconds = cpu.install(|| {
        best(200, || {
            let _ = black_box(kept.update(black_box(&row)));
        })
    });
    println!("correlation_rank1_2048: {:.3} ms", seconds * 1e3);
    let correlation = kept.correlation();
    let seconds = best(3, || {
        let _ = black_box(cpu.leading(&correlation, 4));
    });
    println!("leading_4_of_2048: {:.1} ms", seconds * 1e3);
    let values: Vec<f64> = (0..512 * symbols).map(|at| 1e-3 * (unit(at, 2) - 0.5)).collect();
    let window = WindowRequest { values: &values, symbols };
    let seconds = best(3, || {
        let _ = black_box(cpu.window_correlation(&window));
    });
    println!("correlation_window_512_2048: {:.1} ms", seconds * 1e3);

    for count in [100, 1_000] {
        let load = |asset: usize, factor: u32| 0.02 * (unit(asset, factor) - 0.3);
        let mut covariances = vec![0.0; count * count];
        for row in 0..count {
            for column in 0..count {
                covariances[row * count + column] = (2..10).map(|f| load(row, f) * load(column, f)).sum();
            }
            covariances[row * count + row] += 1e-4 * (0.5 + unit(row, 30));
        }
        let means: Vec<f64> = (0..count).map(|asset| 1e-3 * unit(asset, 31)).collect();
        let assets = Assets::new(&means, &covariances)?;
        let seconds = best(10, || {
            let _ = black_box(assets.optimum(4.0));
        });
        println!("mean_variance_{count}: {:.2} ms", seconds * 1e3);
        if count == 100 {
            let seconds = best(3, || {
                let _ = black_box(assets.long_only(Some(5e-4)));
            });
            println!("long_only_{count}: {:.2} ms", seconds * 1e3);
        }
        // From portfolios of a few assets to nearly that of least variance.
        let aversions: Vec<f64> = (0..count).map(|at| 0.5 * 400f64.powf(at as f64 / count as f64)).collect();
        let batch = LongOnlyBatch { assets: &assets, aim: Aim::Aversions(&aversions), steps: 200 };
        let start = Instant::now();
        let found = cpu.long_only(&batch)?;
        let seconds = start.elapsed().as_secs_f64();
        let held =
            found.portfolios.iter().flat_map(|one| &one.weights).filter(|weight| **weight > 0.0).count();
        println!(
            "long_only_batch_{count}: {count} portfolios in {seconds:.2} s, {:.2} ms each; {} steps, {} held each, {} by interior point",
            seconds * 1e3 / count as f64,
            found.steps,
            held / count,
            found.interior
        );
    }

    let assets = 100;
    let returns: Vec<f64> = (0..500 * assets).map(|at| 1e-3 * (unit(at, 40) - 0.5)).collect();
    let weights = vec![0.01; assets];
    let request = RiskRequest {
        returns: &returns,
        weights: &weights,
        factors: 3,
        horizon_bars: 10.0,
        paths: 1_000_000,
        tail: Tail::StudentT { freedom: 5 },
        levels: &[0.95, 0.99],
        seed: 1,
    };
    let seconds = best(2, || {
        let _ = black_box(cpu.risk(&request));
    });
    println!("risk_1m_x_100: {:.2} s, {:.2} ns per path and asset", seconds, seconds * 1e9 / 1e8);
    Ok(())
}

/// Regimes and change points of many series at once.
fn banks(cpu: &Cpu, unit: &dyn Fn(usize, u32) -> f64) -> Result<(), Box<dyn std::error::Error>> {
    let (series, rows, states) = (256, 2_000, 4);
    let values: Vec<f64> =
        (0..series * rows).map(|at| unit(at, 50) + f64::from(at as u32 / series as u32 / 100 % 4)).collect();
    let transition: Vec<f64> =
        (0..series * 16).map(|at| if at % 16 / 4 == at % 4 { 0.97 } else { 0.01 }).collect();
    let means: Vec<f64> = (0..series * states).map(|at| (at % states) as f64 + 0.5).collect();
    let (initial, deviations) = (vec![0.25; series * states], vec![0.3; series * states]);
    let models = HmmModels {
        states,
        initial: &initial,
        transition: &transition,
        means: &means,
        deviations: &deviations,
    };
    let mut bank = HmmBank::new(&models)?;
    let seconds = best(5, || {
        let _ = black_box(cpu.hmm_filter(&mut bank, &values));
    });
    println!("hmm_filter_4: {:.2} ns per step", seconds * 1e9 / (series * rows) as f64);
    let (few, iterations, restarts) = (&values[..series * 500], 5, 2);
    let request =
        FitRequest { values: few, series, states, iterations, restarts, deviation_floor: 1e-3, seed: 1 };
    let seconds = best(2, || {
        let _ = black_box(cpu.hmm_fit(&request));
    });
    let steps = few.len() * restarts * iterations as usize;
    println!("hmm_fit_4: {:.1} ns per step and iteration", seconds * 1e9 / steps as f64);
    let mut bank = ChangeBank::new(series, ChangeOptions::default())?;
    let some = &values[..series * 40];
    let seconds = best(2, || {
        let _ = black_box(cpu.change_points(&mut bank, some));
    });
    println!("change_points_512: {:.2} us per series and step", seconds * 1e6 / some.len() as f64);
    Ok(())
}

/// Seconds of the fastest of `runs`.
fn best(runs: usize, mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}
