//! Quantities with their unit in the type: instants, prices, sizes, window widths.
//!
//! Everything replicas must agree on is an integer. Text becomes a number here, once and checked:
//! [`Price::parse`] and [`Size::parse`] read decimal text exactly or refuse it.

use std::fmt;
use std::num::NonZeroU64;

/// Units of [`Price`] in 1.0 of the quote currency.
pub const PRICE_SCALE: i64 = 1_000_000_000;
/// Units of [`Size`] in 1.0 of the traded thing.
pub const SIZE_SCALE: u64 = 100_000_000;

/// Why a text or number could not become a quantity. Says what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The text is no decimal number.
    #[error("`{text}` is not a decimal number")]
    NotANumber {
        /// The offending text, shortened.
        text: String,
    },
    /// The number is NaN or infinite.
    #[error("{what} is not finite: `{text}`")]
    NotFinite {
        /// Which quantity was read.
        what: &'static str,
        /// The offending text, shortened.
        text: String,
    },
    /// The number has more decimals than the unit can hold exactly.
    #[error("{what} `{text}` has more than {decimals} decimals")]
    TooPrecise {
        /// Which quantity was read.
        what: &'static str,
        /// The offending text, shortened.
        text: String,
        /// How many decimals the unit keeps.
        decimals: u32,
    },
    /// The number is outside the range of the unit.
    #[error("{what} `{text}` is outside {min} to {max}")]
    OutOfRange {
        /// Which quantity was read.
        what: &'static str,
        /// The offending text, shortened.
        text: String,
        /// Smallest allowed value.
        min: &'static str,
        /// Largest allowed value.
        max: &'static str,
    },
}

fn shorten(text: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    let cut = &text[..text.len().min(SHOWN_MAX)];
    let mut shown: String = String::from_utf8_lossy(cut).chars().filter(|c| !c.is_control()).collect();
    if text.len() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}

/// Venue timestamp: nanoseconds since the Unix epoch, UTC. Orders events; never our own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EventTime(pub u64);

impl EventTime {
    /// Latest instant an event may carry: 2262-04-11T23:47:16.854775807Z, the end of signed 64-bit
    /// nanoseconds. The upper half of `u64` is kept free for sentinels and wrap-safe comparisons.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Checks a signed nanosecond count as files carry it.
    ///
    /// # Errors
    /// [`UnitError::OutOfRange`] when it lies before 1970.
    pub fn from_signed(ns: i64) -> Result<Self, UnitError> {
        u64::try_from(ns).map(Self).map_err(|_| Self::out_of_range(&ns.to_string()))
    }

    /// Checks an unsigned nanosecond count.
    ///
    /// # Errors
    /// [`UnitError::OutOfRange`] when it lies after [`EventTime::MAX`].
    pub fn from_unsigned(ns: u64) -> Result<Self, UnitError> {
        if ns > Self::MAX.0 { Err(Self::out_of_range(&ns.to_string())) } else { Ok(Self(ns)) }
    }

    fn out_of_range(text: &str) -> UnitError {
        UnitError::OutOfRange {
            what: "timestamp",
            text: text.to_owned(),
            min: "1970-01-01T00:00:00Z",
            max: "2262-04-11T23:47:16Z",
        }
    }

    /// Start of the tumbling window `[start, start + width)` that holds this instant.
    #[must_use]
    pub const fn window_start(self, width: WindowWidth) -> Self {
        Self(self.0 - self.0 % width.0.get())
    }
}

/// Width of a time window in nanoseconds; zero cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct WindowWidth(NonZeroU64);

impl WindowWidth {
    /// One second.
    pub const SECOND: Self = Self(NonZeroU64::new(1_000_000_000).unwrap());
    /// Widest window: 366 days. Bounds `start + width` far below the sentinel half of `u64`.
    pub const NS_MAX: u64 = 366 * 86_400 * 1_000_000_000;

    /// A width of `ns` nanoseconds, or `None` when it is zero or over [`WindowWidth::NS_MAX`].
    #[must_use]
    pub const fn from_ns(ns: u64) -> Option<Self> {
        if ns > Self::NS_MAX {
            return None;
        }
        match NonZeroU64::new(ns) {
            Some(ns) => Some(Self(ns)),
            None => None,
        }
    }

    /// The width in nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0.get()
    }
}

/// Price in 1e-9 of the quote currency, so sums and comparisons are exact on every replica.
/// Negative prices are real (spreads, power, oil in April 2020) and allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Price(pub i64);

