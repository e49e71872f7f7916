//! The server: connections by plane, one task per stream, handles to the engine.

use crate::groups::{GroupSource, Groups};
use crate::limits::{LimitError, Limits};
use crate::security::{Access, BearerGate, ServerSecurity};
use crate::tls::TlsError;
use crate::usage::Usage;
use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidegate_live::{Delivery, FeedAnswer, HubHandle, IngestHandle, Origin, SubscribeError};
use tidegate_proto::subscriber::{Request, SubscriberSession};
use tidegate_proto::time::MILLISECOND_NS;
use tidegate_proto::{
    ALPN_FEED, ALPN_SUBSCRIBE, Close, CloseCode, Frame, FrameBuffer, FrameError, FrameWriter, Grant,
};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the peer has to read our last words.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A limit is out of range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    unauthorized: AtomicU64,
    over_quota: AtomicU64,
    throttled: AtomicU64,
    expired: AtomicU64,
    open: AtomicUsize,
}

/// How many came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections that finished their handshake.
    pub accepted: u64,
    /// Connections refused because there were as many as may be.
    pub refused: u64,
    /// Connections asked to prove their address first.
    pub retried: u64,
    /// Handshakes that failed or took too long.
    pub failed: u64,
    /// Sessions and subscriptions refused because the peer did not show who it is, or may not have them.
    pub unauthorized: u64,
    /// Subscriptions refused because their principal had as many as it may.
    pub over_quota: u64,
    /// Times a connection was not read for a while because its principal had sent its bytes of the moment.
    pub throttled: u64,
    /// Connections closed because they had stood for as long as one may.
    pub expired: u64,
    /// Connections open now.
    pub open: usize,
}

impl Counters {
    fn stats(&self) -> ServerStats {
        let Self { accepted, refused, retried, failed, unauthorized, over_quota, throttled, expired, open } =
            self;
        ServerStats {
            unauthorized: unauthorized.load(Relaxed),
            over_quota: over_quota.load(Relaxed),
            throttled: throttled.load(Relaxed),
            expired: expired.load(Relaxed),
            accepted: accepted.load(Relaxed),
            refused: refused.load(Relaxed),
            retried: retried.load(Relaxed),
            failed: failed.load(Relaxed),
            open: open.load(Relaxed),
        }
    }
}

#[derive(Clone)]
struct Shared {
    ingest: IngestHandle,
    hub: HubHandle,
    limits: Limits,
    counters: Arc<Counters>,
    access: Arc<RwLock<Arc<Access>>>,
    usage: Arc<Usage>,
    groups: Groups,
}

impl Shared {
    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts why a session was refused.
    fn count(&self, close: &Close) {
        match close.code {
            CloseCode::UNAUTHORIZED => self.counters.unauthorized.fetch_add(1, Relaxed),
            CloseCode::QUOTA => self.counters.over_quota.fetch_add(1, Relaxed),
            _ => 0,
        };
    }
}

/// The library's settings for a server.
fn configure(security: ServerSecurity, limits: &Limits) -> Result<quinn::ServerConfig, TlsError> {
    let must = security.certificate_required();
    let clients = security.client_ca.as_ref().map(|trust| (trust, must));
    let mut config = security.identity.server(&[ALPN_FEED, ALPN_SUBSCRIBE], clients)?;
    config
        .transport_config(limits.transport(limits.streams_max))
        .max_incoming(1_024)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20)
        .migration(true);
    Ok(config)
}

/// A listening server. Dropping it closes its connections.
pub struct QuicServer {
    endpoint: Endpoint,
    address: SocketAddr,
    limits: Limits,
    counters: Arc<Counters>,
    access: Arc<RwLock<Arc<Access>>>,
    groups: Arc<OnceLock<GroupSource>>,
    /// Whether new connections are taken.
    taking: Mutex<bool>,
}

