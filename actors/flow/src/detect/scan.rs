//! Scans: one host, many ports; one port, many hosts; pings; and one thing failing over and over.
//!
//! What is counted is the outcome of first packets: an ordinary client knows whom it asks and is mostly answered, a scanner
//! guesses and mostly is not (Jung et al. 2004, threshold random walk, from which the ratio comes).

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Ends, Hosts, furthest};
use crate::address::Ip;
use crate::hash::{Line, Place, Recent, hash_of, joined, shorter};
use crate::packet::{protocol, tcp_flag};
use crate::record::FlowRecord;
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
/// The same for the ports of one host while they are too few to tell: the most patient setting of a common scanner waits five minutes
/// between two.
pub const PORTS_SILENCE_NS: u64 = 900 * SECOND;
/// Sources that try the same ports of one host in turn, from which on one of them hides among made-up ones.
pub const DECOYS_MIN: u32 = 3;
/// Ports of one host that failed within a minute for several sources together: who hears the noise of the Internet hears a tenth of it.
pub const TOGETHER_PORTS_MIN: u32 = 100;
/// How long that may take.
pub const TOGETHER_NS: u64 = 60 * SECOND;
/// Sources from which on they are several.
pub const TOGETHER_SOURCES_MIN: u32 = 5;
/// Failures of one service asked by one host.
pub const FAILURES_MIN: u32 = 100;
/// Pairs and ports watched at once.
const TRACKED_MAX: usize = 1 << 15;
/// Hosts whose ports failed for anybody.
const CROWDS_MAX: usize = 1 << 13;

/// How a first packet asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    /// SYN.
    Syn,
    /// Flags that no system begins with.
    Stealth,
    /// A bare ACK, or FIN with ACK, to a port that was not talked to.
    Ack,
    /// A bare RST to a port that was not talked to.
    Reset,
    /// UDP.
    Udp,
    /// Ping and its relatives.
    Ping,
}

impl Probe {
    /// What a first packet is, if it asks anything. Data is the middle of a conversation, RST with ACK an answer.
    #[must_use]
    pub fn of(number: u8, flags: u8) -> Option<Self> {
        use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
        match number {
            protocol::TCP => match flags & (SYN | ACK | FIN | RST | PSH | URG) {
                f if f & (SYN | ACK | FIN | RST) == SYN => Some(Self::Syn),
                ACK => Some(Self::Ack),
                f if f == FIN | ACK => Some(Self::Ack),
                RST => Some(Self::Reset),
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
            Self::Reset => "rst",
            Self::Udp => "udp",
            Self::Ping => "ping",
        }
    }
}

/// The outcome of a first packet: of the originator of a record, which asked the responder.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The flow so far.
    pub record: &'a FlowRecord,
    /// Both its ends.
    pub ends: &'a Ends,
    /// Port asked for; of a ping, its type.
    pub port: u16,
    /// How.
    pub probe: Probe,
    /// What came back.
    pub answer: Answer,
    /// Now, ns since 1970.
    pub now: u64,
    /// Time to live of the packet that asked; 0 where unknown.
    pub ttl: u8,
    /// Where what the source tried on this port probably is.
    pub tried_at: Place,
    /// Where the failures of the pair, tried like this, probably are.
    pub failed_at: Place,
    /// Where failures of the pair on this port probably are, by the hash of their edge.
    pub same_at: Place,
}

/// What is known of a source's tries by: its hash, port and probe.
#[inline]
pub(super) fn tried(source: u64, port: u16, probe: Probe) -> u64 {
    Ends::with(source, port, probe as u8)
}

/// What the failures of a pair are known by: the hash of both and the probe.
#[inline]
pub(super) fn failed(pair: u64, probe: Probe) -> u64 {
    joined(pair, probe as u64)
}

/// What was tried and how it went. In this order: an answer needs the first fields, and often no more.
#[derive(Debug, Clone)]
#[repr(C)]
struct Tries {
    seen_ns: u64,
    answered: Distinct,
    failed: Distinct,
    range: Range,
    /// Failures and tries, repeats included.
    failures: u32,
    refused: u32,
}

impl Tries {
    fn new(outcome: &Outcome<'_>) -> Self {
        Self {
            range: Range::at(outcome.record.packets.0, outcome.record.start_ns),
            seen_ns: outcome.now,
            failed: Distinct::default(),
            answered: Distinct::default(),
            failures: 0,
            refused: 0,
        }
    }

