//! A node of a cluster: links to the other nodes over QUIC, metadata by consensus (`openraft`), and the driver of the replica between
//! the two and the engine.
//!
//! ```text
//! feeds -> tg-ingest --submissions--> driver (replica) <==links==> drivers of other nodes     (each once per group)
//!              ^------orders------------'    ^ metadata | proposals
//!                                            consensus <==links==> consensus of other nodes
//! ```
//! **Invariant:** what is safe is decided in `tidegate-replica` and by `openraft`; what is here moves messages and time. Every queue has
//! a bound; a link that is slow or gone loses messages, which both protocols allow. A peer is who its certificate names, and what it
//! says in the name of another is refused.
#![forbid(unsafe_code)]

pub mod config;

mod links;
mod store;

mod aside;
mod metadata;

mod members;

mod copies;
mod driver;
mod kept;
mod machine;
mod mover;
mod prepared;
mod registrar;
mod relay;
mod snapshots;

pub mod view;

pub mod node;
pub mod operate;

pub use config::{ClusterConfig, ClusterError, Founding, GROUPS_MAX, NodePlace};
pub use copies::TakingUp;
pub use links::Speaks;
pub use node::{Ended, Node, NodeGroup, NodeStatus, Recovered, ReplicaStatus, Snapshotting};
pub use prepared::Prepared;
pub use relay::{RelayStatus, Relaying};
pub use view::{ClusterView, Observer};
