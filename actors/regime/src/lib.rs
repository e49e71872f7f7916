//! Mathematics of regimes and change points, for actors that judge.
//!
//! **Invariant:** no I/O, clock, thread or hidden randomness; a model's outputs follow from its parameters and the
//! observations up to now, bit by bit on every machine: logarithms come from `libm`, never from the platform. Online
//! models allocate when they are built and never after.
#![forbid(unsafe_code)]
// `!(x > bound)` is meant: it also catches what is no number.
#![allow(clippy::neg_cmp_op_on_partial_ord)]

mod error;
mod math;
mod random;
pub mod state;

pub mod bocpd;
pub mod cross;
pub mod cusum;
pub mod hmm;
pub mod outlier;
pub mod segments;
pub mod switching;

pub use bocpd::{Bocpd, BocpdOptions};
pub use cross::{CrossLabel, CrossOptions, CrossReading, CrossRegime, CrossRegimes, CrossSection};
pub use error::RegimeError;
pub use hmm::{GaussianHmm, HmmFilter};
pub use segments::{Change, SegmentOptions, Segments};
pub use switching::SwitchingAr;
