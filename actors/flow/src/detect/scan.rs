//! Scans: one host, many ports; one port, many hosts; pings; and one thing failing over and over.
//!
//! What is counted is the outcome of first packets: an ordinary client knows whom it asks and is mostly answered, a scanner
//! guesses and mostly is not (Jung et al. 2004, threshold random walk, from which the ratio comes).

use super::alert::{Alert, Alerts, Kind, Range, Severity, probability};
use super::host::{Ends, Hosts};
use crate::address::Ip;
use crate::hash::{Lately, Place, Recent, hash_of, joined, shorter};
use crate::packet::{protocol, tcp_flag};
use crate::sketch::Distinct;
use crate::table::{Answer, SECOND};

/// Ports of one host that failed. Zeek's long-standing default is 15 in 5 minutes.
pub const PORTS_MIN: u32 = 15;
/// Hosts of one port that failed. Zeek's long-standing default is 25 in 5 minutes; 20 after the ratio below.
pub const HOSTS_MIN: u32 = 20;
/// Hosts per port over everything that failed for a source: file sharing has hardly more than one.
pub const HOSTS_PER_PORT_MIN: f64 = 2.0;
/// Share of the tried hosts that failed, inside a site: between what scanners and ordinary clients have (four fifths, one fifth).
pub const HOSTS_SHARE_MIN: f64 = 0.7;
/// The same for hosts outside: of random addresses one in ten answers at most, of the peers of a network two or three.
pub const OUTSIDE_SHARE_MIN: f64 = 0.85;
/// Who is itself called by so many is a member of a network of peers: for such a host [`PEER_HOSTS_MIN`] and [`PEER_SHARE_MIN`] hold.
pub const CALLERS_MIN: u32 = 10;
/// Hosts of one port that failed for a member of a network of peers.
pub const PEER_HOSTS_MIN: u32 = 100;
/// Share of the tried hosts that failed for a member of a network of peers.
pub const PEER_SHARE_MIN: f64 = 0.95;
/// Ports tried with packets that no system sends by itself (FIN alone, no flag at all, FIN with PSH and URG).
pub const STEALTH_PORTS_MIN: u32 = 5;
/// Pinged hosts that did not answer.
pub const PINGED_MIN: u32 = 20;
/// A scan is over when nothing failed for so long; also the slowest scan seen: one probe per 5 minutes.
pub const SILENCE_NS: u64 = 300 * SECOND;
/// Failures of one service asked by one host.
pub const FAILURES_MIN: u32 = 100;
/// Pairs and ports watched at once.
const TRACKED_MAX: usize = 1 << 15;

/// How a first packet asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    /// SYN.
    Syn,
    /// Flags that no system begins with.
    Stealth,
    /// A bare ACK to a port that was not talked to.
    Ack,
    /// UDP.
    Udp,
    /// Ping and its relatives.
    Ping,
}

impl Probe {
    /// What a first packet is, if it asks anything. Data or FIN with ACK is the middle of a conversation.
    #[must_use]
    pub fn of(number: u8, flags: u8) -> Option<Self> {
        use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
        match number {
            protocol::TCP => match flags & (SYN | ACK | FIN | RST | PSH | URG) {
                f if f & (SYN | ACK | FIN | RST) == SYN => Some(Self::Syn),
                ACK => Some(Self::Ack),
                f if f & (ACK | RST | SYN) == 0 => Some(Self::Stealth),
                f if f & (SYN | FIN) == SYN | FIN => Some(Self::Stealth),
                _ => None,
            },
            protocol::UDP => Some(Self::Udp),
            protocol::ICMP | protocol::ICMP6 => Some(Self::Ping),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Stealth => "fin/null/xmas",
            Self::Ack => "ack",
            Self::Udp => "udp",
            Self::Ping => "ping",
        }
    }
}

/// The outcome of a first packet.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Who asked.
    pub source: Ip,
    /// Port it asked from.
    pub source_port: u16,
    /// Who was asked.
    pub target: Ip,
    /// Port asked for.
    pub port: u16,
    /// How.
    pub probe: Probe,
    /// What came back.
    pub answer: Answer,
    /// Number and time of the packet that asked.
    pub number: u64,
    /// Time of that packet, ns since 1970.
    pub ts: u64,
    /// Now, ns since 1970.
    pub now: u64,
    /// Time to live of that packet; 0 where unknown.
    pub ttl: u8,
    /// Both ends, source first.
    pub ends: Ends,
    /// Where what the source tried on this port probably is.
    pub tried_at: Place,
}

/// What is known of a source's tries by: its hash, port and probe.
#[inline]
pub(super) fn tried(source: u64, port: u16, probe: Probe) -> u64 {
    Ends::with(source, port, probe as u8)
}

#[derive(Debug, Clone)]
struct Tries {
    range: Range,
    seen_ns: u64,
    failed: Distinct,
    answered: Distinct,
    /// Failures and tries, repeats included.
    failures: u32,
    refused: u32,
}

