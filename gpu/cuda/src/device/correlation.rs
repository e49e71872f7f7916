//! Correlations: exponentially weighted, rolling, and of a whole window.

use super::{Device, Spectra, failed, product};
use crate::DeviceError;
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

/// Threads per block, along a row.
const ROW_THREADS: u32 = 256;
/// Most rows of blocks a device has.
const ROWS_MAX: usize = 65_535;
/// Rows and columns of a tile of products, and the threads that share it.
pub(super) const TILE: u32 = 64;
pub(super) const PRODUCT_THREADS: u32 = 128;
/// Symbols and threads of a block that centres.
const CENTRE_SYMBOLS: u32 = 32;
const CENTRE_THREADS: u32 = 16 * CENTRE_SYMBOLS;

/// A window that rolls on.
#[derive(Debug, Clone, Copy)]
pub struct RollRows<'a> {
    /// Rows of the window so far, oldest first, and then the new ones.
    pub history: &'a [f64],
    /// Values of a row.
    pub symbols: usize,
    /// Rows of the window when it is full.
    pub window: u32,
    /// Rows there were in all before the new ones.
    pub seen: u64,
    /// New rows.
    pub count: u32,
}

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
        let size = triangle_size(symbols)?;
        DeviceError::shape("triangle", triangle.len(), Some(size))?;
        let rows = offsets.len() / symbols;
        DeviceError::shape("offsets", offsets.len(), product(&[rows as u64, symbols as u64]))?;
        self.fits(&[Some(size), Some(offsets.len() as u64)])?;
        let mut kept = self.copy(triangle)?;
        let offsets = self.copy(offsets)?;
        let count = symbols as u32;
        self.timed("rank1", rows as u64, || {
            for row in 0..rows {
                let row = offsets.slice(row * symbols..(row + 1) * symbols);
                let mut call = self.call("rank1");
                call.arg(&row).arg(&count).arg(&keep).arg(&add).arg(&mut kept);
                // SAFETY: thread (row, column) with `column <= row < symbols` touches its entry of the triangle alone.
                unsafe { call.launch(along_rows(count)) }.map_err(failed("launching rank1"))?;
            }
            Ok(())
        })?;
        // Into a copy first: what is half brought back must not be taken for a state.
        let mut found = vec![0.0; triangle.len()];
        self.bring(&kept, &mut found)?;
        triangle.copy_from_slice(&found);
        Ok(())
    }

    /// Rolls sums of products on: those of the window, and those since the last multiple of it.
    ///
    /// # Errors
    /// [`DeviceError`]; the sums are then as they were.
    pub fn roll(
        &self,
        rows: &RollRows<'_>,
        sums: &mut Vec<f64>,
        next: &mut Vec<f64>,
    ) -> Result<(), DeviceError> {
        let RollRows { history, symbols, window, seen, count } = *rows;
        let size = triangle_size(symbols)?;
        let before = seen.min(window.into());
        let lines = before.checked_add(count.into());
        let values = lines.and_then(|lines| product(&[lines, symbols as u64]));
        DeviceError::shape("history", history.len(), values)?;
        DeviceError::shape("sums", sums.len(), Some(size))?;
        DeviceError::shape("next sums", next.len(), Some(size))?;
        self.fits(&[values, Some(2 * size)])?;
        let history = self.copy(history)?;
        let (mut kept, mut fresh) = (self.copy(sums)?, self.copy(next)?);
        let (width, before) = (symbols as u32, before as u32);
        self.timed("roll", 1, || {
            let mut call = self.call("roll");
            call.arg(&history).arg(&width).arg(&window).arg(&seen).arg(&before).arg(&count);
            call.arg(&mut kept).arg(&mut fresh);
            // SAFETY: as for rank1; the history has `before + count` rows, and a row leaves only when `before` is the window.
            unsafe { call.launch(along_rows(width)) }.map_err(failed("launching roll"))?;
            Ok(())
        })?;
        let (mut found, mut found_next) = (vec![0.0; sums.len()], vec![0.0; next.len()]);
        self.bring(&kept, &mut found)?;
        self.bring(&fresh, &mut found_next)?;
        (*sums, *next) = (found, found_next);
        Ok(())
    }

    /// Correlations of rows of `symbols` values, kept on the device; and one over the root of each symbol's sum of squares, 0 where
    /// it did not move.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn window(&self, values: &[f64], symbols: usize) -> Result<(Triangle<'_>, Vec<f64>), DeviceError> {
        let size = triangle_size(symbols)?;
        let rows = values.len() / symbols;
        DeviceError::shape("values", values.len(), product(&[rows as u64, symbols as u64]))?;
        let lines = u32::try_from(rows).unwrap_or(0);
        if lines == 0 {
            let found = rows as u64;
            return Err(DeviceError::NotCovered { what: "rows", found, allowed: "1 to 2^32 - 1" });
        }
        self.fits(&[Some(size), product(&[values.len() as u64, 2]), Some(symbols as u64)])?;
        let moved = self.copy(values)?;
        let mut centred = self.room::<f32>(values.len() as u64)?;
        let mut scales = self.room::<f64>(symbols as u64)?;
        let mut entries = self.room::<f64>(size)?;
        let width = symbols as u32;
        self.timed("window", 1, || {
            let mut call = self.call("centre");
            call.arg(&moved).arg(&lines).arg(&width).arg(&mut centred).arg(&mut scales);
            let config = LaunchConfig {
                grid_dim: (width.div_ceil(CENTRE_SYMBOLS), 1, 1),
                block_dim: (CENTRE_THREADS, 1, 1),
                shared_mem_bytes: 0,
            };
            // SAFETY: 16 threads for each of 32 symbols of a block, and each symbol below `symbols` writes its own column and scale.
            unsafe { call.launch(config) }.map_err(failed("launching centre"))?;
            let mut call = self.call("window_products");
            call.arg(&centred).arg(&lines).arg(&width).arg(&mut entries);
            // SAFETY: a tile of 64 by 64 per block of 128 threads; entries (row, column) with `column <= row < symbols` are written.
            unsafe { call.launch(tiles(width, PRODUCT_THREADS)) }.map_err(failed("launching products"))?;
            Ok(())
        })?;
        let mut found = vec![0.0; symbols];
        self.bring(&scales, &mut found)?;
        Ok((Triangle { device: self, symbols, entries }, found))
    }

    /// A triangle of this machine on the device.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn triangle(&self, entries: &[f64], symbols: usize) -> Result<Triangle<'_>, DeviceError> {
        let size = triangle_size(symbols)?;
        DeviceError::shape("triangle", entries.len(), Some(size))?;
        self.fits(&[Some(size)])?;
        Ok(Triangle { device: self, symbols, entries: self.copy(entries)? })
    }
}

