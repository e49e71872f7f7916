//! Traffic through the flow table, the detectors and the users' rules, to findings.

use crate::traffic;
use std::net::IpAddr;
use tidegate_alert::{Finding, Proof, Range, Reason, Severity};
use tidegate_flow::table::Answer;
use tidegate_flow::{Alert, Detectors, Flow, FlowRecord, FlowTable, Frame, Packet, TableCounts, Watch};
use tidegate_replay::decode::Traffic;
use tidegate_rules::{Extract, Hit, Kind, Level, Origin, Record, RuleSet, Value};

/// Detectors and rules over one input.
pub(crate) struct Judge {
    table: FlowTable,
    watchers: Watchers,
    rules: RuleSet,
    input: String,
    units: u64,
}

/// Who looks at the flow table; records are made only where there are rules.
struct Watchers {
    detectors: Detectors,
    extract: Option<Extract>,
    /// Flows that ended since they were last taken, where somebody wants them.
    ended: Option<Vec<FlowRecord>>,
}

impl Judge {
    /// A judge who knows nothing yet; `input` is the name findings prove themselves by, empty for none.
    pub(crate) fn new(flows_max: u32, rules: RuleSet, input: String) -> Self {
        let extract = (!rules.is_empty()).then(Extract::default);
        let watchers = Watchers { detectors: Detectors::default().listening(), extract, ended: None };
        Self { table: traffic::table(flows_max, 0), watchers, rules, input, units: 0 }
    }

    /// Keeps flows that end for [`Self::take_flows`], which must be asked now and then.
    pub(crate) fn keeping_flows(mut self) -> Self {
        self.watchers.ended = Some(Vec::new());
        self
    }

    /// Gives the flows that have ended since the last call.
    pub(crate) fn take_flows(&mut self, into: &mut Vec<FlowRecord>) {
        self.watchers.ended.iter_mut().for_each(|ended| into.append(ended));
    }

    /// Takes one packet or record.
    pub(crate) fn take(&mut self, traffic: &Traffic<'_>, found: impl FnMut(Finding)) {
        self.units += 1;
        match traffic {
            Traffic::Frame(Frame::Ip(packet)) => self.table.packet(packet, &mut self.watchers),
            Traffic::Frame(Frame::Arp(arp)) => self.watchers.detectors.arp(arp),
            Traffic::Frame(Frame::Other) => {}
            Traffic::Record(record) => {
                self.watchers.detectors.logged(record);
                self.watchers.ended.iter_mut().for_each(|ended| ended.push(*record));
                if let Some(extract) = &mut self.watchers.extract {
                    extract.logged(record);
                }
            }
        }
        self.drain(false, found);
    }

    /// Takes a row of a log that only rules understand.
    pub(crate) fn row(&mut self, record: &Record, mut found: impl FnMut(Finding)) {
        self.units += 1;
        let proof = Where { input: &self.input, units: self.units, at_end: false };
        self.rules.take(record, |hit| found(of_hit(hit, proof)));
    }

    /// Lets time pass without a packet.
    pub(crate) fn advance(&mut self, now: u64, found: impl FnMut(Finding)) {
        self.table.advance(now, &mut self.watchers);
        self.drain(false, found);
    }

    /// The input has ended.
    pub(crate) fn finish(&mut self, found: impl FnMut(Finding)) {
        self.table.finish(&mut self.watchers);
        self.drain(true, found);
    }

    fn drain(&mut self, at_end: bool, mut found: impl FnMut(Finding)) {
        let proof = Where { input: &self.input, units: self.units, at_end };
        let Watchers { detectors, extract, .. } = &mut self.watchers;
        let rules = &mut self.rules;
        if let Some(extract) = extract {
            extract.take_records(|record| rules.take(&record, |hit| found(of_hit(hit, proof))));
        }
        detectors.take_heard(|alert| {
            let finding = of_alert(alert, proof);
            if !rules.is_empty() {
                rules.take(&of_finding(&finding), |hit| found(of_hit(hit, proof)));
            }
            found(finding);
        });
    }

    /// Packets and records taken.
    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    pub(crate) fn counts(&self) -> TableCounts {
        self.table.counts()
    }

