//! What the first bytes of packets show of a TCP flow: its service, logins that failed, requests for a login page, TLS
//! heartbeats. Single segments are looked at, nothing is put together: login dialogues fit in one segment each.

use crate::hash::{joined, shorter};
use crate::packet::Packet;
use crate::record::FlowRecord;
use crate::table::{Flow, SECOND};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Service {
    /// Not known, or not yet.
    #[default]
    Unknown,
    /// Secure shell.
    Ssh,
    /// FTP, control connection.
    Ftp,
    /// HTTP/1.
    Http,
    /// TLS.
    Tls,
    /// Mail in.
    Smtp,
    /// Mail out.
    Pop3,
    /// Mail out.
    Imap,
    /// Telnet.
    Telnet,
    /// Remote desktop.
    Rdp,
    /// Windows file sharing.
    Smb,
    /// MySQL, MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
    /// LDAP.
    Ldap,
    /// Remote screens (RFB).
    Vnc,
    /// SQL Server (TDS).
    MsSql,
    /// Redis, where a password is sent.
    Redis,
    /// Tickets of a domain.
    Kerberos,
    /// MongoDB.
    Mongo,
    /// Control of media, cameras above all.
    Rtsp,
    /// Calls, over UDP or TCP.
    Sip,
}

impl Service {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ssh => "ssh",
            Self::Ftp => "ftp",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Imap => "imap",
            Self::Telnet => "telnet",
            Self::Rdp => "rdp",
            Self::Smb => "smb",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
            Self::Ldap => "ldap",
            Self::Vnc => "vnc",
            Self::MsSql => "mssql",
            Self::Redis => "redis",
            Self::Kerberos => "kerberos",
            Self::Mongo => "mongodb",
            Self::Rtsp => "rtsp",
            Self::Sip => "sip",
        }
    }

    /// The service a port is meant for, as far as logins are concerned.
    #[must_use]
    pub const fn of_port(port: u16) -> Self {
        match port {
            21 => Self::Ftp,
            22 => Self::Ssh,
            23 | 2323 => Self::Telnet,
            3389 => Self::Rdp,
            _ => Self::Unknown,
        }
    }
}

/// Part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// Its head.
    Head,
    /// The beginning of what follows the head.
    Form,
    /// The rest, which says nothing.
    #[default]
    Rest,
}

/// What is remembered of a flow's payload.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inspection {
    /// What is spoken.
    pub service: Service,
    /// SSH: the server's payload bytes when its part of the key exchange was over; 0 before. TLS: the second of the flow in which the client
    /// last said something short, see [`Inspection::trickles`].
    pub mark: u32,
    /// Server's packets since then.
    pub after_keys: u16,
    /// The request in flight is a login.
    pub login_asked: bool,
    /// The request in flight says who asks (HTTP).
    pub credentials: bool,
    /// What of the request in flight is looked at next (HTTP).
    pub request: Part,
    /// Hash of what the client sent last to be let in; 0 where that was not seen, or cannot be.
    pub secret: u32,
    /// How often the server began to speak: a greeting and a refusal are two, an answer to a question is one.
    pub server_turns: u8,
    /// Whether the server spoke last.
    pub server_spoke: bool,
    /// Length of the last heartbeat asked for (TLS).
    pub heartbeat: u16,
    /// The originator completed the handshake, or was counted as not having done so.
    pub completed: bool,
    /// What follows is TLS, begun within the service: STARTTLS and its like. Nothing of it is read.
    pub encrypted: bool,
    /// The flow was found guilty of something said once per flow.
    pub told: bool,
    /// Short things that the client said one after the other, some seconds apart, since the server last spoke (TLS); [`TRICKLE_TOLD`] once
    /// that was told.
    pub trickles: u8,
    /// Packets with payload that did not show what is spoken; past [`LOOKS_MAX`] no more are looked at.
    pub looks: u8,
    /// Bytes that interim records told already: sent and received.
    pub told_bytes: (u64, u64),
}

/// Packets with payload looked at to find out what is spoken. Greetings come first.
pub const LOOKS_MAX: u8 = 16;

