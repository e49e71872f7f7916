use super::*;
use crate::event::{Event, kind};
use crate::ledger::{Fate, Ledger};
use crate::output::{Emit, Output, output_kind};
use crate::slot::slot_of;

/// Counts events of each key, and writes each count.
#[derive(Default)]
struct Tally {
    counts: Vec<u64>,
    ledger: Ledger,
}

type Saved = (Vec<u64>, u64, [u64; crate::ledger::FATE_COUNT]);

impl Operator for Tally {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        self.counts.resize(context.keys().len(), 0);
        let counted = self.ledger.counted();
        for event in events {
            let Some(meta) = context.keys().get(event.key as usize) else {
                self.ledger.count(Fate::Undefined);
                continue;
            };
            let count = &mut self.counts[event.key as usize];
            *count += 1;
            let mut output = Output { name: meta.name, slot: meta.slot, key: event.key, ..Output::default() };
            (output.kind, output.count, output.words[0]) = (output_kind::INTEGERS, 1, *count);
            out.push(output);
        }
        self.ledger.close_batch(events.len() as u64, counted);
    }

    fn on_watermark(&mut self, _: &Context, _: &mut Emit<'_>) {}

    fn ledger(&self) -> Ledger {
        self.ledger
    }

    fn save(&self, bytes: &mut Vec<u8>) {
        let saved: Saved = (self.counts.clone(), self.ledger.delivered, self.ledger.by_fate);
        snapshot::append(bytes, &saved);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        (self.counts, self.ledger.delivered, self.ledger.by_fate) = snapshot::read::<Saved>(bytes, "tally")?;
        Ok(())
    }

    fn regroup(&mut self, keys: &[KeyMeta], shares: &[Share<'_>]) -> Result<(), ShareError> {
        self.counts.resize(keys.len(), 0);
        for share in shares {
            let (counts, delivered, by_fate): Saved = snapshot::read(share.state(), "tally")?;
            for (old, new) in share.keys() {
                assert_eq!(share.new_key(old as u32), Some(new as u32));
                self.counts[new] = counts.get(old).copied().unwrap_or(0);
            }
            assert_eq!(share.new_key(counts.len() as u32), None, "it has no such key");
            if share.has_counts() {
                self.ledger.merge(&Ledger { delivered, by_fate });
            }
        }
        Ok(())
    }
}

/// As [`Tally`], but for what it says of other shards.
struct Whole(Tally);

impl Operator for Whole {
    fn on_events(&mut self, context: &Context, events: &[Event], out: &mut Emit<'_>) {
        self.0.on_events(context, events, out);
    }

    fn on_watermark(&mut self, context: &Context, out: &mut Emit<'_>) {
        self.0.on_watermark(context, out);
    }

    fn ledger(&self) -> Ledger {
        self.0.ledger()
    }

    fn save(&self, bytes: &mut Vec<u8>) {
        self.0.save(bytes);
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.0.restore(bytes)
    }
}

fn stages() -> Vec<Stage> {
    vec![Stage::new("tally", 0, Box::<Tally>::default())]
}

fn name(slot: u16, nth: u64) -> u64 {
    let name = nth * SLOT_COUNT as u64 + u64::from(slot);
    assert_eq!(slot_of(name), slot);
    name
}

fn control(kind: u8, ts: u64, key: u32, payload: [u64; 2]) -> Event {
    Event::control(kind, ts, key, 0, payload)
}

/// A shard with these keys, each with so many events, up to a watermark.
fn state(names: &[u64], events: usize, watermark: u64) -> Vec<u8> {
    let mut shard = Shard::new(stages());
    let mut log: Vec<Event> = (0..)
        .zip(names)
        .map(|(key, &name)| control(kind::DEFINE, 0, key, [name, u64::from(slot_of(name))]))
        .collect();
    log.push(control(kind::MARK, 0, (names.len() * events) as u32, [1, 0]));
    for _ in 0..events {
        log.extend((0..names.len() as u32).map(|key| Event { key, kind: kind::TRADE, ..Event::default() }));
    }
    log.push(control(kind::WATERMARK, watermark, 0, [0; 2]));
    log.push(control(kind::BARRIER, 0, 0, [1, 0]));
    shard.process(&log, &mut |_: &[Output]| {});
    shard.save(Vec::new())
}

fn even(slot: u16) -> u32 {
    u32::from(slot % 2)
}

/// Why it is refused.
fn refused(states: &[&[u8]], keys: &[u64]) -> RegroupError {
    regroup(&stages, states, keys, 2, &even).err().expect("it is refused")
}

#[test]
fn keys_go_with_their_slots_and_counts_stay_whole() {
    let (a, b) = ([name(0, 0), name(1, 0), name(0, 1)], [name(2, 0), name(3, 0)]);
    let (first, second) = (state(&a, 3, 10), state(&b, 5, 10));
    // The log had them in another order than either shard.
    let keys = [b[0], a[0], a[1], b[1], a[2]];
    let shards = regroup(&stages, &[&first, &second], &keys, 2, &even).unwrap();
    let names = |shard: &Shard| shard.context().keys().iter().map(|key| key.name).collect::<Vec<_>>();
    assert_eq!(names(&shards[0]), [b[0], a[0], a[2]]);
    assert_eq!(names(&shards[1]), [a[1], b[1]]);
    for (shard, (events, rows)) in shards.iter().zip([(9, 9), (10, 10)]) {
        let (_, lane) = shard.lanes()[0];
        assert_eq!((shard.events(), lane.emitted()), (events, rows), "those of the old shard of its number");
        assert_eq!(shard.stages()[0].ledger().imbalance(), 0);
        assert_eq!(shard.context().watermark(), 10);
    }
    let sequence = |shard: usize, slot: usize| shards[shard].lanes()[0].1.accounts()[slot].sequence;
    assert_eq!([sequence(0, 0), sequence(0, 2), sequence(1, 1), sequence(1, 3)], [6, 5, 3, 5]);
    assert_eq!([sequence(1, 0), sequence(1, 2), sequence(0, 1), sequence(0, 3)], [0; 4]);

    let mut digest = crate::shard::Digest::default();
    shards.iter().for_each(|shard| digest.add_shard(shard));
    let mut before = crate::shard::Digest::default();
    for bytes in [&first, &second] {
        let mut shard = Shard::new(stages());
        shard.load(bytes).unwrap();
        before.add_shard(&shard);
    }
    assert_eq!(digest, before);

    // Into more shards than there were, all but one slot into one of them; and back.
    let states: Vec<Vec<u8>> = shards.iter().map(|shard| shard.save(Vec::new())).collect();
    let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    let four = regroup(&stages, &states, &keys, 4, &|slot| if slot == 1 { 3 } else { 1 }).unwrap();
    assert_eq!(four.iter().map(|shard| shard.context().keys().len()).collect::<Vec<_>>(), [0, 4, 0, 1]);
    assert_eq!(four.iter().map(Shard::events).collect::<Vec<_>>(), [9, 10, 0, 0]);
    let four: Vec<Vec<u8>> = four.iter().map(|shard| shard.save(Vec::new())).collect();
    let four: Vec<&[u8]> = four.iter().map(Vec::as_slice).collect();
    let back = regroup(&stages, &four, &keys, 2, &even).unwrap();
    for (shard, state) in back.iter().zip(&states) {
        assert_eq!(shard.save(Vec::new()), *state);
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let keys = [name(0, 0), name(1, 0)];
    let (zero, one) = (state(&keys[..1], 2, 10), state(&keys[1..], 2, 10));
    assert!(regroup(&stages, &[&zero, &one], &keys, 2, &even).is_ok());

    assert_eq!(refused(&[], &keys), RegroupError::Empty { states: 0, shards: 2 });
    let nobody = regroup(&stages, &[&zero], &keys[..1], 0, &even).err();
    assert_eq!(nobody, Some(RegroupError::Empty { states: 1, shards: 0 }));
    let source = SnapshotError::Truncated { len: 3, min: 16 };
    assert_eq!(refused(&[&zero, &[1, 2, 3]], &keys), RegroupError::State { state: 1, source });
    let cut = &one[..one.len() - 1];
    assert!(matches!(refused(&[&zero, cut], &keys), RegroupError::State { state: 1, .. }));
    let three = regroup(&stages, &[&zero], &keys[..1], 1, &even).err();
    assert_eq!(three, Some(RegroupError::Shard { slot: 1, shard: 1, shards: 1 }));

    assert_eq!(refused(&[&zero, &zero], &keys[..1]), RegroupError::Twice { slot: 0 });
    let name = keys[0];
    assert_eq!(refused(&[&one], &keys), RegroupError::Missing { key: 0, name });
    let name = keys[1];
    assert_eq!(refused(&[&zero], &keys), RegroupError::Missing { key: 1, name });
    let both = state(&keys, 1, 10);
    let turned = [keys[1], keys[0]];
    assert_eq!(refused(&[&both], &turned), RegroupError::Missing { key: 0, name: keys[1] });
    let expected = RegroupError::Unknown { state: 1, found: 1, expected: 0 };
    assert_eq!(refused(&[&zero, &one], &keys[..1]), expected);

    let later = state(&keys[1..], 2, 20);
    assert_eq!(refused(&[&zero, &later], &keys), RegroupError::Disagree { state: 1, what: "watermarks" });
}

/// Two shards of one log, told something that only one of them hears.
fn apart(only: &[Event]) -> RegroupError {
    let keys = [name(0, 0), name(1, 0)];
    let mut shard = Shard::new(stages());
    shard.load(&state(&keys[1..], 2, 10)).unwrap();
    shard.process(only, &mut |_: &[Output]| {});
    refused(&[&state(&keys[..1], 2, 10), &shard.save(Vec::new())], &keys)
}

#[test]
fn shards_that_know_different_things_are_not_of_one_place() {
    let disagree = |what| RegroupError::Disagree { state: 1, what };
    assert_eq!(apart(&[control(kind::MARK, 0, 0, [2, 0])]), disagree("frames"));
    assert_eq!(apart(&[Event::control(kind::IDLE, 0, 0, 3, [0; 2])]), disagree("sources"));
    assert_eq!(apart(&[control(kind::GAP, 9, 0, [5, 4])]), disagree("declared losses"));
    // The end moves the watermark as well.
    assert_eq!(apart(&[control(kind::END, 0, 0, [0; 2])]), disagree("watermarks"));
    let within = apart(&[control(kind::MARK, 0, 4, [1, 0]), Event { kind: kind::TRADE, ..Event::default() }]);
    assert_eq!(within, RegroupError::WithinFrame { state: 1, left: 3 });
}

#[test]
fn who_does_not_know_how_says_so() {
    let whole = || vec![Stage::new("whole", 0, Box::new(Whole(Tally::default())) as Box<dyn Operator>)];
    let mut shard = Shard::new(whole());
    shard.process(&[control(kind::BARRIER, 0, 0, [1, 0])], &mut |_: &[Output]| {});
    let error = regroup(&whole, &[&shard.save(Vec::new())], &[], 2, &even).err().unwrap();
    assert_eq!(error, RegroupError::Stage { stage: "whole".to_owned(), source: ShareError::Indivisible });
    assert!(
        error.to_string().contains("`whole`") && error.to_string().contains("divided by keys"),
        "{error}"
    );
    // Another pipeline's states are none of this one's.
    let state = state(&[], 0, 0);
    let error = regroup(&whole, &[&state[..40]], &[], 1, &|_| 0).err().unwrap();
    assert!(matches!(error, RegroupError::State { state: 0, .. }), "{error}");
}

/// Of a stream that ended earlier under the same name every shard knows the last numbers, and goes on behind them.
#[test]
fn numbers_of_a_stream_that_ended_go_along() {
    let keys = [name(0, 0), name(1, 0)];
    let mut last = vec![0; SLOT_COUNT];
    (last[0], last[1], last[7]) = (100, 200, 300);
    let states: Vec<Vec<u8>> = keys
        .iter()
        .map(|key| {
            let mut shard = Shard::new(Vec::new());
            shard.restage(stages(), &|_| crate::shard::Legacy::Behind(last.clone().into()));
            let log = [
                control(kind::DEFINE, 0, 0, [*key, u64::from(slot_of(*key))]),
                control(kind::MARK, 0, 1, [1, 0]),
                Event { kind: kind::TRADE, ..Event::default() },
                control(kind::BARRIER, 0, 0, [1, 0]),
            ];
            shard.process(&log, &mut |_: &[Output]| {});
            shard.save(Vec::new())
        })
        .collect();
    let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    let shards = regroup(&stages, &states, &keys, 1, &|_| 0).unwrap();
    let accounts = shards[0].lanes()[0].1.accounts();
    assert_eq!([accounts[0].sequence, accounts[1].sequence, accounts[7].sequence], [101, 201, 300]);
}
