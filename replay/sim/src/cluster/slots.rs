//! Slots that move: the decisions are the real ones ([`Mover`]), and so are metadata's commands; ingest is a model of what it does with both. A leader takes
//! events of slots that its log has, and of none behind its own word that a slot leaves; what comes counts once it is committed.

use super::{Cluster, Event};
use crate::check::Broken;
use crate::machine::{Held, SLOTS_MAX, Word};
use std::rc::Rc;
use tidegate_replica::{
    Body, Command, GroupId, Meta, Mover, NodeId, Role, SLOTS, SlotAction, SlotStand, SlotTrip, Submitted,
};

/// The source of all words of a group, whoever leads it.
pub(super) const WORDS: u32 = u32::MAX;
/// How long feeds may take to stop.
const PATIENCE: u64 = 90;

/// What a node keeps of moves while it runs.
pub(super) struct Moving {
    /// The newest metadata that it was told.
    known: Option<Rc<Meta>>,
    mover: Mover,
}

impl Moving {
    pub(super) fn of(node: NodeId) -> Self {
        Self { known: None, mover: Mover::new(node, PATIENCE) }
    }
}

/// What a leader does about moves in one epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    epoch: u32,
    /// The move that feeds are asked to stop for, and when the last of them will have.
    leaves: Option<(SlotTrip, u64)>,
    given_up: u64,
    /// The move of which it wrote what came.
    sent: u64,
    /// Up to this move nobody asks for what left.
    over: u64,
}

/// A feed of a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlotFeed {
    acked: u32,
    /// Its acknowledgements when everything healed.
    pub(super) before: u64,
}

/// What a leader may do now.
struct Leads {
    /// As its log has it, what is not committed included; what came counts only once it is.
    view: Held,
    /// The last move that is written as leaving.
    written: u64,
    settled: bool,
    epoch: u32,
}

/// The slots of a life.
pub(super) fn numbers(count: usize) -> Vec<u16> {
    (0..count.min(SLOTS_MAX)).map(|at| (at * usize::from(SLOTS) / count + 11) as u16).collect()
}

impl Cluster {
    fn slot(&self, slot: u16) -> Option<u8> {
        self.slots.iter().position(|of| *of == slot).map(|at| at as u8)
    }

    /// A node hears of metadata, perhaps of the past.
    pub(super) fn hears(&mut self, at: usize, meta: &Rc<Meta>) {
        let known = &mut self.nodes[at].moving.known;
        if known.as_ref().is_none_or(|known| known.revision < meta.revision) {
            *known = Some(Rc::clone(meta));
        }
    }

    fn leads(&self, at: usize, group: GroupId) -> Option<Leads> {
        let part = self.nodes[at].parts[usize::from(group)].as_ref()?;
        let replica = part.replica.as_ref().filter(|replica| replica.role() == Role::Leader)?;
        let mut view = replica.machine().held();
        for entry in replica.log().slice(replica.commit(), usize::MAX) {
            if let Body::Input { input, .. } = &entry.body
                && let Some(word @ (Word::Event { .. } | Word::Leaves { .. })) = Word::of(*input)
            {
                view.apply(word);
            }
        }
        let settled = replica.commit() >= part.led_from;
        Some(Leads { written: u64::from(view.left), view, settled, epoch: replica.epoch() })
    }

    /// Writes a word into a group's log.
    fn write(&mut self, at: usize, group: GroupId, word: Word) -> Result<bool, Broken> {
        let mut became = Submitted::NotLeader;
        self.step(at, group, |replica| {
            let next = replica.last(WORDS) + 1;
            became = replica.submit(WORDS, next, word.input());
        })?;
        Ok(became == Submitted::Accepted)
    }

    fn stand(&self, at: usize, group: GroupId) -> Option<SlotStand> {
        let part = self.nodes[at].parts[usize::from(group)].as_ref()?;
        let replica = part.replica.as_ref()?;
        let held = replica.machine().held();
        Some(SlotStand {
            left: u64::from(held.left),
            arrived: u64::from(held.arrived),
            commit: replica.commit(),
            settled: replica.role() == Role::Leader && replica.commit() >= part.led_from,
            confirmed: replica.role() == Role::Leader && replica.commit() > part.led_from,
            refused: None,
        })
    }

    /// A node looks at what is to be done about slots.
    pub(super) fn move_slots(&mut self, at: usize) -> Result<(), Broken> {
        let Some(meta) = self.nodes[at].moving.known.clone() else { return Ok(()) };
        let mut mover = self.nodes[at].moving.mover.clone();
        let actions = mover.look(&meta, self.now, |group| self.stand(at, group));
        self.nodes[at].moving.mover = mover;
        for action in actions {
            if self.options.trace {
                println!("{:>6} node {} {action:?}", self.now, at + 1);
            }
            self.act(at, action)?;
        }
        for place in 0..self.nodes[at].held.len() {
            let group = self.nodes[at].held[place];
            self.leave_when_stopped(at, group)?;
        }
        Ok(())
    }

