//! Alerts, as whoever keeps them tells of them: what is asked, what is answered, and who may.
//!
//! The gateway knows neither detectors nor what an alert says: documents pass through. Whoever keeps them answers from memory, and
//! takes what operators say through a queue of its own; nothing here waits on a disk. Questions are answered beside the
//! runtime's own threads, a few at a time, since on a small machine those are the ones that compute.

use crate::admit::Pass;
use crate::body::json;
use crate::error::{ApiError, echo};
use crate::query::Query;
use crate::record::quote;
use crate::rest::PAGE_MAX;
use crate::server::Shared;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use serde_json::{Value, json as document};
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use tidegate_proto::Grant;
use tidegate_proto::access::{Symbols, Verb};
use tokio::sync::broadcast;

/// The stream's name in rules and subscriptions.
pub(crate) const STREAM: &str = "alerts";
/// Questions answered at once.
pub(crate) const QUESTIONS_MAX: usize = 4;
/// Longest document that an operator sends.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Hosts of a picture at most, and usually.
const HOSTS: (usize, usize) = (200, 40);

/// Which alerts are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// `open`, `all` or `held`.
    pub state: AlertState,
    /// `low`, `medium` or `high`: less severe ones are left out.
    pub min_severity: Option<String>,
    /// Of this kind alone.
    pub kind: Option<String>,
    /// By this entity alone: an address, a network or a name.
    pub entity: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Which alerts by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AlertState {
    /// Told, and nobody has said anything to them.
    #[default]
    Open,
    /// All there are.
    All,
    /// Told to nobody.
    Held,
}

/// What an operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertVerb {
    /// Somebody has seen this alert.
    Ack(String),
    /// It was none.
    FalsePositive(String),
    /// Not to hear of the same for a while.
    Suppress(String),
    /// A suppression or maintenance window.
    Quiet,
    /// The end of a suppression or window.
    Lift(u32),
}

/// Why there is no answer about alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertError {
    /// There is no such alert, suppression or window.
    Unknown(String),
    /// What was said makes no sense.
    Bad(String),
    /// Too much waits to be kept.
    Busy,
    /// It could not be written down.
    NotKept(String),
}

/// An alert that is new, has become worse, or has changed.
#[derive(Debug)]
pub struct AlertNews {
    /// `new`, `worse`, or `update`.
    pub event: &'static str,
    /// Who is accused.
    pub entity: String,
    /// The alert with its `event`, as JSON.
    pub json: String,
}

