//! What the gateway tells of alerts: from memory, as the desk showed it last.

use super::desk::ToDesk;
use super::talkers::{self, Talkers};
use crate::alert::act::{Act, ActError, quiet_of, read};
use crate::alert::list::{self, Wanted};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_alert::{Episode, EpisodeId, Hold, Severity, State, Target};
use tidegate_engine::Output;
use tidegate_flow::FlowRecord;
use tidegate_gateway::{
    Acting, AlertCounts, AlertError, AlertFilter, AlertNews, AlertState, AlertVerb, Alerts, Visible,
};
use tokio::sync::broadcast;

/// Alerts that a subscriber may be behind before it loses some, and is told how many.
const NEWS_MAX: usize = 1_024;
/// Alerts whose flows are remembered; beyond it the oldest are forgotten.
const EVIDENCE_MAX: usize = 1_024;
/// Words for people that wait to be said.
const NOTES_MAX: usize = 64;

/// Counted where it happens, read by whoever asks.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) findings: AtomicU64,
    pub(super) new: AtomicU64,
    pub(super) worse: AtomicU64,
    pub(super) held: [AtomicU64; 4],
    pub(super) forgotten: AtomicU64,
    pub(super) datagrams: AtomicU64,
    pub(super) datagrams_taken: AtomicU64,
    pub(super) datagrams_dropped: Arc<AtomicU64>,
    /// Ports of the sockets, whose drops the system counts.
    pub(super) ports: std::sync::OnceLock<Vec<u16>>,
    pub(super) packets: AtomicU64,
    pub(super) packets_dropped: AtomicU64,
    pub(super) unheard: AtomicU64,
    pub(super) flows: AtomicU64,
    pub(super) records_lost: AtomicU64,
    pub(super) rules_forgotten: AtomicU64,
    pub(super) to_sinks: AtomicU64,
    pub(super) from_sinks: AtomicU64,
    pub(super) sinks_room: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) unsent: AtomicU64,
}

impl Row {
    pub(super) fn of(output: &Output) -> Self {
        Self { sequence: output.sequence, ts: output.ts, values: output.values().collect() }
    }
}

impl Counts {
    /// Datagrams that the system dropped because a socket was full.
    fn socket_drops(&self) -> u64 {
        let ports = self.ports.get().map_or(&[][..], Vec::as_slice);
        super::exports::socket_drops(ports)
    }
}

/// A row of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) sequence: u64,
    /// ns since 1970.
    pub(super) ts: u64,
    pub(super) values: Vec<f64>,
}

/// Rows that something was found in.
pub(super) enum Rows {
    /// Of one key of one stream.
    Series(Vec<Row>),
    /// Of one key and several streams, as a JSON array.
    Several(String),
}

impl Rows {
    fn is_empty(&self) -> bool {
        match self {
            Self::Series(rows) => rows.is_empty(),
            Self::Several(text) => text.is_empty(),
        }
    }
}

/// An alert as it is shown, and the flows behind it.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) episode: Arc<Episode>,
    pub(super) flows: Arc<[FlowRecord]>,
}

/// What is shown.
#[derive(Default)]
struct Shown {
    episodes: BTreeMap<EpisodeId, Kept>,
    /// Those with flows, oldest first.
    evidence: VecDeque<EpisodeId>,
    /// Rows of the streams that alerts were found in, by alert and oldest first.
    rows: BTreeMap<EpisodeId, Arc<Rows>>,
    rows_order: VecDeque<EpisodeId>,
    /// The state but for its episodes.
    rest: Arc<State>,
    open: [u64; 3],
    problem: Option<String>,
    revision: u64,
}

/// What all threads share.
pub(crate) struct Board {
    shown: Mutex<Shown>,
    talkers: Mutex<Talkers>,
    notes: Mutex<VecDeque<String>>,
    news: broadcast::Sender<Arc<AlertNews>>,
    to_desk: SyncSender<ToDesk>,
    pub(super) counts: Counts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(super) fn new(to_desk: SyncSender<ToDesk>) -> Self {
        Self {
            shown: Mutex::default(),
            talkers: Mutex::default(),
            notes: Mutex::default(),
            news: broadcast::Sender::new(NEWS_MAX),
            to_desk,
            counts: Counts::default(),
        }
    }

    /// Says something to people, soon.
    pub(super) fn note(&self, text: String) {
        let mut notes = lock(&self.notes);
        if notes.len() < NOTES_MAX {
            notes.push_back(text);
        }
    }

    /// What is to be said since the last call.
    pub(crate) fn notes(&self) -> Vec<String> {
        lock(&self.notes).drain(..).collect()
    }

