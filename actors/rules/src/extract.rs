//! Records of packets: flows as they end, questions to DNS and requests of HTTP with their answers.

use crate::record::{Kind, Origin, Record, Value};
use std::collections::HashMap;
use tidegate_flow::hash::Fixed;
use tidegate_flow::packet::{Fragment, Packet, protocol};
use tidegate_flow::{EndCause, Flow, FlowRecord, Watch, dns};

/// Questions and requests that wait for their answer; more are told as they are, without one.
const PENDING_MAX: usize = 16_384;
/// Records that wait to be taken.
const RECORDS_MAX: usize = 65_536;
/// Longest text kept of a request, bytes.
const TEXT_BYTES_MAX: usize = 2_048;
/// Headers of a request that are looked at.
const HEADERS_MAX: usize = 64;
const DNS_PORT: u16 = 53;

/// Makes records of what the flow table sees.
#[derive(Debug, Clone, Default)]
pub struct Extract {
    pending: HashMap<u64, Record, Fixed>,
    records: Vec<Record>,
    missed: u64,
    now: u64,
}

impl Extract {
    /// Takes a row of a flow log.
    pub fn logged(&mut self, flow: &FlowRecord) {
        self.now = self.now.max(flow.last_ns);
        // It goes on: a flow is a record when it ends.
        if flow.cause == EndCause::Interim {
            return;
        }
        self.put(Record::of_flow(flow, self.now));
    }

    /// Gives the records made since the last call.
    pub fn take_records(&mut self, mut take: impl FnMut(Record)) {
        self.records.drain(..).for_each(&mut take);
    }

    /// Records that were not made because there were too many at once, and answers that were not put to their questions.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn put(&mut self, record: Record) {
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
        } else {
            self.missed += 1;
        }
    }

    /// Lets a question of a flow wait for its answer.
    fn wait(&mut self, flow: u64, record: Record) {
        if self.pending.len() < PENDING_MAX {
            self.pending.insert(flow, record);
        } else {
            self.missed += 1;
            self.put(record);
        }
    }

    /// What waits of a flow is told without its answer.
    fn flush(&mut self, flow: u64) {
        if let Some(mut record) = self.pending.remove(&flow) {
            record.ts = self.now;
            self.put(record);
        }
    }

    fn begin(&self, kind: Kind, flow: &Flow, packet: &Packet<'_>) -> Record {
        Record::new(kind, Origin::Own, self.now, (packet.number, packet.number))
            .ends(&flow.record)
            .with("ts", packet.ts as f64 / 1e9)
    }

    fn dns(&mut self, flow: &Flow, packet: &Packet<'_>) {
        let Some(message) = dns::read(packet.payload) else { return };
        let id = flow.record.id;
        let name = String::from_utf8_lossy(message.name()).into_owned();
        if !message.response {
            self.flush(id);
            let record = self
                .begin(Kind::Dns, flow, packet)
                .with("proto", flow.record.protocol_name())
                .with("query", name)
                .with("qtype", f64::from(message.kind))
                .with("qtype_name", qtype(message.kind));
            self.wait(id, record);
            return;
        }
        let asked =
            self.pending.remove(&id).filter(|asked| asked.first("query") == Some(&Value::from(name.clone())));
        let mut record = asked.unwrap_or_else(|| {
            self.begin(Kind::Dns, flow, packet)
                .with("proto", flow.record.protocol_name())
                .with("query", name)
                .with("qtype", f64::from(message.kind))
                .with("qtype_name", qtype(message.kind))
        });
        record = record
            .with("rcode", f64::from(message.code))
            .with("rcode_name", rcode(message.code))
            .with("answer_bytes", f64::from(message.answer_bytes));
        record.ts = self.now;
        record.units.1 = packet.number;
        self.put(record);
    }

    fn request(&mut self, flow: &Flow, packet: &Packet<'_>) {
        // A method is upper case letters; most payloads end here.
        let word = packet.payload.iter().take(12).position(|&byte| byte == b' ');
        if word.is_none_or(|end| end < 3 || !packet.payload[..end].iter().all(u8::is_ascii_uppercase)) {
            return;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        // A request that is cut off still shows its line and the headers that are there.
        if request.parse(packet.payload).is_err() {
            return;
        }
        let (Some(method), Some(uri)) = (request.method, request.path) else { return };
        let mut record = self
            .begin(Kind::Http, flow, packet)
            .with("method", method.to_owned())
            .with("uri", bounded(uri.as_bytes()));
        if let Some(version) = request.version {
            record = record.with("version", if version == 0 { "1.0" } else { "1.1" });
        }
        for header in request.headers.iter().filter(|header| !header.name.is_empty()) {
            let field = match header.name.to_ascii_lowercase().as_str() {
                "host" => "host",
                "user-agent" => "user_agent",
                "referer" => "referrer",
                _ => continue,
            };
            record = record.with(field, bounded(header.value));
        }
        self.flush(flow.record.id);
        self.wait(flow.record.id, record);
    }

    fn response(&mut self, flow: &Flow, packet: &Packet<'_>) {
        if !packet.payload.starts_with(b"HTTP/1.") {
            return;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(packet.payload);
        let Some(code) = response.code.filter(|_| parsed.is_ok()) else { return };
        // More than a word of what goes on is no answer yet.
        if (100..200).contains(&code) {
            return;
        }
        let Some(record) = self.pending.remove(&flow.record.id) else { return };
        let mut record = record
            .with("status_code", f64::from(code))
            .with("status_msg", bounded(response.reason.unwrap_or_default().as_bytes()));
        record.ts = self.now;
        record.units.1 = packet.number;
        self.put(record);
    }
}

impl Watch for Extract {
    fn packet(&mut self, flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) {
        self.now = self.now.max(packet.ts);
        if packet.payload.is_empty() || packet.fragment == Fragment::Later {
            return;
        }
        match packet.protocol {
            protocol::UDP if packet.source_port == DNS_PORT || packet.target_port == DNS_PORT => {
                self.dns(flow, packet)
            }
            protocol::TCP if from_originator => self.request(flow, packet),
            protocol::TCP => self.response(flow, packet),
            _ => {}
        }
    }

    fn record(&mut self, _flow: &mut Flow, record: &FlowRecord) {
        self.now = self.now.max(record.last_ns);
        if record.cause != EndCause::Interim {
            self.flush(record.id);
            self.put(Record::of_flow(record, self.now));
        }
    }
}

fn bounded(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).into_owned()
}

