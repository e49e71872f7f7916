//! Rows of a table: CSV with or without a header, or an object of JSON a line.

use super::{Cells, Feature, Role, Spec, Taken, What, number_of};
use crate::render::clean;
use std::path::{Path, PathBuf};
use tidegate_anomaly::records::{FEATURES_MAX, WARM_RECORDS};
use tidegate_replay::decode::{LineFate, LineReader, ReadOptions, Times};
use tidegate_replay::{Progress, ReadAccount, ReadError};

/// Longest line. Some hundred rows wait until it is known what their columns are.
const LINE_BYTES_MAX: usize = 1 << 16;
/// Most columns.
const COLUMNS_MAX: usize = 1_024;
/// Lines looked at for the first that is a row.
const HEAD_LINES_MAX: usize = 1_000;
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
    settled: bool,
    problem: Option<String>,
}

impl Reader {
    pub(crate) fn open(path: &Path, spec: &Spec, options: &ReadOptions) -> Result<Self, ReadError> {
        let options = ReadOptions { line_bytes_max: LINE_BYTES_MAX, format: None, ..options.clone() };
        let columns = |reason| ReadError::Columns { path: path.to_path_buf(), reason };
        if std::fs::metadata(path).is_ok_and(|of| !of.is_file()) {
            return Err(columns(
                "it is no file, and a table is read twice: first for its columns".to_owned(),
            ));
        }
        let mut first = None;
        let mut lines = LineReader::open(path, &ReadOptions { strict: false, ..options.clone() })?;
        for _ in 0..HEAD_LINES_MAX {
            let more = lines.read(1, |_, line| {
                first = first.take().or_else(|| (!is_remark(line)).then(|| line.to_vec()));
                LineFate::NoUnit
            })?;
            if !more || first.is_some() {
                break;
            }
        }
        let first = first.ok_or_else(|| columns("it holds no row, not even a header".to_owned()))?;
        let shape = shape(&first, spec).map_err(columns)?;
        let rows = Rows {
            header_due: spec.header && !shape.json,
            spec: spec.clone(),
            shape,
            options: options.clone(),
            times: Times::default(),
            fields: Vec::new(),
            held: Vec::new(),
            features: Vec::new(),
            settled: spec.what == What::Edges,
            problem: None,
        };
        rows.named().map_err(columns)?;
        Ok(Self { path: path.to_path_buf(), lines: LineReader::open(path, &options)?, rows })
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

    /// How the columns of records are taken, for people.
    pub(crate) fn said(&self) -> Option<String> {
        let Rows { features, shape, .. } = &self.rows;
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

/// The columns, from the first line.
fn shape(first: &[u8], spec: &Spec) -> Result<Shape, String> {
    let line = text_of(first)?.trim_start_matches('\u{feff}');
    let json = line.trim_start().starts_with('{');
    let delimiter = [b'|', b'\t', b';', b','].into_iter().max_by_key(|delimiter| {
        // The comma comes last so that it wins a tie.
        line.bytes().filter(|byte| byte == delimiter).count()
    });
    let delimiter = delimiter.unwrap_or(b',');
    let mut names = Vec::new();
    if json {
        names.extend(object(line)?.keys().cloned());
    } else {
        split(line, delimiter, &mut names)?;
        if !spec.header {
            names = (1..=names.len()).map(|number| number.to_string()).collect();
        }
    }
    if names.len() > COLUMNS_MAX {
        return Err(format!("{} columns are more than {COLUMNS_MAX}", names.len()));
    }
    let headed = json || spec.header;
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
            None if headed => {
                Ok(role.headers().iter().find_map(|name| names.iter().position(|one| normal(one) == *name)))
            }
            None => Ok(place.filter(|at| *at < names.len())),
        }
    };
    // Without a header and a word about them, the columns of edges come in this order.
    let place = |at: usize| (spec.what == What::Edges && spec.map.is_empty()).then_some(at);
    let time = role(Role::Time, place(0))?;
    let source = role(Role::Source, place(1))?;
    let destination = role(Role::Destination, place(2))?;
    let weight = role(Role::Weight, place(3))?;
    let entity = role(Role::Entity, None)?;
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
        names,
    })
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
        if self.spec.what == What::Edges && !self.spec.features.is_empty() {
            return Err("edges have no features: --features is for --kind records".to_owned());
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
        }
    }

    /// What a table gives, an edge or a record as text.
    fn rows(text: &str, spec: &Spec) -> Result<(Vec<String>, u64), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        std::fs::write(&path, text).unwrap();
        let said = |error: ReadError| error.to_string();
        let mut reader = Reader::open(&path, spec, &ReadOptions::default()).map_err(said)?;
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
