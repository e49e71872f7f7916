//! Who asks: the token of a request or of a WebSocket's message, what it lets its holder do, and until when.
//!
//! A request shows its token in the header `Authorization` and nowhere else: addresses are written into logs. Pages cannot set
//! headers of a WebSocket; it may be opened without one, and then says `auth` first, before it is told anything.

use crate::error::ApiError;
use crate::server::Shared;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use tidegate_proto::access::Verb;
use tidegate_proto::{Admission, Grant};
use tokio::time::Instant;

/// Routes that ask who is there.
pub(crate) const GUARDED: [&str; 19] = [
    "/v1/streams",
    "/v1/keys",
    "/v1/latest",
    "/v1/bars",
    "/v1/status",
    "/v1/cluster",
    "/v1/explain",
    "/v1/sse",
    "/v1/arrow",
    "/v1/alerts",
    "/v1/alerts/{id}",
    "/v1/alerts/{id}/ack",
    "/v1/alerts/{id}/false-positive",
    "/v1/alerts/{id}/suppress",
    "/v1/alerts/quiets",
    "/v1/alerts/quiets/{number}/lift",
    "/v1/traffic",
    WEBSOCKET,
    "/metrics",
];

const WEBSOCKET: &str = "/v1/ws";

/// What whoever asks may do, and until when.
#[derive(Clone)]
pub(crate) struct Pass {
    pub(crate) grant: Grant,
    /// `None`: as long as the connection stands.
    pub(crate) ends: Option<Instant>,
}

impl Pass {
    fn of(admission: Admission) -> Self {
        let Admission { grant, stands } = admission;
        // A time so far away that it cannot be told is none.
        Self { grant, ends: stands.and_then(|stands| Instant::now().checked_add(stands)) }
    }

    /// Whether the state of the whole server may be seen: by those who may read everything, and by those who run it.
    pub(crate) fn sees_server(&self) -> bool {
        self.grant.allows_all(Verb::Subscribe) || self.grant.allows_all(Verb::Admin)
    }
}

/// A WebSocket that is being opened: by somebody, or by somebody who will say it.
#[derive(Clone)]
pub(crate) struct Opening(pub(crate) Option<Pass>);

impl Shared {
    /// What whoever shows this token, or none, may do.
    pub(crate) fn pass(&self, token: Option<&[u8]>) -> Result<Pass, ApiError> {
        let admission = match (&self.sources.gate, token) {
            (Some(gate), token) => gate(token).map_err(|close| ApiError::unauthorized(close.reason))?,
            (None, None) => Grant::default().into(),
            (None, Some(_)) => return Err(ApiError::unauthorized("this server takes no tokens")),
        };
        let pass = Pass::of(admission);
        let reads = |stream| pass.grant.allows_some(Verb::Subscribe, stream);
        let alerts = self.sources.alerts.is_some() && reads(crate::alerts::STREAM);
        if self.book().stream_names().any(reads) || alerts || pass.sees_server() {
            return Ok(pass);
        }
        let message = format!("`{}` may read nothing here", pass.grant.principal());
        Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

/// Puts what a request may do beside it. Those who answer ask for it, so that none of them can be reached past this.
pub(crate) fn admit(shared: &Shared, request: &mut Request<Body>, route: &str) -> Result<(), ApiError> {
    // Where nobody is asked, nobody needs to be believed either.
    let token = if shared.sources.gate.is_some() { token(request.headers())? } else { None };
    let pass = match shared.pass(token) {
        Err(_) if token.is_none() && route == WEBSOCKET && opens(request.headers()) => None,
        pass => Some(pass?),
    };
    if route == WEBSOCKET {
        request.extensions_mut().insert(Opening(pass));
    } else if let Some(pass) = pass {
        request.extensions_mut().insert(pass);
    }
    Ok(())
}

/// Whether this opens a WebSocket.
fn opens(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The token of a request.
fn token(headers: &HeaderMap) -> Result<Option<&[u8]>, ApiError> {
    let mut tokens = headers.get_all(header::AUTHORIZATION).iter();
    match (tokens.next().map(HeaderValue::as_bytes), tokens.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => match text.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(Some(token)),
            _ => Err(ApiError::unauthorized("write `Authorization: Bearer TOKEN`")),
        },
        (Some(_), Some(_)) => Err(ApiError::unauthorized("a request is authorized once")),
    }
}
