//! From one configuration to another: the plan that is printed before anything happens.

use crate::sections::Config;
use std::fmt;
use tidegate_actors::WindowSpec;

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
    /// A stream is added, removed or changed.
    Streams {
        /// Its name.
        name: String,
        /// What happens to it.
        what: StreamStep,
        /// Whether only a restart can.
        restart: bool,
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

/// What happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStep {
    /// It begins, with what comes from then on.
    Added,
    /// It ends.
    Removed,
    /// It ends, and another one of its name begins, whose numbers go on.
    Changed,
}

impl StreamStep {
    fn sign_and_word(self) -> (char, &'static str) {
        match self {
            Self::Added => ('+', "added"),
            Self::Removed => ('-', "removed"),
            Self::Changed => ('~', "changed"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
        match self {
            Self::Set { key, old, new } => write!(f, "~ {key} {} -> {}", value(old), value(new)),
            Self::Restart { key, old, new } => {
                write!(f, "! {key} {} -> {} needs a restart", value(old), value(new))
            }
            Self::Streams { name, what, restart: true } => {
                write!(f, "! stream {name} {} needs a restart", what.sign_and_word().1)
            }
            Self::Streams { name, what, .. } => {
                let (sign, word) = what.sign_and_word();
                let anew = if *what == StreamStep::Changed { ": it begins anew" } else { "" };
                write!(f, "{sign} stream {name} {word}{anew}")
            }
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
        if self.streams().next().is_some() {
            running.stream.clone_from(&new.stream);
            running.surface.clone_from(&new.surface);
            running.spectrum.clone_from(&new.spectrum);
            running.risk.clone_from(&new.risk);
        }
    }

    /// The streams that change without a restart, and how.
    pub fn streams(&self) -> impl Iterator<Item = (&str, StreamStep)> {
        self.0.iter().filter_map(|change| match change {
            Change::Streams { name, what, restart: false } => Some((name.as_str(), *what)),
            _ => None,
        })
    }

    /// The same where streams cannot change while the server runs.
    #[must_use]
    pub fn with_fixed_streams(self) -> Self {
        let fix = |change| match change {
            Change::Streams { name, what, .. } => Change::Streams { name, what, restart: true },
            // What all bars have is a part of each of them.
            Change::Set { key, old, new } if key.starts_with(BARS) => Change::Restart { key, old, new },
            other => other,
        };
        let (mut now, later): (Vec<_>, Vec<_>) =
            self.0.into_iter().map(fix).partition(|change| !needs_restart(change));
        now.extend(later);
        Self(now)
    }

    /// Those that only a restart brings.
    pub fn restarts(&self) -> impl Iterator<Item = &Change> {
        self.0.iter().filter(|change| needs_restart(change))
    }
}

/// Keys about all bars.
const BARS: &str = "bars.";

fn needs_restart(change: &Change) -> bool {
    matches!(change, Change::Restart { .. } | Change::Streams { restart: true, .. })
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
        // What these come to is said stream by stream.
        if ["stream", "surface", "spectrum", "risk"].contains(&section.name) {
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
    changes.extend(streams(old, new));
    changes.extend(restarts);
    let changes = Changes(changes);
    // What is in a journal must lead to the same results wherever it is read.
    if old.journal.enabled { changes.with_fixed_streams() } else { changes }
}

/// What happens to the streams, by what they compute: however it was written.
fn streams(old: &Config, new: &Config) -> Vec<Change> {
    let (before, after) = (defined(old), defined(new));
    let find = |streams: &[(String, String)], name: &str| {
        streams.iter().find(|(own, _)| own == name).map(|(_, definition)| definition.clone())
    };
    let step = |name: &String, what| Change::Streams { name: name.clone(), what, restart: false };
    let mut steps = Vec::new();
    for (name, definition) in &before {
        match find(&after, name) {
            None => steps.push(step(name, StreamStep::Removed)),
            Some(now) if now != *definition => steps.push(step(name, StreamStep::Changed)),
            Some(_) => {}
        }
    }
    let fresh = after.iter().filter(|(name, _)| find(&before, name).is_none());
    steps.extend(fresh.map(|(name, _)| step(name, StreamStep::Added)));
    steps
}

/// The names of all streams, and everything that their records depend on.
fn defined(config: &Config) -> Vec<(String, String)> {
    let planned = config.plan().and_then(|plan| plan.streams()).unwrap_or_default();
    let bars_of = |bars: &WindowSpec| {
        let name = format!("bars.{}", bars.name());
        let found = planned.iter().find(|stream| stream.name == name);
        found.map(|stream| stream.definition.clone()).unwrap_or_default()
    };
    let derived = config.derived().into_iter().flat_map(|derived| {
        let definition = format!("{} over {}", derived.definition(), bars_of(&derived.bars));
        derived.streams.into_iter().map(move |(name, columns)| (name, format!("{columns:?} {definition}")))
    });
    let derived: Vec<_> = derived.collect();
    planned.into_iter().map(|stream| (stream.name, stream.definition)).chain(derived).collect()
}
