//! Results and their readers: the thread `tg-egress` owns the hub, drains the shards into it and feeds every reader that
//! has room. In the fused core the same [`Desk`] serves the readers.

use crate::clock::Clock;
use crate::derived::{Began, Link};
use crate::latency::Tracer;
use crate::relay::RelayIn;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tidegate_actors::runtime::{Idle, IdleStrategy, StatsHandle, Stopwatch, ThreadTimes, TimeCells};
use tidegate_engine::{Output, Receiver, Sleeper, Waker, output_kind};
use tidegate_proto::hub::{Hub, HubError, Polled, SubscriberId};
use tidegate_proto::subscriber::Catalogue;
use tidegate_proto::subscription::{Subscription, SubscriptionError};
use tidegate_proto::{Close, CloseCode, FrameWriter, MonoTime};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Questions and requests on their way to the thread.
const COMMANDS_MAX: usize = 1_024;
/// Most of them taken in one turn, so that results keep flowing.
const COMMANDS_TURN: usize = 64;
/// Deliveries on their way to one reader; one being written, one being made.
const DELIVERIES_MAX: usize = 2;
/// Bytes of one delivery, about.
const DELIVERY_BYTES: usize = 256 * 1024;
/// Results taken from a shard's ring in one turn.
pub(crate) const DRAIN_MAX: usize = 4_096;
/// How long readers may take what is left when the server ends, in nanoseconds.
pub(crate) const LINGER_NS: u64 = 5_000_000_000;

/// Whom front ends wake: the egress thread, or the task of the fused core.
#[derive(Clone, Debug)]
pub(crate) enum Wake {
    Thread(Waker),
    Task(Arc<Notify>),
}

impl Wake {
    pub(crate) fn wake(&self) {
        match self {
            Self::Thread(waker) => waker.wake(),
            Self::Task(notify) => notify.notify_one(),
        }
    }
}

type Question = Box<dyn FnOnce(&mut Hub, MonoTime) + Send>;

enum Command {
    Ask(Question),
    Subscribe {
        subscription: Subscription,
        deliveries: mpsc::Sender<Delivery>,
        reply: oneshot::Sender<Result<(SubscriberId, u64), SubscriptionError>>,
        /// The group whose results alone are wanted, of slots that are of these groups: by a node that relays it.
        relays: Option<(u16, Arc<[u16]>)>,
    },
    Unsubscribe(SubscriberId),
    /// Streams that were announced begin, these end.
    Switch {
        ended: Vec<u16>,
        done: oneshot::Sender<()>,
    },
    /// Somebody in this process computes streams of its own from others.
    Derive {
        asked: Box<crate::derived::Derive>,
        reply: oneshot::Sender<Result<Began, HubError>>,
    },
    /// Somebody in this process looks at these streams, in place of what it looked at before.
    Watch {
        reads: Vec<u16>,
        reply: oneshot::Sender<Began>,
    },
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Frames of the wire, in order. Front ends with a format of their own read them with
    /// [`tidegate_proto::Frame::read`] (each is aligned to its own start by [`tidegate_proto::FrameBuffer`]).
    Frames(Vec<Bytes>),
    /// The end, and why.
    Closed(Close),
}

/// Who reads, as its front end knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The front end: `quic`, `ws`, `sse`.
    pub kind: &'static str,
    /// Where the reader is connected from.
    pub peer: Box<str>,
}

/// What front ends and the thread share.
#[derive(Debug)]
struct Shared {
    origins: Mutex<HashMap<SubscriberId, Origin>>,
    /// Changed by the thread only, together with the hub's streams.
    catalogue: RwLock<Arc<Catalogue>>,
    times: TimeCells,
    /// By group, event time up to which its results are here; 0 before that is known.
    complete: Box<[AtomicU64]>,
}

