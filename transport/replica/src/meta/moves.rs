//! A slot on its way from one group to another.
//!
//! Three commands, in this order and no other: somebody asks for the move, the old group's leader says behind which entry of its log the slot is
//! not its any more, and the new group's leader says that the slot's state is in its own log for good. Only then the slot is the new group's: until it has
//! arrived, whoever asks for it is sent to the old group. How many steps a slot has taken is counted for the life of the cluster, and each
//! command names the count that it goes on from, so one that comes late or twice changes nothing.
//!
//! One slot moves at a time. That a move is given up only the old group's leader says, in its epoch: it alone knows that it has not written that
//! the slot leaves. A declared loss changes nothing of that here, but that a move which it falls into is not given up any more: what its log lacks now may
//! have been there, and known elsewhere. So that what such a loss took can be written again ([`crate::mover`]), each slot keeps by which move it came to its
//! group, and by which it left each other one.

use super::{Group, GroupId, Meta, Rejection, SLOTS};
use crate::rules::Rule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps of one move: a slot at rest has taken a multiple of it.
const STEPS: u64 = 3;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// Where a slot stands that has ever been asked to move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMove {
    /// Steps taken, for the life of the cluster: at rest, leaving, arriving, and at rest again.
    pub step: u64,
    /// Where it goes, if it is on its way; where it went last, if it is not.
    pub to: GroupId,
    /// Which move this is, or was: counted from 1 for the life of the cluster.
    pub number: u64,
    /// The entry of the old group's log behind which it is not that group's any more, once it has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// The move by which it came to its group; 0 where it was there when the cluster began.
    #[serde(default, skip_serializing_if = "is_none")]
    pub came: u64,
    /// By group, the last move by which it left that one; not of the one that it came back to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gone: BTreeMap<GroupId, u64>,
    /// The history of the old group's log when the move was asked for.
    #[serde(default, skip_serializing_if = "is_none")]
    pub lineage: u64,
}

impl SlotMove {
    /// Whether it is on its way.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.step.is_multiple_of(STEPS)
    }

    /// Whether it has left its old group, and has not arrived yet, as far as metadata knows.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.step % STEPS == 2
    }

    /// At rest again, wherever it is.
    fn rest(&mut self) {
        self.step = self.step.next_multiple_of(STEPS);
        self.left = None;
    }
}

/// Slots that have ever been asked to move. The others are where they were when the cluster began.
pub type SlotMoves = BTreeMap<u16, SlotMove>;

/// Whether moves are possible: each is of a slot that there is, into a group that there is.
pub(super) fn are_sound(moves: &SlotMoves, groups: usize) -> bool {
    moves.iter().all(|(slot, of)| {
        let gone = |(group, number): (&GroupId, &u64)| {
            usize::from(*group) < groups && (1..=of.number).contains(number)
        };
        let known = of.came <= of.number && of.gone.iter().all(gone);
        let within = *slot < SLOTS && usize::from(of.to) < groups && of.number > 0;
        within && known && of.left.is_some() == of.has_left()
    })
}

impl Meta {
    /// Steps that a slot has taken: what the next command about it is to name.
    #[must_use]
    pub fn step_of(&self, slot: u16) -> u64 {
        self.moves.get(&slot).map_or(0, |of| of.step)
    }

    /// Slots that are on their way, and how far.
    pub fn under_way(&self) -> impl Iterator<Item = (u16, &SlotMove)> {
        self.moves.iter().filter(|(_, of)| of.is_under_way()).map(|(slot, of)| (*slot, of))
    }

    /// Whether the log of a slot's group has begun anew since the slot was asked to move: it may have left, and the log may lack that.
    #[must_use]
    pub fn may_have_left(&self, slot: u16) -> bool {
        let Some(of) = self.moves.get(&slot).filter(|of| of.is_under_way()) else { return false };
        let lineage = self.group(self.slots.group_of(slot)).map_or(0, |group| group.lineage);
        let began_anew = of.lineage > 0 && of.lineage != lineage;
        of.has_left() || began_anew && self.rules.hold(Rule::LostLeaveStands)
    }

    /// Whether a group may take anything of a slot that its log says it has, when moves up to `arrived` have come to it by that log. Behind a declared
    /// loss a log may have a slot that is elsewhere, or is on its way: what the group took of it would be lost when the slot leaves
    /// again, or comes.
    #[must_use]
    pub fn serves(&self, group: GroupId, slot: u16, arrived: u64) -> bool {
        if !self.rules.hold(Rule::ServesWhatItHas) {
            return true;
        }
        let is_its = self.slots.group_of(slot) == group;
        let Some(of) = self.moves.get(&slot) else { return is_its };
        if is_its {
            arrived >= of.came && !self.may_have_left(slot)
        } else {
            // It may have come already, and metadata hears of that last.
            of.is_under_way() && of.to == group && arrived >= of.number
        }
    }

