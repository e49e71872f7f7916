//! Logins tried over and over: refusals that the server writes in clear, and short encrypted sessions that end where a refused login ends.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Hosts, furthest};
use super::inspect::{Finding, Service};
use crate::address::Ip;
use crate::hash::Recent;
use crate::packet::protocol;
use crate::record::{ConnState, FlowRecord};
use crate::table::{Flow, SECOND};

/// Window of every count here; a person who mistypes tries a handful of times in it.
pub const WINDOW_NS: u64 = 600 * SECOND;
/// Refusals in clear, or passwords refused in SSH: three sessions of three tries are a person's, and one more is not.
pub const REFUSED_MIN: u32 = 10;
/// Desktop sessions, or sessions of a flow log, that look like a refused login; more, because they only look like it.
pub const SESSIONS_MIN: u32 = 15;
/// Answers to login forms, good or bad. Nobody submits one every 20 seconds.
pub const FORMS_MIN: u32 = 30;
/// Server's bytes after the key exchange of SSH: service accepted, and refusals of 80 bytes each for as many as servers allow.
/// After a login there are at least host keys and channel messages, 1,000 bytes and more.
pub const SSH_REFUSED_BYTES: u64 = 900;
/// A desktop session that was let in sends pictures.
pub const RDP_REFUSED_BYTES: u64 = 8_000;
const TRACKED_MAX: usize = 1 << 14;

#[derive(Debug, Clone, Copy)]
struct Tries {
    range: Range,
    refused: u32,
    guesses: u32,
    sessions: u32,
    forms: u32,
    taken: u32,
    served: u32,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Logins {
    tries: Recent<(Ip, Ip, u16), Tries>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { tries: Recent::new(TRACKED_MAX) }
    }
}

impl Logins {
    fn at(&mut self, record: &FlowRecord, number: u64, ts: u64) -> &mut Tries {
        let new = || Tries {
            range: Range::at(number, ts),
            refused: 0,
            guesses: 0,
            sessions: 0,
            forms: 0,
            taken: 0,
            served: 0,
        };
        let tries = self.tries.entry((record.originator, record.responder, record.responder_port), new);
        if ts.saturating_sub(tries.range.first_ns) > WINDOW_NS {
            *tries = new();
        }
        tries.range.cover(number, ts);
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
        let tries = self.at(&flow.record, number, ts);
        let before = *tries;
        match finding {
            Finding::LoginFailed => tries.refused += 1,
            Finding::LoginTaken => tries.taken += 1,
            Finding::LoginAnswered => tries.forms += 1,
            Finding::Served => tries.served += 1,
            Finding::Heartbleed { .. } => return,
        }
        let judged = (&before, &*tries);
        Self::judge(judged, &flow.record, flow.inspection.service, ts, hosts, alerts);
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
        let known = flow.map_or(Service::Unknown, |flow| flow.inspection.service);
        let service = if known == Service::Unknown { Service::of_port(record.responder_port) } else { known };
        if matches!(service, Service::Ssh | Service::Rdp | Service::Ftp | Service::Telnet) {
            self.session(flow, record, service, hosts, alerts);
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
            Service::Ssh => match flow.map(|flow| flow.inspection.keys_at) {
                Some(0) => false,
                Some(keys_at) => {
                    (1..=SSH_REFUSED_BYTES).contains(&record.received.bytes.saturating_sub(keys_at))
                }
                // From a log: key exchanges take up to 3 kB of it.
                None => record.received.bytes <= 3_000 && (500..=4_000).contains(&record.sent.bytes),
            },
            Service::Rdp => {
                record.received.bytes <= RDP_REFUSED_BYTES && record.last_ns - record.start_ns <= 30 * SECOND
            }
            // A log does not say what the server wrote; sessions that a refused login fits in have to do.
            Service::Ftp | Service::Telnet if flow.is_none() => {
                matches!(
                    record.state,
                    ConnState::Sf | ConnState::RstO | ConnState::RstR | ConnState::S3 | ConnState::S2
                ) && record.received.bytes <= 600
                    && record.sent.bytes <= 200
            }
            _ => false,
        };
        if refused {
            let (number, ts) = (record.packets.1, record.last_ns);
            let tries = self.at(record, number, ts);
            let before = *tries;
            match flow {
                // The service is taken and the question who may try is refused first; then each password.
                Some(flow) if service == Service::Ssh => {
                    tries.guesses += u32::from(flow.inspection.after_keys).saturating_sub(2).clamp(1, 10);
                }
                _ => tries.sessions += 1,
            }
            Self::judge((&before, &*tries), record, service, ts, hosts, alerts);
        }
    }

    fn judge(
        (before, tries): (&Tries, &Tries),
        record: &FlowRecord,
        service: Service,
        now: u64,
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let Tries { refused, guesses, sessions, forms, taken, served, .. } = *tries;
        // Pages refused now and then among pages served are a browser; a login page served between tries is not counted twice.
        let mostly_refused = taken * 4 <= refused && served * 4 <= refused;
        let mostly_forms = served <= forms * 3;
        let figures = [
            (mostly_refused, before.refused, refused, REFUSED_MIN, service.name(), Measure::Refused),
            (true, before.guesses, guesses, REFUSED_MIN, service.name(), Measure::Refused),
            (true, before.sessions, sessions, SESSIONS_MIN, service.name(), Measure::Sessions),
            (mostly_forms, before.forms, forms, FORMS_MIN, "http form", Measure::Forms),
        ];
        let Some(&(.., seen, least, method, measure)) =
            figures.iter().find(|(holds, _, seen, least, ..)| *holds && seen >= least)
        else {
            for (holds, before, seen, least, _, measure) in figures {
                if holds && steps(before.into(), seen.into(), least.into()) {
                    let times = f64::from(seen) / f64::from(least);
                    alerts.note(measure, furthest(hosts, record.originator), times);
                }
            }
            return;
        };
        let times = f64::from(seen) / f64::from(least);
        let probability = alerts.weigh(measure, furthest(hosts, record.originator), times);
        let severity = if taken > 0 || seen >= 10 * least { Severity::High } else { Severity::Medium };
        alerts.raise(
            Alert::new(Kind::BruteForce, record.originator, tries.range, now)
                .against(record.responder, Some(record.responder_port))
                .rated(severity, probability, method)
                .because("logins that failed in 10 min", seen, least - 1)
                .because("logins taken", taken, 1.0)
                .because("seconds", tries.range.span_ns() as f64 / SECOND as f64, 0.0),
        );
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tries.bytes(|_| 0)
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tries.dropped()
    }
}
