//! The feed's side of its session: numbers events, keeps what is not acknowledged, and goes on where the server stands.

use crate::close::{Close, CloseCode};
use crate::credential::Shown;
use crate::frame::{Ack, AckMode, Credential, Frame, FrameWriter, Hello, Plane, SlotFrame};
use crate::groups::GroupMap;
use crate::time::{MILLISECOND_NS, MonoTime};
use crate::wire::{EVENTS_HEAD_BYTES, FRAME_EVENTS_MAX, FrameError, NAME_BYTES_MAX, PROTOCOL_PACKED};
use std::collections::VecDeque;
use tidegate_engine::Event;

/// Who a feed is and how much it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedClientOptions {
    /// Who it is, for good.
    pub source_id: u64,
    /// Which numbering of its events this is.
    pub session: u64,
    /// The group that it is of, where there are several; `None` where nobody knows of any.
    pub group: Option<u16>,
    /// The promise it asks for.
    pub ack_mode: AckMode,
    /// A name for people.
    pub name: String,
    /// Events kept until they are acknowledged; when as many are kept, no more are taken: that is the back-pressure.
    pub unacked_max: usize,
    /// Time without any progress after which the server is asked what it has, in nanoseconds.
    pub retry_ns: u64,
    /// Silence after which the connection counts as dead, in nanoseconds.
    pub silence_ns: u64,
    /// Whether events are packed where the server can unpack them: fewer bytes on the wire for a few nanoseconds an event.
    pub packed: bool,
    /// Events go by datagrams, [`FeedClient::transmit_datagram`], which may be lost or overtake each other and are never sent again:
    /// for feeds that prefer a declared loss to a delay. Only with [`AckMode::None`].
    pub datagrams: bool,
}

impl Default for FeedClientOptions {
    fn default() -> Self {
        Self {
            source_id: 0,
            session: 0,
            group: None,
            ack_mode: AckMode::Leader,
            name: String::new(),
            unacked_max: 1 << 18,
            retry_ns: 1_000 * MILLISECOND_NS,
            silence_ns: 10_000 * MILLISECOND_NS,
            packed: true,
            datagrams: false,
        }
    }
}

/// What a feed is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent {
    /// The cluster has several groups. A session that is of none is refused then: see [`super::SplitFeed`].
    Groups(Box<GroupMap>),
    /// The session stands. The server has everything up to `last`; what is offered with these numbers again is skipped.
    Ready {
        /// The last sequence the server has.
        last: u64,
        /// The server's start.
        incarnation: u64,
    },
    /// A promise holds up to here.
    Acked {
        /// The promise.
        mode: AckMode,
        /// Sequence.
        sequence: u64,
        /// Place in the server's log of this source.
        position: u64,
    },
    /// The server no longer has what it once acknowledged (it was started anew). What is no longer kept here is declared as
    /// lost to it.
    ServerLost {
        /// First sequence lost.
        first: u64,
        /// Last sequence lost.
        last: u64,
    },
    /// The server ended the connection.
    Closed(Close),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    /// Connected; HELLO is due or was sent at this time.
    Greeting(Option<MonoTime>),
    Up,
}

/// A feed's session. The driver moves bytes and time; see [`FeedClient::transmit`].
#[derive(Debug)]
pub struct FeedClient {
    options: FeedClientOptions,
    names: Vec<Box<str>>,
    /// Events from sequence `base` on.
    kept: VecDeque<Event>,
    base: u64,
    /// Sequence the next event offered gets.
    next: u64,
    /// Sequence to be sent next.
    send: u64,
    /// A loss to declare before anything is sent.
    lost: Option<(u64, u64)>,
    credit: u64,
    acked: u64,
    /// Names sent over this link, and over any.
    names_sent: u32,
    names_told: u32,
    /// Names that the server is known to have, and whether it was asked: datagrams overtake their names otherwise.
    names_known: u32,
    names_asked: bool,
    link: Link,
    heard: MonoTime,
    told: MonoTime,
    asked: MonoTime,
    /// When something last went on: sent, acknowledged, or allowed.
    progress: MonoTime,
    heartbeat_ns: u64,
    /// Whether this link takes packed events.
    packs: bool,
    echo: u64,
    skipped: u64,
    close_due: bool,
    tail: Tail,
    shown: Shown,
    /// What is to be said behind the last event that was taken, and whether it was.
    stop: Option<(SlotFrame, bool)>,
    /// Whether the last word was said.
    ended: bool,
}

