//! What must be true of slots that move: an account over the committed logs of all groups, and over metadata.

use super::Broken;
use crate::machine::{Held, SLOTS_MAX, Word};
use std::collections::BTreeSet;
use tidegate_replica::{Command, GroupId, Meta};

/// What the committed log of a group says.
#[derive(Debug, Default)]
struct Known {
    held: Held,
    /// Slots that the group had in the beginning.
    first: [bool; SLOTS_MAX],
    /// Slots that a declared loss gave back to it, while they are elsewhere.
    stale: [bool; SLOTS_MAX],
    /// Words of moves that its log has.
    words: BTreeSet<u64>,
    /// The last move by which each slot ever left it, whatever its log lacks now.
    left: [u32; SLOTS_MAX],
}

impl Known {
    fn has(&self, slot: u8) -> bool {
        self.held.has(slot, self.first[usize::from(slot)])
    }

    /// Whether it has a slot that is not known to be elsewhere.
    fn owns(&self, slot: u8) -> bool {
        self.has(slot) && !self.stale[usize::from(slot)]
    }
}

/// The account.
#[derive(Debug, Default)]
pub struct SlotCheck {
    /// The slots of this life.
    slots: Vec<u16>,
    groups: Vec<Known>,
    /// The last committed event of each, in whatever group; unknown when a loss may have taken some.
    last: [Option<u32>; SLOTS_MAX],
    /// Events that were acknowledged.
    pub acks: [u64; SLOTS_MAX],
    /// Slots that came to another group.
    pub moves: u64,
}

impl SlotCheck {
    /// Of these slots, which begin as metadata says.
    #[must_use]
    pub fn new(slots: &[u16], meta: &Meta) -> Self {
        let known = |(group, _): (GroupId, &tidegate_replica::Group)| {
            let mut known = Known::default();
            for (at, slot) in slots.iter().enumerate() {
                known.first[at] = meta.slots.group_of(*slot) == group;
            }
            known
        };
        let groups = meta.numbered().map(known).collect();
        Self { slots: slots.to_vec(), groups, last: [Some(0); SLOTS_MAX], ..Self::default() }
    }

    fn all(&self) -> impl Iterator<Item = u8> + use<> {
        (0..).take(self.slots.len()).map(|slot: u8| slot)
    }

    /// The group that has a slot, or that let it go last, while it is on its way.
    fn home(&self, slot: u8) -> Option<usize> {
        let left = |at: &usize| {
            let of = |word: &u64| match Word::of(*word) {
                Some(Word::Leaves { slot: of, number }) if of == slot => Some(number),
                _ => None,
            };
            self.groups[*at].words.iter().filter_map(of).max()
        };
        let owner = (0..self.groups.len()).find(|at| self.groups[*at].owns(slot));
        owner.or_else(|| (0..self.groups.len()).filter(|at| left(at).is_some()).max_by_key(left))
    }

    /// A group's log may have lost some: of what was in it alone, the last that is committed is unknown.
    pub fn lost(&mut self, group: GroupId) {
        for slot in self.all() {
            if self.home(slot) == Some(usize::from(group)) {
                self.last[usize::from(slot)] = None;
            }
        }
    }

    /// A group's lineage begins with these words.
    pub fn begun(&mut self, group: GroupId, words: &[Word]) {
        let slots = self.all();
        let of = &mut self.groups[usize::from(group)];
        (of.held, of.words) = (Held::default(), BTreeSet::new());
        let mut came = [0; SLOTS_MAX];
        for word in words {
            let applied = of.held.apply(*word);
            match *word {
                Word::Leaves { slot, number } if applied => {
                    of.left[usize::from(slot)] = number.max(of.left[usize::from(slot)]);
                }
                Word::Arrives { slot, number, .. } if applied => came[usize::from(slot)] = number,
                _ => {}
            }
            of.words.insert(word.input());
        }
        for slot in slots {
            let at = usize::from(slot);
            of.stale[at] = of.has(slot) && of.left[at] > came[at];
        }
    }

