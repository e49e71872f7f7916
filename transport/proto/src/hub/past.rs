//! What a hub remembers, on its way to disk and back: the records that readers may still ask for.
//!
//! It is copied in small pieces between other work, so the pieces are of different moments. What came behind the barrier of the log
//! that the rest of the snapshot is of is left out by its number when it is read back; the log brings it again.

use super::{Hub, StreamState};
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

/// Which of several logs a barrier is of: its upper 16 bits.
fn log_of(barrier: u64) -> usize {
    (barrier >> 48) as usize
}

impl Hub {
    /// A shard's marker of a barrier came. Logs of their own count theirs apart, from a number of their own in the upper 16 bits.
    pub(super) fn reached(&mut self, barrier: u64) {
        let log = log_of(barrier);
        if log >= self.barriers.len() {
            self.barriers.resize(log + 1, (0, 0));
        }
        let last = &mut self.barriers[log];
        if barrier > last.0 {
            *last = (barrier, 0);
        }
        last.1 += u32::from(barrier == last.0);
    }

    fn last_barrier(&self, barrier: u64) -> (u64, u32) {
        self.barriers.get(log_of(barrier)).copied().unwrap_or_default()
    }

    /// How many shards have handed over everything in front of a barrier of the log; all of them when a later one's marker came.
    #[must_use]
    pub fn reached_by(&self, barrier: u64) -> u32 {
        let (last, shards) = self.last_barrier(barrier);
        match last.cmp(&barrier) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => shards,
            std::cmp::Ordering::Greater => u32::MAX,
        }
    }

    /// Whether so many shards have handed over everything in front of a barrier of the log.
    #[must_use]
    pub fn is_past(&self, barrier: u64, shards: u32) -> bool {
        let last = self.last_barrier(barrier);
        last.0 > barrier || last == (barrier, shards)
    }

    /// Copies records of a stream's ring that are in front of place `before` (`u64::MAX` for the newest) and of certain slots, of at most
    /// `max` that are there, oldest first. Returns the place of the first one looked at: what to ask for next; `None` when there are none.
    pub fn copy_ring(
        &self,
        stream: u16,
        before: u64,
        max: usize,
        of: &dyn Fn(u16) -> bool,
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        let state = self.streams.get(usize::from(stream))?;
        let end = before.min(state.head()).checked_sub(state.first)?;
        let start = end.saturating_sub(max as u64);
        if start == end {
            return None;
        }
        for output in state.ring.range(start as usize..end as usize).filter(|output| of(output.slot)) {
            out.extend_from_slice(output.record_bytes());
        }
        Some(state.first + start)
    }

    /// Copies histories of a stream from key number `from` on, those of certain slots, until at least `max` records are copied. Returns the
    /// key to go on with; `None` at the end.
    pub fn copy_histories(
        &self,
        stream: u16,
        from: usize,
        max: usize,
        of: &dyn Fn(u16) -> bool,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let state = self.streams.get(usize::from(stream))?;
        let (mut key, mut copied) = (from, 0);
        while copied < max {
            let history = state.history.get(key)?;
            // A key has one slot.
            let wanted = history.newest().is_some_and(|newest| of(newest.slot));
            for output in history.last(if wanted { usize::MAX } else { 0 }) {
                // Read again in this order, the second amends the first.
                history
                    .first(output)
                    .into_iter()
                    .for_each(|first| out.extend_from_slice(first.record_bytes()));
                out.extend_from_slice(output.record_bytes());
            }
            // An empty one costs a look.
            copied += if wanted { history.len() } else { 1 };
            key += 1;
        }
        Some(key)
    }

    /// Of these slots two pasts were taken over: the older one's log brings again what the newer one has, and that is left out by its number.
    pub fn ignore_known(&mut self, slots: &[u16]) {
        let again = self.again.get_or_insert_with(|| vec![false; SLOT_COUNT].into());
        slots.iter().for_each(|slot| again[usize::from(*slot) % SLOT_COUNT] = true);
    }

    /// Takes over the past of another hub, of the same streams and of slots of its own. Nothing may have been published here.
    ///
    /// # Errors
    /// [`PastError`]; this hub is then of no use.
    pub fn absorb(&mut self, other: &Self) -> Result<(), PastError> {
        other.keys.all().for_each(|name| self.define(name));
        for (number, state) in (0u16..).zip(&other.streams) {
            let (mut ring, mut histories) = (Vec::new(), Vec::new());
            other.copy_ring(number, u64::MAX, usize::MAX, &|_| true, &mut ring);
            other.copy_histories(number, 0, usize::MAX, &|_| true, &mut histories);
            let past = StreamPast {
                heads: &state.heads,
                published: state.head(),
                ring: &[&ring],
                histories: &[&histories],
            };
            self.restore(number, past)?;
        }
        // Complete is what both are, as far as anything came of either.
        self.watermark = match (self.watermark, other.watermark) {
            (0, of) | (of, 0) => of,
            (here, there) => here.min(there),
        };
        Ok(())
    }

    /// Takes over a stream's past, beside that of other slots that was taken over before. Names must have been defined, and nothing
    /// published.
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
        let before = self.streams[at].head();
        // Of a slot that has changed its log both pasts have some: what is here already is not taken twice.
        let here = self.streams[at].heads.clone();
        let known =
            |output: &Output| known(output) && output.sequence > here[usize::from(output.slot) % SLOT_COUNT];
        for (head, of) in self.streams[at].heads.iter_mut().zip(past.heads) {
            *head = (*head).max(*of);
        }
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
        state.first = before.saturating_add(past.published).saturating_sub(state.ring.len() as u64);
        let StreamState { heads, evicted, .. } = state;
        evicted.copy_from_slice(heads);
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
