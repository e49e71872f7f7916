//! What a hub remembers, on its way to disk and back: the records that readers may still ask for.
//!
//! It is copied in small pieces between other work, so the pieces are of different moments. What came behind the barrier of the log
//! that the rest of the snapshot is of is left out by its number when it is read back; the log brings it again.

use super::Hub;
use tidegate_engine::{Output, SLOT_COUNT};

/// A stream's past, as the pieces have it.
#[derive(Debug, Clone, Copy)]
pub struct StreamPast<'a> {
    /// Last number per slot at the barrier.
    pub heads: &'a [u64],
    /// Records published up to the barrier.
    pub published: u64,
    /// The ring's records, oldest first, one behind the other.
    pub ring: &'a [&'a [u8]],
    /// The histories' records, key by key, oldest first.
    pub histories: &'a [&'a [u8]],
}

/// A past that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// The pipeline has no such stream.
    #[error("there is no stream {0}")]
    Stream(u16),
    /// Not one number per slot.
    #[error("{0} numbers of slots, expected {SLOT_COUNT}")]
    Slots(usize),
    /// Something that is no record.
    #[error("a record of stream {stream} cannot be read, {left} bytes before the end of its piece")]
    Record {
        /// The stream.
        stream: u16,
        /// Bytes that were left.
        left: usize,
    },
}

impl Hub {
    /// A shard's marker of a barrier came.
    pub(super) fn reached(&mut self, barrier: u64) {
        if barrier > self.barrier.0 {
            self.barrier = (barrier, 0);
        }
        self.barrier.1 += u32::from(barrier == self.barrier.0);
    }

    /// How many shards have handed over everything in front of a barrier of the log; all of them when a later one's marker came.
    #[must_use]
    pub fn reached_by(&self, barrier: u64) -> u32 {
        match self.barrier.0.cmp(&barrier) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => self.barrier.1,
            std::cmp::Ordering::Greater => u32::MAX,
        }
    }

    /// Whether so many shards have handed over everything in front of a barrier of the log.
    #[must_use]
    pub fn is_past(&self, barrier: u64, shards: u32) -> bool {
        self.barrier.0 > barrier || self.barrier == (barrier, shards)
    }

    /// Copies records of a stream's ring that are in front of place `before` (`u64::MAX` for the newest), at most `max` of them, oldest
    /// first. Returns the place of the first one copied: what to ask for next; `None` when there are none.
    pub fn copy_ring(&self, stream: u16, before: u64, max: usize, out: &mut Vec<u8>) -> Option<u64> {
        let state = self.streams.get(usize::from(stream))?;
        let end = before.min(state.head()).checked_sub(state.first)?;
        let start = end.saturating_sub(max as u64);
        if start == end {
            return None;
        }
        for output in state.ring.range(start as usize..end as usize) {
            out.extend_from_slice(output.record_bytes());
        }
        Some(state.first + start)
    }

    /// Copies histories of a stream from key number `from` on, until at least `max` records are copied. Returns the key to go on with;
    /// `None` at the end.
    pub fn copy_histories(&self, stream: u16, from: usize, max: usize, out: &mut Vec<u8>) -> Option<usize> {
        let state = self.streams.get(usize::from(stream))?;
        let (mut key, mut copied) = (from, 0);
        while copied < max {
            let history = state.history.get(key)?;
            for output in history.last(usize::MAX) {
                out.extend_from_slice(output.record_bytes());
            }
            // An empty one costs a look.
            copied += history.len().max(1);
            key += 1;
        }
        Some(key)
    }

    /// Takes over a stream's past. Names must have been defined, and nothing published.
    ///
    /// # Errors
    /// [`PastError`]; the hub is then of no use.
    pub fn restore(&mut self, stream: u16, past: StreamPast<'_>) -> Result<(), PastError> {
        let at = usize::from(stream);
        if at >= self.streams.len() {
            return Err(PastError::Stream(stream));
        }
        if past.heads.len() != SLOT_COUNT {
            return Err(PastError::Slots(past.heads.len()));
        }
        let known = |output: &Output| output.sequence <= past.heads[usize::from(output.slot) % SLOT_COUNT];
        self.streams[at].heads.copy_from_slice(past.heads);
        self.streams[at].evicted.copy_from_slice(past.heads);
        each(stream, past.ring, |output| {
            if !known(&output) {
                return;
            }
            let key = self.keys.key(output.name).unwrap_or(u32::MAX);
            let state = &mut self.streams[at];
            if state.ring.len() >= self.options.ring_records {
                state.ring.pop_front();
            }
            state.newest = state.newest.max(output.ts);
            state.ring.push_back(Output { key, stream, ..output });
        })?;
        let state = &mut self.streams[at];
        state.first = past.published.saturating_sub(state.ring.len() as u64);
        // Numbers are without holes, so what is in front of the oldest one kept has left.
        for output in state.ring.iter().rev() {
            state.evicted[usize::from(output.slot) % SLOT_COUNT] = output.sequence.saturating_sub(1);
        }
        each(stream, past.histories, |output| {
            if known(&output)
                && let Some(key) = self.keys.key(output.name)
            {
                let newest = &mut self.streams[at].newest;
                *newest = (*newest).max(output.ts);
                self.remember(at, key, Output { key, stream, ..output });
            }
        })
    }
}

fn each(stream: u16, pieces: &[&[u8]], mut take: impl FnMut(Output)) -> Result<(), PastError> {
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let Some((output, behind)) = Output::read_record(rest) else {
                return Err(PastError::Record { stream, left: rest.len() });
            };
            take(output);
            rest = behind;
        }
    }
    Ok(())
}
