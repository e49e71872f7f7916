//! Edges that are so unlikely that somebody should know: the detector, with chances for its scores and what was expected.

use super::{EdgeDetector, EdgeOptions, EdgeVerdict};
use crate::AnomalyError;
use crate::tail::Tail;

/// Weight of a new value in what is expected.
const EXPECTED_STEP: f64 = 1.0 / 1_024.0;

/// Settings of [`EdgeAlarm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeAlarmOptions {
    /// Of its [`EdgeDetector`].
    pub edges: EdgeOptions,
    /// Share of the ordinary edges of ordinary ticks that may be alerts: 1e-9 to 0.5.
    pub rate: f64,
    /// Ticks before anything is said of chances, 1 or more: before that hardly anything can be rare.
    pub learning_ticks: u32,
}

impl Default for EdgeAlarmOptions {
    fn default() -> Self {
        Self { edges: EdgeOptions::default(), rate: 1e-4, learning_ticks: 120 }
    }
}

/// A part of an edge's score as people count it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgePart {
    /// What is counted.
    pub name: &'static str,
    /// What it was.
    pub seen: f64,
    /// The geometric mean of what it was for ordinary edges so far.
    pub expected: f64,
    /// What it adds to the score beyond what is expected.
    pub says: f64,
}

/// Weights of the parts in the score.
const WEIGHTS: [f64; 5] = [1.0, 1.0, 2.0, 0.5, 0.5];

/// What one edge gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeCall {
    /// The score and its parts.
    pub verdict: EdgeVerdict,
    /// Probability that an ordinary edge scores so high; `None` while learning.
    pub chance: Option<f64>,
    /// The chance is at most the rate that was asked for.
    pub alert: bool,
    /// The score from which an edge is an alert in this tick; `None` while learning.
    pub level: Option<f64>,
}

/// Judges edges, and says which are alerts.
///
/// Scores grow with the logarithm of the ticks so far, so chances are those of the score in proportion to that. Chances are learnt from the
/// first edge of each source and destination in a tick: what repeats within one is the same thing to whoever looks, and a flood has no
/// more say than a host.
#[derive(Clone, Debug)]
pub struct EdgeAlarm {
    options: EdgeAlarmOptions,
    detector: EdgeDetector,
    tail: Tail,
    expected: [f64; 5],
    learnt: u64,
}

impl EdgeAlarm {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] when an option is out of range.
    pub fn new(options: EdgeAlarmOptions) -> Result<Self, AnomalyError> {
        let ticks = options.learning_ticks;
        AnomalyError::check("learning_ticks", f64::from(ticks), ticks > 0, "1 or more")?;
        let detector = EdgeDetector::new(options.edges)?;
        Ok(Self { options, detector, tail: Tail::new(options.rate)?, expected: [0.0; 5], learnt: 0 })
    }

    /// What it was built with.
    #[must_use]
    pub fn options(&self) -> EdgeAlarmOptions {
        self.options
    }

    /// Takes an edge of `tick` that stands for `weight` of them; a tick before the last one counts as the last one.
    pub fn push(&mut self, source: u64, destination: u64, tick: u64, weight: f64) -> EdgeCall {
        let verdict = self.detector.push_weighted(source, destination, tick, weight);
        if verdict.ticks < self.options.learning_ticks {
            return EdgeCall { verdict, chance: None, alert: false, level: None };
        }
        let scale = libm::log(f64::from(verdict.ticks) + 1.0);
        let score = verdict.score / scale;
        let chance = self.tail.chance(score);
        let alert = self.tail.alerts(chance);
        let level = self.tail.level().map(|level| level * scale);
        if verdict.first {
            self.tail.learn(score, alert);
            if !alert {
                self.learnt = self.learnt.saturating_add(1);
                let step = EXPECTED_STEP.max(1.0 / self.learnt as f64);
                for (expected, part) in self.expected.iter_mut().zip(parts(&verdict)) {
                    *expected += step * (part - *expected);
                }
            }
        }
        EdgeCall { verdict, chance, alert, level }
    }

    /// The parts of a score, with what they were for ordinary edges so far.
    #[must_use]
    pub fn parts(&self, verdict: &EdgeVerdict) -> [EdgePart; 5] {
        const NAMES: [&str; 5] = [
            "ticks so far for each with the source",
            "ticks since the source was there",
            "sources the destination had",
            "burst (chi-squared)",
            "ticks so far for each with this edge",
        ];
        // Of logarithms of counts; those of the first, the second and the last are not of a count plus one.
        let plain =
            |at: usize, log: f64| if [0, 4].contains(&at) { libm::exp(log) } else { libm::expm1(log) };
        let seen = parts(verdict);
        std::array::from_fn(|at| EdgePart {
            name: NAMES[at],
            // One who was never there counts for a little more than all ticks, which is no number of ticks.
            seen: plain(at, seen[at]).min(if at == 1 { f64::from(verdict.ticks) } else { f64::MAX }),
            expected: plain(at, self.expected[at]),
            says: WEIGHTS[at] * (seen[at] - self.expected[at]),
        })
    }
}

