//! A group's results at a node that does not hold the group: they come from a node that does, and go into the hub as if they came from a
//! shard of its own.
//!
//! Results are numbered per stream and slot, so the relay goes on by number when its holder dies or falls behind: what comes twice is left
//! out, and what is missing is asked for once more, of another holder if there is one. What that one has no more either is skipped, and
//! readers are told. At its beginning a relay asks for what the holder's hub keeps.
//!
//! The holder sends frames that readers know, on a link of its own. First, if the past was asked for: NAMES; per stream an EDGE with the
//! numbers up to which the past has everything; RECORDS, oldest first of each key, that are kept for lookback. Then SUBSCRIBED, and what a
//! reader of the group's slots gets that asks by number. A HEARTBEAT's nonce there is the event time up to which all was sent.

use crate::close::Close;
use crate::frame::{Frame, FrameWriter, LossCause, RECORD_HEAD_BYTES};
use crate::wire::{BODY_BYTES_MAX, FrameType, SEQUENCE_MAX};
use tidegate_engine::{Output, SLOT_COUNT, name_hash, output_kind};

/// What is to be done with a hub, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Relayed {
    /// A name becomes known.
    Name(Box<str>),
    /// Records that are kept for lookback, and that no reader is told of.
    Past(Vec<Output>),
    /// Results that are kept for lookback already.
    Known(Vec<Output>),
    /// Results.
    Records(Vec<Output>),
    /// The next result of a slot has this number, and those up to it do not come.
    Skip {
        /// Of which stream.
        stream: u16,
        /// Of which slot.
        slot: u16,
        /// The next number.
        next: u64,
        /// Whether nothing of it was ever here.
        beginning: bool,
    },
    /// Event time up to which all results are here.
    Complete(u64),
}

/// Why a connection to a holder is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Results are missing: they are to be asked for again.
    #[error("stream {stream}, slot {slot}: number {found} came, expected {expected}")]
    Gap {
        /// Of which stream.
        stream: u16,
        /// Of which slot.
        slot: u16,
        /// The number that is next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The holder dropped results, as this node was too far behind: they are to be asked for again.
    #[error("the holder has dropped results, this node is too far behind")]
    Behind,
    /// A result that cannot be of the group.
    #[error("stream {stream}, slot {slot}, number {sequence}: no result of this group")]
    Foreign {
        /// The stream.
        stream: u16,
        /// The slot.
        slot: u16,
        /// The number.
        sequence: u64,
    },
    /// A frame that has no place there.
    #[error("a frame {0:?} has no place on the link of a relay")]
    Unexpected(FrameType),
    /// The holder said that it is over.
    #[error("the holder ends it: {0}")]
    Closed(Close),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What is kept for lookback.
    Past,
    /// Everything else.
    Live,
}

/// What a relay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Results that were handed on.
    pub records: u64,
    /// Results that came once more.
    pub duplicates: u64,
    /// Results that no holder had any more.
    pub skipped: u64,
    /// Event time up to which all results are here; 0 before that is known.
    pub complete: u64,
}

/// Numbers of one stream, by the place of the slot among those of the group.
struct Numbers {
    next: Box<[u64]>,
    /// Last numbers of which the past has everything, and of which some attempt to read it had something.
    known: Box<[u64]>,
    tried: Box<[u64]>,
    /// Whether this connection has caught up.
    caught_up: bool,
}

/// The relaying side, for one group.
pub struct Relay {
    /// The place of each slot among those of the group; `u16::MAX` for others.
    places: Box<[u16]>,
    slots: Vec<u16>,
    streams: Vec<Numbers>,
    stage: Stage,
    /// Whether the past was read, which is asked for until some connection has caught up.
    past: bool,
    /// Whether some connection caught up with its holder.
    joined: bool,
    /// Whether what is missing now was asked for before.
    asked: bool,
    /// Whether the holder dropped results on this connection, as this node was too far behind.
    dropped: bool,
    stats: RelayStats,
}

