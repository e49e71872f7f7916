//! Text to numbers and instants: a fast path for what feeds usually write, the exact and complete rules behind it.

use super::core::Refusal;
use crate::source::RejectCause;
use tidegate_engine::{EventTime, Price, Size, UnitError};

/// Unit of a numeric timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl TimeUnit {
    /// Guesses by magnitude. A count of seconds reaches 10^11 in the year 5138 and a count of milliseconds passed it in
    /// 1973, and so on down to nanoseconds, so clocks of our time never clash.
    pub(super) const fn guess(value: u64) -> Self {
        match value {
            0..100_000_000_000 => Self::Seconds,
            100_000_000_000..100_000_000_000_000 => Self::Millis,
            100_000_000_000_000..100_000_000_000_000_000 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    pub(super) const fn ns(self) -> u64 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
        }
    }
}

/// How an input writes its timestamps, decided from its first readable one and then kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TimeForm {
    #[default]
    Unknown,
    Number(TimeUnit),
    Text,
}

impl TimeForm {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "?",
            Self::Number(unit) => unit.name(),
            Self::Text => "text",
        }
    }

    /// Reads a timestamp as nanoseconds since 1970.
    #[inline]
    pub(super) fn parse(&mut self, text: &[u8]) -> Result<u64, Refusal> {
        match *self {
            Self::Number(unit) => parse_number_time(text, unit),
            Self::Text => parse_text_time(text),
            Self::Unknown => self.parse_first(text),
        }
    }

    #[cold]
    fn parse_first(&mut self, text: &[u8]) -> Result<u64, Refusal> {
        let whole = text.split(|&b| b == b'.').next().unwrap_or_default();
        // A date without dashes (20131007) is far too small for a clock in this century: 1970-08-22 in seconds.
        let looks_like_date = text.len() == 8 && (text.starts_with(b"19") || text.starts_with(b"20"));
        let (form, ts) = match parse_digits(whole) {
            Some(value) if !looks_like_date => {
                let unit = TimeUnit::guess(value);
                (Self::Number(unit), parse_number_time(text, unit)?)
            }
            _ if text.starts_with(b"-") && parse_digits(&text[1..]).is_some() => {
                return Err(bad_time(text, "lies before 1970"));
            }
            _ => (Self::Text, parse_text_time(text)?),
        };
        *self = form;
        Ok(ts)
    }
}

fn bad_time(text: &[u8], what: &str) -> Refusal {
    (RejectCause::BadTime, format!("timestamp `{}` {what}", shown(text)))
}

/// Input text made fit for a message: short, and without control characters.
pub(super) fn shown(text: &[u8]) -> String {
    let cut = &text[..text.len().min(40)];
    let mut out: String = String::from_utf8_lossy(cut).chars().filter(|c| !c.is_control()).collect();
    if text.len() > cut.len() {
        out.push('…');
    }
    out
}

/// Digits only, at most 19 so that the sum fits.
#[inline]
pub(super) fn parse_digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

#[inline]
pub(super) fn checked_time(value: u64, unit_ns: u64) -> Option<u64> {
    value.checked_mul(unit_ns).filter(|&ns| ns <= EventTime::MAX.0)
}

/// A number of `unit`s since 1970, with an optional fraction; digits finer than a nanosecond are cut off.
#[inline]
pub(super) fn parse_number_time(text: &[u8], unit: TimeUnit) -> Result<u64, Refusal> {
    if let Some(value) = parse_digits(text) {
        return checked_time(value, unit.ns()).ok_or_else(|| bad_time(text, "lies after 2262"));
    }
    parse_fraction_time(text, unit)
}

#[inline(never)]
fn parse_fraction_time(text: &[u8], unit: TimeUnit) -> Result<u64, Refusal> {
    let dot = memchr::memchr(b'.', text);
    let (whole, fraction) = match dot {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    let negative = whole.first() == Some(&b'-');
    let digits_only = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let magnitude = if negative { &whole[1..] } else { whole };
    if magnitude.is_empty() || !digits_only(magnitude) || !digits_only(fraction) {
        return Err(bad_time(text, "is not a time"));
    }
    if negative {
        return Err(bad_time(text, "lies before 1970"));
    }
    let after = || bad_time(text, "lies after 2262");
    let base = parse_digits(magnitude).and_then(|value| checked_time(value, unit.ns())).ok_or_else(after)?;
    let mut step = unit.ns();
    let mut extra = 0;
    for &byte in fraction {
        step /= 10;
        if step == 0 {
            break;
        }
        extra += u64::from(byte - b'0') * step;
    }
    base.checked_add(extra).filter(|&ns| ns <= EventTime::MAX.0).ok_or_else(after)
}

/// RFC 3339, or a date and time without a zone, which is UTC.
#[inline(never)]
pub(super) fn parse_text_time(bytes: &[u8]) -> Result<u64, Refusal> {
    let not_a_time = || bad_time(bytes, "is not a time");
    let text = std::str::from_utf8(bytes).map_err(|_| not_a_time())?.trim();
    if text.len() > 64 {
        return Err(not_a_time());
    }
    let ns = if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        stamp.as_nanosecond()
    } else if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| not_a_time())?;
        zoned.timestamp().as_nanosecond()
    } else {
        return Err(not_a_time());
    };
    u64::try_from(ns)
        .ok()
        .filter(|&ns| ns <= EventTime::MAX.0)
        .ok_or_else(|| bad_time(bytes, "lies before 1970 or after 2262"))
}

