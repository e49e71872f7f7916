//! A snapshot and the log behind it give what the whole log gives, wherever the cut is; and what is no snapshot of this log is refused.

use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::indicators::IndicatorAnalyzer;
use tidegate_actors::runtime::{RuntimeOptions, StageFactory};
use tidegate_engine::snapshot::SnapshotError;
use tidegate_engine::{
    AnalyzerStage, Context, Emit, Event, Ledger, Operator, Price, Size, Stage, flag, name_hash, slot_of,
};
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::{
    Batch, Disk, Journal, JournalOptions, OpenError, Point, PointError, SnapshotFile, SnapshotFolder,
};
use tidegate_live::replication::{Input, Order, ReplicaSnapshots, ReplicationDriver, replication};
use tidegate_live::{
    FeedAnswer, JournalError, JournalSettings, Live, LiveError, LiveGroup, LiveGroups, LiveOptions,
    LiveReport, Network, Recovered, Replication, SnapshotOptions, Threads,
};
use tidegate_proto::feed::{FeedClient, FeedClientOptions, FeedEvent};
use tidegate_proto::hub::{Hub, HubOptions, StreamMeta};
use tidegate_proto::{AckMode, CloseCode, Frame, FrameBuffer, Grant, MonoTime, StreamKind};

const START_NS: u64 = 1_767_571_200_000_000_000;

fn bars(name: &str, stream: u16) -> Stage {
    let spec: BarSpec = name.parse().unwrap();
    Stage::new(name, stream, spec.operator(BarOptions::default()))
}

fn indicators(stream: u16, over: u16) -> AnalyzerStage {
    let specs: Vec<_> = ["sma:5", "rsi:14"].iter().map(|text| text.parse().unwrap()).collect();
    AnalyzerStage::new("indicators", stream, Box::new(IndicatorAnalyzer::new(over, &specs).unwrap()))
}

