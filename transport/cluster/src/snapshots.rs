//! Snapshots of a node in its folder: when they are due, what others want of them, and the one that is fetched from a leader.

use crate::machine::Inputs;
use crate::node::Snapshotting;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidegate_journal::{Point, SnapshotFile, SnapshotFolder, SnapshotInfo};
use tidegate_live::replication::Written;
use tidegate_live::{SnapshotOptions, SnapshotSettings};
use tidegate_replica::wire::CHUNK_BYTES_MAX;
use tidegate_replica::{Base, Machine, Member, SnapshotId};

/// The folder in a node's folder.
pub(crate) const FOLDER: &str = "snapshots";
/// What is fetched, until it is whole.
const FETCHED: &str = "fetched.part";
/// Bytes of the hash at the end of a snapshot.
const HASH_BYTES: u64 = 32;
/// Bytes of snapshots sent to all nodes together, of all groups, in a second.
const BYTES_S: f64 = (64 << 20) as f64;
/// Bytes that may be sent at once after a pause.
const BURST: f64 = (2 << 20) as f64;
/// Part of a group's log after which the next one is due at the latest.
const SNAPSHOTS_OF_LOG: u64 = 8;
/// Ticks until the next one is tried, after one was given up.
const AGAIN_TICKS: u64 = 500;
/// Ticks that one is kept after a node asked for a piece of it, as long as the log behind it is: a minute.
const HELD_TICKS: u64 = 3_000;
/// Bytes that must stay free behind what is fetched.
const RESERVE_BYTES: u64 = 64 << 20;

/// The replica's history of a point: its low half; the high one is the cluster.
pub(crate) fn place_of(point: &Point) -> tidegate_replica::Point {
    tidegate_replica::Point { lineage: point.lineage as u64, offset: point.offset, epoch: point.epoch }
}

/// What a replica begins with, of the point of a snapshot: chain of the inputs and how many there were.
pub(crate) fn base_of(point: &Point) -> Base<Inputs> {
    let (chain, count) = point.chain.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let tidegate_replica::Point { lineage, offset, epoch } = place_of(point);
    let machine = Inputs::behind(word(chain));
    Base { lineage, offset, epoch, machine, committed: [(crate::driver::SOURCE, word(count))].into() }
}

/// The hash of a snapshot, or the settings of one that is of no use here.
pub(crate) type Checked = io::Result<Result<[u8; 32], String>>;

/// What may be sent of snapshots now: bytes, and as of when.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Mutex<(f64, Instant)>>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((BURST, Instant::now()))))
    }

    /// Whether there is room for so many bytes.
    fn has(&self, bytes: usize) -> bool {
        let (left, refilled) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(*refilled).as_secs_f64() * BYTES_S;
        (*left, *refilled) = ((*left + gained).min(BURST), now);
        *left >= bytes as f64
    }

    fn spend(&self, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 -= bytes as f64;
    }
}

pub(crate) struct Snapshots {
    folder: SnapshotFolder,
    path: PathBuf,
    cluster: u64,
    when: SnapshotOptions,
    settings: SnapshotSettings,
    /// Bytes and records ordered since the last one, and its tick.
    since: (u64, u64),
    tick: u64,
    busy: bool,
    problem: Option<String>,
    /// Those that are being sent, and the tick at which a piece was last asked for. Whoever writes newer ones removes the older: what is
    /// open is there until it is closed, so a node that fetches slowly need not begin anew.
    open: Vec<(SnapshotId, File, u64)>,
    wanted: VecDeque<(Member, SnapshotId, u64)>,
    budget: Budget,
    fetched: Option<File>,
}

