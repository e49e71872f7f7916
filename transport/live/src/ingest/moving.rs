//! Ingest of a group that a slot leaves, or comes to.
//!
//! The leader of the old group asks its feeds to stop, and writes that the slot leaves once all have; the leader of the new group writes what the old one
//! knew of it. What happens to the slot happens when these words come back committed, at the same place of the log on every node.

use super::replicated::Replicating;
use super::{FeedAnswer, Ingest};
use crate::egress::HubHandle;
use crate::groups::first_barrier;
use crate::moving::{Cargo, Departure, Departures, MovesState, PIECE_BYTES, Pieces, Suspect, Word};
use crate::replication::{Input, Submission};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::runtime::{ShardCommand, SlotChange, SlotStep, StageFactory};
use tidegate_engine::snapshot::{append, read};
use tidegate_engine::{Event, PartHead, Shard, kind, name_hash, slot_of};
use tidegate_proto::feed::{ConnectionId, SlotGoes};
use tokio::sync::oneshot;

/// Feeds that are named when a move waits for them.
const NAMED_MAX: usize = 8;
/// How long a snapshot waits for a shard to let go of a slot.
const LETS_GO: Duration = Duration::from_secs(30);
/// Sources of a group that a slot may leave: all of them go along, by their numbers.
const NUMBERINGS_MAX: usize = 16_384;

/// What whoever moves slots asks of a group.
#[derive(Debug)]
pub enum SlotAsk {
    /// Have all feeds stop, and write that the slot leaves once they have. Asked again and again.
    Leave(SlotGoes),
    /// Do not write it, unless it is written: whether it is not. It will not be, as long as this node leads.
    GiveUp {
        /// Which move.
        number: u64,
        /// The epoch in which it is to stay: an answer of another one is worth nothing.
        epoch: u32,
        /// The answer.
        reply: oneshot::Sender<bool>,
    },
    /// Write what the old group knew of the slot, which has left that.
    Arrive {
        /// Which move.
        goes: SlotGoes,
        /// The group that it left.
        from: u16,
    },
    /// Write that the slot begins anew: by metadata it is the group's, and the log that had its arrival is lost.
    Anew(SlotGoes),
    /// Write something that means nothing, so that an entry of this node's own is committed: what an older leader wrote and did not commit is then of
    /// no log any more that could lead.
    Confirm,
    /// The move is over: nobody asks for what the old group knew of the slot any more.
    Over(u64),
}

/// How a group stands with moves of slots, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotStatus {
    /// The last move by which a slot left the group, and by which one came.
    pub left: u64,
    /// See `left`.
    pub arrived: u64,
    /// Whether this node leads the group, and all that was in its log when it began to is in these numbers.
    pub settled: bool,
    /// Whether an entry is committed that this node wrote as the leader it is now.
    pub confirmed: bool,
    /// The move that feeds are asked to stop for, while this node leads.
    pub asked: Option<u64>,
    /// Feeds that it waits for, the first few, and why.
    pub waits_for: Vec<String>,
    /// Why the slot that was asked about last cannot leave at all.
    pub refused: Option<(u64, String)>,
}

/// What left, until somebody has it.
enum Left {
    /// The shard is about to let go of it.
    Coming {
        cargo: Cargo,
        part: flume::Receiver<Result<Vec<u8>, String>>,
    },
    Ready(Bytes),
}

/// Moves of one group.
#[derive(Default)]
pub(super) struct Slots {
    departures: Arc<Departures>,
    hub: Option<HubHandle>,
    stages: Option<StageFactory>,
    /// The last moves that are committed.
    left: u64,
    arrived: u64,
    cargo: Option<(u64, Left)>,
    pieces: Pieces,
    /// Of this node as the leader: the last move that it wrote a word of, one that it will not, and whose cargo it wrote.
    written: u64,
    given_up: u64,
    sent: u64,
    /// Whether it wrote something only to have it committed.
    confirms: bool,
    refused: Option<(u64, String)>,
    /// Committed, and waiting for the group that the slot left.
    held: VecDeque<Input>,
    /// Barriers, where there are no snapshots to count them.
    barriers: u64,
}

impl Slots {
    /// Another epoch: what was written may never be committed, and what was not may be written again.
    pub(super) fn begin_anew(&mut self) {
        (self.written, self.given_up, self.sent, self.confirms) = (0, 0, 0, false);
    }
}

