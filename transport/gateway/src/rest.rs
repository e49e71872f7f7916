//! The routes, and the questions that one answer settles.

use crate::admit::Pass;
use crate::body::{answer, json};
use crate::error::{ApiError, echo};
use crate::query::Query;
use crate::record::{StreamView, quote, write_record};
use crate::server::{Connection, Shared};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::Output;
use tidegate_proto::access::{Symbols, Verb};
use tidegate_proto::hub::{Hub, KeyInfo, KeySearch};
use tidegate_proto::{Grant, MonoTime};

/// Every route there is, for metrics and documentation.
pub(crate) const ROUTES: [&str; 24] = [
    "/v1/streams",
    "/v1/keys",
    "/v1/latest",
    "/v1/bars",
    "/v1/status",
    "/v1/cluster",
    "/v1/explain",
    "/v1/health",
    "/v1/ready",
    "/v1/sse",
    "/v1/arrow",
    "/v1/ws",
    "/v1/alerts",
    "/v1/alerts/{id}",
    "/v1/alerts/{id}/ack",
    "/v1/alerts/{id}/false-positive",
    "/v1/alerts/{id}/suppress",
    "/v1/alerts/quiets",
    "/v1/alerts/quiets/{number}/lift",
    "/v1/traffic",
    "/v1/openapi.json",
    "/v1/docs",
    "/metrics",
    "/",
];

/// Most keys or records of one page.
pub(crate) const PAGE_MAX: usize = 1_000;
/// Most records of one key in one answer.
pub(crate) const BARS_MAX: usize = 5_000;
/// Most keys looked at for one page: those that have no record in the stream count too.
const LOOKED_AT_MAX: usize = 10_000;
/// Keys looked at in one step behind the first.
const STEP: usize = 256;
/// How long the hub may take to answer. It is busy with results first.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

type Answer = Result<Response<Body>, ApiError>;

/// The route of a path, for counters: a bounded set, whatever is asked for.
pub(crate) fn route_label(path: &str) -> &'static str {
    let alerts = || crate::alerts::route(path).map(|(route, _)| route);
    ROUTES.into_iter().find(|route| *route == path).or_else(alerts).unwrap_or("other")
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    crate::alerts::routes(Router::new())
        .route("/v1/streams", get(streams))
        .route("/v1/keys", get(keys))
        .route("/v1/latest", get(latest))
        .route("/v1/bars", get(bars))
        .route("/v1/status", get(status))
        .route("/v1/cluster", get(cluster))
        .route("/v1/explain", get(explain))
        .route("/v1/health", get(health))
        .route("/v1/ready", get(ready))
        .route("/v1/sse", get(sse))
        .route("/v1/arrow", get(arrow))
        .route("/v1/ws", get(crate::ws::upgrade))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/docs", get(docs))
        .route("/v1/docs.js", get(docs_script))
        .route("/metrics", get(metrics))
        .fallback(file)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&shared), crate::guard::guard))
        .with_state(shared)
}

async fn method_not_allowed() -> ApiError {
    let message = "GET and HEAD are answered here, and POST where an operator says something to alerts";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        .allowed(["GET", "HEAD", "POST"])
}

impl Shared {
    /// Asks the hub, within a time.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Hub, MonoTime) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(ASK_TIMEOUT, self.sources.hub.ask(question)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ApiError::busy("the server is busy with results")),
        }
    }

    /// The stream that a query names.
    pub(crate) fn stream_of(&self, query: &Query<'_>) -> Result<(u16, Arc<StreamView>), ApiError> {
        let book = self.book();
        let known = || book.stream_names();
        let name = query.need("stream").map_err(|error| error.allowed(known()))?;
        let found = book.stream(name).map(|(number, stream)| (number, Arc::clone(stream)));
        found.ok_or_else(|| ApiError::unknown_stream(name, known()))
    }

    /// The last records of a key, oldest first.
    pub(crate) async fn lookback(
        &self,
        stream: u16,
        key: &str,
        limit: usize,
    ) -> Result<Vec<Output>, ApiError> {
        let name = key.to_owned();
        let found = self.ask(move |hub, _| {
            // Names come in order, and nothing that begins with a name comes before it.
            let first = hub.keys(None, KeySearch::Prefix(&name), None, 1);
            let known = first.first().is_some_and(|first| *first.name == *name);
            known.then(|| hub.lookback(stream, &name, limit).copied().collect::<Vec<_>>())
        });
        found.await?.ok_or_else(|| ApiError::unknown_key(key))
    }
}

