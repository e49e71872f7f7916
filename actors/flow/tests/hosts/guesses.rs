//! Guessing at services of every sort, fast and slow, at one server and at many; and ordinary programs that look like it.

use crate::attacks::another;
use crate::bounded::record;
use crate::net::{Net, Random, host, ip, told};
use tidegate_flow::table::SECOND;
use tidegate_flow::{Detectors, FlowRecord, Ip};

const EVIL: &str = "10.0.0.66";
const VICTIM: &str = "10.0.0.10";
const APP: &str = "10.0.0.30";

type Lines<'a> = &'a [(bool, &'a [u8])];

/// How sessions follow each other.
#[derive(Clone, Copy)]
struct Pace {
    count: u32,
    /// From the beginning of one to that of the next, s.
    every: f64,
    /// Between two lines, s.
    step: f64,
    server_ends: bool,
}

const HYDRA: Pace = Pace { count: 40, every: 0.4, step: 0.1, server_ends: false };

/// Sessions of one client at one service; `~` in what it says is another number each time.
fn sessions(net: &mut Net, from: &str, to: (Ip, u16), pace: Pace, lines: Lines<'_>) {
    let start = net.sent.iter().map(|sent| sent.at).fold(0.0, f64::max);
    for n in 0..pace.count {
        let from = (ip(from), net.ephemeral());
        let number = |&(out, line): &(bool, &[u8])| (out, if out { another(line, n) } else { line.to_vec() });
        let said: Vec<_> = lines.iter().map(number).collect();
        let said: Vec<(bool, &[u8])> = said.iter().map(|(out, line)| (*out, &line[..])).collect();
        net.dialogue(start + f64::from(n) * pace.every, from, to, pace.step, &said, pace.server_ends);
    }
}

#[track_caller]
fn guessed(port: u16, pace: Pace, lines: Lines<'_>, method: &str) {
    let mut net = Net::new();
    sessions(&mut net, EVIL, (ip(VICTIM), port), pace, lines);
    let alerts = net.alerts();
    let told: Vec<_> = alerts.iter().map(|alert| (alert.kind.name(), alert.source, alert.method)).collect();
    assert_eq!(told, [("brute-force", ip(EVIL), method)], "port {port}");
}

#[track_caller]
fn ordinary(port: u16, pace: Pace, lines: Lines<'_>) {
    let mut net = Net::new();
    sessions(&mut net, APP, (ip(VICTIM), port), pace, lines);
    assert_eq!(told(net), [], "port {port}");
}

const FTP: Lines<'_> = &[
    (false, b"220 ready FTP\r\n"),
    (true, b"USER root\r\n"),
    (false, b"331 Password\r\n"),
    (true, b"PASS guess~\r\n"),
    (false, b"530 Login incorrect.\r\n"),
];
const VNC: Lines<'_> = &[
    (false, b"RFB 003.008\n"),
    (true, b"RFB 003.008\n"),
    (false, b"\x01\x02"),
    (true, b"\x02"),
    (false, b"0123456789abcdef"),
    (true, b"fedcba987654~"),
    (false, b"\0\0\0\x01\0\0\0\x16Authentication failure"),
];
const MYSQL_GREETING: &[u8] = b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0saltsalt\0\xff\xff";

