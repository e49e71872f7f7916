//! What an observation may be: conjugate models, whose predictions have a closed form.

use crate::RegimeError;
use crate::math::{exp, ln, ln_gamma};
use crate::state::{Words, push};

/// A model of the observations within one regime, and of what is believed before any was seen.
pub trait Observation {
    /// What is remembered of a run.
    type Statistics: Copy + std::fmt::Debug;

    /// Whether a value can be judged at all.
    fn accepts(&self, value: f64) -> bool {
        value.is_finite() && value.abs() <= 1e100
    }

    /// A run that has seen nothing.
    fn prior(&self) -> Self::Statistics;

    /// A run that begins after `last`, for models that look back.
    fn start(&self, last: f64) -> Self::Statistics {
        let _ = last;
        self.prior()
    }

    /// Log density of `value` as the next observation of a run.
    fn log_predictive(&self, run: &Self::Statistics, value: f64) -> f64;

    /// Adds `value` to a run.
    fn update(&self, run: &mut Self::Statistics, value: f64);

    /// Appends a run's statistics.
    fn save(&self, run: &Self::Statistics, words: &mut Vec<u64>);

    /// Reads back what [`Observation::save`] wrote.
    ///
    /// # Errors
    /// [`RegimeError::State`] when the words are no such statistics.
    fn restore(&self, words: &mut Words<'_>) -> Result<Self::Statistics, RegimeError>;
}

/// Log density of Student's t with `2 a` degrees of freedom around `mean`, of squared scale `scale`.
fn student(a: f64, log_ratio: f64, mean: f64, scale: f64, value: f64) -> f64 {
    let square = (value - mean) * (value - mean) / (2.0 * a * scale);
    log_ratio - 0.5 * ln(2.0 * std::f64::consts::PI * a * scale) - (a + 0.5) * libm::log1p(square)
}

/// `ln gamma(a + 1/2) - ln gamma(a)` for `a = first, first + 1/2, ...`: each observation adds a half, so a table has
/// what most runs need; beyond it an expansion is exact to the last digits.
#[derive(Clone, Debug)]
struct LogRatios {
    first: f64,
    table: Vec<f64>,
}

const TABLE: usize = 512;

impl LogRatios {
    fn new(first: f64) -> Self {
        let value = |at: usize| {
            let a = first + 0.5 * at as f64;
            ln_gamma(a + 0.5) - ln_gamma(a)
        };
        Self { first, table: (0..TABLE).map(value).collect() }
    }

    fn at(&self, a: f64) -> f64 {
        let place = 2.0 * (a - self.first);
        match self.table.get(place as usize) {
            // A run of weighted observations has an `a` between two entries.
            Some(&value) if place.fract() == 0.0 => value,
            Some(_) => ln_gamma(a + 0.5) - ln_gamma(a),
            None => 0.5 * ln(a) - 1.0 / (8.0 * a) + 1.0 / (192.0 * a * a * a),
        }
    }
}

/// A run under a [`Gaussian`] or [`Robust`] model: parameters of the normal-inverse-gamma posterior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianRun {
    /// Posterior mean of the level.
    pub mean: f64,
    /// Observations that the level's knowledge is worth.
    pub weight: f64,
    /// Shape of the variance's posterior.
    pub a: f64,
    /// Scale of the variance's posterior.
    pub b: f64,
}

impl GaussianRun {
    /// Expected variance; infinite while nothing is known.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.a > 1.0 { self.b / (self.a - 1.0) } else { f64::INFINITY }
    }

    fn add(&mut self, value: f64, weight: f64) {
        let before = value - self.mean;
        let total = self.weight + weight;
        self.b += 0.5 * weight * self.weight * before * before / total;
        self.mean += weight * before / total;
        self.weight = total;
        self.a += 0.5 * weight;
    }

    fn scale(&self) -> f64 {
        self.b * (self.weight + 1.0) / (self.a * self.weight)
    }

    fn save(&self, words: &mut Vec<u64>) {
        push(words, &[self.mean, self.weight, self.a, self.b]);
    }

    fn restore(words: &mut Words<'_>) -> Result<Self, RegimeError> {
        let run = Self { mean: words.float()?, weight: words.float()?, a: words.float()?, b: words.float()? };
        if run.weight > 0.0 && run.a > 0.0 && run.b > 0.0 {
            Ok(run)
        } else {
            Err(RegimeError::State { problem: "a run without weight" })
        }
    }
}

/// Normal observations of unknown mean and variance (normal-inverse-gamma prior): predictions are Student's t.
#[derive(Clone, Debug)]
pub struct Gaussian {
    prior: GaussianRun,
    ratios: LogRatios,
}

