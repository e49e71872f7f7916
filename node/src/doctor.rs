//! `tidegate doctor`: whether this machine is fit for what is promised, and what to do where it is not.

mod certificate;
mod checks;
mod machine;

use crate::cli::DoctorArgs;
use crate::exit::{Exit, Outcome};
use crate::place::data_folder;
use crate::render::{Table, Tone, Ui};
use checks::{Finding, Level};
use machine::Machine;
use serde_json::json;

pub(crate) fn run(args: &DoctorArgs, ui: &Ui) -> Outcome {
    let machine = Machine::here(data_folder(args.data.as_ref())?, args.listen, args.http.0);
    let findings = checks::examine(&machine);
    if args.json {
        ui.print_json(&json!({ "checks": findings.iter().map(to_json).collect::<Vec<_>>() }));
    } else {
        ui.print(&render(&findings, ui));
    }
    let bad = findings.iter().any(|finding| finding.level == Level::Bad);
    Ok(if bad { Exit::Differs } else { Exit::Ok })
}

fn to_json(finding: &Finding) -> serde_json::Value {
    json!({
        "check": finding.check, "level": finding.level.name(), "found": finding.found, "wanted": finding.wanted,
        "why": (!finding.why.is_empty()).then_some(finding.why), "fix": finding.fix,
    })
}

/// A line for each finding; below those that are not as they should be, why that matters and what mends it.
fn render(findings: &[Finding], ui: &Ui) -> String {
    let mut table = Table::new(&["", "check", "found", "wanted"]);
    for finding in findings {
        let tone = match finding.level {
            Level::Ok => Tone::Good,
            Level::Unknown => Tone::Faint,
            Level::Warn => Tone::Warn,
            Level::Bad => Tone::Bad,
        };
        table.toned([
            (tone, finding.level.name()),
            (Tone::Plain, finding.check),
            (Tone::Plain, &finding.found),
            (Tone::Faint, &finding.wanted),
        ]);
    }
    let rows = table.render(ui, 0);
    let mut text = String::new();
    let mut lines = rows.lines();
    text.extend(lines.next().map(|header| format!("{header}\n")));
    for (line, finding) in lines.zip(findings) {
        text += &format!("{line}\n");
        if let Some(fix) = &finding.fix {
            text += &format!("         {}\n", ui.paint(Tone::Faint, finding.why));
            text += &format!("         {}\n", ui.paint(Tone::Strong, &format!("mend it: {fix}")));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    text += &format!(
        "\n{} ok, {} could be better, {} bad, {} not known\n",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Bad),
        count(Level::Unknown)
    );
    text
}
