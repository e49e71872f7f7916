//! Who starts, watches and restarts the shards: a small tree of actors on a control thread of its own.
//!
//! One `Supervisor`; under it, linked, one `ShardActor` per shard that owns the shard's thread. A thread that ends
//! tells its actor. An operator's panic makes the actor fail, and the supervisor, told by the link, decides as the
//! [`FailurePolicy`] says: it starts a new actor, and with it a new thread, on what the old thread left in its
//! `Berth`. No event ever passes through here, only a handful of messages in a shard's life.

use crate::runtime::worker::{Exit, ShardOutcome, Worker};
use crate::runtime::{FailurePolicy, Phase, RuntimeError, StatsHandle, add};
use crossbeam_utils::CachePadded;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The wait before a restart that follows so many others.
pub(crate) fn back_off(first_ms: u64, restarts: u32) -> Duration {
    Duration::from_millis(first_ms).saturating_mul(1 << restarts.min(20)).min(BACKOFF_MAX)
}

/// Where a shard's worker lies between two threads, and what it left at its end.
pub(crate) struct Berth {
    shard: u32,
    cells: Arc<CachePadded<crate::runtime::Cells>>,
    worker: Mutex<Option<Worker>>,
    outcome: Mutex<Option<Box<ShardOutcome>>>,
    failure: Mutex<Option<String>>,
}

/// Locks; these mutexes only guard moves in and out, which cannot leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Berth {
    pub(crate) fn new(shard: u32, worker: Worker, cells: Arc<CachePadded<crate::runtime::Cells>>) -> Self {
        Self {
            shard,
            cells,
            worker: Mutex::new(Some(worker)),
            outcome: Mutex::new(None),
            failure: Mutex::new(None),
        }
    }

    /// The life of a shard's thread: takes the worker, lets it run, and puts it back if it may run again.
    fn occupy(&self) -> Result<(), String> {
        let Some(mut worker) = lock(&self.worker).take() else { return Err("the worker is gone".into()) };
        match worker.run() {
            Exit::Ended(outcome) => {
                *lock(&self.outcome) = outcome;
                Ok(())
            }
            Exit::Failed(message) => {
                *lock(&self.worker) = Some(worker);
                Err(message)
            }
        }
    }
}

/// What the supervisor knows of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// The shard.
    pub shard: u32,
    /// Where it is in its life.
    pub phase: Phase,
    /// Panics caught.
    pub panics: u64,
    /// Restarts so far.
    pub restarts: u32,
    /// The last failure's message.
    pub failure: Option<String>,
}

enum ShardMessage {
    /// The thread ends, with what its worker said.
    Ended(Result<(), String>),
}

/// One shard's thread as an actor. It lives as long as the thread and fails when the shard fails.
struct ShardActor;

struct ShardState {
    thread: Option<JoinHandle<()>>,
}

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = ShardState;
    type Arguments = Arc<Berth>;

    async fn pre_start(
        &self,
        myself: ActorRef<ShardMessage>,
        berth: Arc<Berth>,
    ) -> Result<ShardState, ActorProcessingErr> {
        let thread =
            std::thread::Builder::new().name(format!("tg-shard-{}", berth.shard)).spawn(move || {
                // Panics of operators are caught inside; this is for our own, so that nobody waits for a thread that is
                // no more.
                let end = catch_unwind(AssertUnwindSafe(|| berth.occupy()))
                    .unwrap_or_else(|_| Err("the shard's thread itself panicked".into()));
                // Fails only when the whole tree is already gone.
                let _ = myself.cast(ShardMessage::Ended(end));
            })?;
        Ok(ShardState { thread: Some(thread) })
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMessage>,
        ShardMessage::Ended(end): ShardMessage,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        // The message was the thread's last act, so this does not wait.
        if let Some(thread) = state.thread.take() {
            let _ = thread.join();
        }
        end?;
        myself.stop(None);
        Ok(())
    }
}

enum SupervisorMessage {
    /// A back-off is over.
    Launch(u32),
    /// Restart nothing any more.
    Stop,
    Status(flume::Sender<Vec<ShardStatus>>),
}

struct Supervisor;

struct SupervisorArguments {
    berths: Vec<Arc<Berth>>,
    policy: FailurePolicy,
}

