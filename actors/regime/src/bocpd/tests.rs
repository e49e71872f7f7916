//! The posterior against sums over every division, the predictions against their integrals, and promises about state.

use super::*;
use crate::math::LN_TWO_PI;
use crate::random::Random;
use proptest::prelude::*;

fn exact() -> BocpdOptions {
    BocpdOptions { run_expected: 10.0, hypotheses_max: 4_096, prune_below: 0.0 }
}

fn gaussian() -> Gaussian {
    Gaussian::new(0.5, 0.7, 1.5, 2.0).unwrap()
}

/// Log density of a normal distribution.
fn normal(mean: f64, variance: f64, value: f64) -> f64 {
    -0.5 * (LN_TWO_PI + ln(variance) + (value - mean) * (value - mean) / variance)
}

/// Joint density of a run, observation by observation.
fn run_density<O: Observation>(model: &O, before: Option<f64>, values: &[f64]) -> f64 {
    let mut run = before.map_or_else(|| model.prior(), |before| model.start(before));
    let mut sum = 0.0;
    for &value in values {
        sum += model.log_predictive(&run, value);
        model.update(&mut run, value);
    }
    sum
}

/// Posterior over run lengths by summing every one of the 2^n divisions of a short series.
fn by_enumeration<O: Observation>(model: &O, hazard: f64, values: &[f64]) -> (Vec<f64>, f64) {
    let n = values.len();
    let mut posterior = vec![0.0; n + 1];
    for division in 0..1u32 << n {
        // Bit t says that a change comes after observation t.
        let (mut density, mut start) = (1.0, 0usize);
        for t in 0..n {
            let change = division >> t & 1 == 1;
            density *= if change { hazard } else { 1.0 - hazard };
            if change || t + 1 == n {
                let before = start.checked_sub(1).map(|before| values[before]);
                density *= exp(run_density(model, before, &values[start..=t]));
            }
            if change {
                start = t + 1;
            }
        }
        posterior[n - start] += density;
    }
    let evidence = normalise(&mut posterior);
    (posterior, ln(evidence))
}

fn compare<O: Observation>(model: O, values: &[f64]) {
    let (wanted, evidence) = by_enumeration(&model, 0.1, values);
    let mut detector = Bocpd::new(model, exact()).unwrap();
    for &value in values {
        assert!(detector.push(value));
    }
    for (run, chance, _) in detector.hypotheses() {
        let wanted = wanted[run as usize];
        assert!((chance - wanted).abs() < 1e-10, "run {run}: {chance} and not {wanted}");
    }
    assert_eq!(detector.hypotheses().count(), values.len() + 1);
    assert!((detector.log_evidence() - evidence).abs() < 1e-9);
}

#[test]
fn the_posterior_is_the_sum_over_every_division() {
    let values = [0.3, -1.0, 0.8, 5.0, 6.1, 5.5, 4.9, -2.0, -1.5];
    compare(gaussian(), &values);
    compare(Robust::new(gaussian(), 0.05, 10.0).unwrap(), &values);
    compare(Lagged::new(3.0, 0.5, 1.0, 1.0, 0.2).unwrap(), &values);
    compare(Poisson::new(2.0, 0.5).unwrap(), &[1.0, 0.0, 3.0, 2.0, 11.0, 9.0, 14.0, 0.0]);
}

#[test]
fn predictions_integrate_to_one() {
    fn integral<O: Observation>(model: &O, seen: &[f64]) -> f64 {
        let mut run = model.prior();
        seen.iter().for_each(|&value| model.update(&mut run, value));
        let step = 0.01;
        (-400_000..400_000).map(|at| step * exp(model.log_predictive(&run, f64::from(at) * step))).sum()
    }
    let seen = [0.3, -1.0, 0.8, 2.0];
    for sum in [
        integral(&gaussian(), &seen),
        integral(&Robust::new(gaussian(), 0.1, 5.0).unwrap(), &seen),
        integral(&Lagged::new(3.0, 0.5, 2.0, 1.0, 0.2).unwrap(), &seen),
    ] {
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    }
    let model = Poisson::new(2.0, 0.5).unwrap();
    let sum: f64 = (0..2_000).map(|at| exp(model.log_predictive(&model.prior(), f64::from(at)))).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
}

#[test]
fn a_long_run_predicts_as_the_normal_distribution_it_came_from() {
    let model = gaussian();
    let (mut run, mut random) = (model.prior(), Random(2));
    for _ in 0..50_000 {
        model.update(&mut run, 3.0 + 2.0 * random.bell());
    }
    for value in [3.0, 5.0, 9.0] {
        let (found, wanted) = (model.log_predictive(&run, value), normal(3.0, 4.0, value));
        assert!((found - wanted).abs() < 0.05, "{found} {wanted}");
    }
}

