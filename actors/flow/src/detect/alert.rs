//! Alerts: who is accused of what, on which evidence; and episodes, so that one thing going on is one alert.

use super::evidence::{Evidence, Furthest, Measure};
use crate::address::Ip;
use crate::hash::Recent;
use crate::table::SECOND;

/// What a host is accused of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Many ports of one host tried.
    VerticalScan,
    /// One port of many hosts tried, many hosts pinged, or many addresses asked for on the link.
    HorizontalScan,
    /// Connections asked for and never completed, in masses.
    SynFlood,
    /// UDP in masses, one way.
    UdpFlood,
    /// Pings in masses.
    IcmpFlood,
    /// Large answers that nobody asked for, or asked for in another's name.
    Amplification,
    /// Connections held open with next to nothing, in masses.
    SlowDos,
    /// Pages asked for in masses.
    HttpFlood,
    /// Logins tried over and over.
    BruteForce,
    /// Calls home at regular times.
    Beacon,
    /// Packets inside DNS, both ways.
    DnsTunnel,
    /// Data carried out in names asked for.
    DnsExfiltration,
    /// Data inside pings.
    IcmpTunnel,
    /// Far more sent out than ever before.
    DataExfiltration,
    /// An address claimed that belongs to another.
    ArpSpoofing,
    /// Administration of many hosts never administered before.
    LateralMovement,
    /// The same thing failing over and over.
    FailureBurst,
    /// A TLS heartbeat that reads the server's memory.
    Heartbleed,
    /// A service that neither the host nor others were seen to use.
    RareEdge,
    /// Names that a program made up, asked for one after the other, none of which there is.
    Dga,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::VerticalScan,
        Self::HorizontalScan,
        Self::SynFlood,
        Self::UdpFlood,
        Self::IcmpFlood,
        Self::Amplification,
        Self::SlowDos,
        Self::HttpFlood,
        Self::BruteForce,
        Self::Beacon,
        Self::DnsTunnel,
        Self::DnsExfiltration,
        Self::IcmpTunnel,
        Self::DataExfiltration,
        Self::ArpSpoofing,
        Self::LateralMovement,
        Self::FailureBurst,
        Self::Heartbleed,
        Self::RareEdge,
        Self::Dga,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VerticalScan => "vertical-scan",
            Self::HorizontalScan => "horizontal-scan",
            Self::SynFlood => "syn-flood",
            Self::UdpFlood => "udp-flood",
            Self::IcmpFlood => "icmp-flood",
            Self::Amplification => "amplification",
            Self::SlowDos => "slow-dos",
            Self::HttpFlood => "http-flood",
            Self::BruteForce => "brute-force",
            Self::Beacon => "beacon",
            Self::DnsTunnel => "dns-tunnel",
            Self::DnsExfiltration => "dns-exfiltration",
            Self::IcmpTunnel => "icmp-tunnel",
            Self::DataExfiltration => "data-exfiltration",
            Self::ArpSpoofing => "arp-spoofing",
            Self::LateralMovement => "lateral-movement",
            Self::FailureBurst => "failure-burst",
            Self::Heartbleed => "heartbleed",
            Self::RareEdge => "rare-edge",
            Self::Dga => "dga",
        }
    }

    /// The technique's number in MITRE ATT&CK (enterprise).
    #[must_use]
    pub const fn technique(self) -> &'static str {
        match self {
            Self::VerticalScan => "T1046",
            Self::HorizontalScan => "T1018",
            Self::SynFlood => "T1499.001",
            Self::UdpFlood | Self::IcmpFlood => "T1498.001",
            Self::Amplification => "T1498.002",
            Self::SlowDos | Self::HttpFlood => "T1499.002",
            Self::BruteForce => "T1110",
            Self::Beacon => "T1071",
            Self::DnsTunnel => "T1071.004",
            Self::DnsExfiltration => "T1048",
            Self::IcmpTunnel => "T1095",
            Self::DataExfiltration => "T1041",
            Self::ArpSpoofing => "T1557.002",
            Self::LateralMovement => "T1021",
            Self::FailureBurst => "T1008",
            Self::Heartbleed => "T1190",
            Self::RareEdge => "T1571",
            Self::Dga => "T1568.002",
        }
    }
}

/// How bad it is if true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look when there is time.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth a look now.
    High,
}

impl Severity {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One reason: what was seen against what is expected of an ordinary host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feature {
    /// What was measured, with its unit.
    pub name: &'static str,
    /// What it was.
    pub seen: f64,
    /// What stays unsuspicious.
    pub expected: f64,
}

/// The part of the input that an alert rests on: reading it again raises the alert again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// Number of the first packet (or record), from 1.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// Time of the first, ns since 1970.
    pub first_ns: u64,
    /// Time of the last, ns since 1970.
    pub last_ns: u64,
}

