//! What a WebSocket client may ask, read from JSON. Sans I/O, so that it can be fuzzed by itself.

use crate::error::{ApiError, echo};
use serde_json::{Map, Value};
use tidegate_engine::SLOT_COUNT;
use tidegate_proto::subscription::{Conflation, Keys, LagPolicy, Start, Subscription};

/// The operations there are.
const OPS: [&str; 5] = ["auth", "subscribe", "unsubscribe", "ping", "status"];
/// Ids are whole numbers that a double holds exactly.
const ID_MAX: u64 = (1 << 53) - 1;
/// How often the state of the server may be asked for, in milliseconds.
const EVERY_MS: (u64, u64) = (100, 3_600_000);

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Who is there, from now on.
    Auth {
        /// What shows it.
        token: Token,
    },
    /// A new subscription under an id of the client's.
    Subscribe {
        /// The id.
        id: u64,
        /// What it asks for.
        request: Request,
    },
    /// The end of a subscription.
    Unsubscribe {
        /// Its id.
        id: u64,
    },
    /// Are you there?
    Ping {
        /// Comes back.
        id: Option<u64>,
    },
    /// The state of the server, from now on.
    Status {
        /// Milliseconds between two; 0 stops.
        every_ms: u64,
    },
}

/// A token, which is not printed: what is printed is read by others.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// A subscription, and what its client knows of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub subscription: Subscription,
    /// Whether it wants what is left when records it asked for by their numbers are no longer kept: the loss is told. Else that
    /// is an error.
    pub holes: bool,
    /// The start of the server that its numbers are of.
    pub incarnation: Option<u64>,
}

/// Why a message is no operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError {
    /// The id it came with, if that could be read.
    pub id: Option<u64>,
    pub(crate) error: Box<ApiError>,
}

impl OpError {
    /// What is wrong, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.error.code
    }

    /// What is wrong, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.error.message
    }
}

/// Reads a message.
///
/// # Errors
/// [`OpError`] for the first thing that cannot be.
pub fn parse(text: &str) -> Result<Op, OpError> {
    let fail = |id, error| OpError { id, error: Box::new(error) };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| fail(None, ApiError::bad("bad_json", format!("this is no JSON: {error}"))))?;
    let Value::Object(fields) = value else {
        return Err(fail(None, ApiError::bad("bad_json", "a message is a JSON object with `op`")));
    };
    let known = fields.get("id").and_then(Value::as_u64).filter(|&id| id <= ID_MAX);
    operation(&fields).map_err(|error| fail(known, error))
}

fn operation(fields: &Map<String, Value>) -> Result<Op, ApiError> {
    let Some(op) = fields.get("op") else {
        return Err(ApiError::bad("missing_field", "`op` is missing").allowed(OPS));
    };
    let only = |allowed: &[&str]| {
        let unknown = fields.keys().find(|name| !allowed.contains(&name.as_str()));
        unknown.map_or(Ok(()), |name| {
            let message = format!("there is no field `{}` here", echo(name));
            Err(ApiError::bad("unknown_field", message).allowed(allowed))
        })
    };
    match op.as_str() {
        Some("subscribe") => {
            only(&["op", "id", "streams", "keys", "from", "conflate", "lag", "past_lag"])?;
            Ok(Op::Subscribe { id: need_id(fields)?, request: request(fields)? })
        }
        Some("auth") => {
            only(&["op", "token"])?;
            let Some(token) = fields.get("token") else {
                return Err(ApiError::bad("missing_field", "`token` is missing"));
            };
            let token = token.as_str().filter(|token| !token.is_empty());
            let token =
                token.ok_or_else(|| bad_value("token", &["what `tidegate token issue --bearer` made"]))?;
            Ok(Op::Auth { token: Token(token.to_owned()) })
        }
        Some("unsubscribe") => {
            only(&["op", "id"])?;
            Ok(Op::Unsubscribe { id: need_id(fields)? })
        }
        Some("ping") => {
            only(&["op", "id"])?;
            let id = fields.get("id").map(|_| need_id(fields)).transpose()?;
            Ok(Op::Ping { id })
        }
        Some("status") => {
            only(&["op", "id", "every_ms"])?;
            let (min, max) = EVERY_MS;
            let every_ms = fields.get("every_ms").and_then(Value::as_u64);
            match every_ms.filter(|every_ms| *every_ms == 0 || (min..=max).contains(every_ms)) {
                Some(every_ms) => Ok(Op::Status { every_ms }),
                None => Err(bad_value("every_ms", &[&format!("0, {min} to {max}")])),
            }
        }
        _ => {
            let found = op.as_str().map_or_else(|| "not a text".to_owned(), echo);
            Err(ApiError::bad("unknown_op", format!("there is no op `{found}`")).allowed(OPS))
        }
    }
}

