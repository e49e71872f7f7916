//! Results of groups that other nodes hold, on their way into this node's hub: the ends of a bounded queue, one for each such group.

use crate::egress::Wake;
use tidegate_proto::hub::Hub;
use tidegate_proto::relay::Relayed;

/// Batches on their way, each of what came in one read: with more, the link to the holder is not read.
pub(crate) const BATCHES_MAX: usize = 4;
/// Batches of one group taken in one turn.
const BATCHES_TURN: usize = 2;

/// The way in for the results of a group that this node does not hold. The server's end waits until all of these are gone.
pub struct RelayPort {
    pub(crate) group: u16,
    pub(crate) batches: flume::Sender<Vec<Relayed>>,
    pub(crate) waker: Wake,
    /// As long as it is there, more may come.
    pub(crate) _open: flume::Sender<Box<str>>,
}

impl RelayPort {
    /// The group.
    #[must_use]
    pub fn group(&self) -> u16 {
        self.group
    }

    /// Hands a batch on, and waits while the hub has enough to do. Returns `false` once the server has ended.
    pub async fn send(&self, batch: Vec<Relayed>) -> bool {
        let taken = self.batches.send_async(batch).await.is_ok();
        self.waker.wake();
        taken
    }

    /// Waits until the hub has taken everything that was handed on. Returns `false` once the server has ended.
    pub async fn settle(&self) -> bool {
        // With as many behind it as have room, it is no longer among those that wait.
        for _ in 0..BATCHES_MAX {
            if !self.send(Vec::new()).await {
                return false;
            }
        }
        true
    }
}

/// The hub's end.
pub(crate) struct RelayIn {
    pub(crate) group: u16,
    pub(crate) batches: flume::Receiver<Vec<Relayed>>,
    /// Event time up to which all is here; 0 before that is known.
    pub(crate) complete: u64,
}

impl RelayIn {
    /// Takes what came, a bounded part of it. Returns whether anything did.
    pub(crate) fn take(&mut self, hub: &mut Hub) -> bool {
        let mut worked = false;
        for batch in self.batches.try_iter().take(BATCHES_TURN) {
            worked = true;
            for relayed in batch {
                match relayed {
                    Relayed::Name(name) => hub.define(&name),
                    Relayed::Past(records) => hub.recall(&records),
                    Relayed::Known(records) => hub.publish_known(&records),
                    Relayed::Records(records) => hub.publish(&records),
                    Relayed::Skip { stream, slot, next, beginning } => {
                        hub.skip(stream, slot, next, beginning);
                    }
                    Relayed::Complete(ts) => self.complete = self.complete.max(ts),
                }
            }
        }
        worked
    }
}
