//! What only a class of a test's own shows: panics, and a worker that does not keep up.

use crate::batcher::start;
use crate::lane::Lane;
use crate::slab::{STEP, Slab, Task};
use crate::stats::Counts;
use crate::worker::Class;
use crate::{
    ClassSpec, Compute, Feeder, GpuPolicy, Options, Pushed, Results, Started, SurfaceSpec, SweepSpec, Waited,
    Window,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_gpu::Accel;

/// Slot, time, prices, and whether a result was wanted.
type Taken = (u32, u64, [i64; 3], bool);
type Given = Arc<Mutex<Vec<Taken>>>;

/// A class that keeps what it was given, once `go` lets it.
struct Kept {
    go: Receiver<()>,
    given: Given,
    panics_at: u64,
}

impl Class for Kept {
    fn run(&mut self, slab: &mut Slab, _: &Lane, _: &Counts) {
        // Without a sender it always goes.
        let _ = self.go.recv();
        for at in 0..slab.len() {
            let entry = slab.entry(at);
            assert_ne!(entry.time, self.panics_at, "a bar that this class cannot stand");
            if entry.slot == STEP {
                continue;
            }
            let wanted = entry.task == Task::Result;
            let prices = [entry.high, entry.low, entry.close];
            self.given.lock().unwrap().push((entry.slot, entry.time, prices, wanted));
            if wanted {
                slab.line(Some(entry.slot), entry.time)[0] = entry.close as f64;
            }
        }
    }
}

/// Classes of one row's surface each, in whose place are such that panic at a time of their own, 0 for never.
fn started(options: &Options, panics_at: &[u64]) -> (Started, Vec<Given>, Vec<Sender<()>>) {
    let surface = SurfaceSpec { specs: vec![SweepSpec::Rsi { window: 2 }], history: 4 };
    let members: Vec<u32> = (0..options.rows).collect();
    let spec = ClassSpec { name: "kept".to_owned(), members, compute: Compute::Surface(surface) };
    let (mut given, mut gates) = (Vec::new(), Vec::new());
    let made = panics_at.iter().map(|&panics_at| {
        let (gate, go) = channel();
        given.push(Given::default());
        gates.push(gate);
        Box::new(Kept { go, given: Arc::clone(&given[given.len() - 1]), panics_at }) as Box<dyn Class>
    });
    let made = made.collect();
    let specs = vec![spec; panics_at.len()];
    let accel = Accel::open(GpuPolicy::Off, 1).unwrap();
    (start(&specs, made, options, accel).unwrap(), given, gates)
}

fn push(feeder: &mut Feeder, row: u32, close_ts: u64, close: i64) -> Pushed {
    feeder.push(Window { row, close_ts, high: close + 1, low: close, close })
}

fn drain(results: &mut Results, mut each: impl FnMut(usize, u64, f64, u64)) {
    loop {
        while results.next(|outcome| {
            for (_, time, values) in outcome.lines() {
                each(outcome.class, time, values[0], outcome.gaps);
            }
        }) {}
        match results.wait(Duration::from_secs(60)) {
            Waited::Ended => break,
            Waited::Ready => {}
            Waited::TimedOut => panic!("no result and no end"),
        }
    }
}

#[test]
fn a_class_that_panics_gives_nothing_more_and_the_others_go_on() {
    let options = Options { rows: 2, max_batch: 1, ..Options::default() };
    let (Started { mut feeders, mut results, stats, handle }, _, gates) = started(&options, &[7, 0]);
    drop(gates);
    for time in 1..=50 {
        assert_eq!(push(&mut feeders[0], 0, time, 10), Pushed::Taken);
    }
    drop(feeders);
    let mut found = [Vec::new(), Vec::new()];
    drain(&mut results, |class, time, _, _| found[class].push(time));
    assert!(handle.join());
    assert_eq!(found[1], (1..=50).collect::<Vec<u64>>());
    assert!(found[0].iter().all(|&time| time < 7), "{:?}", found[0]);
    let why = stats.class(0).failed.unwrap();
    assert!(why.contains("a bar that this class cannot stand"), "{why}");
    assert_eq!(stats.class(1).failed, None);
}

/// The worker stands still while far more comes than may wait: nothing blocks, each row keeps its newest window, with the
/// highest and lowest price of those that became one with it, and every later result says how many did.
#[test]
fn windows_of_a_worker_that_stands_still_are_merged_and_counted() {
    let rows = 3;
    let options = Options { rows, backlog: 1, max_batch: 4, ..Options::default() };
    let (Started { mut feeders, mut results, stats, handle }, given, gates) = started(&options, &[0]);
    let windows = 900u64;
    for at in 0..windows {
        let (row, close) = ((at % 3) as u32, 1_000 + at as i64);
        assert_eq!(push(&mut feeders[0], row, at + 1, close), Pushed::Taken);
    }
    // Slabs hold sixteen of them, and fewer than 76 wait.
    while stats.class(0).merged < 700 {
        std::thread::yield_now();
    }
    drop(gates); // now it goes
    drop(feeders);
    let mut last = (0, 0.0, 0);
    drain(&mut results, |_, time, value, gaps| last = (time, value, gaps));
    assert!(handle.join());
    let merged = stats.class(0).merged;
    let given = given[0].lock().unwrap();
    assert_eq!(given.len() as u64 + merged, windows, "each window was given or became part of one");
    assert_eq!(last, (windows, 999.0 + windows as f64, merged));
    for row in 0..rows {
        let own: Vec<_> = given.iter().filter(|entry| entry.0 == row).collect();
        assert!(own.windows(2).all(|pair| pair[0].1 < pair[1].1), "in order");
        // Closes rise, so a window's lowest price is that of the first that became part of it.
        let mut first = 1_000 + i64::from(row);
        for (_, time, [high, low, close], _) in own {
            assert_eq!((*high, *low, *close), (close + 1, first, 999 + *time as i64));
            first = close + 3;
        }
    }
}

/// A ring that is full takes nothing, blocks nobody, and is told with all later results.
#[test]
fn a_full_ring_is_said_to_the_feeder_and_with_results() {
    let options = Options { rows: 1, ring: 4, ..Options::default() };
    let (Started { mut feeders, mut results, stats, handle }, given, gates) = started(&options, &[0]);
    drop(gates);
    let mut pushed = [0u64; 2];
    let mut time = 0;
    // However fast the batcher is, a ring of 4 is full now and then.
    while pushed[1] < 5 {
        time += 1;
        match push(&mut feeders[0], 0, time, 5) {
            Pushed::Taken => pushed[0] += 1,
            Pushed::Full => pushed[1] += 1,
            Pushed::Refused(why) => panic!("{why}"),
        }
        results.next(|_| ());
    }
    while push(&mut feeders[0], 0, time + 1, 5) == Pushed::Full {
        pushed[1] += 1;
    }
    drop(feeders);
    let mut gaps = 0;
    drain(&mut results, |_, _, _, own| gaps = own);
    assert!(handle.join());
    let merged = stats.class(0).merged;
    assert_eq!(given[0].lock().unwrap().len() as u64 + merged, pushed[0] + 1);
    assert_eq!((stats.lost(), gaps), (pushed[1], pushed[1] + merged));
}
