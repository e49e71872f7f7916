//! The detectors for hosts, and what feeds them: the flow table's events, single packets, or records of a flow log.
//!
//! All thresholds are constants beside the detector they belong to, with their reason; `docs/detectors.md` lists them. Time is that
//! of the input, every map is bounded ([`crate::hash::Recent`]), and the same input raises the same alerts.

pub mod alert;
pub mod beacon;
pub mod crowd;
pub mod edge;
pub mod evidence;
pub mod flood;
pub mod host;
pub mod inspect;
pub mod lately;
pub mod link;
pub mod login;
pub mod names;
pub mod pings;
pub mod scan;
pub mod volume;

pub use alert::{Alert, Alerts, Feature, Kind, Range, Severity};

use self::flood::{Datagram, service};
use self::host::{Ends, HOSTS_MAX, Host, Hosts};
use self::inspect::Finding;
use self::lately::Lately;
use self::scan::{Outcome, Probe, failed, tried};
use crate::dns;
use crate::hash::{Place, Recent, hash_of, joined};
use crate::packet::{Arp, Fragment, Packet, protocol, tcp_flag};
use crate::record::{ConnState, EndCause, FlowRecord};
use crate::table::{Answer, Flow, SECOND, Watch};

/// Every detector.
#[derive(Debug, Clone)]
pub struct Detectors {
    alerts: Alerts,
    hosts: Hosts,
    scans: scan::Scans,
    floods: flood::Floods,
    crowds: crowd::Crowds,
    logins: login::Logins,
    edges: edge::Edges,
    names: names::Names,
    volumes: volume::Volumes,
    link: link::Link,
    pings: pings::Pings,
    /// Ends that sent UDP lately: what is sent to them is no search for open ports.
    talkers: Recent<u64, u64>,
    /// Pairs that failed of late, by how it was tried: for others nobody need ask what answers count beside.
    failing: Lately<{ scan::PORTS_SILENCE_NS }, FAILING_WORDS>,
    /// Services that did not complete connections of late.
    half_open: Lately<{ flood::WINDOW_NS }, HALF_OPEN_WORDS>,
    records: u64,
}

impl Default for Detectors {
    fn default() -> Self {
        Self {
            alerts: Alerts::default(),
            hosts: Recent::in_lines(HOSTS_MAX),
            scans: scan::Scans::default(),
            floods: flood::Floods::default(),
            crowds: crowd::Crowds::default(),
            logins: login::Logins::default(),
            edges: edge::Edges::default(),
            names: names::Names::default(),
            volumes: volume::Volumes::default(),
            link: link::Link::default(),
            pings: pings::Pings::default(),
            talkers: Recent::new(TALKERS_MAX),
            failing: Lately::default(),
            half_open: Lately::default(),
            records: 0,
        }
    }
}

/// What is worked out for a record before its turn: hashes, and where the entries it will need are.
#[derive(Debug, Clone, Copy, Default)]
struct Ahead {
    ends: Ends,
    edge: u64,
    edge_at: Place,
    /// Hash of the pair with SYN, and of the service.
    failed: u64,
    service: u64,
    /// What the originator tried on the port with SYN, failures of the pair with SYN, those of them on the port, and connections to the
    /// service not completed.
    tried_at: Place,
    failed_at: Place,
    same_at: Place,
    service_at: Place,
}

impl Ahead {
    #[inline]
    fn of(record: &FlowRecord) -> Self {
        let ends = Ends::of(record);
        let edge = ends.edge(record);
        let failed = failed(ends.pair, Probe::Syn);
        let service = service(ends.responder, record.responder_port);
        Self {
            edge,
            edge_at: Place::of(edge),
            failed,
            service,
            tried_at: Place::of(tried(ends.originator, record.responder_port, Probe::Syn)),
            failed_at: Place::of(failed),
            same_at: Place::of(edge),
            service_at: Place::of(service),
            ends,
        }
    }
}

/// Records read ahead together: more than a core has in flight gains nothing.
const BATCH: usize = 32;
/// Ends of UDP remembered.
const TALKERS_MAX: usize = 1 << 16;
/// Words of 64 pairs: while as many fail as tables remember, one of eight others is looked for in vain.
const FAILING_WORDS: usize = 1 << 12;
/// Words of 64 services.
const HALF_OPEN_WORDS: usize = 1 << 10;
/// Calls over UDP.
const SIP: u16 = 5060;

