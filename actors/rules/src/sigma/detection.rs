//! The selections of a Sigma rule.

use super::{At, RuleError, Source, condition, unknown};
use crate::expr::{self, Compare, Expr, Place as Where, Test};
use crate::record::{Key, Kind};
use crate::streams::{Streams, Type};
use crate::yaml::{Node, What};

const MODIFIERS: [&str; 12] =
    ["contains", "startswith", "endswith", "all", "re", "cidr", "gt", "gte", "lt", "lte", "exists", "cased"];

/// Compiles a `detection`.
pub(super) fn compile(at: &At<'_>, node: &Node, source: (Source, &Streams)) -> Result<Expr, RuleError> {
    let mut selections = Vec::new();
    let mut text = None;
    for (name, place, node) in at.map(node)? {
        match name.as_str() {
            "condition" => {
                let at = at.under(name);
                if matches!(node.what, What::List(_)) {
                    return Err(
                        at.error(node.place, "several conditions are not supported; join them with `or`")
                    );
                }
                text = Some((at.text(node)?, node.place));
            }
            "timeframe" => {
                let why = "it is not supported; write a correlation with a `timespan`";
                return Err(at.under(name).error(*place, why));
            }
            name => {
                let part = selection(&at.under(name), node, source)?;
                selections.push((name.to_owned(), Expr::Shared(part.into())));
            }
        }
    }
    let (text, place) =
        text.ok_or_else(|| at.under("condition").error(node.place, "every detection needs a condition"))?;
    condition::compile(text, &selections).map_err(|reason| at.under("condition").error(place, reason))
}

fn selection(at: &At<'_>, node: &Node, source: (Source, &Streams)) -> Result<Expr, RuleError> {
    match &node.what {
        What::Map(entries) if !entries.is_empty() => {
            let fields = entries
                .iter()
                .map(|(name, place, value)| field(&at.under(name), name, *place, value, source));
            Ok(Expr::All(fields.collect::<Result<_, _>>()?))
        }
        What::List(items) if !items.is_empty() => {
            let parts = items.iter().map(|item| match &item.what {
                What::Map(_) => selection(at, item, source),
                _ => Err(at.error(
                    item.place,
                    "keywords without a field are not supported; a map of fields is expected",
                )),
            });
            Ok(Expr::Any(parts.collect::<Result<_, _>>()?))
        }
        _ => Err(at.error(node.place, "a map of fields, or a list of such maps, is expected")),
    }
}

/// How a field's values are compared.
#[derive(Default)]
struct How {
    place: Option<Where>,
    all: bool,
    cased: bool,
    other: Option<&'static str>,
}

