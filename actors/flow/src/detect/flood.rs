//! Floods: masses of half-open connections, UDP, pings or unasked-for answers to one host, and connections held open with nothing.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Ends, Hosts, furthest};
use crate::address::Ip;
use crate::hash::{Line, Place, Recent, hash_of};
use crate::packet::{Packet, protocol};
use crate::record::FlowRecord;
use crate::sketch::Distinct;
use crate::table::SECOND;

/// Window of every rate here.
pub const WINDOW_NS: u64 = 10 * SECOND;
/// Connections asked of one service within the window and not completed. Retries of a page's dozens of connections stay under it.
pub const HALF_OPEN_MIN: u64 = 150;
/// UDP packets one way over many ports or from many sources, and how many a second they must be.
pub const UDP_WIDE: (u64, u64) = (1_000, 500);
/// The same within one flow: films of the highest quality send half as many.
pub const UDP_NARROW: (u64, u64) = (3_000, 5_000);
/// Pings, and how many a second: `ping -f` sends 100 and more, anything else one.
pub const PINGS: (u64, u64) = (200, 50);
/// Large answers within the window that nobody asked for.
pub const ANSWERS_MIN: u64 = 50;
/// What is large for an answer: the size of NTP's worst, and more than plain DNS ever answered with before EDNS.
pub const LARGE_BYTES: u32 = 468;
/// Stalled connections of one client to one service: browsers hold six open, and say something on them.
pub const STALLED_MIN: u32 = 50;
/// Of all such connections to a service so many come from one client, on average: each of many clients may have a slow one.
pub const HELD_EACH_MIN: u64 = 8;
/// Within so long such connections are counted together: servers end what is slow after a minute or a few, and clients begin again.
pub const HELD_NS: u64 = 300 * SECOND;
/// Services with such connections.
const HELD_MAX: usize = 1 << 12;
const TRACKED_MAX: usize = 1 << 14;

/// The same of discovery of devices by an address outside: on a link its answers are ordinary, and each is short.
pub const DISCOVERY_BYTES: u32 = 200;
/// Requests for pages of one client to one service within the window: a page with all that is on it takes a tenth of them once.
pub const REQUESTS_MIN: u32 = 2_000;

/// Ports whose services answer with much more than they are asked (US-CERT TA14-017A).
const AMPLIFIERS: [u16; 18] =
    [17, 19, 53, 69, 111, 123, 137, 161, 389, 427, 1434, 1900, 3283, 3702, 5353, 5683, 11_211, 37_810];
/// Discovery of devices.
const DISCOVERY: u16 = 1900;

/// A UDP packet as floods count it.
#[derive(Debug, Clone, Copy)]
pub struct Datagram {
    /// Who sent it.
    pub source: Ip,
    /// From which port.
    pub source_port: u16,
    /// To whom.
    pub target: Ip,
    /// To which port.
    pub port: u16,
    /// Bytes of the IP packet.
    pub bytes: u32,
    /// Its place in the input.
    pub number: u64,
    /// Now, ns since 1970.
    pub now: u64,
}

/// What a service is known by: the hash of its host, and its port.
#[inline]
pub(super) fn service(responder: u64, port: u16) -> u64 {
    Ends::with(responder, port, 0)
}

/// Counts of one window of time about one target.
#[derive(Debug, Clone)]
#[repr(C)]
struct Rate {
    /// When a connection was not completed last; kept when a window begins.
    half_open_ns: u64,
    start: u64,
    back: u64,
    count: u64,
    bytes: u64,
    range: Range,
    /// Source that most of it comes from, by majority vote (Boyer and Moore), and its lead.
    lead: u64,
    main: Ip,
    sources: Distinct,
    ports: Distinct,
}

impl Rate {
    fn new(number: u64, ts: u64) -> Self {
        Self {
            start: ts,
            count: 0,
            bytes: 0,
            back: 0,
            range: Range::at(number, ts),
            sources: Distinct::default(),
            ports: Distinct::default(),
            half_open_ns: 0,
            main: Ip::default(),
            lead: 0,
        }
    }

