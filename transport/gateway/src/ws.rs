//! WebSockets: many subscriptions over one connection, in one task.
//!
//! What is written waits for the socket; while it waits, nothing is taken from the subscriptions, and each goes by its own
//! lag policy. So a connection holds at most one message on its way, one delivery being written, and two per subscription
//! that wait.

use crate::admit::{Opening, Pass};
use crate::alerts::{self, Followed, Following};
use crate::book::Piece;
use crate::error::ApiError;
use crate::ops::{self, Op, Request};
use crate::record::quote;
use crate::server::{Connection, Shared};
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use futures_util::SinkExt;
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_live::{Delivery, Reader};
use tidegate_proto::subscription::{Conflation, Keys, Start, Subscription as Asked};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Bytes read from a socket at once. Clients say little, and there may be many of them.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes that are collected before they are written.
const WRITE_BUFFER: usize = 16 * 1024;
/// Most bytes that wait to be written: a message and answers to pings beside it.
const WRITE_BUFFER_MAX: usize = 8 * 1024 * 1024;

/// How long a peer may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// How long after its end a connection may take to be told of it; then it is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_UNSUPPORTED: u16 = 1003;
const CLOSE_TOO_LARGE: u16 = 1009;
const CLOSE_IDLE: u16 = 1008;
/// Nobody said who is there, was not believed, or was for as long as the token allowed.
const CLOSE_UNAUTHORIZED: u16 = 4401;

pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Connection>,
    Extension(Opening(pass)): Extension<Opening>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response<Body> {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let status = StatusCode::UPGRADE_REQUIRED;
            return ApiError::new(status, "websocket_only", rejection.body_text()).into_response();
        }
    };
    let bytes_max = shared.options.message_bytes_max;
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .on_upgrade(move |socket| async move { Talk::new(shared, connection, pass, socket).run().await })
}

/// What is said to who asks before anybody knows who it is.
const SAY_FIRST: &str = "show who you are first: {\"op\":\"auth\",\"token\":\"...\"}";

/// Something that wants to be dealt with.
enum Event {
    Message(Option<Result<Message, axum::Error>>),
    Delivery(usize, Option<Delivery>),
    Alerts(Followed),
    Status,
    Silence,
    Expired,
    Stop,
}

/// The connection is over.
struct Over;

struct Subscription {
    id: u64,
    reader: Reader,
    /// What it is of, for when somebody else's rights apply to it.
    of: Box<Asked>,
}

struct Talk {
    shared: Arc<Shared>,
    connection: Connection,
    /// What the peer may read; `None` until it has said who it is.
    pass: Option<Pass>,
    opened: Instant,
    socket: WebSocket,
    subscriptions: Vec<Subscription>,
    /// Alerts, which are no records of the hub's, under the id of their subscription.
    alerts: Option<(u64, Following)>,
    /// The subscription to look at first, so that none is served before the others for ever.
    turn: usize,
    heard: Instant,
    pinged: bool,
    status: Option<(Duration, Instant)>,
    stop: watch::Receiver<bool>,
}

impl Talk {
    fn new(shared: Arc<Shared>, connection: Connection, pass: Option<Pass>, socket: WebSocket) -> Self {
        Self {
            stop: shared.stop.clone(),
            shared,
            connection,
            pass,
            opened: Instant::now(),
            socket,
            subscriptions: Vec::new(),
            alerts: None,
            turn: 0,
            heard: Instant::now(),
            pinged: false,
            status: None,
        }
    }

    async fn run(mut self) {
        self.shared.metrics.websocket(1);
        while let Ok(()) = self.step_in_time().await {}
        self.shared.metrics.websocket(-1);
    }

    /// When the peer must have said who it is, or must have said it anew.
    fn ends(&self) -> Option<Instant> {
        match &self.pass {
            Some(pass) => pass.ends,
            None => Some(self.opened + self.shared.options.head_timeout),
        }
    }

    /// A step of a peer that takes its messages bit by bit does not last for longer than the peer may stay.
    async fn step_in_time(&mut self) -> Result<(), Over> {
        let Some(ends) = self.ends() else { return self.step().await };
        match timeout_at(ends + LAST_WORDS, self.step()).await {
            Ok(step) => step,
            Err(_) => {
                self.shared.metrics.refused("expired");
                Err(Over)
            }
        }
    }

