//! Shards divided anew at any barrier go on as if they had never been divided: every stage, any log, any assignment of slots.

use crate::anomaly::AnomalyAnalyzer;
use crate::bars::{BarOptions, BarSpec, LatePolicy, Measure, MeasureBars, TimeBars};
use crate::hosts::{HostOptions, HostWindows};
use crate::indicators::IndicatorAnalyzer;
use crate::regime::RegimeAnalyzer;
use crate::rollup::{RollUp, RollUpOptions};
use crate::session::{SessionBars, SessionLate, SessionOptions};
use crate::sliding::SlidingBars;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidegate_engine::{
    AnalyzerStage, Digest, Event, FlowPayload, FullPolicy, Ledger, NamePayload, Operator, Output, PartError,
    PartHead, Placement, Price, Receiver, Router, SLOT_COUNT, Shard, Size, Stage, WindowWidth, flag, kind,
    output_kind, regroup, ring, slot_of,
};

const WIDTH: u64 = 1_000;
const HORIZON: u64 = 2_500;
/// Names share slots, so that the order within one can go wrong.
const SLOTS: [u16; 5] = [0, 1, 2, 1_000, 4_095];

fn width(ns: u64) -> WindowWidth {
    WindowWidth::from_ns(ns).unwrap()
}

fn options(late: LatePolicy) -> BarOptions {
    BarOptions { late, horizon_ns: HORIZON, history: true, history_ns: 4_000, ..BarOptions::default() }
}

fn rolled(stream: u16, slice: u64, slices: u32) -> RollUpOptions {
    RollUpOptions { stream, slice: width(slice), slices, step: slices, horizon: 3 }
}

fn roll_up(name: &str, number: u16, over: u16, slice: u64) -> AnalyzerStage {
    AnalyzerStage::new(name, number, Box::new(RollUp::new(rolled(over, slice, 4)).unwrap()))
}

fn indicators(number: u16, over: u16) -> AnalyzerStage {
    let specs = ["sma:5", "rsi:14", "ema:4", "macd:3:6:4", "bb:5:2", "atr:3", "vwap:4"];
    let specs: Vec<_> = specs.iter().map(|text| text.parse().unwrap()).collect();
    AnalyzerStage::new("indicators", number, Box::new(IndicatorAnalyzer::new(over, &specs).unwrap()))
}

fn anomaly(number: u16, over: u16) -> AnalyzerStage {
    AnalyzerStage::new("anomaly", number, Box::new(AnomalyAnalyzer::new(over, "volume".parse().unwrap())))
}

fn regime(number: u16, over: u16) -> AnalyzerStage {
    AnalyzerStage::new("regime", number, Box::new(RegimeAnalyzer::new(over, "hmm:2".parse().unwrap())))
}

/// One of each.
fn stages() -> Vec<Stage> {
    let stage = |name: &str, number, operator: Box<dyn Operator>| Stage::new(name, number, operator);
    let sliding = RollUpOptions { step: 1, ..rolled(0, WIDTH / 2, 3) };
    let sessions = SessionOptions { gap: width(300), late: SessionLate::Side, open_max: 4 };
    vec![
        stage("time", 0, Box::new(TimeBars::new(width(WIDTH), options(LatePolicy::Amend))))
            .with(roll_up("rolled", 1, 0, WIDTH).with(roll_up("again", 2, 1, 4 * WIDTH)))
            .with(indicators(3, 0)),
        stage("side", 4, Box::new(TimeBars::new(width(700), options(LatePolicy::Side)))),
        // So short that a key has enough of them for every model.
        stage("ticks", 5, Box::new(MeasureBars::new(Measure::Ticks(2), options(LatePolicy::Amend))))
            .with(regime(6, 5))
            .with(anomaly(7, 5)),
        stage("volume", 8, "3v".parse::<BarSpec>().unwrap().operator(options(LatePolicy::Amend)))
            .with(indicators(9, 8)),
        stage("sessions", 10, Box::new(SessionBars::new(sessions))),
        stage("sliding", 11, Box::new(SlidingBars::new(sliding, options(LatePolicy::Amend)).unwrap())),
        stage("hosts", 12, Box::new(HostWindows::new(HostOptions { width: width(WIDTH), open_max: 3 }))),
        // So long that a host's sketches are taken.
        stage("long", 13, Box::new(HostWindows::new(HostOptions { width: width(64 * WIDTH), open_max: 3 }))),
    ]
}

