//! Options on simulated geometric Brownian paths, with the interval that the simulation vouches for.
//!
//! **Equality:** words bit-equal on every backend, values per path within 1e-5; on the CPU the same bits on any number of
//! threads, as sums go by chunks of [`CHUNK`] paths in their order.
//!
//! A payoff is simulated where it matters: the path is shifted to where payoff times density peaks, and each value is
//! weighted by the likelihood ratio of the shift (Glasserman 2003, section 4.6). So the interval of a rare payoff is as
//! honest as that of a common one.

use crate::BatchError;
use crate::lanes::{LANES, exp_f64, widest};
use crate::philox::{key_of, normals};
use rayon::prelude::*;

/// Paths summed in one go.
pub const CHUNK: u64 = 4_096;
/// Most paths of a batch.
pub const PATHS_MAX: u64 = 1 << 32;
/// Most steps of a path.
pub const STEPS_MAX: u32 = 1 << 16;
const PAYOFFS_MAX: u64 = 1 << 12;
/// Furthest shift, in deviations.
const SHIFT_MAX: f64 = 20.0;
const STREAM: u32 = 0;

/// What a contract is written on. Rates and volatility per year, continuously compounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Market {
    /// Price today, above 0.
    pub spot: f64,
    /// Riskless rate, -1 to 1.
    pub rate: f64,
    /// Yield the holder of the asset has, -1 to 1.
    pub dividend_yield: f64,
    /// Above 0 and at most 5.
    pub volatility: f64,
    /// Time to expiry, above 0 and at most 100.
    pub years: f64,
}

/// What is paid at expiry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Payoff {
    /// The price over the strike.
    Call {
        /// Above 0.
        strike: f64,
    },
    /// The price under the strike.
    Put {
        /// Above 0.
        strike: f64,
    },
    /// The geometric mean of the price from today to expiry over the strike. The mean of a path is taken over its steps
    /// and scaled to the variance of the continuous one, whose law it then has for any number of steps.
    GeometricAsianCall {
        /// Above 0.
        strike: f64,
    },
}

impl Payoff {
    fn strike(&self) -> f64 {
        match *self {
            Self::Call { strike } | Self::Put { strike } | Self::GeometricAsianCall { strike } => strike,
        }
    }
}

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct OptionBatch<'a> {
    /// The asset.
    pub market: Market,
    /// Payoffs, all on the same paths.
    pub payoffs: &'a [Payoff],
    /// Paths, a multiple of nothing in particular: from 2.
    pub paths: u64,
    /// Steps per path, from 1.
    pub steps: u32,
    /// Everything random follows from it.
    pub seed: u64,
}

/// A simulated value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean over paths, discounted.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Estimate {
    /// The interval that holds the true value in 95 % of simulations.
    #[must_use]
    pub fn interval95(&self) -> (f64, f64) {
        let reach = 1.959_963_984_540_054 * self.standard_error;
        (self.value - reach, self.value + reach)
    }
}

/// A payoff as a function of one normal number of known variance: the path's end, or its mean.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Whether the number is the mean of the Brownian path and not its end.
    pub(crate) mean: bool,
    pub(crate) variance: f64,
    spot: f64,
    drift: f64,
    volatility: f64,
    strike: f64,
    sign: f64,
    shift: f64,
    discount: f64,
}

impl Plan {
    pub(crate) fn new(market: &Market, payoff: &Payoff) -> Self {
        let Market { spot, rate, dividend_yield, volatility, years } = *market;
        let (mean, sign) = match payoff {
            Payoff::Call { .. } => (false, 1.0),
            Payoff::Put { .. } => (false, -1.0),
            Payoff::GeometricAsianCall { .. } => (true, 1.0),
        };
        let drift = (rate - dividend_yield - volatility * volatility / 2.0) * years;
        let drift = if mean { drift / 2.0 } else { drift };
        let variance = if mean { years / 3.0 } else { years };
        let strike = payoff.strike();
        let shift = shift(spot * libm::exp(drift), strike, volatility, variance, sign);
        let discount = libm::exp(-rate * years);
        Self { mean, variance, spot, drift, volatility, strike, sign, shift, discount }
    }

    /// As the kernel takes it.
    pub(crate) fn numbers(&self) -> [f64; tidegate_cuda::PLAN_NUMBERS] {
        let Self { mean, variance, spot, drift, volatility, strike, sign, shift, discount } = *self;
        [f64::from(u8::from(mean)), variance, spot, drift, volatility, strike, sign, shift, discount]
    }

