//! What is computed: classes over rows, and how the batcher goes about it.

use crate::BatcherError;
use std::time::Duration;
use tidegate_gpu::BatchError;
use tidegate_gpu::correlation::KEPT_MAX;
use tidegate_gpu::risk::{RiskRequest, Tail};
use tidegate_gpu::sweep::{LiveSweep, SweepSpec};
use tidegate_regime::{CrossOptions, CrossSection};

/// Most classes.
pub const CLASSES_MAX: u64 = 64;
/// Most feeders.
pub const FEEDERS_MAX: u64 = 1_024;
/// Most rows.
pub const ROWS_MAX: u64 = 1 << 18;
/// Longest history of a surface, in bars of a row.
pub const HISTORY_MAX: u64 = 1 << 20;
/// Most values of one slab.
pub(crate) const VALUES_MAX: usize = 1 << 24;
/// Most numbers of state of a surface.
const STATE_MAX: u64 = 1 << 28;
/// Most bars that a surface keeps.
const BARS_MAX: u64 = 1 << 26;
/// Steps kept beyond those that are looked at: as many may be taken back.
pub(crate) const SPARE_STEPS: usize = 16;
/// Steps computed of one slab of a class that looks at all rows at once.
pub(crate) const STEPS_AT_ONCE: usize = 1;

/// A class of work.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassSpec {
    /// Its name in errors and statistics.
    pub name: String,
    /// Its rows. Sums are taken in this order: to have the bits of the commands over files, in order of symbol.
    pub members: Vec<u32>,
    /// What is computed of them.
    pub compute: Compute,
}

/// Kinds of classes.
#[derive(Debug, Clone, PartialEq)]
pub enum Compute {
    /// Indicators of many parameters, at each closed bar of a row.
    Surface(SurfaceSpec),
    /// How much of all rows' moves is one move, at each time step.
    Spectrum(SpectrumSpec),
    /// Value at risk and expected shortfall of a portfolio, at each time step.
    Risk(RiskSpec),
}

/// Indicators over parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct SurfaceSpec {
    /// The indicators.
    pub specs: Vec<SweepSpec>,
    /// Bars kept of each row: 2 or more, and twice the longest Bollinger window. A bar that comes late or is amended counts if it lies
    /// within the newest half of them at least.
    pub history: usize,
}

/// The spectrum of the correlations of log returns.
#[derive(Debug, Clone, PartialEq)]
pub struct SpectrumSpec {
    /// Window and shrinkage.
    pub options: CrossOptions,
    /// Leading eigenvalues that are given, 0 to 64.
    pub leading: usize,
}

/// Risk by the factor model of `tidegate_gpu::risk`.
#[derive(Debug, Clone, PartialEq)]
pub struct RiskSpec {
    /// Share of the capital in each member, in their order; below 0 is short.
    pub weights: Vec<f64>,
    /// Factors, from 1 and at most as many as members.
    pub factors: usize,
    /// Length of the horizon in bars, above 0.
    pub horizon_bars: f64,
    /// Scenarios, from 1,000.
    pub paths: u64,
    /// Tail of the returns.
    pub tail: Tail,
    /// Levels of confidence.
    pub levels: Vec<f64>,
    /// Everything random follows from it.
    pub seed: u64,
    /// The model is fitted to so many rows of returns, the newest, or to as many as there are.
    pub history: usize,
    /// Nothing comes before there are so many, 3 or more.
    pub least: usize,
}

impl RiskSpec {
    pub(crate) fn request<'a>(&'a self, returns: &'a [f64]) -> RiskRequest<'a> {
        RiskRequest {
            returns,
            weights: &self.weights,
            factors: self.factors,
            horizon_bars: self.horizon_bars,
            paths: self.paths,
            tail: self.tail,
            levels: &self.levels,
            seed: self.seed,
        }
    }
}