impl Tries {
    fn new(outcome: &Outcome) -> Self {
        Self {
            range: Range::at(outcome.number, outcome.ts),
            seen_ns: outcome.now,
            failed: Distinct::default(),
            answered: Distinct::default(),
            failures: 0,
            refused: 0,
        }
    }

    fn take(&mut self, outcome: &Outcome, what: u64) -> bool {
        if outcome.now.saturating_sub(self.seen_ns) > SILENCE_NS {
            *self = Self::new(outcome);
        }
        if outcome.answer == Answer::Answered {
            self.answered.insert(what);
            return false;
        }
        self.seen_ns = outcome.now;
        self.range.cover(outcome.number, outcome.ts);
        self.failures += 1;
        self.refused += u32::from(outcome.answer == Answer::Refused);
        self.failed.insert(what)
    }

    /// Share of tried ones that failed.
    fn share(&self) -> f64 {
        let (failed, answered) = (f64::from(self.failed.count()), f64::from(self.answered.count()));
        failed / (failed + answered).max(1.0)
    }
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Scans {
    vertical: Recent<(Ip, Ip, Probe), Tries>,
    horizontal: Recent<(Ip, u16, Probe), Tries>,
    /// All hosts and ports that failed for a source: peers of file sharing have ports of their own, a scan has few for many hosts.
    all: Recent<(Ip, Probe), (Distinct, Distinct)>,
    same: Recent<(Ip, Ip, u16), Tries>,
    /// Pairs with a failure of late: answers count beside failures, and most pairs have none.
    failed_lately: Lately,
}

impl Default for Scans {
    fn default() -> Self {
        Self {
            vertical: Recent::new(TRACKED_MAX),
            horizontal: Recent::new(TRACKED_MAX),
            all: Recent::new(TRACKED_MAX),
            same: Recent::new(TRACKED_MAX),
            failed_lately: Lately::default(),
        }
    }
}

impl Scans {
    /// Takes an outcome.
    pub fn take(&mut self, outcome: &Outcome, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { source, target, port, probe, .. } = *outcome;
        if target.is_group() || source.is_group() {
            return;
        }
        if matches!(probe, Probe::Syn | Probe::Udp)
            && (probe == Probe::Udp || outcome.answer == Answer::Answered)
        {
            let host = hosts.entry_at(outcome.ends.responder_at, target, Default::default);
            host.callers.insert(shorter(outcome.ends.originator));
        }
        match probe {
            // Answers of a server whose questions were not seen go from a low port to high ones.
            Probe::Ack if port >= outcome.source_port || outcome.answer == Answer::Answered => return,
            // Traceroute's ports, to hosts further and further away.
            Probe::Udp if (33_434..33_700).contains(&port) && outcome.ttl <= 40 => return,
            _ => {}
        }
        if probe == Probe::Ping {
            self.ping(outcome, alerts);
            return;
        }
        let pair = shorter(joined(joined(outcome.ends.originator, outcome.ends.responder), probe as u64));
        let failed = outcome.answer != Answer::Answered;
        if failed {
            self.failed_lately.note(pair, outcome.now);
        }
        if failed || self.failed_lately.may_be(pair, outcome.now, SILENCE_NS) {
            self.ports(outcome, pair, alerts);
            if probe == Probe::Syn {
                self.failing(outcome, alerts);
            }
        }
        if probe != Probe::Ack {
            self.hosts(outcome, hosts, alerts);
        }
    }

    /// Where what a source tried on a port with SYN probably is.
    #[must_use]
    pub fn place(&self, source: u64, port: u16) -> Place {
        self.horizontal.place(tried(source, port, Probe::Syn))
    }

    /// Reads ahead what the outcome of a SYN will need; changes nothing.
    pub fn read_ahead(&self, place: Place, target: u64) {
        self.horizontal.read_ahead(place, |tries| {
            tries.failed.touch(0) ^ tries.answered.touch(target) ^ tries.seen_ns as u32
        });
    }

    fn ports(&mut self, outcome: &Outcome, pair: u32, alerts: &mut Alerts) {
        let Outcome { source, target, port, probe, .. } = *outcome;
        let key = (source, target, probe);
        // Ports that answered count from the first failure of the pair on.
        let tries = if outcome.answer == Answer::Answered {
            match self.vertical.find_hashed(pair, &key) {
                Some(tries) => tries,
                None => return,
            }
        } else {
            self.vertical.entry_hashed(pair, key, || Tries::new(outcome))
        };
        if !tries.take(outcome, hash_of(&port)) {
            return;
        }
        let least = if probe == Probe::Stealth { STEALTH_PORTS_MIN } else { PORTS_MIN };
        let (failed, share) = (tries.failed.count(), tries.share());
        if failed >= least && share >= 2.0 / 3.0 {
            alerts.raise(
                Alert::new(Kind::VerticalScan, source, tries.range, outcome.now)
                    .against(target, None)
                    .rated(
                        if failed >= 100 { Severity::High } else { Severity::Medium },
                        probability(f64::from(failed), f64::from(least)),
                        probe.name(),
                    )
                    .because("ports that failed", failed, least - 1)
                    .because("share of tried ports that failed", share, 0.67)
                    .because("refusals", tries.refused, 0.0)
                    .because("seconds", tries.range.span_ns() as f64 / SECOND as f64, 0.0),
            );
        }
    }

