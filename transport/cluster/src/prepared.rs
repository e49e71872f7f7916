//! A node's folder before its engine starts: whose it is, what of each group's log is there, and which snapshots go with it.
//!
//! `log/` and `snapshots/` are the first group's, those of group G are in `group-G/`.

use crate::config::{ClusterConfig, ClusterError, Incarnations};
use crate::copies::Held;
use crate::kept::{Found, Kept, Lossy, Opening, boot};
use crate::links::Speaks;
use crate::machine::Inputs;
use crate::node::{Recovered, Snapshotting};
use crate::snapshots::{FOLDER, base_of, place_of};
use bytes::Bytes;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tidegate_journal::SnapshotFolder;
use tidegate_live::SnapshotSettings;
use tidegate_replica::{Base, Fit, GroupId, Log, Rules, SLOTS, Slots};

/// A node's folder, locked, with its logs read.
pub struct Prepared {
    dir: PathBuf,
    lock: File,
    speaks: Speaks,
    /// By number; `None` for those that other nodes hold.
    groups: Vec<Option<PreparedGroup>>,
    held: Held,
}

/// What is there of one group.
pub(crate) struct PreparedGroup {
    /// The folder with its log and snapshots.
    dir: PathBuf,
    kept: Kept,
    found: Found,
}

/// What a replica begins with.
pub(crate) struct Begins {
    pub(crate) kept: Kept,
    /// The folder of its snapshots.
    pub(crate) snapshots: PathBuf,
    pub(crate) lineage: u64,
    pub(crate) base: Base<Inputs>,
    pub(crate) log: Log<Bytes>,
    pub(crate) lossy: bool,
    /// Where it says that it is, until metadata knows.
    pub(crate) mark: Lossy,
    pub(crate) recovered: Recovered,
}

impl Prepared {
    /// Opens a node's folder. Snapshots that do not go with their group's log are removed: they are of a history that is over.
    ///
    /// # Errors
    /// [`ClusterError`] when it is no node's, or another process has it, or what is in it cannot be used.
    pub fn of(dir: &Path) -> Result<Self, ClusterError> {
        let config = ClusterConfig::read(dir)?;
        let (node, _) = config.here(dir)?;
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
        let before = Incarnations::of(dir).last()? > 0;
        let opening = Opening { boot: boot(), durable: config.durable, before };
        let held = Held::of(dir, &config, node)?;
        held.clear().map_err(at("remove what is left in", dir))?;
        let groups = (0..).zip(held.groups()).map(|(group, held)| {
            let open = || PreparedGroup::of(place(dir, group), opening);
            held.then(open).transpose()
        });
        Ok(Self {
            dir: dir.to_owned(),
            lock,
            speaks: Speaks::Newest,
            groups: groups.collect::<Result<_, _>>()?,
            held,
        })
    }

    /// For a node that speaks to others as this says.
    #[must_use]
    pub fn speaking(self, speaks: Speaks) -> Self {
        Self { speaks, ..self }
    }

    pub(crate) fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> u16 {
        self.groups.len() as u16
    }

    /// The group of each slot.
    #[must_use]
    pub fn slots(&self) -> Vec<GroupId> {
        let slots = Slots::even(self.groups.len());
        (0..SLOTS).map(|slot| slots.group_of(slot)).collect()
    }

    /// The folders of snapshots, by group; `None` for those that other nodes hold.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Option<PathBuf>> {
        self.groups.iter().map(|group| group.as_ref().map(PreparedGroup::snapshots)).collect()
    }

    /// The lock, for as long as anything here is used, the groups, and which of them are held.
    pub(crate) fn into_parts(self) -> (File, Vec<Option<PreparedGroup>>, Held) {
        (self.lock, self.groups, self.held)
    }
}

/// Where a group's log and snapshots are.
pub(crate) fn place(dir: &Path, group: GroupId) -> PathBuf {
    if group == 0 { dir.to_owned() } else { dir.join(format!("group-{group}")) }
}

fn at(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::File { act, path, source }
}

impl PreparedGroup {
    fn of(dir: PathBuf, opening: Opening) -> Result<Self, ClusterError> {
        let path = dir.join("log");
        let (kept, found) = Kept::open(&path, 0, opening).map_err(at("use", &path))?;
        let prepared = Self { dir, kept, found };
        let path = prepared.snapshots();
        prepared.sort_out().map_err(at("use", &path))?;
        Ok(prepared)
    }

