//! Inputs of a cluster in fewer bytes: events as a feed packed them.
//!
//! An input is how many records are in it (u32), its form (u32), and entries. In form 0 they are a journal's. Form 1 has one kind more, 9:
//! a run of events as it lies in a frame of the feed's. Its head is a journal's entry's (word: the sequence of the first), its payload
//! how many keys have a name (u32), and the frame's body from `count` on. Such an entry *stands for* the journal's entry with the same events:
//! that is what goes into the digest, into files, and to nodes that know form 0 only, so no two nodes need to agree on who packs.

use crate::replication::HEAD_BYTES;
use bytes::{Bytes, BytesMut};
use tidegate_engine::Event;
use tidegate_journal::entry::{self, Entries};
use tidegate_journal::format::BODY_BYTES_MAX;
use tidegate_journal::{Batch, Entry, EntryError};
use tidegate_proto::Packed;

/// The kind of a packed run.
const PACKED: u8 = 9;
/// The form of an input with packed runs.
pub(crate) const FORM: u32 = 1;

/// Adds a run that a feed packed. `false` when it does not fit, and then nothing has changed.
pub(crate) fn put(batch: &mut Batch, rank: u16, named: u32, run: &Packed<'_>) -> bool {
    let stands_for = size_of::<u64>() + usize::from(run.count) * size_of::<Event>();
    let payload = [&named.to_le_bytes()[..], &run.head(), run.bytes()];
    batch.foreign(PACKED, rank, run.sequence, &payload, (run.count.into(), stands_for))
}

/// One thing in an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    /// As a journal has it.
    Entry(Entry<'a>),
    /// Events of a source that are packed.
    Packed {
        rank: u16,
        /// With the keys that have a name, and the sequence of the first.
        run: Packed<'a>,
    },
}

impl Item<'_> {
    /// Bytes of the entry that it stands for, where it is packed.
    fn stands_for(&self) -> Option<usize> {
        let Self::Packed { run, .. } = self else { return None };
        Some(entry::HEAD_BYTES + size_of::<u64>() + usize::from(run.count) * size_of::<Event>())
    }

    /// Records it counts for.
    pub(crate) fn records(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.records(),
            Self::Packed { run, .. } => run.count.into(),
        }
    }
}

/// Reads the body of an input, up to its end or the first thing wrong with it.
pub(crate) struct Items<'a> {
    body: &'a [u8],
    at: usize,
    packed: bool,
}

impl<'a> Items<'a> {
    pub(crate) fn of(input: &'a [u8]) -> Self {
        let body = input.get(HEAD_BYTES..).unwrap_or_default();
        Self { body, at: 0, packed: is_packed(input) }
    }

    fn run(&mut self) -> Result<Item<'a>, EntryError> {
        let at = self.at;
        let wrong = EntryError::Payload { at, what: "packed events that are none" };
        let short = EntryError::Short { at };
        let (head, rest) = self.body[at..].split_first_chunk::<{ entry::HEAD_BYTES }>().ok_or(short)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let padded = length.checked_next_multiple_of(8).ok_or(short)?;
        let (payload, padding) = rest.get(..padded).ok_or(short)?.split_at(length);
        if head[1] != 0 || padding.iter().any(|byte| *byte != 0) {
            return Err(EntryError::Payload { at, what: "unknown flags, or padding that is not zero" });
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&head[8..]);
        let (named, run) = payload.split_first_chunk().ok_or(wrong)?;
        let run =
            Packed::of_log(u64::from_le_bytes(sequence), u32::from_le_bytes(*named), run).ok_or(wrong)?;
        if run.sequence.checked_add(run.count.into()).is_none() {
            return Err(EntryError::Payload { at, what: "sequences beyond 2^64" });
        }
        self.at += entry::HEAD_BYTES + padded;
        Ok(Item::Packed { rank: u16::from_le_bytes([head[2], head[3]]), run })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.body.get(self.at)?;
        let item = if self.packed && kind == PACKED {
            self.run()
        } else {
            let mut entries = Entries::new(&self.body[self.at..]);
            let entry = entries.next()?;
            let base = self.at;
            self.at += entries.place();
            entry.map(Item::Entry).map_err(|error| error.behind(base))
        };
        if item.is_err() {
            self.at = self.body.len(); // what follows cannot be found
        }
        Some(item)
    }
}

