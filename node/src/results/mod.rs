//! Rules over streams of results: rows in the order of their time, made records, judged; the same for a server that runs and a file that is
//! read.
//!
//! Results of different streams and shards come as threads have them. What rules see must not depend on that, so rows wait until the
//! watermark has passed them and are then taken by time, stream, name and number. A row counts as it first became final: later
//! revisions change nothing that was judged, as they change no indicator.

pub(crate) mod detect;
mod found;
mod kept;

pub(crate) use found::{ANOMALY, Judged, REGIME, States, judged};
pub(crate) use kept::{BYTES_MAX, Behind, RowsBehind, WHAT};

use crate::judge::{Where, of_finding, of_hit};
use crate::rules::Rules;
use kept::Kept;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use tidegate_actors::first_final;
use tidegate_alert::Finding;
use tidegate_config::derived::{DERIVED, Derived};
use tidegate_engine::{BarState, Output, output_kind};
use tidegate_replay::write::{CellValue, Cells};
use tidegate_replay::{StreamInfo, StreamKind};
use tidegate_rules::record::Key;
use tidegate_rules::{Keys, Kind, Origin, Record, RuleSet, Streams, Type, Value};

/// Rows that wait for the watermark, some 200 bytes each; beyond it the oldest are judged early, and counted.
const WAITING_MAX: usize = 1 << 17;

/// The streams that there are, as rules see them.
pub(crate) struct Table {
    pub(crate) streams: Streams,
    sources: Vec<Source>,
}

/// A stream whose rows are judged.
struct Source {
    name: String,
    kind: Kind,
    cells: Cells,
    fields: Vec<Key>,
    /// What they are called.
    names: Vec<String>,
    columns: Vec<String>,
    /// What its rows tell without any rule, if something.
    judged: Option<Judged>,
    /// Whether it is derived from the bars of others.
    derived: bool,
}

impl Table {
    /// These streams. `thresholds` says from which score on streams of anomalies tell one.
    pub(crate) fn of(streams: &[StreamInfo], thresholds: &HashMap<String, Judged>) -> Self {
        let mut table = Self { streams: Streams::default(), sources: Vec::new() };
        streams.iter().for_each(|info| table.add(info, thresholds, false));
        table
    }

    /// A rule that reads a derived stream which is not there is told what to do instead.
    pub(crate) fn advising(mut self, advice: &str) -> Self {
        for beginning in DERIVED {
            self.streams.advise(beginning, advice);
        }
        self
    }

    /// And streams that are derived from their bars.
    pub(crate) fn with_derived(mut self, derived: &[Derived]) -> Self {
        for (name, columns) in derived.iter().flat_map(|derived| &derived.streams) {
            let info = StreamInfo {
                id: 0,
                name: name.clone(),
                kind: StreamKind::Indicators,
                columns: columns.clone(),
                definition: String::new(),
            };
            self.add(&info, &HashMap::new(), true);
        }
        self
    }

    fn add(&mut self, info: &StreamInfo, thresholds: &HashMap<String, Judged>, derived: bool) {
        let cells = Cells::of(info);
        let columns = cells.columns();
        let of = |text: &bool| if *text { Type::Text } else { Type::Number };
        let named = columns.iter().map(|(name, text)| (name.as_str(), of(text)));
        let keys = if info.kind == StreamKind::Hosts { Keys::Hosts } else { Keys::Symbols };
        // There are fewer streams in a plan than rules can number.
        let Some(kind) = self.streams.add(&info.name, keys, named) else { return };
        self.sources.push(Source {
            name: info.name.clone(),
            kind,
            cells,
            fields: self.streams.fields(kind).collect(),
            names: columns.iter().map(|(name, _)| name.clone()).collect(),
            columns: info.columns.clone(),
            judged: found::judged(&info.name, thresholds),
            derived,
        });
    }

    /// Whether the stream at a place is derived from the bars of others.
    pub(crate) fn is_derived(&self, place: u16) -> bool {
        self.sources.get(usize::from(place)).is_some_and(|source| source.derived)
    }