    /// The discounted payoff where the Brownian number is `x`, weighted for the shift.
    #[inline(always)]
    pub(crate) fn value(&self, x: f64) -> f64 {
        let price = self.spot * exp_f64(self.volatility.mul_add(x + self.shift, self.drift));
        let paid = (self.sign * (price - self.strike)).max(0.0);
        let weight = exp_f64(-self.shift * (x + self.shift / 2.0) / self.variance);
        self.discount * paid * weight
    }
}

/// Where a payoff times the density of its normal number peaks: the shift that evens out what paths contribute (Glasserman,
/// Heidelberger & Shahabuddin 1999). By bisection of the slope, within [`SHIFT_MAX`] deviations.
fn shift(price: f64, strike: f64, volatility: f64, variance: f64, sign: f64) -> f64 {
    let most = SHIFT_MAX * variance.sqrt();
    let middle = (libm::log(strike / price) / volatility).clamp(-most, most);
    let (mut low, mut high) = if sign > 0.0 { (middle, most) } else { (-most, middle) };
    for _ in 0..60 {
        let x = f64::midpoint(low, high);
        let there = price * libm::exp(volatility * x);
        // x / variance is the slope of the density's logarithm, the rest that of the payoff's.
        let slope = x / variance * (sign * (there - strike)) - sign * volatility * there;
        if slope < 0.0 {
            low = x;
        } else {
            high = x;
        }
    }
    f64::midpoint(low, high)
}

impl Market {
    pub(crate) fn check(&self) -> Result<(), BatchError> {
        BatchError::parameter("spot", self.spot, |x| x > 0.0 && x <= 1e15, "above 0 and at most 1e15")?;
        BatchError::parameter("rate", self.rate, |x| x.abs() <= 1.0, "-1 to 1 per year")?;
        BatchError::parameter("dividend yield", self.dividend_yield, |x| x.abs() <= 1.0, "-1 to 1 per year")?;
        let volatile = |x| x > 0.0 && x <= 5.0;
        BatchError::parameter("volatility", self.volatility, volatile, "above 0 and at most 5 per year")?;
        BatchError::parameter("years", self.years, |x| x > 0.0 && x <= 100.0, "above 0 and at most 100")?;
        // Within what an exponential holds, eight deviations away.
        let reach = self.volatility * self.years.sqrt() * (8.0 + SHIFT_MAX)
            + (self.volatility * self.volatility / 2.0 + 2.0) * self.years;
        let allowed = "so small that no price overflows (volatility x root of years)";
        BatchError::parameter("spread of the log price", reach, |x| x <= 600.0, allowed)
    }
}

pub(crate) fn check_payoffs(payoffs: &[Payoff]) -> Result<(), BatchError> {
    BatchError::count("payoffs", payoffs.len(), 1, PAYOFFS_MAX)?;
    payoffs.iter().try_for_each(|payoff| {
        let fits = |x| x > 0.0 && x <= 1e15;
        BatchError::parameter("strike", payoff.strike(), fits, "above 0 and at most 1e15")
    })
}

