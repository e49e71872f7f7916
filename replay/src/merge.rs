//! Several sources as one log: merged by (event time, source rank, sequence), names unified.

use crate::source::{Names, Progress, ReadAccount, ReadError, Source};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use tidegate_engine::{Event, kind};

/// Events asked of a source at a time.
const READ_EVENTS: usize = 8_192;

struct Input {
    source: Box<dyn Source>,
    events: Vec<Event>,
    at: usize,
    /// Key of the merged log for each key of the source.
    keys: Vec<u32>,
    ended: bool,
    /// Where control records of the source stand in time: at the newest event before them.
    newest: u64,
}

/// Reads all inputs in one order. A source's own order is never changed; between sources the earlier stamp goes first,
/// then the lower rank (the order the inputs were named in).
pub struct Merge {
    inputs: Vec<Input>,
    names: Names,
    /// Rank of the source that brought each name.
    defined_by: Vec<u16>,
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    started: bool,
    failure: Option<ReadError>,
}

impl Merge {
    /// Inputs in the order of their rank.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn Source>>) -> Self {
        let input = |source| Input {
            source,
            events: Vec::with_capacity(READ_EVENTS),
            at: 0,
            keys: Vec::new(),
            ended: false,
            newest: 0,
        };
        Self {
            inputs: sources.into_iter().map(input).collect(),
            names: Names::default(),
            defined_by: Vec::new(),
            heads: BinaryHeap::new(),
            started: false,
            failure: None,
        }
    }

    /// Refills an input; remembers the first failure and treats that input as ended, so what the others hold is
    /// still processed.
    fn refill(&mut self, rank: usize) {
        let input = &mut self.inputs[rank];
        input.events.clear();
        input.at = 0;
        if input.ended {
            return;
        }
        match input.source.read(&mut input.events, READ_EVENTS) {
            Ok(0) => input.ended = true,
            Ok(_) => {}
            Err(error) => {
                input.ended = true;
                self.failure.get_or_insert(error);
            }
        }
        // Names first: an event's key must be known before the event.
        for name in input.source.names().iter().skip(input.keys.len()) {
            let before = self.names.len();
            input.keys.push(self.names.intern(name));
            if self.names.len() > before {
                self.defined_by.push(rank as u16);
            }
        }
        let rank = rank as u16;
        for event in &mut input.events {
            event.source = rank;
            if event.kind < kind::CONTROL {
                // A key beyond the names is the reader's bug; it stays out of range and is counted downstream.
                event.key = input.keys.get(event.key as usize).copied().unwrap_or(u32::MAX);
            }
        }
    }

    fn head_ts(input: &mut Input) -> Option<u64> {
        let event = input.events.get(input.at)?;
        if event.kind < kind::CONTROL {
            input.newest = event.ts_event;
        }
        Some(input.newest)
    }

    /// Puts the next events of the merged order in the place of what `events` held; none at the end of all inputs. Those of a
    /// single input are read where they stay.
    pub fn batch(&mut self, events: &mut Vec<Event>) {
        if let [input] = self.inputs.as_mut_slice() {
            std::mem::swap(&mut input.events, events);
            self.refill(0);
            std::mem::swap(&mut self.inputs[0].events, events);
            return;
        }
        events.clear();
        self.merge_into(events, READ_EVENTS);
    }

    fn merge_into(&mut self, out: &mut Vec<Event>, max: usize) {
        if !self.started {
            self.started = true;
            for rank in 0..self.inputs.len() {
                self.enter(rank);
            }
        }
        while out.len() < max {
            let Some(Reverse((_, rank))) = self.heads.pop() else { break };
            // Everything of this input that still goes before the next one's head, without touching the heap.
            let limit = self.heads.peek().map(|Reverse(head)| *head);
            loop {
                let input = &mut self.inputs[rank];
                let Some(ts) = Self::head_ts(input) else {
                    self.enter(rank);
                    break;
                };
                if limit.is_some_and(|limit| (ts, rank) > limit) || out.len() >= max {
                    self.heads.push(Reverse((ts, rank)));
                    break;
                }
                out.push(input.events[input.at]);
                input.at += 1;
            }
        }
    }

    fn enter(&mut self, rank: usize) {
        self.refill(rank);
        if let Some(ts) = Self::head_ts(&mut self.inputs[rank]) {
            self.heads.push(Reverse((ts, rank)));
        }
    }

    /// Names of the merged log.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Name, hash and defining source of the keys from `from` on.
    pub fn names_from(&self, from: usize) -> impl Iterator<Item = (Arc<str>, u64, u16)> + '_ {
        let names = self.names.iter().zip(self.names.hashes()).zip(&self.defined_by);
        names.skip(from).map(|((name, &hash), &source)| (Arc::clone(name), hash, source))
    }

    /// The account of each input, with its format.
    pub fn accounts(&self) -> impl Iterator<Item = (String, &ReadAccount)> {
        self.inputs.iter().map(|input| (input.source.format(), input.source.account()))
    }

    /// How far reading is, over all inputs.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inputs.iter().map(|input| input.source.progress()).fold(Progress::default(), |sum, one| {
            Progress { bytes: sum.bytes + one.bytes, bytes_total: sum.bytes_total + one.bytes_total }
        })
    }

    /// The first input that could not be read to its end.
    pub fn take_failure(&mut self) -> Option<ReadError> {
        self.failure.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed {
        events: Vec<Event>,
        names: Names,
        account: ReadAccount,
        step: usize,
    }

    impl Source for Fixed {
        fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
            let count = self.events.len().min(max).min(self.step);
            events.extend(self.events.drain(..count));
            Ok(count)
        }
        fn names(&self) -> &Names {
            &self.names
        }
        fn account(&self) -> &ReadAccount {
            &self.account
        }
        fn progress(&self) -> Progress {
            Progress::default()
        }
        fn format(&self) -> String {
            "fixed".into()
        }
    }

    proptest! {
        /// Sorted inputs come out sorted by (time, rank); any input keeps its own order; nothing is lost.
        #[test]
        fn merging_is_a_stable_sort(
            mut inputs in proptest::collection::vec(proptest::collection::vec(0u64..50, 0..60), 1..5),
            step in 1usize..20,
        ) {
            let mut want = Vec::new();
            let mut sources: Vec<Box<dyn Source>> = Vec::new();
            for (rank, stamps) in inputs.iter_mut().enumerate() {
                stamps.sort_unstable();
                let mut names = Names::default();
                names.intern(&format!("only-{rank}"));
                names.intern("shared");
                let events: Vec<Event> = stamps.iter().enumerate().map(|(i, &ts)| Event {
                    ts_event: ts, key: (i % 2) as u32, kind: kind::SAMPLE, payload: [i as u64, rank as u64], ..Event::default()
                }).collect();
                want.extend(events.iter().map(|event| (event.ts_event, rank, event.payload[0])));
                sources.push(Box::new(Fixed { events, names, account: ReadAccount::default(), step }));
            }
            want.sort_unstable();
            let mut merge = Merge::new(sources);
            let mut out = Vec::new();
            let mut batch = Vec::new();
            loop {
                merge.batch(&mut batch);
                if batch.is_empty() {
                    break;
                }
                out.extend_from_slice(&batch);
            }
            let got: Vec<_> = out.iter().map(|e| (e.ts_event, e.payload[1] as usize, e.payload[0])).collect();
            prop_assert_eq!(got, want);
            for event in &out {
                let name = merge.names().name(event.key).unwrap();
                prop_assert_eq!(&**name == "shared", event.payload[0] % 2 == 1);
                prop_assert_eq!(u64::from(event.source), event.payload[1]);
            }
        }
    }
}
