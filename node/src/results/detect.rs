//! `tidegate detect` over results: a file through the engine, its rows judged as a server judges them.

use super::{FoundRow, Judged, RowJudge, Table};
use crate::alert::args::ReplayAlertArgs;
use crate::alert::{folder, input, list, open, replay as proofs};
use crate::cli::{AlertsArg, DetectArgs};
use crate::detect::{Round, entries, held, known, since, unkept};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::plan;
use crate::render::{Tone, Ui, clean, thousands};
use crate::rules::{self, Rules};
use crate::sink::Sinks;
use crate::summary;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use tidegate_alert::{Desk, DeskOptions, Episode, Finding, Groups, Input, Proof, Severity};
use tidegate_engine::{Output, name_hash};
use tidegate_replay::decode::ReadOptions;
use tidegate_replay::pipeline::SinkError;
use tidegate_replay::{LogOptions, Plan, ReplayOptions, ReplayReport, ResultSink, StreamInfo, replay};

/// Names remembered, so that a row need not make its own; beyond it all are forgotten and made again.
const NAMES_MAX: usize = 1 << 20;

/// From which score on streams of anomalies tell one.
fn thresholds(plan: &Plan) -> HashMap<String, Judged> {
    let of = |bars: &tidegate_actors::WindowSpec| {
        let own = plan.own.iter().find(|own| own.bars == *bars);
        let anomaly = own.map_or(plan.anomaly, |own| own.anomaly)?;
        Some((format!("anomaly.{bars}"), Judged::Anomaly { threshold: anomaly.threshold() }))
    };
    plan.bars.iter().filter_map(of).collect()
}

/// What to do about rules over what is derived from whole sets of bars.
const ONLY_SERVED: &str = "`detect` computes no surfaces, spectra and risks: `serve` does, with a [[surface]], [[spectrum]] or \
                           [[risk]] and this rule, and `publish` sends it the file; single indicators are --ind";

fn table(plan: &Plan) -> Result<Arc<Table>, Failure> {
    Ok(Arc::new(Table::of(&plan.streams()?, &thresholds(plan)).advising(ONLY_SERVED)))
}

/// Judges results as they come in their order.
struct Judging<F: FnMut(Finding) + Send> {
    judge: RowJudge,
    names: HashMap<u64, Arc<str>>,
    found: F,
}

impl<F: FnMut(Finding) + Send> Judging<F> {
    fn new(judge: RowJudge, found: F) -> Self {
        Self { judge, names: HashMap::new(), found }
    }
}

impl<F: FnMut(Finding) + Send> ResultSink for Judging<F> {
    fn record(&mut self, stream: &StreamInfo, name: &str, output: &Output) -> Result<(), SinkError> {
        if self.names.len() > NAMES_MAX {
            self.names.clear();
        }
        let name = self.names.entry(name_hash(name.as_bytes())).or_insert_with(|| name.into());
        let found = &mut self.found;
        // A stream's number is its place among those of the plan, of which the table was made.
        self.judge.take(stream.id, name, output, &mut |FoundRow { finding, .. }| found(finding));
        Ok(())
    }

    fn complete(&mut self, watermark: u64) -> Result<(), SinkError> {
        // The end, of which only who reads knows whether it is that of the file.
        if watermark == u64::MAX {
            return Ok(());
        }
        let found = &mut self.found;
        self.judge.complete(watermark, &mut |FoundRow { finding, .. }| found(finding));
        Ok(())
    }
}

/// Runs a file through the engine and judges its rows.
fn judge<F: FnMut(Finding) + Send>(
    path: &Path,
    read: &ReadOptions,
    (plan, log): (&Plan, LogOptions),
    judging: &mut Judging<F>,
    stop: Arc<AtomicBool>,
) -> Result<ReplayReport, Failure> {
    let inputs = plan::open_all(&[path.to_path_buf()], read)?;
    let options = ReplayOptions { stop, ..ReplayOptions::default() };
    let report = replay(inputs, plan, log, &options, Some(&mut *judging), &mut |_| {})?;
    // There is nothing more that could come before what still waits; and where the user has stopped it, windows that were cut short closed as if
    // they were whole.
    if !report.stopped {
        let Judging { judge, found, .. } = &mut *judging;
        judge.complete(u64::MAX, &mut |FoundRow { finding, .. }| found(finding));
    }
    Ok(report)
}

