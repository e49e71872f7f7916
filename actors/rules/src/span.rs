//! Spans of time as rules write them.

/// Longest span of a rule: 30 days.
pub const SPAN_NS_MAX: u64 = 30 * 86_400 * 1_000_000_000;

/// Reads `500ms`, `30s`, `5m`, `2h`, `1d`: a whole number and a unit, at most 30 days. Nanoseconds.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match &text[digits..] {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit).filter(|span| (1..=SPAN_NS_MAX).contains(span))
}

/// What [`parse`] reads, in words.
pub const ALLOWED: &str = "a whole number and ms, s, m, h or d, such as 5m, up to 30d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(parse("5m"), Some(300_000_000_000));
        assert_eq!(parse("500ms"), Some(500_000_000));
        assert_eq!(parse("30d"), Some(SPAN_NS_MAX));
        for text in ["", "m", "5", "5 m", "0s", "31d", "1.5h", "-1s", "99999999999999999999s", "5M"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
