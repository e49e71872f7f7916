//! The local link: addresses claimed by two cards, and addresses asked for one after the other.

use super::alert::{Alert, Alerts, Kind, Range, Severity};
use super::evidence::{Measure, steps};
use super::host::{Hosts, furthest};
use crate::address::Ip;
use crate::hash::{Recent, hash_of};
use crate::packet::Arp;
use crate::sketch::Distinct;
use crate::table::SECOND;

/// Two cards claim an address by turns within so long. A lease that moved on, or a cluster that failed over, changes once.
pub const CONFLICT_NS: u64 = 120 * SECOND;
/// Changes of owner within [`CONFLICT_NS`] of each other.
pub const CHANGES_MIN: u32 = 3;
/// Unasked-for replies that claim an address which was another card's. Failover announces itself a handful of times.
pub const CLAIMS_MIN: u32 = 8;
/// Addresses asked for within [`SCAN_NS`]. A gateway asks for those that are talked to, in no order, and that of a provider for
/// hundreds a minute; a scanner asks for all, in turn.
pub const ASKED_MIN: u32 = 1_000;
/// The same where three of five questions are for the address after the last.
pub const IN_TURN_MIN: u32 = 30;
/// Window of the questions.
pub const SCAN_NS: u64 = 60 * SECOND;
const TRACKED_MAX: usize = 1 << 14;

#[derive(Debug, Clone)]
struct Owner {
    mac: [u8; 6],
    seen_ns: u64,
    /// The one before, when it was last heard, and changes since the last quiet time.
    before: [u8; 6],
    before_ns: u64,
    changes: u32,
    claims: u32,
    range: Range,
}

impl Owner {
    /// Changes of owner, or as many as the claims are worth.
    fn seen(&self) -> f64 {
        f64::from(self.changes).max(f64::from(self.claims) * f64::from(CHANGES_MIN) / f64::from(CLAIMS_MIN))
    }
}

#[derive(Debug, Clone)]
struct Asker {
    range: Range,
    asked: Distinct,
    count: u32,
    in_turn: u32,
    last: u128,
}

/// The detector.
#[derive(Debug, Clone)]
pub struct Link {
    owners: Recent<Ip, Owner>,
    /// First address that a card was heard with: who it is when it claims others.
    cards: Recent<[u8; 6], Ip>,
    /// By card and the address it asks in the name of: a card has several addresses where a host does, and one of them asks.
    askers: Recent<([u8; 6], Ip), Asker>,
    /// When a card's address was last asked for by another, so that replies can be told from claims.
    asked: Recent<Ip, u64>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            owners: Recent::new(TRACKED_MAX),
            cards: Recent::new(TRACKED_MAX),
            askers: Recent::new(TRACKED_MAX),
            asked: Recent::new(TRACKED_MAX),
        }
    }
}

/// Virtual cards of VRRP, HSRP, GLBP and CARP move between routers on purpose.
fn is_virtual(mac: [u8; 6]) -> bool {
    matches!(
        mac,
        [0, 0, 0x5e, 0, 1 | 2, _]
            | [0, 0, 0x0c, 7, 0xac, _]
            | [0, 0, 0x0c, 0x9f, 0xf0..=0xff, _]
            | [0, 7, 0xb4, ..]
    )
}

impl Link {
    /// Takes an ARP packet.
    pub fn take(&mut self, arp: &Arp, hosts: &mut Hosts, alerts: &mut Alerts) {
        let gratuitous = arp.sender == arp.target;
        if !arp.reply && !gratuitous {
            self.question(arp, hosts, alerts);
            *self.asked.entry(arp.target, || arp.ts) = arp.ts;
        }
        // A probe claims nothing (RFC 5227).
        if arp.sender.as_v4() == Some(0) || is_virtual(arp.sender_mac) {
            return;
        }
        self.claim(arp, gratuitous, hosts, alerts);
    }

