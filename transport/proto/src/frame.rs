//! Frames with their meaning: bodies read in place, and written.

use crate::close::CloseCode;
use crate::groups::{GROUPS_MAX, GroupMap, LEADERS_MAX};
use crate::packed::{self, Packed, SCALE_MAX};
use crate::wire::{
    BODY_BYTES_MAX, FLAG_PAST, FRAME_EVENTS_MAX, FrameError, FrameHead, FrameType, HEAD_BYTES, MAGIC,
    NAME_BYTES_MAX, PROOF_BYTES, PROTOCOL_CREDENTIAL, PROTOCOL_GROUPS, REASON_BYTES_MAX, SEQUENCE_MAX,
    TOKEN_BYTES_MAX, VERSION,
};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::{Event, Output, SLOT_COUNT, kind};
use zerocopy::{FromBytes, IntoBytes};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plane {
    /// Events in.
    Feed = 1,
    /// Results out.
    Subscribe = 2,
}

/// What an acknowledgement promises. Each ack names the mode it was given under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum AckMode {
    /// Nothing: no acks are sent, only credit.
    None = 0,
    /// In the leader's log, in memory: survives the feed's connection, not the server's process.
    #[default]
    Leader = 1,
    /// In the memory of enough replicas. Offered by a node of a cluster.
    Committed = 2,
    /// On disk: survives the process and the power. Offered by a server with a journal.
    Durable = 3,
}

impl AckMode {
    fn of(byte: u8) -> Option<Self> {
        [Self::None, Self::Leader, Self::Committed, Self::Durable]
            .into_iter()
            .find(|&mode| mode as u8 == byte)
    }
}

impl std::fmt::Display for AckMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Leader => "leader",
            Self::Committed => "committed",
            Self::Durable => "durable",
        })
    }
}

/// Who a client is, as it can show. What it means is for others to say: to this crate it is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Shows that whoever sends the token also holds its key, on this very connection.
    pub proof: &'a [u8; PROOF_BYTES],
    /// The token: 1 to [`TOKEN_BYTES_MAX`] bytes.
    pub token: &'a [u8],
}

/// The client's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Lowest protocol version it speaks.
    pub version_min: u8,
    /// Highest protocol version it speaks.
    pub version_max: u8,
    /// What it came for.
    pub plane: Plane,
    /// The group this session is of, where there are several. `None`: a subscriber wants all, a feed does not know of any. Only where
    /// `version_max` is at least [`PROTOCOL_GROUPS`].
    pub group: Option<u16>,
    /// Feed: the promise it asks for.
    pub ack_mode: AckMode,
    /// Feed: who it is, for good. Two connections with one id are one source. 0 for subscribers.
    pub source_id: u64,
    /// Feed: which numbering of its events this is; a feed that restarts its count takes a new one. 0 for subscribers.
    pub session: u64,
    /// A name for people, at most 255 bytes.
    pub name: &'a str,
    /// Who it is; only where `version_max` is at least [`PROTOCOL_CREDENTIAL`].
    pub credential: Option<Credential<'a>>,
}

/// The server's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloAck<'a> {
    /// The version both speak.
    pub version: u8,
    /// Feed: the promise it gets.
    pub ack_mode: AckMode,
    /// Server's start: another number means that what an earlier one held in memory is gone.
    pub incarnation: u64,
    /// Feed: the last sequence the server has of this session, 0 for none.
    pub last: u64,
    /// Feed: it may send up to and including this sequence.
    pub credit: u64,
    /// Feed: names of this session the server has.
    pub names: u32,
    /// Feed: names it may define before further ones share one counted overflow name.
    pub names_max: u32,
    /// Either side sends something at least this often, in milliseconds.
    pub heartbeat_ms: u32,
    /// Subscriber: how many [`FrameType::Stream`] frames follow.
    pub streams: u32,
    /// The server's name, at most 255 bytes.
    pub server: &'a str,
}

/// The groups of a cluster: which slots each has and who leads it. [`GroupMap`] is its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups<'a> {
    /// Counts changes of the cluster's metadata.
    pub revision: u64,
    runs: &'a [u8],
    leads: &'a [u8],
    places: &'a [u8],
}

/// A leader's number that says that nobody leads.
const LEADER_NONE: u16 = u16::MAX;

impl<'a> Groups<'a> {
    fn read(body: &mut Body<'a>) -> Result<Self, FrameError> {
        let revision = body.word("revision")?;
        let runs: u16 = body.word("runs")?;
        body.bounded(runs, "runs", 1, SLOT_COUNT as u64)?;
        let groups: u16 = body.word("groups")?;
        body.bounded(groups, "groups", 1, GROUPS_MAX as u64)?;
        let places: u16 = body.word("places")?;
        body.bounded(places, "places", 0, LEADERS_MAX as u64)?;
        body.zero(2)?;
        let start = body.at;
        for _ in 0..runs {
            let first: u16 = body.word("first slot")?;
            body.bounded(first, "first slot", 0, SLOT_COUNT as u64 - 1)?;
            let group: u16 = body.word("group")?;
            body.bounded(group, "group", 0, u64::from(groups) - 1)?;
        }
        let runs = &body.bytes[start..body.at];
        let start = body.at;
        for _ in 0..groups {
            body.word::<u16>("leader")?;
            let held = body.byte("held")?;
            body.bounded(held, "held", 0, 1)?;
            body.zero(1)?;
            body.word::<u32>("epoch")?;
        }
        let leads = &body.bytes[start..body.at];
        let places = body.take("places", usize::from(places) * PLACE_BYTES)?;
        Ok(Self { revision, runs, leads, places })
    }

    /// Where runs of slots of one group begin, and of which.
    pub fn runs(&self) -> impl Iterator<Item = (u16, u16)> + use<'a> {
        self.runs
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&[a, b, c, d]| (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
    }

