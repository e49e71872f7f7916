//! From the command line to a plan, and what to compute when the command line does not say.

use crate::cli::PlanArgs;
use crate::exit::Failure;
use crate::render::Ui;
use crate::settings::{Settings, map};
use std::path::PathBuf;
use tidegate_actors::bars::BarOptions;
use tidegate_actors::regime::RegimeSpec;
use tidegate_actors::{BarSpec, WindowSpec};
use tidegate_engine::{FenceOptions, WindowWidth, kind};
use tidegate_replay::decode::ReadOptions;
use tidegate_replay::{LogOptions, Own, Plan, Source, open_input};

/// Events looked at to see what an input holds.
const PROBE_EVENTS: usize = 16_384;

/// Opens every input, in order.
pub(crate) fn open_all(files: &[PathBuf], options: &ReadOptions) -> Result<Vec<Box<dyn Source>>, Failure> {
    files.iter().map(|file| Ok(open_input(file, options)?)).collect()
}

/// The plan asked for, or the usual one for what the inputs hold; and how the log is made.
pub(crate) fn plan(
    args: &PlanArgs,
    files: &[PathBuf],
    read: &ReadOptions,
    ui: &Ui,
) -> Result<(Plan, LogOptions), Failure> {
    let settings = Settings::of_plan(args, ui)?;
    let config = &settings.config;
    let log = LogOptions { disorder_ns: config.engine.disorder.0, fence: map::fence(config) };
    let over_bars = !args.ind.is_empty() || args.regime.is_some();
    if !(config.stream.is_empty() || args.bars.is_empty() && args.hosts.is_empty() && over_bars) {
        return Ok((config.plan()?, log));
    }
    let (trades, flows) = contents(files, read)?;
    let mut plan = Plan {
        indicators: args.ind.clone(),
        regime: args.regime,
        bar_options: config.bars.options(),
        ..Plan::default()
    };
    if trades || !flows || over_bars {
        plan.bars = usual_bars();
    }
    if flows {
        plan.hosts = vec![minute()];
    }
    plan.streams()?;
    Ok((plan, log))
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
    let mut value = serde_json::json!({
        "bars": texts(&mut plan.bars.iter().map(ToString::to_string)),
        "ind": texts(&mut plan.indicators.iter().map(ToString::to_string)),
        "hosts": texts(&mut plan.hosts.iter().map(|&width| BarSpec::Time(width).to_string())),
        "late": format!("{:?}", plan.bar_options.late).to_lowercase(),
        "horizon_ns": plan.bar_options.horizon_ns,
        "history": plan.bar_options.history,
        "disorder_ns": log.disorder_ns,
    });
    // Only what is said seldom, so that digests without one stay what they were.
    let usual = BarOptions::default();
    let caps = |options: &BarOptions| {
        [options.history_ns, options.history_events_max as u64, options.retained_bars_max as u64]
    };
    if let Some(regime) = plan.regime {
        value["regime"] = regime.to_string().into();
    }
    if caps(&plan.bar_options) != caps(&usual) {
        value["caps"] = caps(&plan.bar_options).to_vec().into();
    }
    if log.fence != LogOptions::default().fence {
        let fence =
            log.fence.map(|fence| [fence.jump_max_ns, fence.confirm_count as u64, fence.end_jump_max_ns]);
        value["fence"] = serde_json::json!(fence);
    }
    let own = plan.own.iter().map(|own| {
        serde_json::json!({
            "bars": own.bars.to_string(),
            "ind": texts(&mut own.indicators.iter().map(ToString::to_string)),
            "regime": own.regime.map(|regime| regime.to_string()),
            "late": own.options.late.to_string(),
            "horizon_ns": own.options.horizon_ns,
            "history": own.options.history,
        })
    });
    if !plan.own.is_empty() {
        value["own"] = own.collect();
    }
    value
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
    let mut base = BarOptions::default();
    if let Some(caps) = value.get("caps") {
        base.history_ns = caps[0].as_u64()?;
        base.history_events_max = usize::try_from(caps[1].as_u64()?).ok()?;
        base.retained_bars_max = usize::try_from(caps[2].as_u64()?).ok()?;
    }
    let options = |value: &serde_json::Value| {
        Some(BarOptions {
            late: value["late"].as_str()?.parse().ok()?,
            horizon_ns: value["horizon_ns"].as_u64()?,
            history: value["history"].as_bool()?,
            ..base
        })
    };
    // Most have none; descriptions from before there were regimes do not even say so.
    let regime =
        |value: &serde_json::Value| value["regime"].as_str().map(str::parse::<RegimeSpec>).transpose().ok();
    let own = |own: &serde_json::Value| {
        Some(Own {
            bars: own["bars"].as_str()?.parse().ok()?,
            indicators: all(&own["ind"])?,
            regime: regime(own)?,
            options: options(own)?,
        })
    };
    let plan = Plan {
        bars: all(&value["bars"])?,
        indicators: all(&value["ind"])?,
        regime: regime(value)?,
        bar_options: options(value)?,
        hosts: hosts.collect::<Option<_>>()?,
        own: value
            .get("own")
            .and_then(|all| all.as_array())
            .into_iter()
            .flatten()
            .map(own)
            .collect::<Option<_>>()?,
    };
    let fence = match value.get("fence") {
        None => LogOptions::default().fence,
        Some(serde_json::Value::Null) => None,
        Some(fence) => Some(FenceOptions {
            jump_max_ns: fence[0].as_u64()?,
            confirm_count: usize::try_from(fence[1].as_u64()?).ok()?,
            end_jump_max_ns: fence[2].as_u64()?,
        }),
    };
    Some((plan, LogOptions { disorder_ns: value["disorder_ns"].as_u64()?, fence }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_actors::LatePolicy;

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
        assert_eq!(from_description(&describe(&plan, &log)), Some((plan.clone(), log)));
        for key in ["own", "caps", "fence"] {
            assert!(describe(&plan, &log).get(key).is_none(), "only a configuration says {key}");
        }
        let options = BarOptions { history_ns: 5, retained_bars_max: 6, ..plan.bar_options };
        let own = Own {
            bars: "1s".parse().unwrap(),
            indicators: vec!["sma:3".parse().unwrap()],
            regime: Some("hmm:2".parse().unwrap()),
            options: BarOptions { horizon_ns: 9, late: LatePolicy::Side, ..options },
        };
        let plan = Plan { bar_options: options, own: vec![own], ..plan };
        for fence in [None, Some(FenceOptions { confirm_count: 2, ..FenceOptions::default() })] {
            let log = LogOptions { fence, ..log };
            assert_eq!(from_description(&describe(&plan, &log)), Some((plan.clone(), log)));
        }
        assert_eq!(from_description(&serde_json::json!({})), None);
    }
}
