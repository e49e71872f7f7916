//! Further shapes of attack, each beside ordinary traffic that looks like it.

use crate::net::{ACK, FIN, Net, PSH, RST, Random, SYN, URG, host, ip, told};
use tidegate_flow::Ip;

const EVIL: &str = "10.0.0.66";
const VICTIM: &str = "10.0.0.10";
const EVIL6: &str = "fd77::66";
const VICTIM6: &str = "fd77::10";

#[track_caller]
fn only(net: Net, source: &str, kind: &'static str) {
    assert_eq!(told(net), [(source.to_owned(), kind)]);
}

#[track_caller]
fn quiet(net: Net) {
    assert_eq!(told(net), []);
}

/// Probes of so many ports with the same flags, so many seconds apart; closed ports refuse.
fn probes(net: &mut Net, (from, to): (&str, &str), flags: u8, count: u16, every: f64) {
    for n in 0..count {
        let (from, to) = ((ip(from), 40_000), (ip(to), 1 + n));
        let at = f64::from(n) * every;
        net.tcp(at, from, to, flags, 7, 0, b"");
        if flags & RST == 0 && n % 3 > 0 {
            net.tcp(at + 0.01, to, from, RST | ACK, 0, 8, b"");
        }
    }
}

#[test]
fn scans_with_every_flag() {
    for ends in [(EVIL, VICTIM), (EVIL6, VICTIM6)] {
        for flags in [SYN, ACK, FIN, FIN | ACK, RST, 0, FIN | PSH | URG, FIN | PSH | URG | SYN, URG] {
            let mut net = Net::new();
            probes(&mut net, ends, flags, 40, 0.05);
            only(net, ends.0, "vertical-scan");
        }
    }
    // A minute, and five, between two ports; a host a minute.
    for (every, count) in [(60.0, 40), (300.4, 40)] {
        let mut net = Net::new();
        probes(&mut net, (EVIL, VICTIM), SYN, count, every);
        // What pauses for so long is more than one episode.
        let mut told = told(net);
        told.dedup();
        assert_eq!(told, [(EVIL.to_owned(), "vertical-scan")]);
    }
    let mut net = Net::new();
    for n in 1..=40u32 {
        let from = (ip(EVIL), net.ephemeral());
        net.syn(f64::from(n) * 60.0, from, (host("10.1.0.0", n), 22));
    }
    only(net, EVIL, "horizontal-scan");
    // UDP, slowly, and over a network of IPv6.
    let mut net = Net::new();
    for n in 0..40u16 {
        net.udp(f64::from(n) * 60.0, (ip(EVIL), 41_000), (ip(VICTIM), 100 + n), b"");
    }
    only(net, EVIL, "vertical-scan");
    let mut net = Net::new();
    for n in 1..=60u32 {
        let to = Ip(ip("fd77::1000").0 + u128::from(n));
        net.ping(f64::from(n) * 0.1, ip(EVIL6), to, n, n % 4 == 0);
    }
    only(net, EVIL6, "horizontal-scan");
}

#[test]
fn ends_of_connections_that_were_not_seen() {
    // A server closes, or drops, what it had with a hundred ports of one client; a client the same with one service.
    for flags in [FIN | ACK, RST, RST | ACK] {
        let mut net = Net::new();
        for n in 0..100u16 {
            let (server, client) = ((ip("203.0.113.5"), 443), (ip(VICTIM), 30_000 + n));
            net.tcp(f64::from(n) * 0.01, server, client, flags, 5, 5, b"");
            let (client, server) = ((ip("10.0.0.11"), 30_000 + n), (ip("203.0.113.6"), 443));
            net.tcp(f64::from(n) * 0.01, client, server, flags, 5, 5, b"");
        }
        quiet(net);
    }
    // What a flood with made-up sources leaves behind elsewhere.
    let mut net = Net::new();
    let mut random = Random::new(3);
    for n in 0..400 {
        let to = (host("10.9.0.0", random.below(60_000) as u32), 1_024 + random.below(60_000) as u16);
        let flags = if n % 2 == 0 { SYN | ACK } else { RST | ACK };
        net.tcp(f64::from(n) * 0.05, (ip("203.0.113.5"), 80), to, flags, 5, 5, b"");
    }
    quiet(net);
}