/// Counters of whoever keeps alerts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlertCounts {
    /// Goes up when anything of the alerts changes, also where no other count here does: when one is acknowledged and opened again, say.
    pub revision: u64,
    /// What detectors, rules and streams said.
    pub findings: u64,
    /// Alerts told as new, and told again as worse.
    pub told: [u64; 2],
    /// Findings held back, by reason.
    pub held: Vec<(&'static str, u64)>,
    /// Open alerts by severity.
    pub open: Vec<(&'static str, u64)>,
    /// Alerts kept, whatever became of them.
    pub kept: u64,
    /// Alerts forgotten for lack of room.
    pub forgotten: u64,
    /// Datagrams of exporters that came.
    pub datagrams: u64,
    /// Packets that were taken off an interface.
    pub packets: u64,
    /// Flows that detectors were given.
    pub flows: u64,
    /// Waiting, by queue, and how much fits.
    pub queues: Vec<(&'static str, u64, u64)>,
    /// Dropped for lack of room, or lost on the way, by what.
    pub dropped: Vec<(&'static str, u64)>,
    /// Sent on by sinks.
    pub sent: u64,
    /// Why alerts are not written down at present.
    pub problem: Option<String>,
}

/// Whether what concerns an entity may be seen.
pub type Visible = Arc<dyn Fn(&str) -> bool + Send + Sync>;
/// What an operator is answered, later.
pub type Acting = Pin<Box<dyn Future<Output = Result<Value, AlertError>> + Send>>;

/// Whoever keeps the alerts of a node. Answers come from memory.
pub trait Alerts: Send + Sync {
    /// The alerts that are wanted, worst first, and what operators said.
    ///
    /// # Errors
    /// [`AlertError::Bad`] for a filter that makes no sense.
    fn list(&self, filter: &AlertFilter, visible: &Visible) -> Result<Value, AlertError>;
    /// The name of an alert, of which the first digits are enough, and who is accused.
    ///
    /// # Errors
    /// When there is none, or several.
    fn find(&self, id: &str) -> Result<(String, String), AlertError>;
    /// Everything about an alert: itself, its input, the flows behind it.
    ///
    /// # Errors
    /// As [`Alerts::find`].
    fn show(&self, id: &str) -> Result<Value, AlertError>;
    /// Takes what an operator says.
    fn act(&self, verb: AlertVerb, body: Value) -> Acting;
    /// The alerts told so far that are open, and all that change from now on.
    fn news(&self) -> (Vec<Arc<AlertNews>>, broadcast::Receiver<Arc<AlertNews>>);
    /// Who talks to whom, of so many hosts; around one host if one is named.
    ///
    /// # Errors
    /// [`AlertError::Bad`] when that is no address, [`AlertError::Unknown`] when nothing is known of it.
    fn traffic(&self, host: Option<&str>, limit: usize, visible: &Visible) -> Result<Value, AlertError>;
    /// Its counters.
    fn counts(&self) -> AlertCounts;
}

impl From<AlertError> for ApiError {
    fn from(error: AlertError) -> Self {
        match error {
            AlertError::Unknown(message) => Self::new(StatusCode::NOT_FOUND, "unknown_alert", message),
            AlertError::Bad(message) => Self::bad("bad_value", message),
            AlertError::Busy => Self::busy("more waits to be kept than fits"),
            AlertError::NotKept(message) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_kept", message),
        }
    }
}

type Answer = Result<Response<Body>, ApiError>;

pub(crate) fn routes(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
        .route("/v1/alerts", get(list))
        .route("/v1/alerts/quiets", post(quiet))
        .route("/v1/alerts/quiets/{number}/lift", post(lift))
        .route("/v1/alerts/{id}", get(show))
        .route("/v1/alerts/{id}/ack", post(ack))
        .route("/v1/alerts/{id}/false-positive", post(false_positive))
        .route("/v1/alerts/{id}/suppress", post(suppress))
        .route("/v1/traffic", get(traffic))
}

/// The route of a path below `/v1/alerts`, and whether it takes a document.
pub(crate) fn route(path: &str) -> Option<(&'static str, bool)> {
    let rest = path.strip_prefix("/v1/alerts/")?;
    let mut parts = rest.split('/');
    Some(match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("quiets", None, ..) => ("/v1/alerts/quiets", true),
        ("quiets", Some(_), Some("lift"), None) => ("/v1/alerts/quiets/{number}/lift", true),
        (_, Some("ack"), None, _) => ("/v1/alerts/{id}/ack", true),
        (_, Some("false-positive"), None, _) => ("/v1/alerts/{id}/false-positive", true),
        (_, Some("suppress"), None, _) => ("/v1/alerts/{id}/suppress", true),
        (_, None, ..) => ("/v1/alerts/{id}", false),
        _ => return None,
    })
}

impl Shared {
    /// Whoever keeps the alerts.
    pub(crate) fn alerts(&self) -> Result<Arc<dyn Alerts>, ApiError> {
        self.sources.alerts.clone().ok_or_else(|| {
            let message = "nothing here looks for anything: no detector runs on this server";
            ApiError::conflict("no_alerts", message)
        })
    }

    /// Asks beside the runtime's threads.
    async fn about_alerts<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Alerts) -> Result<T, AlertError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let alerts = self.alerts()?;
        let permit = Arc::clone(&self.alert_questions).acquire_owned();
        let permit = tokio::time::timeout(self.options.answer_timeout, permit).await;
        let Ok(Ok(permit)) = permit else {
            return Err(ApiError::busy("too many questions about alerts at once"));
        };
        let asked = tokio::task::spawn_blocking(move || {
            let answer = question(&*alerts);
            drop(permit);
            answer
        });
        match asked.await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a bug of the server"))
            }
        }
    }
}

