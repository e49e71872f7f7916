//! Floods by many clients of which none is loud: a service is asked by far more clients from outside, and far more often, than it ever was.
//!
//! What is counted are connections that were answered, requests in clear (HTTP/1) and flows of UDP that were answered, by the minute of the
//! input's time. Clients inside are left out: people begin to work, or to meet, all at once. A service is judged by its own history, of
//! half an hour at least; before that it is still learning. History is what settled: minutes that are five minutes old, so that what
//! begins now is no history of itself; and it grows by a twentieth a minute at most, so that a flood is no habit before long and a morning is.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::Measure;
use super::host::{Hosts, furthest};
use crate::address::Ip;
use crate::hash::Recent;
use crate::packet::protocol;
use crate::record::FlowRecord;
use crate::sketch::Distinct;
use crate::table::SECOND;

/// What is counted together.
pub const WINDOW_NS: u64 = 60 * SECOND;
/// Clients within a window. A small shop has a tenth of them on a good day, and thresholds below that of chance say nothing.
pub const CLIENTS_MIN: u64 = 256;
/// Connections and requests within a window.
pub const REQUESTS_MIN: u64 = 512;
/// How far above the most of its history a service is asked, in both. Visitors of a morning, a letter to customers, or a talk that is
/// linked to bring several times as many within five minutes.
pub const TIMES_MIN: u64 = 8;
/// How long a service must have been seen before anything can be said to be unlike it.
pub const HISTORY_NS: u64 = 1_800 * SECOND;
/// Windows that must have passed before one is history.
const SETTLED: usize = 5;
/// What every service is taken to have had: so few are not looked at more closely.
const LIGHT: u64 = 32;
/// Services with a history; the busiest come often and stay.
const BUSY_MAX: usize = 1 << 12;
/// Services of which it is remembered when they were first asked.
const KNOWN_MAX: usize = 1 << 14;
/// Counts of a window, by hash of the service. Services that share one are looked at earlier, no more.
const SLOTS: usize = 1 << 14;
/// History halves in 1,420 windows, which is a day: yesterday's noon is not forgotten by today's.
const FADE_SHIFT: u32 = 11;
/// Windows without anything that fade one by one; after so many nothing is left of any history.
const FADED_MAX: u64 = 1 << 15;

/// Clients, and how often they asked.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    clients: u64,
    requests: u64,
}

/// A service that is asked by more than a few.
#[derive(Debug, Clone)]
struct Crowd {
    since_ns: u64,
    /// The window that is counted: minutes since 1970.
    window: u64,
    requests: u64,
    clients: Distinct,
    range: Range,
    /// Requests at which the next alert of this window is due.
    due: u64,
    /// Windows before that one, by their number.
    before: [Count; SETTLED],
    /// The most of what settled, in 1,024ths, fading.
    most: Count,
}

impl Crowd {
    fn new(since_ns: u64, window: u64, range: Range) -> Self {
        let light = LIGHT << 10;
        Self {
            since_ns,
            window,
            requests: 0,
            clients: Distinct::default(),
            range,
            due: 0,
            before: [Count::default(); SETTLED],
            most: Count { clients: light, requests: light },
        }
    }

    /// Ends its window and begins that of now.
    #[cold]
    fn turn(&mut self, window: u64, range: Range) {
        let mut ended = Count { clients: u64::from(self.clients.count()), requests: self.requests };
        let passed = window - self.window;
        for step in 0..passed.min(SETTLED as u64 + 1) {
            let at = self.window + step;
            let settled = std::mem::replace(&mut self.before[(at % SETTLED as u64) as usize], ended);
            self.learn(settled, at.saturating_sub(SETTLED as u64));
            ended = Count::default();
        }
        // Longer gaps leave nothing behind but time.
        for _ in SETTLED as u64 + 1..passed.min(FADED_MAX) {
            self.learn(Count::default(), u64::MAX);
        }
        (self.window, self.requests, self.due, self.range) = (window, 0, 0, range);
        self.clients = Distinct::default();
    }

    /// A window has settled.
    fn learn(&mut self, settled: Count, window: u64) {
        let is_learning = window < (self.since_ns + HISTORY_NS) / WINDOW_NS;
        let learn = |most: &mut u64, settled: u64| {
            let grown = if is_learning { u64::MAX } else { *most + *most / 20 };
            *most = (*most - (*most >> FADE_SHIFT)).max((settled << 10).min(grown)).max(LIGHT << 10);
        };
        learn(&mut self.most.clients, settled.clients);
        learn(&mut self.most.requests, settled.requests);
    }
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Crowds {
    /// How often services were asked in this window: most never get further.
    counts: Box<[u16]>,
    window: u64,
    /// When services were first asked, by their hash.
    known: Recent<u64, u64>,
    busy: Recent<(Ip, u16, u8), Crowd>,
}

impl Default for Crowds {
    fn default() -> Self {
        Self {
            counts: vec![0; SLOTS].into(),
            window: 0,
            known: Recent::new(KNOWN_MAX),
            busy: Recent::new(BUSY_MAX),
        }
    }
}

impl Crowds {
    /// A service was asked, and answered or will: `client` and `service` are hashes of the originator and of the service with its
    /// protocol.
    #[inline]
    pub fn asked(
        &mut self,
        record: &FlowRecord,
        (client, service): (u64, u64),
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let window = now / WINDOW_NS;
        if window > self.window {
            self.window = window;
            self.counts.fill(0);
        }
        let count = &mut self.counts[(service >> 32) as usize & (SLOTS - 1)];
        *count = count.saturating_add(1);
        if *count == 1 {
            self.known.entry(service, || now);
        } else if u64::from(*count) > LIGHT {
            self.crowded(record, (client, service), now, hosts, alerts);
        }
    }

