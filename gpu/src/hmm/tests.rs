use super::*;
use crate::philox::philox4x32;
use crate::{Backend, Cpu};
use proptest::prelude::*;

fn unit(at: usize, of: u32) -> f64 {
    f64::from(philox4x32([at as u32, of, 0, 0], [8, 1])[0]) / 4_294_967_296.0
}

/// Parameters of models, model by model.
struct Drawn {
    states: usize,
    initial: Vec<f64>,
    transition: Vec<f64>,
    means: Vec<f64>,
    deviations: Vec<f64>,
}

impl Drawn {
    fn new(states: usize, models: usize, seed: u32) -> Self {
        let rows = |rows: usize, of: u32| -> Vec<f64> {
            let row = |row: usize| {
                let raw: Vec<f64> = (0..states).map(|at| unit(row * states + at, of)).collect();
                let sum: f64 = raw.iter().sum();
                raw.into_iter().map(move |chance| chance / sum)
            };
            (0..rows).flat_map(row).collect()
        };
        let count = states * models;
        Self {
            states,
            initial: rows(models, seed),
            transition: rows(count, seed + 1),
            means: (0..count).map(|at| 6.0 * unit(at, seed + 2) - 3.0).collect(),
            deviations: (0..count).map(|at| 0.2 + 2.0 * unit(at, seed + 3)).collect(),
        }
    }

    fn models(&self) -> HmmModels<'_> {
        HmmModels {
            states: self.states,
            initial: &self.initial,
            transition: &self.transition,
            means: &self.means,
            deviations: &self.deviations,
        }
    }
}

fn ln_sum(terms: &[f64]) -> f64 {
    let best = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if best == f64::NEG_INFINITY {
        return best;
    }
    best + terms.iter().map(|term| libm::exp(term - best)).sum::<f64>().ln()
}

fn ln_density(x: f64, mean: f64, deviation: f64) -> f64 {
    let z = (x - mean) / deviation;
    -0.5 * z * z - libm::log(deviation) - 0.5 * std::f64::consts::TAU.ln()
}

