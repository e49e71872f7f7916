//! What the first bytes of packets show of a TCP flow: its service, logins that failed, requests for a login page, TLS
//! heartbeats. Single segments are looked at, nothing is put together: login dialogues fit in one segment each.

use crate::packet::Packet;
use crate::table::Flow;

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

/// What is remembered of a flow's payload.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inspection {
    /// What is spoken.
    pub service: Service,
    /// Server's payload bytes when its part of the key exchange was over (SSH); 0 before.
    pub keys_at: u64,
    /// Server's packets since then.
    pub after_keys: u16,
    /// The request in flight is a login.
    pub login_asked: bool,
    /// Length of the last heartbeat asked for (TLS).
    pub heartbeat: u16,
    /// The originator completed the handshake, or was counted as not having done so.
    pub completed: bool,
    /// The flow was found guilty of something said once per flow.
    pub told: bool,
    /// Packets with payload that did not show what is spoken; past [`LOOKS_MAX`] no more are looked at.
    pub looks: u8,
    /// Bytes that interim records told already: sent and received.
    pub told_bytes: (u64, u64),
}

/// Packets with payload looked at to find out what is spoken. Greetings come first.
pub const LOOKS_MAX: u8 = 16;

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

/// Looks at a packet of a TCP flow. The flow's counts include the packet.
pub fn inspect(flow: &mut Flow, from_originator: bool, packet: &Packet<'_>) -> Option<Finding> {
    let bytes = packet.payload;
    if bytes.is_empty() {
        return None;
    }
    let port = flow.record.responder_port;
    let seen = &mut flow.inspection;
    if seen.service == Service::Unknown {
        if seen.looks >= LOOKS_MAX {
            return None;
        }
        seen.service = recognise(from_originator, port, bytes);
        seen.looks += 1;
    }
    match (seen.service, from_originator) {
        (Service::Unknown, _) => None,
        (Service::Ssh, false) => {
            // The packet NEWKEYS: length 12, padding 10, number 21. What follows is encrypted.
            const NEW_KEYS: &[u8] = &[0, 0, 0, 12, 10, 21];
            if seen.keys_at > 0 {
                seen.after_keys = seen.after_keys.saturating_add(1);
            }
            if seen.keys_at == 0
                && let Some(at) = bytes.windows(NEW_KEYS.len()).position(|window| window == NEW_KEYS)
            {
                let after = (bytes.len() - at).saturating_sub(16) as u64;
                seen.keys_at = flow.record.received.bytes.saturating_sub(after).max(1);
            }
            None
        }
        (Service::Ftp, false) if line(bytes, b"530") => Some(Finding::LoginFailed),
        (Service::Ftp, false) if line(bytes, b"230") => Some(Finding::LoginTaken),
        (Service::Smtp, false) if line(bytes, b"535") => Some(Finding::LoginFailed),
        (Service::Smtp, false) if line(bytes, b"235") => Some(Finding::LoginTaken),
        (Service::Pop3, true) => {
            seen.login_asked =
                has(&bytes[..bytes.len().min(5)], b"PASS ") || has(&bytes[..bytes.len().min(5)], b"AUTH ");
            None
        }
        (Service::Pop3, false) if bytes.starts_with(b"-ERR") && seen.login_asked => {
            Some(Finding::LoginFailed)
        }
        (Service::Pop3, false) if bytes.starts_with(b"+OK") && seen.login_asked => Some(Finding::LoginTaken),
        (Service::Imap, true) => {
            let head = &bytes[..bytes.len().min(64)];
            seen.login_asked |= has(head, b" LOGIN ") || has(head, b" AUTHENTICATE ");
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
            ]
            .iter()
            .any(|word| has(text, word));
            refused.then_some(Finding::LoginFailed)
        }
        (Service::Http, true) => {
            seen.login_asked = asks_for_login(bytes);
            None
        }
        (Service::Http, false) => {
            let asked = std::mem::take(&mut seen.login_asked);
            let status = bytes.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
            match status {
                Some(b"401" | b"403" | b"407") => Some(Finding::LoginFailed),
                Some(b"200" | b"302" | b"303") if asked => Some(Finding::LoginAnswered),
                Some(_) => Some(Finding::Served),
                None => {
                    seen.login_asked = asked;
                    None
                }
            }
        }
        (Service::MySql, false) => match bytes.get(4..7) {
            // Access denied, error 1045.
            Some([0xff, 0x15, 0x04]) => Some(Finding::LoginFailed),
            _ => None,
        },
        (Service::Postgres, false) => {
            let refused = bytes[0] == b'E' && (has(bytes, b"C28P01\0") || has(bytes, b"C28000\0"));
            refused.then_some(Finding::LoginFailed)
        }
        (Service::Smb, false) => smb(bytes),
        // A bind response whose result is 49, invalid credentials.
        (Service::Ldap, false) => {
            let refused = bytes.first() == Some(&0x30)
                && bytes.windows(4).take(16).any(|w| w[0] == 0x61 && w[2..] == [0x0a, 1])
                && has(&bytes[..bytes.len().min(24)], &[0x0a, 1, 49]);
            refused.then_some(Finding::LoginFailed)
        }
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
        const METHODS: [&[u8]; 6] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"PROPFIND "];
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            return Service::Http;
        }
        // A connection request of X.224 in a TPKT.
        if matches!(bytes, [3, 0, _, _, _, 0xe0, ..]) {
            return Service::Rdp;
        }
        return match port {
            389 | 3268 => Service::Ldap,
            5432 => Service::Postgres,
            _ => Service::Unknown,
        };
    }
    let greets = |code: &[u8]| bytes.starts_with(code);
    match port {
        23 | 2323 => Service::Telnet,
        3306 if bytes.get(4) == Some(&10) => Service::MySql,
        21 if greets(b"220") => Service::Ftp,
        _ if greets(b"220") && (has(bytes, b"SMTP") || matches!(port, 25 | 587)) => Service::Smtp,
        _ if greets(b"220") && has(bytes, b"FTP") => Service::Ftp,
        _ if greets(b"+OK") => Service::Pop3,
        _ if greets(b"* OK") => Service::Imap,
        _ => Service::Unknown,
    }
}

/// A POST to a path that is about logging in.
fn asks_for_login(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"POST ") else { return false };
    let path = rest.split(|&byte| matches!(byte, b' ' | b'?')).next().unwrap_or_default();
    let words: [&[u8]; 7] = [b"login", b"logon", b"signin", b"sign-in", b"auth", b"xmlrpc.php", b"session"];
    words.iter().any(|word| has(&path[..path.len().min(200)], word))
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
        // Logon failure, wrong password, no such user, account locked.
        0xc000_006d | 0xc000_006a | 0xc000_0064 | 0xc000_0234 => Some(Finding::LoginFailed),
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
