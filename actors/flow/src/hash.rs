//! Maps that are bounded and the same in every run.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

/// A hasher without a random key: folded 128-bit multiplications. Attackers may choose addresses that collide; what
/// they gain is bounded by the size of the maps, and a deployment may choose its own [`Fixed::seed`].
#[derive(Debug, Clone, Copy)]
pub struct Fixed {
    /// What hashes begin with.
    pub seed: u64,
}

impl Default for Fixed {
    fn default() -> Self {
        Self { seed: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl BuildHasher for Fixed {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(self.seed)
    }
}

/// The state of [`Fixed`].
#[derive(Debug, Clone, Copy)]
pub struct Fold(u64);

impl Fold {
    #[inline]
    fn mix(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value) * 0xa076_1d64_78bd_642f;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64) ^ value.rotate_left(23);
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        let wide = u128::from(self.0) * 0x2d35_8dcc_aa6c_78a5;
        (wide as u64) ^ ((wide >> 64) as u64)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 59));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.mix(value as u64);
        self.mix((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
}

/// A hash of anything, the same in every run.
pub fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    Fixed::default().hash_one(value)
}

/// A map with a bound that forgets what was not touched for long: entries live in a young and an old half; a touch moves an entry to
/// the young one, and when that is full the old half is dropped and counted. Never iterated, so no order shows.
#[derive(Debug, Clone)]
pub struct Recent<K, V> {
    young: HashMap<K, V, Fixed>,
    old: HashMap<K, V, Fixed>,
    half: usize,
    dropped: u64,
}

impl<K: Eq + Hash + Copy, V> Recent<K, V> {
    /// Keeps at most `entries_max` entries, and at least half as many of the newest.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            half: (entries_max / 2).max(1),
            dropped: 0,
        }
    }

    /// The entry of `key`, made by `new` where there is none.
    pub fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(new);
            self.make_room();
            self.young.insert(key, value);
        }
        self.young.get_mut(&key).expect("it was there or was inserted")
    }

    /// The entry of `key`, if it is remembered.
    pub fn find(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.make_room();
            self.young.insert(*key, value);
        }
        self.young.get_mut(key)
    }

    /// Whether `key` is remembered; does not count as a touch.
    pub fn contains(&self, key: &K) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    /// Forgets one entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn make_room(&mut self) {
        if self.young.len() >= self.half {
            std::mem::swap(&mut self.young, &mut self.old);
            self.dropped += self.young.len() as u64;
            self.young.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_stays() {
        let mut map = Recent::new(8);
        for round in 0..100u32 {
            *map.entry(1_000, || 0) += 1;
            map.entry(round, || 0);
            assert!(map.len() <= 8);
        }
        assert_eq!(*map.entry(1_000, || 0), 100);
        assert!(map.find(&99).is_some() && map.find(&3).is_none());
        assert!(map.dropped() > 80);
    }

    #[test]
    fn hashes_spread_over_sequential_addresses() {
        let mut buckets = [0u32; 64];
        for n in 0..64_000u128 {
            buckets[(hash_of(&n) % 64) as usize] += 1;
        }
        assert!(buckets.iter().all(|&n| (800..1_200).contains(&n)), "{buckets:?}");
        assert_ne!(hash_of(&[1u8, 0][..]), hash_of(&[1u8][..]));
    }
}
