//! Guessing that hides: behind TLS begun within a service, among many clients, over many servers, at regular times. Beside each the ordinary traffic
//! that looks like it.

use crate::attacks::another;
use crate::net::{Net, Random, host, ip, told};
use tidegate_flow::Ip;

const EVIL: &str = "10.0.0.66";
const VICTIM: &str = "10.0.0.10";

type Lines<'a> = &'a [(bool, &'a [u8])];

/// A session; `~` in what the client says is a number.
fn session(
    net: &mut Net,
    at: f64,
    from: Ip,
    to: (Ip, u16),
    lines: Lines<'_>,
    number: u32,
    server_ends: bool,
) {
    let from = (from, net.ephemeral());
    let said: Vec<_> = lines
        .iter()
        .map(|&(out, line)| (out, if out { another(line, number) } else { line.to_vec() }))
        .collect();
    let said: Vec<(bool, &[u8])> = said.iter().map(|(out, line)| (*out, &line[..])).collect();
    net.dialogue(at, from, to, 0.08, &said, server_ends);
}

/// What TLS shows once it was begun within something else.
const HELLO: (bool, &[u8]) = (true, &[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
const CERTIFICATE: [u8; 2_800] = [22; 2_800];

/// STARTTLS in the words of a service, and then what nobody can read.
fn upgraded<'a>(before: &[(bool, &'a [u8])], asks: &'a [u8], says: &'a [u8]) -> Vec<(bool, &'a [u8])> {
    let mut lines = before.to_vec();
    lines.extend([HELLO, (false, &CERTIFICATE[..]), (true, &[22; 120]), (false, &[20; 60])]);
    lines.extend([(true, asks), (false, says)]);
    lines
}

const SECRET: &[u8] = &[23, 3, 3, 0, 60, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

#[test]
fn guesses_behind_tls_that_begins_within_a_service() {
    let imap: Lines<'_> =
        &[(false, b"* OK ready\r\n"), (true, b"a STARTTLS\r\n"), (false, b"a OK go on\r\n")];
    let pop: Lines<'_> = &[(false, b"+OK ready\r\n"), (true, b"STLS\r\n"), (false, b"+OK go on\r\n")];
    let smtp: Lines<'_> = &[
        (false, b"220 mail ESMTP\r\n"),
        (true, b"EHLO x\r\n"),
        (false, b"250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
        (true, b"STARTTLS\r\n"),
        (false, b"220 go on\r\n"),
    ];
    let ftp: Lines<'_> = &[(false, b"220 ready FTP\r\n"), (true, b"AUTH TLS\r\n"), (false, b"234 go on\r\n")];
    let mysql: Lines<'_> = &[
        (false, b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0saltsalt\0\xff\xff"),
        (true, b"\x20\0\0\x01\x85\xae\xff\x19\0\0\0\x01\xff"),
    ];
    let postgres: Lines<'_> = &[(true, b"\0\0\0\x08\x04\xd2\x16\x2f"), (false, b"S")];
    for (port, before, method) in [
        (143, imap, "imap"),
        (110, pop, "pop3"),
        (587, smtp, "smtp"),
        (21, ftp, "ftp"),
        (3_306, mysql, "mysql"),
        (54_321, postgres, "postgres"),
    ] {
        let lines = upgraded(before, SECRET, &[23; 70]);
        let guess = |every: f64, server_ends: bool| {
            let mut net = Net::new();
            for n in 0..50 {
                session(&mut net, f64::from(n) * every, ip(EVIL), (ip(VICTIM), port), &lines, n, server_ends);
            }
            net.alerts().iter().map(|a| (a.kind.name(), a.source, a.method)).collect::<Vec<_>>()
        };
        assert_eq!(guess(1.0, true), [("brute-force", ip(EVIL), method)], "{port}");
        // A client that looks in every ten seconds.
        assert_eq!(guess(10.0, true), [], "{port}");
        // A database's client hangs up itself; of mailboxes nobody knows who ends.
        let told = guess(1.0, false).len();
        assert_eq!(told, usize::from(!matches!(method, "mysql" | "postgres")), "{port}");
    }
    // Mail between servers: one session after the other, as alike as mails are that say the same.
    let lines = upgraded(smtp, SECRET, &[23; 70]);
    let mut net = Net::new();
    for n in 0..200 {
        session(&mut net, f64::from(n) * 0.9, ip("203.0.113.25"), (ip(VICTIM), 25), &lines, n, false);
    }
    assert_eq!(told(net), []);
    // People's programs that send and fetch mail in TLS, of all lengths.
    let mut net = Net::new();
    let mut random = Random::new(8);
    for n in 0..300u32 {
        let asks = vec![23; 100 + random.below(3_000) as usize];
        let says = vec![23; 100 + random.below(9_000) as usize];
        let lines = upgraded(imap, &asks, &says);
        let from = host("10.0.0.100", random.below(20) as u32);
        session(&mut net, f64::from(n) * 0.7, from, (ip(VICTIM), 143), &lines, n, false);
    }
    assert_eq!(told(net), []);
}

const FTP: Lines<'_> = &[
    (false, b"220 ready FTP\r\n"),
    (true, b"USER root\r\n"),
    (false, b"331 Password\r\n"),
    (true, b"PASS guess~\r\n"),
    (false, b"530 Login incorrect.\r\n"),
];
const FTP_IN: Lines<'_> = &[
    (false, b"220 ready FTP\r\n"),
    (true, b"USER a\r\n"),
    (false, b"331 Password\r\n"),
    (true, b"PASS right\r\n"),
    (false, b"230 Welcome.\r\n"),
];

