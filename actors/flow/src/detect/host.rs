//! What all detectors know of a host: one entry, found once per flow and side.

use super::edge::Habits;
use super::evidence::Furthest;
use super::volume::Volume;
use crate::address::Ip;
use crate::hash::{Line, Place, Recent, hash_of, joined};
use crate::record::FlowRecord;
use crate::sketch::Few;

/// Hosts remembered. One that comes back within so many others stays; a flood of made-up sources pushes out its own kind.
pub const HOSTS_MAX: usize = 1 << 16;

/// A host: three cache lines with its address. Who is called needs the first of them, who calls the other two.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Host {
    /// Who called it and was answered, or sent it UDP, as far as detectors ask: ten are many.
    pub callers: Few,
    /// What it sends out.
    pub volume: Volume,
    /// What it usually does.
    pub habits: Habits,
    /// How far it went in what hosts are accused of.
    pub furthest: Furthest,
}

impl Host {
    /// Reads what a call by it will need; changes nothing, and what comes back means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.callers.count()) ^ self.volume.touch() ^ self.habits.touch()
    }
}

/// The two ends of a flow, hashed once for all who ask, and where their entries probably are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    /// Hash of the originator.
    pub originator: u64,
    /// Hash of the responder.
    pub responder: u64,
    /// Hash of both.
    pub pair: u64,
    /// Where the originator's entry probably is.
    pub originator_at: Place,
    /// Where the responder's entry probably is.
    pub responder_at: Place,
    /// Whether the originator is no single host ([`Ip::is_group`]).
    pub originator_is_group: bool,
    /// Whether the responder is no single host.
    pub responder_is_group: bool,
    /// Whether the responder belongs to a site ([`Ip::is_private`]).
    pub responder_is_private: bool,
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
            pair: joined(originator, responder),
            originator_at: Place::of(originator),
            responder_at: Place::of(responder),
            originator_is_group: record.originator.is_group(),
            responder_is_group: record.responder.is_group(),
            responder_is_private: record.responder.is_private(),
        }
    }

    /// Hash of the service of the pair: what an edge is known by.
    #[inline]
    #[must_use]
    pub fn edge(&self, record: &FlowRecord) -> u64 {
        joined(self.pair, part(record.responder_port, record.protocol))
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

/// How far a host went in what hosts are accused of.
pub(super) fn furthest(hosts: &mut Hosts, ip: Ip) -> &mut Furthest {
    &mut hosts.entry(ip, Host::default).furthest
}

/// All hosts.
pub type Hosts = Recent<Ip, Host, Line>;

// The lines that [`Host`] speaks of, and what the documentation says a host costs.
const _: () = assert!(size_of::<Ip>() + std::mem::offset_of!(Host, volume) == 64);
const _: () = assert!(size_of::<Ip>() + size_of::<Host>() == 192);
const _: () = assert!(Hosts::ENTRY_BYTES <= 212);
