//! `tidegate serve`: feeds in, subscribers out, until somebody says stop.

pub(crate) mod alerts;
mod cluster;
pub(crate) mod derived;
mod journal;
mod kafka;

use crate::cli::ServeArgs;
use crate::cluster::{Member, Watch};
use crate::demo::endless::{COMPRESSION, DemoFeed};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::place::now_s;
use crate::plan::describe;
use crate::progress::Bar;
use crate::pulse::Pulse;
use crate::render::{Table, Tone, Ui, bytes, duration, instant, thousands};
use crate::settings::{Reloads, Settings, map};
use crate::summary;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_cluster::Ended;
use tidegate_gateway::{Gateway, GatewayError, Refusals, Sources, StageNode};
use tidegate_journal::SyncPolicy;
use tidegate_journal::commit::CommitOptions;
use tidegate_live::{JournalSettings, Live, LiveError, LiveReport, Network, SnapshotSettings, Threads};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;
use tidegate_quic::{ClientOptions, QuicServer, SecurityError, ServerError, ServerStats, Trust};
use tidegate_replay::{LogOptions, StreamInfo};

/// The stages as the gateway shows them.
pub(crate) type Stages = Arc<RwLock<Vec<StageNode>>>;

/// A stream as subscribers are told of it.
pub(crate) fn meta(stream: &StreamInfo) -> StreamMeta {
    let kind = match stream.kind {
        tidegate_replay::StreamKind::Bars => StreamKind::Bars,
        tidegate_replay::StreamKind::MeasureBars => StreamKind::MeasureBars,
        tidegate_replay::StreamKind::Indicators => StreamKind::Values,
        tidegate_replay::StreamKind::Hosts => StreamKind::Hosts,
    };
    StreamMeta { name: stream.name.clone(), kind, columns: stream.columns.clone() }
}

/// The time of day in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A number for a new journal that no other has.
fn lineage(start_ns: u64) -> u128 {
    u128::from(start_ns) << 64 | u128::from(std::process::id())
}

/// What the server refused, for the gateway's counters.
fn refusals(stats: ServerStats) -> Vec<Refusals> {
    let reasons = [
        ("connections", stats.refused),
        ("address", stats.retried),
        ("handshake", stats.failed),
        ("unauthorized", stats.unauthorized),
        ("quota", stats.over_quota),
        ("expired", stats.expired),
    ];
    reasons.map(|(reason, count)| Refusals { front: "quic", reason, count }).into()
}

/// The stages of streams, and what feeds them.
pub(crate) fn stages(streams: &[StreamInfo]) -> Vec<StageNode> {
    let stage = |stream: &StreamInfo| {
        // Indicators, regimes, anomalies and roll-ups read bars, everything else events.
        let over = ["ind.", "regime.", "anomaly."].iter().find_map(|prefix| stream.name.strip_prefix(prefix));
        let upstream = match (over, stream.name.split_once('@')) {
            (Some(bars), _) => format!("bars.{bars}"),
            (None, Some((_, finer))) => format!("bars.{finer}"),
            (None, None) => "feed".to_owned(),
        };
        StageNode { name: stream.name.clone(), upstream, stream: stream.name.clone() }
    };
    streams.iter().map(stage).collect()
}

/// What the gateway answers from.
fn sources(live: &Live, stages: &Stages) -> Sources {
    let stages = Arc::clone(stages);
    Sources {
        now_ns: Some(now_ns),
        ring_capacity: Some(live.ring_events() as u64),
        stages: Some(Arc::new(move || stages.read().unwrap_or_else(PoisonError::into_inner).clone())),
        ..Sources::of(live)
    }
}

fn gateway_failure(error: GatewayError) -> Failure {
    let exit = if let GatewayError::Option { .. } = error { Exit::Usage } else { Exit::Output };
    Failure::new(exit, error)
}

fn live_failure(error: LiveError) -> Failure {
    use tidegate_actors::runtime::RuntimeError;
    let exit = match error {
        LiveError::Runtime(RuntimeError::Option { .. })
        | LiveError::Hub(_)
        | LiveError::Staged
        | LiveError::Fused => Exit::Usage,
        LiveError::Journal(_) | LiveError::Past(_) => Exit::Input,
        _ => Exit::Internal,
    };
    Failure::new(exit, error)
}

fn server_failure(error: ServerError) -> Failure {
    let exit = match error {
        ServerError::Limit(_) => Exit::Usage,
        ServerError::Tls(_) => Exit::Input,
        _ => Exit::Output,
    };
    Failure::new(exit, error)
}