/// Forward and backward in logarithms, written down plainly: `ln alpha` and `ln beta` row by row, and the log-likelihood.
fn plain(k: usize, model: usize, of: &HmmModels<'_>, xs: &[f64]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>, f64) {
    let (initial, transition) = (&of.initial[model * k..], &of.transition[model * k * k..]);
    let density =
        |state: usize, x: f64| ln_density(x, of.means[model * k + state], of.deviations[model * k + state]);
    let mut alphas: Vec<Vec<f64>> = Vec::new();
    for (at, &x) in xs.iter().enumerate() {
        let into = |to: usize| match at {
            0 => initial[to].ln(),
            _ => {
                let came = |from: usize| alphas[at - 1][from] + transition[from * k + to].ln();
                ln_sum(&(0..k).map(came).collect::<Vec<_>>())
            }
        };
        let row = (0..k).map(|to| into(to) + density(to, x)).collect();
        alphas.push(row);
    }
    let mut betas = vec![vec![0.0; k]; xs.len()];
    for at in (0..xs.len() - 1).rev() {
        for from in 0..k {
            let goes =
                |to: usize| transition[from * k + to].ln() + density(to, xs[at + 1]) + betas[at + 1][to];
            betas[at][from] = ln_sum(&(0..k).map(goes).collect::<Vec<_>>());
        }
    }
    let likelihood = ln_sum(&alphas[xs.len() - 1]);
    (alphas, betas, likelihood)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn filters_are_the_plain_recursion(states in 1usize..=8, models in 1usize..40, rows in 1usize..30, seed in 0u32..1000, wild in 0usize..3) {
        let drawn = Drawn::new(states, models, 10 * seed);
        let scale = [1.0, 8.0, 1e4][wild];
        let values: Vec<f64> = (0..rows * models).map(|at| scale * (unit(at, 10 * seed + 7) - 0.5)).collect();
        let mut bank = HmmBank::new(&drawn.models()).unwrap();
        Cpu::new(1).unwrap().hmm_filter(&mut bank, &values).unwrap();
        prop_assert_eq!(bank.rows(), rows as u64);
        for model in 0..models {
            let xs: Vec<f64> = values.iter().copied().skip(model).step_by(models).collect();
            let (alphas, _, likelihood) = plain(states, model, &drawn.models(), &xs);
            let last = &alphas[rows - 1];
            let sum = ln_sum(last);
            for state in 0..states {
                let found = bank.probability(model, state);
                // Both round a logarithm of that size.
                let near = 1e-9 + 4e-15 * likelihood.abs();
                let wanted = libm::exp(last[state] - sum);
                prop_assert!((found - wanted).abs() < near, "model {} state {}: {} {}", model, state, found, wanted);
            }
            let found = bank.log_likelihood(model);
            prop_assert!((found - likelihood).abs() <= 1e-9 * likelihood.abs().max(1.0), "{} {}", found, likelihood);
        }
        // Cut anywhere, the same bits.
        let mut cut = HmmBank::new(&drawn.models()).unwrap();
        let (one, other) = values.split_at(rows / 3 * models);
        let cpu = Cpu::new(2).unwrap();
        cpu.hmm_filter(&mut cut, one).unwrap();
        cpu.hmm_filter(&mut cut, other).unwrap();
        prop_assert_eq!(format!("{cut:?}"), format!("{bank:?}"));
    }

    #[test]
    fn an_iteration_is_the_plain_one_and_never_makes_the_series_less_likely(states in 1usize..=4, series in 1usize..20, seed in 0u32..1000) {
        let rows = 40;
        let value = |at: usize| {
            let regime = if at / series % 16 < 7 { 0.0 } else { 2.5 };
            regime + unit(at, 10 * seed + 7) + unit(at, 10 * seed + 8) - 1.0
        };
        let values: Vec<f64> = (0..rows * series).map(value).collect();
        let request = FitRequest { values: &values, series, states, iterations: 1, restarts: 1, deviation_floor: 1e-3, seed: seed.into() };
        let cpu = Cpu::new(1).unwrap();
        let found = cpu.hmm_fit(&request).unwrap();
        let (start, _) = request.starts();
        for model in 0..series {
            let xs: Vec<f64> = values.iter().copied().skip(model).step_by(series).collect();
            let pick = |numbers: &[f64], each: usize| -> Vec<f64> { (0..each).map(|at| numbers[at * series + model]).collect() };
            let (initial, transition) = (pick(&start.initial, states), pick(&start.transition, states * states));
            let (means, deviations) = (pick(&start.means, states), pick(&start.deviations, states));
            let of = HmmModels { states, initial: &initial, transition: &transition, means: &means, deviations: &deviations };
            let (alphas, betas, likelihood) = plain(states, 0, &of, &xs);
            let gamma = |at: usize, k: usize| libm::exp(alphas[at][k] + betas[at][k] - likelihood);
            for k in 0..states {
                let spent: f64 = (0..rows).map(|at| gamma(at, k)).sum();
                let mean = (0..rows).map(|at| gamma(at, k) * xs[at]).sum::<f64>() / spent;
                // States come in the order of their means; starts have theirs in order, and one iteration keeps it here.
                let place = (0..states).min_by(|&a, &b| {
                    let far = |at: usize| (found.means[model * states + at] - mean).abs();
                    far(a).total_cmp(&far(b))
                }).unwrap();
                prop_assert!((found.means[model * states + place] - mean).abs() < 1e-8, "mean {}", mean);
                let variance = (0..rows).map(|at| gamma(at, k) * (xs[at] - mean).powi(2)).sum::<f64>() / spent;
                prop_assert!((found.deviations[model * states + place].powi(2) - variance).abs() < 1e-8 * variance.max(1e-3), "variance {}", variance);
                prop_assert!((found.initial[model * states + place] - gamma(0, k)).abs() < 1e-9);
                let leaving: f64 = (0..rows - 1).map(|at| gamma(at, k)).sum();
                let stay: f64 = (0..rows - 1).map(|at| {
                    libm::exp(alphas[at][k] + transition[k * states + k].ln() + ln_density(xs[at + 1], means[k], deviations[k]) + betas[at + 1][k] - likelihood)
                }).sum::<f64>() / leaving;
                prop_assert!((found.transition[(model * states + place) * states + place] - stay).abs() < 1e-8, "stay {}", stay);
            }
        }
        let mut before = vec![f64::NEG_INFINITY; series];
        for iterations in 1..12 {
            let found = cpu.hmm_fit(&FitRequest { iterations, ..request }).unwrap();
            for (before, now) in before.iter_mut().zip(&found.log_likelihoods) {
                prop_assert!(*now >= *before - 1e-7, "{} after {}", now, before);
                *before = *now;
            }
        }
    }
}

