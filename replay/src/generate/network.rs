//! An office network seen at its switch, packet by packet: name look-ups, web traffic, backups by night, and, if asked
//! for, four things a defender must find.

use super::random::Random;
use crate::source::{Names, Progress, ReadAccount, ReadError, Source};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidegate_engine::{Event, FlowPayload, NamePayload, flag, name_hash};

const SECOND: u64 = 1_000_000_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PUSH: u8 = 8;
const ACK: u8 = 16;

/// Connections per hour of the day, in 1/100 of the busiest hour (UTC).
const BY_HOUR: [u64; 24] =
    [6, 5, 5, 5, 6, 8, 15, 40, 85, 100, 100, 95, 70, 85, 100, 95, 85, 60, 30, 20, 14, 10, 8, 7];

const SITES: [&str; 16] = [
    "www.example.com",
    "mail.example.com",
    "login.example.com",
    "cdn.example.net",
    "static.example.net",
    "api.example.org",
    "updates.example.org",
    "calendar.example.com",
    "news.example.net",
    "video.example.net",
    "search.example.com",
    "maps.example.org",
    "chat.example.com",
    "files.example.com",
    "time.example.org",
    "telemetry.example.net",
];

/// Parameters of [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// Events in all. A packet makes two, one for each host; the last packet may lose its second.
    pub events: u64,
    /// Desks, 4 to 200.
    pub desks: u32,
    /// Event time of the beginning; the hour of the day follows from it.
    pub ts_start: u64,
    /// Mean time between connections in the busiest hour.
    pub connection_wait_ns: u64,
    /// From minute 10, one desk tries 1,000 ports of a server.
    pub scan: bool,
    /// From minute 20, 256 outside addresses send 20,000 opening packets to the web server in ten seconds.
    pub flood: bool,
    /// All the time, one desk calls an outside address about every 60 seconds.
    pub beacon: bool,
    /// From minute 30, one desk sends some 60 MB to an outside address in ten minutes.
    pub exfiltration: bool,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            events: 2_000_000,
            desks: 56,
            // 2026-01-05T08:30:00Z, a Monday.
            ts_start: 1_767_601_800 * SECOND,
            connection_wait_ns: SECOND / 8,
            scan: true,
            flood: true,
            beacon: true,
            exfiltration: true,
        }
    }
}

impl NetworkOptions {
    /// The same office on a day without incidents.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { scan: false, flood: false, beacon: false, exfiltration: false, ..self }
    }
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Host([u8; 4]);

impl Host {
    const RESOLVER: Self = Self([10, 0, 0, 53]);
    const STORE: Self = Self([10, 0, 0, 20]);
    const WEB: Self = Self([10, 0, 0, 80]);

    fn desk(index: u32) -> Self {
        Self([10, 0, 1, 10 + index as u8])
    }
}

/// A conversation under way; the packets it still has to send decide what comes next.
#[derive(Debug, Clone, Copy)]
struct Conversation {
    client: Host,
    server: Host,
    port: u16,
    /// Handshake packets sent, 0 to 3.
    shaken: u8,
    /// Data packets still to come from the client and from the server.
    up: u32,
    down: u32,
    /// Bytes of a data packet from each; the last may be shorter, which nobody can tell from here.
    up_bytes: u32,
    down_bytes: u32,
    /// Mean time from packet to packet.
    pace_ns: u64,
    /// Both ends have said they are done, one after the other.
    closing: u8,
}

