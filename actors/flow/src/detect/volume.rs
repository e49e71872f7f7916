//! What a host sends out, against its own history; and whom it administers, against whom it administered.

use super::alert::{Alert, Alerts, Kind, Range, Severity, probability};
use super::host::{Ends, Hosts};
use crate::address::Ip;
use crate::hash::{Recent, hash_of};
use crate::packet::protocol;
use crate::record::{ConnState, FlowRecord};
use crate::sketch::Distinct;
use crate::table::SECOND;

/// Window of the volumes.
pub const WINDOW_NS: u64 = 300 * SECOND;
/// Windows a host must have been seen for: before that it is being learnt, and nothing is said.
pub const WINDOWS_MIN: u32 = 6;
/// Bytes to one address in a window below which nothing is said, whatever the history.
pub const BYTES_MIN: u64 = 20_000_000;
/// Times the largest window so far.
pub const TIMES_MIN: f64 = 5.0;
/// Hosts newly administered within the window.
pub const NEW_HOSTS_MIN: u32 = 5;
const TRACKED_MAX: usize = 1 << 14;
/// Edges of administration remembered.
const EDGES_MAX: usize = 1 << 16;

/// SSH, telnet, RPC, NetBIOS session, SMB, remote desktop, VNC, WinRM.
const ADMIN_PORTS: [u16; 9] = [22, 23, 135, 139, 445, 3389, 5900, 5985, 5986];

/// What a host sends out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Volume {
    /// First seen; 0 before that.
    since_ns: u64,
    window: u64,
    windows: u32,
    largest: u64,
    /// Receiver of most in this window (Misra and Gries with one counter), its bytes, and bytes to all.
    main: Ip,
    main_bytes: u64,
    all_bytes: u64,
    range: Option<Range>,
}

/// A host that administers others.
#[derive(Debug, Clone)]
struct Administrator {
    new_hosts: Distinct,
    range: Range,
    since: u64,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Volumes {
    administrators: Recent<Ip, Administrator>,
    edges: Recent<(Ip, Ip, u16), ()>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self { administrators: Recent::new(TRACKED_MAX), edges: Recent::new(EDGES_MAX) }
    }
}

/// Bytes of a flow that interim records told already: sent and received.
pub type Told = (u64, u64);

impl Volumes {
    /// Takes a flow that ended, or an interim record of one; `told` goes with the flow.
    pub fn ended(
        &mut self,
        record: &FlowRecord,
        ends: &Ends,
        told: &mut Told,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        out(record, ends, told, now, hosts, alerts);
        self.administered(record, now, hosts, alerts);
    }

    fn administered(&mut self, record: &FlowRecord, now: u64, hosts: &mut Hosts, alerts: &mut Alerts) {
        let (originator, responder, port) = (record.originator, record.responder, record.responder_port);
        if record.protocol != protocol::TCP || !ADMIN_PORTS.contains(&port) || record.sent.bytes == 0 {
            return;
        }
        let answered = matches!(
            record.state,
            ConnState::S1 | ConnState::S2 | ConnState::S3 | ConnState::Sf | ConnState::RstO | ConnState::RstR
        );
        if !answered || !originator.is_private() || !responder.is_private() || originator == responder {
            return;
        }
        let mut known = true;
        self.edges.entry((originator, responder, port), || known = false);
        let since_ns = hosts.entry(originator, Default::default).volume.seen_since(now);
        // Half an hour of the host is what "never before" rests on.
        if known || now.saturating_sub(since_ns) < u64::from(WINDOWS_MIN) * WINDOW_NS {
            return;
        }
        let new = || Administrator {
            new_hosts: Distinct::default(),
            range: Range::at(record.packets.0, record.start_ns),
            since: now,
        };
        let host = self.administrators.entry(originator, new);
        if now.saturating_sub(host.since) > 2 * WINDOW_NS {
            *host = new();
        }
        host.new_hosts.insert(hash_of(&responder));
        host.range.cover(record.packets.1, record.last_ns);
        let count = host.new_hosts.count();
        if count >= NEW_HOSTS_MIN {
            alerts.raise(
                Alert::new(Kind::LateralMovement, originator, host.range, now)
                    .against(responder, Some(port))
                    .rated(
                        Severity::High,
                        probability(f64::from(count), f64::from(NEW_HOSTS_MIN)),
                        "new edges",
                    )
                    .because("hosts administered for the first time in 10 min", count, 1.0)
                    .because(
                        "minutes of history",
                        now.saturating_sub(since_ns) as f64 / (60 * SECOND) as f64,
                        30.0,
                    ),
            );
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.administrators.bytes(|host| host.new_hosts.owned_bytes()) + self.edges.bytes(|_| 0)
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.administrators.dropped() + self.edges.dropped()
    }
}

impl Volume {
    /// Reads its lines; changes nothing.
    pub(super) fn touch(&self) -> u64 {
        self.since_ns ^ self.all_bytes ^ self.main.0 as u64 ^ u64::from(self.range.is_some())
    }

    /// When the host was first seen, which may be now.
    fn seen_since(&mut self, now: u64) -> u64 {
        if self.since_ns == 0 {
            (self.since_ns, self.window) = (now.max(1), now / WINDOW_NS);
        }
        self.since_ns
    }
}

fn out(record: &FlowRecord, ends: &Ends, told: &mut Told, now: u64, hosts: &mut Hosts, alerts: &mut Alerts) {
    if record.sent.bytes == 0 || record.responder.is_group() || record.responder.is_private() {
        return;
    }
    let bytes = record.sent.bytes.saturating_sub(told.0);
    let back = record.received.bytes.saturating_sub(told.1);
    *told = (record.sent.bytes, record.received.bytes);
    let host = &mut hosts.entry_at(ends.originator_at, record.originator, Default::default).volume;
    host.seen_since(now);
    let window = now / WINDOW_NS;
    // Logs are in order of ends, more or less: what belongs to an older window counts in this one.
    if window > host.window {
        host.largest = host.largest.max(host.all_bytes);
        host.windows = host.windows.saturating_add(1);
        (host.window, host.main, host.main_bytes, host.all_bytes) = (window, Ip::default(), 0, 0);
        host.range = None;
    }
    let range = host.range.get_or_insert_with(|| Range::at(record.packets.0, record.start_ns));
    range.cover(record.packets.0, record.start_ns);
    range.cover(record.packets.1, record.last_ns);
    let range = *range;
    host.all_bytes = host.all_bytes.saturating_add(bytes);
    if host.main == record.responder || host.main_bytes == 0 {
        host.main = record.responder;
        host.main_bytes = host.main_bytes.saturating_add(bytes);
    } else if host.main_bytes >= bytes {
        host.main_bytes -= bytes;
    } else {
        host.main_bytes = bytes - host.main_bytes;
        host.main = record.responder;
    }
    if host.main_bytes < BYTES_MIN || host.windows < WINDOWS_MIN {
        return;
    }
    let usual = host.largest.max(1_000_000) as f64;
    let times = host.main_bytes as f64 / usual;
    if times >= TIMES_MIN && bytes > back.saturating_mul(4) {
        alerts.raise(
            Alert::new(Kind::DataExfiltration, record.originator, range, now)
                .against(host.main, Some(record.responder_port))
                .rated(Severity::High, probability(times, TIMES_MIN), "volume")
                .because("bytes out to one address in 5 min", host.main_bytes as f64, usual)
                .because("times the largest window before", times, 1.0)
                .because("windows of history", host.windows, WINDOWS_MIN),
        );
    }
}
