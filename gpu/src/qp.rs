//! Many long-only portfolios of one set of assets at once.
//!
//! The alternating direction method (Boyd et al. 2011, section 5.2.1) finds out which assets each holds: all portfolios share one
//! matrix, so a step is one product of matrices, in single precision. What is held is then solved for in double precision, and
//! assets are dropped and added until nothing betters the portfolio (Markowitz 1956); where that comes to no end, the interior point
//! method has the last word.
//!
//! **Equality:** every portfolio is shown to be within [`GAP_MAX`] of the optimum, as a share of its objective, by the slopes
//! there; bit-equal on any number of threads and on a device.

use crate::BatchError;
use crate::cholesky::Cholesky;
use crate::lanes::widest;
use crate::portfolio::{Assets, Portfolio, dot};
use crate::product::{Panels, TALL, WIDE, tile};
use rayon::prelude::*;

/// Most portfolios.
pub const PORTFOLIOS_MAX: u64 = 1 << 16;
/// Most weights (assets x portfolios).
pub const WEIGHTS_MAX: u64 = 1 << 26;
/// Most steps of the alternating direction method.
pub const STEPS_MAX: u64 = 10_000;
/// Largest gap of a portfolio, as a share of its objective's size.
pub const GAP_MAX: f64 = 1e-9;
/// Steps between looks.
const LOOK: u32 = 25;
/// How far a step goes.
pub(crate) const RELAXED: f32 = 1.6;
/// The weight of the distance at first, beside covariances of mean diagonal 1; it is changed so often at most, each time at the cost
/// of one inverse.
const RHO: f64 = 0.3;
const RHO_CHANGES: usize = 3;
/// Weights that move by less than this have found their place: what is held is solved for anyway.
const SETTLED: f32 = 2e-5;
/// Times assets are dropped or added, all at once and then one by one.
const ROUNDS_AT_ONCE: usize = 10;
const ROUNDS_ONE_BY_ONE: usize = 200;
/// What is less than nothing by rounding alone.
const LEAST: f64 = -1e-12;
/// In single precision nothing is drawn away further than this.
const TILT_LEAST: f64 = -1e6;