    #[inline]
    fn take(&mut self, outcome: &Outcome<'_>, what: u64) -> bool {
        self.take_within(outcome, what, SILENCE_NS)
    }

    /// How long the ports of one host may be silent until others count anew: longer while there are too few to tell, so that who comes back to
    /// the same ports is told again.
    #[inline]
    fn ports_silence_ns(&self, probe: Probe) -> u64 {
        if self.failed.count() < ports_min(probe).1 { PORTS_SILENCE_NS } else { SILENCE_NS }
    }

    #[inline]
    fn take_within(&mut self, outcome: &Outcome<'_>, what: u64, silence_ns: u64) -> bool {
        if outcome.now.saturating_sub(self.seen_ns) > silence_ns {
            *self = Self::new(outcome);
        }
        if outcome.answer == Answer::Answered {
            self.answered.insert(what);
            return false;
        }
        self.seen_ns = outcome.now;
        self.range.cover(outcome.record.packets.0, outcome.record.start_ns);
        self.failures += 1;
        self.refused += u32::from(outcome.answer == Answer::Refused);
        self.failed.insert(what)
    }

    /// How many of the tried ones failed, and their share.
    fn failed(&mut self) -> (u32, f64) {
        let (failed, answered) = (self.failed.settled(), f64::from(self.answered.settled()));
        (failed, f64::from(failed) / (f64::from(failed) + answered).max(1.0))
    }
}

/// Ports of one host that must fail, and what that measures.
fn ports_min(probe: Probe) -> (Measure, u32) {
    match probe {
        Probe::Stealth => (Measure::StealthPorts, STEALTH_PORTS_MIN),
        _ => (Measure::Ports, PORTS_MIN),
    }
}

/// What failed of one host for all who tried, of late: whether they are one that hides among made-up sources, or many together.
#[derive(Debug, Clone)]
struct Crowd {
    start_ns: u64,
    seen_ns: u64,
    range: Range,
    ports: Distinct,
    sources: Distinct,
    /// Ports that failed for the first time for a source, and how often the source was another than the one before.
    count: u32,
    turns: u32,
    last: u64,
    /// They were found to take turns, and have not been silent since.
    in_turn: bool,
}

impl Crowd {
    fn new(outcome: &Outcome<'_>) -> Self {
        Self {
            start_ns: outcome.now,
            seen_ns: outcome.now,
            range: Range::at(outcome.record.packets.0, outcome.record.start_ns),
            ports: Distinct::default(),
            sources: Distinct::default(),
            count: 0,
            turns: 0,
            last: 0,
            in_turn: false,
        }
    }

    /// Takes a port that was new for its source.
    fn take(&mut self, outcome: &Outcome<'_>) {
        if outcome.now.saturating_sub(self.seen_ns) > SILENCE_NS {
            *self = Self::new(outcome);
        } else if outcome.now.saturating_sub(self.start_ns) > TOGETHER_NS {
            *self = Self { in_turn: self.in_turn, ..Self::new(outcome) };
        }
        self.seen_ns = outcome.now;
        self.range.cover(outcome.record.packets.0, outcome.record.start_ns);
        self.ports.insert(hash_of(&outcome.port));
        self.sources.insert(outcome.ends.originator);
        self.count += 1;
        self.turns += u32::from(self.last != outcome.ends.originator);
        self.last = outcome.ends.originator;
        // Each port by nearly all of them, one after the other: nobody else has that order.
        let (ports, sources) = (self.ports.settled(), self.sources.settled());
        self.in_turn |= sources >= DECOYS_MIN
            && ports >= PORTS_MIN / 2
            && self.turns * 2 >= self.count
            && self.count * 6 >= ports * sources * 5;
    }
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Scans {
    vertical: Recent<(Ip, Ip, Probe), Tries, Line>,
    horizontal: Recent<(Ip, u16, Probe), Tries, Line>,
    /// All hosts and ports that failed for a source: peers of file sharing have ports of their own, a scan has few for many hosts.
    all: Recent<(Ip, Probe), (Distinct, Distinct)>,
    /// Failures in a row of a service asked by a host.
    same: Recent<(Ip, Ip, u16), Tries>,
    /// Ports of a host that failed, whoever tried.
    crowds: Recent<(Ip, Probe), Crowd>,
}

impl Default for Scans {
    fn default() -> Self {
        Self {
            vertical: Recent::in_lines(TRACKED_MAX),
            horizontal: Recent::in_lines(TRACKED_MAX),
            all: Recent::new(TRACKED_MAX),
            same: Recent::new(TRACKED_MAX),
            crowds: Recent::new(CROWDS_MAX),
        }
    }
}

impl Scans {
    /// Takes an outcome.
    #[inline]
    pub fn take(&mut self, outcome: &Outcome<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { record, ends, port, probe, .. } = *outcome;
        if ends.responder_is_group || ends.originator_is_group {
            return;
        }
        let answered = outcome.answer == Answer::Answered;
        if probe == Probe::Udp || (probe == Probe::Syn && answered) {
            let callers = &mut hosts.entry_at(ends.responder_at, record.responder, Default::default).callers;
            if !callers.is_full() {
                callers.insert(shorter(ends.originator));
            }
        }
        match probe {
            // Answers of a server whose questions were not seen go from a low port to high ones.
            Probe::Ack | Probe::Reset if port >= record.originator_port || answered => return,
            // Traceroute's ports, to hosts further and further away.
            Probe::Udp if (33_434..33_700).contains(&port) && outcome.ttl <= 40 => return,
            _ => {}
        }
        if probe == Probe::Ping {
            self.ping(outcome, hosts, alerts);
            return;
        }
        if answered {
            self.answered(outcome);
            if !matches!(probe, Probe::Ack | Probe::Reset) {
                let key = (record.originator, port, probe);
                let tries = self.horizontal.entry_at(outcome.tried_at, key, || Tries::new(outcome));
                tries.take(outcome, ends.responder);
            }
            return;
        }
        self.ports(outcome, hosts, alerts);
        if probe == Probe::Syn && !ends.responder_is_private {
            self.failing(outcome, hosts, alerts);
        }
        if !matches!(probe, Probe::Ack | Probe::Reset) {
            self.hosts(outcome, hosts, alerts);
        }
    }

