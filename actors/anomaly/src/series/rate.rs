//! How often an undisturbed stream scores so high.
//!
//! The n-th value of an undisturbed stream is a record with a probability that falls as 1/n, whatever its
//! distribution; so does the rate of every score, and rate times n is a function of the score alone. That function was
//! measured on noise of several kinds (`cargo run --release -p tidegate-anomaly --example rates`).

/// Scores, and how many rows times n reach them: the largest of independent, autocorrelated, seasonal and count-like
/// noise. Noise with a heavy tail (Student's t with 3 degrees, lognormal) gives more of the highest.
const RATES: [(f64, f64); 10] = [
    (0.0, 60.0),
    (0.25, 15.0),
    (0.5, 8.5),
    (0.75, 4.7),
    (1.0, 3.2),
    (1.5, 2.1),
    (2.0, 1.35),
    (3.0, 0.6),
    (4.0, 0.18),
    (6.0, 0.03),
];

/// Probability that a row of an undisturbed stream scores at least `score` when `rows` are remembered; 1 for no score.
pub(super) fn chance(score: f64, rows: f64) -> f64 {
    if !(score > 0.0) {
        return 1.0;
    }
    let above = RATES.partition_point(|&(at, _)| at <= score).min(RATES.len() - 1);
    let ((low, many), (high, few)) = (RATES[above - 1], RATES[above]);
    // Straight in the logarithm; beyond the last score the last line goes on.
    let share = (score - low) / (high - low);
    let rate = libm::exp(libm::log(many) + share * (libm::log(few) - libm::log(many)));
    (rate / rows).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_score_is_rarer_and_so_is_any_after_more_rows() {
        let mut last = 1.0;
        for at in 1..150 {
            let now = chance(f64::from(at) / 10.0, 1_000.0);
            assert!(now > 0.0 && now < last, "{at} {now}");
            assert!((chance(f64::from(at) / 10.0, 10_000.0) * 10.0 / now - 1.0).abs() < 1e-12);
            last = now;
        }
        assert!((chance(1.0, 1_000.0) - 0.0032).abs() < 1e-12);
        assert_eq!(chance(0.0, 1_000.0), 1.0);
    }
}
