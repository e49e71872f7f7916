//! Records of lines of logs: Zeek's in columns or JSON, Suricata's EVE.

use crate::record::{Key, Kind, Origin, Record, Value, known, of_eve};
use serde_json::Value as Json;

/// Deepest nesting of a line of JSON that is looked at.
const DEPTH_MAX: usize = 8;
/// Longest text of a value, bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Columns of a log.
const COLUMNS_MAX: usize = 256;
/// Latest instant, ns: what other parts of the product take.
const TS_MAX: u64 = i64::MAX as u64;

/// What a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Zeek's columns; with the log's name where it says it.
    ZeekColumns,
    /// Zeek's JSON.
    ZeekJson,
    /// EVE.
    Eve,
}

impl Form {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeekColumns => "zeek log",
            Self::ZeekJson => "zeek log (json)",
            Self::Eve => "eve",
        }
    }
}

/// A row, or why it is none.
pub type Row = Result<Record, String>;

/// Reads lines of one log.
#[derive(Debug, Clone)]
pub struct Rows {
    separator: char,
    unset: String,
    empty: String,
    columns: Vec<Key>,
    kind: Option<Kind>,
    form: Option<Form>,
    is_conn: bool,
    now: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            separator: '\t',
            unset: "-".to_owned(),
            empty: "(empty)".to_owned(),
            columns: Vec::new(),
            kind: None,
            form: None,
            is_conn: false,
            now: 0,
        }
    }
}