impl Ingest {
    /// What moves of slots need beside the log.
    pub(crate) fn move_slots(&mut self, departures: Arc<Departures>, hub: HubHandle, stages: StageFactory) {
        (self.slots.departures, self.slots.hub, self.slots.stages) = (departures, Some(hub), Some(stages));
    }

    /// A leader of before wrote that a slot leaves.
    pub(super) fn slots_written(&mut self, number: u64) {
        self.slots.written = number;
    }

    /// Whether something of a move is about to happen that nobody says.
    pub(super) fn slots_wait(&self) -> bool {
        !self.slots.held.is_empty() || matches!(self.slots.cargo, Some((_, Left::Coming { .. })))
    }

    pub(super) fn slot_asked(&mut self, ask: SlotAsk) {
        let leads = self.replica.is_some() && self.must_lead().is_ok();
        match ask {
            SlotAsk::Leave(goes) => {
                let Slots { left, written, given_up, .. } = *self.slots;
                if leads && goes.number > left && ![written, given_up].contains(&goes.number) {
                    match self.may_leave(goes.slot) {
                        Ok(()) => self.ask_feeds_to_stop(Some(goes)),
                        Err(why) => self.slots.refused = Some((goes.number, why)),
                    }
                }
            }
            SlotAsk::GiveUp { number, epoch, reply } => {
                let Slots { left, written, .. } = *self.slots;
                let in_epoch = self.replica.as_ref().is_some_and(|replica| replica.leads == Some(epoch));
                let may = leads && in_epoch && number > left && written != number;
                if may {
                    self.slots.given_up = number;
                    self.ask_feeds_to_stop(None);
                }
                let _ = reply.send(may);
            }
            SlotAsk::Arrive { goes, from } => {
                if leads && goes.number > self.slots.arrived && self.slots.sent != goes.number {
                    self.send_cargo(goes, from);
                }
            }
            SlotAsk::Anew(goes) => {
                let settled = self.replica.as_ref().is_some_and(|replica| replica.settled());
                if leads && settled && goes.number > self.slots.arrived && self.slots.sent != goes.number {
                    self.send_nothing(goes);
                }
            }
            SlotAsk::Confirm => {
                if leads && !std::mem::replace(&mut self.slots.confirms, true) {
                    self.write_word(Word::Nothing);
                }
            }
            SlotAsk::Over(number) => {
                if self.slots.cargo.as_ref().is_some_and(|(of, _)| *of <= number) {
                    self.slots.cargo = None;
                }
                self.slots.departures.over(number);
            }
        }
        self.leave_when_stopped();
        self.tell_slots();
    }

    /// Whether the state of a slot can be taken out of this group at all.
    fn may_leave(&self, slot: u16) -> Result<(), String> {
        let overflow = self.overflow.and_then(|key| self.name_of(key));
        if overflow.is_some_and(|name| slot_of(name_hash(name.as_bytes())) == slot) {
            return Err("names beyond the limits of feeds are in it, which stay in their group".to_owned());
        }
        if self.sources.len() > NUMBERINGS_MAX {
            let count = self.sources.len();
            return Err(format!("its group has {count} sources, allowed are {NUMBERINGS_MAX}"));
        }
        let Some(stages) = &self.slots.stages else { return Err("there are no shards".to_owned()) };
        Shard::new(stages()).take_slot(&|| stages(), slot).map(drop).map_err(|error| error.to_string())
    }

    /// The name of a key.
    fn name_of(&self, key: u32) -> Option<String> {
        self.all_names().nth(key as usize).map(str::to_owned)
    }

    fn all_names(&self) -> impl Iterator<Item = &str> {
        crate::snapshot::names_in(&self.texts)
    }

    fn ask_feeds_to_stop(&mut self, goes: Option<SlotGoes>) {
        let answers = &self.answers;
        self.server.ask_to_stop(goes, |id, bytes| {
            if let Some(answers) = answers.get(&id) {
                let _ = answers.try_send(FeedAnswer::Frames(bytes.to_vec()));
            }
        });
    }

    /// Ranks of sources that a move waits for.
    fn waits_for(&self) -> Vec<u16> {
        let done = |rank: &u16| self.sources.get(usize::from(*rank)).is_some_and(|of| of.state.finished);
        self.server.unstopped().into_iter().filter(|rank| !done(rank)).collect()
    }

