//! Sigma rules: a stated subset, compiled; everything else is refused with its place.
//!
//! Taken are `title`, `id`, `name`, `level`, `tags` (ATT&CK), `logsource`, `detection` with maps, lists of maps and a `condition`, the
//! modifiers `contains startswith endswith all re cidr gt gte lt lte exists cased`, and correlations of the types `event_count`,
//! `value_count` and `temporal`. What a rule says for people is read over; what would change its meaning is an error.

mod condition;
mod correlation;
mod detection;

pub use correlation::{Correlated, Counting, GROUPS_MAX, THRESHOLD_MAX};

use crate::expr::Expr;
use crate::record::{Kind, Origin, Record};
use crate::set::Level;
use crate::streams::Streams;
use crate::yaml::{self, Node, Place, What};

/// A rule that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {path}: {reason}")]
pub struct RuleError {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Which part of the rule.
    pub path: String,
    /// Why, and what is allowed.
    pub reason: String,
}

/// Which records a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Of this kind; any where left out.
    pub kind: Option<Kind>,
    /// Of this origin; any where left out.
    pub origin: Option<Origin>,
}

impl Source {
    /// Whether `record` is meant.
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        self.kind.is_none_or(|kind| kind == record.kind)
            && self.origin.is_none_or(|origin| origin == record.origin)
    }
}

/// What every rule says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its title.
    pub title: String,
    /// Names others may call it by: `name` and `id`.
    pub names: Vec<String>,
    /// Its level.
    pub level: Level,
    /// The first ATT&CK technique of its tags.
    pub technique: Option<String>,
    /// Where it is.
    pub file: String,
}

/// A rule over single records.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it says of itself.
    pub about: About,
    /// Which records it looks at.
    pub source: Source,
    /// What they must be.
    pub expr: Expr,
    /// It speaks for itself: no correlation has taken it as a part.
    pub speaks: bool,
}

/// Rules and their correlations.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// Rules over single records.
    pub rules: Vec<Rule>,
    /// Rules over several; their parts are places in `rules`.
    pub correlations: Vec<Correlated>,
}

/// Rules taken together, at most.
pub const RULES_MAX: usize = 10_000;
const LEVELS: &str = "informational, low, medium, high, critical";
/// What a rule may say beside its detection; all of it is for people.
const FOR_PEOPLE: [&str; 14] = [
    "title",
    "id",
    "name",
    "level",
    "tags",
    "status",
    "description",
    "references",
    "author",
    "date",
    "modified",
    "related",
    "falsepositives",
    "license",
];

/// A part of a rule, to point at.
struct At<'a> {
    file: &'a str,
    path: String,
}

impl At<'_> {
    fn under(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { file: self.file, path }
    }

    fn error(&self, place: Place, reason: impl Into<String>) -> RuleError {
        let path = if self.path.is_empty() { "rule".to_owned() } else { self.path.clone() };
        RuleError {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path,
            reason: reason.into(),
        }
    }

    fn text<'n>(&self, node: &'n Node) -> Result<&'n str, RuleError> {
        node.text()
            .ok_or_else(|| self.error(node.place, format!("it is {}; a text is expected", node.kind())))
    }

    fn map<'n>(&self, node: &'n Node) -> Result<&'n [(String, Place, Node)], RuleError> {
        match &node.what {
            What::Map(entries) => Ok(entries),
            _ => Err(self.error(node.place, format!("it is {}; a map is expected", node.kind()))),
        }
    }
}

/// A name that is not allowed, with those that are.
fn unknown(name: &str, allowed: &[&str]) -> String {
    let near = allowed.iter().min_by_key(|other| strsim::damerau_levenshtein(name, other));
    let near = near.filter(|other| strsim::damerau_levenshtein(name, other) <= 2);
    let hint = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
    format!("`{name}` is not supported{hint}; allowed: {}", allowed.join(", "))
}

/// Compiles the rules of several files, given by name and text; correlations may name rules of any of them.
///
/// # Errors
/// Every [`RuleError`] found, at most one per rule; then nothing is taken.
pub fn compile(files: &[(String, String)]) -> Result<Compiled, Vec<RuleError>> {
    compile_over(files, &Streams::default())
}

