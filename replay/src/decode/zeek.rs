//! Zeek's `conn.log`: tab-separated with a `#fields` line (any order, extra columns), or JSON lines.
//!
//! A connection makes two FLOW_RECORD events, see [`super::flow::push_connection`]. Bytes are those on the wire
//! (`*_ip_bytes`) where the log has them, payload bytes otherwise. The log is written as connections end, so their start
//! times, which are the event times, go back and forth.

use super::core::{ByLine, Core, DecodeLine, Reader, Refusal};
use super::flow::{Connection, Direction, Hosts, protocol_number, push_connection};
use super::input::Input;
use super::text::{TimeUnit, parse_digits, parse_number_time, parse_text_time, shown};
use crate::source::{Place, ReadError, RejectCause};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use tidegate_engine::event::duration_code;
use tidegate_engine::{Event, EventTime};
use tidegate_flow::{ConnState, EndCause, FlowRecord, Side};

/// The fields that are read, in the order of [`Zeek::columns`].
const FIELDS: [&str; 15] = [
    "ts",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "proto",
    "duration",
    "orig_bytes",
    "resp_bytes",
    "orig_pkts",
    "resp_pkts",
    "orig_ip_bytes",
    "resp_ip_bytes",
    "history",
    "conn_state",
];
const NEEDED: usize = 6;

pub(super) struct Zeek {
    separator: u8,
    unset: Vec<u8>,
    empty: Vec<u8>,
    columns: Option<[Option<usize>; FIELDS.len()]>,
    json: bool,
    hosts: Hosts,
}

pub(super) fn open(mut input: Input, core: Core) -> Result<Reader<ByLine<Zeek>>, ReadError> {
    let decoder = Zeek::begin(&mut input, core.path())?;
    Ok(Reader::new(core, ByLine { input, decoder }))
}

impl Zeek {
    /// Looks at the beginning: which form, and whether it is a log of connections.
    pub(super) fn begin(input: &mut Input, path: &Path) -> Result<Self, ReadError> {
        // The names of the fields stand in a comment, before the first row.
        let has_row = |bytes: &[u8]| {
            let whole = memchr::memrchr(b'\n', bytes).map_or(&[][..], |end| &bytes[..end]);
            whole
                .split(|&b| b == b'\n')
                .any(|line| line.starts_with(b"#fields") || !matches!(line, [] | [b'#', ..]))
        };
        let head = input.sniff(super::SNIFF_BYTES, has_row)?;
        let json = head.trim_ascii_start().starts_with(b"{");
        if !json {
            let fields = head.split(|&b| b == b'\n').find(|line| line.starts_with(b"#fields"));
            let reason = match fields {
                None => Some("there is no `#fields` line and no JSON; is it a Zeek log?".to_owned()),
                Some(line) => {
                    let missing = |name: &&&str| memchr::memmem::find(line, name.as_bytes()).is_none();
                    FIELDS[..NEEDED].iter().find(missing).map(|missing| {
                        format!(
                            "no field `{missing}`, so it is no conn.log; the fields are: {}",
                            String::from_utf8_lossy(line)
                                .replace('\t', " ")
                                .chars()
                                .take(400)
                                .collect::<String>()
                        )
                    })
                }
            };
            if let Some(reason) = reason {
                return Err(ReadError::Columns { path: path.to_path_buf(), reason });
            }
        }
        Ok(Self {
            separator: b'\t',
            unset: b"-".to_vec(),
            empty: b"(empty)".to_vec(),
            columns: None,
            json,
            hosts: Hosts::default(),
        })
    }

    /// The flow of a line: `None` for headers and comments.
    pub(super) fn flow(&mut self, line: &[u8], number: u64) -> Option<Result<FlowRecord, Refusal>> {
        if line.starts_with(b"#") {
            self.header(line);
            return None;
        }
        if self.json {
            return Some(json_values(line, |values| flow(values, number)));
        }
        Some(self.values(line).and_then(|values| flow(&values, number)))
    }
}

fn bad(what: &str, text: &[u8]) -> Refusal {
    (RejectCause::Malformed, format!("{what} `{}`", shown(text)))
}

pub(super) fn parse_ip(text: &[u8]) -> Result<IpAddr, Refusal> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| (RejectCause::BadName, format!("`{}` is no IP address", shown(text))))
}

fn port(text: &[u8]) -> Result<u16, Refusal> {
    parse_digits(text).and_then(|n| u16::try_from(n).ok()).ok_or_else(|| bad("no port number:", text))
}

