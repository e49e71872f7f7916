//! A journal being written: batches behind each other, segment after segment. Knows no thread and no clock.

use crate::entry::Batch;
use crate::format::{
    BATCH_HEADER_BYTES, BatchInfo, Chain, Lineage, SEGMENT_HEADER_BYTES, SegmentInfo, extent, zero_sectors,
};
use crate::scan::{BatchView, Scan, ScanError, Tail, begin, scan_from};
use crate::storage::{Storage, is_full};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// Bytes of a segment: 4 KiB to 4 GiB. A batch that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// History of a journal that is new; an existing one keeps its own.
    pub lineage: Lineage,
    /// Bytes of segments kept at most, as far as nothing needs more; 0 for no bound.
    pub retain_bytes: u64,
    /// Age at which a segment may go, in nanoseconds; 0 for never.
    pub retain_ns: u64,
}

impl JournalOptions {
    /// Smallest segment.
    pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
    /// Largest segment.
    pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, lineage: 0, retain_bytes: 0, retain_ns: 0 }
    }
}

/// A point of a log, between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The log's history.
    pub lineage: Lineage,
    /// Offset of the record behind it.
    pub offset: u64,
    /// Hash over everything in front of it.
    pub chain: Chain,
    /// Epoch of the last record in front of it.
    pub epoch: u32,
}