fn stages() -> StageFactory {
    Arc::new(|| vec![bars("1s", 0).with(indicators(1, 0)), bars("20t", 2)])
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

#[derive(Debug, Clone, Copy)]
struct Layout {
    shards: u32,
    threads: Threads,
}

fn journal_options() -> JournalOptions {
    JournalOptions { segment_bytes: 16 << 10, lineage: 42, ..JournalOptions::default() }
}

fn options(folder: &Path, layout: Layout, snapshots: bool) -> LiveOptions {
    LiveOptions {
        runtime: RuntimeOptions { shards: layout.shards, ..RuntimeOptions::default() },
        disorder_ns: 3_000_000,
        hub: HubOptions { ring_records: 256, ..HubOptions::default() },
        journal: Some(JournalSettings {
            folder: folder.to_owned(),
            remote: None,
            journal: journal_options(),
            commit: CommitOptions { reserve_bytes: 0, ..CommitOptions::default() },
            snapshots: snapshots.then_some(SnapshotOptions {
                every_bytes: 0,
                every_records: 0,
                every_ns: 0,
                keep: 2,
            }),
            settings: "test".to_owned(),
            wall_ns: || START_NS,
            progress: |_| {},
        }),
        ..LiveOptions::default()
    }
}

/// A life of the server from start to an end in order.
fn live(folder: &Path, layout: Layout, snapshots: bool) -> Result<(Recovered, LiveReport), LiveError> {
    life(options(folder, layout, snapshots), stages(), layout.threads)
}

fn life(
    options: LiveOptions,
    stages: StageFactory,
    threads: Threads,
) -> Result<(Recovered, LiveReport), LiveError> {
    let network = Network::start(threads, &options.runtime).unwrap();
    let live = network.live(stages, streams(), options)?;
    let recovered = live.recovered().clone();
    let report = live.finish()?;
    Ok((recovered, report))
}

/// What a turn accepts.
#[derive(Debug, Clone)]
enum Act {
    /// A source comes, maybe with a new numbering.
    Hello(u16, bool),
    Names(u16, u32, u32),
    Trades(u16, Vec<(u32, u64, u64)>),
    Lost(u16, u64),
    Idle(u16),
    Finished(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let source = 0u16..3;
    let trades = prop::collection::vec((0u32..12, 0u64..40_000_000, 0u64..500), 1..120);
    prop_oneof![
        2 => (source.clone(), prop::bool::weighted(0.3)).prop_map(|(source, new)| Act::Hello(source, new)),
        2 => (source.clone(), 1u32..6, 0u32..2).prop_map(|(source, names, over)| Act::Names(source, names, over)),
        12 => (source.clone(), trades).prop_map(|(source, trades)| Act::Trades(source, trades)),
        1 => (source.clone(), 1u64..50).prop_map(|(source, count)| Act::Lost(source, count)),
        1 => source.clone().prop_map(Act::Idle),
        1 => source.prop_map(Act::Finished),
    ]
}

/// The journal's batches of these turns, as ingest would have written them.
#[derive(Default)]
struct Pen {
    /// Per source: whether it came, its session, its last number, its keys, and those with a name.
    sources: [(bool, u64, u64, u32, u32); 3],
    /// Sources in the order in which they came: their ranks.
    ranks: Vec<u16>,
    now: u64,
}

impl Pen {
    fn batch(&mut self, act: &Act) -> Batch {
        let mut batch = Batch::new();
        let number = match act {
            Act::Hello(number, _)
            | Act::Names(number, ..)
            | Act::Trades(number, _)
            | Act::Lost(number, _) => *number,
            Act::Idle(number) | Act::Finished(number) => *number,
        };
        if !self.ranks.contains(&number) {
            self.ranks.push(number);
        }
        let rank = self.ranks.iter().position(|known| *known == number).unwrap() as u16;
        let source = &mut self.sources[usize::from(rank)];
        let new = matches!(act, Act::Hello(_, true));
        if !source.0 || matches!(act, Act::Hello(..)) {
            if !source.0 || new {
                *source = (true, source.1 + 1, 0, 0, 0);
            }
            let name = format!("source-{number}");
            assert!(batch.source(rank, 100 + u64::from(number), source.1, source.2 == 0, &name, "desk"));
        }
        match act {
            Act::Names(_, count, over) => {
                // Names of sources overlap, and each session begins with other ones.
                let names: Vec<String> =
                    (0..*count).map(|at| format!("K{}", (source.3 + at) * 3 + source.1 as u32 % 2)).collect();
                // Behind a key without a name none has one.
                let (names, over) =
                    if source.3 == source.4 { (names, *over) } else { (Vec::new(), *over + *count) };
                let texts: Vec<&str> = names.iter().map(String::as_str).collect();
                assert!(batch.names(rank, source.3, over, &texts));
                source.4 += names.len() as u32;
                source.3 += names.len() as u32 + over;
            }
            Act::Trades(_, trades) => {
                let (keys, first) = (source.3, source.2 + 1);
                let events: Vec<Event> = trades
                    .iter()
                    .filter(|_| keys > 0)
                    .map(|&(key, step, price)| {
                        self.now += step;
                        // A little out of order.
                        let ts = START_NS + self.now - price * 10_000;
                        let price = Price(1_000_000_000 * (1_000 + price as i64));
                        Event::trade(ts, key % keys, rank, price, Size(100 + step % 1_000), flag::BUY)
                    })
                    .collect();
                if !events.is_empty() {
                    assert!(batch.events(rank, first, source.4, &events));
                    source.2 += events.len() as u64;
                }
            }
            Act::Lost(_, count) => {
                source.2 += count;
                assert!(batch.lost(rank, source.2, *count));
            }
            Act::Idle(_) => assert!(batch.idle(rank)),
            Act::Finished(_) => assert!(batch.finished(rank)),
            Act::Hello(..) => {}
        }
        batch
    }
}

fn write(folder: &Path, batches: &[Batch]) {
    let (mut journal, _) =
        Journal::open(Disk::open(folder).unwrap(), journal_options(), START_NS, |_| {}).unwrap();
    for batch in batches {
        journal.append(batch, 1, START_NS).unwrap();
    }
    journal.sync().unwrap();
}

fn batches(acts: &[Act]) -> Vec<Batch> {
    let mut pen = Pen::default();
    acts.iter().map(|act| pen.batch(act)).filter(|batch| !batch.is_empty()).collect()
}

/// What must be the same, however the server came to it.
fn account(report: &LiveReport) -> String {
    assert_eq!(report.imbalance(), 0);
    let (ingest, runtime) = (&report.ingest, &report.runtime);
    let results = (runtime.digest.short(), runtime.digest.outputs(), runtime.events, &runtime.stages);
    let sources = (&ingest.stats.sources, ingest.stats.names, ingest.stats.logged, ingest.stats.fenced);
    let log = (ingest.span, ingest.controls, ingest.gaps_made);
    format!("{results:?} {sources:?} {log:?} {} {}", report.hub.keys, report.hub.lookback)
}

fn newest(folder: &Path) -> SnapshotFile {
    SnapshotFolder::new(folder).list().unwrap().remove(0)
}

const LAYOUTS: [Layout; 3] = [
    Layout { shards: 1, threads: Threads::Fused },
    Layout { shards: 3, threads: Threads::Separate },
    Layout { shards: 2, threads: Threads::Fused },
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each life has shards of its own.
    #[test]
    fn a_snapshot_and_the_tail_are_the_whole_log(
        acts in prop::collection::vec(act(), 10..60),
        lives in prop::collection::vec((0.0f64..1.0, prop::sample::select(&LAYOUTS[..])), 1..4),
        first in prop::sample::select(&LAYOUTS[..]),
        last in prop::sample::select(&LAYOUTS[..]),
    ) {
        let batches = batches(&acts);
        let whole = tempfile::tempdir().unwrap();
        write(whole.path(), &batches);
        let (recovered, calm) = live(whole.path(), first, false).unwrap();
        prop_assert_eq!(recovered.snapshot, None);

        let folder = tempfile::tempdir().unwrap();
        let mut lives: Vec<(usize, Layout)> =
            lives.iter().map(|&(cut, layout)| ((cut * batches.len() as f64) as usize, layout)).collect();
        lives.sort_unstable_by_key(|(cut, _)| *cut);
        let (mut from, mut snapshot, mut stops, mut taken_by) = (0, None, 0, 0);
        for (cut, layout) in lives.into_iter().chain([(batches.len(), last)]) {
            write(folder.path(), &batches[from..cut]);
            let written: u64 = batches[from..cut].iter().map(|batch| u64::from(batch.count())).sum();
            from = cut;
            let (recovered, report) = live(folder.path(), layout, true).unwrap();
            prop_assert_eq!(recovered.snapshot, snapshot);
            let others = snapshot.is_some() && taken_by != layout.shards;
            prop_assert_eq!(recovered.regrouped, others.then_some((taken_by, layout.shards)));
            prop_assert_eq!(recovered.notes, Vec::<String>::new());
            // Beside what was written since: the word of every life since the snapshot that it had stopped.
            prop_assert_eq!(recovered.records, written + stops);
            let stats = report.ingest.stats.snapshots.clone().unwrap();
            // A life that found nothing new takes no snapshot, so several words may be behind one.
            stops = if stats.written > 0 { 1 } else { stops + 1 };
            taken_by = if stats.written > 0 { layout.shards } else { taken_by };
            prop_assert_eq!((stats.failed, stats.problem.clone()), (0, None));
            snapshot = stats.offset;
            if cut == batches.len() {
                prop_assert_eq!(account(&report), account(&calm));
            }
        }
    }
}

/// A log, and its snapshots at two places.
fn sample(folder: &Path, layout: Layout) -> Vec<Batch> {
    let trades = |at: u32| (0..200).map(|nth| (nth % 7, 900_000, u64::from((at + nth) % 40))).collect();
    let mut acts = vec![Act::Hello(0, false), Act::Names(0, 7, 0)];
    acts.extend((0..30).map(|at| Act::Trades(0, trades(at))));
    let batches = batches(&acts);
    for part in [&batches[..12], &batches[12..24]] {
        write(folder, part);
        live(folder, layout, true).unwrap();
    }
    write(folder, &batches[24..]);
    batches
}

#[test]
fn a_damaged_snapshot_is_told_and_the_one_before_is_taken() {
    let layout = LAYOUTS[0];
    let whole = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let batches = sample(folder.path(), layout);
    write(whole.path(), &batches);
    let (_, calm) = live(whole.path(), layout, false).unwrap();

    let files = SnapshotFolder::new(folder.path()).list().unwrap();
    assert_eq!(files.len(), 2);
    for damaged in 1..=2 {
        // A copy for each: a life writes a snapshot of its own.
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        for file in &files[..damaged] {
            let path = copy.path().join(file.path.file_name().unwrap());
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        let (recovered, report) = live(copy.path(), layout, true).unwrap();
        assert_eq!(recovered.snapshot, files.get(damaged).map(|file| file.offset));
        assert_eq!(recovered.notes.len(), damaged);
        assert!(
            recovered.notes[0].contains("is damaged: the checksum does not match"),
            "{:?}",
            recovered.notes
        );
        assert_eq!(account(&report), account(&calm));
        let aside = files[0].path.file_name().unwrap().to_str().unwrap().to_owned() + ".damaged";
        assert!(copy.path().join(aside).exists(), "kept under another name");
    }
}

#[test]
fn a_snapshot_of_another_log_or_beyond_it_is_refused() {
    let layout = LAYOUTS[0];
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path(), layout);
    let point_error = |folder: &Path| match live(folder, layout, true) {
        Err(LiveError::Journal(JournalError::Open { source: OpenError::Point(error), .. })) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started"),
    };
    let put = |into: &Path| {
        let file = newest(folder.path());
        std::fs::copy(&file.path, into.join(file.path.file_name().unwrap())).unwrap();
        file.offset
    };

    let other = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(
        Disk::open(other.path()).unwrap(),
        JournalOptions { lineage: 43, ..journal_options() },
        START_NS,
        |_| {},
    )
    .unwrap();
    journal.sync().unwrap();
    drop(journal);
    put(other.path());
    assert_eq!(point_error(other.path()), PointError::Lineage { point: 42, log: 43 });

    // The same lineage: a log that is shorter, and one with other records.
    let shorter = tempfile::tempdir().unwrap();
    let batches = batches(&[Act::Hello(0, false), Act::Names(0, 3, 0), Act::Trades(0, vec![(1, 5, 5); 50])]);
    write(shorter.path(), &batches);
    let offset = put(shorter.path());
    assert_eq!(point_error(shorter.path()), PointError::Beyond { offset, end: 52 });
    let mut more = batches;
    for at in 0..60u64 {
        let mut batch = Batch::new();
        let trade = Event::trade(START_NS + at, 1, 0, Price(5_000_000_000), Size(1), flag::BUY);
        assert!(batch.events(0, 51 + at * 100, 3, &vec![trade; 100]));
        more.push(batch);
    }
    let foreign = tempfile::tempdir().unwrap();
    write(foreign.path(), &more);
    put(foreign.path());
    assert_eq!(point_error(foreign.path()), PointError::Chain { offset });
    assert!(live(foreign.path(), layout, true).is_err(), "nothing was changed that would let it start");
}

#[test]
fn a_snapshot_of_other_settings_is_passed_over_unless_the_log_begins_behind_it() {
    let later = |folder: &Path| {
        let options = LiveOptions { disorder_ns: 4_000_000, ..options(folder, LAYOUTS[2], true) };
        life(options, stages(), LAYOUTS[2].threads)
    };
    let folder = tempfile::tempdir().unwrap();
    let batches = sample(folder.path(), LAYOUTS[0]);
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), &batches);
    let (_, calm) = later(whole.path()).unwrap();
    let (recovered, report) = later(folder.path()).unwrap();
    assert_eq!((recovered.snapshot, recovered.notes.len()), (None, 2));
    assert!(recovered.notes[0].contains("1 shards; disorder 3000000 ns"), "{:?}", recovered.notes);
    assert_eq!(account(&report), account(&calm));

    // Without its first segment only what is behind the snapshots can be had.
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path(), LAYOUTS[0]);
    std::fs::remove_file(folder.path().join("0000000000000000.tgj")).unwrap();
    match later(folder.path()) {
        Err(LiveError::Journal(JournalError::Headless { first, notes, .. })) => {
            assert!(first > 0 && notes.len() == 2, "{first} {notes:?}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started without what was in front of its log"),
    }
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), &batches);
    let (_, calm) = live(whole.path(), LAYOUTS[0], false).unwrap();
    // However many shards there are.
    let (recovered, report) = live(folder.path(), LAYOUTS[1], true).unwrap();
    assert!(recovered.snapshot.is_some() && recovered.regrouped == Some((1, 3)), "{recovered:?}");
    assert_eq!(account(&report), account(&calm));
}