    async fn step(&mut self) -> Result<(), Over> {
        match self.event().await {
            Event::Message(Some(Ok(message))) => {
                self.heard = Instant::now();
                self.pinged = false;
                match message {
                    Message::Text(text) => self.operate(&text).await,
                    Message::Binary(_) => {
                        let error = ApiError::bad("bad_json", "messages are text");
                        self.fail(None, &error).await?;
                        self.close(CLOSE_UNSUPPORTED, "messages are text").await
                    }
                    // Pings are answered by the library.
                    Message::Ping(_) | Message::Pong(_) => Ok(()),
                    Message::Close(_) => {
                        // The library has its answer ready.
                        self.flush().await?;
                        Err(Over)
                    }
                }
            }
            Event::Message(Some(Err(error))) => {
                if is_too_large(&error) {
                    let max = self.shared.options.message_bytes_max;
                    let message = format!("a message has at most {max} bytes");
                    let error = ApiError::bad("too_large", message).allowed([max]);
                    self.fail(None, &error).await?;
                    self.close(CLOSE_TOO_LARGE, "the message is too large").await?;
                }
                Err(Over)
            }
            Event::Message(None) => Err(Over),
            Event::Delivery(at, delivery) => self.deliver(at, delivery).await,
            Event::Alerts(followed) => {
                let Some((id, _)) = &self.alerts else { return Ok(()) };
                let text = alerts::message(*id, &followed);
                if matches!(followed, Followed::Ended) {
                    self.alerts = None;
                }
                self.say(text).await
            }
            Event::Status => self.tell_status().await,
            Event::Silence if !self.pinged => {
                self.pinged = true;
                self.write(Message::Ping(bytes::Bytes::new())).await?;
                self.flush().await
            }
            Event::Silence => self.close(CLOSE_IDLE, "nothing was heard for too long").await,
            Event::Expired => {
                let (error, reason) = match self.pass {
                    Some(_) => (ApiError::expired(), "expired"),
                    None => (ApiError::unauthorized(SAY_FIRST), "unauthorized"),
                };
                self.fail(None, &error).await?;
                self.close(CLOSE_UNAUTHORIZED, reason).await
            }
            Event::Stop => self.close(CLOSE_GOING_AWAY, "the server ends").await,
        }
    }

    async fn event(&mut self) -> Event {
        let ends = self.ends();
        if ends.is_some_and(|ends| ends <= Instant::now()) {
            return Event::Expired;
        }
        let Self { socket, subscriptions, alerts, turn, heard, pinged, status, stop, shared, .. } = self;
        let wait = if *pinged { shared.options.idle_timeout } else { shared.options.ping_every };
        let status_due = status.map(|(_, due)| due);
        tokio::select! {
            message = socket.recv() => Event::Message(message),
            (at, delivery) = poll_fn(|context| poll_subscriptions(subscriptions, *turn, context)) => {
                *turn = at + 1;
                Event::Delivery(at, delivery)
            }
            followed = next_alert(alerts) => Event::Alerts(followed),
            () = sleep_until(status_due.unwrap_or_else(Instant::now)), if status_due.is_some() => Event::Status,
            () = sleep_until(ends.unwrap_or(*heard)), if ends.is_some() => Event::Expired,
            () = sleep_until(*heard + wait) => Event::Silence,
            _ = stop.wait_for(|stop| *stop) => Event::Stop,
        }
    }