impl Range {
    /// A range of one packet.
    #[must_use]
    pub fn at(number: u64, ts: u64) -> Self {
        Self { first: number, last: number, first_ns: ts, last_ns: ts }
    }

    /// Grows over another packet.
    #[inline]
    pub fn cover(&mut self, number: u64, ts: u64) {
        self.first = self.first.min(number);
        self.last = self.last.max(number);
        self.first_ns = self.first_ns.min(ts);
        self.last_ns = self.last_ns.max(ts);
    }

    /// First to last, ns.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        self.last_ns - self.first_ns
    }
}

/// Features of one alert.
pub const FEATURES_MAX: usize = 5;

/// An accusation. One per episode: what repeats within [`Alert::silence_ns`] is counted into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Number, from 1, in order of being raised.
    pub id: u64,
    /// Of what.
    pub kind: Kind,
    /// Who. The victim where the attacker cannot be known: `spoofed` says so.
    pub source: Ip,
    /// The sources are many or made up, so that `source` names the victim.
    pub spoofed: bool,
    /// Against whom; the first of several.
    pub peer: Option<Ip>,
    /// Port of the peer, where one matters.
    pub port: Option<u16>,
    /// How bad.
    pub severity: Severity,
    /// How likely it is so, from 0 to 1: see [`super::evidence`].
    pub probability: f64,
    /// Which variant: `syn`, `ssh`, `NULL queries`.
    pub method: &'static str,
    /// Why.
    pub features: [Option<Feature>; FEATURES_MAX],
    /// On which packets.
    pub range: Range,
    /// When it was raised, ns since 1970.
    pub raised_ns: u64,
    /// When it was last seen again.
    pub seen_ns: u64,
    /// How often it was seen, the first time included.
    pub count: u64,
    /// Silence after which it is over and the next is another: [`EPISODE_NS`], or more for what comes seldom by nature.
    pub silence_ns: u64,
}

impl Alert {
    /// An alert without reasons yet.
    #[must_use]
    pub fn new(kind: Kind, source: Ip, range: Range, now: u64) -> Self {
        Self {
            id: 0,
            kind,
            source,
            spoofed: false,
            peer: None,
            port: None,
            severity: Severity::Medium,
            probability: 0.9,
            method: "",
            features: [None; FEATURES_MAX],
            range,
            raised_ns: now,
            seen_ns: now,
            count: 1,
            silence_ns: EPISODE_NS,
        }
    }

    /// Says what silence ends it, if more than [`EPISODE_NS`]; at most [`SILENCE_NS_MAX`].
    #[must_use]
    pub fn ending_after(mut self, silence_ns: u64) -> Self {
        self.silence_ns = silence_ns.clamp(EPISODE_NS, SILENCE_NS_MAX);
        self
    }

    /// Adds a reason, while there is room.
    #[must_use]
    pub fn because(mut self, name: &'static str, seen: impl Into<f64>, expected: impl Into<f64>) -> Self {
        if let Some(place) = self.features.iter_mut().find(|place| place.is_none()) {
            *place = Some(Feature { name, seen: seen.into(), expected: expected.into() });
        }
        self
    }

    /// Says against whom.
    #[must_use]
    pub fn against(mut self, peer: Ip, port: Option<u16>) -> Self {
        (self.peer, self.port) = (Some(peer), port);
        self
    }

    /// Says how bad, how likely and which variant.
    #[must_use]
    pub fn rated(mut self, severity: Severity, probability: f64, method: &'static str) -> Self {
        (self.severity, self.probability, self.method) = (severity, probability, method);
        self
    }

    /// The reasons there are.
    pub fn reasons(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().flatten()
    }
}

/// What comes again within so long belongs to the same episode, unless an alert says more.
pub const EPISODE_NS: u64 = 600 * SECOND;
/// The most that an alert may say: two days, so that what comes once a day stays one.
pub const SILENCE_NS_MAX: u64 = 172_800 * SECOND;
/// Alerts kept: later episodes are counted only.
pub const ALERTS_MAX: usize = 10_000;
/// Episodes that may still go on, at most: also those that are only counted.
pub const OPEN_MAX: usize = 1 << 14;
/// Raised alerts that wait for a listener, at most.
pub const HEARD_MAX: usize = 65_536;

/// An episode that may still go on.
#[derive(Debug, Clone, Copy)]
struct Open {
    seen_ns: u64,
    /// The longest that any of its alerts said.
    silence_ns: u64,
    /// Where its alert is; `None` where it is only counted.
    at: Option<u32>,
}