    fn at(&mut self, number: u64, ts: u64) {
        if ts.saturating_sub(self.start) > WINDOW_NS {
            *self = Self { half_open_ns: self.half_open_ns, ..Self::new(number, ts) };
        }
    }

    fn take(&mut self, source: Ip, port: u16, bytes: u32, number: u64, ts: u64) {
        self.count += 1;
        self.bytes += u64::from(bytes);
        self.range.cover(number, ts);
        self.sources.insert(hash_of(&source));
        self.ports.insert(hash_of(&port));
        if self.lead == 0 {
            self.main = source;
        }
        if self.main == source {
            self.lead += 1;
        } else {
            self.lead -= 1;
        }
    }

    /// Whether there are so many, at such a rate.
    fn reaches(&self, (count, per_second): (u64, u64)) -> bool {
        let ns = u128::from(self.range.last_ns - self.range.first_ns);
        self.count >= count && u128::from(self.count) * u128::from(SECOND) >= ns * u128::from(per_second)
    }

    /// The source of most of it, or the victim where there is none.
    fn accuse(&self, kind: Kind, victim: Ip, now: u64) -> Alert {
        let spoofed = self.lead * 4 < self.count && self.sources.count() > 3;
        let source = if spoofed { victim } else { self.main };
        let mut alert = Alert::new(kind, source, self.range, now).against(victim, None);
        alert.spoofed = spoofed;
        alert
    }
}

/// What a client asked of a service lately.
#[derive(Debug, Clone, Copy)]
struct Asked {
    questions: u64,
    bytes: u64,
    since: u64,
    last: u64,
    repeats: u64,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Floods {
    syn: Recent<(Ip, u16), Rate, Line>,
    udp: Recent<Ip, Rate>,
    ping: Recent<Ip, Rate>,
    answers: Recent<Ip, Rate>,
    asked: Recent<(Ip, Ip, u16), Asked>,
    stalled: Recent<(Ip, Ip, u16), (u32, Range)>,
    requested: Recent<(Ip, Ip, u16), (u32, Range)>,
    /// Connections on which clients say next to nothing, slowly.
    held: Recent<(Ip, u16), Rate>,
}

impl Default for Floods {
    fn default() -> Self {
        Self {
            syn: Recent::in_lines(TRACKED_MAX),
            udp: Recent::new(TRACKED_MAX),
            ping: Recent::new(TRACKED_MAX),
            answers: Recent::new(TRACKED_MAX),
            asked: Recent::new(TRACKED_MAX),
            stalled: Recent::new(TRACKED_MAX),
            requested: Recent::new(TRACKED_MAX),
            held: Recent::new(HELD_MAX),
        }
    }
}

impl Floods {
    /// A connection was asked for: completed, or `half_open`, for whatever reason. `at` is where its service probably is.
    #[inline]
    pub fn connection(
        &mut self,
        record: &FlowRecord,
        at: Place,
        half_open: bool,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        if half_open {
            return self.not_completed(record, at.hash(), now, hosts, alerts);
        }
        // Completed ones count beside those that are not, of late; most services have none.
        let Some(rate) = self.syn.find_at(at, &(record.responder, record.responder_port)) else {
            return;
        };
        if now.saturating_sub(rate.half_open_ns) <= WINDOW_NS {
            rate.at(record.packets.0, now);
            rate.back += 1;
        }
    }

    /// Finds where the connections to a service are that were not completed.
    #[inline]
    pub(super) fn find_place(&self, place: &mut Place) {
        self.syn.find_place(place);
    }

    /// Reads ahead what one that is completed will need.
    #[inline]
    pub(super) fn warm(&self, place: Place) -> u64 {
        self.syn.warm(place, |rate| rate.half_open_ns)
    }

