//! Sigma's correlations: `event_count`, `value_count` and `temporal`, over windows that end with the newest record.

use super::{About, At, Rule, RuleError, Source, about, unknown};
use crate::record::{Key, Kind, Record};
use crate::span;
use crate::streams::Streams;
use crate::yaml::{Node, Place, What};
use std::collections::VecDeque;
use tidegate_flow::hash::{Recent, hash_of};

/// Groups of one correlation remembered; beyond it those not touched for longest are forgotten, and counted.
pub const GROUPS_MAX: usize = 16_384;
/// Highest count a correlation may wait for: a group keeps so many instants.
pub const THRESHOLD_MAX: u64 = 1_000;
/// Rules of one temporal correlation.
const RULES_MAX: usize = 16;
/// Fields to group by.
const GROUP_BY_MAX: usize = 8;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counting {
    /// Records that meet one of the rules.
    Events,
    /// Different values of this field in them.
    Values(Key),
    /// Rules met, each at least once.
    Rules,
}

/// A correlation over rules.
#[derive(Debug, Clone)]
pub struct Correlated {
    /// What it says of itself.
    pub about: About,
    /// Places of its rules.
    pub rules: Vec<usize>,
    /// What is counted.
    pub counting: Counting,
    /// From how many on it speaks.
    pub threshold: u64,
    /// Length of the window, ns.
    pub span_ns: u64,
    /// Fields whose values make a group; empty for one group of all.
    pub group_by: Vec<Key>,
    groups: Recent<u64, Group>,
}

/// One group: the newest instants that matter.
#[derive(Debug, Clone, Default)]
struct Group {
    /// Time, first unit, and what it was: 0, hash of the value, or place of the rule.
    seen: VecDeque<(u64, u64, u64)>,
}

/// A correlation that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// How many were counted.
    pub count: u64,
    /// Oldest instant counted, ns.
    pub first_ts: u64,
    /// First unit counted.
    pub first_unit: u64,
}

impl Correlated {
    /// Takes a record that met the rule at place `rule` in [`Self::rules`]. A record that lacks a field of the group, or the one whose values
    /// are counted, counts for nothing.
    pub fn take(&mut self, rule: usize, record: &Record) -> Option<Met> {
        let mut key = 0u64;
        for field in &self.group_by {
            let value = record.values(field).next()?;
            key = hash_of(&(key, value.text().as_ref()));
        }
        let what = match &self.counting {
            Counting::Events => 0,
            Counting::Values(field) => hash_of(record.values(field).next()?.text().as_ref()),
            Counting::Rules => rule as u64,
        };
        let group = self.groups.entry(key, Group::default);
        let seen = &mut group.seen;
        // What is counted once moves to the end when it is seen again.
        if self.counting != Counting::Events {
            seen.retain(|(_, _, other)| *other != what);
        }
        let ts = record.ts.max(seen.back().map_or(0, |newest| newest.0));
        seen.push_back((ts, record.units.0, what));
        while seen.front().is_some_and(|oldest| ts - oldest.0 > self.span_ns)
            || seen.len() as u64 > self.threshold
        {
            seen.pop_front();
        }
        let (first_ts, _, _) = *seen.front()?;
        let first_unit = seen.iter().map(|(_, unit, _)| *unit).min().unwrap_or(record.units.0);
        (seen.len() as u64 >= self.threshold).then_some(Met {
            count: seen.len() as u64,
            first_ts,
            first_unit,
        })
    }

    /// The group of a record, in words.
    #[must_use]
    pub fn group(&self, record: &Record) -> String {
        let values = self.group_by.iter().filter_map(|field| record.values(field).next());
        values.map(|value| value.text().into_owned()).collect::<Vec<_>>().join(",")
    }

    /// Groups forgotten for lack of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.groups.dropped()
    }
}

/// A correlation whose rules are not looked up yet.
pub(super) struct Read {
    about: About,
    names: Vec<(String, Place)>,
    counting: String,
    field: Option<(String, Place)>,
    threshold: u64,
    span_ns: u64,
    group_by: Vec<(String, Place)>,
    generate: bool,
}

const PARTS: [&str; 6] = ["type", "rules", "group-by", "timespan", "condition", "generate"];
const TYPES: [&str; 3] = ["event_count", "value_count", "temporal"];