impl Detectors {
    /// The alerts so far, in order of being raised.
    #[must_use]
    pub fn alerts(&self) -> &[Alert] {
        self.alerts.as_slice()
    }

    /// Alerts not kept, see [`alert::ALERTS_MAX`].
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.alerts.withheld()
    }

    /// Keeps from now on what is raised, for [`Detectors::take_heard`].
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.alerts.listen();
        self
    }

    /// Gives what was raised since the last call, in order, repeats within an episode included.
    pub fn take_heard(&mut self, take: impl FnMut(&Alert)) {
        self.alerts.take_heard(take);
    }

    /// Raised alerts that nobody came for in time, see [`alert::HEARD_MAX`].
    #[must_use]
    pub fn unheard(&self) -> u64 {
        self.alerts.unheard()
    }

    /// What detectors forgot for lack of room: hosts, pairs and domains.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.hosts.dropped()
            + self.scans.dropped()
            + self.floods.dropped()
            + self.crowds.dropped()
            + self.logins.dropped()
            + self.edges.dropped()
            + self.names.dropped()
            + self.volumes.dropped()
            + self.link.dropped()
            + self.pings.dropped()
            + self.talkers.dropped()
    }

    /// Bytes that all of them hold: bounded by [`Detectors::BYTES_MAX`], whatever comes in. Looks at every entry.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.hosts.bytes(|_| 0)
            + self.scans.bytes()
            + self.floods.bytes()
            + self.crowds.bytes()
            + self.logins.bytes()
            + self.edges.bytes()
            + self.names.bytes()
            + self.volumes.bytes()
            + self.link.bytes()
            + self.pings.bytes()
            + self.talkers.bytes(|_| 0)
            + self.failing.bytes()
            + self.half_open.bytes()
    }

    /// What [`Detectors::bytes`] stays under when every table is full and every sketch has grown.
    pub const BYTES_MAX: usize = 256 << 20;

    /// Takes an ARP packet.
    pub fn arp(&mut self, arp: &Arp) {
        self.link.take(arp, &mut self.hosts, &mut self.alerts);
    }

    /// Takes a record of a flow log, in the log's order. What only packets show is not seen: names, logins in clear, link addresses.
    pub fn logged(&mut self, record: &FlowRecord) {
        self.take_logged(record, &Ahead::of(record));
    }

    fn take_logged(&mut self, record: &FlowRecord, ahead: &Ahead) {
        self.records += 1;
        let now = record.last_ns;
        // A part of a flow has no beginning of its own, and where packets were left out nobody can say what was answered: how much was sent
        // is all they tell.
        if record.cause == EndCause::Interim || record.sampling > 1 {
            return self.sized(record, &ahead.ends, &mut (0, 0), now);
        }
        if record.cause == EndCause::OneWay {
            self.called(record, ahead, now);
            return self.sized(record, &ahead.ends, &mut (0, 0), now);
        }
        let answer = match record.state {
            ConnState::Rej | ConnState::RstOS0 => Answer::Refused,
            ConnState::S0 | ConnState::Sh => Answer::Silent,
            ConnState::Oth if matches!(record.protocol, protocol::ICMP | protocol::ICMP6) => {
                if record.received.packets > 0 { Answer::Answered } else { Answer::Silent }
            }
            _ => Answer::Answered,
        };
        let history = record.history.letters();
        let kind = record.originator_port;
        let probe = match (record.protocol, history) {
            (protocol::TCP, [b'S', ..]) => Some(Probe::Syn),
            (protocol::TCP, [b'F'] | [b'F', b'r', ..]) => Some(Probe::Stealth),
            (protocol::UDP, _) => Some(Probe::Udp),
            (protocol::ICMP, _) if kind == 8 => Some(Probe::Ping),
            (protocol::ICMP6, _) if kind == 128 => Some(Probe::Ping),
            _ => None,
        };
        if record.protocol == protocol::UDP {
            self.heard(record.originator, kind, now);
        }
        if let Some(probe) = probe {
            let half_open = answer != Answer::Answered
                || (record.state == ConnState::RstO && record.sent.bytes == 0 && history.starts_with(b"ShR"));
            self.outcome(record, ahead, probe, answer, 0, now);
            if probe == Probe::Syn {
                self.connection(record, ahead.service, ahead.service_at, half_open, now);
            }
        }
        self.logins.ended(None, record, &mut self.hosts, &mut self.alerts);
        self.called(record, ahead, now);
        self.sized(record, &ahead.ends, &mut (0, 0), now);
    }

    /// Takes records of a flow log in order, as [`Detectors::logged`] does, but reads what several of them will need side by side, so
    /// that they wait for memory together.
    pub fn logged_all(&mut self, records: &[FlowRecord]) {
        let mut room = [Ahead::default(); BATCH];
        for batch in records.chunks(BATCH) {
            let ahead = &mut room[..batch.len()];
            for (ahead, record) in ahead.iter_mut().zip(batch) {
                *ahead = Ahead::of(record);
            }
            self.read_ahead(ahead);
            for (ahead, record) in ahead.iter().zip(batch) {
                self.take_logged(record, ahead);
            }
        }
    }

    /// Finds the entries of several records, and reads their lines. In rounds, each of which waits for memory once and reads only where
    /// the one before said: in one of them a core has as many waits in flight as it can.
    fn read_ahead(&self, ahead: &mut [Ahead]) {
        let mut seen = self.edges.warm_room(ahead.len());
        for ahead in ahead.iter() {
            seen ^= self.hosts.warm_place(ahead.ends.originator_at)
                ^ self.hosts.warm_place(ahead.ends.responder_at)
                ^ self.edges.warm_place(ahead.edge_at)
                ^ self.scans.warm_place(ahead.tried_at)
                ^ u64::from(self.failing.is_set(ahead.failed))
                ^ u64::from(self.half_open.is_set(ahead.service));
        }
        std::hint::black_box(seen);
        for ahead in ahead.iter_mut() {
            self.hosts.find_place(&mut ahead.ends.originator_at);
            self.hosts.find_place(&mut ahead.ends.responder_at);
            self.edges.find_place(&mut ahead.edge_at);
            self.scans.find_tried(&mut ahead.tried_at);
            if self.failing.is_set(ahead.failed) {
                self.scans.find_failed(&mut ahead.failed_at);
            }
            if self.half_open.is_set(ahead.service) {
                self.floods.find_place(&mut ahead.service_at);
            }
        }
        for ahead in ahead.iter() {
            seen ^= self.hosts.warm(ahead.ends.originator_at, Host::touch)
                ^ self.hosts.warm(ahead.ends.responder_at, |host| u64::from(host.callers.count()))
                ^ self.edges.warm(ahead.edge_at)
                ^ self.scans.warm(ahead.tried_at, ahead.failed_at, ahead.same_at)
                ^ self.floods.warm(ahead.service_at);
        }
        std::hint::black_box(seen);
        for ahead in ahead.iter_mut() {
            seen ^= self.edges.warm_next(ahead.edge_at);
            let same_at = &mut ahead.same_at;
            seen ^= self.scans.warm_answer(ahead.tried_at, ahead.failed_at, same_at, ahead.ends.responder);
        }
        std::hint::black_box(seen);
    }

    #[inline]
    fn called(&mut self, record: &FlowRecord, ahead: &Ahead, now: u64) {
        let edge = (ahead.edge, ahead.edge_at);
        self.edges.ended(record, &ahead.ends, edge, (now, &self.logins), &mut self.hosts, &mut self.alerts);
    }

    #[inline]
    fn sized(&mut self, record: &FlowRecord, ends: &Ends, told: &mut volume::Told, now: u64) {
        self.volumes.ended(record, ends, told, now, &mut self.hosts, &mut self.alerts);
    }

    #[inline]
    fn outcome(
        &mut self,
        record: &FlowRecord,
        ahead: &Ahead,
        probe: Probe,
        answer: Answer,
        ttl: u8,
        now: u64,
    ) {
        if probe == Probe::Udp && answer != Answer::Answered {
            let target = hash_of(&(record.responder, record.responder_port));
            if self.talkers.find(&target).is_some_and(|at| now.saturating_sub(*at) <= 300 * SECOND) {
                return;
            }
        }
        let port = if probe == Probe::Ping { record.originator_port } else { record.responder_port };
        let ends = &ahead.ends;
        if answer == Answer::Answered && matches!(probe, Probe::Syn | Probe::Udp) {
            self.asked(record, ends.originator, ahead.service, now);
        }
        let (tried_at, failed, mut failed_at) = match probe {
            Probe::Syn => (ahead.tried_at, ahead.failed, ahead.failed_at),
            _ => {
                let failed = failed(ends.pair, probe);
                (Place::of(tried(ends.originator, port, probe)), failed, Place::of(failed))
            }
        };
        if answer != Answer::Answered {
            self.failing.note(failed, now);
        } else if !self.failing.may_hold(failed, now) {
            failed_at = failed_at.absent();
        }
        let same_at = ahead.same_at;
        let outcome = Outcome { record, ends, port, probe, answer, now, ttl, tried_at, failed_at, same_at };
        self.scans.take(&outcome, &mut self.hosts, &mut self.alerts);
    }

    /// A service was asked, by a client from outside or not.
    #[inline]
    fn asked(&mut self, record: &FlowRecord, client: u64, service: u64, now: u64) {
        if !record.originator.is_private() {
            let service = joined(service, record.protocol.into());
            self.crowds.asked(record, (client, service), now, &mut self.hosts, &mut self.alerts);
        }
    }

    /// A connection was asked of a service: completed, or `half_open`.
    #[inline]
    fn connection(&mut self, record: &FlowRecord, service: u64, mut at: Place, half_open: bool, now: u64) {
        if half_open {
            self.half_open.note(service, now);
        } else if !self.half_open.may_hold(service, now) {
            at = at.absent();
        }
        self.floods.connection(record, at, half_open, now, &mut self.hosts, &mut self.alerts);
    }

    /// Takes what the payload of a packet shows.
    #[inline]
    fn shown(&mut self, flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) {
        match inspect::inspect(flow, from_originator, packet) {
            Some(Finding::Heartbleed { claimed, sent }) if !flow.inspection.told => {
                flow.inspection.told = true;
                let record = &flow.record;
                let at = Range::at(packet.number, packet.ts);
                self.alerts.raise(
                    Alert::new(Kind::Heartbleed, record.originator, at, packet.ts)
                        .against(record.responder, Some(record.responder_port))
                        .rated(Severity::High, 0.99, "tls")
                        .because("bytes claimed or answered", claimed, sent),
                );
            }
            Some(Finding::Heartbleed { .. }) | None => {}
            Some(Finding::Requested) => {
                let datagram = datagram(&flow.record, packet.ts);
                self.floods.requested(&datagram, &mut self.hosts, &mut self.alerts);
                let record = &flow.record;
                self.asked(record, hash_of(&record.originator), service_of(record), packet.ts);
            }
            Some(Finding::Trickled) => {
                let datagram = datagram(&flow.record, packet.ts);
                self.floods.trickled(&datagram, &mut self.hosts, &mut self.alerts);
            }
            Some(Finding::AdminShare) => {
                let (record, at) = (&flow.record, (packet.number, packet.ts));
                self.volumes.shared(record, at, &mut self.hosts, &mut self.alerts);
            }
            Some(finding) => {
                let (hosts, alerts) = (&mut self.hosts, &mut self.alerts);
                self.logins.found(flow, finding, (packet.number, packet.ts), hosts, alerts);
            }
        }
    }

    fn heard(&mut self, ip: crate::address::Ip, port: u16, now: u64) {
        *self.talkers.entry(hash_of(&(ip, port)), || now) = now;
    }
}