#[test]
fn decoys_and_many_hands() {
    // Four that are made up and one that is not ask each port in turn: nobody can tell, so the host is named.
    let sources = ["198.51.100.7", "203.0.113.9", EVIL, "192.0.2.77", "198.51.100.99"];
    let mut net = Net::new();
    for n in 0..120u16 {
        for (at, source) in sources.iter().enumerate() {
            let (from, to) = ((ip(source), 50_000), (ip(VICTIM), 1 + n));
            net.refused(f64::from(n) * 0.1 + at as f64 * 0.002, from, to);
        }
    }
    let alerts = net.alerts();
    let told: Vec<_> = alerts.iter().map(|alert| (alert.source, alert.spoofed, alert.kind.name())).collect();
    assert_eq!(told, [(ip(VICTIM), true, "vertical-scan")]);
    // Two who scan the same host on their own, one after the other and side by side, are two.
    for apart in [0.01, 20.0] {
        let mut net = Net::new();
        for n in 0..120u16 {
            for (at, source) in [EVIL, "10.0.0.67"].iter().enumerate() {
                let (from, to) = ((ip(source), 50_000), (ip(VICTIM), 1 + n));
                net.refused(f64::from(n) * 0.1 + at as f64 * apart, from, to);
            }
        }
        let mut both = net.alerts().iter().map(|alert| alert.source).collect::<Vec<_>>();
        both.sort();
        assert_eq!(both, [ip(EVIL), ip("10.0.0.67")]);
    }
    // Forty who share the ports among them; and the noise of the Internet, a port every two seconds from anybody.
    let together = |every: f64| {
        let mut net = Net::new();
        for n in 0..400u16 {
            let from = (host("198.51.100.0", u32::from(n) * 7 % 40), 50_000 + n);
            net.syn(f64::from(n) * every, from, (ip(VICTIM), 1 + n));
        }
        net.alerts().iter().map(|alert| (alert.source, alert.spoofed, alert.kind.name())).collect::<Vec<_>>()
    };
    assert_eq!(together(0.1), [(ip(VICTIM), true, "vertical-scan")]);
    assert_eq!(together(2.0), []);
}

#[test]
fn reflections_of_every_service() {
    // As the victim sees them: from many reflectors, and from one.
    for (port, bytes) in
        [(53, 3_000), (123, 440), (1_900, 310), (389, 1_400), (11_211, 1_400), (19, 1_000), (3_702, 900)]
    {
        for reflectors in [1, 300] {
            let mut net = Net::new();
            for n in 0..600u32 {
                let from = (host("8.1.0.0", 1 + n % reflectors), port);
                net.udp(f64::from(n) * 0.005, from, (ip(VICTIM), 4_000), &vec![7; bytes]);
            }
            let source = if reflectors == 1 { "8.1.0.1" } else { VICTIM };
            let told = told(net);
            assert_eq!(told, [(source.to_owned(), "amplification")], "port {port}, {reflectors}");
        }
        // As the reflector sees them: questions in the victim's name.
        let mut net = Net::new();
        for n in 0..600u32 {
            let at = f64::from(n) * 0.01;
            let (server, victim) = ((ip("8.1.1.1"), port), (ip("203.0.113.50"), 4_000));
            net.udp(at, victim, server, b"\0\x01give me all");
            net.udp(at + 0.001, server, victim, &vec![7; bytes.max(500)]);
        }
        assert_eq!(told(net), [("8.1.1.1".to_owned(), "amplification")], "port {port}");
    }
}

#[test]
fn large_answers_that_were_asked_for() {
    let mut net = Net::new();
    let mut random = Random::new(4);
    for n in 0..600u32 {
        let at = f64::from(n) * 0.05;
        // A resolver's answers with signatures, a management station that walks, a directory, a cache.
        for (port, bytes) in [(53, 1_800), (161, 1_300), (389, 700), (11_211, 1_200)] {
            let (client, server) =
                ((ip("192.168.1.9"), 30_000 + (n % 500) as u16), (ip("192.168.1.1"), port));
            let asked = format!("\0\x01{} {n} {}", "question ".repeat(8), random.next());
            net.udp(at, client, server, asked.as_bytes());
            net.udp(at + 0.01, server, client, &vec![7; bytes]);
        }
    }
    quiet(net);
}

