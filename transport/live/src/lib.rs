//! The engine running live: a thread that makes the log of all feeds, the shards, and a thread that owns the results and
//! their readers; or, where cores are few, all of that as one task on the runtime of the front ends. Those (QUIC, HTTP) talk to
//! it through handles and cannot tell the difference.
//!
//! ```text
//! connection tasks --frames--> tg-ingest: sessions, sequencers, router ==rings==> shards ==rings==> tg-egress: hub
//!        ^-------acks, credit------'                                                 queries, subscriptions ^ |
//! front ends <---------------------------------------frames of records, answers----------------------------'-'
//! ```
//! Fused ([`Live::start_on`], [`Network`]): the same parts by turns in one task, `core`, the shards called instead of woken.
//!
//! **Invariant:** knows no socket and no protocol but `proto`; a full ring makes `tg-ingest` wait and never an async task (the
//! fused core empties it instead); no reader can make `tg-egress` or the core wait. The clock decides when something is said, never what is logged, except for the idleness
//! of sources that left, which is written into the log.
#![forbid(unsafe_code)]

pub mod clock;

mod core;
pub mod derived;
mod downstream;
mod egress;
mod groups;
mod ingest;
mod journal;
mod latency;
mod moving;
mod network;
mod packed;
mod recovery;
mod relay;
pub mod replication;
mod service;
mod settings;
mod snapshot;
mod streams;

pub use clock::Clock;
pub use egress::{Delivery, HubGone, HubHandle, Origin, Reader, SubscribeError};
pub use groups::{LiveGroup, LiveGroups};
pub use ingest::{
    Datagrams, Feed, FeedAnswer, FeedState, IngestGone, IngestHandle, IngestReport, IngestStats, SlotAsk,
    SlotStatus,
};
pub use journal::{JournalError, JournalSettings, Progress, Recovered, SnapshotOptions};
pub use latency::{LatencyHandle, LatencyStats};
pub use network::Network;
pub use packed::Plain;
pub use relay::RelayPort;
pub use replication::Replication;
pub use service::{Live, LiveError, LiveOptions, LiveReport};
pub use settings::SnapshotSettings;
pub use snapshot::{SavedNames, SnapshotStats, saved_names, saved_settings};
pub use streams::{ChangeError, NewStreams, StreamChanges};
pub use tidegate_actors::runtime::{Threads, ThreadsError};
pub use tidegate_journal::{Health, Positions, SyncStats, WriterStats};
