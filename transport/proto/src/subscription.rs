//! What a subscriber asks for, checked.

use crate::frame::{FrameWriter, StartKind, SubscribeFrame};
use crate::wire::{BODY_BYTES_MAX, NAME_BYTES_MAX};

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// All there are and will be.
    #[default]
    All,
    /// These, and those whose names begin like this; now and later.
    Some {
        /// Names.
        names: Vec<String>,
        /// Beginnings of names.
        prefixes: Vec<String>,
    },
}

impl Keys {
    /// From patterns as people write them: `BTCUSD`, `BTC*`, or `*` for all. No pattern means all.
    #[must_use]
    pub fn of_patterns<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Self {
        let (mut names, mut prefixes) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some("") => return Self::All,
                Some(prefix) => prefixes.push(prefix.to_owned()),
                None => names.push(pattern.to_owned()),
            }
        }
        if names.is_empty() && prefixes.is_empty() { Self::All } else { Self::Some { names, prefixes } }
    }
}

/// Where it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next record.
    #[default]
    Latest,
    /// With each key's newest record, then what follows.
    Snapshot,
    /// With given numbers: per slot where `slots` says so, else `default`. The way back after a reconnect.
    Sequence {
        /// The first number wanted of slots not listed.
        default: u64,
        /// Stream (by its place in [`Subscription::streams`]), slot, and the first number wanted of it.
        slots: Vec<(u16, u16, u64)>,
    },
    /// With each key's last `0` records, then what follows.
    Lookback(u32),
}

/// How much of what happens is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflation {
    /// Every record.
    #[default]
    None,
    /// The newest record of each key at each delivery.
    Latest,
    /// The same, at most once in so many milliseconds.
    Every(u32),
}

/// What happens when the subscriber is behind by more than its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// Older records of a key give way to its newest.
    Conflate,
    /// The oldest records are dropped.
    #[default]
    DropOldest,
    /// The subscription ends.
    Disconnect,
}

/// A subscription: a contract with its reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Names of streams, at least one.
    pub streams: Vec<String>,
    /// Keys.
    pub keys: Keys,
    /// Where it begins.
    pub start: Start,
    /// How much is sent.
    pub conflation: Conflation,
    /// What happens past the budget.
    pub policy: LagPolicy,
    /// Records of a stream it may be behind; 0 for as many as the server keeps.
    pub lag_budget: u64,
}

/// Why a subscription cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// No stream was named.
    #[error("name at least one stream; there are {known}")]
    NoStream {
        /// Streams there are.
        known: String,
    },
    /// There is no such stream.
    #[error("there is no stream `{name}`; there are {known}")]
    UnknownStream {
        /// What was asked for.
        name: String,
        /// Streams there are.
        known: String,
    },
    /// The same stream twice.
    #[error("stream `{name}` is asked for twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// A number out of its range.
    #[error("{field} is {found}, allowed are {min} to {max}")]
    Range {
        /// What.
        field: &'static str,
        /// The number.
        found: u64,
        /// Least allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// What was before the start is more than one subscription may ask for at once.
    #[error(
        "the past of this subscription is {records} records, allowed are {max}: name fewer keys or ask for less"
    )]
    TooMuch {
        /// Records.
        records: u64,
        /// Records allowed.
        max: u64,
    },
    /// As many subscribers as there may be.
    #[error("there are {max} subscribers already, which is the limit")]
    Busy {
        /// The limit.
        max: u64,
    },
}

impl Subscription {
    /// Most streams of one subscription.
    pub const STREAMS_MAX: usize = 64;
    /// Most names and prefixes of one subscription, each.
    pub const KEYS_MAX: usize = 4_096;
    /// Longest pause between conflated deliveries, in milliseconds.
    pub const EVERY_MS_MAX: u32 = 3_600_000;

