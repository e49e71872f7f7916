//! Slots that change their group, as the groups' logs say it.
//!
//! An input of form 2 is one word of a move. *Leaves*, in the old group's log: behind it nothing of the slot is that group's. *Arrives*, in the new
//! group's: what the old one knew of the slot, its *cargo*, in pieces; behind the last one the slot is that group's. Each log alone says what its
//! group has, so a replica that reads it again needs nothing of the other group's.

use crate::replication::HEAD_BYTES;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_engine::snapshot::{self, Reader, Writer};
use tidegate_engine::{Event, SLOT_COUNT};
use tidegate_journal::EntryError;
use tidegate_proto::feed::SlotGoes;

/// The form of an input that is a word of a move.
pub(crate) const FORM: u32 = 2;
/// Bytes of a word in front of its piece.
const WORD_BYTES: usize = 32;
const LEAVES: u8 = 1;
const ARRIVES: u8 = 2;
const NOTHING: u8 = 3;
/// Bytes of cargo in one input: few enough that others need not wait long behind them.
pub(crate) const PIECE_BYTES: usize = 512 << 10;
/// Pieces of one cargo at most.
pub(crate) const PIECES_MAX: u32 = 2_048;

/// A word of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word<'a> {
    /// The slot has left the group of this log.
    Leaves(SlotGoes),
    /// A piece of what is known of a slot that comes to the group of this log.
    Arrives {
        goes: SlotGoes,
        /// The group that it left; the one that it comes to, where what left is lost and the slot begins anew.
        from: u16,
        /// Which piece, from 0, and how many there are.
        piece: u32,
        pieces: u32,
        bytes: &'a [u8],
    },
    /// Nothing: it is there to be committed.
    Nothing,
}

impl<'a> Word<'a> {
    /// As an input.
    pub(crate) fn input(self) -> Bytes {
        let (kind, goes, from, (piece, pieces, bytes)) = match self {
            Self::Leaves(goes) => (LEAVES, goes, 0, (0, 0, &[][..])),
            Self::Nothing => (NOTHING, SlotGoes { number: 1, slot: 0, to: 0 }, 0, (0, 0, &[][..])),
            Self::Arrives { goes, from, piece, pieces, bytes } => {
                (ARRIVES, goes, from, (piece, pieces, bytes))
            }
        };
        let mut input = BytesMut::with_capacity(HEAD_BYTES + WORD_BYTES + bytes.len());
        input.put_u32_le(1);
        input.put_u32_le(FORM);
        input.put_slice(&[kind, 0]);
        input.put_u16_le(from);
        input.put_u16_le(goes.slot);
        input.put_u16_le(goes.to);
        input.put_u64_le(goes.number);
        input.put_u32_le(piece);
        input.put_u32_le(pieces);
        input.put_u64_le(bytes.len() as u64);
        input.put_slice(bytes);
        input.freeze()
    }

    /// Reads an input of that form.
    pub(crate) fn of(input: &'a [u8]) -> Result<Self, EntryError> {
        let wrong = |what| EntryError::Payload { at: 0, what };
        let body = input.get(HEAD_BYTES..).unwrap_or_default();
        let (head, bytes) = body.split_first_chunk::<WORD_BYTES>().ok_or(EntryError::Short { at: 0 })?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let goes = SlotGoes { slot: half(4), to: half(6), number: long(8) };
        let (from, piece, pieces) = (half(2), word(16), word(20));
        if head[1] != 0 || long(24) != bytes.len() as u64 {
            return Err(wrong("unknown flags, or another length than it says"));
        }
        if usize::from(goes.slot) >= SLOT_COUNT
            || usize::from(goes.to.max(from)) >= SLOT_COUNT
            || goes.number == 0
        {
            return Err(wrong("no possible move of a slot"));
        }
        match head[0] {
            LEAVES if (from, piece, pieces) == (0, 0, 0) && bytes.is_empty() => Ok(Self::Leaves(goes)),
            ARRIVES if piece < pieces && pieces <= PIECES_MAX && (1..=PIECE_BYTES).contains(&bytes.len()) => {
                Ok(Self::Arrives { goes, from, piece, pieces, bytes })
            }
            NOTHING
                if (goes, from, piece, pieces) == (SlotGoes { number: 1, slot: 0, to: 0 }, 0, 0, 0)
                    && bytes.is_empty() =>
            {
                Ok(Self::Nothing)
            }
            LEAVES | ARRIVES | NOTHING => Err(wrong("a word of a move that cannot be")),
            kind => Err(EntryError::Kind { at: 0, kind }),
        }
    }
}