/// As [`compile`], where there are streams of results as well: the services of the product `tidegate`.
///
/// # Errors
/// As [`compile`].
pub fn compile_over(files: &[(String, String)], streams: &Streams) -> Result<Compiled, Vec<RuleError>> {
    let (mut compiled, mut errors, mut pending) = (Compiled::default(), Vec::new(), Vec::new());
    for (file, text) in files {
        let at = At { file, path: String::new() };
        let documents = match yaml::read(text) {
            Ok(documents) => documents,
            Err(error) => {
                errors.push(at.error(error.place, error.reason));
                continue;
            }
        };
        if documents.is_empty() {
            errors.push(at.error(Place { line: 1, column: 1 }, "there is no rule in it"));
        }
        for document in &documents {
            let correlation = document.get("correlation").is_some();
            let result = if correlation {
                correlation::read(&at, document).map(|read| pending.push(read))
            } else {
                rule(&at, document, streams).map(|rule| compiled.rules.push(rule))
            };
            errors.extend(result.err());
            if compiled.rules.len() + pending.len() > RULES_MAX {
                errors.push(at.error(document.place, format!("there are more than {RULES_MAX} rules")));
                return Err(errors);
            }
        }
    }
    for read in pending {
        match read.link(&mut compiled.rules, streams) {
            Ok(correlated) => compiled.correlations.push(correlated),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(compiled) } else { Err(errors) }
}

fn about(at: &At<'_>, document: &Node, more: &[&str]) -> Result<About, RuleError> {
    let entries = at.map(document)?;
    let allowed: Vec<&str> = more.iter().chain(&FOR_PEOPLE).copied().collect();
    for (name, place, _) in entries {
        if !allowed.contains(&name.as_str()) {
            return Err(at.under(name).error(*place, unknown(name, &allowed)));
        }
    }
    let optional =
        |name: &str| document.get(name).map(|node| at.under(name).text(node).map(str::to_owned)).transpose();
    let title = optional("title")?.filter(|title| !title.trim().is_empty());
    let title = title.ok_or_else(|| at.under("title").error(document.place, "every rule needs a title"))?;
    let level = match optional("level")? {
        None => Level::Medium,
        Some(text) => Level::parse(&text).ok_or_else(|| {
            let place = document.get("level").map_or(document.place, |node| node.place);
            at.under("level").error(place, format!("`{text}` is no level; allowed: {LEVELS}"))
        })?,
    };
    let mut technique = None;
    if let Some(node) = document.get("tags") {
        let at = at.under("tags");
        let What::List(tags) = &node.what else {
            return Err(at.error(node.place, "it must be a list of texts"));
        };
        for tag in tags {
            let tag = at.text(tag)?;
            let number =
                tag.strip_prefix("attack.t").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            technique = technique.or(number.map(|number| format!("T{number}")));
        }
    }
    let names = [optional("name")?, optional("id")?].into_iter().flatten().collect();
    Ok(About { title, names, level, technique, file: at.file.to_owned() })
}

fn rule(at: &At<'_>, document: &Node, streams: &Streams) -> Result<Rule, RuleError> {
    let about = about(at, document, &["logsource", "detection", "fields"])?;
    let missing = |name: &str, why: &str| at.under(name).error(document.place, why.to_owned());
    let node =
        document.get("logsource").ok_or_else(|| missing("logsource", "every rule needs a logsource"))?;
    let source = logsource(&at.under("logsource"), node, streams)?;
    let node =
        document.get("detection").ok_or_else(|| missing("detection", "every rule needs a detection"))?;
    let expr = detection::compile(&at.under("detection"), node, (source, streams))?;
    Ok(Rule { about, source, expr, speaks: true })
}

const SOURCES: &str = "product `zeek` with service `conn`, `dns` or `http`; product `suricata`, also with service `flow`, `dns` or `http`; \
                       category `firewall` or `network_connection` (flows), `dns` or `dns_query`, `proxy` or `webserver` (HTTP); product `tidegate` \
                       with the name of a stream of results, or `alert`, as service";

fn logsource(at: &At<'_>, node: &Node, streams: &Streams) -> Result<Source, RuleError> {
    let (mut product, mut service, mut category) = (None, None, None);
    for (name, place, node) in at.map(node)? {
        let slot = match name.as_str() {
            "product" => &mut product,
            "service" => &mut service,
            "category" => &mut category,
            "definition" => continue,
            other => {
                return Err(at
                    .under(name)
                    .error(*place, unknown(other, &["product", "service", "category", "definition"])));
            }
        };
        *slot = Some(at.under(name).text(node)?.to_owned());
    }
    if product.as_deref() == Some(OURS) {
        return results(at, node, (service.as_deref(), category.is_some()), streams);
    }
    let refuse = || at.error(node.place, format!("no records of this kind come by; allowed: {SOURCES}"));
    let of_service = |name: &str| match name {
        "conn" | "flow" => Some(Kind::Flow),
        "dns" => Some(Kind::Dns),
        "http" => Some(Kind::Http),
        _ => None,
    };
    let of_category = |name: &str| match name {
        "firewall" | "network_connection" => Some(Kind::Flow),
        "dns" | "dns_query" => Some(Kind::Dns),
        "proxy" | "webserver" => Some(Kind::Http),
        _ => None,
    };
    let kind = match (&service, &category) {
        (Some(service), None) => Some(of_service(service).ok_or_else(refuse)?),
        (None, Some(category)) => Some(of_category(category).ok_or_else(refuse)?),
        (Some(service), Some(category)) => {
            let kind = of_service(service).ok_or_else(refuse)?;
            if of_category(category) != Some(kind) {
                return Err(refuse());
            }
            Some(kind)
        }
        (None, None) => None,
    };
    match (product.as_deref(), kind) {
        (Some("suricata"), kind) => Ok(Source { kind, origin: Some(Origin::Eve) }),
        // Packets become the records that Zeek would write, so rules for its logs hold for them too.
        (Some("zeek") | None, Some(kind)) => Ok(Source { kind: Some(kind), origin: None }),
        _ => Err(refuse()),
    }
}

/// The product whose services are streams of results, and our own alerts.
const OURS: &str = "tidegate";

fn results(
    at: &At<'_>,
    node: &Node,
    (service, category): (Option<&str>, bool),
    streams: &Streams,
) -> Result<Source, RuleError> {
    let allowed: Vec<&str> = std::iter::once(Kind::Alert.name()).chain(streams.names()).collect();
    if category {
        return Err(at.error(node.place, format!("product `{OURS}` has services, and no categories")));
    }
    let Some(service) = service else {
        let why = format!("product `{OURS}` needs a service; allowed: {}", allowed.join(", "));
        return Err(at.error(node.place, why));
    };
    let kind = if service == Kind::Alert.name() { Some(Kind::Alert) } else { streams.kind(service) };
    match kind {
        Some(kind) => Ok(Source { kind: Some(kind), origin: None }),
        None => {
            let place = node.get("service").map_or(node.place, |node| node.place);
            let why = unknown(service, &allowed) + &streams.advice(service);
            Err(at.under("service").error(place, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: &str = "title: Odd port\nid: 1-2\nlevel: high\ntags: [attack.discovery, attack.t1046]\nlogsource: {product: zeek, service: conn}\n\
detection:\n  selection:\n    id.resp_p: [4444, 31337]\n  filter:\n    src_ip|cidr: 10.9.0.0/16\n  condition: selection and not filter\n";

    fn one(text: &str) -> Result<Compiled, Vec<RuleError>> {
        compile(&[("r.yml".to_owned(), text.to_owned())])
    }

    fn wrong(text: &str) -> String {
        let errors = one(text).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].to_string()
    }

    fn flow(port: f64, source: &'static str) -> Record {
        Record::new(Kind::Flow, Origin::Own, 0, (1, 1)).with("id.resp_p", port).with("id.orig_h", source)
    }

    #[test]
    fn a_rule_is_compiled() {
        let compiled = one(RULE).unwrap();
        let rule = &compiled.rules[0];
        assert_eq!((rule.about.level, rule.about.technique.as_deref()), (Level::High, Some("T1046")));
        assert!(rule.speaks && rule.source.takes(&flow(1.0, "")));
        let holds = |port, source| rule.expr.holds(&flow(port, source));
        assert!(holds(4444.0, "10.0.0.1") && holds(31337.0, "10.0.0.1"));
        assert!(!holds(443.0, "10.0.0.1") && !holds(4444.0, "10.9.1.1"));
    }

    #[test]
    fn mistakes_name_file_line_part_and_what_is_allowed() {
        let text = wrong(&RULE.replace("src_ip|cidr", "src_ip|cdir"));
        assert!(
            text.starts_with("r.yml:10:5: detection.filter.src_ip|cdir:")
                && text.contains("did you mean `cidr`"),
            "{text}"
        );
        let text = wrong(&RULE.replace("src_ip|cidr", "src_ipp|cidr"));
        assert!(text.contains("src_ipp") && text.contains("id.orig_h"), "{text}");
        let text = wrong(&RULE.replace("10.9.0.0/16", "10.9.0.0/99"));
        assert!(text.contains("r.yml:10") && text.contains("10.0.0.0/8"), "{text}");
        assert!(wrong(&RULE.replace("service: conn", "service: smtp")).contains("`conn`, `dns` or `http`"));
        assert!(wrong(&RULE.replace("level: high", "level: hot")).contains("informational, low"));
        assert!(wrong(&RULE.replace("title: Odd port\n", "")).contains("needs a title"));
        assert!(wrong(&RULE.replace("level: high", "lvl: high")).contains("did you mean `level`"));
        assert!(wrong(&RULE.replace("not filter", "not filer")).contains("no selection `filer`"));
        assert!(wrong("a: [1").contains("no YAML"));
        assert!(wrong("").contains("no rule in it"));
        // Every file is told of at once.
        let files = ["", "title: x\n"].map(|text| ("f".to_owned(), text.to_owned()));
        assert_eq!(compile(&files).unwrap_err().len(), 2);
    }

    proptest! {
        /// A rule with a piece of it gone, doubled or replaced is taken or refused with a line that exists.
        #[test]
        fn damaged_rules_are_refused_with_a_place(from in 0usize..330, length in 0usize..40, with in "[-:|*a-z0-9 \n{}\\[\\]'\"]{0,8}") {
            let from = from.min(RULE.len());
            let to = (from + length).min(RULE.len());
            let text = format!("{}{with}{}", &RULE[..from], &RULE[to..]);
            if let Err(errors) = one(&text) {
                for error in errors {
                    prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 1, "{error}");
                    prop_assert!(!error.reason.is_empty());
                }
            }
        }
    }
}
