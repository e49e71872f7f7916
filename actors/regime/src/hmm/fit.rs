//! Parameters from a whole series: expectation maximisation (Baum et al. 1970, doi:10.1214/aoms/1177697196) from several
//! seeded starts.

use super::{GaussianHmm, STATES_MAX};
use crate::RegimeError;
use crate::math::normalise;
use crate::random::Random;

/// How [`fit`] searches. The same options and series give the same model on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// States to find.
    pub states: usize,
    /// Starts; the best end wins.
    pub restarts: u32,
    /// Seed of the starts.
    pub seed: u64,
    /// Most steps per start.
    pub iterations_max: u32,
    /// A start has ended when a step gains less log-likelihood than this.
    pub tolerance: f64,
    /// Least variance of a state, as a share of the series' own: without it a state could settle on one observation.
    pub variance_min: f64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { states: 2, restarts: 8, seed: 1, iterations_max: 500, tolerance: 1e-7, variance_min: 1e-3 }
    }
}

/// The likeliest model found, and its log-likelihood. `series` is row-major, `dimensions` values to a row; rows with a
/// missing value (NaN) only let time pass.
///
/// # Errors
/// [`RegimeError`] when an option is out of range, a value is infinite, there are fewer than ten complete rows per state,
/// a dimension never varies, or no start succeeded.
pub fn fit(
    series: &[f64],
    dimensions: usize,
    options: &FitOptions,
) -> Result<(GaussianHmm, f64), RegimeError> {
    let k = options.states;
    RegimeError::check("states", k as f64, (1..=STATES_MAX).contains(&k), "1 to 16")?;
    RegimeError::check("dimensions", dimensions as f64, (1..=8).contains(&dimensions), "1 to 8")?;
    RegimeError::check(
        "restarts",
        f64::from(options.restarts),
        (1..=1_000).contains(&options.restarts),
        "1 to 1000",
    )?;
    let share = options.variance_min;
    RegimeError::check("variance_min", share, share > 0.0 && share < 1.0, "between 0 and 1")?;
    RegimeError::check("tolerance", options.tolerance, options.tolerance >= 0.0, "0 or more")?;
    RegimeError::length("series", series.len(), series.len() / dimensions * dimensions)?;
    if let Some(index) = series.iter().position(|value| value.is_infinite() || value.abs() > 1e100) {
        return Err(RegimeError::NotFinite { index, value: series[index] });
    }
    let rows: Vec<&[f64]> =
        series.chunks_exact(dimensions).filter(|row| !row.iter().any(|value| value.is_nan())).collect();
    if rows.len() < 10 * k {
        return Err(RegimeError::TooFew { found: rows.len(), wanted: 10 * k });
    }
    let overall = moments(&rows, dimensions);
    if let Some(at) = (0..dimensions).find(|at| !(overall.1[at * dimensions + at] > 0.0)) {
        let value = overall.1[at * dimensions + at];
        return Err(RegimeError::Parameter { name: "variance of the series", value, allowed: "more than 0" });
    }
    let mut random = Random(options.seed);
    let mut best: Option<(GaussianHmm, f64)> = None;
    for _ in 0..options.restarts {
        let Some(start) = start(&rows, &overall, k, dimensions, &mut random) else { continue };
        let (model, likelihood) = climb(start, series, &overall.1, options);
        if likelihood.is_finite() && best.as_ref().is_none_or(|(_, most)| likelihood > *most) {
            best = Some((model, likelihood));
        }
    }
    best.ok_or(RegimeError::NoFit)
}

/// Mean and covariance of all rows.
fn moments(rows: &[&[f64]], d: usize) -> (Vec<f64>, Vec<f64>) {
    let n = rows.len() as f64;
    let mean: Vec<f64> = (0..d).map(|at| rows.iter().map(|row| row[at]).sum::<f64>() / n).collect();
    let product =
        |a: usize, b: usize| rows.iter().map(|row| (row[a] - mean[a]) * (row[b] - mean[b])).sum::<f64>() / n;
    let covariance = (0..d * d).map(|at| product(at / d, at % d)).collect();
    (mean, covariance)
}

