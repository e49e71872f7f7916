//! What an operator said: whom a budget counts for, what not to hear of, what was no attack.

use crate::episode::EpisodeId;
use crate::finding::{Finding, Severity};
use crate::text;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A policy that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not an entity.
    #[error(
        "`{0}` is no entity: an address such as 10.0.0.7, a network such as 10.0.0.0/8, or a name without blanks of at most 255 bytes"
    )]
    Target(String),
    /// Not a group.
    #[error("`{0}` is no group: NAME=NET[,NET…], such as office=10.1.0.0/16,fd00::/8")]
    Group(String),
    /// Two groups of one name, or too many.
    #[error(
        "group `{0}`: a name is given once, there are at most {GROUPS_MAX} groups, and `{REST}` is everybody else"
    )]
    GroupTwice(String),
}

/// Groups at most.
pub const GROUPS_MAX: usize = 64;
/// The group of those in no other.
pub const REST: &str = "other";

/// Whom something holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All addresses of a network; an address is a network of one.
    Net(IpNet),
    /// An entity that is no address.
    Name(String),
}

impl Target {
    /// Whether `entity` is meant.
    #[must_use]
    pub fn covers(&self, entity: &str) -> bool {
        match self {
            Self::Net(net) => entity.parse::<IpAddr>().is_ok_and(|address| net.contains(&address)),
            Self::Name(name) => name == entity,
        }
    }
}

impl FromStr for Target {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net(address.into()));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net.trunc()));
        }
        let odd = text.is_empty()
            || text.len() > 255
            || text.contains(char::is_control)
            || text.trim() != text
            // A network that is none; `10.0.0.1/cpu` is a series of that host.
            || text.split_once('/').is_some_and(|(address, bits)| {
                address.parse::<IpAddr>().is_ok() && bits.bytes().all(|byte| byte.is_ascii_digit())
            });
        if odd { Err(PolicyError::Target(text.to_owned())) } else { Ok(Self::Name(text.to_owned())) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Entities that share a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its networks.
    pub nets: Vec<IpNet>,
}

impl FromStr for Group {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError::Group(text.to_owned());
        let (name, nets) = text.split_once('=').ok_or_else(wrong)?;
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(letters) {
            return Err(wrong());
        }
        let net = |text: &str| {
            text.parse::<IpNet>()
                .ok()
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
                .ok_or_else(wrong)
        };
        Ok(Self { name: name.to_owned(), nets: nets.split(',').map(net).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nets: Vec<String> = self.nets.iter().map(ToString::to_string).collect();
        write!(f, "{}={}", self.name, nets.join(","))
    }
}

/// Every group; the first one that holds an entity is its group, [`REST`] is that of all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups(Vec<Group>);

impl Groups {
    /// These groups, in order.
    ///
    /// # Errors
    /// [`PolicyError::GroupTwice`] for a name given twice or one group too many.
    pub fn new(groups: Vec<Group>) -> Result<Self, PolicyError> {
        for (at, group) in groups.iter().enumerate() {
            let taken = groups[..at].iter().any(|other| other.name == group.name);
            if taken || at >= GROUPS_MAX || group.name == REST {
                return Err(PolicyError::GroupTwice(group.name.clone()));
            }
        }
        Ok(Self(groups))
    }

    /// The group of an entity.
    #[must_use]
    pub fn of(&self, entity: &str) -> &str {
        let address = if self.0.is_empty() { None } else { entity.parse::<IpAddr>().ok() };
        let inside =
            |address: IpAddr| self.0.iter().find(|group| group.nets.iter().any(|net| net.contains(&address)));
        address.and_then(inside).map_or(REST, |group| &group.name)
    }
}

/// Why something is not to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuietKind {
    /// It is known and not interesting.
    Suppression,
    /// Planned work.
    Maintenance,
}

