//! Streams derived from whole sets of bars: surfaces, spectra, risks.
//!
//! ```text
//! hub --ring: bars, watermarks--> tg-derive: sweeps, cross-sections, simulations, on a GPU or on all cores --ring: rows--> hub
//! ```
//! Nothing here is waited for by what computes bars, and nothing of it is state of the log: every node derives its rows from the bars
//! alone, under numbers that follow from them. A row of a symbol has the number of the bar that it is of; a row of all symbols has
//! that of its step, the time over the bars' width.

mod batched;
mod cross;
mod stats;
mod steps;
mod surface;
pub(in crate::serve) mod symbols;
mod work;

use crate::batch::{backend, gpu_policy, risk, surface::sweepable};
use crate::exit::Failure;
use crate::render::Ui;
use crate::settings::Settings;
use batched::Batched;
use cross::{Cross, RiskOf, Spectrum};
use stats::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use steps::Steps;
use surface::Surface;
use symbols::{Names, Symbols};
use tidegate_config::derived::{Computes, Derived, Shows, width_ns};
use tidegate_gateway::{DerivedStats, StageNode};
use tidegate_gpu::{Accel, GpuPolicy};
use tidegate_live::derived::{Began, Derive};
use tidegate_live::{ChangeError, HubHandle, StreamChanges};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;
use tidegate_regime::CrossOptions;
use tokio::runtime::Handle;
use work::{Class, Over, Told, Work, Worker};

/// How often it is tried to begin while the bars' streams are being changed, and how many times.
const AGAIN: Duration = Duration::from_millis(100);
const TRIES: usize = 100;
/// How long a device may take for what is not the batcher's. Then the CPU computes it, and the device is opened anew.
const DEVICE_LONGEST: Duration = Duration::from_secs(10);

/// The stream of the bars that something is derived from: the key of what is of all symbols.
fn bars_of(derived: &Derived) -> String {
    format!("bars.{}", derived.bars.name())
}

/// The stages of what is derived, and what feeds them.
pub(crate) fn stages(config: &tidegate_config::Config) -> Vec<StageNode> {
    let of = |derived: Derived| {
        let upstream = bars_of(&derived);
        derived.streams.into_iter().map(move |(name, _)| StageNode {
            name: name.clone(),
            upstream: upstream.clone(),
            stream: name,
        })
    };
    config.derived().into_iter().flat_map(of).collect()
}

/// The names of the streams of what is derived.
pub(crate) fn names(config: &tidegate_config::Config) -> Vec<String> {
    let streams = config.derived().into_iter().flat_map(|derived| derived.streams);
    streams.map(|(name, _)| name).collect()
}

/// What is to be derived, checked as far as it can be before anything runs.
#[derive(Clone)]
pub(crate) struct Asked {
    classes: Vec<(Derived, Option<BTreeMap<String, f64>>)>,
    /// Records of each symbol that may be known from before.
    past: usize,
}

