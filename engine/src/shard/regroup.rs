//! The states of shards, divided by slots anew: as many shards as wanted, each slot on whichever.
//!
//! What is of a key or a slot (open windows, kept trades, numbers and digests of results) goes where the slot goes. What shards of one log know
//! alike (time, sources, losses) must be alike, and each new shard has it. What is counted for a shard as a whole (events, the operators'
//! ledgers, results in all) has no slot: that of the old shard `s` goes to the new shard `s` modulo their number, all of it to one, so that each
//! new shard's account balances and the sums over all shards are what they were.

use super::{AnalyzerStage, LaneState, Shard, ShardState, Stage, section};
use crate::operator::{Analyzer, Context, Operator};
use crate::output::{Lane, SlotAccount};
use crate::slot::{KeyMeta, SLOT_COUNT};
use crate::snapshot::{self, Reader, SnapshotError};

/// What one old shard's operator leaves to one of a new shard.
#[derive(Clone, Copy)]
pub struct Share<'a> {
    state: &'a [u8],
    /// By old key: the new one, or [`GONE`].
    moves: &'a [u32],
    counts: bool,
    guest: bool,
}

/// A key that goes to another shard.
const GONE: u32 = u32::MAX;

impl<'a> Share<'a> {
    /// The state that the old operator saved.
    #[must_use]
    pub fn state(&self) -> &'a [u8] {
        self.state
    }

    /// The same keys of a state that lies in this one.
    #[must_use]
    pub fn within<'b>(&self, state: &'b [u8]) -> Share<'b>
    where
        'a: 'b,
    {
        Share { state, ..*self }
    }

    /// What an old key is called here; `None` when it is another shard's now.
    #[must_use]
    pub fn new_key(&self, old: u32) -> Option<u32> {
        self.moves.get(old as usize).copied().filter(|new| *new != GONE)
    }

    /// The old keys that come here, and what they are called here; both rise.
    pub fn keys(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let places = self.moves.iter().enumerate();
        places.filter(|(_, new)| **new != GONE).map(|(old, new)| (old, *new as usize))
    }

    /// Whether it comes out of another log: how far that had come in time says nothing here.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.guest
    }

    /// Whether what the old operator counted as a whole (its ledger, what it cut) goes on here.
    #[must_use]
    pub fn has_counts(&self) -> bool {
        self.counts
    }
}

/// Why an operator cannot go on from shares of other ones' states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// It does not know how.
    #[error("its state cannot be divided by keys")]
    Indivisible,
    /// What all must have alike differs.
    #[error("its states have different {what}: they are not of one place of the log")]
    Disagree {
        /// What differs.
        what: &'static str,
    },
    /// One of the states is none of this operator.
    #[error(transparent)]
    State(#[from] SnapshotError),
}

/// Why states cannot be divided anew. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegroupError {
    /// There is nothing to divide, or nobody to take it.
    #[error("{states} states for {shards} shards: at least one of each is needed")]
    Empty {
        /// States given.
        states: usize,
        /// Shards wanted.
        shards: u32,
    },
    /// One cannot be read.
    #[error("state {state} cannot be read")]
    State {
        /// Which, from 0.
        state: usize,
        /// Why.
        source: SnapshotError,
    },
    /// One was not taken at a barrier: events of the frame at hand are still to come, and there is no saying for whom.
    #[error("state {state} was taken within a frame: {left} events of it were still to come")]
    WithinFrame {
        /// Which, from 0.
        state: usize,
        /// Events still to come.
        left: u64,
    },
    /// What all shards of a log know alike differs.
    #[error("state {state} has different {what} than state 0: they are not of one place of one log")]
    Disagree {
        /// Which, from 0.
        state: usize,
        /// What differs.
        what: &'static str,
    },
    /// Two states have keys or results of the same slot.
    #[error("slot {slot} is in two of the states")]
    Twice {
        /// The slot.
        slot: u16,
    },
    /// A key is in none of the states, or not in the order of the log.
    #[error("key {key} of the log, of name {name:016x}, is not the next of its slot in any of the states")]
    Missing {
        /// Its place among the keys given.
        key: usize,
        /// The hash of its name.
        name: u64,
    },
    /// A state has keys that the log has not.
    #[error("state {state} has {found} keys, and the log has {expected} of them")]
    Unknown {
        /// Which, from 0.
        state: usize,
        /// Keys it has.
        found: usize,
        /// Keys of its that were given.
        expected: usize,
    },
    /// A slot was given to a shard that is not there.
    #[error("slot {slot} is given to shard {shard}, and there are {shards}")]
    Shard {
        /// The slot.
        slot: u16,
        /// The shard.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// A stage cannot go on from what it is given.
    #[error("the stage `{stage}` cannot go on from states of other shards: {source}")]
    Stage {
        /// Its name.
        stage: String,
        /// Why.
        source: ShareError,
    },
}