impl Shared {
    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<SubscriberId, Origin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The egress thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server serves no more results")]
pub struct HubGone;

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The hub refused.
    #[error(transparent)]
    Refused(#[from] SubscriptionError),
    /// The server ends.
    #[error(transparent)]
    Gone(#[from] HubGone),
}

/// The way to the hub, for front ends.
#[derive(Clone)]
pub struct HubHandle {
    commands: flume::Sender<Command>,
    waker: Wake,
    shared: Arc<Shared>,
    clock: Clock,
    /// Closed once nobody takes requests any more: what is in the queue then is never answered.
    ends: watch::Receiver<()>,
}

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Reader {
    id: SubscriberId,
    lag_budget: u64,
    deliveries: mpsc::Receiver<Delivery>,
    commands: flume::Sender<Command>,
    waker: Wake,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ask(_) => "Ask",
            Self::Subscribe { .. } => "Subscribe",
            Self::Unsubscribe(_) => "Unsubscribe",
            Self::Switch { .. } => "Switch",
            Self::Derive { .. } => "Derive",
            Self::Watch { .. } => "Watch",
        })
    }
}

impl Reader {
    /// Its id, as the hub's accounts have it.
    #[must_use]
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// Records of a stream it may be behind, as granted.
    #[must_use]
    pub fn lag_budget(&self) -> u64 {
        self.lag_budget
    }

    /// The next delivery. While nobody asks, nothing is prepared: the subscription falls behind and its policy decides.
    /// `None` after the end. Safe to cancel.
    pub async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.recv().await;
        // Whoever had found no room finds some now; with fewer than this in the queue there had been room.
        if self.deliveries.len() + 1 >= DELIVERIES_MAX {
            self.waker.wake();
        }
        delivery
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.origins().remove(&self.id);
        // If the queue is full, the closed channel tells the thread at its next delivery.
        let _ = self.commands.try_send(Command::Unsubscribe(self.id));
        self.waker.wake();
    }
}

