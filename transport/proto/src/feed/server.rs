//! The server's side of all feed sessions. One owner, any number of connections.

use super::moving::Moving;
use super::principals::Principals;
use crate::access::{ANONYMOUS, Grant, Policy, Quotas, Symbols, Verb};
use crate::close::{Close, CloseCode};
use crate::credential;
use crate::frame::{Ack, AckMode, Frame, FrameWriter, HelloAck, Plane, Texts};
use crate::groups::wrong_group;
use crate::time::{MILLISECOND_NS, MonoTime};
use crate::wire::{FRAME_EVENTS_MAX, FrameError, PROTOCOL_MAX, PROTOCOL_SLOTS};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidegate_engine::units::MODEST_FACTOR;
use tidegate_engine::{Event, EventTime, Notional, Price, Size, kind, name_hash, slot_of};

/// Bounds of the server's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedServerOptions {
    /// Sources known at once; a new one beyond is refused. At most 65,535.
    pub sources_max: usize,
    /// Names a source may define; events of further ones share one counted overflow name.
    pub names_max: u32,
    /// Events a source may have sent beyond what was taken off its connection.
    pub credit_events: u64,
    /// Silence after which a connection is closed, in nanoseconds.
    pub silence_ns: u64,
    /// How long a connection may take to say hello, in nanoseconds.
    pub hello_ns: u64,
    /// Frames that came by datagram ahead of their turn and wait for what goes before them; one more, and that counts as lost.
    pub reorder_frames: usize,
    /// How long they wait, in nanoseconds.
    pub reorder_ns: u64,
    /// How often either side says something, in milliseconds.
    pub heartbeat_ms: u32,
    /// Whether acks `durable` are given: somebody says [`FeedServer::durable`].
    pub durable: bool,
    /// Whether acks `committed` are given: somebody says [`FeedServer::committed`].
    pub committed: bool,
    /// Another number for each start of the server.
    pub incarnation: u64,
    /// What the server calls itself.
    pub server: String,
    /// The group whose feeds these are, where there are several.
    pub group: Option<FeedGroup>,
    /// Version of the protocol that is spoken at most. Lower than what this one knows only to be as a server of before, for a test.
    pub version_max: u8,
}

/// A group of slots: names of other slots are fed elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedGroup {
    /// Its number.
    pub group: u16,
    /// The group of each slot.
    pub slots: Arc<[u16]>,
}

impl FeedGroup {
    /// The group of a slot.
    #[must_use]
    pub fn of_slot(&self, slot: u16) -> u16 {
        self.slots.get(usize::from(slot)).copied().unwrap_or(0)
    }

    /// Whether a slot is of this one.
    #[must_use]
    pub fn has_slot(&self, slot: u16) -> bool {
        self.of_slot(slot) == self.group
    }

    /// Whether names with this hash are of this one.
    #[must_use]
    pub fn has(&self, hash: u64) -> bool {
        self.has_slot(slot_of(hash))
    }
}

impl Default for FeedServerOptions {
    fn default() -> Self {
        Self {
            sources_max: 1_024,
            names_max: 1_000_000,
            credit_events: 1 << 18,
            silence_ns: 10_000 * MILLISECOND_NS,
            hello_ns: 2_000 * MILLISECOND_NS,
            reorder_frames: 64,
            reorder_ns: 20 * MILLISECOND_NS,
            heartbeat_ms: 3_000,
            durable: false,
            committed: false,
            incarnation: 1,
            server: "tidegate".to_owned(),
            group: None,
            version_max: PROTOCOL_MAX,
        }
    }
}

/// One connection, for as long as the server knows it. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What became of the events a source sent. Each counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedLedger {
    /// Events received.
    pub received: u64,
    /// Taken into the log.
    pub accepted: u64,
    /// The server had them already.
    pub duplicate: u64,
    /// Came before what goes before them: the source was asked to go back, or, of datagrams, nobody waits for that any more.
    pub ahead: u64,
    /// Came by datagram ahead of their turn, and wait for it.
    pub held: u64,
    /// In a frame that broke a rule; its connection was closed.
    pub refused: u64,
    /// Not received: declared lost by the source, or missing between datagrams for longer than is waited.
    pub declared_lost: u64,
    /// Of `accepted`: those under the overflow name, because the source had used up its names.
    pub overflowed: u64,
}

impl FeedLedger {
    /// Received minus everything it became: zero, always.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        i128::from(self.received)
            - i128::from(self.accepted)
            - i128::from(self.duplicate)
            - i128::from(self.ahead)
            - i128::from(self.held)
            - i128::from(self.refused)
    }
}

/// What a source is, for tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStats {
    /// Its rank: the number in its events.
    pub rank: u16,
    /// Its name for people.
    pub name: String,
    /// Its id.
    pub source_id: u64,
    /// Its session.
    pub session: u64,
    /// The last sequence the server has.
    pub last: u64,
    /// Names it defined, those over the quota included.
    pub names: u32,
    /// Whether it is connected.
    pub connected: bool,
    /// Times it connected.
    pub connections: u64,
    /// Whose it is.
    pub principal: Arc<str>,
    /// Times it had no credit because its principal had used up its events per second.
    pub throttled: u64,
    /// Where its events went, over all its sessions.
    pub ledger: FeedLedger,
}