fn parts(verdict: &EdgeVerdict) -> [f64; 5] {
    [verdict.rare_source, verdict.silence, verdict.popular, verdict.burst, verdict.rare_edge]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An office: forty hosts, twelve servers, each host a few of them, more by day.
    fn everyday(tick: u64, mut push: impl FnMut(u64, u64)) {
        for source in 0..40u64 {
            let word = (source * 1_000_003 + tick).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            if word % 10 < 4 {
                push(source, 100 + (source + word / 10 % 3) % 12);
            }
        }
    }

    #[test]
    fn strangers_are_found_and_an_ordinary_week_gives_no_more_than_the_rate() {
        let options = EdgeAlarmOptions { rate: 1e-3, ..EdgeAlarmOptions::default() };
        let mut alarm = EdgeAlarm::new(options).unwrap();
        let (mut edges, mut alerts) = (0u32, 0u32);
        for tick in 0..5_000 {
            everyday(tick, |source, destination| {
                let call = alarm.push(source, destination, tick, 1.0);
                assert_eq!(call.chance.is_none(), call.level.is_none());
                assert!(tick >= 119 || call.chance.is_none(), "nothing is said while learning");
                (edges, alerts) = (edges + 1, alerts + u32::from(call.alert));
            });
        }
        assert!(edges > 50_000 && alerts < edges / 300, "{alerts} of {edges}");
        let stranger = alarm.push(7_777, 103, 5_000, 1.0);
        assert!(stranger.alert && stranger.chance < Some(1e-3), "{stranger:?}");
        assert!(Some(stranger.verdict.score) >= stranger.level, "{stranger:?}");
        let [source, silence, ..] = alarm.parts(&stranger.verdict);
        assert!(source.seen > 1_000.0 && source.expected < 10.0, "{source:?}");
        assert!(silence.seen > 1_000.0 && silence.expected < 30.0, "{silence:?}");
        // One host that does what it does a thousand times in a tick.
        let burst = (0..1_000).map(|_| alarm.push(3, 103, 5_001, 1.0)).any(|call| call.alert);
        // The same told by one row that says how many it stands for.
        let mut told = EdgeAlarm::new(options).unwrap();
        (0..5_000).for_each(|tick| {
            everyday(tick, |source, to| {
                told.push(source, to, tick, 1.0);
            })
        });
        let weighed = told.push(3, 103, 5_001, 1_000.0);
        assert!(burst && weighed.alert && weighed.verdict.burst > 5.0, "{burst} {weighed:?}");
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        let with = |rate, learning_ticks| {
            let options = EdgeAlarmOptions { rate, learning_ticks, ..EdgeAlarmOptions::default() };
            EdgeAlarm::new(options).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(with(0.7, 1), "`rate` is 0.7: 0.000000001 to 0.5");
        assert_eq!(with(0.1, 0), "`learning_ticks` is 0: 1 or more");
    }
}
