//! A feed's sessions, one for each group of a cluster that it has something for. To whoever offers events they are one: events have one
//! numbering, and what is acknowledged is a beginning of it.
//!
//! A name belongs to the group of its slot, so each group's session sees the same part of the feed in every run and every
//! connection, and goes on where that group stands by its own numbers. What is not about a key goes to all groups.
//!
//! When a slot changes its group (see [`super::moving`]) nothing more is taken until it is there: what was taken is acknowledged, and the next event
//! of the slot is of the other session.
//!
//! Windows close with the time that events show, and a group sees its own only. So every group that was given nothing while the feed's time
//! went on is told that ([`kind::TIME`]): when, follows from the events offered and from nothing else.

use super::client::{FeedClient, FeedClientOptions, FeedEvent};
use crate::close::{Close, CloseCode};
use crate::frame::{Credential, Frame, SlotFrame, SlotWord};
use crate::groups::GroupMap;
use crate::time::MonoTime;
use crate::wire::NAME_BYTES_MAX;
use std::collections::VecDeque;
use tidegate_engine::{Event, kind, name_hash, slot_of};

/// How far a group may be behind the feed's time, in nanoseconds, before it is told.
const BEHIND_MAX_NS: u64 = 100_000_000;

/// Events that are looked at to say how many servers know.
const KNOWN_MAX: usize = 256;

/// Where events one behind the other went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Group(u16),
    All,
    /// To a group, and nobody offered them: they tell it the time.
    Told(u16),
}

#[derive(Debug, Clone, Copy)]
struct Run {
    to: To,
    events: u32,
}

/// One session of a group.
#[derive(Debug)]
struct Part {
    client: FeedClient,
    /// What was offered and not handed to the session yet.
    staged: Vec<Event>,
    /// Events of this session that are accounted for in the one numbering.
    taken: u64,
    /// The time that it was given last.
    last: Option<u64>,
    touched: bool,
    /// The last move that divided its numbering.
    moved: u64,
}

/// The feed has stopped for a slot that leaves a group, or is about to.
#[derive(Debug, Clone, Copy)]
struct Hold {
    goes: SlotFrame,
    from: u16,
    /// Whether all that was taken is acknowledged, which the group is told.
    stopped: bool,
    /// Whether the group said that the slot has left.
    left: bool,
}

/// Where a key of the feed is.
#[derive(Debug, Clone, Copy)]
struct Place {
    group: u16,
    key: u32,
}

/// The sessions of a feed in a cluster of several groups.
#[derive(Debug)]
pub struct SplitFeed {
    options: FeedClientOptions,
    map: GroupMap,
    parts: Vec<Option<Box<Part>>>,
    keys: Vec<Place>,
    /// Where what was offered went, behind what is settled.
    runs: VecDeque<Run>,
    offered: u64,
    settled: u64,
    finished: bool,
    /// When it is looked again who is behind: event time, and events offered.
    look: (u64, u64),
    /// Groups with something new to send.
    touched: Vec<u16>,
    hold: Option<Hold>,
    /// Names that were given since it has stopped, the last ones of all: which groups they are of shows when it goes on.
    late: Vec<Box<str>>,
}

impl SplitFeed {
    /// A feed that has offered nothing yet. `options` are those of each session but for its group; `unacked_max` is of all together.
    #[must_use]
    pub fn new(options: FeedClientOptions, map: GroupMap) -> Self {
        let parts = (0..map.len()).map(|_| None).collect();
        Self {
            options,
            map,
            parts,
            keys: Vec::new(),
            runs: VecDeque::new(),
            offered: 0,
            settled: 0,
            finished: false,
            look: (0, 0),
            touched: Vec::new(),
            hold: None,
            late: Vec::new(),
        }
    }

    /// The groups as they were told at first, but for slots that moved since; who leads may have changed.
    #[must_use]
    pub fn map(&self) -> &GroupMap {
        &self.map
    }

    /// The session of a group; `None` while there is nothing for it.
    #[must_use]
    pub fn session(&self, group: u16) -> Option<&FeedClient> {
        self.parts.get(usize::from(group))?.as_ref().map(|part| &part.client)
    }

    /// Groups that have a session.
    pub fn groups(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(&self.parts).filter(|(_, part)| part.is_some()).map(|(group, _)| group)
    }

    fn sessions(&self) -> impl Iterator<Item = &FeedClient> {
        self.parts.iter().flatten().map(|part| &part.client)
    }