    /// Takes flows that have ended.
    pub(super) fn talked(&self, flows: &mut Vec<FlowRecord>) {
        if flows.is_empty() {
            return;
        }
        self.counts.flows.fetch_add(flows.len() as u64, Relaxed);
        let mut talkers = lock(&self.talkers);
        flows.drain(..).for_each(|flow| talkers.take(&flow));
    }

    /// Shows alerts as they are now, all there are if `whole`, and what else the state says.
    pub(super) fn show_all<'a>(
        &self,
        state: &State,
        episodes: impl Iterator<Item = &'a Episode>,
        whole: bool,
        problem: Option<String>,
    ) {
        let episodes: Vec<Arc<Episode>> = episodes.map(|episode| Arc::new(episode.clone())).collect();
        let evidence: Vec<Vec<FlowRecord>> = {
            let talkers = lock(&self.talkers);
            episodes.iter().map(|episode| behind(episode, &talkers)).collect()
        };
        let rest = State {
            inputs: state.inputs.clone(),
            quiets: state.quiets.clone(),
            calibrations: state.calibrations.clone(),
            held: state.held.clone(),
            number_max: state.number_max,
            forgotten: state.forgotten,
            ..State::default()
        };
        let mut shown = lock(&self.shown);
        let shown = &mut *shown;
        if whole || !episodes.is_empty() || *shown.rest != rest || shown.problem != problem {
            shown.revision += 1;
        }
        (shown.rest, shown.problem) = (Arc::new(rest), problem);
        let before = if whole { std::mem::take(&mut shown.episodes) } else { BTreeMap::new() };
        for (episode, found) in episodes.into_iter().zip(evidence) {
            let id = episode.id;
            let known = shown.episodes.get(&id).or_else(|| before.get(&id));
            let old = known.map(|kept| Arc::clone(&kept.flows)).unwrap_or_default();
            // As long as it goes on the newest are the best; later its host's flows are about other things.
            let flows = if found.len() >= old.len() && !found.is_empty() { found.into() } else { old };
            if !flows.is_empty() && !shown.evidence.contains(&id) {
                shown.evidence.push_back(id);
            }
            shown.episodes.insert(id, Kept { episode, flows });
        }
        if shown.episodes.len() > state.episodes.len() && shown.problem.is_none() {
            shown.episodes.retain(|id, _| state.episodes.contains_key(id));
        }
        while shown.evidence.len() > EVIDENCE_MAX {
            if let Some(kept) = shown.evidence.pop_front().and_then(|id| shown.episodes.get_mut(&id)) {
                kept.flows = Arc::default();
            }
        }
        let count = |severity: Severity| {
            let open = |kept: &&Kept| kept.episode.severity == severity && list::is_open(&kept.episode);
            shown.episodes.values().filter(open).count() as u64
        };
        shown.open = Severity::ALL.map(count);
    }

    /// Remembers the rows that an alert was found in: the first, which have what came before.
    pub(super) fn rows_behind(&self, id: EpisodeId, rows: Rows) {
        let mut shown = lock(&self.shown);
        if rows.is_empty() || shown.rows.contains_key(&id) {
            return;
        }
        shown.rows.insert(id, Arc::new(rows));
        shown.rows_order.push_back(id);
        while shown.rows_order.len() > EVIDENCE_MAX {
            let oldest = shown.rows_order.pop_front();
            oldest.and_then(|id| shown.rows.remove(&id));
        }
    }

    /// Tells subscribers.
    pub(super) fn tell(&self, episode: &Episode, event: &'static str) {
        // Nobody may listen.
        let _ = self.news.send(Arc::new(news(episode, event)));
    }

    fn kept(&self, id: &str) -> Result<Kept, AlertError> {
        crate::alert::act::is_name(id).map_err(refused)?;
        let text = id.to_ascii_lowercase();
        let shown = lock(&self.shown);
        let mut found = shown.episodes.values().filter(|kept| kept.episode.id.to_string().starts_with(&text));
        match (found.next(), found.next()) {
            (Some(kept), None) => Ok(kept.clone()),
            (None, _) => Err(AlertError::Unknown(format!(
                "there is no alert `{id}`; GET /v1/alerts?state=all lists them"
            ))),
            (Some(first), Some(second)) => Err(AlertError::Bad(format!(
                "`{id}` is the beginning of several alerts: {}, {}…; write more of it",
                first.episode.id, second.episode.id
            ))),
        }
    }
}