impl Relay {
    /// Of the slots of a group, of which nothing is here; `streams` are those of the shards.
    #[must_use]
    pub fn new(streams: u16, of: impl Fn(u16) -> bool) -> Self {
        let slots: Vec<u16> = (0..SLOT_COUNT as u16).filter(|&slot| of(slot)).collect();
        let mut places = vec![u16::MAX; SLOT_COUNT].into_boxed_slice();
        for (place, &slot) in (0u16..).zip(&slots) {
            places[usize::from(slot)] = place;
        }
        let numbers = |first: u64| vec![first; slots.len()].into_boxed_slice();
        let stream = |_| Numbers { next: numbers(1), known: numbers(0), tried: numbers(0), caught_up: false };
        Self {
            streams: (0..streams).map(stream).collect(),
            places,
            slots,
            stage: Stage::Past,
            past: false,
            joined: false,
            asked: false,
            dropped: false,
            stats: RelayStats::default(),
        }
    }

    /// What it did.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        self.stats
    }

    /// Whether anything was handed on.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.past
    }

    /// Whether this connection caught up with its holder: everything that was there when it began is handed on.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.stage == Stage::Live && self.streams.iter().all(|numbers| numbers.caught_up)
    }

    /// A connection stands. Writes EDGE frames with the numbers that are wanted, and says whether the past is wanted too.
    pub fn connected(&mut self, out: &mut Vec<u8>) -> bool {
        (self.stage, self.dropped) = (Stage::Past, false);
        for (stream, numbers) in (0u16..).zip(&mut self.streams) {
            numbers.caught_up = false;
            let next = self.slots.iter().copied().zip(numbers.next.iter().copied());
            FrameWriter::new(out).edge(stream, next.filter(|(_, next)| *next > 1));
        }
        !self.joined
    }

    /// Takes a frame of the holder; what follows is appended to `out`.
    ///
    /// # Errors
    /// [`RelayError`] when the connection is to be given up. What was appended counts.
    pub fn handle(&mut self, frame: &Frame<'_>, out: &mut Vec<Relayed>) -> Result<(), RelayError> {
        match (self.stage, frame) {
            (_, Frame::Names(names)) => {
                // Whoever has no name of its own has none here.
                let named = names.iter().filter(|(hash, name)| name_hash(name.as_bytes()) == *hash);
                out.extend(named.map(|(_, name)| Relayed::Name(name.into())));
            }
            (Stage::Past, Frame::Edge(edge)) => {
                for (slot, next) in edge.iter() {
                    let (stream, place) = self.place(edge.stream, slot, next)?;
                    let numbers = &mut self.streams[stream];
                    numbers.known[place] = next - 1;
                    numbers.tried[place] = numbers.tried[place].max(next - 1);
                }
            }
            (Stage::Past, Frame::Records(records)) => {
                let mut kept = Vec::new();
                for output in records.iter() {
                    let (stream, place) = self.check(&output)?;
                    // What came behind the numbers comes as a result.
                    if output.sequence <= self.streams[stream].known[place] {
                        kept.push(output);
                    }
                }
                if !kept.is_empty() {
                    out.push(Relayed::Past(kept));
                }
            }
            (Stage::Past, Frame::Subscribed { .. }) => (self.stage, self.past) = (Stage::Live, true),
            (Stage::Live, Frame::Records(records)) => {
                for output in records.iter() {
                    self.record(output, out)?;
                }
            }
            (Stage::Live, Frame::Edge(edge)) => {
                for (slot, next) in edge.iter() {
                    // An edge is of all slots that the holder knows of.
                    if self.places.get(usize::from(slot)).is_some_and(|place| *place != u16::MAX) {
                        let (stream, place) = self.place(edge.stream, slot, next)?;
                        self.missing(stream, place, next, out)?;
                    }
                }
                let Some(numbers) = self.streams.get_mut(usize::from(edge.stream)) else {
                    return Err(RelayError::Foreign { stream: edge.stream, slot: 0, sequence: 0 });
                };
                numbers.caught_up = true;
                if self.streams.iter().all(|numbers| numbers.caught_up) {
                    // What was dropped behind the edges shows in those of the next connection.
                    (self.joined, self.asked) = (true, self.dropped);
                    if self.dropped {
                        return Err(RelayError::Behind);
                    }
                }
            }
            // Of a slot that nothing more comes of, the numbers would not show it.
            (Stage::Live, Frame::Loss(loss)) if loss.cause == LossCause::Dropped => {
                self.dropped = true;
                if self.streams.iter().all(|numbers| numbers.caught_up) {
                    self.asked = true;
                    return Err(RelayError::Behind);
                }
            }
            (Stage::Live, Frame::Loss(_)) => {}
            (Stage::Live, Frame::Heartbeat { nonce, .. }) => {
                if *nonce > self.stats.complete && !self.dropped {
                    self.stats.complete = *nonce;
                    out.push(Relayed::Complete(*nonce));
                }
            }
            (_, Frame::Close { code, reason }) => {
                return Err(RelayError::Closed(Close::new(*code, (*reason).to_owned())));
            }
            (_, other) => return Err(RelayError::Unexpected(other.kind())),
        }
        Ok(())
    }

    fn place(&self, stream: u16, slot: u16, sequence: u64) -> Result<(usize, usize), RelayError> {
        let place = self.places.get(usize::from(slot)).copied().filter(|place| *place != u16::MAX);
        match place {
            Some(place)
                if usize::from(stream) < self.streams.len() && (1..=SEQUENCE_MAX).contains(&sequence) =>
            {
                Ok((stream.into(), place.into()))
            }
            _ => Err(RelayError::Foreign { stream, slot, sequence }),
        }
    }

    fn check(&self, output: &Output) -> Result<(usize, usize), RelayError> {
        let &Output { stream, slot, sequence, kind, .. } = output;
        if kind >= output_kind::WATERMARK {
            return Err(RelayError::Foreign { stream, slot, sequence });
        }
        self.place(stream, slot, sequence)
    }

    fn record(&mut self, output: Output, out: &mut Vec<Relayed>) -> Result<(), RelayError> {
        let (stream, place) = self.check(&output)?;
        if output.sequence < self.streams[stream].next[place] {
            self.stats.duplicates += 1;
            return Ok(());
        }
        self.missing(stream, place, output.sequence, out)?;
        let numbers = &mut self.streams[stream];
        numbers.next[place] = output.sequence + 1;
        self.stats.records += 1;
        let (known, tried) = (numbers.known[place], numbers.tried[place]);
        if output.sequence > known.max(tried) {
            match out.last_mut() {
                Some(Relayed::Records(records)) => records.push(output),
                _ => out.push(Relayed::Records(vec![output])),
            }
            return Ok(());
        }
        if output.sequence > known {
            // Another holder, that was further, may have given it before.
            out.push(Relayed::Past(vec![output]));
        }
        match out.last_mut() {
            Some(Relayed::Known(records)) => records.push(output),
            _ => out.push(Relayed::Known(vec![output])),
        }
        Ok(())
    }

    /// A number came: what lies in front of it and did not come is missing.
    fn missing(
        &mut self,
        stream: usize,
        place: usize,
        found: u64,
        out: &mut Vec<Relayed>,
    ) -> Result<(), RelayError> {
        let numbers = &mut self.streams[stream];
        let expected = numbers.next[place];
        if found <= expected {
            return Ok(());
        }
        let (stream, slot) = (stream as u16, self.slots[place]);
        let live = self.joined || numbers.caught_up;
        if live && !self.asked {
            self.asked = true;
            return Err(RelayError::Gap { stream, slot, expected, found });
        }
        let beginning = !live && expected == 1;
        numbers.next[place] = found;
        self.stats.skipped += if beginning { 0 } else { found - expected };
        out.push(Relayed::Skip { stream, slot, next: found, beginning });
        Ok(())
    }
}

/// The holder's side: appends frames of records that are kept for lookback, as they come out of the hub, one behind the other.
pub fn past_records(mut records: &[u8], out: &mut Vec<u8>) {
    while !records.is_empty() {
        let (mut end, mut count) = (0, 0u32);
        while let Some(&words) = records.get(end + RECORD_HEAD_BYTES - 1) {
            let next = end + RECORD_HEAD_BYTES + 8 * usize::from(words);
            if next > records.len() || next > BODY_BYTES_MAX - 16 {
                break;
            }
            (end, count) = (next, count + 1);
        }
        if count == 0 {
            return;
        }
        FrameWriter::new(out).records(true, 0, |out| {
            out.extend_from_slice(&records[..end]);
            count
        });
        records = &records[end..];
    }
}
