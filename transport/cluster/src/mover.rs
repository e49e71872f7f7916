//! Carries out what [`tidegate_replica::Mover`] decides about slots that change their group: asks the groups that this node leads, and tells metadata what
//! their logs say.

use crate::metadata::Consensus;
use crate::node::Replicas;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_live::{IngestHandle, SlotAsk};
use tidegate_proto::feed::SlotGoes;
use tidegate_replica::{Command, GroupId, Meta, Mover as Decides, NodeId, SlotAction, SlotStand, SlotTrip};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

/// Between two looks at a move that is under way.
const LOOK: Duration = Duration::from_millis(2);
/// How long feeds may take to stop before their slot stays where it is, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// Moves of slots, of one node.
pub(crate) struct Mover {
    pub(crate) node: NodeId,
    pub(crate) consensus: Consensus,
    /// By group, where it is held.
    pub(crate) groups: Vec<Option<IngestHandle>>,
    pub(crate) replicas: Replicas,
}

impl Mover {
    /// Until the node ends.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.drive() => {}
        }
    }

    async fn drive(&self) {
        let mut state = self.consensus.state();
        let (mut decides, begun) = (Decides::new(self.node, PATIENCE_MS), Instant::now());
        loop {
            let meta = Arc::clone(&state.borrow_and_update());
            let actions = if meta.moves.is_empty() {
                Vec::new()
            } else {
                let stands = self.stands(&meta);
                let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                decides.look(&meta, now, |group| stands.get(&group).copied())
            };
            for action in actions {
                self.act(action).await;
            }
            if decides.is_busy() {
                sleep(LOOK).await;
            } else if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// How the groups stand that this node holds.
    fn stands(&self, meta: &Meta) -> BTreeMap<GroupId, SlotStand> {
        let replicas = self.replicas.status();
        let groups = (0..).zip(&self.groups).filter_map(|(group, ingest)| Some((group, ingest.as_ref()?)));
        let stand = |(group, ingest): (GroupId, &IngestHandle)| {
            let slots = ingest.slots()?.borrow().clone();
            let replica = replicas.iter().find(|of| of.group == group)?;
            let epoch = meta.group(group)?.epoch;
            let leads = replica.role == "leader" && replica.epoch == epoch;
            let (settled, confirmed) = (leads && slots.settled, leads && slots.confirmed);
            let refused = slots.refused.map(|(number, _)| number);
            let (left, arrived, commit) = (slots.left, slots.arrived, replica.commit);
            Some((group, SlotStand { left, arrived, commit, settled, confirmed, refused }))
        };
        groups.filter_map(stand).collect()
    }

    async fn act(&self, action: SlotAction) {
        let goes = |trip: SlotTrip| SlotGoes { number: trip.number, slot: trip.slot, to: trip.to };
        let of = |group: GroupId| self.groups.get(usize::from(group)).and_then(Option::as_ref);
        match action {
            // Whatever a group has no time for now is asked again.
            SlotAction::Leave { trip, from } => {
                let _ = of(from).is_some_and(|group| group.ask_slots(SlotAsk::Leave(goes(trip))));
            }
            SlotAction::GiveUp { trip, from, then } => {
                let (reply, given_up) = oneshot::channel();
                let Command::SlotStays { epoch, .. } = then else { return };
                let ask = SlotAsk::GiveUp { number: trip.number, epoch, reply };
                if of(from).is_some_and(|group| group.ask_slots(ask)) && given_up.await == Ok(true) {
                    let _ = self.consensus.decide(then).await;
                }
            }
            SlotAction::Arrive { trip, from } => {
                let ask = SlotAsk::Arrive { goes: goes(trip), from };
                let _ = of(trip.to).is_some_and(|group| group.ask_slots(ask));
            }
            SlotAction::Anew(trip) => {
                let _ = of(trip.to).is_some_and(|group| group.ask_slots(SlotAsk::Anew(goes(trip))));
            }
            SlotAction::Confirm(group) => {
                let _ = of(group).is_some_and(|group| group.ask_slots(SlotAsk::Confirm));
            }
            SlotAction::Propose(command) => {
                let _ = self.consensus.decide(command).await;
            }
            SlotAction::Over(number) => {
                self.groups.iter().flatten().for_each(|group| {
                    // Should it not hear that, it keeps what it has until the next one.
                    let _ = group.ask_slots(SlotAsk::Over(number));
                });
            }
        }
    }
}
