//! The real state machines of replication under a seeded network, disk and clock: loss, duplication, reordering, cuts in one direction or both,
//! pauses, crashes with and without memory, of nodes and of one replica alone, slow disks, clocks that run apart, logs cut off behind
//! snapshots and pieces of these flipped, one group or several; then everything heals, and the cluster must converge and acknowledge
//! once more. One integer replays a life, step by step; [`shrink()`] leaves out of it whatever it breaks without as well.
//!
//! **Invariant:** nothing but the seed decides what happens; each step is followed by the checks of [`check`].
#![forbid(unsafe_code)]

pub mod check;
pub mod machine;

pub mod cluster;
mod plan;
mod store;

pub mod scale;
pub mod shrink;

pub use cluster::{Fault, Life, Options, Traffic, Without, live};
pub use scale::{Scale, Scaled};
pub use shrink::{Short, shrink};
