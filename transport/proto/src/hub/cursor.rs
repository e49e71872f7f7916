//! One reader: where it stands in each stream, what it skips, what waits for it.

use super::keys::Keyring;
use super::relayed::Hole;
use super::{Item, Phase, Polled, StreamState, SubscriberId, SubscriberStats, loss};
use crate::close::{Close, CloseCode};
use crate::frame::{FrameWriter, LossCause};
use crate::subscription::{Conflation, Keys, LagPolicy, Start, Subscription};
use crate::time::{MILLISECOND_NS, MonoTime};
use crate::wire::BODY_BYTES_MAX;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use tidegate_engine::{Output, SLOT_COUNT, name_hash, output_kind, slot_of};

/// How often a reader is served between the last record of a stream that ended and being told, at most.
const LAST_POLLS: u32 = 64;

/// Which keys a reader wants, as far as names are known.
pub(super) enum Filter {
    All,
    Some {
        hashes: HashSet<u64>,
        prefixes: Vec<String>,
        /// A bit per key, for the first `resolved` keys.
        bits: Vec<u64>,
        resolved: u32,
    },
    /// Every key of certain slots, for who relays them.
    Slots(Box<SlotSet>),
}

/// A set of slots, and which keys are in them, as far as names are known.
pub(super) struct SlotSet {
    slots: [u64; SLOT_COUNT / 64],
    bits: Vec<u64>,
    resolved: u32,
}

impl SlotSet {
    fn has(&self, slot: u16) -> bool {
        let slot = usize::from(slot) % SLOT_COUNT;
        self.slots[slot / 64] >> (slot % 64) & 1 == 1
    }
}

impl Filter {
    pub(super) fn of_slots(of: &dyn Fn(u16) -> bool) -> Self {
        let mut slots = [0; SLOT_COUNT / 64];
        (0..SLOT_COUNT).filter(|slot| of(*slot as u16)).for_each(|slot| slots[slot / 64] |= 1 << (slot % 64));
        Self::Slots(Box::new(SlotSet { slots, bits: Vec::new(), resolved: 0 }))
    }

    pub(super) fn new(keys: &Keys) -> Self {
        match keys {
            Keys::All => Self::All,
            Keys::Some { names, prefixes } => Self::Some {
                hashes: names.iter().map(|name| name_hash(name.as_bytes())).collect(),
                prefixes: prefixes.clone(),
                bits: Vec::new(),
                resolved: 0,
            },
        }
    }

    /// Looks at names that came since.
    pub(super) fn extend(&mut self, keys: &Keyring) {
        match self {
            Self::All => {}
            Self::Some { hashes, prefixes, bits, resolved } => resolve(keys, bits, resolved, |key| {
                let name = keys.name(key);
                hashes.contains(&keys.hash(key)) || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
            }),
            Self::Slots(set) => {
                let (mut bits, mut resolved) = (std::mem::take(&mut set.bits), set.resolved);
                resolve(keys, &mut bits, &mut resolved, |key| set.has(slot_of(keys.hash(key))));
                (set.bits, set.resolved) = (bits, resolved);
            }
        }
    }

    pub(super) fn covers(&self, key: u32) -> bool {
        let bits = match self {
            Self::All => return true,
            Self::Some { bits, .. } => bits,
            Self::Slots(set) => &set.bits,
        };
        bits.get(key as usize / 64).is_some_and(|word| word >> (key % 64) & 1 == 1)
    }

    /// Whether a record is wanted; one of a name that nobody knows too, where its slot is enough.
    fn takes(&self, output: &Output) -> bool {
        match self {
            Self::Slots(set) => set.has(output.slot),
            _ => self.covers(output.key),
        }
    }

    /// Whether records of a slot may be wanted.
    fn wants_slot(&self, slot: u16) -> bool {
        match self {
            Self::Some { hashes, prefixes, .. } if prefixes.is_empty() => {
                hashes.iter().any(|&hash| slot_of(hash) == slot)
            }
            Self::Slots(set) => set.has(slot),
            _ => true,
        }
    }

    /// Records with wanted numbers that are no longer there: exact when all keys are wanted, else an upper bound.
    pub(super) fn expired(&self, floor: &Floor, state: &StreamState) -> u64 {
        let evicted = &state.evicted;
        let gone = |slot: u16| (evicted[usize::from(slot)] + 1).saturating_sub(floor.of(slot));
        let front: u64 = match self {
            Self::Some { hashes, prefixes, .. } if prefixes.is_empty() => {
                let slots: HashSet<u16> = hashes.iter().map(|&hash| slot_of(hash)).collect();
                slots.into_iter().map(gone).sum()
            }
            Self::Slots(set) => (0..evicted.len() as u16).filter(|&slot| set.has(slot)).map(gone).sum(),
            Self::Some { .. } | Self::All => (0..evicted.len() as u16).map(gone).sum(),
        };
        // What never came lies between records that did.
        let holes = state.holes.iter().filter(|hole| self.wants_slot(hole.slot));
        front + holes.map(|hole| hole.count(evicted, floor.of(hole.slot))).sum::<u64>()
    }
}