impl Snapshots {
    /// Those in `path`. All groups of a node have one budget; `log_bytes_max` is what the group's log may grow to.
    pub(crate) fn new(
        path: &Path,
        cluster: &str,
        budget: Budget,
        of: Snapshotting,
        log_bytes_max: u64,
    ) -> Self {
        let path = path.to_owned();
        // A log is cut behind the older of two, so that of one of many groups would be full before the second of them were due.
        let most = log_bytes_max / SNAPSHOTS_OF_LOG;
        let every_bytes = match of.when.every_bytes {
            0 if of.when.every_records == 0 && of.when.every_ns == 0 => 0,
            0 => most,
            bytes => bytes.min(most),
        };
        let _ = std::fs::remove_file(path.join(FETCHED));
        Self {
            folder: SnapshotFolder::new(&path),
            path,
            cluster: u64::from_str_radix(cluster, 16).unwrap_or(0),
            when: SnapshotOptions { every_bytes, ..of.when },
            settings: of.settings,
            since: (0, 0),
            tick: 0,
            busy: false,
            problem: None,
            open: Vec::new(),
            wanted: VecDeque::new(),
            budget,
            fetched: None,
        }
    }

    /// How many there are to be before anything of the log is cut off.
    pub(crate) fn least(&self) -> usize {
        self.when.keep.clamp(1, 2)
    }

    /// Inputs of so many bytes and records were ordered.
    pub(crate) fn ordered(&mut self, (bytes, records): (u64, u64)) {
        self.since = (self.since.0 + bytes, self.since.1 + records);
    }

    /// Whether it is time for one; `full` if the log takes nothing more and one now would let it be cut.
    pub(crate) fn is_due(&self, tick: u64, full: bool) -> bool {
        let SnapshotOptions { every_bytes, every_records, every_ns, .. } = self.when;
        let ticks = every_ns / u64::try_from(crate::driver::TICK.as_nanos()).unwrap_or(u64::MAX);
        let asked = every_bytes > 0 || every_records > 0 || every_ns > 0;
        let due = (full && asked)
            || (every_bytes > 0 && self.since.0 >= every_bytes)
            || (every_records > 0 && self.since.1 >= every_records)
            || (every_ns > 0 && self.since.1 > 0 && tick - self.tick >= ticks);
        due && !self.busy && (self.problem.is_none() || tick - self.tick >= AGAIN_TICKS)
    }

    /// The point of a snapshot of what a replica has committed.
    pub(crate) fn point(&self, base: &Base<Inputs>) -> Point {
        let mut chain = [0; 16];
        chain[..8].copy_from_slice(&base.machine.digest().to_le_bytes());
        let count = base.committed.get(&crate::driver::SOURCE).copied().unwrap_or(0);
        chain[8..].copy_from_slice(&count.to_le_bytes());
        let lineage = u128::from(self.cluster) << 64 | u128::from(base.lineage);
        Point { lineage, offset: base.offset, chain, epoch: base.epoch }
    }

    /// One was ordered.
    pub(crate) fn begun(&mut self, tick: u64) {
        (self.busy, self.tick, self.since) = (true, tick, (0, 0));
    }

    /// What became of it.
    pub(crate) fn written(&mut self, written: Written) {
        self.busy = false;
        self.problem = written.err();
    }