/// The flows of the accused, or of the peer where the accused is no address, since the evidence began; those of the port or peer that the
/// alert is about where there are such.
fn behind(episode: &Episode, talkers: &Talkers) -> Vec<FlowRecord> {
    let address =
        talkers::address(&episode.entity).or_else(|| episode.peer.as_deref().and_then(talkers::address));
    let Some(address) = address else { return Vec::new() };
    let from = episode.range.first_ts.min(episode.first_ts);
    let all: Vec<FlowRecord> =
        talkers.flows_of(address).filter(|flow| flow.last_ns >= from).copied().collect();
    let peer = episode.peer.as_deref().and_then(talkers::address);
    let fits = |flow: &&FlowRecord| {
        episode.port.is_some_and(|port| flow.responder_port == port)
            || peer.is_some_and(|peer| flow.originator == peer || flow.responder == peer)
    };
    let close: Vec<FlowRecord> = all.iter().filter(fits).copied().collect();
    if close.is_empty() { all } else { close }
}

/// A row as JSON; what is not defined is null.
fn row(row: &Row) -> Value {
    json!({"seq": row.sequence, "ts": row.ts.to_string(), "values": row.values})
}

fn news(episode: &Episode, event: &'static str) -> AlertNews {
    let mut value = episode.document();
    value["event"] = event.into();
    AlertNews { event, entity: episode.entity.clone(), json: value.to_string() }
}

pub(super) fn refused(error: ActError) -> AlertError {
    match error {
        ActError::Unknown(text) => AlertError::Unknown(text),
        ActError::Bad(text) => AlertError::Bad(text),
    }
}

impl Alerts for Board {
    fn list(&self, filter: &AlertFilter, visible: &Visible) -> Result<Value, AlertError> {
        let bad = |error: String| AlertError::Bad(error);
        let entity = filter.entity.as_deref().map(str::parse::<Target>).transpose();
        let entity = entity.map_err(|error| bad(error.to_string()))?;
        let severity = |text: &String| {
            let known = Severity::ALL.into_iter().find(|severity| severity.name() == text);
            known.ok_or_else(|| bad(format!("`{text}` is no severity: low, medium or high")))
        };
        let min_severity = filter.min_severity.as_ref().map(severity).transpose()?;
        let wanted = Wanted {
            all: filter.state == AlertState::All,
            held: filter.state == AlertState::Held,
            min_severity: min_severity.unwrap_or(Severity::Low),
            kind: filter.kind.as_deref(),
            entity: entity.as_ref(),
        };
        let (mut episodes, rest): (Vec<Arc<Episode>>, _) = {
            let shown = lock(&self.shown);
            let episodes = shown.episodes.values().map(|kept| &kept.episode);
            let episodes = episodes.filter(|episode| wanted.takes(episode)).cloned();
            (episodes.collect(), Arc::clone(&shown.rest))
        };
        episodes.retain(|episode| visible(&episode.entity));
        episodes.sort_by(|a, b| list::order(a, b));
        let total = episodes.len();
        episodes.truncate(filter.limit);
        let mut value = list::document(&rest, episodes.iter().map(|episode| &**episode));
        value["total"] = total.into();
        // Names of entities say something too.
        for (part, name) in [("quiets", "entity"), ("calibrations", "entity")] {
            if let Some(rows) = value[part].as_array_mut() {
                rows.retain(|row| visible(row[name].as_str().unwrap_or_default()));
            }
        }
        Ok(value)
    }

    fn find(&self, id: &str) -> Result<(String, String), AlertError> {
        let kept = self.kept(id)?;
        Ok((kept.episode.id.to_string(), kept.episode.entity.clone()))
    }

    fn show(&self, id: &str) -> Result<Value, AlertError> {
        let Kept { episode, flows } = self.kept(id)?;
        let (rest, rows) = {
            let shown = lock(&self.shown);
            (Arc::clone(&shown.rest), shown.rows.get(&episode.id).cloned())
        };
        let input = episode.proof.as_ref().and_then(|proof| rest.inputs.get(&proof.input));
        let mut value = episode.document();
        value["input"] = serde_json::to_value(input).unwrap_or_default();
        let why = crate::alert::replay::why_not(&episode, input);
        value["replay"] = match why {
            None => format!("tidegate alert replay {}", episode.id).into(),
            Some(_) => Value::Null,
        };
        value["no_replay"] = why.into();
        let series = || match rows.as_deref() {
            Some(Rows::Series(rows)) => rows.iter().map(row).collect(),
            _ => Vec::new(),
        };
        value["series"] = match super::streams::is_of_stream(&episode.kind) {
            true => json!({"stream": episode.method, "key": episode.entity, "rows": series()}),
            false => Value::Null,
        };
        value["rows"] = match rows.as_deref() {
            Some(Rows::Several(text)) => serde_json::from_str(text).unwrap_or_default(),
            _ => Value::Null,
        };
        let calibration = rest.calibrations.get(&episode.id);
        value["required"] = calibration.map_or(Value::Null, |of| of.required.into());
        value["flows"] = flows.iter().map(|flow| crate::flows::to_json(flow, None)).collect();
        Ok(value)
    }

