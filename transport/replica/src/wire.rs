//! Messages of replicas as bytes, version 1. All numbers are little-endian; what is reserved is zero.
//!
//! ```text
//! head, 8 bytes:  "TN", version u8 = 1, kind u8, bytes behind the head u32
//! 1 append:       epoch u32, entries u32, lineage u64, from node u16, to node u16, previous epoch u32,
//!                 from incarnation u64, to incarnation u64, previous offset u64, commit u64, and the entries:
//!   entry:        epoch u32, kind u8 (1 input, 2 digest), 3 reserved, source u32, payload bytes u32, sequence or offset u64,
//!                 0 or digest u64, payload
//! 2 ack,
//! 3 mismatch:     epoch u32, node u16, 2 reserved, incarnation u64, matched offset or hint u64
//! 4 stale:        epoch u32, 4 reserved
//! 5 offer:        epoch u32, from node u16, to node u16, lineage u64, from incarnation u64, to incarnation u64, offset u64, bytes u64,
//!                 epoch of the snapshot u32, 4 reserved, hash (32 bytes)
//! 6 fetch:        epoch u32, node u16, 2 reserved, incarnation u64, offset u64, first byte u64
//! 7 chunk:        epoch u32, from node u16, to node u16, from incarnation u64, to incarnation u64, offset u64, first byte u64, and at
//!                 most 256 KiB
//! ```
//! No checksum: every packet of a link is authenticated. Nothing is allocated before a length was checked.

use crate::log::{Body, Entry};
use crate::message::{Append, Message, SnapshotId};
use crate::meta::{Member, NodeId};
use bytes::Bytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of this format.
pub const VERSION: u8 = 1;
/// Bytes of a head.
pub const HEAD_BYTES: usize = 8;
/// Bytes behind a head at most: 16 MiB.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Entries in one append at most.
pub const ENTRIES_MAX: usize = 4_096;
/// Bytes of one input at most: a batch of the journal and what it is numbered with.
pub const INPUT_BYTES_MAX: usize = (4 << 20) + 64;
/// Bytes of one piece of a snapshot at most.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Bytes of a snapshot at most: 64 GiB.
pub const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;

