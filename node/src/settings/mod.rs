//! What `serve` runs with: a configuration file, and the command line over it.

mod command;
pub(crate) mod map;
mod reload;

pub(crate) use command::run;
pub(crate) use reload::Reloads;

use crate::cli::{Http, PlanArgs, SecurityArgs, ServeArgs, SnapshotWhen};
use crate::demo::endless;
use crate::exit::{Exit, Failure};
use crate::render::{Ui, clean};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tidegate_config::{BYTES_MAX, Bytes, Config, Off, Problems, Span, Stream};

/// A configuration and where its values come from.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// The file it was read from.
    pub(crate) file: Option<PathBuf>,
    /// For each key set in the file, its line.
    lines: BTreeMap<String, usize>,
    /// For each key set on the command line, by which option.
    options: BTreeMap<&'static str, &'static str>,
    /// What the file said of keys that options overrode.
    overridden: BTreeMap<&'static str, String>,
}

/// Why a file is no configuration.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// It cannot be read.
    Read(std::io::Error),
    /// It can, and this is wrong with it.
    Problems(Problems),
}

/// Reads a configuration; a file beyond the bound is not read to its end.
fn load(path: &Path) -> Result<tidegate_config::Read, LoadError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(LoadError::Read)?;
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(LoadError::Read)?;
    tidegate_config::read(&bytes).map_err(LoadError::Problems)
}

/// What a file is called in messages.
fn name(path: &Path) -> String {
    clean(&path.to_string_lossy())
}

/// Says what is wrong with a file, in full, and returns how a command ends for it.
fn refused(path: &Path, error: LoadError, ui: &Ui) -> Failure {
    let name = name(path);
    match error {
        LoadError::Read(error) => Failure::new(
            Exit::Input,
            anyhow::Error::new(error).context(format!("cannot read the configuration {name}")),
        ),
        LoadError::Problems(problems) => {
            ui.report(&problems.render(&name, ui.colors_stderr()));
            Failure::new(Exit::Input, anyhow::anyhow!("{name} is no configuration"))
        }
    }
}

impl Settings {
    /// What a command line of `serve` asks for.
    ///
    /// # Errors
    /// When its configuration cannot be read, or what it asks for cannot be.
    pub(crate) fn of(args: &ServeArgs, ui: &Ui) -> Result<Self, Failure> {
        let settings = Self::from_file(args.plan.config.as_deref(), ui)?.with_options(args);
        settings.config.plan()?;
        Ok(settings)
    }

    /// What the computing options of any command ask for.
    ///
    /// # Errors
    /// As [`Settings::of`].
    pub(crate) fn of_plan(args: &PlanArgs, ui: &Ui) -> Result<Self, Failure> {
        let settings = Self::from_file(args.config.as_deref(), ui)?.with_plan(args);
        settings.config.plan()?;
        Ok(settings)
    }

    fn from_file(file: Option<&Path>, ui: &Ui) -> Result<Self, Failure> {
        let read = match file {
            None => tidegate_config::Read { config: Config::default(), lines: BTreeMap::new() },
            Some(path) => load(path).map_err(|error| refused(path, error, ui))?,
        };
        Ok(Self::from_read(file, read))
    }

    fn from_read(file: Option<&Path>, read: tidegate_config::Read) -> Self {
        let lines = read.lines.into_iter().map(|(key, (line, _))| (key, line)).collect();
        let (options, overridden) = (BTreeMap::new(), BTreeMap::new());
        Self { config: read.config, file: file.map(Path::to_owned), lines, options, overridden }
    }

