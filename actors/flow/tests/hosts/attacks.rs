//! Each shape of attack, made small: found, the attacker named, the right kind, nobody else accused.

use crate::net::{ACK, FIN, Net, PSH, RST, Random, SYN, URG, host, ip, told};
use tidegate_flow::{Detectors, Kind, TableOptions};

const EVIL: &str = "10.0.0.66";
const VICTIM: &str = "10.0.0.10";

#[track_caller]
fn only(net: Net, source: &str, kind: &'static str) {
    assert_eq!(told(net), [(source.to_owned(), kind)]);
}

#[test]
fn port_scans_of_each_type() {
    // SYN scan: closed ports refuse, filtered ones are silent, two are open.
    let mut net = Net::new();
    for port in 1..=60u16 {
        let (from, to) = ((ip(EVIL), 40_000), (ip(VICTIM), port));
        let at = f64::from(port) * 0.05;
        match port {
            22 | 53 => {
                net.tcp(at, from, to, SYN, 1, 0, b"");
                net.tcp(at + 0.001, to, from, SYN | ACK, 9, 2, b"");
                net.tcp(at + 0.002, from, to, RST, 2, 0, b"");
            }
            p if p % 2 == 0 => net.refused(at, from, to),
            _ => net.syn(at, from, to),
        }
    }
    only(net, EVIL, "vertical-scan");
    // connect(): each with a port of its own.
    let mut net = Net::new();
    for port in 1..=60 {
        let from = (ip(EVIL), net.ephemeral());
        net.refused(f64::from(port) * 0.01, from, (ip(VICTIM), port));
    }
    only(net, EVIL, "vertical-scan");
    // FIN, NULL, XMAS, SYN with FIN, and ACK.
    for flags in [FIN, 0, FIN | PSH | URG, SYN | FIN, ACK] {
        let mut net = Net::new();
        for port in 1..=40 {
            net.tcp(f64::from(port) * 0.05, (ip(EVIL), 40_000), (ip(VICTIM), port), flags, 7, 0, b"");
            if port % 3 > 0 {
                net.tcp(
                    f64::from(port) * 0.05 + 0.01,
                    (ip(VICTIM), port),
                    (ip(EVIL), 40_000),
                    RST | ACK,
                    0,
                    8,
                    b"",
                );
            }
        }
        only(net, EVIL, "vertical-scan");
    }
    // UDP, with the host's word that ports are closed for some.
    let mut net = Net::new();
    for port in 1..=40u16 {
        let at = f64::from(port) * 0.8;
        net.udp(at, (ip(EVIL), 41_000), (ip(VICTIM), 100 + port), b"");
        if port % 4 == 0 {
            let mut quoted = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 66, 10, 0, 0, 10];
            quoted.extend(41_000u16.to_be_bytes());
            quoted.extend((100 + port).to_be_bytes());
            net.icmp(at + 0.01, ip(VICTIM), ip(EVIL), 3, 0, &quoted);
        }
    }
    only(net, EVIL, "vertical-scan");
    // A patient one: a port every two minutes.
    let mut net = Net::new();
    for port in 1..=30 {
        net.refused(f64::from(port) * 120.0, (ip(EVIL), 40_000 + port), (ip(VICTIM), port));
    }
    only(net, EVIL, "vertical-scan");
}

