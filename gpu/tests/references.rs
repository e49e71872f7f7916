//! Simulated values beside published ones: `data/pricing` and `data/portfolio` of the public data, which the variable
//! `TIDEGATE_DATA` names. Without them nothing is shown, and a line says so.

use std::path::PathBuf;
use tidegate_gpu::options::{Estimate, Market, OptionBatch, Payoff};
use tidegate_gpu::portfolio::Assets;
use tidegate_gpu::sobol::QuasiBatch;
use tidegate_gpu::{Backend, Cpu};

fn data() -> Option<PathBuf> {
    let usual = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let folder = std::env::var_os("TIDEGATE_DATA").map_or(usual, PathBuf::from);
    if !folder.is_dir() {
        println!("no public data at {}; set TIDEGATE_DATA", folder.display());
        return None;
    }
    Some(folder)
}

/// A row of `pricing/*.csv`: the market, the payoffs, and their values.
type Case = (Market, [Payoff; 3], [f64; 3]);

fn prices() -> Option<Vec<Case>> {
    let text = std::fs::read_to_string(data()?.join("pricing/black_scholes.csv")).unwrap();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let fields: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let named = |name: &str| fields[head.iter().position(|column| *column == name).unwrap()];
        let market = Market {
            spot: named("spot"),
            rate: named("rate"),
            dividend_yield: named("dividend_yield"),
            volatility: named("volatility"),
            years: named("years"),
        };
        let strike = named("strike");
        let payoffs =
            [Payoff::Call { strike }, Payoff::Put { strike }, Payoff::GeometricAsianCall { strike }];
        (market, payoffs, [named("call"), named("put"), named("geometric_asian_call")])
    };
    Some(lines.map(row).collect())
}

#[test]
fn intervals_hold_the_published_values_as_often_as_they_claim() {
    let Some(prices) = prices() else { return };
    let cpu = Cpu::new(0).unwrap();
    let (mut held, mut cases) = (0u32, 0u32);
    for seed in 0..20 {
        for (at, (market, payoffs, values)) in prices.iter().enumerate() {
            let seed = seed * 10_000 + at as u64;
            let batch = OptionBatch { market: *market, payoffs, paths: 4_096, steps: 4, seed };
            for (estimate, value) in cpu.price(&batch).unwrap().iter().zip(values) {
                // Less than a picounit of the spot, down to 1e-259 and 0: beyond the furthest shift, so that no path is paid.
                if *value < 1e-12 * market.spot {
                    continue;
                }
                let (low, high) = estimate.interval95();
                held += u32::from((low..=high).contains(value));
                cases += 1;
            }
        }
    }
    let share = f64::from(held) / f64::from(cases);
    println!("{held} of {cases} within the interval: {:.2} %", 100.0 * share);
    assert!((0.94..=0.96).contains(&share), "{held} of {cases}");
}

#[test]
fn quasi_random_values_are_within_a_ten_thousandth_of_the_spot() {
    let Some(prices) = prices() else { return };
    let mut worst = 0.0f64;
    for (market, payoffs, values) in &prices {
        let batch = QuasiBatch { market: *market, payoffs, points: 32_768, replicates: 4, steps: 4, seed: 7 };
        for (Estimate { value, .. }, want) in batch.run().unwrap().iter().zip(values) {
            worst = worst.max((value - want).abs() / market.spot);
        }
    }
    println!("largest error: {worst:.2e} of the spot");
    assert!(worst < 1e-4, "{worst:e}");
}

/// Every 25th point of each published front; the yardstick does them all.
#[test]
fn fronts_are_the_published_ones() {
    let Some(folder) = data() else { return };
    let mut worst = 0.0f64;
    for (problem, front) in [("port1.txt", "portef1.txt"), ("port2.txt", "portef2.txt")] {
        let numbers = |name: &str| -> Vec<f64> {
            let text = std::fs::read_to_string(folder.join("portfolio").join(name)).unwrap();
            text.split_ascii_whitespace().map(|word| word.parse().unwrap()).collect()
        };
        let text = numbers(problem);
        let count = text[0] as usize;
        let (moments, pairs) = text[1..].split_at(2 * count);
        let (means, deviations): (Vec<f64>, Vec<f64>) = moments.chunks_exact(2).map(|m| (m[0], m[1])).unzip();
        let mut covariances = vec![0.0; count * count];
        for pair in pairs.chunks_exact(3) {
            let (row, column) = (pair[0] as usize - 1, pair[1] as usize - 1);
            covariances[row * count + column] = pair[2] * deviations[row] * deviations[column];
            covariances[column * count + row] = covariances[row * count + column];
        }
        let assets = Assets::new(&means, &covariances).unwrap();
        let published = numbers(front);
        for point in published.chunks_exact(2).skip(1).step_by(25) {
            let found = assets.long_only(Some(point[0])).unwrap();
            worst = worst.max((found.variance - point[1]).abs());
        }
    }
    println!("largest error of a variance: {worst:.2e}");
    assert!(worst < 1e-6, "{worst:e}");
}
