//! `tidegate detect`: attacks in captures and flow logs, with their reasons.

use crate::cli::{AlertsArg, DetectArgs, SeverityArg};
use crate::exit::{Exit, Outcome};
use crate::interrupt::Interrupt;
use crate::render::{Tone, Ui, clean, duration, instant, thousands};
use crate::traffic::{self, Read};
use serde_json::{Value, json};
use std::path::Path;
use tidegate_flow::{Alert, Detectors, Frame, Severity, TableCounts};
use tidegate_replay::decode::Traffic;

pub(crate) fn run(args: &DetectArgs, ui: &Ui) -> Outcome {
    let interrupt = Interrupt::listen()?;
    let mut exit = Exit::Ok;
    let least = match args.min_severity {
        SeverityArg::Low => Severity::Low,
        SeverityArg::Medium => Severity::Medium,
        SeverityArg::High => Severity::High,
    };
    for path in &args.files {
        if interrupt.raised() {
            break;
        }
        let mut table = traffic::table(args.flows_max, 0);
        let mut detectors = Detectors::default();
        let read = traffic::read(path, &args.read, &interrupt, ui, |traffic| match traffic {
            Traffic::Frame(Frame::Ip(packet)) => table.packet(&packet, &mut detectors),
            Traffic::Frame(Frame::Arp(arp)) => detectors.arp(&arp),
            Traffic::Frame(Frame::Other) => {}
            Traffic::Record(record) => detectors.logged(&record),
        });
        let read = match read {
            Ok(read) => read,
            // The other files are still worth a look.
            Err(failure) => {
                ui.error(&failure.error);
                exit = failure.exit.max(exit);
                continue;
            }
        };
        table.finish(&mut detectors);
        let alerts: Vec<&Alert> = detectors.alerts().iter().filter(|alert| alert.severity >= least).collect();
        if args.json {
            ui.print_json(&whole(path, &read, table.counts(), &detectors, &alerts));
        } else if args.output == AlertsArg::Jsonl {
            for alert in &alerts {
                let mut value = to_json(alert);
                value["file"] = json!(path.display().to_string());
                ui.print_json(&value);
            }
        } else {
            ui.print(&render(path, &read, &alerts, ui));
        }
        if !args.json {
            traffic::notes(&read, table.counts(), ui);
            if detectors.forgotten() > 0 {
                ui.note(&format!(
                    "{} hosts, pairs or names were forgotten for lack of room",
                    thousands(detectors.forgotten())
                ));
            }
            if detectors.withheld() > 0 {
                ui.note(&format!("{} further alerts were not kept", thousands(detectors.withheld())));
            }
        }
        if !alerts.is_empty() {
            exit = exit.max(Exit::Differs);
        }
        if let Some(error) = read.ended_early {
            ui.error(&error.into());
            exit = Exit::Input;
        }
    }
    Ok(exit)
}

fn whole(path: &Path, read: &Read, counts: TableCounts, detectors: &Detectors, alerts: &[&Alert]) -> Value {
    let alerts: Vec<Value> = alerts.iter().map(|alert| to_json(alert)).collect();
    json!({
        "file": path.display().to_string(),
        "format": read.format,
        "units": read.account.units,
        "accepted": read.account.accepted,
        "faults": read.account.faults(),
        "flows": counts.opened,
        "evicted": counts.evicted,
        "disordered": counts.disordered,
        "forgotten": detectors.forgotten(),
        "withheld": detectors.withheld(),
        "ended_early": read.ended_early.as_ref().map(ToString::to_string),
        "alerts": alerts,
    })
}

/// An alert with times as text, since they do not fit a double.
fn to_json(alert: &Alert) -> Value {
    let features: Vec<Value> = alert
        .reasons()
        .map(|feature| json!({ "name": feature.name, "seen": feature.seen, "expected": feature.expected }))
        .collect();
    json!({
        "id": alert.id,
        "time": instant(alert.raised_ns),
        "ts": alert.raised_ns.to_string(),
        "kind": alert.kind.name(),
        "method": alert.method,
        "technique": alert.kind.technique(),
        "source": alert.source.to_string(),
        "spoofed": alert.spoofed,
        "peer": alert.peer.map(|peer| peer.to_string()),
        "port": alert.port,
        "severity": alert.severity.name(),
        "probability": alert.probability,
        "count": alert.count,
        "first_packet": alert.range.first,
        "last_packet": alert.range.last,
        "first_ts": alert.range.first_ns.to_string(),
        "last_ts": alert.range.last_ns.to_string(),
        "features": features,
    })
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && (0.0..1e15).contains(&value) {
        thousands(value as u64)
    } else {
        format!("{value:.3}")
    }
}

fn render(path: &Path, read: &Read, alerts: &[&Alert], ui: &Ui) -> String {
    let name = clean(&path.display().to_string());
    let summary = match alerts.len() {
        0 => "nothing found".to_owned(),
        1 => "1 alert".to_owned(),
        n => format!("{n} alerts"),
    };
    let units = format!("{} units of {}", thousands(read.account.units), read.format);
    let mut text = format!("{}  {summary} in {units}\n", ui.paint(Tone::Strong, &name));
    for alert in alerts {
        let tone = match alert.severity {
            Severity::High => Tone::Bad,
            Severity::Medium => Tone::Warn,
            Severity::Low => Tone::Faint,
        };
        let against = match (alert.peer, alert.port) {
            (Some(peer), _) if alert.spoofed && peer == alert.source => {
                " is the victim of made-up or many sources".to_owned()
            }
            (Some(peer), Some(port)) => format!(" against {peer} port {port}"),
            (Some(peer), None) => format!(" against {peer}"),
            (None, _) => String::new(),
        };
        let kind = ui.paint(tone, alert.kind.name());
        text += &format!("\n  {kind} ({}) by {}{against}\n", alert.method, alert.source);
        text += &format!(
            "    {} severity, probability {:.2}, {}; raised {}, seen {} over {}\n",
            alert.severity.name(),
            alert.probability,
            alert.kind.technique(),
            instant(alert.raised_ns),
            if alert.count == 1 { "once".to_owned() } else { format!("{} times", thousands(alert.count)) },
            duration(alert.seen_ns.saturating_sub(alert.range.first_ns)),
        );
        text += &format!("    packets {} to {}\n", thousands(alert.range.first), thousands(alert.range.last));
        for feature in alert.reasons() {
            text += &format!(
                "    {}: {}, expected {}\n",
                feature.name,
                number(feature.seen),
                number(feature.expected)
            );
        }
    }
    text
}
