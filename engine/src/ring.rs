//! Single-producer single-consumer rings, in chunks, with counters and a named policy for a full ring.
//!
//! The ring itself is [`rtrb`]; what is ours is the policy, the counters and the closing handshake. Closing is two
//! steps whose order matters: the sender stores `closed` (Release) after its last push, and the receiver loads it
//! (Acquire) *before* its last look at the ring, so "closed and empty" means nothing can be left behind. The loom
//! model in the tests checks just that.

use crate::wake::Waker;
use crossbeam_utils::CachePadded;
use std::sync::OnceLock;
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What a sender does when the ring is full. Every ring names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPolicy {
    /// Offer again later: the caller holds the rest back, and so does its own source (back-pressure).
    Wait,
    /// Drop what does not fit and count it. For views that may skip, never for the log.
    DropNewest,
}

/// Counters of one ring, readable from any thread. Written once per chunk, each side its own cache line.
#[derive(Debug, Default)]
pub struct RingCounters {
    sent: CachePadded<AtomicU64>,
    full: CachePadded<AtomicU64>,
    dropped: CachePadded<AtomicU64>,
    received: CachePadded<AtomicU64>,
    closed: CachePadded<AtomicBool>,
    /// Set by the receiver, once.
    waker: OnceLock<Waker>,
}

/// What [`RingCounters`] said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Records pushed.
    pub sent: u64,
    /// Offers that found the ring full, wholly or in part.
    pub full: u64,
    /// Records dropped by [`FullPolicy::DropNewest`].
    pub dropped: u64,
    /// Records consumed.
    pub received: u64,
}

impl RingStats {
    /// Records in the ring.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

impl RingCounters {
    /// Reads all counters. `received` is read first, so depth is never negative.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        let received = self.received.load(Ordering::Acquire);
        RingStats {
            received,
            sent: self.sent.load(Ordering::Acquire),
            full: self.full.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The pushing end.
pub struct Sender<T> {
    ring: rtrb::Producer<T>,
    counters: Arc<RingCounters>,
    policy: FullPolicy,
    sent: u64,
    full: u64,
    dropped: u64,
}

/// The consuming end.
pub struct Receiver<T> {
    ring: rtrb::Consumer<T>,
    counters: Arc<RingCounters>,
    received: u64,
}

/// A ring of `capacity` records.
#[must_use]
pub fn ring<T>(capacity: usize, policy: FullPolicy) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    let counters = Arc::new(RingCounters::default());
    (
        Sender { ring: producer, counters: Arc::clone(&counters), policy, sent: 0, full: 0, dropped: 0 },
        Receiver { ring: consumer, counters, received: 0 },
    )
}

impl<T: Copy> Sender<T> {
    /// Offers records in order and returns how many were taken. Under [`FullPolicy::DropNewest`] the rest was
    /// dropped and counted, and the answer is all of them.
    pub fn offer(&mut self, records: &[T]) -> usize {
        let (_, rest) = self.ring.push_partial_slice(records);
        let taken = records.len() - rest.len();
        if taken > 0 {
            self.sent += taken as u64;
            // Only this thread writes these counters, so a plain store of the private copy is enough.
            self.counters.sent.store(self.sent, Ordering::Release);
            self.wake();
        }
        if rest.is_empty() {
            return taken;
        }
        self.full += 1;
        self.counters.full.store(self.full, Ordering::Relaxed);
        match self.policy {
            FullPolicy::Wait => taken,
            FullPolicy::DropNewest => {
                self.dropped += rest.len() as u64;
                self.counters.dropped.store(self.dropped, Ordering::Relaxed);
                records.len()
            }
        }
    }

    /// Offers everything, calling `idle` while the ring is full. Returns `false` when the receiver is gone; the rest
    /// was then not sent.
    pub fn send_all(&mut self, mut records: &[T], mut idle: impl FnMut()) -> bool {
        loop {
            let taken = self.offer(records);
            records = &records[taken..];
            if records.is_empty() {
                return true;
            }
            if self.ring.is_abandoned() {
                return false;
            }
            idle();
        }
    }
}

impl<T> Sender<T> {
    fn wake(&self) {
        if let Some(waker) = self.counters.waker.get() {
            waker.wake();
        }
    }

    /// Free places, at least.
    #[must_use]
    pub fn free(&self) -> usize {
        self.ring.slots()
    }

