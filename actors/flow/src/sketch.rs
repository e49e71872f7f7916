//! How many different ones: exact while few, then a HyperLogLog; mergeable and of fixed size.

/// Values kept one by one.
const EXACT_MAX: usize = 24;
/// Registers of the sketch: standard error 1.04 / sqrt(256) = 6.5 %.
const REGISTERS: usize = 256;

/// Distinct hashes: exact up to 24, then estimated with a standard error of 6.5 % (Flajolet et al. 2007, with linear counting
/// for small counts). At most 24 * 4 + 256 bytes.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    exact: [u32; EXACT_MAX],
    count: u32,
    registers: Option<Box<[u8; REGISTERS]>>,
}

impl Distinct {
    /// Takes a hash; true where it surely was not there before. 32 bits of it are used: past 10^8 values collisions would show.
    pub fn insert(&mut self, hash: u64) -> bool {
        let short = (hash >> 32) as u32 ^ hash as u32;
        if let Some(registers) = &mut self.registers {
            let raised = observe(registers, spread(u64::from(short)));
            if raised {
                self.count = estimate(registers);
            }
            return raised;
        }
        // Zero marks nothing: the count says what is valid.
        let held = &self.exact[..self.count as usize];
        if held.contains(&short) {
            return false;
        }
        if (self.count as usize) < EXACT_MAX {
            self.exact[self.count as usize] = short;
            self.count += 1;
            return true;
        }
        let mut registers = Box::new([0; REGISTERS]);
        for &short in &self.exact {
            observe(&mut registers, spread(u64::from(short)));
        }
        observe(&mut registers, spread(u64::from(short)));
        self.count = estimate(&registers).max(EXACT_MAX as u32 + 1);
        self.registers = Some(registers);
        true
    }

    /// How many different ones there were.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

fn spread(value: u64) -> u64 {
    let mixed = (value ^ (value >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) ^ (mixed >> 33)
}

fn observe(registers: &mut [u8; REGISTERS], hash: u64) -> bool {
    let register = &mut registers[(hash >> 56) as usize];
    let rank = ((hash << 8) | 0x80).leading_zeros() as u8 + 1;
    let raised = rank > *register;
    *register = rank.max(*register);
    raised
}

fn estimate(registers: &[u8; REGISTERS]) -> u32 {
    let m = REGISTERS as f64;
    let sum: f64 = registers.iter().map(|&rank| 0.5f64.powi(i32::from(rank))).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    let zeros = registers.iter().filter(|&&rank| rank == 0).count();
    let count = if raw <= 2.5 * m && zeros > 0 { m * (m / zeros as f64).ln() } else { raw };
    count.round() as u32
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
}
