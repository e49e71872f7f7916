//! Snapshots of the whole state at a barrier of the log, taken between other work and written by the thread `tg-snapshot`.
//!
//! Ingest asks the journal for the point, copies its own state, and sends a BARRIER down the rings; each shard saves itself when it
//! meets it, into memory that was used before. All else is done here: the journal's word that everything up to the point is on
//! disk, the readers' past copied from the hub piece by piece, a look whether it can be loaded again, the checksum, the file.

use crate::egress::HubHandle;
use crate::replication::Written;
use crate::settings::SnapshotSettings;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_actors::runtime::{BarrierWatch, ShardSnapshot, StageFactory, StatsHandle};
use tidegate_engine::{Digest, SLOT_COUNT, SequencerState, Shard, snapshot};
use tidegate_journal::snapshot::Part;
use tidegate_journal::{Point, SnapshotFolder, SnapshotInfo};
use tidegate_proto::feed::{FeedGroup, FeedServerState};

/// What a part of a snapshot is. Numbers are never given again.
pub(crate) mod part {
    /// The settings that the state depends on, as text.
    pub(crate) const SETTINGS: u32 = 1;
    /// Sources, dictionaries and sequencers.
    pub(crate) const INGEST: u32 = 2;
    /// A shard, by its number.
    pub(crate) const SHARD: u32 = 3;
    /// A piece of a stream's ring, oldest first, by the stream's number.
    pub(crate) const RING: u32 = 4;
    /// A piece of a stream's histories, by the stream's number.
    pub(crate) const HISTORY: u32 = 5;
    /// Slots that changed their group.
    pub(crate) const MOVES: u32 = 6;
}

/// How long shards and disk may take until a snapshot is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the hub is asked whether the barrier has come through.
const LOOK: Duration = Duration::from_millis(1);
/// Records copied from the hub in one go: some tens of microseconds.
const PIECE_RECORDS: usize = 512;
/// Room for a shard's first state where nothing is known of it; with more, the shard pays for the rest. A node of several groups has so
/// much for each.
const FIRST_BYTES: usize = 8 << 20;
const FIRST_BYTES_OF_GROUP: usize = 1 << 20;
/// Bytes of one part with the readers' past, about.
const PIECE_BYTES: usize = 4 << 20;

/// A source's way into the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct SourceLog {
    pub(crate) sequencer: SequencerState,
    pub(crate) keys: Vec<u32>,
    pub(crate) lost: u64,
    pub(crate) last_ts: u64,
    pub(crate) finished: bool,
}

/// Ingest between two turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct IngestState {
    pub(crate) server: FeedServerState,
    pub(crate) sources: Vec<SourceLog>,
    /// All names in the order of their keys, a length byte in front of each.
    pub(crate) names: Vec<u8>,
    pub(crate) overflow: Option<u32>,
    pub(crate) first_ts: Option<u64>,
    pub(crate) controls: u64,
    pub(crate) gaps_made: u64,
}

impl IngestState {
    /// The names, in the order of their keys; ends early where something is no name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        names_in(&self.names)
    }
}

/// Names with a length byte in front of each; ends early where something is no name.
pub(crate) fn names_in(texts: &[u8]) -> impl Iterator<Item = &str> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let (&length, behind) = rest.split_first()?;
        let (name, behind) = behind.split_at_checked(usize::from(length))?;
        rest = behind;
        std::str::from_utf8(name).ok()
    })
}

/// Names as a snapshot has them, for who reads the log behind it without a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedNames {
    /// All names, in the order in which they became known.
    pub names: Vec<String>,
    /// For each source, by rank, the place among `names` of each of its keys that has one.
    pub keys: Vec<Vec<u32>>,
}

/// Reads the names out of a snapshot.
///
/// # Errors
/// What is wrong with it.
pub fn saved_names(saved: &tidegate_journal::Snapshot<'_>) -> Result<SavedNames, String> {
    let part = saved.parts_of(part::INGEST).next().ok_or("it has no sources")?;
    let state: IngestState = snapshot::read(part.bytes, "ingest").map_err(|error| error.to_string())?;
    let names: Vec<String> = state.names().map(str::to_owned).collect();
    let keys: Vec<Vec<u32>> = state.sources.into_iter().map(|source| source.keys).collect();
    if let Some(key) = keys.iter().flatten().find(|key| **key as usize >= names.len()) {
        return Err(format!("it has {} names and none for key {key}", names.len()));
    }
    Ok(SavedNames { names, keys })
}

/// The settings that a snapshot was taken with, as text.
#[must_use]
pub fn saved_settings(saved: &tidegate_journal::Snapshot<'_>) -> Option<String> {
    let part = saved.parts_of(part::SETTINGS).next()?;
    Some(String::from_utf8_lossy(part.bytes).into_owned())
}

