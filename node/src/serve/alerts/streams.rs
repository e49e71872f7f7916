//! Anomalies and regime changes that streams tell become findings for the same desk.
//!
//! The reader is a subscriber like any other: what it cannot keep up with is dropped by the hub, and counted.

use super::board::Board;
use super::desk::ToDesk;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use tidegate_alert::{Finding, Range, Reason, Severity};
use tidegate_config::Config;
use tidegate_engine::{BarState, Output};
use tidegate_live::{Delivery, HubHandle, Origin};
use tidegate_proto::subscription::{LagPolicy, Subscription};
use tidegate_proto::wire::HEAD_BYTES;
use tidegate_proto::{Frame, FrameHead};
use tidegate_replay::StreamInfo;

/// Names and states remembered; beyond it all are forgotten and learnt anew.
const NAMES_MAX: usize = 1 << 20;
/// State of a row that says an anomaly goes on.
const ALERT: f64 = 2.0;

const ANOMALY: &str = "anomaly";
const REGIME: &str = "regime-change";

/// Whether a kind of alert comes from a stream: its method is then the stream, its entity the key.
pub(super) fn is_of_stream(kind: &str) -> bool {
    [ANOMALY, REGIME].contains(&kind)
}

/// A stream that is looked at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watched {
    name: String,
    columns: Vec<String>,
    /// For anomalies, the score from which a bar is one.
    threshold: Option<f64>,
}

/// Of these streams, those that find something.
pub(super) fn watched(config: &Config, streams: &[StreamInfo]) -> Vec<Watched> {
    let thresholds: HashMap<String, f64> = config
        .streams()
        .iter()
        .filter_map(|stream| Some((format!("anomaly.{}", stream.bars.as_ref()?.name()), stream.anomaly?)))
        .map(|(name, spec)| (name, spec.threshold()))
        .collect();
    let of = |stream: &StreamInfo| {
        let threshold = thresholds.get(&stream.name).copied();
        (threshold.is_some() || stream.name.starts_with("regime.")).then(|| Watched {
            name: stream.name.clone(),
            columns: stream.columns.clone(),
            threshold,
        })
    };
    streams.iter().filter_map(of).collect()
}

/// What is remembered between rows.
#[derive(Default)]
struct Reader {
    names: HashMap<u64, Box<str>>,
    /// The last state of each key, by stream and name.
    states: HashMap<(u16, u64), u8>,
}

/// Reads the streams until the server ends.
pub(super) async fn read(
    hub: HubHandle,
    watched: Vec<Watched>,
    board: Arc<Board>,
    to_desk: SyncSender<ToDesk>,
) {
    let subscription = Subscription {
        policy: LagPolicy::DropOldest,
        ..Subscription::to(watched.iter().map(|stream| stream.name.as_str()))
    };
    let origin = Origin { kind: "alerts", peer: "this node".into() };
    let mut deliveries = match hub.subscribe_from(subscription, Some(origin)).await {
        Ok(reader) => reader,
        Err(error) => {
            board.note(format!("warning: streams are not looked at for alerts: {error}"));
            return;
        }
    };
    let known = &hub.catalogue().streams;
    let of = |stream: u16| {
        let name = &known.get(usize::from(stream))?.name;
        watched.iter().find(|watched| watched.name == *name)
    };
    let mut reader = Reader::default();
    while let Some(Delivery::Frames(frames)) = deliveries.next().await {
        for bytes in &frames {
            let Ok(Some(head)) = FrameHead::read(bytes, 0) else { continue };
            let Some(body) = bytes.get(HEAD_BYTES..head.frame_bytes()) else { continue };
            match Frame::read(0, &head, body) {
                Ok(Frame::Names(names)) => {
                    if reader.names.len() > NAMES_MAX {
                        reader = Reader::default();
                    }
                    reader.names.extend(names.iter().map(|(hash, name)| (hash, name.into())));
                }
                Ok(Frame::Records(records)) => {
                    for output in records.iter() {
                        let found = of(output.stream).and_then(|stream| reader.judge(stream, &output));
                        if let Some(finding) = found {
                            // This thread may wait; meanwhile nothing is taken off the hub.
                            let _ = to_desk.send(ToDesk::Finding(Box::new(finding)));
                        }
                    }
                }
                Ok(Frame::Loss(loss)) => {
                    board.counts.records_lost.fetch_add(loss.count, Relaxed);
                }
                _ => {}
            }
        }
    }
}

