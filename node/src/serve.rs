//! `tidegate serve`: feeds in, subscribers out, until somebody says stop.

use crate::cli::ServeArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::place::data_folder;
use crate::render::{Table, Tone, Ui, duration, instant, thousands};
use crate::{plan, summary};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_actors::runtime::RuntimeOptions;
use tidegate_gateway::{Gateway, GatewayError, GatewayOptions, Sources, StageNode};
use tidegate_live::{Live, LiveError, LiveOptions, LiveReport, Network};
use tidegate_proto::StreamKind;
use tidegate_proto::feed::FeedServerOptions;
use tidegate_proto::hub::StreamMeta;
use tidegate_quic::tls::Identity;
use tidegate_quic::{Limits, QuicServer, ServerError, ServerStats};
use tidegate_replay::{Plan, StreamInfo};

/// Indicators computed when none are named.
const INDICATORS: [&str; 7] = ["sma:20", "ema:20", "rsi:14", "atr:14", "vwap:20", "bb:20:2", "macd:12:26:9"];

/// What is served: as asked for, or bars of a second and a minute with the usual indicators.
fn what(args: &ServeArgs) -> Result<Plan, Failure> {
    let asked = &args.plan;
    let mut what = plan::asked(asked);
    if what.bars.is_empty() && what.hosts.is_empty() {
        what.bars = plan::usual_bars();
    }
    if asked.bars.is_empty() && asked.hosts.is_empty() && asked.ind.is_empty() {
        what.indicators = INDICATORS.iter().filter_map(|name| name.parse().ok()).collect();
    }
    what.streams()?;
    Ok(what)
}

/// A stream as subscribers are told of it.
fn meta(stream: &StreamInfo) -> StreamMeta {
    let kind = match stream.kind {
        tidegate_replay::StreamKind::Bars => StreamKind::Bars,
        tidegate_replay::StreamKind::MeasureBars => StreamKind::MeasureBars,
        tidegate_replay::StreamKind::Indicators => StreamKind::Values,
        tidegate_replay::StreamKind::Hosts => StreamKind::Hosts,
    };
    StreamMeta { name: stream.name.clone(), kind, columns: stream.columns.clone() }
}

/// What the gateway answers from.
fn sources(live: &Live, streams: &[StreamInfo]) -> Sources {
    let ingest = live.ingest();
    let stage = |stream: &StreamInfo| {
        // Indicators and roll-ups read bars, everything else events.
        let upstream = match (stream.name.strip_prefix("ind."), stream.name.split_once('@')) {
            (Some(bars), _) => format!("bars.{bars}"),
            (None, Some((_, finer))) => format!("bars.{finer}"),
            (None, None) => "feed".to_owned(),
        };
        StageNode { name: stream.name.clone(), upstream, stream: stream.name.clone() }
    };
    Sources {
        now_ns: Some(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        }),
        ring_capacity: Some(live.ring_events() as u64),
        stages: streams.iter().map(stage).collect(),
        others: Some("quic"),
        ..Sources::new(live.hub(), live.stats(), move || ingest.stats())
    }
}

fn gateway_failure(error: GatewayError) -> Failure {
    let exit = if let GatewayError::Option { .. } = error { Exit::Usage } else { Exit::Output };
    Failure::new(exit, error)
}

fn live_failure(error: LiveError) -> Failure {
    use tidegate_actors::runtime::RuntimeError;
    let exit = match error {
        LiveError::Runtime(RuntimeError::Option { .. }) | LiveError::Hub(_) | LiveError::Staged => {
            Exit::Usage
        }
        _ => Exit::Internal,
    };
    Failure::new(exit, error)
}

fn server_failure(error: ServerError) -> Failure {
    let exit = if let ServerError::Limit(_) = error { Exit::Usage } else { Exit::Output };
    Failure::new(exit, error)
}