    async fn operate(&mut self, text: &str) -> Result<(), Over> {
        let op = match ops::parse(text) {
            Ok(op) => op,
            Err(error) => return self.fail(error.id, &error.error).await,
        };
        if self.pass.is_none() && !matches!(op, Op::Auth { .. } | Op::Ping { .. }) {
            let id = match op {
                Op::Subscribe { id, .. } | Op::Unsubscribe { id } => Some(id),
                _ => None,
            };
            return self.fail(id, &ApiError::unauthorized(SAY_FIRST)).await;
        }
        match op {
            Op::Auth { token } => match self.shared.pass(Some(token.0.as_bytes())) {
                Ok(pass) => self.authorize(pass).await,
                Err(error) => {
                    self.fail(None, &error).await?;
                    // Who is known already goes on as before.
                    if self.pass.is_some() {
                        return Ok(());
                    }
                    self.close(CLOSE_UNAUTHORIZED, "unauthorized").await
                }
            },
            Op::Ping { id } => {
                let id = id.map_or_else(String::new, |id| format!(",\"id\":{id}"));
                self.say(format!("{{\"op\":\"pong\"{id}}}")).await
            }
            Op::Status { every_ms: 0 } => {
                self.status = None;
                Ok(())
            }
            Op::Status { every_ms } => {
                self.status = Some((Duration::from_millis(every_ms), Instant::now()));
                Ok(())
            }
            Op::Unsubscribe { id } if self.alerts.as_ref().is_some_and(|(alerts, _)| *alerts == id) => {
                self.alerts = None;
                self.say(format!("{{\"op\":\"unsubscribed\",\"id\":{id}}}")).await
            }
            Op::Unsubscribe { id } => {
                let Some(at) = self.subscriptions.iter().position(|one| one.id == id) else {
                    let known = self.subscriptions.iter().map(|one| one.id);
                    let error = ApiError::bad("unknown_id", format!("there is no subscription {id}"));
                    return self.fail(Some(id), &error.allowed(known)).await;
                };
                self.subscriptions.swap_remove(at);
                self.say(format!("{{\"op\":\"unsubscribed\",\"id\":{id}}}")).await
            }
            Op::Subscribe { id, request } if request.subscription.streams == [alerts::STREAM] => {
                if let Err(error) = self.follow(id, &request) {
                    return self.fail(Some(id), &error).await;
                }
                let incarnation = self.shared.sources.hub.catalogue().incarnation;
                self.say(format!("{{\"op\":\"subscribed\",\"id\":{id},\"incarnation\":\"{incarnation}\"}}"))
                    .await
            }
            Op::Subscribe { id, request } => {
                if let Err(error) = self.subscribe(id, request).await {
                    return self.fail(Some(id), &error).await;
                }
                let lag = self.subscriptions.last().map_or(0, |one| one.reader.lag_budget());
                let incarnation = self.shared.sources.hub.catalogue().incarnation;
                self.say(format!(
                    "{{\"op\":\"subscribed\",\"id\":{id},\"lag\":{lag},\"incarnation\":\"{incarnation}\"}}"
                ))
                .await
            }
        }
    }

    /// Takes what a token says from now on. What it does not cover of what is subscribed ends.
    async fn authorize(&mut self, pass: Pass) -> Result<(), Over> {
        let left = pass.ends.map(|ends| ends.saturating_duration_since(Instant::now()).as_millis());
        let left = left.map_or_else(|| "null".to_owned(), |left| left.to_string());
        let (principal, grant) = (quote(pass.grant.principal()), pass.grant.clone());
        self.pass = Some(pass);
        self.say(format!("{{\"op\":\"authorized\",\"principal\":{principal},\"expires_in_ms\":{left}}}"))
            .await?;
        if let Some((id, _)) = self.alerts {
            match alerts::visible(&grant) {
                Ok(visible) => self.alerts.iter_mut().for_each(|(_, of)| of.see(Arc::clone(&visible))),
                Err(error) => {
                    self.alerts = None;
                    self.shared.metrics.refused("forbidden");
                    let reason = quote(&error.message);
                    self.say(format!(
                        "{{\"op\":\"closed\",\"id\":{id},\"code\":\"forbidden\",\"message\":{reason}}}"
                    ))
                    .await?;
                }
            }
        }
        let mut at = 0;
        while let Some(one) = self.subscriptions.get(at) {
            let Err(close) = grant.check_subscription(&one.of) else {
                at += 1;
                continue;
            };
            let (id, reason) = (one.id, quote(&close.reason));
            self.subscriptions.swap_remove(at);
            self.shared.metrics.refused("forbidden");
            self.say(format!(
                "{{\"op\":\"closed\",\"id\":{id},\"code\":\"forbidden\",\"message\":{reason}}}"
            ))
            .await?;
        }
        Ok(())
    }