/// An event that its source's sequencer held back: others were to confirm its stamp.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Suspect {
    /// The source's id.
    pub(crate) source: u64,
    /// Which of the slot's names it is about.
    pub(crate) name: u32,
    pub(crate) ts_event: u64,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: [u64; 2],
}

impl Suspect {
    pub(crate) fn of(source: u64, name: u32, event: &Event) -> Self {
        let Event { ts_event, kind, flags, payload, .. } = *event;
        Self { source, name, ts_event, kind, flags, payload }
    }

    /// The event, about this key of this source.
    pub(crate) fn event(&self, key: u32, source: u16) -> Event {
        let Self { ts_event, kind, flags, payload, .. } = *self;
        Event { ts_event, key, source, kind, flags, payload }
    }
}

/// What is known of a slot on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Cargo {
    /// Ids and sessions of all sources of the old group: the numberings that are divided. By rank.
    pub(crate) numberings: Vec<(u64, u64)>,
    /// The slot's names, in the order in which the old log defined them.
    pub(crate) names: Vec<String>,
    pub(crate) suspects: Vec<Suspect>,
    /// What the shard knew ([`tidegate_engine::Shard::take_slot`]).
    pub(crate) part: Vec<u8>,
}

impl Cargo {
    /// As bytes with a checksum.
    pub(crate) fn sealed(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.section(1, |bytes| snapshot::append(bytes, self));
        writer.finish().into()
    }

    /// Out of its bytes.
    pub(crate) fn open(bytes: &[u8]) -> Result<Self, String> {
        let read = || {
            let mut reader = Reader::open(bytes)?;
            snapshot::read(reader.section(1, "cargo")?, "cargo")
        };
        read().map_err(|error: tidegate_engine::snapshot::SnapshotError| error.to_string())
    }
}

/// Pieces that have come, of one cargo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) number: u64,
    pub(crate) next: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Pieces {
    /// One more piece. Returns the cargo's bytes with the last one. Who begins anew, as another leader does, is begun with anew.
    pub(crate) fn take(&mut self, goes: SlotGoes, piece: u32, pieces: u32, bytes: &[u8]) -> Option<Vec<u8>> {
        if piece == 0 {
            *self = Self { number: goes.number, ..Self::default() };
        }
        if (self.number, self.next) != (goes.number, piece) {
            return None;
        }
        self.next += 1;
        self.bytes.extend_from_slice(bytes);
        (self.next == pieces).then(|| std::mem::take(self).bytes)
    }
}

/// What a snapshot of a group has of moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct MovesState {
    /// The group of each slot, as far as this one knows: exact of its own.
    pub(crate) slots: Vec<u16>,
    /// The last move that left, and that arrived.
    pub(crate) left: u64,
    pub(crate) arrived: u64,
    /// Numberings that were divided: source, session, move, slot, where to.
    pub(crate) divided: Vec<(u64, u64, u64, u16, u16)>,
    /// What left and may not have arrived: move and cargo.
    pub(crate) cargo: Option<(u64, Vec<u8>)>,
    /// What has come of a cargo: move, next piece, bytes.
    pub(crate) pieces: Option<(u64, u32, Vec<u8>)>,
}

