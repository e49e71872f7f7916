//! Conditions on one record.

use crate::record::{Key, Record, Value};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use std::net::IpAddr;
use std::sync::Arc;

/// Largest compiled regular expression, bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A condition.
#[derive(Debug, Clone)]
pub enum Expr {
    /// All of them; true where there are none.
    All(Vec<Expr>),
    /// One of them at least.
    Any(Vec<Expr>),
    /// Not that.
    Not(Box<Expr>),
    /// A part that is used in several places.
    Shared(Arc<Expr>),
    /// A field has a value that passes.
    Field(Key, Test),
}

/// What a value must be.
#[derive(Debug, Clone)]
pub enum Test {
    /// There is a value (or none, for `false`).
    Exists(bool),
    /// Text, letters of either case unless it says otherwise.
    Text(Text),
    /// A match of a regular expression somewhere in the text.
    Regex(Regex),
    /// An address inside a network.
    Net(IpNet),
    /// A number that compares so.
    Number(Compare, f64),
}

/// How numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Less.
    Less,
    /// Less or equal.
    AtMost,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
}

impl Compare {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
        }
    }
}

/// Where in the value a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the whole value.
    Whole,
    /// At its start.
    Start,
    /// At its end.
    End,
    /// Anywhere.
    Anywhere,
}

/// A text without wildcards.
#[derive(Debug, Clone)]
pub struct Text {
    text: Box<str>,
    place: Place,
    cased: bool,
    /// The text as an address and as a number, since `::1` and `0:0::1` are one, and so are `80` and `80.0`.
    address: Option<IpAddr>,
    number: Option<f64>,
}

impl Text {
    /// A text at a place; letters of either case count as the same unless `cased`.
    #[must_use]
    pub fn new(text: &str, place: Place, cased: bool) -> Self {
        let whole = place == Place::Whole;
        Self {
            address: if whole { text.parse().ok() } else { None },
            number: if whole { text.parse().ok() } else { None },
            text: text.into(),
            place,
            cased,
        }
    }

    fn holds(&self, value: &Value) -> bool {
        match value {
            Value::Ip(address) if self.place == Place::Whole => self.address == Some(*address),
            Value::Number(number) if self.place == Place::Whole => self.number == Some(*number),
            value => self.within(&value.text()),
        }
    }

    fn within(&self, value: &str) -> bool {
        let (value, text) = (value.as_bytes(), self.text.as_bytes());
        let same = |part: &[u8]| if self.cased { part == text } else { part.eq_ignore_ascii_case(text) };
        if value.len() < text.len() {
            return false;
        }
        match self.place {
            Place::Whole => same(value),
            Place::Start => same(&value[..text.len()]),
            Place::End => same(&value[value.len() - text.len()..]),
            Place::Anywhere => text.is_empty() || value.windows(text.len()).any(same),
        }
    }
}

/// A pattern with wildcards as Sigma has them: `*` any letters, `?` one, `\` before them takes their meaning. `contains` and the like
/// are a `*` at the ends.
///
/// # Errors
/// When it is too large.
pub fn wildcard(pattern: &str, place: Place, cased: bool) -> Result<Test, String> {
    let (mut parts, mut literal, mut plain) = (String::new(), String::new(), true);
    let mut chars = pattern.chars().peekable();
    let (mut from_start, mut to_end) = (true, true);
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some('*' | '?' | '\\')) => literal.extend(chars.next()),
            '*' if literal.is_empty() && plain && from_start => from_start = false,
            '*' if chars.peek().is_none() => to_end = false,
            '*' | '?' => {
                plain = false;
                parts += &regex::escape(&std::mem::take(&mut literal));
                parts += if c == '*' { ".*" } else { "." };
            }
            c => literal.push(c),
        }
    }
    from_start &= matches!(place, Place::Whole | Place::Start);
    to_end &= matches!(place, Place::Whole | Place::End);
    // Letters outside ASCII have cases that bytes do not show.
    if plain && (cased || literal.is_ascii()) {
        let place = match (from_start, to_end) {
            (true, true) => Place::Whole,
            (true, false) => Place::Start,
            (false, true) => Place::End,
            (false, false) => Place::Anywhere,
        };
        return Ok(Test::Text(Text::new(&literal, place, cased)));
    }
    parts += &regex::escape(&literal);
    let start = if from_start { "^" } else { "" };
    let end = if to_end { "$" } else { "" };
    regex(&format!("(?s){start}{parts}{end}"), cased).map(Test::Regex)
}

