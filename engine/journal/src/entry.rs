//! What is in a batch: the input as it was accepted, in order, so that reading it again rebuilds sessions, dictionaries and
//! sequencers as they were.
//!
//! An entry is a head of 16 bytes (`kind u8 | flags u8 | rank u16 | payload_bytes u32 | word u64`), its payload, and zeros up to a
//! multiple of 8.

use crate::format::BODY_BYTES_MAX;
use tidegate_engine::Event;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of an entry's head.
pub const HEAD_BYTES: usize = 16;
const EVENT_BYTES: usize = size_of::<Event>();
/// Longest text of an entry: what one length byte can say.
pub const TEXT_BYTES_MAX: usize = 255;

mod tag {
    pub(super) const SOURCE: u8 = 1;
    pub(super) const NAMES: u8 = 2;
    pub(super) const EVENTS: u8 = 3;
    pub(super) const LOST: u8 = 4;
    pub(super) const IDLE: u8 = 5;
    pub(super) const FINISHED: u8 = 6;
    pub(super) const DIGEST: u8 = 7;
    pub(super) const STOPPED: u8 = 8;
}

/// SOURCE: the source starts with an empty dictionary.
const FLAG_NEW_SESSION: u8 = 1;

/// One entry. Events count one record each, every other entry one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A source said hello.
    Source {
        /// Its number in events.
        rank: u16,
        /// Who it is, for good.
        source_id: u64,
        /// Which numbering of its events this is.
        session: u64,
        /// Whether it starts with an empty dictionary.
        new_session: bool,
        /// Its name for people.
        name: &'a str,
        /// Whose it is.
        principal: &'a str,
    },
    /// Names for the next keys of a source.
    Names {
        /// The source.
        rank: u16,
        /// Key of the first.
        first: u32,
        /// Further keys, which get the overflow name.
        overflowed: u32,
        /// The names.
        names: Names<'a>,
    },
    /// Events of a source.
    Events {
        /// The source.
        rank: u16,
        /// The source's number of the first.
        sequence: u64,
        /// Keys below this have a name.
        named: u32,
        /// The events; their keys are the source's.
        events: Events<'a>,
    },
    /// A source declared a loss.
    Lost {
        /// The source.
        rank: u16,
        /// The last number that is lost.
        last: u64,
        /// How many.
        count: u64,
    },
    /// A source went away and stops holding windows open.
    Idle {
        /// The source.
        rank: u16,
    },
    /// A source said that it has no more.
    Finished {
        /// The source.
        rank: u16,
    },
    /// Digest of the state that the log up to here leads to.
    Digest {
        /// The digest.
        value: u64,
    },
    /// The process ended in order.
    Stopped,
}

/// Names of an entry, checked when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a>(&'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (&length, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }
}

/// Events of an entry. They need not be aligned, so they come out one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events<'a>(&'a [u8]);

impl<'a> Events<'a> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / EVENT_BYTES
    }

    /// Never: an entry without events is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The events.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event> + 'a {
        self.0.chunks_exact(EVENT_BYTES).map(|bytes| Event::read_from_bytes(bytes).unwrap_or_default())
    }
}

/// What is wrong with a body whose checksum is right: it was written by something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The body ends within an entry.
    #[error("the entry at byte {at} of the body is cut short")]
    Short {
        /// Byte of the body.
        at: usize,
    },
    /// A kind that this version does not know.
    #[error("the entry at byte {at} of the body is of kind {kind}, which version 1 does not have")]
    Kind {
        /// Byte of the body.
        at: usize,
        /// The kind.
        kind: u8,
    },
    /// A kind with a payload that does not fit it.
    #[error("the entry at byte {at} of the body has a malformed payload: {what}")]
    Payload {
        /// Byte of the body.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The header says another number of records.
    #[error("the body holds {found} records, its header says {expected}")]
    Count {
        /// As counted.
        found: u64,
        /// As written.
        expected: u32,
    },
}

