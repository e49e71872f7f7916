//! The journal: the input log on disk, so that what was acknowledged as `durable` outlives the process and the power.
//!
//! **Invariant:** a journal is recovered as it was, or refused with the place of the damage; nothing is guessed. The format
//! ([`format`](mod@format), [`entry`], [`scan`](mod@scan)) does no I/O of its own, the rest does it through [`Storage`], so tests run the same
//! code on a simulated disk that tears, flips, fills and fails.
#![forbid(unsafe_code)]

pub mod entry;
pub mod format;

pub mod storage;

pub mod scan;

pub mod journal;

pub mod commit;
pub mod log_store;
pub mod writer;

pub mod snapshot;

pub mod sim;

pub use commit::{Committer, Health, Positions, SyncPolicy};
pub use entry::{Batch, Entry, EntryError};
pub use format::{Lineage, SEGMENT_HEADER_BYTES, VERSION};
pub use journal::{AppendError, Journal, JournalOptions, OpenError, Point, PointError};
pub use log_store::{Extent, LogStore, Remote, RemoteError};
pub use scan::{BatchView, Damage, Scan, ScanError, Tail, scan, scan_from};
pub use snapshot::{Snapshot, SnapshotFault, SnapshotFile, SnapshotFileError, SnapshotFolder, SnapshotInfo};
pub use storage::{Disk, Storage, SyncStats, SyncTimes};
pub use writer::{Writer, WriterOptions, WriterStats};
