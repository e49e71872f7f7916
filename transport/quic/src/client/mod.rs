//! The client library: [`Publisher`] and [`Subscriber`], which reconnect and go on by themselves.

mod publisher;
mod redirect;
mod sessions;
mod subscriber;

pub use publisher::{PublishStats, Publisher, PublisherOptions};
pub use subscriber::{Arrival, Subscriber, Update};
pub use tidegate_proto::subscriber::Continuation;

use crate::limits::{LimitError, Limits};
use crate::tls::{Identity, TlsError, Trust};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_auth::{CHANNEL_BYTES, CHANNEL_LABEL, Credential, CredentialError};
use tidegate_proto::subscription::SubscriptionError;
use tidegate_proto::wire::PROOF_BYTES;
use tidegate_proto::{Close, FrameError, MonoTime};

/// Where a server is and how to speak to it.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Its address.
    pub server: SocketAddr,
    /// Where other nodes of the same cluster are: tried in turn when one does not answer or does not lead.
    pub others: Vec<SocketAddr>,
    /// The name its certificate must be good for.
    pub server_name: String,
    /// Whom to believe.
    pub trust: Trust,
    /// A certificate to show, where the server asks for one.
    pub identity: Option<Identity>,
    /// A token to show, and its key.
    pub credential: Option<CredentialSource>,
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
            others: Vec::new(),
            server_name: "localhost".to_owned(),
            trust,
            identity: None,
            credential: None,
            limits: Limits::default(),
            give_up_after: Duration::from_secs(10),
        }
    }
}

/// Where a client's token comes from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// Here it is, for as long as it lasts.
    Fixed(Arc<Credential>),
    /// A file that `tidegate token issue` writes, read at each connection: whoever renews it keeps the client connected.
    File(PathBuf),
}

/// What a client shows on one connection.
struct Shown {
    token: String,
    proof: [u8; PROOF_BYTES],
}

impl Shown {
    fn credential(shown: &Option<Self>) -> Option<tidegate_proto::Credential<'_>> {
        let shown = shown.as_ref()?;
        Some(tidegate_proto::Credential { proof: &shown.proof, token: shown.token.as_bytes() })
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
    /// The token cannot be read.
    #[error("the token in `{}` cannot be used", path.display())]
    Credential {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CredentialError,
    },
    /// The two do not believe each other: trying again does not help.
    #[error("the connection to {server} was refused in its handshake: {reason}")]
    Handshake {
        /// Where.
        server: SocketAddr,
        /// Why, in the words of TLS.
        reason: String,
    },
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
    /// Events were to go by datagrams.
    #[error("the server, or the path to it, takes no datagrams")]
    Datagrams,
    /// A node of a cluster has results of some groups only, and readers are of all.
    #[error(
        "{server} holds {held} of the {groups} groups of its cluster; a reader needs a node that holds all"
    )]
    Groups {
        /// Where.
        server: SocketAddr,
        /// Groups that it holds.
        held: usize,
        /// Groups that there are.
        groups: usize,
    },
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

/// A connection with its stream.
struct Dialed {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    shown: Option<Shown>,
}

/// Why an attempt to connect failed.
enum Failed {
    /// In a way that may pass.
    Again(String),
    /// In a way that will not.
    Over(ClientError),
}

/// Least and most time between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Connects, with attempts ever further apart, until it works or the time is up.
struct Dialer {
    endpoint: Endpoint,
    options: ClientOptions,
    config: quinn::ClientConfig,
    /// All servers, the one to dial next in front.
    servers: Mutex<VecDeque<SocketAddr>>,
}

/// Servers that are remembered at most; more are named by nobody but a hostile one.
const SERVERS_MAX: usize = 64;

impl Dialer {
    fn new(options: ClientOptions, alpn: &[u8]) -> Result<Self, ClientError> {
        options.limits.check()?;
        let mut config = options.trust.client(options.identity.as_ref(), alpn)?;
        // The server opens no streams towards its clients.
        config.transport_config(options.limits.transport(0));
        let any: SocketAddr = if options.server.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let endpoint = crate::socket::endpoint(any, None, options.limits.mtu).map_err(ClientError::Socket)?;
        let mut servers: VecDeque<SocketAddr> = VecDeque::from([options.server]);
        for &other in options.others.iter().take(SERVERS_MAX - 1) {
            if !servers.contains(&other) {
                servers.push_back(other);
            }
        }
        Ok(Self { endpoint, options, config, servers: Mutex::new(servers) })
    }

