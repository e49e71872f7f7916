//! A network made of packets, for tests: clients and servers that do what the shapes to be told apart do.

use std::net::IpAddr;
use tidegate_flow::packet::{Fragment, protocol, tcp_flag};
use tidegate_flow::{Alert, Arp, Detectors, FlowRecord, FlowTable, Ip, Packet, TableOptions, Watch};

pub(crate) const ACK: u8 = tcp_flag::ACK;
pub(crate) const FIN: u8 = tcp_flag::FIN;
pub(crate) const PSH: u8 = tcp_flag::PSH;
pub(crate) const RST: u8 = tcp_flag::RST;
pub(crate) const SYN: u8 = tcp_flag::SYN;
pub(crate) const URG: u8 = tcp_flag::URG;

pub(crate) fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().unwrap().into()
}

/// An address of a network by its last number.
pub(crate) fn host(network: &str, number: u32) -> Ip {
    let base = ip(network).as_v4().unwrap();
    Ip::v4((base + number).to_be_bytes())
}

/// Xorshift: random enough, and the same each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// From 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A packet at a time in seconds.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) at: f64,
    pub(crate) what: What,
}

#[derive(Clone)]
pub(crate) enum What {
    Tcp {
        from: (Ip, u16),
        to: (Ip, u16),
        flags: u8,
        seq: u32,
        ack: u32,
        payload: Vec<u8>,
    },
    /// So many bytes of a transfer, as a card hands them over: more than a frame at once.
    Bulk {
        from: (Ip, u16),
        to: (Ip, u16),
        seq: u32,
        ack: u32,
        bytes: u16,
    },
    Udp {
        from: (Ip, u16),
        to: (Ip, u16),
        payload: Vec<u8>,
        ttl: u8,
    },
    Icmp {
        from: Ip,
        to: Ip,
        kind: u8,
        code: u8,
        rest: u32,
        payload: Vec<u8>,
    },
    Arp {
        reply: bool,
        mac: [u8; 6],
        sender: Ip,
        target: Ip,
    },
}

