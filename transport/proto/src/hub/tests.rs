//! The hub against slow, obvious models.

use super::*;
use crate::frame::Frame;
use crate::subscription::{Conflation, Keys, LagPolicy};
use crate::wire::FrameBuffer;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use tidegate_engine::{BarState, name_hash, slot_of};

fn meta(name: &str) -> StreamMeta {
    StreamMeta { name: name.to_owned(), kind: StreamKind::Bars, columns: Vec::new() }
}

fn small(ring: usize) -> Hub {
    let options = HubOptions { ring_records: ring, lookback_records: 4, ..HubOptions::default() };
    Hub::new(vec![meta("bars.1s"), meta("bars.1m")], options).unwrap()
}

/// Numbers records as shards do.
#[derive(Default)]
struct Source {
    heads: HashMap<(u16, u16), u64>,
}

impl Source {
    fn record(&mut self, stream: u16, name: &str, ts: u64) -> Output {
        let hash = name_hash(name.as_bytes());
        let slot = slot_of(hash);
        let head = self.heads.entry((stream, slot)).or_default();
        *head += 1;
        let mut output = Output {
            name: hash,
            sequence: *head,
            ts,
            slot,
            stream,
            kind: output_kind::BAR,
            state: BarState::Final as u8,
            count: 16,
            ..Output::default()
        };
        output.words[0] = ts.saturating_sub(10);
        output
    }
}

/// What a reader was handed, in short.
#[derive(Default, Debug, PartialEq)]
struct Seen {
    past: Vec<Output>,
    live: Vec<Output>,
    /// Both, as they came.
    all: Vec<Output>,
    edges: BTreeMap<u16, Vec<(u16, u64)>>,
    losses: u64,
    expired: u64,
    conflated: u64,
    names: HashSet<String>,
    closed: Option<Close>,
}

impl Seen {
    fn loss(&mut self, loss: Loss) {
        match loss.cause {
            LossCause::Dropped => self.losses += loss.count,
            LossCause::Conflated => self.conflated += loss.count,
            LossCause::Expired => self.expired += loss.count,
        }
    }

    fn poll(&mut self, hub: &mut Hub, id: SubscriberId, now: MonoTime, max: usize) -> Polled {
        let polled = hub.poll(id, now, max, &mut |item| match item {
            Item::Record { name, output, past } => {
                assert_eq!(name_hash(name.as_bytes()), output.name);
                self.names.insert(name.to_owned());
                let output = Output { key: 0, ..*output };
                self.all.push(output);
                if past { self.past.push(output) } else { self.live.push(output) }
            }
            Item::Edge { stream, next } => {
                assert!(self.edges.insert(stream, next.to_vec()).is_none(), "one edge per stream");
            }
            Item::Loss(loss) => self.loss(loss),
            Item::Conflated(count) => self.conflated += count,
        });
        if let Polled::Closed(close) = &polled {
            self.closed.get_or_insert(close.clone()); // a second poll finds nobody
        }
        polled
    }

    fn drain(&mut self, hub: &mut Hub, id: SubscriberId, now: MonoTime) {
        while self.poll(hub, id, now, 7) == Polled::More {}
    }

    /// The same over frames; names must come before records.
    fn drain_frames(&mut self, hub: &mut Hub, id: SubscriberId, now: MonoTime) {
        let mut names = HashMap::new();
        loop {
            let mut frames = Vec::new();
            let polled = hub.poll_frames(id, now, 1_000, &mut frames);
            for bytes in frames {
                let mut buffer = FrameBuffer::new(1);
                assert_eq!(buffer.push(&bytes), bytes.len());
                let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
                match Frame::read(offset, &head, body).unwrap() {
                    Frame::Names(list) => {
                        names.extend(list.iter().map(|(hash, name)| (hash, name.to_owned())));
                    }
                    Frame::Records(records) => {
                        self.conflated += records.conflated;
                        for output in records.iter() {
                            self.names.insert(names[&output.name].clone());
                            self.all.push(output);
                            if records.past { self.past.push(output) } else { self.live.push(output) }
                        }
                    }
                    Frame::Edge(edge) => {
                        self.edges.insert(edge.stream, edge.iter().collect());
                    }
                    Frame::Loss(loss) => self.loss(loss),
                    other => panic!("{other:?}"),
                }
            }
            match polled {
                Polled::More => {}
                Polled::Idle { .. } => break,
                Polled::Closed(close) => {
                    self.closed.get_or_insert(close);
                    break;
                }
            }
        }
    }
}

const NAMES: [&str; 6] = ["BTCUSD", "BTCEUR", "ETHUSD", "ES", "NQ", "BT"];

fn covers(keys: &Keys, name: &str) -> bool {
    match keys {
        Keys::All => true,
        Keys::Some { names, prefixes } => {
            names.iter().any(|one| one == name) || prefixes.iter().any(|prefix| name.starts_with(&**prefix))
        }
    }
}

fn name_of(hash: u64) -> &'static str {
    NAMES.into_iter().find(|name| name_hash(name.as_bytes()) == hash).unwrap()
}

/// The newest record per key of what the model has, by event time and then arrival.
fn newest(records: &[Output]) -> Vec<Output> {
    let mut newest: Vec<Output> = Vec::new();
    for record in records {
        match newest.iter_mut().find(|held| (held.stream, held.name) == (record.stream, record.name)) {
            Some(held) if record.ts >= held.ts => *held = *record,
            Some(_) => {}
            None => newest.push(*record),
        }
    }
    newest
}

fn sorted(mut records: Vec<Output>) -> Vec<Output> {
    records.sort_by_key(|record| (record.stream, record.slot, record.sequence));
    records
}

#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<(u16, usize, u64)>),
    Poll(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0u16..2, 0..NAMES.len(), 0u64..40);
    let publish = proptest::collection::vec(record, 1..60).prop_map(Step::Publish);
    proptest::collection::vec(prop_oneof![publish, (1usize..80).prop_map(Step::Poll)], 1..40)
}