/// An operator of a user's that says nothing of other shards.
struct Mine(Box<dyn Operator>);

impl Operator for Mine {
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

#[test]
fn a_stage_that_cannot_be_divided_keeps_its_snapshots_for_as_many_shards() {
    let mine = || -> StageFactory {
        Arc::new(|| {
            let own = |name: &str| {
                let spec: BarSpec = name.parse().unwrap();
                Box::new(Mine(spec.operator(BarOptions::default())))
            };
            vec![bars("1s", 0).with(indicators(1, 0)), Stage::new("mine", 2, own("20t"))]
        })
    };
    let run = |folder: &Path, layout: Layout| life(options(folder, layout, true), mine(), layout.threads);
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let batches = sample(folder.path(), LAYOUTS[0]);
    write(whole.path(), &batches);
    let (_, calm) = run(whole.path(), LAYOUTS[0]).unwrap();
    let before = SnapshotFolder::new(folder.path()).list().unwrap();
    let (recovered, report) = run(folder.path(), LAYOUTS[2]).unwrap();
    assert_eq!((recovered.snapshot, recovered.regrouped, recovered.notes.len()), (None, None, 2));
    for words in ["1 shards and cannot be taken over by 2", "the stage `mine`", "cannot be divided by keys"] {
        assert!(recovered.notes[0].contains(words), "{:?}", recovered.notes);
    }
    // The whole log is there, and says the same.
    let digest = |report: &LiveReport| report.runtime.digest.clone();
    assert_eq!(digest(&report), digest(&calm));
    // It is sound, and nobody called it damaged: with as many shards as took it, it is of use.
    let newest = newest(folder.path());
    assert!(before.iter().all(|file| file.offset < newest.offset));
    std::fs::remove_file(newest.path).unwrap();
    let kept = SnapshotFolder::new(folder.path()).list().unwrap().remove(0);
    assert_eq!(kept, before[0]);
    let (recovered, report) = run(folder.path(), LAYOUTS[0]).unwrap();
    assert_eq!((recovered.snapshot, recovered.notes), (Some(kept.offset), Vec::new()));
    assert_eq!(digest(&report), digest(&calm));
}

/// A snapshot of version 1 with its journal, as version 1 wrote them. `UPDATE_GOLDEN=1` writes them anew, which nobody should have to: a
/// new version gets files of its own.
#[test]
fn version_1_is_gone_on_from() {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/1"));
    let layout = LAYOUTS[0];
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = std::fs::remove_dir_all(golden);
        std::fs::create_dir_all(golden).unwrap();
        let folder = tempfile::tempdir().unwrap();
        sample(folder.path(), layout);
        std::fs::remove_file(newest(folder.path()).path).unwrap();
        let kept = newest(folder.path()).path;
        let snapshot = kept.file_name().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            // The segments from the one that holds the snapshot's point on.
            if name != "lock" && name.to_str() >= Some("0000000000000004.tgj") || name == snapshot {
                std::fs::copy(entry.path(), golden.join(name)).unwrap();
            }
        }
    }
    // What this version makes of the whole log.
    let (other, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(whole.path(), &sample(other.path(), layout));
    let (_, calm) = live(whole.path(), layout, false).unwrap();
    // By as many shards, and by others.
    for layout in LAYOUTS {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let (recovered, report) = live(folder.path(), layout, true).unwrap();
        assert_eq!((recovered.snapshot, recovered.notes), (Some(2_002), Vec::new()));
        assert_eq!(recovered.regrouped, (layout.shards > 1).then_some((1, layout.shards)));
        assert_eq!(account(&report), account(&calm));
    }
}