/// What a frame asks of the driver.
#[derive(Debug, PartialEq)]
pub enum Taken<'a> {
    /// Nothing.
    Nothing,
    /// A source said hello.
    Registered {
        /// Its rank, the same whenever it comes.
        rank: u16,
        /// Whether it starts with an empty dictionary: a new numbering, or rights that its names were not checked against.
        new_session: bool,
        /// The older connection of this source: to be closed with these words.
        superseded: Option<(ConnectionId, Close)>,
    },
    /// Names follow for the next keys of a source.
    Names {
        /// The source.
        rank: u16,
        /// Key of the first.
        first: u32,
        /// Names, those known already left out.
        names: Vec<&'a str>,
        /// Further keys that exist but get the overflow name.
        overflowed: u32,
    },
    /// Events to be logged, in place; their keys are the source's.
    Events {
        /// The source.
        rank: u16,
        /// Keys below this have a name; the others get the overflow name.
        named: u32,
        /// The events.
        events: &'a [Event],
    },
    /// The source declared a loss, to be written into the log.
    Lost {
        /// The source.
        rank: u16,
        /// Events.
        count: u64,
    },
    /// The source is done; the connection is to be closed with these words.
    Finished {
        /// The source, if it had said hello.
        rank: Option<u16>,
        /// The answer.
        close: Close,
    },
}

/// Events of datagrams whose turn has come; see [`FeedServer::release`].
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    /// The source.
    pub rank: u16,
    /// Events missing in front of these that are waited for no more, to be written into the log.
    pub lost: u64,
    /// As in [`Taken::Events`].
    pub named: u32,
    /// The events.
    pub events: Vec<Event>,
}

/// A frame that came by datagram ahead of its turn.
struct Held {
    since: MonoTime,
    names: u32,
    events: Vec<Event>,
}

#[derive(Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) source_id: u64,
    pub(super) session: u64,
    pub(super) last: u64,
    /// The last sequence that is on disk.
    pub(super) durable: u64,
    /// The last sequence that is on enough replicas.
    pub(super) committed: u64,
    /// Known from the journal of an earlier start.
    pub(super) recovered: bool,
    /// Hash of each name within the quota, so that a second name for a key is noticed.
    pub(super) names: Vec<u64>,
    /// Keys that were defined, named or not.
    pub(super) keys: u32,
    pub(super) connection: Option<ConnectionId>,
    pub(super) connections: u64,
    pub(super) ledger: FeedLedger,
    /// What whoever connected last may do; its principal is the owner.
    pub(super) grant: Grant,
    pub(super) throttled: u64,
}

impl Source {
    /// The last sequence that a mode promises.
    fn promised(&self, mode: AckMode) -> u64 {
        match mode {
            AckMode::Durable => self.durable.min(self.last),
            AckMode::Committed => self.committed.min(self.last),
            AckMode::None | AckMode::Leader => self.last,
        }
    }
}

struct Connection {
    heard: MonoTime,
    told: MonoTime,
    grant: Grant,
    feed: Option<Feed>,
}

/// What a connection knows once it said hello.
struct Feed {
    rank: u16,
    mode: AckMode,
    /// What the last ack and the last credit said.
    acked: u64,
    credit: u64,
    /// The last number when the source was asked to go back, and when that was.
    asked: Option<(u64, MonoTime)>,
    echo: u64,
    /// Whether it waits for its principal's quota.
    dry: bool,
    /// By sequence.
    held: BTreeMap<u64, Held>,
    version: u8,
    /// The move that it has stopped for.
    stopped: Option<u64>,
}

/// All feed sessions of a server.
pub struct FeedServer {
    pub(super) options: FeedServerOptions,
    pub(super) sources: Vec<Source>,
    pub(super) by_id: HashMap<u64, u16>,
    connections: HashMap<ConnectionId, Connection>,
    pub(super) principals: Principals,
    pub(super) moving: Moving,
    next_connection: u64,
}

/// Refuses names that are fed elsewhere: this log must have no results of their slots.
fn of_group(group: &FeedGroup, names: Texts<'_>) -> Result<(), Close> {
    let elsewhere = |name: &&str| !group.has(name_hash(name.as_bytes()));
    match names.iter().find(elsewhere) {
        Some(name) => {
            let of = group.of_slot(slot_of(name_hash(name.as_bytes())));
            Err(wrong_group(name, of, group.group))
        }
        None => Ok(()),
    }
}

/// How long the server waits before it asks again for the same events, in nanoseconds.
const ASK_AGAIN_NS: u64 = 100 * MILLISECOND_NS;

