//! Links between nodes: one connection from each node to each other one, mutual TLS, dialed again for ever.
//!
//! A stream begins with `"TGLK"`, a version (1), a kind and a group (u16, little endian). Kind 1 carries messages of that group's replicas,
//! one behind the other, for as long as the connection stands; kind 5 the results of a group for a node that does not hold it
//! ([`crate::relay`]). The other kinds are a question and an answer in JSON, and then end; they are of no group, and have a zero there.
//!
//! There are two versions of the protocol, and the handshake finds the newest that both speak: in the second, inputs may be packed. To a node
//! of the version before each goes as what it stands for.

use crate::config::{ClusterConfig, ClusterError, Who};
use crate::machine;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tidegate_live::Plain;
use tidegate_quic::limits::MTU_MAX;
use tidegate_quic::tls::TlsError;
use tidegate_quic::{Limits, certs};
use tidegate_replica::{Body, GroupId, Message, NodeId, wire};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// The protocol between nodes, the newest version first.
const ALPN_NODE: [&[u8]; 2] = [b"tidegate-node/2", b"tidegate-node/1"];
/// Messages on their way to one node; with more, the newest are lost, and sent again when it says what it lacks.
const OUTBOX_MAX: usize = 1_024;
/// Pieces of snapshots on their way to one node: it asks for one after the other.
const PIECES_MAX: usize = 4;
/// Bytes written at a time, unless one message is larger.
const WRITE_BYTES: usize = 256 << 10;
/// A question or an answer at most.
const CALL_BYTES_MAX: usize = 4 << 20;
/// Between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long the first bytes of a stream may take.
const OPENING: Duration = Duration::from_secs(5);

const OPEN: [u8; 4] = *b"TGLK";
const VERSION: u8 = 1;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Messages of replicas.
    Replica = 1,
    /// Consensus on metadata.
    Consensus = 2,
    /// A command for metadata.
    Propose = 3,
    /// How a node is.
    Status = 4,
    /// The results of a group, for a node that does not hold it.
    Relay = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Replica, Self::Consensus, Self::Propose, Self::Status, Self::Relay]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    fn opening(self, group: GroupId) -> [u8; 8] {
        let [a, b, c, d] = OPEN;
        let [low, high] = group.to_le_bytes();
        [a, b, c, d, VERSION, self as u8, low, high]
    }
}

/// Where messages of other replicas of a group go.
pub(crate) type Inbox = mpsc::Sender<(NodeId, Message<Bytes>)>;

/// Messages on their way to one node.
type Outgoing = mpsc::Receiver<Message<Bytes>>;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("node {0} is not connected")]
    Apart(NodeId),
    #[error("node {0} did not answer in time")]
    Late(NodeId),
    #[error("the connection to node {0} broke")]
    Broken(NodeId),
    #[error("node {node} answers what is none: {source}")]
    Answer { node: NodeId, source: serde_json::Error },
}

