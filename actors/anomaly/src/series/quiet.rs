//! Says a thing once: evidence counts again only when it grows, or after a while.

use crate::AnomalyError;
use crate::state::Walk;

/// What is left of the level per row after them.
const FADE: f64 = 0.95;

/// The strongest evidence of the present episode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    peak: f64,
    age: u64,
}

impl Quiet {
    /// `evidence` when it says something new, otherwise 0; for `hold` rows only what is stronger is let through.
    pub(super) fn pass(&mut self, evidence: f64, hold: u32) -> f64 {
        let hold = u64::from(hold);
        self.age = (self.age + 1).min(hold + 1);
        if self.age > hold {
            self.peak *= FADE;
        }
        if evidence > self.peak {
            (self.peak, self.age) = (evidence, 0);
            evidence
        } else {
            0.0
        }
    }

    /// Strongest evidence of the episode, fading.
    pub(super) fn peak(&self) -> f64 {
        self.peak
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk, hold: u32) -> Result<(), AnomalyError> {
        walk.float(&mut self.peak)?;
        walk.count(&mut self.age, u64::from(hold) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_held_back_and_a_rise_breaks_through() {
        let mut quiet = Quiet::default();
        assert_eq!(
            [2.0, 2.0, 1.0, 3.0, 3.0].map(|evidence| quiet.pass(evidence, 20)),
            [2.0, 0.0, 0.0, 3.0, 0.0]
        );
        let again = (1..100).find(|_| quiet.pass(2.0, 20) > 0.0);
        // 20 rows of which one has passed, then 3 x 0.95^8 < 2.
        assert_eq!(again, Some(27));
    }
}