impl EntryError {
    /// The same, of a body that begins behind `bytes` others.
    #[must_use]
    pub fn behind(mut self, bytes: usize) -> Self {
        if let Self::Short { at } | Self::Kind { at, .. } | Self::Payload { at, .. } = &mut self {
            *at += bytes;
        }
        self
    }
}

/// Reads the entries of a body, one after the other.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    /// The entries of a batch's body.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    /// Byte of the body up to which it was read.
    #[must_use]
    pub fn place(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Result<Entry<'a>, EntryError> {
        let at = self.at;
        let wrong = |what| EntryError::Payload { at, what };
        let short = EntryError::Short { at };
        let (head, rest) = self.body[at..].split_first_chunk::<HEAD_BYTES>().ok_or(short)?;
        let (kind, flags, rank) = (head[0], head[1], u16::from_le_bytes([head[2], head[3]]));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let mut word = [0; 8];
        word.copy_from_slice(&head[8..]);
        let word = u64::from_le_bytes(word);
        let padded =
            length.checked_next_multiple_of(8).filter(|padded| *padded <= rest.len()).ok_or(short)?;
        let (payload, padding) = rest[..padded].split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(wrong("padding is not zero"));
        }
        if flags & !(if kind == tag::SOURCE { FLAG_NEW_SESSION } else { 0 }) != 0 {
            return Err(wrong("unknown flags"));
        }
        let number = |from: usize| -> Result<u64, EntryError> {
            let bytes = payload.get(from..from + 8).ok_or(wrong("too short"))?;
            let mut number = [0; 8];
            number.copy_from_slice(bytes);
            Ok(u64::from_le_bytes(number))
        };
        let exactly = |bytes: usize| if length == bytes { Ok(()) } else { Err(wrong("wrong length")) };
        let entry = match kind {
            tag::SOURCE => {
                let session = number(0)?;
                let mut texts = Names(&payload[8..]);
                let name = texts.next().ok_or(wrong("no name"))?;
                let principal = texts.next().ok_or(wrong("no principal"))?;
                if !texts.0.is_empty() {
                    return Err(wrong("more than two texts"));
                }
                let new_session = flags & FLAG_NEW_SESSION != 0;
                Entry::Source { rank, source_id: word, session, new_session, name, principal }
            }
            tag::NAMES => {
                let mut names = Names(payload);
                while !names.0.is_empty() {
                    match names.next() {
                        None => return Err(wrong("a name that is cut short or no UTF-8")),
                        Some("") => return Err(wrong("an empty name")),
                        Some(_) => {}
                    }
                }
                let (first, overflowed) = (word as u32, (word >> 32) as u32);
                Entry::Names { rank, first, overflowed, names: Names(payload) }
            }
            tag::EVENTS => {
                let named = u32::try_from(number(0)?).map_err(|_| wrong("too many names"))?;
                let events = &payload[8..];
                if events.is_empty() || !events.len().is_multiple_of(EVENT_BYTES) {
                    return Err(wrong("not a whole number of events"));
                }
                if word.checked_add((events.len() / EVENT_BYTES) as u64).is_none() {
                    return Err(wrong("sequences beyond 2^64"));
                }
                Entry::Events { rank, sequence: word, named, events: Events(events) }
            }
            tag::LOST => {
                exactly(8)?;
                Entry::Lost { rank, last: word, count: number(0)? }
            }
            tag::IDLE | tag::FINISHED | tag::STOPPED | tag::DIGEST => {
                exactly(0)?;
                if word != 0 && kind != tag::DIGEST {
                    return Err(wrong("a word that is not zero"));
                }
                match kind {
                    tag::IDLE => Entry::Idle { rank },
                    tag::FINISHED => Entry::Finished { rank },
                    tag::STOPPED => Entry::Stopped,
                    _ => Entry::Digest { value: word },
                }
            }
            kind => return Err(EntryError::Kind { at, kind }),
        };
        self.at += HEAD_BYTES + padded;
        Ok(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.at = self.body.len(); // what follows cannot be found
        }
        Some(entry)
    }
}

