//! Starting and ending: the threads around a runtime, in the order in which they depend on each other; or one task instead.

use crate::clock::Clock;
use crate::core::{Core, CoreReport};
use crate::downstream::{Downstream, Here, Threads};
use crate::egress::{Desk, Egress, HubHandle, Wake};
use crate::groups::{self, LiveGroups};
use crate::ingest::{Ingest, IngestHandle, IngestReport, Stopper};
use crate::journal::{JournalError, JournalSettings, Recovered, SnapshotOptions};
use crate::latency::{LatencyHandle, Percentiles, measure};
use crate::moving::Departures;
use crate::recovery::{Base, Loaded, Pipeline};
use crate::relay::{BATCHES_MAX, RelayIn, RelayPort};
use crate::replication::{ReplicaSnapshots, Replication, Written};
use crate::settings::{self, SnapshotSettings};
use crate::snapshot::{Ends, Maker};
use crate::streams::StreamChanges;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tidegate_actors::runtime::{
    Idle, InlineShards, Outputs, Placement, Runtime, RuntimeError, RuntimeOptions, RuntimeReport,
    ShardSnapshot, StageFactory, StageReport, StatsHandle, Stopwatch, ThreadStats, ThreadTimes,
};
use tidegate_engine::FenceOptions;
use tidegate_journal::SnapshotFolder;
use tidegate_proto::feed::{FeedGroup, FeedServerOptions};
use tidegate_proto::hub::{Hub, HubError, HubOptions, HubStats, PastError, StreamMeta};
use tidegate_proto::subscriber::Catalogue;
use tidegate_proto::time::MILLISECOND_NS;

/// How the engine runs live.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Threads, rings and placement. `outputs` is set here.
    pub runtime: RuntimeOptions,
    /// How far behind a source's newest stamp an event is still on time, in nanoseconds.
    pub disorder_ns: u64,
    /// Bounds on stamps that jump ahead; `None` believes all.
    pub fence: Option<FenceOptions>,
    /// How long after a source left without a word it stops holding the windows of others open, in nanoseconds.
    pub idle_after_ns: u64,
    /// Names of all sources together, before further ones share one counted overflow name.
    pub names_max: usize,
    /// Sessions of feeds.
    pub feed: FeedServerOptions,
    /// Results and their readers.
    pub hub: HubOptions,
    /// Where what is accepted is written down; `None` for nowhere.
    pub journal: Option<JournalSettings>,
    /// The way to other nodes that hold the same log; `None` for a node that leads alone. Not together with a journal.
    pub replication: Option<Replication>,
    /// Snapshots of a node with other nodes beside it; `None` for none, then it needs the log from its beginning.
    pub snapshots: Option<ReplicaSnapshots>,
    /// The groups of a cluster, where there are several; then `replication` and `snapshots` are those of each, and there is no journal.
    pub groups: Option<LiveGroups>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            runtime: RuntimeOptions::default(),
            disorder_ns: 0,
            fence: Some(FenceOptions::default()),
            idle_after_ns: 10_000 * MILLISECOND_NS,
            names_max: 1_000_000,
            feed: FeedServerOptions::default(),
            hub: HubOptions::default(),
            journal: None,
            replication: None,
            snapshots: None,
            groups: None,
        }
    }
}

/// Why the engine did not start or end as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The threads cannot be laid out or started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The streams cannot be served.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The journal of an earlier start cannot be gone on with.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system refused a thread.
    #[error("a thread could not be started")]
    Thread(#[from] std::io::Error),
    /// Analyzers were to have threads of their own where nothing has.
    #[error(
        "placement `staged` needs threads, and the engine is to run fused on one: choose separate threads"
    )]
    Staged,
    /// Several groups were to be served on one thread.
    #[error("several groups need threads, and the engine is to run fused on one: choose separate threads")]
    Fused,
    /// The groups are not those of the slots.
    #[error("the groups cannot be served: {0}")]
    Groups(String),
    /// The snapshots of the groups do not go together.
    #[error("what the groups' snapshots have for readers does not go together")]
    Past(#[from] PastError),
    /// A thread of ours ended in a way that is a bug.
    #[error("the {thread} thread failed: this is a bug in Tidegate")]
    Failed {
        /// Which one.
        thread: &'static str,
    },
}

/// What a live engine did.
pub struct LiveReport {
    /// Feeds and the log.
    pub ingest: IngestReport,
    /// The shards.
    pub runtime: RuntimeReport,
    /// Results and their readers.
    pub hub: HubStats,
}