/// What comes.
#[derive(Debug, Clone)]
enum Act {
    /// Trades and flows of a source: key, how far behind its time, price, size, and what to do with it.
    Frame(u16, Vec<(u32, u64, u64, u64, u8)>),
    /// Time passes.
    Step(u64),
    Idle(u16),
    Gap(u16, u64),
    Define(u16),
    /// The shards are divided anew: how many, and how.
    Divide(u32, Vec<u32>),
}

fn frame() -> impl Strategy<Value = Act> {
    let event = (0u32..12, 0u64..4_000, 0u64..300, 1u64..300, 0u8..24);
    (0u16..3, prop::collection::vec(event, 1..80)).prop_map(|(source, events)| Act::Frame(source, events))
}

fn divide() -> impl Strategy<Value = Act> {
    // By the router's own rule, or any.
    let any = prop::collection::vec(0u32..4, SLOTS.len());
    (1u32..5, prop_oneof![Just(Vec::new()), any]).prop_map(|(shards, of)| Act::Divide(shards, of))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        24 => frame(),
        6 => (0u64..3_000).prop_map(Act::Step),
        1 => (0u16..3).prop_map(Act::Idle),
        1 => (0u16..3, 1u64..40).prop_map(|(source, lost)| Act::Gap(source, lost)),
        2 => (0u16..3).prop_map(Act::Define),
        3 => divide(),
    ]
}

fn placement(shards: u32, of: &[u32]) -> Placement {
    if of.is_empty() {
        return Placement::round_robin(shards);
    }
    let mut map: Vec<u32> = (0..SLOT_COUNT as u32).map(|slot| slot % shards).collect();
    for (slot, shard) in SLOTS.iter().zip(of) {
        map[usize::from(*slot)] = shard % shards;
    }
    Placement::new(map, shards).unwrap()
}

/// Over all shards: the digest, what each stage's operator counted and cut, results of each stage, and events.
type Account = (Digest, Vec<(String, Ledger, u64)>, Vec<(String, u64)>, u64);

/// Shards, what is in front of them, and what came out of them.
struct Pipeline {
    placement: Placement,
    router: Router,
    inputs: Vec<Receiver<Event>>,
    shards: Vec<Shard>,
    /// By stream and slot: the records as subscribers have them.
    written: BTreeMap<(u16, u16), Vec<u8>>,
    names: Vec<u64>,
}

/// A router, and the ends of its rings.
fn way_in(placement: &Placement) -> (Router, Vec<Receiver<Event>>) {
    let rings = (0..placement.shards()).map(|_| ring(1 << 10, FullPolicy::Wait));
    let (outlets, inputs) = rings.unzip();
    (Router::new(placement.clone(), outlets), inputs)
}

impl Pipeline {
    fn new(placement: Placement) -> Self {
        let (router, inputs) = way_in(&placement);
        let shards = (0..placement.shards()).map(|_| Shard::new(stages())).collect();
        Self { placement, router, inputs, shards, written: BTreeMap::new(), names: Vec::new() }
    }

    fn define(&mut self, name: u64, source: u16) {
        self.names.push(name);
        self.router.define(name, source);
    }

    fn give(&mut self, log: &[Event]) {
        assert!(self.router.route(log, || panic!("the rings are large enough")));
        let written = &mut self.written;
        let mut sink = |outputs: &[Output]| {
            for output in outputs.iter().filter(|output| output.kind < output_kind::WATERMARK) {
                let of = written.entry((output.stream, output.slot)).or_default();
                of.extend_from_slice(output.record_bytes());
            }
        };
        for (shard, input) in self.shards.iter_mut().zip(&mut self.inputs) {
            while input.has_work() {
                input.drain(1 << 10, |events| {
                    let mut at = 0;
                    while at < events.len() {
                        at += shard.process(&events[at..], &mut sink).consumed;
                    }
                });
            }
            shard.flush(&mut sink);
        }
    }

