//! What a node does next about slots that change their group, decided from metadata and from how the logs here stand.
//!
//! **Invariant:** nothing is remembered that safety rests on: whoever leads next decides the same from metadata and its logs. That a move was asked for, and for
//! how long, only decides when it is given up. Groups keep two numbers of moves, the last by which a slot left and the last by which one came, so words
//! of a log are in the order of their moves; what a declared loss took of them is written again in that order, before anything newer.

use crate::meta::{Command, GroupId, Meta, NodeId};
use crate::rules::Rule;
use std::collections::BTreeMap;

/// A move of a slot, or what a log lacks of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotTrip {
    /// Which move, for the life of the cluster.
    pub number: u64,
    /// The slot.
    pub slot: u16,
    /// Where it goes, or where it is.
    pub to: GroupId,
}

/// How a group stands with moves on this node, as its log says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotStand {
    /// The last move that is committed by which a slot left.
    pub left: u64,
    /// The last one by which one came.
    pub arrived: u64,
    /// Offset below which all is committed, as far as is known here.
    pub commit: u64,
    /// Whether this node leads the group, and all that was in its log when it began to is committed, and in these numbers.
    pub settled: bool,
    /// Whether an entry of this node's own epoch is committed: then no copy has the end of an older leader's log any more that could be elected.
    pub confirmed: bool,
    /// The move by which a slot cannot leave at all.
    pub refused: Option<u64>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotAction {
    /// Ask the leader here of `from` to have its feeds stop, and to write that the slot leaves once they have.
    Leave {
        /// Which slot, by which move.
        trip: SlotTrip,
        /// The group that it leaves.
        from: GroupId,
    },
    /// Ask it not to write that; and if it has not, and says that it will not, propose `then`.
    GiveUp {
        /// Which slot, by which move.
        trip: SlotTrip,
        /// The group that it does not leave.
        from: GroupId,
        /// What to propose.
        then: Command,
    },
    /// Ask the leader here of a group to write something that means nothing: a move is to be given up, and an older leader may have written that the slot
    /// leaves, which could still come to be committed.
    Confirm(GroupId),
    /// Ask the leader here of the new group to write what the old one knew of the slot.
    Arrive {
        /// Which slot, by which move.
        trip: SlotTrip,
        /// The group that it left.
        from: GroupId,
    },
    /// Ask the leader here of a slot's group to write that it arrived with nothing known of it: a declared loss took that it came, and all
    /// behind that. Where the log has the slot all the same, it keeps what it has.
    Anew(SlotTrip),
    /// Propose to metadata.
    Propose(Command),
    /// Nobody asks any more for what left by this move, or by one before it.
    Over(u64),
}

/// What this node's groups lack of moves that metadata knows, the oldest of each kind.
#[derive(Default)]
struct Lost {
    leaves: BTreeMap<GroupId, SlotTrip>,
    arrivals: BTreeMap<GroupId, SlotTrip>,
}

impl Lost {
    fn is_in(&self, group: GroupId) -> bool {
        self.leaves.contains_key(&group) || self.arrivals.contains_key(&group)
    }
}

/// Moves of slots, of one node.
#[derive(Clone, Debug)]
pub struct Mover {
    node: NodeId,
    /// How long feeds may take to stop before their slot stays where it is, in whatever the driver counts.
    patience: u64,
    /// The move that is asked for, and since when.
    since: Option<(u64, u64)>,
    busy: bool,
}

impl Mover {
    /// Of a node that has asked for nothing yet.
    #[must_use]
    pub fn new(node: NodeId, patience: u64) -> Self {
        Self { node, patience, since: None, busy: false }
    }

    /// Whether something was to be done, or waited for, when it last looked: look again soon. If not, when metadata has changed.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// The epoch in which this node leads a group.
    fn leads(&self, meta: &Meta, group: GroupId) -> Option<u32> {
        let of = meta.group(group)?;
        of.leader.filter(|leader| leader.node == self.node).map(|_| of.epoch)
    }

