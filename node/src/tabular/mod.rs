//! Tables of edges and of records, for the detectors that judge them: `tidegate detect --kind edges|records`.

mod judge;
mod read;

pub(crate) use judge::{CellJudge, Scores, edge_finding, is_of_table};
pub(crate) use read::Reader;

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
}

impl What {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Records => "records",
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
}

impl Role {
    const ALL: [Self; 5] = [Self::Time, Self::Source, Self::Destination, Self::Weight, Self::Entity];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Weight => "weight",
            Self::Entity => "entity",
        }
    }

    /// Whether tables of this kind have such a column.
    const fn is_of(self, what: What) -> bool {
        match self {
            Self::Time => true,
            Self::Source | Self::Destination | Self::Weight => matches!(what, What::Edges),
            Self::Entity => matches!(what, What::Records),
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
}

/// Which of the ordinary rows may be alerts unless somebody says otherwise.
pub(crate) const fn one_in(what: What) -> u32 {
    match what {
        What::Edges => 10_000,
        What::Records => 1_000,
    }
}

impl Spec {
    /// Whether a store has it as a command would have written it.
    pub(crate) fn is_sound(&self) -> bool {
        self.one_in > 0 && self.tick_ns > 0
    }

    /// Share of ordinary rows that may be alerts.
    pub(crate) fn rate(&self) -> f64 {
        1.0 / f64::from(self.one_in)
    }
}

/// `ROLE=COLUMN,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleMap(pub(crate) BTreeMap<Role, String>);

impl std::str::FromStr for RoleMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut map = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (role, column) = pair(part, "ROLE=COLUMN")?;
            let known = Role::ALL.into_iter().find(|known| known.name() == role);
            let names = || Role::ALL.map(Role::name).join(", ");
            let role = known.ok_or_else(|| format!("`{role}` is no role; there are {}", names()))?;
            if map.insert(role, column.to_owned()).is_some() {
                return Err(format!("`{}` is given twice", role.name()));
            }
        }
        Ok(Self(map))
    }
}

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
}

impl Cells<'_> {
    /// Its line, from 1.
    pub(crate) fn number(&self) -> u64 {
        let (Self::Edge { number, .. } | Self::Record { number, .. }) = self;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_what_is_wrong_is_named() {
        let map: RoleMap = "time=t, source=id.orig_h,destination=3".parse().unwrap();
        assert_eq!(map.0[&Role::Source], "id.orig_h");
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
    }
}
