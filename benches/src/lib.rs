//! The benchmarks: work W1, hand-written loops beside the engine, hops and end-to-end paths.
#![forbid(unsafe_code)]

pub mod engine_run;
pub mod hand;
pub mod hops;
pub mod indicators;
pub mod latency;
pub mod live;
pub mod measure;
pub mod suite;
pub mod w1;
pub mod w1_parquet;