#[derive(Debug, Clone, Copy)]
enum Task {
    /// Somebody opens something.
    Arrival,
    /// A name is asked for; the answer follows, and then a visit.
    Asked {
        desk: Host,
        site: u8,
    },
    Conversation(Conversation),
    Backup {
        desk: u32,
    },
    Scan {
        probe: u32,
    },
    /// The scanned server answers.
    Probed {
        port: u16,
    },
    Flood {
        packet: u32,
    },
    Beacon,
    Exfiltration,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: u64,
    number: u64,
    task: Task,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The office network, see the module. Events come in order of time, two by two as the packet decoder makes them:
/// first the sender's, then the receiver's.
#[derive(Debug, Clone)]
pub struct Network {
    options: NetworkOptions,
    random: Random,
    due: BinaryHeap<Reverse<Due>>,
    number: u64,
    names: Names,
    account: ReadAccount,
    /// Events made and not yet given out, last first.
    ready: Vec<Event>,
}

impl Network {
    /// The office at the given time of day. Options out of range are taken into it.
    #[must_use]
    pub fn new(options: NetworkOptions) -> Self {
        let options = NetworkOptions {
            desks: options.desks.clamp(4, 200),
            connection_wait_ns: options.connection_wait_ns.max(16),
            ..options
        };
        let mut network = Self {
            options,
            random: Random::new(options.seed),
            due: BinaryHeap::new(),
            number: 0,
            names: Names::default(),
            account: ReadAccount::default(),
            ready: Vec::new(),
        };
        let start = options.ts_start;
        network.plan(start, Task::Arrival);
        for desk in 0..options.desks {
            // Every desk backs up once an hour, spread over it; large by night, small by day.
            let at = start + network.random.below(3_600 * SECOND);
            network.plan(at, Task::Backup { desk });
        }
        if options.scan {
            network.plan(start + 600 * SECOND, Task::Scan { probe: 0 });
        }
        if options.flood {
            network.plan(start + 1_200 * SECOND, Task::Flood { packet: 0 });
        }
        if options.beacon {
            network.plan(start + 5 * SECOND, Task::Beacon);
        }
        if options.exfiltration {
            network.plan(start + 1_800 * SECOND, Task::Exfiltration);
        }
        network
    }

    fn plan(&mut self, at: u64, task: Task) {
        self.number += 1;
        self.due.push(Reverse(Due { at, number: self.number, task }));
    }

    fn key(&mut self, host: Host) -> (u32, u32) {
        let [a, b, c, d] = host.0;
        let key = self.names.intern(&format!("{a}.{b}.{c}.{d}"));
        (key, self.names.hashes()[key as usize] as u32)
    }

    /// One packet, as an event of its sender and one of its receiver. `port` is the service's.
    #[expect(clippy::too_many_arguments, reason = "the fields of a packet")]
    fn packet(
        &mut self,
        at: u64,
        from: Host,
        to: Host,
        port: u16,
        protocol: u8,
        tcp_flags: u8,
        bytes: u32,
        flags: u8,
    ) {
        let ((from_key, from_hash), (to_key, to_hash)) = (self.key(from), self.key(to));
        // ORIGINATOR says the key's own host opened the connection; `flags` has it as the sender sees it.
        let theirs = flags ^ flag::FLOW_ORIGINATOR;
        let payload =
            FlowPayload { peer: to_hash, bytes, packets: 1, port, protocol, tcp_flags, duration: 0 };
        self.ready.push(Event::flow(at, to_key, 0, theirs, FlowPayload { peer: from_hash, ..payload }));
        self.ready.push(Event::flow(at, from_key, 0, flags | flag::FLOW_OUTBOUND, payload));
    }