/// Two groups beside each other have one hub; a snapshot is of one of them, and what it has for readers is that group's alone.
#[test]
fn a_group_goes_on_from_its_own_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let slots: Arc<[u16]> = (0..4_096u16).map(|slot| slot / 2_048).collect();
    let of = |name: &String| slots[usize::from(slot_of(name_hash(name.as_bytes())))];
    let named = |group| (0..).map(|at| format!("K{at}")).find(|name| of(name) == group).unwrap();
    let names = [named(0), named(1)];
    let input = |group: usize, first: u64, count: u64| {
        let mut batch = Batch::new();
        let trade = |at| Event::trade(START_NS + at * 40_000_000, 0, 0, Price(5 + at as i64), Size(1), 0);
        let events: Vec<Event> = (first..first + count).map(trade).collect();
        assert!(batch.source(0, 7, 1, first == 1, "feed", "anonymous"));
        assert!(first > 1 || batch.names(0, 0, 0, &[names[group].as_str()]));
        assert!(batch.events(0, first, 1, &events));
        let mut bytes = batch.count().to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(batch.body());
        Input::check(bytes.into()).unwrap()
    };
    let begin = || {
        let (ports, drivers): (Vec<_>, Vec<_>) = [0, 1].map(|_| replication()).into_iter().unzip();
        let group = |(at, replication): (usize, Replication)| LiveGroup {
            replication,
            snapshots: Some(ReplicaSnapshots {
                folder: folder.path().join(format!("{at}")),
                keep: 2,
                reserve_bytes: 0,
                settings: "test".to_owned(),
                wall_ns: || START_NS,
            }),
        };
        let of = ports.into_iter().enumerate().map(group).map(Some).collect();
        let groups = Some(LiveGroups { slots: Arc::clone(&slots), of });
        let options = LiveOptions { groups, ..LiveOptions::default() };
        let network = Network::start(Threads::Separate, &options.runtime).unwrap();
        let live = network.live(stages(), streams(), options).unwrap();
        (network, live, drivers)
    };
    let give = |live: &Live, drivers: &[ReplicationDriver], group: usize, order| {
        drivers[group].orders.send(order).unwrap();
        live.ingest_groups()[group].replicated();
    };
    let lookback = |live: &Live, network: &Network, count: u64| {
        let names = names.clone();
        // A bar of so many trades is told by the one behind it.
        let asked = async {
            loop {
                let names = names.clone();
                let of = |hub: &mut Hub, name: &str| -> Vec<(u64, u64)> {
                    hub.lookback(2, name, 99).map(|output| (output.sequence, output.ts)).collect()
                };
                let all = live.hub().ask(move |hub, _| names.map(|name| of(hub, &name))).await.unwrap();
                if all.iter().all(|bars| bars.len() as u64 == count) {
                    return all;
                }
                tokio::task::yield_now().await;
            }
        };
        let asked = async { tokio::time::timeout(std::time::Duration::from_secs(60), asked).await };
        network.block_on(asked).expect("the results come")
    };

    let (network, live, drivers) = begin();
    give(&live, &drivers, 0, Order::Commit(vec![input(0, 1, 200)]));
    give(&live, &drivers, 1, Order::Commit(vec![input(1, 1, 100)]));
    let point = Point { lineage: 1, offset: 1, chain: [3; 16], epoch: 1 };
    give(&live, &drivers, 1, Order::Snapshot(point));
    assert_eq!(drivers[1].written.recv().unwrap(), Ok(1));
    give(&live, &drivers, 1, Order::Commit(vec![input(1, 101, 100)]));
    let before = lookback(&live, &network, 10);
    assert_eq!(live.ingest().events(), 400);
    let calm = live.finish().unwrap();
    network.shutdown(std::time::Duration::from_secs(1));
    let source = &calm.ingest.stats.sources[..];
    assert!(
        matches!(source, [feed] if feed.ledger.imbalance() == 0),
        "one source, though two groups: {source:?}"
    );
    assert_eq!((calm.runtime.events, calm.runtime.shards.len()), (400, 2));

    let (network, live, drivers) = begin();
    let found: Vec<Option<u64>> = live.recovered_groups().iter().map(|found| found.snapshot).collect();
    assert_eq!(found, [None, Some(1)]);
    give(&live, &drivers, 0, Order::Commit(vec![input(0, 1, 200)]));
    give(&live, &drivers, 1, Order::Commit(vec![input(1, 101, 100)]));
    assert_eq!(lookback(&live, &network, 10), before);
    let again = live.finish().unwrap();
    network.shutdown(std::time::Duration::from_secs(1));
    assert_eq!(again.runtime.digest.short(), calm.runtime.digest.short());

    let options = LiveOptions {
        groups: Some(LiveGroups { slots: Arc::clone(&slots), of: Vec::new() }),
        ..LiveOptions::default()
    };
    let network = Network::start(Threads::Fused, &options.runtime).unwrap();
    assert!(matches!(network.live(stages(), streams(), options.clone()), Err(LiveError::Fused)));
    network.shutdown(std::time::Duration::from_secs(1));
    assert!(matches!(Live::start(stages(), streams(), options), Err(LiveError::Groups(_))));
}

