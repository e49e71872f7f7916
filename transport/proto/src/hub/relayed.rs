//! Results of slots that another node computes: how a hub hands them to who relays them there, and how it takes in what is relayed here.
//! What differs from a shard's results is that some may be missing, and that their past comes while there are readers.

use super::{Hub, Phase, StreamState, cursor};
use crate::frame::FrameWriter;
use crate::subscription::{Subscription, SubscriptionError};
use crate::time::MonoTime;
use std::collections::VecDeque;
use tidegate_engine::{Output, SLOT_COUNT, slot_of};

/// Holes that are known apart; of more, the oldest count from the beginning of their slot.
const HOLES_MAX: usize = 1 << 14;
/// Keys looked at in one go for their names.
const NAMES_LOOKED: usize = 4_096;

/// Numbers of a slot that never came, between records of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    /// Place in the stream in front of which it is.
    position: u64,
    pub(super) slot: u16,
    /// The first number that is missing, and the last.
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Hole {
    /// How many of these numbers are wanted, and not counted with those that left the ring.
    pub(super) fn count(&self, evicted: &[u64], floor: u64) -> u64 {
        let left = evicted.get(usize::from(self.slot)).map_or(0, |last| last + 1);
        (self.to + 1).saturating_sub(self.from.max(floor).max(left))
    }
}

impl StreamState {
    /// Holes in front of the ring count with what left it.
    pub(super) fn close_holes(&mut self) {
        while let Some(hole) = self.holes.pop_front_if(|hole| hole.position < self.first) {
            let last = &mut self.evicted[usize::from(hole.slot)];
            *last = hole.to.max(*last);
        }
    }
}

impl Hub {
    /// A reader of all results of certain slots: another node, that has readers of its own. It is not counted against the bound of readers.
    ///
    /// # Errors
    /// As [`Hub::subscribe`].
    pub fn subscribe_slots(
        &mut self,
        subscription: &Subscription,
        of: &dyn Fn(u16) -> bool,
        now: MonoTime,
    ) -> Result<super::SubscriberId, SubscriptionError> {
        self.subscribe_with(subscription, cursor::Filter::of_slots(of), now)
    }

    /// The next number of each of certain slots of a stream that has one.
    #[must_use]
    pub fn next_numbers(&self, stream: u16, of: &dyn Fn(u16) -> bool) -> Vec<(u16, u64)> {
        let Some(state) = self.streams.get(usize::from(stream)) else { return Vec::new() };
        let mut next = state.edge();
        next.retain(|(slot, _)| of(*slot));
        next
    }

    /// Writes frames with the names of certain slots, from key number `from` on, a bounded number of them. Returns the key to go on with;
    /// `None` at the end.
    pub fn copy_names(&self, from: usize, of: &dyn Fn(u16) -> bool, out: &mut Vec<u8>) -> Option<usize> {
        let end = self.keys.len().min(from.saturating_add(NAMES_LOOKED));
        let wanted = |key: &u32| of(slot_of(self.keys.hash(*key)));
        let keys: Vec<u32> = (from as u32..end as u32).filter(wanted).collect();
        let mut rest = &keys[..];
        while !rest.is_empty() {
            let named = rest.iter().map(|&key| (self.keys.hash(key), self.keys.name(key)));
            // A name fits a frame, so there is one more each time.
            let taken = FrameWriter::new(out).names(named) as usize;
            rest = &rest[taken.clamp(1, rest.len())..];
        }
        (end < self.keys.len()).then_some(end)
    }

    /// Takes relayed results, of which what is kept for each key is known already ([`Hub::recall`]).
    pub fn publish_known(&mut self, outputs: &[Output]) {
        self.take_in(outputs, false);
    }

    /// Takes over what is kept for each key, oldest first: readers that are there are not told. What is known already is left out.
    pub fn recall(&mut self, outputs: &[Output]) {
        for output in outputs {
            let at = usize::from(output.stream);
            let open = self.streams.get(at).is_some_and(|state| state.phase != Phase::Ended);
            let Some(key) = self.keys.key(output.name).filter(|_| open) else { continue };
            let state = &mut self.streams[at];
            if state.history.get(key as usize).is_some_and(|history| history.has(output)) {
                continue;
            }
            state.newest = state.newest.max(output.ts);
            self.remember(at, key, Output { key, ..*output });
        }
    }

    /// The next record of a slot has this number: those between the last one and it do not come. Readers that miss them are told; at the
    /// beginning of a relay those who asked for numbers.
    pub fn skip(&mut self, stream: u16, slot: u16, next: u64, beginning: bool) {
        let (at, of) = (usize::from(stream), usize::from(slot) % SLOT_COUNT);
        let Some(state) = self.streams.get_mut(at).filter(|state| state.phase != Phase::Ended) else {
            return;
        };
        let (head, first) = (state.heads[of], state.heads[of] + 1);
        if next <= first {
            return;
        }
        let hole = Hole { position: state.head(), slot: of as u16, from: first, to: next - 1 };
        state.heads[of] = hole.to;
        if state.evicted[of] == head {
            // Nothing of it is in the ring.
            state.evicted[of] = hole.to;
        } else {
            if state.holes.len() >= HOLES_MAX
                && let Some(oldest) = state.holes.pop_front()
            {
                let last = &mut state.evicted[usize::from(oldest.slot)];
                *last = oldest.to.max(*last);
            }
            state.holes.push_back(hole);
        }
        for place in &mut self.places {
            if let Some(subscriber) = &mut place.subscriber {
                subscriber.miss(stream, &hole, beginning);
            }
        }
    }
}

