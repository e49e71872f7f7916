//! Data inside DNS: many different names under one domain that carry more than names do. And names that programs make up to find
//! those who command them: many different domains, none of which there is.
//!
//! A carrier is a query with a label that is long and mixed like an encoding, or of a type that no resolver asks for. Ordinary
//! clients ask the same few names; content networks, block lists and reverse lookups have many names, but short labels.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Hosts, furthest};
use super::scan::CALLERS_MIN;
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
/// Letters of three made-up labels and more together.
pub const CHAIN_MIN: usize = 40;
/// Answer bytes per query byte from which the tunnel carries packets back, not only data out.
pub const BACK_MIN: f64 = 2.0;
/// Types used for raw bytes: NULL and the private ones that iodine uses.
const RAW_TYPES: [u16; 3] = [NULL, 65_399, 65_432];
const TRACKED_MAX: usize = 1 << 13;

/// Domains without letters in the order of words, none of which there is, asked for by one client within [`GENERATED_NS`].
/// Browsers make up three names when they start, under the domain they search.
pub const GENERATED_MIN: u32 = 16;
/// Window of that count: programs that make up names try the next after a second or ten.
pub const GENERATED_NS: u64 = 600 * SECOND;
/// Letters of a made-up name, at least: shorter ones say too little, and there are abbreviations.
pub const GENERATED_LETTERS_MIN: usize = 7;

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
    /// By client.
    missing: Recent<Ip, Missing>,
}

impl Default for Names {
    fn default() -> Self {
        Self { domains: Recent::new(TRACKED_MAX), missing: Recent::new(TRACKED_MAX) }
    }
}

/// Domains that a client asked for and that there are none of.
#[derive(Debug, Clone)]
struct Missing {
    range: Range,
    generated: Distinct,
    others: Distinct,
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
            if message.code == NO_SUCH_NAME {
                self.missing(client, server, name, (number, ts), hosts, alerts);
            }
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

    /// There is no such name. Of one domain many names may be missing for many reasons (block lists, suffixes that are searched, mail that is
    /// checked); a program that looks for its master asks for many domains, and all look made up.
    #[inline(never)]
    fn missing(
        &mut self,
        client: Ip,
        server: Ip,
        name: &[u8],
        (number, ts): (u64, u64),
        hosts: &mut Hosts,
        alerts: &mut Alerts,
    ) {
        let Some(domain) = registered(name) else { return };
        let new = || Missing {
            range: Range::at(number, ts),
            generated: Distinct::default(),
            others: Distinct::default(),
        };
        let missing = self.missing.entry(client, new);
        if ts.saturating_sub(missing.range.first_ns) > GENERATED_NS {
            *missing = new();
        }
        missing.range.cover(number, ts);
        let label = domain.split(|&byte| byte == b'.').next().unwrap_or_default();
        if !is_made_up(label) {
            missing.others.insert(hash_of(domain));
            return;
        }
        let before = missing.generated.settled();
        if !missing.generated.insert(hash_of(domain)) {
            return;
        }
        let (generated, others) = (missing.generated.settled(), missing.others.settled());
        // Who asks for others asks what they all mistype.
        let asks_for_others = hosts.find(&client).is_some_and(|host| host.callers.count() >= CALLERS_MIN);
        if generated < 2 * others || asks_for_others {
            return;
        }
        let times = f64::from(generated) / f64::from(GENERATED_MIN);
        if generated < GENERATED_MIN {
            if steps(before.into(), generated.into(), GENERATED_MIN.into()) {
                alerts.note(Measure::Carriers, furthest(hosts, client), times);
            }
            return;
        }
        let probability = alerts.weigh(Measure::Carriers, furthest(hosts, client), times);
        let seconds = missing.range.span_ns() as f64 / SECOND as f64;
        alerts.raise(
            Alert::new(Kind::Dga, client, missing.range, ts)
                .against(server, Some(53))
                .rated(Severity::High, probability, "no such domains")
                .because("made-up domains that there are none of", generated, GENERATED_MIN - 1)
                .because("other domains that there are none of", others, generated / 2)
                .because("seconds", seconds, 0.0),
        );
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.domains.bytes(|domain| domain.different.owned_bytes())
            + self.missing.bytes(|missing| missing.generated.owned_bytes() + missing.others.owned_bytes())
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.domains.dropped() + self.missing.dropped()
    }
}

/// Code of a response: there is no such name.
const NO_SUCH_NAME: u8 = 3;