/// Payload of a packet that is short: a header or a few bytes of a form, in a record of TLS. Uploads and questions are longer.
const TRICKLE_BYTES: u32 = 256;
/// Seconds between two such packets: what is said at once is one thing. Slow clients wait for ten and more.
const TRICKLE_PAUSE_S: u32 = 4;
/// Such packets without a word of the server between. Who waits for an answer asks once; who keeps a connection alive is answered, or answers.
const TRICKLES_MIN: u8 = 3;
/// Age of a connection, seconds. Servers wait for a minute at the most for what they are asked, unless more of it comes.
const TRICKLE_AGE_S: u32 = 30;
/// What the client said in all: next to nothing, beside its part of the handshake.
const TRICKLED_BYTES_MAX: u64 = 4_096;
/// The flow was counted.
pub const TRICKLE_TOLD: u8 = u8::MAX;

/// What one packet showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The server refused a login.
    LoginFailed,
    /// The server took a login.
    LoginTaken,
    /// The server answered a login form; whether well or not cannot be told.
    LoginAnswered,
    /// The server answered a request that was no login.
    Served,
    /// A request for a page begins.
    Requested,
    /// A client says next to nothing for half a minute and more, piece by piece, and the server waits for more of it (TLS). Once per flow.
    Trickled,
    /// A share was asked for that only administrators may open.
    AdminShare,
    /// A TLS heartbeat that claims to be longer than it is, or is answered with more than was sent (CVE-2014-0160).
    Heartbleed {
        /// Bytes claimed or answered.
        claimed: u16,
        /// Bytes there were.
        sent: u16,
    },
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// A line of a text protocol that begins with `code`.
fn line(bytes: &[u8], code: &[u8]) -> bool {
    bytes.split(|&byte| byte == b'\n').take(16).any(|line| line.starts_with(code))
}

/// Whether this packet of a client of TLS shows that it trickles, for the first time.
fn trickles(seen: &mut Inspection, record: &FlowRecord, packet: &Packet<'_>) -> bool {
    let age_s = (packet.ts.saturating_sub(record.start_ns) / SECOND) as u32;
    if seen.trickles == TRICKLE_TOLD {
        return false;
    }
    if packet.payload_bytes > TRICKLE_BYTES || record.sent.bytes > TRICKLED_BYTES_MAX {
        seen.trickles = 0;
    } else if seen.trickles == 0 || age_s.saturating_sub(seen.mark) >= TRICKLE_PAUSE_S {
        (seen.trickles, seen.mark) = (seen.trickles.saturating_add(1).min(TRICKLE_TOLD - 1), age_s);
    }
    if seen.trickles < TRICKLES_MIN || age_s < TRICKLE_AGE_S {
        return false;
    }
    seen.trickles = TRICKLE_TOLD;
    true
}

