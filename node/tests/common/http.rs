//! HTTP as its clients see it: bytes over a socket, and what they mean.

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Code of the error that it is; empty for none.
    pub fn code(&self) -> String {
        let json = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A question, and what a token adds to it.
fn head(address: SocketAddr, path: &str, token: &str) -> String {
    let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{token}")
}

/// One question over a connection that stays open.
#[track_caller]
pub fn ask(stream: &mut TcpStream, path: &str, token: &str) -> Answer {
    let address = stream.peer_addr().expect("a connected socket");
    stream.write_all(format!("{}\r\n", head(address, path, token)).as_bytes()).expect("it takes questions");
    read_answer(stream)
}

#[track_caller]
fn read_answer(stream: &mut TcpStream) -> Answer {
    let (status, head, mut body) = read_head(stream);
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
    let length: usize = head.lines().find_map(length).expect("an answer says its length");
    while body.len() < length {
        let mut bytes = [0; 16 * 1_024];
        let count = stream.read(&mut bytes).expect("the rest of an answer");
        assert!(count > 0, "it ended at {} of {length} bytes", body.len());
        body.extend_from_slice(&bytes[..count]);
    }
    Answer { status, body }
}

/// One question over a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, path: &str, token: &str) -> Answer {
    ask(&mut TcpStream::connect(address).expect("it listens"), path, token)
}

/// Something said, as a document, over a connection of its own.
#[track_caller]
pub fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = head(address, path, token).replacen("GET", "POST", 1);
    let length = body.len();
    let text = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).expect("it takes what is said");
    read_answer(&mut stream)
}

/// A stream of events that was asked for: its status, and what came until `enough` says so or it ended.
#[track_caller]
pub fn events(address: SocketAddr, path: &str, token: &str, enough: impl Fn(&str) -> bool) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(format!("{}\r\n", head(address, path, token)).as_bytes()).expect("it takes questions");
    let (status, _, body) = read_head(&mut stream);
    let mut text = String::from_utf8_lossy(&body).into_owned();
    while !enough(&text) {
        let mut bytes = [0; 4_096];
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
            Err(error) => panic!("{error}: {text}"),
        }
    }
    (status, text)
}

fn read_head(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") {
            break end;
        }
        let mut more = [0; 4_096];
        let count = stream.read(&mut more).expect("an answer");
        assert!(count > 0, "it ended before its answer");
        bytes.extend_from_slice(&more[..count]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("heads are text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head, bytes.split_off(end + 4))
}

/// A WebSocket.
pub struct WebSocket {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// What a server said, or how it ended the connection.
#[derive(Debug, PartialEq)]
pub enum Said {
    Message(Value),
    Closed(u16),
}

impl WebSocket {
    /// Opens one, or the status of the refusal.
    #[track_caller]
    pub fn open(address: SocketAddr, token: &str) -> Result<Self, u16> {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let text = format!("{}{upgrade}", head(address, "/v1/ws", token));
        stream.write_all(text.as_bytes()).expect("it takes questions");
        match read_head(&mut stream) {
            (101, _, bytes) => Ok(Self { stream, bytes }),
            (status, ..) => Err(status),
        }
    }

    /// Says something, in a frame as clients write it, masked with zeros.
    pub fn say(&mut self, text: &str) {
        let mut frame = vec![0x81, 0xfe];
        frame.extend_from_slice(&u16::try_from(text.len()).expect("short words").to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame).expect("it takes messages");
    }

    /// Reads more; `false` at the end.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1_024];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.bytes.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message, or the end. Pings are passed over: no test lasts until one must be answered.
    #[track_caller]
    pub fn next(&mut self) -> Said {
        loop {
            while self.bytes.len() < 2 {
                assert!(self.fill(), "it ended without a word");
            }
            let (kind, short) = (self.bytes[0] & 15, usize::from(self.bytes[1]));
            let (head, length) = match short {
                126 | 127 => {
                    let head = if short == 126 { 4 } else { 10 };
                    while self.bytes.len() < head {
                        assert!(self.fill(), "it ended within a frame");
                    }
                    let length =
                        self.bytes[2..head].iter().fold(0, |all, &byte| all << 8 | usize::from(byte));
                    (head, length)
                }
                _ => (2, short),
            };
            while self.bytes.len() < head + length {
                assert!(self.fill(), "it ended within a frame");
            }
            let rest = self.bytes.split_off(head + length);
            let body = std::mem::replace(&mut self.bytes, rest).split_off(head);
            match kind {
                1 => return Said::Message(serde_json::from_slice(&body).expect("messages are JSON")),
                8 => return Said::Closed(u16::from_be_bytes([body[0], body[1]])),
                _ => {}
            }
        }
    }

    /// Says something; the next message.
    #[track_caller]
    pub fn ask(&mut self, text: &str) -> Value {
        self.say(text);
        match self.next() {
            Said::Message(message) => message,
            Said::Closed(code) => panic!("closed with {code}"),
        }
    }
}