#[test]
fn floods_of_pings_and_of_their_answers() {
    for (from, to) in [(EVIL, VICTIM), (EVIL6, VICTIM6)] {
        let mut net = Net::new();
        for n in 0..3_000 {
            net.ping(f64::from(n) * 0.002, ip(from), ip(to), n, n % 5 > 0);
        }
        only(net, from, "icmp-flood");
    }
    // Made-up sources; answers that others were made to give; questions for the time.
    let mut net = Net::new();
    let mut random = Random::new(5);
    for n in 0..2_000 {
        net.ping(f64::from(n) * 0.002, host("1.0.0.0", random.below(1 << 28) as u32), ip(VICTIM), n, false);
    }
    only(net, VICTIM, "icmp-flood");
    let mut net = Net::new();
    for n in 0..2_000 {
        net.icmp(f64::from(n) * 0.002, host("198.51.100.0", n % 200), ip(VICTIM), 0, n, &[7; 48]);
    }
    only(net, VICTIM, "icmp-flood");
    let mut net = Net::new();
    for n in 0..2_000 {
        net.icmp(f64::from(n) * 0.002, ip(EVIL), ip(VICTIM), 13, n, &[7; 12]);
    }
    only(net, EVIL, "icmp-flood");
    // Twenty watched hosts once a second, and a host that says to a busy asker that a port is closed.
    let mut net = Net::new();
    for n in 0..6_000u32 {
        net.ping(f64::from(n) * 0.05, ip("192.168.1.2"), host("192.168.1.100", n % 20), n, true);
    }
    for n in 0..3_000 {
        net.icmp(f64::from(n) * 0.002, ip("192.168.1.9"), ip("192.168.1.2"), 3, n, &[0; 4]);
    }
    quiet(net);
}

#[test]
fn floods_of_datagrams() {
    // A new port for each packet, as flooding tools do; the same from everywhere; one flow at full speed.
    let mut net = Net::new();
    for n in 0..8_000u32 {
        let from = (ip(EVIL), 1_024 + (n % 60_000) as u16);
        net.udp(f64::from(n) * 0.001, from, (ip(VICTIM), 80), &[0; 120]);
    }
    only(net, EVIL, "udp-flood");
    let mut net = Net::new();
    let mut random = Random::new(6);
    for n in 0..8_000u32 {
        let from = (host("1.0.0.0", random.below(1 << 28) as u32), 1_024 + (n % 60_000) as u16);
        net.udp(f64::from(n) * 0.001, from, (ip(VICTIM), 80), &[0; 120]);
    }
    only(net, VICTIM, "udp-flood");
    let mut net = Net::new();
    for n in 0..40_000u32 {
        net.udp(f64::from(n) * 0.000_1, (ip(EVIL), 4_000), (ip(VICTIM), 80), &[0; 1_000]);
    }
    only(net, EVIL, "udp-flood");
    // A collector of metrics, whom everybody tells something and who answers nobody.
    let mut net = Net::new();
    for n in 0..12_000u32 {
        let from = (host("192.168.1.10", n % 60), 40_000 + (n % 60) as u16);
        net.udp(f64::from(n) * 0.005, from, (ip("192.168.1.3"), 8_125), &[b'm'; 200]);
    }
    quiet(net);
}