    /// The place of a stream by its name.
    pub(crate) fn place(&self, name: &str) -> Option<u16> {
        self.sources.iter().position(|source| source.name == name).and_then(|at| u16::try_from(at).ok())
    }

    /// The columns of the stream at a place, as its stream says them.
    pub(crate) fn columns(&self, place: u16) -> &[String] {
        self.sources.get(usize::from(place)).map_or(&[], |source| &source.columns)
    }

    /// The name of the stream at a place.
    pub(crate) fn name(&self, place: u16) -> &str {
        self.sources.get(usize::from(place)).map_or("", |source| &source.name)
    }

    /// A row for people.
    fn shown(&self, row: &Row) -> Option<serde_json::Value> {
        let source = self.sources.get(usize::from(row.place))?;
        let mut names = source.names.iter();
        let mut values = serde_json::Map::new();
        source.cells.read(&row.output, |value| {
            let Some(name) = names.next() else { return };
            let value = match value {
                Some(CellValue::Text(text)) => text.into(),
                Some(CellValue::Number(number)) => number.into(),
                None => serde_json::Value::Null,
            };
            values.insert(name.clone(), value);
        });
        let Output { sequence, ts, .. } = row.output;
        Some(serde_json::json!({
            "stream": source.name, "key": &*row.name, "seq": sequence, "ts": ts.to_string(), "values": values,
        }))
    }

    fn record(&self, row: &Row) -> Option<Record> {
        let source = self.sources.get(usize::from(row.place))?;
        let of = (row.output.sequence, row.output.sequence);
        let mut record = Record::new(source.kind, Origin::Own, row.output.ts, of);
        if let Some(entity) = Streams::entity() {
            record.put(entity, Value::from(row.name.to_string()));
        }
        let mut fields = source.fields.iter();
        source.cells.read(&row.output, |value| {
            let Some(field) = fields.next() else { return };
            match value {
                Some(CellValue::Text(text)) => record.put(field.clone(), Value::from(text)),
                Some(CellValue::Number(number)) => record.put(field.clone(), Value::from(number)),
                None => {}
            }
        });
        Some(record)
    }
}

/// A row and where it is from.
#[derive(Debug, Clone)]
struct Row {
    place: u16,
    name: Arc<str>,
    output: Output,
}