#[test]
fn the_regimes_of_a_drawn_series_are_found_again() {
    // Two states, stays of 0.95: 24 series of 1,500 rows.
    let (series, rows) = (24, 1_500);
    let mut values = vec![0.0; series * rows];
    for column in 0..series {
        let mut state = 0;
        for row in 0..rows {
            let at = row * series + column;
            if unit(at, 1) < 0.05 {
                state = 1 - state;
            }
            let normal = (0..12).map(|part| unit(at, 20 + part)).sum::<f64>() - 6.0;
            values[at] = if state == 0 { -1.0 + 0.5 * normal } else { 2.0 + normal };
        }
    }
    let request = FitRequest {
        values: &values,
        series,
        states: 2,
        iterations: 30,
        restarts: 3,
        deviation_floor: 1e-3,
        seed: 4,
    };
    let found = Cpu::new(0).unwrap().hmm_fit(&request).unwrap();
    assert_eq!(found, Cpu::new(1).unwrap().hmm_fit(&request).unwrap(), "any number of threads");
    for model in 0..series {
        let near = |found: f64, wanted: f64, by: f64| {
            assert!((found - wanted).abs() < by, "series {model}: {found} for {wanted}");
        };
        near(found.means[2 * model], -1.0, 0.12);
        near(found.means[2 * model + 1], 2.0, 0.25);
        near(found.deviations[2 * model], 0.5, 0.1);
        near(found.deviations[2 * model + 1], 1.0, 0.2);
        near(found.transition[4 * model], 0.95, 0.03);
        near(found.transition[4 * model + 3], 0.95, 0.03);
    }
    // What is found filters as any model does.
    assert_eq!(HmmBank::new(&found.models()).unwrap().models(), series);
}

#[test]
fn observations_that_the_model_calls_impossible_leave_probabilities() {
    // From the first state nothing leads to the second, and the value is far out of the first.
    let models = HmmModels {
        states: 2,
        initial: &[1.0, 0.0],
        transition: &[1.0, 0.0, 0.0, 1.0],
        means: &[0.0, 100.0],
        deviations: &[1e-3, 1.0],
    };
    let mut bank = HmmBank::new(&models).unwrap();
    let cpu = Cpu::new(1).unwrap();
    cpu.hmm_filter(&mut bank, &[100.0, -1e15, 1e15, 0.0]).unwrap();
    assert_eq!((bank.probability(0, 0), bank.probability(0, 1)), (1.0, 0.0));
    assert!(bank.log_likelihood(0).is_finite() && bank.log_likelihood(0) < -5e29);
    // A series that stands still, and one value far out, have models too.
    let mut values = vec![5.0; 60];
    values[31] = 1e15;
    let request = FitRequest {
        values: &values,
        series: 2,
        states: 3,
        iterations: 20,
        restarts: 2,
        deviation_floor: 1e-6,
        seed: 1,
    };
    let found = cpu.hmm_fit(&request).unwrap();
    assert!(found.log_likelihoods.iter().all(|likelihood| likelihood.is_finite()), "{found:?}");
    found.models().check().unwrap();
}