impl HubHandle {
    /// What the server tells subscribers: streams, its name, its times. Another one once streams have changed.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.shared.catalogue()
    }

    /// Has the streams begin that were announced to the hub, and these end; see [`Hub::switch`].
    pub(crate) async fn switch(&self, ended: Vec<u16>) -> Result<(), HubGone> {
        let (done, switched) = oneshot::channel();
        self.command(Command::Switch { ended, done }).await?;
        self.answer(switched).await
    }

    /// Has streams begin that somebody in this process computes from others.
    pub(crate) async fn derive(
        &self,
        asked: crate::derived::Derive,
    ) -> Result<Result<Began, HubError>, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Derive { asked: Box::new(asked), reply }).await?;
        self.answer(answer).await
    }

    /// Every record of these streams from now on, in the order in which they are published, with markers of how far they are complete; takes the
    /// place of what was watched before. Whoever watches says with [`crate::derived::ToHub::done`] how far it is.
    ///
    /// # Errors
    /// [`HubGone`] when the server has ended.
    pub async fn watch(&self, reads: Vec<u16>) -> Result<Began, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Watch { reads, reply }).await?;
        self.answer(answer).await
    }

    /// The names behind hashes, as far as they are known. For a thread that may wait.
    ///
    /// # Errors
    /// [`HubGone`] when the server has ended.
    pub fn names(&self, hashes: Vec<u64>) -> Result<Vec<Option<Box<str>>>, HubGone> {
        self.ask_blocking(move |hub, _| {
            hashes.into_iter().map(|hash| hub.name(hash).map(Into::into)).collect()
        })
    }

    /// The clock that the hub's times are of.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Asks the hub something, on its own thread: keep it short, results wait meanwhile.
    ///
    /// # Errors
    /// [`HubGone`] when the server has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Hub, MonoTime) -> T + Send + 'static,
    ) -> Result<T, HubGone> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |hub, now| drop(reply.send(question(hub, now))));
        self.command(Command::Ask(question)).await?;
        self.answer(answer).await
    }

    /// As [`HubHandle::ask`], from a thread that may wait.
    pub(crate) fn ask_blocking<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Hub, MonoTime) -> T + Send + 'static,
    ) -> Result<T, HubGone> {
        let (reply, answer) = flume::bounded(1);
        let question: Question = Box::new(move |hub, now| drop(reply.send(question(hub, now))));
        self.commands.send(Command::Ask(question)).map_err(|_| HubGone)?;
        self.waker.wake();
        // A hub that ended with the question in its queue does not answer.
        answer.recv_timeout(Duration::from_nanos(LINGER_NS)).map_err(|_| HubGone)
    }

    /// Subscribes.
    ///
    /// # Errors
    /// [`SubscribeError`] when the hub refuses or is gone.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Reader, SubscribeError> {
        self.subscribe_from(subscription, None).await
    }

    /// As [`HubHandle::subscribe`]; who it is goes into tables as long as the reader is there.
    ///
    /// # Errors
    /// [`SubscribeError`] when the hub refuses or is gone.
    pub async fn subscribe_from(
        &self,
        subscription: Subscription,
        origin: Option<Origin>,
    ) -> Result<Reader, SubscribeError> {
        self.reader(subscription, origin, None).await
    }

    /// All results of a group, for a node that relays it: `slots` says which group each slot is of. Between records a HEARTBEAT's nonce is the
    /// event time up to which all of them were handed over.
    ///
    /// # Errors
    /// [`SubscribeError`] when the hub refuses or is gone.
    pub async fn relay(
        &self,
        subscription: Subscription,
        origin: Origin,
        (group, slots): (u16, Arc<[u16]>),
    ) -> Result<Reader, SubscribeError> {
        self.reader(subscription, Some(origin), Some((group, slots))).await
    }

    /// Event time up to which a group's results are here; 0 before that is known, and where there is one group only.
    #[must_use]
    pub fn complete(&self, group: u16) -> u64 {
        self.shared.complete.get(usize::from(group)).map_or(0, |complete| complete.load(Ordering::Relaxed))
    }

    async fn reader(
        &self,
        subscription: Subscription,
        origin: Option<Origin>,
        relays: Option<(u16, Arc<[u16]>)>,
    ) -> Result<Reader, SubscribeError> {
        let (deliveries, receiver) = mpsc::channel(DELIVERIES_MAX);
        let (reply, answer) = oneshot::channel();
        let command = Command::Subscribe { subscription, deliveries, reply, relays };
        self.command(command).await?;
        let (id, lag_budget) = self.answer(answer).await??;
        if let Some(origin) = origin {
            self.shared.origins().insert(id, origin);
        }
        let (commands, waker, shared) = (self.commands.clone(), self.waker.clone(), Arc::clone(&self.shared));
        Ok(Reader { id, lag_budget, deliveries: receiver, commands, waker, shared })
    }

    /// Who a reader is, if its front end said.
    #[must_use]
    pub fn origin(&self, id: SubscriberId) -> Option<Origin> {
        self.shared.origins().get(&id).cloned()
    }

    /// Has it look around, although it was sent nothing.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// What the thread does with its time.
    #[must_use]
    pub fn times(&self) -> ThreadTimes {
        self.shared.times.times()
    }

    /// What a request comes to, unless the hub ended with it in its queue.
    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, HubGone> {
        let mut ends = self.ends.clone();
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| HubGone),
            _ = ends.changed() => Err(HubGone),
        }
    }

    async fn command(&self, command: Command) -> Result<(), HubGone> {
        self.commands.send_async(command).await.map_err(|_| HubGone)?;
        self.waker.wake();
        Ok(())
    }
}

/// A reader and what is known of it without asking the hub.
struct Seat {
    id: SubscriberId,
    deliveries: mpsc::Sender<Delivery>,
    /// Whether there may be something for it that was not published in this turn.
    more: bool,
    due: Option<MonoTime>,
    /// Of a node that relays a group: which, and up to where it was told that this is complete.
    relays: Option<(u16, u64)>,
}

/// The readers' seats, and the requests of front ends.
pub(crate) struct Desk {
    commands: flume::Receiver<Command>,
    /// Kept so that the channel stays open however many handles are left.
    _keep: flume::Sender<Command>,
    seats: Vec<Seat>,
    /// Who computes more streams, if somebody does.
    link: Option<Link>,
    /// Who looks at results in their order of time, if somebody does.
    watched: Option<Link>,
    /// Whether some of those are computed by `link`.
    watches_derived: bool,
    /// The streams that are computed by `link`, and those who look read.
    derives: Vec<u16>,
    watches: Vec<u16>,
    /// Results of those who computed before, until they are at their end.
    retired: Vec<Receiver<Output>>,
    /// Event time up to which every shard has told all, also those that were fed nothing yet. What is derived from all keys is the same on
    /// every node only if it waits for it.
    heard: u64,
    waker: Wake,
    shared: Arc<Shared>,
    /// Tells those who wait for an answer that none comes, when it is dropped.
    _serves: watch::Sender<()>,
}