/// Looks at a packet of a TCP flow. The flow's counts include the packet.
pub fn inspect(flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) -> Option<Finding> {
    let bytes = packet.payload;
    if bytes.is_empty() {
        return None;
    }
    let port = flow.record.responder_port;
    let seen = &mut flow.inspection;
    if !from_originator && !seen.server_spoke {
        seen.server_turns = seen.server_turns.saturating_add(1);
    }
    seen.server_spoke = !from_originator;
    if !from_originator && seen.trickles != TRICKLE_TOLD {
        seen.trickles = 0;
    }
    if seen.service == Service::Unknown {
        if seen.looks >= LOOKS_MAX {
            return None;
        }
        seen.service = recognise(from_originator, port, bytes);
        seen.looks += 1;
    }
    if from_originator && !seen.encrypted && may_upgrade(seen.service) {
        seen.encrypted = matches!(bytes, [0x16, 3, 0..=4, _, _, 1, ..]);
    }
    if seen.encrypted {
        return None;
    }
    match (seen.service, from_originator) {
        (Service::Unknown, _) => None,
        (Service::Tls, true) if trickles(seen, &flow.record, packet) => Some(Finding::Trickled),
        (Service::Ssh, false) => {
            // The packet NEWKEYS: length 12, padding 10, number 21. What follows is encrypted.
            const NEW_KEYS: &[u8] = &[0, 0, 0, 12, 10, 21];
            if seen.mark > 0 {
                seen.after_keys = seen.after_keys.saturating_add(1);
            }
            if seen.mark == 0
                && let Some(at) = bytes.windows(NEW_KEYS.len()).position(|window| window == NEW_KEYS)
            {
                let after = (bytes.len() - at).saturating_sub(16) as u64;
                let keys_at = flow.record.received.bytes.saturating_sub(after).max(1);
                seen.mark = u32::try_from(keys_at).unwrap_or(u32::MAX);
            }
            None
        }
        (Service::Ftp, true) => {
            match bytes.get(..5) {
                Some(word) if word.eq_ignore_ascii_case(b"USER ") => seen.secret = secret(0, bytes),
                Some(word) if word.eq_ignore_ascii_case(b"PASS ") => seen.secret = secret(seen.secret, bytes),
                _ => {}
            }
            None
        }
        (Service::Ftp, false) if line(bytes, b"530") || line(bytes, b"430") => Some(Finding::LoginFailed),
        (Service::Ftp, false) if line(bytes, b"230") => Some(Finding::LoginTaken),
        (Service::Smtp, true) => {
            // Base64 on a line of its own, or behind the command.
            let begins = has(&bytes[..bytes.len().min(5)], b"AUTH ");
            seen.secret = secret(if begins { 0 } else { seen.secret }, bytes);
            None
        }
        (Service::Smtp, false) if line(bytes, b"535") => Some(Finding::LoginFailed),
        (Service::Smtp, false) if line(bytes, b"235") => Some(Finding::LoginTaken),
        (Service::Pop3, true) => {
            seen.login_asked =
                has(&bytes[..bytes.len().min(5)], b"PASS ") || has(&bytes[..bytes.len().min(5)], b"AUTH ");
            let begins = !has(&bytes[..bytes.len().min(5)], b"PASS ");
            seen.secret = secret(if begins { 0 } else { seen.secret }, bytes);
            None
        }
        (Service::Pop3, false) if bytes.starts_with(b"-ERR") && seen.login_asked => {
            Some(Finding::LoginFailed)
        }
        (Service::Pop3, false) if bytes.starts_with(b"+OK") && seen.login_asked => Some(Finding::LoginTaken),
        (Service::Imap, true) => {
            let head = &bytes[..bytes.len().min(64)];
            let asks = has(head, b" LOGIN ") || has(head, b" AUTHENTICATE ");
            if asks || seen.login_asked {
                // Behind the tag, which counts up.
                let said = bytes.iter().position(|&byte| byte == b' ').unwrap_or_default();
                seen.secret = secret(if asks { 0 } else { seen.secret }, &bytes[said..]);
            }
            seen.login_asked |= asks;
            None
        }
        (Service::Imap, false) if seen.login_asked => {
            let word = bytes.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
            match word {
                b"NO" => Some(Finding::LoginFailed),
                b"OK" if !bytes.starts_with(b"*") => Some(Finding::LoginTaken),
                _ => None,
            }
        }
        (Service::Telnet, false) => {
            let text = &bytes[..bytes.len().min(400)];
            let refused = [
                &b"incorrect"[..],
                b"login failed",
                b"authentication failed",
                b"access denied",
                b"bad password",
                b"login invalid",
            ]
            .iter()
            .any(|word| has(text, word));
            refused.then_some(Finding::LoginFailed)
        }
        (Service::Http | Service::Rtsp | Service::Sip, true) => {
            request(seen, bytes);
            (seen.service == Service::Http && is_request(bytes)).then_some(Finding::Requested)
        }
        (Service::Http | Service::Rtsp | Service::Sip, false) => {
            let asked = std::mem::take(&mut seen.login_asked);
            let version = [&b"HTTP/1."[..], b"RTSP/1.", b"SIP/2."];
            let rest = version.iter().find_map(|version| bytes.strip_prefix(*version));
            match rest.and_then(|rest| rest.get(2..5)) {
                // Of calls: that it is on its way. Of a registration with a name: not with this password.
                Some([b'1', ..]) if seen.service == Service::Sip => None,
                Some(b"403") if seen.service == Service::Sip && seen.credentials => {
                    Some(Finding::LoginFailed)
                }
                // Whoever says no name is asked for one: that is no refusal yet, and no page either.
                Some(b"401" | b"407") if !asked && !seen.credentials => None,
                Some(b"401" | b"407") => Some(Finding::LoginFailed),
                Some(b"403") if asked => Some(Finding::LoginFailed),
                Some(b"200" | b"302" | b"303") if asked => Some(Finding::LoginAnswered),
                Some(_) => Some(Finding::Served),
                None => {
                    seen.login_asked = asked;
                    None
                }
            }
        }
        // Access denied, errors 1045 and 1698; or what a login ends with: OK as third packet of the dialogue or later.
        (Service::MySql, false) => match bytes.get(3..7) {
            Some([_, 0xff, 0x15, 0x04] | [_, 0xff, 0xa2, 0x06]) => Some(Finding::LoginFailed),
            Some([2..=8, 0, ..]) if !seen.login_asked => taken(seen),
            _ => None,
        },
        (Service::Postgres, false) => match bytes {
            [b'E', ..] if has(bytes, b"C28P01\0") || has(bytes, b"C28000\0") => Some(Finding::LoginFailed),
            [b'R', 0, 0, 0, 8, 0, 0, 0, 0, ..] => taken(seen),
            _ => None,
        },
        (Service::Smb, true) => asks_for_share(bytes).then_some(Finding::AdminShare),
        (Service::Smb, false) => smb(bytes),
        (Service::Ldap, false) => bind(bytes),
        (Service::Vnc, true) => {
            // The answer to a challenge.
            seen.login_asked |= bytes.len() == 16;
            None
        }
        (Service::Vnc, false) => match bytes {
            [0, 0, 0, result, ..] if std::mem::take(&mut seen.login_asked) => {
                Some(if *result == 0 { Finding::LoginTaken } else { Finding::LoginFailed })
            }
            // No way to log in is offered, with a reason: too many tries.
            [0, 0, 0, 0, _, _, ..] if seen.server_turns == 2 => Some(Finding::LoginFailed),
            _ => None,
        },
        (Service::MsSql, false) if bytes[0] == 4 => {
            // An error with the number 18456; or a change of surroundings, which begins every session.
            let head = &bytes[..bytes.len().min(256)];
            let refused = |word: &[u8]| word[0] == 0xaa && word[3..] == [0x18, 0x48, 0, 0];
            match bytes.get(8) {
                _ if head.windows(7).any(refused) => Some(Finding::LoginFailed),
                Some(0xe3) if !seen.login_asked => taken(seen),
                _ => None,
            }
        }
        (Service::Redis, true) => {
            seen.login_asked = has(&bytes[..bytes.len().min(32)], b"AUTH");
            seen.secret = secret(0, bytes);
            None
        }
        (Service::Redis, false) if std::mem::take(&mut seen.login_asked) => match bytes[0] {
            b'-' => Some(Finding::LoginFailed),
            b'+' => Some(Finding::LoginTaken),
            _ => None,
        },
        (Service::Mongo, false) => {
            let head = &bytes[..bytes.len().min(400)];
            if has(head, b"AuthenticationFailed") {
                Some(Finding::LoginFailed)
            } else {
                // The last word of an exchange that went well.
                has(head, b"\x08done\0\x01").then_some(Finding::LoginTaken)
            }
        }
        // A ticket; or an error whose code says that the password is wrong, or that nobody has this name.
        (Service::Kerberos, false) => match bytes.get(4) {
            Some(0x6b) => Some(Finding::LoginTaken),
            Some(0x7e) => {
                let head = &bytes[..bytes.len().min(128)];
                let refused = |word: &[u8]| matches!(word, [0xa6, 3, 2, 1, 24 | 6]);
                head.windows(5).any(refused).then_some(Finding::LoginFailed)
            }
            _ => None,
        },
        (Service::Tls, _) => heartbeat(seen, from_originator, bytes),
        _ => None,
    }
}

