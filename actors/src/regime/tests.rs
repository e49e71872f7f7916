//! What a made market shows, and the promises about state.

use super::*;
use proptest::prelude::*;
use tidegate_engine::Lane;
use tidegate_engine::{BarWords, Cause};

fn bar(key: u32, at: u64, close: i64) -> Output {
    let words = BarWords { close, trades: 1, ..BarWords::default() };
    Output {
        kind: output_kind::BAR,
        stream: 2,
        state: BarState::Final as u8,
        key,
        name: u64::from(key),
        ts: at,
        words: words.to_words(),
        ..Output::default()
    }
}

fn run(analyzer: &mut RegimeAnalyzer, outputs: &[Output]) -> Vec<Output> {
    let (mut lane, mut seen) = (Lane::new(5), Vec::new());
    let mut sink = |outputs: &[Output]| seen.extend_from_slice(outputs);
    let mut emit = Emit::new(&mut lane, &mut sink);
    analyzer.on_outputs(outputs, &mut emit);
    emit.flush();
    seen
}

/// Closes of a market that is calm, then wild from bar 300 to 500, then calm: steps of at most 0.05 % or 0.4 %.
fn market(length: u64) -> Vec<i64> {
    let mut close = 100_000_000_000i64;
    let mut word = 1u64;
    let mut next = || {
        // SplitMix64; a sum of four uniform numbers is bell-shaped enough.
        (0..4)
            .map(|_| {
                word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = word;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((mixed ^ (mixed >> 31)) % 2_001) as i64 - 1_000
            })
            .sum::<i64>()
    };
    let closes = (0..length).map(|at| {
        let width = if (300..500).contains(&at) { 8 } else { 1 };
        close += close / 8_000_000 * width * next();
        close
    });
    closes.collect()
}

fn value(rows: &[Output], at: usize, column: &str, spec: RegimeSpec) -> f64 {
    let place = spec.columns().iter().position(|name| name == column).unwrap();
    f64::from_bits(rows[at].words[place])
}

#[test]
fn a_market_that_turns_wild_is_named_dated_and_explained() {
    let spec: RegimeSpec = "hmm:2".parse().unwrap();
    let outputs: Vec<Output> = market(700).iter().zip(0..).map(|(&close, at)| bar(0, at, close)).collect();
    let rows = run(&mut RegimeAnalyzer::new(2, spec), &outputs);
    let of = |at: usize, column: &str| value(&rows, at, column, spec);
    assert_eq!(rows.len(), 700);
    assert!(rows.iter().all(|row| usize::from(row.count) == spec.column_count()));
    assert!((0..LEARNING_BARS).all(|at| of(at, "state").is_nan()), "still learning");
    assert_eq!((of(290, "state"), of(450, "state"), of(690, "state")), (0.0, 1.0, 0.0));
    for at in LEARNING_BARS..700 {
        assert!((of(at, "p_0") + of(at, "p_1") - 1.0).abs() < 1e-9);
    }
    let labels: Vec<f64> = (100..700).map(|at| of(at, "state")).collect();
    let flips = labels.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((2..=6).contains(&flips), "{flips} changes of the label");
    assert!((of(330, "run_length") - 30.0).abs() <= 5.0, "{}", of(330, "run_length"));
    assert!(of(290, "change_probability") < 0.2);
    assert!((300..320).any(|at| of(at, "change_probability") > 0.9));
    assert_eq!(of(350, "changed") as u64 & CHANGED_VARIANCE, CHANGED_VARIANCE);
    assert!(of(350, "deviation") > 4.0 * of(350, "deviation_before"), "the evidence");
}

/// Correlation of neighbours, the slow and obvious way.
fn correlation(returns: &[f64]) -> f64 {
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    let squares: f64 = returns.iter().map(|value| (value - mean).powi(2)).sum();
    returns.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>() / squares
}

#[test]
fn the_correlation_of_neighbours_is_that_of_the_regimes_returns() {
    let spec: RegimeSpec = "hmm:2".parse().unwrap();
    let outputs: Vec<Output> = market(700).iter().zip(0..).map(|(&close, at)| bar(0, at, close)).collect();
    let rows = run(&mut RegimeAnalyzer::new(2, spec), &outputs);
    let of = |at: usize, column: &str| value(&rows, at, column, spec);
    let returns: Vec<f64> = (0..700).map(|at| of(at, "return")).collect();
    let mut known = 0;
    for at in LEARNING_BARS..700 {
        let run = (of(at, "run_length") as usize).min(64);
        if run < 8 {
            assert!(of(at, "autocorrelation").is_nan(), "row {at}");
            continue;
        }
        known += 1;
        let expected = correlation(&returns[at + 1 - run..=at]);
        assert!((of(at, "autocorrelation") - expected).abs() < 1e-6, "row {at}: {expected}");
    }
    assert!(known > 500 && of(LEARNING_BARS, "autocorrelation_before").is_nan());
    // The regime before the wild one: of its last 64 returns, wherever exactly it is found to have ended.
    let before = of(350, "autocorrelation_before");
    let ends = 290..320usize;
    assert!(
        ends.clone().any(|end| (before - correlation(&returns[end - 63..=end])).abs() < 1e-6),
        "{before}"
    );
}

