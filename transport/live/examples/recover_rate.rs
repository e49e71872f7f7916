//! How fast a server comes back: from the whole log, and from a snapshot; and how long it stands still to take one.
//!
//! `cargo run --release -p tidegate-live --example recover_rate DIR [EVENTS [KEYS [EVENTS OF A BATCH]]]`
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::indicators::IndicatorAnalyzer;
use tidegate_actors::runtime::{RuntimeOptions, StageFactory};
use tidegate_engine::{AnalyzerStage, Event, Price, Size, Stage, flag};
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::{Batch, Disk, Journal, JournalOptions};
use tidegate_live::{JournalSettings, LiveOptions, LiveReport, Network, Recovered, SnapshotOptions, Threads};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;

const START_NS: u64 = 1_767_571_200_000_000_000;
const INDICATORS: [&str; 4] = ["sma:20", "ema:20", "rsi:14", "macd:12:26:9"];

fn stages() -> StageFactory {
    Arc::new(|| {
        let spec: BarSpec = "1s".parse().expect("bars of a constant");
        let specs: Vec<_> =
            INDICATORS.iter().map(|text| text.parse().expect("indicators of a constant")).collect();
        let indicators = IndicatorAnalyzer::new(0, &specs).expect("few enough columns");
        let bars = Stage::new("1s", 0, spec.operator(BarOptions::default()));
        vec![bars.with(AnalyzerStage::new("indicators", 1, Box::new(indicators)))]
    })
}

fn streams() -> Vec<StreamMeta> {
    let stream = |name: &str, kind| StreamMeta { name: name.to_owned(), kind, columns: Vec::new() };
    let mut values = stream("ind.1s", StreamKind::Values);
    values.columns = ["sma", "ema", "rsi", "macd", "signal", "histogram"].map(str::to_owned).to_vec();
    vec![stream("bars.1s", StreamKind::Bars), values]
}

/// A life that ends at once: what it found, how long its start took, and what it did.
fn life(
    folder: &Path,
    snapshots: bool,
    shards: u32,
) -> Result<(Recovered, Duration, LiveReport), Box<dyn Error>> {
    let options = LiveOptions {
        runtime: RuntimeOptions { shards, ..RuntimeOptions::default() },
        journal: Some(JournalSettings {
            folder: folder.to_owned(),
            remote: None,
            journal: JournalOptions { lineage: 1, ..JournalOptions::default() },
            commit: CommitOptions { reserve_bytes: 0, ..CommitOptions::default() },
            snapshots: snapshots.then(SnapshotOptions::default),
            settings: "recover_rate".to_owned(),
            wall_ns: || START_NS,
            progress: |_| {},
        }),
        ..LiveOptions::default()
    };
    let network = Network::start(Threads::Fused, &options.runtime)?;
    let begun = Instant::now();
    let live = network.live(stages(), streams(), options)?;
    let took = begun.elapsed();
    let recovered = live.recovered().clone();
    Ok((recovered, took, live.finish()?))
}

fn write(folder: &Path, events: u64, keys: u64, size: u64) -> Result<(), Box<dyn Error>> {
    let options = JournalOptions { lineage: 1, ..JournalOptions::default() };
    let (mut journal, _) = Journal::open(Disk::open(folder)?, options, START_NS, |_| {})?;
    let mut batch = Batch::new();
    let names: Vec<String> = (0..keys).map(|key| format!("KEY{key}")).collect();
    let mut fits = batch.source(0, 7, 1, true, "feed", "anonymous");
    for (at, part) in (0u32..).zip(names.chunks(1_000)) {
        let part: Vec<&str> = part.iter().map(String::as_str).collect();
        fits &= batch.names(0, at * 1_000, 0, &part);
    }
    journal.append(&batch, 1, START_NS)?;
    let (mut draw, mut sequence, mut scratch) = (7u64, 1, Vec::new());
    while sequence <= events {
        scratch.clear();
        for at in sequence..sequence + size {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = ((draw >> 33) % keys) as u32;
            let price = Price(100_000_000_000 + (draw >> 40) as i64 * 100);
            scratch.push(Event::trade(
                START_NS + at * 10_000,
                key,
                0,
                price,
                Size(1 + (draw >> 50)),
                flag::BUY,
            ));
        }
        batch.clear();
        fits &= batch.events(0, sequence, keys as u32, &scratch);
        sequence += size;
        journal.append(&batch, 1, START_NS)?;
        if journal.pending_bytes() > 4 << 20 {
            journal.write()?;
        }
    }
    journal.sync()?;
    if fits { Ok(()) } else { Err("batches of so many events do not fit".into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("a folder, please: it is filled with a journal")?;
    let folder = Path::new(&folder);
    let mut number = |usual: u64| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (events, keys, size) = (number(20_000_000)?, number(2_000)?, number(500)?);
    write(folder, events, keys, size)?;
    let (found, took, whole) = life(folder, false, 1)?;
    let (millions, seconds) = (found.events as f64 / 1e6, took.as_secs_f64());
    println!(
        "the whole log: {millions:.1} M events in {seconds:.3} s, {:.2} M events/s in batches of {size}",
        millions / seconds
    );
    let (_, _, report) = life(folder, true, 1)?;
    let stats = report.ingest.stats.snapshots.ok_or("no snapshots")?;
    if let Some(problem) = stats.problem {
        return Err(problem.into());
    }
    let (pause, megabytes) = (stats.pause_ns as f64 / 1e6, stats.pause_bytes as f64 / 1e6);
    println!(
        "a snapshot: {:.1} MB in {:.0} ms; the shard of {megabytes:.1} MB stood still for {pause:.2} ms, {:.2} ms per 10 MB, ingest {:.2} ms",
        stats.bytes as f64 / 1e6,
        stats.took_ns as f64 / 1e6,
        pause / megabytes * 10.0,
        stats.ingest_pause_ns as f64 / 1e6,
    );
    let (found, took, again) = life(folder, true, 1)?;
    if (found.snapshot, again.runtime.digest.short()) != (stats.offset, whole.runtime.digest.short()) {
        return Err("the snapshot was not gone on from, or to other results".into());
    }
    println!(
        "from the snapshot: {:.3} s, {} records behind it, the same digest",
        took.as_secs_f64(),
        found.records
    );
    let (found, took, again) = life(folder, true, 4)?;
    if (found.regrouped, again.runtime.digest.short()) != (Some((1, 4)), whole.runtime.digest.short()) {
        return Err("the snapshot was not taken over by other shards, or to other results".into());
    }
    println!("from the snapshot, by 4 shards: {:.3} s, the same digest", took.as_secs_f64());
    Ok(())
}
