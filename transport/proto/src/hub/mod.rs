//! Everything that can be asked about results: who wants which records from where on, the newest of each key, the last few
//! of each key. One owner, no I/O; time is passed in.
//!
//! # How a front end uses it
//!
//! One thread owns the [`Hub`]. It defines names ([`Hub::define`]) before it publishes the first record about them
//! ([`Hub::publish`], with what came out of the shards' rings), and lets readers poll:
//!
//! ```
//! use tidegate_proto::hub::{Hub, HubOptions, Item, Polled, StreamMeta};
//! use tidegate_proto::{MonoTime, StreamKind, subscription::Subscription};
//! use tidegate_engine::{Output, name_hash, output_kind, slot_of};
//!
//! let bars = StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: vec![] };
//! let mut hub = Hub::new(vec![bars], HubOptions::default()).unwrap();
//! let me = hub.subscribe(&Subscription::to(["bars.1s"]), MonoTime(0)).unwrap();
//!
//! let name = name_hash(b"BTCUSD");
//! hub.define("BTCUSD");
//! hub.publish(&[Output { name, slot: slot_of(name), sequence: 1, kind: output_kind::BAR, count: 16, ..Output::default() }]);
//!
//! let mut seen = 0;
//! let polled = hub.poll(me, MonoTime(1), 100, &mut |item| {
//!     if let Item::Record { name, output, .. } = item {
//!         assert_eq!((name, output.sequence), ("BTCUSD", 1));
//!         seen += 1;
//!     }
//! });
//! assert_eq!((seen, polled), (1, Polled::Idle { due: None }));
//! assert_eq!(hub.latest(0, "BTCUSD").map(|output| output.sequence), Some(1));
//! ```
//!
//! - A gateway that speaks its own format uses [`Hub::poll`], which hands it items; the QUIC server uses [`Hub::poll_frames`],
//!   which hands it frames, shared between all readers that want the same.
//! - A reader is polled when it can take something: a socket that is full is simply not polled. What piles up meanwhile stays
//!   in the stream's ring, and when the reader is behind by more than its lag budget its policy decides. A slow reader
//!   never costs anyone else anything.
//! - Queries (streams, keys, [`Hub::latest`], [`Hub::lookback`]) answer from memory in time proportional to the answer.
//!
//! What is bounded, and what happens there: records per stream ([`HubOptions::ring_records`]: the oldest go, readers still
//! behind them by their policy), keys ([`HubOptions::keys_max`]: records of further names reach only readers of all keys), history
//! ([`HubOptions::lookback_records`] per key and [`HubOptions::lookback_total`]: a key's oldest go), readers
//! ([`HubOptions::subscribers_max`]: refused).

mod cursor;
mod history;
mod keys;
mod past;
mod relayed;
mod tap;
#[cfg(test)]
mod tests;

use crate::close::{Close, CloseCode};
use crate::frame::{FrameWriter, Loss, LossCause, StreamKind};
use crate::subscription::{Start, Subscription, SubscriptionError};
use crate::time::MonoTime;
use crate::wire::{BODY_BYTES_MAX, NAME_BYTES_MAX};
use bytes::Bytes;
use cursor::{Cursor, Edge, Floor, Subscriber};
use history::History;
use keys::Keyring;
pub use keys::{KeyInfo, KeySearch};
pub use past::{PastError, StreamPast};
use relayed::Holes;
use std::collections::VecDeque;
use std::sync::Arc;
use tap::Tap;
pub use tap::TapId;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::{Output, SLOT_COUNT, output_kind};

/// Bounds of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubOptions {
    /// Records kept per stream for readers that are behind or come back: 64 to 2^24, 168 bytes each.
    pub ring_records: usize,
    /// Keys known: 1 to 2^26.
    pub keys_max: usize,
    /// Records kept per stream and key: 1 to 65,536.
    pub lookback_records: usize,
    /// Records kept of all keys and streams together, beyond one for each: 0 to 2^28, 168 bytes each.
    pub lookback_total: usize,
    /// Records from before its start that one subscription may ask for, and all together that are not yet delivered.
    pub past_records_max: usize,
    /// Readers at once.
    pub subscribers_max: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            ring_records: 1 << 16,
            keys_max: 1 << 20,
            lookback_records: 256,
            lookback_total: 1 << 19,
            past_records_max: 1 << 18,
            subscribers_max: 10_000,
        }
    }
}

fn check(option: &'static str, found: usize, min: usize, max: usize) -> Result<(), HubError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let (found, min, max) = (found as u64, min as u64, max as u64);
    Err(HubError::Option { option, found, min, max })
}