    #[inline(never)]
    fn not_completed(
        &mut self,
        record: &FlowRecord,
        service: u32,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let FlowRecord { originator: source, responder: target, responder_port: port, .. } = *record;
        let (number, ts, key) = (record.packets.0, now, (target, port));
        let rate = self.syn.entry_hashed(service, key, || Rate::new(number, ts));
        rate.at(number, ts);
        rate.half_open_ns = ts;
        rate.take(source, port, 0, number, ts);
        // Nine of ten fail: a service that is merely busy completes more.
        if rate.back * 9 > rate.count {
            return;
        }
        let times = rate.count as f64 / HALF_OPEN_MIN as f64;
        if rate.count.is_multiple_of(HALF_OPEN_MIN) {
            let probability = alerts.weigh(Measure::HalfOpen, furthest(hosts, target), times);
            let mut alert = rate.accuse(Kind::SynFlood, target, now);
            alert.port = Some(port);
            alerts.raise(
                alert
                    .rated(Severity::High, probability, "syn")
                    .because("connections not completed in 10 s", rate.count as f64, HALF_OPEN_MIN as f64)
                    .because("connections completed", rate.back as f64, rate.count as f64)
                    .because("sources", rate.sources.count(), 1.0),
            );
        } else if steps(rate.count - 1, rate.count, HALF_OPEN_MIN) {
            alerts.note(Measure::HalfOpen, furthest(hosts, target), times);
        }
    }

    /// Takes a packet of ICMP: a question, or an answer that was `unasked` for.
    pub fn echo(&mut self, packet: &Packet<'_>, unasked: bool, hosts: &mut Hosts, alerts: &mut Alerts) {
        let counts = match (packet.protocol, packet.source_port) {
            (protocol::ICMP, 8 | 13 | 15 | 17) | (protocol::ICMP6, 128) => true,
            (protocol::ICMP, 0 | 14) | (protocol::ICMP6, 129) => unasked,
            _ => false,
        };
        if !counts || packet.target.is_group() {
            return;
        }
        let rate = self.ping.entry(packet.target, || Rate::new(packet.number, packet.ts));
        rate.at(packet.number, packet.ts);
        rate.take(packet.source, 0, packet.ip_bytes, packet.number, packet.ts);
        let is_due = rate.count.is_multiple_of(PINGS.0);
        if (is_due || steps(rate.count - 1, rate.count, PINGS.0)) && rate.reaches((1, PINGS.1)) {
            let times = rate.count as f64 / PINGS.0 as f64;
            let probability = alerts.weigh(Measure::Pings, furthest(hosts, packet.target), times);
            if !is_due {
                return;
            }
            alerts.raise(
                rate.accuse(Kind::IcmpFlood, packet.target, packet.ts)
                    .rated(Severity::High, probability, if unasked { "echo replies" } else { "echo" })
                    .because("pings within 10 s", rate.count as f64, 10.0)
                    .because("bytes", rate.bytes as f64, 840.0)
                    .because("sources", rate.sources.count(), 1.0),
            );
        }
    }

    /// A UDP packet that nothing came back for, or one whose flow has packets both ways. One way, and either over many ports or
    /// sources, or so fast that no call or film is.
    pub fn datagram(&mut self, datagram: &Datagram, answered: bool, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Datagram { source, source_port, target, port, bytes, number, now } = *datagram;
        if target.is_group() {
            return;
        }
        let rate = self.udp.entry(target, || Rate::new(number, now));
        rate.at(number, now);
        if answered {
            rate.back += 1;
            return;
        }
        // A flood that takes a new port for each packet is as wide as one that aims at a new port each time.
        rate.take(source, port ^ source_port.rotate_left(8), bytes, number, now);
        let wide = rate.ports.count() >= 100 || rate.sources.count() >= 100;
        let least = if wide { UDP_WIDE } else { UDP_NARROW };
        let is_due = rate.count.is_multiple_of(UDP_WIDE.0) && rate.count >= least.0;
        if (is_due || steps(rate.count - 1, rate.count, least.0))
            && rate.reaches((1, least.1))
            && rate.back * 9 <= rate.count
        {
            let times = rate.count as f64 / least.0 as f64;
            let probability = alerts.weigh(Measure::OneWay, furthest(hosts, target), times);
            if !is_due {
                return;
            }
            alerts.raise(
                rate.accuse(Kind::UdpFlood, target, now)
                    .rated(Severity::High, probability, "udp")
                    .because("packets within 10 s, one way", rate.count as f64, least.0 as f64)
                    .because("pairs of ports", rate.ports.count(), 1.0)
                    .because("sources", rate.sources.count(), 1.0)
                    .because("bytes", rate.bytes as f64, 0.0),
            );
        }
    }

