//! Windows on the command line, through the real binary: sessions and sliding windows against the obvious way, roll-ups
//! against direct bars, and all of them through `verify`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_767_623_400 * SECOND;

#[track_caller]
fn run(folder: &Path, line: &str, code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output =
        command.current_dir(folder).args(line.split_whitespace()).output().expect("the binary starts");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "tidegate {line}\n{text}");
    text
}

/// Event time, price, size, whether bought.
type Trade = (u64, u64, u64, bool);
type Market = BTreeMap<&'static str, Vec<Trade>>;

/// Trades of three symbols in order of arrival, up to four seconds out of order, with silences; as a file and by symbol.
fn market(folder: &Path) -> Market {
    let mut state = 42u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let (mut now, mut market) = (START + 10 * SECOND, Market::new());
    let mut file = "ts_event,symbol,price,size,side\n".to_owned();
    for _ in 0..4_000 {
        now += if below(50) == 0 { below(90 * SECOND) } else { below(SECOND) };
        // Every stamp is a multiple of 50 ms, so that many are equal and many lie on a window's edge.
        let ts = (now - below(4 * SECOND)) / 50_000_000 * 50_000_000;
        let symbol = ["A", "B", "C"][below(3) as usize];
        let (price, size, buy) = (100 + below(50), 1 + below(9), below(2) == 0);
        writeln!(file, "{ts},{symbol},{price},{size},{}", if buy { "buy" } else { "sell" }).unwrap();
        market.entry(symbol).or_default().push((ts, price, size, buy));
    }
    std::fs::write(folder.join("t.csv"), file).unwrap();
    market
}

/// A bar as a row of the file, up to the price of its volume.
fn bar(symbol: &str, start: u64, end: u64, trades: &[Trade]) -> String {
    let mut trades = trades.to_vec();
    trades.sort_by_key(|trade| trade.0); // stable: arrival decides ties
    let prices = || trades.iter().map(|trade| trade.1);
    let volume = |all: bool| trades.iter().filter(|t| all || t.3).map(|t| t.2).sum::<u64>();
    format!(
        "{symbol},{start},{end},{},{},{},{},{},{},{}",
        trades[0].1,
        prices().max().unwrap(),
        prices().min().unwrap(),
        trades[trades.len() - 1].1,
        volume(true),
        volume(false),
        trades.len()
    )
}

/// The rows of a file of bars as [`bar`] has them, in its order of text.
fn rows(folder: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let mut rows: Vec<String> = text
        .lines()
        .skip(1)
        .map(|row| {
            let fields: Vec<&str> = row.split(',').collect();
            format!("{},{}", fields[..9].join(","), fields[10])
        })
        .collect();
    rows.sort();
    rows
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

#[test]
fn sessions_end_after_their_silence() {
    let folder = tempfile::tempdir().unwrap();
    let market = market(folder.path());
    run(folder.path(), "replay t.csv --bars session:5s --disorder 5s --out r", 0);
    let mut expected = Vec::new();
    for (symbol, trades) in &market {
        let mut trades = trades.clone();
        trades.sort_by_key(|trade| trade.0);
        for session in trades.chunk_by(|a, b| b.0 - a.0 < 5 * SECOND) {
            expected.push(bar(symbol, session[0].0, session[session.len() - 1].0 + 5 * SECOND, session));
        }
    }
    assert!(expected.len() > 50, "{}", expected.len());
    assert_eq!(rows(folder.path(), "r/bars.session-5s.csv"), sorted(expected));
    // Without the disorder allowed, what comes behind a closed session goes into a file of its own.
    run(folder.path(), "replay t.csv --bars session:1s --out late", 0);
    assert!(folder.path().join("late/bars.session-1s.late.csv").exists());
}

#[test]
fn sliding_windows_hold_what_lies_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let market = market(folder.path());
    for (width, step) in [(60, 10), (10, 4), (3, 1)] {
        let mut expected = Vec::new();
        for (symbol, trades) in &market {
            let last = trades.iter().map(|trade| trade.0).max().unwrap();
            let mut start = START / (step * SECOND) * step * SECOND - width * SECOND;
            while start <= last {
                let end = start + width * SECOND;
                let inside: Vec<Trade> =
                    trades.iter().filter(|trade| (start..end).contains(&trade.0)).copied().collect();
                if !inside.is_empty() && start.is_multiple_of(step * SECOND) {
                    expected.push(bar(symbol, start, end, &inside));
                }
                start += SECOND; // any step: only its multiples count
            }
        }
        let expected = sorted(expected);
        let file = format!("bars.sliding-{width}s-{step}s.csv").replace("60s", "1m");
        let line = format!("replay t.csv --bars sliding:{width}s/{step}s --revisions final");
        run(folder.path(), &format!("{line} --disorder 5s --out calm"), 0);
        assert_eq!(rows(folder.path(), &format!("calm/{file}")), expected);
        // In time or late: the last revision is the same.
        run(folder.path(), &format!("{line} --out late"), 0);
        assert_eq!(rows(folder.path(), &format!("late/{file}")), expected);
    }
}

