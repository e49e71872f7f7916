//! Shards without threads: whoever feeds them also runs them, turn by turn.
//!
//! For machines with so few cores that handing a chunk from thread to thread costs more than working on it. Rings,
//! counters, snapshots and what follows a panic are those of [`super::Runtime`]; here the policy is carried out between
//! two turns instead of by a supervisor.

use super::options::{FailurePolicy, Placement, RuntimeError, RuntimeOptions};
use super::stats::{Cells, Phase, StatsHandle, add};
use super::times::Stopwatch;
use super::worker::{ShardOutcome, Step, Worker, WorkerParts};
use super::{
    BarrierWatch, COMMANDS_MAX, Commander, RuntimeReport, ShardCommand, ShardSnapshot, StageFactory,
};
use crate::supervision::back_off;
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tidegate_engine::{FullPolicy, Output, OutputSink, Router, Shard, output_kind, ring};

/// Shards that run when they are told to. The router beside them must not wait for a ring by itself: while one is full,
/// [`InlineShards::make_room`].
pub struct InlineShards {
    shards: Vec<InlineShard>,
    commands: Vec<flume::Sender<ShardCommand>>,
    stats: StatsHandle,
}

enum State {
    /// To be built at the next turn.
    Starting,
    Running(Box<Shard>),
    /// Restarts then.
    BackOff(Instant),
    Quarantined,
}

struct InlineShard {
    number: u32,
    /// Gone at its end, and its ring with it.
    worker: Option<Worker>,
    state: State,
    policy: FailurePolicy,
    restarts: u32,
    cells: Arc<CachePadded<Cells>>,
    outcome: Option<Box<ShardOutcome>>,
    failure: Option<String>,
    watch: Stopwatch,
}

/// Counts results on their way out.
struct Counted<'a> {
    sink: &'a mut dyn OutputSink,
    cells: &'a Cells,
}

impl OutputSink for Counted<'_> {
    fn accept(&mut self, outputs: &[Output]) {
        let results = outputs.iter().filter(|output| output.kind < output_kind::WATERMARK).count();
        add(&self.cells.outputs, results as u64);
        self.sink.accept(outputs);
    }
}

impl InlineShards {
    /// Shards and the way in. Analyzers run as calls; the options about threads and outputs have no effect.
    ///
    /// # Errors
    /// [`RuntimeError::Option`] when an option is out of range.
    pub fn new(make: &StageFactory, options: RuntimeOptions) -> Result<(Router, Self), RuntimeError> {
        Self::launch(make, options, &[])
    }

    /// As [`InlineShards::new`], from snapshots, one per shard; see [`super::Runtime::restore`].
    ///
    /// # Errors
    /// As [`InlineShards::new`], and [`RuntimeError::Snapshots`] unless there is one per shard.
    pub fn restore(
        make: &StageFactory,
        options: RuntimeOptions,
        snapshots: &[ShardSnapshot],
    ) -> Result<(Router, Self), RuntimeError> {
        options.validate()?;
        super::one_each(snapshots, options.shards)?;
        Self::launch(make, options, snapshots)
    }

    fn launch(
        make: &StageFactory,
        options: RuntimeOptions,
        snapshots: &[ShardSnapshot],
    ) -> Result<(Router, Self), RuntimeError> {
        options.validate()?;
        let options = RuntimeOptions { placement: Placement::Fused, ..options };
        let (mut outlets, mut shards, mut commands) = (Vec::new(), Vec::new(), Vec::new());
        let mut counters = Vec::new();
        for number in 0..options.shards {
            let (sender, input) = ring(options.ring_events, FullPolicy::Wait);
            outlets.push(sender);
            let (command, commands_in) = flume::bounded(COMMANDS_MAX);
            commands.push(command);
            let cells = Arc::new(CachePadded::new(Cells::default()));
            counters.push((Arc::clone(&cells), input.counters()));
            let snapshot = snapshots.iter().find(|snapshot| snapshot.shard == number);
            cells.resume(snapshot);
            let worker = Worker::new(WorkerParts {
                shard: number,
                make: Arc::clone(make),
                options,
                input,
                output: None,
                commands: commands_in,
                snapshot: snapshot.map(|snapshot| snapshot.bytes.clone()),
                cells: Arc::clone(&cells),
                stop: Arc::new(AtomicBool::new(false)),
            });
            shards.push(InlineShard {
                number,
                worker: Some(worker),
                state: State::Starting,
                policy: options.failure,
                restarts: 0,
                cells,
                outcome: None,
                failure: None,
                watch: Stopwatch::start(),
            });
        }
        let placement = tidegate_engine::Placement::round_robin(options.shards);
        let router = Router::new(placement, outlets);
        Ok((router, Self { shards, commands, stats: StatsHandle::new(counters) }))
    }

    /// A turn of every shard; results go to `sink`. Returns whether any found work.
    pub fn turn(&mut self, sink: &mut dyn OutputSink) -> bool {
        self.shards.iter_mut().fold(false, |worked, shard| shard.turn(sink) | worked)
    }

