//! `tidegate verify`: the same input in many ways must give the same bytes.

use crate::cli::VerifyArgs;
use crate::digest::Recorded;
use crate::exit::{Exit, Failure, Outcome};
use crate::plan::{self, describe};
use crate::progress::Bar;
use crate::render::{Table, Tone, Ui, duration, thousands};
use crate::summary;
use serde_json::json;
use tidegate_actors::runtime::RuntimeOptions;
use tidegate_replay::pipeline::{Variant, VariantRun, verify};
use tidegate_replay::{ReplayOptions, replay};

pub(crate) fn run(args: &VerifyArgs, ui: &Ui) -> Outcome {
    let read = args.read.options();
    let recorded = args.against.as_ref().map(|path| Ok((path, Recorded::read(path)?)));
    let recorded = recorded.transpose().map_err(|failure: Failure| failure)?;
    let asked = &args.plan;
    let says_what =
        asked.config.is_some() || asked.over_bars() || !(asked.bars.is_empty() && asked.hosts.is_empty());
    let (what, log) = match &recorded {
        Some((path, recorded)) if !says_what => recorded.plan(path)?,
        _ => plan::plan(asked, &args.files, &read, ui)?,
    };
    if let Some((path, recorded)) = &recorded {
        let settings = describe(&what, &log);
        if settings != recorded.settings {
            return Err(Failure::usage(format!(
                "`{}` was computed with other settings: {} instead of {settings}",
                path.display(),
                recorded.settings
            )));
        }
    }

    // The first run goes through `replay`, which also tells how the input was read.
    let spinner = Bar::spinner(ui, "verifying", "first run".to_owned());
    let mut variants = Variant::usual(&args.shards, 0);
    let first = variants.remove(0);
    let options = ReplayOptions {
        runtime: RuntimeOptions {
            shards: first.shards,
            batch_max: first.batch_max,
            placement: first.placement,
            ..RuntimeOptions::default()
        },
        ..ReplayOptions::default()
    };
    let inputs = plan::open_all(&args.files, &read)?;
    let mut report = replay(inputs, &what, log, &options, None, &mut |_| {})?;
    let mut runs = vec![VariantRun {
        variant: first,
        digest: report.runtime.digest.clone(),
        events: report.runtime.events,
        elapsed: report.elapsed,
    }];
    for variant in Variant::usual(&args.shards, report.logged).into_iter().skip(1) {
        spinner.at(0, format!("run {}", runs.len() + 1));
        runs.push(verify(plan::open_all(&args.files, &read)?, &what, log, variant)?);
    }
    spinner.clear();

    let wanted = recorded.as_ref().map_or_else(
        || (runs[0].digest.short(), runs[0].digest.outputs()),
        |(_, recorded)| (recorded.digest.clone(), recorded.outputs),
    );
    let same = |run: &VariantRun| {
        (run.digest.short(), run.digest.outputs()) == wanted && run.digest == runs[0].digest
    };
    let differ = runs.iter().filter(|run| !same(run)).count();
    if args.json {
        let rows = runs.iter().map(|run| {
            json!({
                "shards": run.variant.shards, "batch_max": run.variant.batch_max,
                "placement": run.variant.placement.to_string(), "restore_at": run.variant.restore_at,
                "restored_by": run.variant.restored_by,
                "events": run.events, "seconds": run.elapsed.as_secs_f64(), "digest": run.digest.short(),
                "outputs": run.digest.outputs(), "same": same(run),
            })
        });
        ui.print_json(&json!({
            "equal": differ == 0, "digest": wanted.0, "outputs": wanted.1,
            "against": args.against.as_ref().map(|path| path.display().to_string()),
            "settings": describe(&what, &log), "runs": rows.collect::<Vec<_>>(),
        }));
    } else {
        let mut table = Table::new(&[
            ">shards",
            ">batch",
            "placement",
            ">restored at",
            ">events",
            ">results",
            ">took",
            "digest",
            "",
        ]);
        for run in &runs {
            let (tone, verdict) = if same(run) { (Tone::Good, "same") } else { (Tone::Bad, "DIFFERS") };
            table.toned([
                (Tone::Plain, &shards(&run.variant)),
                (Tone::Plain, &thousands(run.variant.batch_max as u64)),
                (Tone::Plain, &run.variant.placement.to_string()),
                (Tone::Plain, &run.variant.restore_at.map_or_else(|| "-".to_owned(), thousands)),
                (Tone::Plain, &thousands(run.events)),
                (Tone::Plain, &thousands(run.digest.outputs())),
                (Tone::Plain, &duration(run.elapsed.as_millis() as u64 * 1_000_000)),
                (Tone::Plain, &run.digest.short()),
                (tone, verdict),
            ]);
        }
        let against = recorded.map_or_else(String::new, |(path, recorded)| {
            format!(
                "\nrecorded in {}: {} over {} results",
                path.display(),
                recorded.digest,
                thousands(recorded.outputs)
            )
        });
        let verdict = match differ {
            0 => ui.paint(Tone::Good, &format!("{} runs, one result", runs.len())),
            n => ui.paint(Tone::Bad, &format!("{n} of {} runs differ", runs.len())),
        };
        ui.print(&format!("{}{against}\n{verdict}\n", table.render(ui, 0)));
    }
    match summary::verdict(&mut report) {
        Ok(_) if differ > 0 => Ok(Exit::Differs),
        other => other,
    }
}

/// How many shards it had, and how many went on.
fn shards(variant: &Variant) -> String {
    let before = variant.shards.to_string();
    variant.restored_by.map_or_else(|| before.clone(), |by| format!("{before}, then {by}"))
}
