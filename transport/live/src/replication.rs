//! The way between ingest and whoever brings its log to other nodes and says what of it counts.
//!
//! What a leader's ingest accepts in one turn is one [`Submission`]. It comes back with everybody else's as an [`Order`] once it is
//! committed, and only then reaches shards and readers; so a follower, which gets the same orders, computes the same.

use crate::moving::{self, Word};
use crate::packed::{self, FORM, Item, Items};
use bytes::{BufMut, Bytes, BytesMut};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_journal::entry::{self, EntryError};
use tidegate_journal::{Entry, Point};
use tokio::sync::Notify;

/// Submissions that may wait for the driver; with more, ingest takes nothing from feeds.
const SUBMISSIONS_MAX: usize = 256;
/// Orders that may wait for ingest.
const ORDERS_MAX: usize = 64;
/// Bytes in front of a batch's body: how many records are in it, and its form.
pub(crate) const HEAD_BYTES: usize = 8;

/// What ingest accepted in one turn, as the leader of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The epoch. In another one it counts for nothing.
    pub epoch: u32,
    /// The entries.
    pub input: Input,
}

/// Entries of the journal's format, or packed events among them, as they travel between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input(Bytes);

impl Input {
    /// A batch's.
    pub(crate) fn of(batch: &tidegate_journal::Batch) -> Self {
        Self::in_form(0, batch)
    }

    /// A batch's that has packed events.
    pub(crate) fn of_packed(batch: &tidegate_journal::Batch) -> Self {
        Self::in_form(FORM, batch)
    }

    fn in_form(form: u32, batch: &tidegate_journal::Batch) -> Self {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + batch.body().len());
        bytes.put_u32_le(batch.count());
        bytes.put_u32_le(form);
        bytes.put_slice(batch.body());
        Self(bytes.freeze())
    }

    fn form(bytes: &[u8]) -> Option<u32> {
        bytes.get(4..HEAD_BYTES)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// Checks bytes that came from elsewhere.
    ///
    /// # Errors
    /// The first thing wrong with them.
    pub fn check(bytes: Bytes) -> Result<Self, EntryError> {
        let count = bytes.first_chunk::<4>().map_or(0, |count| u32::from_le_bytes(*count));
        match Self::form(&bytes) {
            Some(0) if count > 0 => entry::check(&bytes[HEAD_BYTES..], count)?,
            Some(FORM) if count > 0 => packed::check(&bytes, count)?,
            Some(moving::FORM) if count == 1 => drop(Word::of(&bytes)?),
            _ => return Err(EntryError::Count { found: 0, expected: count }),
        }
        Ok(Self(bytes))
    }

    /// One of the log's: those that are packed were checked when they came, the others are once more.
    #[must_use]
    pub fn of_log(bytes: Bytes) -> Option<Self> {
        if Self::form(&bytes) == Some(FORM) { Some(Self(bytes)) } else { Self::check(bytes).ok() }
    }

    /// How many events are in it.
    #[must_use]
    pub fn events(&self) -> u64 {
        let count = |item| match item {
            Item::Entry(Entry::Events { events, .. }) => events.len() as u64,
            Item::Packed { run, .. } => run.count.into(),
            Item::Entry(_) => 0,
        };
        self.items().flatten().map(count).sum()
    }

    /// How many records are in it.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.0.first_chunk::<4>().map_or(0, |count| u32::from_le_bytes(*count))
    }

    /// Bytes that it takes in a file: as if nothing of it were packed.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        packed::plain_bytes(&self.0)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// What is in it, unless it is a word of a move.
    pub(crate) fn items(&self) -> Items<'_> {
        Items::of(if self.word().is_some() { &[] } else { &self.0 })
    }

    /// A word of a move.
    pub(crate) fn of_word(word: Word<'_>) -> Self {
        Self(word.input())
    }

    /// The word of a move that it is, if it is one.
    pub(crate) fn word(&self) -> Option<Word<'_>> {
        if Self::form(&self.0) == Some(moving::FORM) { Word::of(&self.0).ok() } else { None }
    }
}

/// Snapshots of a node of a cluster: where they are, and what goes into them. When one is taken, [`Order::Snapshot`] says.
#[derive(Clone, Debug)]
pub struct ReplicaSnapshots {
    /// Their folder.
    pub folder: PathBuf,
    /// How many are kept, the newest: 1 or more.
    pub keep: usize,
    /// Bytes that must stay free on the disk.
    pub reserve_bytes: u64,
    /// What the state depends on beside the log, as a text for people: a snapshot taken under another is not used.
    pub settings: String,
    /// The time of the day in nanoseconds since 1970, for people who look at them.
    pub wall_ns: fn() -> u64,
}

/// What became of a snapshot: its offset, or why there is none.
pub type Written = Result<u64, String>;

/// What a node is to do next. Each holds from its place in the order on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// These are committed, in this order, behind all that came before.
    Commit(Vec<Input>),
    /// Take feeds in, from this epoch on.
    Lead {
        /// The epoch.
        epoch: u32,
        /// What is in the log behind what is committed: sources are known to have sent it.
        tail: Vec<Input>,
    },
    /// Take a snapshot of everything up to here, which is this point of the log. What becomes of it is told.
    Snapshot(Point),
    /// Send feeds away.
    Follow {
        /// Who leads, if that is known.
        node: Option<u16>,
        /// Where they find the leader, if that is known.
        leader: Option<SocketAddr>,
        /// The epoch.
        epoch: u32,
    },
}

/// Ingest's end.
#[derive(Clone, Debug)]
pub struct Replication {
    pub(crate) submissions: flume::Sender<Submission>,
    pub(crate) orders: flume::Receiver<Order>,
    pub(crate) taken: Arc<Notify>,
    pub(crate) written: flume::Sender<Written>,
}

/// The driver's end.
#[derive(Debug)]
pub struct ReplicationDriver {
    /// What is accepted here.
    pub submissions: flume::Receiver<Submission>,
    /// What is to be done here. After each the driver says [`crate::IngestHandle::replicated`].
    pub orders: flume::Sender<Order>,
    /// There may be room for orders again.
    pub taken: Arc<Notify>,
    /// What became of snapshots, one word for each that was ordered.
    pub written: flume::Receiver<Written>,
}

/// Both ends.
#[must_use]
pub fn replication() -> (Replication, ReplicationDriver) {
    let (submissions, submitted) = flume::bounded(SUBMISSIONS_MAX);
    let (orders, ordered) = flume::bounded(ORDERS_MAX);
    let taken = Arc::new(Notify::new());
    let (written, told) = flume::bounded(ORDERS_MAX);
    let port = Replication { submissions, orders: ordered, taken: Arc::clone(&taken), written };
    (port, ReplicationDriver { submissions: submitted, orders, taken, written: told })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_journal::Batch;

    #[test]
    fn an_input_is_taken_whole_or_not_at_all() {
        let mut batch = Batch::new();
        assert!(batch.source(0, 7, 1, true, "a", "anonymous") && batch.idle(0));
        let input = Input::of(&batch);
        assert_eq!(Input::check(input.bytes().clone()), Ok(input.clone()));
        for end in 0..input.bytes().len() {
            assert!(Input::check(input.bytes().slice(..end)).is_err(), "{end}");
        }
        for (at, byte) in [(0, 3), (1, 1), (4, 1), (7, 1), (8, 99)] {
            let mut bytes = input.bytes().to_vec();
            bytes[at] = byte;
            assert!(Input::check(bytes.into()).is_err(), "{at}");
        }
    }
}