const MAGIC: [u8; 2] = *b"TN";

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They do not begin as a message does.
    #[error("bytes that are no message of a replica (they begin with {0:02x?})")]
    Magic([u8; 2]),
    /// Another version.
    #[error("version {0} of replica messages, allowed is {VERSION}")]
    Version(u8),
    /// An unknown kind.
    #[error("kind {0} of replica messages, allowed are 1 to 7")]
    Kind(u8),
    /// A length out of its range.
    #[error("{what}: {found}, allowed are {min} to {max}")]
    Length {
        /// Of what.
        what: &'static str,
        /// As it says.
        found: u64,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// Fewer bytes than its lengths say, or more.
    #[error("the message has {found} bytes where its parts take {expected}")]
    Bytes {
        /// As they are.
        found: usize,
        /// As they should be.
        expected: usize,
    },
    /// An unknown kind of entry.
    #[error("kind {0} of entries, allowed are 1 and 2")]
    EntryKind(u8),
    /// Something reserved is not zero.
    #[error("reserved bytes of the {0} are not zero")]
    Reserved(&'static str),
    /// A number that no replica writes.
    #[error("the {what} is {found}")]
    Number {
        /// Which.
        what: &'static str,
        /// As it is.
        found: u64,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 2],
    version: u8,
    kind: u8,
    bytes: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AppendHead {
    epoch: U32,
    entries: U32,
    lineage: U64,
    from_node: U16,
    to_node: U16,
    prev_epoch: U32,
    from_incarnation: U64,
    to_incarnation: U64,
    prev_offset: U64,
    commit: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryHead {
    epoch: U32,
    kind: u8,
    reserved: [u8; 3],
    source: U32,
    bytes: U32,
    first: U64,
    second: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Answer {
    epoch: U32,
    node: U16,
    reserved: [u8; 2],
    incarnation: U64,
    offset: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StaleBody {
    epoch: U32,
    reserved: [u8; 4],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OfferBody {
    epoch: U32,
    from_node: U16,
    to_node: U16,
    lineage: U64,
    from_incarnation: U64,
    to_incarnation: U64,
    offset: U64,
    bytes: U64,
    last_epoch: U32,
    reserved: [u8; 4],
    hash: [u8; 32],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FetchBody {
    answer: Answer,
    at: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ChunkHead {
    epoch: U32,
    from_node: U16,
    to_node: U16,
    from_incarnation: U64,
    to_incarnation: U64,
    offset: U64,
    at: U64,
}

const _: () = assert!(
    size_of::<Head>() == HEAD_BYTES
        && size_of::<AppendHead>() == 56
        && size_of::<EntryHead>() == 32
        && size_of::<Answer>() == 24
        && size_of::<StaleBody>() == 8
        && size_of::<OfferBody>() == 88
        && size_of::<FetchBody>() == 32
        && size_of::<ChunkHead>() == 40
);

fn range(what: &'static str, found: usize, min: usize, max: usize) -> Result<(), WireError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(WireError::Length { what, found: found as u64, min: min as u64, max: max as u64 })
}

/// Appends a message to `out`.
///
/// # Errors
/// [`WireError::Length`] when it is larger than a message may be; then nothing was appended.
pub fn encode(message: &Message<Bytes>, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    let kind = match message {
        Message::Append(_) => 1,
        Message::Ack { .. } => 2,
        Message::Mismatch { .. } => 3,
        Message::Stale { .. } => 4,
        Message::Offer { .. } => 5,
        Message::Fetch { .. } => 6,
        Message::Chunk { .. } => 7,
    };
    let head = |bytes: usize| Head { magic: MAGIC, version: VERSION, kind, bytes: U32::new(bytes as u32) };
    match message {
        Message::Append(append) => {
            range("entries", append.entries.len(), 0, ENTRIES_MAX)?;
            let mut bytes = size_of::<AppendHead>();
            for entry in &append.entries {
                let input = input_bytes(entry);
                range("bytes of an input", input, 0, INPUT_BYTES_MAX)?;
                bytes += size_of::<EntryHead>() + input;
            }
            range("bytes of a message", bytes, 0, BODY_BYTES_MAX)?;
            out.reserve(HEAD_BYTES + bytes);
            out.extend_from_slice(head(bytes).as_bytes());
            let fixed = AppendHead {
                epoch: U32::new(append.epoch),
                entries: U32::new(append.entries.len() as u32),
                lineage: U64::new(append.lineage),
                from_node: U16::new(append.from.node),
                to_node: U16::new(append.to.node),
                prev_epoch: U32::new(append.prev_epoch),
                from_incarnation: U64::new(append.from.incarnation),
                to_incarnation: U64::new(append.to.incarnation),
                prev_offset: U64::new(append.prev_offset),
                commit: U64::new(append.commit),
            };
            out.extend_from_slice(fixed.as_bytes());
            append.entries.iter().for_each(|entry| encode_entry(entry, out));
        }
        Message::Ack { epoch, from, matched: offset } | Message::Mismatch { epoch, from, hint: offset } => {
            out.extend_from_slice(head(size_of::<Answer>()).as_bytes());
            out.extend_from_slice(Answer::of(*epoch, *from, *offset).as_bytes());
        }
        Message::Offer { epoch, lineage, from, to, snapshot } => {
            out.extend_from_slice(head(size_of::<OfferBody>()).as_bytes());
            let offer = OfferBody {
                epoch: U32::new(*epoch),
                from_node: U16::new(from.node),
                to_node: U16::new(to.node),
                lineage: U64::new(*lineage),
                from_incarnation: U64::new(from.incarnation),
                to_incarnation: U64::new(to.incarnation),
                offset: U64::new(snapshot.offset),
                bytes: U64::new(snapshot.bytes),
                last_epoch: U32::new(snapshot.epoch),
                reserved: [0; 4],
                hash: snapshot.hash,
            };
            out.extend_from_slice(offer.as_bytes());
        }
        Message::Fetch { epoch, from, offset, at } => {
            out.extend_from_slice(head(size_of::<FetchBody>()).as_bytes());
            let fetch = FetchBody { answer: Answer::of(*epoch, *from, *offset), at: U64::new(*at) };
            out.extend_from_slice(fetch.as_bytes());
        }
        Message::Chunk { epoch, from, to, offset, at, data } => {
            range("bytes of a piece", data.len(), 1, CHUNK_BYTES_MAX)?;
            out.extend_from_slice(head(size_of::<ChunkHead>() + data.len()).as_bytes());
            let fixed = ChunkHead {
                epoch: U32::new(*epoch),
                from_node: U16::new(from.node),
                to_node: U16::new(to.node),
                from_incarnation: U64::new(from.incarnation),
                to_incarnation: U64::new(to.incarnation),
                offset: U64::new(*offset),
                at: U64::new(*at),
            };
            out.extend_from_slice(fixed.as_bytes());
            out.extend_from_slice(data);
        }
        Message::Stale { epoch } => {
            out.extend_from_slice(head(size_of::<StaleBody>()).as_bytes());
            out.extend_from_slice(StaleBody { epoch: U32::new(*epoch), reserved: [0; 4] }.as_bytes());
        }
    }
    debug_assert!(out.len() > start);
    Ok(())
}

impl Answer {
    fn of(epoch: u32, from: Member, offset: u64) -> Self {
        Self {
            epoch: U32::new(epoch),
            node: U16::new(from.node),
            reserved: [0; 2],
            incarnation: U64::new(from.incarnation),
            offset: U64::new(offset),
        }
    }

    /// Epoch, who, and offset.
    fn read(&self) -> Result<(u32, Member, u64), WireError> {
        if self.reserved != [0; 2] {
            return Err(WireError::Reserved("answer"));
        }
        let from = Member { node: self.node.get(), incarnation: self.incarnation.get() };
        Ok((self.epoch.get(), from, offset("offset", self.offset.get())?))
    }
}

fn input_bytes(entry: &Entry<Bytes>) -> usize {
    if let Body::Input { input, .. } = &entry.body { input.len() } else { 0 }
}

/// Appends an entry: the same bytes as in an append, for a log that is kept.
pub fn encode_entry(entry: &Entry<Bytes>, out: &mut Vec<u8>) {
    let input = if let Body::Input { input, .. } = &entry.body { &input[..] } else { &[] };
    encode_entry_head(entry, input.len(), out);
    out.extend_from_slice(input);
}

/// The head of an entry whose input is another one, of so many bytes, which are to follow; a digest has none.
pub fn encode_entry_head(entry: &Entry<Bytes>, input_bytes: usize, out: &mut Vec<u8>) {
    let (kind, source, first, second, bytes) = match &entry.body {
        Body::Input { source, sequence, .. } => (1, *source, *sequence, 0, input_bytes),
        Body::Digest { at, value } => (2, 0, *at, *value, 0),
    };
    let head = EntryHead {
        epoch: U32::new(entry.epoch),
        kind,
        reserved: [0; 3],
        source: U32::new(source),
        bytes: U32::new(bytes as u32),
        first: U64::new(first),
        second: U64::new(second),
    };
    out.extend_from_slice(head.as_bytes());
}

/// Bytes behind a head, as the head says; what is wrong with it is known before anything is read or set aside.
///
/// # Errors
/// [`WireError`] when it is no head of this version.
pub fn body_bytes(head: &[u8; HEAD_BYTES]) -> Result<usize, WireError> {
    let Ok(head) = Head::ref_from_bytes(&head[..]) else { return Err(WireError::Magic([0; 2])) };
    if head.magic != MAGIC {
        return Err(WireError::Magic(head.magic));
    }
    if head.version != VERSION {
        return Err(WireError::Version(head.version));
    }
    let bytes = head.bytes.get() as usize;
    let (min, max) = match head.kind {
        1 => (size_of::<AppendHead>(), BODY_BYTES_MAX),
        2 | 3 => (size_of::<Answer>(), size_of::<Answer>()),
        4 => (size_of::<StaleBody>(), size_of::<StaleBody>()),
        5 => (size_of::<OfferBody>(), size_of::<OfferBody>()),
        6 => (size_of::<FetchBody>(), size_of::<FetchBody>()),
        7 => (size_of::<ChunkHead>() + 1, size_of::<ChunkHead>() + CHUNK_BYTES_MAX),
        other => return Err(WireError::Kind(other)),
    };
    range("bytes of a message", bytes, min, max)?;
    Ok(bytes)
}

/// A message of its head and what is behind it; inputs share the memory of `body`.
///
/// # Errors
/// [`WireError`]: the first thing wrong with it.
pub fn decode(head: &[u8; HEAD_BYTES], mut body: Bytes) -> Result<Message<Bytes>, WireError> {
    let bytes = body_bytes(head)?;
    if body.len() != bytes {
        return Err(WireError::Bytes { found: body.len(), expected: bytes });
    }
    let short = |found| WireError::Bytes { found, expected: bytes };
    match head[3] {
        1 => {
            let fixed = body.split_to(size_of::<AppendHead>());
            let fixed = AppendHead::ref_from_bytes(&fixed).map_err(|_| short(bytes))?;
            let count = fixed.entries.get() as usize;
            range("entries", count, 0, ENTRIES_MAX.min(body.len() / size_of::<EntryHead>()))?;
            let mut entries = Vec::with_capacity(count);
            for _ in 0..count {
                entries.push(decode_entry(&mut body)?);
            }
            if !body.is_empty() {
                return Err(WireError::Bytes { found: bytes, expected: bytes - body.len() });
            }
            Ok(Message::Append(Append {
                epoch: fixed.epoch.get(),
                lineage: fixed.lineage.get(),
                from: Member { node: fixed.from_node.get(), incarnation: fixed.from_incarnation.get() },
                to: Member { node: fixed.to_node.get(), incarnation: fixed.to_incarnation.get() },
                prev_offset: offset("previous offset", fixed.prev_offset.get())?,
                prev_epoch: fixed.prev_epoch.get(),
                entries,
                commit: offset("commit", fixed.commit.get())?,
            }))
        }
        kind @ (2 | 3) => {
            let answer = Answer::ref_from_bytes(&body).map_err(|_| short(body.len()))?;
            let (epoch, from, offset) = answer.read()?;
            Ok(if kind == 2 {
                Message::Ack { epoch, from, matched: offset }
            } else {
                Message::Mismatch { epoch, from, hint: offset }
            })
        }
        5 => {
            let offer = OfferBody::ref_from_bytes(&body).map_err(|_| short(body.len()))?;
            if offer.reserved != [0; 4] {
                return Err(WireError::Reserved("offer"));
            }
            let bytes = offer.bytes.get();
            if !(1..=SNAPSHOT_BYTES_MAX).contains(&bytes) {
                let (min, max) = (1, SNAPSHOT_BYTES_MAX);
                return Err(WireError::Length { what: "bytes of a snapshot", found: bytes, min, max });
            }
            Ok(Message::Offer {
                epoch: offer.epoch.get(),
                lineage: offer.lineage.get(),
                from: Member { node: offer.from_node.get(), incarnation: offer.from_incarnation.get() },
                to: Member { node: offer.to_node.get(), incarnation: offer.to_incarnation.get() },
                snapshot: SnapshotId {
                    offset: offset("offset", offer.offset.get())?,
                    epoch: offer.last_epoch.get(),
                    bytes,
                    hash: offer.hash,
                },
            })
        }
        6 => {
            let fetch = FetchBody::ref_from_bytes(&body).map_err(|_| short(body.len()))?;
            let (epoch, from, of) = fetch.answer.read()?;
            Ok(Message::Fetch { epoch, from, offset: of, at: offset("first byte", fetch.at.get())? })
        }
        7 => {
            let fixed = body.split_to(size_of::<ChunkHead>());
            let fixed = ChunkHead::ref_from_bytes(&fixed).map_err(|_| short(bytes))?;
            Ok(Message::Chunk {
                epoch: fixed.epoch.get(),
                from: Member { node: fixed.from_node.get(), incarnation: fixed.from_incarnation.get() },
                to: Member { node: fixed.to_node.get(), incarnation: fixed.to_incarnation.get() },
                offset: offset("offset", fixed.offset.get())?,
                at: offset("first byte", fixed.at.get())?,
                data: body,
            })
        }
        _ => {
            let stale = StaleBody::ref_from_bytes(&body).map_err(|_| short(body.len()))?;
            if stale.reserved != [0; 4] {
                return Err(WireError::Reserved("refusal"));
            }
            Ok(Message::Stale { epoch: stale.epoch.get() })
        }
    }
}

/// Offsets stay far from where adding to them wraps.
fn offset(what: &'static str, found: u64) -> Result<u64, WireError> {
    if found < 1 << 62 { Ok(found) } else { Err(WireError::Number { what, found }) }
}

/// Takes the next entry off `bytes`.
///
/// # Errors
/// [`WireError`] when what comes is none.
pub fn decode_entry(bytes: &mut Bytes) -> Result<Entry<Bytes>, WireError> {
    if bytes.len() < size_of::<EntryHead>() {
        return Err(WireError::Bytes { found: bytes.len(), expected: size_of::<EntryHead>() });
    }
    let head = bytes.split_to(size_of::<EntryHead>());
    let head = EntryHead::ref_from_bytes(&head)
        .map_err(|_| WireError::Bytes { found: head.len(), expected: size_of::<EntryHead>() })?;
    let payload = head.bytes.get() as usize;
    range("bytes of an input", payload, 0, INPUT_BYTES_MAX)?;
    if payload > bytes.len() {
        return Err(WireError::Bytes { found: bytes.len(), expected: payload });
    }
    if head.reserved != [0; 3] {
        return Err(WireError::Reserved("entry"));
    }
    let epoch = head.epoch.get();
    let (first, second) = (head.first.get(), head.second.get());
    let body = match head.kind {
        1 if second != 0 => return Err(WireError::Reserved("input")),
        1 => Body::Input { source: head.source.get(), sequence: first, input: bytes.split_to(payload) },
        2 if payload != 0 || head.source.get() != 0 => return Err(WireError::Reserved("digest")),
        2 => Body::Digest { at: first, value: second },
        other => return Err(WireError::EntryKind(other)),
    };
    Ok(Entry { epoch, body })
}

/// Whose message it is, as it says itself; `None` for a refusal, which names nobody. A link knows better who speaks on it.
#[must_use]
pub fn sender<I>(message: &Message<I>) -> Option<NodeId> {
    match message {
        Message::Append(append) => Some(append.from.node),
        Message::Ack { from, .. }
        | Message::Mismatch { from, .. }
        | Message::Offer { from, .. }
        | Message::Fetch { from, .. }
        | Message::Chunk { from, .. } => Some(from.node),
        Message::Stale { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(bytes: &[u8]) -> ([u8; HEAD_BYTES], Bytes) {
        let (head, body) = bytes.split_at(HEAD_BYTES);
        (head.try_into().unwrap(), Bytes::copy_from_slice(body))
    }

    fn encoded(message: &Message<Bytes>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(message, &mut out).unwrap();
        out
    }

    fn member() -> impl Strategy<Value = Member> {
        (any::<u16>(), any::<u64>()).prop_map(|(node, incarnation)| Member { node, incarnation })
    }

    fn entry() -> impl Strategy<Value = Entry<Bytes>> {
        let input = (any::<u32>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(source, sequence, input)| Body::Input { source, sequence, input: input.into() });
        let digest = (any::<u64>(), any::<u64>()).prop_map(|(at, value)| Body::Digest { at, value });
        (any::<u32>(), prop_oneof![input, digest]).prop_map(|(epoch, body)| Entry { epoch, body })
    }

    fn message() -> impl Strategy<Value = Message<Bytes>> {
        let offset = 0u64..1 << 62;
        let append = (
            (any::<u32>(), any::<u64>(), member(), member()),
            (offset.clone(), any::<u32>(), prop::collection::vec(entry(), 0..20), offset.clone()),
        )
            .prop_map(|((epoch, lineage, from, to), (prev_offset, prev_epoch, entries, commit))| {
                Message::Append(Append { epoch, lineage, from, to, prev_offset, prev_epoch, entries, commit })
            });
        let snapshot = (offset.clone(), any::<u32>(), 1..=SNAPSHOT_BYTES_MAX, any::<[u8; 32]>())
            .prop_map(|(offset, epoch, bytes, hash)| SnapshotId { offset, epoch, bytes, hash });
        let data = prop::collection::vec(any::<u8>(), 1..300);
        prop_oneof![
            append,
            (any::<u32>(), any::<u64>(), member(), member(), snapshot).prop_map(
                |(epoch, lineage, from, to, snapshot)| Message::Offer { epoch, lineage, from, to, snapshot }
            ),
            (any::<u32>(), member(), offset.clone(), offset.clone())
                .prop_map(|(epoch, from, offset, at)| Message::Fetch { epoch, from, offset, at }),
            (any::<u32>(), member(), member(), offset.clone(), offset.clone(), data).prop_map(
                |(epoch, from, to, offset, at, data)| Message::Chunk {
                    epoch,
                    from,
                    to,
                    offset,
                    at,
                    data: data.into()
                }
            ),
            (any::<u32>(), member(), offset.clone()).prop_map(|(epoch, from, matched)| Message::Ack {
                epoch,
                from,
                matched
            }),
            (any::<u32>(), member(), offset).prop_map(|(epoch, from, hint)| Message::Mismatch {
                epoch,
                from,
                hint
            }),
            any::<u32>().prop_map(|epoch| Message::Stale { epoch }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(message in message()) {
            let bytes = encoded(&message);
            let (head, body) = split(&bytes);
            prop_assert_eq!(body_bytes(&head), Ok(body.len()));
            prop_assert_eq!(decode(&head, body), Ok(message));
        }

        #[test]
        fn what_is_cut_or_longer_is_refused(message in message(), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&message);
            let at = HEAD_BYTES + cut.index(bytes.len() - HEAD_BYTES);
            let (head, body) = split(&bytes[..at]);
            prop_assert!(decode(&head, body).is_err());
            let (head, body) = split(&[&bytes[..], &[0]].concat());
            prop_assert!(decode(&head, body).is_err());
        }

        /// What is accepted has one form only.
        #[test]
        fn any_bytes_end_in_an_error_or_in_what_writes_them(
            message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = encoded(&message);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let (head, body) = split(&bytes);
            if let Ok(message) = decode(&head, body) {
                prop_assert_eq!(encoded(&message), bytes);
            }
        }
    }

    /// Peers of every later version read these.
    #[test]
    fn version_1_stays_as_it_is() {
        let member = |node, incarnation| Member { node, incarnation };
        let input = Bytes::from_static(b"abc");
        let append = Append {
            epoch: 7,
            lineage: 2,
            from: member(1, 3),
            to: member(2, 4),
            prev_offset: 9,
            prev_epoch: 6,
            entries: vec![
                Entry { epoch: 7, body: Body::Input { source: 5, sequence: 11, input } },
                Entry { epoch: 7, body: Body::Digest { at: 9, value: 0x0102_0304 } },
            ],
            commit: 8,
        };
        let golden = [
            (
                Message::Append(append),
                "544e01017b00000007000000020000000200000000000000010002000600000003000000000000000400000000000000\
                 09000000000000000800000000000000070000000100000005000000030000000b00000000000000000000000000000061\
                 62630700000002000000000000000000000009000000000000000403020100000000",
            ),
            (
                Message::Ack { epoch: 7, from: member(2, 4), matched: 10 },
                "544e010218000000070000000200000004000000000000000a00000000000000",
            ),
            (
                Message::Mismatch { epoch: 7, from: member(2, 4), hint: 1 },
                "544e0103180000000700000002000000040000000000000001000000000000\
                 00",
            ),
            (Message::Stale { epoch: 8 }, "544e0104080000000800000000000000"),
            (
                Message::Offer {
                    epoch: 7,
                    lineage: 2,
                    from: member(1, 3),
                    to: member(2, 4),
                    snapshot: SnapshotId { offset: 9, epoch: 6, bytes: 300, hash: [0xab; 32] },
                },
                "544e01055800000007000000010002000200000000000000030000000000000004000000000000000900000000000000\
                 2c010000000000000600000000000000abababababababababababababababababababababababababababababababab",
            ),
            (
                Message::Fetch { epoch: 7, from: member(2, 4), offset: 9, at: 256 },
                "544e01062000000007000000020000000400000000000000090000000000000000010000000000\
                 00",
            ),
            (
                Message::Chunk {
                    epoch: 7,
                    from: member(1, 3),
                    to: member(2, 4),
                    offset: 9,
                    at: 256,
                    data: Bytes::from_static(b"abc"),
                },
                "544e01072b000000070000000100020003000000000000000400000000000000090000000000000000010000000000\
                 00616263",
            ),
        ];
        for (message, hex) in golden {
            let bytes = encoded(&message);
            let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, hex.replace([' ', '\n'], ""));
            let (head, body) = split(&bytes);
            assert_eq!(decode(&head, body), Ok(message));
        }
    }

    #[test]
    fn what_is_out_of_range_is_told_before_anything_is_set_aside() {
        let head = |kind, bytes: u32| {
            let mut head = *b"TN\x01\0\0\0\0\0";
            head[3] = kind;
            head[4..].copy_from_slice(&bytes.to_le_bytes());
            head
        };
        assert_eq!(body_bytes(b"GET / HT"), Err(WireError::Magic(*b"GE")));
        assert_eq!(body_bytes(b"TN\x02\x01\0\0\0\0"), Err(WireError::Version(2)));
        assert_eq!(body_bytes(&head(0, 24)), Err(WireError::Kind(0)));
        assert_eq!(body_bytes(&head(8, 24)), Err(WireError::Kind(8)));
        let most = CHUNK_BYTES_MAX as u32 + 40;
        for (kind, bytes) in [
            (1, 55),
            (1, BODY_BYTES_MAX as u32 + 1),
            (2, 23),
            (3, 25),
            (4, u32::MAX),
            (5, 87),
            (6, 24),
            (7, 40),
            (7, most + 1),
        ] {
            assert!(
                matches!(body_bytes(&head(kind, bytes)), Err(WireError::Length { .. })),
                "{kind} {bytes}"
            );
        }
        // Many entries are claimed where there is room for none.
        let mut body = vec![0; 56];
        body[4..8].copy_from_slice(&4_096u32.to_le_bytes());
        let found = decode(&head(1, 56), body.into());
        assert!(matches!(found, Err(WireError::Length { what: "entries", max: 0, .. })), "{found:?}");
        let far = Message::Ack { epoch: 1, from: Member { node: 1, incarnation: 1 }, matched: u64::MAX };
        let (head, body) = split(&encoded(&far));
        assert!(matches!(decode(&head, body), Err(WireError::Number { what: "offset", .. })));
        let piece = |data| Message::Chunk {
            epoch: 1,
            from: Member { node: 1, incarnation: 1 },
            to: Member { node: 2, incarnation: 1 },
            offset: 1,
            at: 0,
            data,
        };
        for bytes in [0, CHUNK_BYTES_MAX + 1] {
            let refused = encode(&piece(vec![0; bytes].into()), &mut Vec::new());
            assert!(matches!(refused, Err(WireError::Length { .. })), "{bytes}");
        }
        assert_eq!(encoded(&piece(vec![0; CHUNK_BYTES_MAX].into())).len(), HEAD_BYTES + most as usize);
        for bytes in [0, SNAPSHOT_BYTES_MAX + 1] {
            let snapshot = SnapshotId { offset: 1, epoch: 1, bytes, hash: [0; 32] };
            let (from, to) = (Member { node: 1, incarnation: 1 }, Member { node: 2, incarnation: 1 });
            let (head, body) = split(&encoded(&Message::Offer { epoch: 1, lineage: 1, from, to, snapshot }));
            assert!(matches!(decode(&head, body), Err(WireError::Length { .. })), "{bytes}");
        }
        let huge = Entry {
            epoch: 1,
            body: Body::Input { source: 0, sequence: 1, input: vec![0; INPUT_BYTES_MAX + 1].into() },
        };
        let member = Member { node: 1, incarnation: 1 };
        let append = Append {
            epoch: 1,
            lineage: 1,
            from: member,
            to: member,
            prev_offset: 0,
            prev_epoch: 0,
            entries: vec![huge],
            commit: 0,
        };
        let mut out = Vec::new();
        assert!(matches!(encode(&Message::Append(append), &mut out), Err(WireError::Length { .. })));
        assert!(out.is_empty());
    }
}