    /// What a leader keeps in this epoch of its.
    fn asked(&mut self, at: usize, group: GroupId, epoch: u32) -> Option<&mut Asked> {
        let asked = &mut self.nodes[at].part(group)?.asked;
        if asked.epoch != epoch {
            *asked = Asked { epoch, over: asked.over, ..Asked::default() };
        }
        Some(asked)
    }

    fn act(&mut self, at: usize, action: SlotAction) -> Result<(), Broken> {
        match action {
            SlotAction::Leave { trip, from } => {
                let Some(leads) = self.leads(at, from) else { return Ok(()) };
                let stops = self.now + self.random.below(2 * PATIENCE);
                let Some(asked) = self.asked(at, from, leads.epoch) else { return Ok(()) };
                let other = asked.leaves.is_none_or(|(of, _)| of != trip);
                if trip.number > leads.written && asked.given_up != trip.number && other {
                    asked.leaves = Some((trip, stops));
                }
            }
            SlotAction::GiveUp { trip, from, then } => {
                let Some(leads) = self.leads(at, from) else { return Ok(()) };
                let names = matches!(then, Command::SlotStays { epoch, .. } if epoch == leads.epoch);
                if trip.number > leads.written && names {
                    if let Some(asked) = self.asked(at, from, leads.epoch) {
                        (asked.given_up, asked.leaves) = (trip.number, None);
                    }
                    self.propose(at, then);
                }
            }
            SlotAction::Arrive { trip, from } => {
                let left = self.nodes[at].part(from).and_then(|part| {
                    let cargo = part.replica.as_ref()?.machine().held().cargo;
                    (u64::from(cargo.0) == trip.number && part.asked.over < trip.number).then_some(cargo.1)
                });
                if let Some(last) = left {
                    self.arrives(at, trip, last, false)?;
                }
            }
            SlotAction::Anew(trip) => self.arrives(at, trip, 0, true)?,
            SlotAction::Confirm(group) => {
                self.write(at, group, Word::Nothing)?;
            }
            SlotAction::Propose(command) => self.propose(at, command),
            SlotAction::Over(number) => {
                for part in self.nodes[at].parts.iter_mut().flatten() {
                    part.asked.over = part.asked.over.max(number);
                }
            }
        }
        Ok(())
    }

    fn arrives(&mut self, at: usize, trip: SlotTrip, last: u32, anew: bool) -> Result<(), Broken> {
        let (Some(leads), Some(slot)) = (self.leads(at, trip.to), self.slot(trip.slot)) else {
            return Ok(());
        };
        let known = u64::from(leads.view.arrived);
        let sent = self.asked(at, trip.to, leads.epoch).map_or(0, |asked| asked.sent);
        if trip.number <= known || sent == trip.number {
            return Ok(());
        }
        let word = Word::Arrives { slot, number: trip.number as u32, last, anew };
        if self.write(at, trip.to, word)?
            && let Some(asked) = self.asked(at, trip.to, leads.epoch)
        {
            asked.sent = trip.number;
        }
        Ok(())
    }

    /// All feeds have stopped: the slot leaves.
    fn leave_when_stopped(&mut self, at: usize, group: GroupId) -> Result<(), Broken> {
        let (now, Some(leads)) = (self.now, self.leads(at, group)) else { return Ok(()) };
        let Some(asked) = self.asked(at, group, leads.epoch) else { return Ok(()) };
        let Some((trip, stops)) = asked.leaves.filter(|_| leads.settled) else { return Ok(()) };
        if trip.number <= leads.written {
            asked.leaves = None;
        } else if stops <= now
            && let Some(slot) = self.slot(trip.slot)
        {
            self.write(at, group, Word::Leaves { slot, number: trip.number as u32 })?;
        }
        Ok(())
    }

    /// A feed sends what comes next of a slot.
    pub(super) fn feed_slot(&mut self, slot: u8) {
        let (least, most) = self.plan.feed_every;
        let next = least + self.random.below(most - least);
        self.push(next, Event::SlotFeed(slot));
        if self.quiet {
            return;
        }
        let id = self.slots[usize::from(slot)];
        let known = self.meta.moves.get(&id).filter(|of| of.is_under_way());
        let group = match known {
            Some(of) if self.random.chance(1, 2) => of.to,
            _ if self.random.chance(1, 10) => self.random.below(self.meta.groups.len() as u64) as GroupId,
            _ => self.meta.slots.group_of(id),
        };
        let leader = self.meta.groups[usize::from(group)].leader.filter(|_| self.random.chance(9, 10));
        let to = match leader {
            Some(leader) => usize::from(leader.node) - 1,
            None => self.random.below(self.nodes.len() as u64) as usize,
        };
        let acked = self.slot_feeds[usize::from(slot)].acked;
        for sequence in acked + 1..=acked + 1 + self.random.below(3) as u32 {
            if self.random.chance(9, 10) {
                let delay = self.delay();
                self.push(delay, Event::SlotSubmit { to, group, slot, sequence });
            }
        }
    }

