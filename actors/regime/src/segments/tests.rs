//! A slow model that judges by definition, the promise about cuts, and what comes in the wild.

use super::*;
use crate::random::Random;
use proptest::prelude::*;

fn changes(options: SegmentOptions, rows: &[Vec<f64>]) -> Vec<Change> {
    let mut segments = Segments::new(options).unwrap();
    rows.iter().filter_map(|row| segments.push(row)).collect()
}

fn single(values: &[f64]) -> Vec<Change> {
    let rows: Vec<Vec<f64>> = values.iter().map(|&value| vec![value]).collect();
    changes(SegmentOptions::default(), &rows)
}

/// Levels with noise: `(length, level)` after each other.
fn levels(parts: &[(usize, f64)], seed: u64) -> Vec<f64> {
    let mut random = Random(seed);
    let of_part = |&(length, level): &(usize, f64)| vec![level; length];
    parts.iter().flat_map(of_part).map(|level| level + random.bell()).collect()
}

#[test]
fn shifts_are_found_where_they_are() {
    for seed in 0..20 {
        let found = single(&levels(&[(80, 0.0), (60, 6.0), (100, -3.0)], seed));
        let places: Vec<u64> = found.iter().map(|change| change.index).collect();
        assert_eq!(places.len(), 2, "seed {seed}: {found:?}");
        assert!(places[0].abs_diff(80) <= 2 && places[1].abs_diff(140) <= 2, "seed {seed}: {found:?}");
        assert!(found.iter().all(|change| change.detected_at - change.index < 25 && change.gain > 0.0));
    }
}

#[test]
fn a_bend_is_found_and_a_trend_is_none() {
    let mut random = Random(1);
    let mut noisy = |value: f64| value + 0.5 * random.bell();
    let straight: Vec<f64> = (0..400).map(|t| noisy(0.3 * f64::from(t))).collect();
    assert_eq!(single(&straight), []);
    let bent: Vec<f64> =
        (0..300).map(|t| noisy(if t < 150 { 0.3 } else { -0.2 } * f64::from(t - 150))).collect();
    let found = single(&bent);
    assert!(found.len() == 1 && found[0].index.abs_diff(150) < 8, "{found:?}");
}

#[test]
fn noise_of_a_new_width_is_found_and_described() {
    let mut random = Random(5);
    let mut segments = Segments::new(SegmentOptions::default()).unwrap();
    let found = (0..300).find_map(|t| segments.push(&[random.bell() * if t < 150 { 1.0 } else { 8.0 }]));
    assert!(found.is_some_and(|change| change.index.abs_diff(150) < 10), "{found:?}");
    let (before, after) = segments.pieces();
    assert!(after[0].deviation > 2.0 * before[0].deviation, "{before:?} {after:?}");
}

#[test]
fn white_noise_and_spikes_are_no_change() {
    for seed in 0..20 {
        let mut values = levels(&[(600, 0.0)], seed);
        (values[100], values[400], values[401]) = (90.0, -70.0, -75.0);
        assert_eq!(single(&values), [], "seed {seed}");
    }
}

#[test]
fn strange_series_do_no_harm() {
    assert_eq!(single(&[5.0; 500]), []);
    assert_eq!(single(&[f64::NAN; 300]), []);
    assert_eq!(single(&[f64::INFINITY; 300]), []);
    let jump: Vec<f64> = (0..300).map(|t| if t < 150 { 1.0 } else { 1e9 }).collect();
    assert_eq!(single(&jump).iter().map(|change| change.index).collect::<Vec<_>>(), [150]);
    let huge: Vec<f64> = (0..200).map(|t| if t % 2 == 0 { f64::MAX } else { -1e99 }).collect();
    single(&huge);
    let gaps: Vec<f64> = levels(&[(80, 0.0), (80, 9.0)], 3)
        .into_iter()
        .enumerate()
        .map(|(t, value)| if t % 3 == 0 { f64::NAN } else { value })
        .collect();
    let found = single(&gaps);
    assert!(found.len() == 1 && found[0].index.abs_diff(80) <= 3, "{found:?}");
}

#[test]
fn dimensions_that_change_together_are_one_change() {
    let (one, two) = (levels(&[(90, 0.0), (90, 5.0)], 8), levels(&[(90, 100.0), (90, 95.0)], 9));
    let rows: Vec<Vec<f64>> = one.iter().zip(&two).map(|(&a, &b)| vec![a, 1e6 * b, 7.0]).collect();
    let found = changes(SegmentOptions { dimensions: 3, ..SegmentOptions::default() }, &rows);
    assert!(found.len() == 1 && found[0].index.abs_diff(90) <= 1, "{found:?}");
}

#[test]
fn options_out_of_range_are_refused() {
    let usual = SegmentOptions::default();
    for wrong in [
        SegmentOptions { dimensions: 0, ..usual },
        SegmentOptions { penalty: 0.0, ..usual },
        SegmentOptions { penalty: f64::NAN, ..usual },
        SegmentOptions { floor: 0.0, ..usual },
        SegmentOptions { window: 31, ..usual },
        SegmentOptions { length_min: 2, ..usual },
        SegmentOptions { confirm: 0, ..usual },
        SegmentOptions { warm_up: 500, ..usual },
        SegmentOptions { outlier_limit: Some(-1.0), ..usual },
    ] {
        assert!(matches!(Segments::new(wrong), Err(RegimeError::Parameter { .. })), "{wrong:?}");
    }
}