fn field(
    at: &At<'_>,
    name: &str,
    place: crate::yaml::Place,
    node: &Node,
    (source, streams): (Source, &Streams),
) -> Result<Expr, RuleError> {
    let mut parts = name.split('|');
    let field = parts.next().unwrap_or_default();
    let kind = if source.origin.is_some() { Kind::Other } else { source.kind.unwrap_or(Kind::Other) };
    let (key, of) = streams.field(kind, field).ok_or_else(|| {
        let whose = streams.name_of(kind);
        at.error(
            place,
            format!("records of {whose} have no such field: {}", unknown(field, &streams.field_names(kind))),
        )
    })?;
    let mut how = How::default();
    for modifier in parts {
        let known = MODIFIERS.iter().find(|known| **known == modifier);
        let known = *known.ok_or_else(|| at.error(place, unknown(modifier, &MODIFIERS)))?;
        match known {
            "all" => how.all = true,
            "cased" => how.cased = true,
            _ if how.place.is_some() || how.other.is_some() => {
                return Err(
                    at.error(place, format!("`{known}` cannot be joined with the modifier before it"))
                );
            }
            "contains" => how.place = Some(Where::Anywhere),
            "startswith" => how.place = Some(Where::Start),
            "endswith" => how.place = Some(Where::End),
            other => how.other = Some(other),
        }
    }
    let of_texts = how.place.is_some() || how.cased || matches!(how.other, Some("re" | "cidr"));
    let of_numbers = matches!(how.other, Some("gt" | "gte" | "lt" | "lte"));
    match of {
        Some(Type::Number) if of_texts => {
            let why =
                "the column holds numbers; allowed: a number as it is, or with gt, gte, lt, lte, exists";
            return Err(at.error(place, why));
        }
        Some(Type::Text) if of_numbers => {
            let why = "the column holds texts; allowed: contains, startswith, endswith, re, cidr, exists, cased, all";
            return Err(at.error(place, why));
        }
        _ => {}
    }
    let values: Vec<&Node> = match &node.what {
        What::List(items) if items.is_empty() => {
            return Err(at.error(node.place, "the list of values is empty"));
        }
        What::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    let tests =
        values.into_iter().map(|value| test(at, (&key, of), &how, value)).collect::<Result<Vec<_>, _>>()?;
    Ok(if how.all { Expr::All(tests) } else { Expr::Any(tests) })
}

fn test(at: &At<'_>, (key, of): (&Key, Option<Type>), how: &How, node: &Node) -> Result<Expr, RuleError> {
    let wrong = |reason: String| at.error(node.place, reason);
    let text = at.text(node)?;
    let test = match how.other {
        None if node.is_null() && how.place.is_none() => Test::Exists(false),
        None if of == Some(Type::Number) && !text.parse::<f64>().is_ok_and(f64::is_finite) => {
            return Err(wrong(format!("`{text}` is no number, and the column holds numbers")));
        }
        None => expr::wildcard(text, how.place.unwrap_or(Where::Whole), how.cased).map_err(wrong)?,
        // Sigma's expressions are exact about case.
        Some("re") => Test::Regex(expr::regex(text, true).map_err(|why| wrong(format!("`{text}`: {why}")))?),
        Some("cidr") => {
            let net =
                text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into));
            Test::Net(
                net.map_err(|_| wrong(format!("`{text}` is no network such as 10.0.0.0/8 or fd00::/8")))?,
            )
        }
        Some("exists") => match text {
            "true" | "yes" => Test::Exists(true),
            "false" | "no" => Test::Exists(false),
            other => return Err(wrong(format!("`{other}` is neither true nor false"))),
        },
        Some(compare) => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            let number =
                number.ok_or_else(|| wrong(format!("`{text}` is no number, which `{compare}` needs")))?;
            let compare = match compare {
                "gt" => Compare::Greater,
                "gte" => Compare::AtLeast,
                "lt" => Compare::Less,
                _ => Compare::AtMost,
            };
            Test::Number(compare, number)
        }
    };
    Ok(Expr::Field(key.clone(), test))
}

#[cfg(test)]
mod tests {
    use crate::record::{Kind, Origin, Record};
    use crate::sigma::compile;

    fn rule(selection: &str) -> String {
        format!(
            "title: t\nlogsource: {{category: proxy}}\ndetection:\n  s:\n    {}\n  condition: s\n",
            selection.replace('\n', "\n    ")
        )
    }

    fn holds(selection: &str, uri: &'static str) -> bool {
        let compiled = compile(&[("r".to_owned(), rule(selection))]).unwrap();
        let record =
            Record::new(Kind::Http, Origin::Own, 0, (1, 1)).with("uri", uri).with("status_code", 404.0);
        compiled.rules[0].expr.holds(&record)
    }

    #[test]
    fn modifiers_and_lists() {
        assert!(
            holds("uri|contains: [x, admin]", "/Admin") && !holds("uri|contains|all: [x, admin]", "/admin")
        );
        assert!(holds("uri|contains|all: [x, admin]", "/admin/x"));
        assert!(
            holds("c-uri|startswith: /a\nsc-status: 404", "/ab") && !holds("uri: /a\nstatus_code: 200", "/a")
        );
        assert!(holds("uri|endswith|cased: .PHP", "x.PHP") && !holds("uri|endswith|cased: .PHP", "x.php"));
        assert!(holds("uri|re: '^/[0-9]{3}$'", "/123") && !holds("uri|re: '^/A'", "/a"));
        assert!(holds("status_code|gte: 400\nstatus_code|lt: 500", "") && !holds("status_code|gt: 404", ""));
        assert!(holds("- uri: /a\n- uri: /b", "/b") && !holds("- uri: /a\n- uri: /b", "/c"));
        assert!(
            holds("user_agent: null", "")
                && !holds("uri: null", "x")
                && holds("user_agent|exists: false", "")
        );
        assert!(!holds("uri: 'null'", ""), "a quoted null is text");
    }

    #[test]
    fn refused() {
        let wrong =
            |selection: &str| compile(&[("r".to_owned(), rule(selection))]).unwrap_err()[0].to_string();
        assert!(wrong("uri|re: '('").contains("r:5"));
        assert!(wrong("uri|base64: x").contains("allowed: contains, startswith"));
        assert!(wrong("uri|contains|re: x").contains("cannot be joined"));
        assert!(wrong("status_code|gt: many").contains("is no number"));
        assert!(wrong("uri: []").contains("empty") && wrong("uri: {a: b}").contains("a text is expected"));
        assert!(wrong("- word").contains("keywords"));
    }
}
