//! What the shards run: bars, indicators, host windows; and who runs and watches them.
#![forbid(unsafe_code)]

pub mod hosts;
pub mod indicators;
pub mod registry;
pub mod rollup;
pub mod session;
