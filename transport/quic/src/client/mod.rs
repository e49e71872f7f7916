//! The client library: [`Publisher`] and [`Subscriber`], which reconnect and go on by themselves.

mod publisher;
mod subscriber;

pub use publisher::{PublishStats, Publisher, PublisherOptions};
pub use subscriber::{Subscriber, Update};

use crate::limits::{LimitError, Limits};
use crate::tls::{TlsError, Trust};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate_proto::subscription::SubscriptionError;
use tidegate_proto::{Close, FrameError, MonoTime};

/// Where a server is and how to speak to it.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Its address.
    pub server: SocketAddr,
    /// The name its certificate must be good for.
    pub server_name: String,
    /// Whom to believe.
    pub trust: Trust,
    /// Bounds of the connection.
    pub limits: Limits,
    /// How long to try to connect, again and again, before giving up.
    pub give_up_after: Duration,
}

impl ClientOptions {
    /// A server on this machine, with the development certificate of a data folder.
    #[must_use]
    pub fn new(server: SocketAddr, trust: Trust) -> Self {
        Self {
            server,
            server_name: "localhost".to_owned(),
            trust,
            limits: Limits::default(),
            give_up_after: Duration::from_secs(10),
        }
    }
}

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A limit is out of range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No socket of this machine can be used.
    #[error("no socket could be opened")]
    Socket(#[source] std::io::Error),
    /// The server cannot be reached.
    #[error("no connection to {server} in {seconds} s: {reason}")]
    Unreachable {
        /// Where.
        server: SocketAddr,
        /// How long it was tried, in seconds.
        seconds: u64,
        /// Why the last attempt failed.
        reason: String,
    },
    /// The server ended it, for a reason that trying again does not cure.
    #[error("the server ended the session ({0})")]
    Closed(Close),
    /// The server sends what is no frame.
    #[error("the server does not speak this protocol")]
    Protocol(#[source] FrameError),
    /// The server breaks its own rules.
    #[error("the server broke the protocol: {0}")]
    Rule(Close),
    /// The subscription cannot be asked for.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// The name of a key is empty or longer than 255 bytes.
    #[error("the name of a key has {0} bytes, allowed are 1 to 255")]
    Name(usize),
    /// The task behind the publisher is gone.
    #[error("the publisher has ended")]
    Ended,
}

/// Time since the process first asked.
fn now() -> MonoTime {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    MonoTime(START.get_or_init(Instant::now).elapsed().as_nanos() as u64)
}

/// The instant of a time of [`now`], for timers; not in the past.
fn instant(time: MonoTime) -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_nanos(time.since(now()))
}

/// Connects, with attempts ever further apart, until it works or the time is up.
struct Dialer {
    endpoint: Endpoint,
    options: ClientOptions,
    config: quinn::ClientConfig,
}

impl Dialer {
    fn new(options: ClientOptions, alpn: &[u8]) -> Result<Self, ClientError> {
        options.limits.check()?;
        let mut config = options.trust.client(alpn)?;
        // The server opens no streams towards its clients.
        config.transport_config(options.limits.transport(0));
        let any: SocketAddr = if options.server.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let endpoint = crate::socket::endpoint(any, None, options.limits.mtu).map_err(ClientError::Socket)?;
        Ok(Self { endpoint, options, config })
    }

    async fn attempt(&self) -> Result<(Connection, SendStream, RecvStream), String> {
        let ClientOptions { server, server_name, limits, .. } = &self.options;
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), *server, server_name)
            .map_err(|error| error.to_string())?;
        let connection = tokio::time::timeout(limits.handshake_timeout, connecting)
            .await
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        Ok((connection, send, receive))
    }

    async fn connect(&self) -> Result<(Connection, SendStream, RecvStream), ClientError> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let reason = match self.attempt().await {
                Ok(link) => return Ok(link),
                Err(reason) => reason,
            };
            if start.elapsed() + pause >= self.options.give_up_after {
                let seconds = self.options.give_up_after.as_secs();
                return Err(ClientError::Unreachable { server: self.options.server, seconds, reason });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Ends in order: what was sent last is delivered.
    async fn end(&self, connection: &Connection, mut send: SendStream) {
        let _ = send.finish();
        let _ = tokio::time::timeout(Duration::from_secs(2), send.stopped()).await;
        connection.close(VarInt::from_u32(0), b"");
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}