/// All alerts so far.
#[derive(Debug, Clone)]
pub struct Alerts {
    alerts: Vec<Alert>,
    /// Knows what is on whether or not there was room for its alert: detectors ask.
    open: Recent<(Kind, Ip), Open>,
    withheld: u64,
    /// What hosts showed of what they may be accused of.
    evidence: Evidence,
    /// What was raised since the listener last asked, each time it was raised; `None` where nobody listens.
    heard: Option<Vec<Alert>>,
    unheard: u64,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            alerts: Vec::new(),
            open: Recent::new(OPEN_MAX),
            withheld: 0,
            evidence: Evidence::default(),
            heard: None,
            unheard: 0,
        }
    }
}

impl Alerts {
    /// Keeps from now on what is raised, for [`Alerts::take_heard`].
    pub fn listen(&mut self) {
        self.heard.get_or_insert_default();
    }

    /// Gives what was raised since the last call, in order, repeats within an episode included.
    pub fn take_heard(&mut self, take: impl FnMut(&Alert)) {
        if let Some(heard) = &mut self.heard {
            heard.iter().for_each(take);
            heard.clear();
        }
    }

    /// Raised alerts that the listener did not come for in time: more than [`HEARD_MAX`] between two calls.
    #[must_use]
    pub fn unheard(&self) -> u64 {
        self.unheard
    }

    /// Notes that a host showed so many times the threshold of something it is not accused of, or not yet.
    pub(super) fn note(&mut self, measure: Measure, furthest: &mut Furthest, times: f64) {
        self.evidence.note(measure, furthest, times);
    }

    /// Notes the same of a host that is accused of it. How likely that is right.
    pub(super) fn weigh(&mut self, measure: Measure, furthest: &mut Furthest, times: f64) -> f64 {
        self.evidence.note(measure, furthest, times);
        self.evidence.probability(measure, *furthest, times)
    }

    /// Raises an alert, or counts it into its episode: same kind, same source.
    pub fn raise(&mut self, alert: Alert) {
        match &mut self.heard {
            Some(heard) if heard.len() < HEARD_MAX => heard.push(alert.clone()),
            Some(_) => self.unheard += 1,
            None => {}
        }
        let key = (alert.kind, alert.source);
        if let Some(open) = self.open.find(&key)
            && alert.raised_ns.saturating_sub(open.seen_ns) <= open.silence_ns
        {
            open.seen_ns = open.seen_ns.max(alert.raised_ns);
            open.silence_ns = open.silence_ns.max(alert.silence_ns);
            let Some(known) = open.at.and_then(|at| self.alerts.get_mut(at as usize)) else { return };
            (known.seen_ns, known.silence_ns) = (open.seen_ns, open.silence_ns);
            known.count += 1;
            known.range.cover(alert.range.first, alert.range.first_ns);
            known.range.cover(alert.range.last, alert.range.last_ns);
            known.severity = known.severity.max(alert.severity);
            if alert.probability > known.probability {
                known.probability = alert.probability;
                (known.method, known.features) = (alert.method, alert.features);
            }
            return;
        }
        let at = (self.alerts.len() < ALERTS_MAX).then_some(self.alerts.len() as u32);
        let open = Open { seen_ns: alert.raised_ns, silence_ns: alert.silence_ns, at };
        *self.open.entry(key, || open) = open;
        if at.is_none() {
            self.withheld += 1;
            return;
        }
        let id = self.alerts.len() as u64 + 1;
        self.alerts.push(Alert { id, ..alert });
    }

    /// Whether an episode of `kind` by `source` has not ended yet, however long it is silent already.
    #[must_use]
    pub(super) fn goes_on(&self, kind: Kind, source: Ip, now: u64) -> bool {
        self.open
            .look(&(kind, source))
            .is_some_and(|open| now.saturating_sub(open.seen_ns) <= open.silence_ns)
    }

    /// Whether `kind` was found of `source` within [`EPISODE_NS`].
    #[must_use]
    pub fn is_on(&self, kind: Kind, source: Ip, now: u64) -> bool {
        self.open.look(&(kind, source)).is_some_and(|open| now.saturating_sub(open.seen_ns) <= EPISODE_NS)
    }

    /// The alerts, in order of being raised.
    #[must_use]
    pub fn as_slice(&self) -> &[Alert] {
        &self.alerts
    }

    /// Episodes not kept because there were [`ALERTS_MAX`].
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.withheld
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_an_episode_until_silence() {
        let mut alerts = Alerts::default();
        let ip = Ip::v4([10, 0, 0, 1]);
        let at = |seconds: u64| {
            Alert::new(Kind::Beacon, ip, Range::at(seconds, seconds * SECOND), seconds * SECOND)
        };
        alerts.raise(at(10));
        alerts.raise(at(20).rated(Severity::High, 0.95, "x"));
        alerts.raise(at(600));
        let only = &alerts.as_slice()[0];
        assert_eq!((alerts.as_slice().len(), only.count, only.severity), (1, 3, Severity::High));
        assert_eq!((only.range.first, only.range.last, only.raised_ns), (10, 600, 10 * SECOND));
        assert!(alerts.is_on(Kind::Beacon, ip, 700 * SECOND));
        alerts.raise(at(1_300));
        assert_eq!(alerts.as_slice().len(), 2);
    }

