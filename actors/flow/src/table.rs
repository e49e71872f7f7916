//! The flow table: packets in, flows out.
//!
//! A flow is found by its addresses, ports and protocol in either direction. TCP flows end by their states, all flows by
//! silence, and a new connection on the ports of an old one ends that. Memory is fixed by [`TableOptions::flows_max`]: when it
//! is full the flow that was silent for longest gives way, and is counted. Time is that of the packets. It does not go back but for a
//! clock that was set back by more than an hour, and does not leap ahead by more than that on the word of a single packet.

use crate::address::Ip;
use crate::community::counterpart;
use crate::detect::inspect::Inspection;
use crate::hash::{Fixed, Index, Recent};
use crate::packet::{Fragment, Packet, protocol, tcp_flag};
use crate::record::{ConnState, EndCause, FlowRecord, History, Side};
use crate::tcp::Tcp;
use std::collections::VecDeque;
use std::hash::BuildHasher;

/// A second in ns.
pub const SECOND: u64 = 1_000_000_000;

/// Bounds and time-outs of a [`FlowTable`]; the defaults are Zeek's.
#[derive(Debug, Clone, Copy)]
pub struct TableOptions {
    /// Flows held at once.
    pub flows_max: usize,
    /// Silence that ends a TCP flow that was answered.
    pub tcp_idle_ns: u64,
    /// Silence that ends a UDP flow, and one of any other protocol.
    pub udp_idle_ns: u64,
    /// Silence that ends an ICMP flow.
    pub icmp_idle_ns: u64,
    /// How long after its first SYN a connection without answer is given up.
    pub attempt_ns: u64,
    /// How long a closed connection waits for stragglers.
    pub linger_ns: u64,
    /// How long after its first packet a flow without answer counts as unanswered (see [`Watch::decided`]).
    pub answer_ns: u64,
    /// How long after its answer a TCP flow is looked at again (see [`Watch::matured`]).
    pub mature_ns: u64,
    /// Flows that last longer tell so in records as often; 0 for never.
    pub interim_ns: u64,
    /// Seed of the table's hashes.
    pub seed: u64,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            flows_max: 1 << 17,
            tcp_idle_ns: 300 * SECOND,
            udp_idle_ns: 60 * SECOND,
            icmp_idle_ns: 60 * SECOND,
            attempt_ns: 5 * SECOND,
            linger_ns: 5 * SECOND,
            answer_ns: 3 * SECOND,
            mature_ns: 15 * SECOND,
            interim_ns: 0,
            seed: Fixed::default().seed,
        }
    }
}

/// How the other side took the first packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It answered.
    Answered,
    /// It refused: RST, or a host or router said that the port or host is not there.
    Refused,
    /// It said nothing in time.
    Silent,
}

/// A flow in the table: five cache lines.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Flow {
    /// What would be written now; `state` is only filled in when it is written.
    pub record: FlowRecord,
    tcp: Tcp,
    /// When its list's deadline runs from.
    touched: u64,
    /// What its payload showed.
    pub inspection: Inspection,
    older: u32,
    newer: u32,
    generation: u32,
    list: u8,
    /// Flags of the first packet.
    pub first_flags: u8,
    /// Time to live of the first packet.
    pub first_ttl: u8,
    /// How it was answered, once decided.
    pub answer: Option<Answer>,
}

const _: () = assert!(size_of::<Flow>() == 320);

impl Flow {
    /// The TCP ends.
    #[must_use]
    pub fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    fn is(&self, key: &Key) -> bool {
        let FlowRecord { originator, originator_port, responder, responder_port, protocol, .. } = self.record;
        let rest = |low, high| Key::rest(low, high, protocol);
        // Either way round.
        (key.rest == rest(originator_port, responder_port) && key.low == originator && key.high == responder)
            || (key.rest == rest(responder_port, originator_port)
                && key.low == responder
                && key.high == originator)
    }

    /// Reads its lines; changes nothing, and what comes back means nothing.
    #[inline]
    fn touch(&self) -> u64 {
        let Self { record, tcp, touched, .. } = self;
        record.originator.0 as u64
            ^ record.last_ns
            ^ record.received.ip_bytes
            ^ u64::from(tcp.responder.closed)
            ^ touched
    }