fn ssh_refused() -> Vec<(bool, &'static [u8])> {
    const KEYS: [u8; 616] = {
        let mut keys = [0; 616];
        (keys[603], keys[604], keys[605]) = (12, 10, 21);
        keys
    };
    vec![
        (false, b"SSH-2.0-OpenSSH_9.6\r\n"),
        (true, b"SSH-2.0-libssh\r\n"),
        (false, &[1; 1_000]),
        (true, &[1; 900]),
        (false, &KEYS),
        (true, &[2; 150]),
        (false, &[3; 44]),
        (false, &[3; 80]),
    ]
}

#[test]
fn guesses_of_many_clients_at_one_server() {
    let ssh = ssh_refused();
    // Forty clients, two tries each within five minutes.
    let many = |port: u16, lines: Lines<'_>, clients: u32| {
        let mut net = Net::new();
        for n in 0..2 * clients {
            let from = host("198.51.100.0", n * 7 % clients);
            session(&mut net, f64::from(n) * 3.5, from, (ip(VICTIM), port), lines, n, false);
        }
        net.alerts().iter().map(|a| (a.kind.name(), a.source, a.spoofed, a.port)).collect::<Vec<_>>()
    };
    assert_eq!(many(21, FTP, 40), [("brute-force", ip(VICTIM), true, Some(21))]);
    assert_eq!(many(22, &ssh, 40), [("brute-force", ip(VICTIM), true, Some(22))]);
    assert_eq!(many(21, FTP, 15), []);
    // A server of three hundred people, of whom one in ten mistypes once.
    let mut net = Net::new();
    for n in 0..300u32 {
        let at = f64::from(n) * 1.5;
        let from = host("10.0.1.0", n);
        if n % 10 == 0 {
            session(&mut net, at, from, (ip(VICTIM), 21), FTP, n, false);
        }
        session(&mut net, at + 5.0, from, (ip(VICTIM), 21), FTP_IN, n, false);
    }
    assert_eq!(told(net), []);
    // The same server an hour later: its directory is gone, and everybody is refused, twice.
    let mut net = Net::new();
    for n in 0..100u32 {
        let from = host("10.0.1.0", n);
        session(&mut net, f64::from(n), from, (ip(VICTIM), 21), FTP_IN, n, false);
        session(&mut net, 3_600.0 + f64::from(n) * 2.0, from, (ip(VICTIM), 21), FTP, n, false);
        session(&mut net, 3_610.0 + f64::from(n) * 2.0, from, (ip(VICTIM), 21), FTP, n + 500, false);
    }
    assert_eq!(told(net), []);
    // Forty strangers among two thousand logins of thirty people.
    let mut net = Net::new();
    for n in 0..540u32 {
        let from = host("10.0.1.0", n % 30);
        session(&mut net, f64::from(n), from, (ip(VICTIM), 21), FTP_IN, n, false);
        if n % 10 == 0 {
            let from = host("198.51.100.0", n / 10 % 50);
            session(&mut net, f64::from(n) + 0.5, from, (ip(VICTIM), 21), FTP, n, false);
        }
    }
    assert_eq!(told(net), [(VICTIM.to_owned(), "brute-force")]);
}

#[test]
fn guesses_over_servers_one_at_a_time() {
    let ssh = ssh_refused();
    let spray = |servers: u32, every: f64, rounds: u32| {
        let mut net = Net::new();
        for n in 0..servers * rounds {
            let to = (host("10.0.2.0", n % servers), 22);
            session(&mut net, f64::from(n) * every, ip(EVIL), to, &ssh, n, false);
        }
        let mut told = told(net);
        told.dedup();
        told
    };
    // One try in four minutes, over twelve servers: each of them sees one in forty-eight.
    assert_eq!(spray(12, 240.0, 4), [(EVIL.to_owned(), "brute-force")]);
    // A job with a key that was taken away, at four servers, every half an hour.
    assert_eq!(spray(4, 450.0, 6), []);
}

