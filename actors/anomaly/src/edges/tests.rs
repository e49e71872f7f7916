use super::*;
use proptest::prelude::*;

fn small() -> EdgeOptions {
    EdgeOptions {
        midas: MidasOptions { cells: 256, ..MidasOptions::default() },
        edge_cells: 1_024,
        node_cells: 256,
    }
}

/// Ten hosts that talk to three servers all day.
fn everyday(detector: &mut EdgeDetector, ticks: std::ops::Range<u64>) -> f64 {
    let mut most = 0.0f64;
    for tick in ticks {
        for source in 0..10u64 {
            most = most.max(detector.push(source, 100 + (source + tick) % 3, tick).score);
        }
    }
    most
}

#[test]
fn a_stranger_and_a_flood_score_above_every_day() {
    let mut detector = EdgeDetector::new(small()).unwrap();
    everyday(&mut detector, 0..500);
    let usual = everyday(&mut detector, 500..1_000);
    let stranger = detector.push(77, 101, 1_000);
    assert!(stranger.score > usual + 5.0, "{} {usual}", stranger.score);
    assert!(stranger.rare_source > 5.0 && stranger.silence > 5.0 && stranger.burst < 5.0, "{stranger:?}");
    let flood = (0..2_000).map(|_| detector.push(3, 101, 1_000)).last().unwrap();
    assert!(flood.score > usual + 2.0 && flood.burst > 10.0, "{flood:?} {usual}");
}

#[test]
fn one_edge_dated_far_ahead_does_not_end_learning_and_a_long_pause_does_not_either() {
    let (mut spoilt, mut plain) = (EdgeDetector::new(small()).unwrap(), EdgeDetector::new(small()).unwrap());
    for detector in [&mut spoilt, &mut plain] {
        everyday(detector, 0..100);
    }
    for at in 1..=3 {
        // Not believed, wherever it claims to be: neither of the two confirms the other.
        assert_eq!(spoilt.push(1, 100, at * 1_000_000).ticks, 100);
        assert_eq!(plain.push(1, 100, 99).ticks, 100);
    }
    assert_eq!(everyday(&mut spoilt, 100..200), everyday(&mut plain, 100..200));
    assert_eq!(spoilt.push(1, 100, 10_000).ticks, 200);
    assert_eq!(spoilt.push(2, 100, 10_001).ticks, 10_002);
}

#[test]
fn memory_is_bounded_and_a_million_names_do_no_harm() {
    let mut detector = EdgeDetector::new(small()).unwrap();
    let mut words = Vec::new();
    detector.save(&mut words);
    let empty = words.len();
    for at in 0..100_000u64 {
        let verdict = detector.push(at.wrapping_mul(0x9e37_79b9), at, at / 1_000);
        assert!(verdict.score.is_finite());
    }
    words.clear();
    detector.save(&mut words);
    assert_eq!(words.len(), empty);
    // Back in time, and to the end of it.
    assert!(detector.push(1, 2, 0).score.is_finite());
    assert!(detector.push(1, 2, u64::MAX).score.is_finite());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_restored_detector_goes_on_alike_and_no_cut_shows(
        edges in prop::collection::vec((0u64..20, 0u64..20, 0u64..3), 1..200), cut in 0usize..200,
    ) {
        let cut = cut.min(edges.len());
        let (mut whole, mut tick) = (EdgeDetector::new(small()).unwrap(), 0);
        let mut restored = None;
        for (at, &(source, destination, later)) in edges.iter().enumerate() {
            if at == cut {
                let mut words = Vec::new();
                whole.save(&mut words);
                let mut other = EdgeDetector::new(small()).unwrap();
                other.restore(&mut Words::new(&words)).unwrap();
                restored = Some(other);
            }
            tick += later;
            let verdict = whole.push(source, destination, tick);
            if let Some(other) = &mut restored {
                prop_assert_eq!(verdict, other.push(source, destination, tick));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let said = |options: EdgeOptions| EdgeDetector::new(options).unwrap_err().to_string();
    assert_eq!(
        said(EdgeOptions { edge_cells: 1_000, ..small() }),
        "`edge_cells` is 1000: a power of two from 16 to 16777216"
    );
    let midas =
        |keep, threshold| EdgeOptions { midas: MidasOptions { cells: 16, keep, threshold }, ..small() };
    assert_eq!(said(midas(1.0, 1.0)), "`keep` is 1: more than 0, less than 1");
    assert_eq!(said(midas(0.5, f64::NAN)), "`threshold` is NaN: more than 0");
    let mut detector = EdgeDetector::new(small()).unwrap();
    let error = detector.restore(&mut Words::new(&[1, 2, 3])).unwrap_err();
    assert!(matches!(error, AnomalyError::State { .. }), "{error}");
}
