//! YAML as rules use it: plain trees whose nodes know their line. Anchors, aliases, tags and keys given twice are refused, and so is what
//! is deeper or larger than any rule.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deepest nesting.
pub const DEPTH_MAX: usize = 32;
/// Nodes of one text.
pub const NODES_MAX: usize = 200_000;
/// Bytes of one text.
pub const BYTES_MAX: usize = 4 << 20;

/// A place in a text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub what: What,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Text, quoted or plain; plain text may stand for a number, a truth value or nothing.
    Scalar {
        /// The text.
        text: String,
        /// In quotes or a block, so that it is text whatever it looks like.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Names and values, in order.
    Map(Vec<(String, Place, Node)>),
}

impl Node {
    /// What it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.what {
            What::Scalar { .. } => "a value",
            What::List(_) => "a list",
            What::Map(_) => "a map",
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.what {
            What::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is YAML's nothing: `null`, `~`, or left empty.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.what, What::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A value of a map.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.what {
            What::Map(entries) => entries.iter().find(|(key, _, _)| key == name).map(|(_, _, node)| node),
            _ => None,
        }
    }
}

/// Why a text is no such YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Where.
    pub place: Place,
    /// Why.
    pub reason: String,
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

/// A list or map that is not closed yet.
enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<(String, Place, Node)>, Option<(String, Place)>),
}

/// Reads every document of a text. A document without content is left out.
///
/// # Errors
/// [`YamlError`] with the first place that is none.
pub fn read(text: &str) -> Result<Vec<Node>, YamlError> {
    let wrong = |place: Place, reason: &str| YamlError { place, reason: reason.to_owned() };
    if text.len() > BYTES_MAX {
        return Err(wrong(Place { line: 1, column: 1 }, &format!("it has over {BYTES_MAX} bytes")));
    }
    let (mut documents, mut open, mut nodes) = (Vec::new(), Vec::<Open>::new(), 0);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let place = Place { line: marker.line().max(1), column: marker.col() + 1 };
            wrong(place, &format!("no YAML: {}", error.info()))
        })?;
        let place = place(&span);
        let node = match event {
            Event::Alias(_) => return Err(wrong(place, "aliases are not taken here: write it out")),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                return Err(wrong(place, "anchors are not taken here: write it out"));
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(wrong(place, "tags are not taken here"));
            }
            Event::Scalar(text, style, _, _) => Node {
                place,
                what: What::Scalar { text: text.into_owned(), quoted: style != ScalarStyle::Plain },
            },
            Event::SequenceStart(..) => {
                open.push(Open::List(place, Vec::new()));
                if open.len() > DEPTH_MAX {
                    return Err(wrong(place, &format!("it is nested more than {DEPTH_MAX} deep")));
                }
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(place, Vec::new(), None));
                if open.len() > DEPTH_MAX {
                    return Err(wrong(place, &format!("it is nested more than {DEPTH_MAX} deep")));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(place, items)) => Node { place, what: What::List(items) },
                Some(Open::Map(place, entries, _)) => Node { place, what: What::Map(entries) },
                None => return Err(wrong(place, "no YAML: something ends that did not begin")),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {
                continue;
            }
        };
        nodes += 1;
        if nodes > NODES_MAX {
            return Err(wrong(place, &format!("it has over {NODES_MAX} values")));
        }
        match open.last_mut() {
            None if node.is_null() => {}
            None => documents.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match (key.take(), node) {
                (Some((name, at)), node) => entries.push((name, at, node)),
                (None, Node { place, what: What::Scalar { text, .. } }) => {
                    if entries.iter().any(|(name, _, _)| *name == text) {
                        return Err(wrong(place, &format!("`{text}` is there twice")));
                    }
                    *key = Some((text, place));
                }
                (None, node) => return Err(wrong(node.place, "a name must be a plain text")),
            },
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trees_know_their_lines() {
        let documents = read("a: 1\nb:\n  - x\n  - 'null'\n---\nc: {d: ~}\n").unwrap();
        assert_eq!(documents.len(), 2);
        let list = documents[0].get("b").unwrap();
        let What::List(items) = &list.what else { panic!("{list:?}") };
        assert_eq!((items[0].text(), items[0].place), (Some("x"), Place { line: 3, column: 5 }));
        assert!(!items[1].is_null() && documents[1].get("c").unwrap().get("d").unwrap().is_null());
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let reason = |text: &str| {
            let error = read(text).unwrap_err();
            (error.place.line, error.reason)
        };
        assert!(reason("a: 1\na: 2\n").1.contains("`a` is there twice"));
        assert!(reason("x: &y 1\nz: *y\n").1.contains("anchors"));
        assert!(reason("x: !!int 1\n").1.contains("tags"));
        assert!(reason("a: 1\nb: [1\nc: 2\n").1.contains("no YAML"));
        assert_eq!(reason("a: 1\nb: &c 1\n").0, 2);
        assert!(reason(&"[".repeat(100)).1.contains("deep"));
        assert!(reason("? [a]\n: b\n").1.contains("plain text"));
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("# nothing\n---\n").unwrap(), []);
    }

    proptest! {
        #[test]
        fn any_text(text in "[-:{}\\[\\],&*!|>'\"%#? \na-c0-9]{0,80}") {
            let _ = read(&text);
        }
    }
}