    /// What detectors and rules forgot for lack of room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.watchers.detectors.forgotten() + self.rules.forgotten()
    }

    /// Findings and records nobody looked at: too many at once.
    pub(crate) fn unheard(&self) -> u64 {
        self.watchers.detectors.unheard() + self.watchers.extract.as_ref().map_or(0, Extract::missed)
    }

    /// Records that rules looked at.
    pub(crate) fn records(&self) -> u64 {
        self.rules.records()
    }
}

impl Watch for Watchers {
    fn opened(&mut self, flow: &mut Flow, packet: &Packet<'_>) {
        self.detectors.opened(flow, packet);
    }

    fn packet(&mut self, flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) {
        if let Some(extract) = &mut self.extract {
            extract.packet(flow, from_originator, packet);
        }
        self.detectors.packet(flow, from_originator, packet);
    }

    fn decided(&mut self, flow: &mut Flow, answer: Answer, now: u64) {
        self.detectors.decided(flow, answer, now);
    }

    fn matured(&mut self, flow: &mut Flow, now: u64) {
        self.detectors.matured(flow, now);
    }

    fn record(&mut self, flow: &mut Flow, record: &FlowRecord) {
        if let Some(extract) = &mut self.extract {
            extract.record(flow, record);
        }
        self.ended.iter_mut().for_each(|ended| ended.push(*record));
        self.detectors.record(flow, record);
    }
}

/// Where in the input something was found.
#[derive(Clone, Copy)]
struct Where<'a> {
    input: &'a str,
    units: u64,
    at_end: bool,
}

impl Where<'_> {
    fn proof(self, ts: u64, score: f64) -> Option<Proof> {
        let proof = Proof {
            input: self.input.to_owned(),
            units: self.units,
            at_end: self.at_end,
            ts,
            score_bits: score.to_bits(),
        };
        (!self.input.is_empty()).then_some(proof)
    }
}

fn of_alert(alert: &Alert, at: Where<'_>) -> Finding {
    Finding {
        kind: alert.kind.name().to_owned(),
        entity: alert.source.to_string(),
        spoofed: alert.spoofed,
        peer: alert.peer.map(|peer| peer.to_string()),
        port: alert.port,
        method: alert.method.to_owned(),
        technique: Some(alert.kind.technique().to_owned()),
        severity: match alert.severity {
            tidegate_flow::Severity::Low => Severity::Low,
            tidegate_flow::Severity::Medium => Severity::Medium,
            tidegate_flow::Severity::High => Severity::High,
        },
        score: alert.probability,
        reasons: alert
            .reasons()
            .map(|reason| Reason::new(reason.name, reason.seen, reason.expected))
            .collect(),
        range: Range {
            first: alert.range.first,
            last: alert.range.last,
            first_ts: alert.range.first_ns,
            last_ts: alert.range.last_ns,
        },
        ts: alert.raised_ns,
        proof: at.proof(alert.raised_ns, alert.probability),
    }
}

fn of_hit(hit: Hit, at: Where<'_>) -> Finding {
    let score = hit.level.score();
    Finding {
        proof: at.proof(hit.ts, score),
        kind: hit.kind,
        entity: hit.entity,
        spoofed: false,
        peer: hit.peer,
        port: hit.port,
        method: hit.title,
        technique: hit.technique,
        severity: match hit.level {
            Level::Informational | Level::Low => Severity::Low,
            Level::Medium => Severity::Medium,
            Level::High | Level::Critical => Severity::High,
        },
        score,
        reasons: vec![Reason::new("counted", hit.seen as f64, hit.expected as f64)],
        range: Range { first: hit.units.0, last: hit.units.1, first_ts: hit.first_ts, last_ts: hit.ts },
        ts: hit.ts,
    }
}

/// A finding as rules see it.
fn of_finding(finding: &Finding) -> Record {
    let address =
        |text: &str| text.parse::<IpAddr>().map_or_else(|_| Value::from(text.to_owned()), Value::from);
    let mut record =
        Record::new(Kind::Alert, Origin::Own, finding.ts, (finding.range.first, finding.range.last))
            .with("kind", finding.kind.clone())
            .with("entity", address(&finding.entity))
            .with("severity", finding.severity.name())
            .with("score", finding.score)
            .with("method", finding.method.clone());
    if let Some(technique) = &finding.technique {
        record = record.with("technique", technique.clone());
    }
    if let Some(peer) = &finding.peer {
        record = record.with("peer", address(peer));
    }
    match finding.port {
        Some(port) => record.with("port", f64::from(port)),
        None => record,
    }
}
