//! A slot goes from one group to another under a feed, and back: nothing is lost or applied twice, results go on with their numbers, and who reads the two
//! logs again, in whatever order and from whatever snapshots, has the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::indicators::IndicatorAnalyzer;
use tidegate_actors::runtime::{RuntimeOptions, StageFactory};
use tidegate_engine::{AnalyzerStage, Event, Price, Size, Stage, name_hash, slot_of};
use tidegate_journal::Point;
use tidegate_live::replication::{Input, Order, ReplicaSnapshots, ReplicationDriver, replication};
use tidegate_live::{
    Feed, FeedAnswer, IngestHandle, Live, LiveGroup, LiveGroups, LiveOptions, LiveReport, Network, SlotAsk,
    Threads,
};
use tidegate_proto::feed::{FeedClientOptions, SlotGoes, SplitFeed};
use tidegate_proto::hub::{HubOptions, StreamMeta};
use tidegate_proto::{AckMode, Frame, FrameBuffer, Grant, GroupLead, GroupMap, MonoTime, StreamKind};
use tokio::sync::mpsc;

const START_NS: u64 = 1_767_571_200_000_000_000;
const GROUPS: usize = 2;
/// Names of each group.
const NAMES: usize = 3;
const EVENTS: u64 = 6_000;
/// Bars that begin before are closed by what is published, whenever the end of the feed is heard of.
const SETTLED: u64 = START_NS + (EVENTS - 600) * 5_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn stages() -> StageFactory {
    Arc::new(|| {
        let bars = |name: &str, stream| {
            let spec: BarSpec = name.parse().unwrap();
            Stage::new(name, stream, spec.operator(BarOptions::default()))
        };
        let specs: Vec<_> = ["sma:5", "rsi:14"].iter().map(|text| text.parse().unwrap()).collect();
        let indicators = Box::new(IndicatorAnalyzer::new(0, &specs).unwrap());
        vec![bars("1s", 0).with(AnalyzerStage::new("indicators", 1, indicators)), bars("20t", 2)]
    })
}

fn streams() -> Vec<StreamMeta> {
    let stream = |name: &str, kind, columns: &[&str]| StreamMeta {
        name: name.to_owned(),
        kind,
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
    };
    vec![
        stream("bars.1s", StreamKind::Bars, &[]),
        stream("ind.1s", StreamKind::Values, &["sma_5", "rsi_14"]),
        stream("bars.20t", StreamKind::MeasureBars, &[]),
    ]
}

/// The group of each slot when all begins.
fn slots() -> Arc<[u16]> {
    (0..4_096u16).map(|slot| slot / 2_048).collect()
}

/// Names by turns of the groups; the first and the third share a slot.
fn names() -> Vec<String> {
    let slot = |name: &String| slot_of(name_hash(name.as_bytes()));
    let all = || (0..).map(|at| format!("K{at}"));
    let of = |group: u16, nth: usize| all().filter(|name| slot(name) / 2_048 == group).nth(nth).unwrap();
    let hot = of(0, 0);
    let beside = all().find(|name| *name != hot && slot(name) == slot(&hot)).unwrap();
    vec![hot, of(1, 0), beside, of(1, 1), of(0, 1), of(1, 2)]
}

fn hot_slot() -> u16 {
    slot_of(name_hash(names()[0].as_bytes()))
}

fn event(number: u64) -> Event {
    // The hot key has half of all.
    let key = if number.is_multiple_of(2) { 0 } else { (number / 2) as u32 % (2 * NAMES as u32) };
    let price = Price(1_000 + number as i64 % 97);
    Event::trade(START_NS + number * 5_000_000, key, 0, price, Size(1 + number % 7), 0)
}

struct Node {
    network: Network,
    live: Live,
    ways: Arc<Ways>,
}

/// Tells threads to end when it is dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The other ends of its groups.
struct Ways {
    drivers: Vec<ReplicationDriver>,
    groups: Vec<IngestHandle>,
}

impl Ways {
    fn order(&self, group: usize, order: Order) {
        self.drivers[group].orders.send(order).unwrap();
        self.groups[group].replicated();
    }
}