/// What a new shard gets of each old one.
struct Allotment {
    keys: Vec<KeyMeta>,
    /// By old shard, then by its keys.
    moves: Vec<Vec<u32>>,
    /// By old shard: whether its counts come here.
    counts: Vec<bool>,
    /// Old shards from this one on are of another log.
    guests_from: usize,
    /// Its slots.
    slots: Vec<u16>,
}

/// Divides the states that shards of `stages` saved ([`Shard::save`]) at one barrier among `shards` new ones: each slot goes to the shard
/// that `shard_of` says. `keys` are the names of all keys in the order in which the log defined them, as a [`crate::Router`] knows them.
///
/// What the new shards make of the rest of the log is, for each slot, to the bit what the old ones would have made of it. Where a bound of theirs was
/// reached (trades or bars left memory before their time, which [`Operator::cut`] counts), that depends on who shared it and on nothing else.
///
/// To take some slots out of a shard is to divide it in two; to put them back is to make one of two.
///
/// # Errors
/// [`RegroupError`] by what does not fit together.
pub fn regroup(
    stages: &dyn Fn() -> Vec<Stage>,
    states: &[&[u8]],
    keys: &[u64],
    shards: u32,
    shard_of: &dyn Fn(u16) -> u32,
) -> Result<Vec<Shard>, RegroupError> {
    with_guests(stages, (states, states.len()), keys, shards, shard_of)
}

/// As [`regroup`]; states from a certain one on are of another log, and say of time and losses what the others do.
pub(super) fn with_guests(
    stages: &dyn Fn() -> Vec<Stage>,
    (states, guests_from): (&[&[u8]], usize),
    keys: &[u64],
    shards: u32,
    shard_of: &dyn Fn(u16) -> u32,
) -> Result<Vec<Shard>, RegroupError> {
    if states.is_empty() || shards == 0 {
        return Err(RegroupError::Empty { states: states.len(), shards });
    }
    let (mut readers, mut old) = (Vec::new(), Vec::new());
    for (at, bytes) in states.iter().enumerate() {
        let read = || -> Result<_, SnapshotError> {
            let mut reader = Reader::unsealed(bytes)?;
            let state: ShardState<'static> =
                snapshot::read(reader.section(section::SHARD, "shard")?, "shard")?;
            Ok((reader, state))
        };
        let (reader, state) = read().map_err(|source| RegroupError::State { state: at, source })?;
        readers.push(reader);
        old.push(state);
    }
    agree(&old)?;
    let mut allotments = allot(&old, keys, shards, shard_of)?;
    allotments.iter_mut().for_each(|allotment| allotment.guests_from = guests_from);
    allotments.iter().map(|allotment| build(stages(), &old, &readers, allotment)).collect()
}

