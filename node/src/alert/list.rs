//! `tidegate alert list` and `show`.

use super::args::{ListArgs, ShowArgs};
use super::{folder, one};
use crate::exit::{Exit, Outcome};
use crate::render::{Table, Tone, Ui, clean, duration, instant, thousands};
use crate::tabular;
use serde_json::{Value, json};
use tidegate_alert::desk::DAY_NS;
use tidegate_alert::{Calibration, Episode, Hold, Quiet, QuietKind, Severity, State, Status, Target};

/// Rows of a table for people; more are counted.
const ROWS_MAX: usize = 1_000;

/// Which alerts are to be listed.
pub(crate) struct Wanted<'a> {
    pub(crate) all: bool,
    pub(crate) held: bool,
    pub(crate) min_severity: Severity,
    pub(crate) kind: Option<&'a str>,
    pub(crate) entity: Option<&'a Target>,
}

impl Wanted<'_> {
    pub(crate) fn takes(&self, episode: &Episode) -> bool {
        let state = if self.held { episode.told.is_none() } else { self.all || is_open(episode) };
        state
            && episode.severity >= self.min_severity
            && self.kind.is_none_or(|kind| *kind == episode.kind)
            && self.entity.is_none_or(|target| target.covers(&episode.entity))
    }
}

/// Told, and nobody has said anything to it.
pub(crate) fn is_open(episode: &Episode) -> bool {
    episode.told.is_some() && episode.status == Status::Open
}

/// The worst first, then the newest.
pub(crate) fn order(a: &Episode, b: &Episode) -> std::cmp::Ordering {
    (b.severity, b.last_ts, a.id).cmp(&(a.severity, a.last_ts, b.id))
}

/// A list as JSON; everything but its alerts is that of the state.
pub(crate) fn document<'a>(state: &State, episodes: impl Iterator<Item = &'a Episode>) -> Value {
    let alerts: Vec<Value> = episodes.map(Episode::document).collect();
    json!({
        "alerts": alerts,
        "quiets": state.quiets.values().collect::<Vec<_>>(),
        "calibrations": state.calibrations.values().collect::<Vec<_>>(),
        "held": state.held.iter().map(|((day, group), held)| json!({
            "day": date(*day), "group": group, "held": held,
        })).collect::<Vec<_>>(),
        "inputs": state.inputs.len(),
        "forgotten": state.forgotten,
    })
}

pub(crate) fn list(args: &ListArgs, ui: &Ui) -> Outcome {
    let state = folder::read(&folder::folder(&args.store)?)?;
    let wanted = Wanted {
        all: args.all,
        held: args.held,
        min_severity: args.min_severity.into(),
        kind: args.kind.as_deref(),
        entity: args.entity.as_ref(),
    };
    let mut episodes: Vec<&Episode> =
        state.episodes.values().filter(|episode| wanted.takes(episode)).collect();
    episodes.sort_by(|a, b| order(a, b));
    if args.json {
        ui.print_json(&document(&state, episodes.into_iter()));
    } else {
        ui.print(&render(&state, &episodes, ui));
    }
    Ok(Exit::Ok)
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::High => Tone::Bad,
        Severity::Medium => Tone::Warn,
        Severity::Low => Tone::Faint,
    }
}

fn date(day: u64) -> String {
    if day == 0 { "earlier".to_owned() } else { instant(day.saturating_mul(DAY_NS))[..10].to_owned() }
}

fn render(state: &State, episodes: &[&Episode], ui: &Ui) -> String {
    let mut text = String::new();
    if episodes.is_empty() {
        text += &format!("none of {} alerts is to be shown\n", thousands(state.episodes.len() as u64));
    } else {
        let mut table = Table::new(&[
            "id",
            "last seen",
            "severity",
            "kind",
            "entity",
            "against",
            ">score",
            ">count",
            "state",
        ]);
        for episode in episodes.iter().take(ROWS_MAX) {
            let state = match episode.told {
                None => "held back",
                Some(_) => episode.status.name(),
            };
            table.toned([
                (Tone::Strong, &episode.id.to_string()),
                (Tone::Plain, &instant(episode.last_ts)),
                (tone(episode.severity), episode.severity.name()),
                (Tone::Plain, &episode.kind),
                (Tone::Plain, &episode.entity),
                (Tone::Plain, &against(episode)),
                (Tone::Plain, &format!("{:.3}", episode.score)),
                (Tone::Plain, &thousands(episode.count)),
                (Tone::Plain, state),
            ]);
        }
        text += &table.render(ui, 0);
        if episodes.len() > ROWS_MAX {
            text +=
                &format!("and {} more; --json gives all\n", thousands((episodes.len() - ROWS_MAX) as u64));
        }
    }
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("\n{}\n", ui.paint(Tone::Strong, title));
            lines.iter().for_each(|line| text += &format!("  {}\n", clean(line)));
        }
    };
    part("Not told", state.quiets.values().map(quiet).collect());
    part("Feedback", state.calibrations.values().map(calibration).collect());
    let held = |((day, group), held): (&(u64, String), &tidegate_alert::Held)| {
        let parts: Vec<String> = Hold::ALL
            .iter()
            .filter(|hold| held.of(**hold) > 0)
            .map(|hold| format!("{} {}", thousands(held.of(*hold)), hold.name()))
            .collect();
        format!("{} {group}: {}", date(*day), parts.join(", "))
    };
    part("Findings held back, by day and group", state.held.iter().rev().take(31).map(held).collect());
    text
}