/// A symmetric matrix on a device, row by row up to the diagonal.
pub struct Triangle<'a> {
    pub(super) device: &'a Device,
    pub(super) symbols: usize,
    pub(super) entries: CudaSlice<f64>,
}

impl<'a> Triangle<'a> {
    /// All of it.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn bring(&self) -> Result<Vec<f64>, DeviceError> {
        let mut found = vec![0.0; triangle_size(self.symbols)? as usize];
        self.device.bring(&self.entries, &mut found)?;
        Ok(found)
    }

    /// For eigenvalues, in at most so many steps.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn spectra(self, steps: usize) -> Result<Spectra<'a>, DeviceError> {
        Spectra::new(self, steps)
    }
}

fn triangle_size(symbols: usize) -> Result<u64, DeviceError> {
    if !(1..=ROWS_MAX).contains(&symbols) {
        let found = symbols as u64;
        return Err(DeviceError::NotCovered { what: "symbols", found, allowed: "1 to 65535" });
    }
    Ok(symbols as u64 * (symbols as u64 + 1) / 2)
}

/// A row of blocks per row of a triangle.
fn along_rows(symbols: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (symbols.div_ceil(ROW_THREADS), symbols, 1),
        block_dim: (ROW_THREADS, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// A block per tile of a square.
pub(super) fn tiles(symbols: u32, threads: u32) -> LaunchConfig {
    let count = symbols.div_ceil(TILE);
    LaunchConfig { grid_dim: (count, count, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}