    fn state(&self) -> ConnState {
        match self.record.protocol {
            protocol::TCP => self.tcp.conn_state(),
            protocol::UDP => match (self.record.sent.packets, self.record.received.packets) {
                (0, 0) => ConnState::Oth,
                (_, 0) => ConnState::S0,
                (0, _) => ConnState::Shr,
                _ => ConnState::Sf,
            },
            _ => ConnState::Oth,
        }
    }

    /// The record as of now.
    #[must_use]
    pub fn as_record(&self, cause: EndCause) -> FlowRecord {
        let mut record = FlowRecord { state: self.state(), cause, ..self.record };
        if record.protocol == protocol::TCP {
            record.sent.bytes = self.tcp.originator.size(&self.tcp.responder);
            record.received.bytes = self.tcp.responder.size(&self.tcp.originator);
        }
        record
    }
}

/// Who is told what happens in the table.
pub trait Watch {
    /// A flow began with this packet.
    fn opened(&mut self, _flow: &mut Flow, _packet: &Packet<'_>) {}
    /// A packet was counted, also the first.
    fn packet(&mut self, _flow: &mut Flow, _from_originator: bool, _packet: &Packet<'_>) {}
    /// The first packet of a flow was answered, refused, or left without answer. Comes at most once per flow, and not for
    /// TCP flows seen from the middle on.
    fn decided(&mut self, _flow: &mut Flow, _answer: Answer, _now: u64) {}
    /// A TCP flow was answered [`TableOptions::mature_ns`] ago and is still open.
    fn matured(&mut self, _flow: &mut Flow, _now: u64) {}
    /// A record is written. With [`EndCause::Interim`] the flow goes on.
    fn record(&mut self, _flow: &mut Flow, _record: &FlowRecord) {}
    /// The clock was set back, and all flows were ended: what is remembered with later times means nothing now.
    fn stepped(&mut self) {}
}

/// What a table did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Packets taken.
    pub packets: u64,
    /// Flows begun.
    pub opened: u64,
    /// Flows ended because the table was full.
    pub evicted: u64,
    /// Fragments whose first part was not seen (or forgotten); they make a flow without ports.
    pub orphan_fragments: u64,
    /// Packets older than one before; they count at the newest time.
    pub disordered: u64,
    /// Flows whose answer was decided early because too many waited.
    pub hurried: u64,
    /// Packets stamped more than an hour ahead that no other confirmed; they count as of the time before.
    pub unbelieved: u64,
    /// Times the clock was set back by more than an hour; all flows were ended.
    pub steps: u64,
}

// What the documentation says of memory.
const _: () = assert!(FlowTable::FLOW_BYTES == 340);

/// Both ends in one order, ports, protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    low: Ip,
    high: Ip,
    rest: u64,
}

impl Key {
    /// That of a packet with these ports.
    #[inline]
    fn of_packet(packet: &Packet<'_>, ports: (u16, u16)) -> Self {
        let ports = key_ports(packet, ports);
        Self::of(packet.source, ports.0, packet.target, ports.1, packet.protocol)
    }

    /// The key, and whether the packet goes from the low to the high end.
    #[inline]
    fn of(source: Ip, source_port: u16, target: Ip, target_port: u16, number: u8) -> Self {
        if (source, source_port) <= (target, target_port) {
            Self { low: source, high: target, rest: Self::rest(source_port, target_port, number) }
        } else {
            Self { low: target, high: source, rest: Self::rest(target_port, source_port, number) }
        }
    }

    const fn rest(low_port: u16, high_port: u16, number: u8) -> u64 {
        (number as u64) << 32 | (low_port as u64) << 16 | high_port as u64
    }
}

const NONE: u32 = u32::MAX;

/// Lists by time-out; each is in order of its deadlines.
const TCP: u8 = 0;
const UDP: u8 = 1;
const ICMP: u8 = 2;
const ATTEMPT: u8 = 3;
const DONE: u8 = 4;
const LISTS: usize = 5;

#[derive(Debug, Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
}

/// A later look at a flow.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: u64,
    flow: u32,
    generation: u32,
}

/// The table.
#[derive(Debug, Clone)]
pub struct FlowTable {
    options: TableOptions,
    flows: Vec<Flow>,
    free: Vec<u32>,
    index: Index,
    hasher: Fixed,
    held: usize,
    lists: [List; LISTS],
    answers: VecDeque<Due>,
    matures: VecDeque<Due>,
    interims: VecDeque<Due>,
    fragments: Recent<(Ip, Ip, u32, u8), (u16, u16)>,
    now: u64,
    /// Nothing is due before that.
    next_due: u64,
    /// The last packet, and so many before it, were stamped far ahead of or behind `now`.
    ahead: u32,
    behind: u32,
    next_id: u64,
    counts: TableCounts,
}

