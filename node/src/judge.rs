//! Traffic through the flow table, the detectors and the users' rules, to findings.

use crate::exit::Failure;
use crate::tabular::{CellJudge, Cells, SeriesCounts, edge_finding};
use crate::traffic::{self, Reading};
use std::net::IpAddr;
use tidegate_alert::{Finding, Proof, Range, Reason, Severity};
use tidegate_anomaly::{EdgeAlarm, EdgeAlarmOptions};
use tidegate_engine::name_hash;
use tidegate_flow::table::Answer;
use tidegate_flow::{
    Alert, Detectors, EndCause, Flow, FlowRecord, FlowTable, Frame, Packet, TableCounts, Watch,
};
use tidegate_replay::decode::Traffic;
use tidegate_rules::{Extract, Hit, Kind, Level, Origin, Record, RuleSet, Value};

/// Edges of one tick.
const TICK_NS: u64 = 60_000_000_000;
/// Unlikely edges that wait to be told; further ones are counted.
const EDGES_MAX: usize = 65_536;

/// Detectors and rules over one input.
pub(crate) struct Judge {
    table: FlowTable,
    watchers: Watchers,
    rules: RuleSet,
    /// For a table in place of traffic.
    cells: Option<CellJudge>,
    input: String,
    units: u64,
}

/// Who looks at the flow table; records are made only where there are rules.
struct Watchers {
    detectors: Detectors,
    extract: Option<Extract>,
    /// Flows that ended since they were last taken, where somebody wants them.
    ended: Option<Vec<FlowRecord>>,
    edges: Option<Box<Edges>>,
}

/// Who looks at who talks to whom.
struct Edges {
    alarm: EdgeAlarm,
    found: Vec<Finding>,
    missed: u64,
}

impl Edges {
    /// Takes a flow that has ended.
    fn take(&mut self, record: &FlowRecord) {
        if record.cause == EndCause::Interim || record.responder.is_group() {
            return;
        }
        let (originator, responder) = (record.originator.to_string(), record.responder.to_string());
        let (from, to) = (name_hash(originator.as_bytes()), name_hash(responder.as_bytes()));
        let call = self.alarm.push(from, to, record.last_ns / TICK_NS, f64::from(record.sampling.max(1)));
        if !call.alert {
            return;
        }
        if self.found.len() >= EDGES_MAX {
            self.missed += 1;
            return;
        }
        let port = (record.responder_port > 0).then_some(record.responder_port);
        let (first, last) = record.packets;
        let mut finding =
            edge_finding(&self.alarm, &call, (&originator, &responder, port), first, record.last_ns);
        (finding.range.last, finding.range.first_ts) = (last, record.start_ns);
        self.found.push(finding);
    }
}

impl Judge {
    /// A judge who knows nothing yet; `input` is the name findings prove themselves by, empty for none.
    pub(crate) fn new(flows_max: u32, rules: RuleSet, input: String) -> Self {
        let extract = (!rules.is_empty()).then(Extract::default);
        let watchers =
            Watchers { detectors: Detectors::default().listening(), extract, ended: None, edges: None };
        Self { table: traffic::table(flows_max, 0), watchers, rules, cells: None, input, units: 0 }
    }

    /// Also looks at who talks to whom, and tells one in `one_in` ordinary edges of a minute, if that is some number.
    pub(crate) fn with_edges(mut self, one_in: Option<u32>) -> Self {
        let options =
            |one_in: u32| EdgeAlarmOptions { rate: 1.0 / f64::from(one_in), ..EdgeAlarmOptions::default() };
        // Whoever took the number has seen to its range, and the rest are constants.
        let alarm = one_in.and_then(|one_in| EdgeAlarm::new(options(one_in)).ok());
        self.watchers.edges = alarm.map(|alarm| Box::new(Edges { alarm, found: Vec::new(), missed: 0 }));
        self
    }

    /// As [`Self::new`], for what is read so.
    pub(crate) fn reading(
        flows_max: u32,
        rules: RuleSet,
        input: String,
        reading: &Reading,
    ) -> Result<Self, Failure> {
        let cells = reading.table.as_ref().map(CellJudge::new).transpose()?;
        Ok(Self { cells, ..Self::new(flows_max, rules, input).with_edges(reading.edges) })
    }

    /// Who judges the rows of a table, if that is what is judged.
    pub(crate) fn cells(&mut self) -> Option<&mut CellJudge> {
        self.cells.as_mut()
    }

    /// Rows of a table that were judged with a chance; `None` for traffic.
    pub(crate) fn judged(&self) -> Option<u64> {
        self.cells.as_ref().map(CellJudge::judged)
    }

    /// What became of the rows of series, if that is what is judged.
    pub(crate) fn series(&self) -> Option<SeriesCounts> {
        self.cells.as_ref().and_then(CellJudge::series)
    }

    /// Takes a row of a table.
    pub(crate) fn cell(&mut self, cells: &Cells<'_>, mut found: impl FnMut(Finding)) {
        self.units += 1;
        let proof = Where { input: &self.input, units: self.units, at_end: false };
        let Some(judge) = &mut self.cells else { return };
        judge.take(cells, |mut finding| {
            finding.proof = proof.proof(finding.ts, finding.score);
            found(finding);
        });
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
                self.watchers.edges.iter_mut().for_each(|edges| edges.take(record));
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

    /// Until `now` nothing came.
    pub(crate) fn pause(&mut self, now: u64, found: impl FnMut(Finding)) {
        self.units += 1;
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
        let Watchers { detectors, extract, edges, .. } = &mut self.watchers;
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
        let edges = edges.iter_mut().flat_map(|edges| edges.found.drain(..));
        for mut finding in edges {
            finding.proof = proof.proof(finding.ts, finding.score);
            if !rules.is_empty() {
                rules.take(&of_finding(&finding), |hit| found(of_hit(hit, proof)));
            }
            found(finding);
        }
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
        let Watchers { detectors, extract, edges, .. } = &self.watchers;
        let missed = edges.as_ref().map_or(0, |edges| edges.missed);
        detectors.unheard() + extract.as_ref().map_or(0, Extract::missed) + missed
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
        self.edges.iter_mut().for_each(|edges| edges.take(record));
        self.detectors.record(flow, record);
    }
}

/// Where in the input something was found.
#[derive(Clone, Copy)]
pub(crate) struct Where<'a> {
    pub(crate) input: &'a str,
    pub(crate) units: u64,
    pub(crate) at_end: bool,
}

impl Where<'_> {
    pub(crate) fn proof(self, ts: u64, score: f64) -> Option<Proof> {
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
        unproven: None,
        silence_s: (alert.silence_ns > tidegate_flow::detect::alert::EPISODE_NS)
            .then_some((alert.silence_ns / 1_000_000_000) as u32),
    }
}

pub(crate) fn of_hit(hit: Hit, at: Where<'_>) -> Finding {
    let score = hit.level.score();
    Finding {
        proof: at.proof(hit.ts, score),
        unproven: None,
        silence_s: None,
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
pub(crate) fn of_finding(finding: &Finding) -> Record {
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
