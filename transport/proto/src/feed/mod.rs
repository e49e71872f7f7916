//! The feed session: how events of a source reach the server once each, in order, whatever the connection does.
//!
//! A source numbers its events from 1 within a *session*. The server keeps, per source, the session and the last number it
//! has; everything else follows from these two:
//! - what it has already is a **duplicate**, counted and dropped;
//! - what leaves out a number is **ahead**: dropped, counted, and the server says what it has ([`Frame::Position`]), so that
//!   the feed goes back;
//! - what the feed itself lost it declares ([`Frame::Gap`]); the server counts it and writes it into the log;
//! - after a reconnect the feed goes on behind what the server has.
//!
//! In a cluster of several groups a feed has a session with each that it has something for ([`SplitFeed`]).
//!
//! Both machines survive frames that are lost, doubled and overtaken; over QUIC none of that happens within a connection.
//!
//! [`Frame::Position`]: crate::Frame::Position
//! [`Frame::Gap`]: crate::Frame::Gap

mod client;
mod moving;
#[cfg(test)]
mod moving_sim;
mod principals;
mod server;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod sim;
mod split;
#[cfg(test)]
mod split_sim;
mod state;

pub use client::{FeedClient, FeedClientOptions, FeedEvent};
pub use moving::SlotGoes;
pub use server::{
    ConnectionId, FeedGroup, FeedLedger, FeedServer, FeedServerOptions, Released, SourceStats, Taken,
};
pub use split::SplitFeed;
pub use state::{FeedServerState, SourceState, StateError};
