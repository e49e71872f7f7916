//! Jobs A and B in Timely dataflow: one epoch a second of event time, records by the batch, dense state per epoch, bars
//! when the frontier has passed it.
//!
//! One worker keeps everything in a pipeline and relies on the order of its input, as hand-written code would. Two
//! workers read every other batch each and exchange by key, so that opens and closes are decided by event time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_engine::Event;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::{Capability, InspectCore, Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

use crate::hand::{Bar, Finish, FinishA, FinishB, Job, Summary};
use crate::w1::BAR_NS;

/// Records handed over at a time: 128 KiB, so a batch is still in L2 when the operator gets it.
const BATCH: usize = 4_096;

/// A record as it travels; the engine's own cannot be serialised by Timely.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Trade {
    ts: u64,
    price: i64,
    size: u64,
    key: u32,
}

/// Runs `job` with 1 or more workers in this process.
pub fn run(job: Job, events: &Arc<Vec<Event>>, symbols: usize, workers: usize) -> Summary {
    match (job, workers) {
        (Job::A, 1) => dataflow::<FinishA<i128>, true>(events, symbols, workers),
        (Job::A, _) => dataflow::<FinishA<i128>, false>(events, symbols, workers),
        (Job::B, 1) => dataflow::<FinishB<i128>, true>(events, symbols, workers),
        (Job::B, _) => dataflow::<FinishB<i128>, false>(events, symbols, workers),
    }
}

fn dataflow<F: Finish<i128> + 'static, const ORDERED: bool>(
    events: &Arc<Vec<Event>>,
    symbols: usize,
    workers: usize,
) -> Summary {
    let config = if workers == 1 { timely::Config::thread() } else { timely::Config::process(workers) };
    let events = Arc::clone(events);
    let guards = timely::execute(config, move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let finish = Rc::new(RefCell::new((F::new(symbols), 0)));
        let sums = Rc::clone(&finish);
        let probe = ProbeHandle::new();
        let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<Trade>>>::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let trades = input.to_stream(scope);
            let mut epochs = Epochs::<ORDERED>::new(symbols);
            let bars = if peers == 1 {
                trades.unary_frontier(Pipeline, "bars", move |_, _| {
                    move |(input, frontier), output| {
                        input.for_each(|time, batch| {
                            epochs.fold(*time.time(), batch, || time.retain(output.output_index()));
                        });
                        epochs.close_before(
                            |time| !frontier.less_equal(time),
                            |capability, second, windows| {
                                output.session(capability).give_iterator(finished(second, windows));
                            },
                        );
                    }
                })
            } else {
                let by_key = Exchange::new(|trade: &Trade| u64::from(trade.key));
                trades.unary_frontier(by_key, "bars", move |_, _| {
                    move |(input, frontier), output| {
                        input.for_each(|time, batch| {
                            epochs.fold(*time.time(), batch, || time.retain(output.output_index()));
                        });
                        epochs.close_before(
                            |time| !frontier.less_equal(time),
                            |capability, second, windows| {
                                output.session(capability).give_iterator(finished(second, windows));
                            },
                        );
                    }
                })
            };
            bars.container::<Vec<Bar<i128>>>()
                .inspect_container(move |event| {
                    if let Ok((_, bars)) = event {
                        let mut sums = sums.borrow_mut();
                        for bar in bars {
                            sums.0.bar(bar);
                            sums.1 += bar.count;
                        }
                    }
                })
                .probe_with(&probe);
        });
        let mut batch = Vec::with_capacity(BATCH);
        let mut rest = &events[..];
        while let Some(first) = rest.first() {
            let second = first.ts_event / BAR_NS;
            input.advance_to(second);
            let (inside, after) = rest.split_at(rest.partition_point(|e| e.ts_event < (second + 1) * BAR_NS));
            for chunk in inside.chunks(BATCH).skip(index).step_by(peers) {
                batch.clear();
                batch.extend(chunk.iter().map(|event| Trade {
                    ts: event.ts_event,
                    price: event.price(),
                    size: event.size(),
                    key: event.key,
                }));
                input.send_batch(&mut batch);
                worker.step();
            }
            // Two seconds of slack, so that workers wait for each other only when one falls far behind.
            while probe.less_than(&second.saturating_sub(2)) {
                worker.step();
                give_way(peers);
            }
            rest = after;
        }
        input.close();
        while !probe.done() {
            worker.step();
            give_way(peers);
        }
        let (sums, applied) = &*finish.borrow();
        Summary { applied: *applied, ..sums.summary() }
    })
    .expect("a configuration without sockets always starts");
    let mut total = Summary::default();
    for part in guards.join() {
        let part = part.expect("a worker panicked");
        total.bars += part.bars;
        total.checksum = total.checksum.wrapping_add(part.checksum);
        total.notional += part.notional;
        total.indicators.iter_mut().zip(part.indicators).for_each(|(sum, value)| *sum += value);
        total.applied += part.applied;
    }
    total
}

