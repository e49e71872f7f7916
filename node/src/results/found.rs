//! What rows of anomalies and regimes tell without any rule.

use crate::series::alert_score;
use std::collections::HashMap;
use tidegate_actors::anomaly::{AnomalySpec, Measure};
use tidegate_alert::{Finding, Range, Reason, Severity};
use tidegate_engine::{BarState, Output};

/// States remembered; beyond it all are forgotten and learnt anew.
const STATES_MAX: usize = 1 << 20;
/// State of a row that says an anomaly goes on.
const ALERT: f64 = 2.0;

pub(crate) const ANOMALY: &str = "anomaly";
pub(crate) const REGIME: &str = "regime-change";

/// How a stream's rows are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Judged {
    /// An anomaly from this score on.
    Anomaly { threshold: f64 },
    /// News when the state is another one.
    Regime,
}

/// How rows of a stream are judged, by its name; `None` for streams that tell nothing by themselves.
pub(crate) fn judged(stream: &str, thresholds: &HashMap<String, Judged>) -> Option<Judged> {
    let usual = || Judged::Anomaly { threshold: AnomalySpec::new(Measure::Volume).threshold() };
    if stream.starts_with("anomaly.") {
        return Some(thresholds.get(stream).copied().unwrap_or_else(usual));
    }
    stream.starts_with("regime.").then_some(Judged::Regime)
}

/// The last state of each key, by stream and name.
#[derive(Debug, Default)]
pub(crate) struct States(HashMap<(u16, u64), u8>);

/// What a row tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    kind: &'static str,
    score: f64,
    severity: Severity,
    reasons: Vec<Reason>,
}

impl Found {
    /// As alerts have it.
    pub(crate) fn finding(self, stream: &str, key: &str, output: &Output) -> Finding {
        let Self { kind, score, severity, reasons } = self;
        Finding {
            kind: kind.to_owned(),
            entity: key.to_owned(),
            spoofed: false,
            peer: None,
            port: None,
            method: stream.to_owned(),
            technique: None,
            severity,
            score,
            reasons,
            range: Range {
                first: output.sequence,
                last: output.sequence,
                first_ts: output.ts,
                last_ts: output.ts,
            },
            ts: output.ts,
            proof: None,
            unproven: None,
            silence_s: None,
        }
    }
}

impl States {
    /// A stream has ended.
    pub(crate) fn forget(&mut self, number: u16) {
        self.0.retain(|key, _| key.0 != number);
    }

    /// Judges a row of the key.
    pub(crate) fn judge(
        &mut self,
        judged: Judged,
        columns: &[String],
        key: (u16, u64),
        output: &Output,
    ) -> Option<Found> {
        if output.state == BarState::Forming as u8 {
            return None;
        }
        let value = |name: &str| {
            let at = columns.iter().position(|column| column == name)?;
            output.values().nth(at).filter(|value| value.is_finite())
        };
        match judged {
            Judged::Anomaly { threshold } => anomaly(threshold, &value),
            Judged::Regime => {
                let state = value("state")? as u8;
                if self.0.len() > STATES_MAX {
                    self.0.clear();
                }
                let before = self.0.insert(key, state)?;
                (before != state).then(|| regime(before, state, &value)).flatten()
            }
        }
    }
}

/// A row whose score reaches the threshold; the alert has that of [`alert_score`].
fn anomaly(threshold: f64, value: &dyn Fn(&str) -> Option<f64>) -> Option<Found> {
    let score = value("score")?;
    if value("state")? != ALERT || score < threshold {
        return None;
    }
    let severity = match score / threshold {
        times if times >= 4.0 => Severity::High,
        times if times >= 2.0 => Severity::Medium,
        _ => Severity::Low,
    };
    let mut reasons = Vec::new();
    if let (Some(seen), Some(expected)) = (value("value"), value("expected")) {
        reasons.push(Reason::new("value", seen, expected));
        if let Some(spread) = value("spread") {
            reasons.push(Reason::new("distance from what was expected", (seen - expected).abs(), spread));
        }
    }
    reasons.push(Reason::new("score", score, threshold));
    if let Some(chance) = value("chance") {
        reasons.push(Reason::new("chance of such a score in an undisturbed series", chance, 1.0));
    }
    Some(Found { kind: ANOMALY, score: alert_score(threshold, score), severity, reasons })
}

/// Another state than before. The score is the probability of the new state.
fn regime(before: u8, state: u8, value: &dyn Fn(&str) -> Option<f64>) -> Option<Found> {
    let score = value(&format!("p_{state}"))?;
    let mut reasons = vec![Reason::new("state", f64::from(state), f64::from(before))];
    for (name, was) in [("deviation", "deviation_before"), ("mean", "mean_before")] {
        if let (Some(seen), Some(expected)) = (value(name), value(was)) {
            reasons.push(Reason::new(&format!("{name} of returns"), seen, expected));
        }
    }
    if let (Some(seen), Some(expected)) = (value("autocorrelation"), value("autocorrelation_before")) {
        reasons.push(Reason::new("correlation of returns with those one bar earlier", seen, expected));
    }
    if let Some(bars) = value("run_length") {
        reasons.push(Reason::new("bars since it began", bars, 0.0));
    }
    Some(Found { kind: REGIME, score, severity: Severity::Low, reasons })
}