fn recognise(from_originator: bool, port: u16, bytes: &[u8]) -> Service {
    if bytes.starts_with(b"SSH-") {
        return Service::Ssh;
    }
    if bytes.len() > 8 && matches!(bytes[4..8], [0xff | 0xfe, b'S', b'M', b'B']) {
        return Service::Smb;
    }
    if matches!(bytes, [0x14..=0x18, 3, 0..=4, ..]) {
        return Service::Tls;
    }
    if from_originator {
        if is_request(bytes) {
            return spoken(bytes);
        }
        // A connection request of X.224 in a TPKT.
        if matches!(bytes, [3, 0, _, _, _, 0xe0, ..]) {
            return Service::Rdp;
        }
        let long =
            |at: usize| bytes.get(at..at + 2).map(|raw| usize::from(u16::from_be_bytes([raw[0], raw[1]])));
        return match port {
            389 | 3268 => Service::Ldap,
            5432 => Service::Postgres,
            88 => Service::Kerberos,
            // The question whether to go on in TLS.
            _ if matches!(bytes, [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]) => Service::Postgres,
            // A message says how long it is, and is of the kind that all are today.
            _ if bytes.get(12..16) == Some(&[0xdd, 7, 0, 0])
                && bytes.get(..4).and_then(|raw| raw.try_into().ok()).map(u32::from_le_bytes)
                    == Some(bytes.len() as u32) =>
            {
                Service::Mongo
            }
            // The first packet of version 3 says how long it is; so does that of TDS.
            _ if long(2) == Some(bytes.len()) && matches!(bytes, [0, 0, _, _, 0, 3, 0, 0, ..]) => {
                Service::Postgres
            }
            _ if long(2) == Some(bytes.len()) && matches!(bytes, [0x12, 1, ..]) => Service::MsSql,
            _ if matches!(bytes, [b'*', b'2' | b'3', b'\r', b'\n', b'$', b'4', ..])
                && has(&bytes[..bytes.len().min(14)], b"AUTH") =>
            {
                Service::Redis
            }
            _ if bytes.starts_with(b"AUTH ") && port == 6379 => Service::Redis,
            _ => Service::Unknown,
        };
    }
    let greets = |code: &[u8]| bytes.starts_with(code);
    match port {
        23 | 2323 => Service::Telnet,
        // Length, number 0, version 10 of the protocol, and the server's version.
        _ if matches!(bytes, [_, 0, 0, 0, 10, b'0'..=b'9', ..]) => Service::MySql,
        _ if greets(b"RFB 00") => Service::Vnc,
        21 if greets(b"220") => Service::Ftp,
        _ if greets(b"220") && (has(bytes, b"SMTP") || matches!(port, 25 | 587)) => Service::Smtp,
        _ if greets(b"220") && has(bytes, b"FTP") => Service::Ftp,
        _ if greets(b"+OK") => Service::Pop3,
        _ if greets(b"* OK") => Service::Imap,
        _ => Service::Unknown,
    }
}