    /// Why the last one was given up.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.clone()
    }

    /// Those that are there, as other nodes are told of them.
    pub(crate) fn ids(&mut self, tick: u64) -> Vec<SnapshotId> {
        let files = self.folder.list().unwrap_or_default();
        let mut ids: Vec<SnapshotId> = files.iter().filter_map(|file| self.id(file)).collect();
        // Another one of the same offset has taken its place.
        let other = |open: &SnapshotId, id: &SnapshotId| id.offset == open.offset && id != open;
        self.open.retain(|(open, _, asked)| {
            tick.saturating_sub(*asked) < HELD_TICKS && !ids.iter().any(|id| other(open, id))
        });
        let removed = self.open.iter().map(|(open, ..)| *open).filter(|open| !ids.contains(open));
        ids.extend(removed.collect::<Vec<_>>());
        ids
    }

    fn id(&self, file: &SnapshotFile) -> Option<SnapshotId> {
        let info = file.info().ok().filter(|info| self.settings.fit(info.settings))?;
        let mut hash = [0; HASH_BYTES as usize];
        let end = file.bytes.checked_sub(HASH_BYTES)?;
        File::open(&file.path).and_then(|open| open.read_exact_at(&mut hash, end)).ok()?;
        Some(SnapshotId { offset: file.offset, epoch: info.point.epoch, bytes: file.bytes, hash })
    }

    fn file(&self, id: &SnapshotId) -> SnapshotFile {
        let path = self.path.join(format!("{:020}.tgs", id.offset));
        SnapshotFile { offset: id.offset, path, bytes: id.bytes }
    }

    /// A node wants a piece; of each node the last word counts.
    pub(crate) fn wanted(&mut self, to: Member, snapshot: SnapshotId, at: u64, tick: u64) {
        self.wanted.retain(|(other, _, _)| other.node != to.node);
        self.wanted.push_back((to, snapshot, at));
        match self.open.iter_mut().find(|(open, ..)| *open == snapshot) {
            Some((.., asked)) => *asked = tick,
            // One that is gone is told of when it is to be read.
            None => {
                let file = File::open(self.file(&snapshot).path);
                self.open.extend(file.map(|file| (snapshot, file, tick)));
            }
        }
    }

    /// The next piece to be sent, if the budget has room for it.
    pub(crate) fn next_piece(&mut self) -> Option<(Member, SnapshotId, u64, Bytes)> {
        if self.wanted.is_empty() || !self.budget.has(CHUNK_BYTES_MAX) {
            return None;
        }
        let (to, snapshot, at) = self.wanted.pop_front()?;
        let length = snapshot.bytes.saturating_sub(at).min(CHUNK_BYTES_MAX as u64);
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        // One that is gone meanwhile is not sent; another one is offered.
        let open = self.open.iter().find(|(open, ..)| *open == snapshot);
        let file = open.map(|(_, file, _)| file).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        if let Err(error) = file.and_then(|file| file.read_exact_at(&mut data, at)) {
            self.problem =
                Some(format!("the snapshot of offset {} cannot be sent: {error}", snapshot.offset));
            self.open.retain(|(open, ..)| *open != snapshot);
            data.clear();
        }
        self.budget.spend(length);
        Some((to, snapshot, at, data.into()))
    }

    /// A piece of the one that is fetched has come.
    pub(crate) fn take(&mut self, id: &SnapshotId, at: u64, data: &[u8]) -> io::Result<()> {
        if at == 0 {
            let free = self.folder.free_bytes()?;
            if free < id.bytes.saturating_add(RESERVE_BYTES) {
                let why = format!("the leader's is {} bytes, and {free} are free on the disk", id.bytes);
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            self.fetched = Some(File::create(self.path.join(FETCHED))?);
        }
        let Some(file) = &mut self.fetched else { return Ok(()) };
        file.seek(SeekFrom::Start(at))?;
        file.write_all(data)
    }

    /// Finds the hash of what was fetched, zeros if it is damaged; or the settings it was taken with, when those are others. For a thread
    /// that may block: that is not a moment's work for a large one.
    pub(crate) fn checker(&self, id: SnapshotId) -> impl FnOnce() -> Checked + Send + 'static {
        let (path, cluster, mine) = (self.path.join(FETCHED), self.cluster, self.settings.clone());
        move || {
            let bytes = std::fs::metadata(&path)?.len();
            let fetched = SnapshotFile { offset: id.offset, path, bytes };
            let mut content = Vec::new();
            let sound = match fetched.read(&mut content) {
                Ok(snapshot) => {
                    let SnapshotInfo { point, settings, .. } = snapshot.info;
                    let here = (point.lineage >> 64) as u64 == cluster && point.epoch == id.epoch;
                    if here && !mine.fit(settings) {
                        let taken = tidegate_live::saved_settings(&snapshot).unwrap_or_default();
                        return Ok(Err(taken));
                    }
                    here
                }
                Err(_) => false,
            };
            let hash = content.last_chunk::<32>().copied().filter(|_| sound);
            Ok(Ok(hash.unwrap_or_default()))
        }
    }

    /// What was fetched is put in place, for good.
    pub(crate) fn install(&mut self, id: &SnapshotId) -> io::Result<()> {
        if let Some(file) = self.fetched.take() {
            file.sync_all()?;
        }
        std::fs::rename(self.path.join(FETCHED), self.file(id).path)?;
        File::open(&self.path)?.sync_all()
    }

    /// All of them go: they are of a history that is over.
    pub(crate) fn remove(&mut self) {
        self.open.clear();
        for file in self.folder.list().unwrap_or_default() {
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(when: SnapshotOptions, log_bytes_max: u64) -> Snapshots {
        let of = Snapshotting { when, settings: [0; 16].into(), point: None };
        Snapshots::new(Path::new("nowhere"), "1", Budget::new(), of, log_bytes_max)
    }

    #[test]
    fn one_of_many_groups_takes_snapshots_before_its_log_is_full() {
        let part = 64 << 20;
        let mut short = snapshots(SnapshotOptions::default(), part);
        let mut ordered = 0;
        while !short.is_due(0, false) {
            short.ordered((1 << 20, 1));
            ordered += 1 << 20;
        }
        // Two of them, what comes while the second is written, and a segment that is not whole.
        assert!(4 * ordered < part, "{ordered}");
        let mut long = snapshots(SnapshotOptions::default(), 4 << 30);
        long.ordered(((256 << 20) - 1, 1));
        assert!(!long.is_due(0, false));
        long.ordered((1, 1));
        assert!(long.is_due(0, false));
    }

    /// Removed by whoever wrote newer ones, it goes on to be offered and read for as long as somebody asks for it.
    #[test]
    fn one_that_is_fetched_is_there_until_nobody_asks_for_it() {
        let path = tempfile::tempdir().unwrap();
        let of = Snapshotting { when: SnapshotOptions::default(), settings: [6; 16].into(), point: None };
        let mut snapshots = Snapshots::new(path.path(), "1", Budget::new(), of, 4 << 30);
        let folder = SnapshotFolder::new(path.path());
        let write = |offset: u64| {
            let point = Point { lineage: 1 << 64 | 7, offset, chain: [3; 16], epoch: 1 };
            let info = SnapshotInfo { point, settings: [6; 16], ..SnapshotInfo::default() };
            let bytes = vec![offset as u8; 100];
            let part = tidegate_journal::snapshot::Part { id: 3, index: 0, bytes: &bytes };
            folder.write(info, &[part]).unwrap();
            folder.prune(1, |info| info.settings == [6; 16]).unwrap();
        };
        write(5);
        let whole = std::fs::read(folder.list().unwrap()[0].path.clone()).unwrap();
        let [first] = snapshots.ids(10)[..] else { panic!("one was written") };
        let to = Member { node: 2, incarnation: 9 };
        let mut have = Vec::new();
        // A slow node, and one snapshot after the other is written meanwhile.
        for (at, tick) in [(0, 20), (40, 20 + HELD_TICKS - 1), (80, 20 + 2 * (HELD_TICKS - 1))] {
            snapshots.wanted(to, first, at, tick);
            let (_, id, from, piece) = snapshots.next_piece().unwrap();
            assert_eq!((id, from), (first, at));
            have.truncate(at as usize);
            have.extend_from_slice(&piece);
            write(tick);
            let offsets: Vec<u64> = snapshots.ids(tick).iter().map(|id| id.offset).collect();
            assert_eq!(offsets, [tick, 5], "the older one is gone from the disk and still to be had");
        }
        assert_eq!((have, snapshots.problem()), (whole, None));
        // Nobody has asked for a minute.
        let last = 20 + 2 * (HELD_TICKS - 1);
        assert_eq!(snapshots.ids(last + HELD_TICKS - 1).len(), 2);
        assert_eq!(snapshots.ids(last + HELD_TICKS).len(), 1);
        snapshots.wanted(to, first, 0, last + HELD_TICKS);
        assert!(snapshots.next_piece().unwrap().3.is_empty() && snapshots.problem().is_some());
    }

    #[test]
    fn a_full_log_is_reason_enough_unless_there_are_to_be_none() {
        let asked = snapshots(SnapshotOptions { every_bytes: 0, ..SnapshotOptions::default() }, 64 << 20);
        assert!(asked.is_due(0, true) && !asked.is_due(0, false));
        let off = SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: 2 };
        assert!(!snapshots(off, 64 << 20).is_due(0, true));
    }
}
