//! What looks like an attack and is none: nothing may be said.

use crate::net::{ACK, Net, PSH, Random, SYN, Sent, What, host, ip, told};

#[track_caller]
fn quiet(net: Net) {
    assert_eq!(told(net), []);
}

const PC: &str = "192.168.1.20";

#[test]
fn a_browser() {
    // Pages of dozens of connections to dozens of hosts, some of which are gone.
    let mut net = Net::new();
    let mut random = Random::new(1);
    let mut at = 0.0;
    for page in 0..40u32 {
        for _ in 0..30 {
            let server = host("151.101.0.0", random.below(200) as u32);
            let name = format!("cdn{}.site{page}.example.com", random.below(9));
            net.dns(at, ip(PC), ip("192.168.1.1"), name.as_bytes(), 1, &[1, 2, 3, 4], 0);
            let from = (ip(PC), net.ephemeral());
            let sizes = (200 + random.below(900) as usize, 500 + random.below(40_000) as usize);
            if random.below(20) == 0 {
                net.syn(at + 0.05, from, (server, 443));
            } else {
                net.talk(
                    at + 0.05,
                    from,
                    (server, 443),
                    0.03,
                    &[(true, &vec![22; sizes.0]), (false, &vec![23; sizes.1])],
                );
            }
            at += 0.02 * random.unit();
        }
        at += 5.0 + 60.0 * random.unit();
    }
    quiet(net);
}

