//! Group commit: what comes between two turns is written at once and synced at once, and promises follow the disk. Knows no
//! thread and no clock, so that tests drive it through a disk's bad days.

use crate::entry::Batch;
use crate::journal::AppendError;
use crate::log_store::LogStore;
use std::collections::VecDeque;

/// When what was written is brought to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// With each turn that wrote something.
    Always,
    /// At most so many nanoseconds after it was written.
    Every(u64),
    /// When the system likes, and when a segment ends. Then nothing is ever acknowledged as durable.
    Never,
}

/// Bounds of the group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitOptions {
    /// When to sync.
    pub sync: SyncPolicy,
    /// With fewer bytes free than this, nothing is acknowledged as durable: writing goes on as long as there is room, so that
    /// there is time to make some.
    pub reserve_bytes: u64,
    /// Bytes of batches kept while the disk takes none; with more, batches are given back, and the feeds wait.
    pub backlog_bytes: usize,
    /// How often room is looked for, in nanoseconds: always while it is short.
    pub space_check_ns: u64,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Every(1_000_000),
            reserve_bytes: 256 << 20,
            backlog_bytes: 64 << 20,
            space_check_ns: 200_000_000,
        }
    }
}

/// How the journal is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    #[default]
    Working,
    /// Less than the reserve is free: written, not acknowledged as durable.
    Reserve,
    /// Nothing more fits: batches wait in memory, up to a bound.
    Full,
    /// The log is elsewhere, and cannot be reached, with these words: batches wait in memory, up to a bound.
    Away(String),
    /// The disk failed, with these words. Nothing is acknowledged as durable until the journal was read anew.
    Failed(String),
}

impl Health {
    /// Its name, for tables and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Reserve => "reserve",
            Self::Full => "full",
            Self::Away(_) => "away",
            Self::Failed(_) => "failed",
        }
    }
}

/// How far the log is. Each is the offset behind the last record it holds for, and none ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Taken: what `leader` promises.
    pub taken: u64,
    /// Handed to the system: survives the process, not the power.
    pub written: u64,
    /// On disk and acknowledged as such: what `durable` promises.
    pub durable: u64,
}

struct Waiting {
    batch: Batch,
    epoch: u32,
    ingest_ns: u64,
}

/// A journal with a queue in front and promises behind.
pub struct Committer<L> {
    log: L,
    options: CommitOptions,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
    spare: Vec<Batch>,
    health: Health,
    positions: Positions,
    /// When the oldest write that was not synced was made.
    unsynced_since: Option<u64>,
    checked_ns: Option<u64>,
    needed: u64,
}

/// Batches kept for reuse.
const SPARE_MAX: usize = 64;

impl<L: LogStore> Committer<L> {
    /// Goes on with a log.
    #[must_use]
    pub fn new(log: L, options: CommitOptions) -> Self {
        let extent = log.extent();
        let positions = Positions {
            taken: extent.next,
            written: extent.written,
            durable: if options.sync == SyncPolicy::Never { 0 } else { extent.synced },
        };
        Self {
            needed: 0,
            log,
            options,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            spare: Vec::new(),
            health: Health::Working,
            positions,
            unsynced_since: None,
            checked_ns: None,
        }
    }

    /// Takes a batch; it is written with the next [`Committer::turn`].
    ///
    /// # Errors
    /// The batch, when the disk takes none and as many wait as may, or when it failed.
    pub fn submit(&mut self, batch: Batch, epoch: u32, ingest_ns: u64) -> Result<(), Batch> {
        if !self.has_room() {
            return Err(batch);
        }
        self.positions.taken += u64::from(batch.count());
        self.backlog_bytes += batch.body().len();
        self.backlog.push_back(Waiting { batch, epoch, ingest_ns });
        Ok(())
    }

