//! What holds for every request: who may ask, how large it is, and the headers of every answer.
//!
//! A server on the loopback address is reachable from every page that a browser on this machine shows. Two checks keep those
//! pages out. The `Host` must be an IP address, `localhost`, or a name from the options: a page whose own name was pointed at
//! 127.0.0.1 (DNS rebinding) sends its name. And an `Origin`, which browsers add to requests of other pages and to every
//! WebSocket, must be the same place or be listed.

use crate::admit::{GUARDED, admit};
use crate::error::{ApiError, Code};
use crate::options::GatewayOptions;
use crate::server::Shared;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tokio::time::Instant;

pub(crate) async fn guard(
    State(shared): State<Arc<Shared>>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let start = Instant::now();
    let route = crate::rest::route_label(request.uri().path());
    let says = request.method() == Method::POST
        && crate::alerts::route(request.uri().path()).is_some_and(|(_, says)| says);
    let checked = check(&shared.options, request.headers(), says);
    let preflight = request.method() == Method::OPTIONS && matches!(checked, Ok(Some(_)));
    let admitted = checked.clone().and_then(|origin| {
        // Browsers ask without a token whether a page may send one.
        if preflight {
            return Ok(origin);
        }
        // Probes, documentation and the dashboard's files say nothing about anybody's data.
        if GUARDED.contains(&route) {
            admit(&shared, &mut request, route)?;
        }
        Ok(origin)
    });
    let mut response = match admitted {
        Ok(_) if preflight => may_send_tokens(),
        Ok(_) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    let set = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Styles may stand in elements, as chart libraries put them there; scripts may not.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
             connect-src 'self' ws: wss:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What changes all the time is never kept; assets say themselves how long they last.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(Some(origin)) = checked {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(Code(code)) = response.extensions().get() {
        shared.metrics.refused(code);
    }
    shared.metrics.answered(route, response.status().as_u16(), start.elapsed());
    response
}

/// What a page of a listed origin may send.
fn may_send_tokens() -> Response<Body> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Whether a request may be answered, which `says` something in a document or not; the origin to be named in the answer, if it is a listed one.
fn check(options: &GatewayOptions, headers: &HeaderMap, says: bool) -> Result<Option<HeaderValue>, ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => host,
        _ => return Err(ApiError::bad("bad_host", "a request names its host, once")),
    };
    let name =
        host_name(host).ok_or_else(|| ApiError::bad("bad_host", "the host is no name and no address"))?;
    let known = options.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    if !(is_local_name(name) || is_address(name) || known) {
        let message = "this server is not called by that name; it may be added to the gateway's hosts";
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message));
    }
    if says {
        // Its length is looked at as it is read.
    } else if let Some(length) = headers.get(header::CONTENT_LENGTH) {
        if length.as_bytes() != b"0" {
            return Err(no_body());
        }
    } else if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(no_body());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let place = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    if place.is_some_and(|place| place.eq_ignore_ascii_case(host)) {
        return Ok(None);
    }
    if options.origins.iter().any(|known| known == text) {
        return Ok(Some(origin.clone()));
    }
    let message =
        "pages of other origins may not read this server, unless they are among the gateway's origins";
    Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message))
}

fn no_body() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "requests have no body here").allowed([0])
}

/// A host without its port.
fn host_name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port = rest.strip_prefix(':');
    let well = rest.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_ok());
    (well && !name.is_empty()).then_some(name)
}

/// Names that no name server answers for.
fn is_local_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// An address cannot be pointed anywhere else.
fn is_address(name: &str) -> bool {
    name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask() {
        let options = GatewayOptions {
            hosts: vec!["tide.example".into()],
            origins: vec!["http://localhost:5173".into()],
            ..GatewayOptions::default()
        };
        let code = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            match check(&options, &headers, false) {
                Ok(None) => "own",
                Ok(Some(_)) => "listed",
                Err(error) => error.code,
            }
        };
        for (pairs, want) in [
            (&[("host", "127.0.0.1:8080")][..], "own"),
            (&[("host", "[::1]:8080")], "own"),
            (&[("host", "[::1]")], "own"),
            (&[("host", "LocalHost:8080")], "own"),
            (&[("host", "app.localhost")], "own"),
            (&[("host", "Tide.example")], "own"),
            (&[("host", "evil.example:8080")], "unknown_host"),
            (&[("host", "localhost.evil.example")], "unknown_host"),
            (&[("host", "127.0.0.1.evil.example")], "unknown_host"),
            (&[("host", "127.0.0.1:80:80")], "bad_host"),
            (&[("host", "127.0.0.1:99999")], "bad_host"),
            (&[("host", "")], "bad_host"),
            (&[("host", "[::1")], "bad_host"),
            (&[("host", "\u{e9}")], "bad_host"),
            (&[], "bad_host"),
            (&[("host", "localhost"), ("host", "evil.example")], "bad_host"),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], "own"),
            (&[("host", "localhost:8080"), ("origin", "https://localhost:8080")], "own"),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:5173")], "listed"),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:80801")], "foreign_origin"),
            (&[("host", "localhost:8080"), ("origin", "http://evil.example")], "foreign_origin"),
            (&[("host", "localhost:8080"), ("origin", "null")], "foreign_origin"),
            (&[("host", "localhost:8080"), ("origin", "file://")], "foreign_origin"),
            (&[("host", "localhost"), ("content-length", "0")], "own"),
            (&[("host", "localhost"), ("content-length", "1")], "body_too_large"),
            (&[("host", "localhost"), ("transfer-encoding", "chunked")], "body_too_large"),
        ] {
            assert_eq!(code(pairs), want, "{pairs:?}");
        }
    }
}