    /// An event of a slot comes to a node.
    pub(super) fn take_of_slot(
        &mut self,
        at: usize,
        group: GroupId,
        slot: u8,
        sequence: u32,
    ) -> Result<(), Broken> {
        let (id, up) = (self.slots[usize::from(slot)], self.nodes[at].up);
        let Some(leads) = self.leads(at, group).filter(|leads| leads.settled && up) else { return Ok(()) };
        let Some(known) = &self.nodes[at].moving.known else { return Ok(()) };
        let first = self.first.slots.group_of(id) == group;
        let arrived = u64::from(leads.view.arrived);
        if !leads.view.has(slot, first) || !known.serves(group, id, arrived) {
            return Ok(()); // it is sent elsewhere
        }
        let last = leads.view.last(slot);
        if sequence > last + 1 {
            let delay = self.delay();
            self.push(delay, Event::SlotAnswer { slot, sequence: last, gap: true });
        } else if sequence == last + 1 {
            self.write(at, group, Word::Event { slot, sequence })?;
        } else {
            let part = self.nodes[at].part(group).and_then(|part| part.replica.as_ref());
            let committed = part.map_or(0, |replica| replica.machine().held().last(slot));
            self.answer_slot(at, group, slot, committed)?;
        }
        Ok(())
    }

    fn answer_slot(&mut self, at: usize, group: GroupId, slot: u8, sequence: u32) -> Result<(), Broken> {
        let lineage = self.nodes[at].replica(group).map(|replica| replica.lineage());
        // Whoever leads a lineage that is over promises nothing any more.
        if lineage == Some(self.meta.groups[usize::from(group)].lineage) {
            self.slot_check.acked(slot, sequence)?;
        }
        if self.healed || self.random.chance(9, 10) {
            let delay = self.delay();
            self.push(delay, Event::SlotAnswer { slot, sequence, gap: false });
        }
        Ok(())
    }

    pub(super) fn slot_answer(&mut self, slot: u8, sequence: u32, gap: bool) {
        let feed = &mut self.slot_feeds[usize::from(slot)];
        feed.acked = if gap { sequence } else { feed.acked.max(sequence) };
    }

    /// A replica has made a step: what it committed of slots is looked at, and feeds hear of it.
    pub(super) fn slots_committed(
        &mut self,
        at: usize,
        group: GroupId,
        seen: Option<u64>,
    ) -> Result<(), Broken> {
        let (begun, news) = self.checkers[usize::from(group)].of_slots();
        if let Some(words) = begun {
            self.slot_check.begun(group, &words);
        }
        for word in news {
            self.slot_check.committed(group, word)?;
        }
        let Some(seen) = seen else { return Ok(()) };
        let Some(replica) = self.nodes[at].replica(group) else { return Ok(()) };
        let from = seen.max(replica.log().base());
        let count = replica.commit().saturating_sub(from) as usize;
        // What leaders before it took it answers when it is asked.
        let of = |entry: &tidegate_replica::Entry<u64>| match entry.body {
            Body::Input { input, .. } if entry.epoch == replica.epoch() => match Word::of(input)? {
                Word::Event { slot, sequence } => Some((slot, sequence)),
                _ => None,
            },
            Body::Input { .. } | Body::Digest { .. } => None,
        };
        let acked: Vec<(u8, u32)> = replica.log().slice(from, count).iter().filter_map(of).collect();
        for (slot, sequence) in acked {
            self.answer_slot(at, group, slot, sequence)?;
        }
        Ok(())
    }

    /// An operator asks for moves.
    pub(super) fn ask_for_a_move(&mut self) {
        if self.healed || !self.random.chance(1, 3) {
            return;
        }
        let slot = self.slots[self.random.below(self.slots.len() as u64) as usize];
        let (step, from) = (self.meta.step_of(slot), self.meta.slots.group_of(slot));
        let to = self.random.below(self.meta.groups.len() as u64) as GroupId;
        let epoch = |group: GroupId| self.meta.groups[usize::from(group)].epoch;
        let (epoch, to_epoch) = (epoch(from), epoch(to));
        let operator = self.nodes.len();
        self.propose(operator, Command::MoveSlot { slot, step, to, epoch, to_epoch });
    }

    /// Whether every slot's feed has had one more acknowledgement since everything healed.
    pub(super) fn slots_acked(&self) -> bool {
        let acks = |(feed, acks): (&SlotFeed, &u64)| *acks > feed.before;
        self.slot_feeds.iter().zip(&self.slot_check.acks).all(acks)
    }

    /// From here on it counts whether feeds are acknowledged once more.
    pub(super) fn slots_heal(&mut self) {
        for (feed, acks) in self.slot_feeds.iter_mut().zip(&self.slot_check.acks) {
            feed.before = *acks;
        }
    }
}
