//! Waking a thread that sleeps because its rings are empty, at the price of a look at a flag per chunk while it is awake.
//!
//! The sleeper says that it is about to sleep, and looks at its rings once more; the waker has put its records into the ring
//! before it looks at the flag. A full fence between the two steps on either side makes sure that at least one of them sees
//! the other: no chunk waits for the end of a sleep. The loom model in the tests checks just that.

#[cfg(not(loom))]
use crossbeam_utils::{
    CachePadded,
    sync::{Parker, Unparker},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(loom)]
use model::{CachePadded, Parker, Unparker};

use std::time::Duration;

/// The waiting side. One per thread, whatever it waits for.
pub struct Sleeper {
    parker: Parker,
    asleep: Arc<CachePadded<AtomicBool>>,
}

/// The other side; one for everybody who hands work to the thread.
#[derive(Clone)]
pub struct Waker {
    unparker: Unparker,
    asleep: Arc<CachePadded<AtomicBool>>,
}

impl Default for Sleeper {
    fn default() -> Self {
        Self { parker: Parker::new(), asleep: Arc::new(CachePadded::new(AtomicBool::new(false))) }
    }
}

impl Sleeper {
    /// A waker for this thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { unparker: self.parker.unparker().clone(), asleep: Arc::clone(&self.asleep) }
    }

    /// Sleeps until woken, for at most `longest`, unless there is work: `has_work` is asked after everybody can know that this
    /// thread is about to sleep. May return early.
    pub fn sleep(&self, longest: Duration, has_work: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !has_work() {
            self.parker.park_timeout(longest);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl Waker {
    /// Call after work was handed over. Costs a fence and a look; only a sleeping thread costs more.
    #[inline]
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.unpark();
        }
    }

    #[cold]
    fn unpark(&self) {
        // Whoever comes next need not wake it again. Should the sleeper have woken and gone to sleep again in between, it
        // finds the token and looks at its rings.
        self.asleep.store(false, Ordering::Relaxed);
        self.unparker.unpark();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::ring::{FullPolicy, ring};
    use crate::wake::Sleeper;
    use std::time::Duration;

    /// Sleeps of an hour: were a wake-up lost, this would not end.
    #[test]
    fn no_chunk_waits_for_the_end_of_a_sleep() {
        let (mut there, mut inlet) = ring::<u64>(8, FullPolicy::Wait);
        let (mut back, mut answers) = ring::<u64>(8, FullPolicy::Wait);
        let sleeper = Sleeper::default();
        inlet.wake_with(sleeper.waker());
        let echo = std::thread::spawn(move || {
            loop {
                let finished = inlet.is_finished();
                let taken = inlet.drain(8, |run| assert!(back.send_all(run, || unreachable!())));
                if finished {
                    return;
                }
                if taken == 0 {
                    sleeper.sleep(Duration::from_secs(3_600), || inlet.has_work());
                }
            }
        });
        let sleeper = Sleeper::default();
        answers.wake_with(sleeper.waker());
        for at in 0..20_000u64 {
            assert_eq!(there.offer(&[at]), 1);
            let mut got = None;
            while got.is_none() {
                answers.drain(1, |run| got = run.first().copied());
                if got.is_none() {
                    sleeper.sleep(Duration::from_secs(3_600), || answers.has_work());
                }
            }
            assert_eq!(got, Some(at));
        }
        drop(there);
        echo.join().unwrap();
    }
}

/// What loom can run of a parker: without time, so that a lost wake-up is a deadlock that it reports.
#[cfg(loom)]
mod model {
    use loom::sync::{Arc, Condvar, Mutex};

    pub(super) struct CachePadded<T>(T);

    impl<T> CachePadded<T> {
        pub(super) fn new(value: T) -> Self {
            Self(value)
        }
    }

    impl<T> std::ops::Deref for CachePadded<T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }

    type Token = Arc<(Mutex<bool>, Condvar)>;

    #[derive(Clone)]
    pub(super) struct Unparker(Token);

    pub(super) struct Parker(Unparker);

    impl Parker {
        pub(super) fn new() -> Self {
            Self(Unparker(Arc::new((Mutex::new(false), Condvar::new()))))
        }

        pub(super) fn unparker(&self) -> &Unparker {
            &self.0
        }

        pub(super) fn park_timeout(&self, _: std::time::Duration) {
            let (token, woken) = &*self.0.0;
            let mut token = token.lock().unwrap();
            while !*token {
                token = woken.wait(token).unwrap();
            }
            *token = false;
        }
    }

    impl Unparker {
        pub(super) fn unpark(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicU64;

    /// Without either fence this deadlocks.
    #[test]
    fn a_record_put_before_the_wake_is_seen() {
        loom::model(|| {
            let tail = Arc::new(AtomicU64::new(0));
            let sleeper = Sleeper::default();
            let waker = sleeper.waker();
            let sender = {
                let tail = Arc::clone(&tail);
                loom::thread::spawn(move || {
                    tail.store(1, Ordering::Release);
                    waker.wake();
                })
            };
            while tail.load(Ordering::Acquire) == 0 {
                sleeper.sleep(Duration::from_secs(1), || tail.load(Ordering::Acquire) > 0);
            }
            sender.join().unwrap();
        });
    }
}
