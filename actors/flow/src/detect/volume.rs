//! What a host sends out, against its own history or, while it has none, against what the others of its site send; and whom it administers, against whom it administered.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Furthest, Measure};
use super::host::{Ends, Host, Hosts, furthest};
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
/// Bytes to one network ([`Ip::is_beside`]) in a window below which nothing is said, whatever the history.
pub const BYTES_MIN: u64 = 20_000_000;
/// Times the largest window so far.
pub const TIMES_MIN: f64 = 5.0;
/// Others that send out, from which on they say what is usual at a site: where fewer do, one of them is no less usual than another.
pub const SITE_HOSTS_MIN: u32 = 8;
/// How long a site must have been seen.
pub const SITE_NS: u64 = 120 * SECOND;
/// Times the most that any other host sent to one address in a window.
pub const SITE_TIMES_MIN: f64 = 10.0;
/// What a site sent most is worth a twelfth less with each of these that has passed: half after a day, a hundredth after a week.
pub const FADE_NS: u64 = 10_800 * SECOND;
/// Times what came back on the same flow, where a site stands in for a history.
pub const SITE_BACK_MIN: u64 = 10;
/// Hosts whose administrative shares are opened within the window. Nobody but an administrator does that, and programs that spread by it.
pub const SHARES_MIN: u32 = 3;
/// Hosts newly administered within the window, by one host or by those that it reached like that.
pub const NEW_HOSTS_MIN: u32 = 5;
/// Hosts one behind the other of which each was newly administered from the one before: an administrator passes one host on his way to another.
pub const HOPS_MIN: u32 = 3;
/// Hosts reached remembered.
const REACHED_MAX: usize = 1 << 12;
const TRACKED_MAX: usize = 1 << 14;
/// Hosts that open administrative shares.
const SHARES_MAX: usize = 1 << 12;
/// Edges of administration remembered.
const EDGES_MAX: usize = 1 << 16;

/// SSH, telnet, RPC, NetBIOS session, SMB, remote desktop, VNC, WinRM.
fn is_admin(port: u16) -> bool {
    matches!(port, 22 | 23 | 135 | 139 | 445 | 3389 | 5900 | 5985 | 5986)
}

/// What a host sends out.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Volume {
    /// Receiver of most in this window, or another of its network (Misra and Gries with one counter).
    main: Ip,
    /// Where this window's flows are; means nothing before `in_window`.
    range: Range,
    /// First seen; 0 before that.
    since_ns: u64,
    window: u64,
    /// What went to the main receiver, and to all.
    main_bytes: u64,
    all_bytes: u64,
    largest: u64,
    windows: u32,
    in_window: bool,
}

/// A host that administers others.
#[derive(Debug, Clone)]
struct Administrator {
    new_hosts: Distinct,
    range: Range,
    since: u64,
}

/// How a host was reached that was newly administered.
#[derive(Debug, Clone, Copy)]
struct Reached {
    first: Ip,
    hops: u32,
    at_ns: u64,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Volumes {
    administrators: Recent<Ip, Administrator>,
    /// Hosts newly administered of late: by whom in the beginning, and at which step from there.
    reached: Recent<Ip, Reached>,
    shares: Recent<Ip, Administrator>,
    edges: Recent<(Ip, Ip, u16), ()>,
    site: Site,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            administrators: Recent::new(TRACKED_MAX),
            reached: Recent::new(REACHED_MAX),
            shares: Recent::new(SHARES_MAX),
            edges: Recent::new(EDGES_MAX),
            site: Site::default(),
        }
    }
}

/// What the inside hosts send out, all together.
#[derive(Debug, Clone, Default)]
struct Site {
    since_ns: u64,
    senders: Distinct,
    /// The two hosts that sent most to one address in a window, and how much: one of them is another than any host. Fades, so that one
    /// backup does not hide for ever what is smaller than ten of it.
    most: [(Ip, u64); 2],
    /// Steps of [`FADE_NS`] until then have faded.
    faded: u64,
}

impl Site {
    /// Lets the past fade up to now. By steps of the clock of the input, so that it does not matter how often this is called.
    #[inline]
    fn fade(&mut self, now: u64) {
        let step = now / FADE_NS;
        if step > self.faded {
            self.fade_to(step);
        }
    }

    #[inline(never)]
    fn fade_to(&mut self, step: u64) {
        // After 512 steps nothing is left of any number.
        for _ in 0..(step - self.faded).min(512) {
            self.most.iter_mut().for_each(|(_, bytes)| *bytes -= bytes.div_ceil(12));
        }
        self.faded = step;
        self.sort();
    }