#[test]
fn worms_and_sweeps() {
    // Telnet over a network, some of it there.
    let mut net = Net::new();
    for number in 1..=80 {
        let from = (ip(EVIL), net.ephemeral());
        let to = (host("10.1.0.0", number), 23);
        let at = f64::from(number) * 0.02;
        match number % 8 {
            0 => drop(net.talk(at, from, to, 0.01, &[(false, b"login: ")])),
            1 | 2 => net.refused(at, from, to),
            _ => net.syn(at, from, to),
        }
    }
    only(net, EVIL, "horizontal-scan");
    let mut net = Net::new();
    for number in 1..=80 {
        net.udp(f64::from(number) * 0.02, (ip(EVIL), 5_000), (host("10.1.0.0", number), 161), b"public");
    }
    only(net, EVIL, "horizontal-scan");
    let mut net = Net::new();
    for number in 1..=60 {
        net.ping(f64::from(number) * 0.02, ip(EVIL), host("10.1.0.0", number), number, number % 3 == 0);
    }
    only(net, EVIL, "horizontal-scan");
    let mut net = Net::new();
    for number in 1..=60 {
        net.arp(f64::from(number) * 0.02, false, [2, 0, 0, 0, 0, 9], ip(EVIL), host("10.0.0.0", number));
    }
    only(net, EVIL, "horizontal-scan");
    // A card with two addresses, of which one asks for its neighbours now and then: the other is accused.
    let mut net = Net::new();
    for number in 1..=60 {
        let at = f64::from(number) * 0.02;
        let from = if number % 7 == 0 || number == 60 { ip("10.0.0.78") } else { ip(EVIL) };
        net.arp(at, false, [2, 0, 0, 0, 0, 9], from, host("10.0.0.0", number));
    }
    only(net, EVIL, "horizontal-scan");
}

#[test]
fn floods() {
    // One source, victim answers; then made-up sources, victim silent.
    let mut net = Net::new();
    for n in 0..1_000u32 {
        let (from, to) = ((ip(EVIL), 1_024 + n as u16), (ip(VICTIM), 80));
        let at = f64::from(n) * 0.002;
        net.tcp(at, from, to, SYN, n, 0, b"");
        net.tcp(at + 0.001, to, from, SYN | ACK, 5, n + 1, b"");
    }
    net.ping(40.0, ip(VICTIM), ip("10.0.0.1"), 1, true);
    only(net, EVIL, "syn-flood");
    let mut net = Net::new();
    let mut random = Random::new(5);
    for n in 0..2_000u32 {
        let from = (host("1.0.0.0", random.below(1 << 29) as u32), 1_024 + random.below(60_000) as u16);
        net.syn(f64::from(n) * 0.001, from, (ip(VICTIM), 80));
    }
    let alerts = net.alerts();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((alerts[0].source, alerts[0].spoofed, alerts[0].kind.name()), (ip(VICTIM), true, "syn-flood"));
    let mut net = Net::new();
    for n in 0..20_000u32 {
        net.udp(
            f64::from(n) * 0.000_2,
            (ip(EVIL), 4_000),
            (ip(VICTIM), (n % 60_000) as u16 + 1_024),
            &[0; 64],
        );
    }
    assert!(told(net).contains(&(EVIL.to_owned(), "udp-flood")));
    let mut net = Net::new();
    for n in 0..2_000 {
        net.ping(f64::from(n) * 0.002, ip(EVIL), ip(VICTIM), n, true);
    }
    only(net, EVIL, "icmp-flood");
}

#[test]
fn amplification_names_the_reflector_or_the_victim() {
    // NTP lists that nobody asked for.
    let mut net = Net::new();
    for n in 0..200 {
        net.udp(f64::from(n) * 0.01, (ip("8.1.1.1"), 123), (ip(VICTIM), 80), &[0; 440]);
    }
    only(net, "8.1.1.1", "amplification");
    // Many reflectors.
    let mut net = Net::new();
    for n in 0..400u32 {
        net.udp(f64::from(n) * 0.01, (host("8.1.0.0", n), 11_211), (ip(VICTIM), 8_080), &[0; 1_400]);
    }
    only(net, VICTIM, "amplification");
    // Seen from the resolver: questions in the victim's name, answers of 3,000 bytes.
    let mut net = Net::new();
    for n in 0..200 {
        net.dns(f64::from(n) * 0.02, ip(VICTIM), ip("8.1.1.1"), b"isc.org", 255, &[0; 3_000], 0);
    }
    only(net, "8.1.1.1", "amplification");
}

#[test]
fn slow_requests() {
    let mut net = Net::new();
    for n in 0..120u16 {
        let (from, to) = ((ip(EVIL), 10_000 + n), (ip(VICTIM), 80));
        net.open(f64::from(n) * 0.05, from, to);
        net.tcp(f64::from(n) * 0.05 + 0.01, from, to, ACK | PSH, 2, 101, b"GET / HTTP/1.1\r\nHost: x\r\n");
        net.tcp(f64::from(n) * 0.05 + 10.0, from, to, ACK | PSH, 27, 101, b"X-a: b\r\n");
    }
    net.ping(40.0, ip(VICTIM), ip("10.0.0.1"), 1, true);
    only(net, EVIL, "slow-dos");
}