/// Answers questions of peers.
pub(crate) trait Serve: Send + Sync + 'static {
    /// An answer, or nothing to somebody who may not ask.
    fn answer(
        self: Arc<Self>,
        who: Who,
        kind: Kind,
        question: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>>;

    /// Sends a node the results of a group, until the stream ends.
    fn relay(
        self: Arc<Self>,
        node: NodeId,
        group: GroupId,
        send: SendStream,
        receive: RecvStream,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// What a connection is closed with that comes from a node that has left.
const LEFT: VarInt = VarInt::from_u32(3);
/// How long a node that has left is talked to, so that it may hear of it.
const PARTING: Duration = Duration::from_secs(3);

/// What goes to one group's replica on a node.
struct Outbox {
    messages: mpsc::Sender<Message<Bytes>>,
    /// Pieces of snapshots have a stream of their own, so that nothing waits behind them.
    pieces: mpsc::Sender<Message<Bytes>>,
}

struct Peer {
    /// By group.
    outboxes: Vec<Outbox>,
    connection: watch::Receiver<Option<Connection>>,
    /// When it last answered a question, or its replica said something.
    heard: Mutex<Option<Instant>>,
    /// It has connected to here, so it can be connected to.
    here: Arc<Notify>,
    dialing: AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.dialing.abort();
        if let Some(connection) = &*self.connection.borrow() {
            connection.close(VarInt::from_u32(0), b"");
        }
    }
}

impl Peer {
    fn note(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// The bounds of a link: silence is noticed soon. Each group has two streams of its own, and one for its results, and another one while it
/// is asked for again.
fn limits(groups: GroupId) -> Limits {
    Limits {
        // Between nodes there is often more room than on the way to clients: large packets on the local machine, jumbo frames in a rack.
        mtu_found_max: MTU_MAX,
        receive_window: 64 << 20,
        stream_receive_window: 32 << 20,
        send_window: 32 << 20,
        streams_max: 62 + 4 * u32::from(groups),
        idle_timeout: Duration::from_secs(2),
        keep_alive: Some(Duration::from_millis(400)),
        ..Limits::default()
    }
}

/// Which versions of the protocol a node speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// All that this version knows.
    #[default]
    Newest,
    /// As the version before would: for tests of clusters in which both are.
    Before,
}

impl Speaks {
    fn alpn(self) -> &'static [&'static [u8]] {
        &ALPN_NODE[usize::from(self == Self::Before)..]
    }
}

/// Whether what is sent on a connection may be packed.
fn packs(connection: &Connection) -> bool {
    let found = connection.handshake_data().and_then(|found| found.downcast::<HandshakeData>().ok());
    found.is_some_and(|found| found.protocol.as_deref() == Some(ALPN_NODE[0]))
}

pub(crate) fn client(
    config: &ClusterConfig,
    dir: &Path,
    speaks: Speaks,
) -> Result<quinn::ClientConfig, TlsError> {
    let (identity, trust) = config.identity(dir)?;
    let mut client = trust.client_of(Some(&identity), speaks.alpn())?;
    client.transport_config(limits(config.groups).transport(0));
    Ok(client)
}

/// Connects to a node as who the folder says; what answers must have that node's certificate.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    client: &quinn::ClientConfig,
    config: &ClusterConfig,
    node: NodeId,
    address: SocketAddr,
) -> Result<Connection, String> {
    let connecting = endpoint
        .connect_with(client.clone(), address, &config.node_name(node))
        .map_err(|error| error.to_string())?;
    match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// Asks on a connection.
pub(crate) async fn ask(connection: &Connection, kind: Kind, question: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(&kind.opening(0)).await.ok()?;
    send.write_all(question).await.ok()?;
    send.finish().ok()?;
    receive.read_to_end(CALL_BYTES_MAX).await.ok().filter(|answer| !answer.is_empty())
}

/// All links of a node.
pub(crate) struct Links {
    me: NodeId,
    client: quinn::ClientConfig,
    endpoint: Endpoint,
    address: SocketAddr,
    /// Who is in the cluster, as far as this node knows.
    config: watch::Sender<Arc<ClusterConfig>>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Whether another node said that this one has left.
    left: Arc<watch::Sender<bool>>,
}

impl Links {
    /// Listens, and begins to dial. Nobody is answered before [`Links::serve`].
    pub(crate) fn start(
        config: ClusterConfig,
        dir: &Path,
        speaks: Speaks,
    ) -> Result<Arc<Self>, ClusterError> {
        let (me, place) = config.here(dir)?;
        let (identity, trust) = config.identity(dir)?;
        let limits = limits(config.groups);
        // A node started anew tells the others at once that their connections are gone.
        let known = identity.endpoint();
        let mut server = identity.server(speaks.alpn(), Some((&trust, true)))?;
        server
            .transport_config(limits.transport(limits.streams_max))
            .max_incoming(64)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20)
            .migration(false);
        let client = client(&config, dir, speaks)?;
        let bind = |source| ClusterError::Bind { address: place.peers, source };
        let endpoint =
            tidegate_quic::socket::endpoint_of(known, place.peers, Some(server), limits.mtu_found_max)
                .map_err(bind)?;
        let address = endpoint.local_addr().map_err(bind)?;
        let config = watch::Sender::new(Arc::new(config));
        let left = Arc::new(watch::Sender::new(false));
        let links = Self { me, client, endpoint, address, config, peers: RwLock::default(), left };
        links.dial();
        Ok(Arc::new(links))
    }

    /// Who is in the cluster, as far as this node knows.
    pub(crate) fn config(&self) -> Arc<ClusterConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// Whether another node said that this one has left.
    pub(crate) fn left(&self) -> watch::Receiver<bool> {
        self.left.subscribe()
    }

    /// Others have come or gone: whoever is new is dialed, and whoever has left is talked to no more after a while.
    pub(crate) fn follow(self: &Arc<Self>, config: ClusterConfig) {
        self.config.send_replace(Arc::new(config));
        self.dial();
        let links = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(PARTING).await;
            let Some(links) = links.upgrade() else { return };
            let config = links.config();
            links
                .peers
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|node, _| !config.left.contains(node));
        });
    }

    /// Dials those that are not dialed yet.
    fn dial(&self) {
        let config = self.config();
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let others = config.nodes.iter().filter(|(node, _)| **node != self.me && !config.left.contains(node));
        for (&node, place) in others {
            if peers.contains_key(&node) {
                continue;
            }
            let (mut outboxes, mut outgoing) = (Vec::new(), Vec::new());
            for group in 0..config.groups {
                let (messages, out) = mpsc::channel(OUTBOX_MAX);
                let (pieces, cut) = mpsc::channel(PIECES_MAX);
                outboxes.push(Outbox { messages, pieces });
                outgoing.extend([(group, out), (group, cut)]);
            }
            let (told, connection) = watch::channel(None);
            let here = Arc::new(Notify::new());
            let dial = Dial {
                endpoint: self.endpoint.clone(),
                client: self.client.clone(),
                config: Arc::clone(&config),
                node,
                address: place.peers,
                here: Arc::clone(&here),
                left: Arc::clone(&self.left),
            };
            let dialing = tokio::spawn(dial.run(outgoing, told)).abort_handle();
            let peer = Peer { outboxes, connection, heard: Mutex::new(None), here, dialing };
            peers.insert(node, Arc::new(peer));
        }
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Takes connections, for as long as the endpoint is open. There is one inbox for each group.
    pub(crate) fn serve(self: &Arc<Self>, service: Arc<impl Serve>, inboxes: Vec<Inbox>) {
        let inboxes: Arc<[Inbox]> = inboxes.into();
        let (links, open) = (Arc::clone(self), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Some(incoming) = links.endpoint.accept().await {
                // Each node once, once more while it reconnects, and operators.
                if open.load(Relaxed) >= 4 * links.config().nodes.len() + 16 {
                    incoming.refuse();
                    continue;
                }
                open.fetch_add(1, Relaxed);
                let (links, service, inboxes) =
                    (Arc::clone(&links), Arc::clone(&service), Arc::clone(&inboxes));
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    links.accepted(incoming, service, inboxes).await;
                    open.fetch_sub(1, Relaxed);
                });
            }
        });
    }

    async fn accepted(self: Arc<Self>, incoming: Incoming, service: Arc<impl Serve>, inboxes: Arc<[Inbox]>) {
        let Ok(Ok(connection)) = timeout(HANDSHAKE, async { incoming.await }).await else { return };
        let mut config = self.config.subscribe();
        let Some(who) = self.who(&connection) else {
            return connection.close(VarInt::from_u32(1), b"the certificate names nobody of this cluster");
        };
        if let Who::Node(node) = who
            && let Some(peer) = self.peer(node)
        {
            peer.here.notify_one();
        }
        let mut streams = JoinSet::new();
        loop {
            if let Some(Who::Left(_)) = self.who(&connection) {
                return connection.close(LEFT, b"it has left the cluster");
            }
            tokio::select! {
                changed = config.changed() => if changed.is_err() { break },
                stream = connection.accept_bi() => {
                    let Ok((send, receive)) = stream else { break };
                    let (connection, service) = (connection.clone(), Arc::clone(&service));
                    let (links, inboxes) = (Arc::clone(&self), Arc::clone(&inboxes));
                    streams.spawn(async move {
                        if let Err(why) = links.stream(who, send, receive, service, &inboxes).await {
                            connection.close(VarInt::from_u32(2), why.as_bytes());
                        }
                    });
                }
                Some(_) = streams.join_next() => {}
            }
        }
    }

    /// Whom the peer's certificate names.
    fn who(&self, connection: &Connection) -> Option<Who> {
        let shown = connection.peer_identity()?;
        let chain = shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
        self.config().who(&certs::dns_names(chain.first()?).ok()?)
    }

    /// Sends a message of a group, or loses it.
    pub(crate) fn send(&self, group: GroupId, node: NodeId, message: Message<Bytes>) {
        if let Some(peer) = self.peer(node)
            && let Some(outbox) = peer.outboxes.get(usize::from(group))
        {
            let piece = matches!(message, Message::Chunk { .. });
            let _ = if piece { &outbox.pieces } else { &outbox.messages }.try_send(message);
        }
    }

    /// Asks a node.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        kind: Kind,
        question: &[u8],
        patience: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let peer = self.peer(node).ok_or(CallError::Apart(node))?;
        let connection = peer.connection.borrow().clone().ok_or(CallError::Apart(node))?;
        let answer = timeout(patience, ask(&connection, kind, question)).await;
        let answer = answer.map_err(|_| CallError::Late(node))?.ok_or(CallError::Broken(node))?;
        peer.note();
        Ok(answer)
    }

    /// Opens a stream of a group to a node, that stays.
    pub(crate) async fn open(
        &self,
        node: NodeId,
        kind: Kind,
        group: GroupId,
    ) -> Result<(SendStream, RecvStream), CallError> {
        let peer = self.peer(node).ok_or(CallError::Apart(node))?;
        let connection = peer.connection.borrow().clone().ok_or(CallError::Apart(node))?;
        let opened = timeout(OPENING, connection.open_bi()).await.map_err(|_| CallError::Late(node))?;
        let (mut send, receive) = opened.map_err(|_| CallError::Broken(node))?;
        send.write_all(&kind.opening(group)).await.map_err(|_| CallError::Broken(node))?;
        Ok((send, receive))
    }

    /// When a node was last heard of.
    pub(crate) fn heard(&self, node: NodeId) -> Option<Instant> {
        let peer = self.peer(node)?;
        *peer.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes it is connected to.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let stands = peers.iter().filter(|(_, peer)| peer.connection.borrow().is_some());
        stands.map(|(&node, _)| node).collect()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"the node ends");
        let _ = timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }
}