/// What shards have written of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamHeads {
    pub(crate) heads: Vec<u64>,
    pub(crate) published: u64,
}

/// What shards' states are when they are loaded.
pub(crate) struct LoadedShards {
    /// Names of each shard's keys, in its order.
    pub(crate) keys: Vec<Vec<u64>>,
    pub(crate) digest: Digest,
    pub(crate) streams: Vec<StreamHeads>,
    /// Events applied, by shard.
    pub(crate) events: Vec<u64>,
    /// Event time up to which all are complete.
    pub(crate) watermark: u64,
}

/// Loads shards' states, in order, into shards of this pipeline, as a start would.
pub(crate) fn load<'a>(
    stages: &StageFactory,
    shards: impl Iterator<Item = &'a [u8]>,
    streams: usize,
) -> Result<LoadedShards, String> {
    let none = StreamHeads { heads: vec![0; SLOT_COUNT], published: 0 };
    let mut loaded = LoadedShards {
        keys: Vec::new(),
        digest: Digest::default(),
        streams: vec![none; streams],
        events: Vec::new(),
        watermark: u64::MAX,
    };
    for (number, bytes) in shards.enumerate() {
        let mut shard = Shard::new(stages());
        shard.load(bytes).map_err(|error| format!("shard {number}: {error}"))?;
        loaded.digest.add_shard(&shard);
        loaded.keys.push(shard.context().keys().iter().map(|key| key.name).collect());
        loaded.events.push(shard.events());
        loaded.watermark = loaded.watermark.min(shard.context().watermark());
        for (_, lane) in shard.lanes() {
            let Some(stream) = loaded.streams.get_mut(usize::from(lane.stream())) else {
                return Err(format!("there is no stream {}", lane.stream()));
            };
            stream.published += lane.emitted();
            for (head, account) in stream.heads.iter_mut().zip(lane.accounts()) {
                *head = (*head).max(account.sequence);
            }
        }
    }
    Ok(loaded)
}

/// First 16 bytes of a digest over all slots, as bytes.
pub(crate) fn digest_bytes(digest: &Digest) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest.short()[at * 2..at * 2 + 2], 16).unwrap_or(0);
    }
    bytes
}

/// How snapshots are, readable from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Written since the start.
    pub written: u64,
    /// Given up since the start.
    pub failed: u64,
    /// Offset of the newest; `None` without one.
    pub offset: Option<u64>,
    /// When it was taken, nanoseconds since 1970.
    pub taken_ns: u64,
    /// Its size.
    pub bytes: u64,
    /// How many are kept.
    pub kept: usize,
    /// How long the shard that took longest stood still for the last one, in nanoseconds.
    pub pause_ns: u64,
    /// Bytes of that shard's state.
    pub pause_bytes: u64,
    /// How long ingest stood still for it.
    pub ingest_pause_ns: u64,
    /// How long the whole took.
    pub took_ns: u64,
    /// Why the last one was given up, unless one was written since.
    pub problem: Option<String>,
}

/// A snapshot to be made.
pub(crate) struct Request {
    pub(crate) barrier: u64,
    pub(crate) begun: Instant,
    pub(crate) taken_ns: u64,
    pub(crate) ingest_pause_ns: u64,
    pub(crate) point: flume::Receiver<Point>,
    pub(crate) state: IngestState,
    /// What is to be said of moves of slots.
    pub(crate) moves: Option<Vec<u8>>,
    /// The group whose slots go into it, where there are several.
    pub(crate) group: Option<FeedGroup>,
}

#[derive(Default)]
pub(crate) struct Shared {
    stats: Mutex<SnapshotStats>,
    busy: AtomicBool,
    /// Records below this are in a snapshot with another one in front of it.
    needed: AtomicU64,
}

impl Shared {
    pub(crate) fn stats(&self) -> MutexGuard<'_, SnapshotStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    pub(crate) fn begin(&self) {
        self.busy.store(true, Ordering::Release);
    }

    pub(crate) fn needed(&self) -> u64 {
        self.needed.load(Ordering::Acquire)
    }

    fn give_up(&self, why: String) {
        let mut stats = self.stats();
        stats.failed += 1;
        stats.problem = Some(why);
    }
}

/// What the thread needs.
pub(crate) struct Maker {
    pub(crate) folder: SnapshotFolder,
    pub(crate) keep: usize,
    /// Bytes that must stay free on the disk: the journal goes first.
    pub(crate) reserve_bytes: u64,
    pub(crate) settings: SnapshotSettings,
    /// The settings in full.
    pub(crate) text: String,
    pub(crate) stages: StageFactory,
    pub(crate) shards: u32,
    pub(crate) streams: u16,
    pub(crate) hub: HubHandle,
    pub(crate) runtime: StatsHandle,
    pub(crate) shared: Arc<Shared>,
    /// Who is told what became of each.
    pub(crate) told: Option<flume::Sender<Written>>,
    /// The group whose slots go into it, where there are several.
    pub(crate) group: Option<FeedGroup>,
    /// Bytes that each shard's state has at the start.
    pub(crate) begins: Vec<usize>,
}