/// What the portfolios are to be.
#[derive(Clone, Copy, Debug)]
pub enum Aim<'a> {
    /// Largest mean less half of the variance times this: a portfolio per aversion, above 0.
    Aversions(&'a [f64]),
    /// Least variance of this mean: a portfolio per mean.
    Means(&'a [f64]),
    /// As for an aversion, each with expected returns of its own in place of the assets'.
    Views {
        /// Portfolio by portfolio, one return per asset.
        returns: &'a [f64],
        /// Of all portfolios, above 0.
        aversion: f64,
    },
}

/// Long-only portfolios of one set of assets.
#[derive(Clone, Copy, Debug)]
pub struct LongOnlyBatch<'a> {
    /// The assets.
    pub assets: &'a Assets,
    /// What the portfolios are to be.
    pub aim: Aim<'a>,
    /// Most steps until what is held is solved for, 1 to [`STEPS_MAX`]; 200 is enough for most.
    pub steps: u32,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct LongOnlyFound {
    /// In the order of the request.
    pub portfolios: Vec<Portfolio>,
    /// Steps that were taken.
    pub steps: u32,
    /// Portfolios that took the interior point method.
    pub interior: usize,
}

/// What a step multiplies with and adds.
pub(crate) struct Problem {
    /// assets x assets, symmetric.
    pub(crate) inverse: Vec<f32>,
    pub(crate) base: Vec<f32>,
    pub(crate) slope: Vec<f32>,
    pub(crate) rho: f32,
    /// For the distances added up under another `rho`.
    pub(crate) rescale: f32,
}

/// Where the steps are taken: here or on a device.
pub(crate) trait Steps {
    type Error: From<BatchError>;

    fn load(&mut self, problem: &Problem) -> Result<(), Self::Error>;

    /// So many steps; of the last one the largest distance of each portfolio from one without short sales, then how far that went.
    fn run(&mut self, steps: u32) -> Result<Vec<f32>, Self::Error>;

    /// Asset by asset, a column per portfolio.
    fn weights(&mut self) -> Result<Vec<f32>, Self::Error>;
}

/// Where the steps begin. Matrices are asset by asset, a column per portfolio.
pub(crate) struct Start {
    pub(crate) tilt: Vec<f32>,
    pub(crate) wanted: Vec<f32>,
    pub(crate) z: Vec<f32>,
}

impl LongOnlyBatch<'_> {
    /// Checks every shape and number; returns how many portfolios there are.
    ///
    /// # Errors
    /// [`BatchError`]; a mean that no portfolio has is a [`BatchError::Parameter`].
    pub fn check(&self) -> Result<usize, BatchError> {
        let count = self.assets.means().len();
        BatchError::count("steps", self.steps as usize, 1, STEPS_MAX)?;
        let above = |x: f64| x > 0.0;
        let (portfolios, what) = match self.aim {
            Aim::Aversions(aversions) => (aversions.len(), "portfolios"),
            Aim::Means(means) => (means.len(), "portfolios"),
            Aim::Views { returns, .. } => (returns.len() / count, "portfolios"),
        };
        BatchError::count(what, portfolios, 1, PORTFOLIOS_MAX)?;
        BatchError::product("assets x portfolios", &[count as u64, portfolios as u64], WEIGHTS_MAX)?;
        match self.aim {
            Aim::Aversions(aversions) => {
                aversions.iter().try_for_each(|&x| BatchError::parameter("aversion", x, above, "above 0"))?;
            }
            Aim::Means(means) => {
                let (low, high) = self.assets.range();
                let allowed = "from the smallest to the largest of the assets'";
                let fits = |x| (low..=high).contains(&x);
                means.iter().try_for_each(|&x| BatchError::parameter("mean", x, fits, allowed))?;
            }
            Aim::Views { returns, aversion } => {
                BatchError::length("returns", returns.len(), portfolios * count)?;
                BatchError::finite("returns", returns)?;
                BatchError::parameter("aversion", aversion, above, "above 0")?;
            }
        }
        // Beyond this the variance would be less than the rounding of the mean.
        let steepest = (0..portfolios).flat_map(|at| self.tilt(at)).fold(0.0, |a: f64, b| a.max(b.abs()));
        let fits = |x: f64| x < 1e15;
        BatchError::parameter("a return over aversion and variance", steepest, fits, "less than 1e15")?;
        Ok(portfolios)
    }

    /// Whether the portfolios have a mean to keep to: not where all assets have the same.
    fn keeps_mean(&self) -> bool {
        let (low, high) = self.assets.range();
        matches!(self.aim, Aim::Means(_)) && low < high
    }

    /// What draws a portfolio to each asset, beside covariances over their scale.
    fn tilt(&self, portfolio: usize) -> Vec<f64> {
        let scale = self.assets.scale();
        let of = |means: &[f64], aversion: f64| -> Vec<f64> {
            means.iter().map(|mean| mean / aversion / scale).collect()
        };
        let count = self.assets.means().len();
        match self.aim {
            Aim::Aversions(aversions) => of(self.assets.means(), aversions[portfolio]),
            Aim::Means(_) => vec![0.0; count],
            Aim::Views { returns, aversion } => of(&returns[portfolio * count..][..count], aversion),
        }
    }

    /// The mean a portfolio has to keep to, from 0 at the smallest to 1 at the largest.
    fn wanted(&self, portfolio: usize) -> Option<f64> {
        let (low, high) = self.assets.range();
        match self.aim {
            Aim::Means(means) if low < high => Some((means[portfolio] - low) / (high - low)),
            _ => None,
        }
    }

    pub(crate) fn start(&self, portfolios: usize) -> Start {
        let count = self.assets.means().len();
        let mut tilt = vec![0.0; count * portfolios];
        for portfolio in 0..portfolios {
            let own = self.tilt(portfolio);
            // Only differences count, as all portfolios pay the same budget.
            let most = own.iter().fold(f64::NEG_INFINITY, |most, &tilt| most.max(tilt));
            for (asset, own) in own.iter().enumerate() {
                tilt[asset * portfolios + portfolio] = (own - most).max(TILT_LEAST) as f32;
            }
        }
        let wanted = (0..portfolios).map(|at| self.wanted(at).unwrap_or(0.0) as f32).collect();
        Start { tilt, wanted, z: vec![1.0 / count as f32; count * portfolios] }
    }

    pub(crate) fn run(&self) -> Result<LongOnlyFound, BatchError> {
        let portfolios = self.check()?;
        let start = self.start(portfolios);
        self.solve(portfolios, &mut CpuSteps::new(&start, self.assets.means().len()))
    }

    /// Covariances over their scale, checked to be positive definite but for rounding.
    fn covariances(&self) -> Result<Vec<f64>, BatchError> {
        let count = self.assets.means().len();
        let scale = self.assets.scale();
        let mut found: Vec<f64> = self.assets.covariances().iter().map(|entry| entry / scale).collect();
        (0..count).for_each(|at| found[at * count + at] += 1e-10);
        Cholesky::new(&found, count)?;
        (0..count).for_each(|at| found[at * count + at] -= 1e-10);
        Ok(found)
    }

    pub(crate) fn solve<S: Steps>(
        &self,
        portfolios: usize,
        steps: &mut S,
    ) -> Result<LongOnlyFound, S::Error> {
        let covariances = self.covariances()?;
        let mut rho = RHO;
        let mut changes = 0;
        steps.load(&self.problem(&covariances, rho, rho)?)?;
        let mut done = 0;
        while done < self.steps {
            let count = LOOK.min(self.steps - done);
            let residuals = steps.run(count)?;
            done += count;
            let (primal, dual) = residuals.split_at(portfolios);
            let worst = |of: &[f32]| of.iter().fold(0.0f32, |a, &b| a.max(b));
            let (primal, dual) = (worst(primal), worst(dual));
            if primal <= SETTLED && dual <= SETTLED {
                break;
            }
            // Both are distances of weights: where one is far ahead, the other holds the steps up.
            let ahead = f64::from(primal) / f64::from(dual).max(1e-12);
            if changes < RHO_CHANGES && done < self.steps && !(0.1..=10.0).contains(&ahead) {
                let next = rho * ahead.sqrt().clamp(0.1, 10.0);
                steps.load(&self.problem(&covariances, next, rho)?)?;
                (rho, changes) = (next, changes + 1);
            }
        }
        let weights = steps.weights()?;
        let one = |at: usize| self.finish(&covariances, at, &weights[at..], portfolios);
        let found: Vec<(Portfolio, bool)> =
            (0..portfolios).into_par_iter().map(one).collect::<Result<_, _>>()?;
        let interior = found.iter().filter(|(_, interior)| *interior).count();
        let portfolios = found.into_iter().map(|(portfolio, _)| portfolio).collect();
        Ok(LongOnlyFound { portfolios, steps: done, interior })
    }

    /// The best portfolio beside a distance of weight `rho` is `inverse v + base + slope wanted` of what draws it, `v`.
    fn problem(&self, covariances: &[f64], rho: f64, before: f64) -> Result<Problem, BatchError> {
        let count = self.assets.means().len();
        let mut shifted = covariances.to_vec();
        (0..count).for_each(|at| shifted[at * count + at] += rho);
        let mut inverse = Cholesky::new(&shifted, count)?.inverse();
        let ones = vec![1.0; count];
        let along = |vector: &[f64]| -> Vec<f64> {
            inverse.chunks_exact(count).map(|row| dot(row, vector)).collect()
        };
        let of_ones = along(&ones);
        let (base, slope) = if self.keeps_mean() {
            let means = self.unit_means();
            let of_means = along(&means);
            let Some([[a, b], [c, d]]) = inverted(&of_ones, &of_means, &means) else {
                return Err(BatchError::Solver { status: "the assets' means are too alike".to_owned() });
            };
            let base: Vec<f64> = of_ones.iter().zip(&of_means).map(|(x, y)| a * x + c * y).collect();
            let slope: Vec<f64> = of_ones.iter().zip(&of_means).map(|(x, y)| b * x + d * y).collect();
            for (row, (x, y)) in inverse.chunks_exact_mut(count).zip(base.iter().zip(&slope)) {
                for ((entry, one), mean) in row.iter_mut().zip(&of_ones).zip(&of_means) {
                    *entry -= x * one + y * mean;
                }
            }
            (base, slope)
        } else {
            let total: f64 = of_ones.iter().sum();
            let base: Vec<f64> = of_ones.iter().map(|one| one / total).collect();
            for (row, share) in inverse.chunks_exact_mut(count).zip(&base) {
                row.iter_mut().zip(&of_ones).for_each(|(entry, one)| *entry -= share * one);
            }
            (base, vec![0.0; count])
        };
        // Symmetric to the bit, as the rows stand for the columns.
        for row in 0..count {
            for column in 0..row {
                inverse[column * count + row] = inverse[row * count + column];
            }
        }
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        Ok(Problem {
            inverse: narrow(&inverse),
            base: narrow(&base),
            slope: narrow(&slope),
            rho: rho as f32,
            rescale: (before / rho) as f32,
        })
    }

    /// Means from 0 at the smallest to 1 at the largest.
    fn unit_means(&self) -> Vec<f64> {
        let (low, high) = self.assets.range();
        self.assets.means().iter().map(|mean| (mean - low) / (high - low)).collect()
    }

    /// The portfolio in full precision, and whether it took the interior point method.
    fn finish(
        &self,
        covariances: &[f64],
        portfolio: usize,
        column: &[f32],
        stride: usize,
    ) -> Result<(Portfolio, bool), BatchError> {
        let count = self.assets.means().len();
        let tilt = self.tilt(portfolio);
        let wanted = self.wanted(portfolio);
        let inside = wanted.is_none_or(|wanted| wanted > 0.0 && wanted < 1.0);
        let start: Vec<f32> = column.iter().step_by(stride).take(count).copied().collect();
        let held = if inside { self.held(covariances, &tilt, wanted, &start) } else { None };
        let interior = held.is_none();
        let found = match (held, self.aim) {
            (Some(weights), _) => self.assets.portfolio(weights),
            (None, Aim::Means(means)) => self.assets.long_only(Some(means[portfolio]))?,
            (None, _) => self.assets.interior(Some(&tilt), None)?,
        };
        let mean = match self.aim {
            Aim::Views { returns, .. } => dot(&found.weights, &returns[portfolio * count..][..count]),
            _ => found.mean,
        };
        Ok((Portfolio { mean, ..found }, interior))
    }

    /// The best portfolio, from one that is near: first with all assets dropped or added at once that should be, which is
    /// quick and mostly all; then one after the other, each portfolio no worse than the one before. `None` where even that comes to no
    /// end.
    fn held(
        &self,
        covariances: &[f64],
        tilt: &[f64],
        wanted: Option<f64>,
        start: &[f32],
    ) -> Option<Vec<f64>> {
        let count = start.len();
        let means = if wanted.is_some() { self.unit_means() } else { vec![0.0; count] };
        let view = View { covariances, tilt, means: &means, wanted };
        let most = start.iter().fold(0.0f32, |a, &b| a.max(b));
        let held: Vec<usize> = (0..count).filter(|&at| start[at] > 1e-4 * most).collect();
        view.at_once(held).or_else(|| view.one_by_one(start))
    }
}