impl FeedServer {
    /// A server without sources.
    #[must_use]
    pub fn new(options: FeedServerOptions) -> Self {
        Self {
            options: FeedServerOptions { sources_max: options.sources_max.min(65_535), ..options },
            sources: Vec::new(),
            by_id: HashMap::new(),
            connections: HashMap::new(),
            principals: Principals::default(),
            moving: Moving::default(),
            next_connection: 1,
        }
    }

    /// A connection came, whose peer may do what `grant` says.
    pub fn open(&mut self, now: MonoTime, grant: Grant) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(id, Connection { heard: now, told: now, grant, feed: None });
        id
    }

    /// A connection is gone, for whatever reason. Returns the source that is without one now.
    pub fn closed(&mut self, connection: ConnectionId) -> Option<u16> {
        let Feed { rank, held, .. } = self.connections.remove(&connection)?.feed?;
        let source = &mut self.sources[usize::from(rank)];
        let left = held.values().map(|held| held.events.len() as u64).sum::<u64>();
        source.ledger.held -= left;
        source.ledger.ahead += left;
        if source.connection == Some(connection) {
            source.connection = None;
            self.principals.left(source.grant.principal());
            return Some(rank);
        }
        None
    }

    /// Takes a frame of a connection, packed events as [`Frame::unpacked`] gives them; answers are appended to `out`. `offset` is the
    /// frame's place in its stream, for errors.
    ///
    /// # Errors
    /// The words to close the connection with; the driver then calls [`FeedServer::closed`]. Nothing else has changed.
    pub fn handle<'a>(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Taken<'a>, Close> {
        let Some(link) = self.connections.get_mut(&connection) else { return Ok(Taken::Nothing) };
        link.heard = now;
        let unexpected = |place| {
            let error = FrameError::Unexpected { offset, kind: frame.kind(), place };
            Err(Close::new(CloseCode::PROTOCOL, error.to_string()))
        };
        if let Frame::Hello(_) = frame {
            return self.hello(connection, now, frame, out);
        }
        if let Frame::Close { .. } = frame {
            let close = Close::new(CloseCode::FINISHED, "");
            return Ok(Taken::Finished { rank: link.feed.as_ref().map(|feed| feed.rank), close });
        }
        let Some(feed) = &mut link.feed else { return unexpected("before HELLO") };
        let rank = feed.rank;
        let source = &mut self.sources[usize::from(rank)];
        if source.connection != Some(connection) {
            return Err(superseded());
        }
        match *frame {
            Frame::Define(define) => {
                if let Some(group) = &self.options.group {
                    of_group(group, define.names)?;
                }
                let names_max = self.options.names_max;
                let principals = &mut self.principals;
                Self::define(source, rank, names_max, define.first, define.names, now, feed, principals, out)
            }
            Frame::Events { sequence, names, events } => {
                let count = events.len() as u64;
                source.ledger.received += count;
                let end = sequence + count; // cannot wrap: frames have bounds
                let refuse = |source: &mut Source, code, reason: String| {
                    source.ledger.refused += count;
                    Err(Close::new(code, reason))
                };
                if end - 1 > feed.credit {
                    let reason = format!("sequence {} was sent, credit ends at {}", end - 1, feed.credit);
                    return refuse(source, CloseCode::OVER_CREDIT, reason);
                }
                if sequence > source.last + 1 || names > source.keys {
                    source.ledger.ahead += count;
                    ask(source, feed, now, out);
                    return Ok(Taken::Nothing);
                }
                if end <= source.last + 1 {
                    source.ledger.duplicate += count;
                    return Ok(Taken::Nothing);
                }
                let known = (source.last + 1 - sequence) as usize;
                let fresh = &events[known..];
                if let Some((code, reason)) = fault(fresh, sequence + known as u64, source.keys) {
                    return refuse(source, code, reason);
                }
                let named = source.names.len() as u32;
                source.ledger.overflowed += overflowed(fresh, named, source.keys);
                source.ledger.duplicate += known as u64;
                source.ledger.accepted += fresh.len() as u64;
                source.last = end - 1;
                self.principals.used(source.grant.principal(), fresh.len() as u64, now);
                (feed.asked, feed.stopped) = (None, None);
                Ok(Taken::Events { rank, named, events: fresh })
            }
            Frame::Gap { first, last } => {
                if first > source.last + 1 {
                    ask(source, feed, now, out);
                    return Ok(Taken::Nothing);
                }
                if last <= source.last {
                    return Ok(Taken::Nothing);
                }
                let count = last - source.last;
                source.ledger.declared_lost += count;
                source.last = last;
                // What is lost needs no credit; without this a feed could not go on behind a large loss.
                feed.credit = feed.credit.max(self.principals.credit(source, &self.options, now));
                FrameWriter::new(out).credit(feed.credit);
                Ok(Taken::Lost { rank, count })
            }
            Frame::Resume { .. } => {
                let mut writer = FrameWriter::new(out);
                writer.position(source.last, source.keys);
                // Whatever was said and lost is said again.
                writer.credit(feed.credit);
                if feed.mode != AckMode::None && feed.acked > 0 {
                    writer.ack(Ack { mode: feed.mode, sequence: feed.acked, position: feed.acked });
                }
                link.told = now;
                Ok(Taken::Nothing)
            }
            Frame::Slot(word) if feed.version >= PROTOCOL_SLOTS => {
                feed.stopped = self.moving.stopped(word, source.last).or(feed.stopped);
                Ok(Taken::Nothing)
            }
            Frame::Heartbeat { nonce, .. } => {
                feed.echo = nonce;
                Ok(Taken::Nothing)
            }
            _ => unexpected("from a feed"),
        }
    }

    /// As [`FeedServer::handle`], for a frame that came as a datagram of the connection: only events do. Those ahead of their
    /// turn are held, and come with [`FeedServer::release`].
    ///
    /// # Errors
    /// As [`FeedServer::handle`].
    pub fn handle_datagram<'a>(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        frame: &Frame<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Taken<'a>, Close> {
        let Frame::Events { sequence, names, events } = *frame else {
            let error = FrameError::Unexpected { offset: 0, kind: frame.kind(), place: "in a datagram" };
            return Err(Close::new(CloseCode::PROTOCOL, error.to_string()));
        };
        if let Some(Connection { feed: Some(feed), heard, .. }) = self.connections.get_mut(&connection) {
            let source = &mut self.sources[usize::from(feed.rank)];
            let last = sequence + events.len() as u64 - 1;
            let early = sequence > source.last + 1 || names > source.keys;
            if early && source.connection == Some(connection) && last <= feed.credit {
                *heard = now;
                let count = events.len() as u64;
                source.ledger.received += count;
                match feed.held.entry(sequence) {
                    Entry::Occupied(_) => source.ledger.duplicate += count,
                    Entry::Vacant(place) => {
                        source.ledger.held += count;
                        place.insert(Held { since: now, names, events: events.to_vec() });
                    }
                }
                return Ok(Taken::Nothing);
            }
        }
        self.handle(connection, now, 0, frame, out)
    }

    /// The next events of datagrams whose turn has come: because nothing is missing in front of them any more, because they have
    /// waited long enough, because too many wait, or because `all` are to come. Call it behind every frame, and now and then for the
    /// connections of [`FeedServer::holding`], until there are none.
    ///
    /// # Errors
    /// The words to close the connection with.
    pub fn release(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        all: bool,
    ) -> Result<Option<Released>, Close> {
        let Some(link) = self.connections.get_mut(&connection) else { return Ok(None) };
        let Some(feed) = &mut link.feed else { return Ok(None) };
        let source = &mut self.sources[usize::from(feed.rank)];
        while let Some((&sequence, first)) = feed.held.first_key_value() {
            let ready = sequence <= source.last + 1 && first.names <= source.keys;
            let waited = |held: &Held| now.since(held.since) >= self.options.reorder_ns;
            let due = all || feed.held.len() > self.options.reorder_frames || feed.held.values().any(waited);
            if !(ready || due) {
                return Ok(None);
            }
            let Some((_, Held { names, mut events, .. })) = feed.held.pop_first() else { return Ok(None) };
            let count = events.len() as u64;
            source.ledger.held -= count;
            if names > source.keys {
                // Its names never came; what follows it finds it missing.
                source.ledger.ahead += count;
                continue;
            }
            let known = (source.last + 1).saturating_sub(sequence).min(count);
            source.ledger.duplicate += known;
            events.drain(..known as usize);
            if events.is_empty() {
                continue;
            }
            let fresh = count - known;
            if let Some((code, reason)) = fault(&events, sequence + known, source.keys) {
                source.ledger.refused += fresh;
                return Err(Close::new(code, reason));
            }
            let lost = (sequence + known - 1).saturating_sub(source.last);
            let named = source.names.len() as u32;
            source.ledger.declared_lost += lost;
            source.ledger.accepted += fresh;
            source.ledger.overflowed += overflowed(&events, named, source.keys);
            source.last = sequence + count - 1;
            self.principals.used(source.grant.principal(), fresh, now);
            return Ok(Some(Released { rank: feed.rank, lost, named, events }));
        }
        Ok(None)
    }

    /// Connections of whose datagrams some wait for their turn.
    pub fn holding(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let holds = |link: &Connection| link.feed.as_ref().is_some_and(|feed| !feed.held.is_empty());
        self.connections.iter().filter(move |(_, link)| holds(link)).map(|(&id, _)| id)
    }

    fn hello<'a>(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Taken<'a>, Close> {
        let Frame::Hello(hello) = *frame else { return Ok(Taken::Nothing) };
        let version = credential::agreed(&hello, self.options.version_max)?;
        if hello.plane != Plane::Feed {
            return Err(Close::new(CloseCode::PROTOCOL, "a subscriber on the feeds' plane"));
        }
        let offered = match hello.ack_mode {
            AckMode::None | AckMode::Leader => true,
            AckMode::Committed => self.options.committed,
            AckMode::Durable => self.options.durable,
        };
        if !offered {
            let allowed = match (self.options.committed, self.options.durable) {
                (false, false) => "none and leader",
                (false, true) => "none, leader and durable",
                (true, false) => "none, leader and committed",
                (true, true) => "none, leader, committed and durable",
            };
            let reason = format!("acks `{}` were asked for, allowed are {allowed}", hello.ack_mode);
            return Err(Close::new(CloseCode::ACK_MODE, reason));
        }
        // HELLO may come doubled, but a connection speaks for one source and one numbering.
        let link = self.connections.get(&connection).and_then(|link| link.feed.as_ref());
        if let Some(source) = link.and_then(|feed| self.sources.get(usize::from(feed.rank)))
            && (source.source_id, source.session) != (hello.source_id, hello.session)
        {
            return Err(Close::new(CloseCode::PROTOCOL, "a second source or session on one connection"));
        }
        let Some(link) = self.connections.get(&connection) else { return Ok(Taken::Nothing) };
        let grant = link.grant.clone();
        grant.check_source(hello.name)?;
        let rank = match self.by_id.get(&hello.source_id) {
            Some(&rank) => {
                let source = &self.sources[usize::from(rank)];
                owned(source, &grant, hello.name)?;
                rank
            }
            None if self.sources.len() >= self.options.sources_max => {
                let reason = format!("{} sources are known, which is the limit", self.sources.len());
                return Err(Close::new(CloseCode::BUSY, reason));
            }
            None => {
                let rank = self.sources.len() as u16;
                self.sources.push(Source {
                    name: hello.name.to_owned(),
                    source_id: hello.source_id,
                    session: hello.session,
                    last: 0,
                    durable: 0,
                    committed: 0,
                    recovered: false,
                    names: Vec::new(),
                    keys: 0,
                    connection: None,
                    connections: 0,
                    ledger: FeedLedger::default(),
                    grant: grant.clone(),
                    throttled: 0,
                });
                self.by_id.insert(hello.source_id, rank);
                rank
            }
        };
        let source = &mut self.sources[usize::from(rank)];
        let again = source.connection == Some(connection);
        let first_time = source.connections == 0 && !source.recovered;
        let new_session = source.session != hello.session;
        self.moving.session(hello.source_id, hello.session);
        if new_session {
            source.session = hello.session;
            (source.last, source.durable, source.committed) = (0, 0, 0);
        }
        // Names are checked when they are defined, so under other rights they are defined again.
        let forget = new_session || source.name != hello.name || !source.grant.same_rights(&grant);
        if forget {
            source.keys = 0;
            source.names.clear();
            hello.name.clone_into(&mut source.name);
        }
        let superseded = match source.connection {
            Some(older) if older != connection => Some((older, superseded())),
            _ => None,
        };
        if !again {
            if superseded.is_some() {
                self.principals.left(source.grant.principal());
            }
            self.principals.came(&grant, now);
            source.connection = Some(connection);
            source.connections += 1;
        }
        source.grant = grant;
        let mut credit = self.principals.credit(source, &self.options, now);
        if let Some(link) = self.connections.get_mut(&connection) {
            let acked = source.promised(hello.ack_mode);
            // What was allowed once stays allowed.
            credit = credit.max(link.feed.as_ref().map_or(0, |feed| feed.credit));
            let (mode, dry) = (hello.ack_mode, false);
            let (held, stopped) = link.feed.take().map(|feed| (feed.held, feed.stopped)).unwrap_or_default();
            link.feed =
                Some(Feed { rank, mode, acked, credit, asked: None, echo: 0, dry, held, version, stopped });
            link.told = now;
        }
        let [moved, leaving] = self.moving.greeting(version, hello.source_id);
        if let Some(moved) = moved {
            FrameWriter::new(out).slot(moved);
        }
        FrameWriter::new(out).hello_ack(&HelloAck {
            version,
            ack_mode: hello.ack_mode,
            incarnation: self.options.incarnation,
            // What a feed is told here it forgets, so this is a promise too.
            last: source.promised(hello.ack_mode),
            credit,
            names: source.keys,
            names_max: source.grant.quotas().symbols.unwrap_or(u32::MAX).min(self.options.names_max),
            heartbeat_ms: self.options.heartbeat_ms,
            streams: 0,
            server: &self.options.server,
        });
        if let Some(leaving) = leaving {
            FrameWriter::new(out).slot(leaving);
        }
        Ok(Taken::Registered { rank, new_session: forget || first_time, superseded })
    }

    #[allow(clippy::too_many_arguments)]
    fn define<'a>(
        source: &mut Source,
        rank: u16,
        names_max: u32,
        first: u32,
        names: Texts<'a>,
        now: MonoTime,
        feed: &mut Feed,
        principals: &mut Principals,
        out: &mut Vec<u8>,
    ) -> Result<Taken<'a>, Close> {
        if first > source.keys {
            ask(source, feed, now, out);
            return Ok(Taken::Nothing);
        }
        // All of the overlap is compared before anything changes.
        for (key, name) in (first..).zip(names.iter()) {
            source.grant.check(Verb::Publish, &source.name, Symbols::Name(name))?;
            match source.names.get(key as usize) {
                Some(&hash) if hash != name_hash(name.as_bytes()) => {
                    let reason = format!("key {key} has a name already, which is not `{name}`");
                    return Err(Close::new(CloseCode::DICTIONARY, reason));
                }
                _ => {}
            }
        }
        let from = source.keys;
        let mut fresh = Vec::new();
        let mut overflowed = 0;
        for name in names.iter().skip((from - first) as usize) {
            source.keys += 1;
            let hash = name_hash(name.as_bytes());
            // Once one name has no place, keys behind it have none: events know names by their number.
            let all_named = source.names.len() as u32 == source.keys - 1;
            if all_named
                && (source.names.len() as u32) < names_max
                && principals.may_name(&source.grant, hash)
            {
                source.names.push(hash);
                fresh.push(name);
            } else {
                overflowed += 1;
            }
        }
        if fresh.is_empty() && overflowed == 0 {
            return Ok(Taken::Nothing);
        }
        Ok(Taken::Names { rank, first: from, names: fresh, overflowed })
    }

    /// What was taken from this connection is in the log up to `position` (events of this source): says so, and lets the
    /// source send more. Appends nothing while there is little to say, unless `all` is.
    pub fn acknowledge(
        &mut self,
        connection: ConnectionId,
        now: MonoTime,
        position: u64,
        all: bool,
        out: &mut Vec<u8>,
    ) {
        let Some(link) = self.connections.get_mut(&connection) else { return };
        let Some(feed) = &mut link.feed else { return };
        let source = &mut self.sources[usize::from(feed.rank)];
        if source.connection != Some(connection) {
            return;
        }
        let mut writer = FrameWriter::new(out);
        // Credit in steps of a quarter, so that answers stay few.
        let credit = self.principals.credit(source, &self.options, now).max(feed.credit);
        let step = self.options.credit_events / 4;
        // Under a quota a feed that waits would be told of each event that the rate brings; the sweep says what is less.
        let rate = source.grant.quotas().events_per_second;
        let least = rate.map_or(1, |rate| (rate / 16).clamp(1, step.max(1)));
        if credit - feed.credit >= step || (all && credit - feed.credit >= least) {
            feed.credit = credit;
            writer.credit(credit);
            link.told = now;
        }
        note_dry(source, feed);
        let last = source.promised(feed.mode);
        let fresh = last.saturating_sub(feed.acked);
        let step = FRAME_EVENTS_MAX as u64;
        if feed.mode != AckMode::None && (fresh >= step || (all && fresh > 0)) {
            feed.acked = last;
            writer.ack(Ack { mode: feed.mode, sequence: last, position });
            link.told = now;
        }
    }

    /// Looks after silent connections: sends heartbeats, and credit to those who waited for their quota, through `send`, and
    /// names those to be closed through `close`. Call it a few times per heartbeat.
    pub fn sweep(
        &mut self,
        now: MonoTime,
        mut send: impl FnMut(ConnectionId, &[u8]),
        mut close: impl FnMut(ConnectionId, Close),
    ) {
        let heartbeat_ns = u64::from(self.options.heartbeat_ms) * MILLISECOND_NS;
        let mut frame = Vec::new();
        for (&id, link) in &mut self.connections {
            let limit = if link.feed.is_some() { self.options.silence_ns } else { self.options.hello_ns };
            if now.since(link.heard) >= limit {
                let ms = limit / MILLISECOND_NS;
                close(id, Close::new(CloseCode::SILENT, format!("nothing was heard for {ms} ms")));
            } else if let Some(feed) = &mut link.feed {
                frame.clear();
                // Whoever waits for its quota sends nothing that would be answered with credit.
                let source = &mut self.sources[usize::from(feed.rank)];
                if source.connection == Some(id) && source.grant.quotas().events_per_second.is_some() {
                    let credit = self.principals.credit(source, &self.options, now);
                    if credit > feed.credit {
                        feed.credit = credit;
                        FrameWriter::new(&mut frame).credit(credit);
                    }
                    note_dry(source, feed);
                }
                if now.since(link.told) >= heartbeat_ns {
                    FrameWriter::new(&mut frame).heartbeat(now.0, feed.echo);
                }
                if !frame.is_empty() {
                    link.told = now;
                    send(id, &frame);
                }
            }
        }
    }

    /// What a source sent in this session is on disk up to `sequence`; the next [`FeedServer::acknowledge`] says so.
    pub fn durable(&mut self, rank: u16, session: u64, sequence: u64) {
        if let Some(source) = self.sources.get_mut(usize::from(rank))
            && source.session == session
        {
            source.durable = source.durable.max(sequence.min(source.last));
        }
    }

    /// As [`FeedServer::durable`], of what is on enough replicas.
    pub fn committed(&mut self, rank: u16, session: u64, sequence: u64) {
        if let Some(source) = self.sources.get_mut(usize::from(rank))
            && source.session == session
        {
            source.committed = source.committed.max(sequence.min(source.last));
        }
    }

    /// Knows of sources what `log` does, and nothing else: connections are forgotten, and those to come get new ids. For a node that
    /// begins to lead, and for one that ceases to.
    pub fn go_on_from(&mut self, log: &Self) {
        self.sources.clone_from(&log.sources);
        self.by_id.clone_from(&log.by_id);
        self.options.group.clone_from(&log.options.group);
        self.moving.go_on_from(&log.moving);
        self.connections.clear();
        self.principals = Principals::default();
    }

    /// What the log has of a source: its session, and the last sequence.
    #[must_use]
    pub fn stands(&self, rank: u16) -> (u64, u64) {
        self.sources.get(usize::from(rank)).map_or((0, 0), |source| (source.session, source.last))
    }

    /// A source as an earlier start wrote it down. Returns its rank; `None` when there are more than may be.
    ///
    /// What it may do is not known before it comes again: whoever was somebody defines names anew then.
    pub fn recover_source(
        &mut self,
        source_id: u64,
        session: u64,
        empty: bool,
        name: &str,
        principal: &str,
    ) -> Option<u16> {
        let known = self.by_id.get(&source_id).copied();
        if known.is_none() && self.sources.len() >= self.options.sources_max {
            return None;
        }
        let rank = known.unwrap_or(self.sources.len() as u16);
        if known.is_none() {
            self.by_id.insert(source_id, rank);
            self.sources.push(Source {
                name: String::new(),
                source_id,
                session,
                last: 0,
                durable: 0,
                committed: 0,
                recovered: true,
                names: Vec::new(),
                keys: 0,
                connection: None,
                connections: 0,
                ledger: FeedLedger::default(),
                grant: Grant::default(),
                throttled: 0,
            });
        }
        self.moving.session(source_id, session);
        let source = &mut self.sources[usize::from(rank)];
        if source.session != session {
            source.session = session;
            (source.last, source.durable, source.committed) = (0, 0, 0);
        }
        if empty {
            source.keys = 0;
            source.names.clear();
        }
        name.clone_into(&mut source.name);
        source.grant = Policy::default().grant(principal, None, Quotas::default());
        Some(rank)
    }

    /// Names of a recovered source.
    pub fn recover_names<'n>(&mut self, rank: u16, names: impl Iterator<Item = &'n str>, overflowed: u32) {
        let Some(source) = self.sources.get_mut(usize::from(rank)) else { return };
        let before = source.names.len();
        source.names.extend(names.map(|name| name_hash(name.as_bytes())));
        self.principals.named(source.grant.principal(), source.names[before..].iter().copied());
        source.keys += (source.names.len() - before) as u32 + overflowed;
    }

    /// Events of a recovered source, all of them accepted once, and on disk.
    pub fn recover_events(&mut self, rank: u16, sequence: u64, count: u64) {
        let Some(source) = self.sources.get_mut(usize::from(rank)) else { return };
        source.ledger.received += count;
        source.ledger.accepted += count;
        source.last = sequence + count - 1;
        source.durable = source.last;
    }

    /// A loss that a recovered source declared.
    pub fn recover_lost(&mut self, rank: u16, last: u64, count: u64) {
        let Some(source) = self.sources.get_mut(usize::from(rank)) else { return };
        source.ledger.declared_lost += count;
        (source.last, source.durable) = (last, last);
    }

    /// What the connection of a source speaks, and which move it has stopped for.
    pub(super) fn feed_of(&self, rank: u16) -> Option<(u8, Option<u64>)> {
        let connection = self.sources.get(usize::from(rank))?.connection?;
        let feed = self.connections.get(&connection)?.feed.as_ref()?;
        Some((feed.version, feed.stopped))
    }

    /// Connections of feeds that know of moves, and their ranks.
    pub(super) fn feeds_that_know(&self) -> impl Iterator<Item = (ConnectionId, u16)> + '_ {
        let of = |(&id, link): (&ConnectionId, &Connection)| {
            link.feed.as_ref().filter(|feed| feed.version >= PROTOCOL_SLOTS).map(|feed| (id, feed.rank))
        };
        self.connections.iter().filter_map(of)
    }

    /// Every source, by rank.
    pub fn sources(&self) -> impl Iterator<Item = SourceStats> + '_ {
        self.sources.iter().enumerate().map(|(rank, source)| SourceStats {
            rank: rank as u16,
            name: source.name.clone(),
            source_id: source.source_id,
            session: source.session,
            last: source.last,
            names: source.keys,
            connected: source.connection.is_some(),
            connections: source.connections,
            principal: Arc::clone(source.grant.principal()),
            throttled: source.throttled,
            ledger: source.ledger,
        })
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }
}

