//! TA-Lib's own output, a slow obvious model, and the promises about state.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use tidegate_engine::output::OUTPUT_WORDS;
use tidegate_engine::{Analyzer, BarState, BarWords, Emit, Lane, Output, Price, output_kind};

fn specs(text: &str) -> Vec<IndicatorSpec> {
    text.split(' ').map(|spec| spec.parse().unwrap()).collect()
}

/// Texts by column.
type Columns = HashMap<String, Vec<String>>;

/// Reference data, or a loud absence.
fn reference() -> Option<(Vec<IndicatorBar>, Columns)> {
    let root = std::env::var_os("TIDEGATE_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let folder = root.join("indicators");
    let Ok(prices) = std::fs::read_to_string(folder.join("spy_daily_1000.csv")) else {
        eprintln!("NOT RUN: no TA-Lib reference under {}; set TIDEGATE_DATA", folder.display());
        return None;
    };
    let price = |text: &str| Price::parse(text.as_bytes()).unwrap().0;
    let bars = prices.lines().skip(1).map(|line| {
        let field: Vec<&str> = line.split(',').collect();
        IndicatorBar {
            open: price(field[1]),
            high: price(field[2]),
            low: price(field[3]),
            close: price(field[4]),
            ..IndicatorBar::default()
        }
    });
    let packed = std::fs::File::open(folder.join("talib_defaults.csv.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut columns = Columns::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split(',')) {
            columns.entry((*name).to_string()).or_default().push(value.to_string());
        }
    }
    Some((bars.collect(), columns))
}

#[test]
fn every_row_agrees_with_talib() {
    let Some((bars, reference)) = reference() else { return };
    let mut set = IndicatorSet::new(&specs("sma:30 ema:30 rsi:14 macd:12:26:9 bb:20:2 atr:14")).unwrap();
    let names = [
        "SMA.real",
        "EMA.real",
        "RSI.real",
        "MACD.macd",
        "MACD.macdsignal",
        "MACD.macdhist",
        "BBANDS.middleband",
        "BBANDS.upperband",
        "BBANDS.lowerband",
        "ATR.real",
    ];
    let mut row = [0.0; OUTPUT_WORDS];
    let (mut worst, mut compared) = (0.0f64, 0);
    for (at, bar) in bars.iter().enumerate() {
        set.update(0, bar, &mut row);
        for (name, value) in names.iter().zip(row) {
            let text = &reference[*name][at];
            if text.is_empty() {
                assert_eq!(value.to_bits(), UNDEFINED.to_bits(), "{name} row {at} must be undefined");
                continue;
            }
            let expected: f64 = text.parse().unwrap();
            // A difference of two means can be near zero; the reference then has its 14 decimals, no more.
            let error = (value - expected).abs() / expected.abs().max(1e-4);
            assert!(error <= 1e-9, "{name} row {at}: {value} against TA-Lib's {expected}");
            worst = worst.max(error);
            compared += 1;
        }
    }
    assert_eq!(bars.len(), 1000);
    eprintln!("TA-Lib: {compared} values agree, worst relative difference {worst:.1e}");
}

/// The obvious way: everything again from the whole history.
mod model {
    pub(super) fn sma(x: &[f64], n: usize) -> f64 {
        if x.len() < n { f64::NAN } else { x[x.len() - n..].iter().sum::<f64>() / n as f64 }
    }

    pub(super) fn ema(x: &[f64], n: usize) -> f64 {
        if x.len() < n {
            return f64::NAN;
        }
        let k = 2.0 / (n as f64 + 1.0);
        x[n..].iter().fold(sma(&x[..n], n), |mean, value| mean + k * (value - mean))
    }

    fn wilder(x: &[f64], n: usize) -> f64 {
        x[n..].iter().fold(sma(&x[..n], n), |mean, value| (mean * (n as f64 - 1.0) + value) / n as f64)
    }

    pub(super) fn rsi(x: &[f64], n: usize) -> f64 {
        if x.len() <= n {
            return f64::NAN;
        }
        let moves: Vec<f64> = x.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let gain = wilder(&moves.iter().map(|m| m.max(0.0)).collect::<Vec<_>>(), n);
        let loss = wilder(&moves.iter().map(|m| (-m).max(0.0)).collect::<Vec<_>>(), n);
        if gain + loss == 0.0 { 0.0 } else { 100.0 * gain / (gain + loss) }
    }

    pub(super) fn macd(x: &[f64], fast: usize, slow: usize, signal: usize) -> [f64; 3] {
        if x.len() < slow + signal - 1 {
            return [f64::NAN; 3];
        }
        let lines: Vec<f64> =
            (slow..=x.len()).map(|end| ema(&x[slow - fast..end], fast) - ema(&x[..end], slow)).collect();
        let (line, mean) = (lines[lines.len() - 1], ema(&lines, signal));
        [line, mean, line - mean]
    }

    pub(super) fn bands(x: &[f64], n: usize, k: f64) -> [f64; 3] {
        let mid = sma(x, n);
        if mid.is_nan() {
            return [mid; 3];
        }
        let variance = x[x.len() - n..].iter().map(|v| (v - mid) * (v - mid)).sum::<f64>() / n as f64;
        [mid, mid + k * variance.sqrt(), mid - k * variance.sqrt()]
    }

    pub(super) fn atr(bars: &[super::IndicatorBar], n: usize) -> f64 {
        if bars.len() <= n {
            return f64::NAN;
        }
        let range = |pair: &[super::IndicatorBar]| {
            let (high, low, before) = (pair[1].high as f64, pair[1].low as f64, pair[0].close as f64);
            (high - low).max((high - before).abs()).max((low - before).abs()) / 1e9
        };
        wilder(&bars.windows(2).map(range).collect::<Vec<_>>(), n)
    }

    pub(super) fn vwap(bars: &[super::IndicatorBar], n: usize) -> f64 {
        if bars.len() < n {
            return f64::NAN;
        }
        let last = &bars[bars.len() - n..];
        let notional: i128 = last.iter().map(|bar| bar.notional).sum();
        let volume: u128 = last.iter().map(|bar| bar.volume).sum();
        if volume == 0 { f64::NAN } else { notional as f64 / volume as f64 / 1e9 }
    }
}

fn any_bar() -> impl Strategy<Value = IndicatorBar> {
    (-50_000i64..50_000, 0i64..5_000, 0i64..5_000, 0i64..=100, prop_oneof![Just(0u128), 1u128..10_000_000])
        .prop_map(|(base, up, down, place, volume)| {
            let cent = 10_000_000;
            let (high, low) = ((base + up) * cent, (base - down) * cent);
            let close = low + (high - low) / 100 * place;
            let notional = i128::from(close) * volume as i128;
            IndicatorBar { open: base * cent, high, low, close, volume, notional }
        })
}

const ALL: &str = "sma:7 ema:5 rsi:6 macd:3:8:4 bb:9:2 bb:4:1.5 atr:5 vwap:3 ema:8 sma:9";

proptest! {
    #[test]
    fn streaming_equals_the_obvious_model(bars in prop::collection::vec(any_bar(), 1..80)) {
        let mut set = IndicatorSet::new(&specs(ALL)).unwrap();
        let mut row = [0.0; OUTPUT_WORDS];
        for end in 1..=bars.len() {
            set.update(3, &bars[end - 1], &mut row);
            let seen = &bars[..end];
            let x: Vec<f64> = seen.iter().map(|bar| bar.close as f64 / 1e9).collect();
            let [m0, m1, m2] = model::macd(&x, 3, 8, 4);
            let ([a0, a1, a2], [b0, b1, b2]) = (model::bands(&x, 9, 2.0), model::bands(&x, 4, 1.5));
            let expected = [
                model::sma(&x, 7), model::ema(&x, 5), model::rsi(&x, 6), m0, m1, m2, a0, a1, a2, b0, b1, b2,
                model::atr(seen, 5), model::vwap(seen, 3), model::ema(&x, 8), model::sma(&x, 9),
            ];
            for (at, (value, expected)) in row.into_iter().zip(expected).enumerate() {
                let close = (value - expected).abs() <= 1e-9 * expected.abs().max(1.0);
                prop_assert!(close || value.is_nan() && expected.is_nan(), "{at}: {value} {expected}");
            }
        }
    }

    #[test]
    fn peek_foretells_and_changes_nothing(bars in prop::collection::vec(any_bar(), 1..60), other in any_bar()) {
        let mut set = IndicatorSet::new(&specs(ALL)).unwrap();
        for bar in &bars {
            let before = saved(&set);
            let (mut ahead, mut aside, mut row) = ([0.0; 16], [0.0; 16], [0.0; 16]);
            set.peek(1, &other, &mut aside);
            set.peek(1, bar, &mut ahead);
            prop_assert_eq!(saved(&set), before);
            set.update(1, bar, &mut row);
            prop_assert_eq!(ahead.map(f64::to_bits), row.map(f64::to_bits));
        }
    }

    #[test]
    fn a_restored_analyzer_goes_on_identically(
        bars in prop::collection::vec((any_bar(), 0u32..4), 2..80), cut in 0usize..80,
    ) {
        let outputs: Vec<Output> = bars.iter().map(|(bar, key)| bar_output(bar, *key)).collect();
        let (before, after) = outputs.split_at(cut.min(outputs.len()));
        let mut whole = IndicatorAnalyzer::new(2, &specs(ALL)).unwrap();
        run(&mut whole, before);
        let mut bytes = Vec::new();
        whole.save(&mut bytes);
        let mut restored = IndicatorAnalyzer::new(2, &specs(ALL)).unwrap();
        restored.restore(&bytes).unwrap();
        prop_assert_eq!(run(&mut whole, after), run(&mut restored, after));
    }
}

fn saved(set: &IndicatorSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    set.save(&mut bytes);
    bytes
}

fn bar_output(bar: &IndicatorBar, key: u32) -> Output {
    let words = BarWords {
        open: bar.open,
        high: bar.high,
        low: bar.low,
        close: bar.close,
        volume: tidegate_engine::output::split(bar.volume),
        notional: tidegate_engine::output::split(bar.notional as u128),
        ..BarWords::default()
    };
    Output {
        kind: output_kind::BAR,
        stream: 2,
        state: BarState::Final as u8,
        key,
        name: u64::from(key),
        words: zerocopy::transmute!(words),
        ..Output::default()
    }
}

fn run(analyzer: &mut IndicatorAnalyzer, outputs: &[Output]) -> Vec<Output> {
    let (mut lane, mut seen) = (Lane::new(5), Vec::new());
    let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
    let mut emit = Emit::new(&mut lane, &mut sink);
    analyzer.on_outputs(outputs, &mut emit);
    emit.flush();
    seen
}

#[test]
fn only_final_bars_of_its_stream_count() {
    let mut analyzer = IndicatorAnalyzer::new(2, &specs("sma:1 rsi:2")).unwrap();
    let bar = bar_output(&IndicatorBar { close: 5_000_000_000, ..IndicatorBar::default() }, 0);
    let others = [
        Output { state: BarState::Forming as u8, ..bar },
        Output { state: BarState::Amended as u8, ..bar },
        Output { cause: tidegate_engine::Cause::Late as u8, ..bar },
        Output { stream: 3, ..bar },
        Output { kind: output_kind::HOST, ..bar },
    ];
    assert_eq!(run(&mut analyzer, &others), []);
    let rows = run(&mut analyzer, &[bar]);
    assert_eq!((rows[0].count, rows[0].words[0], rows[0].words[1]), (2, 5f64.to_bits(), UNDEFINED.to_bits()));
    assert_eq!(rows[0].words[2..], [0; 14]);
}

#[test]
fn nothing_is_left_of_an_outlier_after_a_million_bars() {
    let mut set = IndicatorSet::new(&specs("sma:20 bb:20:2 bb:5:1")).unwrap();
    let mut fresh = set.clone();
    let (mut row, mut expected) = ([0.0; 16], [0.0; 16]);
    let close = |at: i64| 100_000_000_000 + (at * 7919 % 1_000) * 10_000_000;
    let bar = |close: i64| IndicatorBar { close, ..IndicatorBar::default() };
    for at in 0..1_000_000 {
        set.update(0, &bar(if at % 1_000 == 0 { i64::MIN } else { close(at) }), &mut row);
        set.update(0, &bar(if at % 1_000 == 1 { i64::MAX } else { close(at) }), &mut row);
    }
    for at in 0..25 {
        set.update(0, &bar(close(at)), &mut row);
        fresh.update(0, &bar(close(at)), &mut expected);
    }
    assert_eq!(row.map(f64::to_bits), expected.map(f64::to_bits));
}

#[test]
fn the_largest_prices_do_not_overflow_a_band() {
    let mut set = IndicatorSet::new(&specs("bb:4:1")).unwrap();
    let mut row = [0.0; 16];
    for close in [i64::MIN, i64::MAX, i64::MIN, i64::MAX] {
        set.update(0, &IndicatorBar { close, ..IndicatorBar::default() }, &mut row);
    }
    let half = 2f64.powi(63) / 1e9;
    assert!((row[1] / half - 1.0).abs() < 1e-12 && (row[2] / half + 1.0).abs() < 1e-12, "{row:?}");
}

#[test]
fn texts_are_read_or_refused_by_kind() {
    for text in ["rsi:14", "macd:12:26:9", "bb:20:2", "bb:20:2.5", "ema:1", "sma:100000", "atr:14", "vwap:20"]
    {
        assert_eq!(IndicatorSpec::parse(text).unwrap().to_string(), text);
    }
    let wrong = |text: &str| IndicatorSpec::parse(text).unwrap_err();
    assert!(
        matches!(wrong("foo:1"), SpecError::Unknown { .. })
            && wrong("foo:1").to_string().contains("macd:FAST")
    );
    assert!(matches!(wrong(""), SpecError::Unknown { .. }));
    assert!(matches!(wrong("rsi"), SpecError::Arity { found: 0, .. }));
    assert!(matches!(wrong("rsi:1:2"), SpecError::Arity { found: 2, .. }));
    for text in ["rsi:0", "rsi:-1", "rsi:+5", "rsi:100001", "rsi:x", "rsi:", "macd:1:2:0"] {
        assert!(matches!(wrong(text), SpecError::Window { .. }), "{text}");
    }
    for text in ["bb:20:0", "bb:20:-1", "bb:20:nan", "bb:20:inf", "bb:20:101", "bb:20:"] {
        assert!(matches!(wrong(text), SpecError::Deviations { .. }), "{text}");
    }
    assert!(matches!(wrong("macd:26:12:9"), SpecError::FastNotShorter { .. }));
}

#[test]
fn columns_are_named_apart() {
    let columns = |text: &str| IndicatorSet::new(&specs(text)).unwrap().columns().join(" ");
    assert_eq!(columns("rsi:14 macd:12:26:9"), "rsi_14 macd_12_26_9 macd_signal macd_hist");
    assert_eq!(
        columns("bb:20:2 bb:5:1.5"),
        "bb_mid_20_2 bb_upper_20_2 bb_lower_20_2 bb_mid_5_1.5 bb_upper_5_1.5 bb_lower_5_1.5"
    );
    let many = specs("bb:1:1 bb:2:1 bb:3:1 bb:4:1 bb:5:1 bb:6:1");
    assert_eq!(IndicatorSet::new(&many).unwrap_err(), IndicatorError::TooManyColumns { columns: 18 });
    assert!(matches!(IndicatorSet::new(&specs("rsi:1 rsi:1")), Err(IndicatorError::Duplicate { .. })));
    assert!(matches!(IndicatorSet::new(&[]), Err(IndicatorError::Empty)));
}

#[test]
fn job_b_stays_within_its_bytes_and_refuses_foreign_state() {
    let set = IndicatorSet::new(&specs("rsi:14 ema:12 ema:26 macd:12:26:9 bb:20:2")).unwrap();
    assert_eq!(set.bytes_per_key(), 256);
    let mut other = IndicatorSet::new(&specs("rsi:15 ema:12 ema:26 macd:12:26:9 bb:20:2")).unwrap();
    assert!(other.restore(&saved(&set)).is_err());
    assert!(other.restore(&[1, 2, 3]).is_err());
}