/// TCP flags that a history string shows for the originator (upper case) and the responder (lower case).
fn history_flags(history: &[u8]) -> (u8, u8) {
    let (mut originator, mut responder) = (0, 0);
    for &letter in history {
        let flags = match letter.to_ascii_uppercase() {
            b'S' => 0x02,
            b'H' => 0x12,
            b'A' => 0x10,
            b'D' => 0x18,
            b'F' => 0x11,
            b'R' => 0x04,
            _ => 0,
        };
        *(if letter.is_ascii_uppercase() { &mut originator } else { &mut responder }) |= flags;
    }
    (originator, responder)
}

impl Zeek {
    fn header(&mut self, line: &[u8]) {
        let rest =
            |name: &[u8]| line.strip_prefix(name).map(|rest| rest.get(1..).unwrap_or_default().to_vec());
        if let Some(value) = rest(b"#separator") {
            if let Some(byte) = value.strip_prefix(b"\\x").and_then(|hex| std::str::from_utf8(hex).ok()) {
                self.separator = u8::from_str_radix(byte, 16).unwrap_or(b'\t');
            }
        } else if let Some(value) = rest(b"#unset_field") {
            self.unset = value;
        } else if let Some(value) = rest(b"#empty_field") {
            self.empty = value;
        } else if let Some(value) = rest(b"#fields") {
            let names: Vec<&[u8]> = value.split(|&b| b == self.separator).collect();
            self.columns = Some(FIELDS.map(|field| names.iter().position(|name| *name == field.as_bytes())));
        }
    }

    fn values<'a>(&self, line: &'a [u8]) -> Result<[Option<&'a [u8]>; FIELDS.len()], Refusal> {
        let columns = self.columns.as_ref().ok_or_else(|| bad("a row before any #fields line:", line))?;
        let mut values: [Option<&[u8]>; FIELDS.len()] = [None; FIELDS.len()];
        for (at, value) in line.split(|&b| b == self.separator).enumerate() {
            for (slot, column) in values.iter_mut().zip(columns) {
                if *column == Some(at) && value != self.unset && value != self.empty {
                    *slot = Some(value);
                }
            }
        }
        Ok(values)
    }
}

fn connection(values: &[Option<&[u8]>; FIELDS.len()]) -> Result<Connection, Refusal> {
    let need = |at: usize| {
        values[at].ok_or_else(|| (RejectCause::Malformed, format!("`{}` is missing or unset", FIELDS[at])))
    };
    let count = |at: usize| match values[at] {
        None => Ok(None),
        Some(text) => parse_digits(text)
            .map(Some)
            .ok_or_else(|| (RejectCause::BadNumber, format!("`{}` is `{}`", FIELDS[at], shown(text)))),
    };
    let ts_text = need(0)?;
    let ts = match ts_text.iter().any(|b| matches!(b, b'T' | b':')) {
        true => parse_text_time(ts_text)?,
        false => parse_number_time(ts_text, TimeUnit::Seconds)?,
    };
    let duration = match values[6] {
        Some(text) => duration_code(
            parse_number_time(text, TimeUnit::Seconds)
                .map_err(|_| (RejectCause::BadNumber, format!("`duration` is `{}`", shown(text))))?,
        ),
        None => 0,
    };
    let (sent_flags, received_flags) = values[13].map_or((0, 0), history_flags);
    let (originator_port, port) = (port(need(2)?)?, port(need(4)?)?);
    let protocol = protocol_number(need(5)?);
    // For ICMP Zeek keeps type and code where ports are; they are no service port.
    let port = if matches!(protocol, 1 | 58) { originator_port } else { port };
    Ok(Connection {
        ts,
        originator: parse_ip(need(1)?)?,
        responder: parse_ip(need(3)?)?,
        port,
        protocol,
        duration,
        sent: Direction {
            bytes: count(11)?.or(count(7)?).unwrap_or(0),
            packets: count(9)?.unwrap_or(0),
            tcp_flags: if protocol == 6 { sent_flags } else { 0 },
        },
        received: Direction {
            bytes: count(12)?.or(count(8)?).unwrap_or(0),
            packets: count(10)?.unwrap_or(0),
            tcp_flags: if protocol == 6 { received_flags } else { 0 },
        },
    })
}

