//! Exponentially weighted covariances.

use super::{Device, failed, product};
use crate::DeviceError;
use cudarc::driver::{LaunchConfig, PushKernelArg};

/// Threads per block, along a row.
const ROW_THREADS: u32 = 256;
/// Most rows of blocks a device has.
const ROWS_MAX: usize = 65_535;

impl Device {
    /// Takes rows of `symbols` offsets from the mean, one after the other: each entry of the `triangle`, kept row by row up to
    /// the diagonal, becomes `own * add * other + keep * entry`.
    ///
    /// # Errors
    /// [`DeviceError`]; the triangle is then as it was.
    pub fn rank1(
        &self,
        triangle: &mut [f32],
        symbols: usize,
        offsets: &[f32],
        keep: f32,
        add: f32,
    ) -> Result<(), DeviceError> {
        if !(1..=ROWS_MAX).contains(&symbols) {
            let found = symbols as u64;
            return Err(DeviceError::NotCovered { what: "symbols", found, allowed: "1 to 65535" });
        }
        let size = product(&[symbols as u64, symbols as u64 + 1]).map(|twice| twice / 2);
        DeviceError::shape("triangle", triangle.len(), size)?;
        let rows = offsets.len() / symbols;
        DeviceError::shape("offsets", offsets.len(), product(&[rows as u64, symbols as u64]))?;
        self.fits(&[size, Some(offsets.len() as u64)])?;
        let mut kept = self.copy(triangle)?;
        let count = symbols as u32;
        for row in offsets.chunks_exact(symbols) {
            let row = self.copy(row)?;
            let config = LaunchConfig {
                grid_dim: (count.div_ceil(ROW_THREADS), count, 1),
                block_dim: (ROW_THREADS, 1, 1),
                shared_mem_bytes: 0,
            };
            let mut call = self.call("rank1");
            call.arg(&row).arg(&count).arg(&keep).arg(&add).arg(&mut kept);
            // SAFETY: thread (row, column) with `column <= row < symbols` touches its entry of the triangle alone.
            unsafe { call.launch(config) }.map_err(failed("launching rank1"))?;
        }
        // Into a copy first: what is half brought back must not be taken for a state.
        let mut found = vec![0.0; triangle.len()];
        self.bring(&kept, &mut found)?;
        triangle.copy_from_slice(&found);
        Ok(())
    }
}
