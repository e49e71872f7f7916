//! Hamilton's own figures, sums over every path of regimes, and a fit that comes back to where a series came from.

use super::*;
use crate::random::Random;
use std::path::PathBuf;

/// A series that a model makes.
fn simulate(model: &SwitchingAr, length: usize, seed: u64) -> (Vec<f64>, Vec<usize>) {
    let (mut random, mut regime) = (Random(seed), 0);
    let (mut values, mut regimes): (Vec<f64>, Vec<usize>) = (Vec::new(), Vec::new());
    for row in 0..length {
        let mut left = random.unit();
        regime = (0..model.regimes)
            .find(|&to| {
                left -= model.transition(regime, to);
                left < 0.0
            })
            .unwrap_or(regime);
        let pull: f64 = (0..model.ar.len())
            .filter(|at| row > *at)
            .map(|at| model.ar[at] * (values[row - 1 - at] - model.means[regimes[row - 1 - at]]))
            .sum();
        values.push(model.means[regime] + pull + model.variances[regime].sqrt() * random.bell());
        regimes.push(regime);
    }
    (values, regimes)
}

fn sample_model() -> SwitchingAr {
    SwitchingAr::new(&[0.95, 0.05, 0.1, 0.9], &[-1.0, 2.0], &[0.5, 1.5], &[0.4, -0.2]).unwrap()
}

#[test]
fn filter_smoother_and_likelihood_are_sums_over_every_path() {
    let model = sample_model();
    let series = [0.3, -1.2, 2.5, 3.0, 1.1, -0.8, -1.5, 2.2];
    let (n, order) = (series.len(), 2);
    let ergodic = stationary(&model.transition, 2);
    // Joint density of each path of regimes with the values from the third on, up to `end`.
    let density = |path: u32, end: usize| {
        let regime = |at: usize| (path >> at & 1) as usize;
        let mut density = ergodic[regime(0)];
        for at in 1..end {
            density *= model.transition(regime(at - 1), regime(at));
        }
        for at in order..end {
            let gap = |at: usize| series[at] - model.means[regime(at)];
            let e = gap(at) - model.ar[0] * gap(at - 1) - model.ar[1] * gap(at - 2);
            let variance = model.variances[regime(at)];
            density *= (-0.5 * e * e / variance).exp() / (2.0 * std::f64::consts::PI * variance).sqrt();
        }
        density
    };
    let filtered = model.filter(&series).unwrap();
    let smoothed = model.smooth(&series).unwrap();
    let total: f64 = (0..1 << n).map(|path| density(path, n)).sum();
    assert!((filtered.log_likelihood - total.ln()).abs() < 1e-9);
    for row in order..n {
        let of = |end: usize| {
            let paths = || 0..1u32 << end;
            let high: f64 = paths().filter(|path| path >> row & 1 == 1).map(|path| density(path, end)).sum();
            high / paths().map(|path| density(path, end)).sum::<f64>()
        };
        let at = (row - order) * 2 + 1;
        assert!((filtered.rows[at] - of(row + 1)).abs() < 1e-9, "filtered at {row}");
        assert!((smoothed.rows[at] - of(n)).abs() < 1e-9, "smoothed at {row}");
    }
}

