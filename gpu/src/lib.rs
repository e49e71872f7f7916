//! Batches of windows: parameter sweeps, regime and change-point banks, correlation, Monte Carlo, portfolios; on the cores of
//! this machine, or on a device through `tidegate-cuda`.
//!
//! **Invariant:** the same request gives the same bits on any number of threads and any vector width: sums have one order,
//! functions are written out here, and random numbers are addressed, not drawn. Nothing is allocated for a request
//! before its shape and numbers were checked.
#![forbid(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "a loop over lanes walks several arrays side by side, in the form that becomes vectors"
)]

mod accel;
mod backend;
mod cholesky;
mod device;
mod error;
mod lanes;
mod limit;
mod product;
mod spectrum;

pub mod changes;
pub mod correlation;
pub mod hmm;
pub mod options;
pub mod philox;
pub mod portfolio;
pub mod qp;
pub mod risk;
pub mod sobol;
pub mod sweep;
pub mod window;

/// Raised whenever the bits of a result change for the same request.
pub const KERNEL_VERSION: u32 = 1;

pub use accel::{Accel, AccelStatus, GpuPolicy, REBUILDS_MAX, UnknownPolicy};
pub use backend::{Backend, Cpu};
pub use error::BatchError;
pub use tidegate_cuda::{DeviceError, DeviceInfo, KernelTime, StretchCounts, Unavailable};