/// What of the alerts somebody may see.
pub(crate) fn visible(grant: &Grant) -> Result<Visible, ApiError> {
    if grant.allows(Verb::Subscribe, STREAM, Symbols::All) {
        return Ok(Arc::new(|_| true));
    }
    if !grant.allows_some(Verb::Subscribe, STREAM) {
        grant.check(Verb::Subscribe, STREAM, Symbols::All).map_err(ApiError::forbidden)?;
    }
    let grant = grant.clone();
    Ok(Arc::new(move |entity| grant.allows(Verb::Subscribe, STREAM, Symbols::Name(entity))))
}

async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["state", "min_severity", "kind", "entity", "limit"])?;
    let visible = visible(&pass.grant)?;
    let text = |name| query.text(name).map(str::to_owned);
    let wrong = |name: &str, text: &str, allowed: &[&str]| {
        ApiError::bad("bad_value", format!("`{name}` is `{}`", echo(text))).allowed(allowed)
    };
    let state = match query.text("state") {
        None | Some("open") => AlertState::Open,
        Some("all") => AlertState::All,
        Some("held") => AlertState::Held,
        Some(other) => return Err(wrong("state", other, &["open", "all", "held"])),
    };
    if let Some(severity) = query.text("min_severity")
        && !["low", "medium", "high"].contains(&severity)
    {
        return Err(wrong("min_severity", severity, &["low", "medium", "high"]));
    }
    let filter = AlertFilter {
        state,
        min_severity: text("min_severity"),
        kind: text("kind"),
        entity: text("entity"),
        limit: query.count("limit", 200, 1, PAGE_MAX)?,
    };
    let value = shared.about_alerts(move |alerts| alerts.list(&filter, &visible)).await?;
    json(&shared, value.to_string()).await
}

async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::parse(query.as_deref(), &[])?;
    let visible = visible(&pass.grant)?;
    let value = shared
        .about_alerts(move |alerts| {
            let (id, entity) = alerts.find(&id)?;
            // What may not be seen is not there.
            if visible(&entity) {
                alerts.show(&id)
            } else {
                Err(AlertError::Unknown(format!("there is no alert `{id}`")))
            }
        })
        .await?;
    json(&shared, value.to_string()).await
}

async fn traffic(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["host", "limit"])?;
    let visible = visible(&pass.grant)?;
    let host = query.text("host").map(str::to_owned);
    let limit = query.count("limit", HOSTS.1, 1, HOSTS.0)?;
    let value = shared.about_alerts(move |alerts| alerts.traffic(host.as_deref(), limit, &visible)).await?;
    json(&shared, value.to_string()).await
}

async fn ack(state: State<Arc<Shared>>, pass: Extension<Pass>, Path(id): Path<String>, body: Body) -> Answer {
    of_one(state, pass, id, AlertVerb::Ack, body).await
}

async fn false_positive(
    state: State<Arc<Shared>>,
    pass: Extension<Pass>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    of_one(state, pass, id, AlertVerb::FalsePositive, body).await
}

async fn suppress(
    state: State<Arc<Shared>>,
    pass: Extension<Pass>,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    of_one(state, pass, id, AlertVerb::Suppress, body).await
}

/// Something said to one alert: by who may `admin` it.
async fn of_one(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    id: String,
    verb: fn(String) -> AlertVerb,
    body: Body,
) -> Answer {
    if !pass.grant.allows_some(Verb::Admin, STREAM) {
        pass.grant.check(Verb::Admin, STREAM, Symbols::All).map_err(ApiError::forbidden)?;
    }
    let (id, entity) = shared.about_alerts(move |alerts| alerts.find(&id)).await?;
    pass.grant.check(Verb::Admin, STREAM, Symbols::Name(&entity)).map_err(ApiError::forbidden)?;
    act(&shared, verb(id), body).await
}

async fn quiet(State(shared): State<Arc<Shared>>, Extension(pass): Extension<Pass>, body: Body) -> Answer {
    pass.grant.check(Verb::Admin, STREAM, Symbols::All).map_err(ApiError::forbidden)?;
    act(&shared, AlertVerb::Quiet, body).await
}

async fn lift(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    Path(number): Path<String>,
    body: Body,
) -> Answer {
    pass.grant.check(Verb::Admin, STREAM, Symbols::All).map_err(ApiError::forbidden)?;
    let number = number.parse().map_err(|_| {
        ApiError::bad("bad_value", format!("`{}` is no number of a suppression or window", echo(&number)))
    })?;
    act(&shared, AlertVerb::Lift(number), body).await
}