    /// What is to be done at `now`, in this order. `stand` is how a group stands here, of those that the node holds.
    pub fn look(
        &mut self,
        meta: &Meta,
        now: u64,
        stand: impl Fn(GroupId) -> Option<SlotStand>,
    ) -> Vec<SlotAction> {
        let mut actions = Vec::new();
        if meta.moves.is_empty() {
            return actions;
        }
        let own = |group: GroupId| stand(group).filter(|_| self.leads(meta, group).is_some());
        let lost = lost(meta, &own);
        let settled = |group: &GroupId| own(*group).is_some_and(|stand| stand.settled);
        for (group, trip) in lost.leaves.iter().filter(|(group, _)| settled(group)) {
            actions.push(SlotAction::Leave { trip: *trip, from: *group });
        }
        for (_, trip) in lost.arrivals.iter().filter(|(group, _)| settled(group)) {
            actions.push(SlotAction::Anew(*trip));
        }
        let hold = |rule: Rule| meta.rules().hold(rule);
        let mut under_way = false;
        let before = self.since.take();
        for (slot, of) in meta.under_way() {
            under_way = true;
            let (from, step) = (meta.slots.group_of(slot), of.step);
            let trip = SlotTrip { number: of.number, slot, to: of.to };
            let (Some(old), Some(new)) = (stand(from), stand(of.to)) else { continue };
            if let Some(epoch) = self.leads(meta, from).filter(|_| !of.has_left()) {
                if old.left >= trip.number || !hold(Rule::LeftOnceCommitted) {
                    let offset = old.commit;
                    actions.push(SlotAction::Propose(Command::SlotLeft { slot, step, epoch, offset }));
                } else if !lost.is_in(from) || !hold(Rule::LostMovesFirst) {
                    let begun = before.filter(|(number, _)| *number == trip.number).map_or(now, |of| of.1);
                    self.since = Some((trip.number, begun));
                    let never = old.refused == Some(trip.number);
                    let enough = never || now.saturating_sub(begun) >= self.patience;
                    let sure = old.confirmed || !hold(Rule::StaysOnceConfirmed);
                    actions.push(if !enough || meta.may_have_left(slot) {
                        SlotAction::Leave { trip, from }
                    } else if sure {
                        let then = Command::SlotStays { slot, step, epoch };
                        SlotAction::GiveUp { trip, from, then }
                    } else {
                        SlotAction::Confirm(from)
                    });
                }
            }
            if let Some(epoch) = self.leads(meta, of.to) {
                let arrived = new.arrived >= trip.number || !hold(Rule::ArrivedOnceCommitted);
                let first = !lost.is_in(of.to) || !hold(Rule::LostMovesFirst);
                if of.has_left() && arrived {
                    actions.push(SlotAction::Propose(Command::SlotArrived { slot, step, epoch }));
                } else if old.left >= trip.number && new.arrived < trip.number && first {
                    // As far as this node's own copy of the old group is.
                    actions.push(SlotAction::Arrive { trip, from });
                }
            }
        }
        let busy = under_way || !lost.leaves.is_empty() || !lost.arrivals.is_empty();
        if self.busy && !busy {
            let last = meta.moves.values().map(|of| of.number).max().unwrap_or(0);
            actions.push(SlotAction::Over(last));
        }
        self.busy = busy;
        actions
    }
}

