//! On a real file system, with the real thread.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use tidegate_engine::Event;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::writer::Refused;
use tidegate_journal::{
    Batch, Committer, Disk, Entry, Health, Journal, JournalOptions, OpenError, Point, PointError, SyncPolicy,
    Tail, Writer, WriterOptions, scan,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn small() -> JournalOptions {
    JournalOptions { segment_bytes: 4 << 10, lineage: 0x0011_2233_4455_6677, ..JournalOptions::default() }
}

/// One of each entry, as version 1 has them.
fn first() -> Batch {
    let mut batch = Batch::new();
    let events: Vec<Event> = (1..4)
        .map(|at| Event {
            ts_event: at * 1_000,
            key: 1,
            source: 2,
            kind: 1,
            flags: 1,
            payload: [at, at << 8],
        })
        .collect();
    assert!(batch.source(2, 0xfeed, 9, true, "nyse", "desk-1"));
    assert!(batch.names(2, 0, 1, &["BTCUSD", "ETHUSD"]));
    assert!(batch.events(2, 1, 2, &events));
    batch
}

fn second() -> Batch {
    let mut batch = Batch::new();
    assert!(batch.lost(2, 9, 6) && batch.idle(2) && batch.digest(0x1234_5678_9abc_def0));
    assert!(batch.finished(2) && batch.stopped());
    batch
}

fn write(folder: &Path) {
    let (mut journal, _) = Journal::open(Disk::open(folder).unwrap(), small(), 1_000, |_| {}).unwrap();
    journal.append(&first(), 1, 2_000).unwrap();
    journal.sync().unwrap();
    journal.append(&second(), 3, 3_000).unwrap();
    journal.sync().unwrap();
}

fn describe(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let scan = scan(&mut Disk::open_read_only(folder).unwrap(), |view| {
        found.push(format!(
            "batch at {} offset {} epoch {} at {}",
            view.at, view.info.first_offset, view.info.epoch, view.info.ingest_ns
        ));
        for entry in view.entries() {
            found.push(match entry.unwrap() {
                Entry::Names { rank, first, overflowed, names } => {
                    format!("names {rank} {first} {overflowed} {:?}", names.collect::<Vec<_>>())
                }
                Entry::Events { rank, sequence, named, events } => {
                    format!(
                        "events {rank} {sequence} {named} {:?}",
                        events.iter().map(|event| event.payload).collect::<Vec<_>>()
                    )
                }
                other => format!("{other:?}"),
            });
        }
        ControlFlow::Continue(())
    });
    let scan = scan.unwrap().unwrap();
    assert_eq!((scan.lineage, scan.next_offset, scan.tail), (small().lineage, 10, Tail::Clean));
    found
}

/// The file in `tests/golden` was written by the first version. It must be read for ever; and as long as the version is 1, what is
/// written is the same, byte by byte.
#[test]
fn version_1_is_what_it_was() {
    let golden = Path::new(GOLDEN);
    assert_eq!(
        describe(golden),
        [
            "batch at 128 offset 0 epoch 1 at 2000",
            "Source { rank: 2, source_id: 65261, session: 9, new_session: true, name: \"nyse\", principal: \"desk-1\" }",
            "names 2 0 1 [\"BTCUSD\", \"ETHUSD\"]",
            "events 2 1 2 [[1, 256], [2, 512], [3, 768]]",
            "batch at 384 offset 5 epoch 3 at 3000",
            "Lost { rank: 2, last: 9, count: 6 }",
            "Idle { rank: 2 }",
            "Digest { value: 1311768467463790320 }",
            "Finished { rank: 2 }",
            "Stopped",
        ]
    );
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let name = "0000000000000000.tgj";
    assert!(std::fs::read(folder.path().join(name)).unwrap() == std::fs::read(golden.join(name)).unwrap());
}

#[test]
fn one_process_writes_and_any_may_look() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(Disk::open(folder.path()).unwrap(), small(), 0, |_| {}).unwrap();
    let refused = Disk::open(folder.path()).unwrap_err();
    assert_eq!(refused.to_string(), "another process writes this journal");
    journal.append(&first(), 1, 0).unwrap();
    journal.write().unwrap();
    let seen = scan(&mut Disk::open_read_only(folder.path()).unwrap(), |_| ControlFlow::Continue(()));
    assert_eq!(seen.unwrap().unwrap().next_offset, 5);
    drop(journal);
    assert!(Disk::open(folder.path()).is_ok());
    assert!(Disk::open_read_only(&folder.path().join("missing")).is_err());
}

