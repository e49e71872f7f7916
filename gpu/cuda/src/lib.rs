//! The kernels of `gpu/kernels` on an NVIDIA device: found at run time, probed before use, called with checked shapes.
//!
//! **Invariant:** builds and starts where there is no CUDA at all. Nothing here panics for want of a library, a symbol or a
//! device; each is an [`Unavailable`] that says which. No kernel gets a buffer shorter than its shape needs: the one module
//! with unsafe code, `device`, checks every length before it launches.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "kernels are called through a C interface; every launch says why it is sound")]
mod device;
mod error;

pub use device::changes::{ChangeState, ChangeTables};
pub use device::correlation::{RollRows, Triangle};
pub use device::hmm::{HmmFilterState, HmmParameters};
pub use device::paths::{LANES, PATH_CHUNK, PLAN_NUMBERS, PathBlock};
pub use device::qp::{QpBatch, QpProblem};
pub use device::risk::RiskModel;
pub use device::spectra::Spectra;
pub use device::sweep::{STRETCH_STEP, StretchCounts, Stretches, SweepBars, SweepCells, SweepJob, SweepKind};
pub use device::{Device, DeviceInfo, KernelTime};
pub use error::{DeviceError, Unavailable};
