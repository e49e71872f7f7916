//! What a host's window keeps of many values in little room: how many different ones, how large, how regular. All of it merges: what two parts
//! of an input gave, put together, is to the bit what the whole gives.
//!
//! While values are few they are kept one by one and what is told is exact; then a block of a [`Pool`] holds a sketch.

/// Different values that are kept one by one.
pub const EXACT_MAX: usize = 32;
/// Sizes that are kept one by one.
pub const SIZES_MAX: usize = 24;
/// No block.
pub(super) const NONE: u32 = u32::MAX;
/// Bytes of a block, and HyperLogLog registers: `2^10`, standard error `1.04 / sqrt(1024)` = 3.25 %.
pub const REGISTERS: usize = 1 << 10;
/// Counters of a block that holds sizes.
const BUCKETS: usize = REGISTERS / 4;

/// Sketches in one piece, places reused.
#[derive(Clone, Default)]
pub struct Pool {
    pub(super) blocks: Vec<u8>,
    pub(super) free: Vec<u32>,
}

impl Pool {
    fn take(&mut self) -> u32 {
        if let Some(place) = self.free.pop() {
            self.block_mut(place).fill(0);
            return place;
        }
        let place = self.blocks.len() / REGISTERS;
        self.blocks.resize((place + 1) * REGISTERS, 0);
        place as u32
    }

    /// A block with what the one at `place` of another pool holds; [`NONE`] is none.
    pub(super) fn adopt(&mut self, place: u32, from: &Self) -> u32 {
        if place == NONE {
            return NONE;
        }
        let block = self.take();
        self.block_mut(block).copy_from_slice(from.block(place));
        block
    }

    /// Gives a block back; [`NONE`] is none.
    pub(super) fn give_back(&mut self, place: u32) {
        if place != NONE {
            self.free.push(place);
        }
    }

    fn block(&self, place: u32) -> &[u8] {
        &self.blocks[place as usize * REGISTERS..][..REGISTERS]
    }

    fn block_mut(&mut self, place: u32) -> &mut [u8] {
        &mut self.blocks[place as usize * REGISTERS..][..REGISTERS]
    }
}

/// Distinct values: a small exact set, then a HyperLogLog (Flajolet et al. 2007).
#[derive(Clone, Copy, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Distinct {
    count: u32,
    /// Place in the pool, or [`NONE`] while exact.
    pub(super) block: u32,
    values: [u32; EXACT_MAX],
}

impl Distinct {
    /// None yet.
    pub const EMPTY: Self = Self { count: 0, block: NONE, values: [0; EXACT_MAX] };

    /// Whether its parts are possible; for what comes out of a snapshot.
    pub(super) fn is_sound(&self) -> bool {
        self.count as usize <= EXACT_MAX
    }

    /// Takes a value.
    pub fn add(&mut self, value: u32, pool: &mut Pool) {
        if self.block != NONE {
            return observe(pool.block_mut(self.block), value);
        }
        let held = self.count as usize;
        if self.values[..held].contains(&value) {
            return;
        }
        if held < EXACT_MAX {
            self.values[held] = value;
            self.count += 1;
            return;
        }
        self.outgrow(pool);
        observe(pool.block_mut(self.block), value);
    }

    fn outgrow(&mut self, pool: &mut Pool) {
        self.block = pool.take();
        for &value in &self.values[..self.count as usize] {
            observe(pool.block_mut(self.block), value);
        }
    }

    /// Takes all that another, whose sketch lies in `from`, has taken.
    pub fn merge(&mut self, pool: &mut Pool, other: &Self, from: &Pool) {
        if other.block == NONE {
            return other.values[..other.count as usize].iter().for_each(|&value| self.add(value, pool));
        }
        if self.block == NONE {
            self.outgrow(pool);
        }
        for (held, rank) in pool.block_mut(self.block).iter_mut().zip(from.block(other.block)) {
            *held = (*held).max(*rank);
        }
    }

    /// How many; past [`EXACT_MAX`] an estimate, and never less than one more.
    #[must_use]
    pub fn count(&self, pool: &Pool, scale: &Scale) -> u64 {
        match self.block {
            NONE => u64::from(self.count),
            block => scale.estimate(pool.block(block)).max(EXACT_MAX as u64 + 1),
        }
    }
}

fn observe(registers: &mut [u8], value: u32) {
    let hash = mix(value);
    let register = (hash >> 54) as usize; // the top 10 bits choose, the other 54 are counted
    let rank = ((hash << 10) | (1 << 9)).leading_zeros() as u8 + 1;
    registers[register] = registers[register].max(rank);
}