fn security_failure(error: SecurityError) -> Failure {
    let exit = match error {
        SecurityError::Options(_) | SecurityError::Access(_) => Exit::Usage,
        _ => Exit::Input,
    };
    Failure::new(exit, error)
}

pub(crate) fn run(args: &ServeArgs, ui: &Ui) -> Outcome {
    let interrupt = Interrupt::listen()?;
    let mut again = false;
    loop {
        match once(args, &interrupt, again, ui)? {
            Some(exit) => return Ok(exit),
            // A node has fetched the state of its leader, and goes on from that.
            None => again = true,
        }
    }
}

/// Serves until the end, or until a node of a cluster is to be started `again`: then nothing is returned.
fn once(args: &ServeArgs, interrupt: &Interrupt, again: bool, ui: &Ui) -> Result<Option<Exit>, Failure> {
    let settings = Settings::of(args, ui)?;
    let config = &settings.config;
    let snapshots = map::snapshots(config);
    let member = settings.cluster_folder().map(|dir| Member::of(&dir, snapshots)).transpose()?;
    // Beside `--cluster` the command line takes none of these; beside a configuration it cannot know.
    if member.is_some()
        && let Some(option) = args.listen.map(|_| "--listen").or(args.demo.then_some("--demo"))
    {
        return Err(Failure::usage(format!(
            "{option} cannot be used on a node of a cluster, which `cluster.folder` says this is"
        )));
    }
    let what = config.plan()?;
    let streams = what.streams()?;
    let names = || streams.iter().map(|stream| stream.name.clone()).collect();
    let member = member.map(|member| member.computing(names()));
    let asked = derived::Asked::of(&settings)?;
    let data = settings.data_folder()?;
    let (security, made) = settings.security()?.load(&data, now_s).map_err(security_failure)?;
    if args.demo && security.access.is_required() {
        return Err(Failure::usage(
            "--demo feeds the server without saying who it is: let such feeds in with --anonymous, or leave token keys and the CA \
             of clients out",
        ));
    }
    if args.journal_sync.is_some() && !config.journal.enabled {
        return Err(Failure::usage("--journal-sync has no journal to bring to the disk: add --journal"));
    }
    if args.journal_snapshot.is_some() && !config.journal.enabled && member.is_none() {
        return Err(Failure::usage(
            "--journal-snapshot has no journal and no cluster to go with: add --journal or --cluster",
        ));
    }
    let start = Instant::now();
    // Any number that the last start did not have.
    let incarnation = now_ns();
    let mut options = map::live(config, incarnation);
    let text = {
        let log = LogOptions { disorder_ns: options.disorder_ns, fence: options.fence };
        describe(&what, &log).to_string()
    };
    let mut elsewhere = None;
    if config.journal.enabled {
        let sync = map::sync(config);
        let remote = kafka::remote(&config.journal)?;
        elsewhere = remote.as_ref().map(|remote| remote.name());
        options.feed.durable = sync != SyncPolicy::Never;
        options.journal = Some(JournalSettings {
            folder: data.join(crate::journal::place::FOLDER),
            remote,
            journal: map::journal(config, lineage(incarnation)),
            commit: CommitOptions { sync, ..CommitOptions::default() },
            snapshots: map::snapshots(config),
            settings: text.clone(),
            wall_ns: now_ns,
            progress: journal::recovering,
        });
    }
    let maker = {
        let what = what.clone();
        Arc::new(move || what.stages().unwrap_or_default())
    };
    let nodes = stages(&streams).into_iter().chain(derived::stages(config)).collect();
    let stages: Stages = Arc::new(RwLock::new(nodes));
    let mut limits = map::quic(config);
    let mut listen = config.listen.quic;
    let mut replication = None;
    if let Some(member) = &member {
        if config.journal.enabled {
            return Err(Failure::usage(
                "a node of a cluster keeps no journal yet: set journal.enabled = false",
            ));
        }
        if member.groups() > 1 && !derived::names(config).is_empty() {
            ui.note("what is derived from all symbols begins once every group was fed something");
        }
        let (prepared, drivers) = member.prepare(&mut options, &mut limits, &text, now_ns)?;
        let metas: Vec<StreamMeta> = streams.iter().map(meta).collect();
        let of = SnapshotSettings::of(&text, &metas, &options);
        replication = Some((prepared, of, drivers));
        listen = member.place.clients;
    }
    // What is made up does not lie among what was found.
    let alerts_folder = data.join(if args.demo { "demo-alerts" } else { "alerts" });
    let mut watch_alerts = alerts::Watch::start(&settings, &alerts_folder, &streams, interrupt, ui)?;
    let threads = match (config.engine.threads, &options.groups) {
        // Each group has threads of its own.
        (Threads::Auto, Some(_)) => Threads::Separate,
        (asked, _) => asked,
    };
    let network = Network::start(threads, &options.runtime)
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))?;
    let mut live = network.live(maker, streams.iter().map(meta).collect(), options).map_err(live_failure)?;
    let took = start.elapsed();
    if config.journal.enabled {
        journal::note_recovered(&live, &data, elsewhere.as_deref(), took, ui);
    }
    // Both before feeds can come; rules may read what is derived.
    let mut deriving = derived::Deriving::new(live.changes().clone(), live.hub(), network.handle().clone());
    deriving.derive(asked, &[], ui)?;
    if let Some(watch) = &mut watch_alerts {
        watch.follow(live.hub(), network.handle())?;
    }
    let server = network
        .block_on(async { QuicServer::start(listen, security, limits, live.ingest(), live.hub()) })
        .map_err(server_failure)?;
    let node = match (&member, replication) {
        (Some(member), Some((prepared, of, drivers))) => {
            Some(member.start(prepared, (&of, text), drivers, &mut live, &network)?)
        }
        _ => None,
    };
    if let Some(node) = &node {
        server.set_groups(cluster::groups(node.observer()));
    }
    let gateway = match config.listen.http.on() {
        Some(listen) => {
            let stats = server.stats_handle();
            let sources = Sources {
                gate: Some(server.bearer_gate()),
                refusals: Some(Arc::new(move || refusals(stats()))),
                derived: Some(Arc::new(deriving.stats())),
                alerts: watch_alerts.as_ref().map(|watch| watch.board() as Arc<dyn tidegate_gateway::Alerts>),
                cluster: node.as_ref().map(|node| cluster::source(node.observer())),
                ..sources(&live, &stages)
            };
            let gateway = network.block_on(Gateway::bind(map::gateway(config, listen), sources));
            Some(gateway.map_err(gateway_failure)?)
        }
        None => None,
    };
    let http = gateway.as_ref().map(|gateway| format!("http://{}", gateway.local_addr()));
    let (end_gateway, gateway_ends) = tokio::sync::oneshot::channel::<()>();
    let gateway =
        gateway.map(|gateway| network.handle().spawn(gateway.serve(async { drop(gateway_ends.await) })));
    if let Some(watch) = &watch_alerts {
        watch.serving(http.as_ref());
    }
    if made {
        ui.note(&format!("made a certificate for this machine in {}", data.join("tls").display()));
    }
    let names: Vec<String> =
        streams.iter().map(|stream| stream.name.clone()).chain(derived::names(config)).collect();
    if let Some(file) = &settings.file {
        ui.note(&format!("the configuration is {}", file.display()));
    }
    // Before the words below, so that whoever waits for them may send the signal.
    let mut reloads = Reloads::listen(settings.clone(), &live, Arc::clone(&stages), network.handle())?;
    // On stdout, whole, before anything else: scripts wait for it.
    if again {
        ui.note("serving again");
    } else if args.json {
        let config = settings.file.as_ref().map(|file| file.display().to_string());
        let listening = server.address().to_string();
        ui.print_json(&json!({
            "listening": listening, "http": http, "streams": names, "config": config,
            "threads": network.threads().to_string(), "node": member.as_ref().map(|member| member.node),
            "exports": watch_alerts.as_ref().map(|watch| watch.addresses().iter().map(ToString::to_string).collect::<Vec<_>>()),
            "interface": watch_alerts.as_ref().and_then(alerts::Watch::packets).map(|wanted| &wanted.interface),
            "recovered": settings.config.journal.enabled.then(|| {
                let found = live.recovered();
                json!({
                    "snapshot": found.snapshot, "shards_before": found.regrouped.map(|(took, _)| took), "records": found.records, "events": found.events, "notes": found.notes,
                    "torn_bytes": found.torn_bytes, "refused": found.refused, "seconds": took.as_secs_f64(),
                })
            }),
        }));
    } else {
        ui.print(&format!("listening on {} (QUIC), serving {}\n", server.address(), names.join(", ")));
        if let Some(http) = http {
            ui.print(&format!("open {http} for the dashboard, {http}/v1/docs for the API\n"));
        }
        for address in watch_alerts.iter().flat_map(alerts::Watch::addresses) {
            ui.print(&format!("exports of NetFlow, IPFIX and sFlow at {address} (UDP)\n"));
        }
        if let Some(wanted) = watch_alerts.as_ref().and_then(alerts::Watch::packets) {
            ui.print(&format!("{wanted}\n"));
        }
        if let (Some(member), Some(node)) = (&member, &node) {
            ui.print(&format!("node {} of a cluster, for other nodes on {}\n", member.node, node.address()));
        }
    }
    if let Some(node) = &node {
        crate::cluster::note_recovered(node.recovered(), ui);
        for (group, found) in live.recovered_groups().iter().enumerate() {
            let of =
                if live.recovered_groups().len() > 1 { format!("group {group}: ") } else { String::new() };
            journal::regrouped(found, &of, ui);
        }
    }
    let mut demo = None;
    if args.demo {
        let client = own_client(server.address(), &data)?;
        let exports = watch_alerts.as_ref().and_then(|watch| watch.addresses().first().copied());
        let started = network.block_on(DemoFeed::start(client, incarnation, exports, now_ns));
        demo = Some(
            started
                .map_err(|failure| Failure { error: failure.error.context("the demo's feed"), ..failure })?,
        );
        ui.note(&format!(
            "it feeds itself: an hour of a made-up market and office network, {COMPRESSION} times as fast, again and again, with \
             the time of now; its alerts are in {}",
            alerts_folder.display()
        ));
    }
    let mut lines = Lines::new(args, ui, start);
    let mut journal = journal::Watch::new();
    let mut watch = node.as_ref().map(Watch::of);
    let mut ended = None;
    while !interrupt.raised() && ended.is_none() {
        std::thread::park_timeout(Duration::from_millis(50));
        if let (Some(node), Some(watch)) = (&node, &mut watch) {
            ended = node.ended();
            watch.look(node, ui);
        }
        reloads.poll(args, &server, network.handle(), (watch_alerts.as_ref(), &mut deriving), ui);
        deriving.tick(ui);
        lines.tick(&live, network.handle(), ui);
        journal.tick(&live, ui);
        watch_alerts.iter().for_each(|watch| watch.tick(ui));
        if let Some(feed) = &mut demo
            && let Some(why) = network.block_on(feed.failure())
        {
            ui.note(&why);
        }
    }
    lines.clear();
    if let Some(feed) = demo {
        network.block_on(feed.finish());
    }
    let last = node.as_ref().map(tidegate_cluster::Node::status);
    server.refuse_new();
    if let Some(node) = node {
        node.finish();
    }
    let report = live.finish().map_err(live_failure)?;
    deriving.finish(ui);
    if let Some(watch) = watch_alerts {
        watch.finish(ui);
    }
    let stats = server.stats();
    network.block_on(server.close());
    // After the engine: its readers have had the last records by now.
    drop(end_gateway);
    if let Some(gateway) = gateway {
        let _ = network.block_on(gateway);
    }
    network.shutdown(Duration::from_secs(1));
    if let Some(turn) = ended.as_ref().filter(|ended| ended.is_turn())
        && !interrupt.raised()
    {
        ui.note(&match turn {
            Ended::Snapshot(offset) => {
                format!("fetched the leader's snapshot behind {} entries of the log", thousands(*offset))
            }
            Ended::TookUp(group) => format!("takes up group {group}: begins again, and holds it"),
            Ended::GaveUp(group) => {
                format!("other nodes hold group {group} now: begins again, and relays it")
            }
            _ => "a loss was declared in a group that is relayed here: begins anew with what is left"
                .to_owned(),
        });
        return Ok(None);
    }
    if args.json {
        let mut summary = to_json(&report, stats, start.elapsed());
        if let Some(summary) = summary.as_object_mut() {
            let others = last.as_ref().map(|last| last.replicas.clone()).filter(|others| !others.is_empty());
            summary.insert("cluster".to_owned(), json!(last.map(|last| last.replica)));
            if let Some(others) = others {
                summary.insert("groups".to_owned(), json!(others));
            }
        }
        ui.print_json(&summary);
    } else {
        ui.print(&render(&report, stats, start.elapsed(), ui));
    }
    if let Some(why) = journal::unwritten(&report.ingest) {
        return Err(Failure::new(Exit::Output, anyhow::anyhow!(why)));
    }
    if ended == Some(Ended::Left) {
        ui.note("the node has left its cluster, as an operator wanted: its number and certificate are not taken again");
        return Ok(Some(Exit::Ok));
    }
    if let Some(ended) = ended.filter(|ended| !ended.is_turn()) {
        return Err(Failure::internal(format!("the node cannot go on: {ended}")));
    }
    if report.runtime.panics > 0 {
        return Ok(Some(Exit::Internal));
    }
    if report.imbalance() != 0 {
        return Err(Failure::internal(format!("the ledger is off by {}: this is a bug", report.imbalance())));
    }
    Ok(Some(Exit::Ok))
}