/// Zeek's name of a type of DNS.
fn qtype(number: u16) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        41 => "EDNS",
        43 => "DS",
        46 => "RRSIG",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        252 => "AXFR",
        255 => "*",
        other => return format!("query-{other}"),
    };
    name.to_owned()
}

fn rcode(number: u8) -> String {
    let name = match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        other => return format!("rcode-{other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_flow::{FlowTable, Frame, TableOptions, parse};

    /// An IPv4 packet: TCP with PSH and ACK, or UDP.
    fn packet(udp: bool, from: (u8, u16), to: (u8, u16), sequence: u32, payload: &[u8]) -> Vec<u8> {
        let transport = if udp { 8 } else { 20 };
        let length = (20 + transport + payload.len()) as u16;
        let mut out = vec![0x45, 0];
        out.extend(length.to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, if udp { 17 } else { 6 }, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
        out.extend(from.1.to_be_bytes());
        out.extend(to.1.to_be_bytes());
        if udp {
            out.extend((8 + payload.len() as u16).to_be_bytes());
            out.extend([0, 0]);
        } else {
            out.extend(sequence.to_be_bytes());
            out.extend([0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        }
        out.extend(payload);
        out
    }

    fn records(packets: &[Vec<u8>]) -> Vec<Record> {
        let mut table = FlowTable::new(TableOptions { flows_max: 64, ..TableOptions::default() });
        let (mut extract, mut records) = (Extract::default(), Vec::new());
        for (at, bytes) in packets.iter().enumerate() {
            const RAW: u32 = 101;
            match parse(at as u64 + 1, at as u64 * 1_000_000, RAW, bytes).unwrap() {
                Frame::Ip(packet) => table.packet(&packet, &mut extract),
                other => panic!("{other:?}"),
            }
            extract.take_records(|record| records.push(record));
        }
        table.finish(&mut extract);
        extract.take_records(|record| records.push(record));
        assert_eq!(extract.missed(), 0);
        records
    }

    fn text(record: &Record, name: &str) -> String {
        record.first(name).map(|value| value.text().into_owned()).unwrap_or_default()
    }

    #[test]
    fn questions_come_with_their_answers() {
        let message = |flags: u16, kind: u8| {
            let mut bytes = vec![0, 7];
            bytes.extend(flags.to_be_bytes());
            bytes.extend(b"\0\x01\0\0\0\0\0\0\x07example\x03com\0\0");
            bytes.extend([kind, 0, 1]);
            bytes
        };
        let (client, server) = ((1, 5_000), (2, 53));
        let found = records(&[
            packet(true, client, server, 0, &message(0x0100, 16)),
            packet(true, server, client, 0, &message(0x8183, 16)),
            packet(true, client, server, 0, &message(0x0100, 1)),
        ]);
        let dns: Vec<&Record> = found.iter().filter(|record| record.kind == Kind::Dns).collect();
        assert_eq!(dns.len(), 2);
        let said =
            ["query", "qtype_name", "rcode_name", "id.orig_h", "id.resp_p"].map(|name| text(dns[0], name));
        assert_eq!(said, ["example.com", "TXT", "NXDOMAIN", "10.0.0.1", "53"]);
        assert_eq!((dns[0].units, dns[0].ts), ((1, 2), 1_000_000));
        // What was never answered is told as its flow ends.
        assert_eq!((text(dns[1], "qtype_name"), text(dns[1], "rcode_name")), ("A".to_owned(), String::new()));
        assert_eq!(found.last().map(|record| record.kind), Some(Kind::Flow));
    }

    #[test]
    fn requests_come_with_their_answers() {
        let (client, server) = ((1, 5_000), (2, 80));
        let ask = b"GET /admin?x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl/8\r\n\r\n";
        let cut = b"POST /login HTTP/1.1\r\nHost: b.example\r\nUser-Age";
        let found = records(&[
            packet(false, client, server, 1, ask),
            packet(false, server, client, 1, b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n"),
            packet(false, client, server, 1 + ask.len() as u32, cut),
            packet(false, client, server, 900, b"nothing of the kind"),
        ]);
        let http: Vec<&Record> = found.iter().filter(|record| record.kind == Kind::Http).collect();
        assert_eq!(http.len(), 2);
        let said = ["method", "uri", "host", "user_agent", "status_code", "status_msg"]
            .map(|name| text(http[0], name));
        assert_eq!(said, ["GET", "/admin?x", "a.example", "curl/8", "404", "Not Found"]);
        let said = ["method", "uri", "host", "status_code"].map(|name| text(http[1], name));
        assert_eq!(said, ["POST", "/login", "b.example", ""]);
    }
}
