//! Parameters from a whole series: expectation and conditional maximisation (Hamilton 1990, doi:10.1016/0304-4076(90)90093-9)
//! from seeded starts, then quasi-Newton steps, because EM leaves out what the first rows say about the chain and
//! becomes slow near the top.

use super::{SwitchingAr, finite};
use crate::RegimeError;
use crate::math::{exp, ln, normalise, solve};
use crate::random::Random;

/// How [`fit`] searches. The same options and series give the same model on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwitchingOptions {
    /// Regimes to find, 2 to 8.
    pub regimes: usize,
    /// Autoregressive coefficients.
    pub order: usize,
    /// Whether regimes differ in variance too.
    pub switching_variance: bool,
    /// Starts; the best end wins.
    pub restarts: u32,
    /// Seed of the starts.
    pub seed: u64,
    /// Most EM steps per start.
    pub iterations_max: u32,
    /// Least variance of a regime, as a share of the series' own.
    pub variance_min: f64,
}

impl Default for SwitchingOptions {
    fn default() -> Self {
        Self {
            regimes: 2,
            order: 0,
            switching_variance: false,
            restarts: 12,
            seed: 1,
            iterations_max: 200,
            variance_min: 1e-3,
        }
    }
}

/// Quasi-Newton steps at most.
const POLISH_MAX: usize = 200;
/// Starts whose ends are polished.
const POLISHED: usize = 3;

/// The likeliest model found and its log-likelihood; regimes in ascending order of their means.
///
/// # Errors
/// [`RegimeError`] when an option is out of range, a value is not finite, the series is too short or constant, or no start
/// succeeded.
pub fn fit(series: &[f64], options: &SwitchingOptions) -> Result<(SwitchingAr, f64), RegimeError> {
    let SwitchingOptions { regimes: k, order, .. } = *options;
    RegimeError::check("regimes", k as f64, (2..=8).contains(&k), "2 to 8")?;
    RegimeError::check(
        "restarts",
        f64::from(options.restarts),
        (1..=1_000).contains(&options.restarts),
        "1 to 1000",
    )?;
    let share = options.variance_min;
    RegimeError::check("variance_min", share, share > 0.0 && share < 1.0, "between 0 and 1")?;
    finite(series)?;
    let wanted = order.saturating_mul(2).saturating_add(10 * k);
    if series.len() < wanted {
        return Err(RegimeError::TooFew { found: series.len(), wanted });
    }
    let mean = series.iter().sum::<f64>() / series.len() as f64;
    let variance = series.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / series.len() as f64;
    RegimeError::check("variance of the series", variance, variance > 0.0, "more than 0")?;
    let floor = variance * share;
    let mut random = Random(options.seed);
    let mut ends = Vec::new();
    for _ in 0..options.restarts {
        let model = start(series, mean, variance, options, &mut random)?;
        let (model, likelihood) = climb(model, series, floor, options);
        if likelihood.is_finite() {
            ends.push((model, likelihood));
        }
    }
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    let polished = ends.into_iter().take(POLISHED).map(|(model, likelihood)| {
        polish(&model, series, floor, options.switching_variance).unwrap_or((model, likelihood))
    });
    let best = polished.max_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(model, likelihood)| (sorted(&model), likelihood)).ok_or(RegimeError::NoFit)
}

/// Regimes at random quantiles of the series, without autoregression.
fn start(
    series: &[f64],
    mean: f64,
    variance: f64,
    options: &SwitchingOptions,
    random: &mut Random,
) -> Result<SwitchingAr, RegimeError> {
    let k = options.regimes;
    let mut ordered = series.to_vec();
    ordered.sort_unstable_by(f64::total_cmp);
    let spread = 0.3 + 0.7 * random.unit();
    let drawn = |at: usize, unit: f64| {
        let place = (at as f64 + unit) / k as f64 * (ordered.len() - 1) as f64;
        mean + spread * (ordered[place as usize] - mean)
    };
    let means: Vec<f64> = (0..k).map(|at| drawn(at, random.unit())).collect();
    let transition: Vec<f64> = (0..k)
        .flat_map(|from| {
            let stay = 0.5 + 0.45 * random.unit();
            (0..k).map(move |to| if from == to { stay } else { (1.0 - stay) / (k - 1) as f64 })
        })
        .collect();
    let variances: Vec<f64> = (0..k).map(|_| variance * (0.2 + 0.8 * random.unit())).collect();
    let variances = if options.switching_variance { &variances[..] } else { &variances[..1] };
    SwitchingAr::new(&transition, &means, variances, &vec![0.0; options.order])
}