    /// An answer counts beside the failures of its pair, where there was one of late; most pairs have none.
    #[inline]
    fn answered(&mut self, outcome: &Outcome<'_>) {
        let FlowRecord { originator, responder, .. } = *outcome.record;
        let key = (originator, responder, outcome.probe);
        let Some(tries) = self.vertical.find_at(outcome.failed_at, &key) else { return };
        let silence_ns = tries.ports_silence_ns(outcome.probe);
        if outcome.now.saturating_sub(tries.seen_ns) > silence_ns {
            return;
        }
        tries.take_within(outcome, hash_of(&outcome.port), silence_ns);
        if outcome.probe == Probe::Syn
            && let Some(tries) = self.same.find_at(outcome.same_at, &(originator, responder, outcome.port))
        {
            tries.failures = 0;
        }
    }

    /// Reads the line of the index that [`Scans::find_tried`] will need.
    #[inline]
    pub(super) fn warm_place(&self, tried_at: Place) -> u64 {
        self.horizontal.warm_place(tried_at)
    }

    /// Finds where what a source tried on a port is.
    #[inline]
    pub(super) fn find_tried(&self, tried_at: &mut Place) {
        self.horizontal.find_place(tried_at);
    }

    /// Finds where the failures of a pair are.
    #[inline]
    pub(super) fn find_failed(&self, failed_at: &mut Place) {
        self.vertical.find_place(failed_at);
    }

    /// Reads ahead the first fields of both, and where the index begins to look for failures on the port: a pair that never failed has
    /// none.
    #[inline]
    pub(super) fn warm(&self, tried_at: Place, failed_at: Place, same_at: Place) -> u64 {
        let mut seen = self.horizontal.warm(tried_at, |tries| tries.seen_ns);
        if failed_at.is_found() {
            seen ^= self.vertical.warm(failed_at, |tries| tries.seen_ns) ^ self.same.warm_place(same_at);
        }
        seen
    }

    /// Reads ahead what an answer of `target` will change, once [`Scans::warm`] is back.
    #[inline]
    pub(super) fn warm_answer(
        &self,
        tried_at: Place,
        failed_at: Place,
        same_at: &mut Place,
        target: u64,
    ) -> u64 {
        let mut seen = self.horizontal.warm(tried_at, |tries| tries.answered.touch(target));
        if failed_at.is_found() {
            self.same.find_place(same_at);
            seen ^= self.vertical.warm(failed_at, |tries| tries.answered.touch(0))
                ^ self.same.warm(*same_at, |tries| u64::from(tries.failures));
        }
        seen
    }