impl Links {
    /// One stream of a peer. What breaks the protocol ends its connection.
    async fn stream(
        &self,
        who: Who,
        mut send: SendStream,
        mut receive: RecvStream,
        service: Arc<impl Serve>,
        inboxes: &[Inbox],
    ) -> Result<(), String> {
        let mut opening = [0; 8];
        match timeout(OPENING, receive.read_exact(&mut opening)).await {
            Ok(Ok(())) => {}
            _ => return Ok(()), // gone, or silent: the stream is dropped
        }
        let group = u16::from_le_bytes([opening[6], opening[7]]);
        let replica = opening[5] == Kind::Replica as u8;
        if opening[..4] != OPEN
            || opening[4] != VERSION
            || (group != 0 && !replica && opening[5] != Kind::Relay as u8)
        {
            return Err(format!("a stream begins with {opening:02x?}"));
        }
        let Some(kind) = Kind::of(opening[5]) else {
            return Err(format!("a stream of kind {}, allowed are 1 to 5", opening[5]));
        };
        if kind == Kind::Replica {
            let Who::Node(node) = who else { return Err("an operator is no replica".to_owned()) };
            let Some(inbox) = inboxes.get(usize::from(group)) else {
                return Err(format!("a stream of group {group}, there are {}", inboxes.len()));
            };
            return self.messages(node, receive, inbox).await;
        }
        if kind == Kind::Relay {
            let Who::Node(node) = who else { return Err("an operator relays nothing".to_owned()) };
            service.relay(node, group, send, receive).await;
            return Ok(());
        }
        let Ok(Ok(question)) = timeout(OPENING, receive.read_to_end(CALL_BYTES_MAX)).await else {
            return Ok(());
        };
        if let Some(answer) = service.answer(who, kind, question).await {
            let _ = send.write_all(&answer).await;
        }
        let _ = send.finish();
        Ok(())
    }