    /// Another one, of the same servers, which it tries in its own order.
    fn beside(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            options: self.options.clone(),
            config: self.config.clone(),
            servers: Mutex::new(self.servers().clone()),
        }
    }

    fn servers(&self) -> MutexGuard<'_, VecDeque<SocketAddr>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one to dial.
    fn server(&self) -> SocketAddr {
        self.servers().front().copied().unwrap_or(self.options.server)
    }

    /// How long to try.
    fn patience(&self) -> Duration {
        self.options.give_up_after
    }

    /// This one was of no use; another's turn.
    fn turn(&self) {
        self.servers().rotate_left(1);
    }

    /// Whether there is more than one.
    fn has_others(&self) -> bool {
        self.servers().len() > 1
    }

    /// A server named another one.
    fn prefer(&self, server: SocketAddr) {
        let mut servers = self.servers();
        match servers.iter().position(|other| *other == server) {
            Some(at) => servers.rotate_left(at),
            None if servers.len() < SERVERS_MAX => servers.push_front(server),
            None => {}
        }
    }

    async fn attempt(&self) -> Result<Dialed, Failed> {
        let ClientOptions { server_name, limits, .. } = &self.options;
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), self.server(), server_name)
            .map_err(|error| Failed::Again(error.to_string()))?;
        let connection = tokio::time::timeout(limits.handshake_timeout, connecting)
            .await
            .map_err(|_| Failed::Again("no answer".to_owned()))?
            .map_err(|error| self.failed(&error))?;
        let shown = self.show(&connection)?;
        let (send, receive) = connection.open_bi().await.map_err(|error| self.failed(&error))?;
        Ok(Dialed { connection, send, receive, shown })
    }

    fn failed(&self, error: &ConnectionError) -> Failed {
        match self.refused(error) {
            Some(error) => Failed::Over(error),
            None => Failed::Again(error.to_string()),
        }
    }

    /// Whether a connection ended because one side does not believe the other.
    fn refused(&self, error: &ConnectionError) -> Option<ClientError> {
        let (code, reason) = match error {
            ConnectionError::TransportError(error) => (error.code, error.reason.clone()),
            ConnectionError::ConnectionClosed(close) => {
                (close.error_code, String::from_utf8_lossy(&close.reason).into_owned())
            }
            _ => return None,
        };
        // RFC 9001, section 4.8: an alert of TLS.
        if !(0x100..0x200).contains(&u64::from(code)) {
            return None;
        }
        let reason = if reason.is_empty() { code.to_string() } else { reason };
        Some(ClientError::Handshake { server: self.server(), reason })
    }

    /// As [`Dialer::refused`], of a connection that stood: a server sees a client's certificate only then.
    fn refused_late(&self, connection: &Connection) -> Option<ClientError> {
        connection.close_reason().and_then(|reason| self.refused(&reason))
    }

    /// What there is to show on this connection.
    fn show(&self, connection: &Connection) -> Result<Option<Shown>, Failed> {
        let read;
        let credential = match &self.options.credential {
            None => return Ok(None),
            Some(CredentialSource::Fixed(credential)) => credential,
            Some(CredentialSource::File(path)) => {
                let text = std::fs::read(path).map_err(crate::tls::file("read", path));
                let text = text.map_err(|error| Failed::Over(error.into()))?;
                let parsed = Credential::of_json(&text);
                let path = || path.clone();
                read = parsed
                    .map_err(|source| Failed::Over(ClientError::Credential { path: path(), source }))?;
                &read
            }
        };
        let mut channel = [0; CHANNEL_BYTES];
        let derived = connection.export_keying_material(&mut channel, CHANNEL_LABEL, b"");
        derived.map_err(|_| Failed::Again("the connection has no value to bind to".to_owned()))?;
        Ok(Some(Shown { token: credential.token().to_owned(), proof: credential.proof(&channel) }))
    }

    async fn connect(&self) -> Result<Dialed, ClientError> {
        let start = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let reason = match self.attempt().await {
                Ok(link) => return Ok(link),
                Err(Failed::Over(error)) => return Err(error),
                Err(Failed::Again(reason)) => reason,
            };
            if start.elapsed() + pause >= self.options.give_up_after {
                let seconds = self.options.give_up_after.as_secs();
                return Err(ClientError::Unreachable { server: self.server(), seconds, reason });
            }
            self.turn();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
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
