//! The last few records of one key in one stream: one for each window, in its last revision.

use std::collections::VecDeque;
use tidegate_engine::{BarState, Output, output_kind};

/// Ordered by event time, then by arrival.
#[derive(Default)]
pub(super) struct History {
    records: VecDeque<Output>,
    /// Event time of the last record. Of many keys each push finds its own cold, and mostly nothing but this has to be read.
    newest_ts: u64,
}

/// Whether `newer` is another revision of `older`: the same window, told again.
fn revises(newer: &Output, older: &Output) -> bool {
    let amends = newer.kind == output_kind::BAR && newer.state == BarState::Amended as u8;
    // The first word of a bar is where it opened; two bars by trades may end at one instant.
    amends && older.kind == newer.kind && older.ts == newer.ts && older.words[0] == newer.words[0]
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Takes a record in, keeping at most `max`. Events set aside as late are no record of a window.
    pub(super) fn push(&mut self, output: Output, max: usize) {
        if output.kind == output_kind::LATE {
            return;
        }
        if output.ts > self.newest_ts {
            while self.records.len() >= max.max(1) {
                self.records.pop_front();
            }
            self.newest_ts = output.ts;
            self.records.push_back(output);
            return;
        }
        let at = self.records.iter().rposition(|held| held.ts <= output.ts).map_or(0, |at| at + 1);
        let revised = self.records.range(..at).rev().take_while(|held| held.ts == output.ts);
        if let Some(back) = revised.into_iter().position(|held| revises(&output, held)) {
            self.records[at - 1 - back] = output;
            return;
        }
        // One goes for the one that comes; more do when the bound was lowered.
        let mut at = at;
        while self.records.len() >= max {
            if at == 0 {
                // Older than everything kept.
                self.records.drain(..self.records.len() - max);
                return;
            }
            self.records.pop_front();
            at -= 1;
        }
        self.records.insert(at, output);
    }

    pub(super) fn newest(&self) -> Option<&Output> {
        self.records.back()
    }

    /// The last `count`, oldest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &Output> {
        self.records.range(self.records.len().saturating_sub(count)..)
    }
}
