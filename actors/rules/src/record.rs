//! What rules see: a kind, a time, and fields under Zeek's names.

use std::borrow::Cow;
use std::net::IpAddr;
use tidegate_flow::FlowRecord;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A connection: a flow of packets, a row of `conn.log`, EVE's `flow` and `netflow`.
    Flow,
    /// A question to DNS and its answer.
    Dns,
    /// A request in clear and its answer.
    Http,
    /// An alert of ours.
    Alert,
    /// Another record of a log.
    Other,
    /// A row of results, of the stream with this number ([`crate::Streams`]).
    Row(u16),
}

impl Kind {
    /// Every kind of record that is no row of results.
    pub const ALL: [Self; 5] = [Self::Flow, Self::Dns, Self::Http, Self::Alert, Self::Other];

    /// Name in patterns.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Alert => "alert",
            Self::Other => "other",
            Self::Row(_) => "row",
        }
    }
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Made here.
    Own,
    /// A log of Zeek.
    Zeek,
    /// Suricata's EVE.
    Eve,
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Number(f64),
    /// An address.
    Ip(IpAddr),
    /// Yes or no.
    Bool(bool),
}

impl Value {
    /// As text: whole numbers without a fraction.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => number.to_string().into(),
            Self::Ip(address) => address.to_string().into(),
            Self::Bool(yes) => Cow::Borrowed(if *yes { "true" } else { "false" }),
        }
    }

    /// As a number, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            Self::Ip(_) | Self::Bool(_) => None,
        }
    }

    /// As an address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Text(text) => text.parse().ok(),
            Self::Number(_) | Self::Bool(_) => None,
        }
    }
}

/// Fields of every kind that have a number of their own, with the kinds that have them: Zeek's names.
const FIELDS: &[(&str, &[Kind])] = {
    use Kind::{Alert, Dns, Flow, Http};
    const NET: &[Kind] = &[Flow, Dns, Http];
    &[
        ("id.orig_h", NET),
        ("id.orig_p", NET),
        ("id.resp_h", NET),
        ("id.resp_p", NET),
        ("uid", NET),
        ("ts", NET),
        ("proto", &[Flow, Dns]),
        ("service", &[Flow]),
        ("duration", &[Flow]),
        ("orig_bytes", &[Flow]),
        ("resp_bytes", &[Flow]),
        ("conn_state", &[Flow]),
        ("local_orig", &[Flow]),
        ("local_resp", &[Flow]),
        ("missed_bytes", &[Flow]),
        ("history", &[Flow]),
        ("orig_pkts", &[Flow]),
        ("orig_ip_bytes", &[Flow]),
        ("resp_pkts", &[Flow]),
        ("resp_ip_bytes", &[Flow]),
        ("vlan", &[Flow]),
        ("community_id", &[Flow]),
        ("query", &[Dns]),
        ("qtype", &[Dns]),
        ("qtype_name", &[Dns]),
        ("rcode", &[Dns]),
        ("rcode_name", &[Dns]),
        ("answers", &[Dns]),
        ("answer_bytes", &[Dns]),
        ("rejected", &[Dns]),
        ("method", &[Http, Alert]),
        ("host", &[Http]),
        ("uri", &[Http]),
        ("user_agent", &[Http]),
        ("referrer", &[Http]),
        ("status_code", &[Http]),
        ("status_msg", &[Http]),
        ("version", &[Http]),
        ("request_body_len", &[Http]),
        ("response_body_len", &[Http]),
        ("username", &[Http]),
        ("kind", &[Alert]),
        ("entity", &[Alert]),
        ("peer", &[Alert]),
        ("port", &[Alert]),
        ("severity", &[Alert]),
        ("score", &[Alert]),
        ("technique", &[Alert]),
    ]
};

