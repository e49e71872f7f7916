//! Names, slots and keys: which state an event belongs to, on any node and any number of shards.

use xxhash_rust::xxh3::xxh3_64;

/// Slots in a cluster, fixed for its life: the unit of placement and of proof.
pub const SLOT_COUNT: usize = 4096;

/// Hash of a symbol or host name. Stable across versions; the slot follows from it.
#[must_use]
pub fn name_hash(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// The slot of a name: `xxh3(name) % 4096`.
#[must_use]
pub const fn slot_of(name_hash: u64) -> u16 {
    (name_hash % SLOT_COUNT as u64) as u16
}

/// What a shard knows about one of its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct KeyMeta {
    /// xxh3 of the name: the key's identity in every output.
    pub name: u64,
    /// The name's slot.
    pub slot: u16,
    /// The source that defined it.
    pub source: u16,
}
