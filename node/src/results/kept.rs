//! The last rows of keys, kept so that what a rule found in them can be judged again from nothing but them.

use super::{Row, Table};
use crate::rules::{Rules, STREAMS};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_alert::store::RuleSource;
use tidegate_engine::name_hash;
use tidegate_replay::write::CellValue;
use tidegate_rules::{Hit, Origin, Record, RuleSet, Streams, Value as Cell};

/// Rows of one key that are kept, of all streams together, and how many keys: under 26 MiB.
const ROWS_MAX: usize = 120;
const KEYS_MAX: usize = 1_024;
/// Findings whose rows are judged again in one second; each is a run of the rules over so many rows.
const A_SECOND: u32 = 200;
/// Rows that are shown of a key beside what was found in it.
const SHOWN_MAX: usize = 60;
/// An alert keeps the rows of the first finding it is of, and has been silent for so long when it ends: what repeats itself sooner needs none.
const REPEATS_NS: u64 = 600 * 1_000_000_000;
/// Rules and entities remembered for that; beyond it all are forgotten, and rows are kept once more.
const REPEATS_MAX: usize = 1 << 16;
/// Longest document, bytes.
pub(crate) const BYTES_MAX: u64 = 256 << 10;
/// What such an input says of itself among its options.
pub(crate) const WHAT: (&str, &str) = ("what", "rows");
const VERSION: u32 = 1;

pub(super) const ALERTS: &str =
    "it rests on alerts of streams, whose rows are kept for themselves and not for rules over them";
const MANY: &str = "rows are kept of 1,024 keys, and this is a further one";
const OFTEN: &str =
    "more than 200 findings of rules over results came in a second, and of further ones no rows are kept";
const REPEATED: &str = "it repeats what was found within the ten minutes before, whose rows were kept then";
pub(super) const ELSEWHERE: &str = "the last 120 rows of its key do not show it alone: it rests on earlier ones, on rows of other keys, or on alerts of streams";

/// A row in the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    stream: String,
    sequence: u64,
    /// ns since 1970.
    ts: u64,
    cells: Vec<Option<CellText>>,
}

/// A cell: text, or the bits of a number as hexadecimal, so that every reader gets all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CellText {
    Text(String),
    Bits(String),
}

/// The document: what was found, of which key, and its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Behind {
    v: u32,
    pub(crate) kind: String,
    pub(crate) key: String,
    /// How many were counted.
    seen: u64,
    rows: Vec<Line>,
}

/// A document on its way to the disk, and the rules that go with it.
#[derive(Debug, Clone)]
pub(crate) struct RowsBehind {
    pub(crate) behind: Behind,
    pub(crate) rules: Vec<RuleSource>,
    pub(crate) options: BTreeMap<String, String>,
}

/// What was found in the last row of a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Again {
    pub(crate) ts: u64,
    pub(crate) score: f64,
}

impl Behind {
    /// Reads a document.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if read.v != VERSION {
            return Err(format!("it is of version {}; this program reads version {VERSION}", read.v));
        }
        if read.rows.len() > ROWS_MAX {
            return Err(format!("it has {} rows, where {ROWS_MAX} are the most", read.rows.len()));
        }
        Ok(read)
    }

    /// The bytes of the document.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Rows in it.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Judges the rows with rules that know nothing else; what they say at the last one, if that is what was found.
    pub(crate) fn judge(&self, mut rules: RuleSet, streams: &Streams) -> Result<Option<Again>, String> {
        let mut again = None;
        for line in &self.rows {
            again = None;
            let record = line.record(&self.key, streams)?;
            rules.take(&record, |hit| {
                if hit.kind == self.kind && hit.seen == self.seen {
                    again = Some(Again { ts: hit.ts, score: hit.level.score() });
                }
            });
        }
        Ok(again)
    }
}

impl Line {
    fn of(table: &Table, row: &Row) -> Option<Self> {
        let source = table.sources.get(usize::from(row.place))?;
        let mut cells = Vec::new();
        source.cells.read(&row.output, |value| {
            cells.push(value.map(|value| match value {
                CellValue::Text(text) => CellText::Text(text.to_owned()),
                CellValue::Number(number) => CellText::Bits(format!("{:016x}", number.to_bits())),
            }));
        });
        Some(Self { stream: source.name.clone(), sequence: row.output.sequence, ts: row.output.ts, cells })
    }

