//! From text to configuration.

use crate::problem::{ProblemKind, Problems, Reader, nearest, place, whole};
use crate::rules;
use crate::sections::Config;
use crate::value::{Node, SectionInfo, found};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Most bytes of a configuration.
pub const BYTES_MAX: usize = 1 << 20;

/// Repetitions of a section: as many as there can be streams with room for mistakes, and as many rules as anybody keeps by hand.
const REPEATS_MAX: usize = 256;

/// A configuration and where its values stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// What it says.
    pub config: Config,
    /// For each key that is set (`engine.shards`, `stream[0].bars`), its line and column.
    pub lines: BTreeMap<String, (usize, usize)>,
}

/// Reads a configuration.
///
/// # Errors
/// [`Problems`]: everything that is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Read, Problems> {
    if bytes.len() > BYTES_MAX {
        return Err(whole("", ProblemKind::TooLarge { max: BYTES_MAX }, 0));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            return Err(whole(&good, ProblemKind::Encoding, error.valid_up_to()));
        }
    };
    let mut reader = Reader::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().replace('\n', ", ");
        reader.refuse(error.span().unwrap_or(0..0), ProblemKind::Syntax { message });
    }
    // What the parser made of a broken text is no configuration: further complaints would be about its guesses.
    if !reader.is_clean() {
        return Err(reader.problems());
    }
    let mut tables = Tables {
        sections: Config::sections(),
        config: Config::default(),
        origins: BTreeMap::new(),
        reader: &mut reader,
    };
    for (name, node) in root.get_ref() {
        tables.section(name.get_ref(), name.span(), node);
    }
    let Tables { config, origins, .. } = tables;
    if reader.is_clean() {
        rules::check(&config, &origins, &mut reader);
    }
    if !reader.is_clean() {
        return Err(reader.problems());
    }
    let lines = origins.into_iter().map(|(key, at)| (key, place(text, at.start))).collect();
    Ok(Read { config, lines })
}

/// Where each key stands in the text; sections and their repetitions too.
pub(crate) type Origins = BTreeMap<String, Range<usize>>;

struct Tables<'r, 'i> {
    sections: Vec<SectionInfo>,
    config: Config,
    origins: Origins,
    reader: &'r mut Reader<'i>,
}

impl Tables<'_, '_> {
    fn find(&self, name: &str) -> Option<SectionInfo> {
        self.sections.iter().find(|section| section.name == name).cloned()
    }

    /// Whatever stands under `name` at the root, or under a section's name and a dot.
    fn section(&mut self, name: &str, at: Range<usize>, node: &Node<'_>) {
        let Some(section) = self.find(name) else {
            let names: Vec<&str> =
                self.sections.iter().map(|section| section.name).filter(|name| !name.contains('.')).collect();
            self.reader.key = name.chars().take(80).collect();
            // A key that lost its section, or a section that is almost one.
            let lost = self.sections.iter().find(|section| section.keys.iter().any(|key| key.name == name));
            let nearest = match lost {
                Some(section) => Some(format!("{}.{name}", section.name)),
                None => nearest(name, &names),
            };
            self.reader.refuse(at, ProblemKind::Unknown { section: true, allowed: names, nearest });
            return;
        };
        self.reader.key = name.to_owned();
        match (node.get_ref(), section.repeats) {
            (DeValue::Table(table), false) => {
                self.origins.insert(name.to_owned(), at);
                self.table(&section, name, table);
            }
            (DeValue::Array(items), true) if items.len() > REPEATS_MAX => {
                let (found, allowed) = (format!("{} of them", items.len()), format!("at most {REPEATS_MAX}"));
                self.reader.refuse(at, ProblemKind::Range { found, allowed });
            }
            (DeValue::Array(items), true) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{name}[{index}]");
                    self.reader.key.clone_from(&path);
                    let DeValue::Table(table) = item.get_ref() else {
                        let allowed = format!("tables, each written as [[{name}]]");
                        let found = found(item);
                        self.reader.refuse(item.span(), ProblemKind::Type { found, allowed });
                        continue;
                    };
                    self.config.push(section.name);
                    self.origins.insert(path.clone(), item.span());
                    self.table(&section, &path, table);
                }
            }
            (_, repeats) => {
                let allowed = if repeats {
                    format!("tables, each written as [[{name}]]")
                } else {
                    format!("a table [{name}]")
                };
                let found = found(node);
                self.reader.refuse(at, ProblemKind::Type { found, allowed });
            }
        }
    }

    fn table(&mut self, section: &SectionInfo, path: &str, table: &DeTable<'_>) {
        for (key, node) in table {
            let name: &str = key.get_ref();
            if let Some(known) = section.keys.iter().find(|known| known.name == name) {
                self.reader.key = format!("{path}.{name}");
                self.origins.insert(self.reader.key.clone(), node.span());
                self.config.read(section.name, known.name, node, self.reader);
                continue;
            }
            let inner = format!("{}.{name}", section.name);
            if self.find(&inner).is_some() {
                self.section(&inner, key.span(), node);
                continue;
            }
            let mut allowed: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            let prefix = format!("{}.", section.name);
            allowed.extend(self.sections.iter().filter_map(|inner| inner.name.strip_prefix(prefix.as_str())));
            let shown: String = name.chars().take(80).collect();
            self.reader.key = format!("{path}.{shown}");
            // Or it stands in the wrong section.
            let elsewhere = || {
                let other =
                    self.sections.iter().find(|other| other.keys.iter().any(|key| key.name == name))?;
                Some(format!("{}.{name}", other.name))
            };
            let nearest = nearest(name, &allowed).or_else(elsewhere);
            self.reader.refuse(key.span(), ProblemKind::Unknown { section: false, allowed, nearest });
        }
    }
}
