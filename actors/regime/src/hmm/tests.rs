//! Sums over every path of states, fits that come back, parameters that follow, labels that hold still.

use super::*;
use crate::random::Random;
use crate::state::Words;
use proptest::prelude::*;

fn two_states() -> GaussianHmm {
    GaussianHmm::new(&[0.6, 0.4], &[0.9, 0.1, 0.2, 0.8], &[0.0, 3.0], &[1.0, 4.0]).unwrap()
}

fn simulate(model: &GaussianHmm, length: usize, random: &mut Random) -> (Vec<f64>, Vec<usize>) {
    let (mut state, mut states, mut values) = (0, Vec::new(), Vec::new());
    let d = model.dimensions;
    for _ in 0..length {
        let mut left = random.unit();
        let moved = (0..model.states).find(|&to| {
            left -= model.transition(state, to);
            left < 0.0
        });
        state = moved.unwrap_or(state);
        let noise: Vec<f64> = (0..d).map(|_| random.bell()).collect();
        let factor = &model.factors[state * d * d..];
        values.extend((0..d).map(|row| {
            model.mean(state)[row] + (0..=row).map(|k| factor[row * d + k] * noise[k]).sum::<f64>()
        }));
        states.push(state);
    }
    (values, states)
}

#[test]
fn densities_are_those_of_the_normal_distribution() {
    let model = GaussianHmm::new(&[1.0], &[1.0], &[1.0, -2.0], &[2.0, 0.6, 0.6, 1.0]).unwrap();
    let (x, y): (f64, f64) = (0.3, 0.4);
    let (u, v) = (x - 1.0, y + 2.0);
    let determinant: f64 = 2.0 - 0.36;
    let square = (u * u - 2.0 * 0.6 * u * v + 2.0 * v * v) / determinant;
    let wanted = -LN_TWO_PI - 0.5 * determinant.ln() - 0.5 * square;
    assert!((model.log_density(0, &[x, y]) - wanted).abs() < 1e-12);
    assert_eq!(model.log_density(0, &[x, f64::NAN]), 0.0);
}

#[test]
fn filter_smoother_path_and_likelihood_are_those_over_every_path() {
    let model = two_states();
    let series = [0.5, 2.0, -1.0, f64::NAN, 4.0, 3.0, 0.1];
    let n = series.len();
    let density = |path: u32, end: usize| {
        let state = |at: usize| (path >> at & 1) as usize;
        (0..end).fold(1.0, |density, at| {
            let step =
                if at == 0 { model.initial[state(0)] } else { model.transition(state(at - 1), state(at)) };
            density * step * model.log_density(state(at), &series[at..=at]).exp()
        })
    };
    let mut filtered = Vec::new();
    let likelihood = model.filter(&series, Some(&mut filtered)).unwrap();
    let total: f64 = (0..1 << n).map(|path| density(path, n)).sum();
    assert!((likelihood - total.ln()).abs() < 1e-10);
    let smoothed = model.smooth(&series).unwrap();
    for row in 0..n {
        let of = |end: usize| {
            let paths = || 0..1u32 << end;
            let high: f64 = paths().filter(|path| path >> row & 1 == 1).map(|path| density(path, end)).sum();
            high / paths().map(|path| density(path, end)).sum::<f64>()
        };
        assert!((filtered[2 * row + 1] - of(row + 1)).abs() < 1e-12, "filtered at {row}");
        assert!((smoothed[2 * row + 1] - of(n)).abs() < 1e-12, "smoothed at {row}");
    }
    let best = (0..1 << n).max_by(|&a, &b| density(a, n).total_cmp(&density(b, n))).unwrap();
    let wanted: Vec<usize> = (0..n).map(|at| (best >> at & 1) as usize).collect();
    assert_eq!(model.viterbi(&series).unwrap(), wanted);
}

#[test]
fn the_path_over_a_lag_is_the_path_over_everything() {
    let model = two_states();
    let (series, _) = simulate(&model, 300, &mut Random(3));
    let mut filter = HmmFilter::new(model.clone(), 40).unwrap();
    for end in 1..=series.len() {
        filter.step(&series[end - 1..end]);
        let path = model.viterbi(&series[..end]).unwrap();
        for ago in 0..40.min(end) {
            assert_eq!(filter.state(ago), Some(path[end - 1 - ago]), "{ago} before {end}");
        }
        assert_eq!(filter.state(40), None);
    }
}

