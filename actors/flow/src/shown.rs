//! What a flow shows of itself in clear: the client hello of TLS as a fingerprint and a name, the request line of HTTP, the name asked of DNS.
//!
//! **The fingerprint** is JA4 for TLS over TCP, as FoxIO defines it (its part for TLS clients is under the BSD licence): `t`, the highest version
//! offered, `d` or `i` for a name asked for or not, counts of cipher suites and extensions, first and last letter of the first ALPN value; then
//! the first twelve hexadecimal digits of SHA-256 over the sorted cipher suites, and over the sorted extensions (without the name
//! and ALPN) with the signature algorithms in their order. Values made up to keep servers honest (GREASE, RFC 8701) do not count. A hello in
//! several segments is put together as long as they come in order; QUIC's, which is encrypted, is not read.

use crate::dns;
use crate::hash::Recent;
use crate::packet::{Fragment, Packet, protocol};
use crate::table::Flow;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Bytes of a client hello that are put together; with post-quantum key shares they have about 1,800.
pub const HELLO_BYTES_MAX: usize = 16_384;
/// Hellos in the making.
const HELLOS_MAX: usize = 1_024;
/// Longest text that is given out.
const TEXT_MAX: usize = 256;

/// Something a flow shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A client hello of TLS.
    Tls {
        /// JA4.
        ja4: String,
        /// The name asked for; empty where there is none.
        name: String,
    },
    /// A request of HTTP/1.
    Http {
        /// `GET /path`, without the version.
        request: String,
        /// The host asked for; empty where it is not in the same segment.
        host: String,
    },
    /// A question of DNS.
    Dns {
        /// The name asked for.
        name: String,
        /// Its type's number.
        kind: u16,
    },
}

/// Looks at the packets of flows.
#[derive(Debug, Clone)]
pub struct Looker {
    hellos: Recent<u64, Partial>,
}

#[derive(Debug, Clone)]
struct Partial {
    bytes: Vec<u8>,
    next: u32,
}

impl Default for Looker {
    fn default() -> Self {
        Self { hellos: Recent::new(HELLOS_MAX) }
    }
}

impl Looker {
    /// What a packet shows. `flow` counts the packet already.
    pub fn look(&mut self, flow: &Flow, from_originator: bool, packet: &Packet<'_>) -> Option<Shown> {
        let bytes = packet.payload;
        if bytes.is_empty() || packet.fragment == Fragment::Later {
            return None;
        }
        match packet.protocol {
            protocol::UDP if packet.target_port == 53 => {
                let message = dns::read(bytes).filter(|message| !message.response)?;
                Some(Shown::Dns { name: text(message.name()), kind: message.kind })
            }
            protocol::TCP if from_originator => {
                let known = self.hellos.find(&flow.record.id);
                if let Some(partial) = known.filter(|partial| !partial.bytes.is_empty()) {
                    return partial.goes_on(packet);
                }
                if bytes.starts_with(&[22, 3]) && packet.payload_bytes as usize == bytes.len() {
                    return match hello(bytes) {
                        Read::Whole(shown) => Some(shown),
                        Read::Longer => {
                            let next = packet.sequence.wrapping_add(bytes.len() as u32);
                            let new = || Partial { bytes: Vec::new(), next };
                            let partial = self.hellos.entry(flow.record.id, new);
                            *partial = Partial { bytes: bytes.to_vec(), next };
                            None
                        }
                        Read::Other => None,
                    };
                }
                http(bytes)
            }
            _ => None,
        }
    }
}

impl Partial {
    fn goes_on(&mut self, packet: &Packet<'_>) -> Option<Shown> {
        let fits = packet.sequence == self.next
            && packet.payload_bytes as usize == packet.payload.len()
            && self.bytes.len() + packet.payload.len() <= HELLO_BYTES_MAX;
        if !fits {
            // Sent again, or a gap: the first may still be followed by what is missing.
            return None;
        }
        self.bytes.extend_from_slice(packet.payload);
        self.next = self.next.wrapping_add(packet.payload.len() as u32);
        match hello(&self.bytes) {
            Read::Longer => None,
            done => {
                self.bytes = Vec::new();
                if let Read::Whole(shown) = done { Some(shown) } else { None }
            }
        }
    }
}

/// Bytes as text that can stand in a line: what is not printable ASCII becomes a dot.
fn text(bytes: &[u8]) -> String {
    let shown = |&byte: &u8| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' };
    bytes.iter().take(TEXT_MAX).map(shown).collect()
}

