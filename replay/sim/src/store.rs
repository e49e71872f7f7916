//! Snapshots of a node, as bytes.

use crate::machine::{Folded, Held, mix};
use std::collections::BTreeMap;
use tidegate_replica::{Base, Fit, Log, Rules, SnapshotId};

/// Bytes of one piece on its way to another node.
const PIECE_BYTES: u64 = 40;
/// Marks what is not a source's.
const OF_SLOTS: u64 = 1 << 32;
/// How many a node keeps.
const KEPT: usize = 2;

/// A snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: SnapshotId,
    pub(crate) lineage: u64,
    bytes: Vec<u8>,
}

/// A hash that no flipped bit escapes.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let hash = bytes.chunks(8).fold(bytes.len() as u64, |state, chunk| mix(state, word(chunk)));
    let mut out = [0; 32];
    out[..8].copy_from_slice(&hash.to_le_bytes());
    out
}

impl Stored {
    pub(crate) fn of(base: &Base<Folded>) -> Self {
        let mut bytes = Vec::with_capacity(40 + 16 * base.committed.len());
        for word in [base.lineage, base.offset, u64::from(base.epoch), base.machine.0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for (source, sequence) in &base.committed {
            bytes.extend_from_slice(&u64::from(*source).to_le_bytes());
            bytes.extend_from_slice(&sequence.to_le_bytes());
        }
        // What is known of slots, where something is; no source has such a number.
        for (at, word) in (0..).zip(base.machine.1.iter().flat_map(|held| held.words())) {
            bytes.extend_from_slice(&(OF_SLOTS | at).to_le_bytes());
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let (epoch, hash) = (base.epoch, hash(&bytes));
        let id = SnapshotId { offset: base.offset, epoch, bytes: bytes.len() as u64, hash };
        Self { id, lineage: base.lineage, bytes }
    }

    /// As its bytes say.
    fn base(&self) -> Base<Folded> {
        let words: Vec<u64> = self.bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let pairs: &[[u64; 2]] = words[words.len().min(4)..].as_chunks().0;
        let (of_slots, committed): (Vec<[u64; 2]>, Vec<[u64; 2]>) =
            pairs.iter().partition(|pair| pair[0] & OF_SLOTS != 0);
        let committed: BTreeMap<u32, u64> =
            committed.iter().map(|[source, last]| (*source as u32, *last)).collect();
        let of_slots: Vec<u64> = of_slots.iter().map(|pair| pair[1]).collect();
        let held = (!of_slots.is_empty()).then(|| Box::new(Held::of_words(&of_slots)));
        let machine = Folded(word(3), held);
        Base { lineage: word(0), offset: word(1), epoch: word(2) as u32, machine, committed }
    }
}

/// All snapshots of a node.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    /// The newest last.
    kept: Vec<Stored>,
    /// What is set aside of one that is fetched.
    taken: Vec<u8>,
    /// Whether one is being written.
    busy: bool,
}

impl Stores {
    /// The newest that goes with a log, and whether the node has less with it than it may have acknowledged. Others are removed.
    pub(crate) fn choose(&mut self, lineage: u64, log: &Log<u64>, rules: Rules) -> (Base<Folded>, bool) {
        self.stop();
        while let Some(newest) = self.kept.last() {
            let base = newest.base();
            match base.point().fit(lineage, log, rules) {
                Fit::Follows => return (base, false),
                Fit::Replaces { lossy } => return (base, lossy),
                Fit::Useless => self.kept.pop(),
            };
        }
        (Base::default(), log.base() > 0)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SnapshotId> {
        self.kept.iter().map(|stored| stored.id)
    }

    /// Offset of the newest of this history.
    pub(crate) fn newest(&self, lineage: u64) -> u64 {
        self.kept.last().filter(|newest| newest.lineage == lineage).map_or(0, |newest| newest.id.offset)
    }

    /// Whether one may be begun: there is none on its way.
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// What was on its way is not any more.
    pub(crate) fn stop(&mut self) {
        self.busy = false;
        self.taken.clear();
    }

    /// One was written.
    pub(crate) fn keep(&mut self, stored: Stored) {
        self.busy = false;
        // Of another history, or an older one written late.
        self.kept.retain(|kept| kept.lineage == stored.lineage && kept.id.offset < stored.id.offset);
        self.kept.push(stored);
        if self.kept.len() > KEPT {
            self.kept.remove(0);
        }
    }

    /// A piece of one of them.
    pub(crate) fn read(&self, offset: u64, at: u64) -> Option<&[u8]> {
        let stored = self.kept.iter().find(|stored| stored.id.offset == offset)?;
        let rest = stored.bytes.get(at as usize..)?;
        Some(&rest[..rest.len().min(PIECE_BYTES as usize)])
    }

    /// A piece of one that is fetched.
    pub(crate) fn take(&mut self, at: u64, data: &[u8]) {
        if at == 0 {
            self.taken.clear();
        }
        self.taken.extend_from_slice(data);
    }

    pub(crate) fn taken(&self) -> &[u8] {
        &self.taken
    }

    /// What was fetched is in place: behind a crash it is the newest.
    pub(crate) fn install(&mut self, offset: u64) {
        let bytes = std::mem::take(&mut self.taken);
        let id = SnapshotId { offset, epoch: 0, bytes: bytes.len() as u64, hash: hash(&bytes) };
        let stored = Stored { id, lineage: 0, bytes };
        let base = stored.base();
        let id = SnapshotId { epoch: base.epoch, ..id };
        self.kept.push(Stored { id, lineage: base.lineage, ..stored });
        if self.kept.len() > KEPT {
            self.kept.remove(0);
        }
    }
}