/// Services that may go on in TLS on the same connection.
const fn may_upgrade(service: Service) -> bool {
    matches!(
        service,
        Service::Ftp
            | Service::Smtp
            | Service::Pop3
            | Service::Imap
            | Service::MySql
            | Service::Postgres
            | Service::Ldap
    )
}

/// Whether a request begins here.
fn is_request(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 12] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"OPTIONS ",
        b"PROPFIND ",
        b"CONNECT ",
        b"DELETE ",
        b"PATCH ",
        b"DESCRIBE ",
        b"REGISTER ",
        b"INVITE ",
    ];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// What a request is one of: three protocols have the same form.
fn spoken(bytes: &[u8]) -> Service {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
    if line.ends_with(b" RTSP/1.0") {
        Service::Rtsp
    } else if line.ends_with(b" SIP/2.0") {
        Service::Sip
    } else {
        Service::Http
    }
}

/// A POST to a path that is about logging in, or a request that has a password among its fields.
fn asks_for_login(bytes: &[u8]) -> bool {
    let posts = bytes.strip_prefix(b"POST ");
    let Some(rest) = posts.or_else(|| bytes.strip_prefix(b"GET ")) else { return false };
    let target = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
    let target = &target[..target.len().min(400)];
    let mut parts = target.splitn(2, |&byte| byte == b'?');
    let path = parts.next().unwrap_or_default();
    if posts.is_none() {
        return parts.next().is_some_and(has_password);
    }
    let words: [&[u8]; 7] = [b"login", b"logon", b"signin", b"sign-in", b"auth", b"xmlrpc.php", b"session"];
    words.iter().any(|word| has(&path[..path.len().min(200)], word))
}