fn http(bytes: &[u8]) -> Option<Shown> {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"PROPFIND "];
    if !METHODS.iter().any(|method| bytes.starts_with(method)) {
        return None;
    }
    let mut lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next()?;
    // The version ends the line where the segment has all of it.
    let request = match first.iter().rposition(|&byte| byte == b' ') {
        Some(at) if first[at + 1..].starts_with(b"HTTP/") => &first[..at],
        _ => first,
    };
    let host = lines.take(64).find_map(|line| {
        let (name, value) = line.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"host:").then(|| value.trim_ascii())
    });
    Some(Shown::Http { request: text(request), host: host.map(text).unwrap_or_default() })
}

enum Read {
    Whole(Shown),
    /// A hello that goes on in the next segment.
    Longer,
    /// No client hello.
    Other,
}

/// Reads big-endian numbers and lengths off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let count = self.u8()?;
        self.take(usize::from(count))
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }
}

/// A client hello in records of TLS.
fn hello(bytes: &[u8]) -> Read {
    // Records may cut the message anywhere.
    let mut message = Vec::new();
    let mut rest = Reader(bytes);
    loop {
        if rest.0.is_empty() {
            break;
        }
        let header = rest.0;
        if header.first() != Some(&22) || header.get(1).is_some_and(|&version| version != 3) {
            return Read::Other;
        }
        let Some(length) = header.get(3..5) else { return Read::Longer };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let Some(body) = header.get(5..5 + length) else {
            message.extend_from_slice(&header[5..]);
            break;
        };
        message.extend_from_slice(body);
        rest.0 = &header[5 + length..];
        if wanted(&message).is_some_and(|wanted| message.len() >= wanted) {
            break;
        }
    }
    match (message.first(), wanted(&message)) {
        (Some(&kind), _) if kind != 1 => Read::Other,
        (_, Some(wanted)) if wanted > HELLO_BYTES_MAX => Read::Other,
        (_, Some(wanted)) if message.len() >= wanted => {
            client_hello(&message[4..wanted]).map_or(Read::Other, Read::Whole)
        }
        _ => Read::Longer,
    }
}

/// Bytes of a handshake message with its header.
fn wanted(message: &[u8]) -> Option<usize> {
    message.get(1..4).map(|length| 4 + u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize)
}

/// Values of the form 0x?a?a with equal bytes (RFC 8701).
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .filter(|&value| !is_grease(value))
}

fn client_hello(body: &[u8]) -> Option<Shown> {
    let mut rest = Reader(body);
    let mut version = rest.u16()?;
    rest.take(32)?;
    rest.short()?;
    let mut ciphers: Vec<u16> = numbers(rest.long()?).collect();
    rest.short()?;
    let mut extensions = Vec::new();
    let (mut name, mut alpn, mut signatures) = (None, None, Vec::new());
    // TLS before extensions had none.
    let mut rest = Reader(if rest.0.is_empty() { &[] } else { rest.long()? });
    while !rest.0.is_empty() {
        let (kind, value) = (rest.u16()?, rest.long()?);
        if is_grease(kind) {
            continue;
        }
        extensions.push(kind);
        let mut value = Reader(value);
        match kind {
            // List, type, name.
            0 => name = Some(Reader(value.long()?.get(1..).unwrap_or_default()).long().unwrap_or_default()),
            13 => signatures = numbers(value.long()?).collect(),
            16 => alpn = Reader(value.long()?).short(),
            43 => version = numbers(value.short()?).max().unwrap_or(version),
            _ => {}
        }
    }
    let version = match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    };
    let (first, last) = match alpn {
        Some([first, .., last]) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            (char::from(*first), char::from(*last))
        }
        Some([only]) if only.is_ascii_alphanumeric() => (char::from(*only), char::from(*only)),
        // Not letters: the first and the last hexadecimal digit.
        Some([first, ..]) => {
            let last = alpn.and_then(|alpn| alpn.last()).unwrap_or(first);
            let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
            (digit(first >> 4), digit(last & 15))
        }
        _ => ('0', '0'),
    };
    let sni = if name.is_some() { 'd' } else { 'i' };
    let (cipher_count, extension_count) = (ciphers.len().min(99), extensions.len().min(99));
    ciphers.sort_unstable();
    extensions.retain(|&kind| kind != 0 && kind != 16);
    extensions.sort_unstable();
    let mut last_part = list(&extensions);
    if !signatures.is_empty() {
        last_part.push('_');
        last_part += &list(&signatures);
    }
    let ciphers = digest(&list(&ciphers));
    // Without extensions there is nothing to hash.
    let last_part = if extensions.is_empty() { digest("") } else { digest(&last_part) };
    let ja4 =
        format!("t{version}{sni}{cipher_count:02}{extension_count:02}{first}{last}_{ciphers}_{last_part}");
    Some(Shown::Tls { ja4, name: text(name.unwrap_or_default()) })
}

