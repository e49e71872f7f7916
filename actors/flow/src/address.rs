//! Addresses of both families in one integer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address; IPv4 as `::ffff:a.b.c.d`, so that comparing and hashing need no branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ip(pub u128);

const V4: u128 = 0xffff_0000_0000;

impl Ip {
    /// Four bytes in network order.
    #[must_use]
    pub fn v4(bytes: [u8; 4]) -> Self {
        Self(V4 | u128::from(u32::from_be_bytes(bytes)))
    }

    /// Sixteen bytes in network order.
    #[must_use]
    pub fn v6(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The 32 bits of an IPv4 address.
    #[must_use]
    pub fn as_v4(self) -> Option<u32> {
        (self.0 >> 32 == V4 >> 32).then_some(self.0 as u32)
    }

    /// Whether many hosts listen to it: multicast, broadcast (also the last address of a /24, which is what is seen of
    /// directed broadcasts where the mask is not known), or nobody: the unspecified address.
    #[must_use]
    pub fn is_group(self) -> bool {
        match self.as_v4() {
            Some(v4) => v4 >> 28 == 0xe || v4 & 0xff == 0xff || v4 == 0,
            None => self.0 >> 120 == 0xff || self.0 == 0,
        }
    }

    /// Whether another is most probably of the same network: of the same 256 addresses, or of the same link of IPv6.
    #[inline]
    #[must_use]
    pub const fn is_beside(self, other: Self) -> bool {
        let differ = self.0 ^ other.0;
        differ < 256 || (differ >> 64 == 0 && other.0 >> 32 != V4 >> 32)
    }

    /// Whether it belongs to a site: private, link-local, loopback, shared (RFC 6598) or unique local.
    #[must_use]
    pub fn is_private(self) -> bool {
        match self.as_v4() {
            Some(v4) => {
                v4 >> 24 == 10
                    || v4 >> 24 == 127
                    || v4 >> 20 == 0xac1
                    || v4 >> 16 == 0xc0a8
                    || v4 >> 16 == 0xa9fe
                    || v4 >> 22 == 0x191
            }
            None => self.0 >> 121 == 0x7e || self.0 >> 118 == 0x3fa || self.0 == 1,
        }
    }
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.into()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        match ip.as_v4() {
            Some(v4) => Self::V4(Ipv4Addr::from(v4)),
            None => Self::V6(Ipv6Addr::from(ip.0)),
        }
    }
}

impl std::fmt::Display for Ip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn networks() {
        let same = |a, b| ip(a).is_beside(ip(b));
        assert!(same("203.0.113.1", "203.0.113.200") && !same("203.0.113.1", "203.0.114.1"));
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("203.0.113.1", "2001:db8::1") && !same("2001:db8::1", "203.0.113.1"));
        assert!(!same("::", "203.0.113.1"));
    }

    #[test]
    fn families_keep_apart() {
        assert_eq!(ip("10.1.2.3").to_string(), "10.1.2.3");
        assert_eq!(ip("fe80::1").to_string(), "fe80::1");
        assert_eq!(ip("::1").as_v4(), None);
    }

    #[test]
    fn sites_and_groups() {
        for private in
            ["10.0.0.1", "127.0.0.1", "172.16.0.1", "172.31.9.9", "192.168.7.7", "169.254.1.1", "100.64.0.1"]
        {
            assert!(ip(private).is_private(), "{private}");
        }
        for private in ["fe80::1", "fd00::1", "::1"] {
            assert!(ip(private).is_private(), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "ff02::1"] {
            assert!(!ip(public).is_private(), "{public}");
        }
        for group in ["224.0.0.251", "255.255.255.255", "192.168.1.255", "ff02::fb", "0.0.0.0", "::"] {
            assert!(ip(group).is_group(), "{group}");
        }
        assert!(!ip("192.168.1.1").is_group() && !ip("2001:db8::1").is_group());
    }
}