impl HubOptions {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`HubError::Option`] for the first option out of range.
    pub fn check(&self) -> Result<(), HubError> {
        check("ring_records", self.ring_records, 64, 1 << 24)?;
        check("keys_max", self.keys_max, 1, 1 << 26)?;
        check("lookback_records", self.lookback_records, 1, 1 << 16)?;
        check("lookback_total", self.lookback_total, 0, 1 << 28)?;
        check("past_records_max", self.past_records_max, 1, 1 << 28)?;
        check("subscribers_max", self.subscribers_max, 1, 1 << 20)
    }
}

/// One stream of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamMeta {
    /// Name for people: `bars.1s`.
    pub name: String,
    /// What its records are.
    pub kind: StreamKind,
    /// Columns of its rows; empty for bars, whose words are [`tidegate_engine::BarWords`].
    pub columns: Vec<String>,
}

/// Streams that were announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The number of the first of them.
    pub first: u16,
    /// Of those whose name one had that has ended, its last number per slot.
    pub behind: Vec<(String, Arc<[u64]>)>,
}

/// Why a hub cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// An option out of its range.
    #[error("{option} is {found}, allowed are {min} to {max}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: u64,
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// Two streams of one name.
    #[error("there are two streams `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// Streams to go on, to end or to begin that are not as said.
    #[error("there is no stream {number} that could end")]
    NoStream {
        /// Its number.
        number: u16,
    },
}

/// One reader. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId {
    index: u32,
    generation: u32,
}

impl std::fmt::Display for SubscriberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// What a reader is handed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Item<'a> {
    /// A result.
    Record {
        /// The key's name; `?` for one beyond [`HubOptions::keys_max`].
        name: &'a str,
        /// The record; [`Output::stream`] is the stream's number.
        output: &'a Output,
        /// Whether it is from before the subscription's edge.
        past: bool,
    },
    /// From here on, records of this stream are live. Comes once per stream, behind its past records.
    Edge {
        /// The stream's number.
        stream: u16,
        /// The next number of each slot that has one, as of the moment of subscribing; of the others it is 1.
        next: &'a [(u16, u64)],
    },
    /// Records this reader does not get.
    Loss(Loss),
    /// So many records gave way to newer ones of their keys, as the subscription asks, since the last such item.
    Conflated(u64),
}

/// Where a reader is after a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// There is more: poll again when there is room.
    More,
    /// It has everything, until something is published or `due` comes.
    Idle {
        /// When conflated records are to be delivered, if some wait.
        due: Option<MonoTime>,
    },
    /// It has ended, or was never there. Its place is free already.
    Closed(Close),
}

/// A reader's account, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriberStats {
    /// Who.
    pub id: SubscriberId,
    /// What it asked for.
    pub subscription: Subscription,
    /// Since when.
    pub since: MonoTime,
    /// Records it was concerned by since its edge (or the numbers it asked for).
    pub matched: u64,
    /// Of these, handed over.
    pub delivered: u64,
    /// Of these, gave way to newer ones of their keys.
    pub conflated: u64,
    /// Of these, dropped because it was behind.
    pub dropped: u64,
    /// Of these, waiting for their time as the newest of their key.
    pub pending: u64,
    /// Records of its past handed over (snapshot, lookback).
    pub past: u64,
    /// Records it asked for that were no longer kept.
    pub expired: u64,
    /// Records its slowest stream has published that it has not looked at.
    pub lag: u64,
}

impl SubscriberStats {
    /// Matched minus everything they became: zero, always.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        i128::from(self.matched)
            - i128::from(self.delivered)
            - i128::from(self.conflated)
            - i128::from(self.dropped)
            - i128::from(self.pending)
    }
}

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStats {
    /// Records published.
    pub published: u64,
    /// Of these, still in the ring.
    pub retained: u64,
    /// Keys with a record of a window in it.
    pub keys: u64,
    /// Newest event time.
    pub newest: u64,
}

/// How a key stands in a stream. Counts are since the hub was made; what a restart brought back counts too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyStats {
    /// Records published of it.
    pub records: u64,
    /// Of these, kept for lookback.
    pub kept: u64,
    /// Events in its bars; 0 where the stream has none.
    pub events: u64,
    /// The same of all keys of its slot.
    pub slot_events: u64,
    /// Events in bars of all keys.
    pub all_events: u64,
    /// Its newest record.
    pub newest: Output,
}

/// How a hub stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Keys known.
    pub keys: u64,
    /// Names refused because there were [`HubOptions::keys_max`] keys.
    pub keys_refused: u64,
    /// Records of names that were never defined, or refused.
    pub unnamed: u64,
    /// Records of streams that do not exist: a bug of whoever publishes.
    pub strays: u64,
    /// Readers.
    pub subscribers: u64,
    /// Records kept for lookback.
    pub lookback: u64,
    /// Records delivered to all readers there were.
    pub delivered: u64,
    /// Records dropped for all readers there were.
    pub dropped: u64,
    /// Records conflated for all readers there were.
    pub conflated: u64,
}

/// Where a stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its records are kept, and nobody can ask for them yet.
    Coming,
    Open,
    /// No more records come, and nobody can ask for them. Readers that are there get what is left.
    Ended,
}