/// A model around observations drawn at random, later ones rather far from earlier ones (as in k-means++), each with a
/// random share of the overall spread, so that states may differ in width as well as in place.
fn start(
    rows: &[&[f64]],
    (mean, covariance): &(Vec<f64>, Vec<f64>),
    k: usize,
    d: usize,
    random: &mut Random,
) -> Option<GaussianHmm> {
    let distance = |a: &[f64], b: &[f64]| -> f64 {
        (0..d).map(|at| (a[at] - b[at]) * (a[at] - b[at]) / covariance[at * d + at]).sum()
    };
    let mut means: Vec<f64> = Vec::with_capacity(k * d);
    let mut covariances = Vec::with_capacity(k * d * d);
    // Centres near the middle find states that differ in width; spread ones, states that differ in place.
    let spread = random.unit();
    for state in 0..k {
        let nearest = |row: &&[f64]| {
            means.chunks_exact(d).map(|mean| distance(row, mean)).fold(f64::INFINITY, f64::min).min(9.0)
        };
        let weights: Vec<f64> =
            if state == 0 { vec![1.0; rows.len()] } else { rows.iter().map(nearest).collect() };
        let mut left = random.unit() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        let row = rows[drawn.unwrap_or(rows.len() - 1)];
        means.extend((0..d).map(|at| mean[at] + spread * (row[at] - mean[at])));
        let width = 0.1 + 1.9 * random.unit();
        covariances.extend((0..d * d).map(|at| {
            let own = width * covariance[at];
            // A ridge: dimensions that move together exactly have a singular covariance.
            if at / d == at % d { own * 1.01 } else { own }
        }));
    }
    let stay = 0.6 + 0.39 * random.unit();
    let leave = if k == 1 { 0.0 } else { (1.0 - stay) / (k - 1) as f64 };
    let stay = if k == 1 { 1.0 } else { stay };
    let transition: Vec<f64> = (0..k * k).map(|at| if at / k == at % k { stay } else { leave }).collect();
    GaussianHmm::new(&vec![1.0 / k as f64; k], &transition, &means, &covariances).ok()
}

/// Expectation maximisation until it gains too little.
fn climb(
    mut model: GaussianHmm,
    series: &[f64],
    overall: &[f64],
    options: &FitOptions,
) -> (GaussianHmm, f64) {
    let mut before = f64::NEG_INFINITY;
    let mut best = (model.clone(), before);
    for _ in 0..options.iterations_max {
        let (likelihood, next) = improve(&model, series, overall, options.variance_min);
        if likelihood > best.1 {
            best = (model, likelihood);
        }
        let Some(next) = next else { break };
        if !(likelihood - before > options.tolerance) {
            break;
        }
        (before, model) = (likelihood, next);
    }
    best
}

/// The log-likelihood of `model`, and a model that is likelier.
fn improve(
    model: &GaussianHmm,
    series: &[f64],
    overall: &[f64],
    variance_min: f64,
) -> (f64, Option<GaussianHmm>) {
    let (k, d) = (model.states(), model.dimensions());
    let mut filtered = Vec::new();
    let Ok(likelihood) = model.filter(series, Some(&mut filtered)) else { return (f64::NEG_INFINITY, None) };
    let Ok(smoothed) = model.smooth(series) else { return (f64::NEG_INFINITY, None) };
    let rows = series.len() / d;
    let mut counts = vec![0.0; k * k];
    for row in 0..rows - 1 {
        let (now, next) = (&filtered[row * k..], &smoothed[(row + 1) * k..(row + 2) * k]);
        for to in 0..k {
            let arriving: f64 = (0..k).map(|from| now[from] * model.transition(from, to)).sum();
            if arriving > 0.0 {
                for from in 0..k {
                    counts[from * k + to] += now[from] * model.transition(from, to) / arriving * next[to];
                }
            }
        }
    }
    for row in counts.chunks_exact_mut(k) {
        normalise(row);
    }
    let (mut means, mut covariances) = (vec![0.0; k * d], vec![0.0; k * d * d]);
    for state in 0..k {
        let weighted = || {
            let rows = series.chunks_exact(d).zip(smoothed.chunks_exact(k));
            rows.filter(|(row, _)| !row.iter().any(|value| value.is_nan()))
                .map(|(row, chances)| (row, chances[state]))
        };
        let weight: f64 = weighted().map(|(_, chance)| chance).sum();
        if !(weight > 1e-8) {
            return (likelihood, None);
        }
        let mean = &mut means[state * d..(state + 1) * d];
        for (row, chance) in weighted() {
            (0..d).for_each(|at| mean[at] += chance * row[at] / weight);
        }
        let covariance = &mut covariances[state * d * d..(state + 1) * d * d];
        for (row, chance) in weighted() {
            for at in 0..d * d {
                covariance[at] +=
                    chance * (row[at / d] - mean[at / d]) * (row[at % d] - mean[at % d]) / weight;
            }
        }
        for at in 0..d {
            let place = at * d + at;
            covariance[place] = covariance[place].max(variance_min * overall[place]);
        }
    }
    (likelihood, GaussianHmm::new(&smoothed[..k], &counts, &means, &covariances).ok())
}