/// Looks at names that came since.
fn resolve(keys: &Keyring, bits: &mut Vec<u64>, resolved: &mut u32, wanted: impl Fn(u32) -> bool) {
    for key in *resolved..keys.len() as u32 {
        if wanted(key) {
            let word = key as usize / 64;
            if word >= bits.len() {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << (key % 64);
        }
    }
    *resolved = keys.len() as u32;
}

/// The first number wanted of each slot.
pub(super) struct Floor {
    default: u64,
    slots: HashMap<u16, u64>,
}

impl Floor {
    pub(super) fn new<'s>(default: u64, slots: impl Iterator<Item = &'s (u16, u16, u64)>) -> Self {
        Self { default, slots: slots.map(|&(_, slot, next)| (slot, next)).collect() }
    }

    fn of(&self, slot: u16) -> u64 {
        self.slots.get(&slot).copied().unwrap_or(self.default).max(1)
    }
}

/// Where a stream turned live for a reader.
pub(super) struct Edge {
    pub(super) position: u64,
    pub(super) next: Vec<(u16, u64)>,
}

/// A reader's place in one stream.
pub(super) struct Cursor {
    pub(super) stream: u16,
    /// Place of the next record to look at.
    pub(super) next: u64,
    /// Until it has been told.
    pub(super) edge: Option<Edge>,
    pub(super) floor: Option<Floor>,
    /// Losses not yet told.
    pub(super) dropped: u64,
    pub(super) conflated: u64,
    pub(super) expired: u64,
}

impl Cursor {
    fn wants(&self, output: &Output, filter: &Filter) -> bool {
        filter.takes(output)
            && self.floor.as_ref().is_none_or(|floor| output.sequence >= floor.of(output.slot))
    }
}

pub(super) struct Subscriber {
    pub(super) id: SubscriberId,
    subscription: Subscription,
    since: MonoTime,
    pub(super) budget: u64,
    filter: Filter,
    pub(super) cursors: Vec<Cursor>,
    pub(super) past: VecDeque<Output>,
    /// The newest record of keys that wait, in the order in which they began to wait, and where each is: its number less
    /// `pending_base`.
    pending: VecDeque<Output>,
    pending_base: u64,
    pending_at: HashMap<(u16, u32), u64>,
    /// When conflated records may go next.
    due: MonoTime,
    conflated_unsaid: u64,
    /// Keys whose names were looked at for this reader.
    named: u32,
    closed: Option<Close>,
    /// What it is told once it has what is left of streams that ended, and how often it may be asked before that.
    ending: Option<(Close, u32)>,
    matched: u64,
    pub(super) delivered: u64,
    pub(super) conflated: u64,
    pub(super) dropped: u64,
    pub(super) past_delivered: u64,
    expired: u64,
}

impl Subscriber {
    pub(super) fn new(
        id: SubscriberId,
        subscription: Subscription,
        budget: u64,
        filter: Filter,
        cursors: Vec<Cursor>,
        past: VecDeque<Output>,
        now: MonoTime,
    ) -> Self {
        Self {
            id,
            subscription,
            since: now,
            budget,
            filter,
            expired: cursors.iter().map(|cursor| cursor.expired).sum(),
            cursors,
            past,
            pending: VecDeque::new(),
            pending_base: 0,
            pending_at: HashMap::new(),
            due: now,
            conflated_unsaid: 0,
            named: 0,
            closed: None,
            ending: None,
            matched: 0,
            delivered: 0,
            conflated: 0,
            dropped: 0,
            past_delivered: 0,
        }
    }

    fn conflates(&self) -> bool {
        self.subscription.conflation != Conflation::None
    }

