//! Server-Sent Events: a subscription as text that `curl` and `EventSource` read.
//!
//! The body is asked for more only when the connection has room; until then the subscription waits, and its lag policy
//! decides.

use crate::admit::Pass;
use crate::alerts::{Followed, Following};
use crate::book::{Item, cause_name};
use crate::error::{ApiError, echo};
use crate::ops::Request;
use crate::query::Query;
use crate::record::{quote, write_record};
use crate::server::{Connection, Shared};
use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use std::fmt::Write;
use std::sync::Arc;
use tidegate_live::{Delivery, Reader};
use tidegate_proto::subscription::{Conflation, Keys, LagPolicy, Start, Subscription};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

const PARAMETERS: [&str; 6] = ["streams", "keys", "from", "conflate", "lag", "past_lag"];

pub(crate) async fn stream(
    shared: Arc<Shared>,
    connection: Connection,
    pass: &Pass,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    if Query::parse(query, &PARAMETERS)?.text("streams") == Some(crate::alerts::STREAM) {
        return alerts(shared, connection, pass, query);
    }
    let subscription = subscription(query)?;
    pass.grant.check_subscription(&subscription.subscription).map_err(ApiError::forbidden)?;
    let reader = shared.subscribe(subscription, "sse", connection.peer).await?;
    let events = Events {
        stop: shared.stop.clone(),
        shared,
        reader,
        ends: pass.ends,
        frames: Vec::new().into_iter(),
        end: false,
        _connection: connection,
    };
    let mut response = Response::new(Body::from_stream(events.stream()));
    let content_type = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// Alerts, which are no records of the hub's: those that are open if `from` is `snapshot`, and those that change.
fn alerts(
    shared: Arc<Shared>,
    connection: Connection,
    pass: &Pass,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(query, &PARAMETERS)?;
    let only = |name: &str, allowed: &[&str]| {
        let message = format!("`{name}` has no meaning for the stream `alerts`");
        ApiError::bad("bad_value", message).allowed(allowed)
    };
    for name in ["keys", "conflate", "lag", "past_lag"] {
        if query.text(name).is_some() {
            return Err(only(name, &["streams", "from"]));
        }
    }
    let snapshot = match query.text("from") {
        None | Some("latest") => false,
        Some("snapshot") => true,
        Some(_) => return Err(only("from", &["latest", "snapshot"])),
    };
    let visible = crate::alerts::visible(&pass.grant)?;
    let following = Following::new(&*shared.alerts()?, snapshot, visible);
    let (ends, stop) = (pass.ends, shared.stop.clone());
    let state = (shared, following, stop, connection, false);
    let events =
        stream::unfold(state, move |(shared, mut following, mut stop, connection, end)| async move {
            if end {
                return None;
            }
            let mut out = String::new();
            let mut end = false;
            let wait = timeout(shared.options.ping_every, following.next());
            tokio::select! {
                next = wait => match next {
                    Ok(followed) => {
                        end = matches!(followed, Followed::Ended);
                        crate::alerts::event(&followed, &mut out);
                    }
                    Err(_) => out.push_str(": still here\n\n"),
                },
                _ = stop.wait_for(|stop| *stop) => return None,
                () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => {
                    expired(&shared, &mut out);
                    end = true;
                }
            }
            Some((Ok::<_, std::io::Error>(Bytes::from(out)), (shared, following, stop, connection, end)))
        });
    let hello = stream::iter([Ok(Bytes::from_static(b": tidegate\n\n"))]);
    let mut response = Response::new(Body::from_stream(futures_util::StreamExt::chain(hello, events)));
    let content_type = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

fn subscription(query: Option<&str>) -> Result<Request, ApiError> {
    let query = Query::parse(query, &PARAMETERS)?;
    let bad = |name: &str, text: &str, allowed: &[&str]| {
        let message = format!("`{name}` is `{}`", echo(text));
        ApiError::bad("bad_value", message).allowed(allowed)
    };
    let streams = query.need("streams")?;
    let keys = match query.text("keys") {
        None => Keys::All,
        Some(keys) => Keys::of_patterns(keys.split(',')),
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let start = match query.text("from") {
        None | Some("latest") => Start::Latest,
        Some("snapshot") => Start::Snapshot,
        Some(from) => {
            let lookback = || from.strip_prefix("lookback:").and_then(number).map(Start::Lookback);
            let sequence = || from.strip_prefix("sequence:").and_then(|text| text.parse().ok());
            let sequence = || sequence().map(|default| Start::Sequence { default, slots: Vec::new() });
            let forms = ["latest", "snapshot", "lookback:K", "sequence:N"];
            lookback().or_else(sequence).ok_or_else(|| bad("from", from, &forms))?
        }
    };
    let conflation = match query.text("conflate") {
        None | Some("none") => Conflation::None,
        Some("latest") => Conflation::Latest,
        Some(conflate) => number(conflate)
            .map(Conflation::Every)
            .ok_or_else(|| bad("conflate", conflate, &["none", "latest", "MILLISECONDS"]))?,
    };
    let policy = match query.text("past_lag") {
        None | Some("drop_oldest") => LagPolicy::DropOldest,
        Some("conflate") => LagPolicy::Conflate,
        Some("disconnect") => LagPolicy::Disconnect,
        Some(policy) => return Err(bad("past_lag", policy, &["conflate", "drop_oldest", "disconnect"])),
    };
    let lag_budget = query.count("lag", 0, 0, usize::MAX)? as u64;
    let streams = streams.split(',').map(str::to_owned).collect();
    let subscription = Subscription { streams, keys, start, conflation, policy, lag_budget };
    subscription.check()?;
    Ok(Request { subscription, holes: false, incarnation: None })
}

fn expired(shared: &Shared, out: &mut String) {
    let error = ApiError::expired();
    shared.metrics.refused(error.code);
    out.push_str("event: closed\ndata: {");
    error.write_fields(out);
    out.push_str("}\n\n");
}

struct Events {
    shared: Arc<Shared>,
    reader: Reader,
    /// When the token it was opened with does.
    ends: Option<Instant>,
    frames: std::vec::IntoIter<Bytes>,
    stop: watch::Receiver<bool>,
    end: bool,
    _connection: Connection,
}

impl Events {
    fn stream(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        // The first bytes at once, so that a client knows that it stands.
        let hello = stream::iter([Ok(Bytes::from_static(b": tidegate\n\n"))]);
        let events = stream::unfold(self, |mut events| async move {
            let text = events.next().await?;
            Some((Ok(text), events))
        });
        futures_util::StreamExt::chain(hello, events)
    }

    /// The next piece of text; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        while out.is_empty() {
            if self.end {
                return None;
            }
            // Also what is here already is no longer for them.
            if self.ends.is_some_and(|ends| ends <= Instant::now()) {
                self.expire(&mut out);
                continue;
            }
            if let Some(frame) = self.frames.next() {
                self.write(&frame, &mut out);
                continue;
            }
            let ends = self.ends.unwrap_or_else(Instant::now);
            let next = tokio::select! {
                next = timeout(self.shared.options.ping_every, self.reader.next()) => next,
                _ = self.stop.wait_for(|stop| *stop) => return None,
                () = sleep_until(ends), if self.ends.is_some() => continue,
            };
            match next {
                Ok(Some(Delivery::Frames(frames))) => self.frames = frames.into_iter(),
                Ok(Some(Delivery::Closed(close))) => {
                    self.end = true;
                    let reason = quote(&close.reason);
                    let _ = write!(
                        out,
                        "event: closed\ndata: {{\"code\":\"{}\",\"message\":{reason}}}\n\n",
                        close.code
                    );
                }
                Ok(None) => return None,
                Err(_) => out.push_str(": still here\n\n"),
            }
        }
        Some(out.into())
    }

    fn expire(&mut self, out: &mut String) {
        expired(&self.shared, out);
        self.end = true;
    }

    fn write(&self, frame: &[u8], out: &mut String) {
        let read = self.shared.book().read(frame, &mut |item| match item {
            Item::Record { key, stream, output, .. } => {
                out.push_str("event: record\ndata: ");
                write_record(out, stream, key, output);
                out.push_str("\n\n");
            }
            Item::Conflated(count) => {
                let _ = write!(out, "event: conflated\ndata: {{\"count\":{count}}}\n\n");
            }
            Item::Loss { stream, loss } => {
                let (name, cause) = (quote(&stream.meta.name), cause_name(loss.cause));
                let (count, exact) = (loss.count, loss.exact);
                let _ = write!(
                    out,
                    "event: loss\ndata: {{\"stream\":{name},\"count\":{count},\"cause\":\"{cause}\",\"exact\":{exact}}}\n\n"
                );
            }
            Item::Live { stream } => {
                let _ = write!(out, "event: live\ndata: {{\"stream\":{}}}\n\n", quote(&stream.meta.name));
            }
        });
        // Frames come from our own hub.
        debug_assert!(read.is_ok(), "{read:?}");
    }
}
