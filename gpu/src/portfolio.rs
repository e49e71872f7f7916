//! Portfolios of least variance: closed form with a budget alone, an interior point method with no short sales, and the
//! front of all means (Markowitz 1952).
//!
//! **Equality:** weights within 1e-6, variances within 1e-9 of their scale.

use crate::BatchError;
use crate::cholesky::{Cholesky, dot_lanes};
use crate::lanes::widest;
use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver, SolverStatus, SupportedConeT};
use rayon::prelude::*;

/// Most assets.
pub const ASSETS_MAX: u64 = 4_096;
/// Most points of a front.
pub const POINTS_MAX: u64 = 100_000;

/// Expected returns and covariances of assets, checked.
#[derive(Clone, Debug)]
pub struct Assets {
    means: Vec<f64>,
    /// Row-major and symmetric.
    covariances: Vec<f64>,
}

/// Weights and what they come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Portfolio {
    /// Shares of the capital, adding up to 1.
    pub weights: Vec<f64>,
    /// Expected return.
    pub mean: f64,
    /// Variance of the return.
    pub variance: f64,
}

impl Assets {
    /// Assets of these expected returns, and covariances row by row.
    ///
    /// # Errors
    /// [`BatchError`] when sizes do not fit, a value is not finite, or the matrix is not symmetric with a diagonal above 0.
    pub fn new(means: &[f64], covariances: &[f64]) -> Result<Self, BatchError> {
        let count = means.len();
        BatchError::count("assets", count, 1, ASSETS_MAX)?;
        BatchError::length("covariances", covariances.len(), count * count)?;
        BatchError::finite("means", means)?;
        BatchError::finite("covariances", covariances)?;
        for row in 0..count {
            let own = covariances[row * count + row];
            let even = |column: usize| {
                let (a, b) = (covariances[row * count + column], covariances[column * count + row]);
                (a - b).abs() <= 1e-9 * own.abs().max(a.abs())
            };
            if own <= 0.0 || !(0..row).all(even) {
                return Err(BatchError::NotPositive { what: "the covariance matrix", row });
            }
        }
        Ok(Self { means: means.to_vec(), covariances: covariances.to_vec() })
    }

    /// Expected returns.
    #[must_use]
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    pub(crate) fn portfolio(&self, weights: Vec<f64>) -> Portfolio {
        let mean = dot(&weights, &self.means);
        let variance = weights.iter().zip(self.covariances.chunks_exact(weights.len()));
        let variance = variance.map(|(weight, row)| weight * dot(row, &weights)).sum();
        Portfolio { weights, mean, variance }
    }

    /// The portfolio that maximises mean - `aversion` / 2 x variance, short sales allowed.
    ///
    /// # Errors
    /// [`BatchError`] when `aversion` is not above 0 or the covariances are not positive definite.
    pub fn optimum(&self, aversion: f64) -> Result<Portfolio, BatchError> {
        BatchError::parameter("aversion", aversion, |x| x > 0.0, "above 0")?;
        let factor = Cholesky::new(&self.covariances, self.means.len())?;
        let ones = factor.solve(&vec![1.0; self.means.len()]);
        let means = factor.solve(&self.means);
        // Stationary: covariance x weights x aversion = means + price of the budget.
        let price = (aversion - means.iter().sum::<f64>()) / ones.iter().sum::<f64>();
        let weights = means.iter().zip(&ones).map(|(mean, one)| (mean + price * one) / aversion);
        Ok(self.portfolio(weights.collect()))
    }

    /// The long-only portfolio of least variance, of this mean if one is given.
    ///
    /// # Errors
    /// [`BatchError::Parameter`] for a mean that no portfolio has, [`BatchError::Solver`] when no optimum is found.
    pub fn long_only(&self, mean: Option<f64>) -> Result<Portfolio, BatchError> {
        let count = self.means.len();
        let (low, high) = self.range();
        if let Some(mean) = mean {
            let fits = |x| (low..=high).contains(&x);
            BatchError::parameter("mean", mean, fits, "from the smallest to the largest of the assets'")?;
            // At the ends the set of portfolios has no inside, which the method needs: the assets of that mean it is.
            if mean == low || mean == high {
                let kept: Vec<usize> = (0..count).filter(|&at| self.means[at] == mean).collect();
                return self.among(&kept);
            }
        }
        self.interior(None, mean)
    }

    /// Covariances are divided by this, so that tolerances mean the same for daily and yearly figures.
    pub(crate) fn scale(&self) -> f64 {
        let count = self.means.len();
        (0..count).map(|at| self.covariances[at * count + at]).sum::<f64>() / count as f64
    }

    pub(crate) fn covariances(&self) -> &[f64] {
        &self.covariances
    }