#[test]
fn refusals_in_clear_of_every_service() {
    let ends = Pace { server_ends: true, ..HYDRA };
    guessed(5_900, ends, VNC, "vnc");
    guessed(5_901, ends, VNC, "vnc");
    // A server that has had enough says so at once.
    let enough: Lines<'_> = &[
        (false, b"RFB 003.003\n"),
        (true, b"RFB 003.003\n"),
        (false, b"\0\0\0\0\0\0\0\x1aToo many security failures"),
    ];
    guessed(5_900, ends, enough, "vnc");
    let mssql: Lines<'_> = &[
        (true, b"\x12\x01\0\x10\0\0\0\0\0\0\x0a\0\x06\x01\0\xff"),
        (false, b"\x04\x01\0\x10\0\0\0\0\0\0\x0a\0\x06\x01\0\xff"),
        (true, b"\x10\x01\0\x20~ sa"),
        (false, b"\x04\x01\0\x60\0\x35\x01\0\xaa\x4c\0\x18\x48\0\0\x01\x0eLogin failed for user 'sa'."),
    ];
    guessed(1_433, ends, mssql, "mssql");
    let redis: Lines<'_> = &[
        (true, b"*2\r\n$4\r\nAUTH\r\n$4\r\n~\r\n"),
        (false, b"-WRONGPASS invalid username-password pair\r\n"),
    ];
    guessed(6_379, HYDRA, redis, "redis");
    let kerberos: Lines<'_> = &[
        (true, b"\0\0\0\xa0\x6a\x81\x9d user~"),
        (false, b"\0\0\0\x40\x7e\x3e\x30\x3c\xa0\x03\x02\x01\x05\xa6\x03\x02\x01\x18"),
    ];
    guessed(88, HYDRA, kerberos, "kerberos");
    // As Active Directory writes lengths.
    let ldap: Lines<'_> = &[
        (true, b"0\x30\x02\x01\x01\x60 cn=admin~"),
        (false, b"0\x84\0\0\0\x68\x02\x01\x01\x61\x84\0\0\0\x5f\x0a\x01\x31\x04\0\x04\x5880090308"),
    ];
    guessed(389, HYDRA, ldap, "ldap");
    let mysql: Lines<'_> = &[
        (false, MYSQL_GREETING),
        (true, b"\x20\0\0\x01root ~"),
        (false, b"\x48\0\0\x02\xff\x15\x04#28000Access denied"),
    ];
    guessed(33_060, ends, mysql, "mysql");
    let postgres: Lines<'_> = &[
        (true, b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0"),
        (false, b"R\0\0\0\x0c\0\0\0\x05salt"),
        (true, b"p\0\0\0\x28md5~"),
        (false, b"E\0\0\0\x60SFATAL\0C28P01\0Mpassword authentication failed\0\0"),
    ];
    guessed(54_320, ends, postgres, "postgres");
    let imap: Lines<'_> = &[
        (false, b"* OK ready\r\n"),
        (true, b"a1 LOGIN user pass~\r\n"),
        (false, b"a1 NO [AUTHENTICATIONFAILED] failed.\r\n"),
    ];
    guessed(143, HYDRA, imap, "imap");
    let smtp: Lines<'_> = &[
        (false, b"220 mail ESMTP\r\n"),
        (true, b"AUTH LOGIN dXNlcg==\r\n"),
        (false, b"334 UGFzc3dvcmQ6\r\n"),
        (true, b"cGFz~\r\n"),
        (false, b"535 5.7.8 Error: authentication failed\r\n"),
    ];
    guessed(587, HYDRA, smtp, "smtp");
    let digest: Lines<'_> = &[
        (true, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"),
        (false, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
        (true, b"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Digest response=~\r\n\r\n"),
        (false, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    ];
    guessed(80, HYDRA, digest, "http");
    // WinRM; the head comes in two segments.
    let winrm: Lines<'_> = &[
        (true, b"POST /wsman HTTP/1.1\r\nHost: x\r\n"),
        (true, b"Authorization: Basic ~\r\nContent-Length: 0\r\n\r\n"),
        (false, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    ];
    guessed(5_985, HYDRA, winrm, "http");
    let fields: Lines<'_> = &[
        (true, b"GET /brute/?username=admin&password=p~&Login=Login HTTP/1.1\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    guessed(80, HYDRA, fields, "http form");
    let form: Lines<'_> = &[
        (true, b"POST /index.php HTTP/1.1\r\nHost: x\r\n\r\n"),
        (true, b"name=admin&password=p~"),
        (false, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    guessed(80, HYDRA, form, "http form");
}

/// A protocol that nobody knows: a greeting, a name and password, a refusal, and the server hangs up.
const UNKNOWN: Lines<'_> = &[(false, b"hello, who is there?\n"), (true, b"root secret~\n"), (false, b"no\n")];
/// What TLS shows of a mailbox that is refused.
const TLS: Lines<'_> = &[
    (true, &[22, 3, 1, 2, 0, 1, 9, 9, 9]),
    (false, &[22, 3, 3, 9, 9]),
    (true, &[20, 3, 3, 0, 1, 1]),
    (false, &[23, 3, 3, 0, 60, 9]),
    (true, &[23, 3, 3, 0, 40, 9]),
    (false, &[23, 3, 3, 0, 70, 9]),
];

#[test]
fn short_sessions_of_an_unknown_service() {
    let serial = Pace { count: 60, every: 0.5, step: 0.1, server_ends: true };
    guessed(7_777, serial, UNKNOWN, "unknown");
    // Sixteen at a time, each of which waits two seconds for its refusal.
    guessed(7_777, Pace { count: 64, every: 0.13, step: 0.7, server_ends: true }, UNKNOWN, "unknown");
    guessed(993, Pace { count: 64, every: 0.2, step: 0.5, server_ends: false }, TLS, "imap");
}

#[test]
fn short_sessions_that_are_no_guesses() {
    let serial = Pace { count: 300, every: 0.5, step: 0.1, server_ends: true };
    // A health check of the same service every five seconds.
    ordinary(7_777, Pace { every: 5.0, ..serial }, UNKNOWN);
    // A program that says what it has to say, and hangs up itself.
    ordinary(
        7_777,
        Pace { server_ends: false, ..serial },
        &[UNKNOWN[0], (true, b"log ~\n"), (false, b"ok\n")],
    );
    // A question and its answer; names over TCP; HTTP/1.0; a page that asks for a name each time.
    ordinary(7_777, serial, &[(true, b"what of ~?\n"), (false, b"nothing\n")]);
    ordinary(53, serial, &[(true, b"\0\x1d~ question"), (false, b"\0\x1d answer")]);
    let page: Lines<'_> =
        &[(true, b"GET /~ HTTP/1.0\r\n\r\n"), (false, b"HTTP/1.0 404 Not Found\r\n\r\n"), (false, b"gone")];
    ordinary(80, serial, page);
    let closed: Lines<'_> =
        &[(true, b"GET /health HTTP/1.1\r\n\r\n"), (false, b"HTTP/1.1 401 Unauthorized\r\n\r\n")];
    ordinary(8_081, serial, closed);
    ordinary(8_081, serial, &[closed[0], (false, b"HTTP/1.1 403 Forbidden\r\n\r\n")]);
    // A mail client with three accounts, once a minute.
    ordinary(993, Pace { count: 60, every: 20.0, step: 0.05, server_ends: false }, TLS);
    // A site that connects to its database for each page, and one that is let in by a directory.
    let mysql: Lines<'_> = &[
        (false, MYSQL_GREETING),
        (true, b"\x20\0\0\x01app"),
        (false, b"\x07\0\0\x02\0\0\0\x02\0\0\0"),
        (true, b"\x0e\0\0\0\x03select ~"),
        (false, b"\x01\0\0\x01\x01\x20\0\0\x02"),
    ];
    ordinary(3_306, Pace { every: 0.1, step: 0.01, ..serial }, mysql);
    let ldap: Lines<'_> = &[
        (true, b"0\x30\x02\x01\x01\x60 cn=user~"),
        (false, b"0\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0"),
    ];
    ordinary(389, Pace { every: 0.1, step: 0.01, ..serial }, ldap);
}

