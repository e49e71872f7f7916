//! From one configuration to another: the plan that is printed before anything happens.

use crate::sections::{Config, Stream};
use std::fmt;

/// One step from one configuration to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A value is applied.
    Set {
        /// Its key.
        key: String,
        /// What it was; `None` when it was not set.
        old: Option<String>,
        /// What it becomes.
        new: Option<String>,
    },
    /// A stream is added, removed or changed, which only a restart can.
    Streams {
        /// Its name.
        name: String,
        /// `added`, `removed` or `changed`.
        what: &'static str,
    },
    /// What can only be had by a restart.
    Restart {
        /// The key.
        key: String,
        /// What it was.
        old: Option<String>,
        /// What it would become.
        new: Option<String>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
        match self {
            Self::Set { key, old, new } => write!(f, "~ {key} {} -> {}", value(old), value(new)),
            Self::Restart { key, old, new } => {
                write!(f, "! {key} {} -> {} needs a restart", value(old), value(new))
            }
            Self::Streams { name, what } => write!(f, "! stream {name} {what} needs a restart"),
        }
    }
}

/// Every step from one configuration to another, in the order in which they are done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes(pub Vec<Change>);

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes `running` what it is once the steps that need no restart are done.
    pub fn apply(&self, running: &mut Config, new: &Config) {
        for change in &self.0 {
            if let Change::Set { key, .. } = change {
                let (section, key) = match Config::find(key) {
                    Ok((section, key)) => (section.name, key.map_or("", |key| key.name)),
                    Err(_) => continue,
                };
                running.adopt(section, key, new);
            }
        }
    }

    /// Those that only a restart brings.
    pub fn restarts(&self) -> impl Iterator<Item = &Change> {
        self.0.iter().filter(|change| !matches!(change, Change::Set { .. }))
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

/// What leads from `old` to `new`.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Changes {
    let mut changes = Vec::new();
    let mut restarts = Vec::new();
    for section in Config::sections() {
        if section.name == "stream" {
            continue;
        }
        if section.repeats {
            let all = |config: &Config| -> Vec<Vec<Option<String>>> {
                let item =
                    |at| section.keys.iter().map(|key| config.show(section.name, at, key.name)).collect();
                (0..config.repeated(section.name)).map(item).collect()
            };
            let (before, after) = (all(old), all(new));
            if before != after {
                let rules = |count: usize| Some(format!("{count} of them"));
                let (key, old, new) = (section.name.to_owned(), rules(before.len()), rules(after.len()));
                changes.push(Change::Set { key, old, new });
            }
            continue;
        }
        for key in &section.keys {
            let (old, new) = (old.show(section.name, 0, key.name), new.show(section.name, 0, key.name));
            if old == new {
                continue;
            }
            let path = format!("{}.{}", section.name, key.name);
            if key.reloads {
                changes.push(Change::Set { key: path, old, new });
            } else {
                restarts.push(Change::Restart { key: path, old, new });
            }
        }
    }
    streams(old, new, &mut restarts);
    changes.extend(restarts);
    Changes(changes)
}

fn streams(old: &Config, new: &Config, restarts: &mut Vec<Change>) {
    let (before, after) = (old.streams(), new.streams());
    let find = |streams: &[Stream], wanted: &Stream| {
        streams.iter().find(|stream| stream.name() == wanted.name()).cloned()
    };
    let restart = |stream: &Stream, what| Change::Streams { name: stream.name().unwrap_or_default(), what };
    for stream in &before {
        match find(&after, stream) {
            None => restarts.push(restart(stream, "removed")),
            Some(now) if now != *stream => restarts.push(restart(stream, "changed")),
            Some(_) => {}
        }
    }
    for stream in &after {
        if find(&before, stream).is_none() {
            restarts.push(restart(stream, "added"));
        }
    }
}