    /// The command line has the last word.
    fn with_options(mut self, args: &ServeArgs) -> Self {
        if let Some(address) = args.listen {
            self.set("listen.quic", "--listen", |config| config.listen.quic = address);
        }
        if let Some(Http(address)) = args.http {
            self.set("listen.http", "--http", |config| {
                config.listen.http = address.map_or(Off::Off, Off::On)
            });
        }
        if let Some(folder) = &args.data {
            // Relative to where the command runs, not to the file.
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            self.set("data.folder", "--data", |config| config.data.folder = Some(folder));
        }
        if args.journal {
            self.set("journal.enabled", "--journal", |config| config.journal.enabled = true);
        }
        if let Some(sync) = args.journal_sync {
            self.set("journal.sync", "--journal-sync", |config| config.journal.sync = sync);
        }
        if let Some(when) = args.journal_snapshot {
            // The one that is given is the one that counts.
            let (mut bytes, mut records, mut every) = (Off::Off, Off::Off, Off::Off);
            match when {
                SnapshotWhen::Off => {}
                SnapshotWhen::Bytes(count) => bytes = Off::On(Bytes(count)),
                SnapshotWhen::Records(count) => records = Off::On(count),
                SnapshotWhen::Every(span) => every = Off::On(Span(span)),
            }
            let option = "--journal-snapshot";
            self.set("journal.snapshot_bytes", option, |config| config.journal.snapshot_bytes = bytes);
            self.set("journal.snapshot_records", option, |config| config.journal.snapshot_records = records);
            self.set("journal.snapshot_every", option, |config| config.journal.snapshot_every = every);
        }
        if let Some(shards) = args.shards {
            self.set("engine.shards", "--shards", |config| config.engine.shards = shards);
        }
        if let Some(placement) = args.placement {
            self.set("engine.placement", "--placement", |config| config.engine.placement = placement);
        }
        if let Some(threads) = args.threads {
            self.set("engine.threads", "--threads", |config| config.engine.threads = threads);
        }
        if let Some(folder) = &args.cluster {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            self.set("cluster.folder", "--cluster", |config| config.cluster.folder = Some(folder));
        }
        let mut settings = self.with_security(&args.security).with_alerts(args).with_plan(&args.plan);
        if let Some(folder) = settings.config.cluster.folder.clone()
            && settings.config.tls.cert.is_none()
        {
            // Clients see the node's own certificate, unless another one is named.
            let by = if args.cluster.is_some() { "--cluster" } else { "cluster.folder" };
            let file = |name| Some(folder.join(name));
            settings.set("tls.cert", by, |config| config.tls.cert = file("node-cert.pem"));
            settings.set("tls.key", by, |config| config.tls.key = file("node-key.pem"));
        }
        if !args.surface.is_empty() || args.spectrum || args.risk.is_some() {
            for (key, option, asked) in [
                ("surface", "--surface", !args.surface.is_empty()),
                ("spectrum", "--spectrum", args.spectrum),
                ("risk", "--risk", args.risk.is_some()),
            ] {
                let sweep = if key == "surface" { &args.surface[..] } else { &[] };
                let risk = args.risk.filter(|_| key == "risk");
                if asked {
                    settings.set(key, option, |config| {
                        config.derive_from_all(sweep, key == "spectrum", risk);
                    });
                }
            }
        }
        // The demo's network tells its flows to the node itself.
        if args.demo && settings.config.traffic.exports.is_empty() {
            let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            settings.set("traffic.exports", "--demo", |config| config.traffic.exports = vec![own]);
        }
        // The demo has hosts too; whoever names streams gets those.
        if args.demo && settings.config.stream.is_empty() {
            let hosts = Stream { hosts: Some(crate::plan::minute()), ..Stream::default() };
            let streams = Config::usual_streams().into_iter().chain([hosts]).collect();
            settings.set("stream", "--demo", |config| config.stream = streams);
            if settings.config.derived().is_empty() {
                settings.set("surface", "--demo", |config| config.surface = endless::surfaces());
                settings.set("spectrum", "--demo", |config| config.spectrum = vec![endless::spectrum()]);
                settings.set("risk", "--demo", |config| config.risk = vec![endless::risk()]);
            }
        }
        settings
    }

    /// The same for who may connect.
    fn with_security(mut self, asked: &SecurityArgs) -> Self {
        // Relative to where the command runs, not to the file; without one, as it was written.
        let beside_file = self.file.is_some();
        let here = |path: &PathBuf| match std::path::absolute(path) {
            Ok(absolute) if beside_file => absolute,
            _ => path.clone(),
        };
        if let (Some(cert), Some(key)) = (&asked.cert, &asked.key) {
            self.set("tls.cert", "--cert", |config| config.tls.cert = Some(here(cert)));
            self.set("tls.key", "--key", |config| config.tls.key = Some(here(key)));
        }
        if let Some(ca) = &asked.client_ca {
            self.set("tls.client_ca", "--client-ca", |config| config.tls.client_ca = Some(here(ca)));
        }
        if let (false, Some(audience)) = (asked.token_key.is_empty(), &asked.audience) {
            let keys = asked.token_key.iter().map(here).collect();
            self.set("auth.token_keys", "--token-key", |config| config.auth.token_keys = keys);
            let audience = Some(audience.clone());
            self.set("auth.audience", "--audience", |config| config.auth.audience = audience);
        }
        if asked.anonymous {
            self.set("auth.required", "--anonymous", |config| config.auth.required = Some(false));
        }
        self
    }