    /// Of each group who leads it, whether this server holds it, and the epoch.
    pub fn leads(&self) -> impl Iterator<Item = (Option<u16>, bool, u32)> + use<'a> {
        self.leads.as_chunks::<8>().0.iter().map(|&[a, b, held, _, c, d, e, f]| {
            let node = Some(u16::from_le_bytes([a, b])).filter(|node| *node != LEADER_NONE);
            (node, held != 0, u32::from_le_bytes([c, d, e, f]))
        })
    }

    /// Leaders and where they are.
    pub fn places(&self) -> impl Iterator<Item = (u16, SocketAddr)> + use<'a> {
        self.places.as_chunks::<PLACE_BYTES>().0.iter().map(|place| {
            let (head, ip) = place.split_at(4);
            let mut octets = [0; 16];
            octets.copy_from_slice(ip);
            let ip = Ipv6Addr::from(octets).to_canonical();
            (u16::from_le_bytes([head[0], head[1]]), (ip, u16::from_le_bytes([head[2], head[3]])).into())
        })
    }
}

/// Bytes of a leader's number, port and address.
const PLACE_BYTES: usize = 20;

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The promise.
    pub mode: AckMode,
    /// It holds for everything up to and including this sequence of the feed.
    pub sequence: u64,
    /// Where the last of it is in the server's log of this source, in events.
    pub position: u64,
}

/// What is said about a slot that changes its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotWord {
    /// Server of the group that has it: the feed sends what it has numbered, has all of it acknowledged, and then says that it stopped.
    Leaving = 1,
    /// Feed: it has stopped behind `sequence` of this session.
    Stopped = 2,
    /// Server of the group that has it: it does not leave after all.
    Stays = 3,
    /// Server of either group: this move is the last one that parted this numbering. The slot has left the one group, or has come to the other.
    Moved = 4,
}

/// A slot changes its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFrame {
    /// What is said of it.
    pub word: SlotWord,
    /// The slot.
    pub slot: u16,
    /// The group that it goes to.
    pub to: u16,
    /// Which move this is: 1 or more, counted for the life of the cluster.
    pub number: u64,
    /// [`SlotWord::Stopped`]: the last sequence of the session; else 0.
    pub sequence: u64,
}

/// How to count what a subscriber does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LossCause {
    /// It was behind by more than its lag budget; the oldest were dropped.
    Dropped = 1,
    /// It was behind by more than its lag budget; older values of a key gave way to newer ones.
    Conflated = 2,
    /// It asked for numbers that are no longer kept.
    Expired = 3,
}

/// Records a subscriber does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Of which stream.
    pub stream: u16,
    /// Why.
    pub cause: LossCause,
    /// Whether `count` is exact; else no more than that. Only what expired before a subscription with a key filter came is not.
    pub exact: bool,
    /// How many.
    pub count: u64,
}

/// A name, numbered by its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Define<'a> {
    /// The key of the first name.
    pub first: u32,
    /// Names, in the order of their keys.
    pub names: Texts<'a>,
}

/// Texts one behind the other, each behind its length in a byte, up to zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texts<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Texts<'a> {
    /// Checks every text, so that going through them cannot fail.
    fn read(body: &mut Body<'a>, count: u32, field: &'static str, least: usize) -> Result<Self, FrameError> {
        let start = body.at;
        for _ in 0..count {
            body.text(field, least)?;
        }
        Ok(Self { bytes: &body.bytes[start..body.at], count })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut bytes = self.bytes;
        std::iter::from_fn(move || {
            let (&length, rest) = bytes.split_first()?;
            let (text, rest) = rest.split_at_checked(usize::from(length))?;
            bytes = rest;
            std::str::from_utf8(text).ok()
        })
    }
}

/// Names behind hashes, for records that carry hashes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    bytes: &'a [u8],
}

impl<'a> Names<'a> {
    /// Hash (xxh3 of the name) and name, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &'a str)> + use<'a> {
        let mut bytes = self.bytes;
        std::iter::from_fn(move || {
            let (hash, rest) = u64::read_from_prefix(bytes).ok()?;
            let (&length, rest) = rest.split_first()?;
            let (text, rest) = rest.split_at_checked(usize::from(length))?;
            bytes = rest;
            Some((hash, std::str::from_utf8(text).ok()?))
        })
    }
}

/// A run of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    /// Whether they are from before the subscription's edge.
    pub past: bool,
    /// Records the subscriber's own conflation merged away since the last frame.
    pub conflated: u64,
    /// How many there are.
    pub count: u32,
    bytes: &'a [u8],
}

/// Bytes of a record's head; behind it come its words.
pub const RECORD_HEAD_BYTES: usize = 32;

impl Records<'_> {
    /// One after the other. `key` of each is 0: the wire knows names, not places in somebody's memory.
    pub fn iter(&self) -> impl Iterator<Item = Output> + '_ {
        let mut bytes = self.bytes;
        std::iter::from_fn(move || {
            let words = usize::from(*bytes.get(RECORD_HEAD_BYTES - 1)?);
            let (record, rest) = bytes.split_at_checked(RECORD_HEAD_BYTES + 8 * words)?;
            bytes = rest;
            let mut output = Output::default();
            output.as_mut_bytes().get_mut(..record.len())?.copy_from_slice(record);
            Some(output)
        })
    }
}

/// Numbers per slot: the next record of each slot named has at least this number; slots not named begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    /// Of which stream.
    pub stream: u16,
    bytes: &'a [u8],
}

impl Edge<'_> {
    /// Slot and next number, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.bytes.as_chunks::<16>().0.iter().map(|entry| {
            let (slot, next) = entry.split_at(8);
            (
                u16::from_le_bytes([slot[0], slot[1]]),
                u64::from_le_bytes([next[0], next[1], next[2], next[3], next[4], next[5], next[6], next[7]]),
            )
        })
    }
}

