//! Feeds while a slot changes its group, as its servers see them.
//!
//! A feed numbers the events of each group on its own, and a slot that changes its group divides that numbering: up to some event the slot's are of
//! the one session, from there on of the other. Nobody writes down where that was. Instead every feed of the old group *stops*: it has all that it has
//! numbered acknowledged, says so ([`SlotWord::Stopped`]), and takes nothing more from whoever offers events until it hears how the move ended. So
//! when the slot leaves, nothing of it is on its way, and no group's time goes on.
//!
//! Which move last divided a numbering is part of what the log says of a source, in both groups. A feed that greets with a numbering that was divided
//! by a move it knows nothing of (another process that begins at the front) would send the slot's events a second time; it hears of the move in front
//! of the answer to its greeting, before it sends anything, and ends.

use super::server::{ConnectionId, FeedServer};
use crate::frame::{FrameWriter, SlotFrame, SlotWord};
use crate::wire::PROTOCOL_SLOTS;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A move of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotGoes {
    /// Which move: 1 or more, counted for the life of the cluster.
    pub number: u64,
    /// The slot.
    pub slot: u16,
    /// The group that it goes to.
    pub to: u16,
}

impl SlotGoes {
    fn frame(self, word: SlotWord) -> SlotFrame {
        let Self { number, slot, to } = self;
        SlotFrame { word, slot, to, number, sequence: 0 }
    }
}

/// What a server knows of moves.
#[derive(Default)]
pub(super) struct Moving {
    /// The slot that is to leave, while feeds are asked to stop for it.
    leaving: Option<SlotGoes>,
    /// By source id, the session whose numbering was divided, and the last move that did.
    moved: BTreeMap<u64, (u64, SlotGoes)>,
    /// The last word that was said to all, and how often it is still to be said again: a connection that takes nothing loses words.
    said: Option<(SlotFrame, u32)>,
}

/// How often a word is said again.
const AGAIN: u32 = 40;

impl Moving {
    /// A source has this session now: what divided another one is of no interest any more.
    pub(super) fn session(&mut self, source_id: u64, session: u64) {
        if self.moved.get(&source_id).is_some_and(|(of, _)| *of != session) {
            self.moved.remove(&source_id);
        }
    }

    /// What a feed is told in front of the answer to its greeting, and behind it.
    pub(super) fn greeting(&self, version: u8, source_id: u64) -> [Option<SlotFrame>; 2] {
        if version < PROTOCOL_SLOTS {
            return [None; 2];
        }
        let moved = self.moved.get(&source_id).map(|(_, goes)| goes.frame(SlotWord::Moved));
        [moved, self.leaving.map(|goes| goes.frame(SlotWord::Leaving))]
    }

    /// A feed says that it stopped behind `sequence`. Returns for which move it did, if it is the one that is asked for and nothing is missing.
    pub(super) fn stopped(&self, word: SlotFrame, last: u64) -> Option<u64> {
        let asked = self.leaving.is_some_and(|goes| goes.number == word.number);
        (word.word == SlotWord::Stopped && asked && word.sequence == last).then_some(word.number)
    }

    /// What the log says of moves, without what is only asked for.
    pub(super) fn go_on_from(&mut self, log: &Self) {
        (self.leaving, self.said) = (None, None);
        self.moved.clone_from(&log.moved);
    }
}

fn frame(word: SlotFrame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    FrameWriter::new(&mut bytes).slot(word);
    bytes
}

impl FeedServer {
    /// The slot that feeds are asked to stop for.
    #[must_use]
    pub fn leaves(&self) -> Option<SlotGoes> {
        self.moving.leaving
    }

    /// Asks all feeds to stop for a slot, those to come included; with `None` they may go on.
    pub fn ask_to_stop(&mut self, goes: Option<SlotGoes>, mut send: impl FnMut(ConnectionId, &[u8])) {
        if self.moving.leaving == goes {
            return;
        }
        let before = std::mem::replace(&mut self.moving.leaving, goes);
        let word = goes.map(|goes| goes.frame(SlotWord::Leaving));
        let Some(word) = word.or(before.map(|before| before.frame(SlotWord::Stays))) else { return };
        self.moving.said = Some((word, AGAIN));
        let bytes = frame(word);
        self.feeds_that_know().for_each(|(id, _)| send(id, &bytes));
    }

