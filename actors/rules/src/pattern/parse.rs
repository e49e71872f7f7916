//! Reading a pattern.

use super::{Groups, Pattern, STEPS_MAX, Step};
use crate::expr::{self, Compare, Expr, Place, Test, Text};
use crate::record::{Key, Kind};
use crate::set::Level;
use crate::span;
use crate::streams::{Streams, Type};
use std::fmt;

/// Longest pattern, bytes.
const TEXT_BYTES_MAX: usize = 8_192;
/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 32;
/// Most records one step may ask for.
const TIMES_MAX: usize = 100;
/// Fields of `by`, and steps of `without`.
const LIST_MAX: usize = 8;

/// A pattern that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    text: String,
    /// Where, in bytes from the start of the pattern.
    pub at: usize,
    /// Why, and what is allowed there.
    pub reason: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands around the place, on one line.
        let plain =
            |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let before: Vec<char> = plain(&self.text[..self.at]).chars().rev().take(40).collect();
        let before: String = before.into_iter().rev().collect();
        let after: String = plain(&self.text[self.at..]).chars().take(40).collect();
        writeln!(f, "at character {}: {}", self.text[..self.at].chars().count() + 1, plain(&self.reason))?;
        writeln!(f, "  {before}{after}")?;
        write!(f, "  {}^", " ".repeat(before.chars().count()))
    }
}

impl std::error::Error for PatternError {}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Mark(&'static str),
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, (usize, String)> {
    const MARKS: [&str; 10] = ["!=", "<=", ">=", "==", "=", "<", ">", "(", ")", ","];
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if let Some(mark) = MARKS.iter().find(|mark| text[at..].starts_with(**mark)) {
            tokens.push((at, Token::Mark(mark)));
            at += mark.len();
            continue;
        }
        if c == '\'' || c == '"' {
            let (mut value, mut chars) = (String::new(), text[at + 1..].char_indices());
            let end = loop {
                match chars.next() {
                    None => return Err((at, format!("the text that begins here lacks its closing {c}"))),
                    Some((end, quote)) if quote == c => break end,
                    Some((_, '\\')) => value.extend(chars.next().map(|(_, escaped)| escaped)),
                    Some((_, letter)) => value.push(letter),
                }
            };
            tokens.push((at, Token::Quoted(value)));
            at += end + 2;
            continue;
        }
        let stops =
            |c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '\'' | '"' | '=' | '!' | '<' | '>');
        let length = text[at..].find(stops).unwrap_or(text.len() - at);
        if length == 0 {
            return Err((at, format!("`{c}` means nothing here; allowed: != and texts in quotes")));
        }
        tokens.push((at, Token::Word(text[at..at + length].to_owned())));
        at += length;
    }
    Ok(tokens)
}

/// What may have been meant.
fn hint(name: &str, allowed: &[&str]) -> String {
    let near = allowed.iter().min_by_key(|other| strsim::damerau_levenshtein(name, other));
    let near = near.filter(|other| strsim::damerau_levenshtein(name, other) <= 2);
    near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

struct Parser<'a> {
    text: &'a str,
    streams: &'a Streams,
    tokens: Vec<(usize, Token)>,
    at: usize,
}

type Parsed<T> = Result<T, (usize, String)>;

pub(super) fn pattern(text: &str, streams: &Streams) -> Result<Pattern, PatternError> {
    let error = |(at, reason)| PatternError { text: text.to_owned(), at, reason };
    if text.len() > TEXT_BYTES_MAX {
        return Err(error((0, format!("it has over {TEXT_BYTES_MAX} bytes"))));
    }
    let tokens = tokens(text).map_err(error)?;
    Parser { text, streams, tokens, at: 0 }.pattern().map_err(error)
}