    fn states(&self) -> Vec<Vec<u8>> {
        self.shards.iter().map(|shard| shard.save(Vec::new())).collect()
    }

    fn divide(&mut self, placement: Placement) {
        self.shards = divided(&self.states(), &self.names, &placement);
        (self.router, self.inputs) = way_in(&placement);
        self.names.iter().for_each(|name| self.router.known(*name));
        self.placement = placement;
    }

    /// The same, slot by slot, each out of one shard and into another.
    fn carry(&mut self, placement: Placement) {
        for slot in SLOTS {
            let (from, to) = (self.placement.shard_of(slot), placement.shard_of(slot));
            if from != to {
                let part = self.shards[from as usize].take_slot(&stages, slot).unwrap();
                self.shards[to as usize].join_slot(&stages, &part, &|source| source).unwrap();
            }
        }
        (self.router, self.inputs) = way_in(&placement);
        self.names.iter().for_each(|_| self.router.absent());
        for (number, shard) in (0..).zip(&self.shards) {
            for key in shard.context().keys() {
                let key = self.names.iter().position(|name| *name == key.name).unwrap();
                self.router.settle(key as u32, number);
            }
        }
        assert!((0..self.names.len() as u32).all(|key| self.router.is_here(key)));
        self.placement = placement;
    }

    /// What is the same, whoever had which slot.
    fn account(&self) -> Account {
        let (mut digest, mut stages, mut lanes) = (Digest::default(), Vec::new(), Vec::new());
        for shard in &self.shards {
            digest.add_shard(shard);
            for (at, stage) in shard.stages().iter().enumerate() {
                assert_eq!(
                    stage.ledger().delivered,
                    shard.events(),
                    "{} of each shard balances",
                    stage.name()
                );
                assert_eq!(stage.ledger().imbalance(), 0);
                if stages.len() == at {
                    stages.push((stage.name().to_owned(), Ledger::default(), 0));
                }
                stages[at].1.merge(&stage.ledger());
                stages[at].2 += stage.cut();
            }
            for (at, (name, lane)) in shard.lanes().into_iter().enumerate() {
                if lanes.len() == at {
                    lanes.push((name.to_owned(), 0));
                }
                lanes[at].1 += lane.emitted();
            }
        }
        (digest, stages, lanes, self.shards.iter().map(Shard::events).sum())
    }
}

fn divided(states: &[Vec<u8>], names: &[u64], placement: &Placement) -> Vec<Shard> {
    let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    regroup(&stages, &states, names, placement.shards(), &|slot| placement.shard_of(slot)).unwrap()
}

/// Writes the log of the acts.
#[derive(Default)]
struct Pen {
    now: u64,
    frame: u64,
    keys: u32,
    /// Trades that can be taken back, and those that were.
    trades: Vec<Event>,
    cancelled: Vec<Event>,
    barriers: u64,
}

impl Pen {
    fn begin(to: &mut [&mut Pipeline]) -> Self {
        let mut pen = Self { now: 50_000, ..Self::default() };
        (0..8).for_each(|source| pen.define(source % 3, to));
        pen
    }

    fn define(&mut self, source: u16, to: &mut [&mut Pipeline]) {
        if self.keys < 12 {
            let nth = u64::from(self.keys);
            // Not in the order of slots, and of a slot not in the order of names.
            let slot = SLOTS[(self.keys * 3) as usize % SLOTS.len()];
            let name = (nth * 7_919 % 13) * SLOT_COUNT as u64 + u64::from(slot);
            assert_eq!(slot_of(name), slot);
            self.keys += 1;
            to.iter_mut().for_each(|pipeline| pipeline.define(name, source));
        }
    }