impl LiveReport {
    /// Inputs minus everything they became, over sessions, fences, shards and readers: zero, always.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        let sources = &self.ingest.stats.sources;
        let feeds: i128 = sources.iter().map(|source| source.ledger.imbalance().abs()).sum();
        let accepted: u64 = sources.iter().map(|source| source.ledger.accepted).sum();
        // Gaps that sources declared as frames became control records of the log; those that they sent were accepted.
        let events = self.runtime.events + self.ingest.stats.fenced;
        let sent_controls = self.ingest.controls - self.ingest.gaps_made;
        let log = i128::from(accepted) - i128::from(events) - i128::from(sent_controls);
        let lost = self.runtime.quarantined + self.runtime.lost_in_restart;
        let undelivered = |stage: &StageReport| {
            let events = self.runtime.events.saturating_sub(stage.since);
            if lost > 0 { 0 } else { (i128::from(events) - i128::from(stage.ledger.delivered)).abs() }
        };
        let stages =
            self.runtime.stages.iter().map(|stage| stage.ledger.imbalance().abs() + undelivered(stage));
        feeds + log.abs() + stages.sum::<i128>()
    }
}

/// Most places of a shard's ring when nobody waits behind it: what goes through stays in the core's cache.
const FUSED_RING: usize = 2_048;

/// A running engine. Dropping it without [`Live::finish`] leaves its threads to end with the process.
pub struct Live {
    stats: StatsHandle,
    latency: LatencyHandle,
    ring_events: usize,
    /// Of each group that is held here.
    recovered: Vec<Recovered>,
    nothing: Recovered,
    /// Of each group that is held here, and all of them as one.
    ingests: Vec<IngestHandle>,
    ingest: IngestHandle,
    hub: HubHandle,
    changes: StreamChanges,
    /// Of each group that is held here.
    stoppers: Vec<Stopper>,
    /// Of the others, until somebody takes them.
    relays: Vec<RelayPort>,
    engine: Engine,
}

enum Engine {
    /// Of each group its shards and the thread in front of them.
    Threads {
        groups: Vec<(Box<Runtime>, JoinHandle<IngestReport>)>,
        egress: JoinHandle<Hub>,
    },
    Task {
        report: flume::Receiver<CoreReport>,
        runtime: tokio::runtime::Handle,
    },
}

/// What subscribers are told of this server.
fn catalogue(streams: Vec<StreamMeta>, options: &LiveOptions) -> Arc<Catalogue> {
    Arc::new(Catalogue {
        streams,
        ended: BTreeSet::new(),
        server: options.feed.server.clone(),
        incarnation: options.feed.incarnation,
        heartbeat_ms: options.feed.heartbeat_ms,
        silence_ns: options.feed.silence_ns,
        hello_ns: options.feed.hello_ns,
    })
}

/// What an engine with a journal goes on from, and what of it goes on where.
fn base(
    stages: &StageFactory,
    streams: &[StreamMeta],
    options: &LiveOptions,
) -> Result<Option<Base>, LiveError> {
    let pipeline = |text: &str| Pipeline {
        stages,
        shards: options.runtime.shards,
        streams: streams.len(),
        settings: SnapshotSettings::of(text, streams, options),
        text: settings::text(text, streams, options, options.runtime.shards),
    };
    let hub = || Hub::new(streams.to_vec(), options.hub);
    if let Some(settings) = &options.journal {
        return Ok(Some(pipeline(&settings.settings).base(settings, hub)??));
    }
    if let Some(settings) = options.snapshots.as_ref().filter(|_| options.replication.is_some()) {
        return Ok(Some(pipeline(&settings.settings).replica_base(settings, hub)??));
    }
    Ok(None)
}

/// The hub, with its past if there is one, and the shards' states.
fn take_over(
    base: &mut Option<Base>,
    streams: &[StreamMeta],
    options: &LiveOptions,
) -> Result<(Hub, Option<Vec<ShardSnapshot>>), LiveError> {
    let Some(base) = base else { return Ok((Hub::new(streams.to_vec(), options.hub)?, None)) };
    let shards = base.loaded.as_mut().map(|loaded| std::mem::take(&mut loaded.shards));
    let empty = Hub::new(streams.to_vec(), HubOptions { ring_records: 64, ..options.hub })?;
    Ok((std::mem::replace(&mut base.hub, empty), shards))
}