/// What the groups that are led here lack: that a slot left which is elsewhere, and that one came which is theirs.
fn lost(meta: &Meta, own: &impl Fn(GroupId) -> Option<SlotStand>) -> Lost {
    let led: BTreeMap<GroupId, SlotStand> =
        meta.numbered().filter_map(|(group, _)| Some((group, own(group)?))).collect();
    let mut lost = Lost::default();
    let mut note = |leaves: bool, group: GroupId, trip: SlotTrip| {
        let of = if leaves { &mut lost.leaves } else { &mut lost.arrivals };
        let first = of.entry(group).or_insert(trip);
        let oldest = meta.rules().hold(Rule::LostMovesFirst);
        *first = if oldest { trip.min(*first) } else { trip.max(*first) };
    };
    for (&slot, of) in meta.moves.iter().filter(|_| !led.is_empty()) {
        let home = meta.slots.group_of(slot);
        for (&group, &number) in &of.gone {
            let away = group != home || of.has_left();
            let again = meta.rules().hold(Rule::LostLeavesAgain);
            if away && again && led.get(&group).is_some_and(|stand| stand.left < number) {
                let to = if of.has_left() { of.to } else { home };
                note(true, group, SlotTrip { number, slot, to });
            }
        }
        let again = meta.rules().hold(Rule::LostArrivesAgain);
        if !of.has_left() && again && led.get(&home).is_some_and(|stand| stand.arrived < of.came) {
            note(false, home, SlotTrip { number: of.came, slot, to: home });
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Layout, Member};
    use crate::rules::Rules;

    const SLOT: u16 = 7;
    const PATIENCE: u64 = 100;

    /// One node with two groups, and how their logs stand.
    struct World {
        meta: Meta,
        stands: [SlotStand; 2],
        mover: Mover,
        now: u64,
    }

    impl World {
        fn new() -> Self {
            let layout = Layout { groups: 2, ..Layout::of(&[1]) };
            let settled = SlotStand { settled: true, confirmed: true, ..SlotStand::default() };
            let mover = Mover::new(1, PATIENCE);
            Self { meta: Meta::laid_out(&layout, Rules::default()), stands: [settled; 2], mover, now: 0 }
        }

        fn begin(&mut self, slot: u16, to: GroupId) -> SlotTrip {
            let epoch = |group: GroupId| self.meta.groups[usize::from(group)].epoch;
            let (step, from) = (self.meta.step_of(slot), self.meta.slots.group_of(slot));
            let (epoch, to_epoch) = (epoch(from), epoch(to));
            self.meta.apply(&Command::MoveSlot { slot, step, to, epoch, to_epoch }).unwrap();
            SlotTrip { number: self.meta.moves[&slot].number, slot, to }
        }

        fn look(&mut self) -> Vec<SlotAction> {
            let stands = self.stands;
            self.mover.look(&self.meta, self.now, |group| stands.get(usize::from(group)).copied())
        }

        /// Does what is to be done until nothing is.
        fn settle(&mut self) -> Vec<SlotAction> {
            let mut done = Vec::new();
            for _ in 0..20 {
                for action in self.look() {
                    match &action {
                        SlotAction::Leave { trip, from } => {
                            let left = &mut self.stands[usize::from(*from)].left;
                            assert!(trip.number > *left, "in their order");
                            *left = trip.number;
                        }
                        SlotAction::Arrive { trip, .. } | SlotAction::Anew(trip) => {
                            let arrived = &mut self.stands[usize::from(trip.to)].arrived;
                            assert!(trip.number > *arrived, "in their order");
                            *arrived = trip.number;
                        }
                        SlotAction::Propose(command) => self.meta.apply(command).unwrap(),
                        SlotAction::GiveUp { then, .. } => self.meta.apply(then).unwrap(),
                        SlotAction::Confirm(group) => self.stands[usize::from(*group)].confirmed = true,
                        SlotAction::Over(_) => {}
                    }
                    done.push(action);
                }
            }
            assert!(!self.mover.is_busy());
            done
        }

        fn go(&mut self, slot: u16, to: GroupId) {
            self.begin(slot, to);
            self.settle();
            assert_eq!(self.meta.slots.group_of(slot), to);
        }

        /// The only copy of a group begins anew with what was there up to these moves.
        fn lose(&mut self, group: GroupId, left: u64, arrived: u64) {
            let incarnation = self.meta.newest(group, 1).unwrap() + 1;
            let member = Member { node: 1, incarnation };
            self.meta.apply(&Command::Renew { group, member, lossy: true }).unwrap();
            let epoch = self.meta.groups[usize::from(group)].epoch;
            self.meta.apply(&Command::DeclareLoss { group, epoch, target: member }).unwrap();
            self.stands[usize::from(group)] =
                SlotStand { left, arrived, settled: true, ..SlotStand::default() };
        }
    }

    #[test]
    fn a_slot_leaves_then_arrives_and_then_it_is_over() {
        let mut world = World::new();
        assert_eq!(world.look(), []);
        let trip = world.begin(SLOT, 1);
        assert_eq!(world.look(), [SlotAction::Leave { trip, from: 0 }]);
        (world.stands[0].left, world.stands[0].commit) = (1, 9);
        let left = SlotAction::Propose(Command::SlotLeft { slot: SLOT, step: 1, epoch: 1, offset: 9 });
        let arrive = SlotAction::Arrive { trip, from: 0 };
        assert_eq!(world.look(), [left, arrive.clone()], "metadata is in nobody's way");
        world.meta.apply(&Command::SlotLeft { slot: SLOT, step: 1, epoch: 1, offset: 9 }).unwrap();
        assert_eq!(world.look(), [arrive]);
        world.stands[1].arrived = 1;
        let arrived = Command::SlotArrived { slot: SLOT, step: 2, epoch: 1 };
        assert_eq!(world.look(), [SlotAction::Propose(arrived.clone())]);
        world.meta.apply(&arrived).unwrap();
        assert!(world.mover.is_busy());
        assert_eq!((world.look(), world.look()), (vec![SlotAction::Over(1)], vec![]));
        assert!(!world.mover.is_busy());
    }

    #[test]
    fn it_is_given_up_when_feeds_do_not_stop_and_at_once_when_it_cannot_leave() {
        for refused in [false, true] {
            let mut world = World::new();
            let trip = world.begin(SLOT, 1);
            world.look();
            world.now = PATIENCE - 1;
            assert_eq!(world.look(), [SlotAction::Leave { trip, from: 0 }]);
            if refused {
                world.stands[0].refused = Some(1);
            } else {
                world.now = PATIENCE;
            }
            world.stands[0].confirmed = false;
            assert_eq!(world.look(), [SlotAction::Confirm(0)], "an older leader may have written it");
            world.stands[0].confirmed = true;
            let then = Command::SlotStays { slot: SLOT, step: 1, epoch: 1 };
            assert_eq!(world.look(), [SlotAction::GiveUp { trip, from: 0, then }]);
            world.settle();
            assert_eq!(world.meta.slots.group_of(SLOT), 0);
        }
    }

    #[test]
    fn what_a_loss_took_of_a_leave_is_written_again_and_not_given_up() {
        for told in [false, true] {
            let mut world = World::new();
            let trip = world.begin(SLOT, 1);
            world.stands[0].left = 1;
            if told {
                let left = Command::SlotLeft { slot: SLOT, step: 1, epoch: 1, offset: 0 };
                world.meta.apply(&left).unwrap();
            }
            world.lose(0, 0, 0);
            world.now = 10 * PATIENCE;
            world.look();
            world.now *= 2;
            assert_eq!(world.look(), [SlotAction::Leave { trip, from: 0 }], "told {told}");
            assert!(!world.meta.serves(0, SLOT, 0), "the new group may have it already");
            world.settle();
            assert_eq!((world.meta.slots.group_of(SLOT), world.stands[0].left), (1, 1));
            assert!(world.meta.serves(1, SLOT, 1) && !world.meta.serves(0, SLOT, 0));
        }
    }

    #[test]
    fn what_a_loss_took_of_slots_at_rest_is_written_again_in_order() {
        let mut world = World::new();
        for (slot, to) in [(SLOT, 1), (4_000, 0), (SLOT + 1, 1), (4_001, 0), (SLOT + 2, 1)] {
            world.go(slot, to);
        }
        assert_eq!(world.settle(), []);
        world.lose(0, 1, 0);
        world.stands[0].settled = false;
        assert_eq!(world.look(), [], "a new leader may not know yet what is in its log");
        assert!(world.mover.is_busy());
        world.stands[0].settled = true;
        assert!(!world.meta.serves(0, 4_000, 0) && world.meta.serves(0, 4_000, 2));
        // What is newer waits.
        world.begin(SLOT + 3, 1);
        let trip = |number, slot, to| SlotTrip { number, slot, to };
        let done = world.settle();
        let leave = |number, slot| SlotAction::Leave { trip: trip(number, slot, 1), from: 0 };
        let anew = |number, slot| SlotAction::Anew(trip(number, slot, 0));
        assert_eq!(done[..4], [leave(3, SLOT + 1), anew(2, 4_000), leave(5, SLOT + 2), anew(4, 4_001)]);
        assert_eq!(done[4], leave(6, SLOT + 3));
        assert_eq!(done.last(), Some(&SlotAction::Over(6)));
    }

    /// Its last move was given up: what counts is the one by which it came.
    #[test]
    fn a_slot_that_stayed_is_known_by_the_move_it_came_with() {
        let mut world = World::new();
        world.go(SLOT, 1);
        world.begin(SLOT, 0);
        world.look();
        world.now = PATIENCE;
        world.stands[1].settled = true;
        let stays = Command::SlotStays { slot: SLOT, step: 4, epoch: world.meta.groups[1].epoch };
        world.meta.apply(&stays).unwrap();
        world.settle();
        world.lose(1, 0, 0);
        assert_eq!(world.look(), [SlotAction::Anew(SlotTrip { number: 1, slot: SLOT, to: 1 })]);
        world.settle();
        // And where it was before, that it left.
        world.lose(0, 0, 0);
        let trip = SlotTrip { number: 1, slot: SLOT, to: 1 };
        assert_eq!(world.look(), [SlotAction::Leave { trip, from: 0 }]);
    }
}
