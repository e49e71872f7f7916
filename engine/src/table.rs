//! Flat tables of per-key state, on large pages once they are large.
//!
//! A table that every event touches somewhere else costs more in the walk for its page than in the line itself: with pages of
//! 4 KiB a table of 12 MiB needs 3,000 of them, more than the near tables of a core hold. Large pages are asked for where the
//! system offers them; without them a table works as well, only slower.

use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes from which on a table asks for large pages.
const LARGE_BYTES: usize = 256 << 10;
/// A large page, on most machines.
const PAGE_BYTES: usize = 2 << 20;

/// A growing table of plain values: a slice with [`Table::resize`].
pub struct Table<T> {
    place: Place<T>,
}

enum Place<T> {
    Heap(Vec<T>),
    /// The first `bytes` of a mapping of the system's own pages.
    Pages {
        map: MmapMut,
        bytes: usize,
    },
}

impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout> Table<T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Heap(Vec::new()) }
    }

    /// Makes it `count` values long, new ones being `value`.
    pub fn resize(&mut self, count: usize, value: T) {
        let (old, bytes) = (self.len(), count.saturating_mul(size_of::<T>()));
        let room = match &mut self.place {
            Place::Heap(values) if bytes < LARGE_BYTES => {
                return values.resize(count, value);
            }
            Place::Heap(_) => 0,
            Place::Pages { map, .. } => map.len(),
        };
        if bytes > room {
            // Twice as much each time, so that growing key by key costs nothing each.
            let wanted = bytes.max(room.saturating_mul(2)).next_multiple_of(PAGE_BYTES);
            match pages(wanted) {
                Some(mut map) => {
                    let kept = self.as_bytes();
                    let kept = &kept[..kept.len().min(bytes)];
                    map[..kept.len()].copy_from_slice(kept);
                    self.place = Place::Pages { map, bytes: kept.len() };
                }
                None => {
                    let mut values = self.to_vec();
                    values.resize(count, value);
                    self.place = Place::Heap(values);
                    return;
                }
            }
        }
        if let Place::Pages { bytes: used, .. } = &mut self.place {
            *used = bytes;
        }
        if let Some(fresh) = self.get_mut(old..) {
            fresh.fill(value);
        }
    }
}

/// So many bytes of zeros, on large pages where the system has some.
fn pages(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes).ok()?;
    // Advice that is not taken costs speed only.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.place {
            Place::Heap(values) => values,
            // Pages are aligned for anything, and `bytes` is whole values.
            Place::Pages { map, bytes } => <[T]>::ref_from_bytes(&map[..*bytes]).unwrap_or_default(),
        }
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> DerefMut for Table<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.place {
            Place::Heap(values) => values,
            Place::Pages { map, bytes } => <[T]>::mut_from_bytes(&mut map[..*bytes]).unwrap_or_default(),
        }
    }
}

impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout> From<Vec<T>> for Table<T> {
    fn from(values: Vec<T>) -> Self {
        let mut table = Self::new();
        if let Some(&first) = values.first() {
            table.resize(values.len(), first);
            table.copy_from_slice(&values);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C, align(64))]
    struct Line([u64; 8]);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn it_is_a_vector(steps in prop::collection::vec((0..200_000usize, any::<u64>(), any::<prop::sample::Index>()), 1..12)) {
            let (mut table, mut model) = (Table::new(), Vec::new());
            for (count, word, at) in steps {
                let value = Line([word; 8]);
                table.resize(count, value);
                model.resize(count, value);
                if count > 0 {
                    let at = at.index(count);
                    table[at].0[3] = !word;
                    model[at].0[3] = !word;
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert!(*table == *model);
                prop_assert_eq!(table.as_ptr() as usize % 64, 0);
            }
            let again = Table::from(model.clone());
            prop_assert!(*again == *model);
        }
    }

    #[test]
    fn a_large_one_lies_on_pages_of_its_own() {
        let mut table = Table::new();
        table.resize(1_000, Line([7; 8]));
        assert!(matches!(table.place, Place::Heap(_)));
        table.resize(1 << 15, Line([8; 8]));
        assert!(matches!(table.place, Place::Pages { .. }));
        assert_eq!((table[999].0[0], table[1_000].0[0], table.len()), (7, 8, 1 << 15));
    }
}
