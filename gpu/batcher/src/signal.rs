//! Waking a thread that sleeps for want of work, at the cost of one counter while it does not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// What one thread waits for and any other may raise.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// How often it was raised.
    raised: AtomicU64,
    asleep: AtomicBool,
    /// Who sleeps. Locked by who sleeps and by the one that wakes it.
    thread: Mutex<Option<Thread>>,
}

impl Signal {
    /// To be asked before looking for work, so that what comes while looking is not slept through.
    pub(crate) fn seen(&self) -> u64 {
        self.raised.load(Ordering::SeqCst)
    }

    /// There is work. In the one order of all these operations either the sleeper sees the count or this sees the sleeper.
    pub(crate) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(thread) = thread.as_ref() {
                thread.unpark();
            }
        }
    }

    /// Sleeps unless it was raised since `seen`, at most for `longest`. May wake for nothing.
    pub(crate) fn wait(&self, seen: u64, longest: Option<Duration>) {
        let current = std::thread::current();
        {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if thread.as_ref().is_none_or(|known| known.id() != current.id()) {
                *thread = Some(current);
            }
        }
        self.asleep.store(true, Ordering::SeqCst);
        if self.raised.load(Ordering::SeqCst) == seen {
            match longest {
                Some(longest) => std::thread::park_timeout(longest),
                None => std::thread::park(),
            }
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
