//! What every input looks like once decoded: batches of events with source-local keys, a dictionary of names, and an
//! account of what could not be read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_engine::{Event, name_hash};

/// Why reading stops or a row is refused. Says which file, where in it, what was found and what is allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
    /// No reader recognises the file.
    #[error("cannot tell what `{}` is: {reason}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What was looked for, and which option says it outright.
        reason: String,
    },
    /// The file is of a known format but damaged or cut short from here on; everything before was read.
    #[error("`{}` is damaged at {place}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Line or byte offset.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// The columns needed are not there.
    #[error("`{}` lacks columns that are needed: {reason}", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// Which column is missing, which exist, and how `--map` names them.
        reason: String,
    },
    /// A bound that protects memory was reached.
    #[error("`{}` exceeds a limit at {place}: {reason}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// Line or byte offset.
        place: Place,
        /// Which limit, its value, and the option that raises it.
        reason: String,
    },
}

/// A place in a file that a person can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Line, from 1.
    Line(u64),
    /// Byte offset, from 0, in the decompressed stream.
    Byte(u64),
    /// Row, from 1, for formats without lines (Parquet).
    Row(u64),
    /// Packet, from 1.
    Packet(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Byte(n) => write!(f, "byte {n}"),
            Self::Row(n) => write!(f, "row {n}"),
            Self::Packet(n) => write!(f, "packet {n}"),
        }
    }
}

/// Names of a source in order of first appearance: the key of an event is an index into this.
#[derive(Debug, Default, Clone)]
pub struct Names {
    by_key: Vec<Arc<str>>,
    keys: HashMap<Arc<str>, u32>,
    hashes: Vec<u64>,
}

impl Names {
    /// Longest name taken, in bytes. Longer ones are refused at the reader.
    pub const BYTES_MAX: usize = 255;

    /// The key of `name`, given now if it is new.
    ///
    /// # Panics
    /// After 2^32 names; readers refuse long before (see `ReadOptions::names_max`).
    pub fn intern(&mut self, name: &str) -> u32 {
        if let Some(&key) = self.keys.get(name) {
            return key;
        }
        let key = u32::try_from(self.by_key.len()).expect("the quota is far below 2^32");
        let name: Arc<str> = name.into();
        self.hashes.push(name_hash(name.as_bytes()));
        self.by_key.push(Arc::clone(&name));
        self.keys.insert(name, key);
        key
    }

    /// The key of `name` if it is known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        self.keys.get(name).copied()
    }

    /// The name behind a key.
    #[must_use]
    pub fn name(&self, key: u32) -> Option<&Arc<str>> {
        self.by_key.get(key as usize)
    }

    /// xxh3 of the name behind each key.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All names in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_key.iter()
    }
}

/// Why single rows or packets were left out while reading went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RejectCause {
    /// Not the shape of the format: too few columns, broken JSON, cut packet.
    Malformed,
    /// A number that is none, NaN, infinite, negative where it must not be, or too precise.
    BadNumber,
    /// A timestamp before 1970 or after 2262.
    BadTime,
    /// A price or size outside the unit's range.
    OutOfRange,
    /// A name that is empty, too long or not text.
    BadName,
    /// A new name over the quota.
    NameQuota,
    /// Well-formed, but nothing Tidegate turns into an event (an ARP packet, a heartbeat).
    NotAnEvent,
    /// Outside `--from` and `--to`.
    Filtered,
}

impl RejectCause {
    /// Every cause, in report order.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::BadNumber,
        Self::BadTime,
        Self::OutOfRange,
        Self::BadName,
        Self::NameQuota,
        Self::NotAnEvent,
        Self::Filtered,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadNumber => "bad_number",
            Self::BadTime => "bad_time",
            Self::OutOfRange => "out_of_range",
            Self::BadName => "bad_name",
            Self::NameQuota => "name_quota",
            Self::NotAnEvent => "not_an_event",
            Self::Filtered => "filtered",
        }
    }
}

/// The account of a reader: units of input (rows, messages, packets) seen, those that became events, those refused
/// by cause with the first examples. `units == accepted + sum(refused)`, always.
#[derive(Debug, Default, Clone)]
pub struct ReadAccount {
    /// Rows, messages or packets seen.
    pub units: u64,
    /// Of those, how many became at least one event.
    pub accepted: u64,
    /// Events made of them (a packet makes one per host).
    pub events: u64,
    refused: [u64; RejectCause::ALL.len()],
    overflowed: u64,
    /// The first few refusals in words.
    pub examples: Vec<(RejectCause, Place, String)>,
}

impl ReadAccount {
    /// Examples kept.
    pub const EXAMPLES_MAX: usize = 5;

    /// Counts one refused unit. `why` is built only while examples are still kept.
    pub fn refuse(&mut self, cause: RejectCause, place: Place, why: impl FnOnce() -> String) {
        self.units += 1;
        self.refused[cause as usize] += 1;
        let quiet = matches!(cause, RejectCause::NotAnEvent | RejectCause::Filtered);
        if !quiet && self.examples.len() < Self::EXAMPLES_MAX {
            self.examples.push((cause, place, why()));
        }
    }

    /// Counts one unit that became `events` events.
    pub fn accept(&mut self, events: u64) {
        self.units += 1;
        self.accepted += 1;
        self.events += events;
    }

    /// Counts `events` accepted events whose name was over the quota.
    pub fn count_overflowed(&mut self, events: u64) {
        self.overflowed += events;
    }

    /// Of the events, how many went to the overflow name because the quota of names was full.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Refusals of one cause.
    #[must_use]
    pub fn refused(&self, cause: RejectCause) -> u64 {
        self.refused[cause as usize]
    }

    /// Refusals that are faults of the input (not filters, not foreign packets).
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.refused.iter().sum::<u64>()
            - self.refused(RejectCause::NotAnEvent)
            - self.refused(RejectCause::Filtered)
    }

    /// Units minus accounted for: zero, always.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        i128::from(self.units) - i128::from(self.accepted) - i128::from(self.refused.iter().sum::<u64>())
    }
}

/// How far a reader is, in bytes of the file as stored.
#[derive(Debug, Default, Clone, Copy)]
pub struct Progress {
    /// Bytes consumed.
    pub bytes: u64,
    /// Bytes in all, 0 when unknown.
    pub bytes_total: u64,
}

/// One input, decoded batch by batch. Events carry keys into [`Source::names`] and `source == 0`; the merger sets
/// the rank.
pub trait Source: Send {
    /// Appends up to about `max` events and returns how many; 0 means the input has ended. Control records that
    /// only a capture has (gaps, barriers) come in place; watermarks and marks do not.
    ///
    /// # Errors
    /// [`ReadError`] when nothing more can be read; what was appended before stays valid.
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError>;

    /// Names seen so far.
    fn names(&self) -> &Names;

    /// What was read and refused so far.
    fn account(&self) -> &ReadAccount;

    /// How far reading is.
    fn progress(&self) -> Progress;

    /// Short name of the format, for tables: `csv`, `pcap`, `dbn mbo`.
    fn format(&self) -> String;
}