fn is_packed(input: &[u8]) -> bool {
    input.get(4..HEAD_BYTES) == Some(&FORM.to_le_bytes())
}

/// Checks a packed input whole: what it stands for must be an input of form 0, and none larger than that may be.
pub(crate) fn check(input: &[u8], count: u32) -> Result<(), EntryError> {
    let (mut records, mut bytes) = (0, 0);
    let mut any = false;
    let mut items = Items::of(input);
    loop {
        let at = items.at;
        let Some(item) = items.next() else { break };
        let item = item?;
        any |= matches!(item, Item::Packed { .. });
        records += item.records();
        bytes += item.stands_for().unwrap_or(items.at - at);
        if let Item::Packed { run, .. } = item {
            let wrong = EntryError::Payload { at, what: "packed events that are none" };
            run.check().map_err(|_| wrong)?;
        }
        if bytes > BODY_BYTES_MAX {
            return Err(EntryError::Payload { at, what: "more events than one input may have" });
        }
    }
    if !any {
        // It would be another form of the same.
        return Err(EntryError::Payload { at: 0, what: "nothing packed in an input of that form" });
    }
    if records != u64::from(count) {
        return Err(EntryError::Count { found: records, expected: count });
    }
    Ok(())
}

/// Bytes of what an input stands for.
pub(crate) fn plain_bytes(input: &[u8]) -> usize {
    if !is_packed(input) {
        return input.len();
    }
    let (mut items, mut bytes) = (Items::of(input), HEAD_BYTES);
    loop {
        let at = items.at;
        let Some(item) = items.next() else { return bytes };
        bytes += item.ok().and_then(|item| item.stands_for()).unwrap_or(items.at - at);
    }
}

/// Makes of packed inputs what they stand for. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    events: Vec<Event>,
}

impl Plain {
    /// Gives the bytes of an input in form 0, piece by piece: its own, unless it is packed.
    pub fn pieces(&mut self, input: &[u8], mut put: impl FnMut(&[u8])) {
        if !is_packed(input) {
            return put(input);
        }
        put(&input[..4]);
        put(&[0; 4]);
        let mut items = Items::of(input);
        loop {
            let at = items.at;
            match items.next() {
                Some(Ok(Item::Entry(_))) => put(&items.body[at..items.at]),
                Some(Ok(Item::Packed { rank, run })) if run.unpack(&mut self.events).is_ok() => {
                    let (head, events) = entry::events(rank, run.sequence, run.names, &self.events);
                    put(&head);
                    put(events);
                }
                // Whoever took it in has checked it.
                Some(_) => debug_assert!(false, "an input that nobody checked"),
                None => return,
            }
        }
    }

    /// How many bytes [`Plain::pieces`] gives.
    #[must_use]
    pub fn bytes(input: &[u8]) -> usize {
        plain_bytes(input)
    }

