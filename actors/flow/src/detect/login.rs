//! Logins tried over and over: refusals that the server writes in clear, short encrypted sessions that end where a refused login ends, and
//! where neither is known short sessions that are all alike and end at the server's word.
//!
//! Three things keep ordinary programs out. *The same again is no guess*: a program with an outdated password says the same each time, and of
//! such refusals one in four counts, unless they follow at once. *Somebody who is let in* now and then has a password. *Guessing takes all the time there is*: health checks,
//! pollers and monitoring wait between two sessions, so shapes alone count only where the next session follows at once.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Ends, Hosts, furthest};
use super::inspect::{Finding, Service};
use super::lately::Lately;
use crate::address::Ip;
use crate::hash::{Recent, hash_of, joined, shorter};
use crate::packet::protocol;
use crate::record::{ConnState, FlowRecord};
use crate::sketch::{Distinct, Few};
use crate::table::{Flow, SECOND};

/// Window of every count here but the slow one; a person who mistypes tries a handful of times in it.
pub const WINDOW_NS: u64 = 600 * SECOND;
/// Refusals in clear, or passwords refused in SSH: three sessions of three tries are a person's, and one more is not.
pub const REFUSED_MIN: u32 = 10;
/// Of refusals of the very same name and password one in so many counts.
pub const SAME_EACH: u32 = 4;
/// But each counts that follows so soon, of logins that people and their programs make: a loop, whatever it says. Programs wait longer.
pub const AT_ONCE_NS: u64 = 5 * SECOND;
/// Refusals by several servers together: a person with an outdated password is refused by all of them.
pub const SPRAYED_MIN: u32 = 15;
/// Servers they are spread over.
pub const SERVERS_MIN: u32 = 5;
/// Refusals one by one, with a pause of [`SLOW_NS`] at most between two.
pub const SLOW_MIN: u32 = 30;
/// Longest pause between two of them.
pub const SLOW_NS: u64 = 1_200 * SECOND;
/// Desktop sessions, or sessions of a flow log, that look like a refused login; more, because they only look like it.
pub const SESSIONS_MIN: u32 = 15;
/// Short sessions alike, of a service that is not known to refuse.
pub const ALIKE_MIN: u32 = 30;
/// Pause between two sessions that still counts as none: what a program takes to begin another.
pub const PAUSE_NS: u64 = SECOND / 2;
/// Longest session, and most that its ends say, where a login is refused and nothing else happens.
pub const SHORT: (u64, u64, u64) = (30 * SECOND, 2_000, 6_000);
/// The same in TLS, which says hello and shows certificates before.
pub const SHORT_TLS: (u64, u64, u64) = (30 * SECOND, 3_000, 12_000);
/// Clients that one service refused within the window and was never seen to let in: each tries few times, all together guess.
pub const STRANGERS_MIN: u32 = 20;
/// And so many for a hundred clients that it let in meanwhile: of many clients some have an outdated password, and of those who are new some
/// mistype. A tenth is much for them.
pub const STRANGERS_PERCENT: u32 = 25;
/// How long it is known who was let in.
const LET_IN_NS: u64 = 86_400 * SECOND;
/// Words of 64 clients of a service that were let in.
const LET_IN_WORDS: usize = 1 << 12;
/// Services watched for what many clients try.
const CROWDS_MAX: usize = 1 << 11;
/// Answers to login forms, good or bad. Nobody submits one every 20 seconds.
pub const FORMS_MIN: u32 = 30;
/// Server's bytes after the key exchange of SSH: service accepted, and refusals of 80 bytes each for as many as servers allow.
/// After a login there are at least host keys and channel messages, 1,000 bytes and more.
pub const SSH_REFUSED_BYTES: u64 = 900;
/// What a desktop session says each way until a login is refused, at least: a health check hangs up before.
pub const RDP_ASKED_BYTES: u64 = 300;
/// A desktop session that was let in sends pictures.
pub const RDP_REFUSED_BYTES: u64 = 8_000;
/// Pairs watched at once, with the clients that are watched over all servers.
const TRACKED_MAX: usize = 1 << 14;

