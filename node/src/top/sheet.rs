//! Tables of what is known, the same for the live view and for lines of text.

use super::model::{Model, UNKNOWN, number, text};
use crate::render::{rate, short_duration, thousands};
use serde_json::Value;

/// A table. Every row keeps what the node said about it.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    pub(super) title: &'static str,
    /// Headings; one that starts with `>` is of a column of numbers.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<(Vec<String>, Value)>,
}

impl Sheet {
    fn new(title: &'static str, columns: &[&str]) -> Self {
        Self { title, columns: columns.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
    }

    /// Only rows with `search` in one of their cells, in letters of either case.
    pub(super) fn filtered(mut self, search: &str) -> Self {
        let search = search.to_lowercase();
        self.rows.retain(|(cells, _)| cells.iter().any(|cell| cell.to_lowercase().contains(&search)));
        self
    }
}

fn of_rate(per_second: Option<f64>) -> String {
    per_second.map_or(UNKNOWN.to_owned(), rate)
}

/// A share of 1.
pub(super) fn percent(share: &Value) -> String {
    share.as_f64().map_or(UNKNOWN.to_owned(), |share| format!("{:.0} %", share * 100.0))
}

pub(super) fn milliseconds(value: &Value) -> String {
    number(value).map_or(UNKNOWN.to_owned(), |ms| short_duration(ms.saturating_mul(1_000_000)))
}

pub(super) fn shards(model: &Model) -> Sheet {
    let mut sheet = Sheet::new(
        "shards",
        &[
            "shard",
            "state",
            ">events",
            ">rate",
            ">results",
            ">ring",
            ">full",
            ">behind",
            ">busy",
            ">blocked",
            ">failed",
            ">restarts",
        ],
    );
    for shard in model.list("shards") {
        let full = match (number(&shard["ring_depth"]), number(&shard["ring_capacity"])) {
            (Some(depth), Some(capacity @ 1..)) => format!("{:.0} %", depth as f64 * 100.0 / capacity as f64),
            _ => UNKNOWN.to_owned(),
        };
        let cells = vec![
            text(&shard["shard"]),
            text(&shard["phase"]),
            text(&shard["events"]),
            of_rate(model.rate("shards", "shard", shard, "events")),
            text(&shard["outputs"]),
            text(&shard["ring_depth"]),
            full,
            milliseconds(&shard["lag_ms"]),
            percent(&shard["busy"]),
            percent(&shard["blocked"]),
            text(&shard["panics"]),
            text(&shard["restarts"]),
        ];
        sheet.rows.push((cells, shard.clone()));
    }
    sheet
}

/// Stages with what reads what, their results and their ledger.
pub(super) fn stages(model: &Model) -> Sheet {
    let mut sheet =
        Sheet::new("stages", &["stage", "reads", ">results", ">rate", ">taken", ">set aside", ">off by"]);
    for stage in model.list("stages") {
        let find = |entry: &&Value| entry["stage"] == stage["name"];
        let ledger = model.list("ledger").iter().find(find).unwrap_or(&Value::Null);
        // Whatever an event became beside being applied.
        let aside = ledger["by_cause"].as_object().map(|causes| {
            causes
                .iter()
                .filter(|(cause, _)| *cause != "applied")
                .filter_map(|(_, count)| number(count))
                .sum()
        });
        let cells = vec![
            text(&stage["name"]),
            text(&stage["upstream"]),
            text(&stage["outputs"]),
            of_rate(model.rate("stages", "name", stage, "outputs")),
            text(&ledger["delivered"]),
            aside.map_or(UNKNOWN.to_owned(), |count: u64| thousands(count)),
            text(&ledger["imbalance"]),
        ];
        let mut whole = stage.clone();
        whole["ledger"] = ledger.clone();
        sheet.rows.push((cells, whole));
    }
    sheet
}

pub(super) fn threads(model: &Model) -> Sheet {
    let mut sheet = Sheet::new("threads", &["thread", ">busy", ">blocked", ">idle"]);
    for thread in model.list("threads") {
        let shares = ["busy", "blocked", "idle"].map(|name| percent(&thread[name]));
        let mut cells = vec![text(&thread["thread"])];
        cells.extend(shares);
        sheet.rows.push((cells, thread.clone()));
    }
    sheet
}

pub(super) fn feeds(model: &Model) -> Sheet {
    let mut sheet = Sheet::new(
        "feeds",
        &[
            "feed",
            "state",
            "peer",
            ">rate",
            ">accepted",
            ">duplicate",
            ">lost",
            ">ahead",
            ">refused",
            ">sequence",
            ">connections",
        ],
    );
    for feed in model.list("feeds") {
        let state = match feed["connected"].as_bool() {
            Some(true) => "connected",
            Some(false) => "away",
            None => UNKNOWN,
        };
        let cells = vec![
            text(&feed["source"]),
            state.to_owned(),
            text(&feed["peer"]),
            of_rate(model.rate("feeds", "source", feed, "accepted")),
            text(&feed["accepted"]),
            text(&feed["duplicates"]),
            text(&feed["gaps"]),
            text(&feed["rejected"]["ahead"]),
            text(&feed["rejected"]["refused"]),
            text(&feed["sequence"]),
            text(&feed["connections"]),
        ];
        sheet.rows.push((cells, feed.clone()));
    }
    sheet
}

pub(super) fn subscribers(model: &Model) -> Sheet {
    let mut sheet = Sheet::new(
        "subscribers",
        &[
            "id",
            "kind",
            "peer",
            "streams",
            "past its lag",
            ">rate",
            ">delivered",
            ">behind",
            ">conflated",
            ">dropped",
        ],
    );
    for reader in model.list("subscribers") {
        let mut cells: Vec<String> =
            ["id", "kind", "peer", "streams", "policy"].iter().map(|name| text(&reader[name])).collect();
        cells.push(of_rate(model.rate("subscribers", "id", reader, "delivered")));
        cells.extend(["delivered", "lag", "conflated", "dropped"].iter().map(|name| text(&reader[name])));
        sheet.rows.push((cells, reader.clone()));
    }
    sheet
}

/// Keys with their newest record. Columns follow from what the first record has.
pub(super) fn keys(model: &Model) -> Sheet {
    let mut sheet = Sheet::new("keys", &["key"]);
    let Some(keys) = &model.keys else { return sheet };
    const BARS: [&str; 9] = ["open", "high", "low", "close", "volume", "vwap", "trades", "rev", "missing"];
    let first = keys.rows.iter().find_map(|(_, record)| record.as_ref());
    let values: Vec<String> = match first.and_then(|record| record["values"].as_object()) {
        Some(values) => values.keys().cloned().collect(),
        None => Vec::new(),
    };
    let bars = values.is_empty() && first.is_some();
    sheet.columns.push("time".to_owned());
    if bars {
        sheet.columns.extend(BARS.iter().map(|name| format!(">{name}")));
    }
    sheet.columns.extend(values.iter().map(|name| format!(">{name}")));
    sheet.columns.push("state".to_owned());
    for (name, record) in &keys.rows {
        let record = record.as_ref().unwrap_or(&Value::Null);
        let mut cells = vec![crate::render::clean(name), text(&record["time"])];
        if bars {
            cells.extend(BARS.iter().map(|field| text(&record[field])));
        }
        cells.extend(values.iter().map(|field| match &record["values"][field] {
            Value::Number(number) if number.is_f64() => {
                format!("{:.4}", number.as_f64().unwrap_or(f64::NAN))
            }
            value => text(value),
        }));
        cells.push(text(&record["state"]));
        sheet.rows.push((cells, record.clone()));
    }
    sheet
}

/// Everything the node said about a row, a line each.
pub(super) fn details(value: &Value) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    flatten("", value, &mut lines);
    lines
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                let name = crate::render::clean(name);
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(&path, value, lines);
            }
        }
        value => lines.push((path.to_owned(), text(value))),
    }
}
