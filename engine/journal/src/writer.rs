//! The thread `tg-journal`: group commit by the clock, fed over a bounded queue.

use crate::commit::{Committer, Health, Positions};
use crate::entry::Batch;
use crate::journal::Point;
use crate::log_store::LogStore;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Batches on their way to the thread.
    pub queue_max: usize,
    /// How long batches gather while a sync is waited for anyway, unless the queue is half full: written one by one, each would cost a
    /// call to the system and a thread woken. Zero for not at all.
    pub gather: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { queue_max: 256, gather: Duration::from_micros(200) }
    }
}

/// How the journal is, readable from anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// How far it is.
    pub positions: Positions,
    /// How it is.
    pub health: Health,
    /// Segments there are.
    pub segments: usize,
    /// Bytes of them, as set aside.
    pub bytes: u64,
    /// Offset of the oldest record.
    pub first_offset: u64,
}

impl WriterStats {
    fn of<L: LogStore>(committer: &Committer<L>) -> Self {
        let extent = committer.log().extent();
        Self {
            positions: committer.positions(),
            health: committer.health().clone(),
            segments: extent.segments,
            bytes: extent.bytes,
            first_offset: extent.first,
        }
    }
}

enum Input {
    Batch { batch: Batch, epoch: u32, ingest_ns: u64 },
    Barrier(flume::Sender<Point>),
    Retain { needed: u64, wall_ns: u64 },
    Stop,
}

struct Shared {
    written: AtomicU64,
    durable: AtomicU64,
    stopping: AtomicBool,
    stats: Mutex<WriterStats>,
}

/// The way to the journal. One owner: the log has one order.
pub struct Writer {
    inputs: flume::Sender<Input>,
    spare: flume::Receiver<Batch>,
    shared: Arc<Shared>,
    taken: u64,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A batch that was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full: the disk does not keep up, or is full. Keep the batch and wait.
    Busy(Batch),
    /// The disk failed, or the thread is gone.
    Gone(Batch),
}