    fn act(&self, verb: AlertVerb, body: Value) -> Acting {
        let act = match verb {
            AlertVerb::Ack(id) => read(body).map(|words| Act::Ack { id, words }),
            AlertVerb::FalsePositive(id) => read(body).map(|words| Act::FalsePositive { id, words }),
            AlertVerb::Suppress(id) => read(body).map(|span| Act::Suppress { id, span }),
            AlertVerb::Quiet => quiet_of(body),
            AlertVerb::Lift(number) => {
                let empty = body.as_object().is_none_or(serde_json::Map::is_empty);
                if empty {
                    Ok(Act::Lift { number })
                } else {
                    Err(ActError::Bad("nothing is to be said with it".to_owned()))
                }
            }
        };
        let act = match act {
            Ok(act) => act,
            Err(error) => return Box::pin(std::future::ready(Err(refused(error)))),
        };
        let (reply, answer) = tokio::sync::oneshot::channel();
        let sent = self.to_desk.try_send(ToDesk::Act { act, reply });
        Box::pin(async move {
            match sent {
                Ok(()) => answer.await.unwrap_or(Err(AlertError::Busy)),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(AlertError::Busy),
            }
        })
    }

    fn news(&self) -> (Vec<Arc<AlertNews>>, broadcast::Receiver<Arc<AlertNews>>) {
        // Listened to first: what comes meanwhile is told twice rather than not at all.
        let receiver = self.news.subscribe();
        let episodes: Vec<Arc<Episode>> = {
            let shown = lock(&self.shown);
            let open = shown.episodes.values().filter(|kept| list::is_open(&kept.episode));
            open.map(|kept| Arc::clone(&kept.episode)).collect()
        };
        (episodes.iter().map(|episode| Arc::new(news(episode, "update"))).collect(), receiver)
    }

    fn traffic(&self, host: Option<&str>, limit: usize, visible: &Visible) -> Result<Value, AlertError> {
        let around = host
            .map(|text| {
                talkers::address(text)
                    .ok_or_else(|| AlertError::Bad(format!("`{text}` is no address of a host")))
            })
            .transpose()?;
        let mut accused: HashMap<String, u64> = HashMap::new();
        for kept in lock(&self.shown).episodes.values().filter(|kept| list::is_open(&kept.episode)) {
            *accused.entry(kept.episode.entity.clone()).or_default() += 1;
        }
        let talkers = lock(&self.talkers);
        let picture = talkers.picture(around, limit, &accused, &**visible);
        let Some(mut picture) = picture else {
            return Err(AlertError::Unknown(format!(
                "nothing was seen of {} since this start, or it was long ago",
                host.unwrap_or_default()
            )));
        };
        if let Some(around) = around {
            let flows: Vec<Value> =
                talkers.flows_of(around).map(|flow| crate::flows::to_json(flow, None)).collect();
            picture["recent"] = flows.into();
        }
        Ok(picture)
    }

    fn counts(&self) -> AlertCounts {
        let of = &self.counts;
        let get = |count: &AtomicU64| count.load(Relaxed);
        let (open, kept, problem, revision) = {
            let shown = lock(&self.shown);
            (shown.open, shown.episodes.len() as u64, shown.problem.clone(), shown.revision)
        };
        AlertCounts {
            revision,
            findings: get(&of.findings),
            told: [get(&of.new), get(&of.worse)],
            held: Hold::ALL.iter().zip(&of.held).map(|(hold, count)| (hold.name(), get(count))).collect(),
            open: Severity::ALL.iter().zip(open).map(|(severity, count)| (severity.name(), count)).collect(),
            kept,
            forgotten: get(&of.forgotten),
            datagrams: get(&of.datagrams),
            packets: get(&of.packets),
            flows: get(&of.flows),
            queues: vec![
                (
                    "datagrams",
                    get(&of.datagrams)
                        .saturating_sub(get(&of.datagrams_dropped))
                        .saturating_sub(get(&of.datagrams_taken)),
                    crate::collect::QUEUE_MAX as u64,
                ),
                ("sinks", get(&of.to_sinks).saturating_sub(get(&of.from_sinks)), get(&of.sinks_room)),
            ],
            dropped: vec![
                ("socket", self.counts.socket_drops()),
                ("datagrams", get(&of.datagrams_dropped)),
                ("packets", get(&of.packets_dropped)),
                ("findings", get(&of.unheard)),
                ("records", get(&of.records_lost)),
                ("matches", get(&of.rules_forgotten)),
                ("sends", get(&of.unsent)),
            ],
            sent: get(&of.sent),
            problem,
        }
    }
}
