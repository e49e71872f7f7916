//! Maps that are bounded and the same in every run.

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

/// One hash of two: what a part of a key is known by already need not be hashed again. One multiplication, since both are spread
/// already, or one of them is and the other is a small number.
#[inline]
#[must_use]
pub fn joined(one: u64, other: u64) -> u64 {
    let wide = u128::from(one ^ 0xa076_1d64_78bd_642f) * u128::from(other ^ 0xe703_7ed1_a0b4_28db);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// 32 bits of a hash, as [`Index`] takes them.
#[inline]
#[must_use]
pub fn shorter(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

/// Where an entry probably is: found ahead, and looked at before the index is asked. Wrong guesses cost time alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    hash: u32,
    slot: u32,
}

/// The slot of a place that nobody need look for; one more means that nobody has looked. Neither is ever one of a table.
const ABSENT: u32 = u32::MAX - 1;

impl Place {
    /// No idea where, but for the hash.
    #[inline]
    #[must_use]
    pub fn of(hash: u64) -> Self {
        Self { hash: shorter(hash), slot: u32::MAX }
    }

    /// The same for an entry that need not be looked for: [`Recent::find_at`] finds none. Making one finds what there is.
    #[inline]
    #[must_use]
    pub fn absent(self) -> Self {
        Self { slot: ABSENT, ..self }
    }

    /// Whether an entry was found there.
    #[inline]
    #[must_use]
    pub fn is_found(self) -> bool {
        self.slot < ABSENT
    }

    /// The hash, as [`Recent::entry_hashed`] takes it.
    #[inline]
    #[must_use]
    pub fn hash(self) -> u32 {
        self.hash
    }
}

/// Where things are: places in a slab by 32 bits of a hash, with open addressing, so that a look-up reads one line of the index.
///
/// Nothing lies further than [`Index::PROBE_MAX`] places from where its hash says, whoever chooses the keys: what finds no place takes
/// that of another, and its owner is told.
///
/// A place has four bytes: where it lies says the lower bits of the hash, so it holds the upper ones, and the slot instead of the lower.
/// Sixteen of them share a cache line, and the indices of full tables fit where lines come from fast.
#[derive(Debug, Clone)]
pub struct Index {
    /// Upper bits of the hash, and slot + 1 in as many of the lower as the length has; 0 where free. A power of two, at least half of it
    /// free.
    places: Vec<u32>,
    /// Hash of each slot: needed where its place is to be given to another.
    hashes: Vec<u32>,
    used: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { places: vec![0; 16], hashes: Vec::new(), used: 0 }
    }
}

impl Index {
    /// Places looked at for one key.
    pub const PROBE_MAX: usize = 64;
    /// Slots that can be told apart.
    pub const SLOTS_MAX: usize = 1 << 31;

