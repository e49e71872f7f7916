//! The start of a server with a journal: the newest snapshot that is of use, then the log behind it.

use crate::journal::{JournalError, JournalSettings};
use crate::replication::ReplicaSnapshots;
use crate::settings::SnapshotSettings;
use crate::snapshot::{IngestState, LoadedShards, digest_bytes, load, part};
use std::collections::HashSet;
use tidegate_actors::runtime::{ShardSnapshot, StageFactory, regrouped};
use tidegate_engine::{Digest, name_hash, snapshot};
use tidegate_journal::scan::begin;
use tidegate_journal::{
    Disk, OpenError, Snapshot, SnapshotFault, SnapshotFile, SnapshotFileError, SnapshotFolder, SnapshotInfo,
};
use tidegate_proto::hub::{Hub, HubError, StreamPast};

/// A snapshot, taken apart and checked.
pub(crate) struct Loaded {
    pub(crate) info: SnapshotInfo,
    pub(crate) bytes: u64,
    pub(crate) ingest: IngestState,
    /// What it has of moves of slots.
    pub(crate) moves: Option<Vec<u8>>,
    /// Names of each shard's keys, in its order.
    pub(crate) keys: Vec<Vec<u64>>,
    pub(crate) shards: Vec<ShardSnapshot>,
    /// How many shards took it and how many take it over, where these are not as many.
    pub(crate) regrouped: Option<(u32, u32)>,
}

/// What a start goes on from.
pub(crate) struct Base {
    /// The journal's; there is none in a cluster.
    pub(crate) disk: Option<Disk>,
    pub(crate) folder: SnapshotFolder,
    pub(crate) hub: Hub,
    pub(crate) loaded: Option<Loaded>,
    /// Why newer snapshots were passed over.
    pub(crate) notes: Vec<String>,
    /// Those that are damaged.
    pub(crate) damaged: Vec<SnapshotFile>,
}

/// The pipeline that a snapshot must fit.
pub(crate) struct Pipeline<'a> {
    pub(crate) stages: &'a StageFactory,
    pub(crate) shards: u32,
    pub(crate) streams: usize,
    /// The settings that the state depends on, in short and in full.
    pub(crate) settings: SnapshotSettings,
    pub(crate) text: String,
}

/// Why a snapshot that is whole is of no use.
enum Useless {
    /// It is of another pipeline; so the log is read from the start, if it is there.
    Foreign(String),
    /// It cannot be loaded.
    Broken(String),
}

