use super::*;
use proptest::prelude::*;

/// Noise in [-1, 1), from a fixed congruential sequence.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut word = seed;
    move || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    }
}

fn detector() -> SeriesDetector {
    SeriesDetector::new(SeriesOptions::default()).unwrap()
}

/// Whether all numbers of two verdicts have the same bits.
fn same(a: &Verdict, b: &Verdict) -> bool {
    let bits = |v: &Verdict| [v.score, v.evidence, v.chance, v.expected, v.spread].map(f64::to_bits);
    bits(a) == bits(b) && a.state == b.state && a.strongest == b.strongest
}

/// Values of every sort, wild ones and missing ones among them.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        12 => -100.0..100.0f64,
        2 => Just(7.0),
        1 => Just(1e9),
        1 => Just(-1e300),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_series_cut_anywhere_scores_the_same_before_the_cut(
        values in prop::collection::vec(any_value(), 1..600), cut in 0usize..600, other in any_value(),
    ) {
        let cut = cut.min(values.len());
        let (mut whole, mut short) = (detector(), detector());
        let all: Vec<Verdict> =
            values.iter().enumerate().map(|(at, &value)| whole.push(at as i64 * 300, value)).collect();
        for (at, &value) in values[..cut].iter().enumerate() {
            prop_assert!(same(&short.push(at as i64 * 300, value), &all[at]));
        }
        // Another future does not change the past; nor can it be anything but a number.
        let verdict = short.push(cut as i64 * 300, other);
        prop_assert!((0.0..=PARTS as f64).contains(&verdict.score) && verdict.chance > 0.0 && verdict.chance <= 1.0);
    }

    #[test]
    fn a_restored_detector_goes_on_alike(
        values in prop::collection::vec(any_value(), 1..600), cut in 0usize..600,
    ) {
        let cut = cut.min(values.len());
        let mut detector = detector();
        values[..cut].iter().enumerate().for_each(|(at, &value)| _ = detector.push(at as i64 * 700, value));
        let mut words = Vec::new();
        detector.save(&mut words);
        let mut restored = SeriesDetector::new(SeriesOptions::default()).unwrap();
        let mut reader = Words::new(&words);
        restored.restore(&mut reader).unwrap();
        prop_assert!(reader.is_empty());
        for (at, &value) in values.iter().enumerate().skip(cut) {
            let seconds = at as i64 * 700;
            prop_assert!(same(&detector.push(seconds, value), &restored.push(seconds, value)));
        }
    }

    #[test]
    fn no_words_break_a_detector(words in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..9, any::<f64>().prop_map(f64::to_bits)], 0..300)) {
        let mut detector = detector();
        if detector.restore(&mut Words::new(&words)).is_ok() {
            for at in 0..300 {
                detector.push(at, f64::from(at as u32 % 7));
            }
        }
    }
}

#[test]
fn the_state_is_small_and_what_does_not_fit_is_refused() {
    assert!(size_of::<SeriesDetector>() <= 2_048, "{}", size_of::<SeriesDetector>());
    let mut words = Vec::new();
    detector().save(&mut words);
    let refused = |words: &[u64]| detector().restore(&mut Words::new(words)).unwrap_err();
    assert_eq!(refused(&words[..words.len() - 1]), AnomalyError::State { problem: "cut short" });
    let place = words.len() - 1;
    words[place] = f64::NAN.to_bits();
    assert_eq!(refused(&words), AnomalyError::State { problem: "not a finite number" });
    for (wrong, said) in [
        (
            SeriesOptions { learning_rows: 99, ..SeriesOptions::default() },
            "`learning_rows` is 99: 100 rows or more",
        ),
        (SeriesOptions { threshold: 0.0, ..SeriesOptions::default() }, "`threshold` is 0: more than 0"),
        (SeriesOptions { margin: 0.0, ..SeriesOptions::default() }, "`margin` is 0: more than 0"),
        (SeriesOptions { hold_rows: 0, ..SeriesOptions::default() }, "`hold_rows` is 0: 1 to 10,000 rows"),
        (SeriesOptions { forget: f64::NAN, ..SeriesOptions::default() }, "`forget` is NaN: 0 to 0.01"),
    ] {
        assert_eq!(SeriesDetector::new(wrong).unwrap_err().to_string(), said);
    }
}