    fn claim(&mut self, arp: &Arp, gratuitous: bool, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Arp { sender, sender_mac, ts, number, .. } = *arp;
        let identity = *self.cards.entry(sender_mac, || sender);
        let asked = self.asked.find(&sender).is_some_and(|at| ts.saturating_sub(*at) <= 2 * SECOND);
        let new = || Owner {
            mac: sender_mac,
            seen_ns: ts,
            before: sender_mac,
            before_ns: 0,
            changes: 0,
            claims: 0,
            range: Range::at(number, ts),
        };
        let owner = self.owners.entry(sender, new);
        let before = owner.seen();
        if owner.mac != sender_mac {
            let quiet = ts.saturating_sub(owner.seen_ns) > CONFLICT_NS;
            let back = owner.before == sender_mac && ts.saturating_sub(owner.before_ns) <= CONFLICT_NS;
            if quiet || (owner.changes > 0 && !back) {
                *owner = Owner { before: owner.mac, before_ns: owner.seen_ns, ..new() };
                return;
            }
            owner.changes += 1;
            if owner.changes == 1 {
                owner.range = Range::at(number, ts);
            }
            (owner.before, owner.before_ns, owner.mac) = (owner.mac, owner.seen_ns, sender_mac);
        }
        owner.seen_ns = ts;
        owner.range.cover(number, ts);
        // Somebody who insists: replies that nobody asked for, for an address that was another's a moment ago.
        let contested = owner.changes > 0 && owner.before != owner.mac;
        if contested && arp.reply && !gratuitous && !asked {
            owner.claims += 1;
        }
        let seen = owner.seen();
        let times = seen / f64::from(CHANGES_MIN);
        if seen < f64::from(CHANGES_MIN) {
            if seen > before {
                alerts.note(Measure::Owners, furthest(hosts, sender), times);
            }
            return;
        }
        let probability = alerts.weigh(Measure::Owners, furthest(hosts, sender), times);
        let (changes, claims, range, before) = (owner.changes, owner.claims, owner.range, owner.before);
        // Of the two cards, the one known by another address is the liar; else the later one.
        let other = self.cards.find(&before).copied();
        let liar = match other {
            Some(other) if identity == sender && other != sender => other,
            _ => identity,
        };
        alerts.raise(
            Alert::new(Kind::ArpSpoofing, liar, range, ts)
                .against(sender, None)
                .rated(Severity::High, probability, "arp")
                .because("changes of owner within 2 min of each other", changes, 1.0)
                .because("claims that nobody asked for", claims, 1.0),
        );
    }

    fn question(&mut self, arp: &Arp, hosts: &mut Hosts, alerts: &mut Alerts) {
        let Arp { sender, sender_mac, target, ts, number, .. } = *arp;
        let new = || Asker {
            range: Range::at(number, ts),
            asked: Distinct::default(),
            count: 0,
            in_turn: 0,
            last: 0,
        };
        let asker = self.askers.entry((sender_mac, sender), new);
        if ts.saturating_sub(asker.range.first_ns) > SCAN_NS {
            *asker = new();
        }
        asker.range.cover(number, ts);
        let before = asker.asked.count();
        if !asker.asked.insert(hash_of(&target)) {
            return;
        }
        asker.count += 1;
        asker.in_turn += u32::from(target.0 == asker.last + 1);
        asker.last = target.0;
        let asked = asker.asked.count();
        let in_turn = asker.in_turn * 5 >= asker.count * 3;
        let least = if in_turn { IN_TURN_MIN } else { ASKED_MIN };
        let times = f64::from(asked) / f64::from(least);
        if asked >= least {
            let probability = alerts.weigh(Measure::Asked, furthest(hosts, sender), times);
            alerts.raise(
                Alert::new(Kind::HorizontalScan, sender, asker.range, ts)
                    .rated(Severity::Low, probability, "arp")
                    .because("addresses asked for in a minute", asked, least - 1)
                    .because("of them the next after the last", asker.in_turn, 0.0),
            );
        } else if steps(before.into(), asked.into(), least.into()) {
            alerts.note(Measure::Asked, furthest(hosts, sender), times);
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.owners.bytes(|_| 0)
            + self.cards.bytes(|_| 0)
            + self.askers.bytes(|asker| asker.asked.owned_bytes())
            + self.asked.bytes(|_| 0)
    }

    /// Entries forgotten for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.owners.dropped() + self.cards.dropped() + self.askers.dropped() + self.asked.dropped()
    }
}