/// A client of the server in this process.
fn own_client(server: SocketAddr, data: &std::path::Path) -> Result<ClientOptions, Failure> {
    // What listens on every address is reached on the loopback one.
    let ip = match server.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let trust = Trust::of_data(data).map_err(|error| Failure::new(Exit::Input, error))?;
    Ok(ClientOptions::new(SocketAddr::new(ip, server.port()), trust))
}

/// How the server is, said while it runs: a line kept up to date on a terminal, or a line now and then.
struct Lines {
    bar: Option<Bar>,
    every: Option<Duration>,
    next: Duration,
    start: Instant,
    pulse: Pulse,
}

impl Lines {
    fn new(args: &ServeArgs, ui: &Ui, start: Instant) -> Self {
        let shown = ui.shows_progress() && !args.plain && !args.json;
        let plain = !shown && !args.json && (args.plain || args.demo);
        Self {
            bar: shown.then(|| Bar::new(ui, "serving", 0)),
            every: if shown { Some(Duration::from_secs(1)) } else { plain.then_some(Duration::from_secs(5)) },
            next: Duration::ZERO,
            start,
            pulse: Pulse::default(),
        }
    }

    fn tick(&mut self, live: &Live, network: &tokio::runtime::Handle, ui: &Ui) {
        let (Some(every), up) = (self.every, self.start.elapsed()) else { return };
        if up < self.next {
            return;
        }
        self.next = up + every;
        let hub = live.hub();
        let asked =
            async { tokio::time::timeout(Duration::from_millis(200), hub.ask(|hub, _| hub.stats())).await };
        let hub = network.block_on(asked).ok().and_then(Result::ok);
        let line = self.pulse.line(up, now_ns(), &live.stats().stats(), &live.ingest().stats(), hub);
        match &self.bar {
            // The bar has the time already.
            Some(bar) => bar.at(0, line.split_once(" s  ").map_or("", |(_, rest)| rest).to_owned()),
            None => ui.print(&format!("{line}\n")),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }
}

fn render(report: &LiveReport, stats: ServerStats, elapsed: Duration, ui: &Ui) -> String {
    let (ingest, hub) = (&report.ingest, &report.hub);
    let mut facts = Table::facts();
    let names = thousands(ingest.stats.names);
    facts.fact("events", format!("{} of {names} names", thousands(report.runtime.events)));
    if ingest.stats.fenced > 0 {
        facts.fact("fenced", format!("{}, absurdly far in the future", thousands(ingest.stats.fenced)));
    }
    if let Some((first, last)) = ingest.span {
        let span = duration(last.saturating_sub(first));
        facts.fact("span", format!("{} to {} ({span})", instant(first), instant(last)));
    }
    facts.fact("served", duration(elapsed.as_nanos() as u64));
    facts.fact(
        "connections",
        format!(
            "{} taken, {} refused, {} failed",
            thousands(stats.accepted),
            thousands(stats.refused),
            thousands(stats.failed)
        ),
    );
    if stats.unauthorized + stats.over_quota > 0 {
        let (denied, over) = (thousands(stats.unauthorized), thousands(stats.over_quota));
        facts.fact("not allowed", format!("{denied} sessions, {over} over their quota"));
    }
    facts.fact(
        "delivered",
        format!(
            "{}, conflated {}, dropped {}",
            thousands(hub.delivered),
            thousands(hub.conflated),
            thousands(hub.dropped)
        ),
    );
    if let Some(journal) = &ingest.stats.journal {
        let (at, health) = (&journal.positions, &journal.health);
        let text = format!(
            "{}, on disk up to {} of {} in {} segments",
            health.name(),
            thousands(at.durable),
            thousands(at.taken),
            thousands(journal.segments as u64)
        );
        facts.fact("journal", text);
    }
    if let Some(snapshots) = &ingest.stats.snapshots
        && let Some(offset) = snapshots.offset
    {
        let (offset, size) = (thousands(offset), bytes(snapshots.bytes));
        facts.fact("snapshot", format!("of offset {offset}, {size}; {} kept", snapshots.kept));
    }
    let digest = &report.runtime.digest;
    facts.fact("digest", format!("{} over {} results", digest.short(), thousands(digest.outputs())));
    let mut text = facts.render(ui, 0);
    let mut sources = Table::new(&[
        "source",
        ">received",
        ">accepted",
        ">duplicate",
        ">ahead",
        ">refused",
        ">lost",
        ">throttled",
        ">connections",
        "principal",
    ]);
    for source in &ingest.stats.sources {
        let ledger = &source.ledger;
        sources.row([
            &crate::render::clean(&source.name),
            &thousands(ledger.received),
            &thousands(ledger.accepted),
            &thousands(ledger.duplicate),
            &thousands(ledger.ahead),
            &thousands(ledger.refused),
            &thousands(ledger.declared_lost),
            &thousands(source.throttled),
            &thousands(source.connections),
            &crate::render::clean(&source.principal),
        ]);
    }
    if !ingest.stats.sources.is_empty() {
        text += &format!("\n{}", sources.render(ui, 0));
    }
    for (reason, count) in &ingest.stats.closed {
        text += &format!("{} {} feeds: {reason}\n", ui.paint(Tone::Warn, "closed"), thousands(*count));
    }
    let mut table = Table::new(&["stream", ">results"]);
    for lane in &report.runtime.lanes {
        table.row([&lane.name, &thousands(lane.emitted)]);
    }
    text += &format!("\n{}", table.render(ui, 0));
    text += &format!("\n{}", summary::ledger(&report.runtime.stages, ui));
    text
}

fn to_json(report: &LiveReport, stats: ServerStats, elapsed: Duration) -> serde_json::Value {
    let sources = report.ingest.stats.sources.iter().map(|source| {
        let ledger = &source.ledger;
        json!({
            "name": source.name, "last": source.last, "connections": source.connections,
            "received": ledger.received, "accepted": ledger.accepted, "duplicate": ledger.duplicate,
            "ahead": ledger.ahead, "refused": ledger.refused, "declared_lost": ledger.declared_lost,
            "overflowed": ledger.overflowed, "principal": &*source.principal, "throttled": source.throttled,
        })
    });
    json!({
        "events": report.runtime.events,
        "fenced": report.ingest.stats.fenced,
        "names": report.ingest.stats.names,
        "seconds": elapsed.as_secs_f64(),
        "digest": report.runtime.digest.short(),
        "sources": sources.collect::<Vec<_>>(),
        "closed": report.ingest.stats.closed.iter().map(|(name, count)| json!({ "reason": name, "feeds": count })).collect::<Vec<_>>(),
        "connections": { "accepted": stats.accepted, "refused": stats.refused, "failed": stats.failed,
            "unauthorized": stats.unauthorized, "over_quota": stats.over_quota, "throttled": stats.throttled, "expired": stats.expired },
        "streams": report.runtime.lanes.iter().map(|lane| json!({ "name": lane.name, "results": lane.emitted })).collect::<Vec<_>>(),
        "journal": report.ingest.stats.journal.as_ref().map(|journal| json!({
            "health": journal.health.name(), "taken": journal.positions.taken, "written": journal.positions.written,
            "durable": journal.positions.durable, "segments": journal.segments, "bytes": journal.bytes,
            "first_offset": journal.first_offset, "unwritten": report.ingest.unwritten,
        })),
        "snapshots": report.ingest.stats.snapshots.as_ref().map(|snapshots| json!({
            "written": snapshots.written, "failed": snapshots.failed, "offset": snapshots.offset, "bytes": snapshots.bytes,
            "kept": snapshots.kept, "pause_ns": snapshots.pause_ns, "pause_bytes": snapshots.pause_bytes,
            "ingest_pause_ns": snapshots.ingest_pause_ns, "took_ns": snapshots.took_ns, "problem": snapshots.problem,
        })),
        "delivered": report.hub.delivered,
        "conflated": report.hub.conflated,
        "dropped": report.hub.dropped,
        "imbalance": report.imbalance() as i64,
    })
}
