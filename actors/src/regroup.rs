//! What operators share when their states are divided by keys anew.
//!
//! **Invariant:** what comes out depends on what each slot had and not on who else shared its shard, so that states divided in any number of
//! steps are to the byte what one step gives. Within a slot every order is kept; between slots one is laid down here, for no result depends on it.

use std::collections::BTreeMap;
use tidegate_engine::snapshot::SnapshotError;
use tidegate_engine::{KeyMeta, Ledger, SLOT_COUNT, Share, ShareError};

fn slot_of(keys: &[KeyMeta], key: usize) -> usize {
    keys.get(key).map_or(0, |key| usize::from(key.slot) % SLOT_COUNT)
}

/// Windows by their start, with the keys that opened them.
#[derive(Default)]
pub(crate) struct Dues(BTreeMap<u64, Vec<u32>>);

impl Dues {
    /// Adds the old keys of a window, as far as they come here.
    pub(crate) fn take(&mut self, start: u64, keys: &[u32], share: &Share<'_>) {
        let mut moved = keys.iter().filter_map(|key| share.new_key(*key)).peekable();
        if moved.peek().is_some() {
            self.0.entry(start).or_default().extend(moved);
        }
    }

    /// By start; the keys of each by slot, and those of a slot as they came.
    pub(crate) fn sorted(self, keys: &[KeyMeta]) -> impl Iterator<Item = (u64, Vec<u32>)> {
        self.0.into_iter().map(|(start, mut opened)| {
            opened.sort_by_key(|key| slot_of(keys, *key as usize));
            (start, opened)
        })
    }
}

/// Things that were kept in order, of each slot in one share's: merged so that all are about as old as their neighbours. For whoever lets go
/// of the oldest first, and looks only at the front.
pub(crate) struct Kept<T> {
    /// Time reached in the thing's slot, the slot, the thing.
    things: Vec<(u64, u16, T)>,
    reached: Vec<u64>,
}

impl<T> Kept<T> {
    pub(crate) fn new() -> Self {
        Self { things: Vec::new(), reached: vec![0; SLOT_COUNT] }
    }

    /// Adds the next thing of a share, of new key `key` and time `time`.
    pub(crate) fn push(&mut self, keys: &[KeyMeta], key: usize, time: u64, thing: T) {
        let slot = slot_of(keys, key);
        let reached = &mut self.reached[slot];
        *reached = time.max(*reached);
        self.things.push((*reached, slot as u16, thing));
    }

    /// All of them, in order.
    pub(crate) fn sorted(mut self) -> impl Iterator<Item = T> {
        // Within a slot the time reached does not fall and equals keep their order, so a slot's things stay in theirs.
        self.things.sort_by_key(|(reached, slot, _)| (*reached, *slot));
        self.things.into_iter().map(|(.., thing)| thing)
    }
}

/// Adds what an old operator counted, if that goes on here.
pub(crate) fn count(
    ledger: &mut Ledger,
    share: &Share<'_>,
    delivered: u64,
    by_fate: [u64; tidegate_engine::ledger::FATE_COUNT],
) {
    if share.has_counts() {
        ledger.merge(&Ledger { delivered, by_fate });
    }
}

/// Cuts off the keys behind the last one that has any state: how many there are says nothing.
pub(crate) fn trim<T>(keys: &mut Vec<T>, has_state: impl Fn(&T) -> bool) {
    let used = keys.iter().rposition(has_state).map_or(0, |last| last + 1);
    keys.truncate(used);
}

/// The states of a shard's `keys`, each as the share has it that it comes with; `read` makes the saved ones, by old key.
pub(crate) fn gathered<T>(
    keys: usize,
    shares: &[Share<'_>],
    read: impl Fn(&[u8]) -> Result<Vec<Option<T>>, SnapshotError>,
) -> Result<Vec<Option<T>>, ShareError> {
    let mut all = Vec::new();
    all.resize_with(keys, || None);
    for share in shares {
        let mut saved = read(share.state())?;
        for (old, new) in share.keys() {
            all[new] = saved.get_mut(old).and_then(Option::take);
        }
    }
    trim(&mut all, Option::is_some);
    Ok(all)
}

#[cfg(test)]
mod tests;
