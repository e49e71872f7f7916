//! A made-up site of some hundred hosts over hours: each host has ordinary habits with numbers of its own, drawn from a seed. Packets are made a
//! minute at a time, so that a day needs no more memory than an hour.

use crate::net::{ACK, FIN, Net, PSH, Random, SYN, Sent, What, give, host, ip};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidegate_flow::{Alert, Detectors, FlowTable, Ip, TableOptions};

/// What a site is like.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pub(crate) seed: u64,
    pub(crate) people: u32,
    pub(crate) hours: f64,
    /// Programs that say the same to the same place outside at regular times, on new connections, one on each so manieth host; 0 for none. These are
    /// what a beacon is.
    pub(crate) clockwork_each: u32,
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) packets: u64,
    pub(crate) hosts: usize,
    pub(crate) alerts: Vec<Alert>,
}

/// A habit of a host: does something at a time, and says how long to wait from then on.
type Does = Box<dyn FnMut(&mut Net, f64, &mut Random) -> f64>;

fn exponential(random: &mut Random, mean: f64) -> f64 {
    -mean * (1.0 - random.unit()).ln()
}

/// Between two numbers, so that each doubling is as likely.
fn about(random: &mut Random, least: f64, most: f64) -> f64 {
    least * (most / least).powf(random.unit())
}

const RESOLVER: &str = "10.20.0.2";
const DOMAIN: &str = "10.20.0.3";
const FILES: &str = "10.20.0.4";
const MAIL: &str = "10.20.0.5";
const WEB: &str = "10.20.0.6";
const DATABASE: &str = "10.20.0.7";
const MONITOR: &str = "10.20.0.8";
pub(crate) const BACKUP: &str = "10.20.0.9";
const CALLS: &str = "10.20.0.10";
const SERVERS: u32 = 12;

fn person(number: u32) -> Ip {
    host("10.20.16.0", number)
}

/// A server of the world: few are asked much, many little.
fn world(random: &mut Random) -> Ip {
    let rank = about(random, 1.0, 40_000.0) as u32;
    host("151.64.0.0", rank.wrapping_mul(2_654_435_761) % (1 << 20))
}

const WORDS: [&str; 16] = [
    "garden", "market", "online", "travel", "summer", "winter", "coffee", "silver", "bridge", "letter",
    "signal", "window", "planet", "school", "music", "paper",
];

fn name(random: &mut Random) -> String {
    let word = |random: &mut Random| WORDS[random.below(16) as usize];
    let sub = ["www", "cdn", "api", "static", "img1", "login"][random.below(6) as usize];
    format!("{sub}.{}{}.com", word(random), word(random))
}

/// A connection over which so much goes up, and so much comes down.
fn transfer(net: &mut Net, at: f64, from: Ip, to: (Ip, u16), up: u64, down: u64, seconds: f64) {
    let from = (from, net.ephemeral());
    net.open(at, from, to);
    let hello = [[22, 3, 1, 2, 0, 1, 0, 1].as_slice(), &[0; 500]].concat();
    net.tcp(at + 0.01, from, to, ACK | PSH, 2, 101, &hello);
    net.tcp(at + 0.03, to, from, ACK | PSH, 101, 510, &[22; 1_400]);
    let (mut c, mut s) = (510u32, 1_501u32);
    let parts = (up.max(down) / 60_000 + 1).min(4_000);
    for part in 0..parts {
        let at = at + 0.05 + seconds * part as f64 / parts as f64;
        for (out, bytes) in [(true, up / parts), (false, down / parts)] {
            let bytes = bytes.clamp(1, 60_000) as u16;
            let (from, to, seq, ack) = if out { (from, to, c, s) } else { (to, from, s, c) };
            net.sent.push(Sent { at, what: What::Bulk { from, to, seq, ack, bytes } });
            *if out { &mut c } else { &mut s } += u32::from(bytes);
        }
    }
    let end = at + 0.06 + seconds;
    net.tcp(end, from, to, FIN | ACK, c, s, b"");
    net.tcp(end + 0.01, to, from, FIN | ACK, s, c + 1, b"");
    net.tcp(end + 0.02, from, to, ACK, c + 1, s + 1, b"");
}