impl Gaussian {
    /// With a level believed to be near `mean` with the weight of `weight` observations, and a variance near `variance`
    /// with that of `2 a`.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when one is not a finite number or, but for `mean`, not positive.
    pub fn new(mean: f64, weight: f64, a: f64, variance: f64) -> Result<Self, RegimeError> {
        RegimeError::check("mean", mean, true, "a finite number")?;
        for (name, value) in [("weight", weight), ("a", a), ("variance", variance)] {
            RegimeError::check(name, value, value > 0.0, "more than 0")?;
        }
        Ok(Self { prior: GaussianRun { mean, weight, a, b: a * variance }, ratios: LogRatios::new(a) })
    }
}

impl Observation for Gaussian {
    type Statistics = GaussianRun;

    fn prior(&self) -> GaussianRun {
        self.prior
    }

    fn log_predictive(&self, run: &GaussianRun, value: f64) -> f64 {
        student(run.a, self.ratios.at(run.a), run.mean, run.scale(), value)
    }

    fn update(&self, run: &mut GaussianRun, value: f64) {
        run.add(value, 1.0);
    }

    fn save(&self, run: &GaussianRun, words: &mut Vec<u64>) {
        run.save(words);
    }

    fn restore(&self, words: &mut Words<'_>) -> Result<GaussianRun, RegimeError> {
        GaussianRun::restore(words)
    }
}

/// Like [`Gaussian`], but some observations are outliers from a much wider distribution. An observation counts for a
/// run as much as it is likely to be none, so a spike neither ends a run nor bends it.
#[derive(Clone, Debug)]
pub struct Robust {
    gaussian: Gaussian,
    share: f64,
    width: f64,
}

impl Robust {
    /// As `gaussian`, where a `share` of the observations is `width` times as wide.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when `share` is not in `(0, 0.5]` or `width` not over 1.
    pub fn new(gaussian: Gaussian, share: f64, width: f64) -> Result<Self, RegimeError> {
        RegimeError::check("share", share, share > 0.0 && share <= 0.5, "more than 0, at most 0.5")?;
        RegimeError::check("width", width, width > 1.0, "more than 1")?;
        Ok(Self { gaussian, share, width })
    }

    /// Log densities times their shares: as one of the run, and as an outlier.
    fn both(&self, run: &GaussianRun, value: f64) -> (f64, f64) {
        let (ratio, scale) = (self.gaussian.ratios.at(run.a), run.scale());
        let usual = ln(1.0 - self.share) + student(run.a, ratio, run.mean, scale, value);
        let wide = ln(self.share) + student(run.a, ratio, run.mean, scale * self.width * self.width, value);
        (usual, wide)
    }
}

impl Observation for Robust {
    type Statistics = GaussianRun;

    fn prior(&self) -> GaussianRun {
        self.gaussian.prior
    }

    fn log_predictive(&self, run: &GaussianRun, value: f64) -> f64 {
        let (usual, wide) = self.both(run, value);
        usual.max(wide) + libm::log1p(exp(-(usual - wide).abs()))
    }

    fn update(&self, run: &mut GaussianRun, value: f64) {
        let (usual, wide) = self.both(run, value);
        run.add(value, 1.0 / (1.0 + exp(wide - usual)));
    }

    fn save(&self, run: &GaussianRun, words: &mut Vec<u64>) {
        run.save(words);
    }

    fn restore(&self, words: &mut Words<'_>) -> Result<GaussianRun, RegimeError> {
        GaussianRun::restore(words)
    }
}

/// Counts of unknown rate (gamma prior): predictions are negative binomial.
#[derive(Clone, Debug)]
pub struct Poisson {
    shape: f64,
    rate: f64,
}

/// A run under [`Poisson`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonRun {
    /// Events, those believed beforehand included.
    pub shape: f64,
    /// Observations, those believed beforehand included.
    pub rate: f64,
}

impl Poisson {
    /// With a rate believed to be near `rate` with the weight of `weight` observations.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when one is not positive.
    pub fn new(rate: f64, weight: f64) -> Result<Self, RegimeError> {
        for (name, value) in [("rate", rate), ("weight", weight)] {
            RegimeError::check(name, value, value > 0.0, "more than 0")?;
        }
        Ok(Self { shape: rate * weight, rate: weight })
    }
}

impl Observation for Poisson {
    type Statistics = PoissonRun;

