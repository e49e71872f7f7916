//! Listening: connections with bounds, each served until it ends or the gateway does.

use crate::assets::Assets;
use crate::book::Book;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::ops::Request;
use crate::options::{GatewayError, GatewayOptions};
use crate::sources::Sources;
use crate::status::Status;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidegate_live::{Origin, Reader};
use tidegate_proto::subscriber::Catalogue;
use tidegate_proto::subscription::Start;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tower::ServiceExt;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Connections that wait to be taken; the system may have a lower bound of its own. One that does not fit comes again after a
/// second by its own timer, so a crowd would delay those who come behind it.
const BACKLOG: u32 = 4_096;
/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection beyond the bound is told. It is written without waiting: nobody is owed more than that.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 89\r\n\r\n{\"error\":{\"code\":\"busy\",\"message\":\"there are as many connections as this server takes\"}}\n";

/// A gateway that listens.
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

/// What a gateway did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayReport {
    /// Connections it served.
    pub connections: u64,
    /// Connections it refused because there were as many as it takes.
    pub refused: u64,
    /// Connections that were still there after [`GatewayOptions::linger`].
    pub abandoned: u64,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) options: GatewayOptions,
    pub(crate) sources: Sources,
    /// What is known of the streams of a catalogue, until there is another one.
    book: RwLock<(Arc<Catalogue>, Arc<Book>)>,
    pub(crate) assets: Assets,
    pub(crate) metrics: Metrics,
    pub(crate) status: Status,
    pub(crate) large: Arc<Semaphore>,
    pub(crate) alert_questions: Arc<Semaphore>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A connection, as its requests know it. As long as a copy is held, the connection counts.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Shared {
    /// The streams as they are now.
    pub(crate) fn book(&self) -> Arc<Book> {
        let catalogue = self.sources.hub.catalogue();
        let held = self.book.read().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&held.0, &catalogue) {
            return Arc::clone(&held.1);
        }
        drop(held);
        let mut held = self.book.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&held.0, &catalogue) {
            let book = Arc::new(Book::new(&catalogue, Some(&held.1)));
            *held = (catalogue, book);
        }
        Arc::clone(&held.1)
    }

    /// A subscription, known by its peer. One that wants no hole is refused when there is one.
    pub(crate) async fn subscribe(
        &self,
        request: Request,
        kind: &'static str,
        address: SocketAddr,
    ) -> Result<Reader, ApiError> {
        let incarnation = self.sources.hub.catalogue().incarnation;
        if let Some(asked) = request.incarnation
            && asked != incarnation
        {
            let message = "the server was started anew since: its numbers begin again";
            return Err(ApiError::conflict("other_incarnation", message).allowed([incarnation]));
        }
        let from_sequence = matches!(request.subscription.start, Start::Sequence { .. });
        let origin = Origin { kind, peer: address.to_string().into() };
        let reader = self.sources.hub.subscribe_from(request.subscription, Some(origin)).await?;
        if from_sequence && !request.holes {
            let id = reader.id();
            let expired = self.ask(move |hub, _| hub.subscriber(id).map_or(0, |stats| stats.expired)).await?;
            if expired > 0 {
                let message = format!(
                    "up to {expired} records from there on are no longer kept; ask for a later one, or for what is left"
                );
                return Err(ApiError::conflict("sequence_cut", message).allowed(["\"cut\":\"loss\""]));
            }
        }
        Ok(reader)
    }
}

impl Gateway {
    /// Listens. Nothing is answered before [`Gateway::serve`].
    ///
    /// # Errors
    /// [`GatewayError`] when an option is out of range or the address cannot be had.
    pub async fn bind(options: GatewayOptions, sources: Sources) -> Result<Self, GatewayError> {
        options.check()?;
        let listen = |source| GatewayError::Listen { address: options.listen, source };
        let listener = listening(options.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stop, stopped) = watch::channel(false);
        let catalogue = sources.hub.catalogue();
        let book = Arc::new(Book::new(&catalogue, None));
        let shared = Arc::new(Shared {
            book: RwLock::new((catalogue, book)),
            assets: Assets::embedded(),
            metrics: Metrics::new(),
            status: Status::new(&sources),
            alert_questions: Arc::new(Semaphore::new(crate::alerts::QUESTIONS_MAX)),
            large: Arc::new(Semaphore::new(options.large_answers_max)),
            connections: Arc::new(Semaphore::new(options.connections_max)),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stop: stopped,
            options,
            sources,
        });
        Ok(Self { listener, address, shared, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, and then until its connections have been told and have ended, or took too long.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> GatewayReport {
        let Self { listener, shared, stop, .. } = self;
        let router = crate::rest::router(Arc::clone(&shared));
        let ticking = tokio::spawn(crate::status::tick(Arc::clone(&shared)));
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => accept(&shared, &router, stream, peer),
                // A peer that is gone already is not worth a pause; no more files to open is.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        drop(listener);
        let _ = stop.send(true);
        ticking.abort();
        let all = shared.options.connections_max as u32;
        let ended = tokio::time::timeout(shared.options.linger, shared.connections.acquire_many(all)).await;
        let left = if ended.is_ok() { 0 } else { all as usize - shared.connections.available_permits() };
        GatewayReport {
            connections: shared.accepted.load(Relaxed),
            refused: shared.refused.load(Relaxed),
            abandoned: left as u64,
        }
    }
}

fn accept(shared: &Arc<Shared>, router: &Router, stream: TcpStream, peer: SocketAddr) {
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        shared.refused.fetch_add(1, Relaxed);
        shared.metrics.refused("connections");
        // Past the runtime, which does not know yet that the new socket takes bytes.
        if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(REFUSAL);
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        return;
    };
    shared.accepted.fetch_add(1, Relaxed);
    // Small messages are not held back to be sent with later ones.
    let _ = stream.set_nodelay(true);
    let connection = Connection { peer, _permit: Arc::new(permit) };
    let (router, mut stop) = (router.clone(), shared.stop.clone());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(shared.options.head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let io = TokioIo::new(Timed { stream, limit: shared.options.write_timeout, stalled: None });
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut serving = pin!(http.serve_connection(io, service).with_upgrades());
        tokio::select! {
            ended = &mut serving => {
                if let Some(reason) = ended.err().as_ref().and_then(refusal) {
                    shared.metrics.refused(reason);
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop) => {}
        }
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    });
}

/// A socket that listens, with room for a crowd that comes at once.
fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As usual where an address may still be in the last words of connections before this start.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Why a connection was given up by this side; how else it ended is between the peer and its network.
fn refusal(error: &hyper::Error) -> Option<&'static str> {
    let cause = || std::error::Error::source(error)?.downcast_ref::<io::Error>();
    if error.is_timeout() {
        Some("slow_head")
    } else if error.is_parse() {
        Some("bad_request")
    } else {
        (cause()?.kind() == io::ErrorKind::TimedOut).then_some("slow_reader")
    }
}

/// A connection whose peer must take something of what is written within a time.
struct Timed {
    stream: TcpStream,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn progress<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