    /// Messages of a node's replica, until its stream ends.
    async fn messages(&self, node: NodeId, mut receive: RecvStream, inbox: &Inbox) -> Result<(), String> {
        loop {
            let mut head = [0; wire::HEAD_BYTES];
            if receive.read_exact(&mut head).await.is_err() {
                return Ok(());
            }
            let bytes = wire::body_bytes(&head).map_err(|error| error.to_string())?;
            let mut body = BytesMut::zeroed(bytes);
            if receive.read_exact(&mut body).await.is_err() {
                return Ok(());
            }
            let message = wire::decode(&head, body.freeze()).map_err(|error| error.to_string())?;
            if let Some(sender) = wire::sender(&message)
                && sender != node
            {
                return Err(format!("node {node} speaks for node {sender}"));
            }
            machine::check(&message)?;
            if let Some(peer) = self.peer(node) {
                peer.note();
            }
            // While the driver has enough to do, nothing more is read.
            // Of a driver that has ended nobody reads any more; the streams of other groups go on.
            let _ = inbox.send((node, message)).await;
        }
    }
}

struct Dial {
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    config: Arc<ClusterConfig>,
    node: NodeId,
    address: SocketAddr,
    here: Arc<Notify>,
    left: Arc<watch::Sender<bool>>,
}