/// A group whose shards run already.
struct Begun {
    base: Option<Base>,
    runtime: Box<Runtime>,
    options: LiveOptions,
}

/// What the thread of snapshots needs, as far as it is known before the threads are there.
struct MakerParts {
    options: SnapshotOptions,
    folder: PathBuf,
    reserve_bytes: u64,
    settings: SnapshotSettings,
    text: String,
    stages: StageFactory,
    shards: u32,
    streams: u16,
    wall_ns: fn() -> u64,
    told: Option<flume::Sender<Written>>,
    group: Option<FeedGroup>,
}

impl MakerParts {
    fn of(stages: &StageFactory, streams: &[StreamMeta], options: &LiveOptions) -> Option<Self> {
        let replica = options.replication.as_ref().zip(options.snapshots.as_ref());
        let (snapshots, folder, reserve_bytes, settings, wall_ns) = match (&options.journal, replica) {
            (Some(journal), _) => {
                let reserve = journal.commit.reserve_bytes;
                (journal.snapshots?, &journal.folder, reserve, &journal.settings, journal.wall_ns)
            }
            (None, Some((_, of))) => {
                // Whoever drives the node says when.
                let when = SnapshotOptions { every_bytes: 0, every_records: 0, every_ns: 0, keep: of.keep };
                (when, &of.folder, of.reserve_bytes, &of.settings, of.wall_ns)
            }
            (None, None) => return None,
        };
        Some(Self {
            options: snapshots,
            folder: folder.clone(),
            reserve_bytes,
            settings: SnapshotSettings::of(settings, streams, options),
            text: settings::text(settings, streams, options, options.runtime.shards),
            stages: Arc::clone(stages),
            shards: options.runtime.shards,
            streams: streams.len() as u16,
            wall_ns,
            told: replica.map(|(port, _)| port.written.clone()),
            group: options.feed.group.clone(),
        })
    }

    fn maker(self, hub: &HubHandle, runtime: &StatsHandle) -> MakerAndClock {
        let maker = Maker {
            folder: SnapshotFolder::new(&self.folder),
            keep: self.options.keep,
            reserve_bytes: self.reserve_bytes,
            settings: self.settings,
            text: self.text,
            stages: self.stages,
            shards: self.shards,
            streams: self.streams,
            hub: hub.clone(),
            runtime: runtime.clone(),
            shared: Arc::default(),
            told: self.told,
            group: self.group,
            begins: Vec::new(),
        };
        (maker, self.options, self.wall_ns)
    }
}

/// Who makes snapshots, when, and what time it is.
type MakerAndClock = (Maker, SnapshotOptions, fn() -> u64);

/// Reads what the journal has behind the base, and starts the thread of snapshots.
fn recover(
    ingest: &mut Ingest,
    handle: &IngestHandle,
    base: Option<Base>,
    snapshots: Option<&ReplicaSnapshots>,
    maker: Option<MakerAndClock>,
) -> Result<(Recovered, Option<Ends>), LiveError> {
    let Some(Base { disk, loaded, notes, damaged, folder, .. }) = base else {
        return Ok((Recovered::default(), None));
    };
    let mut found = match (disk, snapshots) {
        (Some(disk), _) => ingest.recover(handle, disk, loaded.as_ref())?,
        (None, Some(snapshots)) => ingest.begin_from(snapshots, loaded.as_ref())?,
        (None, None) => Recovered::default(),
    };
    found.notes = notes;
    found.regrouped = loaded.as_ref().and_then(|loaded| loaded.regrouped);
    for file in &damaged {
        // Kept for whoever wants to know what happened; the log is whole without it.
        let _ = folder.set_aside(file);
    }
    let Some((mut maker, options, wall_ns)) = maker else { return Ok((found, None)) };
    let shared = Arc::clone(&maker.shared);
    if let Some(Loaded { info, bytes, shards, .. }) = &loaded {
        maker.begins = shards.iter().map(|shard| shard.bytes.len()).collect();
        let mut stats = shared.stats();
        (stats.offset, stats.taken_ns, stats.bytes) = (Some(info.point.offset), info.taken_ns, *bytes);
    }
    let ends = maker.start()?;
    ingest.keep_snapshots(options, ends.requests.clone(), shared, wall_ns);
    Ok((found, Some(ends)))
}