    /// Writes that the slot leaves, if all feeds have stopped for it.
    pub(super) fn leave_when_stopped(&mut self) {
        let Some(goes) = self.server.leaves() else { return };
        let settled = self.replica.as_ref().is_some_and(|replica| replica.settled());
        let is_known = goes.number <= self.slots.left || goes.number == self.slots.given_up;
        if is_known || self.must_lead().is_err() || !settled || !self.waits_for().is_empty() {
            return;
        }
        let numberings = self.server.numberings();
        // From here on the slot's names are nobody's here; if this is never committed, another leader knows nothing of it.
        self.server.slot_moved(goes, &numberings);
        self.slots.written = goes.number;
        self.write_word(Word::Leaves(goes));
        self.tell_slots();
    }

    fn write_word(&mut self, word: Word<'_>) {
        if let Some(replica) = &mut self.replica {
            replica.submit();
            if let Some(epoch) = replica.leads {
                replica.waiting.push_back(Submission { epoch, input: Input::of_word(word) });
                replica.arrived.push_back(None);
                replica.push();
            }
        }
    }

    fn send_cargo(&mut self, goes: SlotGoes, from: u16) {
        let cargo = self.slots.departures.of(goes.number).and_then(|departure| departure.cargo);
        if let Some(cargo) = cargo {
            self.send_pieces(goes, from, &cargo);
        }
    }

    /// What is known of a slot whose state is lost: how far readers have heard of it.
    fn send_nothing(&mut self, goes: SlotGoes) {
        let (Some(stages), Some(hub)) = (self.slots.stages.clone(), &self.slots.hub) else { return };
        let slot = goes.slot;
        // Without an answer nothing is written: readers would be told numbers again that they know. It is asked again.
        let Ok(last) = hub.ask_blocking(move |hub, _| hub.last_of_slot(slot)) else { return };
        let last = |stream: u16| last.get(usize::from(stream)).copied().unwrap_or(0);
        let cargo = Cargo { part: Shard::part_of_nothing(stages(), slot, &last), ..Cargo::default() };
        self.send_pieces(goes, goes.to, &cargo.sealed());
    }

    fn send_pieces(&mut self, goes: SlotGoes, from: u16, cargo: &Bytes) {
        let pieces = cargo.len().div_ceil(PIECE_BYTES) as u32;
        for (piece, bytes) in (0..).zip(cargo.chunks(PIECE_BYTES)) {
            self.write_word(Word::Arrives { goes, from, piece, pieces, bytes });
        }
        self.slots.sent = goes.number;
    }

    /// Whether a committed input may happen now: what comes of a slot here is behind all that came of it in its old group.
    pub(super) fn may_happen(&self, input: &Input) -> bool {
        let Some(Word::Arrives { goes, from, piece, pieces, .. }) = input.word() else { return true };
        if piece + 1 < pieces || goes.number <= self.slots.arrived || from == goes.to {
            return true;
        }
        match self.slots.departures.departed(goes.number, from) {
            None => false,
            Some(None) => true,
            Some(Some((barrier, shards))) => {
                let past = |hub: &HubHandle| hub.ask_blocking(move |hub, _| hub.is_past(barrier, shards));
                // A hub that is gone has no readers that could be told too early.
                self.slots.hub.as_ref().is_none_or(|hub| past(hub).unwrap_or(true))
            }
        }
    }

    /// Holds committed inputs back; they come first.
    pub(super) fn hold(&mut self, inputs: &[Input]) {
        self.slots.held.extend(inputs.iter().cloned());
    }

    /// The next one that is held back, if it may happen now.
    pub(super) fn take_held(&mut self) -> Option<Input> {
        let may = self.slots.held.front().is_some_and(|input| self.may_happen(input));
        if may { self.slots.held.pop_front() } else { None }
    }

    pub(super) fn is_holding(&self) -> bool {
        !self.slots.held.is_empty()
    }

    /// A word of a move is committed.
    pub(super) fn word_committed(&mut self, word: Word<'_>) {
        match word {
            Word::Leaves(goes) if goes.number > self.slots.left => self.slot_leaves(goes),
            Word::Arrives { goes, from, piece, pieces, bytes } if goes.number > self.slots.arrived => {
                if let Some(cargo) = self.slots.pieces.take(goes, piece, pieces, bytes) {
                    // Lost were its departure and its return: what is here is what it goes on with.
                    if from == goes.to
                        && self.replica.as_ref().is_some_and(|replica| replica.log.owns(goes.slot))
                    {
                        self.slots.arrived = goes.number;
                        return self.tell_slots();
                    }
                    match Cargo::open(&cargo) {
                        Ok(cargo) => self.slot_arrives(goes, &cargo),
                        // It was sealed where it left; a log that has something else is no log of ours.
                        Err(why) => self.cannot_go_on(&why),
                    }
                }
            }
            // Written by two leaders.
            Word::Leaves(_) | Word::Arrives { .. } | Word::Nothing => {}
        }
        self.tell_slots();
    }

