//! Both sides of a subscriber's connection: greeting, catalogue, request, and the way back after a reconnect.

use crate::close::{Close, CloseCode};
use crate::credential::{self, Shown};
use crate::frame::{Credential, Frame, FrameWriter, Hello, HelloAck, Loss, Plane, StreamKind};
use crate::groups::GroupMap;
use crate::hub::{STREAM_NUMBERS_MAX, StreamMeta};
use crate::subscription::{Start, Subscription, SubscriptionError};
use crate::time::{MILLISECOND_NS, MonoTime};
use crate::wire::{FrameError, PROTOCOL_MAX};
use foldhash::fast::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tidegate_engine::{Output, SLOT_COUNT};

/// What the server tells every subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// The streams by number, those that have ended included.
    pub streams: Vec<StreamMeta>,
    /// Numbers of those that have ended: nobody is told of them any more.
    pub ended: BTreeSet<u16>,
    /// What the server calls itself.
    pub server: String,
    /// Another number for each start of the server.
    pub incarnation: u64,
    /// How often either side says something, in milliseconds.
    pub heartbeat_ms: u32,
    /// Silence after which a connection is closed, in nanoseconds.
    pub silence_ns: u64,
    /// How long a connection may take until it has subscribed, in nanoseconds.
    pub hello_ns: u64,
}

impl Catalogue {
    /// The streams that can be asked for, with their numbers.
    pub fn open(&self) -> impl Iterator<Item = (u16, &StreamMeta)> {
        (0u16..).zip(&self.streams).filter(|(number, _)| !self.ended.contains(number))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Choosing,
    Live,
}

/// What a subscriber's frame asks of the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    Nothing,
    /// Subscribe, then call [`SubscriberSession::subscribed`].
    Subscribe(Subscription),
    /// It is done; close.
    Finished,
}

/// The server's side of one subscriber's connection. Records themselves come from the [`crate::hub::Hub`].
#[derive(Debug)]
pub struct SubscriberSession {
    catalogue: Arc<Catalogue>,
    stage: Stage,
    edges: Vec<(u16, u16, u64)>,
    name: String,
    heard: MonoTime,
    told: MonoTime,
    echo: u64,
}