impl Entry<'_> {
    /// Records it counts for.
    #[must_use]
    pub fn records(&self) -> u64 {
        if let Self::Events { events, .. } = self { events.len() as u64 } else { 1 }
    }

    /// Its kind, for tables.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source { .. } => "source",
            Self::Names { .. } => "names",
            Self::Events { .. } => "events",
            Self::Lost { .. } => "lost",
            Self::Idle { .. } => "idle",
            Self::Finished { .. } => "finished",
            Self::Digest { .. } => "digest",
            Self::Stopped => "stopped",
        }
    }
}

/// Checks a body whole.
///
/// # Errors
/// The first thing wrong with it.
pub fn check(body: &[u8], count: u32) -> Result<(), EntryError> {
    let mut found = 0;
    for entry in Entries::new(body) {
        found += entry?.records();
    }
    if found != u64::from(count) {
        return Err(EntryError::Count { found, expected: count });
    }
    Ok(())
}

/// A batch being filled; reused, so that filling it allocates nothing after a while. One batch is what one turn of ingest
/// accepted: reading it again in one turn gives the same log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    body: Vec<u8>,
    count: u32,
    /// Bytes that the body would have more if its foreign entries were what they stand for.
    reserved: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.body.clear();
        (self.count, self.reserved) = (0, 0);
    }

    /// Whether an entry with so many payload bytes still fits.
    #[must_use]
    pub fn has_room(&self, payload_bytes: usize) -> bool {
        self.body.len() + self.reserved + HEAD_BYTES + payload_bytes.next_multiple_of(8) <= BODY_BYTES_MAX
    }

    fn entry(&mut self, kind: u8, flags: u8, rank: u16, word: u64, payload: &[&[u8]]) -> bool {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        if !self.has_room(length) {
            return false;
        }
        let mut head = [0; HEAD_BYTES];
        (head[0], head[1]) = (kind, flags);
        head[2..4].copy_from_slice(&rank.to_le_bytes());
        head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        head[8..].copy_from_slice(&word.to_le_bytes());
        self.body.extend_from_slice(&head);
        payload.iter().for_each(|part| self.body.extend_from_slice(part));
        self.body.resize(self.body.len().next_multiple_of(8), 0);
        true
    }

    fn one(&mut self, kind: u8, flags: u8, rank: u16, word: u64, payload: &[&[u8]]) -> bool {
        let fits = self.entry(kind, flags, rank, word, payload);
        self.count += u32::from(fits);
        fits
    }

    /// A source said hello. Texts are cut at 255 bytes, between characters. As all of these: `false` when it does not fit, and
    /// then nothing has changed.
    #[must_use]
    pub fn source(
        &mut self,
        rank: u16,
        source_id: u64,
        session: u64,
        new_session: bool,
        name: &str,
        principal: &str,
    ) -> bool {
        let (name, principal) = (clip(name), clip(principal));
        let flags = if new_session { FLAG_NEW_SESSION } else { 0 };
        self.one(
            tag::SOURCE,
            flags,
            rank,
            source_id,
            &[
                &session.to_le_bytes(),
                &[name.len() as u8],
                name.as_bytes(),
                &[principal.len() as u8],
                principal.as_bytes(),
            ],
        )
    }

    /// Names, each of 1 to 255 bytes.
    #[must_use]
    pub fn names(&mut self, rank: u16, first: u32, overflowed: u32, names: &[&str]) -> bool {
        let length: usize = names.iter().map(|name| 1 + clip(name).len()).sum();
        if !self.has_room(length) {
            return false;
        }
        let word = u64::from(first) | u64::from(overflowed) << 32;
        let start = self.body.len();
        self.one(tag::NAMES, 0, rank, word, &[]);
        self.body[start + 4..start + 8].copy_from_slice(&(length as u32).to_le_bytes());
        for name in names {
            let name = clip(name);
            self.body.push(name.len() as u8);
            self.body.extend_from_slice(name.as_bytes());
        }
        self.body.resize(self.body.len().next_multiple_of(8), 0);
        true
    }

    /// Events; none is nothing to write.
    #[must_use]
    pub fn events(&mut self, rank: u16, sequence: u64, named: u32, events: &[Event]) -> bool {
        if events.is_empty() {
            return true;
        }
        let named = u64::from(named).to_le_bytes();
        let fits = self.entry(tag::EVENTS, 0, rank, sequence, &[&named, events.as_bytes()]);
        self.count += if fits { events.len() as u32 } else { 0 };
        fits
    }

    /// An entry of a kind that no journal has, for who gives the body a meaning of his own: it has the head of an entry, and stands for
    /// `records` records and an entry with `stands_for` bytes of payload, for which there must be room too.
    #[must_use]
    pub fn foreign(
        &mut self,
        kind: u8,
        rank: u16,
        word: u64,
        payload: &[&[u8]],
        (records, stands_for): (u32, usize),
    ) -> bool {
        debug_assert!(kind > tag::STOPPED);
        let before = self.body.len();
        if !self.has_room(stands_for) || !self.entry(kind, 0, rank, word, payload) {
            return false;
        }
        self.count += records;
        let stands_for = HEAD_BYTES + stands_for.next_multiple_of(8);
        self.reserved += stands_for.saturating_sub(self.body.len() - before);
        true
    }

    /// A declared loss of `count` events up to number `last`.
    #[must_use]
    pub fn lost(&mut self, rank: u16, last: u64, count: u64) -> bool {
        self.one(tag::LOST, 0, rank, last, &[&count.to_le_bytes()])
    }

    /// A source holds windows open no more.
    #[must_use]
    pub fn idle(&mut self, rank: u16) -> bool {
        self.one(tag::IDLE, 0, rank, 0, &[])
    }

    /// A source has no more.
    #[must_use]
    pub fn finished(&mut self, rank: u16) -> bool {
        self.one(tag::FINISHED, 0, rank, 0, &[])
    }

    /// Digest of the state.
    #[must_use]
    pub fn digest(&mut self, value: u64) -> bool {
        self.one(tag::DIGEST, 0, 0, value, &[])
    }

    /// The process ends in order.
    #[must_use]
    pub fn stopped(&mut self) -> bool {
        self.one(tag::STOPPED, 0, 0, 0, &[])
    }
}