/// Room for a state that was so large: it may have grown by half until the next one.
fn room(bytes: usize, group: Option<&FeedGroup>) -> usize {
    let least = if group.is_some() { FIRST_BYTES_OF_GROUP } else { FIRST_BYTES };
    bytes.saturating_add(bytes / 2).max(least)
}

/// The ends of the thread: requests to it, and shards' states.
pub(crate) struct Ends {
    pub(crate) requests: flume::Sender<Request>,
    pub(crate) watch: BarrierWatch,
}

impl Maker {
    /// Starts the thread; it ends when the requests do.
    pub(crate) fn start(self) -> std::io::Result<Ends> {
        let (requests, received) = flume::bounded(1);
        // Room for what a snapshot that was given up still brings.
        let (snapshots, states) = flume::bounded(2 * self.shards as usize);
        let (memory, spare) = flume::bounded(self.shards as usize);
        std::thread::Builder::new().name("tg-snapshot".to_owned()).spawn(move || {
            // Any shard may take any of it.
            let largest = self.begins.iter().copied().max().unwrap_or_default();
            for _ in 0..self.shards {
                let _ = memory.try_send(snapshot::touched(Vec::new(), room(largest, self.group.as_ref())));
            }
            while let Ok(request) = received.recv() {
                let made = self.make(&request, &states, &memory);
                if let Err(why) = &made {
                    self.shared.give_up(why.clone());
                }
                drop(request);
                self.shared.busy.store(false, Ordering::Release);
                if let Some(told) = &self.told {
                    // There is room: one is ordered at a time.
                    let _ = told.try_send(made);
                }
            }
        })?;
        Ok(Ends { requests, watch: BarrierWatch { snapshots, spare } })
    }

    fn make(
        &self,
        request: &Request,
        states: &flume::Receiver<ShardSnapshot>,
        memory: &flume::Sender<Vec<u8>>,
    ) -> Result<u64, String> {
        let deadline = request.begun + PATIENCE;
        if self.runtime.stats().iter().any(|shard| shard.panics > 0) {
            // Its state is not what follows from the log; the log itself is sound.
            return Err("a shard has panicked and lost state".to_owned());
        }
        let shards = self.states(request.barrier, states, deadline)?;
        let result = self.write(request, &shards, deadline);
        let largest = shards.iter().map(|shard| shard.bytes.len()).max().unwrap_or_default();
        for shard in shards {
            // Memory of which enough is left was touched by who used it; the rest of it costs the next shard little.
            let enough = largest.saturating_add(largest / 4);
            let bytes = if shard.bytes.capacity() >= enough {
                shard.bytes
            } else {
                snapshot::touched(shard.bytes, room(largest, self.group.as_ref()))
            };
            let _ = memory.try_send(bytes);
        }
        result
    }

    /// Every shard's state at the barrier, in order.
    fn states(
        &self,
        barrier: u64,
        states: &flume::Receiver<ShardSnapshot>,
        deadline: Instant,
    ) -> Result<Vec<ShardSnapshot>, String> {
        let mut shards = Vec::new();
        while shards.len() < self.shards as usize {
            let state = states
                .recv_deadline(deadline)
                .map_err(|_| format!("{} of {} shards saved themselves", shards.len(), self.shards))?;
            if state.barrier == Some(barrier) {
                shards.push(state);
            }
        }
        shards.sort_unstable_by_key(|state| state.shard);
        Ok(shards)
    }

