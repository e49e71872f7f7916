//! `tidegate alert replay`: the traffic behind an alert judged again, to the bit.

use super::args::ReplayAlertArgs;
use super::{folder, input, one};
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::judge::Judge;
use crate::render::{Tone, Ui, clean, thousands};
use crate::results::{self, Behind};
use crate::series::{self, Series};
use crate::traffic::{Source, Unit};
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;
use tidegate_alert::{Episode, Finding, Input, Proof};

/// Units read between two looks at Ctrl-C.
const STEP: usize = 4_096;

pub(crate) fn run(args: &ReplayAlertArgs, ui: &Ui) -> Outcome {
    let refuse = |text: String| Failure::new(Exit::Input, anyhow::anyhow!(text));
    let state = folder::read(&folder::folder(&args.store)?)?;
    let episode = one(&state, &args.id)?;
    let known = episode.proof.as_ref().and_then(|proof| state.inputs.get(&proof.input));
    if let Some(why) = why_not(episode, known).filter(|_| args.input.is_none() || known.is_none()) {
        return Err(refuse(format!("alert {} cannot be judged again: {why}", episode.id)));
    }
    let (Some(proof), Some(known)) = (&episode.proof, known) else {
        return Err(refuse(format!("alert {} has no proof", episode.id)));
    };
    let path = args.input.clone().unwrap_or_else(|| PathBuf::from(&known.path));
    match known.options.get(series::WHAT.0).map(String::as_str) {
        Some(what) if what == series::WHAT.1 => return series_again(args, episode, proof, known, &path, ui),
        Some(what) if what == results::WHAT.1 => return rows_again(args, episode, proof, known, &path, ui),
        _ => {}
    }
    if known.options.contains_key(input::RESULTS) {
        return results::detect::again(args, episode, proof, known, &path, ui);
    }
    let (reading, [mut judge, mut alone]) = input::again(known, ui)?;
    let digest = input::digest(&path, reading.bytes)?;
    let digest = digest.ok_or_else(|| refuse(format!("{} is no file", path.display())))?;
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
    let interrupt = Interrupt::listen()?;
    let (mut again, mut range_score) = (Vec::new(), None::<f64>);
    let matches = |finding: &Finding| is_of(finding, episode);
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

/// The bytes of what was kept of some rows, if they are those of then.
fn document_of(path: &std::path::Path, known: &Input, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let refuse = |text: String| Failure::new(Exit::Input, anyhow::anyhow!("{}: {text}", path.display()));
    let io = |error: std::io::Error| refuse(error.to_string());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > bytes_max {
        return Err(refuse(format!("over {bytes_max} bytes, which no such file has")));
    }
    let digest = blake3::hash(&bytes).to_hex().to_string();
    if digest != known.digest {
        return Err(refuse(format!(
            "it is not what was judged: its BLAKE3 is {digest}, that of then {}",
            known.digest
        )));
    }
    Ok(bytes)
}

/// The rows in which a rule was met, judged again by the rules of then from nothing.
fn rows_again(
    args: &ReplayAlertArgs,
    episode: &Episode,
    proof: &Proof,
    known: &Input,
    path: &std::path::Path,
    ui: &Ui,
) -> Outcome {
    let refuse = |text: String| Failure::new(Exit::Input, anyhow::anyhow!("{}: {text}", path.display()));
    let bytes = document_of(path, known, results::BYTES_MAX)?;
    let kept = Behind::read(&bytes).map_err(refuse)?;
    let (rules, streams) = input::rules_and_streams(known, ui)?;
    let again = kept.judge(rules.set, &streams).map_err(refuse)?;
    let same = again.is_some_and(|again| again.ts == proof.ts && again.score.to_bits() == proof.score_bits);
    if args.json {
        ui.print_json(&json!({
            "id": episode.id,
            "same": same,
            "score": episode.score,
            "score_bits": format!("{:016x}", proof.score_bits),
            "again": again.iter().map(|again| json!({
                "ts": again.ts.to_string(),
                "score": again.score,
                "score_bits": format!("{:016x}", again.score.to_bits()),
            })).collect::<Vec<_>>(),
            "units": proof.units,
            "range_score": again.map(|again| again.score),
        }));
    } else {
        let (tone, word) = if same { (Tone::Good, "same") } else { (Tone::Bad, "differs") };
        let now = if again.is_none() { "  now the rule is not met by the last row\n" } else { "" };
        ui.print(&format!(
            "{}: {} of {}, score {} ({:016x}) in the last of {} rows, from nothing before them, in {}\n{now}",
            ui.paint(tone, word),
            clean(&kept.kind),
            clean(&kept.key),
            f64::from_bits(proof.score_bits),
            proof.score_bits,
            thousands(proof.units),
            clean(&path.display().to_string()),
        ));
    }
    Ok(if same { Exit::Ok } else { Exit::Differs })
}

/// The rows behind an anomaly of a stream, judged again from the state before them.
fn series_again(
    args: &ReplayAlertArgs,
    episode: &Episode,
    proof: &Proof,
    known: &Input,
    path: &std::path::Path,
    ui: &Ui,
) -> Outcome {
    let refuse = |text: String| Failure::new(Exit::Input, anyhow::anyhow!("{}: {text}", path.display()));
    let bytes = document_of(path, known, series::BYTES_MAX)?;
    let kept = Series::read(&bytes).map_err(refuse)?;
    let again = kept.judge().map_err(refuse)?;
    let same = again.is_some_and(|score| score.to_bits() == proof.score_bits);
    if args.json {
        ui.print_json(&json!({
            "id": episode.id,
            "same": same,
            "score": episode.score,
            "score_bits": format!("{:016x}", proof.score_bits),
            "again": again.iter().map(|score| json!({
                "ts": proof.ts.to_string(),
                "score": score,
                "score_bits": format!("{:016x}", score.to_bits()),
            })).collect::<Vec<_>>(),
            "units": proof.units,
            "range_score": again,
        }));
    } else {
        let (tone, word) = if same { (Tone::Good, "same") } else { (Tone::Bad, "differs") };
        let now = match again {
            Some(score) if !same => format!("  now it is {score} ({:016x})\n", score.to_bits()),
            None => "  now nothing is found in the last row\n".to_owned(),
            Some(_) => String::new(),
        };
        ui.print(&format!(
            "{}: {} of {} in {}, score {} ({:016x}) in the last of {} rows, from the state before them, in {}\n{now}",
            ui.paint(tone, word),
            clean(&episode.kind),
            clean(&kept.key),
            clean(&kept.stream),
            f64::from_bits(proof.score_bits),
            proof.score_bits,
            thousands(proof.units),
            clean(&path.display().to_string()),
        ));
    }
    Ok(if same { Exit::Ok } else { Exit::Differs })
}

/// Why an alert cannot be judged again, as far as can be said without reading its `input`.
pub(crate) fn why_not(episode: &Episode, input: Option<&Input>) -> Option<String> {
    let Some(proof) = &episode.proof else {
        let why = episode.unproven.clone();
        return Some(why.unwrap_or_else(|| "it was not made from a file, and was not recorded".to_owned()));
    };
    let Some(input) = input else {
        return Some(format!(
            "the store says nothing of input {}: it is still being judged, or that was interrupted",
            proof.input
        ));
    };
    let gone = !std::path::Path::new(&input.path).exists();
    let recorded = [input::BYTES, series::WHAT.0].iter().any(|option| input.options.contains_key(*option));
    match (gone, recorded) {
        (false, _) => None,
        (true, true) => Some(format!("what was recorded has given way to newer ones: {}", input.path)),
        (true, false) => Some(format!("its input is not there any more: {}", input.path)),
    }
}

/// Whether a finding is of the episode, whose texts have been brought into their bounds.
pub(crate) fn is_of(finding: &Finding, episode: &Episode) -> bool {
    let bounded =
        |text: &str, kept: &str| text == kept || (text.len() > kept.len() && text.starts_with(kept));
    // Most are of another kind; only what may be the same is cut as the desk cuts it.
    bounded(&finding.kind, &episode.kind) && bounded(&finding.entity, &episode.entity) && {
        let cut = finding.clone().bounded();
        cut.kind == episode.kind && cut.entity == episode.entity
    }
}

/// Whether one of `again` is the finding of then.
pub(crate) fn compare(proof: &Proof, again: &[Finding]) -> bool {
    again.iter().any(|finding| finding.ts == proof.ts && finding.score.to_bits() == proof.score_bits)
}

fn best(best: &mut Option<f64>, finding: &Finding, matches: bool) {
    if matches {
        *best = Some(best.map_or(finding.score, |best| best.max(finding.score)));
    }
}

pub(crate) fn document(
    episode: &Episode,
    again: &[Finding],
    same: bool,
    range_score: Option<f64>,
) -> serde_json::Value {
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