    /// Groups whose sessions have something new to send since this was last asked, those that have just come to be included.
    pub fn take_touched(&mut self) -> Vec<u16> {
        for &group in &self.touched {
            if let Some(part) = &mut self.parts[usize::from(group)] {
                part.touched = false;
            }
        }
        std::mem::take(&mut self.touched)
    }

    fn part(&mut self, group: u16) -> &mut Part {
        let part = self.parts[usize::from(group)].get_or_insert_with(|| {
            let options = FeedClientOptions { group: Some(group), ..self.options.clone() };
            let mut client = FeedClient::one_of_many(options);
            if self.finished {
                client.finish();
            }
            Box::new(Part { client, staged: Vec::new(), taken: 0, last: None, touched: false, moved: 0 })
        });
        if !part.touched {
            part.touched = true;
            self.touched.push(group);
        }
        part
    }

    /// As [`FeedClient::define`].
    pub fn define(&mut self, name: &str) -> Option<u32> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return None;
        }
        let key = u32::try_from(self.keys.len()).ok()?;
        if self.hold.is_some() {
            self.late.push(name.into());
            self.keys.push(Place { group: 0, key: u32::MAX });
            return Some(key);
        }
        let group = self.map.group_of(slot_of(name_hash(name.as_bytes())));
        let place = Place { group, key: self.part(group).client.define(name)? };
        self.keys.push(place);
        Some(key)
    }

    /// Names given.
    #[must_use]
    pub fn defined(&self) -> u32 {
        self.keys.len() as u32
    }

    /// As [`FeedClient::offer`]. Room is there for as many as may be between the first event that is not acknowledged and the last, and in
    /// any session: a group that acknowledges nothing in the end stops all.
    pub fn offer(&mut self, events: &[Event]) -> usize {
        let count = events.len().min(self.room());
        for event in &events[..count] {
            self.offered += 1;
            if event.is_control() {
                (0..self.parts.len() as u16).for_each(|group| self.part(group).staged.push(*event));
                self.run(To::All);
                continue;
            }
            // A key without a name is the server's to refuse; the first group's is as good as any.
            let place = self.keys.get(event.key as usize).copied();
            let Place { group, key } = place.unwrap_or(Place { group: 0, key: u32::MAX });
            let part = self.part(group);
            part.staged.push(Event { key, ..*event });
            part.last = Some(event.ts_event);
            self.run(To::Group(group));
            // Not for each event, however far apart they are: at most as many again are sent. No session gets more than one for an event.
            let (time, offered) = self.look;
            let back = event.ts_event.saturating_add(2 * BEHIND_MAX_NS) < time;
            if self.offered >= offered && (event.ts_event >= time || back) {
                self.tell(event.ts_event);
            }
        }
        for part in self.parts.iter_mut().flatten().filter(|part| !part.staged.is_empty()) {
            let taken = part.client.offer(&part.staged);
            // A session keeps no more than all together may.
            assert_eq!(taken, part.staged.len(), "a session has room for what all have room for");
            part.staged.clear();
        }
        // What was known from an earlier run is settled at once.
        self.advance();
        count
    }

    /// Tells the time to groups that know an earlier one.
    fn tell(&mut self, now: u64) {
        self.look = (now.saturating_add(BEHIND_MAX_NS), self.offered + self.parts.len() as u64);
        for group in 0..self.parts.len() as u16 {
            let part = self.parts[usize::from(group)].as_ref();
            if part.and_then(|part| part.last).is_some_and(|last| last.saturating_add(BEHIND_MAX_NS) > now) {
                continue;
            }
            let part = self.part(group);
            part.staged.push(Event::control(kind::TIME, now, 0, 0, [0; 2]));
            part.last = Some(now);
            self.run(To::Told(group));
        }
    }

    /// One more event went there.
    fn run(&mut self, to: To) {
        match self.runs.back_mut() {
            Some(run) if run.to == to && run.events < u32::MAX => run.events += 1,
            _ => self.runs.push_back(Run { to, events: 1 }),
        }
    }

    /// As [`FeedClient::known`], of the first few: words about the time in between, which sessions know as well, are not looked for, so of
    /// those few some may be too many.
    #[must_use]
    pub fn known(&self, events: &[Event]) -> usize {
        let few = &events[..events.len().min(KNOWN_MAX)];
        let mut left: Vec<usize> =
            self.parts.iter().map(|part| part.as_ref().map_or(0, |part| part.client.known(few))).collect();
        let known = few.iter().position(|event| {
            let group = match self.keys.get(event.key as usize) {
                _ if event.is_control() => None,
                place => Some(place.map_or(0, |place| usize::from(place.group))),
            };
            let sessions = group.map_or(0..left.len(), |group| group..group + 1);
            left[sessions].iter_mut().fold(false, |new, left| {
                let is_new = *left == 0;
                *left = left.saturating_sub(1);
                new | is_new
            })
        });
        known.unwrap_or(few.len())
    }

    /// Events there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.hold.is_some() {
            return 0;
        }
        let least = self.sessions().map(FeedClient::room).min().unwrap_or(usize::MAX);
        self.options.unacked_max.saturating_sub(self.unacked()).min(least)
    }

    /// Counts what all sessions together have settled.
    fn advance(&mut self) {
        while let Some(run) = self.runs.front_mut() {
            let parts = match run.to {
                To::Group(group) => self.parts.get_mut(usize::from(group)..=usize::from(group)),
                To::All => Some(&mut self.parts[..]),
                // Nobody's event waits for it, unless it is one of that group.
                To::Told(group) => {
                    if let Some(Some(part)) = self.parts.get_mut(usize::from(group)) {
                        part.taken += u64::from(run.events);
                    }
                    self.runs.pop_front();
                    continue;
                }
            };
            let Some(parts) = parts else { return };
            let ready =
                |part: &Part| part.client.settled().min(part.client.offered()).saturating_sub(part.taken);
            let least = parts.iter().map(|part| part.as_deref().map_or(0, ready)).min();
            let events = least.unwrap_or(0).min(u64::from(run.events));
            if events == 0 {
                return;
            }
            parts.iter_mut().flatten().for_each(|part| part.taken += events);
            run.events -= events as u32;
            self.settled += events;
            if run.events == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// Events offered so far, skipped ones included.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// So many of the events offered are acknowledged from the first on without one missing, each by its group (sent, where no acks were
    /// asked for; or declared lost).
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Events behind those, of which some may be acknowledged.
    #[must_use]
    pub fn unacked(&self) -> usize {
        (self.offered - self.settled) as usize
    }

    /// Events that servers had from an earlier run; one that goes to all groups counts in each, and so does what told a group the time.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.sessions().map(FeedClient::skipped).sum()
    }

    /// Whether every session that there is stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.sessions().all(FeedClient::is_up)
    }

    /// Whether everything that was offered is with the servers, as far as the mode can know.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.sessions().all(FeedClient::is_settled)
    }

    /// As [`FeedClient::finish`], of all sessions.
    pub fn finish(&mut self) {
        self.finished = true;
        self.parts.iter_mut().flatten().for_each(|part| part.client.finish());
    }

    fn with<T>(&mut self, group: u16, none: T, act: impl FnOnce(&mut FeedClient) -> T) -> T {
        let Some(Some(part)) = self.parts.get_mut(usize::from(group)) else { return none };
        let done = act(&mut part.client);
        self.advance();
        self.stop_when_settled();
        done
    }

    /// As [`FeedClient::present`].
    ///
    /// # Panics
    /// As that.
    pub fn present(&mut self, group: u16, credential: Option<Credential<'_>>) {
        self.with(group, (), |client| client.present(credential));
    }

    /// As [`FeedClient::connected`].
    pub fn connected(&mut self, group: u16, now: MonoTime) {
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.from == group) {
            // Whoever answers says whether the slot has left, or is still to.
            (hold.stopped, hold.left) = (true, false);
        }
        self.with(group, (), |client| client.connected(now));
    }

    /// As [`FeedClient::disconnected`].
    pub fn disconnected(&mut self, group: u16) {
        self.with(group, (), FeedClient::disconnected);
    }

    /// As [`FeedClient::handle`], of a frame that came over the connection of a group's session.
    ///
    /// # Errors
    /// As that.
    pub fn handle(
        &mut self,
        group: u16,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'_>,
    ) -> Result<Option<FeedEvent>, Close> {
        let event = self.with(group, Ok(None), |client| client.handle(now, offset, frame))?;
        if let Frame::Slot(word) = frame {
            self.heard_of_slot(group, *word)?;
        }
        // What a server has to say of a move that took place it says in front of this answer.
        let answered = matches!(event, Some(FeedEvent::Ready { .. } | FeedEvent::ServerLost { .. }));
        if answered && self.hold.is_some_and(|hold| hold.from == group && !hold.left) {
            self.go_on();
        }
        Ok(event)
    }

    /// A group says something about a slot that leaves it, or comes to it.
    fn heard_of_slot(&mut self, group: u16, word: SlotFrame) -> Result<(), Close> {
        let Some(Some(part)) = self.parts.get(usize::from(group)) else { return Ok(()) };
        let moved = part.moved;
        match word.word {
            SlotWord::Leaving => {
                let known = self.hold.map(|hold| (hold.goes.number, hold.from));
                let mine = known.is_none_or(|(number, from)| number <= word.number && from == group);
                if word.number > moved && mine && usize::from(word.to) < self.parts.len() {
                    self.hold = Some(Hold { goes: word, from: group, stopped: false, left: false });
                    // Where it goes is heard of there.
                    self.part(word.to);
                    self.stop_when_settled();
                }
                Ok(())
            }
            SlotWord::Stays => {
                if self.hold.is_some_and(|hold| hold.from == group && hold.goes.number == word.number) {
                    self.go_on();
                }
                Ok(())
            }
            SlotWord::Moved if word.number <= moved => Ok(()),
            SlotWord::Moved => match self.hold {
                Some(hold) if hold.goes.number == word.number => {
                    if group == hold.goes.to {
                        self.arrived(hold);
                    } else if group == hold.from
                        && let Some(hold) = &mut self.hold
                    {
                        hold.left = true;
                    }
                    Ok(())
                }
                // The slot left behind the last word of the old group's session, and nothing more comes of it.
                _ if self.session(self.map.group_of(word.slot)).is_some_and(FeedClient::has_ended) => Ok(()),
                _ => {
                    let reason = format!(
                        "slot {} went to group {} within this numbering, and this process was not there: give another session, behind what is acknowledged",
                        word.slot, word.to
                    );
                    Err(Close::new(CloseCode::GROUP, reason))
                }
            },
            SlotWord::Stopped => Ok(()),
        }
    }

    /// Tells the group that a slot leaves, once all that was taken is acknowledged, by whichever groups.
    fn stop_when_settled(&mut self) {
        let settled = self.sessions().all(FeedClient::is_settled);
        let Some(hold) = self.hold.as_mut().filter(|hold| settled && !hold.stopped) else { return };
        hold.stopped = true;
        let Hold { goes, from, .. } = *hold;
        self.part(from).client.stop(Some(SlotFrame { word: SlotWord::Stopped, ..goes }));
    }

    /// Takes events again.
    fn go_on(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.part(hold.from).client.stop(None);
            let late = std::mem::take(&mut self.late);
            let first = self.keys.len() - late.len();
            for (at, name) in (first..).zip(late) {
                let group = self.map.group_of(slot_of(name_hash(name.as_bytes())));
                if let Some(key) = self.part(group).client.define(&name) {
                    self.keys[at] = Place { group, key };
                }
            }
        }
    }

    /// The slot is there: its names and events are of the other session from here on.
    fn arrived(&mut self, Hold { goes: SlotFrame { slot, to, number, .. }, from, .. }: Hold) {
        for at in 0..self.keys.len() {
            let Place { group, key } = self.keys[at];
            let name = self.session(group).and_then(|client| client.name(key)).map(str::to_owned);
            let Some(name) = name.filter(|name| group == from && slot_of(name_hash(name.as_bytes())) == slot)
            else {
                continue;
            };
            if let Some(key) = self.part(to).client.define(&name) {
                self.keys[at] = Place { group: to, key };
            }
        }
        self.map.give(slot, to);
        (self.part(from).moved, self.part(to).moved) = (number, number);
        // It may not have heard of the time that the slot's events had come to. Of a feed that is done nobody need hear more, and its sessions may have ended.
        let time = self.part(from).last.filter(|_| !self.finished);
        if let Some(time) = time.filter(|time| self.part(to).last.is_none_or(|last| last < *time)) {
            let part = self.part(to);
            part.last = Some(time);
            part.client.offer(&[Event::control(kind::TIME, time, 0, 0, [0; 2])]);
            self.run(To::Told(to));
        }
        self.go_on();
    }

    /// Whether nothing is taken because a slot changes its group.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.hold.is_some()
    }

    /// As [`FeedClient::transmit`], for the connection of a group's session.
    ///
    /// # Errors
    /// As that.
    pub fn transmit(
        &mut self,
        group: u16,
        now: MonoTime,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Close> {
        self.with(group, Ok(false), |client| client.transmit(now, bytes_max, out))
    }

    /// As [`FeedClient::transmit_datagram`], for the connection of a group's session.
    pub fn transmit_datagram(
        &mut self,
        group: u16,
        now: MonoTime,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        self.with(group, false, |client| client.transmit_datagram(now, bytes_max, out))
    }
}