    /// A turn for somebody who stands before a full ring. A shard that waits to be restarted does so now: nobody else
    /// could make room meanwhile.
    pub fn make_room(&mut self, sink: &mut dyn OutputSink) {
        for shard in &mut self.shards {
            if matches!(shard.state, State::BackOff(_)) {
                shard.state = State::Starting;
            }
        }
        self.turn(sink);
    }

    /// When the next of those shards that wait to be restarted does so. Whoever feeds them waits as long, or the rings fill.
    #[must_use]
    pub fn restart(&self) -> Option<Instant> {
        let until = |shard: &InlineShard| match shard.state {
            State::BackOff(until) => Some(until),
            _ => None,
        };
        self.shards.iter().filter_map(until).min()
    }

    /// Whether all have ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.shards.iter().all(|shard| shard.worker.is_none())
    }

    /// Counters per shard, for another thread.
    #[must_use]
    pub fn stats_handle(&self) -> StatsHandle {
        self.stats.clone()
    }

    /// The way to the shards for commands, also for who does not run them.
    #[must_use]
    pub fn commander(&self) -> Commander {
        Commander { commands: self.commands.clone(), wakers: Vec::new() }
    }

    /// Gives one shard a command, which it does in its next turn.
    ///
    /// # Errors
    /// [`RuntimeError::Command`] when there is no such shard, it has ended, or its commands pile up.
    pub fn control(&self, shard: u32, command: ShardCommand) -> Result<(), RuntimeError> {
        super::command_to(&self.commands, shard, command)
    }

    /// See [`super::Runtime::watch_barriers`].
    ///
    /// # Errors
    /// As [`InlineShards::control`].
    pub fn watch_barriers(&self, watch: &BarrierWatch) -> Result<(), RuntimeError> {
        let shards = 0..self.commands.len() as u32;
        shards
            .into_iter()
            .try_for_each(|shard| self.control(shard, ShardCommand::WatchBarriers(watch.clone())))
    }

    /// Runs what is left, ends, and reports. The router must have been dropped: without an end of its input a shard is
    /// stopped where it stands.
    #[must_use]
    pub fn finish(mut self, sink: &mut dyn OutputSink) -> RuntimeReport {
        while !self.ended() {
            if self.turn(sink) {
                continue;
            }
            if self.restart().is_some() {
                // What waits in its ring is still to be read; the wait itself has no use any more.
                self.make_room(sink);
            } else {
                self.commands.iter().for_each(|commands| drop(commands.try_send(ShardCommand::Stop)));
            }
        }
        let end = |shard: InlineShard| (shard.number, shard.outcome, shard.failure);
        RuntimeReport::new(self.shards.into_iter().map(end).collect(), self.stats.stats())
    }
}

impl InlineShard {
    fn turn(&mut self, sink: &mut dyn OutputSink) -> bool {
        // Between its turns a shard waits, whatever its caller does meanwhile.
        self.watch.waited(&self.cells.times);
        let worked = self.work(sink);
        if worked {
            self.watch.worked(&self.cells.times);
        }
        worked
    }

    fn work(&mut self, sink: &mut dyn OutputSink) -> bool {
        let Some(worker) = &mut self.worker else { return false };
        match &mut self.state {
            State::Starting => match worker.build() {
                Ok(shard) => {
                    self.cells.enter(Phase::Running);
                    self.state = State::Running(Box::new(shard));
                }
                Err(message) => self.failed(message),
            },
            State::Running(shard) => {
                let mut out = Counted { sink, cells: &self.cells };
                let pause = match worker.step(shard, &mut out) {
                    Step::Went(worked) => return worked,
                    Step::Paused(pause) => pause,
                };
                match worker.settle(shard, pause) {
                    Ok(None) => {}
                    Ok(outcome) => self.end(outcome),
                    Err(message) => {
                        if let State::Running(shard) = std::mem::replace(&mut self.state, State::Starting) {
                            worker.abandon(*shard);
                        }
                        self.failed(message);
                    }
                }
            }
            State::BackOff(until) => {
                if Instant::now() < *until {
                    return false;
                }
                self.state = State::Starting;
            }
            State::Quarantined => match worker.count_some() {
                Some(worked) => return worked,
                None => self.end(None),
            },
        }
        true
    }

    /// The policy, once.
    fn failed(&mut self, message: String) {
        self.failure = Some(message);
        add(&self.cells.panics, 1);
        match self.policy {
            FailurePolicy::Restart { max, backoff_ms } if self.restarts < max => {
                let wait = back_off(backoff_ms, self.restarts);
                self.restarts += 1;
                add(&self.cells.restarts, 1);
                self.cells.enter(Phase::BackOff);
                self.state = State::BackOff(Instant::now() + wait);
            }
            _ => {
                if let Some(worker) = &mut self.worker {
                    worker.quarantine();
                }
                self.state = State::Quarantined;
            }
        }
    }

    fn end(&mut self, outcome: Option<Box<ShardOutcome>>) {
        self.outcome = outcome;
        self.worker = None;
        self.cells.enter(Phase::Ended);
    }
}
