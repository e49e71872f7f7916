//! HTTP, WebSocket, Server-Sent Events and Arrow for browsers and scripts, over the handles of a live engine.
//!
//! ```text
//! browser, script --HTTP/1.1--> guard (host, origin, limits) --> rest, sse, arrow, status, metrics, assets
//!                                                           \--> ws: one task per connection, many subscriptions
//! all of them --ask, subscribe--> tidegate-live (the hub's thread)
//! ```
//! **Invariant:** knows no QUIC and not how a result is computed; reads no environment and no time of day. What a peer sends
//! ends in a typed error, never in a panic, and makes nothing grow without bound: a reader that does not read is held up by
//! its own socket, and its subscription's lag policy decides.
#![forbid(unsafe_code)]

mod options;
mod sources;

mod server;

mod admit;
mod error;
mod guard;
mod query;

mod book;
mod record;

mod alerts;
mod arrow;
mod assets;
mod body;
mod rest;
mod sse;

pub mod ops;

mod ws;

mod cluster;
mod explain;
mod metrics;
mod status;

pub use alerts::{
    Acting, AlertCounts, AlertError, AlertFilter, AlertNews, AlertState, AlertVerb, Alerts, Visible,
};
pub use cluster::{
    ClusterChange, ClusterGroup, ClusterMember, ClusterReplica, ClusterState, GroupCopy, GroupRelay,
    GroupReplica,
};
pub use options::{GatewayError, GatewayOptions};
pub use server::{Gateway, GatewayReport};
pub use sources::{DerivedStats, Gate, Latency, Refusals, Sources, StageNode};