impl SubscriberSession {
    /// A connection that has said nothing yet.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, now: MonoTime) -> Self {
        Self {
            catalogue,
            stage: Stage::Greeting,
            edges: Vec::new(),
            name: String::new(),
            heard: now,
            told: now,
            echo: 0,
        }
    }

    /// What the subscriber calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a frame; answers are appended to `out`.
    ///
    /// # Errors
    /// The words to close the connection with.
    pub fn handle(
        &mut self,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Request, Close> {
        self.heard = now;
        match (self.stage, frame) {
            (_, Frame::Close { .. }) => return Ok(Request::Finished),
            (Stage::Greeting, Frame::Hello(hello)) => {
                let version = credential::agreed(hello, PROTOCOL_MAX)?;
                if hello.plane != Plane::Subscribe {
                    return Err(Close::new(CloseCode::PROTOCOL, "a feed on the subscribers' plane"));
                }
                hello.name.clone_into(&mut self.name);
                self.greet(version, out);
                self.told = now;
                self.stage = Stage::Choosing;
                return Ok(Request::Nothing);
            }
            (Stage::Choosing, Frame::Edge(edge)) => {
                if usize::from(edge.stream) >= self.catalogue.streams.len() {
                    let known = self.catalogue.streams.len();
                    let reason = format!("there is no stream {}, there are {known}", edge.stream);
                    return Err(Close::new(CloseCode::SUBSCRIPTION, reason));
                }
                // As many as there can be, or somebody sends them in circles.
                if self.edges.len() + edge.iter().count() > SLOT_COUNT * self.catalogue.streams.len() {
                    return Err(Close::new(CloseCode::PROTOCOL, "more numbers than there are slots"));
                }
                self.edges.extend(edge.iter().map(|(slot, next)| (edge.stream, slot, next)));
                return Ok(Request::Nothing);
            }
            (Stage::Choosing, Frame::Subscribe(frame)) => {
                let name = |id: u16| Some(self.catalogue.streams.get(usize::from(id))?.name.clone());
                let edges = std::mem::take(&mut self.edges);
                let subscription = Subscription::decode(frame, &edges, name)
                    .map_err(|error| Close::new(CloseCode::SUBSCRIPTION, error.to_string()))?;
                return Ok(Request::Subscribe(subscription));
            }
            (Stage::Choosing | Stage::Live, Frame::Heartbeat { nonce, .. }) => {
                self.echo = *nonce;
                return Ok(Request::Nothing);
            }
            _ => {}
        }
        let place = match self.stage {
            Stage::Greeting => "before HELLO",
            Stage::Choosing => "before SUBSCRIBE",
            Stage::Live => "from a subscriber",
        };
        let error = FrameError::Unexpected { offset, kind: frame.kind(), place };
        Err(Close::new(CloseCode::PROTOCOL, error.to_string()))
    }

    fn greet(&self, version: u8, out: &mut Vec<u8>) {
        let Catalogue { server, incarnation, heartbeat_ms, .. } = &*self.catalogue;
        FrameWriter::new(out).hello_ack(&HelloAck {
            version,
            ack_mode: crate::AckMode::None,
            incarnation: *incarnation,
            last: 0,
            credit: 0,
            names: 0,
            names_max: 0,
            heartbeat_ms: *heartbeat_ms,
            streams: self.catalogue.open().count() as u32,
            server,
        });
        for (id, stream) in self.catalogue.open() {
            FrameWriter::new(out).stream(id, stream.kind, &stream.name, &stream.columns);
        }
    }

    /// The hub answered a [`Request::Subscribe`].
    ///
    /// # Errors
    /// The words to close the connection with, when it refused.
    pub fn subscribed(
        &mut self,
        now: MonoTime,
        outcome: Result<u64, SubscriptionError>,
        out: &mut Vec<u8>,
    ) -> Result<(), Close> {
        let lag_budget = outcome.map_err(|error| {
            let busy = matches!(error, SubscriptionError::Busy { .. });
            let code = if busy { CloseCode::BUSY } else { CloseCode::SUBSCRIPTION };
            Close::new(code, error.to_string())
        })?;
        self.stage = Stage::Live;
        self.told = now;
        FrameWriter::new(out).subscribed(lag_budget, self.catalogue.open().count() as u32);
        Ok(())
    }

    /// Records or something else went out at `now`.
    pub fn told(&mut self, now: MonoTime) {
        self.told = now;
    }

    /// Appends a heartbeat when it is time.
    ///
    /// # Errors
    /// [`CloseCode::SILENT`] when nothing was heard for too long.
    pub fn tick(&mut self, now: MonoTime, out: &mut Vec<u8>) -> Result<(), Close> {
        let limit =
            if self.stage == Stage::Live { self.catalogue.silence_ns } else { self.catalogue.hello_ns };
        if now.since(self.heard) >= limit {
            let ms = limit / MILLISECOND_NS;
            return Err(Close::new(CloseCode::SILENT, format!("nothing was heard for {ms} ms")));
        }
        if self.stage == Stage::Live
            && now.since(self.told) >= u64::from(self.catalogue.heartbeat_ms) * MILLISECOND_NS
        {
            self.told = now;
            FrameWriter::new(out).heartbeat(now.0, self.echo);
        }
        Ok(())
    }

    /// When [`SubscriberSession::tick`] is to be called next, if nothing else happens.
    #[must_use]
    pub fn timeout(&self) -> MonoTime {
        if self.stage != Stage::Live {
            return self.heard.after(self.catalogue.hello_ns);
        }
        let beat = self.told.after(u64::from(self.catalogue.heartbeat_ms) * MILLISECOND_NS);
        beat.min(self.heard.after(self.catalogue.silence_ns))
    }
}