fn datagram(record: &FlowRecord, now: u64) -> Datagram {
    Datagram {
        source: record.originator,
        source_port: record.originator_port,
        target: record.responder,
        port: record.responder_port,
        bytes: 0,
        number: record.packets.0,
        now,
    }
}

/// What the service of a flow is known by.
fn service_of(record: &FlowRecord) -> u64 {
    service(hash_of(&record.responder), record.responder_port)
}

impl Watch for Detectors {
    fn opened(&mut self, flow: &mut Flow, packet: &Packet<'_>) {
        if packet.protocol == protocol::UDP {
            self.heard(packet.source, packet.source_port, flow.record.start_ns);
        }
    }

    fn packet(&mut self, flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) {
        match packet.protocol {
            protocol::TCP => {
                let flags = packet.tcp_flags;
                if from_originator
                    && !flow.inspection.completed
                    && flags & (tcp_flag::SYN | tcp_flag::RST) == 0
                    && flags & tcp_flag::ACK != 0
                    && flow.first_flags & tcp_flag::SYN != 0
                {
                    flow.inspection.completed = true;
                    let service = service_of(&flow.record);
                    self.connection(&flow.record, service, Place::of(service), false, packet.ts);
                }
                if packet.payload.is_empty() || packet.fragment == Fragment::Later {
                    return;
                }
                self.shown(flow, from_originator, packet);
            }
            protocol::UDP => {
                if (packet.target_port == SIP || packet.source_port == SIP)
                    && packet.fragment != Fragment::Later
                {
                    self.shown(flow, from_originator, packet);
                }
                let record = &flow.record;
                if from_originator && record.sent.packets > 1 && record.received.packets == 0 {
                    let datagram = Datagram { bytes: packet.ip_bytes, ..datagram(record, packet.ts) };
                    self.floods.datagram(&datagram, false, &mut self.hosts, &mut self.alerts);
                }
                self.floods.answer(packet, &mut self.hosts, &mut self.alerts);
                if (packet.source_port == 53 || packet.target_port == 53)
                    && packet.fragment != Fragment::Later
                    && let Some(message) = dns::read(packet.payload)
                {
                    let (client, server) = if message.response {
                        (packet.target, packet.source)
                    } else {
                        (packet.source, packet.target)
                    };
                    let (hosts, alerts) = (&mut self.hosts, &mut self.alerts);
                    self.names.take((client, server), &message, (packet.number, packet.ts), hosts, alerts);
                }
            }
            protocol::ICMP | protocol::ICMP6 => {
                // An answer to a question that was not seen.
                let unasked = !from_originator && flow.record.sent.packets == 0;
                self.floods.echo(packet, unasked, &mut self.hosts, &mut self.alerts);
                self.pings.take(packet, &mut self.hosts, &mut self.alerts);
            }
            _ => {}
        }
    }

