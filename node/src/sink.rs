//! Where alerts go besides the terminal: files, syslog, webhooks.

use crate::exit::{Exit, Failure};
use crate::render::{Ui, clean, thousands};
use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tidegate_alert::Episode;
use tidegate_alert::render::{self, Event};

/// How long a server may take to take or answer one message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Waits between the attempts to reach a webhook.
const WAITS: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// Alerts in a row that a sink may lose before it is given up for the rest of the run.
const FAILURES_MAX: u32 = 3;

/// Where alerts are to go, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SinkSpec {
    Jsonl(PathBuf),
    Eve(PathBuf),
    SyslogFile(PathBuf),
    SyslogUdp(String),
    SyslogTcp(String),
    Webhook(String),
}

const ALLOWED: &str = "jsonl:FILE, eve:FILE, syslog:udp://HOST:PORT, syslog:tcp://HOST:PORT, syslog:FILE, webhook:http://… or webhook:https://…";

impl FromStr for SinkSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` {why}; allowed: {ALLOWED}");
        let (kind, target) = text.split_once(':').ok_or_else(|| wrong("is no sink"))?;
        if target.is_empty() {
            return Err(wrong("names no target"));
        }
        let host = |target: &str| match target.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(target.to_owned())
            }
            _ => Err(wrong("lacks a host and a port such as localhost:514")),
        };
        match (kind, target) {
            ("jsonl", file) => Ok(Self::Jsonl(file.into())),
            ("eve", file) => Ok(Self::Eve(file.into())),
            ("syslog", target) => match target.split_once("://") {
                Some(("udp", target)) => host(target).map(Self::SyslogUdp),
                Some(("tcp", target)) => host(target).map(Self::SyslogTcp),
                Some(_) => Err(wrong("names no way that syslog takes")),
                None => Ok(Self::SyslogFile(target.into())),
            },
            ("webhook", url) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Self::Webhook(url.to_owned()))
            }
            ("webhook", _) => Err(wrong("is no address of HTTP")),
            _ => Err(wrong("is no sink")),
        }
    }
}

impl std::fmt::Display for SinkSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Jsonl(path) => write!(f, "jsonl:{}", path.display()),
            Self::Eve(path) => write!(f, "eve:{}", path.display()),
            Self::SyslogFile(path) => write!(f, "syslog:{}", path.display()),
            Self::SyslogUdp(target) => write!(f, "syslog:udp://{target}"),
            Self::SyslogTcp(target) => write!(f, "syslog:tcp://{target}"),
            Self::Webhook(url) => write!(f, "webhook:{url}"),
        }
    }
}

enum Way {
    Jsonl(File),
    Eve(File),
    SyslogFile(File),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Webhook { agent: ureq::Agent, url: String },
}

struct Sink {
    name: String,
    way: Way,
    sent: u64,
    lost: u64,
    lost_in_row: u32,
    example: String,
}

/// Every sink of a run.
pub(crate) struct Sinks {
    sinks: Vec<Sink>,
    host: String,
}

impl Sinks {
    /// Opens files and connections, so that what cannot be reached is told before anything is read.
    pub(crate) fn open(specs: &[SinkSpec]) -> Result<Self, Failure> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let sinks = specs.iter().map(|spec| {
            let (name, way) = open(spec).map_err(|error| Failure::new(Exit::Output, error))?;
            Ok(Sink { name, way, sent: 0, lost: 0, lost_in_row: 0, example: String::new() })
        });
        Ok(Self { sinks: sinks.collect::<Result<_, Failure>>()?, host })
    }

    /// Sends an alert everywhere.
    pub(crate) fn tell(&mut self, episode: &Episode, event: Event) {
        for sink in &mut self.sinks {
            if sink.lost_in_row >= FAILURES_MAX {
                sink.lost += 1;
                continue;
            }
            match sink.way.send(episode, event, &self.host) {
                Ok(()) => (sink.sent, sink.lost_in_row) = (sink.sent + 1, 0),
                Err(error) => {
                    sink.lost += 1;
                    sink.lost_in_row += 1;
                    sink.example = format!("{error:#}");
                }
            }
        }
    }

    /// Alerts sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.sent).sum()
    }

    /// Whether all of them failed too often in a row.
    pub(crate) fn given_up(&self) -> bool {
        self.sinks.iter().all(|sink| sink.lost_in_row >= FAILURES_MAX)
    }

    /// What they are called.
    pub(crate) fn names(&self) -> String {
        let names: Vec<String> = self.sinks.iter().map(|sink| clean(&sink.name)).collect();
        names.join(", ")
    }

    /// Why an alert could not be sent.
    pub(crate) fn example(&self) -> String {
        self.sinks
            .iter()
            .map(|sink| sink.example.as_str())
            .find(|text| !text.is_empty())
            .unwrap_or("unknown")
            .to_owned()
    }

    /// Says what was sent. Whether all of it was.
    pub(crate) fn end(&mut self, ui: &Ui) -> bool {
        for sink in &mut self.sinks {
            if let Way::Jsonl(file) | Way::Eve(file) | Way::SyslogFile(file) = &mut sink.way
                && let Err(error) = file.sync_data()
                && error.kind() != std::io::ErrorKind::InvalidInput
            {
                (sink.lost, sink.example) = (sink.lost.max(1), error.to_string());
            }
            let name = clean(&sink.name);
            if sink.lost > 0 {
                let text = format!(
                    "{name}: {} of {} alerts could not be sent; the last reason: {}",
                    thousands(sink.lost),
                    thousands(sink.sent + sink.lost),
                    sink.example
                );
                ui.error(&anyhow::anyhow!(text));
            } else {
                ui.note(&format!("{name}: {} alerts sent", thousands(sink.sent)));
            }
        }
        self.sinks.iter().all(|sink| sink.lost == 0)
    }
}

fn open(spec: &SinkSpec) -> anyhow::Result<(String, Way)> {
    let file = |path: &PathBuf| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("the sink {}", path.display()))
    };
    Ok(match spec {
        SinkSpec::Jsonl(path) => (format!("jsonl:{}", path.display()), Way::Jsonl(file(path)?)),
        SinkSpec::Eve(path) => (format!("eve:{}", path.display()), Way::Eve(file(path)?)),
        SinkSpec::SyslogFile(path) => (format!("syslog:{}", path.display()), Way::SyslogFile(file(path)?)),
        SinkSpec::SyslogUdp(target) => {
            let context = || format!("the sink syslog:udp://{target}");
            let address = target.to_socket_addrs().with_context(context)?.next().with_context(context)?;
            let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(local).with_context(context)?;
            socket.connect(address).with_context(context)?;
            (format!("syslog:udp://{target}"), Way::Udp(socket))
        }
        SinkSpec::SyslogTcp(target) => {
            let context = || format!("the sink syslog:tcp://{target}");
            let address = target.to_socket_addrs().with_context(context)?.next().with_context(context)?;
            let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(context)?;
            stream.set_write_timeout(Some(PATIENCE)).with_context(context)?;
            (format!("syslog:tcp://{target}"), Way::Tcp(stream))
        }
        SinkSpec::Webhook(url) => {
            let tls = ureq::tls::TlsConfig::builder()
                .unversioned_rustls_crypto_provider(std::sync::Arc::new(
                    rustls::crypto::aws_lc_rs::default_provider(),
                ))
                .build();
            let config = ureq::Agent::config_builder()
                .timeout_global(Some(PATIENCE))
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent("tidegate")
                .tls_config(tls)
                .build();
            (format!("webhook:{url}"), Way::Webhook { agent: config.into(), url: url.clone() })
        }
    })
}

impl Way {
    fn send(&mut self, episode: &Episode, event: Event, host: &str) -> anyhow::Result<()> {
        match self {
            Self::Jsonl(file) => {
                file.write_all(format!("{}\n", render::document(episode, event)).as_bytes())?
            }
            Self::Eve(file) => file.write_all(format!("{}\n", render::eve(episode, event)).as_bytes())?,
            Self::SyslogFile(file) => {
                file.write_all(format!("{}\n", render::syslog(episode, event, host)).as_bytes())?
            }
            Self::Udp(socket) => {
                socket.send(render::syslog(episode, event, host).as_bytes())?;
            }
            // Octet counting, RFC 6587.
            Self::Tcp(stream) => {
                let message = render::syslog(episode, event, host);
                stream.write_all(format!("{} {message}", message.len()).as_bytes())?;
            }
            Self::Webhook { agent, url } => post(agent, url, episode, event)?,
        }
        Ok(())
    }
}

/// Posts an alert; tries again, a few times and ever later, when the server is not there or says that it is its own fault or too much.
fn post(agent: &ureq::Agent, url: &str, episode: &Episode, event: Event) -> anyhow::Result<()> {
    let body = render::document(episode, event).to_string();
    // The same for every attempt, so that a receiver can tell that it has it already.
    let key = format!("{}-{}-{}", episode.id, event.name(), episode.severity.name());
    let mut waits = WAITS.iter();
    loop {
        let answer = agent
            .post(url)
            .header("content-type", "application/json")
            .header("idempotency-key", &key)
            .send(body.as_bytes());
        let (error, again) = match answer {
            Ok(answer) => match answer.status().as_u16() {
                200..300 => return Ok(()),
                status @ (408 | 429 | 500..600) => (anyhow::anyhow!("the server answers {status}"), true),
                status => (anyhow::anyhow!("the server answers {status}"), false),
            },
            Err(error) => (error.into(), true),
        };
        match waits.next() {
            Some(wait) if again => std::thread::sleep(*wait),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_named() {
        let of = |text: &str| text.parse::<SinkSpec>();
        assert_eq!(of("jsonl:a:b"), Ok(SinkSpec::Jsonl("a:b".into())));
        assert_eq!(of("syslog:udp://[::1]:514"), Ok(SinkSpec::SyslogUdp("[::1]:514".to_owned())));
        assert_eq!(of("syslog:tcp://h:1"), Ok(SinkSpec::SyslogTcp("h:1".to_owned())));
        assert_eq!(of("syslog:/x"), Ok(SinkSpec::SyslogFile("/x".into())));
        assert_eq!(of("webhook:https://h/x"), Ok(SinkSpec::Webhook("https://h/x".to_owned())));
        for text in [
            "",
            "x",
            "jsonl",
            "jsonl:",
            "mail:x",
            "syslog:udp://h",
            "syslog:udp://h:0",
            "syslog:tls://h:1",
            "webhook:h",
        ] {
            assert!(of(text).unwrap_err().contains("allowed: jsonl:FILE"), "{text}");
        }
    }
}
