//! How often undisturbed noise reaches a score, times the rows seen: the table of `series/rate.rs`.
//!
//! `cargo run --release -p tidegate-anomaly --example rates [SERIES]`, 40 series of 12,000 rows per kind by default.

use tidegate_anomaly::{SeriesDetector, SeriesOptions};

const ROWS: i64 = 12_000;
const SCORES: [f64; 10] = [0.01, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Rows compared: where the rate falls as 1/n, the figures of a kind are alike.
const SPANS: [std::ops::Range<i64>; 3] = [600..2_000, 2_000..6_000, 6_000..ROWS];

/// Uniform in (0, 1), from a fixed congruential sequence.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(self.uniform())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }
}

/// One value of a kind; `before` is the value before it.
type Kind = (&'static str, fn(&mut Noise, i64, f64) -> f64);

const KINDS: [Kind; 6] = [
    ("normal", |noise, _, _| 20.0 + noise.normal()),
    ("autocorrelated", |noise, _, before| 5.0 + 0.9 * before + noise.normal()),
    ("seasonal", |noise, row, _| {
        10.0 + 5.0 * libm::sin(std::f64::consts::TAU * row as f64 / 288.0) + noise.normal()
    }),
    ("counts", |noise, _, _| {
        // Poisson with mean 5, by the product of uniforms.
        let (mut count, mut product) = (0.0, noise.uniform());
        while product > 0.006_737_946_999_085_467 {
            (count, product) = (count + 1.0, product * noise.uniform());
        }
        count
    }),
    ("student-3", |noise, _, _| {
        let squares: f64 = (0..3).map(|_| noise.normal().powi(2)).sum();
        50.0 + noise.normal() / (squares / 3.0).sqrt()
    }),
    ("lognormal", |noise, _, _| libm::exp(noise.normal())),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let series: u64 = std::env::args().nth(1).map_or(Ok(40), |text| text.parse())?;
    println!("{:16} {:>14} {}", "", "rows", SCORES.map(|score| format!("{score:>7}")).join(""));
    for (name, make) in KINDS {
        let mut counts = [[0u64; SCORES.len()]; SPANS.len()];
        for seed in 0..series {
            let (mut noise, mut before) = (Noise(seed + 1), 50.0);
            let mut detector = SeriesDetector::new(SeriesOptions::default())?;
            for row in 0..ROWS {
                before = make(&mut noise, row, before);
                let score = detector.push(row * 300, before).score;
                for (span, counts) in SPANS.iter().zip(&mut counts) {
                    if span.contains(&row) {
                        SCORES
                            .iter()
                            .zip(counts)
                            .for_each(|(&least, count)| *count += u64::from(score >= least));
                    }
                }
            }
        }
        for (span, counts) in SPANS.iter().zip(&counts) {
            let inverse: f64 = span.clone().map(|row| 1.0 / (row + 1) as f64).sum();
            let rates = counts.map(|count| format!("{:7.2}", count as f64 / series as f64 / inverse));
            println!("{name:16} {:>14} {}", format!("{}..{}", span.start, span.end), rates.join(""));
        }
    }
    Ok(())
}