    fn decided(&mut self, flow: &mut Flow, answer: Answer, now: u64) {
        let record = flow.record;
        if record.history.starts_with(b'^') || record.sent.packets == 0 {
            return;
        }
        let probe = match Probe::of(record.protocol, flow.first_flags) {
            Some(Probe::Ping) if !matches!(record.originator_port, 8 | 13 | 15 | 17 | 128) => return,
            Some(probe) => probe,
            None => return,
        };
        if matches!(probe, Probe::Ack | Probe::Reset | Probe::Stealth) && record.sent.bytes > 0 {
            return;
        }
        let ahead = Ahead::of(&record);
        self.outcome(&record, &ahead, probe, answer, flow.first_ttl, now);
        match probe {
            Probe::Syn if answer != Answer::Answered => {
                flow.inspection.completed = true;
                self.connection(&record, ahead.service, ahead.service_at, true, now);
            }
            Probe::Udp => {
                let bytes = (record.sent.ip_bytes / record.sent.packets.max(1)) as u32;
                let datagram = Datagram { bytes, ..datagram(&record, now) };
                let (hosts, alerts) = (&mut self.hosts, &mut self.alerts);
                self.floods.datagram(&datagram, answer == Answer::Answered, hosts, alerts);
            }
            _ => {}
        }
    }

