//! Tables of edges, of records and of series, for the detectors that judge them: `tidegate detect --kind edges|records|series`.

mod judge;
mod read;
mod series;

pub(crate) use judge::{CellJudge, Scores, edge_finding, units_of};
pub(crate) use read::{PIPE, Reader};
pub(crate) use series::{Counts as SeriesCounts, LEARNING_ROWS, SERIES_MAX};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The option of an input that is a table: how it was read and judged.
pub(crate) const OPTION: &str = "table";

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    Edges,
    Records,
    Series,
}

impl What {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Records => "records",
            Self::Series => "series",
        }
    }
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Time,
    Source,
    Destination,
    Weight,
    Entity,
    Key,
}

impl Role {
    const ALL: [Self; 6] =
        [Self::Time, Self::Source, Self::Destination, Self::Weight, Self::Entity, Self::Key];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Weight => "weight",
            Self::Entity => "entity",
            Self::Key => "key",
        }
    }

    /// Whether tables of this kind have such a column.
    const fn is_of(self, what: What) -> bool {
        match self {
            Self::Time => true,
            Self::Source | Self::Destination | Self::Weight => matches!(what, What::Edges),
            Self::Entity => matches!(what, What::Records),
            Self::Key => matches!(what, What::Series),
        }
    }

    /// Headers that mean it, in the form names are compared in.
    const fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Time => &["time", "ts", "timestamp", "datetime", "date", "start", "ts_event", "ts_ns", "t"],
            Self::Source => &[
                "source",
                "src",
                "from",
                "src_ip",
                "source_ip",
                "srcip",
                "saddr",
                "id_orig_h",
                "originator",
                "caller",
                "sender",
            ],
            Self::Destination => &[
                "destination",
                "dst",
                "to",
                "dst_ip",
                "destination_ip",
                "dstip",
                "dest",
                "daddr",
                "id_resp_h",
                "responder",
                "callee",
                "receiver",
                "target",
            ],
            Self::Weight => &["weight", "count", "n", "connections"],
            // Only where it is asked for: any column might be meant.
            Self::Entity => &[],
            Self::Key => &["key", "series", "metric"],
        }
    }
}

/// How a feature of a record is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Taken {
    Category,
    Count,
    Share,
    Skip,
}

impl Taken {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Category => "category",
            Self::Count => "count",
            Self::Share => "share",
            Self::Skip => "skip",
        }
    }
}

/// How a table is read and judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) what: What,
    /// One in so many ordinary rows may be an alert.
    pub(crate) one_in: u32,
    /// Width of the ticks that edges are counted in, ns.
    pub(crate) tick_ns: u64,
    pub(crate) map: BTreeMap<Role, String>,
    pub(crate) features: Vec<(String, Taken)>,
    pub(crate) header: bool,
    pub(crate) time_format: Option<String>,
    /// Of a table of series; others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) series: Option<SeriesSpec>,
}

/// What only tables of series have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeriesSpec {
    /// Columns of values, as they were named; none where they are to be found.
    pub(crate) values: Vec<String>,
    /// What a series without a key is called.
    pub(crate) label: String,
    /// One in so many rows of an undisturbed series may be an alert; `None` for the shipped threshold.
    pub(crate) one_in: Option<u32>,
    /// Whether changes of mean and variance are looked for, and in what.
    pub(crate) changes: Option<Joined>,
}

/// What changes at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Joined {
    /// Each series by itself.
    Each,
    /// All columns of a key.
    Together,
}

/// Headers of a column of values, where it is the only one.
const VALUE_HEADERS: [&str; 4] = ["value", "val", "v", "y"];

/// Which of the ordinary rows may be alerts unless somebody says otherwise.
pub(crate) const fn one_in(what: What) -> u32 {
    match what {
        What::Edges => 10_000,
        What::Records => 1_000,
        // Unless asked for a rate, the score's own threshold counts.
        What::Series => 0,
    }
}

impl Spec {
    /// Whether a store has it as a command would have written it.
    pub(crate) fn is_sound(&self) -> bool {
        let of_rows = self.one_in > 0 || self.what == What::Series;
        of_rows && self.tick_ns > 0 && self.series.as_ref().is_none_or(|series| series.one_in != Some(0))
    }

    /// Share of ordinary rows that may be alerts.
    pub(crate) fn rate(&self) -> f64 {
        1.0 / f64::from(self.one_in)
    }
}

/// `ROLE=COLUMN,…`; a series may have several columns of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RoleMap {
    pub(crate) roles: BTreeMap<Role, String>,
    pub(crate) values: Vec<String>,
}