impl Desk {
    pub(crate) fn new(
        waker: Wake,
        catalogue: Arc<Catalogue>,
        clock: Clock,
        groups: usize,
    ) -> (Self, HubHandle) {
        let (commands_in, commands) = flume::bounded(COMMANDS_MAX);
        let shared = Arc::new(Shared {
            origins: Mutex::default(),
            catalogue: RwLock::new(catalogue),
            times: TimeCells::default(),
            complete: (0..groups).map(|_| AtomicU64::new(0)).collect(),
        });
        let commands_kept = commands_in.clone();
        let (serves, ends) = watch::channel(());
        let ours = waker.clone();
        let handle = HubHandle { commands: commands_in, waker, shared: Arc::clone(&shared), clock, ends };
        let (seats, link, retired, watched) = (Vec::new(), None, Vec::new(), None);
        let waker = ours;
        (
            Self {
                commands,
                _keep: commands_kept,
                seats,
                link,
                retired,
                watched,
                watches_derived: false,
                derives: Vec::new(),
                watches: Vec::new(),
                heard: u64::MAX,
                waker,
                shared,
                _serves: serves,
            },
            handle,
        )
    }

    /// Where the thread notes its time.
    pub(crate) fn times(&self) -> &TimeCells {
        &self.shared.times
    }

    /// Up to where every shard has told all, where that may be less than the hub's watermark.
    pub(crate) fn set_heard(&mut self, heard: u64) {
        self.heard = heard;
    }

    /// Up to where the shards of each group, and what is relayed of others, are complete. All of a group are beside each other.
    fn set_complete(&self, all: impl Iterator<Item = (u16, u64)>) {
        let mut last: Option<(u16, u64)> = None;
        let tell = |(group, complete): (u16, u64)| {
            if let Some(cell) = self.shared.complete.get(usize::from(group)) {
                cell.store(complete, Ordering::Relaxed);
            }
        };
        for (group, complete) in all {
            last = match last {
                Some((same, least)) if same == group => Some((group, least.min(complete))),
                other => {
                    other.map(tell);
                    Some((group, complete))
                }
            };
        }
        last.map(tell);
    }

    /// Results or names were published.
    pub(crate) fn published(&mut self) {
        self.seats.iter_mut().for_each(|seat| seat.more = true);
    }

    /// Takes requests, a bounded number of them.
    pub(crate) fn command(&mut self, hub: &mut Hub, now: MonoTime) -> bool {
        let mut worked = self.derived(hub);
        for _ in 0..COMMANDS_TURN {
            let Ok(command) = self.commands.try_recv() else { break };
            worked = true;
            match command {
                Command::Ask(question) => question(hub, now),
                Command::Subscribe { subscription, deliveries, reply, relays } => {
                    let outcome = match &relays {
                        None => hub.subscribe(&subscription, now),
                        Some((group, slots)) => {
                            let mine = |slot: u16| slots.get(usize::from(slot)) == Some(group);
                            hub.subscribe_slots(&subscription, &mine, now)
                        }
                    };
                    let outcome = outcome.map(|id| (id, hub.lag_budget(id).unwrap_or(0)));
                    if let Ok((id, _)) = outcome {
                        let relays = relays.map(|(group, _)| (group, 0));
                        self.seats.push(Seat { id, deliveries, more: true, due: None, relays });
                    }
                    if let Err(Ok((id, _))) = reply.send(outcome) {
                        self.leave(hub, id);
                    }
                }
                Command::Unsubscribe(id) => self.leave(hub, id),
                Command::Switch { ended, done } => {
                    self.switch(hub, &ended);
                    let _ = done.send(());
                }
                Command::Derive { asked, reply } => {
                    let _ = reply.send(self.derive(hub, &asked));
                }
                Command::Watch { reads, reply } => {
                    self.watches.clone_from(&reads);
                    let before = self.until();
                    self.compare();
                    let asked = crate::derived::Derive { reads, ..Default::default() };
                    let (link, began) = Link::begin(hub, &asked, 0, &self.waker);
                    if let Some(mut old) = self.watched.replace(link) {
                        // What was copied so far still goes the old way, as far as there is room.
                        old.turn(hub, before);
                        old.end(hub);
                    }
                    let _ = reply.send(began);
                }
            }
        }
        worked
    }