    /// Whether a batch would be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.backlog_bytes < self.options.backlog_bytes && !matches!(self.health, Health::Failed(_))
    }

    /// An emptied batch whose memory can be used again, if there is one.
    pub fn take_spare(&mut self) -> Option<Batch> {
        self.spare.pop()
    }

    /// Writes what waits, syncs if it is time. Returns when to come again at the latest, if not for new batches. `now_ns` is of
    /// a clock that never goes back.
    pub fn turn(&mut self, now_ns: u64) -> Option<u64> {
        if matches!(self.health, Health::Failed(_)) {
            return None;
        }
        match self.work(now_ns) {
            Ok(()) => {}
            Err(AppendError::Full(_)) => {
                self.health = Health::Full;
                return Some(now_ns + self.options.space_check_ns);
            }
            Err(AppendError::Away(why)) => {
                self.health = Health::Away(why.to_string());
                return Some(now_ns + self.options.space_check_ns);
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                self.health = Health::Failed(format!("{error}{}", source.unwrap_or_default()));
                return None;
            }
        }
        let sync = match (self.options.sync, self.unsynced_since) {
            (SyncPolicy::Every(span), Some(since)) => Some(since + span),
            _ => None,
        };
        let look = (self.health != Health::Working).then_some(now_ns + self.options.space_check_ns);
        [sync, look].into_iter().flatten().min()
    }

    fn work(&mut self, now_ns: u64) -> Result<(), AppendError> {
        self.look_for_room(now_ns);
        while let Some(waiting) = self.backlog.front() {
            self.log.append(&waiting.batch, waiting.epoch, waiting.ingest_ns)?;
            if let Some(Waiting { mut batch, .. }) = self.backlog.pop_front() {
                self.backlog_bytes -= batch.body().len();
                batch.clear();
                if self.spare.len() < SPARE_MAX {
                    self.spare.push(batch);
                }
            }
            if self.log.extent().pending_bytes >= WRITE_BYTES {
                self.write(now_ns)?;
            }
        }
        self.write(now_ns)?;
        let due = match (self.options.sync, self.unsynced_since) {
            (_, None) | (SyncPolicy::Never, _) => false,
            (SyncPolicy::Always, Some(_)) => true,
            (SyncPolicy::Every(span), Some(since)) => now_ns.saturating_sub(since) >= span,
        };
        if due {
            self.sync()?;
        }
        if matches!(self.health, Health::Away(_)) {
            self.health = Health::Working;
        }
        if self.health == Health::Full {
            self.health = Health::Reserve; // it took all; whether there is room again is looked at next time
        }
        self.promise();
        Ok(())
    }

    fn write(&mut self, now_ns: u64) -> Result<(), AppendError> {
        let before = self.positions.written;
        self.log.write()?;
        self.positions.written = self.log.extent().written;
        if self.positions.written > before && self.log.extent().synced < self.positions.written {
            self.unsynced_since = self.unsynced_since.or(Some(now_ns));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        self.log.sync()?;
        self.unsynced_since = None;
        Ok(())
    }

    /// Acknowledges what is on disk, while there is room for more.
    fn promise(&mut self) {
        if self.health == Health::Working && self.options.sync != SyncPolicy::Never {
            self.positions.durable = self.log.extent().synced;
        }
    }

    fn look_for_room(&mut self, now_ns: u64) {
        let due = self.checked_ns.is_none_or(|at| now_ns.saturating_sub(at) >= self.options.space_check_ns);
        if !due {
            return;
        }
        self.checked_ns = Some(now_ns);
        // A quarter more than the reserve before acks go on, so that they do not come and go with every segment.
        let reserve = self.options.reserve_bytes;
        let enough = reserve + if self.health == Health::Working { 0 } else { reserve / 4 };
        // A full disk stays full until it took what waits; what cannot be asked changes nothing.
        let room = self.log.free_bytes().map(|free| free >= enough);
        match (&self.health, room) {
            (Health::Reserve, Ok(true)) => self.health = Health::Working,
            (Health::Working, Ok(false)) => self.health = Health::Reserve,
            _ => {}
        }
    }

    /// Nothing in front of this offset is needed any more, for instance because a snapshot holds it: segments over the bounds may
    /// go. `wall_ns` is the time of the day, which ages count by.
    ///
    /// # Errors
    /// What the system says; the journal stays good, and it can be tried again.
    pub fn retain(&mut self, needed: u64, wall_ns: u64) -> std::io::Result<usize> {
        self.needed = self.needed.max(needed);
        self.log.retain(self.needed.min(self.positions.written), wall_ns)
    }

    /// Writes and syncs everything, for an end in order.
    ///
    /// # Errors
    /// Why not.
    pub fn finish(&mut self, now_ns: u64) -> Result<(), AppendError> {
        if matches!(self.health, Health::Failed(_)) {
            return Err(AppendError::FailedBefore);
        }
        self.work(now_ns)?;
        self.sync()?;
        self.promise();
        Ok(())
    }

    /// Whether something was written whose time to be synced is still to come.
    #[must_use]
    pub fn awaits_sync(&self) -> bool {
        self.unsynced_since.is_some() && matches!(self.options.sync, SyncPolicy::Every(_))
    }

    /// How far the log is.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.positions
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &L {
        &self.log
    }
}

/// Bytes handed to the system at once.
const WRITE_BYTES: usize = 4 << 20;
