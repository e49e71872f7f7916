//! Random numbers that never change: written out here, so that no dependency's next version changes a golden file.

/// xoshiro256++ (Blackman & Vigna 2019, doi:10.1145/3460772), seeded by splitmix64.
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator whose output is a function of `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut word = seed;
        let state = std::array::from_fn(|_| {
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = word;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        Self { state }
    }

    /// The next 64 bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `end`, by multiplication: the bias of at most `end / 2^64` is far below what any test can see.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(end)) >> 64) as u64
    }

    /// A number in `[low, high]`.
    #[inline]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `of` times.
    #[inline]
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// A bell-shaped integer of standard deviation `deviation` around 0, within six deviations: a sum of twelve uniform
    /// numbers, because logarithms differ in their last bit between platforms and this must not.
    pub fn bell(&mut self, deviation: i64) -> i64 {
        let sum: i64 = (0..3)
            .map(|_| {
                let word = self.word();
                (0..4).map(|part| (word >> (16 * part) & 0xffff) as i64).sum::<i64>()
            })
            .sum();
        nearest(i128::from(sum - 6 * 65_536 + 6) * i128::from(deviation), 1 << 16)
    }

    /// A waiting time of the given mean: geometric in steps of 1/16 of it, so memoryless without a logarithm, and
    /// uniform within the step. Cut at 16 means.
    pub fn wait(&mut self, mean: u64) -> u64 {
        // Steps survived are counted 64 at a time: a draw under 61,565 of 65,536 survives, e^(-1/16).
        let mut steps = 0;
        while steps < 256 && self.word() >> 48 < 61_565 {
            steps += 1;
        }
        let step = (mean / 16).max(1);
        steps * step + self.below(step)
    }
}

/// `value / by` to the nearest integer, halves away from zero: what is rounded up and down alike adds up to no drift.
pub(super) fn nearest(value: i128, by: i128) -> i64 {
    ((value + value.signum() * (by / 2)) / by) as i64
}

/// Draws an index by weight in constant time (Vose 1991), from integer weights.
#[derive(Debug, Clone)]
pub struct Alias {
    /// Index to take when the draw is at or over the limit, and the limit out of 2^32.
    slots: Vec<(u32, u32)>,
}

impl Alias {
    /// A table over weights, not all zero and each below 2^44; at most 2^24 of them.
    ///
    /// # Panics
    /// Without weights or with a sum of zero: the caller's constants are wrong.
    #[must_use]
    pub fn new(weights: &[u64]) -> Self {
        let count = weights.len() as u128;
        let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        assert!(total > 0 && count <= 1 << 24, "weights to draw from");
        // Each slot holds `total`; a weight fills `weight * count` of them.
        let mut fill: Vec<u128> = weights.iter().map(|&weight| u128::from(weight) * count).collect();
        let mut slots: Vec<(u32, u32)> = (0..weights.len() as u32).map(|at| (at, u32::MAX)).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&at| fill[at] < total);
        while let (Some(small), Some(&large)) = (poor.pop(), rich.last()) {
            slots[small] = (large as u32, ((fill[small] << 32) / total) as u32);
            fill[large] -= total - fill[small];
            if fill[large] < total {
                rich.pop();
                poor.push(large);
            }
        }
        Self { slots }
    }

    /// An index, by one word of randomness.
    #[inline]
    #[must_use]
    pub fn draw(&self, word: u64) -> u32 {
        // The upper half picks the slot, the lower half the side.
        let at = ((word >> 32) * self.slots.len() as u64) >> 32;
        let (other, limit) = self.slots[at as usize];
        if (word as u32) < limit { at as u32 } else { other }
    }
}

/// Integer weights of Zipf's law with exponent 1: the first of `count` is `count` times as likely as the last.
#[must_use]
pub fn zipf_weights(count: u32) -> Vec<u64> {
    (1..=u64::from(count)).map(|rank| (1 << 40) / rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // From the authors' C code with this state.
        let mut random = Random { state: [1, 2, 3, 4] };
        let words: Vec<u64> = (0..4).map(|_| random.word()).collect();
        assert_eq!(words, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn draws_follow_their_weights() {
        let table = Alias::new(&[1, 0, 3, 4]);
        let mut random = Random::new(7);
        let mut seen = [0u32; 4];
        for _ in 0..80_000 {
            seen[table.draw(random.word()) as usize] += 1;
        }
        assert_eq!(seen[1], 0);
        for (seen, expected) in seen.iter().zip([10_000u32, 0, 30_000, 40_000]) {
            assert!(seen.abs_diff(expected) < 600, "{seen} for {expected}");
        }
    }

    #[test]
    fn bells_and_waits_have_their_means() {
        let mut random = Random::new(3);
        let count = 100_000;
        let (mut sum, mut squares, mut waits) = (0, 0, 0);
        for _ in 0..count {
            let bell = random.bell(1000);
            sum += bell;
            squares += bell * bell;
            waits += random.wait(1_600);
        }
        assert!((sum / count).abs() < 15, "{}", sum / count);
        assert!((squares / count - 1_000_000).abs() < 20_000, "{}", squares / count);
        // Rounding leans to no side: three standard errors of a small deviation.
        let small: i64 = (0..count).map(|_| random.bell(12)).sum();
        assert!(small.abs() < 3 * 12 * 317, "{small}");
        assert!((waits as i64 / count - 1_600).abs() < 30, "{}", waits as i64 / count);
    }
}