/// Traffic to be, in any order; played by time.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) sent: Vec<Sent>,
    port: u16,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self { sent: Vec::new(), port: 32_768 }
    }

    pub(crate) fn ephemeral(&mut self) -> u16 {
        self.port = if self.port >= 60_999 { 32_768 } else { self.port + 1 };
        self.port
    }

    #[allow(clippy::too_many_arguments)] // A packet has so many parts.
    pub(crate) fn tcp(
        &mut self,
        at: f64,
        from: (Ip, u16),
        to: (Ip, u16),
        flags: u8,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) {
        self.sent.push(Sent { at, what: What::Tcp { from, to, flags, seq, ack, payload: payload.to_vec() } });
    }

    pub(crate) fn udp(&mut self, at: f64, from: (Ip, u16), to: (Ip, u16), payload: &[u8]) {
        self.sent.push(Sent { at, what: What::Udp { from, to, payload: payload.to_vec(), ttl: 64 } });
    }

    pub(crate) fn icmp(&mut self, at: f64, from: Ip, to: Ip, kind: u8, rest: u32, payload: &[u8]) {
        self.sent
            .push(Sent { at, what: What::Icmp { from, to, kind, code: 0, rest, payload: payload.to_vec() } });
    }

    pub(crate) fn arp(&mut self, at: f64, reply: bool, mac: [u8; 6], sender: Ip, target: Ip) {
        self.sent.push(Sent { at, what: What::Arp { reply, mac, sender, target } });
    }

    /// A ping and its reply.
    pub(crate) fn ping(&mut self, at: f64, from: Ip, to: Ip, number: u32, answered: bool) {
        let (asks, says) = if from.as_v4().is_some() { (8, 0) } else { (128, 129) };
        self.icmp(at, from, to, asks, number, &[7; 48]);
        if answered {
            self.icmp(at + 0.01, to, from, says, number, &[7; 48]);
        }
    }

    /// A SYN that nobody answers.
    pub(crate) fn syn(&mut self, at: f64, from: (Ip, u16), to: (Ip, u16)) {
        self.tcp(at, from, to, SYN, 1, 0, b"");
    }

    /// A SYN that is refused.
    pub(crate) fn refused(&mut self, at: f64, from: (Ip, u16), to: (Ip, u16)) {
        self.syn(at, from, to);
        self.tcp(at + 0.001, to, from, RST | ACK, 0, 2, b"");
    }

    /// A whole connection: a dialogue of (from the client, payload), a step every `pace` seconds. Returns when it ended.
    pub(crate) fn talk(
        &mut self,
        at: f64,
        client: (Ip, u16),
        server: (Ip, u16),
        pace: f64,
        lines: &[(bool, &[u8])],
    ) -> f64 {
        self.dialogue(at, client, server, pace, lines, false)
    }

    /// The same, ended by the server or by the client.
    pub(crate) fn dialogue(
        &mut self,
        at: f64,
        client: (Ip, u16),
        server: (Ip, u16),
        pace: f64,
        lines: &[(bool, &[u8])],
        server_ends: bool,
    ) -> f64 {
        self.open(at, client, server);
        let (mut c, mut s) = (2u32, 101u32);
        let mut now = at + 0.003;
        for (from_client, payload) in lines {
            now += pace;
            for part in payload.chunks(1_400) {
                if *from_client {
                    self.tcp(now, client, server, ACK | PSH, c, s, part);
                    c += part.len() as u32;
                } else {
                    self.tcp(now, server, client, ACK | PSH, s, c, part);
                    s += part.len() as u32;
                }
                now += 0.000_1;
            }
        }
        let ((first, x), (second, y)) =
            if server_ends { ((server, s), (client, c)) } else { ((client, c), (server, s)) };
        self.tcp(now + 0.001, first, second, FIN | ACK, x, y, b"");
        self.tcp(now + 0.002, second, first, FIN | ACK, y, x + 1, b"");
        self.tcp(now + 0.003, first, second, ACK, x + 1, y + 1, b"");
        now + 0.003
    }

    /// The handshake.
    pub(crate) fn open(&mut self, at: f64, client: (Ip, u16), server: (Ip, u16)) {
        self.tcp(at, client, server, SYN, 1, 0, b"");
        self.tcp(at + 0.001, server, client, SYN | ACK, 100, 2, b"");
        self.tcp(at + 0.002, client, server, ACK, 2, 101, b"");
    }

    /// A DNS query and its answer.
    #[allow(clippy::too_many_arguments)] // A question and its answer have so many parts.
    pub(crate) fn dns(
        &mut self,
        at: f64,
        client: Ip,
        server: Ip,
        name: &[u8],
        kind: u16,
        answer: &[u8],
        code: u8,
    ) {
        let port = self.ephemeral();
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split(|&byte| byte == b'.') {
            query.push(label.len() as u8);
            query.extend(label);
        }
        query.extend([0]);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        let mut response = query.clone();
        response[2] = 0x81;
        response[3] = 0x80 | code;
        if !answer.is_empty() {
            response[7] = 1;
            response.extend([0xc0, 12]);
            response.extend(kind.to_be_bytes());
            response.extend([0, 1, 0, 0, 0, 9]);
            response.extend((answer.len() as u16).to_be_bytes());
            response.extend(answer);
        }
        self.udp(at, (client, port), (server, 53), &query);
        self.udp(at + 0.02, (server, 53), (client, port), &response);
    }

    /// Plays it through table and detectors.
    pub(crate) fn alerts(self) -> Vec<Alert> {
        let mut detectors = Detectors::default();
        self.play(&mut detectors, TableOptions::default());
        detectors.alerts().to_vec()
    }

    /// Plays it and keeps the records.
    pub(crate) fn records(self, options: TableOptions) -> (Vec<FlowRecord>, FlowTable) {
        let mut records = Records::default();
        let table = self.play_to(&mut records, options, |_, _| {});
        (records.0, table)
    }

    /// Plays it through detectors without putting packets in order of time.
    pub(crate) fn feed_alerts(self, detectors: &mut Detectors) {
        self.feed(detectors, TableOptions::default(), |detectors, arp| detectors.arp(arp));
    }

    /// The same without putting packets in order of time.
    pub(crate) fn records_unsorted(self, options: TableOptions) -> (Vec<FlowRecord>, FlowTable) {
        let mut records = Records::default();
        let table = self.feed(&mut records, options, |_, _| {});
        (records.0, table)
    }

    pub(crate) fn play(self, detectors: &mut Detectors, options: TableOptions) -> FlowTable {
        self.play_to(detectors, options, |detectors, arp| detectors.arp(arp))
    }

    fn play_to<W: Watch>(mut self, watch: &mut W, options: TableOptions, arp: fn(&mut W, &Arp)) -> FlowTable {
        self.sent.sort_by(|a, b| a.at.total_cmp(&b.at));
        self.feed(watch, options, arp)
    }

    fn feed<W: Watch>(self, watch: &mut W, options: TableOptions, arp: fn(&mut W, &Arp)) -> FlowTable {
        let mut table = FlowTable::new(options);
        for (at, sent) in self.sent.iter().enumerate() {
            give(sent, at as u64 + 1, &mut table, watch, arp);
        }
        table.finish(watch);
        table
    }
}