/// Nothing is missing.
pub(super) type Holes = VecDeque<Hole>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamKind;
    use crate::hub::{HubOptions, Item, Polled, StreamMeta};
    use crate::subscription::Start;
    use tidegate_engine::{name_hash, output_kind};

    const KEYS: [&str; 3] = ["A", "B", "C"];

    fn hub(ring_records: usize) -> Hub {
        let meta = StreamMeta { name: "bars".into(), kind: StreamKind::Values, columns: vec!["x".into()] };
        let mut hub = Hub::new(vec![meta], HubOptions { ring_records, ..HubOptions::default() }).unwrap();
        KEYS.iter().for_each(|name| hub.define(name));
        hub
    }

    fn record(name: &str, sequence: u64) -> Output {
        let name = name_hash(name.as_bytes());
        let slot = slot_of(name);
        Output {
            name,
            slot,
            sequence,
            ts: sequence,
            kind: output_kind::VALUES,
            count: 1,
            ..Output::default()
        }
    }

    fn slot(name: &str) -> u16 {
        slot_of(name_hash(name.as_bytes()))
    }

    fn reader(hub: &mut Hub, start: Start) -> crate::hub::SubscriberId {
        hub.subscribe(&Subscription { start, ..Subscription::to(["bars"]) }, MonoTime(0)).unwrap()
    }

    /// Numbers that come, and how many are told as lost.
    fn told(hub: &mut Hub, id: crate::hub::SubscriberId) -> (Vec<u64>, u64) {
        let (mut numbers, mut lost) = (Vec::new(), 0);
        let polled = hub.poll(id, MonoTime(1), 10_000, &mut |item| match item {
            Item::Record { output, .. } => numbers.push(output.sequence),
            Item::Loss(loss) => lost += loss.count,
            _ => {}
        });
        assert_eq!(polled, Polled::Idle { due: None });
        (numbers, lost)
    }

    #[test]
    fn who_relays_slots_gets_all_of_them_and_nothing_else() {
        let mut hub = hub(64);
        let mine = |of| of == slot("A");
        let spec = Subscription {
            start: Start::Sequence { default: 1, slots: vec![(0, slot("A"), 2)] },
            ..Subscription::to(["bars"])
        };
        hub.publish(&[record("A", 1), record("B", 1), record("A", 2)]);
        let id = hub.subscribe_slots(&spec, &mine, MonoTime(0)).unwrap();
        hub.publish(&[record("C", 1), record("A", 3)]);
        assert_eq!(told(&mut hub, id), (vec![2, 3], 0));
        assert_eq!(hub.next_numbers(0, &mine), [(slot("A"), 4)]);
        let mut names = Vec::new();
        assert_eq!(hub.copy_names(0, &mine, &mut names), None);
        assert!(
            names.windows(2).any(|two| two == [1, b'A']) && !names.windows(2).any(|two| two == [1, b'B'])
        );
    }

    #[test]
    fn what_is_missing_is_told_to_whom_it_concerns() {
        let mut hub = hub(64);
        let latest = reader(&mut hub, Start::Latest);
        let all = reader(&mut hub, Start::Sequence { default: 1, slots: Vec::new() });
        let ahead = reader(&mut hub, Start::Sequence { default: 1, slots: vec![(0, slot("A"), 8)] });
        // A relay begins with number 11: ten are kept nowhere.
        hub.skip(0, slot("A"), 11, true);
        hub.publish(&[record("A", 11)]);
        assert_eq!(told(&mut hub, latest), (vec![11], 0));
        assert_eq!(told(&mut hub, all), (vec![11], 10));
        assert_eq!(told(&mut hub, ahead), (vec![11], 3));
        // Later on, whoever reads along misses them.
        hub.skip(0, slot("A"), 21, false);
        hub.publish(&[record("A", 21), record("B", 1)]);
        for id in [latest, all, ahead] {
            assert_eq!(told(&mut hub, id), (vec![21, 1], 9));
        }
        // And so does whoever asks for the past.
        for (from, lost) in [(1, 19), (11, 9), (15, 6), (21, 0)] {
            let id = reader(&mut hub, Start::Sequence { default: 1, slots: vec![(0, slot("A"), from)] });
            let (numbers, missing) = told(&mut hub, id);
            let kept: Vec<u64> = [11, 21].into_iter().filter(|number| *number >= from).chain([1]).collect();
            assert_eq!((numbers, missing), (kept, lost), "from {from}");
        }
        // As long as the ring has what is around it, and with all that left it afterwards.
        (1..=200).for_each(|number| hub.publish(&[record("C", number)]));
        let id = reader(&mut hub, Start::Sequence { default: 1, slots: Vec::new() });
        let (numbers, missing) = told(&mut hub, id);
        assert_eq!(numbers.len() as u64 + missing, 21 + 1 + 200);
        assert!(hub.streams[0].holes.is_empty());
        // Nothing is missing in front of what came.
        hub.skip(0, slot("C"), 201, false);
        assert_eq!(told(&mut hub, id), (Vec::new(), 0));
    }

    #[test]
    fn what_is_kept_of_a_key_is_taken_over_once() {
        let mut hub = hub(64);
        let id = reader(&mut hub, Start::Latest);
        hub.publish(&[record("A", 9)]);
        let past: Vec<Output> = (5..=9).map(|number| record("A", number)).collect();
        hub.recall(&past);
        hub.recall(&past);
        let kept = |hub: &Hub| hub.lookback(0, "A", 100).map(|output| output.sequence).collect::<Vec<_>>();
        assert_eq!(kept(&hub), [5, 6, 7, 8, 9]);
        hub.publish_known(&[record("B", 1)]);
        assert_eq!((told(&mut hub, id), hub.lookback(0, "B", 9).count()), ((vec![9, 1], 0), 0));
    }
}
