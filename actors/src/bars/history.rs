//! The trades of open and amendable windows, in log order, so that a cancel can rebuild what sums cannot undo.

use crate::regroup::Kept;
use std::borrow::Cow;
use std::collections::VecDeque;
use tidegate_engine::{Event, KeyMeta, Share, kind};
use zerocopy::{FromBytes, IntoBytes};

/// Trades per block: the unit of eviction.
const BLOCK_EVENTS: usize = 4_096;

struct Block {
    events: Vec<Event>,
    newest: u64,
}

impl Block {
    /// The events as they lie, each four words.
    fn words(&self) -> Cow<'_, [[u64; 4]]> {
        Cow::Borrowed(<[[u64; 4]]>::ref_from_bytes(self.events.as_bytes()).expect("an event is four words"))
    }
}

/// A bounded log of recent trades that were applied (cancels and refused ones never enter). Appending is a copy of the run; looking back is a scan, newest first.
pub(super) struct History {
    blocks: VecDeque<Block>,
    spare: Vec<Block>,
    events_max: usize,
    events: usize,
    /// Trades dropped before their time because of `events_max`.
    cut: u64,
}

impl History {
    pub(super) fn new(events_max: usize) -> Self {
        Self { blocks: VecDeque::new(), spare: Vec::new(), events_max, events: 0, cut: 0 }
    }

    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    pub(super) fn push(&mut self, mut events: &[Event]) {
        while !events.is_empty() {
            if self.blocks.back().is_none_or(|block| block.events.len() == BLOCK_EVENTS) {
                if self.events + BLOCK_EVENTS > self.events_max && self.blocks.len() > 1 {
                    self.cut += self.blocks.front().map_or(0, |block| block.events.len() as u64);
                    self.drop_front();
                }
                let block = self
                    .spare
                    .pop()
                    .unwrap_or_else(|| Block { events: Vec::with_capacity(BLOCK_EVENTS), newest: 0 });
                self.blocks.push_back(block);
            }
            let Some(block) = self.blocks.back_mut() else { return };
            let (now, later) = events.split_at((BLOCK_EVENTS - block.events.len()).min(events.len()));
            block.events.extend_from_slice(now);
            block.newest = now.iter().fold(block.newest, |newest, event| newest.max(event.ts_event));
            self.events += now.len();
            events = later;
        }
    }

    fn drop_front(&mut self) {
        if let Some(mut block) = self.blocks.pop_front() {
            self.events -= block.events.len();
            block.events.clear();
            block.newest = 0;
            self.spare.push(block);
        }
    }

    /// Drops whole blocks that lie before `ts`.
    pub(super) fn evict_before(&mut self, ts: u64) {
        while self.blocks.len() > 1 && self.blocks.front().is_some_and(|block| block.newest < ts) {
            self.drop_front();
        }
    }

    /// The latest trade that `cancel` takes back (same key, time, price, size), with the number of the key's trades
    /// logged after it.
    pub(super) fn find(&self, cancel: &Event) -> Option<(Event, u64)> {
        let same = |event: &Event| event.ts_event == cancel.ts_event && event.payload == cancel.payload;
        self.trades_of(cancel.key).find(|(_, event)| same(event)).map(|(after, event)| (*event, after))
    }

    /// Removes the key's trade with `after` later ones. It keeps its place.
    pub(super) fn bury(&mut self, key: u32, after: u64) {
        if let Some(place) = self.place(key, after) {
            place.kind = TOMB;
        }
    }

    fn place(&mut self, key: u32, after: u64) -> Option<&mut Event> {
        let places = self.blocks.iter_mut().rev().flat_map(|block| block.events.iter_mut().rev());
        let mut places = places.filter(|kept| kept.key == key && is_trade_or_tomb(kept));
        places.nth(usize::try_from(after).ok()?)
    }

    /// Puts `event` where the key's trade with `after` later ones was taken back. Returns whether that place is still kept
    /// and vacant.
    pub(super) fn put_back(&mut self, event: &Event, after: u64) -> bool {
        match self.place(event.key, after) {
            Some(place) if place.kind == TOMB => {
                *place = *event;
                true
            }
            _ => false,
        }
    }

    /// Remaining trades of `key`, newest first, with how many of the key's trades came after each.
    pub(super) fn trades_of(&self, key: u32) -> impl Iterator<Item = (u64, &Event)> {
        self.blocks
            .iter()
            .rev()
            .flat_map(|block| block.events.iter().rev())
            .filter(move |event| event.key == key && is_trade_or_tomb(event))
            .enumerate()
            .filter(|(_, event)| event.kind == kind::TRADE)
            .map(|(after, event)| (after as u64, event))
    }

    /// Its blocks as they lie, each event four words.
    pub(super) fn save(&self) -> (Vec<Cow<'_, [[u64; 4]]>>, u64) {
        (self.blocks.iter().map(Block::words).collect(), self.cut)
    }

    pub(super) fn restore(&mut self, blocks: &[Cow<'_, [[u64; 4]]>], cut: u64) {
        *self = Self::new(self.events_max);
        for words in blocks {
            self.push(events_of(words));
        }
        self.cut = cut;
    }

    pub(super) fn regroup<'k>(&self, keys: &'k [KeyMeta]) -> Regrouped<'k> {
        Regrouped { keys, trades: Kept::new(), to: Self::new(self.events_max) }
    }
}

fn events_of(words: &[[u64; 4]]) -> &[Event] {
    <[Event]>::ref_from_bytes(words.as_bytes()).expect("four words are an event")
}

/// Trades of several shards on their way into one.
pub(super) struct Regrouped<'k> {
    keys: &'k [KeyMeta],
    trades: Kept<Event>,
    to: History,
}

impl Regrouped<'_> {
    pub(super) fn take(&mut self, blocks: &[Cow<'_, [[u64; 4]]>], cut: u64, share: &Share<'_>) {
        for event in blocks.iter().flat_map(|words| events_of(words)) {
            if let Some(key) = share.new_key(event.key) {
                self.trades.push(self.keys, key as usize, event.ts_event, Event { key, ..*event });
            }
        }
        if share.has_counts() {
            self.to.cut += cut;
        }
    }

    pub(super) fn finish(mut self) -> History {
        for event in self.trades.sorted() {
            self.to.push(std::slice::from_ref(&event));
        }
        self.to
    }
}

/// A trade taken back keeps its place: ordinals count it.
const TOMB: u8 = 0;

fn is_trade_or_tomb(event: &Event) -> bool {
    event.kind == kind::TRADE || event.kind == TOMB
}
