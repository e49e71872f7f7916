//! The fused core: ingest, shards and readers as one task of the runtime that also moves the packets. A tick then meets one
//! thread between the feed's socket and the subscriber's.

use crate::clock::Clock;
use crate::downstream::{Downstream, Here};
use crate::egress::{Desk, LINGER_NS};
use crate::ingest::{Ingest, IngestReport, Input, LAST_SNAPSHOT};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tidegate_actors::runtime::{IdleStrategy, RuntimeReport};
use tidegate_proto::MonoTime;
use tidegate_proto::hub::Hub;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// Inputs taken between two looks at the sockets: each is at most a buffer of frames.
const INPUTS_TURN: usize = 4;
/// Turns of the shards between two looks at the sockets.
const SHARDS_TURN: usize = 16;
/// How often readers are looked at who have no room for their last words.
const LAST_WORDS: Duration = Duration::from_millis(5);

/// How long to wait for a journal or cluster that takes nothing.
const STALL: Duration = Duration::from_millis(1);

pub(crate) struct Core {
    pub(crate) ingest: Ingest,
    pub(crate) desk: Desk,
    pub(crate) notify: Arc<Notify>,
    pub(crate) clock: Clock,
    /// How it waits where there is nothing to do: asleep, unless its core is its own.
    pub(crate) idle: IdleStrategy,
}

/// What the core did.
pub(crate) struct CoreReport {
    pub(crate) ingest: IngestReport,
    pub(crate) runtime: RuntimeReport,
    pub(crate) hub: Hub,
}

impl Core {
    /// The life of the task. `None` only if what lies behind ingest is not here, which is a bug.
    pub(crate) async fn run(mut self) -> Option<CoreReport> {
        let inputs = self.ingest.inputs();
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        while self.ingest.open() {
            let mut worked = false;
            let Downstream::Here(here) = &mut self.ingest.downstream else { return None };
            let restart = here.shards.restart();
            let stalled = self.ingest.stalled();
            if stalled && self.ingest.gives_up() {
                break;
            }
            if restart.is_none() {
                worked |= self.ingest.replicate(INPUTS_TURN);
            }
            if restart.is_none() && !stalled {
                // Otherwise rings would fill, with nobody there to empty them.
                worked |= self.ingest.turn(INPUTS_TURN);
            }
            let sweep = self.ingest.sweep_when_due();
            let Downstream::Here(here) = &mut self.ingest.downstream else { return None };
            let mut done = false;
            for _ in 0..SHARDS_TURN {
                if !here.turn() {
                    done = true;
                    break;
                }
                worked = true;
            }
            let now = self.clock.now();
            worked |= serve(here, &mut self.desk, now);
            here.delivered(now, self.clock, done);
            let awake = matches!(self.idle, IdleStrategy::Spin | IdleStrategy::Yield);
            if worked || awake || self.desk.has_work() {
                if !worked && self.idle == IdleStrategy::Yield {
                    std::thread::yield_now();
                }
                // The sockets are looked at meanwhile, without a wait.
                tokio::task::yield_now().await;
                continue;
            }
            let wake = self.desk.due().map_or(sweep, |due| due.min(sweep));
            let wake = Instant::from_std(self.clock.instant(wake));
            let wake = restart.map_or(wake, |restart| wake.min(Instant::from_std(restart)));
            let wake = if stalled { wake.min(Instant::now() + STALL) } else { wake };
            let open = (restart.is_none() && !stalled).then_some(&inputs);
            if let Some(input) = wait(open, &self.notify, timer.as_mut(), wake).await {
                self.ingest.input(input);
            }
        }
        self.last_snapshot().await;
        self.finish().await
    }

    /// What was accepted goes into a last snapshot: its barrier passes the shards, and the readers' past is asked for.
    async fn last_snapshot(&mut self) {
        let deadline = std::time::Instant::now() + LAST_SNAPSHOT;
        while !self.ingest.gives_up()
            && (!self.ingest.begin_last_snapshot() || self.ingest.is_snapshotting())
            && std::time::Instant::now() < deadline
        {
            let Downstream::Here(here) = &mut self.ingest.downstream else { return };
            while here.turn() {}
            let now = self.clock.now();
            if serve(here, &mut self.desk, now) {
                tokio::task::yield_now().await;
            } else {
                let _ = tokio::time::timeout(STALL, self.notify.notified()).await;
            }
        }
    }

    /// The log is closed, the shards run dry, the readers get what is left, for a bounded time, and are told.
    async fn finish(self) -> Option<CoreReport> {
        let Self { ingest, mut desk, notify, clock, .. } = self;
        let (ingest, downstream) = ingest.finish();
        let Downstream::Here(here) = downstream else { return None };
        let (runtime, mut hub) = here.finish();
        desk.published();
        let deadline = clock.now().after(LINGER_NS);
        loop {
            let now = clock.now();
            let worked = desk.command(&mut hub, now) | desk.deliver(&mut hub, now);
            if desk.satisfied() || now >= deadline {
                break;
            }
            if worked || desk.has_work() {
                tokio::task::yield_now().await;
                continue;
            }
            let wake = desk.due().map_or(deadline, |due| due.min(deadline));
            let _ = tokio::time::timeout_at(Instant::from_std(clock.instant(wake)), notify.notified()).await;
        }
        let deadline = clock.now().after(LINGER_NS);
        while !desk.dismiss() && clock.now() < deadline {
            let _ = tokio::time::timeout(LAST_WORDS, notify.notified()).await;
        }
        Some(CoreReport { ingest, runtime, hub })
    }
}

/// Requests and readers.
fn serve(here: &mut Here, desk: &mut Desk, now: MonoTime) -> bool {
    if here.published() {
        desk.published();
    }
    desk.command(&mut here.hub, now) | desk.deliver(&mut here.hub, now)
}

/// Until there may be something to do. Hands the input over if it was that.
async fn wait(
    inputs: Option<&flume::Receiver<Input>>,
    notify: &Notify,
    mut timer: Pin<&mut Sleep>,
    wake: Instant,
) -> Option<Input> {
    if timer.deadline() != wake {
        timer.as_mut().reset(wake);
    }
    let input = async {
        match inputs {
            Some(inputs) => inputs.recv_async().await.ok(),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        input = input => input,
        () = notify.notified() => None,
        () = timer => None,
    }
}