    fn write(&self, request: &Request, shards: &[ShardSnapshot], deadline: Instant) -> Result<u64, String> {
        let longest = shards.iter().max_by_key(|shard| shard.pause_ns);
        let (pause_ns, pause_bytes) =
            longest.map_or((0, 0), |shard| (shard.pause_ns, shard.bytes.len() as u64));
        let states = shards.iter().map(|shard| shard.bytes.as_slice());
        let digest = load(&self.stages, states, usize::from(self.streams))?.digest;
        let mut pieces = Vec::new();
        self.past(request.barrier, request.group.as_ref(), deadline, &mut pieces)?;
        let point = request
            .point
            .recv_deadline(deadline)
            .map_err(|_| "the journal did not bring to the disk what is in front of it".to_owned())?;
        let mut ingest = Vec::new();
        snapshot::append(&mut ingest, &request.state);
        let mut parts = vec![
            Part { id: part::SETTINGS, index: 0, bytes: self.text.as_bytes() },
            Part { id: part::INGEST, index: 0, bytes: &ingest },
        ];
        parts.extend(request.moves.as_ref().map(|bytes| Part { id: part::MOVES, index: 0, bytes }));
        parts.extend(shards.iter().map(|shard| Part {
            id: part::SHARD,
            index: shard.shard,
            bytes: &shard.bytes,
        }));
        parts.extend(pieces.iter().map(|(id, stream, bytes)| Part {
            id: *id,
            index: u32::from(*stream),
            bytes,
        }));
        let bytes: u64 = parts.iter().map(|part| part.bytes.len() as u64).sum();
        let free = self.folder.free_bytes().map_err(|error| error.to_string())?;
        if free < self.reserve_bytes.saturating_add(bytes) {
            return Err(format!("{bytes} bytes of it would leave less than the reserve free"));
        }
        let settings = self.settings.own();
        let info = SnapshotInfo {
            point,
            taken_ns: request.taken_ns,
            digest: digest_bytes(&digest),
            settings,
            ..SnapshotInfo::default()
        };
        let (file, _) = self.folder.write(info, &parts).map_err(|error| error.to_string())?;
        let mine =
            |info: &SnapshotInfo| self.settings.fit(info.settings) && info.point.lineage == point.lineage;
        let kept = self.folder.prune(self.keep, mine).map_err(|error| error.to_string())?;
        if kept.len() >= self.keep.max(2)
            && let Some(oldest) = kept.last()
        {
            self.shared.needed.store(oldest.offset, Ordering::Release);
        }
        let mut stats = self.shared.stats();
        *stats = SnapshotStats {
            written: stats.written + 1,
            failed: stats.failed,
            offset: Some(file.offset),
            taken_ns: request.taken_ns,
            bytes: file.bytes,
            kept: kept.len(),
            pause_ns,
            pause_bytes,
            ingest_pause_ns: request.ingest_pause_ns,
            took_ns: u64::try_from(request.begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            problem: None,
        };
        Ok(file.offset)
    }

    /// The readers' past, copied piece by piece while everything goes on; what came behind the barrier is left out when it is read.
    fn past(
        &self,
        barrier: u64,
        group: Option<&FeedGroup>,
        deadline: Instant,
        pieces: &mut Vec<(u32, u16, Vec<u8>)>,
    ) -> Result<(), String> {
        let shards = self.shards;
        let gone = |_| "the server ends".to_owned();
        while !self.hub.ask_blocking(move |hub, _| hub.is_past(barrier, shards)).map_err(gone)? {
            if Instant::now() > deadline {
                return Err("its barrier does not come through to the readers".to_owned());
            }
            std::thread::sleep(LOOK);
        }
        for stream in 0..self.streams {
            // From the newest to the oldest: those may leave meanwhile.
            let (mut before, mut newest_first) = (Some(u64::MAX), Vec::new());
            while let Some(place) = before {
                let group = group.cloned();
                let (next, piece) = self
                    .hub
                    .ask_blocking(move |hub, _| {
                        let mine = |slot| group.as_ref().is_none_or(|group| group.has_slot(slot));
                        let mut piece = Vec::with_capacity(PIECE_RECORDS * 64);
                        let next = hub.copy_ring(stream, place, PIECE_RECORDS, &mine, &mut piece);
                        (next, piece)
                    })
                    .map_err(gone)?;
                before = next;
                newest_first.push(piece);
            }
            newest_first.reverse();
            gather(part::RING, stream, newest_first.into_iter(), pieces);
            let mut from = Some(0);
            let histories = std::iter::from_fn(|| {
                let key = from?;
                let group = group.cloned();
                let (next, piece) = self
                    .hub
                    .ask_blocking(move |hub, _| {
                        let mine = |slot| group.as_ref().is_none_or(|group| group.has_slot(slot));
                        let mut piece = Vec::with_capacity(PIECE_RECORDS * 64);
                        let next = hub.copy_histories(stream, key, PIECE_RECORDS, &mine, &mut piece);
                        (next, piece)
                    })
                    .ok()?;
                from = next;
                Some(piece)
            });
            gather(part::HISTORY, stream, histories, pieces);
            if from.is_some() {
                return Err("the server ends".to_owned());
            }
        }
        Ok(())
    }
}

/// Puts small pieces together.
fn gather(id: u32, stream: u16, small: impl Iterator<Item = Vec<u8>>, pieces: &mut Vec<(u32, u16, Vec<u8>)>) {
    let mut open: Option<Vec<u8>> = None;
    for piece in small {
        let bytes = open.get_or_insert_default();
        bytes.extend_from_slice(&piece);
        if bytes.len() >= PIECE_BYTES {
            pieces.extend(open.take().map(|bytes| (id, stream, bytes)));
        }
    }
    pieces.extend(open.filter(|bytes| !bytes.is_empty()).map(|bytes| (id, stream, bytes)));
}