/// One stream's records.
struct StreamState {
    meta: StreamMeta,
    phase: Phase,
    ring: VecDeque<Output>,
    /// Place of the ring's front among all records of the stream.
    first: u64,
    /// Last number per slot, and last number per slot that left the ring.
    heads: Box<[u64]>,
    evicted: Box<[u64]>,
    newest: u64,
    history: Vec<History>,
    /// Keys whose history is not empty.
    keyed: u64,
    /// Events in bars of all keys, and of each slot's.
    events: u64,
    slot_events: Box<[u64]>,
    /// Frames made of whole runs of the ring, for the next reader that stands at the same place.
    shared: VecDeque<(u64, u64, Bytes)>,
    /// Numbers that never came, between records of the ring. There are none but of slots that are relayed.
    holes: Holes,
}

/// Frames kept per stream for readers at the same place.
const SHARED_FRAMES: usize = 16;

impl StreamState {
    fn new(meta: StreamMeta, phase: Phase, options: &HubOptions) -> Self {
        Self {
            meta,
            phase,
            // Growing would copy all of it, again and again; what is not used yet is no memory but addresses.
            ring: VecDeque::with_capacity(options.ring_records.min(RESERVED_MAX)),
            first: 0,
            heads: vec![0; SLOT_COUNT].into_boxed_slice(),
            evicted: vec![0; SLOT_COUNT].into_boxed_slice(),
            newest: 0,
            history: Vec::new(),
            keyed: 0,
            events: 0,
            slot_events: vec![0; SLOT_COUNT].into_boxed_slice(),
            shared: VecDeque::new(),
            holes: Holes::new(),
        }
    }

    /// Gives back the memory of a stream that has ended and that nobody reads any more. Its last numbers are kept: another one of its
    /// name begins behind them.
    fn forget(&mut self) {
        self.first = self.head();
        (self.ring, self.shared, self.holes) = (VecDeque::new(), VecDeque::new(), Holes::new());
        (self.evicted, self.slot_events) = (Box::default(), Box::default());
    }

    fn head(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    fn at(&self, position: u64) -> Option<&Output> {
        self.ring.get(usize::try_from(position.checked_sub(self.first)?).ok()?)
    }

    /// The next number of each slot that has one.
    fn edge(&self) -> Vec<(u16, u64)> {
        let heads = (0u16..).zip(&self.heads);
        heads.filter(|(_, head)| **head > 0).map(|(slot, head)| (slot, head + 1)).collect()
    }

    /// A frame of records from `start` on, made once for all who stand there.
    fn shared_frame(&mut self, start: u64) -> (u64, Bytes) {
        let head = self.head();
        if let Some((_, end, frame)) = self.shared.iter().find(|(at, ..)| *at == start) {
            return (*end, frame.clone());
        }
        let mut out = Vec::new();
        let mut end = start;
        FrameWriter::new(&mut out).records(false, 0, |out| {
            let body = out.len();
            while end < head
                && let Some(output) = self.at(end)
                && out.len() - body + RECORD_BYTES_MAX <= BODY_BYTES_MAX - 16
            {
                out.extend_from_slice(output.record_bytes());
                end += 1;
            }
            (end - start) as u32
        });
        let frame = Bytes::from(out);
        if self.shared.len() >= SHARED_FRAMES {
            self.shared.pop_front();
        }
        self.shared.push_back((start, end, frame.clone()));
        (end, frame)
    }
}

/// Most streams over the life of a hub, those that ended included: their numbers are not given again.
pub const STREAM_NUMBERS_MAX: usize = 1_024;

/// Most places of a stream's ring that are reserved before they are used.
const RESERVED_MAX: usize = 1 << 18;

const RECORD_BYTES_MAX: usize = crate::frame::RECORD_HEAD_BYTES + 8 * OUTPUT_WORDS;

struct Place {
    generation: u32,
    subscriber: Option<Box<Subscriber>>,
}

/// Results and their readers. See the module's documentation.
pub struct Hub {
    options: HubOptions,
    streams: Vec<StreamState>,
    keys: Keyring,
    places: Vec<Place>,
    free: Vec<u32>,
    lookback: usize,
    past: usize,
    stats: HubStats,
    watermark: u64,
    /// Of each log, its newest barrier whose marker came, and how many shards' did.
    barriers: Vec<(u64, u32)>,
    /// Slots of which some results are computed again that are here already; see [`Hub::ignore_known`].
    again: Option<Box<[bool]>>,
    /// Copies for one reader within the process.
    /// Few: whoever computes from results in this process.
    taps: Vec<Tap>,
    taps_begun: u64,
}

impl Hub {
    /// A hub for streams, numbered by their place.
    ///
    /// # Errors
    /// [`HubError`] when an option, a name or a number of streams is out of range.
    pub fn new(streams: Vec<StreamMeta>, options: HubOptions) -> Result<Self, HubError> {
        options.check()?;
        check_streams(&streams.iter().collect::<Vec<_>>())?;
        Ok(Self {
            options,
            streams: streams.into_iter().map(|meta| StreamState::new(meta, Phase::Open, &options)).collect(),
            keys: Keyring::new(options.keys_max),
            places: Vec::new(),
            free: Vec::new(),
            lookback: 0,
            past: 0,
            stats: HubStats::default(),
            watermark: 0,
            barriers: Vec::new(),
            again: None,
            taps: Vec::new(),
            taps_begun: 0,
        })
    }