/// A fixed 64-bit mix (the finaliser of SplitMix64, Steele et al. 2014).
fn mix(value: u32) -> u64 {
    let mut z = u64::from(value).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What registers mean as a count.
pub struct Scale {
    /// `filled[zeros]`: values needed on average to leave that many of the registers zero.
    filled: Box<[f64]>,
}

impl Default for Scale {
    fn default() -> Self {
        // Filling all but `zeros` of the registers takes `m / m + m / (m - 1) + ... + m / (zeros + 1)` values on average.
        let mut filled = vec![0.0; REGISTERS + 1].into_boxed_slice();
        for zeros in (0..REGISTERS).rev() {
            filled[zeros] = filled[zeros + 1] + REGISTERS as f64 / (zeros + 1) as f64;
        }
        Self { filled }
    }
}

impl Scale {
    /// With occupancy counting in the small range. The harmonic sum is exact and no library logarithm is used, so every machine gives
    /// the same number.
    fn estimate(&self, registers: &[u8]) -> u64 {
        let zeros = registers.iter().filter(|&&rank| rank == 0).count();
        let sum: u128 = registers.iter().map(|&rank| 1u128 << (64 - u32::from(rank.min(64)))).sum();
        let count = REGISTERS as f64;
        let alpha = 0.7213 / (1.0 + 1.079 / count);
        let raw = alpha * count * count * 18_446_744_073_709_551_616.0 / sum as f64;
        let estimate = if raw <= 2.5 * count && zeros > 0 { self.filled[zeros] } else { raw };
        (estimate + 0.5) as u64
    }
}

/// Sizes: the values themselves while few, then counts of buckets, eight to a doubling: the quantile sketch of Masson, Rim and Lee 2019 (DDSketch)
/// with buckets that integers find without a logarithm. A quantile is off by a sixteenth at most; below 16 it is exact.
#[derive(Clone, Copy, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Sizes {
    count: u32,
    /// Place in the pool, or [`NONE`] while exact.
    pub(super) block: u32,
    values: [u32; SIZES_MAX],
}

impl Sizes {
    /// None yet.
    pub const EMPTY: Self = Self { count: 0, block: NONE, values: [0; SIZES_MAX] };

    /// Whether its parts are possible; for what comes out of a snapshot.
    pub(super) fn is_sound(&self) -> bool {
        self.count as usize <= SIZES_MAX
    }

    /// Takes a size.
    pub fn add(&mut self, value: u32, pool: &mut Pool) {
        if self.block != NONE {
            return count(pool.block_mut(self.block), bucket(value), 1);
        }
        let held = self.count as usize;
        if held < SIZES_MAX {
            self.values[held] = value;
            self.count += 1;
            return;
        }
        self.outgrow(pool);
        count(pool.block_mut(self.block), bucket(value), 1);
    }

    fn outgrow(&mut self, pool: &mut Pool) {
        self.block = pool.take();
        for &value in &self.values[..self.count as usize] {
            count(pool.block_mut(self.block), bucket(value), 1);
        }
    }

    /// Takes all that another, whose sketch lies in `from`, has taken.
    pub fn merge(&mut self, pool: &mut Pool, other: &Self, from: &Pool) {
        if other.block == NONE {
            return other.values[..other.count as usize].iter().for_each(|&value| self.add(value, pool));
        }
        if self.block == NONE {
            self.outgrow(pool);
        }
        for (at, more) in counts(from.block(other.block)).enumerate() {
            count(pool.block_mut(self.block), at, more);
        }
    }

    /// The size that so many of 100 do not pass (nearest rank), for each of `percents` in rising order; 0 where there is none.
    #[must_use]
    pub fn percentiles<const N: usize>(&self, percents: [u64; N], pool: &Pool) -> [u64; N] {
        if self.block == NONE {
            let mut sorted = self.values;
            let sorted = &mut sorted[..self.count as usize];
            sorted.sort_unstable();
            let rank = |percent: u64| (percent * sorted.len() as u64).div_ceil(100).max(1) as usize;
            return percents.map(|percent| sorted.get(rank(percent) - 1).map_or(0, |&size| u64::from(size)));
        }
        let block = pool.block(self.block);
        let all: u64 = counts(block).map(u64::from).sum();
        let (mut seen, mut at, mut buckets) = (0, 0, counts(block));
        percents.map(|percent| {
            let rank = (u128::from(percent) * u128::from(all)).div_ceil(100).max(1) as u64;
            while seen < rank {
                let Some(held) = buckets.next() else { break };
                (seen, at) = (seen + u64::from(held), at + 1);
            }
            middle(at - 1)
        })
    }
}

