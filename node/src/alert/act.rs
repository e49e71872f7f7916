//! What operators say to alerts, the same from the command line and through a running node.

use super::args::{ScopeArg, parse_days};
use super::list;
use crate::cli::parse_instant;
use crate::render::instant;
use serde::{Deserialize, Serialize};
use tidegate_alert::{
    Action, Calibration, Entry, Episode, Quiet, QuietKind, Severity, State, Status, Target,
};

/// Longest note that is kept, in bytes.
const NOTE_BYTES_MAX: usize = 1_000;

/// What an operator says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Somebody has seen an alert.
    Ack { id: String, words: Words },
    /// It was none.
    FalsePositive { id: String, words: Words },
    /// Not to hear of the same for a while.
    Suppress { id: String, span: Span },
    /// Not to hear of something for a while: a suppression or a maintenance window.
    Quiet { why: QuietKind, whom: Whom, span: Span },
    /// End a suppression or window.
    Lift { number: u32 },
}

/// What goes with an acknowledgement or a false positive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Words {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// The other way round: it is open again.
    pub(crate) undo: bool,
    /// For whom more is demanded after a false positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<ScopeArg>,
}

/// When something is not to be told, and up to how severe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Span {
    /// For so long, as `7d`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(crate) span: Option<String>,
    /// Or until this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    /// From this instant on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// The most severe that is held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) up_to: Option<Severity>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Of whom and of what.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Whom {
    pub(crate) entity: Option<Target>,
    pub(crate) kind: Option<String>,
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActError {
    /// There is no such alert, suppression or window.
    #[error("{0}")]
    Unknown(String),
    /// What is said makes no sense.
    #[error("{0}")]
    Bad(String),
}

/// Whether this is the name of an alert, or its first digits.
pub(crate) fn is_name(id: &str) -> Result<(), ActError> {
    let digits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && id.len() <= 12 {
        return Ok(());
    }
    Err(ActError::Bad(format!(
        "`{}` is no name of an alert: up to twelve hexadecimal digits, as `tidegate alert list` shows them",
        id.chars().take(64).collect::<String>()
    )))
}

/// The alert that is meant.
pub(crate) fn one<'a>(state: &'a State, id: &str) -> Result<&'a Episode, ActError> {
    is_name(id)?;
    match state.named(id)[..] {
        [episode] => Ok(episode),
        [] => Err(ActError::Unknown(format!(
            "there is no alert `{id}`; `tidegate alert list --all` shows them"
        ))),
        [first, second, ..] => Err(ActError::Bad(format!(
            "`{id}` is the beginning of several alerts: {}, {}…; write more of it",
            first.id, second.id
        ))),
    }
}

impl Act {
    /// What the store is told, and what whoever said it is told.
    pub(crate) fn entries(&self, state: &State, now_ns: u64) -> Result<(Vec<Entry>, String), ActError> {
        match self {
            Self::Ack { id, words } => {
                if words.scope.is_some() {
                    return Err(ActError::Bad("an acknowledgement has no `scope`".to_owned()));
                }
                let status = if words.undo { Status::Open } else { Status::Acknowledged };
                let episode = one(state, id)?;
                let said =
                    format!("{} {} by {} is {}\n", episode.id, episode.kind, episode.entity, status.name());
                Ok((vec![action(episode, status, words, now_ns)?], said))
            }
            Self::FalsePositive { id, words } => false_positive(one(state, id)?, words, now_ns),
            Self::Suppress { id, span } => {
                let episode = one(state, id)?;
                let entity = episode.entity.parse().map_err(|error| ActError::Bad(format!("{error}")))?;
                let whom = Whom { entity: Some(entity), kind: Some(episode.kind.clone()) };
                let from = span.from()?.unwrap_or(episode.first_ts);
                let until = span.until(from, episode.last_ts)?;
                let up_to = span.up_to.unwrap_or(episode.severity);
                quiet(state, QuietKind::Suppression, &whom, (from, until), up_to, span)
            }
            Self::Quiet { why, whom, span } => {
                let from = span.from()?.unwrap_or(now_ns);
                let until = span.until(from, from)?;
                let usual = match why {
                    QuietKind::Suppression => Severity::Medium,
                    QuietKind::Maintenance => Severity::High,
                };
                if *why == QuietKind::Suppression && whom.entity.is_none() && whom.kind.is_none() {
                    return Err(ActError::Bad(
                        "a suppression is of an `entity`, a `kind`, or both".to_owned(),
                    ));
                }
                quiet(state, *why, whom, (from, until), span.up_to.unwrap_or(usual), span)
            }
            Self::Lift { number } => match state.quiets.get(number) {
                Some(of) => Ok((vec![Entry::Lift(*number)], format!("lifted {}\n", list::quiet(of)))),
                None => Err(ActError::Unknown(format!(
                    "there is no suppression or window {number}; `tidegate alert list` shows them"
                ))),
            },
        }
    }
}