    /// Ranks of sources that have not stopped, in order: those that are not connected among them, and those that do not know how.
    #[must_use]
    pub fn unstopped(&self) -> Vec<u16> {
        let number = self.moving.leaving.map(|goes| goes.number);
        (0u16..)
            .zip(&self.sources)
            .filter(|(rank, _)| self.stopped_for(*rank) != number)
            .map(|(rank, _)| rank)
            .collect()
    }

    /// The group of each slot, as a snapshot has it.
    pub fn set_slots(&mut self, slots: &Arc<[u16]>) {
        if let Some(group) = &mut self.options.group {
            group.slots = Arc::clone(slots);
        }
    }

    /// The rank of a source that is known by its id.
    #[must_use]
    pub fn rank_of(&self, source_id: u64) -> Option<u16> {
        self.by_id.get(&source_id).copied()
    }

    /// Whether a source is connected.
    #[must_use]
    pub fn is_connected(&self, rank: u16) -> bool {
        self.feed_of(rank).is_some()
    }

    /// Whether a slot is this group's, as far as this server knows; where there is one group, each is.
    #[must_use]
    pub fn owns(&self, slot: u16) -> bool {
        self.options.group.as_ref().is_none_or(|group| group.has_slot(slot))
    }

    /// Whether a source is connected with a version that does not know how to stop.
    #[must_use]
    pub fn cannot_stop(&self, rank: u16) -> bool {
        self.feed_of(rank).is_some_and(|(version, _)| version < PROTOCOL_SLOTS)
    }

    fn stopped_for(&self, rank: u16) -> Option<u64> {
        self.feed_of(rank).and_then(|(_, stopped)| stopped)
    }

    /// Ids and sessions of all sources.
    #[must_use]
    pub fn numberings(&self) -> Vec<(u64, u64)> {
        self.sources.iter().map(|source| (source.source_id, source.session)).collect()
    }

    /// A slot has left this group, or has come to it: from here on names of it are taken or not, and the numberings of these sources are divided.
    /// Nobody is told.
    pub fn slot_moved(&mut self, goes: SlotGoes, numberings: &[(u64, u64)]) {
        if self.moving.leaving.is_some_and(|leaving| leaving.number <= goes.number) {
            self.moving.leaving = None;
        }
        for &(source_id, session) in numberings {
            let known = self.by_id.get(&source_id).and_then(|rank| self.sources.get(usize::from(*rank)));
            // One that has gone on to another numbering has nothing to do with it.
            if known.is_none_or(|source| source.session == session) {
                self.moving.moved.insert(source_id, (session, goes));
            }
        }
        if let Some(group) = &mut self.options.group
            && let Some(of) = Arc::make_mut(&mut group.slots).get_mut(usize::from(goes.slot))
        {
            *of = goes.to;
        }
    }

    /// Tells connected feeds that their numbering was divided by this move.
    pub fn tell_moved(&mut self, goes: SlotGoes, send: impl FnMut(ConnectionId, &[u8])) {
        let word = goes.frame(SlotWord::Moved);
        self.moving.said = Some((word, AGAIN));
        self.tell(word, send);
    }

    /// Says the last word again, as long as somebody may not have heard it. Call it a few times a second.
    pub fn say_again(&mut self, send: impl FnMut(ConnectionId, &[u8])) {
        if let Some((word, again @ 1..)) = &mut self.moving.said {
            *again -= 1;
            let word = *word;
            self.tell(word, send);
        }
    }

    /// Says a word to those whom it concerns.
    fn tell(&self, word: SlotFrame, mut send: impl FnMut(ConnectionId, &[u8])) {
        let bytes = frame(word);
        for (id, rank) in self.feeds_that_know() {
            let source = self.sources.get(usize::from(rank));
            let moved = source.and_then(|source| self.moving.moved.get(&source.source_id));
            let concerns = match word.word {
                SlotWord::Moved => moved.is_some_and(|(_, by)| by.number == word.number),
                SlotWord::Leaving => self.stopped_for(rank) != Some(word.number),
                SlotWord::Stays | SlotWord::Stopped => true,
            };
            if concerns {
                send(id, &bytes);
            }
        }
    }

    /// Numberings that moves have divided: source, session, and the last move that did.
    pub fn divided(&self) -> impl Iterator<Item = (u64, u64, SlotGoes)> + '_ {
        self.moving.moved.iter().map(|(&id, &(session, goes))| (id, session, goes))
    }

    /// Takes over what [`FeedServer::divided`] gave.
    pub fn restore_divided(&mut self, divided: impl Iterator<Item = (u64, u64, SlotGoes)>) {
        self.moving.moved = divided.map(|(id, session, goes)| (id, (session, goes))).collect();
    }
}
