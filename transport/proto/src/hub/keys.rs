//! Names: dense numbers for hashes, and an order for searches.

use crate::wire::NAME_BYTES_MAX;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use tidegate_engine::{name_hash, slot_of};

/// What to look for among names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySearch<'a> {
    /// Every name.
    #[default]
    All,
    /// Names that begin like this.
    Prefix(&'a str),
    /// Names that contain this, letters of either case (ASCII). Looks at every name.
    Contains(&'a str),
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its name's hash.
    pub hash: u64,
    /// Its slot.
    pub slot: u16,
    /// Event time of its newest record in any stream, if there is one.
    pub newest: Option<u64>,
}

/// All names a hub knows.
pub(super) struct Keyring {
    max: usize,
    names: Vec<Arc<str>>,
    hashes: Vec<u64>,
    /// Asked once per record. The keys are hashes already; the seed keeps strangers from choosing where they fall.
    by_hash: HashMap<u64, u32, RandomState>,
    by_name: BTreeMap<Arc<str>, u32>,
}

impl Keyring {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            names: Vec::new(),
            hashes: Vec::new(),
            by_hash: HashMap::default(),
            by_name: BTreeMap::new(),
        }
    }

    /// Every name, in the order of its key.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Whether the name is known now.
    pub(super) fn define(&mut self, name: &str) -> bool {
        let hash = name_hash(name.as_bytes());
        if self.by_hash.contains_key(&hash) {
            return true;
        }
        if self.names.len() >= self.max || name.is_empty() || name.len() > NAME_BYTES_MAX {
            return false;
        }
        let (key, name): (u32, Arc<str>) = (self.names.len() as u32, name.into());
        self.by_hash.insert(hash, key);
        self.by_name.insert(Arc::clone(&name), key);
        self.names.push(name);
        self.hashes.push(hash);
        true
    }

    /// The key of a hash. One that nobody named gets a name of its own, as long as there is room.
    pub(super) fn key(&mut self, hash: u64) -> Option<u32> {
        if let Some(&key) = self.by_hash.get(&hash) {
            return Some(key);
        }
        if self.names.len() >= self.max {
            return None;
        }
        let (key, name): (u32, Arc<str>) = (self.names.len() as u32, format!("#{hash:016x}").into());
        self.by_hash.insert(hash, key);
        self.by_name.insert(Arc::clone(&name), key);
        self.names.push(name);
        self.hashes.push(hash);
        Some(key)
    }

    pub(super) fn known(&self, hash: u64) -> Option<u32> {
        self.by_hash.get(&hash).copied()
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The name of a key; `?` for one that has none.
    pub(super) fn name(&self, key: u32) -> &str {
        self.names.get(key as usize).map_or("?", |name| name)
    }

    pub(super) fn hash(&self, key: u32) -> u64 {
        self.hashes.get(key as usize).copied().unwrap_or(0)
    }

    pub(super) fn search(
        &self,
        search: KeySearch<'_>,
        after: Option<&str>,
        max: usize,
        wanted: impl Fn(u32) -> bool,
        newest: impl Fn(u32) -> Option<u64>,
    ) -> Vec<KeyInfo> {
        let prefix = if let KeySearch::Prefix(prefix) = search { prefix } else { "" };
        let lower = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let needle = if let KeySearch::Contains(part) = search { part.as_bytes() } else { b"" };
        let contains = |name: &str| {
            needle.is_empty()
                || name.as_bytes().windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle))
        };
        let info = |(name, &key): (&Arc<str>, &u32)| {
            let hash = self.hashes[key as usize];
            KeyInfo { name: Arc::clone(name), hash, slot: slot_of(hash), newest: newest(key) }
        };
        self.by_name
            .range::<str, _>((lower, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|&(name, &key)| wanted(key) && contains(name))
            .take(max)
            .map(info)
            .collect()
    }
}
