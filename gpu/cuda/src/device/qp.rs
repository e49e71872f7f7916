//! Many long-only portfolios at once.

use super::correlation::{PRODUCT_THREADS, TILE};
use super::{Device, THREADS, blocks, failed, product};
use crate::DeviceError;
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

/// Most rows of blocks a device has, times the rows of a tile.
const SIDE_MAX: usize = 65_535 * TILE as usize;

/// What a step multiplies with, and what it adds.
#[derive(Debug, Clone, Copy)]
pub struct QpProblem<'a> {
    /// assets x assets, symmetric.
    pub inverse: &'a [f32],
    /// Per asset: what is added to every portfolio.
    pub base: &'a [f32],
    /// Per asset: what is added times the portfolio's `wanted`.
    pub slope: &'a [f32],
    /// The weight of the distance.
    pub rho: f32,
    /// What the added-up distances are multiplied with first: 1, or the old `rho` over the new one.
    pub rescale: f32,
}

/// Portfolios on a device. Matrices are asset by asset, a column per portfolio.
pub struct QpBatch<'a> {
    device: &'a Device,
    assets: usize,
    portfolios: usize,
    relaxed: f32,
    rho: f32,
    inverse: CudaSlice<f32>,
    base: CudaSlice<f32>,
    slope: CudaSlice<f32>,
    tilt: CudaSlice<f32>,
    wanted: CudaSlice<f32>,
    z: CudaSlice<f32>,
    u: CudaSlice<f32>,
    v: [CudaSlice<f32>; 2],
}

impl Device {
    /// Portfolios that start at `z`; `tilt` draws them, `wanted` is one number of each, `relaxed` how far a step goes.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn qp_batch(
        &self,
        tilt: &[f32],
        wanted: &[f32],
        z: &[f32],
        relaxed: f32,
    ) -> Result<QpBatch<'_>, DeviceError> {
        let portfolios = wanted.len();
        let assets = tilt.len().checked_div(portfolios).unwrap_or(0);
        for (what, found) in [("assets", assets), ("portfolios", portfolios)] {
            if !(1..=SIDE_MAX).contains(&found) {
                let found = found as u64;
                return Err(DeviceError::NotCovered { what, found, allowed: "1 to 4194240" });
            }
        }
        let entries = product(&[assets as u64, portfolios as u64]);
        DeviceError::shape("tilt", tilt.len(), entries)?;
        DeviceError::shape("weights", z.len(), entries)?;
        let square = product(&[assets as u64, assets as u64]);
        self.fits(&[
            square,
            entries.and_then(|entries| entries.checked_mul(3)),
            Some(4 * portfolios as u64),
        ])?;
        let entries = entries.unwrap_or(0);
        Ok(QpBatch {
            device: self,
            assets,
            portfolios,
            relaxed,
            rho: 0.0,
            inverse: self.room(square.unwrap_or(0))?,
            base: self.room(assets as u64)?,
            slope: self.room(assets as u64)?,
            tilt: self.copy(tilt)?,
            wanted: self.copy(wanted)?,
            z: self.copy(z)?,
            u: self.copy(&vec![0.0; tilt.len()])?,
            v: [self.room(entries)?, self.room(entries)?],
        })
    }
}

impl QpBatch<'_> {
    /// Takes another matrix, first of all or on the way.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn load(&mut self, problem: &QpProblem<'_>) -> Result<(), DeviceError> {
        let QpProblem { inverse, base, slope, rho, rescale } = *problem;
        let assets = self.assets as u64;
        DeviceError::shape("inverse", inverse.len(), product(&[assets, assets]))?;
        DeviceError::shape("base", base.len(), Some(assets))?;
        DeviceError::shape("slope", slope.len(), Some(assets))?;
        self.inverse = self.device.copy(inverse)?;
        (self.base, self.slope) = (self.device.copy(base)?, self.device.copy(slope)?);
        self.rho = rho;
        let entries = assets * self.portfolios as u64;
        let mut call = self.device.call("admm_start");
        call.arg(&self.tilt).arg(&entries).arg(&rho).arg(&rescale).arg(&self.z).arg(&mut self.u);
        call.arg(&mut self.v[0]);
        // SAFETY: thread `t < entries` touches place `t` of matrices of `entries` numbers.
        unsafe { call.launch(blocks(entries, THREADS)?) }.map_err(failed("launching admm_start"))?;
        Ok(())
    }

    /// So many steps, 1 or more. Of the last one the largest distance of each portfolio from one without short sales, and then how
    /// far that went.
    ///
    /// # Errors
    /// [`DeviceError`]; [`DeviceError::Shape`] before a matrix was loaded.
    pub fn run(&mut self, steps: u32) -> Result<Vec<f32>, DeviceError> {
        if self.rho == 0.0 || steps == 0 {
            return Err(DeviceError::Shape { what: "steps", found: steps.into(), expected: 1 });
        }
        let (assets, portfolios) = (self.assets as u32, self.portfolios as u32);
        let mut residuals = self.device.copy(&vec![0u32; 2 * self.portfolios])?;
        let config = LaunchConfig {
            grid_dim: (portfolios.div_ceil(TILE), assets.div_ceil(TILE), 1),
            block_dim: (PRODUCT_THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        self.device.timed("admm", steps.into(), || {
            for step in 1..=steps {
                let asked = u32::from(step == steps);
                let [v, next] = &mut self.v;
                let mut call = self.device.call("admm");
                call.arg(&self.inverse).arg(&assets).arg(&portfolios).arg(&self.tilt).arg(&self.base);
                call.arg(&self.slope).arg(&self.wanted).arg(&self.rho).arg(&self.relaxed).arg(&*v).arg(next);
                call.arg(&mut self.z).arg(&mut self.u).arg(&asked).arg(&mut residuals);
                // SAFETY: a tile of 64 by 64 entries per block of 128 threads; each thread changes its own entries below `assets` and
                // `portfolios`, reads `v`, which no thread writes, and raises residuals by atomic operations.
                unsafe { call.launch(config) }.map_err(failed("launching admm"))?;
                self.v.swap(0, 1);
            }
            Ok(())
        })?;
        let mut found = vec![0u32; 2 * self.portfolios];
        self.device.bring(&residuals, &mut found)?;
        Ok(found.into_iter().map(f32::from_bits).collect())
    }

    /// The portfolios without short sales as they are.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn weights(&self) -> Result<Vec<f32>, DeviceError> {
        let mut found = vec![0.0; self.assets * self.portfolios];
        self.device.bring(&self.z, &mut found)?;
        Ok(found)
    }
}
