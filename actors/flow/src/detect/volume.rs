//! What a host sends out, against its own history; and whom it administers, against whom it administered.

use super::alert::{Alert, Alerts, Kind, Range, Severity, probability};
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

#[derive(Debug, Clone)]
struct Host {
    since_ns: u64,
    window: u64,
    windows: u32,
    largest: u64,
    /// Receiver of most in this window (Misra and Gries with one counter), its bytes, and bytes to all.
    main: Ip,
    main_bytes: u64,
    all_bytes: u64,
    range: Range,
    new_hosts: Distinct,
    new_range: Range,
    new_since: u64,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Volumes {
    hosts: Recent<Ip, Host>,
    edges: Recent<(Ip, Ip, u16), ()>,
    told: Recent<u64, (u64, u64)>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            hosts: Recent::new(TRACKED_MAX),
            edges: Recent::new(EDGES_MAX),
            told: Recent::new(TRACKED_MAX),
        }
    }
}

impl Volumes {
    /// Takes a flow that ended, or an interim record of one.
    pub fn ended(&mut self, record: &FlowRecord, now: u64, alerts: &mut Alerts) {
        self.out(record, now, alerts);
        self.administered(record, now, alerts);
    }

    fn host(&mut self, record: &FlowRecord, now: u64) -> &mut Host {
        let range = Range::at(record.packets.0, record.start_ns);
        self.hosts.entry(record.originator, || Host {
            since_ns: now,
            window: now / WINDOW_NS,
            windows: 0,
            largest: 0,
            main: Ip::default(),
            main_bytes: 0,
            all_bytes: 0,
            range,
            new_hosts: Distinct::default(),
            new_range: range,
            new_since: now,
        })
    }

    fn out(&mut self, record: &FlowRecord, now: u64, alerts: &mut Alerts) {
        if record.responder.is_group() || record.responder.is_private() || record.sent.bytes == 0 {
            return;
        }
        // Interim records tell totals; what was told before is taken off.
        let key = hash_of(&(record.originator, record.responder, record.start_ns, record.originator_port));
        let before = self.told.entry(key, || (0, 0));
        let bytes = record.sent.bytes.saturating_sub(before.0);
        let back = record.received.bytes.saturating_sub(before.1);
        *before = (record.sent.bytes, record.received.bytes);
        let host = self.host(record, now);
        let window = now / WINDOW_NS;
        if host.window != window {
            host.largest = host.largest.max(host.all_bytes);
            host.windows = host.windows.saturating_add(1);
            (host.window, host.main, host.main_bytes, host.all_bytes) = (window, Ip::default(), 0, 0);
            host.range = Range::at(record.packets.0, record.start_ns);
        }
        host.range.cover(record.packets.1, record.last_ns);
        host.all_bytes += bytes;
        if host.main == record.responder || host.main_bytes == 0 {
            host.main = record.responder;
            host.main_bytes += bytes;
        } else if host.main_bytes >= bytes {
            host.main_bytes -= bytes;
        } else {
            host.main_bytes = bytes - host.main_bytes;
            host.main = record.responder;
        }
        let usual = host.largest.max(1_000_000) as f64;
        let times = host.main_bytes as f64 / usual;
        if host.windows >= WINDOWS_MIN
            && host.main_bytes >= BYTES_MIN
            && times >= TIMES_MIN
            && bytes > 4 * back
        {
            alerts.raise(
                Alert::new(Kind::DataExfiltration, record.originator, host.range, now)
                    .against(host.main, Some(record.responder_port))
                    .rated(Severity::High, probability(times, TIMES_MIN), "volume")
                    .because("bytes out to one address in 5 min", host.main_bytes as f64, usual)
                    .because("times the largest window before", times, 1.0)
                    .because("windows of history", host.windows, WINDOWS_MIN),
            );
        }
    }

    fn administered(&mut self, record: &FlowRecord, now: u64, alerts: &mut Alerts) {
        let answered = matches!(
            record.state,
            ConnState::S1 | ConnState::S2 | ConnState::S3 | ConnState::Sf | ConnState::RstO | ConnState::RstR
        );
        let (originator, responder, port) = (record.originator, record.responder, record.responder_port);
        let inside = originator.is_private() && responder.is_private() && originator != responder;
        if record.protocol != protocol::TCP
            || !answered
            || !inside
            || !ADMIN_PORTS.contains(&port)
            || record.sent.bytes == 0
        {
            return;
        }
        let known = self.edges.contains(&(originator, responder, port));
        self.edges.entry((originator, responder, port), || ());
        let host = self.host(record, now);
        // Half an hour of the host is what "never before" rests on.
        if known || now.saturating_sub(host.since_ns) < u64::from(WINDOWS_MIN) * WINDOW_NS {
            return;
        }
        if now.saturating_sub(host.new_since) > 2 * WINDOW_NS {
            host.new_hosts = Distinct::default();
            (host.new_since, host.new_range) = (now, Range::at(record.packets.0, record.start_ns));
        }
        host.new_hosts.insert(hash_of(&responder));
        host.new_range.cover(record.packets.1, record.last_ns);
        let count = host.new_hosts.count();
        if count >= NEW_HOSTS_MIN {
            alerts.raise(
                Alert::new(Kind::LateralMovement, originator, host.new_range, now)
                    .against(responder, Some(port))
                    .rated(
                        Severity::High,
                        probability(f64::from(count), f64::from(NEW_HOSTS_MIN)),
                        "new edges",
                    )
                    .because("hosts administered for the first time in 10 min", count, 1.0)
                    .because(
                        "minutes of history",
                        now.saturating_sub(host.since_ns) as f64 / (60 * SECOND) as f64,
                        30.0,
                    ),
            );
        }
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.hosts.dropped() + self.edges.dropped()
    }
}
