//! What is in a file, at a glance: kinds, keys, span, gaps, disorder, refusals.

use super::ReadOptions;
use crate::input::open_input;
use crate::source::{ReadError, RejectCause};
use serde::Serialize;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;
use tidegate_engine::kind;

/// Keys listed.
const KEYS_SHOWN: usize = 20;
/// Gaps listed.
const GAPS_SHOWN: usize = 5;
/// Events of one read.
const BATCH: usize = 16_384;

/// A report on one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The file.
    pub path: String,
    /// Format as recognised, such as `csv (time in ns)`.
    pub format: String,
    /// Size as stored.
    pub bytes: u64,
    /// Rows, messages or packets.
    pub units: u64,
    /// Of those, how many became events.
    pub accepted: u64,
    /// Events in all.
    pub events: u64,
    /// Events by kind, by name of the kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// How many names there are.
    pub keys: u64,
    /// The names with the most events, most first; ties in order of appearance.
    pub top_keys: Vec<KeyCount>,
    /// Events that went to the overflow name.
    pub overflowed: u64,
    /// Earliest event time in nanoseconds, `None` without events.
    pub first_ns: Option<u64>,
    /// Latest event time in nanoseconds.
    pub last_ns: Option<u64>,
    /// The longest silences between an event and the latest before it, longest first.
    pub gaps: Vec<Gap>,
    /// Events older than the latest before them.
    pub disorder: u64,
    /// By how much at most, in nanoseconds.
    pub disorder_max_ns: u64,
    /// Events with exactly the stamp of the event before them.
    pub equal_stamps: u64,
    /// Units refused, by cause; causes without a refusal are left out.
    pub refused: BTreeMap<&'static str, u64>,
    /// The first few refusals in words.
    pub examples: Vec<String>,
    /// Why reading ended before the end of the file; what was read until then is in the other fields.
    pub ended_early: Option<String>,
}

/// Events of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyCount {
    /// The name.
    pub name: String,
    /// Its events.
    pub events: u64,
}

/// A silence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    /// How long, in nanoseconds.
    pub ns: u64,
    /// When it began, in nanoseconds since 1970.
    pub from_ns: u64,
}

/// Reads the whole file and reports on it. A file that is damaged half-way is reported up to there, with
/// [`Inspection::ended_early`].
///
/// # Errors
/// [`ReadError`] when the file cannot be opened at all.
pub fn inspect(path: &Path, options: &ReadOptions) -> Result<Inspection, ReadError> {
    let mut source = open_input(path, options)?;
    let mut by_kind = [0u64; 256];
    let mut by_key: Vec<u64> = Vec::new();
    let mut gaps: BinaryHeap<std::cmp::Reverse<Gap>> = BinaryHeap::new();
    let (mut first, mut latest, mut previous) = (None::<u64>, None::<u64>, None::<u64>);
    let (mut disorder, mut disorder_max_ns, mut equal_stamps) = (0, 0, 0);
    let mut events = Vec::with_capacity(BATCH);
    let ended_early = loop {
        events.clear();
        let read = source.read(&mut events, BATCH);
        for event in &events {
            by_kind[usize::from(event.kind)] += 1;
            // Control records have no name, and a gap's stamp is that of the event behind it.
            if event.is_control() {
                continue;
            }
            let key = event.key as usize;
            if key >= by_key.len() {
                by_key.resize(key + 1, 0);
            }
            by_key[key] += 1;
            let ts = event.ts_event;
            equal_stamps += u64::from(previous == Some(ts));
            previous = Some(ts);
            first = Some(first.map_or(ts, |first| first.min(ts)));
            if let Some(before) = latest {
                if ts < before {
                    disorder += 1;
                    disorder_max_ns = disorder_max_ns.max(before - ts);
                } else if ts > before {
                    gaps.push(std::cmp::Reverse(Gap { ns: ts - before, from_ns: before }));
                    if gaps.len() > GAPS_SHOWN {
                        gaps.pop();
                    }
                }
            }
            latest = Some(latest.map_or(ts, |latest| latest.max(ts)));
        }
        match read {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.to_string()),
        }
    };
    let mut gaps: Vec<Gap> = gaps.into_iter().map(|gap| gap.0).collect();
    gaps.sort_by(|a, b| b.cmp(a));
    let mut order: Vec<usize> = (0..by_key.len()).filter(|&key| by_key[key] > 0).collect();
    order.sort_by_key(|&key| (std::cmp::Reverse(by_key[key]), key));
    let name = |key: usize| {
        source.names().name(key as u32).map_or_else(|| format!("#{key}"), |name| name.to_string())
    };
    let account = source.account();
    Ok(Inspection {
        path: path.display().to_string(),
        format: source.format(),
        bytes: source.progress().bytes_total,
        units: account.units,
        accepted: account.accepted,
        events: account.events,
        kinds: (0u8..=255)
            .filter(|&k| by_kind[usize::from(k)] > 0)
            .map(|k| (kind::name(k), by_kind[usize::from(k)]))
            .collect(),
        keys: source.names().len() as u64,
        top_keys: order
            .into_iter()
            .take(KEYS_SHOWN)
            .map(|key| KeyCount { name: name(key), events: by_key[key] })
            .collect(),
        overflowed: account.overflowed(),
        first_ns: first,
        last_ns: latest,
        gaps,
        disorder,
        disorder_max_ns,
        equal_stamps,
        refused: RejectCause::ALL
            .into_iter()
            .filter(|&cause| account.refused(cause) > 0)
            .map(|cause| (cause.name(), account.refused(cause)))
            .collect(),
        examples: account
            .examples
            .iter()
            .map(|(cause, place, why)| format!("{place}: {}: {why}", cause.name()))
            .collect(),
        ended_early,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        std::fs::write(&path, "ts,symbol,price,size\n10,A,1,1\n10,A,1,1\n30,B,1,1\n25,A,1,1\n31,A,x,1\n")
            .unwrap();
        let report = inspect(&path, &ReadOptions::default()).unwrap();
        assert_eq!((report.units, report.events, report.keys), (5, 4, 2));
        assert_eq!(report.kinds["trade"], 4);
        assert_eq!(report.top_keys[0], KeyCount { name: "A".to_owned(), events: 3 });
        assert_eq!((report.disorder, report.disorder_max_ns, report.equal_stamps), (1, 5_000_000_000, 1));
        assert_eq!(report.gaps, [Gap { ns: 20_000_000_000, from_ns: 10_000_000_000 }]);
        assert_eq!(report.refused["bad_number"], 1);
        assert!(report.examples[0].starts_with("line 6: bad_number"), "{:?}", report.examples);
        assert!(serde_json::to_string(&report).unwrap().contains("\"trade\":4"));
    }
}