/// What a portfolio is to be, from its own side.
struct View<'a> {
    covariances: &'a [f64],
    tilt: &'a [f64],
    /// From 0 to 1.
    means: &'a [f64],
    wanted: Option<f64>,
}

impl View<'_> {
    fn at_once(&self, mut held: Vec<usize>) -> Option<Vec<f64>> {
        for _ in 0..ROUNDS_AT_ONCE {
            let (weights, prices) = best_of(&held, self)?;
            if weights.iter().any(|&weight| weight < LEAST) {
                let mut weights = weights.iter();
                held.retain(|_| weights.next().is_some_and(|&weight| weight >= LEAST));
                continue;
            }
            match self.judge(&held, &weights, prices) {
                Ok(found) => return Some(found),
                Err((slack, least)) => add(&mut held, &slack, least * 1e-3)?,
            }
        }
        None
    }

    /// The active set method for portfolios that pay their budget at every step.
    fn one_by_one(&self, start: &[f32]) -> Option<Vec<f64>> {
        let count = start.len();
        let total: f64 = start.iter().map(|&weight| f64::from(weight)).sum();
        let mut own: Vec<f64> = match total > 0.0 {
            true => start.iter().map(|&weight| f64::from(weight) / total).collect(),
            false => vec![1.0 / count as f64; count],
        };
        if let Some(wanted) = self.wanted {
            // With as much of the asset at the far end as the mean needs.
            let mean = dot(&own, self.means);
            let end = if mean < wanted { 1.0 } else { 0.0 };
            let place = self.means.iter().position(|&mean| mean == end)?;
            let share = if mean == wanted { 0.0 } else { (wanted - mean) / (end - mean) };
            own.iter_mut().for_each(|weight| *weight *= 1.0 - share);
            own[place] += share;
        }
        let mut held: Vec<usize> = (0..count).filter(|&at| own[at] > 0.0).collect();
        for _ in 0..ROUNDS_ONE_BY_ONE {
            let (weights, prices) = best_of(&held, self)?;
            // As far towards it as no weight falls below 0.
            let way = |(&at, &weight): (&usize, &f64)| {
                if weight < LEAST { (own[at] / (own[at] - weight)).max(0.0) } else { 1.0 }
            };
            let way = held.iter().zip(&weights).map(way).fold(1.0, f64::min);
            for (&at, weight) in held.iter().zip(&weights) {
                own[at] += way * (weight - own[at]);
            }
            if way < 1.0 {
                let before = held.len();
                let mut weights = weights.iter();
                held.retain(|&at| weights.next().is_none_or(|&weight| weight >= LEAST || own[at] > 1e-15));
                if held.len() == before {
                    return None;
                }
                continue;
            }
            match self.judge(&held, &weights, prices) {
                Ok(found) => return Some(found),
                Err((slack, least)) => add(&mut held, &slack, least)?,
            }
        }
        None
    }

    /// The portfolio in full where its gap is shown to be small; else how much each asset's slope is above the prices, and the least
    /// of that.
    fn judge(&self, held: &[usize], weights: &[f64], prices: [f64; 2]) -> Result<Vec<f64>, (Vec<f64>, f64)> {
        let count = self.tilt.len();
        let mut slopes = vec![0.0; count];
        for (&at, &weight) in held.iter().zip(weights) {
            let row = &self.covariances[at * count..(at + 1) * count];
            slopes.iter_mut().zip(row).for_each(|(slope, entry)| *slope += weight * entry);
        }
        let sum = |of: &dyn Fn(usize) -> f64| -> f64 {
            held.iter().zip(weights).map(|(&at, weight)| weight * of(at)).sum()
        };
        let size = sum(&|at| slopes[at]) + sum(&|at| self.tilt[at].abs());
        let prices_of = |mean: &f64| prices[0] + prices[1] * mean;
        let slack = slopes.iter().zip(self.tilt).zip(self.means);
        let slack: Vec<f64> = slack.map(|((slope, tilt), mean)| slope - tilt - prices_of(mean)).collect();
        let least = slack.iter().fold(f64::INFINITY, |a, &b| a.min(b));
        // No portfolio of the same mean is better by more than this: its slopes along the way are at least these.
        let gap = sum(&|at| slack[at]) - least;
        if gap > GAP_MAX * size {
            return Err((slack, least));
        }
        let mut found = vec![0.0; count];
        let total: f64 = weights.iter().map(|weight| weight.max(0.0)).sum();
        held.iter().zip(weights).for_each(|(&at, weight)| found[at] = weight.max(0.0) / total);
        Ok(found)
    }
}