impl OptionBatch<'_> {
    /// Checks every number; nothing is allocated.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn check(&self) -> Result<(), BatchError> {
        self.market.check()?;
        check_payoffs(self.payoffs)?;
        let paths = usize::try_from(self.paths).unwrap_or(usize::MAX);
        BatchError::count("paths", paths, 2, PATHS_MAX)?;
        BatchError::count("steps", self.steps as usize, 1, STEPS_MAX.into())
    }

    pub(crate) fn plans(&self) -> Vec<Plan> {
        self.payoffs.iter().map(|payoff| Plan::new(&self.market, payoff)).collect()
    }

    /// From sums of normal numbers to the Brownian path's end, and from trapezoid sums to its mean.
    pub(crate) fn scales(&self) -> (f64, f64) {
        let n = f64::from(self.steps);
        let to_end = (self.market.years / n).sqrt();
        // The mean over steps has variance (4n^2 - 1) / (12 n^2) of the time; the continuous one a third.
        (to_end, to_end / n * (4.0 * n * n / (4.0 * n * n - 1.0)).sqrt())
    }

    pub(crate) fn run(&self) -> Result<Vec<Estimate>, BatchError> {
        self.check()?;
        let plans = self.plans();
        let chunks: Vec<Vec<[f64; 2]>> = (0..self.paths.div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let first = chunk * CHUNK;
                self.chunk(&plans, first, CHUNK.min(self.paths - first))
            })
            .collect();
        Ok(self.estimates(&chunks))
    }

    /// From sums and sums of squares, chunk by chunk and payoff by payoff.
    pub(crate) fn estimates(&self, chunks: &[Vec<[f64; 2]>]) -> Vec<Estimate> {
        let count = self.paths as f64;
        let estimate = |at: usize| {
            let (sum, squares) = chunks.iter().fold((0.0, 0.0), |(sum, squares), chunk| {
                let [more, more_squares] = chunk[at];
                (sum + more, squares + more_squares)
            });
            let value = sum / count;
            let variance = ((squares - sum * value) / (count - 1.0)).max(0.0);
            Estimate { value, standard_error: (variance / count).sqrt() }
        };
        (0..self.payoffs.len()).map(estimate).collect()
    }

    /// Sums and sums of squares of every payoff over `count` paths from `first`.
    fn chunk(&self, plans: &[Plan], first: u64, count: u64) -> Vec<[f64; 2]> {
        let mut lanes = vec![[[0.0; LANES]; 2]; plans.len()];
        let key = key_of(self.seed);
        let (to_end, to_mean) = self.scales();
        widest(
            #[inline(always)]
            || {
                for group in 0..count.div_ceil(LANES as u64) {
                    let at = group * LANES as u64;
                    let (end, mean) = brownian(first + at, self.steps, key);
                    let end: [f64; LANES] = std::array::from_fn(|lane| f64::from(end[lane]) * to_end);
                    let mean: [f64; LANES] = std::array::from_fn(|lane| f64::from(mean[lane]) * to_mean);
                    let live = (count - at).min(LANES as u64) as usize;
                    for (plan, sums) in plans.iter().zip(lanes.iter_mut()) {
                        let x = if plan.mean { &mean } else { &end };
                        for lane in 0..LANES {
                            let value = if lane < live { plan.value(x[lane]) } else { 0.0 };
                            sums[0][lane] += value;
                            sums[1][lane] = value.mul_add(value, sums[1][lane]);
                        }
                    }
                }
            },
        );
        let folded = lanes.iter().map(|sums| sums.map(|lanes| lanes.iter().sum()));
        folded.collect()
    }
}