fn against(episode: &Episode) -> String {
    match (&episode.peer, episode.port) {
        (Some(peer), Some(port)) if peer.contains(':') => format!("[{peer}]:{port}"),
        (Some(peer), Some(port)) => format!("{peer}:{port}"),
        (Some(peer), None) => peer.clone(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => String::new(),
    }
}

/// A suppression or window in words.
pub(crate) fn quiet(quiet: &Quiet) -> String {
    let why = match quiet.why {
        QuietKind::Suppression => "suppression",
        QuietKind::Maintenance => "maintenance",
    };
    format!(
        "{} {why}: {} by {}, up to {}, from {} until {}{}",
        quiet.number,
        quiet.kind.as_deref().unwrap_or("anything"),
        quiet.entity.as_ref().map_or_else(|| "anybody".to_owned(), ToString::to_string),
        quiet.up_to.name(),
        instant(quiet.from_ts),
        instant(quiet.until_ts),
        quiet.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default(),
    )
}

fn calibration(calibration: &Calibration) -> String {
    format!(
        "{}: {} by {} is told from a score of {:.4} on",
        calibration.episode,
        calibration.kind,
        calibration.entity.as_deref().unwrap_or("anybody"),
        calibration.required
    )
}

pub(crate) fn show(args: &ShowArgs, ui: &Ui) -> Outcome {
    let state = folder::read(&folder::folder(&args.store)?)?;
    let episode = one(&state, &args.id)?;
    if args.json {
        let mut value = episode.document();
        let input = episode.proof.as_ref().and_then(|proof| state.inputs.get(&proof.input));
        value["input"] = serde_json::to_value(input).unwrap_or_default();
        value["no_replay"] = super::replay::why_not(episode, input).into();
        ui.print_json(&value);
        return Ok(Exit::Ok);
    }
    ui.print(&whole(&state, episode, ui));
    Ok(Exit::Ok)
}

/// One figure of a reason.
pub(crate) fn figure(value: f64) -> String {
    if value.fract() == 0.0 && (0.0..1e15).contains(&value) {
        thousands(value as u64)
    } else {
        format!("{value:.3}")
    }
}

/// The lines of an alert that `detect` and `show` have in common.
pub(crate) fn body(episode: &Episode, ui: &Ui) -> String {
    let against = match (&episode.peer, episode.port) {
        (Some(peer), _) if episode.spoofed && *peer == episode.entity => {
            " is the victim of made-up or many sources".to_owned()
        }
        (Some(peer), Some(port)) => format!(" against {peer} port {port}"),
        (Some(peer), None) => format!(" against {peer}"),
        (None, _) => String::new(),
    };
    let kind = ui.paint(tone(episode.severity), &clean(&episode.kind));
    let method = if episode.method.is_empty() { String::new() } else { format!(" ({})", episode.method) };
    let technique = episode.technique.as_ref().map(|technique| format!(", {technique}")).unwrap_or_default();
    let times =
        if episode.count == 1 { "once".to_owned() } else { format!("{} times", thousands(episode.count)) };
    let mut text = format!("\n  {kind}{} by {}{}\n", clean(&method), clean(&episode.entity), clean(&against));
    text += &format!(
        "    {} severity, score {:.3}{}; {} from {}, seen {times} over {}\n",
        episode.severity.name(),
        episode.score,
        clean(&technique),
        episode.id,
        instant(episode.first_ts),
        duration(episode.last_ts.saturating_sub(episode.range.first_ts.min(episode.first_ts))),
    );
    let what = tabular::units_of(&episode.kind);
    text += &format!("    {what} {} to {}\n", thousands(episode.range.first), thousands(episode.range.last));
    for reason in &episode.features {
        text += &format!(
            "    {}: {}, expected {}\n",
            clean(&reason.name),
            figure(reason.seen),
            figure(reason.expected)
        );
    }
    text
}

fn whole(state: &State, episode: &Episode, ui: &Ui) -> String {
    let mut text = body(episode, ui);
    let mut facts = Table::facts();
    facts.fact(
        "state",
        match episode.told {
            None => "held back, told to nobody".to_owned(),
            Some(told) => format!("{}, told as {}", episode.status.name(), told.name()),
        },
    );
    if let Some(note) = &episode.note {
        facts.fact("note", note);
    }
    facts.fact("last seen", instant(episode.last_ts));
    facts.fact("group", &episode.group);
    for hold in Hold::ALL.into_iter().filter(|hold| episode.held.of(*hold) > 0) {
        facts.fact(&format!("held back ({})", hold.name()), thousands(episode.held.of(hold)));
    }
    if let Some(proof) = &episode.proof {
        let input = state.inputs.get(&proof.input);
        facts.fact("input", input.map_or("unknown", |input| &input.path));
        let end = if proof.at_end { ", at the end" } else { "" };
        facts.fact("score reached", format!("after {} units{end}", thousands(proof.units)));
        facts.fact("score bits", format!("{:016x}", proof.score_bits));
    }
    let input = episode.proof.as_ref().and_then(|proof| state.inputs.get(&proof.input));
    match super::replay::why_not(episode, input) {
        None => facts.fact("check it", format!("tidegate alert replay {}", episode.id)),
        Some(why) => facts.fact("no replay", why),
    }
    text += &facts.render(ui, 4);
    text
}