/// What a client tried at a service within the window.
#[derive(Debug, Clone, Copy)]
struct Tries {
    range: Range,
    refused: u32,
    /// Hash of what was said when a login was refused last, and how often that came again.
    secret: u32,
    again: u32,
    refused_ns: u64,
    guesses: u32,
    sessions: u32,
    forms: u32,
    taken: u32,
    served: u32,
    alike: Alike,
    /// Servers, where all of a port are counted together.
    servers: Few,
    /// Refusals without a long pause, however long ago the first was; and the servers of them, where all are counted together.
    slow: u32,
    slow_ns: u64,
    slow_servers: Few,
    /// What is spoken, as far as it showed.
    service: Service,
}

impl Tries {
    fn new(number: u64, ts: u64) -> Self {
        Self {
            range: Range::at(number, ts),
            refused: 0,
            secret: 0,
            again: 0,
            refused_ns: 0,
            guesses: 0,
            sessions: 0,
            forms: 0,
            taken: 0,
            served: 0,
            alike: Alike::default(),
            servers: Few::default(),
            slow: 0,
            slow_ns: ts,
            slow_servers: Few::default(),
            service: Service::Unknown,
        }
    }

    /// Lets time pass.
    fn at(&mut self, number: u64, ts: u64) {
        if ts.saturating_sub(self.range.first_ns) > WINDOW_NS {
            let Self { slow, slow_ns, slow_servers, service, .. } = *self;
            let new = Self { service, ..Self::new(number, ts) };
            *self = if ts.saturating_sub(slow_ns) > SLOW_NS {
                Self { slow_ns, ..new }
            } else {
                Self { slow, slow_ns, slow_servers, ..new }
            };
        }
        self.range.cover(number, ts);
    }

    /// Counts a refusal of what was said; the same again counts less.
    fn refuse(&mut self, service: Service, secret: u32, ts: u64) {
        let last_ns = std::mem::replace(&mut self.refused_ns, ts);
        let loops = matches!(
            service,
            Service::Ftp | Service::Pop3 | Service::Imap | Service::Smtp | Service::Rtsp | Service::Sip
        );
        let at_once = loops && ts.saturating_sub(last_ns) <= AT_ONCE_NS;
        if secret != 0 && secret == self.secret && !at_once {
            self.again += 1;
            self.refused += u32::from(self.again.is_multiple_of(SAME_EACH));
            return;
        }
        self.secret = secret;
        self.refused += 1;
        self.slowly(ts);
    }

    fn slowly(&mut self, ts: u64) {
        if ts.saturating_sub(self.slow_ns) > SLOW_NS {
            (self.slow, self.slow_servers) = (0, Few::default());
        }
        self.slow += 1;
        self.slow_ns = self.slow_ns.max(ts);
    }
}

/// Sessions that are like most of the others: those of the majority, by vote (Boyer and Moore).
#[derive(Debug, Clone, Copy, Default)]
struct Alike {
    sent: u32,
    received: u32,
    lead: u32,
    count: u32,
    others: u32,
    /// Of those alike, how many the server ended.
    ended: u32,
    first_ns: u64,
    last_ns: u64,
    busy_ns: u64,
}

impl Alike {
    /// Takes a session. Names and passwords differ in length, refusals hardly.
    fn take(&mut self, record: &FlowRecord, short: (u64, u64, u64)) {
        let (sent, received) = (short_of(record.sent.bytes), short_of(record.received.bytes));
        if self.lead == 0 {
            (self.sent, self.received) = (sent, received);
        }
        if self.count + self.others == 0 {
            self.first_ns = record.start_ns;
        }
        self.first_ns = self.first_ns.min(record.start_ns);
        self.last_ns = self.last_ns.max(record.last_ns);
        let is_alike = is_short(record, short)
            && received.abs_diff(self.received) <= 16 + self.received / 64
            && sent.abs_diff(self.sent) <= 32 + self.sent / 8;
        if !is_alike {
            (self.lead, self.others) = (self.lead.saturating_sub(1), self.others + 1);
            return;
        }
        (self.lead, self.count) = (self.lead + 1, self.count + 1);
        self.ended += u32::from(server_ends(record));
        self.busy_ns = self.busy_ns.saturating_add(record.last_ns.saturating_sub(record.start_ns));
    }