    fn step(&mut self, at: u64, task: Task) {
        match task {
            Task::Arrival => {
                let hour = (at / (3_600 * SECOND) % 24) as usize;
                let mean = self.options.connection_wait_ns * 100 / BY_HOUR[hour];
                let next = at + self.random.wait(mean);
                self.plan(next, Task::Arrival);
                let desk = Host::desk(self.random.below(u64::from(self.options.desks)) as u32);
                // The lower of two draws: some sites are visited far more than others.
                let of = SITES.len() as u64;
                let site = self.random.below(of).min(self.random.below(of)) as u8;
                let bytes = 60 + SITES[usize::from(site)].len() as u32;
                self.packet(
                    at,
                    desk,
                    Host::RESOLVER,
                    53,
                    UDP,
                    0,
                    bytes,
                    flag::FLOW_START | flag::FLOW_ORIGINATOR,
                );
                let answered = at + self.random.between(200_000, 20_000_000);
                self.plan(answered, Task::Asked { desk, site });
            }
            Task::Asked { desk, site } => {
                let name = SITES[usize::from(site)];
                let answers = 1 + u16::from(site % 3);
                let (key, _) = self.key(desk);
                let payload = NamePayload {
                    name: name_hash(name.as_bytes()),
                    length: name.len() as u16,
                    entropy: entropy_code(name.as_bytes()),
                    labels: name.split('.').count() as u8,
                    record_type: 1,
                    answers,
                };
                // The list is given out from its end: the name comes after the two views of the packet.
                self.ready.push(Event::name(at, key, 0, payload));
                let bytes = 60 + name.len() as u32 + 16 * u32::from(answers);
                self.packet(at, Host::RESOLVER, desk, 53, UDP, 0, bytes, flag::FLOW_END);
                let visit = Conversation {
                    client: desk,
                    server: Host([203, 0, 113, 10 + site]),
                    port: 443,
                    shaken: 0,
                    up: self.random.between(2, 5) as u32,
                    down: self.random.between(2, 8) as u32 * if self.random.once_in(12) { 12 } else { 1 },
                    up_bytes: self.random.between(150, 900) as u32,
                    down_bytes: self.random.between(600, 1_514) as u32,
                    pace_ns: 4_000_000,
                    closing: 0,
                };
                let opened = at + self.random.between(100_000, 3_000_000);
                self.plan(opened, Task::Conversation(visit));
            }
            Task::Conversation(talk) => self.talk(at, talk),
            Task::Backup { desk } => {
                self.plan(at + 3_600 * SECOND, Task::Backup { desk });
                let night = !(6..19).contains(&(at / (3_600 * SECOND) % 24));
                let packets = if night { 20_000 } else { 400 };
                let backup = Conversation {
                    client: Host::desk(desk),
                    server: Host::STORE,
                    port: 873,
                    shaken: 0,
                    up: self.random.between(packets / 2, packets) as u32,
                    down: (packets / 20) as u32,
                    up_bytes: 1_514,
                    down_bytes: 66,
                    pace_ns: 1_000_000,
                    closing: 0,
                };
                self.plan(at, Task::Conversation(backup));
            }
            Task::Scan { probe } => {
                let (scanner, target) = (Host::desk(3), Host::STORE);
                // Every port once, in an order that is no run: 997 is coprime to 1,000.
                let port = (1 + u64::from(probe) * 997 % 1_000) as u16;
                let open = flag::FLOW_START | flag::FLOW_ORIGINATOR;
                self.packet(at, scanner, target, port, TCP, SYN, 60, open);
                self.plan(at + 80_000, Task::Probed { port });
                if probe + 1 < 1_000 {
                    let next = at + self.random.between(20_000_000, 100_000_000);
                    self.plan(next, Task::Scan { probe: probe + 1 });
                }
            }
            Task::Probed { port } => {
                let (tcp_flags, flags) =
                    if port == 873 { (SYN | ACK, 0) } else { (RST | ACK, flag::FLOW_END) };
                self.packet(at, Host::STORE, Host::desk(3), port, TCP, tcp_flags, 60, flags);
            }
            Task::Flood { packet } => {
                let from = Host([198, 51, 100, self.random.below(256) as u8]);
                let open = flag::FLOW_START | flag::FLOW_ORIGINATOR;
                self.packet(at, from, Host::WEB, 80, TCP, SYN, 60, open);
                if packet + 1 < 20_000 {
                    let next = at + self.random.between(1, 1_000_000);
                    self.plan(next, Task::Flood { packet: packet + 1 });
                }
            }
            Task::Beacon => {
                let next = at + 60 * SECOND - 3 * SECOND + self.random.below(6 * SECOND);
                self.plan(next, Task::Beacon);
                let call = Conversation {
                    client: Host::desk(1),
                    server: Host([203, 0, 113, 99]),
                    port: 443,
                    shaken: 0,
                    up: 1,
                    down: 1,
                    up_bytes: 311,
                    down_bytes: 187,
                    pace_ns: 4_000_000,
                    closing: 0,
                };
                self.plan(at, Task::Conversation(call));
            }
            Task::Exfiltration => {
                let theft = Conversation {
                    client: Host::desk(2),
                    server: Host([203, 0, 113, 200]),
                    port: 443,
                    shaken: 0,
                    up: 40_000,
                    down: 2_000,
                    up_bytes: 1_514,
                    down_bytes: 66,
                    pace_ns: 600 * SECOND / 42_000,
                    closing: 0,
                };
                self.plan(at, Task::Conversation(theft));
            }
        }
    }

