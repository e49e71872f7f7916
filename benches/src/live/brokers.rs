//! The same work through brokers that people would otherwise take: NATS and Redis Streams, where their servers are installed.
//!
//! Both get what flatters them: frames of 64 KiB, which they pass on unread, and a reader that computes the bars. They run without
//! persistence and without encryption, over TCP on loopback, which Tidegate's side of the comparison does not.

use super::delivery::{Pace, histogram};
use super::{Outcome, Size, nanos, party};
use crate::hand::FullA;
use crate::measure::Measurement;
use crate::w1::{W1, generate};
use hdrhistogram::Histogram;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_engine::Event;
use zerocopy::{FromBytes, IntoBytes};

/// Events of a message: 64 KiB.
const MESSAGE_EVENTS: usize = 2_048;
/// Most events of a run: Redis keeps them all in memory.
const EVENTS_MAX: usize = 8_000_000;
/// Messages a second of the latency figures: as many as there are results in those of [`super::delivery`].
const RATE: u64 = 10_000;
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Broker {
    Nats,
    Redis,
}

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
        }
    }

    fn is_installed(self) -> bool {
        let mut asked = Command::new(self.program());
        asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    }
}

/// A server of its own on a port of its own, gone when this is dropped.
struct Running {
    broker: Broker,
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(broker: Broker) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(broker.program());
        match broker {
            Broker::Nats => {
                let config = folder.path().join("nats.conf");
                // Its defaults end a connection that is 64 MB behind.
                let port = address.port();
                let text = format!(
                    "listen: 127.0.0.1:{port}\nmax_payload: 1MB\nmax_pending: 2GB\nwrite_deadline: \"60s\"\n"
                );
                std::fs::write(&config, text)?;
                command.arg("-c").arg(config);
            }
            Broker::Redis => {
                command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
                command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(folder.path());
            }
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let running = Self { broker, address, process, _folder: folder };
        running.connect()?;
        Ok(running)
    }

    fn connect(&self) -> Outcome<TcpStream> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) if start.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    fn writer(&self) -> Outcome<Writer> {
        let stream = self.connect()?;
        let mut writer = Writer { broker: self.broker, stream, bytes: Vec::new() };
        if self.broker == Broker::Nats {
            writer.stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")?;
            // What the server says is not read beyond this: INFO and PONG.
            let mut heard = [0; 4_096];
            let mut text = Vec::new();
            while !text.windows(4).any(|four| four == b"PONG") {
                let count = writer.stream.read(&mut heard)?;
                text.extend_from_slice(&heard[..count]);
            }
        }
        Ok(writer)
    }

    fn reader(&self) -> Outcome<Reader> {
        let stream = self.connect()?;
        let mut reader = Reader {
            broker: self.broker,
            input: BufReader::with_capacity(1 << 18, stream),
            left: 0,
            last: "0".into(),
            line: Vec::new(),
        };
        if self.broker == Broker::Nats {
            let hello = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB t 1\r\nPING\r\n";
            reader.input.get_mut().write_all(hello)?;
            while reader.line()? != b"PONG" {}
        }
        Ok(reader)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Writer {
    broker: Broker,
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Writer {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.bytes.clear();
        let length = message.len();
        match self.broker {
            Broker::Nats => write!(self.bytes, "PUB t {length}\r\n")?,
            Broker::Redis => {
                write!(self.bytes, "*5\r\n$4\r\nXADD\r\n$1\r\nt\r\n$1\r\n*\r\n$1\r\nd\r\n${length}\r\n")?;
            }
        }
        self.bytes.extend_from_slice(message);
        self.bytes.extend_from_slice(b"\r\n");
        self.stream.write_all(&self.bytes)?;
        Ok(())
    }
}

struct Reader {
    broker: Broker,
    input: BufReader<TcpStream>,
    /// Redis: messages left of the last answer.
    left: usize,
    /// Redis: the last message's id.
    last: String,
    line: Vec<u8>,
}

impl Reader {
    fn line(&mut self) -> Outcome<&[u8]> {
        self.line.clear();
        if self.input.read_until(b'\n', &mut self.line)? == 0 {
            return Err(format!("{} ended the connection", self.broker.name()).into());
        }
        Ok(self.line.strip_suffix(b"\r\n").unwrap_or(&self.line))
    }

    /// A number behind a mark: `*3`, `$12`.
    fn count(&mut self) -> Outcome<usize> {
        let text = String::from_utf8_lossy(self.line()?).into_owned();
        text.get(1..)
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| format!("not a count: {text}").into())
    }

    fn bulk(&mut self) -> Outcome<String> {
        self.count()?;
        Ok(String::from_utf8_lossy(self.line()?).into_owned())
    }

    /// The next message into `message`.
    fn next(&mut self, message: &mut Vec<u8>) -> Outcome<()> {
        let length = match self.broker {
            Broker::Nats => loop {
                let line = self.line()?;
                if line == b"PING" {
                    self.input.get_mut().write_all(b"PONG\r\n")?;
                } else if line.starts_with(b"MSG") {
                    let text = String::from_utf8_lossy(line).into_owned();
                    break text.rsplit(' ').next().and_then(|digits| digits.parse().ok()).ok_or(text)?;
                }
            },
            Broker::Redis => {
                if self.left == 0 {
                    let last = &self.last;
                    let ask = format!(
                        "*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$2\r\n16\r\n$5\r\nBLOCK\r\n$5\r\n10000\r\n$7\r\nSTREAMS\r\n$1\r\nt\r\n${}\r\n{last}\r\n",
                        last.len()
                    );
                    self.input.get_mut().write_all(ask.as_bytes())?;
                    // One stream: its name, and its messages.
                    self.count()?;
                    self.count()?;
                    self.bulk()?;
                    self.left = self.count()?;
                }
                self.left -= 1;
                // An id, and a field with its value.
                self.count()?;
                self.last = self.bulk()?;
                self.count()?;
                self.bulk()?;
                self.count()?
            }
        };
        message.resize(length + 2, 0);
        self.input.read_exact(message)?;
        message.truncate(length);
        Ok(())
    }
}

