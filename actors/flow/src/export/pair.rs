//! Two directions into one flow.
//!
//! Exporters tell each direction by itself. A half waits [`HOLD_NS`] for its other half; samples of one direction are added up meanwhile. States
//! and histories follow from the TCP flags, which exporters collect over all packets of a direction: coarser than from packets, and for
//! UDP or ICMP "not answered" is only said of exporters that were seen to tell both directions.

use super::{Arrival, Half};
use crate::address::Ip;
use crate::community::counterpart;
use crate::hash::{Fixed, Recent, hash_of};
use crate::packet::{protocol, tcp_flag};
use crate::record::{ConnState, EndCause, FlowRecord, History, Side};
use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

/// How long a half waits for the other one. Exporters end both within their inactive time-out, mostly 15 s.
pub const HOLD_NS: u64 = 15 * 1_000_000_000;
/// Halves that wait.
pub const PAIRS_MAX: usize = 1 << 16;
/// Pairs an exporter must have told before its silence about one direction means that nothing was answered.
const PAIRED_MIN: u32 = 8;
/// A flow without states that goes on within so long of what was told before is the same one: active time-outs cut it.
const CONTINUES_NS: u64 = 90 * 1_000_000_000;
/// Flows remembered as told, and exporters as telling both directions.
const TOLD_MAX: usize = 1 << 16;

/// Exporter, lower and higher end, protocol.
type Key = (Ip, (Ip, u16), (Ip, u16), u8);

#[derive(Debug, Clone, Copy)]
struct Waiting {
    half: Half,
    /// The other direction, where samples of both are added up.
    other: Option<Half>,
    /// First and last datagram.
    numbers: (u64, u64),
    generation: u64,
}

/// Halves of flows that wait for each other.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    waiting: HashMap<Key, Waiting, Fixed>,
    /// When whose wait ends, in order; entries whose generation passed are void.
    due: VecDeque<(u64, Key, u64)>,
    /// When the last part of a flow was told.
    told: Recent<u64, u64>,
    /// Pairs seen of an exporter.
    paired: Recent<Ip, u32>,
    generation: u64,
    flows: u64,
    hurried: u64,
}

impl Default for Pairs {
    fn default() -> Self {
        Self {
            waiting: HashMap::default(),
            due: VecDeque::new(),
            told: Recent::new(TOLD_MAX),
            paired: Recent::new(super::EXPORTERS_MAX),
            generation: 0,
            flows: 0,
            hurried: 0,
        }
    }
}

/// The ends of a half as flows name them: for ICMP its type, and the type that answers it or its code.
fn ends(half: &Half) -> Option<((Ip, u16), (Ip, u16))> {
    let (source, target) = (half.source?, half.target?);
    if matches!(half.protocol, protocol::ICMP | protocol::ICMP6) {
        let (kind, code) = (half.target_port >> 8, half.target_port & 0xff);
        return Some(((source, kind), (target, counterpart(half.protocol, kind).unwrap_or(code))));
    }
    Some(((source, half.source_port), (target, half.target_port)))
}