/// A row as a flow. Payload bytes, not those on the wire.
fn flow(values: &[Option<&[u8]>; FIELDS.len()], number: u64) -> Result<FlowRecord, Refusal> {
    let connection = connection(values)?;
    let count = |at: usize| values[at].and_then(parse_digits).unwrap_or(0);
    let text = |at: usize| std::str::from_utf8(values[at].unwrap_or_default()).unwrap_or_default();
    let duration = values[6].map_or(Ok(0), |text| parse_number_time(text, TimeUnit::Seconds)).unwrap_or(0);
    let port = |at: usize| port(values[at].unwrap_or_default());
    let side = |bytes: usize, packets: usize, ip_bytes: usize| Side {
        bytes: count(bytes),
        packets: count(packets),
        ip_bytes: count(ip_bytes),
    };
    Ok(FlowRecord {
        id: number,
        start_ns: connection.ts,
        last_ns: connection.ts.saturating_add(duration).min(EventTime::MAX.0),
        originator: connection.originator.into(),
        originator_port: port(2)?,
        responder: connection.responder.into(),
        responder_port: port(4)?,
        protocol: connection.protocol,
        state: ConnState::from_name(text(14)).unwrap_or_default(),
        history: text(13).into(),
        sent: side(7, 9, 11),
        received: side(8, 10, 12),
        packets: (number, number),
        vlan: 0,
        tunnels: 0,
        cause: EndCause::Logged,
        sampling: 1,
    })
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Object<'a>(#[serde(borrow)] HashMap<std::borrow::Cow<'a, str>, &'a RawValue>);

fn json_values<T>(
    line: &[u8],
    take: impl FnOnce(&[Option<&[u8]>; FIELDS.len()]) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let Object(object) =
        serde_json::from_slice(line).map_err(|error| (RejectCause::Malformed, error.to_string()))?;
    let values = FIELDS.map(|field| object.get(field).map(|value| value.get().trim_matches('"').as_bytes()));
    take(&values)
}

impl DecodeLine for Zeek {
    fn line(&mut self, core: &mut Core, line: &[u8], number: u64, events: &mut Vec<Event>) {
        if line.starts_with(b"#") {
            return self.header(line);
        }
        let parsed = if self.json {
            json_values(line, connection)
        } else {
            self.values(line).and_then(|values| connection(&values))
        };
        let start = events.len();
        let done = parsed.and_then(|connection| push_connection(core, &mut self.hosts, &connection, events));
        match done {
            Ok(()) => core.finish_unit(events, start),
            Err(refusal) => {
                events.truncate(start);
                core.refuse_with(refusal, Place::Line(number));
            }
        }
    }

    fn format(&self) -> String {
        if self.json { "zeek conn (json)" } else { "zeek conn" }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read_all, read_err, torture};
    use super::super::{Format, ReadOptions};
    use super::*;
    use tidegate_engine::flag;

    const LOG: &str = "#separator \\x09\n#unset_field\t-\n#fields\tproto\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tduration\torig_bytes\tresp_bytes\torig_pkts\tresp_pkts\thistory\tlabel\n\
tcp\t1677024003.714845\tC1\t192.168.1.107\t65164\t66.63.168.35\t5888\t0.5\t10\t99999999999\t70000\t1\tShR\tMalicious\n\
udp\t1677024003.5\tC1\tfe80::1\t5353\tff02::fb\t5353\t-\t-\t-\t1\t0\t-\t-\n\
udp\t-1.5\tC1\t1.1.1.1\t5353\t1.1.1.2\t5353\t-\t-\t-\t1\t0\t-\t-\n\
udp\t1.5\tC1\tnobody\t5353\t1.1.1.2\t5353\t-\t-\t-\t1\t0\t-\t-\n#close\n";

    #[test]
    fn a_connection_makes_two_records() {
        let (events, account, names) = read_all(Format::Zeek, LOG.as_bytes(), &ReadOptions::default());
        assert_eq!(names, ["192.168.1.107", "66.63.168.35", "fe80::1", "ff02::fb"]);
        assert_eq!((account.units, account.accepted, account.events), (4, 2, 4));
        assert_eq!((account.refused(RejectCause::BadTime), account.refused(RejectCause::BadName)), (1, 1));
        let (out, back) = (events[0].as_flow(), events[1].as_flow());
        assert_eq!(events[0].ts_event, 1_677_024_003_714_845_000);
        assert_eq!((out.bytes, out.packets, out.port, out.tcp_flags), (10, u16::MAX, 5888, 0x06));
        assert_eq!((back.bytes, back.tcp_flags), (u32::MAX, 0x12));
        assert!(events[0].flags & flag::FLOW_ORIGINATOR != 0 && events[1].flags & flag::FLOW_ORIGINATOR == 0);
        assert!(events[2].flags & flag::FLOW_IPV6 != 0);
    }

    #[test]
    fn json_lines_say_the_same() {
        let line = br#"{"ts":1677024003.714845,"id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp","duration":0.5,"orig_ip_bytes":60,"orig_bytes":1}"#;
        let (events, _, _) = read_all(Format::Zeek, line, &ReadOptions::default());
        assert_eq!((events[0].as_flow().bytes, events[0].as_flow().port), (60, 80));
        torture(Format::Zeek, line);
    }

    #[test]
    fn other_logs_and_damage() {
        let error = read_err(Format::Zeek, b"#fields\tts\tuid\n1\tx\n", &ReadOptions::default());
        assert!(error.to_string().contains("id.orig_h"), "{error}");
        torture(Format::Zeek, &LOG.as_bytes()[..420]);
    }
}
