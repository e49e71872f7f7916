//! What the shards run: bars, indicators, regimes, anomalies, host windows; and who runs and watches them.
//!
//! **Invariant:** an operator's outputs are a function of its events and watermarks alone; it knows no clock, thread,
//! socket or file. Only `runtime` and `supervision` know threads.
#![forbid(unsafe_code)]

pub mod anomaly;
pub mod bars;
mod finality;
pub mod hosts;
pub mod indicators;
pub mod regime;
mod regroup;
pub mod rollup;
pub mod session;
pub mod sliding;
pub mod windows;

pub mod registry;

pub mod runtime;
pub mod supervision;

pub use bars::{BarOptions, BarSpec, LatePolicy, TimeBars};
pub use finality::first_final;
pub use runtime::{Idle, IdleStrategy, Runtime, RuntimeError, RuntimeOptions, RuntimeReport, StatsHandle};
pub use windows::WindowSpec;
