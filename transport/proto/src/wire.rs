//! The head of a frame, the limits, and the buffer in which frames are found in place.
//!
//! Every frame is a head of 16 bytes and a body of a multiple of 8 bytes. Since all frames are multiples of 8, a receive
//! buffer that is aligned once keeps every frame, and with it every event, aligned: they are read where they arrived.
//!
//! Frames carry no checksum. QUIC authenticates each packet (AEAD), so a damaged one never gets here, and a second sum over
//! the same bytes would take a tenth of the ingest budget to find only our own bugs. What leaves the protection of a
//! connection (captures, journals) has sums of its own.

use crate::packed::PACKED_HEAD_BYTES;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First four bytes of every frame: `TGP1` in ASCII.
pub const MAGIC: u32 = u32::from_le_bytes(*b"TGP1");
/// The version of frames: their heads, and how bodies are laid out.
pub const VERSION: u8 = 1;
/// Lowest version of the protocol this crate speaks: what sessions say in frames.
pub const PROTOCOL_MIN: u8 = 1;
/// Highest version of the protocol this crate speaks. Version 2 has credentials in HELLO, version 3 packed events, version 4 groups,
/// version 5 slots that change their group.
pub const PROTOCOL_MAX: u8 = 5;
/// The version of the protocol from which HELLO may carry a credential.
pub const PROTOCOL_CREDENTIAL: u8 = 2;
/// The version of the protocol from which feeds may send [`FrameType::Packed`].
pub const PROTOCOL_PACKED: u8 = 3;
/// The version of the protocol from which HELLO may name a group, and servers tell of several ([`FrameType::Groups`]).
pub const PROTOCOL_GROUPS: u8 = 4;
/// The version of the protocol from which feeds stop for a slot that changes its group ([`FrameType::Slot`]).
pub const PROTOCOL_SLOTS: u8 = 5;
/// Bytes of a proof: a signature of Ed25519.
pub const PROOF_BYTES: usize = 64;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_032;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 16;
/// Bytes of a frame of groups in front of its lists.
pub(crate) const GROUPS_HEAD_BYTES: usize = 16;
/// Bytes of a frame of events in front of its events.
pub const EVENTS_HEAD_BYTES: usize = HEAD_BYTES + 16;
/// Most events of one frame: 64 KiB of them.
pub const FRAME_EVENTS_MAX: usize = 2_048;
/// Most bytes of a body: a prefix of 16 and 64 KiB.
pub const BODY_BYTES_MAX: usize = 16 + 65_536;
/// Most bytes of a frame.
pub const FRAME_BYTES_MAX: usize = HEAD_BYTES + BODY_BYTES_MAX;
/// The largest sequence there is: arithmetic around it cannot overflow, and at a billion a second it lasts 146 years.
pub const SEQUENCE_MAX: u64 = 1 << 62;
/// Longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest reason of a close, in bytes.
pub const REASON_BYTES_MAX: usize = 255;
/// What a connection says it is for, in its TLS handshake (ALPN): a feed.
pub const ALPN_FEED: &[u8] = b"tidegate-feed/1";
/// As [`ALPN_FEED`], for a subscriber.
pub const ALPN_SUBSCRIBE: &[u8] = b"tidegate-sub/1";

/// What a frame is. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Client, first: who it is and what it speaks.
    Hello = 0x01,
    /// Server, first: what was agreed, and where a feed goes on.
    HelloAck = 0x02,
    /// Server, before anything else: the groups of its cluster, where there are several.
    Groups = 0x03,
    /// Feed: names for its keys.
    Define = 0x10,
    /// Feed: a run of events.
    Events = 0x11,
    /// Server: what it has taken, and under which promise.
    Ack = 0x12,
    /// Server: up to where the feed may send.
    Credit = 0x13,
    /// Feed: asks what the server has of it.
    Resume = 0x14,
    /// Server: what it has; the feed goes on behind it.
    Position = 0x15,
    /// Feed: events that it lost and will never send.
    Gap = 0x16,
    /// Feed: a run of events, in fewer bytes; see [`crate::packed`].
    Packed = 0x17,
    /// Either side: a slot changes its group.
    Slot = 0x18,
    /// Subscriber: what it wants.
    Subscribe = 0x20,
    /// Server: the subscription stands.
    Subscribed = 0x21,
    /// Server: names for the hashes in records.
    Names = 0x22,
    /// Server: results.
    Records = 0x23,
    /// Server: results the subscriber does not get, by count.
    Loss = 0x24,
    /// Numbers per slot from which on records are live (server) or wanted (subscriber).
    Edge = 0x25,
    /// Server: one of its streams.
    Stream = 0x26,
    /// Either side: still here.
    Heartbeat = 0x30,
    /// Either side, last: why it ends.
    Close = 0x31,
}