impl Node {
    fn start(folder: &Path, shards: u32) -> Self {
        let (ports, drivers): (Vec<_>, Vec<_>) = (0..GROUPS).map(|_| replication()).unzip();
        let group = |(at, replication)| LiveGroup {
            replication,
            snapshots: Some(ReplicaSnapshots {
                folder: folder.join(format!("{at}")),
                keep: 9,
                reserve_bytes: 0,
                settings: "test".to_owned(),
                wall_ns: || START_NS,
            }),
        };
        let of = ports.into_iter().enumerate().map(group).map(Some).collect();
        let mut options = LiveOptions {
            runtime: RuntimeOptions { shards, ..RuntimeOptions::default() },
            hub: HubOptions { lookback_records: 10_000, ..HubOptions::default() },
            groups: Some(LiveGroups { slots: slots(), of }),
            ..LiveOptions::default()
        };
        options.feed.committed = true;
        let network = Network::start(Threads::Separate, &options.runtime).unwrap();
        let live = network.live(stages(), streams(), options).unwrap();
        let groups = live.ingest_groups().to_vec();
        Self { network, live, ways: Arc::new(Ways { drivers, groups }) }
    }

    /// Leads all groups while `what` goes on: all that is written is committed at once. Returns that.
    fn leads(&self, epoch: u32, what: impl FnOnce()) -> Logs {
        let logs: Mutex<Logs> = Mutex::default();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for group in 0..GROUPS {
                self.ways.order(group, Order::Lead { epoch, tail: Vec::new() });
                let (logs, stop, ways) = (&logs, &stop, &self.ways);
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        let Ok(taken) =
                            ways.drivers[group].submissions.recv_timeout(Duration::from_millis(5))
                        else {
                            continue;
                        };
                        logs.lock().unwrap()[group].push(taken.input.clone());
                        ways.order(group, Order::Commit(vec![taken.input]));
                    }
                });
            }
            // Should it panic, they end all the same.
            let _ended = Ended(&stop);
            what();
        });
        logs.into_inner().unwrap()
    }

    /// What readers find of each name: number, begin, open, close, trades and volume of its bars.
    fn bars(&self) -> Bars {
        let hub = self.live.hub();
        let asked = hub.ask(|hub, _| {
            let of = |stream: u16, name: &String| {
                let bars = hub.lookback(stream, name, 10_000).map(|output| {
                    let bar = output.bar();
                    [
                        output.sequence,
                        bar.ts_open,
                        bar.open as u64,
                        bar.close as u64,
                        bar.trades,
                        bar.volume[0],
                    ]
                });
                bars.collect::<Vec<_>>()
            };
            let names = names();
            let all =
                [0, 2].into_iter().flat_map(|stream| names.iter().map(move |name| (stream, name.clone())));
            all.map(|(stream, name)| ((stream, name.clone()), of(stream, &name))).collect()
        });
        self.network.block_on(asked).unwrap()
    }

    /// Waits until everything that was ordered has happened.
    fn until_all(&self) {
        let stands: Vec<_> = self.live.ingest_groups().iter().map(|group| group.slots().unwrap()).collect();
        let begun = Instant::now();
        let all = || {
            let of: Vec<(u64, u64)> =
                stands.iter().map(|of| (of.borrow().left, of.borrow().arrived)).collect();
            of == [(1, 2), (2, 1)] && self.live.ingest().events() == EVENTS
        };
        while !all() || self.ways.drivers.iter().any(|driver| !driver.orders.is_empty()) {
            assert!(begun.elapsed() < PATIENCE, "{stands:?}, {} events", self.live.ingest().events());
            std::thread::yield_now();
        }
    }

    fn finish(self) -> LiveReport {
        let report = self.live.finish().unwrap();
        self.network.shutdown(Duration::from_secs(1));
        report
    }
}

/// What readers find by stream and name: number, begin, open, close, trades and volume of each bar.
type Bars = BTreeMap<(u16, String), Vec<[u64; 6]>>;

/// What is committed, group by group.
type Logs = [Vec<Input>; GROUPS];

/// A feed's connection to a group.
type Link = (Feed, mpsc::Receiver<FeedAnswer>);

/// The feed's process, and whoever moves slots beside it.
struct Desk {
    ingest: IngestHandle,
    groups: Vec<IngestHandle>,
    split: SplitFeed,
    links: Vec<Option<Link>>,
    begun: Instant,
    /// Events that were published before it.
    behind: u64,
}

fn map() -> GroupMap {
    let lead = GroupLead { node: Some(1), held: true, ..GroupLead::default() };
    GroupMap::new(1, vec![(0, 0), (2_048, 1)], vec![lead; GROUPS]).unwrap()
}