    /// Records pushed so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Places in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.buffer().capacity()
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// The ring's counters, for a metrics reader.
    #[must_use]
    pub fn counters(&self) -> Arc<RingCounters> {
        Arc::clone(&self.counters)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // After the last push in program order; pairs with the Acquire load in `Receiver::is_finished`.
        self.counters.closed.store(true, Ordering::Release);
        self.wake();
    }
}

impl<T> Receiver<T> {
    /// From now on the sender wakes a thread that sleeps, with every chunk and with its end. Only the first waker counts.
    pub fn wake_with(&self, waker: Waker) {
        let _ = self.counters.waker.set(waker);
    }

    /// Whether there is something to consume or the end to be seen.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.counters.closed.load(Ordering::Acquire) || !self.ring.is_empty()
    }

    /// Hands at most `max` records to `take` as two runs in ring order (the ring wraps) and frees them. Returns how many.
    pub fn drain(&mut self, max: usize, mut take: impl FnMut(&[T])) -> usize {
        let count = self.ring.slots().min(max);
        if count == 0 {
            return 0;
        }
        let Ok(chunk) = self.ring.read_chunk(count) else { return 0 };
        let (older, newer) = chunk.as_slices();
        take(older);
        if !newer.is_empty() {
            take(newer);
        }
        chunk.commit_all();
        self.received += count as u64;
        self.counters.received.store(self.received, Ordering::Release);
        count
    }

    /// Whether the sender is gone and everything it sent was consumed. Look at the flag first: a push made between
    /// an empty look and the flag would otherwise be lost.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.counters.closed.load(Ordering::Acquire) && self.ring.is_empty()
    }

    /// Records consumed so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Records waiting.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.ring.slots()
    }

    /// The ring's counters, for a metrics reader.
    #[must_use]
    pub fn counters(&self) -> Arc<RingCounters> {
        Arc::clone(&self.counters)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_or_reordered_across_threads() {
        let (mut sender, mut receiver) = ring::<u64>(64, FullPolicy::Wait);
        let producer = std::thread::spawn(move || {
            let records: Vec<u64> = (0..10_000).collect();
            for chunk in records.chunks(37) {
                assert!(sender.send_all(chunk, std::thread::yield_now));
            }
        });
        let mut next = 0;
        while !receiver.is_finished() {
            let count = receiver.drain(50, |run| {
                for &value in run {
                    assert_eq!(value, next);
                    next += 1;
                }
            });
            if count == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(next, 10_000);
        producer.join().unwrap();
    }

    #[test]
    fn a_full_ring_follows_its_policy() {
        let (mut waiting, _keep) = ring::<u8>(2, FullPolicy::Wait);
        assert_eq!(waiting.offer(&[1, 2, 3]), 2);
        let (mut dropping, _keep) = ring::<u8>(2, FullPolicy::DropNewest);
        assert_eq!(dropping.offer(&[1, 2, 3]), 3);
        let stats = dropping.counters().stats();
        assert_eq!((stats.sent, stats.full, stats.dropped, stats.depth()), (2, 1, 1, 2));
    }

    #[test]
    fn a_sender_learns_that_its_receiver_is_gone() {
        let (mut sender, receiver) = ring::<u8>(2, FullPolicy::Wait);
        drop(receiver);
        assert!(!sender.send_all(&[1, 2, 3], || panic!("must not wait for a receiver that is gone")));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// The closing handshake over a one-place ring modelled with loom's own cells: rtrb is tested by its authors, what
    /// is checked here is that flag-then-look never misses the last record. With the look before the flag it fails.
    #[test]
    fn closed_and_empty_means_everything_was_seen() {
        loom::model(|| {
            let counters = Arc::new(RingCounters::default());
            let tail = Arc::new(AtomicU64::new(0));
            let sender = {
                let (counters, tail) = (Arc::clone(&counters), Arc::clone(&tail));
                loom::thread::spawn(move || {
                    tail.store(1, Ordering::Release);
                    tail.store(2, Ordering::Release);
                    counters.closed.store(true, Ordering::Release);
                })
            };
            let mut head = 0;
            loop {
                let closed = counters.closed.load(Ordering::Acquire);
                let seen = tail.load(Ordering::Acquire);
                assert!(seen >= head, "records are consumed in order");
                head = seen;
                if closed {
                    break;
                }
                loom::thread::yield_now();
            }
            assert_eq!(head, 2, "the receiver stopped before the last record");
            sender.join().unwrap();
        });
    }
}
