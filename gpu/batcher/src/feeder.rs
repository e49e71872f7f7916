//! The end of the batcher that a shard holds.

use crate::signal::Signal;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A closed window of a row, prices in 1e-9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The row.
    pub row: u32,
    /// Its end, in nanoseconds; above 0.
    pub close_ts: u64,
    /// Highest price.
    pub high: i64,
    /// Lowest price, above 0.
    pub low: i64,
    /// Last price.
    pub close: i64,
}

/// What became of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is on its way.
    Taken,
    /// The ring was full: it is lost, which is counted and told with all later results.
    Full,
    /// It cannot be: counted, and nothing is changed.
    Refused(Refusal),
}

/// Why a window cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such row.
    #[error("there is no row {0}")]
    Row(u32),
    /// A window ends after time began.
    #[error("the window ends at 0")]
    Time,
    /// Prices are above 0, the highest is the highest, and the lowest is the lowest.
    #[error("high, low and close do not agree, or are not above 0")]
    Prices,
}

/// A window in a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) window: Window,
    pub(crate) arrived: u64,
}

/// What a feeder and the batcher share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// No window up to here is still to come.
    pub(crate) watermark: AtomicU64,
    /// Windows that found the ring full.
    pub(crate) lost: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Takes the closed windows of one shard. Never blocks and never allocates. When it is dropped nothing more is to come from it.
#[derive(Debug)]
pub struct Feeder {
    ring: Producer<Sent>,
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    /// The earliest end of a window that waits for watermarks.
    awaited: Arc<AtomicU64>,
    rows: u32,
    began: Instant,
}

/// The batcher's side of it.
#[derive(Debug)]
pub(crate) struct Inlet {
    pub(crate) ring: Consumer<Sent>,
    pub(crate) shared: Arc<Shared>,
    /// Its watermark when the ring was last emptied.
    pub(crate) seen: u64,
}

pub(crate) fn feeder(
    windows: usize,
    rows: u32,
    began: Instant,
    signal: &Arc<Signal>,
    awaited: &Arc<AtomicU64>,
) -> (Feeder, Inlet) {
    let (producer, consumer) = RingBuffer::new(windows);
    let shared = Arc::new(Shared::default());
    let (signal, awaited) = (Arc::clone(signal), Arc::clone(awaited));
    let inlet = Inlet { ring: consumer, shared: Arc::clone(&shared), seen: 0 };
    (Feeder { ring: producer, shared, signal, awaited, rows, began }, inlet)
}

impl Feeder {
    /// Hands over a closed window, or one that was amended. Windows of one row come from one feeder.
    pub fn push(&mut self, window: Window) -> Pushed {
        let Window { high, low, close, .. } = window;
        if low <= 0 || low > close || close > high {
            return self.refuse(Refusal::Prices);
        }
        self.send(window)
    }

    /// Says that all trades of a window handed over before were taken back.
    pub fn withdraw(&mut self, row: u32, close_ts: u64) -> Pushed {
        self.send(Window { row, close_ts, high: 0, low: 0, close: 0 })
    }

    /// Says that every window up to `ts` was handed over; what still comes with such an end is late. Never moves back.
    pub fn watermark(&mut self, ts: u64) {
        // The end of time is said by dropping it alone.
        let ts = ts.min(u64::MAX - 1);
        if ts > self.shared.watermark.load(Ordering::Relaxed) {
            // After the windows, for who reads this first and the ring then.
            self.shared.watermark.store(ts, Ordering::SeqCst);
            if ts >= self.awaited.load(Ordering::SeqCst) {
                self.signal.raise();
            }
        }
    }

    fn send(&mut self, window: Window) -> Pushed {
        if window.row >= self.rows {
            return self.refuse(Refusal::Row(window.row));
        }
        if window.close_ts == 0 {
            return self.refuse(Refusal::Time);
        }
        let arrived = self.began.elapsed().as_nanos() as u64;
        if self.ring.push(Sent { window, arrived }).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return Pushed::Full;
        }
        self.signal.raise();
        Pushed::Taken
    }

    fn refuse(&mut self, refusal: Refusal) -> Pushed {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        Pushed::Refused(refusal)
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // The ring is seen as abandoned only once it is dropped, which is after this: so the end is said here.
        self.shared.watermark.store(u64::MAX, Ordering::SeqCst);
        self.signal.raise();
    }
}
