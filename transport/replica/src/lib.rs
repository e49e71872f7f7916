//! Replication of a group's input log from its leader to its followers, and the metadata that says who leads.
//!
//! **Invariant:** no socket, thread, clock or randomness. What is safe never depends on time: ticks only decide when something is said
//! again or proposed. Each rule that safety rests on has a name ([`Rule`]), and the simulator shows for each that it is needed.
#![forbid(unsafe_code)]

pub mod rules;

pub mod book;
pub mod copies;
pub mod log;
pub mod meta;

pub mod message;
pub mod mover;
pub mod rebalance;
pub mod replica;
pub mod snapshot;

pub mod wire;

pub use book::{Book, NODES_MAX, Place};
pub use copies::{Copies, CopyMove};
pub use log::{Body, Entry, Log};
pub use message::{Append, Message, SnapshotId};
pub use meta::{
    COMING_MAX, Coming, Command, Group, GroupId, Layout, Member, Meta, MetaStore, NodeId, Rejection, SLOTS,
    SlotMove, SlotMoves, Slots,
};
pub use mover::{Mover, SlotAction, SlotStand, SlotTrip};
pub use rebalance::{Eagerness, Move, Moves};
pub use replica::{Machine, Output, Replica, ReplicaOptions, Role, Submitted};
pub use rules::{Rule, Rules};
pub use snapshot::{Base, Fit, Point};
pub use wire::WireError;
