//! The journal beside the log: what ingest accepts is written down turn by turn, and read again at the next start.

use crate::ingest::Input;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::writer::Refused;
use tidegate_journal::{
    Batch, Committer, Disk, Health, Journal, JournalOptions, OpenError, Point, Remote, RemoteError,
    SyncStats, SyncTimes, Tail, Writer, WriterOptions, WriterStats,
};

/// Where and how the journal is kept.
#[derive(Debug, Clone)]
pub struct JournalSettings {
    /// Its folder, for segments and snapshots.
    pub folder: PathBuf,
    /// The log of others in place of segments; snapshots stay in the folder.
    pub remote: Option<Arc<dyn Remote>>,
    /// Segments.
    pub journal: JournalOptions,
    /// Group commit.
    pub commit: CommitOptions,
    /// Snapshots beside it; `None` for none, then a start reads all of it.
    pub snapshots: Option<SnapshotOptions>,
    /// What the state depends on beside the log, as a text for people: a snapshot taken under another is not used.
    pub settings: String,
    /// The time of the day in nanoseconds since 1970, for people who read the journal.
    pub wall_ns: fn() -> u64,
    /// Told now and then how far recovery is.
    pub progress: fn(Progress),
}

/// When snapshots are taken: as soon as one of the bounds is reached. Also at an end in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Bytes of accepted input since the last one; 0 for no such bound.
    pub every_bytes: u64,
    /// Records since the last one; 0 for no such bound.
    pub every_records: u64,
    /// Nanoseconds since the last one, if anything was accepted; 0 for no such bound.
    pub every_ns: u64,
    /// How many are kept, the newest: 1 or more.
    pub keep: usize,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { every_bytes: 256 << 20, every_records: 0, every_ns: 300_000_000_000, keep: 2 }
    }
}

/// How far recovery is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records read and applied.
    pub records: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Bytes of segments that are to be read, as set aside.
    pub total_bytes: u64,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The folder cannot be used.
    #[error("the journal in {folder} cannot be used")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder of a node's snapshots cannot be used.
    #[error("the snapshots in {folder} cannot be used")]
    Snapshots {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A snapshot that is whole and does not fit together.
    #[error("the snapshot of offset {offset} in {folder} cannot be gone on from: {what}")]
    Snapshot {
        /// The folder.
        folder: PathBuf,
        /// Its offset.
        offset: u64,
        /// Why.
        what: String,
    },
    /// It begins behind its first record, and no snapshot has what was in front. Nothing was changed.
    #[error(
        "the journal in {folder} begins at offset {first}, and no snapshot holds what was in front of it{}",
        if notes.is_empty() { String::new() } else { format!(": {}", notes.join("; ")) }
    )]
    Headless {
        /// The folder.
        folder: PathBuf,
        /// Its first offset.
        first: u64,
        /// Why each of the snapshots is of no use.
        notes: Vec<String>,
    },
    /// The log is to be elsewhere, and there is one here.
    #[error("{folder} holds a journal, and the log is to be {remote}: move one of them away")]
    Two {
        /// The folder.
        folder: PathBuf,
        /// The other.
        remote: String,
    },
    /// The log of others cannot be gone on from. Nothing was changed.
    #[error("the log cannot be recovered from {remote}")]
    Remote {
        /// What it is and where.
        remote: String,
        /// Why.
        source: RemoteError,
    },
    /// It is damaged, or cannot be read. Nothing was changed.
    #[error("the journal in {folder} cannot be recovered")]
    Open {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
}

/// What was found at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Offset of the snapshot that was gone on from, if one was.
    pub snapshot: Option<u64>,
    /// The point of the log that it is of.
    pub point: Option<Point>,
    /// Bytes of it.
    pub snapshot_bytes: u64,
    /// How many shards took it and how many took it over, where these are not as many.
    pub regrouped: Option<(u32, u32)>,
    /// Snapshots that were of no use, and why.
    pub notes: Vec<String>,
    /// Records read and applied.
    pub records: u64,
    /// Of these, events.
    pub events: u64,
    /// Bytes of a torn end that were cut off.
    pub torn_bytes: u64,
    /// Entries of sources that were not taken, because more are known than may be.
    pub refused: u64,
}

