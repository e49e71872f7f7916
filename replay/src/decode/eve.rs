//! Suricata's EVE JSON lines: `flow` and `netflow` records and `dns` queries. Alerts, statistics and the rest are
//! another tool's conclusions and counted as no events.

use super::core::{ByLine, Core, DecodeLine, Reader, Refusal};
use super::flow::{
    Connection, Direction, Hosts, ip_flag, name_payload, protocol_number, push_connection,
    record_type_number, saturate_u16, saturate_u32,
};
use super::input::Input;
use super::text::parse_text_time;
use super::zeek::parse_ip;
use crate::source::{Place, RejectCause};
use serde::Deserialize;
use std::borrow::Cow;
use tidegate_engine::event::duration_code;
use tidegate_engine::{Event, FlowPayload, flag};
use tidegate_flow::community::counterpart;
use tidegate_flow::export::judge_flags;
use tidegate_flow::{ConnState, EndCause, FlowRecord, History, Side};

#[derive(Default)]
pub(super) struct Eve {
    hosts: Hosts,
}

pub(super) fn open(input: Input, core: Core) -> Reader<ByLine<Eve>> {
    Reader::new(core, ByLine { input, decoder: Eve::default() })
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    src_ip: Option<Cow<'a, str>>,
    #[serde(borrow)]
    dest_ip: Option<Cow<'a, str>>,
    #[serde(default)]
    src_port: u16,
    #[serde(default)]
    dest_port: u16,
    #[serde(default)]
    icmp_type: u8,
    #[serde(default)]
    icmp_code: u8,
    #[serde(borrow)]
    proto: Option<Cow<'a, str>>,
    #[serde(borrow)]
    flow: Option<Flow<'a>>,
    #[serde(borrow)]
    netflow: Option<Netflow<'a>>,
    #[serde(borrow)]
    tcp: Option<Tcp<'a>>,
    #[serde(borrow)]
    dns: Option<Dns<'a>>,
}

#[derive(Deserialize)]
struct Flow<'a> {
    #[serde(default)]
    pkts_toserver: u64,
    #[serde(default)]
    pkts_toclient: u64,
    #[serde(default)]
    bytes_toserver: u64,
    #[serde(default)]
    bytes_toclient: u64,
    #[serde(borrow)]
    start: Option<Cow<'a, str>>,
    #[serde(borrow)]
    end: Option<Cow<'a, str>>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Netflow<'a> {
    #[serde(default)]
    pkts: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(borrow)]
    start: Option<Cow<'a, str>>,
    #[serde(borrow)]
    end: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Tcp<'a> {
    #[serde(borrow)]
    tcp_flags: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tcp_flags_ts: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tcp_flags_tc: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Dns<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rrname: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rrtype: Option<Cow<'a, str>>,
    /// Version 3 of the format keeps the questions here.
    #[serde(borrow, default)]
    queries: Vec<Query<'a>>,
}

#[derive(Deserialize)]
struct Query<'a> {
    #[serde(borrow)]
    rrname: Cow<'a, str>,
    #[serde(borrow)]
    rrtype: Option<Cow<'a, str>>,
}

fn missing(what: &str) -> Refusal {
    (RejectCause::Malformed, format!("`{what}` is missing"))
}

fn hex_flags(text: Option<&Cow<'_, str>>) -> u8 {
    text.and_then(|text| u8::from_str_radix(text, 16).ok()).unwrap_or(0)
}

/// Start, and length as a code, of a record that gives start and end.
fn span(start: Option<&str>, end: Option<&str>, stamp: Option<&str>) -> Result<(u64, u16), Refusal> {
    let first = start.or(stamp).ok_or_else(|| missing("timestamp"))?;
    let first = parse_text_time(first.as_bytes())?;
    let length = match end {
        Some(end) => parse_text_time(end.as_bytes())?.saturating_sub(first),
        None => 0,
    };
    Ok((first, duration_code(length)))
}

/// Suricata counts frames, with 14 bytes of Ethernet.
const LINK_BYTES: u64 = 14;