    fn event(&mut self, source: u16, (key, back, price, size, what): (u32, u64, u64, u64, u8)) -> Event {
        let key = key % self.keys;
        self.now += 20;
        // Most come in order.
        let back = if what % 3 == 0 { back } else { back / 100 };
        let ts = self.now - back;
        match what {
            0..=1 if !self.trades.is_empty() => {
                let at = price as usize % self.trades.len();
                let trade = self.trades.swap_remove(at);
                self.cancelled.push(trade);
                Event { flags: trade.flags | flag::CANCEL, ..trade }
            }
            2 if !self.cancelled.is_empty() => {
                let trade = self.cancelled.swap_remove(size as usize % self.cancelled.len());
                let price = Price(price as i64 * 10_000_000 + 1);
                let corrected = Event::trade(trade.ts_event, trade.key, trade.source, price, Size(size), 0);
                Event { flags: flag::CORRECTION, ..corrected }
            }
            3..=7 => {
                let payload = FlowPayload {
                    peer: (price * size % 700) as u32,
                    bytes: (size * 13) as u32,
                    packets: 2,
                    port: price as u16,
                    protocol: 6,
                    tcp_flags: [2, 18, 16, 4][what as usize % 4],
                    duration: 0,
                };
                Event::flow(ts, key, source, if what % 2 == 0 { flag::FLOW_OUTBOUND } else { 0 }, payload)
            }
            8 => {
                let payload = NamePayload { name: price * 977, ..NamePayload::default() };
                Event::name(ts, key, source, payload)
            }
            _ => {
                let (price, size) = (Price(price as i64 * 10_000_000 + 1), Size(size * 1_000_000));
                let trade = Event::trade(ts, key, source, price, size, what & flag::BUY);
                self.trades.push(trade);
                trade
            }
        }
    }

    fn log(&mut self, act: &Act, to: &mut [&mut Pipeline]) -> Vec<Event> {
        match act {
            Act::Frame(source, events) => {
                self.frame += 1;
                let mark = Event::control(kind::MARK, 0, events.len() as u32, *source, [self.frame, 0]);
                let mut log = vec![mark];
                log.extend(events.iter().map(|event| self.event(*source, *event)));
                let watermark = self.now.saturating_sub(900);
                log.push(Event::control(kind::WATERMARK, watermark, 0, *source, [0; 2]));
                log
            }
            Act::Step(ns) => {
                self.now += ns;
                Vec::new()
            }
            Act::Idle(source) => vec![Event::control(kind::IDLE, 0, 0, *source, [0; 2])],
            Act::Gap(source, lost) => {
                vec![Event::control(kind::GAP, self.now, 0, *source, [*lost, self.now - 600])]
            }
            Act::Define(source) => {
                self.define(*source, to);
                Vec::new()
            }
            Act::Divide(..) => {
                self.barriers += 1;
                vec![Event::control(kind::BARRIER, 0, 0, 0, [self.barriers, 0])]
            }
        }
    }
}

fn end() -> [Event; 1] {
    [Event::control(kind::END, 0, 0, 0, [0; 2])]
}

/// What the properties are about is there when shards are divided.
#[test]
fn logs_have_everything_that_can_go_wrong() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut fates, mut written, mut sketches, mut learnt) = (Ledger::default(), BTreeMap::new(), 0, 0);
    for _ in 0..6 {
        let acts = prop::collection::vec(act(), 60..61).new_tree(&mut runner).unwrap().current();
        let mut pipeline = Pipeline::new(Placement::round_robin(2));
        let mut pen = Pen::begin(&mut [&mut pipeline]);
        for act in &acts {
            let log = pen.log(act, &mut [&mut pipeline]);
            pipeline.give(&log);
        }
        pipeline.account().1.iter().for_each(|(_, ledger, _)| fates.merge(ledger));
        pipeline.give(&end());
        for ((stream, _), mut bytes) in pipeline.written.iter().map(|(of, bytes)| (*of, bytes.as_slice())) {
            while let Some((output, rest)) = Output::read_record(bytes) {
                bytes = rest;
                *written.entry((stream, output.kind, output.state)).or_insert(0) += 1;
                // Peers that were counted by a sketch, and a state that a model named.
                sketches += u64::from(stream == 13 && output.words[5] > 32);
                learnt += u64::from(stream == 6 && !f64::from_bits(output.words[0]).is_nan());
            }
        }
    }
    use tidegate_engine::Fate::*;
    for fate in [LateAmended, LateSide, TooLate, Cancelled, Corrected, Unmatched, NotMine, LateDropped] {
        assert!(fates.of(fate) > 20, "{fate:?}: {fates}");
    }
    for stream in 0..14 {
        let of = written.iter().filter(|((of, ..), _)| *of == stream).map(|(_, count)| *count).sum::<u64>();
        assert!(of > 50, "stream {stream}: {of}");
    }
    for stream in [0, 1, 2, 5, 8, 11] {
        assert!(
            written.contains_key(&(stream, output_kind::BAR, 2)),
            "nothing of stream {stream} was amended"
        );
    }
    assert!(sketches > 5 && learnt > 50, "{sketches} {learnt}");
}