fn bounded(note: Option<&String>) -> Result<Option<String>, ActError> {
    match note {
        Some(note) if note.len() > NOTE_BYTES_MAX => Err(ActError::Bad(format!(
            "a note has at most {NOTE_BYTES_MAX} bytes, this one has {}",
            note.len()
        ))),
        note => Ok(note.cloned()),
    }
}

fn action(episode: &Episode, status: Status, words: &Words, at_ts: u64) -> Result<Entry, ActError> {
    Ok(Entry::Action(Action { id: episode.id, status, note: bounded(words.note.as_ref())?, at_ts }))
}

fn false_positive(episode: &Episode, words: &Words, at_ts: u64) -> Result<(Vec<Entry>, String), ActError> {
    let status = if words.undo { Status::Open } else { Status::FalsePositive };
    let mut entries = vec![action(episode, status, words, at_ts)?];
    if words.undo {
        entries.push(Entry::Undo(episode.id));
        return Ok((entries, format!("{} is open; it demands nothing any more\n", episode.id)));
    }
    let required = Calibration::demanded(episode.score);
    let entity =
        (words.scope.unwrap_or(ScopeArg::Entity) == ScopeArg::Entity).then(|| episode.entity.clone());
    let whom = entity.as_deref().unwrap_or("anybody");
    let said = format!(
        "{}: from now on {} by {whom} is told from a score of {required:.4} on (this one had {:.4}), or when it is more severe \
         than what its episode showed before\n",
        episode.id, episode.kind, episode.score
    );
    let kind = episode.kind.clone();
    entries.push(Entry::Calibration(Calibration { kind, entity, required, episode: episode.id }));
    Ok((entries, said))
}

fn quiet(
    state: &State,
    why: QuietKind,
    whom: &Whom,
    (from_ts, until_ts): (u64, u64),
    up_to: Severity,
    span: &Span,
) -> Result<(Vec<Entry>, String), ActError> {
    let quiet = Quiet {
        number: state.number_max + 1,
        why,
        entity: whom.entity.clone(),
        kind: whom.kind.clone(),
        from_ts,
        until_ts,
        up_to,
        note: bounded(span.note.as_ref())?,
    };
    let said = format!("{}\n", list::quiet(&quiet));
    Ok((vec![Entry::Quiet(quiet)], said))
}

impl Span {
    fn from(&self) -> Result<Option<u64>, ActError> {
        self.from.as_deref().map(|text| at(text, "from")).transpose()
    }

    /// The end of a span that begins at `from` and is counted from another instant.
    fn until(&self, from: u64, counted_from: u64) -> Result<u64, ActError> {
        let until = match (&self.span, &self.until) {
            (Some(span), None) => {
                let span = parse_days(span).map_err(|error| ActError::Bad(format!("`for`: {error}")))?;
                counted_from.saturating_add(span)
            }
            (None, Some(until)) => at(until, "until")?,
            _ => {
                return Err(ActError::Bad(
                    "say when it ends: either `for` a span such as 7d, or `until` an instant".to_owned(),
                ));
            }
        };
        if until <= from {
            return Err(ActError::Bad(format!(
                "it would end at {}, which is not after its beginning at {}",
                instant(until),
                instant(from)
            )));
        }
        Ok(until)
    }
}

