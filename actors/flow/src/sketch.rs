//! How many different ones: exact while few, then a HyperLogLog; mergeable and of fixed size.

use crate::hash::shorter;

/// Values kept one by one.
const EXACT_MAX: usize = 24;
/// Values compared at once.
const RUN: usize = 8;
/// Registers of the sketch: standard error 1.04 / sqrt(256) = 6.5 %.
const REGISTERS: usize = 256;

/// Distinct hashes: exact up to 24, then estimated with a standard error of 6.5 % (Flajolet et al. 2007, with linear counting
/// for small counts). At most 24 * 4 + 256 bytes.
///
/// In this order: what is asked of every value lies together, and the values themselves behind it.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Distinct {
    registers: Option<Box<Registers>>,
    /// How many; [`UNCOUNTED`] where a register rose and nobody asked since.
    count: u32,
    /// Zero from `count` on.
    exact: [u32; EXACT_MAX],
}

/// An estimate takes a logarithm: it waits until somebody asks.
const UNCOUNTED: u32 = u32::MAX;

/// The registers of a HyperLogLog and what its estimate needs of them, kept up to date so that an estimate costs the same for any size.
#[derive(Debug, Clone)]
struct Registers {
    ranks: [u8; REGISTERS],
    zeros: u16,
    /// Sum of 2^-rank over all registers, in units of 2^-55.
    sum: u64,
}

impl Distinct {
    /// Takes a hash; true where it surely was not there before. 32 bits of it are used: past 10^8 values collisions would show.
    #[inline]
    pub fn insert(&mut self, hash: u64) -> bool {
        self.insert_short(shorter(hash))
    }

    #[inline]
    fn insert_short(&mut self, short: u32) -> bool {
        if let Some(registers) = &mut self.registers {
            let raised = registers.observe(spread(u64::from(short)));
            if raised {
                self.count = UNCOUNTED;
            }
            return raised;
        }
        if self.holds(short) {
            return false;
        }
        if (self.count as usize) < EXACT_MAX {
            self.exact[self.count as usize] = short;
            self.count += 1;
            return true;
        }
        self.outgrow(short);
        true
    }

    /// Whether it is among those kept one by one.
    #[inline]
    fn holds(&self, short: u32) -> bool {
        if short == 0 {
            return self.exact[..self.count as usize].contains(&0);
        }
        // Behind the valid ones there are zeros: whole runs are compared at once.
        let runs = (self.count as usize).div_ceil(RUN);
        self.exact
            .chunks_exact(RUN)
            .take(runs)
            .any(|run| run.iter().fold(false, |any, &held| any | (held == short)))
    }

    #[cold]
    fn outgrow(&mut self, short: u32) {
        let mut registers = self.sketched();
        registers.observe(spread(u64::from(short)));
        self.count = registers.estimate();
        self.registers = Some(registers);
    }

    /// What is kept one by one, as registers.
    fn sketched(&self) -> Box<Registers> {
        let mut registers = Box::new(Registers {
            ranks: [0; REGISTERS],
            zeros: REGISTERS as u16,
            sum: (REGISTERS as u64) << 55,
        });
        for &short in &self.exact[..self.count as usize] {
            registers.observe(spread(u64::from(short)));
        }
        registers
    }

    /// Takes all that another has taken: the result is that of one that took both, to the bit.
    pub fn merge(&mut self, other: &Self) {
        let Some(theirs) = &other.registers else {
            for &short in &other.exact[..other.count as usize] {
                self.insert_short(short);
            }
            return;
        };
        let mut own = self.registers.take().unwrap_or_else(|| self.sketched());
        for (register, &rank) in theirs.ranks.iter().enumerate() {
            own.raise(register, rank);
        }
        self.count = UNCOUNTED;
        self.registers = Some(own);
    }

    /// Reads what inserting a hash will read behind the first fields; changes nothing, and what comes back means nothing.
    #[inline]
    #[must_use]
    pub fn touch(&self, hash: u64) -> u64 {
        u64::from(match &self.registers {
            Some(registers) => u32::from(registers.ranks[(spread(u64::from(shorter(hash))) >> 56) as usize]),
            None => self.exact[0] ^ self.exact[EXACT_MAX - 1],
        })
    }

    /// How many different ones there were.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        match &self.registers {
            Some(registers) if self.count == UNCOUNTED => registers.estimate(),
            _ => self.count,
        }
    }

    /// As [`Distinct::count`], and keeps it until the next register rises: for those who ask again and again.
    #[inline]
    pub fn settled(&mut self) -> u32 {
        self.count = self.count();
        self.count
    }

    /// Bytes it owns beside itself.
    #[must_use]
    pub fn owned_bytes(&self) -> usize {
        self.registers.as_ref().map_or(0, |_| size_of::<Registers>())
    }
}