/// A bound was reached: which keys lost a bar is not known any more, so none of those that came here gets a second first version.
#[test]
fn a_bar_that_was_let_go_does_not_come_again_on_another_shard() {
    let stages = || {
        let options = BarOptions { retained_bars_max: 2, ..options(LatePolicy::Amend) };
        vec![Stage::new("time", 0, Box::new(TimeBars::new(width(WIDTH), options)) as Box<dyn Operator>)]
    };
    let names = [0, 1];
    let mut shard = Shard::new(stages());
    let mut log: Vec<Event> =
        (0..).zip(names).map(|(key, name)| Event::control(kind::DEFINE, 0, key, 0, [name, name])).collect();
    let trade = |ts, key| Event::trade(ts, key, 0, Price(5), Size(1), 0);
    log.extend([500, 1_500, 2_500].map(|ts| trade(ts, 1)));
    log.push(Event::control(kind::WATERMARK, 3_000, 0, 0, [0; 2]));
    log.push(Event::control(kind::BARRIER, 0, 0, 0, [1, 0]));
    shard.process(&log, &mut |_: &[Output]| {});
    assert_eq!(shard.stages()[0].cut(), 1);
    let state = shard.save(Vec::new());
    let mut shards = regroup(&stages, &[&state], &names, 2, &|slot| u32::from(slot % 2)).unwrap();
    assert_eq!(shards.iter().map(|shard| shard.stages()[0].cut()).collect::<Vec<_>>(), [1, 0]);
    // The first of key 1's bars is gone; key 0 never had one, but nobody knows that.
    for shard in &mut shards {
        shard.process(&[trade(600, 0)], &mut |_: &[Output]| {});
        assert_eq!(shard.stages()[0].ledger().of(tidegate_engine::Fate::TooLate), 1);
        shard.process(&[trade(1_600, 0)], &mut |_: &[Output]| {});
        assert_eq!(shard.stages()[0].ledger().of(tidegate_engine::Fate::LateAmended), 1);
    }
}