fn list(values: &[u16]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(out, "{}{value:04x}", if at > 0 { "," } else { "" });
    }
    out
}

fn digest(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let mut out = String::new();
    for byte in Sha256::digest(text.as_bytes()).iter().take(6) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The hello of FoxIO's description of JA4: its lists, from which it derives `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    fn example() -> Vec<u8> {
        let ciphers: [u16; 16] = [
            0x4a4a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
            0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let signatures: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
        let list = |values: &[u16]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>();
        let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let server = [&[0u8][..], &long(b"example.com")].concat();
        let values: Vec<(u16, Vec<u8>)> = vec![
            (0x1a1a, vec![]),
            (0x001b, vec![2, 0, 2]),
            (0x0000, long(&server)),
            (0x0033, vec![0; 4]),
            (0x0010, long(b"\x02h2\x08http/1.1")),
            (0x4469, vec![0; 5]),
            (0x0017, vec![]),
            (0x002d, vec![1, 1]),
            (0x000d, long(&list(&signatures))),
            (0x0005, vec![1, 0, 0, 0, 0]),
            (0x0023, vec![]),
            (0x0012, vec![]),
            (0x002b, vec![6, 0x5a, 0x5a, 3, 4, 3, 3]),
            (0xff01, vec![0]),
            (0x000b, vec![1, 0]),
            (0x000a, vec![0, 2, 0, 29]),
            (0x0015, vec![0; 600]),
        ];
        let extensions: Vec<u8> = values
            .iter()
            .flat_map(|(kind, value)| [&kind.to_be_bytes()[..], &long(value)].concat())
            .collect();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(long(&list(&ciphers)));
        body.extend([1, 0]);
        body.extend(long(&extensions));
        let length = body.len() as u32;
        let message = [&[1, 0], &(length as u16).to_be_bytes()[..], &body].concat();
        let mut bytes = vec![22, 3, 1];
        bytes.extend(long(&message));
        bytes
    }

    #[test]
    fn the_published_example_has_its_fingerprint() {
        let Read::Whole(shown) = hello(&example()) else { panic!("it is a hello") };
        let expected = Shown::Tls {
            ja4: "t13d1516h2_8daaf6152771_e5627efa2ab1".to_owned(),
            name: "example.com".to_owned(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_hello_may_come_in_parts_and_in_several_records() {
        let whole = example();
        for cut in 0..whole.len() {
            assert!(matches!(hello(&whole[..cut]), Read::Longer), "{cut}");
        }
        let mut records = Vec::new();
        for part in whole[5..].chunks(100) {
            records.extend([22, 3, 1]);
            records.extend((part.len() as u16).to_be_bytes());
            records.extend(part);
        }
        assert!(matches!(hello(&records), Read::Whole(_)));
        assert!(matches!(hello(b"\x17\x03\x03\x00\x10"), Read::Other));
        // A server's hello.
        assert!(matches!(hello(&[22, 3, 3, 0, 5, 2, 0, 0, 1, 0]), Read::Other));
    }

    #[test]
    fn requests_are_shown_with_their_host() {
        let shown = http(b"GET /a?b=c HTTP/1.1\r\nAccept: */*\r\nhOST:  example.com \r\n\r\n").unwrap();
        let expected = Shown::Http { request: "GET /a?b=c".into(), host: "example.com".into() };
        assert_eq!(shown, expected);
        let cut = http(b"POST /long\x1b[31m").unwrap();
        assert_eq!(cut, Shown::Http { request: "POST /long.[31m".into(), host: String::new() });
        assert_eq!(http(b"SSH-2.0-x"), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..900, value: u8) {
            let _ = (hello(&bytes), http(&bytes), hello(&[&[22, 3, 1][..], &bytes].concat()));
            let mut damaged = example();
            if let Some(byte) = damaged.get_mut(at) {
                *byte = value;
            }
            let _ = hello(&damaged);
        }
    }
}