    fn record(&self, key: &str, streams: &Streams) -> Result<Record, String> {
        let kind = streams.kind(&self.stream);
        let kind = kind.ok_or_else(|| format!("its rules were not read with a stream `{}`", self.stream))?;
        let mut record = Record::new(kind, Origin::Own, self.ts, (self.sequence, self.sequence));
        if let Some(entity) = Streams::entity() {
            record.put(entity, Cell::from(key.to_owned()));
        }
        for (field, cell) in streams.fields(kind).zip(&self.cells) {
            match cell {
                Some(CellText::Text(text)) => record.put(field, Cell::from(text.clone())),
                Some(CellText::Bits(bits)) => {
                    let word =
                        u64::from_str_radix(bits, 16).map_err(|_| format!("`{bits}` is no 64 bits"))?;
                    record.put(field, Cell::from(f64::from_bits(word)));
                }
                None => {}
            }
        }
        Ok(record)
    }
}

/// The last rows of the first keys.
pub(super) struct Kept {
    rows: HashMap<Arc<str>, VecDeque<Row>>,
    /// The rules before any row.
    fresh: RuleSet,
    sources: Vec<RuleSource>,
    streams: Option<String>,
    second: (Instant, u32),
    /// When a rule was met last for an entity, by event time.
    met: HashMap<u64, u64>,
}

impl Kept {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            rows: HashMap::new(),
            fresh: rules.set.clone(),
            sources: rules.sources.clone(),
            streams: rules.streams.clone(),
            second: (Instant::now(), 0),
            met: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, row: &Row) {
        if !self.rows.contains_key(&row.name) && self.rows.len() >= KEYS_MAX {
            return;
        }
        let rows = self.rows.entry(Arc::clone(&row.name)).or_default();
        if rows.len() >= ROWS_MAX {
            rows.pop_front();
        }
        rows.push_back(row.clone());
    }

    /// The last rows of `last`'s key, for people: a JSON array, oldest first.
    pub(super) fn shown(&self, table: &Table, last: &Row) -> String {
        let rows = self.rows.get(&last.name).into_iter().flatten();
        let old = rows.clone().count().saturating_sub(SHOWN_MAX);
        Value::Array(rows.skip(old).filter_map(|row| table.shown(row)).collect()).to_string()
    }

    /// What the rows of `last`'s key show of a hit in it, from the first row that it rests on; or why they do not.
    pub(super) fn behind(
        &mut self,
        table: &Table,
        last: &Row,
        hit: &Hit,
    ) -> Result<RowsBehind, &'static str> {
        if self.met.len() >= REPEATS_MAX {
            self.met.clear();
        }
        let whose = name_hash(format!("{} {}", hit.kind, hit.entity).as_bytes());
        if self.met.insert(whose, hit.ts).is_some_and(|before| hit.ts.saturating_sub(before) <= REPEATS_NS) {
            return Err(REPEATED);
        }
        if self.second.0.elapsed() >= Duration::from_secs(1) {
            self.second = (Instant::now(), 0);
        }
        self.second.1 += 1;
        if self.second.1 > A_SECOND {
            return Err(OFTEN);
        }
        let rows = self.rows.get(&last.name).ok_or(MANY)?;
        let rows = rows.iter().filter(|row| row.output.ts >= hit.first_ts);
        let behind = Behind {
            v: VERSION,
            kind: hit.kind.clone(),
            key: last.name.to_string(),
            seen: hit.seen,
            rows: rows.filter_map(|row| Line::of(table, row)).collect(),
        };
        let again = behind.judge(self.fresh.clone(), &table.streams);
        let same = again == Ok(Some(Again { ts: hit.ts, score: hit.level.score() }));
        if !same || behind.bytes().len() as u64 > BYTES_MAX {
            return Err(ELSEWHERE);
        }
        let mut options = BTreeMap::from([(WHAT.0.to_owned(), WHAT.1.to_owned())]);
        options.extend(self.streams.clone().map(|streams| (STREAMS.to_owned(), streams)));
        Ok(RowsBehind { behind, rules: self.sources.clone(), options })
    }
}
