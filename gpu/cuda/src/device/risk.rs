//! Losses of a portfolio in scenarios of a factor model.

use super::{Device, THREADS, blocks, failed, product};
use crate::DeviceError;
use cudarc::driver::PushKernelArg;

/// Most factors of the kernel.
const FACTORS_MAX: usize = 64;

/// The factor model, scaled to the horizon.
#[derive(Debug, Clone, Copy)]
pub struct RiskModel<'a> {
    /// How many factors, 1 to 64.
    pub factors: usize,
    /// Degrees of freedom of Student's t; 0 is the normal tail.
    pub freedom: u32,
    /// Asset by factor.
    pub loadings: &'a [f64],
    /// Each asset's own deviation.
    pub own: &'a [f64],
    /// Each asset's share of the capital.
    pub weights: &'a [f64],
    /// Key of the random numbers.
    pub key: [u32; 2],
}

impl Device {
    /// The loss of each scenario from `first` on, into `losses`.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn losses(&self, model: &RiskModel<'_>, first: u64, losses: &mut [f64]) -> Result<(), DeviceError> {
        let RiskModel { factors, freedom, loadings, own, weights, key: [k0, k1] } = *model;
        if !(1..=FACTORS_MAX).contains(&factors) {
            let found = factors as u64;
            return Err(DeviceError::NotCovered { what: "factors", found, allowed: "1 to 64" });
        }
        let assets = weights.len();
        DeviceError::shape("own deviations", own.len(), Some(assets as u64))?;
        DeviceError::shape("loadings", loadings.len(), product(&[assets as u64, factors as u64]))?;
        let count = losses.len() as u64;
        self.fits(&[Some(count), Some((loadings.len() + 2 * assets) as u64)])?;
        let (loadings, own, weights) = (self.copy(loadings)?, self.copy(own)?, self.copy(weights)?);
        let mut out = self.room::<f64>(count)?;
        let (assets, factors) = (assets as u32, factors as u32);
        let mut call = self.call("losses");
        call.arg(&first).arg(&count).arg(&assets).arg(&factors).arg(&freedom);
        call.arg(&loadings).arg(&own).arg(&weights).arg(&k0).arg(&k1).arg(&mut out);
        let config = blocks(count, THREADS)?;
        self.timed("losses", 1, || {
            // SAFETY: the model's lengths were checked, at most 64 factors fit the kernel's array, thread `t < count` writes place `t`.
            unsafe { call.launch(config) }.map_err(failed("launching losses"))
        })?;
        self.bring(&out, losses)
    }
}