/// Other names of those fields: of Sigma's generic log sources, of EVE, of ECS.
const ALIASES: &[(&str, &str)] = &[
    ("src_ip", "id.orig_h"),
    ("src_port", "id.orig_p"),
    ("dst_ip", "id.resp_h"),
    ("dest_ip", "id.resp_h"),
    ("dst_port", "id.resp_p"),
    ("dest_port", "id.resp_p"),
    ("SourceIp", "id.orig_h"),
    ("SourcePort", "id.orig_p"),
    ("DestinationIp", "id.resp_h"),
    ("DestinationPort", "id.resp_p"),
    ("source.ip", "id.orig_h"),
    ("source.port", "id.orig_p"),
    ("destination.ip", "id.resp_h"),
    ("destination.port", "id.resp_p"),
    ("protocol", "proto"),
    ("Protocol", "proto"),
    ("network.transport", "proto"),
    ("QueryName", "query"),
    ("dns.question.name", "query"),
    ("record_type", "qtype_name"),
    ("QueryType", "qtype_name"),
    ("c-ip", "id.orig_h"),
    ("cs-method", "method"),
    ("c-uri", "uri"),
    ("cs-uri", "uri"),
    ("cs-host", "host"),
    ("c-useragent", "user_agent"),
    ("cs-user-agent", "user_agent"),
    ("cs-referrer", "referrer"),
    ("sc-status", "status_code"),
];

/// Names of fields of EVE that are fields of ours.
const EVE: &[(&str, &str)] = &[
    ("src_ip", "id.orig_h"),
    ("src_port", "id.orig_p"),
    ("dest_ip", "id.resp_h"),
    ("dest_port", "id.resp_p"),
    ("proto", "proto"),
    ("community_id", "community_id"),
    ("app_proto", "service"),
    ("flow.bytes_toserver", "orig_ip_bytes"),
    ("flow.bytes_toclient", "resp_ip_bytes"),
    ("flow.pkts_toserver", "orig_pkts"),
    ("flow.pkts_toclient", "resp_pkts"),
    ("dns.rrname", "query"),
    ("dns.rrtype", "qtype_name"),
    ("dns.rcode", "rcode_name"),
    ("dns.queries.rrname", "query"),
    ("dns.queries.rrtype", "qtype_name"),
    ("http.hostname", "host"),
    ("http.url", "uri"),
    ("http.http_method", "method"),
    ("http.http_user_agent", "user_agent"),
    ("http.http_refer", "referrer"),
    ("http.status", "status_code"),
];

/// The name of a field, as rules hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// One of ours, by number.
    Known(u8),
    /// A field of a log under its own name.
    Own(Box<str>),
    /// A column of streams of results, by number.
    Column(u16),
}

/// The number of a field under its one name.
#[must_use]
pub fn known(name: &str) -> Option<u8> {
    FIELDS.iter().position(|(field, _)| *field == name).and_then(|at| u8::try_from(at).ok())
}

/// The number of a field of EVE that is one of ours.
#[must_use]
pub fn of_eve(name: &str) -> Option<u8> {
    EVE.iter().find(|(other, _)| *other == name).and_then(|(_, field)| known(field))
}

/// Names of a kind's fields.
pub fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    FIELDS.iter().filter(move |(_, kinds)| kinds.contains(&kind)).map(|(name, _)| *name)
}

impl Key {
    /// The field that rules over `kind` mean by `name`: ours, or another name of it. `None` where the kind has no such field. Where the kind is
    /// [`Kind::Other`], any name is taken.
    #[must_use]
    pub fn of(kind: Kind, name: &str) -> Option<Self> {
        let field = ALIASES.iter().find(|(other, _)| *other == name).map_or(name, |(_, field)| field);
        match known(field) {
            Some(at) if kind == Kind::Other || FIELDS[usize::from(at)].1.contains(&kind) => {
                Some(Self::Known(at))
            }
            None if kind == Kind::Other && !name.is_empty() => {
                Some(of_eve(name).map_or_else(|| Self::Own(name.into()), Self::Known))
            }
            _ => None,
        }
    }

    /// Its name; empty for a column, whose name its streams know.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(at) => FIELDS[usize::from(*at)].0,
            Self::Own(name) => name,
            Self::Column(_) => "",
        }
    }
}

/// Values of one record, at most; more of a log's row are not looked at.
pub const VALUES_MAX: usize = 256;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// Where it comes from.
    pub origin: Origin,
    /// When it was known, ns since 1970.
    pub ts: u64,
    /// First and last packet or row it rests on, from 1.
    pub units: (u64, u64),
    values: Vec<(Key, Value)>,
}