#[test]
fn the_thread_writes_what_it_was_given_and_says_when() {
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions { segment_bytes: 64 << 10, ..small() };
    let (journal, _) = Journal::open(Disk::open(folder.path()).unwrap(), options.clone(), 0, |_| {}).unwrap();
    let commit =
        CommitOptions { sync: SyncPolicy::Every(500_000), reserve_bytes: 0, ..CommitOptions::default() };
    let told = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let theirs = Arc::clone(&told);
    let mut writer = Writer::start(
        Committer::new(journal, commit),
        WriterOptions { queue_max: 4, ..WriterOptions::default() },
        move |positions, _| {
            let mut state = theirs.0.lock().unwrap();
            assert!(positions.durable >= state.0, "promises do not go back");
            *state = (positions.durable, state.1 + 1);
            theirs.1.notify_all();
        },
    )
    .unwrap();
    let (mut busy, mut sequence) = (0, 1);
    for _ in 0..500 {
        let mut batch = writer.spare();
        assert!(batch.is_empty());
        let events = vec![Event { kind: 1, ts_event: sequence, ..Event::default() }; 30];
        assert!(batch.events(0, sequence, 1, &events));
        sequence += 30;
        loop {
            match writer.submit(batch, 1, 7) {
                Ok(end) => break assert_eq!(end, sequence - 1),
                Err(Refused::Busy(back)) => {
                    (batch, busy) = (back, busy + 1);
                    std::thread::yield_now();
                }
                Err(Refused::Gone(_)) => panic!("{:?}", writer.stats()),
            }
        }
    }
    let taken = writer.taken();
    assert_eq!(taken, 15_000);
    let mut state = told.0.lock().unwrap();
    while state.0 < taken {
        state = told.1.wait(state).unwrap();
    }
    assert!(state.1 < 1_500, "group commit: {} changes for 500 batches", state.1);
    drop(state);
    assert_eq!((writer.durable(), writer.written()), (taken, taken));
    let stats = writer.stop();
    assert_eq!((stats.health, stats.positions.durable), (Health::Working, taken));
    let mut count = 0;
    let disk = Disk::open(folder.path()).unwrap();
    let (journal, _) = Journal::open(disk, options, 0, |view| count += u64::from(view.info.count)).unwrap();
    assert_eq!((count, journal.next_offset()), (taken, taken));
    let _ = busy;
}

#[test]
fn a_torn_end_is_cut_off_on_a_real_file_too() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let path = folder.path().join("0000000000000000.tgj");
    let mut bytes = std::fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(used - 20);
    std::fs::write(&path, &bytes).unwrap();
    let (mut journal, scan) = Journal::open(Disk::open(folder.path()).unwrap(), small(), 0, |_| {}).unwrap();
    assert!(matches!(scan.unwrap().tail, Tail::Torn { segment: 0, at: 384, .. }));
    assert_eq!(journal.next_offset(), 5);
    journal.append(&second(), 3, 3_000).unwrap();
    journal.sync().unwrap();
    drop(journal);
    assert_eq!(describe(folder.path()).len(), 10);
    assert_eq!(std::fs::metadata(path).unwrap().len(), 4 << 10, "set aside again");
}

/// Points that the thread gave, over several segments, whatever the policy of syncing.
fn points(folder: &Path) -> Vec<Point> {
    let (journal, _) = Journal::open(Disk::open(folder).unwrap(), small(), 1, |_| {}).unwrap();
    let options = CommitOptions { sync: SyncPolicy::Never, reserve_bytes: 0, ..CommitOptions::default() };
    let mut writer =
        Writer::start(Committer::new(journal, options), WriterOptions::default(), |_, _| {}).unwrap();
    let mut points = Vec::new();
    for _ in 0..60 {
        let end = writer.submit(first(), 1, 2_000).unwrap();
        let (reply, point) = flume::bounded(1);
        assert_eq!(writer.barrier(reply), Some(end));
        let point = point.recv().unwrap();
        assert_eq!((point.offset, point.epoch, writer.written()), (end, 1, end));
        points.push(point);
    }
    let stats = writer.stop();
    assert!(stats.segments > 3 && stats.bytes == stats.segments as u64 * (4 << 10), "{stats:?}");
    points
}