/// Records between two words about progress.
pub(crate) const PROGRESS_RECORDS: u64 = 1 << 20;
/// The epoch of a server that leads alone.
const EPOCH: u32 = 1;

/// A source's events up to `sequence` are in the log below `offset`.
pub(crate) struct Mark {
    offset: u64,
    pub(crate) rank: u16,
    pub(crate) session: u64,
    pub(crate) sequence: u64,
}

pub(crate) struct Journaling {
    writer: Writer,
    batch: Batch,
    /// Batches in order that the writer had no room for.
    waiting: VecDeque<(Batch, Option<Mark>)>,
    marks: VecDeque<Mark>,
    wall_ns: fn() -> u64,
    failed: bool,
    syncs: Arc<SyncTimes>,
    /// Bytes and records handed over.
    submitted: (u64, u64),
    /// Whether segments may be removed at all.
    retains: bool,
    /// It is the log of others.
    remote: bool,
    /// The folder is this process's, also where nothing but snapshots lies in it.
    _folder: Option<Disk>,
}

impl Journaling {
    /// Opens the journal, hands what is in it to `read`, and starts its thread, which says through `inputs` that it went on.
    ///
    /// With a `point` only what is behind it is read.
    pub(crate) fn start(
        settings: &JournalSettings,
        disk: Disk,
        point: Option<Point>,
        inputs: flume::Sender<Input>,
        read: impl FnMut(tidegate_journal::BatchView<'_>),
    ) -> Result<(Self, u64), JournalError> {
        let folder = || settings.folder.clone();
        let syncs = disk.sync_times();
        let now = (settings.wall_ns)();
        let moved = move |_, _: &Health| {
            // When the queue is full, ingest is awake anyway.
            let _ = inputs.try_send(Input::Journaled);
        };
        let mut read = read;
        let (writer, torn, kept) = if let Some(remote) = &settings.remote {
            let log = remote
                .open(settings.journal.lineage, point, &mut read)
                .map_err(|source| JournalError::Remote { remote: remote.name(), source })?;
            let committer = Committer::new(log, remote.commit(settings.commit));
            (Writer::start(committer, WriterOptions::default(), moved), 0, Some(disk))
        } else {
            let (journal, found) = Journal::open_from(disk, settings.journal.clone(), point, now, read)
                .map_err(|source| JournalError::Open { folder: folder(), source })?;
            let torn = match found.map(|found| found.tail) {
                Some(Tail::Torn { bytes, .. }) => bytes,
                _ => 0,
            };
            let committer = Committer::new(journal, settings.commit);
            (Writer::start(committer, WriterOptions::default(), moved), torn, None)
        };
        let writer = writer.map_err(|source| JournalError::Folder { folder: folder(), source })?;
        let journaling = Self {
            writer,
            batch: Batch::new(),
            waiting: VecDeque::new(),
            marks: VecDeque::new(),
            wall_ns: settings.wall_ns,
            failed: false,
            syncs,
            submitted: (0, 0),
            retains: settings.journal.retain_bytes > 0 || settings.journal.retain_ns > 0,
            remote: settings.remote.is_some(),
            _folder: kept,
        };
        Ok((journaling, torn))
    }

    /// Adds to what this turn accepted.
    pub(crate) fn note(&mut self, write: impl Fn(&mut Batch) -> bool) {
        if self.failed || write(&mut self.batch) {
            return;
        }
        // Full: the turn goes on in a batch of its own.
        self.submit(None);
        let fits = write(&mut self.batch);
        assert!(fits, "an entry is never larger than a batch: frames have bounds");
    }

    /// Hands over what this turn accepted; the last of it is `(rank, session, sequence)`.
    pub(crate) fn submit(&mut self, last: Option<(u16, u64, u64)>) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, self.writer.spare());
        if self.failed {
            return;
        }
        self.submitted.0 += batch.body().len() as u64;
        self.submitted.1 += u64::from(batch.count());
        let mark = last.map(|(rank, session, sequence)| Mark { offset: 0, rank, session, sequence });
        self.waiting.push_back((batch, mark));
        self.push();
    }

    /// Hands on what waits. Returns whether something still does: then nothing more may be accepted.
    pub(crate) fn push(&mut self) -> bool {
        while let Some((batch, mark)) = self.waiting.pop_front() {
            match self.writer.submit(batch, EPOCH, (self.wall_ns)()) {
                Ok(offset) => self.marks.extend(mark.map(|mark| Mark { offset, ..mark })),
                Err(Refused::Busy(batch)) => {
                    self.waiting.push_front((batch, mark));
                    return true;
                }
                Err(Refused::Gone(_)) => {
                    // What is served goes on; what is promised does not.
                    self.failed = true;
                    self.waiting.clear();
                }
            }
        }
        false
    }

    /// The next source of which more is on disk.
    pub(crate) fn durable(&mut self) -> Option<Mark> {
        let durable = self.writer.durable();
        self.marks.pop_front_if(|mark| mark.offset <= durable)
    }

    pub(crate) fn stats(&self) -> WriterStats {
        self.writer.stats()
    }

    /// How long syncs take.
    pub(crate) fn syncs(&self) -> SyncStats {
        self.syncs.stats()
    }

    /// Whether nothing can be written for now, and nobody knows until when.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self.writer.stats().health, Health::Full | Health::Away(_))
    }

    /// Whether the disk failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed || matches!(self.writer.stats().health, Health::Failed(_))
    }

    /// Counts what was read as handed over.
    pub(crate) fn count(&mut self, bytes: u64, records: u64) {
        self.submitted = (self.submitted.0 + bytes, self.submitted.1 + records);
    }

    /// Bytes of the segments that hold something from an offset on, about: those of all but the ones in front.
    pub(crate) fn bytes_from(disk: &mut Disk, offset: u64) -> u64 {
        let found = tidegate_journal::scan::headers(disk).unwrap_or_default();
        let start = found.iter().rposition(|(info, _)| info.first_offset <= offset).unwrap_or(0);
        found[start..].iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes and records handed over so far.
    pub(crate) fn submitted(&self) -> (u64, u64) {
        self.submitted
    }

    /// Asks for the point behind everything accepted; `None` while the writer has no room for it, or it is not between two turns.
    pub(crate) fn barrier(&self, reply: flume::Sender<Point>) -> Option<u64> {
        let between = self.batch.is_empty() && self.waiting.is_empty() && !self.failed;
        if between { self.writer.barrier(reply) } else { None }
    }

    /// Nothing below `needed` is needed any more.
    pub(crate) fn retain(&self, needed: u64) {
        if self.retains && needed > 0 {
            self.writer.retain(needed, (self.wall_ns)());
        }
    }

    /// Notes an end in order, and waits for the disk as long as it takes something. Says too how many records it did not take.
    pub(crate) fn finish(mut self) -> (WriterStats, u64) {
        self.note(Batch::stopped);
        self.submit(None);
        while self.push() && matches!(self.writer.stats().health, Health::Working | Health::Reserve) {
            std::thread::yield_now();
        }
        let waiting = self.waiting.iter().map(|(batch, _)| u64::from(batch.count())).sum::<u64>();
        let taken = self.writer.taken() + waiting;
        let mut stats = self.writer.stop();
        stats.positions.taken = stats.positions.taken.max(taken);
        // What was sent to others and not confirmed is with nobody once this process has ended; what the system has of a disk's is.
        let kept = if self.remote { stats.positions.durable } else { stats.positions.written };
        (stats, taken.saturating_sub(kept))
    }
}