/// A page: names, and connections to some of its servers; some over QUIC, some never answered.
fn page(net: &mut Net, at: f64, me: Ip, random: &mut Random) {
    for n in 0..2 + random.below(6) {
        let at = at + n as f64 * 0.06 + random.unit() * 0.3;
        let (code, answer): (u8, &[u8]) = if random.below(60) == 0 { (3, &[]) } else { (0, &[1, 2, 3, 4]) };
        net.dns(at, me, ip(RESOLVER), name(random).as_bytes(), [1, 28, 65][n as usize % 3], answer, code);
        let to = world(random);
        let (up, down) = (about(random, 500.0, 8_000.0), about(random, 2_000.0, 900_000.0));
        match random.below(40) {
            0 => {
                let from = (me, net.ephemeral());
                net.syn(at + 0.1, from, (to, 443));
            }
            1..9 => {
                let from = (me, net.ephemeral());
                for part in 0..6 {
                    net.udp(at + 0.1 + f64::from(part) * 0.05, from, (to, 443), &[7; 700]);
                    net.udp(at + 0.12 + f64::from(part) * 0.05, (to, 443), from, &[7; 1_250]);
                }
            }
            _ => transfer(net, at + 0.1, me, (to, 443), up as u64, down as u64, about(random, 0.1, 40.0)),
        }
    }
}