#[test]
fn state_of_the_version_before_is_taken_without_its_returns() {
    let spec = RegimeSpec::new(2).unwrap();
    let mut key = KeyRegime::new(spec);
    let mut row = [0u64; tidegate_engine::output::OUTPUT_WORDS];
    let returns: Vec<f64> =
        market(300).windows(2).map(|pair| pair[1] as f64 / pair[0] as f64 - 1.0).collect();
    returns[..250].iter().for_each(|&value| key.take(value, &mut row));
    let mut words = Vec::new();
    key.save(&mut words);
    // Behind what it had come how many returns were seen, the last 128, and what is known of the regime before.
    let old = &words[..words.len() - (1 + 128 + 2)];
    let (mut again, mut reader) = (KeyRegime::new(spec), Words::new(old));
    again.restore(&mut reader, false).unwrap();
    assert!(reader.is_empty() && KeyRegime::new(spec).restore(&mut Words::new(old), true).is_err());
    let columns = spec.columns();
    let correlated = |name: &String| name.starts_with("autocorrelation") || name == "changed";
    for &value in &returns[250..] {
        let mut other = row;
        key.take(value, &mut row);
        again.take(value, &mut other);
        for (at, name) in columns.iter().enumerate().filter(|(_, name)| !correlated(name)) {
            assert_eq!(row[at], other[at], "{name}");
        }
    }
}

#[test]
fn only_final_bars_of_its_stream_count() {
    let mut analyzer = RegimeAnalyzer::new(2, RegimeSpec::new(2).unwrap());
    let bar = bar(0, 1, 5_000_000_000);
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
fn prices_that_stand_still_or_make_no_sense_leave_it_learning() {
    for closes in [vec![7_000_000_000; 300], vec![0; 300], vec![-5; 300], [i64::MAX, i64::MIN].repeat(150)] {
        let outputs: Vec<Output> = closes.iter().zip(0..).map(|(&close, at)| bar(0, at, close)).collect();
        let spec = RegimeSpec::new(3).unwrap();
        let rows = run(&mut RegimeAnalyzer::new(2, spec), &outputs);
        // All but the return, the last column, which is one where both prices are above zero.
        let judged = spec.column_count() - 1;
        assert!(rows.iter().all(|row| row.values().take(judged).all(f64::is_nan)), "{:?}", closes[0]);
        let standing = closes[0] == 7_000_000_000;
        assert!(rows[1..].iter().all(|row| row.values().last().is_some_and(f64::is_finite) == standing));
    }
}

#[test]
fn texts_are_read_or_refused() {
    for text in ["hmm:2", "hmm:3", "hmm:4"] {
        let spec: RegimeSpec = text.parse().unwrap();
        assert_eq!((spec.to_string().as_str(), spec.columns().len()), (text, spec.column_count()));
    }
    for text in ["", "hmm", "hmm:1", "hmm:5", "hmm:02", "hmm:+2", "hmm:2:3", "rsi:14"] {
        let error = text.parse::<RegimeSpec>().unwrap_err();
        assert!(error.to_string().contains("hmm:2, hmm:3 or hmm:4"), "{error}");
    }
}

#[test]
fn foreign_state_is_refused() {
    let outputs: Vec<Output> = market(200).iter().zip(0..).map(|(&close, at)| bar(0, at, close)).collect();
    let mut analyzer = RegimeAnalyzer::new(2, RegimeSpec::new(2).unwrap());
    run(&mut analyzer, &outputs);
    let mut bytes = Vec::new();
    analyzer.save(&mut bytes);
    assert!(RegimeAnalyzer::new(2, RegimeSpec::new(3).unwrap()).restore(&bytes).is_err());
    for cut in 0..bytes.len() {
        assert!(RegimeAnalyzer::new(2, RegimeSpec::new(2).unwrap()).restore(&bytes[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// A restored analyzer goes on to the same bytes, and a look at the forming bar changes nothing.
    #[test]
    fn a_restored_analyzer_goes_on_the_same(keys in prop::collection::vec(0..3u32, 20..400), part in 0.0..1.0f64) {
        let closes = market(keys.len() as u64);
        let outputs: Vec<Output> =
            closes.iter().zip(&keys).zip(0..).map(|((&close, &key), at)| bar(key, at, close)).collect();
        let (before, after) = outputs.split_at((outputs.len() as f64 * part) as usize);
        let spec = RegimeSpec::new(3).unwrap();
        let mut whole = RegimeAnalyzer::new(2, spec);
        run(&mut whole, before);
        let mut bytes = Vec::new();
        whole.save(&mut bytes);
        let mut restored = RegimeAnalyzer::new(2, spec);
        restored.restore(&bytes).unwrap();
        for output in after {
            let ahead = whole.peek(output.key, output.bar().close);
            let rows = run(&mut whole, &[*output]);
            prop_assert!(rows[0].values().map(f64::to_bits).eq(ahead.into_iter().map(f64::to_bits)));
            prop_assert_eq!(rows, run(&mut restored, &[*output]));
        }
    }
}
