//! `tidegate detect`: attacks in captures and flow logs, with their reasons.

use crate::alert::{folder, input, list, open};
use crate::capture::{self, Captured};
use crate::cli::{AlertsArg, DetectArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::judge::Judge;
use crate::render::{Tone, Ui, clean, thousands};
use crate::results;
use crate::rules::{self, Rules};
use crate::serve::alerts::evidence::{About, Evidence, Given, Kind, Recorder};
use crate::sink::Sinks;
use crate::tabular::{self, CellJudge, Scores, SeriesCounts};
use crate::traffic::{self, Read, Reading};
use folder::Store;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidegate_alert::render::Event;
use tidegate_alert::store::HeldRow;
use tidegate_alert::{
    Desk, DeskOptions, Entry, Episode, EpisodeId, Finding, Groups, Hold, Input, Severity, State, Told,
};
use tidegate_rules::Streams;

/// Forgotten episodes that wait to be written.
const GONE_MAX: usize = 1_000;

pub(crate) fn run(args: &DetectArgs, ui: &Ui) -> Outcome {
    let interrupt = Interrupt::listen()?;
    if args.of_results()? {
        return results::detect::run(args, &interrupt, ui);
    }
    let mut exit = Exit::Ok;
    let least = Severity::from(args.min_severity);
    let groups = Groups::new(args.tell.group.clone()).map_err(Failure::usage)?;
    let options = DeskOptions { budget: args.tell.budget, groups, ..DeskOptions::default() };
    let table = args.table()?;
    let interrupt_of_pipes = Some(interrupt.clone());
    let mut reading =
        Reading { table, edges: args.edges, interrupt: interrupt_of_pipes, ..Reading::of(&args.read) };
    let rules = rules::load(&args.rules.sigma, &args.rules.pattern, &Streams::default(), ui)?;
    let mut sinks = Sinks::open(&args.rules.sink)?;
    let mut store = folder::asked(&args.store).map(|folder| open(&folder, ui)).transpose()?;
    let mut common = Desk::new(options.clone());
    if let Some(store) = &store {
        store.state.onto(&mut common, true);
    }
    if args.capture.interface.is_some() {
        let told = live(args, &interrupt, rules, &mut common, &mut sinks, store.as_mut(), ui)?;
        exit = if told { Exit::Differs } else { Exit::Ok };
        return Ok(if sinks.end(ui) { exit } else { Exit::Output });
    }
    for path in &args.files {
        if interrupt.raised() {
            break;
        }
        let pipe = reading.table.is_some() && path == Path::new(tabular::PIPE);
        let name = if pipe { Path::new("stdin") } else { path.as_path() };
        if let Some(series) = reading.table.as_mut().and_then(|table| table.series.as_mut()) {
            series.label = label(name);
        }
        let input = match input::of(path, args.flows_max, &reading, &rules) {
            Ok(input) => input,
            // The other files are still worth a look.
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
        let held = held(desk);
        let proof = input.as_ref().map(|input| input.name.clone()).unwrap_or_default();
        let mut judge = Judge::reading(args.flows_max, rules.set.clone(), proof, &reading)?;
        if let (Some(cells), Some(spec)) = (judge.cells(), &reading.table) {
            if let Some(path) = &args.tabular.scores {
                no_input("--scores", path, &args.files)?;
                cells.write_to(Scores::create(path, spec.what)?);
            }
            if let Some(path) = &args.tabular.change_points {
                no_input("--change-points", path, &args.files)?;
                cells.write_changes_to(Scores::of_changes(path)?);
            }
        }
        let mut round = Round::default();
        let read = traffic::read(path, &reading, !rules.set.is_empty(), &interrupt, ui, |unit| {
            unit.give(&mut judge, |mut finding| {
                if pipe {
                    finding.unproven = Some("it came through a pipe, which cannot be read again".to_owned());
                }
                let told = round.take(desk, finding, &mut sinks, least);
                // Whoever writes into a pipe may never end: what is found is told at once.
                if pipe && let Some(id) = told {
                    tell_now(args, "file", name, desk, id, ui);
                }
            });
        });
        let read = match read {
            Ok(read) => read,
            // A pipe that nobody wants to wait for any more has not failed, even if nothing came.
            Err(_) if pipe && interrupt.raised() => break,
            Err(failure) => {
                ui.error(&failure.error);
                exit = failure.exit.max(exit);
                continue;
            }
        };
        if !rules.set.is_empty() && read.format == "eve" {
            ui.note("with --sigma or --pattern the rows of EVE go to the rules alone; without them the detectors judge its flows");
        }
        judge.finish(|finding| {
            let _ = round.take(desk, finding, &mut sinks, least);
        });
        if let Some(Err(failure)) = judge.cells().map(CellJudge::finish) {
            ui.error(&failure.error);
            exit = failure.exit.max(exit);
        }
        let alerts: Vec<&Episode> = desk
            .episodes()
            .into_iter()
            .filter(|episode| round.touched.contains(&episode.id) && episode.told.is_some())
            .filter(|episode| episode.severity >= least)
            .collect();
        if pipe && !args.json {
            remarks(&read, args, &judge, &round, ui);
            summary(name, "rows", &read, alerts.len(), ui);
        } else {
            tell(name, args, &read, &judge, &alerts, &round, ui);
        }
        if !alerts.is_empty() {
            exit = exit.max(Exit::Differs);
        }
        if let Some(store) = &mut store {
            let whole = read.ended_early.is_none() && !interrupt.raised();
            let input = input.map(|input| Input { units: judge.units(), whole, ..input });
            if known == Some(true) {
                ui.note(&format!(
                    "{}: it is in the store already; nothing was added",
                    clean(&path.display().to_string())
                ));
            } else {
                // Held findings of an input that was judged before are counted already.
                let held = if known.is_some() { Vec::new() } else { since(&held, desk) };
                store.append(entries(input, desk, &mut round, held))?;
            }
        }
        if let Some(error) = read.ended_early {
            ui.error(&error.into());
            exit = Exit::Input;
        }
    }
    if !sinks.end(ui) {
        exit = Exit::Output;
    }
    Ok(exit)
}

/// What a file's series without a key are called: its name up to the first dot.
fn label(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let first = name.trim_start_matches('.').split('.').next().unwrap_or_default();
    if first.is_empty() { name.into_owned() } else { first.to_owned() }
}

/// What is written must not be what is read.
fn no_input(option: &str, path: &Path, inputs: &[std::path::PathBuf]) -> Result<(), Failure> {
    let same = |input: &Path| matches!((path.canonicalize(), input.canonicalize()), (Ok(out), Ok(input)) if out == input);
    if inputs.iter().any(|input| same(input)) {
        return Err(Failure::usage(format!("{option} {} is an input", path.display())));
    }
    Ok(())
}

/// Tells an alert as it is raised, unless all is told at the end.
fn tell_now(args: &DetectArgs, source: &str, name: &Path, desk: &Desk, id: EpisodeId, ui: &Ui) {
    let Some(episode) = desk.episode(id).filter(|_| !args.json) else { return };
    match args.output {
        AlertsArg::Jsonl => {
            let mut value = episode.document();
            value[source] = json!(name.display().to_string());
            ui.print_json(&value);
        }
        AlertsArg::Table => ui.print(&list::body(episode, ui)),
    }
}

/// How much came of an input whose alerts have been told.
fn summary(name: &Path, units: &str, read: &Read, alerts: usize, ui: &Ui) {
    let what = if alerts == 1 { "alert" } else { "alerts" };
    let units = if read.account.units == 1 { units.trim_end_matches('s') } else { units };
    ui.note(&format!(
        "{}: {} {what} in {} {units}",
        clean(&name.display().to_string()),
        thousands(alerts as u64),
        thousands(read.account.units)
    ));
}

/// Bytes of packets that are recorded, so that alerts can be judged again.
const PACKETS_BYTES_MAX: u64 = 256 << 20;

/// Packets of an interface, recorded where alerts are kept.
enum Recording {
    Off,
    /// Nothing has come yet that says what kind of link it is.
    Due(Box<About>),
    On(Arc<Evidence>, Recorder),
}

impl Recording {
    /// Begins with the first packet.
    fn begin(&mut self, link: u32, store: Option<&Store>) -> Result<(), Failure> {
        let (Self::Due(about), Some(store)) = (&*self, store) else { return Ok(()) };
        let folder = store.folder().join("evidence");
        let about = About::clone(about);
        let evidence = Evidence::open(Kind::packets(link), folder, PACKETS_BYTES_MAX, about, &store.state)?;
        *self = Self::On(Arc::clone(&evidence), Recorder::new(evidence));
        Ok(())
    }

    /// Proves what was found with this.
    fn prove(&mut self, given: Option<&Given<'_>>, findings: &mut [Finding]) {
        match (self, given) {
            (Self::On(_, recorder), Some(given)) => recorder.take(given, findings),
            (Self::On(_, recorder), None) => recorder.finish(findings),
            (Self::Off | Self::Due(_), _) => findings.iter_mut().for_each(|finding| {
                let why =
                    "packets of an interface are recorded where alerts are kept: with --alerts or --data";
                finding.unproven = Some(why.to_owned());
            }),
        }
    }

    /// What these rest on, brought to the disk; what could not be written is no proof.
    fn keep(&self, entries: &mut Vec<Entry>, state: &State) {
        let Self::On(evidence, recorder) = self else { return };
        let proof = |entry: &Entry| match entry {
            Entry::Episode(episode) => episode.proof.as_ref().map(|proof| proof.input.clone()),
            _ => None,
        };
        let names: BTreeSet<String> = entries.iter().filter_map(proof).collect();
        let inputs = evidence.keep(&names);
        for entry in entries.iter_mut() {
            let Entry::Episode(episode) = entry else { continue };
            // An episode that goes on from an earlier run may keep what that one recorded.
            let known = |proof: &tidegate_alert::Proof| {
                let mut all = inputs.iter().chain(state.inputs.values());
                all.any(|input| input.name == proof.input && input.units >= proof.units)
            };
            if episode.proof.as_ref().is_some_and(|proof| !known(proof)) {
                let why =
                    recorder.trouble().map_or("what it rests on could not be written down", String::as_str);
                (episode.proof, episode.unproven) = (None, Some(why.to_owned()));
            }
        }
        entries.splice(0..0, inputs.into_iter().map(Entry::Input));
    }
}

/// Judges what comes by at an interface until the user wants no more; alerts are told as they come. Whether there were any.
fn live(
    args: &DetectArgs,
    interrupt: &Interrupt,
    rules: Rules,
    desk: &mut Desk,
    sinks: &mut Sinks,
    store: Option<&mut Store>,
    ui: &Ui,
) -> Result<bool, Failure> {
    let name = args.capture.interface.as_deref().unwrap_or_default();
    let least = Severity::from(args.min_severity);
    let mut round = Round::default();
    let held = held(desk);
    let mut found = |desk: &mut Desk, finding: Finding| {
        if let Some(id) = round.take(desk, finding, sinks, least) {
            tell_now(args, "interface", Path::new(name), desk, id, ui);
        }
    };
    let mut judge = Judge::new(args.flows_max, rules.set.clone(), String::new()).with_edges(args.edges);
    let about = || Box::new(About { flows_max: args.flows_max, edges: args.edges, rules });
    let mut recording = store.as_ref().map_or(Recording::Off, |_| Recording::Due(about()));
    let mut findings = Vec::new();
    let mut refused = None;
    let taken = capture::receive(&args.capture, interrupt, ui, |captured| {
        let given = match &captured {
            Captured::Frame { frame, raw, link } => {
                refused = recording.begin(*link, store.as_deref()).err();
                Given::Packet(frame, raw)
            }
            // Before the first packet time passes for nobody.
            Captured::Pause(_) if judge.units() == 0 => return true,
            Captured::Pause(now) => Given::Pause(*now),
        };
        given.give(&mut judge, |finding| findings.push(finding));
        recording.prove(Some(&given), &mut findings);
        findings.drain(..).for_each(|finding| found(desk, finding));
        refused.is_none()
    })?;
    if let Some(failure) = refused {
        return Err(failure);
    }
    judge.finish(|finding| findings.push(finding));
    recording.prove(None, &mut findings);
    findings.drain(..).for_each(|finding| found(desk, finding));
    let judge = &judge;
    let alerts: Vec<&Episode> = desk
        .episodes()
        .into_iter()
        .filter(|episode| round.touched.contains(&episode.id) && episode.told.is_some())
        .filter(|episode| episode.severity >= least)
        .collect();
    let any = !alerts.is_empty();
    let read = Read { format: "live", account: taken.account.clone(), exports: None, ended_early: None };
    if args.json {
        tell(Path::new(name), args, &read, judge, &alerts, &round, ui);
    } else {
        remarks(&read, args, judge, &round, ui);
        summary(Path::new(name), "packets", &read, alerts.len(), ui);
    }
    taken.note(ui);
    if let Some(store) = store {
        let held = since(&held, desk);
        let mut entries = entries(None, desk, &mut round, held);
        recording.keep(&mut entries, &store.state);
        store.append(entries)?;
    }
    Ok(any)
}

/// Whether the store has judged these bytes before: `Some(true)` if it did in the very same way and to the end.
pub(crate) fn known(store: Option<&Store>, input: Option<&Input>) -> Option<bool> {
    judged_before(&store?.state, input?)
}

/// Whether the state says that these bytes were judged: `Some(true)` in the very same way and to the end.
pub(crate) fn judged_before(state: &State, input: &Input) -> Option<bool> {
    if state.inputs.get(&input.name).is_some_and(|known| known.whole) {
        return Some(true);
    }
    state.inputs.values().any(|known| known.digest == input.digest).then_some(false)
}

/// What one file did to the desk.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) touched: BTreeSet<EpisodeId>,
    pub(crate) gone: Vec<Episode>,
    unkept: u64,
    pub(crate) held: BTreeMap<Hold, u64>,
}

impl Round {
    /// The episode, where it is to be told now.
    pub(crate) fn take(
        &mut self,
        desk: &mut Desk,
        finding: Finding,
        sinks: &mut Sinks,
        least: Severity,
    ) -> Option<EpisodeId> {
        let verdict = desk.offer(finding);
        let event = match verdict.told {
            Told::New => Some(Event::New),
            Told::Worse { .. } => Some(Event::Worse),
            Told::Again | Told::Held(_) => None,
        };
        let mut told = None;
        if let (Some(event), Some(episode)) = (event, desk.episode(verdict.id))
            && episode.severity >= least
        {
            sinks.tell(episode, event);
            told = Some(verdict.id);
        }
        self.touched.insert(verdict.id);
        if let Told::Held(hold) = verdict.told {
            *self.held.entry(hold).or_default() += 1;
        }
        if let Some(gone) = verdict.evicted
            && self.touched.remove(&gone.id)
        {
            if self.gone.len() < GONE_MAX {
                self.gone.push(*gone);
            } else {
                self.unkept += 1;
            }
        }
        told
    }
}

/// Findings that a desk has held back, by day, group and reason.
pub(crate) fn held(desk: &Desk) -> BTreeMap<(u64, String, Hold), u64> {
    desk.held().map(|(day, group, hold, count)| ((day, group.to_owned(), hold), count)).collect()
}

/// What was held back since `before`.
pub(crate) fn since(before: &BTreeMap<(u64, String, Hold), u64>, desk: &Desk) -> Vec<HeldRow> {
    held(desk)
        .into_iter()
        .map(|(key, count)| {
            let count = count.saturating_sub(before.get(&key).copied().unwrap_or(0));
            HeldRow { day: key.0, group: key.1, hold: key.2, count }
        })
        .filter(|row| row.count > 0)
        .collect()
}

/// What the store is told of one file.
pub(crate) fn entries(
    input: Option<Input>,
    desk: &Desk,
    round: &mut Round,
    held: Vec<HeldRow>,
) -> Vec<Entry> {
    let mut entries: Vec<Entry> = input.map(Entry::Input).into_iter().collect();
    entries.extend(round.gone.drain(..).map(|episode| Entry::Episode(Box::new(episode))));
    let touched = round.touched.iter().filter_map(|id| desk.episode(*id));
    entries.extend(touched.map(|episode| Entry::Episode(Box::new(episode.clone()))));
    entries.extend(held.into_iter().map(Entry::Held));
    entries
}

fn tell(
    path: &Path,
    args: &DetectArgs,
    read: &Read,
    judge: &Judge,
    alerts: &[&Episode],
    round: &Round,
    ui: &Ui,
) {
    if args.json {
        ui.print_json(&whole(path, read, judge, alerts, round, unkept(args, round)));
        return;
    }
    if args.output == AlertsArg::Jsonl {
        for alert in alerts {
            let mut value = alert.document();
            value["file"] = json!(path.display().to_string());
            ui.print_json(&value);
        }
    } else {
        ui.print(&render(path, read, alerts, ui));
    }
    remarks(read, args, judge, round, ui);
}

/// Alerts that are told nowhere.
pub(crate) fn unkept(args: &DetectArgs, round: &Round) -> u64 {
    let nowhere = args.store.alerts.is_none() && args.store.data.is_none();
    round.unkept + if nowhere { round.gone.len() as u64 } else { 0 }
}

/// What was lost, forgotten or held back, in words.
fn remarks(read: &Read, args: &DetectArgs, judge: &Judge, round: &Round, ui: &Ui) {
    let unkept = unkept(args, round);
    traffic::notes(read, judge.counts(), ui);
    if let Some(counts) = judge.series() {
        series_remarks(&counts, ui);
    } else if let Some(judged) = judge.judged().filter(|judged| *judged < read.account.accepted) {
        ui.note(&format!(
            "the first {} of {} rows have no chance, and no alerts: they came while it learnt{}",
            thousands(read.account.accepted - judged),
            thousands(read.account.accepted),
            if judged == 0 {
                ", which takes 120 ticks and 1,024 ordinary edges of different ticks, or 1,324 records"
            } else {
                ""
            },
        ));
    }
    if judge.forgotten() > 0 {
        ui.note(&format!(
            "{} hosts, pairs or names were forgotten for lack of room",
            thousands(judge.forgotten())
        ));
    }
    if judge.unheard() > 0 {
        ui.note(&format!(
            "{} findings or records came too many at once and were not looked at",
            thousands(judge.unheard())
        ));
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

/// What became of the values of series, in words.
fn series_remarks(counts: &SeriesCounts, ui: &Ui) {
    let of = |count: u64, one: &str, many: &str| {
        format!("{} {}", thousands(count), if count == 1 { one } else { many })
    };
    ui.note(&format!(
        "{}; {} judged, {} that came while they learnt, which takes {} values each",
        of(counts.series, "series", "series"),
        of(counts.judged, "value", "values"),
        thousands(counts.learnt),
        tabular::LEARNING_ROWS
    ));
    if counts.learning > 0 {
        ui.note(&format!("still learning, and silent so far: {}", of(counts.learning, "series", "series")));
    }
    if counts.missing > 0 {
        let values = of(counts.missing, "value is", "values are");
        ui.note(&format!("{values} missing or not finite: nothing was judged or learnt there"));
    }
    if counts.disordered > 0 {
        let rows = of(counts.disordered, "row is", "rows are");
        ui.note(&format!(
            "{rows} older than the one before of their series; all count in the order in which they stand"
        ));
    }
    if counts.refused > 0 {
        ui.note(&format!(
            "{} of further series not judged: {} series at once are the most, a quarter with --changes",
            of(counts.refused, "row", "rows"),
            thousands(tabular::SERIES_MAX as u64)
        ));
    }
}

fn whole(path: &Path, read: &Read, judge: &Judge, alerts: &[&Episode], round: &Round, unkept: u64) -> Value {
    let counts = judge.counts();
    let held: BTreeMap<&str, u64> = round.held.iter().map(|(hold, count)| (hold.name(), *count)).collect();
    json!({
        "file": path.display().to_string(),
        "format": read.format,
        "units": read.account.units,
        "accepted": read.account.accepted,
        "faults": read.account.faults(),
        "flows": counts.opened,
        "evicted": counts.evicted,
        "disordered": counts.disordered,
        "forgotten": judge.forgotten(),
        "unheard": judge.unheard(),
        "records": judge.records(),
        "judged": judge.judged(),
        "series": judge.series().map(|counts| json!({
            "count": counts.series,
            "learning": counts.learning,
            "learnt": counts.learnt,
            "missing": counts.missing,
            "disordered": counts.disordered,
            "repeated": counts.repeated,
            "refused": counts.refused,
            "changes": counts.changes,
        })),
        "unkept": unkept,
        "held": held,
        "ended_early": read.ended_early.as_ref().map(ToString::to_string),
        "alerts": alerts.iter().map(|alert| alert.document()).collect::<Vec<_>>(),
    })
}

fn render(path: &Path, read: &Read, alerts: &[&Episode], ui: &Ui) -> String {
    let name = clean(&path.display().to_string());
    let summary = match alerts.len() {
        0 => "nothing found".to_owned(),
        1 => "1 alert".to_owned(),
        n => format!("{n} alerts"),
    };
    let units = format!("{} units of {}", thousands(read.account.units), read.format);
    let mut text = format!("{}  {summary} in {units}\n", ui.paint(Tone::Strong, &name));
    alerts.iter().for_each(|alert| text += &list::body(alert, ui));
    text
}