/// What the groups of a node tell each other of slots that leave: the cargo, and when the hub has all that came before.
#[derive(Debug, Default)]
pub(crate) struct Departures(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    moves: HashMap<u64, Departure>,
    /// By group, the last move that its snapshot has: that one and those before it are past.
    begun: HashMap<u16, u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Departure {
    /// The barrier in front of which everything of the slot is, and how many shards pass it; `None` where a snapshot had all of that.
    pub(crate) barrier: Option<(u64, u32)>,
    pub(crate) cargo: Option<Bytes>,
}

impl Departures {
    fn all(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, number: u64, departure: Departure) {
        self.all().moves.insert(number, departure);
    }

    pub(crate) fn of(&self, number: u64) -> Option<Departure> {
        self.all().moves.get(&number).cloned()
    }

    /// A group begins with a snapshot, which has this move and those before it.
    pub(crate) fn begin(&self, group: u16, last: u64) {
        self.all().begun.insert(group, last);
    }

    /// Whether a slot has left a group by this move, and the barrier in front of which everything of it is, and of how many shards, if that is not past.
    pub(crate) fn departed(&self, number: u64, from: u16) -> Option<Option<(u64, u32)>> {
        let all = self.all();
        let past = all.begun.get(&from).is_some_and(|last| *last >= number);
        all.moves.get(&number).map(|departure| departure.barrier).or_else(|| past.then_some(None))
    }

    /// The cargo of a move is there.
    pub(crate) fn has(&self, number: u64, cargo: &Bytes) {
        if let Some(departure) = self.all().moves.get_mut(&number) {
            departure.cargo = Some(cargo.clone());
        }
    }

    /// A move is over, and those before it: their cargo is needed no more. That they left stays known, a few bytes for each move since the start.
    pub(crate) fn over(&self, number: u64) {
        for (_, departure) in self.all().moves.iter_mut().filter(|(of, _)| **of <= number) {
            departure.cargo = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::Input;

    const GOES: SlotGoes = SlotGoes { number: 7, slot: 4_095, to: 3 };

    #[test]
    fn a_word_is_taken_whole_or_not_at_all() {
        let piece = [1, 2, 3];
        for word in [
            Word::Leaves(GOES),
            Word::Nothing,
            Word::Arrives { goes: GOES, from: 2, piece: 1, pieces: 3, bytes: &piece },
        ] {
            let bytes = word.input();
            assert_eq!(Word::of(&bytes), Ok(word));
            let input = Input::check(bytes.clone()).unwrap();
            assert_eq!((input.records(), input.events(), input.items().count()), (1, 0, 0));
            for end in 0..bytes.len() {
                assert!(Input::check(bytes.slice(..end)).is_err(), "{end}");
            }
            for at in 0..HEAD_BYTES + WORD_BYTES {
                let mut other = bytes.to_vec();
                other[at] ^= 0x80;
                assert!(Input::check(other.into()).map_or(true, |other| other != input), "{at}");
            }
        }
        for impossible in
            [SlotGoes { number: 0, ..GOES }, SlotGoes { slot: 4_096, ..GOES }, SlotGoes { to: 4_096, ..GOES }]
        {
            assert!(Input::check(Word::Leaves(impossible).input()).is_err());
        }
        let beyond = Word::Arrives { goes: GOES, from: 2, piece: 3, pieces: 3, bytes: &piece };
        assert!(Input::check(beyond.input()).is_err());
    }

    #[test]
    fn pieces_make_a_cargo_in_their_order_only() {
        let cargo = Cargo { names: vec!["A".into()], part: vec![7; 100], ..Cargo::default() };
        let sealed = cargo.sealed();
        let (front, back) = sealed.split_at(60);
        let mut pieces = Pieces::default();
        assert_eq!(pieces.take(GOES, 1, 2, back), None, "the first is missing");
        assert_eq!(pieces.take(GOES, 0, 2, front), None);
        // Another leader begins anew.
        assert_eq!(pieces.take(GOES, 0, 2, front), None);
        assert_eq!(pieces.take(SlotGoes { number: 8, ..GOES }, 1, 2, back), None, "of another move");
        let all = pieces.take(GOES, 1, 2, back).unwrap();
        assert_eq!(Cargo::open(&all), Ok(cargo));
        assert!(Cargo::open(&all[1..]).is_err());
        assert_eq!(pieces.take(GOES, 1, 2, back), None, "it is complete");
    }
}