    /// Whether one session follows the other at once, or several go on side by side; and hardly anything else happens.
    fn is_busy(&self) -> bool {
        let busy = self.busy_ns.saturating_add(u64::from(self.count) * PAUSE_NS);
        busy >= self.last_ns - self.first_ns && self.others * 9 <= self.count
    }

    /// Whether the server ends four of five.
    fn is_ended(&self) -> bool {
        self.ended * 5 >= self.count * 4
    }
}

fn short_of(bytes: u64) -> u32 {
    bytes.min(u64::from(u32::MAX)) as u32
}

/// A session in which both ends speak, and which is over soon.
fn is_short(record: &FlowRecord, (ns, sent, received): (u64, u64, u64)) -> bool {
    record.history.starts_with(b'S')
        && matches!(
            record.state,
            ConnState::Sf | ConnState::RstO | ConnState::RstR | ConnState::S3 | ConnState::S2
        )
        && record.last_ns.saturating_sub(record.start_ns) <= ns
        && record.sent.bytes <= sent
        && record.received.bytes <= received
}

/// Whether the server was the first to end it.
fn server_ends(record: &FlowRecord) -> bool {
    let ends = record.history.letters().iter().find(|letter| matches!(letter, b'f' | b'r' | b'F' | b'R'));
    matches!(ends, Some(b'f' | b'r'))
}

/// Services whose sessions look alike while logins are refused, and otherwise not, by their port; and whether their server then hangs up.
/// Mail between servers and directories are not among them: asking for addresses and checking passwords for others looks the same.
fn login_port(port: u16, from_log: bool) -> Option<(&'static str, bool)> {
    Some(match port {
        465 => ("smtp", false),
        990 => ("ftp", false),
        992 => ("telnet", false),
        993 => ("imap", false),
        995 => ("pop3", false),
        5986 => ("winrm", false),
        // From packets these are read in clear.
        110 if from_log => ("pop3", false),
        139 | 445 if from_log => ("smb", false),
        143 if from_log => ("imap", false),
        587 if from_log => ("smtp", false),
        1433 if from_log => ("mssql", true),
        3306 if from_log => ("mysql", true),
        5432 if from_log => ("postgres", true),
        5900 if from_log => ("vnc", true),
        _ => return None,
    })
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Logins {
    /// By client, server and port; and by client and port with no server, for what several refuse.
    tries: Recent<(Ip, Ip, u16), Tries>,
    /// By server and port: what many clients try.
    crowds: Recent<(Ip, u16), Crowd>,
    /// Clients that a service let in, by both.
    let_in: Lately<LET_IN_NS, LET_IN_WORDS>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { tries: Recent::new(TRACKED_MAX), crowds: Recent::new(CROWDS_MAX), let_in: Lately::default() }
    }
}

/// What the clients of a service tried within the window, all together.
#[derive(Debug, Clone)]
struct Crowd {
    range: Range,
    /// Clients that were refused and are not known to have been let in; and those that were let in.
    strangers: Distinct,
    welcome: Distinct,
    refused: u32,
}

impl Crowd {
    fn new(number: u64, ts: u64) -> Self {
        Self {
            range: Range::at(number, ts),
            strangers: Distinct::default(),
            welcome: Distinct::default(),
            refused: 0,
        }
    }
}

/// What speaks for guessing where calls come at regular times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guesses {
    /// Of these calls so many were logins refused, or tried.
    pub count: u32,
    /// What is spoken.
    pub method: &'static str,
}

/// One count that may be too high.
struct Figure {
    /// Whether the conditions beside it hold.
    holds: bool,
    before: u32,
    seen: u32,
    least: u32,
    method: &'static str,
    measure: Measure,
    /// At most so severe.
    severity: Severity,
    what: &'static str,
}

impl Logins {
    fn at(&mut self, record: &FlowRecord, server: Ip, number: u64, ts: u64) -> &mut Tries {
        let key = (record.originator, server, record.responder_port);
        let tries = self.tries.entry(key, || Tries::new(number, ts));
        tries.at(number, ts);
        tries
    }