/// A new leader may know later than others what of its log is committed. Feeds that were told so must not hear of less.
#[test]
fn a_new_leader_says_how_far_feeds_are_once_its_log_is_committed() {
    const EVENTS: u64 = 10;
    for threads in [Threads::Fused, Threads::Separate] {
        let (port, driver) = replication();
        let mut options = LiveOptions { replication: Some(port), ..LiveOptions::default() };
        options.feed.committed = true;
        let network = Network::start(threads, &options.runtime).unwrap();
        let live = network.live(stages(), streams(), options).unwrap();
        let mut batch = Batch::new();
        let trade = |at| Event::trade(START_NS + at, 0, 0, Price(5), Size(1), 0);
        let events: Vec<Event> = (0..EVENTS).map(trade).collect();
        assert!(batch.source(0, 7, 1, true, "feed", "anonymous") && batch.names(0, 0, 0, &["K"]));
        assert!(batch.events(0, 1, 1, &events));
        let mut bytes = batch.count().to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(batch.body());
        let input = Input::check(bytes.into()).unwrap();
        let order = |order| {
            driver.orders.send(order).unwrap();
            live.ingest().replicated();
            while !driver.orders.is_empty() {
                std::thread::yield_now();
            }
        };
        order(Order::Lead { epoch: 2, tail: vec![input.clone()] });
        let ingest = live.ingest();
        let feed = network.handle().spawn(async move {
            let options = FeedClientOptions {
                source_id: 7,
                session: 1,
                name: "feed".to_owned(),
                ack_mode: AckMode::Committed,
                ..FeedClientOptions::default()
            };
            let mut client = FeedClient::new(options);
            let mut hello = Vec::new();
            client.connected(MonoTime(0));
            client.transmit(MonoTime(0), 1 << 16, &mut hello).unwrap();
            let (mut feed, mut answers) = ingest.open(Grant::default(), ingest.buffer(), None).await.unwrap();
            feed.space()[..hello.len()].copy_from_slice(&hello);
            feed.filled(hello.len()).await.unwrap();
            loop {
                let Some(FeedAnswer::Frames(bytes)) = answers.recv().await else {
                    panic!("it is not let in")
                };
                let mut buffer = FrameBuffer::new(1);
                buffer.space()[..bytes.len()].copy_from_slice(&bytes);
                buffer.filled(bytes.len());
                while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
                    let frame = Frame::read(offset, &head, body).unwrap();
                    if let Some(FeedEvent::Ready { last, .. }) =
                        client.handle(MonoTime(1), offset, &frame).unwrap()
                    {
                        return last;
                    }
                }
            }
        });
        for _ in 0..200 {
            order(Order::Commit(Vec::new()));
            assert!(!feed.is_finished(), "it was told before anybody knew");
        }
        order(Order::Commit(vec![input]));
        assert_eq!(network.block_on(feed).unwrap(), EVENTS);
        let report = live.finish().unwrap();
        assert_eq!((report.imbalance(), report.runtime.events), (0, EVENTS));
        network.shutdown(std::time::Duration::from_secs(1));
    }
}