impl Pipeline<'_> {
    fn take(&self, snapshot: &Snapshot<'_>, hub: &mut Hub) -> Result<Loaded, Useless> {
        let broken = |what: String| Useless::Broken(what);
        let only = |id, name: &str| {
            snapshot.parts_of(id).next().ok_or_else(|| Useless::Broken(format!("its {name} are missing")))
        };
        let Some(taken_by) = self.settings.shards_of(snapshot.info.settings) else {
            let taken = only(part::SETTINGS, "settings")?;
            let taken = String::from_utf8_lossy(taken.bytes).into_owned();
            return Err(Useless::Foreign(format!("it was taken with `{taken}`, now it is `{}`", self.text)));
        };
        let ingest: IngestState = snapshot::read(only(part::INGEST, "sources")?.bytes, "ingest")
            .map_err(|error| broken(error.to_string()))?;
        let saved: Vec<_> = snapshot.parts_of(part::SHARD).collect();
        if !(0..taken_by).eq(saved.iter().map(|part| part.index)) {
            return Err(broken(format!("it holds {} shards, expected {taken_by}", saved.len())));
        }
        let LoadedShards { digest, streams, events, watermark, keys: mut known } =
            load(self.stages, saved.iter().map(|part| part.bytes), self.streams).map_err(broken)?;
        if digest_bytes(&digest) != snapshot.info.digest {
            return Err(broken("its results have another digest than it says".to_owned()));
        }
        let moves = snapshot.parts_of(part::MOVES).next().map(|part| part.bytes.to_vec());
        // Keys of slots that have left are on no shard.
        let here: Option<HashSet<u64>> = moves.is_some().then(|| known.iter().flatten().copied().collect());
        let (mut names, mut keys) = (0, Vec::new());
        for name in ingest.names() {
            hub.define(name);
            names += 1 + name.len();
            let hash = name_hash(name.as_bytes());
            if here.as_ref().is_none_or(|here| here.contains(&hash)) {
                keys.push(hash);
            }
        }
        if names != ingest.names.len() {
            return Err(broken("a name cannot be read".to_owned()));
        }
        if let Some(here) = here {
            if keys.len() != here.len() {
                return Err(broken("a key of a shard has no name".to_owned()));
            }
            // A slot that came stands behind all that was there, wherever the log first named its keys.
            keys = known.iter().flatten().copied().collect();
        }
        for (number, stream) in (0u16..).zip(&streams) {
            let pieces = |id| -> Vec<&[u8]> {
                let mine = snapshot.parts_of(id).filter(|part| part.index == u32::from(number));
                mine.map(|part| part.bytes).collect()
            };
            let past = StreamPast {
                heads: &stream.heads,
                published: stream.published,
                ring: &pieces(part::RING),
                histories: &pieces(part::HISTORY),
            };
            hub.restore(number, past).map_err(|error| broken(error.to_string()))?;
        }
        hub.set_watermark(watermark);
        let states = saved.iter().map(|part| part.bytes);
        let (shards, regrouped) = if taken_by == self.shards {
            let shards = (0..).zip(states.zip(events)).map(|(shard, (bytes, events))| ShardSnapshot {
                shard,
                barrier: None,
                events,
                pause_ns: 0,
                bytes: bytes.to_vec(),
            });
            (shards.collect(), None)
        } else {
            let shards;
            (shards, known) = self.regrouped(&states.collect::<Vec<_>>(), &keys, &digest)?;
            (shards, Some((taken_by, self.shards)))
        };
        let (info, bytes) = (snapshot.info, snapshot.info.file_bytes());
        Ok(Loaded { info, bytes, shards, ingest, moves, keys: known, regrouped })
    }

    /// States that other shards saved, as those of as many as there are now.
    fn regrouped(
        &self,
        states: &[&[u8]],
        keys: &[u64],
        digest: &Digest,
    ) -> Result<(Vec<ShardSnapshot>, Vec<Vec<u64>>), Useless> {
        // It is of use to as many as took it.
        let refused = |why: String| {
            let (by, shards) = (states.len(), self.shards);
            Useless::Foreign(format!(
                "it was taken by {by} shards and cannot be taken over by {shards}: {why}"
            ))
        };
        let shards =
            regrouped(self.stages, states, keys, self.shards).map_err(|why| refused(why.to_string()))?;
        let loaded = load(self.stages, shards.iter().map(|shard| shard.bytes.as_slice()), self.streams);
        let loaded = loaded.map_err(refused)?;
        if loaded.digest != *digest {
            return Err(refused("the results would have another digest".to_owned()));
        }
        Ok((shards, loaded.keys))
    }

    /// Opens the journal's folder and finds what to go on from.
    ///
    /// # Errors
    /// [`JournalError`] when the folder cannot be used, or the log begins behind everything that is known. `Ok(Err)` when a hub cannot
    /// be made.
    pub(crate) fn base(
        &self,
        settings: &JournalSettings,
        make_hub: impl Fn() -> Result<Hub, HubError>,
    ) -> Result<Result<Base, HubError>, JournalError> {
        let folder = || settings.folder.clone();
        let io = |source| JournalError::Folder { folder: folder(), source };
        let mut disk = Disk::open(&settings.folder).map_err(io)?;
        let snapshots = SnapshotFolder::new(&settings.folder);
        snapshots.tidy().map_err(io)?;
        let begins = begin(&mut disk)
            .map_err(|error| JournalError::Open { folder: folder(), source: OpenError::Scan(error) })?;
        if let (Some(_), Some(remote)) = (&begins, &settings.remote) {
            return Err(JournalError::Two { folder: folder(), remote: remote.name() });
        }
        let base = match self.newest(snapshots, make_hub).map_err(io)? {
            Ok(base) => base,
            Err(error) => return Ok(Err(error)),
        };
        if let Some((_, first)) = begins
            && first > 0
            && base.loaded.is_none()
        {
            return Err(JournalError::Headless { folder: folder(), first, notes: base.notes });
        }
        Ok(Ok(Base { disk: Some(disk), ..base }))
    }

    /// Finds what a node of a cluster is to go on from.
    ///
    /// # Errors
    /// [`JournalError`] when the folder cannot be used. `Ok(Err)` when a hub cannot be made.
    pub(crate) fn replica_base(
        &self,
        settings: &ReplicaSnapshots,
        make_hub: impl Fn() -> Result<Hub, HubError>,
    ) -> Result<Result<Base, HubError>, JournalError> {
        let io = |source| JournalError::Snapshots { folder: settings.folder.clone(), source };
        std::fs::create_dir_all(&settings.folder).map_err(io)?;
        let snapshots = SnapshotFolder::new(&settings.folder);
        snapshots.tidy().map_err(io)?;
        self.newest(snapshots, make_hub).map_err(io)
    }

    /// The newest snapshot that is of use, if there is one.
    fn newest(
        &self,
        snapshots: SnapshotFolder,
        make_hub: impl Fn() -> Result<Hub, HubError>,
    ) -> std::io::Result<Result<Base, HubError>> {
        let (mut notes, mut damaged, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for file in snapshots.list()? {
            let named = |what: &str| format!("the snapshot {} is passed over: {what}", file.path.display());
            let snapshot = match file.read(&mut bytes) {
                Ok(snapshot) => snapshot,
                Err(error @ SnapshotFileError::Read { .. }) => {
                    notes.push(match std::error::Error::source(&error) {
                        Some(source) => format!("{error}: {source}"),
                        None => error.to_string(),
                    });
                    continue;
                }
                Err(error) => {
                    notes.push(error.to_string());
                    // A newer version's is sound, for a newer version.
                    if !matches!(&error, SnapshotFileError::Damaged { fault: SnapshotFault::Version(_), .. })
                    {
                        damaged.push(file);
                    }
                    continue;
                }
            };
            let mut hub = match make_hub() {
                Ok(hub) => hub,
                Err(error) => return Ok(Err(error)),
            };
            match self.take(&snapshot, &mut hub) {
                Ok(loaded) => {
                    return Ok(Ok(Base {
                        disk: None,
                        folder: snapshots,
                        hub,
                        loaded: Some(loaded),
                        notes,
                        damaged,
                    }));
                }
                Err(Useless::Foreign(what)) => notes.push(named(&what)),
                Err(Useless::Broken(what)) => {
                    notes.push(named(&what));
                    damaged.push(file);
                }
            }
        }
        Ok(make_hub().map(|hub| Base { disk: None, folder: snapshots, hub, loaded: None, notes, damaged }))
    }
}