/// A slot comes out of a log that was further in time: its closed bars stay closed.
#[test]
fn a_slot_is_taken_up_no_earlier_than_it_was() {
    let stages = || {
        let bars = TimeBars::new(width(WIDTH), options(LatePolicy::Amend));
        vec![Stage::new("time", 0, Box::new(bars) as Box<dyn Operator>).with(roll_up("rolled", 1, 0, WIDTH))]
    };
    let log = |name: u64, to: u64| {
        let mut shard = Shard::new(stages());
        let trade = |ts| Event::trade(ts, 0, 3, Price(5), Size(1), 0);
        let log = [
            Event::control(kind::DEFINE, 0, 0, 3, [name, name]),
            trade(500),
            trade(1_500),
            Event::control(kind::WATERMARK, to, 0, 0, [0; 2]),
            Event::control(kind::BARRIER, 0, 0, 0, [1, 0]),
        ];
        shard.process(&log, &mut |_: &[Output]| {});
        shard
    };
    let (mut old, mut new) = (log(0, 1_200), log(1, 900));
    let part = old.take_slot(&stages, 0).unwrap();
    assert!(old.context().keys().is_empty());
    let head = PartHead::read(&part).unwrap();
    assert_eq!((head.slot, head.watermark, head.keys.len()), (0, 1_200, 1));
    let before = new.save(Vec::new());
    let behind = new.join_slot(&stages, &part, &|_| 7).unwrap_err();
    assert_eq!(behind, PartError::Behind { slot: 0, watermark: 1_200, found: 900 });
    for end in 0..part.len() {
        assert!(new.join_slot(&stages, &part[..end], &|_| 7).is_err(), "{end}");
    }
    assert_eq!(new.save(Vec::new()), before, "what is refused changes nothing");
    let mut closed = 0;
    new.catch_up(1_200, &mut |outputs: &[Output]| {
        closed += outputs.iter().filter(|output| output.kind == output_kind::BAR).count();
    });
    assert_eq!((closed, new.context().watermark()), (1, 1_200), "time is of all its keys");
    new.join_slot(&stages, &part, &|source| source + 4).unwrap();
    let keys = new.context().keys();
    assert_eq!(keys.iter().map(|key| (key.name, key.source)).collect::<Vec<_>>(), [(1, 3), (0, 7)]);
    // Its first bar is closed and amended; its second goes on.
    let mut bars = Vec::new();
    let trade = |ts| Event::trade(ts, 1, 0, Price(6), Size(1), 0);
    let end = Event::control(kind::WATERMARK, 3_000, 0, 0, [0; 2]);
    new.process(&[trade(600), trade(1_600), end], &mut |outputs: &[Output]| {
        let numbered = outputs.iter().filter(|output| output.sequence > 0);
        let of_slot = numbered.filter(|output| output.slot == 0 && output.stream == 0);
        bars.extend(
            of_slot.map(|output| (output.sequence, output.bar().ts_open, output.bar().trades, output.state)),
        );
    });
    assert_eq!(bars, [(2, 0, 2, 2), (3, 1_000, 2, 1)]);
    // And back, to where it came from.
    let part = new.take_slot(&stages, 0).unwrap();
    old.catch_up(3_000, &mut |_: &[Output]| {});
    old.join_slot(&stages, &part, &|source| source).unwrap();
    assert!(old.join_slot(&stages, &part, &|source| source).is_err(), "it is there already");
}

