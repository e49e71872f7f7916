//! What a made market shows, and the promises about state.

use super::*;
use proptest::prelude::*;
use tidegate_engine::Cause;
use tidegate_engine::Lane;

const MINUTE_NS: u64 = 60_000_000_000;

fn bar(key: u32, at: u64, trades: u64) -> Output {
    let words = BarWords { ts_open: at * MINUTE_NS, close: 5_000_000_000, trades, ..BarWords::default() };
    Output {
        kind: output_kind::BAR,
        stream: 2,
        state: BarState::Final as u8,
        key,
        name: u64::from(key),
        ts: (at + 1) * MINUTE_NS,
        words: words.to_words(),
        ..Output::default()
    }
}

/// Trades per bar: some 50 to 60, and a burst at bar 700.
fn trades(at: u64) -> u64 {
    let noise = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    if at == 700 { 400 } else { 50 + noise % 11 }
}

fn run(analyzer: &mut AnomalyAnalyzer, outputs: &[Output]) -> Vec<Output> {
    let (mut lane, mut seen) = (Lane::new(5), Vec::new());
    let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
    let mut emit = Emit::new(&mut lane, &mut sink);
    analyzer.on_outputs(outputs, &mut emit);
    emit.flush();
    seen
}

fn value(row: &Output, column: &str) -> f64 {
    let place = AnomalySpec::COLUMNS.iter().position(|name| *name == column).unwrap();
    f64::from_bits(row.words[place])
}

#[test]
fn a_burst_of_trades_is_an_alert_with_what_was_expected() {
    let outputs: Vec<Output> = (0..900).map(|at| bar(0, at, trades(at))).collect();
    let rows = run(&mut AnomalyAnalyzer::new(2, AnomalySpec::new(Measure::Trades)), &outputs);
    assert_eq!(rows.len(), 900);
    assert!(rows.iter().all(|row| usize::from(row.count) == AnomalySpec::COLUMNS.len()));
    assert!(rows[..150].iter().all(|row| value(row, "state") == 0.0 && value(row, "score").is_nan()));
    let burst = &rows[700];
    assert_eq!((value(burst, "state"), value(burst, "value")), (2.0, 400.0));
    assert!(value(burst, "score") > 5.0 && value(burst, "chance") < 1e-3);
    assert!((value(burst, "expected") - 55.0).abs() < 5.0 && value(burst, "spread") < 10.0);
    assert_eq!(value(&rows[690], "state"), 1.0);
    let loud = rows.iter().filter(|row| value(row, "score") >= 1.25).count();
    assert!(loud <= 4, "{loud} bars at or over the threshold");
}

#[test]
fn only_final_bars_of_its_stream_count() {
    let mut analyzer = AnomalyAnalyzer::new(2, AnomalySpec::new(Measure::Range));
    let bar = bar(0, 1, 5);
    let others = [
        Output { state: BarState::Forming as u8, ..bar },
        Output { state: BarState::Amended as u8, ..bar },
        Output { cause: Cause::Late as u8, ..bar },
        Output { stream: 3, ..bar },
        Output { kind: output_kind::HOST, ..bar },
    ];
    assert_eq!(run(&mut analyzer, &others), []);
    assert_eq!(run(&mut analyzer, &[bar]).len(), 1);
}

#[test]
fn prices_that_make_no_sense_leave_it_learning() {
    let mut analyzer = AnomalyAnalyzer::new(2, AnomalySpec::new(Measure::Return));
    let outputs = (0..400u64).map(|at| {
        let words =
            BarWords { ts_open: at, close: [i64::MAX, i64::MIN][at as usize % 2], ..BarWords::default() };
        Output { words: words.to_words(), ..bar(0, at, 1) }
    });
    let rows = run(&mut analyzer, &outputs.collect::<Vec<_>>());
    assert!(rows.iter().all(|row| value(row, "state") == 0.0 && value(row, "value").is_nan()));
}

#[test]
fn texts_are_read_or_refused() {
    for text in ["return", "range", "volume", "trades", "volume:2", "trades:0.5"] {
        assert_eq!(text.parse::<AnomalySpec>().unwrap().to_string(), text);
    }
    assert_eq!("volume:1.25".parse::<AnomalySpec>().unwrap().to_string(), "volume", "the usual one");
    for text in
        ["", "close", "volume:", "volume:0", "volume:16", "volume:NaN", "volume:1:2", "Volume", "hmm:2"]
    {
        let error = text.parse::<AnomalySpec>().unwrap_err();
        assert!(error.to_string().contains("return, range, volume or trades"), "{error}");
    }
}

#[test]
fn foreign_state_is_refused() {
    let spec = AnomalySpec::new(Measure::Trades);
    let mut analyzer = AnomalyAnalyzer::new(2, spec);
    run(&mut analyzer, &(0..200).map(|at| bar(0, at, trades(at))).collect::<Vec<_>>());
    let mut bytes = Vec::new();
    analyzer.save(&mut bytes);
    for other in ["volume", "trades:3"] {
        assert!(AnomalyAnalyzer::new(2, other.parse().unwrap()).restore(&bytes).is_err());
    }
    for cut in 0..bytes.len() {
        assert!(AnomalyAnalyzer::new(2, spec).restore(&bytes[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_analyzer_goes_on_the_same(keys in prop::collection::vec(0..3u32, 20..700), part in 0.0..1.0f64) {
        let outputs: Vec<Output> = (0..).zip(&keys).map(|(at, &key)| bar(key, at, trades(at))).collect();
        let (before, after) = outputs.split_at((outputs.len() as f64 * part) as usize);
        let spec = AnomalySpec::new(Measure::Trades);
        let mut whole = AnomalyAnalyzer::new(2, spec);
        run(&mut whole, before);
        let mut bytes = Vec::new();
        whole.save(&mut bytes);
        let mut restored = AnomalyAnalyzer::new(2, spec);
        restored.restore(&bytes).unwrap();
        prop_assert_eq!(run(&mut whole, after), run(&mut restored, after));
    }
}
