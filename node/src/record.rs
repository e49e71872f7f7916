//! `tidegate record`: any input into one capture.

use crate::cli::RecordArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::progress::Bar;
use crate::render::{Table, Ui, bytes, clean, thousands};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidegate_replay::capture::{CaptureOptions, CaptureSummary, CaptureWriter, WriteError};
use tidegate_replay::merge::Merge;
use tidegate_replay::{RejectCause, open_input};

/// How often a block is ended however short it is: what a crash can lose of an input that trickles.
const FLUSH: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &RecordArgs, ui: &Ui) -> Outcome {
    if let Some(input) = args.inputs.iter().find(|input| same_file(input, &args.out)) {
        return Err(Failure::usage(format!("`{}` is an input as well as --out", input.display())));
    }
    let options = args.read.options();
    let mut sources = Vec::with_capacity(args.inputs.len());
    for input in &args.inputs {
        sources.push(open_input(input, &options)?);
    }
    let interrupt = Interrupt::listen()?;
    let started = Instant::now();
    let mut merge = Merge::new(sources);
    let codec = CaptureOptions::default().with_codec(args.codec.into());
    let mut writer = CaptureWriter::create(part_of(&args.out), codec)?;
    let bar = Bar::new(ui, "recording", merge.progress().bytes_total);
    let mut events = Vec::new();
    let mut flushed = Instant::now();
    while !interrupt.raised() {
        merge.batch(&mut events);
        if events.is_empty() {
            break;
        }
        writer.define_all(merge.names())?;
        writer.push(&events)?;
        if flushed.elapsed() >= FLUSH {
            writer.flush()?;
            flushed = Instant::now();
        }
        bar.at(merge.progress().bytes, "");
    }
    let stopped = interrupt.raised();
    let summary = finish(writer, &args.out)?;
    bar.clear();
    let failure = merge.take_failure();
    let accounts: Vec<_> = merge.accounts().collect();
    if args.json {
        let inputs = args.inputs.iter().zip(&accounts).map(|(path, (format, account))| {
            let refused = RejectCause::ALL.into_iter().filter(|&cause| account.refused(cause) > 0);
            let refused: serde_json::Map<_, _> =
                refused.map(|cause| (cause.name().to_owned(), account.refused(cause).into())).collect();
            json!({
                "path": path.display().to_string(), "format": format, "units": account.units,
                "accepted": account.accepted, "events": account.events, "refused": refused,
            })
        });
        ui.print_json(&json!({
            "path": args.out.display().to_string(), "events": summary.events, "blocks": summary.blocks,
            "keys": summary.names, "bytes": summary.bytes, "seconds": started.elapsed().as_secs_f64(),
            "interrupted": stopped, "inputs": inputs.collect::<Vec<_>>(),
            "ended_early": failure.as_ref().map(ToString::to_string),
        }));
    } else {
        let mut table = Table::new(&["input", "format", ">units", ">accepted", ">refused", ">events"]);
        for (path, (format, account)) in args.inputs.iter().zip(&accounts) {
            table.row([
                &path.display().to_string(),
                format,
                &thousands(account.units),
                &thousands(account.accepted),
                &thousands(account.units - account.accepted),
                &thousands(account.events),
            ]);
        }
        let mut text = table.render(ui, 0);
        for (cause, place, why) in accounts.iter().flat_map(|(_, account)| &account.examples) {
            text += &format!("refused {place}: {}: {}\n", cause.name(), clean(why));
        }
        text += &format!(
            "\n{}: {} events of {} keys in {} blocks, {} ({:.1} bytes an event){}\n",
            args.out.display(),
            thousands(summary.events),
            thousands(summary.names),
            thousands(summary.blocks),
            bytes(summary.bytes),
            summary.bytes as f64 / summary.events.max(1) as f64,
            if stopped { ", ended by the user" } else { "" }
        );
        ui.print(&text);
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Ok),
    }
}

/// The name a capture has until it is whole.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Ends a capture begun at [`part_of`] `path` and gives it its name.
pub(crate) fn finish(writer: CaptureWriter, path: &Path) -> Result<CaptureSummary, WriteError> {
    let summary = writer.finish()?;
    std::fs::rename(part_of(path), path)
        .map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
    Ok(summary)
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