    /// Changes the bounds that can change while there are readers: `lookback_records`, `lookback_total`, `past_records_max` and
    /// `subscribers_max`. Readers that are there stay, with what they were granted; a key's history gets to its new bound with its
    /// next record. The other options stay as they were.
    ///
    /// # Errors
    /// [`HubError::Option`] when an option is out of range; then nothing changes.
    pub fn set_options(&mut self, options: HubOptions) -> Result<(), HubError> {
        options.check()?;
        self.options = HubOptions {
            ring_records: self.options.ring_records,
            keys_max: self.options.keys_max,
            ..options
        };
        Ok(())
    }

    /// Announces a change of streams: `ended` are the numbers of those that are to end, `coming` those that are to begin, numbered behind
    /// all that there ever were. From now on records of the new ones are kept, but nobody can ask for them before [`Hub::switch`].
    ///
    /// # Errors
    /// [`HubError`] when that is not possible; then nothing has changed.
    pub fn announce(&mut self, ended: &[u16], coming: Vec<StreamMeta>) -> Result<Announced, HubError> {
        let open = |number: u16| {
            self.streams.get(usize::from(number)).is_some_and(|state| state.phase == Phase::Open)
        };
        if let Some(&number) = ended.iter().find(|&&number| !open(number)) {
            return Err(HubError::NoStream { number });
        }
        let stay = (0u16..)
            .zip(&self.streams)
            .filter(|(at, state)| state.phase == Phase::Open && !ended.contains(at));
        check_streams(&stay.map(|(_, state)| &state.meta).chain(&coming).collect::<Vec<_>>())?;
        check("streams since the start", self.streams.len() + coming.len(), 1, STREAM_NUMBERS_MAX)?;
        let first = self.streams.len() as u16;
        let ended_before = |meta: &StreamMeta| {
            let old = self.last_ended(&meta.name)?;
            Some((meta.name.clone(), Arc::from(&*old.heads)))
        };
        let behind = coming.iter().filter_map(ended_before).collect();
        let options = self.options;
        self.streams.extend(coming.into_iter().map(|meta| StreamState::new(meta, Phase::Coming, &options)));
        Ok(Announced { first, behind })
    }

    /// The last stream of a name that has ended.
    fn last_ended(&self, name: &str) -> Option<&StreamState> {
        self.streams.iter().rev().find(|state| state.phase == Phase::Ended && state.meta.name == name)
    }

    /// No more records of `ended` come: their readers get what is left and are told [`CloseCode::CHANGED`]. Those that were announced
    /// begin; where one has the name of one that ends, or has ended before, its numbers go on.
    pub fn switch(&mut self, ended: &[u16]) {
        for &number in ended {
            let Some(old) = self.streams.get_mut(usize::from(number)) else { continue };
            if old.phase != Phase::Open {
                continue;
            }
            old.phase = Phase::Ended;
            // What is kept per key is of no use without the stream.
            let kept: usize = old.history.iter().map(|history| history.len().max(1) - 1).sum();
            (old.history, old.keyed) = (Vec::new(), 0);
            self.lookback -= kept;
            let name = old.meta.name.clone();
            let reason = format!("stream `{name}` was changed or removed while the server runs");
            for place in &mut self.places {
                if let Some(subscriber) = &mut place.subscriber {
                    subscriber.end_with(number, || Close::new(CloseCode::CHANGED, reason.clone()));
                }
            }
        }
        for at in 0..self.streams.len() {
            if self.streams[at].phase != Phase::Coming {
                continue;
            }
            let old = self.last_ended(&self.streams[at].meta.name);
            let behind = old.map(|old| (old.heads.clone(), old.head()));
            let new = &mut self.streams[at];
            new.phase = Phase::Open;
            if let Some((heads, published)) = behind {
                new.evicted.copy_from_slice(&heads);
                new.heads.iter_mut().zip(&heads).for_each(|(new, old)| *new = (*new).max(*old));
                // Nobody stands anywhere in it yet, so its places may begin where the old one's ended.
                new.first += published;
            }
        }
        self.forget_unread();
    }

    /// Whether a stream has ended.
    #[must_use]
    pub fn has_ended(&self, stream: u16) -> bool {
        self.streams.get(usize::from(stream)).is_none_or(|state| state.phase == Phase::Ended)
    }