impl std::str::FromStr for RoleMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut map = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (role, column) = pair(part, "ROLE=COLUMN")?;
            if role == VALUE {
                if map.values.iter().any(|known| known == column) {
                    return Err(format!("`{VALUE}={column}` is given twice"));
                }
                map.values.push(column.to_owned());
                continue;
            }
            let known = Role::ALL.into_iter().find(|known| known.name() == role);
            let names = || Role::ALL.map(Role::name).join(", ");
            let role = known.ok_or_else(|| format!("`{role}` is no role; there are {}, {VALUE}", names()))?;
            if map.roles.insert(role, column.to_owned()).is_some() {
                return Err(format!("`{}` is given twice", role.name()));
            }
        }
        Ok(map)
    }
}

/// The role that several columns may have.
const VALUE: &str = "value";

/// `COLUMN=KIND,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeatureMap(pub(crate) Vec<(String, Taken)>);

impl std::str::FromStr for FeatureMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut list: Vec<(String, Taken)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (column, kind) = pair(part, "COLUMN=KIND")?;
            let kind = match kind {
                "category" => Taken::Category,
                "count" => Taken::Count,
                "share" => Taken::Share,
                "skip" => Taken::Skip,
                _ => {
                    return Err(format!(
                        "`{kind}` is no kind of feature; there are category, count, share, skip"
                    ));
                }
            };
            if list.iter().any(|(known, _)| known == column) {
                return Err(format!("`{column}` is given twice"));
            }
            list.push((column.to_owned(), kind));
        }
        Ok(Self(list))
    }
}

fn pair<'a>(part: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    let (name, value) = part.rsplit_once('=').ok_or_else(|| format!("`{part}`: expected {form}"))?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || value.is_empty() {
        return Err(format!("`{part}`: expected {form}"));
    }
    Ok((name, value))
}

/// A column of a table of records that is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) name: String,
    pub(crate) taken: Taken,
    /// Which column, from 0.
    pub(crate) column: usize,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cells<'a> {
    Edge {
        number: u64,
        ts: u64,
        source: &'a str,
        destination: &'a str,
        weight: f64,
    },
    Record {
        number: u64,
        ts: u64,
        entity: Option<&'a str>,
        features: &'a [Feature],
        /// By column, as they stand there.
        fields: &'a [String],
    },
    Series {
        number: u64,
        ts: u64,
        key: Option<&'a str>,
        /// Names of the columns of values.
        columns: &'a [String],
        /// NaN where there is none.
        values: &'a [f64],
    },
}

impl Cells<'_> {
    /// Its line, from 1.
    pub(crate) fn number(&self) -> u64 {
        let (Self::Edge { number, .. } | Self::Record { number, .. } | Self::Series { number, .. }) = self;
        *number
    }
}

/// The number that stands in a field: NaN where there is none, `None` where it is something else.
pub(crate) fn number_of(text: &str) -> Option<f64> {
    const MISSING: [&str; 9] = ["", "-", "?", "NA", "N/A", "null", "None", "nan", "NaN"];
    if MISSING.contains(&text) {
        return Some(f64::NAN);
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The value of a series that stands in a field: NaN also for what is infinite, in whatever spelling; `None` for what is no number.
fn value_of(text: &str) -> Option<f64> {
    number_of(text).or_else(|| text.parse().ok().map(|_: f64| f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_what_is_wrong_is_named() {
        let map: RoleMap = "time=t, source=id.orig_h,destination=3".parse().unwrap();
        assert_eq!(map.roles[&Role::Source], "id.orig_h");
        let map: RoleMap = "value=cpu,key=host,value=mem".parse().unwrap();
        assert_eq!((map.values, map.roles.len()), (vec!["cpu".to_owned(), "mem".to_owned()], 1));
        assert!("value=a,value=a".parse::<RoleMap>().unwrap_err().contains("twice"));
        let features: FeatureMap = "a=b=count,proto=category".parse().unwrap();
        assert_eq!(features.0, [("a=b".to_owned(), Taken::Count), ("proto".to_owned(), Taken::Category)]);
        for (text, word) in [
            ("when=t", "no role"),
            ("time", "ROLE=COLUMN"),
            ("time=a,time=b", "twice"),
            ("time=", "ROLE=COLUMN"),
        ] {
            let error = text.parse::<RoleMap>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        for (text, word) in [("a=float", "category, count, share, skip"), ("a=skip,a=count", "twice")] {
            let error = text.parse::<FeatureMap>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(number_of("-").unwrap().is_nan() && number_of("1e3") == Some(1_000.0));
        assert_eq!((number_of("inf"), number_of("x")), (None, None));
        assert!(value_of("inf").unwrap().is_nan() && value_of("-Infinity").unwrap().is_nan());
        assert!(value_of("1e999").unwrap().is_nan() && value_of("1,5").is_none() && value_of("x").is_none());
    }
}
