//! The real state machines of replication under a seeded network, disk and clock: loss, duplication, reordering, cuts in one direction or both,
//! pauses, crashes with and without memory, slow disks, clocks that run apart, logs cut off behind snapshots and pieces of these flipped; then everything heals, and the cluster must converge and
//! acknowledge once more. One integer replays a life, step by step.
//!
//! **Invariant:** nothing but the seed decides what happens; each step is followed by the checks of [`check`].
#![forbid(unsafe_code)]

pub mod check;
pub mod machine;

pub mod cluster;
mod plan;
mod store;

pub use cluster::{Life, Options, live};
