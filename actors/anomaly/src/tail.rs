//! How often an ordinary stream scores so high: what turns a rank into a chance, and a threshold into a rate.
//!
//! The last 16,384 ordinary scores are kept. Up to their 98th percentile the chance of a score is its place among them, as conformal
//! prediction has it (Vovk, Gammerman & Shafer 2005); above it a generalised Pareto tail is fitted to what lies beyond by
//! probability-weighted moments (Hosking & Wallis 1987, doi:10.1080/00401706.1987.10488243), as in streaming peaks over a threshold
//! (SPOT; Siffer, Fouque, Termier & Largouët 2017, doi:10.1145/3097983.3098144). Of what was an alert no more is learnt than twice what the rate lets
//! ordinary rows be, and as what such a row would have scored by the fit: so an attack does not become ordinary by lasting, and the tail is not cut
//! off either. Where a quarter of what came lately were alerts, it is the stream that has changed, and all is learnt.

use crate::AnomalyError;

/// Ordinary scores kept.
pub const KEPT: usize = 1 << 14;
/// Ordinary scores before anything is said of chances.
pub const LEARNING: usize = 1_024;
/// Scores between two fits.
const FIT_EVERY: usize = 1_024;
/// Share of the scores that is the tail.
const TAIL: f64 = 0.02;
/// Shapes that are believed: from that of a uniform tail to one with a fourth moment; more than that a few hundred scores do not tell.
const SHAPES: (f64, f64) = (-1.0, 0.25);
/// Share of alerts among the last scores from which on it is the stream that has changed.
const CHANGED: f64 = 0.25;
/// So many scores beyond one say more than the fit.
const REACH_MIN: usize = 10;
/// Alerts that are learnt, in proportion to the rate: with fewer a tail judged too short would cut itself off, and be judged shorter.
const LEARNT: f64 = 2.0;
/// Alerts that may be learnt at once: what quiet times have left over.
const SPARE_MAX: f64 = 8.0;
/// The smallest chance that is told: what is rarer than one in 10^12 is that.
pub const CHANCE_MIN: f64 = 1e-12;
/// Rates that can be asked for.
const RATES: std::ops::RangeInclusive<f64> = 1e-9..=0.5;

/// The chances of the scores of one stream, which should be comparable over time. A fixed 260 KiB.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Ordinary scores, the oldest at `at` once it is full.
    ring: Vec<f64>,
    at: usize,
    /// As of the last fit, ascending.
    sorted: Vec<f64>,
    /// Whether each of the last scores was an alert, a bit each, the oldest at `turn`.
    alerts: Vec<u64>,
    turn: usize,
    alerts_count: usize,
    unfitted: usize,
    peak: f64,
    beyond: f64,
    shape: f64,
    scale: f64,
    rate: f64,
    /// Alerts that may be learnt.
    spare: f64,
}

impl Tail {
    /// One that has seen nothing, for alerts at `rate`: 1e-9 to 0.5.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] for any other rate.
    pub fn new(rate: f64) -> Result<Self, AnomalyError> {
        AnomalyError::check("rate", rate, RATES.contains(&rate), "0.000000001 to 0.5")?;
        Ok(Self {
            ring: Vec::with_capacity(KEPT),
            at: 0,
            sorted: Vec::with_capacity(KEPT),
            alerts: vec![0; KEPT / 64],
            turn: 0,
            alerts_count: 0,
            unfitted: 0,
            peak: 0.0,
            beyond: 0.0,
            shape: 0.0,
            scale: 0.0,
            rate,
            spare: 0.0,
        })
    }

    /// Whether a row of this chance is an alert.
    #[must_use]
    pub fn alerts(&self, chance: Option<f64>) -> bool {
        chance.is_some_and(|chance| chance <= self.rate)
    }