impl Live {
    /// Starts the shards and the threads around them. `streams` are those of the stages, in the order of their numbers.
    ///
    /// # Errors
    /// [`LiveError`] when an option is out of range or the system refuses a thread.
    pub fn start(
        stages: StageFactory,
        streams: Vec<StreamMeta>,
        options: LiveOptions,
    ) -> Result<Self, LiveError> {
        let clock = Clock::default();
        if let Some(of) = &options.groups {
            groups::check(of).map_err(LiveError::Groups)?;
        }
        let logged = options.journal.is_some() || options.replication.is_some() || options.groups.is_some();
        let (idle, ring_events) = (options.runtime.idle, options.runtime.ring_events);
        let catalogue = catalogue(streams.clone(), &options);
        let (held, hub_options) = (options.held(), options.hub);
        let here = (0u16..).zip(&held).filter(|(_, held)| **held).map(|(group, _)| group);
        let here: Vec<u16> = here.collect();
        let (mut hub, mut receivers, mut begun) = (None::<Hub>, Vec::new(), Vec::new());
        for part in options.parts() {
            let mut base = base(&stages, &streams, &part)?;
            let (past, shards) = take_over(&mut base, &streams, &part)?;
            match &mut hub {
                Some(hub) => hub.absorb(&past)?,
                None => hub = Some(past),
            }
            let runtime = RuntimeOptions { outputs: Outputs::Ring { capacity: 8_192 }, ..part.runtime };
            let mut runtime = match &shards {
                Some(shards) => Runtime::restore(Arc::clone(&stages), runtime, shards)?,
                None => Runtime::start(Arc::clone(&stages), runtime)?,
            };
            receivers.push(runtime.take_outputs());
            begun.push(Begun { base, runtime: Box::new(runtime), options: part });
        }
        if let Some(hub) = &mut hub {
            let loaded = |part: &Begun| part.base.as_ref()?.loaded.as_ref()?.moves.clone();
            let parts =
                begun.iter().filter_map(|part| Some((part.options.feed.group.as_ref()?, loaded(part))));
            hub.ignore_known(&groups::twice(parts));
        }
        let parts: Vec<StatsHandle> = begun.iter().map(|part| part.runtime.stats_handle()).collect();
        let (stats, shards) = (StatsHandle::joined(&parts), receivers.first().map_or(0, Vec::len));
        let receivers: Vec<_> = receivers.into_iter().flatten().collect();
        // A node may hold none of them.
        let hub = hub.map_or_else(|| Hub::new(streams.clone(), hub_options), Ok)?;
        let of_rings = here.iter().flat_map(|&group| std::iter::repeat_n(group, shards)).collect();
        let elsewhere = (0u16..).zip(&held).filter(|(_, held)| !**held).map(|(group, _)| group);
        let (relay_ends, relays_in): (Vec<_>, Vec<_>) = elsewhere
            .map(|group| {
                let (ours, batches) = flume::bounded(BATCHES_MAX);
                ((group, ours), RelayIn { group, batches, complete: 0 })
            })
            .unzip();
        let (names_in, names_out) = flume::bounded(1 << 14);
        let (marker, tracer, latency) = measure(receivers.len(), clock.now());
        let (egress, hub_handle) = Egress::new(
            hub,
            receivers,
            names_out,
            (stats.clone(), tracer),
            catalogue,
            clock,
            (of_rings, relays_in),
        );
        let waker = egress.waker();
        let port = |(group, batches)| {
            let waker = Wake::Thread(waker.clone());
            RelayPort { group, batches, waker, _open: names_in.clone() }
        };
        let relays = relay_ends.into_iter().map(port).collect();
        let egress = std::thread::Builder::new().name("tg-egress".into()).spawn(move || egress.run(idle))?;
        let (mut groups, mut recovered, mut ingests, mut stoppers) = (vec![], vec![], vec![], vec![]);
        let departures = Arc::new(Departures::default());
        for (part, marker) in begun.into_iter().zip(marker.split(shards)) {
            let Begun { base, mut runtime, options } = part;
            let Some(router) = runtime.take_router() else {
                return Err(LiveError::Failed { thread: "routing" });
            };
            let downstream = Downstream::Threads(Threads {
                idle: Idle::new(idle),
                names: names_in.clone(),
                egress: waker.clone(),
                marker,
                watch: Stopwatch::start(),
            });
            let snapshots = options.snapshots.clone();
            let maker = MakerParts::of(&stages, &streams, &options);
            let maker = maker.map(|parts| parts.maker(&hub_handle, &runtime.stats_handle()));
            let ways = (router, runtime.commander());
            let (mut ingest, handle, stopper) = Ingest::new(options, ways, downstream, clock);
            ingest.move_slots(Arc::clone(&departures), hub_handle.clone(), Arc::clone(&stages));
            let (found, ends) = recover(&mut ingest, &handle, base, snapshots.as_ref(), maker)?;
            if let Some(ends) = ends {
                runtime.watch_barriers(&ends.watch)?;
            }
            let thread = std::thread::Builder::new().name("tg-ingest".into()).spawn(move || ingest.run())?;
            groups.push((runtime, thread));
            recovered.push(found);
            ingests.push(handle);
            stoppers.push(stopper);
        }
        let ingest = IngestHandle::joined(&ingests, &held);
        let changes = StreamChanges::new(&ingest, &hub_handle, &stats, logged);
        let engine = Engine::Threads { groups, egress };
        let hub = hub_handle;
        let nothing = Recovered::default();
        Ok(Self {
            changes,
            stats,
            latency,
            ring_events,
            recovered,
            nothing,
            ingests,
            ingest,
            hub,
            stoppers,
            relays,
            engine,
        })
    }

