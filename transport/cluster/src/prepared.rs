//! A node's folder before its engine starts: whose it is, what of the log is there, and which snapshots go with it.

use crate::config::{ClusterConfig, ClusterError};
use crate::kept::{Found, Kept, boot};
use crate::machine::Inputs;
use crate::node::Recovered;
use crate::snapshots::{FOLDER, base_of, place_of};
use bytes::Bytes;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tidegate_journal::{Point, SnapshotFolder};
use tidegate_replica::{Base, Fit, Log, Rules};

/// A node's folder, locked, with its log read.
pub struct Prepared {
    dir: PathBuf,
    lock: File,
    kept: Kept,
    found: Found,
}

/// What a replica begins with.
pub(crate) struct Begins {
    pub(crate) lock: File,
    pub(crate) kept: Kept,
    pub(crate) lineage: u64,
    pub(crate) base: Base<Inputs>,
    pub(crate) log: Log<Bytes>,
    pub(crate) lossy: bool,
    pub(crate) recovered: Recovered,
}

impl Prepared {
    /// Opens a node's folder. Snapshots that do not go with its log are removed: they are of a history that is over.
    ///
    /// # Errors
    /// [`ClusterError`] when it is no node's, or another process has it, or what is in it cannot be used.
    pub fn of(dir: &Path) -> Result<Self, ClusterError> {
        ClusterConfig::read(dir)?.here(dir)?;
        let at = |act, path: &Path| {
            let path = path.to_owned();
            move |source| ClusterError::File { act, path, source }
        };
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(at("write", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ClusterError::Taken { path: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
        }
        let path = dir.join("log");
        adopt(dir, &path).map_err(at("use", &path))?;
        let (kept, found) = Kept::open(&path, 0, boot()).map_err(at("use", &path))?;
        let prepared = Self { dir: dir.to_owned(), lock, kept, found };
        let path = prepared.snapshots();
        prepared.sort_out().map_err(at("use", &path))?;
        Ok(prepared)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of its snapshots.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.dir.join(FOLDER)
    }

    fn sort_out(&self) -> io::Result<()> {
        for file in SnapshotFolder::new(&self.snapshots()).list()? {
            // One that is damaged is dealt with by whoever reads all of it.
            let Ok(info) = file.info() else { continue };
            let place = place_of(&info.point);
            if place.fit(self.found.lineage, &self.found.log, Rules::default()) == Fit::Useless {
                std::fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    /// Puts together what the engine began with and what the log has. `lineage` is metadata's.
    pub(crate) fn begin(self, lineage: u64, point: Option<Point>) -> Result<Begins, ClusterError> {
        let Self { dir, lock, mut kept, found } = self;
        let path = dir.join("log");
        let failed = |source| ClusterError::File { act: "write", path: path.clone(), source };
        let mut recovered = Recovered {
            entries: found.log.entries().len() as u64,
            whole: found.whole,
            damaged: found.damaged,
            torn: found.torn,
            snapshot: point.map(|point| point.offset),
        };
        let base = point.map_or_else(Base::default, |point| base_of(&point));
        let mut log = found.log;
        let (mut of, mut lossy) = (found.lineage, false);
        match base.point().fit(of, &log, Rules::default()) {
            Fit::Follows => {}
            Fit::Useless if log.base() == 0 => {}
            fit => {
                lossy = fit != Fit::Replaces { lossy: false };
                if let Fit::Replaces { .. } = fit {
                    of = of.max(base.lineage);
                }
                kept.reset(of, base.offset, base.epoch).map_err(failed)?;
                log = Log::behind(base.offset, base.epoch, Vec::new());
                recovered.entries = 0;
            }
        }
        if of == 0 {
            // Nothing was there.
            of = lineage;
            kept.set_lineage(lineage).map_err(failed)?;
        }
        Ok(Begins { lock, kept, lineage: of, base, log, lossy, recovered })
    }
}

/// Takes over the one file that the log was in before there were segments.
fn adopt(dir: &Path, folder: &Path) -> io::Result<()> {
    let old = dir.join("log.tgr");
    if old.exists() && !folder.exists() {
        std::fs::create_dir(folder)?;
        std::fs::rename(old, folder.join(format!("{:020}.tgr", 0)))?;
    }
    Ok(())
}