    /// Whether it wants every record of its streams as it comes, and nothing else waits for it.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.filter, Filter::All)
            && !self.conflates()
            && self.closed.is_none()
            && self.ending.is_none()
            && self.past.is_empty()
            && self.pending.is_empty()
            && self.cursors.iter().all(|cursor| {
                cursor.edge.is_none()
                    && cursor.floor.is_none()
                    && cursor.dropped + cursor.conflated + cursor.expired == 0
            })
    }

    pub(super) fn reads(&self, stream: u16) -> bool {
        self.cursors.iter().any(|cursor| cursor.stream == stream)
    }

    /// If it reads this stream, that ends, it is closed with these words once it has what is left.
    pub(super) fn end_with(&mut self, stream: u16, close: impl FnOnce() -> Close) {
        if self.reads(stream) && self.ending.is_none() {
            self.ending = Some((close(), LAST_POLLS));
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether everything of streams that ended has been handed over.
    fn has_last_words(&self, streams: &[StreamState]) -> bool {
        let drained = |cursor: &Cursor| {
            let state = &streams[usize::from(cursor.stream)];
            state.phase != Phase::Ended
                || (cursor.next >= state.head() && cursor.dropped + cursor.conflated + cursor.expired == 0)
        };
        self.past.is_empty() && self.pending.is_empty() && self.cursors.iter().all(drained)
    }

    /// Records of a slot, from a number up to another, do not come any more. At the beginning of a relay only those who asked for numbers
    /// miss them.
    pub(super) fn miss(&mut self, stream: u16, hole: &Hole, beginning: bool) {
        if !self.filter.wants_slot(hole.slot) {
            return;
        }
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.stream == stream) else { return };
        let asked = match &self.subscription.start {
            Start::Sequence { default, .. } => Some(*default),
            _ => None,
        };
        if beginning && asked.is_none() {
            return;
        }
        let floor = match &cursor.floor {
            Some(floor) => floor.of(hole.slot),
            None => asked.unwrap_or(1),
        };
        let count = (hole.to + 1).saturating_sub(hole.from.max(floor));
        cursor.expired += count;
        self.expired += count;
    }

    /// Records up to `end` of its `at`-th stream went to it as they are.
    pub(super) fn pass(&mut self, at: usize, end: u64) {
        let count = end - self.cursors[at].next;
        self.cursors[at].next = end;
        self.matched += count;
        self.delivered += count;
    }

    pub(super) fn lag(&self, streams: &[StreamState]) -> u64 {
        let behind = |cursor: &Cursor| streams[usize::from(cursor.stream)].head() - cursor.next;
        self.cursors.iter().map(behind).max().unwrap_or(0)
    }

    pub(super) fn stats(&self, streams: &[StreamState]) -> SubscriberStats {
        SubscriberStats {
            id: self.id,
            subscription: self.subscription.clone(),
            since: self.since,
            matched: self.matched,
            delivered: self.delivered,
            conflated: self.conflated,
            dropped: self.dropped,
            pending: self.pending.len() as u64,
            past: self.past_delivered,
            expired: self.expired,
            lag: self.lag(streams),
        }
    }

    /// Names of keys it is concerned by and has not been told, as many as fit a frame.
    pub(super) fn names_frame(&mut self, keys: &Keyring) -> Option<Bytes> {
        self.filter.extend(keys);
        let mut out = Vec::new();
        while self.named < keys.len() as u32 && out.is_empty() {
            let mut last = self.named;
            let wanted = (self.named..keys.len() as u32).filter(|&key| self.filter.covers(key));
            let mut wanted = wanted.inspect(|&key| last = key).peekable();
            if wanted.peek().is_none() {
                drop(wanted);
                self.named = keys.len() as u32;
                return None;
            }
            let mut offered = Vec::new();
            // A frame holds at most so many names, so no more are looked at for it.
            for key in wanted.take(BODY_BYTES_MAX / 10) {
                offered.push(key);
            }
            let taken =
                FrameWriter::new(&mut out).names(offered.iter().map(|&key| (keys.hash(key), keys.name(key))));
            self.named = offered.get(taken as usize).copied().unwrap_or(last + 1);
        }
        if out.is_empty() { None } else { Some(Bytes::from(out)) }
    }

    /// Whether more records may wait as the newest of their key. Keyless ones cannot give way to each other and would pile up;
    /// beyond this bound they stay in the ring, and are dropped there like any other.
    fn has_room(&self, keys: &Keyring) -> bool {
        self.pending.len() <= keys.len() * self.cursors.len() + 4_096
    }

    /// Moves records up to `upto` to where each key has its newest only.
    fn absorb(&mut self, at: usize, upto: u64, state: &StreamState) {
        let tell_loss = !self.conflates();
        let cursor = &mut self.cursors[at];
        for position in cursor.next..upto {
            let Some(output) = state.at(position) else { continue };
            if !cursor.wants(output, &self.filter) {
                continue;
            }
            self.matched += 1;
            let slot = (output.stream, output.key);
            // Keyless records are of many names and cannot stand for each other.
            let held = if output.key == u32::MAX { None } else { self.pending_at.get(&slot) };
            match held {
                Some(&number) => {
                    let held = &mut self.pending[(number - self.pending_base) as usize];
                    if age(output) >= age(held) {
                        *held = *output;
                    }
                    self.conflated += 1;
                    if tell_loss {
                        cursor.conflated += 1;
                    } else {
                        self.conflated_unsaid += 1;
                    }
                }
                None => {
                    self.pending_at.insert(slot, self.pending_base + self.pending.len() as u64);
                    self.pending.push_back(*output);
                }
            }
        }
        cursor.next = cursor.next.max(upto);
    }

    /// Records before `upto` are about to go; whoever still needs them goes by its policy.
    pub(super) fn fall_behind(&mut self, stream: u16, upto: u64, state: &StreamState, keys: &Keyring) {
        if self.closed.is_some() {
            return;
        }
        let Some(at) = self.cursors.iter().position(|cursor| cursor.stream == stream) else { return };
        if self.cursors[at].next < upto {
            self.filter.extend(keys);
            self.overrun(at, upto, state, keys);
        }
    }

    fn overrun(&mut self, at: usize, upto: u64, state: &StreamState, keys: &Keyring) {
        let conflates = self.conflates() || self.subscription.policy == LagPolicy::Conflate;
        if conflates && self.has_room(keys) {
            return self.absorb(at, upto, state);
        }
        if self.subscription.policy == LagPolicy::Disconnect {
            let behind = state.head() - self.cursors[at].next;
            let reason =
                format!("{behind} records behind in `{}`, the budget is {}", state.meta.name, self.budget);
            self.closed = Some(Close::new(CloseCode::LAG, reason));
            return;
        }
        let cursor = &mut self.cursors[at];
        let mut count = 0;
        for position in cursor.next..upto {
            count += u64::from(state.at(position).is_some_and(|output| cursor.wants(output, &self.filter)));
        }
        cursor.next = upto;
        cursor.dropped += count;
        self.matched += count;
        self.dropped += count;
    }

    /// Holds the reader to its lag budget.
    pub(super) fn enforce_budget(&mut self, streams: &[StreamState], keys: &Keyring) {
        for at in 0..self.cursors.len() {
            let state = &streams[usize::from(self.cursors[at].stream)];
            let (head, cursor) = (state.head(), &self.cursors[at]);
            // Catching up from numbers it asked for is no lag: the ring's own bound holds there.
            let catching_up = cursor.edge.as_ref().is_some_and(|edge| cursor.next < edge.position);
            if self.closed.is_none() && !catching_up && head - cursor.next > self.budget {
                self.filter.extend(keys);
                let conflate = self.subscription.policy == LagPolicy::Conflate || self.conflates();
                self.overrun(at, if conflate { head } else { head - self.budget }, state, keys);
            }
        }
    }

    pub(super) fn poll(
        &mut self,
        streams: &[StreamState],
        keys: &Keyring,
        now: MonoTime,
        records_max: usize,
        each: &mut dyn FnMut(Item<'_>),
    ) -> Polled {
        let polled = self.hand_over(streams, keys, now, records_max, each);
        if self.ending.is_none() || !self.has_last_words(streams) {
            return polled;
        }
        // The other streams' records too, unless they come as fast as they go.
        match (&polled, &mut self.ending) {
            (Polled::More, Some((_, left))) if *left > 0 => *left -= 1,
            (Polled::More | Polled::Idle { .. }, Some((close, _))) => return Polled::Closed(close.clone()),
            _ => {}
        }
        polled
    }

    fn hand_over(
        &mut self,
        streams: &[StreamState],
        keys: &Keyring,
        now: MonoTime,
        records_max: usize,
        each: &mut dyn FnMut(Item<'_>),
    ) -> Polled {
        if let Some(close) = &self.closed {
            return Polled::Closed(close.clone());
        }
        self.filter.extend(keys);
        let mut left = records_max;
        while let Some(output) = self.past.front() {
            if left == 0 {
                return Polled::More;
            }
            each(Item::Record { name: keys.name(output.key), output, past: true });
            self.past.pop_front();
            self.past_delivered += 1;
            left -= 1;
        }
        let exact = matches!(self.subscription.keys, Keys::All);
        for cursor in &mut self.cursors {
            let stream = cursor.stream;
            for (count, cause, exact) in [
                (&mut cursor.expired, LossCause::Expired, exact),
                (&mut cursor.dropped, LossCause::Dropped, true),
                (&mut cursor.conflated, LossCause::Conflated, true),
            ] {
                let count = std::mem::take(count);
                if count > 0 {
                    each(loss(stream, cause, exact, count));
                }
            }
        }
        if self.conflates() {
            for at in 0..self.cursors.len() {
                let state = &streams[usize::from(self.cursors[at].stream)];
                if self.has_room(keys) {
                    self.absorb(at, state.head(), state);
                }
                self.cross_edge(at, each);
            }
            if self.pending.is_empty() {
                return Polled::Idle { due: None };
            }
            if now < self.due {
                return Polled::Idle { due: Some(self.due) };
            }
        }
        while let Some(output) = self.pending.front() {
            if left == 0 {
                return Polled::More;
            }
            // Always with a record behind it, since a frame of records is what carries it.
            let conflated = std::mem::take(&mut self.conflated_unsaid);
            if conflated > 0 {
                each(Item::Conflated(conflated));
            }
            each(Item::Record { name: keys.name(output.key), output, past: false });
            self.pending_at.remove(&(output.stream, output.key));
            self.pending.pop_front();
            self.pending_base += 1;
            self.delivered += 1;
            left -= 1;
        }
        if let Conflation::Every(ms) = self.subscription.conflation {
            self.due = now.after(u64::from(ms) * MILLISECOND_NS);
        }
        for at in 0..self.cursors.len() {
            let state = &streams[usize::from(self.cursors[at].stream)];
            loop {
                self.cross_edge(at, each);
                let cursor = &mut self.cursors[at];
                let Some(output) = state.at(cursor.next) else { break };
                if left == 0 {
                    return Polled::More;
                }
                cursor.next += 1;
                if cursor.wants(output, &self.filter) {
                    let past = cursor.edge.is_some();
                    each(Item::Record { name: keys.name(output.key), output, past });
                    self.matched += 1;
                    self.delivered += 1;
                    left -= 1;
                }
            }
        }
        Polled::Idle { due: None }
    }

    /// Tells where the stream turned live, once the reader is there.
    fn cross_edge(&mut self, at: usize, each: &mut dyn FnMut(Item<'_>)) {
        let cursor = &mut self.cursors[at];
        if cursor.edge.as_ref().is_some_and(|edge| cursor.next >= edge.position)
            && let Some(edge) = cursor.edge.take()
        {
            each(Item::Edge { stream: cursor.stream, next: &edge.next });
            // Numbers wanted that lie ahead still hold back what comes before them.
            let ahead = cursor.floor.as_ref().is_some_and(|floor| {
                let mut next = vec![1; SLOT_COUNT];
                edge.next.iter().for_each(|&(slot, head)| next[usize::from(slot)] = head);
                (0u16..).zip(&next).any(|(slot, &next)| floor.of(slot) > next)
            });
            if !ahead {
                cursor.floor = None;
            }
        }
    }
}

/// Which of two records of a key stands for it.
fn age(output: &Output) -> (bool, u64, u64) {
    (output.kind != output_kind::LATE, output.ts, output.sequence)
}

/// Turns items into frames.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<Bytes>,
    records: Vec<u8>,
    count: u32,
    past: bool,
    conflated: u64,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(out: &'a mut Vec<Bytes>) -> Self {
        Self { out, records: Vec::new(), count: 0, past: false, conflated: 0 }
    }

    pub(super) fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Record { output, past, .. } => {
                let bytes = output.record_bytes();
                if self.past != past || self.records.len() + bytes.len() > BODY_BYTES_MAX - 16 {
                    self.flush();
                }
                self.past = past;
                self.records.extend_from_slice(bytes);
                self.count += 1;
            }
            Item::Edge { stream, next } => self.single(|writer| writer.edge(stream, next.iter().copied())),
            Item::Loss(loss) => self.single(|writer| writer.loss(loss)),
            Item::Conflated(count) => self.conflated += count,
        }
    }

    fn single(&mut self, write: impl FnOnce(&mut FrameWriter<'_>)) {
        self.flush();
        let mut frame = Vec::new();
        write(&mut FrameWriter::new(&mut frame));
        self.out.push(Bytes::from(frame));
    }

    pub(super) fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut frame = Vec::with_capacity(self.records.len() + 32);
        FrameWriter::new(&mut frame).records(self.past, std::mem::take(&mut self.conflated), |out| {
            out.extend_from_slice(&self.records);
            self.count
        });
        self.out.push(Bytes::from(frame));
        self.records.clear();
        self.count = 0;
    }
}

/// Kept so that a subscription's start can be shown in tables.
impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.pad("latest"),
            Self::Snapshot => f.pad("snapshot"),
            Self::Sequence { default, .. } => write!(f, "sequence:{default}"),
            Self::Lookback(count) => write!(f, "lookback:{count}"),
        }
    }
}