    /// Starts everything as one task of `runtime`, which is best one of a single thread that also moves the packets: where
    /// cores are few, handing a tick from thread to thread costs more than working on it.
    ///
    /// # Errors
    /// As [`Live::start`], and [`LiveError::Staged`].
    pub fn start_on(
        runtime: &tokio::runtime::Handle,
        stages: StageFactory,
        streams: Vec<StreamMeta>,
        mut options: LiveOptions,
    ) -> Result<Self, LiveError> {
        if options.runtime.placement == Placement::Staged {
            return Err(LiveError::Staged);
        }
        if options.groups.is_some() {
            return Err(LiveError::Fused);
        }
        let clock = Clock::default();
        options.runtime.validate()?;
        let mut base = base(&stages, &streams, &options)?;
        let (hub, shards) = take_over(&mut base, &streams, &options)?;
        options.runtime.ring_events = options.runtime.ring_events.min(FUSED_RING);
        let ring_events = options.runtime.ring_events;
        let (router, shards) = match &shards {
            Some(shards) => InlineShards::restore(&stages, options.runtime, shards)?,
            None => InlineShards::new(&stages, options.runtime)?,
        };
        let maker_parts = MakerParts::of(&stages, &streams, &options);
        let snapshots = options.snapshots.clone();
        let catalogue = catalogue(streams, &options);
        let stats = shards.stats_handle();
        let notify = Arc::new(tokio::sync::Notify::new());
        let (desk, hub_handle) = Desk::new(Wake::Task(Arc::clone(&notify)), catalogue, clock, 1);
        let (percentiles, latency) = Percentiles::new(clock.now());
        let commander = shards.commander();
        let downstream = Downstream::Here(Box::new(Here::new(shards, hub, percentiles)));
        let idle = options.runtime.idle;
        let logged = options.journal.is_some() || options.replication.is_some();
        let (mut ingest, ingest_handle, stopper) =
            Ingest::new(options, (router, commander), downstream, clock);
        let maker = maker_parts.map(|parts| parts.maker(&hub_handle, &stats));
        let (recovered, ends) = recover(&mut ingest, &ingest_handle, base, snapshots.as_ref(), maker)?;
        if let (Some(ends), Downstream::Here(here)) = (ends, &ingest.downstream) {
            here.shards.watch_barriers(&ends.watch)?;
        }
        let core = Core { ingest, desk, notify, clock, idle };
        let (report, reported) = flume::bounded(1);
        runtime.spawn(async move {
            if let Some(found) = core.run().await {
                // Nobody may be left to read it.
                let _ = report.send(found);
            }
        });
        let engine = Engine::Task { report: reported, runtime: runtime.clone() };
        let changes = StreamChanges::new(&ingest_handle, &hub_handle, &stats, logged);
        Ok(Self {
            changes,
            stats,
            latency,
            ring_events,
            recovered: vec![recovered],
            nothing: Recovered::default(),
            ingests: vec![ingest_handle.clone()],
            ingest: ingest_handle,
            hub: hub_handle,
            stoppers: vec![stopper],
            relays: Vec::new(),
            engine,
        })
    }