    /// The same bytes, to keep: without a copy where it is not packed.
    pub fn owned(&mut self, input: &Bytes) -> Bytes {
        if !is_packed(input) {
            return input.clone();
        }
        let mut plain = BytesMut::with_capacity(plain_bytes(input));
        self.pieces(input, |piece| plain.extend_from_slice(piece));
        plain.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::Input;
    use tidegate_proto::{Frame, FrameBuffer, FrameWriter};

    fn event(at: u64) -> Event {
        Event {
            ts_event: 1_000 + at * 10,
            key: (at % 3) as u32,
            kind: 1,
            payload: [at * 100, at],
            ..Event::default()
        }
    }

    /// The same input packed and not: a source, a run, and what follows it.
    fn both(events: &[Event]) -> (Batch, Batch) {
        let mut bytes = Vec::new();
        assert_eq!(FrameWriter::new(&mut bytes).packed(5, 3, [events, &[]]), events.len());
        let mut buffer = FrameBuffer::new(1);
        assert_eq!(buffer.push(&bytes), bytes.len());
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        let Frame::Packed(run) = Frame::read(offset, &head, body).unwrap() else { panic!("not packed") };
        let (mut packed, mut plain) = (Batch::new(), Batch::new());
        for batch in [&mut packed, &mut plain] {
            assert!(batch.source(1, 77, 5, true, "feed", "desk") && batch.names(1, 0, 0, &["A", "B", "C"]));
        }
        assert!(put(&mut packed, 1, 3, &run) && plain.events(1, 5, 3, events));
        for batch in [&mut packed, &mut plain] {
            assert!(batch.lost(1, 99, 2) && batch.finished(1));
        }
        (packed, plain)
    }

    #[test]
    fn a_packed_input_stands_for_the_plain_one() {
        let events: Vec<Event> = (0..1_500).map(event).collect();
        let (packed, plain) = both(&events);
        let (packed, plain) = (Input::of_packed(&packed), Input::of(&plain));
        assert!(packed.bytes().len() * 2 < plain.bytes().len());
        for input in [&packed, &plain] {
            assert_eq!(Input::check(input.bytes().clone()).as_ref(), Ok(input));
            assert_eq!((input.events(), input.records()), (1_500, 1_504));
            assert_eq!(input.plain_bytes(), plain.bytes().len());
        }
        let mut expand = Plain::default();
        assert_eq!(&expand.owned(packed.bytes()), plain.bytes());
        assert_eq!(&expand.owned(plain.bytes()), plain.bytes(), "what is plain already stays");
        for input in [&packed, &plain] {
            let mut bytes = Vec::new();
            expand.pieces(input.bytes(), |piece| bytes.extend_from_slice(piece));
            assert_eq!((&bytes[..], bytes.len()), (&plain.bytes()[..], Plain::bytes(input.bytes())));
        }
    }

    #[test]
    fn what_is_wrong_with_a_packed_input_is_found_before_it_is_taken() {
        let events: Vec<Event> = (0..40).map(event).collect();
        let (packed, _) = both(&events);
        let bytes = Input::of_packed(&packed).bytes().clone();
        for end in 0..bytes.len() {
            assert!(Input::check(bytes.slice(..end)).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            // Refused, or another input that can be read whole.
            if let Ok(input) = Input::check(flipped.into()) {
                let mut expand = Plain::default();
                let plain =
                    Input::check(expand.owned(input.bytes())).expect("what it stands for is an input");
                assert_eq!((plain.events(), plain.records()), (input.events(), input.records()));
            }
        }
        let mut of_version_one = bytes.to_vec();
        of_version_one[4] = 0;
        assert!(Input::check(of_version_one.into()).is_err(), "kind 9 is of form 1");
        // Few bytes that stand for many: as many events as fit one input, and no more.
        let mut body = Vec::new();
        let mut zeros = vec![Event { kind: 1, ..Event::default() }; 2_000];
        zeros.iter_mut().for_each(|event| event.payload = [1, 1]);
        let mut frame = Vec::new();
        FrameWriter::new(&mut frame).packed(1, 1, [&zeros, &[]]);
        let mut buffer = FrameBuffer::new(1);
        buffer.push(&frame);
        let (offset, head, of_frame) = buffer.next_frame().unwrap().unwrap();
        let Frame::Packed(run) = Frame::read(offset, &head, of_frame).unwrap() else { panic!("not packed") };
        let mut one = Batch::new();
        assert!(put(&mut one, 0, 1, &run));
        let most = BODY_BYTES_MAX / (entry::HEAD_BYTES + 8 + size_of_val(&zeros[..]));
        let input = |runs: usize, body: &mut Vec<u8>| {
            body.clear();
            body.extend_from_slice(&(runs as u32 * 2_000).to_le_bytes());
            body.extend_from_slice(&FORM.to_le_bytes());
            (0..runs).for_each(|_| body.extend_from_slice(one.body()));
            Input::check(Bytes::copy_from_slice(body))
        };
        assert!(input(most, &mut body).is_ok());
        assert!(matches!(input(most + 1, &mut body), Err(EntryError::Payload { .. })));
    }
}