/// What a stream's records are. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Bars ([`tidegate_engine::BarWords`]).
    Bars = 1,
    /// Rows of floats, named by columns.
    Values = 2,
    /// Rows of integers, named by columns.
    Integers = 3,
    /// A host's window, named by columns.
    Hosts = 4,
    /// Bars by trades, volume or value: a reader knows one by its key and first trade.
    MeasureBars = 5,
}

/// One stream a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFrame<'a> {
    /// Its number in records.
    pub id: u16,
    /// What its records are.
    pub kind: StreamKind,
    /// Its name and then its columns.
    pub texts: Texts<'a>,
}

/// Where a subscription begins. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StartKind {
    /// With the next record.
    Latest = 1,
    /// With each key's newest record.
    Snapshot = 2,
    /// With given numbers.
    Sequence = 3,
    /// With each key's last few records.
    Lookback = 4,
}

/// What a subscriber asks for, as it lies in the frame; [`crate::subscription::Subscription`] is its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFrame<'a> {
    /// Where it begins.
    pub start: StartKind,
    /// 0 every record, 1 the newest per key, 2 the newest per key every so often.
    pub conflation: u8,
    /// 0 conflate, 1 drop the oldest, 2 disconnect.
    pub policy: u8,
    /// Whether it wants all keys; `keys` and `prefixes` are empty then.
    pub all_keys: bool,
    /// Lookback: records per key.
    pub lookback: u32,
    /// Conflation 2: milliseconds between deliveries.
    pub every_ms: u32,
    /// Records of a stream it may be behind before the policy acts; 0 for the server's own limit.
    pub lag_budget: u64,
    /// Sequence: the first number wanted of slots that no EDGE frame named.
    pub sequence: u64,
    /// Names of streams.
    pub streams: Texts<'a>,
    /// Names of keys.
    pub keys: Texts<'a>,
    /// Beginnings of names of keys.
    pub prefixes: Texts<'a>,
}