impl Rows {
    /// What the log is, once a line has shown it.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        self.form
    }

    /// Whether a line has named the columns.
    #[must_use]
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether it is Zeek's log of connections.
    #[must_use]
    pub fn is_conn(&self) -> bool {
        self.is_conn
    }

    /// Takes a line, the `number`-th: `None` for what is no row, such as headers.
    pub fn line(&mut self, line: &[u8], number: u64) -> Option<Row> {
        let text = match std::str::from_utf8(line) {
            Ok(text) => text.trim_end_matches('\r'),
            Err(_) => return Some(Err("it is no UTF-8".to_owned())),
        };
        if text.trim().is_empty() {
            return None;
        }
        if text.starts_with('#') {
            self.header(text);
            return None;
        }
        let row = if text.trim_start().starts_with('{') {
            self.json(text, number)
        } else {
            self.values(text, number)
        };
        Some(row.map(|mut record| {
            // Logs are written as things end: time as rules see it goes on only.
            self.now = self.now.max(record.ts);
            record.ts = self.now;
            record
        }))
    }

    fn header(&mut self, line: &str) {
        let rest = |name: &str| line.strip_prefix(name).map(|rest| rest.get(1..).unwrap_or_default());
        if let Some(value) = rest("#separator") {
            let byte = value.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex, 16).ok());
            self.separator = byte.map_or('\t', char::from);
        } else if let Some(value) = rest("#unset_field") {
            self.unset = value.to_owned();
        } else if let Some(value) = rest("#empty_field") {
            self.empty = value.to_owned();
        } else if let Some(value) = rest("#path") {
            self.form = Some(Form::ZeekColumns);
            self.path(value);
        } else if let Some(value) = rest("#fields") {
            self.form = Some(Form::ZeekColumns);
            let key = |name: &str| known(name).map_or_else(|| Key::Own(name.into()), Key::Known);
            self.columns = value.split(self.separator).take(COLUMNS_MAX).map(key).collect();
            let has = |name: &str| self.columns.iter().any(|key| key.name() == name);
            self.is_conn |= self.kind.is_none() && has("conn_state") && has("id.orig_h");
        }
    }

    fn path(&mut self, path: &str) {
        self.is_conn = path == "conn";
        self.kind = Some(match path {
            "conn" => Kind::Flow,
            "dns" => Kind::Dns,
            "http" => Kind::Http,
            _ => Kind::Other,
        });
    }

    fn values(&mut self, line: &str, number: u64) -> Row {
        if self.columns.is_empty() {
            return Err("a row before any line `#fields`, and no JSON".to_owned());
        }
        let mut record = Record::new(self.kind.unwrap_or(Kind::Other), Origin::Zeek, 0, (number, number));
        for (key, value) in self.columns.iter().zip(line.split(self.separator)) {
            if value == self.unset || value == self.empty {
                continue;
            }
            if key.name() == "ts" {
                record.ts = seconds(value).ok_or_else(|| format!("`ts` is `{}`", bounded(value)))?;
            }
            // Lists are separated by commas; texts may hold some, so only the whole and the parts are there to be found.
            record.put(key.clone(), Value::Text(bounded(value).into()));
            if value.contains(',') && key.name() == "answers" {
                value.split(',').for_each(|part| record.put(key.clone(), Value::Text(bounded(part).into())));
            }
        }
        if self.kind.is_none() {
            record.kind = guess(&record);
        }
        if record.ts == 0 {
            return Err("`ts` is missing".to_owned());
        }
        Ok(record)
    }

    fn json(&mut self, line: &str, number: u64) -> Row {
        let value: Json = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let Json::Object(object) = &value else { return Err("it is no object".to_owned()) };
        if let Some(Json::String(kind)) = object.get("event_type") {
            self.form = Some(Form::Eve);
            let kind = match kind.as_str() {
                "flow" | "netflow" => Kind::Flow,
                "dns" => Kind::Dns,
                "http" => Kind::Http,
                _ => Kind::Other,
            };
            let stamp = object.get("timestamp").and_then(Json::as_str).ok_or("`timestamp` is missing")?;
            let ts = instant(stamp).ok_or_else(|| format!("`timestamp` is `{}`", bounded(stamp)))?;
            let mut record = Record::new(kind, Origin::Eve, ts, (number, number));
            let key = |name: &str| of_eve(name).map_or_else(|| Key::Own(name.into()), Key::Known);
            flatten(&value, &mut String::new(), 0, &key, &mut record);
            return Ok(record);
        }
        self.form = Some(Form::ZeekJson);
        let mut record = Record::new(Kind::Other, Origin::Zeek, 0, (number, number));
        let key = |name: &str| known(name).map_or_else(|| Key::Own(name.into()), Key::Known);
        flatten(&value, &mut String::new(), 0, &key, &mut record);
        let stamp = object.get("ts").ok_or("`ts` is missing")?;
        let stamp = stamp.as_str().map_or_else(|| stamp.to_string(), str::to_owned);
        record.ts = seconds(&stamp)
            .or_else(|| instant(&stamp))
            .ok_or_else(|| format!("`ts` is `{}`", bounded(&stamp)))?;
        match object.get("_path").and_then(Json::as_str) {
            Some(path) => {
                self.path(path);
                record.kind = self.kind.unwrap_or(Kind::Other);
            }
            None => {
                record.kind = guess(&record);
                self.is_conn = record.kind == Kind::Flow;
            }
        }
        Ok(record)
    }
}

/// What a row of Zeek is about, where the log does not say its name.
fn guess(record: &Record) -> Kind {
    let has = |name: &str| record.first(name).is_some();
    if has("query") || has("qtype_name") {
        Kind::Dns
    } else if has("uri") || has("status_code") {
        Kind::Http
    } else if has("conn_state") || has("proto") {
        Kind::Flow
    } else {
        Kind::Other
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Seconds with a fraction, to ns, without a detour through floats.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let ns = whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos.parse().ok()?)?;
    Some(ns).filter(|ns| (1..=TS_MAX).contains(ns))
}

/// RFC 3339, also with the offset as EVE writes it.
fn instant(text: &str) -> Option<u64> {
    let stamp = text.parse::<jiff::Timestamp>();
    let stamp = stamp.or_else(|_| jiff::Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text)).ok()?;
    u64::try_from(stamp.as_nanosecond()).ok().filter(|ns| (1..=TS_MAX).contains(ns))
}