    /// Other streams are computed in this process from now on: those before end, these begin, together with what is known of those they
    /// are computed from.
    fn derive(&mut self, hub: &mut Hub, asked: &crate::derived::Derive) -> Result<Began, HubError> {
        let announced = hub.announce(&asked.ended, asked.coming.clone())?;
        self.switch(hub, &asked.ended);
        let (link, mut began) = Link::begin(hub, asked, announced.first, &self.waker);
        if self.heard != u64::MAX {
            // Nothing of what is known from before was derived here, and not all groups need be at the same place.
            began.watermark = self.heard.max(1);
        }
        let before = self.link.replace(link);
        self.retired.extend(before.map(|link| link.retire(hub)));
        self.derives.retain(|number| !asked.ended.contains(number));
        self.derives.extend((announced.first..).take(asked.coming.len()));
        self.compare();
        Ok(began)
    }

    fn compare(&mut self) {
        self.watches_derived = self.watches.iter().any(|number| self.derives.contains(number));
    }

    /// Event time up to which what is computed here has been published, for who looks at it.
    fn until(&self) -> u64 {
        self.link.as_ref().filter(|_| self.watches_derived).map_or(u64::MAX, Link::complete)
    }

    /// What was computed goes to the readers, and what it is computed from to who computes.
    fn derived(&mut self, hub: &mut Hub) -> bool {
        let mut published = false;
        self.retired.retain_mut(|rows| {
            let over = rows.is_finished();
            published |= crate::derived::publish(rows, hub);
            !over
        });
        let mut taken = false;
        // What is derived first: it may be watched.
        for derives in [true, false] {
            let until = if derives { self.heard } else { self.until() };
            let place = if derives { &mut self.link } else { &mut self.watched };
            let Some(link) = place else { continue };
            let (went, came) = link.turn(hub, until);
            (taken, published) = (taken | went, published | came);
            if link.is_over() {
                link.end(hub);
                *place = None;
            }
        }
        if published {
            self.published();
        }
        taken || published
    }

    /// Other streams for those who ask from now on; readers of those that end are told.
    fn switch(&mut self, hub: &mut Hub, ended: &[u16]) {
        hub.switch(ended);
        let (streams, open): (Vec<_>, Vec<_>) =
            hub.all_streams().map(|(meta, open)| (meta.clone(), open)).unzip();
        let ended = (0u16..).zip(open).filter(|(_, open)| !open).map(|(number, _)| number).collect();
        let next = Catalogue { streams, ended, ..(*self.shared.catalogue()).clone() };
        *self.shared.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.published();
    }

    fn leave(&mut self, hub: &mut Hub, id: SubscriberId) {
        hub.unsubscribe(id);
        self.seats.retain(|seat| seat.id != id);
    }

    /// Hands every reader with room what is there for it.
    pub(crate) fn deliver(&mut self, hub: &mut Hub, now: MonoTime) -> bool {
        let mut worked = false;
        let mut gone = Vec::new();
        for seat in &mut self.seats {
            let due = seat.due.is_some_and(|due| due <= now);
            if !(seat.more || due) {
                continue;
            }
            if seat.deliveries.is_closed() {
                gone.push(seat.id);
                continue;
            }
            if seat.deliveries.capacity() == 0 {
                // It has enough; the hub keeps the rest, within its budget.
                seat.more = true;
                continue;
            }
            let mut frames = Vec::new();
            let polled = hub.poll_frames(seat.id, now, DELIVERY_BYTES, &mut frames);
            if let (Polled::Idle { .. }, Some((group, said))) = (&polled, &mut seat.relays) {
                let complete = self.shared.complete.get(usize::from(*group));
                let complete = complete.map_or(0, |complete| complete.load(Ordering::Relaxed));
                // That the shards ended here says nothing of those elsewhere.
                if complete > *said && complete < u64::MAX {
                    *said = complete;
                    let mut frame = Vec::new();
                    FrameWriter::new(&mut frame).heartbeat(complete, 0);
                    frames.push(Bytes::from(frame));
                }
            }
            if !frames.is_empty() {
                worked = true;
                let _ = seat.deliveries.try_send(Delivery::Frames(frames));
            }
            match polled {
                Polled::More => seat.more = true,
                Polled::Idle { due } => (seat.more, seat.due) = (false, due),
                Polled::Closed(close) => {
                    // After frames there may be no room left; then it is said next time.
                    match seat.deliveries.try_send(Delivery::Closed(close)) {
                        Err(mpsc::error::TrySendError::Full(_)) => seat.more = true,
                        _ => gone.push(seat.id),
                    }
                }
            }
        }
        gone.into_iter().for_each(|id| self.leave(hub, id));
        worked
    }