/// Holds assets too whose slack is no more than this; `None` where all those are held.
fn add(held: &mut Vec<usize>, slack: &[f64], most: f64) -> Option<()> {
    let before = held.len();
    held.extend((0..slack.len()).filter(|&at| slack[at] <= most));
    held.sort_unstable();
    held.dedup();
    (held.len() > before).then_some(())
}

/// The best portfolio of the assets `held`, short or not, and the prices of budget and mean. `None` where their covariances are singular
/// or no portfolio of them has the mean.
fn best_of(held: &[usize], view: &View<'_>) -> Option<(Vec<f64>, [f64; 2])> {
    let View { covariances, tilt, means, wanted } = *view;
    let count = tilt.len();
    if held.is_empty() {
        return None;
    }
    let part: Vec<f64> = held
        .iter()
        .flat_map(|&row| held.iter().map(move |&column| covariances[row * count + column]))
        .collect();
    let factor = Cholesky::new(&part, held.len()).ok()?;
    let of = |values: &[f64]| held.iter().map(|&at| values[at]).collect::<Vec<f64>>();
    let (tilt, means) = (of(tilt), of(means));
    let drawn = factor.solve(&tilt);
    let ones = factor.solve(&vec![1.0; held.len()]);
    let missing = 1.0 - drawn.iter().sum::<f64>();
    let Some(wanted) = wanted else {
        let price = missing / ones.iter().sum::<f64>();
        let weights = drawn.iter().zip(&ones).map(|(drawn, one)| drawn + price * one).collect();
        return Some((weights, [price, 0.0]));
    };
    let along = factor.solve(&means);
    let [[a, b], [c, d]] = inverted(&ones, &along, &means)?;
    let short = wanted - dot(&drawn, &means);
    let (price, of_mean) = (a * missing + b * short, c * missing + d * short);
    let weights = drawn.iter().zip(&ones).zip(&along);
    let weights = weights.map(|((drawn, one), along)| drawn + price * one + of_mean * along).collect();
    Some((weights, [price, of_mean]))
}

