//! What group commit writes to: the journal on a disk, or the log of others.

use crate::commit::{CommitOptions, SyncPolicy};
use crate::entry::Batch;
use crate::journal::{AppendError, Journal, Point};
use crate::scan::BatchView;
use crate::storage::Storage;
use std::fmt::Debug;
use std::io;

/// A log of batches, each the next one behind the last, that is one writer's.
///
/// **Contract:** what is below [`Extent::synced`] is there for good; offsets never go back; after [`AppendError::Failed`] it
/// takes nothing more, because what it holds is not known.
pub trait LogStore: Send {
    /// Takes a batch in and returns the offset of its first record; an empty one is nothing. It is on its way with
    /// [`LogStore::write`] and there for good with [`LogStore::sync`]. `ingest_ns` is wall time, nanoseconds since 1970.
    ///
    /// # Errors
    /// [`AppendError`]; then the batch was not taken.
    fn append(&mut self, batch: &Batch, epoch: u32, ingest_ns: u64) -> Result<u64, AppendError>;

    /// Sends on what was taken in.
    ///
    /// # Errors
    /// [`AppendError::Full`] or [`AppendError::Away`], and the next call tries the same again; or [`AppendError::Failed`].
    fn write(&mut self) -> Result<(), AppendError>;

    /// Writes, and waits until all of it is there for good.
    ///
    /// # Errors
    /// As [`LogStore::write`].
    fn sync(&mut self) -> Result<(), AppendError>;

    /// Nothing below offset `needed` is needed any more: what is over its bounds may go. Returns how many segments went.
    ///
    /// # Errors
    /// What the system says; the log stays good.
    fn retain(&mut self, needed: u64, wall_ns: u64) -> io::Result<usize>;

    /// Bytes that could still be written.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&mut self) -> io::Result<u64>;

    /// Where it ends.
    fn point(&self) -> Point;

    /// How far it reaches.
    fn extent(&self) -> Extent;
}

/// How far a log reaches. Offsets are those behind the last record they hold for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the oldest record.
    pub first: u64,
    /// Offset the next record gets.
    pub next: u64,
    /// Records below are sent on.
    pub written: u64,
    /// Records below are there for good.
    pub synced: u64,
    /// Bytes taken in and not sent on.
    pub pending_bytes: usize,
    /// Files it lies in, if it does.
    pub segments: usize,
    /// Bytes of it, as far as known.
    pub bytes: u64,
}

impl<S: Storage> LogStore for Journal<S> {
    fn append(&mut self, batch: &Batch, epoch: u32, ingest_ns: u64) -> Result<u64, AppendError> {
        Journal::append(self, batch, epoch, ingest_ns)
    }

    fn write(&mut self) -> Result<(), AppendError> {
        Journal::write(self)
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        Journal::sync(self)
    }

    fn retain(&mut self, needed: u64, wall_ns: u64) -> io::Result<usize> {
        Journal::retain(self, needed, wall_ns)
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Journal::free_bytes(self)
    }

    fn point(&self) -> Point {
        Journal::point(self)
    }

    fn extent(&self) -> Extent {
        Extent {
            first: self.first_offset(),
            next: self.next_offset(),
            written: self.written_offset(),
            synced: self.synced_offset(),
            pending_bytes: self.pending_bytes(),
            segments: self.segments(),
            bytes: self.bytes(),
        }
    }
}

impl LogStore for Box<dyn LogStore> {
    fn append(&mut self, batch: &Batch, epoch: u32, ingest_ns: u64) -> Result<u64, AppendError> {
        (**self).append(batch, epoch, ingest_ns)
    }

    fn write(&mut self) -> Result<(), AppendError> {
        (**self).write()
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        (**self).sync()
    }

    fn retain(&mut self, needed: u64, wall_ns: u64) -> io::Result<usize> {
        (**self).retain(needed, wall_ns)
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        (**self).free_bytes()
    }

    fn point(&self) -> Point {
        (**self).point()
    }

    fn extent(&self) -> Extent {
        (**self).extent()
    }
}

/// Why the log of others cannot be gone on from.
pub type RemoteError = Box<dyn std::error::Error + Send + Sync>;

/// The log of others, not opened yet.
pub trait Remote: Debug + Send + Sync {
    /// For people: what it is and where.
    fn name(&self) -> String;

    /// Keeps other writers out, hands what is behind `point` to `visit`, and goes on behind that. `lineage` is for a log that is
    /// empty.
    ///
    /// # Errors
    /// When it cannot be reached or read, is damaged, or does not go on from there. Nothing was changed.
    fn open(
        &self,
        lineage: u128,
        point: Option<Point>,
        visit: &mut dyn FnMut(BatchView<'_>),
    ) -> Result<Box<dyn LogStore>, RemoteError>;

    /// Group commit as it suits it: what is sent on is there for good within a tenth of a second at the latest.
    fn commit(&self, local: CommitOptions) -> CommitOptions {
        let sync = match local.sync {
            SyncPolicy::Never => SyncPolicy::Every(100_000_000),
            sync => sync,
        };
        CommitOptions { sync, reserve_bytes: 0, ..local }
    }
}