async fn act(shared: &Arc<Shared>, verb: AlertVerb, body: Body) -> Answer {
    let alerts = shared.alerts()?;
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    let bytes = match tokio::time::timeout(shared.options.head_timeout, read).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!("a document has at most {BODY_BYTES_MAX} bytes here");
            let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
            return Err(error.allowed([BODY_BYTES_MAX]));
        }
        Err(_) => return Err(ApiError::bad("bad_json", "the document did not come in time")),
    };
    let body: Value = if bytes.is_empty() {
        document!({})
    } else {
        serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad("bad_json", format!("this is no JSON: {error}")))?
    };
    if !body.is_object() {
        return Err(ApiError::bad("bad_json", "what is said is a JSON object, such as {\"note\":\"seen\"}"));
    }
    match tokio::time::timeout(shared.options.answer_timeout, alerts.act(verb, body)).await {
        Ok(answer) => json(shared, answer?.to_string()).await,
        Err(_) => Err(ApiError::busy("the alerts' keeper does not answer")),
    }
}

/// A subscription to alerts: those that are open, if they are wanted, and those that change.
pub(crate) struct Following {
    past: std::vec::IntoIter<Arc<AlertNews>>,
    live: Option<broadcast::Receiver<Arc<AlertNews>>>,
    told_live: bool,
    visible: Visible,
}

/// What a subscription to alerts has.
pub(crate) enum Followed {
    /// An alert; whether it is from before the subscription.
    Alert { news: Arc<AlertNews>, past: bool },
    /// What is new begins.
    Live,
    /// So many were missed.
    Lost(u64),
    /// There will be no more.
    Ended,
}

impl Following {
    pub(crate) fn new(alerts: &dyn Alerts, snapshot: bool, visible: Visible) -> Self {
        let (past, live) = alerts.news();
        let past = if snapshot { past } else { Vec::new() };
        Self { past: past.into_iter(), live: Some(live), told_live: false, visible }
    }

    /// Somebody else's rights apply from now on.
    pub(crate) fn see(&mut self, visible: Visible) {
        self.visible = visible;
    }

    /// The next thing. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Followed {
        loop {
            if let Some(news) = self.past.next() {
                if (self.visible)(&news.entity) {
                    return Followed::Alert { news, past: true };
                }
                continue;
            }
            if !self.told_live {
                self.told_live = true;
                return Followed::Live;
            }
            let Some(live) = &mut self.live else { return std::future::pending().await };
            match live.recv().await {
                Ok(news) if (self.visible)(&news.entity) => return Followed::Alert { news, past: false },
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => return Followed::Lost(count),
                Err(broadcast::error::RecvError::Closed) => {
                    self.live = None;
                    return Followed::Ended;
                }
            }
        }
    }
}

