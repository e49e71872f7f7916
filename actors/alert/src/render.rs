//! An alert as others want to read it: JSON lines, EVE as Suricata writes it, syslog (RFC 5424), the body of a webhook.

use crate::episode::Episode;
use crate::finding::Severity;
use crate::text;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;
use xxhash_rust::xxh3::xxh3_64;

/// Why an alert is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is new.
    New,
    /// It was sent before, and has become more severe.
    Worse,
}

impl Event {
    /// Name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Worse => "worse",
        }
    }
}

/// The alert itself (`docs/alert.schema.json`), with `event`. Sinks `jsonl` and `webhook`.
#[must_use]
pub fn document(episode: &Episode, event: Event) -> Value {
    let mut value = episode.document();
    value["event"] = event.name().into();
    value
}

/// Smallest number of signatures that are a site's own, and how many there are.
const SIGNATURES: (u64, u64) = (1_000_000, 1_000_000);

/// The number of a kind in EVE: one of those Suricata leaves to a site, a hash of the kind's name.
#[must_use]
pub fn signature_id(kind: &str) -> u64 {
    SIGNATURES.0 + xxh3_64(kind.as_bytes()) % SIGNATURES.1
}

/// An alert of EVE. `src_ip` is the accused and `dest_ip` the peer where they are addresses; where the accused may be made up,
/// only the victim is there, as `dest_ip`.
#[must_use]
pub fn eve(episode: &Episode, event: Event) -> Value {
    let address = |text: &String| text.parse::<IpAddr>().is_ok().then(|| text.clone());
    let (source, target) = if episode.spoofed {
        (None, address(&episode.entity))
    } else {
        (address(&episode.entity), episode.peer.as_ref().and_then(address))
    };
    let severity = match episode.severity {
        Severity::High => 1,
        Severity::Medium => 2,
        Severity::Low => 3,
    };
    let mut metadata = json!({
        "tidegate_id": [episode.id.to_string()],
        "tidegate_event": [event.name()],
        "tidegate_entity": [episode.entity],
        "score": [format!("{:.6}", episode.score)],
        "count": [episode.count.to_string()],
    });
    if let Some(technique) = &episode.technique {
        metadata["mitre_technique_id"] = json!([technique]);
    }
    let method = if episode.method.is_empty() { String::new() } else { format!(" ({})", episode.method) };
    let mut value = json!({
        "timestamp": micros(episode.last_ts, "%Y-%m-%dT%H:%M:%S%.6f+0000"),
        "event_type": "alert",
        "alert": {
            "action": "allowed",
            "gid": 1,
            "signature_id": signature_id(&episode.kind),
            "rev": 1,
            "signature": format!("TIDEGATE {}{method}", episode.kind),
            "category": episode.kind,
            "severity": severity,
            "metadata": metadata,
        },
    });
    let mut put = |name: &str, text: Option<String>| text.map(|text| value[name] = text.into());
    put("src_ip", source);
    put("dest_ip", target);
    if let Some(port) = episode.port {
        value["dest_port"] = port.into();
    }
    value
}

/// An instant in UTC to the microsecond, in this form of `strftime`.
fn micros(ns: u64, form: &str) -> String {
    let micros = i64::try_from(ns / 1_000).unwrap_or(i64::MAX);
    let stamp = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    stamp.strftime(form).to_string()
}

/// Longest message of syslog, in bytes: what RFC 5424 asks every receiver to take.
pub const SYSLOG_BYTES_MAX: usize = 2_048;
/// Facility: security and authorization.
const FACILITY: u32 = 4;
/// Name of the structured data: 32473 is the number that RFC 5612 gives to those who have none.
const SD_ID: &str = "tidegate@32473";

/// A message of syslog, RFC 5424, without a line end: facility 4; severity 2 for high, 4 for medium, 5 for low; the alert as
/// structured data and as text.
#[must_use]
pub fn syslog(episode: &Episode, event: Event, host: &str) -> String {
    let severity = match episode.severity {
        Severity::High => 2,
        Severity::Medium => 4,
        Severity::Low => 5,
    };
    let stamp = micros(episode.last_ts, "%Y-%m-%dT%H:%M:%S%.6fZ");
    let mut text = format!(
        "<{}>1 {stamp} {} tidegate - {} [{SD_ID}",
        FACILITY * 8 + severity,
        header(host, 255),
        header(&episode.kind, 32),
    );
    let mut put = |name: &str, value: &str| {
        let _ = write!(text, " {name}=\"");
        for c in value.chars() {
            if matches!(c, '"' | '\\' | ']') {
                text.push('\\');
            }
            text.push(if c.is_control() { ' ' } else { c });
        }
        text.push('"');
    };
    put("id", &episode.id.to_string());
    put("event", event.name());
    put("entity", &episode.entity);
    if let Some(peer) = &episode.peer {
        put("peer", peer);
    }
    if let Some(port) = episode.port {
        put("port", &port.to_string());
    }
    if let Some(technique) = &episode.technique {
        put("technique", technique);
    }
    put("severity", episode.severity.name());
    put("score", &format!("{:.6}", episode.score));
    put("count", &episode.count.to_string());
    text.push_str("] ");
    let mut words = format!("{} by {}", episode.kind, episode.entity);
    for reason in &episode.features {
        let _ = write!(words, "; {} {} (expected {})", reason.name, reason.seen, reason.expected);
    }
    // Past 127 the text would need a byte order mark.
    text.extend(words.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }));
    text.truncate(text::bounded(&text, SYSLOG_BYTES_MAX).len());
    text
}

