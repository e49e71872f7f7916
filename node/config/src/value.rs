//! What a value may be, and how it is read and shown.

use crate::derived::{Horizon, Level, Share, Shows, Sweep, TailSpec};
use crate::problem::{ProblemKind, Reader};
use crate::units::{parse_bytes, parse_span, short, show_bytes, show_span};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use tidegate_actors::anomaly::AnomalySpec;
use tidegate_actors::indicators::IndicatorSpec;
use tidegate_actors::regime::RegimeSpec;
use tidegate_actors::runtime::{IdleStrategy, Placement, Threads};
use tidegate_actors::{BarSpec, LatePolicy, WindowSpec};
use tidegate_engine::WindowWidth;
use toml::Spanned;
use toml::de::DeValue;

/// A value as it stands in the text, with its place.
pub(crate) type Node<'i> = Spanned<DeValue<'i>>;

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Count {
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// An amount of bytes, as text.
    Bytes {
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// A span of time, as text.
    Span {
        /// Least allowed, in nanoseconds.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address with a port.
    Address,
    /// Any text of at most so many characters, for example this.
    Text(usize, &'static str),
    /// A file or folder; a relative one is meant from the folder of the configuration file.
    Path,
    /// Windows of bars.
    Bars,
    /// An indicator with its settings.
    Indicator,
    /// What to find anomalies in.
    Anomaly,
    /// A width of windows of time.
    Width,
    /// The name of a stream of ours, behind its kind.
    Name,
    /// Indicators over a range of parameters.
    Sweep,
    /// How far ahead.
    Horizon,
    /// How returns are distributed.
    Tail,
    /// A level of confidence.
    Level,
    /// A share.
    Share,
    /// That, or the word `off`.
    Off(&'static Kind),
    /// At most so many of that.
    List(&'static Kind, usize),
}

impl fmt::Display for Kind {
    /// What is allowed, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |f: &mut fmt::Formatter<'_>, what, min: String, max: String| {
            write!(f, "{what} from \"{min}\" to \"{max}\"")
        };
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Count { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Bytes { min, max } => amount(f, "an amount of bytes", show_bytes(*min), show_bytes(*max)),
            Self::Span { min, max } => amount(f, "a span of time", show_span(*min), show_span(*max)),
            Self::Choice(words) => write!(f, "one of {}", quoted(words)),
            Self::Address => f.write_str("an address such as \"127.0.0.1:7443\" or \"[::1]:0\""),
            Self::Text(chars_max, example) => {
                write!(f, "a text of 1 to {chars_max} characters such as \"{example}\"")
            }
            Self::Path => f.write_str("a path such as \"data\" or \"/var/lib/tidegate\""),
            Self::Bars => f.write_str(
                "windows such as \"1s\", \"1000t\", \"50000v\", \"1000000$\", \"session:30s\", \"sliding:1m/10s\" or \"1m@1s\"",
            ),
            Self::Indicator => f.write_str(
                "an indicator such as \"sma:20\", \"ema:20\", \"rsi:14\", \"atr:14\", \"vwap:20\", \"bb:20:2\" or \"macd:12:26:9\"",
            ),
            Self::Anomaly => f.write_str(
                "what to find anomalies in: return, range, volume or trades, with a threshold if need be, as \"volume:1.5\"",
            ),
            Self::Width => f.write_str("a width of windows such as \"10s\", \"1m\" or \"1h\""),
            Self::Name => f.write_str("a name of 1 to 32 small letters, digits and dashes such as \"rsi\", not only digits"),
            Self::Sweep => f.write_str(
                "an indicator such as \"rsi:2..30\", \"ema:5..200/5\", \"atr:14\", \"bb:10..30:2\" or \"macd:5..12:20..30:9\"",
            ),
            Self::Horizon => f.write_str("a span of time such as \"6.5h\", or a number of bars such as \"390b\""),
            Self::Tail => f.write_str("\"normal\", or \"t:N\" with N degrees of freedom from 3 to 100"),
            Self::Level => f.write_str("a level of confidence from 0.5 to below 1 such as 0.99"),
            Self::Share => f.write_str("a number above 0 and at most 1 such as 0.1"),
            Self::Off(kind) => write!(f, "{kind}, or \"off\""),
            Self::List(kind, max) => write!(f, "a list of at most {max}, each {kind}"),
        }
    }
}

pub(crate) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// One key of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name in the section.
    pub name: &'static str,
    /// What it means.
    pub about: String,
    /// What it may be.
    pub kind: Kind,
    /// What it is when it is left out, as it would be written; `None` when nothing stands for it.
    pub default: Option<String>,
    /// Whether a reload applies it.
    pub reloads: bool,
}

/// One section: a table of the file, or an array of tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionInfo {
    /// Its name: `engine`, `auth.rule`.
    pub name: &'static str,
    /// What it is about.
    pub about: String,
    /// Whether it may be written several times, as `[[name]]`.
    pub repeats: bool,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// A section's values, made by the macro in [`crate::sections`].
pub(crate) trait Section: Default + Clone {
    fn about() -> String;
    fn keys() -> Vec<Key>;
    /// Reads one of the keys. What cannot be read is a problem, and nothing changes.
    fn read(&mut self, key: &'static str, node: &Node<'_>, reader: &mut Reader<'_>);
    /// Takes one value from another section of its kind.
    fn adopt(&mut self, key: &str, other: &Self);
    /// The value as it would be written; `None` when nothing stands there.
    fn show(&self, key: &str) -> Option<String>;
}

/// A type that values are read as.
pub(crate) trait Field: Sized {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self>;
    fn show(&self) -> Option<String>;
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        Self::from_nanos(span.0)
    }
}

/// An amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A value that may be turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off<T> {
    /// `off`.
    Off,
    /// On, with this.
    On(T),
}

impl<T> Off<T> {
    /// The value, if it is on.
    pub fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

/// What stands there, for messages.
pub(crate) fn found(node: &Node<'_>) -> String {
    match node.get_ref() {
        DeValue::String(text) => format!("\"{}\"", short(text)),
        DeValue::Integer(number) => short(number.as_str()),
        DeValue::Float(number) => short(number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn text<'a>(node: &'a Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<&'a str> {
    let text = node.get_ref().as_str();
    if text.is_none() {
        reader.refuse(node.span(), ProblemKind::Type { found: found(node), allowed: kind.to_string() });
    }
    text
}

/// A text that a parser of our own reads.
fn parsed<T, E: fmt::Display>(
    node: &Node<'_>,
    kind: &Kind,
    reader: &mut Reader<'_>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    match parse(text(node, kind, reader)?) {
        Ok(value) => Some(value),
        Err(why) => {
            let (found, allowed) = (found(node), kind.to_string());
            reader.refuse(node.span(), ProblemKind::Value { found, allowed, why: why.to_string() });
            None
        }
    }
}

/// A value within the bounds of its kind.
fn bounded(value: u64, node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<u64> {
    let (Kind::Count { min, max } | Kind::Bytes { min, max } | Kind::Span { min, max }) = *kind else {
        return Some(value);
    };
    if (min..=max).contains(&value) {
        return Some(value);
    }
    reader.refuse(node.span(), ProblemKind::Range { found: found(node), allowed: kind.to_string() });
    None
}

impl Field for u64 {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Integer(number) = node.get_ref() else {
            reader.refuse(node.span(), ProblemKind::Type { found: found(node), allowed: kind.to_string() });
            return None;
        };
        // What is negative or too large for any count is out of every range.
        let digits = number.as_str().trim_start_matches('+');
        match Self::from_str_radix(digits, number.radix()) {
            Ok(value) => bounded(value, node, kind, reader),
            Err(_) => {
                let (found, allowed) = (found(node), kind.to_string());
                reader.refuse(node.span(), ProblemKind::Range { found, allowed });
                None
            }
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// Counts of other widths: their ranges fit, which a test holds true.
macro_rules! counts {
    ($($count:ty),*) => {$(
        impl Field for $count {
            fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
                <$count>::try_from(u64::read(node, kind, reader)?).ok()
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
counts!(u32, u16, usize);

impl Field for bool {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let value = node.get_ref().as_bool();
        if value.is_none() {
            reader.refuse(node.span(), ProblemKind::Type { found: found(node), allowed: kind.to_string() });
        }
        value
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for Span {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let ns = parsed(node, kind, reader, |text| {
            parse_span(text).map_err(|_| "this is no number with a unit of time")
        })?;
        bounded(ns, node, kind, reader).map(Self)
    }

    fn show(&self) -> Option<String> {
        Some(text_of(&show_span(self.0)))
    }
}

impl Field for Bytes {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let bytes = parsed(node, kind, reader, |text| {
            parse_bytes(text).map_err(|_| "this is no number with a unit of bytes")
        })?;
        bounded(bytes, node, kind, reader).map(Self)
    }

    fn show(&self) -> Option<String> {
        Some(text_of(&show_bytes(self.0)))
    }
}

impl Field for String {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let value = text(node, kind, reader)?;
        let chars_max = match *kind {
            Kind::Text(chars_max, _) => chars_max,
            Kind::Choice(words) => return chosen(value, node, words, reader),
            Kind::Name => {
                return parsed(node, kind, reader, |text| match crate::derived::is_name(text) {
                    true => Ok(text.to_owned()),
                    false => Err("it has other characters, none or too many, or is a number"),
                });
            }
            _ => return None,
        };
        if value.is_empty() || value.chars().nth(chars_max).is_some() || value.chars().any(char::is_control) {
            let (found, allowed) = (found(node), kind.to_string());
            let why = "it is empty, too long, or has control characters".to_owned();
            reader.refuse(node.span(), ProblemKind::Value { found, allowed, why });
            return None;
        }
        Some(value.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(text_of(self))
    }
}

impl Field for PathBuf {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        const BYTES_MAX: usize = 4_096;
        parsed(node, kind, reader, |text| match text {
            "" => Err("it is empty"),
            text if text.len() > BYTES_MAX => Err("it is longer than 4,096 bytes"),
            text if text.contains('\0') => Err("it holds a NUL"),
            text => Ok(Self::from(text)),
        })
    }

    fn show(&self) -> Option<String> {
        Some(text_of(&self.to_string_lossy()))
    }
}

/// One of some words.
fn chosen<T: FromStr>(
    word: &str,
    node: &Node<'_>,
    words: &'static [&'static str],
    reader: &mut Reader<'_>,
) -> Option<T> {
    if words.contains(&word)
        && let Ok(value) = word.parse()
    {
        return Some(value);
    }
    let nearest = crate::problem::nearest(word, words);
    reader.refuse(node.span(), ProblemKind::Choice { found: found(node), allowed: words, nearest });
    None
}

/// Types that have a text of their own.
macro_rules! texts {
    ($($text:ty),*) => {$(
        impl Field for $text {
            fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
                let Kind::Choice(words) = kind else {
                    return parsed(node, kind, reader, <$text>::from_str);
                };
                chosen(text(node, kind, reader)?, node, words, reader)
            }

            fn show(&self) -> Option<String> {
                Some(text_of(&self.to_string()))
            }
        }
    )*};
}
texts!(SocketAddr, Placement, Threads, IdleStrategy, LatePolicy, IndicatorSpec, RegimeSpec, AnomalySpec);
texts!(Sweep, Horizon, TailSpec, Shows);

/// Numbers that need not be whole.
macro_rules! fractions {
    ($($fraction:ident),*) => {$(
        impl Field for $fraction {
            fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
                let number = match node.get_ref() {
                    DeValue::Float(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
                    DeValue::Integer(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
                    _ => {
                        let (found, allowed) = (found(node), kind.to_string());
                        reader.refuse(node.span(), ProblemKind::Type { found, allowed });
                        return None;
                    }
                };
                let value = number.and_then(Self::of);
                if value.is_none() {
                    let (found, allowed) = (found(node), kind.to_string());
                    reader.refuse(node.span(), ProblemKind::Range { found, allowed });
                }
                value
            }

            fn show(&self) -> Option<String> {
                Some(format!("{:?}", self.0))
            }
        }
    )*};
}
fractions!(Level, Share);

impl Field for WindowSpec {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        parsed(node, kind, reader, |text| {
            text.parse().map_err(|error: tidegate_actors::windows::WindowSpecError| error.reason)
        })
    }

    fn show(&self) -> Option<String> {
        Some(text_of(&self.to_string()))
    }
}

impl Field for WindowWidth {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        parsed(node, kind, reader, |text| match text.parse::<BarSpec>() {
            Ok(BarSpec::Time(width)) => Ok(width),
            Ok(_) => Err("it is no time"),
            Err(error) => Err(error.reason),
        })
    }

    fn show(&self) -> Option<String> {
        Some(text_of(&BarSpec::Time(*self).to_string()))
    }
}

impl<T: Field> Field for Off<T> {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::Off(kind) = kind else { return None };
        match node.get_ref().as_str() {
            Some("off") => Some(Self::Off),
            _ => reader.offering_off(|reader| T::read(node, kind, reader)).map(Self::On),
        }
    }

    fn show(&self) -> Option<String> {
        match self {
            Self::Off => Some(text_of("off")),
            Self::On(value) => value.show(),
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(node, kind, reader).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref()?.show()
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(node: &Node<'_>, kind: &Kind, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::List(item, max) = *kind else { return None };
        let Some(items) = node.get_ref().as_array() else {
            reader.refuse(node.span(), ProblemKind::Type { found: found(node), allowed: kind.to_string() });
            return None;
        };
        if items.len() > max {
            let found = format!("a list of {}", items.len());
            reader.refuse(node.span(), ProblemKind::Range { found, allowed: kind.to_string() });
            return None;
        }
        let mut whole = true;
        let mut values = Self::with_capacity(items.len());
        for node in items.iter() {
            match T::read(node, item, reader) {
                Some(value) => values.push(value),
                None => whole = false,
            }
        }
        whole.then_some(values)
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(Field::show).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A text as TOML has it.
pub(crate) fn text_of(text: &str) -> String {
    // JSON's escapes are TOML's, `\/` aside, which is never written; TOML wants one more.
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007f")
}