#[test]
fn a_busy_resolver() {
    let mut net = Net::new();
    let mut random = Random::new(3);
    let resolver = ip("192.168.1.1");
    for n in 0..12_000u32 {
        let at = f64::from(n) * 0.001;
        let client = host("192.168.2.0", 1 + random.below(200) as u32);
        let name = format!("host{}.example{}.net", random.below(500), random.below(300));
        let size = 16 + random.below(400) as usize;
        net.dns(
            at,
            client,
            resolver,
            name.as_bytes(),
            28,
            &vec![0; size],
            if random.below(9) == 0 { 3 } else { 0 },
        );
        // What it asks itself, one in thirty never answered.
        let server = host("198.41.0.0", random.below(4_000) as u32);
        let from = (resolver, 1_024 + random.below(60_000) as u16);
        net.udp(at, from, (server, 53), b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01");
        if random.below(30) > 0 {
            net.udp(at + 0.03, (server, 53), from, &[0; 120]);
        }
    }
    quiet(net);
}

#[test]
fn block_lists_reverse_lookups_and_antivirus() {
    let mut net = Net::new();
    let mut random = Random::new(3);
    for n in 0..400u32 {
        let four = [random.below(256), random.below(256), random.below(256), random.below(256)];
        let [a, b, c, d] = four;
        let client = ip("192.168.1.9");
        let server = ip("192.168.1.1");
        let at = f64::from(n) * 0.3;
        net.dns(at, client, server, format!("{a}.{b}.{c}.{d}.zen.spamhaus.org").as_bytes(), 1, &[], 3);
        net.dns(at, client, server, format!("{a}.{b}.{c}.{d}.in-addr.arpa").as_bytes(), 12, b"\x04host", 0);
        let six: Vec<String> = (0..32).map(|_| format!("{:x}", random.below(16))).collect();
        net.dns(at, client, server, format!("{}.ip6.arpa", six.join(".")).as_bytes(), 12, &[], 3);
        // One look-up of a file in ten minutes or so is the rule.
        if n % 40 == 0 {
            let name = format!("{:032x}.hash.avvendor.example", random.next());
            net.dns(at, client, server, name.as_bytes(), 16, b"ok", 0);
        }
    }
    quiet(net);
}

#[test]
fn file_sharing() {
    // Many peers, most on ports of their own, half of them gone; one well-known port among them.
    let mut net = Net::new();
    let mut random = Random::new(4);
    for n in 0..3_000u32 {
        let at = f64::from(n) * 0.1;
        let peer = host("60.0.0.0", random.below(1 << 24) as u32);
        let port = if random.below(6) == 0 { 6_881 } else { 10_000 + random.below(50_000) as u16 };
        net.udp(at, (ip(PC), 51_413), (peer, port), &[b'd'; 100]);
        if random.below(2) == 0 {
            net.udp(at + 0.1, (peer, port), (ip(PC), 51_413), &[b'd'; 280]);
        }
        if n % 5 == 0 {
            let from = (ip(PC), net.ephemeral());
            match random.below(3) {
                0 => net.syn(at, from, (peer, port)),
                1 => net.refused(at, from, (peer, port)),
                _ => drop(net.talk(
                    at,
                    from,
                    (peer, port),
                    0.1,
                    &[(true, &[19; 68]), (false, &[19; 68]), (false, &[7; 9_000])],
                )),
            }
        }
    }
    quiet(net);
}

#[test]
fn a_currency_of_peers() {
    // All peers on the same port, most of them gone; some call.
    let mut net = Net::new();
    let mut random = Random::new(14);
    for n in 0..600u32 {
        let at = f64::from(n) * 0.3;
        let peer = host("60.0.0.0", random.below(1 << 24) as u32);
        let from = (ip(PC), net.ephemeral());
        match random.below(10) {
            0..7 => net.syn(at, from, (peer, 30_303)),
            _ => drop(net.talk(at, from, (peer, 30_303), 0.1, &[(true, &[19; 300]), (false, &[19; 300])])),
        }
        if n % 10 == 0 {
            net.udp(at, (host("61.0.0.0", n), 30_303), (ip(PC), 30_303), &[b'd'; 100]);
            net.udp(at + 0.1, (ip(PC), 30_303), (host("61.0.0.0", n), 30_303), &[b'd'; 100]);
        }
    }
    quiet(net);
}

#[test]
fn pings_of_several_sizes() {
    let mut net = Net::new();
    for (n, size) in
        [56, 56, 1_472, 1_473, 1_400, 1_450, 1_460, 1_465, 1_470, 56, 100, 500, 900].into_iter().enumerate()
    {
        for again in 0..4u32 {
            let (at, number) = (n as f64 * 5.0 + f64::from(again), n as u32 * 4 + again);
            net.icmp(at, ip(PC), ip("203.0.113.5"), 8, number, &vec![7; size]);
            net.icmp(at + 0.02, ip("203.0.113.5"), ip(PC), 0, number, &vec![7; size]);
        }
    }
    quiet(net);
}

#[test]
fn a_gateway_with_many_behind_it() {
    let mut net = Net::new();
    let mut random = Random::new(5);
    for n in 0..6_000u32 {
        let at = f64::from(n) * 0.05;
        let from = (ip("203.0.113.1"), net.ephemeral());
        let server =
            (host("23.0.0.0", random.below(3_000) as u32), if random.below(9) == 0 { 80 } else { 443 });
        if random.below(30) == 0 {
            net.syn(at, from, server);
        } else {
            let size = 100 + random.below(1_000) as usize;
            net.talk(at, from, server, 0.02, &[(true, &vec![22; size]), (false, &[22; 2_000])]);
        }
    }
    quiet(net);
}

#[test]
fn monitoring_and_backup() {
    let mut net = Net::new();
    let monitor = ip("192.168.1.2");
    // Pings of sixty hosts, three of them down; names and time at regular times; a scrape of some servers.
    for round in 0..30u32 {
        let at = f64::from(round) * 60.0;
        for number in 1..=60 {
            net.ping(
                at + f64::from(number) * 0.1,
                monitor,
                host("192.168.1.100", number),
                round,
                number % 20 != 0,
            );
        }
        net.udp(at, (monitor, 123), (ip("192.168.1.1"), 123), &[0; 48]);
        net.udp(at + 0.01, (ip("192.168.1.1"), 123), (monitor, 123), &[0; 48]);
        net.dns(at, monitor, ip("192.168.1.1"), b"status.example.com", 1, &[1, 2, 3, 4], 0);
        for number in 1..=30 {
            net.udp(at, (monitor, 40_000), (host("192.168.1.100", number), 161), b"get");
            net.udp(at + 0.02, (host("192.168.1.100", number), 161), (monitor, 40_000), b"value");
        }
    }
    // A backup of the same size at the same place as every quarter of an hour.
    let much = vec![1; 30_000_000];
    for n in 0..4u32 {
        let from = (ip("192.168.1.5"), net.ephemeral());
        net.talk(
            f64::from(n) * 900.0,
            from,
            (ip("198.51.100.1"), 443),
            0.01,
            &[(true, &much), (false, &[2; 500])],
        );
    }
    quiet(net);
}

#[test]
fn groups_and_announcements() {
    let mut net = Net::new();
    let mut random = Random::new(6);
    for n in 0..200u32 {
        let at = f64::from(n) * 15.0;
        // Search for devices: each from a port of its own; answers come from the device's service, and from other ports.
        let port = net.ephemeral();
        for _ in 0..4 {
            net.udp(at, (ip(PC), port), (ip("239.255.255.250"), 1_900), &[b'M'; 175]);
        }
        for _ in 0..24 {
            net.udp(at + random.unit(), (ip("192.168.1.132"), 1_900), (ip(PC), port), &[b'H'; 490]);
        }
        net.udp(
            at + 0.5,
            (ip("192.168.1.135"), 30_000 + random.below(30_000) as u16),
            (ip(PC), port),
            &[b'H'; 520],
        );
        net.udp(at, (ip(PC), 5_353), (ip("224.0.0.251"), 5_353), &[0; 80]);
        net.udp(at, (ip(PC), 137), (ip("192.168.1.255"), 137), &[0; 50]);
        net.udp(at, (ip(PC), 68), (ip("255.255.255.255"), 67), &[0; 300]);
    }
    // A channel of television.
    for n in 0..40_000 {
        net.udp(f64::from(n) * 0.001, (ip("192.168.1.3"), 5_004), (ip("239.1.1.1"), 5_004), &[0; 1_316]);
    }
    quiet(net);
}

#[test]
fn calls_and_films() {
    let mut net = Net::new();
    // A call, one way for a while, and a download over QUIC at 4,000 packets a second.
    for n in 0..15_000 {
        net.udp(f64::from(n) * 0.02, (ip(PC), 16_384), (ip("203.0.113.7"), 20_000), &[0; 172]);
    }
    for n in 0..40_000 {
        net.udp(f64::from(n) * 0.000_25, (ip("203.0.113.8"), 443), (ip(PC), 50_000), &[0; 1_200]);
        if n % 10 == 0 {
            net.udp(f64::from(n) * 0.000_25, (ip(PC), 50_000), (ip("203.0.113.8"), 443), &[0; 40]);
        }
    }
    quiet(net);
}

#[test]
fn the_middle_of_conversations() {
    // The capture begins when a server already talks to many ports of clients behind one address.
    let mut net = Net::new();
    for n in 0..200u16 {
        let (server, client) = ((ip("203.0.113.5"), 443), (ip("198.51.100.9"), 30_000 + n));
        net.tcp(f64::from(n) * 0.01, server, client, ACK, 5, 5, b"");
        net.tcp(f64::from(n) * 0.01 + 0.5, server, client, ACK | PSH, 5, 5, &[1; 100]);
    }
    // Keep-alives of a client on connections it has.
    for n in 0..60u16 {
        let (client, server) = ((ip(PC), 40_000 + n), (host("203.0.113.0", u32::from(n)), 443));
        net.tcp(f64::from(n) * 0.01, client, server, ACK, 5, 5, b"\0");
        net.tcp(f64::from(n) * 0.01 + 0.02, server, client, ACK, 5, 6, b"");
    }
    // Answers of a resolver whose questions were not recorded.
    for n in 0..300u16 {
        net.udp(f64::from(n) * 0.01, (ip("192.168.1.1"), 53), (ip(PC), 20_000 + n), &[0; 90]);
    }
    quiet(net);
}

#[test]
fn passive_file_transfers_and_port_knocking() {
    let mut net = Net::new();
    let server = ip("192.168.1.50");
    for n in 0..60u16 {
        let from = (ip(PC), net.ephemeral());
        net.talk(f64::from(n), from, (server, 50_000 + n * 7), 0.05, &[(false, &[1; 5_000])]);
    }
    for (n, port) in [7_000, 8_000, 9_000, 22].into_iter().enumerate() {
        let from = (ip(PC), net.ephemeral());
        net.syn(100.0 + n as f64, from, (server, port));
    }
    quiet(net);
}

#[test]
fn traceroute() {
    let mut net = Net::new();
    for n in 0..90u16 {
        let hop = (n / 3 + 1) as u8;
        net.sent.push(Sent {
            at: f64::from(n) * 0.1,
            what: What::Udp {
                from: (ip(PC), 45_000),
                to: (ip("203.0.113.80"), 33_434 + n),
                payload: vec![0; 32],
                ttl: hop,
            },
        });
    }
    quiet(net);
}

#[test]
fn people_who_mistype_and_programs_that_log_in() {
    let mut net = Net::new();
    let server = (ip("192.168.1.50"), 21);
    let fails: [(bool, &[u8]); 4] = [
        (false, b"220 FTP\r\n"),
        (true, b"USER a\r\n"),
        (true, b"PASS b\r\n"),
        (false, b"530 Login incorrect.\r\n"),
    ];
    let works: [(bool, &[u8]); 4] =
        [(false, b"220 FTP\r\n"), (true, b"USER a\r\n"), (true, b"PASS c\r\n"), (false, b"230 Welcome.\r\n")];
    for n in 0..5 {
        let from = (ip(PC), net.ephemeral());
        net.talk(f64::from(n) * 8.0, from, server, 0.5, &fails);
    }
    for n in 0..100 {
        let from = (ip(PC), net.ephemeral());
        net.talk(60.0 + f64::from(n) * 3.0 * f64::from(n % 7), from, server, 0.05, &works);
    }
    // A script that runs commands over SSH.
    let mut reply = vec![0; 600];
    reply.extend([0, 0, 0, 12, 10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let script: [(bool, &[u8]); 8] = [
        (false, b"SSH-2.0-OpenSSH_9.6\r\n"),
        (true, b"SSH-2.0-OpenSSH_9.6\r\n"),
        (false, &[1; 1_000]),
        (true, &[1; 900]),
        (false, &reply),
        (true, &[2; 700]),
        (false, &[3; 1_100]),
        (true, &[2; 300]),
    ];
    for n in 0..60 {
        let from = (ip(PC), net.ephemeral());
        net.talk(f64::from(n) * 1.7 * f64::from(1 + n % 5), from, (ip("192.168.1.51"), 22), 0.02, &script);
    }
    // A web application that says 401 before each login by NTLM.
    let ntlm: [(bool, &[u8]); 6] = [
        (true, b"GET /a HTTP/1.1\r\n\r\n"),
        (false, b"HTTP/1.1 401 Unauthorized\r\n\r\n"),
        (true, b"GET /a HTTP/1.1\r\nAuthorization: NTLM x\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\n\r\n"),
        (true, b"GET /b HTTP/1.1\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\n\r\n"),
    ];
    for n in 0..60 {
        let from = (ip(PC), net.ephemeral());
        net.talk(f64::from(n * n) * 0.9, from, (ip("192.168.1.52"), 80), 0.02, &ntlm);
    }
    quiet(net);
}

#[test]
fn very_many_short_connections() {
    let mut net = Net::new();
    for n in 0..8_000u32 {
        let from = (ip("127.0.0.1"), 1_024 + (n % 60_000) as u16);
        net.talk(
            f64::from(n) * 0.001,
            from,
            (ip("127.0.0.1"), 9_900),
            0.000_1,
            &[(true, b"ping"), (false, b"ping")],
        );
    }
    quiet(net);
}

#[test]
fn retries_when_a_service_restarts() {
    let mut net = Net::new();
    for client in 1..=20u32 {
        for n in 0..8 {
            let from = (host("192.168.1.0", client), net.ephemeral());
            net.refused(f64::from(1 << n) + f64::from(client) * 0.1, from, (ip("192.168.1.50"), 5_432));
        }
    }
    quiet(net);
}

#[test]
fn idle_connections_of_a_browser_and_a_message_queue() {
    let mut net = Net::new();
    for n in 0..80u16 {
        // Opened ahead, nothing said.
        net.open(f64::from(n) * 0.1, (ip(PC), 30_000 + n), (ip("203.0.113.5"), 443));
        // Subscribed, and waiting for messages.
        let (client, server) = ((ip(PC), 40_000 + n), (ip("203.0.113.6"), 5_672));
        net.open(f64::from(n) * 0.1, client, server);
        net.tcp(f64::from(n) * 0.1 + 0.1, client, server, ACK | PSH, 2, 101, b"subscribe");
        net.tcp(f64::from(n) * 0.1 + 0.2, server, client, ACK | PSH, 101, 11, b"ok");
    }
    net.ping(60.0, ip(PC), ip("192.168.1.1"), 1, true);
    quiet(net);
}

#[test]
fn leases_clusters_and_gateways_on_the_link() {
    let mut net = Net::new();
    let (one, two, gateway) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 0xfe]);
    let address = ip("192.168.1.77");
    // A lease that moves on, a cluster that fails over and says so five times.
    net.arp(0.0, true, one, address, ip("192.168.1.1"));
    net.arp(900.0, true, two, address, ip("192.168.1.1"));
    for n in 0..5 {
        net.arp(1_000.0, true, one, ip("192.168.1.78"), ip("192.168.1.1"));
        net.arp(1_001.0 + f64::from(n), true, two, ip("192.168.1.78"), ip("192.168.1.78"));
    }
    // A gateway that asks for whom it has packets for, in no order.
    let mut random = Random::new(8);
    for n in 0..600 {
        net.arp(
            2_000.0 + f64::from(n) * 2.0,
            false,
            gateway,
            ip("192.168.1.1"),
            host("192.168.1.0", random.below(254) as u32 + 1),
        );
    }
    quiet(net);
}

#[test]
fn a_service_under_load() {
    // 400 connections a second, one in twelve lost to a full queue.
    let mut net = Net::new();
    let mut random = Random::new(10);
    for n in 0..4_000u32 {
        let from = (host("20.0.0.0", random.below(5_000) as u32), 1_024 + random.below(60_000) as u16);
        let at = f64::from(n) * 0.002_5;
        if random.below(12) == 0 {
            net.tcp(at, from, (ip("203.0.113.5"), 80), SYN, 1, 0, b"");
        } else {
            net.talk(
                at,
                from,
                (ip("203.0.113.5"), 80),
                0.01,
                &[(true, b"GET / HTTP/1.1\r\n\r\n"), (false, b"HTTP/1.1 200 OK\r\n\r\n")],
            );
        }
    }
    quiet(net);
}
