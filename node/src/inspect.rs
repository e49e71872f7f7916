//! `tidegate inspect`: what a file holds, as a table.

use crate::cli::InspectArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::Bar;
use crate::render::{Table, Tone, Ui, bytes, duration, instant, thousands};
use tidegate_replay::decode::{Inspection, inspect};

pub(crate) fn run(args: &InspectArgs, ui: &Ui) -> Outcome {
    let options = args.read.options();
    let mut exit = Exit::Ok;
    for (at, path) in args.files.iter().enumerate() {
        let bar = Bar::spinner(ui, "reading", path.display().to_string());
        let inspection = inspect(path, &options);
        bar.clear();
        let inspection = match inspection {
            Ok(inspection) => inspection,
            // The other files are still worth a look.
            Err(error) => {
                ui.error(&error.into());
                exit = Exit::Input;
                continue;
            }
        };
        if args.json {
            let value = serde_json::to_value(&inspection).map_err(|e| Failure::internal(e.to_string()))?;
            ui.print_json(&value);
        } else {
            let gap = if at > 0 { "\n" } else { "" };
            ui.print(&format!("{gap}{}", render(&inspection, ui)));
        }
        if let Some(reason) = &inspection.ended_early {
            ui.error(&anyhow::anyhow!("{reason}"));
            exit = Exit::Input;
        }
    }
    Ok(exit)
}

fn render(found: &Inspection, ui: &Ui) -> String {
    let mut text = format!("{}\n", ui.paint(Tone::Strong, &crate::render::clean(&found.path)));
    let mut facts = Table::facts();
    facts.fact("format", format!("{}, {}", found.format, bytes(found.bytes)));
    facts.fact("events", thousands(found.events));
    for (kind, count) in &found.kinds {
        facts.fact(&format!("  {kind}"), thousands(*count));
    }
    if let (Some(first), Some(last)) = (found.first_ns, found.last_ns) {
        facts.fact("first", instant(first));
        facts.fact("last", instant(last));
        facts.fact("span", duration(last - first));
    }
    facts.fact(
        "disorder",
        match found.disorder {
            0 => "none".to_owned(),
            n => format!(
                "{} older than one before, by {} at most",
                thousands(n),
                duration(found.disorder_max_ns)
            ),
        },
    );
    facts.fact("equal stamps", thousands(found.equal_stamps));
    facts.fact("keys", thousands(found.keys));
    if found.overflowed > 0 {
        facts.fact("over the quota of names", format!("{} events", thousands(found.overflowed)));
    }
    let refused: u64 = found.refused.values().sum();
    facts.fact(
        "read",
        format!(
            "{} units = {} accepted + {} refused",
            thousands(found.units),
            thousands(found.accepted),
            thousands(refused)
        ),
    );
    for (cause, count) in &found.refused {
        facts.fact(&format!("  {cause}"), thousands(*count));
    }
    text += &facts.render(ui, 2);
    for example in &found.examples {
        text += &format!("  {} {}\n", ui.paint(Tone::Warn, "refused"), crate::render::clean(example));
    }
    if !found.top_keys.is_empty() {
        let mut keys = Table::new(&["key", ">events", ">share"]);
        for key in &found.top_keys {
            let share = 100.0 * key.events as f64 / found.events.max(1) as f64;
            keys.row([&key.name, &thousands(key.events), &format!("{share:.1} %")]);
        }
        let rest = found.keys.saturating_sub(found.top_keys.len() as u64);
        text += &format!("\n{}", keys.render(ui, 2));
        if rest > 0 {
            text += &format!("  {}\n", ui.paint(Tone::Faint, &format!("and {} more", thousands(rest))));
        }
    }
    if !found.gaps.is_empty() {
        let mut gaps = Table::new(&["longest silence", "from"]);
        for gap in &found.gaps {
            gaps.row([&duration(gap.ns), &instant(gap.from_ns)]);
        }
        text += &format!("\n{}", gaps.render(ui, 2));
    }
    text
}