/// Its log is lost: its keys come anew, and readers are told no number twice.
#[test]
fn a_slot_of_which_nothing_is_known_goes_on_behind_its_last_numbers() {
    let stages = || {
        let bars = TimeBars::new(width(WIDTH), options(LatePolicy::Amend));
        vec![Stage::new("time", 4, Box::new(bars) as Box<dyn Operator>).with(roll_up("rolled", 1, 4, WIDTH))]
    };
    let mut shard = Shard::new(stages());
    let watermark = |to| Event::control(kind::WATERMARK, to, 0, 0, [0; 2]);
    let barrier = Event::control(kind::BARRIER, 0, 0, 0, [1, 0]);
    shard.process(&[watermark(10), barrier], &mut |_: &[Output]| {});
    let part = Shard::part_of_nothing(stages(), 3, &|stream| if stream == 4 { 70 } else { 7 });
    assert!(!shard.has_slot(3));
    shard.join_slot(&stages, &part, &|source| source).unwrap();
    let name = (0u64..).find(|name| slot_of(*name) == 3).unwrap();
    let trade = |ts| Event::trade(ts, 0, 0, Price(6), Size(1), 0);
    let define = Event::control(kind::DEFINE, 10, 0, 0, [name, name]);
    let mut numbers = Vec::new();
    let [end] = end();
    shard.process(&[define, trade(600), trade(1_600), watermark(5_000), end], &mut |outputs: &[Output]| {
        let numbered = outputs.iter().filter(|output| output.sequence > 0);
        numbers.extend(numbered.map(|output| (output.stream, output.slot, output.sequence)));
    });
    numbers.sort_unstable();
    let (bars, rolled): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|(stream, ..)| *stream == 4);
    assert_eq!(bars, [(4, 3, 71), (4, 3, 72)]);
    assert_eq!(rolled.first(), Some(&(1, 3, 8)), "{rolled:?}");
    assert!(shard.has_slot(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Divided at every barrier, and never.
    #[test]
    fn shards_divided_anew_go_on_as_if_they_had_always_been_so(
        acts in prop::collection::vec(act(), 20..70),
        shards in 1u32..5,
        last in divide(),
    ) {
        let (mut calm, mut moved) =
            (Pipeline::new(Placement::round_robin(1)), Pipeline::new(Placement::round_robin(shards)));
        let mut pen = Pen::begin(&mut [&mut calm, &mut moved]);
        for act in acts.iter().chain([&last]) {
            let log = pen.log(act, &mut [&mut calm, &mut moved]);
            calm.give(&log);
            moved.give(&log);
            if let Act::Divide(shards, of) = act {
                let before = moved.account();
                moved.divide(placement(*shards, of));
                prop_assert_eq!(moved.account(), before);
            }
        }
        prop_assert_eq!(moved.account(), calm.account());
        calm.give(&end());
        moved.give(&end());
        prop_assert_eq!(&moved.written, &calm.written);
        prop_assert_eq!(moved.account(), calm.account());
        prop_assert!(calm.account().1.iter().all(|(_, _, cut)| *cut == 0));
    }

    /// Slots that are carried from shard to shard go on as if they had never been moved.
    #[test]
    fn slots_carried_from_shard_to_shard_go_on_as_if_nothing_had_moved(
        acts in prop::collection::vec(act(), 20..70),
        shards in 2u32..5,
        last in divide(),
    ) {
        let (mut calm, mut moved) =
            (Pipeline::new(Placement::round_robin(1)), Pipeline::new(Placement::round_robin(shards)));
        let mut pen = Pen::begin(&mut [&mut calm, &mut moved]);
        for act in acts.iter().chain([&last]) {
            let log = pen.log(act, &mut [&mut calm, &mut moved]);
            calm.give(&log);
            moved.give(&log);
            if let Act::Divide(_, of) = act {
                let before = moved.account();
                moved.carry(placement(shards, of));
                prop_assert_eq!(moved.account(), before);
            }
        }
        calm.give(&end());
        moved.give(&end());
        prop_assert_eq!(&moved.written, &calm.written);
        prop_assert_eq!(moved.account(), calm.account());
    }

    /// Where slots end up is all that counts, not the way there: to the byte.
    #[test]
    fn states_divided_and_joined_are_as_those_divided_at_once(
        acts in prop::collection::vec(act(), 20..60),
        shards in 1u32..5,
        ways in prop::collection::vec(divide(), 1..4),
        last in divide(),
    ) {
        let mut pipeline = Pipeline::new(Placement::round_robin(shards));
        let mut pen = Pen::begin(&mut [&mut pipeline]);
        for act in &acts {
            let log = pen.log(act, &mut [&mut pipeline]);
            pipeline.give(&log);
        }
        let log = pen.log(&last, &mut [&mut pipeline]);
        pipeline.give(&log);
        let Act::Divide(shards, of) = &last else { unreachable!() };
        let to = placement(*shards, of);
        let begin = pipeline.states();
        let bytes = |shards: Vec<Shard>| -> Vec<Vec<u8>> {
            shards.iter().map(|shard| shard.save(Vec::new())).collect()
        };
        // Counts have no slot: they are joined in one place before they are compared.
        let joined = |states: &[Vec<u8>]| bytes(divided(states, &pipeline.names, &Placement::round_robin(1)));
        let once = joined(&bytes(divided(&begin, &pipeline.names, &to)));
        prop_assert_eq!(&once, &joined(&begin));
        prop_assert_eq!(&once, &joined(&once));
        let mut states = begin;
        for way in &ways {
            let Act::Divide(shards, of) = way else { unreachable!() };
            states = bytes(divided(&states, &pipeline.names, &placement(*shards, of)));
        }
        prop_assert_eq!(joined(&states), once);
        // As many shards as there were, each with its own: nothing has moved, so nothing has changed any more.
        let same = placement(ways_shards(&ways), ways_of(&ways));
        prop_assert_eq!(bytes(divided(&states, &pipeline.names, &same)), states);
    }
}

fn ways_shards(ways: &[Act]) -> u32 {
    match ways.last() {
        Some(Act::Divide(shards, _)) => *shards,
        _ => 1,
    }
}

fn ways_of(ways: &[Act]) -> &[u32] {
    match ways.last() {
        Some(Act::Divide(_, of)) => of,
        _ => &[],
    }
}