    fn forget_unread(&mut self) {
        for (number, state) in (0u16..).zip(&mut self.streams) {
            let reads = |place: &Place| place.subscriber.as_ref().is_some_and(|reader| reader.reads(number));
            if state.phase == Phase::Ended && !state.evicted.is_empty() && !self.places.iter().any(reads) {
                state.forget();
            }
        }
    }

    /// Makes a name known, before the first record about it. Known names are left as they are; names that are empty or longer
    /// than 255 bytes, or beyond [`HubOptions::keys_max`], are refused and counted.
    pub fn define(&mut self, name: &str) {
        if !self.keys.define(name) {
            self.stats.keys_refused += 1;
        }
    }

    /// Takes results in the order in which a shard made them. Markers between results are passed over.
    pub fn publish(&mut self, outputs: &[Output]) {
        self.take_in(outputs, true);
    }

    /// Takes results; those that are remembered already, as the past of their keys, are not once more.
    fn take_in(&mut self, outputs: &[Output], remember: bool) {
        for output in outputs {
            if output.kind >= output_kind::WATERMARK {
                if output.kind == output_kind::BARRIER {
                    self.reached(output.ts);
                }
                continue;
            }
            let stream = usize::from(output.stream);
            let Some(state) = self.streams.get(stream).filter(|state| state.phase != Phase::Ended) else {
                self.stats.strays += 1;
                continue;
            };
            if let Some(again) = &self.again
                && again[usize::from(output.slot) % SLOT_COUNT]
                && output.sequence <= state.heads[usize::from(output.slot) % SLOT_COUNT]
            {
                continue;
            }
            if state.ring.len() >= self.options.ring_records {
                self.make_room(stream);
            }
            let key = self.keys.key(output.name);
            let state = &mut self.streams[stream];
            let slot = usize::from(output.slot) % SLOT_COUNT;
            state.heads[slot] = state.heads[slot].max(output.sequence);
            state.newest = state.newest.max(output.ts);
            let held = Output { key: key.unwrap_or(u32::MAX), ..*output };
            state.ring.push_back(held);
            for tap in &mut self.taps {
                tap.take(&held);
            }
            match key {
                Some(key) if remember => self.remember(stream, key, held),
                Some(_) => {}
                None => self.stats.unnamed += 1,
            }
        }
        self.enforce_budgets();
    }

    /// Keeps a record for lookback.
    fn remember(&mut self, stream: usize, key: u32, held: Output) {
        let (state, at) = (&mut self.streams[stream], key as usize);
        if at >= state.history.len() {
            state.history.resize_with(at + 1, History::default);
        }
        let history = &mut state.history[at];
        // One record per key is always kept; more as long as all keys together stay within their bound.
        let room = self.lookback < self.options.lookback_total;
        let max = if room { self.options.lookback_records } else { history.len().max(1) };
        let before = history.len();
        let events = history.push(held, max);
        // A history gets shorter when its bound was lowered.
        self.lookback = self.lookback + history.len().max(1) - before.max(1);
        state.keyed += u64::from(before == 0 && history.len() > 0);
        state.events = state.events.saturating_add(events);
        let of_slot = &mut state.slot_events[usize::from(held.slot) % SLOT_COUNT];
        *of_slot = of_slot.saturating_add(events);
    }

    /// Takes the oldest eighth off a full ring. Readers still behind it go by their policy.
    fn make_room(&mut self, stream: usize) {
        let state = &self.streams[stream];
        let count = (self.options.ring_records / 8).max(1).min(state.ring.len());
        let upto = state.first + count as u64;
        for place in &mut self.places {
            if let Some(subscriber) = &mut place.subscriber {
                subscriber.fall_behind(stream as u16, upto, state, &self.keys);
            }
        }
        let state = &mut self.streams[stream];
        for output in state.ring.drain(..count) {
            state.evicted[usize::from(output.slot) % SLOT_COUNT] = output.sequence;
        }
        state.first = upto;
        state.close_holes();
    }

    fn enforce_budgets(&mut self) {
        for place in &mut self.places {
            if let Some(subscriber) = &mut place.subscriber {
                subscriber.enforce_budget(&self.streams, &self.keys);
            }
        }
    }

    /// Event time up to which all shards are complete, for [`Hub::watermark`].
    pub fn set_watermark(&mut self, watermark: u64) {
        self.watermark = self.watermark.max(watermark);
    }

    /// Event time up to which results are complete, in nanoseconds; 0 before anything was said.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// The streams that can be asked for, in the order of their numbers.
    pub fn streams(&self) -> impl Iterator<Item = &StreamMeta> {
        self.streams.iter().filter(|state| state.phase == Phase::Open).map(|state| &state.meta)
    }

