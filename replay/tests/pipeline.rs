//! The whole pipeline on generated captures: the same results, in the same order, however it runs.

use tidegate_actors::bars::BarOptions;
use tidegate_actors::runtime::{Placement, RuntimeOptions};
use tidegate_engine::{Output, WindowWidth};
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions};
use tidegate_replay::pipeline::{SinkError, Variant, verify};
use tidegate_replay::{
    LogOptions, Plan, ReplayError, ReplayOptions, ReplayReport, ResultSink, Source, StreamInfo, replay,
};

fn inputs() -> Vec<Box<dyn Source>> {
    let market = MarketOptions { seed: 7, events: 120_000, ..MarketOptions::default() };
    let network = NetworkOptions { seed: 7, events: 30_000, ..NetworkOptions::default() };
    vec![Box::new(Market::new(market)), Box::new(Network::new(network))]
}

fn plan() -> Plan {
    let parse = |text: &str| text.parse().unwrap();
    Plan {
        bars: ["1s", "1m", "100t", "10m@1m", "session:30s", "sliding:10s/4s"].map(parse).to_vec(),
        indicators: ["rsi:14", "ema:12"].iter().map(|text| text.parse().unwrap()).collect(),
        regime: "hmm:3".parse().ok(),
        anomaly: "volume".parse().ok(),
        bar_options: BarOptions { history: true, ..BarOptions::default() },
        hosts: vec![WindowWidth::SECOND],
        own: Vec::new(),
    }
}

fn log() -> LogOptions {
    LogOptions { disorder_ns: 50_000_000, ..LogOptions::default() }
}

#[derive(Default)]
struct Rows(Vec<(u16, String, Output)>);

impl ResultSink for Rows {
    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), SinkError> {
        self.0.push((stream.id, name.to_owned(), Output { key: 0, ..*output }));
        Ok(())
    }
}

fn run(shards: u32, placement: Placement) -> (Rows, ReplayReport) {
    let mut rows = Rows::default();
    let options = ReplayOptions {
        runtime: RuntimeOptions { shards, placement, ..RuntimeOptions::default() },
        ..ReplayOptions::default()
    };
    let report = replay(inputs(), &plan(), log(), &options, Some(&mut rows), &mut |_| {}).unwrap();
    (rows, report)
}

#[test]
fn rows_and_order_do_not_depend_on_shards_or_placement() {
    let (rows, report) = run(1, Placement::Fused);
    assert_eq!(report.imbalance(), 0);
    assert!(report.failure.is_none() && !report.stopped);
    assert!(rows.0.len() > 10_000, "{} rows", rows.0.len());
    assert!(rows.0.iter().all(|(_, name, _)| name != "?"), "every name is known before its first result");
    assert!(rows.0.iter().any(|(_, _, row)| row.state == 2), "the market amends some bars");
    let regimes = plan().streams().unwrap().into_iter().filter(|stream| stream.name.starts_with("regime."));
    let regimes: Vec<u16> = regimes.map(|stream| stream.id).collect();
    // The probability of the first state.
    let judged = rows
        .0
        .iter()
        .filter(|(id, _, row)| regimes.contains(id) && row.values().nth(1).is_some_and(f64::is_finite));
    assert!(judged.count() > 1_000, "most regimes are still being learnt");
    let latency = report.latency.unwrap();
    assert!(latency.count > 0 && latency.p50 <= latency.max);
    for (shards, placement) in [(3, Placement::Fused), (2, Placement::Staged)] {
        let (other, other_report) = run(shards, placement);
        assert_eq!(report.runtime.digest.short(), other_report.runtime.digest.short());
        assert_eq!(rows.0.len(), other.0.len());
        for (at, (a, b)) in rows.0.iter().zip(&other.0).enumerate() {
            assert_eq!(a, b, "row {at}, {shards} shards {placement}");
        }
    }
}

#[test]
fn verify_finds_one_digest_over_every_variant() {
    let digests: Vec<String> = Variant::usual(&[1, 2, 4], 150_000)
        .into_iter()
        .map(|variant| verify(inputs(), &plan(), log(), variant).unwrap().digest.short())
        .collect();
    assert!(digests.len() >= 8);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn the_digest_shows_a_single_changed_setting() {
    let variant = Variant::usual(&[1], 0)[0];
    let with = |disorder_ns| {
        let log = LogOptions { disorder_ns, ..log() };
        verify(inputs(), &plan(), log, variant).unwrap().digest.short()
    };
    assert_ne!(with(0), with(5_000_000_000));
}

#[test]
fn a_sink_that_fails_stops_the_replay_and_is_named() {
    struct Full(u32);
    impl ResultSink for Full {
        fn record(&mut self, _: &StreamInfo, _: &str, _: &Output) -> Result<(), SinkError> {
            self.0 += 1;
            if self.0 > 100 { Err("disk full".into()) } else { Ok(()) }
        }
    }
    let outcome =
        replay(inputs(), &plan(), log(), &ReplayOptions::default(), Some(&mut Full(0)), &mut |_| {});
    match outcome {
        Err(ReplayError::Sink(source)) => assert_eq!(source.to_string(), "disk full"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the sink's failure was swallowed"),
    }
}