    #[inline(never)]
    fn crowded(
        &mut self,
        record: &FlowRecord,
        (client, service): (u64, u64),
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let FlowRecord { responder, responder_port: port, protocol, .. } = *record;
        let range = Range::at(record.packets.0, now);
        let known = &mut self.known;
        let window = self.window;
        let crowd = self
            .busy
            .entry((responder, port, protocol), || Crowd::new(*known.entry(service, || now), window, range));
        if window > crowd.window {
            crowd.turn(window, range);
        }
        crowd.clients.insert(client);
        crowd.requests += 1;
        crowd.range.cover(range.first, range.first_ns);
        if crowd.requests < crowd.due || !crowd.requests.is_multiple_of(64) {
            return;
        }
        if now.saturating_sub(crowd.since_ns) < HISTORY_NS {
            return;
        }
        let clients = u64::from(crowd.clients.settled());
        let usual = Count { clients: crowd.most.clients >> 10, requests: crowd.most.requests >> 10 };
        let of = |seen: u64, usual: u64, least: u64| seen as f64 / least.max(usual * TIMES_MIN) as f64;
        let times =
            of(clients, usual.clients, CLIENTS_MIN).min(of(crowd.requests, usual.requests, REQUESTS_MIN));
        if times < 1.0 {
            return alerts.note(Measure::Crowd, furthest(hosts, responder), times);
        }
        crowd.due = 2 * crowd.requests;
        let probability = alerts.weigh(Measure::Crowd, furthest(hosts, responder), times);
        let (kind, method) = match protocol {
            protocol::UDP => (Kind::UdpFlood, "requests of many clients"),
            _ => (Kind::HttpFlood, "connections of many clients"),
        };
        let minutes = |ns: u64| ns as f64 / (60 * SECOND) as f64;
        let mut alert = Alert::new(kind, responder, crowd.range, now)
            .against(responder, Some(port))
            .rated(Severity::Medium, probability, method)
            .because("clients within a minute", clients as f64, usual.clients as f64)
            .because("connections and requests within a minute", crowd.requests as f64, usual.requests as f64)
            .because("minutes of history", minutes(now - crowd.since_ns), minutes(HISTORY_NS));
        alert.spoofed = true;
        alerts.raise(alert);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.counts)
            + self.known.bytes(|_| 0)
            + self.busy.bytes(|crowd| crowd.clients.owned_bytes())
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.known.dropped() + self.busy.dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of so many clients who ask three times each, one after the other; what is usual after each.
    fn usual(windows: &[u64]) -> Vec<(u64, u64)> {
        let mut crowd = Crowd::new(0, 0, Range::default());
        let learnt = windows.iter().enumerate().map(|(at, &clients)| {
            (0..clients).for_each(|client| {
                crowd.clients.insert(crate::hash::hash_of(&client));
            });
            crowd.requests = 3 * clients;
            crowd.turn(at as u64 + 1, Range::default());
            (crowd.most.clients >> 10, crowd.most.requests >> 10)
        });
        learnt.collect()
    }

    #[test]
    fn history_is_what_settled_and_grows_slowly_once_learnt() {
        // Learnt as it is, five windows late; what is light counts as light.
        let first = usual(&[5, 20, 20, 20, 20, 20, 20, 5, 5, 5, 5, 5, 5, 5]);
        assert!(first[..=5].iter().all(|&(clients, _)| clients == LIGHT), "{first:?}");
        assert!(first.iter().all(|&(clients, _)| clients == LIGHT));
        assert_eq!((first[5].1, first[6].1), (LIGHT, 60));
        // After half an hour by a twentieth a minute: 32 to 1,000 takes over an hour.
        let mut windows = vec![10; 40];
        windows.extend([1_000; 100]);
        let later = usual(&windows);
        assert!(later[45].0 <= 33 && later[70].0 < 130 && later[139].0 > 800, "{later:?}");
        // It fades by half a day, also over a gap, and not below what is light.
        let mut crowd = Crowd::new(0, 0, Range::default());
        crowd.most = Count { clients: 10_000 << 10, requests: 10_000 << 10 };
        crowd.turn(1_440, Range::default());
        assert!((4_800..5_100).contains(&(crowd.most.clients >> 10)), "{:?}", crowd.most);
        crowd.turn(u64::MAX, Range::default());
        assert_eq!(crowd.most.requests >> 10, LIGHT);
    }
}