    /// The slot of `hash` that `is` says yes to; it may be asked of slots that share but a part of the hash.
    #[inline]
    pub fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.places.len() - 1;
        let upper = hash & !(mask as u32);
        for step in 0..Self::PROBE_MAX.min(mask + 1) {
            let place = self.places[(hash as usize + step) & mask];
            if place == 0 {
                return None;
            }
            // Nothing is left of it but the slot where the upper bits are the same.
            let slot = place ^ upper;
            if slot <= mask as u32 && is(slot - 1) {
                return Some(slot - 1);
            }
        }
        None
    }

    /// What lies where a look-up of `hash` begins: reading it ahead is all it is good for.
    #[inline]
    #[must_use]
    pub fn touch(&self, hash: u32) -> u64 {
        u64::from(self.places[hash as usize & (self.places.len() - 1)])
    }

    /// What lies where a look-up of a slot begins, for reading it ahead.
    #[inline]
    #[must_use]
    pub fn touch_slot(&self, slot: usize) -> u64 {
        self.hashes.get(slot).map_or(0, |&hash| self.touch(hash))
    }

    /// Notes a slot under a hash that does not find it yet. `Some` is a slot that lost its place and cannot be found any more.
    pub fn insert(&mut self, hash: u32, slot: u32) -> Option<u32> {
        let slots = self.used.max(slot as usize) + 1;
        if slots * 2 > self.places.len() {
            self.grow(slots);
        }
        let at = slot as usize;
        if at >= self.hashes.len() {
            self.hashes.resize(at + 1, 0);
        }
        self.hashes[at] = hash;
        self.put(hash, slot)
    }

    fn put(&mut self, hash: u32, slot: u32) -> Option<u32> {
        let mask = self.places.len() - 1;
        let home = hash as usize & mask;
        let place = hash & !(mask as u32) | (slot + 1);
        for step in 0..Self::PROBE_MAX.min(mask + 1) {
            let at = (home + step) & mask;
            if self.places[at] == 0 {
                self.places[at] = place;
                self.used += 1;
                return None;
            }
        }
        let lost = std::mem::replace(&mut self.places[home], place);
        Some((lost & mask as u32) - 1)
    }

    /// Makes room for slots up to so many.
    fn grow(&mut self, slots: usize) {
        let old = std::mem::take(&mut self.places);
        let mask = old.len() as u32 - 1;
        self.places = vec![0; (slots * 2).next_power_of_two()];
        self.used = 0;
        for place in old.into_iter().filter(|&place| place != 0) {
            let slot = (place & mask) - 1;
            // Only made-up collisions can lose a place here; what lost it is as good as forgotten, and its owner will take it back
            // when it is the oldest.
            let _ = self.put(self.hashes[slot as usize], slot);
        }
    }

    /// Forgets a slot; nothing happens where it is not noted.
    pub fn remove(&mut self, slot: u32) {
        let Some(&hash) = self.hashes.get(slot as usize) else { return };
        let mask = self.places.len() - 1;
        let home = hash as usize & mask;
        let meant = hash & !(mask as u32) | (slot + 1);
        let probes = Self::PROBE_MAX.min(mask + 1);
        let Some(found) = (0..probes).map(|step| (home + step) & mask).find(|&at| self.places[at] == meant)
        else {
            return;
        };
        self.used -= 1;
        // What comes behind moves up, unless it would pass its own home; further than the longest probe nothing can want this place.
        let mut hole = found;
        let mut at = (found + 1) & mask;
        while self.places[at] != 0 && at != found && (at.wrapping_sub(hole) & mask) < Self::PROBE_MAX {
            let home = self.hashes[(self.places[at] as usize & mask) - 1] as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = self.places[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.places[hole] = 0;
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.places.len() * 4 + self.hashes.capacity() * 4
    }
}

/// A map with a bound. When it is full, what was not touched since the last round gives way (the clock algorithm): a flood of keys that
/// are seen once pushes out its own, and what comes back again and again stays. Never iterated, so no order shows.
///
/// `A` says how entries are aligned: [`Line`] for those that are laid out by cache lines.
#[derive(Debug, Clone)]
pub struct Recent<K, V, A = ()> {
    index: Index,
    slots: Vec<Slot<K, V, A>>,
    /// A bit per slot: touched since the hand came by.
    touched: Vec<u64>,
    entries_max: usize,
    hand: usize,
    dropped: u64,
}

/// Alignment of entries that begin with a cache line of their own.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct Line;

/// In this order: a value's first fields share the line of its key.
#[derive(Debug, Clone)]
#[repr(C)]
struct Slot<K, V, A> {
    align: [A; 0],
    key: K,
    value: V,
}

impl<K: Eq + Hash + Copy, V> Recent<K, V> {
    /// Keeps at most `entries_max` entries.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self::sized(entries_max)
    }
}

impl<K: Eq + Hash + Copy, V> Recent<K, V, Line> {
    /// Keeps at most `entries_max` entries, each from the start of a cache line.
    #[must_use]
    pub fn in_lines(entries_max: usize) -> Self {
        Self::sized(entries_max)
    }
}

impl<K: Eq + Hash + Copy, V, A> Recent<K, V, A> {
    fn sized(entries_max: usize) -> Self {
        Self {
            index: Index::default(),
            slots: Vec::new(),
            touched: Vec::new(),
            entries_max: entries_max.clamp(1, Index::SLOTS_MAX),
            hand: 0,
            dropped: 0,
        }
    }

    /// Bytes of one entry with its places in the index, without what the value owns elsewhere.
    pub const ENTRY_BYTES: usize = size_of::<Slot<K, V, A>>() + size_of::<u32>() + 4 * 4;

    fn lookup(&self, hash: u32, key: &K) -> Option<usize> {
        self.index.find(hash, |slot| self.slots[slot as usize].key == *key).map(|slot| slot as usize)
    }

