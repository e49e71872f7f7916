//! `tidegate alert`: alerts that were kept, and what operators say to them.

pub(crate) mod args;
pub(crate) mod folder;
pub(crate) mod input;
pub(crate) mod list;
mod replay;

use crate::exit::{Exit, Failure, Outcome};
use crate::place::now_s;
use crate::render::{Ui, clean, instant};
use args::{
    AckArgs, AlertArgs, AlertCommand, EndArgs, FalsePositiveArgs, LiftArgs, MaintenanceArgs, ScopeArg,
    SuppressArgs,
};
use folder::Store;
use tidegate_alert::{Action, Calibration, Entry, Episode, Quiet, QuietKind, Severity, State, Status};
use tidegate_engine::EventTime;

const SECOND: u64 = 1_000_000_000;

pub(crate) fn run(args: &AlertArgs, ui: &Ui) -> Outcome {
    match &args.command {
        AlertCommand::List(args) => list::list(args, ui),
        AlertCommand::Show(args) => list::show(args, ui),
        AlertCommand::Ack(args) => ack(args, ui),
        AlertCommand::FalsePositive(args) => false_positive(args, ui),
        AlertCommand::Suppress(args) => suppress(args, ui),
        AlertCommand::Maintenance(args) => maintenance(args, ui),
        AlertCommand::Lift(args) => lift(args, ui),
        AlertCommand::Replay(args) => replay::run(args, ui),
    }
}

/// The alert that is meant.
pub(crate) fn one<'a>(state: &'a State, id: &str) -> Result<&'a Episode, Failure> {
    let digits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || id.len() > 12 {
        return Err(Failure::usage(format_args!(
            "`{id}` is no name of an alert: up to twelve hexadecimal digits, as `tidegate alert list` shows them"
        )));
    }
    match state.named(id)[..] {
        [episode] => Ok(episode),
        [] => Err(Failure::usage(format_args!(
            "there is no alert `{id}`; `tidegate alert list --all` shows them"
        ))),
        [first, second, ..] => Err(Failure::usage(format_args!(
            "`{id}` is the beginning of several alerts: {}, {}…; write more of it",
            first.id, second.id
        ))),
    }
}

fn now_ns() -> u64 {
    now_s().saturating_mul(SECOND)
}

/// A store that exists, to be written to.
fn opened(args: &args::StoreArgs, ui: &Ui) -> Result<Store, Failure> {
    let folder = folder::folder(args)?;
    // Says so where there is none, rather than making one.
    folder::read(&folder)?;
    open(&folder, ui)
}

/// A store to write to, made where there is none.
pub(crate) fn open(folder: &std::path::Path, ui: &Ui) -> Result<Store, Failure> {
    let store = Store::open(folder)?;
    if store.torn_bytes > 0 {
        ui.note(&format!("{} bytes that an interrupted run left unfinished were cut off", store.torn_bytes));
    }
    Ok(store)
}

fn ack(args: &AckArgs, ui: &Ui) -> Outcome {
    let mut store = opened(&args.store, ui)?;
    let status = if args.undo { Status::Open } else { Status::Acknowledged };
    let (mut entries, mut said) = (Vec::new(), String::new());
    for id in &args.ids {
        let episode = one(&store.state, id)?;
        entries.push(Entry::Action(Action {
            id: episode.id,
            status,
            note: args.note.clone(),
            at_ts: now_ns(),
        }));
        said += &format!("{} {} by {} is {}\n", episode.id, episode.kind, episode.entity, status.name());
    }
    store.append(entries)?;
    ui.print(&clean(&said));
    Ok(Exit::Ok)
}

