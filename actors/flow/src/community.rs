//! Community ID, version 1 (Corelight's specification): one text for one flow in every tool.

use crate::address::Ip;
use base64::Engine;
use sha1::{Digest, Sha1};

/// The Community ID of a flow.
///
/// `source` and `target` in any order; for ICMP the ports are type and code of the first packet. `seed` is 0 unless a site
/// agreed on another.
#[must_use]
pub fn community_id(seed: u16, source: (Ip, u16), target: (Ip, u16), protocol: u8) -> String {
    let (mut source, mut target) = (source, target);
    let mut one_way = false;
    if matches!(protocol, 1 | 58) {
        match counterpart(protocol, source.1) {
            Some(other) => target.1 = other,
            None => one_way = true,
        }
    }
    if !one_way && source > target {
        std::mem::swap(&mut source, &mut target);
    }
    let mut hash = Sha1::new();
    hash.update(seed.to_be_bytes());
    for (ip, _) in [source, target] {
        match ip.as_v4() {
            Some(v4) => hash.update(v4.to_be_bytes()),
            None => hash.update(ip.0.to_be_bytes()),
        }
    }
    hash.update([protocol, 0]);
    if matches!(protocol, 1 | 6 | 17 | 58 | 132) {
        hash.update(source.1.to_be_bytes());
        hash.update(target.1.to_be_bytes());
    }
    format!("1:{}", base64::engine::general_purpose::STANDARD.encode(hash.finalize()))
}

/// The ICMP type that answers a type, or that it answers.
#[must_use]
pub fn counterpart(protocol: u8, kind: u16) -> Option<u16> {
    const V4: [(u16, u16); 5] = [(8, 0), (13, 14), (15, 16), (17, 18), (10, 9)];
    const V6: [(u16, u16); 6] = [(128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)];
    let pairs: &[(u16, u16)] = if protocol == 58 { &V6 } else { &V4 };
    pairs.iter().find_map(|&(asks, answers)| match kind {
        k if k == asks => Some(answers),
        k if k == answers => Some(asks),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn id(seed: u16, a: &str, a_port: u16, b: &str, b_port: u16, protocol: u8) -> String {
        let ip = |text: &str| Ip::from(text.parse::<IpAddr>().unwrap());
        community_id(seed, (ip(a), a_port), (ip(b), b_port), protocol)
    }

    /// From the reference values of the specification.
    #[test]
    fn reference_values() {
        assert_eq!(id(0, "128.232.110.120", 34855, "66.35.250.204", 80, 6), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(id(0, "66.35.250.204", 80, "128.232.110.120", 34855, 6), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(id(0, "192.168.1.52", 54585, "8.8.8.8", 53, 17), "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        assert_eq!(id(0, "192.168.0.89", 8, "192.168.0.1", 0, 1), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
    }
}