    /// Every stream that there was, by number, and whether it can be asked for.
    pub fn all_streams(&self) -> impl ExactSizeIterator<Item = (&StreamMeta, bool)> {
        self.streams.iter().map(|state| (&state.meta, state.phase == Phase::Open))
    }

    /// The number of a stream that can be asked for.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<u16> {
        let is = |state: &StreamState| state.phase == Phase::Open && state.meta.name == name;
        self.streams.iter().position(is).map(|at| at as u16)
    }

    /// The last number of a slot in each stream, by the stream's; 0 where it has none.
    #[must_use]
    pub fn last_of_slot(&self, slot: u16) -> Vec<u64> {
        let of = |state: &StreamState| state.heads.get(usize::from(slot)).copied().unwrap_or(0);
        self.streams.iter().map(of).collect()
    }

    /// How a stream stands.
    #[must_use]
    pub fn stream_stats(&self, stream: u16) -> Option<StreamStats> {
        let state = self.streams.get(usize::from(stream))?;
        let retained = state.ring.len() as u64;
        Some(StreamStats { published: state.head(), retained, keys: state.keyed, newest: state.newest })
    }

    /// How the hub stands.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        let mut stats = HubStats {
            keys: self.keys.len() as u64,
            subscribers: (self.places.len() - self.free.len()) as u64,
            lookback: self.lookback as u64,
            ..self.stats
        };
        for subscriber in self.places.iter().filter_map(|place| place.subscriber.as_ref()) {
            stats.delivered += subscriber.delivered + subscriber.past_delivered;
            stats.dropped += subscriber.dropped;
            stats.conflated += subscriber.conflated;
        }
        stats
    }

    /// Keys in the order of their names: those that have a record in `stream`, if that is given, and match `search`, behind
    /// `after` if that is given, at most `max`. Together with the last name of one answer as the next `after`, it walks
    /// through all of them.
    #[must_use]
    pub fn keys(
        &self,
        stream: Option<u16>,
        search: KeySearch<'_>,
        after: Option<&str>,
        max: usize,
    ) -> Vec<KeyInfo> {
        let has_record = |key: u32| {
            let state = stream.map(|stream| self.streams.get(usize::from(stream)));
            let history = |state: &StreamState| state.history.get(key as usize)?.newest().map(|_| ());
            state.is_none_or(|state| state.and_then(history).is_some())
        };
        let newest = |key: u32| {
            let of = |state: &StreamState| state.history.get(key as usize)?.newest().map(|output| output.ts);
            self.streams.iter().filter_map(of).max()
        };
        self.keys.search(search, after, max, has_record, newest)
    }

    /// The newest record of a key: of the latest event time, and of that the last revision.
    #[must_use]
    pub fn latest(&self, stream: u16, name: &str) -> Option<&Output> {
        self.history(stream, name)?.newest()
    }

    /// How a key stands in a stream; `None` while it has no record there.
    #[must_use]
    pub fn key_stats(&self, stream: u16, name: &str) -> Option<KeyStats> {
        let state = self.streams.get(usize::from(stream))?;
        let history = self.history(stream, name)?;
        let newest = *history.newest()?;
        let (records, events) = history.counts();
        let slot_events = state.slot_events[usize::from(newest.slot) % SLOT_COUNT];
        let kept = history.len() as u64;
        Some(KeyStats { records, kept, events, slot_events, all_events: state.events, newest })
    }

    /// The newest record of every key that `keys` covers, in the order in which names became known.
    pub fn latest_of(
        &self,
        stream: u16,
        keys: &crate::subscription::Keys,
        each: &mut dyn FnMut(&str, &Output),
    ) {
        let Some(state) = self.streams.get(usize::from(stream)) else { return };
        let mut filter = cursor::Filter::new(keys);
        filter.extend(&self.keys);
        for (key, history) in (0u32..).zip(&state.history) {
            if filter.covers(key)
                && let Some(output) = history.newest()
            {
                each(self.keys.name(key), output);
            }
        }
    }

    /// The last `count` records of a key, oldest first: one for each window, in its last revision.
    pub fn lookback(&self, stream: u16, name: &str, count: usize) -> impl Iterator<Item = &Output> {
        self.history(stream, name).into_iter().flat_map(move |history| history.last(count))
    }

    fn history(&self, stream: u16, name: &str) -> Option<&History> {
        let key = self.keys.find(name)?;
        self.streams.get(usize::from(stream))?.history.get(key as usize)
    }

    /// The name behind a hash, if it is known.
    #[must_use]
    pub fn name(&self, hash: u64) -> Option<&str> {
        self.keys.known(hash).map(|key| self.keys.name(key))
    }

    fn known_streams(&self) -> String {
        self.streams().map(|meta| meta.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// A new reader, from this moment on: what it is handed begins with its past, if it asked for some.
    ///
    /// # Errors
    /// [`SubscriptionError`] when the subscription asks for what is not there or not allowed.
    pub fn subscribe(
        &mut self,
        subscription: &Subscription,
        now: MonoTime,
    ) -> Result<SubscriberId, SubscriptionError> {
        if self.places.len() - self.free.len() >= self.options.subscribers_max {
            return Err(SubscriptionError::Busy { max: self.options.subscribers_max as u64 });
        }
        self.subscribe_with(subscription, cursor::Filter::new(&subscription.keys), now)
    }

    fn subscribe_with(
        &mut self,
        subscription: &Subscription,
        mut filter: cursor::Filter,
        now: MonoTime,
    ) -> Result<SubscriberId, SubscriptionError> {
        if subscription.streams.is_empty() {
            return Err(SubscriptionError::NoStream { known: self.known_streams() });
        }
        subscription.check()?;
        let ring = self.options.ring_records as u64;
        // The ring makes room an eighth at a time, so that much of it is not to be relied on.
        let budget_max = ring - (ring / 8).max(1);
        let budget = match subscription.lag_budget {
            0 => budget_max,
            budget => budget.min(budget_max),
        };
        if let Start::Lookback(count) = subscription.start
            && count as usize > self.options.lookback_records
        {
            let (found, max) = (u64::from(count), self.options.lookback_records as u64);
            return Err(SubscriptionError::Range { field: "lookback", found, min: 1, max });
        }
        filter.extend(&self.keys);
        let mut cursors: Vec<Cursor> = Vec::new();
        let mut past = VecDeque::new();
        for (place, name) in (0u16..).zip(&subscription.streams) {
            let Some(stream) = self.stream(name) else {
                let known = self.known_streams();
                return Err(SubscriptionError::UnknownStream { name: name.clone(), known });
            };
            if cursors.iter().any(|cursor| cursor.stream == stream) {
                return Err(SubscriptionError::Twice { name: name.clone() });
            }
            let state = &self.streams[usize::from(stream)];
            let edge = Some(Edge { position: state.head(), next: state.edge() });
            let mut cursor = Cursor {
                stream,
                next: state.head(),
                edge,
                floor: None,
                dropped: 0,
                conflated: 0,
                expired: 0,
            };
            match &subscription.start {
                Start::Latest => {}
                Start::Snapshot => self.collect_past(stream, &filter, 1, &mut past)?,
                Start::Lookback(count) => {
                    self.collect_past(stream, &filter, *count as usize, &mut past)?;
                }
                Start::Sequence { default, slots } => {
                    let floor = Floor::new(*default, slots.iter().filter(|(at, ..)| *at == place));
                    cursor.next = state.first;
                    cursor.expired = filter.expired(&floor, state);
                    cursor.floor = Some(floor);
                }
            }
            cursors.push(cursor);
        }
        let max = self.options.past_records_max as u64;
        if self.past + past.len() > self.options.past_records_max {
            return Err(SubscriptionError::TooMuch { records: (self.past + past.len()) as u64, max });
        }
        self.past += past.len();
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place { generation: 0, subscriber: None });
                self.places.len() as u32 - 1
            }
        };
        let place = &mut self.places[index as usize];
        let id = SubscriberId { index, generation: place.generation };
        place.subscriber =
            Some(Box::new(Subscriber::new(id, subscription.clone(), budget, filter, cursors, past, now)));
        Ok(id)
    }

    fn collect_past(
        &self,
        stream: u16,
        filter: &cursor::Filter,
        count: usize,
        past: &mut VecDeque<Output>,
    ) -> Result<(), SubscriptionError> {
        let state = &self.streams[usize::from(stream)];
        let max = self.options.past_records_max;
        for (key, history) in (0u32..).zip(&state.history) {
            if filter.covers(key) {
                past.extend(history.last(count).copied());
                if past.len() > max {
                    let (records, max) = (past.len() as u64, max as u64);
                    return Err(SubscriptionError::TooMuch { records, max });
                }
            }
        }
        Ok(())
    }

    /// The records of a stream a reader may be behind, as granted.
    #[must_use]
    pub fn lag_budget(&self, id: SubscriberId) -> Option<u64> {
        self.place(id).map(|subscriber| subscriber.budget)
    }

    fn place(&self, id: SubscriberId) -> Option<&Subscriber> {
        let place = self.places.get(id.index as usize)?;
        if place.generation == id.generation { place.subscriber.as_deref() } else { None }
    }

    fn take(&mut self, id: SubscriberId) -> Option<Box<Subscriber>> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation == id.generation { place.subscriber.take() } else { None }
    }

    fn release(&mut self, subscriber: &Subscriber) -> SubscriberStats {
        let stats = subscriber.stats(&self.streams);
        let place = &mut self.places[subscriber.id.index as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(subscriber.id.index);
        self.past -= subscriber.past.len();
        self.stats.delivered += stats.delivered + stats.past;
        self.stats.dropped += stats.dropped;
        self.stats.conflated += stats.conflated;
        if subscriber.is_ending() {
            self.forget_unread();
        }
        stats
    }

    /// A reader leaves; its last account, `None` when it had left already.
    pub fn unsubscribe(&mut self, id: SubscriberId) -> Option<SubscriberStats> {
        let subscriber = self.take(id)?;
        Some(self.release(&subscriber))
    }

    /// A reader's account.
    #[must_use]
    pub fn subscriber(&self, id: SubscriberId) -> Option<SubscriberStats> {
        self.place(id).map(|subscriber| subscriber.stats(&self.streams))
    }

    /// Every reader's account.
    pub fn subscribers(&self) -> impl Iterator<Item = SubscriberStats> + '_ {
        let subscribers = self.places.iter().filter_map(|place| place.subscriber.as_ref());
        subscribers.map(|subscriber| subscriber.stats(&self.streams))
    }

    /// Records that the reader furthest behind has not looked at. Cheaper than every reader's account.
    #[must_use]
    pub fn lag_max(&self) -> u64 {
        let subscribers = self.places.iter().filter_map(|place| place.subscriber.as_ref());
        subscribers.map(|subscriber| subscriber.lag(&self.streams)).max().unwrap_or(0)
    }

    /// Hands a reader what is there for it, at most about `records_max` records, in order.
    pub fn poll(
        &mut self,
        id: SubscriberId,
        now: MonoTime,
        records_max: usize,
        each: &mut dyn FnMut(Item<'_>),
    ) -> Polled {
        let Some(mut subscriber) = self.take(id) else { return gone() };
        let past = subscriber.past.len();
        let polled = subscriber.poll(&self.streams, &self.keys, now, records_max.max(1), each);
        self.past -= past - subscriber.past.len();
        self.put_back(subscriber, polled)
    }

    fn put_back(&mut self, subscriber: Box<Subscriber>, polled: Polled) -> Polled {
        if let Polled::Closed(_) = polled {
            self.release(&subscriber);
        } else {
            let index = subscriber.id.index as usize;
            self.places[index].subscriber = Some(subscriber);
        }
        polled
    }

    /// As [`Hub::poll`], in frames of the wire, at most about `bytes_max` of them. Names go ahead of the first record about them.
    /// Frames of readers that want everything are shared.
    pub fn poll_frames(
        &mut self,
        id: SubscriberId,
        now: MonoTime,
        bytes_max: usize,
        out: &mut Vec<Bytes>,
    ) -> Polled {
        let Some(mut subscriber) = self.take(id) else { return gone() };
        let mut left = bytes_max.max(1);
        // Names first, so that no record comes before its name.
        while left > 0 {
            let Some(frame) = subscriber.names_frame(&self.keys) else { break };
            left = left.saturating_sub(frame.len());
            out.push(frame);
        }
        if left == 0 {
            return self.put_back(subscriber, Polled::More);
        }
        if subscriber.is_plain() {
            for at in 0..subscriber.cursors.len() {
                let state = &mut self.streams[usize::from(subscriber.cursors[at].stream)];
                while left > 0 && subscriber.cursors[at].next < state.head() {
                    let (end, frame) = state.shared_frame(subscriber.cursors[at].next);
                    left = left.saturating_sub(frame.len());
                    subscriber.pass(at, end);
                    out.push(frame);
                }
            }
            let behind = subscriber.lag(&self.streams) > 0;
            let polled = if behind { Polled::More } else { Polled::Idle { due: None } };
            return self.put_back(subscriber, polled);
        }
        let past = subscriber.past.len();
        let mut encoder = cursor::Encoder::new(out);
        let records_max = left.div_ceil(RECORD_BYTES_MAX);
        let polled =
            subscriber.poll(&self.streams, &self.keys, now, records_max, &mut |item| encoder.item(item));
        encoder.flush();
        self.past -= past - subscriber.past.len();
        self.put_back(subscriber, polled)
    }
}

/// Whether streams may be together.
fn check_streams(streams: &[&StreamMeta]) -> Result<(), HubError> {
    check("streams", streams.len(), 1, Subscription::STREAMS_MAX)?;
    for (at, stream) in streams.iter().enumerate() {
        check("length of a stream's name", stream.name.len(), 1, NAME_BYTES_MAX)?;
        check("columns", stream.columns.len(), 0, OUTPUT_WORDS)?;
        for column in &stream.columns {
            check("length of a column's name", column.len(), 1, NAME_BYTES_MAX)?;
        }
        if streams[..at].iter().any(|other| other.name == stream.name) {
            return Err(HubError::Twice { name: stream.name.clone() });
        }
    }
    Ok(())
}

fn gone() -> Polled {
    Polled::Closed(Close::new(CloseCode::FINISHED, "there is no such subscriber"))
}

/// A loss, as the wire says it.
fn loss(stream: u16, cause: LossCause, exact: bool, count: u64) -> Item<'static> {
    Item::Loss(Loss { stream, cause, exact, count })
}