/// Lets the worker that is waited for have the core, should it need this one.
fn give_way(peers: usize) {
    if peers > 1 {
        std::thread::yield_now();
    }
}

#[derive(Clone, Copy)]
struct Window {
    open: i64,
    high: i64,
    low: i64,
    close: i64,
    volume: u64,
    count: u64,
    notional: i128,
    first: u64,
    last: u64,
}

const EMPTY: Window = Window {
    open: 0,
    high: i64::MIN,
    low: i64::MAX,
    close: 0,
    volume: 0,
    count: 0,
    notional: 0,
    first: u64::MAX,
    last: 0,
};

/// Windows of the epochs that are open, and those of closed ones to use again.
struct Epochs<const ORDERED: bool> {
    open: Vec<(Capability<u64>, Box<[Window]>)>,
    spare: Vec<Box<[Window]>>,
    symbols: usize,
}

impl<const ORDERED: bool> Epochs<ORDERED> {
    fn new(symbols: usize) -> Self {
        Self { open: Vec::new(), spare: Vec::new(), symbols }
    }

    fn fold(&mut self, time: u64, trades: &[Trade], retain: impl FnOnce() -> Capability<u64>) {
        let at =
            self.open.iter().position(|(capability, _)| *capability.time() == time).unwrap_or_else(|| {
                let windows = self.spare.pop().unwrap_or_else(|| vec![EMPTY; self.symbols].into());
                self.open.push((retain(), windows));
                self.open.len() - 1
            });
        let windows = &mut *self.open[at].1;
        for trade in trades {
            let window = &mut windows[trade.key as usize];
            if ORDERED {
                window.open = if window.count == 0 { trade.price } else { window.open };
                window.close = trade.price;
            } else {
                let is_first = trade.ts < window.first;
                window.open = if is_first { trade.price } else { window.open };
                window.first = if is_first { trade.ts } else { window.first };
                let is_last = trade.ts >= window.last;
                window.close = if is_last { trade.price } else { window.close };
                window.last = if is_last { trade.ts } else { window.last };
            }
            window.high = window.high.max(trade.price);
            window.low = window.low.min(trade.price);
            window.volume += trade.size;
            window.count += 1;
            window.notional += i128::from(trade.price) * i128::from(trade.size);
        }
    }

    /// Closes the epochs that are `done`, oldest first, because indicators want a key's bars in order.
    fn close_before(
        &mut self,
        done: impl Fn(&u64) -> bool,
        mut emit: impl FnMut(&Capability<u64>, u64, &mut [Window]),
    ) {
        if self.open.iter().all(|(capability, _)| !done(capability.time())) {
            return;
        }
        self.open.sort_unstable_by_key(|(capability, _)| *capability.time());
        let count = self.open.partition_point(|(capability, _)| done(capability.time()));
        for (capability, mut windows) in self.open.drain(..count) {
            emit(&capability, *capability.time(), &mut windows);
            self.spare.push(windows);
        }
    }
}

/// The bars of one second; leaves the windows empty.
fn finished(second: u64, windows: &mut [Window]) -> impl Iterator<Item = Bar<i128>> {
    windows.iter_mut().enumerate().filter(|(_, window)| window.count > 0).map(move |(key, slot)| {
        let window = std::mem::replace(slot, EMPTY);
        Bar {
            key: key as u32,
            second,
            open: window.open,
            high: window.high,
            low: window.low,
            close: window.close,
            volume: window.volume,
            count: window.count,
            notional: window.notional,
        }
    })
}