impl Asked {
    /// What the settings ask for.
    ///
    /// # Errors
    /// When shares of a portfolio cannot be read, or bars are not served.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Failure> {
        let streams = settings.config.streams();
        let class = |derived: Derived| {
            // A file says so itself; options may have left the bars out.
            if !streams.iter().any(|stream| stream.bars.as_ref() == Some(&derived.bars)) {
                return Err(Failure::usage(format!(
                    "`{}` is derived from bars `{}`, which are not served: name them with --bars as well",
                    derived.name, derived.bars
                )));
            }
            if let Computes::Surface { specs, shows: Shows::Value, .. } = &derived.computes {
                let specs = specs.iter().filter_map(sweepable).collect();
                let checked = batched::check(&derived.name, specs, derived.symbols_max);
                checked.map_err(|error| Failure::usage(format!("`{}`: {error}", derived.name)))?;
            }
            let weights = match &derived.computes {
                Computes::Risk { weights: Some(file), .. } => Some(risk::weights(&settings.beside(file))?),
                _ => None,
            };
            Ok((derived, weights))
        };
        let classes = settings.config.derived().into_iter().map(class).collect::<Result<_, Failure>>()?;
        Ok(Self { classes, past: settings.config.subscribers.lookback_records })
    }

    fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    fn metas(&self) -> Vec<StreamMeta> {
        let streams = self.classes.iter().flat_map(|(derived, _)| &derived.streams);
        let meta = |(name, columns): &(String, Vec<String>)| StreamMeta {
            name: name.clone(),
            kind: StreamKind::Values,
            columns: columns.clone(),
        };
        streams.map(meta).collect()
    }

    /// What computes it, with the numbers that streams have by name; without those whose bars are not there, and what cannot be started.
    fn classes(&self, numbers: &BTreeMap<String, u16>, policy: GpuPolicy, shared: &Shared) -> Vec<Class> {
        let class = |(derived, weights): &(Derived, Option<BTreeMap<String, f64>>)| {
            let bars = bars_of(derived);
            let width_ns = width_ns(&derived.bars).unwrap_or(1);
            let cross = |cross: Cross| {
                let (keep, max) =
                    (cross.steps(), weights.as_ref().map_or(derived.symbols_max, BTreeMap::len));
                Work::Cross { cross, steps: Box::new(Steps::new(keep, max)), width_ns, conflated: 0 }
            };
            let work = match &derived.computes {
                Computes::Surface { specs, shows, ahead } => {
                    let specs: Vec<_> =
                        specs.iter().filter_map(|spec| Some((*spec, sweepable(spec)?))).collect();
                    Work::Surface(if *shows == Shows::Value {
                        match Batched::start(&derived.name, &specs, derived.symbols_max, policy) {
                            Ok(batched) => Surface::values(specs, batched),
                            Err(error) => {
                                shared.failed(&derived.name, &error);
                                return None;
                            }
                        }
                    } else {
                        Surface::worth(specs, *shows, *ahead, derived.symbols_max)
                    })
                }
                Computes::Spectrum { window, shrink } => {
                    let options = CrossOptions { rows: *window as usize, shrink: *shrink };
                    cross(Cross::Spectrum(Spectrum::new(options)))
                }
                Computes::Risk { horizon_bars, window, factors, tail, levels, paths, seed, .. } => {
                    cross(Cross::Risk(RiskOf {
                        weights: weights.clone(),
                        horizon_bars: *horizon_bars,
                        window: *window as usize,
                        factors: *factors as usize,
                        tail: risk::tail(*tail),
                        levels: levels.clone(),
                        paths: *paths,
                        seed: *seed,
                    }))
                }
            };
            let symbols = match weights {
                // Of a portfolio nothing else counts.
                Some(weights) => Symbols::new(&weights.keys().cloned().collect::<Vec<_>>()),
                None => Symbols::new(&derived.symbols),
            };
            Some(Class {
                name: derived.name.clone(),
                reads: *numbers.get(&bars)?,
                bars,
                first: *numbers.get(&derived.name)?,
                columns: derived.streams.iter().map(|(_, columns)| columns.len()).collect(),
                symbols,
                work,
            })
        };
        self.classes.iter().filter_map(class).collect()
    }
}

/// The thread and what it has told so far.
pub(crate) struct Deriving {
    changes: StreamChanges,
    hub: HubHandle,
    network: Handle,
    backend: Option<Arc<Accel>>,
    shared: Arc<Shared>,
    /// How often others were asked for. A thread begins again by itself only while it is the newest.
    turn: Arc<Mutex<u64>>,
    thread: Option<JoinHandle<Told>>,
}

/// The numbers of all open streams.
fn numbers(hub: &HubHandle) -> BTreeMap<String, u16> {
    hub.catalogue().open().map(|(number, stream)| (stream.name.clone(), number)).collect()
}

impl Deriving {
    /// Nothing yet.
    pub(crate) fn new(changes: StreamChanges, hub: HubHandle, network: Handle) -> Self {
        Self {
            changes,
            hub,
            network,
            backend: None,
            shared: Arc::default(),
            turn: Arc::default(),
            thread: None,
        }
    }

    /// Looks whether that could be computed here, so that what cannot is refused before anything has changed.
    ///
    /// # Errors
    /// When a GPU is required and there is none.
    pub(crate) fn prepare(&mut self, asked: &Asked, ui: &Ui) -> Result<(), Failure> {
        if !asked.is_empty() && self.backend.is_none() {
            gpu_policy()?;
            self.backend = Some(Arc::new(backend(ui)?));
        }
        Ok(())
    }

