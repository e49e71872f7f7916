//! The last few records of one key in one stream: one for each window, in its last revision.

use std::collections::VecDeque;
use tidegate_engine::{BarState, Output, output_kind};

/// Ordered by event time, then by arrival.
#[derive(Default)]
pub(super) struct History {
    records: VecDeque<Output>,
    /// Event time of the last record. Of many keys each push finds its own cold, and mostly nothing but this has to be read.
    newest_ts: u64,
    /// Records taken in, and events in the bars among them, since the hub was made.
    taken: u64,
    events: u64,
    /// There is none as long as nothing was amended, which is the rule.
    firsts: Option<Box<Firsts>>,
}

/// Amended bars among the records as they first became final, in the order of event time: what is derived from bars is derived from these.
#[derive(Default)]
struct Firsts(Vec<Output>);

/// Events in a record's bar; none in other records.
fn events(output: &Output) -> u64 {
    if output.kind == output_kind::BAR { output.bar().trades } else { 0 }
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

    /// Takes a record in, keeping at most `max`. Events set aside as late are no record of a window. Returns how many events more
    /// than before there are in bars: of another revision, what it differs by; of one whose predecessor is gone, none.
    pub(super) fn push(&mut self, output: Output, max: usize) -> u64 {
        if output.kind == output_kind::LATE {
            return 0;
        }
        self.taken += 1;
        let before = self.events;
        self.place(output, max);
        self.events - before
    }

    fn place(&mut self, output: Output, max: usize) {
        if output.ts > self.newest_ts {
            while self.records.len() >= max.max(1) {
                self.records.pop_front();
            }
            self.newest_ts = output.ts;
            self.events = self.events.saturating_add(events(&output));
            self.records.push_back(output);
            return;
        }
        let at = self.records.iter().rposition(|held| held.ts <= output.ts).map_or(0, |at| at + 1);
        let revised = self.records.range(..at).rev().take_while(|held| held.ts == output.ts);
        if let Some(back) = revised.into_iter().position(|held| revises(&output, held)) {
            let place = &mut self.records[at - 1 - back];
            // A bar that lost trades leaves the count as it is: they were worked on.
            self.events = self.events.saturating_add(events(&output).saturating_sub(events(place)));
            let before = std::mem::replace(place, output);
            if before.state == BarState::Final as u8 {
                self.amended(before);
            }
            return;
        }
        if output.state != BarState::Amended as u8 {
            self.events = self.events.saturating_add(events(&output));
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

    /// Keeps an amended bar as it was, and those of before for as long as the bars are kept.
    fn amended(&mut self, first: Output) {
        let oldest = self.records.front().map_or(0, |held| held.ts);
        let firsts = &mut self.firsts.get_or_insert_default().0;
        firsts.retain(|kept| kept.ts >= oldest);
        let at = firsts.partition_point(|kept| kept.ts <= first.ts);
        firsts.insert(at, first);
    }

    /// An amended bar as it first became final; nothing for one that was not amended, or of which that is not known any more.
    pub(super) fn first(&self, held: &Output) -> Option<&Output> {
        let firsts = &self.firsts.as_ref().filter(|_| held.state == BarState::Amended as u8)?.0;
        let at = firsts.partition_point(|kept| kept.ts < held.ts);
        firsts[at..].iter().take_while(|kept| kept.ts == held.ts).find(|kept| revises(held, kept))
    }

    /// Whether it has this very record, or had it before it was amended.
    pub(super) fn has(&self, output: &Output) -> bool {
        let is = |held: &Output| held.sequence == output.sequence;
        // What is newer than all cannot be there, and that is the rule.
        output.ts <= self.newest_ts
            && (self.records.iter().any(is)
                || self.firsts.as_ref().is_some_and(|firsts| firsts.0.iter().any(is)))
    }

    /// Records taken in, and events in the bars among them.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.taken, self.events)
    }

    pub(super) fn newest(&self) -> Option<&Output> {
        self.records.back()
    }

    /// The last `count`, oldest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &Output> {
        self.records.range(self.records.len().saturating_sub(count)..)
    }
}
