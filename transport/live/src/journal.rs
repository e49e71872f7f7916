//! The journal beside the log: what ingest accepts is written down turn by turn, and read again at the next start.

use crate::ingest::Input;
use std::collections::VecDeque;
use std::path::PathBuf;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::writer::Refused;
use tidegate_journal::{
    Batch, Committer, Disk, Health, Journal, JournalOptions, OpenError, Tail, Writer, WriterOptions,
    WriterStats,
};

/// Where and how the journal is kept.
#[derive(Debug, Clone)]
pub struct JournalSettings {
    /// Its folder.
    pub folder: PathBuf,
    /// Segments.
    pub journal: JournalOptions,
    /// Group commit.
    pub commit: CommitOptions,
    /// The time of the day in nanoseconds since 1970, for people who read the journal.
    pub wall_ns: fn() -> u64,
    /// Told now and then how many records were recovered.
    pub progress: fn(u64),
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
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
}

impl Journaling {
    /// Opens the journal, hands what is in it to `read`, and starts its thread, which says through `inputs` that it went on.
    pub(crate) fn start(
        settings: &JournalSettings,
        inputs: flume::Sender<Input>,
        read: impl FnMut(tidegate_journal::BatchView<'_>),
    ) -> Result<(Self, u64), JournalError> {
        let folder = || settings.folder.clone();
        let disk = Disk::open(&settings.folder)
            .map_err(|source| JournalError::Folder { folder: folder(), source })?;
        let now = (settings.wall_ns)();
        let (journal, found) = Journal::open(disk, settings.journal.clone(), now, read)
            .map_err(|source| JournalError::Open { folder: folder(), source })?;
        let torn = match found.map(|found| found.tail) {
            Some(Tail::Torn { bytes, .. }) => bytes,
            _ => 0,
        };
        let committer = Committer::new(journal, settings.commit);
        let writer = Writer::start(committer, WriterOptions::default(), move |_, _| {
            // When the queue is full, ingest is awake anyway.
            let _ = inputs.try_send(Input::Journaled);
        })
        .map_err(|source| JournalError::Folder { folder: folder(), source })?;
        let journaling = Self {
            writer,
            batch: Batch::new(),
            waiting: VecDeque::new(),
            marks: VecDeque::new(),
            wall_ns: settings.wall_ns,
            failed: false,
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

    /// Notes an end in order, and waits for the disk.
    pub(crate) fn finish(mut self) -> WriterStats {
        self.note(Batch::stopped);
        self.submit(None);
        while self.push() && matches!(self.writer.stats().health, Health::Working | Health::Reserve) {
            std::thread::yield_now();
        }
        self.writer.stop()
    }
}
