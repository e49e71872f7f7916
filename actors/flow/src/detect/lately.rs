//! What was noted lately: a small answer to "surely not", so that most questions end before a table is asked.

/// Hashes noted within the last `SPAN_NS` of the input's time, and up to as long before: a bit each, in two generations (Bloom 1970, with
/// one hash). It never denies what was noted within `SPAN_NS`; what it does not deny may be another's bit, or be older.
#[derive(Debug, Clone)]
pub struct Lately<const SPAN_NS: u64, const WORDS: usize> {
    /// A word of either generation, beside each other so that a question reads one line.
    bits: Box<[[u64; 2]]>,
    /// The generation that is filled: steps of `SPAN_NS` since 1970.
    step: u64,
}

impl<const SPAN_NS: u64, const WORDS: usize> Default for Lately<SPAN_NS, WORDS> {
    fn default() -> Self {
        Self { bits: vec![[0; 2]; WORDS].into(), step: 0 }
    }
}

impl<const SPAN_NS: u64, const WORDS: usize> Lately<SPAN_NS, WORDS> {
    /// Where a hash is: its word, and its bit in it.
    #[inline]
    const fn at(hash: u64) -> (usize, u64) {
        const { assert!(SPAN_NS > 0 && WORDS.is_power_of_two()) };
        ((hash >> 6) as usize & (WORDS - 1), 1 << (hash & 63))
    }

    /// Notes a hash.
    pub fn note(&mut self, hash: u64, now: u64) {
        let step = now / SPAN_NS;
        if step > self.step {
            self.turn(step);
        }
        let (word, bit) = Self::at(hash);
        self.bits[word][(self.step & 1) as usize] |= bit;
    }

    /// Begins a generation.
    #[cold]
    fn turn(&mut self, step: u64) {
        let both = step > self.step + 1;
        for words in &mut self.bits {
            words[(step & 1) as usize] = 0;
            if both {
                *words = [0; 2];
            }
        }
        self.step = step;
    }

    /// Whether a hash may have been noted within `SPAN_NS` before `now`, or after it.
    #[inline]
    #[must_use]
    pub fn may_hold(&self, hash: u64, now: u64) -> bool {
        // Of a time before the generation that is filled, the one before that one is gone.
        now / SPAN_NS < self.step || self.is_set(hash)
    }

    /// The same for one who only wants to know what is worth reading ahead.
    #[inline]
    #[must_use]
    pub fn is_set(&self, hash: u64) -> bool {
        let (word, bit) = Self::at(hash);
        let [even, odd] = self.bits[word];
        (even | odd) & bit != 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_of;
    use proptest::prelude::*;

    proptest! {
        /// Against a list of all that was noted, with times that step either way.
        #[test]
        fn what_was_noted_lately_is_never_denied(
            steps in prop::collection::vec((0u64..40, 0u64..1_000, any::<bool>()), 1..300),
        ) {
            let mut lately = Lately::<100, 4>::default();
            let mut noted = Vec::new();
            let mut base = 0;
            for (what, at, forward) in steps {
                base += if forward { at / 20 } else { 0 };
                let now = if at.is_multiple_of(50) { at } else { base };
                let hash = hash_of(&what);
                let held = noted.iter().any(|&(known, then)| known == hash && now.saturating_sub(then) <= 100);
                prop_assert!(!held || lately.may_hold(hash, now));
                if what.is_multiple_of(3) {
                    lately.note(hash, now);
                    noted.push((hash, now));
                }
            }
        }
    }

    #[test]
    fn what_is_old_or_never_was_is_denied() {
        let mut lately = Lately::<100, 1_024>::default();
        assert!(!lately.may_hold(7, 0));
        (0..100u64).for_each(|n| lately.note(hash_of(&n), 1_000 + n));
        assert!((0..100u64).all(|n| lately.may_hold(hash_of(&n), 1_200)));
        let others = (100..10_000u64).filter(|n| lately.may_hold(hash_of(n), 1_099)).count();
        assert!(others < 100, "{others}");
        lately.note(1, 1_250);
        assert!((0..100u64).filter(|n| lately.may_hold(hash_of(n), 1_250)).count() < 3);
        // An absurd time forgets the past, and denies nothing of it from then on.
        lately.note(1, u64::MAX);
        assert!(lately.may_hold(hash_of(&5u64), 1_260) && !lately.may_hold(hash_of(&5u64), u64::MAX));
    }
}