    fn accepts(&self, value: f64) -> bool {
        // Beyond 2^53 a float is no count.
        (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0
    }

    fn prior(&self) -> PoissonRun {
        PoissonRun { shape: self.shape, rate: self.rate }
    }

    fn log_predictive(&self, run: &PoissonRun, value: f64) -> f64 {
        let PoissonRun { shape, rate } = *run;
        ln_gamma(shape + value) - ln_gamma(shape) - ln_gamma(value + 1.0) + shape * ln(rate / (rate + 1.0))
            - value * ln(rate + 1.0)
    }

    fn update(&self, run: &mut PoissonRun, value: f64) {
        run.shape += value;
        run.rate += 1.0;
    }

    fn save(&self, run: &PoissonRun, words: &mut Vec<u64>) {
        push(words, &[run.shape, run.rate]);
    }

    fn restore(&self, words: &mut Words<'_>) -> Result<PoissonRun, RegimeError> {
        let run = PoissonRun { shape: words.float()?, rate: words.float()? };
        if run.shape > 0.0 && run.rate > 0.0 {
            Ok(run)
        } else {
            Err(RegimeError::State { problem: "a run without weight" })
        }
    }
}

/// First-order autoregression with unknown level, coefficient and variance (normal-inverse-gamma prior on the
/// regression): for series whose neighbours are alike, which [`Gaussian`] would cut to pieces.
#[derive(Clone, Debug)]
pub struct Lagged {
    weight: [f64; 2],
    a: f64,
    b: f64,
    first: f64,
    ratios: LogRatios,
}

/// A run under [`Lagged`]: information about level and coefficient, and the value before the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaggedRun {
    /// Precision of level and coefficient: level by level, level by coefficient, coefficient by coefficient.
    pub precision: [f64; 3],
    /// Precision times mean.
    pub shift: [f64; 2],
    /// Weighted sum of squares.
    pub squares: f64,
    /// Shape of the variance's posterior.
    pub a: f64,
    /// The value before.
    pub last: f64,
}

impl LaggedRun {
    /// Posterior means of level and coefficient.
    #[must_use]
    pub fn coefficients(&self) -> [f64; 2] {
        let ([p, q, r], [u, v]) = (self.precision, self.shift);
        let determinant = p * r - q * q;
        [(r * u - q * v) / determinant, (p * v - q * u) / determinant]
    }
}

impl Lagged {
    /// With levels and coefficients believed to be near zero with deviations `level` and `coefficient` times the noise's,
    /// and a noise variance near `variance` with the weight of `2 a` observations. `first` stands for what came before the
    /// first observation.
    ///
    /// # Errors
    /// [`RegimeError::Parameter`] when one is not a finite number or, but for `first`, not positive.
    pub fn new(level: f64, coefficient: f64, a: f64, variance: f64, first: f64) -> Result<Self, RegimeError> {
        RegimeError::check("first", first, true, "a finite number")?;
        for (name, value) in
            [("level", level), ("coefficient", coefficient), ("a", a), ("variance", variance)]
        {
            RegimeError::check(name, value, value > 0.0, "more than 0")?;
        }
        let weight = [1.0 / (level * level), 1.0 / (coefficient * coefficient)];
        Ok(Self { weight, a, b: a * variance, first, ratios: LogRatios::new(a) })
    }

    /// Twice the posterior scale of the variance.
    fn spread(&self, run: &LaggedRun) -> f64 {
        let [level, coefficient] = run.coefficients();
        (run.squares - level * run.shift[0] - coefficient * run.shift[1]).max(2.0 * self.b * 1e-12)
    }
}

impl Observation for Lagged {
    type Statistics = LaggedRun;

    fn prior(&self) -> LaggedRun {
        self.start(self.first)
    }

    fn start(&self, last: f64) -> LaggedRun {
        let precision = [self.weight[0], 0.0, self.weight[1]];
        LaggedRun { precision, shift: [0.0; 2], squares: 2.0 * self.b, a: self.a, last }
    }

    fn log_predictive(&self, run: &LaggedRun, value: f64) -> f64 {
        let ([p, q, r], x) = (run.precision, run.last);
        let [level, coefficient] = run.coefficients();
        // x' precision^-1 x for x = (1, last).
        let leverage = (r - 2.0 * q * x + p * x * x) / (p * r - q * q);
        let scale = 0.5 * self.spread(run) / run.a * (1.0 + leverage);
        student(run.a, self.ratios.at(run.a), level + coefficient * x, scale, value)
    }

    fn update(&self, run: &mut LaggedRun, value: f64) {
        let x = run.last;
        let [p, q, r] = &mut run.precision;
        (*p, *q, *r) = (*p + 1.0, *q + x, *r + x * x);
        run.shift[0] += value;
        run.shift[1] += x * value;
        run.squares += value * value;
        run.a += 0.5;
        run.last = value;
    }

    fn save(&self, run: &LaggedRun, words: &mut Vec<u64>) {
        push(words, &run.precision);
        push(words, &run.shift);
        push(words, &[run.squares, run.a, run.last]);
    }

    fn restore(&self, words: &mut Words<'_>) -> Result<LaggedRun, RegimeError> {
        let (mut precision, mut shift) = ([0.0; 3], [0.0; 2]);
        words.floats(&mut precision)?;
        words.floats(&mut shift)?;
        let run =
            LaggedRun { precision, shift, squares: words.float()?, a: words.float()?, last: words.float()? };
        let [p, q, r] = precision;
        if p > 0.0 && p * r > q * q && run.a > 0.0 {
            Ok(run)
        } else {
            Err(RegimeError::State { problem: "a run without weight" })
        }
    }
}