    /// All keys of some streams, from the next record on.
    #[must_use]
    pub fn to<'s>(streams: impl IntoIterator<Item = &'s str>) -> Self {
        Self { streams: streams.into_iter().map(str::to_owned).collect(), ..Self::default() }
    }

    /// Checks every bound that does not depend on the server.
    ///
    /// # Errors
    /// [`SubscriptionError::Range`] for the first number out of range.
    pub fn check(&self) -> Result<(), SubscriptionError> {
        let check = |field, found: usize, min: usize, max: usize| {
            if (min..=max).contains(&found) {
                return Ok(());
            }
            let (found, min, max) = (found as u64, min as u64, max as u64);
            Err(SubscriptionError::Range { field, found, min, max })
        };
        check("the number of streams", self.streams.len(), 1, Self::STREAMS_MAX)?;
        let mut bytes = 0;
        let mut texts: Vec<&String> = self.streams.iter().collect();
        if let Keys::Some { names, prefixes } = &self.keys {
            check("the number of names", names.len(), 0, Self::KEYS_MAX)?;
            check("the number of prefixes", prefixes.len(), 0, Self::KEYS_MAX)?;
            check("the number of names and prefixes", names.len() + prefixes.len(), 1, 2 * Self::KEYS_MAX)?;
            texts.extend(names.iter().chain(prefixes));
        }
        for text in texts {
            check("the length of a name", text.len(), 1, NAME_BYTES_MAX)?;
            bytes += 1 + text.len();
        }
        check("bytes of all names", bytes, 1, BODY_BYTES_MAX - 48)?;
        match &self.start {
            Start::Lookback(records) => check("lookback", *records as usize, 1, u32::MAX as usize)?,
            Start::Sequence { default, .. } => {
                check("the first sequence", usize::try_from(*default).unwrap_or(usize::MAX), 1, usize::MAX)?;
            }
            Start::Latest | Start::Snapshot => {}
        }
        if let Conflation::Every(ms) = self.conflation {
            check("every_ms", ms as usize, 1, Self::EVERY_MS_MAX as usize)?;
        }
        Ok(())
    }

    /// Appends the frames that ask for it: EDGE for each stream with numbers of its own, then SUBSCRIBE. `stream_id` knows the
    /// server's numbers of its streams.
    ///
    /// # Errors
    /// As [`Subscription::check`], and [`SubscriptionError::UnknownStream`].
    pub fn encode(
        &self,
        stream_id: impl Fn(&str) -> Option<u16>,
        out: &mut Vec<u8>,
    ) -> Result<(), SubscriptionError> {
        self.check()?;
        if let Start::Sequence { slots, .. } = &self.start {
            for (at, name) in (0u16..).zip(&self.streams) {
                let id = stream_id(name).ok_or_else(|| SubscriptionError::UnknownStream {
                    name: name.clone(),
                    known: "others".to_owned(),
                })?;
                let mut next = slots.iter().filter(|(stream, ..)| *stream == at).peekable();
                if next.peek().is_some() {
                    FrameWriter::new(out).edge(id, next.map(|&(_, slot, next)| (slot, next.max(1))));
                }
            }
        }
        let (start, lookback, sequence) = match self.start {
            Start::Latest => (StartKind::Latest, 0, 0),
            Start::Snapshot => (StartKind::Snapshot, 0, 0),
            Start::Sequence { default, .. } => (StartKind::Sequence, 0, default),
            Start::Lookback(records) => (StartKind::Lookback, records, 0),
        };
        let (conflation, every_ms) = match self.conflation {
            Conflation::None => (0, 0),
            Conflation::Latest => (1, 0),
            Conflation::Every(ms) => (2, ms),
        };
        let policy = match self.policy {
            LagPolicy::Conflate => 0,
            LagPolicy::DropOldest => 1,
            LagPolicy::Disconnect => 2,
        };
        let (all, names, prefixes): (_, &[String], &[String]) = match &self.keys {
            Keys::All => (1, &[], &[]),
            Keys::Some { names, prefixes } => (0, names, prefixes),
        };
        FrameWriter::new(out).subscribe(
            [start as u8, conflation, policy, all],
            lookback,
            every_ms,
            self.lag_budget,
            sequence,
            [&self.streams, names, prefixes],
        );
        Ok(())
    }

    /// The meaning of a frame; `edges` is what EDGE frames before it said: stream number, slot, next number. `stream_name` knows
    /// the numbers.
    ///
    /// # Errors
    /// As [`Subscription::check`].
    pub fn decode(
        frame: &SubscribeFrame<'_>,
        edges: &[(u16, u16, u64)],
        stream_name: impl Fn(u16) -> Option<String>,
    ) -> Result<Self, SubscriptionError> {
        let owned = |texts: crate::frame::Texts<'_>| texts.iter().map(str::to_owned).collect::<Vec<_>>();
        let streams = owned(frame.streams);
        let start = match frame.start {
            StartKind::Latest => Start::Latest,
            StartKind::Snapshot => Start::Snapshot,
            StartKind::Lookback => Start::Lookback(frame.lookback),
            StartKind::Sequence => {
                let place = |id: u16| {
                    let name = stream_name(id)?;
                    streams.iter().position(|stream| *stream == name).map(|at| at as u16)
                };
                let slots = edges.iter().filter_map(|&(id, slot, next)| Some((place(id)?, slot, next)));
                Start::Sequence { default: frame.sequence, slots: slots.collect() }
            }
        };
        let spec = Self {
            keys: if frame.all_keys {
                Keys::All
            } else {
                Keys::Some { names: owned(frame.keys), prefixes: owned(frame.prefixes) }
            },
            start,
            conflation: match frame.conflation {
                0 => Conflation::None,
                1 => Conflation::Latest,
                _ => Conflation::Every(frame.every_ms),
            },
            policy: match frame.policy {
                0 => LagPolicy::Conflate,
                1 => LagPolicy::DropOldest,
                _ => LagPolicy::Disconnect,
            },
            lag_budget: frame.lag_budget,
            streams,
        };
        spec.check()?;
        Ok(spec)
    }
}