fn spread(value: u64) -> u64 {
    let mixed = (value ^ (value >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) ^ (mixed >> 33)
}

impl Registers {
    /// Takes a hash; whether a register rose.
    fn observe(&mut self, hash: u64) -> bool {
        self.raise((hash >> 56) as usize, ((hash << 8) | 0x80).leading_zeros() as u8 + 1)
    }

    /// Raises a register to a rank; whether it was lower.
    #[inline]
    fn raise(&mut self, register: usize, rank: u8) -> bool {
        let register = &mut self.ranks[register];
        if rank <= *register {
            return false;
        }
        self.zeros -= u16::from(*register == 0);
        let part = |rank: u8| 1u64 << 55u8.saturating_sub(rank);
        self.sum = self.sum - part(*register) + part(rank);
        *register = rank;
        true
    }

    fn estimate(&self) -> u32 {
        let m = REGISTERS as f64;
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / (self.sum as f64 / (1u64 << 55) as f64);
        let count = if raw <= 2.5 * m && self.zeros > 0 { m * (m / f64::from(self.zeros)).ln() } else { raw };
        // There are more than could be kept one by one, or there were no registers.
        (count.round() as u32).max(EXACT_MAX as u32 + 1)
    }
}

/// Up to [`Few::MAX`] different hashes, for questions that want to know no more than "so many".
#[derive(Debug, Clone, Copy, Default)]
pub struct Few {
    hashes: [u32; Self::MAX],
    count: u32,
}

impl Few {
    /// From here on it is full.
    pub const MAX: usize = 10;

    /// Takes a hash. Whether it was there before, as far as is known: of more than [`Few::MAX`] nobody is.
    #[inline]
    pub fn insert(&mut self, hash: u32) -> bool {
        let count = self.count as usize;
        if self.hashes[..count].contains(&hash) {
            return true;
        }
        if count < Self::MAX {
            self.hashes[count] = hash;
            self.count += 1;
        }
        false
    }

    /// Whether taking more changes nothing.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count as usize >= Self::MAX
    }

    /// How many different ones there were, at most [`Few::MAX`].
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_of;

    #[test]
    fn few_are_exact_and_many_within_the_error() {
        for (n, error) in [(1u32, 0.0), (24, 0.0), (25, 0.2), (100, 0.2), (1_000, 0.2), (100_000, 0.2)] {
            let mut distinct = Distinct::default();
            for round in 0..2 {
                for value in 0..n {
                    let new = distinct.insert(hash_of(&value));
                    assert!(round == 0 || !new, "{value} of {n} was there before");
                }
            }
            let off = (f64::from(distinct.count()) - f64::from(n)).abs() / f64::from(n);
            assert!(off <= error, "{n}: {}", distinct.count());
        }
    }

    /// What is kept up to date equals what the registers say.
    #[test]
    fn sums_are_those_of_the_registers() {
        let mut distinct = Distinct::default();
        for value in 0..50_000u32 {
            let _ = distinct.insert(hash_of(&value));
        }
        let registers = distinct.registers.unwrap();
        let sum: f64 = registers.ranks.iter().map(|&rank| 0.5f64.powi(i32::from(rank))).sum();
        assert_eq!(registers.sum as f64 / (1u64 << 55) as f64, sum);
        assert_eq!(usize::from(registers.zeros), registers.ranks.iter().filter(|&&rank| rank == 0).count());
    }

    /// Parts put together are the whole, whatever their sizes.
    #[test]
    fn parts_merge_into_the_whole() {
        for (all, cut) in
            [(0u32, 0u32), (20, 7), (24, 24), (25, 12), (40, 30), (60, 30), (5_000, 10), (90_000, 45_000)]
        {
            let of = |range: std::ops::Range<u32>| {
                let mut distinct = Distinct::default();
                range.for_each(|value| {
                    let _ = distinct.insert(hash_of(&value));
                });
                distinct
            };
            let whole = of(0..all);
            // Some of the values are in both.
            let overlap = cut + (all - cut) / 3;
            for (mut one, other) in [(of(0..overlap), of(cut..all)), (of(cut..all), of(0..overlap))] {
                one.merge(&other);
                assert_eq!(
                    (one.count(), one.settled()),
                    (whole.count(), whole.count()),
                    "{all} cut at {cut}"
                );
                let registers =
                    |of: &Distinct| of.registers.as_ref().map(|own| (own.ranks, own.zeros, own.sum));
                assert_eq!(registers(&one), registers(&whole), "{all} cut at {cut}");
            }
        }
    }

    #[test]
    fn few_stop_counting() {
        let mut few = Few::default();
        for n in 0..40u32 {
            let _ = few.insert(n / 2);
        }
        assert_eq!(few.count(), 10);
    }
}