/// A field of the header: visible ASCII, not longer than this, `-` where nothing is left.
fn header(value: &str, bytes_max: usize) -> String {
    let text: String =
        value.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(bytes_max).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::EpisodeId;
    use crate::finding::{Finding, Proof, Range, Reason};
    use proptest::prelude::*;

    fn finding() -> Finding {
        Finding {
            kind: "vertical-scan".to_owned(),
            entity: "10.0.0.66".to_owned(),
            spoofed: false,
            peer: Some("10.0.0.10".to_owned()),
            port: Some(80),
            method: "syn".to_owned(),
            technique: Some("T1046".to_owned()),
            severity: Severity::Medium,
            score: 0.93,
            reasons: vec![Reason::new("ports", 40.0, 15.0)],
            range: Range {
                first: 1,
                last: 80,
                first_ts: 1_700_000_000_000_000_000,
                last_ts: 1_700_000_000_790_000_000,
            },
            ts: 1_700_000_000_790_123_456,
            proof: Some(Proof { input: "i".to_owned(), units: 80, at_end: false, ts: 1, score_bits: 7 }),
            unproven: None,
            silence_s: None,
        }
    }

    fn episode(finding: &Finding) -> Episode {
        Episode::new(EpisodeId::of(finding), finding, "other")
    }

    fn schema() -> jsonschema::Validator {
        let schema = serde_json::from_str(include_str!("../../../docs/alert.schema.json")).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    }

    #[test]
    fn documents_keep_to_the_published_schema() {
        let schema = schema();
        let mut episode = episode(&finding());
        let valid =
            |value: &Value| schema.iter_errors(value).map(|error| error.to_string()).collect::<Vec<_>>();
        assert_eq!(valid(&document(&episode, Event::New)), [""; 0]);
        assert_eq!(valid(&episode.document()), [""; 0]);
        episode.told = Some(Severity::High);
        (episode.peer, episode.port, episode.technique, episode.proof) = (None, None, None, None);
        episode.note = Some("seen".to_owned());
        assert_eq!(valid(&document(&episode, Event::Worse)), [""; 0]);
        // And the schema can say no.
        for (name, wrong) in
            [("severity", json!("dire")), ("score", json!(1.5)), ("first_ts", json!(7)), ("more", json!(1))]
        {
            let mut value = episode.document();
            value[name] = wrong;
            assert!(!schema.is_valid(&value), "{name}");
        }
    }

    #[test]
    fn eve_has_suricatas_fields() {
        let value = eve(&episode(&finding()), Event::New);
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.790123+0000");
        assert_eq!((&value["event_type"], &value["src_ip"]), (&json!("alert"), &json!("10.0.0.66")));
        assert_eq!((&value["dest_ip"], &value["dest_port"]), (&json!("10.0.0.10"), &json!(80)));
        assert_eq!((&value["alert"]["severity"], &value["alert"]["action"]), (&json!(2), &json!("allowed")));
        assert_eq!(value["alert"]["metadata"]["mitre_technique_id"], json!(["T1046"]));
        let number = value["alert"]["signature_id"].as_u64().unwrap();
        assert!((1_000_000..2_000_000).contains(&number));
        let victim = eve(&episode(&Finding { spoofed: true, ..finding() }), Event::New);
        assert_eq!((victim.get("src_ip"), &victim["dest_ip"]), (None, &json!("10.0.0.66")));
        let named = eve(&episode(&Finding { entity: "example.com".to_owned(), ..finding() }), Event::New);
        assert_eq!(named.get("src_ip"), None);
    }

    #[test]
    fn syslog_is_as_rfc_5424_has_it() {
        let text = syslog(&episode(&finding()), Event::Worse, "sensor 1");
        let id = EpisodeId::of(&finding());
        assert_eq!(
            text,
            format!(
                "<36>1 2023-11-14T22:13:20.790123Z sensor_1 tidegate - vertical-scan [tidegate@32473 id=\"{id}\" event=\"worse\" \
                 entity=\"10.0.0.66\" peer=\"10.0.0.10\" port=\"80\" technique=\"T1046\" severity=\"medium\" score=\"0.930000\" \
                 count=\"1\"] vertical-scan by 10.0.0.66; ports 40 (expected 15)"
            )
        );
    }

    proptest! {
        /// Whatever names are in it, a message stays one line of bounded length whose structured data can be read back.
        #[test]
        fn syslog_cannot_be_broken_out_of(entity in ".{0,300}", kind in ".{0,300}", host in ".{0,20}") {
            let finding = Finding { entity: entity.clone(), kind, ..finding() }.bounded();
            let text = syslog(&episode(&finding), Event::New, &host);
            prop_assert!(text.len() <= SYSLOG_BYTES_MAX && !text.contains(char::is_control));
            let (_, rest) = text.split_once(" entity=\"").unwrap();
            let (mut value, mut chars) = (String::new(), rest.chars());
            loop {
                match chars.next() {
                    Some('\\') => value.push(chars.next().unwrap()),
                    Some('"') => break,
                    Some(c) => value.push(c),
                    None => panic!("no end: {text}"),
                }
            }
            let plain: String = finding.entity.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            prop_assert_eq!(value, plain);
        }
    }
}
