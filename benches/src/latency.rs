//! From a tick's intended send time to the state it changed, at a steady rate, open loop: a tick that is sent late has
//! waited all the same, so a stall shows in every tick behind it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate_engine::{
    Event, FullPolicy, Output, Placement, Router, Sequencer, SequencerOptions, Shard, ring,
};

use crate::engine_run::{define_all, stages};
use crate::hand::Job;
use crate::hops::Patience;

/// Percentiles in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50: histogram.value_at_quantile(0.5) as f64,
        p99: histogram.value_at_quantile(0.99) as f64,
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are valid")
}

/// Calls `send` for each event when it is due, `rate` a second from `start`.
fn paced(events: &[Event], rate: u64, start: Instant, mut send: impl FnMut(&Event)) {
    for (index, event) in events.iter().enumerate() {
        let due = Duration::from_nanos(index as u64 * 1_000_000_000 / rate);
        while start.elapsed() < due {
            std::hint::spin_loop();
        }
        send(event);
    }
}

fn record(histogram: &mut Histogram<u64>, start: Instant, rate: u64, first: u64, count: u64) {
    let now = start.elapsed().as_nanos() as u64;
    for index in first..first + count {
        histogram.saturating_record(now.saturating_sub(index * 1_000_000_000 / rate));
    }
}

/// Through the engine: sequenced and handed on one by one, as a live source does when nothing more waits, routed, applied by
/// job B's shard. The clock is read once the state has changed.
#[must_use]
pub fn tick_to_state(events: &[Event], symbols: usize, rate: u64) -> Percentiles {
    let (outlet, mut inlet) = ring::<Event>(8_192, FullPolicy::Wait);
    let mut router = Router::new(Placement::round_robin(1), vec![outlet]);
    define_all(&mut router, symbols);
    let start = Instant::now() + Duration::from_millis(20);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let mut shard = Shard::new(stages(Job::B));
            let mut sink = |outputs: &[Output]| {
                std::hint::black_box(outputs);
            };
            let mut histogram = histogram();
            let mut patience = Patience::default();
            while !inlet.is_finished() {
                let before = shard.events();
                let count = inlet.drain(4_096, |run| {
                    shard.process(run, &mut sink);
                });
                let applied = shard.events() - before;
                if applied > 0 {
                    record(&mut histogram, start, rate, before, applied);
                }
                patience.after(count > 0);
            }
            histogram
        });
        let mut sequencer = Sequencer::new(SequencerOptions { fence: None, ..SequencerOptions::default() });
        let mut emit = |frame: &[Event]| {
            router.route(frame, std::hint::spin_loop);
        };
        paced(events, rate, start, |event| {
            sequencer.push(std::slice::from_ref(event), &mut emit);
            sequencer.release(&mut emit);
        });
        sequencer.finish(&mut emit);
        drop(router);
        percentiles(&worker.join().expect("the shard panicked"))
    })
}

/// The same over a bare ring with nothing behind it: what the machine takes for the hop at this moment.
#[must_use]
pub fn bare_ring(events: &[Event], rate: u64) -> Percentiles {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Event>::new(8_192);
    let start = Instant::now() + Duration::from_millis(20);
    let total = events.len() as u64;
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let mut histogram = histogram();
            let mut patience = Patience::default();
            let mut seen = 0;
            while seen < total {
                let count = consumer.slots();
                if let Ok(chunk) = consumer.read_chunk(count)
                    && count > 0
                {
                    std::hint::black_box(chunk.as_slices());
                    chunk.commit_all();
                    record(&mut histogram, start, rate, seen, count as u64);
                    seen += count as u64;
                }
                patience.after(count > 0);
            }
            histogram
        });
        paced(events, rate, start, |event| {
            while producer.push(*event).is_err() {
                std::hint::spin_loop();
            }
        });
        percentiles(&worker.join().expect("the consumer panicked"))
    })
}