    fn cannot_go_on(&mut self, why: &str) {
        self.slots.refused = Some((u64::MAX, why.to_owned()));
        self.open = false;
    }

    fn next_barrier(&mut self) -> u64 {
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.barrier += 1;
            return snapshots.barrier;
        }
        self.slots.barriers += 1;
        first_barrier(self.options.feed.group.as_ref()) + self.slots.barriers
    }

    fn slot_leaves(&mut self, goes: SlotGoes) {
        // What has come of open frames goes to the shards, so that they are between two frames.
        (0..self.sources.len() as u16).for_each(|rank| self.release_source(rank));
        let keys = self.keys_here(goes.slot);
        let place: HashMap<u32, u32> = keys.iter().copied().zip(0..).collect();
        let names: Vec<String> = {
            let all: Vec<&str> = self.all_names().collect();
            keys.iter().filter_map(|key| all.get(*key as usize)).map(|name| (*name).to_owned()).collect()
        };
        let Some(replica) = &mut self.replica else { return };
        let numberings = replica.log.numberings();
        let mut suspects = Vec::new();
        for (source, &(id, _)) in self.sources.iter_mut().zip(&numberings) {
            let of_slot = |event: &Event| !event.is_control() && place.contains_key(&event.key);
            for event in source.sequencer.take_suspects(of_slot) {
                let name = place.get(&event.key).copied().unwrap_or(0);
                suspects.push(Suspect::of(id, name, &event));
            }
        }
        replica.log.slot_moved(goes, &numberings);
        let barrier = self.next_barrier();
        let (reply, part) = flume::bounded(1);
        let step = SlotStep::Take { slot: goes.slot, reply };
        self.change_slot(Some(self.router.shard_of(goes.slot)), SlotChange { barrier, step });
        self.router.leave(&keys);
        self.slot_is_of(goes);
        self.slots.left = goes.number;
        let shards = self.commander.shards();
        self.slots.departures.note(goes.number, Departure { barrier: Some((barrier, shards)), cargo: None });
        let cargo = Cargo { numberings, names, suspects, part: Vec::new() };
        self.slots.cargo = Some((goes.number, Left::Coming { cargo, part }));
        if self.must_lead().is_ok() {
            let numberings = self.server.numberings();
            self.server.slot_moved(goes, &numberings);
            self.tell_feeds(goes);
        }
    }

    /// Keys of a slot that are on its shard, in the order of the log.
    fn keys_here(&self, slot: u16) -> Vec<u32> {
        let of = |(hash, key): &(&u64, &u32)| slot_of(**hash) == slot && self.router.is_here(**key);
        let mut keys: Vec<u32> = self.names.iter().filter(of).map(|(_, key)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// One shard, or all, do something at a barrier, and that comes.
    fn change_slot(&mut self, shard: Option<u32>, change: SlotChange) {
        let (barrier, change) = (change.barrier, Arc::new(change));
        for of in 0..self.commander.shards() {
            if shard.is_none_or(|shard| shard == of) {
                // Of one that has ended nothing is expected any more, and its node says so.
                let _ = self.commander.control(of, ShardCommand::Slot(Arc::clone(&change)));
            }
        }
        self.route(&[Event::control(kind::BARRIER, 0, 0, 0, [barrier, 0])]);
    }

    fn slot_is_of(&mut self, goes: SlotGoes) {
        if let Some(group) = &mut self.options.feed.group
            && let Some(of) = Arc::make_mut(&mut group.slots).get_mut(usize::from(goes.slot))
        {
            *of = goes.to;
        }
    }

    /// Feeds that could not take the last word hear it again.
    pub(super) fn say_again(&mut self) {
        let answers = &self.answers;
        self.server.say_again(|id, bytes| {
            if let Some(answers) = answers.get(&id) {
                let _ = answers.try_send(FeedAnswer::Frames(bytes.to_vec()));
            }
        });
    }

    fn tell_feeds(&mut self, goes: SlotGoes) {
        let answers = &self.answers;
        self.server.tell_moved(goes, |id: ConnectionId, bytes| {
            if let Some(answers) = answers.get(&id) {
                let _ = answers.try_send(FeedAnswer::Frames(bytes.to_vec()));
            }
        });
    }

    fn slot_arrives(&mut self, goes: SlotGoes, cargo: &Cargo) {
        let head = match PartHead::read(&cargo.part) {
            Ok(head) if head.keys.len() == cargo.names.len() => head,
            Ok(_) => return self.cannot_go_on("a slot that comes has other names than keys"),
            Err(why) => return self.cannot_go_on(&why.to_string()),
        };
        (0..self.sources.len() as u16).for_each(|rank| self.release_source(rank));
        // It never left, by this log, which is then one behind a declared loss: what comes takes the place of what is here.
        let stale = self.keys_here(goes.slot);
        if !stale.is_empty() {
            self.router.leave(&stale);
        }
        let mut keys = Vec::new();
        for name in &cargo.names {
            let hash = name_hash(name.as_bytes());
            let key = match self.names.get(&hash) {
                Some(&key) => key,
                None => {
                    let key = self.router.defined() as u32;
                    self.names.insert(hash, key);
                    self.texts.push(name.len() as u8);
                    self.texts.extend_from_slice(name.as_bytes());
                    self.downstream.name(name);
                    key
                }
            };
            self.router.arrive(key, hash);
            keys.push(key);
        }
        let Some(replica) = &mut self.replica else { return };
        let rank = |&(id, _): &(u64, u64)| replica.log.rank_of(id).unwrap_or(u16::MAX);
        let sources: Arc<[u16]> = cargo.numberings.iter().map(rank).collect();
        let ranks: Vec<Option<u16>> =
            cargo.suspects.iter().map(|suspect| replica.log.rank_of(suspect.source)).collect();
        replica.log.slot_moved(goes, &cargo.numberings);
        let (barrier, to) = (self.next_barrier(), self.router.shard_of(goes.slot));
        let (reply, _) = flume::bounded(self.commander.shards() as usize);
        let part: Arc<[u8]> = cargo.part.as_slice().into();
        for shard in 0..self.commander.shards() {
            let part = (shard == to).then(|| Arc::clone(&part));
            let (watermark, sources, reply) = (head.watermark, Arc::clone(&sources), reply.clone());
            let step = SlotStep::Join { watermark, part, sources, reply };
            let change = ShardCommand::Slot(Arc::new(SlotChange { barrier, step }));
            let _ = self.commander.control(shard, change);
        }
        self.route(&[Event::control(kind::BARRIER, 0, 0, 0, [barrier, 0])]);
        for (suspect, rank) in cargo.suspects.iter().zip(ranks) {
            let key = keys.get(suspect.name as usize).copied().unwrap_or(u32::MAX);
            match rank.and_then(|rank| self.sources.get_mut(usize::from(rank)).map(|source| (rank, source))) {
                Some((rank, source)) => {
                    let (router, shards, open) = (&mut self.router, &mut self.downstream, &mut self.open);
                    let times = &self.shared.times;
                    source.sequencer.push(&[suspect.event(key, rank)], &mut |frame| {
                        *open &= shards.route(router, frame, times);
                    });
                }
                // Its source has sent nothing here yet, so there is nothing to hold it back against.
                None => self.route(&[suspect.event(key, u16::MAX)]),
            }
        }
        self.slot_is_of(goes);
        self.slots.arrived = goes.number;
        if self.must_lead().is_ok() {
            self.server.slot_moved(goes, &cargo.numberings);
            self.tell_feeds(goes);
        }
    }

    /// Takes what the shard let go of, if it has come.
    pub(super) fn look_for_cargo(&mut self) {
        let Some((number, Left::Coming { part, .. })) = &self.slots.cargo else { return };
        let (number, part) = (*number, part.try_recv());
        match part {
            Ok(part) => self.cargo_came(number, part),
            Err(flume::TryRecvError::Empty) => {}
            Err(flume::TryRecvError::Disconnected) => {
                self.cannot_go_on("a shard has ended with a slot that leaves")
            }
        }
    }

    fn cargo_came(&mut self, number: u64, part: Result<Vec<u8>, String>) {
        let Some((_, Left::Coming { mut cargo, .. })) = self.slots.cargo.take() else { return };
        match part {
            Ok(part) => {
                cargo.part = part;
                let sealed = cargo.sealed();
                self.slots.departures.has(number, &sealed);
                self.slots.cargo = Some((number, Left::Ready(sealed)));
            }
            Err(why) => self.cannot_go_on(&why),
        }
        self.tell_slots();
    }

    /// What a snapshot has of moves; nothing before the first one.
    pub(super) fn moves_state(&mut self) -> Option<Vec<u8>> {
        if let Some((number, Left::Coming { part, .. })) = &self.slots.cargo {
            let (number, part) = (*number, part.recv_timeout(LETS_GO));
            self.cargo_came(
                number,
                part.unwrap_or_else(|_| Err("a shard does not let go of a slot".to_owned())),
            );
        }
        let Slots { left, arrived, cargo, pieces, .. } = &*self.slots;
        if *left == 0 && *arrived == 0 && *pieces == Pieces::default() {
            return None;
        }
        let log = self.replica.as_ref().map(|replica| &replica.log);
        let divided = log.iter().flat_map(|log| log.divided());
        let state = MovesState {
            slots: self.options.feed.group.as_ref().map_or_else(Vec::new, |group| group.slots.to_vec()),
            left: *left,
            arrived: *arrived,
            divided: divided
                .map(|(id, session, goes)| (id, session, goes.number, goes.slot, goes.to))
                .collect(),
            cargo: cargo.as_ref().and_then(|(number, left)| match left {
                Left::Ready(bytes) => Some((*number, bytes.to_vec())),
                Left::Coming { .. } => None,
            }),
            pieces: (*pieces != Pieces::default())
                .then(|| (pieces.number, pieces.next, pieces.bytes.clone())),
        };
        let mut bytes = Vec::new();
        append(&mut bytes, &state);
        Some(bytes)
    }

    /// Takes over what a snapshot has of moves.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn restore_moves(&mut self, bytes: &[u8]) -> Result<(), String> {
        let state: MovesState = read(bytes, "moves of slots").map_err(|error| error.to_string())?;
        let MovesState { slots, left, arrived, divided, cargo, pieces } = state;
        let Some(group) = self.options.feed.group.as_mut().filter(|group| group.slots.len() == slots.len())
        else {
            return Err("it is of a group with moved slots, and this is none".to_owned());
        };
        group.slots = slots.into();
        let group = group.clone();
        (self.slots.left, self.slots.arrived) = (left, arrived);
        if let Some(replica) = &mut self.replica {
            let of = |(id, session, number, slot, to)| (id, session, SlotGoes { number, slot, to });
            replica.log.restore_divided(divided.into_iter().map(of));
            replica.log.set_slots(&group.slots);
            self.server.go_on_from(&replica.log);
        }
        self.slots.departures.begin(group.group, left);
        if let Some((number, bytes)) = cargo {
            let cargo: Bytes = bytes.into();
            self.slots.departures.note(number, Departure { barrier: None, cargo: Some(cargo.clone()) });
            self.slots.cargo = Some((number, Left::Ready(cargo)));
        }
        if let Some((number, next, bytes)) = pieces {
            self.slots.pieces = Pieces { number, next, bytes };
        }
        self.tell_slots();
        Ok(())
    }

    /// Says how the group stands.
    pub(super) fn tell_slots(&self) {
        let asked = self.server.leaves().map(|goes| goes.number);
        let waits = if asked.is_some() { self.waits_for() } else { Vec::new() };
        let says = |rank: &u16| {
            let name = self.server.sources().nth(usize::from(*rank)).map_or_else(String::new, |of| of.name);
            if self.server.cannot_stop(*rank) {
                format!("{name} (it speaks a version of before)")
            } else if self.server.is_connected(*rank) {
                name
            } else {
                format!("{name} (away)")
            }
        };
        let leads = |replica: &Replicating| replica.leads.is_some() && replica.settled();
        let status = SlotStatus {
            left: self.slots.left,
            arrived: self.slots.arrived,
            settled: self.replica.as_deref().is_some_and(leads),
            confirmed: self.replica.as_deref().is_some_and(|replica| replica.confirmed && leads(replica)),
            asked,
            waits_for: waits.iter().take(NAMED_MAX).map(says).collect(),
            refused: self.slots.refused.clone(),
        };
        self.shared.slots.send_if_modified(|known| {
            let news = *known != status;
            if news {
                *known = status;
            }
            news
        });
    }
}
