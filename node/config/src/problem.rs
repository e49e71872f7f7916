//! What is wrong with a text: where, what was found, what is allowed, what was perhaps meant.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// Problems shown; further ones are counted.
const SHOWN_MAX: usize = 20;
/// Bytes of a line that are looked at for an excerpt.
const EXCERPT_BYTES_MAX: usize = 160;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file is larger than a configuration may be.
    TooLarge {
        /// Most bytes.
        max: usize,
    },
    /// The bytes are no UTF-8.
    Encoding,
    /// The text is no TOML.
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// There is no such key or section.
    Unknown {
        /// Whether it stands where sections stand.
        section: bool,
        /// What there is.
        allowed: Vec<&'static str>,
        /// The most similar of these, if one is similar.
        nearest: Option<String>,
    },
    /// A value of another type.
    Type {
        /// What stands there.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value outside its range.
    Range {
        /// What stands there.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A word that is none of those allowed.
    Choice {
        /// What stands there.
        found: String,
        /// What is allowed.
        allowed: &'static [&'static str],
        /// The most similar of these, if one is similar.
        nearest: Option<String>,
    },
    /// A text that is not understood.
    Value {
        /// What stands there.
        found: String,
        /// What is allowed.
        allowed: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key that must be there is not.
    Missing {
        /// What is needed.
        need: String,
    },
    /// Two values that cannot both be.
    Conflict {
        /// What the rule is.
        why: String,
    },
    /// The second of two that must differ.
    Twice {
        /// What is there twice.
        what: String,
    },
}

impl ProblemKind {
    /// A word for it, for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Encoding => "encoding",
            Self::Syntax { .. } => "syntax",
            Self::Unknown { .. } => "unknown",
            Self::Type { .. } => "type",
            Self::Range { .. } => "range",
            Self::Choice { .. } => "choice",
            Self::Value { .. } => "value",
            Self::Missing { .. } => "missing",
            Self::Conflict { .. } => "conflict",
            Self::Twice { .. } => "twice",
        }
    }

    /// A word or two for people, to stand under the place.
    fn label(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too large",
            Self::Encoding => "no UTF-8",
            Self::Syntax { .. } => "here",
            Self::Unknown { .. } => "unknown",
            Self::Type { .. } => "of another type",
            Self::Range { .. } => "out of range",
            Self::Choice { .. } => "none of the choices",
            Self::Value { .. } => "not understood",
            Self::Missing { .. } => "not whole",
            Self::Conflict { .. } => "not possible",
            Self::Twice { .. } => "the second time",
        }
    }

    /// What is allowed there, if that can be said.
    #[must_use]
    pub fn allowed(&self) -> Option<String> {
        match self {
            Self::Unknown { allowed, .. } => Some(allowed.join(", ")),
            Self::Choice { allowed, .. } => Some(format!("one of {}", crate::value::quoted(allowed))),
            Self::Type { allowed, .. } | Self::Range { allowed, .. } | Self::Value { allowed, .. } => {
                Some(allowed.clone())
            }
            _ => None,
        }
    }

    /// What was perhaps meant.
    #[must_use]
    pub fn nearest(&self) -> Option<&str> {
        match self {
            Self::Unknown { nearest, .. } | Self::Choice { nearest, .. } => nearest.as_deref(),
            _ => None,
        }
    }
}

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, from the file's root: `engine.shards`, `stream[2].bars`. Empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub kind: ProblemKind,
    /// Bytes of the text it is about; empty for the file as a whole.
    pub at: Range<usize>,
    /// Line and column (in characters), from 1.
    pub line: usize,
    /// See `line`.
    pub column: usize,
}

impl fmt::Display for Problem {
    /// The problem in one sentence, without its place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.kind {
            ProblemKind::TooLarge { max } => {
                write!(f, "the file has more than {} KiB, the most a configuration may have", max >> 10)
            }
            ProblemKind::Encoding => f.write_str("the file is no text in UTF-8"),
            ProblemKind::Syntax { message } => write!(f, "this is no TOML: {message}"),
            ProblemKind::Unknown { section: true, .. } => write!(f, "there is no section `{key}`"),
            ProblemKind::Unknown { section: false, .. } => write!(f, "there is no key `{key}`"),
            ProblemKind::Type { found, .. }
            | ProblemKind::Choice { found, .. }
            | ProblemKind::Range { found, .. } => write!(f, "`{key}` is {found}, which is not allowed"),
            ProblemKind::Value { found, why, .. } => write!(f, "`{key}` is {found}: {why}"),
            ProblemKind::Missing { need } => write!(f, "`{key}` is not whole: {need}"),
            ProblemKind::Conflict { why } => write!(f, "`{key}` cannot be: {why}"),
            ProblemKind::Twice { what } => write!(f, "`{key}` is there already: {what}"),
        }
    }
}

impl std::error::Error for Problem {}

/// Everything wrong with a text, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The first few.
    pub list: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
    source: String,
}

