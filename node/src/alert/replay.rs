//! `tidegate alert replay`: the traffic behind an alert judged again, to the bit.

use super::args::ReplayAlertArgs;
use super::{folder, input, one};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::judge::Judge;
use crate::render::{Tone, Ui, clean, thousands};
use crate::traffic::{Source, Unit};
use serde_json::json;
use std::path::PathBuf;
use tidegate_alert::{Episode, Finding, Proof};

/// Units read between two looks at Ctrl-C.
const STEP: usize = 4_096;

pub(crate) fn run(args: &ReplayAlertArgs, ui: &Ui) -> Outcome {
    let refuse = |text: String| Failure::new(Exit::Input, anyhow::anyhow!(text));
    let state = folder::read(&folder::folder(&args.store)?)?;
    let episode = one(&state, &args.id)?;
    let proof = episode.proof.as_ref().ok_or_else(|| {
        refuse(format!("alert {} was not made from a file, so there is nothing to judge again", episode.id))
    })?;
    let known = state.inputs.get(&proof.input).ok_or_else(|| {
        refuse(format!(
            "the store says nothing of input {}: it was interrupted before it was done with it",
            proof.input
        ))
    })?;
    let path = args.input.clone().unwrap_or_else(|| PathBuf::from(&known.path));
    let digest = input::digest(&path)?.ok_or_else(|| refuse(format!("{} is no file", path.display())))?;
    if digest != known.digest {
        return Err(refuse(format!(
            "{} is not what was judged: its BLAKE3 is {digest}, that of then {}; --input names another file",
            path.display(),
            known.digest
        )));
    }
    if known.program != env!("CARGO_PKG_VERSION") {
        ui.note(&format!(
            "it was judged by version {}, this is {}",
            known.program,
            env!("CARGO_PKG_VERSION")
        ));
    }
    let (reading, [mut judge, mut alone]) = input::again(known, ui)?;

    let interrupt = Interrupt::listen()?;
    let (mut again, mut range_score) = (Vec::new(), None::<f64>);
    let matches = |finding: &Finding| finding.kind == episode.kind && finding.entity == episode.entity;
    let range = episode.range.first..=episode.range.last;
    let mut step = |unit: Unit<'_>, judge: &mut Judge| {
        if judge.units() == proof.units {
            return;
        }
        unit.give(judge, |finding| {
            let at = finding.proof.as_ref().is_some_and(|at| at.units == proof.units && !proof.at_end);
            if at && matches(&finding) {
                again.push(finding);
            }
        });
        if unit.number().is_some_and(|number| range.contains(&number)) {
            unit.give(&mut alone, |finding| best(&mut range_score, &finding, matches(&finding)));
        }
    };
    let mut source = Source::open(&path, &reading, !known.rules.is_empty())?;
    while judge.units() < proof.units || proof.at_end {
        if interrupt.raised() {
            return Err(refuse("interrupted before the score was reached".to_owned()));
        }
        // Where reading ended early then, it does now, at the same place.
        if !matches!(source.read(STEP, |unit| step(unit, &mut judge)), Ok(true)) {
            break;
        }
    }
    source.finish(|unit| step(unit, &mut judge));
    if proof.at_end && judge.units() == proof.units {
        judge.finish(|finding| {
            if matches(&finding) {
                again.push(finding);
            }
        });
    }
    alone.finish(|finding| best(&mut range_score, &finding, matches(&finding)));
    let verdict = compare(proof, &again);
    if args.json {
        ui.print_json(&document(episode, &again, verdict, range_score));
    } else {
        ui.print(&render(episode, &path, &again, verdict, range_score, ui));
    }
    Ok(if verdict { Exit::Ok } else { Exit::Differs })
}

/// Whether one of `again` is the finding of then.
fn compare(proof: &Proof, again: &[Finding]) -> bool {
    again.iter().any(|finding| finding.ts == proof.ts && finding.score.to_bits() == proof.score_bits)
}

fn best(best: &mut Option<f64>, finding: &Finding, matches: bool) {
    if matches {
        *best = Some(best.map_or(finding.score, |best| best.max(finding.score)));
    }
}

fn document(episode: &Episode, again: &[Finding], same: bool, range_score: Option<f64>) -> serde_json::Value {
    let proof = episode.proof.as_ref();
    json!({
        "id": episode.id,
        "same": same,
        "score": episode.score,
        "score_bits": proof.map(|proof| format!("{:016x}", proof.score_bits)),
        "again": again.iter().map(|finding| json!({
            "ts": finding.ts.to_string(),
            "score": finding.score,
            "score_bits": format!("{:016x}", finding.score.to_bits()),
        })).collect::<Vec<_>>(),
        "units": proof.map(|proof| proof.units),
        "range_score": range_score,
    })
}

fn render(
    episode: &Episode,
    path: &std::path::Path,
    again: &[Finding],
    same: bool,
    range_score: Option<f64>,
    ui: &Ui,
) -> String {
    let Some(proof) = &episode.proof else { return String::new() };
    let (tone, word) = if same { (Tone::Good, "same") } else { (Tone::Bad, "differs") };
    let mut text = format!(
        "{}: {} by {}, score {} ({:016x}) after {} units{} of {}\n",
        ui.paint(tone, word),
        clean(&episode.kind),
        clean(&episode.entity),
        f64::from_bits(proof.score_bits),
        proof.score_bits,
        thousands(proof.units),
        if proof.at_end { ", at the end," } else { "" },
        clean(&path.display().to_string()),
    );
    if !same {
        text += match again.len() {
            0 => "  now nothing of the kind is found there\n".to_owned(),
            _ => again
                .iter()
                .map(|finding| format!("  now it is {} ({:016x})\n", finding.score, finding.score.to_bits()))
                .collect(),
        }
        .as_str();
    }
    let (first, last) = (thousands(episode.range.first), thousands(episode.range.last));
    text += &match range_score {
        Some(score) if score.to_bits() == proof.score_bits => {
            format!("  units {first} to {last} alone give the same score\n")
        }
        Some(score) => {
            format!("  units {first} to {last} alone give {score}: the rest is in what came before\n")
        }
        None => {
            format!("  units {first} to {last} alone give nothing: the detector needs what came before\n")
        }
    };
    text
}