    /// The group of a slot that has taken so many steps and no other number, if it is to take the `nth` of a move.
    fn at_step(&self, slot: u16, step: u64, nth: u64) -> Result<GroupId, Rejection> {
        if slot >= SLOTS {
            return Err(Rejection::Malformed("there is no such slot"));
        }
        if step % STEPS != nth {
            return Err(Rejection::Malformed("that is not the next step of a slot that has taken so many"));
        }
        let now = self.step_of(slot);
        if step == now || !self.rules.hold(Rule::MovesStepByStep) {
            Ok(self.slots.group_of(slot))
        } else {
            Err(Rejection::Step(now))
        }
    }

    /// A group of this epoch that somebody leads.
    fn led(&self, group: GroupId, epoch: u32) -> Result<&Group, Rejection> {
        let at = self.same_epoch(group, epoch)?;
        let group = &self.groups[at];
        // Whoever leads next does so in another epoch.
        if group.leader.is_some() {
            Ok(group)
        } else {
            Err(Rejection::Malformed("nobody leads the group in this epoch"))
        }
    }

    pub(super) fn move_slot(
        &mut self,
        slot: u16,
        step: u64,
        epochs: (u32, u32),
        to: GroupId,
    ) -> Result<(), Rejection> {
        let from = self.at_step(slot, step, 0)?;
        self.at(to)?;
        if from == to {
            return Err(Rejection::Malformed("the slot is of that group already"));
        }
        self.led(from, epochs.0)?;
        self.led(to, epochs.1)?;
        if self.groups.iter().any(|group| !group.holders.is_empty()) {
            return Err(Rejection::Malformed("where nodes hold some groups only, slots stay in theirs"));
        }
        if let Some((slot, _)) = self.under_way().next().filter(|_| self.rules.hold(Rule::OneSlotAtATime)) {
            return Err(Rejection::Busy(slot));
        }
        let left = usize::from(self.slots.count(from)).saturating_sub(1);
        if left == 0 {
            return Err(Rejection::Needed { left, least: 1, what: "slots of its group" });
        }
        let others = |of: &u16| *of == slot || self.rules.hold(Rule::MovesNumberedOnce);
        let numbers = self.moves.iter().filter(|(of, _)| others(of)).map(|(_, of)| of.number);
        let number = 1 + numbers.max().unwrap_or(0);
        let lineage = self.groups[usize::from(from)].lineage;
        let of = self.moves.entry(slot).or_default();
        (of.step, of.to, of.number, of.left, of.lineage) = (step + 1, to, number, None, lineage);
        Ok(())
    }

    pub(super) fn slot_left(
        &mut self,
        slot: u16,
        step: u64,
        epoch: u32,
        offset: u64,
    ) -> Result<(), Rejection> {
        let from = self.at_step(slot, step, 1)?;
        self.led(from, epoch)?;
        if let Some(of) = self.moves.get_mut(&slot) {
            (of.step, of.left) = (step + 1, Some(offset));
            of.gone.insert(from, of.number);
        }
        Ok(())
    }

    pub(super) fn slot_arrived(&mut self, slot: u16, step: u64, epoch: u32) -> Result<(), Rejection> {
        self.at_step(slot, step, 2)?;
        let Some(to) = self.moves.get(&slot).map(|of| of.to) else { return Err(Rejection::Step(0)) };
        self.led(to, epoch)?;
        self.slots.give(slot, to);
        if let Some(of) = self.moves.get_mut(&slot) {
            of.came = of.number;
            of.gone.remove(&to);
            of.rest();
        }
        Ok(())
    }

