//! JSON lines: an exchange's stream as received (Binance: trade, depthUpdate, bookTicker, wrapped or bare), or plain
//! trades with one object per line.
//!
//! A local receive time in digits and a blank may stand before the JSON. Book levels keep the venue's absolute sizes;
//! a `bookTicker` sets its two levels and is no snapshot, because it often runs beside a full depth stream of the same
//! symbol. It has no event time: the receive time stands in, or the latest time seen when there is none.

use super::columns::{Columns, TsColumn, resolve, side_flag};
use super::core::{ByLine, Core, DecodeLine, Reader, Refusal, trade};
use super::input::Input;
use super::text::{
    TimeForm, TimeUnit, checked_time, parse_digits, parse_number_time, parse_price, parse_size, shown,
};
use super::{ColumnMap, ReadOptions};
use crate::source::{Place, ReadError, RejectCause};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use tidegate_engine::{Event, Price, Size, flag, kind};

/// Levels of one message; a full book of a venue is far smaller.
const LEVELS_MAX: usize = 100_000;

pub(super) struct Json {
    mode: Mode,
    later: Later,
    receive: TimeForm,
    /// Latest event time, for messages that carry none.
    latest: u64,
}

enum Mode {
    /// Not decided: no message that says has come.
    Unknown,
    Binance,
    Plain(Box<Plain>),
}

/// What tells the mode by a later line, where the first did not.
struct Later {
    map: ColumnMap,
    symbol: String,
}

impl Mode {
    /// What a line says of those behind it. `symbol` is for trades that name none.
    fn of(json: &[u8], map: &ColumnMap, symbol: &str) -> Result<Self, String> {
        let Ok(Members(members)) = serde_json::from_slice::<Members<'_>>(json) else {
            return Ok(Self::Unknown);
        };
        let has = |name: &str| members.iter().any(|(member, _)| member == name);
        if (has("stream") && has("data")) || (has("e") && has("E")) || (has("u") && has("b") && has("B")) {
            return Ok(Self::Binance);
        }
        if members.is_empty() {
            return Ok(Self::Unknown);
        }
        let headers: Vec<String> = members.iter().map(|(name, _)| name.to_string()).collect();
        let columns = resolve(&headers, map)?;
        let symbol = columns.symbol.is_none().then(|| symbol.to_owned());
        Ok(Self::Plain(Box::new(Plain { headers, columns, time: TimeForm::default(), symbol })))
    }
}

/// Plain trades: which member is what.
struct Plain {
    headers: Vec<String>,
    columns: Columns,
    time: TimeForm,
    symbol: Option<String>,
}

pub(super) fn open(
    input: Input,
    core: Core,
    options: &ReadOptions,
) -> Result<Reader<ByLine<Json>>, ReadError> {
    let mut input = input;
    let line = input.sniff(super::SNIFF_BYTES, super::has_line)?;
    let line = line.split(|&b| b == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let json = split_receive(line.trim_ascii()).1;
    let symbol = super::symbol_from_path(core.path());
    let found = Mode::of(json, &options.map, &symbol);
    let mode = match found {
        // A file whose first line has no columns is no input; of a stream another line may have them.
        Err(reason) if !input.is_stream() => {
            return Err(ReadError::Columns { path: core.path().to_path_buf(), reason });
        }
        found => found.unwrap_or(Mode::Unknown),
    };
    let later = Later { map: options.map.clone(), symbol };
    let decoder = Json { mode, later, receive: TimeForm::default(), latest: 0 };
    Ok(Reader::new(core, ByLine { input, decoder }))
}

/// The receive time before the JSON, if there is one, and the JSON.
fn split_receive(line: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    match line.get(digits) {
        Some(b' ' | b'\t') if digits > 0 => (Some(&line[..digits]), line[digits..].trim_ascii()),
        _ => (None, line),
    }
}

/// An object's members in order, values unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(Key(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A member's name, borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a number or string.
fn scalar(value: &RawValue) -> Cow<'_, [u8]> {
    let text = value.get();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner.as_bytes()),
        Some(_) => Cow::Owned(serde_json::from_str::<String>(text).unwrap_or_default().into_bytes()),
        None => Cow::Borrowed(text.as_bytes()),
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// What tells Binance's messages apart.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow)]
    b: Option<&'a RawValue>,
    #[serde(rename = "B")]
    best_bid_size: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    p: Cow<'a, str>,
    #[serde(borrow)]
    q: Cow<'a, str>,
    #[serde(rename = "T")]
    time: u64,
    m: Option<bool>,
}

#[derive(Deserialize)]
struct Level<'a>(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Depth<'a> {
    #[serde(rename = "E")]
    time: u64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    b: Vec<Level<'a>>,
    #[serde(borrow)]
    a: Vec<Level<'a>>,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    b: Cow<'a, str>,
    #[serde(rename = "B", borrow)]
    bid_size: Cow<'a, str>,
    #[serde(borrow)]
    a: Cow<'a, str>,
    #[serde(rename = "A", borrow)]
    ask_size: Cow<'a, str>,
    #[serde(rename = "E")]
    time: Option<u64>,
}

