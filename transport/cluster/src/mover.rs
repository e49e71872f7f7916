//! Drives slots from one group to another: what metadata wants is asked of the groups that this node leads, and what their logs say is told to
//! metadata. It decides nothing: whoever dies in between, the next leader's node goes on from metadata and the logs.

use crate::metadata::Consensus;
use crate::node::Replicas;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_live::{IngestHandle, SlotAsk, SlotStatus};
use tidegate_proto::feed::SlotGoes;
use tidegate_replica::{Command, GroupId, Meta, NodeId};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

/// Between two looks at a move that is under way.
const LOOK: Duration = Duration::from_millis(2);
/// How long feeds may take to stop before their slot stays where it is.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let (mut under_way, mut since): (u64, Option<Instant>) = (0, None);
        loop {
            let meta = Arc::clone(&state.borrow_and_update());
            let now = meta.under_way().map(|(slot, of)| (slot, *of)).next();
            match now {
                Some((slot, of)) => {
                    if under_way != of.number {
                        (under_way, since) = (of.number, None);
                    }
                    let goes = SlotGoes { number: of.number, slot, to: of.to };
                    self.look(&meta, goes, of.step, &mut since).await;
                    sleep(LOOK).await;
                }
                None => {
                    if under_way > 0 {
                        self.groups.iter().flatten().for_each(|group| {
                            // Should it not hear that, it keeps what it has until the next one.
                            let _ = group.ask_slots(SlotAsk::Over(under_way));
                        });
                        under_way = 0;
                    }
                    if state.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn of(&self, group: GroupId) -> Option<(&IngestHandle, SlotStatus)> {
        let ingest = self.groups.get(usize::from(group))?.as_ref()?;
        let status = ingest.slots()?.borrow().clone();
        Some((ingest, status))
    }

    /// Does what is to be done next, as far as it is this node's to do.
    async fn look(&self, meta: &Meta, goes: SlotGoes, step: u64, since: &mut Option<Instant>) {
        let SlotGoes { number, slot, to } = goes;
        let from = meta.slots.group_of(slot);
        let leads = |group: GroupId| {
            let of = meta.group(group)?;
            of.leader.filter(|leader| leader.node == self.node).map(|_| of.epoch)
        };
        let Some((old, left)) = self.of(from) else { return };
        let Some((new, arrived)) = self.of(to) else { return };
        let has_left = step % 3 == 2;
        match leads(from) {
            Some(epoch) if !has_left && left.left >= number => {
                let commits = self.replicas.status();
                let offset = commits.iter().find(|of| of.group == from).map_or(0, |of| of.commit);
                let _ = self.consensus.decide(Command::SlotLeft { slot, step, epoch, offset }).await;
            }
            Some(epoch) if !has_left => {
                let begun = *since.get_or_insert_with(Instant::now);
                let never = left.refused.as_ref().is_some_and(|(of, _)| *of == number);
                if never || begun.elapsed() >= PATIENCE {
                    let (reply, given_up) = oneshot::channel();
                    if old.ask_slots(SlotAsk::GiveUp { number, reply }) && given_up.await == Ok(true) {
                        let _ = self.consensus.decide(Command::SlotStays { slot, step, epoch }).await;
                    }
                } else {
                    let _ = old.ask_slots(SlotAsk::Leave(goes));
                }
            }
            _ => *since = None,
        }
        match leads(to) {
            Some(epoch) if has_left && arrived.arrived >= number => {
                let _ = self.consensus.decide(Command::SlotArrived { slot, step, epoch }).await;
            }
            // As far as this node's own copy of the old group is.
            Some(_) if left.left >= number && arrived.arrived < number => {
                let _ = new.ask_slots(SlotAsk::Arrive { goes, from });
            }
            _ => {}
        }
    }
}
