//! Batches of windows: parameter sweeps, correlation, Monte Carlo, portfolios.
//!
//! **Invariant:** the same request gives the same bits on any number of threads and any vector width: sums have one order,
//! functions are written out here, and random numbers are addressed, not drawn. Nothing is allocated for a request
//! before its shape and numbers were checked.
#![forbid(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "a loop over lanes walks several arrays side by side, in the form that becomes vectors"
)]

mod backend;
mod error;
mod lanes;

pub mod correlation;
pub mod options;
pub mod philox;
pub mod portfolio;
pub mod risk;
pub mod sobol;
pub mod sweep;

pub use backend::{Backend, Cpu};
pub use error::BatchError;
