//! Where batches are computed.

use crate::BatchError;
use crate::changes::{ChangeBank, ChangeSteps};
use crate::correlation::{Correlation, EwCorrelation, RollingCorrelation, Spectrum};
use crate::hmm::{FitRequest, Fitted, HmmBank};
use crate::options::{Estimate, OptionBatch};
use crate::qp::{LongOnlyBatch, LongOnlyFound};
use crate::risk::{RiskReport, RiskRequest};
use crate::sweep::{SweepCell, SweepPath, SweepRequest};
use crate::window::WindowRequest;

/// Computes batches. Every backend gives the answers of [`Cpu`] within the contract that each request's module states.
pub trait Backend: Send + Sync {
    /// Its name in results: `cpu` or `cuda`.
    fn name(&self) -> &'static str;

    /// Indicators over symbols x parameters x bars: for each series, a cell per spec.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    fn sweep(&self, request: &SweepRequest<'_>) -> Result<Vec<Vec<SweepCell>>, BatchError>;

    /// [`Self::sweep`] with a say in how a device goes through the bars: the same bits. The CPU has one way and takes that.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    fn sweep_by(
        &self,
        request: &SweepRequest<'_>,
        path: SweepPath,
    ) -> Result<Vec<Vec<SweepCell>>, BatchError> {
        request.check_for(path)?;
        self.sweep(request)
    }

    /// Values of options on simulated paths, one estimate per payoff.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    fn price(&self, batch: &OptionBatch<'_>) -> Result<Vec<Estimate>, BatchError>;

    /// Value at risk and expected shortfall of a portfolio.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    fn risk(&self, request: &RiskRequest<'_>) -> Result<RiskReport, BatchError>;

    /// Takes rows of one value per symbol into exponentially weighted covariances.
    ///
    /// # Errors
    /// [`BatchError`]; the state is then as it was.
    fn correlate(&self, state: &mut EwCorrelation, rows: &[f64]) -> Result<(), BatchError>;

    /// Takes rows of one value per series into a bank of hidden Markov models.
    ///
    /// # Errors
    /// [`BatchError`]; the bank is then as it was.
    fn hmm_filter(&self, bank: &mut HmmBank, values: &[f64]) -> Result<(), BatchError>;

    /// Finds hidden Markov models, one per series.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    fn hmm_fit(&self, request: &FitRequest<'_>) -> Result<Fitted, BatchError>;

    /// Takes rows of one value per series into a bank of change-point detectors.
    ///
    /// # Errors
    /// [`BatchError`]; the bank is then as it was.
    fn change_points(&self, bank: &mut ChangeBank, values: &[f64]) -> Result<ChangeSteps, BatchError>;

    /// Takes rows of one value per symbol into the sums of a window that rolls on.
    ///
    /// # Errors
    /// [`BatchError`]; the state is then as it was.
    fn roll(&self, state: &mut RollingCorrelation, rows: &[f64]) -> Result<(), BatchError>;

    /// Correlations of a whole window.
    ///
    /// # Errors
    /// [`BatchError`] before anything is computed.
    fn window_correlation(&self, request: &WindowRequest<'_>) -> Result<Correlation, BatchError>;

    /// The `count` largest eigenvalues of the correlations of a whole window, with their vectors.
    ///
    /// # Errors
    /// [`BatchError`]; only [`BatchError::Solver`] comes later than before anything is computed.
    fn window_spectrum(&self, request: &WindowRequest<'_>, count: usize) -> Result<Spectrum, BatchError>;

    /// The `count` largest eigenvalues of a correlation matrix, with their vectors.
    ///
    /// # Errors
    /// As [`Correlation::leading`].
    fn leading(&self, correlation: &Correlation, count: usize) -> Result<Spectrum, BatchError>;

    /// Many long-only portfolios of one set of assets.
    ///
    /// # Errors
    /// [`BatchError`]; only [`BatchError::NotPositive`] and [`BatchError::Solver`] come later than before anything is computed.
    fn long_only(&self, batch: &LongOnlyBatch<'_>) -> Result<LongOnlyFound, BatchError>;
}

/// Vector code on the cores of this machine.
#[derive(Debug)]
pub struct Cpu {
    pool: rayon::ThreadPool,
}

impl Cpu {
    /// Most threads.
    pub const THREADS_MAX: usize = 1_024;

    /// A backend of so many threads of its own; 0 is one per core.
    ///
    /// # Errors
    /// [`BatchError::Threads`] when they cannot be started, [`BatchError::Count`] beyond [`Self::THREADS_MAX`].
    pub fn new(threads: usize) -> Result<Self, BatchError> {
        BatchError::count("threads", threads, 0, Self::THREADS_MAX as u64)?;
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let builder = builder.thread_name(|at| format!("batch-{at}"));
        let wrong =
            |error: rayon::ThreadPoolBuildError| BatchError::Threads { threads, reason: error.to_string() };
        Ok(Self { pool: builder.build().map_err(wrong)? })
    }

    /// Runs `work`, whose parallel parts use this backend's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn sweep(&self, request: &SweepRequest<'_>) -> Result<Vec<Vec<SweepCell>>, BatchError> {
        self.install(|| request.run())
    }

    fn price(&self, batch: &OptionBatch<'_>) -> Result<Vec<Estimate>, BatchError> {
        self.install(|| batch.run())
    }

    fn risk(&self, request: &RiskRequest<'_>) -> Result<RiskReport, BatchError> {
        self.install(|| request.run())
    }

    fn correlate(&self, state: &mut EwCorrelation, rows: &[f64]) -> Result<(), BatchError> {
        self.install(|| state.take(rows))
    }

    fn hmm_filter(&self, bank: &mut HmmBank, values: &[f64]) -> Result<(), BatchError> {
        self.install(|| bank.run(values))
    }

    fn hmm_fit(&self, request: &FitRequest<'_>) -> Result<Fitted, BatchError> {
        self.install(|| request.run())
    }

    fn change_points(&self, bank: &mut ChangeBank, values: &[f64]) -> Result<ChangeSteps, BatchError> {
        self.install(|| bank.run(values))
    }

    fn roll(&self, state: &mut RollingCorrelation, rows: &[f64]) -> Result<(), BatchError> {
        self.install(|| state.take(rows))
    }

    fn window_correlation(&self, request: &WindowRequest<'_>) -> Result<Correlation, BatchError> {
        self.install(|| request.run())
    }

    fn window_spectrum(&self, request: &WindowRequest<'_>, count: usize) -> Result<Spectrum, BatchError> {
        self.install(|| request.spectrum(count))
    }

    fn leading(&self, correlation: &Correlation, count: usize) -> Result<Spectrum, BatchError> {
        self.install(|| correlation.leading(count))
    }

    fn long_only(&self, batch: &LongOnlyBatch<'_>) -> Result<LongOnlyFound, BatchError> {
        self.install(|| batch.run())
    }
}