/// Inverse of the sums of `ones` and `along`, each alone and times the means; `None` where the means are all alike.
fn inverted(ones: &[f64], along: &[f64], means: &[f64]) -> Option<[[f64; 2]; 2]> {
    let (a, b) = (ones.iter().sum::<f64>(), along.iter().sum::<f64>());
    let d = dot(along, means);
    let determinant = a * d - b * b;
    let distinct = determinant > 1e-12 * a * d;
    distinct.then(|| [[d / determinant, -b / determinant], [-b / determinant, a / determinant]])
}

/// Steps on the cores of this machine: portfolios go on [`WIDE`] at a time, each lot by itself.
pub(crate) struct CpuSteps {
    assets: usize,
    portfolios: usize,
    inverse: Option<Panels<TALL>>,
    base: Vec<f32>,
    slope: Vec<f32>,
    rho: f32,
    lots: Vec<Lot>,
}

/// Portfolios side by side, asset by asset.
struct Lot {
    tilt: Vec<[f32; WIDE]>,
    wanted: [f32; WIDE],
    z: Vec<[f32; WIDE]>,
    u: Vec<[f32; WIDE]>,
    v: Vec<[f32; WIDE]>,
    next: Vec<[f32; WIDE]>,
    primal: [f32; WIDE],
    dual: [f32; WIDE],
}