impl Pairs {
    /// Flows given out, and halves among them that could not wait.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.flows, self.hurried)
    }

    /// Takes a half.
    pub(super) fn take(&mut self, arrival: Arrival, half: Half, take: &mut impl FnMut(&FlowRecord)) {
        let Some((source, target)) = ends(&half) else { return };
        let number = arrival.number;
        let mut waiting = Waiting { half, other: None, numbers: (number, number), generation: 0 };
        if half.back.is_some() || target.0.is_group() {
            self.give(arrival.exporter, &waiting, take);
            return;
        }
        let (low, high) = if source <= target { (source, target) } else { (target, source) };
        let key = (arrival.exporter, low, high, half.protocol);
        if let Some(known) = self.waiting.get_mut(&key) {
            known.numbers.1 = number;
            let same = ends(&known.half) == Some((source, target));
            if half.sample {
                match (same, &mut known.other) {
                    (true, _) => add(&mut known.half, &half),
                    (false, Some(other)) => add(other, &half),
                    (false, other) => *other = Some(half),
                }
                return;
            }
            let mut known = *known;
            self.waiting.remove(&key);
            if !same {
                known.other = Some(half);
                self.give(arrival.exporter, &known, take);
                return;
            }
            // The same direction again: what waited was a flow of its own.
            known.numbers.1 = known.numbers.0;
            self.give(arrival.exporter, &known, take);
        }
        while self.waiting.len() >= PAIRS_MAX || self.due.len() >= 2 * PAIRS_MAX {
            let Some(due) = self.due.pop_front() else { break };
            self.hurried += u64::from(self.expire(due, take));
        }
        self.generation += 1;
        waiting.generation = self.generation;
        self.waiting.insert(key, waiting);
        self.due.push_back((arrival.received_ns.saturating_add(HOLD_NS), key, self.generation));
    }

    /// Gives out what waited long enough by `now`.
    pub(super) fn advance(&mut self, now: u64, take: &mut impl FnMut(&FlowRecord)) {
        while let Some(&due) = self.due.front().filter(|due| due.0 <= now) {
            self.due.pop_front();
            self.expire(due, take);
        }
    }

    /// Gives out what an entry was about, if that still waits.
    fn expire(&mut self, (_, key, generation): (u64, Key, u64), take: &mut impl FnMut(&FlowRecord)) -> bool {
        let Some(&waiting) = self.waiting.get(&key).filter(|known| known.generation == generation) else {
            return false;
        };
        self.waiting.remove(&key);
        self.give(key.0, &waiting, take);
        true
    }

    fn give(&mut self, exporter: Ip, waiting: &Waiting, take: &mut impl FnMut(&FlowRecord)) {
        let Waiting { half, other, numbers, .. } = waiting;
        // Who was heard first asked; of two heard at once it is the one with the higher port.
        let icmp = matches!(half.protocol, protocol::ICMP | protocol::ICMP6);
        let later = other.as_ref().is_some_and(|other| match other.start_ns.cmp(&half.start_ns) {
            Ordering::Less => true,
            Ordering::Greater => false,
            // An echo's reply, or a server's port.
            Ordering::Equal if icmp => matches!(half.target_port >> 8, 0 | 129),
            Ordering::Equal => half.source_port < half.target_port,
        });
        let (asks, answers) = match other {
            Some(other) if later => (other, Some(half)),
            other => (half, other.as_ref()),
        };
        let Some((originator, responder)) = ends(asks) else { return };
        let back = asks.back.or(answers.map(|half| (half.flags, half.bytes, half.packets)));
        let back = back.filter(|&(_, bytes, packets)| bytes > 0 || packets > 0);
        let paired = self.paired.entry(exporter, || 0);
        *paired = paired.saturating_add(u32::from(back.is_some()));
        let two_way = *paired >= PAIRED_MIN;
        let last_ns = answers.map_or(asks.last_ns, |answers| answers.last_ns.max(asks.last_ns));
        let sampled = asks.sampling > 1;
        let mut record = FlowRecord {
            id: self.flows + 1,
            start_ns: asks.start_ns,
            last_ns,
            originator: originator.0,
            originator_port: originator.1,
            responder: responder.0,
            responder_port: responder.1,
            protocol: asks.protocol,
            state: ConnState::Oth,
            history: History::default(),
            sent: side(asks.protocol, asks.bytes, asks.packets),
            received: back.map_or(Side::default(), |(_, bytes, packets)| side(asks.protocol, bytes, packets)),
            packets: *numbers,
            vlan: asks.vlan,
            tunnels: 0,
            cause: EndCause::Logged,
            sampling: asks.sampling,
        };
        match record.protocol {
            protocol::TCP if !sampled => {
                let flags = back.map(|(flags, ..)| flags);
                judge_flags(&mut record, asks.flags, flags);
                // Without a SYN it is what an active time-out cut off the beginning of.
                let syn = (asks.flags | flags.unwrap_or(0)) & tcp_flag::SYN != 0;
                if !syn && asks.flags != 0 {
                    record.cause = EndCause::Interim;
                } else if flags.is_none() && record.state == ConnState::Oth {
                    record.cause = EndCause::OneWay;
                }
            }
            _ => {
                if record.protocol == protocol::UDP && !sampled {
                    record.state = match (back.is_some(), two_way) {
                        (true, _) => ConnState::Sf,
                        (false, true) => ConnState::S0,
                        (false, false) => ConnState::Oth,
                    };
                    record.history = if back.is_some() { "Dd".into() } else { "D".into() };
                }
                if back.is_none() && !two_way {
                    record.cause = EndCause::OneWay;
                }
                self.continues(exporter, &mut record);
            }
        }
        self.flows += 1;
        take(&record);
    }

    /// A flow without states that was told about a moment ago goes on.
    fn continues(&mut self, exporter: Ip, record: &mut FlowRecord) {
        let FlowRecord { originator, originator_port, responder, responder_port, protocol, .. } = *record;
        let key = hash_of(&(exporter, originator, responder, originator_port, responder_port, protocol));
        let mut is_new = false;
        let last = self.told.entry(key, || {
            is_new = true;
            record.last_ns
        });
        if !is_new && record.start_ns.saturating_sub(*last) <= CONTINUES_NS {
            record.cause = EndCause::Interim;
        }
        *last = record.last_ns.max(*last);
    }
}