/// The domain that somebody would have to register for a name to be: its last two labels, or three where the second stands for a kind of domain in
/// a country (`co.uk`). Nothing where the name is a single label, or that of an address or of a site's own.
fn registered(name: &[u8]) -> Option<&[u8]> {
    let mut dots = name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let last = dots.next()?;
    let second = dots.next();
    let top = &name[last + 1..];
    let own: [&[u8]; 8] =
        [b"arpa", b"local", b"lan", b"home", b"internal", b"localdomain", b"corp", b"invalid"];
    if own.iter().any(|word| top.eq_ignore_ascii_case(word)) || !top.iter().all(u8::is_ascii_alphabetic) {
        return None;
    }
    let begins = second.map_or(0, |at| at + 1);
    if top.len() == 2 && last - begins <= 3 && begins > 0 {
        return Some(&name[dots.next().map_or(0, |at| at + 1)..]);
    }
    Some(&name[begins..])
}

/// For each letter those that follow it in words, a bit each: the 280 pairs that make up nineteen in twenty of those in words of European languages
/// and of programs.
const FOLLOWS: [u32; 26] = [
    0x1fe_bd6e, 0x016_4911, 0x01e_4d95, 0x01e_4919, 0x1ff_fd7f, 0x01e_4931, 0x016_6991, 0x01a_4111,
    0x2ae_fc7f, 0x000_4011, 0x004_4111, 0x11c_c919, 0x014_d913, 0x03c_ed7d, 0x07e_fd6f, 0x11e_c991,
    0x010_0000, 0x13e_fd5f, 0x11c_dd95, 0x11e_d9bd, 0x00e_b97f, 0x000_4111, 0x000_4111, 0x008_8114,
    0x00c_a801, 0x000_0011,
];

/// Whether letters follow each other as in no words: in one pair of three or more. Of words one in eighty is like that, of letters drawn at random nine in ten.
fn is_made_up(label: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric();
    // Other alphabets are written like that.
    if label.starts_with(b"xn--") {
        return false;
    }
    if label.iter().filter(|byte| is_part(byte)).count() < GENERATED_LETTERS_MIN {
        return false;
    }
    let (mut pairs, mut odd) = (0, 0);
    for pair in label.windows(2) {
        let [a, b] = [pair[0].to_ascii_lowercase(), pair[1].to_ascii_lowercase()];
        if !is_part(&a) || !is_part(&b) || (a.is_ascii_digit() && b.is_ascii_digit()) {
            continue;
        }
        pairs += 1;
        let follows = a.is_ascii_lowercase()
            && b.is_ascii_lowercase()
            && FOLLOWS[usize::from(a - b'a')] >> (b - b'a') & 1 == 1;
        odd += usize::from(!follows);
    }
    pairs > 0 && odd * 3 >= pairs
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
    is_chain(name) || has_encoding(name)
}

/// Whether several shorter labels in a row look like one that was cut.
fn is_chain(name: &[u8]) -> bool {
    let (mut labels, mut letters) = (0, 0);
    for label in name.split(|&byte| byte == b'.').filter(|label| is_made_up(label)) {
        (labels, letters) = (labels + 1, letters + label.len());
    }
    labels >= 3 && letters >= CHAIN_MIN
}

/// Whether one label looks like an encoding.
fn has_encoding(name: &[u8]) -> bool {
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
            b"k4djq7xnvbtw3z.p2mzqkxw8hcvrt.nq5xwk3jdhzt.t.example.com",
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
    fn made_up_names_and_words() {
        for label in [
            &b"nvgnqzdk"[..],
            b"qxkvbhwtrj",
            b"ydjqmcnvwxpz",
            b"a7f3k9x2m4q8",
            b"1gjhtyzdkwqi",
            b"GHKDSLQWVN",
        ] {
            assert!(is_made_up(label), "{}", String::from_utf8_lossy(label));
        }
        for label in [
            &b"wikipedia"[..],
            b"stackoverflow",
            b"windowsupdate",
            b"tripadvisor",
            b"news24online",
            b"my-little-shop",
            b"frankfurter",
            b"2023",
            b"bbc",
        ] {
            assert!(!is_made_up(label), "{}", String::from_utf8_lossy(label));
        }
    }

    #[test]
    fn domains_that_somebody_registers() {
        let is = |name: &str, domain: Option<&str>| {
            assert_eq!(registered(name.as_bytes()), domain.map(str::as_bytes), "{name}");
        };
        is("a.b.example.com", Some("example.com"));
        is("example.com", Some("example.com"));
        is("www.example.co.uk", Some("example.co.uk"));
        is("example.co.uk", Some("example.co.uk"));
        is("www.abc.de", Some("www.abc.de"));
        is("abc.de", Some("abc.de"));
        is("wpad", None);
        is("1.0.0.10.in-addr.arpa", None);
        is("printer.local", None);
        is("", None);
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
