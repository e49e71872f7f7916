use super::*;
use crate::philox::philox4x32;
use crate::{Backend, Cpu};
use proptest::prelude::*;

fn unit(at: usize, of: u32) -> f64 {
    f64::from(philox4x32([at as u32, of, 0, 0], [2, 5])[0]) / 4_294_967_296.0
}

fn normal(at: usize, of: u32) -> f64 {
    (0..12).map(|part| unit(at, 100 * of + part)).sum::<f64>() - 6.0
}

/// The recursion as it is published, every run length kept, in logarithms: chances and the evidence after each value.
fn plain(options: &ChangeOptions, xs: &[f64]) -> Vec<(Vec<f64>, f64)> {
    let hazard = 1.0 / options.run_expected;
    let (alpha0, kappa0) = (options.deviation_weight / 2.0, options.mean_weight);
    let beta0 = alpha0 * options.deviation * options.deviation;
    let mut chances = vec![1.0];
    let mut out = Vec::new();
    let mut evidence = 0.0;
    for at in 0..xs.len() {
        let predictive = |run: usize| {
            // Statistics of the last `run` values before this one, from their definitions.
            let own = &xs[at - run..at];
            let count = run as f64;
            let mean = if run == 0 { 0.0 } else { own.iter().sum::<f64>() / count };
            let squares: f64 = own.iter().map(|x| (x - mean) * (x - mean)).sum();
            let (alpha, kappa) = (alpha0 + count / 2.0, kappa0 + count);
            let centre = (kappa0 * options.mean + count * mean) / kappa;
            let drift = kappa0 * count * (mean - options.mean).powi(2) / (2.0 * kappa);
            let beta = beta0 + 0.5 * squares + drift;
            let spread = 2.0 * beta * (kappa + 1.0) / kappa;
            let z = (xs[at] - centre).powi(2) / spread;
            libm::lgamma(alpha + 0.5)
                - libm::lgamma(alpha)
                - 0.5 * (std::f64::consts::PI * spread).ln()
                - (alpha + 0.5) * libm::log1p(z)
        };
        let terms: Vec<f64> = (0..chances.len()).map(|run| f64::ln(chances[run]) + predictive(run)).collect();
        let best = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = best + terms.iter().map(|term| libm::exp(term - best)).sum::<f64>().ln();
        evidence += sum;
        chances = std::iter::once(hazard)
            .chain(terms.iter().map(|term| libm::exp(term - sum) * (1.0 - hazard)))
            .collect();
        out.push((chances.clone(), evidence));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn banks_are_the_published_recursion(series in 1usize..5, rows in 1usize..80, seed in 0u32..10_000, jump in 0.0f64..20.0, weight in 0.01f64..5.0) {
        let options = ChangeOptions { runs: 96, recent: 5, run_expected: 40.0, mean: 0.3, mean_weight: weight, deviation_weight: weight + 0.5, deviation: 0.8 };
        let values: Vec<f64> = (0..rows * series)
            .map(|at| normal(at, seed) + if at / series % 37 > 20 { jump } else { 0.0 })
            .collect();
        let mut bank = ChangeBank::new(series, options).unwrap();
        let found = Cpu::new(1).unwrap().change_points(&mut bank, &values).unwrap();
        prop_assert_eq!(found.likeliest.len(), rows * series);
        for column in 0..series {
            let xs: Vec<f64> = values.iter().copied().skip(column).step_by(series).collect();
            let wanted = plain(&options, &xs);
            for (row, (chances, _)) in wanted.iter().enumerate() {
                let recent: f64 = chances.iter().take(options.recent).sum();
                prop_assert!((found.recent[row * series + column] - recent).abs() < 1e-9);
                let likeliest = found.likeliest[row * series + column] as usize;
                let top = chances.iter().copied().fold(0.0, f64::max);
                prop_assert!(chances[likeliest] > top - 1e-9, "row {}: {}", row, likeliest);
            }
            let (chances, evidence) = &wanted[rows - 1];
            for (run, wanted) in chances.iter().enumerate() {
                prop_assert!((bank.chances(column)[run] - wanted).abs() < 1e-9, "run {}", run);
            }
            prop_assert!((bank.log_evidence(column) - evidence).abs() < 1e-8 * evidence.abs().max(1.0));
        }
        // Cut anywhere and on any number of threads, the same bits.
        let mut cut = ChangeBank::new(series, options).unwrap();
        let cpu = Cpu::new(3).unwrap();
        let (one, other) = values.split_at(rows / 2 * series);
        let mut steps = cpu.change_points(&mut cut, one).unwrap();
        let more = cpu.change_points(&mut cut, other).unwrap();
        steps.likeliest.extend(more.likeliest);
        steps.recent.extend(more.recent);
        prop_assert_eq!(&steps, &found);
        prop_assert_eq!(format!("{cut:?}"), format!("{bank:?}"));
    }
}

#[test]
fn a_change_is_seen_and_the_longest_run_stands_for_all_longer_ones() {
    let options = ChangeOptions { runs: 32, recent: 4, ..ChangeOptions::default() };
    let rows = 400;
    let change = 250;
    let values: Vec<f64> =
        (0..rows).map(|row| normal(row, 3) + if row >= change { 5.0 } else { 0.0 }).collect();
    let mut bank = ChangeBank::new(1, options).unwrap();
    let found = Cpu::new(1).unwrap().change_points(&mut bank, &values).unwrap();
    // Long past the last run length the regime still stands as the longest.
    assert_eq!(found.likeliest[change - 1], 31);
    assert!(found.recent[change - 1] < 0.1, "{}", found.recent[change - 1]);
    assert!(found.recent[change + 1] > 0.9, "{}", found.recent[change + 1]);
    for after in 5..30 {
        assert_eq!(found.likeliest[change + after], after as u32 + 1);
    }
    assert!((bank.chances(0).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert_eq!(bank.rows(), rows as u64);
}

#[test]
fn what_nobody_expected_leaves_chances_that_add_up() {
    let mut bank = ChangeBank::new(2, ChangeOptions { runs: 64, ..ChangeOptions::default() }).unwrap();
    let cpu = Cpu::new(1).unwrap();
    let mut values = vec![0.0; 2 * 300];
    for (at, wild) in [(100, 1e15), (101, -1e15), (102, 1e-300), (301, 1e8)] {
        values[at] = wild;
    }
    let found = cpu.change_points(&mut bank, &values).unwrap();
    assert!(found.recent.iter().all(|chance| (0.0..=1.0 + 1e-12).contains(chance)));
    for series in 0..2 {
        assert!((bank.chances(series).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(bank.log_evidence(series).is_finite());
    }
}

#[test]
fn wrong_requests_are_refused_by_name() {
    let good = ChangeOptions::default();
    let text =
        |series: usize, options: ChangeOptions| ChangeBank::new(series, options).unwrap_err().to_string();
    assert_eq!(text(0, good), "series: 0; allowed are 1 to 1048576");
    assert_eq!(text(1, ChangeOptions { runs: 0, ..good }), "run lengths: 0; allowed are 32 to 1024");
    assert_eq!(
        text(1, ChangeOptions { runs: 100, ..good }),
        "run lengths is 100; allowed is a multiple of 32"
    );
    assert_eq!(text(1, ChangeOptions { recent: 513, ..good }), "recent: 513; allowed are 1 to 512");
    for run_expected in [1.0, 0.0, -5.0, f64::NAN, f64::INFINITY] {
        let refused = text(1, ChangeOptions { run_expected, ..good });
        assert!(refused.starts_with("expected run is"), "{refused}");
    }
    assert!(text(1, ChangeOptions { deviation: 0.0, ..good }).starts_with("deviation is 0"));
    assert!(text(1, ChangeOptions { mean: f64::NAN, ..good }).starts_with("the mean is NaN"));
    assert!(text(1, ChangeOptions { mean_weight: -1.0, ..good }).starts_with("weight of the mean is -1"));
    let text = text(1 << 20, good);
    assert_eq!(
        text,
        "series x run lengths: 1048576 x 512 of them is more than the 268435456 a batch may have"
    );
    let mut bank = ChangeBank::new(2, good).unwrap();
    let before = format!("{bank:?}");
    let cpu = Cpu::new(1).unwrap();
    let refuse =
        |bank: &mut ChangeBank, values: &[f64]| cpu.change_points(bank, values).unwrap_err().to_string();
    assert_eq!(refuse(&mut bank, &[1.0]), "values: length 1, but 0 is needed");
    assert_eq!(refuse(&mut bank, &[1.0, f64::INFINITY]), "values[1] is inf; every value must be finite");
    assert_eq!(cpu.change_points(&mut bank, &[]).unwrap(), ChangeSteps::default());
    assert_eq!(format!("{bank:?}"), before, "nothing changed");
}