impl Problems {
    /// For people: each problem with its line, a mark under it, and what to do. `path` is what the file is called.
    #[must_use]
    pub fn render(&self, path: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for problem in &self.list {
            text += &renderer.render(&[self.group(problem, path)]);
            text += "\n\n";
        }
        let count = self.list.len() + self.more;
        let problems = if count == 1 { "problem" } else { "problems" };
        text += &format!("{path}: {count} {problems}");
        if self.more > 0 {
            text += &format!(", the first {} shown", self.list.len());
        }
        text + "\n"
    }

    fn group<'a>(&'a self, problem: &'a Problem, path: &'a str) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(problem.to_string()));
        let place = annotate_snippets::Origin::path(path);
        if let Some((excerpt, at)) = self.excerpt(problem) {
            group = group.element(
                Snippet::source(excerpt)
                    .line_start(problem.line)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(at).label(problem.kind.label())),
            );
        } else {
            group = group.element(place);
        }
        if let Some(nearest) = problem.kind.nearest() {
            group = group.element(Level::HELP.message(format!("did you mean `{nearest}`?")));
        }
        if let Some(allowed) = problem.kind.allowed() {
            let words =
                if matches!(problem.kind, ProblemKind::Unknown { .. }) { "there are" } else { "allowed:" };
            group = group.element(Level::NOTE.message(format!("{words} {allowed}")));
        }
        group
    }

    /// The line a problem is about, or the part around it, and the problem's place in that.
    fn excerpt(&self, problem: &Problem) -> Option<(&str, Range<usize>)> {
        if self.source.is_empty()
            || matches!(problem.kind, ProblemKind::TooLarge { .. } | ProblemKind::Encoding)
        {
            return None;
        }
        let text = self.source.as_str();
        let floor = |mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(problem.at.start);
        let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        // A line without end is not shown from its beginning.
        let from = if start - line > EXCERPT_BYTES_MAX { floor(start - EXCERPT_BYTES_MAX / 2) } else { line };
        let to = floor(end.min(start + EXCERPT_BYTES_MAX));
        let stop = floor(problem.at.end).clamp(start, to.max(start));
        Some((&text[from..to], start - from..stop - from))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.list.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}line {}: {problem}", problem.line)?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems while a text is read.
pub(crate) struct Reader<'i> {
    source: &'i str,
    /// Key of what is being read.
    pub(crate) key: String,
    /// Whether `off` is allowed as well.
    off: bool,
    list: Vec<(Range<usize>, String, ProblemKind)>,
    more: usize,
}

impl<'i> Reader<'i> {
    pub(crate) fn new(source: &'i str) -> Self {
        Self { source, key: String::new(), off: false, list: Vec::new(), more: 0 }
    }

    /// What stands at `at`, under the key being read, is wrong.
    pub(crate) fn refuse(&mut self, at: Range<usize>, mut kind: ProblemKind) {
        // Bounded while it is collected: a file can hold a hundred thousand mistakes.
        if self.list.len() >= SHOWN_MAX {
            self.more += 1;
            return;
        }
        if self.off
            && let ProblemKind::Type { allowed, .. }
            | ProblemKind::Range { allowed, .. }
            | ProblemKind::Value { allowed, .. } = &mut kind
        {
            allowed.push_str(", or \"off\"");
        }
        self.list.push((at, self.key.clone(), kind));
    }

    /// Within it, what is allowed is that or `off`.
    pub(crate) fn offering_off<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        self.off = true;
        let value = read(self);
        self.off = false;
        value
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn problems(mut self) -> Problems {
        self.list.sort_by_key(|(at, ..)| at.start);
        let mut line = Lines { source: self.source, at: 0, line: 1 };
        let list = self.list.into_iter().map(|(at, key, kind)| {
            let (line, column) = line.place(at.start);
            Problem { key, kind, at, line, column }
        });
        Problems { list: list.collect(), more: self.more, source: self.source.to_owned() }
    }
}

/// Counts lines, forwards only.
struct Lines<'i> {
    source: &'i str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn place(&mut self, at: usize) -> (usize, usize) {
        let bytes = self.source.as_bytes();
        let at = at.min(bytes.len());
        self.line += bytes[self.at..at].iter().filter(|byte| **byte == b'\n').count();
        self.at = at;
        let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&bytes[start..at]).chars().count() + 1;
        (self.line, column)
    }
}

/// Line and column of a place in a text, from 1.
pub(crate) fn place(source: &str, at: usize) -> (usize, usize) {
    Lines { source, at: 0, line: 1 }.place(at)
}

/// The most similar of some words, if one is similar.
pub(crate) fn nearest(word: &str, words: &[&str]) -> Option<String> {
    // What is far longer than every key is similar to none.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let scored = words.iter().map(|known| (strsim::jaro_winkler(&lower, known), known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let close = strsim::osa_distance(&lower, best.1) <= 1 + best.1.len() / 4;
    (best.0 >= 0.75 || close).then(|| (*best.1).to_string())
}

/// A text that cannot be read at all.
pub(crate) fn whole(source: &str, kind: ProblemKind, at: usize) -> Problems {
    let mut reader = Reader::new(source);
    reader.refuse(at..at, kind);
    reader.problems()
}
