//! Exports over UDP: a thread per address takes datagrams off its socket, so that none waits for what is done with the one before.

use crate::cli::ListenArg;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::render::Ui;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_flow::Ip;

/// Datagrams that wait between the sockets and what is done with them; more are dropped, and counted.
pub(crate) const QUEUE_MAX: usize = 4_096;
/// How often sockets and reader look whether to end.
pub(crate) const LOOK: Duration = Duration::from_millis(200);
/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A datagram.
pub(crate) struct Datagram<'a> {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) from: Ip,
    /// ns since 1970.
    pub(crate) received_ns: u64,
    pub(crate) bytes: &'a [u8],
}

/// A datagram off its socket.
pub(crate) struct Received {
    pub(crate) from: Ip,
    /// ns since 1970.
    pub(crate) received_ns: u64,
    pub(crate) bytes: Box<[u8]>,
}

/// What an address takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    NetFlow,
    SFlow,
    /// Whatever a datagram says it is.
    Any,
}

/// Gives datagrams to `take` in the order in which they came, and `None` when there is a pause, until Ctrl-C or until `take` says no. How
/// many were dropped for lack of room.
pub(crate) fn receive(
    addresses: &[ListenArg],
    interrupt: &Interrupt,
    ui: &Ui,
    mut take: impl FnMut(Option<Datagram<'_>>) -> bool,
) -> Result<u64, Failure> {
    let mut sockets = Vec::new();
    for listen in addresses {
        let fail = |error: std::io::Error| {
            Failure::new(Exit::Input, anyhow::anyhow!("cannot take exports at {}: {error}", listen.address))
        };
        let socket = bind(listen.address).map_err(fail)?;
        let kind = if listen.sflow { "sFlow" } else { "NetFlow and IPFIX" };
        ui.note(&format!("{kind} at {}; Ctrl-C ends", socket.local_addr().map_err(fail)?));
        sockets.push((listen.sflow, socket));
    }
    let dropped = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        for (sflow, socket) in &sockets {
            let (sender, dropped) = (sender.clone(), &dropped);
            let takes = if *sflow { Takes::SFlow } else { Takes::NetFlow };
            scope.spawn(move || pump(socket, takes, &sender, dropped, || interrupt.raised(), |_| {}));
        }
        drop(sender);
        let mut number = 0;
        loop {
            let goes_on = match receiver.recv_timeout(LOOK) {
                Ok(Received { from, received_ns, bytes }) => {
                    number += 1;
                    take(Some(Datagram { number, from, received_ns, bytes: &bytes }))
                }
                Err(RecvTimeoutError::Timeout) => take(None),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if !goes_on {
                interrupt.raise();
                break;
            }
        }
    });
    Ok(dropped.into_inner())
}

/// A socket for exports.
pub(crate) fn bind(address: std::net::SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Takes datagrams off a socket until it is to end; what does not fit the queue is dropped and counted.
pub(crate) fn pump(
    socket: &UdpSocket,
    takes: Takes,
    sender: &SyncSender<Received>,
    dropped: &AtomicU64,
    ended: impl Fn() -> bool,
    came: impl Fn(&Received),
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while !ended() {
        // Time-outs, and errors that a peer provokes (ICMP), end nothing.
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        let bytes = &buffer[..count];
        // An address takes what it is for; the rest is refused where it is counted.
        let is_sflow = bytes.starts_with(&[0, 0, 0, 5]);
        let taken = match takes {
            Takes::NetFlow => !is_sflow,
            Takes::SFlow => is_sflow,
            Takes::Any => true,
        };
        let bytes: Box<[u8]> = if taken { bytes.into() } else { Box::default() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let received = Received { from: from.ip().to_canonical().into(), received_ns, bytes };
        came(&received);
        match sender.try_send(received) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}