    /// The most that any host but this one sent to one address in a window; `None` while too little is known of the site.
    fn others(&self, host: Ip, now: u64) -> Option<u64> {
        if self.senders.count() <= SITE_HOSTS_MIN || now.saturating_sub(self.since_ns) < SITE_NS {
            return None;
        }
        Some(if self.most[0].0 == host { self.most[1].1 } else { self.most[0].1 })
    }

    /// A host sends out for the first time in its window.
    fn sends(&mut self, sender: u64, now: u64) {
        if self.since_ns == 0 {
            self.since_ns = now.max(1);
        }
        self.senders.insert(sender);
    }

    /// Learns what a host has sent in its window so far.
    #[inline]
    fn learn(&mut self, host: Ip, bytes: u64) {
        // Neither of the two sent less.
        if bytes <= self.most[1].1 {
            return;
        }
        if let Some(known) = self.most.iter_mut().find(|(known, _)| *known == host) {
            known.1 = known.1.max(bytes);
        } else if bytes > self.most[1].1 {
            self.most[1] = (host, bytes);
        } else {
            return;
        }
        self.sort();
    }

    /// Forgets what a host has sent.
    fn accuse(&mut self, host: Ip) {
        self.most.iter_mut().filter(|(known, _)| *known == host).for_each(|known| known.1 = 0);
        self.sort();
    }

    fn sort(&mut self) {
        if self.most[1].1 > self.most[0].1 {
            self.most.swap(0, 1);
        }
    }
}

/// Bytes of a flow that interim records told already: sent and received.
pub type Told = (u64, u64);

impl Volumes {
    /// Takes a flow that ended, or an interim record of one; `told` goes with the flow.
    #[inline]
    pub fn ended(
        &mut self,
        record: &FlowRecord,
        ends: &Ends,
        told: &mut Told,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        if record.sent.bytes == 0 {
            return;
        }
        if !ends.responder_is_group && !ends.responder_is_private {
            out(record, ends, told, now, hosts, &mut self.site, alerts);
        }
        if record.protocol == protocol::TCP && is_admin(record.responder_port) {
            let answered = matches!(
                record.state,
                ConnState::S1
                    | ConnState::S2
                    | ConnState::S3
                    | ConnState::Sf
                    | ConnState::RstO
                    | ConnState::RstR
            );
            if answered {
                self.administered(record, now, hosts, alerts);
            }
        }
    }

    /// Takes a connection that was answered a while ago and goes on: who goes from host to host leaves them open behind him, and the first ends
    /// last.
    pub fn goes_on(&mut self, record: &FlowRecord, now: u64, hosts: &mut Hosts, alerts: &mut Alerts) {
        if is_admin(record.responder_port) && record.sent.bytes > 0 && record.received.bytes > 0 {
            self.administered(record, now, hosts, alerts);
        }
    }

    /// Takes a connection to administer a host, which was answered.
    #[inline(never)]
    fn administered(&mut self, record: &FlowRecord, now: u64, hosts: &mut Hosts, alerts: &mut Alerts) {
        let (originator, responder, port) = (record.originator, record.responder, record.responder_port);
        if !originator.is_private() || !responder.is_private() || originator == responder {
            return;
        }
        let mut known = true;
        self.edges.entry((originator, responder, port), || known = false);
        let host = hosts.entry(originator, Host::default);
        // Since it asked for anything, or sent something out.
        let since_ns = match host.habits.since_ns() {
            0 => host.volume.seen_since(now),
            since_ns => since_ns.min(host.volume.seen_since(now)),
        };
        // Half an hour of the host is what "never before" rests on.
        if known || now.saturating_sub(since_ns) < u64::from(WINDOWS_MIN) * WINDOW_NS {
            return;
        }
        let new = || Administrator {
            new_hosts: Distinct::default(),
            range: Range::at(record.packets.0, record.start_ns),
            since: now,
        };
        // What a host does that was itself reached like that of late is done by who reached it.
        let way = self.reached.find(&originator).filter(|way| now.saturating_sub(way.at_ns) <= 2 * WINDOW_NS);
        let (first, hops) = way.map_or((originator, 1), |way| (way.first, way.hops + 1));
        if responder != first {
            let way = Reached { first, hops, at_ns: now };
            *self.reached.entry(responder, || way) = way;
        }
        let host = self.administrators.entry(first, new);
        if now.saturating_sub(host.since) > 2 * WINDOW_NS {
            *host = new();
        }
        host.new_hosts.insert(hash_of(&responder));
        host.range.cover(record.packets.0, record.start_ns);
        host.range.cover(record.packets.1, record.last_ns);
        let count = host.new_hosts.count();
        let is_way = hops >= HOPS_MIN;
        let times = (f64::from(count) / f64::from(NEW_HOSTS_MIN)).max(f64::from(hops) / f64::from(HOPS_MIN));
        let probability = alerts.weigh(Measure::Administered, furthest(hosts, first), times);
        if count >= NEW_HOSTS_MIN || is_way {
            let (severity, method) = match count >= NEW_HOSTS_MIN {
                true => (Severity::High, "new edges"),
                false => (Severity::Medium, "hops"),
            };
            alerts.raise(
                Alert::new(Kind::LateralMovement, first, host.range, now)
                    .against(responder, Some(port))
                    .rated(severity, probability, method)
                    .because("hosts administered for the first time in 10 min", count, 1.0)
                    .because("hosts one behind the other", hops, HOPS_MIN - 1)
                    .because(
                        "minutes of history",
                        now.saturating_sub(since_ns) as f64 / (60 * SECOND) as f64,
                        30.0,
                    ),
            );
        }
    }