fn bad_value(field: &str, allowed: &[&str]) -> ApiError {
    ApiError::bad("bad_value", format!("`{field}` is not as it should be")).allowed(allowed)
}

fn need_id(fields: &Map<String, Value>) -> Result<u64, ApiError> {
    let allowed = format!("0 to {ID_MAX}");
    let Some(id) = fields.get("id") else {
        return Err(ApiError::bad("missing_field", "`id` is missing").allowed([allowed]));
    };
    id.as_u64().filter(|&id| id <= ID_MAX).ok_or_else(|| bad_value("id", &[&allowed]))
}

fn request(fields: &Map<String, Value>) -> Result<Request, ApiError> {
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let Some(streams) = fields.get("streams") else {
        return Err(ApiError::bad("missing_field", "`streams` is missing").allowed(["[\"bars.1s\"]"]));
    };
    let streams = texts(streams).ok_or_else(|| bad_value("streams", &["[\"bars.1s\"]"]))?;
    let keys = match fields.get("keys") {
        None | Some(Value::Null) => Keys::All,
        Some(Value::String(all)) if all == "all" => Keys::All,
        Some(keys) => {
            let forms = ["\"all\"", "[\"BTCUSD\",\"ETH*\"]"];
            let patterns = texts(keys).filter(|patterns| !patterns.is_empty());
            let patterns = patterns.ok_or_else(|| bad_value("keys", &forms))?;
            Keys::of_patterns(patterns.iter().map(String::as_str))
        }
    };
    let from = match fields.get("from") {
        None | Some(Value::Null) => From::of(Start::Latest),
        Some(from) => start(from, &streams).ok_or_else(|| bad_value("from", &FROM_FORMS))?,
    };
    let conflation = match fields.get("conflate") {
        None | Some(Value::Null) => Conflation::None,
        Some(conflate) => conflation(conflate)
            .ok_or_else(|| bad_value("conflate", &["\"none\"", "\"latest\"", "{\"every_ms\":100}"]))?,
    };
    let lag_budget = match fields.get("lag") {
        None | Some(Value::Null) => 0,
        Some(lag) => lag
            .as_u64()
            .ok_or_else(|| bad_value("lag", &["0 and more; 0 for as many as the server keeps"]))?,
    };
    let policy = match fields.get("past_lag") {
        None | Some(Value::Null) => LagPolicy::default(),
        Some(policy) => lag_policy(policy)
            .ok_or_else(|| bad_value("past_lag", &["conflate", "drop_oldest", "disconnect"]))?,
    };
    let From { start, holes, incarnation } = from;
    let subscription = Subscription { streams, keys, start, conflation, policy, lag_budget };
    subscription.check().map_err(ApiError::from)?;
    Ok(Request { subscription, holes, incarnation })
}

/// The value of an object's only field.
fn only_field<'v>(value: &'v Value, field: &str) -> Option<&'v Value> {
    value.as_object().filter(|fields| fields.len() == 1)?.get(field)
}

/// What `from` may be.
const FROM_FORMS: [&str; 5] = [
    "\"latest\"",
    "\"snapshot\"",
    "{\"lookback\":100}",
    "{\"sequence\":1}",
    "{\"sequence\":1,\"slots\":{\"bars.1s\":{\"17\":4712}},\"incarnation\":\"1\",\"cut\":\"loss\"}",
];

struct From {
    start: Start,
    holes: bool,
    incarnation: Option<u64>,
}

impl From {
    fn of(start: Start) -> Self {
        Self { start, holes: false, incarnation: None }
    }
}

fn start(from: &Value, streams: &[String]) -> Option<From> {
    match from.as_str() {
        Some("latest") => Some(From::of(Start::Latest)),
        Some("snapshot") => Some(From::of(Start::Snapshot)),
        Some(_) => None,
        None if from.get("sequence").is_some() => sequence(from.as_object()?, streams),
        None => Some(From::of(Start::Lookback(u32::try_from(only_field(from, "lookback")?.as_u64()?).ok()?))),
    }
}

