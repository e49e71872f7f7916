//! A feed's way in: batches, back-pressure, and a session that outlives its connections.

use super::redirect::{Next, Redirects};
use super::sessions::{Lane, Sessions};
use super::{ClientError, ClientOptions, Dialed, Dialer, PAUSE_MAX, PAUSE_MIN, Shown, instant, now};
use quinn::{Connection, RecvStream, SendStream};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_engine::Event;
use tidegate_proto::feed::{FeedClient, FeedClientOptions, FeedEvent};
use tidegate_proto::{ALPN_FEED, AckMode, Close, CloseCode, Frame, FrameBuffer, GroupMap};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Who publishes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherOptions {
    /// Who it is, for good: the server knows a source by this.
    pub source_id: u64,
    /// Which numbering of its events this is. A process that continues another one's session must offer the same events from the
    /// start; what the server has is skipped.
    pub session: u64,
    /// A name for people.
    pub name: String,
    /// What an acknowledgement is to promise.
    pub ack_mode: AckMode,
    /// Events kept until they are acknowledged; then [`Publisher::send`] waits.
    pub unacked_max: usize,
    /// Whether events are packed where the server can unpack them: about a third of the bytes, for a few nanoseconds an event on
    /// both sides.
    pub packed: bool,
    /// Events go by datagrams: what the network loses is not sent again but counted by the server, and nothing waits for it. Implies
    /// [`AckMode::None`].
    pub datagrams: bool,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            source_id: 1,
            session: 1,
            name: "publisher".to_owned(),
            ack_mode: AckMode::Leader,
            unacked_max: 1 << 18,
            packed: true,
            datagrams: false,
        }
    }
}

/// How a publisher stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublishStats {
    /// Events handed over with [`Publisher::send`].
    pub offered: u64,
    /// Of these, skipped because the server had them from an earlier run of this session. In a cluster of several groups an event that is
    /// not about a key counts once for each.
    pub skipped: u64,
    /// The last acknowledged sequence: in a cluster of several groups, of events that are acknowledged with all before them.
    pub acked: u64,
    /// Events kept because they, or some before them, are not acknowledged.
    pub unacked: u64,
    /// Whether the session stands: connected, and greeted by the server. In a cluster of several groups, with each that there is something
    /// for.
    pub connected: bool,
    /// Times connected, to all groups together.
    pub connections: u64,
    /// Events that were no longer kept here when the server turned out not to have them: it acknowledged them and then lost them by a
    /// restart, or they were sent without acks over a connection that broke. Declared to it as lost.
    pub lost_by_server: u64,
}

struct State {
    sessions: Sessions,
    stats: PublishStats,
    /// Sessions that have not said their last word.
    open: usize,
    finished: bool,
    /// Set once all sessions are over, or one has failed.
    over: Option<Result<(), Arc<ClientError>>>,
    ready: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something was acknowledged, or the session is over.
    progress: Notify,
    dialer: Dialer,
    options: FeedClientOptions,
    tasks: Mutex<Tasks>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks of the sessions, one each.
struct Tasks {
    runtime: Handle,
    tasks: HashMap<Lane, (Arc<Notify>, JoinHandle<()>)>,
    /// There is something to send for the first session, which mostly is the only one.
    work: Arc<Notify>,
}

/// Has sessions look for what there is to send; those that have just come to be begin.
fn wake(shared: &Arc<Shared>, lanes: &[Lane]) {
    if lanes.is_empty() {
        return;
    }
    let mut tasks = shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    let Tasks { runtime, tasks, work: first } = &mut *tasks;
    for &lane in lanes {
        let (work, _) = tasks.entry(lane).or_insert_with(|| {
            let work = if lane.is_none() { Arc::clone(first) } else { Arc::default() };
            shared.state().open += 1;
            let task = run(Arc::clone(shared), lane, Arc::clone(&work));
            (work, runtime.spawn(task))
        });
        work.notify_one();
    }
}

/// A feed. Events go out as soon as the connection takes them, in frames as large as what has gathered meanwhile. In a cluster of several
/// groups it speaks to the leader of each that it has names of, and follows each by itself.
pub struct Publisher {
    shared: Arc<Shared>,
    /// As the tasks have it.
    work: Arc<Notify>,
}

/// Bytes handed to the connection at a time.
const WRITE_BYTES: usize = 64 << 10;

impl Publisher {
    /// Connects and registers the source, on the current tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`] when the server cannot be reached in time, or refuses.
    pub async fn connect(options: ClientOptions, publisher: PublisherOptions) -> Result<Self, ClientError> {
        let dialer = Dialer::new(options, ALPN_FEED)?;
        let options = FeedClientOptions {
            source_id: publisher.source_id,
            session: publisher.session,
            ack_mode: if publisher.datagrams { AckMode::None } else { publisher.ack_mode },
            name: publisher.name,
            packed: publisher.packed,
            datagrams: publisher.datagrams,
            unacked_max: publisher.unacked_max.max(1),
            ..FeedClientOptions::default()
        };
        let state = State {
            sessions: Sessions::one(options.clone()),
            stats: PublishStats::default(),
            open: 0,
            finished: false,
            over: None,
            ready: false,
        };
        let state = Mutex::new(state);
        let work: Arc<Notify> = Arc::default();
        let tasks =
            Mutex::new(Tasks { runtime: Handle::current(), tasks: HashMap::new(), work: Arc::clone(&work) });
        let shared = Arc::new(Shared { state, progress: Notify::new(), dialer, options, tasks });
        let publisher = Self { shared, work };
        publisher.wake(&[None]);
        publisher.wait(|state| state.ready).await?;
        Ok(publisher)
    }