const POW10: [u64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Plain decimals of at most 18 digits in units of `10^-decimals`; anything else is left to the exact reader.
#[inline]
fn decimal_fast(text: &[u8], decimals: usize) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut value = 0u64;
    let mut at = 0;
    while at < text.len() {
        let digit = text[at].wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value * 10 + u64::from(digit);
        at += 1;
    }
    if at == 0 || at > 18 {
        return None;
    }
    if at == text.len() {
        return value.checked_mul(POW10[decimals]);
    }
    let fraction = text.len() - at - 1;
    if text[at] != b'.' || fraction > decimals {
        return None;
    }
    for &byte in &text[at + 1..] {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    value.checked_mul(POW10[decimals - fraction])
}

/// Says why a price or size is refused, in the account's words.
pub(super) fn refusal(error: &UnitError, negative_size: bool) -> Refusal {
    let cause = match error {
        UnitError::OutOfRange { .. } if !negative_size => RejectCause::OutOfRange,
        _ => RejectCause::BadNumber,
    };
    (cause, error.to_string())
}

/// Reads a price in units of 1e-9.
#[inline]
pub(super) fn parse_price(text: &[u8]) -> Result<Price, Refusal> {
    if let Some(value) = decimal_fast(text, 9)
        && let Ok(value) = i64::try_from(value)
    {
        return Ok(Price(value));
    }
    Price::parse(text).map_err(|error| refusal(&error, false))
}

/// Reads a size in units of 1e-8.
#[inline]
pub(super) fn parse_size(text: &[u8]) -> Result<Size, Refusal> {
    if let Some(value) = decimal_fast(text, 8) {
        return Ok(Size(value));
    }
    Size::parse(text).map_err(|error| refusal(&error, text.first() == Some(&b'-')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_recognised_by_magnitude() {
        let check = |text: &str, form: TimeForm, ns: u64| {
            let mut seen = TimeForm::Unknown;
            assert_eq!(seen.parse(text.as_bytes()), Ok(ns), "{text}");
            assert_eq!(seen, form, "{text}");
        };
        check("1381132800", TimeForm::Number(TimeUnit::Seconds), 1_381_132_800_000_000_000);
        check("1381132800.25", TimeForm::Number(TimeUnit::Seconds), 1_381_132_800_250_000_000);
        check("1381132800464", TimeForm::Number(TimeUnit::Millis), 1_381_132_800_464_000_000);
        check("1381132800464001", TimeForm::Number(TimeUnit::Micros), 1_381_132_800_464_001_000);
        check("1381132800464001002", TimeForm::Number(TimeUnit::Nanos), 1_381_132_800_464_001_002);
        check("2013-10-07T08:00:00.5Z", TimeForm::Text, 1_381_132_800_500_000_000);
        check("2013-10-07 08:00:00", TimeForm::Text, 1_381_132_800_000_000_000);
        check("2013-10-07T10:00:00+02:00", TimeForm::Text, 1_381_132_800_000_000_000);
        check("2013-10-07T10:00:00.000001+0200", TimeForm::Text, 1_381_132_800_000_001_000);
        check("20131007", TimeForm::Text, 1_381_104_000_000_000_000);
    }

    #[test]
    fn instants_out_of_range_are_refused() {
        for text in
            ["-1", "1969-12-31T23:59:59Z", "2262-04-12T00:00:00Z", "9999999999999999999", "", "nan", "1.x"]
        {
            let refused = TimeForm::Unknown.parse(text.as_bytes()).unwrap_err();
            assert_eq!(refused.0, RejectCause::BadTime, "{text}");
        }
        assert!(parse_number_time(b"9223372037", TimeUnit::Seconds).is_err());
        assert!(parse_number_time(b"-0.5", TimeUnit::Seconds).is_err());
    }

    proptest! {
        /// The fast path may not know an answer, but never another one than the exact reader.
        #[test]
        fn fast_and_exact_agree(text in "[0-9]{0,12}(\\.[0-9]{0,10})?") {
            let bytes = text.as_bytes();
            prop_assert_eq!(parse_price(bytes).ok(), Price::parse(bytes).ok());
            prop_assert_eq!(parse_size(bytes).ok(), Size::parse(bytes).ok());
        }
    }
}