/// For [`LANES`] paths: the sum of the steps' normal numbers, and the trapezoid sum of the partial sums.
#[inline(always)]
fn brownian(first: u64, steps: u32, key: [u32; 2]) -> ([f32; LANES], [f32; LANES]) {
    let (mut end, mut area) = ([0.0f32; LANES], [0.0f32; LANES]);
    for block in 0..steps / 4 {
        let z = normals(first, block, STREAM, key);
        for row in &z {
            for lane in 0..LANES {
                end[lane] += row[lane];
                area[lane] += end[lane];
            }
        }
    }
    if !steps.is_multiple_of(4) {
        let z = normals(first, steps / 4, STREAM, key);
        for row in &z[..(steps % 4) as usize] {
            for lane in 0..LANES {
                end[lane] += row[lane];
                area[lane] += end[lane];
            }
        }
    }
    for lane in 0..LANES {
        area[lane] -= end[lane] / 2.0;
    }
    (end, area)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Backend, Cpu};

    pub(crate) fn normal_cdf(x: f64) -> f64 {
        libm::erfc(-x / std::f64::consts::SQRT_2) / 2.0
    }

    /// Black-Scholes-Merton, and Kemna and Vorst's for the geometric mean.
    pub(crate) fn closed_form(market: &Market, payoff: &Payoff) -> f64 {
        let Market { spot, rate, dividend_yield, volatility, years } = *market;
        let drift = (rate - dividend_yield - volatility * volatility / 2.0) * years;
        let (drift, variance) = match payoff {
            Payoff::GeometricAsianCall { .. } => (drift / 2.0, volatility * volatility * years / 3.0),
            _ => (drift, volatility * volatility * years),
        };
        let (forward, sd, strike) =
            (spot * libm::exp(drift + variance / 2.0), variance.sqrt(), payoff.strike());
        let d1 = (libm::log(forward / strike) + variance / 2.0) / sd;
        let call = forward * normal_cdf(d1) - strike * normal_cdf(d1 - sd);
        let paid = if let Payoff::Put { .. } = payoff { call - forward + strike } else { call };
        paid * libm::exp(-rate * years)
    }

    pub(crate) fn some_markets() -> Vec<(Market, f64)> {
        let draw = |at: u32| {
            crate::philox::philox4x32([at, 0, 0, 0], [3, 9]).map(|word| f64::from(word) / 4_294_967_296.0)
        };
        let one = |at: u32| {
            let [a, b, c, d] = draw(2 * at);
            let [e, f, ..] = draw(2 * at + 1);
            let spot = 20.0 + 100.0 * a;
            let market = Market {
                spot,
                rate: 0.08 * b,
                dividend_yield: 0.04 * c,
                volatility: 0.1 + 0.4 * d,
                years: 0.05 + 2.0 * e,
            };
            (market, spot * (0.7 + 0.6 * f))
        };
        (0..200).map(one).collect()
    }

    #[test]
    fn intervals_hold_the_closed_form_as_often_as_they_claim() {
        let cpu = Cpu::new(0).unwrap();
        let (mut held, mut cases) = (0, 0);
        for seed in 0..4 {
            for (at, (market, strike)) in some_markets().into_iter().enumerate() {
                let payoffs =
                    [Payoff::Call { strike }, Payoff::Put { strike }, Payoff::GeometricAsianCall { strike }];
                let seed = seed * 1_000 + at as u64;
                let batch = OptionBatch { market, payoffs: &payoffs, paths: 8_192, steps: 8, seed };
                for (payoff, estimate) in payoffs.iter().zip(cpu.price(&batch).unwrap()) {
                    let (low, high) = estimate.interval95();
                    held += usize::from((low..=high).contains(&closed_form(&market, payoff)));
                    cases += 1;
                }
            }
        }
        let share = held as f64 / cases as f64;
        assert!((0.94..=0.96).contains(&share), "{held} of {cases}");
    }

    #[test]
    fn paths_are_the_plain_sum_of_their_normals() {
        for steps in [1, 2, 4, 7, 252] {
            let (end, area) = brownian(37, steps, key_of(5));
            let (mut sum, mut sums) = (0.0f32, 0.0f32);
            for step in 0..steps {
                sum += normals(40, step / 4, STREAM, key_of(5))[(step % 4) as usize][0];
                sums += sum;
            }
            assert_eq!((end[3], area[3]), (sum, sums - sum / 2.0));
        }
    }

    #[test]
    fn threads_and_chunks_change_nothing_and_every_path_counts_once() {
        let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.0, volatility: 0.2, years: 0.5 };
        let payoffs = [Payoff::Call { strike: 40.0 }];
        for paths in [2, 15, 4_096, 4_099, 20_000] {
            let batch = OptionBatch { market, payoffs: &payoffs, paths, steps: 3, seed: 1 };
            let one = Cpu::new(1).unwrap().price(&batch).unwrap();
            assert_eq!(one, Cpu::new(3).unwrap().price(&batch).unwrap());
            let plan = Plan::new(&market, &payoffs[0]);
            let value = |path| {
                let end = brownian(path, 3, key_of(1)).0[0];
                plan.value(f64::from(end) * (0.5f64 / 3.0).sqrt())
            };
            let mean = (0..paths).map(value).sum::<f64>() / paths as f64;
            assert!((one[0].value - mean).abs() < 1e-12 * mean, "{paths}: {} {mean}", one[0].value);
        }
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let market = Market { spot: 42.0, rate: 0.1, dividend_yield: 0.0, volatility: 0.2, years: 0.5 };
        let payoffs = [Payoff::Call { strike: 40.0 }];
        let batch = OptionBatch { market, payoffs: &payoffs, paths: 10, steps: 3, seed: 1 };
        assert_eq!(batch.check(), Ok(()));
        let text = |batch: OptionBatch<'_>| batch.check().unwrap_err().to_string();
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            for market in [
                Market { spot: wrong, ..market },
                Market { volatility: wrong, ..market },
                Market { years: wrong, ..market },
            ] {
                assert!(text(OptionBatch { market, ..batch }).contains("; allowed is above 0"));
            }
            assert!(
                text(OptionBatch { payoffs: &[Payoff::Put { strike: wrong }], ..batch })
                    .starts_with("strike is")
            );
        }
        let far = Market { volatility: 5.0, years: 100.0, ..market };
        assert!(text(OptionBatch { market: far, ..batch }).starts_with("spread of the log price is"));
        assert_eq!(text(OptionBatch { paths: 1, ..batch }), "paths: 1; allowed are 2 to 4294967296");
        assert_eq!(text(OptionBatch { steps: 0, ..batch }), "steps: 0; allowed are 1 to 65536");
        assert_eq!(text(OptionBatch { payoffs: &[], ..batch }), "payoffs: 0; allowed are 1 to 4096");
    }
}
