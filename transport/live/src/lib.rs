//! The engine running live: a thread that makes the log of all feeds, the shards, and a thread that owns the results and
//! their readers. Front ends (QUIC, HTTP) talk to both through handles.
//!
//! ```text
//! connection tasks --frames--> tg-ingest: sessions, sequencers, router ==rings==> shards ==rings==> tg-egress: hub
//!        ^-------acks, credit------'                                                 queries, subscriptions ^ |
//! front ends <---------------------------------------frames of records, answers----------------------------'-'
//! ```
//! **Invariant:** knows no socket and no protocol but `proto`; a full ring makes `tg-ingest` wait and never an async task; no
//! reader can make `tg-egress` wait. The clock decides when something is said, never what is logged, except for the idleness
//! of sources that left, which is written into the log.
#![forbid(unsafe_code)]

pub mod clock;

mod egress;
mod ingest;
mod latency;

mod service;

pub use clock::Clock;
pub use egress::{Delivery, HubGone, HubHandle, Origin, Reader, SubscribeError};
pub use ingest::{Feed, FeedAnswer, FeedState, IngestGone, IngestHandle, IngestReport, IngestStats};
pub use latency::{LatencyHandle, LatencyStats};
pub use service::{Live, LiveError, LiveOptions, LiveReport};
