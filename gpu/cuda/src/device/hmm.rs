//! Banks of hidden Markov models. Number `n` of model `m` stands at `n * models + m`.

use super::{Device, blocks, failed, product};
use crate::DeviceError;
use cudarc::driver::PushKernelArg;

/// Threads per block: a model's parameters are in registers.
const MODEL_THREADS: u32 = 64;

/// Parameters of a bank's models.
#[derive(Debug, Clone, PartialEq)]
pub struct HmmParameters {
    /// Probabilities of the first state: states x models.
    pub initial: Vec<f64>,
    /// From by to: states x states x models.
    pub transition: Vec<f64>,
    /// states x models.
    pub means: Vec<f64>,
    /// states x models, above 0.
    pub deviations: Vec<f64>,
}

/// What a bank that filters holds.
#[derive(Debug, Clone, PartialEq)]
pub struct HmmFilterState {
    /// Filtered probabilities: states x models.
    pub now: Vec<f64>,
    /// Sums of the logarithms of the best densities.
    pub best: Vec<f64>,
    /// Product of what is left of the likelihoods, 1 to 2.
    pub product: Vec<f64>,
    /// Powers of two taken out of it.
    pub exponent: Vec<i64>,
}

impl HmmParameters {
    fn check(&self, states: u64, models: u64) -> Result<(), DeviceError> {
        DeviceError::shape("initial", self.initial.len(), product(&[states, models]))?;
        DeviceError::shape("transition", self.transition.len(), product(&[states, states, models]))?;
        DeviceError::shape("means", self.means.len(), product(&[states, models]))?;
        DeviceError::shape("deviations", self.deviations.len(), product(&[states, models]))
    }
}

fn kernel(states: usize, names: [&'static str; 3]) -> Result<&'static str, DeviceError> {
    let found = states as u64;
    let name = states.checked_sub(2).and_then(|at| names.get(at));
    name.copied().ok_or(DeviceError::NotCovered { what: "states", found, allowed: "2 to 4" })
}

impl Device {
    /// Takes rows of values, one per model; `seen` is how many rows the bank took before.
    ///
    /// # Errors
    /// [`DeviceError`]; the state is then as it was. [`DeviceError::NotCovered`] unless there are 2 to 4 states.
    pub fn hmm_filter(
        &self,
        states: usize,
        parameters: &HmmParameters,
        state: &mut HmmFilterState,
        seen: u64,
        values: &[f64],
    ) -> Result<(), DeviceError> {
        let name = kernel(states, ["hmm_filter_2", "hmm_filter_3", "hmm_filter_4"])?;
        let models = state.best.len() as u64;
        parameters.check(states as u64, models)?;
        DeviceError::shape("probabilities", state.now.len(), product(&[states as u64, models]))?;
        DeviceError::shape("products", state.product.len(), Some(models))?;
        DeviceError::shape("exponents", state.exponent.len(), Some(models))?;
        let rows = (values.len() as u64).checked_div(models).unwrap_or(0);
        DeviceError::shape("values", values.len(), product(&[rows, models]))?;
        if rows == 0 {
            return Ok(());
        }
        let numbers = product(&[states as u64, states as u64 + 6, models]);
        self.fits(&[Some(values.len() as u64), numbers])?;
        let values = self.copy(values)?;
        let (initial, transition) = (self.copy(&parameters.initial)?, self.copy(&parameters.transition)?);
        let (means, deviations) = (self.copy(&parameters.means)?, self.copy(&parameters.deviations)?);
        let (mut now, mut best) = (self.copy(&state.now)?, self.copy(&state.best)?);
        let (mut kept, mut exponent) = (self.copy(&state.product)?, self.copy(&state.exponent)?);
        let mut call = self.call(name);
        call.arg(&values).arg(&rows).arg(&seen).arg(&models).arg(&initial).arg(&transition).arg(&means);
        call.arg(&deviations).arg(&mut now).arg(&mut best).arg(&mut kept).arg(&mut exponent);
        let config = blocks(models, MODEL_THREADS)?;
        self.timed("hmm_filter", rows, || {
            // SAFETY: thread `m < models` touches its own numbers of buffers whose lengths were checked above.
            unsafe { call.launch(config) }.map_err(failed("launching hmm_filter"))
        })?;
        let mut found = state.clone();
        self.bring(&now, &mut found.now)?;
        self.bring(&best, &mut found.best)?;
        self.bring(&kept, &mut found.product)?;
        self.bring(&exponent, &mut found.exponent)?;
        *state = found;
        Ok(())
    }

    /// Baum-Welch: model `m` over series `(first + m) % series`. `values` are rows of one value per series, `floors` each
    /// series' least deviation. Returns the log-likelihood of each model as it is left.
    ///
    /// # Errors
    /// [`DeviceError`]; the parameters are then as they were. [`DeviceError::NotCovered`] unless there are 2 to 4 states.
    pub fn hmm_fit(
        &self,
        states: usize,
        parameters: &mut HmmParameters,
        values: &[f64],
        floors: &[f64],
        first: u64,
        iterations: u32,
    ) -> Result<Vec<f64>, DeviceError> {
        let name = kernel(states, ["hmm_fit_2", "hmm_fit_3", "hmm_fit_4"])?;
        let models = (parameters.means.len() / states) as u64;
        parameters.check(states as u64, models)?;
        let series = floors.len() as u64;
        let rows = (values.len() as u64).checked_div(series).unwrap_or(0);
        DeviceError::shape("values", values.len(), product(&[rows, series]))?;
        if rows == 0 || models == 0 {
            return Err(DeviceError::NotCovered { what: "rows", found: rows, allowed: "1 or more" });
        }
        let scratch = product(&[rows, 2 * states as u64 + 1, models]);
        let numbers = product(&[states as u64, states as u64 + 4, models]);
        self.fits(&[Some(values.len() as u64), scratch, numbers])?;
        let values = self.copy(values)?;
        let floors = self.copy(floors)?;
        let (mut initial, mut transition) =
            (self.copy(&parameters.initial)?, self.copy(&parameters.transition)?);
        let (mut means, mut deviations) = (self.copy(&parameters.means)?, self.copy(&parameters.deviations)?);
        let mut scratch = self.room::<f64>(scratch.unwrap_or(u64::MAX))?;
        let mut likelihoods = self.room::<f64>(models)?;
        let mut call = self.call(name);
        call.arg(&values).arg(&rows).arg(&series).arg(&first).arg(&models).arg(&iterations).arg(&floors);
        call.arg(&mut initial).arg(&mut transition).arg(&mut means).arg(&mut deviations);
        call.arg(&mut scratch).arg(&mut likelihoods);
        let config = blocks(models, MODEL_THREADS)?;
        self.timed("hmm_fit", 1, || {
            // SAFETY: thread `m < models` touches its own numbers and scratch, and reads one of `series` columns.
            unsafe { call.launch(config) }.map_err(failed("launching hmm_fit"))
        })?;
        let mut found = parameters.clone();
        let mut likelihood = vec![0.0; models as usize];
        self.bring(&initial, &mut found.initial)?;
        self.bring(&transition, &mut found.transition)?;
        self.bring(&means, &mut found.means)?;
        self.bring(&deviations, &mut found.deviations)?;
        self.bring(&likelihoods, &mut likelihood)?;
        *parameters = found;
        Ok(likelihood)
    }
}
