//! What a replay came to, for people and as JSON.

use crate::exit::{Exit, Failure};
use crate::render::{Table, Tone, Ui, bytes, clean, duration, instant, rate, thousands};
use serde_json::{Map, Value, json};
use tidegate_actors::runtime::StageReport;
use tidegate_engine::Ledger;
use tidegate_engine::ledger::FATE_NAMES;
use tidegate_replay::write::FileSummary;
use tidegate_replay::{RejectCause, ReplayReport};

/// The report as text. `paced`: latencies mean something.
pub(crate) fn render(report: &ReplayReport, files: &[FileSummary], paced: bool, ui: &Ui) -> String {
    let mut facts = Table::facts();
    let runtime = &report.runtime;
    facts.fact(
        "events",
        format!(
            "{} of {} names{}",
            thousands(report.logged),
            thousands(report.names as u64),
            if report.stopped { ", ended early by the user" } else { "" }
        ),
    );
    if report.read_ahead() > 0 {
        facts.fact("not run", format!("{}, read ahead when it was stopped", thousands(report.read_ahead())));
    }
    if report.fenced > 0 {
        facts.fact("fenced", format!("{}, absurdly far in the future", thousands(report.fenced)));
    }
    if let Some((first, last)) = report.span {
        let span = duration(last.saturating_sub(first));
        facts.fact("span", format!("{} to {} ({span})", instant(first), instant(last)));
    }
    let took = duration(report.elapsed.as_nanos() as u64);
    facts.fact("took", format!("{took}, {} events", rate(report.rate())));
    if let Some(latency) = report.latency.filter(|latency| paced && latency.count > 0) {
        facts.fact(
            "latency",
            format!(
                "p50 {}, p99 {}, p99.9 {}, max {}",
                duration(latency.p50),
                duration(latency.p99),
                duration(latency.p999),
                duration(latency.max)
            ),
        );
    }
    let digest = &runtime.digest;
    facts.fact("digest", format!("{} over {} results", digest.short(), thousands(digest.outputs())));
    let mut text = facts.render(ui, 0);

    let mut inputs = Table::new(&["input", ">read", ">accepted", ">refused", ">events", "refused for"]);
    for input in &report.inputs {
        let account = &input.account;
        inputs.row([
            &input.format,
            &thousands(account.units),
            &thousands(account.accepted),
            &thousands(account.units - account.accepted),
            &thousands(account.events),
            &causes(account)
                .map(|(name, n)| format!("{name} {}", thousands(n)))
                .collect::<Vec<_>>()
                .join(", "),
        ]);
    }
    text += &format!("\n{}", inputs.render(ui, 0));
    for (cause, place, why) in report.inputs.iter().flat_map(|input| &input.account.examples) {
        text += &format!("{} {place}: {}: {}\n", ui.paint(Tone::Warn, "refused"), cause.name(), clean(why));
    }

    let mut streams = Table::new(&["stream", ">results", "file", ">rows", ">bytes"]);
    for (stream, lane) in report.streams.iter().zip(&runtime.lanes) {
        let file = files.iter().find(|file| file.stream == stream.name);
        streams.row([
            &stream.name,
            &thousands(lane.emitted),
            &file.map_or(String::new(), |file| file.path.display().to_string()),
            &file.map_or(String::new(), |file| thousands(file.rows)),
            &file.map_or(String::new(), |file| bytes(file.bytes)),
        ]);
    }
    for file in files.iter().filter(|file| file.stream.ends_with(".late")) {
        let path = file.path.display().to_string();
        streams.row([&file.stream, "", &path, &thousands(file.rows), &bytes(file.bytes)]);
    }
    text += &format!("\n{}", streams.render(ui, 0));

    text += &format!("\n{}", ledger(&report.runtime.stages, ui));
    if runtime.panics > 0 {
        for (shard, reason) in &runtime.failures {
            text += &format!("{} shard {shard}: {}\n", ui.paint(Tone::Bad, "failed"), clean(reason));
        }
    }
    text
}

fn causes(account: &tidegate_replay::ReadAccount) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let counts = RejectCause::ALL.into_iter().map(|cause| (cause.name(), account.refused(cause)));
    counts.filter(|(_, count)| *count > 0)
}