/// Whether this source may be gone on with: it is its principal's own, or was nobody's.
fn owned(source: &Source, grant: &Grant, name: &str) -> Result<(), Close> {
    let owner = source.grant.principal();
    if owner == grant.principal() || **owner == *ANONYMOUS {
        return Ok(());
    }
    let reason = format!("the source `{name}` with id {} is not `{}`'s", source.source_id, grant.principal());
    Err(Close::new(CloseCode::UNAUTHORIZED, reason))
}

/// Counts when a source begins to wait for its principal's quota.
fn note_dry(source: &mut Source, feed: &mut Feed) {
    let dry = feed.credit <= source.last;
    source.throttled += u64::from(dry && !feed.dry);
    feed.dry = dry;
}

fn superseded() -> Close {
    Close::new(CloseCode::SUPERSEDED, "a newer connection came with the same source id")
}

/// Says what the server has, once for each state and now and then again.
fn ask(source: &Source, feed: &mut Feed, now: MonoTime, out: &mut Vec<u8>) {
    let due = feed.asked.is_none_or(|(last, at)| last != source.last || now.since(at) >= ASK_AGAIN_NS);
    if due {
        feed.asked = Some((source.last, now));
        FrameWriter::new(out).position(source.last, source.keys);
    }
}

/// Events that go under the overflow name.
fn overflowed(events: &[Event], named: u32, keys: u32) -> u64 {
    if keys <= named {
        return 0;
    }
    events.iter().filter(|event| event.kind < kind::CONTROL && event.key >= named).count() as u64
}

