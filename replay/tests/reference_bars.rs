//! Real trades become the very bars that pandas, DuckDB and Polars made of them.
//!
//! The files are not part of the repository: TIDEGATE_DATA names their folder, `../shared/data` beside the workspace
//! is the default, and without them the tests say so and pass.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_engine::{
    BarWords, Event, Output, Price, Sequencer, SequencerOptions, Shard, Size, Stage, kind, output_kind,
    slot_of,
};
use tidegate_replay::decode::{self, ReadOptions};

fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("TIDEGATE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let found = root.join("trades");
    if !found.is_dir() {
        eprintln!("NOT RUN: no reference bars at {}; set TIDEGATE_DATA", found.display());
        return None;
    }
    Some(found)
}

/// The only day of trades of `symbol`.
fn trades(folder: &Path, symbol: &str) -> PathBuf {
    let mut found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(&format!("{symbol}_")) && name.ends_with(".csv.gz")
    });
    found.next().unwrap_or_else(|| panic!("no trades of {symbol} in {}", folder.display()))
}

/// Bars of a file by stream, in order of their start (time) or of their number (ticks), as last revised.
fn bars(path: &Path, specs: &[&str]) -> Vec<Vec<BarWords>> {
    let mut source = decode::open(path, &ReadOptions { strict: true, ..ReadOptions::default() }).unwrap();
    let (mut events, mut runs) = (Vec::new(), Vec::new());
    while source.read(&mut events, 5_000).unwrap() > 0 {
        runs.push(events.len());
    }
    let stages = (0..).zip(specs).map(|(stream, text)| {
        let spec: BarSpec = text.parse().unwrap();
        Stage::new(*text, stream, spec.operator(BarOptions::default()))
    });
    let mut shard = Shard::new(stages.collect());
    let mut time: BTreeMap<(u16, u64), BarWords> = BTreeMap::new();
    let mut ticks: Vec<BarWords> = Vec::new();
    let mut sink = |outputs: &[Output]| {
        for output in outputs.iter().filter(|output| output.kind == output_kind::BAR) {
            if specs[usize::from(output.stream)].ends_with('t') {
                ticks.push(output.bar()); // several may start in one instant
            } else {
                time.insert((output.stream, output.bar().ts_open), output.bar());
            }
        }
    };
    for (key, &name) in (0..).zip(source.names().hashes()) {
        let define = Event::control(kind::DEFINE, 0, key, 0, [name, u64::from(slot_of(name))]);
        shard.process(&[define], &mut sink);
    }
    let mut sequencer = Sequencer::new(SequencerOptions::default());
    let mut emit = |frame: &[Event]| {
        shard.process(frame, &mut sink);
    };
    let mut start = 0;
    for end in runs {
        sequencer.push(&events[start..end], &mut emit);
        start = end;
    }
    sequencer.finish(&mut emit);
    shard.flush(&mut sink);
    for stage in shard.stages() {
        assert_eq!(stage.ledger().imbalance(), 0);
        assert_eq!(stage.ledger().delivered, events.len() as u64);
    }
    (0..specs.len() as u16)
        .map(|stream| {
            if specs[usize::from(stream)].ends_with('t') {
                ticks.clone()
            } else {
                time.range((stream, 0)..=(stream, u64::MAX)).map(|(_, bar)| *bar).collect()
            }
        })
        .collect()
}

fn table(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    (lines.next().unwrap(), lines.collect())
}

fn check(reference: &Path, bars: &[BarWords]) {
    let (head, rows) = table(reference);
    assert_eq!(rows.len(), bars.len(), "{}", reference.display());
    for (at, (row, bar)) in rows.iter().zip(bars).enumerate() {
        let place = format!("{} row {}", reference.display(), at + 1);
        for (column, text) in head.iter().zip(row) {
            let number = || text.parse::<u64>().unwrap();
            let price = |found: i64| {
                assert_eq!(Price(found), Price::parse(text.as_bytes()).unwrap(), "{column} of {place}");
            };
            match column.as_str() {
                "bar" => assert_eq!(number(), at as u64, "{place}"),
                "start_ns" | "first_ns" => assert_eq!(bar.ts_open, number(), "{column} of {place}"),
                "last_ns" => {}
                "open" => price(bar.open),
                "high" => price(bar.high),
                "low" => price(bar.low),
                "close" => price(bar.close),
                "volume" => {
                    let want = u128::from(Size::parse(text.as_bytes()).unwrap().0);
                    assert_eq!(bar.volume().0, want, "{place}");
                }
                "trades" => assert_eq!(bar.trades, number(), "{place}"),
                "vwap" => {
                    let want: f64 = text.parse().unwrap();
                    let found = bar.notional().0 as f64 / bar.volume().0 as f64 / 1e9;
                    // The reference has ten significant digits.
                    assert!((found - want).abs() <= 1e-9 * want.abs(), "{place}: {found}, not {want}");
                }
                other => panic!("{place}: no rule for column `{other}`"),
            }
        }
    }
    eprintln!("{}: {} bars agree", reference.display(), bars.len());
}

fn agrees(symbol: &str) {
    let Some(folder) = folder() else { return };
    let found = bars(&trades(&folder, symbol), &["1s", "1m", "1000t"]);
    for (bars, width) in found.iter().zip(["1s", "1m", "1000ticks"]) {
        check(&folder.join(format!("bars/{symbol}_{width}.csv.gz")), bars);
    }
}

#[test]
fn bars_of_a_liquid_fund() {
    agrees("spy");
}

#[test]
fn bars_of_a_cheap_share() {
    agrees("bac");
}