    fn hosts(&mut self, outcome: &Outcome, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { source, target, port, probe, answer, .. } = *outcome;
        let mut hosts_per_port = 0.0;
        if answer != Answer::Answered {
            let (tried, ports) = self.all.entry((source, probe), Default::default);
            tried.insert(outcome.ends.responder);
            ports.insert(hash_of(&port));
            hosts_per_port = f64::from(tried.count()) / f64::from(ports.count().max(1));
        }
        let tries = self.horizontal.entry_at(outcome.tried_at, (source, port, probe), || Tries::new(outcome));
        if !tries.take(outcome, outcome.ends.responder) {
            return;
        }
        let (failed, share) = (tries.failed.count(), tries.share());
        let peer = hosts.find(&source).is_some_and(|host| host.callers.count() >= CALLERS_MIN);
        let (hosts_min, share_min) = match (peer, target.is_private()) {
            (true, _) => (PEER_HOSTS_MIN, PEER_SHARE_MIN),
            (false, true) => (HOSTS_MIN, HOSTS_SHARE_MIN),
            (false, false) => (HOSTS_MIN, OUTSIDE_SHARE_MIN),
        };
        if failed >= hosts_min && share >= share_min && hosts_per_port >= HOSTS_PER_PORT_MIN {
            alerts.raise(
                Alert::new(Kind::HorizontalScan, source, tries.range, outcome.now)
                    .against(target, Some(port))
                    .rated(
                        if failed >= 100 { Severity::High } else { Severity::Medium },
                        probability(f64::from(failed), f64::from(hosts_min)),
                        probe.name(),
                    )
                    .because("hosts that failed", failed, hosts_min - 1)
                    .because("share of tried hosts that failed", share, share_min)
                    .because("failed hosts per failed port, all in all", hosts_per_port, 1.0)
                    .because("seconds", tries.range.span_ns() as f64 / SECOND as f64, 0.0),
            );
        }
    }

    /// A ping of a host that answers is monitoring; of hosts that do not, a search. A third suffices, since a sweep of a well-filled
    /// network is answered by many.
    fn ping(&mut self, outcome: &Outcome, alerts: &mut Alerts) {
        let Outcome { source, target, port, .. } = *outcome;
        let tries =
            self.horizontal.entry_at(outcome.tried_at, (source, port, Probe::Ping), || Tries::new(outcome));
        if !tries.take(outcome, outcome.ends.responder) {
            return;
        }
        let (failed, share) = (tries.failed.count(), tries.share());
        if failed >= PINGED_MIN && share >= 1.0 / 3.0 {
            alerts.raise(
                Alert::new(Kind::HorizontalScan, source, tries.range, outcome.now)
                    .against(target, None)
                    .rated(Severity::Low, probability(f64::from(failed), f64::from(PINGED_MIN)), "ping")
                    .because("hosts that did not answer", failed, PINGED_MIN - 1)
                    .because("share of pinged hosts that did not answer", share, 0.33),
            );
        }
    }

    /// One service of one host that fails every time: what an implant does whose controller is gone, or a broken program. A person
    /// stops after a few, and well-made programs wait longer each time, so that 100 within the silence allowed are
    /// hours of them.
    fn failing(&mut self, outcome: &Outcome, alerts: &mut Alerts) {
        let Outcome { source, target, port, .. } = *outcome;
        if outcome.answer == Answer::Answered {
            if let Some(tries) = self.same.find(&(source, target, port)) {
                tries.failures = 0;
            }
            return;
        }
        let tries = self.same.entry((source, target, port), || Tries::new(outcome));
        tries.take(outcome, 0);
        if tries.failures >= FAILURES_MIN && tries.failures.is_multiple_of(FAILURES_MIN) {
            let span = tries.range.span_ns() as f64 / SECOND as f64;
            // Faster than ten a second is a flood, and told as such.
            if span * 10.0 >= f64::from(tries.failures) && source != target {
                alerts.raise(
                    Alert::new(Kind::FailureBurst, source, tries.range, outcome.now)
                        .against(target, Some(port))
                        .rated(
                            Severity::Medium,
                            probability(f64::from(tries.failures), f64::from(FAILURES_MIN)),
                            "connect",
                        )
                        .because("failures in a row", tries.failures, FAILURES_MIN - 1)
                        .because("seconds", span, 0.0),
                );
            }
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tries = |tries: &Tries| tries.failed.owned_bytes() + tries.answered.owned_bytes();
        self.vertical.bytes(tries)
            + self.horizontal.bytes(tries)
            + self.same.bytes(tries)
            + self.all.bytes(|(hosts, ports)| hosts.owned_bytes() + ports.owned_bytes())
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.vertical.dropped() + self.horizontal.dropped() + self.same.dropped() + self.all.dropped()
    }
}