    /// Answers from services known to be abused: to somebody who did not ask, or, where the questions are seen, ten times larger than
    /// they are and all the same host's.
    pub fn answer(&mut self, packet: &Packet<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
        let (from, to) = (AMPLIFIERS.contains(&packet.source_port), AMPLIFIERS.contains(&packet.target_port));
        if to && !from {
            // A question to a group may be answered by anybody.
            let target = if packet.target.is_group() { Ip::default() } else { packet.target };
            let key = (packet.source, target, packet.target_port);
            let new = Asked { questions: 0, bytes: 0, since: packet.ts, last: 0, repeats: 0 };
            let asked = self.asked.entry(key, || new);
            if packet.ts.saturating_sub(asked.since) > WINDOW_NS {
                *asked = new;
            }
            asked.questions += 1;
            asked.bytes += u64::from(packet.ip_bytes);
            // The first two bytes of a DNS message are its number.
            let question = hash_of(packet.payload.get(2..).unwrap_or_default());
            asked.repeats += u64::from(question == asked.last);
            asked.last = question;
            return;
        }
        if !from || packet.target.is_group() {
            return;
        }
        let recent = |asked: &&mut Asked| packet.ts.saturating_sub(asked.since) <= 2 * WINDOW_NS;
        if self.asked.find(&(packet.target, Ip::default(), packet.source_port)).filter(recent).is_some() {
            return;
        }
        let asked = self.asked.find(&(packet.target, packet.source, packet.source_port)).filter(recent);
        let (questions, asked_bytes, repeats) =
            asked.map_or((0, 0, 0), |asked| (asked.questions, asked.bytes, asked.repeats));
        let rate = self.answers.entry(packet.target, || Rate::new(packet.number, packet.ts));
        rate.at(packet.number, packet.ts);
        // Ordinary clients get one answer per question, most answers are short, and nobody asks the same over and over.
        let tenfold = u64::from(packet.ip_bytes) * questions > 10 * asked_bytes && repeats * 2 >= questions;
        let searched = packet.source_port == DISCOVERY && !packet.source.is_private();
        let large = if searched { DISCOVERY_BYTES } else { LARGE_BYTES };
        if packet.ip_bytes < large || (questions > 0 && !tenfold) {
            rate.back += 1;
            return;
        }
        rate.take(packet.source, packet.source_port, packet.ip_bytes, packet.number, packet.ts);
        let is_due = rate.count.is_multiple_of(ANSWERS_MIN);
        if (is_due || steps(rate.count - 1, rate.count, ANSWERS_MIN)) && rate.back * 4 <= rate.count {
            let times = rate.count as f64 / ANSWERS_MIN as f64;
            let probability = alerts.weigh(Measure::Answers, furthest(hosts, packet.target), times);
            if !is_due {
                return;
            }
            let factor =
                rate.bytes as f64 / rate.count as f64 * questions.max(1) as f64 / asked_bytes.max(60) as f64;
            alerts.raise(
                rate.accuse(Kind::Amplification, packet.target, packet.ts)
                    .rated(Severity::High, probability, "udp")
                    .because("large answers in 10 s", rate.count as f64, ANSWERS_MIN as f64)
                    .because("bytes answered per byte asked", factor, 10.0)
                    .because("reflectors", rate.sources.count(), 1.0),
            );
        }
    }