/// Whether results of these keys may be read.
pub(crate) fn may_read(grant: &Grant, stream: &StreamView, symbols: Symbols<'_>) -> Result<(), ApiError> {
    grant.check(Verb::Subscribe, &stream.meta.name, symbols).map_err(ApiError::forbidden)
}

async fn streams(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::parse(query.as_deref(), &[])?;
    let mut out = String::from("{\"streams\":[");
    let book = shared.book();
    let readable = |stream: &&Arc<StreamView>| pass.grant.allows_some(Verb::Subscribe, &stream.meta.name);
    for (at, stream) in book.open().map(|(_, stream)| stream).filter(readable).enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let columns: Vec<String> = stream.meta.columns.iter().map(|column| quote(column)).collect();
        let _ = write!(
            out,
            "{comma}{{\"name\":{},\"kind\":\"{}\",\"columns\":[{}]",
            quote(&stream.meta.name),
            stream.kind_name(),
            columns.join(",")
        );
        if let Some(width) = stream.width_ns {
            let _ = write!(out, ",\"width_ns\":\"{width}\"");
        }
        out.push('}');
    }
    out.push_str("]}");
    json(&shared, out).await
}

async fn keys(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["stream", "search", "prefix", "limit", "after"])?;
    let limit = query.count("limit", 50, 1, PAGE_MAX)?;
    let named = query.text("stream").map(|_| shared.stream_of(&query)).transpose()?;
    let stream = named.as_ref().map(|(number, _)| *number);
    let text = |name| query.text(name).unwrap_or_default().to_owned();
    let (search, prefix, after) = (text("search"), text("prefix"), query.text("after").map(str::to_owned));
    if !search.is_empty() && !prefix.is_empty() {
        let message = "`search` finds parts of names and `prefix` their beginnings: give one of them";
        return Err(ApiError::bad("bad_parameter", message));
    }
    // Names say something too: only those that may be read are told.
    let book = shared.book();
    let of = book.open().filter(|(number, _)| stream.is_none_or(|stream| stream == *number));
    let of = of.filter(|(_, stream)| pass.grant.allows_some(Verb::Subscribe, &stream.meta.name));
    let of: Vec<Arc<str>> = of.map(|(_, stream)| stream.meta.name.as_str().into()).collect();
    if let (Some((_, stream)), true) = (&named, of.is_empty()) {
        may_read(&pass.grant, stream, Symbols::All)?;
    }
    let all = of.iter().any(|stream| pass.grant.allows(Verb::Subscribe, stream, Symbols::All));
    let grant = pass.grant.clone();
    let readable = move |name: &str| {
        all || of.iter().any(|stream| grant.allows(Verb::Subscribe, stream, Symbols::Name(name)))
    };
    let (found, next, total) = shared
        .ask(move |hub, _| {
            let search = match (search.as_str(), prefix.as_str()) {
                ("", "") => KeySearch::All,
                ("", prefix) => KeySearch::Prefix(prefix),
                (part, _) => KeySearch::Contains(part),
            };
            let of_stream = stream.and_then(|stream| hub.stream_stats(stream)).map(|stats| stats.keys);
            let total = all.then(|| of_stream.unwrap_or(hub.stats().keys));
            let (found, next) = names(hub, stream, search, after, limit, &readable);
            (found, next, total)
        })
        .await?;
    let mut out = String::from("{\"keys\":[");
    for (at, key) in found.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{{\"name\":{},\"slot\":{}}}", quote(&key.name), key.slot);
    }
    let next = next.map_or_else(|| "null".to_owned(), |next| quote(&next));
    let total = total.map_or_else(|| "null".to_owned(), |total| total.to_string());
    let _ = write!(out, "],\"total\":{total},\"next\":{next}}}");
    json(&shared, out).await
}