    pub(super) fn slot_stays(&mut self, slot: u16, step: u64, epoch: u32) -> Result<(), Rejection> {
        let from = self.at_step(slot, step, 1)?;
        if self.rules.hold(Rule::StaysIsTheLeaders) {
            self.led(from, epoch)?;
        }
        if self.may_have_left(slot) {
            return Err(Rejection::Malformed(
                "its group's log begins anew, and the slot may have left before",
            ));
        }
        self.moves.entry(slot).and_modify(SlotMove::rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Layout, Member};
    use super::*;
    use crate::rules::Rules;
    use proptest::prelude::*;

    const GROUPS: GroupId = 3;

    fn meta() -> Meta {
        let layout = Layout { groups: usize::from(GROUPS), min_isr: 2, ..Layout::of(&[1, 2, 3]) };
        Meta::laid_out(&layout, Rules::default())
    }

    fn epochs(meta: &Meta, slot: u16, to: GroupId) -> (u32, u32) {
        (meta.groups[usize::from(meta.slots.group_of(slot))].epoch, meta.groups[usize::from(to)].epoch)
    }

    fn begin(meta: &Meta, slot: u16, to: GroupId) -> Command {
        let (epoch, to_epoch) = epochs(meta, slot, to);
        Command::MoveSlot { slot, step: meta.step_of(slot), to, epoch, to_epoch }
    }

    fn left(meta: &Meta, slot: u16, offset: u64) -> Command {
        let epoch = meta.groups[usize::from(meta.slots.group_of(slot))].epoch;
        Command::SlotLeft { slot, step: meta.step_of(slot), epoch, offset }
    }

    fn arrived(meta: &Meta, slot: u16) -> Command {
        let to = meta.moves.get(&slot).map_or(0, |of| of.to);
        let epoch = meta.groups[usize::from(to)].epoch;
        Command::SlotArrived { slot, step: meta.step_of(slot), epoch }
    }

    #[test]
    fn a_slot_is_another_groups_once_its_state_has_arrived() {
        let mut meta = meta();
        let slot = 7;
        assert_eq!((meta.slots.group_of(slot), meta.step_of(slot)), (0, 0));
        let first = begin(&meta, slot, 2);
        meta.apply(&first).unwrap();
        assert_eq!(meta.apply(&first), Err(Rejection::Step(1)), "it is on its way");
        assert!(matches!(meta.apply(&begin(&meta.clone(), slot, 1)), Err(Rejection::Malformed(_))));
        assert_eq!(meta.slots.group_of(slot), 0);
        // It cannot arrive before it has left.
        assert!(matches!(meta.apply(&arrived(&meta.clone(), slot)), Err(Rejection::Malformed(_))));
        let gone = left(&meta, slot, 99);
        meta.apply(&gone).unwrap();
        let stands = SlotMove {
            step: 2,
            to: 2,
            number: 1,
            left: Some(99),
            gone: [(0, 1)].into(),
            lineage: 1,
            ..SlotMove::default()
        };
        assert_eq!(meta.moves[&slot], stands);
        assert_eq!((meta.slots.group_of(slot), meta.under_way().count()), (0, 1));
        assert_eq!(meta.apply(&gone), Err(Rejection::Step(2)));
        let stays = Command::SlotStays { slot, step: 2, epoch: 1 };
        assert!(matches!(meta.apply(&stays), Err(Rejection::Malformed(_))), "its group has let it go");
        let there = arrived(&meta, slot);
        meta.apply(&there).unwrap();
        assert_eq!((meta.slots.group_of(slot), meta.under_way().count(), meta.step_of(slot)), (2, 0, 3));
        assert_eq!([6, 8].map(|slot| meta.slots.group_of(slot)), [0, 0], "and no other");
        for command in [&first, &gone, &there] {
            assert_eq!(meta.apply(command), Err(Rejection::Step(3)));
        }
        // Back again, and then not.
        meta.apply(&begin(&meta.clone(), slot, 0)).unwrap();
        let elsewhere = Command::SlotStays { slot, step: 4, epoch: 2 };
        assert_eq!(meta.apply(&elsewhere), Err(Rejection::Epoch(1)), "another leader may have written it");
        assert_eq!(meta.apply(&begin(&meta.clone(), 8, 1)), Err(Rejection::Busy(slot)), "one at a time");
        meta.apply(&Command::SlotStays { slot, step: 4, epoch: 1 }).unwrap();
        assert_eq!(meta.moves[&slot].number, 2);
        assert_eq!((meta.slots.group_of(slot), meta.step_of(slot)), (2, 6));
        assert!(matches!(meta.apply(&begin(&meta.clone(), slot, 2)), Err(Rejection::Malformed(_))));
        assert!(matches!(meta.apply(&begin(&meta.clone(), SLOTS, 2)), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn a_hand_off_in_between_and_a_group_that_nobody_leads_keep_a_slot_where_it_is() {
        let mut meta = meta();
        let slot = 7;
        let asked = begin(&meta, slot, 1);
        let target = meta.groups[1].isr.iter().find(|member| Some(**member) != meta.groups[1].leader);
        let transfer = Command::Transfer { group: 1, epoch: 1, target: *target.unwrap() };
        meta.apply(&transfer).unwrap();
        assert_eq!(meta.apply(&asked), Err(Rejection::Epoch(2)));
        for node in [1, 2, 3] {
            meta.apply(&Command::Fence { member: Member { node, incarnation: 1 } }).unwrap();
        }
        assert!(matches!(meta.apply(&begin(&meta.clone(), slot, 1)), Err(Rejection::Malformed(_))));
    }

    #[test]
    fn a_group_keeps_a_slot() {
        let mut meta = Meta::laid_out(&Layout { groups: 4_096, ..Layout::of(&[1, 2]) }, Rules::default());
        let all = begin(&meta, 7, 8);
        let needed = Rejection::Needed { left: 0, least: 1, what: "slots of its group" };
        assert_eq!(meta.apply(&all), Err(needed));
    }

    /// Nothing is written of moves where there were none, and older metadata has none.
    #[test]
    fn metadata_without_moves_is_as_it_was() {
        let mut meta = meta();
        let before = serde_json::to_string(&meta).unwrap();
        assert!(!before.contains("moves"));
        meta.apply(&begin(&meta.clone(), 7, 2)).unwrap();
        meta.apply(&left(&meta.clone(), 7, 12)).unwrap();
        let written = serde_json::to_string(&meta).unwrap();
        assert_eq!(serde_json::from_str::<Meta>(&written).unwrap(), meta);
        for (sound, torn) in [
            ("\"to\":2", "\"to\":3"),
            ("\"left\":12", "\"right\":12"),
            ("\"7\":", "\"4096\":"),
            ("\"number\":1", "\"number\":0"),
        ] {
            let torn = written.replacen(sound, torn, 1);
            assert!(torn != written && serde_json::from_str::<Meta>(&torn).is_err(), "{torn}");
        }
    }

    /// What is tried: which command, which slot and group, and how old what it knows is.
    type Try = (u8, usize, GroupId, usize);

    fn command(of: &Try, past: &[Meta]) -> Command {
        let &(kind, slot, group, age) = of;
        let slot = [7, 8, 1_365, 2_000, 4_095][slot];
        let meta = &past[past.len() - 1 - age.min(past.len() - 1)];
        let at = &meta.groups[usize::from(group)];
        let node = 1 + group;
        let incarnation = meta.nodes[&node].incarnation;
        match kind {
            0..=3 => begin(meta, slot, group),
            4..=6 => left(meta, slot, 10),
            7..=9 => arrived(meta, slot),
            10 => {
                let epoch = meta.groups[usize::from(meta.slots.group_of(slot))].epoch;
                Command::SlotStays { slot, step: meta.step_of(slot), epoch }
            }
            11 => Command::Transfer { group, epoch: at.epoch, target: Member { node, incarnation } },
            12 => Command::Fence { member: Member { node, incarnation } },
            13 => {
                let member = Member { node, incarnation: incarnation + 1 };
                Command::Register { member, lossy: age % 2 == 0, lost: Vec::new() }
            }
            _ => Command::DeclareLoss { group, epoch: at.epoch, target: Member { node, incarnation } },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_slot_is_of_one_group_and_goes_only_step_by_step(
            tries in prop::collection::vec((0u8..15, 0usize..5, 0..GROUPS, 0usize..4), 1..200),
        ) {
            let mut past = vec![meta()];
            let mut refused: Vec<Command> = Vec::new();
            for of in &tries {
                let command = command(of, &past);
                let before = past[past.len() - 1].clone();
                let mut after = before.clone();
                if let Err(why) = after.apply(&command) {
                    prop_assert_eq!(&after, &before, "what is refused changes nothing");
                    let of_slots = matches!(
                        command,
                        Command::MoveSlot { .. } | Command::SlotLeft { .. } | Command::SlotArrived { .. } | Command::SlotStays { .. }
                    );
                    if of_slots && !matches!(why, Rejection::Needed { .. } | Rejection::Busy(_)) {
                        refused.push(command);
                    }
                    continue;
                }
                for command in &refused {
                    prop_assert!(after.clone().apply(command).is_err(), "refused once is refused for good: {:?}", command);
                }
                let counts: usize = (0..GROUPS).map(|group| usize::from(after.slots.count(group))).sum();
                prop_assert_eq!(counts, usize::from(SLOTS));
                prop_assert!(after.slots.are_of(usize::from(GROUPS)) && are_sound(&after.moves, usize::from(GROUPS)));
                // All that are ever asked about, and their neighbours.
                for slot in [6, 7, 8, 9, 1_364, 1_365, 1_366, 1_999, 2_000, 2_001, 4_094, 4_095] {
                    let (old, new) = (before.slots.group_of(slot), after.slots.group_of(slot));
                    prop_assert!(before.step_of(slot) <= after.step_of(slot));
                    if old == new {
                        continue;
                    }
                    let moved = matches!(command, Command::SlotArrived { slot: moved, .. } if moved == slot);
                    let left = &before.moves[&slot];
                    prop_assert!(moved && left.left.is_some() && left.to == new, "{:?}", command);
                }
                let written = serde_json::to_string(&after).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Meta>(&written).unwrap(), &after);
                past.push(after);
            }
        }
    }
}