/// Numbers to begin with: of all slots, and of some where they differ.
fn sequence(from: &Map<String, Value>, streams: &[String]) -> Option<From> {
    let known = ["sequence", "slots", "incarnation", "cut"];
    if from.keys().any(|field| !known.contains(&field.as_str())) {
        return None;
    }
    let mut slots = Vec::new();
    for (stream, numbers) in from.get("slots").map_or(Some(&Map::new()), Value::as_object)? {
        let at = streams.iter().position(|name| name == stream)?;
        for (slot, number) in numbers.as_object()? {
            // In one way only, so that no slot comes twice.
            let known = |number: &u16| usize::from(*number) < SLOT_COUNT && number.to_string() == *slot;
            let slot = slot.parse().ok().filter(known)?;
            slots.push((at as u16, slot, number.as_u64().filter(|number| *number > 0)?));
        }
    }
    let holes = match from.get("cut").map(Value::as_str) {
        None | Some(Some("error")) => false,
        Some(Some("loss")) => true,
        Some(_) => return None,
    };
    let incarnation = match from.get("incarnation") {
        None => None,
        Some(incarnation) => Some(incarnation.as_str()?.parse().ok()?),
    };
    let default = from.get("sequence")?.as_u64()?;
    Some(From { start: Start::Sequence { default, slots }, holes, incarnation })
}

fn conflation(conflate: &Value) -> Option<Conflation> {
    match conflate.as_str() {
        Some("none") => Some(Conflation::None),
        Some("latest") => Some(Conflation::Latest),
        Some(_) => None,
        None => Some(Conflation::Every(u32::try_from(only_field(conflate, "every_ms")?.as_u64()?).ok()?)),
    }
}

fn lag_policy(policy: &Value) -> Option<LagPolicy> {
    match policy.as_str() {
        Some("conflate") => Some(LagPolicy::Conflate),
        Some("drop_oldest") => Some(LagPolicy::DropOldest),
        Some("disconnect") => Some(LagPolicy::Disconnect),
        _ => None,
    }
}