pub(crate) fn run(args: &DetectArgs, interrupt: &Interrupt, ui: &Ui) -> Outcome {
    let mut exit = Exit::Ok;
    let least = Severity::from(args.min_severity);
    let groups = Groups::new(args.tell.group.clone()).map_err(Failure::usage)?;
    let options = DeskOptions { budget: args.tell.budget, groups, ..DeskOptions::default() };
    let read = args.read.options();
    let mut sinks = Sinks::open(&args.rules.sink)?;
    let mut store = folder::asked(&args.store).map(|folder| open(&folder, ui)).transpose()?;
    let mut common = Desk::new(options.clone());
    if let Some(store) = &store {
        store.state.onto(&mut common, true);
    }
    for path in &args.files {
        if interrupt.raised() {
            break;
        }
        let files = [path.clone()];
        let prepared = plan::plan(&args.plan, &files, &read, ui);
        let (what, log) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            // The other files are still worth a look.
            Err(failure) => {
                ui.error(&failure.error);
                exit = failure.exit.max(exit);
                continue;
            }
        };
        let table = table(&what)?;
        // What is wrong with a rule is wrong for every file.
        let rules = rules::load(&args.rules.sigma, &args.rules.pattern, &table.streams, ui)?;
        refuse_traffic(&rules)?;
        let described = plan::describe(&what, &log);
        let input = match input::of_results(path, &read, &described, &rules) {
            Ok(input) => input,
            Err(failure) => {
                ui.error(&failure.error);
                exit = failure.exit.max(exit);
                continue;
            }
        };
        // What is judged a second time must not be counted twice: it starts from nothing, and gives the same names.
        let known = known(store.as_ref(), input.as_ref());
        let mut own;
        let desk = if store.is_none() || known.is_some() {
            own = Desk::new(options.clone());
            store.iter().for_each(|store| store.state.onto(&mut own, false));
            &mut own
        } else {
            &mut common
        };
        let before = held(desk);
        let name = input.as_ref().map(|input| input.name.clone()).unwrap_or_default();
        let mut round = Round::default();
        let rows = RowJudge::new(table, &rules, name, true);
        let mut judging = Judging::new(rows, |finding| {
            let _ = round.take(desk, finding, &mut sinks, least);
        });
        let mut report = match judge(path, &read, (&what, log), &mut judging, interrupt.flag()) {
            Ok(report) => report,
            Err(failure) => {
                ui.error(&failure.error);
                exit = failure.exit.max(exit);
                continue;
            }
        };
        let rows = judging.judge;
        let alerts: Vec<&Episode> = desk
            .episodes()
            .into_iter()
            .filter(|episode| round.touched.contains(&episode.id) && episode.told.is_some())
            .filter(|episode| episode.severity >= least)
            .collect();
        tell(path, args, (&report, &rows), &alerts, &round, ui);
        if !alerts.is_empty() {
            exit = exit.max(Exit::Differs);
        }
        let failed = report.failure.take();
        if let Some(store) = &mut store {
            let whole = failed.is_none() && !report.stopped;
            let input = input.map(|input| Input { units: rows.rows(), whole, ..input });
            if known == Some(true) {
                ui.note(&format!(
                    "{}: it is in the store already; nothing was added",
                    clean(&path.display().to_string())
                ));
            } else {
                // Held findings of an input that was judged before are counted already.
                let held = if known.is_some() { Vec::new() } else { since(&before, desk) };
                store.append(entries(input, desk, &mut round, held))?;
            }
        }
        if let Some(error) = failed {
            ui.error(&error.into());
            exit = Exit::Input;
        } else if let Err(failure) = summary::verdict(&mut report) {
            ui.error(&failure.error);
            exit = failure.exit.max(exit);
        }
    }
    if !sinks.end(ui) {
        exit = Exit::Output;
    }
    Ok(exit)
}

/// Rules over traffic see nothing here, and that is to be said rather than found out.
fn refuse_traffic(rules: &Rules) -> Result<(), Failure> {
    if rules.set.of_traffic() {
        return Err(Failure::usage(
            "a rule or pattern reads records of traffic, and --bars, --ind, --regime, --anomaly, --hosts and --config ask for results in its \
             place: run it over the traffic without them",
        ));
    }
    Ok(())
}

