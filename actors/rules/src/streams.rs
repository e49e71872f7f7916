//! Streams of results that rules may read beside traffic: their names, whose rows they hold, and what their columns are.

use crate::record::{Key, Kind, known, names};

/// Whose rows a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keys {
    /// Of symbols.
    Symbols,
    /// Of hosts.
    Hosts,
}

impl Keys {
    /// The name of the column that says whose row it is.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::Symbols => "symbol",
            Self::Hosts => "host",
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// Numbers.
    Number,
    /// Texts.
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stream {
    name: Box<str>,
    keys: Keys,
    /// The columns beside the key: places in [`Streams::columns`].
    columns: Vec<(u16, Type)>,
}

/// Streams by the number that [`Kind::Row`] has of them. Columns of one name are one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    streams: Vec<Stream>,
    columns: Vec<Box<str>>,
    /// What to do about streams whose names begin so, and that there are not here.
    advice: Vec<(Box<str>, Box<str>)>,
}

/// The field that says whose row or alert it is, under its one name.
const ENTITY: &str = "entity";
/// Its name for rows of either kind of key.
const KEY: &str = "key";

impl Streams {
    /// Adds a stream with its columns, the one of the key left out; `None` when there are more streams or columns than are numbered.
    pub fn add<'a>(
        &mut self,
        name: &str,
        keys: Keys,
        columns: impl IntoIterator<Item = (&'a str, Type)>,
    ) -> Option<Kind> {
        let number = u16::try_from(self.streams.len()).ok()?;
        let mut own = Vec::new();
        for (name, of) in columns {
            let at = match self.columns.iter().position(|column| **column == *name) {
                Some(at) => at,
                None => {
                    self.columns.push(name.into());
                    self.columns.len() - 1
                }
            };
            own.push((u16::try_from(at).ok()?, of));
        }
        self.streams.push(Stream { name: name.into(), keys, columns: own });
        Some(Kind::Row(number))
    }

    /// What a rule that reads a stream of such a name is told, where there is no stream of it: what to do instead.
    pub fn advise(&mut self, beginning: &str, advice: &str) {
        self.advice.push((beginning.into(), advice.into()));
    }

