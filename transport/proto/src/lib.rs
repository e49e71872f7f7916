//! The wire protocol as state machines: frames, feed sessions, subscriptions and the hub that serves them.
//!
//! **Invariant:** no socket, no thread, no clock and no async runtime; bytes and time come in as arguments, effects go out as
//! values. What a peer sends ends in a typed error or in a count, never in a panic, and makes nothing grow without bound.
#![forbid(unsafe_code)]

pub mod access;
pub mod close;
mod credential;
pub mod frame;
pub mod groups;
pub mod meter;
pub mod packed;
pub mod time;
pub mod wire;
#[cfg(test)]
mod wire_tests;

pub mod feed;

pub mod hub;
pub mod relay;
#[cfg(test)]
mod relay_sim;
pub mod subscriber;
pub mod subscription;

pub use access::{Admission, Grant, Quotas};
pub use close::{Close, CloseCode};
pub use frame::{
    Ack, AckMode, Credential, Frame, FrameWriter, Loss, LossCause, Plane, SlotFrame, SlotWord, StreamKind,
};
pub use groups::{GroupLead, GroupMap, GroupMapError};
pub use meter::Meter;
pub use packed::Packed;
pub use time::MonoTime;
pub use wire::{ALPN_FEED, ALPN_SUBSCRIBE, FrameBuffer, FrameError, FrameHead, FrameType};
