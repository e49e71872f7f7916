//! The batcher's thread: it empties the feeders' rings, knows which time steps are complete, and hands slabs to the classes.

use crate::cross::{Risk, Spectrum};
use crate::feeder::{Feeder, Inlet, feeder};
use crate::lane::Lane;
use crate::queue::{Queue, SLABS, Ways};
use crate::results::{Outlet, Results};
use crate::signal::Signal;
use crate::stats::{Counts, Stats};
use crate::surface::Surface;
use crate::worker::{Class, Worker};
use crate::{BatcherError, ClassSpec, Compute, Options};
use rtrb::RingBuffer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_gpu::{Accel, GpuPolicy};

/// What starts.
#[derive(Debug)]
pub struct Batcher;

/// What was started: the ends that others hold.
#[derive(Debug)]
pub struct Started {
    /// One per thread that pushes windows.
    pub feeders: Vec<Feeder>,
    /// For whoever takes the results.
    pub results: Results,
    /// For whoever looks.
    pub stats: Stats,
    /// For whoever waits for the end.
    pub handle: Handle,
}

/// Waits for the batcher's end. To be dropped where nobody does.
#[derive(Debug)]
pub struct Handle {
    thread: JoinHandle<()>,
}

impl Handle {
    /// Waits until every thread has ended: the feeders are dropped, and the results taken or dropped as well. Says whether
    /// they ended as they should.
    #[must_use]
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

impl Batcher {
    /// Starts a thread for the batcher and one for each class; `policy` says whether to look for a device.
    ///
    /// # Errors
    /// [`BatcherError`], before any thread of its own was started where the request is wrong.
    pub fn start(
        classes: Vec<ClassSpec>,
        options: Options,
        policy: GpuPolicy,
    ) -> Result<Started, BatcherError> {
        options.check(&classes)?;
        let accel = Accel::open(policy, options.threads)?;
        let mut made: Vec<Box<dyn Class>> = Vec::with_capacity(classes.len());
        for class in &classes {
            made.push(match &class.compute {
                Compute::Surface(surface) => Box::new(Surface::new(&class.members, surface, &options)?),
                Compute::Spectrum(spectrum) => {
                    Box::new(Spectrum::new(&class.name, class.members.len(), spectrum)?)
                }
                Compute::Risk(risk) => Box::new(Risk::new(class.members.len(), risk, &options)),
            });
        }
        start(&classes, made, &options, accel)
    }
}

/// Starts classes that are made.
pub(crate) fn start(
    classes: &[ClassSpec],
    made: Vec<Box<dyn Class>>,
    options: &Options,
    accel: Accel,
) -> Result<Started, BatcherError> {
    let began = Instant::now();
    let accel = Arc::new(accel);
    let lane = Arc::new(Lane::new(Arc::clone(&accel)));
    let (own, reader) = (Arc::new(Signal::default()), Arc::new(Signal::default()));
    let open = Arc::new(AtomicBool::new(true));
    let awaited = Arc::new(AtomicU64::new(u64::MAX));
    let mut counts = Vec::with_capacity(made.len());
    let mut outlets = Vec::with_capacity(made.len());
    let mut queues = Vec::with_capacity(made.len());
    let mut workers = Vec::with_capacity(made.len());
    for (spec, class) in classes.iter().zip(made) {
        let count = Arc::new(Counts::default());
        count.worthwhile.store(crate::route::WORTHWHILE, Ordering::Relaxed);
        let (work, to_do) = RingBuffer::new(SLABS);
        let (done, results) = RingBuffer::new(SLABS);
        let (spare, unread) = RingBuffer::new(SLABS);
        let (free, read) = RingBuffer::new(SLABS);
        let signal = Arc::new(Signal::default());
        let worker = Worker {
            class,
            lane: Arc::clone(&lane),
            counts: Arc::clone(&count),
            work: to_do,
            done,
            spare,
            own: Arc::clone(&signal),
            batcher: Arc::clone(&own),
            results: Arc::clone(&reader),
            began,
            open: Arc::clone(&open),
        };
        let name = format!("batch-{}", spec.name);
        // Should a later thread not start, this one ends with its ring.
        workers.push((thread(name, move || worker.run())?, Arc::clone(&signal)));
        let ways = Ways { work, back: [unread, read], counts: Arc::clone(&count), worker: signal };
        let by_step = !matches!(spec.compute, Compute::Surface(_));
        queues.push(Queue::new(by_step, spec.members.len(), spec.width(), ways, options));
        outlets.push(Outlet { done: results, free });
        counts.push(count);
    }
    let (feeders, inlets): (Vec<_>, Vec<_>) =
        (0..options.feeders).map(|_| feeder(options.ring, options.rows, began, &own, &awaited)).unzip();
    let stats = Stats {
        accel,
        classes: counts.into(),
        feeders: inlets.iter().map(|inlet| Arc::clone(&inlet.shared)).collect(),
    };
    let results = Results {
        outlets,
        next: 0,
        own: reader,
        batcher: Arc::clone(&own),
        began,
        columns: classes.iter().map(ClassSpec::columns).collect(),
        open: Arc::clone(&open),
    };
    let targets = Targets::new(options.rows, classes);
    let state = State { inlets, queues, targets, own, awaited, open, began, workers };
    let handle = Handle { thread: thread("batcher".to_owned(), move || state.run())? };
    Ok(Started { feeders, results, stats, handle })
}

fn thread(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BatcherError> {
    let started = std::thread::Builder::new().name(name.clone()).spawn(work);
    started.map_err(|error| BatcherError::Thread { name, reason: error.to_string() })
}

/// Which classes want a row, and as which of their members.
struct Targets {
    starts: Vec<u32>,
    /// Class and slot.
    of: Vec<(u32, u32)>,
}

impl Targets {
    fn new(rows: u32, classes: &[ClassSpec]) -> Self {
        let members = || {
            classes.iter().zip(0u32..).flat_map(|(class, index)| {
                class.members.iter().zip(0u32..).map(move |(&row, slot)| (row, index, slot))
            })
        };
        let mut starts = vec![0u32; rows as usize + 1];
        members().for_each(|(row, ..)| starts[row as usize + 1] += 1);
        for row in 0..rows as usize {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut of = vec![(0, 0); members().count()];
        for (row, class, slot) in members() {
            of[next[row as usize] as usize] = (class, slot);
            next[row as usize] += 1;
        }
        Self { starts, of }
    }

    fn of(&self, row: u32) -> &[(u32, u32)] {
        &self.of[self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize]
    }
}

struct State {
    inlets: Vec<Inlet>,
    queues: Vec<Queue>,
    targets: Targets,
    own: Arc<Signal>,
    awaited: Arc<AtomicU64>,
    open: Arc<AtomicBool>,
    began: Instant,
    workers: Vec<(JoinHandle<()>, Arc<Signal>)>,
}

impl State {
    fn run(mut self) {
        loop {
            let seen = self.own.seen();
            let ended = self.empty_rings();
            let watermark = self.inlets.iter().map(|inlet| inlet.seen).min().unwrap_or(u64::MAX);
            let read = self.open.load(Ordering::SeqCst);
            let lost = self.inlets.iter().map(|inlet| inlet.shared.lost.load(Ordering::Relaxed)).sum();
            let now = self.began.elapsed().as_nanos() as u64;
            let mut due: Option<u64> = None;
            for queue in &mut self.queues {
                queue.complete(watermark);
                let next = queue.hand_over(now, lost, ended, read);
                due = match (due, next) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            if ended && !self.queues.iter().any(|queue| queue.waits(read)) {
                break;
            }
            let awaited = self.queues.iter().map(Queue::awaited).min().unwrap_or(u64::MAX);
            self.awaited.store(awaited, Ordering::SeqCst);
            // A watermark that moved before this was said wakes nobody.
            let moved = |inlet: &Inlet| inlet.shared.watermark.load(Ordering::SeqCst) >= awaited;
            if awaited < u64::MAX && self.inlets.iter().all(moved) {
                continue;
            }
            let now = self.began.elapsed().as_nanos() as u64;
            let longest = due.map(|due| Duration::from_nanos(due.saturating_sub(now)));
            if longest != Some(Duration::ZERO) {
                self.own.wait(seen, longest);
            }
        }
        // Without their rings the workers come to their end.
        drop(self.queues);
        for (worker, signal) in self.workers {
            signal.raise();
            let _ = worker.join();
        }
    }

    /// Takes all windows that are there. Says whether none will come any more.
    fn empty_rings(&mut self) -> bool {
        let mut ended = true;
        for inlet in &mut self.inlets {
            // Before the ring: what it speaks of is in there then.
            let watermark = inlet.shared.watermark.load(Ordering::SeqCst);
            for _ in 0..inlet.ring.slots() {
                let Ok(sent) = inlet.ring.pop() else { break };
                for &(class, slot) in self.targets.of(sent.window.row) {
                    self.queues[class as usize].take(slot, &sent);
                }
            }
            inlet.seen = watermark;
            ended &= watermark == u64::MAX;
        }
        ended
    }
}