impl CpuSteps {
    fn new(start: &Start, assets: usize) -> Self {
        let portfolios = start.wanted.len();
        let lot = |(at, wanted): (usize, &[f32])| {
            let part = |matrix: &[f32]| -> Vec<[f32; WIDE]> {
                matrix
                    .chunks_exact(portfolios)
                    .map(|row| {
                        let mut line = [0.0; WIDE];
                        line[..wanted.len()].copy_from_slice(&row[at * WIDE..][..wanted.len()]);
                        line
                    })
                    .collect()
            };
            let mut own = [0.0; WIDE];
            own[..wanted.len()].copy_from_slice(wanted);
            let none = vec![[0.0; WIDE]; assets];
            Lot {
                tilt: part(&start.tilt),
                wanted: own,
                z: part(&start.z),
                u: none.clone(),
                v: none.clone(),
                next: none,
                primal: [0.0; WIDE],
                dual: [0.0; WIDE],
            }
        };
        let lots = start.wanted.chunks(WIDE).enumerate().map(lot).collect();
        let (base, slope) = (Vec::new(), Vec::new());
        Self { assets, portfolios, inverse: None, base, slope, rho: 0.0, lots }
    }
}

impl Lot {
    fn step(&mut self, inverse: &Panels<TALL>, base: &[f32], slope: &[f32], rho: f32) {
        (self.primal, self.dual) = ([0.0; WIDE], [0.0; WIDE]);
        for (panel, first) in (0..base.len()).step_by(TALL).enumerate() {
            let product = tile(inverse.panel(panel), &self.v);
            for (asset, product) in (first..base.len()).zip(&product) {
                widest(
                    #[inline(always)]
                    || self.place(asset, product, slope[asset], base[asset], rho),
                );
            }
        }
        std::mem::swap(&mut self.v, &mut self.next);
    }

    /// One asset's weights after the product.
    #[inline(always)]
    fn place(&mut self, asset: usize, product: &[f32; WIDE], slope: f32, base: f32, rho: f32) {
        let (z, u, tilt) = (&mut self.z[asset], &mut self.u[asset], &self.tilt[asset]);
        let (next, primal, dual) = (&mut self.next[asset], &mut self.primal, &mut self.dual);
        for lane in 0..WIDE {
            let x = product[lane] + slope.mul_add(self.wanted[lane], base);
            let old = z[lane];
            let raised = RELAXED.mul_add(x - old, old) + u[lane];
            let now = if raised > 0.0 { raised } else { 0.0 };
            let left = raised - now;
            (z[lane], u[lane]) = (now, left);
            next[lane] = rho.mul_add(now - left, tilt[lane]);
            let (away, moved) = ((x - now).abs(), (now - old).abs());
            primal[lane] = if away > primal[lane] { away } else { primal[lane] };
            dual[lane] = if moved > dual[lane] { moved } else { dual[lane] };
        }
    }
}

impl Steps for CpuSteps {
    type Error = BatchError;

    fn load(&mut self, problem: &Problem) -> Result<(), BatchError> {
        self.inverse = Some(Panels::new(&problem.inverse, self.assets, self.assets));
        (self.base, self.slope) = (problem.base.clone(), problem.slope.clone());
        self.rho = problem.rho;
        let (rho, rescale) = (problem.rho, problem.rescale);
        for Lot { tilt, z, u, v, .. } in &mut self.lots {
            widest(
                #[inline(always)]
                || {
                    for (((tilt, z), u), v) in tilt.iter().zip(z).zip(u).zip(v) {
                        for lane in 0..WIDE {
                            u[lane] *= rescale;
                            v[lane] = rho.mul_add(z[lane] - u[lane], tilt[lane]);
                        }
                    }
                },
            );
        }
        Ok(())
    }

    fn run(&mut self, steps: u32) -> Result<Vec<f32>, BatchError> {
        if let Some(inverse) = &self.inverse {
            let (base, slope, rho) = (&self.base[..], &self.slope[..], self.rho);
            self.lots
                .par_iter_mut()
                .for_each(|lot| (0..steps).for_each(|_| lot.step(inverse, base, slope, rho)));
        }
        let of = |values: fn(&Lot) -> &[f32; WIDE]| self.lots.iter().flat_map(values).take(self.portfolios);
        Ok(of(|lot| &lot.primal).chain(of(|lot| &lot.dual)).copied().collect())
    }