fn malformed(error: &serde_json::Error) -> Refusal {
    (RejectCause::Malformed, error.to_string())
}

fn venue_time(value: u64) -> Result<u64, Refusal> {
    // Streams are in milliseconds, or in microseconds where the connection asked for them.
    let unit = if value == 0 { TimeUnit::Millis } else { TimeUnit::guess(value) };
    checked_time(value, unit.ns())
        .ok_or_else(|| (RejectCause::BadTime, format!("timestamp {value} lies after 2262")))
}

fn level(key: u32, ts: u64, price: &str, size: &str, flags: u8) -> Result<Event, Refusal> {
    let (Price(price), Size(size)) = (parse_price(price.as_bytes())?, parse_size(size.as_bytes())?);
    Ok(Event { ts_event: ts, key, source: 0, kind: kind::BOOK_LEVEL, flags, payload: [price as u64, size] })
}

impl Json {
    fn binance(
        &mut self,
        core: &mut Core,
        json: &[u8],
        receive: Option<u64>,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let envelope: Envelope<'_> = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
        let payload = match envelope.data {
            Some(data) => data.get().as_bytes(),
            None => json,
        };
        let head: Head<'_> = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
        let start = events.len();
        match head.e.as_deref() {
            Some("trade" | "aggTrade") => {
                let message: Trade<'_> =
                    serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
                let ts = venue_time(message.time)?;
                let (price, size) = (parse_price(message.p.as_bytes())?, parse_size(message.q.as_bytes())?);
                let flags = message.m.map_or(0, |maker| if maker { flag::SELL } else { flag::BUY });
                let key = core.key(message.s.as_bytes())?;
                events.push(trade(ts, key, price, size, flags)?);
            }
            Some("depthUpdate") => {
                let depth: Depth<'_> = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
                let ts = venue_time(depth.time)?;
                if depth.a.len() + depth.b.len() > LEVELS_MAX {
                    return Err((RejectCause::Malformed, format!("more than {LEVELS_MAX} levels")));
                }
                if depth.a.is_empty() && depth.b.is_empty() {
                    return Err((RejectCause::NotAnEvent, String::new()));
                }
                let key = core.key(depth.s.as_bytes())?;
                for Level(price, size) in &depth.b {
                    events.push(level(key, ts, price, size, flag::BID)?);
                }
                for Level(price, size) in &depth.a {
                    events.push(level(key, ts, price, size, 0)?);
                }
                if let Some(last) = events.last_mut() {
                    last.flags |= flag::LAST;
                }
            }
            None | Some("bookTicker")
                if head.best_bid_size.is_some() && head.b.is_some_and(|b| b.get().starts_with('"')) =>
            {
                let ticker: Ticker<'_> =
                    serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
                let ts = match (ticker.time, receive) {
                    (Some(time), _) => venue_time(time)?,
                    (None, Some(receive)) => receive,
                    (None, None) if self.latest > 0 => self.latest,
                    (None, None) => {
                        let why = "a quote without any time before or in it".to_owned();
                        return Err((RejectCause::BadTime, why));
                    }
                };
                let key = core.key(ticker.s.as_bytes())?;
                events.push(level(key, ts, &ticker.b, &ticker.bid_size, flag::BID)?);
                events.push(level(key, ts, &ticker.a, &ticker.ask_size, flag::LAST)?);
            }
            _ => return Err((RejectCause::NotAnEvent, String::new())),
        }
        if let Some(event) = events.get(start) {
            self.latest = self.latest.max(event.ts_event);
        }
        Ok(())
    }
}

impl Plain {
    fn event(&mut self, core: &mut Core, json: &[u8]) -> Result<Event, Refusal> {
        let Members(members) = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
        let value = |at: usize| -> Result<Cow<'_, [u8]>, Refusal> {
            let name = self.headers[at].as_str();
            let found = match members.get(at) {
                // Feeds write their members in one order, so the place of the first line is almost always right.
                Some((member, value)) if member == name => Some(value),
                _ => members.iter().find(|(member, _)| member == name).map(|(_, value)| value),
            };
            found.map(|value| scalar(value)).ok_or_else(|| {
                (RejectCause::Malformed, format!("there is no member `{}`", shown(name.as_bytes())))
            })
        };
        let ts = match self.columns.ts {
            TsColumn::One(at) => self.time.parse(&value(at)?)?,
            TsColumn::DateAndTime(date, time) => {
                self.time.parse(&[&value(date)?, &b" "[..], &value(time)?].concat())?
            }
        };
        let (price, size) =
            (parse_price(&value(self.columns.price)?)?, parse_size(&value(self.columns.size)?)?);
        let flags = match self.columns.side {
            Some((at, meaning)) => value(at).map_or(0, |text| side_flag(&text, meaning)),
            None => 0,
        };
        let key = match (self.columns.symbol, &self.symbol) {
            (Some(at), _) => core.key(&value(at)?)?,
            (None, symbol) => core.key(symbol.as_deref().unwrap_or_default().as_bytes())?,
        };
        trade(ts, key, price, size, flags)
    }
}

