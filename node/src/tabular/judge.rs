//! Rows to findings: who is unlike what was before, by how much, and what was expected.

use super::series::{self, ANOMALY, CHANGE, CHANGES_HEADER, SCORES_HEADER, SeriesJudge};
use super::{Cells, Feature, Spec, Taken, What, number_of};
use crate::exit::{Exit, Failure};
use crate::render::instant;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tidegate_alert::{Finding, Range, Reason, Severity};
use tidegate_anomaly::{
    EdgeAlarm, EdgeAlarmOptions, EdgeCall, FeatureKind, FeatureWitness, RecordAlarm, RecordCall,
};
use tidegate_engine::name_hash;

/// Names of a category that are told apart; those of further ones share the detector's bins by their hash.
const NAMES_MAX: usize = 1 << 14;
/// Features that a finding names.
const WITNESSES: usize = 5;
/// A chance so many times smaller than the rate is of medium severity, and of high.
const MEDIUM: f64 = 0.01;
const HIGH: f64 = 0.000_1;

const EDGE: &str = "edge-anomaly";
const RECORD: &str = "record-anomaly";

/// What an alert of this kind counts its range in; edges are also told of flows.
pub(crate) fn units_of(kind: &str) -> &'static str {
    match kind {
        EDGE | RECORD => "rows or flows",
        ANOMALY | CHANGE => "rows",
        _ => "packets",
    }
}

/// Where the scores of all rows go, or all changes.
pub(crate) struct Scores {
    out: BufWriter<File>,
    path: PathBuf,
    failed: Option<std::io::Error>,
}

impl Scores {
    pub(crate) fn create(path: &Path, what: What) -> Result<Self, Failure> {
        Self::headed(
            path,
            match what {
                What::Edges => {
                    "row,time,source,destination,score,chance,alert,rare_source,silence,popular,burst,rare_edge"
                }
                What::Records => "row,time,entity,score,chance,alert,strongest",
                What::Series => SCORES_HEADER,
            },
        )
    }

    /// A table of change points.
    pub(crate) fn of_changes(path: &Path) -> Result<Self, Failure> {
        Self::headed(path, CHANGES_HEADER)
    }

    fn headed(path: &Path, header: &str) -> Result<Self, Failure> {
        let output = |error: std::io::Error| {
            Failure::new(Exit::Output, anyhow::Error::new(error).context(path.display().to_string()))
        };
        let mut out = BufWriter::new(File::create(path).map_err(output)?);
        writeln!(out, "{header}").map_err(output)?;
        Ok(Self { out, path: path.to_path_buf(), failed: None })
    }

    pub(super) fn write(&mut self, row: std::fmt::Arguments<'_>) {
        if self.failed.is_none() {
            self.failed = self.out.write_fmt(row).err();
        }
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let ended = self.failed.take().map_or_else(|| self.out.flush(), Err);
        ended.map_err(|error| {
            Failure::new(Exit::Output, anyhow::Error::new(error).context(self.path.display().to_string()))
        })
    }
}

/// Judges the rows of one table.
pub(crate) struct CellJudge {
    spec: Spec,
    detector: Detector,
    scores: Option<Scores>,
    /// Rows that had a chance; the others came while it learnt.
    judged: u64,
}

enum Detector {
    Edges(Box<EdgeAlarm>),
    /// Nothing before the first row says what its features are.
    Records(Option<Box<Records>>),
    Series(Box<SeriesJudge>),
}

struct Records {
    alarm: RecordAlarm,
    /// By feature: the names so far, and their numbers.
    names: Vec<HashMap<String, f64>>,
    values: Vec<f64>,
}

impl CellJudge {
    /// One that has seen nothing.
    pub(crate) fn new(spec: &Spec) -> Result<Self, Failure> {
        let detector = match spec.what {
            What::Edges => {
                let options = EdgeAlarmOptions { rate: spec.rate(), ..EdgeAlarmOptions::default() };
                Detector::Edges(Box::new(EdgeAlarm::new(options).map_err(Failure::usage)?))
            }
            What::Records => Detector::Records(None),
            What::Series => {
                Detector::Series(Box::new(SeriesJudge::new(spec.series.clone().unwrap_or_default())))
            }
        };
        Ok(Self { spec: spec.clone(), detector, scores: None, judged: 0 })
    }

    /// Writes the score of every row from now on.
    pub(crate) fn write_to(&mut self, scores: Scores) {
        self.scores = Some(scores);
    }

    /// Writes every change of a series from now on.
    pub(crate) fn write_changes_to(&mut self, table: Scores) {
        if let Detector::Series(judge) = &mut self.detector {
            judge.write_changes_to(table);
        }
    }