fn fates(ledger: &Ledger) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    FATE_NAMES.into_iter().zip(ledger.by_fate).filter(|(_, count)| *count > 0)
}

/// Where the events went, operator by operator: a column each.
pub(crate) fn ledger(stages: &[StageReport], ui: &Ui) -> String {
    let names: Vec<String> = stages.iter().map(|stage| format!(">{}", stage.name)).collect();
    let header: Vec<&str> = std::iter::once("ledger").chain(names.iter().map(String::as_str)).collect();
    let mut table = Table::new(&header);
    let mut line = |name: &str, cell: &dyn Fn(&Ledger) -> (Tone, String)| {
        let cells = stages.iter().map(|stage| cell(&stage.ledger));
        table.cells(std::iter::once((Tone::Plain, name.to_owned())).chain(cells).collect());
    };
    let count = |n: u64| (Tone::Plain, thousands(n));
    line("delivered", &|ledger| count(ledger.delivered));
    for (at, name) in FATE_NAMES.iter().enumerate() {
        if stages.iter().any(|stage| stage.ledger.by_fate[at] > 0) {
            line(&format!("  {name}"), &|ledger| count(ledger.by_fate[at]));
        }
    }
    line("balance", &|ledger| match ledger.imbalance() {
        0 => (Tone::Good, "0".to_owned()),
        off => (Tone::Bad, off.to_string()),
    });
    let mut text = table.render(ui, 0);
    let cut: u64 = stages.iter().map(|stage| stage.cut).sum();
    if cut > 0 {
        let note = format!(
            "{} trades or closed bars were let go before their time because memory for them is bounded; a late trade, cancel or correction could no longer change them",
            thousands(cut)
        );
        text.push_str(&ui.paint(Tone::Strong, &note));
        text.push('\n');
    }
    text
}

/// The report as JSON.
pub(crate) fn to_json(report: &ReplayReport, files: &[FileSummary], paced: bool) -> Value {
    let runtime = &report.runtime;
    let map = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| -> Map<String, Value> {
        pairs.map(|(name, count)| (name.to_owned(), count.into())).collect()
    };
    let inputs = report.inputs.iter().map(|input| {
        let account = &input.account;
        let examples = account.examples.iter().map(
            |(cause, place, why)| json!({ "cause": cause.name(), "place": place.to_string(), "why": why }),
        );
        json!({
            "format": input.format, "units": account.units, "accepted": account.accepted,
            "events": account.events, "refused": map(&mut causes(account)),
            "overflowed": account.overflowed(), "examples": examples.collect::<Vec<_>>(),
        })
    });
    let streams = report.streams.iter().zip(&runtime.lanes);
    let ledgers = runtime.stages.iter().map(|stage| {
        let ledger = &stage.ledger;
        json!({
            "stage": stage.name, "delivered": ledger.delivered, "by_cause": map(&mut fates(ledger)),
            "imbalance": ledger.imbalance() as i64, "cut": stage.cut,
        })
    });
    json!({
        "events": report.logged, "fenced": report.fenced, "read_ahead": report.read_ahead(), "names": report.names,
        "first_ns": report.span.map(|span| span.0), "last_ns": report.span.map(|span| span.1),
        "seconds": report.elapsed.as_secs_f64(), "events_per_second": report.rate(),
        "latency_ns": report.latency.filter(|_| paced).map(|latency| json!({
            "count": latency.count, "p50": latency.p50, "p99": latency.p99, "p99_9": latency.p999,
            "max": latency.max,
        })),
        "digest": runtime.digest.short(), "outputs": runtime.digest.outputs(),
        "inputs": inputs.collect::<Vec<_>>(),
        "streams": streams.map(|(stream, lane)| json!({
            "name": stream.name, "columns": stream.columns, "results": lane.emitted,
        })).collect::<Vec<_>>(),
        "files": files.iter().map(|file| json!({
            "stream": file.stream, "path": file.path.display().to_string(), "rows": file.rows,
            "bytes": file.bytes,
        })).collect::<Vec<_>>(),
        "ledger": ledgers.collect::<Vec<_>>(), "imbalance": report.imbalance() as i64,
        "panics": runtime.panics, "stopped": report.stopped,
        "ended_early": report.failure.as_ref().map(ToString::to_string),
    })
}