    /// Sends the next packet of a conversation and plans the one after it.
    fn talk(&mut self, at: u64, mut talk: Conversation) {
        let origin = flag::FLOW_ORIGINATOR;
        let left = u64::from(talk.up) + u64::from(talk.down);
        let (upwards, tcp_flags, bytes, flags) = match (talk.shaken, left, talk.closing) {
            (0, ..) => (true, SYN, 74, flag::FLOW_START),
            (1, ..) => (false, SYN | ACK, 74, 0),
            (2, ..) => (true, ACK, 66, 0),
            (_, 0, 0) => (true, FIN | ACK, 66, 0),
            (_, 0, _) => (false, FIN | ACK, 66, flag::FLOW_END),
            // The client speaks first; after that the two mix by what each has left to say.
            _ => {
                let opening = talk.shaken == 3 && talk.up > 0;
                let upwards = opening || self.random.below(left) < u64::from(talk.up);
                let said = if upwards { &mut talk.up } else { &mut talk.down };
                *said -= 1;
                (upwards, PUSH | ACK, if upwards { talk.up_bytes } else { talk.down_bytes }, 0)
            }
        };
        let done = flags == flag::FLOW_END;
        if talk.shaken < 4 {
            talk.shaken += 1;
        }
        if tcp_flags & FIN != 0 {
            talk.closing += 1;
        }
        let (from, to) = if upwards { (talk.client, talk.server) } else { (talk.server, talk.client) };
        let flags = flags | if upwards { origin } else { 0 };
        self.packet(at, from, to, talk.port, TCP, tcp_flags, bytes, flags);
        if !done {
            let next = at + 1_000 + self.random.wait(talk.pace_ns);
            self.plan(next, Task::Conversation(talk));
        }
    }
}

/// Shannon entropy of the bytes in 1/256 bit, rounded down, with integers only.
fn entropy_code(bytes: &[u8]) -> u16 {
    let mut counts = [0u64; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let total = bytes.len() as u64;
    if total == 0 {
        return 0;
    }
    let spent: u64 = counts.iter().filter(|&&count| count > 1).map(|&count| count * log2_code(count)).sum();
    ((log2_code(total) - spent / total) >> 8) as u16
}

/// Base-2 logarithm in 1/65,536, by squaring: each squaring of a number in `[1, 2)` yields one more binary digit.
fn log2_code(number: u64) -> u64 {
    let whole = number.ilog2();
    let mut rest = number << (31 - whole.min(31)); // in [2^31, 2^32); numbers here are far below 2^31
    let mut code = u64::from(whole);
    for _ in 0..16 {
        rest = (rest * rest) >> 31;
        let digit = rest >> 32;
        rest >>= digit;
        code = code << 1 | digit;
    }
    code
}

impl Source for Network {
    fn read(&mut self, events: &mut Vec<Event>, max: usize) -> Result<usize, ReadError> {
        let count = (self.options.events - self.account.events).min(max.max(1) as u64);
        for _ in 0..count {
            while self.ready.is_empty() {
                let Reverse(due) = self.due.pop().expect("arrivals never end");
                self.step(due.at, due.task);
            }
            events.extend(self.ready.pop());
            self.account.accept(1);
        }
        Ok(count as usize)
    }

    fn names(&self) -> &Names {
        &self.names
    }

    fn account(&self) -> &ReadAccount {
        &self.account
    }

    fn progress(&self) -> Progress {
        super::progress(&self.account, self.options.events)
    }

    fn format(&self) -> String {
        "demo network".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_entropy_is_the_float_one() {
        for name in [&b"www.example.com"[..], b"a", b"aaaa", b"abcd", b"x7f3q9z1k4"] {
            let total = name.len() as f64;
            let bits: f64 = (0..=255u8)
                .map(|byte| name.iter().filter(|&&b| b == byte).count() as f64 / total)
                .filter(|&share| share > 0.0)
                .map(|share| -share * share.log2())
                .sum();
            assert!((f64::from(entropy_code(name)) - bits * 256.0).abs() < 2.0, "{bits}");
        }
    }
}