    /// There are no more rows: brings the scores and changes to their files.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if let Detector::Series(judge) = &mut self.detector {
            judge.finish()?;
        }
        self.scores.take().map_or(Ok(()), Scores::finish)
    }

    /// Rows that were judged with a chance; of series values.
    pub(crate) fn judged(&self) -> u64 {
        self.series().map_or(self.judged, |counts| counts.judged)
    }

    /// What became of the rows of series, if that is what is judged.
    pub(crate) fn series(&self) -> Option<series::Counts> {
        match &self.detector {
            Detector::Series(judge) => Some(judge.counts()),
            Detector::Edges(_) | Detector::Records(_) => None,
        }
    }

    /// Takes a row; what is found has no proof yet.
    pub(crate) fn take(&mut self, cells: &Cells<'_>, mut found: impl FnMut(Finding)) {
        if let (Cells::Series { number, ts, key, columns, values }, Detector::Series(judge)) =
            (*cells, &mut self.detector)
        {
            let row = series::Row { number, ts, key, columns, values };
            judge.take(row, &mut self.scores, &mut found);
            return;
        }
        self.one(cells).into_iter().for_each(found);
    }

    /// Takes an edge or a record.
    fn one(&mut self, cells: &Cells<'_>) -> Option<Finding> {
        match (*cells, &mut self.detector) {
            (Cells::Edge { number, ts, source, destination, weight }, Detector::Edges(alarm)) => {
                let (from, to) = (name_hash(source.as_bytes()), name_hash(destination.as_bytes()));
                let call = alarm.push(from, to, ts / self.spec.tick_ns, weight);
                self.judged += u64::from(call.chance.is_some());
                if let Some(scores) = &mut self.scores {
                    let v = &call.verdict;
                    scores.write(format_args!(
                        "{number},{},{},{},{},{},{},{:.4},{:.4},{:.4},{:.4},{:.4}\n",
                        instant(ts),
                        quoted(source),
                        quoted(destination),
                        v.score,
                        chance_text(call.chance),
                        u8::from(call.alert),
                        v.rare_source,
                        v.silence,
                        v.popular,
                        v.burst,
                        v.rare_edge,
                    ));
                }
                call.alert.then(|| edge_finding(alarm, &call, (source, destination, None), number, ts))
            }
            (Cells::Record { number, ts, entity, features, fields }, Detector::Records(records)) => {
                if records.is_none() {
                    *records = Records::new(features, self.spec.rate()).map(Box::new);
                }
                let records = records.as_mut()?;
                let call = records.push(features, fields)?;
                self.judged += u64::from(call.chance.is_some());
                if let Some(scores) = &mut self.scores {
                    scores.write(format_args!(
                        "{number},{},{},{},{},{},{}\n",
                        instant(ts),
                        quoted(entity.unwrap_or_default()),
                        call.verdict.score,
                        chance_text(call.chance),
                        u8::from(call.alert),
                        quoted(&features[call.verdict.strongest].name),
                    ));
                }
                call.alert
                    .then(|| records.finding(&call, entity, features, fields, number, ts, self.spec.rate()))
            }
            // A reader gives what the table was said to hold.
            _ => None,
        }
    }
}

fn chance_text(chance: Option<f64>) -> String {
    chance.map(|chance| format!("{chance:.6e}")).unwrap_or_default()
}

/// A field of a CSV file.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// On the detectors' scale, with the surprise of a chance in place of what was counted: 0.8 at the rate.
pub(super) fn score_of(chance: f64, rate: f64) -> f64 {
    1.0 - 0.2 * libm::log(rate) / libm::log(chance)
}

pub(super) fn severity_of(chance: f64, rate: f64) -> Severity {
    match chance / rate {
        share if share <= HIGH => Severity::High,
        share if share <= MEDIUM => Severity::Medium,
        _ => Severity::Low,
    }
}

pub(super) fn finding(
    kind: &str,
    entity: String,
    number: u64,
    ts: u64,
    severity: Severity,
    score: f64,
) -> Finding {
    Finding {
        kind: kind.to_owned(),
        entity,
        spoofed: false,
        peer: None,
        port: None,
        method: String::new(),
        // A technique is something done on purpose, and nothing of the kind was seen: a stranger or a burst may be a scan, a login from abroad, a
        // backup or a new colleague. What it is the detectors say that know a shape.
        technique: None,
        severity,
        score,
        reasons: Vec::new(),
        range: Range { first: number, last: number, first_ts: ts, last_ts: ts },
        ts,
        proof: None,
        unproven: None,
        silence_s: None,
    }
}