/// A span of time in which something is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// Its number in the store, from 1.
    pub number: u32,
    /// Why.
    pub why: QuietKind,
    /// By whom; everybody where left out.
    pub entity: Option<Target>,
    /// What; everything where left out.
    pub kind: Option<String>,
    /// From when on, event time in ns since 1970.
    #[serde(with = "text::number")]
    pub from_ts: u64,
    /// Until when, not included.
    #[serde(with = "text::number")]
    pub until_ts: u64,
    /// The most severe that is held back; what is worse is told.
    pub up_to: Severity,
    /// What the operator wrote.
    #[serde(default)]
    pub note: Option<String>,
}

impl Quiet {
    /// Whether it holds `finding` back.
    #[must_use]
    pub fn covers(&self, finding: &Finding) -> bool {
        (self.from_ts..self.until_ts).contains(&finding.ts)
            && finding.severity <= self.up_to
            && self.kind.as_ref().is_none_or(|kind| *kind == finding.kind)
            && self.entity.as_ref().is_none_or(|target| target.covers(&finding.entity))
    }
}

/// What feedback demands: a finding of this kind, by this entity, is told from this score on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Of what.
    pub kind: String,
    /// By whom; everybody where left out.
    pub entity: Option<String>,
    /// The score that is demanded.
    #[serde(with = "text::exact")]
    pub required: f64,
    /// The episode that was a false positive.
    pub episode: EpisodeId,
}

impl Calibration {
    /// The score demanded after a false positive of `score`: half as far from certainty. On the scale of streams and tables,
    /// `1 - 0.2 * threshold / seen`, that is twice of what the false positive showed.
    #[must_use]
    pub fn demanded(score: f64) -> f64 {
        1.0 - (1.0 - score) / 2.0
    }

    /// Whether `finding` is meant.
    #[must_use]
    pub fn covers(&self, finding: &Finding) -> bool {
        self.kind == finding.kind && self.entity.as_ref().is_none_or(|entity| *entity == finding.entity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses_networks_and_names() {
        let target = |text: &str| text.parse::<Target>();
        assert!(target("10.0.0.0/8").unwrap().covers("10.9.9.9"));
        assert!(!target("10.0.0.0/8").unwrap().covers("11.0.0.1"));
        assert!(target("10.1.2.3").unwrap().covers("10.1.2.3"));
        assert!(target("fd00::/8").unwrap().covers("fd00::1"));
        assert!(target("example.com").unwrap().covers("example.com"));
        assert!(!target("10.0.0.0/8").unwrap().covers("example.com"));
        // A series of a host, and what browsers call themselves.
        for text in ["10.1.2.3", "10.0.0.0/8", "fd00::1", "example.com", "10.0.0.1/cpu", "Mozilla/5.0 (X11)"]
        {
            assert_eq!(target(text).unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.0/40", " a", "a\tb", "10.0.0.0/"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn groups_take_the_first_that_fits() {
        let group = |text: &str| text.parse::<Group>();
        let groups = Groups::new(vec![
            group("lab=10.1.0.0/16").unwrap(),
            group("office=10.0.0.0/8,fd00::/8").unwrap(),
        ]);
        let groups = groups.unwrap();
        assert_eq!(
            [groups.of("10.1.2.3"), groups.of("10.2.2.3"), groups.of("fd00::1")],
            ["lab", "office", "office"]
        );
        assert_eq!([groups.of("8.8.8.8"), groups.of("example.com")], [REST, REST]);
        for text in ["lab", "=10.0.0.0/8", "lab=", "lab=x", "a b=10.0.0.0/8"] {
            assert_eq!(group(text), Err(PolicyError::Group(text.to_owned())));
        }
        for twice in [["a=1.1.1.1", "a=1.1.1.2"], ["a=1.1.1.1", "other=1.1.1.2"]] {
            assert!(Groups::new(twice.iter().map(|text| group(text).unwrap()).collect()).is_err());
        }
    }

    #[test]
    fn a_false_positive_demands_twice_the_figure() {
        // Seen 40 against a threshold of 20, on the scale of the detectors.
        let score = |seen: f64| 1.0 - 0.2 * 20.0 / seen;
        assert!((Calibration::demanded(score(40.0)) - score(80.0)).abs() < 1e-15);
    }
}