    /// Probability that an ordinary row scores at least `score`; `None` while too few have been seen.
    #[must_use]
    pub fn chance(&self, score: f64) -> Option<f64> {
        if self.sorted.is_empty() {
            return None;
        }
        let reach = self.sorted.len() - self.sorted.partition_point(|&other| other < score);
        if !(score > self.peak) {
            return Some((reach as f64 + 1.0) / (self.sorted.len() as f64 + 1.0));
        }
        let far = (score - self.peak) / self.scale;
        let survives = if !(self.scale > 0.0) {
            // Nothing is known of a tail without spread but how many were seen.
            1.0
        } else if self.shape.abs() < SHAPE_NONE {
            libm::exp(-far)
        } else {
            libm::pow((1.0 + self.shape * far).max(0.0), -1.0 / self.shape)
        };
        // A smooth tail is too sure of scores that come in steps.
        let counted = if reach >= REACH_MIN { reach as f64 / self.sorted.len() as f64 } else { 0.0 };
        Some((self.beyond * survives).max(counted).clamp(CHANCE_MIN, 1.0))
    }

    /// The score from which a row is an alert by the fit; `None` while too few have been seen.
    #[must_use]
    pub fn level(&self) -> Option<f64> {
        let rate = self.rate;
        if self.sorted.is_empty() {
            return None;
        }
        let ratio = self.beyond / rate;
        if ratio <= 1.0 {
            let at = (self.sorted.len() as f64 * (1.0 - rate)) as usize;
            return self.sorted.get(at.min(self.sorted.len() - 1)).copied();
        }
        Some(if self.shape.abs() < SHAPE_NONE {
            self.peak + self.scale * libm::log(ratio)
        } else {
            self.peak + self.scale / self.shape * (libm::pow(ratio, self.shape) - 1.0)
        })
    }

    /// Takes a score that was judged, and whether that was an alert.
    pub fn learn(&mut self, score: f64, alerted: bool) {
        let (word, bit) = (self.turn / 64, 1u64 << (self.turn % 64));
        let before = self.alerts[word] & bit != 0;
        self.alerts_count = self.alerts_count + usize::from(alerted) - usize::from(before);
        self.alerts[word] = if alerted { self.alerts[word] | bit } else { self.alerts[word] & !bit };
        self.turn = (self.turn + 1) % KEPT;
        let changed = self.alerts_count as f64 > CHANGED * KEPT as f64;
        if !score.is_finite() {
            return;
        }
        self.spare = (self.spare + LEARNT * self.rate).min(SPARE_MAX);
        let mut score = score;
        if alerted && !changed {
            if self.spare < 1.0 {
                return;
            }
            self.spare -= 1.0;
            score = self.usual_alert().unwrap_or(score).min(score);
        }
        if self.ring.len() < KEPT {
            self.ring.push(score);
        } else {
            self.ring[self.at] = score;
            self.at = (self.at + 1) % KEPT;
        }
        self.unfitted += 1;
        if self.unfitted >= FIT_EVERY && self.ring.len() >= LEARNING {
            self.fit();
        }
    }

    /// The mean of ordinary scores that are alerts, by the fit.
    fn usual_alert(&self) -> Option<f64> {
        let level = self.level()?;
        let past = (level - self.peak).max(0.0);
        Some(level + ((self.scale + self.shape * past) / (1.0 - self.shape)).max(0.0))
    }

    fn fit(&mut self) {
        self.unfitted = 0;
        self.sorted.clear();
        self.sorted.extend_from_slice(&self.ring);
        self.sorted.sort_unstable_by(f64::total_cmp);
        let count = self.sorted.len();
        let first = count - (count as f64 * TAIL) as usize;
        self.peak = self.sorted[first - 1];
        // Of equal scores at the edge none lies beyond it.
        let first = self.sorted.partition_point(|&score| score <= self.peak);
        let beyond = &self.sorted[first..];
        self.beyond = beyond.len() as f64 / count as f64;
        let n = beyond.len() as f64;
        let (mut mean, mut weighted) = (0.0, 0.0);
        for (rank, &score) in (1..).zip(beyond) {
            let excess = score - self.peak;
            mean += excess / n;
            weighted += excess * (n - f64::from(rank)) / (n - 1.0).max(1.0) / n;
        }
        let apart = mean - 2.0 * weighted;
        // Of a tail without spread the mean is all that is known.
        let shape = if beyond.len() > 1 && apart > 0.0 { 2.0 - mean / apart } else { 0.0 };
        self.shape = shape.clamp(SHAPES.0, SHAPES.1);
        // The mean excess of such a tail is scale / (1 - shape).
        self.scale = mean * (1.0 - self.shape);
        if beyond.is_empty() {
            // The largest score is shared by more than a tail's: above it nothing was seen.
            self.beyond = 1.0 / (count as f64 + 1.0);
        }
    }
}