    /// The entry of `key`, made by `new` where there is none.
    #[inline]
    pub fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.entry_hashed(short_hash(&key), key, new)
    }

    /// As [`Recent::entry`], for a key whose [`short_hash`] is known.
    #[inline]
    pub fn entry_hashed(&mut self, hash: u32, key: K, new: impl FnOnce() -> V) -> &mut V {
        let at = match self.lookup(hash, &key) {
            Some(at) => {
                self.touch(at);
                at
            }
            None => self.insert(hash, key, new()),
        };
        &mut self.slots[at].value
    }

    /// As [`Recent::entry`], for a key whose place was looked for ahead.
    #[inline]
    pub fn entry_at(&mut self, place: Place, key: K, new: impl FnOnce() -> V) -> &mut V {
        let guess = place.slot as usize;
        if self.slots.get(guess).is_some_and(|slot| slot.key == key) {
            self.touch(guess);
            return &mut self.slots[guess].value;
        }
        self.entry_hashed(place.hash, key, new)
    }

    /// Reads the line of the index that [`Recent::find_place`] will need; what comes back means nothing. No branch hangs on it, so a
    /// core has as many such waits in flight as it can.
    #[inline]
    #[must_use]
    pub fn warm_place(&self, place: Place) -> u64 {
        self.index.touch(place.hash)
    }

    /// Finds where the entry of a hash is, but for others of the same 32 bits. Reads the index and no entry.
    #[inline]
    pub fn find_place(&self, place: &mut Place) {
        place.slot = self.index.find(place.hash, |_| true).unwrap_or(u32::MAX);
    }

    /// Reads of the entry at a place what `read` reads, so that several such waits overlap. Changes nothing; what comes back means
    /// nothing.
    #[inline]
    #[must_use]
    pub fn warm(&self, place: Place, read: impl FnOnce(&V) -> u64) -> u64 {
        self.slots.get(place.slot as usize).map_or(0, |slot| read(&slot.value))
    }

    /// As [`Recent::entry`], without counting as a touch: for what is looked up again for one and the same event.
    pub fn entry_again(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let hash = short_hash(&key);
        let at = self.lookup(hash, &key).unwrap_or_else(|| self.insert(hash, key, new()));
        &mut self.slots[at].value
    }

    fn insert(&mut self, hash: u32, key: K, value: V) -> usize {
        let slot = Slot { align: [], key, value };
        let at = if self.slots.len() < self.entries_max {
            if self.slots.len().is_multiple_of(64) {
                self.touched.push(0);
            }
            // What is aligned by lines is not moved when it grows but copied: all of its addresses are reserved at once. Memory is taken as
            // entries come.
            if self.slots.is_empty() && align_of::<A>() > 1 {
                self.slots.reserve_exact(self.entries_max);
            }
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let at = self.give_way();
            self.index.remove(at as u32);
            self.slots[at] = slot;
            self.dropped += 1;
            at
        };
        if let Some(lost) = self.index.insert(hash, at as u32) {
            // It cannot be found any more: the hand will come by and take it.
            self.touched[lost as usize / 64] &= !(1 << (lost % 64));
            self.dropped += 1;
        }
        at
    }

    #[inline]
    fn touch(&mut self, at: usize) {
        self.touched[at / 64] |= 1 << (at % 64);
    }

    /// The next slot from the hand on that was not touched; those passed over are to be touched anew. A step is a word of 64, and a
    /// round clears them all, so there is an end.
    fn give_way(&mut self) -> usize {
        let count = self.slots.len();
        loop {
            let (word, bit) = (self.hand / 64, self.hand % 64);
            let free = (!self.touched[word] >> bit).trailing_zeros() as usize;
            let at = self.hand + free;
            let end = count.min((word + 1) * 64);
            // Bits from the hand to the one found, or to the end of the word.
            let passed = free.min(64 - bit);
            let mask = if passed == 64 { u64::MAX } else { ((1u64 << passed) - 1) << bit };
            self.touched[word] &= !mask;
            if at < end {
                self.hand = (at + 1) % count;
                return at;
            }
            self.hand = if end == count { 0 } else { end };
        }
    }

    /// The entry of `key`, if it is remembered.
    #[inline]
    pub fn find(&mut self, key: &K) -> Option<&mut V> {
        self.find_hashed(short_hash(key), key)
    }

    /// As [`Recent::find`], for a key whose [`short_hash`] is known.
    #[inline]
    pub fn find_hashed(&mut self, hash: u32, key: &K) -> Option<&mut V> {
        let at = self.lookup(hash, key)?;
        self.touch(at);
        Some(&mut self.slots[at].value)
    }

    /// As [`Recent::find`], for a key whose place was looked for ahead.
    #[inline]
    pub fn find_at(&mut self, place: Place, key: &K) -> Option<&mut V> {
        let guess = place.slot as usize;
        if self.slots.get(guess).is_some_and(|slot| slot.key == *key) {
            self.touch(guess);
            return Some(&mut self.slots[guess].value);
        }
        if place.slot == ABSENT {
            return None;
        }
        self.find_hashed(place.hash, key)
    }

    /// The entry of `key`, if it is remembered; does not count as a touch.
    #[must_use]
    pub fn look(&self, key: &K) -> Option<&V> {
        self.lookup(short_hash(key), key).map(|at| &self.slots[at].value)
    }

    /// Whether `key` is remembered; does not count as a touch.
    pub fn contains(&self, key: &K) -> bool {
        self.lookup(short_hash(key), key).is_some()
    }

    /// Reads the lines of the index that making room for so many entries will need; what comes back means nothing.
    #[must_use]
    pub fn warm_room(&self, count: usize) -> u64 {
        if self.slots.len() < self.entries_max {
            return 0;
        }
        let (mut seen, mut left, mut word) = (0, count, self.hand / 64);
        let mut free = !self.touched[word] & (u64::MAX << (self.hand % 64));
        // Those that were not touched are the next to go; where there are few of them the hand goes on by itself.
        for _ in 0..8 {
            while free != 0 && left > 0 {
                let at = word * 64 + free.trailing_zeros() as usize;
                free &= free - 1;
                left -= 1;
                seen ^= self.index.touch_slot(at);
            }
            if left == 0 {
                break;
            }
            word = (word + 1) % self.touched.len();
            free = !self.touched[word];
        }
        seen
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes of all entries, with what `owned` says that a value owns elsewhere, and of what finds them.
    #[must_use]
    pub fn bytes(&self, owned: impl Fn(&V) -> usize) -> usize {
        self.slots.iter().map(|slot| owned(&slot.value)).sum::<usize>()
            + self.slots.len() * size_of::<Slot<K, V, A>>()
            + self.touched.capacity() * 8
            + self.index.bytes()
    }
}