    /// Whether there is something to do now.
    pub(crate) fn has_work(&self) -> bool {
        !self.commands.is_empty()
            || self.link.iter().chain(&self.watched).any(Link::has_work)
            || self.retired.iter().any(Receiver::has_work)
            || self.seats.iter().any(|seat| seat.more && seat.deliveries.capacity() > 0)
    }

    /// When the next reader's time comes.
    pub(crate) fn due(&self) -> Option<MonoTime> {
        self.seats.iter().filter_map(|seat| seat.due).min()
    }

    /// Whether no reader has anything left to come.
    pub(crate) fn satisfied(&self) -> bool {
        // A seat's `more` is cleared once the hub has nothing left for it and the reader took what was before.
        self.link.iter().chain(&self.watched).all(Link::is_even)
            && !self.seats.iter().any(|seat| seat.more || seat.due.is_some())
    }

    /// Says the last words to those who have room for them; returns whether nobody is left. Those who subscribe now learn
    /// it from the channel that closes.
    pub(crate) fn dismiss(&mut self) -> bool {
        let close = Close::new(CloseCode::SHUTTING_DOWN, "the server ends");
        self.seats.retain(|seat| {
            let last = Delivery::Closed(close.clone());
            matches!(seat.deliveries.try_send(last), Err(mpsc::error::TrySendError::Full(_)))
        });
        self.seats.is_empty()
    }
}

/// Up to where a shard's results are complete, where this marker says it.
fn told(output: &Output) -> Option<u64> {
    match output.kind {
        output_kind::WATERMARK => Some(output.ts),
        output_kind::END => Some(u64::MAX),
        _ => None,
    }
}

pub(crate) struct Egress {
    hub: Hub,
    outputs: Vec<Receiver<Output>>,
    names: flume::Receiver<Box<str>>,
    desk: Desk,
    stats: StatsHandle,
    tracer: Tracer,
    clock: Clock,
    sleeper: Sleeper,
    taken: Vec<Output>,
    /// Up to where each shard's results are complete, and of which group it is.
    complete: Vec<u64>,
    groups: Vec<u16>,
    /// What comes from other nodes.
    relays: Vec<RelayIn>,
    /// Whether the shards are of several groups. One that nothing was fed to holds up nobody's results but its own.
    several: bool,
}

impl Egress {
    pub(crate) fn new(
        hub: Hub,
        outputs: Vec<Receiver<Output>>,
        names: flume::Receiver<Box<str>>,
        (stats, tracer): (StatsHandle, Tracer),
        catalogue: Arc<Catalogue>,
        clock: Clock,
        (groups, relays): (Vec<u16>, Vec<RelayIn>),
    ) -> (Self, HubHandle) {
        let count = groups.iter().copied().chain(relays.iter().map(|relay| relay.group)).max().unwrap_or(0);
        let several = count > 0;
        let sleeper = Sleeper::default();
        outputs.iter().for_each(|output| output.wake_with(sleeper.waker()));
        let (mut desk, handle) =
            Desk::new(Wake::Thread(sleeper.waker()), catalogue, clock, usize::from(count) + 1);
        if several {
            desk.set_heard(0);
        }
        let taken = Vec::with_capacity(outputs.len() * DRAIN_MAX);
        let complete = vec![0; outputs.len()];
        let egress = Self {
            hub,
            outputs,
            names,
            desk,
            stats,
            tracer,
            clock,
            sleeper,
            taken,
            complete,
            groups,
            relays,
            several,
        };
        (egress, handle)
    }

