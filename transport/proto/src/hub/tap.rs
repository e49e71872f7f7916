//! Copies of some streams' records for one reader within the process: each once, in the order in which they were published, together
//! with what the hub knew at its beginning. A front end is a subscriber; this is for what computes more streams from them.

use super::Hub;
use std::collections::VecDeque;
use tidegate_engine::Output;

/// What is copied, and what was and is not taken yet.
pub(super) struct Tap {
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
    /// From now on copies every record of `streams`, at most `max` until they are taken ([`Hub::tapped`]); takes the place of what was
    /// copied before.
    pub fn tap(&mut self, streams: &[u16], max: usize) {
        self.tap = Some(Box::new(Tap { streams: streams.to_vec(), max, taken: VecDeque::new(), lost: 0 }));
    }

    /// Copies no more.
    pub fn untap(&mut self) {
        self.tap = None;
    }

    /// What was copied and not taken yet, oldest first, for the reader to take off its beginning.
    pub fn tapped(&mut self) -> Option<&mut VecDeque<Output>> {
        self.tap.as_deref_mut().map(|tap| &mut tap.taken)
    }

    /// Records that were not copied because too many were not taken.
    #[must_use]
    pub fn tap_lost(&self) -> u64 {
        self.tap.as_ref().map_or(0, |tap| tap.lost)
    }

    /// The last `count` records of each key of a stream: one for each window, in its last revision, oldest first. Keys are in the order in
    /// which their names became known.
    pub fn lookback_all(&self, stream: u16, count: usize, each: &mut dyn FnMut(&str, &Output)) {
        let Some(state) = self.streams.get(usize::from(stream)) else { return };
        for (key, history) in (0u32..).zip(&state.history) {
            let name = self.keys.name(key);
            history.last(count).for_each(|output| each(name, output));
        }
    }
}