pub(super) fn read(at: &At<'_>, document: &Node) -> Result<Read, RuleError> {
    let about = about(at, document, &["correlation"])?;
    let at = at.under("correlation");
    let node = document.get("correlation").unwrap_or(document);
    for (name, place, _) in at.map(node)? {
        if !PARTS.contains(&name.as_str()) {
            return Err(at.under(name).error(*place, unknown(name, &PARTS)));
        }
    }
    let need = |name: &str| {
        node.get(name).ok_or_else(|| at.under(name).error(node.place, "every correlation needs it"))
    };
    let texts = |name: &str, node: &Node| -> Result<Vec<(String, Place)>, RuleError> {
        let at = at.under(name);
        match &node.what {
            What::List(items) => {
                items.iter().map(|item| Ok((at.text(item)?.to_owned(), item.place))).collect()
            }
            _ => Ok(vec![(at.text(node)?.to_owned(), node.place)]),
        }
    };
    let counting = need("type")?;
    let counting_text = at.under("type").text(counting)?;
    if !TYPES.contains(&counting_text) {
        return Err(at.under("type").error(counting.place, unknown(counting_text, &TYPES)));
    }
    let rules = need("rules")?;
    let names = texts("rules", rules)?;
    if names.is_empty() || names.len() > RULES_MAX || (counting_text == "temporal" && names.len() < 2) {
        let least = if counting_text == "temporal" { 2 } else { 1 };
        return Err(at
            .under("rules")
            .error(rules.place, format!("{least} to {RULES_MAX} rules are expected")));
    }
    let group_by = node.get("group-by").map(|node| texts("group-by", node)).transpose()?.unwrap_or_default();
    if group_by.len() > GROUP_BY_MAX {
        return Err(at
            .under("group-by")
            .error(node.place, format!("at most {GROUP_BY_MAX} fields are expected")));
    }
    let timespan = need("timespan")?;
    let text = at.under("timespan").text(timespan)?;
    let span_ns = span::parse(text).ok_or_else(|| {
        at.under("timespan").error(timespan.place, format!("`{text}` is no span; allowed: {}", span::ALLOWED))
    })?;
    let (mut threshold, mut field) = (names.len() as u64, None);
    match (counting_text, node.get("condition")) {
        ("temporal", None) => {}
        ("temporal", Some(node)) => {
            return Err(at
                .under("condition")
                .error(node.place, "`temporal` takes no condition: all its rules must be met"));
        }
        (_, None) => {
            return Err(at
                .under("condition")
                .error(node.place, "this type needs a condition such as `gte: 10`"));
        }
        (kind, Some(node)) => (threshold, field) = condition(&at.under("condition"), node, kind)?,
    }
    let generate = match node.get("generate").map(|node| (at.under("generate").text(node), node.place)) {
        None => false,
        Some((text, place)) => match text? {
            "true" => true,
            "false" => false,
            other => {
                return Err(at
                    .under("generate")
                    .error(place, format!("`{other}` is neither true nor false")));
            }
        },
    };
    Ok(Read {
        about,
        names,
        counting: counting_text.to_owned(),
        field,
        threshold,
        span_ns,
        group_by,
        generate,
    })
}

/// The threshold, and the field whose values count.
fn condition(at: &At<'_>, node: &Node, kind: &str) -> Result<(u64, Option<(String, Place)>), RuleError> {
    let (mut threshold, mut field) = (None, None);
    for (name, place, value) in at.map(node)? {
        let at = at.under(name);
        let text = at.text(value)?;
        let number = || {
            let number = text.parse::<u64>().ok().filter(|number| (1..=THRESHOLD_MAX).contains(number));
            number.ok_or_else(|| {
                at.error(value.place, format!("`{text}` is not between 1 and {THRESHOLD_MAX}"))
            })
        };
        let least = match name.as_str() {
            "gte" | "eq" => number()?,
            "gt" => number()? + 1,
            "lt" | "lte" => {
                let why = format!(
                    "`{name}` is not supported: that something does not happen cannot be told by a record; allowed: gte, gt, eq"
                );
                return Err(at.error(*place, why));
            }
            "field" if kind == "value_count" => {
                field = Some((text.to_owned(), value.place));
                continue;
            }
            other => return Err(at.error(*place, unknown(other, &["gte", "gt", "eq", "field"]))),
        };
        if threshold.replace(least).is_some() {
            return Err(at.error(*place, "one bound is expected"));
        }
    }
    let threshold = threshold.ok_or_else(|| at.error(node.place, "a bound is expected: gte, gt or eq"))?;
    if kind == "value_count" && field.is_none() {
        return Err(at.error(node.place, "`value_count` needs the `field` whose values are counted"));
    }
    Ok((threshold, field))
}

