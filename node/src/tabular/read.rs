//! Rows of a table: CSV with or without a header, or an object of JSON a line.

use super::{Cells, Feature, Joined, Role, Spec, Taken, VALUE_HEADERS, What, number_of, value_of};
use crate::interrupt::Interrupt;
use crate::render::clean;
use crate::stdin::Bytes;
use std::path::{Path, PathBuf};
use tidegate_anomaly::records::{FEATURES_MAX, WARM_RECORDS};
use tidegate_replay::decode::{LineFate, LineReader, ReadOptions, Times};
use tidegate_replay::{Progress, ReadAccount, ReadError};

/// Longest line. Some hundred rows wait until it is known what their columns are.
const LINE_BYTES_MAX: usize = 1 << 16;
/// Most columns.
const COLUMNS_MAX: usize = 1_024;
/// Lines of a file, and bytes of a pipe, looked at for the first that is a row.
const HEAD_LINES_MAX: usize = 1_000;
const HEAD_BYTES_MAX: usize = 4 * LINE_BYTES_MAX;
/// Longest key of a series.
const KEY_BYTES_MAX: usize = 200;
/// Most columns that are watched for common changes.
const TOGETHER_MAX: usize = 64;
/// As the standard input is named.
pub(crate) const PIPE: &str = "-";
/// Different texts in a column of so many rows that are more than categories have.
const TEXTS_MAX: usize = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// Where the columns are.
#[derive(Debug, Clone)]
struct Shape {
    json: bool,
    delimiter: u8,
    names: Vec<String>,
    time: Option<usize>,
    source: usize,
    destination: usize,
    weight: Option<usize>,
    entity: Option<usize>,
    key: Option<usize>,
    values: Vec<usize>,
    /// The first line names the columns.
    headed: bool,
}

/// A record that waits until it is known what its columns are.
struct Held {
    number: u64,
    ts: u64,
    fields: Vec<String>,
}

/// Reads a table.
pub(crate) struct Reader {
    path: PathBuf,
    lines: LineReader,
    rows: Rows,
}

struct Rows {
    spec: Spec,
    shape: Shape,
    options: ReadOptions,
    times: Times,
    header_due: bool,
    fields: Vec<String>,
    held: Vec<Held>,
    features: Vec<Feature>,
    /// Of a series: names of its columns of values, and what a row has in them.
    columns: Vec<String>,
    values: Vec<f64>,
    settled: bool,
    problem: Option<String>,
}

impl Reader {
    /// Opens a file or a pipe; `-` is the standard input, read until `interrupt`.
    pub(crate) fn open(
        path: &Path,
        spec: &Spec,
        options: &ReadOptions,
        interrupt: Option<&Interrupt>,
    ) -> Result<Self, ReadError> {
        let options = ReadOptions { line_bytes_max: LINE_BYTES_MAX, format: None, ..options.clone() };
        let columns = |reason| ReadError::Columns { path: path.to_path_buf(), reason };
        // What the columns of a series are is seen in its first row as well.
        let wanted = if spec.what == What::Series { 2 } else { 1 };
        let (lines, head) = match pipe(path, interrupt)? {
            Some(pipe) => {
                let mut lines = LineReader::from_stream(pipe, &label(path), &options)?;
                let head = lines.head(HEAD_BYTES_MAX, |bytes| rows_of(bytes).1 >= wanted)?;
                let head = head_of(head, wanted);
                (lines, head)
            }
            None => {
                let mut head: Vec<Vec<u8>> = Vec::new();
                let mut lines = LineReader::open(path, &ReadOptions { strict: false, ..options.clone() })?;
                for _ in 0..HEAD_LINES_MAX {
                    let more = lines.read(1, |_, line| {
                        if !is_remark(line) {
                            head.push(line.to_vec());
                        }
                        LineFate::NoUnit
                    })?;
                    if !more || head.len() >= wanted {
                        break;
                    }
                }
                (LineReader::open(path, &options)?, head)
            }
        };
        let mut head = head.iter().map(Vec::as_slice);
        let first = head.next().ok_or_else(|| columns("it holds no row, not even a header".to_owned()))?;
        let shape = shape(first, head.next(), spec).map_err(columns)?;
        let rows = Rows {
            header_due: shape.headed && !shape.json,
            columns: shape.values.iter().map(|at| shape.names[*at].trim().to_owned()).collect(),
            values: vec![f64::NAN; shape.values.len()],
            spec: spec.clone(),
            shape,
            options,
            times: Times::default(),
            fields: Vec::new(),
            held: Vec::new(),
            features: Vec::new(),
            settled: spec.what != What::Records,
            problem: None,
        };
        rows.named().map_err(columns)?;
        Ok(Self { path: path.to_path_buf(), lines, rows })
    }