#[test]
fn desktops_guessed_and_checked() {
    let asks: (bool, &[u8]) = (true, &[3, 0, 0, 19, 14, 0xe0, 0, 0]);
    let says: (bool, &[u8]) = (false, &[3, 0, 0, 19, 14, 0xd0]);
    let guess: Lines<'_> = &[asks, says, (true, &[22; 900]), (false, &[22; 1_200]), (true, &[23; 300])];
    guessed(3_389, Pace { count: 20, every: 1.5, step: 0.2, server_ends: true }, guess, "rdp");
    // A check whether somebody listens, and somebody who looks in at work now and then.
    ordinary(3_389, Pace { count: 300, every: 2.0, step: 0.05, server_ends: false }, &[asks, says]);
    let work: Lines<'_> = &[asks, says, (true, &[22; 900]), (false, &[22; 1_200]), (false, &[23; 90_000])];
    ordinary(3_389, Pace { count: 30, every: 15.0, step: 0.2, server_ends: false }, work);
}

#[test]
fn one_password_at_many_servers() {
    let refusal: Vec<u8> = {
        let mut refusal = vec![0, 0, 0, 72, 0xfe, b'S', b'M', b'B', 64, 0, 0, 0, 0x6d, 0, 0, 0xc0, 1, 0];
        refusal.resize(76, 0);
        refusal
    };
    let smb: Lines<'_> = &[(true, b"\0\0\0\x48\xfeSMB@\0\0\0\0\0\x01\0"), (false, &refusal)];
    let spray = |servers: u32, each: u32, lines: Lines<'_>, port: u16| {
        let mut net = Net::new();
        for n in 0..servers {
            let pace = Pace { count: each, every: 3.0, step: 0.1, server_ends: false };
            sessions(&mut net, EVIL, (host("10.0.0.100", n), port), pace, lines);
        }
        told(net)
    };
    let brute = [(EVIL.to_owned(), "brute-force")];
    assert_eq!(spray(20, 1, smb, 445), brute);
    assert_eq!(spray(7, 3, FTP, 21), brute);
    let mut reply = vec![0; 600];
    reply.extend([0, 0, 0, 12, 10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let ssh: Lines<'_> = &[
        (false, b"SSH-2.0-OpenSSH_9.6\r\n"),
        (true, b"SSH-2.0-libssh\r\n"),
        (false, &[1; 1_000]),
        (true, &[1; 900]),
        (false, &reply),
        (true, &[2; 150]),
        (false, &[3; 44]),
    ];
    assert_eq!(spray(20, 1, ssh, 22), brute);
    // A person whose password has run out is refused by a few servers, a few times each.
    assert_eq!(spray(4, 3, smb, 445), []);
    assert_eq!(spray(12, 1, smb, 445), []);
}