    /// A host opens a share that only administrators may, on another inside. No history is needed to call several of them odd.
    pub fn shared(
        &mut self,
        record: &FlowRecord,
        (number, now): (u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let (originator, responder) = (record.originator, record.responder);
        if !originator.is_private() || !responder.is_private() || originator == responder {
            return;
        }
        let new = || Administrator {
            new_hosts: Distinct::default(),
            range: Range::at(record.packets.0, record.start_ns),
            since: now,
        };
        let host = self.shares.entry(originator, new);
        if now.saturating_sub(host.since) > 2 * WINDOW_NS {
            *host = new();
        }
        host.range.cover(number, now);
        if !host.new_hosts.insert(hash_of(&responder)) {
            return;
        }
        let count = host.new_hosts.count();
        let times = f64::from(count) / f64::from(SHARES_MIN);
        let probability = alerts.weigh(Measure::Administered, furthest(hosts, originator), times);
        if count >= SHARES_MIN {
            alerts.raise(
                Alert::new(Kind::LateralMovement, originator, host.range, now)
                    .against(responder, Some(record.responder_port))
                    .rated(Severity::High, probability, "administrative shares")
                    .because(
                        "hosts whose administrative shares were asked for in 10 min",
                        count,
                        SHARES_MIN - 1,
                    ),
            );
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.administrators.bytes(|host| host.new_hosts.owned_bytes())
            + self.reached.bytes(|_| 0)
            + self.shares.bytes(|host| host.new_hosts.owned_bytes())
            + self.edges.bytes(|_| 0)
            + self.site.senders.owned_bytes()
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.administrators.dropped() + self.reached.dropped() + self.shares.dropped() + self.edges.dropped()
    }
}

impl Volume {
    /// Reads its lines; changes nothing, and what comes back means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.main.0 as u64
    }

    /// When the host was first seen, which may be now.
    fn seen_since(&mut self, now: u64) -> u64 {
        if self.since_ns == 0 {
            (self.since_ns, self.window) = (now.max(1), now / WINDOW_NS);
        }
        self.since_ns
    }
}

/// Takes what went to one address outside.
#[inline]
fn out(
    record: &FlowRecord,
    ends: &Ends,
    told: &mut Told,
    now: u64,
    hosts: &mut Hosts,
    site: &mut Site,
    alerts: &mut Alerts,
) {
    let bytes = record.sent.bytes.saturating_sub(told.0);
    let back = record.received.bytes.saturating_sub(told.1);
    *told = (record.sent.bytes, record.received.bytes);
    let Host { volume: host, furthest, .. } =
        hosts.entry_at(ends.originator_at, record.originator, Default::default);
    host.seen_since(now);
    let window = now / WINDOW_NS;
    // Logs are in order of ends, more or less: what belongs to an older window counts in this one.
    if window > host.window {
        host.largest = host.largest.max(host.all_bytes);
        host.windows = host.windows.saturating_add(1);
        (host.window, host.main, host.main_bytes, host.all_bytes) = (window, Ip::default(), 0, 0);
        host.in_window = false;
    }
    let inside = record.originator.is_private();
    if !host.in_window {
        (host.in_window, host.range) = (true, Range::at(record.packets.0, record.start_ns));
        if inside {
            site.sends(ends.originator, now);
        }
    }
    host.range.cover(record.packets.0, record.start_ns);
    host.range.cover(record.packets.1, record.last_ns);
    host.all_bytes = host.all_bytes.saturating_add(bytes);
    // Services that take files have several addresses side by side, and clients use them by turns.
    if host.main.is_beside(record.responder) || host.main_bytes == 0 {
        host.main = record.responder;
        host.main_bytes = host.main_bytes.saturating_add(bytes);
    } else if host.main_bytes >= bytes {
        host.main_bytes -= bytes;
    } else {
        host.main_bytes = bytes - host.main_bytes;
        host.main = record.responder;
    }
    let accused = host.main_bytes >= BYTES_MIN
        && if host.windows >= WINDOWS_MIN {
            unlike_before(record, (&*host, furthest), (bytes, back), now, alerts)
        } else {
            site.fade(now);
            inside && unlike_site(record, (&*host, furthest), (bytes, back), now, site, alerts)
        };
    if !inside {
        return;
    }
    site.fade(now);
    // What an accused host sends is no measure for others.
    if accused {
        site.accuse(record.originator);
    } else {
        site.learn(record.originator, host.main_bytes);
    }
}

/// Far more than the host ever sent before. Whether that is told now, or of late.
#[inline(never)]
fn unlike_before(
    record: &FlowRecord,
    (host, furthest): (&Volume, &mut Furthest),
    (bytes, back): (u64, u64),
    now: u64,
    alerts: &mut Alerts,
) -> bool {
    let usual = host.largest.max(1_000_000) as f64;
    let times = host.main_bytes as f64 / usual;
    let goes_out = bytes > back.saturating_mul(4);
    if times < TIMES_MIN || !goes_out {
        if goes_out {
            alerts.note(Measure::Volume, furthest, times / TIMES_MIN);
        }
        return alerts.is_on(Kind::DataExfiltration, record.originator, now);
    }
    let probability = alerts.weigh(Measure::Volume, furthest, times / TIMES_MIN);
    alerts.raise(
        Alert::new(Kind::DataExfiltration, record.originator, host.range, now)
            .against(host.main, Some(record.responder_port))
            .rated(Severity::High, probability, "volume")
            .because("bytes out to one network in 5 min", host.main_bytes as f64, usual)
            .because("times the largest window before", times, 1.0)
            .because("windows of history", host.windows, WINDOWS_MIN),
    );
    true
}

/// Far more than any other host of the site sends to one address, by a host without a history of its own. Whether that is told now, or of late.
#[inline(never)]
fn unlike_site(
    record: &FlowRecord,
    (host, furthest): (&Volume, &mut Furthest),
    (bytes, back): (u64, u64),
    now: u64,
    site: &Site,
    alerts: &mut Alerts,
) -> bool {
    let on = |alerts: &Alerts| alerts.is_on(Kind::DataExfiltration, record.originator, now);
    let Some(others) = site.others(record.originator, now) else { return on(alerts) };
    // Who sends seldom needs long for a history of windows. Half an hour after it was first seen what it sent before counts all the same:
    // the same copy again is a habit of its own.
    let is_old = now.saturating_sub(host.since_ns) >= u64::from(WINDOWS_MIN) * WINDOW_NS;
    let own = if is_old { host.largest as f64 * (TIMES_MIN / SITE_TIMES_MIN) } else { 0.0 };
    let usual = own.max(others.max(1_000_000) as f64);
    let times = host.main_bytes as f64 / usual;
    let goes_out = bytes > back.saturating_mul(SITE_BACK_MIN);
    if times < SITE_TIMES_MIN || !goes_out {
        if goes_out {
            alerts.note(Measure::Volume, furthest, times / SITE_TIMES_MIN);
        }
        return on(alerts);
    }
    let probability = alerts.weigh(Measure::Volume, furthest, times / SITE_TIMES_MIN);
    alerts.raise(
        Alert::new(Kind::DataExfiltration, record.originator, host.range, now)
            .against(host.main, Some(record.responder_port))
            .rated(Severity::Medium, probability, "volume, against the site")
            .because("bytes out to one network in 5 min", host.main_bytes as f64, usual)
            .because("times the most of any other host", times, 1.0)
            .because("hosts that send out", site.senders.count(), SITE_HOSTS_MIN),
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half after a day, next to nothing after two weeks, and the same however often it is asked in between.
    #[test]
    fn what_a_site_sent_most_fades() {
        let (day, host) = (86_400 * SECOND, Ip::v4([10, 0, 0, 1]));
        let start = 1_700_000_000 * SECOND / FADE_NS * FADE_NS;
        let most = |asked: &[u64]| {
            let mut site = Site::default();
            site.fade(start);
            site.learn(host, 10_000_000_000);
            site.learn(Ip::v4([10, 0, 0, 2]), 9_999_999_000);
            asked.iter().for_each(|&after| site.fade(start + after));
            site.most[0].1
        };
        assert_eq!(most(&[FADE_NS - 1]), 10_000_000_000);
        assert!((4_900_000_000..5_000_000_000).contains(&most(&[day])));
        assert!(most(&[7 * day]) < 100_000_000);
        let often: Vec<u64> = (0..=7 * 86_400 / 600).map(|n| n * 600 * SECOND).collect();
        assert_eq!(most(&often), most(&[7 * day]));
        // A clock that steps back lets nothing fade, and an absurd one ends.
        assert_eq!(most(&[day, 0]), most(&[day]));
        assert_eq!(most(&[u64::MAX - start]), 0);
    }
}