    /// Gives about `max` rows to `take`. False once the input has ended.
    pub(crate) fn read(&mut self, max: usize, mut take: impl FnMut(&Cells<'_>)) -> Result<bool, ReadError> {
        let rows = &mut self.rows;
        let read = self.lines.read(max, |number, line| rows.line(number, line, &mut take));
        self.problem().map_or(read, Err)
    }

    /// Why nothing of the table can be judged, as far as its first rows have shown.
    pub(crate) fn problem(&self) -> Option<ReadError> {
        let reason = self.rows.problem.clone()?;
        Some(ReadError::Columns { path: self.path.clone(), reason })
    }

    /// The input has ended: gives what still waits.
    pub(crate) fn finish(&mut self, mut take: impl FnMut(&Cells<'_>)) {
        if !self.rows.settled && !self.rows.held.is_empty() {
            self.rows.settle(&mut take);
        }
    }

    /// How the columns of records and series are taken, for people.
    pub(crate) fn said(&self) -> Option<String> {
        let Rows { features, shape, .. } = &self.rows;
        if self.what() == What::Series {
            return Some(self.said_of_series());
        }
        if features.is_empty() || self.rows.problem.is_some() {
            return None;
        }
        let of = |kind: Taken| -> Vec<String> {
            features.iter().filter(|one| one.taken == kind).map(|one| clean(&one.name)).collect()
        };
        let mut parts = Vec::new();
        for kind in [Taken::Category, Taken::Count, Taken::Share] {
            let names = of(kind);
            if !names.is_empty() {
                parts.push(format!("{}: {}", kind.name(), names.join(" ")));
            }
        }
        let used = |at: usize| {
            features.iter().any(|one| one.column == at) || [shape.time, shape.entity].contains(&Some(at))
        };
        let left: Vec<String> = shape
            .names
            .iter()
            .enumerate()
            .filter(|(at, _)| !used(*at))
            .map(|(_, name)| clean(name))
            .collect();
        if !left.is_empty() {
            parts.push(format!("left out: {}", left.join(" ")));
        }
        Some(format!("columns taken as {} (--features)", parts.join("; ")))
    }

    fn said_of_series(&self) -> String {
        let Shape { names, time, key, values, headed, json, .. } = &self.rows.shape;
        let name = |at: &usize| clean(names[*at].trim());
        let list = |places: &[usize]| places.iter().map(name).collect::<Vec<_>>().join(" ");
        let mut parts = Vec::new();
        parts.push(time.as_ref().map_or("time: none, so a row counts as a second".to_owned(), |at| {
            format!("time: {}", name(at))
        }));
        parts.extend(key.as_ref().map(|at| format!("key: {}", name(at))));
        parts.push(format!("values: {}", list(values)));
        let used = |at: &usize| values.contains(at) || [*time, *key].contains(&Some(*at));
        let left: Vec<usize> = (0..names.len()).filter(|at| !used(at)).collect();
        if !left.is_empty() {
            parts.push(format!("left out: {}", list(&left)));
        }
        let header = if *headed || *json { "" } else { ", without a header" };
        format!("columns taken as {}{header} (--map)", parts.join("; "))
    }

    pub(crate) fn what(&self) -> What {
        self.rows.spec.what
    }

    pub(crate) fn account(&self) -> &ReadAccount {
        self.lines.account()
    }

    pub(crate) fn progress(&self) -> Progress {
        self.lines.progress()
    }
}

/// What stands for a pipe in messages.
fn label(path: &Path) -> PathBuf {
    if path == Path::new(PIPE) { PathBuf::from("stdin") } else { path.to_path_buf() }
}

/// The bytes of what is no file, and so can be read once only.
fn pipe(
    path: &Path,
    interrupt: Option<&Interrupt>,
) -> Result<Option<Box<dyn std::io::Read + Send>>, ReadError> {
    let io = |source| ReadError::Io { path: label(path), source };
    let stream: Box<dyn std::io::Read + Send> = if path == Path::new(PIPE) {
        Box::new(std::io::stdin())
    } else if std::fs::metadata(path).is_ok_and(|of| !of.is_file() && !of.is_dir()) {
        Box::new(std::fs::File::open(path).map_err(io)?)
    } else {
        return Ok(None);
    };
    Ok(Some(match interrupt {
        Some(interrupt) => Box::new(Bytes::of(stream, interrupt.clone()).map_err(io)?),
        None => stream,
    }))
}

/// Whole lines that are rows, and how many there are.
fn rows_of(bytes: &[u8]) -> (impl Iterator<Item = &[u8]>, usize) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let row = |line: &&[u8]| line.len() <= LINE_BYTES_MAX && !is_remark(line);
    let lines = || bytes[..end].split(|byte| *byte == b'\n').map(without_return).filter(row);
    (lines(), lines().count())
}

/// The first `wanted` rows of what has come of a pipe; its last line may have no end.
fn head_of(bytes: &[u8], wanted: usize) -> Vec<Vec<u8>> {
    let mut head: Vec<Vec<u8>> = rows_of(bytes).0.take(wanted).map(<[u8]>::to_vec).collect();
    let rest = without_return(bytes.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
    if head.len() < wanted && bytes.len() < HEAD_BYTES_MAX && !is_remark(rest) {
        head.push(rest.to_vec());
    }
    head
}

/// A line as it is where lines end as on Windows.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// An empty line or a comment.
fn is_remark(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace) || line.starts_with(b"#")
}

/// A header in the form names are compared in.
fn normal(header: &str) -> String {
    header.trim().chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

fn text_of(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|_| "it is no UTF-8 text".to_owned())
}

/// The columns, from the first line, and for a series from the second as well.
fn shape(first: &[u8], second: Option<&[u8]>, spec: &Spec) -> Result<Shape, String> {
    let line = text_of(first)?.trim_start_matches('\u{feff}');
    let json = line.trim_start().starts_with('{');
    let delimiter = [b'|', b'\t', b';', b','].into_iter().max_by_key(|delimiter| {
        // The comma comes last so that it wins a tie.
        line.bytes().filter(|byte| byte == delimiter).count()
    });
    let delimiter = delimiter.unwrap_or(b',');
    let (mut names, mut row, mut headed) = (Vec::new(), Vec::new(), spec.header && !json);
    if json {
        for (name, value) in object(line)? {
            names.push(name);
            row.push(field(&value));
        }
    } else {
        split(line, delimiter, &mut names)?;
        if spec.what == What::Series && headed {
            headed = has_header(&names, spec)?;
        }
        if headed {
            if let Some(second) = second.filter(|_| spec.what == What::Series) {
                // What cannot be read is told when its turn comes.
                let _ = text_of(second).and_then(|line| split(line, delimiter, &mut row));
            }
        } else {
            row = names;
            names = (1..=row.len()).map(|number| number.to_string()).collect();
        }
    }
    if names.len() > COLUMNS_MAX {
        return Err(format!("{} columns are more than {COLUMNS_MAX}", names.len()));
    }
    let named = json || headed;
    let find = |name: &str| {
        let exact = names.iter().position(|one| one.trim() == name);
        exact.or_else(|| names.iter().position(|one| normal(one) == normal(name)))
    };
    let list = || names.iter().take(40).map(|name| clean(name)).collect::<Vec<_>>().join(", ");
    let role = |role: Role, place: Option<usize>| -> Result<Option<usize>, String> {
        if !role.is_of(spec.what) {
            return match spec.map.get(&role) {
                Some(_) => Err(format!("tables of {} have no `{}`", spec.what.name(), role.name())),
                None => Ok(None),
            };
        }
        match spec.map.get(&role) {
            Some(name) => {
                let at = find(name);
                at.map(Some)
                    .ok_or_else(|| format!("there is no column `{name}`; the columns are: {}", list()))
            }
            None if named => {
                Ok(role.headers().iter().find_map(|name| names.iter().position(|one| normal(one) == *name)))
            }
            None => Ok(place.filter(|at| *at < names.len())),
        }
    };
    // Without a header and a word about them, the columns of edges come in this order.
    let place = |at: usize| (spec.what == What::Edges && spec.map.is_empty()).then_some(at);
    // Of several columns of a series the first is the time.
    let asked = |at: usize| {
        let mut asked = spec.map.values().chain(spec.series.iter().flat_map(|series| &series.values));
        asked.any(|name| find(name) == Some(at))
    };
    let of_series = (spec.what == What::Series && names.len() > 1 && !asked(0)).then_some(0);
    let time = role(Role::Time, place(0).or(of_series))?;
    let source = role(Role::Source, place(1))?;
    let destination = role(Role::Destination, place(2))?;
    let weight = role(Role::Weight, place(3))?;
    let entity = role(Role::Entity, None)?;
    let key = role(Role::Key, None)?;
    let mut values = Vec::new();
    if let Some(series) = &spec.series {
        for name in &series.values {
            let at = find(name);
            let at = at.ok_or_else(|| format!("there is no column `{name}`; the columns are: {}", list()))?;
            if [time, key].contains(&Some(at)) || values.contains(&at) {
                return Err(format!("column `{name}` cannot be two things; the columns are: {}", list()));
            }
            values.push(at);
        }
        if values.is_empty() && named {
            let known = |name: &&str| names.iter().position(|one| normal(one) == *name);
            let known = VALUE_HEADERS.iter().find_map(known);
            values.extend(known.filter(|at| ![time, key].contains(&Some(*at))));
        }
        if values.is_empty() {
            let holds = |at: &usize| row.get(*at).is_none_or(|text| value_of(text).is_some());
            let free = (0..names.len()).filter(|at| ![time, key].contains(&Some(*at)));
            values.extend(free.filter(holds));
        }
        if series.changes == Some(Joined::Together) && values.len() > TOGETHER_MAX {
            return Err(format!(
                "{} columns of values are more than the {TOGETHER_MAX} that can change together; name fewer with --map value=COLUMN",
                values.len()
            ));
        }
        if values.is_empty() {
            return Err(format!(
                "no column holds numbers in the first row. The columns are: {}. Name those that do with --map value=COLUMN (and time=COLUMN, \
                 key=COLUMN), or say --no-header where the first line is a row",
                list()
            ));
        }
    }
    if spec.what == What::Edges {
        for (role, found) in [(Role::Time, time), (Role::Source, source), (Role::Destination, destination)] {
            if found.is_none() {
                return Err(format!(
                    "cannot tell which column is the {}. The columns are: {}. Name them with --map time=COLUMN,source=COLUMN,destination=COLUMN \
                     (and weight=COLUMN), or say --no-header where the first line is a row",
                    role.name(),
                    list()
                ));
            }
        }
    }
    Ok(Shape {
        json,
        delimiter,
        time,
        source: source.unwrap_or_default(),
        destination: destination.unwrap_or_default(),
        weight,
        entity,
        key,
        values,
        headed,
        names,
    })
}

/// Whether the first line of a series names its columns. A line of numbers and times alone does not.
fn has_header(fields: &[String], spec: &Spec) -> Result<bool, String> {
    let number = |text: &str| number_of(text).is_some_and(f64::is_finite);
    let time = |text: &str| match &spec.time_format {
        Some(format) => jiff::civil::DateTime::strptime(format, text).is_ok(),
        None => Times::default().parse(text.as_bytes()).is_ok(),
    };
    let Some(first) = fields.iter().find(|text| number(text)) else { return Ok(true) };
    if fields.iter().all(|text| number(text) || time(text) || value_of(text).is_some()) {
        return Ok(false);
    }
    let asked = !spec.map.is_empty() || spec.series.as_ref().is_some_and(|series| !series.values.is_empty());
    if asked {
        return Ok(true);
    }
    Err(format!(
        "cannot tell whether the first line is a header: it has the number `{}` and texts. Name columns with --map time=COLUMN,value=COLUMN \
         (and key=COLUMN), or say --no-header where it is a row",
        short(first)
    ))
}

/// What stands in a field of JSON.
fn field(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn object(line: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    match serde_json::from_str(line) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        Ok(_) => Err("a line that is no object of JSON".to_owned()),
        Err(error) => Err(format!("a line that is no JSON: {error}")),
    }
}

/// Splits a line at the delimiter; quoted fields may hold it, and doubled quotes.
fn split(line: &str, delimiter: u8, fields: &mut Vec<String>) -> Result<(), String> {
    let mut count = 0;
    let mut rest = line;
    loop {
        if fields.len() == count {
            fields.push(String::new());
        }
        let field = &mut fields[count];
        field.clear();
        count += 1;
        let more = if let Some(quoted) = rest.strip_prefix('"') {
            let mut from = quoted;
            loop {
                let at = from.find('"').ok_or("a quote that is not closed in its line")?;
                field.push_str(&from[..at]);
                from = &from[at + 1..];
                match from.strip_prefix('"') {
                    Some(next) => {
                        field.push('"');
                        from = next;
                    }
                    None => break,
                }
            }
            if !from.is_empty() && !from.as_bytes().starts_with(&[delimiter]) {
                return Err("something behind a closed quote".to_owned());
            }
            (!from.is_empty()).then(|| &from[1..])
        } else {
            let at = rest.bytes().position(|byte| byte == delimiter);
            field.push_str(rest[..at.unwrap_or(rest.len())].trim());
            at.map(|at| &rest[at + 1..])
        };
        match more {
            Some(more) => rest = more,
            None => break,
        }
    }
    fields.truncate(count);
    Ok(())
}

impl Rows {
    /// Features that were named are columns.
    fn named(&self) -> Result<(), String> {
        if self.spec.what != What::Records && !self.spec.features.is_empty() {
            let what = self.spec.what.name();
            return Err(format!("{what} have no features: --features is for --kind records"));
        }
        for (name, _) in &self.spec.features {
            if !self.shape.names.iter().any(|one| one == name) {
                let names: Vec<String> = self.shape.names.iter().take(40).map(|name| clean(name)).collect();
                return Err(format!("there is no column `{name}`; the columns are: {}", names.join(", ")));
            }
        }
        Ok(())
    }

