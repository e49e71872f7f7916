//! Makes a node known to metadata, and takes another incarnation when the one it has was given up. All its replicas follow.

use crate::config::Incarnations;
use crate::kept::Lossy;
use crate::metadata::{Proposals, Refused};
use crate::node::Ended;
use std::time::Duration;
use tidegate_replica::{Command, GroupId, Member, MetaStore};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

/// Between two attempts to register.
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct Registrar {
    pub(crate) me: Member,
    pub(crate) proposals: Proposals,
    pub(crate) refused: mpsc::Receiver<Refused>,
    pub(crate) incarnations: Incarnations,
    /// By group, whether it has less than the incarnation before it acknowledged.
    pub(crate) lossy: Vec<bool>,
    /// Where each says so until metadata knows, should it be killed before.
    pub(crate) marks: Vec<Lossy>,
    /// Who follows is told the incarnation before metadata is.
    pub(crate) told: watch::Sender<u64>,
}

impl Registrar {
    /// Until the node is to end, or cannot go on.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut proposed = false;
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ended::Asked,
                _ = again.tick() => proposed = false,
                changed = self.proposals.watched.changed() => {
                    if changed.is_err() {
                        return Ended::Metadata;
                    }
                }
                // It is proposed again until metadata has it.
                Some(_) = self.refused.recv() => {}
            }
            self.proposals.refresh();
            match self.renew() {
                Ok(renewed) => proposed &= !renewed,
                Err(ended) => return ended,
            }
            let known = self.known().map_or(0, |(incarnation, _)| incarnation);
            if known == self.me.incarnation && self.lossy.contains(&true) {
                if let Err(error) = self.marks.iter().try_for_each(Lossy::clear) {
                    return Ended::Log(error.to_string());
                }
                self.lossy.fill(false);
            }
            if known < self.me.incarnation && !proposed {
                self.proposals.propose(register(self.me, &self.lossy));
                proposed = true;
            }
        }
    }

    /// What metadata knows of this node: its incarnation, and whether that was given up.
    fn known(&self) -> Option<(u64, bool)> {
        self.proposals.state().nodes.get(&self.me.node).map(|known| (known.incarnation, known.fenced))
    }

    /// Takes another incarnation, if the one it has is over. Returns whether it is.
    fn renew(&mut self) -> Result<bool, Ended> {
        let Some((incarnation, fenced)) = self.known() else { return Ok(false) };
        let later = incarnation > self.me.incarnation;
        let over = fenced && incarnation == self.me.incarnation;
        if !(later || over) {
            return Ok(false);
        }
        // It was given up, and is here: somebody new, with its memory. Or its folder is older than the cluster.
        if later {
            self.marks.iter().try_for_each(Lossy::set).map_err(|error| Ended::Log(error.to_string()))?;
            self.lossy.fill(true);
        }
        let next = incarnation + 1;
        self.incarnations.note(next).map_err(|error| Ended::Incarnation(error.to_string()))?;
        self.me.incarnation = next;
        self.told.send_replace(next);
        Ok(true)
    }
}

/// What makes a node known that may have lost something of these groups, or of all.
fn register(member: Member, lossy: &[bool]) -> Command {
    let all = lossy.iter().all(|lossy| *lossy);
    let some = (0..).zip(lossy).filter(|(_, lost)| **lost && !all);
    let lost: Vec<GroupId> = some.map(|(group, _)| group).collect();
    Command::Register { member, lossy: all, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_of_which_groups_it_lost_something() {
        let member = Member { node: 2, incarnation: 9 };
        let said = |lossy: &[bool]| match register(member, lossy) {
            Command::Register { member: of, lossy, lost } if of == member => (lossy, lost),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [said(&[false]), said(&[true])],
            [(false, vec![]), (true, vec![])],
            "as with one group before"
        );
        assert_eq!(said(&[false, true, true]), (false, vec![1, 2]));
        assert_eq!(said(&[true, true]), (true, vec![]));
    }
}