fn flatten(value: &Json, path: &mut String, depth: usize, key: &dyn Fn(&str) -> Key, record: &mut Record) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Json::Null => {}
        Json::Bool(yes) => record.put(key(path), Value::Bool(*yes)),
        Json::Number(number) => {
            if let Some(number) = number.as_f64() {
                record.put(key(path), Value::Number(number));
            }
        }
        Json::String(text) => record.put(key(path), Value::Text(bounded(text).into())),
        Json::Array(items) => items.iter().for_each(|item| flatten(item, path, depth + 1, key, record)),
        Json::Object(object) => {
            for (name, value) in object {
                let length = path.len();
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                flatten(value, path, depth + 1, key, record);
                path.truncate(length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(record: &Record, name: &str) -> String {
        record.first(name).map(|value| value.text().into_owned()).unwrap_or_default()
    }

    #[test]
    fn columns_of_zeek() {
        let mut rows = Rows::default();
        let log = "#separator \\x09\n#path\tdns\n#fields\tts\tid.orig_h\tquery\tanswers\tlabel\n1.5\t10.0.0.1\texample.com\t1.1.1.1,2.2.2.2\tx\n\
0.5\t10.0.0.1\t-\t-\ty\nbroken\n";
        let found: Vec<Row> =
            log.lines().zip(1..).filter_map(|(line, at)| rows.line(line.as_bytes(), at)).collect();
        let first = found[0].as_ref().unwrap();
        assert_eq!(
            (first.kind, first.origin, first.ts, first.units),
            (Kind::Dns, Origin::Zeek, 1_500_000_000, (4, 4))
        );
        assert_eq!(text(first, "query"), "example.com");
        assert_eq!(first.values(&Key::Own("label".into())).count(), 1);
        assert_eq!(first.values(&Key::of(Kind::Dns, "answers").unwrap()).count(), 3);
        // Time goes on only.
        assert_eq!(found[1].as_ref().unwrap().ts, 1_500_000_000);
        assert!(found[2].is_err() && rows.form() == Some(Form::ZeekColumns) && !rows.is_conn());
    }

    #[test]
    fn lines_of_json() {
        let mut rows = Rows::default();
        let eve = br#"{"timestamp":"2017-04-07T22:24:38.251547+0100","event_type":"dns","src_ip":"10.0.0.1","dest_port":53,"dns":{"type":"query","queries":[{"rrname":"a.example","rrtype":"TXT"}]},"alert":{"signature":"X"}}"#;
        let record = rows.line(eve, 1).unwrap().unwrap();
        assert_eq!((record.kind, record.ts), (Kind::Dns, 1_491_600_278_251_547_000));
        let said = ["query", "qtype_name", "id.orig_h", "id.resp_p"].map(|name| text(&record, name));
        assert_eq!(said, ["a.example", "TXT", "10.0.0.1", "53"]);
        assert_eq!(record.values(&Key::Own("alert.signature".into())).count(), 1);
        let zeek = br#"{"ts":1677024003.714845,"id.orig_h":"10.0.0.1","uri":"/x","method":"GET"}"#;
        let record = Rows::default().line(zeek, 1).unwrap().unwrap();
        assert_eq!((record.kind, record.ts), (Kind::Http, 1_677_024_003_714_845_000));
        assert!(Rows::default().line(br#"{"ts":"soon"}"#, 1).unwrap().is_err());
        assert!(Rows::default().line(b"ts,price", 1).unwrap().is_err());
    }

    proptest! {
        #[test]
        fn any_lines(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut rows = Rows::default();
            for line in lines {
                let _ = rows.line(&line, 1);
            }
        }

        #[test]
        fn any_json(body in "[\\[\\]{}\":,a-c0-9.]{0,60}") {
            let _ = Rows::default().line(format!("{{\"event_type\":\"x\",\"timestamp\":\"2020-01-01T00:00:00Z\",{body}}}").as_bytes(), 1);
        }
    }
}