    fn line(&mut self, number: u64, line: &[u8], take: &mut impl FnMut(&Cells<'_>)) -> LineFate {
        if is_remark(line) {
            return LineFate::NoUnit;
        }
        if std::mem::take(&mut self.header_due) || self.problem.is_some() {
            return LineFate::NoUnit;
        }
        match self.row(number, line, take) {
            Ok(ts) => LineFate::Row(ts),
            Err(why) => LineFate::Malformed(why),
        }
    }

    fn row(&mut self, number: u64, line: &[u8], take: &mut impl FnMut(&Cells<'_>)) -> Result<u64, String> {
        let text = text_of(line)?.trim_start_matches('\u{feff}').trim_end_matches('\r');
        let shape = &self.shape;
        if shape.json {
            let object = object(text)?;
            self.fields.resize(shape.names.len(), String::new());
            for (field, name) in self.fields.iter_mut().zip(&shape.names) {
                field.clear();
                match object.get(name) {
                    None | Some(serde_json::Value::Null) => {}
                    Some(serde_json::Value::String(text)) => field.push_str(text),
                    Some(other) => field.push_str(&other.to_string()),
                }
            }
        } else {
            split(text, shape.delimiter, &mut self.fields)?;
        }
        let (found, wanted) = (self.fields.len(), shape.names.len());
        if found != wanted {
            return Err(format!("{found} columns, where there are {wanted}"));
        }
        let ts = match shape.time {
            Some(at) => self.instant(at)?,
            None => number.saturating_mul(SECOND_NS),
        };
        let wanted = LineReader::wants(&self.options, ts);
        match self.spec.what {
            What::Edges => {
                let Shape { source, destination, weight, .. } = self.shape;
                let (source, destination) = (self.fields[source].as_str(), self.fields[destination].as_str());
                if source.is_empty() || destination.is_empty() {
                    return Err("an edge without a source or a destination".to_owned());
                }
                let weight = match weight.map(|at| self.fields[at].as_str()) {
                    None => 1.0,
                    Some(text) => number_of(text)
                        .filter(|weight| *weight >= 0.0)
                        .ok_or_else(|| format!("weight `{}` is no number from 0 up", short(text)))?,
                };
                if wanted {
                    take(&Cells::Edge { number, ts, source, destination, weight });
                }
            }
            What::Series => {
                let key = self.shape.key.map(|at| self.fields[at].as_str());
                if let Some(key) = key
                    && !(1..=KEY_BYTES_MAX).contains(&key.len())
                {
                    return Err(match key.len() {
                        0 => "a row without a key".to_owned(),
                        bytes => format!("a key of {bytes} bytes, where {KEY_BYTES_MAX} are the most"),
                    });
                }
                for (value, &at) in self.values.iter_mut().zip(&self.shape.values) {
                    let text = self.fields[at].as_str();
                    *value = value_of(text).ok_or_else(|| {
                        format!("`{}` in column `{}` is no number", short(text), clean(&self.shape.names[at]))
                    })?;
                }
                if wanted {
                    take(&Cells::Series { number, ts, key, columns: &self.columns, values: &self.values });
                }
            }
            What::Records => {
                self.check()?;
                if !wanted {
                    return Ok(ts);
                }
                if self.settled {
                    self.give(number, ts, take);
                } else {
                    self.held.push(Held { number, ts, fields: self.fields.clone() });
                    if self.held.len() as u64 >= WARM_RECORDS {
                        self.settle(take);
                    }
                }
            }
        }
        Ok(ts)
    }

    fn instant(&mut self, at: usize) -> Result<u64, String> {
        let text = self.fields[at].as_str();
        let Some(format) = &self.spec.time_format else { return self.times.parse(text.as_bytes()) };
        let wrong = |why: &dyn std::fmt::Display| {
            format!("time `{}` is not as --time-format has it: {why}", short(text))
        };
        let civil = jiff::civil::DateTime::strptime(format, text).map_err(|error| wrong(&error))?;
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| wrong(&error))?;
        u64::try_from(zoned.timestamp().as_nanosecond())
            .map_err(|_| wrong(&"it lies before 1970 or after 2262"))
    }

    /// Fields whose kind is known are of that kind.
    fn check(&self) -> Result<(), String> {
        let wrong =
            |name: &str, text: &str| format!("`{}` in column `{}` is no number", short(text), clean(name));
        if self.settled {
            for feature in &self.features {
                let text = self.fields[feature.column].as_str();
                if feature.taken != Taken::Category && number_of(text).is_none() {
                    return Err(wrong(&feature.name, text));
                }
            }
            return Ok(());
        }
        for (name, taken) in &self.spec.features {
            let at = self.shape.names.iter().position(|one| one == name).unwrap_or_default();
            if matches!(taken, Taken::Count | Taken::Share) && number_of(&self.fields[at]).is_none() {
                return Err(wrong(name, &self.fields[at]));
            }
        }
        Ok(())
    }

    /// Decides what the columns are, and gives the rows that waited for it.
    fn settle(&mut self, take: &mut impl FnMut(&Cells<'_>)) {
        self.settled = true;
        for (column, name) in self.shape.names.iter().enumerate() {
            if [self.shape.time, self.shape.entity].contains(&Some(column)) {
                continue;
            }
            let said = self.spec.features.iter().find(|(one, _)| one == name).map(|(_, taken)| *taken);
            let taken =
                said.unwrap_or_else(|| guess(self.held.iter().map(|held| held.fields[column].as_str())));
            if taken != Taken::Skip {
                self.features.push(Feature { name: name.clone(), taken, column });
            }
        }
        let categories = self.features.iter().filter(|one| one.taken == Taken::Category).count();
        self.problem = match self.features.len() {
            0 => Some("no column has features to judge; name some with --features COLUMN=KIND".to_owned()),
            many if many > FEATURES_MAX => {
                Some(format!("{many} features are more than {FEATURES_MAX}; leave some out with --features COLUMN=skip"))
            }
            _ if categories == 0 => Some(
                "no column has names (a protocol, a service, an outcome), which records are sorted by; where numbers stand for names say \
                 --features COLUMN=category"
                    .to_owned(),
            ),
            _ => None,
        };
        let held = std::mem::take(&mut self.held);
        if self.problem.is_some() {
            return;
        }
        for Held { number, ts, fields } in held {
            self.fields = fields;
            self.give(number, ts, take);
        }
    }

    fn give(&self, number: u64, ts: u64, take: &mut impl FnMut(&Cells<'_>)) {
        let entity = self.shape.entity.map(|at| self.fields[at].as_str());
        take(&Cells::Record { number, ts, entity, features: &self.features, fields: &self.fields });
    }
}

/// What a column is, from its first fields: numbers are counts, or shares where all are from 0 to 1 and some have a fraction; texts are
/// categories, unless nearly every row has another.
fn guess<'a>(fields: impl Iterator<Item = &'a str> + Clone) -> Taken {
    let numbers: Option<Vec<f64>> = fields.clone().map(number_of).collect();
    if let Some(numbers) = numbers {
        let mut there = numbers.iter().copied().filter(|value| !value.is_nan()).peekable();
        if there.peek().is_none() {
            return Taken::Skip;
        }
        let shares = there.clone().all(|value| (0.0..=1.0).contains(&value))
            && there.any(|value| value.fract() != 0.0);
        return if shares { Taken::Share } else { Taken::Count };
    }
    let rows = fields.clone().count();
    let different = fields.collect::<std::collections::HashSet<_>>().len();
    if different > TEXTS_MAX && different * 2 > rows { Taken::Skip } else { Taken::Category }
}

fn short(text: &str) -> String {
    clean(&text.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::one_in;
    use super::*;
    use std::collections::BTreeMap;

    fn spec(what: What) -> Spec {
        Spec {
            what,
            one_in: one_in(what),
            tick_ns: 60 * SECOND_NS,
            map: BTreeMap::new(),
            features: Vec::new(),
            header: true,
            time_format: None,
            series: (what == What::Series).then(super::super::SeriesSpec::default),
        }
    }

    /// What a table gives, an edge or a record as text.
    fn rows(text: &str, spec: &Spec) -> Result<(Vec<String>, u64), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        std::fs::write(&path, text).unwrap();
        let said = |error: ReadError| error.to_string();
        let mut reader = Reader::open(&path, spec, &ReadOptions::default(), None).map_err(said)?;
        let mut list = Vec::new();
        let mut take = |cells: &Cells<'_>| {
            list.push(match cells {
                Cells::Edge { number, ts, source, destination, weight } => {
                    format!("{number} {ts} {source}>{destination} {weight}")
                }
                Cells::Record { number, entity, features, fields, .. } => {
                    let kinds: Vec<&str> = features.iter().map(|one| one.taken.name()).collect();
                    format!("{number} {} {} {}", entity.unwrap_or("."), kinds.join(","), fields.join("|"))
                }
                Cells::Series { number, ts, key, columns, values } => {
                    format!("{number} {ts} {} {} {values:?}", key.unwrap_or("."), columns.join(","))
                }
            });
        };
        while reader.read(3, &mut take).map_err(said)? {}
        reader.finish(&mut take);
        reader.problem().map_or(Ok(()), Err).map_err(said)?;
        Ok((list, reader.account().faults()))
    }

    #[test]
    fn edges_are_found_by_their_headers_by_a_map_or_in_their_order() {
        let second = "000000000";
        let one = format!("2 1{second} a>b 1");
        let edges = spec(What::Edges);
        assert_eq!(rows("dst,ts,src\nb,1,a\n", &edges).unwrap(), (vec![one.clone()], 0));
        assert_eq!(
            rows("# x\nts;src;dst;count\n1;\"a;c\";b;7\n", &edges).unwrap().0,
            [format!("3 1{second} a;c>b 7")]
        );
        assert_eq!(
            rows("{\"to\":\"b\",\"from\":\"a\",\"time\":1}\n{\"time\":2}\n", &edges).unwrap(),
            (vec![format!("1 1{second} a>b 1")], 1)
        );
        let bare = Spec { header: false, ..edges.clone() };
        assert_eq!(rows("1,a,b\n", &bare).unwrap().0, [format!("1 1{second} a>b 1")]);
        let map = BTreeMap::from([(Role::Time, "3"), (Role::Source, "1"), (Role::Destination, "2")]);
        let map = map.into_iter().map(|(role, name)| (role, name.to_owned())).collect();
        let darpa = Spec { map, time_format: Some("%m/%d/%Y-%H:%M".to_owned()), ..bare };
        let (list, faults) = rows("a,b,01/01/1970-00:01,-\na,b,today,-\na,b\n", &darpa).unwrap();
        assert_eq!((list, faults), (vec!["1 60000000000 a>b 1".to_owned()], 2));
        let (list, faults) = rows("ts,src,dst,n\n1,a,,1\n1,a,b,-1\n1,\"a,b,1\n", &edges).unwrap();
        assert_eq!((list.len(), faults), (0, 3));
    }

    #[test]
    fn series_are_found_with_and_without_a_header_and_in_json() {
        let series = spec(What::Series);
        let second = "000000000";
        let given = |text: &str, spec: &Spec| rows(text, spec).unwrap();
        let of = |values: &[&str], roles: &[(Role, &str)]| Spec {
            map: roles.iter().map(|(role, name)| (*role, (*name).to_owned())).collect(),
            series: Some(super::super::SeriesSpec {
                values: values.iter().map(|name| (*name).to_owned()).collect(),
                ..Default::default()
            }),
            ..series.clone()
        };
        // A column called value is the only one; otherwise all that hold numbers in the first row.
        let (list, faults) = given("timestamp,value,other\n1970-01-01 00:00:05,2.5,7\n6,1,1\n", &series);
        assert_eq!((list, faults), (vec![format!("2 5{second} . value [2.5]")], 1));
        let text = "ts,host,cpu,key,mem\n1,x,0.5,a,\n2,x,,b,inf\n3,x,1,,1\n4,x,one,a,1\n";
        let wanted =
            vec![format!("2 1{second} a cpu,mem [0.5, NaN]"), format!("3 2{second} b cpu,mem [NaN, NaN]")];
        assert_eq!(given(text, &series), (wanted, 2));
        let (list, faults) = given(text, &of(&["mem"], &[(Role::Key, "host")]));
        assert_eq!((list.len(), faults, list[0].as_str()), (4, 0, "2 1000000000 x mem [NaN]"));
        // Lines of numbers and times alone have no header.
        assert_eq!(
            given("5\n7\n", &series).0,
            [format!("1 1{second} . 1 [5.0]"), format!("2 2{second} . 1 [7.0]")]
        );
        assert_eq!(given("1970-01-01T00:00:09Z,5,6\n", &series).0, [format!("1 9{second} . 2,3 [5.0, 6.0]")]);
        let bare = Spec { header: false, ..of(&["3"], &[(Role::Key, "2")]) };
        assert_eq!(given("9,a,6\n", &bare).0, [format!("1 9{second} a 3 [6.0]")]);
        let json = "{\"time\":1,\"key\":\"a\",\"load\":0.25,\"up\":null}\n{\"time\":2,\"key\":\"a\"}\n";
        let wanted =
            vec![format!("1 1{second} a load,up [0.25, NaN]"), format!("2 2{second} a load,up [NaN, NaN]")];
        assert_eq!(given(json, &series), (wanted, 0));
        assert_eq!(given("a,b\n", &series), (vec![], 0), "a header alone is no error");
        let long = format!("key,value\n{},1\n", "k".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(given(&long, &series), (vec![], 1));
        for (text, spec, word) in [
            ("", &series, "no row"),
            ("2024-01-01,host,5\n2024-01-02,host,6\n", &series, "--no-header"),
            ("when,who\nnow,me\n", &series, "no column holds numbers"),
            ("ts,a\n1,2\n", &of(&["b"], &[]), "no column `b`; the columns are: ts, a"),
            ("ts,a\n1,2\n", &of(&["ts"], &[(Role::Time, "ts")]), "cannot be two things"),
            ("ts,a\n1,2\n", &of(&[], &[(Role::Source, "a")]), "tables of series have no `source`"),
        ] {
            let error = rows(text, spec).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_head_of_a_pipe_is_what_has_come() {
        let head = |text: &str| -> Vec<String> {
            let lines = head_of(text.as_bytes(), 2);
            lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
        };
        assert_eq!(head("# x\n\na\nb\nc"), ["a", "b"]);
        assert_eq!(head("a\nb"), ["a", "b"]);
        assert_eq!(head("a\n"), ["a"]);
        assert!(head("").is_empty());
        let long = format!("{}\na\n", "x".repeat(LINE_BYTES_MAX + 1));
        assert_eq!(head(&long), ["a"]);
    }

    #[test]
    fn columns_that_are_not_there_are_told_with_those_that_are() {
        let edges = spec(What::Edges);
        let error = rows("when,who,whom\n1,a,b\n", &edges).unwrap_err();
        assert!(
            error.contains("which column is the time")
                && error.contains("when, who, whom")
                && error.contains("--map"),
            "{error}"
        );
        let map = BTreeMap::from([(Role::Time, "x".to_owned())]);
        assert!(rows("ts,src,dst\n", &Spec { map, ..edges.clone() }).unwrap_err().contains("no column `x`"));
        let map = BTreeMap::from([(Role::Entity, "src".to_owned())]);
        assert!(
            rows("ts,src,dst\n", &Spec { map, ..edges.clone() }).unwrap_err().contains("have no `entity`")
        );
        assert!(
            rows("", &edges).unwrap_err().contains("no row")
                && rows("\n#\n", &edges).unwrap_err().contains("no row")
        );
        assert!(rows("{\"a\":", &edges).unwrap_err().contains("no JSON"));
        assert!(rows(&"a,".repeat(2_000), &edges).unwrap_err().contains("more than 1024"));
    }

    #[test]
    fn records_wait_until_their_columns_are_known() {
        let mut text = "id,proto,bytes,share,flag,who\n".to_owned();
        for row in 0..400 {
            text += &format!(
                "x{row},{},{},0.{},{},h{}\n",
                ["tcp", "udp"][row % 2],
                row * 10,
                row % 10,
                row % 2,
                row % 3
            );
        }
        let map = BTreeMap::from([(Role::Entity, "who".to_owned())]);
        let features = vec![("flag".to_owned(), Taken::Category)];
        let records = Spec { map, features, ..spec(What::Records) };
        let (list, faults) = rows(&text, &records).unwrap();
        assert_eq!((list.len(), faults), (400, 0));
        assert_eq!(list[0], "2 h0 category,count,share,category x0|tcp|0|0.0|0|h0");
        assert_eq!(list[399], "401 h0 category,count,share,category x399|udp|3990|0.9|1|h0");
        let (list, faults) = rows("proto,bytes\ntcp,1\nudp,-\nudp\n", &spec(What::Records)).unwrap();
        assert_eq!(
            (list, faults),
            (vec!["2 . category,count tcp|1".to_owned(), "3 . category,count udp|-".to_owned()], 1)
        );
        let error = rows("bytes,n\n1,2\n", &spec(What::Records)).unwrap_err();
        assert!(error.contains("--features COLUMN=category"), "{error}");
        let features = vec![("proto".to_owned(), Taken::Count)];
        let (_, faults) = rows("proto,x\ntcp,a\n1,b\n", &Spec { features, ..spec(What::Records) }).unwrap();
        assert_eq!(faults, 1);
        let features = vec![("gone".to_owned(), Taken::Count)];
        assert!(
            rows("proto\n", &Spec { features, ..spec(What::Records) })
                .unwrap_err()
                .contains("no column `gone`")
        );
    }
}