/// The nodes of a cluster are ended at once, and what a new leader found in its log is never committed: it ends all the same.
#[test]
fn a_leader_that_is_not_settled_ends_with_its_node() {
    for threads in [Threads::Fused, Threads::Separate] {
        let (port, driver) = replication();
        let options = LiveOptions { replication: Some(port), ..LiveOptions::default() };
        let network = Network::start(threads, &options.runtime).unwrap();
        let live = network.live(stages(), streams(), options).unwrap();
        let mut batch = Batch::new();
        assert!(batch.source(0, 7, 1, true, "feed", "anonymous"));
        let mut bytes = batch.count().to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(batch.body());
        let tail = vec![Input::check(bytes.into()).unwrap()];
        driver.orders.send(Order::Lead { epoch: 2, tail }).unwrap();
        live.ingest().replicated();
        while !driver.orders.is_empty() {
            std::thread::yield_now();
        }
        drop(driver);
        // What is not settled may never be: nobody is told that it has arrived.
        let ingest = live.ingest();
        let answer = network.handle().spawn(async move {
            let options = FeedClientOptions {
                source_id: 7,
                session: 1,
                name: "feed".to_owned(),
                ack_mode: AckMode::Leader,
                ..FeedClientOptions::default()
            };
            let (mut client, mut hello) = (FeedClient::new(options), Vec::new());
            client.connected(MonoTime(0));
            client.transmit(MonoTime(0), 1 << 16, &mut hello).unwrap();
            let (mut feed, mut answers) = ingest.open(Grant::default(), ingest.buffer(), None).await.unwrap();
            feed.space()[..hello.len()].copy_from_slice(&hello);
            let _ = feed.filled(hello.len()).await;
            answers.recv().await
        });
        match network.block_on(answer).unwrap() {
            Some(FeedAnswer::Close(close)) => assert_eq!(close.code, CloseCode::NOT_LEADER, "{close}"),
            Some(FeedAnswer::Frames(_)) => panic!("it is let in"),
            None => panic!("it is told nothing"),
        }
        live.finish().unwrap();
        network.shutdown(std::time::Duration::from_secs(1));
    }
}

