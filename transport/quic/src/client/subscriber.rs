//! A reader's way out: typed records, and a subscription that outlives its connections.

use super::{ClientError, ClientOptions, Dialed, Dialer, PAUSE_MAX, PAUSE_MIN, Shown, instant, now};
use quinn::{Connection, RecvStream, SendStream};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::Output;
use tidegate_proto::hub::StreamMeta;
use tidegate_proto::subscriber::{Continuation, SubscriberClient, SubscriberEvent};
use tidegate_proto::subscription::Subscription;
use tidegate_proto::{ALPN_SUBSCRIBE, Close, CloseCode, Frame, FrameBuffer, FrameWriter, Loss};
use tokio::time::{Instant, timeout_at};

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A result.
    Record {
        /// The key's name.
        name: Arc<str>,
        /// The stream.
        stream: Arc<StreamMeta>,
        /// The record; its `key` means nothing.
        output: Box<Output>,
        /// Whether it is from before the subscription's start: snapshot, lookback, or catching up.
        past: bool,
    },
    /// From here on, records of this stream are live.
    Live(Arc<StreamMeta>),
    /// Records that are not coming.
    Loss(Loss),
    /// So many records gave way to newer ones of their keys, as the subscription asks.
    Conflated(u64),
    /// The connection broke and another one stands. How it goes on decides what may be missing and what may come twice.
    Reconnected(Continuation),
    /// The server changed or removed a stream of the subscription. It is asked for again, from where it stopped, and another connection
    /// tells how that goes on; a stream that is no more is an error then.
    Changed(Close),
    /// The server ended the subscription. Nothing follows.
    Ended(Close),
}

/// What [`Subscriber::read`] shows, where it arrived.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival<'a> {
    /// A result, as [`Update::Record`].
    Record {
        /// The key's name.
        name: &'a str,
        /// The stream.
        stream: &'a StreamMeta,
        /// The record; its `key` means nothing.
        output: &'a Output,
        /// Whether it is from before the subscription's start.
        past: bool,
    },
    /// Everything else.
    Other(Update),
}

/// How long others are asked when a server has ended in order.
const OTHERS: Duration = Duration::from_secs(5);

struct Link {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    buffer: FrameBuffer,
}