/// The flow of a line, number `number` of the log; what is no flow is no event.
pub(super) fn flow(line: &[u8], number: u64) -> Result<FlowRecord, Refusal> {
    let record: Record<'_> =
        serde_json::from_slice(line).map_err(|error| (RejectCause::Malformed, error.to_string()))?;
    if record.event_type != "flow" {
        return Err((RejectCause::NotAnEvent, String::new()));
    }
    let flow = record.flow.as_ref().ok_or_else(|| missing("flow"))?;
    let ip = |text: Option<&Cow<'_, str>>, what| parse_ip(text.ok_or_else(|| missing(what))?.as_bytes());
    let first = flow.start.as_deref().or(record.timestamp.as_deref()).ok_or_else(|| missing("timestamp"))?;
    let start_ns = parse_text_time(first.as_bytes())?;
    let last_ns = match flow.end.as_deref() {
        Some(end) => parse_text_time(end.as_bytes())?.max(start_ns),
        None => start_ns,
    };
    let protocol = record.proto.as_deref().map_or(0, |proto| protocol_number(proto.as_bytes()));
    let header = match protocol {
        6 => 40,
        1 | 17 | 58 => 28,
        _ => 20,
    };
    let side = |packets: u64, bytes: u64| {
        let ip_bytes = bytes.saturating_sub(packets.saturating_mul(LINK_BYTES));
        Side { bytes: ip_bytes.saturating_sub(packets.saturating_mul(header)), packets, ip_bytes }
    };
    let (kind, code) = (u16::from(record.icmp_type), u16::from(record.icmp_code));
    let icmp = matches!(protocol, 1 | 58);
    let mut flow_record = FlowRecord {
        id: number,
        start_ns,
        last_ns,
        originator: ip(record.src_ip.as_ref(), "src_ip")?.into(),
        originator_port: if icmp { kind } else { record.src_port },
        responder: ip(record.dest_ip.as_ref(), "dest_ip")?.into(),
        responder_port: if icmp { counterpart(protocol, kind).unwrap_or(code) } else { record.dest_port },
        protocol,
        state: ConnState::Oth,
        history: History::default(),
        sent: side(flow.pkts_toserver, flow.bytes_toserver),
        received: side(flow.pkts_toclient, flow.bytes_toclient),
        packets: (number, number),
        vlan: 0,
        tunnels: 0,
        cause: EndCause::Logged,
        sampling: 1,
    };
    let answered = flow.pkts_toclient > 0;
    match protocol {
        6 => {
            let tcp = record.tcp.as_ref();
            let asks = hex_flags(tcp.and_then(|tcp| tcp.tcp_flags_ts.as_ref()));
            let answers = hex_flags(tcp.and_then(|tcp| tcp.tcp_flags_tc.as_ref()));
            if asks | answers != 0 {
                judge_flags(&mut flow_record, asks, answered.then_some(answers));
            } else {
                flow_record.state = match (answered, flow.state.as_deref()) {
                    (false, _) => ConnState::S0,
                    (true, Some("closed")) => ConnState::Sf,
                    (true, Some("established")) => ConnState::S1,
                    (true, _) => ConnState::Oth,
                };
            }
        }
        17 => flow_record.state = if answered { ConnState::Sf } else { ConnState::S0 },
        _ => {}
    }
    Ok(flow_record)
}

impl Eve {
    fn record(&mut self, core: &mut Core, line: &[u8], events: &mut Vec<Event>) -> Result<(), Refusal> {
        let record: Record<'_> =
            serde_json::from_slice(line).map_err(|error| (RejectCause::Malformed, error.to_string()))?;
        let stamp = record.timestamp.as_deref();
        let ip = |text: Option<&Cow<'_, str>>, what| parse_ip(text.ok_or_else(|| missing(what))?.as_bytes());
        let protocol = record.proto.as_deref().map_or(0, |proto| protocol_number(proto.as_bytes()));
        let tcp = record.tcp.as_ref();
        match record.event_type.as_ref() {
            "flow" => {
                let flow = record.flow.as_ref().ok_or_else(|| missing("flow"))?;
                let (ts, duration) = span(flow.start.as_deref(), flow.end.as_deref(), stamp)?;
                let connection = Connection {
                    ts,
                    originator: ip(record.src_ip.as_ref(), "src_ip")?,
                    responder: ip(record.dest_ip.as_ref(), "dest_ip")?,
                    port: record.dest_port,
                    protocol,
                    duration,
                    sent: Direction {
                        bytes: flow.bytes_toserver,
                        packets: flow.pkts_toserver,
                        tcp_flags: hex_flags(tcp.and_then(|tcp| tcp.tcp_flags_ts.as_ref())),
                    },
                    received: Direction {
                        bytes: flow.bytes_toclient,
                        packets: flow.pkts_toclient,
                        tcp_flags: hex_flags(tcp.and_then(|tcp| tcp.tcp_flags_tc.as_ref())),
                    },
                };
                push_connection(core, &mut self.hosts, &connection, events)
            }
            "netflow" => {
                // One direction of a connection: the sender's and the receiver's view of the same bytes.
                let netflow = record.netflow.as_ref().ok_or_else(|| missing("netflow"))?;
                let (ts, duration) = span(netflow.start.as_deref(), netflow.end.as_deref(), stamp)?;
                let (from, to) =
                    (ip(record.src_ip.as_ref(), "src_ip")?, ip(record.dest_ip.as_ref(), "dest_ip")?);
                let (sender, receiver) = (self.hosts.host(core, from)?, self.hosts.host(core, to)?);
                let payload = FlowPayload {
                    peer: receiver.hash,
                    bytes: saturate_u32(netflow.bytes),
                    packets: saturate_u16(netflow.pkts),
                    port: record.dest_port,
                    protocol,
                    tcp_flags: hex_flags(tcp.and_then(|tcp| tcp.tcp_flags.as_ref())),
                    duration,
                };
                let base = flag::FLOW_START | flag::FLOW_END | flag::FLOW_RECORD;
                let flags = base | flag::FLOW_OUTBOUND | ip_flag(from);
                events.push(Event::flow(ts, sender.key, 0, flags, payload));
                let payload = FlowPayload { peer: sender.hash, ..payload };
                events.push(Event::flow(ts, receiver.key, 0, base | ip_flag(to), payload));
                Ok(())
            }
            "dns" => {
                let dns = record.dns.as_ref().ok_or_else(|| missing("dns"))?;
                if !matches!(dns.kind.as_deref(), Some("query" | "request")) {
                    return Err((RejectCause::NotAnEvent, String::new()));
                }
                let query = dns.queries.first();
                let name = dns.rrname.as_ref().or(query.map(|query| &query.rrname));
                let name = name.ok_or_else(|| missing("rrname"))?;
                let record_type = dns.rrtype.as_deref().or(query.and_then(|query| query.rrtype.as_deref()));
                let ts = parse_text_time(stamp.ok_or_else(|| missing("timestamp"))?.as_bytes())?;
                let client = self.hosts.host(core, ip(record.src_ip.as_ref(), "src_ip")?)?;
                let payload = name_payload(name.as_bytes(), record_type.map_or(0, record_type_number), 0);
                events.push(Event::name(ts, client.key, 0, payload));
                Ok(())
            }
            _ => Err((RejectCause::NotAnEvent, String::new())),
        }
    }
}

