//! Where segments lie: a folder, or a simulated disk.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Files by number, with exactly the calls whose failures a journal must survive.
pub trait Storage: Send {
    /// Numbers of all segments, ascending.
    ///
    /// # Errors
    /// What the system says; as of all calls.
    fn segments(&mut self) -> io::Result<Vec<u64>>;

    /// Makes a segment of `bytes` bytes: `header`, then zeros. When this returns it is there for good, whole; when it fails it
    /// is not there.
    ///
    /// # Errors
    /// As [`Storage::segments`]; `StorageFull` and `QuotaExceeded` when there is no room.
    fn create(&mut self, index: u64, bytes: u64, header: &[u8]) -> io::Result<()>;

    /// Bytes of a segment.
    ///
    /// # Errors
    /// As [`Storage::segments`].
    fn bytes(&mut self, index: u64) -> io::Result<u64>;

    /// Reads at `at`; fewer bytes than asked for at the end only.
    ///
    /// # Errors
    /// As [`Storage::segments`].
    fn read(&mut self, index: u64, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes at `at`. Not for good before [`Storage::sync`].
    ///
    /// # Errors
    /// As [`Storage::create`]; then any part of it may have been written.
    fn write(&mut self, index: u64, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// What was written to the segment is there for good when this returns. When it fails, any part of it may be lost, and a
    /// later success says nothing about that part.
    ///
    /// # Errors
    /// As [`Storage::segments`].
    fn sync(&mut self, index: u64) -> io::Result<()>;

    /// Zeros from `from` on, up to a length of `bytes`, for good.
    ///
    /// # Errors
    /// As [`Storage::create`].
    fn clear(&mut self, index: u64, from: u64, bytes: u64) -> io::Result<()>;

    /// Removes a segment for good.
    ///
    /// # Errors
    /// As [`Storage::segments`].
    fn remove(&mut self, index: u64) -> io::Result<()>;

    /// Bytes that could still be written.
    ///
    /// # Errors
    /// As [`Storage::segments`].
    fn free_bytes(&mut self) -> io::Result<u64>;
}

/// Whether an error says that there is no room, which passes.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A folder of the file system. Segment 7 is `0000000000000007.tgj`.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// Held as long as we write: two writers would destroy each other's journal.
    _lock: Option<File>,
    open: Option<(u64, File)>,
    syncs: Arc<SyncTimes>,
}

/// How long syncs take, readable from anywhere.
#[derive(Debug, Default)]
pub struct SyncTimes {
    count: AtomicU64,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    last_ns: AtomicU64,
}

/// [`SyncTimes`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Syncs.
    pub count: u64,
    /// Time of all of them, in nanoseconds.
    pub sum_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The last.
    pub last_ns: u64,
}

impl SyncTimes {
    fn took(&self, ns: u64) {
        // One thread writes.
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
        self.sum_ns.store(self.sum_ns.load(Relaxed).saturating_add(ns), Relaxed);
        self.max_ns.store(self.max_ns.load(Relaxed).max(ns), Relaxed);
        self.last_ns.store(ns, Relaxed);
    }

    /// As they are now.
    #[must_use]
    pub fn stats(&self) -> SyncStats {
        SyncStats {
            count: self.count.load(Relaxed),
            sum_ns: self.sum_ns.load(Relaxed),
            max_ns: self.max_ns.load(Relaxed),
            last_ns: self.last_ns.load(Relaxed),
        }
    }
}

const SUFFIX: &str = ".tgj";
const LOCK: &str = "lock";

impl Disk {
    /// The journal in a folder, for writing; the folder is made if need be.
    ///
    /// # Errors
    /// `WouldBlock` when another process writes it; else what the system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => {
                io::Error::new(ErrorKind::WouldBlock, "another process writes this journal")
            }
            std::fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: Some(lock), open: None, syncs: Arc::default() })
    }

    /// The journal in a folder, to look at; also while it is being written.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open_read_only(folder: &Path) -> io::Result<Self> {
        std::fs::read_dir(folder)?;
        Ok(Self { folder: folder.to_owned(), _lock: None, open: None, syncs: Arc::default() })
    }

    /// How long its syncs take.
    #[must_use]
    pub fn sync_times(&self) -> Arc<SyncTimes> {
        Arc::clone(&self.syncs)
    }

    fn path(&self, index: u64) -> PathBuf {
        self.folder.join(format!("{index:016}{SUFFIX}"))
    }

    fn file(&mut self, index: u64) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            let file = OpenOptions::new().read(true).write(self._lock.is_some()).open(self.path(index))?;
            self.open = Some((index, file));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or_else(|| io::Error::other("no file is open"))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Sets aside room for a file, so that writes into it cannot run out of it, and lets it read as zeros.
fn set_aside(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system without it; a full disk is then noticed by the write.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

impl Storage for Disk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX))
                && number.len() == 16
                && let Ok(index) = number.parse()
            {
                found.push(index);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn create(&mut self, index: u64, bytes: u64, header: &[u8]) -> io::Result<()> {
        let path = self.path(index);
        let part = path.with_extension("part");
        let made = (|| {
            let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&part)?;
            set_aside(&file, bytes)?;
            file.write_all_at(header, 0)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            self.sync_folder()?;
            Ok(file)
        })();
        match made {
            Ok(file) => {
                self.open = Some((index, file));
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(&part);
                Err(error)
            }
        }
    }

    fn bytes(&mut self, index: u64) -> io::Result<u64> {
        Ok(self.file(index)?.metadata()?.len())
    }

    fn read(&mut self, index: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.file(index)?;
        let mut done = 0;
        while done < into.len() {
            match file.read_at(&mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write(&mut self, index: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(index)?.write_all_at(bytes, at)
    }

    fn sync(&mut self, index: u64) -> io::Result<()> {
        let begun = Instant::now();
        self.file(index)?.sync_data()?;
        self.syncs.took(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn clear(&mut self, index: u64, from: u64, bytes: u64) -> io::Result<()> {
        let file = self.file(index)?;
        file.set_len(from)?;
        set_aside(file, bytes)?;
        file.sync_all()
    }

    fn remove(&mut self, index: u64) -> io::Result<()> {
        self.open.take_if(|(open, _)| *open == index);
        std::fs::remove_file(self.path(index))?;
        self.sync_folder()
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