/// Traded amount in 1e-8 of the thing traded. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Size(pub u64);

impl Price {
    /// Reads decimal text such as `167.41`, `-0.5` or `1.5e3` exactly.
    ///
    /// # Errors
    /// Any [`UnitError`]: not a number, not finite, more than 9 decimals, out of range.
    pub fn parse(text: &[u8]) -> Result<Self, UnitError> {
        let range = ("-9223372036.854775808", "9223372036.854775807");
        let scaled = parse_decimal(text, 9, "price", range)?;
        i64::try_from(scaled).map(Self).map_err(|_| out_of_range("price", text, range))
    }

    /// Converts a float to the nearest unit, for sources that only have floats.
    ///
    /// # Errors
    /// [`UnitError::NotFinite`] and [`UnitError::OutOfRange`].
    pub fn from_f64(value: f64) -> Result<Self, UnitError> {
        let range = ("-9223372036.854775808", "9223372036.854775807");
        let scaled = scale_f64(value, PRICE_SCALE as f64, "price", range, -(2f64.powi(63)), 2f64.powi(63))?;
        Ok(Self(scaled as i64))
    }

    /// The price as a float, for indicators.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / PRICE_SCALE as f64
    }
}

impl Size {
    /// Reads decimal text such as `100` or `0.00310000` exactly.
    ///
    /// # Errors
    /// Any [`UnitError`]: not a number, not finite, negative, more than 8 decimals, out of range.
    pub fn parse(text: &[u8]) -> Result<Self, UnitError> {
        let range = ("0", "184467440737.09551615");
        let scaled = parse_decimal(text, 8, "size", range)?;
        u64::try_from(scaled).map(Self).map_err(|_| out_of_range("size", text, range))
    }

    /// Converts a float to the nearest unit, for sources that only have floats.
    ///
    /// # Errors
    /// [`UnitError::NotFinite`] and [`UnitError::OutOfRange`] (negative values included).
    pub fn from_f64(value: f64) -> Result<Self, UnitError> {
        let range = ("0", "184467440737.09551615");
        let scaled = scale_f64(value, SIZE_SCALE as f64, "size", range, 0.0, 2f64.powi(64))?;
        Ok(Self(scaled as u64))
    }

    /// `count` whole things, for sources that count lots or shares.
    ///
    /// # Errors
    /// [`UnitError::OutOfRange`] over 184,467,440,737.
    pub fn from_whole(count: u64) -> Result<Self, UnitError> {
        let range = ("0", "184467440737.09551615");
        count
            .checked_mul(SIZE_SCALE)
            .map(Self)
            .ok_or_else(|| out_of_range("size", count.to_string().as_bytes(), range))
    }
}

fn out_of_range(what: &'static str, text: &[u8], range: (&'static str, &'static str)) -> UnitError {
    UnitError::OutOfRange { what, text: shorten(text), min: range.0, max: range.1 }
}

fn scale_f64(
    value: f64,
    scale: f64,
    what: &'static str,
    range: (&'static str, &'static str),
    min: f64,
    end: f64,
) -> Result<f64, UnitError> {
    if !value.is_finite() {
        return Err(UnitError::NotFinite { what, text: value.to_string() });
    }
    let scaled = (value * scale).round();
    if scaled < min || scaled >= end {
        return Err(out_of_range(what, value.to_string().as_bytes(), range));
    }
    Ok(scaled)
}