/// Who is shown what comes.
type Show<'s> = &'s mut (dyn FnMut(Arrival<'_>) + Send);

/// What is no record, to whoever is shown what comes, or to those who ask later.
fn tell(show: &mut Option<Show<'_>>, updates: &mut VecDeque<Update>, update: Update) {
    match show {
        Some(show) => show(Arrival::Other(update)),
        None => updates.push_back(update),
    }
}

type Dialing = tokio::task::JoinHandle<Result<Dialed, ClientError>>;

/// A subscription. Nothing happens while nobody asks for [`Subscriber::next`]: the server then keeps what the lag budget
/// allows, and acts by the policy.
pub struct Subscriber {
    dialer: Arc<Dialer>,
    client: SubscriberClient,
    link: Option<Link>,
    /// A task of its own: whoever cancels [`Subscriber::next`] must not begin all attempts anew.
    dialing: Option<Dialing>,
    /// How long to wait before the next attempt: longer after each connection that came to nothing.
    pause: Duration,
    outlives_server: bool,
    /// The server ended in order, and others are asked until then.
    orderly: Option<(Close, Instant)>,
    connections: u64,
    streams: Vec<Arc<StreamMeta>>,
    names: HashMap<u64, Arc<str>>,
    updates: VecDeque<Update>,
    ended: bool,
}

impl Subscriber {
    /// Connects and subscribes, on the current tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`] when the server cannot be reached in time, or refuses.
    pub async fn connect(
        options: ClientOptions,
        name: &str,
        subscription: Subscription,
    ) -> Result<Self, ClientError> {
        let client = SubscriberClient::new(name, subscription)?;
        let dialer = Dialer::new(options, ALPN_SUBSCRIBE)?;
        let mut subscriber = Self {
            dialer: Arc::new(dialer),
            client,
            link: None,
            dialing: None,
            pause: Duration::ZERO,
            outlives_server: false,
            orderly: None,
            connections: 0,
            streams: Vec::new(),
            names: HashMap::new(),
            updates: VecDeque::new(),
            ended: false,
        };
        while subscriber.streams.is_empty() && !subscriber.ended {
            subscriber.step(None).await?;
        }
        Ok(subscriber)
    }

    /// Whether an orderly end of the server is waited out like a broken connection, until another start of it answers or
    /// [`ClientOptions::give_up_after`] is over. Otherwise it is [`Update::Ended`], unless another of several servers answers soon: then it
    /// goes on there, as when a node of a cluster is started anew.
    pub fn outlive_server(&mut self, outlive: bool) {
        self.outlives_server = outlive;
    }

    /// The server's streams by number; where there is none, one without a name.
    #[must_use]
    pub fn streams(&self) -> &[Arc<StreamMeta>] {
        &self.streams
    }

    /// Times connected.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// The next update; `None` after [`Update::Ended`]. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// [`ClientError`] when the server cannot be reached any more, or breaks the protocol.
    pub async fn next(&mut self) -> Result<Option<Update>, ClientError> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(Some(update));
            }
            if self.ended {
                return Ok(None);
            }
            self.step(None).await?;
        }
    }

    /// Waits until something comes, and shows all of it at once without a copy: for many records a second, where [`Subscriber::next`]
    /// spends more time on handing each over than it takes to come here. Returns `false` after [`Update::Ended`]. Safe to cancel:
    /// nothing is lost. To be mixed with `next` at will: what waits for that comes first.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub async fn read(&mut self, mut each: impl FnMut(Arrival<'_>) + Send) -> Result<bool, ClientError> {
        let mut shown = false;
        loop {
            while let Some(update) = self.updates.pop_front() {
                shown = true;
                match update {
                    Update::Record { name, stream, output, past } => {
                        each(Arrival::Record { name: &name, stream: &stream, output: &output, past });
                    }
                    other => each(Arrival::Other(other)),
                }
            }
            if shown || self.ended {
                return Ok(!self.ended);
            }
            let mut show = |arrival: Arrival<'_>| {
                shown = true;
                each(arrival);
            };
            self.step(Some(&mut show)).await?;
        }
    }

    /// Ends the subscription in order.
    pub async fn close(mut self) {
        if let Some(mut link) = self.link.take() {
            let mut frame = Vec::new();
            FrameWriter::new(&mut frame).close(CloseCode::FINISHED, "");
            let _ = link.send.write_chunk(frame.into()).await;
            self.dialer.end(&link.connection, link.send).await;
        }
    }

    /// Connects, or reads something, or waits for the next heartbeat. What comes is shown, or else kept for [`Subscriber::next`].
    async fn step(&mut self, show: Option<Show<'_>>) -> Result<(), ClientError> {
        let Some(link) = &mut self.link else { return self.dial().await };
        let deadline = instant(self.client.timeout());
        match timeout_at(deadline, link.receive.read(link.buffer.space())).await {
            Ok(Ok(Some(count))) => link.buffer.filled(count),
            Ok(Ok(None) | Err(_)) => {
                let refused = self.dialer.refused_late(&link.connection);
                self.dialer.turn();
                self.link = None;
                return refused.map_or(Ok(()), Err);
            }
            Err(_) => {
                let mut out = Vec::new();
                let silent = self.client.tick(now(), &mut out).is_err();
                if silent || (!out.is_empty() && link.send.write_chunk(out.into()).await.is_err()) {
                    self.dialer.turn();
                    self.link = None;
                }
                return Ok(());
            }
        }
        self.frames(show).await
    }

    /// No other server has taken the place of one that ended.
    fn end_in_order(&mut self) {
        if let Some(dialing) = self.dialing.take() {
            dialing.abort();
        }
        if let Some((close, _)) = self.orderly.take() {
            self.ended = true;
            self.updates.push_back(Update::Ended(close));
        }
    }

    async fn dial(&mut self) -> Result<(), ClientError> {
        let (dialer, pause) = (Arc::clone(&self.dialer), self.pause);
        let dialing = self.dialing.get_or_insert_with(|| {
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                dialer.connect().await
            })
        });
        let outcome = match &self.orderly {
            None => dialing.await,
            Some((_, deadline)) => match timeout_at(*deadline, dialing).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.end_in_order();
                    return Ok(());
                }
            },
        };
        self.dialing = None;
        if self.orderly.is_some() && !matches!(outcome, Ok(Ok(_))) {
            self.end_in_order();
            return Ok(());
        }
        // Until it has come to something.
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let Dialed { connection, mut send, receive, shown } = outcome.map_err(|_| ClientError::Ended)??;
        let mut hello = Vec::new();
        self.client.present(Shown::credential(&shown));
        self.client.connected(now(), &mut hello);
        if send.write_chunk(hello.into()).await.is_ok() {
            self.connections += 1;
            self.link = Some(Link { connection, send, receive, buffer: FrameBuffer::new(2) });
        }
        Ok(())
    }

    /// Everything that has arrived.
    async fn frames(&mut self, mut show: Option<Show<'_>>) -> Result<(), ClientError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let mut out = Vec::new();
        let (streams, names, updates) = (&mut self.streams, &mut self.names, &mut self.updates);
        let (pause, orderly) = (&mut self.pause, &mut self.orderly);
        let (mut closed, mut missing) = (None, None);
        while closed.is_none()
            && let Some((offset, head, body)) = link.buffer.next_frame().map_err(ClientError::Protocol)?
        {
            let frame = Frame::read(offset, &head, body).map_err(ClientError::Protocol)?;
            let meta = |streams: &[Arc<StreamMeta>], stream: &StreamMeta| {
                let known = streams.iter().find(|known| known.name == stream.name);
                known.cloned().unwrap_or_else(|| Arc::new(stream.clone()))
            };
            let mut each = |event: SubscriberEvent<'_>| match event {
                // Results of what a server does not hold would be missing without a word.
                SubscriberEvent::Groups(map) => {
                    let held = map.leads().iter().filter(|lead| lead.held).count();
                    missing = (held < map.len()).then_some((held, map.len()));
                }
                SubscriberEvent::Ready { streams: fresh, continuation } => {
                    *streams = fresh.iter().cloned().map(Arc::new).collect();
                    if let Some(continuation) = continuation {
                        tell(&mut show, updates, Update::Reconnected(continuation));
                    }
                }
                SubscriberEvent::Subscribed { .. } => (*pause, *orderly) = (Duration::ZERO, None),
                SubscriberEvent::Record { name, stream, output, past } => {
                    if let Some(show) = &mut show {
                        return show(Arrival::Record { name, stream, output, past });
                    }
                    let Some(stream) = streams.get(usize::from(output.stream)) else { return };
                    let name = names.entry(output.name).or_insert_with(|| name.into());
                    updates.push_back(Update::Record {
                        name: Arc::clone(name),
                        stream: Arc::clone(stream),
                        output: Box::new(*output),
                        past,
                    });
                }
                SubscriberEvent::Live { stream } => {
                    tell(&mut show, updates, Update::Live(meta(streams, stream)));
                }
                SubscriberEvent::Loss(loss) => tell(&mut show, updates, Update::Loss(loss)),
                SubscriberEvent::Conflated(count) => tell(&mut show, updates, Update::Conflated(count)),
                SubscriberEvent::Closed(close) => closed = Some(close.clone()),
            };
            self.client.handle(now(), offset, &frame, &mut out, &mut each).map_err(|close| {
                match close.code {
                    // What was asked for is not there, which is nobody's mistake.
                    CloseCode::SUBSCRIPTION => ClientError::Closed(close),
                    _ => ClientError::Rule(close),
                }
            })?;
            if let Some((held, groups)) = missing {
                return Err(ClientError::Groups { server: self.dialer.server(), held, groups });
            }
        }
        if let Some(close) = closed {
            if let Some(link) = self.link.take() {
                link.connection.close(quinn::VarInt::from_u32(0), b"");
            }
            // What there is now goes on where this ended; what is no longer there is refused.
            if close.code == CloseCode::CHANGED {
                self.updates.push_back(Update::Changed(close));
                return Ok(());
            }
            if close.code == CloseCode::SHUTTING_DOWN {
                if self.outlives_server {
                    return Ok(());
                }
                if self.dialer.has_others() {
                    self.dialer.turn();
                    self.orderly.get_or_insert_with(|| (close, Instant::now() + OTHERS));
                    return Ok(());
                }
            }
            // A refusal is an error; the end of what once stood is news.
            let refused = [
                CloseCode::SUBSCRIPTION,
                CloseCode::PROTOCOL,
                CloseCode::VERSION,
                CloseCode::UNAUTHORIZED,
                CloseCode::QUOTA,
            ];
            if refused.contains(&close.code) {
                return Err(ClientError::Closed(close));
            }
            self.ended = true;
            self.updates.push_back(Update::Ended(close));
            return Ok(());
        }
        if !out.is_empty() && link.send.write_chunk(out.into()).await.is_err() {
            self.link = None;
        }
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(dialing) = &self.dialing {
            dialing.abort();
        }
    }
}