#[test]
fn guesses_at_regular_times_are_no_calls_home() {
    let ssh = ssh_refused();
    // A server outside, one try a minute: fourteen are too few for what is slow, and as regular as an implant.
    let slow = |count: u32, every: f64, lines: Lines<'_>, port: u16| {
        let mut net = Net::new();
        for n in 0..count {
            session(&mut net, f64::from(n) * every, ip(EVIL), (ip("203.0.113.9"), port), lines, n, true);
        }
        // What pauses for so long is more than one episode.
        let mut told: Vec<_> = net.alerts().iter().map(|a| (a.kind.name(), a.source, a.method)).collect();
        told.dedup();
        told
    };
    assert_eq!(slow(14, 65.0, &ssh, 22), [("brute-force", ip(EVIL), "ssh")]);
    assert_eq!(slow(14, 65.0, &ssh, 2_222), [("brute-force", ip(EVIL), "ssh")]);
    assert_eq!(slow(60, 65.0, FTP, 21), [("brute-force", ip(EVIL), "ftp")]);
    let form: Lines<'_> = &[
        (true, b"POST /login HTTP/1.1\r\nContent-Length: 20\r\n\r\nlog=admin&pwd=s~"),
        (false, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    assert_eq!(slow(60, 2.0, form, 80), [("brute-force", ip(EVIL), "http form")]);
    let desktop: Lines<'_> = &[
        (true, &[3, 0, 0, 19, 14, 0xe0, 0, 0]),
        (false, &[3, 0, 0, 19, 14, 0xd0]),
        (true, &[22; 900]),
        (false, &[22; 1_200]),
    ];
    assert_eq!(slow(40, 5.0, desktop, 3_389), [("brute-force", ip(EVIL), "rdp")]);
    // Calls home are: also where they say something to a page of that name, now and then.
    assert_eq!(slow(40, 60.0, form, 80), [("beacon", ip(EVIL), "intervals")]);
    let shell: Lines<'_> = &[(true, b"hello again"), (false, b"nothing to do")];
    assert_eq!(slow(40, 60.0, shell, 4_444), [("beacon", ip(EVIL), "intervals")]);
    // And sessions of SSH at regular times that are let in.
    let mut into = ssh.clone();
    into.extend([(false, &[3; 3_000][..]), (true, &[2; 300][..])]);
    assert_eq!(slow(40, 60.0, &into, 22), [("beacon", ip(EVIL), "intervals")]);
}

#[test]
fn cameras_telephones_and_documents() {
    let camera: Lines<'_> = &[
        (true, b"DESCRIBE rtsp://10.0.0.10/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        (false, b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n"),
        (true, b"DESCRIBE rtsp://10.0.0.10/1 RTSP/1.0\r\nCSeq: 2\r\nAuthorization: Basic YWRtaW46~\r\n\r\n"),
        (false, b"RTSP/1.0 401 Unauthorized\r\nCSeq: 2\r\n\r\n"),
    ];
    let mongo_asks: &[u8] = b"\x20\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0saslStart~";
    let mut asks = mongo_asks.to_vec();
    asks[0] = another(mongo_asks, 0).len() as u8;
    let mongo: Vec<(bool, &[u8])> = vec![
        (true, &asks),
        (
            false,
            b"\x60\0\0\0\x02\0\0\0\x01\0\0\0\xdd\x07\0\0\0\0\0\0\0codeName\0\x15\0\0\0AuthenticationFailed\0",
        ),
    ];
    for (port, lines, method) in [(554, camera, "rtsp"), (27_017, &mongo[..], "mongodb")] {
        let mut net = Net::new();
        for n in 0..30 {
            session(&mut net, f64::from(n) * 0.9, ip(EVIL), (ip(VICTIM), port), lines, n, true);
        }
        let told: Vec<_> = net.alerts().iter().map(|a| (a.kind.name(), a.source, a.method)).collect();
        assert_eq!(told, [("brute-force", ip(EVIL), method)]);
    }
    // A telephone that registers: asked who it is, and let in; so often, so far apart, and with what password.
    let register = |count: u32, every: f64, works: bool| {
        let mut net = Net::new();
        for n in 0..count {
            let (at, phone, server) = (f64::from(n) * every, (ip(EVIL), 5_062), (ip(VICTIM), 5_060));
            net.udp(at, phone, server, format!("REGISTER sip:x SIP/2.0\r\nCSeq: {n}\r\n\r\n").as_bytes());
            net.udp(at + 0.01, server, phone, b"SIP/2.0 100 Trying\r\n\r\n");
            net.udp(at + 0.02, server, phone, b"SIP/2.0 401 Unauthorized\r\n\r\n");
            let again =
                format!("REGISTER sip:x SIP/2.0\r\nAuthorization: Digest response=\"{n:032x}\"\r\n\r\n");
            net.udp(at + 0.03, phone, server, again.as_bytes());
            let says: &[u8] =
                if works { b"SIP/2.0 200 OK\r\n\r\n" } else { b"SIP/2.0 403 Forbidden\r\n\r\n" };
            net.udp(at + 0.04, server, phone, says);
        }
        net.alerts().iter().map(|a| (a.kind.name(), a.source, a.method)).collect::<Vec<_>>()
    };
    assert_eq!(register(40, 0.5, false), [("brute-force", ip(EVIL), "sip")]);
    assert_eq!(register(400, 30.0, true), []);
    assert_eq!(register(60, 60.0, false), []);
}