/// Whether all are of one place of one log.
fn agree(old: &[ShardState<'_>]) -> Result<(), RegroupError> {
    let first = &old[0];
    for (state, other) in old.iter().enumerate() {
        if other.run_left > 0 {
            return Err(RegroupError::WithinFrame { state, left: other.run_left });
        }
        let alike = [
            (other.frame == first.frame, "frames"),
            (other.watermark == first.watermark, "watermarks"),
            (other.tracker == first.tracker, "sources"),
            (other.gaps == first.gaps && other.gaps_forgotten == first.gaps_forgotten, "declared losses"),
            (other.ended == first.ended, "ends"),
        ];
        if let Some((_, what)) = alike.into_iter().find(|(alike, _)| !alike) {
            return Err(RegroupError::Disagree { state, what });
        }
    }
    Ok(())
}

/// Who gets what.
fn allot(
    old: &[ShardState<'_>],
    keys: &[u64],
    shards: u32,
    shard_of: &dyn Fn(u16) -> u32,
) -> Result<Vec<Allotment>, RegroupError> {
    let mut owner = vec![None; SLOT_COUNT];
    for (at, state) in old.iter().enumerate() {
        for key in state.keys.iter() {
            let of = &mut owner[usize::from(key.slot) % SLOT_COUNT];
            if of.is_some_and(|of| of != at) {
                return Err(RegroupError::Twice { slot: key.slot });
            }
            *of = Some(at);
        }
    }
    let mut new: Vec<Allotment> = (0..shards as usize)
        .map(|shard| Allotment {
            keys: Vec::new(),
            moves: old.iter().map(|state| vec![GONE; state.keys.len()]).collect(),
            counts: (0..old.len()).map(|state| state % shards as usize == shard).collect(),
            guests_from: old.len(),
            slots: Vec::new(),
        })
        .collect();
    let mut goes = Vec::with_capacity(SLOT_COUNT);
    for slot in 0..SLOT_COUNT as u16 {
        let shard = shard_of(slot);
        let to = new.get_mut(shard as usize).ok_or(RegroupError::Shard { slot, shard, shards })?;
        to.slots.push(slot);
        goes.push(shard as usize);
    }
    let mut next = vec![0; old.len()];
    for (key, &name) in keys.iter().enumerate() {
        let missing = RegroupError::Missing { key, name };
        let slot = crate::slot::slot_of(name);
        let Some(from) = owner[usize::from(slot)] else { return Err(missing) };
        let at = next[from];
        match old[from].keys.get(at) {
            Some(meta) if meta.name == name && meta.slot == slot => {
                let to = &mut new[goes[usize::from(slot)]];
                to.moves[from][at] = to.keys.len() as u32;
                to.keys.push(*meta);
                next[from] += 1;
            }
            _ => return Err(missing),
        }
    }
    match next.iter().zip(old).position(|(next, state)| *next < state.keys.len()) {
        Some(state) => {
            let (found, expected) = (old[state].keys.len(), next[state]);
            Err(RegroupError::Unknown { state, found, expected })
        }
        None => Ok(new),
    }
}

fn build(
    stages: Vec<Stage>,
    old: &[ShardState<'_>],
    readers: &[Reader<'_>],
    allotment: &Allotment,
) -> Result<Shard, RegroupError> {
    let first = &old[0];
    let mut shard = Shard::new(stages);
    shard.context = Context {
        keys: allotment.keys.clone(),
        frame: first.frame,
        watermark: first.watermark,
        gaps: first.gaps.clone(),
        ended: first.ended,
        idle_close: false,
    };
    shard.tracker = first.tracker.clone();
    shard.gaps_forgotten = first.gaps_forgotten;
    let counted = old.iter().zip(&allotment.counts).filter(|(_, counts)| **counts);
    shard.events = counted.map(|(state, _)| state.events).sum();
    // Of the control records all are every shard's, but for the definitions of keys.
    let of_all = old.iter().map(|state| state.controls.saturating_sub(state.keys.len() as u64)).max();
    shard.controls = of_all.unwrap_or_default() + allotment.keys.len() as u64;
    let mut parts = Parts { readers: readers.to_vec(), allotment };
    for stage in &mut shard.stages {
        parts.operator(&stage.name, &mut stage.lane, stage.operator.as_mut())?;
        for analyzer in &mut stage.analyzers {
            analyzer.regroup(&mut parts)?;
        }
    }
    Ok(shard)
}

impl AnalyzerStage {
    fn regroup(&mut self, parts: &mut Parts<'_>) -> Result<(), RegroupError> {
        parts.analyzer(&self.name, &mut self.lane, self.analyzer.as_mut())?;
        self.children.iter_mut().try_for_each(|child| child.regroup(parts))
    }
}

/// The old states, read side by side.
struct Parts<'a> {
    readers: Vec<Reader<'a>>,
    allotment: &'a Allotment,
}

impl<'a> Parts<'a> {
    fn next(&mut self, id: u32, name: &'static str) -> Result<Vec<&'a [u8]>, RegroupError> {
        let sections = self.readers.iter_mut().enumerate();
        sections
            .map(|(state, reader)| {
                reader.section(id, name).map_err(|source| RegroupError::State { state, source })
            })
            .collect()
    }

    fn shares(&mut self, id: u32, name: &'static str) -> Result<Vec<Share<'a>>, RegroupError> {
        let states = self.next(id, name)?;
        let Allotment { moves, counts, guests_from, .. } = self.allotment;
        let share = |(at, state): (usize, &'a [u8])| Share {
            state,
            moves: &moves[at],
            counts: counts[at],
            guest: at >= *guests_from,
        };
        Ok(states.into_iter().enumerate().map(share).collect())
    }

    fn operator(
        &mut self,
        name: &str,
        lane: &mut Lane,
        operator: &mut dyn Operator,
    ) -> Result<(), RegroupError> {
        self.lane(lane)?;
        let shares = self.shares(section::OPERATOR, "operator")?;
        operator.regroup(&self.allotment.keys, &shares).map_err(|source| refused(name, source))
    }

    fn analyzer(
        &mut self,
        name: &str,
        lane: &mut Lane,
        analyzer: &mut dyn Analyzer,
    ) -> Result<(), RegroupError> {
        self.lane(lane)?;
        let shares = self.shares(section::ANALYZER, "analyzer")?;
        analyzer.regroup(&self.allotment.keys, &shares).map_err(|source| refused(name, source))
    }

    /// A slot's number and digest are its old shard's. Others may know a number too, from a stream of the same name that ended before, and it is
    /// none above; a digest only who has written.
    fn lane(&mut self, lane: &mut Lane) -> Result<(), RegroupError> {
        let (mut accounts, mut emitted) = (vec![SlotAccount::default(); SLOT_COUNT], 0);
        for (state, bytes) in self.next(section::LANE, "lane")?.into_iter().enumerate() {
            let read = || -> Result<LaneState<'static>, SnapshotError> {
                let saved: LaneState<'static> = snapshot::read(bytes, "lane")?;
                saved.check().map(|()| saved)
            };
            let saved = read().map_err(|source| RegroupError::State { state, source })?;
            if self.allotment.counts[state] {
                emitted += saved.emitted;
            }
            for &slot in &self.allotment.slots {
                let (sum, of) = (&mut accounts[usize::from(slot)], saved.accounts[usize::from(slot)]);
                if sum.digest != 0 && of.digest != 0 {
                    return Err(RegroupError::Twice { slot });
                }
                sum.sequence = sum.sequence.max(of.sequence);
                sum.digest = sum.digest.wrapping_add(of.digest);
            }
        }
        lane.restore(&accounts, emitted);
        Ok(())
    }
}

fn refused(stage: &str, source: ShareError) -> RegroupError {
    RegroupError::Stage { stage: stage.to_owned(), source }
}

#[cfg(test)]
mod tests;