/// Bytes in front of the events in an entry of them.
const EVENTS_HEAD_BYTES: usize = HEAD_BYTES + size_of::<u64>();

/// The entry that [`Batch::events`] makes of these events: what is in front of them, and themselves.
#[must_use]
pub fn events(rank: u16, sequence: u64, named: u32, events: &[Event]) -> ([u8; EVENTS_HEAD_BYTES], &[u8]) {
    let length = size_of::<u64>() + size_of_val(events);
    let mut head = [0; EVENTS_HEAD_BYTES];
    head[0] = tag::EVENTS;
    head[2..4].copy_from_slice(&rank.to_le_bytes());
    head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    head[8..16].copy_from_slice(&sequence.to_le_bytes());
    head[16..].copy_from_slice(&u64::from(named).to_le_bytes());
    (head, events.as_bytes())
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(at: u64) -> Event {
        Event { ts_event: at, key: at as u32, source: 1, kind: 1, flags: 2, payload: [at, at ^ 7] }
    }

    #[test]
    fn entries_read_back() {
        let mut batch = Batch::new();
        let events: Vec<Event> = (0..3).map(event).collect();
        assert!(batch.source(1, 77, 5, true, "feed", "desk-1"));
        assert!(batch.names(1, 3, 2, &["BTCUSD", "é"]));
        assert!(batch.events(1, 10, 5, &events));
        assert!(
            batch.lost(1, 20, 8) && batch.idle(1) && batch.finished(1) && batch.digest(9) && batch.stopped()
        );
        assert!(batch.events(1, 10, 5, &[]), "nothing is written for no events");
        assert_eq!(batch.count(), 10);
        assert_eq!(check(batch.body(), 10), Ok(()));
        let entries: Vec<Entry<'_>> = Entries::new(batch.body()).map(Result::unwrap).collect();
        assert_eq!(entries.len(), 8);
        assert_eq!(
            entries[0],
            Entry::Source {
                rank: 1,
                source_id: 77,
                session: 5,
                new_session: true,
                name: "feed",
                principal: "desk-1"
            }
        );
        let Entry::Names { first: 3, overflowed: 2, names, .. } = entries[1] else {
            panic!("{:?}", entries[1])
        };
        assert_eq!(names.collect::<Vec<_>>(), ["BTCUSD", "é"]);
        let Entry::Events { sequence: 10, named: 5, events: read, .. } = entries[2] else { panic!() };
        assert_eq!(read.iter().collect::<Vec<_>>(), events);
        assert_eq!(entries[3], Entry::Lost { rank: 1, last: 20, count: 8 });
        assert_eq!(entries[6], Entry::Digest { value: 9 });
        assert_eq!(check(batch.body(), 9), Err(EntryError::Count { found: 10, expected: 9 }));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut batch = Batch::new();
        let events = vec![event(1); 2_000];
        while batch.events(0, 0, 0, &events) {}
        let full = batch.clone();
        assert!(!batch.events(0, 0, 0, &events) && !batch.names(0, 0, 0, &["n"; 60_000]));
        assert_eq!(batch, full);
        assert!(full.body().len() <= BODY_BYTES_MAX && BODY_BYTES_MAX - full.body().len() < 65_000);
        assert_eq!(check(full.body(), full.count()), Ok(()));
    }

    #[test]
    fn a_foreign_entry_takes_the_room_of_what_it_stands_for() {
        let events = vec![event(1); 2_000];
        let stands_for = 8 + size_of_val(&events[..]);
        let (mut batch, mut plain) = (Batch::new(), Batch::new());
        while batch.foreign(9, 1, 7, &[b"packed"], (2_000, stands_for)) {
            assert!(plain.events(1, 7, 0, &events), "as many of them fit as they are");
        }
        assert!(!plain.events(1, 7, 0, &events) && !batch.events(1, 7, 0, &events));
        assert_eq!(batch.count(), plain.count());
        assert_eq!(check(batch.body(), batch.count()), Err(EntryError::Kind { at: 0, kind: 9 }));
        batch.clear();
        assert_eq!(batch, Batch::new());
        plain.clear();
        assert!(plain.events(1, 7, 3, &events[..2]));
        let (head, events) = super::events(1, 7, 3, &events[..2]);
        assert_eq!([&head, events].concat(), plain.body());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut batch = Batch::new();
        assert!(batch.source(0, 0, 0, false, &"é".repeat(200), ""));
        let Some(Ok(Entry::Source { name, .. })) = Entries::new(batch.body()).next() else { panic!() };
        assert_eq!(name, "é".repeat(127));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_entries_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes, 1);
        }

        #[test]
        fn a_changed_body_is_never_read_out_of_bounds(at in 0usize..200, value in any::<u8>()) {
            let mut batch = Batch::new();
            prop_assert!(batch.source(1, 77, 5, true, "feed", "desk-1"));
            prop_assert!(batch.names(1, 3, 2, &["BTCUSD", "é"]));
            prop_assert!(batch.events(1, 10, 5, &[event(1), event(2)]));
            let mut body = batch.body().to_vec();
            let at = at % body.len();
            body[at] = value;
            for entry in Entries::new(&body).flatten() {
                if let Entry::Names { names, .. } = entry {
                    prop_assert!(names.count() <= 255);
                }
            }
        }
    }
}
