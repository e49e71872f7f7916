//! One accusation, as a detector makes it.

use crate::text;
use serde::{Deserialize, Serialize};

/// How bad it is if true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look when there is time.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth a look now.
    High,
}

impl Severity {
    /// Every severity, least first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One reason: what was seen against what is expected of an ordinary entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// What was measured, with its unit.
    pub name: String,
    /// What it was; finite.
    #[serde(with = "text::exact")]
    pub seen: f64,
    /// What stays unsuspicious; finite.
    #[serde(with = "text::exact")]
    pub expected: f64,
}

impl Reason {
    /// A reason; what is not finite is brought into the range of numbers, NaN to 0.
    #[must_use]
    pub fn new(name: &str, seen: f64, expected: f64) -> Self {
        let finite = |value: f64| if value.is_nan() { 0.0 } else { value.clamp(f64::MIN, f64::MAX) };
        Self {
            name: text::bounded(name, TEXT_MAX).to_owned(),
            seen: finite(seen),
            expected: finite(expected),
        }
    }
}

/// The part of the input that a finding rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Number of the first packet or record, from 1.
    #[serde(with = "text::number")]
    pub first: u64,
    /// Number of the last.
    #[serde(with = "text::number")]
    pub last: u64,
    /// Time of the first, ns since 1970.
    #[serde(with = "text::number")]
    pub first_ts: u64,
    /// Time of the last, ns since 1970.
    #[serde(with = "text::number")]
    pub last_ts: u64,
}

/// What it takes to reach the score again: which input, and how much of it had been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Name of the input in the store, see [`crate::store::Input`].
    pub input: String,
    /// Units (packets or rows) given to the detectors when the finding was made, the one that made it included.
    #[serde(with = "text::number")]
    pub units: u64,
    /// It was made when the input ended, as flows still open were closed.
    pub at_end: bool,
    /// When it was made, ns since 1970.
    #[serde(with = "text::number")]
    pub ts: u64,
    /// The bits of the score.
    #[serde(with = "text::bits")]
    pub score_bits: u64,
}

/// Longest text of a finding, in bytes: names of entities, kinds, methods and reasons are cut there.
pub const TEXT_MAX: usize = 255;
/// Reasons kept.
pub const REASONS_MAX: usize = 8;

/// An accusation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which detector or rule: `vertical-scan`, `sigma:…`, `pattern:…`.
    pub kind: String,
    /// Who is accused: an address, or what a rule groups by.
    pub entity: String,
    /// The accused may be made up, so that `entity` names the victim.
    pub spoofed: bool,
    /// Against whom; the first of several.
    pub peer: Option<String>,
    /// Port of the peer, where one matters.
    pub port: Option<u16>,
    /// Which variant.
    pub method: String,
    /// Technique in MITRE ATT&CK, if the detector names one.
    pub technique: Option<String>,
    /// How bad.
    pub severity: Severity,
    /// How sure, from 0 to 1.
    pub score: f64,
    /// Why.
    pub reasons: Vec<Reason>,
    /// On what.
    pub range: Range,
    /// When it was made, ns since 1970.
    pub ts: u64,
    /// How to reach the score again; `None` for what was not recorded.
    pub proof: Option<Proof>,
    /// Why there is no proof, where somebody knows.
    pub unproven: Option<String>,
    /// Seconds of silence after which it is over and the next is another, where that is longer than for others: for what comes seldom by
    /// nature. At most [`SILENCE_S_MAX`].
    pub silence_s: Option<u32>,
}

/// The longest silence that a finding may ask for: a week.
pub const SILENCE_S_MAX: u32 = 604_800;

impl Finding {
    /// Brings everything into its bounds: texts, the number of reasons, the score.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let cut = |text: &mut String| text.truncate(text::bounded(text, TEXT_MAX).len());
        cut(&mut self.kind);
        cut(&mut self.entity);
        cut(&mut self.method);
        self.peer.as_mut().map(cut);
        self.technique.as_mut().map(cut);
        self.unproven.as_mut().map(cut);
        self.reasons.truncate(REASONS_MAX);
        self.silence_s = self.silence_s.map(|seconds| seconds.min(SILENCE_S_MAX));
        self.score = if self.score.is_nan() { 0.0 } else { self.score.clamp(0.0, 1.0) };
        self
    }
}
