//! Closed windows of live streams in batches: parameter surfaces, the spectrum of correlations and risk, at each close, on the
//! CPU or on a device.
//!
//! Shards push closed windows into rings that never block; one thread puts them into slabs, a thread per class computes them,
//! and results come back over rings. A device is called by a thread of its own: one that fails or hangs costs a batch that the
//! CPU computes from its own copy, and is opened anew behind it.
//!
//! **Invariant:** a result follows from the closed bars of its class up to its time, and from nothing else: not from how
//! batches were cut, on what they were computed, or how many threads pushed. It has the bits that the same request over those bars has.
#![forbid(unsafe_code)]

mod batcher;
mod cross;
mod error;
mod feeder;
mod lane;
mod queue;
mod results;
mod route;
mod signal;
mod slab;
mod spec;
mod stats;
mod steps;
mod surface;
#[cfg(test)]
mod tests;
mod worker;

pub use batcher::{Batcher, Handle, Started};
pub use error::BatcherError;
pub use feeder::{Feeder, Pushed, Refusal, Window};
pub use results::{Outcome, Results, Waited};
pub use spec::{
    CLASSES_MAX, ClassSpec, Compute, FEEDERS_MAX, HISTORY_MAX, Options, ROWS_MAX, RiskSpec, Routing,
    SpectrumSpec, SurfaceSpec,
};
pub use stats::{ClassStats, Stats};
pub use tidegate_gpu::GpuPolicy;
pub use tidegate_gpu::risk::Tail;
pub use tidegate_gpu::sweep::SweepSpec;
pub use tidegate_regime::CrossOptions;

/// Where a result was computed, and by which version of the computations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// [`tidegate_gpu::KERNEL_VERSION`].
    pub kernel_version: u32,
    /// `cuda` where a device computed any of it, else `cpu`. The bits are the same.
    pub device: &'static str,
}

impl Derived {
    pub(crate) const CPU: Self = Self { kernel_version: tidegate_gpu::KERNEL_VERSION, device: "cpu" };
    pub(crate) const DEVICE: Self = Self { kernel_version: tidegate_gpu::KERNEL_VERSION, device: "cuda" };
}