/// The names behind `after` that match and may be read, and where the next page begins.
fn names(
    hub: &Hub,
    stream: Option<u16>,
    search: KeySearch<'_>,
    mut after: Option<String>,
    limit: usize,
    readable: &dyn Fn(&str) -> bool,
) -> (Vec<KeyInfo>, Option<String>) {
    let mut names = Vec::new();
    let mut looked_at = 0;
    loop {
        // One more than asked for says whether there is a next page. What may not be read is passed over in larger steps.
        let count = (limit - names.len() + 1).max(if looked_at == 0 { 1 } else { STEP });
        let found = hub.keys(stream, search, after.as_deref(), count);
        let more = found.len() == count;
        looked_at += found.len();
        for key in found {
            if names.len() == limit && readable(&key.name) {
                return (names, after);
            }
            after = Some(key.name.to_string());
            if readable(&key.name) {
                names.push(key);
            }
        }
        if !more {
            return (names, None);
        }
        if looked_at >= LOOKED_AT_MAX {
            return (names, after);
        }
    }
}

async fn latest(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["stream", "key", "limit", "after"])?;
    let (number, stream) = shared.stream_of(&query)?;
    let mut out = format!("{{\"stream\":{}", quote(&stream.meta.name));
    if let Some(key) = query.text("key") {
        if query.text("limit").or(query.text("after")).is_some() {
            return Err(ApiError::bad(
                "bad_parameter",
                "`key` asks for one record: `limit` and `after` have no meaning",
            ));
        }
        may_read(&pass.grant, &stream, Symbols::Name(key))?;
        let records = shared.lookback(number, key, 1).await?;
        let Some(output) = records.first() else {
            let message = format!("`{}` has no record in this stream yet", echo(key));
            return Err(ApiError::new(StatusCode::NOT_FOUND, "no_record", message));
        };
        let key = quote(key);
        let _ = write!(out, ",\"key\":{key},\"record\":");
        write_record(&mut out, &stream, &key, output);
        out.push('}');
        return json(&shared, out).await;
    }
    let limit = query.count("limit", 100, 1, PAGE_MAX)?;
    let after = query.text("after").map(str::to_owned);
    may_read(&pass.grant, &stream, Symbols::All)?;
    let (records, next) = shared.ask(move |hub, _| page(hub, number, after, limit)).await?;
    out.push_str(",\"records\":[");
    for (at, (key, output)) in records.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_record(&mut out, &stream, &quote(key), output);
    }
    let next = next.map_or_else(|| "null".to_owned(), |next| quote(&next));
    let _ = write!(out, "],\"next\":{next}}}");
    json(&shared, out).await
}

/// The newest records of the keys behind `after`, in the order of their names, and where the next page begins.
#[allow(clippy::type_complexity)]
fn page(
    hub: &Hub,
    stream: u16,
    mut after: Option<String>,
    limit: usize,
) -> (Vec<(Arc<str>, Output)>, Option<String>) {
    let mut records = Vec::new();
    let mut looked_at = 0;
    loop {
        let count = (limit - records.len()).max(1);
        let keys = hub.keys(None, KeySearch::All, after.as_deref(), count);
        let more = keys.len() == count;
        looked_at += keys.len();
        after = keys.last().map(|key| key.name.to_string()).or(after);
        for key in keys {
            if let Some(output) = hub.latest(stream, &key.name) {
                records.push((key.name, *output));
            }
        }
        if !more {
            return (records, None);
        }
        if records.len() >= limit || looked_at >= LOOKED_AT_MAX {
            let rest = !hub.keys(None, KeySearch::All, after.as_deref(), 1).is_empty();
            return (records, after.filter(|_| rest));
        }
    }
}