impl FrameType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 21] = [
        Self::Hello,
        Self::HelloAck,
        Self::Groups,
        Self::Define,
        Self::Events,
        Self::Ack,
        Self::Credit,
        Self::Resume,
        Self::Position,
        Self::Gap,
        Self::Packed,
        Self::Slot,
        Self::Subscribe,
        Self::Subscribed,
        Self::Names,
        Self::Records,
        Self::Loss,
        Self::Edge,
        Self::Stream,
        Self::Heartbeat,
        Self::Close,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }

    /// Bytes a body of this type may have, both ends included.
    #[must_use]
    pub const fn body_bytes(self) -> (usize, usize) {
        match self {
            Self::Hello => (40, 40 + 256 + PROOF_BYTES + TOKEN_BYTES_MAX),
            Self::HelloAck => (48, 48 + 256),
            Self::Groups => (GROUPS_HEAD_BYTES + 16, BODY_BYTES_MAX),
            Self::Define | Self::Names => (24, BODY_BYTES_MAX),
            Self::Events => (16 + 32, BODY_BYTES_MAX),
            Self::Packed => (PACKED_HEAD_BYTES + 8, BODY_BYTES_MAX),
            Self::Ack => (24, 24),
            Self::Credit => (8, 8),
            Self::Resume => (8, 8),
            Self::Position | Self::Gap | Self::Loss | Self::Heartbeat => (16, 16),
            Self::Slot => (24, 24),
            Self::Subscribe => (40, BODY_BYTES_MAX),
            Self::Subscribed => (16, 16),
            Self::Records | Self::Edge => (16, BODY_BYTES_MAX),
            Self::Stream => (16, 8_192),
            Self::Close => (8, 8 + 256),
        }
    }

    /// Bits of the head's `flags` that mean something for this type.
    #[must_use]
    pub const fn flags(self) -> u16 {
        match self {
            Self::Records => FLAG_PAST,
            _ => 0,
        }
    }
}

/// Records: from before the subscription's edge (snapshot, lookback, catching up), not live.
pub const FLAG_PAST: u16 = 1;

/// The head of a frame, as it lies on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`VERSION`].
    pub version: u8,
    /// A [`FrameType`].
    pub kind: u8,
    /// Bits by type, see [`FrameType::flags`]; all others are zero.
    pub flags: U16,
    /// Bytes of the body, a multiple of 8.
    pub length: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<Head>() == HEAD_BYTES);

