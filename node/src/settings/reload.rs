//! SIGHUP: the file is read again and checked as a whole, a plan is printed, and what a running server can take is applied.
//! When anything is wrong, nothing is.

use super::{LoadError, Settings, load, map, name};
use crate::cli::ServeArgs;
use crate::exit::Failure;
use crate::place::now_s;
use crate::render::Ui;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_config::{Changes, changes};
use tidegate_live::HubHandle;
use tidegate_quic::QuicServer;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// The server's side of reloads: the signal, and what runs.
pub(crate) struct Reloads {
    asked: Arc<AtomicBool>,
    running: Settings,
}

impl Reloads {
    /// From now on SIGHUP asks for a reload in place of ending the process. Without a file there is nothing to read again, and the
    /// signal keeps its meaning.
    pub(crate) fn listen(running: Settings, network: &Handle) -> Result<Self, Failure> {
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
        Ok(Self { asked, running })
    }

    /// Does what was asked for since the last call.
    pub(crate) fn poll(
        &mut self,
        args: &ServeArgs,
        (hub, server): (&HubHandle, &QuicServer),
        network: &Handle,
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
        let plan = changes(&self.running.config, &wanted.config);
        ui.report(&format!("reload: {file_name}\n{plan}"));
        match self.apply(&plan, wanted, (hub, server), network) {
            Ok(()) => ui.report(&format!("reload: {}\n", summary(&plan))),
            Err(why) => ui.report(&format!("error: {why}\nreload: refused, nothing changed\n")),
        }
    }

    /// Applies what needs no restart, all of it or nothing.
    fn apply(
        &mut self,
        plan: &Changes,
        wanted: Settings,
        (hub, server): (&HubHandle, &QuicServer),
        network: &Handle,
    ) -> Result<(), String> {
        let mut config = self.running.config.clone();
        plan.apply(&mut config, &wanted.config);
        // Certificates and keys are read again even when no key changed: files are renewed in place.
        let next = Settings { config: config.clone(), ..wanted.clone() };
        let data = self.running.data_folder().map_err(|failure| format!("{:#}", failure.error))?;
        let security = next.security().map_err(|failure| format!("{:#}", failure.error))?;
        let loaded = security.load(&data, now_s).map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        let (security, _) = loaded?;
        // First what can still be refused, such as a key that is not its certificate's: then nothing has changed.
        server.reload(security).map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        let options = map::hub(&config);
        if options != map::hub(&self.running.config) {
            network
                .block_on(hub.ask(move |hub, _| hub.set_options(options)))
                .map_err(|gone| gone.to_string())?
                .map_err(|error| error.to_string())?;
        }
        self.running = next;
        Ok(())
    }
}

fn summary(plan: &Changes) -> String {
    let restarts = plan.restarts().count();
    match (plan.0.len() - restarts, restarts) {
        (0, 0) => "nothing changed but what certificates and keys say".to_owned(),
        (applied, 0) => format!("{applied} applied"),
        (applied, restarts) => format!("{applied} applied, {restarts} after a restart"),
    }
}