impl Row {
    fn order(&self) -> (u64, u16, &str, u64) {
        (self.output.ts, self.place, &self.name, self.output.sequence)
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    /// The one that is taken first is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

/// Something that was found, and the rows of its key that show it, where they are kept.
pub(crate) struct FoundRow {
    pub(crate) finding: Finding,
    pub(crate) behind: Option<RowsBehind>,
    /// The last of those rows for people, a JSON array, where rows are kept and it has not been told of late.
    pub(crate) shown: Option<String>,
}

/// Rows in their order of time, judged.
pub(crate) struct RowJudge {
    table: Arc<Table>,
    rules: RuleSet,
    /// By place: whether rules look at its rows, or at alerts that its rows tell.
    wanted: Vec<bool>,
    /// Whether rules look at the alerts that rows tell by themselves.
    alerts: bool,
    /// Whether those alerts are given as well.
    tells: bool,
    waiting: BinaryHeap<Row>,
    states: States,
    kept: Option<Kept>,
    input: String,
    /// Event time up to which everything has come.
    done: u64,
    rows: u64,
    early: u64,
}

impl RowJudge {
    /// Rules over these streams. `input` is the name that findings prove themselves by, empty for none; `tells` asks for what streams of
    /// anomalies and regimes tell without rules as well.
    pub(crate) fn new(table: Arc<Table>, rules: &Rules, input: String, tells: bool) -> Self {
        let set = rules.set.clone();
        let alerts = set.looks_at(|kind| kind == Kind::Alert);
        let wanted = table.sources.iter().map(|source| {
            set.looks_at(|kind| kind == source.kind) || (source.judged.is_some() && (alerts || tells))
        });
        Self {
            wanted: wanted.collect(),
            table,
            rules: set,
            alerts,
            tells,
            waiting: BinaryHeap::new(),
            states: States::default(),
            kept: None,
            input,
            done: 0,
            rows: 0,
            early: 0,
        }
    }

    /// Keeps the last rows of keys, so that what is found can be shown again.
    pub(crate) fn keeping(mut self, rules: &Rules) -> Self {
        self.kept = Some(Kept::new(rules));
        self
    }

    /// The places of the streams whose rows are needed.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(&self.wanted).filter(|(_, wanted)| **wanted).map(|(place, _)| place)
    }

    /// Takes a record of the stream at `place`; what follows from it is found once the watermark has passed it.
    pub(crate) fn take(
        &mut self,
        place: u16,
        name: &Arc<str>,
        output: &Output,
        found: &mut dyn FnMut(FoundRow),
    ) {
        if !self.wanted.get(usize::from(place)).copied().unwrap_or(false) || !is_row(output) {
            return;
        }
        self.waiting.push(Row { place, name: Arc::clone(name), output: *output });
        if self.waiting.len() > WAITING_MAX
            && let Some(row) = self.waiting.pop()
        {
            self.early += 1;
            self.judge(row, found);
        }
    }

    /// Everything up to this event time has come. What comes behind its time all the same, such as of a feed that tells of the past, is judged at
    /// the next call.
    pub(crate) fn complete(&mut self, watermark: u64, found: &mut dyn FnMut(FoundRow)) {
        self.done = self.done.max(watermark);
        while self.waiting.peek().is_some_and(|row| row.output.ts <= self.done) {
            let Some(row) = self.waiting.pop() else { return };
            self.judge(row, found);
        }
    }

    fn judge(&mut self, row: Row, found: &mut dyn FnMut(FoundRow)) {
        self.rows += 1;
        let at = Where { input: &self.input, units: self.rows, at_end: false };
        let Some(record) = self.table.record(&row) else { return };
        if let Some(kept) = &mut self.kept {
            kept.take(&row);
        }
        let mut hits = Vec::new();
        self.rules.take(&record, |hit| hits.push(hit));
        for hit in hits {
            let behind = self.kept.as_mut().map(|kept| kept.behind(&self.table, &row, &hit));
            let is_new = matches!(behind, Some(Ok(_) | Err(kept::ELSEWHERE)));
            let shown = self.kept.as_ref().filter(|_| is_new).map(|kept| kept.shown(&self.table, &row));
            let mut finding = of_hit(hit, at);
            let behind = match behind {
                Some(Ok(behind)) => Some(behind),
                Some(Err(why)) => {
                    finding.unproven = Some(why.to_owned());
                    None
                }
                None => None,
            };
            found(FoundRow { finding, behind, shown });
        }
        let Some(source) = self.table.sources.get(usize::from(row.place)) else { return };
        let Some(judged) = source.judged.filter(|_| self.alerts || self.tells) else { return };
        let Some(told) =
            self.states.judge(judged, &source.columns, (row.place, row.output.name), &row.output)
        else {
            return;
        };
        let mut finding = told.finding(&source.name, &row.name, &row.output);
        finding.proof = at.proof(finding.ts, finding.score);
        if self.alerts {
            let mut hits = Vec::new();
            self.rules.take(&of_finding(&finding), |hit| hits.push(hit));
            for hit in hits {
                let mut finding = of_hit(hit, at);
                if self.kept.is_some() {
                    finding.unproven = Some(kept::ALERTS.to_owned());
                }
                found(FoundRow { finding, behind: None, shown: None });
            }
        }
        if self.tells {
            found(FoundRow { finding, behind: None, shown: None });
        }
    }

    /// Rows judged.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows judged before the watermark had passed them, because too many waited.
    pub(crate) fn early(&self) -> u64 {
        self.early
    }

    /// Groups and beginnings of matches that rules forgot for lack of room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.rules.forgotten()
    }
}

/// Whether it is a row as it first became final, and no late event set aside.
fn is_row(output: &Output) -> bool {
    match output.kind {
        output_kind::BAR => first_final(output, output.stream).is_some(),
        output_kind::VALUES | output_kind::HOST | output_kind::INTEGERS => {
            output.state == BarState::Final as u8
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