impl Desk {
    fn new(live: &Live) -> Self {
        Self::of(live, 1, map(), 0)
    }

    fn of(live: &Live, session: u64, map: GroupMap, behind: u64) -> Self {
        let options = FeedClientOptions {
            source_id: 7,
            session,
            name: "feed".to_owned(),
            ack_mode: AckMode::Committed,
            unacked_max: 500,
            ..FeedClientOptions::default()
        };
        let mut split = SplitFeed::new(options, map);
        names().iter().for_each(|name| assert!(split.define(name).is_some()));
        let links = (0..GROUPS).map(|_| None).collect();
        Self {
            ingest: live.ingest(),
            groups: live.ingest_groups().to_vec(),
            split,
            links,
            begun: Instant::now(),
            behind,
        }
    }

    fn now(&self) -> MonoTime {
        MonoTime(1 + self.begun.elapsed().as_nanos() as u64)
    }

    /// Moves what is there to be moved.
    async fn turn(&mut self) -> Result<(), String> {
        assert!(self.begun.elapsed() < PATIENCE, "no end in sight: {:?}", self.split);
        for group in 0..GROUPS {
            let (number, now) = (group as u16, self.now());
            if self.split.session(number).is_none() {
                continue;
            }
            if self.links[group].is_none() {
                let open = self.ingest.open_in(number, Grant::default(), self.ingest.buffer(), None);
                self.links[group] = Some(open.await.unwrap());
                self.split.connected(number, now);
            }
            let Some((feed, answers)) = &mut self.links[group] else { continue };
            let mut out = Vec::new();
            self.split.transmit(number, now, 8_192, &mut out).unwrap();
            let mut rest = &out[..];
            while !rest.is_empty() {
                let space = feed.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                feed.filled(count).await.unwrap();
                rest = &rest[count..];
            }
            while let Ok(answer) = answers.try_recv() {
                let FeedAnswer::Frames(bytes) = answer else { return Err(format!("{answer:?}")) };
                let mut buffer = FrameBuffer::new(2);
                assert_eq!(buffer.push(&bytes), bytes.len());
                while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
                    let frame = Frame::read(offset, &head, body).unwrap();
                    self.split.handle(number, now, offset, &frame).map_err(|close| close.reason)?;
                }
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Publishes events up to this one.
    async fn publish(&mut self, upto: u64) -> Result<(), String> {
        while self.split.offered() < upto {
            let from = self.split.offered() + 1;
            let events: Vec<Event> = (from..=upto.min(from + 40)).map(|at| event(self.behind + at)).collect();
            self.split.offer(&events);
            self.turn().await?;
        }
        Ok(())
    }

    /// Has a slot moved while there is more to publish.
    async fn carry(&mut self, goes: SlotGoes, from: u16) -> Result<(), String> {
        let (old, new) = (self.groups[usize::from(from)].clone(), self.groups[usize::from(goes.to)].clone());
        let stands = |group: &IngestHandle| group.slots().unwrap().borrow().clone();
        while stands(&new).arrived < goes.number || self.split.is_stopped() {
            let next = self.split.offered() + 1;
            self.split.offer(&[event(next)]);
            if stands(&old).left < goes.number {
                let _ = old.ask_slots(SlotAsk::Leave(goes));
            } else {
                let _ = new.ask_slots(SlotAsk::Arrive { goes, from });
            }
            self.turn().await?;
        }
        for group in &self.groups {
            while !group.ask_slots(SlotAsk::Over(goes.number)) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), String> {
        while !self.split.is_settled() {
            self.turn().await?;
        }
        Ok(())
    }
}

/// A node that leads, under a feed; with moves or without. Its logs, what readers have in the end, and its report.
fn lead(folder: &Path, moves: bool) -> (Logs, Bars, LiveReport) {
    let node = Node::start(folder, 2);
    let logs = node.leads(1, || {
        let mut desk = Desk::new(&node.live);
        let done = by_turns(async {
            desk.publish(EVENTS / 3).await?;
            if moves {
                desk.carry(SlotGoes { number: 1, slot: hot_slot(), to: 1 }, 0).await?;
            }
            desk.publish(2 * EVENTS / 3).await?;
            if moves {
                desk.carry(SlotGoes { number: 2, slot: hot_slot(), to: 0 }, 1).await?;
            }
            desk.publish(EVENTS).await?;
            desk.settle().await?;
            if moves {
                // Another process that begins the same numbering at the front is told so.
                let mut again = Desk::new(&node.live);
                let why = again.publish(EVENTS).await.unwrap_err();
                assert!(why.contains("went to group"), "{why}");
            }
            Ok::<_, String>(())
        });
        done.unwrap();
        assert_eq!(desk.split.offered(), EVENTS);
    });
    // What is committed is on its way to readers.
    let (mut bars, begun) = (node.bars(), Instant::now());
    while bars.values().any(|bars| bars.last().is_none_or(|bar| bar[1] < SETTLED)) {
        assert!(begun.elapsed() < PATIENCE, "{bars:?}");
        std::thread::yield_now();
        bars = node.bars();
    }
    let report = node.finish();
    assert_eq!(report.imbalance(), 0);
    (logs, bars, report)
}

fn by_turns<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// Without what comes of the end of the feed, which one log hears of before the other.
fn settled(bars: &Bars) -> Bars {
    let before = |bars: &Vec<[u64; 6]>| bars.iter().filter(|bar| bar[1] < SETTLED).copied().collect();
    bars.iter().map(|(of, bars)| (of.clone(), before(bars))).collect()
}

#[test]
fn a_slot_goes_and_comes_back_and_readers_cannot_tell() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, moved, report) = lead(&folder.path().join("moved"), true);
    let (_, calm, whole) = lead(&folder.path().join("calm"), false);
    assert_eq!(report.runtime.events, whole.runtime.events);
    let (moved_bars, calm_bars) = (settled(&moved), settled(&calm));
    for (of, bars) in &calm_bars {
        assert!(bars.len() > 10 && bars.windows(2).all(|two| two[0][0] < two[1][0]), "{of:?}: {bars:?}");
        assert_eq!(moved_bars.get(of), Some(bars), "{of:?}");
    }

    // Followers have the logs one way or the other, by turns or one far ahead of the other, on other shards.
    let words: Vec<usize> = (0..GROUPS)
        .map(|group| logs[group].iter().filter(|input| input.records() == 1 && input.events() == 0).count())
        .collect();
    assert!(words.iter().all(|words| *words >= 2), "{words:?}");
    for (at, (first, shards)) in [(0, 1), (1, 1), (0, 3), (1, 2)].into_iter().enumerate() {
        let node = Node::start(&folder.path().join(format!("follows-{at}")), shards);
        std::thread::scope(|scope| {
            let (logs, node) = (&logs, &*node.ways);
            let give = move |group: usize| {
                logs[group].iter().for_each(|input| node.order(group, Order::Commit(vec![input.clone()])));
            };
            // The one that is ahead waits where it needs the other, in its queue of orders.
            scope.spawn(move || give(first));
            if at > 1 {
                while !node.drivers[first].orders.is_full() && !node.drivers[first].orders.is_empty() {
                    std::thread::yield_now();
                }
            }
            give(1 - first);
        });
        node.until_all();
        let follower = node.finish();
        assert_eq!(
            follower.runtime.digest.short(),
            report.runtime.digest.short(),
            "{first} first, {shards} shards"
        );
        assert_eq!(follower.imbalance(), 0);
    }

    // From snapshots of every place of either log, with the rest of both.
    let points: Vec<Vec<usize>> =
        logs.iter().map(|log| (1..=4).map(|part| part * log.len() / 5).collect()).collect();
    for at in 0..4 {
        let path = folder.path().join(format!("starts-{at}"));
        let point = |offset: usize| Point { lineage: 1, offset: offset as u64, chain: [3; 16], epoch: 1 };
        let node = Node::start(&path, 2);
        let ends = [points[0][at], points[1][3 - at]];
        // A snapshot is of one group; the other one may be anywhere, as long as it is not waited for.
        std::thread::scope(|scope| {
            for group in 0..GROUPS {
                let (node, logs) = (&*node.ways, &logs);
                scope.spawn(move || {
                    for (offset, input) in logs[group].iter().enumerate() {
                        if offset == ends[group] {
                            node.order(group, Order::Snapshot(point(offset)));
                        }
                        node.order(group, Order::Commit(vec![input.clone()]));
                    }
                });
            }
        });
        for (group, end) in ends.iter().enumerate() {
            let written = node.ways.drivers[group].written.recv_timeout(PATIENCE).unwrap();
            assert_eq!(written, Ok(*end as u64));
        }
        node.until_all();
        let whole = node.finish();
        assert_eq!(whole.runtime.digest.short(), report.runtime.digest.short());
        let node = Node::start(&path, 1 + at as u32 % 3);
        let found: Vec<Option<u64>> =
            node.live.recovered_groups().iter().map(|found| found.snapshot).collect();
        assert_eq!(found, ends.map(|end| Some(end as u64)), "{:?}", node.live.recovered_groups());
        std::thread::scope(|scope| {
            for group in 0..GROUPS {
                let (node, logs) = (&*node.ways, &logs);
                scope.spawn(move || {
                    for input in &logs[group][ends[group]..] {
                        node.order(group, Order::Commit(vec![input.clone()]));
                    }
                });
            }
        });
        node.until_all();
        let again = node.finish();
        assert_eq!(again.runtime.digest.short(), report.runtime.digest.short(), "from {ends:?}");
    }
}

/// A declared loss took the entry by which it arrived: the slot begins anew where it is to be, and readers are told no number twice.
#[test]
fn a_slot_whose_arrival_is_lost_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let goes = SlotGoes { number: 1, slot: hot_slot(), to: 1 };
    let node = Node::start(&folder.path().join("first"), 2);
    let logs = node.leads(1, || {
        let mut desk = Desk::new(&node.live);
        by_turns(async {
            desk.publish(EVENTS / 3).await?;
            desk.carry(goes, 0).await?;
            desk.publish(2 * EVENTS / 3).await?;
            desk.settle().await
        })
        .unwrap();
    });
    node.finish();