    #[inline(never)]
    fn ports(&mut self, outcome: &Outcome<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { record, port, probe, .. } = *outcome;
        let (source, target) = (record.originator, record.responder);
        // Ports that answered count from the first failure of the pair on.
        let key = (source, target, probe);
        let tries = self.vertical.entry_hashed(outcome.failed_at.hash(), key, || Tries::new(outcome));
        let before = tries.failed.count();
        let silence_ns = tries.ports_silence_ns(probe);
        if !tries.take_within(outcome, hash_of(&port), silence_ns) {
            return;
        }
        let (measure, least) = ports_min(probe);
        let (failed, share) = tries.failed();
        // UDP to many ports has other reasons.
        let crowd = (probe != Probe::Udp).then(|| {
            let crowd = self.crowds.entry((target, probe), || Crowd::new(outcome));
            crowd.take(outcome);
            crowd
        });
        if let Some(crowd) = &crowd
            && !crowd.in_turn
            && failed < least
        {
            together(crowd, outcome, hosts, alerts);
        }
        if share < 2.0 / 3.0 {
            return;
        }
        let times = f64::from(failed) / f64::from(least);
        if failed >= least {
            let among = crowd.filter(|crowd| crowd.in_turn);
            // Which of them is real nobody can say, so the host that they try is named.
            let (accused, range) =
                among.as_ref().map_or((source, tries.range), |crowd| (target, crowd.range));
            let probability = alerts.weigh(measure, furthest(hosts, accused), times);
            let severity = if failed >= 100 { Severity::High } else { Severity::Medium };
            let mut alert = Alert::new(Kind::VerticalScan, accused, range, outcome.now)
                .against(target, None)
                .rated(severity, probability, probe.name())
                .because("ports that failed", failed, least - 1)
                .because("share of tried ports that failed", share, 0.67)
                .because("refusals", tries.refused, 0.0)
                .because("seconds", range.span_ns() as f64 / SECOND as f64, 0.0);
            if let Some(crowd) = among {
                alert.spoofed = true;
                alert = alert.because("sources in turn", crowd.sources.count(), 1.0);
            }
            alerts.raise(alert);
        } else if steps(before.into(), failed.into(), least.into()) {
            alerts.note(measure, furthest(hosts, source), times);
        }
    }

    /// What was not answered, against what was.
    #[inline(never)]
    fn hosts(&mut self, outcome: &Outcome<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { record, port, probe, .. } = *outcome;
        let (source, target) = (record.originator, record.responder);
        let (tried, ports) = self.all.entry((source, probe), Default::default);
        tried.insert(outcome.ends.responder);
        ports.insert(hash_of(&port));
        let hosts_per_port = f64::from(tried.settled()) / f64::from(ports.settled().max(1));
        let tries = self.horizontal.entry_at(outcome.tried_at, (source, port, probe), || Tries::new(outcome));
        let before = tries.failed.count();
        if !tries.take(outcome, outcome.ends.responder) {
            return;
        }
        let (failed, share) = tries.failed();
        let peer = hosts.find(&source).is_some_and(|host| host.callers.count() >= CALLERS_MIN);
        let (hosts_min, share_min) = match (peer, target.is_private()) {
            (true, _) => (PEER_HOSTS_MIN, PEER_SHARE_MIN),
            (false, true) => (HOSTS_MIN, HOSTS_SHARE_MIN),
            (false, false) => (HOSTS_MIN, OUTSIDE_SHARE_MIN),
        };
        if share < share_min || hosts_per_port < HOSTS_PER_PORT_MIN {
            return;
        }
        let times = f64::from(failed) / f64::from(hosts_min);
        if failed >= hosts_min {
            let probability = alerts.weigh(Measure::Hosts, furthest(hosts, source), times);
            alerts.raise(
                Alert::new(Kind::HorizontalScan, source, tries.range, outcome.now)
                    .against(target, Some(port))
                    .rated(
                        if failed >= 100 { Severity::High } else { Severity::Medium },
                        probability,
                        probe.name(),
                    )
                    .because("hosts that failed", failed, hosts_min - 1)
                    .because("share of tried hosts that failed", share, share_min)
                    .because("failed hosts per failed port, all in all", hosts_per_port, 1.0)
                    .because("seconds", tries.range.span_ns() as f64 / SECOND as f64, 0.0),
            );
        } else if steps(before.into(), failed.into(), hosts_min.into()) {
            alerts.note(Measure::Hosts, furthest(hosts, source), times);
        }
    }