/// Reference data, or a loud absence.
#[allow(clippy::type_complexity)]
fn reference() -> Option<(SwitchingAr, f64, Vec<f64>, Vec<Vec<f64>>)> {
    let root = std::env::var_os("TIDEGATE_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join("hamilton");
    let Ok(table) = std::fs::read_to_string(folder.join("gnp.csv")) else {
        eprintln!("NOT RUN: no regime reference under {}; set TIDEGATE_DATA", folder.display());
        return None;
    };
    let text = std::fs::read_to_string(folder.join("parameters.json")).unwrap();
    let parameters: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| parameters[name].as_f64().unwrap();
    let (stay, back) = (number("p[0->0]"), number("p[1->0]"));
    let ar: Vec<f64> =
        parameters["ar"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let model = SwitchingAr::new(
        &[stay, 1.0 - stay, back, 1.0 - back],
        &[number("mean[0]"), number("mean[1]")],
        &[number("sigma2")],
        &ar,
    )
    .unwrap();
    let rows = table.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let (growth, wanted) = rows
        .map(|row| {
            let wanted = row[3..].iter().filter_map(|text| text.parse().ok()).collect::<Vec<f64>>();
            (row[1].parse::<f64>().unwrap(), wanted)
        })
        .unzip();
    Some((model, number("log_likelihood"), growth, wanted))
}

#[test]
fn hamiltons_probabilities_are_reproduced() {
    let Some((model, likelihood, growth, wanted)) = reference() else { return };
    let filtered = model.filter(&growth).unwrap();
    let smoothed = model.smooth(&growth).unwrap();
    assert!((filtered.log_likelihood - likelihood).abs() < 1e-4, "{}", filtered.log_likelihood);
    let mut worst: f64 = 0.0;
    for (row, wanted) in wanted.iter().enumerate() {
        if row < filtered.skipped {
            assert!(wanted.is_empty());
            continue;
        }
        let at = (row - filtered.skipped) * 2 + 1;
        worst = worst.max((filtered.rows[at] - wanted[0]).abs()).max((smoothed.rows[at] - wanted[1]).abs());
    }
    println!("largest difference {worst:e}");
    assert!(worst < 1e-5, "{worst:e}");
}

#[test]
fn our_own_fit_of_hamiltons_series_is_as_likely() {
    let Some((model, likelihood, growth, _)) = reference() else { return };
    let options = SwitchingOptions { order: 4, ..SwitchingOptions::default() };
    let (found, reached) = fit(&growth, &options).unwrap();
    println!("{reached} of {likelihood}: {found:?}");
    assert!(reached >= likelihood - 1e-5, "{reached} of {likelihood}: {found:?}");
    for (found, wanted) in found.means.iter().zip(&model.means) {
        assert!((found - wanted).abs() < 0.01, "{found} {wanted}");
    }
}

#[test]
fn a_fit_comes_back_to_where_a_series_came_from() {
    let model = sample_model();
    let (series, regimes) = simulate(&model, 1_500, 5);
    let options =
        SwitchingOptions { order: 2, switching_variance: true, restarts: 4, ..SwitchingOptions::default() };
    let (found, reached) = fit(&series, &options).unwrap();
    assert!(reached >= model.filter(&series).unwrap().log_likelihood, "less likely than the truth");
    for (found, wanted) in [
        (found.means[0], -1.0),
        (found.means[1], 2.0),
        (found.ar[0], 0.4),
        (found.ar[1], -0.2),
        (found.variances[0], 0.5),
        (found.variances[1], 1.5),
        (found.transition(0, 0), 0.95),
        (found.transition(1, 1), 0.9),
    ] {
        assert!((found - wanted).abs() < 0.3, "{found} and not {wanted}");
    }
    let smoothed = found.smooth(&series).unwrap();
    let right = smoothed.rows.chunks_exact(2).zip(&regimes[2..]);
    let right = right.filter(|(row, regime)| (row[1] > 0.5) == (**regime == 1)).count();
    assert!(right > 1_350, "{right} of 1498 regimes are right");
    assert_eq!(fit(&series, &options).unwrap(), (found, reached), "the same search finds the same");
}

#[test]
fn what_cannot_be_is_refused() {
    let good = ([0.9, 0.1, 0.1, 0.9], [0.0, 1.0], [1.0], [0.5]);
    let make = |t: &[f64], m: &[f64], v: &[f64], a: &[f64]| SwitchingAr::new(t, m, v, a);
    assert!(make(&good.0, &good.1, &good.2, &good.3).is_ok());
    assert!(matches!(
        make(&[0.9, 0.2, 0.1, 0.9], &good.1, &good.2, &good.3),
        Err(RegimeError::NotStochastic { row: 0, .. })
    ));
    assert!(make(&[1.1, -0.1, 0.1, 0.9], &good.1, &good.2, &good.3).is_err());
    assert!(make(&good.0, &[0.0], &good.2, &good.3).is_err());
    assert!(make(&good.0, &good.1, &[0.0], &good.3).is_err());
    assert!(make(&good.0, &good.1, &good.2, &[f64::NAN]).is_err());
    assert!(make(&good.0, &good.1, &good.2, &[0.0; 40]).is_err());
    let model = sample_model();
    for value in [f64::NAN, f64::INFINITY, 1e101] {
        assert!(
            matches!(model.filter(&[1.0, value]), Err(RegimeError::NotFinite { index: 1, .. })),
            "{value}"
        );
    }
    assert!(model.filter(&[]).unwrap().rows.is_empty() && model.smooth(&[1.0]).unwrap().rows.is_empty());
    let options = SwitchingOptions::default();
    assert!(matches!(fit(&[1.0; 5], &options), Err(RegimeError::TooFew { .. })));
    assert!(matches!(fit(&[1.0; 50], &options), Err(RegimeError::Parameter { .. })));
}

#[test]
fn a_restored_filter_goes_on_the_same() {
    let model = sample_model();
    let (series, _) = simulate(&model, 200, 9);
    for cut in [0, 1, 2, 3, 150] {
        let mut one = SwitchingFilter::new(model.clone());
        series[..cut].iter().for_each(|&value| assert!(one.step(value)));
        assert!(!one.step(f64::NAN));
        let mut words = Vec::new();
        one.save(&mut words);
        let mut two = SwitchingFilter::new(model.clone());
        let mut reader = Words::new(&words);
        two.restore(&mut reader).unwrap();
        reader.end().unwrap();
        for &value in &series[cut..] {
            one.step(value);
            two.step(value);
            assert_eq!(one.probabilities(), two.probabilities());
        }
        assert_eq!(one.log_likelihood().to_bits(), two.log_likelihood().to_bits());
    }
}