/// Why a log does not go on from a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointError {
    /// The point is of another history.
    #[error("it is of the lineage {point:032x}, the journal's is {log:032x}")]
    Lineage {
        /// The point's.
        point: Lineage,
        /// The log's.
        log: Lineage,
    },
    /// What lies between them was removed.
    #[error("it is of offset {offset}, the journal begins at {first}: what lies between is not there")]
    Before {
        /// The point's.
        offset: u64,
        /// The log's first.
        first: u64,
    },
    /// The log ends in front of the point: it has lost what was there once.
    #[error("it is of offset {offset}, the journal ends at {end}: what was behind that is lost")]
    Beyond {
        /// The point's.
        offset: u64,
        /// The log's end.
        end: u64,
    },
    /// The records in front of the point are others.
    #[error("the journal has other records in front of offset {offset}")]
    Chain {
        /// The point's.
        offset: u64,
    },
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Reading it failed; it is as it was.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A segment of a size that is not allowed.
    #[error("segments of {0} bytes; allowed are {min} to {max}", min = JournalOptions::SEGMENT_BYTES_MIN, max = JournalOptions::SEGMENT_BYTES_MAX)]
    SegmentBytes(u64),
    /// What is torn could not be cut off, or a first segment not be made.
    #[error("the journal could not be made ready for writing")]
    Prepare(#[source] io::Error),
    /// The state to go on from is not one of this log. Nothing was changed.
    #[error("the snapshot does not belong to the journal: {0}")]
    Point(#[from] PointError),
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// There is no room now; the same call may succeed later.
    #[error("the disk is full")]
    Full(#[source] io::Error),
    /// The log is elsewhere, and cannot be reached now; the same call may succeed later.
    #[error("the log cannot be reached")]
    Away(#[source] io::Error),
    /// The disk failed. What it holds is not known any more, so this journal takes nothing until it is opened, and read, anew.
    #[error(
        "the journal's disk failed; nothing more is acknowledged as durable until the journal is read anew"
    )]
    Failed(#[source] io::Error),
    /// The disk failed before.
    #[error("the journal's disk failed before")]
    FailedBefore,
    /// An epoch older than the newest.
    #[error("epoch {epoch} of a batch is older than {newest}")]
    Epoch {
        /// Of the batch.
        epoch: u32,
        /// The newest.
        newest: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    info: SegmentInfo,
    bytes: u64,
    newest_ns: u64,
}

/// A journal open for writing.
#[derive(Debug)]
pub struct Journal<S> {
    storage: S,
    options: JournalOptions,
    /// All segments, the last one being written.
    segments: VecDeque<Segment>,
    /// Where in the last segment the next byte goes that is handed to the system.
    at: u64,
    /// Encoded and not handed to the system yet.
    pending: Vec<u8>,
    lineage: Lineage,
    next_offset: u64,
    written_offset: u64,
    synced_offset: u64,
    chain: Chain,
    epoch: u32,
    failed: bool,
}

impl<S: Storage> Journal<S> {
    /// Reads what is there, hands it to `visit`, cuts off what is torn, and goes on behind it.
    ///
    /// # Errors
    /// [`OpenError::Scan`] when it is damaged; then nothing was changed.
    pub fn open(
        storage: S,
        options: JournalOptions,
        now_ns: u64,
        visit: impl FnMut(BatchView<'_>),
    ) -> Result<(Self, Option<Scan>), OpenError> {
        Self::open_from(storage, options, None, now_ns, visit)
    }

    /// As [`Journal::open`], of what lies behind a point whose state is known. Segments in front of the one that holds it are not
    /// read.
    ///
    /// # Errors
    /// As [`Journal::open`], and [`OpenError::Point`] when the log does not go on from there.
    pub fn open_from(
        mut storage: S,
        options: JournalOptions,
        point: Option<Point>,
        now_ns: u64,
        mut visit: impl FnMut(BatchView<'_>),
    ) -> Result<(Self, Option<Scan>), OpenError> {
        let allowed = JournalOptions::SEGMENT_BYTES_MIN..=JournalOptions::SEGMENT_BYTES_MAX;
        if !allowed.contains(&options.segment_bytes) {
            return Err(OpenError::SegmentBytes(options.segment_bytes));
        }
        if let Some(Point { lineage, offset, .. }) = point {
            let (log, first) = begin(&mut storage)?.unwrap_or((lineage, 0));
            if log != lineage {
                return Err(PointError::Lineage { point: lineage, log }.into());
            }
            if first > offset {
                return Err(PointError::Before { offset, first }.into());
            }
        }
        let (from, chain) = point.map_or((0, None), |point| (point.offset, Some(point.chain)));
        let found = scan_from(&mut storage, from, chain, |batch| {
            visit(batch);
            ControlFlow::Continue(())
        })?;
        if let Some(chain) = chain {
            let end = found.as_ref().map_or(0, |scan| scan.next_offset);
            if end < from {
                return Err(PointError::Beyond { offset: from, end }.into());
            }
            if found.as_ref().map_or(Some(Chain::default()), |scan| scan.chain_from) != Some(chain) {
                return Err(PointError::Chain { offset: from }.into());
            }
        }
        let mut segments = VecDeque::new();
        let (lineage, next_offset, chain, epoch, at) = match &found {
            None => {
                let info = SegmentInfo {
                    lineage: options.lineage,
                    index: 0,
                    first_offset: 0,
                    previous: Chain::default(),
                    bytes: options.segment_bytes,
                    created_ns: now_ns,
                    epoch: 0,
                };
                storage.create(0, info.bytes, &info.encode()).map_err(OpenError::Prepare)?;
                segments.push_back(Segment { info, bytes: info.bytes, newest_ns: now_ns });
                (options.lineage, 0, Chain::default(), 0, SEGMENT_HEADER_BYTES as u64)
            }
            Some(scan) => {
                for segment in &scan.segments {
                    let bytes = storage.bytes(segment.info.index).map_err(OpenError::Prepare)?;
                    segments.push_back(Segment { info: segment.info, bytes, newest_ns: segment.newest_ns });
                }
                let last = scan
                    .segments
                    .last()
                    .map_or((0, 0, 0), |last| (last.info.index, last.used, last.info.bytes));
                let (index, used, bytes) = last;
                // A copy may have come without the zeros at its end.
                let short = segments.back().is_some_and(|segment| segment.bytes < bytes);
                if scan.tail != Tail::Clean || short {
                    storage.clear(index, used, bytes).map_err(OpenError::Prepare)?;
                    segments.iter_mut().filter(|segment| segment.info.index == index).for_each(|segment| {
                        segment.bytes = bytes;
                    });
                }
                // What was read may be in the system's memory only.
                storage.sync(index).map_err(OpenError::Prepare)?;
                (scan.lineage, scan.next_offset, scan.chain, scan.epoch, used)
            }
        };
        let journal = Self {
            storage,
            options,
            segments,
            at,
            pending: Vec::new(),
            lineage,
            next_offset,
            written_offset: next_offset,
            synced_offset: next_offset,
            chain,
            epoch,
            failed: false,
        };
        Ok((journal, found))
    }

    fn last(&self) -> (u64, u64) {
        self.segments.back().map_or((0, 0), |segment| (segment.info.index, segment.bytes))
    }

    /// Takes a batch in and returns the offset of its first record; an empty one is nothing. It is on its way with
    /// [`Journal::write`] and on disk with [`Journal::sync`].
    ///
    /// # Errors
    /// [`AppendError`]; then the batch was not taken.
    pub fn append(&mut self, batch: &Batch, epoch: u32, ingest_ns: u64) -> Result<u64, AppendError> {
        if self.failed {
            return Err(AppendError::FailedBefore);
        }
        if epoch < self.epoch {
            return Err(AppendError::Epoch { epoch, newest: self.epoch });
        }
        if batch.is_empty() {
            return Ok(self.next_offset);
        }
        let body = batch.body();
        if self.at + (self.pending.len() + extent(body.len())) as u64 > self.last().1 {
            self.roll(epoch, ingest_ns, (SEGMENT_HEADER_BYTES + extent(body.len())) as u64)?;
        }
        let mut info = BatchInfo {
            first_offset: self.next_offset,
            epoch,
            count: batch.count(),
            unsynced: u32::try_from(self.next_offset - self.synced_offset).unwrap_or(u32::MAX),
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body),
            ingest_ns,
            chain: Chain::default(),
            zero_sectors: zero_sectors(self.at + (self.pending.len() + BATCH_HEADER_BYTES) as u64, body),
        };
        info.chain = info.chained(&self.chain, body);
        let end = self.pending.len() + info.extent();
        self.pending.extend_from_slice(&info.encode());
        self.pending.extend_from_slice(body);
        self.pending.resize(end, 0);
        (self.next_offset, self.chain, self.epoch) = (info.end(), info.chain, epoch);
        if let Some(segment) = self.segments.back_mut() {
            segment.newest_ns = segment.newest_ns.max(ingest_ns);
        }
        Ok(info.first_offset)
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// [`AppendError::Full`], and the next call tries the same again; or [`AppendError::Failed`].
    pub fn write(&mut self) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::FailedBefore);
        }
        if !self.pending.is_empty() {
            let (index, _) = self.last();
            self.storage.write(index, self.at, &self.pending).map_err(|error| self.fault(error))?;
            self.at += self.pending.len() as u64;
            self.pending.clear();
        }
        self.written_offset = self.next_offset;
        Ok(())
    }

    /// Writes, and waits until all of it is on disk.
    ///
    /// # Errors
    /// As [`Journal::write`]. After a failed sync nothing can be known, so there is no second try.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.write()?;
        if self.synced_offset < self.next_offset {
            let (index, _) = self.last();
            if let Err(error) = self.storage.sync(index) {
                self.failed = true;
                return Err(AppendError::Failed(error));
            }
            self.synced_offset = self.next_offset;
        }
        Ok(())
    }

    fn fault(&mut self, error: io::Error) -> AppendError {
        if is_full(&error) {
            return AppendError::Full(error);
        }
        self.failed = true;
        AppendError::Failed(error)
    }

    /// Ends the last segment, on disk, and begins the next.
    fn roll(&mut self, epoch: u32, now_ns: u64, least: u64) -> Result<(), AppendError> {
        self.sync()?;
        let info = SegmentInfo {
            lineage: self.lineage,
            index: self.last().0 + 1,
            first_offset: self.next_offset,
            previous: self.chain,
            bytes: self.options.segment_bytes.max(least),
            created_ns: now_ns,
            epoch,
        };
        self.storage.create(info.index, info.bytes, &info.encode()).map_err(|error| self.fault(error))?;
        self.segments.push_back(Segment { info, bytes: info.bytes, newest_ns: now_ns });
        self.at = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Removes the oldest segments that are over the bounds and hold nothing from offset `needed` on; returns how many. A
    /// segment's age is that of its newest record.
    ///
    /// # Errors
    /// What the system says; the journal stays good.
    pub fn retain(&mut self, needed: u64, now_ns: u64) -> io::Result<usize> {
        let mut removed = 0;
        while let [first, second] = [self.segments.front(), self.segments.get(1)]
            && let (Some(first), Some(second)) = (first, second)
        {
            let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            let over = self.options.retain_bytes > 0 && bytes > self.options.retain_bytes;
            let old =
                self.options.retain_ns > 0 && now_ns.saturating_sub(first.newest_ns) > self.options.retain_ns;
            if !(over || old) || second.info.first_offset > needed {
                break;
            }
            let index = first.info.index;
            self.storage.remove(index)?;
            self.segments.pop_front();
            removed += 1;
        }
        Ok(removed)
    }

    /// Its history.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Offset of the oldest record.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.segments.front().map_or(0, |segment| segment.info.first_offset)
    }

    /// Offset the next record gets.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Records below this are with the system.
    #[must_use]
    pub fn written_offset(&self) -> u64 {
        self.written_offset
    }

    /// Records below this are on disk.
    #[must_use]
    pub fn synced_offset(&self) -> u64 {
        self.synced_offset
    }

    /// Hash over everything taken.
    #[must_use]
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Newest epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Bytes taken and not handed to the system.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of them, as set aside.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Where it stands.
    #[must_use]
    pub fn point(&self) -> Point {
        Point { lineage: self.lineage, offset: self.next_offset, chain: self.chain, epoch: self.epoch }
    }

    /// Bytes that could still be written to the disk beside what is set aside.
    ///
    /// # Errors
    /// What the system says.
    pub fn free_bytes(&mut self) -> io::Result<u64> {
        self.storage.free_bytes()
    }
}
