//! Records so unlike the typical ones that somebody should know: the detector, with chances for its scores.

use super::{FeatureKind, FeatureWitness, RecordDetector, RecordVerdict};
use crate::AnomalyError;
use crate::tail::Tail;

/// Nats by which a record may be likelier of the other class and still be one that chances are learnt from: where a stream has no other class the
/// two are alike.
const DOUBT: f64 = 3.0;

/// What one record gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordCall {
    /// The score.
    pub verdict: RecordVerdict,
    /// Probability that a typical record scores so high; `None` while learning.
    pub chance: Option<f64>,
    /// The chance is at most the rate that was asked for.
    pub alert: bool,
    /// The score from which a record is an alert; `None` while learning.
    pub level: Option<f64>,
}

/// Judges records, and says which are alerts. Chances are learnt from what it does not clearly take for other.
#[derive(Clone, Debug)]
pub struct RecordAlarm {
    detector: RecordDetector,
    tail: Tail,
}

impl RecordAlarm {
    /// One that has seen nothing; `rate` is the share of typical records that may be alerts, 1e-9 to 0.5.
    ///
    /// # Errors
    /// [`AnomalyError::Parameter`] for another rate, or as [`RecordDetector::new`].
    pub fn new(kinds: &[FeatureKind], rate: f64) -> Result<Self, AnomalyError> {
        Ok(Self { tail: Tail::new(rate)?, detector: RecordDetector::new(kinds)? })
    }

    /// Judges a record by the ones before it, then learns from it.
    ///
    /// # Errors
    /// [`AnomalyError::Length`] when it has another number of features; then nothing is learnt.
    pub fn push(&mut self, features: &[f64]) -> Result<RecordCall, AnomalyError> {
        let verdict = self.detector.push(features)?;
        if verdict.learning {
            return Ok(RecordCall { verdict, chance: None, alert: false, level: None });
        }
        let chance = self.tail.chance(verdict.score);
        let alert = self.tail.alerts(chance);
        let level = self.tail.level();
        if verdict.typical >= -DOUBT {
            self.tail.learn(verdict.score, alert);
        }
        Ok(RecordCall { verdict, chance, alert, level })
    }

    /// The features of the last record that say most, see [`RecordDetector::witnesses`].
    pub fn witnesses(&self, room: &mut [FeatureWitness]) -> usize {
        self.detector.witnesses(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [FeatureKind; 3] = [FeatureKind::Category, FeatureKind::Count, FeatureKind::Share];

    fn typical(at: u64) -> [f64; 3] {
        let word = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        [(word % 3) as f64, 500.0 + (word / 3 % 4_000) as f64, (word / 7 % 3) as f64 / 10.0]
    }

    #[test]
    fn what_is_unlike_the_typical_is_told_with_what_is_unlike_in_it() {
        let mut alarm = RecordAlarm::new(&KINDS, 1e-3).unwrap();
        let mut alerts = 0;
        for at in 0..30_000 {
            let call = alarm.push(&typical(at)).unwrap();
            assert!(call.chance.is_none() || at > 300, "row {at}");
            alerts += u32::from(call.alert);
        }
        assert!(alerts < 90, "{alerts} of 30,000");
        let odd = alarm.push(&[40.0, 800.0, 1.0]).unwrap();
        assert!(odd.alert && odd.chance < Some(1e-3) && Some(odd.verdict.score) >= odd.level, "{odd:?}");
        let mut room = [alarm.detector.witness(0, 0.0); 2];
        assert_eq!(alarm.witnesses(&mut room), 2);
        let (mut found, share) = (room.map(|witness| witness.feature), room.map(|witness| witness.share));
        found.sort_unstable();
        assert_eq!(found, [0, 2]);
        assert!(share.into_iter().all(|share| share < 1e-3) && room.iter().all(|w| w.usual_share > 0.2));
        assert!(room[0].surprise >= room[1].surprise && room[1].surprise > 2.0, "{room:?}");
        assert!(RecordAlarm::new(&KINDS, 0.0).is_err() && alarm.push(&[1.0]).is_err());
    }
}
