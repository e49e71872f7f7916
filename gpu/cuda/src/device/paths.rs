//! Monte Carlo: Brownian paths and payoffs on them.

use super::{Device, THREADS, blocks, failed, product};
use crate::{DeviceError, Unavailable};
use cudarc::driver::PushKernelArg;

/// Paths summed in one go.
pub const PATH_CHUNK: u64 = 4_096;
/// Partial sums of a chunk.
pub const LANES: usize = 16;
/// Numbers of a plan: 1 for the mean of the path and 0 for its end, then variance, spot, drift, volatility, strike, sign,
/// shift, discount.
pub const PLAN_NUMBERS: usize = 9;

/// Paths `first..first + count` of `steps` steps, and what is paid on them.
#[derive(Debug, Clone, Copy)]
pub struct PathBlock<'a> {
    /// First path.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Steps of each.
    pub steps: u32,
    /// Key of the random numbers.
    pub key: [u32; 2],
    /// [`PLAN_NUMBERS`] per payoff.
    pub plans: &'a [f64],
    /// From the sum of normal numbers to the Brownian path's end.
    pub to_end: f64,
    /// From the trapezoid sum to its mean.
    pub to_mean: f64,
}

impl Device {
    /// Sums and sums of squares of payoffs: for each chunk of [`PATH_CHUNK`] paths and each plan, [`LANES`] sums and then as
    /// many sums of squares.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn payoffs(&self, block: &PathBlock<'_>) -> Result<Vec<f64>, DeviceError> {
        let PathBlock { first, count, steps, key: [k0, k1], plans, to_end, to_mean } = *block;
        let plan_count = plans.len() / PLAN_NUMBERS;
        DeviceError::shape("plans", plans.len(), product(&[plan_count as u64, PLAN_NUMBERS as u64]))?;
        let cells = product(&[count.div_ceil(PATH_CHUNK), plan_count as u64, 2 * LANES as u64]);
        self.fits(&[Some(count), cells, Some(plans.len() as u64)])?;
        let cells = cells.unwrap_or(0);
        if cells == 0 {
            return Ok(Vec::new());
        }
        let plans = self.copy(plans)?;
        let (mut ends, mut areas) = (self.room::<f32>(count)?, self.room::<f32>(count)?);
        let mut sums = self.room::<f64>(cells)?;
        let mut call = self.call("brownian");
        call.arg(&first).arg(&count).arg(&steps).arg(&k0).arg(&k1).arg(&mut ends).arg(&mut areas);
        let config = blocks(count, THREADS)?;
        self.timed("brownian", 1, || {
            // SAFETY: both buffers hold `count` floats, and thread `t < count` writes place `t`.
            unsafe { call.launch(config) }.map_err(failed("launching brownian"))
        })?;
        let (chunk, plan_count) = (PATH_CHUNK as u32, plan_count as u32);
        let mut call = self.call("payoffs");
        call.arg(&ends).arg(&areas).arg(&count).arg(&chunk).arg(&plans).arg(&plan_count);
        call.arg(&to_end).arg(&to_mean).arg(&mut sums);
        let config = blocks(cells / 2, THREADS)?;
        self.timed("payoffs", 1, || {
            // SAFETY: paths below `count` are read, `plan_count` plans of `PLAN_NUMBERS` numbers, and `cells` sums written.
            unsafe { call.launch(config) }.map_err(failed("launching payoffs"))
        })?;
        let mut found = vec![0.0; cells as usize];
        self.bring(&sums, &mut found)?;
        Ok(found)
    }

    /// Philox words of `counters` under `keys`.
    fn philox(&self, counters: &[u32], keys: &[u32]) -> Result<Vec<u32>, DeviceError> {
        let count = keys.len() as u64 / 2;
        DeviceError::shape("keys", keys.len(), product(&[count, 2]))?;
        DeviceError::shape("counters", counters.len(), product(&[count, 4]))?;
        let (counters, keys) = (self.copy(counters)?, self.copy(keys)?);
        let mut words = self.room::<u32>(4 * count)?;
        let threads = count as u32;
        let mut call = self.call("known_answer");
        call.arg(&counters).arg(&keys).arg(&threads).arg(&mut words);
        // SAFETY: thread `t < count` reads four counters and two keys and writes four words, and there are as many.
        unsafe { call.launch(blocks(count, THREADS)?) }.map_err(failed("launching known_answer"))?;
        let mut found = vec![0; 4 * count as usize];
        self.bring(&words, &mut found)?;
        Ok(found)
    }

    /// The published vectors of Random123: integer arithmetic, copies and launches are as they should be.
    pub(super) fn known_answers(&self) -> Result<(), Unavailable> {
        const COUNTERS: [u32; 12] =
            [0, 0, 0, 0, !0, !0, !0, !0, 0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        const KEYS: [u32; 6] = [0, 0, !0, !0, 0xa409_3822, 0x299f_31d0];
        const WORDS: [u32; 12] = [
            0x6627_e8d5,
            0xe169_c58d,
            0xbc57_ac4c,
            0x9b00_dbd8,
            0x408f_276d,
            0x41c8_3b0e,
            0xa20b_c7c6,
            0x6d54_51fd,
            0xd16c_fe09,
            0x94fd_cceb,
            0x5001_e420,
            0x2412_6ea1,
        ];
        let words = self.philox(&COUNTERS, &KEYS).map_err(Unavailable::Failed)?;
        match words.iter().zip(WORDS).position(|(&found, wanted)| found != wanted) {
            None => Ok(()),
            Some(at) => Err(Unavailable::WrongAnswer {
                what: format!("word {at} of Philox is {:#010x}, not {:#010x}", words[at], WORDS[at]),
            }),
        }
    }
}
