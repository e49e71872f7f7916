//! Data inside pings: an echo comes back as it was sent, unless somebody talks through it.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Hosts, furthest};
use crate::address::Ip;
use crate::hash::{Recent, hash_of, shorter};
use crate::packet::{Fragment, Packet, protocol};
use crate::sketch::Distinct;
use crate::table::SECOND;

/// Replies that differ from what was asked.
pub const CHANGED_MIN: u32 = 10;
/// Different lengths in one conversation: pings keep theirs, packets inside pings do not.
pub const LENGTHS_MIN: u32 = 8;
/// Echo packets before lengths count.
pub const PACKETS_MIN: u32 = 20;
/// Requests of which no part is as it was in those before, of the same length: a file in pieces. A ping repeats itself but for a clock at its
/// beginning, and a number somewhere.
pub const FILLED_MIN: u32 = 20;
/// Beginning of a request that is a clock.
pub const CLOCK_BYTES: usize = 16;
/// Bytes behind it that show whether they are others than before: in three parts.
pub const FILLED_BYTES: usize = 12;
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
    lengths: Distinct,
    packets: u32,
    last_length: u32,
    length_changes: u32,
    /// Of the last requests: length, and a hash of each third of what follows the clock. Two programs may ping the same host by turns.
    last_asked: [(u32, [u32; 3]); 2],
    /// Requests that could be compared with one of them; and those that have no part in common with any.
    compared: u32,
    filled: u32,
}

/// A hash of each third of what follows the clock.
fn thirds(payload: &[u8]) -> Option<[u32; 3]> {
    let data = payload.get(CLOCK_BYTES..).filter(|data| data.len() >= FILLED_BYTES)?;
    let third = data.len() / 3;
    let (first, rest) = data.split_at(third);
    let (second, last) = rest.split_at(third);
    Some([first, second, last].map(|part| shorter(hash_of(part))))
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
    pub fn take(&mut self, packet: &Packet<'_>, hosts: &mut Hosts, alerts: &mut Alerts) {
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
        let new = || Pair {
            range: Range::at(packet.number, packet.ts),
            asked: [(0, 0); 8],
            next: 0,
            changed: 0,
            same: 0,
            lengths: Distinct::default(),
            packets: 0,
            last_length: packet.payload_bytes,
            length_changes: 0,
            last_asked: [(0, [0; 3]); 2],
            compared: 0,
            filled: 0,
        };
        // Tunnels may use questions alone, or answers alone: the first to speak is then who asks.
        let (forth, back) = ((packet.source, packet.target), (packet.target, packet.source));
        let key =
            if self.pairs.contains(&forth) || (asks && !self.pairs.contains(&back)) { forth } else { back };
        let pair = self.pairs.entry(key, new);
        if packet.ts.saturating_sub(pair.range.first_ns) > WINDOW_NS {
            *pair = new();
        }
        pair.range.cover(packet.number, packet.ts);
        pair.packets += 1;
        let before = (pair.changed, pair.lengths.count(), pair.filled);
        pair.lengths.insert(u64::from(packet.payload_bytes) << 32);
        pair.length_changes += u32::from(packet.payload_bytes != pair.last_length);
        pair.last_length = packet.payload_bytes;
        if asks && let Some(now) = thirds(packet.payload) {
            let mut alike =
                pair.last_asked.iter().filter(|(length, _)| *length == packet.payload_bytes).peekable();
            if alike.peek().is_some() {
                pair.compared += 1;
                let shares = |last: &[u32; 3]| now.iter().zip(last).any(|(now, last)| now == last);
                pair.filled += u32::from(!alike.any(|(_, last)| shares(last)));
            }
            pair.last_asked = [pair.last_asked[1], (packet.payload_bytes, now)];
        }
        if asks {
            pair.asked[pair.next % 8] = (packet.sequence, content);
            pair.next += 1;
        } else if pair.asked.contains(&(packet.sequence, content)) {
            pair.same += 1;
        } else if pair.asked.iter().any(|asked| asked.0 == packet.sequence) {
            pair.changed += 1;
        }
        let lengths = pair.lengths.count();
        let uneven = pair.packets >= PACKETS_MIN
            && pair.length_changes * 4 >= pair.packets
            && pair.same * 2 <= pair.packets / 2;
        if uneven && pair.changed < CHANGED_MIN {
            let times = f64::from(lengths) / f64::from(LENGTHS_MIN);
            if lengths < LENGTHS_MIN {
                if steps(before.1.into(), lengths.into(), LENGTHS_MIN.into()) {
                    alerts.note(Measure::Echoes, furthest(hosts, key.0), times);
                }
                return;
            }
            let probability = alerts.weigh(Measure::Echoes, furthest(hosts, key.0), times);
            alerts.raise(
                Alert::new(Kind::IcmpTunnel, key.0, pair.range, packet.ts)
                    .against(key.1, None)
                    .rated(Severity::High, probability, "lengths")
                    .because("different lengths", lengths, 1.0)
                    .because("changes of length from packet to packet", pair.length_changes, 0.0)
                    .because("replies that equal their request", pair.same, pair.packets / 2),
            );
        }
        if pair.filled > before.2 && pair.filled * 4 >= pair.compared * 3 && pair.changed < CHANGED_MIN {
            let times = f64::from(pair.filled) / f64::from(FILLED_MIN);
            if pair.filled >= FILLED_MIN {
                let probability = alerts.weigh(Measure::Echoes, furthest(hosts, key.0), times);
                alerts.raise(
                    Alert::new(Kind::IcmpTunnel, key.0, pair.range, packet.ts)
                        .against(key.1, None)
                        .rated(Severity::High, probability, "data in requests")
                        .because("requests with nothing of those before", pair.filled, FILLED_MIN - 1)
                        .because("requests of the same length as one before", pair.compared, pair.filled)
                        .because("bytes in each", packet.payload_bytes, 56),
                );
            } else if steps(before.2.into(), pair.filled.into(), FILLED_MIN.into()) {
                alerts.note(Measure::Echoes, furthest(hosts, key.0), times);
            }
            return;
        }
        if pair.changed < pair.same {
            return;
        }
        let times = f64::from(pair.changed) / f64::from(CHANGED_MIN);
        if pair.changed >= CHANGED_MIN {
            let probability = alerts.weigh(Measure::Echoes, furthest(hosts, key.0), times);
            alerts.raise(
                Alert::new(Kind::IcmpTunnel, key.0, pair.range, packet.ts)
                    .against(key.1, None)
                    .rated(Severity::High, probability, "echo")
                    .because("replies that differ from the request", pair.changed, 0.0)
                    .because("replies that do not", pair.same, pair.changed),
            );
        } else if steps(before.0.into(), pair.changed.into(), CHANGED_MIN.into()) {
            alerts.note(Measure::Echoes, furthest(hosts, key.0), times);
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pairs.bytes(|pair| pair.lengths.owned_bytes())
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.pairs.dropped()
    }
}