    /// Takes what a packet of a flow showed.
    pub fn found(
        &mut self,
        flow: &Flow,
        finding: Finding,
        (number, ts): (u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let (record, service) = (&flow.record, flow.inspection.service);
        let tries = self.at(record, record.responder, number, ts);
        let before = *tries;
        tries.service = service;
        match finding {
            Finding::LoginFailed => tries.refuse(service, flow.inspection.secret, ts),
            Finding::LoginTaken => tries.taken += 1,
            // The same name and password again say nothing new, whatever the answer.
            Finding::LoginAnswered => {
                let secret = std::mem::replace(&mut tries.secret, flow.inspection.secret);
                tries.forms += u32::from(secret != tries.secret || secret == 0);
            }
            Finding::Served => tries.served += 1,
            Finding::Heartbleed { .. } | Finding::Requested | Finding::AdminShare | Finding::Trickled => {
                return;
            }
        }
        let method = if finding == Finding::LoginAnswered { "http form" } else { service.name() };
        Self::judge((&before, &*tries), record, method, ts, hosts, alerts);
        // Pages of several servers refuse for many reasons, and telephones answer challenges that are too old.
        let says_so = !matches!(service, Service::Http | Service::Rtsp | Service::Sip);
        if says_so && matches!(finding, Finding::LoginFailed | Finding::LoginTaken) {
            let is_refused = finding == Finding::LoginFailed;
            // Not of what was refused before.
            let is_new = tries.again == before.again;
            self.sprayed(
                record,
                service,
                |tries| {
                    if is_refused {
                        tries.refused += 1;
                        if is_new {
                            tries.slowly(ts);
                        }
                    } else {
                        tries.taken += 1;
                    }
                },
                (number, ts),
                hosts,
                alerts,
            );
            if is_new {
                self.together(record, service, is_refused, (number, ts), hosts, alerts);
            }
        }
    }

    /// Counts something over all clients of a service. Those it was seen to let in are none of those who guess, whatever is refused them now: so a
    /// service that refuses everybody because it is broken is not attacked.
    fn together(
        &mut self,
        record: &FlowRecord,
        service: Service,
        is_refused: bool,
        (number, ts): (u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let (client, server, port) = (hash_of(&record.originator), record.responder, record.responder_port);
        let known = joined(client, Ends::with(hash_of(&server), port, 0));
        let new = || Crowd::new(number, ts);
        if !is_refused {
            self.let_in.note(known, ts);
            // Who was let in counts beside those who are not.
            let Some(crowd) = self.crowds.find(&(server, port)) else { return };
            if ts.saturating_sub(crowd.range.first_ns) > WINDOW_NS {
                *crowd = new();
            }
            crowd.welcome.insert(client);
            return;
        }
        if self.let_in.may_hold(known, ts) {
            return;
        }
        let crowd = self.crowds.entry((server, port), new);
        if ts.saturating_sub(crowd.range.first_ns) > WINDOW_NS {
            *crowd = new();
        }
        crowd.range.cover(number, ts);
        crowd.refused += 1;
        let before = crowd.strangers.settled();
        if !crowd.strangers.insert(client) {
            return;
        }
        let (strangers, welcome) = (crowd.strangers.settled(), crowd.welcome.settled());
        if u64::from(strangers) * 100 < u64::from(welcome) * u64::from(STRANGERS_PERCENT) {
            return;
        }
        let times = f64::from(strangers) / f64::from(STRANGERS_MIN);
        if strangers < STRANGERS_MIN {
            if steps(before.into(), strangers.into(), STRANGERS_MIN.into()) {
                alerts.note(Measure::Refused, furthest(hosts, server), times);
            }
            return;
        }
        let probability = alerts.weigh(Measure::Refused, furthest(hosts, server), times);
        let mut alert = Alert::new(Kind::BruteForce, server, crowd.range, ts)
            .against(server, Some(port))
            .rated(Severity::Medium, probability, service.name())
            .because("clients refused in 10 min that were never let in", strangers, STRANGERS_MIN - 1)
            .because("clients let in meanwhile", welcome, strangers * 100 / STRANGERS_PERCENT)
            .because("logins refused them", crowd.refused, 0.0)
            .because("seconds", crowd.range.span_ns() as f64 / SECOND as f64, 0.0);
        // Each of them did little: the server is named, for all of them.
        alert.spoofed = true;
        alerts.raise(alert);
    }

    /// Whether the last `calls` of a client to a service, about `period_ns` apart, are logins tried rather than calls home: as many were refused; or
    /// they look like it, and at this pace guessing would be told before long.
    pub(super) fn guesses(
        &self,
        record: &FlowRecord,
        calls: u32,
        period_ns: f64,
        now: u64,
    ) -> Option<Guesses> {
        let tries = self.tries.look(&(record.originator, record.responder, record.responder_port))?;
        let nearly = |count: u32, of: u32| count > 0 && count * 10 >= of * 9;
        let method = match tries.service {
            Service::Unknown => Service::of_port(record.responder_port).name(),
            service => service.name(),
        };
        if nearly(tries.slow, calls) && now.saturating_sub(tries.slow_ns) <= SLOW_NS && tries.taken == 0 {
            return Some(Guesses { count: tries.slow, method });
        }
        // The rest counts within a window only.
        let window = (WINDOW_NS as f64 / period_ns.max(1.0)) as u32;
        let seen = calls.min(window.max(1));
        let is_soon = |least: u32| window >= least && now.saturating_sub(tries.range.first_ns) <= WINDOW_NS;
        if is_soon(FORMS_MIN) && nearly(tries.forms, seen) {
            return Some(Guesses { count: tries.forms, method: "http form" });
        }
        if is_soon(SESSIONS_MIN) && nearly(tries.sessions, seen) {
            return Some(Guesses { count: tries.sessions, method });
        }
        let alike = &tries.alike;
        let known = login_port(record.responder_port, true);
        if let Some((method, hangs_up)) = known
            && is_soon(ALIKE_MIN)
            && nearly(alike.count, seen)
            && alike.is_busy()
            && (!hangs_up || alike.is_ended())
        {
            return Some(Guesses { count: alike.count, method });
        }
        None
    }

    /// Counts something over all servers of a port.
    fn sprayed(
        &mut self,
        record: &FlowRecord,
        service: Service,
        count: impl FnOnce(&mut Tries),
        (number, ts): (u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let tries = self.at(record, Ip::default(), number, ts);
        let before = *tries;
        count(tries);
        let server = shorter(hash_of(&record.responder));
        tries.servers.insert(server);
        if tries.slow > before.slow {
            tries.slow_servers.insert(server);
        }
        let (holds, severity) = (tries.servers.count() >= SERVERS_MIN, Severity::High);
        let figure = |before, seen, method, measure| Figure {
            holds,
            before,
            seen,
            least: SPRAYED_MIN,
            method,
            measure,
            severity,
            what: "logins that failed in 10 min",
        };
        let refused = holds && tries.taken * 4 <= tries.refused;
        let figures = [
            Figure {
                holds: refused,
                ..figure(before.refused, tries.refused, service.name(), Measure::Refused)
            },
            figure(before.guesses, tries.guesses, service.name(), Measure::Refused),
            figure(before.sessions, tries.sessions, service.name(), Measure::Sessions),
            Figure {
                holds: tries.slow_servers.count() >= SERVERS_MIN && tries.taken == 0,
                least: SLOW_MIN,
                severity: Severity::Low,
                what: "logins that failed, 20 min apart at most",
                ..figure(before.slow, tries.slow, service.name(), Measure::Refused)
            },
        ];
        Self::raise(figures, tries, record, ts, hosts, alerts);
    }

    /// Takes a flow that ended.
    #[inline]
    pub fn ended(
        &mut self,
        flow: Option<&Flow>,
        record: &FlowRecord,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        if record.protocol != protocol::TCP || record.received.bytes == 0 || record.sent.bytes == 0 {
            return;
        }
        let by_port = Service::of_port(record.responder_port);
        let Some(flow) = flow else {
            // A log says no more than the port.
            if by_port != Service::Unknown {
                self.session(None, record, by_port, hosts, alerts);
            } else if let Some(known) = login_port(record.responder_port, true) {
                let is_tls = login_port(record.responder_port, false).is_some();
                self.alike(record, known, if is_tls { SHORT_TLS } else { SHORT }, hosts, alerts);
            }
            return;
        };
        let known = flow.inspection.service;
        let service = if known == Service::Unknown { by_port } else { known };
        if flow.inspection.encrypted {
            self.shape(flow, record, service, hosts, alerts);
        } else if matches!(service, Service::Ssh | Service::Rdp | Service::Ftp | Service::Telnet) {
            self.session(Some(flow), record, service, hosts, alerts);
        } else if matches!(service, Service::Unknown | Service::Tls) {
            self.shape(flow, record, service, hosts, alerts);
        }
    }

    #[inline(never)]
    fn session(
        &mut self,
        flow: Option<&Flow>,
        record: &FlowRecord,
        service: Service,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let refused = match service {
            Service::Ssh => match flow.map(|flow| flow.inspection.mark) {
                Some(0) => false,
                Some(keys_at) => {
                    (1..=SSH_REFUSED_BYTES).contains(&record.received.bytes.saturating_sub(keys_at.into()))
                }
                // From a log: key exchanges take up to 3 kB of it.
                None => record.received.bytes <= 3_000 && (500..=4_000).contains(&record.sent.bytes),
            },
            Service::Rdp => {
                (RDP_ASKED_BYTES..=RDP_REFUSED_BYTES).contains(&record.received.bytes)
                    && record.sent.bytes >= RDP_ASKED_BYTES
                    && record.last_ns - record.start_ns <= 30 * SECOND
            }
            // A log does not say what the server wrote; sessions that a refused login fits in have to do.
            Service::Ftp | Service::Telnet if flow.is_none() => {
                is_short(record, SHORT)
                    && record.received.bytes <= 600
                    && (16..=200).contains(&record.sent.bytes)
            }
            _ => false,
        };
        let (number, ts) = (record.packets.1, record.last_ns);
        if !refused {
            // Beyond what refusals say somebody was let in.
            if service == Service::Ssh && flow.is_some_and(|flow| flow.inspection.mark > 0) {
                self.together(record, service, false, (number, ts), hosts, alerts);
            }
            return;
        }
        // The service is taken and the question who may try is refused first; then each password.
        let guesses = match flow {
            Some(flow) if service == Service::Ssh => {
                u32::from(flow.inspection.after_keys).saturating_sub(2).clamp(1, 10)
            }
            _ => 0,
        };
        let count = |tries: &mut Tries| {
            tries.guesses += guesses;
            tries.sessions += u32::from(guesses == 0);
            if guesses > 0 {
                tries.slowly(ts);
            }
        };
        let tries = self.at(record, record.responder, number, ts);
        let before = *tries;
        tries.service = service;
        count(tries);
        if matches!(service, Service::Ftp | Service::Telnet) && guesses == 0 {
            tries.alike.take(record, SHORT);
        }
        Self::judge((&before, &*tries), record, service.name(), ts, hosts, alerts);
        self.sprayed(record, service, count, (number, ts), hosts, alerts);
        if guesses > 0 {
            self.together(record, service, true, (number, ts), hosts, alerts);
        }
    }

    /// A session of a service that does not show in clear what it refuses.
    #[inline]
    fn shape(
        &mut self,
        flow: &Flow,
        record: &FlowRecord,
        service: Service,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let seen = &flow.inspection;
        let port = record.responder_port;
        let (known, short) = match service {
            // Mail between servers and directories are left out, as in clear.
            Service::Ldap => return,
            Service::Smtp if port == 25 => return,
            // Databases throw out whom they refuse.
            Service::MySql | Service::Postgres => ((service.name(), true), SHORT_TLS),
            _ if seen.encrypted => ((service.name(), false), SHORT_TLS),
            Service::Tls => match login_port(port, false) {
                Some(known) => (known, SHORT_TLS),
                None => return,
            },
            // A question and its answer are no dialogue; names are also asked for like that, and some ask again.
            _ if seen.server_turns >= 2 && !matches!(port, 53 | 80 | 443 | 853 | 8_080) => {
                (("unknown", true), SHORT)
            }
            _ => return,
        };
        self.alike(record, known, short, hosts, alerts);
    }

    #[inline(never)]
    fn alike(
        &mut self,
        record: &FlowRecord,
        (method, hangs_up): (&'static str, bool),
        short: (u64, u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let (number, ts) = (record.packets.1, record.last_ns);
        let tries = self.at(record, record.responder, number, ts);
        let before = tries.alike.count;
        tries.alike.take(record, short);
        let alike = tries.alike;
        let figure = Figure {
            holds: alike.is_busy() && (!hangs_up || alike.is_ended()),
            before,
            seen: alike.count,
            least: ALIKE_MIN,
            method,
            measure: Measure::Sessions,
            severity: Severity::Low,
            what: "short sessions alike in 10 min",
        };
        Self::raise([figure], tries, record, ts, hosts, alerts);
    }

    fn judge(
        (before, tries): (&Tries, &Tries),
        record: &FlowRecord,
        method: &'static str,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let Tries { refused, guesses, sessions, forms, taken, served, slow, .. } = *tries;
        // Pages refused now and then among pages served are a browser; a login page served between tries is not counted twice.
        let mostly_refused = taken * 4 <= refused && served * 4 <= refused;
        let figure = |before, seen, least, measure| Figure {
            holds: true,
            before,
            seen,
            least,
            method,
            measure,
            severity: Severity::High,
            what: "logins that failed in 10 min",
        };
        let figures = [
            Figure {
                holds: mostly_refused,
                ..figure(before.refused, refused, REFUSED_MIN, Measure::Refused)
            },
            figure(before.guesses, guesses, REFUSED_MIN, Measure::Refused),
            Figure {
                // Some are also what a program does that asks now and then.
                holds: tries.alike.count == 0 || tries.alike.is_busy(),
                ..figure(before.sessions, sessions, SESSIONS_MIN, Measure::Sessions)
            },
            Figure {
                holds: served <= forms * 3,
                method: "http form",
                what: "login forms sent in 10 min",
                ..figure(before.forms, forms, FORMS_MIN, Measure::Forms)
            },
            // What takes hours may as well be a job with an outdated password.
            Figure {
                holds: taken == 0 && served == 0,
                severity: Severity::Low,
                what: "logins that failed, 20 min apart at most",
                ..figure(before.slow, slow, SLOW_MIN, Measure::Refused)
            },
        ];
        Self::raise(figures, tries, record, now, hosts, alerts);
    }

    /// Raises the first figure that is too high, or notes those that are on the way.
    fn raise<const N: usize>(
        figures: [Figure; N],
        tries: &Tries,
        record: &FlowRecord,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let times = |figure: &Figure| f64::from(figure.seen) / f64::from(figure.least);
        let Some(figure) = figures.iter().find(|figure| figure.holds && figure.seen >= figure.least) else {
            for figure in figures {
                if figure.holds && steps(figure.before.into(), figure.seen.into(), figure.least.into()) {
                    alerts.note(figure.measure, furthest(hosts, record.originator), times(&figure));
                }
            }
            return;
        };
        let probability = alerts.weigh(figure.measure, furthest(hosts, record.originator), times(figure));
        let grave = tries.taken > 0 || figure.seen >= 10 * figure.least;
        let severity = figure.severity.min(if grave { Severity::High } else { Severity::Medium });
        let servers = tries.servers.count().max(tries.slow_servers.count());
        let mut alert = Alert::new(Kind::BruteForce, record.originator, tries.range, now)
            .against(record.responder, Some(record.responder_port))
            .rated(severity, probability, figure.method)
            .because(figure.what, figure.seen, figure.least - 1)
            .because("logins taken", tries.taken, 1.0)
            .because("seconds", tries.range.span_ns() as f64 / SECOND as f64, 0.0);
        if servers > 0 {
            alert = alert.because("servers, ten and more as ten", servers, SERVERS_MIN - 1);
        }
        alerts.raise(alert);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tries.bytes(|_| 0)
            + self.crowds.bytes(|crowd| crowd.strangers.owned_bytes() + crowd.welcome.owned_bytes())
            + self.let_in.bytes()
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tries.dropped() + self.crowds.dropped()
    }
}