fn tell(
    path: &Path,
    args: &DetectArgs,
    (report, rows): (&ReplayReport, &RowJudge),
    alerts: &[&Episode],
    round: &Round,
    ui: &Ui,
) {
    let unkept = unkept(args, round);
    if args.json {
        let held: BTreeMap<&str, u64> =
            round.held.iter().map(|(hold, count)| (hold.name(), *count)).collect();
        ui.print_json(&json!({
            "file": path.display().to_string(),
            "format": report.inputs.first().map(|input| input.format.clone()),
            "events": report.logged,
            "rows": rows.rows(),
            "early": rows.early(),
            "forgotten": rows.forgotten(),
            "unkept": unkept,
            "held": held,
            "ended_early": report.failure.as_ref().map(ToString::to_string),
            "stopped": report.stopped,
            "alerts": alerts.iter().map(|alert| alert.document()).collect::<Vec<_>>(),
        }));
        return;
    }
    if args.output == AlertsArg::Jsonl {
        for alert in alerts {
            let mut value = alert.document();
            value["file"] = json!(path.display().to_string());
            ui.print_json(&value);
        }
    } else {
        let summary = match alerts.len() {
            0 => "nothing found".to_owned(),
            1 => "1 alert".to_owned(),
            n => format!("{n} alerts"),
        };
        let name = clean(&path.display().to_string());
        let (rows, events) = (thousands(rows.rows()), thousands(report.logged));
        let head =
            format!("{}  {summary} in {rows} rows of {events} events\n", ui.paint(Tone::Strong, &name));
        ui.print(&alerts.iter().fold(head, |text, alert| text + &list::body(alert, ui)));
    }
    if rows.forgotten() > 0 {
        ui.note(&format!(
            "{} groups or beginnings of matches were forgotten for lack of room",
            thousands(rows.forgotten())
        ));
    }
    if rows.early() > 0 {
        let early = thousands(rows.early());
        ui.note(&format!("{early} rows were judged before all older ones had come: too many waited"));
    }
    if unkept > 0 {
        ui.note(&format!("{} further alerts were not kept", thousands(unkept)));
    }
    if !round.held.is_empty() {
        let parts: Vec<String> =
            round.held.iter().map(|(hold, count)| format!("{} {}", thousands(*count), hold.name())).collect();
        ui.note(&format!("findings held back: {}", parts.join(", ")));
    }
}

/// `tidegate alert replay` of what was found in results: the file through the engine again, up to the row.
pub(crate) fn again(
    args: &ReplayAlertArgs,
    episode: &Episode,
    proof: &Proof,
    known: &Input,
    path: &Path,
    ui: &Ui,
) -> Outcome {
    let refuse = |text: String| Failure::new(Exit::Input, anyhow::anyhow!(text));
    let digest = input::digest(path, None)?;
    if digest.as_ref() != Some(&known.digest) {
        return Err(refuse(format!(
            "{} is not what was judged: its BLAKE3 is {}, that of then {}; --input names another file",
            path.display(),
            digest.unwrap_or_else(|| "unknown".to_owned()),
            known.digest
        )));
    }
    let described = known.options.get(input::RESULTS).and_then(|text| serde_json::from_str(text).ok());
    let prepared = described.as_ref().and_then(plan::from_description);
    let (what, log) =
        prepared.ok_or_else(|| refuse("the store has no valid `results` of the input".to_owned()))?;
    let read = input::read_again(known).map_err(|error| Failure::new(Exit::Input, error))?;
    let (rules, _) = input::rules_and_streams(known, ui)?;
    let interrupt = Interrupt::listen()?;
    let stop = interrupt.flag();
    let mut found = Vec::new();
    let passed = Arc::clone(&stop);
    let rows = RowJudge::new(table(&what)?, &rules, known.name.clone(), true);
    let mut judging = Judging::new(rows, |finding: Finding| {
        let at = finding.proof.as_ref().map_or(0, |proof| proof.units);
        if at == proof.units && proofs::is_of(&finding, episode) {
            found.push(finding);
        } else if at > proof.units {
            // What comes behind the row is nobody's concern here.
            passed.store(true, Relaxed);
        }
    });
    judge(path, &read, (&what, log), &mut judging, stop)?;
    let reached = judging.judge.rows() >= proof.units;
    drop(judging);
    if !reached {
        return Err(refuse(format!("{} ends before the row that it was found in", path.display())));
    }
    let same = proofs::compare(proof, &found);
    if args.json {
        ui.print_json(&proofs::document(episode, &found, same, None));
    } else {
        let (tone, word) = if same { (Tone::Good, "same") } else { (Tone::Bad, "differs") };
        ui.print(&format!(
            "{}: {} of {}, score {} ({:016x}) in row {} of the results of {}\n",
            ui.paint(tone, word),
            clean(&episode.kind),
            clean(&episode.entity),
            f64::from_bits(proof.score_bits),
            proof.score_bits,
            thousands(proof.units),
            clean(&path.display().to_string()),
        ));
        if !same {
            found.iter().for_each(|finding| {
                ui.print(&format!("  now it is {} ({:016x})\n", finding.score, finding.score.to_bits()));
            });
        }
    }
    Ok(if same { Exit::Ok } else { Exit::Differs })
}