impl Dial {
    async fn run(self, mut outgoing: Vec<(GroupId, Outgoing)>, told: watch::Sender<Option<Connection>>) {
        let mut pause = PAUSE.0;
        loop {
            let connecting = connect(&self.endpoint, &self.client, &self.config, self.node, self.address);
            // One that was begun before the node listened would be tried again only after a second.
            let found = tokio::select! {
                biased;
                found = connecting => found,
                () = self.here.notified() => continue,
            };
            if let Ok(connection) = found {
                pause = PAUSE.0;
                // What waited is of another time.
                for (_, waiting) in &mut outgoing {
                    while waiting.try_recv().is_ok() {}
                }
                told.send_replace(Some(connection.clone()));
                let over = write_all(&connection, &mut outgoing).await;
                told.send_replace(None);
                // Only who shows that node's certificate gets here, and nobody who has left comes back: it is believed.
                if let Some(quinn::ConnectionError::ApplicationClosed(why)) = connection.close_reason()
                    && why.error_code == LEFT
                {
                    self.left.send_replace(true);
                    return;
                }
                connection.close(VarInt::from_u32(0), b"");
                if over {
                    return;
                }
            }
            let _ = timeout(pause, self.here.notified()).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Writes what goes to a node, all side by side, until one of them is at its end: then the connection is gone, or there will be no more.
async fn write_all(connection: &Connection, outgoing: &mut [(GroupId, Outgoing)]) -> bool {
    let mut writing: FuturesUnordered<_> =
        outgoing.iter_mut().map(|(group, messages)| write(connection, *group, messages)).collect();
    writing.next().await.unwrap_or(true)
}

/// Writes a group's messages until the connection is gone. Returns whether there will be no more.
async fn write(connection: &Connection, group: GroupId, messages: &mut Outgoing) -> bool {
    let Ok((mut send, _receive)) = connection.open_bi().await else { return false };
    if send.write_all(&Kind::Replica.opening(group)).await.is_err() {
        return false;
    }
    let (mut out, mut plain) = (Vec::new(), (!packs(connection)).then(Plain::default));
    let mut encode = |mut message: Message<Bytes>, out: &mut Vec<u8>| {
        if let (Message::Append(append), Some(plain)) = (&mut message, &mut plain) {
            for entry in &mut append.entries {
                if let Body::Input { input, .. } = &mut entry.body {
                    *input = plain.owned(input);
                }
            }
        }
        // What is too large for a message was too large for an input before; such a one is left out.
        let _ = wire::encode(&message, out);
    };
    loop {
        let next = tokio::select! {
            next = messages.recv() => next,
            _ = connection.closed() => return false,
        };
        let Some(mut message) = next else { return true };
        out.clear();
        loop {
            encode(message, &mut out);
            match messages.try_recv() {
                Ok(more) if out.len() < WRITE_BYTES => message = more,
                Ok(more) => {
                    encode(more, &mut out);
                    break;
                }
                Err(_) => break,
            }
        }
        if send.write_all(&out).await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Founding, NodePlace};
    use std::net::UdpSocket;
    use std::path::PathBuf;
    use tidegate_replica::{Append, Body, Entry, Member};

    const GROUPS: GroupId = 2;

    struct Echo;

    impl Serve for Echo {
        fn answer(
            self: Arc<Self>,
            who: Who,
            kind: Kind,
            question: Vec<u8>,
        ) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>> {
            Box::pin(async move { Some(format!("{who:?} {kind:?} {}", question.len()).into_bytes()) })
        }

        fn relay(
            self: Arc<Self>,
            _: NodeId,
            _: GroupId,
            _: SendStream,
            _: RecvStream,
        ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async {})
        }
    }

    /// A cluster of two on free ports.
    fn cluster() -> (tempfile::TempDir, [PathBuf; 2], ClusterConfig) {
        let folder = tempfile::tempdir().unwrap();
        let sockets: Vec<UdpSocket> = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let at = |index: usize| sockets[index].local_addr().unwrap();
        let place = |index| NodePlace { peers: at(index), clients: at(index + 2) };
        let nodes = [(1, place(0)), (2, place(1))].into();
        let days = 30;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let config = ClusterConfig::init(
            folder.path(),
            nodes,
            Founding { min_isr: 2, groups: GROUPS, durable: false, copies: 0 },
            days,
            since.as_secs(),
        )
        .unwrap();
        let folders = [1, 2].map(|node| folder.path().join(format!("node-{node}")));
        (folder, folders, config)
    }

    fn ack(node: NodeId) -> Message<Bytes> {
        Message::Ack { epoch: 1, from: Member { node, incarnation: 1 }, matched: 7 }
    }

    /// What node 1 closes the connection with, when whoever owns `dir` sends this on a stream of messages.
    async fn closed_with(dir: &Path, config: &ClusterConfig, opening: [u8; 8], bytes: &[u8]) -> String {
        let endpoint = tidegate_quic::socket::endpoint(([127, 0, 0, 1], 0).into(), None, 1_200).unwrap();
        let client = client(&ClusterConfig::read(dir).unwrap(), dir, Speaks::Newest).unwrap();
        let connection = connect(&endpoint, &client, config, 1, config.nodes[&1].peers).await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&opening).await.unwrap();
        let _ = send.write_all(bytes).await;
        connection.closed().await.to_string()
    }

    fn bytes(message: &Message<Bytes>) -> Vec<u8> {
        let mut out = Vec::new();
        wire::encode(message, &mut out).unwrap();
        out
    }

    #[tokio::test]
    async fn peers_speak_for_themselves_and_break_no_rule() {
        let (folder, [one, two], config) = cluster();
        let (inboxes, mut messages): (Vec<Inbox>, Vec<_>) = (0..GROUPS).map(|_| mpsc::channel(16)).unzip();
        let links = Links::start(ClusterConfig::read(&one).unwrap(), &one, Speaks::Newest).unwrap();
        links.serve(Arc::new(Echo), inboxes);
        let other = Links::start(ClusterConfig::read(&two).unwrap(), &two, Speaks::Newest).unwrap();
        // Until it is dialed, messages are lost, as they may be.
        let received = loop {
            other.send(1, 1, ack(2));
            match timeout(Duration::from_millis(20), messages[1].recv()).await {
                Ok(received) => break received,
                Err(_) => continue,
            }
        };
        assert_eq!(received, Some((2, ack(2))));
        let answer = other.call(1, Kind::Status, b"abc", HANDSHAKE).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), "Node(2) Status 3");
        assert!(links.heard(2).is_some() && other.connected() == [1]);
        assert!(matches!(other.call(9, Kind::Status, b"", HANDSHAKE).await, Err(CallError::Apart(9))));