/// What an edge that is an alert is told as: `who` is its source, its destination and the port, if it has one.
pub(crate) fn edge_finding(
    alarm: &EdgeAlarm,
    call: &EdgeCall,
    (source, destination, port): (&str, &str, Option<u16>),
    number: u64,
    ts: u64,
) -> Finding {
    const METHODS: [&str; 5] =
        ["rare source", "long silent source", "popular destination", "burst", "rare edge"];
    let rate = alarm.options().rate;
    let chance = call.chance.unwrap_or(1.0);
    let parts = alarm.parts(&call.verdict);
    let mut order = [0, 1, 2, 3, 4];
    order.sort_by(|&a, &b| parts[b].says.total_cmp(&parts[a].says));
    let mut reasons: Vec<Reason> =
        order.iter().map(|&at| Reason::new(parts[at].name, parts[at].seen, parts[at].expected)).collect();
    reasons.push(Reason::new("score", call.verdict.score, call.level.unwrap_or(f64::MAX)));
    reasons.push(Reason::new("ordinary edges for each that scores so high", 1.0 / chance, 1.0 / rate));
    Finding {
        peer: Some(destination.to_owned()),
        port,
        method: METHODS[order[0]].to_owned(),
        reasons,
        ..finding(EDGE, source.to_owned(), number, ts, severity_of(chance, rate), score_of(chance, rate))
    }
}

impl Records {
    fn new(features: &[Feature], rate: f64) -> Option<Self> {
        let kinds: Vec<FeatureKind> = features
            .iter()
            .map(|feature| match feature.taken {
                Taken::Category => FeatureKind::Category,
                Taken::Share => FeatureKind::Share,
                Taken::Count | Taken::Skip => FeatureKind::Count,
            })
            .collect();
        // The reader has seen to their number, and that there are names among them.
        let alarm = RecordAlarm::new(&kinds, rate).ok()?;
        Some(Self { alarm, names: vec![HashMap::new(); kinds.len()], values: vec![0.0; kinds.len()] })
    }

    fn push(&mut self, features: &[Feature], fields: &[String]) -> Option<RecordCall> {
        for (at, feature) in features.iter().enumerate() {
            let text = fields[feature.column].as_str();
            self.values[at] = match feature.taken {
                Taken::Category => code(&mut self.names[at], text),
                _ => number_of(text).unwrap_or(f64::NAN),
            };
        }
        self.alarm.push(&self.values).ok()
    }

    #[expect(clippy::too_many_arguments, reason = "a row and what became of it")]
    fn finding(
        &self,
        call: &RecordCall,
        entity: Option<&str>,
        features: &[Feature],
        fields: &[String],
        number: u64,
        ts: u64,
        rate: f64,
    ) -> Finding {
        let chance = call.chance.unwrap_or(1.0);
        let none = FeatureWitness { feature: 0, surprise: 0.0, share: 0.0, usual: 0.0, usual_share: 0.0 };
        let mut room = [none; WITNESSES];
        let count = self.alarm.witnesses(&mut room);
        let mut reasons = Vec::new();
        for witness in &room[..count] {
            let feature = &features[witness.feature];
            let seen = self.values[witness.feature];
            if feature.taken == Taken::Category || seen.is_nan() || witness.usual.is_nan() {
                let name =
                    format!("share of typical records with {}={}", feature.name, fields[feature.column]);
                reasons.push(Reason::new(&name, witness.share, witness.usual_share));
            } else {
                reasons.push(Reason::new(&feature.name, seen, witness.usual));
            }
        }
        reasons.push(Reason::new("score, nats", call.verdict.score, call.level.unwrap_or(f64::MAX)));
        reasons.push(Reason::new("typical records for each that scores so high", 1.0 / chance, 1.0 / rate));
        let strongest = &features[call.verdict.strongest];
        // Without a word on who a record is about, records that are odd in the same way are one thing.
        let what = match strongest.taken {
            Taken::Category => format!("{}={}", strongest.name, fields[strongest.column]),
            _ => strongest.name.clone(),
        };
        let entity = entity.filter(|entity| !entity.is_empty()).map_or_else(|| what.clone(), str::to_owned);
        let (severity, score) = (severity_of(chance, rate), score_of(chance, rate));
        Finding { method: what, reasons, ..finding(RECORD, entity, number, ts, severity, score) }
    }
}

/// The number of a name, in order of being met.
fn code(names: &mut HashMap<String, f64>, text: &str) -> f64 {
    if let Some(code) = names.get(text) {
        return *code;
    }
    if names.len() >= NAMES_MAX {
        return (name_hash(text.as_bytes()) % 127) as f64;
    }
    let next = names.len() as f64;
    names.insert(text.to_owned(), next);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_on_the_detectors_scale() {
        assert!((score_of(1e-4, 1e-4) - 0.8).abs() < 1e-12 && (score_of(1e-16, 1e-4) - 0.95).abs() < 1e-12);
        let of = |share: f64| severity_of(1e-4 * share, 1e-4);
        assert_eq!((of(0.9), of(0.009), of(0.000_09)), (Severity::Low, Severity::Medium, Severity::High));
        assert_eq!((quoted("a"), quoted("a,\"b")), ("a".to_owned(), "\"a,\"\"b\"".to_owned()));
        let mut names = HashMap::new();
        assert_eq!(["a", "b", "a"].map(|name| code(&mut names, name)), [0.0, 1.0, 0.0]);
    }
}