/// How a command ends whose replay came to this. What concerns us goes before what concerns the input.
pub(crate) fn verdict(report: &mut ReplayReport) -> Result<Exit, Failure> {
    if let Some((shard, reason)) = report.runtime.failures.first() {
        return Err(Failure::internal(format!("shard {shard} failed: {reason}; this is a bug in Tidegate")));
    }
    match report.failure.take() {
        Some(error) => Err(error.into()),
        None if report.imbalance() != 0 => {
            let off = report.imbalance();
            Err(Failure::internal(format!("the ledger is off by {off} events; this is a bug in Tidegate")))
        }
        None => Ok(Exit::Ok),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidegate_actors::registry::{Params, Registry};
    use tidegate_actors::runtime::{Runtime, RuntimeOptions, RuntimeReport};
    use tidegate_engine::snapshot::SnapshotError;
    use tidegate_engine::{Context, Emit, Event, Operator, Price, Size, Stage};
    use tidegate_replay::generate::{Market, MarketOptions};
    use tidegate_replay::{LogOptions, Plan, ReadError, ReplayOptions, replay};

    fn replayed() -> ReplayReport {
        let market = Market::new(MarketOptions { events: 1_000, ..MarketOptions::default() });
        let plan = Plan { bars: vec!["1s".parse().unwrap()], ..Plan::default() };
        let options = ReplayOptions::default();
        replay(vec![Box::new(market)], &plan, LogOptions::default(), &options, None, &mut |_| {}).unwrap()
    }

    /// An operator with a bug.
    struct Broken(Box<dyn Operator>);

    impl Operator for Broken {
        fn on_events(&mut self, _: &Context, _: &[Event], _: &mut Emit<'_>) {
            panic!("a bug on purpose");
        }
        fn on_watermark(&mut self, _: &Context, _: &mut Emit<'_>) {}
        fn ledger(&self) -> Ledger {
            self.0.ledger()
        }
        fn save(&self, snapshot: &mut Vec<u8>) {
            self.0.save(snapshot);
        }
        fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
            self.0.restore(snapshot)
        }
    }

    /// What a runtime reports whose shard panicked.
    fn failed() -> RuntimeReport {
        let stages = Arc::new(|| {
            let bars = Registry::new().build("bars", &Params::new().with("windows", "1s")).unwrap();
            vec![Stage::new("bars.1s", 0, Box::new(Broken(bars)) as Box<dyn Operator>)]
        });
        let mut runtime = Runtime::start(stages, RuntimeOptions::default()).unwrap();
        let router = runtime.router();
        router.define(7, 0);
        assert!(router.route(&[Event::trade(1, 0, 0, Price(1), Size(1), 0)], || {}));
        runtime.finish()
    }

    #[track_caller]
    fn internal(report: &mut ReplayReport, words: &str) {
        let failure = verdict(report).unwrap_err();
        assert_eq!(failure.exit as u8, 5);
        let text = failure.error.to_string();
        assert!(text.contains(words) && text.contains("a bug in Tidegate"), "{text}");
    }

    #[test]
    fn a_bug_of_ours_ends_with_five() {
        let ui = Ui::new(crate::render::Color::Never, true);
        let mut report = replayed();
        assert_eq!(verdict(&mut report).unwrap(), Exit::Ok);

        // An event that nobody accounts for.
        report.logged += 3;
        internal(&mut report, "the ledger is off by 3 events");
        report.logged -= 3;

        // A shard that panicked goes before everything else, a damaged input included.
        report.runtime = failed();
        report.failure = Some(ReadError::UnknownFormat { path: "x".into(), reason: "noise".to_owned() });
        internal(&mut report, "shard 0 failed: a bug on purpose");
        assert!(render(&report, &[], false, &ui).contains("a bug on purpose"));
        assert_eq!(to_json(&report, &[], false)["panics"].as_u64(), Some(report.runtime.panics));

        // Without our bug it is the input's.
        report.runtime = replayed().runtime;
        assert_eq!(verdict(&mut report).unwrap_err().exit, Exit::Input);
    }
}
