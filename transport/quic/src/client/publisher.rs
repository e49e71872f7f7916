//! A feed's way in: batches, back-pressure, and a session that outlives its connections.

use super::redirect::{Next, Redirects};
use super::{ClientError, ClientOptions, Dialed, Dialer, PAUSE_MAX, PAUSE_MIN, Shown, instant, now};
use quinn::{Connection, RecvStream, SendStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_engine::Event;
use tidegate_proto::feed::{FeedClient, FeedClientOptions, FeedEvent};
use tidegate_proto::{ALPN_FEED, AckMode, Close, CloseCode, Frame, FrameBuffer};
use tokio::sync::Notify;

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
    /// Of these, skipped because the server had them from an earlier run of this session.
    pub skipped: u64,
    /// The last acknowledged sequence.
    pub acked: u64,
    /// Events kept because they are not acknowledged.
    pub unacked: u64,
    /// Whether the session stands: connected, and greeted by the server.
    pub connected: bool,
    /// Times connected.
    pub connections: u64,
    /// Events that were no longer kept here when the server turned out not to have them: it acknowledged them and then lost them by a
    /// restart, or they were sent without acks over a connection that broke. Declared to it as lost.
    pub lost_by_server: u64,
}

struct State {
    client: FeedClient,
    stats: PublishStats,
    /// Set once the session is over.
    over: Option<Result<(), Arc<ClientError>>>,
    ready: bool,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to send.
    work: Notify,
    /// Something was acknowledged, or the session is over.
    progress: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A feed. Events go out as soon as the connection takes them, in frames as large as what has gathered meanwhile.
pub struct Publisher {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
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
        let client = FeedClient::new(FeedClientOptions {
            source_id: publisher.source_id,
            session: publisher.session,
            ack_mode: if publisher.datagrams { AckMode::None } else { publisher.ack_mode },
            name: publisher.name,
            packed: publisher.packed,
            datagrams: publisher.datagrams,
            unacked_max: publisher.unacked_max.max(1),
            ..FeedClientOptions::default()
        });
        let state = State { client, stats: PublishStats::default(), over: None, ready: false };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Notify::new(), progress: Notify::new() });
        let task = tokio::spawn(run(dialer, Arc::clone(&shared), publisher.datagrams));
        let publisher = Self { shared, task };
        publisher.wait(|state| state.ready).await?;
        Ok(publisher)
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
        self.shared.state().client.define(name).ok_or(ClientError::Name(name.len()))
    }

    /// Publishes events in order; waits while as many as may be are not acknowledged: that is the server's back-pressure.
    ///
    /// # Errors
    /// [`ClientError`] when the session is over.
    pub async fn send(&self, mut events: &[Event]) -> Result<(), ClientError> {
        while !events.is_empty() {
            let mut taken = 0;
            self.wait(|state| {
                if state.over.is_some() {
                    return false;
                }
                taken = state.client.offer(events);
                taken > 0
            })
            .await?;
            events = &events[taken..];
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Waits until everything published is acknowledged (or sent, when no acks were asked for).
    ///
    /// # Errors
    /// [`ClientError`] when the session is over before that.
    pub async fn settle(&self) -> Result<(), ClientError> {
        self.wait(|state| state.client.is_settled()).await
    }

    /// Tells the server that there is no more, once everything is acknowledged, and returns the account.
    ///
    /// # Errors
    /// [`ClientError`] when the session broke before that.
    pub async fn finish(self) -> Result<PublishStats, ClientError> {
        self.shared.state().client.finish();
        self.shared.work.notify_one();
        self.wait(|state| matches!(state.over, Some(Ok(())))).await?;
        Ok(self.stats())
    }

    /// How it stands.
    #[must_use]
    pub fn stats(&self) -> PublishStats {
        let state = self.shared.state();
        PublishStats {
            offered: state.client.offered(),
            skipped: state.client.skipped(),
            acked: state.client.acked(),
            unacked: state.client.unacked() as u64,
            connected: state.client.is_up(),
            ..state.stats
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
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
    /// No other will.
    Failed(ClientError),
}

async fn run(dialer: Dialer, shared: Arc<Shared>, datagrams: bool) {
    // Before the next attempt: longer after each connection that came to nothing.
    let mut pause = Duration::ZERO;
    // Since when nobody leads, as far as servers say.
    let mut sent_away: Option<Instant> = None;
    let mut redirects = Redirects::default();
    let over = loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let Dialed { connection, mut send, mut receive, shown } = match dialer.connect().await {
            Ok(link) => link,
            Err(error) => break Err(error),
        };
        {
            let mut state = shared.state();
            state.client.present(Shown::credential(&shown));
            state.client.connected(now());
            state.stats.connections += 1;
        }
        let apart = datagrams.then_some(&connection);
        let end = talk(&shared, &mut send, &mut receive, apart).await;
        {
            let mut state = shared.state();
            if state.client.is_up() {
                (pause, sent_away) = (Duration::ZERO, None);
                redirects.stands();
            }
            state.client.disconnected();
        }
        match end {
            End::Finished => {
                dialer.end(&connection, send).await;
                break Ok(());
            }
            End::Broken => {
                if let Some(error) = dialer.refused_late(&connection) {
                    break Err(error);
                }
                connection.close(quinn::VarInt::from_u32(0), b"");
                redirects.broke(dialer.server(), Instant::now());
                dialer.turn();
            }
            End::Elsewhere(close) => {
                connection.close(quinn::VarInt::from_u32(0), b"");
                if sent_away.get_or_insert_with(Instant::now).elapsed() >= dialer.patience() {
                    break Err(ClientError::Closed(close));
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
            End::Failed(error) => {
                connection.close(quinn::VarInt::from_u32(0), b"");
                break Err(error);
            }
        }
    };
    shared.state().over = Some(over.map_err(Arc::new));
    shared.progress.notify_waiters();
}

/// One connection, until it ends. With `datagrams`, events go by those of this connection.
async fn talk(
    shared: &Shared,
    send: &mut SendStream,
    receive: &mut RecvStream,
    datagrams: Option<&Connection>,
) -> End {
    let writing = async {
        loop {
            let mut out = Vec::new();
            if let Some(connection) = datagrams {
                let Some(most) = connection.max_datagram_size() else {
                    return End::Failed(ClientError::Datagrams);
                };
                let sent = shared.state().client.transmit_datagram(now(), most, &mut out);
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
                out.reserve_exact(state.client.sendable_bytes().min(WRITE_BYTES) + 4_096);
                let sent = state.client.transmit(now(), WRITE_BYTES, &mut out);
                (sent, state.client.timeout())
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
                () = shared.work.notified() => {}
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
                match state.client.handle(now(), offset, &frame) {
                    Ok(Some(FeedEvent::Ready { .. })) => state.ready = true,
                    Ok(Some(FeedEvent::ServerLost { first, last })) => {
                        state.ready = true;
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
                    Ok(Some(FeedEvent::Acked { .. }) | None) => {}
                    Err(close) => return End::Failed(ClientError::Rule(close)),
                }
            }
            shared.work.notify_one();
            shared.progress.notify_waiters();
        }
    };
    tokio::select! {
        end = writing => end,
        end = reading => end,
    }
}