    /// A connection of `source` was answered a while ago and stands still: the client said something short, or nothing, the server
    /// nothing.
    pub fn stalled(&mut self, asked: &Datagram, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Datagram { source, target, port, number, now, .. } = *asked;
        let ts = now;
        let (count, range) = self.stalled.entry((source, target, port), || (0, Range::at(number, ts)));
        if now.saturating_sub(range.last_ns) > 60 * SECOND {
            (*count, *range) = (0, Range::at(number, ts));
        }
        *count += 1;
        range.cover(number, ts);
        let times = f64::from(*count) / f64::from(STALLED_MIN);
        if *count >= STALLED_MIN {
            let probability = alerts.weigh(Measure::HeldOpen, furthest(hosts, source), times);
            alerts.raise(
                Alert::new(Kind::SlowDos, source, *range, now)
                    .against(target, Some(port))
                    .rated(Severity::High, probability, "held open")
                    .because("connections held open with unfinished requests", *count, 6.0),
            );
        } else if steps(u64::from(*count) - 1, (*count).into(), STALLED_MIN.into()) {
            alerts.note(Measure::HeldOpen, furthest(hosts, source), times);
        }
    }

    /// A client says next to nothing on a connection that is encrypted, piece by piece, and the server waits.
    pub fn trickled(&mut self, asked: &Datagram, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Datagram { source, source_port, target, port, number, now, .. } = *asked;
        let new = || Rate::new(number, now);
        let rate = self.held.entry((target, port), new);
        if now.saturating_sub(rate.start) > HELD_NS {
            *rate = new();
        }
        rate.take(source, source_port, 0, number, now);
        let few = u64::from(rate.sources.count()) * HELD_EACH_MIN <= rate.count;
        let least = u64::from(STALLED_MIN);
        if !few || !steps(rate.count - 1, rate.count, least) && !rate.count.is_multiple_of(least) {
            return;
        }
        let alert = rate.accuse(Kind::SlowDos, target, now);
        let times = rate.count as f64 / least as f64;
        if rate.count < least {
            return alerts.note(Measure::HeldOpen, furthest(hosts, alert.source), times);
        }
        let probability = alerts.weigh(Measure::HeldOpen, furthest(hosts, alert.source), times);
        let mut alert = alert
            .rated(Severity::High, probability, "held open in TLS")
            .because("connections on which clients trickle", rate.count as f64, 6.0)
            .because("clients", rate.sources.count(), rate.count as f64 / HELD_EACH_MIN as f64);
        alert.port = Some(port);
        alerts.raise(alert);
    }

    /// A client asks a service for a page.
    pub fn requested(&mut self, asked: &Datagram, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Datagram { source, target, port, number, now, .. } = *asked;
        let new = || (0, Range::at(number, now));
        let entry = self.requested.entry((source, target, port), new);
        if now.saturating_sub(entry.1.first_ns) > WINDOW_NS {
            *entry = new();
        }
        let (count, range) = entry;
        *count += 1;
        range.cover(number, now);
        let times = f64::from(*count) / f64::from(REQUESTS_MIN);
        if count.is_multiple_of(REQUESTS_MIN) {
            let probability = alerts.weigh(Measure::HeldOpen, furthest(hosts, source), times);
            alerts.raise(
                Alert::new(Kind::HttpFlood, source, *range, now)
                    .against(target, Some(port))
                    .rated(Severity::Medium, probability, "requests")
                    .because("requests within 10 s", *count, REQUESTS_MIN - 1),
            );
        } else if steps(u64::from(*count) - 1, (*count).into(), REQUESTS_MIN.into()) {
            alerts.note(Measure::HeldOpen, furthest(hosts, source), times);
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let rate = |rate: &Rate| rate.sources.owned_bytes() + rate.ports.owned_bytes();
        self.syn.bytes(rate)
            + self.udp.bytes(rate)
            + self.ping.bytes(rate)
            + self.answers.bytes(rate)
            + self.asked.bytes(|_| 0)
            + self.stalled.bytes(|_| 0)
            + self.requested.bytes(|_| 0)
            + self.held.bytes(rate)
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.syn.dropped()
            + self.udp.dropped()
            + self.ping.dropped()
            + self.answers.dropped()
            + self.asked.dropped()
            + self.stalled.dropped()
            + self.requested.dropped()
            + self.held.dropped()
    }
}