/// The part of the status; `null` where nobody looks for anything.
pub(crate) fn status(shared: &Shared) -> Value {
    let Some(alerts) = &shared.sources.alerts else { return Value::Null };
    let of = alerts.counts();
    let map = |pairs: &[(&'static str, u64)]| -> Value {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), Value::from(*count))).collect()
    };
    let queues: Value = of
        .queues
        .iter()
        .map(|(name, depth, room)| ((*name).to_owned(), document!({"depth": depth, "capacity": room})))
        .collect();
    document!({
        "revision": of.revision, "findings": of.findings, "told": {"new": of.told[0], "worse": of.told[1]}, "held": map(&of.held), "open": map(&of.open),
        "kept": of.kept, "forgotten": of.forgotten, "datagrams": of.datagrams, "packets": of.packets, "flows": of.flows, "queues": queues,
        "dropped": map(&of.dropped), "sent": of.sent, "problem": of.problem,
    })
}

/// The counters.
pub(crate) fn publish(shared: &Shared) {
    use metrics::{counter, gauge};
    let Some(alerts) = &shared.sources.alerts else { return };
    let of = alerts.counts();
    counter!("tidegate_alerts_findings_total").absolute(of.findings);
    counter!("tidegate_alerts_told_total", "event" => "new").absolute(of.told[0]);
    counter!("tidegate_alerts_told_total", "event" => "worse").absolute(of.told[1]);
    for (reason, count) in of.held {
        counter!("tidegate_alerts_held_total", "reason" => reason).absolute(count);
    }
    for (severity, count) in of.open {
        gauge!("tidegate_alerts_open", "severity" => severity).set(count as f64);
    }
    gauge!("tidegate_alerts_kept").set(of.kept as f64);
    counter!("tidegate_alerts_forgotten_total").absolute(of.forgotten);
    counter!("tidegate_alerts_datagrams_total").absolute(of.datagrams);
    counter!("tidegate_alerts_packets_total").absolute(of.packets);
    counter!("tidegate_alerts_flows_total").absolute(of.flows);
    for (queue, depth, room) in of.queues {
        gauge!("tidegate_alerts_queue_depth", "queue" => queue).set(depth as f64);
        gauge!("tidegate_alerts_queue_capacity", "queue" => queue).set(room as f64);
    }
    for (what, count) in of.dropped {
        counter!("tidegate_alerts_dropped_total", "what" => what).absolute(count);
    }
    counter!("tidegate_alerts_sent_total").absolute(of.sent);
    gauge!("tidegate_alerts_problem").set(f64::from(u8::from(of.problem.is_some())));
}

/// Their meaning.
pub(crate) fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!("tidegate_alerts_findings_total", "What detectors, rules and streams said.");
    describe_counter!("tidegate_alerts_told_total", "Alerts told, as new or as worse.");
    describe_counter!("tidegate_alerts_held_total", "Findings held back, by reason.");
    describe_gauge!("tidegate_alerts_open", "Alerts that were told and nobody has said anything to.");
    describe_gauge!("tidegate_alerts_kept", "Alerts kept, whatever became of them.");
    describe_counter!("tidegate_alerts_forgotten_total", "Alerts forgotten for lack of room.");
    describe_counter!("tidegate_alerts_datagrams_total", "Datagrams of exporters that came.");
    describe_counter!("tidegate_alerts_packets_total", "Packets taken off an interface.");
    describe_counter!("tidegate_alerts_flows_total", "Flows that detectors were given.");
    describe_gauge!(
        "tidegate_alerts_queue_depth",
        "What waits on its way to the detectors, the store or a sink."
    );
    describe_gauge!("tidegate_alerts_queue_capacity", "What fits there.");
    describe_counter!(
        "tidegate_alerts_dropped_total",
        "What was dropped for lack of room or lost on the way."
    );
    describe_counter!("tidegate_alerts_sent_total", "Alerts that sinks sent on.");
    describe_gauge!("tidegate_alerts_problem", "1 while alerts cannot be written down.");
}

/// What a subscription to alerts has, as an event of `/v1/sse`.
pub(crate) fn event(followed: &Followed, out: &mut String) {
    let _ = match followed {
        Followed::Alert { news, .. } => write!(out, "event: alert\ndata: {}\n\n", news.json),
        Followed::Live => write!(out, "event: live\ndata: {{\"stream\":\"{STREAM}\"}}\n\n"),
        Followed::Lost(count) => write!(
            out,
            "event: loss\ndata: {{\"stream\":\"{STREAM}\",\"count\":{count},\"cause\":\"dropped\",\"exact\":true}}\n\n"
        ),
        Followed::Ended => {
            let message = quote("there will be no more alerts");
            write!(out, "event: closed\ndata: {{\"code\":\"shutting_down\",\"message\":{message}}}\n\n")
        }
    };
}

/// The same as a message of a WebSocket.
pub(crate) fn message(id: u64, followed: &Followed) -> String {
    match followed {
        Followed::Alert { news, past } => {
            let past = if *past { ",\"past\":true" } else { "" };
            format!("{{\"op\":\"data\",\"id\":{id}{past},\"records\":[{}]}}", news.json)
        }
        Followed::Live => format!("{{\"op\":\"live\",\"id\":{id},\"stream\":\"{STREAM}\"}}"),
        Followed::Lost(count) => format!(
            "{{\"op\":\"loss\",\"id\":{id},\"stream\":\"{STREAM}\",\"count\":{count},\"cause\":\"dropped\",\"exact\":true}}"
        ),
        Followed::Ended => {
            format!(
                "{{\"op\":\"closed\",\"id\":{id},\"code\":\"shutting_down\",\"message\":\"there will be no more alerts\"}}"
            )
        }
    }
}