    /// What was found in the journal; of several groups, of the first.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        self.recovered.first().unwrap_or(&self.nothing)
    }

    /// What was found of each group that is held here.
    #[must_use]
    pub fn recovered_groups(&self) -> &[Recovered] {
        &self.recovered
    }

    /// The way in for feeds, of all groups.
    #[must_use]
    pub fn ingest(&self) -> IngestHandle {
        self.ingest.clone()
    }

    /// The way in for the feeds of each group that is held here.
    #[must_use]
    pub fn ingest_groups(&self) -> &[IngestHandle] {
        &self.ingests
    }

    /// The ways in for results of the groups that other nodes hold. Whoever has them lets go of them before the end.
    #[must_use]
    pub fn take_relays(&mut self) -> Vec<RelayPort> {
        std::mem::take(&mut self.relays)
    }

    /// The way to results.
    #[must_use]
    pub fn hub(&self) -> HubHandle {
        self.hub.clone()
    }

    /// The way to other streams while all runs.
    #[must_use]
    pub fn changes(&self) -> &StreamChanges {
        &self.changes
    }

    /// Counters of the shards.
    #[must_use]
    pub fn stats(&self) -> StatsHandle {
        self.stats.clone()
    }

    /// Places of each shard's ring of events.
    #[must_use]
    pub fn ring_events(&self) -> usize {
        self.ring_events
    }

    /// How long it takes from the arrival of events to their results.
    #[must_use]
    pub fn latency(&self) -> LatencyHandle {
        self.latency.clone()
    }

    /// What the engine's threads do with their time, in the order in which events pass them; for any thread to ask. The thread of
    /// the fused core also moves packets, and that is work as well.
    pub fn threads(&self) -> impl Fn() -> Vec<ThreadStats> + Send + Sync + 'static {
        let (ingest, stats, hub) = (self.ingest.clone(), self.stats.clone(), self.hub.clone());
        let fused = match &self.engine {
            Engine::Threads { .. } => None,
            Engine::Task { runtime, .. } => Some((runtime.clone(), Instant::now())),
        };
        move || {
            let one = |name: &str, times| ThreadStats { name: name.to_owned(), times };
            if let Some((runtime, since)) = &fused {
                let busy_ns = runtime.metrics().worker_total_busy_duration(0).as_nanos() as u64;
                let idle_ns = (since.elapsed().as_nanos() as u64).saturating_sub(busy_ns);
                return vec![one("tg-core", ThreadTimes { busy_ns, idle_ns, blocked_ns: 0 })];
            }
            let mut threads: Vec<ThreadStats> = ingest.times().map(|times| one("tg-ingest", times)).collect();
            if threads.len() > 1 {
                for (group, thread) in threads.iter_mut().enumerate() {
                    thread.name = format!("tg-ingest-{group}");
                }
            }
            threads.extend(stats.threads());
            threads.push(one("tg-egress", hub.times()));
            threads
        }
    }

    /// Ends in order: feeds are told, the log is closed, the shards run dry, readers get what is left (for at most 5 s) and
    /// are told. Blocks its thread: from asynchronous code use a blocking task. The runtime of [`Live::start_on`] must still be
    /// there.
    ///
    /// # Errors
    /// [`LiveError::Failed`] when a thread had panicked.
    pub fn finish(self) -> Result<LiveReport, LiveError> {
        self.stoppers.iter().for_each(Stopper::stop);
        drop(self.relays);
        match self.engine {
            Engine::Threads { groups, egress } => {
                let (mut ingests, mut runtime) = (Vec::new(), None::<RuntimeReport>);
                for (shards, ingest) in groups {
                    ingests.push(ingest.join().map_err(|_| LiveError::Failed { thread: "ingest" })?);
                    let report = shards.finish();
                    match &mut runtime {
                        Some(all) => all.merge(report),
                        None => runtime = Some(report),
                    }
                }
                self.hub.wake();
                let hub = egress.join().map_err(|_| LiveError::Failed { thread: "egress" })?;
                let runtime = runtime.unwrap_or_default();
                Ok(LiveReport { ingest: groups::reported(ingests), runtime, hub: hub.stats() })
            }
            Engine::Task { report, .. } => {
                let CoreReport { ingest, runtime, hub } =
                    report.recv().map_err(|_| LiveError::Failed { thread: "core" })?;
                Ok(LiveReport { ingest, runtime, hub: hub.stats() })
            }
        }
    }
}