/// How a connection goes on from the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// Behind the last record of each slot: nothing is missing, nothing comes twice.
    Resumed,
    /// The one before broke while its past was still coming, so it begins as asked for: what came of that past comes again.
    Anew,
    /// The server was started anew. What the one before had computed is gone, and so is what of it was not delivered; nobody
    /// knows how much that is. Numbers begin at 1 again: everything that the new one has computed since its start follows,
    /// and what it no longer keeps is told as lost. Records may speak of windows that came before.
    NewLineage {
        /// The new server's number.
        incarnation: u64,
    },
}

/// What a subscriber is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SubscriberEvent<'a> {
    /// The cluster has several groups, of which this server may hold some only.
    Groups(&'a GroupMap),
    /// The catalogue is complete and the request was sent.
    Ready {
        /// The server's streams by number; where there is none, one without a name.
        streams: &'a [StreamMeta],
        /// How it goes on from the connection before; `None` for the first that got this far.
        continuation: Option<Continuation>,
    },
    /// The subscription stands; it may be so many records behind.
    Subscribed {
        /// Records.
        lag_budget: u64,
    },
    /// A result.
    Record {
        /// The key's name.
        name: &'a str,
        /// The stream.
        stream: &'a StreamMeta,
        /// The record.
        output: &'a Output,
        /// Whether it is from before the edge.
        past: bool,
    },
    /// From here on, records of this stream are live.
    Live {
        /// The stream.
        stream: &'a StreamMeta,
    },
    /// Records that are not coming.
    Loss(Loss),
    /// So many records gave way to newer ones of their keys, as the subscription asks.
    Conflated(u64),
    /// The server ended the subscription.
    Closed(&'a Close),
}

/// What a subscriber knows of one of its streams.
#[derive(Debug, Clone)]
struct Known {
    /// The next number of each slot; the way back after a reconnect.
    next: Box<[u64]>,
    /// Whether [`Known::next`] can be trusted: the edges were seen, or numbers were asked for.
    resumable: bool,
    /// Edges that are to come: one for each number that the server has given the stream.
    edges_due: usize,
}

/// The subscriber's side. Keeps what is needed to come back: names, and the next number of each slot.
#[derive(Debug)]
pub struct SubscriberClient {
    name: String,
    /// The group whose records are wanted, where there are several; `None` for all.
    group: Option<u16>,
    subscription: Subscription,
    names_max: usize,
    names: HashMap<u64, Box<str>, RandomState>,
    /// By number; where there is none, one without a name.
    streams: Vec<StreamMeta>,
    streams_due: u32,
    /// By place in the subscription.
    known: Vec<Option<Known>>,
    /// By number of the stream, its place in the subscription.
    places: Vec<Option<usize>>,
    stage: Stage,
    heartbeat_ns: u64,
    heard: MonoTime,
    told: MonoTime,
    echo: u64,
    shown: Shown,
    /// The server's start that answered, and the one that [`Known::next`] speaks of.
    greeted_by: u64,
    incarnation: Option<u64>,
    continuation: Option<Continuation>,
    /// Whether numbers were asked for, so that the past too counts towards [`Known::next`].
    by_number: bool,
}

/// Silence after which a server counts as dead, in nanoseconds.
const SILENCE_NS: u64 = 10_000 * MILLISECOND_NS;

impl SubscriberClient {
    /// Most names kept: what a server may make a client remember.
    pub const NAMES_MAX: usize = 1 << 24;

    /// A subscriber that is not connected.
    ///
    /// # Errors
    /// As [`Subscription::check`].
    pub fn new(name: &str, subscription: Subscription) -> Result<Self, SubscriptionError> {
        subscription.check()?;
        Ok(Self {
            name: name.to_owned(),
            group: None,
            names_max: Self::NAMES_MAX,
            names: HashMap::default(),
            places: Vec::new(),
            streams: Vec::new(),
            streams_due: 0,
            known: vec![None; subscription.streams.len()],
            subscription,
            stage: Stage::Greeting,
            heartbeat_ns: 3_000 * MILLISECOND_NS,
            heard: MonoTime::default(),
            told: MonoTime::default(),
            echo: 0,
            shown: Shown::default(),
            greeted_by: 0,
            incarnation: None,
            continuation: None,
            by_number: false,
        })
    }

    /// Only the records of one group are wanted, of the several that the cluster has.
    pub fn of_group(&mut self, group: u16) {
        self.group = Some(group);
    }

    /// What to show on the next connection, and on those after it: who this is. `None` for nothing.
    ///
    /// # Panics
    /// For a token that is empty or too long.
    pub fn present(&mut self, credential: Option<Credential<'_>>) {
        self.shown = Shown::new(credential);
    }

    /// A new connection stands: these are its first bytes. After an earlier one, the subscription goes on behind the last
    /// record of each slot, unless that one broke before its past was complete or the server was started anew: see
    /// [`Continuation`].
    pub fn connected(&mut self, now: MonoTime, out: &mut Vec<u8>) {
        (self.heard, self.told) = (now, now);
        self.stage = Stage::Greeting;
        self.streams.clear();
        FrameWriter::new(out).hello(&Hello {
            version_min: *self.shown.versions(self.group).start(),
            version_max: *self.shown.versions(self.group).end(),
            plane: Plane::Subscribe,
            group: self.group,
            ack_mode: crate::AckMode::None,
            source_id: 0,
            session: 0,
            name: &self.name,
            credential: self.shown.credential(),
        });
    }

    /// How the subscription goes on from the connection before; `None` for the first.
    #[must_use]
    pub fn continuation(&self) -> Option<Continuation> {
        self.continuation
    }

    /// Numbers are of one start of the server. Those of another one mean nothing here: everything of it is wanted, from its
    /// first record on.
    fn lineage(&mut self, incarnation: u64) {
        let before = self.incarnation.replace(incarnation);
        let asked = self.known.iter().any(Option::is_some);
        self.continuation = match before {
            Some(before) if asked && before != incarnation => {
                let first = || vec![1; SLOT_COUNT].into_boxed_slice();
                self.known.fill_with(|| Some(Known { next: first(), resumable: true, edges_due: 0 }));
                Some(Continuation::NewLineage { incarnation })
            }
            _ if !asked => None,
            _ if self.is_resumable() => Some(Continuation::Resumed),
            _ => Some(Continuation::Anew),
        };
    }

    fn is_resumable(&self) -> bool {
        self.known.iter().all(|known| known.as_ref().is_some_and(|known| known.resumable))
    }

    /// What to ask for now: the subscription, or where it stopped.
    fn request(&self) -> Subscription {
        if !self.is_resumable() {
            return self.subscription.clone();
        }
        let mut slots = Vec::new();
        for (place, known) in (0u16..).zip(self.known.iter().flatten()) {
            let next = (0u16..).zip(&known.next).filter(|(_, next)| **next > 1);
            slots.extend(next.map(|(slot, next)| (place, slot, *next)));
        }
        Subscription { start: Start::Sequence { default: 1, slots }, ..self.subscription.clone() }
    }

    /// Takes a frame of the server; answers are appended to `out`.
    ///
    /// # Errors
    /// The words to close the connection with.
    pub fn handle(
        &mut self,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(SubscriberEvent<'_>),
    ) -> Result<(), Close> {
        self.heard = now;
        match frame {
            Frame::HelloAck(ack) if self.stage == Stage::Greeting => {
                let known = self.shown.versions(self.group).contains(&ack.version);
                if !known || !(1..=Subscription::STREAMS_MAX as u32).contains(&ack.streams) {
                    let (version, streams) = (ack.version, ack.streams);
                    let reason = format!("the server answers with version {version} and {streams} streams");
                    return Err(Close::new(CloseCode::VERSION, reason));
                }
                self.heartbeat_ns = u64::from(ack.heartbeat_ms) * MILLISECOND_NS;
                self.streams_due = ack.streams;
                self.greeted_by = ack.incarnation;
                self.stage = Stage::Choosing;
            }
            Frame::Groups(groups) if self.stage == Stage::Greeting => match GroupMap::of(groups) {
                Ok(map) => each(SubscriberEvent::Groups(&map)),
                Err(error) => return Err(Close::new(CloseCode::PROTOCOL, error.to_string())),
            },
            Frame::Stream(stream) if self.stage == Stage::Choosing && self.streams_due > 0 => {
                let number = usize::from(stream.id);
                if number < self.streams.len() || number >= STREAM_NUMBERS_MAX {
                    return Err(Close::new(CloseCode::PROTOCOL, "streams out of order"));
                }
                // Numbers of streams that have ended are left out.
                let none = || StreamMeta { name: String::new(), kind: stream.kind, columns: Vec::new() };
                self.streams.resize_with(number, none);
                self.streams_due -= 1;
                let mut texts = stream.texts.iter().map(str::to_owned);
                let name = texts.next().unwrap_or_default();
                self.streams.push(StreamMeta { name, kind: stream.kind, columns: texts.collect() });
                if self.streams_due == 0 {
                    self.choose(out)?;
                    self.told = now;
                    let continuation = self.continuation;
                    each(SubscriberEvent::Ready { streams: &self.streams, continuation });
                }
            }
            Frame::Subscribed { lag_budget, .. } if self.stage == Stage::Choosing => {
                self.stage = Stage::Live;
                each(SubscriberEvent::Subscribed { lag_budget: *lag_budget });
            }
            Frame::Close { code, reason } => {
                each(SubscriberEvent::Closed(&Close::new(*code, *reason)));
            }
            Frame::Heartbeat { nonce, .. } => self.echo = *nonce,
            Frame::Names(names) if self.stage == Stage::Live => {
                for (hash, name) in names.iter() {
                    if self.names.len() >= self.names_max && !self.names.contains_key(&hash) {
                        let reason = format!("the server sent more than {} names", self.names_max);
                        return Err(Close::new(CloseCode::PROTOCOL, reason));
                    }
                    self.names.entry(hash).or_insert_with(|| name.into());
                }
            }
            Frame::Records(records) if self.stage == Stage::Live => {
                if records.conflated > 0 {
                    each(SubscriberEvent::Conflated(records.conflated));
                }
                for output in records.iter() {
                    self.record(&output, records.past, each)?;
                }
            }
            Frame::Loss(loss) if self.stage == Stage::Live => each(SubscriberEvent::Loss(*loss)),
            Frame::Edge(edge) if self.stage == Stage::Live => {
                let Some(meta) = self.streams.get(usize::from(edge.stream)) else {
                    return Err(unknown_stream(edge.stream));
                };
                if let Some(known) = known(&self.places, &mut self.known, edge.stream) {
                    // Where groups have a number each, their slots are not each other's.
                    if !known.resumable {
                        edge.iter()
                            .for_each(|(slot, next)| known.next[usize::from(slot) % SLOT_COUNT] = next);
                    }
                    known.edges_due = known.edges_due.saturating_sub(1);
                    known.resumable |= known.edges_due == 0;
                }
                each(SubscriberEvent::Live { stream: meta });
            }
            _ => {
                let error =
                    FrameError::Unexpected { offset, kind: frame.kind(), place: "from a server of results" };
                return Err(Close::new(CloseCode::PROTOCOL, error.to_string()));
            }
        }
        Ok(())
    }

    fn choose(&mut self, out: &mut Vec<u8>) -> Result<(), Close> {
        self.lineage(self.greeted_by);
        let request = self.request();
        let stream_id =
            |name: &str| self.streams.iter().position(|stream| stream.name == name).map(|at| at as u16);
        if let Some(name) = request.streams.iter().find(|name| stream_id(name).is_none()) {
            let named =
                self.streams.iter().map(|stream| stream.name.as_str()).filter(|name| !name.is_empty());
            let known = named.collect::<Vec<_>>().join(", ");
            let error = SubscriptionError::UnknownStream { name: name.clone(), known };
            return Err(Close::new(CloseCode::SUBSCRIPTION, error.to_string()));
        }
        let place = |stream: &StreamMeta| request.streams.iter().position(|name| *name == stream.name);
        self.places = self.streams.iter().map(place).collect();
        self.by_number = matches!(request.start, Start::Sequence { .. });
        request
            .encode(stream_id, out)
            .map_err(|error| Close::new(CloseCode::SUBSCRIPTION, error.to_string()))?;
        for (place, known) in (0u16..).zip(&mut self.known) {
            // Asked for by number, what is missing is known from the start; else from the edge on.
            let mut next = vec![1; SLOT_COUNT].into_boxed_slice();
            if let Start::Sequence { default, slots } = &request.start {
                next.fill((*default).max(1));
                for (_, slot, from) in slots.iter().filter(|(at, ..)| *at == place) {
                    next[usize::from(*slot) % SLOT_COUNT] = *from;
                }
            }
            let numbers = self.places.iter().filter(|of| **of == Some(usize::from(place))).count();
            *known = Some(Known { next, resumable: self.by_number, edges_due: numbers });
        }
        Ok(())
    }

    fn record(
        &mut self,
        output: &Output,
        past: bool,
        each: &mut dyn FnMut(SubscriberEvent<'_>),
    ) -> Result<(), Close> {
        let stream = self.streams.get(usize::from(output.stream)).filter(|stream| !stream.name.is_empty());
        let Some(stream) = stream else {
            return Err(unknown_stream(output.stream));
        };
        if (!past || self.by_number)
            && let Some(known) = known(&self.places, &mut self.known, output.stream)
        {
            let next = &mut known.next[usize::from(output.slot) % SLOT_COUNT];
            *next = (*next).max(output.sequence.saturating_add(1));
        }
        let name = self.names.get(&output.name).map_or("?", |name| name);
        each(SubscriberEvent::Record { name, stream, output, past });
        Ok(())
    }

    /// Appends a heartbeat when it is time.
    ///
    /// # Errors
    /// [`CloseCode::SILENT`] when nothing was heard for too long.
    pub fn tick(&mut self, now: MonoTime, out: &mut Vec<u8>) -> Result<(), Close> {
        if now.since(self.heard) >= SILENCE_NS {
            let ms = SILENCE_NS / MILLISECOND_NS;
            return Err(Close::new(CloseCode::SILENT, format!("nothing was heard for {ms} ms")));
        }
        if self.stage == Stage::Live && now.since(self.told) >= self.heartbeat_ns {
            self.told = now;
            FrameWriter::new(out).heartbeat(now.0, self.echo);
        }
        Ok(())
    }

    /// When [`SubscriberClient::tick`] is to be called next, if nothing else happens.
    #[must_use]
    pub fn timeout(&self) -> MonoTime {
        self.told.after(self.heartbeat_ns).min(self.heard.after(SILENCE_NS))
    }

    /// The server's streams by number, as far as it has named them; where there is none, one without a name.
    #[must_use]
    pub fn streams(&self) -> &[StreamMeta] {
        &self.streams
    }

    /// The kind of a stream.
    #[must_use]
    pub fn kind(&self, stream: u16) -> Option<StreamKind> {
        self.streams.get(usize::from(stream)).map(|meta| meta.kind)
    }
}

fn known<'k>(places: &[Option<usize>], known: &'k mut [Option<Known>], stream: u16) -> Option<&'k mut Known> {
    known.get_mut((*places.get(usize::from(stream))?)?)?.as_mut()
}

fn unknown_stream(stream: u16) -> Close {
    Close::new(CloseCode::PROTOCOL, format!("a record of stream {stream}, which the server never named"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, HubOptions, Polled};
    use crate::wire::FrameBuffer;
    use tidegate_engine::{name_hash, output_kind, slot_of};

    fn frames(bytes: &[u8], mut each: impl FnMut(u64, &Frame<'_>)) {
        let mut buffer = FrameBuffer::new(4);
        assert_eq!(buffer.push(bytes), bytes.len());
        while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
            each(offset, &Frame::read(offset, &head, body).unwrap());
        }
        buffer.finish().unwrap();
    }

    fn catalogue() -> Arc<Catalogue> {
        let stream =
            |name: &str| StreamMeta { name: name.into(), kind: StreamKind::Bars, columns: vec!["c".into()] };
        Arc::new(Catalogue {
            streams: vec![stream("bars.1s"), stream("bars.1m")],
            server: "here".into(),
            ended: BTreeSet::new(),
            incarnation: 3,
            heartbeat_ms: 1_000,
            silence_ns: 5_000 * MILLISECOND_NS,
            hello_ns: 2_000 * MILLISECOND_NS,
        })
    }

    /// One connection from greeting to where `take` records were read, then it breaks.
    fn connection(hub: &mut Hub, client: &mut SubscriberClient, take: usize, got: &mut Vec<(u16, u16, u64)>) {
        connection_to(hub, catalogue(), client, take, got);
    }

    fn connection_to(
        hub: &mut Hub,
        catalogue: Arc<Catalogue>,
        client: &mut SubscriberClient,
        take: usize,
        got: &mut Vec<(u16, u16, u64)>,
    ) {
        let now = MonoTime(1);
        let mut session = SubscriberSession::new(catalogue, now);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        client.connected(now, &mut up);
        let mut id = None;
        for _ in 0..3 {
            frames(&std::mem::take(&mut up), |offset, frame| {
                if let Request::Subscribe(spec) = session.handle(now, offset, frame, &mut down).unwrap() {
                    let new = hub.subscribe(&spec, now).unwrap();
                    id = Some(new);
                    session.subscribed(now, Ok(hub.lag_budget(new).unwrap()), &mut down).unwrap();
                }
            });
            frames(&std::mem::take(&mut down), |offset, frame| {
                client.handle(now, offset, frame, &mut up, &mut |_| {}).unwrap();
            });
        }
        let id = id.expect("subscribed");
        let start = got.len();
        loop {
            let mut out = Vec::new();
            let polled = hub.poll_frames(id, now, 400, &mut out);
            for bytes in &out {
                frames(bytes, |offset, frame| {
                    client
                        .handle(now, offset, frame, &mut up, &mut |event| {
                            if let SubscriberEvent::Record { name, output, .. } = event {
                                assert_eq!(name_hash(name.as_bytes()), output.name);
                                got.push((output.stream, output.slot, output.sequence));
                            }
                        })
                        .unwrap();
                });
            }
            if got.len() - start >= take || polled != Polled::More {
                hub.unsubscribe(id);
                return;
            }
        }
    }

    #[test]
    fn however_often_it_breaks_every_record_comes_once() {
        let mut hub = Hub::new(catalogue().streams.clone(), HubOptions::default()).unwrap();
        let spec = Subscription {
            start: Start::Sequence { default: 1, slots: Vec::new() },
            ..Subscription::to(["bars.1m", "bars.1s"])
        };
        let mut client = SubscriberClient::new("test", spec).unwrap();
        let mut want = Vec::new();
        let mut got = Vec::new();
        for round in 0..40u64 {
            for at in 0..23u64 {
                let name = format!("K{}", at % 5);
                hub.define(&name);
                let hash = name_hash(name.as_bytes());
                let stream = (at % 2) as u16;
                let same = |&&(s, slot, _): &&(u16, u16, u64)| (s, slot) == (stream, slot_of(hash));
                let sequence = 1 + want.iter().filter(same).count() as u64;
                want.push((stream, slot_of(hash), sequence));
                let output = Output {
                    name: hash,
                    slot: slot_of(hash),
                    sequence,
                    stream,
                    kind: output_kind::VALUES,
                    count: 3,
                    ..Output::default()
                };
                hub.publish(&[output]);
            }
            connection(&mut hub, &mut client, (round * 7 % 31) as usize, &mut got);
            assert_eq!(client.continuation(), (round > 0).then_some(Continuation::Resumed));
        }
        connection(&mut hub, &mut client, usize::MAX, &mut got);
        want.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, want);
    }

    /// `count` further records of one key, on top of what the hub has.
    fn publish(hub: &mut Hub, have: &mut u64, count: u64) {
        let name = name_hash(b"K");
        hub.define("K");
        for _ in 0..count {
            *have += 1;
            let output = Output {
                name,
                slot: slot_of(name),
                sequence: *have,
                kind: output_kind::VALUES,
                ..Output::default()
            };
            hub.publish(&[output]);
        }
    }

    #[test]
    fn another_start_of_the_server_is_told_and_heard_from_its_first_record_on() {
        let starts = [Start::Latest, Start::Snapshot, Start::Sequence { default: 3, slots: Vec::new() }];
        for start in starts {
            let spec = Subscription { start: start.clone(), ..Subscription::to(["bars.1s"]) };
            let mut client = SubscriberClient::new("test", spec).unwrap();
            let mut hub = Hub::new(catalogue().streams.clone(), HubOptions::default()).unwrap();
            let (mut have, mut got) = (0, Vec::new());
            publish(&mut hub, &mut have, 5);
            connection(&mut hub, &mut client, usize::MAX, &mut got);
            publish(&mut hub, &mut have, 4);
            connection(&mut hub, &mut client, usize::MAX, &mut got);
            assert_eq!(client.continuation(), Some(Continuation::Resumed), "{start:?}");
            assert_eq!(got.last().map(|last| last.2), Some(9));

            // It has fewer records than were seen of the old one: the old numbers would hide them all.
            let mut hub = Hub::new(catalogue().streams.clone(), HubOptions::default()).unwrap();
            let next = Arc::new(Catalogue { incarnation: 4, ..(*catalogue()).clone() });
            let mut have = 0;
            publish(&mut hub, &mut have, 6);
            // A first attempt that breaks before the catalogue is complete does not swallow the news.
            let (mut session, mut down) =
                (SubscriberSession::new(Arc::clone(&next), MonoTime(1)), Vec::new());
            let (mut up, mut seen) = (Vec::new(), 0);
            client.connected(MonoTime(1), &mut up);
            frames(&up, |offset, frame| {
                session.handle(MonoTime(1), offset, frame, &mut down).unwrap();
            });
            frames(&down, |offset, frame| {
                if seen < 2 {
                    client.handle(MonoTime(1), offset, frame, &mut up, &mut |_| {}).unwrap();
                }
                seen += 1;
            });
            assert_eq!(seen, 3, "an answer and two streams");
            got.clear();
            connection_to(&mut hub, Arc::clone(&next), &mut client, 2, &mut got);
            let told = Some(Continuation::NewLineage { incarnation: 4 });
            assert_eq!(client.continuation(), told, "{start:?}");
            publish(&mut hub, &mut have, 1);
            connection_to(&mut hub, next, &mut client, usize::MAX, &mut got);
            assert_eq!(client.continuation(), Some(Continuation::Resumed));
            let numbers: Vec<u64> = got.iter().map(|record| record.2).collect();
            assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7], "{start:?}");
        }
    }

    #[test]
    fn frames_out_of_turn_are_named() {
        let mut session = SubscriberSession::new(catalogue(), MonoTime(0));
        let mut out = Vec::new();
        let beat = Frame::Heartbeat { nonce: 1, echo: 2 };
        let close = session.handle(MonoTime(0), 77, &beat, &mut out).unwrap_err();
        assert_eq!(close.code, CloseCode::PROTOCOL);
        assert_eq!(close.reason, "at byte 77: a Heartbeat frame is not expected before HELLO");
        let hello = Frame::Hello(Hello {
            version_min: 9,
            version_max: 12,
            plane: Plane::Subscribe,
            group: None,
            ack_mode: crate::AckMode::None,
            source_id: 0,
            session: 0,
            name: "",
            credential: None,
        });
        let close = session.handle(MonoTime(0), 0, &hello, &mut out).unwrap_err();
        assert_eq!(close.to_string(), "version: versions 9 to 12 were offered, this server speaks 1 to 5");
        assert!(session.tick(MonoTime(2_000 * MILLISECOND_NS), &mut out).is_err(), "two seconds for a hello");
    }
}
