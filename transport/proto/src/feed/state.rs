//! What a server knows of its sources between two frames, for a snapshot.

use super::server::{FeedLedger, FeedServer, Source};
use crate::access::{Policy, Quotas};

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SourceState {
    name: String,
    source_id: u64,
    session: u64,
    last: u64,
    /// Hash of each name within the quota.
    names: Vec<u64>,
    keys: u32,
    principal: String,
    throttled: u64,
    /// Received, accepted, duplicate, ahead, refused, declared lost, overflowed.
    ledger: [u64; 7],
}

/// All sources, by rank, and what their principals have used of their quotas of names.
#[derive(Debug, Clone, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct FeedServerState {
    sources: Vec<SourceState>,
    names: Vec<(String, Vec<u64>)>,
}

/// A state that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// More sources than there are ranks.
    #[error("{0} sources, allowed are 0 to 65535")]
    Sources(usize),
    /// Two of one id.
    #[error("two sources with id {0}")]
    Twice(u64),
    /// More names than keys.
    #[error("source {rank} has {names} names and {keys} keys")]
    Names {
        /// The source.
        rank: usize,
        /// Its names.
        names: usize,
        /// Its keys.
        keys: u32,
    },
}

impl FeedServer {
    /// The state between two frames. Datagrams that wait for their turn are not in it: no log has them.
    #[must_use]
    pub fn state(&self) -> FeedServerState {
        let source = |source: &Source| {
            let of = &source.ledger;
            let received = of.received - of.held;
            SourceState {
                name: source.name.clone(),
                source_id: source.source_id,
                session: source.session,
                last: source.last,
                names: source.names.clone(),
                keys: source.keys,
                principal: source.grant.principal().to_string(),
                throttled: source.throttled,
                ledger: [
                    received,
                    of.accepted,
                    of.duplicate,
                    of.ahead,
                    of.refused,
                    of.declared_lost,
                    of.overflowed,
                ],
            }
        };
        FeedServerState { sources: self.sources.iter().map(source).collect(), names: self.principals.names() }
    }

    /// Takes over a state, on a server without sources, as if each source had left without a word. What their principals may do is
    /// not known before they come again.
    ///
    /// # Errors
    /// [`StateError`]; nothing was changed.
    pub fn restore(&mut self, state: &FeedServerState) -> Result<(), StateError> {
        if state.sources.len() > usize::from(u16::MAX) {
            return Err(StateError::Sources(state.sources.len()));
        }
        let mut ids: Vec<u64> = state.sources.iter().map(|source| source.source_id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(StateError::Twice(pair[0]));
        }
        for (rank, SourceState { names, keys, .. }) in state.sources.iter().enumerate() {
            if names.len() > *keys as usize {
                return Err(StateError::Names { rank, names: names.len(), keys: *keys });
            }
        }
        for (rank, saved) in (0u16..).zip(&state.sources) {
            let [received, accepted, duplicate, ahead, refused, declared_lost, overflowed] = saved.ledger;
            let grant = Policy::default().grant(&saved.principal, None, Quotas::default());
            self.principals.named(grant.principal(), saved.names.iter().copied());
            self.by_id.insert(saved.source_id, rank);
            self.sources.push(Source {
                name: saved.name.clone(),
                source_id: saved.source_id,
                session: saved.session,
                last: saved.last,
                durable: saved.last,
                // A snapshot of a cluster holds what is committed alone; a server by itself promises nothing of that kind.
                committed: saved.last,
                recovered: true,
                names: saved.names.clone(),
                keys: saved.keys,
                connection: None,
                connections: 0,
                ledger: FeedLedger {
                    received,
                    accepted,
                    duplicate,
                    ahead,
                    held: 0,
                    refused,
                    declared_lost,
                    overflowed,
                },
                grant,
                throttled: saved.throttled,
            });
        }
        for (principal, names) in &state.names {
            let grant = Policy::default().grant(principal, None, Quotas::default());
            self.principals.named(grant.principal(), names.iter().copied());
        }
        Ok(())
    }
}

#[cfg(test)]
impl FeedServerState {
    pub(super) fn of(sources: Vec<SourceState>) -> Self {
        Self { sources, names: Vec::new() }
    }

    pub(super) fn source(&self, rank: usize) -> SourceState {
        self.sources[rank].clone()
    }
}

#[cfg(test)]
impl SourceState {
    pub(super) fn set_keys(&mut self, keys: u32) {
        self.keys = keys;
    }
}