    /// A ping of a host that answers is monitoring; of hosts that do not, a search. A third suffices, since a sweep of a well-filled
    /// network is answered by many.
    fn ping(&mut self, outcome: &Outcome<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { record, port, .. } = *outcome;
        let (source, target) = (record.originator, record.responder);
        let tries =
            self.horizontal.entry_at(outcome.tried_at, (source, port, Probe::Ping), || Tries::new(outcome));
        let before = tries.failed.count();
        if !tries.take(outcome, outcome.ends.responder) {
            return;
        }
        let (failed, share) = tries.failed();
        if share < 1.0 / 3.0 {
            return;
        }
        let times = f64::from(failed) / f64::from(PINGED_MIN);
        if failed >= PINGED_MIN {
            let probability = alerts.weigh(Measure::Pinged, furthest(hosts, source), times);
            alerts.raise(
                Alert::new(Kind::HorizontalScan, source, tries.range, outcome.now)
                    .against(target, None)
                    .rated(Severity::Low, probability, "ping")
                    .because("hosts that did not answer", failed, PINGED_MIN - 1)
                    .because("share of pinged hosts that did not answer", share, 0.33),
            );
        } else if steps(before.into(), failed.into(), PINGED_MIN.into()) {
            alerts.note(Measure::Pinged, furthest(hosts, source), times);
        }
    }

    /// One service of one host outside that fails every time: what an implant does whose controller is gone, or a broken program. A person
    /// stops after a few, and well-made programs wait longer each time, so that 100 within the silence allowed are
    /// hours of them. Inside a site monitoring and balances ask for what is down for as long as it is.
    #[inline(never)]
    fn failing(&mut self, outcome: &Outcome<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Outcome { record, port, .. } = *outcome;
        let (source, target) = (record.originator, record.responder);
        let tries = self.same.entry_at(outcome.same_at, (source, target, port), || Tries::new(outcome));
        tries.take(outcome, 0);
        let failures = u64::from(tries.failures);
        let steps = steps(failures.saturating_sub(1), failures, FAILURES_MIN.into());
        let is_due = tries.failures.is_multiple_of(FAILURES_MIN);
        if steps || is_due {
            let span = tries.range.span_ns() as f64 / SECOND as f64;
            // Faster than ten a second is a flood, and told as such.
            if span * 10.0 >= f64::from(tries.failures) {
                let times = f64::from(tries.failures) / f64::from(FAILURES_MIN);
                let probability = alerts.weigh(Measure::Failures, furthest(hosts, source), times);
                if !is_due {
                    return;
                }
                alerts.raise(
                    Alert::new(Kind::FailureBurst, source, tries.range, outcome.now)
                        .against(target, Some(port))
                        .rated(Severity::Medium, probability, "connect")
                        .because("failures in a row", tries.failures, FAILURES_MIN - 1)
                        .because("seconds", span, 0.0),
                );
            }
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let crowds = self.crowds.bytes(|crowd| crowd.ports.owned_bytes() + crowd.sources.owned_bytes());
        let tries = |tries: &Tries| tries.failed.owned_bytes() + tries.answered.owned_bytes();
        crowds
            + self.vertical.bytes(tries)
            + self.horizontal.bytes(tries)
            + self.same.bytes(tries)
            + self.all.bytes(|(hosts, ports)| hosts.owned_bytes() + ports.owned_bytes())
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.vertical.dropped()
            + self.horizontal.dropped()
            + self.same.dropped()
            + self.all.dropped()
            + self.crowds.dropped()
    }
}

/// Many sources that try a few ports each, and all together a great many: the host that they try is named.
fn together(crowd: &Crowd, outcome: &Outcome<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
    let (ports, sources) = (crowd.ports.count(), crowd.sources.count());
    if sources < TOGETHER_SOURCES_MIN || !crowd.count.is_multiple_of(TOGETHER_PORTS_MIN / 4) {
        return;
    }
    let target = outcome.record.responder;
    let times = f64::from(ports) / f64::from(TOGETHER_PORTS_MIN);
    if ports < TOGETHER_PORTS_MIN {
        return alerts.note(Measure::Ports, furthest(hosts, target), times);
    }
    let probability = alerts.weigh(Measure::Ports, furthest(hosts, target), times);
    let mut alert = Alert::new(Kind::VerticalScan, target, crowd.range, outcome.now)
        .against(target, None)
        .rated(Severity::Medium, probability, outcome.probe.name())
        .because("ports that failed in a minute", ports, TOGETHER_PORTS_MIN - 1)
        .because("sources", sources, TOGETHER_SOURCES_MIN - 1)
        .because("seconds", crowd.range.span_ns() as f64 / SECOND as f64, 0.0);
    alert.spoofed = true;
    alerts.raise(alert);
}