/// What people do at their machines.
fn habits(me: Ip, random: &mut Random, out: &mut Vec<Does>) {
    let seconds = about(random, 40.0, 400.0);
    let mut left = 0u64;
    out.push(Box::new(move |net, at, random| {
        page(net, at, me, random);
        // They look at some, and do something else for a while.
        if left == 0 {
            left = 2 + random.below(20);
            return exponential(random, 900.0);
        }
        left -= 1;
        exponential(random, seconds / 3.0)
    }));
    // Mail: looked for at its time, always the same, sent now and then.
    let every = [60.0, 120.0, 300.0, 600.0][random.below(4) as usize];
    out.push(Box::new(move |net, at, random| {
        let sent = if random.below(12) == 0 { about(random, 2_000.0, 4e6) as u64 } else { 300 };
        transfer(net, at, me, (ip(MAIL), 993), sent, 900 + random.below(40), 0.4);
        every + random.unit()
    }));
    // The domain: a ticket, files, policies, names of services with suffixes that are searched.
    out.push(Box::new(move |net, at, random| {
        net.dns(at, me, ip(RESOLVER), b"_ldap._tcp.dc._msdcs.corp.example.com", 33, &[0; 40], 0);
        let wrong = format!("{}.corp.example.com", WORDS[random.below(16) as usize]);
        net.dns(at, me, ip(RESOLVER), wrong.as_bytes(), 1, &[], 3);
        let from = (me, net.ephemeral());
        let needs: &[u8] = b"\0\0\0\x40\x7e\x3e\x30\x3c\xa0\x03\x02\x01\x05\xa6\x03\x02\x01\x19";
        let refused: &[u8] = b"\0\0\0\x40\x7e\x3e\x30\x3c\xa0\x03\x02\x01\x05\xa6\x03\x02\x01\x18";
        let mistypes = random.below(60) == 0;
        net.talk(at + 0.1, from, (ip(DOMAIN), 88), 0.01, &[(true, &[0x6a; 200]), (false, needs)]);
        let from = (me, net.ephemeral());
        let says = if mistypes { refused } else { b"\0\0\x05\xa0\x6b\x82\x05\x9c" };
        net.talk(at + 0.2, from, (ip(DOMAIN), 88), 0.01, &[(true, &[0x6a; 260]), (false, says)]);
        let from = (me, net.ephemeral());
        let bind: [(bool, &[u8]); 2] = [
            (true, b"0\x30\x02\x01\x01\x60 cn=user"),
            (false, b"0\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0"),
        ];
        net.talk(at + 0.4, from, (ip(DOMAIN), 389), 0.01, &bind);
        for server in [DOMAIN, FILES] {
            let mut taken = b"\0\0\0\x48\xfeSMB@\0\0\0\0\0\0\0\x01\0".to_vec();
            taken.resize(76, 0);
            let from = (me, net.ephemeral());
            let data = vec![0; 200 + random.below(30_000) as usize];
            let lines: [(bool, &[u8]); 4] = [
                (true, b"\0\0\0\x48\xfeSMB@\0\0\0\0\0\0\0\x01\0"),
                (false, &taken),
                (true, &[0; 120]),
                (false, &data),
            ];
            net.talk(at + 0.6, from, (ip(server), 445), 0.02, &lines);
        }
        exponential(random, 1_500.0)
    }));
    // Time; announcements on the link; a connection for messages that says it is there.
    let server = host("129.6.15.0", random.below(4) as u32);
    let every = [64.0, 256.0, 1_024.0][random.below(3) as usize];
    out.push(Box::new(move |net, at, _| {
        net.udp(at, (me, 123), (server, 123), &[0; 48]);
        net.udp(at + 0.02, (server, 123), (me, 123), &[0; 48]);
        net.udp(at + 1.0, (me, 5_353), (ip("224.0.0.251"), 5_353), &[0; 80]);
        net.udp(at + 2.0, (me, 50_999), (ip("239.255.255.250"), 1_900), &[b'M'; 175]);
        every
    }));
    // Reports of programs: at their time, of all lengths.
    let (to, every) = (world(random), about(random, 60.0, 3_600.0));
    out.push(Box::new(move |net, at, random| {
        let up = about(random, 700.0, 6_000.0) as u64;
        transfer(net, at, me, (to, 443), up, 700, 0.3);
        every * (0.9 + 0.2 * random.unit())
    }));
    // Updates, and what is kept in a cloud: one small file, a hundred pictures.
    let (store, much) = (world(random), about(random, 20_000.0, 3e6));
    out.push(Box::new(move |net, at, random| {
        if random.below(3) == 0 {
            transfer(net, at, me, (world(random), 443), 2_000, about(random, 1e6, 4e7) as u64, 30.0);
        } else {
            for n in 0..1 + random.below(12) {
                let up = about(random, much / 20.0, much) as u64;
                transfer(net, at + n as f64 * 2.0, me, (store, 443), up, up / 3, 1.5);
            }
        }
        exponential(random, 3_000.0)
    }));
}

