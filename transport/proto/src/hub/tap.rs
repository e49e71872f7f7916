//! Copies of some streams' records for a few readers within the process: each once, in the order in which they were published, together
//! with what the hub knew at its beginning. A front end is a subscriber; this is for what computes more streams from them.

use super::Hub;
use std::collections::VecDeque;
use tidegate_engine::Output;

/// Which of the taps: whoever asked for it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapId(u64);

/// What is copied, and what was and is not taken yet.
pub(super) struct Tap {
    id: TapId,
    streams: Vec<u16>,
    max: usize,
    taken: VecDeque<Output>,
    lost: u64,
}

impl Tap {
    #[inline]
    pub(super) fn take(&mut self, output: &Output) {
        if !self.streams.contains(&output.stream) {
            return;
        }
        if self.taken.len() < self.max {
            self.taken.push_back(*output);
        } else {
            self.lost += 1;
        }
    }
}

impl Hub {
    /// From now on copies every record of `streams`, at most `max` until they are taken ([`Hub::tapped`]), and until [`Hub::untap`].
    pub fn tap(&mut self, streams: &[u16], max: usize) -> TapId {
        let id = TapId(self.taps_begun);
        self.taps_begun += 1;
        self.taps.push(Tap { id, streams: streams.to_vec(), max, taken: VecDeque::new(), lost: 0 });
        id
    }

    /// Copies no more of that.
    pub fn untap(&mut self, id: TapId) {
        self.taps.retain(|tap| tap.id != id);
    }

    /// What was copied and not taken yet, oldest first, for the reader to take off its beginning.
    pub fn tapped(&mut self, id: TapId) -> Option<&mut VecDeque<Output>> {
        self.taps.iter_mut().find(|tap| tap.id == id).map(|tap| &mut tap.taken)
    }

    /// Records that were not copied because too many were not taken.
    #[must_use]
    pub fn tap_lost(&self, id: TapId) -> u64 {
        self.taps.iter().find(|tap| tap.id == id).map_or(0, |tap| tap.lost)
    }

    /// The last `count` records of each key of a stream: one for each window, in its last revision, oldest first. Keys are in the order in
    /// which their names became known.
    pub fn lookback_all(&self, stream: u16, count: usize, each: &mut dyn FnMut(&str, &Output)) {
        let Some(state) = self.streams.get(usize::from(stream)) else { return };
        for (key, history) in (0u32..).zip(&state.history) {
            let name = self.keys.name(key);
            history.last(count).for_each(|output| each(name, history.first(output).unwrap_or(output)));
        }
    }
}