fn climb(
    mut model: SwitchingAr,
    series: &[f64],
    floor: f64,
    options: &SwitchingOptions,
) -> (SwitchingAr, f64) {
    let mut best = (model.clone(), f64::NEG_INFINITY);
    let mut before = f64::NEG_INFINITY;
    for _ in 0..options.iterations_max {
        let Ok((smoothed, likelihood)) = model.smooth_joint(series) else { break };
        if likelihood > best.1 {
            best = (model.clone(), likelihood);
        }
        if !((likelihood - before).abs() > 1e-6) {
            break;
        }
        before = likelihood;
        match improve(&model, series, &smoothed, floor, options.switching_variance) {
            Some(next) => model = next,
            None => break,
        }
    }
    best
}

/// One step: the chain, the means given the coefficients, the coefficients given the means, then the variances.
fn improve(
    model: &SwitchingAr,
    series: &[f64],
    smoothed: &[f64],
    floor: f64,
    switching_variance: bool,
) -> Option<SwitchingAr> {
    let (k, order) = (model.regimes, model.ar.len());
    let mut next = model.clone();
    next.transition.fill(0.0);
    // (row, combination, its weight)
    let weighted = || {
        let rows = smoothed.chunks_exact(model.joint).enumerate();
        rows.flat_map(|(row, chances)| {
            chances.iter().enumerate().map(move |(joint, &w)| (row + order, joint, w))
        })
    };
    for (_, joint, weight) in weighted() {
        next.transition[model.regime_of(joint, 1) * k + joint % k] += weight;
    }
    for row in next.transition.chunks_exact_mut(k) {
        normalise(row);
    }

    let (mut gram, mut right) = (vec![0.0; k * k], vec![0.0; k]);
    let mut loads = vec![0.0; k];
    for (row, joint, weight) in weighted() {
        // What a mean of 1 in each regime adds to the innovation.
        loads.fill(0.0);
        loads[joint % k] += 1.0;
        let mut target = series[row];
        for (at, coefficient) in model.ar.iter().enumerate() {
            loads[model.regime_of(joint, at + 1)] -= coefficient;
            target -= coefficient * series[row - 1 - at];
        }
        let weight = weight / model.variances[joint % k];
        for a in 0..k {
            right[a] += weight * loads[a] * target;
            for b in 0..k {
                gram[a * k + b] += weight * loads[a] * loads[b];
            }
        }
    }
    if !solve(&gram, k, &mut right, &mut vec![0.0; k * k]) {
        return None;
    }
    next.means = right;

    let (mut gram, mut right) = (vec![0.0; order * order], vec![0.0; order]);
    for (row, joint, weight) in weighted() {
        let weight = weight / model.variances[joint % k];
        let gap = |ago: usize| series[row - ago] - next.means[model.regime_of(joint, ago)];
        for a in 0..order {
            right[a] += weight * gap(a + 1) * gap(0);
            for b in 0..order {
                gram[a * order + b] += weight * gap(a + 1) * gap(b + 1);
            }
        }
    }
    if !solve(&gram, order, &mut right, &mut vec![0.0; order * order]) {
        return None;
    }
    next.ar = right;

    let (mut squares, mut weights) = (vec![0.0; k], vec![0.0; k]);
    for (row, joint, weight) in weighted() {
        let e = next.innovation(joint, series[row], |at| series[row - 1 - at]);
        squares[joint % k] += weight * e * e;
        weights[joint % k] += weight;
    }
    if !switching_variance {
        squares = vec![squares.iter().sum(); k];
        weights = vec![weights.iter().sum(); k];
    }
    next.variances =
        squares.iter().zip(&weights).map(|(square, weight)| (square / weight).max(floor)).collect();
    SwitchingAr::new(&next.transition, &next.means, &next.variances, &next.ar).ok()
}

/// Parameters without bounds: log odds of the transitions against staying, means, log variances over the floor, coefficients.
fn unbound(model: &SwitchingAr, floor: f64, switching_variance: bool) -> Vec<f64> {
    let k = model.regimes;
    let mut values = Vec::new();
    for from in 0..k {
        let stay = model.transition(from, from).max(1e-12);
        let others = (0..k).filter(|&to| to != from);
        values.extend(others.map(|to| ln(model.transition(from, to).max(1e-12) / stay)));
    }
    values.extend(&model.means);
    let variances = if switching_variance { &model.variances[..] } else { &model.variances[..1] };
    values.extend(variances.iter().map(|variance| ln((variance - floor).max(floor * 1e-6))));
    values.extend(&model.ar);
    values
}