/// A leap of the clock, either way.
const LEAP_NS: u64 = 3_600 * SECOND;
/// Packets in a row that confirm a leap ahead: a quiet link has gaps of hours, and one packet more is not too much to ask.
const AHEAD_MIN: u32 = 2;
/// Packets in a row that confirm a step back: capture files put together out of order have a few.
const BEHIND_MIN: u32 = 16;

/// Packets read ahead together: more than a core has in flight gains nothing.
const BATCH: usize = 16;
/// Flows that addresses are reserved for at the start, as many as there are by default.
const FLOWS_RESERVED: usize = 1 << 17;
/// Fragmented packets remembered for their ports.
const FRAGMENTS_MAX: usize = 4_096;

impl FlowTable {
    /// An empty table.
    #[must_use]
    pub fn new(options: TableOptions) -> Self {
        let flows_max = options.flows_max.clamp(2, Index::SLOTS_MAX);
        Self {
            options: TableOptions { flows_max, ..options },
            // Its addresses, that is: memory is taken as flows come. They are aligned by lines, and would be copied to grow.
            flows: Vec::with_capacity(flows_max.min(FLOWS_RESERVED)),
            free: Vec::new(),
            index: Index::default(),
            hasher: Fixed { seed: options.seed },
            held: 0,
            lists: [List { oldest: NONE, newest: NONE }; LISTS],
            answers: VecDeque::new(),
            matures: VecDeque::new(),
            interims: VecDeque::new(),
            fragments: Recent::new(FRAGMENTS_MAX),
            now: 0,
            next_due: u64::MAX,
            ahead: 0,
            behind: 0,
            next_id: 0,
            counts: TableCounts::default(),
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> TableCounts {
        self.counts
    }

    /// Flows held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether no flow is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Newest time seen, ns since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Bytes a flow takes, with its place in the index.
    pub const FLOW_BYTES: usize = size_of::<Flow>() + 4 + 4 * 4;

    fn hash(&self, key: &Key) -> u32 {
        let hash = self.hasher.hash_one(key);
        (hash >> 32) as u32 ^ hash as u32
    }

    fn find(&self, hash: u32, key: &Key) -> Option<u32> {
        self.index.find(hash, |at| self.flows[at as usize].is(key))
    }

    /// Takes packets in order, as [`FlowTable::packet`] does, but reads what several of them will need side by side, so that they wait
    /// for memory together.
    pub fn packets(&mut self, packets: &[Packet<'_>], watch: &mut impl Watch) {
        for batch in packets.chunks(BATCH) {
            let mut hashes = [0; BATCH];
            let mut seen = 0;
            for (hash, packet) in hashes.iter_mut().zip(batch) {
                *hash = self.hash(&Key::of_packet(packet, (packet.source_port, packet.target_port)));
                seen ^= self.index.touch(*hash);
            }
            std::hint::black_box(seen);
            for &hash in &hashes[..batch.len()] {
                // Another flow than meant, now and then: this costs time alone.
                if let Some(at) = self.index.find(hash, |_| true) {
                    seen ^= self.flows[at as usize].touch();
                }
            }
            std::hint::black_box(seen);
            for (&hash, packet) in hashes.iter().zip(batch) {
                self.take(packet, Some(hash), watch);
            }
        }
    }

    /// Takes one packet.
    pub fn packet(&mut self, packet: &Packet<'_>, watch: &mut impl Watch) {
        self.take(packet, None, watch);
    }

    /// `hash` is that of its ends, where it is no fragment.
    #[inline]
    fn take(&mut self, packet: &Packet<'_>, hash: Option<u32>, watch: &mut impl Watch) {
        self.counts.packets += 1;
        let believed;
        let packet = match self.fence(packet.ts, watch) {
            None => packet,
            Some(ts) => {
                believed = Packet { ts, ..*packet };
                &believed
            }
        };
        if packet.ts < self.now {
            self.counts.disordered += 1;
        } else {
            self.advance(packet.ts, watch);
        }
        let now = self.now;
        let Some((source_port, target_port)) = self.ports(packet) else { return };
        let key_ports = key_ports(packet, (source_port, target_port));
        if matches!(packet.protocol, protocol::ICMP | protocol::ICMP6) {
            self.icmp_error(packet, watch);
        }
        let key = Key::of(packet.source, key_ports.0, packet.target, key_ports.1, packet.protocol);
        let hash = match hash {
            Some(hash) if packet.fragment == Fragment::Whole => hash,
            _ => self.hash(&key),
        };
        let mut found = self.find(hash, &key);
        if let Some(at) = found
            && packet.protocol == protocol::TCP
            && packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
        {
            let flow = &self.flows[at as usize];
            let from_originator =
                flow.record.originator == packet.source && flow.record.originator_port == source_port;
            let idle = now.saturating_sub(flow.record.last_ns);
            let reused = flow.tcp.is_reused_by(packet.sequence, idle);
            if reused && (from_originator || flow.list == DONE) {
                self.end(at, EndCause::Reused, watch);
                found = None;
            }
        }
        let at = match found {
            Some(at) => at,
            None => self.open(hash, key_ports, packet, watch),
        };
        let flow = &mut self.flows[at as usize];
        let from_originator = flow.record.originator == packet.source
            && (flow.record.originator_port == key_ports.0
                || flow.record.originator != flow.record.responder);
        let was_done = flow.list == DONE;
        if !was_done {
            flow.record.last_ns = packet.ts.max(flow.record.last_ns);
        }
        flow.record.packets.1 = packet.number;
        let side = if from_originator { &mut flow.record.sent } else { &mut flow.record.received };
        side.packets += 1;
        side.ip_bytes += u64::from(packet.ip_bytes);
        let first_of_side = side.packets == 1;
        let mut list = flow.list;
        let mut answer = None;
        if packet.protocol == protocol::TCP && packet.fragment != Fragment::Later {
            let mut history = flow.record.history;
            let step = flow.tcp.take(from_originator, packet, &mut history);
            flow.record.history = history;
            let side = if from_originator { &mut flow.record.sent } else { &mut flow.record.received };
            side.bytes += u64::from(packet.payload_bytes);
            if step.complete {
                list = DONE;
            } else if list == ATTEMPT && !flow.tcp.is_attempt() {
                list = TCP;
            }
            if !from_originator {
                let refused = packet.tcp_flags & tcp_flag::RST != 0;
                answer = Some(if refused { Answer::Refused } else { Answer::Answered });
            }
        } else {
            side.bytes += u64::from(packet.payload_bytes);
            if packet.protocol == protocol::UDP && first_of_side {
                flow.record.history.push(if from_originator { b'D' } else { b'd' });
            }
            if !from_originator {
                answer = Some(Answer::Answered);
            }
        }
        watch.packet(flow, from_originator, packet);
        if let Some(answer) = answer {
            self.decide(at, answer, watch);
        }
        // A flow moves to the end of its list now and then, not with each packet: its neighbours are far away in memory.
        // What is found too early at the front is put back.
        let stale = now - self.flows[at as usize].touched > self.timeout(list) / 32;
        let moves = stale && list != ATTEMPT && list != DONE;
        if moves || list != self.flows[at as usize].list {
            self.unlink(at);
            self.link(at, list, now);
        }
    }

    /// The time to take in place of one that leaps ahead, until another packet confirms it; ends all flows when the clock was set back.
    #[inline]
    fn fence(&mut self, ts: u64, watch: &mut impl Watch) -> Option<u64> {
        if ts.abs_diff(self.now) <= LEAP_NS || self.now == 0 {
            (self.ahead, self.behind) = (0, 0);
            return None;
        }
        self.leap(ts, watch)
    }

    #[cold]
    fn leap(&mut self, ts: u64, watch: &mut impl Watch) -> Option<u64> {
        if ts > self.now {
            (self.ahead, self.behind) = (self.ahead + 1, 0);
            if self.ahead < AHEAD_MIN {
                self.counts.unbelieved += 1;
                return Some(self.now);
            }
            self.ahead = 0;
            return None;
        }
        (self.ahead, self.behind) = (0, self.behind + 1);
        if self.behind >= BEHIND_MIN {
            self.counts.steps += 1;
            self.finish(watch);
            watch.stepped();
            (self.now, self.behind) = (ts, 0);
        }
        None
    }

    /// Lets time pass without a packet: what is due by `now` is done.
    pub fn advance(&mut self, now: u64, watch: &mut impl Watch) {
        if now <= self.now {
            return;
        }
        self.now = now;
        if now >= self.next_due {
            self.do_due(watch);
        }
    }

    #[inline(never)]
    fn do_due(&mut self, watch: &mut impl Watch) {
        let now = self.now;
        while let Some(&due) = self.answers.front().filter(|due| due.at <= now) {
            self.answers.pop_front();
            if self.is(due) {
                self.decide(due.flow, Answer::Silent, watch);
            }
        }
        while let Some(&due) = self.matures.front().filter(|due| due.at <= now) {
            self.matures.pop_front();
            if self.is(due) && self.flows[due.flow as usize].list == TCP {
                watch.matured(&mut self.flows[due.flow as usize], now);
            }
        }
        while let Some(&due) = self.interims.front().filter(|due| due.at <= now) {
            self.interims.pop_front();
            if self.is(due) && self.flows[due.flow as usize].list != DONE {
                let flow = &mut self.flows[due.flow as usize];
                let record = flow.as_record(EndCause::Interim);
                watch.record(flow, &record);
                self.interims.push_back(Due { at: now.saturating_add(self.options.interim_ns), ..due });
            }
        }
        for list in 0..LISTS as u8 {
            let timeout = self.timeout(list);
            loop {
                let oldest = self.lists[usize::from(list)].oldest;
                if oldest == NONE || self.flows[oldest as usize].touched.saturating_add(timeout) > now {
                    break;
                }
                let last = self.flows[oldest as usize].record.last_ns.min(now);
                if !matches!(list, ATTEMPT | DONE) && last.saturating_add(timeout) > now {
                    self.unlink(oldest);
                    self.link(oldest, list, last);
                    continue;
                }
                let cause = if list == DONE { EndCause::Finished } else { EndCause::Timeout };
                self.end(oldest, cause, watch);
            }
        }
        let queued = [&self.answers, &self.matures, &self.interims].into_iter().filter_map(VecDeque::front);
        let listed = (0..LISTS as u8).filter_map(|list| {
            let oldest = self.lists[usize::from(list)].oldest;
            (oldest != NONE).then(|| self.flows[oldest as usize].touched.saturating_add(self.timeout(list)))
        });
        self.next_due = queued.map(|due| due.at).chain(listed).min().unwrap_or(u64::MAX);
    }

    /// Ends every flow, in the order in which they would have timed out; the input is over.
    pub fn finish(&mut self, watch: &mut impl Watch) {
        while let Some(due) = self.answers.pop_front() {
            if self.is(due) {
                self.decide(due.flow, Answer::Silent, watch);
            }
        }
        self.matures.clear();
        self.interims.clear();
        for list in 0..LISTS as u8 {
            while self.lists[usize::from(list)].oldest != NONE {
                let cause = if list == DONE { EndCause::Finished } else { EndCause::InputEnd };
                self.end(self.lists[usize::from(list)].oldest, cause, watch);
            }
        }
    }

    fn timeout(&self, list: u8) -> u64 {
        match list {
            TCP => self.options.tcp_idle_ns,
            UDP => self.options.udp_idle_ns,
            ICMP => self.options.icmp_idle_ns,
            ATTEMPT => self.options.attempt_ns,
            _ => self.options.linger_ns,
        }
    }

    /// Ports of the packet, also of later fragments as far as remembered; without them such a fragment has none.
    fn ports(&mut self, packet: &Packet<'_>) -> Option<(u16, u16)> {
        if packet.fragment == Fragment::Whole {
            return Some((packet.source_port, packet.target_port));
        }
        let key = (packet.source, packet.target, packet.identification, packet.protocol);
        if packet.fragment == Fragment::First {
            let ports = (packet.source_port, packet.target_port);
            *self.fragments.entry(key, || ports) = ports;
            return Some(ports);
        }
        let known = self.fragments.find(&key).copied();
        if known.is_none() {
            self.counts.orphan_fragments += 1;
        }
        Some(known.unwrap_or((0, 0)))
    }

    /// A host or router says that a packet did not arrive: the flow it quotes is refused.
    fn icmp_error(&mut self, packet: &Packet<'_>, watch: &mut impl Watch) {
        let quoted = match (packet.protocol, packet.source_port) {
            (protocol::ICMP, 3) | (protocol::ICMP6, 1) => packet.payload,
            _ => return,
        };
        let ipv6 = packet.protocol == protocol::ICMP6;
        let number = match (ipv6, quoted.get(if ipv6 { 6 } else { 9 })) {
            (_, Some(&number)) => number,
            _ => return,
        };
        let header = if ipv6 { 40 } else { usize::from(quoted[0] & 0x0f) * 4 };
        let (source, target) = if ipv6 {
            match (quoted.get(8..24), quoted.get(24..40)) {
                (Some(source), Some(target)) => (
                    Ip::v6(source.try_into().unwrap_or_default()),
                    Ip::v6(target.try_into().unwrap_or_default()),
                ),
                _ => return,
            }
        } else {
            match quoted.get(12..20) {
                Some(&[a, b, c, d, e, f, g, h]) => (Ip::v4([a, b, c, d]), Ip::v4([e, f, g, h])),
                _ => return,
            }
        };
        let Some(&[a, b, c, d]) = quoted.get(header..header + 4) else { return };
        let (source_port, target_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let ports = match number {
            protocol::TCP | protocol::UDP => (source_port, target_port),
            protocol::ICMP | protocol::ICMP6 => match counterpart(number, u16::from(a)) {
                Some(other) => (u16::from(a), other),
                None => return,
            },
            _ => return,
        };
        let key = Key::of(source, ports.0, target, ports.1, number);
        if let Some(at) = self.find(self.hash(&key), &key) {
            self.decide(at, Answer::Refused, watch);
        }
    }

    fn is(&self, due: Due) -> bool {
        self.flows[due.flow as usize].generation == due.generation
    }

    fn decide(&mut self, at: u32, answer: Answer, watch: &mut impl Watch) {
        let now = self.now;
        let flow = &mut self.flows[at as usize];
        if flow.answer.is_some() {
            return;
        }
        flow.answer = Some(answer);
        watch.decided(flow, answer, now);
        if answer == Answer::Answered && flow.record.protocol == protocol::TCP {
            let due =
                Due { at: now.saturating_add(self.options.mature_ns), flow: at, generation: flow.generation };
            if self.matures.len() < self.options.flows_max {
                self.matures.push_back(due);
                self.next_due = self.next_due.min(due.at);
            }
        }
    }

    #[inline(never)]
    fn open(&mut self, hash: u32, ports: (u16, u16), packet: &Packet<'_>, watch: &mut impl Watch) -> u32 {
        if self.held >= self.options.flows_max {
            self.evict(watch);
        }
        self.counts.opened += 1;
        self.next_id += 1;
        let generation = self.next_id as u32;
        // A SYN with ACK that nobody was seen to ask for goes to who asked.
        let answers = packet.protocol == protocol::TCP
            && packet.fragment != Fragment::Later
            && packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK;
        let flips = answers || is_reply(packet);
        let source = (packet.source, ports.0);
        let target = (packet.target, ports.1);
        let (originator, responder) = if flips { (target, source) } else { (source, target) };
        let mut history = History::default();
        if flips {
            history.push(b'^');
        }
        let record = FlowRecord {
            id: self.next_id,
            start_ns: packet.ts,
            last_ns: packet.ts,
            originator: originator.0,
            originator_port: originator.1,
            responder: responder.0,
            responder_port: responder.1,
            protocol: packet.protocol,
            state: ConnState::Oth,
            history,
            sent: Side::default(),
            received: Side::default(),
            packets: (packet.number, packet.number),
            vlan: packet.vlan,
            tunnels: packet.tunnels,
            cause: EndCause::Finished,
            sampling: 1,
        };
        let list = match packet.protocol {
            protocol::TCP if packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN => ATTEMPT,
            protocol::TCP => TCP,
            protocol::ICMP | protocol::ICMP6 => ICMP,
            _ => UDP,
        };
        let flow = Flow {
            record,
            first_flags: packet.tcp_flags,
            first_ttl: packet.ttl,
            answer: None,
            inspection: Inspection::default(),
            tcp: Tcp::default(),
            touched: 0,
            list,
            older: NONE,
            newer: NONE,
            generation,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.flows[at as usize] = flow;
                at
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u32
            }
        };
        self.held += 1;
        if let Some(lost) = self.index.insert(hash, at) {
            // Made-up collisions: it gives way to the new one.
            self.counts.evicted += 1;
            self.end(lost, EndCause::Evicted, watch);
        }
        self.link(at, list, self.now);
        let due = Due { at: self.now.saturating_add(self.options.answer_ns), flow: at, generation };
        if self.answers.len() >= self.options.flows_max
            && let Some(early) = self.answers.pop_front()
            && self.is(early)
        {
            self.counts.hurried += 1;
            self.decide(early.flow, Answer::Silent, watch);
        }
        self.answers.push_back(due);
        self.next_due = self.next_due.min(due.at);
        if self.options.interim_ns > 0 {
            if self.interims.len() >= 2 * self.options.flows_max {
                self.interims.pop_front();
            }
            let due = Due { at: self.now.saturating_add(self.options.interim_ns), ..due };
            self.interims.push_back(due);
            self.next_due = self.next_due.min(due.at);
        }
        watch.opened(&mut self.flows[at as usize], packet);
        at
    }

    /// Ends the flow that was silent for longest, of those that matter least: closed, then unanswered, then any.
    fn evict(&mut self, watch: &mut impl Watch) {
        let first = |list: u8| Some(self.lists[usize::from(list)].oldest).filter(|&at| at != NONE);
        let oldest =
            [TCP, UDP, ICMP].into_iter().filter_map(first).min_by_key(|&at| self.flows[at as usize].touched);
        if let Some(at) = first(DONE).or_else(|| first(ATTEMPT)).or(oldest) {
            self.counts.evicted += 1;
            self.end(at, EndCause::Evicted, watch);
        }
    }

    fn end(&mut self, at: u32, cause: EndCause, watch: &mut impl Watch) {
        self.unlink(at);
        let flow = &mut self.flows[at as usize];
        self.index.remove(at);
        self.held -= 1;
        if flow.answer.is_none() && cause != EndCause::Finished {
            flow.answer = Some(Answer::Silent);
            watch.decided(flow, Answer::Silent, self.now);
        }
        let record = flow.as_record(cause);
        watch.record(flow, &record);
        // What is queued for it must not find its successor.
        flow.generation = 0;
        self.free.push(at);
    }

    fn link(&mut self, at: u32, list: u8, now: u64) {
        self.next_due = self.next_due.min(now.saturating_add(self.timeout(list)));
        let ends = &mut self.lists[usize::from(list)];
        let newest = std::mem::replace(&mut ends.newest, at);
        if newest == NONE {
            ends.oldest = at;
        } else {
            self.flows[newest as usize].newer = at;
        }
        let flow = &mut self.flows[at as usize];
        (flow.list, flow.older, flow.newer, flow.touched) = (list, newest, NONE, now);
    }

    fn unlink(&mut self, at: u32) {
        let Flow { list, older, newer, .. } = self.flows[at as usize];
        let ends = &mut self.lists[usize::from(list)];
        if older == NONE {
            ends.oldest = newer;
        } else {
            self.flows[older as usize].newer = newer;
        }
        let ends = &mut self.lists[usize::from(list)];
        if newer == NONE {
            ends.newest = older;
        } else {
            self.flows[newer as usize].older = older;
        }
    }
}

/// What stands for ports in the key of a packet with these.
#[inline]
fn key_ports(packet: &Packet<'_>, (source, target): (u16, u16)) -> (u16, u16) {
    match packet.protocol {
        protocol::ICMP | protocol::ICMP6 => icmp_ports(packet.protocol, source, target),
        _ => (source, target),
    }
}

/// ICMP's stand-ins for ports: type and the type that answers it, or type and code.
fn icmp_ports(number: u8, kind: u16, code: u16) -> (u16, u16) {
    (kind, counterpart(number, kind).unwrap_or(code))
}

/// Services over UDP whose answers are told by their port.
const UDP_SERVICES: [u16; 9] = [53, 67, 69, 123, 161, 389, 443, 500, 514];

/// Whether a first packet is an answer whose question was not seen.
fn is_reply(packet: &Packet<'_>) -> bool {
    match packet.protocol {
        protocol::UDP => {
            UDP_SERVICES.contains(&packet.source_port)
                && packet.target_port >= 1024
                && packet.fragment != Fragment::Later
        }
        protocol::ICMP => matches!(packet.source_port, 0 | 14 | 16 | 18),
        protocol::ICMP6 => matches!(packet.source_port, 129 | 134 | 136),
        _ => false,
    }
}