    fn weights(&mut self) -> Result<Vec<f32>, BatchError> {
        let mut found = vec![0.0; self.assets * self.portfolios];
        for (at, lot) in self.lots.iter().enumerate() {
            for (row, line) in found.chunks_exact_mut(self.portfolios).zip(&lot.z) {
                row[at * WIDE..].iter_mut().zip(line).for_each(|(to, from)| *to = *from);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Cpu};

    fn unit(at: usize, of: usize) -> f64 {
        f64::from(crate::philox::philox4x32([at as u32, of as u32, 0, 0], [4, 9])[0]) / 4_294_967_296.0
    }

    /// Covariances of a few factors and noise; means of every sign.
    fn assets(count: usize, factors: usize) -> Assets {
        let load = |asset: usize, f: usize| 0.02 * (unit(asset, f) - if f == 0 { -0.5 } else { 0.5 });
        let mut covariances = vec![0.0; count * count];
        for row in 0..count {
            for column in 0..count {
                covariances[row * count + column] =
                    (0..factors).map(|f| load(row, f) * load(column, f)).sum();
            }
            covariances[row * count + row] += 1e-4 * (0.3 + unit(row, 99));
        }
        let means: Vec<f64> = (0..count).map(|asset| 1e-3 * (unit(asset, 98) - 0.3)).collect();
        Assets::new(&means, &covariances).unwrap()
    }

    /// Half of the variance, over the scale, less what draws it.
    fn objective(assets: &Assets, weights: &[f64], tilt: &[f64]) -> f64 {
        let variance: f64 = weights
            .iter()
            .zip(assets.covariances().chunks_exact(weights.len()))
            .map(|(weight, row)| weight * dot(row, weights))
            .sum();
        variance / assets.scale() / 2.0 - dot(weights, tilt)
    }

    #[test]
    fn portfolios_are_those_of_the_interior_point_method() {
        for (count, factors) in [(1, 1), (2, 1), (7, 2), (65, 5), (150, 12)] {
            let assets = assets(count, factors);
            let cpu = Cpu::new(2).unwrap();
            let aversions: Vec<f64> = (0..40).map(|at| 0.05 * 1.5f64.powi(at)).collect();
            let batch = LongOnlyBatch { assets: &assets, aim: Aim::Aversions(&aversions), steps: 300 };
            let found = cpu.long_only(&batch).unwrap();
            assert_eq!(found.interior, 0, "{count}: {} steps", found.steps);
            for (at, portfolio) in found.portfolios.iter().enumerate() {
                let tilt = batch.tilt(at);
                let want = assets.interior(Some(&tilt), None).unwrap();
                let (own, best) =
                    (objective(&assets, &portfolio.weights, &tilt), objective(&assets, &want.weights, &tilt));
                assert!(portfolio.weights.iter().all(|&weight| weight >= 0.0));
                assert!((portfolio.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(own <= best + 1e-9 * best.abs(), "{count}, {at}: {own} {best}");
                for (a, b) in portfolio.weights.iter().zip(&want.weights) {
                    assert!((a - b).abs() < 1e-5, "{count}, {at}: {a} {b}");
                }
            }
            let (low, high) = assets.range();
            let means: Vec<f64> = (0..=20).map(|at| low + (high - low) * f64::from(at) / 20.0).collect();
            let means: Vec<f64> = means.iter().map(|&mean| mean.min(high)).collect();
            let batch = LongOnlyBatch { assets: &assets, aim: Aim::Means(&means), steps: 300 };
            let found = cpu.long_only(&batch).unwrap();
            assert!(found.interior <= 2 || count == 1, "{count}: {}", found.interior);
            for (portfolio, &mean) in found.portfolios.iter().zip(&means) {
                let want = assets.long_only(Some(mean)).unwrap();
                assert!((portfolio.mean - mean).abs() < 1e-12 + 1e-9 * (high - low), "{count}");
                assert!(
                    portfolio.variance <= want.variance * (1.0 + 1e-8),
                    "{count}: {portfolio:?} {want:?}"
                );
            }
        }
    }

    #[test]
    fn views_are_as_if_they_were_the_means() {
        let assets = assets(30, 3);
        let returns: Vec<f64> = (0..30 * 5).map(|at| 2e-3 * (unit(at, 50) - 0.5)).collect();
        let aim = Aim::Views { returns: &returns, aversion: 3.0 };
        let cpu = Cpu::new(1).unwrap();
        let found = cpu.long_only(&LongOnlyBatch { assets: &assets, aim, steps: 200 }).unwrap();
        for (view, portfolio) in returns.chunks_exact(30).zip(&found.portfolios) {
            let alone = Assets::new(view, assets.covariances()).unwrap();
            let batch = LongOnlyBatch { assets: &alone, aim: Aim::Aversions(&[3.0]), steps: 200 };
            let want = cpu.long_only(&batch).unwrap();
            for (a, b) in portfolio.weights.iter().zip(&want.portfolios[0].weights) {
                assert!((a - b).abs() < 1e-7);
            }
            assert!((portfolio.mean - want.portfolios[0].mean).abs() < 1e-10);
        }
    }

    #[test]
    fn hard_cases_have_an_answer_too() {
        let cpu = Cpu::new(2).unwrap();
        // Singular: an asset twice, and one that is the mean of two.
        let base = assets(12, 3);
        let mut covariances = vec![0.0; 14 * 14];
        let mixed = |at: usize| -> Vec<(usize, f64)> {
            match at {
                12 => vec![(3, 1.0)],
                13 => vec![(1, 0.5), (2, 0.5)],
                _ => vec![(at, 1.0)],
            }
        };
        for row in 0..14 {
            for column in 0..14 {
                for (a, x) in mixed(row) {
                    for (b, y) in mixed(column) {
                        covariances[row * 14 + column] += x * y * base.covariances()[a * 12 + b];
                    }
                }
            }
        }
        let means: Vec<f64> =
            (0..14).map(|at| mixed(at).iter().map(|(a, x)| x * base.means()[*a]).sum()).collect();
        let singular = Assets::new(&means, &covariances).unwrap();
        for aversion in [0.5, 5.0, 500.0] {
            let one = |assets: &Assets| {
                let batch = LongOnlyBatch { assets, aim: Aim::Aversions(&[aversion]), steps: 100 };
                let found = cpu.long_only(&batch).unwrap().portfolios.remove(0);
                found.mean - aversion / 2.0 * found.variance
            };
            let (own, want) = (one(&singular), one(&base));
            assert!((own - want).abs() < 1e-8 * want.abs().max(1e-4), "{aversion}: {own} {want}");
        }
        // All means alike, and one step alone.
        let alike = Assets::new(&[0.01; 12], base.covariances()).unwrap();
        let batch = LongOnlyBatch { assets: &alike, aim: Aim::Means(&[0.01; 3]), steps: 1 };
        let found = cpu.long_only(&batch).unwrap();
        let want = alike.long_only(None).unwrap();
        assert!(found.portfolios.iter().all(|own| own.variance <= want.variance * (1.0 + 1e-8)));
        assert_eq!(found.steps, 1);
        // Aversions of nearly any size.
        let aversions = [1e-12, 1e-6, 1e9, 1e300];
        let batch = LongOnlyBatch { assets: &base, aim: Aim::Aversions(&aversions), steps: 50 };
        let found = cpu.long_only(&batch).unwrap().portfolios;
        let best = (0..12).max_by(|&a, &b| base.means()[a].total_cmp(&base.means()[b])).unwrap();
        assert_eq!((found[0].weights[best], found[1].weights[best]), (1.0, 1.0));
        let least = base.long_only(None).unwrap().variance;
        assert!(found[3].variance <= least * (1.0 + 1e-8) && found[2].variance <= least * (1.0 + 1e-6));
    }

    #[test]
    fn threads_change_nothing() {
        let assets = assets(70, 4);
        let aversions: Vec<f64> = (1..=70).map(f64::from).collect();
        let batch = LongOnlyBatch { assets: &assets, aim: Aim::Aversions(&aversions), steps: 60 };
        assert_eq!(Cpu::new(1).unwrap().long_only(&batch), Cpu::new(3).unwrap().long_only(&batch));
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let assets = assets(3, 2);
        let text = |aim: Aim<'_>, steps: u32| {
            LongOnlyBatch { assets: &assets, aim, steps }.check().unwrap_err().to_string()
        };
        assert_eq!(text(Aim::Aversions(&[]), 1), "portfolios: 0; allowed are 1 to 65536");
        assert_eq!(text(Aim::Aversions(&[1.0]), 0), "steps: 0; allowed are 1 to 10000");
        assert_eq!(text(Aim::Aversions(&[1.0; 65_537]), 1), "portfolios: 65537; allowed are 1 to 65536");
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(text(Aim::Aversions(&[1.0, wrong]), 1).starts_with("aversion is"));
            assert!(text(Aim::Views { returns: &[0.1; 3], aversion: wrong }, 1).starts_with("aversion is"));
        }
        for wrong in [-1.0, 1.0, f64::NAN] {
            assert!(text(Aim::Means(&[wrong]), 1).starts_with("mean is"));
        }
        assert_eq!(
            text(Aim::Views { returns: &[0.1; 4], aversion: 1.0 }, 1),
            "returns: length 4, but 3 is needed"
        );
        assert!(
            text(Aim::Views { returns: &[0.1, f64::NAN, 0.2], aversion: 1.0 }, 1).starts_with("returns[1]")
        );
        assert!(text(Aim::Aversions(&[1e-320]), 1).starts_with("a return over aversion and variance is"));
        // Not a covariance matrix: a portfolio of these two, one short, has a variance below 0.
        let crossed = Assets::new(&[0.1, 0.2], &[1.0, 2.0, 2.0, 1.0]).unwrap();
        let batch = LongOnlyBatch { assets: &crossed, aim: Aim::Aversions(&[1.0]), steps: 10 };
        let error = Cpu::new(1).unwrap().long_only(&batch).unwrap_err();
        assert_eq!(error, BatchError::NotPositive { what: "the covariance matrix", row: 1 });
        let large = self::assets(4_096, 1);
        let returns = vec![0.0; 4_096 * 16_385];
        let aim = Aim::Views { returns: &returns, aversion: 1.0 };
        let error = LongOnlyBatch { assets: &large, aim, steps: 1 }.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "assets x portfolios: 4096 x 16385 of them is more than the 67108864 a batch may have"
        );
    }
}