    /// What comes seldom says so: its episode ends after a silence of its own, which never gets shorter, and has a bound.
    #[test]
    fn an_episode_ends_after_the_silence_that_it_says() {
        let (mut alerts, ip) = (Alerts::default(), Ip::v4([10, 0, 0, 1]));
        let mut raise = |seconds: u64, silence: u64| {
            let now = seconds * SECOND;
            alerts.raise(
                Alert::new(Kind::Beacon, ip, Range::at(seconds, now), now).ending_after(silence * SECOND),
            );
            (alerts.as_slice().len(), alerts.goes_on(Kind::Beacon, ip, now + 7_201 * SECOND))
        };
        assert_eq!(raise(0, 7_200), (1, false));
        assert_eq!(raise(7_200, 20_000), (1, true));
        // Said by somebody faster: the slow one may still call.
        assert_eq!(raise(27_200, 1), (1, true));
        assert_eq!(raise(47_201, 1), (2, false));
        assert_eq!(raise(47_801, 1), (2, false));
        assert_eq!(raise(48_402, u64::MAX / SECOND), (3, true));
        assert_eq!(alerts.as_slice()[2].silence_ns, SILENCE_NS_MAX);
        assert_eq!(alerts.as_slice()[1].silence_ns, EPISODE_NS);
        assert!(!alerts.is_on(Kind::Beacon, ip, 50_000 * SECOND));
    }

    /// What goes on is known however many alerts there were, and counted once; who comes back is not forgotten for those who do not.
    #[test]
    fn what_goes_on_is_known_past_the_last_alert_kept() {
        let mut alerts = Alerts::default();
        let from = |n: u32| Ip::v4((0x0a00_0000 + n).to_be_bytes());
        let raise = |alerts: &mut Alerts, n: u32, second: u64| {
            let now = second * SECOND;
            alerts.raise(Alert::new(Kind::VerticalScan, from(n), Range::at(1, now), now));
        };
        for n in 0..ALERTS_MAX as u32 {
            raise(&mut alerts, n, 1_000);
        }
        assert_eq!((alerts.as_slice().len(), alerts.withheld()), (ALERTS_MAX, 0));
        let late = ALERTS_MAX as u32 + 7;
        assert!(!alerts.is_on(Kind::VerticalScan, from(late), 1_100 * SECOND));
        for second in (1_100..4_000).step_by(300) {
            raise(&mut alerts, late, second);
            assert!(alerts.is_on(Kind::VerticalScan, from(late), (second + 600) * SECOND), "{second}");
        }
        assert!(!alerts.is_on(Kind::VerticalScan, from(late), 5_000 * SECOND));
        assert_eq!((alerts.as_slice().len(), alerts.withheld()), (ALERTS_MAX, 1));
        // Another episode of it, among more others than can be open.
        for n in 0..4 * OPEN_MAX as u32 {
            raise(&mut alerts, 100_000 + n, 5_000);
            if n % 1_000 == 0 {
                raise(&mut alerts, late, 5_000);
            }
        }
        assert!(alerts.is_on(Kind::VerticalScan, from(late), 5_600 * SECOND));
        assert_eq!(alerts.withheld(), 2 + 4 * OPEN_MAX as u64);
        assert_eq!(alerts.open.len(), OPEN_MAX);
    }

    /// Score, reasons and method are those of one finding: the one of the highest score.
    #[test]
    fn an_episode_gives_the_reasons_of_its_score() {
        let mut alerts = Alerts::default();
        let ip = Ip::v4([10, 0, 0, 1]);
        let found = |severity, probability, method| {
            let alert = Alert::new(Kind::BruteForce, ip, Range::at(1, SECOND), SECOND);
            alert.rated(severity, probability, method).because(method, probability, 0.0)
        };
        for (severity, probability, method) in [
            (Severity::High, 0.5, "first"),
            (Severity::Medium, 0.9, "strongest"),
            (Severity::High, 0.7, "later"),
            (Severity::Low, 0.9, "as strong"),
        ] {
            alerts.raise(found(severity, probability, method));
        }
        let only = &alerts.as_slice()[0];
        assert_eq!((only.severity, only.probability, only.method), (Severity::High, 0.9, "strongest"));
        assert_eq!(only.reasons().next().unwrap().name, "strongest");
    }
}
