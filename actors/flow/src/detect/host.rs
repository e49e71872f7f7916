//! What all detectors know of a host: one entry, found once per flow and side.

use super::edge::Habits;
use super::volume::Volume;
use crate::address::Ip;
use crate::hash::{Place, Recent, hash_of, joined};
use crate::record::FlowRecord;
use crate::sketch::Few;

/// Hosts remembered. One that comes back within so many others stays; a flood of made-up sources pushes out its own kind.
pub const HOSTS_MAX: usize = 1 << 16;

/// A host.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Who called it and was answered, or sent it UDP, as far as detectors ask: ten are many.
    pub callers: Few,
    /// What it sends out.
    pub volume: Volume,
    /// What it usually does.
    pub habits: Habits,
}

impl Host {
    /// Reads its lines; changes nothing.
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.callers.touch()) ^ self.volume.touch() ^ self.habits.touch()
    }
}

/// The two ends of a flow, hashed once for all who ask, and where their entries probably are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    /// Hash of the originator.
    pub originator: u64,
    /// Hash of the responder.
    pub responder: u64,
    /// Where the originator's entry probably is.
    pub originator_at: Place,
    /// Where the responder's entry probably is.
    pub responder_at: Place,
}

impl Ends {
    /// Without a look where they are.
    #[inline]
    #[must_use]
    pub fn of(record: &FlowRecord) -> Self {
        let (originator, responder) = (hash_of(&record.originator), hash_of(&record.responder));
        Self {
            originator,
            responder,
            originator_at: Place::of(originator),
            responder_at: Place::of(responder),
        }
    }

    /// Hash of the service of the pair: what an edge is known by.
    #[inline]
    #[must_use]
    pub fn edge(&self, record: &FlowRecord) -> u64 {
        joined(joined(self.originator, self.responder), part(record.responder_port, record.protocol))
    }

    /// Hash of one end with a port and something else.
    #[inline]
    #[must_use]
    pub fn with(end: u64, port: u16, what: u8) -> u64 {
        joined(end, part(port, what))
    }
}

#[inline]
fn part(port: u16, what: u8) -> u64 {
    u64::from(port) << 8 | u64::from(what)
}

/// All hosts.
pub type Hosts = Recent<Ip, Host>;

// What the documentation says a host costs.
const _: () = assert!(Hosts::ENTRY_BYTES <= 256);
