//! What an observation costs: `cargo run --release -p tidegate-regime --example observations`.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;
use tidegate_regime::bocpd::{Gaussian, Lagged, Robust};
use tidegate_regime::hmm::OnlineOptions;
use tidegate_regime::{Bocpd, BocpdOptions, GaussianHmm, HmmFilter, RegimeError, SegmentOptions, Segments};

const OBSERVATIONS: usize = 50_000;

fn main() -> Result<(), RegimeError> {
    // Uniform noise around a level that moves every 400 observations.
    let mut word = 1u64;
    let series: Vec<f64> = (0..OBSERVATIONS)
        .map(|at| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (word >> 11) as f64 / (1u64 << 53) as f64 + (at / 400 % 3) as f64
        })
        .collect();
    let measure = |name: &str, step: &mut dyn FnMut(f64)| {
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            series.iter().for_each(|&value| step(black_box(value)));
            best = best.min(start.elapsed().as_nanos() as f64 / OBSERVATIONS as f64);
        }
        println!("{name:48} {best:8.0} ns per observation");
    };
    let mut segments = Segments::new(SegmentOptions::default())?;
    measure("penalised segments, window of 128", &mut |value| {
        segments.push(&[value]);
    });
    let gaussian = Gaussian::new(0.0, 0.1, 1.0, 1.0)?;
    let mut runs = Bocpd::new(gaussian.clone(), BocpdOptions::default())?;
    measure("run lengths, Gaussian, up to 128 hypotheses", &mut |value| _ = runs.push(value));
    let mut runs = Bocpd::new(Robust::new(gaussian, 0.02, 8.0)?, BocpdOptions::default())?;
    measure("run lengths, robust, up to 128 hypotheses", &mut |value| _ = runs.push(value));
    let mut runs = Bocpd::new(Lagged::new(3.0, 0.5, 1.0, 1.0, 0.0)?, BocpdOptions::default())?;
    measure("run lengths, autoregressive, up to 128 hypotheses", &mut |value| _ = runs.push(value));
    for states in [2usize, 4] {
        let transition: Vec<f64> = (0..states * states)
            .map(|at| if at / states == at % states { 0.97 } else { 0.03 / (states - 1) as f64 })
            .collect();
        let means: Vec<f64> = (0..states).map(|state| state as f64).collect();
        let initial = vec![1.0 / states as f64; states];
        let model = GaussianHmm::new(&initial, &transition, &means, &vec![0.1; states])?;
        let mut filter = HmmFilter::new(model.clone(), 32)?;
        measure(&format!("hidden Markov model, {states} states, path of 32"), &mut |value| {
            filter.step(&[value])
        });
        let mut filter = HmmFilter::new(model, 0)?.learning(OnlineOptions::default())?;
        measure(&format!("hidden Markov model, {states} states, learning"), &mut |value| {
            filter.step(&[value])
        });
    }
    Ok(())
}