#[test]
fn a_barrier_is_a_point_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let points = points(folder.path());
    let open = |point: Point, seen: &mut Vec<u64>| {
        let disk = Disk::open(folder.path()).unwrap();
        Journal::open_from(disk, small(), Some(point), 1, |view| seen.push(view.info.first_offset))
    };
    let all: Vec<u64> = points.iter().map(|point| point.offset).collect();
    let (last, end) = (points[59], all[59]);
    for (nth, &point) in points.iter().enumerate() {
        let mut seen = Vec::new();
        let (journal, found) = open(point, &mut seen).unwrap();
        assert_eq!(seen, all[nth..59], "what is behind point {nth}");
        assert_eq!((journal.point(), found.unwrap().first_offset), (last, 0));
    }
    let mut seen = Vec::new();
    let mut refused = |point: Point| match open(point, &mut seen) {
        Err(OpenError::Point(error)) => error,
        other => panic!("{:?}", other.map(|(journal, _)| journal.point())),
    };
    let point = points[20];
    let offset = point.offset;
    let log = point.lineage;
    assert_eq!(refused(Point { lineage: 1, ..point }), PointError::Lineage { point: 1, log });
    assert_eq!(refused(Point { chain: [9; 16], ..point }), PointError::Chain { offset });
    assert_eq!(
        refused(Point { offset: offset - 1, ..point }),
        PointError::Chain { offset: offset - 1 },
        "within a batch"
    );
    assert_eq!(refused(Point { offset: end + 1, ..last }), PointError::Beyond { offset: end + 1, end });
    assert!(seen.is_empty(), "nothing is visited that does not belong there");

    // Without its front it goes on from what is still there, and not from what is not.
    std::fs::remove_file(folder.path().join("0000000000000000.tgj")).unwrap();
    let mut seen = Vec::new();
    let (journal, found) = open(points[59], &mut seen).unwrap();
    let first = found.unwrap().first_offset;
    assert!(first > 0 && journal.first_offset() == first && seen.is_empty());
    drop(journal);
    match open(points[0], &mut seen) {
        Err(OpenError::Point(error)) => {
            assert_eq!(error, PointError::Before { offset: points[0].offset, first });
        }
        other => panic!("{:?}", other.map(|(journal, _)| journal.point())),
    }
    // What is in front of the point's segment is not read, so damage there is for `verify` to find.
    let segment = folder.path().join("0000000000000001.tgj");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert!(open(points[59], &mut seen).is_ok());
    assert!(scan(&mut Disk::open_read_only(folder.path()).unwrap(), |_| ControlFlow::Continue(())).is_err());
}

#[test]
fn batches_that_gather_are_all_on_disk_within_the_span() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Disk::open(folder.path()).unwrap(), small(), 1, |_| {}).unwrap();
    let options = CommitOptions { reserve_bytes: 0, ..CommitOptions::default() };
    // Longer than the test may take: only a half full queue, or the time to sync, makes the thread look.
    let gather = std::time::Duration::from_secs(3_600);
    let (told, tells) = flume::unbounded();
    let mut writer = Writer::start(
        Committer::new(journal, options),
        WriterOptions { gather, queue_max: 8 },
        move |positions, _| {
            let _ = told.send(positions.durable);
        },
    )
    .unwrap();
    let mut end = 0;
    for _ in 0..100 {
        let mut batch = first();
        end = loop {
            match writer.submit(batch, 1, 1) {
                Ok(end) => break end,
                Err(Refused::Busy(back)) => {
                    batch = back;
                    std::thread::yield_now();
                }
                Err(Refused::Gone(_)) => panic!("{:?}", writer.stats()),
            }
        };
    }
    while tells.recv().unwrap() < end {}
    assert_eq!((writer.durable(), writer.stop().positions.durable), (end, end));
}
