//! Data inside pings: an echo comes back as it was sent, unless somebody talks through it.

use super::alert::{Alert, Alerts, Kind, Range, Severity, probability};
use crate::address::Ip;
use crate::hash::{Recent, hash_of};
use crate::packet::{Fragment, Packet, protocol};
use crate::table::SECOND;

/// Replies that differ from what was asked.
pub const CHANGED_MIN: u32 = 10;
/// Window of the count.
pub const WINDOW_NS: u64 = 300 * SECOND;
const TRACKED_MAX: usize = 1 << 13;

#[derive(Debug, Clone)]
struct Pair {
    range: Range,
    asked: [(u32, u64); 8],
    next: usize,
    changed: u32,
    same: u32,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Pings {
    pairs: Recent<(Ip, Ip), Pair>,
}

impl Default for Pings {
    fn default() -> Self {
        Self { pairs: Recent::new(TRACKED_MAX) }
    }
}

impl Pings {
    /// Takes an ICMP packet.
    pub fn take(&mut self, packet: &Packet<'_>, alerts: &mut Alerts) {
        let asks = match (packet.protocol, packet.source_port) {
            (protocol::ICMP, 8) | (protocol::ICMP6, 128) => true,
            (protocol::ICMP, 0) | (protocol::ICMP6, 129) => false,
            _ => return,
        };
        // What the snap length cut cannot be compared.
        if packet.fragment != Fragment::Whole || packet.payload.len() as u32 != packet.payload_bytes {
            return;
        }
        let content = hash_of(packet.payload);
        let key = if asks { (packet.source, packet.target) } else { (packet.target, packet.source) };
        let new = || Pair {
            range: Range::at(packet.number, packet.ts),
            asked: [(0, 0); 8],
            next: 0,
            changed: 0,
            same: 0,
        };
        if asks {
            let pair = self.pairs.entry(key, new);
            if packet.ts.saturating_sub(pair.range.first_ns) > WINDOW_NS {
                *pair = new();
            }
            pair.asked[pair.next % 8] = (packet.sequence, content);
            pair.next += 1;
            pair.range.cover(packet.number, packet.ts);
            return;
        }
        let Some(pair) = self.pairs.find(&key) else { return };
        pair.range.cover(packet.number, packet.ts);
        // Several tunnels leave the number alone, so any of the questions will do.
        let asked = pair.asked.iter().any(|asked| asked.0 == packet.sequence);
        if pair.asked.contains(&(packet.sequence, content)) {
            pair.same += 1;
        } else if asked {
            pair.changed += 1;
        }
        if pair.changed >= CHANGED_MIN && pair.changed >= pair.same {
            alerts.raise(
                Alert::new(Kind::IcmpTunnel, key.0, pair.range, packet.ts)
                    .against(key.1, None)
                    .rated(
                        Severity::High,
                        probability(f64::from(pair.changed), f64::from(CHANGED_MIN)),
                        "echo",
                    )
                    .because("replies that differ from the request", pair.changed, 0.0)
                    .because("replies that do not", pair.same, pair.changed),
            );
        }
    }
}