#[test]
fn a_spike_and_a_new_level_are_found_and_not_repeated() {
    let mut noise = noise(1);
    let mut detector = detector();
    let mut alerts = Vec::new();
    for row in 0..6_000i64 {
        let season = 5.0 * libm::sin(row as f64 / 288.0 * std::f64::consts::TAU);
        let value = match row {
            2_000 => 40.0,
            3_000..3_200 => season + noise() + 12.0,
            _ => season + noise(),
        };
        let verdict = detector.push(row * 300, value);
        assert_eq!(verdict.state == SeriesState::Learning, row < 150, "{row}");
        // The first day is new all the way.
        if verdict.score >= 1.25 && row >= 300 {
            assert_eq!(verdict.state, SeriesState::Alert);
            assert!(verdict.chance < 0.02 && verdict.strongest.is_some());
            alerts.push(row);
        }
    }
    let near = |from: i64, to: i64| alerts.iter().filter(|row| (from..to).contains(row)).count();
    assert!((1..=3).contains(&near(2_000, 2_020)), "{alerts:?}");
    assert!((1..=6).contains(&near(3_000, 3_060)), "{alerts:?}");
    let elsewhere = alerts.len() - near(2_000, 2_060) - near(3_000, 3_260);
    assert!(elsewhere <= 2, "{alerts:?}");
}

/// Rows from `from` on at which an alert is due, of 6,000 values five minutes apart.
fn told(from: usize, mut value: impl FnMut(usize) -> f64) -> Vec<usize> {
    let (mut noise, mut detector) = (noise(11), detector());
    let mut is_told = |row: usize| detector.push(row as i64 * 300, value(row) + noise()).score >= 1.25;
    (0..6_000).filter(|&row| is_told(row) && row >= from).collect()
}

#[test]
fn a_level_that_stays_is_told_once_and_then_is_the_ordinary_one() {
    let daily = |row: usize| 5.0 * libm::sin(row as f64 / 288.0 * std::f64::consts::TAU);
    for shift in [12.0, -30.0] {
        let level = |row: usize| if row >= 3_000 { shift } else { 0.0 };
        // A spike as wide as the season has just been left behind by the shift, and stands out again.
        let spike = |row: usize| if row == 5_000 { 14.0 } else { 0.0 };
        let alerts = told(400, |row| daily(row) + level(row) + spike(row));
        let near = |at: usize| alerts.iter().filter(|row| (at..at + 60).contains(row)).count();
        assert!((1..=3).contains(&near(3_000)) && (1..=3).contains(&near(5_000)), "{shift}: {alerts:?}");
        assert!(alerts.len() - near(3_000) - near(5_000) <= 2, "{shift}: {alerts:?}");
    }
}

#[test]
fn a_season_of_any_length_is_learnt() {
    // No calendar has such periods. The value out of place is one that the season reaches every time, half a period later.
    for (period, odd) in [(37, 4_504), (70, 4_532), (130, 4_517)] {
        let season = |row: usize| 15.0 * libm::sin(row as f64 / f64::from(period) * std::f64::consts::TAU);
        let alerts = told(400, |row| if row == odd { 14.0 } else { season(row) });
        assert!(alerts.contains(&odd) && alerts.len() <= 4, "{period}: {alerts:?}");
    }
}

#[test]
fn a_wild_value_does_not_blind() {
    let mut noise = noise(2);
    let mut detector = detector();
    let mut scores = Vec::new();
    for row in 0..4_000i64 {
        let value = match row {
            1_000 => 1e9,
            1_500 => 20.0,
            _ => 10.0 + noise(),
        };
        scores.push(detector.push(row * 60, value).score);
    }
    assert!(scores[1_000] > 3.0, "{}", scores[1_000]);
    assert!(scores[1_500] > 3.0, "10 widths away, after a billion: {}", scores[1_500]);
}

#[test]
fn nothing_is_said_of_a_constant_and_its_end_is_an_alert() {
    for constant in [0.0, 45.0, -1e-12] {
        let mut detector = detector();
        for row in 0..2_000i64 {
            let verdict = detector.push(row * 300, constant);
            assert_eq!(verdict.score, 0.0, "{row}");
            assert_eq!(verdict.expected, constant);
        }
        let verdict = detector.push(2_000 * 300, constant + 1.0);
        assert!(verdict.score > 3.0 && verdict.state == SeriesState::Alert, "{verdict:?}");
    }
}

#[test]
fn the_score_does_not_depend_on_the_unit() {
    let mut noise = noise(3);
    let values: Vec<f64> = (0..3_000).map(|row| if row % 700 == 699 { 9.0 } else { noise() }).collect();
    let scores = |unit: f64| -> Vec<f64> {
        let mut detector = detector();
        let rows = values.iter().enumerate();
        rows.map(|(row, value)| detector.push(row as i64 * 300, value * unit).score).collect()
    };
    let (plain, tiny, huge) = (scores(1.0), scores(1e-9), scores(1e9));
    for row in 0..values.len() {
        // Alike but for rounding, which the small floats of the season and the logarithm's zero bring in.
        assert!((plain[row] - tiny[row]).abs() < 0.02, "{row}: {} {}", plain[row], tiny[row]);
        assert!((plain[row] - huge[row]).abs() < 0.02, "{row}: {} {}", plain[row], huge[row]);
    }
    assert!(plain.iter().any(|&score| score > 1.0));
}
