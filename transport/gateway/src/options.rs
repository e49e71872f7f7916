//! Bounds of a gateway, checked when it is bound.

use std::net::SocketAddr;
use std::time::Duration;

/// Bounds of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names it may be called by, beside IP addresses and `localhost`: a name that is not listed may have been pointed here by
    /// somebody else's page.
    pub hosts: Vec<String>,
    /// Pages of other origins that may read it, such as `http://localhost:5173`.
    pub origins: Vec<String>,
    /// Connections at once: 1 to 1,000,000. Further ones are told 503.
    pub connections_max: usize,
    /// How long a request's head may take, and a connection may be idle between two requests: 10 ms to 1 h.
    pub head_timeout: Duration,
    /// How long a peer may take nothing of what is written to it: 10 ms to 1 h.
    pub write_timeout: Duration,
    /// How long an answer may take altogether, streams aside: 10 ms to 1 h.
    pub answer_timeout: Duration,
    /// Answers of more than 64 KiB at once: 1 to 65,536. Further ones wait.
    pub large_answers_max: usize,
    /// Bytes of a WebSocket message a client may send: 256 to 1 MiB.
    pub message_bytes_max: usize,
    /// Subscriptions of one WebSocket: 1 to 1,024.
    pub subscriptions_max: usize,
    /// How often a silent WebSocket is asked whether it is still there, and a silent event stream is told that it is: 10 ms to 1 h.
    pub ping_every: Duration,
    /// Silence after which a WebSocket is closed: more than `ping_every`, to 1 h.
    pub idle_timeout: Duration,
    /// How long connections may take to end when the gateway ends: at most 1 h.
    pub linger: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: Vec::new(),
            origins: Vec::new(),
            // Ten thousand dashboards and scripts, and room for requests beside them.
            connections_max: 12_000,
            head_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(20),
            answer_timeout: Duration::from_secs(30),
            large_answers_max: 128,
            message_bytes_max: 64 * 1024,
            subscriptions_max: 64,
            ping_every: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            linger: Duration::from_secs(3),
        }
    }
}

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// An option out of its range.
    #[error("{option} is {found}, allowed are {min} to {max}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// Least allowed.
        min: String,
        /// Most allowed.
        max: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl GatewayOptions {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`GatewayError::Option`] for the first option out of range.
    pub fn check(&self) -> Result<(), GatewayError> {
        let counts = [
            ("connections_max", self.connections_max, 1, 1_000_000),
            ("large_answers_max", self.large_answers_max, 1, 65_536),
            ("message_bytes_max", self.message_bytes_max, 256, 1 << 20),
            ("subscriptions_max", self.subscriptions_max, 1, 1_024),
        ];
        for (option, found, min, max) in counts {
            if !(min..=max).contains(&found) {
                let [found, min, max] = [found, min, max].map(|count| count.to_string());
                return Err(GatewayError::Option { option, found, min, max });
            }
        }
        let least = Duration::from_millis(10);
        let times = [
            ("head_timeout", self.head_timeout, least),
            ("write_timeout", self.write_timeout, least),
            ("answer_timeout", self.answer_timeout, least),
            ("ping_every", self.ping_every, least),
            ("idle_timeout", self.idle_timeout, least),
            ("linger", self.linger, Duration::ZERO),
        ];
        for (option, found, min) in times {
            let max = Duration::from_secs(3_600);
            if !(min..=max).contains(&found) {
                let [found, min, max] = [found, min, max].map(|time| format!("{time:?}"));
                return Err(GatewayError::Option { option, found, min, max });
            }
        }
        if self.idle_timeout <= self.ping_every {
            let [found, min, max] = [self.idle_timeout, self.ping_every, Duration::from_secs(3_600)]
                .map(|time| format!("{time:?}"));
            return Err(GatewayError::Option {
                option: "idle_timeout (more than ping_every)",
                found,
                min,
                max,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        GatewayOptions::default().check().unwrap();
        let check = |change: fn(&mut GatewayOptions)| {
            let mut options = GatewayOptions::default();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        assert_eq!(
            check(|options| options.connections_max = 0),
            "connections_max is 0, allowed are 1 to 1000000"
        );
        assert_eq!(
            check(|options| options.idle_timeout = Duration::ZERO),
            "idle_timeout is 0ns, allowed are 10ms to 3600s"
        );
    }
}
