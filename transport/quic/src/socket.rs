//! Sockets as QUIC at speed needs them.

use quinn::{Endpoint, EndpointConfig, ServerConfig};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;

/// What a socket is asked to hold in either direction: the system's usual 208 KiB are three bursts of large packets, and what
/// does not fit is lost and sent again. The system grants what its own limit allows (`net.core.rmem_max`, `wmem_max`).
pub const BUFFER_BYTES: usize = 4 << 20;

/// The largest payload that comes in on an ordinary network; below that there is nothing to gain.
const PAYLOAD_MIN: u16 = 1_472;

/// An endpoint at `address` that takes packets of up to `mtu` bytes of UDP payload: its peers may send no larger ones, whatever
/// they are set to.
///
/// # Errors
/// When the address cannot be bound.
pub fn endpoint(address: SocketAddr, server: Option<ServerConfig>, mtu: u16) -> std::io::Result<Endpoint> {
    endpoint_of(EndpointConfig::default(), address, server, mtu)
}

/// The same, with settings of its own.
///
/// # Errors
/// When the address cannot be bound.
pub fn endpoint_of(
    mut config: EndpointConfig,
    address: SocketAddr,
    server: Option<ServerConfig>,
    mtu: u16,
) -> std::io::Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Best effort on purpose: it works with less, only not as fast.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.bind(&address.into())?;
    config.max_udp_payload_size(mtu.max(PAYLOAD_MIN)).map_err(std::io::Error::other)?;
    let runtime = quinn::default_runtime()
        .ok_or_else(|| std::io::Error::other("there is no tokio runtime on this thread"))?;
    Endpoint::new(config, server, socket.into(), runtime)
}