struct SupervisorState {
    berths: Vec<Arc<Berth>>,
    policy: FailurePolicy,
    shard_of_actor: HashMap<ActorId, u32>,
    slots: Vec<Slot>,
    stopping: bool,
}

struct Slot {
    phase: Phase,
    panics: u64,
    restarts: u32,
}

impl SupervisorState {
    fn enter(&mut self, shard: u32, phase: Phase) {
        self.slots[shard as usize].phase = phase;
        self.berths[shard as usize].cells.enter(phase);
    }

    /// Starts an actor, and with it a thread, on what lies in the shard's berth.
    async fn launch(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        shard: u32,
    ) -> Result<(), ractor::SpawnErr> {
        let berth = Arc::clone(&self.berths[shard as usize]);
        let (actor, _) = Actor::spawn_linked(None, ShardActor, berth, myself.get_cell()).await?;
        self.shard_of_actor.insert(actor.get_id(), shard);
        Ok(())
    }

    /// Launches again; what cannot be launched is given up, and its ring with it.
    async fn relaunch(&mut self, myself: &ActorRef<SupervisorMessage>, shard: u32) {
        let phase = match &*lock(&self.berths[shard as usize].worker) {
            Some(worker) if worker.quarantined => Phase::Quarantined,
            _ => Phase::Running,
        };
        self.enter(shard, phase);
        if let Err(error) = self.launch(myself, shard).await {
            *lock(&self.berths[shard as usize].failure) = Some(error.to_string());
            self.give_up(myself, shard, Phase::Lost);
        }
    }

    /// Ends a shard for good: whoever sends to it learns that its ring is gone.
    fn give_up(&mut self, myself: &ActorRef<SupervisorMessage>, shard: u32, phase: Phase) {
        *lock(&self.berths[shard as usize].worker) = None;
        self.enter(shard, phase);
        let over = |slot: &Slot| matches!(slot.phase, Phase::Ended | Phase::Lost);
        if self.slots.iter().all(over) {
            myself.stop(None);
        }
    }

    /// A shard failed: the policy, once.
    async fn failed(&mut self, myself: &ActorRef<SupervisorMessage>, shard: u32, message: String) {
        let berth = Arc::clone(&self.berths[shard as usize]);
        *lock(&berth.failure) = Some(message);
        let slot = &mut self.slots[shard as usize];
        slot.panics += 1;
        add(&berth.cells.panics, 1);
        if lock(&berth.worker).is_none() {
            self.give_up(myself, shard, Phase::Lost);
            return;
        }
        if self.stopping {
            self.give_up(myself, shard, Phase::Ended);
            return;
        }
        match self.policy {
            FailurePolicy::Restart { max, backoff_ms } if slot.restarts < max => {
                let wait = back_off(backoff_ms, slot.restarts);
                slot.restarts += 1;
                add(&berth.cells.restarts, 1);
                self.enter(shard, Phase::BackOff);
                myself.send_after(wait, move || SupervisorMessage::Launch(shard));
            }
            _ => {
                if let Some(worker) = &mut *lock(&berth.worker) {
                    worker.quarantined = true;
                }
                self.relaunch(myself, shard).await;
            }
        }
    }
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        SupervisorArguments { berths, policy }: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let slots = berths.iter().map(|_| Slot { phase: Phase::Running, panics: 0, restarts: 0 }).collect();
        let shards = berths.len() as u32;
        let mut state =
            SupervisorState { berths, policy, shard_of_actor: HashMap::new(), slots, stopping: false };
        for shard in 0..shards {
            state.launch(&myself, shard).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Launch(shard) if state.stopping => {
                // Given up by `Stop` already, unless it came between.
                if state.slots[shard as usize].phase == Phase::BackOff {
                    state.give_up(&myself, shard, Phase::Ended);
                }
            }
            SupervisorMessage::Launch(shard) => state.relaunch(&myself, shard).await,
            SupervisorMessage::Stop => {
                state.stopping = true;
                for shard in 0..state.slots.len() as u32 {
                    if state.slots[shard as usize].phase == Phase::BackOff {
                        state.give_up(&myself, shard, Phase::Ended);
                    }
                }
            }
            SupervisorMessage::Status(reply) => {
                let status = |(slot, berth): (&Slot, &Arc<Berth>)| ShardStatus {
                    shard: berth.shard,
                    phase: slot.phase,
                    panics: slot.panics,
                    restarts: slot.restarts,
                    failure: lock(&berth.failure).clone(),
                };
                // Whoever asked may have gone.
                let _ = reply.try_send(state.slots.iter().zip(&state.berths).map(status).collect());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(shard) = event.actor_id().and_then(|actor| state.shard_of_actor.get(&actor).copied()) else {
            return Ok(());
        };
        match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                state.shard_of_actor.remove(&actor.get_id());
                state.failed(&myself, shard, error.to_string()).await;
            }
            SupervisionEvent::ActorTerminated(actor, ..) => {
                state.shard_of_actor.remove(&actor.get_id());
                state.give_up(&myself, shard, Phase::Ended);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What one shard left: its number, its results unless it was quarantined, its last failure.
pub(crate) type ShardEnd = (u32, Option<Box<ShardOutcome>>, Option<String>);

/// The control thread and the way to its supervisor.
pub(crate) struct Supervision {
    actor: ActorRef<SupervisorMessage>,
    thread: JoinHandle<()>,
    berths: Vec<Arc<Berth>>,
}

impl Supervision {
    /// Starts the control thread, the supervisor on it, and all shards under it.
    pub(crate) fn start(berths: Vec<Arc<Berth>>, policy: FailurePolicy) -> Result<Self, RuntimeError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (ready, started) = flume::bounded(1);
        let arguments = SupervisorArguments { berths: berths.clone(), policy };
        let thread = std::thread::Builder::new().name("tg-control".into()).spawn(move || {
            runtime.block_on(async move {
                match Actor::spawn(None, Supervisor, arguments).await {
                    Ok((actor, handle)) => {
                        let _ = ready.send(Ok(actor));
                        let _ = handle.await;
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error.to_string()));
                    }
                }
            });
        })?;
        match started.recv() {
            Ok(Ok(actor)) => Ok(Self { actor, thread, berths }),
            Ok(Err(reason)) => Err(RuntimeError::Supervisor(reason)),
            Err(_) => Err(RuntimeError::Supervisor("its thread ended".into())),
        }
    }

