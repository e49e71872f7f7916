//! Data inside DNS: many different names under one domain that carry more than names do.
//!
//! A carrier is a query with a label that is long and mixed like an encoding, or of a type that no resolver asks for. Ordinary
//! clients ask the same few names; content networks, block lists and reverse lookups have many names, but short labels.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Hosts, furthest};
use crate::address::Ip;
use crate::dns::{Message, NULL};
use crate::hash::{Recent, hash_of};
use crate::sketch::Distinct;
use crate::table::SECOND;

/// Window of the counts.
pub const WINDOW_NS: u64 = 300 * SECOND;
/// Different carriers in the window. Telemetry and antivirus look-ups send a few.
pub const CARRIERS_MIN: u32 = 20;
/// Share of a domain's queries that are carriers.
pub const SHARE_MIN: f64 = 0.5;
/// Letters of a label that can be an encoding: 24 carry 12 bytes of hexadecimal or 15 of base32.
pub const LABEL_MIN: usize = 24;
/// Answer bytes per query byte from which the tunnel carries packets back, not only data out.
pub const BACK_MIN: f64 = 2.0;
/// Types used for raw bytes: NULL and the private ones that iodine uses.
const RAW_TYPES: [u16; 3] = [NULL, 65_399, 65_432];
const TRACKED_MAX: usize = 1 << 13;