/// Compiles a regular expression of the crate `regex`: no backtracking, so no pattern takes long.
///
/// # Errors
/// Why it cannot be compiled.
pub fn regex(pattern: &str, cased: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(!cased)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the expression is too large".to_owned(),
            error => {
                error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        })
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Exists(_) => true,
            Self::Text(text) => text.holds(value),
            Self::Regex(regex) => regex.is_match(&value.text()),
            Self::Net(net) => value.address().is_some_and(|address| net.contains(&address)),
            Self::Number(compare, right) => value.number().is_some_and(|left| compare.holds(left, *right)),
        }
    }
}

impl Expr {
    /// Whether a record meets it.
    #[must_use]
    pub fn holds(&self, record: &Record) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(record)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(record)),
            Self::Not(part) => !part.holds(record),
            Self::Shared(part) => part.holds(record),
            Self::Field(key, Test::Exists(wanted)) => record.values(key).next().is_some() == *wanted,
            Self::Field(key, test) => record.values(key).any(|value| test.holds(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, Origin};
    use proptest::prelude::*;

    fn holds(test: &Test, value: impl Into<Value>) -> bool {
        let record = Record::new(Kind::Http, Origin::Own, 0, (1, 1)).with("uri", value);
        Expr::Field(Key::of(Kind::Http, "uri").unwrap(), test.clone()).holds(&record)
    }

    #[test]
    fn texts_stand_where_they_are_to() {
        let of = |pattern: &str, place| wildcard(pattern, place, false).unwrap();
        assert!(
            holds(&of("/Admin", Place::Whole), "/admin") && !holds(&of("/admin", Place::Whole), "/admin2")
        );
        assert!(holds(&of("/a", Place::Start), "/ab") && !holds(&of("b", Place::Start), "/ab"));
        assert!(holds(&of(".php", Place::End), "/x.PHP") && !holds(&of(".php", Place::End), "/x.php?y"));
        assert!(holds(&of("b", Place::Anywhere), "abc") && holds(&of("", Place::Anywhere), ""));
        assert!(holds(&of("a*c", Place::Whole), "abbc") && !holds(&of("a*c", Place::Whole), "abbcd"));
        assert!(holds(&of("a?c", Place::Whole), "abc") && !holds(&of("a?c", Place::Whole), "ac"));
        assert!(holds(&of(r"a\*c", Place::Whole), "a*c") && !holds(&of(r"a\*c", Place::Whole), "abc"));
        assert!(holds(&of(r"a\\*", Place::Whole), r"a\bc") && holds(&of(r"a\b", Place::Whole), r"a\b"));
        assert!(holds(&of("*x*", Place::Whole), "axb") && holds(&of("Ä?", Place::Whole), "äb"));
        assert!(!holds(&wildcard("A", Place::Whole, true).unwrap(), "a"));
        assert!(
            matches!(of("*mid*", Place::Whole), Test::Text(_)),
            "no regular expression where none is needed"
        );
    }

    #[test]
    fn numbers_addresses_and_absence() {
        assert!(holds(&wildcard("80", Place::Whole, false).unwrap(), 80.0));
        assert!(!holds(&wildcard("8", Place::Whole, false).unwrap(), 80.0));
        assert!(holds(&wildcard("0:0::1", Place::Whole, false).unwrap(), "::1".parse::<IpAddr>().unwrap()));
        assert!(holds(&Test::Net("10.0.0.0/8".parse().unwrap()), "10.1.1.1"));
        assert!(
            holds(&Test::Number(Compare::AtLeast, 7.0), "7")
                && !holds(&Test::Number(Compare::Greater, 7.0), 7.0)
        );
        assert!(holds(&Test::Exists(true), "x") && !holds(&Test::Exists(false), "x"));
        assert!(regex("(", true).is_err() && regex("(a{1000}){1000}", true).is_err());
    }

    /// Wildcards, the slow and obvious way.
    fn obvious(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| obvious(rest, &text[skip..])),
            ([b'?', rest @ ..], [_, text @ ..]) => obvious(rest, text),
            ([p, rest @ ..], [t, text @ ..]) => p == t && obvious(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn wildcards_are_what_they_seem(pattern in "[ab*?]{0,6}", text in "[ab]{0,6}") {
            let test = wildcard(&pattern, Place::Whole, true).unwrap();
            prop_assert_eq!(holds(&test, text.clone()), obvious(pattern.as_bytes(), text.as_bytes()));
            let inside = wildcard(&pattern, Place::Anywhere, true).unwrap();
            let starred = format!("*{pattern}*");
            prop_assert_eq!(holds(&inside, text.clone()), obvious(starred.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_pattern(pattern in ".{0,40}", text in ".{0,40}") {
            let _ = wildcard(&pattern, Place::Start, false).map(|test| holds(&test, text.clone()));
            let _ = regex(&pattern, false);
        }
    }
}
