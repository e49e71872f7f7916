//! A state that shows every difference in what was applied, and in which order.

use tidegate_replica::Machine;

/// Mixes two words so that their order matters.
#[must_use]
pub fn mix(state: u64, word: u64) -> u64 {
    let mut mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29)
}

/// Slots that may move in a life.
pub const SLOTS_MAX: usize = 8;

/// An input about a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Something about one of its keys, numbered from 1.
    Event {
        /// The slot, by its place among those of this life.
        slot: u8,
        /// Which.
        sequence: u32,
    },
    /// Behind this the slot is not this group's.
    Leaves {
        /// The slot.
        slot: u8,
        /// The move.
        number: u32,
    },
    /// Behind this it is, and this is what the old group knew of it.
    Arrives {
        /// The slot.
        slot: u8,
        /// The move.
        number: u32,
        /// The last of it that is known.
        last: u32,
        /// Whether nothing is known, because a declared loss took it.
        anew: bool,
    },
    /// Means nothing.
    Nothing,
}

impl Word {
    /// As an input; no other input has the highest bit.
    #[must_use]
    pub fn input(self) -> u64 {
        let (kind, slot, number, last, anew) = match self {
            Self::Event { slot, sequence } => (0, slot, 0, sequence, false),
            Self::Leaves { slot, number } => (1, slot, number, 0, false),
            Self::Arrives { slot, number, last, anew } => (2, slot, number, last, anew),
            Self::Nothing => (3, 0, 0, 0, false),
        };
        let head = 1 << 63 | kind << 61 | u64::from(slot) << 58 | u64::from(anew) << 57;
        head | u64::from(number) << 32 | u64::from(last)
    }

    /// Out of an input, if it is one.
    #[must_use]
    pub fn of(input: u64) -> Option<Self> {
        let (slot, number, last) = ((input >> 58 & 7) as u8, (input >> 32 & 0xff_ffff) as u32, input as u32);
        match (input >> 63, input >> 61 & 3) {
            (0, _) => None,
            (_, 0) => Some(Self::Event { slot, sequence: last }),
            (_, 1) => Some(Self::Leaves { slot, number }),
            (_, 3) => Some(Self::Nothing),
            _ => Some(Self::Arrives { slot, number, last, anew: input >> 57 & 1 == 1 }),
        }
    }
}

/// What a group's log says of slots that move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The last move by which one left.
    pub left: u32,
    /// The last by which one came.
    pub arrived: u32,
    /// What left last: by which move, and the last of it that was known.
    pub cargo: (u32, u32),
    /// Whether each is here, and the last of it; nothing while it is as in the beginning.
    pub slots: [Option<(bool, u32)>; SLOTS_MAX],
}

impl Held {
    /// Whether a slot is here, which was in the beginning or was not.
    #[must_use]
    pub fn has(&self, slot: u8, first: bool) -> bool {
        self.slots[usize::from(slot)].map_or(first, |(here, _)| here)
    }

    /// The last that is known of a slot.
    #[must_use]
    pub fn last(&self, slot: u8) -> u32 {
        self.slots[usize::from(slot)].map_or(0, |(_, last)| last)
    }

    /// Takes the next word of the log. Returns whether it changed anything.
    pub fn apply(&mut self, word: Word) -> bool {
        match word {
            Word::Event { slot, sequence } => {
                let of = &mut self.slots[usize::from(slot)];
                *of = Some((of.is_none_or(|(here, _)| here), sequence));
            }
            Word::Leaves { slot, number } => {
                if number <= self.left {
                    return false;
                }
                let of = &mut self.slots[usize::from(slot)];
                let last = of.filter(|(here, _)| *here).map_or(0, |(_, last)| last);
                *of = Some((false, last));
                (self.left, self.cargo) = (number, (number, last));
            }
            Word::Arrives { slot, number, last, anew } => {
                if number <= self.arrived {
                    return false;
                }
                let of = &mut self.slots[usize::from(slot)];
                // What the log has of it stays, where nobody knows better.
                let keeps = of.filter(|(here, _)| anew && *here).map(|(_, last)| last);
                *of = Some((true, keeps.unwrap_or(last)));
                self.arrived = number;
            }
            Word::Nothing => {}
        }
        true
    }

    /// As words.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let slots = self.slots.iter().map(|of| match of {
            None => 0,
            Some((here, last)) => 2 | u64::from(*here) | u64::from(*last) << 2,
        });
        let numbers = [self.left, self.arrived, self.cargo.0, self.cargo.1];
        numbers.map(u64::from).into_iter().chain(slots)
    }

    /// Out of its words.
    #[must_use]
    pub fn of_words(words: &[u64]) -> Self {
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let mut held = Self { left: word(0) as u32, arrived: word(1) as u32, ..Self::default() };
        held.cargo = (word(2) as u32, word(3) as u32);
        for (at, of) in held.slots.iter_mut().enumerate() {
            let word = word(4 + at);
            *of = (word != 0).then_some((word & 1 == 1, (word >> 2) as u32));
        }
        held
    }

    /// A hash of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.words().fold(1, mix)
    }
}

/// The state: a hash of all inputs, and what they say of slots, once they say something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded(pub u64, pub Option<Box<Held>>);

impl Folded {
    /// What it knows of slots.
    #[must_use]
    pub fn held(&self) -> Held {
        self.1.as_deref().cloned().unwrap_or_default()
    }

    /// A hash of that; 0 before there is anything.
    #[must_use]
    pub fn held_digest(&self) -> u64 {
        self.1.as_ref().map_or(0, |held| held.digest())
    }
}

impl Machine for Folded {
    type Input = u64;

    fn apply(&mut self, input: &u64) {
        self.0 = mix(self.0, *input);
        if let Some(word) = Word::of(*input) {
            self.1.get_or_insert_default().apply(word);
        }
    }

    fn digest(&self) -> u64 {
        self.0
    }
}