impl Read {
    /// Looks up its rules and fields.
    pub(super) fn link(self, all: &mut [Rule], streams: &Streams) -> Result<Correlated, RuleError> {
        let file = self.about.file.clone();
        let at = At { file: &file, path: "correlation".to_owned() };
        let mut rules = Vec::new();
        for (name, place) in &self.names {
            let found = all.iter().position(|rule| rule.about.names.contains(name));
            let found = found.ok_or_else(|| {
                at.under("rules").error(
                    *place,
                    format!(
                        "no rule has the name or id `{name}`; correlations of correlations are not supported"
                    ),
                )
            })?;
            if rules.contains(&found) {
                return Err(at.under("rules").error(*place, format!("`{name}` is there twice")));
            }
            rules.push(found);
        }
        let sources: Vec<Source> = rules.iter().map(|&rule| all[rule].source).collect();
        if let Some((rule, why)) = streams.mixed(sources.iter().map(|source| source.kind)) {
            let place = self.names.get(rule).map_or(Place { line: 1, column: 1 }, |(_, place)| *place);
            return Err(at.under("rules").error(place, why));
        }
        let key = |part: &str, name: &str, place: Place| -> Result<Key, RuleError> {
            let mut key = None;
            for source in &sources {
                let kind =
                    if source.origin.is_some() { Kind::Other } else { source.kind.unwrap_or(Kind::Other) };
                let found = streams.field(kind, name).ok_or_else(|| {
                    let (whose, allowed) = (streams.name_of(kind), streams.field_names(kind));
                    let why = format!("records of {whose} have no such field: {}", unknown(name, &allowed));
                    at.under(part).error(place, why)
                })?;
                key = Some(found.0);
            }
            key.ok_or_else(|| at.under(part).error(place, "there is no rule to take it from"))
        };
        let group_by = self
            .group_by
            .iter()
            .map(|(name, place)| key("group-by", name, *place))
            .collect::<Result<_, _>>()?;
        let counting = match (self.counting.as_str(), &self.field) {
            ("value_count", Some((name, place))) => Counting::Values(key("condition.field", name, *place)?),
            ("temporal", _) => Counting::Rules,
            _ => Counting::Events,
        };
        if !self.generate {
            rules.iter().for_each(|&rule| all[rule].speaks = false);
        }
        Ok(Correlated {
            about: self.about,
            rules,
            counting,
            threshold: self.threshold,
            span_ns: self.span_ns,
            group_by,
            groups: Recent::new(GROUPS_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;
    use crate::sigma::compile;
    use proptest::prelude::*;

    const BASE: &str = "title: a\nname: a\nlogsource: {product: zeek, service: conn}\ndetection: {s: {conn_state: S0}, condition: s}\n---\n\
title: b\nname: b\nlogsource: {product: zeek, service: conn}\ndetection: {s: {conn_state: REJ}, condition: s}\n---\n";

    fn correlated(part: &str) -> Correlated {
        let text = format!("{BASE}title: c\ncorrelation: {{{part}}}\n");
        let mut compiled = compile(&[("r".to_owned(), text)]).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert!(compiled.rules.iter().any(|rule| !rule.speaks));
        compiled.correlations.remove(0)
    }

    fn flow(seconds: u64, source: u8, port: u8) -> Record {
        Record::new(Kind::Flow, Origin::Own, seconds * 1_000_000_000, (seconds + 1, seconds + 1))
            .with("id.orig_h", source.to_string())
            .with("id.resp_p", f64::from(port))
    }

    #[test]
    fn events_are_counted_per_group_and_window() {
        let mut counted = correlated(
            "type: event_count, rules: [a], group-by: [src_ip], timespan: 10s, condition: {gte: 3}",
        );
        let met: Vec<bool> = [(0, 1), (1, 1), (1, 2), (10, 1), (11, 1), (12, 2), (30, 1)]
            .map(|(seconds, source)| counted.take(0, &flow(seconds, source, 1)).is_some())
            .to_vec();
        assert_eq!(met, [false, false, false, true, true, false, false]);
        let met = [31, 32].map(|seconds| counted.take(0, &flow(seconds, 1, 1)))[1].unwrap();
        assert_eq!((met.count, met.first_ts, met.first_unit), (3, 30_000_000_000, 31));
        assert_eq!(counted.group(&flow(0, 7, 1)), "7");
        assert!(counted.take(0, &Record::new(Kind::Flow, Origin::Own, 0, (1, 1))).is_none(), "no group");
    }

    #[test]
    fn rules_of_a_temporal_one_come_in_any_order() {
        let mut counted = correlated("type: temporal, rules: [a, b], timespan: 1m");
        assert!(counted.take(1, &flow(0, 1, 1)).is_none() && counted.take(1, &flow(50, 2, 1)).is_none());
        assert!(counted.take(0, &flow(70, 3, 1)).is_some(), "b was met again at 50 s");
        assert!(counted.take(1, &flow(200, 3, 1)).is_none());
    }

    #[test]
    fn refused_with_a_reason() {
        let wrong = |part: &str| {
            let text = format!("{BASE}title: c\ncorrelation:\n  {}\n", part.replace(", ", "\n  "));
            compile(&[("r".to_owned(), text)]).unwrap_err()[0].to_string()
        };
        let good = "type: event_count, rules: a, timespan: 10s, condition: {gte: 3}";
        assert!(wrong(&good.replace("event_count", "event_cuont")).contains("did you mean `event_count`"));
        assert!(
            wrong(&good.replace("event_count", "value_sum"))
                .contains("allowed: event_count, value_count, temporal")
        );
        assert!(wrong(&good.replace("rules: a", "rules: z")).contains("no rule has the name or id `z`"));
        assert!(wrong(&good.replace("10s", "10 days")).contains("such as 5m"));
        assert!(wrong(&good.replace("gte: 3", "lt: 3")).contains("does not happen"));
        assert!(wrong(&good.replace("gte: 3", "gte: 0")).contains("between 1 and 1000"));
        assert!(wrong(&good.replace("event_count", "value_count")).contains("needs the `field`"));
        assert!(wrong(&good.replace(", condition: {gte: 3}", "")).contains("gte: 10"));
        assert!(wrong(&good.replace("event_count", "temporal")).contains("2 to 16"));
        assert!(
            wrong("type: event_count, rules: a, timespan: 10s, condition: {gte: 3}, group-by: urii")
                .contains("group-by")
        );
        assert!(wrong(&format!("{good}, aliases: x")).contains("aliases"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut counted =
            correlated("type: event_count, rules: [a], group-by: [uid], timespan: 1d, condition: {gte: 2}");
        for n in 0..40_000u64 {
            let record = Record::new(Kind::Flow, Origin::Own, n, (n, n)).with("uid", n.to_string());
            counted.take(0, &record);
        }
        assert!(counted.groups.len() <= GROUPS_MAX && counted.forgotten() >= 40_000 - GROUPS_MAX as u64);
    }

    proptest! {
        /// Against counting everything again for every record.
        #[test]
        fn counts_are_those_of_the_window(
            steps in prop::collection::vec((0u64..5, 0u8..2, 0u8..4), 1..60),
            threshold in 1u64..5,
            values in any::<bool>(),
        ) {
            let kind = if values {
                format!("type: value_count, condition: {{field: dst_port, gte: {threshold}}}")
            } else {
                format!("type: event_count, condition: {{gte: {threshold}}}")
            };
            let mut counted = correlated(&format!("{kind}, rules: [a], group-by: [src_ip], timespan: 7s"));
            let (mut now, mut all) = (0, Vec::new());
            for (step, source, port) in steps {
                now += step;
                all.push((now, source, port));
                let window = all.iter().filter(|(at, other, _)| now - at <= 7 && *other == source);
                let count = if values {
                    window.map(|(_, _, port)| *port).collect::<std::collections::BTreeSet<_>>().len()
                } else {
                    window.count()
                };
                let met = counted.take(0, &flow(now, source, port));
                prop_assert_eq!(met.is_some(), count as u64 >= threshold);
            }
        }
    }
}