#[test]
fn patient_guesses_and_outdated_passwords() {
    // One in two minutes; nobody is let in. The same from a program that never learns, faster: always the same password.
    guessed(21, Pace { count: 45, every: 120.0, step: 0.5, server_ends: false }, FTP, "ftp");
    let outdated: Vec<_> =
        FTP.iter().map(|&(out, line)| (out, if out { &b"PASS old\r\n"[..] } else { line })).collect();
    ordinary(21, Pace { count: 200, every: 20.0, step: 0.1, server_ends: false }, &outdated);
    // A loop is one, whatever it says.
    guessed(21, Pace { count: 15, every: 1.5, step: 0.1, server_ends: false }, &outdated, "ftp");
    let basic: Lines<'_> = &[
        (true, b"GET /feed HTTP/1.1\r\nAuthorization: Basic eDp5\r\n\r\n"),
        (false, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    ];
    ordinary(80, Pace { count: 200, every: 20.0, step: 0.1, server_ends: false }, basic);
    // A camera that wants its password with each picture.
    let camera: Lines<'_> = &[
        (true, b"GET /snapshot.cgi?user=admin&pwd=x HTTP/1.1\r\n\r\n"),
        (false, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\njpeg"),
    ];
    ordinary(80, Pace { count: 300, every: 1.0, step: 0.1, server_ends: false }, camera);
}

/// Sessions of a flow log, so long apart, in seconds.
fn logged(port: u16, every: f64, shape: (u64, u64, u64), history: &str) -> Vec<(Ip, &'static str)> {
    let mut detectors = Detectors::default();
    let mut random = Random::new(7);
    let (sent, received, ms) = shape;
    for n in 0..80u64 {
        let start = 1_000 * SECOND + (n as f64 * every * 1e9) as u64;
        let mut flow: FlowRecord = record(n + 1, start, ip(EVIL), ip(VICTIM), port, true);
        flow.last_ns = start + ms * 1_000_000;
        flow.history = history.into();
        (flow.sent.bytes, flow.received.bytes) = (sent + random.below(8), received);
        detectors.logged(&flow);
    }
    detectors.alerts().iter().map(|alert| (alert.source, alert.kind.name())).collect()
}

#[test]
fn guesses_in_a_flow_log() {
    let brute = [(ip(EVIL), "brute-force")];
    for (port, shape) in [(3_306, (110, 175, 60)), (5_900, (29, 72, 900)), (5_432, (90, 120, 40))] {
        assert_eq!(logged(port, 0.2, shape, "ShAdDafF"), brute, "{port}");
        // Who hangs up himself was let in; who waits between two sessions checks something.
        assert_eq!(logged(port, 0.2, shape, "ShAdDaFf"), [], "{port}");
        assert_eq!(logged(port, 5.0, shape, "ShAdDafF"), [], "{port}");
    }
    for (port, shape) in [(445, (900, 700, 80)), (143, (40, 120, 2_000)), (21, (28, 110, 3_000))] {
        assert_eq!(logged(port, 0.4, shape, "ShADadFf"), brute, "{port}");
        assert_eq!(logged(port, 20.0, shape, "ShADadFf"), [], "{port}");
    }
    // Mail between servers and directories look the same, whatever happens.
    assert_eq!(logged(25, 0.2, (90, 250, 100), "ShAdDafF"), []);
    assert_eq!(logged(389, 0.2, (90, 22, 100), "ShADdafF"), []);
}