/// Below 16 a bucket for each value, then eight for each doubling.
fn bucket(value: u32) -> usize {
    match value.checked_ilog2() {
        Some(log) if log > 3 => ((log as usize - 2) << 3) + (value >> (log - 3)) as usize - 8,
        _ => value as usize,
    }
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let shift = (bucket >> 3) - 1;
    let first = ((bucket as u64 & 7) + 8) << shift;
    first + (1 << shift) / 2
}

fn count(block: &mut [u8], bucket: usize, more: u32) {
    if let Some(held) = block.chunks_exact_mut(4).nth(bucket) {
        let sum = u32::from_le_bytes([held[0], held[1], held[2], held[3]]).saturating_add(more);
        held.copy_from_slice(&sum.to_le_bytes());
    }
}

fn counts(block: &[u8]) -> impl Iterator<Item = u32> + '_ {
    block.chunks_exact(4).take(BUCKETS).map(|held| u32::from_le_bytes([held[0], held[1], held[2], held[3]]))
}

/// How evenly instants follow each other: their number, the first and the last, and the sum of squares of the pauses between. What comes out of turn
/// counts as at once with the last. In microseconds, so that no sum leaves its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Pauses {
    first: u64,
    last: u64,
    /// Instants.
    count: u64,
    squares: u128,
}

impl Pauses {
    /// Pauses from which on anything is said.
    pub const MIN: u64 = 4;

    /// Takes an instant, ns since 1970.
    pub fn add(&mut self, ts: u64) {
        let at = ts / 1_000;
        if self.count == 0 {
            (self.first, self.last) = (at, at);
        }
        let pause = u128::from(at.saturating_sub(self.last));
        self.squares += pause * pause;
        self.last = self.last.max(at);
        self.count += 1;
    }

    /// Whether its parts are possible; for what comes out of a snapshot.
    pub(super) fn is_sound(&self) -> bool {
        self.first <= self.last
    }

    /// Takes what came after.
    pub fn merge(&mut self, later: &Self) {
        if self.count == 0 || later.count == 0 {
            if self.count == 0 {
                *self = *later;
            }
            return;
        }
        let pause = u128::from(later.first.saturating_sub(self.last));
        self.squares += pause * pause + later.squares;
        self.last = self.last.max(later.last);
        self.count += later.count;
    }