/// What is known of the last datagrams, before the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Open,
    /// The server was asked what it has.
    Asked,
    /// What it does not have is declared lost.
    Known,
}

/// How long the last datagrams may be under way before the server is asked what it has, in nanoseconds.
const TAIL_NS: u64 = 100 * MILLISECOND_NS;

impl FeedClient {
    /// A session that is not connected.
    #[must_use]
    pub fn new(options: FeedClientOptions) -> Self {
        let kept = VecDeque::with_capacity(options.unacked_max.min(1 << 20));
        Self::keeping(options, kept)
    }

    /// One of many, whose room grows with what it keeps.
    pub(super) fn one_of_many(options: FeedClientOptions) -> Self {
        Self::keeping(options, VecDeque::new())
    }

    fn keeping(options: FeedClientOptions, kept: VecDeque<Event>) -> Self {
        Self {
            kept,
            options,
            names: Vec::new(),
            base: 1,
            next: 1,
            send: 1,
            lost: None,
            credit: 0,
            acked: 0,
            names_sent: 0,
            names_told: 0,
            names_known: 0,
            names_asked: false,
            link: Link::Down,
            heard: MonoTime::default(),
            told: MonoTime::default(),
            asked: MonoTime::default(),
            progress: MonoTime::default(),
            heartbeat_ns: 3_000 * MILLISECOND_NS,
            packs: false,
            echo: 0,
            skipped: 0,
            close_due: false,
            tail: Tail::Open,
            shown: Shown::default(),
            stop: None,
            ended: false,
        }
    }

