//! SIGHUP: the file is read again and checked as a whole, a plan is printed, and what a running server can take is applied.
//! When anything is wrong, nothing is.

use super::{LoadError, Settings, load, map, name};
use crate::cli::ServeArgs;
use crate::exit::Failure;
use crate::place::now_s;
use crate::render::Ui;
use crate::serve::alerts::Watch;
use crate::serve::derived::{self, Asked, Deriving};
use crate::serve::{Stages, meta, stages};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tidegate_actors::runtime::StageFactory;
use tidegate_config::derived::is_derived;
use tidegate_config::{Changes, Config, StreamStep, changes};
use tidegate_live::{HubHandle, Live, NewStreams, StreamChanges};
use tidegate_quic::QuicServer;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// The server's side of reloads: the signal, and what runs.
pub(crate) struct Reloads {
    asked: Arc<AtomicBool>,
    running: Settings,
    hub: HubHandle,
    streams: StreamChanges,
    /// The numbers of the shards' streams by name.
    numbers: BTreeMap<String, u16>,
    stages: Stages,
}

/// How long a reload waits until readers can have new streams. They come all the same, however long that takes.
const PATIENCE: Duration = Duration::from_secs(10);

impl Reloads {
    /// From now on SIGHUP asks for a reload in place of ending the process. Without a file there is nothing to read again, and the
    /// signal keeps its meaning.
    pub(crate) fn listen(
        running: Settings,
        live: &Live,
        stages: Stages,
        network: &Handle,
    ) -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        if running.file.is_some() {
            let raise = Arc::clone(&asked);
            let _entered = network.enter();
            let mut hangup = signal(SignalKind::hangup())
                .map_err(|error| Failure::internal(format!("cannot listen for SIGHUP: {error}")))?;
            network.spawn(async move {
                while hangup.recv().await.is_some() {
                    raise.store(true, Ordering::Relaxed);
                }
            });
        }
        let catalogue = live.hub().catalogue();
        let numbers = catalogue.open().map(|(number, stream)| (stream.name.clone(), number));
        let numbers = numbers.filter(|(name, _)| !is_derived(name)).collect();
        let (hub, streams) = (live.hub(), live.changes().clone());
        Ok(Self { asked, running, hub, streams, numbers, stages })
    }

    /// Does what was asked for since the last call.
    pub(crate) fn poll(
        &mut self,
        args: &ServeArgs,
        server: &QuicServer,
        network: &Handle,
        (alerts, deriving): (Option<&Watch>, &mut Deriving),
        ui: &Ui,
    ) {
        if !self.asked.swap(false, Ordering::Relaxed) {
            return;
        }
        let Some(file) = self.running.file.clone() else { return };
        let file_name = name(&file);
        let wanted = match load(&file) {
            Ok(read) => Settings::from_read(Some(&file), read).with_options(args),
            Err(error) => {
                let why = match error {
                    LoadError::Read(error) => format!("error: cannot read {file_name}: {error}\n"),
                    LoadError::Problems(problems) => problems.render(&file_name, ui.colors_stderr()),
                };
                ui.report(&format!("{why}reload: refused, nothing changed\n"));
                return;
            }
        };
        // What a file says alone may not be possible together with the options.
        if let Err(error) = wanted.config.plan() {
            ui.report(&format!("error: {error}\nreload: refused, nothing changed\n"));
            return;
        }
        let mut plan = changes(&self.running.config, &wanted.config);
        if self.streams.possible().is_err() {
            plan = plan.with_fixed_streams();
        }
        ui.report(&format!("reload: {file_name}\n{plan}"));
        // Before the streams come, so that whoever looks at them knows what they hold for an anomaly.
        alerts.into_iter().for_each(|alerts| alerts.reloaded(&wanted.config));
        match self.apply(&plan, wanted, server, network, deriving, ui) {
            Ok(()) => ui.report(&format!("reload: {}\n", summary(&plan))),
            Err(why) => ui.report(&format!("error: {why}\nreload: refused, nothing changed\n")),
        }
    }

    /// Applies what needs no restart, all of it or nothing.
    fn apply(
        &mut self,
        plan: &Changes,
        wanted: Settings,
        server: &QuicServer,
        network: &Handle,
        deriving: &mut Deriving,
        ui: &Ui,
    ) -> Result<(), String> {
        let mut config = self.running.config.clone();
        plan.apply(&mut config, &wanted.config);
        // Certificates and keys are read again even when no key changed: files are renewed in place.
        let next = Settings { config: config.clone(), ..wanted.clone() };
        let data = self.running.data_folder().map_err(|failure| format!("{:#}", failure.error))?;
        let security = next.security().map_err(|failure| format!("{:#}", failure.error))?;
        let loaded = security.load(&data, now_s).map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        let (security, _) = loaded?;
        let derived = Asked::of(&next).map_err(|failure| format!("{:#}", failure.error))?;
        // First what can still be refused, such as a key that is not its certificate's: then nothing has changed.
        let streams = self.new_streams(plan, &config)?;
        if plan.streams().any(|(name, _)| is_derived(name)) {
            deriving.prepare(&derived, ui).map_err(|failure| format!("{:#}", failure.error))?;
        }
        server.reload(security).map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        let options = map::hub(&config);
        if options != map::hub(&self.running.config) {
            network
                .block_on(self.hub.ask(move |hub, _| hub.set_options(options)))
                .map_err(|gone| gone.to_string())?
                .map_err(|error| error.to_string())?;
        }
        if let Some((new, after)) = streams {
            // A task of its own: it must not stop half-way.
            let changes = self.streams.clone();
            let task = network.spawn(async move { changes.change(new).await });
            let waited = network.block_on(async { tokio::time::timeout(PATIENCE, task).await });
            if let Ok(outcome) = waited {
                outcome.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            }
            self.numbers = after.numbers;
        }
        if plan.streams().any(|(name, _)| is_derived(name)) {
            let ends = |(name, step): &(&str, StreamStep)| is_derived(name) && *step != StreamStep::Added;
            let ended: Vec<String> = plan.streams().filter(ends).map(|(name, _)| name.to_owned()).collect();
            deriving.derive(derived, &ended, ui).map_err(|failure| format!("{:#}", failure.error))?;
        }
        if plan.streams().next().is_some() {
            let streams = config.plan().and_then(|what| what.streams()).map_err(|error| error.to_string())?;
            let nodes = stages(&streams).into_iter().chain(derived::stages(&config)).collect();
            *self.stages.write().unwrap_or_else(PoisonError::into_inner) = nodes;
        }
        self.running = next;
        Ok(())
    }

    /// What to tell the engine of other streams, and what holds once it has them; `None` when they stay.
    fn new_streams(&self, plan: &Changes, config: &Config) -> Result<Option<(NewStreams, After)>, String> {
        let steps: BTreeMap<&str, StreamStep> =
            plan.streams().filter(|(name, _)| !is_derived(name)).collect();
        if steps.is_empty() {
            return Ok(None);
        }
        let what = config.plan().map_err(|error| error.to_string())?;
        let streams = what.streams().map_err(|error| error.to_string())?;
        let ends = |name: &str| matches!(steps.get(name), Some(StreamStep::Removed | StreamStep::Changed));
        let (gone, mut numbers): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.numbers.clone().into_iter().partition(|(name, _)| ends(name));
        let ended = gone.into_values().collect();
        let kept = numbers.keys().cloned().collect();
        let coming: Vec<_> = streams.iter().filter(|stream| !numbers.contains_key(&stream.name)).collect();
        // Streams that are derived have numbers as well.
        let first = self.hub.catalogue().streams.len() as u16;
        numbers.extend((first..).zip(&coming).map(|(number, stream)| (stream.name.clone(), number)));
        let coming = coming.into_iter().map(meta).collect();
        let numbered = numbers.clone();
        let make = move |number: u16| -> StageFactory {
            debug_assert_eq!(number, first, "nobody else gives numbers");
            Arc::new(move || what.stages_numbered(&numbered).unwrap_or_default())
        };
        let new = NewStreams { ended, coming, kept, stages: Box::new(make) };
        Ok(Some((new, After { numbers })))
    }
}

/// What holds once the streams have changed.
struct After {
    numbers: BTreeMap<String, u16>,
}

fn summary(plan: &Changes) -> String {
    let restarts = plan.restarts().count();
    match (plan.0.len() - restarts, restarts) {
        (0, 0) => "nothing changed but what certificates and keys say".to_owned(),
        (applied, 0) => format!("{applied} applied"),
        (applied, restarts) => format!("{applied} applied, {restarts} after a restart"),
    }
}