fn at(text: &str, name: &str) -> Result<u64, ActError> {
    parse_instant(text).map(|at| at.0).map_err(|error| ActError::Bad(format!("`{name}`: {error}")))
}

/// A suppression or window as a document names it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct QuietBody {
    why: Option<QuietKind>,
    entity: Option<Target>,
    kind: Option<String>,
    #[serde(rename = "for")]
    span: Option<String>,
    until: Option<String>,
    from: Option<String>,
    up_to: Option<Severity>,
    note: Option<String>,
}

/// Reads what a document says of a suppression or window.
pub(crate) fn quiet_of(body: serde_json::Value) -> Result<Act, ActError> {
    let body: QuietBody = read(body)?;
    let QuietBody { why, entity, kind, span, until, from, up_to, note } = body;
    let why = why.ok_or_else(|| ActError::Bad("`why` is missing: suppression or maintenance".to_owned()))?;
    Ok(Act::Quiet { why, whom: Whom { entity, kind }, span: Span { span, until, from, up_to, note } })
}

/// Reads a document.
pub(crate) fn read<T: serde::de::DeserializeOwned>(body: serde_json::Value) -> Result<T, ActError> {
    serde_json::from_value(body).map_err(|error| ActError::Bad(error.to_string()))
}

/// Writes a suppression or window as a document.
pub(crate) fn quiet_body(why: QuietKind, whom: &Whom, span: &Span) -> serde_json::Value {
    let mut body = serde_json::to_value(span).unwrap_or_default();
    body["why"] = serde_json::to_value(why).unwrap_or_default();
    if let Some(entity) = &whom.entity {
        body["entity"] = entity.to_string().into();
    }
    if let Some(kind) = &whom.kind {
        body["kind"] = kind.clone().into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        let state = State::default();
        let act = |body| quiet_of(body).and_then(|act| act.entries(&state, 1_000));
        let why = |body| act(body).unwrap_err().to_string();
        assert!(why(json!({"why": "suppression", "for": "7d"})).contains("`entity`, a `kind`"));
        assert!(why(json!({"why": "maintenance"})).contains("say when it ends"));
        assert!(why(json!({"why": "maintenance", "for": "1h", "until": "5"})).contains("say when it ends"));
        assert!(why(json!({"why": "maintenance", "until": "5"})).contains("not after its beginning"));
        assert!(why(json!({"why": "maintenance", "for": "0d"})).contains("`for`"));
        assert!(why(json!({"why": "maintenance", "for": "1h", "entity": "a b "})).contains("is no entity"));
        assert!(why(json!({"for": "1h"})).contains("`why` is missing"));
        assert!(why(json!({"why": "maintenance", "for": "1h", "more": 1})).contains("unknown field"));
        let note = "n".repeat(NOTE_BYTES_MAX + 1);
        assert!(why(json!({"why": "maintenance", "for": "1h", "note": note})).contains("at most 1000"));
        let (entries, said) =
            act(json!({"why": "maintenance", "for": "1h", "entity": "10.0.0.0/8"})).unwrap();
        assert!(said.starts_with("1 maintenance: anything by 10.0.0.0/8, up to high"), "{said}");
        let [Entry::Quiet(quiet)] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((quiet.from_ts, quiet.until_ts), (1_000, 3_600_000_001_000));
        let lift = Act::Lift { number: 3 }.entries(&state, 1).unwrap_err();
        assert!(matches!(lift, ActError::Unknown(_)));
        let ack = Act::Ack { id: "x".to_owned(), words: Words::default() };
        assert!(matches!(ack.entries(&state, 1), Err(ActError::Bad(_))));
    }

    #[test]
    fn a_span_as_a_document_reads_back() {
        let span = Span { span: Some("7d".to_owned()), up_to: Some(Severity::Low), ..Span::default() };
        let whom = Whom { entity: Some("10.0.0.0/8".parse().unwrap()), kind: None };
        let body = quiet_body(QuietKind::Suppression, &whom, &span);
        assert_eq!(quiet_of(body).unwrap(), Act::Quiet { why: QuietKind::Suppression, whom, span });
    }
}