pub(crate) fn run(args: &ServeArgs, ui: &Ui) -> Outcome {
    let what = what(args)?;
    let log = plan::log(&args.plan);
    let streams = what.streams()?;
    let data = data_folder(args.data.as_ref())?;
    let (identity, made) = Identity::of_data(&data).map_err(|error| Failure::new(Exit::Output, error))?;
    let interrupt = Interrupt::listen()?;
    let start = Instant::now();
    // Any number that the last start did not have.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let incarnation = since.as_nanos() as u64;
    let options = LiveOptions {
        runtime: RuntimeOptions {
            shards: args.shards,
            placement: args.placement,
            ..RuntimeOptions::default()
        },
        disorder_ns: log.disorder_ns,
        fence: log.fence,
        feed: FeedServerOptions {
            incarnation,
            server: concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..FeedServerOptions::default()
        },
        ..LiveOptions::default()
    };
    let stages = {
        let what = what.clone();
        Arc::new(move || what.stages().unwrap_or_default())
    };
    let network = Network::start(args.threads, &options.runtime)
        .map_err(|error| Failure::internal(format!("no threads for the network: {error}")))?;
    let live = network.live(stages, streams.iter().map(meta).collect(), options).map_err(live_failure)?;
    let server = network
        .block_on(async {
            QuicServer::start(args.listen, identity, Limits::default(), live.ingest(), live.hub())
        })
        .map_err(server_failure)?;
    let gateway = match args.http.0 {
        Some(listen) => {
            let options = GatewayOptions { listen, ..GatewayOptions::default() };
            let gateway = network.block_on(Gateway::bind(options, sources(&live, &streams)));
            Some(gateway.map_err(gateway_failure)?)
        }
        None => None,
    };
    let http = gateway.as_ref().map(|gateway| format!("http://{}", gateway.local_addr()));
    let (end_gateway, gateway_ends) = tokio::sync::oneshot::channel::<()>();
    let gateway =
        gateway.map(|gateway| network.handle().spawn(gateway.serve(async { drop(gateway_ends.await) })));
    if made {
        ui.note(&format!("made a certificate for this machine in {}", data.join("tls").display()));
    }
    let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    // On stdout, whole, before anything else: scripts wait for it.
    if args.json {
        ui.print_json(&json!({ "listening": server.address().to_string(), "http": http, "streams": names, "threads": network.threads().to_string() }));
    } else {
        ui.print(&format!("listening on {} (QUIC), serving {}\n", server.address(), names.join(", ")));
        if let Some(http) = http {
            ui.print(&format!("open {http} for the dashboard, {http}/v1/docs for the API\n"));
        }
    }
    while !interrupt.raised() {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    server.refuse_new();
    let report = live.finish().map_err(live_failure)?;
    let stats = server.stats();
    network.block_on(server.close());
    // After the engine: its readers have had the last records by now.
    drop(end_gateway);
    if let Some(gateway) = gateway {
        let _ = network.block_on(gateway);
    }
    network.shutdown(Duration::from_secs(1));
    if args.json {
        ui.print_json(&to_json(&report, stats, &streams, start.elapsed()));
    } else {
        ui.print(&render(&report, stats, &streams, start.elapsed(), ui));
    }
    if report.runtime.panics > 0 {
        return Ok(Exit::Internal);
    }
    if report.imbalance() != 0 {
        return Err(Failure::internal(format!("the ledger is off by {}: this is a bug", report.imbalance())));
    }
    Ok(Exit::Ok)
}

fn render(
    report: &LiveReport,
    stats: ServerStats,
    streams: &[StreamInfo],
    elapsed: Duration,
    ui: &Ui,
) -> String {
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
    facts.fact(
        "delivered",
        format!(
            "{}, conflated {}, dropped {}",
            thousands(hub.delivered),
            thousands(hub.conflated),
            thousands(hub.dropped)
        ),
    );
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
        ">connections",
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
            &thousands(source.connections),
        ]);
    }
    if !ingest.stats.sources.is_empty() {
        text += &format!("\n{}", sources.render(ui, 0));
    }
    for (reason, count) in &ingest.stats.closed {
        text += &format!("{} {} feeds: {reason}\n", ui.paint(Tone::Warn, "closed"), thousands(*count));
    }
    let mut table = Table::new(&["stream", ">results"]);
    for (stream, lane) in streams.iter().zip(&report.runtime.lanes) {
        table.row([&stream.name, &thousands(lane.emitted)]);
    }
    text += &format!("\n{}", table.render(ui, 0));
    text += &format!("\n{}", summary::ledger(&report.runtime.stages, ui));
    text
}

fn to_json(
    report: &LiveReport,
    stats: ServerStats,
    streams: &[StreamInfo],
    elapsed: Duration,
) -> serde_json::Value {
    let sources = report.ingest.stats.sources.iter().map(|source| {
        let ledger = &source.ledger;
        json!({
            "name": source.name, "last": source.last, "connections": source.connections,
            "received": ledger.received, "accepted": ledger.accepted, "duplicate": ledger.duplicate,
            "ahead": ledger.ahead, "refused": ledger.refused, "declared_lost": ledger.declared_lost,
            "overflowed": ledger.overflowed,
        })
    });
    let lanes = streams.iter().zip(&report.runtime.lanes);
    json!({
        "events": report.runtime.events,
        "fenced": report.ingest.stats.fenced,
        "names": report.ingest.stats.names,
        "seconds": elapsed.as_secs_f64(),
        "digest": report.runtime.digest.short(),
        "sources": sources.collect::<Vec<_>>(),
        "closed": report.ingest.stats.closed.iter().map(|(name, count)| json!({ "reason": name, "feeds": count })).collect::<Vec<_>>(),
        "connections": { "accepted": stats.accepted, "refused": stats.refused, "failed": stats.failed },
        "streams": lanes.map(|(stream, lane)| json!({ "name": stream.name, "results": lane.emitted })).collect::<Vec<_>>(),
        "delivered": report.hub.delivered,
        "conflated": report.hub.conflated,
        "dropped": report.hub.dropped,
        "imbalance": report.imbalance() as i64,
    })
}
