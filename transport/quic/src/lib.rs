//! QUIC for feeds and subscribers: moves bytes and timers for `proto`.
//!
//! **Invariant:** does not know what a bar is, and gives no peer more memory, time or streams than [`limits`] says: every
//! bound of the QUIC library is set here on purpose, none is left to its default.
#![forbid(unsafe_code)]

pub mod limits;
pub mod socket;
pub mod tls;

#[cfg(feature = "server")]
pub mod certs;
#[cfg(feature = "server")]
mod groups;
#[cfg(feature = "server")]
pub mod security;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod usage;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "client")]
pub use client::{
    Arrival, ClientError, ClientOptions, Continuation, CredentialSource, PublishStats, Publisher,
    PublisherOptions, Subscriber, Update,
};
#[cfg(feature = "server")]
pub use groups::GroupSource;
pub use limits::Limits;
#[cfg(feature = "server")]
pub use security::{Access, AuthOptions, SecurityError, SecurityOptions, ServerSecurity, TlsOptions};
#[cfg(feature = "server")]
pub use server::{QuicServer, ServerError, ServerStats};
pub use tls::{Identity, TlsError, Trust};
