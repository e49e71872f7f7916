//! From the command line to a plan, and what to compute when the command line does not say.

use crate::cli::PlanArgs;
use crate::exit::Failure;
use std::path::PathBuf;
use tidegate_actors::bars::BarOptions;
use tidegate_actors::{BarSpec, WindowSpec};
use tidegate_engine::{WindowWidth, kind};
use tidegate_replay::decode::ReadOptions;
use tidegate_replay::{LogOptions, Plan, Source, open_input};

/// Events looked at to see what an input holds.
const PROBE_EVENTS: usize = 16_384;

/// Opens every input, in order.
pub(crate) fn open_all(files: &[PathBuf], options: &ReadOptions) -> Result<Vec<Box<dyn Source>>, Failure> {
    files.iter().map(|file| Ok(open_input(file, options)?)).collect()
}

/// The plan as the command line has it, which may be empty.
pub(crate) fn asked(args: &PlanArgs) -> Plan {
    Plan {
        bars: args.bars.clone(),
        indicators: args.ind.clone(),
        regime: args.regime,
        bar_options: BarOptions {
            late: args.late,
            horizon_ns: args.horizon,
            history: !args.no_history,
            ..BarOptions::default()
        },
        hosts: args.hosts.clone(),
    }
}

/// The plan asked for, or the usual one for what the inputs hold.
pub(crate) fn plan(args: &PlanArgs, files: &[PathBuf], read: &ReadOptions) -> Result<Plan, Failure> {
    let mut plan = asked(args);
    let over_bars = !plan.indicators.is_empty() || plan.regime.is_some();
    if plan.bars.is_empty() && (plan.hosts.is_empty() || over_bars) {
        let (trades, flows) = contents(files, read)?;
        if trades || !flows || over_bars {
            plan.bars = usual_bars();
        }
        if flows && plan.hosts.is_empty() {
            plan.hosts = vec![minute()];
        }
    }
    plan.streams()?;
    Ok(plan)
}

/// How the log is made.
pub(crate) fn log(args: &PlanArgs) -> LogOptions {
    LogOptions { disorder_ns: args.disorder, ..LogOptions::default() }
}

/// One minute.
pub(crate) fn minute() -> WindowWidth {
    const { WindowWidth::from_ns(60_000_000_000).unwrap() }
}

/// One second and one minute.
pub(crate) fn usual_bars() -> Vec<WindowSpec> {
    [WindowWidth::SECOND, minute()].map(|width| BarSpec::Time(width).into()).to_vec()
}

/// Whether the beginnings of the inputs hold trades, and flows.
fn contents(files: &[PathBuf], read: &ReadOptions) -> Result<(bool, bool), Failure> {
    let (mut trades, mut flows) = (false, false);
    for file in files {
        let mut source = open_input(file, read)?;
        let mut events = Vec::new();
        // What is damaged is the replay's to report, behind what came before it.
        while events.len() < PROBE_EVENTS && matches!(source.read(&mut events, PROBE_EVENTS), Ok(1..)) {}
        trades |=
            events.iter().any(|event| matches!(event.kind, kind::TRADE | kind::ORDER | kind::BOOK_LEVEL));
        flows |= events.iter().any(|event| event.kind == kind::FLOW);
    }
    Ok((trades, flows))
}

/// The settings a digest depends on, as text.
pub(crate) fn describe(plan: &Plan, log: &LogOptions) -> serde_json::Value {
    let texts = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>();
    serde_json::json!({
        "bars": texts(&mut plan.bars.iter().map(ToString::to_string)),
        "ind": texts(&mut plan.indicators.iter().map(ToString::to_string)),
        "regime": plan.regime.map(|spec| spec.to_string()),
        "hosts": texts(&mut plan.hosts.iter().map(|&width| BarSpec::Time(width).to_string())),
        "late": format!("{:?}", plan.bar_options.late).to_lowercase(),
        "horizon_ns": plan.bar_options.horizon_ns,
        "history": plan.bar_options.history,
        "disorder_ns": log.disorder_ns,
    })
}

/// Inverse of [`describe`]; `None` when the text is not of this version.
pub(crate) fn from_description(value: &serde_json::Value) -> Option<(Plan, LogOptions)> {
    fn all<T: std::str::FromStr>(value: &serde_json::Value) -> Option<Vec<T>> {
        value.as_array()?.iter().map(|item| item.as_str()?.parse().ok()).collect()
    }
    let hosts: Vec<BarSpec> = all(&value["hosts"])?;
    let hosts = hosts.into_iter().map(|spec| match spec {
        BarSpec::Time(width) => Some(width),
        _ => None,
    });
    let plan = Plan {
        bars: all(&value["bars"])?,
        indicators: all(&value["ind"])?,
        // Descriptions from before there were regimes have none.
        regime: value["regime"].as_str().map(str::parse).transpose().ok()?,
        bar_options: BarOptions {
            late: value["late"].as_str()?.parse().ok()?,
            horizon_ns: value["horizon_ns"].as_u64()?,
            history: value["history"].as_bool()?,
            ..BarOptions::default()
        },
        hosts: hosts.collect::<Option<_>>()?,
    };
    let disorder_ns = value["disorder_ns"].as_u64()?;
    Some((plan, LogOptions { disorder_ns, ..LogOptions::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_the_plan() {
        let plan = Plan {
            bars: ["1s", "1000t", "1$", "session:30s", "sliding:1m/10s", "1m@1s"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            indicators: vec!["macd:12:26:9".parse().unwrap(), "bb:20:2.5".parse().unwrap()],
            regime: Some("hmm:3".parse().unwrap()),
            hosts: vec![minute()],
            ..Plan::default()
        };
        let log = LogOptions { disorder_ns: 7, ..LogOptions::default() };
        assert_eq!(from_description(&describe(&plan, &log)), Some((plan, log)));
        assert_eq!(from_description(&serde_json::json!({})), None);
    }
}
