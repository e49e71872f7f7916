//! Who talks to whom: the first flow of each service of each pair, and services so unlike a host's habits that their first flow is worth a
//! word.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::beacon::{self, Call, Calls};
use super::evidence::Measure;
use super::host::{Ends, Hosts, furthest};
use super::login::Logins;
use crate::hash::{Line, Place, Recent, shorter};
use crate::packet::protocol;
use crate::record::FlowRecord;
use crate::sketch::Few;
use crate::table::SECOND;

/// How long a host must have been seen before anything can be said to be unlike it.
pub const HISTORY_NS: u64 = 3_600 * SECOND;
/// How long nothing was new with it: creatures of habit (servers, cameras, controllers) have this, people at work do not.
pub const SETTLED_NS: u64 = 1_800 * SECOND;
/// Flows of its own before that.
pub const FLOWS_MIN: u32 = 20;
/// Services of creatures of habit.
pub const SERVICES_MAX: u16 = 16;
/// Hosts that use a port, the host itself included, from which on it is no rare one.
pub const USERS_MIN: u32 = 2;
/// Edges remembered; while some had to be forgotten nothing can be said to be new, and nothing is.
const EDGES_MAX: usize = 1 << 16;
/// Ports remembered with who uses them.
const PORTS_MAX: usize = 1 << 14;

/// What a host usually does. Packed: 22 bytes, so that a host fits in its lines.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, packed(2))]
pub struct Habits {
    /// First seen as an originator; 0 before that.
    since_ns: u64,
    /// When a service was new to it last.
    new_ns: u64,
    flows: u32,
    /// As far as anybody asks: [`SERVICES_MAX`] are many.
    services: u16,
}

impl Habits {
    /// When the host was first seen to ask for anything; 0 before that.
    #[inline]
    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Reads its lines; changes nothing, and what comes back means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.since_ns
    }
}

/// The edges with their calls, and the detector of rare ones.
#[derive(Debug, Clone)]
pub struct Edges {
    /// By hash of originator, responder, port and protocol.
    calls: Recent<u64, Calls, Line>,
    users: Recent<(u16, u8), Few>,
}

impl Default for Edges {
    fn default() -> Self {
        Self { calls: Recent::in_lines(EDGES_MAX), users: Recent::new(PORTS_MAX) }
    }
}

// Two lines to an edge.
const _: () = assert!(size_of::<u64>() + size_of::<Calls>() == 128);

impl Edges {
    /// Takes a flow that ended. The middle of a connection has no start, and what carries nothing says nothing: they are no calls.
    #[inline]
    pub fn ended(
        &mut self,
        record: &FlowRecord,
        ends: &Ends,
        (edge, at): (u64, Place),
        (now, logins): (u64, &Logins),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let counts = match record.protocol {
            protocol::TCP => record.history.starts_with(b'S'),
            protocol::UDP => true,
            _ => false,
        };
        if !counts || record.sent.bytes == 0 || ends.responder_is_group {
            return;
        }
        let mut is_new = false;
        let calls = self.calls.entry_at(at, edge, || {
            is_new = true;
            Calls::new(Call::of(record))
        });
        let habits = &mut hosts.entry_at(ends.originator_at, record.originator, Default::default).habits;
        let before = *habits;
        if habits.since_ns == 0 {
            habits.since_ns = now.max(1);
        }
        habits.flows = habits.flows.saturating_add(1);
        if is_new {
            habits.services = habits.services.saturating_add(1);
            habits.new_ns = habits.new_ns.max(now);
            self.judge(record, ends, before, now, hosts, alerts);
        } else if !ends.responder_is_private && !beacon::is_regular(record.responder_port) {
            calls.again(record, now, logins, hosts, alerts);
        }
    }

    #[inline(never)]
    fn judge(
        &mut self,
        record: &FlowRecord,
        ends: &Ends,
        before: Habits,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let FlowRecord { originator, responder, responder_port: port, protocol: number, .. } = *record;
        let known = before.since_ns > 0
            && now.saturating_sub(before.since_ns) >= HISTORY_NS
            && before.flows >= FLOWS_MIN
            && before.services <= SERVICES_MAX;
        let users = self.users.entry((port, number), Few::default);
        // Far too many for a rare one, and one more changes nothing.
        if users.is_full() {
            return;
        }
        let is_known = users.insert(shorter(ends.originator));
        let users = users.count();
        // Services that answer on a port of their own, new to the host as well, and are talked with. Another server of a known service
        // is for those who judge lateral movement.
        if !known
            || is_known
            || users >= USERS_MIN
            || number != protocol::TCP
            || record.received.bytes == 0
            || self.calls.dropped() > 0
            || hosts.find(&responder).is_some_and(|host| host.callers.count() >= USERS_MIN)
        {
            return;
        }
        let quiet = now.saturating_sub(before.new_ns);
        let times = quiet as f64 / SETTLED_NS as f64;
        if quiet < SETTLED_NS {
            return alerts.note(Measure::Quiet, furthest(hosts, originator), times);
        }
        let probability = alerts.weigh(Measure::Quiet, furthest(hosts, originator), times);
        let mut range = Range::at(record.packets.0, record.start_ns);
        range.cover(record.packets.1, record.last_ns);
        alerts.raise(
            Alert::new(Kind::RareEdge, originator, range, now)
                .against(responder, Some(port))
                .rated(Severity::Low, probability, "new service")
                .because("minutes in which nothing was new", quiet as f64 / (60 * SECOND) as f64, 30.0)
                .because("services used before", before.services, f64::from(SERVICES_MAX))
                .because("hosts that use this port", users, f64::from(USERS_MIN))
                .because("flows of the host before", before.flows, f64::from(FLOWS_MIN)),
        );
    }

    /// Reads the line of the index that [`Edges::find_place`] will need.
    #[inline]
    pub(super) fn warm_place(&self, place: Place) -> u64 {
        self.calls.warm_place(place)
    }

    /// Finds where the calls of an edge are.
    #[inline]
    pub(super) fn find_place(&self, place: &mut Place) {
        self.calls.find_place(place);
    }

    /// Reads ahead how many calls an edge has.
    #[inline]
    pub(super) fn warm(&self, place: Place) -> u64 {
        self.calls.warm(place, Calls::touch)
    }

    /// Reads ahead where its next call goes, once [`Edges::warm`] is back.
    #[inline]
    pub(super) fn warm_next(&self, place: Place) -> u64 {
        self.calls.warm(place, Calls::touch_next)
    }

    /// Reads ahead what room for so many new edges will need.
    pub(super) fn warm_room(&self, count: usize) -> u64 {
        self.calls.warm_room(count)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.calls.bytes(Calls::owned_bytes) + self.users.bytes(|_| 0)
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.calls.dropped() + self.users.dropped()
    }
}