#[test]
fn a_fit_comes_back_to_where_a_series_came_from() {
    let truth = GaussianHmm::new(
        &[0.5, 0.5],
        &[0.97, 0.03, 0.06, 0.94],
        &[0.0, 0.0, 1.0, -1.0],
        &[0.2, 0.05, 0.05, 0.3, 2.0, -0.8, -0.8, 1.0],
    )
    .unwrap();
    let (series, states) = simulate(&truth, 3_000, &mut Random(17));
    let (found, likelihood) =
        fit::fit(&series, 2, &FitOptions { restarts: 3, ..FitOptions::default() }).unwrap();
    assert!(likelihood >= truth.filter(&series, None).unwrap(), "less likely than the truth");
    let calm = usize::from(found.covariance(0)[0] > found.covariance(1)[0]);
    for (found, wanted) in [
        (found.mean(calm)[0], 0.0),
        (found.mean(1 - calm)[1], -1.0),
        (found.covariance(1 - calm)[1], -0.8),
        (found.covariance(calm)[3], 0.3),
        (found.transition(calm, calm), 0.97),
        (found.transition(1 - calm, 1 - calm), 0.94),
    ] {
        assert!((found - wanted).abs() < 0.15, "{found} and not {wanted}");
    }
    let path = found.viterbi(&series).unwrap();
    let right = path.iter().zip(&states).filter(|(found, state)| (**found == calm) == (**state == 0)).count();
    assert!(right > 2_800, "{right} of 3000 states are right");
}

#[test]
fn no_step_of_a_fit_goes_down() {
    let (series, _) = simulate(&two_states(), 400, &mut Random(23));
    let reached = |iterations_max| {
        let options = FitOptions { iterations_max, restarts: 1, tolerance: 0.0, ..FitOptions::default() };
        fit::fit(&series, 1, &options).unwrap().1
    };
    let heights: Vec<f64> = (1..30).map(reached).collect();
    assert!(heights.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9), "{heights:?}");
    assert!(heights[28] > heights[0] + 1.0);
}

#[test]
fn parameters_follow_a_stream() {
    let truth = GaussianHmm::new(&[0.5, 0.5], &[0.98, 0.02, 0.05, 0.95], &[-1.0, 2.0], &[0.25, 1.0]).unwrap();
    let guess = GaussianHmm::new(&[0.5, 0.5], &[0.9, 0.1, 0.1, 0.9], &[0.0, 1.0], &[1.0, 1.0]).unwrap();
    let (series, states) = simulate(&truth, 20_000, &mut Random(31));
    let options = OnlineOptions { rate: 0.002, anchor: 0.01, ..OnlineOptions::default() };
    let mut filter = HmmFilter::new(guess, 0).unwrap().learning(options).unwrap();
    let mut right = 0;
    for (at, value) in series.iter().enumerate() {
        filter.step(&[*value]);
        right += usize::from(at >= 10_000 && (filter.probabilities()[1] > 0.5) == (states[at] == 1));
    }
    let found = filter.model();
    for (found, wanted) in [
        (found.mean(0)[0], -1.0),
        (found.mean(1)[0], 2.0),
        (found.covariance(0)[0], 0.25),
        (found.covariance(1)[0], 1.0),
        (found.transition(0, 0), 0.98),
    ] {
        assert!((found - wanted).abs() < 0.2, "{found} and not {wanted}");
    }
    assert!(right > 9_500, "{right} of 10000");
}