    /// The advice about a stream that there is not, as the end of a sentence about it; nothing where there is none.
    pub(crate) fn advice(&self, name: &str) -> String {
        let found = self.advice.iter().find(|(beginning, _)| name.starts_with(&**beginning));
        found.map(|(_, advice)| format!(" ({advice})")).unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The kind of a stream's rows.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<Kind> {
        let at = self.streams.iter().position(|stream| *stream.name == *name)?;
        u16::try_from(at).ok().map(Kind::Row)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|stream| &*stream.name)
    }

    /// Name, keys and columns of each, as they were added.
    pub fn all(&self) -> impl Iterator<Item = (&str, Keys, Vec<(&str, Type)>)> {
        self.streams.iter().map(|stream| {
            let columns = stream.columns.iter().map(|(at, of)| (&*self.columns[usize::from(*at)], *of));
            (&*stream.name, stream.keys, columns.collect())
        })
    }

    fn stream(&self, kind: Kind) -> Option<&Stream> {
        match kind {
            Kind::Row(number) => self.streams.get(usize::from(number)),
            _ => None,
        }
    }

    /// The name of a kind of record, as rules have it.
    #[must_use]
    pub fn name_of(&self, kind: Kind) -> &str {
        self.stream(kind).map_or(kind.name(), |stream| &stream.name)
    }

    /// Whose rows a kind's are; `None` for records that are no rows.
    #[must_use]
    pub fn keys_of(&self, kind: Kind) -> Option<Keys> {
        self.stream(kind).map(|stream| stream.keys)
    }

    /// The fields of a stream's row behind its key, in the order in which it was added with.
    pub fn fields(&self, kind: Kind) -> impl Iterator<Item = Key> + '_ {
        self.stream(kind).into_iter().flat_map(|stream| &stream.columns).map(|(at, _)| Key::Column(*at))
    }

    /// The field that rules over `kind` mean by `name`, and what it holds where that is known before any record. `None` where there is no such.
    #[must_use]
    pub fn field(&self, kind: Kind, name: &str) -> Option<(Key, Option<Type>)> {
        let entity = || known(ENTITY).map(|at| (Key::Known(at), Some(Type::Text)));
        let Some(stream) = self.stream(kind) else {
            // Whose alert it is has the name that it has in rows, so that both can stand in one pattern.
            if kind == Kind::Alert && name == KEY {
                return entity();
            }
            return Key::of(kind, name).map(|key| (key, None));
        };
        if name == KEY || name == stream.keys.column() {
            return entity();
        }
        let found = stream.columns.iter().find(|(at, _)| *self.columns[usize::from(*at)] == *name);
        found.map(|(at, of)| (Key::Column(*at), Some(*of)))
    }

    /// The names of the fields that a kind of record has.
    #[must_use]
    pub fn field_names(&self, kind: Kind) -> Vec<&str> {
        match self.stream(kind) {
            Some(stream) => {
                let columns = stream.columns.iter().map(|(at, _)| &*self.columns[usize::from(*at)]);
                std::iter::once(stream.keys.column()).chain(columns).collect()
            }
            None => names(kind).collect(),
        }
    }

    /// The field that says whose row it is.
    #[must_use]
    pub fn entity() -> Option<Key> {
        known(ENTITY).map(Key::Known)
    }

    /// Why records of these kinds cannot be of one rule: their keys are not of one sort. The place of the first that does not fit.
    pub(crate) fn mixed(&self, kinds: impl IntoIterator<Item = Option<Kind>>) -> Option<(usize, String)> {
        let kinds: Vec<Option<Kind>> = kinds.into_iter().collect();
        // Whose the records of a rule over results are, as its first row says.
        let (first, keys) = kinds.iter().flatten().find_map(|kind| Some((*kind, self.keys_of(*kind)?)))?;
        for (at, kind) in kinds.iter().enumerate() {
            let other = match kind {
                None => "any record of traffic, which has no key".to_owned(),
                Some(Kind::Alert) => continue,
                Some(kind) => match self.keys_of(*kind) {
                    Some(other) if other == keys => continue,
                    Some(other) => format!("rows of `{}` are by {}", self.name_of(*kind), other.column()),
                    None => format!("`{}` is a record of traffic, between two hosts", kind.name()),
                },
            };
            let name = self.name_of(first);
            let why = format!(
                "rows of `{name}` are by {}; {other}: a rule over results reads streams of one kind of key, and `alert`",
                keys.column()
            );
            return Some((at, why));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_one_name_are_one_field_and_keys_have_one_name() {
        let mut streams = Streams::default();
        let bars = streams.add("bars.1s", Keys::Symbols, [("close", Type::Number), ("state", Type::Text)]);
        let regime = streams.add("regime.1s", Keys::Symbols, [("state", Type::Number)]);
        let hosts = streams.add("hosts.1m", Keys::Hosts, [("flows", Type::Number)]);
        let (bars, regime, hosts) = (bars.unwrap(), regime.unwrap(), hosts.unwrap());
        assert_eq!(streams.kind("regime.1s"), Some(regime));
        assert_eq!(streams.kind("regime.1h"), None);
        let (state, of) = streams.field(bars, "state").unwrap();
        assert_eq!(of, Some(Type::Text));
        assert_eq!(streams.field(regime, "state"), Some((state, Some(Type::Number))));
        assert_eq!(streams.field(bars, "symbol"), streams.field(hosts, "host"));
        assert_eq!(streams.field(bars, "key").map(|(key, _)| key), Streams::entity());
        assert_eq!(streams.field(Kind::Alert, "key").map(|(key, _)| key), Streams::entity());
        assert_eq!((streams.field(bars, "host"), streams.field(regime, "close")), (None, None));
        assert_eq!(streams.field_names(hosts), ["host", "flows"]);
        assert!(streams.mixed([Some(bars), Some(Kind::Alert), Some(regime)]).is_none());
        assert!(streams.mixed([Some(Kind::Flow), None]).is_none());
        let (at, why) = streams.mixed([Some(bars), Some(hosts)]).unwrap();
        assert!(at == 1 && why.contains("by symbol") && why.contains("by host"), "{why}");
        assert_eq!(streams.mixed([Some(Kind::Flow), Some(bars)]).unwrap().0, 0);
        assert_eq!(streams.mixed([Some(bars), None]).unwrap().0, 1);
    }
}