    /// Tells the supervisor to restart nothing any more. The shards themselves read a flag.
    pub(crate) fn stop(&self) {
        // Fails only when everything has ended already.
        let _ = self.actor.cast(SupervisorMessage::Stop);
    }

    /// What the supervisor knows; what is left to know when it has ended.
    pub(crate) fn status(&self) -> Vec<ShardStatus> {
        let (reply, answer) = flume::bounded(1);
        let _ = self.actor.cast(SupervisorMessage::Status(reply));
        answer.recv().unwrap_or_default()
    }

    /// Waits until all shards have ended.
    pub(crate) fn join(self) -> Vec<ShardEnd> {
        // The supervisor ends after its last shard; it has no code of the user's that could panic.
        let _ = self.thread.join();
        let end = |berth: Arc<Berth>| (berth.shard, lock(&berth.outcome).take(), lock(&berth.failure).take());
        self.berths.into_iter().map(end).collect()
    }
}

/// Sets this process's metrics from the shards' counters: call it as often as they shall be fresh. Labels are shards,
/// never symbols.
pub fn publish_metrics(stats: &StatsHandle) {
    for shard in stats.stats() {
        let label = shard.shard.to_string();
        let count = |name: &'static str, value: u64| {
            metrics::counter!(name, "shard" => label.clone()).absolute(value);
        };
        count("tidegate_events_total", shard.events);
        count("tidegate_outputs_total", shard.outputs);
        count("tidegate_outputs_unread_total", shard.outputs_unread);
        count("tidegate_turns_busy_total", shard.turns_busy);
        count("tidegate_turns_idle_total", shard.turns_idle);
        count("tidegate_panics_total", shard.panics);
        count("tidegate_restarts_total", shard.restarts);
        count("tidegate_quarantined_events_total", shard.quarantined);
        count("tidegate_lost_in_restart_events_total", shard.lost_in_restart);
        metrics::gauge!("tidegate_ring_depth", "shard" => label.clone()).set(shard.ring_depth as f64);
        // Before the first watermark and after the end there is no time to show.
        if shard.watermark != 0 && shard.watermark != u64::MAX {
            let seconds = shard.watermark as f64 / 1e9;
            metrics::gauge!("tidegate_watermark_seconds", "shard" => label).set(seconds);
        }
    }
}