/// Adds a sample of the same direction.
fn add(sum: &mut Half, half: &Half) {
    sum.bytes = sum.bytes.saturating_add(half.bytes);
    sum.packets = sum.packets.saturating_add(half.packets);
    sum.flags |= half.flags;
    sum.last_ns = sum.last_ns.max(half.last_ns);
}

/// Exporters count bytes of IP; what is left without headers of the usual size is payload.
fn side(number: u8, bytes: u64, packets: u64) -> Side {
    let header = match number {
        protocol::TCP => 40,
        protocol::UDP | protocol::ICMP | protocol::ICMP6 => 28,
        _ => 20,
    };
    Side { bytes: bytes.saturating_sub(packets.saturating_mul(header)), packets, ip_bytes: bytes }
}

/// Sets state and history of a TCP flow by the flags collected over all packets of either direction: of who asked, and of who was asked
/// where anything came from there. Sizes must be set.
pub fn judge_flags(record: &mut FlowRecord, asks: u8, back: Option<u8>) {
    record.state = state(asks, back);
    record.history = history(record, asks, back.unwrap_or(0));
}

/// Zeek's state as far as collected flags tell; `back` where the other direction was seen.
fn state(asks: u8, back: Option<u8>) -> ConnState {
    use tcp_flag::{ACK, FIN, RST, SYN};
    let has = |flags: u8, bit: u8| flags & bit != 0;
    match back {
        None if asks & (SYN | ACK) == SYN => match (has(asks, RST), has(asks, FIN)) {
            (true, _) => ConnState::RstOS0,
            (false, true) => ConnState::Sh,
            (false, false) => ConnState::S0,
        },
        // One direction of a conversation: the other went another way.
        None => ConnState::Oth,
        Some(back) if has(asks, SYN) && !has(back, SYN) && has(back, RST) => ConnState::Rej,
        Some(back) if has(asks, SYN) && has(back, SYN) => match (has(asks, FIN), has(back, FIN)) {
            (true, true) => ConnState::Sf,
            _ if has(asks, RST) => ConnState::RstO,
            _ if has(back, RST) => ConnState::RstR,
            (true, false) => ConnState::S2,
            (false, true) => ConnState::S3,
            (false, false) => ConnState::S1,
        },
        Some(_) => ConnState::Oth,
    }
}

/// Letters for the flags of both directions, in the order in which they usually come.
fn history(record: &FlowRecord, asks: u8, back: u8) -> History {
    use tcp_flag::{ACK, FIN, RST, SYN};
    let mut history = History::default();
    let answered = record.received.packets > 0;
    let letters = [
        (b'S', asks & SYN != 0),
        (b'h', answered && back & SYN != 0),
        (b'A', asks & ACK != 0),
        (b'D', record.sent.bytes > 0),
        (b'a', record.received.packets > 1 && back & ACK != 0),
        (b'd', record.received.bytes > 0),
        (b'F', asks & FIN != 0),
        (b'f', back & FIN != 0),
        (b'R', asks & RST != 0),
        (b'r', back & RST != 0),
    ];
    for (letter, shown) in letters {
        if shown {
            history.push(letter);
        }
    }
    history
}
