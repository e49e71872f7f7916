//! What all detectors know of a host: one entry, found once per flow and side.

use super::edge::Habits;
use super::volume::Volume;
use crate::address::Ip;
use crate::hash::Recent;
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
        u64::from(self.callers.count()) ^ self.volume.touch() ^ self.habits.touch()
    }
}

/// All hosts.
pub type Hosts = Recent<Ip, Host>;

// What the documentation says a host costs.
const _: () = assert!(Hosts::ENTRY_BYTES <= 256);