/// What is wrong with bytes that should be a frame: where in the stream, what was found, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame does not begin where one should.
    #[error("at byte {offset}: {found:#04x} is not part of `TGP1`, with which a frame begins")]
    Magic {
        /// Place in the stream of the first byte that is wrong.
        offset: u64,
        /// What is there.
        found: u8,
    },
    /// Another version of the protocol.
    #[error("at byte {offset}: frame version {found}, this side speaks {VERSION}")]
    Version {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The version there.
        found: u8,
    },
    /// No frame has this type.
    #[error("at byte {offset}: there is no frame type {found:#04x}")]
    Type {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The number there.
        found: u8,
    },
    /// Bits set that mean nothing.
    #[error("at byte {offset}: flags {found:#06x} on a {kind:?} frame, allowed are bits {allowed:#06x}")]
    Flags {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The frame's type.
        kind: FrameType,
        /// The flags there.
        found: u16,
        /// Bits that may be set.
        allowed: u16,
    },
    /// The head announces a body that its type cannot have. Nothing was allocated for it.
    #[error("at byte {offset}: a {kind:?} body of {found} bytes, allowed are {min} to {max}")]
    Length {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The frame's type.
        kind: FrameType,
        /// Bytes announced.
        found: u32,
        /// Least bytes allowed.
        min: u32,
        /// Most bytes allowed.
        max: u32,
    },
    /// A body must be a multiple of 8 bytes, and of 32 behind the prefix of events.
    #[error("at byte {offset}: a body of {found} bytes is not in steps of {step}")]
    Step {
        /// Place in the stream, in bytes.
        offset: u64,
        /// Bytes announced.
        found: u32,
        /// What it must be a multiple of.
        step: u32,
    },
    /// A field holds a value out of its range.
    #[error("at byte {offset}: {field} is {found}, allowed are {min} to {max}")]
    Field {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Least value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// The body ends inside a field.
    #[error("at byte {offset}: {field} needs {needed} bytes, {left} are left of the body")]
    Cut {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The field's name.
        field: &'static str,
        /// Bytes it needs.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// A text that is not UTF-8.
    #[error("at byte {offset}: {field} is not UTF-8 from its byte {valid} on")]
    Text {
        /// Place in the stream, in bytes.
        offset: u64,
        /// The field's name.
        field: &'static str,
        /// Bytes of it that are.
        valid: u64,
    },
    /// The stream ended inside a frame.
    #[error("at byte {offset}: the stream ended {have} bytes into a frame of {needed}")]
    Truncated {
        /// Place in the stream where the frame began, in bytes.
        offset: u64,
        /// Bytes of the frame, or of its head when that is not whole.
        needed: u64,
        /// Bytes there are.
        have: u64,
    },
    /// The frame is right but does not belong here: another plane's, or out of turn.
    #[error("at byte {offset}: a {kind:?} frame is not expected {place}")]
    Unexpected {
        /// Place in the stream, in bytes.
        offset: u64,
        /// Its type.
        kind: FrameType,
        /// Where the session stands, in words.
        place: &'static str,
    },
}

/// A head that has passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Its type.
    pub kind: FrameType,
    /// Its flags.
    pub flags: u16,
    /// Bytes of its body.
    pub body_bytes: usize,
}

impl FrameHead {
    /// Reads a head that begins at `offset` of its stream. `None` when there are too few bytes, of which those that are there
    /// look well so far.
    ///
    /// # Errors
    /// [`FrameError`] for the first field that cannot be.
    pub fn read(bytes: &[u8], offset: u64) -> Result<Option<Self>, FrameError> {
        // A stranger that speaks another protocol is told at its first byte, however few have come.
        let magic = MAGIC.to_le_bytes();
        if let Some(at) = std::iter::zip(bytes, &magic).position(|(found, magic)| found != magic) {
            return Err(FrameError::Magic { offset: offset + at as u64, found: bytes[at] });
        }
        let Ok((head, _)) = Head::ref_from_prefix(bytes) else { return Ok(None) };
        if head.version != VERSION {
            return Err(FrameError::Version { offset: offset + 4, found: head.version });
        }
        let kind =
            FrameType::of(head.kind).ok_or(FrameError::Type { offset: offset + 5, found: head.kind })?;
        let (flags, allowed) = (head.flags.get(), kind.flags());
        if flags & !allowed != 0 {
            return Err(FrameError::Flags { offset: offset + 6, kind, found: flags, allowed });
        }
        let length = head.length.get();
        let (min, max) = kind.body_bytes();
        if (length as usize) < min || length as usize > max {
            let (min, max) = (min as u32, max as u32);
            return Err(FrameError::Length { offset: offset + 8, kind, found: length, min, max });
        }
        let (prefix, step) = if kind == FrameType::Events { (16, 32) } else { (0, 8) };
        if !(length - prefix).is_multiple_of(step) {
            return Err(FrameError::Step { offset: offset + 8, found: length, step });
        }
        let reserved = head.reserved.get();
        if reserved != 0 {
            let found = u64::from(reserved);
            return Err(FrameError::Field { offset: offset + 12, field: "reserved", found, min: 0, max: 0 });
        }
        Ok(Some(Self { kind, flags, body_bytes: length as usize }))
    }

    /// Bytes of head and body.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        HEAD_BYTES + self.body_bytes
    }
}

/// Received bytes, aligned, with frames found in place. Its size is fixed: a peer cannot make it grow.
///
/// A driver reads into [`FrameBuffer::space`], says how much with [`FrameBuffer::filled`] and takes
/// [`FrameBuffer::next_frame`] until there is none.
#[derive(Debug)]
pub struct FrameBuffer {
    /// Words, so that bytes are aligned as events are.
    words: Box<[u64]>,
    start: usize,
    end: usize,
    /// Place in the stream of the byte at `start`.
    offset: u64,
}

