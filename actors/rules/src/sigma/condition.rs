//! The condition of a Sigma rule: `selection and not 1 of filter_*`.

use crate::expr::Expr;

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 32;
/// Words of a condition.
const WORDS_MAX: usize = 1_000;

/// Compiles a condition over named selections.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub(super) fn compile(text: &str, selections: &[(String, Expr)]) -> Result<Expr, String> {
    let words = words(text)?;
    let mut parser = Parser { words: &words, at: 0, selections };
    let expr = parser.either(0)?;
    match parser.word() {
        None => Ok(expr),
        Some(")") => Err("`)` closes nothing".to_owned()),
        Some(word) => Err(format!("`{word}` follows where `and`, `or` or the end is allowed")),
    }
}

fn words(text: &str) -> Result<Vec<&str>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '|' => {
                return Err("`|` is not supported: in place of an aggregation write a correlation (event_count, value_count, temporal)"
                    .to_owned());
            }
            _ => rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '|')).unwrap_or(rest.len()),
        };
        words.push(&rest[..length]);
        if words.len() > WORDS_MAX {
            return Err(format!("it has over {WORDS_MAX} words"));
        }
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    selections: &'a [(String, Expr)],
}

impl<'a> Parser<'a> {
    fn word(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next_is(&mut self, wanted: &str) -> bool {
        let is = self.word().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(is);
        is
    }

    fn either(&mut self, depth: usize) -> Result<Expr, String> {
        let mut parts = vec![self.both(depth)?];
        while self.next_is("or") {
            parts.push(self.both(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Any(parts) })
    }

    fn both(&mut self, depth: usize) -> Result<Expr, String> {
        let mut parts = vec![self.one(depth)?];
        while self.next_is("and") {
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested more than {DEPTH_MAX} deep"));
        }
        if self.next_is("not") {
            return Ok(Expr::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.next_is("(") {
            let inner = self.either(depth + 1)?;
            return if self.next_is(")") { Ok(inner) } else { Err("a `)` is missing".to_owned()) };
        }
        let Some(word) = self.word() else {
            return Err("it ends where a selection is expected".to_owned());
        };
        self.at += 1;
        if self.word().is_some_and(|next| next.eq_ignore_ascii_case("of")) {
            self.at += 1;
            return self.several(word);
        }
        self.selections
            .iter()
            .find(|(name, _)| name == word)
            .map(|(_, expr)| expr.clone())
            .ok_or_else(|| format!("there is no selection `{word}`; there are {}", self.listed()))
    }

    fn several(&mut self, how_many: &str) -> Result<Expr, String> {
        let all = match how_many.to_ascii_lowercase().as_str() {
            "1" | "any" => false,
            "all" => true,
            other => {
                return Err(format!(
                    "`{other} of` is not supported; allowed are `1 of`, `any of` and `all of`"
                ));
            }
        };
        let Some(which) = self.word() else {
            return Err("after `of` a selection, a name with `*`, or `them` is expected".to_owned());
        };
        self.at += 1;
        let wanted = |name: &str| match which {
            "them" => !name.starts_with('_'),
            pattern => matches(pattern.as_bytes(), name.as_bytes()),
        };
        let parts: Vec<Expr> =
            self.selections.iter().filter(|(name, _)| wanted(name)).map(|(_, expr)| expr.clone()).collect();
        match parts.len() {
            0 => Err(format!("no selection is meant by `{which}`; there are {}", self.listed())),
            _ => Ok(if all { Expr::All(parts) } else { Expr::Any(parts) }),
        }
    }

    fn listed(&self) -> String {
        let names: Vec<String> = self.selections.iter().map(|(name, _)| format!("`{name}`")).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// Names with `*`; in steps that are at most the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for &letter in pattern {
        if letter == b'*' {
            let first = reach.iter().position(|reached| *reached).unwrap_or(reach.len());
            reach[first..].fill(true);
        } else {
            for at in (0..name.len()).rev() {
                reach[at + 1] = reach[at] && name[at] == letter;
            }
            reach[0] = false;
        }
    }
    reach[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Place, Test, Text};
    use crate::record::{Key, Kind, Origin, Record};

    fn selections() -> Vec<(String, Expr)> {
        let field = |value: &str| {
            Expr::Field(
                Key::of(Kind::Http, "uri").unwrap(),
                Test::Text(Text::new(value, Place::Anywhere, false)),
            )
        };
        ["a", "b", "filter_x", "filter_y", "_hidden"]
            .iter()
            .map(|name| ((*name).to_owned(), field(&name[name.len() - 1..])))
            .collect()
    }

    fn holds(condition: &str, uri: &'static str) -> bool {
        let record = Record::new(Kind::Http, Origin::Own, 0, (1, 1)).with("uri", uri);
        compile(condition, &selections()).unwrap().holds(&record)
    }

    #[test]
    fn words_bind_as_expected() {
        assert!(holds("a or b and filter_x", "a"));
        assert!(!holds("(a or b) and filter_x", "a") && holds("(a or b) and filter_x", "bx"));
        assert!(holds("not a and b", "b") && !holds("not (a and b)", "ab") && holds("NOT NOT a", "a"));
        assert!(
            holds("1 of filter_*", "y") && !holds("all of filter_*", "y") && holds("all of filter_*", "yx")
        );
        assert!(holds("a and not 1 of filter*", "a") && !holds("a and not 1 of filter*", "ax"));
        // Names that begin with an underscore are not meant by `them`.
        assert!(!holds("1 of them", "n") && holds("1 of _*", "n") && holds("any of them", "y"));
    }

    #[test]
    fn mistakes_say_what_is_allowed() {
        let wrong = |text: &str| compile(text, &selections()).unwrap_err();
        assert!(wrong("a and c").contains("no selection `c`; there are `a`, `b`"));
        assert!(wrong("a b").contains("`b` follows"));
        assert!(wrong("").contains("ends where"));
        assert!(wrong("(a").contains("`)` is missing") && wrong("a)").contains("closes nothing"));
        assert!(wrong("3 of them").contains("`1 of`") && wrong("1 of z*").contains("no selection is meant"));
        assert!(wrong("a | count() > 5").contains("correlation"));
        assert!(wrong(&"not ".repeat(100)).contains("deep"));
        assert!(wrong(&"(".repeat(100)).contains("deep"));
    }

    #[test]
    fn stars_in_names() {
        assert!(matches(b"*", b"") && matches(b"a*c", b"abbc") && matches(b"a**", b"a"));
        assert!(!matches(b"a*c", b"ab") && !matches(b"", b"a") && !matches(b"b*", b"ab"));
    }
}