    fn matured(&mut self, flow: &mut Flow, now: u64) {
        if flow.first_flags & tcp_flag::SYN == 0 {
            return;
        }
        let record = &flow.record;
        if !flow.inspection.completed {
            flow.inspection.completed = true;
            let service = service_of(record);
            self.connection(record, service, Place::of(service), true, now);
        } else if record.received.bytes == 0 && record.sent.bytes > 0 && record.sent.bytes < 2_048 {
            self.floods.stalled(&datagram(record, now), &mut self.hosts, &mut self.alerts);
        }
        self.volumes.goes_on(&flow.record, now, &mut self.hosts, &mut self.alerts);
    }

    fn stepped(&mut self) {
        // Windows that end in what is now the future would never end. Alerts stay.
        *self = Self { alerts: std::mem::take(&mut self.alerts), ..Self::default() };
    }

    fn record(&mut self, flow: &mut Flow, record: &FlowRecord) {
        let now = record.last_ns;
        let ahead = Ahead::of(record);
        if record.cause != EndCause::Interim {
            if record.protocol == protocol::TCP
                && flow.first_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
                && !flow.inspection.completed
            {
                flow.inspection.completed = true;
                self.connection(record, ahead.service, ahead.service_at, true, now);
            }
            self.logins.ended(Some(flow), record, &mut self.hosts, &mut self.alerts);
            self.called(record, &ahead, now);
        }
        self.sized(record, &ahead.ends, &mut flow.inspection.told_bytes, now);
    }
}