/// A field of a form that is a password.
fn has_password(fields: &[u8]) -> bool {
    let named = |field: &[u8]| {
        let name = field.split(|&byte| byte == b'=').next().unwrap_or_default();
        [&b"password"[..], b"passwd", b"pass", b"pwd"].iter().any(|word| name.eq_ignore_ascii_case(word))
    };
    fields.split(|&byte| byte == b'&').any(named)
}

/// Bytes of a form that are looked at.
const FORM_MAX: usize = 512;

/// Takes a packet of a client: who asks, and whether to be let in.
fn request(seen: &mut Inspection, bytes: &[u8]) {
    if is_request(bytes) {
        (seen.login_asked, seen.credentials) = (asks_for_login(bytes), false);
        (seen.request, seen.secret) = (Part::Head, 0);
        if seen.login_asked {
            // With the fields behind a question mark.
            seen.secret = secret(0, bytes.split(|&byte| byte == b'\n').next().unwrap_or_default());
        }
    }
    let mut rest = bytes;
    while seen.request == Part::Head && !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
        let line;
        (line, rest) = rest.split_at(end);
        if matches!(line, b"\r\n" | b"\n") {
            seen.request = Part::Form;
        } else if let Some(value) = credentials(line) {
            seen.credentials = true;
            // An answer to a challenge is another each time, whatever the password: of cameras and telephones, which ask again and again by
            // themselves, it counts as the same.
            let is_answer = seen.service != Service::Http && !has(&value[..value.len().min(8)], b"basic");
            seen.secret = if is_answer { 1 } else { secret(seen.secret, value) };
        }
    }
    if seen.request == Part::Form && !rest.is_empty() {
        seen.request = Part::Rest;
        let form = &rest[..rest.len().min(FORM_MAX)];
        seen.login_asked |= has_password(form) || (form[0] == b'{' && has(form, b"\"password\""));
        if seen.login_asked {
            seen.secret = secret(seen.secret, form);
        }
    }
}

/// Who asks, where a line of a head says it. The first message of NTLM does not say it yet.
fn credentials(line: &[u8]) -> Option<&[u8]> {
    let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':')?);
    let names = [&b"authorization"[..], b"proxy-authorization"];
    let says = names.iter().any(|word| name.eq_ignore_ascii_case(word));
    (says && !has(&value[..value.len().min(40)], b"TlRMTVNTUAAB")).then_some(value)
}

/// Goes on with the hash of what a client says to be let in.
fn secret(so_far: u32, said: &[u8]) -> u32 {
    shorter(joined(u64::from(so_far), crate::hash::hash_of(said))).max(1)
}

/// A login taken, told once.
fn taken(seen: &mut Inspection) -> Option<Finding> {
    (!std::mem::replace(&mut seen.login_asked, true)).then_some(Finding::LoginTaken)
}

/// The result of a bind: 49 is a wrong name or password. Lengths may take five bytes, as those of Active Directory do.
fn bind(bytes: &[u8]) -> Option<Finding> {
    let head = &bytes[..bytes.len().min(28)];
    if head.first() != Some(&0x30) {
        return None;
    }
    let answer = head.windows(9).find_map(|word| match word {
        [0x61, _, 0x0a, 1, code, ..] | [0x61, 0x84, _, _, _, _, 0x0a, 1, code] => Some(*code),
        _ => None,
    });
    match answer? {
        0 => Some(Finding::LoginTaken),
        49 => Some(Finding::LoginFailed),
        _ => None,
    }
}

/// A tree connect of version 2 or 1 to `ADMIN$` or `C$`, in the letters of two bytes that both use.
fn asks_for_share(bytes: &[u8]) -> bool {
    let connects = match bytes.get(4) {
        Some(0xfe) => bytes.get(16..18) == Some(&[3, 0]),
        Some(_) => bytes.get(8) == Some(&0x75),
        None => false,
    };
    let path = &bytes[..bytes.len().min(600)];
    connects && (has(path, b"\\\0A\0D\0M\0I\0N\0$\0") || has(path, b"\\\0C\0$\0"))
}