    /// Derives this from now on, in place of what was derived before. Streams of `ended` end; those that are there already go on under
    /// their numbers.
    ///
    /// # Errors
    /// When a GPU is required and there is none, or the streams cannot be; then nothing has changed.
    pub(crate) fn derive(&mut self, asked: Asked, ended: &[String], ui: &Ui) -> Result<(), Failure> {
        if asked.is_empty() && self.thread.is_none() {
            return Ok(());
        }
        let policy = gpu_policy()?;
        let backend = match &self.backend {
            Some(backend) => Arc::clone(backend),
            None => Arc::new(backend(ui)?),
        };
        let before = numbers(&self.hub);
        let ended: Vec<u16> = ended.iter().filter_map(|name| before.get(name)).copied().collect();
        let stays = |meta: &StreamMeta| before.get(&meta.name).is_some_and(|number| !ended.contains(number));
        let coming: Vec<StreamMeta> = asked.metas().into_iter().filter(|meta| !stays(meta)).collect();
        let (began, mine) = {
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let began = self.begin(&asked, &ended, &coming)?;
            *turn += 1;
            (began, *turn)
        };
        // The one before was told by the end of its ring.
        let told = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let mut numbers = before;
        numbers.extend((began.first..).zip(&coming).map(|(number, meta)| (meta.name.clone(), number)));
        let run = Run {
            asked,
            numbers,
            policy,
            backend: Arc::clone(&backend),
            shared: Arc::clone(&self.shared),
            changes: self.changes.clone(),
            hub: self.hub.clone(),
            network: self.network.clone(),
            turn: (Arc::clone(&self.turn), mine),
        };
        self.shared.told(&backend, std::iter::empty());
        self.backend = Some(backend);
        let thread = std::thread::Builder::new().name("tg-derive".to_owned());
        let thread = thread.spawn(move || run.life(began, told));
        let no_thread = |error| Failure::internal(format!("no thread for derived streams: {error}"));
        self.thread = Some(thread.map_err(no_thread)?);
        Ok(())
    }

    fn begin(&self, asked: &Asked, ended: &[u16], coming: &[StreamMeta]) -> Result<Began, Failure> {
        let numbers = numbers(&self.hub);
        let derive = || Derive {
            ended: ended.to_vec(),
            coming: coming.to_vec(),
            keys: asked.classes.iter().map(|(derived, _)| bars_of(derived)).collect(),
            reads: reads(asked, &numbers),
            past: asked.past,
        };
        let mut tries = 0;
        loop {
            match self.network.block_on(self.changes.derive(derive())) {
                Ok(began) => return Ok(began),
                Err(ChangeError::Busy) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(AGAIN);
                }
                Err(error) => return Err(Failure::internal(format!("derived streams: {error}"))),
            }
        }
    }

    /// Counters, for the gateway.
    pub(crate) fn stats(&self) -> impl Fn() -> DerivedStats + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.stats()
    }

    /// What people are to be told since the last call.
    pub(crate) fn tick(&self, ui: &Ui) {
        self.shared.notes().iter().for_each(|note| ui.note(note));
    }

    /// Waits for its end, which that of the hub brings.
    pub(crate) fn finish(self, ui: &Ui) {
        self.tick(ui);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            ui.note("warning: the thread of derived streams ended by a bug");
        }
    }
}

/// The numbers of the bars that something is derived from.
fn reads(asked: &Asked, numbers: &BTreeMap<String, u16>) -> Vec<u16> {
    let bars = asked.classes.iter().map(|(derived, _)| bars_of(derived));
    let mut reads: Vec<u16> = bars.filter_map(|bars| numbers.get(&bars).copied()).collect();
    reads.sort_unstable();
    reads.dedup();
    reads
}

/// What the thread begins with, however often it begins.
struct Run {
    asked: Asked,
    numbers: BTreeMap<String, u16>,
    policy: GpuPolicy,
    backend: Arc<Accel>,
    shared: Arc<Shared>,
    changes: StreamChanges,
    hub: HubHandle,
    network: Handle,
    /// Which one is the newest, and which one this is.
    turn: (Arc<Mutex<u64>>, u64),
}

impl Run {
    fn life(self, mut began: Began, mut told: Told) -> Told {
        loop {
            let worker = Worker {
                classes: self.asked.classes(&self.numbers, self.policy, &self.shared),
                backend: Arc::clone(&self.backend),
                hub: self.hub.clone(),
                shared: Arc::clone(&self.shared),
                names: Names::default(),
                told,
            };
            let (worker, over) = worker.run(began);
            told = worker.told;
            match over {
                Over::Ended => return told,
                Over::Lost(rings) => {
                    self.shared.note("derived streams fell behind the bars and begin anew".to_owned());
                    let reads = reads(&self.asked, &self.numbers);
                    let again = Derive { reads, past: self.asked.past, ..Derive::default() };
                    let (newest, mine) = (&self.turn.0, self.turn.1);
                    began = loop {
                        // What a reload has begun must not be taken from it: it waits for this thread's end.
                        let newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
                        if *newest != mine {
                            return told;
                        }
                        match self.network.block_on(self.changes.derive(again.clone())) {
                            Ok(next) => break next,
                            // A reload that changes other streams; it starts no other thread.
                            Err(ChangeError::Busy) => {
                                drop(newest);
                                std::thread::sleep(AGAIN);
                            }
                            // The server ends.
                            Err(_) => return told,
                        }
                    };
                    drop(rings);
                }
            }
        }
    }
}
