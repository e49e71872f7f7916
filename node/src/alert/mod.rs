//! `tidegate alert`: alerts that were kept, and what operators say to them.

pub(crate) mod act;
pub(crate) mod args;
pub(crate) mod folder;
pub(crate) mod input;
pub(crate) mod list;
mod remote;
pub(crate) mod replay;

use crate::exit::{Exit, Failure, Outcome};
use crate::place::now_s;
use crate::render::{Ui, clean};
use act::{Act, Span, Whom, Words};
use args::{AlertArgs, AlertCommand, EndArgs, MaintenanceArgs, StoreArgs, SuppressArgs};
use folder::Store;
use std::path::Path;
use tidegate_alert::{Episode, QuietKind, Severity, State};
use tidegate_engine::EventTime;

const SECOND: u64 = 1_000_000_000;

pub(crate) fn run(args: &AlertArgs, ui: &Ui) -> Outcome {
    match &args.command {
        AlertCommand::List(args) => list::list(args, ui),
        AlertCommand::Show(args) => list::show(args, ui),
        AlertCommand::Ack(of) => {
            let words = Words { note: of.note.clone(), undo: of.undo, scope: None };
            let act = |id: &String| Act::Ack { id: id.clone(), words: words.clone() };
            say(args, &of.store, &of.ids.iter().map(act).collect::<Vec<_>>(), false, ui)
        }
        AlertCommand::FalsePositive(of) => {
            let words = Words { note: of.note.clone(), undo: of.undo, scope: Some(of.scope) };
            let act = |id: &String| Act::FalsePositive { id: id.clone(), words: words.clone() };
            say(args, &of.store, &of.ids.iter().map(act).collect::<Vec<_>>(), false, ui)
        }
        AlertCommand::Suppress(of) => say(args, &of.store, &[suppress(of)], of.id.is_none(), ui),
        AlertCommand::Maintenance(of) => say(args, &of.store, &[maintenance(of)], true, ui),
        AlertCommand::Lift(of) => {
            let act = |number: &u32| Act::Lift { number: *number };
            say(args, &of.store, &of.numbers.iter().map(act).collect::<Vec<_>>(), false, ui)
        }
        AlertCommand::Replay(args) => replay::run(args, ui),
    }
}

/// The alert that is meant.
pub(crate) fn one<'a>(state: &'a State, id: &str) -> Result<&'a Episode, Failure> {
    act::one(state, id).map_err(Failure::usage)
}

fn now_ns() -> u64 {
    now_s().saturating_mul(SECOND)
}

/// A store to write to, made where there is none.
pub(crate) fn open(folder: &Path, ui: &Ui) -> Result<Store, Failure> {
    let store = Store::open(folder)?;
    note_torn(&store, ui);
    Ok(store)
}

fn note_torn(store: &Store, ui: &Ui) {
    if store.torn_bytes > 0 {
        ui.note(&format!("{} bytes that an interrupted run left unfinished were cut off", store.torn_bytes));
    }
}

/// Does what an operator says, all of it or nothing: in the store itself, or through the node that writes to it.
fn say(args: &AlertArgs, store: &StoreArgs, acts: &[Act], made: bool, ui: &Ui) -> Outcome {
    let folder = folder::folder(store)?;
    if !made {
        // Says so where there is none, rather than making one.
        folder::read(&folder)?;
    }
    let Some(mut store) = Store::try_open(&folder)? else {
        let said = remote::say(&folder, args.token.as_deref(), acts)?;
        ui.print(&clean(&said));
        return Ok(Exit::Ok);
    };
    note_torn(&store, ui);
    let (mut entries, mut said) = (Vec::new(), String::new());
    for act in acts {
        let (more, words) = act.entries(&store.state, now_ns()).map_err(Failure::usage)?;
        entries.extend(more);
        said += &words;
    }
    store.append(entries)?;
    if !matches!(acts, [Act::Lift { .. }, ..]) {
        ui.print(&clean(&said));
    }
    Ok(Exit::Ok)
}

/// The end of a span, as the command line has it.
fn span(end: &EndArgs, from: Option<EventTime>, up_to: Option<Severity>, note: Option<&String>) -> Span {
    Span {
        span: end.span.map(|ns| format!("{ns}ns")),
        until: end.until.map(|until| until.0.to_string()),
        from: from.map(|from| from.0.to_string()),
        up_to,
        note: note.cloned(),
    }
}

fn suppress(args: &SuppressArgs) -> Act {
    let span = span(&args.end, args.from, args.up_to.map(Severity::from), args.note.as_ref());
    match &args.id {
        Some(id) => Act::Suppress { id: id.clone(), span },
        None => {
            let whom = Whom { entity: args.entity.clone(), kind: args.kind.clone() };
            Act::Quiet { why: QuietKind::Suppression, whom, span }
        }
    }
}

fn maintenance(args: &MaintenanceArgs) -> Act {
    let span = span(&args.end, args.from, Some(args.up_to.into()), args.note.as_ref());
    let whom = Whom { entity: args.entity.clone(), kind: args.kind.clone() };
    Act::Quiet { why: QuietKind::Maintenance, whom, span }
}
