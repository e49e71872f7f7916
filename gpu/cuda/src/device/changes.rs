//! Banks of Bayesian change-point detectors.

use super::{Device, failed, product};
use crate::DeviceError;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// What follows from the prior alone, the same for all series.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeTables {
    /// Run lengths kept: a multiple of 32, at most 1,024.
    pub runs: usize,
    /// Chance of a change at each observation.
    pub hazard: f64,
    /// Mean, scale and logarithm of the scale of a run that begins.
    pub prior: [f64; 3],
    /// Five numbers per run length, each `runs` long: constant, exponent, share of the square, share of the mean, 1 where recent.
    pub tables: Vec<f64>,
}

/// State of a bank, series by series, `runs` long each.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeState {
    /// Chances of the run lengths.
    pub chances: Vec<f64>,
    /// Means of the runs.
    pub means: Vec<f64>,
    /// Scales of the runs.
    pub betas: Vec<f64>,
    /// Logarithms of the scales.
    pub ln_betas: Vec<f64>,
    /// Log-likelihood of each series so far.
    pub evidences: Vec<f64>,
}

impl Device {
    /// Takes rows of values, one per series. Returns, row by row, the likeliest run length and the chance that the run is recent.
    ///
    /// # Errors
    /// [`DeviceError`]; the state is then as it was.
    pub fn change_points(
        &self,
        tables: &ChangeTables,
        state: &mut ChangeState,
        values: &[f64],
    ) -> Result<(Vec<u32>, Vec<f64>), DeviceError> {
        let runs = tables.runs;
        if !(32..=1_024).contains(&runs) || !runs.is_multiple_of(32) {
            let allowed = "a multiple of 32, at most 1024";
            return Err(DeviceError::NotCovered { what: "runs", found: runs as u64, allowed });
        }
        let series = state.evidences.len() as u64;
        let size = product(&[series, runs as u64]);
        DeviceError::shape("tables", tables.tables.len(), product(&[5, runs as u64]))?;
        for (what, found) in [
            ("chances", &state.chances),
            ("means", &state.means),
            ("scales", &state.betas),
            ("logarithms", &state.ln_betas),
        ] {
            DeviceError::shape(what, found.len(), size)?;
        }
        let rows = (values.len() as u64).checked_div(series).unwrap_or(0);
        DeviceError::shape("values", values.len(), product(&[rows, series]))?;
        let blocks = i32::try_from(series).unwrap_or(0) as u32;
        if rows == 0 || blocks == 0 {
            return Err(DeviceError::NotCovered { what: "rows", found: rows, allowed: "1 or more" });
        }
        self.fits(&[product(&[rows, series, 3]), size.and_then(|size| size.checked_mul(4))])?;
        let ChangeTables { hazard, prior: [mean, beta, ln_beta], .. } = *tables;
        let table = self.copy(&tables.tables)?;
        let values = self.copy(values)?;
        let (mut chances, mut means) = (self.copy(&state.chances)?, self.copy(&state.means)?);
        let (mut betas, mut ln_betas) = (self.copy(&state.betas)?, self.copy(&state.ln_betas)?);
        let mut evidences = self.copy(&state.evidences)?;
        let (mut likeliest, mut recent) =
            (self.room::<u32>(rows * series)?, self.room::<f64>(rows * series)?);
        let threads = runs as u32;
        let mut call = self.call("change_points");
        call.arg(&values)
            .arg(&rows)
            .arg(&blocks)
            .arg(&threads)
            .arg(&hazard)
            .arg(&mean)
            .arg(&beta)
            .arg(&ln_beta);
        call.arg(&table).arg(&mut chances).arg(&mut means).arg(&mut betas).arg(&mut ln_betas);
        call.arg(&mut evidences).arg(&mut likeliest).arg(&mut recent);
        let config =
            LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
        self.timed("change_points", rows, || {
            // SAFETY: a block per series and a thread per run length, at most the 1,024 the kernel has shared memory for; block `s`
            // touches what is series `s`'s of buffers whose lengths were checked above.
            unsafe { call.launch(config) }.map_err(failed("launching change_points"))
        })?;
        let mut found = state.clone();
        let count = (rows * series) as usize;
        let (mut runs, mut shares) = (vec![0; count], vec![0.0; count]);
        self.bring(&chances, &mut found.chances)?;
        self.bring(&means, &mut found.means)?;
        self.bring(&betas, &mut found.betas)?;
        self.bring(&ln_betas, &mut found.ln_betas)?;
        self.bring(&evidences, &mut found.evidences)?;
        self.bring(&likeliest, &mut runs)?;
        self.bring(&recent, &mut shares)?;
        *state = found;
        Ok((runs, shares))
    }
}
