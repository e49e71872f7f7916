//! What one hop between threads costs, and how much of a spinning core the host takes away.

use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};
use tidegate_engine::Event;

/// What [`ring_hop`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingHop {
    /// Nanoseconds for one event one way: half a round trip through two rings.
    pub one_way_ns: f64,
    /// Events a second through one ring in chunks.
    pub chunked_per_s: f64,
}

/// Times one event through an `rtrb` ring: `round_trips` of ping-pong, then `events` records in chunks of `chunk`.
///
/// The figure depends on how far apart the host has put the two cores, which changes between processes: compare
/// within one.
///
/// # Panics
/// When `round_trips`, `events` or `chunk` is 0.
#[must_use]
pub fn ring_hop(round_trips: u32, events: usize, chunk: usize) -> RingHop {
    assert!(round_trips > 0 && events > 0 && chunk > 0, "nothing to time");
    RingHop { one_way_ns: ping_pong(round_trips), chunked_per_s: chunked(events, chunk) }
}

/// How a waiting thread waits: it spins, and once that has taken longer than any hop does, it yields, because on a
/// shared machine the thread it waits for may need this very core.
#[derive(Debug, Default)]
pub struct Patience {
    idle_turns: u32,
}

impl Patience {
    /// Turns without work before it yields: about 20 us of spinning.
    pub const SPINS_MAX: u32 = 1_000;

    /// Ends a turn. Waits a little unless there was work.
    #[inline]
    pub fn after(&mut self, worked: bool) {
        if worked {
            self.idle_turns = 0;
        } else if self.idle_turns < Self::SPINS_MAX {
            self.idle_turns += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

fn spin_push(ring: &mut Producer<Event>, mut event: Event) {
    let mut patience = Patience::default();
    while let Err(rtrb::PushError::Full(back)) = ring.push(event) {
        event = back;
        patience.after(false);
    }
}

fn spin_pop(ring: &mut Consumer<Event>) -> Event {
    let mut patience = Patience::default();
    loop {
        if let Ok(event) = ring.pop() {
            return event;
        }
        patience.after(false);
    }
}

fn ping_pong(round_trips: u32) -> f64 {
    let (mut ping_in, mut ping_out) = RingBuffer::new(64);
    let (mut pong_in, mut pong_out) = RingBuffer::new(64);
    // A tenth more first, for the other thread to start and the lines to settle.
    let warm = round_trips / 10 + 1;
    let total = warm + round_trips;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..total {
                let event = spin_pop(&mut ping_out);
                spin_push(&mut pong_in, event);
            }
        });
        let mut start = Instant::now();
        for trip in 0..total {
            if trip == warm {
                start = Instant::now();
            }
            spin_push(&mut ping_in, Event { ts_event: u64::from(trip), ..Event::default() });
            let back = spin_pop(&mut pong_out);
            assert_eq!(back.ts_event, u64::from(trip), "a ring must keep its order");
        }
        start.elapsed().as_nanos() as f64 / f64::from(round_trips) / 2.0
    })
}

fn chunked(events: usize, chunk: usize) -> f64 {
    let (mut producer, mut consumer) = RingBuffer::<Event>::new(16 * chunk);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let source = vec![Event { ts_event: 1, ..Event::default() }; chunk];
            let (mut left, mut patience) = (events, Patience::default());
            while left > 0 {
                let (pushed, _) = producer.push_partial_slice(&source[..chunk.min(left)]);
                left -= pushed.len();
                patience.after(!pushed.is_empty());
            }
        });
        let (mut taken, mut sum, mut patience) = (0, 0u64, Patience::default());
        while taken < events {
            let count = consumer.slots().min(chunk);
            patience.after(count > 0);
            if count == 0 {
                continue;
            }
            let read = consumer.read_chunk(count).expect("only this thread pops, so slots() cannot shrink");
            let (older, newer) = read.as_slices();
            sum += older.iter().chain(newer).map(|event| event.ts_event).sum::<u64>();
            read.commit_all();
            taken += count;
        }
        assert_eq!(sum, events as u64, "a ring must lose nothing");
    });
    events as f64 / start.elapsed().as_secs_f64()
}

/// What [`spin_jitter`] found: the gaps in which a thread that never waits did not run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpinJitter {
    /// Looks at the clock.
    pub looks: u64,
    /// Gaps of at least the threshold.
    pub gaps: u64,
    /// Longest gap, whether over the threshold or not.
    pub gap_ns_max: u64,
    /// Share of the time spent in gaps of at least the threshold, 0 to 1.
    pub lost: f64,
}

/// Looks at the clock without pause for `duration` and notes gaps of at least `threshold`. Take it in the same minute
/// as any tail latency: what it shows, no code of ours can avoid.
#[must_use]
pub fn spin_jitter(duration: Duration, threshold: Duration) -> SpinJitter {
    let start = Instant::now();
    let (mut last, mut looks, mut gaps) = (start, 0, 0);
    let (mut longest, mut lost) = (Duration::ZERO, Duration::ZERO);
    while last - start < duration {
        let now = Instant::now();
        let gap = now - last;
        if gap >= threshold {
            gaps += 1;
            lost += gap;
        }
        longest = longest.max(gap);
        looks += 1;
        last = now;
    }
    let spent = (last - start).as_secs_f64().max(f64::MIN_POSITIVE);
    SpinJitter { looks, gaps, gap_ns_max: longest.as_nanos() as u64, lost: lost.as_secs_f64() / spent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_takes_time() {
        let hop = ring_hop(100, 10_000, 64);
        assert!(hop.one_way_ns > 0.0 && hop.chunked_per_s > 0.0);
    }

    #[test]
    fn jitter_counts_no_more_gaps_than_looks() {
        let jitter = spin_jitter(Duration::from_millis(5), Duration::from_micros(10));
        assert!(jitter.looks > 0 && jitter.gaps <= jitter.looks && (0.0..=1.0).contains(&jitter.lost));
    }
}