impl FrameBuffer {
    /// A buffer for at least `frames` of the largest size.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        let bytes = frames.max(1) * FRAME_BYTES_MAX;
        Self { words: vec![0; bytes.div_ceil(8)].into_boxed_slice(), start: 0, end: 0, offset: 0 }
    }

    /// Where to read to; empty only when a whole frame waits to be taken.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.words.len() * 8 - self.end < FRAME_BYTES_MAX {
            // Frames begin at multiples of 8, and stay so at the front.
            self.words.as_mut_bytes().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.words.as_mut_bytes()[self.end..]
    }

    /// `count` bytes were written to the front of [`FrameBuffer::space`].
    ///
    /// # Panics
    /// When that is more than there was space.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.words.len() * 8 - self.end, "more bytes than space");
        self.end += count;
    }

    /// Copies as much of `bytes` as there is space for; returns how much.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// The next whole frame: its place in the stream, head and body.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no frame. They stay, so asking again gives the same error.
    #[allow(clippy::type_complexity)]
    pub fn next_frame(&mut self) -> Result<Option<(u64, FrameHead, &[u8])>, FrameError> {
        let bytes = &self.words.as_bytes()[self.start..self.end];
        let Some(head) = FrameHead::read(bytes, self.offset)? else { return Ok(None) };
        if bytes.len() < head.frame_bytes() {
            return Ok(None);
        }
        let (offset, start) = (self.offset, self.start);
        self.start += head.frame_bytes();
        self.offset += head.frame_bytes() as u64;
        let body = &self.words.as_bytes()[start + HEAD_BYTES..self.start];
        Ok(Some((offset, head, body)))
    }

    /// As [`FrameBuffer::next_frame`], but the frame stays.
    ///
    /// # Errors
    /// As [`FrameBuffer::next_frame`].
    #[allow(clippy::type_complexity)]
    pub fn peek_frame(&self) -> Result<Option<(u64, FrameHead, &[u8])>, FrameError> {
        let bytes = &self.words.as_bytes()[self.start..self.end];
        let Some(head) = FrameHead::read(bytes, self.offset)? else { return Ok(None) };
        Ok(bytes.get(HEAD_BYTES..head.frame_bytes()).map(|body| (self.offset, head, body)))
    }

    /// Whether [`FrameBuffer::next_frame`] has something to say: a frame or an error.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        let bytes = &self.words.as_bytes()[self.start..self.end];
        match FrameHead::read(bytes, self.offset) {
            Ok(Some(head)) => bytes.len() >= head.frame_bytes(),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Moves what is left behind the last whole frame into `other`, which goes on receiving, so that this buffer can travel to
    /// whoever reads its frames. `other` is emptied first.
    pub fn split_rest(&mut self, other: &mut Self) {
        let bytes = &self.words.as_bytes()[self.start..self.end];
        let mut whole = 0;
        while let Ok(Some(head)) = FrameHead::read(&bytes[whole..], self.offset + whole as u64)
            && bytes.len() - whole >= head.frame_bytes()
        {
            whole += head.frame_bytes();
        }
        if FrameHead::read(&bytes[whole..], self.offset + whole as u64).is_err() {
            // The error travels with the frames before it, and nothing behind it counts.
            whole = bytes.len();
        }
        (other.start, other.end, other.offset) = (0, 0, self.offset + whole as u64);
        let taken = other.push(&bytes[whole..]);
        assert_eq!(taken, bytes.len() - whole, "buffers are of one size");
        self.end = self.start + whole;
    }

    /// The stream ended: were its last bytes a whole frame?
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when they were not, or what is wrong with them.
    pub fn finish(&self) -> Result<(), FrameError> {
        let bytes = &self.words.as_bytes()[self.start..self.end];
        if bytes.is_empty() {
            return Ok(());
        }
        let needed = FrameHead::read(bytes, self.offset)?.map_or(HEAD_BYTES, |head| head.frame_bytes());
        Err(FrameError::Truncated { offset: self.offset, needed: needed as u64, have: bytes.len() as u64 })
    }

    /// Empties it for another stream.
    pub fn reset(&mut self) {
        (self.start, self.end, self.offset) = (0, 0, 0);
    }
}
