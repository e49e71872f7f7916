//! Captures in and out: decoders, the capture format, generators, merging and the replay pipeline.
//!
//! **Invariant:** bytes from a file never reach an `unwrap`; what cannot be read is counted by cause or ends in a
//! [`ReadError`] that names file and place.
#![forbid(unsafe_code)]

pub mod capture;
pub mod decode;
pub mod generate;
pub mod input;
pub mod source;

pub mod merge;
pub mod plan;

pub mod pipeline;

pub mod write;

pub use input::open_input;
pub use pipeline::{
    LiveStats, LogOptions, ReplayError, ReplayOptions, ReplayReport, ResultSink, Speed, replay,
};
pub use plan::{Own, Plan, PlanError, StreamInfo, StreamKind};
pub use source::{Names, Place, Progress, ReadAccount, ReadError, RejectCause, Source};
