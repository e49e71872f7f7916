//! Anomaly detectors: for any numeric series, for edges between hosts, and for records of mixed features.
//!
//! **Invariant:** no I/O, clock, thread or hidden randomness; a score follows from the parameters and from what was seen
//! up to its own row, bit by bit on every machine: logarithms come from `libm`, never from the platform. Detectors
//! allocate when they are built and never after, and their state never grows.
#![forbid(unsafe_code)]
// `!(x > bound)` is meant: it also catches what is no number.
#![allow(clippy::neg_cmp_op_on_partial_ord)]

pub mod edges;
mod error;
pub mod records;
pub mod series;
pub mod state;
pub mod tail;

pub use edges::{
    EdgeAlarm, EdgeAlarmOptions, EdgeCall, EdgeDetector, EdgeOptions, EdgePart, EdgeVerdict, MidasF,
    MidasOptions,
};
pub use error::AnomalyError;
pub use records::{FeatureKind, FeatureWitness, RecordAlarm, RecordCall, RecordDetector, RecordVerdict};
pub use series::{Part, SeriesDetector, SeriesOptions, SeriesState, Verdict};
pub use tail::Tail;