static BULK: [u8; 1 << 16] = [23; 1 << 16];

/// Gives a packet to a table.
pub(crate) fn give<W: Watch>(
    sent: &Sent,
    number: u64,
    table: &mut FlowTable,
    watch: &mut W,
    arp: fn(&mut W, &Arp),
) {
    let ts = 1_700_000_000_000_000_000 + (sent.at * 1e9) as u64;
    let mut packet = Packet {
        number,
        ts,
        source: Ip::default(),
        target: Ip::default(),
        protocol: protocol::TCP,
        source_port: 0,
        target_port: 0,
        tcp_flags: 0,
        sequence: 0,
        acknowledged: 0,
        window: 1_000,
        payload: &[],
        payload_bytes: 0,
        ip_bytes: 0,
        ttl: 64,
        fragment: Fragment::Whole,
        identification: 0,
        vlan: 0,
        tunnels: 0,
        source_mac: [0; 6],
    };
    match &sent.what {
        What::Tcp { from, to, flags, seq, ack, payload } => {
            (packet.source, packet.source_port) = *from;
            (packet.target, packet.target_port) = *to;
            (packet.tcp_flags, packet.sequence, packet.acknowledged) = (*flags, *seq, *ack);
            packet.payload = payload;
            packet.ip_bytes = 40 + payload.len() as u32;
        }
        What::Bulk { from, to, seq, ack, bytes } => {
            (packet.source, packet.source_port) = *from;
            (packet.target, packet.target_port) = *to;
            (packet.tcp_flags, packet.sequence, packet.acknowledged) = (ACK | PSH, *seq, *ack);
            packet.payload = &BULK[..usize::from(*bytes)];
            packet.ip_bytes = 40 + u32::from(*bytes);
        }
        What::Udp { from, to, payload, ttl } => {
            packet.protocol = protocol::UDP;
            packet.ttl = *ttl;
            (packet.source, packet.source_port) = *from;
            (packet.target, packet.target_port) = *to;
            packet.payload = payload;
            packet.ip_bytes = 28 + payload.len() as u32;
        }
        What::Icmp { from, to, kind, code, rest, payload } => {
            packet.protocol = if from.as_v4().is_some() { protocol::ICMP } else { protocol::ICMP6 };
            (packet.source, packet.source_port) = (*from, u16::from(*kind));
            (packet.target, packet.target_port) = (*to, u16::from(*code));
            packet.sequence = *rest;
            packet.payload = payload;
            packet.ip_bytes = 28 + payload.len() as u32;
        }
        What::Arp { reply, mac, sender, target } => {
            let packet = Arp {
                number,
                ts,
                reply: *reply,
                sender_mac: *mac,
                sender: *sender,
                target_mac: [0; 6],
                target: *target,
                broadcast: !reply,
            };
            return arp(watch, &packet);
        }
    }
    packet.payload_bytes = packet.payload.len() as u32;
    table.packet(&packet, watch);
}

#[derive(Default)]
pub(crate) struct Records(pub(crate) Vec<FlowRecord>);

impl Watch for Records {
    fn record(&mut self, _flow: &mut tidegate_flow::Flow, record: &FlowRecord) {
        self.0.push(*record);
    }
}

/// The alerts as text, and nothing else.
pub(crate) fn told(net: Net) -> Vec<(String, &'static str)> {
    net.alerts().iter().map(|alert| (alert.source.to_string(), alert.kind.name())).collect()
}
