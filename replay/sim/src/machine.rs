//! A state that shows every difference in what was applied, and in which order.

use tidegate_replica::Machine;

/// Mixes two words so that their order matters.
#[must_use]
pub fn mix(state: u64, word: u64) -> u64 {
    let mut mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29)
}

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded(pub u64);

impl Machine for Folded {
    type Input = u64;

    fn apply(&mut self, input: &u64) {
        self.0 = mix(self.0, *input);
    }

    fn digest(&self) -> u64 {
        self.0
    }
}