/// 32 bits of a key's hash, as [`Index`] takes them.
#[inline]
pub fn short_hash<T: Hash + ?Sized>(value: &T) -> u32 {
    shorter(hash_of(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

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
    fn a_flood_of_new_keys_leaves_the_regular_ones() {
        let mut map = Recent::new(1_000);
        for round in 0..50u64 {
            for regular in 0..100 {
                *map.entry(regular, || 0u32) += 1;
            }
            for once in 0..500 {
                map.entry(1_000_000 + round * 500 + once, || 0);
            }
        }
        assert!((0..100).all(|regular| map.find(&regular) == Some(&mut 50)), "regulars were forgotten");
        assert_eq!(map.dropped(), 50 * 500 + 100 - 1_000);
    }

    proptest! {
        /// The index against a map, with so few hashes that probes wrap and run into each other.
        #[test]
        fn an_index_finds_what_was_noted(steps in prop::collection::vec((0u32..40, any::<bool>()), 0..300), spread in 1u32..1_000) {
            let mut index = Index::default();
            let mut model = HashMap::new();
            for (slot, add) in steps {
                let hash = slot % 7 * spread;
                if add && !model.contains_key(&slot) {
                    prop_assert_eq!(index.insert(hash, slot), None);
                    model.insert(slot, hash);
                } else if !add {
                    model.remove(&slot);
                    index.remove(slot);
                }
                for slot in 0..40 {
                    let found = index.find(slot % 7 * spread, |at| at == slot);
                    prop_assert_eq!(found, model.contains_key(&slot).then_some(slot));
                }
            }
        }
    }

    /// Whoever knows the hash can make all keys collide: what finds no place takes another's, and no look-up grows longer.
    #[test]
    fn collisions_cost_places_not_time() {
        let mut index = Index::default();
        let lost = (0..1_000).filter(|&slot| index.insert(7, slot).is_some()).count();
        assert_eq!(lost, 1_000 - Index::PROBE_MAX);
        let mut looked = 0;
        assert_eq!(
            index.find(7, |_| {
                looked += 1;
                false
            }),
            None
        );
        assert_eq!(looked, Index::PROBE_MAX);
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