/// What few have.
fn specialists(number: u32, random: &mut Random, out: &mut Vec<Does>) {
    let me = person(number);
    match number % 12 {
        // A call of some minutes, both ways.
        0 => out.push(Box::new(move |net, at, random| {
            let (from, to) = ((me, 50_000 + random.below(999) as u16), (world(random), 3_478));
            for n in 0..200 + random.below(3_000) {
                let at = at + n as f64 * 0.1;
                net.udp(at, from, to, &vec![0; 100 + random.below(900) as usize]);
                net.udp(at + 0.03, to, from, &vec![0; 100 + random.below(900) as usize]);
            }
            exponential(random, 5_000.0)
        })),
        // Somebody who builds: a hundred packages from one place, sessions of SSH at machines that are his, one of them without his key.
        1 => out.push(Box::new(move |net, at, random| {
            let to = world(random);
            for n in 0..20 + random.below(150) {
                let down = about(random, 900.0, 300_000.0) as u64;
                transfer(net, at + n as f64 * 0.05, me, (to, 443), 900, down, 0.5);
            }
            let mut keys = vec![0; 600];
            keys.extend([0, 0, 0, 12, 10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let said =
                vec![3; if random.below(9) == 0 { 100 } else { 1_500 + random.below(30_000) as usize }];
            let lines: [(bool, &[u8]); 7] = [
                (false, b"SSH-2.0-OpenSSH_9.6\r\n"),
                (true, b"SSH-2.0-OpenSSH_9.6\r\n"),
                (false, &[1; 1_000]),
                (true, &[1; 900]),
                (false, &keys),
                (true, &[2; 700]),
                (false, &said),
            ];
            let from = (me, net.ephemeral());
            net.talk(at + 20.0, from, (host("10.20.0.0", 2 + random.below(6) as u32), 22), 0.1, &lines);
            exponential(random, 1_800.0)
        })),
        // A telephone, and a camera.
        2 => out.push(Box::new(move |net, at, random| {
            let (phone, server) = ((me, 5_060), (ip(CALLS), 5_060));
            net.udp(at, phone, server, b"REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\n\r\n");
            net.udp(at + 0.02, server, phone, b"SIP/2.0 401 Unauthorized\r\n\r\n");
            let again =
                format!("REGISTER sip:x SIP/2.0\r\nAuthorization: Digest r={}\r\n\r\n", random.next());
            net.udp(at + 0.03, phone, server, again.as_bytes());
            net.udp(at + 0.04, server, phone, b"SIP/2.0 200 OK\r\n\r\n");
            60.0
        })),
        // Files shared among strangers.
        3 if number.is_multiple_of(24) => out.push(Box::new(move |net, at, random| {
            for n in 0..20 {
                let peer = host("60.0.0.0", random.below(1 << 24) as u32);
                let port = if random.below(6) == 0 { 6_881 } else { 10_000 + random.below(50_000) as u16 };
                net.udp(at + n as f64 * 0.3, (me, 51_413), (peer, port), &[b'd'; 100]);
                if random.below(2) == 0 {
                    net.udp(at + n as f64 * 0.3 + 0.1, (peer, port), (me, 51_413), &[b'd'; 280]);
                }
            }
            exponential(random, 40.0)
        })),
        // Somebody whose password ran out: programs of his try it at files and mail until he types the new one.
        4 => {
            let mut tries = 3 + random.below(5);
            out.push(Box::new(move |net, at, random| {
                let mut refusal =
                    vec![0, 0, 0, 72, 0xfe, b'S', b'M', b'B', 64, 0, 0, 0, 0x6d, 0, 0, 0xc0, 1, 0];
                refusal.resize(76, 0);
                let from = (me, net.ephemeral());
                let asks: &[u8] = b"\0\0\0\x48\xfeSMB@\0\0\0\0\0\x01\0";
                net.talk(at, from, (ip(FILES), 445), 0.05, &[(true, asks), (false, &refusal)]);
                tries = tries.saturating_sub(1);
                if tries == 0 { f64::MAX } else { exponential(random, 120.0) }
            }));
        }
        // Pictures of the net: a ping of something far once a second for a while.
        5 => out.push(Box::new(move |net, at, random| {
            let to = world(random);
            for n in 0..20 + random.below(200) as u32 {
                net.ping(at + f64::from(n), me, to, n, random.below(30) > 0);
            }
            exponential(random, 4_000.0)
        })),
        _ => {}
    }
}

/// Servers, and who calls them from outside.
fn servers(people: u32, random: &mut Random, out: &mut Vec<Does>) {
    // Looks at everybody once a minute: pings, services, pages, certificates.
    out.push(Box::new(move |net, at, random| {
        for n in 0..SERVERS {
            let to = host("10.20.0.0", 2 + n);
            let at = at + f64::from(n) * 0.2;
            net.ping(at, ip(MONITOR), to, n, n != 11);
            for port in [22, 443, 3_306] {
                let from = (ip(MONITOR), net.ephemeral());
                if (n + u32::from(port)).is_multiple_of(5) {
                    net.refused(at, from, (to, port));
                } else {
                    net.open(at, from, (to, port));
                    net.tcp(at + 0.01, from, (to, port), FIN | ACK, 2, 101, b"");
                    net.tcp(at + 0.02, (to, port), from, FIN | ACK, 101, 3, b"");
                }
            }
            net.udp(at, (ip(MONITOR), 40_161), (to, 161), b"get");
            net.udp(at + 0.01, (to, 161), (ip(MONITOR), 40_161), b"value");
        }
        transfer(net, at, ip(MONITOR), (ip(WEB), 443), 300, 400 + random.below(4), 0.05);
        60.0
    }));
    // A balance asks every five seconds whether pages are there; pages ask the database, each on a connection of its own.
    out.push(Box::new(|net, at, _| {
        transfer(net, at, ip(MONITOR), (ip(WEB), 8_443), 250, 300, 0.03);
        5.0
    }));
    out.push(Box::new(|net, at, random| {
        let from = (ip(WEB), net.ephemeral());
        let query = vec![3; 40 + random.below(200) as usize];
        let rows = vec![1; 100 + random.below(5_000) as usize];
        let lines: [(bool, &[u8]); 5] = [
            (false, b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0saltsalt\0\xff\xff"),
            (true, b"\x20\0\0\x01app"),
            (false, b"\x07\0\0\x02\0\0\0\x02\0\0\0"),
            (true, &query),
            (false, &rows),
        ];
        net.talk(at, from, (ip(DATABASE), 3_306), 0.004, &lines);
        exponential(random, 2.0)
    }));
    // Visitors from outside, a crawler among them, some of what they ask for is gone; some must log in.
    out.push(Box::new(|net, at, random| {
        let crawler = random.below(4) == 0;
        let from = if crawler { ip("66.249.64.9") } else { host("80.0.0.0", random.below(1 << 22) as u32) };
        for n in 0..if crawler { 1 } else { 1 + random.below(8) } {
            let from = (from, net.ephemeral());
            let (status, size) = match random.below(12) {
                0 => ("404 Not Found", 300),
                1 if !crawler => ("401 Unauthorized", 200),
                _ => ("200 OK", 800 + random.below(40_000) as usize),
            };
            let ask = format!("GET /{}/{} HTTP/1.1\r\nHost: x\r\n\r\n", WORDS[random.below(16) as usize], n);
            let mut answer = format!("HTTP/1.1 {status}\r\n\r\n").into_bytes();
            answer.resize(answer.len() + size, b'x');
            net.talk(
                at + n as f64 * 0.4,
                from,
                (ip(WEB), 80),
                0.02,
                &[(true, ask.as_bytes()), (false, &answer)],
            );
        }
        exponential(random, 3.0)
    }));
    // Mail from other servers, half in TLS; each is looked up in lists of senders.
    out.push(Box::new(|net, at, random| {
        let [a, b, c] = [random.below(250), random.below(250), random.below(40)];
        let from = (Ip::v4([90, c as u8, b as u8, a as u8]), net.ephemeral());
        let letter = vec![b'x'; about(random, 900.0, 90_000.0) as usize];
        let mut lines: Vec<(bool, &[u8])> = vec![
            (false, b"220 mail ESMTP\r\n"),
            (true, b"EHLO other\r\n"),
            (false, b"250-STARTTLS\r\n250 OK\r\n"),
        ];
        if random.below(2) == 0 {
            lines.extend([(true, &b"STARTTLS\r\n"[..]), (false, b"220 go on\r\n")]);
            lines.extend([(true, &[22, 3, 1, 0, 9, 1, 0, 0, 5][..]), (false, &[22; 3_000])]);
        }
        lines.extend([(true, &letter[..]), (false, b"250 taken\r\n")]);
        net.talk(at, from, (ip(MAIL), 25), 0.05, &lines);
        let list = format!("{a}.{b}.{c}.90.zen.example.org");
        net.dns(at, ip(MAIL), ip(RESOLVER), list.as_bytes(), 1, &[], 3);
        net.dns(at, ip(MAIL), ip(RESOLVER), format!("{a}.{b}.{c}.90.in-addr.arpa").as_bytes(), 12, &[], 3);
        exponential(random, 6.0)
    }));
    // The resolver asks on, and is not always answered.
    out.push(Box::new(move |net, at, random| {
        let (server, port) = (host("198.41.0.0", random.below(4_000) as u32), net.ephemeral());
        net.udp(
            at,
            (ip(RESOLVER), port),
            (server, 53),
            b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01",
        );
        if random.below(30) > 0 {
            net.udp(
                at + 0.03,
                (server, 53),
                (ip(RESOLVER), port),
                &vec![0; 60 + random.below(1_200) as usize],
            );
        }
        exponential(random, 60.0 / f64::from(people))
    }));
    // A copy of everything, kept elsewhere, every half an hour; and of every server, kept here.
    let much = about(random, 3e7, 2e8) as u64;
    out.push(Box::new(move |net, at, random| {
        let bytes = (much as f64 * (0.7 + 0.6 * random.unit())) as u64;
        transfer(net, at, ip(BACKUP), (ip("203.0.113.200"), 443), bytes, 20_000, 200.0);
        for n in 0..6 {
            transfer(
                net,
                at + 300.0 + f64::from(n) * 60.0,
                ip(BACKUP),
                (host("10.20.0.0", 2 + n), 22),
                9_000,
                9_000_000,
                40.0,
            );
        }
        1_800.0 + random.unit() * 60.0
    }));
    // Noise of the Internet: a port here and there, from anywhere.
    out.push(Box::new(|net, at, random| {
        let from = (host("1.0.0.0", random.below(1 << 30) as u32), 1_024 + random.below(60_000) as u16);
        net.tcp(at, from, (ip(WEB), [22, 23, 445, 3_389, 8_080][random.below(5) as usize]), SYN, 1, 0, b"");
        exponential(random, 20.0)
    }));
}

impl Site {
    /// Plays it through table and detectors.
    pub(crate) fn play(self) -> Played {
        let mut random = Random::new(self.seed);
        let mut all: Vec<Does> = Vec::new();
        for number in 0..self.people {
            habits(person(number), &mut random, &mut all);
            specialists(number, &mut random, &mut all);
            if self.clockwork_each > 0 && number.is_multiple_of(self.clockwork_each) {
                let (me, to) = (person(number), world(&mut random));
                let every = about(&mut random, 30.0, 900.0);
                all.push(Box::new(move |net, at, random| {
                    transfer(net, at, me, (to, 443), 800, 900, 0.2);
                    every * (0.95 + 0.1 * random.unit())
                }));
            }
        }
        servers(self.people, &mut random, &mut all);
        // In order of time, then of number: nothing depends on the order of a map.
        let mut due: BinaryHeap<Reverse<(u64, usize)>> =
            (0..all.len()).map(|at| Reverse(((random.unit() * 6e8) as u64, at))).collect();
        let (mut net, mut table, mut detectors) =
            (Net::new(), FlowTable::new(TableOptions::default()), Detectors::default());
        let (mut packets, mut minute, end) = (0u64, 0.0, self.hours * 3_600.0);
        while minute < end {
            let until = minute + 60.0;
            while let Some(&Reverse((at, which))) = due.peek() {
                let at = at as f64 / 1e6;
                if at >= until {
                    break;
                }
                due.pop();
                let next = at + all[which](&mut net, at, &mut random).max(0.001);
                if next < end {
                    due.push(Reverse(((next * 1e6) as u64, which)));
                }
            }
            net.sent.sort_by(|a, b| a.at.total_cmp(&b.at));
            let now = net.sent.partition_point(|sent| sent.at < until);
            for sent in net.sent.drain(..now) {
                packets += 1;
                give(&sent, packets, &mut table, &mut detectors, |detectors, arp| detectors.arp(arp));
            }
            minute = until;
        }
        table.finish(&mut detectors);
        let hosts = (self.people + SERVERS) as usize;
        Played { packets, hosts, alerts: detectors.alerts().to_vec() }
    }
}