fn bound(values: &[f64], k: usize, order: usize, floor: f64) -> Option<SwitchingAr> {
    let (odds, rest) = values.split_at(k * (k - 1));
    let (means, rest) = rest.split_at(k);
    let (variances, ar) = rest.split_at(rest.len() - order);
    let mut transition = vec![1.0; k * k];
    for from in 0..k {
        let mut own = odds[from * (k - 1)..].iter();
        for to in (0..k).filter(|&to| to != from) {
            transition[from * k + to] = exp(own.next()?.clamp(-40.0, 40.0));
        }
        normalise(&mut transition[from * k..(from + 1) * k]);
    }
    let variances: Vec<f64> = variances.iter().map(|value| exp(*value) + floor).collect();
    SwitchingAr::new(&transition, means, &variances, ar).ok()
}

/// Quasi-Newton steps (BFGS) on differences, with a line search that only goes up.
fn polish(
    model: &SwitchingAr,
    series: &[f64],
    floor: f64,
    switching_variance: bool,
) -> Option<(SwitchingAr, f64)> {
    let (k, order) = (model.regimes, model.ar.len());
    let value = |point: &[f64]| {
        let likelihood = bound(point, k, order, floor)
            .and_then(|model| model.filter(series).ok())
            .map(|found| found.log_likelihood);
        likelihood.filter(|likelihood| likelihood.is_finite()).unwrap_or(f64::NEG_INFINITY)
    };
    let gradient = |point: &[f64]| -> Vec<f64> {
        let mut moved = point.to_vec();
        (0..point.len())
            .map(|at| {
                let step = 1e-6 * (1.0 + point[at].abs());
                moved[at] = point[at] + step;
                let up = value(&moved);
                moved[at] = point[at] - step;
                let down = value(&moved);
                moved[at] = point[at];
                (up - down) / (2.0 * step)
            })
            .collect()
    };
    let mut point = unbound(model, floor, switching_variance);
    let size = point.len();
    let mut height = value(&point);
    let mut slope = gradient(&point);
    let identity =
        || (0..size * size).map(|at| f64::from(u8::from(at / size == at % size))).collect::<Vec<f64>>();
    let mut inverse = identity();
    for _ in 0..POLISH_MAX {
        if !slope.iter().all(|value| value.is_finite()) {
            break;
        }
        let mut way: Vec<f64> =
            (0..size).map(|row| (0..size).map(|at| inverse[row * size + at] * slope[at]).sum()).collect();
        let mut rise: f64 = way.iter().zip(&slope).map(|(a, b)| a * b).sum();
        if !(rise > 0.0) {
            (inverse, way) = (identity(), slope.clone());
            rise = slope.iter().map(|value| value * value).sum();
        }
        if rise < 1e-12 {
            break;
        }
        // No parameter moves by more than 2 at once: far out the likelihood is flat.
        let longest = way.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let mut length = (2.0 / longest).min(1.0);
        let found = (0..40).find_map(|_| {
            let next: Vec<f64> = point.iter().zip(&way).map(|(value, way)| value + length * way).collect();
            let reached = value(&next);
            let better = reached >= height + 1e-4 * length * rise;
            length *= 0.5;
            better.then_some((next, reached))
        });
        let Some((next, reached)) = found else { break };
        let after = gradient(&next);
        let s: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        // For a maximum the curvature condition is on the negative gradient.
        let y: Vec<f64> = slope.iter().zip(&after).map(|(a, b)| a - b).collect();
        let sy: f64 = s.iter().zip(&y).map(|(a, b)| a * b).sum();
        if sy > 1e-12 {
            let hy: Vec<f64> =
                (0..size).map(|row| (0..size).map(|at| inverse[row * size + at] * y[at]).sum()).collect();
            let yhy: f64 = y.iter().zip(&hy).map(|(a, b)| a * b).sum();
            for row in 0..size {
                for at in 0..size {
                    inverse[row * size + at] +=
                        (1.0 + yhy / sy) * s[row] * s[at] / sy - (hy[row] * s[at] + s[row] * hy[at]) / sy;
                }
            }
        }
        let gained = reached - height;
        (point, height, slope) = (next, reached, after);
        if gained < 1e-10 {
            break;
        }
    }
    Some((bound(&point, k, order, floor)?, height)).filter(|(_, height)| height.is_finite())
}

/// The same model with regimes in ascending order of their means.
fn sorted(model: &SwitchingAr) -> SwitchingAr {
    let k = model.regimes;
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| model.means[a].total_cmp(&model.means[b]));
    let mut next = model.clone();
    for (to, &from) in order.iter().enumerate() {
        next.means[to] = model.means[from];
        next.variances[to] = model.variances[from];
        for (column, &other) in order.iter().enumerate() {
            next.transition[to * k + column] = model.transition(from, other);
        }
    }
    next
}