fn any_keys() -> impl Strategy<Value = Keys> {
    prop_oneof![
        Just(Keys::All),
        Just(Keys::of_patterns(["BTC*", "NQ"])),
        Just(Keys::of_patterns(["ES"])),
        Just(Keys::of_patterns(["BT"])),
    ]
}

fn any_subscription() -> impl Strategy<Value = Subscription> {
    let start = prop_oneof![
        Just(Start::Latest),
        Just(Start::Snapshot),
        (1u32..5).prop_map(Start::Lookback),
        (1u64..30).prop_map(|default| Start::Sequence { default, slots: Vec::new() }),
    ];
    let conflation =
        prop_oneof![Just(Conflation::None), Just(Conflation::Latest), Just(Conflation::Every(5))];
    let policy =
        prop_oneof![Just(LagPolicy::Conflate), Just(LagPolicy::DropOldest), Just(LagPolicy::Disconnect)];
    (any_keys(), start, conflation, policy, 0u64..60, prop::bool::ANY).prop_map(
        |(keys, start, conflation, policy, lag_budget, both)| Subscription {
            streams: if both { vec!["bars.1m".into(), "bars.1s".into()] } else { vec!["bars.1s".into()] },
            keys,
            start,
            conflation,
            policy,
            lag_budget,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// Whatever is asked for, whenever it is polled: what is handed over is what the model says, in order, and what is not is
    /// counted.
    #[test]
    fn a_reader_gets_what_it_was_promised(
        before in steps(), after in steps(), subscription in any_subscription(), ring in 64usize..200, frames in prop::bool::ANY,
    ) {
        let mut hub = small(ring);
        NAMES.iter().take(3).for_each(|name| hub.define(name));
        let mut source = Source::default();
        let mut all: Vec<Output> = Vec::new();
        let publish = |hub: &mut Hub, all: &mut Vec<Output>, source: &mut Source, batch: &[(u16, usize, u64)]| {
            let batch: Vec<Output> = batch.iter().map(|&(stream, name, ts)| source.record(stream, NAMES[name], ts)).collect();
            NAMES.iter().for_each(|name| hub.define(name));
            hub.publish(&batch);
            all.extend(batch);
        };
        for step in &before {
            if let Step::Publish(batch) = step {
                publish(&mut hub, &mut all, &mut source, batch);
            }
        }
        let known = all.len();
        let id = hub.subscribe(&subscription, MonoTime(0)).unwrap();
        let wants_stream = |output: &Output| subscription.streams.len() == 2 || output.stream == 0;
        let wants = |output: &&Output| wants_stream(output) && covers(&subscription.keys, name_of(output.name));
        let mut seen = Seen::default();
        let mut now = 0;
        for step in &after {
            now += 1_000_000;
            match step {
                Step::Publish(batch) => publish(&mut hub, &mut all, &mut source, batch),
                Step::Poll(max) if !frames => drop(seen.poll(&mut hub, id, MonoTime(now), *max)),
                Step::Poll(_) => {}
            }
            if let Some(stats) = hub.subscriber(id) {
                prop_assert_eq!(stats.imbalance(), 0, "{:?}", stats);
                prop_assert_eq!(hub.lag_max(), stats.lag);
            }
        }
        now += 10_000_000;
        if frames {
            seen.drain_frames(&mut hub, id, MonoTime(now));
        } else {
            seen.drain(&mut hub, id, MonoTime(now));
        }
        let Some(stats) = hub.subscriber(id) else {
            let close = seen.closed.expect("a reader only goes with a reason");
            prop_assert_eq!(close.code, CloseCode::LAG);
            prop_assert_eq!(subscription.policy, LagPolicy::Disconnect);
            return Ok(());
        };
        prop_assert_eq!(stats.imbalance(), 0, "{:?}", stats);
        prop_assert_eq!((stats.lag, stats.pending), (0, 0));
        prop_assert_eq!(stats.dropped, seen.losses);
        prop_assert_eq!(stats.conflated, seen.conflated);
        prop_assert_eq!(seen.edges.len(), subscription.streams.len());
        let live: Vec<Output> = all[known..].iter().filter(wants).copied().collect();
        let from_before: Vec<Output> = all[..known].iter().filter(wants).copied().collect();
        let want = match &subscription.start {
            Start::Sequence { default, .. } => {
                let asked: Vec<Output> = [&from_before[..], &live].concat();
                asked.into_iter().filter(|output| output.sequence >= *default).collect()
            }
            _ => live.clone(),
        };
        match &subscription.start {
            Start::Snapshot => prop_assert_eq!(sorted(seen.past.clone()), sorted(newest(&from_before))),
            Start::Latest => prop_assert!(seen.past.is_empty()),
            Start::Lookback(count) => {
                for stream in 0..2 {
                    for name in NAMES {
                        let of = |output: &&Output| output.stream == stream && output.name == name_hash(name.as_bytes());
                        let mut held: Vec<Output> = from_before.iter().filter(of).copied().collect();
                        held.sort_by_key(|output| output.ts);
                        // Each arrival pushes out the oldest, which may be itself; a stable sort does the same in the end.
                        let want = held.split_off(held.len().saturating_sub(*count as usize));
                        let got: Vec<Output> = seen.past.iter().filter(of).copied().collect();
                        prop_assert_eq!(got, want);
                    }
                }
            }
            Start::Sequence { .. } => {}
        }
        let got: Vec<Output> = match subscription.start {
            Start::Sequence { .. } => seen.all.clone(),
            _ => seen.live.clone(),
        };
        let conflating = subscription.conflation != Conflation::None;
        if subscription.keys == Keys::All || seen.expired == 0 {
            let gone = seen.losses + seen.conflated + seen.expired;
            prop_assert_eq!(got.len() as u64 + gone, want.len() as u64, "{:?}", stats);
        } else {
            prop_assert!(got.len() as u64 + seen.losses + seen.conflated <= want.len() as u64);
        }
        for stream in 0..2 {
            let of = |records: &[Output]| records.iter().filter(|output| output.stream == stream).copied().collect::<Vec<_>>();
            let (got, want) = (of(&got), of(&want));
            if conflating || subscription.policy == LagPolicy::Conflate {
                // The last word on every key is right.
                if seen.losses + seen.expired == 0 {
                    prop_assert_eq!(sorted(newest(&got)), sorted(newest(&want)));
                }
                prop_assert!(got.iter().all(|output| want.contains(output)));
            } else {
                // In order, and nothing invented or doubled.
                let mut rest = want.iter();
                prop_assert!(got.iter().all(|output| rest.any(|other| other == output)), "order of {:?}", got);
            }
        }
    }

    /// Frames and items say the same, and frames of readers that want the same are the same memory.
    #[test]
    fn frames_say_what_items_say(batches in steps(), subscription in any_subscription()) {
        let mut hub = small(4_096);
        let mut source = Source::default();
        NAMES.iter().for_each(|name| hub.define(name));
        let subscription = Subscription { lag_budget: 0, ..subscription };
        let (a, b) = (hub.subscribe(&subscription, MonoTime(0)).unwrap(), hub.subscribe(&subscription, MonoTime(0)).unwrap());
        for step in &batches {
            if let Step::Publish(batch) = step {
                let batch: Vec<Output> = batch.iter().map(|&(stream, name, ts)| source.record(stream, NAMES[name], ts)).collect();
                hub.publish(&batch);
            }
        }
        let (mut items, mut frames) = (Seen::default(), Seen::default());
        items.drain(&mut hub, a, MonoTime(1));
        frames.drain_frames(&mut hub, b, MonoTime(1));
        prop_assert_eq!(items, frames);
    }
}

#[test]
fn readers_of_everything_share_frames() {
    let (mut hub, mut source) = (small(1_024), Source::default());
    let ids: Vec<_> =
        (0..3).map(|_| hub.subscribe(&Subscription::to(["bars.1s"]), MonoTime(0)).unwrap()).collect();
    hub.define("ES");
    // The first poll tells the edge; from then on nothing is one's own.
    ids.iter().for_each(|&id| drop(hub.poll_frames(id, MonoTime(0), 1 << 20, &mut Vec::new())));
    let batch: Vec<Output> = (0..500).map(|ts| source.record(0, "ES", ts)).collect();
    hub.publish(&batch);
    let frames = ids.iter().map(|&id| {
        let mut out = Vec::new();
        assert_eq!(hub.poll_frames(id, MonoTime(0), 1 << 20, &mut out), Polled::Idle { due: None });
        out
    });
    let frames: Vec<Vec<Bytes>> = frames.collect();
    assert_eq!(frames[0].len(), 2, "500 records of 160 bytes");
    for other in &frames[1..] {
        assert_eq!(other.len(), 2);
        assert!(std::iter::zip(other, &frames[0]).all(|(one, two)| one.as_ptr() == two.as_ptr()));
    }
}

#[test]
fn a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice() {
    let (mut hub, mut source) = (small(1_024), Source::default());
    NAMES.iter().for_each(|name| hub.define(name));
    let publish = |hub: &mut Hub, source: &mut Source, count: usize| {
        let batch = (0..count).map(|at| source.record(0, NAMES[at % 5], at as u64)).collect::<Vec<_>>();
        hub.publish(&batch);
        batch
    };
    publish(&mut hub, &mut source, 100);
    let id = hub.subscribe(&Subscription::to(["bars.1s"]), MonoTime(0)).unwrap();
    let mut want = publish(&mut hub, &mut source, 90);
    let mut seen = Seen::default();
    seen.poll(&mut hub, id, MonoTime(0), 37);
    assert_eq!(hub.unsubscribe(id).unwrap().lag, 90 - 37);
    want.extend(publish(&mut hub, &mut source, 90));

    // What a client knows: the edge, moved on by each record.
    let mut next: HashMap<u16, u64> = seen.edges[&0].iter().copied().collect();
    for output in &seen.live {
        next.insert(output.slot, output.sequence + 1);
    }
    let slots = next.into_iter().map(|(slot, next)| (0, slot, next)).collect();
    let start = Start::Sequence { default: 1, slots };
    let again = hub.subscribe(&Subscription { start, ..Subscription::to(["bars.1s"]) }, MonoTime(0)).unwrap();
    let mut rest = Seen::default();
    rest.drain(&mut hub, again, MonoTime(0));
    let got = [seen.live, rest.all].concat();
    assert_eq!(got, want);
    assert_eq!((rest.expired, rest.losses), (0, 0));
}

#[test]
fn numbers_that_are_gone_are_declared() {
    let (mut hub, mut source) = (small(64), Source::default());
    hub.define("ES");
    let batch: Vec<Output> = (0..200).map(|ts| source.record(0, "ES", ts)).collect();
    hub.publish(&batch);
    for (keys, exact) in [(Keys::All, true), (Keys::of_patterns(["ES"]), false)] {
        let start = Start::Sequence { default: 11, slots: Vec::new() };
        let spec = Subscription { start, keys, ..Subscription::to(["bars.1s"]) };
        let id = hub.subscribe(&spec, MonoTime(0)).unwrap();
        let (mut expired, mut records) = (None, 0);
        while hub.poll(id, MonoTime(0), 1_000, &mut |item| match item {
            Item::Loss(loss) => expired = Some(loss),
            Item::Record { .. } => records += 1,
            _ => {}
        }) == Polled::More
        {}
        let retained = hub.stream_stats(0).unwrap().retained;
        let count = 200 - 10 - retained;
        assert_eq!(expired, Some(Loss { stream: 0, cause: LossCause::Expired, exact, count }));
        assert_eq!(records, retained);
    }
}

#[test]
fn amendments_replace_and_do_not_hide_what_is_newer() {
    let (mut hub, mut source) = (small(64), Source::default());
    hub.define("ES");
    let mut records: Vec<Output> = (1..=6).map(|at| source.record(0, "ES", at * 10)).collect();
    let mut amended = source.record(0, "ES", 50);
    (amended.state, amended.words[15]) = (BarState::Amended as u8, 1);
    records.push(amended);
    hub.publish(&records);
    assert_eq!(hub.latest(0, "ES").map(|output| output.ts), Some(60));
    let kept: Vec<(u64, u64)> =
        hub.lookback(0, "ES", 3).map(|output| (output.ts, output.words[15])).collect();
    assert_eq!(kept, [(40, 0), (50, 1), (60, 0)]);
    assert_eq!(hub.lookback(0, "nobody", 3).count() + hub.lookback(9, "ES", 3).count(), 0);
}

#[test]
fn events_of_a_key_are_counted_once_whatever_becomes_of_its_bars() {
    const TRADES: usize = 11;
    let (mut hub, mut source) = (small(64), Source::default());
    ["ES", "NQ"].iter().for_each(|name| hub.define(name));
    let mut bar = |name: &str, ts: u64, trades: u64, amends: bool| {
        let mut output = source.record(0, name, ts);
        output.words[TRADES] = trades;
        if amends {
            output.state = BarState::Amended as u8;
        }
        assert_eq!(output.bar().trades, trades);
        output
    };
    // Nine bars, of which four are kept; one gains two trades, one loses one, and one is amended that is no longer kept.
    let mut records: Vec<Output> = (1..=9).map(|at| bar("ES", at * 10, 10, false)).collect();
    records.extend([bar("ES", 80, 12, true), bar("ES", 70, 9, true), bar("ES", 10, 11, true)]);
    records.extend([bar("NQ", 90, 5, false), Output { kind: output_kind::LATE, ..bar("ES", 90, 99, false) }]);
    hub.publish(&records);
    let es = hub.key_stats(0, "ES").unwrap();
    assert_eq!((es.records, es.kept, es.events, es.all_events), (12, 4, 92, 97));
    assert_eq!((es.newest.ts, es.slot_events), (90, 92));
    assert_eq!(
        (hub.key_stats(0, "NQ").unwrap().events, hub.key_stats(1, "NQ"), hub.key_stats(9, "NQ")),
        (5, None, None)
    );
    assert_eq!(hub.key_stats(0, "nobody"), None);
}

#[test]
fn keys_are_searched_in_order() {
    let mut hub = small(64);
    NAMES.iter().for_each(|name| hub.define(name));
    let names = |search, after, max| -> Vec<String> {
        hub.keys(None, search, after, max).iter().map(|info| info.name.to_string()).collect()
    };
    assert_eq!(names(KeySearch::All, None, 2), ["BT", "BTCEUR"]);
    assert_eq!(names(KeySearch::All, Some("BTCEUR"), 9), ["BTCUSD", "ES", "ETHUSD", "NQ"]);
    assert_eq!(names(KeySearch::Prefix("BTC"), None, 9), ["BTCEUR", "BTCUSD"]);
    assert_eq!(names(KeySearch::Prefix("BTC"), Some("BTCEUR"), 9), ["BTCUSD"]);
    assert_eq!(names(KeySearch::Contains("usd"), None, 9), ["BTCUSD", "ETHUSD"]);
    assert_eq!(names(KeySearch::Prefix("X"), None, 9), [""; 0]);
}

#[test]
fn keys_are_listed_by_stream() {
    let (mut hub, mut source) = (small(64), Source::default());
    NAMES.iter().for_each(|name| hub.define(name));
    let records = [source.record(0, "NQ", 10), source.record(1, "ES", 10), source.record(0, "BTCUSD", 20)];
    hub.publish(&records);
    let names = |stream, search, after, max| -> Vec<String> {
        hub.keys(Some(stream), search, after, max).iter().map(|info| info.name.to_string()).collect()
    };
    let count = |stream| hub.stream_stats(stream).map(|stats| stats.keys);
    assert_eq!((count(0), count(1), count(9)), (Some(2), Some(1), None));
    assert_eq!(names(0, KeySearch::All, None, 9), ["BTCUSD", "NQ"]);
    assert_eq!(names(0, KeySearch::All, None, 1), ["BTCUSD"]);
    assert_eq!(names(0, KeySearch::All, Some("BTCUSD"), 1), ["NQ"]);
    assert_eq!(names(0, KeySearch::Prefix("BT"), None, 9), ["BTCUSD"]);
    assert_eq!(names(1, KeySearch::Contains("s"), None, 9), ["ES"]);
    assert_eq!(names(9, KeySearch::All, None, 9), [""; 0]);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let mut hub = small(64);
    let mut refused = |spec: Subscription| hub.subscribe(&spec, MonoTime(0)).unwrap_err().to_string();
    assert_eq!(
        refused(Subscription::to(["bars.2s"])),
        "there is no stream `bars.2s`; there are bars.1s, bars.1m"
    );
    assert_eq!(refused(Subscription::default()), "name at least one stream; there are bars.1s, bars.1m");
    assert_eq!(refused(Subscription::to(["bars.1s", "bars.1s"])), "stream `bars.1s` is asked for twice");
    let lookback = Subscription { start: Start::Lookback(5), ..Subscription::to(["bars.1s"]) };
    assert_eq!(refused(lookback), "lookback is 5, allowed are 1 to 4");
    let every = Subscription { conflation: Conflation::Every(0), ..Subscription::to(["bars.1s"]) };
    assert_eq!(refused(every), "every_ms is 0, allowed are 1 to 3600000");
    let twice = Hub::new(vec![meta("a"), meta("a")], HubOptions::default()).err();
    assert_eq!(twice, Some(HubError::Twice { name: "a".into() }));
}

#[test]
fn readers_and_keys_are_bounded() {
    let options =
        HubOptions { subscribers_max: 2, keys_max: 2, past_records_max: 1, ..HubOptions::default() };
    let mut hub = Hub::new(vec![meta("bars.1s")], options).unwrap();
    let spec = Subscription::to(["bars.1s"]);
    let first = hub.subscribe(&spec, MonoTime(0)).unwrap();
    hub.subscribe(&spec, MonoTime(0)).unwrap();
    assert_eq!(hub.subscribe(&spec, MonoTime(0)), Err(SubscriptionError::Busy { max: 2 }));
    assert!(hub.unsubscribe(first).is_some() && hub.unsubscribe(first).is_none());
    assert!(hub.subscribe(&spec, MonoTime(0)).is_ok(), "a place was free again");
    assert!(
        matches!(hub.poll(first, MonoTime(0), 9, &mut |_| {}), Polled::Closed(_)),
        "but not for the old id"
    );

    NAMES.iter().for_each(|name| hub.define(name));
    assert_eq!((hub.stats().keys, hub.stats().keys_refused), (2, 4));
    let mut source = Source::default();
    let records = [source.record(0, "NQ", 1), source.record(0, "BTCUSD", 1), source.record(0, "BTCEUR", 1)];
    hub.publish(&records);
    assert_eq!(hub.stats().unnamed, 1);
    let start = Start::Snapshot;
    let reader = hub.subscribers().next().map(|stats| stats.id).unwrap();
    hub.unsubscribe(reader);
    let refused = hub.subscribe(&Subscription { start, ..spec }, MonoTime(0));
    assert_eq!(refused, Err(SubscriptionError::TooMuch { records: 2, max: 1 }));
}

#[test]
fn conflation_waits_for_its_time_and_counts() {
    let (mut hub, mut source) = (small(1_024), Source::default());
    hub.define("ES");
    let spec = Subscription { conflation: Conflation::Every(100), ..Subscription::to(["bars.1s"]) };
    let id = hub.subscribe(&spec, MonoTime(0)).unwrap();
    let mut seen = Seen::default();
    hub.publish(&[source.record(0, "ES", 1)]);
    assert_eq!(seen.poll(&mut hub, id, MonoTime(0), 9), Polled::Idle { due: None });
    let batch: Vec<Output> = (2..=50).map(|ts| source.record(0, "ES", ts)).collect();
    hub.publish(&batch);
    let due = Some(MonoTime(100_000_000));
    assert_eq!(seen.poll(&mut hub, id, MonoTime(50_000_000), 9), Polled::Idle { due });
    assert_eq!(seen.live.len(), 1);
    assert_eq!(seen.poll(&mut hub, id, MonoTime(100_000_000), 9), Polled::Idle { due: None });
    assert_eq!((seen.live.len(), seen.live[1].ts, seen.conflated), (2, 50, 48));
}

#[test]
fn bounds_that_change_while_it_runs_hold_from_then_on() {
    let (mut hub, mut source) = (small(1_024), Source::default());
    let options = HubOptions { lookback_records: 32, ..hub.options };
    hub.set_options(options).unwrap();
    hub.define("ES");
    let mut publish = |hub: &mut Hub, stamps: std::ops::Range<u64>| {
        let batch: Vec<Output> = stamps.map(|ts| source.record(0, "ES", ts)).collect();
        hub.publish(&batch);
    };
    publish(&mut hub, 100..150);
    let reader = hub.subscribe(&Subscription::to(["bars.1s"]), MonoTime(0)).unwrap();
    assert_eq!(hub.lookback(0, "ES", 1_000).count(), 32);
    let mut bad = HubOptions { lookback_records: 0, subscribers_max: 1, ..options };
    assert!(matches!(hub.set_options(bad), Err(HubError::Option { option: "lookback_records", .. })));
    assert_eq!(hub.options, options, "nothing changed");
    // Fewer: with the next record. Rings and readers stay what they are.
    bad.lookback_records = 4;
    bad.ring_records = 64;
    hub.set_options(bad).unwrap();
    assert_eq!(hub.options.ring_records, options.ring_records);
    publish(&mut hub, 7..8);
    let kept = |hub: &Hub| hub.lookback(0, "ES", 1_000).map(|output| output.ts).collect::<Vec<_>>();
    assert_eq!(kept(&hub), [146, 147, 148, 149], "older than what is kept");
    publish(&mut hub, 150..151);
    assert_eq!(kept(&hub), [147, 148, 149, 150]);
    assert_eq!(hub.stats().lookback, 3, "beyond the one each key has");
    assert!(matches!(
        hub.subscribe(&Subscription::to(["bars.1s"]), MonoTime(0)),
        Err(SubscriptionError::Busy { max: 1 })
    ));
    let mut seen = Seen::default();
    seen.drain(&mut hub, reader, MonoTime(1));
    assert_eq!(seen.live.len(), 2);
    // More again, and fewer with a record that is newer than all.
    hub.set_options(options).unwrap();
    publish(&mut hub, 200..250);
    assert_eq!(hub.lookback(0, "ES", 1_000).count(), 32);
    hub.set_options(bad).unwrap();
    publish(&mut hub, 250..251);
    assert_eq!(kept(&hub), [247, 248, 249, 250]);
    assert_eq!(hub.stats().lookback, 3);
}

/// Two hubs with slots of their own become the hub that had all of it; a reader that comes back finds no gap.
#[test]
fn the_pasts_of_two_groups_make_one() {
    let names: Vec<String> = (0..12).map(|at| format!("K{at}")).collect();
    let group = |name: &str| usize::from(slot_of(name_hash(name.as_bytes())) / 2_048);
    let (mut whole, mut parts, mut source) = (small(1_024), [small(1_024), small(1_024)], Source::default());
    for name in &names {
        whole.define(name);
        parts[group(name)].define(name);
    }
    for at in 0..600u64 {
        let name = &names[(at % 12) as usize];
        let record = source.record((at % 2) as u16, name, 100 + at);
        whole.publish(&[record]);
        parts[group(name)].publish(&[record]);
    }
    assert!(parts.iter().all(|part| part.streams[0].head() > 0), "both have some");
    parts[0].set_watermark(650);
    parts[1].set_watermark(640);
    let [mut both, other] = parts;
    both.absorb(&other).unwrap();
    assert_eq!(both.watermark(), 640);
    for stream in 0..2 {
        let (mut of_both, mut of_whole) = (past_of(&both, stream, &names), past_of(&whole, stream, &names));
        for ring in [&mut of_both.1, &mut of_whole.1] {
            ring.sort_by_key(|output| (output.slot, output.sequence));
        }
        assert_eq!(of_both, of_whole);
        let (state, expected) = (&both.streams[usize::from(stream)], &whole.streams[usize::from(stream)]);
        assert_eq!((&state.heads, &state.evicted), (&expected.heads, &expected.evicted));
        assert_eq!((state.newest, state.keyed), (expected.newest, expected.keyed));
    }
    let from = Subscription {
        start: crate::subscription::Start::Sequence { default: 10, slots: Vec::new() },
        ..Subscription::to(["bars.1s"])
    };
    let records = |hub: &mut Hub| {
        let mut seen = Seen::default();
        let reader = hub.subscribe(&from, MonoTime(0)).unwrap();
        seen.drain(hub, reader, MonoTime(1));
        seen.all.sort_by_key(|output| (output.slot, output.sequence));
        (seen.all, seen.losses, seen.expired)
    };
    assert_eq!(records(&mut both), records(&mut whole));
    // Barriers of two logs are counted apart.
    let marker = |barrier| Output { kind: output_kind::BARRIER, ts: barrier, ..Output::default() };
    let second = (1 << 48) + 1;
    both.publish(&[marker(second), marker(1)]);
    assert!(
        both.is_past(1, 1) && both.is_past(second, 1) && !both.is_past(2, 1) && !both.is_past(second + 1, 1)
    );
}

/// What a hub has of a stream: the newest place, the ring's records, and each key's history; of windows that end at one instant in
/// the order of their last revisions.
fn past_of(hub: &Hub, stream: u16, names: &[String]) -> (u64, Vec<Output>, Vec<Vec<Output>>) {
    let plain = |output: &Output| Output { key: 0, ..*output };
    let state = &hub.streams[usize::from(stream)];
    let history = |name: &String| {
        let mut history: Vec<Output> = hub.lookback(stream, name, 99).map(plain).collect();
        history.sort_by_key(|output| (output.ts, output.sequence));
        history
    };
    (state.head(), state.ring.iter().map(plain).collect(), names.iter().map(history).collect())
}

proptest! {
    /// Copied in pieces while it goes on, and restored as of a barrier: with what came behind the barrier published again it is
    /// the hub that was never interrupted, but that its ring may reach back a little less.
    #[test]
    fn a_past_copied_on_the_way_is_that_of_its_barrier(
        before in proptest::collection::vec((0u16..2, 0usize..9, 0u64..4, proptest::bool::ANY), 0..300),
        behind in proptest::collection::vec((0u16..2, 0usize..9, 0u64..4, proptest::bool::ANY), 0..120),
        step in 1usize..40,
    ) {
        let names: Vec<String> = (0..9).map(|at| format!("K{at}")).collect();
        let (mut hub, mut source, mut now) = (small(64), Source::default(), 100);
        names.iter().for_each(|name| hub.define(name));
        let mut make = |source: &mut Source, &(stream, name, later, amends): &(u16, usize, u64, bool)| {
            // A window is told anew by amending it only.
            now += if amends { later } else { later.max(1) };
            let mut output = source.record(stream, &names[name], now);
            if amends {
                // Of a window that closed a little before.
                (output.ts, output.state) = (now - 2, BarState::Amended as u8);
                output.words[0] = output.ts - 10;
            }
            output
        };
        for act in &before {
            hub.publish(&[make(&mut source, act)]);
        }
        let marker = |barrier| Output { kind: output_kind::BARRIER, ts: barrier, ..Output::default() };
        prop_assert!(!hub.is_past(5, 2));
        hub.publish(&[marker(5)]);
        prop_assert!(!hub.is_past(5, 2), "one of two shards");
        hub.publish(&[marker(5)]);
        prop_assert!(hub.is_past(5, 2) && hub.is_past(4, 2) && !hub.is_past(6, 2));
        let heads: Vec<Vec<u64>> = (0..2u16)
            .map(|stream| (0..SLOT_COUNT as u16).map(|slot| source.heads.get(&(stream, slot)).copied().unwrap_or(0)).collect())
            .collect();
        let published: Vec<u64> = (0..2).map(|stream| hub.streams[stream].head()).collect();

        let tail: Vec<Output> = behind.iter().map(|act| make(&mut source, act)).collect();
        let mut rest = tail.chunks(step);
        let mut pasts = Vec::new();
        for stream in 0..2 {
            let (mut ring, mut place) = (Vec::new(), Some(u64::MAX));
            while let Some(before) = place {
                let mut piece = Vec::new();
                place = hub.copy_ring(stream, before, 7, &|_| true, &mut piece);
                ring.push(piece);
                rest.next().into_iter().for_each(|records| hub.publish(records));
            }
            ring.reverse();
            let (mut histories, mut key) = (Vec::new(), Some(0));
            while let Some(from) = key {
                let mut piece = Vec::new();
                key = hub.copy_histories(stream, from, 5, &|_| true, &mut piece);
                histories.push(piece);
                rest.next().into_iter().for_each(|records| hub.publish(records));
            }
            pasts.push((ring, histories));
        }
        rest.for_each(|records| hub.publish(records));

        let mut again = small(64);
        names.iter().for_each(|name| again.define(name));
        for (stream, (ring, histories)) in (0u16..).zip(&pasts) {
            let at = usize::from(stream);
            let ring: Vec<&[u8]> = ring.iter().map(Vec::as_slice).collect();
            let histories: Vec<&[u8]> = histories.iter().map(Vec::as_slice).collect();
            let past = StreamPast {
                heads: &heads[at],
                published: published[at],
                ring: &ring,
                histories: &histories,
            };
            again.restore(stream, past).unwrap();
            let short = StreamPast { heads: &heads[at][1..], ..past };
            prop_assert_eq!(small(64).restore(stream, short), Err(PastError::Slots(SLOT_COUNT - 1)));
        }
        again.publish(&tail);
        for stream in 0..2 {
            let (head, ring, histories) = past_of(&again, stream, &names);
            let (calm_head, calm_ring, calm_histories) = past_of(&hub, stream, &names);
            prop_assert_eq!(head, calm_head);
            prop_assert_eq!(&histories, &calm_histories);
            let least = ring.len().min(calm_ring.len());
            prop_assert_eq!(&ring[ring.len() - least..], &calm_ring[calm_ring.len() - least..]);
            prop_assert!(least + behind.len() + 8 >= calm_ring.len(), "{} of {}", ring.len(), calm_ring.len());
            let (state, calm) = (&again.streams[usize::from(stream)], &hub.streams[usize::from(stream)]);
            prop_assert_eq!(&state.heads, &calm.heads);
            prop_assert_eq!((state.newest, state.keyed), (calm.newest, calm.keyed));
            for (slot, evicted) in state.evicted.iter().enumerate() {
                let first = state.ring.iter().find(|output| usize::from(output.slot) == slot);
                let expected = first.map_or(state.heads[slot], |output| output.sequence - 1);
                prop_assert_eq!(*evicted, expected, "slot {}", slot);
            }
        }
        prop_assert_eq!(again.stats().lookback, hub.stats().lookback);
        let stray = StreamPast { heads: &heads[0], published: 0, ring: &[&[1, 2, 3]], histories: &[] };
        prop_assert_eq!(small(64).restore(1, stray), Err(PastError::Record { stream: 1, left: 3 }));
        prop_assert_eq!(small(64).restore(2, stray), Err(PastError::Stream(2)));
    }
}

/// What a reader that wants everything by number is handed of a stream until it is closed, in the hub's own order.
fn numbers_until_closed(hub: &mut Hub, id: SubscriberId, seen: &mut Vec<(u16, u64)>) -> Option<Close> {
    loop {
        let polled = hub.poll(id, MonoTime(0), 5, &mut |item| match item {
            Item::Record { output, .. } => seen.push((output.stream, output.sequence)),
            Item::Loss(loss) => panic!("{loss:?}"),
            _ => {}
        });
        match polled {
            Polled::More => {}
            Polled::Idle { .. } => return None,
            Polled::Closed(close) => return Some(close),
        }
    }
}

#[test]
fn streams_change_while_readers_read() {
    let (mut hub, mut source) = (small(64), Source::default());
    hub.define("ES");
    let publish = |hub: &mut Hub, source: &mut Source, stream: u16, count: u64| {
        let batch: Vec<Output> = (0..count).map(|ts| source.record(stream, "ES", ts)).collect();
        hub.publish(&batch);
    };
    publish(&mut hub, &mut source, 0, 3);
    publish(&mut hub, &mut source, 1, 4);
    let everything = |stream: &str| {
        let start = Start::Sequence { default: 1, slots: Vec::new() };
        Subscription { start, ..Subscription::to([stream]) }
    };
    let stays = hub.subscribe(&everything("bars.1s"), MonoTime(0)).unwrap();
    let leaves = hub.subscribe(&everything("bars.1m"), MonoTime(0)).unwrap();
    let idle = hub.subscribe(&everything("bars.1m"), MonoTime(0)).unwrap();
    let mut got = Vec::new();
    assert_eq!(numbers_until_closed(&mut hub, idle, &mut got), None, "it has everything there is");
    assert_eq!(got.len(), 4);

    // `bars.1m` changes, `hosts.1m` comes.
    assert_eq!(
        hub.announce(&[1], vec![meta("bars.1m"), meta("hosts.1m")]),
        Ok(Announced { first: 2, behind: Vec::new() })
    );
    assert_eq!((hub.stream("bars.1m"), hub.stream("hosts.1m")), (Some(1), None), "nobody can ask yet");
    // A shard that is ahead: its numbers go on from the old stream's.
    source.heads.extend(
        source
            .heads
            .clone()
            .into_iter()
            .filter(|((stream, _), _)| *stream == 1)
            .map(|((_, slot), head)| ((2, slot), head)),
    );
    publish(&mut hub, &mut source, 2, 2);
    publish(&mut hub, &mut source, 0, 1);
    hub.switch(&[1]);
    assert_eq!((hub.stream("bars.1m"), hub.stream("hosts.1m")), (Some(2), Some(3)));
    assert_eq!(
        hub.streams().map(|meta| meta.name.as_str()).collect::<Vec<_>>(),
        ["bars.1s", "bars.1m", "hosts.1m"]
    );
    assert_eq!(hub.stream_stats(2).unwrap().published, 6, "the stream's count goes on");
    assert!(hub.latest(1, "ES").is_none() && hub.latest(2, "ES").is_some());

    // Who reads on notices nothing.
    let mut got = Vec::new();
    assert_eq!(numbers_until_closed(&mut hub, stays, &mut got), None);
    assert_eq!(got, [(0, 1), (0, 2), (0, 3), (0, 4)]);
    // Who was behind gets what is left first; both are told.
    let mut got = Vec::new();
    let close = numbers_until_closed(&mut hub, leaves, &mut got).expect("it ends");
    assert_eq!((got, close.code), ((1..=4).map(|number| (1, number)).collect(), CloseCode::CHANGED));
    assert!(hub.subscriber(leaves).is_none());
    let close = numbers_until_closed(&mut hub, idle, &mut Vec::new()).expect("it ends");
    assert_eq!(close.code, CloseCode::CHANGED);
    // The way back is the next number, and numbers that went with the old stream are declared.
    let slot = slot_of(name_hash(b"ES"));
    for (next, expired, records) in [(5, 0, 2), (2, 3, 2)] {
        let start = Start::Sequence { default: 1, slots: vec![(0, slot, next)] };
        let spec = Subscription { start, ..Subscription::to(["bars.1m"]) };
        let id = hub.subscribe(&spec, MonoTime(0)).unwrap();
        let mut seen = Seen::default();
        seen.drain(&mut hub, id, MonoTime(0));
        assert_eq!((seen.expired, seen.all.len()), (expired, records), "from {next}");
        assert!(seen.all.iter().all(|output| output.stream == 2));
    }
    // Records of a stream that has ended are a bug of whoever publishes, and counted.
    publish(&mut hub, &mut source, 1, 1);
    assert_eq!(hub.stats().strays, 1);
    assert_eq!(hub.stream_stats(1).unwrap().retained, 0, "its memory is given back");

    // One that comes back later begins behind the one that left.
    assert!(hub.announce(&[2], Vec::new()).is_ok());
    hub.switch(&[2]);
    assert_eq!(hub.stream("bars.1m"), None);
    let back = hub.announce(&[], vec![meta("bars.1m")]).unwrap();
    assert_eq!((back.first, back.behind.len(), back.behind[0].1[usize::from(slot)]), (4, 1, 6));
    hub.switch(&[]);
    let start = Start::Sequence { default: 1, slots: vec![(0, slot, 5)] };
    let id = hub.subscribe(&Subscription { start, ..Subscription::to(["bars.1m"]) }, MonoTime(0)).unwrap();
    let mut seen = Seen::default();
    seen.drain(&mut hub, id, MonoTime(0));
    assert_eq!((seen.expired, seen.all.len()), (2, 0), "what went with it is declared");

    assert_eq!(hub.announce(&[1], Vec::new()), Err(HubError::NoStream { number: 1 }));
    assert_eq!(hub.announce(&[], vec![meta("bars.1s")]), Err(HubError::Twice { name: "bars.1s".into() }));
    let many = (0..Subscription::STREAMS_MAX).map(|at| meta(&format!("s{at}"))).collect();
    assert!(matches!(hub.announce(&[], many), Err(HubError::Option { option: "streams", .. })));
    assert!(matches!(
        hub.announce(&[0, 3, 4], Vec::new()),
        Err(HubError::Option { option: "streams", found: 0, .. })
    ));
}

#[test]
fn a_tap_copies_what_is_published_of_its_streams_once_and_counts_what_it_could_not() {
    let mut hub = small(64);
    let mut source = Source::default();
    hub.define("A");
    let record = |source: &mut Source, stream, ts| source.record(stream, "A", ts);
    hub.publish(&[record(&mut source, 1, 60)]);
    let tap = hub.tap(&[1], 3);
    // Another reader has its own, and is not touched by what becomes of the first.
    let other = hub.tap(&[0, 1], 64);
    let mut past = Vec::new();
    hub.lookback_all(1, 4, &mut |name, output| past.push((name.to_owned(), output.ts)));
    assert_eq!(past, [("A".to_owned(), 60)]);
    for at in 2..=5 {
        hub.publish(&[record(&mut source, 0, at), record(&mut source, 1, 60 * at)]);
    }
    let ends: Vec<u64> = hub.tapped(tap).unwrap().drain(..).map(|output| output.ts).collect();
    assert_eq!((ends, hub.tap_lost(tap)), (vec![120, 180, 240], 1));
    hub.publish(&[record(&mut source, 1, 360)]);
    assert_eq!((hub.tapped(tap).unwrap().len(), hub.tap_lost(tap)), (1, 1));
    hub.untap(tap);
    assert!(hub.tapped(tap).is_none() && hub.tap_lost(tap) == 0);
    assert_eq!((hub.tapped(other).unwrap().len(), hub.tap_lost(other)), (9, 0));
}

/// Readers look back on the last revision, whoever derives something from bars on the first: here, and in what begins with the past of this.
#[test]
fn a_tap_is_told_of_amended_bars_as_they_first_became_final() {
    let mut hub = small(64);
    let mut source = Source::default();
    hub.define("A");
    let mut bar = |ts: u64, close: i64, state: BarState| {
        let mut bar = Output { state: state as u8, ..source.record(1, "A", ts) };
        // Where its close is, and how many trades it has.
        (bar.words[4], bar.words[11]) = (close as u64, 1);
        bar
    };
    for (ts, close, state) in [
        (60, 5, BarState::Final),
        (120, 6, BarState::Final),
        (60, 7, BarState::Amended),
        (60, 8, BarState::Amended),
        (180, 9, BarState::Final),
        (180, 10, BarState::Amended),
    ] {
        hub.publish(&[bar(ts, close, state)]);
    }
    let closes = |hub: &Hub| {
        let mut firsts = Vec::new();
        hub.lookback_all(1, 9, &mut |_, output| firsts.push((output.ts, output.bar().close)));
        let newest: Vec<_> = hub.lookback(1, "A", 9).map(|output| (output.ts, output.bar().close)).collect();
        (newest, firsts)
    };
    let wanted = (vec![(60, 8), (120, 6), (180, 10)], vec![(60, 5), (120, 6), (180, 9)]);
    assert_eq!(closes(&hub), wanted);
    let mut again = small(64);
    again.absorb(&hub).unwrap();
    assert_eq!(closes(&again), wanted);
    // What left goes for good.
    for at in 4..200 {
        hub.publish(&[bar(60 * at, 1, BarState::Final), bar(60 * at, 2, BarState::Amended)]);
    }
    let (newest, firsts) = closes(&hub);
    assert!(newest.iter().all(|(_, close)| *close == 2) && firsts.iter().all(|(_, close)| *close == 1));
    assert_eq!((newest.len(), firsts.len()), (4, 4));
}