impl Reader {
    fn judge(&mut self, stream: &Watched, output: &Output) -> Option<Finding> {
        if output.state == BarState::Forming as u8 {
            return None;
        }
        let values: Vec<f64> = output.values().collect();
        let value = |name: &str| {
            let at = stream.columns.iter().position(|column| column == name)?;
            values.get(at).copied().filter(|value| value.is_finite())
        };
        let of = match stream.threshold {
            Some(threshold) => anomaly(threshold, &value),
            None => {
                let state = value("state")? as u8;
                let before = self.states.insert((output.stream, output.name), state)?;
                (before != state).then(|| regime(before, state, &value)).flatten()
            }
        };
        let Found { kind, score, severity, reasons } = of?;
        let entity = self.names.get(&output.name)?.to_string();
        Some(Finding {
            kind: kind.to_owned(),
            entity,
            spoofed: false,
            peer: None,
            port: None,
            method: stream.name.clone(),
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
        })
    }
}

struct Found {
    kind: &'static str,
    score: f64,
    severity: Severity,
    reasons: Vec<Reason>,
}

/// A row whose score reaches the threshold, on the detectors' scale: `1 - 0.2 * threshold / seen`.
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
    Some(Found { kind: ANOMALY, score: 1.0 - 0.2 * threshold / score, severity, reasons })
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
    if let Some(bars) = value("run_length") {
        reasons.push(Reason::new("bars since it began", bars, 0.0));
    }
    Some(Found { kind: REGIME, score, severity: Severity::Low, reasons })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::{Cause, output_kind};

    fn row(sequence: u64, values: &[f64]) -> Output {
        let mut output = Output {
            name: 7,
            sequence,
            ts: sequence * 1_000,
            kind: output_kind::VALUES,
            state: BarState::Final as u8,
            cause: Cause::Watermark as u8,
            count: values.len() as u8,
            ..Output::default()
        };
        output.words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits());
        output
    }

    fn reader() -> Reader {
        Reader { names: HashMap::from([(7, "BTCUSD".into())]), states: HashMap::new() }
    }

    #[test]
    fn anomalies_are_on_the_detectors_scale_and_quiet_rows_say_nothing() {
        let columns = ["state", "score", "chance", "value", "expected", "spread"];
        let stream = Watched {
            name: "anomaly.1s".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            threshold: Some(2.0),
        };
        let mut reader = reader();
        for quiet in [
            [0.0, f64::NAN, f64::NAN, 5.0, f64::NAN, f64::NAN],
            [1.0, 1.9, 0.1, 5.0, 5.0, 1.0],
            [2.0, 1.9, 0.1, 5.0, 5.0, 1.0],
        ] {
            assert_eq!(reader.judge(&stream, &row(1, &quiet)), None);
        }
        let found = reader.judge(&stream, &row(2, &[2.0, 8.0, 1e-8, 90.0, 5.0, 1.0])).unwrap();
        assert_eq!((found.kind.as_str(), found.entity.as_str()), ("anomaly", "BTCUSD"));
        assert_eq!(
            (found.score, found.severity, found.method.as_str()),
            (0.95, Severity::High, "anomaly.1s")
        );
        assert_eq!((found.reasons[0].seen, found.reasons[0].expected), (90.0, 5.0));
        assert_eq!((found.range.first, found.ts), (2, 2_000));
        let forming = Output { state: BarState::Forming as u8, ..row(3, &[2.0, 8.0, 0.1, 9.0, 5.0, 1.0]) };
        assert_eq!(reader.judge(&stream, &forming), None);
    }

    #[test]
    fn a_regime_is_news_when_it_changes_and_not_when_it_is_learnt() {
        let columns =
            ["state", "p_0", "p_1", "run_length", "mean", "deviation", "mean_before", "deviation_before"];
        let stream = Watched {
            name: "regime.1s".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            threshold: None,
        };
        let mut reader = reader();
        let calm = [0.0, 0.9, 0.1, 40.0, 0.0, 0.1, f64::NAN, f64::NAN];
        let wild = [1.0, 0.2, 0.8, 3.0, 0.0, 0.5, 0.0, 0.1];
        let learning = [f64::NAN; 8];
        assert_eq!(reader.judge(&stream, &row(1, &learning)), None);
        assert_eq!(reader.judge(&stream, &row(2, &calm)), None);
        assert_eq!(reader.judge(&stream, &row(3, &calm)), None);
        let found = reader.judge(&stream, &row(4, &wild)).unwrap();
        assert_eq!((found.kind.as_str(), found.score), ("regime-change", 0.8));
        let deviation = found.reasons.iter().find(|reason| reason.name == "deviation of returns").unwrap();
        assert_eq!((deviation.seen, deviation.expected), (0.5, 0.1));
        assert_eq!(reader.judge(&stream, &row(5, &wild)), None);
    }
}