/// A shape that makes no difference.
const SHAPE_NONE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform in (0, 1).
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Share of alerts among `count` scores after a start of 20,000.
    fn share(rate: f64, count: u32, mut score: impl FnMut(f64, u32) -> f64) -> f64 {
        let (mut tail, mut state, mut alerts) = (Tail::new(rate).unwrap(), 7, 0);
        for row in 0..20_000 + count {
            let score = score(uniform(&mut state), row);
            let alert = tail.alerts(tail.chance(score));
            tail.learn(score, alert);
            alerts += u32::from(alert && row >= 20_000);
        }
        f64::from(alerts) / f64::from(count)
    }

    #[test]
    fn a_threshold_is_a_rate_whatever_the_distribution() {
        for rate in [0.01, 0.001] {
            let exponential = share(rate, 300_000, |u, _| -libm::log(u));
            let bounded = share(rate, 300_000, |u, _| u);
            let heavy = share(rate, 300_000, |u, _| libm::pow(u, -0.2));
            let steps = share(rate, 300_000, |u, _| libm::floor(-4.0 * libm::log(u)));
            for found in [exponential, bounded, heavy] {
                assert!((rate / 3.0..rate * 2.0).contains(&found), "{rate}: {exponential} {bounded} {heavy}");
            }
            assert!(steps < rate * 3.0, "{rate}: {steps}");
        }
    }

    #[test]
    fn chances_fall_and_a_level_is_where_a_chance_is_the_rate() {
        let (mut tail, mut state) = (Tail::new(0.01).unwrap(), 3);
        assert_eq!((tail.chance(1.0), tail.level()), (None, None));
        (0..5_000).for_each(|_| tail.learn(-libm::log(uniform(&mut state)), false));
        let mut last = 1.0;
        for at in 0..300 {
            let chance = tail.chance(f64::from(at) / 10.0).unwrap();
            assert!(chance <= last && chance > 0.0, "{at}: {chance} after {last}");
            last = chance;
        }
        for rate in [0.1, 0.01, 1e-3, 1e-6] {
            let at = Tail { rate, ..tail.clone() }.level().unwrap();
            let chance = tail.chance(at).unwrap();
            assert!((1.0 - 1e-9..1.5).contains(&(chance / rate)), "{rate}: {chance}");
        }
    }

    #[test]
    fn an_attack_does_not_become_ordinary_and_a_change_does() {
        // A tenth of what comes is far above the rest, for long: it stays an alert.
        let attack = share(0.001, 200_000, |u, row| if row > 20_000 && row % 10 == 0 { 50.0 } else { u });
        assert!((0.099..0.104).contains(&attack), "{attack}");
        // Everything is higher from some row on: soon that is how it is.
        let change = share(0.001, 200_000, |u, row| if row > 30_000 { 5.0 + u } else { u });
        assert!(change < 0.1, "{change}");
    }

    #[test]
    fn constants_and_what_is_no_number_do_no_harm() {
        let mut tail = Tail::new(0.001).unwrap();
        (0..3_000).for_each(|_| tail.learn(f64::NAN, false));
        assert_eq!(tail.chance(1.0), None);
        (0..3_000).for_each(|_| tail.learn(2.0, false));
        assert!(tail.chance(2.0).unwrap() > 0.99);
        assert!(tail.chance(2.1).unwrap() < 0.001);
        assert!(Tail::new(0.6).is_err() && Tail::new(f64::NAN).is_err());
    }
}
