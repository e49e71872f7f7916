//! Every bound of a connection, set on purpose.

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// Bounds that a server gives its peers and a client gives its server. The defaults suit a machine and its local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a peer may have in flight to us over all streams of a connection: 64 KiB to 1 GiB. The library's default has no end.
    /// As many bytes of datagrams wait to be read; beyond, the oldest are lost, which a feed's credit keeps from happening.
    pub receive_window: u32,
    /// The same for one stream.
    pub stream_receive_window: u32,
    /// Bytes that wait here to be sent or acknowledged, per connection.
    pub send_window: u32,
    /// Streams a peer may have open at once: 1 to 1,024.
    pub streams_max: u32,
    /// UDP payload to start with, in bytes: 1,200 to 6,500. Segmentation offload sends ten packets in one call of at most
    /// 64 KiB, and beyond that the kernel refuses and the library drops in silence.
    pub mtu: u16,
    /// UDP payload up to which more than that is looked for on the way, in bytes: up to 6,500.
    pub mtu_found_max: u16,
    /// Silence after which a connection is dead.
    pub idle_timeout: Duration,
    /// How often a silent connection is kept alive; `None` leaves that to the other side.
    pub keep_alive: Option<Duration>,
    /// Connections at once. More are refused.
    pub connections_max: usize,
    /// Connections above which a new peer must first prove its address.
    pub validate_above: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

/// Bytes of datagrams that wait to be sent. Beyond, the publisher waits.
const DATAGRAM_BUFFER: usize = 1 << 20;
/// Bytes that the other side may leave unacknowledged, about, and for how long. As much as a connection may send at first: with more, a
/// sender of large packets stands still until the time is over.
const ACK_BYTES: u32 = 12_000;
const ACK_DELAY: Duration = Duration::from_millis(5);
/// The largest MTU that [`Limits::mtu`] takes.
pub const MTU_MAX: u16 = 6_500;
/// What is looked for unless told otherwise: what an ordinary network carries.
const MTU_FOUND_MAX: u16 = 1_452;
/// The smallest, which QUIC itself requires.
pub const MTU_MIN: u16 = 1_200;

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_window: 16 << 20,
            stream_receive_window: 8 << 20,
            send_window: 8 << 20,
            streams_max: 16,
            // What passes any Ethernet with room for tunnels; discovery goes up from here.
            mtu: 1_200,
            mtu_found_max: MTU_FOUND_MAX,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(3)),
            connections_max: 10_000,
            validate_above: 1_000,
            handshake_timeout: Duration::from_secs(3),
        }
    }
}

/// A limit out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} is {found}, allowed are {min} to {max}")]
pub struct LimitError {
    /// Its name.
    pub limit: &'static str,
    /// Its value.
    pub found: u64,
    /// Least allowed.
    pub min: u64,
    /// Most allowed.
    pub max: u64,
}

impl Limits {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`LimitError`] for the first limit out of range.
    pub fn check(&self) -> Result<(), LimitError> {
        let check = |limit, found: u64, min: u64, max: u64| {
            if (min..=max).contains(&found) { Ok(()) } else { Err(LimitError { limit, found, min, max }) }
        };
        let window = (64 << 10, 1 << 30);
        check("receive_window", self.receive_window.into(), window.0, window.1)?;
        check("stream_receive_window", self.stream_receive_window.into(), window.0, window.1)?;
        check("send_window", self.send_window.into(), window.0, window.1)?;
        check("streams_max", self.streams_max.into(), 1, 1_024)?;
        check("mtu", self.mtu.into(), MTU_MIN.into(), MTU_MAX.into())?;
        check("mtu_found_max", self.mtu_found_max.into(), MTU_MIN.into(), MTU_MAX.into())?;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        check("idle_timeout in ms", millis(self.idle_timeout), 100, 3_600_000)?;
        check("keep_alive in ms", millis(self.keep_alive.unwrap_or(Duration::from_secs(1))), 10, 3_600_000)?;
        check("connections_max", self.connections_max as u64, 1, 1 << 20)?;
        check("handshake_timeout in ms", millis(self.handshake_timeout), 10, 60_000)
    }

    /// The library's settings for these limits. `peer_streams` is how many streams the peer may open towards us.
    #[must_use]
    pub fn transport(&self, peer_streams: u32) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(peer_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .receive_window(VarInt::from_u32(self.receive_window))
            .stream_receive_window(VarInt::from_u32(self.stream_receive_window))
            .send_window(self.send_window.into())
            // One slow stream must not starve the others of its connection.
            .send_fairness(true)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(self.keep_alive)
            .initial_mtu(self.mtu)
            .min_mtu(MTU_MIN)
            .datagram_receive_buffer_size(Some(self.receive_window as usize))
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            .crypto_buffer_size(16 << 10)
            .allow_spin(false)
            .enable_segmentation_offload(true);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu.max(self.mtu_found_max));
        config.mtu_discovery_config(Some(discovery));
        // Every other packet acknowledged alone is a third of all packets where small messages go to and fro. What arrives out of
        // order is still told at once.
        let mut acks = AckFrequencyConfig::default();
        let packets = (ACK_BYTES / u32::from(self.mtu.max(MTU_MIN))).max(1);
        acks.ack_eliciting_threshold(VarInt::from_u32(packets)).max_ack_delay(Some(ACK_DELAY));
        config.ack_frequency_config(Some(acks));
        Arc::new(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_that_offload_cannot_send_is_refused() {
        assert_eq!(Limits::default().check(), Ok(()));
        let error = Limits { mtu: 6_501, ..Limits::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "mtu is 6501, allowed are 1200 to 6500");
        // The rule behind the number: ten packets fit what one call may carry.
        assert!(u32::from(MTU_MAX) * 10 <= 65_535);
    }
}