impl DecodeLine for Json {
    fn line(&mut self, core: &mut Core, line: &[u8], number: u64, events: &mut Vec<Event>) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        let (receive, json) = split_receive(line);
        if matches!(self.mode, Mode::Unknown) {
            self.mode = Mode::of(json, &self.later.map, &self.later.symbol).unwrap_or(Mode::Unknown);
        }
        let start = events.len();
        let receive = match (receive, self.receive) {
            (None, _) => Ok(None),
            (Some(text), TimeForm::Unknown) => {
                self.receive =
                    parse_digits(text).map_or(TimeForm::Unknown, |v| TimeForm::Number(TimeUnit::guess(v)));
                self.receive.parse(text).map(Some)
            }
            (Some(text), TimeForm::Number(unit)) => parse_number_time(text, unit).map(Some),
            (Some(text), TimeForm::Text) => {
                Err((RejectCause::BadTime, format!("receive time `{}`", shown(text))))
            }
        };
        let result = receive.and_then(|receive| match &mut self.mode {
            Mode::Plain(plain) => plain.event(core, json).map(|event| events.push(event)),
            Mode::Binance | Mode::Unknown => self.binance(core, json, receive, events),
        });
        match result {
            Ok(()) => core.finish_unit(events, start),
            Err(refusal) => {
                events.truncate(start);
                core.refuse_with(refusal, Place::Line(number));
            }
        }
    }

    fn format(&self) -> String {
        match &self.mode {
            Mode::Binance => "json (binance stream)".to_owned(),
            Mode::Plain(plain) => format!("json (trades, time in {})", plain.time.name()),
            Mode::Unknown => "json".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read_all, read_err, torture};
    use super::super::{Format, ReadOptions};
    use super::*;

    const STREAM: &str = concat!(
        r#"1723161253937085768 {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":1,"u":2,"b":[["61737.63000000","0.00000000"]],"a":[["61837.64","1.5"],["61838","2"]]}}"#,
        "\n",
        r#"1723161254000000000 {"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255308,"s":"BTCUSDT","t":3,"p":"61800.10","q":"0.00310000","b":1,"a":2,"T":1723161255307,"m":true,"M":true}}"#,
        "\n",
        r#"1723161254100000000 {"stream":"btcusdt@bookTicker","data":{"u":5,"s":"BTCUSDT","b":"61800.00","B":"3.1","a":"61800.01","A":"2"}}"#,
        "\n",
        r#"{"result":null,"id":1}"#,
        "\n",
    );

    #[test]
    fn a_binance_stream_becomes_trades_and_levels() {
        let (events, account, names) = read_all(Format::Json, STREAM.as_bytes(), &ReadOptions::default());
        assert_eq!(names, ["BTCUSDT"]);
        assert_eq!((account.units, account.accepted, account.events), (4, 3, 6));
        assert_eq!(account.refused(RejectCause::NotAnEvent), 1);
        assert_eq!(events[0].flags, flag::BID);
        assert_eq!((events[0].price(), events[0].size()), (61_737_630_000_000, 0));
        assert_eq!(events[2].flags, flag::LAST);
        assert_eq!(events[3].kind, kind::TRADE);
        assert_eq!((events[3].ts_event, events[3].flags), (1_723_161_255_307_000_000, flag::SELL));
        assert_eq!(events[4].ts_event, 1_723_161_254_100_000_000, "no event time: the receive time");
    }

    #[test]
    fn plain_trades_are_guessed_like_columns() {
        let text = "{\"time\":\"2024-08-09T00:00:00.5Z\",\"symbol\":\"X\",\"price\":1.25,\"size\":\"3\",\"side\":\"sell\"}\n\
                    {\"side\":\"buy\",\"symbol\":\"X\\u0041\",\"price\":2,\"size\":1,\"time\":\"2024-08-09T00:00:01Z\"}\n{oops\n";
        let (events, account, names) = read_all(Format::Json, text.as_bytes(), &ReadOptions::default());
        assert_eq!(names, ["X", "XA"]);
        assert_eq!(
            (events[0].price(), events[0].size(), events[0].flags),
            (1_250_000_000, 300_000_000, flag::SELL)
        );
        assert_eq!((events.len(), account.refused(RejectCause::Malformed)), (2, 1));
        let error = read_err(Format::Json, b"{\"a\":1}\n", &ReadOptions::default());
        assert!(matches!(error, ReadError::Columns { .. }), "{error}");
    }

    #[test]
    fn damage_never_panics() {
        torture(Format::Json, STREAM.as_bytes());
        torture(
            Format::Json,
            b"{\"t\":1,\"s\":\"X\",\"p\":1.25,\"q\":\"3\"}\n{\"t\":2,\"s\":\"X\",\"p\":1,\"q\":3}\n",
        );
    }
}