    /// A group has committed a word.
    ///
    /// # Errors
    /// What is broken.
    pub fn committed(&mut self, group: GroupId, word: Word) -> Result<(), Broken> {
        let of = &self.groups[usize::from(group)];
        let (Word::Event { slot, .. } | Word::Leaves { slot, .. } | Word::Arrives { slot, .. }) = word else {
            return Ok(());
        };
        let (at, id) = (usize::from(slot), self.slots[usize::from(slot)]);
        if let Word::Event { sequence, .. } = word {
            if !of.has(slot) {
                return Err(format!("group {group} takes an event of slot {id}, which it has not"));
            }
            if of.stale[at] {
                return Err(format!(
                    "group {group} takes an event of slot {id}, which left it before a loss"
                ));
            }
            let known = of.held.last(slot);
            if sequence != known + 1 || self.last[at].is_some_and(|last| sequence != last + 1) {
                let last = self.last[at].map_or_else(|| "?".to_owned(), |last| last.to_string());
                return Err(format!(
                    "event {sequence} of slot {id} is behind {known} in group {group}, and behind {last} in all"
                ));
            }
            self.last[at] = Some(sequence);
        }
        let of = &mut self.groups[usize::from(group)];
        if !of.held.apply(word) {
            // Written by two leaders.
            return if of.words.contains(&word.input()) || matches!(word, Word::Arrives { .. }) {
                Ok(())
            } else {
                Err(format!("group {group} passes over {word:?} of slot {id}, which was never in its log"))
            };
        }
        if matches!(word, Word::Event { .. }) {
            return Ok(());
        }
        of.words.insert(word.input());
        match word {
            Word::Leaves { number, .. } => {
                (of.stale[at], of.left[at]) = (false, number.max(of.left[at]));
            }
            // What came again may have left once more before the loss.
            Word::Arrives { number, .. } => of.stale[at] = of.left[at] > number,
            Word::Event { .. } | Word::Nothing => {}
        }
        if let Word::Arrives { .. } = word {
            self.moves += 1;
            let (last, has) = (of.held.last(slot), |other: &Known| other.owns(slot));
            if self.groups.iter().filter(|of| has(of)).count() > 1 {
                return Err(format!("slot {id} comes to group {group}, and another one has it"));
            }
            if self.last[at].is_some_and(|known| known != last) {
                let known = self.last[at].unwrap_or(0);
                return Err(format!("slot {id} comes to group {group} with {last} of {known} events"));
            }
        }
        Ok(())
    }

    /// A feed was told that an event is committed.
    ///
    /// # Errors
    /// When it is not.
    pub fn acked(&mut self, slot: u8, sequence: u32) -> Result<(), Broken> {
        let at = usize::from(slot);
        if self.last[at].is_some_and(|last| sequence > last) {
            return Err(format!(
                "event {sequence} of slot {} is acknowledged and not committed",
                self.slots[at]
            ));
        }
        self.acks[at] += 1;
        Ok(())
    }

    /// Metadata has taken a command about a slot: what it says of logs is so.
    ///
    /// # Errors
    /// What is broken.
    pub fn told(&self, command: &Command, before: &Meta, after: &Meta) -> Result<(), Broken> {
        let (Command::MoveSlot { slot, .. }
        | Command::SlotLeft { slot, .. }
        | Command::SlotArrived { slot, .. }
        | Command::SlotStays { slot, .. }) = command
        else {
            return Ok(());
        };
        let Some(at) = self.slots.iter().position(|of| of == slot) else { return Ok(()) };
        let (id, at) = (*slot, at as u8);
        let Some(of) = after.moves.get(slot) else { return Err(format!("slot {id} moves and does not")) };
        let newest = before.moves.values().map(|of| of.number).max().unwrap_or(0);
        let number = before.moves.get(slot).map_or(0, |of| of.number);
        let begins = matches!(command, Command::MoveSlot { .. });
        if after.step_of(*slot) <= before.step_of(*slot)
            || (begins && of.number <= newest)
            || (!begins && of.number != number)
        {
            return Err(format!("move {} of slot {id} comes behind move {newest}", of.number));
        }
        let (from, has) = (before.slots.group_of(*slot), |group: GroupId| &self.groups[usize::from(group)]);
        match command {
            Command::SlotLeft { .. } if has(from).has(at) => {
                Err(format!("metadata says that slot {id} has left group {from}, which has it"))
            }
            Command::SlotArrived { .. } if !has(of.to).has(at) => {
                Err(format!("metadata says that slot {id} has come to group {}, which has it not", of.to))
            }
            Command::SlotStays { .. } if !has(from).has(at) && has(from).held.arrived >= of.came as u32 => {
                Err(format!("metadata says that slot {id} stays in group {from}, which has it not"))
            }
            Command::SlotStays { .. } if has(of.to).owns(at) => {
                Err(format!("metadata says that slot {id} stays in group {from}, and group {} has it", of.to))
            }
            _ => Ok(()),
        }
    }

    /// All faults are over and there was time: every slot is of one group, by metadata and by the logs.
    ///
    /// # Errors
    /// What is not so.
    pub fn converged(&self, meta: &Meta) -> Result<(), Broken> {
        if let Some((slot, of)) = meta.under_way().next() {
            return Err(format!("slot {slot} is under way to group {} for ever", of.to));
        }
        for (slot, id) in (0..).zip(&self.slots) {
            let home = meta.slots.group_of(*id);
            for (group, known) in (0..).zip(&self.groups) {
                if known.has(slot) != (group == home) {
                    let has = if known.has(slot) { "has" } else { "has not" };
                    return Err(format!("slot {id} is of group {home}, and group {group} {has} it"));
                }
            }
            let (last, known) =
                (self.last[usize::from(slot)], self.groups[usize::from(home)].held.last(slot));
            if last.is_some_and(|last| last != known) {
                return Err(format!("group {home} has {known} events of slot {id}, of {last:?}"));
            }
        }
        Ok(())
    }
}