async fn bars(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref(), &["stream", "key", "limit"])?;
    let (number, stream) = shared.stream_of(&query)?;
    let key = query.need("key")?;
    let limit = query.count("limit", 500, 1, BARS_MAX)?;
    may_read(&pass.grant, &stream, Symbols::Name(key))?;
    let records = shared.lookback(number, key, limit).await?;
    let key = quote(key);
    let mut out = format!("{{\"stream\":{},\"key\":{key},\"records\":[", quote(&stream.meta.name));
    for (at, output) in records.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_record(&mut out, &stream, &key, output);
    }
    out.push_str("]}");
    json(&shared, out).await
}

async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::parse(query.as_deref(), &[])?;
    let text = crate::status::text(&shared, pass.sees_server()).await?;
    json(&shared, text.to_string()).await
}

async fn cluster(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::parse(query.as_deref(), &[])?;
    if !pass.sees_server() {
        return Err(whole_server(&pass, "how the cluster is"));
    }
    json(&shared, crate::cluster::document(&shared)?.to_string()).await
}

async fn explain(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    let document = crate::explain::document(&shared, &pass, query.as_deref()).await?;
    json(&shared, document.to_string()).await
}

/// What is not for those who may read only some.
fn whole_server(pass: &Pass, what: &str) -> ApiError {
    let message = format!(
        "`{}` may not read {what}: it is for who may `subscribe` everything, or `admin`",
        pass.grant.principal()
    );
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
}

async fn health(State(shared): State<Arc<Shared>>) -> Answer {
    // It answers, so it is alive; whoever looks sees what does not work.
    let ingest = (shared.sources.ingest)();
    let body = match ingest.journal.as_ref().map(|journal| &journal.health) {
        None => serde_json::json!({"status": "ok"}),
        Some(health) => match crate::status::trouble(health) {
            None => serde_json::json!({"status": "ok", "journal": health.name()}),
            Some(reason) => {
                serde_json::json!({"status": "degraded", "journal": health.name(), "reason": reason})
            }
        },
    };
    json(&shared, body.to_string()).await
}

async fn ready(State(shared): State<Arc<Shared>>) -> Answer {
    crate::status::readiness(&shared).await?;
    crate::cluster::readiness(&shared)?;
    json(&shared, "{\"status\":\"ready\"}".to_owned()).await
}

async fn metrics(State(shared): State<Arc<Shared>>, Extension(pass): Extension<Pass>) -> Answer {
    if !pass.sees_server() {
        let message = format!(
            "`{}` may not read the counters of the whole server: they are for who may `subscribe` everything, or `admin`",
            pass.grant.principal()
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let text = crate::metrics::scrape(&shared).await;
    answer(&shared, "text/plain; version=0.0.4; charset=utf-8", text).await
}

async fn sse(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Connection>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    crate::sse::stream(shared, connection, &pass, query.as_deref()).await
}

async fn arrow(
    State(shared): State<Arc<Shared>>,
    Extension(pass): Extension<Pass>,
    RawQuery(query): RawQuery,
) -> Answer {
    crate::arrow::stream(&shared, &pass.grant, query.as_deref()).await
}

async fn openapi(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    shared.assets.own(crate::assets::OPENAPI, &headers)
}

async fn docs(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    shared.assets.own(crate::assets::DOCS, &headers)
}

async fn docs_script(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    shared.assets.own(crate::assets::DOCS_SCRIPT, &headers)
}

/// The dashboard.
async fn file(
    State(shared): State<Arc<Shared>>,
    method: axum::http::Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    if method != axum::http::Method::GET && method != axum::http::Method::HEAD {
        return method_not_allowed().await.into_response();
    }
    if let Some(response) = shared.assets.answer(uri.path(), &headers) {
        return response;
    }
    let message = format!("there is nothing at `{}`", echo(uri.path()));
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message).allowed(ROUTES).into_response()
}