    /// Rings that have ended and been read empty.
    fn finished(&self) -> usize {
        self.outputs.iter().filter(|output| output.is_finished()).count()
    }

    /// Whether nothing can come any more. A quarantined shard's ring ends long before the feeds do, and what it had computed is
    /// served on; ingest holds the other end of the names.
    fn over(&self) -> bool {
        self.names.is_disconnected() && self.finished() == self.outputs.len()
    }

    /// For who sends names.
    pub(crate) fn waker(&self) -> Waker {
        self.sleeper.waker()
    }

    /// Waits as the strategy says, until there is something to do or a reader's time has come.
    fn idle(&self, idle: &mut Idle, worked: bool, finished: usize, ended: Option<MonoTime>) {
        let due = self.desk.due();
        let due = due.map_or(Duration::MAX, |due| Duration::from_nanos(due.since(self.clock.now())));
        idle.idle_on(worked, &self.sleeper, due, || {
            self.outputs.iter().any(|output| output.depth() > 0)
                || self.finished() > finished
                || (ended.is_none() && self.over())
                || !self.names.is_empty()
                || self.relays.iter().any(|relay| !relay.batches.is_empty())
                || self.desk.has_work()
        });
    }

    /// The life of the thread: until the shards have ended and the readers have what was for them, or took too long.
    pub(crate) fn run(mut self, idle: IdleStrategy) -> Hub {
        let mut idle = Idle::new(idle);
        let mut ended: Option<MonoTime> = None;
        let mut watch = Stopwatch::start();
        loop {
            let (finished, over) = (self.finished(), self.over());
            self.tracer.advance(&self.stats, &self.outputs);
            let mut worked = self.drain();
            let now = self.clock.now();
            worked |= self.desk.command(&mut self.hub, now);
            worked |= self.desk.deliver(&mut self.hub, now);
            self.tracer.delivered(self.clock, now, &self.outputs);
            if over && self.taken.is_empty() {
                let since = *ended.get_or_insert(now);
                if self.desk.satisfied() || now.since(since) >= LINGER_NS {
                    break;
                }
            }
            self.idle(&mut idle, worked, finished, ended);
            let times = self.desk.times();
            if worked { watch.worked(times) } else { watch.waited(times) }
        }
        let deadline = self.clock.now().after(LINGER_NS);
        // The last words need a place in each reader's queue.
        while !self.desk.dismiss() && self.clock.now() < deadline {
            idle.idle(false);
        }
        self.hub
    }

    /// Moves results into the hub.
    fn drain(&mut self) -> bool {
        self.taken.clear();
        let taken = &mut self.taken;
        for (output, complete) in self.outputs.iter_mut().zip(&mut self.complete) {
            let from = taken.len();
            output.drain(DRAIN_MAX, |run| taken.extend_from_slice(run));
            // What the shard says itself, among its results: its counters may be ahead of what was read here.
            let told = taken[from..].iter().rev().find_map(told);
            *complete = told.unwrap_or(*complete);
            if output.is_finished() {
                *complete = u64::MAX;
            }
        }
        // Names behind the results: each was sent before its first result could be made, so it is here by now.
        let mut worked = false;
        for name in self.names.try_iter() {
            self.hub.define(&name);
            worked = true;
        }
        let hub = &mut self.hub;
        let relayed = self.relays.iter_mut().map(|relay| relay.take(hub)).filter(|took| *took).count() > 0;
        if !self.taken.is_empty() || relayed {
            hub.publish(&self.taken);
            let all = || self.complete.iter().copied().chain(self.relays.iter().map(|relay| relay.complete));
            if self.several {
                self.desk.set_heard(all().min().unwrap_or(0));
                let of = self.groups.iter().copied().chain(self.relays.iter().map(|relay| relay.group));
                self.desk.set_complete(of.zip(all()));
            }
            let counts = |complete: &u64| !self.several || *complete > 0;
            self.hub.set_watermark(all().filter(counts).min().unwrap_or(0));
            worked = true;
        }
        if worked {
            self.desk.published();
        }
        worked
    }
}