    async fn subscribe(&mut self, id: u64, request: Request) -> Result<(), ApiError> {
        let max = self.shared.options.subscriptions_max;
        let taken = self.alerts.as_ref().is_some_and(|(alerts, _)| *alerts == id);
        if taken || self.subscriptions.iter().any(|one| one.id == id) {
            return Err(ApiError::bad("duplicate_id", format!("there is a subscription {id} already")));
        }
        if self.subscriptions.len() >= max {
            let message = format!("a connection has at most {max} subscriptions");
            return Err(ApiError::bad("too_many_subscriptions", message).allowed([max]));
        }
        let pass = self.pass.as_ref().ok_or_else(|| ApiError::unauthorized(SAY_FIRST))?;
        pass.grant.check_subscription(&request.subscription).map_err(ApiError::forbidden)?;
        // Where it began is of no more use.
        let of = Asked { start: Start::Latest, ..request.subscription.clone() };
        let reader = self.shared.subscribe(request, "ws", self.connection.peer).await?;
        self.subscriptions.push(Subscription { id, reader, of: Box::new(of) });
        Ok(())
    }

    /// Alerts, alone in their subscription and one subscription of them per connection.
    fn follow(&mut self, id: u64, request: &Request) -> Result<(), ApiError> {
        if let Some((alerts, _)) = &self.alerts {
            let message = "there is a subscription of alerts on this connection already";
            return Err(ApiError::bad("too_many_subscriptions", message).allowed([alerts]));
        }
        if self.subscriptions.iter().any(|one| one.id == id) {
            return Err(ApiError::bad("duplicate_id", format!("there is a subscription {id} already")));
        }
        let pass = self.pass.as_ref().ok_or_else(|| ApiError::unauthorized(SAY_FIRST))?;
        let Asked { keys, start, conflation, .. } = &request.subscription;
        let snapshot = match start {
            Start::Latest => false,
            Start::Snapshot => true,
            _ => {
                let message = "alerts come from `latest` or `snapshot` on: they are not numbered";
                return Err(ApiError::bad("bad_value", message).allowed(["latest", "snapshot"]));
            }
        };
        if *keys != Keys::All || *conflation != Conflation::None {
            let message = "`keys` and `conflate` have no meaning for the stream `alerts`";
            return Err(ApiError::bad("bad_value", message));
        }
        let visible = alerts::visible(&pass.grant)?;
        self.alerts = Some((id, Following::new(&*self.shared.alerts()?, snapshot, visible)));
        Ok(())
    }

    async fn deliver(&mut self, at: usize, delivery: Option<Delivery>) -> Result<(), Over> {
        let Some(id) = self.subscriptions.get(at).map(|one| one.id) else { return Ok(()) };
        match delivery {
            Some(Delivery::Frames(frames)) => {
                let mut conflated = 0;
                for frame in frames {
                    // Frames come from our own hub; one that cannot be read ends the connection rather than losing records.
                    let Ok(pieces) = self.shared.book().pieces(&frame) else {
                        let error = ApiError::new(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "internal",
                            "a bug of the server",
                        );
                        self.fail(Some(id), &error).await?;
                        return Err(Over);
                    };
                    for piece in pieces.iter() {
                        if let Some(text) = message(id, piece, &mut conflated) {
                            self.write(Message::Text(text.into())).await?;
                        }
                    }
                }
                if conflated > 0 {
                    self.write(Message::Text(data(id, false, conflated, "").into())).await?;
                }
                self.flush().await
            }
            Some(Delivery::Closed(close)) => {
                self.subscriptions.swap_remove(at);
                let (code, reason) = (close.code, quote(&close.reason));
                self.say(format!(
                    "{{\"op\":\"closed\",\"id\":{id},\"code\":\"{code}\",\"message\":{reason}}}"
                ))
                .await
            }
            None => {
                self.subscriptions.swap_remove(at);
                let message = "\"the server serves no more results\"";
                self.say(format!(
                    "{{\"op\":\"closed\",\"id\":{id},\"code\":\"shutting_down\",\"message\":{message}}}"
                ))
                .await
            }
        }
    }