    /// Has sessions look for what there is to send; those that have just come to be begin.
    fn wake(&self, lanes: &[Lane]) {
        self.work.notify_one();
        wake(&self.shared, lanes);
    }

    /// Waits until `done`, or the session is over.
    async fn wait(&self, mut done: impl FnMut(&mut State) -> bool) -> Result<(), ClientError> {
        loop {
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            // Registered before the look, so that nothing is missed in between.
            progress.as_mut().enable();
            {
                let mut state = self.shared.state();
                if done(&mut state) {
                    return Ok(());
                }
                if let Some(over) = &mut state.over {
                    return match std::mem::replace(over, Err(Arc::new(ClientError::Ended))) {
                        Ok(()) => Err(ClientError::Ended),
                        Err(error) => Err(Arc::into_inner(error).unwrap_or(ClientError::Ended)),
                    };
                }
            }
            progress.await;
        }
    }

    /// Gives the next key a name and returns the key. Names must come in the same order in every run that continues a session.
    ///
    /// # Errors
    /// [`ClientError::Name`] for a name that is empty or too long.
    pub fn define(&self, name: &str) -> Result<u32, ClientError> {
        let (key, touched) = {
            let mut state = self.shared.state();
            let key = state.sessions.define(name).ok_or(ClientError::Name(name.len()))?;
            (key, state.sessions.take_touched())
        };
        if !touched.is_empty() {
            self.wake(&touched);
        }
        Ok(key)
    }

    /// Publishes events in order; waits while as many as may be are not acknowledged: that is the server's back-pressure.
    ///
    /// # Errors
    /// [`ClientError`] when the session is over.
    pub async fn send(&self, mut events: &[Event]) -> Result<(), ClientError> {
        while !events.is_empty() {
            let (mut taken, mut touched) = (0, Vec::new());
            self.wait(|state| {
                if state.over.is_some() {
                    return false;
                }
                taken = state.sessions.offer(events);
                touched.extend(state.sessions.take_touched());
                taken > 0
            })
            .await?;
            events = &events[taken..];
            self.wake(&touched);
        }
        Ok(())
    }

    /// How many of these, from the first on, the server has from an earlier run: published next they are skipped. 0 when that is not
    /// known; in a cluster of several groups of the first few, and about.
    #[must_use]
    pub fn known(&self, events: &[Event]) -> usize {
        self.shared.state().sessions.known(events)
    }

    /// Waits until everything published is acknowledged (or sent, when no acks were asked for).
    ///
    /// # Errors
    /// [`ClientError`] when the session is over before that.
    pub async fn settle(&self) -> Result<(), ClientError> {
        self.wait(|state| state.sessions.is_settled()).await
    }