#[test]
fn pages_asked_for_in_masses() {
    let page: [(bool, &[u8]); 2] = [
        (true, b"GET /?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ];
    // 400 a second, each on a connection of its own; 60 a second are a busy crawler.
    let asks = |count: u32, every: f64| {
        let mut net = Net::new();
        for n in 0..count {
            let from = (ip(EVIL), net.ephemeral());
            net.talk(f64::from(n) * every, from, (ip(VICTIM), 80), 0.01, &page);
        }
        told(net)
    };
    assert_eq!(asks(6_000, 0.002_5), [(EVIL.to_owned(), "http-flood")]);
    assert_eq!(asks(4_000, 0.016), []);
    // A slow body instead of a slow head; and a page whose answers take long, on six connections.
    let slow = |connections: u16| {
        let mut net = Net::new();
        for n in 0..connections {
            let (from, to) = ((ip(EVIL), 10_000 + n), (ip(VICTIM), 80));
            let at = f64::from(n) * 0.05;
            net.open(at, from, to);
            let head = b"POST /x HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
            net.tcp(at + 0.01, from, to, ACK | PSH, 2, 101, head);
            for part in 0..4u32 {
                let seq = 2 + head.len() as u32 + part;
                net.tcp(at + 5.0 + f64::from(part) * 5.0, from, to, ACK | PSH, seq, 101, b"a");
            }
        }
        net.ping(60.0, ip(VICTIM), ip("10.0.0.1"), 1, true);
        told(net)
    };
    assert_eq!(slow(200), [(EVIL.to_owned(), "slow-dos")]);
    assert_eq!(slow(6), []);
}

#[test]
fn administrative_shares_of_one_host_after_the_other() {
    let share = |name: &str| {
        let mut bytes = vec![0, 0, 0, 120, 0xfe, b'S', b'M', b'B', 64, 0, 0, 0, 0, 0, 0, 0, 3, 0];
        bytes.resize(76, 0);
        bytes.extend(format!("\\\\10.0.0.9\\{name}").encode_utf16().flat_map(u16::to_le_bytes));
        bytes
    };
    let visit = |hosts: u32, name: &str| {
        let mut net = Net::new();
        for n in 0..hosts {
            let from = (ip(EVIL), net.ephemeral());
            let asks = share(name);
            let lines: [(bool, &[u8]); 2] = [(true, &asks), (false, &[0; 80])];
            net.talk(f64::from(n) * 30.0, from, (host("10.0.0.100", n), 445), 0.1, &lines);
        }
        told(net)
    };
    for name in ["ADMIN$", "C$"] {
        assert_eq!(visit(4, name), [(EVIL.to_owned(), "lateral-movement")]);
        assert_eq!(visit(2, name), []);
    }
    assert_eq!(visit(12, "IPC$"), []);
    assert_eq!(visit(12, "public"), []);
}

#[test]
fn packets_in_pings_of_both_families() {
    for (from, to, asks, says) in [(EVIL, "203.0.113.9", 8, 0), (EVIL6, "2001:db8::9", 128, 129)] {
        let mut net = Net::new();
        let mut random = Random::new(9);
        for n in 0..80u32 {
            let sizes = [40 + random.below(900) as usize, 40 + random.below(900) as usize];
            net.icmp(f64::from(n) * 0.2, ip(from), ip(to), asks, n, &vec![n as u8; sizes[0]]);
            net.icmp(f64::from(n) * 0.2 + 0.05, ip(to), ip(from), says, n, &vec![!n as u8; sizes[1]]);
        }
        only(net, from, "icmp-tunnel");
        let mut net = Net::new();
        for n in 0..80u32 {
            net.ping(f64::from(n), ip(from), ip(to), n, n % 9 > 0);
        }
        quiet(net);
    }
}

/// Everything that counts connections counts those of IPv6.
#[test]
fn the_same_over_the_other_family() {
    let mut net = Net::new();
    for n in 0..1_000u32 {
        net.syn(f64::from(n) * 0.002, (ip(EVIL6), 1_024 + n as u16), (ip(VICTIM6), 80));
    }
    only(net, EVIL6, "syn-flood");
    let mut net = Net::new();
    for n in 0..40u32 {
        let from = (ip(EVIL6), net.ephemeral());
        let to = Ip(ip("fd77::1000").0 + u128::from(n));
        net.syn(f64::from(n) * 0.1, from, (to, 445));
    }
    only(net, EVIL6, "horizontal-scan");
    let mut net = Net::new();
    for n in 0..20u32 {
        let from = (ip(EVIL6), net.ephemeral());
        let pass = format!("PASS guess{n}\r\n");
        let lines: [(bool, &[u8]); 5] = [
            (false, b"220 ready FTP\r\n"),
            (true, b"USER root\r\n"),
            (false, b"331 Password\r\n"),
            (true, pass.as_bytes()),
            (false, b"530 Login incorrect.\r\n"),
        ];
        net.talk(f64::from(n) * 1.5, from, (ip(VICTIM6), 21), 0.02, &lines);
    }
    only(net, EVIL6, "brute-force");
}