    /// The same for what is looked for, and what becomes of it.
    fn with_alerts(mut self, args: &ServeArgs) -> Self {
        let here = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        if !args.flows.is_empty() {
            self.set("traffic.exports", "--flows", |config| config.traffic.exports = args.flows.clone());
        }
        if let Some(interface) = &args.interface {
            let interface = Some(interface.clone());
            self.set("traffic.interface", "--interface", |config| config.traffic.interface = interface);
        }
        if args.promiscuous {
            self.set("traffic.promiscuous", "--promiscuous", |config| config.traffic.promiscuous = true);
        }
        if !args.traffic.is_empty() {
            let files = args.traffic.iter().map(here).collect();
            self.set("traffic.files", "--traffic", |config| config.traffic.files = files);
        }
        if let Some(one_in) = args.edges {
            self.set("traffic.edges", "--edges", |config| config.traffic.edges = Some(one_in));
        }
        if let Some(budget) = args.tell.budget {
            self.set("alerts.budget", "--budget", |config| config.alerts.budget = Some(budget));
        }
        if !args.tell.group.is_empty() {
            let groups = args.tell.group.iter().map(ToString::to_string).collect();
            self.set("alerts.groups", "--group", |config| config.alerts.groups = groups);
        }
        let rules = &args.rules;
        if !rules.sigma.is_empty() {
            let sigma = rules.sigma.iter().map(here).collect();
            self.set("alerts.sigma", "--sigma", |config| config.alerts.sigma = sigma);
        }
        if !rules.pattern.is_empty() {
            let patterns = rules.pattern.clone();
            self.set("alerts.patterns", "--pattern", |config| config.alerts.patterns = patterns);
        }
        if !rules.sink.is_empty() {
            let sinks = rules.sink.iter().map(ToString::to_string).collect();
            self.set("alerts.sinks", "--sink", |config| config.alerts.sinks = sinks);
        }
        self
    }

    /// The same for what is computed.
    fn with_plan(mut self, plan: &PlanArgs) -> Self {
        if let Some(disorder) = plan.disorder {
            self.set("engine.disorder", "--disorder", |config| config.engine.disorder = Span(disorder));
        }
        if let Some(late) = plan.late {
            self.set("bars.late", "--late", |config| config.bars.late = late);
        }
        if let Some(horizon) = plan.horizon {
            self.set("bars.horizon", "--horizon", |config| config.bars.horizon = Span(horizon));
        }
        if plan.no_history {
            self.set("bars.history", "--no-history", |config| config.bars.history = false);
        }
        let over_bars = plan.over_bars();
        if !(plan.bars.is_empty() && plan.hosts.is_empty()) || over_bars {
            let usual = || Config::usual_streams().into_iter().filter_map(|stream| stream.bars).collect();
            // What reads bars needs them; hosts do not.
            let without_bars = !over_bars && !plan.hosts.is_empty();
            let bars: Vec<_> =
                if plan.bars.is_empty() && !without_bars { usual() } else { plan.bars.clone() };
            let bars = bars.into_iter().map(|bars| Stream {
                bars: Some(bars),
                indicators: plan.ind.clone(),
                regime: plan.regime,
                anomaly: plan.anomaly,
                ..Stream::default()
            });
            let hosts = plan.hosts.iter().map(|&width| Stream { hosts: Some(width), ..Stream::default() });
            let streams = bars.chain(hosts).collect();
            self.set("stream", "--bars, --ind, --regime, --anomaly and --hosts", |config| {
                config.stream = streams;
            });
        }
        self
    }

    fn set(&mut self, key: &'static str, option: &'static str, change: impl FnOnce(&mut Config)) {
        if let Some((section, key_name)) = key.split_once('.')
            && self.lines.contains_key(key)
            && let Some(was) = self.config.show(section, 0, key_name)
        {
            self.overridden.insert(key, was);
        }
        change(&mut self.config);
        self.options.insert(key, option);
    }

    /// Where the value of a key comes from: an option, a line of the file, or its default.
    fn origin(&self, key: &str) -> String {
        let file = self.file.as_deref().map(name).unwrap_or_default();
        let section = key.split(['[', '.']).next().unwrap_or_default();
        if let Some((key, option)) =
            self.options.get_key_value(key).or_else(|| self.options.get_key_value(section))
        {
            let under = match (self.overridden.get(key), self.lines.get(*key)) {
                (Some(was), Some(line)) => format!(" ({file}:{line} says {was})"),
                _ => String::new(),
            };
            return format!("{option}{under}");
        }
        self.lines.get(key).map_or_else(|| "default".to_owned(), |line| format!("{file}:{line}"))
    }
}