    /// Tells the server that there is no more, once everything is acknowledged, and returns the account.
    ///
    /// # Errors
    /// [`ClientError`] when the session broke before that.
    pub async fn finish(self) -> Result<PublishStats, ClientError> {
        {
            let mut state = self.shared.state();
            state.sessions.finish();
            state.finished = true;
            // Of a feed that had nothing for anybody.
            if state.open == 0 {
                state.over.get_or_insert(Ok(()));
            }
        }
        let lanes: Vec<Lane> = {
            let tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.tasks.keys().copied().collect()
        };
        self.wake(&lanes);
        self.wait(|state| matches!(state.over, Some(Ok(())))).await?;
        Ok(self.stats())
    }

    /// How it stands.
    #[must_use]
    pub fn stats(&self) -> PublishStats {
        let state = self.shared.state();
        PublishStats {
            offered: state.sessions.offered(),
            skipped: state.sessions.skipped(),
            acked: state.sessions.acked(),
            unacked: state.sessions.unacked() as u64,
            connected: state.sessions.is_up(),
            ..state.stats
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.tasks.values().for_each(|(_, task)| task.abort());
    }
}

/// Why a connection ended.
enum End {
    /// The last word was said.
    Finished,
    /// It broke; another one may do better.
    Broken,
    /// This server does not lead, and says who does if it knows.
    Elsewhere(Close),
    /// The cluster has several groups, and nothing was known of any.
    Several(Box<GroupMap>),
    /// No other will.
    Failed(ClientError),
}

/// One session, over as many connections as it takes.
async fn run(shared: Arc<Shared>, lane: Lane, work: Arc<Notify>) {
    let over = session(&shared, lane, &work).await;
    {
        let mut state = shared.state();
        state.open -= 1;
        match over {
            Ok(None) if state.open == 0 && state.finished => {
                state.over.get_or_insert(Ok(()));
            }
            Ok(None) => {}
            // From here on there are sessions of groups.
            Ok(Some(map)) => {
                state.sessions = Sessions::several(shared.options.clone(), *map);
                state.ready = true;
            }
            // Nothing more can be promised of the whole.
            Err(error) if !matches!(state.over, Some(Err(_))) => state.over = Some(Err(Arc::new(error))),
            Err(_) => {}
        }
    }
    shared.progress.notify_waiters();
}

/// As [`run`]; gives the groups if it turns out that there are several.
async fn session(
    shared: &Arc<Shared>,
    lane: Lane,
    work: &Notify,
) -> Result<Option<Box<GroupMap>>, ClientError> {
    let (dialer, datagrams) = (shared.dialer.beside(), shared.options.datagrams);
    if let Some(leader) = shared.state().sessions.leader(lane) {
        dialer.prefer(leader);
    }
    // Before the next attempt: longer after each connection that came to nothing.
    let mut pause = Duration::ZERO;
    // Since when nobody leads, as far as servers say.
    let mut sent_away: Option<Instant> = None;
    let mut redirects = Redirects::default();
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let Dialed { connection, mut send, mut receive, shown } = dialer.connect().await?;
        {
            let mut state = shared.state();
            state.sessions.present(lane, Shown::credential(&shown));
            state.sessions.connected(lane, now());
            state.stats.connections += 1;
        }
        let apart = datagrams.then_some(&connection);
        // Whether a server let it in: by the end of the connection it may have been sent away again.
        let stood = AtomicBool::new(false);
        let end = talk(shared, lane, work, &mut send, &mut receive, apart, &stood).await;
        {
            let mut state = shared.state();
            if stood.load(Ordering::Relaxed) {
                (pause, sent_away) = (Duration::ZERO, None);
                redirects.stands();
            }
            state.sessions.disconnected(lane);
        }
        match end {
            End::Finished => {
                dialer.end(&connection, send).await;
                return Ok(None);
            }
            End::Broken => {
                if let Some(error) = dialer.refused_late(&connection) {
                    return Err(error);
                }
                connection.close(quinn::VarInt::from_u32(0), b"");
                redirects.broke(dialer.server(), Instant::now());
                dialer.turn();
            }
            End::Elsewhere(close) => {
                connection.close(quinn::VarInt::from_u32(0), b"");
                if sent_away.get_or_insert_with(Instant::now).elapsed() >= dialer.patience() {
                    return Err(ClientError::Closed(close));
                }
                let next;
                (next, pause) = redirects.elsewhere(&close, Instant::now());
                match next {
                    Next::To(leader) => dialer.prefer(leader),
                    Next::Same => {}
                    Next::Turn => {
                        dialer.turn();
                        if redirects.avoids(dialer.server(), Instant::now()) {
                            dialer.turn();
                        }
                    }
                }
            }
            End::Several(map) => {
                connection.close(quinn::VarInt::from_u32(0), b"");
                return Ok(Some(map));
            }
            End::Failed(error) => {
                connection.close(quinn::VarInt::from_u32(0), b"");
                return Err(error);
            }
        }
    }
}

/// One connection, until it ends. With `datagrams`, events go by those of this connection.
async fn talk(
    shared: &Arc<Shared>,
    lane: Lane,
    work: &Notify,
    send: &mut SendStream,
    receive: &mut RecvStream,
    datagrams: Option<&Connection>,
    stood: &AtomicBool,
) -> End {
    let writing = async {
        loop {
            let mut out = Vec::new();
            if let Some(connection) = datagrams {
                let Some(most) = connection.max_datagram_size() else {
                    return End::Failed(ClientError::Datagrams);
                };
                let sent = shared.state().sessions.transmit_datagram(lane, now(), most, &mut out);
                if sent {
                    shared.progress.notify_waiters();
                    if connection.send_datagram_wait(out.into()).await.is_err() {
                        return End::Broken;
                    }
                    continue;
                }
            }
            let (sent, timeout) = {
                let mut state = shared.state();
                // Room for a frame's head behind what is asked for, so that nothing is copied to grow.
                let sendable = state.sessions.session(lane).map_or(0, FeedClient::sendable_bytes);
                out.reserve_exact(sendable.min(WRITE_BYTES) + 4_096);
                let sent = state.sessions.transmit(lane, now(), WRITE_BYTES, &mut out);
                (sent, state.sessions.session(lane).and_then(FeedClient::timeout))
            };
            let Ok(ended) = sent else { return End::Broken };
            if !out.is_empty() {
                // Room for more, when nothing waits for an ack.
                shared.progress.notify_waiters();
                if send.write_chunk(out.into()).await.is_err() {
                    return End::Broken;
                }
                if ended {
                    return End::Finished;
                }
                continue;
            }
            let wake = instant(timeout.unwrap_or_else(|| now().after(1_000_000_000)));
            tokio::select! {
                () = work.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    };
    let reading = async {
        let mut buffer = FrameBuffer::new(1);
        loop {
            match receive.read(buffer.space()).await {
                Ok(Some(count)) => buffer.filled(count),
                Ok(None) | Err(_) => return End::Broken,
            }
            loop {
                let frame = match buffer.next_frame() {
                    Ok(None) => break,
                    Ok(Some((offset, head, body))) => {
                        Frame::read(offset, &head, body).map(|frame| (offset, frame))
                    }
                    Err(error) => Err(error),
                };
                let (offset, frame) = match frame {
                    Ok(frame) => frame,
                    Err(error) => return End::Failed(ClientError::Protocol(error)),
                };
                let mut state = shared.state();
                match state.sessions.handle(lane, now(), offset, &frame) {
                    Ok(Some(FeedEvent::Ready { .. })) => {
                        state.ready = true;
                        stood.store(true, Ordering::Relaxed);
                    }
                    Ok(Some(FeedEvent::ServerLost { first, last })) => {
                        state.ready = true;
                        stood.store(true, Ordering::Relaxed);
                        state.stats.lost_by_server += last - first + 1;
                    }
                    Ok(Some(FeedEvent::Closed(close))) => {
                        return if close.code == CloseCode::NOT_LEADER {
                            End::Elsewhere(close)
                        } else if close.code.may_retry() {
                            End::Broken
                        } else {
                            End::Failed(ClientError::Closed(close))
                        };
                    }
                    Ok(Some(FeedEvent::Groups(map))) if lane.is_none() && !state.ready => {
                        return End::Several(map);
                    }
                    Ok(Some(FeedEvent::Acked { .. } | FeedEvent::Groups(_)) | None) => {}
                    Err(close) => return End::Failed(ClientError::Rule(close)),
                }
            }
            // What one group says of a slot is for the sessions of others to act upon.
            let touched = shared.state().sessions.take_touched();
            wake(shared, &touched);
            work.notify_one();
            shared.progress.notify_waiters();
        }
    };
    tokio::select! {
        end = writing => end,
        end = reading => end,
    }
}