    /// 1,000 where all pauses are equal, about 500 where instants come by chance, near 0 where they come in bunches: the square of their mean over the
    /// mean of their squares, `1 / (1 + cv^2)`. 0 for fewer than [`Pauses::MIN`] pauses.
    #[must_use]
    pub fn per_mille(&self) -> u64 {
        let pauses = self.count.saturating_sub(1);
        if pauses < Self::MIN || self.squares == 0 {
            return 0;
        }
        let all = u128::from(self.last - self.first);
        // A window of 366 days has 3.2e13 us: the square is under 2^90, the product with as many instants as there are under 2^122.
        (1_000 * all * all / u128::from(pauses).saturating_mul(self.squares)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        let mut last = 0;
        let values = (0..70_000u32)
            .chain((5..32).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1, 3 << (log - 1)]));
        for value in values.chain([u32::MAX]).collect::<BTreeSet<u32>>() {
            let at = bucket(value);
            assert!(at == last || at == last + 1 || value > 70_000, "{value}: {at} after {last}");
            assert!(at >= last && at < BUCKETS, "{value}: {at}");
            let off = (middle(at) as f64 - f64::from(value)).abs();
            assert!(off * 16.0 <= f64::from(value), "{value}: {}", middle(at));
            last = at;
        }
    }

    #[test]
    fn regularity_is_told_as_stated() {
        let of = |instants: &[u64]| {
            let mut pauses = Pauses::default();
            instants.iter().for_each(|&at| pauses.add(at));
            pauses.per_mille()
        };
        let every = |n: u64| n * 60_000_000_000;
        assert_eq!(of(&(0..40).map(every).collect::<Vec<_>>()), 1_000);
        assert_eq!(of(&(0..4).map(every).collect::<Vec<_>>()), 0, "too few");
        assert_eq!(of(&[7; 50]), 0, "all at once");
        // By chance: exponential pauses.
        let (mut at, mut state) = (0u64, 88_172_645_463_325_252u64);
        let chance: Vec<u64> = (0..4_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                at += (-30e9 * (((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64).ln()) as u64;
                at
            })
            .collect();
        assert!((450..550).contains(&of(&chance)), "{}", of(&chance));
        // Ten at a time, and then an hour of nothing.
        let bunches: Vec<u64> =
            (0..400).map(|n| n / 10 * 3_600_000_000_000 + n % 10 * 1_000_000_000).collect();
        assert!(of(&bunches) < 120, "{}", of(&bunches));
        // The widest there is: 366 days, a pause as long as all of it.
        assert_eq!(of(&[0, 0, 0, 0, 366 * 86_400 * 1_000_000_000]), 250);
    }

    proptest! {
        /// Parts put together are the whole, to the bit, and the whole is what a list of all values says.
        #[test]
        fn parts_merge_into_the_whole(
            values in prop::collection::vec((0u32..3_000, prop_oneof![0u32..60, 40u32..1_600, any::<u32>()]), 0..300),
            cuts in (0usize..300, 0usize..300),
        ) {
            let (mut pool, scale) = (Pool::default(), Scale::default());
            let (mut whole, mut sizes) = (Distinct::EMPTY, Sizes::EMPTY);
            for &(value, size) in &values {
                whole.add(value, &mut pool);
                sizes.add(size, &mut pool);
            }
            let (from, to) = (cuts.0.min(cuts.1).min(values.len()), cuts.0.max(cuts.1).min(values.len()));
            let (mut merged, mut merged_sizes, mut merged_pool) = (Distinct::EMPTY, Sizes::EMPTY, Pool::default());
            // The middle first: order does not matter.
            for part in [&values[from..to], &values[..from], &values[to..]] {
                let (mut own, mut distinct, mut held) = (Pool::default(), Distinct::EMPTY, Sizes::EMPTY);
                for &(value, size) in part {
                    distinct.add(value, &mut own);
                    held.add(size, &mut own);
                }
                merged.merge(&mut merged_pool, &distinct, &own);
                merged_sizes.merge(&mut merged_pool, &held, &own);
            }
            prop_assert_eq!(whole.block == NONE, merged.block == NONE);
            if whole.block != NONE {
                prop_assert_eq!(pool.block(whole.block), merged_pool.block(merged.block));
            }
            prop_assert_eq!(whole.count(&pool, &scale), merged.count(&merged_pool, &scale));
            let different = values.iter().map(|(value, _)| value).collect::<BTreeSet<_>>().len() as u64;
            if different <= EXACT_MAX as u64 {
                prop_assert_eq!(whole.count(&pool, &scale), different);
            }
            let percents = [0, 1, 50, 90, 99, 100];
            let told = sizes.percentiles(percents, &pool);
            prop_assert_eq!(told, merged_sizes.percentiles(percents, &merged_pool));
            let mut sorted: Vec<u64> = values.iter().map(|&(_, size)| u64::from(size)).collect();
            sorted.sort_unstable();
            for (percent, told) in percents.into_iter().zip(told) {
                let rank = (percent as usize * sorted.len()).div_ceil(100).max(1);
                let exact = sorted.get(rank - 1).copied().unwrap_or(0);
                let bound = if sorted.len() <= SIZES_MAX { 0 } else { exact / 16 };
                prop_assert!(told.abs_diff(exact) <= bound, "{}: {} for {}", percent, told, exact);
            }
        }

        /// Pauses merge where the second part came later; no instants overflow, and what is told is bounded.
        #[test]
        fn pauses_merge_in_order(
            instants in prop::collection::vec(prop_oneof![0u64..1_000_000_000_000, 0u64..366 * 86_400 * 1_000_000_000], 0..60),
            cut in 0usize..60,
        ) {
            let mut sorted = instants.clone();
            sorted.sort_unstable();
            for (instants, merges) in [(sorted, true), (instants, false)] {
                let of = |part: &[u64]| {
                    let mut pauses = Pauses::default();
                    part.iter().for_each(|&at| pauses.add(at));
                    pauses
                };
                let whole = of(&instants);
                prop_assert!(whole.per_mille() <= 1_000);
                if merges {
                    let (first, second) = instants.split_at(cut.min(instants.len()));
                    let mut merged = of(first);
                    merged.merge(&of(second));
                    prop_assert_eq!(merged, whole);
                }
            }
        }
    }
}
