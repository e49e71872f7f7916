//! What a user of the crate can call, on a simulated disk's bad days, against a model that just keeps everything.

use std::ops::ControlFlow;
use tidegate_engine::Event;
use tidegate_journal::commit::CommitOptions;
use tidegate_journal::sim::{Random, SimDisk};
use tidegate_journal::{
    Batch, Committer, Entry, Health, Journal, JournalOptions, OpenError, ScanError, SyncPolicy, Tail, scan,
};

const SEGMENT: u64 = 8 << 10;

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: SEGMENT, lineage: 42, ..JournalOptions::default() }
}

fn event(number: u64) -> Event {
    Event { ts_event: number, key: 3, source: 0, kind: 1, flags: 0, payload: [number ^ 99, u64::MAX] }
}

/// A batch with events numbered from `first` on.
fn batch(first: u64, count: u64) -> Batch {
    let mut batch = Batch::new();
    let events: Vec<Event> = (first..first + count).map(event).collect();
    assert!(batch.events(0, first, 4, &events));
    batch
}

/// Event numbers of a journal, in order; they count from 0 and each record is one event, so number and offset are the same.
fn numbers(disk: &SimDisk) -> Result<(Vec<u64>, Tail), ScanError> {
    let mut found = Vec::new();
    let scan = scan(&mut disk.clone(), |view| {
        for entry in view.entries() {
            let Ok(Entry::Events { sequence, events, .. }) = entry else { panic!("{entry:?}") };
            for (at, read) in events.iter().enumerate() {
                assert_eq!(read, event(sequence + at as u64));
                found.push(read.ts_event);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, scan.map_or(Tail::Clean, |scan| scan.tail)))
}

fn open(disk: &SimDisk, commit: CommitOptions) -> Result<Committer<Journal<SimDisk>>, OpenError> {
    Journal::open(disk.clone(), options(), 0, |_| {}).map(|(journal, _)| Committer::new(journal, commit))
}

/// Lives of a journal through losses of power: what was acknowledged as durable is there after each, what is there is what
/// was written, and a journal of one's own is never called damaged.
#[test]
fn a_loss_of_power_takes_nothing_that_was_acknowledged() {
    let (mut torn, mut lost_some) = (0, 0);
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let disk = SimDisk::new(1 << 20);
        let sync = [SyncPolicy::Always, SyncPolicy::Every(5), SyncPolicy::Never][random.below(3) as usize];
        let commit = CommitOptions { sync, reserve_bytes: 0, ..CommitOptions::default() };
        let mut next = 0;
        for _life in 0..4 {
            let mut committer = open(&disk, commit).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(committer.positions().taken, next, "seed {seed}");
            let mut now = 0;
            for _ in 0..random.below(30) {
                for _ in 0..random.below(4) {
                    let count = 1 + random.below(40);
                    committer.submit(batch(next, count), 1, 0).unwrap();
                    next += count;
                }
                now += random.below(4);
                committer.turn(now);
            }
            let durable = committer.positions().durable;
            drop(committer);
            disk.lose_power(&mut random);
            let (found, tail) = numbers(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(found.len() as u64 >= durable, "seed {seed}: {} of {durable}", found.len());
            assert!(found.iter().copied().eq(0..found.len() as u64), "seed {seed}");
            torn += u64::from(tail != Tail::Clean);
            lost_some += u64::from((found.len() as u64) < next);
            next = found.len() as u64;
        }
    }
    assert!(torn > 500 && lost_some > 500, "the disk was too kind: {torn} torn, {lost_some} shorter");
}

/// A small journal of several segments, with torn writes behind its end or not; what was synced.
fn small(seed: u64) -> (SimDisk, u64, u64) {
    let mut random = Random(seed);
    let disk = SimDisk::new(1 << 20);
    let commit = CommitOptions { sync: SyncPolicy::Every(2), reserve_bytes: 0, ..CommitOptions::default() };
    let mut committer = open(&disk, commit).unwrap();
    let mut next = 0;
    for now in 0..30 {
        let count = 1 + random.below(25);
        committer.submit(batch(next, count), 1, 0).unwrap();
        next += count;
        committer.turn(now);
    }
    let durable = committer.positions().durable;
    disk.lose_power(&mut random);
    (disk, durable, next)
}

/// After any one flipped bit, anywhere: all that was durable is there as it was, or the journal is refused.
#[test]
fn a_flipped_bit_never_makes_a_journal_lie() {
    let (disk, durable, _) = small(3);
    let segments = (0..).take_while(|index| disk.content(*index).is_some()).count() as u64;
    assert!(segments > 1);
    let (mut refused, mut fine) = (0, 0);
    for index in 0..segments {
        for bit in (0..SEGMENT * 8).step_by(3) {
            disk.flip(index, bit);
            match numbers(&disk) {
                Ok((found, _)) => {
                    assert!(found.len() as u64 >= durable, "segment {index} bit {bit}: {}", found.len());
                    assert!(found.iter().copied().eq(0..found.len() as u64));
                    fine += 1;
                }
                Err(ScanError::Damage(damage)) => {
                    assert!(damage.segment <= index && damage.at <= SEGMENT, "{damage}");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
            disk.flip(index, bit);
        }
    }
    assert!(refused > fine, "{refused} refused, {fine} fine");
}

/// A journal cut off at any byte of any segment: recovered as far as it goes when it is the last one, refused otherwise,
/// because then later segments show what is gone.
#[test]
fn a_cut_at_any_byte_is_recovered_or_refused() {
    let (disk, durable, _) = small(5);
    let segments = (0..).take_while(|index| disk.content(*index).is_some()).count() as u64;
    for index in 0..segments {
        let whole = disk.content(index).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for cut in 0..whole.len() {
            disk.put(index, whole[..cut].to_vec());
            match numbers(&disk) {
                Ok((found, _)) => {
                    assert!(found.iter().copied().eq(0..found.len() as u64));
                    // A file that lost its end is as one that was never written there: peers or backups know better.
                    assert!(
                        found.len() as u64 >= durable || index + 1 == segments && cut < used,
                        "cut {cut}"
                    );
                    if index + 1 == segments && cut >= 128 {
                        assert!(open(&disk, CommitOptions::default()).is_ok(), "cut {cut} goes on");
                    }
                }
                Err(ScanError::Damage(damage)) => {
                    assert!(index + 1 < segments || cut < 128, "cut {cut}: {damage}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        disk.put(index, whole);
    }
}

#[test]
fn segments_that_are_missing_swapped_or_of_another_log_are_refused() {
    let (disk, ..) = small(5);
    let first = disk.content(0).unwrap();
    let second = disk.content(1).unwrap();
    let damaged = |what: &str| match numbers(&disk) {
        Err(ScanError::Damage(damage)) => assert!(damage.to_string().contains(what), "{damage}"),
        other => panic!("{what}: {other:?}"),
    };
    disk.put(1, first.clone());
    damaged("the number in the header is 0, expected 1");
    disk.put(1, second.clone());
    let last = (0..).take_while(|index| disk.content(*index).is_some()).last().unwrap();
    let mut hole = disk.clone();
    tidegate_journal::Storage::remove(&mut hole, 1).unwrap();
    if last > 1 {
        damaged("the number of the segment is 2, expected 1");
    }
    disk.put(1, second.clone());
    // The same numbers, other contents: only the chain tells.
    let other = SimDisk::new(1 << 20);
    let mut committer = open(&other, CommitOptions { reserve_bytes: 0, ..CommitOptions::default() }).unwrap();
    let mut scanned = Vec::new();
    scan(&mut disk.clone(), |view| {
        scanned.push(view.info.count);
        ControlFlow::Continue(())
    })
    .unwrap();
    let mut next = 1_000_000;
    for count in scanned {
        committer.submit(batch(next, u64::from(count)), 1, 0).unwrap();
        next += u64::from(count);
        committer.turn(0);
    }
    disk.put(1, other.content(1).unwrap());
    damaged("the chain of hashes breaks");
}

#[test]
fn a_failed_sync_ends_all_promises_until_the_journal_is_read_anew() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let disk = SimDisk::new(1 << 20);
        let commit = CommitOptions { sync: SyncPolicy::Always, reserve_bytes: 0, ..CommitOptions::default() };
        let mut committer = open(&disk, commit).unwrap();
        disk.fail_sync_after(3);
        let mut next = 0;
        for now in 0..8 {
            let count = 1 + random.below(60);
            match committer.submit(batch(next, count), 1, 0) {
                Ok(()) => next += count,
                Err(_) => assert!(matches!(committer.health(), Health::Failed(_))),
            }
            committer.turn(now);
        }
        let Health::Failed(words) = committer.health() else { panic!("{:?}", committer.health()) };
        assert!(words.ends_with(": the device reports an error"), "{words}");
        let durable = committer.positions().durable;
        assert!(durable < next && disk.syncs() == 4, "no second try");
        assert!(!committer.has_room() && committer.finish(9).is_err());
        drop(committer);
        disk.lose_power(&mut random);
        let (found, _) = numbers(&disk).unwrap();
        assert!(found.len() as u64 >= durable);
        let committer = open(&disk, commit).unwrap();
        assert_eq!(committer.positions().durable, found.len() as u64);
    }
}

#[test]
fn a_full_disk_stops_promises_at_the_reserve_keeps_what_comes_and_goes_on_without_a_restart() {
    let disk = SimDisk::new(8 * SEGMENT);
    let commit = CommitOptions {
        sync: SyncPolicy::Always,
        reserve_bytes: 3 * SEGMENT,
        backlog_bytes: 3_000,
        space_check_ns: 1,
    };
    let mut committer = open(&disk, commit).unwrap();
    let (mut next, mut now, mut seen) = (0, 0, vec![]);
    let mut durable_at_reserve = None;
    loop {
        let before = committer.positions();
        match committer.submit(batch(next, 20), 1, 0) {
            Ok(()) => next += 20,
            Err(given_back) => {
                assert_eq!(given_back, batch(next, 20), "the batch comes back as it was");
                break;
            }
        }
        now += 1;
        committer.turn(now);
        if seen.last() != Some(committer.health()) {
            seen.push(committer.health().clone());
        }
        let after = committer.positions();
        assert!(after.durable >= before.durable && after.written >= before.written);
        if *committer.health() != Health::Working {
            let frozen = *durable_at_reserve.get_or_insert(after.durable);
            assert_eq!(after.durable, frozen, "no promise on the reserve");
        }
    }
    assert_eq!(seen, [Health::Working, Health::Reserve, Health::Full]);
    let full = committer.positions();
    assert!(full.written > full.durable && full.taken > full.written && full.taken == next);
    // Somebody makes room; nobody restarts anything.
    disk.set_capacity(40 * SEGMENT);
    for _ in 0..4 {
        now += 1;
        committer.turn(now);
    }
    assert_eq!(*committer.health(), Health::Working);
    assert_eq!(committer.positions().durable, next);
    committer.submit(batch(next, 20), 1, 0).unwrap();
    committer.turn(now + 1);
    assert_eq!(committer.positions().durable, next + 20);
    let (found, _) = numbers(&disk).unwrap();
    assert!(found.iter().copied().eq(0..next + 20));
}

#[test]
fn retention_keeps_what_is_needed_and_the_rest_reads_on() {
    let disk = SimDisk::new(1 << 20);
    let kept = JournalOptions { retain_bytes: 3 * SEGMENT, retain_ns: 500, ..options() };
    let (journal, _) = Journal::open(disk.clone(), kept.clone(), 0, |_| {}).unwrap();
    let commit = CommitOptions { sync: SyncPolicy::Always, reserve_bytes: 0, ..CommitOptions::default() };
    let mut committer = Committer::new(journal, commit);
    for number in 0..100 {
        committer.submit(batch(number * 20, 20), 1, number).unwrap();
        committer.turn(number);
    }
    let all = committer.log().segments();
    assert!(all > 6);
    assert_eq!(committer.retain(0, 100).unwrap(), 0, "everything is needed to rebuild the state");
    assert_eq!(
        committer.retain(700, 100).unwrap(),
        (700 / 220).min(all - 3),
        "whole segments in front of it"
    );
    assert_eq!(committer.retain(2_000, 100).unwrap() + 700 / 220, all - 3, "down to the bound");
    let first = committer.log().first_offset();
    assert_eq!(committer.retain(2_000, 10_000).unwrap(), 2, "too old, but for the last");
    drop(committer);
    let (found, _) = numbers(&disk).unwrap();
    assert!(found[0] > first && *found.last().unwrap() == 1_999);
    let (journal, scan) = Journal::open(disk, kept, 0, |_| {}).unwrap();
    assert_eq!(journal.first_offset(), found[0]);
    assert_eq!(scan.unwrap().records(), 2_000 - found[0]);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let disk = SimDisk::new(1 << 20);
    let commit = CommitOptions { reserve_bytes: 0, ..CommitOptions::default() };
    let mut committer = open(&disk, commit).unwrap();
    for (first, count) in [(0, 5), (5, 1_000), (1_005, 5)] {
        committer.submit(batch(first, count), 1, 0).unwrap();
        committer.turn(0);
    }
    committer.finish(1).unwrap();
    assert_eq!(committer.log().segments(), 3);
    assert_eq!(numbers(&disk).unwrap().0.len(), 1_010);
}

#[test]
fn an_older_epoch_is_refused() {
    let disk = SimDisk::new(1 << 20);
    let (mut journal, _) = Journal::open(disk, options(), 0, |_| {}).unwrap();
    journal.append(&batch(0, 1), 5, 0).unwrap();
    let error = journal.append(&batch(1, 1), 4, 0).unwrap_err();
    assert_eq!(error.to_string(), "epoch 4 of a batch is older than 5");
    assert_eq!(journal.append(&batch(1, 1), 5, 0).unwrap(), 1);
}