fn smb(bytes: &[u8]) -> Option<Finding> {
    let status =
        |at: usize| bytes.get(at..at + 4).map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
    // Session setup of version 2 and of version 1.
    let status = match bytes.get(4)? {
        0xfe if bytes.get(16..18)? == [1, 0] => status(12)?,
        0xff if *bytes.get(8)? == 0x73 => status(9)?,
        _ => return None,
    };
    match status {
        // Logon failure, wrong password, no such user, account locked, restricted or disabled.
        0xc000_006d | 0xc000_006a | 0xc000_0064 | 0xc000_0234 | 0xc000_006e | 0xc000_0072 => {
            Some(Finding::LoginFailed)
        }
        0 => Some(Finding::LoginTaken),
        _ => None,
    }
}

fn heartbeat(seen: &mut Inspection, from_originator: bool, bytes: &[u8]) -> Option<Finding> {
    let &[24, 3, _, high, low, ref body @ ..] = bytes else { return None };
    let record = u16::from_be_bytes([high, low]);
    if let &[1, high, low, ..] = body {
        let claimed = u16::from_be_bytes([high, low]);
        // Type, length and 16 bytes of padding belong to the record.
        if claimed > record.saturating_sub(3) && record < 1_024 {
            return Some(Finding::Heartbleed { claimed, sent: record.saturating_sub(3) });
        }
    }
    if from_originator {
        seen.heartbeat = record;
        return None;
    }
    // Encrypted: a reply is as long as its request, but for padding.
    let asked = seen.heartbeat;
    (asked > 0 && record > asked.saturating_mul(4).max(256))
        .then_some(Finding::Heartbleed { claimed: record, sent: asked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_by_what_they_say() {
        assert_eq!(recognise(false, 902, b"SSH-2.0-x"), Service::Ssh);
        assert_eq!(recognise(false, 21, b"220 hello"), Service::Ftp);
        assert_eq!(recognise(false, 2121, b"220 My FTP"), Service::Ftp);
        assert_eq!(recognise(false, 25, b"220 mail"), Service::Smtp);
        assert_eq!(recognise(true, 80, b"GET / HTTP/1.1"), Service::Http);
        assert_eq!(recognise(true, 443, &[22, 3, 1, 0, 5]), Service::Tls);
        assert_eq!(recognise(true, 3389, &[3, 0, 0, 19, 14, 0xe0, 0]), Service::Rdp);
        assert_eq!(recognise(true, 5000, b"whatever"), Service::Unknown);
    }

    #[test]
    fn login_requests() {
        assert!(asks_for_login(b"POST /wp-login.php HTTP/1.1"));
        assert!(asks_for_login(b"POST /api/Auth?x HTTP/1.1"));
        assert!(!asks_for_login(b"POST /collect?next=login HTTP/1.1"));
        assert!(!asks_for_login(b"GET /login HTTP/1.1"));
    }

    #[test]
    fn heartbeats() {
        let mut seen = Inspection::default();
        let honest = [24, 3, 2, 0, 7 + 16, 1, 0, 4, 1, 2, 3, 4];
        assert_eq!(heartbeat(&mut seen, true, &honest), None);
        let lies = [24, 3, 2, 0, 3, 1, 0x40, 0];
        assert_eq!(heartbeat(&mut seen, true, &lies), Some(Finding::Heartbleed { claimed: 0x4000, sent: 0 }));
        let encrypted = [24, 3, 2, 0, 48, 9, 9, 9, 9];
        assert_eq!(heartbeat(&mut seen, true, &encrypted), None);
        assert_eq!(heartbeat(&mut seen, false, &encrypted), None);
        assert!(heartbeat(&mut seen, false, &[24, 3, 2, 0x40, 0, 9, 9]).is_some());
    }

    #[test]
    fn smb_status() {
        let mut bytes = vec![0, 0, 0, 72, 0xfe, b'S', b'M', b'B', 64, 0, 0, 0, 0x6d, 0, 0, 0xc0, 1, 0];
        assert_eq!(smb(&bytes), Some(Finding::LoginFailed));
        bytes[12..16].fill(0);
        assert_eq!(smb(&bytes), Some(Finding::LoginTaken));
        bytes[16] = 3;
        assert_eq!(smb(&bytes), None);
    }
}
