//! The server as its users meet it: real QUIC on loopback, publisher, server and subscribers in one process on the same cores,
//! each with threads of its own.

pub mod bare;
pub mod brokers;
pub mod delivery;
pub mod http;
pub mod ingest;

use crate::measure::Measurement;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::runtime::{IdleStrategy, RuntimeOptions};
use tidegate_actors::{BarSpec, bars::BarOptions};
use tidegate_engine::Stage;
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
        let options = LiveOptions {
            runtime: RuntimeOptions { idle, ..RuntimeOptions::default() },
            ..LiveOptions::default()
        };
        // As `tidegate serve` has it.
        let network = Network::start(threads, &options.runtime)?;
        let live = network.live(stages, vec![meta], options)?;
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
