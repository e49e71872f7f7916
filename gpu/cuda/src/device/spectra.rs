//! The steps of Lanczos' method.

use super::correlation::{TILE, Triangle, tiles};
use super::{Device, THREADS, blocks, failed, product};
use crate::DeviceError;
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

/// Threads that share a product of two vectors.
const PARTS: u32 = 256;

/// A triangle, the basis that grows from it, and room for both.
pub struct Spectra<'a> {
    triangle: Triangle<'a>,
    most: usize,
    vectors: usize,
    basis: CudaSlice<f64>,
    image: CudaSlice<f64>,
    partial: CudaSlice<f64>,
    /// Of the vector in hand along the basis.
    shares: CudaSlice<f64>,
    /// Of each step: the product of the vector with its image, and the square of the length that was left.
    steps: CudaSlice<f64>,
}

impl<'a> Spectra<'a> {
    pub(super) fn new(triangle: Triangle<'a>, most: usize) -> Result<Self, DeviceError> {
        let (device, symbols) = (triangle.device, triangle.symbols as u64);
        let most = most.max(1);
        // One more than there are steps, as each leaves the next vector.
        let basis = product(&[symbols, most as u64 + 1]);
        let partial = product(&[symbols, symbols.div_ceil(TILE.into())]);
        device.fits(&[basis, partial, Some(symbols), product(&[most as u64, 3])])?;
        Ok(Self {
            most,
            vectors: 0,
            basis: device.room(basis.unwrap_or(u64::MAX))?,
            image: device.room(symbols)?,
            partial: device.room(partial.unwrap_or(u64::MAX))?,
            shares: device.room(most as u64 + 1)?,
            steps: device.room(2 * most as u64)?,
            triangle,
        })
    }

    fn device(&self) -> &'a Device {
        self.triangle.device
    }

    /// Vectors of the basis.
    #[must_use]
    pub fn vectors(&self) -> usize {
        self.vectors
    }

    /// Adds `start` to the basis, less what stands along it already, and of length 1.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn begin(&mut self, start: &[f64]) -> Result<(), DeviceError> {
        DeviceError::shape("start", start.len(), Some(self.triangle.symbols as u64))?;
        self.room_for(1)?;
        self.image = self.device().copy(start)?;
        self.leave(0)?;
        self.vectors += 1;
        Ok(())
    }

    /// `count` steps from the last vector of the basis; of each the product of the vector with its image, and the length that was
    /// left of that beside the basis.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn extend(&mut self, count: usize) -> Result<Vec<(f64, f64)>, DeviceError> {
        self.room_for(count)?;
        let device = self.device();
        let width = self.triangle.symbols as u32;
        device.timed("lanczos", count as u64, || {
            for step in 0..count {
                let tile_count = width.div_ceil(TILE);
                let mut call = device.call("tile_products");
                let place = (self.vectors - 1) * self.triangle.symbols..self.vectors * self.triangle.symbols;
                let own = self.basis.slice(place);
                call.arg(&self.triangle.entries).arg(&width).arg(&own).arg(&mut self.partial);
                // SAFETY: a block of 64 threads per tile; each writes entries below `symbols` of one line of `partial`, which has one
                // per tile.
                unsafe { call.launch(tiles(width, TILE)) }.map_err(failed("launching tile_products"))?;
                let mut call = device.call("fold_tiles");
                call.arg(&self.partial).arg(&width).arg(&tile_count).arg(&mut self.image);
                // SAFETY: thread `t < symbols` reads its column of `partial` and writes place `t`.
                unsafe { call.launch(blocks(width.into(), THREADS)?) }
                    .map_err(failed("launching fold_tiles"))?;
                let mut along = self.steps.slice_mut(2 * step..2 * step + 1);
                let mut call = device.call("shares_along");
                call.arg(&own).arg(&self.image).arg(&width).arg(&mut along);
                // SAFETY: one block, one vector, one number.
                unsafe { call.launch(per_vector(1)) }.map_err(failed("launching shares_along"))?;
                self.leave(step)?;
                self.vectors += 1;
            }
            Ok(())
        })?;
        let mut found = vec![0.0; 2 * count];
        device.bring(&self.steps, &mut found)?;
        Ok(found.chunks_exact(2).map(|step| (step[0], step[1].sqrt())).collect())
    }

    /// Forgets all but the first vectors.
    pub fn truncate(&mut self, vectors: usize) {
        self.vectors = self.vectors.min(vectors);
    }

    /// The first vectors, one after the other.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn basis(&self, vectors: usize) -> Result<Vec<f64>, DeviceError> {
        let all = product(&[self.vectors as u64, self.triangle.symbols as u64]);
        let mut found = vec![0.0; vectors * self.triangle.symbols];
        if all.is_none_or(|all| found.len() as u64 > all) {
            return Err(DeviceError::Shape {
                what: "vectors",
                found: vectors as u64,
                expected: self.vectors as u64,
            });
        }
        self.device().bring(&self.basis, &mut found)?;
        Ok(found)
    }

    fn room_for(&self, more: usize) -> Result<(), DeviceError> {
        let (found, expected) = ((self.vectors + more) as u64, self.most as u64 + 1);
        if found <= expected && more <= self.most {
            Ok(())
        } else {
            Err(DeviceError::Shape { what: "steps", found, expected })
        }
    }

    /// What is left of the image beside the basis, taken out twice, becomes its next vector.
    fn leave(&mut self, step: usize) -> Result<(), DeviceError> {
        let device = self.device();
        let (width, vectors) = (self.triangle.symbols as u32, self.vectors as u32);
        for _ in 0..2 {
            if vectors == 0 {
                break;
            }
            let mut call = device.call("shares_along");
            call.arg(&self.basis).arg(&self.image).arg(&width).arg(&mut self.shares);
            // SAFETY: a block per vector of the basis, each of which has a share.
            unsafe { call.launch(per_vector(vectors)) }.map_err(failed("launching shares_along"))?;
            let mut call = device.call("take_out");
            call.arg(&self.basis).arg(&self.shares).arg(&vectors).arg(&width).arg(&mut self.image);
            // SAFETY: thread `t < symbols` reads place `t` of each vector and changes its own.
            unsafe { call.launch(blocks(width.into(), THREADS)?) }.map_err(failed("launching take_out"))?;
        }
        let mut square = self.steps.slice_mut(2 * step + 1..2 * step + 2);
        let mut call = device.call("shares_along");
        call.arg(&self.image).arg(&self.image).arg(&width).arg(&mut square);
        // SAFETY: one block, one vector, one number.
        unsafe { call.launch(per_vector(1)) }.map_err(failed("launching shares_along"))?;
        let place = self.vectors * self.triangle.symbols..(self.vectors + 1) * self.triangle.symbols;
        let mut next = self.basis.slice_mut(place);
        let square = self.steps.slice(2 * step + 1..2 * step + 2);
        let mut call = device.call("unit_length");
        call.arg(&self.image).arg(&square).arg(&width).arg(&mut next);
        // SAFETY: thread `t < symbols` writes place `t` of a vector behind those of the basis, for which there is room.
        unsafe { call.launch(blocks(width.into(), THREADS)?) }.map_err(failed("launching unit_length"))?;
        Ok(())
    }
}

/// A block per vector.
fn per_vector(count: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (count, 1, 1), block_dim: (PARTS, 1, 1), shared_mem_bytes: 0 }
}