#[test]
fn a_state_nobody_visits_and_a_constant_stream_do_no_harm() {
    let model = GaussianHmm::new(&[0.5, 0.5], &[0.9, 0.1, 0.1, 0.9], &[0.0, 1e6], &[1.0, 1.0]).unwrap();
    let mut filter = HmmFilter::new(model, 5).unwrap().learning(OnlineOptions::default()).unwrap();
    for _ in 0..10_000 {
        filter.step(&[0.0]);
    }
    for value in [f64::NAN, 1e99, -1e99, f64::INFINITY, 0.0] {
        filter.step(&[value]);
        let sum: f64 = filter.probabilities().iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "{value}: {:?}", filter.probabilities());
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let new = |i: &[f64], t: &[f64], m: &[f64], c: &[f64]| GaussianHmm::new(i, t, m, c).unwrap_err();
    let (i, t, m, c) = ([0.5, 0.5], [0.9, 0.1, 0.2, 0.8], [0.0, 1.0], [1.0, 1.0]);
    assert_eq!(
        new(&i, &[0.9, 0.1, 0.2, 0.7], &m, &c).to_string(),
        "row 1 of `transition` adds up to 0.8999999999999999, not to 1"
    );
    assert!(matches!(new(&i, &t, &m, &[1.0, 0.0]), RegimeError::Covariance { state: 1 }));
    assert!(matches!(new(&i, &t, &m, &[1.0, -1.0]), RegimeError::Covariance { state: 1 }));
    assert!(matches!(new(&i, &t, &[0.0, f64::NAN], &c), RegimeError::Parameter { .. }));
    assert!(matches!(new(&i, &t[..3], &m, &c), RegimeError::Length { .. }));
    assert!(matches!(new(&[], &[], &[], &[]), RegimeError::Parameter { .. }));
    assert!(matches!(new(&i, &t, &[], &[]), RegimeError::Parameter { .. }));
    let singular = [1.0, 1.0, 1.0, 1.0];
    assert!(matches!(new(&[1.0], &[1.0], &[0.0, 0.0], &singular), RegimeError::Covariance { state: 0 }));
    let options = FitOptions::default();
    assert!(matches!(fit::fit(&[1.0; 100], 1, &options), Err(RegimeError::Parameter { .. })));
    assert!(matches!(fit::fit(&[1.0, 2.0], 1, &options), Err(RegimeError::TooFew { .. })));
    assert!(matches!(
        fit::fit(&[1.0, f64::INFINITY], 1, &options),
        Err(RegimeError::NotFinite { index: 1, .. })
    ));
    assert!(HmmFilter::new(two_states(), 5_000).is_err());
}

#[test]
fn a_label_changes_when_it_is_clear_for_some_time() {
    let mut label = Label::new(0.8, 3).unwrap();
    let mut feed = |chances: &[f64]| chances.iter().map(|&p| label.update(&[1.0 - p, p])).collect::<Vec<_>>();
    assert_eq!(feed(&[0.5, 0.1, 0.1]), [None; 3]);
    assert_eq!(feed(&[0.1, 0.7, 0.9]), [Some(0); 3]);
    assert_eq!(feed(&[0.9, 0.3, 0.9, 0.9]), [Some(0); 4], "flapping changes nothing");
    assert_eq!(feed(&[0.9, 0.4]), [Some(1); 2]);
    assert!(Label::new(0.5, 3).is_err() && Label::new(0.9, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// A saved state goes on as the filter it was taken from, learning included.
    #[test]
    fn a_restored_filter_goes_on_the_same(
        values in prop::collection::vec(prop_oneof![9 => -5.0..9.0f64, 1 => Just(f64::NAN)], 1..200),
        part in 0.0..1.0f64,
    ) {
        let options = OnlineOptions { warm_up: 20, ..OnlineOptions::default() };
        let make = || HmmFilter::new(two_states(), 8).unwrap().learning(options).unwrap();
        let cut = (values.len() as f64 * part) as usize;
        let mut one = make();
        values[..cut].iter().for_each(|&value| one.step(&[value]));
        let mut words = Vec::new();
        one.save(&mut words);
        let mut two = make();
        let mut reader = Words::new(&words);
        two.restore(&mut reader).unwrap();
        reader.end().unwrap();
        for &value in &values[cut..] {
            one.step(&[value]);
            two.step(&[value]);
            prop_assert_eq!(one.probabilities(), two.probabilities());
            prop_assert_eq!(one.state(3), two.state(3));
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        one.save(&mut a);
        two.save(&mut b);
        prop_assert_eq!(a, b);
    }
}