impl DecodeLine for Eve {
    fn line(&mut self, core: &mut Core, line: &[u8], number: u64, events: &mut Vec<Event>) {
        let start = events.len();
        match self.record(core, line, events) {
            Ok(()) => core.finish_unit(events, start),
            Err(refusal) => {
                events.truncate(start);
                core.refuse_with(refusal, Place::Line(number));
            }
        }
    }

    fn format(&self) -> String {
        "eve".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read_all, torture};
    use super::super::{Format, ReadOptions};
    use super::*;
    use tidegate_engine::kind;

    const LOG: &str = concat!(
        r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","flow_id":4,"event_type":"flow","src_ip":"10.0.0.1","src_port":4,"dest_ip":"10.0.0.2","dest_port":443,"proto":"TCP","flow":{"pkts_toserver":3,"pkts_toclient":2,"bytes_toserver":300,"bytes_toclient":200,"start":"2017-04-07T22:24:37.251547+0100","end":"2017-04-07T22:24:38.251547+0100"},"tcp":{"tcp_flags":"1b","tcp_flags_ts":"1a","tcp_flags_tc":"1b"}}"#,
        "\n",
        r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","event_type":"netflow","src_ip":"10.0.0.1","dest_ip":"10.0.0.2","dest_port":443,"proto":"UDP","netflow":{"pkts":1,"bytes":70}}"#,
        "\n",
        r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","event_type":"dns","src_ip":"fe80::1","dest_ip":"fe80::2","proto":"UDP","dns":{"type":"query","id":1,"rrname":"example.com","rrtype":"TXT"}}"#,
        "\n",
        r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","event_type":"alert","src_ip":"10.0.0.1"}"#,
        "\n",
    );

    #[test]
    fn flows_and_queries_are_read() {
        let (events, account, _) = read_all(Format::Eve, LOG.as_bytes(), &ReadOptions::default());
        assert_eq!((account.units, account.accepted, account.events), (4, 3, 5));
        assert_eq!(account.refused(RejectCause::NotAnEvent), 1);
        assert_eq!(events[0].ts_event, 1_491_600_277_251_547_000);
        let (sent, received) = (events[0].as_flow(), events[1].as_flow());
        assert_eq!((sent.bytes, sent.packets, sent.tcp_flags), (300, 3, 0x1a));
        assert_eq!((received.bytes, received.port, received.protocol), (200, 443, 6));
        assert_eq!(events[2].as_flow().bytes, 70);
        assert_eq!((events[4].kind, events[4].as_name().record_type), (kind::NAME, 16));
    }

    #[test]
    fn damage_never_panics() {
        torture(Format::Eve, LOG.as_bytes());
    }
}