fn false_positive(args: &FalsePositiveArgs, ui: &Ui) -> Outcome {
    let mut store = opened(&args.store, ui)?;
    let (mut entries, mut said) = (Vec::new(), String::new());
    for id in &args.ids {
        let episode = one(&store.state, id)?;
        let status = if args.undo { Status::Open } else { Status::FalsePositive };
        entries.push(Entry::Action(Action {
            id: episode.id,
            status,
            note: args.note.clone(),
            at_ts: now_ns(),
        }));
        if args.undo {
            entries.push(Entry::Undo(episode.id));
            said += &format!("{} is open; it demands nothing any more\n", episode.id);
            continue;
        }
        let required = Calibration::demanded(episode.score);
        let entity = (args.scope == ScopeArg::Entity).then(|| episode.entity.clone());
        let whom = entity.as_deref().unwrap_or("anybody");
        said += &format!(
            "{}: from now on {} by {whom} is told from a score of {required:.4} on (this one had {:.4}), or when it is more severe \
             than what its episode showed before\n",
            episode.id, episode.kind, episode.score
        );
        let kind = episode.kind.clone();
        entries.push(Entry::Calibration(Calibration { kind, entity, required, episode: episode.id }));
    }
    store.append(entries)?;
    ui.print(&clean(&said));
    Ok(Exit::Ok)
}

/// The end of a span that begins, or is counted, at `from`.
fn end(args: &EndArgs, from: u64, counted_from: u64) -> Result<u64, Failure> {
    let until = match (args.span, args.until) {
        (Some(span), _) => counted_from.saturating_add(span),
        (None, Some(EventTime(until))) => until,
        (None, None) => u64::MAX, // clap asks for one of them
    };
    if until <= from {
        return Err(Failure::usage(format_args!(
            "it would end at {}, which is not after its beginning at {}",
            instant(until),
            instant(from)
        )));
    }
    Ok(until)
}

fn keep(mut store: Store, mut quiet: Quiet, ui: &Ui) -> Outcome {
    quiet.number = store.state.number_max + 1;
    let said = clean(&format!("{}\n", list::quiet(&quiet)));
    store.append(vec![Entry::Quiet(quiet)])?;
    ui.print(&said);
    Ok(Exit::Ok)
}

fn suppress(args: &SuppressArgs, ui: &Ui) -> Outcome {
    let (store, episode);
    match &args.id {
        Some(id) => {
            store = opened(&args.store, ui)?;
            episode = Some(one(&store.state, id)?.clone());
        }
        None => {
            store = open(&folder::folder(&args.store)?, ui)?;
            episode = None;
        }
    }
    let from = args.from.map(|from| from.0);
    let (from, counted_from) = match &episode {
        Some(episode) => (from.unwrap_or(episode.first_ts), episode.last_ts),
        None => {
            let from = from.unwrap_or_else(now_ns);
            (from, from)
        }
    };
    let up_to = args.up_to.map(Severity::from).or(episode.as_ref().map(|episode| episode.severity));
    let entity = match &episode {
        Some(episode) => Some(episode.entity.parse().map_err(Failure::usage)?),
        None => args.entity.clone(),
    };
    let quiet = Quiet {
        number: 0,
        why: QuietKind::Suppression,
        entity,
        kind: episode.as_ref().map(|episode| episode.kind.clone()).or_else(|| args.kind.clone()),
        from_ts: from,
        until_ts: end(&args.end, from, counted_from)?,
        up_to: up_to.unwrap_or(Severity::Medium),
        note: args.note.clone(),
    };
    keep(store, quiet, ui)
}

fn maintenance(args: &MaintenanceArgs, ui: &Ui) -> Outcome {
    let store = open(&folder::folder(&args.store)?, ui)?;
    let from = args.from.map_or_else(now_ns, |from| from.0);
    let quiet = Quiet {
        number: 0,
        why: QuietKind::Maintenance,
        entity: args.entity.clone(),
        kind: args.kind.clone(),
        from_ts: from,
        until_ts: end(&args.end, from, from)?,
        up_to: args.up_to.into(),
        note: args.note.clone(),
    };
    keep(store, quiet, ui)
}

fn lift(args: &LiftArgs, ui: &Ui) -> Outcome {
    let mut store = opened(&args.store, ui)?;
    for number in &args.numbers {
        if !store.state.quiets.contains_key(number) {
            return Err(Failure::usage(format_args!(
                "there is no suppression or window {number}; `tidegate alert list` shows them"
            )));
        }
    }
    let entries = args.numbers.iter().map(|number| Entry::Lift(*number)).collect();
    store.append(entries)?;
    Ok(Exit::Ok)
}