impl QuicServer {
    /// Listens and serves, on the current tokio runtime. `security` may be an [`crate::Identity`]: then everybody may do everything.
    ///
    /// # Errors
    /// [`ServerError`] when a limit is out of range, the certificates cannot be used or the address is taken.
    pub fn start(
        address: SocketAddr,
        security: impl Into<ServerSecurity>,
        limits: Limits,
        ingest: IngestHandle,
        hub: HubHandle,
    ) -> Result<Self, ServerError> {
        limits.check()?;
        let security = security.into();
        let access = Arc::new(RwLock::new(Arc::new(security.access.clone())));
        let endpoint = security.identity.endpoint();
        let config = configure(security, &limits)?;
        let bind = |source| ServerError::Bind { address, source };
        let endpoint =
            crate::socket::endpoint_of(endpoint, address, Some(config), limits.mtu).map_err(bind)?;
        let address = endpoint.local_addr().map_err(bind)?;
        let counters = Arc::new(Counters::default());
        let (counted, looked_up) = (Arc::clone(&counters), Arc::clone(&access));
        let usage = Arc::new(Usage::default());
        let source = Arc::default();
        let elsewhere = (0..ingest.groups()).filter(|group| !ingest.holds(*group)).collect();
        let groups = Groups { count: ingest.groups(), elsewhere, source: Arc::clone(&source) };
        let shared = Shared { ingest, hub, limits, counters: counted, access: looked_up, usage, groups };
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                admit(incoming, &shared);
            }
        });
        Ok(Self { endpoint, address, limits, counters, access, groups: source, taking: Mutex::new(true) })
    }

    /// Says where the groups are, once that is known; before, feeds of several groups are sent away for a moment. Only the first word counts.
    pub fn set_groups(&self, source: GroupSource) {
        let _ = self.groups.set(source);
    }

    /// Takes other certificates, keys, rules and quotas, without a stop: connections from now on get the new ones, those that
    /// stand keep what they have until they end.
    ///
    /// # Errors
    /// [`ServerError::Tls`] when the certificates cannot be used; then nothing has changed.
    pub fn reload(&self, security: ServerSecurity) -> Result<(), ServerError> {
        let access = Arc::new(security.access.clone());
        let config = configure(security, &self.limits)?;
        let taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
        if *taking {
            self.endpoint.set_server_config(Some(config));
        }
        Ok(())
    }

    /// Who may ask by other ways, such as HTTP, by the same tokens and rules, also after [`QuicServer::reload`]. Where no tokens
    /// are taken, everybody is `anonymous` there and may do what rules say of that.
    #[must_use]
    pub fn bearer_gate(&self) -> Arc<BearerGate> {
        let access = Arc::clone(&self.access);
        Arc::new(move |token: Option<&[u8]>| {
            let access = Arc::clone(&access.read().unwrap_or_else(PoisonError::into_inner));
            access.by_other_ways(token)
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many came.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.counters.stats()
    }

    /// The same for somebody else to ask, also while the server goes.
    pub fn stats_handle(&self) -> impl Fn() -> ServerStats + Send + Sync + 'static {
        let counters = Arc::clone(&self.counters);
        move || counters.stats()
    }

    /// Takes no new connections.
    pub fn refuse_new(&self) {
        *self.taking.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.endpoint.set_server_config(None);
    }

    /// Waits until peers have read their last words, for a bounded time, and closes.
    pub async fn close(self) {
        let _ = timeout(LAST_WORDS, self.drained()).await;
        self.endpoint.close(VarInt::from_u32(CloseCode::SHUTTING_DOWN.0.into()), b"the server ends");
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }

    async fn drained(&self) {
        while self.counters.open.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Lets a connection in, or not, before anything is spent on it.
fn admit(incoming: Incoming, shared: &Shared) {
    let counters = &shared.counters;
    let open = counters.open.load(Relaxed);
    if open >= shared.limits.connections_max {
        counters.refused.fetch_add(1, Relaxed);
        return incoming.refuse();
    }
    if open >= shared.limits.validate_above && !incoming.remote_address_validated() && incoming.may_retry() {
        counters.retried.fetch_add(1, Relaxed);
        let _ = incoming.retry();
        return;
    }
    let shared = shared.clone();
    counters.open.fetch_add(1, Relaxed);
    tokio::spawn(async move {
        match timeout(shared.limits.handshake_timeout, async { incoming.await }).await {
            Ok(Ok(connection)) => {
                shared.counters.accepted.fetch_add(1, Relaxed);
                connected(&connection, &shared).await;
            }
            _ => {
                shared.counters.failed.fetch_add(1, Relaxed);
            }
        }
        shared.counters.open.fetch_sub(1, Relaxed);
    });
}

/// One connection: streams of the plane it came for, until it is gone.
async fn connected(connection: &Connection, shared: &Shared) {
    let data = connection.handshake_data().and_then(|data| data.downcast().ok());
    let data: Option<Box<quinn::crypto::rustls::HandshakeData>> = data;
    let feed = data.and_then(|data| data.protocol).is_some_and(|alpn| alpn == ALPN_FEED);
    // Rules that change meanwhile are for those who come later.
    let access = shared.access();
    let expires = access.session_max().map(|span| Instant::now() + span);
    let expired = async {
        match expires {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(expired);
    // A connection without a stream costs memory for nothing.
    let mut first = true;
    let mut datagrams = feed;
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let stream = if first {
            let hello = Duration::from_nanos(shared.hub.catalogue().hello_ns);
            match timeout(hello, connection.accept_bi()).await {
                Ok(stream) => stream,
                Err(_) => {
                    let reason = b"no stream was opened";
                    return connection.close(VarInt::from_u32(CloseCode::SILENT.0.into()), reason);
                }
            }
        } else {
            tokio::select! {
                stream = connection.accept_bi() => stream,
                () = &mut expired => {
                    shared.counters.expired.fetch_add(1, Relaxed);
                    let reason = b"the connection has stood for as long as one may; come again";
                    connection.close(VarInt::from_u32(CloseCode::EXPIRED.0.into()), reason);
                    break;
                }
                // The last stream of a connection is its end: the peer has everything, or has gone.
                Some(_) = tasks.join_next() => {
                    if tasks.is_empty() {
                        return connection.close(VarInt::from_u32(CloseCode::FINISHED.0.into()), b"");
                    }
                    continue;
                }
            }
        };
        first = false;
        let Ok((send, receive)) = stream else { break };
        let peer =
            Peer { connection: connection.clone(), access: Arc::clone(&access), shared: shared.clone() };
        if feed {
            // A connection's datagrams are of the feed on its first stream.
            let datagrams = std::mem::take(&mut datagrams);
            tasks.spawn(async move { serve_feed(send, receive, &peer, datagrams).await });
        } else {
            tasks.spawn(async move { serve_subscriber(send, receive, &peer).await });
        }
    }
    // The connection is gone: what its streams still do ends by itself at their next read or write.
    while tasks.join_next().await.is_some() {}
}

/// Says the last words and waits until they were read.
async fn last_words(mut send: SendStream, close: &Close) {
    let mut frame = Vec::new();
    FrameWriter::new(&mut frame).close(close.code, &close.reason);
    let _ = timeout(LAST_WORDS, async {
        let _ = send.write_chunk(frame.into()).await;
        let _ = send.finish();
        let _ = send.stopped().await;
    })
    .await;
}

/// Whom a stream is with.
struct Peer {
    connection: Connection,
    access: Arc<Access>,
    shared: Shared,
}

impl Peer {
    /// Where it is, for tables.
    fn address(&self) -> Box<str> {
        self.connection.remote_address().to_string().into_boxed_str()
    }

    /// Reads the first frame, leaves it in `buffer`, and says what its sender may do, and in which group. What it is to be told first goes
    /// into `out`.
    async fn greeting(
        &self,
        receive: &mut RecvStream,
        buffer: &mut FrameBuffer,
        out: &mut Vec<u8>,
    ) -> Result<(Grant, u16), Close> {
        let protocol = |error: FrameError| Close::new(CloseCode::PROTOCOL, error.to_string());
        let hello_ns = self.shared.hub.catalogue().hello_ns;
        let deadline = Instant::now() + Duration::from_nanos(hello_ns);
        while buffer.peek_frame().map_err(protocol)?.is_none() {
            match timeout_at(deadline, receive.read(buffer.space())).await {
                Ok(Ok(Some(count))) => buffer.filled(count),
                Ok(Ok(None) | Err(_)) => return Err(Close::new(CloseCode::FINISHED, "")),
                Err(_) => {
                    let ms = hello_ns / MILLISECOND_NS;
                    return Err(Close::new(CloseCode::SILENT, format!("nothing was heard for {ms} ms")));
                }
            }
        }
        let Some((offset, head, body)) = buffer.peek_frame().map_err(protocol)? else {
            return Err(Close::new(CloseCode::FINISHED, ""));
        };
        match Frame::read(offset, &head, body).map_err(protocol)? {
            Frame::Hello(hello) => {
                let grant = self.access.grant(&self.connection, &hello)?;
                Ok((grant, self.shared.groups.of(&hello, out)?))
            }
            other => {
                let (kind, place) = (other.kind(), "before HELLO");
                Err(protocol(FrameError::Unexpected { offset, kind, place }))
            }
        }
    }
}

async fn serve_feed(mut send: SendStream, mut receive: RecvStream, peer: &Peer, datagrams: bool) {
    let shared = &peer.shared;
    let mut buffer = shared.ingest.buffer();
    let mut first = Vec::new();
    let greeted = peer.greeting(&mut receive, &mut buffer, &mut first).await;
    if !first.is_empty() && send.write_chunk(first.into()).await.is_err() {
        return;
    }
    let (grant, group) = match greeted {
        Ok(greeted) => greeted,
        Err(close) => {
            shared.count(&close);
            return last_words(send, &close).await;
        }
    };
    let clock = shared.hub.clock();
    let pace = shared.usage.pace(&grant, clock.now());
    let address = Some(peer.address());
    let Ok((mut feed, mut answers)) = shared.ingest.open_in(group, grant, buffer, address).await else {
        return last_words(send, &Close::new(CloseCode::SHUTTING_DOWN, "the server ends")).await;
    };
    let mut apart = feed.datagrams();
    let close = {
        let receiving = async {
            while datagrams && let Ok(mut datagram) = peer.connection.read_datagram().await {
                let mut count = 0;
                loop {
                    count += datagram.len();
                    if !apart.push(&datagram) {
                        break;
                    }
                    // What is here already goes the same way.
                    let next = pin!(peer.connection.read_datagram());
                    match next.poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(Ok(next)) => datagram = next,
                        _ => break,
                    }
                }
                if apart.flush().await.is_err() {
                    break;
                }
                if let Some(wait) = pace.spent(count, clock.now()) {
                    shared.counters.throttled.fetch_add(1, Relaxed);
                    tokio::time::sleep(wait).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let reading = async {
            let mut count = 0; // HELLO and what came with it lie in the buffer
            // When the peer ends its stream the ingest thread has the last word; without a CLOSE there is none to be had.
            while feed.filled(count).await.is_ok() {
                if let Some(wait) = pace.spent(count, clock.now()) {
                    // Not read, the connection fills up, and the peer waits.
                    shared.counters.throttled.fetch_add(1, Relaxed);
                    tokio::time::sleep(wait).await;
                }
                let space = feed.space();
                let most = pace.most(clock.now()).min(space.len());
                let Ok(Some(read)) = receive.read(&mut space[..most]).await else { break };
                count = read;
            }
            drop(feed);
        };
        let writing = async {
            while let Some(answer) = answers.recv().await {
                match answer {
                    FeedAnswer::Frames(bytes) => {
                        if send.write_chunk(bytes.into()).await.is_err() {
                            return None;
                        }
                    }
                    FeedAnswer::Close(close) => return Some(close),
                }
            }
            None
        };
        tokio::pin!(receiving, reading, writing);
        // When reading ends the feed is forgotten by the ingest thread, which then lets go of the answers.
        tokio::select! {
            close = &mut writing => close,
            () = &mut reading => writing.await,
            () = &mut receiving => None,
        }
    };
    if let Some(close) = close {
        shared.count(&close);
        last_words(send, &close).await;
    }
}

async fn serve_subscriber(mut send: SendStream, mut receive: RecvStream, peer: &Peer) {
    if let Err(close) = subscription(&mut send, &mut receive, peer).await {
        peer.shared.count(&close);
        last_words(send, &close).await;
    }
}

/// One subscription, from greeting to end.
async fn subscription(send: &mut SendStream, receive: &mut RecvStream, peer: &Peer) -> Result<(), Close> {
    let shared = &peer.shared;
    let clock = shared.hub.clock();
    let catalogue = shared.hub.catalogue();
    let mut session = SubscriberSession::new(Arc::clone(&catalogue), clock.now());
    let mut buffer = FrameBuffer::new(1);
    let mut out = Vec::new();
    let greeted = peer.greeting(receive, &mut buffer, &mut out).await;
    if !out.is_empty() {
        // Ahead of everything else, also of the last words.
        let first = std::mem::take(&mut out);
        send.write_chunk(first.into()).await.map_err(|_| Close::new(CloseCode::FINISHED, ""))?;
    }
    let (grant, _) = greeted?;
    let mut seat = None;
    let finished = || Close::new(CloseCode::FINISHED, "");
    let mut reader = None;
    loop {
        while reader.is_none()
            && let Some(request) = next_request(&mut session, &mut buffer, clock.now(), &mut out)?
        {
            match request {
                Request::Nothing => {}
                Request::Finished => return Err(finished()),
                Request::Subscribe(subscription) => {
                    grant.check_subscription(&subscription)?;
                    seat = Some(shared.usage.seat(&grant, clock.now()).map_err(|most| {
                        let reason =
                            format!("`{}` has {most} subscriptions, which is its quota", grant.principal());
                        Close::new(CloseCode::QUOTA, reason)
                    })?);
                    let origin = Origin { kind: "quic", peer: peer.address() };
                    let outcome = shared.hub.subscribe_from(subscription, Some(origin)).await;
                    let answer = match &outcome {
                        Ok(reader) => Ok(reader.lag_budget()),
                        Err(SubscribeError::Refused(error)) => Err(error.clone()),
                        Err(SubscribeError::Gone(error)) => {
                            return Err(Close::new(CloseCode::SHUTTING_DOWN, error.to_string()));
                        }
                    };
                    // Numbers of streams are those of the catalogue that the peer was given.
                    if outcome.is_ok() && !Arc::ptr_eq(&catalogue, &shared.hub.catalogue()) {
                        return Err(Close::new(CloseCode::CHANGED, "the streams have changed meanwhile"));
                    }
                    session.subscribed(clock.now(), answer, &mut out)?;
                    reader = outcome.ok();
                }
            }
        }
        if !out.is_empty() && send.write_chunk(std::mem::take(&mut out).into()).await.is_err() {
            return Ok(());
        }
        if reader.is_some() {
            break;
        }
        let deadline = Instant::from_std(clock.instant(session.timeout()));
        match timeout_at(deadline, receive.read(buffer.space())).await {
            Ok(Ok(Some(count))) => buffer.filled(count),
            Ok(Ok(None) | Err(_)) => return Err(finished()),
            Err(_) => session.tick(clock.now(), &mut out)?,
        }
    }
    let _seat = seat;
    let Some(mut reader) = reader else { return Ok(()) };
    let heartbeat = Duration::from_millis(catalogue.heartbeat_ms.into());
    let writing = async {
        loop {
            match timeout(heartbeat, reader.next()).await {
                Ok(Some(Delivery::Frames(mut frames))) => {
                    if send.write_all_chunks(&mut frames).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Some(Delivery::Closed(close))) => return Err(close),
                Ok(None) => return Err(Close::new(CloseCode::SHUTTING_DOWN, "the server ends")),
                Err(_) => {
                    let mut frame = Vec::new();
                    FrameWriter::new(&mut frame).heartbeat(clock.now().0, 0);
                    if send.write_chunk(Bytes::from(frame)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    };
    let listening = async {
        let mut out = Vec::new();
        loop {
            while let Some(request) = next_request(&mut session, &mut buffer, clock.now(), &mut out)? {
                if request == Request::Finished {
                    return Err(finished());
                }
            }
            session.told(clock.now()); // heartbeats are the writing side's
            let silence = Duration::from_nanos(catalogue.silence_ns);
            match timeout(silence, receive.read(buffer.space())).await {
                Ok(Ok(Some(count))) => buffer.filled(count),
                Ok(Ok(None) | Err(_)) => return Err(finished()),
                Err(_) => return Err(Close::new(CloseCode::SILENT, "nothing was heard for too long")),
            }
        }
    };
    tokio::select! {
        outcome = writing => outcome,
        outcome = listening => outcome,
    }
}

/// What the next whole frame asks for; `None` when more bytes are needed.
fn next_request(
    session: &mut SubscriberSession,
    buffer: &mut FrameBuffer,
    now: tidegate_proto::MonoTime,
    out: &mut Vec<u8>,
) -> Result<Option<Request>, Close> {
    let protocol = |error: tidegate_proto::FrameError| Close::new(CloseCode::PROTOCOL, error.to_string());
    let Some((offset, head, body)) = buffer.next_frame().map_err(protocol)? else { return Ok(None) };
    let frame = Frame::read(offset, &head, body).map_err(protocol)?;
    session.handle(now, offset, &frame, out).map(Some)
}