/// Exact decimal reader: optional sign, digits, optional fraction, optional exponent.
/// Returns the value in units of `10^-decimals`.
fn parse_decimal(
    text: &[u8],
    decimals: u32,
    what: &'static str,
    range: (&'static str, &'static str),
) -> Result<i128, UnitError> {
    let not_a_number = || UnitError::NotANumber { text: shorten(text) };
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut mantissa: i128 = 0;
    let mut fraction_digits: i32 = 0;
    let mut seen_point = false;
    let mut seen_digit = false;
    let mut exponent: i32 = 0;
    let mut at = 0;
    while at < digits.len() {
        match digits[at] {
            digit @ b'0'..=b'9' => {
                seen_digit = true;
                if seen_point {
                    // Trailing zeros carry no information; they must not count against the precision.
                    if digit == b'0' && digits[at..].iter().all(|&b| b == b'0') {
                        break;
                    }
                    fraction_digits += 1;
                }
                mantissa = mantissa * 10 + i128::from(digit - b'0');
                if mantissa >= 10i128.pow(36) {
                    return Err(out_of_range(what, text, range));
                }
            }
            b'.' if !seen_point => seen_point = true,
            b'e' | b'E' if seen_digit => {
                exponent = std::str::from_utf8(&digits[at + 1..])
                    .ok()
                    .and_then(|e| e.parse::<i32>().ok())
                    .filter(|e| e.abs() <= 400)
                    .ok_or_else(not_a_number)?;
                break;
            }
            _ => {
                let lower = digits.to_ascii_lowercase();
                return Err(if matches!(lower.as_slice(), b"nan" | b"inf" | b"infinity") {
                    UnitError::NotFinite { what, text: shorten(text) }
                } else {
                    not_a_number()
                });
            }
        }
        at += 1;
    }
    if !seen_digit {
        return Err(not_a_number());
    }
    let mut shift = decimals as i32 + exponent - fraction_digits;
    while shift < 0 && mantissa != 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        shift += 1;
    }
    if mantissa == 0 {
        return Ok(0);
    }
    if shift < 0 {
        return Err(UnitError::TooPrecise { what, text: shorten(text), decimals });
    }
    let scaled = 10i128
        .checked_pow(shift as u32)
        .and_then(|factor| mantissa.checked_mul(factor))
        .ok_or_else(|| out_of_range(what, text, range))?;
    Ok(if negative { -scaled } else { scaled })
}

fn fmt_decimal(f: &mut fmt::Formatter<'_>, negative: bool, magnitude: u128, decimals: u32) -> fmt::Result {
    let unit = 10u128.pow(decimals);
    let (whole, fraction) = (magnitude / unit, magnitude % unit);
    if negative {
        f.write_str("-")?;
    }
    write!(f, "{whole}")?;
    if fraction != 0 {
        let padded = format!("{fraction:0width$}", width = decimals as usize);
        write!(f, ".{}", padded.trim_end_matches('0'))?;
    }
    Ok(())
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_decimal(f, self.0 < 0, u128::from(self.0.unsigned_abs()), 9)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_decimal(f, false, u128::from(self.0), 8)
    }
}

/// A sum of sizes, in the same unit as [`Size`]; printed as decimal text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Volume(pub u128);

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_decimal(f, false, self.0, 8)
    }
}

/// Exact sum of price times size, in 1e-17 of the quote currency. `i128` holds 1.7e21 of it: a million years of the
/// world's trading, or two trades of the largest price and size there are, after which it wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Notional(pub i128);

/// Largest notional of one trade, 1e-17: 10^14 whole units of the quote currency. A sum of `i128` then holds sixteen
/// million trades of that size, so no bar of real trades overflows.
pub const TRADE_NOTIONAL_MAX: i128 = 100_000_000_000_000 * PRICE_SCALE as i128 * SIZE_SCALE as i128;

/// Two factors below this make no product beyond [`TRADE_NOTIONAL_MAX`], whatever they are of: one comparison of many factors
/// at once in place of a product of each two.
pub const MODEST_FACTOR: u64 = 1 << 51;

const _: () = assert!((MODEST_FACTOR as i128 - 1) * (MODEST_FACTOR as i128 - 1) <= TRADE_NOTIONAL_MAX);

impl Notional {
    /// The exact product, in 1e-17.
    ///
    /// # Errors
    /// [`UnitError::OutOfRange`] when it is beyond [`TRADE_NOTIONAL_MAX`] either way.
    #[inline]
    pub fn of(price: Price, size: Size) -> Result<Self, UnitError> {
        let product = i128::from(price.0) * i128::from(size.0);
        if product.unsigned_abs() <= TRADE_NOTIONAL_MAX.unsigned_abs() {
            return Ok(Self(product));
        }
        Err(UnitError::OutOfRange {
            what: "price times size",
            text: format!("{price} * {size}"),
            min: "-100000000000000",
            max: "100000000000000",
        })
    }