#[derive(Debug, Clone)]
struct Domain {
    range: Range,
    queries: u32,
    carriers: u32,
    raw: u32,
    different: Distinct,
    name_bytes: u64,
    answer_bytes: u64,
    answers: u32,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Names {
    /// By client, server and domain: tunnels without a domain of their own talk to their server directly.
    domains: Recent<(Ip, Ip, u64), Domain>,
}

impl Default for Names {
    fn default() -> Self {
        Self { domains: Recent::new(TRACKED_MAX) }
    }
}

impl Names {
    /// Takes a message between a client and a server.
    pub fn take(
        &mut self,
        (client, server): (Ip, Ip),
        message: &Message,
        (number, ts): (u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let new = || Domain {
            range: Range::at(number, ts),
            queries: 0,
            carriers: 0,
            raw: 0,
            different: Distinct::default(),
            name_bytes: 0,
            answer_bytes: 0,
            answers: 0,
        };
        let name = message.name();
        let domain = self.domains.entry((client, server, hash_of(domain_of(name))), new);
        if ts.saturating_sub(domain.range.first_ns) > WINDOW_NS {
            *domain = new();
        }
        domain.range.cover(number, ts);
        if message.response {
            domain.answers += 1;
            domain.answer_bytes += u64::from(message.answer_bytes);
            return;
        }
        domain.queries += 1;
        let raw = RAW_TYPES.contains(&message.kind);
        domain.raw += u32::from(raw);
        if !raw && !is_carrier(name) {
            return;
        }
        domain.carriers += 1;
        domain.name_bytes += name.len() as u64;
        let before = domain.different.count();
        let new = domain.different.insert(hash_of(name));
        let different = domain.different.count();
        let share = f64::from(domain.carriers) / f64::from(domain.queries);
        // Carriers do not repeat: each takes something new.
        let fresh = f64::from(different) / f64::from(domain.carriers);
        if !new || share < SHARE_MIN || fresh < 0.5 {
            return;
        }
        let times = f64::from(different) / f64::from(CARRIERS_MIN);
        if different < CARRIERS_MIN {
            if steps(before.into(), different.into(), CARRIERS_MIN.into()) {
                alerts.note(Measure::Carriers, furthest(hosts, client), times);
            }
            return;
        }
        let probability = alerts.weigh(Measure::Carriers, furthest(hosts, client), times);
        let back = domain.answer_bytes as f64 / domain.name_bytes.max(1) as f64;
        let two_way = domain.raw * 5 >= domain.carriers || back >= BACK_MIN;
        let (kind, method) = match (two_way, domain.raw * 5 >= domain.carriers) {
            (true, true) => (Kind::DnsTunnel, "raw records"),
            (true, false) => (Kind::DnsTunnel, "large answers"),
            (false, _) => (Kind::DnsExfiltration, "encoded names"),
        };
        // One channel is one kind; the first finding stands.
        let other = if two_way { Kind::DnsExfiltration } else { Kind::DnsTunnel };
        let kind = if alerts.is_on(other, client, ts) { other } else { kind };
        alerts.raise(
            Alert::new(kind, client, domain.range, ts)
                .against(server, Some(53))
                .rated(Severity::High, probability, method)
                .because("different names that carry data in 5 min", different, CARRIERS_MIN - 1)
                .because("share of the domain's queries", share, SHARE_MIN)
                .because("letters per name", domain.name_bytes as f64 / f64::from(domain.carriers), 20.0)
                .because("answer bytes per letter asked", back, BACK_MIN),
        );
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.domains.bytes(|domain| domain.different.owned_bytes())
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.domains.dropped()
    }
}

/// The last two labels; nothing where the last label is none that a root server knows (tunnels that talk to their server directly
/// need no domain, so data stands there).
fn domain_of(name: &[u8]) -> &[u8] {
    let mut labels = name.rsplitn(3, |&byte| byte == b'.');
    let (top, second) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let top_is_one = top.iter().all(u8::is_ascii_alphabetic) || top.starts_with(b"xn--");
    if !top_is_one || top.len() > 24 {
        return b"";
    }
    &name[name.len() - (top.len() + 1 + second.len()).min(name.len())..]
}

/// Whether a name has a label like an encoding: long, and of letters and digits in the proportions of one, or with bytes that host
/// names do not have.
fn is_carrier(name: &[u8]) -> bool {
    name.split(|&byte| byte == b'.').any(|label| {
        if label.len() < LABEL_MIN {
            return false;
        }
        let strange =
            label.iter().filter(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'_')).count();
        let digits = label.iter().filter(|byte| byte.is_ascii_digit()).count();
        let upper = label.iter().filter(|byte| byte.is_ascii_uppercase()).count();
        let hyphens = label.iter().filter(|&&byte| byte == b'-').count();
        // Hyphens make words, and words are no encoding. Base32 has a fifth of digits, hexadecimal five eighths, base64 a sixth
        // and both cases.
        let mixed = upper * 5 > label.len() && upper * 5 < label.len() * 4;
        strange * 8 > label.len() || (hyphens <= 2 && (digits * 12 > label.len() || mixed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_and_ordinary_names() {
        for name in [
            &b"dnscat.f97c01f5006c798b8d6e990002e3772bc8"[..],
            b"mzxw6ytboi2gk3tfoj2w45dfnzsq.t.example.com",
            b"aGVsbG8gd29ybGQgdGhpcyBpcyBh.x.example.com",
            b"rdkad0\xeb\xc1\x81\xce\xe6\xd0An\xe7\xc1\x81\xce\xe6\xd0An\xe7\xc1\x81\xce.pirate.sea",
        ] {
            assert!(is_carrier(name), "{}", String::from_utf8_lossy(name));
        }
        for name in [
            &b"www.example.com"[..],
            b"107.18.31.83.zen.spamhaus.org",
            b"b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
            b"ec2-12-34-56-78.eu-central-1.compute.amazonaws.com",
            b"d3a5b9c8e7f6g5.cloudfront.net",
            b"this-is-a-rather-long-host-name-2.example.com",
            b"safebrowsing-cache.google.com",
            b"llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch.co.uk",
        ] {
            assert!(!is_carrier(name), "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn domains() {
        assert_eq!(domain_of(b"a.b.example.com"), b"example.com");
        assert_eq!(domain_of(b"example.com"), b"example.com");
        assert_eq!(domain_of(b"com"), b"com");
        assert_eq!(domain_of(b"dnscat.f97c01f500"), b"");
        assert_eq!(domain_of(b""), b"");
    }
}