    fn snapshots(&self) -> PathBuf {
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

    /// Whether there is a sound snapshot of other settings.
    fn has_foreign(&self, settings: &SnapshotSettings) -> bool {
        let files = SnapshotFolder::new(&self.snapshots()).list().unwrap_or_default();
        files.iter().filter_map(|file| file.info().ok()).any(|info| !settings.fit(info.settings))
    }

    /// Puts together what the engine began with and what the log has. `lineage` is metadata's.
    pub(crate) fn begin(self, lineage: u64, of: &Snapshotting) -> Result<Begins, ClusterError> {
        let point = of.point;
        if point.is_none() && self.found.log.base() > 0 && self.has_foreign(&of.settings) {
            // A mistake in the settings of all nodes must not cost all copies.
            return Err(ClusterError::Settings { path: self.snapshots() });
        }
        let snapshots = self.snapshots();
        let Self { dir, mut kept, found } = self;
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
        let mark = Lossy::of(&path);
        match base.point().fit(of, &log, Rules::default()) {
            Fit::Follows => {}
            Fit::Useless if log.base() == 0 => {}
            fit => {
                lossy = fit != Fit::Replaces { lossy: false };
                if lossy {
                    mark.set().map_err(failed)?;
                }
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
        Ok(Begins { kept, snapshots, lineage: of, base, log, lossy, mark, recovered })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Founding, NodePlace};
    use tidegate_journal::{Point, SnapshotInfo};
    use tidegate_live::SnapshotOptions;
    use tidegate_replica::{Body, Entry};

    const MINE: [u8; 16] = [1; 16];

    fn entry(sequence: u64) -> Entry<Bytes> {
        Entry { epoch: 1, body: Body::Input { source: 0, sequence, input: Bytes::from_static(b"input") } }
    }

    fn snapshotting(settings: [u8; 16], point: Option<Point>) -> Snapshotting {
        Snapshotting { when: SnapshotOptions::default(), settings: settings.into(), point }
    }

    /// A node whose log begins at 40 and ends at 50, with a snapshot of offset 45 and one of another history.
    fn folder() -> (tempfile::TempDir, PathBuf, Point) {
        let folder = tempfile::tempdir().unwrap();
        let at = |port| ([127, 0, 0, 1], port).into();
        let place = |port| NodePlace { peers: at(port), clients: at(port + 100) };
        let nodes = [(1, place(7_501)), (2, place(7_502))].into();
        ClusterConfig::init(
            folder.path(),
            nodes,
            Founding { min_isr: 2, groups: 2, durable: false, copies: 0 },
            30,
            1_700_000_000,
        )
        .unwrap();
        let dir = folder.path().join("node-1");
        let (mut kept, _) =
            Kept::open(&dir.join("log"), 1, Opening { boot: boot(), durable: false, before: false }).unwrap();
        kept.reset(2, 40, 1).unwrap();
        kept.write(40, &(41..=50).map(entry).collect::<Vec<_>>()).unwrap();
        std::fs::create_dir(dir.join(FOLDER)).unwrap();
        let point = Point { lineage: 2, offset: 45, chain: [3; 16], epoch: 1 };
        for point in [point, Point { lineage: 1, offset: 48, epoch: 9, ..point }] {
            let info = SnapshotInfo { point, settings: MINE, ..SnapshotInfo::default() };
            SnapshotFolder::new(&dir.join(FOLDER)).write(info, &[]).unwrap();
        }
        (folder, dir, point)
    }

    #[test]
    fn a_node_goes_on_from_its_snapshot_and_the_log_behind_it() {
        let (_folder, dir, point) = folder();
        let prepared = Prepared::of(&dir).unwrap();
        assert_eq!(prepared.snapshots(), [dir.join(FOLDER), dir.join("group-1").join(FOLDER)].map(Some));
        let left: Vec<u64> = SnapshotFolder::new(prepared.snapshots()[0].as_ref().unwrap())
            .list()
            .unwrap()
            .iter()
            .map(|file| file.offset)
            .collect();
        assert_eq!(left, [45], "the one of another history is gone");
        assert!(matches!(Prepared::of(&dir), Err(ClusterError::Taken { .. })), "two processes in one folder");
        let (_lock, groups, _) = prepared.into_parts();
        let [first, second] =
            <[Option<PreparedGroup>; 2]>::try_from(groups).ok().unwrap().map(Option::unwrap);
        let begins = first.begin(7, &snapshotting(MINE, Some(point))).unwrap();
        assert_eq!((begins.lineage, begins.base.offset, begins.log.end(), begins.lossy), (2, 45, 50, false));
        let empty = second.begin(7, &snapshotting(MINE, None)).unwrap();
        assert_eq!((empty.lineage, empty.base.offset, empty.log.end(), empty.lossy), (7, 0, 0, false));
        assert_eq!(empty.snapshots, dir.join("group-1").join(FOLDER));
        assert_eq!(begins.base.committed[&0], u64::from_le_bytes([3; 8]));
    }

    fn first(dir: &Path) -> PreparedGroup {
        Prepared::of(dir).unwrap().into_parts().1.swap_remove(0).unwrap()
    }

    #[test]
    fn other_settings_cost_no_copy_and_a_lost_snapshot_begins_anew() {
        let (_folder, dir, _) = folder();
        let refused = first(&dir).begin(2, &snapshotting([9; 16], None)).err().unwrap();
        assert!(matches!(refused, ClusterError::Settings { .. }), "{refused}");
        assert_eq!(first(&dir).found.log.end(), 50, "nothing was changed");
        std::fs::remove_dir_all(dir.join(FOLDER)).unwrap();
        let begins = first(&dir).begin(2, &snapshotting(MINE, None)).unwrap();
        assert_eq!((begins.base.offset, begins.log.end(), begins.lossy), (0, 0, true));
    }
}