#[test]
fn wrong_requests_are_refused_by_name() {
    let good = HmmModels {
        states: 2,
        initial: &[0.5, 0.5],
        transition: &[0.9, 0.1, 0.2, 0.8],
        means: &[0.0, 1.0],
        deviations: &[1.0, 1.0],
    };
    let text = |models: HmmModels<'_>| HmmBank::new(&models).unwrap_err().to_string();
    assert_eq!(text(HmmModels { states: 0, ..good }), "states: 0; allowed are 1 to 8");
    assert_eq!(text(HmmModels { states: 9, ..good }), "states: 9; allowed are 1 to 8");
    assert_eq!(text(HmmModels { initial: &[], ..good }), "models: 0; allowed are 1 to 1048576");
    assert_eq!(text(HmmModels { means: &[0.0], ..good }), "means: length 1, but 2 is needed");
    assert_eq!(
        text(HmmModels { transition: &[0.9, 0.2, 0.2, 0.8], ..good }),
        "transition probabilities, row 0: they add up to 1.1, not to 1"
    );
    assert_eq!(
        text(HmmModels { initial: &[-0.5, 1.5], ..good }),
        "initial probabilities is -0.5; allowed is 0 to 1"
    );
    for deviation in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = text(HmmModels { deviations: &[1.0, deviation], ..good });
        assert!(refused.ends_with("allowed is 1e-100 to 1e15"), "{refused}");
    }
    assert!(text(HmmModels { means: &[f64::NAN, 0.0], ..good }).starts_with("a mean is NaN"));

    let cpu = Cpu::new(1).unwrap();
    let mut bank = HmmBank::new(&HmmModels {
        initial: &[0.5; 4],
        transition: &[0.5; 8],
        means: &[0.0; 4],
        deviations: &[1.0; 4],
        ..good
    })
    .unwrap();
    let before = format!("{bank:?}");
    let refuse = |bank: &mut HmmBank, values: &[f64]| cpu.hmm_filter(bank, values).unwrap_err().to_string();
    assert_eq!(refuse(&mut bank, &[1.0, 2.0, 3.0]), "values: length 3, but 2 is needed");
    assert_eq!(refuse(&mut bank, &[1.0, f64::NAN]), "values[1] is NaN; every value must be finite");
    assert_eq!(refuse(&mut bank, &[1.0, -2e15]), "a value is -2000000000000000; allowed is -1e15 to 1e15");
    cpu.hmm_filter(&mut bank, &[]).unwrap();
    assert_eq!(format!("{bank:?}"), before, "no rows, nothing changed");

    let values = [0.0; 12];
    let request = FitRequest {
        values: &values,
        series: 2,
        states: 2,
        iterations: 1,
        restarts: 1,
        deviation_floor: 0.01,
        seed: 0,
    };
    let text = |request: FitRequest<'_>| cpu.hmm_fit(&request).unwrap_err().to_string();
    assert_eq!(text(FitRequest { series: 0, ..request }), "series: 0; allowed are 1 to 1048576");
    assert_eq!(text(FitRequest { values: &[], ..request }), "rows: 0; allowed are 2 to 1073741824");
    assert_eq!(text(FitRequest { values: &[1.0; 2], ..request }), "rows: 1; allowed are 2 to 1073741824");
    assert_eq!(text(FitRequest { iterations: 0, ..request }), "iterations: 0; allowed are 1 to 1000");
    assert_eq!(text(FitRequest { restarts: 257, ..request }), "restarts: 257; allowed are 1 to 256");
    let long = vec![0.0; 1 << 20];
    assert_eq!(
        text(FitRequest { values: &long, series: 1, ..request }),
        "rows x numbers kept of each: 1048576 x 6 of them is more than the 4194304 a batch may have"
    );
    assert!(text(FitRequest { deviation_floor: 0.0, ..request }).starts_with("deviation floor is 0"));
}