    /// The exact quotient rounded half away from zero to a price unit, or `None` for zero volume.
    /// Rounding a mean of values in `[low, high]` stays in `[low, high]`.
    #[must_use]
    pub fn vwap(self, volume: Volume) -> Option<Price> {
        let volume = i128::try_from(volume.0).ok().filter(|&v| v > 0)?;
        let (quotient, remainder) = (self.0 / volume, self.0 % volume);
        let round =
            i128::from(remainder.unsigned_abs() >= volume.unsigned_abs().div_ceil(2)) * self.0.signum();
        i64::try_from(quotient + round).ok().map(Price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trade_no_bar_could_sum_is_refused() {
        let most = Price(100_000 * PRICE_SCALE);
        assert_eq!(Notional::of(most, Size(1_000_000_000 * SIZE_SCALE)).unwrap().0, TRADE_NOTIONAL_MAX);
        assert!(Notional::of(most, Size(1_000_000_000 * SIZE_SCALE + 1)).is_err());
        assert!(Notional::of(Price(-most.0), Size(1_000_000_000 * SIZE_SCALE)).is_ok());
        let error = Notional::of(Price(i64::MIN), Size(u64::MAX)).unwrap_err().to_string();
        assert!(
            error.starts_with("price times size `-9223372036.854775808 * 184467440737.09551615` is"),
            "{error}"
        );
        // Sixteen million of the largest fit, the sign included.
        assert!(TRADE_NOTIONAL_MAX.checked_mul(16_000_000).is_some());
    }

    #[test]
    fn prices_are_read_exactly() {
        let check =
            |text: &str, want: i64| assert_eq!(Price::parse(text.as_bytes()), Ok(Price(want)), "{text}");
        check("167.4100", 167_410_000_000);
        check("-0.5", -500_000_000);
        check("+1e3", 1_000_000_000_000);
        check("0.000000001", 1);
        check("0.0000000010000", 1);
        check("9223372036.854775807", i64::MAX);
        check("-9223372036.854775808", i64::MIN);
        check("12.5E-2", 125_000_000);
        check("1000e-3", 1_000_000_000);
        check(".5", 500_000_000);
        check("5.", 5_000_000_000);
    }

    #[test]
    fn bad_numbers_are_refused_by_kind() {
        let price = |text: &str| Price::parse(text.as_bytes()).unwrap_err();
        for text in ["", "-", ".", "abc", "1.2.3", "1,5", "1e", "0x10", "e5", "1 "] {
            assert!(matches!(price(text), UnitError::NotANumber { .. }), "{text}: {:?}", price(text));
        }
        for text in ["NaN", "-inf", "Infinity"] {
            assert!(matches!(price(text), UnitError::NotFinite { .. }), "{text}");
        }
        assert!(matches!(price("0.0000000001"), UnitError::TooPrecise { .. }));
        assert!(matches!(price("1e-300"), UnitError::TooPrecise { .. }));
        for text in ["9223372036.854775808", "1e300", "99999999999999999999999999999999999999999"] {
            assert!(matches!(price(text), UnitError::OutOfRange { .. }), "{text}");
        }
        assert!(matches!(Size::parse(b"-1"), Err(UnitError::OutOfRange { .. })));
        assert!(matches!(Size::parse(b"1e12"), Err(UnitError::OutOfRange { .. })));
        assert_eq!(Size::parse(b"-0"), Ok(Size(0)));
        assert!(matches!(Price::from_f64(f64::NAN), Err(UnitError::NotFinite { .. })));
        assert!(matches!(Price::from_f64(1e10), Err(UnitError::OutOfRange { .. })));
        assert!(matches!(Size::from_f64(-1e-3), Err(UnitError::OutOfRange { .. })));
    }

    #[test]
    fn text_round_trips() {
        for units in [0, 1, -1, i64::MAX, i64::MIN, 167_410_000_000, -1_000_000_001] {
            assert_eq!(Price::parse(Price(units).to_string().as_bytes()), Ok(Price(units)));
        }
        for units in [0, 1, u64::MAX, SIZE_SCALE, 310_000] {
            assert_eq!(Size::parse(Size(units).to_string().as_bytes()), Ok(Size(units)));
        }
    }

    #[test]
    fn vwap_rounds_half_away_and_needs_volume() {
        assert_eq!(Notional(10).vwap(Volume(0)), None);
        assert_eq!(Notional(7).vwap(Volume(2)), Some(Price(4)));
        assert_eq!(Notional(-7).vwap(Volume(2)), Some(Price(-4)));
        assert_eq!(Notional(4).vwap(Volume(3)), Some(Price(1)));
        assert_eq!(Notional(5).vwap(Volume(3)), Some(Price(2)));
    }

    #[test]
    fn window_starts_are_multiples_of_the_width() {
        assert_eq!(EventTime(1_999_999_999).window_start(WindowWidth::SECOND), EventTime(1_000_000_000));
        assert_eq!(WindowWidth::from_ns(0), None);
        assert_eq!(WindowWidth::from_ns(WindowWidth::NS_MAX + 1), None);
    }
}