#[test]
fn a_roll_up_is_the_direct_bar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    market(path);
    // Late, cancelled and corrected trades too; all of them within the horizon of the finest bars.
    run(path, "generate market --events 60k --symbols 20 --session 7200s --out m.tgc", 0);
    for (input, frames) in [("t.csv", true), ("m.tgc", false)] {
        run(
            path,
            &format!("replay {input} --bars 1s,1m,1h,1m@1s,1h@1m@1s --ind ema:3 --horizon 5m --out r"),
            0,
        );
        for (direct, rolled) in [("1m", "1m@1s"), ("1h", "1h@1m@1s")] {
            // Losses and the frames of trades taken back are not for bars to tell.
            let rows = |name: &str| -> Vec<String> {
                let text = std::fs::read_to_string(path.join(format!("r/bars.{name}.csv"))).unwrap();
                let row = |row: &str| {
                    row.splitn(17, ',').take(if frames { 17 } else { 14 }).collect::<Vec<_>>().join(",")
                };
                text.lines().map(row).collect()
            };
            let (direct_rows, rolled_rows) = (rows(direct), rows(rolled));
            assert!(direct_rows.len() > 3);
            assert_eq!(direct_rows.len(), rolled_rows.len(), "{input} {rolled}");
            for (direct, rolled) in direct_rows.iter().zip(&rolled_rows) {
                assert_eq!(direct, rolled, "{input}");
            }
            let indicators = |name: &str| std::fs::read(path.join(format!("r/ind.{name}.csv"))).unwrap();
            assert!(indicators(direct) == indicators(rolled), "{input} {rolled}");
        }
        if input == "m.tgc" {
            let text = std::fs::read_to_string(path.join("r/bars.1m@1s.csv")).unwrap();
            for cause in ["late", "cancel", "correction", "end"] {
                assert!(text.contains(&format!(",{cause},")), "no bar for {cause}");
            }
        }
    }
}

#[test]
fn verify_covers_every_kind_of_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    run(path, "generate market --events 30k --symbols 20 --session 3600s --out m.tgc", 0);
    for late in ["amend", "side", "drop"] {
        let plan = format!(
            "--bars 1s,1m@1s,1h@1m@1s,session:30s,sliding:1m/10s,sliding:5s/2s,1000t --ind rsi:14 --late {late}"
        );
        let text = run(path, &format!("verify m.tgc {plan} --shards 1,3"), 0);
        assert!(text.contains("one result"), "{text}");
    }
    run(path, "replay m.tgc --bars 1s,1m@1s,session:30s,sliding:1m/10s --digest-out m.digest", 0);
    run(path, "verify m.tgc --against m.digest --shards 2", 0);
}

#[test]
fn mistakes_name_the_forms_and_ranges() {
    let folder = tempfile::tempdir().unwrap();
    market(folder.path());
    let wrong = [
        ("session:10", "session:30s"),
        ("sliding:10s/1m", "its step is longer than its width"),
        ("sliding:2h/1s", "at most 3600 slices"),
        ("1s,2h@1s", "at most 3600 slices"),
        ("1m@1s", "add that to the bars"),
        ("1s,1s@1s", "2 or more times"),
        ("1000t,1m@1000t", "only bars of time"),
        ("1s,sliding:10s/1s --horizon 4h", "a horizon of 14401 windows is more than 10000"),
        ("session:5s,session:5s", "bars.session-5s"),
    ];
    for (bars, words) in wrong {
        let text = run(folder.path(), &format!("replay t.csv --bars {bars}"), 2);
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
}

/// Two symbols that move as one, a third against them, a fourth that does not move.
#[test]
fn the_cross_section_of_symbols_that_move_as_one_is_one_move() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut text = "ts,symbol,price,size\n".to_owned();
    let mut level = 1.0f64;
    for second in 0..40u64 {
        level *= 1.0 + 0.01 * ((second * second % 7) as f64 - 3.0);
        let rows = [("A", 100.0 * level), ("B", 5.0 * level), ("C", 20.0 / level), ("D", 7.0)];
        for (symbol, price) in rows {
            text +=
                &format!("{},{symbol},{price:.9},1\n", 1_700_000_000_000_000_000 + second * 1_000_000_000);
        }
    }
    std::fs::write(path.join("t.csv"), text).unwrap();
    let lines = run(path, "spectrum t.csv --bars 1s --window 20 --output jsonl", 0);
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A return needs two prices, a window twenty returns.
    assert_eq!(rows.len(), 20);
    for row in &rows {
        let value = |name: &str| row[name].as_f64().unwrap();
        assert_eq!(row["symbols"], 3, "{row}");
        assert!(
            (value("mode_share") - 1.0).abs() < 1e-6 && (value("effective_rank") - 1.0).abs() < 1e-3,
            "{row}"
        );
        // One pair moves together, two against each other.
        assert!((value("correlation") + 1.0 / 3.0).abs() < 1e-6, "{row}");
    }
    assert!(rows[0]["turbulence"].is_null() && rows[1]["turbulence"].is_number());
    let csv = run(path, "spectrum t.csv --bars 1s --window 20 --output csv", 0);
    assert_eq!(csv.lines().count(), 21);
    assert!(run(path, "spectrum t.csv --bars 1s --window 20", 0).contains("20 rows of bars 1s, window 20"));
    let (short, none) = ("spectrum t.csv --bars 1s --window 41", "spectrum t.csv --shrink 0");
    assert!(run(path, short, 3).contains("no two symbols have moved in a window of 41 bars (there are 40)"));
    assert!(run(path, none, 2).contains("`shrink` is 0: above 0, at most 1"));
}