impl Record {
    /// A record without fields.
    #[must_use]
    pub fn new(kind: Kind, origin: Origin, ts: u64, units: (u64, u64)) -> Self {
        Self { kind, origin, ts, units, values: Vec::new() }
    }

    /// Adds a value; a field may have several.
    pub fn put(&mut self, key: Key, value: Value) {
        if self.values.len() < VALUES_MAX {
            self.values.push((key, value));
        }
    }

    /// Adds a value of a field under its one name; a name that is none of ours is left out.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(at) = known(name) {
            self.put(Key::Known(at), value.into());
        }
        self
    }

    /// The values of a field.
    pub fn values<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Value> {
        self.values.iter().filter(move |(other, _)| other == key).map(|(_, value)| value)
    }

    /// The first value of a field of ours.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&Value> {
        let at = known(name)?;
        self.values.iter().find(|(key, _)| *key == Key::Known(at)).map(|(_, value)| value)
    }

    /// A flow as Zeek's `conn.log` shows it.
    #[must_use]
    pub fn of_flow(flow: &FlowRecord, ts: u64) -> Self {
        let mut record = Self::new(Kind::Flow, Origin::Own, ts, flow.packets).ends(flow);
        record = record
            .with("proto", flow.protocol_name())
            .with("ts", flow.start_ns as f64 / 1e9)
            .with("orig_bytes", flow.sent.bytes as f64)
            .with("resp_bytes", flow.received.bytes as f64)
            .with("conn_state", flow.state.name())
            .with("history", flow.history.as_str().to_owned())
            .with("orig_pkts", flow.sent.packets as f64)
            .with("orig_ip_bytes", flow.sent.ip_bytes as f64)
            .with("resp_pkts", flow.received.packets as f64)
            .with("resp_ip_bytes", flow.received.ip_bytes as f64)
            .with("community_id", flow.community_id());
        if flow.vlan > 0 {
            record = record.with("vlan", f64::from(flow.vlan));
        }
        match flow.duration_ns() {
            Some(ns) => record.with("duration", ns as f64 / 1e9),
            None => record,
        }
    }

    /// Adds who talks to whom.
    #[must_use]
    pub fn ends(self, flow: &FlowRecord) -> Self {
        self.with("id.orig_h", IpAddr::from(flow.originator))
            .with("id.orig_p", f64::from(flow.originator_port))
            .with("id.resp_h", IpAddr::from(flow.responder))
            .with("id.resp_p", f64::from(flow.responder_port))
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        // An IPv4 address in IPv6's clothes is still the same host.
        Self::Ip(address.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_one_field() {
        assert!(FIELDS.len() < 256);
        for (other, field) in ALIASES.iter().chain(EVE) {
            assert!(known(field).is_some(), "{other} leads to {field}, which is none");
        }
        assert_eq!(Key::of(Kind::Flow, "dst_port"), Key::of(Kind::Flow, "id.resp_p"));
        assert_eq!(Key::of(Kind::Flow, "query"), None);
        assert_eq!(Key::of(Kind::Other, "alert.signature"), Some(Key::Own("alert.signature".into())));
        assert_eq!(Key::of(Kind::Other, "http.url").unwrap().name(), "uri");
        assert!(names(Kind::Dns).any(|name| name == "query") && !names(Kind::Dns).any(|name| name == "uri"));
    }

    #[test]
    fn values_convert() {
        assert_eq!(Value::from(443.0).text(), "443");
        assert_eq!(Value::from("7.5").number(), Some(7.5));
        assert_eq!(Value::from("x").number(), None);
        assert_eq!(Value::from("::ffff:1.2.3.4".parse::<IpAddr>().unwrap()).text(), "1.2.3.4");
        assert_eq!(Value::from("::1").address(), "::1".parse().ok());
    }

    #[test]
    fn a_record_has_a_bound() {
        let mut record = Record::new(Kind::Flow, Origin::Own, 0, (1, 1));
        (0..1_000).for_each(|n| record.put(Key::Own("a".into()), Value::Number(f64::from(n))));
        assert_eq!(record.values(&Key::Own("a".into())).count(), VALUES_MAX);
    }
}