/// Best division of `values[start..end]` by trying every last change, each cost computed from its definition.
fn model(values: &[f64], start: usize, deviation: f64, options: &SegmentOptions) -> Vec<usize> {
    let cost = |from: usize, to: usize| {
        let n = (to - from) as f64;
        let mt = (from..to).map(|t| t as f64).sum::<f64>() / n;
        let my = values[from..to].iter().sum::<f64>() / n;
        let stt: f64 = (from..to).map(|t| (t as f64 - mt).powi(2)).sum();
        let sty: f64 = (from..to).map(|t| (t as f64 - mt) * (values[t] - my)).sum();
        let slope = if stt > 0.0 { sty / stt } else { 0.0 };
        let rss: f64 = (from..to).map(|t| (values[t] - my - slope * (t as f64 - mt)).powi(2)).sum();
        0.5 * n * (rss / (n - 2.0).max(1.0) + (options.floor * deviation).powi(2)).ln()
    };
    let mut best: Vec<(f64, Vec<usize>)> = vec![(0.0, Vec::new())];
    for end in start + 1..=values.len() {
        let mut least = (cost(start, end), Vec::new());
        for last in start + options.length_min..=end.saturating_sub(options.length_min) {
            let (before, path) = &best[last - start];
            let total = before + cost(last, end) + options.penalty;
            if total < least.0 - 1e-9 {
                least = (total, [path.as_slice(), &[last]].concat());
            }
        }
        best.push(least);
    }
    best.pop().unwrap().1
}

#[test]
fn the_division_is_the_best_there_is() {
    // Nothing settles, so the detector's path is over all that came.
    let options = SegmentOptions { confirm: 30, outlier_limit: None, ..SegmentOptions::default() };
    let mut compared = 0;
    for seed in 0..12 {
        let values = levels(&[(20, 0.0), (14, 5.0), (9, -4.0), (17, 1.0)], seed);
        let mut segments = Segments::new(options).unwrap();
        for end in 1..=values.len() {
            if segments.push(&values[end - 1..end]).is_some() {
                break;
            }
            if end < options.warm_up {
                continue;
            }
            let wanted = model(&values[..end], 0, segments.spreads[0].frozen, &options);
            assert_eq!(segments.first_change(), wanted.first().map(|&t| t as u64), "seed {seed} at {end}");
            compared += usize::from(!wanted.is_empty());
        }
    }
    assert!(compared > 100, "only {compared} divisions had a change");
}

fn any_series() -> impl Strategy<Value = Vec<Vec<f64>>> {
    let part = (5..60usize, -20.0..20.0f64, -1.0..1.0f64, 0.0..3.0f64);
    (1..=3usize, prop::collection::vec(part, 1..7), any::<u64>()).prop_map(|(d, parts, seed)| {
        let mut random = Random(seed);
        let mut rows = Vec::new();
        for (length, level, slope, noise) in parts {
            for t in 0..length {
                let of = |at: usize| level * (1.0 + at as f64) + slope * t as f64;
                let row = (0..d).map(|at| {
                    let value = of(at) + noise * random.bell();
                    if random.unit() < 0.05 { f64::NAN } else { value }
                });
                rows.push(row.collect());
            }
        }
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What was reported before a cut does not depend on what comes after it.
    #[test]
    fn a_cut_anywhere_changes_nothing_before_it(rows in any_series(), part in 0.0..1.0f64) {
        let options = SegmentOptions { dimensions: rows[0].len(), ..SegmentOptions::default() };
        let cut = (rows.len() as f64 * part) as usize;
        let mut whole = changes(options, &rows);
        whole.retain(|change| change.detected_at < cut as u64);
        prop_assert_eq!(whole, changes(options, &rows[..cut]));
    }

    /// A saved state goes on as the detector it was taken from.
    #[test]
    fn a_restored_detector_goes_on_the_same(rows in any_series(), part in 0.0..1.0f64) {
        let options = SegmentOptions { dimensions: rows[0].len(), window: 40, ..SegmentOptions::default() };
        let cut = (rows.len() as f64 * part) as usize;
        let mut one = Segments::new(options).unwrap();
        for row in &rows[..cut] {
            one.push(row);
        }
        let mut words = Vec::new();
        one.save(&mut words);
        let mut two = Segments::new(options).unwrap();
        let mut reader = Words::new(&words);
        two.restore(&mut reader).unwrap();
        reader.end().unwrap();
        for row in &rows[cut..] {
            prop_assert_eq!(one.push(row), two.push(row));
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        one.save(&mut a);
        two.save(&mut b);
        prop_assert_eq!(a, b);
    }

    /// A change of unit changes no place.
    #[test]
    fn a_unit_is_no_matter(rows in any_series()) {
        let options = SegmentOptions { dimensions: rows[0].len(), ..SegmentOptions::default() };
        let scaled: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|value| value * 1024.0).collect()).collect();
        let places = |rows: &[Vec<f64>]| -> Vec<(u64, u64)> {
            changes(options, rows).iter().map(|change| (change.index, change.detected_at)).collect()
        };
        prop_assert_eq!(places(&rows), places(&scaled));
    }
}