    let word = |input: &Input| input.records() == 1 && input.events() == 0;
    let arrival = logs[1].iter().position(word).unwrap();
    let events = |logs: &Logs| logs.iter().flatten().map(|input| input.events()).sum::<u64>();
    let follows = |node: &Node, logs: &Logs, all: u64| {
        for (group, log) in logs.iter().enumerate() {
            log.iter().for_each(|input| node.ways.order(group, Order::Commit(vec![input.clone()])));
        }
        let begun = Instant::now();
        while node.live.ingest().events() < all {
            assert!(begun.elapsed() < PATIENCE, "{} of {all} events", node.live.ingest().events());
            std::thread::yield_now();
        }
    };
    // Of both names of the slot, in the order of their numbers.
    let hot = |node: &Node| {
        let (bars, names) = (node.bars(), names());
        let mut of: Vec<[u64; 6]> =
            [0, 2].iter().flat_map(|at: &usize| bars[&(0, names[*at].clone())].clone()).collect();
        of.sort_unstable();
        of
    };
    let front: Logs = [logs[0].clone(), logs[1][..arrival].to_vec()];
    let node = Node::start(&folder.path().join("new"), 2);
    follows(&node, &front, events(&front));
    let before = hot(&node);
    let behind = node.leads(2, || {
        let stands = node.live.ingest_groups()[1].slots().unwrap();
        let begun = Instant::now();
        while stands.borrow().arrived < 1 {
            assert!(begun.elapsed() < PATIENCE, "{stands:?}");
            let _ = node.live.ingest_groups()[1].ask_slots(SlotAsk::Anew(goes));
            std::thread::yield_now();
        }
        let mut map = map();
        map.give(hot_slot(), 1);
        let mut desk = Desk::of(&node.live, 2, map, 2 * EVENTS / 3);
        by_turns(async {
            desk.publish(EVENTS / 3).await?;
            desk.settle().await
        })
        .unwrap();
    });
    let (mut bars, begun) = (hot(&node), Instant::now());
    while bars.len() < before.len() + 5 {
        assert!(begun.elapsed() < PATIENCE, "{before:?}, then {bars:?}");
        bars = hot(&node);
    }
    assert!(bars.starts_with(&before), "{before:?}, then {bars:?}");
    assert!(bars.windows(2).all(|two| two[0][0] + 1 == two[1][0]), "{bars:?}");
    let all = node.live.ingest().events();
    let report = node.finish();
    assert_eq!(report.imbalance(), 0);

    // Who reads the logs has the same.
    let node = Node::start(&folder.path().join("again"), 1);
    follows(&node, &front, events(&front));
    follows(&node, &behind, all);
    assert_eq!(node.finish().runtime.digest.short(), report.runtime.digest.short());
}