/// A frame, read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame<'a> {
    /// See [`Hello`].
    Hello(Hello<'a>),
    /// See [`HelloAck`].
    HelloAck(HelloAck<'a>),
    /// See [`Groups`].
    Groups(Groups<'a>),
    /// See [`Define`].
    Define(Define<'a>),
    /// A run of events.
    Events {
        /// Sequence of the first; the others follow one by one.
        sequence: u64,
        /// Names the feed has defined before them.
        names: u32,
        /// The events, in place.
        events: &'a [Event],
    },
    /// See [`Packed`].
    Packed(Packed<'a>),
    /// See [`SlotFrame`].
    Slot(SlotFrame),
    /// See [`Ack`].
    Ack(Ack),
    /// The feed may send up to and including `limit`.
    Credit {
        /// Sequence.
        limit: u64,
    },
    /// What do you have of mine?
    Resume {
        /// Comes back in nothing; for whoever reads a recording of the wire.
        nonce: u64,
    },
    /// This is what I have of yours.
    Position {
        /// The last sequence, 0 for none.
        last: u64,
        /// Names.
        names: u32,
    },
    /// The feed lost these and will never send them.
    Gap {
        /// Sequence of the first.
        first: u64,
        /// Sequence of the last.
        last: u64,
    },
    /// See [`SubscribeFrame`].
    Subscribe(SubscribeFrame<'a>),
    /// The subscription stands.
    Subscribed {
        /// Records it may be behind, as granted.
        lag_budget: u64,
        /// Streams it has.
        streams: u32,
    },
    /// See [`Names`].
    Names(Names<'a>),
    /// See [`Records`].
    Records(Records<'a>),
    /// See [`Loss`].
    Loss(Loss),
    /// See [`Edge`].
    Edge(Edge<'a>),
    /// See [`StreamFrame`].
    Stream(StreamFrame<'a>),
    /// Still here.
    Heartbeat {
        /// The sender's own number.
        nonce: u64,
        /// The last nonce it received.
        echo: u64,
    },
    /// The end.
    Close {
        /// Why, for machines.
        code: CloseCode,
        /// Why, for people.
        reason: &'a str,
    },
}

/// A body, read field by field. Knows where in the stream it is, for errors.
struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
    offset: u64,
}

impl<'a> Body<'a> {
    fn offset(&self) -> u64 {
        self.offset + self.at as u64
    }

    fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], FrameError> {
        let left = self.bytes.len() - self.at;
        if count > left {
            let (needed, left) = (count as u64, left as u64);
            return Err(FrameError::Cut { offset: self.offset(), field, needed, left });
        }
        self.at += count;
        Ok(&self.bytes[self.at - count..self.at])
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, FrameError> {
        Ok(self.take(field, 1)?[0])
    }

    fn word<T: FromBytes>(&mut self, field: &'static str) -> Result<T, FrameError> {
        let (offset, left) = (self.offset(), (self.bytes.len() - self.at) as u64);
        let bytes = self.take(field, size_of::<T>())?;
        T::read_from_bytes(bytes).map_err(|_| FrameError::Cut {
            offset,
            field,
            needed: size_of::<T>() as u64,
            left,
        })
    }

    fn sequence(&mut self, field: &'static str, min: u64) -> Result<u64, FrameError> {
        let sequence = self.word(field)?;
        self.bounded(sequence, field, min, SEQUENCE_MAX)
    }

    fn zero(&mut self, count: usize) -> Result<(), FrameError> {
        let offset = self.offset();
        let bytes = self.take("reserved", count)?;
        match bytes.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(at) => Err(FrameError::Field {
                offset: offset + at as u64,
                field: "reserved",
                found: u64::from(bytes[at]),
                min: 0,
                max: 0,
            }),
        }
    }

    fn bounded<T: Copy + Into<u64>>(
        &self,
        value: T,
        field: &'static str,
        min: u64,
        max: u64,
    ) -> Result<T, FrameError> {
        let found = value.into();
        if (min..=max).contains(&found) {
            return Ok(value);
        }
        let offset = self.offset() - size_of::<T>() as u64;
        Err(FrameError::Field { offset, field, found, min, max })
    }

    fn text(&mut self, field: &'static str, least: usize) -> Result<&'a str, FrameError> {
        let length = self.byte(field)?;
        self.bounded(length, field, least as u64, 255)?;
        let offset = self.offset();
        let bytes = self.take(field, usize::from(length))?;
        std::str::from_utf8(bytes).map_err(|error| FrameError::Text {
            offset,
            field,
            valid: error.valid_up_to() as u64,
        })
    }

    fn credential(&mut self, length: usize) -> Result<Option<Credential<'a>>, FrameError> {
        if length == 0 {
            return Ok(None);
        }
        let (offset, bytes) = (self.offset(), self.take("credential", length)?);
        match bytes.split_first_chunk() {
            Some((proof, token)) if !token.is_empty() => Ok(Some(Credential { proof, token })),
            _ => {
                let (field, needed) = ("token", PROOF_BYTES as u64 + 1);
                Err(FrameError::Cut { offset, field, needed, left: length as u64 })
            }
        }
    }

    /// What is left is padding: fewer than 8 zeros.
    fn end(mut self) -> Result<(), FrameError> {
        let left = self.bytes.len() - self.at;
        if left >= 8 {
            let (offset, found) = (self.offset(), left as u64);
            return Err(FrameError::Field { offset, field: "padding", found, min: 0, max: 7 });
        }
        self.zero(left)
    }
}

impl<'a> Frame<'a> {
    /// Reads a body. `offset` is where the frame's head begins in its stream; the body must be aligned to 8 bytes, as
    /// [`crate::FrameBuffer`] keeps it.
    ///
    /// # Errors
    /// [`FrameError`] for the first thing that cannot be.
    pub fn read(offset: u64, head: &FrameHead, bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut body = Body { bytes, at: 0, offset: offset + HEAD_BYTES as u64 };
        let frame = match head.kind {
            FrameType::Hello => {
                let (version_min, version_max) = (body.byte("version_min")?, body.byte("version_max")?);
                body.bounded(version_max, "version_max", u64::from(version_min), 255)?;
                let plane = body.byte("plane")?;
                let plane =
                    if body.bounded(plane, "plane", 1, 2)? == 1 { Plane::Feed } else { Plane::Subscribe };
                let ack_mode = Self::ack_mode(&mut body)?;
                // Before that version these bytes are zero.
                let most = if version_max < PROTOCOL_GROUPS { 0 } else { GROUPS_MAX };
                let group: u16 = body.word("group")?;
                let group = body.bounded(group, "group", 0, most as u64)?.checked_sub(1);
                body.zero(2)?;
                let (source_id, session) = (body.word("source_id")?, body.word("session")?);
                let length: u16 = body.word("credential")?;
                // Before that version these bytes are zero.
                let most = if version_max < PROTOCOL_CREDENTIAL { 0 } else { PROOF_BYTES + TOKEN_BYTES_MAX };
                body.bounded(length, "credential", 0, most as u64)?;
                body.zero(6)?;
                let name = body.text("name", 0)?;
                let credential = body.credential(length.into())?;
                Self::Hello(Hello {
                    version_min,
                    version_max,
                    plane,
                    group,
                    ack_mode,
                    source_id,
                    session,
                    name,
                    credential,
                })
            }
            FrameType::HelloAck => {
                let (version, ack_mode) = (body.byte("version")?, Self::ack_mode(&mut body)?);
                body.zero(2)?;
                let heartbeat_ms = body.word("heartbeat_ms")?;
                body.bounded::<u32>(heartbeat_ms, "heartbeat_ms", 10, 3_600_000)?;
                Self::HelloAck(HelloAck {
                    version,
                    ack_mode,
                    heartbeat_ms,
                    incarnation: body.word("incarnation")?,
                    last: body.sequence("last", 0)?,
                    credit: body.sequence("credit", 0)?,
                    names: body.word("names")?,
                    names_max: body.word("names_max")?,
                    streams: body.word("streams")?,
                    server: body.text("server", 0)?,
                })
            }
            FrameType::Groups => Self::Groups(Groups::read(&mut body)?),
            FrameType::Define => {
                let (first, count) = (body.word("first")?, body.word::<u32>("count")?);
                body.zero(8)?;
                // A name takes two bytes at least, so a count above this is a lie found before it is used.
                let most = u64::min((BODY_BYTES_MAX / 2) as u64, u64::from(u32::MAX - first));
                body.bounded_at(count, "count", 1, most, 12)?;
                Self::Define(Define { first, names: Texts::read(&mut body, count, "name", 1)? })
            }
            FrameType::Events => {
                let sequence = body.sequence("sequence", 1)?;
                let events = (bytes.len() - 16) / size_of::<Event>();
                let names = body.word("names")?;
                body.zero(4)?;
                let run = body.take("events", events * size_of::<Event>())?;
                // Only a caller that does not keep the alignment can fail here.
                let events = <[Event]>::ref_from_bytes(run).map_err(|_| FrameError::Step {
                    offset,
                    found: bytes.len() as u32,
                    step: 8,
                })?;
                Self::Events { sequence, names, events }
            }
            FrameType::Packed => {
                let (sequence, names) = (body.sequence("sequence", 1)?, body.word("names")?);
                let count: u16 = body.word("count")?;
                body.bounded(count, "count", 1, FRAME_EVENTS_MAX as u64)?;
                let kind = body.byte("kind")?;
                body.bounded(kind, "kind", 1, u64::from(kind::CONTROL) - 1)?;
                body.zero(1)?;
                let base = body.word("base")?;
                let mut scales = [0; 3];
                for scale in &mut scales {
                    *scale = body.byte("scale")?;
                    body.bounded(*scale, "scale", 0, u64::from(SCALE_MAX))?;
                }
                body.zero(5)?;
                let (offset, at) = (body.offset(), body.at);
                // Whether the padding is in order shows behind the last event.
                return Ok(Self::Packed(Packed {
                    sequence,
                    names,
                    count,
                    kind,
                    base,
                    scales,
                    bytes: &bytes[at..],
                    offset,
                }));
            }
            FrameType::Ack => {
                let mode = Self::ack_mode(&mut body)?;
                body.zero(7)?;
                Self::Ack(Ack {
                    mode,
                    sequence: body.sequence("sequence", 0)?,
                    position: body.word("position")?,
                })
            }
            FrameType::Credit => Self::Credit { limit: body.sequence("limit", 0)? },
            FrameType::Resume => Self::Resume { nonce: body.word("nonce")? },
            FrameType::Position => {
                let (last, names) = (body.sequence("last", 0)?, body.word("names")?);
                body.zero(4)?;
                Self::Position { last, names }
            }
            FrameType::Gap => {
                let first = body.sequence("first", 1)?;
                let last = body.sequence("last", first)?;
                Self::Gap { first, last }
            }
            FrameType::Slot => {
                let word = body.byte("word")?;
                let word = body.bounded(word, "word", 1, 4)?;
                let word = [SlotWord::Leaving, SlotWord::Stopped, SlotWord::Stays, SlotWord::Moved]
                    [usize::from(word - 1) % 4];
                body.zero(1)?;
                let slot: u16 = body.word("slot")?;
                body.bounded(slot, "slot", 0, SLOT_COUNT as u64 - 1)?;
                let to: u16 = body.word("group")?;
                body.bounded(to, "group", 0, GROUPS_MAX as u64 - 1)?;
                body.zero(2)?;
                let number = body.sequence("number", 1)?;
                let most = if word == SlotWord::Stopped { SEQUENCE_MAX } else { 0 };
                let sequence: u64 = body.word("sequence")?;
                body.bounded(sequence, "sequence", 0, most)?;
                Self::Slot(SlotFrame { word, slot, to, number, sequence })
            }
            FrameType::Subscribe => Self::Subscribe(SubscribeFrame::read(&mut body)?),
            FrameType::Subscribed => {
                let (lag_budget, streams) = (body.word("lag_budget")?, body.word("streams")?);
                body.zero(4)?;
                Self::Subscribed { lag_budget, streams }
            }
            FrameType::Names => {
                let count = body.word::<u32>("count")?;
                body.zero(4)?;
                body.bounded_at(count, "count", 1, (BODY_BYTES_MAX / 10) as u64, 8)?;
                let start = body.at;
                for _ in 0..count {
                    body.word::<u64>("hash")?;
                    body.text("name", 1)?;
                }
                Self::Names(Names { bytes: &bytes[start..body.at] })
            }
            FrameType::Records => {
                let count = body.word::<u32>("count")?;
                body.bounded(count, "count", 0, (BODY_BYTES_MAX / RECORD_HEAD_BYTES) as u64)?;
                body.zero(4)?;
                let conflated = body.word("conflated")?;
                let start = body.at;
                for _ in 0..count {
                    let record = body.take("record", RECORD_HEAD_BYTES)?;
                    let words = record[RECORD_HEAD_BYTES - 1];
                    body.bounded(words, "words", 0, OUTPUT_WORDS as u64)?;
                    body.take("words", 8 * usize::from(words))?;
                }
                let past = head.flags & FLAG_PAST != 0;
                Self::Records(Records { past, conflated, count, bytes: &bytes[start..body.at] })
            }
            FrameType::Loss => {
                let stream = body.word("stream")?;
                let cause = body.byte("cause")?;
                body.bounded(cause, "cause", 1, 3)?;
                let cause = [LossCause::Dropped, LossCause::Conflated, LossCause::Expired]
                    [usize::from(cause - 1) % 3];
                let exact = body.byte("exact")?;
                body.bounded(exact, "exact", 0, 1)?;
                body.zero(4)?;
                Self::Loss(Loss { stream, cause, exact: exact == 1, count: body.word("count")? })
            }
            FrameType::Edge => {
                let stream = body.word("stream")?;
                body.zero(2)?;
                let count = body.word::<u32>("count")?;
                body.bounded(count, "count", 0, SLOT_COUNT as u64)?;
                body.zero(8)?;
                let start = body.at;
                for _ in 0..count {
                    let slot = body.word::<u16>("slot")?;
                    body.bounded(slot, "slot", 0, SLOT_COUNT as u64 - 1)?;
                    body.zero(6)?;
                    let next = body.word::<u64>("next")?;
                    body.bounded(next, "next", 1, u64::MAX)?;
                }
                Self::Edge(Edge { stream, bytes: &bytes[start..body.at] })
            }
            FrameType::Stream => {
                let id = body.word("id")?;
                let kind = body.byte("kind")?;
                body.bounded(kind, "kind", 1, 5)?;
                let kind = [
                    StreamKind::Bars,
                    StreamKind::Values,
                    StreamKind::Integers,
                    StreamKind::Hosts,
                    StreamKind::MeasureBars,
                ][usize::from(kind - 1) % 5];
                let texts = body.byte("texts")?;
                body.bounded(texts, "texts", 1, 1 + OUTPUT_WORDS as u64)?;
                body.zero(4)?;
                Self::Stream(StreamFrame {
                    id,
                    kind,
                    texts: Texts::read(&mut body, u32::from(texts), "text", 1)?,
                })
            }
            FrameType::Heartbeat => Self::Heartbeat { nonce: body.word("nonce")?, echo: body.word("echo")? },
            FrameType::Close => {
                let code = CloseCode(body.word("code")?);
                body.zero(2)?;
                Self::Close { code, reason: body.text("reason", 0)? }
            }
        };
        body.end()?;
        Ok(frame)
    }

    /// The frame itself, or, of packed events, the same frame with its events as they were, which lie in `into`.
    ///
    /// # Errors
    /// As [`Packed::unpack`].
    pub fn unpacked<'b>(&self, into: &'b mut Vec<Event>) -> Result<Frame<'b>, FrameError>
    where
        'a: 'b,
    {
        let Self::Packed(packed) = self else { return Ok(*self) };
        packed.unpack(into)?;
        Ok(Frame::Events { sequence: packed.sequence, names: packed.names, events: into })
    }

    fn ack_mode(body: &mut Body<'_>) -> Result<AckMode, FrameError> {
        let byte = body.byte("ack_mode")?;
        body.bounded(byte, "ack_mode", 0, 3)?;
        Ok(AckMode::of(byte).unwrap_or_default())
    }

    /// The frame's type.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::HelloAck(_) => FrameType::HelloAck,
            Self::Groups(_) => FrameType::Groups,
            Self::Define(_) => FrameType::Define,
            Self::Events { .. } => FrameType::Events,
            Self::Packed(_) => FrameType::Packed,
            Self::Ack(_) => FrameType::Ack,
            Self::Credit { .. } => FrameType::Credit,
            Self::Resume { .. } => FrameType::Resume,
            Self::Position { .. } => FrameType::Position,
            Self::Gap { .. } => FrameType::Gap,
            Self::Slot(_) => FrameType::Slot,
            Self::Subscribe(_) => FrameType::Subscribe,
            Self::Subscribed { .. } => FrameType::Subscribed,
            Self::Names(_) => FrameType::Names,
            Self::Records(_) => FrameType::Records,
            Self::Loss(_) => FrameType::Loss,
            Self::Edge(_) => FrameType::Edge,
            Self::Stream(_) => FrameType::Stream,
            Self::Heartbeat { .. } => FrameType::Heartbeat,
            Self::Close { .. } => FrameType::Close,
        }
    }
}

impl Body<'_> {
    /// [`Body::bounded`] for a field that ended `back` bytes ago less its own size.
    fn bounded_at(
        &self,
        value: u32,
        field: &'static str,
        min: u64,
        max: u64,
        back: u64,
    ) -> Result<(), FrameError> {
        let found = u64::from(value);
        if (min..=max).contains(&found) {
            return Ok(());
        }
        Err(FrameError::Field { offset: self.offset() - back, field, found, min, max })
    }
}

impl<'a> SubscribeFrame<'a> {
    fn read(body: &mut Body<'a>) -> Result<Self, FrameError> {
        let start = body.byte("start")?;
        body.bounded(start, "start", 1, 4)?;
        let start = [StartKind::Latest, StartKind::Snapshot, StartKind::Sequence, StartKind::Lookback]
            [usize::from(start - 1) % 4];
        let conflation = body.byte("conflation")?;
        body.bounded(conflation, "conflation", 0, 2)?;
        let policy = body.byte("policy")?;
        body.bounded(policy, "policy", 0, 2)?;
        let all_keys = body.byte("all_keys")?;
        body.bounded(all_keys, "all_keys", 0, 1)?;
        let lookback = body.word("lookback")?;
        let every_ms = body.word("every_ms")?;
        let counts: [u16; 3] = [body.word("streams")?, body.word("keys")?, body.word("prefixes")?];
        body.zero(6)?;
        let (lag_budget, sequence) = (body.word("lag_budget")?, body.word("sequence")?);
        Ok(Self {
            start,
            conflation,
            policy,
            all_keys: all_keys == 1,
            lookback,
            every_ms,
            lag_budget,
            sequence,
            streams: Texts::read(body, u32::from(counts[0]), "stream", 1)?,
            keys: Texts::read(body, u32::from(counts[1]), "key", 1)?,
            prefixes: Texts::read(body, u32::from(counts[2]), "prefix", 1)?,
        })
    }
}

/// Appends frames to a buffer. What is handed in is ours, so its bounds are asserted, not reported.
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
}

/// Cuts a text to `max` bytes at a character's border.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl<'a> FrameWriter<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A frame around what `fill` writes, padded and with its length put right.
    fn frame(&mut self, kind: FrameType, flags: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend_from_slice(&MAGIC.to_le_bytes());
        self.out.extend_from_slice(&[VERSION, kind as u8]);
        self.out.extend_from_slice(&flags.to_le_bytes());
        self.out.extend_from_slice(&[0; 8]);
        fill(self.out);
        // Frames are multiples of 8 from their own start, wherever in the buffer that is.
        let (min, max) = kind.body_bytes();
        let body = (self.out.len() - start - HEAD_BYTES).max(min).next_multiple_of(8);
        assert!(body <= max, "a {kind:?} body of {body} bytes, at most {max} fit");
        self.out.resize(start + HEAD_BYTES + body, 0);
        self.out[start + 8..start + 12].copy_from_slice(&(body as u32).to_le_bytes());
    }

    /// See [`Hello`]. Names beyond 255 bytes are cut.
    ///
    /// # Panics
    /// For a token that is empty or longer than [`TOKEN_BYTES_MAX`], and for a group that there cannot be or that the version does not
    /// know of.
    pub fn hello(&mut self, hello: &Hello<'_>) {
        self.frame(FrameType::Hello, 0, |out| {
            let Hello { version_min, version_max, plane, ack_mode, group, .. } = *hello;
            let most = if version_max < PROTOCOL_GROUPS { 0 } else { GROUPS_MAX };
            let group = group.map_or(0, |group| usize::from(group) + 1);
            assert!(group <= most, "no session of version {version_max} is of group {group} less one");
            out.extend_from_slice(&[version_min, version_max, plane as u8, ack_mode as u8]);
            out.extend_from_slice(&(group as u16).to_le_bytes());
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&hello.source_id.to_le_bytes());
            out.extend_from_slice(&hello.session.to_le_bytes());
            let (proof, token) =
                hello.credential.map_or((&[][..], &[][..]), |shown| (&shown.proof[..], shown.token));
            let fits = hello.credential.is_none() || (1..=TOKEN_BYTES_MAX).contains(&token.len());
            assert!(fits, "a token of {} bytes, 1 to {TOKEN_BYTES_MAX} fit", token.len());
            out.extend_from_slice(&((proof.len() + token.len()) as u16).to_le_bytes());
            out.extend_from_slice(&[0; 6]);
            text(out, hello.name);
            out.extend_from_slice(proof);
            out.extend_from_slice(token);
        });
    }

    /// See [`HelloAck`]. Names beyond 255 bytes are cut.
    pub fn hello_ack(&mut self, ack: &HelloAck<'_>) {
        self.frame(FrameType::HelloAck, 0, |out| {
            out.extend_from_slice(&[ack.version, ack.ack_mode as u8, 0, 0]);
            out.extend_from_slice(&ack.heartbeat_ms.to_le_bytes());
            for word in [ack.incarnation, ack.last, ack.credit] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            for word in [ack.names, ack.names_max, ack.streams] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            text(out, ack.server);
        });
    }

    /// The groups of a cluster.
    pub fn groups(&mut self, map: &GroupMap) {
        self.frame(FrameType::Groups, 0, |out| {
            out.extend_from_slice(&map.revision().to_le_bytes());
            for count in [map.runs().len(), map.len(), map.places().len(), 0] {
                out.extend_from_slice(&(count as u16).to_le_bytes());
            }
            for (first, group) in map.runs() {
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&group.to_le_bytes());
            }
            for lead in map.leads() {
                out.extend_from_slice(&lead.node.unwrap_or(LEADER_NONE).to_le_bytes());
                out.extend_from_slice(&[u8::from(lead.held), 0]);
                out.extend_from_slice(&lead.epoch.to_le_bytes());
            }
            for (node, address) in map.places() {
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.extend_from_slice(&node.to_le_bytes());
                out.extend_from_slice(&address.port().to_le_bytes());
                out.extend_from_slice(&ip.octets());
            }
        });
    }

    /// Names from key `first` on, as many as fit; returns how many were taken.
    ///
    /// # Panics
    /// When a name is empty or longer than [`NAME_BYTES_MAX`].
    pub fn define<'n>(&mut self, first: u32, names: impl Iterator<Item = &'n str>) -> u32 {
        let mut body = Vec::with_capacity(1_024);
        let mut count = 0u32;
        for name in names {
            assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "names have 1 to 255 bytes");
            if body.len() + 1 + name.len() > BODY_BYTES_MAX - 16 {
                break;
            }
            text(&mut body, name);
            count += 1;
        }
        if count > 0 {
            self.frame(FrameType::Define, 0, |out| {
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&[0; 8]);
                out.extend_from_slice(&body);
            });
        }
        count
    }

    /// A run of events in two parts, as a ring has them.
    ///
    /// # Panics
    /// For no events, more than [`FRAME_EVENTS_MAX`], or sequence 0.
    pub fn events(&mut self, sequence: u64, names: u32, runs: [&[Event]; 2]) {
        let count = runs[0].len() + runs[1].len();
        assert!((1..=FRAME_EVENTS_MAX).contains(&count), "{count} events, 1 to {FRAME_EVENTS_MAX} fit");
        assert!(sequence > 0, "sequences begin at 1");
        self.frame(FrameType::Events, 0, |out| {
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&names.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            runs.iter().for_each(|run| out.extend_from_slice(run.as_bytes()));
        });
    }

    /// As [`FrameWriter::events`], packed; returns how many from their front were taken: those before the first of another
    /// kind. 0, and nothing is written, for events that cannot be packed or are too few to be worth it.
    ///
    /// # Panics
    /// For sequence 0.
    pub fn packed(&mut self, sequence: u64, names: u32, runs: [&[Event]; 2]) -> usize {
        assert!(sequence > 0, "sequences begin at 1");
        let count = packed::packable(runs);
        if count == 0 {
            return 0;
        }
        let front = count.min(runs[0].len());
        let runs = [&runs[0][..front], &runs[1][..count - front]];
        let of_kind = runs.into_iter().flatten().next().map_or(0, |event| event.kind);
        self.frame(FrameType::Packed, 0, |out| {
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&names.to_le_bytes());
            out.extend_from_slice(&(count as u16).to_le_bytes());
            out.extend_from_slice(&[of_kind, 0]);
            let plan_at = out.len();
            out.extend_from_slice(&[0; 16]);
            let plan = packed::pack(runs, out);
            out[plan_at..plan_at + 8].copy_from_slice(&plan.base.to_le_bytes());
            out[plan_at + 8..plan_at + 11].copy_from_slice(&plan.scales);
        });
        count
    }

    /// See [`Ack`].
    pub fn ack(&mut self, ack: Ack) {
        self.frame(FrameType::Ack, 0, |out| {
            out.extend_from_slice(&[ack.mode as u8, 0, 0, 0, 0, 0, 0, 0]);
            out.extend_from_slice(&ack.sequence.to_le_bytes());
            out.extend_from_slice(&ack.position.to_le_bytes());
        });
    }

    /// The feed may send up to and including `limit`.
    pub fn credit(&mut self, limit: u64) {
        self.frame(FrameType::Credit, 0, |out| out.extend_from_slice(&limit.to_le_bytes()));
    }

    /// What do you have of mine?
    pub fn resume(&mut self, nonce: u64) {
        self.frame(FrameType::Resume, 0, |out| out.extend_from_slice(&nonce.to_le_bytes()));
    }

    /// This is what I have of yours.
    pub fn position(&mut self, last: u64, names: u32) {
        self.frame(FrameType::Position, 0, |out| {
            out.extend_from_slice(&last.to_le_bytes());
            out.extend_from_slice(&names.to_le_bytes());
        });
    }

    /// Events that the feed lost and will never send.
    pub fn gap(&mut self, first: u64, last: u64) {
        self.frame(FrameType::Gap, 0, |out| {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        });
    }

    /// See [`SlotFrame`].
    pub fn slot(&mut self, slot: SlotFrame) {
        self.frame(FrameType::Slot, 0, |out| {
            out.extend_from_slice(&[slot.word as u8, 0]);
            out.extend_from_slice(&slot.slot.to_le_bytes());
            out.extend_from_slice(&slot.to.to_le_bytes());
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&slot.number.to_le_bytes());
            out.extend_from_slice(&slot.sequence.to_le_bytes());
        });
    }

    /// What a subscriber asks for. `texts` are streams, keys and prefixes.
    ///
    /// # Panics
    /// When that does not fit into a frame; see [`crate::subscription::Subscription::check`].
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn subscribe(
        &mut self,
        codes: [u8; 4],
        lookback: u32,
        every_ms: u32,
        lag_budget: u64,
        sequence: u64,
        texts: [&[String]; 3],
    ) {
        self.frame(FrameType::Subscribe, 0, |out| {
            out.extend_from_slice(&codes);
            out.extend_from_slice(&lookback.to_le_bytes());
            out.extend_from_slice(&every_ms.to_le_bytes());
            texts.iter().for_each(|list| out.extend_from_slice(&(list.len() as u16).to_le_bytes()));
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&lag_budget.to_le_bytes());
            out.extend_from_slice(&sequence.to_le_bytes());
            texts.into_iter().flatten().for_each(|one| text(out, one));
        });
    }

    /// The subscription stands.
    pub fn subscribed(&mut self, lag_budget: u64, streams: u32) {
        self.frame(FrameType::Subscribed, 0, |out| {
            out.extend_from_slice(&lag_budget.to_le_bytes());
            out.extend_from_slice(&streams.to_le_bytes());
        });
    }

    /// Names behind hashes, as many as fit; returns how many were taken.
    pub fn names<'n>(&mut self, names: impl Iterator<Item = (u64, &'n str)>) -> u32 {
        let mut body = Vec::with_capacity(1_024);
        let mut count = 0u32;
        for (hash, name) in names {
            if body.len() + 9 + name.len() > BODY_BYTES_MAX - 8 {
                break;
            }
            body.extend_from_slice(&hash.to_le_bytes());
            text(&mut body, name);
            count += 1;
        }
        if count > 0 {
            self.frame(FrameType::Names, 0, |out| {
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&body);
            });
        }
        count
    }

    /// Records, whose bytes `fill` appends; it returns how many they are.
    pub(crate) fn records(&mut self, past: bool, conflated: u64, fill: impl FnOnce(&mut Vec<u8>) -> u32) {
        let flags = if past { FLAG_PAST } else { 0 };
        self.frame(FrameType::Records, flags, |out| {
            let start = out.len();
            out.extend_from_slice(&[0; 8]);
            out.extend_from_slice(&conflated.to_le_bytes());
            let count = fill(out);
            out[start..start + 4].copy_from_slice(&count.to_le_bytes());
        });
    }

    /// See [`Loss`].
    pub fn loss(&mut self, loss: Loss) {
        self.frame(FrameType::Loss, 0, |out| {
            out.extend_from_slice(&loss.stream.to_le_bytes());
            out.extend_from_slice(&[loss.cause as u8, u8::from(loss.exact), 0, 0, 0, 0]);
            out.extend_from_slice(&loss.count.to_le_bytes());
        });
    }

    /// See [`Edge`]. At most one entry per slot.
    pub fn edge(&mut self, stream: u16, next: impl Iterator<Item = (u16, u64)>) {
        self.frame(FrameType::Edge, 0, |out| {
            let start = out.len();
            out.extend_from_slice(&stream.to_le_bytes());
            out.extend_from_slice(&[0; 14]);
            let mut count = 0u32;
            for (slot, next) in next {
                out.extend_from_slice(&slot.to_le_bytes());
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&next.to_le_bytes());
                count += 1;
            }
            out[start + 4..start + 8].copy_from_slice(&count.to_le_bytes());
        });
    }

    /// One of a server's streams.
    pub fn stream(&mut self, id: u16, kind: StreamKind, name: &str, columns: &[String]) {
        self.frame(FrameType::Stream, 0, |out| {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&[kind as u8, 1 + columns.len() as u8, 0, 0, 0, 0]);
            text(out, name);
            columns.iter().for_each(|column| text(out, column));
        });
    }

    /// Still here.
    pub fn heartbeat(&mut self, nonce: u64, echo: u64) {
        self.frame(FrameType::Heartbeat, 0, |out| {
            out.extend_from_slice(&nonce.to_le_bytes());
            out.extend_from_slice(&echo.to_le_bytes());
        });
    }

    /// The end. A reason beyond 255 bytes is cut.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.frame(FrameType::Close, 0, |out| {
            out.extend_from_slice(&code.0.to_le_bytes());
            out.extend_from_slice(&[0; 2]);
            text(out, cut(reason, REASON_BYTES_MAX));
        });
    }
}

/// A text behind its length, cut to what a byte can count.
fn text(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, 255);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
