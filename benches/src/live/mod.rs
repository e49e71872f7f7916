//! The server as its users meet it: real QUIC on loopback, publisher, server and subscribers in one process on the same cores,
//! each with threads of its own.

pub mod bare;
pub mod brokers;
pub mod delivery;
pub mod http;
pub mod ingest;
pub mod websocket;

use crate::measure::Measurement;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::indicators::{IndicatorAnalyzer, IndicatorSpec};
use tidegate_actors::runtime::{IdleStrategy, RuntimeOptions, StageFactory};
use tidegate_actors::{BarSpec, bars::BarOptions};
use tidegate_engine::{AnalyzerStage, Stage};
use tidegate_gateway::{Gateway, GatewayOptions, GatewayReport, Sources};
use tidegate_live::{Live, LiveOptions, LiveReport, Network, Threads};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;
use tidegate_quic::tls::Identity;
use tidegate_quic::{ClientOptions, Limits, QuicServer, Trust};
use tokio::runtime::Runtime;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A runtime on one thread of its own, for one party.
fn party() -> Outcome<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A server with one stream of bars.
struct Server {
    live: Option<Live>,
    quic: Option<QuicServer>,
    network: Option<Network>,
    client: ClientOptions,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(bars: &str, threads: Threads, idle: IdleStrategy, mtu: u16) -> Outcome<Self> {
        let spec: BarSpec = bars.parse()?;
        let name = format!("bars.{bars}");
        let kind = if matches!(spec, BarSpec::Time(_)) { StreamKind::Bars } else { StreamKind::MeasureBars };
        let meta = StreamMeta { name: name.clone(), kind, columns: Vec::new() };
        let stages = Arc::new(move || vec![Stage::new(&name, 0, spec.operator(BarOptions::default()))]);
        Self::of(stages, vec![meta], threads, idle, mtu)
    }

    /// With rows of four indicators over the bars as its second stream, `ind.` and what the bars are: records of 64 bytes.
    fn with_rows(bars: &str, threads: Threads, mtu: u16) -> Outcome<Self> {
        let spec: BarSpec = bars.parse()?;
        let names = [format!("bars.{bars}"), format!("ind.{bars}")];
        let wanted: Vec<IndicatorSpec> =
            ["sma:2", "sma:3", "ema:2", "ema:3"].iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let rows = IndicatorAnalyzer::new(0, &wanted)?;
        let meta = |at: usize, kind, columns| StreamMeta { name: names[at].clone(), kind, columns };
        let metas =
            vec![meta(0, StreamKind::MeasureBars, Vec::new()), meta(1, StreamKind::Values, rows.columns())];
        let stages = Arc::new(move || {
            // It could be made a moment ago.
            let rows = IndicatorAnalyzer::new(0, &wanted).ok();
            let stage = Stage::new(&names[0], 0, spec.operator(BarOptions::default()));
            let rows = rows.map(|rows| AnalyzerStage::new(&names[1], 1, Box::new(rows)));
            vec![rows.into_iter().fold(stage, Stage::with)]
        });
        Self::of(stages, metas, threads, IdleStrategy::default(), mtu)
    }

    fn of(
        stages: StageFactory,
        metas: Vec<StreamMeta>,
        threads: Threads,
        idle: IdleStrategy,
        mtu: u16,
    ) -> Outcome<Self> {
        let options = LiveOptions {
            runtime: RuntimeOptions { idle, ..RuntimeOptions::default() },
            ..LiveOptions::default()
        };
        // As `tidegate serve` has it.
        let network = Network::start(threads, &options.runtime)?;
        let live = network.live(stages, metas, options)?;
        let data = tempfile::tempdir()?;
        let (identity, _) = Identity::of_data(data.path())?;
        let limits = Limits { mtu, ..Limits::default() };
        let any = "127.0.0.1:0".parse()?;
        let quic = network
            .block_on(async { QuicServer::start(any, identity, limits, live.ingest(), live.hub()) })?;
        let client =
            ClientOptions { limits, ..ClientOptions::new(quic.address(), Trust::of_data(data.path())?) };
        Ok(Self { live: Some(live), quic: Some(quic), network: Some(network), client, _data: data })
    }

    fn network(&self) -> Outcome<&Network> {
        self.network.as_ref().ok_or_else(|| "the server has ended".into())
    }

    /// Events applied by the shards so far.
    fn applied(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.stats().stats().iter().map(|shard| shard.events).sum())
    }

    /// The gateway before it, as `tidegate serve` has it.
    fn gateway(&self) -> Outcome<Front> {
        let live = self.live.as_ref().ok_or("no engine")?;
        let options = GatewayOptions { listen: "127.0.0.1:0".parse()?, ..GatewayOptions::default() };
        let gateway = self.network()?.block_on(Gateway::bind(options, Sources::of(live)))?;
        let address = gateway.local_addr();
        let (end, ends) = tokio::sync::oneshot::channel::<()>();
        let serving = self.network()?.handle().spawn(gateway.serve(async { drop(ends.await) }));
        Ok(Front { address, end, serving })
    }

    fn end(mut self) -> Outcome<LiveReport> {
        if let Some(quic) = &self.quic {
            quic.refuse_new();
        }
        let report = self.live.take().ok_or("ended twice")?.finish()?;
        if let (Some(quic), Some(network)) = (self.quic.take(), self.network.take()) {
            network.block_on(quic.close());
            network.shutdown(Duration::from_secs(1));
        }
        if report.imbalance() != 0 {
            return Err(format!("the ledger is off by {}", report.imbalance()).into());
        }
        Ok(report)
    }
}

/// A gateway that serves.
struct Front {
    address: SocketAddr,
    end: tokio::sync::oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<GatewayReport>,
}

impl Front {
    fn end(self, server: &Server) -> Outcome<()> {
        drop(self.end);
        server.network()?.block_on(self.serving)?;
        Ok(())
    }
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Trades through ingest, per run.
    pub events: usize,
    /// Seconds of each run at a steady rate.
    pub seconds: u64,
    /// Rounds that count.
    pub rounds: usize,
}

impl Size {
    /// As published.
    pub const FULL: Self = Self { events: 20_000_000, seconds: 5, rounds: 5 };
    /// A look in seconds.
    pub const QUICK: Self = Self { events: 2_000_000, seconds: 1, rounds: 2 };
}

/// Runs everything; `tell` hears what is being measured.
///
/// # Errors
/// When loopback cannot be used, or a figure would be wrong because something was lost.
pub fn run(size: Size, tell: &mut dyn FnMut(&str)) -> Outcome<Vec<Measurement>> {
    let mut found = Vec::new();
    tell("QUIC ingest to bars, beside a bare loop");
    found.extend(ingest::measure(size)?);
    tell("NATS and Redis beside it");
    found.extend(brokers::measure(size, tell)?);
    tell("tick to subscriber at a steady rate, beside a bare loop");
    found.extend(delivery::latency(size)?);
    tell("the same to a WebSocket, and beside readers that never read");
    found.extend(websocket::measure(size)?);
    tell("fan-out to 64 subscribers");
    found.extend(delivery::fan_out(size)?);
    tell("1,000 subscribers of one stream");
    found.extend(delivery::crowd(size)?);
    tell("newest bars over REST");
    found.extend(http::rest(size)?);
    Ok(found)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
