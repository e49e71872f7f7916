//! Inputs made up by rule: the benchmark workload, a demo market, an office network.
//!
//! **Invariant:** the same options give the same events on every machine and in every later version. Nothing here uses
//! a float function that a platform may round its own way, iterates a hash map, or asks a clock; a golden test holds
//! the hash of the first 100,000 events of each.

mod market;
mod network;
mod random;
#[cfg(test)]
mod tests;
mod w1;

pub use market::{Market, MarketOptions};
pub use network::{Network, NetworkOptions};
pub use random::{Alias, Random, zipf_weights};
pub use w1::{Reversed, W1, W1Options, reversed};

use crate::source::{Progress, ReadAccount};
use tidegate_engine::Event;

/// Generators have no file: progress counts the bytes the events would take.
fn progress(account: &ReadAccount, events: u64) -> Progress {
    const EVENT_BYTES: u64 = size_of::<Event>() as u64;
    let bytes_total = if events == u64::MAX { 0 } else { events.saturating_mul(EVENT_BYTES) };
    Progress { bytes: account.events * EVENT_BYTES, bytes_total }
}