    async fn tell_status(&mut self) -> Result<(), Over> {
        if let Some((every, due)) = &mut self.status {
            // From the planned time on, unless that is past: then there is nothing to catch up with.
            *due = (*due + *every).max(Instant::now());
        }
        let whole = self.pass.as_ref().is_some_and(Pass::sees_server);
        match crate::status::text(&self.shared, whole).await {
            Ok(status) => self.say(format!("{{\"op\":\"status\",\"status\":{status}}}")).await,
            Err(error) => self.fail(None, &error).await,
        }
    }

    async fn fail(&mut self, id: Option<u64>, error: &ApiError) -> Result<(), Over> {
        self.shared.metrics.refused(error.code);
        let mut text = String::from("{\"op\":\"error\",");
        if let Some(id) = id {
            let _ = write!(text, "\"id\":{id},");
        }
        error.write_fields(&mut text);
        text.push('}');
        self.say(text).await
    }

    async fn say(&mut self, text: String) -> Result<(), Over> {
        self.write(Message::Text(text.into())).await?;
        self.flush().await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Over> {
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        self.write(Message::Close(Some(frame))).await?;
        self.flush().await?;
        // A socket that is dropped with something unread resets the connection, and the peer might lose these words.
        let rest = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = timeout(CLOSE_WAIT, rest).await;
        Err(Over)
    }

    async fn write(&mut self, message: Message) -> Result<(), Over> {
        self.shared.metrics.message();
        self.socket.feed(message).await.map_err(|_| Over)
    }

    async fn flush(&mut self) -> Result<(), Over> {
        self.socket.flush().await.map_err(|_| Over)
    }
}

/// What the subscription of alerts has next; never anything where there is none.
async fn next_alert(alerts: &mut Option<(u64, Following)>) -> Followed {
    match alerts {
        Some((_, alerts)) => alerts.next().await,
        None => std::future::pending().await,
    }
}

/// The next thing that one of the subscriptions has.
fn poll_subscriptions(
    subscriptions: &mut [Subscription],
    turn: usize,
    context: &mut Context<'_>,
) -> Poll<(usize, Option<Delivery>)> {
    let count = subscriptions.len();
    for step in 0..count {
        let at = (turn + step) % count;
        // Nothing is lost when the future is dropped: a delivery is taken only when it is ready.
        if let Poll::Ready(delivery) = pin!(subscriptions[at].reader.next()).poll(context) {
            return Poll::Ready((at, delivery));
        }
    }
    Poll::Pending
}

/// A piece as a message; what was conflated is said with the next records.
fn message(id: u64, piece: &Piece, conflated: &mut u64) -> Option<String> {
    match piece {
        Piece::Conflated(count) => {
            *conflated += count;
            None
        }
        Piece::Records { past, json } => Some(data(id, *past, std::mem::take(conflated), json)),
        Piece::Loss { stream, cause, exact, count } => Some(format!(
            "{{\"op\":\"loss\",\"id\":{id},\"stream\":{},\"count\":{count},\"cause\":\"{cause}\",\"exact\":{exact}}}",
            quote(stream)
        )),
        Piece::Live { stream } => {
            Some(format!("{{\"op\":\"live\",\"id\":{id},\"stream\":{}}}", quote(stream)))
        }
    }
}

fn data(id: u64, past: bool, conflated: u64, records: &str) -> String {
    let mut text = String::with_capacity(records.len() + 80);
    let _ = write!(text, "{{\"op\":\"data\",\"id\":{id}");
    if past {
        text.push_str(",\"past\":true");
    }
    if conflated > 0 {
        let _ = write!(text, ",\"conflated\":{conflated}");
    }
    text.push_str(",\"records\":[");
    text.push_str(records);
    text.push_str("]}");
    text
}

/// Whether the library refused a message for its size.
fn is_too_large(error: &axum::Error) -> bool {
    use tokio_tungstenite::tungstenite::Error;
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<Error>())
        .is_some_and(|error| matches!(error, Error::Capacity(_)))
}
