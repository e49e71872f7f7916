//! What a client is told when something is not possible: a code for programs, a sentence for people, what would be allowed.

use crate::record::quote;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use std::fmt::Write;
use tidegate_live::{HubGone, SubscribeError};
use tidegate_proto::Close;
use tidegate_proto::subscription::SubscriptionError;

/// Most alternatives listed in an answer.
const ALLOWED_MAX: usize = 64;
/// Most characters of a client's own text that are given back to it.
const ECHO_MAX: usize = 64;

/// An answer that says why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) allowed: Vec<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allowed: Vec::new() }
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// What was asked for does not fit what is there now.
    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub(crate) fn allowed<T: ToString>(mut self, allowed: impl IntoIterator<Item = T>) -> Self {
        self.allowed = allowed.into_iter().take(ALLOWED_MAX).map(|one| one.to_string()).collect();
        self
    }

    pub(crate) fn unknown_stream<'s>(name: &str, known: impl Iterator<Item = &'s str>) -> Self {
        let message = format!("there is no stream `{}`", echo(name));
        Self::new(StatusCode::NOT_FOUND, "unknown_stream", message).allowed(known)
    }

    pub(crate) fn unknown_key(name: &str) -> Self {
        let message = format!("there is no key `{}`; GET /v1/keys?search= finds names", echo(name));
        Self::new(StatusCode::NOT_FOUND, "unknown_key", message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// What a grant does not cover.
    pub(crate) fn forbidden(close: Close) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", close.reason)
    }

    /// What somebody was let in for is over.
    pub(crate) fn expired() -> Self {
        let message = "the token this was opened with has expired; show a new one";
        Self::new(StatusCode::UNAUTHORIZED, "expired", message)
    }

    pub(crate) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// The fields `code`, `message` and, if there is something, `allowed`, without braces.
    pub(crate) fn write_fields(&self, out: &mut String) {
        let _ = write!(out, "\"code\":\"{}\",\"message\":{}", self.code, quote(&self.message));
        if !self.allowed.is_empty() {
            let allowed: Vec<String> = self.allowed.iter().map(|one| quote(one)).collect();
            let _ = write!(out, ",\"allowed\":[{}]", allowed.join(","));
        }
    }
}

/// What a client wrote, short enough to be said back to it.
pub(crate) fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<HubGone> for ApiError {
    fn from(gone: HubGone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", gone.to_string())
    }
}

impl From<SubscriptionError> for ApiError {
    fn from(error: SubscriptionError) -> Self {
        let message = error.to_string();
        match error {
            SubscriptionError::NoStream { known } => {
                Self::bad("missing_parameter", message).allowed(known.split(", "))
            }
            SubscriptionError::UnknownStream { name, known } => {
                Self::unknown_stream(&name, known.split(", "))
            }
            SubscriptionError::Busy { .. } => Self::busy(&message),
            SubscriptionError::TooMuch { .. } => Self::bad("too_much", message),
            SubscriptionError::Range { min, max, .. } => {
                Self::bad("out_of_range", message).allowed([format!("{min} to {max}")])
            }
            _ => Self::bad("bad_subscription", message),
        }
    }
}

impl From<SubscribeError> for ApiError {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Refused(error) => error.into(),
            SubscribeError::Gone(gone) => gone.into(),
        }
    }
}

/// The code of an answer that says why not, for counters.
#[derive(Clone, Copy)]
pub(crate) struct Code(pub(crate) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut text = String::from("{\"error\":{");
        self.write_fields(&mut text);
        text.push_str("}}\n");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Code(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_of_strangers_are_cut_between_characters() {
        assert_eq!(echo("short"), "short");
        let long = "é".repeat(1_000);
        assert_eq!(echo(&long), format!("{}...", "é".repeat(ECHO_MAX)));
    }

    #[test]
    fn errors_are_json_whatever_they_quote() {
        let mut text = String::from("{");
        ApiError::unknown_stream("a\"b\u{1}", ["x\"", "y"].into_iter()).write_fields(&mut text);
        text.push('}');
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["allowed"], serde_json::json!(["x\"", "y"]));
        assert_eq!(value["code"], "unknown_stream");
    }
}