impl Writer {
    /// Starts the thread. `moved` is called on it whenever positions or health have changed; it must not wait.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<L: LogStore + 'static>(
        committer: Committer<L>,
        options: WriterOptions,
        moved: impl FnMut(Positions, &Health) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (inputs, received) = flume::bounded(options.queue_max.max(1));
        let (spare_in, spare) = flume::bounded(options.queue_max.max(1));
        let positions = committer.positions();
        let shared = Arc::new(Shared {
            written: AtomicU64::new(positions.written),
            durable: AtomicU64::new(positions.durable),
            stopping: AtomicBool::new(false),
            stats: Mutex::new(WriterStats::of(&committer)),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("tg-journal".to_owned())
            .spawn(move || run(committer, options.gather, &received, &spare_in, &theirs, moved))?;
        Ok(Self { inputs, spare, shared, taken: positions.taken, thread: Some(thread) })
    }

    /// An empty batch to fill.
    #[must_use]
    pub fn spare(&self) -> Batch {
        self.spare.try_recv().unwrap_or_default()
    }

    /// Hands over a batch without waiting; returns the offset behind it. What is below [`Writer::durable`] is on disk.
    ///
    /// # Errors
    /// The batch, and why.
    pub fn submit(&mut self, batch: Batch, epoch: u32, ingest_ns: u64) -> Result<u64, Refused> {
        let count = u64::from(batch.count());
        match self.inputs.try_send(Input::Batch { batch, epoch, ingest_ns }) {
            Ok(()) => {
                self.taken += count;
                if self.inputs.len() * 2 >= self.inputs.capacity().unwrap_or(usize::MAX) {
                    self.wake();
                }
                Ok(self.taken)
            }
            Err(flume::TrySendError::Full(Input::Batch { batch, .. })) => Err(Refused::Busy(batch)),
            Err(flume::TrySendError::Disconnected(Input::Batch { batch, .. })) => Err(Refused::Gone(batch)),
            Err(_) => Err(Refused::Gone(Batch::new())),
        }
    }

    /// Asks for the point behind everything handed over, once it is on disk, whatever the policy of syncing; `reply` is dropped
    /// when the disk does not take it. Returns the point's offset; `None` when the queue is full or the thread gone, so try again.
    pub fn barrier(&self, reply: flume::Sender<Point>) -> Option<u64> {
        self.inputs.try_send(Input::Barrier(reply)).ok()?;
        self.wake();
        Some(self.taken)
    }

    /// Has the thread look into its queue now, if it lets batches gather.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Offset behind everything handed over.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Offset below which everything may be acknowledged as `durable`.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Offset below which everything survives the process.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// Nothing below `needed` is needed any more; says nothing when the queue is full, so say it again now and then.
    pub fn retain(&self, needed: u64, wall_ns: u64) {
        let _ = self.inputs.try_send(Input::Retain { needed, wall_ns });
    }

    /// How the journal is.
    #[must_use]
    pub fn stats(&self) -> WriterStats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes and syncs what was handed over, as far as the disk takes it, and ends the thread.
    #[must_use]
    pub fn stop(mut self) -> WriterStats {
        self.end();
        self.stats()
    }

    fn end(&mut self) {
        // A full queue wakes the thread anyway, and then it looks at the flag.
        self.shared.stopping.store(true, Ordering::Release);
        let _ = self.inputs.try_send(Input::Stop);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

fn run<L: LogStore>(
    mut committer: Committer<L>,
    gather: Duration,
    inputs: &flume::Receiver<Input>,
    spare: &flume::Sender<Batch>,
    shared: &Shared,
    mut moved: impl FnMut(Positions, &Health),
) {
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut told = None;
    let mut deadline: Option<u64> = None;
    let mut tell = |committer: &Committer<L>| {
        let state = WriterStats::of(committer);
        if told.as_ref() == Some(&state) {
            return;
        }
        shared.written.store(state.positions.written, Ordering::Release);
        shared.durable.store(state.positions.durable, Ordering::Release);
        moved(state.positions, &state.health);
        shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&state);
        told = Some(state);
    };
    loop {
        // A disk that takes nothing: the queue fills up behind it, and whoever feeds it waits.
        let waits = !committer.has_room();
        let left = deadline.map(|at| Duration::from_nanos(at.saturating_sub(now())));
        let input = match (waits, left) {
            (true, Some(left)) => {
                // Only the clock, or the end, can help; batches stay in the queue.
                std::thread::park_timeout(left);
                None
            }
            (true, None) => return, // failed, for good; the sender notices
            (false, Some(left)) if !gather.is_zero() && committer.awaits_sync() => {
                // Nobody waits at the queue, so nobody is woken with each batch that comes.
                if inputs.len() * 2 < inputs.capacity().unwrap_or(usize::MAX) {
                    std::thread::park_timeout(left.min(gather));
                }
                match inputs.try_recv() {
                    Ok(input) => Some(input),
                    Err(flume::TryRecvError::Empty) => None,
                    Err(flume::TryRecvError::Disconnected) => Some(Input::Stop),
                }
            }
            (false, Some(left)) => match inputs.recv_timeout(left) {
                Ok(input) => Some(input),
                Err(flume::RecvTimeoutError::Timeout) => None,
                Err(flume::RecvTimeoutError::Disconnected) => Some(Input::Stop),
            },
            (false, None) => Some(inputs.recv().unwrap_or(Input::Stop)),
        };
        let mut stop = false;
        let mut next = input;
        while let Some(input) = next {
            match input {
                Input::Batch { batch, epoch, ingest_ns } => {
                    // There is room, or it would not have been asked for; a failed disk is told below.
                    let _ = committer.submit(batch, epoch, ingest_ns);
                }
                Input::Barrier(reply) => {
                    // What fails here fails again with the next turn, which tells.
                    if committer.finish(now()).is_ok() {
                        // Whoever hears of the point may ask how far the journal is.
                        tell(&committer);
                        let _ = reply.try_send(committer.log().point());
                    }
                }
                Input::Retain { needed, wall_ns } => {
                    let _ = committer.retain(needed, wall_ns);
                }
                Input::Stop => stop = true,
            }
            next = if committer.has_room() { inputs.try_recv().ok() } else { None };
        }
        if shared.stopping.load(Ordering::Acquire) {
            stop = true;
            while committer.has_room()
                && let Ok(input) = inputs.try_recv()
            {
                match input {
                    Input::Batch { batch, epoch, ingest_ns } => {
                        let _ = committer.submit(batch, epoch, ingest_ns);
                    }
                    Input::Barrier(reply) => {
                        if committer.finish(now()).is_ok() {
                            let _ = reply.try_send(committer.log().point());
                        }
                    }
                    Input::Retain { .. } | Input::Stop => {}
                }
            }
        }
        if stop {
            let _ = committer.finish(now());
            tell(&committer);
            return;
        }
        deadline = committer.turn(now());
        tell(&committer);
        while !spare.is_full() {
            let Some(batch) = committer.take_spare() else { break };
            if spare.try_send(batch).is_err() {
                break;
            }
        }
    }
}
