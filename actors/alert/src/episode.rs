//! Episodes: what one entity does that one detector sees, from its beginning until it has been silent for a while: for as long as its
//! findings say, or as the desk does.

use crate::finding::{Finding, Proof, Range, Reason, Severity};
use crate::text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// Name of an episode: twelve hexadecimal digits that follow from kind, entity and beginning, so that the same traffic gives the same
/// names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpisodeId(pub u64);

/// Bits of a name.
const ID_MASK: u64 = (1 << 48) - 1;

impl EpisodeId {
    /// The name of an episode that begins with `finding`.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        let mut hash = Xxh3::new();
        for part in [finding.kind.as_bytes(), finding.entity.as_bytes()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(&finding.ts.to_le_bytes());
        Self(hash.digest() & ID_MASK)
    }

    /// Another name, for the one in 10^14 that is taken.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1) & ID_MASK)
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for EpisodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl Serialize for EpisodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EpisodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("`{text}` is no name of an alert")))
    }
}

/// Why a finding was not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Its group had its alerts of the day.
    Budget,
    /// Somebody does not want to hear of it for a while.
    Suppressed,
    /// Planned work.
    Maintenance,
    /// Its score is under what feedback demands.
    Calibrated,
}

impl Hold {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Budget, Self::Suppressed, Self::Maintenance, Self::Calibrated];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Suppressed => "suppressed",
            Self::Maintenance => "maintenance",
            Self::Calibrated => "calibrated",
        }
    }
}

/// Findings held back, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// [`Hold::Budget`].
    pub budget: u64,
    /// [`Hold::Suppressed`].
    pub suppressed: u64,
    /// [`Hold::Maintenance`].
    pub maintenance: u64,
    /// [`Hold::Calibrated`].
    pub calibrated: u64,
}

impl Held {
    /// Counts some.
    pub fn add(&mut self, hold: Hold, count: u64) {
        let place = match hold {
            Hold::Budget => &mut self.budget,
            Hold::Suppressed => &mut self.suppressed,
            Hold::Maintenance => &mut self.maintenance,
            Hold::Calibrated => &mut self.calibrated,
        };
        *place = place.saturating_add(count);
    }

    /// Those of one reason.
    #[must_use]
    pub fn of(&self, hold: Hold) -> u64 {
        match hold {
            Hold::Budget => self.budget,
            Hold::Suppressed => self.suppressed,
            Hold::Maintenance => self.maintenance,
            Hold::Calibrated => self.calibrated,
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        Hold::ALL.iter().fold(0, |sum, hold| sum.saturating_add(self.of(*hold)))
    }
}

/// What an operator made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nothing yet.
    #[default]
    Open,
    /// Somebody has seen it.
    Acknowledged,
    /// It was none.
    FalsePositive,
}

impl Status {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::FalsePositive => "false-positive",
        }
    }
}

/// What one entity does that one detector sees. This is the alert as files, sinks and `--output jsonl` have it
/// (`docs/alert.schema.json`).
///
/// `technique` to `unproven`, and `spoofed`, are those of the finding with the highest score, so that reasons and proof belong to the score that
/// is told; of equal scores those of the more severe, and the first of equals stays. `severity` is the highest of all findings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Its name.
    pub id: EpisodeId,
    /// Which detector or rule.
    pub kind: String,
    /// Who is accused.
    pub entity: String,
    /// The accused may be made up, so that `entity` names the victim.
    #[serde(default)]
    pub spoofed: bool,
    /// Most severe so far.
    pub severity: Severity,
    /// Highest score so far, 0 to 1.
    #[serde(with = "text::exact")]
    pub score: f64,
    /// Technique in MITRE ATT&CK.
    pub technique: Option<String>,
    /// Which variant.
    pub method: String,
    /// Against whom.
    pub peer: Option<String>,
    /// Which port of theirs.
    pub port: Option<u16>,
    /// Why.
    pub features: Vec<Reason>,
    /// The part of the input that the score rests on.
    pub range: Range,
    /// How to reach the score again.
    pub proof: Option<Proof>,
    /// Why there is no proof, where somebody knows.
    #[serde(default)]
    pub unproven: Option<String>,
    /// When it was first found, ns since 1970.
    #[serde(with = "text::number")]
    pub first_ts: u64,
    /// When it was last found, ns since 1970.
    #[serde(with = "text::number")]
    pub last_ts: u64,
    /// How often it was found, first and held back included.
    pub count: u64,
    /// Seconds of silence after which it is over, where its findings asked for more than others get; the longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_s: Option<u32>,
    /// The group whose budget it uses.
    pub group: String,
    /// The severity it was last told at; `None` while it was only held back.
    pub told: Option<Severity>,
    /// Findings held back.
    #[serde(default)]
    pub held: Held,
    /// What an operator made of it.
    #[serde(default)]
    pub status: Status,
    /// What the operator wrote.
    #[serde(default)]
    pub note: Option<String>,
}

impl Episode {
    /// An episode of one finding, told to nobody yet.
    #[must_use]
    pub fn new(id: EpisodeId, finding: &Finding, group: &str) -> Self {
        Self {
            id,
            kind: finding.kind.clone(),
            entity: finding.entity.clone(),
            spoofed: finding.spoofed,
            severity: finding.severity,
            score: finding.score,
            technique: finding.technique.clone(),
            method: finding.method.clone(),
            peer: finding.peer.clone(),
            port: finding.port,
            features: finding.reasons.clone(),
            range: finding.range,
            proof: finding.proof.clone(),
            unproven: finding.unproven.clone(),
            first_ts: finding.ts,
            last_ts: finding.ts,
            count: 1,
            silence_s: finding.silence_s,
            group: group.to_owned(),
            told: None,
            held: Held::default(),
            status: Status::Open,
            note: None,
        }
    }

    /// Takes another finding in.
    pub fn again(&mut self, finding: &Finding) {
        self.count = self.count.saturating_add(1);
        self.first_ts = self.first_ts.min(finding.ts);
        self.last_ts = self.last_ts.max(finding.ts);
        self.silence_s = self.silence_s.max(finding.silence_s);
        if (finding.score, finding.severity) > (self.score, self.severity) {
            self.technique.clone_from(&finding.technique);
            self.method.clone_from(&finding.method);
            self.peer.clone_from(&finding.peer);
            self.port = finding.port;
            self.features.clone_from(&finding.reasons);
            self.range = finding.range;
            self.proof.clone_from(&finding.proof);
            self.unproven.clone_from(&finding.unproven);
            self.spoofed = finding.spoofed;
        }
        self.score = self.score.max(finding.score);
        self.severity = self.severity.max(finding.severity);
    }

    /// The alert as others read it: with times for people, and a version.
    #[must_use]
    pub fn document(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["v"] = DOCUMENT_VERSION.into();
        value["first_time"] = text::instant(self.first_ts).into();
        value["last_time"] = text::instant(self.last_ts).into();
        value
    }
}

/// Version of [`Episode::document`].
pub const DOCUMENT_VERSION: u32 = 1;