    /// The long-only portfolio of least half of the variance, over [`Self::scale`], less `tilt`'s share; of this mean, between the
    /// smallest and the largest, if one is given. By the interior point method.
    pub(crate) fn interior(&self, tilt: Option<&[f64]>, mean: Option<f64>) -> Result<Portfolio, BatchError> {
        let count = self.means.len();
        let (low, high) = self.range();
        let scale = self.scale();
        let (mut starts, mut rows, mut values) = (vec![0], Vec::new(), Vec::new());
        for column in 0..count {
            rows.extend(0..=column);
            values.extend((0..=column).map(|row| self.covariances[row * count + column] / scale));
            starts.push(rows.len());
        }
        let quadratic = CscMatrix::new(count, count, starts, rows, values);
        // 1'w = 1, means'w = mean, -w <= 0; means from 0 to 1.
        let equal = 1 + usize::from(mean.is_some());
        let (mut starts, mut rows, mut values) = (vec![0], Vec::new(), Vec::new());
        let span = high - low;
        for column in 0..count {
            rows.push(0);
            values.push(1.0);
            if mean.is_some() {
                rows.push(1);
                values.push((self.means[column] - low) / span);
            }
            rows.push(equal + column);
            values.push(-1.0);
            starts.push(rows.len());
        }
        let matrix = CscMatrix::new(equal + count, count, starts, rows, values);
        let mut right = vec![1.0];
        right.extend(mean.map(|mean| (mean - low) / span));
        right.resize(equal + count, 0.0);
        let cones = [SupportedConeT::ZeroConeT(equal), SupportedConeT::NonnegativeConeT(count)];
        let settings = DefaultSettingsBuilder::default()
            .verbose(false)
            .max_iter(200)
            .tol_gap_abs(1e-12)
            .tol_gap_rel(1e-12)
            .tol_feas(1e-11)
            .build()
            .map_err(|error| BatchError::Solver { status: error.to_string() })?;
        let linear: Vec<f64> = match tilt {
            Some(tilt) => tilt.iter().map(|tilt| -tilt).collect(),
            None => vec![0.0; count],
        };
        let mut solver = DefaultSolver::new(&quadratic, &linear, &matrix, &right, &cones, settings)
            .map_err(|error| BatchError::Solver { status: error.to_string() })?;
        solver.solve();
        match solver.solution.status {
            SolverStatus::Solved | SolverStatus::AlmostSolved => {}
            status => return Err(BatchError::Solver { status: status.to_string() }),
        }
        // What the method leaves beyond its bounds is below its tolerance.
        let mut weights: Vec<f64> = solver.solution.x.iter().map(|weight| weight.max(0.0)).collect();
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        Ok(self.portfolio(weights))
    }

    /// `points` long-only portfolios from the largest mean down to that of the least variance, means equally far apart.
    /// Solved side by side on the threads of the pool it is called in.
    ///
    /// # Errors
    /// As [`Self::long_only`]; [`BatchError::Count`] for fewer than 2 points or more than [`POINTS_MAX`].
    pub fn front(&self, points: usize) -> Result<Vec<Portfolio>, BatchError> {
        BatchError::count("points", points, 2, POINTS_MAX)?;
        let least = self.long_only(None)?;
        let (_, high) = self.range();
        let step = (high - least.mean) / (points - 1) as f64;
        let one = |at: usize| match at {
            0 => self.long_only(Some(high)),
            _ if at + 1 == points => Ok(least.clone()),
            _ => self.long_only(Some(high - step * at as f64)),
        };
        (0..points).into_par_iter().map(one).collect()
    }