#[test]
fn a_change_shows_in_run_length_and_probability() {
    let mut random = Random(4);
    let mut detector = Bocpd::new(gaussian(), BocpdOptions::default()).unwrap();
    for _ in 0..300 {
        detector.push(random.bell());
    }
    assert!(detector.run_length() > 250.0 && detector.change_probability(20) < 0.1);
    assert_eq!(detector.likeliest().0, 300);
    for _ in 0..10 {
        detector.push(8.0 + random.bell());
    }
    assert!(detector.change_probability(12) > 0.99, "{}", detector.change_probability(12));
    let (run, statistics) = detector.likeliest();
    assert!(run.abs_diff(10) <= 1 && (statistics.mean - 8.0).abs() < 1.5, "{run} {statistics:?}");
    assert!(detector.hypotheses().count() <= 128);
    assert!(detector.pruned() < 0.05, "{}", detector.pruned());
}

#[test]
fn outliers_end_no_run_of_the_robust_model() {
    let runs = |mut detector: Bocpd<Robust>| {
        let mut random = Random(6);
        for at in 0..400 {
            let spike = if at % 50 == 49 { 40.0 } else { 0.0 };
            detector.push(random.bell() + spike);
        }
        detector.likeliest().0
    };
    let model = Gaussian::new(0.0, 0.1, 2.0, 1.0).unwrap();
    assert_eq!(
        runs(Bocpd::new(Robust::new(model.clone(), 0.05, 30.0).unwrap(), BocpdOptions::default()).unwrap()),
        400
    );
    let mut plain = Bocpd::new(model, BocpdOptions::default()).unwrap();
    let mut random = Random(6);
    let shortest = (0..400).map(|at| {
        plain.push(random.bell() + if at % 50 == 49 { 40.0 } else { 0.0 });
        if at < 300 { u64::MAX } else { plain.likeliest().0 }
    });
    assert!(shortest.min().unwrap() < 100, "the plain model takes spikes for changes");
}

#[test]
fn what_cannot_be_judged_is_skipped_and_what_cannot_be_is_refused() {
    let mut detector = Bocpd::new(Poisson::new(1.0, 1.0).unwrap(), BocpdOptions::default()).unwrap();
    for value in [f64::NAN, -1.0, 0.5, f64::INFINITY, 1e300] {
        assert!(!detector.push(value), "{value}");
    }
    assert!(detector.push(3.0));
    let mut detector = Bocpd::new(gaussian(), BocpdOptions::default()).unwrap();
    for value in [1.0, 1e99, -1e99, 0.0, 1e-300] {
        assert!(detector.push(value));
        let sum: f64 = detector.hypotheses().map(|(_, chance, _)| chance).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{value}: {sum}");
    }
    assert!(Gaussian::new(0.0, 0.0, 1.0, 1.0).is_err() && Gaussian::new(f64::NAN, 1.0, 1.0, 1.0).is_err());
    assert!(Poisson::new(-1.0, 1.0).is_err() && Robust::new(gaussian(), 0.0, 9.0).is_err());
    assert!(Lagged::new(1.0, 1.0, 1.0, 0.0, 0.0).is_err());
    let options = BocpdOptions { run_expected: 1.0, ..BocpdOptions::default() };
    assert!(Bocpd::new(gaussian(), options).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Memory is bounded, chances add up, and a restored detector goes on the same.
    #[test]
    fn a_restored_detector_goes_on_the_same(
        values in prop::collection::vec(-50.0..50.0f64, 1..200),
        part in 0.0..1.0f64,
    ) {
        let options = BocpdOptions { hypotheses_max: 16, ..BocpdOptions::default() };
        let cut = (values.len() as f64 * part) as usize;
        let mut one = Bocpd::new(gaussian(), options).unwrap();
        for &value in &values[..cut] {
            one.push(value);
        }
        let mut words = Vec::new();
        one.save(&mut words);
        let mut two = Bocpd::new(gaussian(), options).unwrap();
        let mut reader = Words::new(&words);
        two.restore(&mut reader).unwrap();
        reader.end().unwrap();
        for &value in &values[cut..] {
            one.push(value);
            two.push(value);
            let sum: f64 = one.hypotheses().map(|(_, chance, _)| chance).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
            prop_assert!(one.hypotheses().count() <= 16);
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        one.save(&mut a);
        two.save(&mut b);
        prop_assert_eq!(a, b);
    }
}
