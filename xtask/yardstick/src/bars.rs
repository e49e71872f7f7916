//! `trades/<sym>_<day>.csv.gz` -> `bars/<sym>_<day>_<1s|1m>.csv`.

use crate::{YardstickError, create, inputs};
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_engine::{
    BarWords, Event, Notional, Output, Price, Sequencer, SequencerOptions, Shard, Stage, Volume, kind,
    output_kind, slot_of,
};
use tidegate_replay::decode::{self, ReadOptions};

const WIDTHS: [&str; 2] = ["1s", "1m"];

/// Last revision of each bar by stream and start.
type Bars = BTreeMap<(u16, u64), BarWords>;

pub(crate) fn write(data: &Path, out: &Path) -> anyhow::Result<usize> {
    let files = inputs(&data.join("trades"), ".csv.gz", "<symbol>_<day>.csv.gz")?;
    for (stem, path) in &files {
        let bars = compute(path)?;
        for (stream, width) in (0..).zip(WIDTHS) {
            let mut table = create(&out.join("bars"), &format!("{stem}_{width}.csv"))?;
            table.write_record(["start_ns", "open", "high", "low", "close", "volume", "trades", "vwap"])?;
            for ((_, start), bar) in bars.range((stream, 0)..=(stream, u64::MAX)) {
                let [open, high, low, close] = [bar.open, bar.high, bar.low, bar.close].map(Price);
                table.write_record([
                    start.to_string(),
                    open.to_string(),
                    high.to_string(),
                    low.to_string(),
                    close.to_string(),
                    bar.volume().to_string(),
                    bar.trades.to_string(),
                    quotient(bar.notional(), bar.volume()),
                ])?;
            }
            table.flush()?;
        }
    }
    Ok(files.len() * WIDTHS.len())
}

/// One file through one shard.
fn compute(path: &Path) -> anyhow::Result<Bars> {
    let mut source = decode::open(path, &ReadOptions { strict: true, ..ReadOptions::default() })?;
    let mut stages = Vec::new();
    for (stream, width) in (0..).zip(WIDTHS) {
        let spec: BarSpec = width.parse()?;
        stages.push(Stage::new(format!("bars.{width}"), stream, spec.operator(BarOptions::default())));
    }
    let mut shard = Shard::new(stages);
    let mut bars = Bars::new();
    let mut sink = |outputs: &[Output]| {
        for output in outputs.iter().filter(|output| output.kind == output_kind::BAR) {
            let bar = output.bar();
            bars.insert((output.stream, bar.ts_open), bar); // a later revision replaces
        }
    };
    let mut sequencer = Sequencer::new(SequencerOptions::default());
    let (mut events, mut defined) = (Vec::new(), 0);
    loop {
        events.clear();
        let count = source.read(&mut events, 8_192)?;
        for &name in &source.names().hashes()[defined..] {
            let payload = [name, u64::from(slot_of(name))];
            shard.process(&[Event::control(kind::DEFINE, 0, defined as u32, 0, payload)], &mut sink);
            defined += 1;
        }
        if count == 0 {
            break;
        }
        sequencer.push(&events, &mut |frame| {
            shard.process(frame, &mut sink);
        });
    }
    sequencer.finish(&mut |frame| {
        shard.process(frame, &mut sink);
    });
    shard.flush(&mut sink);
    if defined > 1 {
        return Err(YardstickError::ManySymbols { path: path.to_owned(), symbols: defined }.into());
    }
    bars.retain(|_, bar| bar.trades > 0); // all its trades were taken back
    Ok(bars)
}

/// Digits of a quotient after the nine that prices have.
const MORE_DIGITS: usize = 6;

/// Notional by volume with fifteen decimals, cut off; empty without volume.
fn quotient(notional: Notional, volume: Volume) -> String {
    if volume.0 == 0 {
        return String::new();
    }
    let magnitude = notional.0.unsigned_abs();
    let (units, mut rest) = (magnitude / volume.0, magnitude % volume.0);
    let mut digits = format!("{units:010}");
    for _ in 0..MORE_DIGITS {
        // A sum of sizes is far below 2^124, so ten times a remainder fits.
        rest *= 10;
        digits.push(char::from(b'0' + (rest / volume.0) as u8));
        rest %= volume.0;
    }
    digits.insert(digits.len() - 9 - MORE_DIGITS, '.');
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if notional.0 < 0 { format!("-{digits}") } else { digits.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn quotients_have_fifteen_decimals() {
        let check = |notional: i128, volume: u128, want: &str| {
            assert_eq!(quotient(Notional(notional), Volume(volume)), want);
        };
        check(0, 0, "");
        check(0, 5, "0");
        check(10_000_000_000, 10, "1");
        check(10_000_000_000, 3, "3.333333333333333");
        check(-10_000_000_000, 3, "-3.333333333333333");
        check(1, 3, "0.000000000333333");
        check(167_410_000_000 * 300, 300, "167.41");
        check(i128::MAX, 1 << 100, "0.134217727999999");
    }

    #[test]
    fn late_trades_are_in_the_bars() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(data.join("trades")).unwrap();
        let file = std::fs::File::create(data.join("trades/x_1.csv.gz")).unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let rows = ["1381132801500000000,10,1", "1381132802500000000,11,2", "1381132801600000000,12.5,1"];
        gz.write_all(format!("ts_ns,price,size\n{}\n", rows.join("\n")).as_bytes()).unwrap();
        gz.finish().unwrap();
        assert_eq!(write(&data, &out).unwrap(), 2);
        assert_eq!(
            std::fs::read_to_string(out.join("bars/x_1_1s.csv")).unwrap(),
            "start_ns,open,high,low,close,volume,trades,vwap\n\
             1381132801000000000,10,12.5,10,12.5,2,2,11.25\n1381132802000000000,11,11,11,11,2,1,11\n"
        );
        assert_eq!(
            std::fs::read_to_string(out.join("bars/x_1_1m.csv")).unwrap(),
            "start_ns,open,high,low,close,volume,trades,vwap\n1381132800000000000,10,12.5,10,11,4,3,11.125\n"
        );
    }
}