/// Events a second from memory through the broker into the hand-written loop with full semantics.
fn ingest(broker: Broker, events: &[Event], symbols: usize) -> Outcome<f64> {
    let running = Running::start(broker)?;
    let mut reader = running.reader()?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || -> Outcome<Instant> {
            let (mut bars, mut message, mut seen) = (FullA::new(symbols, 0), Vec::new(), 0);
            let mut batch = vec![Event::default(); MESSAGE_EVENTS];
            while seen < events.len() {
                reader.next(&mut message)?;
                let count = message.len() / size_of::<Event>();
                batch[..count].as_mut_bytes().copy_from_slice(&message);
                bars.apply(&batch[..count]);
                seen += count;
            }
            let end = Instant::now();
            if bars.finish().applied != events.len() as u64 {
                return Err("events were lost".into());
            }
            Ok(end)
        });
        let mut writer = running.writer()?;
        if broker == Broker::Redis {
            // What it answers is not waited for, but has to be taken off.
            let mut answers = writer.stream.try_clone()?;
            scope.spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        }
        let start = Instant::now();
        for chunk in events.chunks(MESSAGE_EVENTS) {
            writer.send(chunk.as_bytes())?;
        }
        let end = reading.join().map_err(|_| "the reader panicked")??;
        drop(running);
        Ok(events.len() as f64 / end.duration_since(start).as_secs_f64())
    })
}

/// Messages of 64 bytes at a steady rate, from their intended time to their reader.
fn hop(broker: Broker, seconds: u64) -> Outcome<Histogram<u64>> {
    let running = Running::start(broker)?;
    let mut reader = running.reader()?;
    let total = RATE * seconds;
    let start = Instant::now() + Duration::from_millis(300);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || -> Outcome<Histogram<u64>> {
            let (mut found, mut message) = (histogram(), Vec::new());
            for _ in 0..total {
                reader.next(&mut message)?;
                let (sent, _) = u64::read_from_prefix(&message).map_err(|_| "a short message")?;
                found.saturating_record(nanos(start.elapsed()).saturating_sub(sent));
            }
            Ok(found)
        });
        let mut writer = running.writer()?;
        if broker == Broker::Redis {
            let mut answers = writer.stream.try_clone()?;
            scope.spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        }
        party()?.block_on(async {
            let mut pace = Pace::new(start, RATE, total);
            let mut message = [0u8; 64];
            while let Some(due) = pace.due().await {
                for at in due {
                    message[..8].copy_from_slice(&(at * 1_000_000_000 / RATE).to_le_bytes());
                    writer.send(&message)?;
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })?;
        let found = reading.join().map_err(|_| "the reader panicked")?;
        drop(running);
        found
    })
}

/// What is installed of them, in turns; `tell` hears what is not.
///
/// # Errors
/// As [`super::run`].
pub fn measure(size: Size, tell: &mut dyn FnMut(&str)) -> Outcome<Vec<Measurement>> {
    let mut found = Vec::new();
    let (here, missing): (Vec<Broker>, Vec<Broker>) =
        [Broker::Nats, Broker::Redis].into_iter().partition(|broker| broker.is_installed());
    for broker in missing {
        tell(&format!("{} is not installed: left out", broker.program()));
    }
    if here.is_empty() {
        return Ok(found);
    }
    let work = W1 { events: size.events.min(EVENTS_MAX), ..W1::default() };
    let events = generate(work);
    for broker in here {
        let name = broker.name();
        let mut rate = Measurement::new(format!("{name}_ingest"), "events/s");
        let mut hops = ["p50", "p99"].map(|what| Measurement::new(format!("{name}_hop_{what}"), "ns"));
        for _ in 0..size.rounds {
            rate.runs.push(ingest(broker, &events, work.symbols)?);
            let found = hop(broker, size.seconds)?;
            hops[0].runs.push(found.value_at_quantile(0.5) as f64);
            hops[1].runs.push(found.value_at_quantile(0.99) as f64);
        }
        found.push(rate);
        found.extend(hops);
    }
    Ok(found)
}