        other.send(GROUPS, 1, ack(2));
        let replica = Kind::Replica.opening(0);
        let forged = closed_with(&two, &config, replica, &bytes(&ack(1))).await;
        assert!(forged.contains("node 2 speaks for node 1"), "{forged}");
        let member = |node| Member { node, incarnation: 1 };
        let entry = |input: &'static [u8]| Entry {
            epoch: 1,
            body: Body::Input { source: 0, sequence: 1, input: Bytes::from_static(input) },
        };
        let append = |input| {
            Message::Append(Append {
                epoch: 1,
                lineage: 1,
                from: member(2),
                to: member(1),
                prev_offset: 0,
                prev_epoch: 0,
                entries: vec![entry(input)],
                commit: 0,
            })
        };
        for (message, says) in [
            (bytes(&append(b"what no engine takes")), "an input that is none"),
            (b"GET / HTTP/1.1".to_vec(), "no message of a replica"),
            (b"TN\x01\x01\xff\xff\xff\xff".to_vec(), "bytes of a message: 4294967295"),
        ] {
            let closed = closed_with(&two, &config, replica, &message).await;
            assert!(closed.contains(says), "{closed}");
        }
        let operator = closed_with(folder.path(), &config, replica, b"").await;
        assert!(operator.contains("an operator is no replica"), "{operator}");
        let apart = closed_with(&two, &config, Kind::Replica.opening(GROUPS), b"").await;
        assert!(apart.contains("a stream of group 2, there are 2"), "{apart}");
        for opening in [*b"TGLK\x02\x01\0\0", *b"TGLK\x01\x09\0\0", *b"TGLK\x01\x04\x01\0", *b"abcdefgh"] {
            let closed = closed_with(&two, &config, opening, b"").await;
            assert!(closed.contains("a stream"), "{closed}");
        }
        for messages in &mut messages {
            assert!(messages.try_recv().is_err(), "nothing of all that went on");
        }
    }

    #[tokio::test]
    async fn a_node_of_the_version_before_gets_what_packed_inputs_stand_for() {
        let [packed, plain] = machine::packed_and_plain();
        for (here, there, expected) in [
            (Speaks::Newest, Speaks::Newest, &packed),
            (Speaks::Newest, Speaks::Before, &plain),
            (Speaks::Before, Speaks::Newest, &plain),
        ] {
            let (_folder, [one, two], _) = cluster();
            let start =
                |dir: &Path, speaks| Links::start(ClusterConfig::read(dir).unwrap(), dir, speaks).unwrap();
            let (sender, receiver) = (start(&one, here), start(&two, there));
            let (inboxes, mut messages): (Vec<Inbox>, Vec<_>) =
                (0..GROUPS).map(|_| mpsc::channel(16)).unzip();
            receiver.serve(Arc::new(Echo), inboxes);
            let member = |node| Member { node, incarnation: 1 };
            let body = Body::Input { source: 0, sequence: 1, input: packed.clone() };
            let append = Message::Append(Append {
                epoch: 1,
                lineage: 1,
                from: member(1),
                to: member(2),
                prev_offset: 0,
                prev_epoch: 0,
                entries: vec![Entry { epoch: 1, body }],
                commit: 0,
            });
            let received = loop {
                sender.send(0, 2, append.clone());
                match timeout(Duration::from_millis(20), messages[0].recv()).await {
                    Ok(received) => break received,
                    Err(_) => continue,
                }
            };
            let Some((1, Message::Append(append))) = received else { panic!("{received:?}") };
            let Body::Input { input, .. } = &append.entries[0].body else { panic!("{append:?}") };
            assert_eq!(input, expected, "{here:?} to {there:?}");
            sender.close().await;
            receiver.close().await;
        }
    }

    #[tokio::test]
    async fn a_certificate_of_another_node_or_cluster_is_refused() {
        let (_folder, [one, two], config) = cluster();
        let (_other, [stranger, _], _) = cluster();
        let (inbox, _messages) = mpsc::channel(16);
        let links = Links::start(ClusterConfig::read(&one).unwrap(), &one, Speaks::Newest).unwrap();
        links.serve(Arc::new(Echo), vec![inbox; GROUPS.into()]);
        let endpoint = tidegate_quic::socket::endpoint(([127, 0, 0, 1], 0).into(), None, 1_200).unwrap();
        let address = config.nodes[&1].peers;
        let client_of = |dir: &Path| client(&ClusterConfig::read(dir).unwrap(), dir, Speaks::Newest).unwrap();
        // Who dials node 2 and finds node 1 there does not go on.
        let wrong = connect(&endpoint, &client_of(&two), &config, 2, address).await.unwrap_err();
        assert!(wrong.contains("certificate"), "{wrong}");
        // Another cluster's nodes believe nobody here, and nobody here believes them.
        let distrusts = connect(&endpoint, &client_of(&stranger), &config, 1, address).await.unwrap_err();
        assert!(distrusts.contains("certificate") || distrusts.contains("UnknownIssuer"), "{distrusts}");
        let (identity, _) = ClusterConfig::read(&stranger).unwrap().identity(&stranger).unwrap();
        let (_, trust) = ClusterConfig::read(&one).unwrap().identity(&one).unwrap();
        let forged = trust.client_of(Some(&identity), &ALPN_NODE).unwrap();
        // A server sees a client's certificate last, so the connection may stand for a moment.
        if let Ok(connection) = connect(&endpoint, &forged, &config, 1, address).await {
            let closed = connection.closed().await.to_string();
            assert!(closed.contains("certificate") || closed.contains("peer"), "{closed}");
        }
    }

    #[tokio::test]
    async fn who_has_left_is_told_so_and_who_is_new_is_dialed() {
        let (folder, [one, two], config) = cluster();
        let free = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [peers, clients] = free.map(|socket| socket.local_addr().unwrap());
        let place = NodePlace { peers, clients };
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let three = config.add_node(folder.path(), 3, place, 30, since.as_secs()).unwrap();
        let links = [&one, &two, &three]
            .map(|dir| Links::start(ClusterConfig::read(dir).unwrap(), dir, Speaks::Newest).unwrap());
        let (inbox, _messages) = mpsc::channel(16);
        links.iter().for_each(|links| links.serve(Arc::new(Echo), vec![inbox.clone(); GROUPS.into()]));
        let [first, second, third] = &links;
        // Until somebody tells the first, the third is nobody to it.
        let refused = third.call(1, Kind::Status, b"", HANDSHAKE).await;
        assert!(refused.is_err(), "{refused:?}");
        let known = third.config();
        for links in [first, second] {
            let mut with = (*known).clone();
            with.node = links.config().node;
            links.follow(with);
        }
        while first.call(3, Kind::Status, b"", HANDSHAKE).await.is_err()
            || third.call(1, Kind::Status, b"", HANDSHAKE).await.is_err()
        {
            tokio::task::yield_now().await;
        }
        let mut told = third.left();
        assert!(!*told.borrow());
        let mut without = (*first.config()).clone();
        without.nodes.remove(&3);
        without.left.insert(3);
        first.follow(without);
        timeout(Duration::from_secs(60), told.wait_for(|left| *left)).await.unwrap().unwrap();
        assert!(!*second.left().borrow(), "nobody else is meant");
    }
}