/// A node with snapshots in `folder`.
fn node(folder: &Path, threads: Threads) -> (Network, Live, ReplicationDriver) {
    let (port, driver) = replication();
    let snapshots = ReplicaSnapshots {
        folder: folder.to_owned(),
        keep: 2,
        reserve_bytes: 0,
        settings: "test".to_owned(),
        wall_ns: || START_NS,
    };
    let mut options =
        LiveOptions { replication: Some(port), snapshots: Some(snapshots), ..LiveOptions::default() };
    options.feed.committed = true;
    let network = Network::start(threads, &options.runtime).unwrap();
    let live = network.live(stages(), streams(), options).unwrap();
    (network, live, driver)
}

/// An input of source 7: it comes with a name, and so many trades.
fn first_input(events: u64) -> Input {
    let mut batch = Batch::new();
    let trade = |at| Event::trade(START_NS + at, 0, 0, Price(5), Size(1), 0);
    let events: Vec<Event> = (0..events).map(trade).collect();
    assert!(batch.source(0, 7, 1, true, "feed", "anonymous") && batch.names(0, 0, 0, &["K"]));
    assert!(batch.events(0, 1, 1, &events));
    let mut bytes = batch.count().to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(batch.body());
    Input::check(bytes.into()).unwrap()
}

fn order(live: &Live, driver: &ReplicationDriver, order: Order) {
    driver.orders.send(order).unwrap();
    live.ingest().replicated();
    while !driver.orders.is_empty() {
        std::thread::yield_now();
    }
}