    /// Gives the next key a name; returns the key, `None` for a name that is empty or longer than 255 bytes. Names must come
    /// in the same order in every process that continues a session.
    pub fn define(&mut self, name: &str) -> Option<u32> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return None;
        }
        let key = u32::try_from(self.names.len()).ok()?;
        self.names.push(name.into());
        Some(key)
    }

    /// Names given.
    #[must_use]
    pub fn defined(&self) -> u32 {
        self.names.len() as u32
    }

    /// Takes events, in order, as many as there is room for; returns how many. Those the server is known to have from an
    /// earlier run are skipped and counted.
    pub fn offer(&mut self, events: &[Event]) -> usize {
        // Known already: numbered, not kept.
        let known = self.known(events);
        self.next += known as u64;
        self.skipped += known as u64;
        let fresh = &events[known..];
        let count = fresh.len().min(self.options.unacked_max - self.kept.len());
        self.kept.extend(&fresh[..count]);
        self.next += count as u64;
        known + count
    }

    /// How many of these, from the first on, are known to the server from an earlier run, should they be offered next.
    #[must_use]
    pub fn known(&self, events: &[Event]) -> usize {
        self.base.saturating_sub(self.next).min(events.len() as u64) as usize
    }

    /// Events there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.options.unacked_max - self.kept.len() + self.base.saturating_sub(self.next) as usize
    }

    /// Bytes of events that could go out now.
    #[must_use]
    pub fn sendable_bytes(&self) -> usize {
        let count = self.next.min(self.credit.saturating_add(1)).saturating_sub(self.send);
        usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(size_of::<Event>())
    }

    /// Events offered that the server had from an earlier run.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Events offered so far, skipped ones included.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.next - 1
    }

    /// Events that are not acknowledged (or, under [`AckMode::None`], not sent).
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.kept.len()
    }

    /// The last sequence that is not kept any more: acknowledged, declared lost, or sent where no acks were asked for.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.base - 1
    }

    /// The last acknowledged sequence.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// What to show on the next connection, and on those after it: who this is. `None` for nothing.
    ///
    /// # Panics
    /// For a token that is empty or too long.
    pub fn present(&mut self, credential: Option<Credential<'_>>) {
        self.shown = Shown::new(credential);
    }

    /// A new connection stands: its first bytes come from the next [`FeedClient::transmit`].
    pub fn connected(&mut self, now: MonoTime) {
        // Another server may know of other moves.
        (self.link, self.stop) = (Link::Greeting(None), None);
        (self.heard, self.told, self.asked, self.progress) = (now, now, now, now);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.link = Link::Down;
    }

    /// Whether HELLO was answered.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// No more events will be offered: tells the server once everything is acknowledged.
    pub fn finish(&mut self) {
        self.close_due = true;
    }

    /// Whether everything that was offered is with the server, as far as the mode can know.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.kept.is_empty() && self.lost.is_none()
    }

    /// Takes a frame of the server.
    ///
    /// # Errors
    /// The words to close the connection with.
    pub fn handle(
        &mut self,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'_>,
    ) -> Result<Option<FeedEvent>, Close> {
        self.heard = now;
        let greeting = matches!(self.link, Link::Greeting(_));
        match *frame {
            Frame::HelloAck(ack) if greeting => {
                if !self.shown.versions(self.options.group).contains(&ack.version)
                    || ack.ack_mode != self.options.ack_mode
                {
                    let (version, mode) = (ack.version, ack.ack_mode);
                    let reason = format!("the server answers with version {version} and acks `{mode}`");
                    return Err(Close::new(CloseCode::VERSION, reason));
                }
                self.link = Link::Up;
                self.tail = Tail::Known;
                self.heartbeat_ns = u64::from(ack.heartbeat_ms) * MILLISECOND_NS;
                self.packs = self.options.packed && ack.version >= PROTOCOL_PACKED;
                self.credit = ack.credit;
                // A process that never named its keys names them all again, so that the server can compare.
                self.names_sent = ack.names.min(self.names_told);
                (self.names_known, self.names_asked) = (self.names_sent, false);
                let has = ack.last;
                if has + 1 < self.base {
                    let (first, last) = (has + 1, self.base - 1);
                    self.lost = Some((first, last));
                    self.send = self.base;
                    return Ok(Some(FeedEvent::ServerLost { first, last }));
                }
                self.lost = None;
                self.settle(has);
                self.acked = self.acked.max(has);
                self.send = self.base;
                Ok(Some(FeedEvent::Ready { last: has, incarnation: ack.incarnation }))
            }
            Frame::Groups(groups) if greeting => match GroupMap::of(&groups) {
                Ok(map) => Ok(Some(FeedEvent::Groups(Box::new(map)))),
                Err(error) => Err(Close::new(CloseCode::PROTOCOL, error.to_string())),
            },
            // They are for who has the sessions of all groups.
            Frame::Slot(_) => Ok(None),
            // A late double of the answer, or of one, overtaken by others.
            Frame::HelloAck(_) | Frame::Groups(_) => Ok(None),
            Frame::Close { code, reason } => {
                self.link = Link::Down;
                Ok(Some(FeedEvent::Closed(Close::new(code, reason))))
            }
            _ if greeting => Ok(None),
            Frame::Ack(ack) => {
                // What is beyond what was offered an earlier run sent, and it was promised only now: it is skipped when it is offered.
                if ack.sequence <= self.acked {
                    return Ok(None);
                }
                self.progress = now;
                self.acked = ack.sequence;
                self.settle(ack.sequence);
                self.send = self.send.max(self.base);
                let Ack { mode, sequence, position } = ack;
                Ok(Some(FeedEvent::Acked { mode, sequence, position }))
            }
            Frame::Credit { limit } => {
                if limit > self.credit {
                    (self.credit, self.progress) = (limit, now);
                }
                Ok(None)
            }
            Frame::Position { last, names } => {
                if self.tail == Tail::Asked {
                    self.tail = Tail::Known;
                }
                (self.names_known, self.names_asked) = (self.names_known.max(names), false);
                if last + 1 < self.base {
                    // A late double, or the declaration of a loss was itself lost; saying it again does no harm.
                    self.lost = Some((last + 1, self.base - 1));
                } else {
                    self.send = self.send.min(last + 1).max(self.base);
                    self.names_sent = self.names_sent.min(names);
                    if let Some((_, told)) = &mut self.stop {
                        *told = false;
                    }
                }
                Ok(None)
            }
            Frame::Heartbeat { nonce, .. } => {
                self.echo = nonce;
                Ok(None)
            }
            _ => {
                let error =
                    FrameError::Unexpected { offset, kind: frame.kind(), place: "from a server of feeds" };
                Err(Close::new(CloseCode::PROTOCOL, error.to_string()))
            }
        }
    }

    /// Says to the server that this session has stopped, once all that was taken is sent; `None` for not, or not any more.
    pub(super) fn stop(&mut self, word: Option<SlotFrame>) {
        // Events that datagrams bring may come behind the word.
        self.stop = word.filter(|_| !self.options.datagrams).map(|word| (word, false));
    }

    /// Whether it has said its last word, with all that it had acknowledged.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The name behind a key.
    pub(super) fn name(&self, key: u32) -> Option<&str> {
        self.names.get(key as usize).map(|name| &**name)
    }

    /// Forgets what the server has.
    fn settle(&mut self, last: u64) {
        let count = (last + 1).saturating_sub(self.base);
        self.kept.drain(..(count as usize).min(self.kept.len()));
        self.base = self.base.max(last + 1);
    }

    /// Appends what is to be sent now, up to about `bytes_max` (at least one frame). Returns whether the session has come to
    /// its end: everything settled and the last word said.
    ///
    /// # Errors
    /// [`CloseCode::SILENT`] when the server has not been heard for too long.
    pub fn transmit(&mut self, now: MonoTime, bytes_max: usize, out: &mut Vec<u8>) -> Result<bool, Close> {
        let start = out.len();
        match self.link {
            Link::Down => return Ok(false),
            Link::Greeting(sent) => {
                self.check_silence(now)?;
                if sent.is_none_or(|at| now.since(at) >= self.options.retry_ns) {
                    self.link = Link::Greeting(Some(now));
                    FrameWriter::new(out).hello(&Hello {
                        version_min: *self.shown.versions(self.options.group).start(),
                        version_max: *self.shown.versions(self.options.group).end(),
                        plane: Plane::Feed,
                        group: self.options.group,
                        ack_mode: self.options.ack_mode,
                        source_id: self.options.source_id,
                        session: self.options.session,
                        name: &self.options.name,
                        credential: self.shown.credential(),
                    });
                }
                return Ok(false);
            }
            Link::Up => {}
        }
        self.check_silence(now)?;
        if let Some((first, last)) = self.lost.take() {
            // Should it not arrive, what follows is ahead, and the server says what it has.
            FrameWriter::new(out).gap(first, last);
        }
        while self.names_sent < self.names.len() as u32 {
            let names = self.names[self.names_sent as usize..].iter().map(|name| &**name);
            self.names_sent += FrameWriter::new(out).define(self.names_sent, names);
            self.names_told = self.names_told.max(self.names_sent);
        }
        while !self.options.datagrams && self.may_send() && out.len() - start < bytes_max {
            self.frame_of_events(now, FRAME_EVENTS_MAX, out);
        }
        if let Some((word, told @ false)) = &mut self.stop
            && self.send == self.next
        {
            *told = true;
            FrameWriter::new(out).slot(SlotFrame { sequence: self.next - 1, ..*word });
        }
        let waits = self.options.datagrams && !self.names_asked && self.may_send();
        if waits && !self.names_are_known(FRAME_EVENTS_MAX) {
            self.names_asked = true;
            FrameWriter::new(out).resume(now.0);
        }
        let settled = self.is_settled();
        let mut ended = false;
        if settled && self.close_due && self.tail_due().is_some_and(|due| due <= now) {
            (self.tail, self.asked) = (Tail::Asked, now);
            FrameWriter::new(out).resume(now.0);
        } else if settled && self.close_due && self.tail_due().is_none() {
            FrameWriter::new(out).close(CloseCode::FINISHED, "");
            self.close_due = false;
            (self.ended, ended) = (true, true);
        }
        if out.len() > start {
            self.told = now;
        } else if !settled
            && now.since(self.progress) >= self.options.retry_ns
            && now.since(self.asked) >= self.options.retry_ns
        {
            self.asked = now;
            self.told = now;
            FrameWriter::new(out).resume(now.0);
        } else if now.since(self.told) >= self.heartbeat_ns {
            self.told = now;
            FrameWriter::new(out).heartbeat(now.0, self.echo);
        }
        Ok(ended)
    }

    /// Appends one frame of events for a datagram of at most `bytes_max` bytes. Returns whether there was one; nothing is kept of it.
    pub fn transmit_datagram(&mut self, now: MonoTime, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let most = bytes_max.saturating_sub(EVENTS_HEAD_BYTES) / size_of::<Event>();
        let may = self.options.datagrams && self.link == Link::Up && self.may_send();
        // A loss is declared before what follows it.
        if !may || most == 0 || self.lost.is_some() || !self.names_are_known(most) {
            return false;
        }
        self.frame_of_events(now, most.min(FRAME_EVENTS_MAX), out);
        self.tail = Tail::Open;
        true
    }

    /// Whether the server has the names of the next events, as far as they are new.
    fn names_are_known(&self, count: usize) -> bool {
        let from = (self.send - self.base) as usize;
        let known = |event: &Event| event.is_control() || event.key < self.names_known;
        self.names_known as usize == self.names.len() || self.kept.iter().skip(from).take(count).all(known)
    }

    fn may_send(&self) -> bool {
        self.send < self.next && self.send <= self.credit
    }

    fn frame_of_events(&mut self, now: MonoTime, most: usize, out: &mut Vec<u8>) {
        let from = (self.send - self.base) as usize;
        let count = (self.next - self.send).min(self.credit + 1 - self.send).min(most as u64) as usize;
        let (older, newer) = self.kept.as_slices();
        let (a, b) = if from < older.len() {
            let end = (from + count).min(older.len());
            (&older[from..end], &newer[..count - (end - from)])
        } else {
            (&newer[from - older.len()..from - older.len() + count], &newer[..0])
        };
        let names = if self.options.datagrams { self.names_known } else { self.names.len() as u32 };
        let mut writer = FrameWriter::new(out);
        // A datagram is cut to what its events take as they are.
        let packed =
            if self.packs && !self.options.datagrams { writer.packed(self.send, names, [a, b]) } else { 0 };
        if packed == 0 {
            writer.events(self.send, names, [a, b]);
        }
        self.send += if packed == 0 { count } else { packed } as u64;
        self.progress = now;
        if self.options.ack_mode == AckMode::None || self.options.datagrams {
            self.settle(self.send - 1);
        }
    }

    /// When the server is to be asked what came of the datagrams, before the last word; `None` when that is known or plain.
    fn tail_due(&self) -> Option<MonoTime> {
        match self.tail {
            Tail::Open if self.options.datagrams && self.send > 1 => Some(self.progress.after(TAIL_NS)),
            Tail::Asked => Some(self.asked.after(self.options.retry_ns)),
            _ => None,
        }
    }

    fn check_silence(&self, now: MonoTime) -> Result<(), Close> {
        if now.since(self.heard) < self.options.silence_ns {
            return Ok(());
        }
        let ms = self.options.silence_ns / MILLISECOND_NS;
        Err(Close::new(CloseCode::SILENT, format!("nothing was heard for {ms} ms")))
    }

    /// When [`FeedClient::transmit`] has something to do without any other input; `None` while disconnected.
    #[must_use]
    pub fn timeout(&self) -> Option<MonoTime> {
        let retry = self.options.retry_ns;
        match self.link {
            Link::Down => None,
            Link::Greeting(None) => Some(self.told),
            Link::Greeting(Some(at)) => Some(at.after(retry)),
            Link::Up => {
                let heartbeat = self.told.after(self.heartbeat_ns);
                let silence = self.heard.after(self.options.silence_ns);
                let ask = self.progress.max(self.asked).after(retry);
                let due = heartbeat.min(silence);
                let tail = self.tail_due().filter(|_| self.close_due);
                Some(match (self.is_settled(), tail) {
                    (true, Some(tail)) => due.min(tail),
                    (true, None) => due,
                    (false, _) => due.min(ask),
                })
            }
        }
    }
}