impl ClassSpec {
    /// Names of a line's values, in their order.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        match &self.compute {
            Compute::Surface(surface) => surface.specs.iter().flat_map(names).collect(),
            Compute::Spectrum(spectrum) => {
                let fixed =
                    ["symbols", "correlation", "mode_share", "effective_rank", "absorption", "turbulence"];
                let leading = (1..=spectrum.leading).map(|at| format!("eigenvalue_{at}"));
                fixed.into_iter().map(str::to_owned).chain(leading).collect()
            }
            Compute::Risk(risk) => {
                let mut names: Vec<String> =
                    ["returns", "mean_loss", "deviation", "worst"].map(str::to_owned).to_vec();
                names.extend((1..=risk.factors).map(|at| format!("explained_{at}")));
                for level in &risk.levels {
                    for name in ["var", "var_low", "var_high", "shortfall", "shortfall_error"] {
                        names.push(format!("{name}_{level}"));
                    }
                    names.extend(self.members.iter().map(|row| format!("part_{level}_{row}")));
                }
                names
            }
        }
    }

    /// Values of a line.
    #[must_use]
    pub fn width(&self) -> usize {
        match &self.compute {
            Compute::Surface(surface) => surface.specs.iter().map(SweepSpec::columns).sum(),
            Compute::Spectrum(spectrum) => 6 + spectrum.leading,
            Compute::Risk(risk) => 4 + risk.factors + risk.levels.len() * (5 + self.members.len()),
        }
    }

    /// Checks shapes and numbers for a batcher of so many rows; allocates no more than a list of the rows.
    ///
    /// # Errors
    /// [`BatcherError`].
    pub fn check(&self, rows: u32) -> Result<(), BatcherError> {
        let class = || self.name.clone();
        let members = self.members.len();
        BatcherError::count("members of a class", members, 1, rows.into())?;
        if let Some(&row) = self.members.iter().find(|&&row| row >= rows) {
            return Err(BatcherError::Row { class: class(), row, rows });
        }
        let mut sorted = self.members.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BatcherError::Twice { class: class(), row: pair[0] });
        }
        let batch = |error: BatchError| BatcherError::Batch { class: class(), error };
        match &self.compute {
            Compute::Surface(surface) => {
                BatcherError::count("bars of history", surface.history, 2, HISTORY_MAX)?;
                BatcherError::product(
                    &self.name,
                    "rows and bars of each",
                    members,
                    surface.history,
                    BARS_MAX,
                )?;
                let live = LiveSweep::new(&surface.specs).map_err(batch)?;
                BatcherError::count("values of a surface's row", live.width(), 1, VALUES_MAX as u64)?;
                // What is now, and what was at two bars before.
                let state = live.state_len().saturating_mul(3);
                BatcherError::product(&self.name, "rows and numbers of state", members, state, STATE_MAX)?;
                let (history, least) = (surface.history as u64, 2 * u64::from(live.lookback()));
                if history < least {
                    let what = "its longest Bollinger window, twice over";
                    return Err(BatcherError::History { class: class(), history, what, least });
                }
            }
            Compute::Spectrum(spectrum) => {
                CrossSection::new(members, spectrum.options)
                    .map_err(|error| BatcherError::Spectrum { class: class(), error })?;
                BatcherError::count("eigenvalues", spectrum.leading, 0, 64)?;
                let kept = 2 * (spectrum.options.rows + SPARE_STEPS);
                BatcherError::product(&self.name, "rows and time steps", members, kept, KEPT_MAX)?;
            }
            Compute::Risk(risk) => {
                BatcherError::count("weights", risk.weights.len(), members as u64, members as u64)?;
                BatcherError::count(
                    "rows of history",
                    risk.history,
                    3,
                    tidegate_gpu::correlation::WINDOW_MAX,
                )?;
                BatcherError::count("rows before a result", risk.least, 3, risk.history as u64)?;
                let kept = 2 * (risk.history + SPARE_STEPS);
                BatcherError::product(&self.name, "rows and time steps", members, kept, KEPT_MAX)?;
                // With returns of nothing, as many as it needs, all else is looked at.
                let none = vec![0.0; 3 * members];
                risk.request(&none).check().map_err(batch)?;
            }
        }
        Ok(())
    }
}

fn names(spec: &SweepSpec) -> Vec<String> {
    match *spec {
        SweepSpec::Ema { window } => vec![format!("ema:{window}")],
        SweepSpec::Rsi { window } => vec![format!("rsi:{window}")],
        SweepSpec::Atr { window } => vec![format!("atr:{window}")],
        SweepSpec::Macd { fast, slow, signal } => {
            ["line", "signal", "histogram"].map(|part| format!("macd:{fast}:{slow}:{signal}:{part}")).to_vec()
        }
        SweepSpec::Bollinger { window, deviations } => {
            ["middle", "upper", "lower"].map(|part| format!("bb:{window}:{deviations}:{part}")).to_vec()
        }
    }
}

/// Where batches are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Routing {
    /// Where it is expected to take less, from what batches took so far: 20 % less before it changes sides, and one batch in a
    /// hundred on the other side to see.
    #[default]
    Cheapest,
    /// On the device whenever there is one that can: for tests and measurements.
    Device,
}

/// How the batcher goes about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Feeders: one per thread that pushes.
    pub feeders: usize,
    /// Rows, of all classes.
    pub rows: u32,
    /// Windows that a feeder's ring holds.
    pub ring: usize,
    /// Most windows of a batch.
    pub max_batch: usize,
    /// Longest that a window of a surface waits for others.
    pub max_latency: Duration,
    /// Windows that a class may have waiting; beyond it those of one row become one, and are counted.
    pub backlog: usize,
    /// Complete time steps that may wait; of more the oldest are taken without a result, and counted.
    pub steps_behind: usize,
    /// Threads that the CPU's part of a risk uses, 0 for one per core.
    pub threads: usize,
    /// Where batches are computed.
    pub routing: Routing,
    /// A batch on the device is late after 50 times what it was expected to take, and not before this.
    pub late_least: Duration,
    /// The same for the first, of which nothing is expected yet.
    pub late_first: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            feeders: 1,
            rows: 1,
            ring: 1 << 14,
            max_batch: 8_192,
            max_latency: Duration::from_micros(200),
            backlog: 1 << 15,
            steps_behind: 64,
            threads: 0,
            routing: Routing::Cheapest,
            late_least: Duration::from_millis(20),
            late_first: Duration::from_secs(1),
        }
    }
}

impl Options {
    pub(crate) fn check(&self, classes: &[ClassSpec]) -> Result<(), BatcherError> {
        BatcherError::count("classes", classes.len(), 1, CLASSES_MAX)?;
        BatcherError::count("feeders", self.feeders, 1, FEEDERS_MAX)?;
        BatcherError::count("rows", self.rows as usize, 1, ROWS_MAX)?;
        BatcherError::count("windows of a ring", self.ring, 1, 1 << 24)?;
        BatcherError::count("windows of a batch", self.max_batch, 1, 1 << 20)?;
        BatcherError::count("windows waiting", self.backlog, 1, 1 << 24)?;
        BatcherError::count("time steps waiting", self.steps_behind, 1, 1 << 20)?;
        classes.iter().try_for_each(|class| class.check(self.rows))
    }
}