/// A feed that waits for `committed`, and what it says first.
fn feed(source_id: u64) -> (FeedClient, Vec<u8>) {
    let (name, ack_mode) = (format!("feed {source_id}"), AckMode::Committed);
    let options = FeedClientOptions { source_id, session: 1, name, ack_mode, ..FeedClientOptions::default() };
    let (mut client, mut hello) = (FeedClient::new(options), Vec::new());
    client.connected(MonoTime(0));
    client.transmit(MonoTime(0), 1 << 16, &mut hello).unwrap();
    (client, hello)
}

/// What a snapshot holds is committed, so whoever leads with it says so to feeds that come again.
#[test]
fn a_leader_that_began_with_a_snapshot_knows_what_is_committed() {
    const EVENTS: u64 = 10;
    for threads in [Threads::Fused, Threads::Separate] {
        let folder = tempfile::tempdir().unwrap();
        let (network, live, driver) = node(folder.path(), threads);
        order(&live, &driver, Order::Commit(vec![first_input(EVENTS)]));
        order(&live, &driver, Order::Snapshot(Point { lineage: 1, offset: 1, chain: [3; 16], epoch: 1 }));
        assert_eq!(driver.written.recv().unwrap(), Ok(1));
        live.finish().unwrap();
        network.shutdown(std::time::Duration::from_secs(1));

        let (network, live, driver) = node(folder.path(), threads);
        assert_eq!(live.recovered().snapshot, Some(1));
        order(&live, &driver, Order::Lead { epoch: 2, tail: Vec::new() });
        let ingest = live.ingest();
        let last = network.block_on(async move {
            let (mut client, hello) = feed(7);
            let (mut feed, mut answers) = ingest.open(Grant::default(), ingest.buffer(), None).await.unwrap();
            feed.space()[..hello.len()].copy_from_slice(&hello);
            feed.filled(hello.len()).await.unwrap();
            let Some(FeedAnswer::Frames(bytes)) = answers.recv().await else { panic!("it is not let in") };
            let mut buffer = FrameBuffer::new(1);
            buffer.space()[..bytes.len()].copy_from_slice(&bytes);
            buffer.filled(bytes.len());
            while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
                let frame = Frame::read(offset, &head, body).unwrap();
                if let Some(FeedEvent::Ready { last, .. }) =
                    client.handle(MonoTime(1), offset, &frame).unwrap()
                {
                    return last;
                }
            }
            panic!("it is told something else")
        });
        assert_eq!(last, EVENTS);
        live.finish().unwrap();
        network.shutdown(std::time::Duration::from_secs(1));
    }
}

/// A leader knows a new feed before the log has committed it. A snapshot taken just then is one of the log all the same.
#[test]
fn a_snapshot_beside_a_feed_that_is_not_committed_can_be_begun_with() {
    for threads in [Threads::Fused, Threads::Separate] {
        let folder = tempfile::tempdir().unwrap();
        let (network, live, driver) = node(folder.path(), threads);
        order(&live, &driver, Order::Commit(vec![first_input(3)]));
        order(&live, &driver, Order::Lead { epoch: 2, tail: Vec::new() });
        let ingest = live.ingest();
        let (_, hello) = feed(8);
        let connected = network.block_on(async move {
            let (mut feed, answers) = ingest.open(Grant::default(), ingest.buffer(), None).await.unwrap();
            feed.space()[..hello.len()].copy_from_slice(&hello);
            feed.filled(hello.len()).await.unwrap();
            (feed, answers)
        });
        // It was taken in, and never comes back committed.
        let taken = driver.submissions.recv().unwrap();
        assert!(taken.input.records() > 0);
        order(&live, &driver, Order::Snapshot(Point { lineage: 1, offset: 1, chain: [3; 16], epoch: 2 }));
        assert_eq!(driver.written.recv().unwrap(), Ok(1));
        drop(driver);
        live.finish().unwrap();
        drop(connected);
        network.shutdown(std::time::Duration::from_secs(1));

        let (network, live, _driver) = node(folder.path(), threads);
        assert_eq!(live.recovered().snapshot, Some(1));
        let report = live.finish().unwrap();
        let sources = report.ingest.stats.sources;
        assert!(matches!(&sources[..], [known] if known.last == 3), "{sources:?}");
        network.shutdown(std::time::Duration::from_secs(1));
    }
}