    /// The least variance among some of the assets.
    fn among(&self, kept: &[usize]) -> Result<Portfolio, BatchError> {
        let count = self.means.len();
        let mut weights = vec![0.0; count];
        if let [only] = *kept {
            weights[only] = 1.0;
            return Ok(self.portfolio(weights));
        }
        if kept.len() == count {
            return self.long_only(None);
        }
        let means: Vec<f64> = kept.iter().map(|&at| self.means[at]).collect();
        let covariances: Vec<f64> = kept
            .iter()
            .flat_map(|&row| kept.iter().map(move |&column| self.covariances[row * count + column]))
            .collect();
        let part = Assets { means, covariances }.long_only(None)?;
        kept.iter().zip(part.weights).for_each(|(&at, weight)| weights[at] = weight);
        Ok(self.portfolio(weights))
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        self.means.iter().fold(ends, |(low, high), &mean| (low.min(mean), high.max(mean)))
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    widest(
        #[inline(always)]
        || dot_lanes(a, b),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covariances of a few factors and noise, from addressed numbers.
    fn assets(count: usize) -> Assets {
        let unit = |at: usize, of: u32| {
            f64::from(crate::philox::philox4x32([at as u32, of, 0, 0], [1, 2])[0]) / 4_294_967_296.0
        };
        let load =
            |asset: usize, factor: u32| 0.02 * (unit(asset, factor) - if factor == 0 { 0.0 } else { 0.5 });
        let mut covariances = vec![0.0; count * count];
        for row in 0..count {
            for column in 0..count {
                covariances[row * count + column] = (0..4).map(|f| load(row, f) * load(column, f)).sum();
            }
            covariances[row * count + row] += 1e-4 * (0.5 + unit(row, 9));
        }
        let means: Vec<f64> = (0..count).map(|asset| 0.001 * unit(asset, 10)).collect();
        Assets::new(&means, &covariances).unwrap()
    }

    #[test]
    fn the_optimum_is_stationary_and_pays_its_budget() {
        for count in [1, 2, 3, 4, 5, 17, 64, 131] {
            let assets = assets(count);
            for aversion in [0.5, 10.0] {
                let found = assets.optimum(aversion).unwrap();
                assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                let slope = |at: usize| {
                    let row = &assets.covariances[at * count..(at + 1) * count];
                    assets.means[at]
                        - aversion * row.iter().zip(&found.weights).map(|(c, w)| c * w).sum::<f64>()
                };
                for at in 1..count {
                    assert!(
                        (slope(at) - slope(0)).abs() < 1e-10,
                        "{count} assets: {} {}",
                        slope(at),
                        slope(0)
                    );
                }
            }
        }
    }

    #[test]
    fn no_swap_of_two_assets_betters_a_long_only_portfolio() {
        let assets = assets(24);
        for mean in [None, Some(4e-4), Some(7e-4)] {
            let found = assets.long_only(mean).unwrap();
            assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(found.weights.iter().all(|weight| *weight >= 0.0));
            if let Some(mean) = mean {
                assert!((found.mean - mean).abs() < 1e-9);
            }
            let slope: Vec<f64> =
                assets.covariances.chunks_exact(24).map(|row| dot(row, &found.weights)).collect();
            // Prices of budget and mean from the assets held, by least squares; nobody's slope lies below.
            let held: Vec<usize> = (0..24).filter(|&at| found.weights[at] > 1e-6).collect();
            let (a, b) = if mean.is_some() { (held[0], held[1]) } else { (held[0], held[0]) };
            let gap = assets.means[b] - assets.means[a];
            let tilt = if gap == 0.0 { 0.0 } else { (slope[b] - slope[a]) / gap };
            for (at, slope_here) in slope.iter().enumerate() {
                let rest = slope_here - slope[a] - tilt * (assets.means[at] - assets.means[a]);
                assert!(rest > -1e-8, "asset {at}: {rest:e}");
                assert!(!held.contains(&at) || rest < 1e-8, "asset {at}: {rest:e}");
            }
        }
    }

    #[test]
    fn two_assets_are_as_by_hand() {
        let assets = Assets::new(&[0.1, 0.2], &[0.04, 0.01, 0.01, 0.09]).unwrap();
        let least = assets.long_only(None).unwrap();
        let by_hand = (0.09 - 0.01) / (0.04 + 0.09 - 0.02);
        assert!((least.weights[0] - by_hand).abs() < 1e-8, "{least:?}");
        let front = assets.front(3).unwrap();
        assert_eq!(front[0].weights, [0.0, 1.0]);
        assert!((front[1].mean - (0.2 + least.mean) / 2.0).abs() < 1e-9);
        assert_eq!(front[2], least);
        let alike = Assets::new(&[0.1, 0.1], &[0.04, 0.01, 0.01, 0.09]).unwrap();
        assert!((alike.long_only(Some(0.1)).unwrap().weights[0] - by_hand).abs() < 1e-8);
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let text =
            |means: &[f64], covariances: &[f64]| Assets::new(means, covariances).unwrap_err().to_string();
        assert_eq!(text(&[], &[]), "assets: 0; allowed are 1 to 4096");
        assert_eq!(text(&[1.0], &[1.0, 2.0]), "covariances: length 2, but 1 is needed");
        assert_eq!(text(&[f64::NAN], &[1.0]), "means[0] is NaN; every value must be finite");
        assert_eq!(
            text(&[1.0], &[0.0]),
            "the covariance matrix is not symmetric and positive definite (row 0)"
        );
        assert!(text(&[1.0, 1.0], &[1.0, 0.5, 0.4, 1.0]).ends_with("(row 1)"));
        let flat = Assets::new(&[1.0, 2.0], &[1.0, 1.0, 1.0, 1.0]).unwrap();
        assert!(flat.optimum(1.0).unwrap_err().to_string().ends_with("(row 1)"));
        for wrong in [0.0, -1.0, f64::NAN] {
            assert!(flat.optimum(wrong).unwrap_err().to_string().starts_with("aversion is"));
        }
        assert!(
            flat.long_only(Some(2.5)).unwrap_err().to_string().starts_with("mean is 2.5; allowed is from")
        );
        assert_eq!(flat.front(1).unwrap_err().to_string(), "points: 1; allowed are 2 to 100000");
    }
}