/// The name of a policy, as `past_lag` has it.
pub(crate) fn policy_name(policy: LagPolicy) -> &'static str {
    match policy {
        LagPolicy::Conflate => "conflate",
        LagPolicy::DropOldest => "drop_oldest",
        LagPolicy::Disconnect => "disconnect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operations_are_read() {
        let text = r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"keys":["BTC*","ETHUSD"],"from":{"lookback":100},
            "conflate":{"every_ms":100},"lag":10000,"past_lag":"disconnect"}"#;
        let want = Subscription {
            streams: vec!["bars.1s".into()],
            keys: Keys::Some { names: vec!["ETHUSD".into()], prefixes: vec!["BTC".into()] },
            start: Start::Lookback(100),
            conflation: Conflation::Every(100),
            policy: LagPolicy::Disconnect,
            lag_budget: 10_000,
        };
        let request = |subscription| Request { subscription, holes: false, incarnation: None };
        assert_eq!(parse(text), Ok(Op::Subscribe { id: 1, request: request(want) }));
        let short = parse(r#"{"op":"subscribe","id":0,"streams":["a"],"keys":"all"}"#);
        assert_eq!(short, Ok(Op::Subscribe { id: 0, request: request(Subscription::to(["a"])) }));
        let resume = r#"{"op":"subscribe","id":2,"streams":["a","b"],"from":{"sequence":1,
            "slots":{"b":{"17":4712,"4095":1}},"incarnation":"18446744073709551615","cut":"loss"}}"#;
        let start = Start::Sequence { default: 1, slots: vec![(1, 17, 4712), (1, 4095, 1)] };
        let subscription = Subscription { start, ..Subscription::to(["a", "b"]) };
        let want = Request { subscription, holes: true, incarnation: Some(u64::MAX) };
        assert_eq!(parse(resume), Ok(Op::Subscribe { id: 2, request: want }));
        assert_eq!(parse(r#"{"op":"unsubscribe","id":1}"#), Ok(Op::Unsubscribe { id: 1 }));
        assert_eq!(parse(r#"{"op":"ping","id":7}"#), Ok(Op::Ping { id: Some(7) }));
        assert_eq!(parse(r#"{"op":"ping"}"#), Ok(Op::Ping { id: None }));
        let token = parse(r#"{"op":"auth","token":"a.b.c"}"#);
        assert_eq!(token, Ok(Op::Auth { token: Token("a.b.c".into()) }));
        assert!(!format!("{token:?}").contains("a.b.c"), "{token:?}");
        assert_eq!(parse(r#"{"op":"status","every_ms":0}"#), Ok(Op::Status { every_ms: 0 }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let subscribe = |rest: &str| format!(r#"{{"op":"subscribe","id":3,"streams":["a"],{rest}}}"#);
        for (text, code, id) in [
            ("", "bad_json", None),
            ("{", "bad_json", None),
            ("[]", "bad_json", None),
            ("null", "bad_json", None),
            (&"[".repeat(10_000), "bad_json", None),
            ("{}", "missing_field", None),
            (r#"{"op":7}"#, "unknown_op", None),
            (r#"{"op":"subscibe","id":1}"#, "unknown_op", Some(1)),
            (r#"{"op":"subscribe","id":1}"#, "missing_field", Some(1)),
            (r#"{"op":"subscribe","streams":["a"]}"#, "missing_field", None),
            (r#"{"op":"subscribe","id":-1,"streams":["a"]}"#, "bad_value", None),
            (r#"{"op":"subscribe","id":9007199254740992,"streams":["a"]}"#, "bad_value", None),
            (r#"{"op":"subscribe","id":1.5,"streams":["a"]}"#, "bad_value", None),
            (r#"{"op":"subscribe","id":1,"streams":"a"}"#, "bad_value", Some(1)),
            (r#"{"op":"subscribe","id":1,"streams":[7]}"#, "bad_value", Some(1)),
            (r#"{"op":"subscribe","id":1,"streams":[]}"#, "out_of_range", Some(1)),
            (&subscribe(r#""keys":[]"#), "bad_value", Some(3)),
            (&subscribe(r#""keys":"BTC""#), "bad_value", Some(3)),
            (&subscribe(r#""keys":[""]"#), "out_of_range", Some(3)),
            (&subscribe(r#""from":"newest""#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"lookback":0}"#), "out_of_range", Some(3)),
            (&subscribe(r#""from":{"lookback":4294967296}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"lookback":1,"more":2}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":0}"#), "out_of_range", Some(3)),
            (&subscribe(r#""from":{"sequence":-1}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":"1"}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"lookback":1}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"slots":[]}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"slots":{"b":{}}}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"slots":{"a":{"4096":1}}}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"slots":{"a":{"1":0}}}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"slots":{"a":{"01":1}}}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"incarnation":7}"#), "bad_value", Some(3)),
            (&subscribe(r#""from":{"sequence":1,"cut":"ignore"}"#), "bad_value", Some(3)),
            (&subscribe(r#""conflate":{"every_ms":0}"#), "out_of_range", Some(3)),
            (&subscribe(r#""conflate":5"#), "bad_value", Some(3)),
            (&subscribe(r#""lag":-1"#), "bad_value", Some(3)),
            (&subscribe(r#""past_lag":"panic""#), "bad_value", Some(3)),
            (&subscribe(r#""fields":["open"]"#), "unknown_field", Some(3)),
            (r#"{"op":"auth"}"#, "missing_field", None),
            (r#"{"op":"auth","token":""}"#, "bad_value", None),
            (r#"{"op":"auth","token":7}"#, "bad_value", None),
            (r#"{"op":"auth","token":"a","id":1}"#, "unknown_field", Some(1)),
            (r#"{"op":"unsubscribe"}"#, "missing_field", None),
            (r#"{"op":"ping","id":"x"}"#, "bad_value", None),
            (r#"{"op":"status"}"#, "bad_value", None),
            (r#"{"op":"status","every_ms":5}"#, "bad_value", None),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.code(), error.id), (code, id), "{text}");
        }
    }

    proptest! {
        /// A valid message with a piece replaced by anything is an operation or a typed error, and what was read is in range.
        #[test]
        fn any_message_is_an_operation_or_an_error(from in 0usize..200, count in 0usize..40, piece in ".{0,30}") {
            let text = r#"{"op":"subscribe","id":1,"streams":["bars.1s"],"keys":["BTC*","ETHUSD"],"from":{"lookback":100},"conflate":{"every_ms":100},"lag":10000,"past_lag":"disconnect"}"#;
            let (from, to) = (from.min(text.len()), (from + count).min(text.len()));
            match parse(&format!("{}{piece}{}", &text[..from], &text[to..])) {
                Ok(Op::Subscribe { request, .. }) => prop_assert_eq!(request.subscription.check(), Ok(())),
                Ok(_) => {}
                Err(error) => prop_assert!(!error.code().is_empty() && error.message().len() < 1_024),
            }
        }
    }
}