/// Guesses at one server: `~` in what the client says stands for a number that is another each time.
fn guesses(port: u16, count: u32, every: f64, lines: &[(bool, &[u8])]) -> Net {
    let mut net = Net::new();
    for n in 0..count {
        let from = (ip(EVIL), net.ephemeral());
        let said: Vec<(bool, Vec<u8>)> = lines
            .iter()
            .map(|&(out, line)| (out, if out { another(line, n) } else { line.to_vec() }))
            .collect();
        let lines: Vec<(bool, &[u8])> = said.iter().map(|(out, line)| (*out, &line[..])).collect();
        net.talk(f64::from(n) * every, from, (ip(VICTIM), port), 0.02, &lines);
    }
    net
}

/// A line with a number of four digits in place of each `~`.
pub(crate) fn another(line: &[u8], n: u32) -> Vec<u8> {
    let number = format!("{:04}", 1_000 + n);
    line.iter().flat_map(|&byte| if byte == b'~' { number.bytes().collect() } else { vec![byte] }).collect()
}

#[test]
fn guessing_passwords() {
    let ftp: [(bool, &[u8]); 5] = [
        (false, b"220 ready FTP\r\n"),
        (true, b"USER root\r\n"),
        (false, b"331 Password\r\n"),
        (true, b"PASS ~\r\n"),
        (false, b"530 Login incorrect.\r\n"),
    ];
    only(guesses(21, 20, 1.5, &ftp), EVIL, "brute-force");
    only(guesses(2_121, 20, 1.5, &ftp), EVIL, "brute-force");
    // SSH on another port: key exchange, then the refusals.
    let mut reply = vec![0; 600];
    reply.extend([0, 0, 0, 12, 10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let ssh: [(bool, &[u8]); 8] = [
        (false, b"SSH-2.0-OpenSSH_9.6\r\n"),
        (true, b"SSH-2.0-libssh\r\n"),
        (false, &[1; 1_000]),
        (true, &[1; 900]),
        (false, &reply),
        (true, &[2; 150]),
        (false, &[3; 44]),
        (false, &[3; 80]),
    ];
    only(guesses(2_222, 40, 0.4, &ssh), EVIL, "brute-force");
    let telnet: [(bool, &[u8]); 3] =
        [(false, b"login: "), (true, b"admin\r\n"), (false, b"Login incorrect\r\n")];
    only(guesses(23, 20, 2.0, &telnet), EVIL, "brute-force");
    let basic: [(bool, &[u8]); 2] = [
        (true, b"GET /admin HTTP/1.1\r\nAuthorization: Basic eDp~\r\n\r\n"),
        (false, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    ];
    only(guesses(80, 30, 0.2, &basic), EVIL, "brute-force");
    let form: [(bool, &[u8]); 2] = [
        (true, b"POST /wp-login.php HTTP/1.1\r\nContent-Length: 20\r\n\r\nlog=admin&pwd=s~"),
        (false, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    only(guesses(80, 40, 0.2, &form), EVIL, "brute-force");
    let rdp: [(bool, &[u8]); 4] = [
        (true, &[3, 0, 0, 19, 14, 0xe0, 0, 0]),
        (false, &[3, 0, 0, 19, 14, 0xd0]),
        (true, &[22; 900]),
        (false, &[22; 1_200]),
    ];
    only(guesses(3_389, 20, 1.0, &rdp), EVIL, "brute-force");
    let mut refusal = vec![0, 0, 0, 72, 0xfe, b'S', b'M', b'B', 64, 0, 0, 0, 0x6d, 0, 0, 0xc0, 1, 0];
    refusal.resize(76, 0);
    let smb: [(bool, &[u8]); 2] = [(true, b"\0\0\0\x48\xfeSMB@\0\0\0\0\0\0\0\x01\0"), (false, &refusal)];
    only(guesses(445, 30, 0.5, &smb), EVIL, "brute-force");
    let mysql: [(bool, &[u8]); 3] = [
        (false, b"\x4a\0\0\0\x0a8.0.36\0"),
        (true, b"\x20\0\0\x01root"),
        (false, b"\x48\0\0\x02\xff\x15\x04#28000Access denied"),
    ];
    only(guesses(3_306, 30, 0.5, &mysql), EVIL, "brute-force");
    let mail: [(bool, &[u8]); 3] =
        [(false, b"+OK ready\r\n"), (true, b"PASS ~\r\n"), (false, b"-ERR [AUTH] failed\r\n")];
    only(guesses(110, 30, 0.5, &mail), EVIL, "brute-force");
}

#[test]
fn calls_home() {
    // Sleep 60 s, jitter 30 %, among ordinary browsing.
    let mut net = Net::new();
    let mut random = Random::new(2);
    let mut at = 0.0;
    for _ in 0..30 {
        let from = (ip("10.0.0.5"), net.ephemeral());
        net.talk(at, from, (ip("203.0.113.9"), 443), 0.05, &[(true, &[22; 517]), (false, &[23; 3_000])]);
        at += 60.0 * (0.7 + 0.6 * random.unit());
    }
    only(net, "10.0.0.5", "beacon");
}

/// A call home of every usual period is one alert for as long as it goes on, and says when it called last.
#[test]
fn one_alert_for_calls_home_all_day() {
    for (period, days) in [(60.0, 1.0), (300.0, 1.0), (1_800.0, 1.0), (3_600.0, 3.0)] {
        let mut net = Net::new();
        let (mut random, mut at) = (Random::new(5), 0.0);
        let mut last = 0.0;
        while at < days * 86_400.0 {
            let from = (ip("10.0.0.5"), net.ephemeral());
            net.talk(at, from, (ip("203.0.113.9"), 443), 0.05, &[(true, &[22; 517]), (false, &[23; 3_000])]);
            (last, at) = (at, at + period * (0.8 + 0.4 * random.unit()));
        }
        // Others are there too: a link on which nothing at all comes for more than an hour has a clock that leaps.
        for n in 0..(days * 144.0) as u32 {
            net.dns(
                f64::from(n) * 600.0,
                ip("10.0.0.7"),
                ip("10.0.0.1"),
                b"www.example.org",
                1,
                &[192, 0, 2, 1],
                0,
            );
        }
        let alerts = net.alerts();
        assert_eq!(alerts.len(), 1, "{period} s: {alerts:#?}");
        let alert = &alerts[0];
        assert_eq!((alert.source, alert.kind), (ip("10.0.0.5"), Kind::Beacon));
        let silent = (last - (alert.seen_ns - 1_700_000_000_000_000_000) as f64 / 1e9).abs();
        assert!(silent < 9.0 * 60.0 * 1.2, "{period} s: last told {silent} s before the last call");
        let asked = alert.silence_ns as f64 / 1e9;
        assert!((8.0 * period..=24.0 * period).contains(&asked), "{period} s: ends after {asked} s");
    }
}

/// Who stopped for longer than sixteen periods and calls again is another alert.
#[test]
fn calls_home_that_stop_and_begin_again_are_two_alerts() {
    let mut net = Net::new();
    let mut random = Random::new(6);
    for begin in [0.0, 40_000.0] {
        let mut at = begin;
        for _ in 0..60 {
            let from = (ip("10.0.0.5"), net.ephemeral());
            net.talk(at, from, (ip("203.0.113.9"), 443), 0.05, &[(true, &[22; 517]), (false, &[23; 3_000])]);
            at += 300.0 * (0.8 + 0.4 * random.unit());
        }
    }
    let told: Vec<_> = net.alerts().iter().map(|alert| (alert.kind, alert.count > 8)).collect();
    assert_eq!(told, [(Kind::Beacon, true), (Kind::Beacon, true)]);
}

#[test]
fn data_in_names() {
    // Out: hexadecimal in names, short answers. Both ways: raw records. Both ways: text records with much in them.
    let name = |n: u32| {
        format!(
            "{:08x}{:040x}.{:032x}.t.example.com",
            n,
            u128::from(n) * 0x9e37_79b9_7f4a_7c15,
            u128::from(n) << 64
        )
    };
    let mut net = Net::new();
    for n in 0..60 {
        net.dns(f64::from(n), ip(EVIL), ip("10.0.0.1"), name(n).as_bytes(), 1, &[127, 0, 0, 1], 0);
    }
    only(net, EVIL, "dns-exfiltration");
    let mut net = Net::new();
    for n in 0..60 {
        net.dns(
            f64::from(n) * 0.2,
            ip(EVIL),
            ip("10.0.0.1"),
            format!("p{n}.tun.example.com").as_bytes(),
            10,
            &[9; 700],
            0,
        );
    }
    only(net, EVIL, "dns-tunnel");
    let mut net = Net::new();
    for n in 0..60 {
        net.dns(f64::from(n) * 0.2, ip(EVIL), ip("10.0.0.1"), name(n).as_bytes(), 16, &[b'a'; 400], 0);
    }
    only(net, EVIL, "dns-tunnel");
}

#[test]
fn data_in_pings() {
    let mut net = Net::new();
    for n in 0..40u32 {
        net.icmp(f64::from(n), ip(EVIL), ip(VICTIM), 8, n, format!("id; {n}").as_bytes());
        net.icmp(f64::from(n) + 0.1, ip(VICTIM), ip(EVIL), 0, n, format!("uid=0(root) {n}").as_bytes());
    }
    only(net, EVIL, "icmp-tunnel");
    // Packets of all lengths in questions alone.
    let mut net = Net::new();
    let mut random = Random::new(3);
    for n in 0..60u32 {
        let payload = vec![n as u8; 40 + random.below(1_000) as usize];
        let (from, to) = if n == 0 || random.below(2) == 0 { (EVIL, VICTIM) } else { (VICTIM, EVIL) };
        net.icmp(f64::from(n) * 0.1, ip(from), ip(to), 8, n, &payload);
    }
    only(net, EVIL, "icmp-tunnel");
}

#[test]
fn an_upload_unlike_any_before() {
    let mut net = Net::new();
    let big = vec![7; 60_000_000];
    for n in 0..11u32 {
        let from = (ip("10.0.0.5"), net.ephemeral());
        net.talk(
            f64::from(n) * 300.0,
            from,
            (ip("198.51.100.7"), 443),
            0.05,
            &[(true, &[22; 5_000]), (false, &[22; 90_000])],
        );
    }
    let from = (ip("10.0.0.5"), net.ephemeral());
    net.talk(3_700.0, from, (ip("203.0.113.9"), 443), 0.01, &[(true, &big), (false, &[22; 900])]);
    only(net, "10.0.0.5", "data-exfiltration");
}

/// An office of so many people who browse for ten minutes, each sending at most so much to one site at a time.
fn office(people: u32, most: u64) -> Net {
    let mut net = Net::new();
    let mut random = Random::new(11);
    for person in 0..people {
        for visit in 0..20u32 {
            let from = (host("10.0.0.20", person), net.ephemeral());
            let to = (host("198.51.100.1", random.below(30) as u32), 443);
            let up = vec![22; 400 + random.below(most) as usize];
            let at = f64::from(visit) * 30.0 + random.unit() * 20.0;
            net.talk(at, from, to, 0.05, &[(true, &up), (false, &[22; 40_000])]);
        }
    }
    net
}

#[test]
fn an_upload_unlike_anybodys_by_a_host_without_a_history() {
    let big = vec![7; 60_000_000];
    let steal = |mut net: Net, up: &[u8], back: &[u8]| {
        let from = (ip("10.0.0.5"), net.ephemeral());
        net.talk(200.0, from, (ip("203.0.113.9"), 443), 0.01, &[(true, up), (false, back)]);
        net
    };
    only(steal(office(12, 60_000), &big, &[22; 900]), "10.0.0.5", "data-exfiltration");
    // Two at once: the one is no measure for the other.
    let mut two = steal(office(12, 60_000), &big, &[22; 900]);
    let from = (ip("10.0.0.6"), two.ephemeral());
    two.talk(260.0, from, (ip("203.0.113.77"), 443), 0.01, &[(true, &big), (false, &[22; 900])]);
    let found = told(two);
    assert_eq!(found.iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>(), ["10.0.0.5", "10.0.0.6"]);
    // Where there are few others nobody can say what is usual, nor where much comes back, nor where somebody sends as much.
    assert_eq!(told(steal(office(7, 60_000), &big, &[22; 900])), []);
    assert_eq!(told(steal(office(12, 60_000), &big, &big[..8_000_000])), []);
    assert_eq!(told(steal(office(12, 60_000), &big[..18_000_000], &[22; 900])), []);
    let mut busy = office(12, 60_000);
    let from = (ip("10.0.0.21"), busy.ephemeral());
    busy.talk(
        100.0,
        from,
        (ip("198.51.100.50"), 443),
        0.01,
        &[(true, &big[..12_000_000]), (false, &[22; 900])],
    );
    assert_eq!(told(steal(busy, &big, &[22; 900])), []);
}

#[test]
fn an_address_fought_over() {
    let (gateway, evil) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x66]);
    let mut net = Net::new();
    net.arp(0.0, false, evil, ip(EVIL), ip("10.0.0.1"));
    net.arp(0.1, true, gateway, ip("10.0.0.1"), ip(EVIL));
    for n in 0..20 {
        net.arp(5.0 + f64::from(n) * 2.0, true, evil, ip("10.0.0.1"), ip(VICTIM));
        if n % 4 == 1 {
            net.arp(5.5 + f64::from(n) * 2.0, true, gateway, ip("10.0.0.1"), ip("10.0.0.7"));
        }
    }
    only(net, EVIL, "arp-spoofing");
}

#[test]
fn administration_of_hosts_never_administered() {
    let mut net = Net::new();
    let lines: [(bool, &[u8]); 2] = [(true, b"\0\0\0\x20\xfeSMB"), (false, &[0; 300])];
    // A history of an hour with its file server.
    for n in 0..20u32 {
        let from = (ip(EVIL), net.ephemeral());
        net.talk(f64::from(n) * 200.0, from, (ip("10.0.0.2"), 445), 0.1, &lines);
    }
    for n in 0..8u32 {
        let from = (ip(EVIL), net.ephemeral());
        net.talk(4_000.0 + f64::from(n) * 20.0, from, (host("10.0.0.100", n), 445), 0.1, &lines);
    }
    only(net, EVIL, "lateral-movement");
}

#[test]
fn a_controller_that_is_gone() {
    let mut net = Net::new();
    for n in 0..250 {
        let from = (ip("10.0.0.5"), net.ephemeral());
        net.refused(f64::from(n) * 1.5, from, (ip("203.0.113.9"), 5_888));
    }
    only(net, "10.0.0.5", "failure-burst");
}

#[test]
fn a_bleeding_heart() {
    let mut net = Net::new();
    let from = (ip(EVIL), 4_000);
    let hello: &[u8] = &[22, 3, 1, 0, 5, 1, 0, 0, 1, 3];
    let asks: &[u8] = &[24, 3, 2, 0, 3, 1, 0x40, 0];
    net.talk(
        1.0,
        from,
        (ip(VICTIM), 443),
        0.1,
        &[(true, hello), (false, &[22; 900]), (true, asks), (false, &[24; 9_000])],
    );
    only(net, EVIL, "heartbleed");
}

#[test]
fn millions_of_made_up_hosts_take_bounded_memory() {
    let mut detectors = Detectors::default();
    let mut random = Random::new(9);
    let mut net = Net::new();
    for n in 0..300_000u32 {
        let from = (host("1.0.0.0", random.below(1 << 31) as u32), random.below(60_000) as u16);
        net.syn(f64::from(n) * 0.000_1, from, (ip(VICTIM), 80));
    }
    let options = TableOptions { flows_max: 10_000, ..TableOptions::default() };
    let table = net.play(&mut detectors, options);
    assert!(table.counts().evicted > 200_000 && table.is_empty());
    assert!(detectors.forgotten() > 0);
    let alerts = detectors.alerts();
    assert_eq!((alerts.len(), alerts[0].kind.name(), alerts[0].source), (1, "syn-flood", ip(VICTIM)));
}