impl Parser<'_> {
    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |(at, _)| *at)
    }

    fn wrong<T>(&self, expected: &str) -> Parsed<T> {
        let found = match self.tokens.get(self.at) {
            None => "it ends here".to_owned(),
            Some((_, Token::Word(word) | Token::Quoted(word))) => format!("`{word}` is not expected"),
            Some((_, Token::Mark(mark))) => format!("`{mark}` is not expected"),
        };
        Err((self.place(), format!("{found}; allowed: {expected}")))
    }

    fn peek(&self) -> Option<&str> {
        match self.tokens.get(self.at) {
            Some((_, Token::Word(word))) => Some(word),
            Some((_, Token::Mark(mark))) => Some(mark),
            _ => None,
        }
    }

    fn next_is(&mut self, wanted: &str) -> bool {
        let is = self.peek().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(is);
        is
    }

    fn word(&mut self, expected: &str) -> Parsed<(usize, String)> {
        match self.tokens.get(self.at) {
            Some((at, Token::Word(word))) => {
                self.at += 1;
                Ok((*at, word.clone()))
            }
            _ => self.wrong(expected),
        }
    }

    fn pattern(mut self) -> Parsed<Pattern> {
        let mut name = None;
        if let Some((_, Token::Word(word))) = self.tokens.first()
            && let Some(found) = word.strip_suffix(':')
        {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if found.is_empty() || found.len() > 64 || !found.chars().all(fine) {
                return Err((0, format!("`{found}` is no name; allowed: up to 64 letters, digits, - _ .")));
            }
            name = Some(found.to_owned());
            self.at = 1;
        }
        let (mut steps, mut places) = (Vec::new(), Vec::new());
        loop {
            let place = self.place();
            self.steps(&mut steps)?;
            places.resize(steps.len(), place);
            if !self.next_is("then") {
                break;
            }
        }
        if !self.next_is("within") {
            return self.wrong("`then` and a further step, `times N`, or `within` and a span such as 5m");
        }
        let (at, text) = self.word(span::ALLOWED)?;
        let within_ns = span::parse(&text)
            .ok_or_else(|| (at, format!("`{text}` is no span; allowed: {}", span::ALLOWED)))?;
        let (mut without, mut by, mut level) = (Vec::new(), None, None);
        while self.at < self.tokens.len() {
            let place = self.place();
            if self.next_is("without") {
                places.push(self.place());
                without.push(self.step()?);
                if without.len() > LIST_MAX {
                    return Err((
                        place,
                        format!("there are over {LIST_MAX} of them; join conditions with `or`"),
                    ));
                }
            } else if self.next_is("by") && by.is_none() {
                by = Some(self.fields(&steps, &without)?);
            } else if self.next_is("severity") && level.is_none() {
                let (at, text) = self.word("low, medium, high")?;
                let found = match text.as_str() {
                    "low" => Level::Low,
                    "medium" => Level::Medium,
                    "high" => Level::High,
                    other => {
                        return Err((at, format!("`{other}` is no severity; allowed: low, medium, high")));
                    }
                };
                level = Some(found);
            } else {
                return self
                    .wrong("`without` and a step, `by` and fields (once), `severity` (once), or the end");
            }
        }
        let kinds = steps.iter().chain(&without).map(|step| step.kind);
        if let Some((at, why)) = self.streams.mixed(kinds.clone()) {
            return Err((places.get(at).copied().unwrap_or(0), why));
        }
        let mut by = by.unwrap_or_default();
        let of_rows = kinds.flatten().any(|kind| matches!(kind, Kind::Row(_)));
        // A match over results is always of one key.
        if let Some(entity) = Streams::entity().filter(|entity| of_rows && !by.contains(entity)) {
            by.insert(0, entity);
        }
        Ok(Pattern {
            name: name.unwrap_or_else(|| self.text.split_whitespace().collect::<Vec<_>>().join(" ")),
            text: self.text.to_owned(),
            level: level.unwrap_or(Level::Medium),
            steps,
            without,
            within_ns,
            by,
            groups: Groups::default(),
            given_up: 0,
            now: 0,
        })
    }

    /// A step, as often as it says.
    fn steps(&mut self, steps: &mut Vec<Step>) -> Parsed<()> {
        let place = self.place();
        let step = self.step()?;
        let mut times = 1;
        if self.next_is("times") {
            let expected = format!("a number from 1 to {TIMES_MAX}");
            let (at, text) = self.word(&expected)?;
            times = text
                .parse()
                .ok()
                .filter(|times| (1..=TIMES_MAX).contains(times))
                .ok_or_else(|| (at, format!("`{text}` is not between 1 and {TIMES_MAX}")))?;
        }
        if steps.len() + times > STEPS_MAX {
            return Err((place, format!("there are over {STEPS_MAX} steps, repeats counted singly")));
        }
        steps.extend(std::iter::repeat_n(step, times));
        Ok(())
    }

    fn step(&mut self) -> Parsed<Step> {
        let streams = self.streams;
        let expected = if streams.is_empty() {
            "a kind of record: flow, dns, http, alert, other or any"
        } else {
            "a kind of record (flow, dns, http, alert, other or any) or a stream of results"
        };
        let (at, word) = self.word(expected)?;
        let lower = word.to_ascii_lowercase();
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == lower);
        let kind = match known.or_else(|| streams.kind(&word)) {
            Some(kind) => Some(kind),
            None if lower == "any" => None,
            None => {
                let kinds = Kind::ALL.iter().map(|kind| kind.name()).chain(["any"]);
                let allowed: Vec<&str> = kinds.chain(streams.names()).collect();
                let what =
                    if word.contains('.') { "no stream that is computed here" } else { "no kind of record" };
                return Err((
                    at,
                    format!(
                        "`{word}` is {what}{}{}; allowed: {}",
                        hint(&word, &allowed),
                        streams.advice(&word),
                        allowed.join(", ")
                    ),
                ));
            }
        };
        let mut expr = Expr::All(Vec::new());
        if self.next_is("(") {
            expr = self.either(kind, 0)?;
            if !self.next_is(")") {
                return self.wrong("`and`, `or` or `)`");
            }
        }
        Ok(Step { kind, expr })
    }

    fn either(&mut self, kind: Option<Kind>, depth: usize) -> Parsed<Expr> {
        let mut parts = vec![self.both(kind, depth)?];
        while self.next_is("or") {
            parts.push(self.both(kind, depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Any(parts) })
    }

    fn both(&mut self, kind: Option<Kind>, depth: usize) -> Parsed<Expr> {
        let mut parts = vec![self.one(kind, depth)?];
        while self.next_is("and") {
            parts.push(self.one(kind, depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) })
    }

    fn one(&mut self, kind: Option<Kind>, depth: usize) -> Parsed<Expr> {
        if depth > DEPTH_MAX {
            return Err((self.place(), format!("it is nested more than {DEPTH_MAX} deep")));
        }
        if self.next_is("not") {
            return Ok(Expr::Not(Box::new(self.one(kind, depth + 1)?)));
        }
        if self.next_is("(") {
            let inner = self.either(kind, depth + 1)?;
            return if self.next_is(")") { Ok(inner) } else { self.wrong("`and`, `or` or `)`") };
        }
        let (key, of) = self.field(kind)?;
        self.comparison(key, of)
    }

    fn field(&mut self, kind: Option<Kind>) -> Parsed<(Key, Option<Type>)> {
        let (at, name) = self.word("a field, `not` or `(`")?;
        let kind = kind.unwrap_or(Kind::Other);
        self.streams.field(kind, &name).ok_or_else(|| {
            let mut allowed = self.streams.field_names(kind);
            let hint = hint(&name, &allowed);
            allowed.sort_unstable();
            let whose = self.streams.name_of(kind);
            (at, format!("{whose} has no field `{name}`{hint}; allowed: {}", allowed.join(", ")))
        })
    }

    fn comparison(&mut self, key: Key, of: Option<Type>) -> Parsed<Expr> {
        const OPERATORS: &str = "= != < <= > >= contains startswith endswith matches in exists";
        const NUMBERS: &str = "= != < <= > >= in exists, for the column holds numbers";
        const TEXTS: &str = "= != contains startswith endswith matches in exists, for the column holds texts";
        let Some(operator) = self.peek().map(str::to_ascii_lowercase) else { return self.wrong(OPERATORS) };
        match (of, operator.as_str()) {
            (Some(Type::Number), "contains" | "startswith" | "endswith" | "matches") => {
                return self.wrong(NUMBERS);
            }
            (Some(Type::Text), "<" | "<=" | ">" | ">=") => return self.wrong(TEXTS),
            _ => {}
        }
        let column = |(at, value): (usize, String)| match of {
            Some(Type::Number) if !value.parse::<f64>().is_ok_and(f64::is_finite) => {
                Err((at, format!("`{value}` is no number, and the column holds numbers")))
            }
            _ => Ok(value),
        };
        let text = |value: &str, place| Test::Text(Text::new(value, place, false));
        let compare = |compare, (at, value): (usize, String)| {
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            number
                .map(|number| Test::Number(compare, number))
                .ok_or_else(|| (at, format!("`{value}` is no number")))
        };
        self.at += 1;
        let test = match operator.as_str() {
            "exists" => Test::Exists(true),
            "=" | "==" => text(&column(self.value()?)?, Place::Whole),
            "!=" => {
                let test = text(&column(self.value()?)?, Place::Whole);
                return Ok(Expr::Not(Box::new(Expr::Field(key, test))));
            }
            "<" => compare(Compare::Less, self.value()?)?,
            "<=" => compare(Compare::AtMost, self.value()?)?,
            ">" => compare(Compare::Greater, self.value()?)?,
            ">=" => compare(Compare::AtLeast, self.value()?)?,
            "contains" => text(&self.value()?.1, Place::Anywhere),
            "startswith" => text(&self.value()?.1, Place::Start),
            "endswith" => text(&self.value()?.1, Place::End),
            "matches" => {
                let (at, value) = self.value()?;
                Test::Regex(expr::regex(&value, true).map_err(|why| (at, format!("`{value}`: {why}")))?)
            }
            "in" => return self.list(key, of),
            _ => {
                self.at -= 1;
                return self.wrong(OPERATORS);
            }
        };
        Ok(Expr::Field(key, test))
    }

    /// A network, or values in parentheses: networks and texts.
    fn list(&mut self, key: Key, of: Option<Type>) -> Parsed<Expr> {
        let one = |value: &str| match value.parse() {
            Ok(net) => Test::Net(net),
            Err(_) => Test::Text(Text::new(value, Place::Whole, false)),
        };
        if !self.next_is("(") {
            let (at, value) = self.value()?;
            if of == Some(Type::Number) {
                return Err((
                    at,
                    format!("`{value}` is not expected; allowed: (NUMBER, …), for the column holds numbers"),
                ));
            }
            return match value.parse() {
                Ok(net) => Ok(Expr::Field(key, Test::Net(net))),
                Err(_) => Err((
                    at,
                    format!("`{value}` is no network; allowed: a network such as 10.0.0.0/8, or (VALUE, …)"),
                )),
            };
        }
        let mut tests = Vec::new();
        loop {
            let (at, value) = self.value()?;
            if of == Some(Type::Number) && !value.parse::<f64>().is_ok_and(f64::is_finite) {
                return Err((at, format!("`{value}` is no number, and the column holds numbers")));
            }
            tests.push(Expr::Field(key.clone(), one(&value)));
            if self.next_is(")") {
                return Ok(Expr::Any(tests));
            }
            if !self.next_is(",") {
                return self.wrong("`,` or `)`");
            }
        }
    }

    fn value(&mut self) -> Parsed<(usize, String)> {
        match self.tokens.get(self.at) {
            Some((at, Token::Word(value) | Token::Quoted(value))) => {
                self.at += 1;
                Ok((*at, value.clone()))
            }
            _ => self.wrong("a value; in quotes where it has blanks or marks"),
        }
    }

    /// Fields that every kind of record in the pattern has.
    fn fields(&mut self, steps: &[Step], without: &[Step]) -> Parsed<Vec<Key>> {
        let mut keys = Vec::new();
        loop {
            let (at, name) = self.word("a field")?;
            self.at -= 1;
            let kinds: Vec<Option<Kind>> = steps.iter().chain(without).map(|step| step.kind).collect();
            let mut key = None;
            for kind in kinds {
                let before = self.at;
                key = Some(self.field(kind)?.0);
                self.at = before;
            }
            self.at += 1;
            let key = key.ok_or_else(|| (at, format!("there is no step that has `{name}`")))?;
            if keys.contains(&key) || keys.len() >= LIST_MAX {
                return Err((at, format!("a field is given once, and at most {LIST_MAX} are")));
            }
            keys.push(key);
            if !self.next_is(",") {
                return Ok(keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_parts_are_read() {
        let text = "guess.1: flow(id.resp_p = 22 and (conn_state in (REJ, 'S0') or not orig_bytes >= 10)) times 3 \
                    then flow(id.orig_h in 10.0.0.0/8 and history matches '^Sh' and service exists) within 5m \
                    without dns(query endswith \".local\") by src_ip severity high";
        let pattern = Pattern::parse(text).unwrap();
        assert_eq!((pattern.name.as_str(), pattern.steps.len(), pattern.without.len()), ("guess.1", 4, 1));
        assert_eq!((pattern.within_ns, pattern.level), (300_000_000_000, Level::High));
        assert_eq!(pattern.by[0].name(), "id.orig_h");
        assert_eq!(Pattern::parse("any  within\n1s").unwrap().name, "any within 1s");
    }

    #[test]
    fn mistakes_point_at_their_place() {
        let wrong = |text: &str| {
            let error = Pattern::parse(text).unwrap_err();
            (error.at, error.reason)
        };
        let (at, reason) = wrong("flow(id.resp_p = 22) thn flow within 5m");
        assert_eq!((at, reason.contains("`thn`"), reason.contains("`then`")), (21, true, true));
        assert!(wrong("flow").1.contains("it ends here") && wrong("").1.contains("flow, dns, http"));
        assert!(wrong("flaw within 1s").1.contains("no kind of record"));
        assert!(wrong("flow(quer = x) within 1s").1.contains("flow has no field `quer`"));
        assert!(wrong("dns(quer = x) within 1s").1.contains("did you mean `query`"));
        assert!(wrong("flow(id.resp_p ~ 2) within 1s").1.contains("startswith"));
        assert!(wrong("flow(id.resp_p > ssh) within 1s").1.contains("no number"));
        assert!(wrong("flow(id.orig_h in nowhere) within 1s").1.contains("10.0.0.0/8"));
        assert!(wrong("flow(uid matches '(') within 1s").1.contains('('));
        assert!(wrong("flow(uid = 'x) within 1s").1.contains("closing '"));
        assert!(wrong("flow(uid = x within 1s").1.contains("`and`, `or` or `)`"));
        assert!(wrong("flow within fortnight").1.contains("such as 5m"));
        assert!(wrong("flow times 0 within 1s").1.contains("between 1 and 100"));
        assert!(wrong("flow times 100 then flow times 100 within 1s").1.contains("128"));
        assert!(wrong("flow within 1s by uid by uid").1.contains("(once)"));
        assert!(wrong("flow then dns within 1s by query").1.contains("flow has no field"));
        assert!(wrong(&format!("flow({} uid = x) within 1s", "not ".repeat(50))).1.contains("deep"));
        let shown = Pattern::parse("flow within 1s wihtout dns").unwrap_err().to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find('^'), lines[1].find("wihtout"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_with_a_place(text in "([ -~]|ä|flow|dns|then|within|without|by|not|and|or|in|\\(|\\)|=|,|1s|'){0,30}") {
            match Pattern::parse(&text) {
                Ok(pattern) => prop_assert!(!pattern.steps.is_empty() && pattern.steps.len() <= STEPS_MAX),
                Err(error) => {
                    prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at));
                    prop_assert!(error.to_string().lines().count() == 3);
                }
            }
        }
    }
}
