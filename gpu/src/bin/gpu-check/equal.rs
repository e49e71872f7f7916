//! Batches of random shapes on a device beside the CPU, to the bit.

use crate::inputs::Random;
use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hasher};
use tidegate_gpu::changes::{ChangeBank, ChangeOptions};
use tidegate_gpu::correlation::{EwCorrelation, RollingCorrelation};
use tidegate_gpu::hmm::{FitRequest, HmmBank};
use tidegate_gpu::options::{Market, OptionBatch, Payoff};
use tidegate_gpu::qp::{Aim, LongOnlyBatch};
use tidegate_gpu::risk::{RiskRequest, Tail};
use tidegate_gpu::sweep::{SweepPath, SweepRequest, SweepSeries, SweepSpec};
use tidegate_gpu::window::WindowRequest;
use tidegate_gpu::{Accel, Backend, BatchError, Cpu};

/// Rounds, each with inputs of its own.
const ROUNDS: u32 = 6;

/// A result's digest: floats are written so that they read back to the same bits.
pub(crate) fn digest(result: &dyn Debug) -> u64 {
    struct Into(DefaultHasher);
    impl Write for Into {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hasher = Into(DefaultHasher::new());
    write!(hasher, "{result:?}").expect("a hasher takes any text");
    hasher.0.finish()
}

/// Names of the batches that differ, and how.
pub(crate) fn compare(accel: &Accel, cpu: &Cpu, small: bool, seed: u32) -> Result<Vec<String>, String> {
    let mut differ = Vec::new();
    for round in 0..if small { 1 } else { ROUNDS } {
        let random = Random { seed: seed.wrapping_add(round.wrapping_mul(0x9e37_79b9)) };
        let batches = |backend: &dyn Backend| {
            let wrong = |error: BatchError| format!("round {round}: {error}");
            Ok::<_, String>(
                [
                    series(backend, random, small).map_err(wrong)?,
                    matrices(backend, random, small).map_err(wrong)?,
                ]
                .concat(),
            )
        };
        for ((name, found), (_, wanted)) in batches(accel)?.into_iter().zip(batches(cpu)?) {
            if found != wanted {
                differ.push(format!("{name} in round {round} of seed {seed}"));
            }
        }
    }
    Ok(differ)
}

type Digests = Vec<(&'static str, u64)>;

fn series(backend: &dyn Backend, random: Random, small: bool) -> Result<Digests, BatchError> {
    let mut found = Digests::new();
    let most = |whole: usize, little: usize| if small { little } else { whole };
    let pick = |of, least, most| random.pick(of, least, most);

    let market = Market {
        spot: 10.0 + 90.0 * random.unit(0, 0),
        rate: 0.1 * random.unit(1, 0),
        dividend_yield: 0.05 * random.unit(2, 0),
        volatility: 0.1 + 0.5 * random.unit(3, 0),
        years: 0.1 + 2.0 * random.unit(4, 0),
    };
    let payoffs = [
        Payoff::Call { strike: market.spot * (0.5 + random.unit(5, 0)) },
        Payoff::Put { strike: market.spot * 0.3 },
        Payoff::GeometricAsianCall { strike: market.spot },
    ];
    let (paths, steps) = (pick(1, 1_000, most(20_000, 2_000)) as u64, pick(2, 1, 40) as u32);
    let batch = OptionBatch { market, payoffs: &payoffs, paths, steps, seed: random.seed.into() };
    found.push(("paths", digest(&backend.price(&batch)?)));

    let closes: Vec<Vec<i64>> = (0..pick(3, 1, 9)).map(|at| random.closes(1 + 211 * at, at as u32)).collect();
    let high: Vec<Vec<i64>> =
        closes.iter().map(|row| row.iter().map(|close| close + close / 300).collect()).collect();
    let rows: Vec<_> =
        closes.iter().zip(&high).map(|(close, high)| SweepSeries { high, low: close, close }).collect();
    let window = |at: u32| 1 + (random.unit(at as usize, 4) * 60.0) as u32;
    let mut specs: Vec<SweepSpec> = (0..40).map(|at| SweepSpec::Ema { window: window(at) }).collect();
    specs.extend((40..60).map(|at| SweepSpec::Rsi { window: window(at) }));
    specs.extend((60..80).map(|at| SweepSpec::Atr { window: window(at) }));
    specs.extend((80..90).map(|at| SweepSpec::Macd { fast: window(at), slow: window(at) + 7, signal: 9 }));
    specs.extend((90..99).map(|at| SweepSpec::Bollinger { window: window(at), deviations: 1.5 }));
    let horizon = pick(5, 1, 12) as u32;
    let request = SweepRequest { series: &rows, specs: &specs, horizon };
    found.push(("sweep", digest(&backend.sweep(&request)?)));
    // From guesses that are never right to such that always are.
    let path = SweepPath::Stretches { length: 256, warm: pick(6, 0, most(3_000, 300)) as u32 };
    found.push(("sweep by stretches", digest(&backend.sweep_by(&request, path)?)));

    let assets = pick(6, 2, 40);
    let (returns, weights) = (random.many(60 * assets, 7, 0.02), random.many(assets, 8, 1.0));
    for tail in [Tail::Normal, Tail::StudentT { freedom: pick(9, 3, 9) as u32 }] {
        let request = RiskRequest {
            returns: &returns,
            weights: &weights,
            factors: pick(10, 1, assets.min(9)),
            horizon_bars: 5.0,
            paths: pick(11, 1_000, most(9_000, 1_500)) as u64,
            tail,
            levels: &[0.9, 0.95],
            seed: random.seed.into(),
        };
        found.push(("losses", digest(&backend.risk(&request)?)));
    }

    let series = pick(12, 1, most(200, 20));
    let mut values = random.many(series * 90, 13, 1.0);
    values
        .iter_mut()
        .enumerate()
        .for_each(|(at, value)| *value += if at / series % 30 < 11 { 0.0 } else { 2.0 });
    for states in 2..=4 {
        let (iterations, restarts, deviation_floor) = (3, 2, 1e-3);
        let seed = random.seed.into();
        let request =
            FitRequest { values: &values, series, states, iterations, restarts, deviation_floor, seed };
        let fitted = backend.hmm_fit(&request)?;
        found.push(("hmm_fit", digest(&fitted)));
        let mut bank = HmmBank::new(&fitted.models())?;
        backend.hmm_filter(&mut bank, &values)?;
        found.push(("hmm_filter", digest(&bank)));
    }
    let options = ChangeOptions { runs: 32 * pick(14, 1, most(32, 4)), ..ChangeOptions::default() };
    let mut bank = ChangeBank::new(series, options)?;
    found.push(("change_points", digest(&backend.change_points(&mut bank, &values[..40 * series])?)));
    found.push(("change_points", digest(&bank)));
    Ok(found)
}

fn matrices(backend: &dyn Backend, random: Random, small: bool) -> Result<Digests, BatchError> {
    let mut found = Digests::new();
    let pick = |of, least, most| random.pick(of, least, most);
    let most = |whole: usize, little: usize| if small { little } else { whole };
    let symbols = pick(20, 2, most(260, 70));
    let rows = pick(21, 2, 70);
    let mut values = random.many(rows * symbols, 22, 1.0);
    values.iter_mut().skip(symbols / 2).step_by(symbols).for_each(|value| *value = 3.5);
    let mut kept = EwCorrelation::new(symbols, 0.94)?;
    backend.correlate(&mut kept, &values)?;
    found.push(("rank1", digest(&kept)));
    let mut rolling = RollingCorrelation::new(symbols, pick(23, 2, 90))?;
    for rows in [&values[..symbols], &values[symbols..]] {
        backend.roll(&mut rolling, rows)?;
        found.push(("roll", digest(&rolling)));
    }
    let request = WindowRequest { values: &values, symbols };
    let correlation = backend.window_correlation(&request)?;
    found.push(("window", digest(&correlation)));
    let count = pick(24, 1, symbols.min(6));
    found.push(("window and lanczos", digest(&backend.window_spectrum(&request, count)?)));
    found.push(("lanczos", digest(&backend.leading(&rolling.correlation(), count)?)));

    let assets = random.assets(pick(25, 1, most(150, 40)));
    let count = assets.means().len();
    let aversions: Vec<f64> =
        (0..pick(26, 1, most(140, 70))).map(|at| 0.1 * 1.1f64.powi(at as i32)).collect();
    let (returns, steps) = (random.many(3 * count, 27, 1e-3), most(60, 10) as u32);
    for aim in [Aim::Aversions(&aversions), Aim::Views { returns: &returns, aversion: 3.0 }] {
        found.push(("admm", digest(&backend.long_only(&LongOnlyBatch { assets: &assets, aim, steps })?)));
    }
    let middle = assets.means().iter().sum::<f64>() / count as f64;
    let batch = LongOnlyBatch { assets: &assets, aim: Aim::Means(&[middle]), steps };
    found.push(("admm", digest(&backend.long_only(&batch)?)));
    Ok(found)
}
