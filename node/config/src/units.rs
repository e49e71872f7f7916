//! Amounts as people write them: `250ms`, `64KiB`, `2M`.

/// A span of time in nanoseconds: `250ms`, `1s`, `1.5s`, `5m`, `1h`, `0`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_span(text: &str) -> Result<u64, String> {
    let bad = || format!("`{}` is no span of time; write e.g. 500us, 250ms, 1.5s, 5m, 1h or 1d", short(text));
    if text == "0" {
        return Ok(0);
    }
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let unit_ns = SPANS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.len() <= 18;
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| bad())? };
    let part = u128::from(part) * u128::from(unit_ns) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(unit_ns).and_then(|ns| ns.checked_add(u64::try_from(part).ok()?)).ok_or_else(bad)
}

const SPANS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The inverse of [`parse_span`].
#[must_use]
pub fn show_span(ns: u64) -> String {
    show(ns, &SPANS, "0s")
}

/// A whole number, with `_` or `,` between digits and k, M or G behind: `2M`, `1_000_000`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let bad = || format!("`{}` is no count above 0; write e.g. 250000, 1_000_000, 250k or 2M", short(text));
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let digits: String = digits.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|&n| n > 0).ok_or_else(bad)
}

/// An amount of bytes: `512B`, `64KiB`, `16MiB`, `1GiB`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`{}` is no amount of bytes; write e.g. 512B, 64KiB, 16MiB or 1GiB", short(text));
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let unit = BYTES.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(bad)
}

const BYTES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The inverse of [`parse_bytes`].
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    show(bytes, &BYTES, "0B")
}

/// In the largest unit that loses nothing.
fn show(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    let fits = units.iter().find(|(_, unit)| amount > 0 && amount.is_multiple_of(*unit));
    fits.map_or(zero.to_owned(), |(name, unit)| format!("{}{name}", amount / unit))
}

/// What is quoted of a text in a message.
pub(crate) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut quoted: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_become_numbers() {
        for (text, want) in [("7", 7), ("2M", 2_000_000), ("1_000", 1_000), ("250k", 250_000)] {
            assert_eq!(parse_count(text), Ok(want));
        }
        for text in ["", "0", "-1", "M", "1.5", "99999999999G"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
        for (text, want) in [("0", 0), ("1s", 1_000_000_000), ("1.5ms", 1_500_000), ("2h", 7_200_000_000_000)]
        {
            assert_eq!(parse_span(text), Ok(want));
        }
        for text in ["", "1", "s", "-1s", "1.s5", "1w", "1e3s", "999999999999d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        for (text, want) in [("0B", 0), ("512B", 512), ("64KiB", 65_536), ("1GiB", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(want));
        }
        for text in ["", "64", "KiB", "-1B", "1.5MiB", "64KB", "99999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_in_the_unit_they_are_meant_in() {
        assert_eq!([0, 1_500_000, 90_000_000_000].map(show_span), ["0s", "1500us", "90s"]);
        assert_eq!([0, 1_536, 3 << 20].map(show_bytes), ["0B", "1536B", "3MiB"]);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(amount in 0u64..=1 << 55) {
            prop_assert_eq!(parse_span(&show_span(amount)), Ok(amount));
            prop_assert_eq!(parse_bytes(&show_bytes(amount)), Ok(amount));
        }
    }
}