/// The first event that no feed may send, if there is one.
fn fault(events: &[Event], sequence: u64, keys: u32) -> Option<(CloseCode, String)> {
    let undefined = |event: &Event| event.kind < kind::CONTROL && event.key >= keys;
    let unknown = |event: &Event| !matches!(event.kind, kind::TRADE..=kind::INTEGER | kind::GAP | kind::TIME);
    let endless = |event: &Event| event.ts_event > EventTime::MAX.0;
    let notional = |event: &Event| Notional::of(Price(event.price()), Size(event.size()));
    let immense = |event: &Event| event.kind == kind::TRADE && notional(event).is_err();
    // One pass of sums over what is nearly always right, then a search for who was wrong.
    let (mut strange, mut key, mut newest, mut magnitude) = (false, 0, 0, 0);
    for event in events {
        strange |= unknown(event);
        key = key.max(if event.kind < kind::CONTROL { event.key } else { 0 });
        newest = newest.max(event.ts_event);
        magnitude |= event.price().unsigned_abs() | event.size();
    }
    let named = key < keys || events.iter().all(Event::is_control);
    if !strange && named && newest <= EventTime::MAX.0 && magnitude < MODEST_FACTOR {
        return None;
    }
    let (at, event) =
        events.iter().enumerate().find(|(_, e)| undefined(e) || unknown(e) || endless(e) || immense(e))?;
    let sequence = sequence + at as u64;
    Some(if unknown(event) {
        let reason = format!("event {sequence} is of kind {}, allowed are 1 to 7, 133 and 136", event.kind);
        (CloseCode::BAD_EVENT, reason)
    } else if endless(event) {
        let max = EventTime::MAX.0;
        (
            CloseCode::BAD_EVENT,
            format!("event {sequence} has time {}, allowed are 0 to {max}", event.ts_event),
        )
    } else if let (true, Err(error)) = (immense(event), notional(event)) {
        (CloseCode::BAD_EVENT, format!("event {sequence}: {error}"))
    } else {
        let reason = format!("event {sequence} has key {}, {keys} are defined", event.key);
        (CloseCode::UNDEFINED_KEY, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_no_feed_may_send_are_named() {
        let trade = |ts, key, price, size| Event::trade(ts, key, 0, Price(price), Size(size), 0);
        let good = trade(1, 0, 1, 1);
        for (bad, code, says) in [
            (trade(1, 2, 1, 1), CloseCode::UNDEFINED_KEY, "event 11 has key 2, 2 are defined"),
            (trade(u64::MAX, 0, 1, 1), CloseCode::BAD_EVENT, "event 11 has time 18446744073709551615"),
            (trade(1, 0, i64::MIN, u64::MAX), CloseCode::BAD_EVENT, "event 11: price times size"),
            (Event { kind: 0, ..good }, CloseCode::BAD_EVENT, "event 11 is of kind 0"),
            (Event { kind: kind::END, ..good }, CloseCode::BAD_EVENT, "event 11 is of kind"),
        ] {
            let (found, reason) = fault(&[good, bad, bad], 10, 2).unwrap();
            assert_eq!(found, code, "{reason}");
            assert!(reason.starts_with(says), "{reason}");
        }
        // What is no trade has other things in those words.
        let sample = Event { kind: kind::SAMPLE, payload: [u64::MAX; 2], ..good };
        assert_eq!(fault(&[good, sample], 10, 2), None);
    }
}
